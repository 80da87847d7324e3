//! Witnesses: nodes and others sign the log, the quorum settles it, liars stop nothing, and an older database publishes nothing.
#![expect(clippy::disallowed_methods, reason = "a witness lives beside the test until the test aborts it or ends")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use audit::key::{Ed25519Signer, KeyKind, VerifierKey, verifier_of};
use audit::note::Note;
use audit::witness::{KnownLogs, Seen, StateError, WitnessState as Remember, add_checkpoint, monitored, origin_hash};
use audit::{LogSigner as _, WitnessPolicy};
use reqwest::Method;
use store::{Mutation, Transaction};
use tokio::task::JoinHandle;
use vocabulary::api::Done;
use vocabulary::witness::{WitnessAnswer, WitnessOffer, WitnessPoll, WitnessState};
use vocabulary::{ErrorCode, Problem, SYSTEM_OWNER, channel};

use super::support::{Node, World, answer, until};
use crate::clock;
use crate::witness::Guard;

/// A witness's memory that outlives its connection, as a disk does.
#[derive(Default)]
struct Memory(BTreeMap<String, Seen>);

impl Remember for Memory {
    fn last(&self, origin: &str) -> Result<Option<Seen>, StateError> {
        Ok(self.0.get(origin).cloned())
    }
    fn advance(&mut self, _: Option<&Seen>, next: &Seen) -> Result<(), StateError> {
        self.0.insert(next.checkpoint.origin.clone(), next.clone());
        Ok(())
    }
}

/// How a witness behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    /// It says that it signed far more, and shows nothing.
    Boasts,
    /// It says so, and shows a checkpoint that the log never signed.
    Forges,
    /// It answers with a signature of another key.
    SignsBadly,
}

struct Signs {
    signer: Ed25519Signer,
    logs: KnownLogs,
    memory: Mutex<Memory>,
    manner: Manner,
}

impl Signs {
    fn new(world: &World, name: &str, seed: u8, manner: Manner) -> Arc<Self> {
        let mut logs = KnownLogs::default();
        logs.add(verifier_of(&world.control().log, KeyKind::Ed25519).unwrap(), None).unwrap();
        Arc::new(Self { signer: Ed25519Signer::from_seed(name, &[seed; 32]).unwrap(), logs, memory: Mutex::default(), manner })
    }
    fn key(&self) -> VerifierKey {
        verifier_of(&self.signer, KeyKind::CosignatureV1).unwrap()
    }
    fn signed_size(&self) -> u64 {
        self.memory.lock().unwrap().0.values().next().map_or(0, |seen| seen.checkpoint.size)
    }
    /// Status, body, and what a monitor is shown.
    fn answer(&self, request: &[u8]) -> (u16, String, Option<String>) {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let memory = &mut *self.memory.lock().unwrap();
        match self.manner {
            Manner::Honest => {
                let answered = add_checkpoint(request, &self.logs, memory, &self.signer, clock::now().seconds()).answer;
                let shown = monitored(&origin_hash(&self.logs.all()[0].origin), &self.logs, memory);
                (answered.status, text(answered.body), (shown.status == 200).then(|| text(shown.body)))
            }
            Manner::Boasts => (409, "99999999\n".to_owned(), None),
            Manner::Forges => {
                let origin = &self.logs.all()[0].origin;
                let forger = Ed25519Signer::from_seed(origin, &[66; 32]).unwrap();
                let checkpoint = audit::Checkpoint { origin: origin.clone(), size: 99_999_999, root: audit::Hash::from_bytes([1; 32]) };
                (409, "99999999\n".to_owned(), Some(text(checkpoint.sign(&forger).unwrap().encode())))
            }
            Manner::SignsBadly => {
                let other = Ed25519Signer::from_seed(self.signer.name(), &[67; 32]).unwrap();
                let answered = add_checkpoint(request, &self.logs, &mut Memory::default(), &other, clock::now().seconds()).answer;
                (answered.status, text(answered.body), None)
            }
        }
    }
}

