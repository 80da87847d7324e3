//! Jobs from submission to their recorded end, on nodes that report as they please.

use vocabulary::api::{Done, Job, Volume};
use vocabulary::job::{AttemptId, Exit, ExitReason, JobSpec, JobState};
use vocabulary::plan::{AttemptReport, Desired};
use vocabulary::{ErrorCode, ImageId, JobId, Sha256Digest, SYSTEM_OWNER, UnixTime};

use super::support::{Node, Tenant, World, until};
use crate::driver::Driver;
use crate::limits::CLOCK_SKEW_MS;
use crate::planner::JobRow;
use crate::row::{FORMAT, ImageRow};
use crate::{clock, planner};

const IMAGE: Sha256Digest = Sha256Digest::from_bytes([7; 32]);

/// An image as its import leaves it; its blobs are of no matter here.
pub(super) async fn image(world: &World, tenant: &Tenant) {
    let (control, now) = (world.control(), clock::now());
    if control.store.list(tenant.id, store::Kind::IMAGE, store::Page::first(1)).await.unwrap().items.is_empty() {
        let row = ImageRow {
            format: FORMAT,
            id: ImageId::new(now, [1; 10]),
            name: "busybox".parse().unwrap(),
            manifest: IMAGE,
            size: 1,
            source: None,
            importer: vocabulary::PrincipalId::from_bytes([1; 16]),
            created: now,
        };
        // An image is found by the first half of its manifest's digest.
        let put = store::Put::json(tenant.id, store::Kind::IMAGE, row.id, store::Expect::Absent, &row).unwrap().link([7; 16]);
        control.store.commit(store::Transaction::new().with(put), now).await.unwrap();
    }
}

fn spec() -> JobSpec {
    serde_json::from_value(serde_json::json!({
        "name": "train", "image": IMAGE.to_string(), "command": ["/bin/true"], "purpose": "research", "sensitivity": "internal",
        "run_lease_ms": 30_000,
    }))
    .unwrap()
}

pub(super) async fn submit(world: &World, tenant: &Tenant, change: impl Fn(&mut JobSpec)) -> Result<Job, vocabulary::Problem> {
    let mut spec = spec();
    change(&mut spec);
    world.post("/v1/jobs", &tenant.token, &serde_json::json!({"project": tenant.project, "spec": spec})).await
}

/// A job of this tenant, submitted.
pub(super) async fn submitted(world: &World, tenant: &Tenant, change: impl Fn(&mut JobSpec)) -> JobId {
    image(world, tenant).await;
    submit(world, tenant, change).await.unwrap().id
}

/// Its newest attempt, once it stands in the node's plan.
pub(super) async fn placed(world: &World, node: &Node, job: JobId) -> AttemptId {
    let plan = node.plan_where(world, |plan| plan.jobs.iter().any(|planned| planned.attempt.job == job)).await;
    plan.jobs.iter().find(|planned| planned.attempt.job == job).unwrap().attempt
}

pub(super) fn said(attempt: AttemptId, state: JobState) -> AttemptReport {
    AttemptReport { attempt, state, progress: None, exit: None, isolation: None, since: clock::now() }
}

pub(super) fn ended(attempt: AttemptId, reason: ExitReason) -> AttemptReport {
    let exit = Exit {
        reason,
        code: Some(0),
        signal: None,
        detail: "it said so".into(),
        oom_kills: 0,
        peak_memory_bytes: None,
        cpu_ms: None,
        started: None,
        ended: clock::now(),
    };
    AttemptReport { exit: Some(exit), ..said(attempt, planner::final_state(reason)) }
}

pub(super) async fn show(world: &World, tenant: &Tenant, job: JobId) -> Job {
    world.get(&format!("/v1/jobs/{job}"), &tenant.token).await.unwrap()
}

