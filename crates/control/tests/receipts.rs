//! A whole job over the API and the node channel, played by an honest node: log, statement, receipt; and what is refused.
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

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control::backup::{BackupError, BackupFailed, Known, backup, restore};
use fixture::{Answer, FakeNode, Opened, Person, World, exit, lies_in, read_file, submit, wait_for, write_file};
use receipt::Verdict;
use receipt::record::Receipt;
use receipt::statement::VolumeUse;
use serde_json::{Value, json};
use vocabulary::job::{AttemptId, ExitReason, JobState, LogFrame};
use vocabulary::lease::LeaseMode::{Read, Write};
use vocabulary::plan::PlannedJob;
use vocabulary::volume::RootHead;
use vocabulary::{JobId, Sha256Digest, VolumeId};

/// All that the server and its libraries trace, at every level, as text.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<String>>);

impl Traced {
    fn keep(&self, write: impl FnOnce(&mut dyn tracing::field::Visit)) {
        let mut text = Fields(self.0.lock().unwrap());
        write(&mut text);
        text.0.push('\n');
    }
}

struct Fields<'a>(MutexGuard<'a, String>);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl tracing::Subscriber for Traced {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.keep(|fields| span.record(fields));
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        self.keep(|fields| values.record(fields));
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.keep(|fields| event.record(fields));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Stage {
    world: World,
    ann: Person,
    node: FakeNode,
    project: String,
    image: Sha256Digest,
    data: VolumeId,
    model: VolumeId,
}

async fn stage() -> Stage {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let ann = world.tenant(&operator, "acme", "ann").await;
    let node = world.node(&operator, "one", "EU").await;
    let project = ann.project("research").await;
    let (image, _) = ann.image("train").await;
    let data = ann.volume(&project, "data").await;
    let model = ann.volume(&project, "model").await;
    ann.put_file(data, "a.csv", b"canary-of-the-data").await;
    Stage { world, ann, node, project, image, data, model }
}

/// A job whose outputs are committed, and which has not ended yet.
struct Ran {
    planned: PlannedJob,
    inputs: Vec<VolumeUse>,
    outputs: Vec<VolumeUse>,
    opened: [Opened; 2],
}

impl Stage {
    async fn run(&self) -> Ran {
        let (node, data, model) = (&self.node, self.data, self.model);
        let inputs = json!([{ "volume": data, "name": "data" }]);
        let outputs = json!([{ "volume": model, "name": "model" }]);
        let job = submit(&self.ann, &self.project, self.image, inputs, outputs).await;
        let planned = node.planned(job, |_| true).await;
        let attempt = planned.attempt;
        node.report(&[(attempt, JobState::Opening, None)]).await.ok();
        let read = node.lease(attempt, data, Read).await.ok().unwrap();
        let port = node.port(attempt, data, read.lease.id);
        assert_eq!(read_file(&port, &read, "a.csv").await, b"canary-of-the-data");
        let signed = port.try_get(&format!("chain/{:020}", read.lease.head.seq)).await.bytes;
        let inputs = vec![read.used("data", &read.lease.head, Some(&signed))];
        node.report(&[(attempt, JobState::Running, None)]).await.ok();
        let written = node.lease(attempt, model, Write).await.ok().unwrap();
        let port = node.port(attempt, model, written.lease.id);
        let record = write_file(&port, &written, "weights", b"canary-of-the-model").await;
        let committed = node.commit(attempt, &written, &record).await.ok();
        let head: RootHead = serde_json::from_value(committed["head"].clone()).unwrap();
        let outputs = vec![written.used("model", &head, Some(&record))];
        Ran { planned, inputs, outputs, opened: [read, written] }
    }

    async fn receipt(&self, job: JobId) -> Vec<u8> {
        let path = format!("/v1/jobs/{job}/receipt");
        wait_for("a receipt", || async {
            let answer = self.ann.get(&path).await;
            if answer.status == 200 {
                return Some(answer.bytes.to_vec());
            }
            answer.refused("wrong_state", "receipt");
            None
        })
        .await
    }

