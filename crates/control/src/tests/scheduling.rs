//! Drains that send away, nodes set apart, quotas.

use http::Method;
use serde_json::{Value, json};
use vocabulary::api::{Done, Job};
use vocabulary::job::{ExitReason, Placement};
use vocabulary::plan::Desired;
use vocabulary::quota::Quota;
use vocabulary::{ErrorCode, JobId, SYSTEM_OWNER};

use super::jobs::{aged, ago, ended, image, placed, show, submit, submitted};
use super::support::{Node, Tenant, World, until};

async fn put<T: serde::de::DeserializeOwned>(world: &World, path: &str, token: &str, body: Value) -> Result<T, vocabulary::Problem> {
    world.send(Method::PUT, path, Some(token), Some(body), &[]).await
}

async fn drain(world: &World, node: &Node, deadline_s: u64) {
    let operator = world.operator().await;
    world.post::<Done>(&format!("/v1/nodes/{}/drain", node.id), &operator, &json!({ "deadline_s": deadline_s })).await.unwrap();
}

/// Its node says that it went, and its statement never comes.
async fn goes(world: &World, tenant: &Tenant, node: &mut Node, job: JobId) {
    let told = node.plan_where(world, |plan| plan.jobs.iter().any(|planned| planned.attempt.job == job && planned.desired == Desired::Evict)).await;
    let attempt = told.jobs.iter().find(|planned| planned.attempt.job == job).unwrap().attempt;
    node.report(vec![ended(attempt, ExitReason::Evicted)]).await.unwrap();
    aged(world, tenant, job, |row| row.attempts.last_mut().unwrap().ended.as_mut().unwrap().heard = ago(120_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_sends_jobs_away_at_its_deadline() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let (mut first, mut second) = (world.node("one").await, world.node("two").await);
    first.report(Vec::new()).await.unwrap();
    let again = submitted(&world, &tenant, |_| {}).await;
    let once = submitted(&world, &tenant, |spec| spec.restarts = 0).await;
    for job in [again, once] {
        placed(&world, &first, job).await;
    }
    // A deadline that is ahead changes nothing for what runs.
    drain(&world, &first, 3_600).await;
    let operator = world.operator().await;
    let shown: vocabulary::api::Node = world.get(&format!("/v1/nodes/{}", first.id), &operator).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.jobs, shown.leaving), ("draining", 2, 0));
    assert!(shown.drain_until.is_some());
    assert!(world.entries_of(tenant.id, "job_evicted").await.is_empty());
    drain(&world, &first, 0).await;
    second.report(Vec::new()).await.unwrap();
    for job in [again, once] {
        goes(&world, &tenant, &mut first, job).await;
    }
    // What may start again does, elsewhere; what may not is over and says why.
    assert_eq!(placed(&world, &second, again).await.attempt, 2);
    until("the end of the other", async || show(&world, &tenant, once).await.exit.is_some()).await;
    assert_eq!(show(&world, &tenant, once).await.exit.unwrap().reason, ExitReason::Evicted);
    assert_eq!(world.entries_of(tenant.id, "job_evicted").await.len(), 2);
    let drained = world.entries_of(SYSTEM_OWNER, "node_drained").await;
    assert!(drained.iter().all(|event| event["until"].is_number()), "{drained:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_set_apart_takes_nobody_else() {
    let world = World::start().await;
    let (acme, other) = (world.tenant("acme").await, world.tenant("other").await);
    let operator = world.operator().await;
    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    let path = format!("/v1/nodes/{}/tenant", node.id);
    let own = submitted(&world, &acme, |spec| spec.placement = Placement::OwnNode).await;
    let says = async |tenant: &Tenant, job, text: &str| show(&world, tenant, job).await.misfits.iter().any(|misfit| misfit.constraint.contains(text));
    until("the reason", async || says(&acme, own, "set apart for no tenant").await).await;
    let stranger = put::<Done>(&world, &path, &operator, json!({ "tenant": vocabulary::TenantId::from_bytes([9; 16]) })).await.unwrap_err();
    assert_eq!(stranger.code, ErrorCode::NotFound);
    assert_eq!(put::<Done>(&world, &path, &acme.token, json!({})).await.unwrap_err().code, ErrorCode::Forbidden);
    put::<Done>(&world, &path, &operator, json!({ "tenant": acme.id })).await.unwrap();
    assert_eq!(placed(&world, &node, own).await.attempt, 1);
    let entry = world.entries_of(acme.id, "job_placed").await.remove(0);
    assert_eq!(entry["demands"], json!({ "placement": "own_node" }));
    let foreign = submitted(&world, &other, |_| {}).await;
    until("the other reason", async || says(&other, foreign, "set apart for another tenant").await).await;
    // Everybody's again: but nobody comes beside a job that demanded its own node.
    put::<Done>(&world, &path, &operator, json!({})).await.unwrap();
    until("the last reason", async || says(&other, foreign, "demands the node for its own tenant").await).await;
    assert_eq!(world.entries_of(SYSTEM_OWNER, "node_dedicated").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_submissions_do_not_exceed_a_quota_together() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let operator = world.operator().await;
    image(&world, &tenant).await;
    let path = format!("/v1/tenants/{}/quota", tenant.id);
    let quota: Quota = put(&world, &path, &operator, json!({ "queued_jobs": 3, "memory_bytes": 64_u64 << 30 })).await.unwrap();
    assert!(quota.audit_index.is_some());
    let all = futures::future::join_all((0..12).map(|_| submit(&world, &tenant, |_| {}))).await;
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 3);
    for refused in all.iter().filter_map(|one| one.as_ref().err()) {
        assert_eq!(refused.code, ErrorCode::QuotaExceeded);
        assert_eq!(refused.detail, "`queued_jobs` of the tenant: 3 of 3 are used, 1 asked for");
        assert!(refused.audit_index.is_some());
    }
    let shown: Quota = world.get(&path, &operator).await.unwrap();
    assert_eq!((shown.used.queued_jobs, shown.used.running_jobs), (3, 0));
    // Each limit by its name; a smaller one than is in use takes nothing away.
    put::<Quota>(&world, &path, &operator, json!({ "memory_bytes": 1 })).await.unwrap();
    let refused = submit(&world, &tenant, |_| {}).await.unwrap_err();
    assert!(refused.detail.contains("`memory_bytes` of the tenant") && refused.detail.contains("of 1 are used"), "{}", refused.detail);
    // None again: everything goes.
    put::<Quota>(&world, &path, &operator, json!({})).await.unwrap();
    submit(&world, &tenant, |_| {}).await.unwrap();
    assert_eq!(world.entries_of(tenant.id, "quota_changed").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_admitted_is_answered_again_however_full_it_is() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    image(&world, &tenant).await;
    put::<Quota>(&world, &format!("/v1/tenants/{}/quota", tenant.id), &world.operator().await, json!({ "queued_jobs": 1 })).await.unwrap();
    let spec =
        json!({ "name": "j", "image": vocabulary::Sha256Digest::from_bytes([7; 32]).to_string(), "purpose": "research", "sensitivity": "internal" });
    let body = json!({ "project": tenant.project, "spec": spec });
    let again = async || {
        world.send::<Job>(Method::POST, "/v1/jobs", Some(&tenant.token), Some(body.clone()), &[("idempotency-key", "once")]).await.unwrap().id
    };
    assert_eq!(again().await, again().await);
    assert_eq!(submit(&world, &tenant, |_| {}).await.unwrap_err().code, ErrorCode::QuotaExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_of_projects_are_their_tenants_matter() {
    let world = World::start().await;
    let (acme, other) = (world.tenant("acme").await, world.tenant("other").await);
    let operator = world.operator().await;
    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    let path = format!("/v1/projects/{}/quota", acme.project);
    let code = async |token: &str, path: &str, body: Value| put::<Quota>(&world, path, token, body).await.map(drop).map_err(|problem| problem.code);
    assert_eq!(code(&acme.token, &path, json!({ "running_jobs": 1 })).await, Ok(()));
    assert_eq!(code(&other.token, &path, json!({})).await, Err(ErrorCode::NotFound));
    assert_eq!(code(&operator, &path, json!({})).await, Err(ErrorCode::Forbidden));
    assert_eq!(code(&acme.token, &path, json!({ "images": 1 })).await, Err(ErrorCode::InvalidRequest));
    assert_eq!(code(&acme.token, &path, json!({ "stored_bytes": 1 })).await, Err(ErrorCode::NotBuilt));
    assert_eq!(code(&acme.token, &path, json!({ "cpu_millis": u64::MAX })).await, Err(ErrorCode::InvalidRequest));
    // Nobody sets the limits of the own tenant but an operator.
    assert!(code(&acme.token, &format!("/v1/tenants/{}/quota", acme.id), json!({})).await.is_err());
    // What may not run yet waits, and says so, though it would fit.
    let first = submitted(&world, &acme, |_| {}).await;
    placed(&world, &node, first).await;
    let second = submitted(&world, &acme, |_| {}).await;
    until("the reason", async || show(&world, &acme, second).await.held_back.as_deref() == Some("quota `running_jobs` of the project: 1 of 1 run"))
        .await;
    let list: vocabulary::api::Page<Quota> = world.get("/v1/quotas", &acme.token).await.unwrap();
    let project = list.items.iter().find(|quota| quota.project == Some(acme.project)).unwrap();
    assert_eq!((project.limits.running_jobs, project.used.running_jobs, project.used.queued_jobs), (Some(1), 1, 1));
    assert_eq!(code(&acme.token, &path, json!({})).await, Ok(()));
    assert_eq!(placed(&world, &node, second).await.attempt, 1);
}