/// Changes a row as time would have left it, and looks at once.
pub(super) async fn aged(world: &World, tenant: &Tenant, job: JobId, change: impl Fn(&mut JobRow)) {
    let (control, now) = (world.control(), clock::now());
    control
        .change_job(tenant.id, job, now, |row| {
            change(row);
            Ok(Some(Vec::new()))
        })
        .await
        .unwrap();
    Driver::new(now).tick(control, now).await.ok();
}

pub(super) fn ago(millis: u64) -> UnixTime {
    UnixTime::from_millis(clock::now().millis() - millis)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_from_submission_to_its_recorded_end() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    // Nothing to run on: it waits and says why.
    let job = submitted(&world, &tenant, |_| {}).await;
    let waiting = show(&world, &tenant, job).await;
    assert_eq!((waiting.state, waiting.attempt, waiting.node), (JobState::Pending, 0, None));
    let mut node = world.node("one").await;
    until("the misfit", async || show(&world, &tenant, job).await.misfits.iter().any(|misfit| misfit.constraint.contains("lost"))).await;
    node.report(Vec::new()).await.unwrap();
    let attempt = placed(&world, &node, job).await;
    assert_eq!(attempt, AttemptId { job, attempt: 1 });

    // The first report is told the length of its lease, and so is every other.
    let answer = node.report(vec![said(attempt, JobState::Pulling)]).await.unwrap();
    assert_eq!(answer.renewed.len(), 1);
    assert!(answer.renewed[0].length_ms > 20_000 && answer.renewed[0].length_ms <= 30_000);
    node.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    let shown = show(&world, &tenant, job).await;
    assert_eq!((shown.state, shown.node, shown.node_name.unwrap().as_str()), (JobState::Running, Some(node.id), "one"));
    // Backwards is ignored, and the same again writes nothing.
    node.report(vec![said(attempt, JobState::Pulling)]).await.unwrap();
    let before = show(&world, &tenant, job).await;
    assert_eq!(before.state, JobState::Running);
    node.report(vec![AttemptReport { progress: Some((1, 2)), ..said(attempt, JobState::Running) }]).await.unwrap();
    let after = show(&world, &tenant, job).await;
    assert_eq!(after.report.unwrap().progress, Some((1, 2)));
    let steps: Vec<_> = world.entries_of(tenant.id, "job_step").await.into_iter().map(|event| event["state"].clone()).collect();
    assert_eq!(steps, ["pulling", "running"]);

    // An end without its reason is malformed; with it, its statement is waited for.
    assert_eq!(node.report(vec![said(attempt, JobState::Exited)]).await.unwrap_err().code, ErrorCode::InvalidRequest);
    let answer = node.report(vec![ended(attempt, ExitReason::Completed)]).await.unwrap();
    assert!(answer.acknowledged.is_empty());
    assert!(show(&world, &tenant, job).await.exit.is_none());
    aged(&world, &tenant, job, |row| {
        let heard = &mut row.attempts[0].ended.as_mut().unwrap().heard;
        *heard = ago(120_000);
    })
    .await;
    until("the end", async || show(&world, &tenant, job).await.exit.is_some()).await;
    let over = show(&world, &tenant, job).await;
    assert_eq!((over.state, over.exit.unwrap().reason, over.receipt_ready), (JobState::Exited, ExitReason::Completed, false));
    let finished = world.entries_of(tenant.id, "job_finished").await;
    assert_eq!((finished.len(), &finished[0]["statement"]), (1, &serde_json::Value::Null));
    // Told as often as it asks, and gone from the plan.
    for _ in 0..2 {
        let answer = node.report(vec![ended(attempt, ExitReason::Completed)]).await.unwrap();
        assert_eq!((answer.acknowledged, answer.renewed.len()), (vec![attempt], 0));
    }
    node.plan_where(&world, |plan| plan.jobs.is_empty() && plan.revision > 1).await;
    let submitted = world.entries_of(tenant.id, "job_submitted").await;
    let command = receipt::statement::command_digest(&["/bin/true".to_owned()]).unwrap();
    assert_eq!(submitted[0]["command"], command.to_string());
    assert_eq!(world.entries_of(tenant.id, "job_placed").await[0]["run_lease_ms"], 30_000);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reaches_the_node_or_ends_what_waits() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let waits = submitted(&world, &tenant, |_| {}).await;
    world.act::<Done>(&format!("/v1/jobs/{waits}/stop"), &tenant.token).await.unwrap();
    let over = show(&world, &tenant, waits).await;
    assert_eq!((over.state, over.exit.unwrap().reason), (JobState::Failed, ExitReason::Cancelled));
    assert_eq!(world.act::<Done>(&format!("/v1/jobs/{waits}/stop"), &tenant.token).await.unwrap_err().code, ErrorCode::WrongState);

    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    let runs = submitted(&world, &tenant, |_| {}).await;
    let attempt = placed(&world, &node, runs).await;
    node.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    world.act::<Done>(&format!("/v1/jobs/{runs}/stop"), &tenant.token).await.unwrap();
    let plan = node.plan_where(&world, |plan| plan.jobs.iter().any(|job| job.desired == Desired::Cancel)).await;
    assert_eq!(plan.jobs[0].attempt, attempt);
    // A cancelled job whose node falls silent is not started again.
    aged(&world, &tenant, runs, |row| row.attempts[0].run_lease_until = ago(CLOCK_SKEW_MS + 1)).await;
    until("the end", async || show(&world, &tenant, runs).await.exit.is_some()).await;
    assert_eq!(show(&world, &tenant, runs).await.attempt, 1);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_gives_its_job_away_only_after_lease_and_skew() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let mut first = world.node("first").await;
    first.report(Vec::new()).await.unwrap();
    let job = submitted(&world, &tenant, |_| {}).await;
    let attempt = placed(&world, &first, job).await;
    first.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    let mut second = world.node("second").await;
    second.report(Vec::new()).await.unwrap();

    // Its node is drained as far as new jobs go, and its lease is over, but two clocks may differ.
    let operator = world.operator().await;
    world.post::<Done>(&format!("/v1/nodes/{}/drain", first.id), &operator, &serde_json::json!({})).await.unwrap();
    aged(&world, &tenant, job, |row| row.attempts[0].run_lease_until = ago(1_000)).await;
    assert_eq!(show(&world, &tenant, job).await.attempt, 1);
    // A lease that is over is not revived by a late heartbeat.
    let answer = first.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    assert!(answer.renewed.is_empty());
    aged(&world, &tenant, job, |row| row.attempts[0].run_lease_until = ago(CLOCK_SKEW_MS + 1)).await;
    let again = placed(&world, &second, job).await;
    assert_eq!(again, AttemptId { job, attempt: 2 });
    let shown = show(&world, &tenant, job).await;
    assert_eq!((shown.attempt, shown.node), (2, Some(second.id)));
    let finished = world.entries_of(tenant.id, "job_finished").await;
    assert_eq!(finished[0]["reason"], "node_lost");
    // The first node learns that its attempt is over; it may not touch the second.
    let answer = first.report(vec![said(attempt, JobState::Running), said(again, JobState::Running)]).await.unwrap();
    assert_eq!((answer.acknowledged, answer.renewed.len()), (vec![attempt], 0));
    first.report(vec![said(again, JobState::Running)]).await.unwrap();
    assert_eq!(show(&world, &tenant, job).await.state, JobState::Pending, "only the second node moves the second attempt");
    let lies = world.entries_of(tenant.id, "refused").await;
    assert_eq!(lies.len(), 1, "told once, however often it is said");
    first.plan_where(&world, |plan| plan.jobs.is_empty()).await;

    // The machine restarts under the second: reported, and the third attempt begins at once.
    second.report(vec![ended(again, ExitReason::Reboot)]).await.unwrap();
    aged(&world, &tenant, job, |row| row.attempts[1].ended.as_mut().unwrap().heard = ago(120_000)).await;
    second.plan_where(&world, |plan| plan.jobs.iter().any(|planned| planned.attempt == AttemptId { job, attempt: 3 })).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_revoked_node_goes_on_elsewhere_when_its_lease_is_over() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let mut bad = world.node("bad").await;
    bad.report(Vec::new()).await.unwrap();
    let job = submitted(&world, &tenant, |_| {}).await;
    let attempt = placed(&world, &bad, job).await;
    bad.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    let mut good = world.node("good").await;
    good.report(Vec::new()).await.unwrap();
    let operator = world.operator().await;
    world.act_confirmed::<Done>(&format!("/v1/nodes/{}/revoke", bad.id), &operator).await.unwrap();
    aged(&world, &tenant, job, |_| {}).await;
    assert_eq!(show(&world, &tenant, job).await.attempt, 1, "it may still run there");
    aged(&world, &tenant, job, |row| row.attempts[0].run_lease_until = ago(CLOCK_SKEW_MS + 1)).await;
    assert_eq!(placed(&world, &good, job).await, AttemptId { job, attempt: 2 });
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_recorded_once_and_ended_by_a_report() {
    let world = World::start().await;
    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    let control = world.control();
    let now = clock::now();
    let seen = control.fleet.seen(node.id).unwrap();
    control.fleet.load(crate::fleet::SeenRow { last_seen: Some(ago(21_000)), ..seen });
    // A server that has just come up knows of no silence.
    Driver::new(now).tick(control, now).await.unwrap();
    assert!(world.entries_of(SYSTEM_OWNER, "node_lost").await.is_empty());
    for _ in 0..2 {
        Driver::new(ago(60_000)).tick(control, clock::now()).await.unwrap();
    }
    let lost = world.entries_of(SYSTEM_OWNER, "node_lost").await;
    assert_eq!((lost.len(), &lost[0]["lost"]), (1, &serde_json::Value::Bool(true)));
    node.report(Vec::new()).await.unwrap();
    node.report(Vec::new()).await.unwrap();
    assert_eq!(world.entries_of(SYSTEM_OWNER, "node_lost").await.len(), 2);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_admitted_with_its_own_tenants_things_only() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let other = world.tenant("other").await;
    // No image of this tenant, although another has it.
    image(&world, &other).await;
    let refused = submit(&world, &tenant, |_| {}).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert!(refused.audit_index.is_some());
    image(&world, &tenant).await;
    assert_eq!(submit(&world, &tenant, |spec| spec.network = true).await.unwrap_err().code, ErrorCode::NotBuilt);
    assert_eq!(submit(&world, &tenant, |spec| spec.gpus = 1).await.unwrap_err().code, ErrorCode::NoPlacement);
    let absent = submit(&world, &tenant, |spec| spec.runtime = Some(vocabulary::runtime::Runtime::Kata)).await.unwrap_err();
    assert!(absent.code == ErrorCode::NoPlacement && absent.detail.contains("no node offers runtime `kata`"), "{absent:?}");
    assert_eq!(submit(&world, &tenant, |spec| spec.run_lease_ms = 1).await.unwrap_err().code, ErrorCode::InvalidRequest);

    let volume = |owner: &Tenant, name: &str| {
        let body = serde_json::json!({"name": name, "project": owner.project, "region": "eu-central", "sensitivity": "internal", "purpose": "research"});
        let token = owner.token.clone();
        let world = &world;
        async move { world.post::<Volume>("/v1/volumes", &token, &body).await.unwrap().id }
    };
    let (mine, foreign) = (volume(&tenant, "data").await, volume(&other, "theirs").await);
    let with = |volume: vocabulary::VolumeId| move |spec: &mut JobSpec| {
        spec.inputs = vec![vocabulary::job::JobInput { volume, name: "data".parse().unwrap() }];
    };
    let refused = submit(&world, &tenant, with(foreign)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    let purpose = submit(&world, &tenant, |spec| {
        with(mine)(spec);
        spec.purpose = "marketing".parse().unwrap();
    });
    let refused = purpose.await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ReleaseRefused);
    assert!(refused.audit_index.is_some() && refused.detail.contains("research"));
    let lower = submit(&world, &tenant, |spec| {
        with(mine)(spec);
        spec.sensitivity = vocabulary::Sensitivity::Public;
    });
    assert_eq!(lower.await.unwrap_err().code, ErrorCode::ReleaseRefused);
    let job = submit(&world, &tenant, with(mine)).await.unwrap();
    assert!(job.audit_index.is_some());

    // Another tenant sees, lists and stops nothing of it.
    let path = format!("/v1/jobs/{}", job.id);
    assert_eq!(world.get::<Job>(&path, &other.token).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.act::<Done>(&format!("{path}/stop"), &other.token).await.unwrap_err().code, ErrorCode::NotFound);
    assert!(world.get::<vocabulary::api::Page<Job>>("/v1/jobs", &other.token).await.unwrap().items.is_empty());
    assert_eq!(world.get::<vocabulary::api::Page<Job>>("/v1/jobs", &tenant.token).await.unwrap().items.len(), 1);
    let operator = world.operator().await;
    assert_eq!(world.get::<Job>(&path, &operator).await.unwrap_err().code, ErrorCode::Forbidden);

    // A repeated submission under one key is one job.
    let body = serde_json::json!({"project": tenant.project, "spec": spec()});
    let send = || world.send::<Job>(reqwest::Method::POST, "/v1/jobs", Some(&tenant.token), Some(body.clone()), &[("idempotency-key", "k1")]);
    let (first, second) = (send().await.unwrap(), send().await.unwrap());
    assert_eq!((first.id, first.audit_index), (second.id, second.audit_index));
    assert_eq!(world.get::<vocabulary::api::Page<Job>>("/v1/jobs", &tenant.token).await.unwrap().items.len(), 2);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_specs_fill_no_plan_beyond_its_limit() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let mut node = world.node("one").await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(submitted(&world, &tenant, |spec| {
            spec.command = vec!["/bin/true".into(), "x".repeat(250 << 10)];
            spec.limits.cpu_millis = 10;
        }).await);
    }
    node.report(Vec::new()).await.unwrap();
    let plan = node.plan_where(&world, |plan| plan.jobs.len() >= 4).await;
    assert_eq!(plan.jobs.len(), 4, "a megabyte of specs, and no more");
    // The others have their turn when one is over.
    let first = plan.jobs[0].attempt;
    world.act::<Done>(&format!("/v1/jobs/{}/stop", first.job), &tenant.token).await.unwrap();
    node.report(vec![ended(first, ExitReason::Cancelled)]).await.unwrap();
    aged(&world, &tenant, first.job, |row| row.attempts[0].ended.as_mut().unwrap().heard = ago(120_000)).await;
    node.plan_where(&world, |plan| plan.jobs.iter().any(|job| job.attempt.job == jobs[4])).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    let job = submitted(&world, &tenant, |_| {}).await;
    let attempt = placed(&world, &node, job).await;
    node.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    let before = node.follow(0).await.next(&world).await.unwrap();
    // Without a word, as a killed process leaves it.
    let world = world.killed().await;
    node.moved_to(&world);
    assert_eq!(node.follow(0).await.next(&world).await.unwrap(), before);
    let answer = node.report(vec![said(attempt, JobState::Running)]).await.unwrap();
    assert_eq!(answer.renewed.len(), 1);
    assert_eq!(show(&world, &tenant, job).await.state, JobState::Running);
    assert_eq!(show(&world, &tenant, job).await.attempt, 1);
    world.server.stop().await;
}
