//! What a lease, an image and a report are looked at again for, each time they are used.

use reqwest::Method;
use serde_json::{Value, json};
use vocabulary::api::{LeaseInfo, Page};
use vocabulary::job::JobState;
use vocabulary::lease::Lease;
use vocabulary::plan::NodeReport;
use vocabulary::{ErrorCode, Labels, Problem, VolumeId, channel};

use super::jobs::{placed, said, submitted};
use super::support::{Node, World, answer, facts};

const KEY: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

async fn lease(world: &World, volume: VolumeId, token: &str) -> Result<Lease, Problem> {
    let body = json!({"mode": "read", "purpose": "research", "recipient": KEY});
    world.post(&format!("/v1/volumes/{volume}/read-leases"), token, &body).await
}

async fn object(world: &World, volume: VolumeId, token: &str, lease: &Lease) -> Problem {
    let path = format!("/v1/volumes/{volume}/objects/cat/00000000000000000001");
    world.send::<Value>(Method::GET, &path, Some(token), None, &[("swarm-lease", &lease.id.to_string())]).await.unwrap_err()
}

/// The lease of one member in the hands of another of the same tenant.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_for_whoever_it_was_given_to() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let volume = world.volume(&tenant, "data", "internal").await;
    let (_, robots) = world.robot(&tenant, "robot", "admin", "regulated").await;
    let given = lease(&world, volume, &tenant.token).await.unwrap();
    // Nothing lies there yet: its holder is told so.
    assert_eq!(object(&world, volume, &tenant.token, &given).await.code, ErrorCode::NotFound);
    assert_eq!(object(&world, volume, &robots, &given).await.code, ErrorCode::ReleaseRefused);
    let end = format!("/v1/leases/{}", given.id);
    let problem = world.send::<Value>(Method::DELETE, &end, Some(&robots), None, &[]).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::NotFound);
    world.send::<Value>(Method::DELETE, &end, Some(&tenant.token), None, &[]).await.unwrap();
    assert_eq!(object(&world, volume, &tenant.token, &given).await.code, ErrorCode::ReleaseRefused);
    world.server.stop().await;
}

/// Reading and writing are two routes with two actions: neither gives the other's lease.
#[tokio::test(flavor = "multi_thread")]
async fn the_route_for_reading_opens_nothing_for_writing() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let volume = world.volume(&tenant, "data", "internal").await;
    for (route, body) in [
        ("read-leases", json!({"mode": "write", "purpose": "research", "recipient": KEY, "signer": KEY})),
        ("write-leases", json!({"mode": "read", "purpose": "research", "recipient": KEY})),
    ] {
        let problem = world.post::<Value>(&format!("/v1/volumes/{volume}/{route}"), &tenant.token, &body).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidRequest, "{route}");
        assert!(problem.detail.contains("`mode`"), "{}", problem.detail);
    }
    assert_eq!(world.control().store.newest_writer(tenant.id, volume).await.unwrap(), 0);
    world.server.stop().await;
}

/// A member whose clearance was taken kept a live lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_demotion_ends_the_leases_that_it_does_not_carry() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let (open, secret) = (world.volume(&tenant, "open", "public").await, world.volume(&tenant, "secret", "internal").await);
    let (robot, robots) = world.robot(&tenant, "robot", "engineer", "internal").await;
    let (first, second) = (lease(&world, open, &robots).await.unwrap(), lease(&world, secret, &robots).await.unwrap());
    let ended = async || {
        let list: Page<LeaseInfo> = world.get("/v1/leases", &robots).await.unwrap();
        let ended = |lease: &Lease| list.items.iter().find(|info| info.id == lease.id).unwrap().ended.is_some();
        (ended(&first), ended(&second))
    };
    assert_eq!(ended().await, (false, false));
    let demote = async |body: Value| {
        let revision = world.control().store.get(tenant.id, store::Kind::PRINCIPAL, robot).await.unwrap().unwrap().revision.to_string();
        let path = format!("/v1/principals/{robot}");
        world.confirmed::<Value>(tenant.id, &tenant.token, (Method::PUT, path.as_str()), Some(body), &[("if-match", &revision)]).await.unwrap();
    };
    // The person who confirms is told the new rights.
    let told = world
        .send::<Value>(
            Method::PUT,
            &format!("/v1/principals/{robot}"),
            Some(&tenant.token),
            Some(json!({"roles": ["engineer"], "clearance": "public"})),
            &[("if-match", "1")],
        )
        .await
        .unwrap_err();
    let told = told.step_up.unwrap().summary;
    assert!(told.contains("`engineer` (roles)") && told.contains("`public` (clearance)"), "{told}");
    // What the new clearance carries lives on.
    demote(json!({"roles": ["engineer"], "clearance": "public"})).await;
    assert_eq!(ended().await, (false, true));
    demote(json!({"roles": ["auditor"], "clearance": "public"})).await;
    assert_eq!(ended().await, (true, true));
    let ends = world.entries_of(tenant.id, "lease_ended").await;
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|event| event["end"] == "revoked"));
    world.server.stop().await;
}

