//! What operators watch: counters, latencies and gauges of this process, in the text form that Prometheus reads.
//!
//! **Invariant:** every label has a value out of a set that the program fixes (a route's template, an event's kind, a state's
//! word): no id, name, address or text of anybody is one, so nobody outside can add series, and nothing here tells whose they are.

pub(crate) mod serve;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use audit::EncodedEntry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use store::{Fate, Observer};
use vocabulary::job::JobState;
use vocabulary::{ErrorCode, UnixTime};

use crate::deployment::Ends;
use crate::keylife::Done;
use crate::limits::{COMMIT_SECONDS, REQUEST_SECONDS};
use crate::planner::JobRow;
use crate::row::NodeRow;
use crate::state::Control;

/// Labels: names and values of the program's own.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The states of a job that is not over.
const LIVE: [JobState; 7] =
    [JobState::Pending, JobState::Pulling, JobState::Opening, JobState::Creating, JobState::Running, JobState::Stopping, JobState::Sealing];

/// What is done to keys.
const STEPS: [&str; 4] = ["rotated", "rewrapped", "retired", "destroyed"];

/// What ends at a time.
const CERTIFICATES: [&str; 5] = ["root", "node_authority", "control_authority", "receipt_key", "server"];

/// What becomes of spans.
const SPANS: [&str; 4] = ["exported", "dropped", "failed", "skipped"];

/// How a node is; the first that is true of it.
const NODES: [&str; 5] = ["revoked", "lost", "silent", "draining", "alive"];

/// Which listener a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The API.
    Api,
    /// The node channel.
    Nodes,
}

/// Whose bucket of tokens was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bucket {
    /// A principal's, or its tenant's.
    Member,
    /// That of a source of refused credentials.
    Credentials,
}

/// All metrics of a control plane.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels<4>, Counter>,
    seconds: Family<Labels<3>, Histogram, fn() -> Histogram>,
    credentials_refused: Counter,
    rate_limited: Family<Labels<1>, Counter>,
    spans: Family<Labels<1>, Counter>,
    strangers: Family<Labels<1>, Counter>,
    connections: Family<Labels<1>, Gauge>,
    displaced: Family<Labels<1>, Counter>,
    turned_away: Family<Labels<1>, Counter>,
    commits: Arc<Commits>,
    log_entries: Gauge,
    log_published: Gauge,
    log_lag: Gauge,
    store_up: Gauge,
    jobs: Family<Labels<1>, Gauge>,
    nodes: Family<Labels<1>, Gauge>,
    key_steps: Family<Labels<1>, Counter>,
    keys_due: Gauge,
    key_round: Gauge<f64, AtomicU64>,
    certificates: Family<Labels<1>, Gauge<f64, AtomicU64>>,
    clock_set: Gauge<f64, AtomicU64>,
    memory: Gauge,
    files: Gauge,
    threads: Gauge<i64, AtomicI64>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// What the store's writer tells.
#[derive(Debug)]
struct Commits {
    seconds: Histogram,
    transactions: Family<Labels<1>, Counter>,
    entries: Family<Labels<2>, Counter>,
}

impl Observer for Commits {
    fn group(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }
    fn decided(&self, fate: Fate, entries: &[EncodedEntry]) {
        self.transactions.get_or_create(&[("fate", fate.as_str())]).inc();
        if fate == Fate::Committed {
            for entry in entries {
                self.entries.get_or_create(&[("event", entry.kind), ("outcome", entry.outcome)]).inc();
            }
        }
    }
}

