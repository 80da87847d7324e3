//! Years pass: everything that a deployment certifies with is renewed before it ends, once, and what was signed before holds.

use std::sync::Arc;

use identity::{CertificateRequest, Class, EcdsaKey, NodeLife, RootCertificate, ServerName, make_request, verify_chain_at, verify_deployment_file};
use keys::{KeyState, Purpose, SystemRandom};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use vocabulary::plan::PLAN_CONTEXT;
use vocabulary::{NodeId, SYSTEM_OWNER, UnixTime};

use super::support::{World, client, clock_of_handshakes};
use crate::clock;
use crate::face::Face;
use crate::renewal::certify;
use crate::state::Control;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// A node's certificate of this moment.
fn issue(control: &Control, now: UnixTime) -> Result<Vec<CertificateDer<'static>>, identity::certificate::IssueError> {
    let key = EcdsaKey::generate().unwrap();
    let request = CertificateRequest::check(&make_request(&key).unwrap()).unwrap();
    let authority = control.certifying();
    authority.node_authority.issue_node(NodeId::from_bytes([7; 16]), &request, NodeLife::default(), now, &mut SystemRandom).map(|issued| issued.chain)
}

fn names() -> Vec<ServerName> {
    vec!["127.0.0.1".parse().unwrap()]
}

fn root(control: &Control) -> &RootCertificate {
    control.gate.verifier().root()
}

/// How many certificates were issued to somebody, by the log.
async fn issued(world: &World, whom: &str) -> usize {
    let all = world.entries_of(SYSTEM_OWNER, "certificate_issued").await;
    all.iter().filter(|event| event["subject"].as_str().is_some_and(|subject| subject.starts_with(whom))).count()
}

