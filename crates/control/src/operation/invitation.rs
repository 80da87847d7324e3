//! Invitations: how a person comes into a tenant, or into the deployment.
//!
//! Names of persons are the deployment's, and whoever is invited somewhere need not know of it. So an invitation makes a
//! principal that nobody can act as, and a ticket. The person redeems the ticket: with new factors where they have none, with
//! a proof of those that they have where they have some. Only then the principal is theirs. Who took a name elsewhere before
//! gets nothing by an invitation of it without this very ticket, and who holds the ticket gets nothing without being that person.

use audit::entry::Actor;
use audit::event::{Change, Factor, TokenKind as EntryTokenKind};
use audit::{EncodedEntry, Event, Outcome};
use identity::{Argon2id, Enrolment, Password, PepperedMac, PersonFacts, Token, TokenKind};
use keys::SystemRandom;
use policy::Action;
use store::{Conflict, DelaySubject, Expect, Hashed, Kind, Mutation, Put, TokenUse, Transaction};
use vocabulary::api::{EnrolBegin, EnrolComplete, EnrolOffer, Enrolled, Invitation, PrincipalKind};
use vocabulary::{ErrorCode, Name, PersonId, PrincipalId, SYSTEM_OWNER, Sensitivity, TenantId, TokenId, UnixTime};
use zeroize::Zeroizing;

use crate::api::call::{Call, Public};
use crate::api::problem::Failure;
use crate::bootstrap::{Joins, PersonRow, TicketScope, person_put, ticket_for, totp_row};
use crate::limits::TICKET_LIFETIME_MS;
use crate::operation::login::{Proved, delays, login_refused, prove, stored_recovery};
use crate::row::{FORMAT, PrincipalRow};
use crate::state::{Control, actor, commit_failure, fresh};
use crate::vault::VaultError;

/// An invitation that is about to be committed: with its entries, without those of the roles.
pub(crate) struct Invited {
    pub(crate) transaction: Transaction,
    pub(crate) principal: PrincipalId,
    /// None only where the person invited themself.
    ticket: Option<Zeroizing<String>>,
}

impl Invited {
    pub(crate) fn answer(self, audit_index: u64, now: UnixTime) -> Invitation {
        let expires = self.ticket.as_ref().map(|_| now.plus_millis(TICKET_LIFETIME_MS));
        Invitation { principal: self.principal, ticket: self.ticket.map(|ticket| ticket.to_string()), expires, audit_index }
    }
}

/// Whom an invitation is for.
pub(crate) struct Guest<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) name: &'a Name,
    pub(crate) roles: Vec<String>,
    pub(crate) clearance: Sensitivity,
}

impl Control {
    /// The user of this name who has not come in yet: invited, or from before invitations and without factors.
    async fn waiting(&self, tenant: TenantId, name: &Name) -> Result<Option<(u64, PrincipalRow)>, Failure> {
        let Some(stored) = self.store.find(tenant, Kind::PRINCIPAL, None, name).await.map_err(Failure::internal)? else { return Ok(None) };
        let row: PrincipalRow = stored.parse().map_err(Failure::internal)?;
        let waits = match (row.kind, row.person) {
            (PrincipalKind::User, Some(_)) if row.invited.is_some() => true,
            (PrincipalKind::User, Some(person)) => self.store.totp(person).await.map_err(Failure::internal)?.is_none(),
            (PrincipalKind::User | PrincipalKind::ServiceAccount | PrincipalKind::Operator, _) => false,
        };
        Ok(waits.then_some((stored.revision, row)))
    }

    /// Whether somebody of this name waits to come in.
    pub(crate) async fn awaits(&self, tenant: TenantId, name: &Name) -> Result<bool, Failure> {
        Ok(self.waiting(tenant, name).await?.is_some())
    }
}

/// Voids the ticket of an invitation.
pub(crate) async fn void_ticket(control: &Control, row: &PrincipalRow) -> Result<Option<(Mutation, Event)>, Failure> {
    let Some(ticket) = row.invited else { return Ok(None) };
    let known = control.store.token(ticket).await.map_err(Failure::internal)?;
    Ok(known.filter(|known| known.revoked.is_none()).map(|_| {
        let event = Event::TokenRevoked { token: ticket, token_kind: EntryTokenKind::Ticket };
        (Mutation::RevokeToken { tenant: SYSTEM_OWNER, id: ticket }, event)
    }))
}

