//! Destruction of keys after a waiting period, and the two dates of honest shredding.
//!
//! From the moment it is scheduled nothing opens the key; until the period is over it can be cancelled. Then its wrapped bytes
//! are erased: *gone from the living system since*. Copies in backups live as long as backups are kept: *unrecoverable from
//! backups since*. Before the second date has come, nobody says that the data is shredded.

use audit::{Event, Outcome};
use keys::{KeyState, Purpose};
use policy::action::{BackupRetentionSet, KeyDestroy, KeyDestroyCancel};
use policy::{Action, Resource};
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Mutation, Page, Put, Store, StoredKey, Transaction};
use vocabulary::api::Done;
use vocabulary::custody::{self, Scheduled};
use vocabulary::{ErrorCode, KeyId, SYSTEM_OWNER, TenantId, UnixTime};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::keylife;
use crate::limits::{BACKUP_RETENTION_DAYS, BACKUP_RETENTION_DAYS_MAX, DAY_MS, DESTRUCTIONS_PER_ROUND, DESTRUCTION_WAIT_DAYS, DESTRUCTION_WAIT_DEFAULT_DAYS};
use crate::operation::{commit, done};
use crate::row::FORMAT;
use crate::state::{Control, actor, commit_failure};

/// A scheduled destruction, under the key's id; `until` is its date.
const DESTRUCTION: Kind = Kind::new("key_destruction");
const WAITING: &str = "waiting";
const CANCELLED: &str = "cancelled";
const GONE: &str = "gone";
/// How long backups are kept, under the deployment's id.
const RETENTION: Kind = Kind::new("backup_retention");

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DestructionRow {
    format: u32,
    key: KeyId,
    tenant: TenantId,
    scheduled: UnixTime,
    due: UnixTime,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionRow {
    format: u32,
    days: u32,
}

fn days(count: u32) -> u64 {
    u64::from(count).saturating_mul(DAY_MS)
}

impl Control {
    /// How long a backup is kept, in milliseconds.
    pub(crate) async fn backup_retention_ms(&self) -> Result<u64, Failure> {
        let found = self.store.get_json::<RetentionRow>(SYSTEM_OWNER, RETENTION, self.deployment).await.map_err(Failure::internal)?;
        Ok(days(found.map_or(BACKUP_RETENTION_DAYS, |(_, row)| row.days)))
    }

    /// When a scheduled destruction is due.
    pub(crate) async fn destruction_due(&self, tenant: TenantId, key: KeyId) -> Result<Option<UnixTime>, Failure> {
        let found = self.store.get_json::<DestructionRow>(tenant, DESTRUCTION, key).await.map_err(Failure::internal)?;
        Ok(found.filter(|(stored, _)| stored.state.as_deref() == Some(WAITING)).map(|(_, row)| row.due))
    }

    async fn live_versions(&self, tenant: TenantId, id: KeyId) -> Result<Vec<StoredKey>, Failure> {
        let mut found: Vec<StoredKey> = Vec::new();
        loop {
            let after = found.last().map_or(0, |key| key.record.version);
            let page = self.store.key_versions(tenant, id, Page::after(after, 1000)).await.map_err(Failure::internal)?;
            let more = page.truncated && !page.items.is_empty();
            found.extend(page.items);
            if !more {
                return Ok(found);
            }
        }
    }
}

fn step(key: &StoredKey, from: KeyState, to: KeyState) -> Mutation {
    Mutation::StepKey { tenant: key.record.tenant, id: key.record.id, version: key.record.version, from: vec![from], to }
}

fn row(tenant: TenantId, id: KeyId, scheduled: UnixTime, due: UnixTime, state: &'static str) -> Result<Put, Failure> {
    let body = DestructionRow { format: FORMAT, key: id, tenant, scheduled, due };
    Ok(Put::json(tenant, DESTRUCTION, id, Expect::Any, &body).map_err(Failure::internal)?.state(state).until(due))
}

/// Schedules the destruction of all versions of a data key: from here on nothing opens it.
pub(crate) async fn schedule(call: Call<KeyDestroy>, request: custody::KeyDestroy) -> Result<Scheduled, Failure> {
    let tenant = call.tenant()?;
    let id: KeyId = call.id("id")?;
    let control = &call.control;
    let found = control.live_versions(tenant.tenant, id).await?;
    let first = found.first().ok_or_else(Failure::not_found)?;
    let purpose = first.record.purpose;
    let wait = request.wait_days.unwrap_or(DESTRUCTION_WAIT_DEFAULT_DAYS);
    let named = format!("{id}, in {wait} days");
    let decision = call.permit(Resource::Key { id, tenant }, &[(&named, purpose.as_str())]).await?.spend();
    if !DESTRUCTION_WAIT_DAYS.contains(&wait) {
        let (least, most) = (*DESTRUCTION_WAIT_DAYS.start(), *DESTRUCTION_WAIT_DAYS.end());
        return Err(Failure::invalid(format!("`wait_days` is {least} to {most}: so long it can be cancelled")));
    }
    let member = call.member()?;
    if purpose == Purpose::TenantKek {
        return Err(Failure::new(ErrorCode::WrongState, "the tenant's own key goes with the tenant, not alone"));
    }
    let mut transaction = Transaction::new();
    for key in found.iter().filter(|key| !matches!(key.record.state, KeyState::Destroyed | KeyState::PendingDestroy)) {
        transaction = transaction.with(step(key, key.record.state, KeyState::PendingDestroy));
    }
    if transaction.mutations.is_empty() {
        return Err(Failure::new(ErrorCode::WrongState, "the key is destroyed already, or its destruction is scheduled"));
    }
    let due = call.now.plus_millis(days(wait));
    let unrecoverable = due.plus_millis(control.backup_retention_ms().await?);
    let event = Event::KeyDestructionScheduled { key: id, purpose: purpose.as_str().into(), due };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(KeyDestroy::NAME), event)?;
    let transaction = transaction.with(row(tenant.tenant, id, call.now, due, WAITING)?).entry(entry);
    let (audit_index, _) = commit(&call, transaction).await?;
    control.end_groundless(tenant.tenant, call.now).await;
    let notes = decision.waived.iter().map(|note| (*note).to_owned()).collect();
    Ok(Scheduled { audit_index, due, unrecoverable_since: unrecoverable, notes })
}

