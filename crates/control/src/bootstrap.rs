//! A deployment's birth and each start: seal, root epoch, authorities, log key, receipt key, the first administrator.

use std::path::PathBuf;

use audit::Event;
use audit::key::{Ed25519Signer, KeyKind};
use audit::sealed::SubjectRoot;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Class, Pepper, Peppers, ReceiptCertificate, RootAuthority, RootCertificate, StatementKey, Token, TokenKind};
use keys::seal::{Argon2Cost, SealFile};
use keys::{PlainKey, Purpose, Random, SystemRandom};
use serde::{Deserialize, Serialize};
use store::{Blobs, Expect, Kind, Mutation, Put, Store, TokenRow, TotpRow, Transaction};
use vocabulary::api::PrincipalKind;
use vocabulary::fault::{self, Point};
use vocabulary::{DeploymentId, KeyId, Name, PersonId, PrincipalId, Profile, SYSTEM_OWNER, Sensitivity, TenantId, TokenId, UnixTime};
use zeroize::Zeroizing;

use crate::deployment::{self, Certifying, DeploymentRow, SealedSecret, open_key};
use crate::limits::TICKET_LIFETIME_MS;
use crate::row::{FORMAT, PrincipalRow};
use crate::seal;
use crate::state::fresh;
use crate::vault::{Vault, deployment_owner};

/// Why the control plane did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The blobs refused.
    #[error("the object store: {0}")]
    Blobs(#[from] store::BlobError),
    /// The objects are not this deployment's.
    #[error("the deployment of this database keeps its objects elsewhere than in {0}; name the folder that its other control planes use with `--objects`, or put it back")]
    OtherObjects(String),
    /// The seal refused.
    #[error("the seal: {0}")]
    Seal(#[from] keys::seal::SealError),
    /// The shares refused.
    #[error("the seal: {0}")]
    Share(#[from] keys::gather::GatherError),
    /// Fewer shares than open the seal.
    #[error("the seal: {entered} of {threshold} shares: give more of them, or start sealed and enter them with `swarm seal open`")]
    TooFewShares {
        /// How many were given.
        entered: usize,
        /// How many open it.
        threshold: u8,
    },
    /// Production opens with shares only.
    #[error("seal_required: a deployment of the production profile opens with shares of several people, and this seal opens with a passphrase")]
    SealRequired,
    /// The profile asks for more than this version has.
    #[error(
        "passkey_required: the first administrator of a production deployment enrols with a passkey, which this version cannot check; \
         use `--profile development` (the seal that production allows is there: `swarm seal init`)"
    )]
    PasskeyRequired,
    /// A sealed server has nothing to show itself with.
    #[error("the sealed server cannot show who it is: {0}; give the passphrase or the shares at the start instead")]
    Faceless(String),
    /// The deployment has another profile than the one asked for.
    #[error("this deployment has the profile `{}`, which never changes; start it without `--profile`, or make a new one elsewhere", .0.as_str())]
    OtherProfile(Profile),
    /// State and seal are not of one deployment.
    #[error("{0}: state and seal do not belong together; restore both from one backup")]
    Mismatch(&'static str),
    /// The store was restored from an older copy than what was published since.
    #[error(
        "the published log has at least {published} entries and the database {entries}: it is an older copy, and going on from it would sign a second history; \
         restore the newest copy of the database, nothing was changed"
    )]
    LogAhead {
        /// Entries under published tiles, at least.
        published: u64,
        /// Entries of the store.
        entries: u64,
    },
    /// Certificates could not be made or opened.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The built-in rules do not fit.
    #[error("policy: {0}")]
    Policy(#[from] policy::SetError),
    /// Metrics would leave the machine in clear.
    #[error("`metrics_listen` is {0}: metrics are told in clear and to everybody who asks, so only on an address of this machine such as 127.0.0.1:7445; let a collector on this machine carry them on")]
    MetricsInClear(std::net::SocketAddr),
    /// The shred list.
    #[error(transparent)]
    Shreds(#[from] crate::shred::list::ListError),
    /// An address could not be bound.
    #[error("cannot listen on {address}: {source}; is another server running?")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The clock lies behind what was committed.
    #[error("the clock is {0} ms behind the latest committed time; set the clock right and start again, nothing was changed")]
    ClockBack(u64),
    /// Anything that must not happen.
    #[error("start failed: {0}")]
    Internal(String),
}

pub(crate) fn internal(error: impl std::fmt::Display) -> StartError {
    StartError::Internal(error.to_string())
}
pub(crate) fn certificates(error: impl std::fmt::Display) -> StartError {
    StartError::Certificates(error.to_string())
}

/// The blob that says that a deployment was born: its seal is needed.
const BORN: &str = "deployment/born";

/// An opened deployment.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) vault: Vault,
    pub(crate) deployment: DeploymentId,
    pub(crate) profile: Profile,
    pub(crate) root: RootCertificate,
    pub(crate) certifying: Certifying,
    pub(crate) log: Ed25519Signer,
    pub(crate) peppers: Peppers,
    pub(crate) subjects: SubjectRoot,
    /// Set when the deployment was born just now: the first administrator's ticket.
    pub(crate) ticket: Option<Zeroizing<String>>,
}

