use super::*;
use vocabulary::job::{JobLimits, RUN_LEASE_DEFAULT_MS};
use vocabulary::{Labels, Purpose, Sensitivity};

const NOW: UnixTime = UnixTime::from_millis(1_000_000);

fn spec() -> JobSpec {
    JobSpec {
        name: "train".parse().unwrap(),
        image: Sha256Digest::from_bytes([7; 32]),
        command: vec![],
        env: BTreeMap::new(),
        inputs: vec![],
        outputs: vec![],
        purpose: "research".parse::<Purpose>().unwrap(),
        sensitivity: Sensitivity::Internal,
        region: None,
        jurisdictions: Jurisdictions::new(),
        node_labels: Labels::new(),
        limits: JobLimits::default(),
        grants: Default::default(),
        gpus: 0,
        network: false,
        run_lease_ms: RUN_LEASE_DEFAULT_MS,
    }
}

fn node(n: u8, region: &str, jurisdiction: &str) -> NodeView {
    NodeView {
        id: NodeId::from_bytes([n; 16]),
        name: format!("node-{n}").parse().unwrap(),
        place: NodePlace {
            region: region.parse().unwrap(),
            jurisdiction: jurisdiction.parse().unwrap(),
            labels: Labels::from([("disk".into(), "fast".into())]),
        },
        facts: NodeFacts {
            hostname: "h".into(),
            kernel: "6.1".into(),
            cgroup_layout: "unified".into(),
            cpu_millis: 2000,
            memory_bytes: 4 << 30,
            scratch_bytes: 8 << 30,
            gpus: 0,
            features: Labels::new(),
            boot_id: "b".into(),
            version: "0".into(),
        },
        trust: 0,
        draining: false,
        revoked: false,
        last_seen: Some(NOW),
    }
}

fn job(state: JobState, attempts: usize) -> JobRow {
    let id = JobId::from_bytes([9; 16]);
    JobRow {
        format: 1,
        id,
        tenant: TenantId::from_bytes([1; 16]),
        project: ProjectId::from_bytes([2; 16]),
        owner: PrincipalId::from_bytes([3; 16]),
        created: NOW,
        spec: spec(),
        policy_epoch: 1,
        submitted_entry: EntryId::from_bytes([5; 16]),
        desired: Desired::Run,
        attempts: (1..=attempts)
            .map(|number| AttemptRow {
                number: u32::try_from(number).unwrap(),
                node: NodeId::from_bytes([1; 16]),
                run_lease: LeaseId::from_bytes([4; 16]),
                run_lease_until: NOW.plus_millis(30_000),
                placed: NOW,
                placed_entry: EntryId::from_bytes([6; 16]),
                report: AttemptReport {
                    attempt: AttemptId { job: id, attempt: u32::try_from(number).unwrap() },
                    state: if number == attempts { state } else { JobState::Failed },
                    progress: None,
                    exit: None,
                    isolation: None,
                    since: NOW,
                },
                statement: None,
                ended: None,
                finished_entry: None,
            })
            .collect(),
        exit: None,
        receipt: None,
    }
}

fn misfit_of(spec: &JobSpec, data: &[DataRule], node: NodeView) -> String {
    place(spec, data, &[node], &BTreeMap::new(), NOW).unwrap_err().remove(0).constraint
}

#[test]
fn every_constraint_is_named_on_its_node() {
    let eu = || node(1, "eu-central", "EU");
    let asks = |change: fn(&mut JobSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec
    };
    assert_eq!(
        misfit_of(&asks(|s| s.region = Some("us-east".parse().unwrap())), &[], eu()),
        "region is eu-central, the job asks for us-east"
    );
    assert_eq!(
        misfit_of(&asks(|s| s.jurisdictions = ["CH".parse().unwrap()].into()), &[], eu()),
        "jurisdiction is EU, the job asks for CH"
    );
    assert!(misfit_of(&asks(|s| s.node_labels = [("disk".into(), "slow".into())].into()), &[], eu()).contains("fast"));
    assert!(misfit_of(&asks(|s| s.node_labels = [("gpu".into(), "h200".into())].into()), &[], eu()).contains("absent"));
    assert!(misfit_of(&asks(|s| s.gpus = 1), &[], eu()).starts_with("gpus: 0 of 0 free"));
    assert!(misfit_of(&asks(|s| s.limits.memory_bytes = 5 << 30), &[], eu()).starts_with("memory"));
    assert!(misfit_of(&asks(|s| s.limits.cpu_millis = 2001), &[], eu()).starts_with("cpu"));
    assert!(misfit_of(&asks(|s| s.limits.scratch_bytes = 9 << 30), &[], eu()).starts_with("scratch"));
    let rule = |min_trust, jurisdiction: &str| DataRule {
        volume: VolumeId::from_bytes([5; 16]),
        name: "patients".parse().unwrap(),
        jurisdictions: [jurisdiction.parse().unwrap()].into(),
        min_trust,
        region: "eu-west".parse().unwrap(),
    };
    assert!(misfit_of(&spec(), &[rule(0, "CH")], eu()).contains("`patients`"));
    assert_eq!(misfit_of(&spec(), &[rule(1, "EU")], eu()), "trust is 0, volume `patients` asks for 1");
    assert!(misfit_of(&spec(), &[], NodeView { draining: true, ..eu() }).contains("draining"));
    assert!(misfit_of(&spec(), &[], NodeView { revoked: true, ..eu() }).contains("revoked"));
    assert!(misfit_of(&spec(), &[], NodeView { last_seen: None, ..eu() }).contains("lost"));
    // A clock that went back proves nothing about a node being alive.
    assert!(misfit_of(&spec(), &[], NodeView { last_seen: Some(NOW.plus_millis(1)), ..eu() }).contains("lost"));
}

