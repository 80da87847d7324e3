//! The agent: one loop that makes the machine match its plan, and the tasks that it starts and awaits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::LiveRevocations;
use runtime::backend::{Backend, BackendError};
use runtime::scratch::Scratch;
use runtime::supervisor::{FoundState, Handle, Status, Supervisor};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vocabulary::job::AttemptId;
use vocabulary::plan::{Desired, NodeFacts};
use vocabulary::runtime::Runtime;

use crate::attempt::{self, Beginning, FORMAT, Found, Phase, Record, Slot, Wish};
use crate::channel::{Backoff, Channel, ChannelError, chain};
use crate::gpus::{GpuOptions, Gpus};
use crate::ids::IdBlocks;
use crate::images::Images;
use crate::journal::{self, Journal};
use crate::limits::{
    DRAIN_EXTRA, LOCK_PATIENCE, RECORD_BYTES_MAX, REVOKED_PAUSE, STRANGER_PATIENCE, WATCH_EVERY,
};
use crate::plan::CheckedPlan;
use crate::store::{self, Node, StoreError};
use crate::cosign::{self, NodeWitness};
use crate::{clock, facts, files, follow, renew, report};

/// How an agent runs.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The directory that [`crate::join()`] made.
    pub dir: PathBuf,
    /// The program that carries `runtime`'s shim: `swarm` itself.
    pub shim_exe: PathBuf,
    /// Name of the node's cgroup below the root of every hierarchy, such as `swarm`.
    pub cgroup_parent: String,
    /// Foreign runtimes and their programs; empty means those that packages have put where they put them.
    pub runtimes: Vec<(Runtime, PathBuf)>,
    /// GPUs that this node offers.
    pub gpus: GpuOptions,
    /// First of the host ids that this agent may give away.
    pub id_base: u32,
    /// How many blocks of `runtime::limits::ID_BLOCK` ids it may give away: the most jobs at once.
    pub id_blocks: u32,
    /// Whether jobs are stopped when the agent is. Otherwise they live on under their shims and are found again.
    pub drain_on_stop: bool,
    /// Makes spans of the steps of attempts, or none.
    pub tracer: telemetry::Tracer,
}

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another agent works in the same directory.
    #[error("another agent works in `{0}`")]
    Locked(String),
    /// A runtime that was named.
    #[error(transparent)]
    Runtime(#[from] BackendError),
    /// The range of ids.
    #[error("id_base, id_blocks: the range must begin at {} or above and end below 2^32", runtime::limits::ID_BLOCK)]
    Ids,
    /// Something else that it needs.
    #[error("{what}: {detail}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        detail: String,
    },
}

fn start<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> RunError {
    move |error| RunError::Start { what, detail: error.to_string() }
}

/// What the tasks of an agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) attempts_dir: PathBuf,
    pub(crate) node: Node,
    pub(crate) channel: Channel,
    pub(crate) revocations: LiveRevocations,
    pub(crate) supervisor: Supervisor,
    pub(crate) images: Arc<Images>,
    pub(crate) ids: IdBlocks,
    /// What this node did, in its own log.
    pub(crate) journal: Arc<Journal>,
    pub(crate) cgroup_parent: String,
    pub(crate) facts: NodeFacts,
    /// What makes sandboxes here, each runtime once.
    pub(crate) backends: Vec<Backend>,
    pub(crate) gpus: Gpus,
    /// Makes spans of the steps of attempts, or none.
    pub(crate) tracer: telemetry::Tracer,
    /// The attempts that have a task.
    pub(crate) slots: Mutex<BTreeMap<AttemptId, Slot>>,
    soon: Notify,
    /// Whether it was said that this node is revoked.
    revoked: AtomicBool,
    /// Wakes the follower: the control plane has a newer plan than it was given.
    pub(crate) stale: Notify,
}