/// What a copy of the database says of its deployment, without any key.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) deployment: DeploymentId,
    pub(crate) profile: Profile,
    pub(crate) file: String,
}

/// Reads the row of a deployment.
pub(crate) fn facts(row: &str) -> Result<Facts, serde_json::Error> {
    let row: DeploymentRow = serde_json::from_str(row)?;
    Ok(Facts { deployment: row.deployment, profile: row.profile, file: row.file })
}

/// The origin of a deployment's log.
pub(crate) fn log_origin(deployment: DeploymentId) -> String {
    format!("swarm.invalid/{deployment}/audit")
}

/// What a start finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing yet: a deployment will be made.
    Nothing,
    /// A deployment, closed.
    Closed(Box<Closed>),
}

/// A deployment whose seal is closed.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    revision: u64,
    row: DeploymentRow,
    pub(crate) seal: seal::Current,
}

impl Closed {
    /// The deployment's public file.
    pub(crate) fn file(&self) -> &str {
        &self.row.file
    }
    /// The certificate of its root.
    pub(crate) fn root(&self) -> Result<RootCertificate, StartError> {
        self.row.root()
    }
}

/// Looks at what is there, and opens nothing. Refuses what does not belong together.
pub(crate) async fn find(store: &Store, blobs: &Blobs, profile: Option<Profile>, now: UnixTime) -> Result<Found, StartError> {
    if let Some(behind) = store.clock_behind(now) {
        return Err(StartError::ClockBack(behind));
    }
    match (deployment::stored(store).await?, seal::current(store, blobs).await?) {
        (Some((revision, row)), Some(seal)) => {
            if row.deployment != seal.file.deployment() || row.profile != seal.file.profile() {
                return Err(StartError::Mismatch("the database names another deployment or profile than the seal"));
            }
            if profile.is_some_and(|asked| asked != row.profile) {
                return Err(StartError::OtherProfile(row.profile));
            }
            if !seal::allowed(row.profile, seal.file.kind()) {
                return Err(StartError::SealRequired);
            }
            Ok(Found::Closed(Box::new(Closed { revision, row, seal })))
        }
        (Some(_), None) => Err(StartError::Mismatch("the database is there and the seal is missing")),
        // A seal without its deployment is what a birth that broke off leaves behind: it opens nothing yet. Where the birth is
        // marked as complete, or a log was published, the deployment lived, and its seal is what a backup of the lost database
        // will need.
        (None, _) => {
            let at = |folder: &str| folder.parse::<store::BlobPath>().map_err(internal);
            let log = !blobs.list(&at(crate::publisher::LOG_FOLDER)?, None, 1).await?.items.is_empty();
            let born = log || blobs.exists(&at(BORN)?).await?;
            if born && !blobs.list(&at("seal")?, None, 1).await?.items.is_empty() {
                return Err(StartError::Mismatch("the seal of a deployment that lived is there and the database is missing"));
            }
            if profile == Some(Profile::Production) {
                return Err(StartError::PasskeyRequired);
            }
            Ok(Found::Nothing)
        }
    }
}

