//! Erasing a person: the name, the factors, the principals, and the key under which the log's personal values of that person
//! are sealed. The log keeps its leaves; what was sealed in them is noise from then on.

use std::collections::BTreeSet;

use audit::entry::Body;
use audit::event::Change;
use audit::sealed::Opened;
use audit::{Event, Outcome};
use keys::{KeyState, Purpose};
use policy::action::{AuditReveal, PersonErase};
use policy::{Action as _, Resource};
use store::{DelaySubject, Expect, Kind, Mutation, Page, Store, Transaction};
use vocabulary::api::{self, AuditRevealed, Done, PrincipalKind, RevealedValue};
use vocabulary::{ErrorCode, PersonId, PrincipalId, SYSTEM_OWNER, TenantId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::bootstrap::PersonRow;
use crate::operation::{commit, done};
use crate::row::PrincipalRow;
use crate::shred::Entries;
use crate::state::actor;
use crate::subject::person_owner;
use crate::vault::versions;

/// Erases a person for good. Everything happens in one transaction; what a backup holds lives until the backup goes.
pub(crate) async fn erase(call: Call<PersonErase>, request: api::PersonErase) -> Result<Done, Failure> {
    let decision = call.permit(Resource::Platform, &[(request.name.as_str(), request.name.as_str())]).await?.spend();
    let control = &call.control;
    let member = call.member()?;
    let found = control.store.find(SYSTEM_OWNER, Kind::PERSON, None, &request.name).await.map_err(Failure::internal)?;
    let found = found.ok_or_else(Failure::not_found)?;
    let person: PersonRow = found.parse().map_err(Failure::internal)?;
    if member.person == Some(person.id) {
        return Err(Failure::new(ErrorCode::WrongState, "you cannot erase yourself: ask another operator"));
    }
    let entry = |tenant, event| control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(PersonErase::NAME), event);
    let Erased { transaction, tenants } = steps(&control.store, person.id, Expect::Revision(found.revision), &entry).await?;
    let (index, _) = commit(&call, transaction).await?;
    control.list_erased(person.id, call.now).await;
    for tenant in tenants {
        control.end_groundless(tenant, call.now).await;
    }
    Ok(done(index, &decision.waived))
}

/// What erasing a person takes, and the tenants that lose a user by it.
pub(crate) struct Erased {
    pub(crate) transaction: Transaction,
    pub(crate) tenants: Vec<TenantId>,
}

/// The steps that erase a person, with their entries.
pub(crate) async fn steps(store: &Store, person: PersonId, expect: Expect, entry: Entries<'_>) -> Result<Erased, Failure> {
    let mut transaction = Transaction::new()
        .with(Mutation::delete(SYSTEM_OWNER, Kind::PERSON, person, expect))
        .with(Mutation::RemoveFactors { person })
        .with(Mutation::ClearLoginDelay { subject: DelaySubject::Person(person) })
        .with(Mutation::ClearLoginDelay { subject: DelaySubject::Confirmation(person) });
    let mut keys = Vec::new();
    for purpose in [Purpose::AuditSubject, Purpose::FactorSecret] {
        for key in versions(store, SYSTEM_OWNER, &person_owner(person), purpose).await.map_err(Failure::internal)? {
            let record = key.record;
            let step = |from, to| Mutation::StepKey { tenant: SYSTEM_OWNER, id: record.id, version: record.version, from: vec![from], to };
            if record.state == KeyState::Destroyed {
                continue;
            }
            if record.state != KeyState::PendingDestroy {
                transaction = transaction.with(step(record.state, KeyState::PendingDestroy));
            }
            transaction = transaction.with(step(KeyState::PendingDestroy, KeyState::Destroyed));
            if !keys.contains(&record.id) {
                keys.push(record.id);
            }
        }
    }
    let principals = store.list_link_anywhere(Kind::PRINCIPAL, person, Page::first(1000)).await.map_err(Failure::internal)?;
    if principals.truncated {
        return Err(Failure::new(ErrorCode::NotBuilt, "the person has more than 1000 principals: erasing them in steps is not built"));
    }
    let count = u32::try_from(principals.items.len()).unwrap_or(u32::MAX);
    transaction = transaction.entry(entry(SYSTEM_OWNER, Event::PersonErased { person, keys, principals: count })?);
    let mut tenants = Vec::new();
    for stored in principals.items {
        let row: PrincipalRow = stored.parse().map_err(Failure::internal)?;
        let (tenant, principal): (_, PrincipalId) = (stored.tenant, row.id);
        transaction = transaction
            .with(Mutation::delete(tenant, Kind::PRINCIPAL, principal, Expect::Revision(stored.revision)))
            .with(Mutation::RevokeTokensOf { tenant, principal });
        if row.kind == PrincipalKind::User {
            let event = Event::UserChanged { principal, person: Some(person), change: Change::Deleted };
            transaction = transaction.entry(entry(tenant, event)?);
            tenants.push(tenant);
        }
    }
    Ok(Erased { transaction, tenants })
}

/// Opens the personal values of an entry, which is an entry itself.
pub(crate) async fn reveal(call: Call<AuditReveal>) -> Result<AuditRevealed, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let control = &call.control;
    let index: u64 = call.id("index")?;
    let row = control.store.entry(tenant.tenant, index).await.map_err(Failure::internal)?.ok_or_else(Failure::not_found)?;
    let body = Body::parse(&row.body).map_err(Failure::internal)?;
    let mut values = Vec::new();
    for (path, sealed) in &body.sealed {
        let roots = match sealed.subject.parse() {
            Ok(person) => control.subjects_of(person).await?,
            Err(_) => Vec::new(),
        };
        // Two first logins at once may have made two roots: the one that fits opens it.
        let opened = roots.iter().find_map(|root| match body.open(path, Some(root)) {
            Some(Ok(Opened::Value(value))) => Some(value),
            Some(Ok(Opened::KeyDestroyed) | Err(_)) | None => None,
        });
        if opened.is_none() && !roots.is_empty() {
            return Err(Failure::internal("a sealed value opens with none of its person's keys"));
        }
        values.push(RevealedValue { path: path.clone(), subject: sealed.subject.clone(), erased: roots.is_empty(), value: opened });
    }
    let subjects: Vec<String> = body.sealed.values().map(|sealed| sealed.subject.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let event = Event::PersonalRevealed { entry: body.id, index, subjects };
    let entry = control.entry(call.now, tenant.tenant, actor(call.member()?), call.source(), Outcome::Success, Some(AuditReveal::NAME), event)?;
    // The record is on the disk before the values leave.
    let (audit_index, _) = commit(&call, Transaction::new().entry(entry)).await?;
    Ok(AuditRevealed { values, audit_index })
}
