//! Secrets: made, set, listed, opened by people for pulls, released to attempts, deleted.
//!
//! Each version of a secret has a data key of its own. Whoever sets the value gets that key sealed to a fresh key of theirs,
//! seals the value on their own machine and sends the sealed bytes. So the control plane never sees a value, and holds what would
//! open it exactly as it does for volumes. A new version destroys the key of the one before it.

use std::collections::BTreeSet;

use audit::entry::{Actor, Source};
use audit::{EncodedEntry, Event, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::secret::{SEALED_MAX, SecretContext};
use keys::{KeyRecord, KeyState, Owner, PlainKey, Purpose};
use policy::action::{AttemptLease, SecretCreate as Create, SecretDelete, SecretList, SecretOpen, SecretRelease, SecretSet, SecretUse, SecretView};
use policy::{Action, Resource, SetFacts};
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Mutation, Page, Put, Transaction};
use vocabulary::api::{self, Done};
use vocabulary::job::JobSpec;
use vocabulary::lease::LeaseHolder;
use vocabulary::plan::Desired;
use vocabulary::secret::{
    ReleasedSecret, Secret, SecretCreate, SecretKey, SecretRequest, SecretSlot, SecretUse as Use, SecretValue, release_info,
};
use vocabulary::{EntryId, ErrorCode, JobId, LeaseId, Name, PrincipalId, ProjectId, SecretId, Sha256Digest, TenantId, UnixTime};

use crate::api::call::Call;
use crate::api::node::{Liveness, NodeCall};
use crate::api::problem::Failure;
use crate::lease::public_key;
use crate::limits::ATTEMPT_LEASES_MAX;
use crate::operation::{commit, commit_create, done, page, paged, release};
use crate::planner::JobRow;
use crate::row::FORMAT;
use crate::state::{Control, actor, commit_failure, fresh};
use crate::vault::versions;

/// The kind of [`SecretRow`].
const SECRET: Kind = Kind::new("secret");
/// The kind of [`ReleaseRow`]; `parent` is the secret, `link` the job.
const RELEASE: Kind = Kind::new("secret_release");

/// A secret, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretRow {
    format: u32,
    pub(crate) id: SecretId,
    pub(crate) name: Name,
    pub(crate) project: ProjectId,
    uses: BTreeSet<Use>,
    /// The version that waits for its value.
    pending: Option<u32>,
    /// The value that is given out.
    value: Option<ValueRow>,
    owner: PrincipalId,
    created: UnixTime,
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueRow {
    version: u32,
    /// `docs/spec/secret.md`, base64.
    sealed: String,
    digest: Sha256Digest,
    set: UnixTime,
}

/// A release to an attempt, under the id of its lease. It ends with the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseRow {
    format: u32,
    pub(crate) secret: SecretId,
    pub(crate) version: u32,
    pub(crate) holder: LeaseHolder,
    /// The entry of the release.
    pub(crate) released: EntryId,
}

/// The owner of a secret's data keys.
fn key_owner(secret: SecretId) -> Owner {
    Owner { kind: "secret".into(), id: *secret.as_bytes() }
}

/// A secret as rules see it.
pub(crate) fn resource(row: &SecretRow, tenant: SetFacts) -> Resource {
    Resource::Secret { id: row.id, tenant, project: row.project, jobs: row.uses.contains(&Use::Job), pulls: row.uses.contains(&Use::Pull) }
}

fn shown(row: SecretRow) -> Secret {
    Secret {
        id: row.id,
        name: row.name,
        project: row.project,
        uses: row.uses,
        version: row.value.as_ref().map_or(0, |value| value.version),
        owner: row.owner,
        created: row.created,
        changed: row.value.map(|value| value.set),
        audit_index: None,
    }
}

fn empty(row: &SecretRow) -> Failure {
    Failure::new(ErrorCode::WrongState, format!("secret `{}` has no value: swarm secret set {}", row.name, row.name))
}

impl Control {
    /// A secret of a tenant, by (tenant, id), with its revision.
    pub(crate) async fn secret(&self, tenant: TenantId, id: SecretId) -> Result<(u64, SecretRow), Failure> {
        let found = self.store.get_json::<SecretRow>(tenant, SECRET, id).await.map_err(Failure::internal)?;
        found.map(|(stored, row)| (stored.revision, row)).ok_or_else(Failure::not_found)
    }

