//! A machine of the simulation: its agent, its sandboxes, its clock, and the lies that it tells.
//!
//! An honest agent does what the real one does: it follows the newest plan, begins an attempt once and only under a living
//! run lease, counts that lease from when its report was *sent*, and its shims kill at the deadline, with or without it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use vocabulary::job::{AttemptId, Exit, ExitReason, JobState};
use vocabulary::plan::{AttemptReport, Desired, NodeFacts, NodePlan, PlannedJob, ReportAnswer};
use vocabulary::{NodeId, UnixTime};

use super::super::final_state;
use super::random::Random;

/// How far a machine's clock may run wrong, in millionths: over the longest lease of the simulation it makes less than 1.9 s.
pub(super) const RATE_PPM: u64 = 15_000;

/// What a machine lies about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Malice {
    /// Reports attempts that other nodes have, as running or over.
    pub(super) foreign: bool,
    /// Reports attempts that nobody has.
    pub(super) phantom: bool,
    /// Sends what it said long ago.
    pub(super) past: bool,
    /// Never stops what it runs, whatever plan and lease say.
    pub(super) immortal: bool,
    /// Says that jobs ended that go on.
    pub(super) premature: bool,
    /// Asks for keys of attempts of others, and of its own old ones.
    pub(super) thief: bool,
    /// Says another capacity each time.
    pub(super) boaster: bool,
}

impl Malice {
    pub(super) fn draw(random: &mut Random) -> Self {
        let mut some = || random.one_in(2);
        Self { foreign: some(), phantom: some(), past: some(), immortal: some(), premature: some(), thief: some(), boaster: some() }
    }
}

/// Where an attempt stands on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Image and inputs come.
    Opening,
    /// All is there; it waits for a run lease.
    Waiting,
    /// The sandbox runs, or ran when the agent was there last.
    Running,
    /// It was told to stop.
    Stopping,
    /// Its end is to be told.
    Ended,
}

/// An attempt as its machine remembers it.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) planned: PlannedJob,
    pub(super) phase: Phase,
    pub(super) exit: Option<Exit>,
    /// True time of the end of its lease; forgotten with the agent.
    pub(super) lease_ends: Option<u64>,
}

/// A running program.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) attempt: AttemptId,
    pub(super) node: NodeId,
    /// When its shim kills it, in true time.
    pub(super) deadline: u64,
    /// Why it ended.
    pub(super) over: Option<ExitReason>,
    /// Whether its machine can be held to its word.
    pub(super) honest: bool,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) facts: NodeFacts,
    pub(super) malice: Option<Malice>,
    /// How fast its clock runs, in millionths of the true one.
    pub(super) rate_ppm: u64,
    /// The run of its agent; `None` while it is dead.
    pub(super) agent: Option<u32>,
    pub(super) runs: u32,
    /// It never comes back.
    pub(super) gone: bool,
    /// Nothing passes until then.
    pub(super) cut_until: u64,
    /// Its agent is stopped until then.
    pub(super) frozen_until: u64,
    // On its disk.
    pub(super) plan: Option<NodePlan>,
    pub(super) attempts: BTreeMap<AttemptId, Local>,
    /// What it said, for those that repeat it.
    pub(super) said: Vec<Vec<AttemptReport>>,
}

/// What the agent wants done after it took a plan or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Fetch and open, then wait for a lease.
    Open(AttemptId),
    /// Make the sandbox and start.
    Start(AttemptId),
    /// Tell the shim to stop within its grace time.
    Stop(AttemptId, ExitReason),
    /// Its shim's deadline moves.
    Renew(AttemptId, u64),
    /// There is something to tell.
    Tell,
}

impl Machine {
    /// True time that passes while its clock counts this many milliseconds.
    pub(super) fn true_span(&self, counted_ms: u64) -> u64 {
        counted_ms.saturating_mul(1_000_000) / self.rate_ppm
    }

    /// Takes a plan; an older one than it knows is refused.
    pub(super) fn take_plan(&mut self, plan: NodePlan) -> Vec<Deed> {
        if self.plan.as_ref().is_some_and(|known| plan.revision <= known.revision) {
            return Vec::new();
        }
        self.plan = Some(plan);
        self.reconcile()
    }

