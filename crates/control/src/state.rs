//! The control plane at work: everything that its operations share.

use std::sync::{Arc, PoisonError, RwLock};
use std::sync::atomic::{AtomicU64, Ordering};

use audit::entry::{Actor, Producer, Source};
use audit::sealed::{Personal, SubjectRoot};
use audit::{EncodedEntry, Entry, Event, Outcome};
use http::header;
use identity::{Peppers, Token, TokenKind};
use keys::{Random, SystemRandom};
use policy::{PolicySets, RoleBinding, SetFacts};
use store::{Blobs, Kind, Store, Transaction};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use vocabulary::api::PrincipalKind;
use vocabulary::{ControlId, DeploymentId, EntryId, ErrorCode, NodeId, Profile, SYSTEM_OWNER, TenantId, UnixTime};

use crate::api::listener::Connection;
use crate::api::problem::Failure;
use crate::api::reach::Tally;
use crate::caller::Member;
use crate::clock;
use crate::deployment::Certifying;
use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::logins::{Login, Logins};
use crate::metrics::Bucket;
use crate::row::{NodeRow, PrincipalRow, TenantRow};
use crate::vault::Vault;

/// The control plane.
pub(crate) struct Control {
    /// What is gone, beside the database. First, so that its file is let go before the database's.
    pub(crate) shreds: crate::shred::Shreds,
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    pub(crate) sets: PolicySets,
    pub(crate) vault: Vault,
    pub(crate) peppers: Peppers,
    pub(crate) deployment: DeploymentId,
    pub(crate) profile: Profile,
    pub(crate) log: audit::key::Ed25519Signer,
    pub(crate) subjects: SubjectRoot,
    pub(crate) control: ControlId,
    pub(crate) sequence: AtomicU64,
    /// argon2 runs at once: memory is cores × 19 MiB (`access.md` 3.5).
    pub(crate) hashing: Semaphore,
    /// The size of the published log.
    pub(crate) published: watch::Sender<u64>,
    /// The witnesses of the log.
    pub(crate) witnesses: crate::witness::Witnesses,
    /// Counts batches of logs, to wake those who follow one.
    pub(crate) logs: watch::Sender<u64>,
    pub(crate) openapi: String,
    /// See [`Control::certifying`].
    pub(crate) certifying: RwLock<Arc<Certifying>>,
    /// Who is on the node channel.
    pub(crate) gate: Arc<Gate>,
    /// The node channel's port.
    pub(crate) node_port: u16,
    /// What was heard of the nodes.
    pub(crate) fleet: Fleet,
    /// Cancelled when the server stops: streams end by it.
    pub(crate) stop: CancellationToken,
    /// Credentials that were read a moment ago.
    pub(crate) logins: Logins,
    /// How often members may ask, and sources be refused.
    pub(crate) rates: crate::rate::Rates,
    /// What operators watch.
    pub(crate) metrics: crate::metrics::Metrics,
    /// Makes spans of what is done, or none.
    pub(crate) tracer: telemetry::Tracer,
    /// Who was refused what is not there, and how often.
    pub(crate) reaching: Tally,
    /// See [`Control::replacing`].
    pub(crate) replacing: [tokio::sync::Mutex<()>; REPLACING],
}

/// Volumes share this many locks: enough that two busy ones rarely meet.
const REPLACING: usize = 64;

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("deployment", &self.deployment).finish_non_exhaustive()
    }
}

/// See [`Control::replacing`].
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    everywhere: store::Alone,
    _here: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Asks whether no other process can have taken it: right before an object is replaced.
    pub(crate) async fn still(&mut self) -> Result<(), Failure> {
        self.everywhere.still().await.map_err(|error| Self::lost(&error))
    }
    fn lost(error: &store::ReadError) -> Failure {
        tracing::warn!(%error, "a volume's turn was not to be had");
        Failure::new(ErrorCode::Unavailable, "another control plane is changing this volume, or the database does not answer")
    }
}

/// The locks of [`Control::replacing`], all free.
pub(crate) fn replacing_locks() -> [tokio::sync::Mutex<()>; REPLACING] {
    std::array::from_fn(|_| tokio::sync::Mutex::new(()))
}

/// Draws a fresh id.
pub(crate) fn fresh<T>(make: fn(UnixTime, [u8; 10]) -> T, now: UnixTime) -> T {
    make(now, <dyn Random>::array(&mut SystemRandom))
}