/// The name that a node's witness has.
fn name_of(world: &World, node: &Node) -> String {
    format!("swarm.invalid/{}/witness/{}", world.control().deployment, node.id)
}

async fn poll(node: &Node, poll: &WitnessPoll) -> Result<WitnessOffer, Problem> {
    answer(node.http.post(format!("{}{}", node.base, channel::WITNESS)).json(poll).send().await.unwrap()).await
}

/// Witnesses over a node's channel until it is aborted.
fn over_channel(node: &Node, signs: &Arc<Signs>) -> JoinHandle<()> {
    let node = Node { id: node.id, http: node.http.clone(), base: node.base.clone(), sequence: 0 };
    let signs = Arc::clone(signs);
    tokio::spawn(async move {
        let mut answered = None;
        loop {
            let next = WitnessPoll { key: signs.key().to_string(), answered: answered.take() };
            let request = match node.http.post(format!("{}{}", node.base, channel::WITNESS)).json(&next).send().await {
                Ok(response) => answer::<WitnessOffer>(response).await.unwrap().request,
                // The server was stopped.
                Err(_) => return,
            };
            answered = request.map(|request| {
                let (status, body, monitored) = signs.answer(request.body.as_bytes());
                WitnessAnswer { offer: request.offer, status, body, monitored }
            });
        }
    })
}

