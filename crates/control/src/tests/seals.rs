//! The seal: changed to shares, opened by custodians one by one, put back by thieves, and killed in the middle.

use std::path::{Path, PathBuf};

use identity::tls::{KeyExchange, Trust, cli_client_config};
use keys::SystemRandom;
use keys::seal::{SealError, SealKind};
use reqwest::Method;
use serde_json::json;
use store::Transaction;
use vocabulary::api::Done;
use vocabulary::custody::{SealShares, SealStatus};
use vocabulary::{ErrorCode, Problem, Profile, SYSTEM_OWNER};
use zeroize::Zeroizing;

use super::support::{PATIENCE, World, answer, client, clock_of_handshakes, config};
use crate::operation::seal::received;
use crate::{Needs, Prepared, SealedServer, Server, StartError, Unseal, clock, seal};

async fn draw(world: &World, operator: &str, shares: u8, threshold: u8) -> Result<SealShares, Problem> {
    world.confirmed(SYSTEM_OWNER, operator, (Method::POST, "/v1/seal/shares"), Some(json!({ "shares": shares, "threshold": threshold })), &[]).await
}

async fn confirm(world: &World, operator: &str, drawn: &SealShares) -> Result<Done, Problem> {
    let body = json!({ "generation": drawn.generation, "received": received(drawn.shares.iter().map(String::as_str)) });
    world.post("/v1/seal/confirm", operator, &body).await
}

async fn to_shares(world: &World, shares: u8, threshold: u8) -> Vec<String> {
    let operator = world.operator().await;
    let drawn = draw(world, &operator, shares, threshold).await.unwrap();
    confirm(world, &operator, &drawn).await.unwrap();
    drawn.shares
}

fn texts(shares: &[&String]) -> Unseal {
    Unseal::Shares(shares.iter().map(|share| Zeroizing::new((*share).clone())).collect())
}

async fn start(dir: &Path, unseal: Unseal) -> Result<Server, StartError> {
    prepared(dir).await?.start(unseal).await
}

