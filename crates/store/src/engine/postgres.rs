//! `PostgreSQL`: a server that several processes share.
//!
//! One writes at a time: each group of transactions first takes the row of the counter `clock`, in whichever process its
//! writer runs, so that all that was proved for one writer holds for several. A process that stops in the middle is ended by
//! the server after [`crate::limits::IDLE_IN_TRANSACTION`], and with it its lock.
//!
//! Each transaction says which tenant its statements are for (`SET LOCAL swarm.tenant`), and the policies of the tables show
//! and take rows of that tenant only. The statements that [`crate::sql`] exempts say `*`.
//!
//! Words of transaction control wait until the next statement and travel with it: a round trip costs more than they do.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Postgres};
use tokio::time::Instant;
use vocabulary::UnixTime;

use super::{Bind, Commit, Row, Trouble, binds, trouble};
use crate::database::{Deadlines, PostgresUrl};
use crate::limits::{READ_PATIENCE, STATEMENT_ANSWER};
use crate::sql::Statement;

const ENGINE: Option<&str> = Some("the engine's own, about the writer and no tenant");
const WRITER_LOCK: Statement =
    Statement { name: "WRITER_LOCK", text: "SELECT value FROM counter WHERE name = 'clock' FOR UPDATE", exempt: ENGINE };
const MARK_SET: Statement = Statement {
    name: "MARK_SET",
    text: "INSERT INTO writer_mark (writer, number, at) VALUES ($1, $2, $3)
           ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = excluded.at",
    exempt: ENGINE,
};
const MARK_READ: Statement =
    Statement { name: "MARK_READ", text: "SELECT number FROM writer_mark WHERE writer = $1", exempt: ENGINE };

type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

fn query(statement: Statement, binds: &[Bind]) -> Query {
    let mut query = sqlx::query(statement.text);
    for bind in binds {
        query = match bind {
            Bind::Bytes(value) => query.bind(value.clone()),
            Bind::Text(value) => query.bind(value.clone()),
            Bind::Int(value) => query.bind(*value),
            Bind::Bool(value) => query.bind(*value),
        };
    }
    query
}

/// Whose rows a statement may see: the tenant that it names first, or all where it is exempt.
fn scope(statement: Statement, binds: &[Bind]) -> String {
    match binds.first() {
        Some(Bind::Bytes(Some(tenant))) if statement.exempt.is_none() => {
            tenant.iter().fold(String::with_capacity(32), |mut text, byte| {
                use std::fmt::Write as _;
                // Writing into a string never fails.
                let _ = write!(text, "{byte:02x}");
                text
            })
        }
        _ if statement.exempt.is_some() => "*".to_owned(),
        // A statement that names no tenant sees nothing.
        _ => String::new(),
    }
}

/// The connection that writes.
pub(crate) struct PostgresLink {
    options: PgConnectOptions,
    deadlines: Deadlines,
    connection: Option<PgConnection>,
    /// Names this writer in the table `writer_mark`.
    writer: [u8; 16],
    /// The number of the group that is on its way.
    group: i64,
    /// The latest time seen, for the mark.
    at: i64,
    /// Words that travel with the next statement.
    pending: String,
    /// Whose rows this transaction sees at the moment; nothing is known after a savepoint was rolled back.
    scope: Option<String>,
    /// Whether the server was there when it was last called: only then is it waited for.
    patient: bool,
}

impl PostgresLink {
    pub(crate) fn new(url: &PostgresUrl, options: PgConnectOptions, connection: PgConnection, writer: [u8; 16]) -> Self {
        Self {
            options,
            deadlines: url.deadlines(),
            connection: Some(connection),
            writer,
            group: 0,
            at: 0,
            pending: String::new(),
            scope: None,
            patient: true,
        }
    }

    /// The open connection, for what only `PostgreSQL` has.
    pub(crate) const fn server(&mut self) -> Option<&mut PgConnection> {
        self.connection.as_mut()
    }

