//! Users, service accounts, oneself, confirmations.

use audit::event::{Change, Factor};
use audit::{Event, Outcome};
use policy::action::{
    Logout, PrincipalDelete, PrincipalList, PrincipalUpdate, ServiceAccountCreate, StepUpConfirm, UserCreate, WhoamiView,
};
use policy::{Action, Resource, RoleBinding};
use store::{DelaySubject, Expect, Kind, Mutation, Put, Transaction};
use vocabulary::api::{self, Done, Invitation, Page, Principal, PrincipalKind, StepUpProof, WhoAmI};
use vocabulary::{ErrorCode, PrincipalId, Profile, Sensitivity, Sha256Digest, StepUpId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::operation::invitation::{Guest, invite, void_ticket};
use crate::operation::token::revocation;
use crate::operation::{commit, commit_create, done, page, paged};
use crate::row::{FORMAT, PrincipalRow};
use crate::state::{actor, commit_failure, fresh};

/// Roles of a principal at most: more is a mistake.
const ROLES_MAX: usize = 100;

fn roles(texts: &[String]) -> Result<Vec<String>, Failure> {
    if texts.is_empty() || texts.len() > ROLES_MAX {
        return Err(Failure::invalid(format!("`roles` has 1 to {ROLES_MAX} entries")));
    }
    let mut parsed = texts
        .iter()
        .map(|text| text.parse::<RoleBinding>().map(|binding| binding.to_string()).map_err(|error| Failure::invalid(format!("`roles`: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    parsed.sort();
    parsed.dedup();
    Ok(parsed)
}

/// Who am I?
pub(crate) async fn whoami(call: Call<WhoamiView>) -> Result<WhoAmI, Failure> {
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    Ok(WhoAmI {
        principal: member.principal,
        kind: member.kind,
        name: member.name.clone(),
        person: member.person,
        tenant: member.tenant.map(|tenant| tenant.tenant),
        tenant_name: member.tenant_name.clone(),
        roles: if member.kind == PrincipalKind::Operator { vec!["operator".into()] } else { member.roles.iter().map(ToString::to_string).collect() },
        expires: member.expires,
    })
}

/// Gives the token back.
pub(crate) async fn logout(call: Call<Logout>) -> Result<Done, Failure> {
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    let out = revocation(&call, member.principal, member.token, Event::LoggedOut { token: member.token }).await?;
    let (index, _) = commit(&call, out).await?;
    Ok(done(index, &[]))
}

/// Confirms a pending request with a fresh code.
pub(crate) async fn confirm(call: Call<StepUpConfirm>, request: StepUpProof) -> Result<Done, Failure> {
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    let control = &call.control;
    if control.profile == Profile::Production {
        return Err(Failure::new(ErrorCode::PasskeyRequired, "the production profile confirms with a passkey, which is not built yet"));
    }
    let id: StepUpId = call.id("id")?;
    let owner = member.owner();
    let row = control.store.step_up(owner, id).await.map_err(Failure::internal)?.filter(|row| row.login == member.token).ok_or_else(Failure::not_found)?;
    let person = member.person.ok_or_else(|| Failure::new(ErrorCode::StepUpRefused, "a service account has no factor"))?;
    if request.code.len() > identity::limits::CODE_MAX {
        return Err(Failure::invalid("`code`: too long"));
    }
    let totp = control.store.totp(person).await.map_err(Failure::internal)?.ok_or_else(|| Failure::new(ErrorCode::StepUpRefused, "no factor"))?;
    // A subject of its own: strangers who try logins under this name do not keep the person from confirming. It is the person's, not
    // the login's, so that more tokens buy no more guesses.
    let turn = Mutation::TakeLoginTurn { subject: DelaySubject::Confirmation(person), delays_ms: vec![0, 0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000] };
    control.store.commit(Transaction::new().with(turn), call.now).await.map_err(commit_failure)?;
    let secret = control.totp_secret(totp.key).await?;
    let checked = secret.check(&request.code, Some(totp.last_step).filter(|step| *step > 0), call.now);
    let entry = |outcome, event| control.entry(call.now, owner, actor(member), call.source(), outcome, Some(StepUpConfirm::NAME), event);
    let refused = || Failure::new(ErrorCode::StepUpRefused, "the code is wrong, was used before, or the confirmation has ended");
    let transaction = match checked {
        Err(_) => {
            let refusal = entry(Outcome::Refused(ErrorCode::StepUpRefused), Event::StepUpRefused { step_up: id, code: ErrorCode::StepUpRefused })?;
            let (index, _) = commit(&call, Transaction::new().entry(refusal)).await?;
            return Err(refused().recorded(index));
        }
        Ok(step) => Transaction::new()
            .with(Mutation::UseTotp { person, step })
            .with(Mutation::VerifyStepUp { tenant: owner, id, principal: member.principal, acr: 1 })
            .with(Mutation::ClearLoginDelay { subject: DelaySubject::Confirmation(person) })
            .entry(entry(
                Outcome::Success,
                Event::StepUpPassed { step_up: id, request: Sha256Digest::from_bytes(row.request_hash), factor: Factor::Totp },
            )?),
    };
    match control.store.commit(transaction, call.now).await {
        Ok(committed) => Ok(done(committed.audit_indexes.first().copied().unwrap_or_default(), &[])),
        Err(error) if error.conflict().is_some() => Err(refused()),
        Err(error) => Err(commit_failure(error)),
    }
}

/// The rule that stands beside the policy sets here.
pub(crate) const BEYOND_OWN: (&str, &str) = ("grant-beyond-own", "nobody grants a role or a clearance above their own, or makes a token that has it");

/// Whether all of these rights are the caller's own: nobody grants what they do not have, nor makes a token that has it.
pub(crate) async fn within_own<A: Action>(call: &Call<A>, roles: &[RoleBinding], clearance: Sensitivity, whose: &str) -> Result<(), Failure> {
    let member = call.member()?;
    let has = |wanted: &RoleBinding| {
        member.roles.iter().any(|own| {
            let all = own.role == policy::Role::Admin && own.project.is_none();
            let here = own.role == policy::Role::Admin && own.project.is_some() && own.project == wanted.project;
            all || here || own == wanted
        })
    };
    let beyond = match roles.iter().find(|wanted| !has(wanted)) {
        Some(role) => format!("{whose} would have the role `{role}`, which you do not have yourself"),
        None if clearance > member.clearance => {
            format!("{whose} would have the clearance {clearance}, which is above your own ({})", member.clearance)
        }
        None => return Ok(()),
    };
    let failure = Failure::new(ErrorCode::Forbidden, beyond);
    Err(call.refused(failure, "tenant", member.owner().to_string(), BEYOND_OWN.0).await)
}

/// Roles as a summary says them: those of the tenant by name, those of projects by number. However many there are, it is short,
/// and no role stands behind what is cut off.
fn in_words(roles: &[String]) -> String {
    let parsed = bindings(roles);
    let mut words: Vec<String> = parsed.iter().filter(|binding| binding.project.is_none()).map(|binding| binding.role.as_str().to_owned()).collect();
    for role in policy::Role::ALL {
        let projects = parsed.iter().filter(|binding| binding.role == role && binding.project.is_some()).count();
        if projects > 0 {
            words.push(format!("{} in {projects} project{}", role.as_str(), if projects == 1 { "" } else { "s" }));
        }
    }
    words.join(", ")
}

/// Invites a user.
pub(crate) async fn user_create(call: Call<UserCreate>, request: api::UserCreate) -> Result<Invitation, Failure> {
    let tenant = call.tenant()?;
    let granted = roles(&request.roles)?;
    within_own(&call, &bindings(&granted), request.clearance, "the user").await?;
    let words = in_words(&granted);
    let said = [("user", request.name.as_str()), ("roles", words.as_str()), ("clearance", request.clearance.as_str())];
    call.permit(Resource::Tenant(tenant), &said).await?.spend();
    let member = call.member()?;
    let guest = Guest { tenant: tenant.tenant, name: &request.name, roles: granted.clone(), clearance: request.clearance };
    let mut invited = invite(&call, guest).await?;
    let entry = |event| call.control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(UserCreate::NAME), event);
    let mut transaction = std::mem::take(&mut invited.transaction);
    for event in granted_events(invited.principal, &granted) {
        transaction = transaction.entry(entry(event)?);
    }
    let (index, _) = commit(&call, transaction).await?;
    Ok(invited.answer(index, call.now))
}

fn bindings(roles: &[String]) -> Vec<RoleBinding> {
    roles.iter().filter_map(|text| text.parse().ok()).collect()
}

fn granted_events(principal: PrincipalId, roles: &[String]) -> impl Iterator<Item = Event> {
    roles.iter().filter_map(|text| text.parse::<RoleBinding>().ok()).map(move |binding| Event::RoleGranted {
        principal,
        role: binding.role.as_str().to_owned(),
        project: binding.project,
    })
}

/// Makes a service account.
pub(crate) async fn service_account_create(call: Call<ServiceAccountCreate>, request: api::ServiceAccountCreate) -> Result<Principal, Failure> {
    let tenant = call.tenant()?;
    let granted = roles(&request.roles)?;
    within_own(&call, &bindings(&granted), request.clearance, "the service account").await?;
    let words = in_words(&granted);
    let said = [("service account", request.name.as_str()), ("roles", words.as_str()), ("clearance", request.clearance.as_str())];
    call.permit(Resource::Tenant(tenant), &said).await?.spend();
    let member = call.member()?;
    let id = fresh(PrincipalId::new, call.now);
    let row = PrincipalRow {
        format: FORMAT,
        id,
        kind: PrincipalKind::ServiceAccount,
        name: request.name.clone(),
        person: None,
        roles: granted.clone(),
        clearance: request.clearance,
        created: call.now,
        invited: None,
    };
    let put = Put::json(tenant.tenant, Kind::PRINCIPAL, id, Expect::Absent, &row).map_err(Failure::internal)?.name(&request.name);
    let entry = |event| call.control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(ServiceAccountCreate::NAME), event);
    let made = Event::ServiceAccountChanged { principal: id, change: Change::Created, name: Some(request.name.clone()) };
    let mut transaction = Transaction::new().with(put).entry(entry(made)?);
    for event in granted_events(id, &granted) {
        transaction = transaction.entry(entry(event)?);
    }
    let (_, made) = commit_create(&call, transaction, shown(row, 1)).await?;
    Ok(made)
}

fn shown(row: PrincipalRow, revision: u64) -> Principal {
    Principal { id: row.id, kind: row.kind, name: row.name, roles: row.roles, clearance: row.clearance, invited: row.invited.is_some(), revision }
}

/// Lists users and service accounts.
pub(crate) async fn list(call: Call<PrincipalList>) -> Result<Page<Principal>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let found = call.control.store.list(tenant.tenant, Kind::PRINCIPAL, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |row| row.id, |row| Some(shown(row.parse().ok()?, row.revision))))
}

/// Changes roles and clearance. They hold from the next request on.
pub(crate) async fn update(call: Call<PrincipalUpdate>, request: api::PrincipalUpdate) -> Result<Principal, Failure> {
    let tenant = call.tenant()?.tenant;
    let id: PrincipalId = call.id("id")?;
    let other = call.control.member(tenant, id).await?.ok_or_else(Failure::not_found)?;
    let revision = call.revision()?;
    let granted = roles(&request.roles)?;
    // What it has already may be above the caller's own, and may stay or shrink.
    let more: Vec<RoleBinding> = bindings(&granted).into_iter().filter(|role| !other.roles.contains(role)).collect();
    let clearance = if request.clearance > other.clearance { request.clearance } else { Sensitivity::Public };
    within_own(&call, &more, clearance, "the principal").await?;
    let (named, words) = (id.to_string(), in_words(&granted));
    let said = [(named.as_str(), other.name.as_str()), ("roles", words.as_str()), ("clearance", request.clearance.as_str())];
    call.permit(Resource::Principal(other.facts()), &said).await?.spend();
    let member = call.member()?;
    let found = call.control.store.get_json::<PrincipalRow>(tenant, Kind::PRINCIPAL, id).await.map_err(Failure::internal)?;
    let (_, before) = found.ok_or_else(Failure::not_found)?;
    let row = PrincipalRow { roles: granted.clone(), clearance: request.clearance, ..before.clone() };
    let mut put = Put::json(tenant, Kind::PRINCIPAL, id, Expect::Revision(revision), &row).map_err(Failure::internal)?.name(&row.name);
    if let Some(person) = row.person {
        put = put.link(person);
    }
    let entry = |event| call.control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(PrincipalUpdate::NAME), event);
    let mut transaction = Transaction::new().with(put);
    for gone in before.roles.iter().filter(|role| !granted.contains(role)) {
        if let Ok(binding) = gone.parse::<RoleBinding>() {
            transaction = transaction.entry(entry(Event::RoleRevoked { principal: id, role: binding.role.as_str().into(), project: binding.project })?);
        }
    }
    let new: Vec<String> = granted.iter().filter(|role| !before.roles.contains(role)).cloned().collect();
    for event in granted_events(id, &new) {
        transaction = transaction.entry(entry(event)?);
    }
    transaction = transaction.entry(entry(match row.kind {
        PrincipalKind::ServiceAccount => Event::ServiceAccountChanged { principal: id, change: Change::Updated, name: None },
        PrincipalKind::Operator | PrincipalKind::User => Event::UserChanged { principal: id, person: row.person, change: Change::Updated },
    })?);
    let (_, committed) = commit(&call, transaction).await?;
    // Leases that the new rights do not carry end before the answer.
    call.control.end_groundless(tenant, call.now).await;
    Ok(shown(row, committed.revisions.first().copied().unwrap_or_default()))
}