/// Prepares a user of a tenant. Somebody who was invited before and has not come in gets a new ticket, and the old one is void.
pub(crate) async fn invite<A: Action>(call: &Call<A>, guest: Guest<'_>) -> Result<Invited, Failure> {
    let control = &call.control;
    let member = call.member()?;
    let Guest { tenant, name, roles, clearance } = guest;
    let entry = |event| control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(A::NAME), event);
    let waiting = control.waiting(tenant, name).await?;
    let (principal, expect, created) = match &waiting {
        Some((revision, row)) => (row.id, Expect::Revision(*revision), row.created),
        // Whoever has the name in this tenant already keeps it: the store refuses a second.
        None => (fresh(PrincipalId::new, call.now), Expect::Absent, call.now),
    };
    let known = control.store.find(SYSTEM_OWNER, Kind::PERSON, None, name).await.map_err(Failure::internal)?;
    let known: Option<PersonRow> = known.map(|row| row.parse()).transpose().map_err(Failure::internal)?;
    let person = known.as_ref().map_or_else(|| fresh(PersonId::new, call.now), |known| known.id);
    let mut transaction = Transaction::new();
    if known.is_none() {
        transaction = transaction.with(person_put(person, name, call.now).map_err(Failure::internal)?);
    }
    // Nobody needs a ticket from themself.
    let oneself = member.person == Some(person);
    let change = if waiting.is_some() { Change::Updated } else { Change::Created };
    transaction = transaction.entry(entry(Event::UserChanged { principal, person: Some(person), change })?);
    let (mut ticket, mut invited) = (None, None);
    if !oneself {
        let joins = Joins { tenant, principal };
        let (made, text, id) = ticket_for(&control.vault, &control.peppers, person, Some(joins), call.now).map_err(|error| match error.downcast::<VaultError>() {
            Ok(error) => Failure::from(*error),
            Err(other) => Failure::internal(other),
        })?;
        let expires = call.now.plus_millis(TICKET_LIFETIME_MS);
        let issued = Event::TokenIssued { token: id, token_kind: EntryTokenKind::Ticket, holder: Some(principal), expires };
        transaction.mutations.extend(made.mutations);
        transaction = transaction.entry(entry(issued)?);
        (ticket, invited) = (Some(text), Some(id));
    }
    if let Some((_, row)) = &waiting
        && let Some((revoke, event)) = void_ticket(control, row).await?
    {
        transaction = transaction.with(revoke).entry(entry(event)?);
    }
    let row = PrincipalRow {
        format: FORMAT,
        id: principal,
        kind: PrincipalKind::User,
        name: name.clone(),
        person: Some(person),
        roles,
        clearance,
        created,
        invited,
    };
    // The name is unique in the tenant: one user per person and tenant.
    let put = Put::json(tenant, Kind::PRINCIPAL, principal, expect, &row).map_err(Failure::internal)?.name(name).link(person);
    Ok(Invited { transaction: transaction.with(put), principal, ticket })
}

fn ticket_refused() -> Failure {
    Failure::new(ErrorCode::TicketRefused, "the ticket is unknown, spent or expired")
}

/// A live ticket, and what it is for.
struct Ticket {
    id: TokenId,
    scope: TicketScope,
    /// The principal that it makes the person's.
    joins: Option<Joining>,
}

struct Joining {
    tenant: TenantId,
    revision: u64,
    row: PrincipalRow,
}

/// Finds a live ticket.
async fn ticket(call: &Call<Public>, text: &str) -> Result<Ticket, Failure> {
    let control = &call.control;
    let found = find_ticket(control, text, call.now).await?;
    if found.is_none() {
        control.count_stranger(call.connection.as_ref(), ErrorCode::TicketRefused).await;
    }
    found.ok_or_else(ticket_refused)
}

async fn find_ticket(control: &Control, text: &str, now: UnixTime) -> Result<Option<Ticket>, Failure> {
    let Some(token) = Token::parse(text).ok().filter(|token| token.kind() == TokenKind::Enrolment) else { return Ok(None) };
    let Some(stored): Option<TokenUse> = control.store.token(token.id()).await.map_err(Failure::internal)? else { return Ok(None) };
    let Some(kind) = TokenKind::from_word(&stored.row.kind) else { return Ok(None) };
    let record = identity::TokenRecord { kind, id: stored.row.id, mac: PepperedMac::from_parts(stored.row.pepper_version, stored.row.mac) };
    if !token.fits(&record, &control.peppers) || !stored.is_live(now) {
        return Ok(None);
    }
    let scope: TicketScope = serde_json::from_str(&stored.row.scope).map_err(Failure::internal)?;
    let joins = match scope.joins {
        None => None,
        Some(Joins { tenant, principal }) => {
            let found = control.store.get_json::<PrincipalRow>(tenant, Kind::PRINCIPAL, principal).await.map_err(Failure::internal)?;
            // The principal names the one ticket that is for it, and its person.
            match found {
                Some((kept, row)) if row.invited == Some(stored.row.id) && row.person == Some(scope.person) => {
                    Some(Joining { tenant, revision: kept.revision, row })
                }
                Some(_) | None => return Ok(None),
            }
        }
    };
    Ok(Some(Ticket { id: stored.row.id, scope, joins }))
}

