//! A server: whether it is there, new enough, writable, ours, and bound to its own fences.

use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::{VERSION_INSERT, int, one_line, steps};
use crate::database::PostgresUrl;
use crate::engine::postgres::{PostgresLink, connect, session};
use crate::engine::tunnel::Tunnel;
use crate::engine::{Recorder, Trouble, Writing, trouble};
use crate::error::OpenError;
use crate::limits::{LOCKS, MARK_KEPT_MS, SERVER_VERSION_MIN};

/// Keeps processes that start together from making the same tables: taken for one transaction.
const MIGRATING: &str = "SELECT pg_advisory_xact_lock(6075990337283407983)";

/// A server that was reached.
pub(super) struct Reached {
    pub(super) writing: Writing,
    options: PgConnectOptions,
    /// Lives as long as the connections.
    pub(super) tunnel: Option<Tunnel>,
}

pub(super) async fn open(url: &PostgresUrl, recorder: Recorder) -> Result<Reached, OpenError> {
    let within = url.deadlines().connect;
    let tunnel = match url.tls() {
        None => None,
        Some(place) => {
            let unreachable = |detail: String| OpenError::Unreachable { server: url.server(), detail: one_line(&detail) };
            Some(Tunnel::open(place, url.port(), within).await.map_err(unreachable)?)
        }
    };
    let options = session(url, tunnel.as_ref().map(Tunnel::folder));
    let mut connection = connect(&options, within).await.map_err(|error| classify(url, error))?;
    look(&mut connection, url).await?;
    let mut writer = [0; 16];
    aws_lc_rs::rand::fill(&mut writer).map_err(|_| OpenError::Contradiction { detail: "no randomness".to_owned() })?;
    let writing = Writing::postgres(PostgresLink::new(url, options.clone(), connection, writer), recorder);
    Ok(Reached { writing, options, tunnel })
}

/// The connections that read.
pub(super) async fn readers(url: &PostgresUrl, reached: &Reached, readers: u32) -> Result<PgPool, OpenError> {
    PgPoolOptions::new()
        .max_connections(readers.max(1))
        .min_connections(1)
        .acquire_timeout(url.deadlines().connect)
        // A connection that broke is found by its statement, which is asked again.
        .test_before_acquire(false)
        .connect_with(reached.options.clone())
        .await
        .map_err(|error| classify(url, error))
}

/// The connections that hold locks: few, for a lock is held for moments, and who waits for one waits here.
pub(super) fn locks(url: &PostgresUrl, reached: &Reached) -> PgPool {
    PgPoolOptions::new()
        .max_connections(LOCKS)
        .min_connections(0)
        .acquire_timeout(url.deadlines().statement)
        .connect_lazy_with(reached.options.clone())
}

/// Looks at the server before anything is written to it.
async fn look(connection: &mut PgConnection, url: &PostgresUrl) -> Result<(), OpenError> {
    let facts = "SELECT CAST(current_setting('server_version_num') AS BIGINT), current_setting('server_version'),
                 pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on', current_setting('server_encoding'),
                 (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user), current_setting('fsync')";
    let failed = |error| classify(url, error);
    let row = sqlx::query(facts).fetch_one(connection).await.map_err(failed)?;
    let version: i64 = row.try_get(0).map_err(failed)?;
    if version < SERVER_VERSION_MIN {
        let found: String = row.try_get(1).map_err(failed)?;
        return Err(OpenError::ServerVersion { found: one_line(&found), least: SERVER_VERSION_MIN.unsigned_abs() / 10_000 });
    }
    if row.try_get(2).map_err(failed)? {
        return Err(OpenError::ServerReadOnly { server: url.server() });
    }
    let encoding: String = row.try_get(3).map_err(failed)?;
    if encoding != "UTF8" {
        let detail = format!("its encoding is {}, not UTF8", one_line(&encoding));
        return Err(OpenError::Foreign { database: url.database().to_owned(), detail });
    }
    if row.try_get(4).map_err(failed)? {
        return Err(OpenError::Unfenced { user: url.user().to_owned() });
    }
    let fsync: String = row.try_get(5).map_err(failed)?;
    if fsync != "on" {
        tracing::warn!("the database server runs with `fsync = off`: what it acknowledges may be lost with the machine's power");
    }
    Ok(())
}

pub(super) async fn migrate(writing: &mut Writing, url: &PostgresUrl) -> Result<(), OpenError> {
    let failed = |error| classify(url, error);
    let Some(connection) = writing.server() else { return Err(failed(sqlx::Error::PoolClosed)) };
    run(connection, "BEGIN").await.map_err(failed)?;
    // An error closes the connection, which rolls back.
    run(connection, MIGRATING).await.map_err(failed)?;
    let found = version(connection, url).await?;
    let mut newest = None;
    for (migration, version) in steps(found)? {
        if version == 1 && !exists(connection).await.map_err(failed)? {
            run(connection, "CREATE SCHEMA swarm").await.map_err(failed)?;
        }
        // A migration moves rows of all tenants.
        run(connection, "SET LOCAL swarm.tenant = '*'").await.map_err(failed)?;
        run(connection, migration.postgres).await.map_err(failed)?;
        sqlx::query(VERSION_INSERT.text).bind(int(version)).execute(&mut *connection).await.map_err(failed)?;
        newest = Some(version);
    }
    let forget = "DELETE FROM writer_mark WHERE at < (SELECT value FROM counter WHERE name = 'clock') - $1";
    sqlx::query(forget).bind(MARK_KEPT_MS).execute(&mut *connection).await.map_err(failed)?;
    run(connection, "COMMIT").await.map_err(failed)?;
    if let Some(version) = newest {
        tracing::info!(version, "the database's schema was brought to a new version");
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, text: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(text).execute(connection).await.map(|_| ())
}

async fn exists(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'swarm')").fetch_one(connection).await
}

/// The version of the schema; 0 for a database without tables. One with tables of others is refused.
async fn version(connection: &mut PgConnection, url: &PostgresUrl) -> Result<u64, OpenError> {
    let failed = |error| classify(url, error);
    let tables = "SELECT format('%I.%I', n.nspname, c.relname), n.nspname = 'swarm' AND c.relname = 'schema_version'
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
                  ORDER BY 2 DESC, 1 LIMIT 1";
    let Some(row) = sqlx::query(tables).fetch_optional(&mut *connection).await.map_err(failed)? else { return Ok(0) };
    if !row.try_get::<bool, _>(1).map_err(failed)? {
        let table: String = row.try_get(0).map_err(failed)?;
        let detail = format!("it holds the table {}", one_line(&table));
        return Err(OpenError::Foreign { database: url.database().to_owned(), detail });
    }
    let newest = "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) FROM swarm.schema_version";
    let version: i64 = sqlx::query_scalar(newest).fetch_one(connection).await.map_err(failed)?;
    u64::try_from(version).map_err(|_| OpenError::Contradiction { detail: format!("schema version {version}") })
}

pub(super) fn classify(url: &PostgresUrl, error: sqlx::Error) -> OpenError {
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned)).unwrap_or_default();
    let detail = one_line(&error.to_string());
    match (trouble(&error), code.as_str()) {
        // Invalid authorization; no such database; no right to connect or to make tables.
        (_, "28000" | "28P01" | "3D000" | "42501") => OpenError::NotLetIn { server: url.server(), detail },
        (Trouble::ReadOnly, _) => OpenError::ServerReadOnly { server: url.server() },
        (Trouble::Away | Trouble::Slow, _) => OpenError::Unreachable { server: url.server(), detail },
        _ => OpenError::Engine(error),
    }
}