    /// What was released to the attempts of a job.
    pub(crate) async fn secrets_of_job(&self, tenant: TenantId, job: JobId) -> Result<Vec<(LeaseId, ReleaseRow)>, Failure> {
        let mut all = Vec::new();
        let mut page = Page::first(1000);
        loop {
            let found = self.store.list_link(tenant, RELEASE, job, page).await.map_err(Failure::internal)?;
            let last = found.items.last().map(|row| row.id);
            for stored in &found.items {
                all.push((LeaseId::from_bytes(stored.id), stored.parse().map_err(Failure::internal)?));
            }
            match last {
                Some(last) if found.truncated => page = Page::after(last, 1000),
                _ => return Ok(all),
            }
        }
    }

    /// The key of a secret's version.
    async fn secret_key(&self, tenant: TenantId, secret: SecretId, version: u32) -> Result<(KeyRecord, PlainKey), Failure> {
        let known = versions(&self.store, tenant, &key_owner(secret), Purpose::Secret).await.map_err(Failure::internal)?;
        let found = known.into_iter().find(|key| key.record.version == version && key.record.state.opens());
        let record = found.ok_or_else(|| Failure::new(ErrorCode::WrongState, "the secret's key is destroyed: set its value anew"))?.record;
        let plain = self.vault.open_data(&self.store, &record).await.map_err(Failure::internal)?;
        Ok((record, plain))
    }
}

/// Seals a secret's key to a recipient. Nothing is recorded yet, and nothing leaves.
fn sealed_key(lease: LeaseId, secret: SecretId, record: &KeyRecord, plain: &PlainKey, recipient: &[u8; 32]) -> Result<SecretKey, Failure> {
    let info = release_info(lease, secret, record.id, record.version);
    let sealed = keys::hpke::seal(recipient, &info, b"", plain.expose()).map_err(|error| Failure::invalid(format!("`recipient`: {error}")))?;
    Ok(SecretKey {
        lease,
        tenant: record.tenant,
        secret,
        key: record.id,
        version: record.version,
        encapsulated: STANDARD.encode(sealed.encapsulated),
        sealed: STANDARD.encode(sealed.ciphertext),
    })
}

fn put_row(tenant: TenantId, expect: Expect, row: &SecretRow) -> Result<Put, Failure> {
    Ok(Put::json(tenant, SECRET, row.id, expect, row).map_err(Failure::internal)?.project(row.project).name(&row.name))
}

/// An entry of something that a member did.
fn entry<A: Action>(call: &Call<A>, event: Event) -> Result<EncodedEntry, Failure> {
    call.control.entry(call.now, call.tenant()?.tenant, actor(call.member()?), call.source(), Outcome::Success, Some(A::NAME), event)
}

/// Adds the steps that destroy keys.
fn destroy(mut transaction: Transaction, tenant: TenantId, doomed: &[&KeyRecord]) -> Transaction {
    for key in doomed.iter().filter(|key| key.state != KeyState::Destroyed) {
        let mut from = key.state;
        if from != KeyState::PendingDestroy {
            transaction = transaction.with(Mutation::StepKey { tenant, id: key.id, version: key.version, from: vec![from], to: KeyState::PendingDestroy });
            from = KeyState::PendingDestroy;
        }
        transaction = transaction.with(Mutation::StepKey { tenant, id: key.id, version: key.version, from: vec![from], to: KeyState::Destroyed });
    }
    transaction
}

/// Makes a secret. Its first version waits for the value, whose key the answer carries.
pub(crate) async fn create(call: Call<Create>, request: SecretCreate) -> Result<SecretSlot, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let recipient = public_key(&request.recipient, "recipient")?;
    if request.uses.is_empty() {
        return Err(Failure::invalid("`uses` is empty: a secret is for `job`, `pull` or both"));
    }
    control.project(tenant.tenant, request.project).await?;
    let row = SecretRow {
        format: FORMAT,
        id: fresh(SecretId::new, call.now),
        name: request.name,
        project: request.project,
        uses: request.uses,
        pending: Some(1),
        value: None,
        owner: call.member()?.principal,
        created: call.now,
    };
    call.permit(resource(&row, tenant), &[]).await?.spend();
    let made = control.vault.make_data(&control.store, tenant.tenant, Purpose::Secret, key_owner(row.id), call.now).await;
    let (record, plain) = made.map_err(Failure::internal)?;
    let lease = fresh(LeaseId::new, call.now);
    let key = sealed_key(lease, row.id, &record, &plain, &recipient)?;
    let created = Event::SecretCreated { secret: row.id, project: row.project, name: row.name.clone(), uses: row.uses.clone() };
    let released = released_key(&call, lease, row.id, &record)?;
    let transaction = Transaction::new()
        .with(put_row(tenant.tenant, Expect::Absent, &row)?)
        .with(Mutation::PutKey(record))
        .entry(entry(&call, created)?)
        .entry(released);
    let (index, slot) = commit_create(&call, transaction, SecretSlot { key, audit_index: 0 }).await?;
    Ok(SecretSlot { audit_index: index, ..slot })
}

