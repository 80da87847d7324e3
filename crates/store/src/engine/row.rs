//! Rows of either database, read the same way.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use vocabulary::UnixTime;

/// A row was not what the statement promises: the name of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A row that was read.
pub(crate) struct Row {
    found: Found,
    statement: &'static str,
}

enum Found {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) const fn sqlite(row: SqliteRow, statement: &'static str) -> Self {
        Self { found: Found::Sqlite(row), statement }
    }
    pub(super) const fn postgres(row: PgRow, statement: &'static str) -> Self {
        Self { found: Found::Postgres(row), statement }
    }
    fn get<T>(&self, column: usize) -> Result<T, Malformed>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let value = match &self.found {
            Found::Sqlite(row) => row.try_get(column),
            Found::Postgres(row) => row.try_get(column),
        };
        value.map_err(|_| self.malformed())
    }
    pub(crate) const fn malformed(&self) -> Malformed {
        Malformed(self.statement)
    }
    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, Malformed> {
        self.get(column)
    }
    pub(crate) fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Malformed> {
        self.get(column)
    }
    pub(crate) fn text(&self, column: usize) -> Result<String, Malformed> {
        self.get(column)
    }
    pub(crate) fn maybe_text(&self, column: usize) -> Result<Option<String>, Malformed> {
        self.get(column)
    }
    pub(crate) fn int(&self, column: usize) -> Result<i64, Malformed> {
        self.get(column)
    }
    pub(crate) fn flag(&self, column: usize) -> Result<bool, Malformed> {
        self.get(column)
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
        let millis: Option<i64> = self.get(column)?;
        millis.map(|millis| u64::try_from(millis).map(UnixTime::from_millis).map_err(|_| self.malformed())).transpose()
    }
    pub(crate) fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], Malformed> {
        self.bytes(column)?.try_into().map_err(|_| self.malformed())
    }
    pub(crate) fn maybe_array<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Malformed> {
        self.maybe_bytes(column)?.map(|bytes| bytes.try_into().map_err(|_| self.malformed())).transpose()
    }
}
