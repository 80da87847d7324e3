//! Secrets over the API and the node channel: set without the server seeing them, given to the jobs that may have them, named
//! in the receipt, gone after their deletion.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::arithmetic_side_effects,
    reason = "a test that meets what it did not expect shall fail there, also in what its functions share"
)]

mod fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fixture::{Answer, FakeNode, Person, World, exit, lies_in, wait_for};
use keys::SystemRandom;
use receipt::statement::SecretGiven;
use serde_json::{Value, json};
use vocabulary::job::{AttemptId, ExitReason, JobState};
use vocabulary::lease::LeaseHolder;
use vocabulary::plan::PlannedJob;
use vocabulary::secret::{ReleasedSecret, SecretSlot};
use vocabulary::{JobId, SecretId, Sha256Digest, channel};
use volume::secret::{Asking, Expected};

const CANARY: &[u8] = b"canary-of-a-token";

struct Stage {
    world: World,
    ann: Person,
    node: FakeNode,
    project: String,
    image: Sha256Digest,
}

async fn stage() -> Stage {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let ann = world.tenant(&operator, "acme", "ann").await;
    let node = world.node(&operator, "one", "EU").await;
    let project = ann.project("research").await;
    let (image, _) = ann.image("train").await;
    Stage { world, ann, node, project, image }
}

/// Sends a sealed value for a slot.
async fn fill(person: &Person, asking: Asking, slot: &SecretSlot, value: &[u8]) -> Answer {
    let body = asking.seal(&slot.key, value, &mut SystemRandom).unwrap();
    person.send("PUT", &format!("/v1/secrets/{}/value", slot.key.secret), Some(&serde_json::to_value(&body).unwrap())).await
}

async fn slot(person: &Person, path: &str, body: Value) -> (Asking, SecretSlot) {
    let asking = Asking::new().unwrap();
    let mut body = body;
    body["recipient"] = json!(asking.recipient());
    let slot = serde_json::from_value(person.post(path, body).await.ok()).unwrap();
    (asking, slot)
}

impl Stage {
    async fn secret(&self, name: &str, uses: Value) -> SecretId {
        let (asking, slot) = slot(&self.ann, "/v1/secrets", json!({ "name": name, "project": self.project, "uses": uses })).await;
        fill(&self.ann, asking, &slot, CANARY).await.ok();
        slot.key.secret
    }

    fn spec(&self, project: &str, secrets: &[(SecretId, &str)]) -> Value {
        let secrets: Vec<Value> = secrets.iter().map(|(secret, name)| json!({ "secret": secret, "name": name })).collect();
        json!({ "project": project, "spec": {
            "name": "j", "image": self.image, "command": ["train"], "purpose": "research", "sensitivity": "internal", "secrets": secrets } })
    }

    async fn placed(&self, secrets: &[(SecretId, &str)]) -> PlannedJob {
        let made = self.ann.post("/v1/jobs", self.spec(&self.project, secrets)).await.ok();
        let job: JobId = serde_json::from_value(made["id"].clone()).unwrap();
        self.node.planned(job, |_| true).await
    }

    async fn release(&self, attempt: AttemptId, secret: SecretId) -> Result<(ReleasedSecret, Vec<u8>), Answer> {
        let asking = Asking::new().unwrap();
        let answer = self.node.post(&channel::secret(attempt, secret), &serde_json::to_value(asking.request()).unwrap()).await;
        if answer.status != 200 {
            return Err(answer);
        }
        let released: ReleasedSecret = serde_json::from_slice(&answer.bytes).unwrap();
        let expected = Expected { secret, tenant: None, holder: Some(LeaseHolder::Attempt(attempt)) };
        let value = asking.open(&released, &expected).unwrap().to_vec();
        Ok((released, value))
    }
}

