//! Key leases over the API and the node channel: who gets a key, who does not and by which rule, and how a lease ends.
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

use audit::Event;
use fixture::{Answer, FakeNode, Person, World, exit, lies_in, read_file, submit, wait_for, write_file};
use serde_json::{Value, json};
use store::{Expect, Kind, Put, Transaction};
use vocabulary::job::{AttemptId, ExitReason, JobState};
use vocabulary::lease::LeaseMode::{Read, Write};
use vocabulary::plan::Desired;
use vocabulary::{JobId, LeaseId, VolumeId};

/// The rules of the newest recorded refusal of an action.
async fn rules(person: &Person, action: &str) -> Vec<String> {
    let found = person.get(&format!("/v1/audit?newest=true&outcome=refused&action={action}&limit=1000")).await.ok();
    let last = found["items"].as_array().unwrap().last().cloned().unwrap_or_default();
    let body: Value = serde_json::from_str(last["body"].as_str().unwrap_or("null")).unwrap();
    serde_json::from_value(body["unmapped"]["swarm"]["event"]["rules"].clone()).unwrap_or_default()
}

#[track_caller]
fn refusal<T>(outcome: Result<T, Answer>) -> Answer {
    match outcome {
        Ok(_) => panic!("the key was released"),
        Err(answer) => answer,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_broke_off_before_its_commit_blocks_nobody() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let ann = world.tenant(&operator, "acme", "ann").await;
    let project = ann.project("research").await;
    let volume = ann.volume(&project, "data").await;
    let lost = ann.lease(volume, Write).await.ok().unwrap();
    let old_port = ann.port(volume, lost.lease.id);
    let record = write_file(&old_port, &lost, "a", b"one").await;

    // Its catalogue lies where the next writer's belongs, and gives way.
    let head = ann.put_file(volume, "b", b"two").await;
    assert_eq!((head.seq, head.writer_epoch), (1, 2));
    // The writer that was overtaken replaces nothing and commits nothing.
    old_port.try_put("cat/00000000000000000001", b"x").await.refused("conflict", "used once");
    let body = json!({ "lease": lost.lease.id, "record": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &record) });
    ann.post(&format!("/v1/volumes/{volume}/commit"), body).await.refused("root_conflict", "");
    // Nor does the newest writer replace what the head names.
    let again = ann.lease(volume, Write).await.ok().unwrap();
    ann.port(volume, again.lease.id).try_put("cat/00000000000000000001", b"x").await.refused("conflict", "used once");
    let reader = ann.lease(volume, Read).await.ok().unwrap();
    assert_eq!(read_file(&ann.port(volume, reader.lease.id), &reader, "b").await, b"two");
}

/// How a lease ended, once it has.
async fn end_of(person: &Person, lease: LeaseId) -> Value {
    wait_for("the end of a lease", || async {
        let found = person.get("/v1/audit?newest=true&limit=1000").await.ok();
        found["items"].as_array().unwrap().iter().find_map(|entry| {
            let body: Value = serde_json::from_str(entry["body"].as_str().unwrap()).unwrap();
            let event = &body["unmapped"]["swarm"]["event"];
            (event["kind"] == "lease_ended" && event["lease"] == json!(lease)).then(|| event["end"].clone())
        })
    })
    .await
}

struct Stage {
    world: World,
    operator: Person,
    ann: Person,
    node: FakeNode,
    project: String,
    image: vocabulary::Sha256Digest,
}

async fn stage() -> Stage {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let ann = world.tenant(&operator, "acme", "ann").await;
    let node = world.node(&operator, "one", "EU").await;
    let project = ann.project("research").await;
    let (image, _) = ann.image("train").await;
    Stage { world, operator, ann, node, project, image }
}

