//! Tenants, projects, status.

use audit::event::Change;
use audit::{Event, Outcome};
use keys::{Owner, Purpose};
use policy::action::{ProjectCreate, ProjectList, StatusView, TenantCreate, TenantList, TenantResume, TenantSuspend};
use policy::{Action, Resource, SetFacts};
use store::{Expect, Kind, Mutation, Put, Transaction};
use vocabulary::api::{self, Done, Invitation, Page, PrincipalKind, Project, Status, Tenant, TenantCreated};
use vocabulary::{Name, PersonId, PrincipalId, ProjectId, SYSTEM_OWNER, Sensitivity, TenantId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::bootstrap::{PersonRow, invite};
use crate::limits::TICKET_LIFETIME_MS;
use crate::operation::{commit, commit_create, done, page, paged};
use crate::row::{FORMAT, PrincipalRow, ProjectRow, TenantRow};
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
        nodes_alive: control.fleet.alive(call.now),
        now: call.now,
    })
}

/// A person that exists, or a new one with a ticket; then a principal of it.
pub(crate) struct Invited {
    pub(crate) transaction: Transaction,
    pub(crate) principal: PrincipalId,
    pub(crate) person: PersonId,
    pub(crate) ticket: Option<String>,
}

/// Prepares a user of a tenant.
pub(crate) async fn invite_user<A>(call: &Call<A>, tenant: TenantId, name: &Name, roles: Vec<String>, clearance: Sensitivity) -> Result<Invited, Failure> {
    let control = &call.control;
    let known = control.store.find(SYSTEM_OWNER, Kind::PERSON, None, name).await.map_err(Failure::internal)?;
    let known: Option<PersonRow> = known.map(|row| row.parse()).transpose().map_err(Failure::internal)?;
    let (transaction, person, ticket) = match known {
        Some(person) => (Transaction::new(), person.id, None),
        None => {
            let person = fresh(PersonId::new, call.now);
            let (transaction, ticket, _) = invite(&control.vault, &control.peppers, person, name, call.now).map_err(Failure::internal)?;
            (transaction, person, Some(ticket.to_string()))
        }
    };
    let principal = fresh(PrincipalId::new, call.now);
    let row = PrincipalRow {
        format: FORMAT,
        id: principal,
        kind: PrincipalKind::User,
        name: name.clone(),
        person: Some(person),
        roles,
        clearance,
        created: call.now,
    };
    // The name is unique in the tenant: one user per person and tenant.
    let put = Put::json(tenant, Kind::PRINCIPAL, principal, Expect::Absent, &row).map_err(Failure::internal)?.name(name).link(person);
    Ok(Invited { transaction: transaction.with(put), principal, person, ticket })
}

impl Invited {
    pub(crate) fn answer(self, audit_index: u64, now: vocabulary::UnixTime) -> Invitation {
        let expires = self.ticket.as_ref().map(|_| now.plus_millis(TICKET_LIFETIME_MS));
        Invitation { principal: self.principal, ticket: self.ticket, expires, audit_index }
    }
}

/// Makes a tenant, its key-encryption key and its first administrator.
pub(crate) async fn create(call: Call<TenantCreate>, request: api::TenantCreate) -> Result<TenantCreated, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let control = &call.control;
    let member = call.member()?;
    let id = fresh(TenantId::new, call.now);
    let row = TenantRow { format: FORMAT, id, name: request.name.clone(), suspended: false, created: call.now };
    let put = Put::json(SYSTEM_OWNER, Kind::TENANT, id, Expect::Absent, &row).map_err(Failure::internal)?.name(&request.name);
    let owner = Owner { kind: "tenant".into(), id: *id.as_bytes() };
    let (kek, _) = control.vault.make_under_root(id, Purpose::TenantKek, owner, call.now).map_err(Failure::internal)?;
    let mut invited = invite_user(&call, id, &request.admin, vec!["admin".into()], Sensitivity::Regulated).await?;
    let entry = |tenant, event| control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(TenantCreate::NAME), event);
    let key_created = Event::KeyCreated {
        key: kek.id,
        version: 1,
        purpose: Purpose::TenantKek.as_str().into(),
        owner_kind: "tenant".into(),
        owner: id.to_string(),
    };
    let transaction = std::mem::take(&mut invited.transaction)
        .with(put)
        .with(Mutation::PutKey(kek))
        .entry(entry(SYSTEM_OWNER, Event::TenantChanged { tenant: id, change: Change::Created, name: Some(request.name.clone()) })?)
        .entry(entry(id, Event::TenantChanged { tenant: id, change: Change::Created, name: Some(request.name.clone()) })?)
        .entry(entry(id, key_created)?)
        .entry(entry(id, Event::UserChanged { principal: invited.principal, person: Some(invited.person), change: Change::Created })?);
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