/// Cancels a destruction that is not due yet. Old versions open again and never seal; a volume gets a new version that does.
pub(crate) async fn cancel(call: Call<KeyDestroyCancel>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let id: KeyId = call.id("id")?;
    let control = &call.control;
    let found = control.live_versions(tenant.tenant, id).await?;
    let first = found.first().ok_or_else(Failure::not_found)?;
    let purpose = first.record.purpose;
    let decision = call.permit(Resource::Key { id, tenant }, &[(&id.to_string(), purpose.as_str())]).await?.spend();
    let member = call.member()?;
    let due = control.destruction_due(tenant.tenant, id).await?;
    let Some(due) = due.filter(|due| call.now.since(*due).is_none()) else {
        return Err(Failure::new(ErrorCode::WrongState, "no destruction of this key waits: there is nothing to cancel"));
    };
    let mut transaction = Transaction::new();
    for key in found.iter().filter(|key| key.record.state == KeyState::PendingDestroy) {
        transaction = transaction.with(step(key, KeyState::PendingDestroy, KeyState::Deactivated));
    }
    let entry = |event| control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(KeyDestroyCancel::NAME), event);
    transaction = transaction.entry(entry(Event::KeyDestructionCancelled { key: id, purpose: purpose.as_str().into() })?);
    if let Some(last) = found.last().filter(|_| purpose == Purpose::Volume) {
        let (next, _) = control.vault.next_data(&control.store, &last.record, call.now).await.map_err(Failure::internal)?;
        let event = Event::KeyRotated { key: next.id, version: next.version, purpose: purpose.as_str().into() };
        transaction = transaction.with(Mutation::PutKey(next)).entry(entry(event)?);
    }
    let (index, _) = commit(&call, transaction.with(row(tenant.tenant, id, call.now, due, CANCELLED)?)).await?;
    Ok(done(index, &decision.waived))
}