impl Control {
    /// What this process certifies and signs with now. It is replaced when it is renewed: whoever needs two parts of it takes it once.
    pub(crate) fn certifying(&self) -> Arc<Certifying> {
        Arc::clone(&self.certifying.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Certifies and signs with this from now on, unless something newer is there.
    pub(crate) fn certify_with(&self, certifying: Arc<Certifying>) {
        let mut held = self.certifying.write().unwrap_or_else(PoisonError::into_inner);
        if certifying.revision > held.revision {
            *held = certifying;
        }
    }

    /// Held while an object of a volume that no root names yet is looked at and replaced, and while its root is set: what is
    /// decided by the head and the newest writer stays true until it is done, in this process and in all others.
    pub(crate) async fn replacing(&self, volume: vocabulary::VolumeId) -> Result<Turn<'_>, Failure> {
        let place = usize::from(volume.as_bytes().last().copied().unwrap_or_default()) % REPLACING;
        let here = match self.replacing.get(place).or_else(|| self.replacing.first()) {
            Some(lock) => lock.lock().await,
            None => std::future::pending().await,
        };
        let everywhere = self.store.alone("replacing", *volume.as_bytes()).await.map_err(|error| Turn::lost(&error))?;
        Ok(Turn { everywhere, _here: here })
    }

    /// Checks the one credential of a request.
    pub(crate) async fn authenticate(&self, parts: &http::request::Parts) -> Result<Member, Failure> {
        let connection = parts.extensions.get::<Connection>();
        let mut bearer = parts.headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (bearer.next(), bearer.next());
        let others = parts.headers.contains_key(header::COOKIE) || second.is_some();
        if others && first.is_some() {
            return Err(Failure::new(ErrorCode::TwoCredentials, "the request carries two credentials"));
        }
        let refused = || Failure::new(ErrorCode::Unauthenticated, "no valid token");
        let authenticated = match first.and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer ")) {
            Some(text) => self.by_token(text, clock::now()).await?,
            None => None,
        };
        match authenticated {
            Some(member) => match self.rates.member(member.principal, member.owner(), clock::now()) {
                Ok(()) => {
                    if let Some(activity) = connection.and_then(|connection| connection.activity.as_ref()) {
                        activity.member();
                    }
                    Ok(member)
                }
                Err(too_often) => {
                    self.metrics.rate_limited(Bucket::Member);
                    Err(self.too_often(connection, too_often, "too many requests of this principal or its tenant").await)
                }
            },
            None => {
                self.metrics.credential_refused();
                match self.rates.refused_credential(address(connection), clock::now()) {
                    Ok(()) => {
                        self.count_stranger(connection, ErrorCode::Unauthenticated).await;
                        Err(refused())
                    }
                    Err(too_often) => {
                        self.metrics.rate_limited(Bucket::Credentials);
                        Err(self.too_often(connection, too_often, "too many refused credentials from this address").await)
                    }
                }
            }
        }
    }

    /// How what is asked too often is refused. The first of a minute is counted like a stranger's refusal, the others only cost a look.
    async fn too_often(&self, connection: Option<&Connection>, too_often: crate::rate::TooOften, detail: &str) -> Failure {
        if too_often.tell {
            self.count_stranger(connection, ErrorCode::TryLater).await;
        }
        let mut failure = Failure::new(ErrorCode::TryLater, detail);
        failure.retry_after_s = Some(too_often.retry_after_s);
        failure
    }

    /// The member whose token this is, if it is valid now.
    async fn by_token(&self, text: &str, now: UnixTime) -> Result<Option<Member>, Failure> {
        let Ok(token) = Token::parse(text) else { return Ok(None) };
        if !matches!(token.kind(), TokenKind::Session | TokenKind::Personal | TokenKind::Service) {
            return Ok(None);
        }
        // Before anything is read: what is committed meanwhile makes what was read old.
        let change = self.store.latest_change();
        let login = match self.logins.find(token.id(), change, now) {
            Some(login) => login,
            None => match self.login(token.id()).await? {
                Some(login) => {
                    self.logins.keep(change, now, login.clone());
                    login
                }
                None => return Ok(None),
            },
        };
        let stored = login.token;
        let record = identity::TokenRecord {
            kind: match TokenKind::from_word(&stored.row.kind) {
                Some(kind) => kind,
                None => return Ok(None),
            },
            id: stored.row.id,
            mac: identity::PepperedMac::from_parts(stored.row.pepper_version, stored.row.mac),
        };
        // A clock that went back proves nothing about an end that is still ahead.
        let in_time = stored.is_live(now) && now.plus_millis(5_000) >= stored.row.created;
        if !token.fits(&record, &self.peppers) || !in_time || !self.makers_live(&stored, now).await? {
            return Ok(None);
        }
        if stored.last_used.is_none_or(|used| now.since(used).is_some_and(|age| age > 60_000)) {
            self.logins.touched(stored.row.id, now);
            let touch = store::Mutation::TouchToken { tenant: stored.row.tenant, id: stored.row.id };
            if let Err(error) = self.store.commit(Transaction::new().with(touch), now).await {
                tracing::debug!(%error, "token's last use not noted");
            }
        }
        Ok(Some(Member {
            acr: stored.row.acr,
            factor_time: stored.row.factor_time,
            token: stored.row.id,
            expires: stored.row.expires,
            ..login.member
        }))
    }

