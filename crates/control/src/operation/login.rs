//! Logging in and enrolling: the public doors.

use audit::entry::Actor;
use audit::event::{Factor, TokenKind as EntryTokenKind};
use audit::{Event, Outcome};
use identity::{
    Admission, Argon2id, Enrolment, LoginAttempt, LoginFacts, LoginOutcome, Password, PasswordHash, PepperedMac, PersonFacts, RecoveryCode,
    RecoveryRecord, Token, TokenKind, TotpSecret, admit, judge, login::SecondFactor,
};
use keys::SystemRandom;
use store::{DelaySubject, Hashed, Kind, Mutation, Page, TokenRow, TokenUse, Transaction};
use vocabulary::api::{EnrolBegin, EnrolComplete, EnrolOffer, Enrolled, IssuedToken, LoginAs, LoginRequest, PrincipalKind};
use vocabulary::{ErrorCode, PersonId, SYSTEM_OWNER, UnixTime};

use crate::api::call::{Call, Public};
use crate::api::problem::Failure;
use crate::bootstrap::{PersonRow, TicketScope, totp_row};
use crate::limits::LOGIN_LIFETIME_MS;
use crate::row::{PrincipalRow, TenantRow};
use crate::state::{Control, commit_failure};

/// The delays after the first, second, … failure, by a rule of `identity`.
fn delays(rule: identity::delay::DelayRule) -> Vec<u64> {
    let mut delays = vec![0; usize::try_from(rule.free).unwrap_or(0)];
    let mut next = rule.first_ms;
    while next < rule.max_ms {
        delays.push(next);
        next = next.saturating_mul(2);
    }
    delays.push(rule.max_ms);
    delays
}

/// A recovery code in the store: `version$hex`.
fn stored_recovery(record: &RecoveryRecord) -> Hashed {
    Hashed::new(format!("{}${}", record.mac.version(), hex::encode(record.mac.as_bytes())))
}

fn read_recovery(code: &store::RecoveryCode) -> Option<RecoveryRecord> {
    let (version, mac) = code.hash.as_str().split_once('$')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(mac, &mut bytes).ok()?;
    Some(RecoveryRecord { index: u8::try_from(code.place).ok()?, mac: PepperedMac::from_parts(version.parse().ok()?, bytes) })
}

impl Control {
    /// A person's TOTP secret: the first twenty bytes of its key.
    pub(crate) async fn totp_secret(&self, key: vocabulary::KeyId) -> Result<TotpSecret, Failure> {
        let record = self.store.key(SYSTEM_OWNER, key, 1).await.map_err(Failure::internal)?.ok_or_else(|| Failure::internal("factor key is missing"))?;
        let plain = self.vault.open_under_root(&record.record).map_err(Failure::internal)?;
        let mut secret = [0; 20];
        secret.copy_from_slice(plain.expose().get(..20).unwrap_or(&[0; 20]));
        Ok(TotpSecret::from_bytes(secret))
    }

    async fn person_facts(&self, person: PersonId) -> Result<Option<PersonFacts>, Failure> {
        let (Some(hash), Some(totp)) = (
            self.store.password(person).await.map_err(Failure::internal)?,
            self.store.totp(person).await.map_err(Failure::internal)?,
        ) else {
            return Ok(None);
        };
        let recovery = self.store.recovery_codes(person).await.map_err(Failure::internal)?;
        Ok(Some(PersonFacts {
            person,
            password: PasswordHash::from_phc(hash.as_str()).map_err(Failure::internal)?,
            totp: self.totp_secret(totp.key).await?,
            last_step: Some(totp.last_step).filter(|step| *step > 0),
            recovery: recovery.iter().filter(|code| !code.used).filter_map(read_recovery).collect(),
        }))
    }
}