    async fn verify(&self, file: &[u8]) -> receipt::Report {
        let deployment = self.ann.get("/v1/deployment").await.bytes;
        receipt::verify(file, &deployment, Some(&self.world.pin), Some(fixture::now()))
    }
}

fn frames(answer: &Answer) -> Vec<LogFrame> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leaves_a_receipt_that_a_stranger_can_check() {
    let traced = Traced::default();
    tracing::subscriber::set_global_default(traced.clone()).unwrap();
    let stage = stage().await;
    let (ann, node) = (&stage.ann, &stage.node);
    let ran = stage.run().await;
    let attempt = ran.planned.attempt;
    let receipt_path = format!("/v1/jobs/{}/receipt", attempt.job);
    ann.get(&receipt_path).await.refused("wrong_state", "not over");
    assert_eq!(node.logs(attempt, &[(1, "canary-of-the-log", 0), (2, "b", 0)]).await.ok()["sequence"], json!(2));
    node.report(&[(attempt, JobState::Exited, Some(exit(ExitReason::Completed, 0)))]).await.ok();

    // What is not so is not recorded as the end.
    let honest = node.statement(&ran.planned, exit(ExitReason::Completed, 0), ran.inputs.clone(), ran.outputs.clone());
    let mut lies = Vec::new();
    let mut lie = |words: &'static str, change: &dyn Fn(&mut receipt::Statement)| {
        let mut statement = honest.clone();
        change(&mut statement);
        lies.push((words, statement));
    };
    lie("`image`", &|s| s.image = Sha256Digest::from_bytes([1; 32]));
    lie("`command`", &|s| s.command.push("--more".to_owned()));
    lie("`region`", &|s| s.jurisdiction = "US".parse().unwrap());
    lie("`run_lease`", &|s| s.run_lease = ran.opened[0].lease.id);
    lie("another end", &|s| s.exit = exit(ExitReason::Completed, 7));
    lie("another attempt", &|s| s.attempt = AttemptId { attempt: 2, ..attempt });
    lie("completed without", &|s| s.outputs.clear());
    lie("not this attempt's", &|s| s.inputs[0].lease = s.outputs[0].lease);
    lie("never committed", &|s| s.outputs[0].head.root = Sha256Digest::from_bytes([1; 32]));
    lie("root record", &|s| s.outputs[0].record = s.inputs[0].record.clone());
    lie("is missing", &|s| s.outputs[0].record = None);
    for (words, statement) in &lies {
        node.state(attempt, statement).await.refused("verification_failed", words);
    }
    assert!(ann.get(&format!("/v1/jobs/{}", attempt.job)).await.ok()["exit"].is_null());

    let done = node.state(attempt, &honest).await.ok();
    assert_eq!(node.state(attempt, &honest).await.ok(), done, "the same statement again changes nothing");
    let mut other = honest.clone();
    other.time = other.time.plus_millis(1);
    node.state(attempt, &other).await.refused("wrong_state", "first one stands");
    let refused = ann.get("/v1/audit?outcome=refused&action=attemptStatement").await.ok();
    assert_eq!(refused["items"].as_array().unwrap().len(), lies.len() + 1, "every refusal is an entry");

    let file = stage.receipt(attempt.job).await;
    assert_eq!(ann.get(&receipt_path).await.bytes, file, "the same bytes each time");
    let report = stage.verify(&file).await;
    let unproved: Vec<_> = report.lines.iter().filter(|line| line.verdict == Verdict::NotProved).collect();
    assert!(report.ok && unproved.is_empty(), "{unproved:?}");
    for claim in ["input `data` was read", "output `model` was committed", "the command that ran", "the node's certificate was valid", "the policy set of that epoch"] {
        let line = report.lines.iter().find(|line| line.claim.starts_with(claim)).unwrap_or_else(|| panic!("{claim}: {:?}", report.lines));
        assert_eq!(line.verdict, Verdict::Proved, "{line:?}");
    }
    let text = String::from_utf8(file.clone()).unwrap();
    let record: Value = serde_json::from_slice(&Receipt::parse(&file).unwrap().control.payload_bytes().unwrap()).unwrap();
    assert_eq!((&record["predicate"]["labels"], &record["predicate"]["evidence"]), (&json!(["quorum-none"]), &json!("none")));
    doctored(&stage, &text).await;

    // Nothing of the data, the log, or a key lies in what the server keeps or traces.
    let mut needles = vec![b"canary-of-the".to_vec(), STANDARD.encode("canary-of-the-log").into_bytes()];
    for opened in &ran.opened {
        needles.extend([opened.plain_key().to_vec(), hex::encode(opened.plain_key()).into_bytes(), STANDARD.encode(opened.plain_key()).into_bytes()]);
    }
    let trace = traced.0.lock().unwrap().clone().into_bytes();
    assert!(trace.len() > 1000, "the server traces at this level");
    for needle in &needles {
        assert!(!lies_in(stage.world.dir.path(), needle), "{needle:?} lies in the server's folder");
        assert!(!trace.windows(needle.len()).any(|window| window == needle), "{needle:?} was traced");
    }
    let read = frames(&ann.get(&format!("/v1/jobs/{}/logs", attempt.job)).await);
    assert_eq!(STANDARD.decode(&read[0].data).unwrap(), b"canary-of-the-log");
}

