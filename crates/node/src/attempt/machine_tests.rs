use proptest::prelude::*;
use vocabulary::JobId;
use vocabulary::job::JobOutput;

use super::*;
use crate::testing::planned_job;

const NOW: UnixTime = UnixTime::from_millis(1000);
const BOOT: &str = "boot";

fn isolation() -> IsolationReport {
    IsolationReport { backend: "test".to_owned(), cgroup_layout: "unified".to_owned(), kernel: "6".to_owned(), runtime: None, layers: Vec::new() }
}

fn exit(reason: ExitReason, code: Option<i32>) -> Exit {
    Exit { reason, code, signal: None, detail: "ended".to_owned(), oom_kills: 0, peak_memory_bytes: None, cpu_ms: None, started: None, ended: NOW }
}

fn new(outputs: bool) -> Machine {
    let mut planned = planned_job(1);
    if outputs {
        planned.spec.outputs = vec![JobOutput { volume: vocabulary::VolumeId::from_bytes([6; 16]), name: "out".parse().unwrap() }];
    }
    Machine::new(Record::new(planned, NOW))
}

fn begin(found: Found, boot: &str) -> Event {
    Event::Begin { found, boot_id: boot.to_owned(), refusal: None }
}

fn opened() -> Event {
    Event::Opened { inputs: Vec::new(), secrets: Vec::new(), id_base: 65_536 }
}

fn created() -> Event {
    Event::Created { isolation: Some(isolation()), argv: vec!["sh".to_owned()] }
}

fn done(step: Step) -> Effect {
    Effect::Do(step)
}

/// What is done, without what is only told or kept.
fn acts(effects: &[Effect]) -> Vec<Effect> {
    effects.iter().filter(|effect| !matches!(effect, Effect::Persist | Effect::Report)).cloned().collect()
}

/// Brings a machine to a phase by the ordinary way.
fn at(phase: Phase, outputs: bool) -> Machine {
    let mut machine = new(outputs);
    let way = [
        (Phase::Pulling, begin(Found::Nothing, BOOT)),
        (Phase::Opening, Event::Pulled),
        (Phase::Opening, opened()),
        (Phase::Creating, Event::Cleared),
        (Phase::Running, created()),
        (if outputs { Phase::Sealing } else { Phase::Shipping }, Event::Ended(exit(ExitReason::Completed, Some(0)))),
    ];
    let rest = [
        (Phase::Shipping, Event::Sealed(Vec::new())),
        (Phase::Scrubbing, Event::Shipped { lost: 0 }),
        (Phase::Signing, Event::Scrubbed { left: None }),
        (Phase::Sending, Event::Signed("s".to_owned())),
        (Phase::Ended, Event::Sent),
        (Phase::Removing, Event::EndKnown),
        (Phase::Gone, Event::Removed),
    ];
    for (reached, event) in way.into_iter().chain(rest.into_iter().skip(usize::from(!outputs))) {
        if machine.record.phase == phase && (machine.in_flight.is_some() || matches!(phase, Phase::Ended | Phase::Gone)) {
            break;
        }
        machine.step(event, NOW);
        assert_eq!(machine.record.phase, reached);
    }
    assert_eq!(machine.record.phase, phase);
    machine
}

