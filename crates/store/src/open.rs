//! Opens the database: one owner, checked, migrated, and not trusted before it agrees with itself.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use vocabulary::UnixTime;

use crate::engine::{Reading, Recorder, Trouble, Writing, binds, trouble};
use crate::error::OpenError;
use crate::limits::QUEUE_MAX;
use crate::sql;
use crate::store::{Inner, Store, StoreConfig};
use crate::writer::Writer;

/// The migrations, in order: the first makes version 1.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/sqlite/0001_first.sql")];

/// How long a statement waits for a checkpoint or reader of the same process.
const BUSY: Duration = Duration::from_secs(10);

/// The first bytes of every `SQLite` database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The bytes of its header.
const HEADER: u64 = 100;

pub(crate) async fn open(config: StoreConfig) -> Result<Store, OpenError> {
    let path = config.path.clone();
    let lock = lock(&path)?;
    header(&path)?;
    let recorder = Recorder::default();
    let connection = connect(&config).await.map_err(|error| classify(&path, error))?;
    let mut writing = Writing { connection, recorder: recorder.clone() };
    let state = prepare(&mut writing, &config).await?;
    let options = options(&config).read_only(true).create_if_missing(false);
    let pool = SqlitePoolOptions::new()
        .max_connections(config.readers.max(1))
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options)
        .await
        .map_err(|error| classify(&path, error))?;
    let (requests, taken) = mpsc::channel(QUEUE_MAX);
    let (close, closed) = watch::channel(false);
    let (latest_sender, latest) = watch::channel(state.latest);
    let (high_water_sender, high_water) = watch::channel(state.high_water);
    let readers = pool.clone();
    let writer = Writer {
        writing,
        readers,
        requests: taken,
        close: closed,
        latest: latest_sender,
        high_water: high_water_sender,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run());
    let reading = Reading { pool, recorder };
    let (tasks, lock) = (Mutex::new(tasks), Mutex::new(Some(lock)));
    Ok(Store { inner: Arc::new(Inner { requests, reading, latest, high_water, close, tasks, lock }) })
}

/// What the counters say at the start.
struct State {
    latest: u64,
    high_water: UnixTime,
}

/// Checks and migrates; every error closes the connection with nothing half done.
async fn prepare(writing: &mut Writing, config: &StoreConfig) -> Result<State, OpenError> {
    let path = &config.path;
    if config.check {
        check(&mut writing.connection, path).await?;
    }
    migrate(writing, path).await?;
    if let Some(time) = config.accept_clock {
        let set = writing.execute(sql::COUNTER_SET, binds!["clock", time]).await;
        set.map_err(|error| classify(path, error))?;
        tracing::warn!(%time, "the clock was accepted as right by an operator's word");
    }
    agree(writing, path).await
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

fn options(config: &StoreConfig) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(&config.path)
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
    match config.pages_max {
        Some(pages) => options.pragma("max_page_count", pages.to_string()),
        None => options,
    }
}

async fn connect(config: &StoreConfig) -> Result<SqliteConnection, sqlx::Error> {
    options(config).connect().await
}

async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(|error| classify(path, error))?;
    let found: String = row.try_get(0).map_err(OpenError::Engine)?;
    if found == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), detail: one_line(&found) }) }
}

/// Brings the schema to the newest version, each step in a transaction of its own.
async fn migrate(writing: &mut Writing, path: &Path) -> Result<(), OpenError> {
    let failed = |error| classify(path, error);
    let known = MIGRATIONS.len() as u64;
    let found = version(&mut writing.connection, path).await?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (migration, version) in MIGRATIONS.iter().zip(1_u64..).filter(|(_, version)| *version > found) {
        writing.control("BEGIN IMMEDIATE").await.map_err(failed)?;
        let done = async {
            writing.control(migration).await?;
            let insert = "INSERT INTO schema_version (version, applied) VALUES ($1, $1)";
            sqlx::query(insert).bind(i64::try_from(version).unwrap_or(i64::MAX)).execute(&mut writing.connection).await?;
            writing.control("COMMIT").await
        };
        if let Err(error) = done.await {
            // The first error counts; a connection that cannot roll back is dropped with the same effect.
            drop(writing.control("ROLLBACK").await);
            return Err(failed(error));
        }
        tracing::info!(version, "the database's schema was brought to a new version");
    }
    Ok(())
}

/// The version of the schema; 0 for a database without tables.
async fn version(connection: &mut SqliteConnection, path: &Path) -> Result<u64, OpenError> {
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

/// The counters and the rows must agree: else this is a mixture of two files, or somebody edited it.
async fn agree(writing: &mut Writing, path: &Path) -> Result<State, OpenError> {
    let latest = counter(writing, path, "change").await?;
    let entries = counter(writing, path, "audit").await?;
    let high_water = counter(writing, path, "clock").await?;
    for (what, statement, expected) in
        [("changes", sql::CHANGE_LAST, latest), ("audit entries", sql::ENTRY_COUNT, entries)]
    {
        let row = writing.row(statement, binds![]).await.map_err(|error| classify(path, error))?;
        let found = row.and_then(|row| row.number(0).ok());
        if found != Some(expected) {
            let found = found.unwrap_or_default();
            let detail = format!("{found} {what} where its counter says {expected}");
            return Err(OpenError::Contradiction { detail });
        }
    }
    Ok(State { latest, high_water: UnixTime::from_millis(high_water) })
}

async fn counter(writing: &mut Writing, path: &Path, name: &'static str) -> Result<u64, OpenError> {
    let row = writing.row(sql::COUNTER_READ, binds![name]).await.map_err(|error| classify(path, error))?;
    row.and_then(|row| row.number(0).ok())
        .ok_or_else(|| OpenError::Contradiction { detail: format!("the counter `{name}` is missing") })
}

fn classify(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match trouble(&error) {
        Trouble::Corrupt => OpenError::Corrupt { path, detail: one_line(&error.to_string()) },
        Trouble::NotADatabase => OpenError::NotADatabase { path },
        Trouble::Full => OpenError::Full { path },
        Trouble::ReadOnly => OpenError::ReadOnly { path },
        Trouble::Unique | Trouble::Other => OpenError::Engine(error),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
