//! A deployment as an earlier version left it: this one opens it, brings it up to date, serves it, and proves its log.
//!
//! Certificates are judged at the time of the deployment, so that the test means the same in years to come.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use audit::note::Note;
use audit::{Checkpoint, TilePath, TileReader, VerifierKey};
use identity::TotpSecret;
use identity::tls::{KeyExchange, Trust, cli_client_config};
use rustls::time_provider::TimeProvider;
use serde_json::{Value, json};
use vocabulary::{Sha256Digest, TenantId, UnixTime};
use zeroize::Zeroizing;

use super::support::{client, config};
use crate::bootstrap::{self, Found};
use crate::server::{Prepared, launch};

/// The clock of the deployment.
#[derive(Debug)]
struct Then(u64);

impl TimeProvider for Then {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0)))
    }
}

/// The log's tiles in a folder of objects.
struct Folder(BTreeMap<String, Vec<u8>>);

impl Folder {
    fn read(log: &Path) -> Self {
        let (mut files, mut folders) = (BTreeMap::new(), vec![log.to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for item in std::fs::read_dir(folder).unwrap() {
                let path = item.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.strip_prefix(log).unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
                }
            }
        }
        Self(files)
    }
}

impl TileReader for Folder {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        std::iter::once(*path).chain(path.with_width(256)).find_map(|path| self.0.get(&path.to_string()).cloned())
    }
}

/// The folder in which the tiles lie, wherever the objects are.
fn log_below(folder: &Path) -> std::path::PathBuf {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name == "log") {
                return path;
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    panic!("there are no tiles")
}

