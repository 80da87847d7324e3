//! The world of the simulation: true time, a heap of events, a network, and what goes wrong.

use std::collections::BTreeMap;
use std::fmt;

use vocabulary::job::{AttemptId, Exit, ExitReason};
use vocabulary::plan::{AttemptReport, NodeFacts, NodePlace, NodePlan, ReportAnswer};
use vocabulary::{JobId, Labels, NodeId, TenantId};

use super::super::tests;
use super::Brain;
use super::control::{Control, LIMITED, NodeRow, Stage};
use super::machine::{Deed, Machine, Malice, Phase, RATE_PPM, Sandbox, end, exit};
use super::random::Random;

/// The driver's round.
const TICK_MS: u64 = 1_000;
/// A shim has killed everything this long after its deadline at the latest.
const KILL_MS: u64 = 100;
/// Two processes of the control plane have clocks at most this far apart. With the clocks of machines and the time of a kill
/// it stays just below `CLOCK_SKEW_MS`.
pub(super) const OFFSET_MS: u64 = 2_900;

/// One of two tenants.
pub(super) fn tenant(number: u64) -> TenantId {
    if number == 0 { LIMITED } else { TenantId::from_bytes([0xb0; 16]) }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    AliveTwice(AttemptId, AttemptId),
    BegunTwice(AttemptId),
    PlacedAfterStop(JobId),
    PlacedOnDraining(JobId, NodeId),
    NoSuchNode(NodeId),
    Oversubscribed(NodeId),
    NotOwnNode(JobId, NodeId),
    BeyondQuota(JobId),
    KeyForNobody(AttemptId, NodeId),
    TwoKeys(AttemptId, AttemptId),
    StaysOnDrained(JobId, NodeId),
    NoRest(String),
    NoReason(JobId),
    NotForgotten(NodeId),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AliveTwice(new, old) => write!(f, "a job is alive twice: {new} began while {old} could act"),
            Self::BegunTwice(attempt) => write!(f, "attempt {attempt} began twice"),
            Self::PlacedAfterStop(job) => write!(f, "job {job} was placed after somebody had stopped it"),
            Self::PlacedOnDraining(job, node) => write!(f, "job {job} was placed on node {node}, which is draining or revoked"),
            Self::NoSuchNode(node) => write!(f, "node {node} does not exist"),
            Self::Oversubscribed(node) => write!(f, "node {node} is oversubscribed"),
            Self::NotOwnNode(job, node) => write!(f, "job {job} demanded its own node and shares {node}"),
            Self::BeyondQuota(job) => write!(f, "job {job} runs beyond the quota of its tenant"),
            Self::KeyForNobody(attempt, node) => write!(f, "node {node} got a key for {attempt}, which is not live there"),
            Self::TwoKeys(new, old) => write!(f, "a job is alive twice: {new} got a key while {old} held one"),
            Self::StaysOnDrained(job, node) => write!(f, "job {job} stays on a drained node {node} beyond the deadline"),
            Self::NoRest(why) => write!(f, "it does not come to rest: {why}"),
            Self::NoReason(job) => write!(f, "job {job} waits and nothing says why"),
            Self::NotForgotten(node) => write!(f, "node {node} keeps what is over"),
        }
    }
}

/// What happened, over some runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) jobs: u64,
    pub(super) placements: u64,
    pub(super) restarts: u64,
    pub(super) evictions: u64,
    pub(super) lies: u64,
    pub(super) kills: u64,
    pub(super) control_deaths: u64,
    pub(super) waiting: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.jobs += other.jobs;
        self.placements += other.placements;
        self.restarts += other.restarts;
        self.evictions += other.evictions;
        self.lies += other.lies;
        self.kills += other.kills;
        self.control_deaths += other.control_deaths;
        self.waiting += other.waiting;
    }
    pub(super) fn everything_happened(&self) -> bool {
        [self.placements, self.restarts, self.evictions, self.lies, self.kills, self.control_deaths, self.waiting].iter().all(|count| *count > 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} jobs ({} left waiting with a reason), {} placements ({} of them restarts), {} evictions, {} lies, {} kills at a deadline, {} deaths of the control plane",
            self.events, self.jobs, self.waiting, self.placements, self.restarts, self.evictions, self.lies, self.kills, self.control_deaths
        )
    }
}