#[test]
fn the_ordinary_way_with_outputs() {
    let mut machine = new(true);
    for (event, expected, phase, shown) in [
        (begin(Found::Nothing, BOOT), vec![done(Step::Pull)], Phase::Pulling, JobState::Pulling),
        (Event::Pulled, vec![done(Step::Open)], Phase::Opening, JobState::Opening),
        (opened(), vec![], Phase::Opening, JobState::Opening),
        (Event::Cleared, vec![done(Step::Create)], Phase::Creating, JobState::Creating),
        (created(), vec![done(Step::Run)], Phase::Running, JobState::Running),
        (Event::Ended(exit(ExitReason::Completed, Some(0))), vec![done(Step::Seal)], Phase::Sealing, JobState::Sealing),
        (Event::Sealed(Vec::new()), vec![done(Step::Ship)], Phase::Shipping, JobState::Sealing),
        (Event::Shipped { lost: 2 }, vec![done(Step::Scrub)], Phase::Scrubbing, JobState::Sealing),
        (Event::Scrubbed { left: None }, vec![done(Step::Sign)], Phase::Signing, JobState::Sealing),
        (Event::Signed("statement".to_owned()), vec![done(Step::Send)], Phase::Sending, JobState::Sealing),
        (Event::Sent, vec![], Phase::Ended, JobState::Exited),
        (Event::EndKnown, vec![done(Step::Remove)], Phase::Removing, JobState::Exited),
        (Event::Removed, vec![Effect::Retire], Phase::Gone, JobState::Exited),
    ] {
        let effects = machine.step(event.clone(), NOW);
        assert_eq!(acts(&effects), expected, "{event:?}");
        assert_eq!((machine.record.phase, machine.record.shown), (phase, shown), "{event:?}");
    }
    assert_eq!((machine.record.log_lost, machine.record.statement.as_deref()), (2, Some("statement")));
}

#[test]
fn the_end_is_told_only_when_nothing_can_change() {
    for phase in [Phase::Sealing, Phase::Shipping, Phase::Scrubbing, Phase::Signing, Phase::Sending] {
        let report = at(phase, true).record.report(None);
        assert!(!report.state.is_final() && report.exit.is_none(), "{phase:?}");
    }
    let report = at(Phase::Ended, true).record.report(None);
    assert!(report.state == JobState::Exited && report.exit.is_some());
}

#[test]
fn a_failing_step_says_its_reason() {
    let failure = |reason| Event::Failed(Failure { reason, detail: "because".to_owned() });
    for (phase, reason) in [(Phase::Pulling, ExitReason::Image), (Phase::Opening, ExitReason::Input), (Phase::Creating, ExitReason::Create)] {
        let mut machine = at(phase, true);
        let effects = machine.step(failure(reason), NOW);
        assert_eq!(acts(&effects), [done(Step::Scrub)], "{phase:?}");
        // No sandbox stood: nothing is stated, the report tells it.
        assert_eq!(acts(&machine.step(Event::Scrubbed { left: None }, NOW)), []);
        let report = machine.record.report(None);
        assert_eq!((report.state, report.exit.unwrap().reason), (JobState::Failed, reason));
    }
    // A step that broke while a sandbox stands is no end of the sandbox.
    let mut machine = at(Phase::Running, true);
    let effects = machine.step(failure(ExitReason::SupervisorLost), NOW);
    assert_eq!(acts(&effects), [done(Step::Run), Effect::Kill(ExitReason::SupervisorLost)]);
    let mut machine = at(Phase::Scrubbing, true);
    assert_eq!(acts(&machine.step(failure(ExitReason::SupervisorLost), NOW)), [done(Step::Sign)]);
    assert_eq!(machine.record.exit.unwrap().detail, "ended; left behind: because");
    let mut machine = at(Phase::Sealing, true);
    assert_eq!(acts(&machine.step(failure(ExitReason::Output), NOW)), [done(Step::Ship)]);
    let exit = machine.record.exit.unwrap();
    assert_eq!((exit.reason, exit.code, exit.detail.as_str()), (ExitReason::Output, Some(0), "ended; because"));
}

#[test]
fn what_is_not_built_is_never_begun() {
    let mut machine = new(false);
    let effects = machine.step(Event::Begin { found: Found::Nothing, boot_id: BOOT.to_owned(), refusal: Some("gpus".to_owned()) }, NOW);
    assert_eq!(acts(&effects), [done(Step::Scrub)]);
    assert_eq!(machine.record.exit.unwrap().reason, ExitReason::Create);
}

