//! Opens the database: checked, migrated, and not trusted before it agrees with itself.

mod postgres;
pub(crate) mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use vocabulary::UnixTime;

use crate::database::{Database, SqliteFile};
use crate::engine::{Commit, Locks, Pool, Reading, Recorder, Writing, binds};
use crate::error::OpenError;
use crate::limits::{FOLLOW_MS, QUEUE_MAX};
use crate::sql;
use crate::store::{Inner, Owned, Store, StoreConfig};
use crate::writer::{Writer, raise};

/// A migration: its text for each database. The first makes version 1.
struct Migration {
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        /// The migrations, in order.
        const MIGRATIONS: &[Migration] = &[$(Migration {
            sqlite: include_str!(concat!("../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $name, ".sql")),
        }),*];
    };
}
migrations!("0001_first");

/// The newest version of the schema.
pub(crate) const NEWEST: u64 = MIGRATIONS.len() as u64;

pub(crate) async fn open(config: StoreConfig) -> Result<Store, OpenError> {
    let recorder = Recorder::default();
    let (writing, state, pool, locks, owned) = match &config.database {
        Database::Sqlite(file) => {
            let (lock, mut writing) = sqlite::open(file, recorder.clone()).await?;
            migrate(&mut writing, file).await?;
            let state = agree(&mut writing, &config).await?;
            let pool = Pool::Sqlite(sqlite::readers(file, config.readers).await?);
            (writing, state, pool, Locks::Own, Owned::File(lock))
        }
        Database::Postgres(url) => {
            let mut reached = postgres::open(url, recorder.clone()).await?;
            postgres::migrate(&mut reached.writing, url).await?;
            let state = agree(&mut reached.writing, &config).await?;
            let pool = Pool::Postgres(postgres::readers(url, &reached, config.readers).await?);
            let locks = Locks::Server(postgres::locks(url, &reached));
            (reached.writing, state, pool, locks, Owned::Server(reached.tunnel))
        }
    };
    let reading = Reading { pool, recorder };
    let (requests, taken) = mpsc::channel(QUEUE_MAX);
    let (close, closed) = watch::channel(false);
    let (latest_sender, latest) = watch::channel(state.latest);
    let (high_water_sender, high_water) = watch::channel(state.high_water);
    let observer = crate::store::Observing::default();
    let mut tasks = JoinSet::new();
    if matches!(config.database, Database::Postgres(_)) {
        tasks.spawn(follow(reading.clone(), latest_sender.clone(), high_water_sender.clone(), closed.clone()));
    }
    let writer = Writer {
        writing,
        readers: reading.clone(),
        requests: taken,
        close: closed,
        latest: latest_sender,
        high_water: high_water_sender,
        observer: Arc::clone(&observer),
    };
    tasks.spawn(writer.run());
    let (tasks, owned) = (Mutex::new(tasks), Mutex::new(Some(owned)));
    Ok(Store { inner: Arc::new(Inner { requests, reading, locks, latest, high_water, close, observer, tasks, owned }) })
}

/// Learns what other processes committed, until the store is closed or gone.
async fn follow(
    reading: Reading,
    latest: watch::Sender<u64>,
    high_water: watch::Sender<UnixTime>,
    mut close: watch::Receiver<bool>,
) {
    let number = async |name: &'static str| {
        let rows = reading.rows(sql::COUNTER_READ, binds![name]).await?;
        Ok::<_, sqlx::Error>(rows.first().and_then(|row| row.number(0).ok()).unwrap_or(0))
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(FOLLOW_MS)) => {}
            _ = close.wait_for(|close| *close) => return,
        }
        match (number("change").await, number("clock").await) {
            (Ok(change), Ok(clock)) => {
                raise(&latest, change);
                high_water.send_if_modified(|known| {
                    let higher = UnixTime::from_millis(clock) > *known;
                    *known = UnixTime::from_millis(clock).max(*known);
                    higher
                });
            }
            (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "changes of other processes cannot be read; tried again"),
        }
    }
}

