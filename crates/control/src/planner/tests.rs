use std::collections::BTreeMap;

use super::*;
use crate::limits::{CLOCK_SKEW_MS, STATEMENT_GRACE_MS};
use vocabulary::isolation::IsolationReport;
use vocabulary::job::{JobLimits, Placement, RESTARTS_DEFAULT, RUN_LEASE_DEFAULT_MS};
use vocabulary::label::Jurisdictions;
use vocabulary::plan::{NodeFacts, NodePlace};
use vocabulary::runtime::{Runtime, RuntimeOffer};
use vocabulary::{Labels, Purpose, Sensitivity, VolumeId};

const NOW: UnixTime = UnixTime::from_millis(1_000_000);

pub(super) fn spec() -> JobSpec {
    JobSpec {
        name: "train".parse().unwrap(),
        image: Sha256Digest::from_bytes([7; 32]),
        command: vec![],
        env: BTreeMap::new(),
        inputs: vec![],
        outputs: vec![],
        secrets: vec![],
        purpose: "research".parse::<Purpose>().unwrap(),
        sensitivity: Sensitivity::Internal,
        region: None,
        jurisdictions: Jurisdictions::new(),
        node_labels: Labels::new(),
        limits: JobLimits::default(),
        grants: Default::default(),
        runtime: None,
        gpus: 0,
        network: false,
        placement: Placement::Shared,
        run_lease_ms: RUN_LEASE_DEFAULT_MS,
        restarts: RESTARTS_DEFAULT,
    }
}

pub(super) fn node(n: u8, region: &str, jurisdiction: &str) -> NodeView {
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
            runtimes: vec![],
            features: Labels::new(),
            boot_id: "b".into(),
            version: "0".into(),
        },
        trust: 0,
        draining: false,
        revoked: false,
        dedicated: None,
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
                evicted: None,
                dedicated_entry: None,
            })
            .collect(),
        exit: None,
        receipt: None,
    }
}

fn misfit_of(spec: &JobSpec, data: &[DataRule], node: NodeView) -> String {
    let job = JobRow { spec: spec.clone(), ..job(JobState::Pending, 0) };
    place(&job, data, &[node], &BTreeMap::new(), NOW).unwrap_err().remove(0).constraint
}