impl Stage {
    async fn placed(&self, inputs: &[(VolumeId, &str)], outputs: &[(VolumeId, &str)]) -> AttemptId {
        let list = |volumes: &[(VolumeId, &str)]| -> Value {
            volumes.iter().map(|(volume, name)| json!({ "volume": volume, "name": name })).collect()
        };
        let job: JobId = submit(&self.ann, &self.project, self.image, list(inputs), list(outputs)).await;
        self.node.planned(job, |_| true).await.attempt
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_what_the_job_names_and_nothing_else() {
    let stage = stage().await;
    let Stage { ann, node, world, operator, .. } = &stage;
    let data = ann.volume(&stage.project, "data").await;
    let model = ann.volume(&stage.project, "model").await;
    let other = ann.volume(&stage.project, "other").await;
    ann.put_file(data, "a.csv", b"canary-of-the-data").await;
    let attempt = stage.placed(&[(data, "data")], &[(model, "model")]).await;

    let opened = node.lease(attempt, data, Read).await.ok().unwrap();
    let port = node.port(attempt, data, opened.lease.id);
    assert_eq!(read_file(&port, &opened, "a.csv").await, b"canary-of-the-data");
    port.try_put("seg/00", b"x").await.refused("release_refused", "another volume or mode");

    for (volume, mode, rule) in [(data, Write, "release-mode"), (model, Read, "release-mode"), (other, Read, "release-volume")] {
        refusal(node.lease(attempt, volume, mode).await).refused("release_refused", "");
        assert_eq!(rules(ann, "keyRelease").await, [rule]);
    }
    // The recorded refusal is explained as it was recorded, with what its rule says.
    let refusals = ann.get("/v1/audit?newest=true&outcome=refused&action=keyRelease&limit=1").await.ok();
    let explained = ann.post("/v1/policy/explain", json!({ "audit_index": refusals["items"][0]["index"] })).await.ok();
    assert_eq!((&explained["decision"], &explained["rules"][0]["id"]), (&json!("refused"), &json!("release-volume")));
    assert_eq!(explained["rules"][0]["text"], "the job does not name this volume");
    let on = |resource: String| json!({ "action": "jobView", "resource": resource });
    assert_eq!(ann.post("/v1/policy/explain", on(format!("job/{}", attempt.job))).await.ok()["decision"], "allowed");
    let foreign = json!({ "action": "jobList", "resource": format!("tenant/{}", vocabulary::TenantId::from_bytes([7; 16])) });
    ann.post("/v1/policy/explain", foreign).await.refused("not_found", "");
    // Under a lease for one volume nothing of another is reached.
    node.port(attempt, other, opened.lease.id).try_get("chain/00000000000000000001").await.refused("release_refused", "another volume");

    let written = node.lease(attempt, model, Write).await.ok().unwrap();
    let port = node.port(attempt, model, written.lease.id);
    let record = write_file(&port, &written, "weights", b"canary-of-the-model").await;
    node.commit(attempt, &written, &record).await.ok();
    node.commit(attempt, &written, &record).await.refused("root_conflict", "");

    // Another node, a number that no attempt has, and a job that is not there: one answer.
    let stranger = world.node(operator, "two", "EU").await;
    for answer in [
        refusal(stranger.lease(attempt, data, Read).await),
        refusal(node.lease(AttemptId { attempt: 9, ..attempt }, data, Read).await),
        refusal(node.lease(AttemptId { job: JobId::from_bytes([9; 16]), attempt: 1 }, data, Read).await),
    ] {
        answer.refused("not_found", "");
    }
    stranger.port(attempt, data, opened.lease.id).try_get("chain/00000000000000000001").await.refused("not_found", "");
    stranger.get(&vocabulary::channel::attempt(vocabulary::channel::IMAGE, attempt)).await.refused("not_found", "");

    // The image by its blobs, and no blob of another image.
    let image = node.get(&vocabulary::channel::attempt(vocabulary::channel::IMAGE, attempt)).await.ok();
    for blob in image["blobs"].as_array().unwrap() {
        let digest: vocabulary::Sha256Digest = blob["digest"].as_str().unwrap().parse().unwrap();
        let bytes = node.get(&vocabulary::channel::image_blob(attempt, digest)).await.bytes;
        assert_eq!(receipt::envelope::sha256(&bytes), digest);
    }
    let (_, foreign) = ann.image("unrelated").await;
    node.get(&vocabulary::channel::image_blob(attempt, foreign[2].0)).await.refused("not_found", "");

    // No plain key and no word of the data is in anything that the server keeps.
    for opened in [&opened, &written] {
        let key = opened.plain_key();
        let texts = [hex::encode(key).into_bytes(), base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key).into_bytes()];
        for needle in texts.iter().map(Vec::as_slice).chain([key.as_slice()]) {
            assert!(!lies_in(world.dir.path(), needle), "a plain key lies in the server's folder");
        }
    }
    assert!(!lies_in(world.dir.path(), b"canary-of-the"));

    // The attempt is over: its leases are given back, and nothing is reached under them.
    node.report(&[(attempt, JobState::Exited, Some(exit(ExitReason::Failed, 3)))]).await.ok();
    let planned = node.planned(attempt.job, |_| true).await;
    node.state(attempt, &node.statement(&planned, exit(ExitReason::Failed, 3), vec![], vec![])).await.refused("verification_failed", "committed");
    assert_eq!(rules(ann, "attemptStatement").await, ["statement-root"]);
    let head = serde_json::from_value(ann.get(&format!("/v1/volumes/{model}")).await.ok()["head"].clone()).unwrap();
    let outputs = vec![written.used("model", &head, Some(&record))];
    node.state(attempt, &node.statement(&planned, exit(ExitReason::Failed, 3), vec![], outputs)).await.ok();
    assert_eq!(end_of(ann, opened.lease.id).await, "released");
    assert_eq!(end_of(ann, written.lease.id).await, "released");
    refusal(node.lease(attempt, data, Read).await).refused("release_refused", "end is recorded");
    assert_eq!(rules(ann, "attemptLease").await, ["attempt-unfinished"]);
}

/// Changes the stored body of a resource and keeps all else.
async fn doctor(store: &store::Store, kind: Kind, id: [u8; 16], change: impl FnOnce(&mut Value)) {
    let stored = store.locate(kind, id).await.unwrap().unwrap();
    let mut body: Value = serde_json::from_str(&stored.body).unwrap();
    change(&mut body);
    let mut put = Put::json(stored.tenant, kind, id, Expect::Revision(stored.revision), &body).unwrap();
    put.project = stored.project;
    put.name = stored.name.map(|name| name.parse().unwrap());
    (put.parent, put.link, put.state, put.until) = (stored.parent, stored.link, stored.state, stored.until);
    store.commit(Transaction::new().with(put), fixture::now()).await.unwrap();
}

/// What placement and admission refuse already is refused again where the key would leave.
#[tokio::test(flavor = "multi_thread")]
async fn release_asks_again_what_placement_asked() {
    let Stage { mut world, ann, node, project, image, operator, .. } = stage().await;
    let _ = operator;
    let mut volumes = Vec::new();
    for name in ["purpose", "place", "trust", "good"] {
        volumes.push(ann.volume(&project, name).await);
    }
    let inputs: Value = volumes.iter().zip(["a", "b", "c", "d"]).map(|(volume, name)| json!({ "volume": volume, "name": name })).collect();
    let job = submit(&ann, &project, image, inputs, json!([])).await;
    let attempt = node.planned(job, |_| true).await.attempt;
    let ended = submit(&ann, &project, image, json!([{ "volume": volumes[3], "name": "a" }]), json!([])).await;
    let ended = node.planned(ended, |_| true).await.attempt;
    let superseded = submit(&ann, &project, image, json!([{ "volume": volumes[3], "name": "a" }]), json!([])).await;
    let superseded = node.planned(superseded, |_| true).await.attempt;

    let ids: Vec<[u8; 16]> = volumes.iter().map(|id| *id.as_bytes()).collect();
    let jobs = [*ended.job.as_bytes(), *superseded.job.as_bytes()];
    world
        .while_stopped(async |store| {
            doctor(store, Kind::VOLUME, ids[0], |row| row["spec"]["purpose"] = json!("marketing")).await;
            doctor(store, Kind::VOLUME, ids[1], |row| row["spec"]["jurisdictions"] = json!(["CH"])).await;
            doctor(store, Kind::VOLUME, ids[2], |row| row["min_trust"] = json!(1)).await;
            // Its run lease is over, and the planner waits for the skew of two clocks before it says so.
            let soon = fixture::now().plus_millis(60_000);
            doctor(store, Kind::JOB, jobs[0], |row| row["attempts"][0]["run_lease_until"] = json!(fixture::now())).await;
            doctor(store, Kind::JOB, jobs[1], |row| {
                let mut next = row["attempts"][0].clone();
                next["number"] = json!(2);
                next["report"]["attempt"]["attempt"] = json!(2);
                next["run_lease_until"] = json!(soon);
                row["attempts"].as_array_mut().unwrap().push(next);
            })
            .await;
        })
        .await;
    let (ann, node) = (world.again(&ann), world.node_again(&node));
    for (volume, rule) in volumes.iter().zip(["release-purpose", "release-jurisdiction", "release-trust"]) {
        refusal(node.lease(attempt, *volume, Read).await).refused("release_refused", rule);
        assert_eq!(rules(&ann, "keyRelease").await, [rule]);
    }
    assert!(node.lease(attempt, volumes[3], Read).await.is_ok());
    refusal(node.lease(ended, volumes[3], Read).await).refused("release_refused", "");
    refusal(node.lease(superseded, volumes[3], Read).await).refused("release_refused", "superseded");
    assert_eq!(rules(&ann, "attemptLease").await, ["attempt-newest"]);
    assert!(node.lease(AttemptId { attempt: 2, ..superseded }, volumes[3], Read).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_when_their_ground_is_gone() {
    let Stage { mut world, mut ann, node, project, image, operator, .. } = stage().await;
    let data = ann.volume(&project, "data").await;
    let model = ann.volume(&project, "model").await;
    let head = ann.put_file(data, "a", b"text").await;
    let chain = format!("chain/{:020}", head.seq);
    let own = ann.lease(data, Read).await.ok().unwrap();
    ann.port(data, own.lease.id).try_get(&chain).await.ok();
    let job = submit(&ann, &project, image, json!([{ "volume": data, "name": "data" }]), json!([])).await;
    let attempt = node.planned(job, |_| true).await.attempt;
    let held = node.lease(attempt, data, Read).await.ok().unwrap();
    let kept = node_job(&ann, &node, &project, image, model).await;

    // The volume is deleted: the person reads no further, the attempt's node is told to kill it, the other job is left alone.
    ann.confirmed("DELETE", &format!("/v1/volumes/{data}"), None).await;
    assert_eq!(end_of(&ann, own.lease.id).await, "revoked");
    assert_eq!(end_of(&ann, held.lease.id).await, "revoked");
    ann.port(data, own.lease.id).try_get(&chain).await.refused("release_refused", "revoked");
    node.port(attempt, data, held.lease.id).try_get(&chain).await.refused("release_refused", "revoked");
    node.planned(job, |planned| planned.desired == Desired::RevokeKeys).await;
    refusal(node.lease(attempt, data, Read).await).refused("release_refused", "revoked");
    assert_eq!(rules(&ann, "keyRelease").await, ["release-revoked"]);
    assert_eq!(node.planned(kept.0.job, |_| true).await.desired, Desired::Run);

    // The control plane was away, and the agent is dead: at the start the run lease is long over.
    let id = *kept.0.job.as_bytes();
    let lease = *kept.1.as_bytes();
    world
        .while_stopped(async |store| {
            let past = fixture::now();
            doctor(store, Kind::JOB, id, |row| row["attempts"][0]["run_lease_until"] = json!(past)).await;
            assert_eq!(store.locate(Kind::KEY_LEASE, lease).await.unwrap().unwrap().state.as_deref(), Some("live"));
        })
        .await;
    let (ann, node) = (world.again(&ann), world.node_again(&node));
    let mut operator = world.again(&operator);
    assert_eq!(end_of(&ann, kept.1).await, "expired");
    node.port(kept.0, model, kept.1).try_put("seg/1", b"x").await.refused("release_refused", "");

    // The tenant is suspended: what its jobs hold is revoked too.
    let last = node_job(&ann, &node, &project, image, model).await;
    let tenant = ann.get("/v1/whoami").await.ok()["tenant"].as_str().unwrap().to_owned();
    operator.confirmed("POST", &format!("/v1/tenants/{tenant}/suspend"), None).await;
    node.planned(last.0.job, |planned| planned.desired == Desired::RevokeKeys).await;
    node.port(last.0, model, last.1).try_put("seg/2", b"x").await.refused("release_refused", "suspended-attempt");
}

/// A job that writes a volume, placed, with its lease.
async fn node_job(ann: &Person, node: &FakeNode, project: &str, image: vocabulary::Sha256Digest, model: VolumeId) -> (AttemptId, LeaseId) {
    let job = submit(ann, project, image, json!([]), json!([{ "volume": model, "name": "model" }])).await;
    let attempt = node.planned(job, |_| true).await.attempt;
    let held = node.lease(attempt, model, Write).await.ok().unwrap();
    (attempt, held.lease.id)
}

/// The entry of a release names what was released; the log knows it before the key is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_recorded_before_the_key_leaves() {
    let stage = stage().await;
    let data = stage.ann.volume(&stage.project, "data").await;
    let attempt = stage.placed(&[(data, "data")], &[]).await;
    let opened = stage.node.lease(attempt, data, Read).await.ok().unwrap();
    let found = stage.ann.get(&format!("/v1/audit?after={}&limit=1", opened.lease.audit_index - 1)).await.ok();
    let body = found["items"][0]["body"].as_str().unwrap();
    let event = audit::entry::Body::parse(body.as_bytes()).unwrap().own.event;
    let Event::KeyReleased { lease, volume, node, purpose, expires, .. } = event else { panic!("{body}") };
    assert_eq!((lease, volume, node), (opened.lease.id, data, Some(stage.node.id)));
    assert_eq!(purpose.map(|purpose| purpose.to_string()).as_deref(), Some("research"));
    assert_eq!(expires, opened.lease.expires);
}