    pub(super) async fn execute(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<u64, sqlx::Error> {
        self.aim(statement, &binds);
        let run = async |connection: &mut PgConnection| {
            query(statement, &binds).execute(connection).await.map(|done| done.rows_affected())
        };
        self.run(run).await
    }

    pub(super) async fn rows(&mut self, statement: Statement, binds: Vec<Bind>) -> Result<Vec<Row>, sqlx::Error> {
        self.aim(statement, &binds);
        let run = async |connection: &mut PgConnection| query(statement, &binds).fetch_all(connection).await;
        Ok(named(statement, self.run(run).await?))
    }

    /// Makes the transaction see what this statement is for.
    fn aim(&mut self, statement: Statement, binds: &[Bind]) {
        let wanted = scope(statement, binds);
        if self.scope.as_ref() != Some(&wanted) {
            self.word("SET LOCAL swarm.tenant = '");
            self.pending.push_str(&wanted);
            self.pending.push('\'');
            self.scope = Some(wanted);
        }
    }

    fn word(&mut self, word: &str) {
        if !self.pending.is_empty() {
            self.pending.push_str("; ");
        }
        self.pending.push_str(word);
    }

    /// Sends the waiting words, then runs. A connection that broke, or gave no answer in time, is given up.
    async fn run<T>(&mut self, run: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let words = std::mem::take(&mut self.pending);
        let Some(connection) = &mut self.connection else { return Err(broken("the connection is closed")) };
        let done = tokio::time::timeout(self.deadlines.answer, async {
            if !words.is_empty() {
                sqlx::raw_sql(AssertSqlSafe(words)).execute(&mut *connection).await?;
            }
            run(connection).await
        });
        let done = done.await.unwrap_or_else(|_| Err(broken("no answer in time")));
        if let Err(error) = &done
            && matches!(trouble(error), Trouble::Away | Trouble::ReadOnly)
        {
            self.connection = None;
        }
        done
    }

    pub(super) async fn begin(&mut self) -> Result<UnixTime, sqlx::Error> {
        self.pending.clear();
        self.scope = None;
        if self.connection.is_none() {
            self.reconnect().await?;
        }
        self.word("BEGIN");
        let run = async |connection: &mut PgConnection| query(WRITER_LOCK, &[]).fetch_all(connection).await;
        let rows = named(WRITER_LOCK, self.run(run).await?);
        let clock = rows.first().and_then(|row| row.time(0).ok()).ok_or(sqlx::Error::RowNotFound)?;
        self.at = crate::convert::millis(clock);
        Ok(clock)
    }

    pub(super) fn savepoint(&mut self) {
        self.word("SAVEPOINT one");
    }

    pub(super) async fn release(&mut self, keep: bool) -> Result<(), sqlx::Error> {
        if !keep {
            // What was set since goes with it.
            self.word("ROLLBACK TO one");
            self.scope = None;
        }
        self.word("RELEASE one");
        // A loop that only refuses would let the words grow without bound.
        if self.pending.len() > 1 << 12 { self.run(async |_| Ok(())).await } else { Ok(()) }
    }

    pub(super) async fn commit(&mut self) -> Commit {
        self.group = self.group.saturating_add(1);
        let binds = binds![&self.writer, self.group, self.at];
        let mark = async |connection: &mut PgConnection| query(MARK_SET, &binds).execute(connection).await;
        if let Err(error) = self.run(mark).await {
            // The word to commit was not sent.
            return Commit::Undone(error);
        }
        // A deadline in the middle of a commit would only make it look done: a server that waits for its standby says so.
        self.word("SET LOCAL statement_timeout = 0");
        self.word("COMMIT");
        match self.run(async |_| Ok(())).await {
            Ok(()) => Commit::Done,
            Err(error) if self.connection.is_none() => self.resolve(error).await,
            Err(error) => Commit::Undone(error),
        }
    }

    /// Finds out what became of a commit whose answer was lost.
    async fn resolve(&mut self, lost: sqlx::Error) -> Commit {
        tracing::warn!(error = %lost, "the connection to the database broke in the middle of a commit: it is looked up");
        self.patient = true;
        let begun = Instant::now();
        loop {
            match self.look_up().await {
                Ok(true) => return Commit::Done,
                Ok(false) => return Commit::Undone(lost),
                Err(error) => {
                    let again = matches!(trouble(&error), Trouble::Away | Trouble::Slow) && begun.elapsed() < self.deadlines.reconnect;
                    self.abandon().await;
                    if !again {
                        return Commit::Unknown(lost);
                    }
                }
            }
        }
    }

    /// Whether the mark of the lost group is there. Beginning waits for the lock that the lost transaction holds as long as it
    /// lives: what is read afterwards is final.
    async fn look_up(&mut self) -> Result<bool, sqlx::Error> {
        self.begin().await?;
        let binds = binds![&self.writer];
        let read = async |connection: &mut PgConnection| query(MARK_READ, &binds).fetch_all(connection).await;
        let rows = named(MARK_READ, self.run(read).await?);
        self.abandon().await;
        Ok(rows.first().and_then(|row| row.int(0).ok()) == Some(self.group))
    }

    pub(super) async fn abandon(&mut self) {
        self.pending.clear();
        self.scope = None;
        self.word("ROLLBACK");
        if self.run(async |_| Ok(())).await.is_err() {
            // Closing it has the same effect.
            self.connection = None;
        }
        self.pending.clear();
    }

    pub(super) const fn patience(&self) -> Duration {
        self.deadlines.reconnect
    }

    pub(super) const fn gave_up(&self) -> bool {
        !self.patient
    }

    pub(super) async fn script(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        self.run(async |connection: &mut PgConnection| sqlx::raw_sql(text).execute(connection).await.map(|_| ())).await
    }

    async fn reconnect(&mut self) -> Result<(), sqlx::Error> {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(20);
        loop {
            let error = match connect(&self.options, self.deadlines.connect).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.patient = true;
                    return Ok(());
                }
                Err(error) => error,
            };
            if !self.patient || trouble(&error) != Trouble::Away || begun.elapsed() >= self.deadlines.reconnect {
                // Who comes next is told at once, until it is there again.
                self.patient = false;
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(Duration::from_secs(1));
        }
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        match self.connection {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }
}

/// Connects to a server that takes writes, and makes commits durable there whatever its settings say.
pub(crate) async fn connect(options: &PgConnectOptions, within: Duration) -> Result<PgConnection, sqlx::Error> {
    let connecting = async {
        let mut connection = options.connect().await?;
        let durable = "SELECT set_config('synchronous_commit', 'on', FALSE)
                       WHERE current_setting('synchronous_commit') IN ('off', 'local')";
        sqlx::raw_sql(durable).execute(&mut connection).await?;
        Ok(connection)
    };
    tokio::time::timeout(within, connecting).await.unwrap_or_else(|_| Err(broken("no answer in time")))
}

/// Runs one statement that reads, in a transaction of its own. What was lost on the way is asked again.
pub(super) async fn read(pool: &PgPool, statement: Statement, binds: &[Bind]) -> Result<Vec<Row>, sqlx::Error> {
    let begun = Instant::now();
    let mut wait = Duration::from_millis(1);
    loop {
        let once = tokio::time::timeout(STATEMENT_ANSWER, once(pool, statement, binds));
        let error = match once.await.unwrap_or_else(|_| Err(broken("no answer in time"))) {
            Ok(rows) => return Ok(named(statement, rows)),
            Err(error) => error,
        };
        if !matches!(trouble(&error), Trouble::Away | Trouble::Again) || begun.elapsed() >= READ_PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(Duration::from_millis(250));
    }
}

async fn once(pool: &PgPool, statement: Statement, binds: &[Bind]) -> Result<Vec<PgRow>, sqlx::Error> {
    let begin = format!("BEGIN READ ONLY; SET LOCAL swarm.tenant = '{}'", scope(statement, binds));
    let mut transaction = pool.begin_with(AssertSqlSafe(begin)).await?;
    // Dropped, the transaction is rolled back behind the answer: it changed nothing.
    query(statement, binds).fetch_all(&mut *transaction).await
}

/// Waits for an advisory lock, as long as a statement may take; the transaction that holds it may then be idle.
pub(super) async fn named_lock(pool: &PgPool, name: i64) -> Result<sqlx::Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = pool.begin_with("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(name).execute(&mut *transaction).await?;
    Ok(transaction)
}

fn named(statement: Statement, rows: Vec<PgRow>) -> Vec<Row> {
    rows.into_iter().map(|row| Row::postgres(row, statement.name)).collect()
}

fn broken(why: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
}

/// The settings of every session, told when it begins.
pub(crate) fn session(url: &PostgresUrl, tunnel: Option<&Path>) -> PgConnectOptions {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let deadlines = url.deadlines();
    url.options(tunnel).application_name("swarm").statement_cache_capacity(256).disable_statement_logging().options([
        ("search_path", "swarm".to_owned()),
        ("statement_timeout", millis(deadlines.statement)),
        ("idle_in_transaction_session_timeout", millis(deadlines.idle)),
        ("default_transaction_isolation", "read committed".to_owned()),
        ("jit", "off".to_owned()),
        // A peer that vanished without a word is noticed, and its locks are given back.
        ("tcp_keepalives_idle", "5".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "2".to_owned()),
        ("tcp_user_timeout", millis(deadlines.answer)),
    ])
}