/// The words of this module that are values of labels.
pub(crate) fn words() -> Vec<&'static str> {
    let listeners = [Listener::Api, Listener::Nodes].map(Listener::as_str);
    let buckets = [Bucket::Member, Bucket::Credentials].map(Bucket::as_str);
    let fates = [Fate::Committed, Fate::Replayed, Fate::Refused, Fate::Failed].map(Fate::as_str);
    let rest = ["other", "none", "1xx", "2xx", "3xx", "4xx", "5xx", "allowed", "refused", "failed"];
    let states = LIVE.into_iter().map(JobState::as_str).chain(NODES).chain(STEPS).chain(SPANS);
    listeners.into_iter().chain(buckets).chain(fates).chain(states).chain(rest).chain(CERTIFICATES).collect()
}

impl Metrics {
    /// All of them at nothing, for a process that starts now.
    pub(crate) fn new(started: UnixTime) -> Self {
        let mut registry = Registry::default();
        let seconds = || Histogram::new(REQUEST_SECONDS);
        let commits = Commits { seconds: Histogram::new(COMMIT_SECONDS), transactions: Family::default(), entries: Family::default() };
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            credentials_refused: Counter::default(),
            rate_limited: Family::default(),
            spans: Family::default(),
            strangers: Family::default(),
            connections: Family::default(),
            displaced: Family::default(),
            turned_away: Family::default(),
            commits: Arc::new(commits),
            log_entries: Gauge::default(),
            log_published: Gauge::default(),
            log_lag: Gauge::default(),
            store_up: Gauge::default(),
            jobs: Family::default(),
            nodes: Family::default(),
            key_steps: Family::default(),
            keys_due: Gauge::default(),
            key_round: Gauge::default(),
            certificates: Family::default(),
            clock_set: Gauge::default(),
            memory: Gauge::default(),
            files: Gauge::default(),
            threads: Gauge::default(),
            registry: Registry::default(),
        };
        let version: Family<Labels<1>, Gauge> = Family::default();
        version.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("swarm_build_info", "The version of this program, as a label", version);
        registry.register("swarm_requests", "Requests answered, by route and class of status; a stream counts when it begins", metrics.requests.clone());
        registry.register_with_unit("swarm_request", "Time from a request's headers to its answer's", Unit::Seconds, metrics.seconds.clone());
        registry.register("swarm_credentials_refused", "Requests of the API whose credential was absent or none", metrics.credentials_refused.clone());
        registry.register("swarm_rate_limited", "Requests refused because they came too often", metrics.rate_limited.clone());
        registry.register("swarm_trace_spans", "Spans for the OTLP collector, by what became of them; skipped are whole traces", metrics.spans.clone());
        registry.register("swarm_strangers_refused", "Refusals of strangers that the audit log counts, by code", metrics.strangers.clone());
        registry.register("swarm_connections", "Connections that are there, by listener", metrics.connections.clone());
        registry.register("swarm_connections_displaced", "Connections ended because another needed their place", metrics.displaced.clone());
        registry.register("swarm_connections_turned_away", "Connections ended at once because no place could be made", metrics.turned_away.clone());
        registry.register_with_unit("swarm_store_commit", "Time of a group of transactions until it is on disk", Unit::Seconds, metrics.commits.seconds.clone());
        registry.register("swarm_store_transactions", "Transactions that the store decided", metrics.commits.transactions.clone());
        registry.register("swarm_audit_entries", "Entries that this process committed to the audit log", metrics.commits.entries.clone());
        registry.register("swarm_store_up", "Whether the store answered when this was read", metrics.store_up.clone());
        registry.register("swarm_log_entries", "Entries of the deployment's audit log", metrics.log_entries.clone());
        registry.register("swarm_log_published_entries", "Entries under the newest signed checkpoint", metrics.log_published.clone());
        registry.register("swarm_log_unpublished_entries", "Entries that no signed checkpoint covers yet", metrics.log_lag.clone());
        registry.register("swarm_jobs", "Jobs of the deployment that are not over, by state", metrics.jobs.clone());
        registry.register("swarm_nodes", "Nodes of the deployment, each by the first that is true of it", metrics.nodes.clone());
        registry.register("swarm_key_steps", "Steps in the life of keys that this process did", metrics.key_steps.clone());
        registry.register("swarm_keys_due", "Whether the last round left keys that are due for rotation or rewrap", metrics.keys_due.clone());
        registry.register_with_unit("swarm_clock_set", "By how much this machine's clock was set since the start, and not followed", Unit::Seconds, metrics.clock_set.clone());
        registry.register_with_unit("swarm_certificate_end_timestamp", "When the certificates end that the deployment is built on, and the one that this process shows", Unit::Seconds, metrics.certificates.clone());
        registry.register_with_unit("swarm_key_round_timestamp", "When the last round of keys ended", Unit::Seconds, metrics.key_round.clone());
        registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, metrics.memory.clone());
        registry.register("process_open_fds", "Open file descriptors", metrics.files.clone());
        registry.register("process_threads", "Threads", metrics.threads.clone());
        let start: Gauge<f64, AtomicU64> = Gauge::default();
        start.set(seconds_of(started));
        registry.register_with_unit("process_start_time", "When the control plane began to serve", Unit::Seconds, start);
        metrics.keep_series();
        Self { registry, ..metrics }
    }

    /// Series of which the absence would look like health are there from the start.
    fn keep_series(&self) {
        for state in LIVE {
            drop(self.jobs.get_or_create(&[("state", state.as_str())]));
        }
        for state in NODES {
            drop(self.nodes.get_or_create(&[("state", state)]));
        }
        for fate in [Fate::Committed, Fate::Replayed, Fate::Refused, Fate::Failed] {
            drop(self.commits.transactions.get_or_create(&[("fate", fate.as_str())]));
        }
        for fate in SPANS {
            drop(self.spans.get_or_create(&[("fate", fate)]));
        }
        for step in STEPS {
            drop(self.key_steps.get_or_create(&[("step", step)]));
        }
        for listener in [Listener::Api, Listener::Nodes] {
            let label = [("listener", listener.as_str())];
            drop((self.connections.get_or_create(&label), self.displaced.get_or_create(&label), self.turned_away.get_or_create(&label)));
        }
        for bucket in [Bucket::Member, Bucket::Credentials] {
            drop(self.rate_limited.get_or_create(&[("bucket", bucket.as_str())]));
        }
    }

    /// Whoever the store tells of its commits.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::<Commits>::clone(&self.commits)
    }

    /// A request was answered. Method and route are those of the table, or `other` and `none`.
    pub(crate) fn request(&self, listener: Listener, method: &'static str, route: &'static str, status: http::StatusCode, took: Duration) {
        let (listener, class) = (("listener", listener.as_str()), ("status", class(status)));
        self.requests.get_or_create(&[listener, ("method", method), ("route", route), class]).inc();
        self.seconds.get_or_create(&[listener, ("method", method), ("route", route)]).observe(took.as_secs_f64());
    }

    pub(crate) fn credential_refused(&self) {
        self.credentials_refused.inc();
    }

    pub(crate) fn rate_limited(&self, bucket: Bucket) {
        self.rate_limited.get_or_create(&[("bucket", bucket.as_str())]).inc();
    }

    /// A connection is there until the guard is dropped.
    pub(crate) fn connection(&self, listener: Listener) -> Counted {
        let gauge = self.connections.get_or_create(&[("listener", listener.as_str())]).clone();
        gauge.inc();
        Counted(gauge)
    }

    /// So many gave their place to another.
    pub(crate) fn displaced(&self, listener: Listener, count: usize) {
        self.displaced.get_or_create(&[("listener", listener.as_str())]).inc_by(count as u64);
    }

    /// Nobody could give a place to one more.
    pub(crate) fn turned_away(&self, listener: Listener) {
        self.turned_away.get_or_create(&[("listener", listener.as_str())]).inc();
    }

    pub(crate) fn stranger_refused(&self, code: ErrorCode) {
        self.strangers.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// What the planner's driver sees.
    pub(crate) fn fleet<'a>(&self, nodes: impl Iterator<Item = (&'a NodeRow, bool)>, jobs: &[JobRow]) {
        let mut by_state = [0_i64; NODES.len()];
        for (node, alive) in nodes {
            let place = match node {
                node if node.revoked => 0,
                node if node.lost => 1,
                _ if !alive => 2,
                node if node.draining => 3,
                _ => 4,
            };
            if let Some(count) = by_state.get_mut(place) {
                *count = count.saturating_add(1);
            }
        }
        for (state, count) in NODES.into_iter().zip(by_state) {
            self.nodes.get_or_create(&[("state", state)]).set(count);
        }
        let mut by_state = [0_i64; LIVE.len()];
        for job in jobs {
            let state = job.state();
            if let Some((_, count)) = LIVE.iter().zip(&mut by_state).find(|(live, _)| **live == state) {
                *count = count.saturating_add(1);
            }
        }
        for (state, count) in LIVE.into_iter().zip(by_state) {
            self.jobs.get_or_create(&[("state", state.as_str())]).set(count);
        }
    }

    /// A round in the life of keys ended.
    pub(crate) fn keys(&self, done: &Done, now: UnixTime) {
        let steps = [("rotated", done.rotated), ("rewrapped", done.rewrapped), ("retired", done.retired), ("destroyed", done.destroyed)];
        for (step, count) in steps {
            self.key_steps.get_or_create(&[("step", step)]).inc_by(count as u64);
        }
        self.keys_due.set(i64::from(done.more));
        self.key_round.set(seconds_of(now));
    }

    /// When certificates end: those that the deployment is built on, and the one that this process shows.
    pub(crate) fn certificates(&self, ends: Ends, server: UnixTime) {
        let all = [ends.root, ends.node_authority, ends.control_authority, ends.receipt_key, server];
        for (certificate, end) in CERTIFICATES.into_iter().zip(all) {
            self.certificates.get_or_create(&[("certificate", certificate)]).set(seconds_of(end));
        }
    }

    /// The text of all metrics, with what must be asked for asked now.
    pub(crate) async fn text(&self, control: &Control) -> Result<String, std::fmt::Error> {
        self.clock_set.set(Duration::from_millis(crate::clock::set_by_ms().unsigned_abs()).as_secs_f64());
        match control.store.entry_count().await {
            Ok(entries) => {
                let published = *control.published.borrow();
                let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                self.store_up.set(1);
                self.log_entries.set(number(entries));
                self.log_published.set(number(published));
                self.log_lag.set(number(entries.saturating_sub(published)));
            }
            Err(error) => {
                tracing::warn!(%error, "the store did not answer for the metrics");
                self.store_up.set(0);
            }
        }
        self.process();
        self.traces(control.tracer.counts());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// What became of spans: the tracer counts, and this follows.
    fn traces(&self, counts: telemetry::Counts) {
        for (fate, count) in SPANS.into_iter().zip([counts.exported, counts.dropped, counts.failed, counts.skipped]) {
            let told = self.spans.get_or_create(&[("fate", fate)]);
            told.inc_by(count.saturating_sub(told.get()));
        }
    }

    /// What the kernel says of this process. What it does not say stays as it was.
    fn process(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<i64>().ok());
        if let Some(kib) = field("VmRSS:") {
            self.memory.set(kib.saturating_mul(1024));
        }
        if let Some(threads) = field("Threads:") {
            self.threads.set(threads);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
    }
}

/// Counts a connection that is there.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Listener {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Nodes => "nodes",
        }
    }
}

impl Bucket {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Credentials => "credentials",
        }
    }
}

/// The class of a status.
fn class(status: http::StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// A time as Prometheus has it.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of this era fit the 53 bits of a double")]
fn seconds_of(time: UnixTime) -> f64 {
    time.millis() as f64 / 1000.0
}
