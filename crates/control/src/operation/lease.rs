//! Key leases of people and programs. What a lease is, and how it ends, is in [`crate::lease`].

use audit::Event;
use policy::action::{LeaseEnd as EndAction, LeaseList, VolumeRead, VolumeWrite};
use policy::{Action, Resource};
use store::{Kind, Mutation, Transaction};
use vocabulary::api::{Done, LeaseInfo};
use vocabulary::lease::{Lease, LeaseEnd, LeaseHolder, LeaseMode, LeaseRequest};
use vocabulary::{LeaseId, VolumeId, api};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::lease::{Grant, Holder, LIVE, LeaseRow, asked_keys};
use crate::limits::PERSON_LEASE_MS;
use crate::operation::volume::resource;
use crate::operation::{commit, done, page, paged};
use crate::row::VolumeRow;
use crate::state::actor;

/// The member who calls, as a holder of leases.
pub(crate) fn holder<A: Action>(call: &Call<A>) -> Result<Holder<'_>, Failure> {
    let member = call.member()?;
    Ok(Holder {
        control: &call.control,
        now: call.now,
        tenant: call.tenant()?.tenant,
        holder: LeaseHolder::Principal(member.principal),
        node: None,
        actor: actor(member),
        source: call.source(),
        action: A::NAME,
    })
}

/// Opens a lease for reading.
pub(crate) async fn read(call: Call<VolumeRead>, request: LeaseRequest) -> Result<Lease, Failure> {
    if request.mode != LeaseMode::Read {
        return Err(Failure::invalid("`mode` is `read` on this route; `write` has its own"));
    }
    release(call, request).await
}

/// Opens a lease for writing: one writer epoch with one fresh signer.
pub(crate) async fn write(call: Call<VolumeWrite>, request: LeaseRequest) -> Result<Lease, Failure> {
    if request.mode != LeaseMode::Write {
        return Err(Failure::invalid("`mode` is `write` on this route; `read` has its own"));
    }
    release(call, request).await
}

async fn release<A: Action>(call: Call<A>, request: LeaseRequest) -> Result<Lease, Failure> {
    let tenant = call.tenant()?;
    let (_, row) = call.control.volume(tenant.tenant, call.id("id")?).await?;
    let (recipient, signer) = asked_keys(&request)?;
    let purpose = request.purpose.clone().ok_or_else(|| Failure::invalid("`purpose` is missing: say what the data is used for"))?;
    let decision = call.permit_for(resource(&row, tenant), &[], Some(purpose.clone())).await?.spend();
    let grant = Grant {
        mode: request.mode,
        recipient,
        signer,
        purpose,
        policy_epoch: decision.epoch,
        expires: call.now.plus_millis(PERSON_LEASE_MS),
    };
    holder(&call)?.release(&row, grant).await
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
        let ended = (row.state.as_deref() != Some(LIVE)).then_some(until);
        Some(LeaseInfo { id: LeaseId::from_slice(&row.id)?, volume: body.volume, mode: body.mode, expires: until, ended })
    }))
}

/// Gives a lease back.
pub(crate) async fn end(call: Call<EndAction>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let id: LeaseId = call.id("id")?;
    let found = call.control.store.get_json::<LeaseRow>(tenant.tenant, Kind::KEY_LEASE, id).await.map_err(Failure::internal)?;
    let (_, lease) = found.ok_or_else(Failure::not_found)?;
    let (lease, row) = holder(&call)?.leased(id, lease.volume, LeaseMode::Read).await.map_err(|_| Failure::not_found())?;
    call.permit(resource(&row, tenant), &[]).await?.spend();
    let event = Event::LeaseEnded { lease: id, volume: lease.volume, end: LeaseEnd::Released };
    let entry = holder(&call)?.entry(event)?;
    let step = Mutation::Step { tenant: tenant.tenant, kind: Kind::KEY_LEASE, id: *id.as_bytes(), from: LIVE, to: "released" };
    let (index, _) = commit(&call, Transaction::new().with(step).entry(entry)).await?;
    Ok(done(index, &[]))
}

/// A volume's row, if the lease of the request allows this use of it.
pub(crate) async fn leased<A: Action>(call: &Call<A>, wanted: LeaseMode) -> Result<VolumeRow, Failure> {
    let volume: VolumeId = call.id("id")?;
    let (_, row) = holder(call)?.leased(call.lease_id()?, volume, wanted).await?;
    Ok(row)
}

/// Query parameters that a list understands, for the document.
pub(crate) const PAGE_QUERY: &[(&str, &str)] = &[("cursor", "where the last page ended"), ("limit", "rows, at most 1000")];