/// Every change of the file is noticed.
async fn doctored(stage: &Stage, text: &str) {
    let deployment = stage.ann.get("/v1/deployment").await.bytes;
    let holds = |file: &[u8]| receipt::verify(file, &deployment, Some(&stage.world.pin), Some(fixture::now())).ok;
    assert!(holds(text.as_bytes()));
    let bytes = text.as_bytes();
    // A stride that is prime to base64's groups of four meets every kind of place.
    for at in (0..bytes.len()).step_by(bytes.len() / 150 + 1) {
        for change in [1_u8, 0x20] {
            let mut file = bytes.to_vec();
            file[at] ^= change;
            assert!(!holds(&file), "byte {at} was changed and nobody noticed");
        }
    }
    assert!(!holds(&bytes[..bytes.len() - 1]));
    assert!(!holds(format!("{text}\n").as_bytes()));
    assert!(!holds(format!(" {text}").as_bytes()));
    // The node's word exchanged for another word of the same node, and the whole for that of another deployment.
    let parsed: Value = serde_json::from_str(text).unwrap();
    let mut swapped = parsed.clone();
    swapped["node"] = parsed["control"].clone();
    assert!(!holds(&serde_json::to_vec(&swapped).unwrap()));
    let elsewhere = World::start().await;
    let foreign = reqwest_file(&elsewhere).await;
    assert!(!receipt::verify(bytes, &foreign, Some(&elsewhere.pin), None).ok);
    assert!(!receipt::verify(bytes, &deployment, Some(&elsewhere.pin), None).ok);
}

async fn reqwest_file(world: &World) -> Vec<u8> {
    world.http.get(format!("{}/v1/deployment", world.url())).send().await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_contiguous_and_followed_to_its_end() {
    let stage = stage().await;
    let (ann, node) = (&stage.ann, &stage.node);
    let job = submit(ann, &stage.project, stage.image, json!([]), json!([])).await;
    let planned = node.planned(job, |_| true).await;
    let attempt = planned.attempt;
    let path = format!("/v1/jobs/{job}/logs");
    assert_eq!(frames(&ann.get(&path).await), []);
    node.logs(attempt, &[(1, "one", 0), (2, "two", 0)]).await.ok();
    // Again, overlapping, and with a hole that says so.
    assert_eq!(node.logs(attempt, &[(1, "one", 0), (2, "two", 0), (3, "three", 0)]).await.ok()["sequence"], json!(3));
    assert_eq!(node.logs(attempt, &[]).await.ok()["sequence"], json!(3));
    node.logs(attempt, &[(5, "five", 0)]).await.refused("invalid_request", "does not follow 3");
    assert_eq!(node.logs(attempt, &[(6, "six", 2)]).await.ok()["sequence"], json!(6));
    let wrong = json!({ "attempt": { "job": job, "attempt": 2 }, "frames": [] });
    node.post(&vocabulary::channel::attempt(vocabulary::channel::LOGS, attempt), &wrong).await.refused("invalid_request", "`attempt`");

    let read = frames(&ann.get(&path).await);
    assert_eq!(read.iter().map(|frame| (frame.sequence, frame.lost)).collect::<Vec<_>>(), [(1, 0), (2, 0), (3, 0), (6, 2)]);
    assert_eq!(frames(&ann.get(&format!("{path}?after=2")).await).len(), 2, "a reader goes on where it was");
    assert_eq!(frames(&ann.get(&format!("{path}?after=6")).await), []);
    ann.get(&format!("{path}?attempt=9")).await.refused("not_found", "");
    ann.get(&format!("{path}?follow=perhaps")).await.refused("invalid_request", "follow");

    // A follower sees what comes and then the end.
    let follow = format!("{path}?after=6&follow=true");
    let end = async {
        node.logs(attempt, &[(7, "seven", 0)]).await.ok();
        node.report(&[(attempt, JobState::Exited, Some(exit(ExitReason::Completed, 0)))]).await.ok();
        node.logs(attempt, &[(8, "eight", 0)]).await.ok();
        node.state(attempt, &node.statement(&planned, exit(ExitReason::Completed, 0), vec![], vec![])).await.ok();
    };
    let (seen, ()) = tokio::join!(ann.get(&follow), end);
    let seen = frames(&seen);
    assert_eq!(seen.iter().map(|frame| frame.sequence).collect::<Vec<_>>(), [7, 8]);
    let report = stage.verify(&stage.receipt(job).await).await;
    assert!(report.ok, "{report:?}");
}

/// A follower whose token was revoked is cut off, and the stream does not look like a whole log.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_reader_is_cut_off() {
    let stage = stage().await;
    let (ann, node) = (&stage.ann, &stage.node);
    let job = submit(ann, &stage.project, stage.image, json!([]), json!([])).await;
    let attempt = node.planned(job, |_| true).await.attempt;
    node.logs(attempt, &[(1, "one", 0)]).await.ok();
    let made = ann.post("/v1/tokens", json!({ "lifetime_s": 600, "note": "reader" })).await.ok();
    let url = format!("{}/v1/jobs/{job}/logs?follow=true", stage.world.url());
    let mut response = stage.world.http.get(url).bearer_auth(made["token"].as_str().unwrap()).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    ann.send("DELETE", &format!("/v1/tokens/{}", made["id"].as_str().unwrap()), None).await.ok();
    let broken = tokio::time::timeout(std::time::Duration::from_secs(60), response.chunk()).await.expect("the stream ends");
    assert!(broken.is_err(), "the stream must not end as if it were whole: {broken:?}");
}