/// Logs a person in.
pub(crate) async fn login(call: Call<Public>, request: LoginRequest) -> Result<IssuedToken, Failure> {
    let control = &call.control;
    let refused = || Failure::new(ErrorCode::LoginRefused, "name, password or code is wrong");
    let password = Password::from_typed(&request.password).map_err(|_| refused())?;
    if request.code.len() > identity::limits::CODE_MAX {
        return Err(refused());
    }
    let person = control.store.find(SYSTEM_OWNER, Kind::PERSON, None, &request.name).await.map_err(Failure::internal)?;
    let person: Option<PersonRow> = person.map(|row| row.parse()).transpose().map_err(Failure::internal)?;
    let facts = LoginFacts {
        person: match &person {
            Some(person) => control.person_facts(person.id).await?,
            None => None,
        },
        person_failures: identity::Failures::NONE,
        source_failures: identity::Failures::NONE,
    };
    let attempt = LoginAttempt { password: &password, code: &request.code };
    // A fitting recovery code skips the person's delay, never the source's.
    let recovering = facts.person.as_ref().is_some_and(|known| {
        RecoveryCode::parse(&request.code).is_some_and(|code| known.recovery.iter().any(|stored| code.fits(known.person, stored, &control.peppers)))
    });
    let source = DelaySubject::Source(control.source(call.connection.as_ref()));
    let who = match &facts.person {
        Some(known) => DelaySubject::Person(known.person),
        None => DelaySubject::Unknown(request.name.to_string()),
    };
    // The turn is taken, and counts as a failure, before anything is judged: parallel guesses gain nothing.
    let mut turns = Transaction::new()
        .with(Mutation::TakeLoginTurn { subject: source.clone(), delays_ms: delays(identity::delay::SOURCE_DELAY) });
    if !recovering {
        turns = turns.with(Mutation::TakeLoginTurn { subject: who.clone(), delays_ms: delays(identity::delay::PERSON_DELAY) });
    }
    control.store.commit(turns, call.now).await.map_err(commit_failure)?;
    let Admission::Judge(admitted) = admit(&facts, &attempt, &control.peppers, call.now) else { return Err(refused()) };
    let outcome = {
        let _place = control.hashing.acquire().await.map_err(Failure::internal)?;
        tokio::task::block_in_place(|| judge(&Argon2id, &facts, &attempt, admitted, call.now))
    };
    let authenticated = match outcome {
        LoginOutcome::Authenticated(authenticated) => authenticated,
        LoginOutcome::Refused(why) => {
            tracing::info!(reason = %why.reason, "login refused");
            let known = facts.person.as_ref().map(|person| person.person);
            let event = Event::LoginRefused { person: known, code: ErrorCode::LoginRefused };
            let entry = control.entry(call.now, SYSTEM_OWNER, Actor::Stranger, call.source(), Outcome::Refused(ErrorCode::LoginRefused), Some("login"), event)?;
            let mut transaction = Transaction::new().entry(entry);
            if let (Some(person), Some(index)) = (known, why.spend_recovery) {
                transaction = transaction.with(Mutation::UseRecoveryCode { person, place: u32::from(index) });
            }
            control.store.commit(transaction, call.now).await.map_err(commit_failure)?;
            return Err(refused());
        }
    };
    let (tenant, principal) = choose_principal(control, authenticated.person, request.login_as.as_ref()).await?;
    let token = Token::draw(TokenKind::Session, &mut SystemRandom);
    let expires = call.now.plus_millis(LOGIN_LIFETIME_MS);
    let row = token_row(control, &token, tenant, Some(principal.id), "", call.now, expires, authenticated.acr, Some(authenticated.factor_time))?;
    let (spend, factors) = match authenticated.second {
        SecondFactor::Totp { step } => (Mutation::UseTotp { person: authenticated.person, step }, vec![Factor::Password, Factor::Totp]),
        SecondFactor::Recovery { index } => (
            Mutation::UseRecoveryCode { person: authenticated.person, place: u32::from(index) },
            vec![Factor::Password, Factor::RecoveryCode],
        ),
    };
    let who_did = Actor::User(principal.id, authenticated.person);
    let event = Event::LoggedIn { person: authenticated.person, factors, token: token.id() };
    let sealed = control.seal_login(authenticated.person, &request.name, call.connection.as_ref(), call.now).await?;
    let entry = control.entry_about(call.now, tenant, who_did, sealed.source, Outcome::Success, Some("login"), event, sealed.personal)?;
    let mut transaction = Transaction::new()
        .with(spend)
        .with(Mutation::ClearLoginDelay { subject: who })
        .with(Mutation::ClearLoginDelay { subject: source })
        .with(Mutation::PutToken(row))
        .entry(entry);
    transaction.mutations.extend(sealed.root);
    let committed = match control.store.commit(transaction, call.now).await {
        Ok(committed) => committed,
        // The code was spent by another login a moment ago.
        Err(error) if error.conflict().is_some() => return Err(refused()),
        Err(error) => return Err(commit_failure(error)),
    };
    Ok(IssuedToken {
        id: token.id(),
        token: token.reveal().to_string(),
        expires,
        principal: principal.id,
        audit_index: committed.audit_indexes.first().copied().unwrap_or_default(),
    })
}

