//! The planner's driver: reads rows, asks [`crate::planner`], writes what it decides, one transaction each. Level-triggered:
//! killed at any point, it goes on from what the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use audit::{EncodedEntry, Event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use store::{Expect, Kind, Mutation, Page, Put, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::job::Placement;
use vocabulary::plan::{NodePlan, PLAN_CONTEXT, SignedPlan};
use vocabulary::{LeaseId, NodeId, SYSTEM_OWNER, TenantId, UnixTime, VolumeId};

use crate::api::problem::Failure;
use crate::clock;
use crate::deployment::Certifying;
use crate::fleet::{CurrentPlan, PlanRow, SEEN, SeenRow};
use crate::job::{PENDING, PLACED};
use crate::limits::{NODE_LOST_MS, SEEN_FLUSH_MS, TICK};
use crate::planner::{DataRule, Ending, JobRow, Placing, ReceiptRow, RunLimits, due, evictable, next_attempt, next_plan, planned_jobs, put_on};
use crate::row::{FORMAT, NodeRow, VolumeRow};
use crate::state::{Control, commit_failure, fresh};

/// Takes what the store knows of nodes and plans into memory, at the start.
pub(crate) async fn load(control: &Control) -> Result<(), Failure> {
    for row in all::<SeenRow>(control, SEEN).await? {
        control.fleet.heard_elsewhere(row);
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
    /// With the revision of each row.
    nodes: Vec<(u64, NodeRow)>,
    /// Those that wait for a node or are on one.
    jobs: Vec<JobRow>,
    /// How many of them may be on one.
    limits: RunLimits,
    /// For what everything that fits was placed.
    placed: Option<Considered>,
    /// The change, the version of the revocations, and what is signed with, for which all plans are told.
    told: Option<(u64, u64, u64)>,
}

/// All that a round of placements depends on. The nodes that are alive belong to it: time alone changes them, and a clock
/// that was set back makes a node that reports every five seconds silent and alive again, with no row and no fact changed.
#[derive(Debug, PartialEq, Eq)]
struct Considered {
    change: u64,
    news: u64,
    alive: BTreeSet<NodeId>,
}

/// One thing that cannot be done holds up nothing else: it is told, and tried again with the next look.
fn tolerated(what: &'static str, id: impl std::fmt::Display, done: Result<(), Failure>) {
    if let Err(failure) = done {
        tracing::error!(what, %id, code = %failure.problem.code, detail = failure.problem.detail, "tried again in a second");
    }
}

impl Driver {
    pub(crate) const fn new(now: UnixTime) -> Self {
        let limits = RunLimits { tenants: BTreeMap::new(), projects: BTreeMap::new() };
        Self { started: now, flushed: now, seen: None, nodes: Vec::new(), jobs: Vec::new(), limits, placed: None, told: None }
    }

    /// Makes the state fit: ends are recorded, waiting jobs are placed, plans are told.
    pub(crate) async fn tick(&mut self, control: &Control, now: UnixTime) -> Result<(), Failure> {
        self.read(control).await?;
        self.silent_nodes(control, now).await;
        self.ends(control, now).await;
        self.evictions(control, now).await;
        self.read(control).await?;
        self.placements(control, now).await;
        self.read(control).await?;
        self.plans(control, now).await;
        let alive = control.fleet.alive(now);
        control.metrics.fleet(self.nodes.iter().map(|(_, node)| (node, alive.contains(&node.id))), &self.jobs);
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
        let limits = control.run_limits().await?;
        (self.nodes, self.jobs, self.limits, self.seen) = (nodes, jobs, limits, Some(latest));
        Ok(())
    }

    /// A node that is silent for too long is recorded once as lost; it is heard of again by its report.
    async fn silent_nodes(&self, control: &Control, now: UnixTime) {
        // Nobody could report while this process was not there.
        if now.since(self.started).is_none_or(|age| age < NODE_LOST_MS) {
            return;
        }
        for (_, node) in self.nodes.iter().filter(|(_, node)| !node.lost && !node.revoked) {
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
                let Some(ending) = due(job, now) else { return Ok(None) };
                finish(control, job, ending, now).map(Some)
            });
            tolerated("end of an attempt", job.id, ended.await.map(drop));
        }
    }

    /// Attempts on nodes whose drain has reached its deadline are told to go.
    async fn evictions(&self, control: &Control, now: UnixTime) {
        let leaving: BTreeMap<NodeId, UnixTime> = self.nodes.iter().filter_map(|(_, node)| Some((node.id, node.evict_at()?))).collect();
        let told = |job: &JobRow| job.live().filter(|attempt| evictable(job, leaving.get(&attempt.node).copied(), now)).map(|attempt| attempt.node);
        for job in self.jobs.iter().filter(|job| told(job).is_some()) {
            let evicted = control.change_job(job.tenant, job.id, now, |job| {
                let Some(node) = told(job) else { return Ok(None) };
                let Some(attempt) = job.attempts.last_mut() else { return Ok(None) };
                attempt.evicted = Some(now);
                let event = Event::JobEvicted { attempt: attempt.report.attempt, node };
                Ok(Some(vec![control.system_entry(now, job.tenant, event)?]))
            });
            tolerated("eviction", job.id, evicted.await.map(drop));
        }
    }

    /// Finds places for what waits, oldest first, when a row or the fleet changed since the last time, or a node fell silent or was heard again.
    async fn placements(&mut self, control: &Control, now: UnixTime) {
        let fleet = &control.fleet;
        let mut state = Considered { change: self.seen.unwrap_or_default(), news: fleet.news(), alive: fleet.alive(now) };
        if self.placed.as_ref() == Some(&state) {
            return;
        }
        let views = control.views(self.nodes.iter().map(|(_, row)| row));
        // Who reports in this very moment is later than `now`, which counts as silence: what was decided on is remembered.
        for view in &views {
            if view.alive(now) { state.alive.insert(view.id) } else { state.alive.remove(&view.id) };
        }
        let mut placing = Placing::new(&views, &self.limits, &self.jobs);
        let mut all = true;
        for job in self.jobs.iter().filter(|job| next_attempt(job).is_some()) {
            if placing.held_back(job).is_some() {
                continue;
            }
            match self.put_somewhere(control, job, &placing, now).await {
                Ok(None) => {}
                Ok(Some(node)) => placing.took(node, job),
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
    async fn put_somewhere(&self, control: &Control, job: &JobRow, placing: &Placing<'_>, now: UnixTime) -> Result<Option<NodeId>, Failure> {
        if control.tenant(job.tenant).await?.is_none_or(|tenant| tenant.suspended) {
            return Ok(None);
        }
        let data = control.data_rules(job).await?;
        let Ok(node) = placing.choose(job, &data, now) else { return Ok(None) };
        let Some((revision, row)) = self.nodes.iter().find(|(_, row)| row.id == node) else { return Ok(None) };
        // Drained, revoked or given to somebody else in this moment: then the row has another revision, and nothing is placed.
        let unchanged = Mutation::Hold { tenant: SYSTEM_OWNER, kind: Kind::NODE, id: *node.as_bytes(), revision: *revision };
        // The attempt's trace begins here; its node computes the same place.
        let span = next_attempt(job).and_then(|attempt| control.tracer.at("job.place", telemetry::attempt(&attempt), false));
        let at = span.as_ref().and_then(telemetry::Open::context);
        let placed = telemetry::within(at, control.change_job_if(job.tenant, job.id, now, unchanged, |job| begin(control, job, row, now))).await;
        if let Some(span) = span {
            span.end(placed.is_err());
        }
        Ok(placed?.map(|_| node))
    }

    async fn plans(&mut self, control: &Control, now: UnixTime) {
        let revocations = control.gate.revocations().to_wire();
        let certifying = control.certifying();
        let state = (self.seen.unwrap_or_default(), revocations.version, certifying.revision);
        if self.told == Some(state) {
            return;
        }
        let new_key = self.told.is_none_or(|(_, _, revision)| revision != certifying.revision);
        let mut of: BTreeMap<NodeId, Vec<&JobRow>> = BTreeMap::new();
        for job in &self.jobs {
            if let Some(attempt) = job.live() {
                of.entry(attempt.node).or_default().push(job);
            }
        }
        let mut all = true;
        for (_, node) in self.nodes.iter().filter(|(_, node)| !node.revoked) {
            let jobs = planned_jobs(node.id, of.get(&node.id).into_iter().flatten().copied());
            let current = control.fleet.current_plan(node.id);
            let (plan, signed) = current.as_deref().map(|row| (&row.plan, &row.signed)).unzip();
            let next = next_plan(control.deployment, node.id, plan, jobs, &revocations);
            // Nodes take no plan whose signer's certificate has ended, however long it stood unchanged: it is signed again.
            let again = || plan.filter(|_| new_key && signed.is_some_and(|signed| certifying.signed_before(signed))).cloned();
            let next = next.or_else(|| again().map(|plan| NodePlan { revision: plan.revision.saturating_add(1), ..plan }));
            let Some(next) = next else { continue };
            let told = tell(control, &certifying, plan.map(|plan| plan.revision), next, now).await;
            all &= told.is_ok();
            tolerated("plan", node.id, told);
        }
        if all {
            self.told = Some(state);
        }
    }
}

/// Records an end without a statement.
fn finish(control: &Control, job: &mut JobRow, Ending { exit, without_statement }: Ending, now: UnixTime) -> Result<Vec<EncodedEntry>, Failure> {
    let Some(attempt) = job.live() else { return Ok(Vec::new()) };
    let (id, node) = (job.attempt_id(attempt), attempt.node);
    let event = Event::JobFinished { attempt: id, node, reason: exit.reason, code: exit.code, statement: None };
    let entry = control.system_entry(now, job.tenant, event)?;
    job.finish(exit, None, entry.id, now);
    if job.exit.is_some() {
        job.receipt = Some(ReceiptRow::None(without_statement.to_owned()));
    }
    Ok(vec![entry])
}

/// The next attempt, on this node.
fn begin(control: &Control, job: &mut JobRow, node: &NodeRow, now: UnixTime) -> Result<Option<Vec<EncodedEntry>>, Failure> {
    let Some(attempt) = next_attempt(job) else { return Ok(None) };
    let run_lease = fresh(LeaseId::new, now);
    let event = Event::JobPlaced {
        attempt,
        node: node.id,
        region: node.place.region.clone(),
        jurisdiction: node.place.jurisdiction.clone(),
        run_lease,
        run_lease_ms: job.spec.run_lease_ms,
        policy_epoch: control.sets.epoch(Some(job.tenant)).map_err(Failure::internal)?,
        demands: job.spec.demands(),
    };
    let entry = control.system_entry(now, job.tenant, event)?;
    let placed = put_on(job, node.id, run_lease, entry.id, now);
    if let Some(attempt) = job
        .attempts
        .last_mut()
        .filter(|_| placed.is_some() && job.spec.placement == Placement::OwnNode)
    {
        // The planner gave it nothing but a node that is set apart for its tenant, and the row is held as it was seen.
        attempt.dedicated_entry = node.dedicated_entry;
    }
    Ok(placed.map(|_| vec![entry]))
}

/// Writes a node's next plan; its row's revision is the plan's.
async fn tell(control: &Control, certifying: &Certifying, current: Option<u64>, plan: NodePlan, now: UnixTime) -> Result<(), Failure> {
    let node = plan.node;
    let expect = current.map_or(Expect::Absent, Expect::Revision);
    let payload = serde_json::to_vec(&plan).map_err(Failure::internal)?;
    let signed = SignedPlan {
        payload: STANDARD.encode(&payload),
        signature: STANDARD.encode(certifying.receipt_key.sign(PLAN_CONTEXT, &payload)),
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
                    jurisdictions: BTreeSet::new(),
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
