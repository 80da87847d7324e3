//! Release of a volume's keys to a person or program: recorded before the key leaves, sealed to a fresh key of the requester.



use audit::event::Evidence;
use audit::{Event, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{KeyState, Purpose};
use policy::action::{LeaseEnd as EndAction, LeaseList, VolumeRead, VolumeWrite};
use policy::{Action, Resource};
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Mutation, Page, Put, Transaction, WriterRow};
use vocabulary::api::{Done, LeaseInfo};
use vocabulary::lease::{Lease, LeaseEnd, LeaseHolder, LeaseMode, LeaseRequest, ReleasedKey, WriterEpoch, release_info};
use vocabulary::{ErrorCode, LeaseId, PrincipalId, TenantId, VolumeId, api};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::caller::Member;
use crate::limits::PERSON_LEASE_MS;
use crate::operation::volume::{key_owner, resource};
use crate::operation::{commit, done, page, paged};
use crate::row::{FORMAT, VolumeRow};
use crate::state::{Control, actor, commit_failure, fresh};
use crate::vault::versions;

/// A key lease, as stored; its end and state stand in columns.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRow {
    pub(crate) format: u32,
    pub(crate) volume: VolumeId,
    pub(crate) holder: PrincipalId,
    pub(crate) mode: LeaseMode,
    pub(crate) writer_epoch: Option<u64>,
}

impl Control {
    /// The live leases of a volume.
    pub(crate) async fn leases_of(&self, tenant: TenantId, volume: VolumeId) -> Result<Vec<[u8; 16]>, Failure> {
        let found = self.store.list_parent(tenant, Kind::KEY_LEASE, volume, Page::first(1000)).await.map_err(Failure::internal)?;
        Ok(found.items.into_iter().filter(|row| row.state.as_deref() == Some("live")).map(|row| row.id).collect())
    }

    /// The signers of all writer epochs.
    async fn signers(&self, tenant: TenantId, volume: VolumeId) -> Result<Vec<WriterEpoch>, Failure> {
        let mut signers: Vec<WriterEpoch> = Vec::new();
        loop {
            let after = signers.last().map_or(0, |writer| writer.epoch);
            let found = self.store.writers(tenant, volume, Page::after(after, 1000)).await.map_err(Failure::internal)?;
            let more = found.truncated && !found.items.is_empty();
            signers.extend(found.items.into_iter().map(|writer| WriterEpoch {
                epoch: writer.row.epoch,
                signer: STANDARD.encode(writer.row.signer),
                audit_index: writer.audit_index,
            }));
            if !more {
                return Ok(signers);
            }
        }
    }

    /// A lease that is live now and is this principal's.
    pub(crate) async fn live_lease(&self, member: &Member, id: LeaseId, now: vocabulary::UnixTime) -> Result<LeaseRow, Failure> {
        let ended = || Failure::new(ErrorCode::ReleaseRefused, "the lease is unknown, has ended or was revoked: ask for a new one");
        let found = self.store.get_json::<LeaseRow>(member.owner(), Kind::KEY_LEASE, id).await.map_err(Failure::internal)?;
        let (stored, row) = found.ok_or_else(ended)?;
        let live = stored.state.as_deref() == Some("live") && stored.until.is_some_and(|until| now < until);
        if live && row.holder == member.principal { Ok(row) } else { Err(ended()) }
    }
}

fn public_key(text: &str, field: &str) -> Result<[u8; 32], Failure> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Failure::invalid(format!("`{field}` is not base64 of 32 bytes")))
}

/// Opens a lease for reading.
pub(crate) async fn read(call: Call<VolumeRead>, request: LeaseRequest) -> Result<Lease, Failure> {
    if request.mode != LeaseMode::Read {
        return Err(Failure::invalid("`mode` is `read` on this route; `write` has its own"));
    }
    release(call, request, None).await
}

/// Opens a lease for writing: one writer epoch with one fresh signer.
pub(crate) async fn write(call: Call<VolumeWrite>, request: LeaseRequest) -> Result<Lease, Failure> {
    let signer = match (&request.mode, &request.signer) {
        (LeaseMode::Write, Some(signer)) => public_key(signer, "signer")?,
        (LeaseMode::Write, None) => return Err(Failure::invalid("`signer` is missing: a writer signs its roots")),
        (LeaseMode::Read, _) => return Err(Failure::invalid("`mode` is `write` on this route; `read` has its own")),
    };
    release(call, request, Some(signer)).await
}

