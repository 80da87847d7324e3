//! The store as its callers see it, attacked.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the one answer that it expects and panics at all others")]

/// One suite for both databases: each function is a test for each.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::tests::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::tests::Engine::Postgres).await;
            })*
        }
    };
}

mod backup;
mod blobs;
#[expect(unreachable_pub, reason = "the tests from end to end take the same file")]
mod cluster;
mod commit;
mod disk;
mod fence;
mod kill;
mod opening;
mod proxy;
mod race;
mod refusal;
mod server;
mod shared;
mod statistics;
mod tenant;
mod tls;
mod watch;
mod world;

use audit::EncodedEntry;
use serde::{Deserialize, Serialize};
use vocabulary::{EntryId, TenantId, UnixTime};

use crate::{CommitError, Committed, Expect, Kind, Put, Store, StoreConfig, Transaction};

/// The first of January 2026.
const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

/// Sixteen bytes that count.
fn id(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn tenant(number: u64) -> TenantId {
    TenantId::from_bytes(id(0xa000_0000 + number))
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    format: u32,
    text: String,
}

fn body(text: &str) -> Body {
    Body { format: 1, text: text.to_owned() }
}

fn put(tenant: TenantId, number: u64, expect: Expect) -> Put {
    Put::json(tenant, Kind::JOB, id(number), expect, &body(&number.to_string())).unwrap()
}

/// An entry about a job.
fn entry(tenant: TenantId, number: u64) -> EncodedEntry {
    let body = format!("{{\"entry\":{number}}}").into_bytes();
    let salt = [7; 32];
    EncodedEntry {
        id: EntryId::from_bytes(id(number)),
        tenant,
        salt,
        leaf: audit::leaf::leaf(&salt, &body),
        body,
        class_uid: 6003,
        activity: 1,
        kind: "job_submitted",
        actor: None,
        action: "job.run".to_owned(),
        resource_kind: "job".to_owned(),
        resource: number.to_string(),
        outcome: "allowed",
        time: NOW,
    }
}

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

struct Opened {
    store: Store,
    folder: tempfile::TempDir,
    cluster: Option<cluster::Cluster>,
}

impl Opened {
    async fn new() -> Self {
        Self::on(Engine::Sqlite).await
    }
    async fn on(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(cluster::Cluster::start()),
        };
        let config = match &cluster {
            Some(cluster) => StoreConfig::postgres(cluster.url()),
            None => config(&folder),
        };
        let store = Store::open(config).await.unwrap();
        Self { store, folder, cluster }
    }
    fn config(&self) -> StoreConfig {
        match &self.cluster {
            Some(cluster) => StoreConfig::postgres(cluster.url()),
            None => config(&self.folder),
        }
    }
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.store.commit(transaction, NOW).await
    }
    /// Closes and opens again.
    async fn again(self) -> Self {
        self.store.close().await;
        let config = self.config();
        drop(self.store);
        let store = Store::open(config).await.unwrap();
        Self { store, folder: self.folder, cluster: self.cluster }
    }
}

fn config(folder: &tempfile::TempDir) -> StoreConfig {
    StoreConfig::new(folder.path().join("swarm.db"))
}

/// A small generator, seeded: the same run every time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
