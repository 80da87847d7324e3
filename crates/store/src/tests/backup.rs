//! Backups: one state while others write, nothing that is damaged or half written passes, nothing is written over.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use vocabulary::Sha256Digest;

use super::{NOW, Opened, Seeded, entry, id, put, tenant};
use crate::backup::{Backup, BackupError, DATABASE, FORMAT, Manifest, OBJECTS, Snapshot, VERSION, Writing, look, snapshot};
use crate::{Blobs, Expect, Kind, Mutation, Store, StoreConfig, Transaction};

const OBJECT_COUNT: u64 = 12;
/// Tells the child of the test with kills which folder it backs up, and where to.
const PLACE: &str = "SWARM_BACKUP_KILL_PLACE";
const ROUNDS: u64 = 24;

/// A database with a few rows and entries, and objects in the folder `objects` beside it.
async fn deployment() -> Opened {
    let opened = Opened::new().await;
    for number in 0..20 {
        opened.commit(Transaction::new().with(put(tenant(1), number, Expect::Absent)).entry(entry(tenant(1), number))).await.unwrap();
    }
    let blobs = Blobs::local(&opened.folder.path().join(OBJECTS)).unwrap();
    for number in 0..OBJECT_COUNT {
        let bytes = vec![u8::try_from(number).unwrap(); 3000 + usize::try_from(number).unwrap()];
        blobs.put(&format!("data/{number}/{number:04x}").parse().unwrap(), bytes.into()).await.unwrap();
    }
    opened
}

fn manifest(state: &Snapshot) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        swarm: "0".to_owned(),
        created: NOW,
        deployment: "d".to_owned(),
        profile: "development".to_owned(),
        schema: state.schema,
        entries: state.entries,
        published: state.published,
        files: 0,
        bytes: 0,
        list: Sha256Digest::from_bytes([0; 32]),
    }
}

async fn backed_up(folder: &Path, to: &Path, step: &mut dyn FnMut(&str)) -> (Manifest, Sha256Digest) {
    let mut writing = Writing::begin(to).unwrap();
    step("begun");
    let state = snapshot(&folder.join("swarm.db"), &writing.place(DATABASE)).await.unwrap();
    step("snapshot");
    writing.made(DATABASE).unwrap();
    for name in Writing::objects(&folder.join(OBJECTS)).unwrap() {
        assert!(writing.object(&folder.join(OBJECTS), &name).unwrap());
        step(name.as_str());
    }
    let ended = writing.end(manifest(&state)).unwrap();
    step("ended");
    ended
}

/// A backup of a small deployment, in a folder of its own.
async fn backup() -> (tempfile::TempDir, PathBuf) {
    let opened = deployment().await;
    let apart = tempfile::tempdir().unwrap();
    let to = apart.path().join("backup");
    backed_up(opened.folder.path(), &to, &mut |_| ()).await;
    (apart, to)
}

/// Why nothing is restored; and nothing is there afterwards.
fn refused(from: &Path) -> BackupError {
    let apart = tempfile::tempdir().unwrap();
    let into = apart.path().join("restored");
    let error = match Backup::open(from) {
        Err(error) => error,
        Ok(backup) => match backup.verify() {
            Err(error) => error,
            Ok(()) => panic!("{} passes for a backup", from.display()),
        },
    };
    // Who would not look first: what differs is found while it is copied, and is taken away again.
    if let Ok(backup) = Backup::open(from)
        && backup.restore(&into).is_err()
    {
        assert_eq!(std::fs::read_dir(apart.path()).unwrap().count(), 0, "something was left");
    }
    error
}

