//! Starts that are refused: each with its error, nothing changed. And a disk that fills up under a running server.

use std::path::Path;
use std::process::Command;

use control::{Server, StartError};
use serde_json::json;
use vocabulary::Profile;
use zeroize::Zeroizing;

use super::support::{Ask, Person, Running, config, now};

/// All files below a folder with their bytes, but for the store's own notes beside the database.
fn snapshot(folder: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with("-shm") && !path.to_string_lossy().ends_with("-wal") {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

async fn stopped() -> tempfile::TempDir {
    Running::start().await.stop().await
}

async fn refusal(folder: &Path, change: fn(&mut control::ServerConfig)) -> StartError {
    let mut config = config(folder);
    change(&mut config);
    match Server::start(config).await {
        Err(error) => error,
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_changes_nothing() {
    let folder = stopped().await;
    let before = snapshot(folder.path());
    for wrong in ["wrong", "a passphrase for the test", "A passphrase for the tests", " a passphrase for the tests"] {
        let mut config = config(folder.path());
        config.passphrase = Zeroizing::new(wrong.to_owned());
        let error = Server::start(config).await.err().unwrap();
        assert!(matches!(error, StartError::Seal(keys::seal::SealError::Wrong)), "{error:?}");
        assert!(!error.to_string().contains(wrong));
    }
    assert!(snapshot(folder.path()) == before, "a refused start changed a file");
    Running::start_in(folder).await.unwrap().stop().await;
}

/// Whoever may ask finds a log: at birth, and on the copy of a server that held the publisher's lease.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_published_before_the_first_answer() {
    let size = async |server: &Running| {
        let answer = server.ask(None, Ask::get("/v1/log/checkpoint")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // The second line of a checkpoint is its size (C2SP tlog-checkpoint).
        answer.text().lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let server = Running::start().await;
    assert!(size(&server).await > 0);
    let (backup, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = backup.path().join("backup");
    let made = control::backup::backup(&config(server.folder.path()).data_dir, &to, now(), &mut |_| ()).await.unwrap();
    control::backup::restore(&to, &config(restored.path()).data_dir, &control::backup::Known::default(), now()).await.unwrap();
    server.stop().await;
    let again = Running::start_in(restored).await.unwrap();
    assert!(size(&again).await > made.manifest.entries, "the entry of this start is published");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_start_gives_a_ticket_until_the_first_administrator_has_enrolled() {
    let mut server = Running::start().await;
    let first = server.ticket();
    let mut server = Running::start_in(server.stop().await).await.unwrap();
    let second = server.ticket();
    assert_ne!(first, second);
    Person::enrol(&server, &second).await;
    // The ticket that was overtaken replaces no factors.
    let late = json!({ "ticket": first, "password": "another password for it", "code": "000000" });
    server.ask(None, Ask::post("/v1/enrolments/complete", late)).await.refused(401, "ticket_refused");
    let folder = server.stop().await;
    let mut server = Server::start(config(folder.path())).await.unwrap();
    assert!(server.take_ticket().is_none(), "somebody has enrolled");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_never_change() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(folder.path(), |config| config.profile = Some(Profile::Production)).await;
    assert!(matches!(error, StartError::PasskeyRequired), "{error:?}");
    assert!(error.to_string().starts_with("passkey_required"));
    // The refusal left nothing that would bind the next start.
    let folder = Running::start_in(folder).await.unwrap().stop().await;
    let error = refusal(folder.path(), |config| config.profile = Some(Profile::Production)).await;
    assert!(matches!(error, StartError::OtherProfile(Profile::Development)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_and_missing_state() {
    for (what, damage) in [
        ("garbage", (|database, _| std::fs::write(database, vec![0x5a; 8192]).unwrap()) as fn(&Path, &Path)),
        ("half a database", |database, _| {
            let bytes = std::fs::read(database).unwrap();
            std::fs::write(database, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("a page of noise", |database, _| {
            let mut bytes = std::fs::read(database).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..middle + 4096].fill(0xa5);
            std::fs::write(database, bytes).unwrap();
        }),
        ("no objects", |_, objects| std::fs::remove_dir_all(objects).unwrap()),
        ("no database", |database, _| std::fs::remove_file(database).unwrap()),
    ] {
        let folder = stopped().await;
        let server = folder.path().join("server");
        damage(&server.join("state.db"), &server.join("objects"));
        for beside in ["state.db-wal", "state.db-shm"] {
            let _absent = std::fs::remove_file(server.join(beside));
        }
        let Err(error) = Server::start(config(folder.path())).await else { panic!("{what}: it started") };
        assert!(
            matches!(error, StartError::Store(_) | StartError::Mismatch(_) | StartError::Seal(_) | StartError::Blobs(_)),
            "{what}: {error:?}"
        );
        assert!(error.to_string().len() > 20, "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(folder.path());
    config.listen = taken.local_addr().unwrap();
    let error = Server::start(config).await.err().unwrap();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains("another server"));
}

/// Two servers on one folder would be two writers.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_state() {
    let mut running = Running::start().await;
    let error = refusal(running.folder.path(), |_| ()).await;
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    let ticket = running.ticket();
    Person::enrol(&running, &ticket).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back() {
    let folder = stopped().await;
    let store = store::Store::open(store::StoreConfig::new(folder.path().join("server/state.db"))).await.unwrap();
    let tomorrow = now().plus_millis(86_400_000);
    let subject = store::DelaySubject::Unknown("nobody".into());
    let turn = store::Mutation::TakeLoginTurn { subject, delays_ms: vec![0] };
    let mut entry = entry_at(tomorrow);
    entry.tenant = vocabulary::SYSTEM_OWNER;
    let encoded = entry.encode(&mut |bytes| bytes.fill(7)).unwrap();
    store.commit(store::Transaction::new().with(turn).entry(encoded), tomorrow).await.unwrap();
    store.close().await;
    let error = refusal(folder.path(), |_| ()).await;
    assert!(matches!(error, StartError::ClockBack(behind) if behind > 80_000_000), "{error:?}");
    assert!(error.to_string().contains("set the clock right"));
}

fn entry_at(time: vocabulary::UnixTime) -> audit::Entry {
    audit::Entry {
        id: vocabulary::EntryId::new(time, [1; 10]),
        time,
        tenant: vocabulary::SYSTEM_OWNER,
        producer: audit::entry::Producer { name: "test".into(), sequence: 1 },
        actor: audit::Actor::System,
        source: audit::Source::Internal,
        outcome: audit::Outcome::Success,
        action: None,
        event: audit::Event::Heartbeat { size: 1 },
        personal: Vec::new(),
    }
}

/// A small file system of memory; gone when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()).status().unwrap();
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_too_small_to_start_on() {
    let small = Small::mount("64k");
    let error = refusal(small.0.path(), |_| ()).await;
    assert!(matches!(error, StartError::Store(_) | StartError::Blobs(_) | StartError::File { .. } | StartError::Internal(_)), "{error:?}");
}

/// While the disk is full, changes are refused by name and nothing is half done; then everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up() {
    let small = Small::mount("24m");
    let mut server = Server::start(config(small.0.path())).await.unwrap();
    let (http, tls) = super::support::client(&server);
    let url = format!("https://127.0.0.1:{}", server.address().port());
    let ticket = server.take_ticket().unwrap().to_string();
    let running = Running { server: Some(server), http, url, tls, folder: tempfile::tempdir().unwrap() };
    let mut ada = Person::enrol(&running, &ticket).await;
    let token = ada.login(&running, json!("operator")).await;
    let create = |n: usize| Ask::post("/v1/tenants", json!({ "name": format!("tenant-{n}"), "admin": format!("admin-{n}") }));
    running.ask(Some(&token), create(0)).await.good();

    let filler = small.0.path().join("filler");
    let fill = || {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        for size in [1 << 16, 1 << 12, 1 << 8, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    };
    let mut refused = None;
    let mut made = 1;
    for n in 1..200 {
        fill();
        let answer = running.ask(Some(&token), create(n)).await;
        if answer.status.is_success() {
            made += 1;
            continue;
        }
        answer.refused(507, "storage_failed");
        refused = Some(n);
        break;
    }
    let refused = refused.expect("the disk never filled up");
    // Reading still works, and shows what was acknowledged and nothing else.
    let listed = running.ask(Some(&token), Ask::get("/v1/tenants?limit=1000")).await.good();
    assert_eq!(listed["items"].as_array().unwrap().len(), made);
    assert!(!listed.to_string().contains(&format!("tenant-{refused}\"")));
    std::fs::remove_file(&filler).unwrap();
    // The same request again: nothing of the first try stands in its way.
    running.ask(Some(&token), create(refused)).await.good();
    let listed = running.ask(Some(&token), Ask::get("/v1/tenants?limit=1000")).await.good();
    assert_eq!(listed["items"].as_array().unwrap().len(), made + 1);
    running.stop().await;
}

/// Copies the database as a backup of a stopped server would.
fn copy_database(from: &Path, to: &Path) {
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_older_than_the_published_log_signs_no_second_history() {
    let folder = stopped().await;
    let (older, newest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy_database(&folder.path().join("server"), older.path());
    // The log goes on: a start is an entry, and it is published.
    let store = store::Store::open(store::StoreConfig::new(older.path().join("state.db"))).await.unwrap();
    let entries = store.entry_count().await.unwrap();
    store.close().await;
    let running = Running::start_in(folder).await.unwrap();
    running.published_beyond(entries).await;
    let folder = running.stop().await;
    copy_database(&folder.path().join("server"), newest.path());
    copy_database(older.path(), &folder.path().join("server"));
    let before = snapshot(&folder.path().join("server/objects"));
    for _ in 0..2 {
        let error = refusal(folder.path(), |_| ()).await;
        assert!(matches!(error, StartError::LogAhead { published, entries } if published > entries), "{error:?}");
        assert!(error.to_string().contains("restore the newest copy"), "{error}");
    }
    assert!(snapshot(&folder.path().join("server/objects")) == before, "a refused start published something");
    copy_database(newest.path(), &folder.path().join("server"));
    Running::start_in(folder).await.unwrap().stop().await;
}
