//! The planner's driver: reads rows, asks [`crate::planner`], writes what it decides, one transaction each. Level-triggered:
//! killed at any point, it goes on from what the store says.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit::{EncodedEntry, Event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use store::{Expect, Kind, Mutation, Page, Put, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::job::{AttemptId, Exit, JobState};
use vocabulary::plan::{AttemptReport, NodePlan, PLAN_CONTEXT, PlannedJob, Revocations, SignedPlan};
use vocabulary::{LeaseId, NodeId, SYSTEM_OWNER, TenantId, UnixTime, VolumeId};

use crate::api::problem::Failure;
use crate::clock;
use crate::fleet::{CurrentPlan, PlanRow, SEEN, SeenRow};
use crate::job::{PENDING, PLACED};
use crate::limits::{NODE_LOST_MS, PLAN_SPECS_MAX, SEEN_FLUSH_MS, STATEMENT_GRACE_MS, TICK};
use crate::planner::{AttemptRow, DataRule, JobRow, NodeView, ReceiptRow, Silence, Used, place, planned_jobs, silence, usage};
use crate::row::{FORMAT, NodeRow, VolumeRow};
use crate::state::{Control, commit_failure, fresh};

/// Takes what the store knows of nodes and plans into memory, at the start.
pub(crate) async fn load(control: &Control) -> Result<(), Failure> {
    for row in all::<SeenRow>(control, SEEN).await? {
        control.fleet.load(row);
    }
    for row in all::<PlanRow>(control, Kind::PLAN).await? {
        control.fleet.set_plan(row.read()?);
    }
    Ok(())
}

async fn all<T: serde::de::DeserializeOwned>(control: &Control, kind: Kind) -> Result<Vec<T>, Failure> {
    let mut rows = Vec::new();
    let mut next = Page::first(1000);
    loop {
        let found = control.store.list(SYSTEM_OWNER, kind, next).await.map_err(Failure::internal)?;
        for stored in &found.items {
            rows.push(stored.parse().map_err(Failure::internal)?);
        }
        match found.items.last() {
            Some(last) if found.truncated => next = Page::after(last.id, 1000),
            _ => return Ok(rows),
        }
    }
}

