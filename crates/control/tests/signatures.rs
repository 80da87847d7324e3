//! The image policy over the API: who must have signed, what is refused by which words, and what the receipt proves.
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

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fixture::{World, exit, wait_for};
use receipt::Verdict;
use serde_json::{Value, json};
use vocabulary::job::{ExitReason, JobState};
use vocabulary::{JobId, Sha256Digest};

/// Runs OpenSSL: the signer is not ours.
fn openssl(arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A key pair on P-256 or Ed25519; gives the public half.
fn key(folder: &Path, name: &str, kind: &str) -> String {
    let (private, public) = (folder.join(name), folder.join(format!("{name}.pub")));
    let curve: &[&str] = if kind == "EC" { &["-pkeyopt", "ec_paramgen_curve:P-256"] } else { &[] };
    openssl(&[&["genpkey", "-algorithm", kind, "-out", private.to_str().unwrap()], curve].concat());
    openssl(&["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
    std::fs::read_to_string(public).unwrap()
}

/// A signature in cosign's form.
fn signed(folder: &Path, name: &str, kind: &str, image: &Sha256Digest, reference: &str) -> Value {
    let payload = json!({
        "critical": { "identity": { "docker-reference": reference }, "image": { "docker-manifest-digest": image }, "type": "cosign container image signature" },
        "optional": null,
    })
    .to_string();
    let [private, input, output] = [name, "payload", "signature"].map(|file| folder.join(file).to_str().unwrap().to_owned());
    std::fs::write(&input, &payload).unwrap();
    match kind {
        "EC" => openssl(&["dgst", "-sha256", "-sign", &private, "-out", &output, &input]),
        _ => openssl(&["pkeyutl", "-sign", "-inkey", &private, "-rawin", "-in", &input, "-out", &output]),
    }
    json!({ "payload": STANDARD.encode(&payload), "signature": STANDARD.encode(std::fs::read(output).unwrap()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_only_what_the_policys_signers_signed() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let mut ann = world.tenant(&operator, "acme", "ann").await;
    let node = world.node(&operator, "one", "EU").await;
    let project = ann.project("research").await;
    let (image, _) = ann.image("train").await;
    let folder = tempfile::tempdir().unwrap();
    let (build, review) = (key(folder.path(), "build", "EC"), key(folder.path(), "review", "ED25519"));
    let stranger = key(folder.path(), "stranger", "EC");

    // What is malformed is refused, and nothing changes.
    let signer = |name: &str, key: &str| json!({ "name": name, "key": key, "references": ["registry.example/tools/"] });
    for (policy, words) in [
        (json!({ "required": 2, "signers": [signer("build", &build)] }), "`required`"),
        (json!({ "required": 0, "signers": [signer("build", &build)] }), "`required`"),
        (json!({ "required": 1, "signers": [signer("build", "no key")] }), "PEM"),
        (json!({ "required": 1, "signers": [signer("build", &build), signer("again", &build)] }), "stands twice"),
        (json!({ "required": 1, "signers": [{ "name": "build", "key": build, "references": ["a b"] }] }), "`references`"),
    ] {
        ann.send("PUT", "/v1/image-policy", Some(&policy)).await.refused("invalid_request", words);
    }
    assert_eq!(ann.get("/v1/image-policy").await.ok()["policy"], json!({ "required": 0, "signers": [] }));
    let policy = json!({ "required": 2, "signers": [signer("build", &build), signer("review", &review)] });
    ann.send("PUT", "/v1/image-policy", Some(&policy)).await.refused("step_up_required", "");
    ann.confirmed("PUT", "/v1/image-policy", Some(&policy)).await;
    assert_eq!(ann.get("/v1/image-policy").await.ok()["policy"], policy);

    let submit = || async {
        let spec = json!({ "name": "j", "image": image, "command": ["train"], "purpose": "research", "sensitivity": "internal" });
        ann.post("/v1/jobs", json!({ "project": project, "spec": spec })).await
    };
    let add = |signature: Value| {
        let (ann, path) = (&ann, format!("/v1/images/{image}/signatures"));
        async move { ann.post(&path, json!({ "signatures": [signature] })).await.ok() }
    };
    let of = |name: &str, kind: &str, image: &Sha256Digest, reference: &str| signed(folder.path(), name, kind, image, reference);
    let (here, other) = ("registry.example/tools/python", Sha256Digest::from_bytes([7; 32]));
    submit().await.refused("release_refused", "it is unsigned");
    add(of("stranger", "EC", &image, here)).await;
    submit().await.refused("release_refused", "by no key of the policy");
    add(of("build", "EC", &other, here)).await;
    submit().await.refused("release_refused", "the payload is about");
    add(of("build", "EC", &image, "registry.example/other")).await;
    submit().await.refused("release_refused", "which the policy does not name");
    add(of("build", "EC", &image, here)).await;
    submit().await.refused("release_refused", "1 of 2 signers");
    add(of("review", "ED25519", &image, here)).await;
    let nobody = format!("/v1/images/{other}/signatures");
    assert_eq!(ann.post(&nobody, json!({ "signatures": [] })).await.status, 404);
    let path = format!("/v1/images/{image}/signatures");
    ann.post(&path, json!({ "signatures": [{ "payload": "?", "signature": "AAAA" }] })).await.refused("invalid_request", "base64");
    drop(stranger);

    let job: JobId = serde_json::from_value(submit().await.ok()["id"].clone()).unwrap();
    let planned = node.planned(job, |_| true).await;
    node.report(&[(planned.attempt, JobState::Running, None)]).await.ok();
    let done = exit(ExitReason::Completed, 0);
    node.report(&[(planned.attempt, JobState::Exited, Some(done.clone()))]).await.ok();
    node.state(planned.attempt, &node.statement(&planned, done, vec![], vec![])).await.ok();
    let receipt = wait_for("the receipt", || async {
        let answer = ann.get(&format!("/v1/jobs/{job}/receipt")).await;
        (answer.status == 200).then_some(answer.bytes)
    })
    .await;
    let report = receipt::verify(&receipt, &ann.get("/v1/deployment").await.bytes, None, None);
    assert!(report.ok, "{report:?}");
    let lines: Vec<_> = report.lines.iter().filter(|line| line.claim.starts_with("the image was signed by")).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.verdict == Verdict::Proved && line.detail.contains(here)), "{lines:?}");
}
