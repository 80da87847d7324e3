//! The one place that speaks to the databases' drivers: binds in, rows out.

mod alone;
pub(crate) mod postgres;
mod row;
pub(crate) mod sqlite;
mod trouble;
pub(crate) mod tunnel;

pub use alone::Alone;
pub(crate) use alone::Locks;
pub(crate) use row::{Malformed, Row};
pub(crate) use trouble::{Trouble, trouble};

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use vocabulary::UnixTime;

use crate::convert::millis;
use crate::sql::Statement;
use postgres::PostgresLink;

/// A value for a placeholder. Nulls carry their type: `PostgreSQL` wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bind {
    Bytes(Option<Vec<u8>>),
    Text(Option<String>),
    Int(Option<i64>),
    Bool(bool),
}

impl From<&[u8]> for Bind {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(Some(bytes.to_vec()))
    }
}
impl<const N: usize> From<&[u8; N]> for Bind {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(Some(bytes.to_vec()))
    }
}
impl<const N: usize> From<Option<&[u8; N]>> for Bind {
    fn from(bytes: Option<&[u8; N]>) -> Self {
        Self::Bytes(bytes.map(|bytes| bytes.to_vec()))
    }
}
impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}
impl From<Option<&str>> for Bind {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}
impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}
impl From<u32> for Bind {
    fn from(number: u32) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}
impl From<u8> for Bind {
    fn from(number: u8) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}
impl From<UnixTime> for Bind {
    fn from(time: UnixTime) -> Self {
        Self::Int(Some(millis(time)))
    }
}
impl From<Option<UnixTime>> for Bind {
    fn from(time: Option<UnixTime>) -> Self {
        Self::Int(time.map(millis))
    }
}
impl From<bool> for Bind {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// `binds![a, b]`: the values in the order of the placeholders.
macro_rules! binds {
    ($($value:expr),* $(,)?) => { vec![$($crate::engine::Bind::from($value)),*] };
}
pub(crate) use binds;

/// Notes which statements ran with which values; only the tests of this crate look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    #[cfg(test)]
    pub(crate) seen: std::sync::Arc<std::sync::Mutex<Vec<Ran>>>,
}

/// A statement that ran, with its values.
#[cfg(test)]
pub(crate) type Ran = (Statement, Vec<Bind>);

impl Recorder {
    #[cfg(test)]
    fn note(&self, statement: Statement, binds: &[Bind]) {
        self.seen.lock().unwrap().push((statement, binds.to_vec()));
    }
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests' version uses it")]
    const fn note(&self, _statement: Statement, _binds: &[Bind]) {}
}

/// Text with a NUL is refused before it reaches a database: `PostgreSQL` cannot hold it, and what one database takes the
/// other takes too.
fn storable(binds: &[Bind]) -> bool {
    !binds.iter().any(|bind| matches!(bind, Bind::Text(Some(text)) if text.contains('\0')))
}

/// The connection that writes: one, in the hands of the writer task.
pub(crate) struct Writing {
    link: Link,
    pub(crate) recorder: Recorder,
}

enum Link {
    Sqlite(SqliteConnection),
    Postgres(Box<PostgresLink>),
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Commit {
    /// It is on disk.
    Done,
    /// Nothing of it is there, or ever will be.
    Undone(sqlx::Error),
    /// The link broke while it was on its way, and the database could not be asked what became of it.
    Unknown(sqlx::Error),
}

impl Writing {
    pub(crate) const fn sqlite(connection: SqliteConnection, recorder: Recorder) -> Self {
        Self { link: Link::Sqlite(connection), recorder }
    }
    pub(crate) fn postgres(link: PostgresLink, recorder: Recorder) -> Self {
        Self { link: Link::Postgres(Box::new(link)), recorder }
    }
    /// The file's connection, for what only `SQLite` has.
    pub(crate) fn file(&mut self) -> Option<&mut SqliteConnection> {
        match &mut self.link {
            Link::Sqlite(connection) => Some(connection),
            Link::Postgres(_) => None,
        }
    }