    /// A principal's token with whose it is, as their rows say now.
    async fn login(&self, id: vocabulary::TokenId) -> Result<Option<Login>, Failure> {
        let Some(token) = self.store.token(id).await.map_err(Failure::internal)? else { return Ok(None) };
        let Some(principal) = token.row.principal else { return Ok(None) };
        // Nobody acts as a principal that waits for its person.
        Ok(self.member(token.row.tenant, principal).await?.filter(|member| !member.invited).map(|member| Login { token, member }))
    }

    /// A principal with its tenant, as its rows say now.
    pub(crate) async fn member(&self, tenant: TenantId, principal: vocabulary::PrincipalId) -> Result<Option<Member>, Failure> {
        let Some((_, row)) = self.store.get_json::<PrincipalRow>(tenant, Kind::PRINCIPAL, principal).await.map_err(Failure::internal)? else {
            return Ok(None);
        };
        let (facts, tenant_name) = if row.kind == PrincipalKind::Operator {
            (None, None)
        } else {
            match self.tenant(tenant).await? {
                Some(tenant) => (Some(SetFacts { tenant: tenant.id, suspended: tenant.suspended }), Some(tenant.name)),
                None => return Ok(None),
            }
        };
        let roles: Vec<RoleBinding> = row.roles.iter().filter_map(|role| role.parse().ok()).collect();
        Ok(Some(Member {
            principal,
            kind: row.kind,
            name: row.name,
            person: row.person,
            tenant: facts,
            tenant_name,
            provider: None,
            roles,
            clearance: row.clearance,
            invited: row.invited.is_some(),
            acr: 0,
            factor_time: None,
            token: vocabulary::TokenId::from_bytes([0; 16]),
            expires: UnixTime::from_millis(0),
        }))
    }

    /// Whether a row of a list may be shown: the same rules, without a record for each row that is left out.
    pub(crate) fn may_see<A: policy::Action>(&self, member: &Member, resource: policy::Resource) -> bool {
        self.may::<A>(member, resource, None)
    }

    /// The same, for data that is used for a purpose.
    pub(crate) fn may<A: policy::Action>(&self, member: &Member, resource: policy::Resource, purpose: Option<vocabulary::Purpose>) -> bool {
        let call = policy::CallFacts {
            acr: member.acr,
            mfa_age_s: None,
            request_bound: false,
            approvals: 0,
            production: self.profile == Profile::Production,
            source: None,
        };
        let facts = policy::Facts { principal: member.facts(), resource, call, release: None, person_purpose: purpose };
        policy::decide::<A>(&self.sets, &facts).map(policy::Permit::spend).is_ok()
    }

    /// A tenant's row.
    pub(crate) async fn tenant(&self, id: TenantId) -> Result<Option<TenantRow>, Failure> {
        let found = self.store.get_json::<TenantRow>(SYSTEM_OWNER, Kind::TENANT, id).await.map_err(Failure::internal)?;
        Ok(found.map(|(_, row)| row))
    }

    /// A node's row with its revision.
    pub(crate) async fn node(&self, id: NodeId) -> Result<Option<(u64, NodeRow)>, Failure> {
        let found = self.store.get_json::<NodeRow>(SYSTEM_OWNER, Kind::NODE, id).await.map_err(Failure::internal)?;
        Ok(found.map(|(stored, row)| (stored.revision, row)))
    }

    /// A pseudonym of a connection's source: the address, or for IPv6 its /64.
    pub(crate) fn source(&self, connection: Option<&Connection>) -> String {
        self.subjects.pseudonym(&address(connection)).unwrap_or_else(|_| "unknown".to_owned())
    }

    /// Counts a stranger's refusal into its source and minute.
    pub(crate) async fn count_stranger(&self, connection: Option<&Connection>, code: ErrorCode) {
        let now = clock::now();
        self.metrics.stranger_refused(code);
        let minute = UnixTime::from_millis(now.millis() / 60_000 * 60_000);
        let count = store::Mutation::CountRefusal { source: self.source(connection), minute, code: code.as_str().to_owned() };
        if let Err(error) = self.store.commit(Transaction::new().with(count), now).await {
            tracing::warn!(%error, "a stranger's refusal was not counted");
        }
    }