fn released_key<A: Action>(call: &Call<A>, lease: LeaseId, secret: SecretId, record: &KeyRecord) -> Result<EncodedEntry, Failure> {
    let holder = LeaseHolder::Principal(call.member()?.principal);
    entry(call, Event::SecretKeyReleased { lease, secret, key: record.id, version: record.version, holder })
}

/// Begins a new version: the answer carries its key. The version before it is given out until the new value is there.
pub(crate) async fn renew(call: Call<SecretSet>, request: SecretRequest) -> Result<SecretSlot, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let recipient = public_key(&request.recipient, "recipient")?;
    let (revision, mut row) = control.secret(tenant.tenant, call.id("id")?).await?;
    call.permit(resource(&row, tenant), &[]).await?.spend();
    let known = versions(&control.store, tenant.tenant, &key_owner(row.id), Purpose::Secret).await.map_err(Failure::internal)?;
    let newest = known.last().ok_or_else(|| Failure::internal("a secret without keys"))?;
    // A version that never got its value leaves nothing behind but its destroyed key.
    let given = row.value.as_ref().map(|value| value.version);
    let doomed: Vec<&KeyRecord> = known.iter().map(|key| &key.record).filter(|record| Some(record.version) != given).collect();
    let (record, plain) = control.vault.next_data(&control.store, &newest.record, call.now).await.map_err(Failure::internal)?;
    row.pending = Some(record.version);
    let lease = fresh(LeaseId::new, call.now);
    let key = sealed_key(lease, row.id, &record, &plain, &recipient)?;
    let released = released_key(&call, lease, row.id, &record)?;
    let transaction = destroy(Transaction::new(), tenant.tenant, &doomed)
        .with(put_row(tenant.tenant, Expect::Revision(revision), &row)?)
        .with(Mutation::PutKey(record))
        .entry(released);
    let (index, _) = commit(&call, transaction).await?;
    control.list_gone(tenant.tenant, call.now).await;
    Ok(SecretSlot { key, audit_index: index })
}

/// Takes the sealed value of the version that waits for it, and destroys the key of the one before.
pub(crate) async fn set(call: Call<SecretSet>, request: SecretValue) -> Result<Secret, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let (revision, mut row) = control.secret(tenant.tenant, call.id("id")?).await?;
    call.permit(resource(&row, tenant), &[]).await?.spend();
    if row.pending != Some(request.version) {
        return Err(Failure::new(ErrorCode::WrongState, "`version` is not the one that waits for a value: begin again with swarm secret set"));
    }
    if request.sealed.len() > SEALED_MAX.div_ceil(3) * 4 {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`sealed`: a secret has at most {} bytes", vocabulary::limits::SECRET_MAX)));
    }
    let sealed = STANDARD.decode(&request.sealed).map_err(|_| Failure::invalid("`sealed` is not base64"))?;
    let (record, plain) = control.secret_key(tenant.tenant, row.id, request.version).await?;
    let context = SecretContext { tenant: tenant.tenant, secret: row.id, key: record.id, version: record.version };
    keys::secret::check(&plain, &context, &sealed)
        .map_err(|error| Failure::new(ErrorCode::VerificationFailed, format!("`sealed`: {error}")))?;
    let digest = Sha256Digest::from_bytes(audit::hash::sha256(&[&sealed]));
    let known = versions(&control.store, tenant.tenant, &key_owner(row.id), Purpose::Secret).await.map_err(Failure::internal)?;
    let doomed: Vec<&KeyRecord> = known.iter().map(|key| &key.record).filter(|known| known.version != request.version).collect();
    row.pending = None;
    row.value = Some(ValueRow { version: request.version, sealed: request.sealed, digest, set: call.now });
    let event = entry(&call, Event::SecretSet { secret: row.id, version: request.version, sealed: digest })?;
    let transaction = destroy(Transaction::new(), tenant.tenant, &doomed).with(put_row(tenant.tenant, Expect::Revision(revision), &row)?).entry(event);
    let (index, _) = commit(&call, transaction).await?;
    control.list_gone(tenant.tenant, call.now).await;
    Ok(Secret { audit_index: Some(index), ..shown(row) })
}