/// Removes a principal and all its tokens.
pub(crate) async fn delete(call: Call<PrincipalDelete>) -> Result<Done, Failure> {
    let tenant = call.tenant()?.tenant;
    let id: PrincipalId = call.id("id")?;
    let other = call.control.member(tenant, id).await?.ok_or_else(Failure::not_found)?;
    let decision = call.permit(Resource::Principal(other.facts()), &[(&id.to_string(), other.name.as_str())]).await?.spend();
    let member = call.member()?;
    if id == member.principal {
        return Err(Failure::new(ErrorCode::WrongState, "you cannot remove yourself: ask another administrator"));
    }
    let event = match other.kind {
        PrincipalKind::ServiceAccount => Event::ServiceAccountChanged { principal: id, change: Change::Deleted, name: None },
        PrincipalKind::Operator | PrincipalKind::User => Event::UserChanged { principal: id, person: other.person, change: Change::Deleted },
    };
    let entry = call.control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(PrincipalDelete::NAME), event)?;
    let mut transaction = Transaction::new()
        .with(Mutation::delete(tenant, Kind::PRINCIPAL, id, Expect::Any))
        .with(Mutation::RevokeTokensOf { tenant, principal: id })
        .entry(entry);
    let found = call.control.store.get_json::<PrincipalRow>(tenant, Kind::PRINCIPAL, id).await.map_err(Failure::internal)?;
    if let Some((_, row)) = found
        && let Some((void, event)) = void_ticket(&call.control, &row).await?
    {
        let entry = call.control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(PrincipalDelete::NAME), event)?;
        transaction = transaction.with(void).entry(entry);
    }
    let (index, _) = commit(&call, transaction).await?;
    call.control.end_groundless(tenant, call.now).await;
    Ok(done(index, &decision.waived))
}