fn base32(text: &str) -> [u8; 20] {
    let mut bits = 0_u64;
    let mut out = Vec::new();
    for (place, letter) in text.chars().enumerate() {
        bits = (bits << 5) | "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(letter).unwrap() as u64;
        if place % 8 == 7 {
            out.extend_from_slice(&bits.to_be_bytes()[3..]);
        }
    }
    out.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_version_1_is_opened_served_and_proved() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let facts: Value = serde_json::from_slice(&std::fs::read(testdata.join("deployment-1.json")).unwrap()).unwrap();
    let fact = |name: &str| facts[name].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let packed = std::fs::read(testdata.join("deployment-1.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice())).unpack(dir.path()).unwrap();
    let data = dir.path().join("server");

    // Opened, and brought up to date. A start with the wrong passphrase opens nothing.
    let prepared = Prepared::open(config(&data, None)).await.unwrap();
    let Found::Closed(closed) = &prepared.found else { panic!("no deployment was found") };
    assert!(bootstrap::open_with_passphrase(closed.seal.file.clone(), Zeroizing::new("wrong".to_owned())).await.is_err());
    let seal = bootstrap::open_with_passphrase(closed.seal.file.clone(), Zeroizing::new(fact("passphrase"))).await.unwrap();
    let (store, blobs, closed) = (prepared.store.clone(), prepared.blobs.clone(), closed.clone());
    let then = store.high_water();
    let settings = config(&data, None);
    let opened = bootstrap::open(&store, &blobs, *closed, seal, &settings.admin, then).await.unwrap();
    let log: VerifierKey = audit::key::verifier_of(&opened.log, audit::key::KeyKind::Ed25519).unwrap();
    let server = launch(settings, store, blobs, opened, then).await.unwrap();
    let pin: Sha256Digest = fact("pin").parse().unwrap();
    assert_eq!(server.pin(), &pin);

    // Served: a person of then comes in with password and authenticator, and finds everything.
    let http = client(cli_client_config(Trust::Pin(pin), KeyExchange::default(), Arc::new(Then(then.millis()))).unwrap());
    let url = format!("https://{}", server.address());
    let totp = TotpSecret::from_bytes(base32(&fact("authenticator")));
    let step = crate::clock::now().seconds() / 30;
    let code = totp.code_at(UnixTime::from_millis(step * 30_000)).unwrap();
    let login = json!({ "name": fact("person"), "password": fact("password"), "code": code, "as": { "tenant": fact("tenant") } });
    let answer = http.post(format!("{url}/v1/login")).json(&login).send().await.unwrap();
    let answer: Value = answer.error_for_status().unwrap().json().await.unwrap();
    let token = answer["token"].as_str().unwrap().to_owned();
    let get = async |path: String| {
        let answer = http.get(format!("{url}{path}")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    };
    let read = async |path: String| serde_json::from_str::<Value>(&get(path).await).unwrap();
    let projects = read("/v1/projects".to_owned()).await;
    let there = |project: &Value| project["id"] == facts["project"] && project["name"] == "research";
    assert!(projects["items"].as_array().unwrap().iter().any(there), "{projects}");
    for (volume, name) in [("data", "data"), ("model", "model")] {
        assert_eq!(read(format!("/v1/volumes/{}", fact(volume))).await["spec"]["name"], name);
    }
    let job = read(format!("/v1/jobs/{}", fact("job"))).await;
    assert_eq!(job["exit"]["reason"], "completed", "{job}");
    // Written to, as well.
    let made = http.post(format!("{url}/v1/projects")).bearer_auth(&token).json(&json!({ "name": "later" })).send().await.unwrap();
    assert_eq!(made.status(), 200);

    // Every key opens under the one above it.
    let control = Arc::clone(server.control());
    let tenant: TenantId = read("/v1/whoami".to_owned()).await["tenant"].as_str().unwrap().parse().unwrap();
    let keys = control.all_keys(tenant).await.unwrap();
    let kek = keys.iter().find(|key| key.record.purpose == keys::Purpose::TenantKek).unwrap();
    let plain = control.vault.open_under_root(&kek.record).unwrap();
    let parent = || keys::record::Parent { id: kek.record.id, version: kek.record.version, key: &plain };
    let under = keys.iter().filter(|key| key.record.kek == kek.record.id && key.record.wrapped.is_some());
    let opened = under.inspect(|key| drop(key.record.rewrap(&parent(), &parent(), &mut keys::SystemRandom).unwrap())).count();
    assert!(opened >= 2, "a key for each volume");

    // The old receipt is the same bytes, and verifies as it did.
    let receipt = get(format!("/v1/jobs/{}/receipt", fact("job"))).await;
    assert_eq!(receipt, fact("receipt"));
    for deployment in [fact("deployment"), get("/v1/deployment".to_owned()).await] {
        let report = receipt::verify(receipt.as_bytes(), deployment.as_bytes(), Some(&pin), Some(then));
        assert!(report.ok, "{report:?}");
    }
    assert!(!receipt::verify(receipt.replacen("{\"", "{ \"", 1).as_bytes(), fact("deployment").as_bytes(), Some(&pin), Some(then)).ok);
    server.stop().await;

    // The log of today extends the one of then, by its tiles and both signatures.
    let store = store::Store::open(store::StoreConfig::new(data.join("state.db"))).await.unwrap();
    let newest = store.publisher().await.unwrap().unwrap();
    assert_eq!(newest.size, store.entry_count().await.unwrap(), "all of it was published at the end");
    store.close().await;
    let checked = |note: &[u8]| Checkpoint::verify(&Note::parse(note).unwrap(), &log, &[]).unwrap().0;
    let (old, new) = (checked(fact("checkpoint").as_bytes()), checked(&newest.checkpoint));
    assert!(new.size > old.size && old.size > 10);
    let tiles = Folder::read(&log_below(&data));
    assert_eq!(audit::prove::root(&tiles, new.size).unwrap(), new.root);
    assert_eq!(audit::prove::root(&tiles, old.size).unwrap(), old.root);
    let proof = audit::prove::prove_consistency(&tiles, old.size, new.size).unwrap();
    audit::merkle::verify_consistency(old.size, &old.root, new.size, &new.root, &proof).unwrap();
}