/// A server that was dropped lets go of its files a moment later.
async fn prepared(dir: &Path) -> Result<Prepared, StartError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Prepared::open(config(dir, None)).await {
            Err(StartError::Store(store::OpenError::InUse { .. })) if tokio::time::Instant::now() < deadline => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

fn passphrase() -> Unseal {
    Unseal::Passphrase(Zeroizing::new("correct horse battery staple".to_owned()))
}

fn seal_files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir.join("objects/seal")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Asks a sealed server.
struct Outside {
    http: reqwest::Client,
    base: String,
}

impl Outside {
    fn of(server: &SealedServer) -> Self {
        let trust = Trust::Pin(*server.pin());
        let http = client(cli_client_config(trust, KeyExchange::default(), clock_of_handshakes()).unwrap());
        Self { http, base: format!("https://{}", server.address()) }
    }
    async fn status(&self) -> SealStatus {
        answer(self.http.get(format!("{}/v1/seal", self.base)).send().await.unwrap()).await.unwrap()
    }
    async fn enter(&self, body: serde_json::Value) -> Result<SealStatus, Problem> {
        answer(self.http.post(format!("{}/v1/seal/open", self.base)).json(&body).send().await.unwrap()).await
    }
    async fn share(&self, share: &str) -> Result<SealStatus, Problem> {
        let nonce = self.status().await.nonce;
        self.enter(json!({ "share": share, "nonce": nonce })).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_take_the_place_of_the_passphrase() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let old = seal_files(world.dir.path());
    let shares = to_shares(&world, 3, 2).await;
    assert!(seal_files(world.dir.path()).iter().all(|file| !old.contains(file)), "the passphrase's file is gone");
    let shown: SealStatus = world.get("/v1/seal", "").await.unwrap();
    assert_eq!((shown.kind.as_str(), shown.generation, shown.threshold, shown.shares), ("shares", 2, Some(2), Some(3)));
    let changed = world.entries_of(SYSTEM_OWNER, "seal_changed").await;
    assert_eq!(changed.len(), 1);
    // Keys work on as before, and after a start with any two.
    let World { dir, server, .. } = world;
    server.stop().await;
    let error = start(dir.path(), passphrase()).await.err().unwrap();
    assert!(matches!(error, StartError::Seal(SealError::Kind(SealKind::Shares))), "{error:?}");
    let error = start(dir.path(), texts(&[&shares[0]])).await.err().unwrap();
    assert!(matches!(error, StartError::TooFewShares { entered: 1, threshold: 2 }), "{error:?}");
    let error = start(dir.path(), texts(&[&shares[0], &shares[0]])).await.err().unwrap();
    assert!(error.to_string().contains("share 1 was entered already"), "{error}");
    assert_eq!(prepared(dir.path()).await.unwrap().needs(), Needs::Shares { threshold: 2 });
    let server = start(dir.path(), texts(&[&shares[2], &shares[0]])).await.unwrap();
    let world = World::of(dir, server);
    let _: vocabulary::api::Project = world.post("/v1/projects", &tenant.token, &json!({ "name": "second" })).await.unwrap();
    // Another set: the shares before it are refused by name.
    let newer = to_shares(&world, 5, 3).await;
    let World { dir, server, .. } = world;
    server.stop().await;
    let error = start(dir.path(), texts(&[&shares[0], &shares[1]])).await.err().unwrap();
    assert!(error.to_string().contains("share 1 is of generation 2 of the seal, and the seal has generation 3"), "{error}");
    start(dir.path(), texts(&[&newer[0], &newer[1], &newer[2]])).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_confirmed_changes_nothing() {
    let world = World::start().await;
    let operator = world.operator().await;
    for (shares, threshold) in [(1, 1), (3, 1), (2, 3), (33, 2), (0, 0)] {
        let problem = draw(&world, &operator, shares, threshold).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidRequest, "{threshold} of {shares}");
    }
    // Without a fresh factor nothing is drawn.
    let problem = world.post::<SealShares>("/v1/seal/shares", &operator, &json!({ "shares": 3, "threshold": 2 })).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::StepUpRequired);
    let first = draw(&world, &operator, 3, 2).await.unwrap();
    let second = draw(&world, &operator, 3, 2).await.unwrap();
    assert_ne!(first.shares, second.shares);
    assert!(!first.notes.is_empty(), "the waived second person is told");
    // The first draw was overtaken; half of the second was not received.
    assert_eq!(confirm(&world, &operator, &first).await.unwrap_err().code, ErrorCode::WrongState);
    let half = SealShares { shares: second.shares[..2].to_vec(), ..second.clone() };
    assert_eq!(confirm(&world, &operator, &half).await.unwrap_err().code, ErrorCode::WrongState);
    // Another operator's confirmation is none.
    let tenant = world.tenant("acme").await;
    assert_eq!(confirm(&world, &tenant.token, &second).await.unwrap_err().code, ErrorCode::Forbidden);
    // A restart forgets them.
    let world = world.again().await;
    let operator = world.operator().await;
    let problem = confirm(&world, &operator, &second).await.unwrap_err();
    assert!(problem.detail.contains("swarm seal init"), "{problem:?}");
    // An answer of an open server to a share: it is not looked at.
    let problem = world.post::<SealStatus>("/v1/seal/open", "", &json!({ "share": second.shares[0] })).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    world.server.stop().await;
}

/// What this process put under its own newest epoch would be opened by nobody once the other's epochs have gone on.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_follow_the_seal_puts_nothing_under_it() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let operator = world.operator().await;
    let control = world.control();
    // As another control plane of the deployment does it, with shares that this one was never given.
    let (other, _) = control.vault.opened().under_shares(2, 3, &mut SystemRandom).unwrap();
    let before = seal::current(&control.store, &control.blobs).await.unwrap().unwrap();
    let put = seal::stage(&control.blobs, &other, &before, clock::now()).await.unwrap();
    control.store.commit(Transaction::new().with(put), clock::now()).await.unwrap();
    control.follow_seal().await.unwrap();
    let refused = world.post::<serde_json::Value>("/v1/tenants", &operator, &json!({ "name": "late", "admin": "late" })).await.unwrap_err();
    assert!(refused.code == ErrorCode::Sealed && refused.detail.contains("start this one again"), "{refused:?}");
    let rotate = (Method::POST, "/v1/tenant-key/rotate");
    let refused = world.confirmed::<Done>(tenant.id, &tenant.token, rotate, None, &[]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Sealed);
    let user = json!({ "name": "late", "roles": ["viewer"], "clearance": "internal" });
    let refused = world.confirmed::<serde_json::Value>(tenant.id, &tenant.token, (Method::POST, "/v1/users"), Some(user), &[]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Sealed, "{refused:?}");
    // What lies under keys that are there goes on.
    world.volume(&tenant, "notes", "internal").await;
    // A new epoch under the same seal is followed.
    let world = World::start().await;
    let (operator, control) = (world.operator().await, world.control());
    let next = control.vault.opened().with_next_epoch(clock::now(), &mut SystemRandom).unwrap();
    let before = seal::current(&control.store, &control.blobs).await.unwrap().unwrap();
    let put = seal::stage(&control.blobs, &next, &before, clock::now()).await.unwrap();
    control.store.commit(Transaction::new().with(put), clock::now()).await.unwrap();
    control.follow_seal().await.unwrap();
    assert_eq!(control.vault.opened().newest(), 2);
    world.post::<serde_json::Value>("/v1/tenants", &operator, &json!({ "name": "late", "admin": "late" })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn custodians_open_a_sealed_server_one_by_one() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let old = to_shares(&world, 3, 2).await;
    let shares = to_shares(&world, 5, 3).await;
    let World { dir, server, .. } = world;
    server.stop().await;
    let sealed = prepared(dir.path()).await.unwrap().start_sealed().await.unwrap();
    let outside = Outside::of(&sealed);
    // Everything but the way to open it is refused by name, and says how.
    for (method, path) in [("GET", "/v1/health"), ("GET", "/v1/whoami"), ("POST", "/v1/login"), ("GET", "/v1/openapi.json"), ("GET", "/nothing")] {
        let request = outside.http.request(method.parse::<Method>().unwrap(), format!("{}{path}", outside.base)).bearer_auth(&tenant.token);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 503, "{path}");
        let problem = answer::<serde_json::Value>(response).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::Sealed);
        assert!(problem.hint.contains("swarm seal open"));
    }
    let file = outside.http.get(format!("{}/v1/deployment", outside.base)).send().await.unwrap().bytes().await.unwrap();
    assert!(identity::verify_deployment_file(&file, sealed.pin()).is_ok(), "first contact works");
    assert_eq!(outside.status().await.state, "sealed");
    assert_eq!(outside.share(&shares[4]).await.unwrap().entered, [5]);
    for (share, words) in [
        (old[0].clone(), "share 1 is of generation 2"),
        (shares[4].clone(), "share 5 was entered already"),
        (shares[0].replace("swmshare-", "swmshare-q"), "letters and digits"),
        (format!("{}7", shares[0].trim_end_matches(|_: char| true)), "begins with"),
    ] {
        let problem = outside.share(&share).await.unwrap_err();
        assert!(problem.detail.contains(words), "{words}: {problem:?}");
        assert!(!problem.detail.contains(shares[0].split('-').nth(9).unwrap()), "what was typed is not told");
    }
    // Without the attempt's number, or with the passphrase of before: nothing.
    assert_eq!(outside.enter(json!({ "share": shares[1] })).await.unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(outside.enter(json!({ "passphrase": "correct horse battery staple" })).await.unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(outside.enter(json!({})).await.unwrap_err().code, ErrorCode::InvalidRequest);
    assert_eq!(outside.share(&shares[1]).await.unwrap().entered, [5, 2]);
    // A restart wipes what was entered.
    sealed.stop().await;
    let sealed = prepared(dir.path()).await.unwrap().start_sealed().await.unwrap();
    let outside = Outside::of(&sealed);
    let status = outside.status().await;
    assert!(status.entered.is_empty() && status.nonce.is_none());
    for share in &shares[..3] {
        outside.share(share).await.unwrap();
    }
    sealed.opened().await;
    let address = sealed.address();
    let server = sealed.go_on().await.unwrap();
    assert_eq!(server.address(), address);
    let world = World::of(dir, server);
    let _: vocabulary::api::WhoAmI = world.get("/v1/whoami", &tenant.token).await.unwrap();
    assert_eq!(world.entries_of(SYSTEM_OWNER, "seal_opened").await.len(), 1);
    // Five refusals within a minute, and one restart: two entries at most.
    assert!((1..=2).contains(&world.entries_of(SYSTEM_OWNER, "seal_refused").await.len()));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_opens_a_sealed_server_and_a_wrong_one_does_not() {
    let world = World::start().await;
    let World { dir, server, .. } = world;
    server.stop().await;
    let sealed = prepared(dir.path()).await.unwrap().start_sealed().await.unwrap();
    let outside = Outside::of(&sealed);
    let problem = outside.enter(json!({ "passphrase": "correct horse battery stable" })).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::VerificationFailed);
    assert!(!problem.detail.contains("stable"));
    assert_eq!(outside.enter(json!({ "share": "swmshare" })).await.unwrap_err().code, ErrorCode::InvalidRequest);
    assert_eq!(outside.enter(json!({ "passphrase": "correct horse battery staple" })).await.unwrap().state, "open");
    sealed.opened().await;
    sealed.go_on().await.unwrap().stop().await;
    // Without a certificate of its own nobody would know whom they give their share to.
    let face = dir.path().join("sealed-identity.json");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&face).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&face, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = prepared(dir.path()).await.unwrap().start_sealed().await.err().unwrap();
    assert!(matches!(error, StartError::Faceless(_)), "{error:?}");
    std::fs::remove_file(&face).unwrap();
    let error = prepared(dir.path()).await.unwrap().start_sealed().await.err().unwrap();
    assert!(error.to_string().contains("give the passphrase or the shares at the start"), "{error}");
}