/// Something that happens. Plain data: a log of them is a run.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Look(u32, Stage),
    Act(u32, Stage),
    ControlStarts,
    Beat {
        node: NodeId,
        run: u32,
        again: bool,
    },
    Report {
        node: NodeId,
        run: u32,
        sent: u64,
        facts: NodeFacts,
        attempts: Vec<AttemptReport>,
    },
    Answer {
        node: NodeId,
        run: u32,
        sent: u64,
        answer: ReportAnswer,
    },
    Plan {
        node: NodeId,
        plan: NodePlan,
    },
    Key {
        node: NodeId,
        attempt: AttemptId,
    },
    Statement {
        node: NodeId,
        attempt: AttemptId,
        exit: Exit,
    },
    Opened {
        node: NodeId,
        run: u32,
        attempt: AttemptId,
    },
    LeaseOver {
        node: NodeId,
        run: u32,
        attempt: AttemptId,
        deadline: u64,
    },
    /// The program of a sandbox ends by itself, or is stopped.
    Ends {
        sandbox: usize,
        reason: ExitReason,
    },
    /// Its shim looks at its deadline.
    Deadline {
        sandbox: usize,
    },
    AgentStarts {
        node: NodeId,
    },
    Trouble,
    Submit,
}

pub(super) struct World<'a> {
    pub(super) brain: &'a Brain,
    pub(super) random: Random,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    count: u64,
    pub(super) control: Control,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) old_plans: Vec<NodePlan>,
    /// From then on nothing goes wrong any more.
    pub(super) quiet_from: u64,
    log: Option<&'a mut Vec<String>>,
    pub(super) tally: Tally,
    /// When everything had come to rest.
    pub(super) settled: Option<u64>,
    pub(super) looked: u64,
}

/// Runs one seed, and writes what happened into a log where one is given.
pub(super) fn run(seed: u64, brain: &Brain, log: Option<&mut Vec<String>>) -> Result<Tally, Violation> {
    let mut random = Random::new(seed);
    let quiet_from = random.between(180_000, 420_000);
    let mut world = World {
        brain,
        random,
        now: 0,
        queue: BTreeMap::new(),
        count: 0,
        control: Control::new(),
        machines: BTreeMap::new(),
        sandboxes: Vec::new(),
        old_plans: Vec::new(),
        quiet_from,
        log,
        tally: Tally::default(),
        settled: None,
        looked: 0,
    };
    world.begin();
    while !world.at_rest()? {
        world.step()?;
    }
    let mut tally = world.tally;
    (tally.placements, tally.restarts, tally.evictions) = (world.control.placements, world.control.restarts, world.control.evictions);
    tally.waiting = u64::try_from(world.control.jobs.values().filter(|job| job.exit.is_none()).count()).unwrap_or(0);
    Ok(tally)
}

