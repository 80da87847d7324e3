//! A seeded simulation of the planner: machines that lie, are late, restart, lose their state, go and come back; a network
//! that loses, repeats and reorders; a control plane that dies between any two steps and comes back with another clock.
//!
//! The planner itself is the real one: [`Brain`] holds its functions, so that a test can put a broken one in their place and
//! see that the simulation finds it. Everything around it is simulated: rows, networks, machines, clocks. A run is decided by
//! its seed alone. `cargo xtask simulate --seeds N --from S` runs as many as one likes.

mod control;
mod machine;
mod random;
mod rest;
mod trouble;
mod world;

use std::time::Instant;

use vocabulary::api::Misfit;
use vocabulary::plan::{AttemptReport, NodePlan, PlannedJob, Revocations};
use vocabulary::{DeploymentId, NodeId, UnixTime};

use super::{DataRule, Ending, Heard, JobRow, NodeView, Placing};
use crate::api::node::{AttemptFacts, Liveness};
use crate::limits::CLOCK_SKEW_MS;

use world::{Violation, run};

type NextPlan = fn(DeploymentId, NodeId, Option<&NodePlan>, Vec<PlannedJob>, &Revocations) -> Option<NodePlan>;

/// The planner's functions, as the driver and the node channel call them.
#[derive(Clone, Copy)]
struct Brain {
    due: fn(&JobRow, UnixTime) -> Option<Ending>,
    hear: fn(&mut JobRow, NodeId, &AttemptReport, UnixTime) -> Heard,
    /// What the planner is shown of a node.
    view: fn(NodeView) -> NodeView,
    /// The jobs whose attempts count as holding something.
    holds: fn(&JobRow) -> bool,
    choose: fn(&Placing<'_>, &JobRow, UnixTime) -> Result<NodeId, Vec<Misfit>>,
    held_back: fn(&Placing<'_>, &JobRow) -> Option<String>,
    evictable: fn(&JobRow, Option<UnixTime>, UnixTime) -> bool,
    planned: fn(NodeId, &[&JobRow]) -> Vec<PlannedJob>,
    next_plan: NextPlan,
    /// Whether a node may have a key for an attempt.
    may_act: fn(&JobRow, u32, NodeId, UnixTime) -> bool,
    /// Whether a placement holds only while its node's row is as it was seen.
    holds_node: bool,
}

const NO_DATA: &[DataRule] = &[];

impl Brain {
    /// As it is.
    const REAL: Self = Self {
        due: super::due,
        hear: super::hear,
        view: |view| view,
        holds: |_| true,
        choose: |placing, job, now| placing.choose(job, NO_DATA, now),
        held_back: |placing, job| placing.held_back(job),
        evictable: super::evictable,
        planned: |node, jobs| super::planned_jobs(node, jobs.iter().copied()),
        next_plan: super::next_plan,
        may_act: |job, number, node, now| AttemptFacts::of(job, number, node).judge(Liveness::Alive, now).is_ok(),
        holds_node: true,
    };
}

/// Runs these seeds on as many threads as there are cores; the first violation by seed, if there is one.
fn seeds(from: u64, count: u64, brain: &Brain) -> (world::Tally, Option<(u64, Violation)>) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    let threads = u64::try_from(threads).unwrap_or(1);
    std::thread::scope(|scope| {
        let work = |first: u64| {
            let mut tally = world::Tally::default();
            let mut seed = from.saturating_add(first);
            while seed < from.saturating_add(count) {
                match run(seed, brain, None) {
                    Ok(one) => tally.add(&one),
                    Err(violation) => return (tally, Some((seed, violation))),
                }
                seed = seed.saturating_add(threads);
            }
            (tally, None)
        };
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || work(first))).collect();
        let mut all = world::Tally::default();
        let mut found: Option<(u64, Violation)> = None;
        for thread in running {
            let (tally, violation) = thread.join().expect("a run that breaks is a defect of the simulation");
            all.add(&tally);
            if let Some((seed, violation)) = violation
                && found.as_ref().is_none_or(|(first, _)| seed < *first)
            {
                found = Some((seed, violation));
            }
        }
        (all, found)
    })
}

/// A number that `cargo xtask simulate` asks for.
#[expect(clippy::disallowed_methods, reason = "the one way to hand a test a number")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A bounded part in ordinary tests; `cargo xtask simulate` asks for more.
#[test]
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a run by hand says what it did and how long it took")]
fn no_seed_breaks_a_promise() {
    let (from, count) = (asked("SWARM_SIMULATE_FROM").unwrap_or(1), asked("SWARM_SIMULATE_SEEDS").unwrap_or(120));
    let begun = Instant::now();
    let (tally, found) = seeds(from, count, &Brain::REAL);
    if let Some((seed, violation)) = found {
        let mut log = Vec::new();
        let _ = run(seed, &Brain::REAL, Some(&mut log));
        let tail = log.split_off(log.len().saturating_sub(400));
        panic!("seed {seed}: {violation}\n{}\ncargo xtask simulate --from {seed} --seeds 1", tail.join("\n"));
    }
    println!("{count} runs from seed {from} in {:.1} s: {tally}", begun.elapsed().as_secs_f64());
    // A simulation in which nothing happens proves nothing.
    assert!(count < 100 || tally.everything_happened(), "{tally}");
}