fn names(from: &Path, bytes: &[u8], file: &str) {
    match refused(from) {
        BackupError::Damaged { file: told, .. } => assert_eq!(told, file),
        // Another version or format is told before anything else is believed.
        other => panic!("{other}, changed {} bytes", bytes.len()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_backup_is_in_it() {
    let opened = deployment().await;
    let apart = tempfile::tempdir().unwrap();
    let to = apart.path().join("backup");
    let (acknowledged, stop) = (std::sync::Arc::new(Mutex::new(Vec::new())), std::sync::Arc::new(AtomicBool::new(false)));
    let mut writers = JoinSet::new();
    for writer in 2..8 {
        let (store, acknowledged, stop) = (opened.store.clone(), std::sync::Arc::clone(&acknowledged), std::sync::Arc::clone(&stop));
        writers.spawn(async move {
            for round in 0_u64.. {
                let number = writer * 1_000_000 + round;
                let advance = Mutation::Advance { tenant: tenant(writer), kind: Kind::JOB, id: id(writer), from: round, to: round + 1 };
                let both = Transaction::new().with(put(tenant(writer), number, Expect::Absent)).with(advance).entry(entry(tenant(writer), number));
                store.commit(both, NOW).await.unwrap();
                acknowledged.lock().unwrap().push((writer, round));
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
    }
    let count = || acknowledged.lock().unwrap().len();
    while count() < 100 {
        tokio::task::yield_now().await;
    }
    let before = acknowledged.lock().unwrap().clone();
    let (manifest, _) = backed_up(opened.folder.path(), &to, &mut |_| ()).await;
    let during = count();
    while count() < during + 50 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    opened.store.close().await;

    let into = apart.path().join("restored");
    let backup = Backup::open(&to).unwrap();
    backup.verify().unwrap();
    backup.restore(&into).unwrap().end().unwrap();
    let store = Store::open(StoreConfig::new(into.join(DATABASE))).await.unwrap();
    assert_eq!(store.entry_count().await.unwrap(), manifest.entries);
    for (writer, round) in &before {
        assert!(store.position(tenant(*writer), Kind::JOB, id(*writer)).await.unwrap() > *round, "acknowledged and gone: {writer} {round}");
        assert!(store.get(tenant(*writer), Kind::JOB, id(writer * 1_000_000 + round)).await.unwrap().is_some());
    }
    // One state: each writer's rows, position and entries agree.
    for writer in 2..8 {
        let position = store.position(tenant(writer), Kind::JOB, id(writer)).await.unwrap();
        for (round, there) in [(position - 1, true), (position, false)] {
            let number = writer * 1_000_000 + round;
            assert_eq!(store.get(tenant(writer), Kind::JOB, id(number)).await.unwrap().is_some(), there);
            assert_eq!(store.entry_by_id(tenant(writer), entry(tenant(writer), number).id).await.unwrap().is_some(), there);
        }
    }
    let blobs = Blobs::local(&into.join(OBJECTS)).unwrap();
    assert_eq!(blobs.get(&"data/7/0007".parse().unwrap(), 4000).await.unwrap(), vec![7; 3007]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_anywhere_is_refused_and_its_file_is_named() {
    let (_apart, to) = backup().await;
    let mut files = vec!["manifest.json".to_owned(), "files.jsonl".to_owned(), DATABASE.to_owned()];
    files.extend((0..OBJECT_COUNT).map(|number| format!("{OBJECTS}/data/{number}/{number:04x}")));
    let mut seeded = Seeded(0xbac0);
    for file in &files {
        let path = to.join(file);
        let whole = std::fs::read(&path).unwrap();
        let length = whole.len() as u64;
        // Every byte of the manifest, and a sample of the others with both ends.
        let places: Vec<u64> = if file == "manifest.json" { (0..length).collect() } else { [0, length - 1].into_iter().chain((0..8).map(|_| seeded.below(length))).collect() };
        for place in places {
            let mut changed = whole.clone();
            changed[usize::try_from(place).unwrap()] ^= 1 << seeded.below(8);
            std::fs::write(&path, &changed).unwrap();
            names(&to, &changed, file);
        }
        for changed in [whole[..whole.len() - 1].to_vec(), Vec::new(), [whole.as_slice(), b"\n"].concat()] {
            std::fs::write(&path, &changed).unwrap();
            names(&to, &changed, file);
        }
        std::fs::remove_file(&path).unwrap();
        if file == "manifest.json" {
            assert!(matches!(refused(&to), BackupError::NoBackup(_)));
        } else {
            names(&to, &[], file);
            let beside = to.with_extension("beside");
            std::fs::write(&beside, &whole).unwrap();
            symlink(&beside, &path).unwrap();
            names(&to, &[], file);
            std::fs::remove_file(&path).unwrap();
            std::fs::remove_file(&beside).unwrap();
        }
        std::fs::write(&path, &whole).unwrap();
    }
    // Two files in each other's place, and one more than was backed up.
    let (one, two) = (to.join(&files[4]), to.join(&files[5]));
    let (first, second) = (std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    std::fs::write(&one, &second).unwrap();
    std::fs::write(&two, &first).unwrap();
    names(&to, &[], &files[4]);
    std::fs::write(&one, &first).unwrap();
    std::fs::write(&two, &second).unwrap();
    for more in ["more", "objects/data/more", "state.db-wal"] {
        std::fs::write(to.join(more), b"").unwrap();
        names(&to, &[], more);
        std::fs::remove_file(to.join(more)).unwrap();
    }
    Backup::open(&to).unwrap().verify().unwrap();
}

/// Writes list and manifest anew, as somebody would who doctors a backup and can compute digests.
fn doctored(to: &Path, list: &str, change: impl FnOnce(&mut serde_json::Value)) {
    use aws_lc_rs::digest::{SHA256, digest};
    let sha256 = |bytes: &[u8]| Sha256Digest::from_bytes(digest(&SHA256, bytes).as_ref().try_into().unwrap());
    std::fs::write(to.join("files.jsonl"), list).unwrap();
    let old = std::fs::read_to_string(to.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(old.lines().next().unwrap()).unwrap();
    manifest["list"] = serde_json::to_value(sha256(list.as_bytes())).unwrap();
    manifest["files"] = list.lines().count().into();
    change(&mut manifest);
    let line = format!("{manifest}\n");
    std::fs::write(to.join("manifest.json"), format!("{line}{}\n", sha256(line.as_bytes()))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_backup_leads_nowhere() {
    let (_apart, to) = backup().await;
    let list = std::fs::read_to_string(to.join("files.jsonl")).unwrap();
    doctored(&to, &list, |_| ());
    Backup::open(&to).unwrap().verify().unwrap();
    let line = list.lines().next().unwrap();
    let path = serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned();
    for name in ["objects/../outside", "../outside", "/outside", "objects//x", "objects/uploads/x", "objects", "state.db-wal", "objects/.x", "manifest.json"] {
        doctored(&to, &list.replacen(&path, name, 1), |_| ());
        names(&to, &[], "files.jsonl");
    }
    let last = list.lines().last().unwrap();
    let without_database = list.replace(&format!("{last}\n"), "");
    for list in [format!("{line}\n{list}"), "x".repeat(5000), String::new(), without_database, list.trim_end().to_owned()] {
        doctored(&to, &list, |_| ());
        names(&to, &[], "files.jsonl");
    }
    doctored(&to, &list, |manifest| manifest["files"] = 1.into());
    names(&to, &[], "files.jsonl");
    doctored(&to, &list, |manifest| manifest["bytes"] = 1.into());
    names(&to, &[], "files.jsonl");
    doctored(&to, &list, |manifest| manifest["more"] = 1.into());
    names(&to, &[], "manifest.json");
    for (field, value) in [("format", "other".into()), ("version", 2.into()), ("schema", 1_000_000.into())] {
        // Another format or version may have other fields; that it is another is told first.
        doctored(&to, &list, |manifest| {
            (manifest["format"], manifest["version"], manifest["schema"]) = (FORMAT.into(), VERSION.into(), 1.into());
            manifest[field] = value;
            if field == "schema" {
                manifest.as_object_mut().unwrap().remove("more");
            }
        });
        let error = refused(&to);
        assert!(matches!(error, BackupError::Foreign { .. }), "{error}");
    }
    std::fs::write(to.join("manifest.json"), vec![b' '; 1 << 20]).unwrap();
    names(&to, &[], "manifest.json");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over() {
    let opened = deployment().await;
    let apart = tempfile::tempdir().unwrap();
    let to = apart.path().join("backup");
    std::fs::create_dir(&to).unwrap();
    assert!(matches!(Writing::begin(&to), Err(BackupError::Exists(_))), "even an empty one");
    std::fs::remove_dir(&to).unwrap();
    symlink("nowhere", &to).unwrap();
    assert!(matches!(Writing::begin(&to), Err(BackupError::Exists(_))));
    std::fs::remove_file(&to).unwrap();
    drop(Writing::begin(&to).unwrap());
    assert!(matches!(Writing::begin(&to), Err(BackupError::Interrupted(_))));
    assert!(matches!(Backup::open(&to.with_extension("partial")), Err(BackupError::NoBackup(_))));
    std::fs::remove_dir_all(to.with_extension("partial")).unwrap();
    backed_up(opened.folder.path(), &to, &mut |_| ()).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&to), mode(&to.join(DATABASE)), mode(&to.join("manifest.json"))), (0o700, 0o600, 0o600));

    let backup = Backup::open(&to).unwrap();
    let into = apart.path().join("restored");
    std::fs::write(&into, b"").unwrap();
    assert!(matches!(backup.restore(&into), Err(BackupError::NotEmpty(_))));
    std::fs::remove_file(&into).unwrap();
    symlink("nowhere", &into).unwrap();
    assert!(matches!(backup.restore(&into), Err(BackupError::NotEmpty(_))));
    std::fs::remove_file(&into).unwrap();
    std::fs::create_dir(&into).unwrap();
    std::fs::write(into.join("mine"), b"mine").unwrap();
    assert!(matches!(backup.restore(&into), Err(BackupError::NotEmpty(_))));
    assert_eq!(std::fs::read(into.join("mine")).unwrap(), b"mine");
    std::fs::remove_file(into.join("mine")).unwrap();
    // Something that came meanwhile stays, too.
    let restoring = backup.restore(&into).unwrap();
    std::fs::write(into.join("mine"), b"mine").unwrap();
    assert!(matches!(restoring.end(), Err(BackupError::NotEmpty(_))));
    std::fs::remove_file(into.join("mine")).unwrap();
    assert_eq!(std::fs::read_dir(apart.path()).unwrap().count(), 2, "what was not ended is gone");
    // An empty folder is as good as none.
    backup.restore(&into).unwrap().end().unwrap();
    assert_eq!((mode(&into), mode(&into.join(DATABASE))), (0o700, 0o600));
    look(&into.join(DATABASE)).await.unwrap();
    opened.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_none_or_damaged_or_another_version_is_not_backed_up() {
    let opened = deployment().await;
    let apart = tempfile::tempdir().unwrap();
    let to = apart.path().join("copy");
    let absent = snapshot(&apart.path().join("absent.db"), &to).await;
    assert!(matches!(absent, Err(BackupError::NoDatabase(_))));
    assert_eq!(std::fs::read_dir(apart.path()).unwrap().count(), 0, "no database is made");
    opened.store.close().await;
    let path = opened.folder.path().join("swarm.db");
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let connection = &mut connection;
    sqlx::query("INSERT INTO schema_version (version, applied) VALUES (1000, 0)").execute(&mut *connection).await.unwrap();
    let newer = snapshot(&path, &to).await;
    assert!(matches!(newer, Err(BackupError::OtherSchema { found: 1000, .. })));
    sqlx::query("DELETE FROM schema_version WHERE version = 1000").execute(&mut *connection).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await.unwrap();
    snapshot(&path, &to).await.unwrap();
    // A page of the copy that is damaged is found.
    let mut bytes = std::fs::read(&to).unwrap();
    for byte in &mut bytes[4096 * 3..4096 * 4] {
        *byte = 0xff;
    }
    std::fs::write(&to, bytes).unwrap();
    assert!(matches!(look(&to).await, Err(BackupError::Open(_))));
}

/// The bytes of version 1, made by hand and hashed by another program.
#[test]
fn the_format_is_what_it_was() {
    let apart = tempfile::tempdir().unwrap();
    let to = apart.path().join("backup");
    let mut writing = Writing::begin(&to).unwrap();
    writing.bytes(b"abc", &"a/b".parse().unwrap()).unwrap();
    writing.end(manifest(&Snapshot { schema: 1, entries: 7, published: 5, deployment: None })).unwrap();
    let text = |name: &str| std::fs::read_to_string(to.join(name)).unwrap();
    assert_eq!(text("objects/a/b"), "abc");
    assert_eq!(
        text("files.jsonl"),
        "{\"path\":\"objects/a/b\",\"size\":3,\"sha256\":\"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n"
    );
    assert_eq!(
        text("manifest.json"),
        concat!(
            "{\"format\":\"swarm-backup\",\"version\":1,\"swarm\":\"0\",\"created\":1767225600000,\"deployment\":\"d\",\"profile\":\"development\",",
            "\"schema\":1,\"entries\":7,\"published\":5,\"files\":1,\"bytes\":3,\"list\":\"sha256:83d7ae025f7e8848f1367b4536e6e5d5fc12d59b4010d68ffb5743f78b750f49\"}\n",
            "sha256:5ddbe5965016a825fedf29c52ae7e7adfb346f3951dd3514cf25575c73ca094c\n",
        )
    );
    // It has no database, so it is none.
    names(&to, &[], "files.jsonl");
}

/// The child: backs up until it is killed and says each step.
#[test]
#[ignore = "is killed by `a_killed_backup_is_none`, which starts it"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how a test's child knows that it is one")]
    let Ok(place) = std::env::var(PLACE) else { return };
    let (from, to) = place.split_once(':').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(backed_up(Path::new(from), Path::new(to), &mut |step| {
        std::io::stdout().write_all(format!("step {step}\n").as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_is_none() {
    let opened = deployment().await;
    let apart = tempfile::tempdir().unwrap();
    let mut seeded = Seeded(0xdead);
    let (mut whole, mut none) = (0, 0);
    for round in 0..ROUNDS {
        let to = apart.path().join(format!("backup-{round}"));
        // The first and last steps surely, others by chance.
        let after = if round < 4 { round + 1 } else { 1 + seeded.below(OBJECT_COUNT + 3) };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["tests::backup::child", "--exact", "--ignored", "--nocapture"])
            .env(PLACE, format!("{}:{}", opened.folder.path().display(), to.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < after
            && let Some(Ok(line)) = lines.next()
        {
            seen += u64::from(line.starts_with("step "));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen, after, "the child said less than it should");
        // Whichever name it has: it is whole, or it is refused.
        for place in [to.clone(), PathBuf::from(format!("{}.partial", to.display()))] {
            match Backup::open(&place) {
                Ok(backup) => {
                    backup.verify().unwrap();
                    whole += 1;
                }
                Err(BackupError::NoBackup(_)) => none += u64::from(place.exists()),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(opened.store.entry_count().await.unwrap(), 20, "the database went on");
    }
    assert!(none >= ROUNDS / 2, "{none} interrupted, {whole} whole");
    opened.store.close().await;
}