/// Makes a deployment where there is none, sealed with a passphrase.
pub(crate) async fn create(store: &Store, blobs: &Blobs, passphrase: &str, admin: &Name, now: UnixTime) -> Result<Opened, StartError> {
    let path = seal::FIRST.parse().map_err(internal)?;
    blobs.delete(&path).await?;
    let deployment = fresh(DeploymentId::new, now);
    let passphrase = Zeroizing::new(passphrase.to_owned());
    let make = move || {
        SealFile::create(&passphrase, deployment, Profile::Development, Argon2Cost::default(), now, &mut SystemRandom)
    };
    let made = tokio::task::spawn_blocking(make).await.map_err(internal)??;
    blobs.put(&path, made.file().to_bytes().into()).await?;
    fault::reached(Point::SetupSealed);
    let opened = birth(store, Vault::new(made), deployment, admin, now).await?;
    fault::reached(Point::SetupBorn);
    mark_born(blobs, deployment).await?;
    Ok(opened)
}

/// Says beside the seal that its deployment is in the database.
async fn mark_born(blobs: &Blobs, deployment: DeploymentId) -> Result<(), StartError> {
    let path = BORN.parse().map_err(internal)?;
    blobs.put_same(&path, deployment.to_string().into_bytes().into()).await?;
    Ok(())
}

/// Opens a deployment with its opened seal.
pub(crate) async fn open(
    store: &Store,
    blobs: &Blobs,
    closed: Closed,
    seal: keys::seal::Opened,
    admin: &Name,
    now: UnixTime,
) -> Result<Opened, StartError> {
    let mut opened = reopen(store, closed.revision, closed.row, Vault::new(seal)).await?;
    // A birth may have broken off just before, and older versions marked nothing.
    mark_born(blobs, opened.deployment).await?;
    // What a change of the seal left when it broke off: the old way in.
    let alone = seal::alone(store).await?;
    if let Some(current) = seal::current(store, blobs).await? {
        seal::sweep(blobs, &current).await?;
    }
    drop(alone);
    opened.ticket = unenrolled_administrator(store, &opened, admin, now).await?;
    Ok(opened)
}

/// Opens a passphrase seal: the hard work of argon2 beside the others.
pub(crate) async fn open_with_passphrase(file: SealFile, passphrase: Zeroizing<String>) -> Result<keys::seal::Opened, StartError> {
    tokio::task::spawn_blocking(move || file.open(&passphrase)).await.map_err(internal)?.map_err(StartError::from)
}