/// The row of a token.
#[expect(clippy::too_many_arguments, reason = "a row has this many columns, and each caller says each of them once")]
pub(crate) fn token_row(
    control: &Control,
    token: &Token,
    tenant: vocabulary::TenantId,
    principal: Option<vocabulary::PrincipalId>,
    scope: &str,
    now: UnixTime,
    expires: UnixTime,
    acr: u8,
    factor_time: Option<UnixTime>,
) -> Result<TokenRow, Failure> {
    let record = token.record(control.peppers.newest().ok_or_else(|| Failure::internal("no pepper"))?);
    Ok(TokenRow {
        tenant,
        id: token.id(),
        kind: token.kind().as_str().to_owned(),
        principal,
        mac: *record.mac.as_bytes(),
        pepper_version: record.mac.version(),
        scope: scope.to_owned(),
        created: now,
        expires,
        acr,
        factor_time,
        thumbprint: None,
    })
}

/// Which of a person's principals a login is.
async fn choose_principal(
    control: &Control,
    person: PersonId,
    wanted: Option<&LoginAs>,
) -> Result<(vocabulary::TenantId, PrincipalRow), Failure> {
    let rows = control.store.list_link_anywhere(Kind::PRINCIPAL, person, Page::first(1000)).await.map_err(Failure::internal)?;
    let mut found: Vec<(vocabulary::TenantId, PrincipalRow)> = Vec::new();
    for row in rows.items {
        found.push((row.tenant, row.parse().map_err(Failure::internal)?));
    }
    let none = || Failure::new(ErrorCode::Forbidden, "you have no such principal");
    match wanted {
        None if found.len() == 1 => found.pop().ok_or_else(none),
        None if found.is_empty() => Err(none()),
        None => Err(Failure::invalid("`as` is missing: you have several principals, name `operator` or a tenant")),
        Some(LoginAs::Operator) => found.into_iter().find(|(_, row)| row.kind == PrincipalKind::Operator).ok_or_else(none),
        Some(LoginAs::Tenant(name)) => {
            let tenant = control.store.find(SYSTEM_OWNER, Kind::TENANT, None, name).await.map_err(Failure::internal)?.ok_or_else(none)?;
            let tenant: TenantRow = tenant.parse().map_err(Failure::internal)?;
            found.into_iter().find(|(owner, row)| *owner == tenant.id && row.kind == PrincipalKind::User).ok_or_else(none)
        }
    }
}

