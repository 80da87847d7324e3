//! Keys that reach their limits, rewraps that are killed, destructions that are cancelled, and what a thief of the past gets.

use keys::lifecycle::{Limits, Rotation};
use keys::record::ROOT_EPOCH;
use keys::{KeyRecord, KeyState, Purpose, SystemRandom};
use reqwest::Method;
use serde_json::json;
use store::{Mutation, StoredKey, Transaction};
use vocabulary::api::{Done, KeyInfo, Page, Volume};
use vocabulary::custody::{Inventory, Rewrap, RootRotated, Scheduled};
use vocabulary::{ErrorCode, KeyId, Problem, SYSTEM_OWNER, TenantId, UnixTime, VolumeId};

use super::support::{Tenant, World};
use crate::clock;
use crate::keylife::{Done as Round, Keeper};
use crate::operation::volume::key_owner;
use crate::vault::{new_key_id, versions};

/// A keeper that rotates nothing.
fn still() -> Keeper {
    Keeper { rotation: |_| Rotation::Not("a test"), epoch_grace_ms: 0, rewraps: 10_000 }
}

async fn volume(world: &World, tenant: &Tenant, name: &str) -> VolumeId {
    let spec = json!({ "name": name, "project": tenant.project, "region": "eu-central", "jurisdictions": [], "sensitivity": "internal", "purpose": "research" });
    world.post::<Volume>("/v1/volumes", &tenant.token, &spec).await.unwrap().id
}

/// Puts this many data keys under the tenant's key, as so many volumes would.
async fn many(world: &World, tenant: TenantId, count: usize) {
    let control = world.control();
    let kek = control.vault.tenant_kek(&control.store, tenant).await.unwrap();
    for batch in (0..count).collect::<Vec<_>>().chunks(500) {
        let mut transaction = Transaction::new();
        for _ in batch {
            let (now, id) = (clock::now(), new_key_id(clock::now()));
            let owner = key_owner(VolumeId::from_bytes(*id.as_bytes()));
            let (record, _) = KeyRecord::generate(id, 1, tenant, Purpose::Volume, owner, &kek.parent(), now, &mut SystemRandom);
            transaction = transaction.with(Mutation::PutKey(record));
        }
        control.store.commit(transaction, clock::now()).await.unwrap();
    }
}

async fn keks(world: &World, tenant: TenantId) -> Vec<StoredKey> {
    let owner = keys::Owner { kind: "tenant".into(), id: *tenant.as_bytes() };
    versions(&world.control().store, tenant, &owner, Purpose::TenantKek).await.unwrap()
}

fn states(keys: &[StoredKey]) -> Vec<KeyState> {
    keys.iter().map(|key| key.record.state).collect()
}

async fn all_open(world: &World, tenant: TenantId) -> usize {
    let control = world.control();
    let keys = control.all_keys(tenant).await.unwrap();
    let mut opened = 0;
    for key in keys.iter().filter(|key| key.record.state.opens()) {
        control.vault.open_data(&control.store, &key.record).await.unwrap_or_else(|error| panic!("{error}: {:?}", key.record));
        opened += 1;
    }
    opened
}

