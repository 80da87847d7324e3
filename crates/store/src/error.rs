//! What can go wrong, and what to do then.

use std::path::PathBuf;

use crate::engine::{Trouble, trouble};
use vocabulary::UnixTime;
use vocabulary::volume::RootHead;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is no database of ours.
    #[error("`{path}` is not a database: it begins with other bytes; restore it from a backup or point `--data-dir` elsewhere")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error("the database `{path}` is damaged ({detail}); keep the file, restore the newest backup, nothing was changed")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the check found.
        detail: String,
    },
    /// A newer program wrote it.
    #[error("the database has schema version {found}, this program knows up to {known}; start the newer version of swarm")]
    Newer {
        /// The version of the database.
        found: u64,
        /// The newest version that this program knows.
        known: u64,
    },
    /// Another process uses it.
    #[error("the database `{path}` is in use by another process; stop that one first, one control plane owns the file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("the disk of `{path}` is full; make room and start again, nothing was lost")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The database cannot be written.
    #[error("the database `{path}` cannot be written; check the owner, the mode and the mount")]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The server is not there.
    #[error("the database server {server} cannot be reached ({detail}); check that it runs, its address and its access rules")]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        detail: String,
    },
    /// The server does not let us in.
    #[error("the database server {server} refuses us ({detail}); check the user, the database and the password file")]
    NotLetIn {
        /// Where.
        server: String,
        /// Why.
        detail: String,
    },
    /// The server is too old.
    #[error("the database server has version {found}, this program needs {least} or newer; upgrade the server")]
    ServerVersion {
        /// The server's.
        found: String,
        /// The oldest that will do.
        least: u64,
    },
    /// The server takes no writes.
    #[error("the database server {server} is read-only (a standby, or set so); name the primary")]
    ServerReadOnly {
        /// Where.
        server: String,
    },
    /// The database is another program's, or of no use to us.
    #[error("the database `{database}` is not ours: {detail}; make a database of its own for swarm")]
    Foreign {
        /// Its name.
        database: String,
        /// What was found.
        detail: String,
    },
    /// Row-level security does not bind this user.
    #[error("the user `{user}` is a superuser or bypasses row-level security; make a user without these rights for swarm")]
    Unfenced {
        /// Its name.
        user: String,
    },
    /// A file could not be read or made.
    #[error("`{path}` cannot be opened")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The engine refused.
    #[error("the database cannot be opened")]
    Engine(#[source] sqlx::Error),
    /// The counters contradict the rows: somebody put back an older file or edited it.
    #[error("the database contradicts itself: {detail}; keep the file and restore the newest backup")]
    Contradiction {
        /// What.
        detail: String,
    },
}

/// Why one mutation did not fit the state that it found. Nothing of its transaction was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// It must exist and does not (or belongs to another tenant, which is the same).
    #[error("it does not exist")]
    Absent,
    /// It must not exist and does, or did.
    #[error("it exists already")]
    Exists,
    /// Somebody changed it meanwhile.
    #[error("its revision is {actual}, not the expected one")]
    Revision {
        /// The revision it has.
        actual: u64,
    },
    /// The name is taken.
    #[error("the name is taken")]
    NameTaken,
    /// It is in another state.
    #[error("its state is `{actual}`, not the expected one")]
    State {
        /// The state it is in.
        actual: String,
    },
    /// It may be used once and was used, ended, or does not belong to this use.
    #[error("it was used already, has ended, or is not meant for this")]
    Spent,
    /// Too early after failures.
    #[error("refused until {until} after failed logins")]
    Delayed {
        /// When the next turn is.
        until: UnixTime,
    },
    /// The head of the volume is another.
    #[error("the volume's head is sequence {}, not the expected one", actual.seq)]
    Head {
        /// The head.
        actual: RootHead,
    },
    /// Another writer epoch is the newest.
    #[error("the newest writer epoch is {newest}")]
    WriterEpoch {
        /// It.
        newest: u64,
    },
    /// Another holder has taken over.
    #[error("the lease is held by another, fencing token {token}")]
    Fenced {
        /// The token of the present holder.
        token: u64,
    },
    /// A position moved meanwhile, or would go back.
    #[error("the position is {actual}, not the expected one")]
    Position {
        /// Where it is.
        actual: u64,
    },
    /// The clock lies behind a time that was committed, so that nothing that compares times is decided.
    #[error("the clock says {now}, but {high_water} was committed before; set the clock right")]
    ClockBack {
        /// What the clock says.
        now: UnixTime,
        /// The latest committed time.
        high_water: UnixTime,
    },
}

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A mutation did not fit; nothing was applied.
    #[error("mutation {mutation}: {conflict}")]
    Conflict {
        /// Its place in the transaction, from 0.
        mutation: usize,
        /// Why.
        conflict: Conflict,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request; use a new key for a new request")]
    KeyReused,
    /// A part is larger than its limit.
    #[error("{what} exceeds its limit of {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The transaction says something that cannot be stored.
    #[error("{0}")]
    Invalid(&'static str),
    /// The disk is full. Nothing was applied; it may be tried again when there is room.
    #[error("the disk is full; make room, nothing was changed and nothing acknowledged is lost")]
    Full,
    /// The database cannot be written. Nothing was applied.
    #[error("the database cannot be written; check the disk and the mount, nothing was changed")]
    ReadOnly,
    /// The disk gave an error. Nothing is acknowledged; whether it was written is known when the disk is whole again.
    #[error("the disk of the database failed; repair it and start the server again, nothing acknowledged is lost")]
    Broken,
    /// The server is away, or was not done in time. Nothing was applied.
    #[error("the database server does not answer; nothing was changed, try again")]
    Unavailable,
    /// The link broke while it was committed, and the server cannot be asked. Asking again with the same idempotency key tells.
    #[error("the connection to the database broke while it committed; repeat the request with the same idempotency key to learn what became of it")]
    Unknown,
    /// The engine failed. Nothing was applied.
    #[error("the database failed")]
    Engine(#[source] std::sync::Arc<sqlx::Error>),
    /// A stored row cannot be understood.
    #[error("the database holds a row that cannot be understood: {0}")]
    Malformed(&'static str),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl CommitError {
    /// The conflict, if it is one.
    #[must_use]
    pub const fn conflict(&self) -> Option<&Conflict> {
        if let Self::Conflict { conflict, .. } = self { Some(conflict) } else { None }
    }
}

impl ReadError {
    /// Whether the database is away, or was not done in time: the same question may be answered a little later.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Engine(error) if matches!(trouble(error), Trouble::Away | Trouble::Slow | Trouble::Again))
    }
}

/// Why a read failed. Absence is no error.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed.
    #[error("the database failed")]
    Engine(#[source] sqlx::Error),
    /// A row cannot be understood.
    #[error("the database holds a row that cannot be understood: {0}")]
    Malformed(&'static str),
    /// The body of a resource is not what the caller takes it for.
    #[error("the body of a `{kind}` cannot be read")]
    Body {
        /// The kind.
        kind: String,
        /// Why.
        source: serde_json::Error,
    },
}
