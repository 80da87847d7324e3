//! The control plane of the simulation: rows that survive, memory that does not, and the steps of the driver one by one.

use std::collections::{BTreeMap, BTreeSet};

use vocabulary::job::{AttemptId, Exit, Placement};
use vocabulary::plan::{AttemptReport, Desired, NodeFacts, NodePlace, NodePlan, ReportAnswer, Revocations};
use vocabulary::{DeploymentId, EntryId, JobId, LeaseId, Name, NodeId, Sha256Digest, TenantId, UnixTime};

use super::super::{JobRow, NodeView, Placing, RunLimits, Standing, next_attempt, put_on, standing};
use super::Brain;
use super::world::Violation;
use crate::api::node::{AttemptFacts, Liveness};
use crate::limits::SEEN_FLUSH_MS;

const BASE_MS: u64 = 1_700_000_000_000;
const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([0xde; 16]);

/// The tenant with a quota.
pub(super) const LIMITED: TenantId = TenantId::from_bytes([0xa0; 16]);

/// A node's row.
#[derive(Debug, Clone)]
pub(super) struct NodeRow {
    pub(super) name: Name,
    pub(super) place: NodePlace,
    pub(super) draining: bool,
    pub(super) drain_until: Option<UnixTime>,
    pub(super) revoked: bool,
    pub(super) dedicated: Option<TenantId>,
    pub(super) revision: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    at: Option<UnixTime>,
    facts: NodeFacts,
}

/// What the driver read before it decides.
#[derive(Debug, Clone)]
struct Snapshot {
    /// The change and the news up to which it is true: what comes later is looked at again.
    state: (u64, u64),
    jobs: Vec<JobRow>,
    nodes: BTreeMap<NodeId, NodeRow>,
}

/// The steps of a round, in the driver's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Ends,
    Evictions,
    Placements,
    Plans,
}

impl Stage {
    pub(super) const fn next(self) -> Option<Self> {
        match self {
            Self::Ends => Some(Self::Evictions),
            Self::Evictions => Some(Self::Placements),
            Self::Placements => Some(Self::Plans),
            Self::Plans => None,
        }
    }
}

/// A key that was released.
#[derive(Debug, Clone, Copy)]
struct Grant {
    attempt: AttemptId,
    until: UnixTime,
}