/// A living lease is no right by itself: each read of an object is decided anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_decided_again() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let volume = world.volume(&tenant, "data", "internal").await;
    let given = lease(&world, volume, &tenant.token).await.unwrap();
    assert_eq!(object(&world, volume, &tenant.token, &given).await.code, ErrorCode::NotFound);
    // By a rule that does not reach the lease itself: from now on nobody opens volumes here.
    let rule = r#"@id("closed") forbid(principal, action == Swarm::Action::"volumeRead", resource);"#;
    let own = world.control().sets.check_own(rule).unwrap();
    world.control().sets.install(tenant.id, &own, 1).unwrap();
    let problem = object(&world, volume, &tenant.token, &given).await;
    // The sweep may have ended the lease in this moment: then that is what is said.
    assert!([ErrorCode::Forbidden, ErrorCode::ReleaseRefused].contains(&problem.code), "{}: {}", problem.code, problem.detail);
    world.server.stop().await;
}

/// A job runs no image that its submitter may not use.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_takes_no_image_that_is_forbidden() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    submitted(&world, &tenant, |_| {}).await;
    let rule = r#"@id("no-images") forbid(principal, action == Swarm::Action::"imageUse", resource);"#;
    let own = world.control().sets.check_own(rule).unwrap();
    world.control().sets.install(tenant.id, &own, 1).unwrap();
    let problem = super::jobs::submit(&world, &tenant, |_| {}).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::ReleaseRefused);
    let refusals = world.entries_of(tenant.id, "refused").await;
    assert_eq!(refusals.last().unwrap()["action"], "imageUse");
    world.server.stop().await;
}

/// What a node says of itself and of its attempts is bounded: it is stored, and people read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_says_nothing_beyond_its_limits() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    let job = submitted(&world, &tenant, |_| {}).await;
    let attempt = placed(&world, &node, job).await;
    let send = async |node: &mut Node, facts: vocabulary::plan::NodeFacts, attempts: Vec<vocabulary::plan::AttemptReport>| -> Result<Value, Problem> {
        node.sequence += 1;
        let report = NodeReport { sequence: node.sequence, plan_revision: 0, facts, attempts };
        answer(node.http.post(format!("{}{}", node.base, channel::REPORT)).json(&report).send().await.unwrap()).await
    };
    let long = "x".repeat(5_000);
    let many: Labels = (0..100).map(|n| (format!("f{n}"), "1".to_owned())).collect();
    for (changed, said) in [
        (vocabulary::plan::NodeFacts { hostname: long.clone(), ..facts() }, "facts.hostname"),
        (vocabulary::plan::NodeFacts { kernel: "6.1\u{1b}[2J".into(), ..facts() }, "facts.kernel"),
        (vocabulary::plan::NodeFacts { version: long.clone(), ..facts() }, "facts.version"),
        (vocabulary::plan::NodeFacts { features: many, ..facts() }, "facts.features"),
    ] {
        let problem = send(&mut node, changed, Vec::new()).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidRequest, "{said}");
        assert!(problem.detail.contains(said), "{}", problem.detail);
    }
    let mut ended = super::jobs::ended(attempt, vocabulary::job::ExitReason::Completed);
    for detail in [long, "a\u{7}b".to_owned()] {
        ended.exit.as_mut().unwrap().detail = detail;
        let answered = send(&mut node, facts(), vec![ended.clone()]).await;
        assert!(answered.is_err_and(|problem| problem.code == ErrorCode::InvalidRequest && problem.detail.contains("exit.detail")));
    }
    // Nothing of it was kept.
    let job: vocabulary::api::Job = world.get(&format!("/v1/jobs/{job}"), &tenant.token).await.unwrap();
    assert!(job.exit.is_none());
    send(&mut node, facts(), vec![said(attempt, JobState::Running)]).await.unwrap();
    world.server.stop().await;
}