async fn person(control: &Control, id: PersonId) -> Result<(u64, PersonRow), Failure> {
    let found = control.store.get_json::<PersonRow>(SYSTEM_OWNER, Kind::PERSON, id).await.map_err(Failure::internal)?;
    found.map(|(stored, row)| (stored.revision, row)).ok_or_else(|| Failure::new(ErrorCode::TicketRefused, "the ticket's person is gone"))
}

/// First step: says what the ticket is for. Who has no factors yet gets the same secret as long as the ticket is unspent.
pub(crate) async fn begin(call: Call<Public>, request: EnrolBegin) -> Result<EnrolOffer, Failure> {
    let control = &call.control;
    let ticket = ticket(&call, &request.ticket).await?;
    let (_, person) = person(control, ticket.scope.person).await?;
    let (tenant, roles) = match &ticket.joins {
        Some(joins) => (control.tenant(joins.tenant).await?.map(|tenant| tenant.name), joins.row.roles.clone()),
        None => (None, Vec::new()),
    };
    if control.store.totp(person.id).await.map_err(Failure::internal)?.is_some() {
        // A ticket that was overtaken by another, and makes nobody a member of anything, is good for nothing any more.
        if ticket.joins.is_none() {
            return Err(ticket_refused());
        }
        return Ok(EnrolOffer { name: person.name, enrolled: true, totp_secret: None, totp_uri: None, tenant, roles });
    }
    let secret = control.totp_secret(ticket.scope.totp).await?;
    Ok(EnrolOffer {
        totp_secret: Some(secret.reveal_base32().to_string()),
        totp_uri: Some(secret.reveal_uri(&person.name).to_string()),
        name: person.name,
        enrolled: false,
        tenant,
        roles,
    })
}

/// Second step: sets or proves password and authenticator, spends the ticket, and makes the principal the person's.
pub(crate) async fn complete(call: Call<Public>, request: EnrolComplete) -> Result<Enrolled, Failure> {
    let ticket = ticket(&call, &request.ticket).await?;
    // Read before the factors: who enrols in between changes it, and this try fails.
    let (revision, person) = person(&call.control, ticket.scope.person).await?;
    match call.control.person_facts(person.id).await? {
        Some(known) => accept(&call, ticket, &person, known, &request).await,
        None => enrol(&call, ticket, (revision, &person), &request).await,
    }
}

/// Makes the principal of a spent ticket its person's.
fn activate(call: &Call<Public>, joins: Joining, person: PersonId) -> Result<(Put, EncodedEntry), Failure> {
    let Joining { tenant, revision, row } = joins;
    let row = PrincipalRow { invited: None, ..row };
    let put = Put::json(tenant, Kind::PRINCIPAL, row.id, Expect::Revision(revision), &row).map_err(Failure::internal)?;
    let event = Event::UserChanged { principal: row.id, person: Some(person), change: Change::Enabled };
    let who = Actor::User(row.id, person);
    let entry = call.control.entry(call.now, tenant, who, call.source(), Outcome::Success, Some("enrol"), event)?;
    Ok((put.name(&row.name).link(person), entry))
}

