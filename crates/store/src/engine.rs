//! The one place that speaks to the database's driver: binds in, rows out.

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Row as _, Sqlite};
use vocabulary::UnixTime;

use crate::convert::millis;
use crate::sql::Statement;

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

/// A row was not what the statement promises: the name of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A row that was read.
pub(crate) struct Row {
    row: SqliteRow,
    statement: &'static str,
}

impl Row {
    pub(crate) const fn malformed(&self) -> Malformed {
        Malformed(self.statement)
    }
    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, Malformed> {
        self.row.try_get(column).map_err(|_| self.malformed())
    }
    pub(crate) fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Malformed> {
        self.row.try_get(column).map_err(|_| self.malformed())
    }
    pub(crate) fn text(&self, column: usize) -> Result<String, Malformed> {
        self.row.try_get(column).map_err(|_| self.malformed())
    }
    pub(crate) fn maybe_text(&self, column: usize) -> Result<Option<String>, Malformed> {
        self.row.try_get(column).map_err(|_| self.malformed())
    }
    pub(crate) fn int(&self, column: usize) -> Result<i64, Malformed> {
        self.row.try_get(column).map_err(|_| self.malformed())
    }
    pub(crate) fn flag(&self, column: usize) -> Result<bool, Malformed> {
        self.row.try_get(column).map_err(|_| self.malformed())
    }
    pub(crate) fn number(&self, column: usize) -> Result<u64, Malformed> {
        u64::try_from(self.int(column)?).map_err(|_| self.malformed())
    }
    pub(crate) fn small<T: TryFrom<i64>>(&self, column: usize) -> Result<T, Malformed> {
        T::try_from(self.int(column)?).map_err(|_| self.malformed())
    }
    pub(crate) fn time(&self, column: usize) -> Result<UnixTime, Malformed> {
        self.number(column).map(UnixTime::from_millis)
    }
    pub(crate) fn maybe_time(&self, column: usize) -> Result<Option<UnixTime>, Malformed> {
        let millis: Option<i64> = self.row.try_get(column).map_err(|_| self.malformed())?;
        millis.map(|millis| u64::try_from(millis).map(UnixTime::from_millis).map_err(|_| self.malformed())).transpose()
    }
    pub(crate) fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], Malformed> {
        self.bytes(column)?.try_into().map_err(|_| self.malformed())
    }
    pub(crate) fn maybe_array<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Malformed> {
        self.maybe_bytes(column)?.map(|bytes| bytes.try_into().map_err(|_| self.malformed())).transpose()
    }
}

/// What kind of trouble the engine is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Unique,
    Full,
    ReadOnly,
    Corrupt,
    NotADatabase,
    Other,
}

pub(crate) fn trouble(error: &sqlx::Error) -> Trouble {
    let Some(database) = error.as_database_error() else { return Trouble::Other };
    if database.is_unique_violation() {
        return Trouble::Unique;
    }
    // The low byte is the primary result code of SQLite.
    let code = database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    match code {
        Some(13) => Trouble::Full,
        Some(8 | 14) => Trouble::ReadOnly,
        Some(11) => Trouble::Corrupt,
        Some(26) => Trouble::NotADatabase,
        _ => Trouble::Other,
    }
}

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

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

fn query(statement: Statement, binds: Vec<Bind>) -> Query {
    let mut query = sqlx::query(statement.text);
    for bind in binds {
        query = match bind {
            Bind::Bytes(value) => query.bind(value),
            Bind::Text(value) => query.bind(value),
            Bind::Int(value) => query.bind(value),
            Bind::Bool(value) => query.bind(value),
        };
    }
    query
}

fn rows(statement: Statement, found: Vec<SqliteRow>) -> Vec<Row> {
    found.into_iter().map(|row| Row { row, statement: statement.name }).collect()
}

/// The connection that writes: one, in the hands of the writer task.
pub(crate) struct Writing {
    pub(crate) connection: SqliteConnection,
    pub(crate) recorder: Recorder,
}

impl Writing {
    /// Runs a statement and says how many rows it changed.
    pub(crate) async fn execute(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<u64, sqlx::Error> {
        self.recorder.note(statement, &binds);
        query(statement, binds).execute(&mut self.connection).await.map(|done| done.rows_affected())
    }
    /// Runs a statement and takes its rows.
    pub(crate) async fn rows(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<Vec<Row>, sqlx::Error> {
        self.recorder.note(statement, &binds);
        query(statement, binds).fetch_all(&mut self.connection).await.map(|found| rows(statement, found))
    }
    /// Runs a statement and takes its first row.
    pub(crate) async fn row(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.rows(statement, binds).await?.into_iter().next())
    }
    /// Runs a word of transaction control.
    pub(crate) async fn control(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(text).execute(&mut self.connection).await.map(|_| ())
    }
}

/// The connections that read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) pool: SqlitePool,
    pub(crate) recorder: Recorder,
}

impl Reading {
    /// Runs a statement and takes its rows.
    pub(crate) async fn rows(&self, statement: Statement, binds: Vec<Bind>) -> Result<Vec<Row>, sqlx::Error> {
        self.recorder.note(statement, &binds);
        query(statement, binds).fetch_all(&self.pool).await.map(|found| rows(statement, found))
    }
}
