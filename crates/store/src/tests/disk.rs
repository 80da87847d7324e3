//! A full disk: a typed error, nothing acknowledged lost, and on it goes when there is room.

use std::path::Path;
use std::process::Command;

use super::{NOW, Opened, config, entry, put, tenant};
use crate::{CommitError, Expect, Kind, Mutation, Page, Store, StoreConfig, Transaction};

/// A transaction of about 20 KiB.
fn big(number: u64) -> Transaction {
    let mut big = put(tenant(1), number, Expect::Absent);
    big.body = format!("{{\"format\":1,\"text\":\"{}\"}}", "x".repeat(20_000));
    Transaction::new().with(big).entry(entry(tenant(1), number))
}

/// Commits until it is full; gives how many were acknowledged.
async fn fill(store: &Store, from: u64) -> u64 {
    for number in from..from + 10_000 {
        match store.commit(big(number), NOW).await {
            Ok(_) => {}
            Err(CommitError::Full) => return number,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("never full")
}

/// Limits the file.
fn pages(config: &mut StoreConfig, most: u32) {
    let crate::Database::Sqlite(file) = &mut config.database else { panic!("not a file") };
    file.pages_max = Some(most);
}

async fn holds(store: &Store, count: u64) {
    let listed = store.list(tenant(1), Kind::JOB, Page::default()).await.unwrap();
    assert_eq!(listed.items.len() as u64, count);
    assert_eq!(store.entry_count().await.unwrap(), count);
    assert_eq!(store.latest_change(), count);
}

#[tokio::test]
async fn a_database_at_its_limit_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let mut limited = config(&folder);
    pages(&mut limited, 300);
    let store = Store::open(limited.clone()).await.unwrap();
    let count = fill(&store, 0).await;
    assert!(count > 10);
    holds(&store, count).await;
    // A group of which some fit: those are committed, the others told.
    let small = Transaction::new().with(Mutation::CountRefusal { source: "s".to_owned(), minute: NOW, code: "c".to_owned() });
    let (large, small) = tokio::join!(store.commit(big(count), NOW), store.commit(small, NOW));
    assert!(matches!(large, Err(CommitError::Full)));
    assert_eq!(small.unwrap().revisions, [1]);
    holds(&store, count).await;
    store.close().await;
    drop(store);
    pages(&mut limited, 3000);
    let store = Store::open(limited).await.unwrap();
    holds(&store, count).await;
    store.commit(big(count), NOW).await.unwrap();
    holds(&store, count + 1).await;
}

/// A file system in memory, gone with the value.
struct Small {
    folder: tempfile::TempDir,
}

impl Small {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "swarm-test"], folder.path());
        Self { folder }
    }
    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], self.folder.path());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.folder.path()).status().unwrap();
    }
}

fn mount(arguments: &[&str], target: &Path) {
    let status = Command::new("mount").args(arguments).arg(target).status().unwrap();
    assert!(status.success(), "this test mounts a small tmpfs: it needs root");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_room_is_enough_to_go_on() {
    let small = Small::new("3m");
    let config = StoreConfig::new(small.folder.path().join("swarm.db"));
    let store = Store::open(config.clone()).await.unwrap();
    let mut count = fill(&store, 0).await;
    holds(&store, count).await;
    // Still full: still refused, still reading, nothing half done.
    for _ in 0..20 {
        assert!(matches!(store.commit(big(count), NOW).await, Err(CommitError::Full)));
    }
    holds(&store, count).await;
    // Room: the same store goes on, without a restart.
    small.grow("12m");
    store.commit(big(count), NOW).await.unwrap();
    count = fill(&store, count + 1).await;
    holds(&store, count).await;
    store.close().await;
    drop(store);
    // Opening on a full disk is refused or works; what was acknowledged is there as soon as there is room.
    small.grow("24m");
    let store = Store::open(config).await.unwrap();
    holds(&store, count).await;
    store.commit(big(count), NOW).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn blobs_on_a_full_disk_say_so_and_leave_nothing() {
    let small = Small::new("2m");
    let blobs = crate::Blobs::local(&small.folder.path().join("blobs")).unwrap();
    let big = bytes::Bytes::from(vec![1; 4 << 20]);
    let path = "v/seg/1".parse().unwrap();
    assert!(matches!(blobs.put(&path, big.clone()).await, Err(crate::BlobError::Full)));
    assert!(!blobs.exists(&path).await.unwrap());
    small.grow("8m");
    blobs.put(&path, big).await.unwrap();
}

#[tokio::test]
async fn a_read_only_disk_is_named() {
    let opened = Opened::new().await;
    opened.commit(Transaction::new().with(put(tenant(1), 1, Expect::Absent))).await.unwrap();
    opened.store.close().await;
    let small = Small::new("4m");
    for entry in std::fs::read_dir(opened.folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), small.folder.path().join(entry.file_name())).unwrap();
    }
    mount(&["-o", "remount,ro"], small.folder.path());
    let error = Store::open(StoreConfig::new(small.folder.path().join("swarm.db"))).await.unwrap_err();
    assert!(matches!(error, crate::OpenError::ReadOnly { .. }), "{error:?}");
}