/// Witnesses over HTTP, as a stranger does. Returns its address.
async fn over_http(signs: &Arc<Signs>) -> (String, JoinHandle<()>) {
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/prefix", listener.local_addr().unwrap());
    let add = |State(signs): State<Arc<Signs>>, body: axum::body::Bytes| async move {
        let (status, body, _) = signs.answer(&body);
        (StatusCode::from_u16(status).unwrap(), body)
    };
    let show = |State(signs): State<Arc<Signs>>, Path(hash): Path<String>| async move {
        let shown = monitored(&hash, &signs.logs, &*signs.memory.lock().unwrap());
        (StatusCode::from_u16(shown.status).unwrap(), shown.body)
    };
    let router = axum::Router::new()
        .route("/prefix/add-checkpoint", axum::routing::post(add))
        .route("/prefix/{hash}/checkpoint", axum::routing::get(show))
        .with_state(Arc::clone(signs));
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

fn policy_text(world: &World, witnesses: &[(&VerifierKey, String)], quorum: &str) -> String {
    let mut text = format!("log {}\n", verifier_of(&world.control().log, KeyKind::Ed25519).unwrap());
    for ((key, url), number) in witnesses.iter().zip(1..) {
        text.push_str(&format!("witness w{number} {key} {url}\n"));
    }
    let members: String = (1..=witnesses.len()).map(|number| format!(" w{number}")).collect();
    if !members.is_empty() {
        text.push_str(&format!("group two 2{members}\n"));
    }
    format!("{text}quorum {quorum}\n")
}

/// Sets a policy as an operator does, with a confirmation.
async fn set_policy(world: &World, text: &str) -> Result<Done, Problem> {
    let (path, operator) = ("/v1/log/witness-policy", world.operator().await);
    let body = serde_json::json!({ "policy": text });
    let problem = match world.send::<Done>(Method::PUT, path, Some(&operator), Some(body.clone()), &[]).await {
        Err(problem) if problem.step_up.is_some() => problem,
        other => return other,
    };
    let id = problem.step_up.unwrap().id;
    let (store, now) = (&world.control().store, clock::now());
    let row = store.step_up(SYSTEM_OWNER, id).await.unwrap().unwrap();
    let verify = Mutation::VerifyStepUp { tenant: SYSTEM_OWNER, id, principal: row.principal, acr: 1 };
    store.commit(Transaction::new().with(verify), now).await.unwrap();
    world.send(Method::PUT, path, Some(&operator), Some(body), &[("swarm-step-up", &id.to_string())]).await
}

async fn state(world: &World) -> WitnessState {
    world.get("/v1/witnesses", &world.operator().await).await.unwrap()
}

async fn published(world: &World) -> u64 {
    world.control().store.publisher().await.unwrap().map_or(0, |publisher| publisher.size)
}

/// The size of the checkpoint under which proofs are made, verified by its own policy.
async fn settled(world: &World, policy: &str) -> u64 {
    let Some(base) = world.control().proof_base().await.unwrap() else { return 0 };
    let policy = WitnessPolicy::parse(policy.as_bytes()).unwrap();
    let (checkpoint, judged) = policy.verify(&Note::parse(&base.checkpoint).unwrap()).unwrap();
    assert!(judged.satisfied || base.quorum_none);
    assert_eq!(checkpoint.size, base.size);
    base.size
}

/// Waits until the quorum signed all that is published.
async fn all_settled(world: &World, policy: &str) {
    until("the quorum's signature", async || {
        let size = published(world).await;
        size > 0 && size == world.control().store.entry_count().await.unwrap() && settled(world, policy).await == size
    })
    .await;
}

/// A world with three witnesses: two nodes and a stranger; two must have signed.
async fn witnessed(manners: [Manner; 3]) -> (World, Vec<Node>, Vec<Arc<Signs>>, Vec<JoinHandle<()>>, String) {
    let world = World::start().await;
    let nodes = vec![world.node("one").await, world.node("two").await];
    let mut signs: Vec<Arc<Signs>> =
        nodes.iter().zip(1..).map(|(node, seed)| Signs::new(&world, &name_of(&world, node), seed, manners[usize::from(seed) - 1])).collect();
    signs.push(Signs::new(&world, "witness.example/stranger", 3, manners[2]));
    let (address, serving) = over_http(&signs[2]).await;
    let mut tasks: Vec<JoinHandle<()>> = nodes.iter().zip(&signs).map(|(node, signs)| over_channel(node, signs)).collect();
    tasks.push(serving);
    let keys: Vec<VerifierKey> = signs.iter().map(|signs| signs.key()).collect();
    let urls = [format!("node:{}", nodes[0].id), format!("node:{}", nodes[1].id), address];
    let witnesses: Vec<(&VerifierKey, String)> = keys.iter().zip(urls).collect();
    let policy = policy_text(&world, &witnesses, "two");
    set_policy(&world, &policy).await.unwrap();
    (world, nodes, signs, tasks, policy)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_a_stranger_sign_and_the_quorum_settles_the_log() {
    let (world, _nodes, signs, tasks, policy) = witnessed([Manner::Honest; 3]).await;
    all_settled(&world, &policy).await;
    until("all three", async || {
        let size = published(&world).await;
        signs.iter().all(|signs| signs.signed_size() == size) && size == world.control().store.entry_count().await.unwrap()
    })
    .await;
    let shown = state(&world).await;
    assert_eq!((shown.witnesses.len(), shown.publishing.as_str()), (3, "open"));
    assert!(shown.witnesses.iter().all(|one| one.in_policy && one.said.as_deref() == Some("signed")), "{shown:?}");
    assert_eq!(shown.quorum, "2 of 3 of `two` must have signed");
    // One goes: the other two settle all the same. Two go: what comes then is published, and settled by nobody.
    tasks[0].abort();
    world.tenant("acme").await;
    all_settled(&world, &policy).await;
    tasks[2].abort();
    let before = settled(&world, &policy).await;
    world.tenant("beta").await;
    until("the log goes on", async || published(&world).await == world.control().store.entry_count().await.unwrap()).await;
    assert!(published(&world).await > before);
    assert_eq!(settled(&world, &policy).await, before, "one alone settles nothing");
    let kinds: Vec<String> = world.entries(SYSTEM_OWNER).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "node_witness_offered").count(), 2);
    assert_eq!(kinds.iter().filter(|kind| *kind == "witness_policy_changed").count(), 1);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_count_nothing_and_stop_nothing() {
    for liar in [Manner::Boasts, Manner::Forges, Manner::SignsBadly] {
        let (world, _nodes, signs, _tasks, policy) = witnessed([Manner::Honest, liar, Manner::Honest]).await;
        all_settled(&world, &policy).await;
        until("the liar was heard", async || state(&world).await.witnesses.iter().any(|one| one.key == signs[1].key().to_string() && one.said.is_some())).await;
        assert_eq!(world.control().witnesses.guard(), Guard::Open, "{liar:?}");
        let told = state(&world).await.witnesses.into_iter().find(|one| one.key == signs[1].key().to_string()).unwrap();
        assert!(told.signed_size.is_none() && told.said.as_deref() != Some("signed"), "{liar:?}: {told:?}");
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_checked_before_it_is_in_force() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let key = Ed25519Signer::from_seed("witness.example/a", &[1; 32]).unwrap();
    let key = verifier_of(&key, KeyKind::CosignatureV1).unwrap();
    let good = policy_text(&world, &[], "none");
    let many: Vec<VerifierKey> = (0..15_u8)
        .map(|seed| verifier_of(&Ed25519Signer::from_seed("witness.example/a", &[100 + seed; 32]).unwrap(), KeyKind::CosignatureV1).unwrap())
        .collect();
    let many: Vec<(&VerifierKey, String)> = many.iter().map(|key| (key, "http://w.example".to_owned())).collect();
    let foreign = Ed25519Signer::from_seed("swarm.example/other", &[9; 32]).unwrap();
    for (text, why) in [
        ("quorum none\n".to_owned(), "exactly one log"),
        (format!("log {}\nquorum none\n", verifier_of(&foreign, KeyKind::Ed25519).unwrap()), "exactly one log"),
        (policy_text(&world, &[(&key, String::new())], "w1").replace("group two 2 w1\n", ""), "behind its key"),
        (policy_text(&world, &[(&key, "ftp://w.example".to_owned())], "w1").replace("group two 2 w1\n", ""), "behind its key"),
        (policy_text(&world, &many, "two"), "at most 14 witnesses"),
        ("nonsense\n".to_owned(), "line 1"),
    ] {
        let problem = set_policy(&world, &text).await.unwrap_err();
        assert!(problem.code == ErrorCode::InvalidRequest && problem.detail.contains(why), "{text}: {}", problem.detail);
    }
    let body = serde_json::json!({ "policy": good });
    let refused = world.send::<Done>(Method::PUT, "/v1/log/witness-policy", Some(&tenant.token), Some(body), &[]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    assert!(state(&world).await.policy.is_none());
    set_policy(&world, &good).await.unwrap();
    assert!(state(&world).await.policy.is_some());
    // Another replaces it.
    set_policy(&world, &good).await.unwrap();
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_offers_its_own_key_and_brings_bounded_answers() {
    let world = World::start().await;
    let node = world.node("one").await;
    let good = Signs::new(&world, &name_of(&world, &node), 1, Manner::Honest).key();
    let other = Signs::new(&world, "swarm.invalid/other/witness", 1, Manner::Honest).key();
    let log = verifier_of(&Ed25519Signer::from_seed(&name_of(&world, &node), &[1; 32]).unwrap(), KeyKind::Ed25519).unwrap();
    for key in ["", "x", &other.to_string(), &log.to_string()] {
        let refused = poll(&node, &WitnessPoll { key: key.to_owned(), answered: None }).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{key}");
    }
    let huge = WitnessAnswer { offer: 1, status: 200, body: "x".repeat(crate::limits::WITNESS_ANSWER_MAX + 1), monitored: None };
    let refused = poll(&node, &WitnessPoll { key: good.to_string(), answered: Some(huge) }).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert_eq!(world.entries_of(SYSTEM_OWNER, "node_witness_offered").await.len(), 1);
    world.server.stop().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Starts on a folder, with the nodes' witnesses connected.
async fn start(dir: tempfile::TempDir, nodes: &mut [Node], signs: &[Arc<Signs>]) -> (World, Vec<JoinHandle<()>>) {
    let world = World::start_in(dir, None).await;
    let tasks = nodes
        .iter_mut()
        .zip(signs)
        .map(|(node, signs)| {
            node.moved_to(&world);
            over_channel(node, signs)
        })
        .collect();
    (world, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_publishes_nothing() {
    let (world, mut nodes, signs, _tasks, policy) = witnessed([Manner::Honest; 3]).await;
    all_settled(&world, &policy).await;
    let World { dir, server, .. } = world;
    server.stop().await;
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());

    // The newer history that the witnesses sign.
    let (world, _tasks) = start(dir, &mut nodes, &signs).await;
    world.tenant("acme").await;
    all_settled(&world, &policy).await;
    let newer = published(&world).await;
    let World { dir, server, .. } = world;
    server.stop().await;
    let new = tempfile::tempdir().unwrap();
    copy(dir.path(), new.path());

    // Everything restored from the old copy: the witnesses show what they signed.
    let (world, _tasks) = start(old, &mut nodes, &signs).await;
    let at_start = published(&world).await;
    assert!(at_start < newer);
    world.tenant("after-the-restore").await;
    until("the refusal", async || matches!(world.control().witnesses.guard(), Guard::Closed(_))).await;
    let told = state(&world).await.publishing;
    assert!(told.contains("restored from an older copy") && told.contains(&newer.to_string()), "{told}");
    let World { dir: old, server, .. } = world;
    server.stop().await;
    // Stopping publishes what was acknowledged last, and here it must not; nor does another start.
    let (world, _tasks) = start(old, &mut nodes, &signs).await;
    until("the refusal", async || matches!(world.control().witnesses.guard(), Guard::Closed(_))).await;
    assert_eq!(published(&world).await, at_start);
    let World { dir: old, server, .. } = world;
    server.stop().await;

    // The database alone restored: the copy of the cosigned checkpoint beside the tiles is enough, without any witness.
    let mixed = tempfile::tempdir().unwrap();
    copy(new.path(), mixed.path());
    for entry in std::fs::read_dir(old.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), mixed.path().join(entry.file_name())).unwrap();
        }
    }
    let world = World::start_in(mixed, None).await;
    until("the refusal", async || matches!(world.control().witnesses.guard(), Guard::Closed(_))).await;
    assert!(state(&world).await.publishing.contains("beside the tiles"));
    world.server.stop().await;

    // The newest copy brought back: everything goes on.
    let (world, _tasks) = start(new, &mut nodes, &signs).await;
    world.tenant("goes-on").await;
    all_settled(&world, &policy).await;
    assert!(published(&world).await > newer);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_before_the_witnesses_have_spoken() {
    let (world, mut nodes, signs, tasks, policy) = witnessed([Manner::Honest; 3]).await;
    all_settled(&world, &policy).await;
    let before = published(&world).await;
    // The stranger alone answers: the two nodes could have signed more by themselves.
    tasks[0].abort();
    tasks[1].abort();
    let World { dir, server, .. } = world;
    server.stop().await;
    let at_stop = {
        let world = World::start_in(dir, None).await;
        let at_start = published(&world).await;
        world.tenant("acme").await;
        until("the stranger was asked", async || state(&world).await.witnesses.iter().any(|one| one.said.as_deref() == Some("signed"))).await;
        assert_eq!(world.control().witnesses.guard(), Guard::Asking);
        assert_eq!(published(&world).await, at_start);
        assert_eq!(state(&world).await.publishing, "asking");
        world
    };
    assert!(published(&at_stop).await >= before);
    // One node speaks: the one that is left cannot make a quorum alone.
    nodes[0].moved_to(&at_stop);
    let task = over_channel(&nodes[0], &signs[0]);
    all_settled(&at_stop, &policy).await;
    task.abort();
    at_stop.server.stop().await;
}