impl Shared {
    /// Sends a heartbeat at once.
    pub(crate) fn report_soon(&self) {
        self.soon.notify_one();
    }
    /// Waits until somebody wants a heartbeat at once.
    pub(crate) async fn wanted(&self) {
        self.soon.notified().await;
    }
    /// Waits after a failed call. A node that is revoked says so, and what to do, instead of complaining about the network.
    pub(crate) async fn failed(
        &self,
        what: &'static str,
        error: &ChannelError,
        backoff: &mut Backoff,
    ) {
        if *error != ChannelError::Revoked {
            tracing::warn!(%error, what, "the control plane was not reached");
            return backoff.wait().await;
        }
        if !self.revoked.swap(true, Ordering::Relaxed) {
            tracing::error!(
                node = %self.node.file.node,
                "revoked: an operator revoked this node, which is for good. Its jobs end with their run leases, and it gets no others. To use the \
                 machine again: an operator runs `swarm node invite`, and on this machine `swarm node join` with another --node-dir"
            );
        }
        tokio::time::sleep(REVOKED_PAUSE).await;
    }
    /// The control plane has answered.
    pub(crate) fn answered(&self) {
        self.revoked.store(false, Ordering::Relaxed);
    }
    /// Looks at the attempts; the closure must not wait for anything.
    pub(crate) fn with_slots<T>(&self, look: impl FnOnce(&mut BTreeMap<AttemptId, Slot>) -> T) -> T {
        look(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs the agent until `stop` is cancelled.
///
/// # Errors
/// When it cannot begin: its directory, another agent, the id range, the program for shims.
pub async fn run(options: NodeOptions, stop: CancellationToken) -> Result<(), RunError> {
    let lock = lock(&options.dir).await?;
    let drain = options.drain_on_stop;
    let (shared, found) = tokio::task::spawn_blocking(move || assemble(&options)).await.map_err(start("start the agent"))??;
    end_strangers(found.strangers, found.lost).await;
    let rules = follow::believed(&shared.node.deployment, &shared.node.file);
    // A plan of the disk was believed once; which of the deployment's keys signed it does not matter any more.
    let kept = store::read_plan(&shared.dir)?.and_then(|bytes| match rules.check(&bytes, None) {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::error!(%error, "the plan on the disk is refused; waiting for one from the control plane");
            None
        }
    });
    if let Some(plan) = &kept {
        // At the first start of a set there is none that could be newer.
        let _ = shared.revocations.replace(plan.revocations().clone());
    }
    let (plans, plan) = watch::channel(kept.map(Arc::new));
    let mut tasks = JoinSet::new();
    let inner = CancellationToken::new();
    tasks.spawn(follow::follow(Arc::clone(&shared), plans, inner.clone()));
    tasks.spawn(report::beat(Arc::clone(&shared), plan.clone(), inner.clone()));
    tasks.spawn(journal::anchor(Arc::clone(&shared), inner.clone()));
    tasks.spawn(renew::renew(Arc::clone(&shared), inner.clone()));
    if let Some(witness) = witness(&shared).await {
        tasks.spawn(cosign::cosign(Arc::clone(&shared), witness, inner.clone()));
    }
    let mut agent = Agent { shared, attempts: JoinSet::new(), stop: inner.clone(), plan };
    agent.recover(found.known);
    agent.work(&stop).await;
    if drain {
        agent.drain().await;
    }
    inner.cancel();
    while agent.attempts.join_next().await.is_some() {}
    while tasks.join_next().await.is_some() {}
    drop(lock);
    Ok(())
}

/// The node's witness. One that refuses to open (its memory was restored from a copy, a file was changed) signs nothing, and
/// the node runs its jobs all the same: the log has other witnesses, and misses this one by name.
async fn witness(shared: &Arc<Shared>) -> Option<Arc<NodeWitness>> {
    let own = Arc::clone(shared);
    match tokio::task::spawn_blocking(move || NodeWitness::open(&own.dir, &own.node)).await {
        Ok(Ok(witness)) => Some(Arc::new(witness)),
        Ok(Err(error)) => {
            tracing::error!(error, "this node witnesses nothing");
            None
        }
        Err(error) => {
            tracing::error!(%error, "this node witnesses nothing");
            None
        }
    }
}

/// Takes the directory for this agent alone. An agent that was killed while it started a program leaves a copy of its lock in
/// the child until that has become the program: a moment's patience.
async fn lock(dir: &Path) -> Result<std::fs::File, RunError> {
    if !store::is_joined(dir) {
        return Err(StoreError::NotJoined(dir.display().to_string()).into());
    }
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("agent.lock")).map_err(start("open agent.lock"))?;
    let mut waited = Duration::ZERO;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if waited < LOCK_PATIENCE => {
                tokio::time::sleep(WATCH_EVERY).await;
                waited = waited.saturating_add(WATCH_EVERY);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RunError::Locked(dir.display().to_string())),
            Err(error) => return Err(start("lock agent.lock")(error)),
        }
    }
}