/// A job that never ran has no receipt, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_no_receipt() {
    let stage = stage().await;
    let (ann, node) = (&stage.ann, &stage.node);
    // Nothing is alive here: the job waits, and is stopped.
    let spec = json!({ "name": "j", "image": stage.image, "purpose": "research", "sensitivity": "internal", "region": "nowhere" });
    let job = ann.post("/v1/jobs", json!({ "project": stage.project, "spec": spec })).await.ok()["id"].as_str().unwrap().to_owned();
    ann.post(&format!("/v1/jobs/{job}/stop"), json!({})).await.ok();
    ann.get(&format!("/v1/jobs/{job}/receipt")).await.refused("wrong_state", "no receipt");
    let unknown: JobId = JobId::from_bytes([7; 16]);
    ann.get(&format!("/v1/jobs/{unknown}/receipt")).await.refused("not_found", "");
    ann.get(&format!("/v1/jobs/{unknown}/logs")).await.refused("not_found", "");
    node.logs(AttemptId { job: unknown, attempt: 1 }, &[]).await.refused("not_found", "");
}

/// The size of the log's newest checkpoint, and its bytes.
async fn checkpoint(person: &Person) -> (u64, Vec<u8>) {
    let note = person.get("/v1/log/checkpoint").await.bytes;
    let size = String::from_utf8_lossy(&note).lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
    (size, note.to_vec())
}