/// The ticket of somebody who has factors: they prove them.
async fn accept(call: &Call<Public>, ticket: Ticket, person: &PersonRow, known: PersonFacts, request: &EnrolComplete) -> Result<Enrolled, Failure> {
    let control = &call.control;
    // A ticket that was overtaken by another must not replace the factors of somebody who has them.
    let joins = ticket.joins.ok_or_else(ticket_refused)?;
    let password = Password::from_typed(&request.password).map_err(|_| login_refused())?;
    if request.code.len() > identity::limits::CODE_MAX {
        return Err(login_refused());
    }
    let Proved { transaction, .. } = prove(call, &person.name, Some(known), &password, &request.code, "enrol").await?;
    let who = Actor::User(joins.row.id, person.id);
    let (put, entry) = activate(call, joins, person.id)?;
    let spent = Event::TokenSpent { token: ticket.id, token_kind: EntryTokenKind::Ticket };
    let spent = control.entry(call.now, SYSTEM_OWNER, who, call.source(), Outcome::Success, Some("enrol"), spent)?;
    let transaction = transaction.with(Mutation::ConsumeToken { tenant: SYSTEM_OWNER, id: ticket.id }).with(put).entry(spent).entry(entry);
    let audit_index = finish(call, transaction).await?;
    Ok(Enrolled { person: person.id, recovery_codes: Vec::new(), audit_index })
}

/// The ticket of somebody who has none: they get them.
async fn enrol(call: &Call<Public>, ticket: Ticket, (revision, person): (u64, &PersonRow), request: &EnrolComplete) -> Result<Enrolled, Failure> {
    let control = &call.control;
    let password = Password::from_typed(&request.password).map_err(|error| Failure::invalid(format!("`password`: {error}")))?;
    if request.code.len() > identity::limits::CODE_MAX {
        return Err(Failure::invalid("`code`: too long"));
    }
    let secret = control.totp_secret(ticket.scope.totp).await?;
    let pepper = control.peppers.newest().ok_or_else(|| Failure::internal("no pepper"))?;
    // Guessing codes against a stolen ticket is delayed like a login.
    let turn = Mutation::TakeLoginTurn { subject: DelaySubject::Person(person.id), delays_ms: delays(identity::delay::PERSON_DELAY) };
    control.store.commit(Transaction::new().with(turn), call.now).await.map_err(commit_failure)?;
    let factors = {
        let _place = control.hashing.acquire().await.map_err(Failure::internal)?;
        let enrolment = Enrolment { person: person.id, name: &person.name, password: &password, secret: &secret, code: &request.code };
        tokio::task::block_in_place(|| identity::make_factors(&Argon2id, &mut SystemRandom, pepper, &enrolment, call.now))
    }
    .map_err(|error| Failure::invalid(error.to_string()))?;
    let codes = factors.reveal_recovery_codes().iter().map(|code| code.to_string()).collect();
    let stranger = |event: Event| control.entry(call.now, SYSTEM_OWNER, Actor::Stranger, call.source(), Outcome::Success, Some("enrol"), event);
    // Two tickets of one person, redeemed at once, must not both set factors: the person's row is the one that both write.
    let guard = Put::json(SYSTEM_OWNER, Kind::PERSON, person.id, Expect::Revision(revision), person).map_err(Failure::internal)?.name(&person.name);
    let mut transaction = Transaction::new()
        .with(Mutation::ConsumeToken { tenant: SYSTEM_OWNER, id: ticket.id })
        .with(guard)
        .with(Mutation::SetPassword { person: person.id, hash: Hashed::new(factors.password.to_phc().to_string()) })
        .with(Mutation::SetTotp(totp_row(&ticket.scope, factors.last_step)))
        .with(Mutation::SetRecoveryCodes { person: person.id, hashes: factors.recovery.iter().map(stored_recovery).collect() })
        .with(Mutation::ClearLoginDelay { subject: DelaySubject::Person(person.id) })
        .entry(stranger(Event::TokenSpent { token: ticket.id, token_kind: EntryTokenKind::Ticket })?)
        .entry(stranger(Event::FactorEnrolled { person: person.id, factor: Factor::Password })?)
        .entry(stranger(Event::FactorEnrolled { person: person.id, factor: Factor::Totp })?);
    if let Some(joins) = ticket.joins {
        let (put, entry) = activate(call, joins, person.id)?;
        transaction = transaction.with(put).entry(entry);
    }
    let audit_index = finish(call, transaction).await?;
    Ok(Enrolled { person: person.id, recovery_codes: codes, audit_index })
}

async fn finish(call: &Call<Public>, transaction: Transaction) -> Result<u64, Failure> {
    let committed = call.control.store.commit(transaction, call.now).await.map_err(|error| match error.conflict() {
        // Another was faster: with this ticket, with another of the same person, or with its recall.
        Some(Conflict::Spent | Conflict::Revision { .. } | Conflict::Absent) => ticket_refused(),
        Some(_) | None => commit_failure(error),
    })?;
    Ok(committed.audit_indexes.first().copied().unwrap_or_default())
}