/// Everything that blocks, in start order.
fn assemble(options: &NodeOptions) -> Result<(Arc<Shared>, Leavings), RunError> {
    let node = store::load(&options.dir)?;
    let ids = IdBlocks::new(options.id_base, options.id_blocks).ok_or(RunError::Ids)?;
    let attempts_dir = options.dir.join("attempts");
    files::directory(&attempts_dir).map_err(start("make the directory of attempts"))?;
    let supervisor = Supervisor::new(&options.dir.join("jobs"), &options.shim_exe).map_err(|error| start("prepare shims")(chain(&error)))?;
    let images = Images::open(options.dir.join("images")).map_err(|error| start("open the cache of images")(chain(&error)))?;
    let backends = backends(&options.runtimes)?;
    let revocations = LiveRevocations::default();
    let channel = Channel::new(node.file.channel.clone(), node.deployment.root().clone(), revocations.clone(), &node.tls()).map_err(start("prepare the channel"))?;
    let found = find(&attempts_dir, &supervisor, &ids)?;
    let living = found.known.iter().map(|beginning| beginning.record.attempt()).collect();
    let gpus = Gpus::open(&options.dir, &options.gpus, &living).map_err(start("offer GPUs"))?;
    let facts = facts::gather_tried(&options.dir, &options.shim_exe, &backends);
    let journal = Journal::open(&options.dir, &node).map_err(start("open the node's log"))?;
    journal::started(&journal, &facts.boot_id).map_err(start("write the node's log"))?;
    let shared = Shared {
        facts,
        journal: Arc::new(journal),
        backends,
        gpus,
        tracer: options.tracer.clone(),
        dir: options.dir.clone(),
        attempts_dir,
        node,
        channel,
        revocations,
        supervisor,
        images: Arc::new(images),
        ids,
        cgroup_parent: options.cgroup_parent.clone(),
        slots: Mutex::default(),
        soon: Notify::new(),
        revoked: AtomicBool::new(false),
        stale: Notify::new(),
    };
    Ok((Arc::new(shared), found))
}

/// The own backend, and the foreign ones that were named or found. One that was named and is not there is an error.
fn backends(named: &[(Runtime, PathBuf)]) -> Result<Vec<Backend>, BackendError> {
    if named.is_empty() {
        return Ok(Backend::installed());
    }
    let mut all = BTreeMap::from([(Runtime::default(), Backend::default())]);
    for (runtime, path) in named {
        all.insert(*runtime, Backend::probe(*runtime, path)?);
    }
    Ok(all.into_values().collect())
}

/// The attempts of earlier runs of the agent: their records beside what the supervisor finds.
fn find(attempts_dir: &Path, supervisor: &Supervisor, ids: &IdBlocks) -> Result<Leavings, RunError> {
    let mut scanned: BTreeMap<AttemptId, _> =
        supervisor.scan().map_err(|error| start("look for attempts")(chain(&error)))?.into_iter().map(|found| (found.attempt, found)).collect();
    let (mut all, mut lost) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(attempts_dir).map_err(start("read the directory of attempts"))? {
        let path = entry.map_err(start("read the directory of attempts"))?.path();
        let record = match files::read_json::<Record>(&path.join("record.json"), RECORD_BYTES_MAX) {
            Ok(record) if record.format == FORMAT => record,
            Ok(record) => {
                tracing::error!(path = %path.display(), format = record.format, "a record of another version is left alone");
                continue;
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a record cannot be read");
                lost.push(path);
                continue;
            }
        };
        // What never reached a sandbox is begun again, with another block.
        if let Some(base) = record.id_base.filter(|_| record.phase >= Phase::Creating && record.phase != Phase::Gone) {
            ids.claim(base);
        }
        if record.phase == Phase::Gone {
            // Whatever is found of it all the same is nobody's.
            continue;
        }
        let (found, handle) = match scanned.remove(&record.attempt()) {
            None => (Found::Nothing, None),
            Some(found) => match found.state {
                FoundState::Ended(exit) => (Found::Ended(exit), Some(found.handle)),
                FoundState::Alive => {
                    let isolation = found.handle.status().ok().and_then(|status| status.isolation);
                    (Found::Alive(isolation), Some(found.handle))
                }
            },
        };
        all.push(Beginning { record, found, handle, older: Vec::new() });
    }
    // Older attempts of a job come first, so that newer ones find them to wait for.
    all.sort_by_key(|beginning| beginning.record.attempt());
    Ok(Leavings { known: all, strangers: scanned.into_values().map(|found| found.handle).collect(), lost })
}