/// The inventory of keys is a table of another room: what it promises is what the lives of certificates make.
#[test]
fn the_inventory_says_when_keys_are_renewed() {
    assert_eq!(keys::lifecycle::ISSUING_CA_AGE_MS / DAY, identity::limits::ISSUING_LIFE_MS / 2 / DAY);
    assert_eq!(keys::lifecycle::RECEIPT_KEY_AGE_MS, identity::limits::RECEIPT_LIFE_MS / 3 * 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_pass() {
    let world = World::start().await;
    let (control, folder) = (world.control(), tempfile::tempdir().unwrap());
    let (start, pin) = (clock::now(), *world.server.pin());
    let first = control.certifying();
    for day in (0..3_650).step_by(10) {
        let now = start.plus_millis(day * DAY);
        certify(control, now).await.unwrap();
        let later = now.plus_millis(2 * HOUR);
        certify(control, later).await.unwrap();
        let at = format!("day {day}");
        let certifying = control.certifying();
        let chain = issue(control, later).expect(&at);
        verify_chain_at(root(control), &chain, Class::Node, later).expect(&at);
        let file = verify_deployment_file(certifying.file.as_bytes(), &pin).expect(&at);
        let key = certifying.receipt_key.public().unwrap();
        assert!(file.receipt_key_at(&key, later).is_some(), "{at}");
        assert!(file.receipt_key_at(&first.receipt_key.public().unwrap(), start).is_some(), "{at}: what the first key signed verifies");
        if day % 365 == 0 {
            let face = Face::make(control, names(), folder.path().to_owned(), later).await.expect(&at);
            assert!(face.ends() > later, "{at}");
        }
    }
    // No authority's or receipt key's private key outlives its use.
    let own = control.all_keys(SYSTEM_OWNER).await.unwrap();
    let of = |purpose, state| own.iter().filter(|key| key.record.purpose == purpose && key.record.state == state).count();
    assert_eq!(of(Purpose::IssuingCa, KeyState::Active), 2);
    assert_eq!(of(Purpose::ReceiptKey, KeyState::Active), 1);
    assert!(of(Purpose::ReceiptKey, KeyState::Destroyed) > 50);
    assert!(own.iter().all(|key| key.record.state != KeyState::Destroyed || key.record.wrapped.is_none()));
    // With the root everything ends: nothing is issued that nobody could verify, and nothing is tried every minute.
    let after = start.plus_millis(3_651 * DAY);
    let revision = control.certifying().revision;
    certify(control, after).await.unwrap();
    assert_eq!(control.certifying().revision, revision);
    assert!(issue(control, after).is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_key_is_announced_before_it_signs() {
    let world = World::start().await;
    let control = world.control();
    let (start, pin) = (clock::now(), *world.server.pin());
    let known = |file: &str| verify_deployment_file(file.as_bytes(), &pin).unwrap().receipt_keys().iter().map(|key| key.key).collect::<Vec<_>>();
    let before = control.certifying();
    certify(control, start.plus_millis(59 * DAY)).await.unwrap();
    assert_eq!(control.certifying().revision, before.revision, "nothing is due");
    let due = start.plus_millis(61 * DAY);
    certify(control, due).await.unwrap();
    let announced = control.certifying();
    let old = before.receipt_key.public().unwrap();
    assert_eq!(announced.receipt_key.public().unwrap(), old);
    assert_eq!(known(&announced.file).len(), 2);
    certify(control, due.plus_millis(HOUR - 1)).await.unwrap();
    assert_eq!(control.certifying().revision, announced.revision);
    certify(control, due.plus_millis(HOUR)).await.unwrap();
    let used = control.certifying();
    assert_eq!(known(&used.file), known(&announced.file));
    assert_ne!(used.receipt_key.public().unwrap(), old);
    assert!(known(&used.file).contains(&used.receipt_key.public().unwrap()));
    // What the row says opens the same key for the next process.
    let (revision, row) = crate::deployment::stored(&control.store).await.unwrap().unwrap();
    let next = crate::deployment::Certifying::open(&control.store, &control.vault, root(control), &row, revision).await.unwrap();
    assert_eq!(next.receipt_key.public().unwrap(), used.receipt_key.public().unwrap());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_too_long_begins_anew() {
    let world = World::start().await;
    let control = world.control();
    let (start, folder) = (clock::now(), tempfile::tempdir().unwrap());
    let later = start.plus_millis(400 * DAY);
    assert!(issue(control, later).is_err(), "the authority has ended");
    assert!(Face::make(control, names(), folder.path().to_owned(), later).await.is_err());
    certify(control, later).await.unwrap();
    issue(control, later).unwrap();
    Face::make(control, names(), folder.path().to_owned(), later).await.unwrap();
    let certifying = control.certifying();
    let file = verify_deployment_file(certifying.file.as_bytes(), world.server.pin()).unwrap();
    assert!(file.receipt_key_at(&certifying.receipt_key.public().unwrap(), later).is_some(), "no announcement is waited for");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_renew_one_does() {
    let world = World::start().await;
    let (control, now) = (world.control(), clock::now().plus_millis(200 * DAY));
    let rounds = (0..8).map(|_| certify(control, now));
    for done in futures::future::join_all(rounds).await {
        done.unwrap();
    }
    assert_eq!(issued(&world, "issuing authority for node").await, 1);
    assert_eq!(issued(&world, "issuing authority for control").await, 1);
    let (revision, row) = crate::deployment::stored(&control.store).await.unwrap().unwrap();
    assert_eq!(control.certifying().revision, revision);
    assert!(row.authority(&control.store, &control.vault, Class::Node).await.unwrap().not_after() > now.plus_millis(300 * DAY));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_stand_are_signed_again() {
    let world = World::start().await;
    let (control, node) = (world.control(), world.node("one").await);
    let plan = node.plan_where(&world, |_| true).await;
    let due = clock::now().plus_millis(61 * DAY);
    certify(control, due).await.unwrap();
    certify(control, due.plus_millis(HOUR)).await.unwrap();
    let again = node.plan_where(&world, |found| found.revision > plan.revision).await;
    assert_eq!((again.jobs, again.revocations, again.revision), (plan.jobs, plan.revocations, plan.revision + 1));
    let signed = control.fleet.current_plan(node.id).unwrap().signed.clone();
    let [payload, signature] = [&signed.payload, &signed.signature].map(|text| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap());
    control.certifying().receipt_key.public().unwrap().verify(PLAN_CONTEXT, &payload, &signature).unwrap();
    // A process that knows less does not sign what one that knows more has signed.
    assert!(!control.certifying().signed_before(&signed));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_changes_under_a_listener() {
    let world = World::start().await;
    let (control, start, folder) = (world.control(), clock::now(), tempfile::tempdir().unwrap());
    let mut face = Face::make(control, names(), folder.path().to_owned(), start).await.unwrap();
    let first = face.people().borrow().clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, stop) = (format!("https://{}/", listener.local_addr().unwrap()), CancellationToken::new());
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(crate::api::listener::serve(listener, face.people(), router, crate::api::listener::Door::Sealed, stop.clone()));
    let person = || {
        let trust = identity::tls::Trust::Pin(*world.server.pin());
        client(identity::tls::cli_client_config(trust, identity::tls::KeyExchange::default(), clock_of_handshakes()).unwrap())
    };
    let (old, ask) = (person(), async |who: &reqwest::Client| who.get(&url).send().await.unwrap().text().await.unwrap());
    assert_eq!(ask(&old).await, "here");
    face.renew(control, start.plus_millis(4 * DAY)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &face.people().borrow()), "nothing is due");
    // What clients of today still take: the next one begins with the moment at which it is made.
    let ends = face.ends();
    face.renew(control, start.plus_millis(5 * DAY)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &face.people().borrow()) && face.ends() > ends);
    assert_eq!(ask(&old).await, "here", "a connection that stands goes on");
    // A client of today does not take the certificate of a day to come: it is shown that one, and no other.
    assert!(person().get(&url).send().await.is_err());
    assert_eq!(issued(&world, &format!("spiffe://{}", control.deployment)).await, 3, "the server's own, and the two of this test");
    stop.cancel();
    serving.join_all().await;
    world.server.stop().await;
}