/// Rounds until nothing more is done.
async fn settle(world: &World, keeper: &Keeper, now: UnixTime) -> Round {
    let mut sum = Round::default();
    loop {
        let done = keeper.round(world.control(), now).await.unwrap();
        sum.rotated += done.rotated;
        sum.rewrapped += done.rewrapped;
        sum.retired += done.retired;
        sum.destroyed += done.destroyed;
        if !done.more && (done.rewrapped, done.retired, done.destroyed) == (0, 0, 0) {
            return sum;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_at_their_limits_once_and_with_an_entry() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let data = volume(&world, &tenant, "data").await;
    let now = clock::now();
    // Nothing is due yet.
    assert_eq!(settle(&world, &Keeper::default(), now).await.rotated, 0);
    let keeper = Keeper {
        rotation: |purpose| {
            let limits = Limits { age_ms: u64::MAX, bytes: 1000, count: 3 };
            if purpose == Purpose::Volume { Rotation::Automatic(limits) } else { Rotation::Not("a test") }
        },
        ..still()
    };
    let control = world.control();
    control.vault.arrived.add(tenant.id, data, 400);
    control.vault.arrived.add(tenant.id, data, 599);
    assert_eq!(settle(&world, &keeper, now).await.rotated, 0, "999 bytes, 2 objects");
    control.vault.arrived.add(tenant.id, data, 1);
    assert_eq!(settle(&world, &keeper, now).await.rotated, 1, "1000 bytes are enough");
    for _ in 0..3 {
        control.vault.arrived.add(tenant.id, data, 1);
    }
    assert_eq!(settle(&world, &keeper, now).await.rotated, 1, "the new version's own count");
    let found = versions(&control.store, tenant.id, &key_owner(data), Purpose::Volume).await.unwrap();
    assert_eq!(states(&found), [KeyState::Deactivated, KeyState::Deactivated, KeyState::Active]);
    // By age: everything that rotates by itself, the tenant's key and the volume's.
    let aged = Keeper { rotation: |purpose| match purpose.line().rotation { Rotation::Automatic(limits) => Rotation::Automatic(Limits { age_ms: 0, ..limits }), Rotation::WithCertificate(_) | Rotation::Not(_) => Rotation::Not("a test") }, ..still() };
    let done = aged.round(control, clock::now()).await.unwrap();
    assert_eq!(done.rotated, 2);
    assert_eq!(world.entries_of(tenant.id, "key_rotated").await.len(), 4);
    // Two at once: the same old version is replaced once.
    let before = keks(&world, tenant.id).await.len();
    let old = keks(&world, tenant.id).await.into_iter().find(|key| key.record.state == KeyState::Active).unwrap();
    let (first, _) = control.vault.next_under_root(&old.record, clock::now()).unwrap();
    let (second, _) = control.vault.next_under_root(&old.record, clock::now()).unwrap();
    let mut held = 0;
    for next in [first, second] {
        let step = Mutation::StepKey { tenant: tenant.id, id: old.record.id, version: old.record.version, from: vec![KeyState::Active], to: KeyState::Deactivated };
        held += u32::from(control.store.commit(Transaction::new().with(Mutation::PutKey(next)).with(step), clock::now()).await.is_ok());
    }
    assert_eq!((held, keks(&world, tenant.id).await.len()), (1, before + 1));
    assert!(all_open(&world, tenant.id).await >= 5);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrap_that_is_killed_goes_on_and_the_old_key_dies_last() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    many(&world, tenant.id, 1_500).await;
    let before = all_open(&world, tenant.id).await;
    // Rotated in the store, which wakes nobody: the server's own rounds would move all of it before a part is looked at.
    let control = world.control();
    let old = keks(&world, tenant.id).await.remove(0).record;
    let (next, _) = control.vault.next_under_root(&old, clock::now()).unwrap();
    let step = Mutation::StepKey { tenant: tenant.id, id: old.id, version: old.version, from: vec![KeyState::Active], to: KeyState::Deactivated };
    control.store.commit(Transaction::new().with(Mutation::PutKey(next)).with(step), clock::now()).await.unwrap();
    // A part of it, as a process that dies leaves it.
    let part = Keeper { rewraps: 200, ..still() };
    let done = part.round(control, clock::now()).await.unwrap();
    assert!(done.more && done.rewrapped > 0 && done.rewrapped < 1_500, "{done:?}");
    assert_eq!(all_open(&world, tenant.id).await, before + 1, "half of it opens under the old key, half under the new");
    let world = world.killed().await;
    settle(&world, &still(), clock::now()).await;
    let found = keks(&world, tenant.id).await;
    assert_eq!(states(&found), [KeyState::Destroyed, KeyState::Active]);
    assert!(found[0].record.wrapped.is_none(), "its bytes are erased");
    assert_eq!(all_open(&world, tenant.id).await, before, "all but the old version open");
    let moved: u64 = world.entries_of(tenant.id, "keys_rewrapped").await.iter().map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(moved, 1_500, "each key was moved once");
    assert_eq!(world.entries_of(tenant.id, "key_version_ended").await.len(), 1);
    let shown: Rewrap = world.get("/v1/tenant-key/rewrap", &tenant.token).await.unwrap();
    assert_eq!((shown.left, shown.versions.len()), (0, 1));
    world.server.stop().await;
}

/// Whoever put a key under the old version while it was going is not lost: one of the two is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_never_put_under_one_that_is_gone() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let control = world.control();
    let late = control.vault.make_data(&control.store, tenant.id, Purpose::Volume, key_owner(VolumeId::from_bytes([9; 16])), clock::now()).await.unwrap().0;
    let early = control.vault.make_data(&control.store, tenant.id, Purpose::Volume, key_owner(VolumeId::from_bytes([8; 16])), clock::now()).await.unwrap().0;
    let old = keks(&world, tenant.id).await.remove(0).record;
    let step = |from, to| Mutation::StepKey { tenant: tenant.id, id: old.id, version: old.version, from: vec![from], to };
    let (next, _) = control.vault.next_under_root(&old, clock::now()).unwrap();
    let rotate = Transaction::new().with(Mutation::PutKey(next)).with(step(KeyState::Active, KeyState::Deactivated));
    control.store.commit(rotate, clock::now()).await.unwrap();
    // One that came a moment too late for the rotation holds the old version alive.
    control.store.commit(Transaction::new().with(Mutation::PutKey(early)), clock::now()).await.unwrap();
    let destroy = Transaction::new().with(step(KeyState::Deactivated, KeyState::PendingDestroy)).with(step(KeyState::PendingDestroy, KeyState::Destroyed));
    let error = control.store.commit(destroy, clock::now()).await.unwrap_err();
    assert!(matches!(error.conflict(), Some(store::Conflict::State { actual }) if actual.contains("lies under it")), "{error:?}");
    settle(&world, &still(), clock::now()).await;
    assert_eq!(keks(&world, tenant.id).await[0].record.state, KeyState::Destroyed);
    let refused = control.store.commit(Transaction::new().with(Mutation::PutKey(late)), clock::now()).await;
    assert!(refused.is_err(), "the key above it is gone");
    all_open(&world, tenant.id).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_epoch_ends_when_nothing_lies_under_it() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    volume(&world, &tenant, "data").await;
    let operator = world.operator().await;
    let problem = world.act::<RootRotated>("/v1/root-key/rotate", &operator).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::StepUpRequired);
    let rotated: RootRotated = world.act_confirmed("/v1/root-key/rotate", &operator).await.unwrap();
    assert_eq!(rotated.epoch, 2);
    // An hour of grace: the old epoch stays although nothing lies under it.
    settle(&world, &Keeper { epoch_grace_ms: 3_600_000, ..still() }, clock::now()).await;
    let shown: Rewrap = world.get("/v1/root-key/rewrap", &operator).await.unwrap();
    assert_eq!((shown.left, shown.versions.len()), (0, 2));
    assert!(shown.versions[1].keys >= 9, "the deployment's own and the tenant's: {shown:?}");
    let world = world.again().await;
    assert_eq!(settle(&world, &still(), clock::now()).await.retired, 1);
    assert_eq!(world.control().vault.opened().epochs().len(), 1);
    assert_eq!(world.entries_of(SYSTEM_OWNER, "root_epoch_ended").await.len(), 1);
    for owner in [SYSTEM_OWNER, tenant.id] {
        assert!(world.control().store.keys_under(owner, ROOT_EPOCH, 1, store::Page::first(1)).await.unwrap().items.is_empty());
    }
    // Everything opens under the new one, also after a start.
    let world = world.again().await;
    all_open(&world, tenant.id).await;
    all_open(&world, SYSTEM_OWNER).await;
    let _: vocabulary::api::WhoAmI = world.get("/v1/whoami", &tenant.token).await.unwrap();
    // A request that slept since before the rotation puts nothing under the old epoch: its time is refused.
    let control = world.control();
    let asleep = UnixTime::from_millis(clock::now().millis() - 700_000);
    let (record, _) = control.vault.make_under_root(tenant.id, Purpose::TenantKek, key_owner(VolumeId::from_bytes([7; 16])), asleep).unwrap();
    let error = control.store.commit(Transaction::new().with(Mutation::PutKey(record)), asleep).await.unwrap_err();
    assert!(matches!(error.conflict(), Some(store::Conflict::ClockBack { .. })), "{error:?}");
    world.server.stop().await;
}