    /// What the newest plan says now is what is wanted now.
    pub(super) fn reconcile(&mut self) -> Vec<Deed> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let planned: BTreeMap<AttemptId, PlannedJob> = plan.jobs.iter().map(|job| (job.attempt, job.clone())).collect();
        let mut deeds = vec![Deed::Tell];
        let immortal = self.malice.is_some_and(|malice| malice.immortal);
        for (attempt, local) in &mut self.attempts {
            let wanted = planned.get(attempt).map(|job| job.desired);
            let reason = match wanted {
                Some(Desired::Run) => continue,
                Some(Desired::Cancel) => ExitReason::Cancelled,
                Some(Desired::RevokeKeys) => ExitReason::KeyRevoked,
                Some(Desired::Evict) | None => ExitReason::Evicted,
            };
            match local.phase {
                _ if immortal => {}
                Phase::Opening | Phase::Waiting => end(local, reason),
                Phase::Running => {
                    local.phase = Phase::Stopping;
                    deeds.push(Deed::Stop(*attempt, reason));
                }
                Phase::Stopping | Phase::Ended => {}
            }
        }
        // What is over and in no plan is forgotten.
        self.attempts.retain(|attempt, local| local.phase != Phase::Ended || planned.contains_key(attempt));
        for (attempt, job) in planned {
            if let Entry::Vacant(place) = self.attempts.entry(attempt) {
                deeds.push(Deed::Open(attempt));
                let mut local = Local { planned: job, phase: Phase::Opening, exit: None, lease_ends: None };
                if local.planned.desired != Desired::Run {
                    end(&mut local, ExitReason::Cancelled);
                }
                place.insert(local);
            }
        }
        deeds
    }

    /// Takes the answer to a report that left at `sent`.
    pub(super) fn take_answer(&mut self, answer: &ReportAnswer, sent: u64, now: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for renewed in &answer.renewed {
            let ends = |length: u64| sent.saturating_add(self.true_span(length));
            let Some(local) = self.attempts.get(&renewed.attempt) else { continue };
            if local.planned.run_lease != renewed.lease {
                continue;
            }
            let deadline = ends(renewed.length_ms.min(local.planned.spec.run_lease_ms));
            let Some(local) = self.attempts.get_mut(&renewed.attempt) else { continue };
            if deadline > now && local.lease_ends.is_none_or(|before| before < deadline) {
                local.lease_ends = Some(deadline);
                deeds.push(Deed::Renew(renewed.attempt, deadline));
                if local.phase == Phase::Waiting {
                    deeds.push(Deed::Start(renewed.attempt));
                }
            }
        }
        // What is over, recorded, and in no plan is forgotten.
        let plan = self.plan.as_ref();
        let planned = |attempt: &AttemptId| plan.is_some_and(|plan| plan.jobs.iter().any(|job| job.attempt == *attempt));
        self.attempts.retain(|attempt, local| local.phase != Phase::Ended || planned(attempt) || !answer.acknowledged.contains(attempt));
        deeds
    }

    /// Whether an attempt may become a sandbox now: its lease lives, and no other attempt of its job does here.
    pub(super) fn may_start(&self, attempt: AttemptId, now: u64) -> bool {
        let ready = |local: &Local| local.phase == Phase::Waiting && local.lease_ends.is_some_and(|ends| now < ends);
        let alone = |other: (&AttemptId, &Local)| other.0.job != attempt.job || *other.0 == attempt || other.1.phase == Phase::Ended;
        self.attempts.get(&attempt).is_some_and(ready) && self.attempts.iter().all(alone)
    }

    /// The agent is dead: what it knew of leases is gone.
    pub(super) fn forget(&mut self) {
        self.agent = None;
        for local in self.attempts.values_mut() {
            local.lease_ends = None;
        }
    }

    /// The agent is back: it looks at what its shims left, and goes on.
    pub(super) fn recover(&mut self, sandboxes: &[Sandbox]) -> Vec<Deed> {
        self.runs += 1;
        self.agent = Some(self.runs);
        let mut deeds = Vec::new();
        for (attempt, local) in &mut self.attempts {
            match local.phase {
                Phase::Opening | Phase::Waiting => {
                    local.phase = Phase::Opening;
                    deeds.push(Deed::Open(*attempt));
                }
                Phase::Running | Phase::Stopping => match sandboxes.iter().find(|sandbox| sandbox.attempt == *attempt && sandbox.node == self.id) {
                    Some(Sandbox { over: None, .. }) => {}
                    Some(Sandbox { over: Some(reason), .. }) => end(local, *reason),
                    None => end(local, ExitReason::SupervisorLost),
                },
                Phase::Ended => {}
            }
        }
        deeds.extend(self.reconcile());
        deeds
    }

    /// What it says of its attempts.
    pub(super) fn reports(&self) -> Vec<AttemptReport> {
        self.attempts.iter().map(|(attempt, local)| spoken(*attempt, local)).collect()
    }
}

/// An attempt's end, as its machine remembers it.
pub(super) fn end(local: &mut Local, reason: ExitReason) {
    local.phase = Phase::Ended;
    local.exit.get_or_insert_with(|| exit(reason));
}

pub(super) fn exit(reason: ExitReason) -> Exit {
    let ended = UnixTime::from_millis(0);
    let detail = "simulated".to_owned();
    Exit { reason, code: None, signal: None, detail, oom_kills: 0, peak_memory_bytes: None, cpu_ms: None, started: None, ended }
}

fn spoken(attempt: AttemptId, local: &Local) -> AttemptReport {
    let state = match (local.phase, &local.exit) {
        (Phase::Ended, Some(exit)) => final_state(exit.reason),
        (Phase::Ended, None) => JobState::Failed,
        (Phase::Opening, _) => JobState::Pulling,
        (Phase::Waiting, _) => JobState::Opening,
        (Phase::Running, _) => JobState::Running,
        (Phase::Stopping, _) => JobState::Stopping,
    };
    let exit = local.exit.clone().filter(|_| local.phase == Phase::Ended);
    AttemptReport { attempt, state, progress: None, exit, isolation: None, since: UnixTime::from_millis(0) }
}

/// A lie about an attempt.
pub(super) fn lie(attempt: AttemptId, random: &mut Random) -> AttemptReport {
    let reasons =
        [ExitReason::Completed, ExitReason::Reboot, ExitReason::Evicted, ExitReason::SupervisorLost, ExitReason::LeaseEnded, ExitReason::NodeLost];
    let states = [JobState::Pending, JobState::Pulling, JobState::Running, JobState::Sealing];
    let over = random.one_in(2);
    let reason = random.pick(&reasons).copied().unwrap_or(ExitReason::Failed);
    let state = if over { final_state(reason) } else { random.pick(&states).copied().unwrap_or(JobState::Running) };
    AttemptReport { attempt, state, progress: None, exit: over.then(|| exit(reason)), isolation: None, since: UnixTime::from_millis(0) }
}
