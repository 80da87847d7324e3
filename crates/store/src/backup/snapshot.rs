//! One state of the database while others write, and what a copy says of itself.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use vocabulary::SYSTEM_OWNER;

use super::BackupError;
use crate::error::OpenError;
use crate::open::sqlite::{self, classify};
use crate::open::{NEWEST, one_line};
use crate::{Kind, sql};

/// What a copy of the database says of itself.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version of its schema.
    pub schema: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Entries under the newest signed checkpoint.
    pub published: u64,
    /// The row of the deployment, if it was born.
    pub deployment: Option<String>,
}

/// Writes the state of a database as it is now into a new file of mode 0600, on the disk when this returns. Whoever uses the
/// database reads and writes on: the copy is what one reader's transaction sees.
pub async fn snapshot(from: &Path, to: &Path) -> Result<Snapshot, BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if !from.is_file() {
        return Err(BackupError::NoDatabase(from.to_owned()));
    }
    let failed = |error| classify(from, error);
    let mut connection = SqliteConnectOptions::new()
        .filename(from)
        .create_if_missing(false)
        .busy_timeout(sqlite::BUSY)
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    // Nothing is migrated here: who restores an older state wants the program that it belongs to.
    let found = sqlite::version(&mut connection, from).await?;
    if found != NEWEST {
        return Err(BackupError::OtherSchema { found, known: NEWEST });
    }
    // An empty file takes the copy; its mode is ours.
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(BackupError::io(to))?;
    let text = to.to_str().ok_or_else(|| BackupError::io(to)(std::io::Error::other("the name is not UTF-8")))?;
    sqlx::query("VACUUM INTO $1").bind(text).execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    file.sync_all().map_err(BackupError::io(to))?;
    look(to).await
}

/// Checks a copy through and through and reads what it says of itself. Nothing is written, not even beside it.
pub async fn look(path: &Path) -> Result<Snapshot, BackupError> {
    let failed = |error| BackupError::Open(classify(path, error));
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true).pragma("trusted_schema", "OFF").pragma("cell_size_check", "ON");
    let mut connection = options.disable_statement_logging().connect().await.map_err(failed)?;
    for (pragma, column) in [("PRAGMA integrity_check(1)", 0_usize), ("PRAGMA foreign_key_check", 0)] {
        let row = sqlx::query(pragma).fetch_optional(&mut connection).await.map_err(failed)?;
        let said: Option<String> = row.map(|row| row.try_get(column)).transpose().map_err(failed)?;
        if let Some(said) = said.filter(|said| said != "ok") {
            return Err(OpenError::Corrupt { path: path.to_owned(), detail: one_line(&said) }.into());
        }
    }
    let schema = sqlite::version(&mut connection, path).await?;
    let entries = number(&mut connection, sql::ENTRY_COUNT.text).await.map_err(failed)?.unwrap_or(0);
    let published = number(&mut connection, "SELECT size FROM publisher WHERE name = 'log'").await.map_err(failed)?.unwrap_or(0);
    let row = sqlx::query("SELECT body FROM resource WHERE tenant = $1 AND kind = $2 AND deleted = FALSE")
        .bind(SYSTEM_OWNER.as_bytes().as_slice())
        .bind(Kind::SETTING.as_str())
        .fetch_optional(&mut connection)
        .await
        .map_err(failed)?;
    let deployment = row.map(|row| row.try_get(0)).transpose().map_err(failed)?;
    connection.close().await.map_err(failed)?;
    Ok(Snapshot { schema, entries, published, deployment })
}

async fn number(connection: &mut SqliteConnection, text: &'static str) -> Result<Option<u64>, sqlx::Error> {
    let row = sqlx::query(text).fetch_optional(connection).await?;
    let value: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
}