#[test]
fn every_constraint_is_named_on_its_node() {
    let eu = || node(1, "eu-central", "EU");
    let asks = |change: fn(&mut JobSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec
    };
    assert_eq!(misfit_of(&asks(|s| s.region = Some("us-east".parse().unwrap())), &[], eu()), "region is eu-central, the job asks for us-east");
    assert_eq!(misfit_of(&asks(|s| s.jurisdictions = ["CH".parse().unwrap()].into()), &[], eu()), "jurisdiction is EU, the job asks for CH");
    assert!(misfit_of(&asks(|s| s.node_labels = [("disk".into(), "slow".into())].into()), &[], eu()).contains("fast"));
    assert!(misfit_of(&asks(|s| s.node_labels = [("gpu".into(), "h200".into())].into()), &[], eu()).contains("absent"));
    let runc = asks(|s| s.runtime = Some(Runtime::Runc));
    assert_eq!(misfit_of(&runc, &[], eu()), "runtime: the node offers youki, the job asks for runc");
    let mut offering = eu();
    offering.facts.runtimes = [Runtime::Youki, Runtime::Crun].map(|runtime| RuntimeOffer { runtime, version: "1".into(), digest: None, untested: false }).into();
    assert_eq!(misfit_of(&runc, &[], offering), "runtime: the node offers youki, crun, the job asks for runc");
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
    let waiting = job(JobState::Pending, 0);
    assert_eq!(place(&waiting, &[], &nodes, &usage([&ended]), NOW).unwrap(), NodeId::from_bytes([1; 16]));
    assert_eq!(place(&waiting, &[], &nodes, &usage([&running]), NOW).unwrap(), NodeId::from_bytes([2; 16]));
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
fn an_end_without_a_sandbox_waits_for_no_statement() {
    let mut job = job(JobState::Opening, 1);
    let exit = Exit {
        reason: ExitReason::Create,
        code: None,
        signal: None,
        detail: "no".into(),
        oom_kills: 0,
        peak_memory_bytes: None,
        cpu_ms: None,
        started: None,
        ended: NOW,
    };
    let attempt = job.attempts.last_mut().unwrap();
    let report = AttemptReport { state: JobState::Failed, exit: Some(exit), ..attempt.report.clone() };
    attempt.ended = Some(Ended { heard: NOW, report });
    let ending = due(&job, NOW).unwrap();
    assert_eq!((ending.exit.reason, ending.exit.detail.as_str()), (ExitReason::Create, "no"));
    assert!(ending.without_statement.starts_with("no sandbox was made"));
    // Where a sandbox stood, its node has time to state what it saw.
    let isolation = IsolationReport { backend: "b".into(), cgroup_layout: "c".into(), kernel: "k".into(), runtime: None, layers: Vec::new() };
    job.attempts.last_mut().unwrap().report.isolation = Some(isolation);
    assert_eq!(due(&job, NOW), None);
    assert!(due(&job, NOW.plus_millis(STATEMENT_GRACE_MS)).is_some());
}

#[test]
fn a_cancelled_or_thrice_lost_job_is_not_started_again() {
    let mut cancelled = job(JobState::Running, 1);
    cancelled.desired = Desired::Cancel;
    let late = NOW.plus_millis(1_000_000);
    assert!(matches!(silence(&cancelled, cancelled.live().unwrap(), late), Silence::Over { again: false, .. }));
    let mut thrice = job(JobState::Running, 3);
    assert!(matches!(silence(&thrice, thrice.live().unwrap(), late), Silence::Over { again: false, .. }));
    thrice.spec.restarts = 3;
    assert!(matches!(silence(&thrice, thrice.live().unwrap(), late), Silence::Over { again: true, .. }));
    let mut once = job(JobState::Running, 1);
    once.spec.restarts = 0;
    assert!(matches!(silence(&once, once.live().unwrap(), late), Silence::Over { again: false, .. }));
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

#[test]
fn tenants_are_apart_where_somebody_demands_it() {
    let mine = TenantId::from_bytes([1; 16]);
    let other = TenantId::from_bytes([8; 16]);
    let own = || JobRow { spec: JobSpec { placement: Placement::OwnNode, ..spec() }, ..job(JobState::Pending, 0) };
    let shared = || job(JobState::Pending, 0);
    let set_apart = |tenant| NodeView { dedicated: Some(tenant), ..node(1, "eu-central", "EU") };
    let why = |job: &JobRow, node: NodeView, there: &[&JobRow]| {
        place(job, &[], &[node], &usage(there.iter().copied()), NOW).err().map(|mut all| all.remove(0).constraint)
    };
    assert_eq!(why(&own(), set_apart(mine), &[]), None);
    assert_eq!(why(&shared(), set_apart(mine), &[]), None);
    assert!(why(&own(), node(1, "eu-central", "EU"), &[]).unwrap().contains("set apart for no tenant"));
    for job in [own(), shared()] {
        assert_eq!(why(&job, set_apart(other), &[]).unwrap(), "the node is set apart for another tenant");
    }
    // What was there before it was set apart is waited for.
    let foreign = JobRow { tenant: other, ..job(JobState::Running, 1) };
    assert!(why(&own(), set_apart(mine), &[&foreign]).unwrap().contains("still on the node"));
    let neighbour = job(JobState::Running, 1);
    assert_eq!(why(&own(), set_apart(mine), &[&neighbour]), None);
    // And nobody comes beside it later, when the node is everybody's again.
    let running = JobRow { spec: own().spec, ..job(JobState::Running, 1) };
    let stranger = JobRow { tenant: other, ..shared() };
    assert!(why(&stranger, node(1, "eu-central", "EU"), &[&running]).unwrap().contains("demands the node for its own tenant"));
    assert_eq!(why(&shared(), node(1, "eu-central", "EU"), &[&running]), None);
}

#[test]
fn a_quota_holds_back_what_would_fit() {
    let (running, waiting) = (job(JobState::Running, 1), job(JobState::Pending, 0));
    let nodes = [node(1, "eu-central", "EU")];
    let limits = |tenant, project| RunLimits {
        tenants: BTreeMap::from([(TenantId::from_bytes([1; 16]), tenant)]),
        projects: BTreeMap::from([(ProjectId::from_bytes([2; 16]), project)]),
    };
    let why = |limits: &RunLimits, there: &[&JobRow]| Placing::new(&nodes, limits, there.iter().copied()).held_back(&waiting);
    assert_eq!(why(&limits(2, 2), &[&running]), None);
    assert_eq!(why(&limits(1, 2), &[&running]).unwrap(), "quota `running_jobs` of the tenant: 1 of 1 run");
    assert_eq!(why(&limits(2, 1), &[&running]).unwrap(), "quota `running_jobs` of the project: 1 of 1 run");
    assert!(why(&limits(0, 1), &[]).unwrap().contains("0 of 0"));
    assert_eq!(why(&RunLimits::default(), &[&running]), None);
    // What is placed in a round counts for the rest of it.
    let limits = limits(1, 9);
    let mut round = Placing::new(&nodes, &limits, []);
    assert_eq!(round.held_back(&waiting), None);
    round.took(NodeId::from_bytes([1; 16]), &waiting);
    assert!(round.held_back(&waiting).is_some());
}

#[test]
fn a_drain_sends_away_at_its_deadline_and_not_before() {
    let mut running = job(JobState::Running, 1);
    assert!(!evictable(&running, None, NOW));
    assert!(!evictable(&running, Some(NOW.plus_millis(1)), NOW));
    assert!(evictable(&running, Some(NOW), NOW));
    assert!(!evictable(&job(JobState::Pending, 0), Some(NOW), NOW), "nothing to send away");
    running.attempts[0].evicted = Some(NOW);
    assert!(!evictable(&running, Some(NOW), NOW), "told once");
    let told = |job: &JobRow| planned_jobs(NodeId::from_bytes([1; 16]), [job])[0].desired;
    assert_eq!(told(&running), Desired::Evict);
    running.desired = Desired::RevokeKeys;
    assert_eq!(told(&running), Desired::RevokeKeys, "what somebody asked for comes first");
}

#[test]
fn a_plan_rises_only_with_what_it_says() {
    let deployment = vocabulary::DeploymentId::from_bytes([1; 16]);
    let id = NodeId::from_bytes([1; 16]);
    let nothing = vocabulary::plan::Revocations::default();
    let running = job(JobState::Running, 1);
    let first = next_plan(deployment, id, None, planned_jobs(id, [&running]), &nothing).unwrap();
    assert_eq!((first.revision, first.jobs.len()), (1, 1));
    assert_eq!(next_plan(deployment, id, Some(&first), planned_jobs(id, [&running]), &nothing), None);
    let second = next_plan(deployment, id, Some(&first), Vec::new(), &nothing).unwrap();
    assert_eq!((second.revision, second.jobs.len()), (2, 0));
}