    /// Encodes an entry.
    #[expect(clippy::too_many_arguments, reason = "an entry has this many parts, and each caller says each of them once")]
    pub(crate) fn entry(
        &self,
        now: UnixTime,
        tenant: TenantId,
        actor: Actor,
        source: Source,
        outcome: Outcome,
        action: Option<&str>,
        event: Event,
    ) -> Result<EncodedEntry, Failure> {
        self.entry_about(now, tenant, actor, source, outcome, action, event, Vec::new())
    }

    /// Commits the entry of a refusal, and gives the answer with its index. A refusal that cannot be recorded is answered with
    /// why not.
    pub(crate) async fn record_refusal(&self, entry: Result<EncodedEntry, Failure>, failure: Failure, now: UnixTime) -> Failure {
        let entry = match entry {
            Ok(entry) => entry,
            Err(internal) => return internal,
        };
        match self.store.commit(Transaction::new().entry(entry), now).await {
            Ok(committed) => match committed.audit_indexes.first() {
                Some(index) => failure.recorded(*index),
                None => failure,
            },
            Err(error) => commit_failure(error),
        }
    }

    /// The same as [`Self::entry`], with personal values that are sealed under their subject's key.
    #[expect(clippy::too_many_arguments, reason = "an entry has this many parts, and each caller says each of them once")]
    pub(crate) fn entry_about(
        &self,
        now: UnixTime,
        tenant: TenantId,
        actor: Actor,
        source: Source,
        outcome: Outcome,
        action: Option<&str>,
        event: Event,
        personal: Vec<Personal>,
    ) -> Result<EncodedEntry, Failure> {
        let entry = Entry {
            id: fresh(EntryId::new, now),
            time: now,
            tenant,
            producer: Producer {
                name: format!("control/{}", self.control),
                sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            },
            actor,
            source,
            outcome,
            action: action.map(str::to_owned),
            event,
            personal,
        };
        let mut random = SystemRandom;
        entry.encode(&mut |bytes| random.fill(bytes)).map_err(Failure::internal)
    }

    /// An entry of the control plane itself.
    pub(crate) fn system_entry(&self, now: UnixTime, tenant: TenantId, event: Event) -> Result<EncodedEntry, Failure> {
        self.entry(now, tenant, Actor::System, Source::Internal, Outcome::Success, None, event)
    }
}

/// The address of a connection's source, for IPv6 its /64.
pub(crate) fn address(connection: Option<&Connection>) -> String {
    connection.map_or_else(|| "none".to_owned(), |connection| match connection.remote.ip() {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    })
}

/// The actor of a member.
pub(crate) fn actor(member: &Member) -> Actor {
    match (member.kind, member.person) {
        (PrincipalKind::ServiceAccount, _) | (_, None) => Actor::Service(member.principal),
        (PrincipalKind::Operator | PrincipalKind::User, Some(person)) => Actor::User(member.principal, person),
    }
}

/// How a failed commit is told.
pub(crate) fn commit_failure(error: store::CommitError) -> Failure {
    use store::{CommitError, Conflict};
    match error {
        CommitError::Conflict { conflict, .. } => match conflict {
            Conflict::Absent => Failure::not_found(),
            Conflict::NameTaken => Failure::new(ErrorCode::NameTaken, "`name` is taken"),
            Conflict::Delayed { until } => {
                let wait = until.since(clock::now()).unwrap_or(0).div_ceil(1000).max(1);
                let mut failure = Failure::new(ErrorCode::TryLater, "too many failed tries");
                failure.retry_after_s = Some(wait);
                failure
            }
            Conflict::Head { .. } | Conflict::WriterEpoch { .. } => Failure::new(ErrorCode::RootConflict, conflict.to_string()),
            Conflict::ClockBack { .. } | Conflict::Fenced { .. } => {
                tracing::error!(%conflict, "refused");
                Failure::new(ErrorCode::Unavailable, conflict.to_string())
            }
            Conflict::Exists
            | Conflict::Revision { .. }
            | Conflict::State { .. }
            | Conflict::Spent
            | Conflict::Position { .. } => Failure::new(ErrorCode::Conflict, conflict.to_string()),
        },
        CommitError::KeyReused => Failure::new(ErrorCode::IdempotencyMismatch, "`Idempotency-Key` was used for another request"),
        CommitError::TooLarge { .. } => Failure::new(ErrorCode::TooLarge, error.to_string()),
        CommitError::Full | CommitError::ReadOnly | CommitError::Broken => {
            tracing::error!(%error, "storage failed");
            Failure::new(ErrorCode::StorageFailed, error.to_string())
        }
        CommitError::Closed => Failure::new(ErrorCode::Unavailable, "the server is stopping"),
        CommitError::Unavailable | CommitError::Unknown => {
            tracing::error!(%error, "the database is away");
            Failure::away(error.to_string())
        }
        CommitError::Invalid(_) | CommitError::Engine(_) | CommitError::Malformed(_) => Failure::internal(error),
    }
}
