//! Logging in: password, second factor, and which of a person's principals it is.

use audit::entry::Actor;
use audit::event::Factor;
use audit::{Event, Outcome};
use identity::login::{Authenticated, SecondFactor};
use identity::{
    Admission, Argon2id, LoginAttempt, LoginFacts, LoginOutcome, Password, PasswordHash, PepperedMac, PersonFacts, RecoveryCode, RecoveryRecord,
    Token, TokenKind, TotpSecret, admit, judge,
};
use keys::SystemRandom;
use store::{DelaySubject, Hashed, Kind, Mutation, Page, TokenRow, Transaction};
use vocabulary::api::{IssuedToken, LoginAs, LoginRequest, PrincipalKind};
use vocabulary::{ErrorCode, Name, PersonId, SYSTEM_OWNER, UnixTime};

use crate::api::call::{Call, Public};
use crate::api::problem::Failure;
use crate::bootstrap::PersonRow;
use crate::limits::LOGIN_LIFETIME_MS;
use crate::row::{PrincipalRow, TenantRow};
use crate::state::{Control, commit_failure};

/// The delays after the first, second, … failure, by a rule of `identity`.
pub(crate) fn delays(rule: identity::delay::DelayRule) -> Vec<u64> {
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
pub(crate) fn stored_recovery(record: &RecoveryRecord) -> Hashed {
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

    /// What a person proves themselves with; none for somebody who has not enrolled.
    pub(crate) async fn person_facts(&self, person: PersonId) -> Result<Option<PersonFacts>, Failure> {
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

/// Somebody who showed password and second factor, and what is committed with whatever they do by it.
pub(crate) struct Proved {
    pub(crate) authenticated: Authenticated,
    /// Spends the second factor and clears the delays.
    pub(crate) transaction: Transaction,
    pub(crate) factors: Vec<Factor>,
}

/// Checks password and second factor of whoever claims to be this person. Each wrong try is recorded and makes the next wait.
pub(crate) async fn prove(
    call: &Call<Public>,
    name: &Name,
    person: Option<PersonFacts>,
    password: &Password,
    code: &str,
    action: &'static str,
) -> Result<Proved, Failure> {
    let control = &call.control;
    let facts = LoginFacts { person, person_failures: identity::Failures::NONE, source_failures: identity::Failures::NONE };
    let attempt = LoginAttempt { password, code };
    // A fitting recovery code skips the person's delay, never the source's.
    let recovering = facts.person.as_ref().is_some_and(|known| {
        RecoveryCode::parse(code).is_some_and(|code| known.recovery.iter().any(|stored| code.fits(known.person, stored, &control.peppers)))
    });
    let source = DelaySubject::Source(control.source(call.connection.as_ref()));
    let who = match &facts.person {
        Some(known) => DelaySubject::Person(known.person),
        None => DelaySubject::Unknown(name.to_string()),
    };
    // The turn is taken, and counts as a failure, before anything is judged: parallel guesses gain nothing.
    let mut turns = Transaction::new()
        .with(Mutation::TakeLoginTurn { subject: source.clone(), delays_ms: delays(identity::delay::SOURCE_DELAY) });
    if !recovering {
        turns = turns.with(Mutation::TakeLoginTurn { subject: who.clone(), delays_ms: delays(identity::delay::PERSON_DELAY) });
    }
    control.store.commit(turns, call.now).await.map_err(commit_failure)?;
    let Admission::Judge(admitted) = admit(&facts, &attempt, &control.peppers, call.now) else { return Err(login_refused()) };
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
            let entry = control.entry(call.now, SYSTEM_OWNER, Actor::Stranger, call.source(), Outcome::Refused(ErrorCode::LoginRefused), Some(action), event)?;
            let mut transaction = Transaction::new().entry(entry);
            if let (Some(person), Some(index)) = (known, why.spend_recovery) {
                transaction = transaction.with(Mutation::UseRecoveryCode { person, place: u32::from(index) });
            }
            control.store.commit(transaction, call.now).await.map_err(commit_failure)?;
            return Err(login_refused());
        }
    };
    let (spend, factors) = match authenticated.second {
        SecondFactor::Totp { step } => (Mutation::UseTotp { person: authenticated.person, step }, vec![Factor::Password, Factor::Totp]),
        SecondFactor::Recovery { index } => (
            Mutation::UseRecoveryCode { person: authenticated.person, place: u32::from(index) },
            vec![Factor::Password, Factor::RecoveryCode],
        ),
    };
    let transaction = Transaction::new()
        .with(spend)
        .with(Mutation::ClearLoginDelay { subject: who })
        .with(Mutation::ClearLoginDelay { subject: source });
    Ok(Proved { authenticated, transaction, factors })
}

/// One answer for whatever was wrong.
pub(crate) fn login_refused() -> Failure {
    Failure::new(ErrorCode::LoginRefused, "name, password or code is wrong")
}

/// Logs a person in.
pub(crate) async fn login(call: Call<Public>, request: LoginRequest) -> Result<IssuedToken, Failure> {
    let control = &call.control;
    let password = Password::from_typed(&request.password).map_err(|_| login_refused())?;
    if request.code.len() > identity::limits::CODE_MAX {
        return Err(login_refused());
    }
    let person = control.store.find(SYSTEM_OWNER, Kind::PERSON, None, &request.name).await.map_err(Failure::internal)?;
    let person: Option<PersonRow> = person.map(|row| row.parse()).transpose().map_err(Failure::internal)?;
    let known = match &person {
        Some(person) => control.person_facts(person.id).await?,
        None => None,
    };
    let Proved { authenticated, transaction, factors } = prove(&call, &request.name, known, &password, &request.code, "login").await?;
    let (tenant, principal) = choose_principal(control, authenticated.person, request.login_as.as_ref()).await?;
    let token = Token::draw(TokenKind::Session, &mut SystemRandom);
    let expires = call.now.plus_millis(LOGIN_LIFETIME_MS);
    let row = token_row(control, &token, tenant, Some(principal.id), "", call.now, expires, authenticated.acr, Some(authenticated.factor_time))?;
    let who_did = Actor::User(principal.id, authenticated.person);
    let event = Event::LoggedIn { person: authenticated.person, factors, token: token.id() };
    let sealed = control.seal_login(authenticated.person, &request.name, call.connection.as_ref(), call.now).await?;
    let entry = control.entry_about(call.now, tenant, who_did, sealed.source, Outcome::Success, Some("login"), event, sealed.personal)?;
    let mut transaction = transaction.with(Mutation::PutToken(row)).entry(entry);
    transaction.mutations.extend(sealed.root);
    let committed = match control.store.commit(transaction, call.now).await {
        Ok(committed) => committed,
        // The code was spent by another login a moment ago.
        Err(error) if error.conflict().is_some() => return Err(login_refused()),
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
        let principal: PrincipalRow = row.parse().map_err(Failure::internal)?;
        // Who was only invited is nobody there yet: an invitation changes nothing for the person until they redeem it.
        if principal.invited.is_none() {
            found.push((row.tenant, principal));
        }
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