async fn release<A: Action>(call: Call<A>, request: LeaseRequest, signer: Option<[u8; 32]>) -> Result<Lease, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let (_, row) = control.volume(tenant.tenant, call.id("id")?).await?;
    let recipient = public_key(&request.recipient, "recipient")?;
    let purpose = request.purpose.clone().ok_or_else(|| Failure::invalid("`purpose` is missing: say what the data is used for"))?;
    let permit = call.permit_for(resource(&row, tenant), &[], Some(purpose.clone())).await?;
    let epoch = permit.epoch();
    permit.spend();
    let member = call.member()?;
    let id = fresh(LeaseId::new, call.now);
    let expires = call.now.plus_millis(PERSON_LEASE_MS);
    let known = versions(&control.store, tenant.tenant, &key_owner(row.id), Purpose::Volume).await.map_err(Failure::internal)?;
    let mut keys = Vec::new();
    for key in known.iter().filter(|key| key.record.state.opens()) {
        let plain = control.vault.open_data(&control.store, &key.record).await.map_err(Failure::internal)?;
        let info = release_info(id, row.id, key.record.id, key.record.version);
        let sealed = keys::hpke::seal(&recipient, &info, b"", plain.expose()).map_err(|error| Failure::invalid(format!("`recipient`: {error}")))?;
        keys.push(ReleasedKey {
            key: key.record.id,
            version: key.record.version,
            encapsulated: STANDARD.encode(sealed.encapsulated),
            sealed: STANDARD.encode(sealed.ciphertext),
        });
    }
    let active = known.iter().any(|key| key.record.state == KeyState::Active);
    let Some(newest) = known.last().filter(|_| !keys.is_empty() && (signer.is_none() || active)) else {
        return Err(Failure::new(ErrorCode::WrongState, "the volume's keys are destroyed or deactivated"));
    };
    let head = control.head(tenant.tenant, row.id).await?;
    let holder = LeaseHolder::Principal(member.principal);
    let mode = if signer.is_some() { LeaseMode::Write } else { LeaseMode::Read };
    let entry = |event| control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(A::NAME), event);
    let mut transaction = Transaction::new();
    let mut writer_epoch = None;
    if let Some(signer) = signer {
        let next = control.store.newest_writer(tenant.tenant, row.id).await.map_err(Failure::internal)?.saturating_add(1);
        let registered = entry(Event::WriterRegistered {
            lease: id,
            volume: row.id,
            lineage: head.lineage,
            writer_epoch: next,
            signer: STANDARD.encode(signer),
            holder,
        })?;
        transaction = transaction
            .with(Mutation::OpenWriterEpoch(WriterRow {
                tenant: tenant.tenant,
                volume: row.id,
                epoch: next,
                signer,
                lease: id,
                entry: registered.id,
                opened: call.now,
            }))
            .entry(registered);
        writer_epoch = Some(next);
    }
    let body = LeaseRow { format: FORMAT, volume: row.id, holder: member.principal, mode, writer_epoch };
    let put = Put::json(tenant.tenant, Kind::KEY_LEASE, id, Expect::Absent, &body)
        .map_err(Failure::internal)?
        .parent(row.id)
        .link(member.principal)
        .state("live")
        .until(expires);
    let released = Event::KeyReleased {
        lease: id,
        volume: row.id,
        key: newest.record.id,
        versions: keys.iter().map(|key| key.version).collect(),
        mode,
        holder,
        node: None,
        purpose: Some(purpose),
        policy_epoch: epoch,
        expires,
        evidence: Evidence::None,
    };
    transaction = transaction.with(put).entry(entry(released)?);
    // The entry is on disk before the key leaves.
    let committed = control.store.commit(transaction, call.now).await.map_err(commit_failure)?;
    let audit_index = committed.audit_indexes.last().copied().unwrap_or_default();
    let signers = control.signers(tenant.tenant, row.id).await?;
    Ok(Lease {
        id,
        tenant: tenant.tenant,
        volume: row.id,
        holder,
        mode,
        keys,
        writer: writer_epoch.and_then(|epoch| signers.iter().find(|known| known.epoch == epoch).cloned()),
        signers,
        head,
        expires,
        audit_index,
    })
}

/// Lists one's own leases.
pub(crate) async fn list(call: Call<LeaseList>) -> Result<api::Page<LeaseInfo>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let member = call.member()?;
    let found = call.control.store.list_link(tenant.tenant, Kind::KEY_LEASE, member.principal, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |row| row.id, |row| {
        let body: LeaseRow = row.parse().ok()?;
        let until = row.until?;
        let ended = (row.state.as_deref() != Some("live")).then_some(until);
        Some(LeaseInfo { id: LeaseId::from_slice(&row.id)?, volume: body.volume, mode: body.mode, expires: until, ended })
    }))
}

/// Gives a lease back.
pub(crate) async fn end(call: Call<EndAction>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let member = call.member()?;
    let id: LeaseId = call.id("id")?;
    let lease = call.control.live_lease(member, id, call.now).await.map_err(|_| Failure::not_found())?;
    let (_, row) = call.control.volume(tenant.tenant, lease.volume).await?;
    call.permit(resource(&row, tenant), &[]).await?.spend();
    let event = Event::LeaseEnded { lease: id, volume: lease.volume, end: LeaseEnd::Released };
    let entry = call.control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(EndAction::NAME), event)?;
    let step = Mutation::Step { tenant: tenant.tenant, kind: Kind::KEY_LEASE, id: *id.as_bytes(), from: "live", to: "released" };
    let (index, _) = commit(&call, Transaction::new().with(step).entry(entry)).await?;
    Ok(done(index, &[]))
}

/// A volume's row with the lease that allows this use of it.
pub(crate) async fn leased<A: Action>(call: &Call<A>, wanted: LeaseMode) -> Result<(LeaseId, LeaseRow, VolumeRow), Failure> {
    let tenant = call.tenant()?;
    let id: LeaseId = call.lease_id()?;
    let lease = call.control.live_lease(call.member()?, id, call.now).await?;
    if lease.volume != call.id::<VolumeId>("id")? || (wanted == LeaseMode::Write && lease.mode != LeaseMode::Write) {
        return Err(Failure::new(ErrorCode::ReleaseRefused, "the lease is for another volume or mode"));
    }
    let (_, row) = call.control.volume(tenant.tenant, lease.volume).await?;
    Ok((id, lease, row))
}

/// Query parameters that a list understands, for the document.
pub(crate) const PAGE_QUERY: &[(&str, &str)] = &[("cursor", "where the last page ended"), ("limit", "rows, at most 1000")];