/// Lists the secrets that the caller may see, without their values.
pub(crate) async fn list(call: Call<SecretList>) -> Result<api::Page<Secret>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let member = call.member()?;
    let found = call.control.store.list(tenant.tenant, SECRET, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |row| row.id, |stored| {
        let row: SecretRow = stored.parse().ok()?;
        call.control.may_see::<SecretView>(member, resource(&row, tenant)).then(|| shown(row))
    }))
}

/// Destroys all keys of a secret and forgets it. What was given to a running job stays with that job.
pub(crate) async fn delete(call: Call<SecretDelete>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let (revision, row) = control.secret(tenant.tenant, call.id("id")?).await?;
    let decision = call.permit(resource(&row, tenant), &[(&row.id.to_string(), row.name.as_str())]).await?.spend();
    let known = versions(&control.store, tenant.tenant, &key_owner(row.id), Purpose::Secret).await.map_err(Failure::internal)?;
    let doomed: Vec<&KeyRecord> = known.iter().map(|key| &key.record).collect();
    let mut transaction = destroy(Transaction::new(), tenant.tenant, &doomed)
        .with(Mutation::delete(tenant.tenant, SECRET, row.id, Expect::Revision(revision)))
        .entry(entry(&call, Event::SecretDeleted { secret: row.id })?);
    if let Some(key) = doomed.last() {
        transaction = transaction.entry(entry(&call, Event::KeyDestroyed { key: key.id, purpose: Purpose::Secret.as_str().into(), backups_until: None })?);
    }
    let (index, _) = commit(&call, transaction).await?;
    call.control.list_gone(tenant.tenant, call.now).await;
    Ok(done(index, &decision.waived))
}

/// Releases a secret to a person who pulls an image with it.
pub(crate) async fn open(call: Call<SecretOpen>, request: SecretRequest) -> Result<ReleasedSecret, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let recipient = public_key(&request.recipient, "recipient")?;
    let (_, row) = control.secret(tenant.tenant, call.id("id")?).await?;
    let decision = call.permit(resource(&row, tenant), &[]).await?.spend();
    let value = row.value.as_ref().ok_or_else(|| empty(&row))?;
    let (record, plain) = control.secret_key(tenant.tenant, row.id, value.version).await?;
    let lease = fresh(LeaseId::new, call.now);
    let key = sealed_key(lease, row.id, &record, &plain, &recipient)?;
    let holder = LeaseHolder::Principal(call.member()?.principal);
    let event = Event::SecretReleased {
        lease, secret: row.id, version: value.version, sealed: value.digest, holder, node: None, policy_epoch: decision.epoch,
    };
    let (index, _) = commit(&call, Transaction::new().entry(entry(&call, event)?)).await?;
    Ok(ReleasedSecret { key, holder, value: value.sealed.clone(), audit_index: index })
}

/// Whether the caller may give a job the secrets that it names.
pub(crate) async fn admit<A: Action>(call: &Call<A>, tenant: SetFacts, job: &JobRow) -> Result<(), Failure> {
    for named in &job.spec.secrets {
        let Ok((_, row)) = call.control.secret(tenant.tenant, named.secret).await else {
            let failure = Failure::new(ErrorCode::NotFound, format!("`spec.secrets` names secret {}, which is not there", named.secret));
            return Err(call.refused(failure, "secret", named.secret.to_string(), "isolation-secret").await);
        };
        call.also::<SecretUse>(resource(&row, tenant)).await?;
        if row.project != job.project {
            let failure = Failure::new(ErrorCode::ReleaseRefused, format!("`spec.secrets`: secret `{}` is of another project", row.name));
            return Err(call.refused(failure, "secret", row.id.to_string(), "secret-project").await);
        }
        if row.value.is_none() {
            return Err(empty(&row));
        }
    }
    Ok(())
}