#[test]
fn only_a_program_that_ended_well_is_sealed() {
    for (reason, code, sealed) in [
        (ExitReason::Completed, Some(0), true),
        (ExitReason::Completed, None, false),
        (ExitReason::Failed, Some(1), false),
        (ExitReason::Cancelled, Some(0), false),
        (ExitReason::Timeout, Some(0), false),
        (ExitReason::Oom, None, false),
        (ExitReason::SupervisorLost, None, false),
    ] {
        let mut machine = at(Phase::Running, true);
        let effects = acts(&machine.step(Event::Ended(exit(reason, code)), NOW));
        assert_eq!(effects == [done(Step::Seal)], sealed, "{reason:?}");
    }
    let mut machine = at(Phase::Running, false);
    assert_eq!(acts(&machine.step(Event::Ended(exit(ExitReason::Completed, Some(0))), NOW)), [done(Step::Ship)]);
}

#[test]
fn stopping_in_every_phase() {
    let cancel = Event::Wanted(Some(Desired::Cancel));
    let revoke = Event::Wanted(Some(Desired::RevokeKeys));
    for phase in [Phase::Pulling, Phase::Opening] {
        let mut machine = at(phase, true);
        assert_eq!(acts(&machine.step(cancel.clone(), NOW)), [Effect::Abort]);
        assert_eq!(acts(&machine.step(cancel.clone(), NOW)), []);
        assert_eq!(acts(&machine.step(Event::Aborted, NOW)), [done(Step::Scrub)]);
        assert_eq!(machine.record.exit.as_ref().unwrap().reason, ExitReason::Cancelled);
    }
    // A step that was faster than its end is not followed by the next one.
    let mut machine = at(Phase::Opening, true);
    machine.step(cancel.clone(), NOW);
    assert_eq!(acts(&machine.step(opened(), NOW)), [done(Step::Scrub)]);
    // A sandbox that is being made is waited for and killed.
    let mut machine = at(Phase::Creating, true);
    assert_eq!(acts(&machine.step(cancel.clone(), NOW)), []);
    assert_eq!(acts(&machine.step(created(), NOW)), [done(Step::Run), Effect::Kill(ExitReason::Cancelled)]);
    let mut machine = at(Phase::Running, true);
    assert_eq!(acts(&machine.step(cancel.clone(), NOW)), [Effect::Stop(ExitReason::Cancelled)]);
    assert_eq!(acts(&machine.step(Event::Wanted(None), NOW)), [], "the first reason stands");
    assert_eq!(acts(&machine.step(revoke.clone(), NOW)), [Effect::Kill(ExitReason::KeyRevoked)], "a revoked key waits for nobody");
    // Freeze and kill are done; the key goes before anything else.
    assert_eq!(acts(&machine.step(Event::Ended(exit(ExitReason::KeyRevoked, None)), NOW)), [done(Step::Scrub)]);
    let mut machine = at(Phase::Sealing, true);
    assert_eq!(acts(&machine.step(Event::Wanted(Some(Desired::Evict)), NOW)), [], "a drained node seals what ended well");
    assert_eq!(acts(&machine.step(revoke.clone(), NOW)), [Effect::Abort]);
    assert_eq!(acts(&machine.step(Event::Aborted, NOW)), [done(Step::Scrub)]);
    assert_eq!(machine.record.exit.as_ref().unwrap().reason, ExitReason::KeyRevoked);
    let mut machine = at(Phase::Shipping, true);
    assert_eq!(acts(&machine.step(cancel.clone(), NOW)), []);
    assert_eq!(acts(&machine.step(revoke.clone(), NOW)), [Effect::Abort]);
    assert_eq!(acts(&machine.step(Event::Aborted, NOW)), [done(Step::Scrub)]);
    for phase in [Phase::Scrubbing, Phase::Signing, Phase::Sending, Phase::Ended, Phase::Removing, Phase::Gone] {
        for event in [cancel.clone(), revoke.clone(), Event::Wanted(None), Event::LeaseOver] {
            assert_eq!(at(phase, true).step(event, NOW), [], "{phase:?}");
        }
    }
}

