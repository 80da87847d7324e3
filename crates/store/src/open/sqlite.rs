//! A file: one owner, looked at before the engine does, and not trusted before it is whole.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};

use super::one_line;
use crate::database::SqliteFile;
use crate::engine::{Recorder, Trouble, Writing, trouble};
use crate::error::OpenError;

/// How long a statement waits for a checkpoint or reader of the same process.
pub(crate) const BUSY: Duration = Duration::from_secs(10);

/// The first bytes of every `SQLite` database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The bytes of its header.
const HEADER: u64 = 100;

/// Takes the file and opens it for writing.
pub(super) async fn open(file: &SqliteFile, recorder: Recorder) -> Result<(File, Writing), OpenError> {
    let lock = lock(&file.path)?;
    header(&file.path)?;
    let mut connection = options(file).connect().await.map_err(|error| classify(&file.path, error))?;
    if file.check {
        check(&mut connection, &file.path).await?;
    }
    Ok((lock, Writing::sqlite(connection, recorder)))
}

/// The connections that read.
pub(super) async fn readers(file: &SqliteFile, readers: u32) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .max_connections(readers.max(1))
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options(file).read_only(true).create_if_missing(false))
        .await
        .map_err(|error| classify(&file.path, error))
}

/// The version of the schema; 0 for a database without tables.
pub(crate) async fn version(connection: &mut SqliteConnection, path: &Path) -> Result<u64, OpenError> {
    let failed = |error| classify(path, error);
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name = 'schema_version' DESC LIMIT 1";
    let Some(row) = sqlx::query(tables).fetch_optional(&mut *connection).await.map_err(failed)? else { return Ok(0) };
    let table: String = row.try_get(0).map_err(failed)?;
    if table != "schema_version" {
        // A database, but another program's.
        return Err(OpenError::NotADatabase { path: path.to_owned() });
    }
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM schema_version").fetch_one(connection).await.map_err(failed)?;
    let version: i64 = row.try_get(0).map_err(failed)?;
    u64::try_from(version).map_err(|_| OpenError::Contradiction { detail: format!("schema version {version}") })
}

pub(crate) fn classify(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match trouble(&error) {
        Trouble::Corrupt => OpenError::Corrupt { path, detail: one_line(&error.to_string()) },
        Trouble::NotADatabase => OpenError::NotADatabase { path },
        Trouble::Full => OpenError::Full { path },
        Trouble::ReadOnly => OpenError::ReadOnly { path },
        Trouble::Broken | Trouble::Unique | Trouble::Away | Trouble::Slow | Trouble::Again | Trouble::Unstorable | Trouble::Other => OpenError::Engine(error),
    }
}

/// One process owns the file, for as long as it holds this lock; the kernel gives it back when the process dies.
fn lock(path: &Path) -> Result<File, OpenError> {
    let name = beside(path, ".lock");
    let file = private(&name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Io { path: name, source }),
    }
}

/// Opens or makes a file that only its owner may read.
fn private(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| {
        let (kind, path) = (source.kind(), path.to_owned());
        if matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
            OpenError::ReadOnly { path }
        } else if kind == ErrorKind::StorageFull {
            OpenError::Full { path }
        } else {
            OpenError::Io { path, source }
        }
    })
}

/// Looks at the file's first bytes before the engine does: it would take an empty or foreign file for a new database.
fn header(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let mut file = private(path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length == 0 {
        return Ok(());
    }
    let mut first = Vec::new();
    file.by_ref().take(HEADER).read_to_end(&mut first).map_err(failed)?;
    let damaged = |detail| Err(OpenError::Corrupt { path: path.to_owned(), detail });
    if !first.starts_with(MAGIC) && !MAGIC.starts_with(&first) {
        return Err(OpenError::NotADatabase { path: path.to_owned() });
    }
    let Some(expected) = expected_length(&first) else {
        return damaged(format!("only {length} bytes are left of it"));
    };
    // While a log lies beside it the file may be short; the engine reads the rest from there.
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    if log == 0 && length < expected {
        return damaged(format!("{length} bytes are left of {expected}"));
    }
    Ok(())
}

/// The length that a database's header promises: page size times pages.
fn expected_length(header: &[u8]) -> Option<u64> {
    let page = u64::from(u16::from_be_bytes(header.get(16..18)?.try_into().ok()?));
    let pages = u64::from(u32::from_be_bytes(header.get(28..32)?.try_into().ok()?));
    if header.len() as u64 != HEADER {
        return None;
    }
    // A page of 65536 bytes is written as 1.
    page.checked_mul(if page == 1 { 65_536 } else { 1 })?.checked_mul(pages)
}

/// The name of a file beside the database's.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn options(file: &SqliteFile) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(&file.path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .statement_cache_capacity(256)
        // Hygiene only: what is erased may survive in the log and in the disk's own cells.
        .pragma("secure_delete", "ON")
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .disable_statement_logging();
    match file.pages_max {
        Some(pages) => options.pragma("max_page_count", pages.to_string()),
        None => options,
    }
}

async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(|error| classify(path, error))?;
    let found: String = row.try_get(0).map_err(OpenError::Engine)?;
    if found == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), detail: one_line(&found) }) }
}