impl World<'_> {
    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.queue.insert((time, self.count), event);
    }
    pub(super) fn after(&mut self, span: u64, event: Event) {
        self.at(self.now.saturating_add(span), event);
    }
    pub(super) fn quiet(&self) -> bool {
        self.now >= self.quiet_from
    }

    fn begin(&mut self) {
        for _ in 0..self.random.between(3, 6) {
            self.join();
        }
        let jobs = self.random.between(3, 10);
        for _ in 0..jobs {
            let at = self.random.below(self.quiet_from);
            self.at(at, Event::Submit);
        }
        self.after(0, Event::Look(0, Stage::Ends));
        self.after(5_000, Event::Trouble);
    }

    /// A machine joins the swarm.
    pub(super) fn join(&mut self) {
        let number = u8::try_from(self.machines.len() + 1).unwrap_or(u8::MAX);
        let id = NodeId::from_bytes([number; 16]);
        let random = &mut self.random;
        let malice = random.one_in(4).then(|| Malice::draw(random));
        let view = tests::node(number, if random.one_in(3) { "eu-west" } else { "eu-central" }, "EU");
        let facts = NodeFacts { cpu_millis: random.between(1, 4) * 1_000, memory_bytes: random.between(1, 4) << 30, ..view.facts };
        let mut labels = Labels::new();
        if malice.is_none() {
            labels.insert("steady".to_owned(), "yes".to_owned());
        }
        let dedicated = random.one_in(4).then(|| tenant(random.below(2)));
        let place = NodePlace { labels, ..view.place };
        let row = NodeRow { name: view.name, place, draining: false, drain_until: None, revoked: false, dedicated, revision: 1 };
        let rate_ppm = random.between(1_000_000 - RATE_PPM, 1_000_000 + RATE_PPM);
        self.control.enrol(id, row, facts.clone());
        let machine = Machine {
            id,
            facts,
            malice,
            rate_ppm,
            agent: Some(0),
            runs: 0,
            gone: false,
            cut_until: 0,
            frozen_until: 0,
            plan: None,
            attempts: BTreeMap::new(),
            said: Vec::new(),
        };
        self.machines.insert(id, machine);
        self.after(10, Event::Beat { node: id, run: 0, again: true });
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some(((time, _), event)) = self.queue.pop_first() else { return Err(Violation::NoRest("nothing happens any more".to_owned())) };
        self.now = time;
        self.tally.events += 1;
        if let Some(log) = &mut self.log {
            log.push(format!("{time:>8} {event:?}"));
        }
        match event {
            Event::Look(process, stage) if self.lives(process) => {
                self.control.look(stage, self.now);
                let busy = if self.quiet() { 5 } else { self.random.below(400) };
                self.after(busy, Event::Act(process, stage));
            }
            Event::Act(process, stage) if self.lives(process) => {
                let plans = self.control.act(stage, self.brain, self.now)?;
                for plan in plans {
                    self.old_plans.push(plan.clone());
                    self.send(plan.node, |node| Event::Plan { node, plan: plan.clone() });
                }
                match stage.next() {
                    Some(next) => self.after(0, Event::Look(process, next)),
                    None => self.after(TICK_MS, Event::Look(process, Stage::Ends)),
                }
            }
            Event::Look(..) | Event::Act(..) => {}
            Event::ControlStarts => {
                let offset = self.random.below(OFFSET_MS);
                self.control.start(offset);
                self.after(0, Event::Look(self.control.process, Stage::Ends));
            }
            Event::Beat { node, run, again } => self.beat(node, run, again),
            Event::Report { node, run, sent, facts, attempts } => {
                if self.control.up
                    && let Some(answer) = self.control.report(self.brain, node, &facts, &attempts, self.now)
                {
                    self.send(node, |node| Event::Answer { node, run, sent, answer: answer.clone() });
                    let known = self.machines.get(&node).and_then(|machine| machine.plan.as_ref()).map_or(0, |plan| plan.revision);
                    if answer.plan_revision > known
                        && let Some(plan) = self.control.plans.get(&node).cloned()
                    {
                        self.send(node, |node| Event::Plan { node, plan: plan.clone() });
                    }
                }
            }
            Event::Answer { node, run, sent, answer } => {
                let now = self.now;
                if let Some(machine) = self.working(node, run) {
                    let deeds = machine.take_answer(&answer, sent, now);
                    self.done(node, deeds)?;
                }
            }
            Event::Plan { node, plan } => {
                let run = self.machines.get(&node).and_then(|machine| machine.agent);
                if let Some(machine) = run.and_then(|run| self.working(node, run)) {
                    let deeds = machine.take_plan(plan);
                    self.done(node, deeds)?;
                }
            }
            Event::Key { node, attempt } if self.control.up => self.control.key(self.brain, node, attempt, self.now)?,
            Event::Statement { node, attempt, exit } if self.control.up => self.control.statement(node, attempt, &exit, self.now),
            Event::Key { .. } | Event::Statement { .. } => {}
            Event::Opened { node, run, attempt } => self.opened(node, run, attempt)?,
            Event::LeaseOver { node, run, attempt, deadline } => {
                let lapsed = self.working(node, run).and_then(|machine| machine.attempts.get_mut(&attempt));
                if let Some(local) =
                    lapsed.filter(|local| local.lease_ends == Some(deadline) && matches!(local.phase, Phase::Opening | Phase::Waiting))
                {
                    end(local, ExitReason::LeaseEnded);
                    self.after(0, Event::Beat { node, run, again: false });
                }
            }
            Event::Ends { sandbox, reason } => self.ends(sandbox, reason),
            Event::Deadline { sandbox } => {
                let due = self.sandboxes.get(sandbox).filter(|one| one.over.is_none() && one.deadline.saturating_add(KILL_MS) <= self.now);
                if due.is_some_and(|one| one.honest) {
                    self.tally.kills += 1;
                    self.ends(sandbox, ExitReason::LeaseEnded);
                }
            }
            Event::AgentStarts { node } => self.agent_starts(node)?,
            Event::Trouble => self.trouble(),
            Event::Submit => self.submit(),
        }
        Ok(())
    }

    fn lives(&self, process: u32) -> bool {
        self.control.up && self.control.process == process
    }

    /// The machine, if this run of its agent is at work.
    fn working(&mut self, node: NodeId, run: u32) -> Option<&mut Machine> {
        let now = self.now;
        self.machines.get_mut(&node).filter(|machine| machine.agent == Some(run) && machine.frozen_until <= now)
    }

    /// Sends something to or from a node: it may be late, lost, doubled, and overtaken.
    pub(super) fn send(&mut self, node: NodeId, event: impl Fn(NodeId) -> Event) {
        let cut = self.machines.get(&node).is_none_or(|machine| machine.gone || machine.cut_until > self.now);
        if self.quiet() {
            if !cut {
                self.after(20, event(node));
            }
            return;
        }
        if cut || self.random.one_in(12) {
            return;
        }
        for _ in 0..if self.random.one_in(15) { 2 } else { 1 } {
            let late = if self.random.one_in(20) { self.random.below(25_000) } else { self.random.between(5, 700) };
            self.after(late, event(node));
        }
    }

    /// A heartbeat leaves.
    fn beat(&mut self, node: NodeId, run: u32, again: bool) {
        if again && self.machines.get(&node).is_some_and(|machine| machine.agent == Some(run) && !machine.gone) {
            let next = if self.quiet() { 5_000 } else { self.random.between(4_000, 6_000) };
            self.after(next, Event::Beat { node, run, again });
        }
        let now = self.now;
        let Some(machine) = self.working(node, run) else { return };
        let (malice, mut facts, mut attempts) = (machine.malice, machine.facts.clone(), machine.reports());
        machine.said.push(attempts.clone());
        if let Some(malice) = malice.filter(|_| !self.quiet()) {
            self.lies(node, malice, &mut facts, &mut attempts);
        }
        self.send(node, |node| Event::Report { node, run, sent: now, facts: facts.clone(), attempts: attempts.clone() });
    }

    /// Carries out what an agent wants done.
    pub(super) fn done(&mut self, node: NodeId, deeds: Vec<Deed>) -> Result<(), Violation> {
        let Some(run) = self.machines.get(&node).and_then(|machine| machine.agent) else { return Ok(()) };
        for deed in deeds {
            match deed {
                Deed::Open(attempt) => {
                    let span = self.random.between(100, 8_000);
                    self.after(span, Event::Opened { node, run, attempt });
                    self.after(0, Event::Beat { node, run, again: false });
                }
                Deed::Start(attempt) => self.start(node, attempt)?,
                Deed::Stop(attempt, reason) => {
                    let grace = self.random.below(10_000);
                    if let Some(place) = self.alive(node, attempt) {
                        self.after(grace, Event::Ends { sandbox: place, reason });
                    }
                }
                Deed::Renew(attempt, deadline) => {
                    if let Some(sandbox) = self.alive(node, attempt) {
                        if let Some(one) = self.sandboxes.get_mut(sandbox) {
                            one.deadline = one.deadline.max(deadline);
                        }
                        self.at(deadline.saturating_add(KILL_MS), Event::Deadline { sandbox });
                    }
                    self.at(deadline, Event::LeaseOver { node, run, attempt, deadline });
                }
                Deed::Tell => self.after(0, Event::Beat { node, run, again: false }),
            }
        }
        Ok(())
    }

    fn alive(&self, node: NodeId, attempt: AttemptId) -> Option<usize> {
        self.sandboxes.iter().position(|one| one.node == node && one.attempt == attempt && one.over.is_none())
    }

    fn opened(&mut self, node: NodeId, run: u32, attempt: AttemptId) -> Result<(), Violation> {
        if let Some(until) = self.machines.get(&node).map(|machine| machine.frozen_until).filter(|until| *until > self.now) {
            self.at(until, Event::Opened { node, run, attempt });
            return Ok(());
        }
        let Some(local) = self.working(node, run).and_then(|machine| machine.attempts.get_mut(&attempt)) else { return Ok(()) };
        if local.phase != Phase::Opening {
            return Ok(());
        }
        local.phase = Phase::Waiting;
        self.send(node, |node| Event::Key { node, attempt });
        self.start(node, attempt)
    }

    /// The sandbox is made, if it may be. This is where a job could be alive twice.
    fn start(&mut self, node: NodeId, attempt: AttemptId) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.may_start(attempt, now)) else { return Ok(()) };
        let honest = machine.malice.is_none();
        let Some(local) = machine.attempts.get_mut(&attempt) else { return Ok(()) };
        let deadline = local.lease_ends.unwrap_or(now);
        local.phase = Phase::Running;
        let run = machine.agent.unwrap_or(0);
        if honest {
            if self.sandboxes.iter().any(|one| one.attempt == attempt) {
                return Err(Violation::BegunTwice(attempt));
            }
            let other = |one: &&Sandbox| one.honest && one.attempt.job == attempt.job && one.over.is_none();
            if let Some(old) = self.sandboxes.iter().find(other) {
                return Err(Violation::AliveTwice(attempt, old.attempt));
            }
        }
        let sandbox = self.sandboxes.len();
        self.sandboxes.push(Sandbox { attempt, node, deadline, over: None, honest });
        let reasons = [ExitReason::Completed, ExitReason::Completed, ExitReason::Failed, ExitReason::Oom];
        let reason = self.random.pick(&reasons).copied().unwrap_or(ExitReason::Completed);
        let span = self.random.between(3_000, 150_000);
        self.after(span, Event::Ends { sandbox, reason });
        self.at(deadline.saturating_add(KILL_MS), Event::Deadline { sandbox });
        self.after(0, Event::Beat { node, run, again: false });
        Ok(())
    }

    /// A program ends. Its agent, if there is one, hears of it and tells.
    fn ends(&mut self, sandbox: usize, reason: ExitReason) {
        let Some(one) = self.sandboxes.get_mut(sandbox).filter(|one| one.over.is_none()) else { return };
        one.over = Some(reason);
        let (node, attempt) = (one.node, one.attempt);
        let Some(run) = self.machines.get(&node).and_then(|machine| machine.agent) else { return };
        let Some(local) = self.machines.get_mut(&node).and_then(|machine| machine.attempts.get_mut(&attempt)) else { return };
        if matches!(local.phase, Phase::Running | Phase::Stopping) {
            end(local, reason);
            self.send(node, |node| Event::Statement { node, attempt, exit: exit(reason) });
            self.after(0, Event::Beat { node, run, again: false });
        }
    }
}