#[test]
fn nothing_is_created_without_a_lease() {
    let mut machine = at(Phase::Opening, false);
    assert_eq!(acts(&machine.step(opened(), NOW)), []);
    assert_eq!(acts(&machine.step(Event::LeaseOver, NOW)), [done(Step::Scrub)]);
    assert_eq!(machine.record.exit.as_ref().unwrap().reason, ExitReason::LeaseEnded);
    // A lease that came and went before the sandbox does not count.
    let mut machine = at(Phase::Pulling, false);
    machine.step(Event::Cleared, NOW);
    assert_eq!(acts(&machine.step(Event::LeaseOver, NOW)), [Effect::Abort]);
    // A lease that came early does.
    let mut machine = at(Phase::Opening, false);
    machine.step(Event::Cleared, NOW);
    assert_eq!(acts(&machine.step(opened(), NOW)), [done(Step::Create)]);
    // Sealing ends with the lease, with the program's code kept.
    let mut machine = at(Phase::Sealing, true);
    assert_eq!(acts(&machine.step(Event::LeaseOver, NOW)), [Effect::Abort]);
    machine.step(Event::Aborted, NOW);
    let exit = machine.record.exit.as_ref().unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Output, Some(0)));
    // A running program is the shim's, which holds the deadline itself.
    assert_eq!(at(Phase::Running, true).step(Event::LeaseOver, NOW), []);
}

#[test]
fn after_a_restart_of_the_agent() {
    let alive = || Found::Alive(Some(isolation()));
    let over = |reason| Found::Ended(exit(reason, Some(0)));
    let all = [
        Phase::Pulling,
        Phase::Opening,
        Phase::Creating,
        Phase::Running,
        Phase::Sealing,
        Phase::Shipping,
        Phase::Scrubbing,
        Phase::Signing,
        Phase::Sending,
        Phase::Ended,
        Phase::Removing,
        Phase::Gone,
    ];
    let again = |phase, found, boot: &str| {
        let mut machine = Machine::new(at(phase, true).record);
        let effects = acts(&machine.step(begin(found, boot), NOW));
        (effects, machine.record)
    };
    for phase in all {
        let (effects, record) = again(phase, Found::Nothing, BOOT);
        let expected = match phase {
            Phase::Pulling | Phase::Opening => vec![done(Step::Pull)],
            Phase::Creating | Phase::Running => vec![done(Step::Scrub)],
            Phase::Sealing => vec![done(Step::Seal)],
            Phase::Shipping => vec![done(Step::Ship)],
            Phase::Scrubbing => vec![done(Step::Scrub)],
            Phase::Signing => vec![done(Step::Sign)],
            Phase::Sending => vec![done(Step::Send)],
            Phase::Removing => vec![done(Step::Remove)],
            Phase::Ended => vec![],
            Phase::Stopping | Phase::Gone => vec![Effect::Retire],
        };
        assert_eq!(effects, expected, "{phase:?}");
        if matches!(phase, Phase::Creating | Phase::Running) {
            assert_eq!(record.exit.unwrap().reason, ExitReason::SupervisorLost, "{phase:?}");
        }
    }
    assert_eq!(again(Phase::Running, Found::Nothing, "other").1.exit.unwrap().reason, ExitReason::Reboot);
    assert_eq!(again(Phase::Sealing, over(ExitReason::Completed), "other").1.exit.unwrap().reason, ExitReason::Reboot);
    assert_eq!(again(Phase::Running, over(ExitReason::Reboot), "other").1.exit.unwrap().reason, ExitReason::Reboot);
    for phase in [Phase::Creating, Phase::Running] {
        assert_eq!(again(phase, alive(), BOOT).0, [done(Step::Run)], "{phase:?}");
        assert_eq!(again(phase, over(ExitReason::Completed), BOOT).0, [done(Step::Seal)], "{phase:?}");
    }
    // What nobody read back, or nobody knows of, is killed.
    let killed = [done(Step::Run), Effect::Kill(ExitReason::SupervisorLost)];
    assert_eq!(again(Phase::Creating, Found::Alive(None), BOOT).0, killed);
    assert_eq!(again(Phase::Opening, alive(), BOOT).0, killed);
    // A stop that was begun goes on.
    let mut machine = at(Phase::Running, true);
    machine.step(Event::Wanted(Some(Desired::Cancel)), NOW);
    let mut machine = Machine::new(machine.record);
    assert_eq!(acts(&machine.step(begin(alive(), BOOT), NOW)), [done(Step::Run), Effect::Stop(ExitReason::Cancelled)]);
}