#[test]
fn capacity_counts_live_attempts_only_and_ties_go_by_id() {
    let nodes = [node(2, "eu-central", "EU"), node(1, "eu-central", "EU")];
    let running = job(JobState::Running, 1);
    let ended = job(JobState::Exited, 1);
    assert_eq!(place(&spec(), &[], &nodes, &usage([&ended]), NOW).unwrap(), NodeId::from_bytes([1; 16]));
    assert_eq!(place(&spec(), &[], &nodes, &usage([&running]), NOW).unwrap(), NodeId::from_bytes([2; 16]));
}

#[test]
fn a_silent_attempt_is_over_only_after_lease_and_skew() {
    let job = job(JobState::Running, 1);
    let attempt = job.live().unwrap();
    let end = attempt.run_lease_until.plus_millis(CLOCK_SKEW_MS);
    assert_eq!(silence(&job, attempt, UnixTime::from_millis(end.millis() - 1)), Silence::Wait);
    let Silence::Over { exit, again } = silence(&job, attempt, end) else { panic!("not over") };
    assert_eq!((exit.reason, again), (ExitReason::NodeLost, true));
}

#[test]
fn a_cancelled_or_thrice_lost_job_is_not_started_again() {
    let mut cancelled = job(JobState::Running, 1);
    cancelled.desired = Desired::Cancel;
    let late = NOW.plus_millis(1_000_000);
    assert!(matches!(silence(&cancelled, cancelled.live().unwrap(), late), Silence::Over { again: false, .. }));
    let thrice = job(JobState::Running, ATTEMPTS_MAX);
    assert!(matches!(silence(&thrice, thrice.live().unwrap(), late), Silence::Over { again: false, .. }));
}

#[test]
fn reports_move_forwards_only() {
    assert!(may_move(JobState::Pending, JobState::Running));
    assert!(may_move(JobState::Running, JobState::Running));
    assert!(may_move(JobState::Sealing, JobState::Stopping));
    assert!(!may_move(JobState::Running, JobState::Opening));
    for state in [JobState::Pending, JobState::Running, JobState::Exited] {
        assert!(!may_move(JobState::Exited, state));
        assert!(!may_move(JobState::Failed, state));
    }
}

/// Lying, late and vanishing nodes: whatever they report, no job ever has two attempts that could both be alive.
#[test]
fn never_two_attempts_alive() {
    for seed in 0..500_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let mut nodes = vec![node(1, "eu-central", "EU"), node(2, "eu-central", "EU"), node(3, "eu-central", "EU")];
        let mut job = job(JobState::Pending, 0);
        let mut now = NOW;
        // The truth: until when each attempt's node could still run it (its own deadline, unless it ended before).
        let mut truly_alive_until: Vec<UnixTime> = Vec::new();
        for _ in 0..200 {
            now = now.plus_millis(draw(20_000));
            for node in &mut nodes {
                if draw(3) > 0 {
                    node.last_seen = Some(now);
                }
            }
            let live = job.live().cloned();
            match live {
                None if job.exit.is_none() => {
                    if let Ok(id) = place(&job.spec, &[], &nodes, &usage([&job]), now) {
                        assert!(
                            truly_alive_until.iter().all(|end| *end <= now),
                            "seed {seed}: a second attempt while the first could run"
                        );
                        let number = u32::try_from(job.attempts.len()).unwrap() + 1;
                        let until = now.plus_millis(30_000);
                        truly_alive_until.push(until);
                        job.attempts.push(AttemptRow {
                            number,
                            node: id,
                            run_lease: LeaseId::from_bytes([4; 16]),
                            run_lease_until: until,
                            placed: now,
                            placed_entry: EntryId::from_bytes([6; 16]),
                            report: AttemptReport {
                                attempt: AttemptId { job: job.id, attempt: number },
                                state: JobState::Pending,
                                progress: None,
                                exit: None,
                                isolation: None,
                                since: now,
                            },
                            statement: None,
                            ended: None,
                            finished_entry: None,
                        });
                    }
                }
                None => break,
                Some(attempt) => match draw(4) {
                    // The node renews, in time as the control plane sees it.
                    0 if now < attempt.run_lease_until => {
                        let until = now.plus_millis(30_000);
                        job.attempts.last_mut().unwrap().run_lease_until = until;
                        *truly_alive_until.last_mut().unwrap() = until;
                    }
                    // A lying report tries to move anywhere.
                    1 => {
                        let states = [JobState::Pending, JobState::Running, JobState::Sealing];
                        let to = states[usize::try_from(draw(3)).unwrap()];
                        if may_move(attempt.report.state, to) {
                            job.attempts.last_mut().unwrap().report.state = to;
                        }
                    }
                    _ => {
                        if let Silence::Over { exit, again } = silence(&job, &attempt, now) {
                            job.attempts.last_mut().unwrap().report.state = JobState::Failed;
                            if !again {
                                job.exit = Some(exit);
                            }
                        }
                    }
                },
            }
        }
    }
}