    /// Runs a statement and says how many rows it changed.
    pub(crate) async fn execute(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<u64, sqlx::Error> {
        self.recorder.note(statement, &binds);
        if !storable(&binds) {
            return Err(trouble::unstorable());
        }
        match &mut self.link {
            Link::Sqlite(connection) => sqlite::execute(connection, statement, binds).await,
            Link::Postgres(link) => link.execute(statement, binds).await,
        }
    }
    /// Runs a statement and takes its rows.
    pub(crate) async fn rows(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<Vec<Row>, sqlx::Error> {
        self.recorder.note(statement, &binds);
        if !storable(&binds) {
            return Err(trouble::unstorable());
        }
        match &mut self.link {
            Link::Sqlite(connection) => sqlite::rows(connection, statement, binds).await,
            Link::Postgres(link) => link.rows(statement, binds).await,
        }
    }
    /// Runs a statement and takes its first row.
    pub(crate) async fn row(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.rows(statement, binds).await?.into_iter().next())
    }

    /// Begins a transaction beside which no other writes, in this process or another. Gives the latest time that another
    /// process may have committed.
    pub(crate) async fn begin(&mut self) -> Result<Option<UnixTime>, sqlx::Error> {
        match &mut self.link {
            Link::Sqlite(connection) => sqlite::control(connection, "BEGIN IMMEDIATE").await.map(|()| None),
            Link::Postgres(link) => link.begin().await.map(Some),
        }
    }
    /// Begins a savepoint.
    pub(crate) async fn savepoint(&mut self) -> Result<(), sqlx::Error> {
        match &mut self.link {
            Link::Sqlite(connection) => sqlite::control(connection, "SAVEPOINT one").await,
            Link::Postgres(link) => {
                link.savepoint();
                Ok(())
            }
        }
    }
    /// Ends the savepoint, with or without what was done in it.
    pub(crate) async fn release(&mut self, keep: bool) -> Result<(), sqlx::Error> {
        match &mut self.link {
            Link::Sqlite(connection) => {
                if !keep {
                    sqlite::control(connection, "ROLLBACK TO one").await?;
                }
                sqlite::control(connection, "RELEASE one").await
            }
            Link::Postgres(link) => link.release(keep).await,
        }
    }
    /// Commits. A commit whose answer was lost is looked up before this returns.
    pub(crate) async fn commit(&mut self) -> Commit {
        match &mut self.link {
            Link::Sqlite(connection) => match sqlite::control(connection, "COMMIT").await {
                Ok(()) => Commit::Done,
                Err(error) => Commit::Undone(error),
            },
            Link::Postgres(link) => link.commit().await,
        }
    }
    /// Ends a transaction that failed, so that the next one can begin.
    pub(crate) async fn abandon(&mut self) {
        let ended = match &mut self.link {
            // SQLite may have rolled back by itself: then there is nothing to roll back, which is what is wanted.
            Link::Sqlite(connection) => sqlite::control(connection, "ROLLBACK").await,
            Link::Postgres(link) => {
                link.abandon().await;
                Ok(())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "nothing to roll back");
        }
    }
    /// How long a group is tried again.
    pub(crate) fn patience(&self) -> std::time::Duration {
        match &self.link {
            Link::Sqlite(_) => std::time::Duration::ZERO,
            Link::Postgres(link) => link.patience(),
        }
    }
    /// Whether a server was waited for in vain.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(&self.link, Link::Postgres(link) if link.gave_up())
    }
    /// The server's connection, for what only `PostgreSQL` has.
    pub(crate) fn server(&mut self) -> Option<&mut sqlx::PgConnection> {
        match &mut self.link {
            Link::Sqlite(_) => None,
            Link::Postgres(link) => link.server(),
        }
    }
    /// Runs the text of a migration.
    pub(crate) async fn script(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        match &mut self.link {
            Link::Sqlite(connection) => sqlite::control(connection, text).await,
            Link::Postgres(link) => link.script(text).await,
        }
    }
    /// Closes the connection; the last one of `SQLite` empties the write-ahead log into the file.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self.link {
            Link::Sqlite(connection) => sqlx::Connection::close(connection).await,
            Link::Postgres(link) => link.close().await,
        }
    }
}

/// The connections that read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) pool: Pool,
    pub(crate) recorder: Recorder,
}

#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(sqlx::PgPool),
}

impl Reading {
    /// Runs a statement and takes its rows.
    pub(crate) async fn rows(&self, statement: Statement, binds: Vec<Bind>) -> Result<Vec<Row>, sqlx::Error> {
        self.recorder.note(statement, &binds);
        if !storable(&binds) {
            // No row can hold such a text.
            return Ok(Vec::new());
        }
        match &self.pool {
            Pool::Sqlite(pool) => sqlite::rows(pool, statement, binds).await,
            Pool::Postgres(pool) => postgres::read(pool, statement, &binds).await,
        }
    }
    pub(crate) async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}