/// Destroys what is due, a bounded number of keys.
pub(crate) async fn destroy_due(control: &Control, now: UnixTime, did: &mut keylife::Done) -> Result<(), Failure> {
    let found = control.store.list_ended_anywhere(DESTRUCTION, WAITING, now, DESTRUCTIONS_PER_ROUND).await.map_err(Failure::internal)?;
    did.more |= found.truncated;
    for stored in found.items {
        let due: DestructionRow = stored.parse().map_err(Failure::internal)?;
        let versions = control.live_versions(due.tenant, due.key).await?;
        let Some(first) = versions.first() else { continue };
        let mut transaction = Transaction::new();
        for key in versions.iter().filter(|key| key.record.state == KeyState::PendingDestroy) {
            transaction = transaction.with(step(key, KeyState::PendingDestroy, KeyState::Destroyed));
        }
        let backups_until = Some(now.plus_millis(control.backup_retention_ms().await?));
        let event = Event::KeyDestroyed { key: due.key, purpose: first.record.purpose.as_str().into(), backups_until };
        let entry = control.system_entry(now, due.tenant, event)?;
        let body = DestructionRow { format: FORMAT, ..due };
        let put = Put::json(body.tenant, DESTRUCTION, body.key, Expect::Revision(stored.revision), &body).map_err(Failure::internal)?;
        let transaction = transaction.with(put.state(GONE).until(body.due)).entry(entry);
        match control.store.commit(transaction, now).await {
            Ok(_) => {
                did.destroyed = did.destroyed.saturating_add(1);
                control.list_gone(body.tenant, now).await;
            }
            // Cancelled in this very moment, or done by another process: what is left is seen by the next round.
            Err(error) if error.conflict().is_some() => {}
            Err(error) => return Err(commit_failure(error)),
        }
    }
    Ok(())
}

/// The end of a destruction that waits, for a key that is destroyed otherwise.
pub(crate) async fn settled(store: &Store, tenant: TenantId, key: KeyId) -> Result<Option<Put>, Failure> {
    let Some((stored, row)) = store.get_json::<DestructionRow>(tenant, DESTRUCTION, key).await.map_err(Failure::internal)? else { return Ok(None) };
    if stored.state.as_deref() != Some(WAITING) {
        return Ok(None);
    }
    let put = Put::json(tenant, DESTRUCTION, key, Expect::Revision(stored.revision), &row).map_err(Failure::internal)?;
    Ok(Some(put.state(GONE).until(row.due)))
}

/// Says how long backups are kept: the second date of every later shredding is counted by it.
pub(crate) async fn set_retention(call: Call<BackupRetentionSet>, request: custody::BackupRetention) -> Result<Done, Failure> {
    let decision = call.permit(Resource::Platform, &[(&format!("{} days", request.days), "backups")]).await?.spend();
    if request.days == 0 || request.days > BACKUP_RETENTION_DAYS_MAX {
        return Err(Failure::invalid(format!("`days` is 1 to {BACKUP_RETENTION_DAYS_MAX}")));
    }
    let member = call.member()?;
    let control = &call.control;
    let put = Put::json(SYSTEM_OWNER, RETENTION, control.deployment, Expect::Any, &RetentionRow { format: FORMAT, days: request.days }).map_err(Failure::internal)?;
    let event = Event::BackupRetentionSet { days: request.days };
    let entry = control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(BackupRetentionSet::NAME), event)?;
    let (index, _) = commit(&call, Transaction::new().with(put).entry(entry)).await?;
    Ok(done(index, &decision.waived))
}
