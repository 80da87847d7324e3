//! Tenants, projects, status.

use audit::event::Change;
use audit::{Event, Outcome};
use keys::{Owner, Purpose};
use policy::action::{ProjectCreate, ProjectList, StatusView, TenantCreate, TenantList, TenantResume, TenantSuspend};
use policy::{Action, Resource, SetFacts};
use store::{Expect, Kind, Mutation, Put, Transaction};
use vocabulary::api::{self, Done, Page, Project, Status, Tenant, TenantCreated};
use vocabulary::{ErrorCode, ProjectId, SYSTEM_OWNER, Sensitivity, TenantId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::operation::invitation::{Guest, invite};
use crate::operation::{commit, commit_create, done, page, paged};
use crate::row::{FORMAT, ProjectRow, TenantRow};
use crate::state::{actor, fresh};

/// The deployment's state.
pub(crate) async fn status(call: Call<StatusView>) -> Result<Status, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let control = &call.control;
    Ok(Status {
        deployment: control.deployment,
        profile: control.profile,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        change_seq: control.store.latest_change(),
        audit_size: control.store.entry_count().await.map_err(Failure::internal)?,
        published_size: *control.published.borrow(),
        nodes_alive: control.fleet.alive(call.now).len() as u64,
        now: call.now,
    })
}

/// Makes a tenant, its key-encryption key and its first administrator. As long as that administrator has not come in, the same
/// request gives a new ticket instead: the one before may have lapsed.
pub(crate) async fn create(call: Call<TenantCreate>, request: api::TenantCreate) -> Result<TenantCreated, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let control = &call.control;
    let member = call.member()?;
    let guest = |tenant| Guest { tenant, name: &request.admin, roles: vec!["admin".into()], clearance: Sensitivity::Regulated };
    if let Some(stored) = control.store.find(SYSTEM_OWNER, Kind::TENANT, None, &request.name).await.map_err(Failure::internal)? {
        let row: TenantRow = stored.parse().map_err(Failure::internal)?;
        let only = control.store.list(row.id, Kind::PRINCIPAL, store::Page::first(2)).await.map_err(Failure::internal)?.items.len() == 1;
        if !only || !control.awaits(row.id, &request.admin).await? {
            return Err(Failure::new(ErrorCode::NameTaken, "`name` is taken"));
        }
        let mut invited = invite(&call, guest(row.id)).await?;
        let (index, _) = commit(&call, std::mem::take(&mut invited.transaction)).await?;
        let tenant = Tenant { id: row.id, name: row.name, suspended: row.suspended, revision: stored.revision };
        return Ok(TenantCreated { tenant, admin: invited.answer(index, call.now) });
    }
    let id = fresh(TenantId::new, call.now);
    let row = TenantRow { format: FORMAT, id, name: request.name.clone(), suspended: false, created: call.now };
    let put = Put::json(SYSTEM_OWNER, Kind::TENANT, id, Expect::Absent, &row).map_err(Failure::internal)?.name(&request.name);
    let owner = Owner { kind: "tenant".into(), id: *id.as_bytes() };
    let (kek, _) = control.vault.make_under_root(id, Purpose::TenantKek, owner, call.now)?;
    let mut invited = invite(&call, guest(id)).await?;
    let entry = |tenant, event| control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(TenantCreate::NAME), event);
    let key_created = Event::KeyCreated {
        key: kek.id,
        version: 1,
        purpose: Purpose::TenantKek.as_str().into(),
        owner_kind: "tenant".into(),
        owner: id.to_string(),
    };
    let mut transaction = Transaction::new()
        .with(put)
        .with(Mutation::PutKey(kek))
        .entry(entry(SYSTEM_OWNER, Event::TenantChanged { tenant: id, change: Change::Created, name: Some(request.name.clone()) })?)
        .entry(entry(id, Event::TenantChanged { tenant: id, change: Change::Created, name: Some(request.name.clone()) })?)
        .entry(entry(id, key_created)?);
    let Transaction { mutations, entries, .. } = std::mem::take(&mut invited.transaction);
    transaction.mutations.extend(mutations);
    transaction.entries.extend(entries);
    let (index, _) = commit(&call, transaction).await?;
    let tenant = Tenant { id, name: request.name, suspended: false, revision: 1 };
    Ok(TenantCreated { tenant, admin: invited.answer(index, call.now) })
}