const UNNAMED: (&str, &str) = ("secret-named", "the job does not name this secret");
const STOPPED: (&str, &str) = ("secret-stopped", "the job was asked to stop, or its keys were revoked");

/// What a rule of a release that is none of Cedar's says.
pub(crate) fn own_rule(id: &str) -> Option<&'static str> {
    [UNNAMED, STOPPED].into_iter().find(|(known, _)| *known == id).map(|(_, text)| text)
}

/// Why a job may not have a secret, before the rules are asked.
fn ungrounded(spec: &JobSpec, desired: Desired, secret: SecretId) -> Option<(&'static str, &'static str)> {
    if !spec.secrets.iter().any(|named| named.secret == secret) {
        return Some(UNNAMED);
    }
    (desired != Desired::Run).then_some(STOPPED)
}

/// Releases a secret to an attempt: the entry is on disk before the key leaves.
pub(crate) async fn release(call: NodeCall<AttemptLease>, request: SecretRequest) -> Result<ReleasedSecret, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit(placed.resource()).await?.spend();
    let id: SecretId = call.id("secret")?;
    if let Some((rule, why)) = ungrounded(&placed.job.spec, placed.job.desired, id) {
        let failure = Failure::new(ErrorCode::ReleaseRefused, why);
        return Err(release::refused::<SecretRelease>(&call, &placed, ("secret", &id), failure, vec![rule.to_owned()]).await);
    }
    let control = &call.control;
    let (tenant, node) = (placed.tenant.tenant, call.node_id());
    let (_, row) = control.secret(tenant, id).await?;
    let decision = release::decided::<SecretRelease>(&call, &placed, resource(&row, placed.tenant), ("secret", &id)).await?;
    let recipient = public_key(&request.recipient, "recipient")?;
    let value = row.value.as_ref().ok_or_else(|| empty(&row))?;
    let holder = LeaseHolder::Attempt(placed.id);
    let held = control.secrets_of_job(tenant, placed.id.job).await?;
    if held.iter().filter(|(_, row)| row.holder == holder).count() >= ATTEMPT_LEASES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("an attempt gets at most {ATTEMPT_LEASES_MAX} releases of secrets")));
    }
    let (record, plain) = control.secret_key(tenant, id, value.version).await?;
    let lease = fresh(LeaseId::new, call.now);
    let key = sealed_key(lease, id, &record, &plain, &recipient)?;
    let event = Event::SecretReleased {
        lease, secret: id, version: value.version, sealed: value.digest, holder, node: Some(node), policy_epoch: decision.epoch,
    };
    let entry = control.entry(call.now, tenant, Actor::Node(node), Source::Node(node), Outcome::Success, Some(SecretRelease::NAME), event)?;
    let body = ReleaseRow { format: FORMAT, secret: id, version: value.version, holder, released: entry.id };
    let put = Put::json(tenant, RELEASE, lease, Expect::Absent, &body).map_err(Failure::internal)?.parent(id).link(*placed.id.job.as_bytes());
    let committed = control.store.commit(Transaction::new().with(put).entry(entry), call.now).await.map_err(commit_failure)?;
    let audit_index = committed.audit_indexes.last().copied().unwrap_or_default();
    Ok(ReleasedSecret { key, holder, value: value.sealed.clone(), audit_index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_gets_the_secrets_that_it_names_and_only_while_it_shall_run() {
        let [named, other] = [1, 2].map(|n| SecretId::from_bytes([n; 16]));
        let spec: JobSpec = serde_json::from_value(json!({
            "name": "j", "image": format!("sha256:{}", "0".repeat(64)), "purpose": "research", "sensitivity": "internal",
            "secrets": [{"secret": named, "name": "hub"}],
        }))
        .unwrap();
        let rule = |desired, secret| ungrounded(&spec, desired, secret).map(|(rule, _)| rule);
        assert_eq!(rule(Desired::Run, named), None);
        assert_eq!(rule(Desired::Run, other), Some("secret-named"));
        for desired in [Desired::Cancel, Desired::Evict, Desired::RevokeKeys] {
            assert_eq!(rule(desired, named), Some("secret-stopped"));
        }
    }
}