async fn checkpoint_beyond(person: &Person, entries: u64) -> Vec<u8> {
    wait_for("a newer checkpoint", || async {
        let (size, note) = checkpoint(person).await;
        (size > entries).then_some(note)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_while_people_work_brings_back_what_was_acknowledged() {
    let mut stage = stage().await;
    let ran = stage.run().await;
    let attempt = ran.planned.attempt;
    stage.node.logs(attempt, &[(1, "canary-of-the-log", 0)]).await.ok();
    stage.node.report(&[(attempt, JobState::Exited, Some(exit(ExitReason::Completed, 0)))]).await.ok();
    let honest = stage.node.statement(&ran.planned, exit(ExitReason::Completed, 0), ran.inputs.clone(), ran.outputs.clone());
    stage.node.state(attempt, &honest).await.ok();
    let file = stage.receipt(attempt.job).await;
    let (_, early) = checkpoint(&stage.ann).await;

    // People work before, during and after it.
    let data = stage.world.dir.path().join("server");
    let apart = tempfile::tempdir().unwrap();
    let to = apart.path().join("backup");
    let (acknowledged, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let mut people = tokio::task::JoinSet::new();
    for writer in 0..3 {
        let (ann, acknowledged, stop) = (stage.ann.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
        people.spawn(async move {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("p-{writer}-{round}");
                ann.project(&name).await;
                acknowledged.lock().unwrap().push(name);
                round += 1;
            }
        });
    }
    let count = || acknowledged.lock().unwrap().len();
    while count() < 6 {
        tokio::task::yield_now().await;
    }
    let before = acknowledged.lock().unwrap().clone();
    let mut steps = 0;
    let made = backup(&data, &to, fixture::now(), &mut |_| steps += 1).await.unwrap();
    let during = count();
    while count() < during + 3 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    people.join_all().await;
    assert_eq!(made.manifest.files, steps);
    assert!(made.manifest.published <= made.manifest.entries);
    let again = backup(&data, &to, fixture::now(), &mut |_| ()).await;
    assert!(matches!(again, Err(BackupFailed::Files(BackupError::Exists(_)))));

    // Nothing is in clear in it that was not in clear before: no passphrase, no password, no token, no key, no data.
    let mut needles = vec![fixture::PASSWORD.as_bytes().to_vec(), stage.ann.token.clone().into_bytes(), b"canary-of-the".to_vec()];
    for opened in &ran.opened {
        needles.extend([opened.plain_key().to_vec(), hex::encode(opened.plain_key()).into_bytes(), STANDARD.encode(opened.plain_key()).into_bytes()]);
    }
    for needle in &needles {
        assert!(!lies_in(&to, needle), "{needle:?} lies in the backup");
    }

    // Who knows of a longer log is not given an older one.
    let newer = checkpoint_beyond(&stage.ann, made.manifest.entries).await;
    let restored = tempfile::tempdir().unwrap();
    let into = restored.path().join("server");
    let with = |digest, checkpoint: &[u8]| Known { digest, checkpoint: Some(checkpoint.to_vec()), shreds: None };
    let error = restore(&to, &into, &with(None, &newer), fixture::now()).await.unwrap_err();
    assert!(matches!(&error, BackupFailed::Older { known, entries } if *known > *entries && *entries == made.manifest.entries), "{error}");
    let text = String::from_utf8(newer).unwrap();
    let forged = text.replacen(text.lines().nth(1).unwrap(), "1", 1);
    for none in [forged.as_bytes(), b"", b"x"] {
        let error = restore(&to, &into, &with(None, none), fixture::now()).await.unwrap_err();
        assert!(matches!(error, BackupFailed::Checkpoint(_)), "{error}");
    }
    let error = restore(&to, &into, &with(Some(Sha256Digest::from_bytes([1; 32])), &early), fixture::now()).await.unwrap_err();
    assert!(matches!(error, BackupFailed::Files(BackupError::Digest { .. })), "{error}");
    assert_eq!(std::fs::read_dir(restored.path()).unwrap().count(), 0, "nothing was left");
    restore(&to, &into, &with(Some(made.digest), &early), fixture::now()).await.unwrap();

    // The restored deployment is the same one: people, projects, data, receipt, and a log that goes on.
    stage.world.elsewhere(restored).await;
    let ann = stage.world.again(&stage.ann);
    let mut there = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ann.get(&format!("/v1/projects?limit=1000{cursor}")).await.ok();
        there.extend(page["items"].as_array().unwrap().iter().map(|project| project["name"].as_str().unwrap().to_owned()));
        match page["cursor"].as_str().filter(|_| page["truncated"] == json!(true)) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    for name in &before {
        assert!(there.contains(name), "acknowledged before the backup and gone: {name}");
    }
    let receipt = ann.get(&format!("/v1/jobs/{}/receipt", attempt.job)).await.bytes;
    assert_eq!(receipt, file);
    let deployment = ann.get("/v1/deployment").await.bytes;
    assert!(receipt::verify(&receipt, &deployment, Some(&stage.world.pin), Some(fixture::now())).ok);
    let read = ann.lease(stage.data, Read).await.ok().unwrap();
    assert_eq!(read_file(&ann.port(stage.data, read.lease.id), &read, "a.csv").await, b"canary-of-the-data");
    ann.project("after-the-restore").await;
    checkpoint_beyond(&ann, made.manifest.entries).await;
}

#[tokio::test]
async fn what_is_no_deployment_is_not_backed_up() {
    let apart = tempfile::tempdir().unwrap();
    let none = backup(apart.path(), &apart.path().join("backup"), fixture::now(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(none, BackupFailed::Files(BackupError::NoDatabase(_))) && none.to_string().contains("PostgreSQL"), "{none}");
    let store = store::Store::open(store::StoreConfig::new(apart.path().join("state.db"))).await.unwrap();
    let unborn = backup(apart.path(), &apart.path().join("backup"), fixture::now(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(unborn, BackupFailed::Unborn(_)), "{unborn}");
    store.close().await;
    let left = std::fs::read_dir(apart.path()).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("backup"));
    assert!(!left, "nothing was left");
    let none = restore(apart.path(), &apart.path().join("restored"), &Known::default(), fixture::now()).await.unwrap_err();
    assert!(matches!(none, BackupFailed::Files(BackupError::NoBackup(_))), "{none}");
}
