//! The node channel: who gets through its gate, for how long, and what a node may say.

use std::sync::Arc;
use std::time::Duration;

use identity::{CertificateRequest, EcdsaKey, NodeLife, make_request};
use keys::SystemRandom;
use policy::action::AttemptLogs;
use vocabulary::job::JobState;
use vocabulary::{ControlId, ErrorCode, JobId, SYSTEM_OWNER, channel};

use super::jobs::{placed, submitted};
use super::support::{World, node_base, node_client, until};
use crate::api::listener::Connection;
use crate::api::node::{Liveness, NodeCall};
use crate::{clock, node_routes};

fn request_of(key: &EcdsaKey) -> CertificateRequest {
    CertificateRequest::check(&make_request(key).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_of_this_deployment_shake_hands() {
    let world = World::start().await;
    let stranger = World::start().await;
    let url = format!("{}{}", node_base(&world), channel::PLAN);
    let now = clock::now();
    let key = EcdsaKey::generate().unwrap();
    let node = vocabulary::NodeId::from_bytes([7; 16]);

    // Another deployment's authority, for the same node id.
    let foreign = stranger.control().certifying().node_authority.issue_node(node, &request_of(&key), NodeLife::default(), now, &mut SystemRandom).unwrap();
    assert!(node_client(&world, foreign.chain, &key).get(&url).send().await.is_err());
    // Another class of this deployment.
    let own = world.control();
    let (_, row) = crate::deployment::stored(&own.store).await.unwrap().unwrap();
    let authority = row.authority(&own.store, &own.vault, identity::Class::Control).await.unwrap();
    let names = ["localhost".parse().unwrap()];
    let control = authority.issue_control(ControlId::from_bytes([8; 16]), &key.public().unwrap(), &names, now, &mut SystemRandom).unwrap();
    assert!(node_client(&world, control.chain, &key).get(&url).send().await.is_err());
    // A certificate that has ended: the shortest life, begun as long ago as authorities are back-dated.
    let long_ago = vocabulary::UnixTime::from_millis(now.millis() - identity::limits::BACKDATE_MS);
    let life = NodeLife::from_millis(identity::limits::NODE_LIFE_MIN_MS).unwrap();
    let ended = world.control().certifying().node_authority.issue_node(node, &request_of(&key), life, long_ago, &mut SystemRandom).unwrap();
    until("the certificate's end", async || clock::now() > ended.not_after.plus_millis(1000)).await;
    assert!(node_client(&world, ended.chain, &key).get(&url).send().await.is_err());
    // A good certificate of a node that was never enrolled shakes hands and is told nothing.
    let unknown = world.control().certifying().node_authority.issue_node(node, &request_of(&key), NodeLife::default(), clock::now(), &mut SystemRandom).unwrap();
    let told = node_client(&world, unknown.chain, &key).get(&url).send().await.unwrap();
    assert_eq!(told.status(), 401);
    // Each refused certificate is counted, whoever showed it.
    let next_minute = vocabulary::UnixTime::from_millis(clock::now().millis() + 60_000);
    until("the count of three refusals", async || {
        let counted = world.control().store.refusals_before(next_minute, 100).await.unwrap();
        counted.items.iter().map(|row| row.count).sum::<u64>() == 3
    })
    .await;
    // Nobody without a certificate, and none of the people's routes for nodes.
    let mut node = world.node("one").await;
    node.report(Vec::new()).await.unwrap();
    assert_eq!(node.http.get(format!("{}/v1/status", node.base)).send().await.unwrap().status(), 404);
    world.server.stop().await;
    stranger.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_certificate() {
    let world = World::start().await;
    let node = world.node("one").await;
    let key = EcdsaKey::generate().unwrap();
    let life = NodeLife::from_millis(identity::limits::NODE_LIFE_MIN_MS).unwrap();
    let begun = vocabulary::UnixTime::from_millis(clock::now().millis() - identity::limits::BACKDATE_MS + 3_000);
    let short = world.control().certifying().node_authority.issue_node(node.id, &request_of(&key), life, begun, &mut SystemRandom).unwrap();
    let node = super::support::Node { http: node_client(&world, short.chain, &key), ..node };
    let mut plans = node.follow(0).await;
    plans.next(&world).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(8), plans.line()).await.expect("the connection ends by itself");
    assert!(ended.is_none());
    assert!(clock::now() >= short.not_after);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_comes_once_and_only_when_it_changes() {
    let world = World::start().await;
    let node = world.node("one").await;
    let mut plans = node.follow(0).await;
    let first = plans.next(&world).await.unwrap();
    assert_eq!((first.node, first.deployment, first.revision), (node.id, world.control().deployment, 1));
    assert!(first.jobs.is_empty());
    // Whoever has it is sent nothing until there is something new.
    let mut known = node.follow(first.revision).await;
    assert!(tokio::time::timeout(Duration::from_millis(1500), known.line()).await.is_err());
    let world = world.again().await;
    let mut node = node;
    node.moved_to(&world);
    let after = node.follow(0).await.next(&world).await.unwrap();
    assert_eq!(after, first, "a restart makes no new plan");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_acted_for_by_its_own_node_only() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let mut mine = world.node("mine").await;
    mine.report(Vec::new()).await.unwrap();
    let job = submitted(&world, &tenant, |_| {}).await;
    let attempt = placed(&world, &mine, job).await;
    let other = world.node("other").await;

    let call = async |node: &super::support::Node, job: JobId, number: u32| {
        let certificates = certificate_of(&world, node).await;
        let peer = world.control().gate.verifier().verify(&certificates, identity::Class::Node, clock::now()).unwrap();
        let path = channel::LOGS.replace("{job}", &job.to_string()).replace("{attempt}", &number.to_string());
        let (mut parts, ()) = http::Request::post(path).body(()).unwrap().into_parts();
        parts.extensions.insert(Connection { remote: "127.0.0.1:1".parse().unwrap(), peer: Some(Arc::new(peer)), activity: None });
        NodeCall::<AttemptLogs>::new(Arc::clone(world.control()), &parts, channel::LOGS).await.unwrap()
    };
    let good = call(&mine, job, 1).await;
    let found = good.attempt(Liveness::Alive).await.unwrap();
    assert_eq!((found.id, found.tenant.tenant), (attempt, tenant.id));
    good.permit(found.resource()).await.unwrap().spend();
    // The rules refuse as well, should a route forget to ask for the attempt.
    let stolen = call(&other, job, 1).await;
    assert_eq!(stolen.permit(found.resource()).await.unwrap_err().problem.code, ErrorCode::NotFound);
    for (node, job, number) in [(&other, job, 1), (&mine, job, 2), (&mine, JobId::from_bytes([9; 16]), 1)] {
        let refused = call(node, job, number).await.attempt(Liveness::Placed).await.unwrap_err();
        assert_eq!(refused.problem.code, ErrorCode::NotFound);
        assert!(refused.problem.audit_index.is_some());
    }
    // Foreign ones are the tenant's to know, absent ones the platform's.
    let told = world.entries_of(tenant.id, "refused").await;
    assert_eq!(told.iter().filter(|event| event["resource"] == job.to_string()).count(), 3);
    assert_eq!(world.entries_of(SYSTEM_OWNER, "refused").await.len(), 1);

    // When its lease is over it may say its last words, and no more.
    world.control().change_job(tenant.id, job, clock::now(), |row| {
        row.attempts[0].run_lease_until = vocabulary::UnixTime::from_millis(clock::now().millis() - 1);
        Ok(Some(Vec::new()))
    }).await.unwrap();
    let late = call(&mine, job, 1).await;
    assert_eq!(late.attempt(Liveness::Alive).await.unwrap_err().problem.code, ErrorCode::ReleaseRefused);
    assert_eq!(late.attempt(Liveness::LastWords).await.unwrap().attempt.report.state, JobState::Pending);
    world.server.stop().await;
}

async fn certificate_of(world: &World, node: &super::support::Node) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    let rows = world.control().store.list_link(SYSTEM_OWNER, store::Kind::CERTIFICATE, node.id, store::Page::first(1)).await.unwrap();
    let row: crate::row::CertificateRow = rows.items[0].parse().unwrap();
    identity::chain_from_wire(&row.chain).unwrap()
}

#[test]
fn every_route_of_the_channel_names_an_action_of_nodes() {
    let routes = node_routes();
    for path in [channel::PLAN, channel::REPORT, channel::CERTIFICATE] {
        assert!(routes.iter().any(|route| route.path == path), "{path}");
    }
    for route in routes {
        let crate::Access::Action(action) = route.access else { panic!("{} is public", route.path) };
        let info = policy::ActionInfo::named(action).unwrap();
        assert_eq!(info.principals, [policy::EntityKind::Node], "{}", route.path);
        assert!(!route.step_up);
    }
}
