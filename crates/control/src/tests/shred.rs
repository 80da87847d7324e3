//! What was destroyed after a backup does not come alive again: restored with the list, started with it, killed in between.

use std::path::{Path, PathBuf};

use keys::{KeyState, Purpose};
use reqwest::Method;
use serde_json::json;
use store::{Kind, Store, StoreConfig};
use vocabulary::api::Done;
use vocabulary::{PersonId, SYSTEM_OWNER, UnixTime, VolumeId};

use super::support::{Tenant, World};
use crate::backup::{BackupFailed, Known, backup, restore};
use crate::clock;
use crate::operation::volume::key_owner;
use crate::shred::list::{self, ListError, Shred};
use crate::shred::{self, Replayed};
use crate::vault::versions;

const MINUTE: u64 = 60_000;

async fn states(store: &Store, tenant: &Tenant, volume: VolumeId) -> Vec<KeyState> {
    versions(store, tenant.id, &key_owner(volume), Purpose::Volume).await.unwrap().iter().map(|key| key.record.state).collect()
}

async fn delete(world: &World, tenant: &Tenant, volume: VolumeId) {
    let _: Done = world.confirmed(tenant.id, &tenant.token, (Method::DELETE, &format!("/v1/volumes/{volume}")), None, &[]).await.unwrap();
}

async fn found(world: &World, name: &str) -> crate::bootstrap::PersonRow {
    world.control().store.find(SYSTEM_OWNER, Kind::PERSON, None, &name.parse().unwrap()).await.unwrap().unwrap().parse().unwrap()
}

/// A person of a tenant as one who has logged in: there are a name and a key.
async fn person(world: &World, name: &str) -> PersonId {
    let (control, row) = (world.control(), found(world, name).await);
    let owner = crate::subject::person_owner(row.id);
    let (key, _) = control.vault.make_under_root(SYSTEM_OWNER, Purpose::AuditSubject, owner, clock::now()).unwrap();
    control.store.commit(store::Transaction::new().with(store::Mutation::PutKey(key)), clock::now()).await.unwrap();
    row.id
}

/// A deployment, its backup, and what was destroyed before and after it.
struct Past {
    world: World,
    tenant: Tenant,
    apart: tempfile::TempDir,
    kept: VolumeId,
    gone: VolumeId,
    person: PersonId,
    /// Who never logged in, and has no key.
    stranger: PersonId,
}

impl Past {
    async fn new() -> Self {
        let world = World::start().await;
        let tenant = world.tenant("acme").await;
        let [kept, before, gone] = [world.volume(&tenant, "kept", "internal").await, world.volume(&tenant, "before", "internal").await, world.volume(&tenant, "gone", "internal").await];
        world.tenant("globex").await;
        world.tenant("initech").await;
        let [person, stranger] = [person(&world, "globex-admin").await, found(&world, "initech-admin").await.id];
        delete(&world, &tenant, before).await;
        let apart = tempfile::tempdir().unwrap();
        let past = Self { world, tenant, apart, kept, gone, person, stranger };
        past.backup("backup", clock::now().plus_millis(2 * MINUTE)).await;
        std::fs::copy(past.list(), past.apart.path().join("early-list")).unwrap();
        delete(&past.world, &past.tenant, past.gone).await;
        let operator = past.world.operator().await;
        for name in ["globex-admin", "initech-admin"] {
            let body = Some(json!({ "name": name }));
            let _: Done = past.world.confirmed(SYSTEM_OWNER, &operator, (Method::POST, "/v1/people/erase"), body, &[]).await.unwrap();
        }
        past
    }

