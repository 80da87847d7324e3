//! Numbers about a database on `SQLite`, for whoever looks for a fault from afar: how large, how full, how many rows.
//!
//! Only numbers and words of this program come out, no value of any row. Nothing is written, and a running server is not held
//! up: a reader's transaction is all that is taken.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::error::OpenError;
use crate::open::NEWEST;
use crate::open::sqlite::{self, classify};

/// Bytes of a database up to which it is read through and checked: a few seconds of a slow disk.
const CHECK_MAX: u64 = 1 << 30;

/// What the tables hold. The log's entries are counted by their counter, which needs no look at each.
const TABLES: [(&str, &str); 15] = [
    ("change", "SELECT COUNT(*) FROM change"),
    ("idempotency", "SELECT COUNT(*) FROM idempotency"),
    ("key_version", "SELECT COUNT(*) FROM key_version"),
    ("login_delay", "SELECT COUNT(*) FROM login_delay"),
    ("password", "SELECT COUNT(*) FROM password"),
    ("recovery_code", "SELECT COUNT(*) FROM recovery_code"),
    ("refusal", "SELECT COUNT(*) FROM refusal"),
    ("resource", "SELECT COUNT(*) FROM resource"),
    ("revocation", "SELECT COUNT(*) FROM revocation"),
    ("step_up", "SELECT COUNT(*) FROM step_up"),
    ("stream_position", "SELECT COUNT(*) FROM stream_position"),
    ("token", "SELECT COUNT(*) FROM token"),
    ("totp", "SELECT COUNT(*) FROM totp"),
    ("volume_head", "SELECT COUNT(*) FROM volume_head"),
    ("writer_epoch", "SELECT COUNT(*) FROM writer_epoch"),
];

/// The states of keys that are counted.
const KEY_STATES: [&str; 6] = ["pre-active", "active", "deactivated", "compromised", "pending-destroy", "destroyed"];

/// Numbers about a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// The version of its schema.
    pub schema: u64,
    /// The newest version that this program knows.
    pub schema_known: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the log beside it that are not in the file yet.
    pub wal_bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages of the file.
    pub pages: u64,
    /// Those of them that are free.
    pub free_pages: u64,
    /// Whether the engine finds it whole; `None` when it is too large to be read through.
    pub whole: Option<bool>,
    /// Rows by table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Versions of keys by state.
    pub keys: BTreeMap<&'static str, u64>,
    /// The number of the newest change.
    pub changes: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Entries under the newest signed checkpoint.
    pub published: u64,
    /// When the publisher's lease ends, in milliseconds since 1970.
    pub publisher_until_ms: Option<u64>,
    /// How often the publisher's lease went to somebody.
    pub publisher_token: Option<u64>,
    /// The time of the newest commit, in milliseconds since 1970.
    pub newest_commit_ms: u64,
}

/// Rows that somebody above looks at, beside the numbers: they are not for printing.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The numbers.
    pub statistics: Statistics,
    /// The body of the deployment's row.
    pub deployment: Option<String>,
    /// The newest signed checkpoint.
    pub checkpoint: Option<Vec<u8>>,
    /// Bodies of the deployment's rows of the kinds that were asked for, by kind.
    pub bodies: BTreeMap<&'static str, String>,
}

/// Looks at a database. `bodies` are kinds of which the deployment has at most one row.
pub async fn statistics(path: &Path, bodies: &[crate::Kind]) -> Result<Looked, OpenError> {
    let failed = |error| classify(path, error);
    let length = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map(|found| found.len())
    };
    // The log beside it is there while a server runs, and after one that was killed. Where there is none, nothing but the file
    // counts, and the engine need not make anything beside it to read it.
    let alone = length("-wal").is_err();
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .immutable(alone)
        .busy_timeout(sqlite::BUSY)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON");
    let mut connection = options.disable_statement_logging().connect().await.map_err(failed)?;
    sqlx::query("BEGIN").execute(&mut connection).await.map_err(failed)?;
    let schema = sqlite::version(&mut connection, path).await?;
    let file_bytes = length("").unwrap_or(0);
    let whole = if file_bytes <= CHECK_MAX {
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(failed)?;
        let said: String = row.try_get(0).map_err(failed)?;
        Some(said == "ok")
    } else {
        None
    };
    let mut found = Statistics {
        schema,
        schema_known: NEWEST,
        file_bytes,
        wal_bytes: length("-wal").unwrap_or(0),
        page_bytes: number(&mut connection, "PRAGMA page_size").await.map_err(failed)?.unwrap_or(0),
        pages: number(&mut connection, "PRAGMA page_count").await.map_err(failed)?.unwrap_or(0),
        free_pages: number(&mut connection, "PRAGMA freelist_count").await.map_err(failed)?.unwrap_or(0),
        whole,
        rows: BTreeMap::new(),
        keys: BTreeMap::new(),
        changes: number(&mut connection, "SELECT value FROM counter WHERE name = 'change'").await.map_err(failed)?.unwrap_or(0),
        entries: number(&mut connection, "SELECT value FROM counter WHERE name = 'audit'").await.map_err(failed)?.unwrap_or(0),
        published: number(&mut connection, "SELECT size FROM publisher WHERE name = 'log'").await.map_err(failed)?.unwrap_or(0),
        publisher_until_ms: number(&mut connection, "SELECT until FROM publisher WHERE name = 'log'").await.map_err(failed)?,
        publisher_token: number(&mut connection, "SELECT token FROM publisher WHERE name = 'log'").await.map_err(failed)?,
        newest_commit_ms: number(&mut connection, "SELECT value FROM counter WHERE name = 'clock'").await.map_err(failed)?.unwrap_or(0),
    };
    for (table, count) in TABLES {
        found.rows.insert(table, number(&mut connection, count).await.map_err(failed)?.unwrap_or(0));
    }
    for state in KEY_STATES {
        let row = sqlx::query("SELECT COUNT(*) FROM key_version WHERE state = $1").bind(state).fetch_one(&mut connection).await.map_err(failed)?;
        let count: i64 = row.try_get(0).map_err(failed)?;
        found.keys.insert(state, u64::try_from(count).unwrap_or(0));
    }
    let checkpoint = sqlx::query("SELECT checkpoint FROM publisher WHERE name = 'log'").fetch_optional(&mut connection).await.map_err(failed)?;
    let checkpoint: Option<Vec<u8>> = checkpoint.map(|row| row.try_get(0)).transpose().map_err(failed)?;
    let deployment = body(&mut connection, crate::Kind::SETTING).await.map_err(failed)?;
    let mut rows = BTreeMap::new();
    for kind in bodies {
        if let Some(text) = body(&mut connection, *kind).await.map_err(failed)? {
            rows.insert(kind.as_str(), text);
        }
    }
    connection.close().await.map_err(failed)?;
    Ok(Looked { statistics: found, deployment, checkpoint: checkpoint.filter(|note| !note.is_empty()), bodies: rows })
}

async fn number(connection: &mut SqliteConnection, text: &'static str) -> Result<Option<u64>, sqlx::Error> {
    let row = sqlx::query(text).fetch_optional(connection).await?;
    let value: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
}

async fn body(connection: &mut SqliteConnection, kind: crate::Kind) -> Result<Option<String>, sqlx::Error> {
    sqlx::query("SELECT body FROM resource WHERE tenant = $1 AND kind = $2 AND deleted = FALSE LIMIT 1")
        .bind(vocabulary::SYSTEM_OWNER.as_bytes().as_slice())
        .bind(kind.as_str())
        .fetch_optional(connection)
        .await?
        .map(|row| row.try_get(0))
        .transpose()
}