/// Finds a live ticket.
async fn ticket(call: &Call<Public>, text: &str) -> Result<(TokenUse, TicketScope), Failure> {
    let refused = || Failure::new(ErrorCode::TicketRefused, "the ticket is unknown, spent or expired");
    let control = &call.control;
    let found = async {
        let token = Token::parse(text).ok().filter(|token| token.kind() == TokenKind::Enrolment)?;
        let stored = control.store.token(token.id()).await.ok()??;
        let record = identity::TokenRecord {
            kind: TokenKind::from_word(&stored.row.kind)?,
            id: stored.row.id,
            mac: PepperedMac::from_parts(stored.row.pepper_version, stored.row.mac),
        };
        if !token.fits(&record, &control.peppers) || !stored.is_live(call.now) {
            return None;
        }
        let scope: TicketScope = serde_json::from_str(&stored.row.scope).ok()?;
        Some((stored, scope))
    }
    .await;
    if found.is_none() {
        control.count_stranger(call.connection.as_ref(), ErrorCode::TicketRefused).await;
    }
    found.ok_or_else(refused)
}

/// First step of enrolment: the same secret as long as the ticket is unspent.
pub(crate) async fn enrol_begin(call: Call<Public>, request: EnrolBegin) -> Result<EnrolOffer, Failure> {
    let (_, scope) = ticket(&call, &request.ticket).await?;
    let person = person(&call.control, scope.person).await?;
    let secret = call.control.totp_secret(scope.totp).await?;
    Ok(EnrolOffer {
        totp_secret: secret.reveal_base32().to_string(),
        totp_uri: secret.reveal_uri(&person.name).to_string(),
        name: person.name,
    })
}

async fn person(control: &Control, id: PersonId) -> Result<PersonRow, Failure> {
    let found = control.store.get_json::<PersonRow>(SYSTEM_OWNER, Kind::PERSON, id).await.map_err(Failure::internal)?;
    found.map(|(_, row)| row).ok_or_else(|| Failure::new(ErrorCode::TicketRefused, "the ticket's person is gone"))
}

/// Second step: sets the password, proves the authenticator, spends the ticket.
pub(crate) async fn enrol_complete(call: Call<Public>, request: EnrolComplete) -> Result<Enrolled, Failure> {
    let control = &call.control;
    let (stored, scope) = ticket(&call, &request.ticket).await?;
    let person = person(control, scope.person).await?;
    // A ticket that was overtaken by another must not replace the factors of somebody who has them.
    if control.store.totp(person.id).await.map_err(Failure::internal)?.is_some() {
        return Err(Failure::new(ErrorCode::TicketRefused, "the ticket is unknown, spent or expired"));
    }
    let password = Password::from_typed(&request.password).map_err(|error| Failure::invalid(format!("`password`: {error}")))?;
    if request.code.len() > identity::limits::CODE_MAX {
        return Err(Failure::invalid("`code`: too long"));
    }
    let secret = control.totp_secret(scope.totp).await?;
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
    let transaction = Transaction::new()
        .with(Mutation::ConsumeToken { tenant: SYSTEM_OWNER, id: stored.row.id })
        .with(Mutation::SetPassword { person: person.id, hash: Hashed::new(factors.password.to_phc().to_string()) })
        .with(Mutation::SetTotp(totp_row(&scope, factors.last_step)))
        .with(Mutation::SetRecoveryCodes { person: person.id, hashes: factors.recovery.iter().map(stored_recovery).collect() })
        .with(Mutation::ClearLoginDelay { subject: DelaySubject::Person(person.id) })
        .entry(stranger(Event::TokenSpent { token: stored.row.id, token_kind: EntryTokenKind::Ticket })?)
        .entry(stranger(Event::FactorEnrolled { person: person.id, factor: Factor::Password })?)
        .entry(stranger(Event::FactorEnrolled { person: person.id, factor: Factor::Totp })?);
    let committed = control.store.commit(transaction, call.now).await.map_err(|error| match error.conflict() {
        Some(store::Conflict::Spent) => Failure::new(ErrorCode::TicketRefused, "the ticket is unknown, spent or expired"),
        Some(_) | None => commit_failure(error),
    })?;
    Ok(Enrolled {
        person: person.id,
        recovery_codes: codes,
        audit_index: committed.audit_indexes.first().copied().unwrap_or_default(),
    })
}