/// What the counters say at the start.
struct State {
    latest: u64,
    high_water: UnixTime,
}

/// Brings the schema of a file to the newest version, each step in a transaction of its own.
async fn migrate(writing: &mut Writing, file: &SqliteFile) -> Result<(), OpenError> {
    let failed = |error| sqlite::classify(&file.path, error);
    let found = match writing.file() {
        Some(connection) => sqlite::version(connection, &file.path).await?,
        None => 0,
    };
    for (migration, version) in steps(found)? {
        writing.begin().await.map_err(failed)?;
        let done = async {
            writing.script(migration.sqlite).await?;
            writing.execute(VERSION_INSERT, binds![int(version)]).await
        };
        if let Err(error) = done.await {
            // The first error counts; a connection that cannot roll back is dropped with the same effect.
            writing.abandon().await;
            return Err(failed(error));
        }
        committed(writing.commit().await, failed)?;
        tracing::info!(version, "the database's schema was brought to a new version");
    }
    Ok(())
}

const VERSION_INSERT: sql::Statement = sql::Statement {
    name: "VERSION_INSERT",
    text: "INSERT INTO schema_version (version, applied) VALUES ($1, $1)",
    exempt: Some("the schema is the deployment's"),
};

/// The steps from a version to the newest one.
fn steps(found: u64) -> Result<impl Iterator<Item = (&'static Migration, u64)>, OpenError> {
    if found > NEWEST {
        return Err(OpenError::Newer { found, known: NEWEST });
    }
    Ok(MIGRATIONS.iter().zip(1_u64..).filter(move |(_, version)| *version > found))
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn committed(commit: Commit, failed: impl Fn(sqlx::Error) -> OpenError) -> Result<(), OpenError> {
    match commit {
        Commit::Done => Ok(()),
        Commit::Undone(error) | Commit::Unknown(error) => Err(failed(error)),
    }
}

/// The counters and the rows must agree: else this is a mixture of two databases, or somebody edited it.
async fn agree(writing: &mut Writing, config: &StoreConfig) -> Result<State, OpenError> {
    let failed = |error| match &config.database {
        Database::Sqlite(file) => sqlite::classify(&file.path, error),
        Database::Postgres(url) => postgres::classify(url, error),
    };
    // Nobody writes beside it: between one read and the next nothing changes.
    writing.begin().await.map_err(failed)?;
    if let Some(time) = config.accept_clock {
        writing.execute(sql::COUNTER_SET, binds!["clock", time]).await.map_err(failed)?;
        tracing::warn!(%time, "the clock was accepted as right by an operator's word");
    }
    let latest = counter(writing, "change", failed).await?;
    let entries = counter(writing, "audit", failed).await?;
    let high_water = counter(writing, "clock", failed).await?;
    for (what, statement, expected) in
        [("changes", sql::CHANGE_LAST, latest), ("audit entries", sql::ENTRY_COUNT, entries)]
    {
        let row = writing.row(statement, binds![]).await.map_err(failed)?;
        let found = row.and_then(|row| row.number(0).ok());
        if found != Some(expected) {
            let found = found.unwrap_or_default();
            let detail = format!("{found} {what} where its counter says {expected}");
            return Err(OpenError::Contradiction { detail });
        }
    }
    committed(writing.commit().await, failed)?;
    Ok(State { latest, high_water: UnixTime::from_millis(high_water) })
}

async fn counter(writing: &mut Writing, name: &'static str, failed: impl Fn(sqlx::Error) -> OpenError) -> Result<u64, OpenError> {
    let row = writing.row(sql::COUNTER_READ, binds![name]).await.map_err(failed)?;
    row.and_then(|row| row.number(0).ok())
        .ok_or_else(|| OpenError::Contradiction { detail: format!("the counter `{name}` is missing") })
}

pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