    fn list(&self) -> PathBuf {
        self.world.dir.path().join(list::FILE)
    }
    async fn backup(&self, name: &str, now: UnixTime) {
        backup(self.world.dir.path(), &self.apart.path().join(name), now, &mut |_| ()).await.unwrap();
    }
    async fn restore(&self, from: &str, list: Option<&Path>) -> Result<(PathBuf, Option<crate::backup::ShredsDone>), BackupFailed> {
        let into = self.apart.path().join(format!("restored-{}", std::fs::read_dir(self.apart.path()).unwrap().count()));
        let known = Known { shreds: list.map(Path::to_owned), ..Known::default() };
        let done = restore(&self.apart.path().join(from), &into, &known, clock::now()).await?;
        Ok((into, done.shreds))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_with_the_list_destroys_again_and_one_without_says_so() {
    let past = Past::new().await;
    // With it: gone before anybody is answered.
    let (into, done) = past.restore("backup", Some(&past.list())).await.unwrap();
    let done = done.unwrap();
    assert_eq!(done.replayed, Replayed { keys: 1, people: 2 });
    let store = Store::open(StoreConfig::new(into.join("state.db"))).await.unwrap();
    assert_eq!(states(&store, &past.tenant, past.gone).await, [KeyState::Destroyed]);
    assert_eq!(states(&store, &past.tenant, past.kept).await, [KeyState::Active]);
    for person in [past.person, past.stranger] {
        assert!(store.get_json::<crate::bootstrap::PersonRow>(SYSTEM_OWNER, Kind::PERSON, person).await.unwrap().is_none());
    }
    store.close().await;
    assert_eq!(std::fs::read(into.join(list::FILE)).unwrap(), std::fs::read(past.list()).unwrap(), "the server goes on with it");
    // Again is nothing: the list was replayed.
    let store = Store::open(StoreConfig::new(into.join("state.db"))).await.unwrap();
    let file = receipt::Deployment::open(past.world.control().certifying().file.as_bytes(), None).unwrap();
    let checked = shred::checked(&past.list(), &file).unwrap();
    let entry = |tenant, event| past.world.control().system_entry(clock::now(), tenant, event);
    assert_eq!(shred::replay(&store, checked.shreds.iter(), &entry, clock::now()).await.unwrap(), Replayed::default());
    store.close().await;

    // Without it: back, and nothing is claimed.
    let (into, done) = past.restore("backup", None).await.unwrap();
    assert!(done.is_none() && !into.join(list::FILE).exists());
    let store = Store::open(StoreConfig::new(into.join("state.db"))).await.unwrap();
    assert_eq!(states(&store, &past.tenant, past.gone).await, [KeyState::Active], "which is what the list is for");
    // Somebody died after the first of the replay: the next one does the rest.
    let entry = |tenant, event| past.world.control().system_entry(clock::now(), tenant, event);
    let first = checked.shreds.iter().filter(|shred| matches!(shred, Shred::Person { .. }));
    assert_eq!(shred::replay(&store, first, &entry, clock::now()).await.unwrap(), Replayed { keys: 0, people: 2 });
    store.close().await;
    // The list at its place, and a start: the server itself destroys what is back.
    std::fs::copy(past.list(), into.join(list::FILE)).unwrap();
    let (tenant, gone, kept) = (past.tenant, past.gone, past.kept);
    past.world.server.stop().await;
    let holder = tempfile::tempdir().unwrap();
    std::fs::rename(&into, holder.path().join("server")).unwrap();
    let server = crate::server::Server::start(super::support::config(&holder.path().join("server"), None)).await.unwrap();
    assert_eq!(states(&server.control().store, &tenant, gone).await, [KeyState::Destroyed]);
    assert_eq!(states(&server.control().store, &tenant, kept).await, [KeyState::Active]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_older_foreign_or_doctored_restores_nothing() {
    let past = Past::new().await;
    let count = || std::fs::read_dir(past.apart.path()).unwrap().count();
    // Taken after the destruction, and the list before it: what the backup knows is not in the list.
    past.backup("late", clock::now().plus_millis(2 * MINUTE)).await;
    let early = past.apart.path().join("early-list");
    let file = receipt::Deployment::open(past.world.control().certifying().file.as_bytes(), None).unwrap();
    let [before, after] = [&early, &past.list()].map(|path| shred::checked(path, &file).unwrap().shreds);
    let new: Vec<&Shred> = after.difference(&before).collect();
    assert_eq!(new.iter().filter(|shred| matches!(shred, Shred::Person { .. })).count(), 2, "{new:?}");
    let left = count();
    let error = past.restore("late", Some(&early)).await.unwrap_err();
    assert!(matches!(error, BackupFailed::ShredsOlder { missing, .. } if missing == new.len() - 1), "{new:?}: {error}");
    // For the older backup the same list is no contradiction: it says up to when it is whole.
    let (_, done) = past.restore("backup", Some(&early)).await.unwrap();
    assert_eq!(done.unwrap().replayed, Replayed::default());
    let left = left + 1;
    // Every byte counts.
    let whole = std::fs::read(past.list()).unwrap();
    let doctored = past.world.dir.path().join("doctored");
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines >= 5, "{lines} lines");
    for at in (0..whole.len() - 1).step_by(37) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&doctored, bytes).unwrap();
        let error = past.restore("backup", Some(&doctored)).await.unwrap_err();
        assert!(matches!(error, BackupFailed::Shreds(ListError::Damaged { .. })), "byte {at}: {error}");
    }
    let split: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let mut without = split.clone();
    without.remove(1);
    let mut swapped = split.clone();
    swapped.swap(1, 2);
    let doubled = [&split[..2], &split[1..]].concat();
    for (what, lines) in [("without a line", without), ("with two lines in another order", swapped), ("with a line twice", doubled)] {
        std::fs::write(&doctored, lines.concat()).unwrap();
        let error = past.restore("backup", Some(&doctored)).await.unwrap_err();
        assert!(matches!(error, BackupFailed::Shreds(ListError::Damaged { .. })), "{what}: {error}");
    }
    // Another deployment's, and none.
    let other = World::start().await;
    let error = past.restore("backup", Some(&other.dir.path().join(list::FILE))).await.unwrap_err();
    assert!(matches!(error, BackupFailed::Shreds(ListError::Damaged { line: 1, .. })), "{error}");
    let error = past.restore("backup", Some(Path::new("/nowhere/list"))).await.unwrap_err();
    assert!(matches!(error, BackupFailed::Shreds(ListError::Io { .. })), "{error}");
    assert_eq!(count(), left, "nothing was left");
    other.server.stop().await;
    past.world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_destroyed_and_not_listed_is_listed_by_the_next_start() {
    let past = Past::new().await;
    let early = std::fs::read(past.apart.path().join("early-list")).unwrap();
    let read = |world: &World| {
        let file = receipt::Deployment::open(world.control().certifying().file.as_bytes(), None).unwrap();
        shred::checked(&world.dir.path().join(list::FILE), &file).unwrap()
    };
    let mut full = read(&past.world);
    assert!(full.shreds.contains(&Shred::Person { id: past.person }) && full.shreds.contains(&Shred::Person { id: past.stranger }));
    // Of whom there was no key, the database says nothing once the row is gone: nothing would open, and the name is what is left.
    full.shreds.remove(&Shred::Person { id: past.stranger });
    // Dead between the transaction and the line, and in the middle of the line.
    let mut world = past.world;
    for torn in [&b""[..], b"{\"format\":1,\"deplo"] {
        std::fs::write(world.dir.path().join(list::FILE), [&early, torn].concat()).unwrap();
        world = world.killed().await;
        assert_eq!(read(&world).shreds, full.shreds);
    }
    // One that was lost altogether is made anew from what the database has.
    std::fs::remove_file(world.dir.path().join(list::FILE)).unwrap();
    let world = world.killed().await;
    assert_eq!(read(&world).shreds, full.shreds);
    // One that somebody changed is not gone on with.
    let path = world.dir.path().join(list::FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    world.server.stop().await;
    std::fs::write(&path, bytes).unwrap();
    let error = crate::server::Server::start(super::support::config(world.dir.path(), None)).await.unwrap_err();
    assert!(matches!(error, crate::StartError::Shreds(ListError::Damaged { line: 1, .. })), "{error}");
}
