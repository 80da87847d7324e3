//! Volumes: made, shown, rotated, deleted.

use audit::{Event, Outcome};
use keys::{KeyState, Owner, Purpose};
use policy::action::{VolumeCreate, VolumeDelete, VolumeList, VolumeRotate, VolumeView};
use policy::{Action, Resource, SetFacts};
use store::{Expect, Kind, Mutation, Put, Transaction};
use vocabulary::api::{Done, Page, Volume};
use vocabulary::volume::{RootHead, VolumeSpec};
use vocabulary::{LineageId, ProjectId, Sha256Digest, TenantId, VolumeId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::operation::{commit, commit_create, done, page, paged};
use crate::row::{FORMAT, ProjectRow, VolumeRow};
use crate::state::{Control, actor, fresh};
use crate::vault::versions;

/// The owner of a volume's data keys.
pub(crate) fn key_owner(volume: VolumeId) -> Owner {
    Owner { kind: "volume".into(), id: *volume.as_bytes() }
}

/// A volume as rules see it.
pub(crate) fn resource(row: &VolumeRow, tenant: SetFacts) -> Resource {
    Resource::Volume {
        id: row.id,
        tenant,
        project: row.spec.project,
        sensitivity: row.spec.sensitivity,
        purpose: row.spec.purpose.clone(),
        region: row.spec.region.clone(),
        jurisdictions: row.spec.jurisdictions.clone(),
        min_trust: row.min_trust,
        readers: std::collections::BTreeSet::new(),
    }
}

impl Control {
    /// A volume of a tenant, by (tenant, id).
    pub(crate) async fn volume(&self, tenant: TenantId, id: VolumeId) -> Result<(u64, VolumeRow), Failure> {
        let found = self.store.get_json::<VolumeRow>(tenant, Kind::VOLUME, id).await.map_err(Failure::internal)?;
        found.map(|(stored, row)| (stored.revision, row)).ok_or_else(Failure::not_found)
    }
    /// Its head.
    pub(crate) async fn head(&self, tenant: TenantId, id: VolumeId) -> Result<RootHead, Failure> {
        self.store.head(tenant, id).await.map_err(Failure::internal)?.ok_or_else(Failure::not_found)
    }
    /// Whether a project is the tenant's.
    pub(crate) async fn project(&self, tenant: TenantId, id: ProjectId) -> Result<ProjectRow, Failure> {
        let found = self.store.get_json::<ProjectRow>(tenant, Kind::PROJECT, id).await.map_err(Failure::internal)?;
        found.map(|(_, row)| row).ok_or_else(|| Failure::invalid("`project` is none of this tenant's"))
    }
}

fn shown(row: VolumeRow, head: RootHead, revision: u64) -> Volume {
    Volume { id: row.id, spec: row.spec, min_trust: row.min_trust, head, created: row.created, revision, audit_index: None }
}

/// Makes a volume with its first data key.
pub(crate) async fn create(call: Call<VolumeCreate>, spec: VolumeSpec) -> Result<Volume, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    control.project(tenant.tenant, spec.project).await?;
    let min_trust = spec.min_trust.unwrap_or_else(|| policy::default_min_trust(spec.sensitivity));
    if min_trust > 2 {
        return Err(Failure::invalid("`min_trust` is 0, 1 or 2"));
    }
    if spec.min_trust.is_some_and(|asked| asked < policy::default_min_trust(spec.sensitivity)) {
        return Err(Failure::new(
            vocabulary::ErrorCode::NotBuilt,
            "`min_trust` below the default of this sensitivity wants a confirmed request, which is not built for volumes yet",
        ));
    }
    let mut random = keys::SystemRandom;
    let prefix: [u8; 16] = <dyn keys::Random>::array(&mut random);
    let row = VolumeRow {
        format: FORMAT,
        id: fresh(VolumeId::new, call.now),
        min_trust,
        prefix: hex::encode(prefix),
        owner: call.member()?.principal,
        created: call.now,
        spec,
    };
    call.permit(resource(&row, tenant), &[]).await?.spend();
    let member = call.member()?;
    let lineage = fresh(LineageId::new, call.now);
    let head = RootHead { lineage, seq: 0, writer_epoch: 0, root: Sha256Digest::from_bytes([0; 32]) };
    let (key, _) = control
        .vault
        .make_data(&control.store, tenant.tenant, Purpose::Volume, key_owner(row.id), call.now)
        .await
        .map_err(Failure::internal)?;
    let put = Put::json(tenant.tenant, Kind::VOLUME, row.id, Expect::Absent, &row)
        .map_err(Failure::internal)?
        .project(row.spec.project)
        .name(&row.spec.name);
    let entry = |event| control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(VolumeCreate::NAME), event);
    let created = Event::VolumeCreated {
        volume: row.id,
        lineage,
        project: row.spec.project,
        region: row.spec.region.clone(),
        sensitivity: row.spec.sensitivity,
        min_trust,
    };
    let key_created = Event::KeyCreated {
        key: key.id,
        version: 1,
        purpose: Purpose::Volume.as_str().into(),
        owner_kind: "volume".into(),
        owner: row.id.to_string(),
    };
    let transaction = Transaction::new()
        .with(put)
        .with(Mutation::CreateHead { tenant: tenant.tenant, volume: row.id, head: head.clone() })
        .with(Mutation::PutKey(key))
        .entry(entry(created)?)
        .entry(entry(key_created)?);
    let (index, volume) = commit_create(&call, transaction, shown(row, head, 1)).await?;
    Ok(Volume { audit_index: Some(index), ..volume })
}