/// A node was silent only by a clock that had been set back, and alive again with no row and no fact changed: its job waited on.
#[test]
fn seeds_that_found_a_fault_find_it_no_more() {
    for seed in [2861, 3393] {
        let (_, found) = seeds(seed, 1, &Brain::REAL);
        assert!(found.is_none(), "{found:?}");
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in [1, 7, 42] {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (one, two) = (run(seed, &Brain::REAL, Some(&mut first)), run(seed, &Brain::REAL, Some(&mut second)));
        assert_eq!((one, first), (two, second));
    }
}

/// A broken planner must be found out, by the promise that it breaks.
#[track_caller]
fn found_out(brain: &Brain, promise: &str) {
    let (tally, found) = seeds(1, 400, brain);
    let (seed, violation) = found.unwrap_or_else(|| panic!("nobody notices: {tally}"));
    assert!(violation.to_string().contains(promise), "seed {seed}: {violation}");
}

#[test]
fn without_the_margin_for_two_clocks_a_job_lives_twice() {
    found_out(&Brain { due: |job, now| super::due(job, now.plus_millis(CLOCK_SKEW_MS)), ..Brain::REAL }, "alive twice");
}

#[test]
fn a_lost_node_does_not_end_its_jobs_leases() {
    let impatient = |job: &JobRow, now: UnixTime| super::due(job, now.plus_millis(job.spec.run_lease_ms / 2));
    found_out(&Brain { due: impatient, ..Brain::REAL }, "alive twice");
}

#[test]
fn a_lease_that_is_over_is_not_revived() {
    fn reviving(job: &mut JobRow, node: NodeId, said: &AttemptReport, now: UnixTime) -> Heard {
        let length = job.spec.run_lease_ms;
        if let Some(attempt) = job.attempts.iter_mut().find(|attempt| attempt.number == said.attempt.attempt && attempt.node == node) {
            let lease = attempt.run_lease;
            let mut heard = super::hear(job, node, said, now);
            heard.renewed = Some(vocabulary::plan::RenewedRun { attempt: said.attempt, lease, length_ms: length });
            return heard;
        }
        super::hear(job, node, said, now)
    }
    found_out(&Brain { hear: reviving, ..Brain::REAL }, "alive twice");
}

#[test]
fn no_node_speaks_for_the_attempts_of_another() {
    fn believing(job: &mut JobRow, node: NodeId, said: &AttemptReport, now: UnixTime) -> Heard {
        let node = job.attempts.last().map_or(node, |attempt| attempt.node);
        super::hear(job, node, said, now)
    }
    found_out(&Brain { hear: believing, ..Brain::REAL }, "alive twice");
}

#[test]
fn what_is_told_to_go_holds_its_place() {
    let forgetful = |job: &JobRow| job.live().is_none_or(|attempt| attempt.evicted.is_none() && attempt.ended.is_none());
    found_out(&Brain { holds: forgetful, ..Brain::REAL }, "oversubscribed");
}

#[test]
fn a_drained_node_gets_nothing() {
    found_out(&Brain { view: |view| NodeView { draining: false, ..view }, ..Brain::REAL }, "draining");
}

#[test]
fn nor_by_a_placement_that_was_decided_before_the_drain() {
    found_out(&Brain { holds_node: false, ..Brain::REAL }, "draining");
}

#[test]
fn a_node_of_ones_own_is_ones_own() {
    fn sharing(placing: &Placing<'_>, job: &JobRow, now: UnixTime) -> Result<NodeId, Vec<Misfit>> {
        let mut shared = job.clone();
        shared.spec.placement = vocabulary::job::Placement::Shared;
        placing.choose(&shared, NO_DATA, now)
    }
    found_out(&Brain { choose: sharing, ..Brain::REAL }, "own node");
}

#[test]
fn a_quota_of_running_jobs_is_kept() {
    found_out(
        &Brain {
            held_back: |_, _| None,
            ..Brain::REAL
        },
        "beyond the quota",
    );
}

#[test]
fn a_drain_with_a_deadline_ends() {
    found_out(&Brain { evictable: |_, _, _| false, ..Brain::REAL }, "stays on a drained node");
}

#[test]
fn a_plan_that_does_not_rise_is_never_taken() {
    let stuck = |deployment, node, current: Option<&NodePlan>, jobs, revocations: &Revocations| {
        let next = super::next_plan(deployment, node, current, jobs, revocations)?;
        Some(NodePlan { revision: next.revision.min(3), ..next })
    };
    found_out(&Brain { next_plan: stuck, ..Brain::REAL }, "keeps what is over");
}

#[test]
fn an_attempt_that_was_superseded_gets_no_key() {
    let lenient = |job: &JobRow, number, node, _| AttemptFacts::of(job, number, node).placed_here;
    found_out(&Brain { may_act: lenient, ..Brain::REAL }, "a key");
}