#[track_caller]
fn refusal<T>(outcome: Result<T, Answer>) -> Answer {
    match outcome {
        Ok(_) => panic!("it was given out"),
        Err(answer) => answer,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_given_its_secret_and_the_receipt_names_it_without_its_value() {
    let stage = stage().await;
    let Stage { ann, node, world, .. } = &stage;
    let hub = stage.secret("hub", json!(["job"])).await;
    let other = stage.secret("other", json!(["job"])).await;
    let planned = stage.placed(&[(hub, "hub")]).await;
    let attempt = planned.attempt;
    node.report(&[(attempt, JobState::Opening, None)]).await.ok();
    let (released, value) = stage.release(attempt, hub).await.ok().unwrap();
    assert_eq!(value, CANARY);
    // The entry of the release is there before the key is.
    let found = ann.get(&format!("/v1/audit?resource=secret/{hub}&limit=100")).await.ok().to_string();
    assert!(found.contains("secret_released") && found.contains(&released.key.lease.to_string()), "{found}");
    refusal(stage.release(attempt, other).await).refused("release_refused", "does not name");

    node.report(&[(attempt, JobState::Running, None)]).await.ok();
    let done = exit(ExitReason::Completed, 0);
    node.report(&[(attempt, JobState::Exited, Some(done.clone()))]).await.ok();
    let given = SecretGiven { lease: released.key.lease, name: "hub".parse().unwrap(), secret: hub, version: 1 };
    let mut statement = node.statement(&planned, done, vec![], vec![]);
    for (wrong, words) in [
        (vec![], "without secret `hub`"),
        (vec![SecretGiven { secret: other, ..given.clone() }], "not what the job names"),
        (vec![given.clone(), given.clone()], "stands twice"),
        (vec![SecretGiven { version: 2, ..given.clone() }], "not this attempt's"),
    ] {
        statement.secrets = wrong;
        node.state(attempt, &statement).await.refused("verification_failed", words);
    }
    statement.secrets = vec![given];
    node.state(attempt, &statement).await.ok();
    let receipt = wait_for("the receipt", || async {
        let answer = ann.get(&format!("/v1/jobs/{}/receipt", attempt.job)).await;
        (answer.status == 200).then_some(answer.bytes)
    })
    .await;
    let deployment = ann.get("/v1/deployment").await.bytes;
    let report = receipt::verify(&receipt, &deployment, None, None);
    assert!(report.ok, "{report:?}");
    let line = report.lines.iter().find(|line| line.claim.contains("secret `hub` was given")).unwrap();
    assert!(line.detail.contains("version 1") && line.verdict == receipt::Verdict::Proved, "{line:?}");
    // Nothing of the value: not on the server's disk, not in what it tells. The search finds what is there.
    assert!(lies_in(world.dir.path(), hub.to_string().as_bytes()) || lies_in(world.dir.path(), hub.as_bytes()));
    assert!(!lies_in(world.dir.path(), CANARY));
    assert!(!lies_in(world.dir.path(), STANDARD.encode(CANARY).as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_have_a_secret_does_not_get_it() {
    let stage = stage().await;
    let Stage { ann, .. } = &stage;
    let job_only = stage.secret("hub", json!(["job"])).await;
    let pull_only = stage.secret("registry", json!(["pull"])).await;
    let person = |secret| format!("/v1/secrets/{secret}/open");
    let request = || serde_json::to_value(Asking::new().unwrap().request()).unwrap();
    ann.post(&person(job_only), request()).await.refused("release_refused", "secret-pulls");
    ann.post("/v1/jobs", stage.spec(&stage.project, &[(pull_only, "x")])).await.refused("release_refused", "secret-jobs");
    // A person opens what is for pulls.
    let asking = Asking::new().unwrap();
    let answer = ann.post(&person(pull_only), serde_json::to_value(asking.request()).unwrap()).await.ok();
    let released: ReleasedSecret = serde_json::from_value(answer).unwrap();
    assert!(matches!(released.holder, LeaseHolder::Principal(_)));
    assert_eq!(asking.open(&released, &Expected { secret: pull_only, tenant: None, holder: None }).unwrap().as_slice(), CANARY);
    // Another project's job does not; nor a job with one that is not there, or has no value yet.
    let elsewhere = ann.project("elsewhere").await;
    ann.post("/v1/jobs", stage.spec(&elsewhere, &[(job_only, "x")])).await.refused("release_refused", "another project");
    let nobody = SecretId::from_bytes([1; 16]);
    ann.post("/v1/jobs", stage.spec(&stage.project, &[(nobody, "x")])).await.refused("not_found", "not there");
    let (_, empty) = slot(ann, "/v1/secrets", json!({ "name": "empty", "project": stage.project, "uses": ["job"] })).await;
    ann.post("/v1/jobs", stage.spec(&stage.project, &[(empty.key.secret, "x")])).await.refused("wrong_state", "has no value");
    // A job that was told to stop gets none.
    let planned = stage.placed(&[(job_only, "hub")]).await;
    ann.post(&format!("/v1/jobs/{}/stop", planned.attempt.job), json!({})).await.ok();
    refusal(stage.release(planned.attempt, job_only).await).refused("release_refused", "asked to stop");
    // What is malformed changes nothing.
    let made = |body| async move { ann.post("/v1/secrets", body).await };
    made(json!({ "name": "n", "project": stage.project, "uses": [], "recipient": Asking::new().unwrap().recipient() })).await.refused("invalid_request", "uses");
    made(json!({ "name": "n", "project": stage.project, "uses": ["job"], "recipient": "AAAA" })).await.refused("invalid_request", "recipient");
    made(json!({ "name": "hub", "project": stage.project, "uses": ["job"], "recipient": Asking::new().unwrap().recipient() })).await.refused("name_taken", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_is_a_new_version_and_a_deleted_secret_is_given_to_nobody() {
    let stage = stage().await;
    let Stage { ann, .. } = &stage;
    let hub = stage.secret("hub", json!(["job"])).await;
    let planned = stage.placed(&[(hub, "hub")]).await;
    let versions = format!("/v1/secrets/{hub}/versions");
    let value = format!("/v1/secrets/{hub}/value");
    // A version that waits is not given out, and only it can be filled, with its own key.
    let (asking, abandoned) = slot(ann, &versions, json!({})).await;
    let stale = asking.seal(&abandoned.key, b"stale", &mut SystemRandom).unwrap();
    let (asking, second) = slot(ann, &versions, json!({})).await;
    assert_eq!(stage.release(planned.attempt, hub).await.ok().unwrap().1, CANARY);
    ann.send("PUT", &value, Some(&serde_json::to_value(&stale).unwrap())).await.refused("wrong_state", "waits for a value");
    let forged = json!({ "version": second.key.version, "sealed": stale.sealed });
    ann.send("PUT", &value, Some(&forged)).await.refused("verification_failed", "another key or version");
    let short = json!({ "version": second.key.version, "sealed": "AAAA" });
    ann.send("PUT", &value, Some(&short)).await.refused("verification_failed", "bytes");
    let long = json!({ "version": second.key.version, "sealed": "A".repeat(30_000) });
    ann.send("PUT", &value, Some(&long)).await.refused("too_large", "at most");
    let set = fill(ann, asking, &second, b"second").await.ok();
    assert_eq!(set["version"], json!(second.key.version));
    let (released, bytes) = stage.release(planned.attempt, hub).await.ok().unwrap();
    assert_eq!((released.key.version, bytes.as_slice()), (second.key.version, &b"second"[..]));
    let states = ann.get("/v1/keys").await.ok();
    let of_secret: Vec<(u64, String)> = states["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["purpose"] == "secret")
        .map(|key| (key["version"].as_u64().unwrap(), key["state"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(of_secret, [(1, "destroyed".to_owned()), (2, "destroyed".to_owned()), (3, "active".to_owned())]);

    let listed = ann.get("/v1/secrets").await.ok();
    assert!(listed.to_string().contains("hub") && !listed.to_string().contains("sealed"), "{listed}");
    ann.send("DELETE", &format!("/v1/secrets/{hub}"), None).await.ok();
    assert_eq!(refusal(stage.release(planned.attempt, hub).await).status, 404);
    assert_eq!(ann.get("/v1/secrets").await.ok()["items"], json!([]));
    let keys = ann.get("/v1/keys").await.ok();
    assert!(keys["items"].as_array().unwrap().iter().filter(|key| key["purpose"] == "secret").all(|key| key["state"] == "destroyed"));
}