/// Lists volumes that the caller may see.
pub(crate) async fn list(call: Call<VolumeList>) -> Result<Page<Volume>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let found = call.control.store.volumes(tenant.tenant, page(&call)?).await.map_err(Failure::internal)?;
    let member = call.member()?;
    Ok(paged(found, |(stored, _)| stored.id, |(stored, head)| {
        let row: VolumeRow = stored.parse().ok()?;
        call.control.may_see::<VolumeView>(member, resource(&row, tenant)).then_some(())?;
        Some(shown(row, head, stored.revision))
    }))
}

/// Shows a volume.
pub(crate) async fn show(call: Call<VolumeView>) -> Result<Volume, Failure> {
    let tenant = call.tenant()?;
    let found = call.control.store.volume(tenant.tenant, call.id("id")?).await.map_err(Failure::internal)?;
    let (stored, head) = found.ok_or_else(Failure::not_found)?;
    let row: VolumeRow = stored.parse().map_err(Failure::internal)?;
    call.permit(resource(&row, tenant), &[]).await?.spend();
    Ok(shown(row, head, stored.revision))
}

/// Gives the volume a new data key for what is written from now on.
pub(crate) async fn rotate(call: Call<VolumeRotate>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let (_, row) = call.control.volume(tenant.tenant, call.id("id")?).await?;
    call.permit(resource(&row, tenant), &[]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let known = versions(&control.store, tenant.tenant, &key_owner(row.id), Purpose::Volume).await.map_err(Failure::internal)?;
    let newest = known.last().ok_or_else(|| Failure::internal("a volume without keys"))?;
    let (next, _) = control.vault.next_data(&control.store, &newest.record, call.now).await.map_err(Failure::internal)?;
    let event = Event::KeyRotated { key: next.id, version: next.version, purpose: Purpose::Volume.as_str().into() };
    let step = Mutation::StepKey {
        tenant: tenant.tenant,
        id: newest.record.id,
        version: newest.record.version,
        from: vec![KeyState::Active],
        to: KeyState::Deactivated,
    };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(VolumeRotate::NAME), event)?;
    let (index, _) = commit(&call, Transaction::new().with(Mutation::PutKey(next)).with(step).entry(entry)).await?;
    Ok(done(index, &[]))
}

/// Destroys all versions of a volume's key and forgets the volume. Its sealed bytes are garbage from then on.
pub(crate) async fn delete(call: Call<VolumeDelete>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let (revision, row) = call.control.volume(tenant.tenant, call.id("id")?).await?;
    let decision = call.permit(resource(&row, tenant), &[(&row.id.to_string(), row.spec.name.as_str())]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let entry = |event| control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(VolumeDelete::NAME), event);
    let mut transaction = Transaction::new().with(Mutation::delete(tenant.tenant, Kind::VOLUME, row.id, Expect::Revision(revision)));
    let known = versions(&control.store, tenant.tenant, &key_owner(row.id), Purpose::Volume).await.map_err(Failure::internal)?;
    for key in known.iter().filter(|key| key.record.state != KeyState::Destroyed) {
        let (id, version) = (key.record.id, key.record.version);
        let waits = key.record.state == KeyState::PendingDestroy;
        let steps = [(key.record.state, KeyState::PendingDestroy), (KeyState::PendingDestroy, KeyState::Destroyed)];
        for (from, to) in steps.into_iter().skip(usize::from(waits)) {
            transaction = transaction.with(Mutation::StepKey { tenant: tenant.tenant, id, version, from: vec![from], to });
        }
    }
    if let Some(key) = known.last() {
        let backups_until = Some(call.now.plus_millis(control.backup_retention_ms().await?));
        transaction = transaction.entry(entry(Event::KeyDestroyed { key: key.record.id, purpose: Purpose::Volume.as_str().into(), backups_until })?);
    }
    let (index, _) = commit(&call, transaction.entry(entry(Event::VolumeDeleted { volume: row.id })?)).await?;
    control.list_gone(tenant.tenant, call.now).await;
    control.end_groundless(tenant.tenant, call.now).await;
    Ok(done(index, &decision.waived))
}
