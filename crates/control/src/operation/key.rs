//! The key inventory, and rotation of the keys above others. Destruction: [`crate::destruction`].

use audit::{Event, Outcome};
use keys::lifecycle::{Limits, Rotation};
use keys::record::ROOT_EPOCH;
use keys::{KeyState, Owner, Purpose};
use policy::action::{KeyList, PlatformKeyList, RootKeyRotate, TenantKeyRotate};
use policy::{Action, Resource};
use store::{Mutation, Page, StoredKey, Transaction};
use vocabulary::api::{self, Done, KeyInfo};
use vocabulary::custody::{Inventory, InventoryLine, Rewrap, RewrapLine, RootRotated};
use vocabulary::{KeyId, SYSTEM_OWNER, TenantId, UnixTime};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::limits::DAY_MS;
use crate::operation::{commit, done, limit};
use crate::state::{Control, actor};
use crate::vault::versions;

/// Lists all versions of all keys of the tenant.
pub(crate) async fn list(call: Call<KeyList>) -> Result<api::Page<KeyInfo>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let after = match call.query("cursor") {
        None => ([0; 16], 0),
        Some(text) => {
            let mut bytes = [0; 20];
            hex::decode_to_slice(text, &mut bytes).map_err(|_| Failure::invalid("query parameter `cursor` is none of ours"))?;
            let (id, version) = bytes.split_at(16);
            (id.try_into().unwrap_or([0; 16]), u32::from_be_bytes(version.try_into().unwrap_or([0; 4])))
        }
    };
    let found = call.control.store.keys(tenant.tenant, Page::after(after, limit(&call)?)).await.map_err(Failure::internal)?;
    let cursor = found.items.last().filter(|_| found.truncated).map(|key| {
        format!("{}{}", hex::encode(key.record.id.as_bytes()), hex::encode(key.record.version.to_be_bytes()))
    });
    let retention = call.control.backup_retention_ms().await?;
    let mut items = Vec::new();
    for key in found.items {
        let due = match key.record.state {
            KeyState::PendingDestroy => call.control.destruction_due(tenant.tenant, key.record.id).await?,
            KeyState::PreActive | KeyState::Active | KeyState::Deactivated | KeyState::Compromised | KeyState::Destroyed => None,
        };
        items.push(shown(key, due, retention));
    }
    Ok(api::Page { truncated: cursor.is_some(), cursor, items })
}

fn shown(key: StoredKey, destroy_at: Option<UnixTime>, retention_ms: u64) -> KeyInfo {
    let record = key.record;
    let gone_since = (record.state == KeyState::Destroyed).then_some(key.since);
    KeyInfo {
        destroy_at,
        gone_since,
        unrecoverable_since: gone_since.map(|gone| gone.plus_millis(retention_ms)),
        id: record.id,
        version: record.version,
        purpose: record.purpose.as_str().into(),
        owner: format!("{}/{}", record.owner.kind, uuid(record.owner.id)),
        state: record.state.as_str().into(),
        created: record.created,
    }
}

fn uuid(id: [u8; 16]) -> String {
    KeyId::from_bytes(id).to_string()
}

/// A new version of the tenant's key. The data keys are moved under it in the background, data is not touched; the old version
/// ends when nothing lies under it any more.
pub(crate) async fn rotate_tenant(call: Call<TenantKeyRotate>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let decision = call.permit(Resource::Tenant(tenant), &[(&tenant.tenant.to_string(), "tenant key")]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let known = versions(&control.store, tenant.tenant, &owner_of(tenant.tenant), Purpose::TenantKek).await.map_err(Failure::internal)?;
    let old = known.into_iter().rev().find(|key| key.record.state == KeyState::Active).ok_or_else(|| Failure::internal("no tenant key"))?.record;
    let (next, _) = control.vault.next_under_root(&old, call.now)?;
    let event = Event::KeyRotated { key: next.id, version: next.version, purpose: Purpose::TenantKek.as_str().into() };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(TenantKeyRotate::NAME), event)?;
    let transaction = Transaction::new().with(Mutation::PutKey(next)).with(Mutation::StepKey {
        tenant: tenant.tenant,
        id: old.id,
        version: old.version,
        from: vec![KeyState::Active],
        to: KeyState::Deactivated,
    });
    let (index, _) = commit(&call, transaction.entry(entry)).await?;
    control.vault.wake.notify_one();
    Ok(done(index, &decision.waived))
}

fn owner_of(tenant: TenantId) -> Owner {
    Owner { kind: "tenant".into(), id: *tenant.as_bytes() }
}

/// How far the rewrap under the tenant's key is.
pub(crate) async fn tenant_rewrap(call: Call<KeyList>) -> Result<Rewrap, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let control = &call.control;
    let known = versions(&control.store, tenant.tenant, &owner_of(tenant.tenant), Purpose::TenantKek).await.map_err(Failure::internal)?;
    let mut rewrap = Rewrap { versions: Vec::new(), left: 0 };
    for key in known.iter().filter(|key| key.record.state != KeyState::Destroyed) {
        let keys = control.wrapped_under(tenant.tenant, key.record.id, key.record.version).await?;
        if key.record.state != KeyState::Active {
            rewrap.left = rewrap.left.saturating_add(keys);
        }
        let (version, state, created) = (key.record.version, key.record.state.as_str().to_owned(), key.record.created);
        rewrap.versions.push(RewrapLine { version, state, created, keys });
    }
    Ok(rewrap)
}