#[derive(Debug)]
pub(super) struct Control {
    /// Rises with each process.
    pub(super) process: u32,
    pub(super) up: bool,
    /// What its clock says beyond the true time.
    pub(super) offset_ms: u64,
    // What lies in the store.
    pub(super) jobs: BTreeMap<JobId, JobRow>,
    pub(super) nodes: BTreeMap<NodeId, NodeRow>,
    pub(super) plans: BTreeMap<NodeId, NodePlan>,
    seen_stored: BTreeMap<NodeId, Seen>,
    /// Rises with every write.
    changes: u64,
    // What lies in memory.
    seen: BTreeMap<NodeId, Seen>,
    flushed: UnixTime,
    snapshot: Option<Snapshot>,
    news: u64,
    placed: Option<(u64, u64, BTreeSet<NodeId>)>,
    told: Option<u64>,
    /// How many jobs of whom may run at once.
    pub(super) limits: RunLimits,
    // The referee's.
    grants: Vec<Grant>,
    /// Attempts that were over by nothing but silence.
    silent: BTreeSet<AttemptId>,
    leases: u64,
    pub(super) placements: u64,
    pub(super) restarts: u64,
    pub(super) evictions: u64,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            process: 0,
            up: true,
            offset_ms: 0,
            jobs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            plans: BTreeMap::new(),
            seen_stored: BTreeMap::new(),
            changes: 0,
            seen: BTreeMap::new(),
            flushed: UnixTime::from_millis(0),
            snapshot: None,
            news: 0,
            placed: None,
            told: None,
            limits: RunLimits { tenants: BTreeMap::from([(LIMITED, 2)]), projects: BTreeMap::new() },
            grants: Vec::new(),
            silent: BTreeSet::new(),
            leases: 0,
            placements: 0,
            restarts: 0,
            evictions: 0,
        }
    }

    /// Its clock.
    pub(super) fn now(&self, true_ms: u64) -> UnixTime {
        UnixTime::from_millis(BASE_MS.saturating_add(true_ms).saturating_add(self.offset_ms))
    }

    /// Dies where it stands: what was not written is gone.
    pub(super) fn die(&mut self) {
        self.up = false;
        self.seen.clone_from(&self.seen_stored);
        (self.snapshot, self.placed, self.told) = (None, None, None);
    }

    pub(super) fn start(&mut self, offset_ms: u64) {
        (self.up, self.offset_ms) = (true, offset_ms);
        self.process = self.process.saturating_add(1);
    }

    pub(super) fn enrol(&mut self, id: NodeId, row: NodeRow, facts: NodeFacts) {
        self.nodes.insert(id, row);
        let seen = Seen { at: None, facts };
        self.seen.insert(id, seen.clone());
        self.seen_stored.insert(id, seen);
        self.changed();
    }

    pub(super) fn changed(&mut self) {
        self.changes = self.changes.saturating_add(1);
    }

    pub(super) fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut NodeRow)) {
        if let Some(row) = self.nodes.get_mut(&id) {
            change(row);
            row.revision = row.revision.saturating_add(1);
            self.changed();
        }
    }

    /// Nodes that reported lately, by its clock.
    fn alive(&self, now: UnixTime) -> BTreeSet<NodeId> {
        let lately = |seen: &Seen| seen.at.and_then(|at| now.since(at)).is_some_and(|age| age < crate::limits::NODE_LOST_MS);
        self.seen.iter().filter(|(_, seen)| lately(seen)).map(|(id, _)| *id).collect()
    }

    /// The driver reads what the next step decides on.
    pub(super) fn look(&mut self, stage: Stage, true_ms: u64) {
        let now = self.now(true_ms);
        if stage == Stage::Placements && self.placed != Some((self.changes, self.news, self.alive(now))) || stage == Stage::Plans && self.told != Some(self.changes) {
            let jobs = self.jobs.values().filter(|job| job.exit.is_none()).cloned().collect();
            self.snapshot = Some(Snapshot { state: (self.changes, self.news), jobs, nodes: self.nodes.clone() });
        }
    }

    /// One step of the driver, on what it read a moment ago. Gives the plans that are new.
    pub(super) fn act(&mut self, stage: Stage, brain: &Brain, true_ms: u64) -> Result<Vec<NodePlan>, Violation> {
        let now = self.now(true_ms);
        match stage {
            Stage::Ends => self.ends(brain, now),
            Stage::Evictions => self.evictions(brain, now),
            Stage::Placements => self.placements(brain, now)?,
            Stage::Plans => return self.tell(brain),
        }
        Ok(Vec::new())
    }

    fn ends(&mut self, brain: &Brain, now: UnixTime) {
        let mut any = false;
        for job in self.jobs.values_mut() {
            if let Some(ending) = (brain.due)(job, now) {
                if let Some(attempt) = job.live().filter(|attempt| attempt.ended.is_none()) {
                    self.silent.insert(attempt.report.attempt);
                }
                job.finish(ending.exit, None, EntryId::from_bytes([1; 16]), now);
                any = true;
            }
        }
        if any {
            self.changed();
        }
        if now.since(self.flushed).is_none_or(|age| age >= SEEN_FLUSH_MS) {
            self.flushed = now;
            self.seen_stored.clone_from(&self.seen);
        }
    }

    fn evictions(&mut self, brain: &Brain, now: UnixTime) {
        let mut count = 0;
        for job in self.jobs.values_mut() {
            let Some(node) = job.live().map(|attempt| attempt.node) else { continue };
            let at = self.nodes.get(&node).and_then(|row| row.drain_until.filter(|_| row.draining && !row.revoked));
            if (brain.evictable)(job, at, now)
                && let Some(attempt) = job.attempts.last_mut()
            {
                attempt.evicted = Some(now);
                count += 1;
            }
        }
        if count > 0 {
            self.evictions += count;
            self.changed();
        }
    }

    /// As the planner sees a node in this moment, its row as `nodes` has it.
    pub(super) fn views(&self, nodes: &BTreeMap<NodeId, NodeRow>, brain: &Brain) -> Vec<NodeView> {
        let view = |(id, row): (&NodeId, &NodeRow)| {
            let seen = self.seen.get(id)?;
            Some((brain.view)(NodeView {
                id: *id,
                name: row.name.clone(),
                place: row.place.clone(),
                facts: seen.facts.clone(),
                trust: 0,
                draining: row.draining,
                revoked: row.revoked,
                dedicated: row.dedicated,
                last_seen: seen.at,
            }))
        };
        nodes.iter().filter_map(view).collect()
    }

    fn placements(&mut self, brain: &Brain, now: UnixTime) -> Result<(), Violation> {
        let Some(snapshot) = self.snapshot.take() else { return Ok(()) };
        let (state, alive) = (snapshot.state, self.alive(now));
        let views = self.views(&snapshot.nodes, brain);
        let held: Vec<&JobRow> = snapshot.jobs.iter().filter(|job| (brain.holds)(job)).collect();
        let mut placing = Placing::new(&views, &self.limits, held.iter().copied());
        let (mut all, mut placed) = (true, Vec::new());
        for job in snapshot.jobs.iter().filter(|job| next_attempt(job).is_some()) {
            if (brain.held_back)(&placing, job).is_some() {
                continue;
            }
            let Ok(node) = (brain.choose)(&placing, job, now) else {
                continue;
            };
            let seen = snapshot.nodes.get(&node).map(|row| row.revision);
            if brain.holds_node && self.nodes.get(&node).map(|row| row.revision) != seen {
                all = false;
                continue;
            }
            self.leases = self.leases.saturating_add(1);
            let lease = LeaseId::from_bytes(u128::from(self.leases).to_be_bytes());
            let Some(row) = self.jobs.get_mut(&job.id) else { continue };
            let stopped = row.desired != Desired::Run;
            if put_on(row, node, lease, EntryId::from_bytes([2; 16]), now).is_none() {
                continue;
            }
            if stopped {
                return Err(Violation::PlacedAfterStop(job.id));
            }
            self.restarts += u64::from(row.attempts.len() > 1);
            placed.push((node, job.id));
            placing.took(node, job);
        }
        for (node, job) in placed {
            self.changed();
            self.placements += 1;
            self.fits(job, node)?;
        }
        // What was read was not the newest, or somebody was faster: it is looked at again.
        self.placed = (all && state.0 == self.changes).then_some((state.0, state.1, alive));
        Ok(())
    }

    /// The referee's own sums, from nothing but the rows: the node takes jobs, has room, and is apart where it must be.
    fn fits(&self, job: JobId, node: NodeId) -> Result<(), Violation> {
        let (Some(row), Some(seen)) = (self.nodes.get(&node), self.seen.get(&node)) else { return Err(Violation::NoSuchNode(node)) };
        if row.draining || row.revoked {
            return Err(Violation::PlacedOnDraining(job, node));
        }
        let there: Vec<&JobRow> = self.jobs.values().filter(|job| job.live().is_some_and(|attempt| attempt.node == node)).collect();
        let sum = |of: fn(&JobRow) -> u64| there.iter().map(|job| of(job)).sum::<u64>();
        let room =
            sum(|job| job.spec.limits.cpu_millis) <= seen.facts.cpu_millis && sum(|job| job.spec.limits.memory_bytes) <= seen.facts.memory_bytes;
        if !room {
            return Err(Violation::Oversubscribed(node));
        }
        let running = |job: &&JobRow| job.tenant == LIMITED && job.live().is_some();
        let count = self.jobs.values().filter(running).count();
        if self.limits.tenants.get(&LIMITED).is_some_and(|most| u64::try_from(count).unwrap_or(u64::MAX) > *most) {
            return Err(Violation::BeyondQuota(job));
        }
        let demanded = there.iter().find(|job| job.spec.placement == Placement::OwnNode);
        if let Some(own) = demanded
            && (there.iter().any(|job| job.tenant != own.tenant) || (own.id == job && row.dedicated != Some(own.tenant)))
        {
            return Err(Violation::NotOwnNode(own.id, node));
        }
        Ok(())
    }

    fn tell(&mut self, brain: &Brain) -> Result<Vec<NodePlan>, Violation> {
        let Some(snapshot) = self.snapshot.take() else { return Ok(Vec::new()) };
        let mut new = Vec::new();
        let mut of: BTreeMap<NodeId, Vec<&JobRow>> = BTreeMap::new();
        for job in &snapshot.jobs {
            if let Some(attempt) = job.live() {
                of.entry(attempt.node).or_default().push(job);
            }
        }
        for (id, row) in snapshot.nodes.iter().filter(|(_, row)| !row.revoked) {
            let jobs = (brain.planned)(*id, of.get(id).map_or(&[], Vec::as_slice));
            let Some(plan) = (brain.next_plan)(DEPLOYMENT, *id, self.plans.get(id), jobs, &Revocations::default()) else { continue };
            let facts = self.seen.get(id).map(|seen| seen.facts.clone());
            // Only a node whose facts stay the same can be held to them here; `fits` has looked at all others.
            if let Some(facts) = facts.filter(|_| row.place.labels.contains_key("steady"))
                && plan.jobs.iter().map(|job| job.spec.limits.cpu_millis).sum::<u64>() > facts.cpu_millis
            {
                return Err(Violation::Oversubscribed(*id));
            }
            self.plans.insert(*id, plan.clone());
            new.push(plan);
        }
        self.told = Some(snapshot.state.0);
        Ok(new)
    }

    /// Takes a node's report.
    pub(super) fn report(
        &mut self,
        brain: &Brain,
        node: NodeId,
        facts: &NodeFacts,
        attempts: &[AttemptReport],
        true_ms: u64,
    ) -> Option<ReportAnswer> {
        // The gate lets a revoked node say nothing.
        self.nodes.get(&node).filter(|row| !row.revoked)?;
        let now = self.now(true_ms);
        let before = self.seen.insert(node, Seen { at: Some(now), facts: facts.clone() });
        let alive = |seen: &Seen| seen.at.and_then(|at| now.since(at)).is_some_and(|age| age < crate::limits::NODE_LOST_MS);
        if before.is_none_or(|before| !alive(&before) || before.facts != *facts) {
            self.news += 1;
        }
        let mut answer = ReportAnswer { plan_revision: 0, renewed: Vec::new(), acknowledged: Vec::new() };
        let mut any = false;
        for said in attempts {
            let Some(job) = self.jobs.get_mut(&said.attempt.job) else { continue };
            let heard = (brain.hear)(job, node, said, now);
            any |= heard.changed;
            answer.renewed.extend(heard.renewed);
            if standing(job, said.attempt.attempt, node) == Standing::Over {
                answer.acknowledged.push(said.attempt);
            }
        }
        if any {
            self.changed();
        }
        answer.plan_revision = self.plans.get(&node).map_or(0, |plan| plan.revision);
        Some(answer)
    }

    /// Takes the signed statement of an attempt's end.
    pub(super) fn statement(&mut self, node: NodeId, attempt: AttemptId, exit: &Exit, true_ms: u64) {
        let now = self.now(true_ms);
        if self.nodes.get(&node).is_none_or(|row| row.revoked) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&attempt.job) else { return };
        if AttemptFacts::of(job, attempt.attempt, node).judge(Liveness::LastWords, now).is_ok() {
            job.finish(exit.clone(), Some(Sha256Digest::from_bytes([3; 32])), EntryId::from_bytes([4; 16]), now);
            self.changed();
        }
    }

    /// A node asks for a key of an attempt. No two attempts of a job may hold keys at once.
    pub(super) fn key(&mut self, brain: &Brain, node: NodeId, attempt: AttemptId, true_ms: u64) -> Result<(), Violation> {
        let now = self.now(true_ms);
        let Some(job) = self.jobs.get(&attempt.job) else { return Ok(()) };
        if self.nodes.get(&node).is_none_or(|row| row.revoked) || !(brain.may_act)(job, attempt.attempt, node, now) {
            return Ok(());
        }
        let row = job.attempts.iter().find(|row| row.number == attempt.attempt);
        let Some(row) = row.filter(|row| row.node == node && job.live().is_some_and(|live| live.number == row.number)) else {
            return Err(Violation::KeyForNobody(attempt, node));
        };
        for other in self.grants.iter().filter(|other| other.attempt.job == attempt.job && other.attempt != attempt) {
            // An end that a node told itself is believed; behind silence an attempt may live until its lease is over.
            let over = job.attempts.iter().any(|row| row.number == other.attempt.attempt && row.report.state.is_final());
            if !over || (self.silent.contains(&other.attempt) && now < other.until) {
                return Err(Violation::TwoKeys(attempt, other.attempt));
            }
        }
        self.grants.push(Grant { attempt, until: row.run_lease_until });
        Ok(())
    }
}