/// What earlier runs of the agent left.
struct Leavings {
    /// Attempts with their records.
    known: Vec<Beginning>,
    /// What the supervisor has and no record speaks of.
    strangers: Vec<Handle>,
    /// Directories whose record cannot be read.
    lost: Vec<PathBuf>,
}

/// What runs without a record of ours is nobody's: it ends before anything begins, and what it had opened goes.
async fn end_strangers(strangers: Vec<Handle>, lost: Vec<PathBuf>) {
    for handle in strangers {
        let attempt = handle.attempt();
        tracing::error!(%attempt, "an attempt without a record is killed");
        let ending = async {
            attempt::halt(handle.clone(), None, vocabulary::job::ExitReason::SupervisorLost).await;
            loop {
                if let Ok(Status { exit: Some(_), .. }) = attempt::with(&handle, Handle::status).await {
                    return attempt::with(&handle, Handle::cleanup).await;
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        };
        match tokio::time::timeout(STRANGER_PATIENCE, ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%attempt, error = chain(&error), "leftovers stay"),
            Err(_) => tracing::error!(%attempt, "it does not die"),
        }
    }
    for path in lost {
        // A plan that names the attempt is told that it failed.
        let place = path.clone();
        match tokio::task::spawn_blocking(move || Scratch::remove_leftovers(&place)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(path = %path.display(), error = chain(&error), "scratch stays"),
            Err(error) => tracing::error!(path = %path.display(), %error, "scratch stays"),
        }
    }
}

/// What the disk knows of an attempt that a plan names and that has no task.
enum Before {
    /// Nothing: it may be begun.
    Never,
    /// It is over, or of a version that this one leaves alone.
    Over,
    /// It was begun, and its record is lost.
    Unknown,
}

struct Agent {
    shared: Arc<Shared>,
    /// One task for each attempt.
    attempts: JoinSet<AttemptId>,
    stop: CancellationToken,
    plan: watch::Receiver<Option<Arc<CheckedPlan>>>,
}

impl Agent {
    async fn work(&mut self, stop: &CancellationToken) {
        self.plan.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.plan.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = self.plan.borrow_and_update().clone();
                    if let Some(plan) = plan {
                        self.reconcile(&plan).await;
                    }
                }
                Some(ended) = self.attempts.join_next() => {
                    self.ended(ended);
                    // What is over and in no plan leaves nothing behind, also where no newer plan comes.
                    let planned: Option<Vec<AttemptId>> = self.plan.borrow().as_ref().map(|plan| plan.plan().jobs.iter().map(|job| job.attempt).collect());
                    if let Some(planned) = planned {
                        self.forget(&planned).await;
                    }
                }
            }
        }
    }

    fn ended(&self, ended: Result<AttemptId, tokio::task::JoinError>) {
        match ended {
            Ok(attempt) => {
                self.shared.with_slots(|slots| slots.remove(&attempt));
                self.shared.report_soon();
            }
            // The record is on the disk: the next start of the agent takes the attempt up again.
            Err(error) => tracing::error!(%error, "the task of an attempt broke"),
        }
    }

    /// Attempts of earlier runs, before any plan: they go on as their records say.
    fn recover(&mut self, found: Vec<Beginning>) {
        for beginning in found {
            let mut wish = Wish { desired: Some(Desired::Run), ..Wish::default() };
            if beginning.record.phase >= Phase::Sealing {
                // Nothing of it can act any more but through the control plane: this only bounds the patience.
                let lease = beginning.record.planned.spec.run_lease_ms;
                wish.deadline_boottime_ms = Some(clock::boottime_ms().saturating_add(lease));
            }
            self.begin(beginning, wish);
        }
    }

    fn begin(&mut self, mut beginning: Beginning, wish: Wish) {
        let attempt = beginning.record.attempt();
        beginning.older = self.shared.with_slots(|slots| {
            slots.iter().filter(|(other, _)| other.job == attempt.job && other.attempt < attempt.attempt).map(|(_, slot)| slot.view.clone()).collect()
        });
        let (slot, task) = attempt::drive(Arc::clone(&self.shared), beginning, wish, self.stop.clone());
        self.shared.with_slots(|slots| slots.insert(attempt, slot));
        self.attempts.spawn(task);
    }

    /// Level-triggered: what the plan says now is what is wanted now, whatever was missed before.
    async fn reconcile(&mut self, plan: &CheckedPlan) {
        let planned: BTreeMap<AttemptId, _> = plan.plan().jobs.iter().map(|job| (job.attempt, job)).collect();
        let mut fresh = Vec::new();
        self.shared.with_slots(|slots| {
            for (attempt, slot) in &*slots {
                let desired = planned.get(attempt).map(|job| job.desired);
                slot.wish.send_if_modified(|wish| std::mem::replace(&mut wish.desired, desired) != desired);
            }
            fresh.extend(planned.iter().filter(|(attempt, _)| !slots.contains_key(attempt)).map(|(_, job)| (*job).clone()));
        });
        self.forget(&planned.keys().copied().collect::<Vec<_>>()).await;
        for job in fresh {
            let before = self.before(job.attempt).await;
            let wish = Wish { desired: Some(job.desired), ..Wish::default() };
            let mut record = Record::new(job, clock::wall());
            match before {
                Before::Never => {}
                Before::Over => continue,
                Before::Unknown => {
                    record.phase = Phase::Creating;
                    record.boot_id.clone_from(&self.shared.facts.boot_id);
                }
            }
            self.begin(Beginning { record, found: Found::Nothing, handle: None, older: Vec::new() }, wish);
        }
        self.shared.report_soon();
    }

    /// What the disk knows of an attempt that has no task.
    async fn before(&self, attempt: AttemptId) -> Before {
        let path = self.shared.attempts_dir.join(attempt.to_string());
        let looked = tokio::task::spawn_blocking(move || match files::read_json::<serde_json::Value>(&path.join("record.json"), RECORD_BYTES_MAX) {
            Ok(_) => Before::Over,
            Err(_) if path.exists() => Before::Unknown,
            Err(_) => Before::Never,
        });
        looked.await.unwrap_or(Before::Over)
    }

    /// Removes the records of attempts that are over and that no plan names any more.
    async fn forget(&self, planned: &[AttemptId]) {
        let living: Vec<AttemptId> = self.shared.with_slots(|slots| slots.keys().copied().collect());
        let (dir, planned) = (self.shared.attempts_dir.clone(), planned.to_vec());
        let done = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            for entry in std::fs::read_dir(&dir)? {
                let path = entry?.path();
                let Ok(record) = files::read_json::<Record>(&path.join("record.json"), RECORD_BYTES_MAX) else { continue };
                let attempt = record.attempt();
                if record.phase == Phase::Gone && !planned.contains(&attempt) && !living.contains(&attempt) {
                    std::fs::remove_dir_all(&path)?;
                }
            }
            Ok(())
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!(%error, "an old record stays");
        }
    }

    /// Stops every job and waits until the ends are sealed and told, within bounds.
    async fn drain(&mut self) {
        let longest = self.shared.with_slots(|slots| {
            let mut longest = 0;
            for slot in slots.values() {
                slot.wish.send_modify(|wish| wish.desired = Some(Desired::Evict));
                longest = longest.max(slot.grace_ms);
            }
            longest
        });
        let bound = Duration::from_millis(longest).saturating_add(DRAIN_EXTRA);
        let waiting = async {
            // An attempt whose end is acknowledged and whose leftovers are gone has no slot any more.
            while !self.shared.with_slots(|slots| slots.is_empty()) {
                match self.attempts.join_next().await {
                    Some(Ok(attempt)) => drop(self.shared.with_slots(|slots| slots.remove(&attempt))),
                    Some(Err(error)) => tracing::error!(%error, "the task of an attempt broke"),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(bound, waiting).await.is_err() {
            tracing::warn!("jobs were told to stop, and not all ends could be told in time");
        }
    }
}