/// How far the rewrap under the root key is, over all tenants.
pub(crate) async fn root_rewrap(call: Call<PlatformKeyList>) -> Result<Rewrap, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let control = &call.control;
    let opened = control.vault.opened();
    let mut rewrap = Rewrap { versions: Vec::new(), left: 0 };
    for epoch in opened.epochs() {
        let mut keys = 0_u64;
        for tenant in control.all_tenants().await? {
            keys = keys.saturating_add(control.wrapped_under(tenant, ROOT_EPOCH, epoch.epoch).await?);
        }
        let newest = epoch.epoch == opened.newest();
        if !newest {
            rewrap.left = rewrap.left.saturating_add(keys);
        }
        let state = if newest { KeyState::Active } else { KeyState::Deactivated };
        rewrap.versions.push(RewrapLine { version: epoch.epoch, state: state.as_str().to_owned(), created: epoch.created, keys });
    }
    Ok(rewrap)
}

/// Makes a new root epoch; what lies under the old ones is moved in the background.
pub(crate) async fn rotate_root(call: Call<RootKeyRotate>) -> Result<RootRotated, Failure> {
    let decision = call.permit(Resource::Platform, &[("all tenants", "root key")]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let entry = |epoch| {
        let event = Event::RootEpochMade { epoch };
        control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(RootKeyRotate::NAME), event)
    };
    let (audit_index, epoch) = control.next_epoch(call.now, entry).await?;
    Ok(RootRotated { epoch, audit_index, notes: decision.waived.iter().map(|note| (*note).to_owned()).collect() })
}

/// The inventory of a tenant's keys.
pub(crate) async fn inventory(call: Call<KeyList>) -> Result<Inventory, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    Ok(made_of(&call.control.all_keys(tenant.tenant).await?, call.now))
}

/// The inventory of the deployment's own keys. What tenants own, their own inventories show.
pub(crate) async fn platform_inventory(call: Call<PlatformKeyList>) -> Result<Inventory, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    Ok(made_of(&call.control.all_keys(SYSTEM_OWNER).await?, call.now))
}

/// Every purpose with what the table says of it and what the rows add up to.
fn made_of(keys: &[StoredKey], now: UnixTime) -> Inventory {
    let line = |purpose: &Purpose| {
        let (line, own) = (purpose.line(), keys.iter().filter(|key| key.record.purpose == *purpose));
        let mut states = std::collections::BTreeMap::<String, u64>::new();
        let mut oldest_active: Option<UnixTime> = None;
        for key in own {
            let count = states.entry(key.record.state.as_str().to_owned()).or_default();
            *count = count.saturating_add(1);
            if key.record.state == KeyState::Active {
                oldest_active = Some(oldest_active.map_or(key.record.created, |oldest| oldest.min(key.record.created)));
            }
        }
        let (rotation, age_ms) = match line.rotation {
            Rotation::Automatic(limits) => (told(limits), Some(limits.age_ms)),
            Rotation::WithCertificate(age_ms) => (format!("with its certificate, after {} d", age_ms / DAY_MS), Some(age_ms)),
            Rotation::Not(why) => (format!("not by itself: {why}"), None),
        };
        InventoryLine {
            purpose: purpose.as_str().to_owned(),
            algorithm: line.algorithm.to_owned(),
            bits: line.bits,
            under: line.under.as_str().to_owned(),
            states,
            oldest_active,
            next_rotation: oldest_active.zip(age_ms).map(|(oldest, age)| oldest.plus_millis(age)),
            rotation,
        }
    };
    Inventory { purposes: Purpose::ALL.iter().map(line).collect(), time: now }
}

fn told(limits: Limits) -> String {
    let mut text = format!("by itself after {} days", limits.age_ms / DAY_MS);
    if limits.bytes != u64::MAX {
        text.push_str(&format!(", {} GiB", limits.bytes >> 30));
    }
    text.push_str(&format!(", or {} uses", limits.count));
    text
}

impl Control {
    /// How many keys lie wrapped under a version of a key.
    async fn wrapped_under(&self, tenant: TenantId, kek: KeyId, version: u32) -> Result<u64, Failure> {
        let (mut count, mut after) = (0_u64, ([0; 16], 0));
        loop {
            let found = self.store.keys_under(tenant, kek, version, Page::after(after, 1000)).await.map_err(Failure::internal)?;
            count = count.saturating_add(found.items.iter().filter(|key| key.record.wrapped.is_some()).count() as u64);
            match found.items.last() {
                Some(last) if found.truncated => after = (*last.record.id.as_bytes(), last.record.version),
                Some(_) | None => return Ok(count),
            }
        }
    }
}