async fn key_of(world: &World, tenant: &Tenant, data: VolumeId) -> KeyId {
    versions(&world.control().store, tenant.id, &key_owner(data), Purpose::Volume).await.unwrap()[0].record.id
}

async fn schedule(world: &World, tenant: &Tenant, key: KeyId, wait: serde_json::Value) -> Result<Scheduled, Problem> {
    world.confirmed(tenant.id, &tenant.token, (Method::POST, &format!("/v1/keys/{key}/destroy")), Some(wait), &[]).await
}

async fn read(world: &World, tenant: &Tenant, data: VolumeId) -> Result<serde_json::Value, Problem> {
    use base64::Engine as _;
    let mut point = [0; 32];
    point[0] = 9;
    let body = json!({ "mode": "read", "purpose": "research", "recipient": base64::engine::general_purpose::STANDARD.encode(point) });
    world.send(Method::POST, &format!("/v1/volumes/{data}/read-leases"), Some(&tenant.token), Some(body), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destruction_waits_is_cancelled_and_has_two_dates() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    let data = volume(&world, &tenant, "data").await;
    let key = key_of(&world, &tenant, data).await;
    for wait in [json!({ "wait_days": 6 }), json!({ "wait_days": 31 }), json!({ "wait_days": 0 })] {
        assert_eq!(schedule(&world, &tenant, key, wait).await.unwrap_err().code, ErrorCode::InvalidRequest);
    }
    let body = Some(json!({}));
    let problem = world.send::<Scheduled>(Method::POST, &format!("/v1/keys/{key}/destroy"), Some(&tenant.token), body, &[]).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::StepUpRequired);
    read(&world, &tenant, data).await.unwrap();
    let operator = world.operator().await;
    let _: Done = world.confirmed(SYSTEM_OWNER, &operator, (Method::POST, "/v1/backup-retention"), Some(json!({ "days": 10 })), &[]).await.unwrap();
    let scheduled = schedule(&world, &tenant, key, json!({ "wait_days": 7 })).await.unwrap();
    let day = 86_400_000;
    assert_eq!(scheduled.unrecoverable_since.since(scheduled.due), Some(10 * day));
    // From now on nothing opens it, and it is not scheduled twice.
    assert!(read(&world, &tenant, data).await.is_err(), "a key that waits for its destruction opens nothing");
    assert_eq!(schedule(&world, &tenant, key, json!({})).await.unwrap_err().code, ErrorCode::WrongState);
    let shown: Page<KeyInfo> = world.get("/v1/keys", &tenant.token).await.unwrap();
    let line = shown.items.iter().find(|line| line.id == key).unwrap();
    assert_eq!((line.state.as_str(), line.destroy_at, line.gone_since), ("pending-destroy", Some(scheduled.due), None));
    // A rewrap of the key above moves it along, so that cancelling is never too late.
    let _: Done = world.confirmed(tenant.id, &tenant.token, (Method::POST, "/v1/tenant-key/rotate"), None, &[]).await.unwrap();
    settle(&world, &still(), clock::now()).await;
    assert_eq!(keks(&world, tenant.id).await[0].record.state, KeyState::Destroyed);
    let cancel = format!("/v1/keys/{key}/cancel-destruction");
    let problem = world.act::<Done>(&cancel, &tenant.token).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::StepUpRequired);
    let _: Done = world.confirmed(tenant.id, &tenant.token, (Method::POST, &cancel), None, &[]).await.unwrap();
    read(&world, &tenant, data).await.unwrap();
    let found = versions(&world.control().store, tenant.id, &key_owner(data), Purpose::Volume).await.unwrap();
    assert_eq!(states(&found), [KeyState::Deactivated, KeyState::Active], "what was given up seals no more");
    assert_eq!(world.confirmed::<Done>(tenant.id, &tenant.token, (Method::POST, &cancel), None, &[]).await.unwrap_err().code, ErrorCode::WrongState);
    // Another tenant's key is nobody's, and the tenant's own key is not destroyed alone.
    let other = world.tenant("globex").await;
    assert_eq!(schedule(&world, &other, key, json!({})).await.unwrap_err().code, ErrorCode::NotFound);
    let kek = keks(&world, tenant.id).await.remove(0).record.id;
    assert_eq!(schedule(&world, &tenant, kek, json!({})).await.unwrap_err().code, ErrorCode::WrongState);

    // Again, and nobody cancels: not a moment before its time.
    let scheduled = schedule(&world, &tenant, key, json!({ "wait_days": 7 })).await.unwrap();
    assert_eq!(settle(&world, &still(), UnixTime::from_millis(scheduled.due.millis() - 1)).await.destroyed, 0);
    assert_eq!(settle(&world, &still(), scheduled.due).await.destroyed, 1);
    let found = versions(&world.control().store, tenant.id, &key_owner(data), Purpose::Volume).await.unwrap();
    assert!(found.iter().all(|key| key.record.state == KeyState::Destroyed && key.record.wrapped.is_none()));
    let entry = world.entries_of(tenant.id, "key_destroyed").await.pop().unwrap();
    assert_eq!(entry["backups_until"].as_u64(), Some(scheduled.unrecoverable_since.millis()));
    let shown: Page<KeyInfo> = world.get("/v1/keys", &tenant.token).await.unwrap();
    let line = shown.items.iter().find(|line| line.id == key).unwrap();
    assert_eq!((line.gone_since, line.unrecoverable_since), (Some(scheduled.due), Some(scheduled.unrecoverable_since)));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_is_made_of_code_and_rows() {
    let world = World::start().await;
    let tenant = world.tenant("acme").await;
    volume(&world, &tenant, "data").await;
    let own: Inventory = world.get("/v1/key-inventory", &tenant.token).await.unwrap();
    let platform: Inventory = world.get("/v1/platform-key-inventory", &world.operator().await).await.unwrap();
    for inventory in [&own, &platform] {
        let named: Vec<&str> = inventory.purposes.iter().map(|line| line.purpose.as_str()).collect();
        let all: Vec<&str> = Purpose::ALL.iter().map(|purpose| purpose.as_str()).collect();
        assert_eq!(named, all, "every purpose has its line, also without a key");
    }
    let line = |inventory: &Inventory, purpose: Purpose| inventory.purposes.iter().find(|line| line.purpose == purpose.as_str()).unwrap().clone();
    let volumes = line(&own, Purpose::Volume);
    assert_eq!(volumes.states, [("active".to_owned(), 1)].into());
    assert_eq!(volumes.next_rotation.unwrap().since(volumes.oldest_active.unwrap()), Some(180 * 86_400_000));
    assert!(line(&own, Purpose::LogKey).states.is_empty());
    assert_eq!(line(&platform, Purpose::IssuingCa).states, [("active".to_owned(), 2)].into());
    assert!(line(&platform, Purpose::Volume).states.is_empty(), "no tenant's keys");
    world.server.stop().await;
}