/// Makes everything of a new deployment in one transaction.
async fn birth(store: &Store, vault: Vault, deployment: DeploymentId, admin: &Name, now: UnixTime) -> Result<Opened, StartError> {
    let mut random = SystemRandom;
    let (tenant, owner) = deployment_owner(deployment);
    let mut transaction = Transaction::new();
    let mut made = |purpose: Purpose| -> Result<(KeyId, PlainKey), StartError> {
        let (record, plain) = vault.make_under_root(tenant, purpose, owner.clone(), now).map_err(internal)?;
        let id = record.id;
        transaction.mutations.push(Mutation::PutKey(record));
        Ok((id, plain))
    };
    let root = RootAuthority::create(deployment, now, &mut random).map_err(certificates)?;
    let node = root.issue_authority(Class::Node, now, &mut random).map_err(certificates)?;
    let control = root.issue_authority(Class::Control, now, &mut random).map_err(certificates)?;
    let receipts = root.issue_authority(Class::Receipt, now, &mut random).map_err(certificates)?;
    let (root_key, root_plain) = made(Purpose::RootCa)?;
    let (node_key, node_plain) = made(Purpose::IssuingCa)?;
    let (control_key, control_plain) = made(Purpose::IssuingCa)?;
    let (receipt_id, receipt_plain) = made(Purpose::ReceiptKey)?;
    let (log_id, log_plain) = made(Purpose::LogKey)?;
    let (pepper, _) = made(Purpose::TokenPepper)?;
    let (subjects, _) = made(Purpose::AuditSubject)?;
    let receipt_key = StatementKey::open(receipt_plain.expose()).map_err(certificates)?;
    let public = receipt_key.public().map_err(certificates)?;
    let issued = receipts.issue_receipt(receipt_id, &public, now, &mut random).map_err(certificates)?;
    let receipt_certificate = ReceiptCertificate::from_chain(&issued.chain).ok_or_else(|| internal("receipt chain"))?;
    let origin = log_origin(deployment);
    let log = Ed25519Signer::from_seed(&origin, log_plain.expose()).map_err(internal)?;
    let log_key = audit::key::verifier_of(&log, KeyKind::Ed25519).map_err(internal)?.to_string();
    let profile = Profile::Development;
    let file = root
        .sign_deployment_file(profile, vec![log_key.clone()], vec![receipt_certificate.clone()], now)
        .map_err(certificates)?;
    let row = DeploymentRow {
        format: FORMAT,
        deployment,
        profile,
        root: STANDARD.encode(root.certificate().der()),
        root_key: SealedSecret::seal(&root_plain, root_key, root.private()),
        node_authority: STANDARD.encode(node.der()),
        node_authority_key: SealedSecret::seal(&node_plain, node_key, node.private()),
        control_authority: STANDARD.encode(control.der()),
        control_authority_key: SealedSecret::seal(&control_plain, control_key, control.private()),
        receipt_key: receipt_id,
        receipt_certificate,
        receipt_next: None,
        log_key: log_id,
        pepper,
        subjects,
        file,
        created: now,
    };
    let put = Put::json(SYSTEM_OWNER, Kind::SETTING, deployment, Expect::Absent, &row).map_err(internal)?;
    transaction.mutations.push(put.into());
    // The first entry of the log says whose it is; it is written by the same transaction that makes the deployment.
    let entry = |event: Event| {
        let mut random = SystemRandom;
        audit::Entry {
            id: fresh(vocabulary::EntryId::new, now),
            time: now,
            tenant: SYSTEM_OWNER,
            producer: audit::entry::Producer { name: "control/birth".into(), sequence: 0 },
            actor: audit::Actor::System,
            source: audit::Source::Internal,
            outcome: audit::Outcome::Success,
            action: None,
            event,
            personal: Vec::new(),
        }
        .encode(&mut |bytes| random.fill(bytes))
        .map_err(internal)
    };
    transaction.entries.push(entry(Event::LogStarted { deployment, profile, origin, key: log_key })?);
    transaction.entries.push(entry(Event::SealInitialised { epoch: 1 })?);
    store.commit(transaction, now).await.map_err(internal)?;
    let (revision, row) = deployment::stored(store).await?.ok_or_else(|| internal("the deployment that was born is gone"))?;
    let mut opened = reopen(store, revision, row, vault).await?;
    opened.ticket = Some(first_administrator(store, &opened, admin, now).await?);
    Ok(opened)
}

/// Makes the operator who shall enrol with the ticket.
async fn first_administrator(store: &Store, opened: &Opened, name: &Name, now: UnixTime) -> Result<Zeroizing<String>, StartError> {
    let person = fresh(PersonId::new, now);
    let principal = fresh(PrincipalId::new, now);
    let operator = PrincipalRow {
        format: FORMAT,
        id: principal,
        kind: PrincipalKind::Operator,
        name: name.clone(),
        person: Some(person),
        roles: Vec::new(),
        clearance: Sensitivity::Public,
        created: now,
        invited: None,
    };
    let put = Put::json(SYSTEM_OWNER, Kind::PRINCIPAL, principal, Expect::Absent, &operator).map_err(internal)?.link(person);
    let (invite, ticket, _) = ticket_for(&opened.vault, &opened.peppers, person, None, now).map_err(internal)?;
    let transaction = invite.with(person_put(person, name, now).map_err(internal)?).with(put);
    store.commit(transaction, now).await.map_err(internal)?;
    Ok(ticket)
}

/// A fresh ticket as long as no operator has enrolled: the one before may have lapsed or been lost, or the birth broke off
/// before it was made. Whoever starts the server holds its passphrase, and so everything that a ticket could give.
async fn unenrolled_administrator(
    store: &Store,
    opened: &Opened,
    name: &Name,
    now: UnixTime,
) -> Result<Option<Zeroizing<String>>, StartError> {
    let principals = store.list(SYSTEM_OWNER, Kind::PRINCIPAL, store::Page::first(1000)).await.map_err(internal)?;
    let mut waiting = None;
    for stored in principals.items {
        let row: PrincipalRow = stored.parse().map_err(internal)?;
        let (PrincipalKind::Operator, Some(person)) = (row.kind, row.person) else { continue };
        if store.totp(person).await.map_err(internal)?.is_some() {
            return Ok(None);
        }
        waiting.get_or_insert(person);
    }
    let Some(person) = waiting else { return first_administrator(store, opened, name, now).await.map(Some) };
    let (again, ticket, _) = ticket_for(&opened.vault, &opened.peppers, person, None, now).map_err(internal)?;
    store.commit(again, now).await.map_err(internal)?;
    Ok(Some(ticket))
}