#[test]
fn a_stop_that_came_before_a_crash_is_not_forgotten() {
    for (desired, step) in [(Desired::Cancel, Step::Ship), (Desired::RevokeKeys, Step::Scrub)] {
        let mut machine = at(Phase::Sealing, true);
        machine.step(Event::Wanted(Some(desired)), NOW);
        let mut machine = Machine::new(machine.record);
        assert_eq!(acts(&machine.step(begin(Found::Nothing, BOOT), NOW)), [done(step)], "{desired:?}");
    }
    // A step that was faster than its end: the outputs are committed, the key is gone all the same.
    let mut machine = at(Phase::Sealing, true);
    machine.step(Event::Wanted(Some(Desired::RevokeKeys)), NOW);
    assert_eq!(acts(&machine.step(Event::Sealed(Vec::new()), NOW)), [done(Step::Scrub)]);
}

#[test]
fn what_is_left_behind_is_told() {
    let mut machine = at(Phase::Scrubbing, false);
    machine.step(Event::Scrubbed { left: Some("a mount".to_owned()) }, NOW);
    assert_eq!(machine.record.exit.unwrap().detail, "ended; left behind: a mount");
}

#[test]
fn texts_of_others_never_spoil_a_report() {
    let mut machine = at(Phase::Running, false);
    let mut end = exit(ExitReason::Failed, Some(1));
    end.detail = format!("`a\u{1b}[31m\n` {}", "ß".repeat(5000));
    machine.step(Event::Ended(end), NOW);
    let detail = machine.record.exit.unwrap().detail;
    assert!(detail.len() <= 1024 && !detail.chars().any(char::is_control) && detail.starts_with("`a [31m `"), "{detail}");
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    for phase in [Phase::Pulling, Phase::Running, Phase::Gone] {
        let record = at(phase, true).record;
        let bytes = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&bytes).unwrap(), record);
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let reasons = prop_oneof![Just(ExitReason::Completed), Just(ExitReason::Failed), Just(ExitReason::KeyRevoked), Just(ExitReason::LeaseEnded)];
    let desired = prop_oneof![
        Just(None),
        Just(Some(Desired::Run)),
        Just(Some(Desired::Cancel)),
        Just(Some(Desired::Evict)),
        Just(Some(Desired::RevokeKeys))
    ];
    prop_oneof![
        4 => desired.prop_map(Event::Wanted),
        4 => Just(Event::Cleared),
        1 => Just(Event::LeaseOver),
        2 => Just(Event::EndKnown),
        20 => reasons.prop_map(|reason| Event::Ended(exit(reason, Some(0)))),
        3 => Just(Event::Failed(Failure { reason: ExitReason::Output, detail: "no".to_owned() })),
    ]
}

