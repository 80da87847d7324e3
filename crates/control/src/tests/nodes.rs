//! Nodes join once, renew, are drained, and are revoked for good.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Token, TokenKind, chain_from_wire};
use keys::SystemRandom;
use store::{Mutation, Transaction};
use vocabulary::api::{Done, Node as NodeInfo, NodeRenewed, Page};
use vocabulary::plan::Desired;
use vocabulary::{ErrorCode, SYSTEM_OWNER, UnixTime, channel};

use super::support::{Node, NodeKeys, World, answer, facts, node_client};
use crate::operation::login::token_row;
use crate::row::JoinScope;
use crate::{LocalNode, clock};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_one_node_in_once() {
    let world = World::start().await;
    let token = world.invite("one", "eu-central").await;
    assert_eq!(token.ca_pin, world.server.pin().to_string());
    let keys = NodeKeys::draw();

    // What is wrong with the request leaves the token unspent.
    let mut forged = keys.request(&token.token);
    forged.record_proof = STANDARD.encode([0; 64]);
    assert_eq!(world.enrol(&forged).await.unwrap_err().code, ErrorCode::InvalidRequest);
    let mut loud = keys.request(&token.token);
    loud.facts.hostname = "\u{1b}[31m".into();
    assert_eq!(world.enrol(&loud).await.unwrap_err().code, ErrorCode::InvalidRequest);

    let joined = world.enrol(&keys.request(&token.token)).await.unwrap();
    assert_eq!(joined.name.as_str(), "one");
    let again = world.enrol(&NodeKeys::draw().request(&token.token)).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::TicketRefused);
    assert!(again.audit_index.is_none(), "strangers are told no index");

    let entries = world.entries(SYSTEM_OWNER).await;
    // The server's own certificate is none of a node's.
    let of_node = |event: &serde_json::Value| event["kind"] != "certificate_issued" || !event["node"].is_null();
    let count = |kind: &str| entries.iter().filter(|(found, event)| found == kind && of_node(event)).count();
    assert_eq!((count("node_enrolled"), count("certificate_issued"), count("token_spent")), (1, 1, 1));
    let enrolled = &entries.iter().find(|(kind, _)| kind == "node_enrolled").unwrap().1;
    assert_eq!(enrolled["record_key"], keys.record.public().unwrap().to_base64());
    assert_eq!(enrolled["place"]["region"], "eu-central");
    let leaf = chain_from_wire(&joined.chain).unwrap().remove(0);
    let digest = vocabulary::Sha256Digest::from_bytes(audit::hash::sha256(&[&leaf]));
    assert_eq!(enrolled["certificate"], digest.to_string());

    // The name is taken now, also for the invitation of another.
    let request = serde_json::json!({"name": "one", "place": {"region": "eu-west", "jurisdiction": "EU"}, "lifetime_s": 60});
    let operator = world.operator().await;
    let taken = world.post::<serde_json::Value>("/v1/join-tokens", &operator, &request).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::NameTaken);
    for (lifetime, name) in [(59, "two"), (3601, "two")] {
        let request = serde_json::json!({"name": name, "place": {"region": "eu-west", "jurisdiction": "EU"}, "lifetime_s": lifetime});
        assert_eq!(world.post::<serde_json::Value>("/v1/join-tokens", &operator, &request).await.unwrap_err().code, ErrorCode::InvalidRequest);
    }
    let tenant = world.tenant("acme").await;
    let request = serde_json::json!({"name": "two", "place": {"region": "eu-west", "jurisdiction": "EU"}, "lifetime_s": 60});
    let refused = world.post::<serde_json::Value>("/v1/join-tokens", &tenant.token, &request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_one_token_are_one_node() {
    let world = World::start().await;
    let token = world.invite("one", "eu-central").await;
    let requests: Vec<_> = (0..4).map(|_| NodeKeys::draw().request(&token.token)).collect();
    let answers = futures::future::join_all(requests.iter().map(|request| world.enrol(request))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code, ErrorCode::TicketRefused);
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_ended_and_guessed_tokens_let_nobody_in() {
    let world = World::start().await;
    let control = world.control();
    let now = clock::now();
    let place = vocabulary::plan::NodePlace { region: "eu-west".parse().unwrap(), jurisdiction: "EU".parse().unwrap(), labels: Default::default() };
    let scope = serde_json::to_string(&JoinScope { name: "late".parse().unwrap(), place, provider: None }).unwrap();
    let token = |kind| Token::draw(kind, &mut SystemRandom);
    let (late, login, unknown) = (token(TokenKind::Join), token(TokenKind::Session), token(TokenKind::Join));
    let past = UnixTime::from_millis(now.millis() - 1);
    let rows = [
        token_row(control, &late, SYSTEM_OWNER, None, &scope, UnixTime::from_millis(now.millis() - 700_000), past, 0, None).unwrap(),
        token_row(control, &login, SYSTEM_OWNER, None, &scope, now, now.plus_millis(60_000), 0, None).unwrap(),
    ];
    let transaction = rows.into_iter().fold(Transaction::new(), |transaction, row| transaction.with(Mutation::PutToken(row)));
    control.store.commit(transaction, now).await.unwrap();
    for token in [late.reveal().to_string(), login.reveal().to_string(), unknown.reveal().to_string(), "swm_join_nonsense".to_owned(), String::new()] {
        let refused = world.enrol(&NodeKeys::draw().request(&token)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::TicketRefused, "{}", refused.detail);
    }
    assert!(world.entries_of(SYSTEM_OWNER, "node_enrolled").await.is_empty());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_renews_its_own_certificate_with_a_new_key() {
    let world = World::start().await;
    let node = world.node("one").await;
    let fresh = NodeKeys::draw();
    let url = format!("{}{}", node.base, channel::CERTIFICATE);
    let renewed: NodeRenewed =
        answer(node.http.post(&url).json(&serde_json::json!({"csr": fresh.csr()})).send().await.unwrap()).await.unwrap();
    let chain = chain_from_wire(&renewed.chain).unwrap();
    let peer = world.control().gate.verifier().verify(&chain, identity::Class::Node, clock::now()).unwrap();
    assert_eq!(peer.id.subject, identity::Subject::Node(node.id), "whose it is comes from the certificate that was shown");
    let http = node_client(&world, chain, &fresh.key);
    let mut same = Node { http, ..node };
    same.report(Vec::new()).await.unwrap();
    let issued = world.entries_of(SYSTEM_OWNER, "certificate_issued").await;
    assert_eq!(issued.iter().filter(|event| event["node"] == node.id.to_string()).count(), 2);
    let refused = same.http.post(&url).json(&serde_json::json!({"csr": "AAAA"})).send().await.unwrap();
    assert_eq!(answer::<NodeRenewed>(refused).await.unwrap_err().code, ErrorCode::InvalidRequest);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_drain_and_revoke() {
    let world = World::start().await;
    let operator = world.operator().await;
    let mut node = world.node("one").await;
    let mut other = world.node("two").await;
    let show = |id| format!("/v1/nodes/{id}");
    let info: NodeInfo = world.get(&show(node.id), &operator).await.unwrap();
    assert_eq!((info.state.as_str(), info.last_seen), ("lost", None), "it has not reported yet");
    node.report(Vec::new()).await.unwrap();
    other.report(Vec::new()).await.unwrap();
    let listed: Page<NodeInfo> = world.get("/v1/nodes", &operator).await.unwrap();
    assert_eq!(listed.items.iter().map(|node| node.state.as_str()).collect::<Vec<_>>(), ["alive", "alive"]);
    assert_eq!(listed.items[0].facts, Some(facts()));

    let drain = async |body: serde_json::Value| world.post::<Done>(&format!("/v1/nodes/{}/drain", node.id), &operator, &body).await;
    let far = drain(serde_json::json!({"deadline_s": 604_801})).await.unwrap_err();
    assert!(far.code == ErrorCode::InvalidRequest && far.detail.contains("deadline_s"), "{}", far.detail);
    drain(serde_json::json!({})).await.unwrap();
    assert_eq!(world.get::<NodeInfo>(&show(node.id), &operator).await.unwrap().state, "draining");
    world.act::<Done>(&format!("/v1/nodes/{}/resume", node.id), &operator).await.unwrap();
    assert_eq!(world.get::<NodeInfo>(&show(node.id), &operator).await.unwrap().state, "alive");

    // A tenant's administrator steers no nodes.
    let tenant = world.tenant("acme").await;
    for path in ["/v1/nodes".to_owned(), show(node.id)] {
        assert_eq!(world.get::<serde_json::Value>(&path, &tenant.token).await.unwrap_err().code, ErrorCode::Forbidden);
    }

    let mut plans = node.follow(0).await;
    plans.next(&world).await.unwrap();
    let revoke = format!("/v1/nodes/{}/revoke", node.id);
    assert_eq!(world.act::<Done>(&revoke, &operator).await.unwrap_err().code, ErrorCode::StepUpRequired);
    node.report(Vec::new()).await.unwrap();
    world.act_confirmed::<Done>(&revoke, &operator).await.unwrap();
    // The living connection is closed at once, and no new one is opened.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), plans.line()).await.expect("the connection is closed");
    assert!(ended.is_none());
    assert!(node.http.post(format!("{}{}", node.base, channel::REPORT)).json(&serde_json::json!({})).send().await.is_err());
    assert_eq!(world.get::<NodeInfo>(&show(node.id), &operator).await.unwrap().state, "revoked");
    assert_eq!(world.act::<Done>(&format!("/v1/nodes/{}/resume", node.id), &operator).await.unwrap_err().code, ErrorCode::WrongState);
    // Every other node is told by its plan.
    let plan = other.plan_where(&world, |plan| plan.revocations.nodes == [node.id]).await;
    assert!(plan.jobs.iter().all(|job| job.desired == Desired::Run));
    other.report(Vec::new()).await.unwrap();

    // It stays revoked after a restart.
    let world = world.again().await;
    node.moved_to(&world);
    assert!(node.http.get(format!("{}{}", node.base, channel::PLAN)).send().await.is_err());
    other.moved_to(&world);
    other.report(Vec::new()).await.unwrap();
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_node_finds_its_token_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("join-token");
    let world = World::start_in(dir, Some(LocalNode::new(file.clone()).unwrap())).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(world.entries_of(SYSTEM_OWNER, "token_issued").await.len(), 1);
    let joined = world.enrol(&NodeKeys::draw().request(token.trim())).await.unwrap();
    assert_eq!((joined.name.as_str(), joined.place.region.as_str(), joined.place.jurisdiction.as_str()), ("local", "local", "LOCAL"));
    std::fs::remove_file(&file).unwrap();
    world.server.stop().await;
    let world = World::start_in(world.dir, Some(LocalNode::new(file.clone()).unwrap())).await;
    assert!(!file.exists(), "a deployment that has a node makes no token");
    world.server.stop().await;
}