/// Runs until told to stop: when something was asked for, and every second.
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut driver = Driver::new(clock::now());
    loop {
        if let Err(failure) = driver.tick(&control, clock::now()).await {
            tracing::error!(detail = failure.problem.detail, "planning failed; tried again in a second");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = control.fleet.wake.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
    if let Err(failure) = flush(&control, clock::now()).await {
        tracing::warn!(detail = failure.problem.detail, "what nodes said last was not written");
    }
}

/// What the driver keeps between two ticks, so that a quiet second reads nothing.
#[derive(Debug)]
pub(crate) struct Driver {
    started: UnixTime,
    flushed: UnixTime,
    /// The change up to which `nodes` and `jobs` are true.
    seen: Option<u64>,
    nodes: Vec<NodeRow>,
    /// Those that wait for a node or are on one.
    jobs: Vec<JobRow>,
    /// The change, and the news of the fleet, for which everything that fits was placed.
    placed: Option<(u64, u64)>,
    /// The change, and the version of the revocations, for which all plans are told.
    told: Option<(u64, u64)>,
}

/// One thing that cannot be done holds up nothing else: it is told, and tried again with the next look.
fn tolerated(what: &'static str, id: impl std::fmt::Display, done: Result<(), Failure>) {
    if let Err(failure) = done {
        tracing::error!(what, %id, code = %failure.problem.code, detail = failure.problem.detail, "tried again in a second");
    }
}

impl Driver {
    pub(crate) const fn new(now: UnixTime) -> Self {
        Self { started: now, flushed: now, seen: None, nodes: Vec::new(), jobs: Vec::new(), placed: None, told: None }
    }

    /// Makes the state fit: ends are recorded, waiting jobs are placed, plans are told.
    pub(crate) async fn tick(&mut self, control: &Control, now: UnixTime) -> Result<(), Failure> {
        self.read(control).await?;
        self.silent_nodes(control, now).await;
        self.ends(control, now).await;
        self.read(control).await?;
        self.placements(control, now).await;
        self.read(control).await?;
        self.plans(control, now).await;
        if now.since(self.flushed).is_none_or(|age| age >= SEEN_FLUSH_MS) {
            self.flushed = now;
            flush(control, now).await?;
        }
        Ok(())
    }

    async fn read(&mut self, control: &Control) -> Result<(), Failure> {
        let latest = control.store.latest_change();
        if self.seen == Some(latest) {
            return Ok(());
        }
        let nodes = control.node_rows().await?;
        let mut jobs = Vec::new();
        for state in [PLACED, PENDING] {
            let mut next = Page::first(1000);
            loop {
                let found = control.store.list_state_anywhere(Kind::JOB, state, next).await.map_err(Failure::internal)?;
                for stored in &found.items {
                    match stored.parse() {
                        Ok(job) => jobs.push(job),
                        Err(error) => tracing::error!(id = hex::encode(stored.id), %error, "a job's row cannot be read and is left alone"),
                    }
                }
                match found.items.last() {
                    Some(last) if found.truncated => next = Page::after(last.id, 1000),
                    _ => break,
                }
            }
        }
        (self.nodes, self.jobs, self.seen) = (nodes, jobs, Some(latest));
        Ok(())
    }

    /// A node that is silent for too long is recorded once as lost; it is heard of again by its report.
    async fn silent_nodes(&self, control: &Control, now: UnixTime) {
        // Nobody could report while this process was not there.
        if now.since(self.started).is_none_or(|age| age < NODE_LOST_MS) {
            return;
        }
        for node in self.nodes.iter().filter(|node| !node.lost && !node.revoked) {
            let silent = control.fleet.seen(node.id).and_then(|seen| seen.last_seen).and_then(|seen| now.since(seen));
            if silent.is_some_and(|age| age >= NODE_LOST_MS) {
                let event = || control.system_entry(now, SYSTEM_OWNER, Event::NodeLost { node: node.id, lost: true });
                let lost = control.change_node(node.id, now, |row| {
                    row.lost = true;
                    Ok(vec![event()?])
                });
                tolerated("lost node", node.id, lost.await.map(drop));
            }
        }
    }

    /// Attempts that are over: reported without a statement in time, or silent beyond their run lease.
    async fn ends(&self, control: &Control, now: UnixTime) {
        for job in self.jobs.iter().filter(|job| due(job, now).is_some()) {
            // Judged again on the row that is changed: a report may have renewed the lease meanwhile.
            let ended = control.change_job(job.tenant, job.id, now, |job| {
                let Some((exit, without)) = due(job, now) else { return Ok(None) };
                finish(control, job, exit, without, now).map(Some)
            });
            tolerated("end of an attempt", job.id, ended.await.map(drop));
        }
    }

    /// Finds places for what waits, oldest first, when a row or the fleet changed since the last time.
    async fn placements(&mut self, control: &Control, now: UnixTime) {
        let state = (self.seen.unwrap_or_default(), control.fleet.news());
        if self.placed == Some(state) {
            return;
        }
        let views = control.views(&self.nodes);
        let mut used = usage(&self.jobs);
        let mut specs: BTreeMap<NodeId, usize> = BTreeMap::new();
        for job in &self.jobs {
            if let Some(attempt) = job.live() {
                let sum = specs.entry(attempt.node).or_default();
                *sum = sum.saturating_add(spec_size(job));
            }
        }
        let mut all = true;
        for job in self.jobs.iter().filter(|job| job.exit.is_none() && job.live().is_none()) {
            let size = spec_size(job);
            // A plan has room for so many specs; what is beyond waits, or goes elsewhere.
            let roomy: Vec<NodeView> =
                views.iter().filter(|view| specs.get(&view.id).copied().unwrap_or(0).saturating_add(size) <= PLAN_SPECS_MAX).cloned().collect();
            match self.put_somewhere(control, job, &roomy, &used, now).await {
                Ok(None) => {}
                Ok(Some(node)) => {
                    let taken = used.entry(node).or_default();
                    taken.cpu_millis = taken.cpu_millis.saturating_add(job.spec.limits.cpu_millis);
                    taken.memory_bytes = taken.memory_bytes.saturating_add(job.spec.limits.memory_bytes);
                    taken.scratch_bytes = taken.scratch_bytes.saturating_add(job.spec.limits.scratch_bytes);
                    taken.gpus = taken.gpus.saturating_add(job.spec.gpus);
                    taken.jobs = taken.jobs.saturating_add(1);
                    let sum = specs.entry(node).or_default();
                    *sum = sum.saturating_add(size);
                }
                Err(failure) => {
                    all = false;
                    tolerated("placement", job.id, Err(failure));
                }
            }
        }
        if all {
            self.placed = Some(state);
        }
    }

    /// Places a job where it fits, if it fits.
    async fn put_somewhere(
        &self,
        control: &Control,
        job: &JobRow,
        views: &[NodeView],
        used: &BTreeMap<NodeId, Used>,
        now: UnixTime,
    ) -> Result<Option<NodeId>, Failure> {
        if control.tenant(job.tenant).await?.is_none_or(|tenant| tenant.suspended) {
            return Ok(None);
        }
        let data = control.data_rules(job).await?;
        let Ok(node) = place(&job.spec, &data, views, used, now) else { return Ok(None) };
        let Some(row) = self.nodes.iter().find(|row| row.id == node) else { return Ok(None) };
        let placed = control.change_job(job.tenant, job.id, now, |job| put_on(control, job, row, now)).await?;
        Ok(placed.map(|_| node))
    }

    async fn plans(&mut self, control: &Control, now: UnixTime) {
        let revocations = control.gate.revocations().to_wire();
        let state = (self.seen.unwrap_or_default(), revocations.version);
        if self.told == Some(state) {
            return;
        }
        let mut of: BTreeMap<NodeId, Vec<&JobRow>> = BTreeMap::new();
        for job in &self.jobs {
            if let Some(attempt) = job.live() {
                of.entry(attempt.node).or_default().push(job);
            }
        }
        let mut all = true;
        for node in self.nodes.iter().filter(|node| !node.revoked) {
            let jobs = planned_jobs(node.id, of.get(&node.id).into_iter().flatten().copied());
            let told = replan(control, node.id, jobs, &revocations, now).await;
            all &= told.is_ok();
            tolerated("plan", node.id, told);
        }
        if all {
            self.told = Some(state);
        }
    }
}

/// Bytes of a job's spec in a plan.
fn spec_size(job: &JobRow) -> usize {
    serde_json::to_vec(&job.spec).map_or(PLAN_SPECS_MAX, |spec| spec.len())
}

/// How a live attempt has ended, if it has, and why there is no statement of it.
fn due(job: &JobRow, now: UnixTime) -> Option<(Exit, &'static str)> {
    let attempt = job.live()?;
    let silent = match silence(job, attempt, now) {
        Silence::Wait => None,
        Silence::Over { exit, .. } => Some((exit, "its node was lost")),
    };
    let Some(ended) = &attempt.ended else { return silent };
    // What the node said counts, also where it fell silent before its statement.
    let waited = now.since(ended.heard).is_some_and(|waited| waited >= STATEMENT_GRACE_MS);
    let exit = ended.report.exit.clone()?;
    (waited || silent.is_some()).then_some((exit, "its node never delivered its statement"))
}

/// Records an end without a statement.
fn finish(control: &Control, job: &mut JobRow, exit: Exit, without: &str, now: UnixTime) -> Result<Vec<EncodedEntry>, Failure> {
    let Some(attempt) = job.live() else { return Ok(Vec::new()) };
    let (id, node) = (job.attempt_id(attempt), attempt.node);
    let event = Event::JobFinished { attempt: id, node, reason: exit.reason, code: exit.code, statement: None };
    let entry = control.system_entry(now, job.tenant, event)?;
    job.finish(exit, None, entry.id, now);
    if job.exit.is_some() {
        job.receipt = Some(ReceiptRow::None(without.to_owned()));
    }
    Ok(vec![entry])
}

/// The next attempt, on this node.
fn put_on(control: &Control, job: &mut JobRow, node: &NodeRow, now: UnixTime) -> Result<Option<Vec<EncodedEntry>>, Failure> {
    if job.exit.is_some() || job.live().is_some() {
        return Ok(None);
    }
    let number = u32::try_from(job.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
    let attempt = AttemptId { job: job.id, attempt: number };
    let run_lease = fresh(LeaseId::new, now);
    let event = Event::JobPlaced {
        attempt,
        node: node.id,
        region: node.place.region.clone(),
        jurisdiction: node.place.jurisdiction.clone(),
        run_lease,
        run_lease_ms: job.spec.run_lease_ms,
        policy_epoch: control.sets.epoch(Some(job.tenant)).map_err(Failure::internal)?,
    };
    let entry = control.system_entry(now, job.tenant, event)?;
    job.attempts.push(AttemptRow {
        number,
        node: node.id,
        run_lease,
        run_lease_until: now.plus_millis(job.spec.run_lease_ms),
        placed: now,
        placed_entry: entry.id,
        report: AttemptReport { attempt, state: JobState::Pending, progress: None, exit: None, isolation: None, since: now },
        statement: None,
        ended: None,
        finished_entry: None,
    });
    Ok(Some(vec![entry]))
}

/// Writes a node's plan if its content is another than before; its row's revision is the plan's.
async fn replan(control: &Control, node: NodeId, jobs: Vec<PlannedJob>, revocations: &Revocations, now: UnixTime) -> Result<(), Failure> {
    let current = control.fleet.current_plan(node);
    if current.as_ref().is_some_and(|row| row.plan.jobs == jobs && row.plan.revocations == *revocations) {
        return Ok(());
    }
    let before = current.map_or(0, |row| row.plan.revision);
    let expect = if before == 0 { Expect::Absent } else { Expect::Revision(before) };
    let plan = NodePlan {
        format: 1,
        deployment: control.deployment,
        node,
        revision: before.saturating_add(1),
        jobs,
        revocations: revocations.clone(),
    };
    let payload = serde_json::to_vec(&plan).map_err(Failure::internal)?;
    let signed = SignedPlan {
        payload: STANDARD.encode(&payload),
        signature: STANDARD.encode(control.receipt_key.sign(PLAN_CONTEXT, &payload)),
    };
    let row = PlanRow { format: FORMAT, signed: signed.clone() };
    // A plan is made of what entries recorded already (placements, revocations, stops): it has none of its own.
    let put = Put::json(SYSTEM_OWNER, Kind::PLAN, node, expect, &row).map_err(Failure::internal)?;
    match control.store.commit(Transaction::new().with(put), now).await {
        Ok(_) => control.fleet.set_plan(CurrentPlan { plan, signed }),
        // Somebody wrote another one: it is taken, and compared again with the next look.
        Err(error) if error.conflict().is_some() => {
            let found = control.store.get_json::<PlanRow>(SYSTEM_OWNER, Kind::PLAN, node).await.map_err(Failure::internal)?;
            if let Some((_, row)) = found {
                control.fleet.set_plan(row.read()?);
            }
            control.fleet.wake.notify_one();
        }
        Err(error) => return Err(commit_failure(error)),
    }
    Ok(())
}

/// Writes what nodes said since the last time.
async fn flush(control: &Control, now: UnixTime) -> Result<(), Failure> {
    let heard = control.fleet.take_dirty();
    for some in heard.chunks(500) {
        let mut transaction = Transaction::new();
        for row in some {
            let put = Put::json(SYSTEM_OWNER, SEEN, row.node, Expect::Any, row).map_err(Failure::internal)?;
            transaction = transaction.with(Mutation::Put(put));
        }
        control.store.commit(transaction, now).await.map_err(commit_failure)?;
    }
    Ok(())
}

impl Control {
    /// What a job's volumes demand of its place. A volume that is gone fits nowhere.
    pub(crate) async fn data_rules(&self, job: &JobRow) -> Result<Vec<DataRule>, Failure> {
        let spec = &job.spec;
        let named = spec.inputs.iter().map(|input| (input.volume, &input.name)).chain(spec.outputs.iter().map(|output| (output.volume, &output.name)));
        let mut rules = Vec::new();
        for (volume, name) in named {
            rules.push(match self.data_rule(job.tenant, volume).await? {
                Some(rule) => rule,
                None => DataRule {
                    volume,
                    name: name.clone(),
                    jurisdictions: std::collections::BTreeSet::new(),
                    min_trust: u8::MAX,
                    region: "deleted".parse().map_err(Failure::internal)?,
                },
            });
        }
        Ok(rules)
    }

    async fn data_rule(&self, tenant: TenantId, volume: VolumeId) -> Result<Option<DataRule>, Failure> {
        let found = self.store.get_json::<VolumeRow>(tenant, Kind::VOLUME, volume).await.map_err(Failure::internal)?;
        Ok(found.map(|(_, row)| DataRule {
            volume,
            name: row.spec.name,
            jurisdictions: row.spec.jurisdictions,
            min_trust: row.min_trust,
            region: row.spec.region,
        }))
    }
}
