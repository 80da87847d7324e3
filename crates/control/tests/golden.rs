//! Makes a deployment as it stands on disk: `cargo xtask golden` keeps one in `testdata`, and every version must start on it
//! (`src/tests/golden.rs`). Without being asked to keep it, this checks that it can still be made with the same parts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets what it did not expect shall fail there, also in what its functions share"
)]

mod fixture;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fixture::{PASSPHRASE, PASSWORD, World, exit, submit, wait_for, write_file};
use serde_json::{Value, json};
use vocabulary::job::{ExitReason, JobState};
use vocabulary::lease::LeaseMode::{Read, Write};
use vocabulary::volume::RootHead;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A tenant's data set, a job that read it and wrote another, its receipt, a log that is published.
async fn made() -> (tempfile::TempDir, Value) {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let ann = world.tenant(&operator, "acme", "ann").await;
    let node = world.node(&operator, "one", "EU").await;
    let project = ann.project("research").await;
    let (image, _) = ann.image("train").await;
    let (data, model) = (ann.volume(&project, "data").await, ann.volume(&project, "model").await);
    ann.put_file(data, "a.csv", b"a,b\n1,2\n").await;
    let inputs = json!([{ "volume": data, "name": "data" }]);
    let job = submit(&ann, &project, image, inputs, json!([{ "volume": model, "name": "model" }])).await;
    let planned = node.planned(job, |_| true).await;
    let attempt = planned.attempt;
    node.report(&[(attempt, JobState::Running, None)]).await.ok();
    let read = node.lease(attempt, data, Read).await.ok().unwrap();
    let signed = node.port(attempt, data, read.lease.id).try_get(&format!("chain/{:020}", read.lease.head.seq)).await.bytes;
    let written = node.lease(attempt, model, Write).await.ok().unwrap();
    let record = write_file(&node.port(attempt, model, written.lease.id), &written, "weights", b"1.0").await;
    let committed = node.commit(attempt, &written, &record).await.ok();
    let head: RootHead = serde_json::from_value(committed["head"].clone()).unwrap();
    let done = exit(ExitReason::Completed, 0);
    node.report(&[(attempt, JobState::Exited, Some(done.clone()))]).await.ok();
    let uses = (vec![read.used("data", &read.lease.head, Some(&signed))], vec![written.used("model", &head, Some(&record))]);
    node.state(attempt, &node.statement(&planned, done, uses.0, uses.1)).await.ok();
    let path = format!("/v1/jobs/{job}/receipt");
    let receipt = wait_for("a receipt", || async { Some(ann.get(&path).await).filter(|answer| answer.status == 200).map(|answer| answer.text()) }).await;
    let facts = json!({
        "version": 1, "passphrase": PASSPHRASE, "pin": world.pin, "person": "ann", "password": PASSWORD, "authenticator": ann.authenticator,
        "tenant": "acme", "project": project, "data": data, "model": model, "job": job, "receipt": receipt,
        "deployment": ann.get("/v1/deployment").await.text(), "checkpoint": ann.get("/v1/log/checkpoint").await.text(), "time": fixture::now(),
    });
    (world.stop().await, facts)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_made() {
    let (dir, facts) = made().await;
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best()));
    archive.append_dir_all("server", dir.path().join("server")).unwrap();
    let packed = archive.into_inner().unwrap().finish().unwrap();
    assert!(packed.len() < 1 << 20, "{} bytes: it is kept for ever", packed.len());
    if std::env::var_os("SWARM_KEEP_GOLDEN").is_some() {
        std::fs::create_dir_all(testdata("")).unwrap();
        std::fs::write(testdata("deployment-1.tar.gz"), packed).unwrap();
        std::fs::write(testdata("deployment-1.json"), serde_json::to_vec_pretty(&facts).unwrap()).unwrap();
    }
    // The kept one has the same parts: the names of the facts, and the kinds of files.
    let kept: Value = serde_json::from_slice(&std::fs::read(testdata("deployment-1.json")).unwrap()).unwrap();
    let names = |facts: &Value| facts.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&kept), names(&facts));
}
