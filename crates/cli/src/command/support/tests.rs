//! Bundles of folders that somebody filled with canaries: none comes out, and what comes out is what the manifest says.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;
use crate::output::{Format, Output};

/// The members of a bundle, by name.
fn opened(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap());
    let mut members = BTreeMap::new();
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let header = member.header().clone();
        assert_eq!((header.uid().unwrap(), header.mtime().unwrap(), header.mode().unwrap()), (0, 0, 0o600));
        let name = member.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        members.insert(name, bytes);
    }
    members
}

fn app(folder: &Path) -> App {
    App {
        contexts: crate::context::Contexts::new(Some(folder.join("config"))),
        context_name: "default".to_owned(),
        output: Output { format: Format::Json, quiet: true },
        no_input: true,
        otlp: None,
        tracer: telemetry::Tracer::off(),
    }
}

fn verb(folder: &Path, to: &str) -> SupportVerb {
    SupportVerb::Bundle { to: folder.join(to), server_dir: folder.join("server"), node_dir: folder.join("node"), log: Vec::new() }
}

#[tokio::test]
async fn folders_full_of_canaries_give_a_bundle_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for name in ["server/state.db", "server/state.db-wal", "server/objects/canary/x", "server/objects/log/cosigned", "server/objects/log/canary", "node/node.json", "node/tls.json", "node/log/pending"] {
        write(name, "canary");
    }
    write("server/objects/seal/passphrase.json", "{\"canary\":1}");
    write("server/settings.json", "{\"version\":1,\"listen\":\"canary\"}");
    write("node/settings.json", "canary");
    write("server/endpoints.json", "{\"version\":1,\"api\":\"canary\",\"node\":\"canary\",\"metrics\":\"http://canary/metrics\",\"ca_pin\":\"canary\",\"pid\":1,\"profile\":\"canary\"}");
    write("log/server.log", "canary\n2026-11-25T14:30:28Z ERROR control::publisher: the log was not published error=canary\n");
    support(&app(folder.path()), verb(folder.path(), "bundle")).await.unwrap();
    let members = opened(&folder.path().join("bundle"));
    for (name, bytes) in &members {
        assert!(!String::from_utf8_lossy(bytes).contains("canary"), "{name}");
    }
    let manifest: serde_json::Value = serde_json::from_slice(&members["swarm-support/manifest.json"]).unwrap();
    assert_eq!((&manifest["format"], &manifest["version"]), (&"swarm-support-bundle".into(), &1.into()));
    let listed = manifest["files"].as_array().unwrap();
    assert_eq!(listed.len(), members.len() - 1);
    for file in listed {
        let bytes = &members[&format!("swarm-support/{}", file["name"].as_str().unwrap())];
        let digest = Sha256Digest::from_bytes(audit::hash::sha256(&[bytes]));
        assert_eq!((file["sha256"].as_str().unwrap(), file["bytes"].as_u64().unwrap()), (digest.to_string().as_str(), bytes.len() as u64));
    }
    let left_out: Vec<&str> = manifest["left_out"].as_array().unwrap().iter().filter_map(|left| left["what"].as_str()).collect();
    for name in ["server-settings.json", "node-settings.json", "metrics.txt"] {
        assert!(left_out.contains(&name), "{name} is not there, and that is said: {left_out:?}");
    }
    let server: serde_json::Value = serde_json::from_slice(&members["swarm-support/server.json"]).unwrap();
    assert_eq!((&server["database_absent"], &server["seal"]["kind"]), (&"the file is no database".into(), &"unreadable".into()));
    let log = String::from_utf8_lossy(&members["swarm-support/log-1.jsonl"]).into_owned();
    assert!(log.contains("the log was not published"), "{log}");
}

#[tokio::test]
async fn a_taken_name_and_empty_folders_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(support(&app(folder.path()), verb(folder.path(), "bundle")).await.unwrap_err().exit, 3);
    for part in ["server", "node"] {
        std::fs::create_dir(folder.path().join(part)).unwrap();
    }
    assert_eq!(support(&app(folder.path()), verb(folder.path(), "bundle")).await.unwrap_err().exit, 3);
    assert!(!folder.path().join("bundle").exists() && !folder.path().join("bundle.partial").exists());
    std::fs::write(folder.path().join("there"), "mine").unwrap();
    assert_eq!(support(&app(folder.path()), verb(folder.path(), "there")).await.unwrap_err().exit, 5);
    assert_eq!(std::fs::read(folder.path().join("there")).unwrap(), b"mine");
}

#[test]
fn what_does_not_fit_is_left_out_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::default();
    bundle.add("small", vec![0; 10]);
    bundle.add("large", vec![0; 9 << 20]);
    let path = folder.path().join("bundle");
    let (manifest, _) = bundle.write(&path, now()).unwrap();
    assert_eq!((manifest.files.len(), manifest.left_out[0].what), (1, "large"));
    assert_eq!(opened(&path).len(), 2);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
}
