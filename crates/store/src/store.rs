//! The store: opened once, shared by cloning.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use vocabulary::UnixTime;

use crate::database::{Database, PostgresUrl, SqliteFile};
use crate::engine::tunnel::Tunnel;
use crate::engine::{Alone, Locks, Reading};
use crate::error::{CommitError, OpenError, ReadError};
use crate::limits::{READERS, READERS_SERVER};
use crate::transaction::{Committed, Transaction};
use crate::writer::Request;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where the state lies.
    pub database: Database,
    /// Connections that read.
    pub readers: u32,
    /// Accepts this time as right though later ones were committed: an operator's word after a clock was wrong.
    pub accept_clock: Option<UnixTime>,
}

impl StoreConfig {
    /// The usual for a file of `SQLite`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { database: Database::Sqlite(SqliteFile::new(path)), readers: READERS, accept_clock: None }
    }
    /// The usual for a server of `PostgreSQL`.
    #[must_use]
    pub const fn postgres(url: PostgresUrl) -> Self {
        Self { database: Database::Postgres(url), readers: READERS_SERVER, accept_clock: None }
    }
}

/// Who is told of commits, once somebody is.
pub(crate) type Observing = Arc<std::sync::OnceLock<Arc<dyn crate::observe::Observer>>>;

/// The state of a deployment. Clones share one writer.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) reading: Reading,
    pub(crate) locks: Locks,
    pub(crate) latest: watch::Receiver<u64>,
    pub(crate) high_water: watch::Receiver<UnixTime>,
    pub(crate) close: watch::Sender<bool>,
    pub(crate) observer: Observing,
    pub(crate) tasks: Mutex<JoinSet<()>>,
    /// Held until the store is closed or gone.
    pub(crate) owned: Mutex<Option<Owned>>,
}

/// What makes the database reachable.
#[derive(Debug)]
pub(crate) enum Owned {
    /// The lock of a file: one process owns it.
    File(#[expect(dead_code, reason = "the kernel reads it")] std::fs::File),
    /// The way to a server.
    Server(#[expect(dead_code, reason = "carries until it is dropped")] Option<Tunnel>),
}

impl Store {
    /// Opens or makes the database, brings it to the newest schema and starts the writer.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        crate::open::open(config).await
    }

    /// Applies a transaction whole or not at all, and answers when it is on disk.
    ///
    /// Dropping the future does not undo it: what was handed to the writer is decided there.
    pub async fn commit(&self, transaction: Transaction, now: UnixTime) -> Result<Committed, CommitError> {
        crate::writer::validate(&transaction)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { transaction, now, answer };
        let begun = tokio::time::Instant::now();
        self.inner.requests.send(request).await.map_err(|_| CommitError::Closed)?;
        let answer = answered.await.map_err(|_| CommitError::Closed)?;
        if let Some(observer) = self.inner.observer.get() {
            observer.answered(begun.elapsed(), answer.is_ok());
        }
        answer
    }

    /// Tells somebody of every commit from now on. The first who asks is told; says whether that is this one.
    pub fn observe(&self, observer: Arc<dyn crate::observe::Observer>) -> bool {
        self.inner.observer.set(observer).is_ok()
    }

    /// Whether other processes may use the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.locks, Locks::Server(_))
    }

    /// Waits until no other process holds this lock, and holds it. Within one process the caller has its own.
    pub async fn alone(&self, what: &str, id: [u8; 16]) -> Result<Alone, ReadError> {
        let mut name = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        name.update(what.as_bytes());
        name.update(&id);
        let name = name.finish();
        let first = name.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        self.inner.locks.take(i64::from_be_bytes(first)).await
    }

    /// The place of the last committed change.
    #[must_use]
    pub fn latest_change(&self) -> u64 {
        *self.inner.latest.borrow()
    }

    /// The latest time that was committed.
    #[must_use]
    pub fn high_water(&self) -> UnixTime {
        *self.inner.high_water.borrow()
    }

    /// By how many milliseconds the clock lies behind a committed time, when that is more than skew: then nothing that
    /// compares times may be decided.
    #[must_use]
    pub fn clock_behind(&self, now: UnixTime) -> Option<u64> {
        self.high_water().since(now).filter(|behind| *behind > crate::limits::CLOCK_BACK_MS)
    }

    /// Lets the writer finish what it took, refuses the rest and closes the files.
    pub async fn close(&self) {
        self.inner.close.send_replace(true);
        let mut tasks = self.inner.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        self.inner.locks.close().await;
        self.inner.owned.lock().await.take();
    }
}
