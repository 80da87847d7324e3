//! The key inventory, rotation of the tenant's key, destruction.

use audit::{Event, Outcome};
use keys::record::Parent;
use keys::{KeyState, Owner, Purpose, SystemRandom};
use policy::action::{KeyDestroy, KeyList, TenantKeyRotate};
use policy::{Action, Resource};
use store::{Mutation, Page, StoredKey, Transaction};
use vocabulary::api::{self, Done, KeyInfo};
use vocabulary::{ErrorCode, KeyId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::operation::{commit, done};
use crate::state::actor;
use crate::vault::versions;

/// Keys that one rotation rewraps in one transaction; a tenant with more is refused by name until the resumable rewrap exists.
const REWRAP_MAX: u32 = 1000;

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
    let found = call.control.store.keys(tenant.tenant, Page::after(after, 500)).await.map_err(Failure::internal)?;
    let cursor = found.items.last().filter(|_| found.truncated).map(|key| {
        format!("{}{}", hex::encode(key.record.id.as_bytes()), hex::encode(key.record.version.to_be_bytes()))
    });
    Ok(api::Page { truncated: cursor.is_some(), cursor, items: found.items.into_iter().map(shown).collect() })
}

fn shown(key: StoredKey) -> KeyInfo {
    let record = key.record;
    KeyInfo {
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

/// A new version of the tenant's key; every data key is wrapped anew under it. Data is not touched.
pub(crate) async fn rotate_tenant(call: Call<TenantKeyRotate>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[(&tenant.tenant.to_string(), "tenant key")]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let owner = Owner { kind: "tenant".into(), id: *tenant.tenant.as_bytes() };
    let known = versions(&control.store, tenant.tenant, &owner, Purpose::TenantKek).await.map_err(Failure::internal)?;
    let old = known.into_iter().rev().find(|key| key.record.state == KeyState::Active).ok_or_else(|| Failure::internal("no tenant key"))?.record;
    let old_plain = control.vault.open_under_root(&old).map_err(Failure::internal)?;
    let (next, next_plain) = control.vault.next_under_root(&old, call.now).map_err(Failure::internal)?;
    let children = control
        .store
        .keys_under(tenant.tenant, old.id, old.version, Page::after(([0; 16], 0), REWRAP_MAX))
        .await
        .map_err(Failure::internal)?;
    if children.truncated {
        return Err(Failure::new(ErrorCode::NotBuilt, format!("more than {REWRAP_MAX} keys lie under the tenant's key: the resumable rewrap is not built yet")));
    }
    let from = Parent { id: old.id, version: old.version, key: &old_plain };
    let to = Parent { id: next.id, version: next.version, key: &next_plain };
    let event = Event::KeyRotated { key: next.id, version: next.version, purpose: Purpose::TenantKek.as_str().into() };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(TenantKeyRotate::NAME), event)?;
    let mut transaction = Transaction::new().with(Mutation::PutKey(next.clone())).with(Mutation::StepKey {
        tenant: tenant.tenant,
        id: old.id,
        version: old.version,
        from: vec![KeyState::Active],
        to: KeyState::Deactivated,
    });
    for child in children.items.into_iter().filter(|child| child.record.state.opens()) {
        let moved = child.record.rewrap(&from, &to, &mut SystemRandom).map_err(Failure::internal)?;
        transaction = transaction.with(Mutation::Rewrap { key: moved, row_version: child.row_version });
    }
    let (index, _) = commit(&call, transaction.entry(entry)).await?;
    Ok(done(index, &[]))
}

/// Destroys all versions of a data key at once. In the development profile the second person is waived, and the answer says so.
pub(crate) async fn destroy(call: Call<KeyDestroy>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let id: KeyId = call.id("id")?;
    let control = &call.control;
    let found = control.store.key_versions(tenant.tenant, id, Page::after(0, 1000)).await.map_err(Failure::internal)?;
    let first = found.items.first().ok_or_else(Failure::not_found)?;
    let purpose = first.record.purpose;
    let decision = call.permit(Resource::Key { id, tenant }, &[(&id.to_string(), purpose.as_str())]).await?.spend();
    let member = call.member()?;
    if purpose == Purpose::TenantKek {
        return Err(Failure::new(ErrorCode::WrongState, "the tenant's own key goes with the tenant, not alone"));
    }
    let mut transaction = Transaction::new();
    for key in found.items.iter().filter(|key| key.record.state != KeyState::Destroyed) {
        if key.record.state != KeyState::PendingDestroy {
            transaction = transaction.with(Mutation::StepKey {
                tenant: tenant.tenant, id, version: key.record.version, from: vec![key.record.state], to: KeyState::PendingDestroy,
            });
        }
        transaction = transaction.with(Mutation::StepKey {
            tenant: tenant.tenant, id, version: key.record.version, from: vec![KeyState::PendingDestroy], to: KeyState::Destroyed,
        });
    }
    if transaction.mutations.is_empty() {
        return Err(Failure::new(ErrorCode::WrongState, "the key is destroyed already"));
    }
    let event = Event::KeyDestroyed { key: id, purpose: purpose.as_str().into(), backups_until: None };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(KeyDestroy::NAME), event)?;
    let (index, _) = commit(&call, transaction.entry(entry)).await?;
    control.end_groundless(tenant.tenant, call.now).await;
    Ok(done(index, &decision.waived))
}