/// The event with which a step ends; `Ended` and `Failed` are taken from the draw where they fit.
fn end_of(step: Step, drawn: &Event, aborted: bool) -> Event {
    if aborted && matches!(step, Step::Pull | Step::Open | Step::Seal | Step::Ship) {
        return Event::Aborted;
    }
    if matches!(drawn, Event::Failed(_)) && matches!(step, Step::Pull | Step::Open | Step::Create | Step::Seal | Step::Sign) {
        return drawn.clone();
    }
    match step {
        Step::Pull => Event::Pulled,
        Step::Open => opened(),
        Step::Create => created(),
        Step::Run => match drawn {
            Event::Ended(_) => drawn.clone(),
            _ => Event::Ended(exit(ExitReason::Completed, Some(0))),
        },
        Step::Seal => Event::Sealed(Vec::new()),
        Step::Ship => Event::Shipped { lost: 0 },
        Step::Scrub => Event::Scrubbed { left: None },
        Step::Sign => Event::Signed("statement".to_owned()),
        Step::Send => Event::Sent,
        Step::Remove => Event::Removed,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Any order of wishes, ends of steps and crashes of the agent keeps the promises.
    #[test]
    fn promises_hold_in_every_order(outputs: bool, events in prop::collection::vec((any_event(), any::<bool>(), 0..12u8), 1..60)) {
        let mut machine = new(outputs);
        let (mut creations, mut kept, mut aborted, mut sandbox) = (0, machine.record.clone(), false, Found::Nothing);
        let mut first = true;
        let mut statement: Option<String> = None;
        for (drawn, ends, crash) in events {
            let event = if first || crash == 0 {
                // The agent dies and starts: what was not written is forgotten.
                machine = Machine::new(kept.clone());
                aborted = false;
                begin(sandbox.clone(), BOOT)
            } else if let (true, Some(step)) = (ends, machine.in_flight) {
                let event = end_of(step, &drawn, aborted);
                match &event {
                    Event::Created { .. } => sandbox = Found::Alive(Some(isolation())),
                    Event::Ended(exit) => sandbox = Found::Ended(exit.clone()),
                    Event::Removed => sandbox = Found::Nothing,
                    _ => {}
                }
                event
            } else if matches!(drawn, Event::Ended(_) | Event::Failed(_)) {
                continue;
            } else {
                drawn
            };
            first = false;
            let before = machine.clone();
            let cleared = machine.cleared || event == Event::Cleared;
            let effects = machine.step(event.clone(), NOW);
            prop_assert!(machine.record.phase >= before.record.phase || matches!(event, Event::Begin { .. }), "{before:?} {event:?}");
            let mut persisted = before.record == machine.record;
            for effect in &effects {
                match effect {
                    Effect::Persist => {
                        persisted = true;
                        kept = machine.record.clone();
                    }
                    Effect::Do(step) => {
                        prop_assert!(persisted, "{step:?} before its record was written");
                        prop_assert_eq!(machine.in_flight, Some(*step));
                        aborted = false;
                        match step {
                            Step::Create => {
                                creations += 1;
                                prop_assert!(cleared, "created without a lease");
                                prop_assert!(machine.record.stop.is_none());
                            }
                            Step::Seal => {
                                let exit = machine.record.exit.as_ref().unwrap();
                                prop_assert!(exit.reason == ExitReason::Completed && exit.code == Some(0));
                            }
                            Step::Ship => prop_assert!(machine.record.stop != Some(ExitReason::KeyRevoked)),
                            _ => {}
                        }
                    }
                    Effect::Abort => aborted = true,
                    Effect::Report | Effect::Stop(_) | Effect::Kill(_) | Effect::Retire => {}
                }
            }
            prop_assert!(creations <= 1, "a sandbox was made twice");
            if let Some(statement) = &statement {
                prop_assert_eq!(machine.record.statement.as_ref(), Some(statement), "there is one statement");
            }
            statement.clone_from(&kept.statement);
            if before.record.shown.is_final() {
                prop_assert_eq!(&machine.record.exit, &before.record.exit, "an end that was told changes");
            }
            // Whoever is in no step and has not ended waits for something that will come.
            if machine.in_flight.is_none() {
                prop_assert!(matches!(machine.record.phase, Phase::Opening | Phase::Ended | Phase::Gone), "stuck: {machine:?} after {event:?}");
            }
        }
        prop_assert_eq!(machine.record.attempt().job, JobId::from_bytes([0xab; 16]));
    }
}