/// A change of the seal that dies between any two of its steps: it happened or it did not, and one way in is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_seal_that_is_killed_between_its_steps() {
    let world = World::start().await;
    let control = world.control().clone();
    let (opened, shares) = control.vault.opened().under_shares(2, 2, &mut SystemRandom).unwrap();
    let shares: Vec<String> = shares.iter().map(|share| share.to_text().to_string()).collect();
    let before = seal::current(&control.store, &control.blobs).await.unwrap().unwrap();
    // Killed after the new file was written: nothing names it.
    let put = seal::stage(&control.blobs, &opened, &before, clock::now()).await.unwrap();
    drop(control);
    let first = std::fs::read(world.dir.path().join("objects").join(seal::FIRST)).unwrap();
    let world = world.killed().await;
    assert_eq!(seal_files(world.dir.path()).len(), 1, "what was left behind is swept");
    assert_eq!(world.get::<SealStatus>("/v1/seal", "").await.unwrap().generation, 1);
    // Killed after the row named it, before the old file went: the old way in is closed and then removed.
    let control = world.control().clone();
    let again = seal::stage(&control.blobs, &opened, &before, clock::now()).await.unwrap();
    drop(put);
    control.store.commit(Transaction::new().with(again), clock::now()).await.unwrap();
    drop(control);
    let World { dir, server, .. } = world;
    drop(server);
    assert_eq!(seal_files(dir.path()).len(), 2);
    let error = start(dir.path(), passphrase()).await.err().unwrap();
    assert!(matches!(error, StartError::Seal(SealError::Kind(SealKind::Shares))), "{error:?}");
    start(dir.path(), texts(&[&shares[0], &shares[1]])).await.unwrap().stop().await;
    assert_eq!(seal_files(dir.path()).len(), 1);
    // A thief puts the old file back, and takes the new one away: neither opens anything.
    std::fs::write(dir.path().join("objects").join(seal::FIRST), &first).unwrap();
    let error = start(dir.path(), passphrase()).await.err().unwrap();
    assert!(matches!(error, StartError::Seal(SealError::Kind(SealKind::Shares))), "{error:?}");
    let current = seal_files(dir.path()).into_iter().find(|file| !file.ends_with("passphrase.json")).unwrap();
    let bytes = std::fs::read(&current).unwrap();
    std::fs::remove_file(&current).unwrap();
    let error = start(dir.path(), passphrase()).await.err().unwrap();
    assert!(error.to_string().contains("an older one opens nothing"), "{error}");
    std::fs::write(&current, String::from_utf8(bytes.clone()).unwrap().replace("\"threshold\": 2", "\"threshold\": 3")).unwrap();
    let error = start(dir.path(), texts(&[&shares[0], &shares[1]])).await.err().unwrap();
    assert!(error.to_string().contains("the seal file was changed"), "{error}");
    std::fs::write(&current, bytes).unwrap();
    start(dir.path(), texts(&[&shares[1], &shares[0]])).await.unwrap().stop().await;
}

/// Two operators at once: one change comes first, the other is refused.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_of_the_seal_one_holds() {
    let world = World::start().await;
    let control = world.control().clone();
    let before = seal::current(&control.store, &control.blobs).await.unwrap().unwrap();
    let mut held = 0;
    for _ in 0..2 {
        let (opened, _) = control.vault.opened().under_shares(2, 2, &mut SystemRandom).unwrap();
        let put = seal::stage(&control.blobs, &opened, &before, clock::now()).await.unwrap();
        held += u32::from(control.store.commit(Transaction::new().with(put), clock::now()).await.is_ok());
    }
    assert_eq!(held, 1);
    world.server.stop().await;
}

#[test]
fn production_opens_with_shares_only() {
    assert!(seal::allowed(Profile::Production, SealKind::Shares) && !seal::allowed(Profile::Production, SealKind::Passphrase));
    assert!(seal::allowed(Profile::Development, SealKind::Shares) && seal::allowed(Profile::Development, SealKind::Passphrase));
}