/// Lists tenants.
pub(crate) async fn list(call: Call<TenantList>) -> Result<Page<Tenant>, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let found = call.control.store.list(SYSTEM_OWNER, Kind::TENANT, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |row| row.id, |row| {
        let body: TenantRow = row.parse().ok()?;
        Some(Tenant { id: body.id, name: body.name, suspended: body.suspended, revision: row.revision })
    }))
}

async fn set_suspended<A: Action>(call: Call<A>, suspended: bool) -> Result<Done, Failure> {
    let id: TenantId = call.id("id")?;
    let found = call.control.store.get_json::<TenantRow>(SYSTEM_OWNER, Kind::TENANT, id).await.map_err(Failure::internal)?;
    let Some((stored, mut row)) = found else {
        // Whoever may do this to no tenant gets that answer, and learns not whether this one exists.
        if call.member()?.tenant.is_some() {
            call.permit(Resource::Tenant(SetFacts { tenant: id, suspended: false }), &[]).await?.spend();
        }
        return Err(Failure::not_found());
    };
    let facts = SetFacts { tenant: id, suspended: row.suspended };
    let decision = call.permit(Resource::Tenant(facts), &[(&id.to_string(), row.name.as_str())]).await?.spend();
    let member = call.member()?;
    row.suspended = suspended;
    let put = Put::json(SYSTEM_OWNER, Kind::TENANT, id, Expect::Revision(stored.revision), &row).map_err(Failure::internal)?.name(&row.name);
    let change = if suspended { Change::Disabled } else { Change::Enabled };
    let event = Event::TenantChanged { tenant: id, change, name: None };
    let entry = |tenant, event| call.control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(A::NAME), event);
    let transaction = Transaction::new().with(put).entry(entry(SYSTEM_OWNER, event.clone())?).entry(entry(id, event)?);
    let (index, _) = commit(&call, transaction).await?;
    if suspended {
        call.control.end_groundless(id, call.now).await;
    }
    Ok(done(index, &decision.waived))
}

/// Suspends a tenant.
pub(crate) async fn suspend(call: Call<TenantSuspend>) -> Result<Done, Failure> {
    set_suspended(call, true).await
}
/// Ends a suspension.
pub(crate) async fn resume(call: Call<TenantResume>) -> Result<Done, Failure> {
    set_suspended(call, false).await
}

/// Makes a project.
pub(crate) async fn project_create(call: Call<ProjectCreate>, request: api::ProjectCreate) -> Result<Project, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let member = call.member()?;
    let id = fresh(ProjectId::new, call.now);
    let row = ProjectRow { format: FORMAT, id, name: request.name.clone(), created: call.now };
    let put = Put::json(tenant.tenant, Kind::PROJECT, id, Expect::Absent, &row).map_err(Failure::internal)?.name(&request.name);
    let event = Event::ProjectChanged { project: id, change: Change::Created, name: Some(request.name.clone()) };
    let entry = call.control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(ProjectCreate::NAME), event)?;
    let answer = Project { id, name: request.name, revision: 1, audit_index: None };
    let (index, project) = commit_create(&call, Transaction::new().with(put).entry(entry), answer).await?;
    Ok(Project { audit_index: Some(index), ..project })
}

/// Lists projects.
pub(crate) async fn project_list(call: Call<ProjectList>) -> Result<Page<Project>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let found = call.control.store.list(tenant.tenant, Kind::PROJECT, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |row| row.id, |row| {
        let body: ProjectRow = row.parse().ok()?;
        Some(Project { id: body.id, name: body.name, revision: row.revision, audit_index: None })
    }))
}
