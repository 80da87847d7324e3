//! `SQLite`: one file, one process.

use sqlx::Sqlite;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

use super::{Bind, Row};
use crate::sql::Statement;

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

pub(super) async fn execute(connection: &mut SqliteConnection, statement: Statement, binds: Vec<Bind>) -> Result<u64, sqlx::Error> {
    query(statement, binds).execute(connection).await.map(|done| done.rows_affected())
}

pub(super) async fn rows<'c>(
    executor: impl sqlx::Executor<'c, Database = Sqlite>,
    statement: Statement,
    binds: Vec<Bind>,
) -> Result<Vec<Row>, sqlx::Error> {
    let found = query(statement, binds).fetch_all(executor).await?;
    Ok(found.into_iter().map(|row| Row::sqlite(row, statement.name)).collect())
}

/// Runs a word of transaction control.
pub(super) async fn control(connection: &mut SqliteConnection, text: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(text).execute(connection).await.map(|_| ())
}