/// The body of a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersonRow {
    pub(crate) format: u32,
    pub(crate) id: PersonId,
    pub(crate) name: Name,
    pub(crate) created: UnixTime,
}

/// What an enrolment ticket is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketScope {
    pub(crate) person: PersonId,
    /// The key whose first twenty bytes are the TOTP secret, for a person without factors.
    pub(crate) totp: KeyId,
    /// The principal that the ticket makes the person's. None for an operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) joins: Option<Joins>,
}

/// A principal that waits for its person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joins {
    pub(crate) tenant: TenantId,
    pub(crate) principal: PrincipalId,
}

/// A new person.
pub(crate) fn person_put(person: PersonId, name: &Name, now: UnixTime) -> Result<Put, Box<dyn std::error::Error + Send + Sync>> {
    let body = PersonRow { format: FORMAT, id: person, name: name.clone(), created: now };
    Ok(Put::json(SYSTEM_OWNER, Kind::PERSON, person, Expect::Absent, &body)?.name(name))
}

/// A ticket for a person, with the TOTP secret that it will show to one without factors, as a transaction to be added to.
pub(crate) fn ticket_for(
    vault: &Vault,
    peppers: &Peppers,
    person: PersonId,
    joins: Option<Joins>,
    now: UnixTime,
) -> Result<(Transaction, Zeroizing<String>, TokenId), Box<dyn std::error::Error + Send + Sync>> {
    let mut random = SystemRandom;
    let owner = keys::Owner { kind: "person".into(), id: *person.as_bytes() };
    let (totp, _) = vault.make_under_root(SYSTEM_OWNER, Purpose::FactorSecret, owner, now)?;
    let token = Token::draw(TokenKind::Enrolment, &mut random);
    let record = token.record(peppers.newest().ok_or("no pepper")?);
    let scope = TicketScope { person, totp: totp.id, joins };
    let row = TokenRow {
        tenant: SYSTEM_OWNER,
        id: token.id(),
        kind: TokenKind::Enrolment.as_str().to_owned(),
        principal: None,
        mac: *record.mac.as_bytes(),
        pepper_version: record.mac.version(),
        scope: serde_json::to_string(&scope)?,
        created: now,
        expires: now.plus_millis(TICKET_LIFETIME_MS),
        acr: 0,
        factor_time: None,
        thumbprint: None,
    };
    let transaction = Transaction::new().with(Mutation::PutKey(totp)).with(Mutation::PutToken(row));
    Ok((transaction, token.reveal(), token.id()))
}

/// The TOTP factor that a spent ticket leaves.
pub(crate) fn totp_row(scope: &TicketScope, last_step: u64) -> TotpRow {
    TotpRow { person: scope.person, key: scope.totp, last_step }
}

/// Opens what a start needs.
async fn reopen(store: &Store, revision: u64, row: DeploymentRow, vault: Vault) -> Result<Opened, StartError> {
    let root = row.root()?;
    let certifying = Certifying::open(store, &vault, &root, &row, revision).await?;
    let log_seed = open_key(store, &vault, row.log_key).await?;
    let pepper = open_key(store, &vault, row.pepper).await?;
    let subjects = open_key(store, &vault, row.subjects).await?;
    Ok(Opened {
        deployment: row.deployment,
        profile: row.profile,
        root,
        certifying,
        log: Ed25519Signer::from_seed(&log_origin(row.deployment), log_seed.expose()).map_err(internal)?,
        peppers: Peppers::new(Pepper::new(1, pepper.expose())),
        subjects: SubjectRoot::from_bytes(*subjects.expose()),
        vault,
        ticket: None,
    })
}
