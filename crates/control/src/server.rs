//! Starting and stopping, in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::sync::atomic::AtomicU64;

use audit::Event;
use axum::extract::State;
use axum::response::IntoResponse as _;
use identity::{LiveRevocations, RevocationSet, ServerName, Verifier};
use keys::SystemRandom;
use keys::gather::{Gathered, Gathering};
use policy::PolicySets;
use store::{Blobs, Store, Transaction};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vocabulary::plan::{NodePlace, Revocations};
use vocabulary::{ControlId, Name, Profile, SYSTEM_OWNER, Sha256Digest, UnixTime};
use zeroize::Zeroizing;

use crate::api::listener::{Door, serve};
use crate::api::problem::Failure;
use crate::api::table::Route;
use crate::bootstrap::{self, Found, StartError, internal};
use crate::clock;
use crate::face::Face;
use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::limits::JOIN_LIFETIME_MAX_S;
use crate::metrics::Listener;
use crate::operation::enrolment::join_token;
use crate::sealed::SealedServer;
use crate::state::{Control, fresh};

/// What a server is started with.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where its state lies; made when absent.
    pub data_dir: PathBuf,
    /// The API's address; port 0 picks one.
    pub listen: SocketAddr,
    /// Names and addresses under which people reach it, beside the address itself.
    pub hosts: Vec<String>,
    /// The node channel's address; port 0 picks one.
    pub node_listen: SocketAddr,
    /// Where metrics are read, in clear: an address of this machine, or nowhere. Port 0 picks one.
    pub metrics_listen: Option<SocketAddr>,
    /// The shred list of a deployment on `SQLite`; `None` keeps it in `data_dir`.
    pub shred_list: Option<PathBuf>,
    /// Makes spans of what is done, or none.
    pub tracer: telemetry::Tracer,
    /// The node of this machine: on a deployment without any node, a join token for it is left in a file.
    pub local_node: Option<LocalNode>,
    /// The profile asked for; `None` takes what is there, and `development` for a new deployment.
    pub profile: Option<Profile>,
    /// Name of the first administrator of a new deployment.
    pub admin: Name,
    /// Opens the seal, or seals a new deployment. [`Prepared::start`] takes it, or shares, beside this.
    pub passphrase: Zeroizing<String>,
    /// The database that several control planes share; `None` keeps a file of `SQLite` in `data_dir`.
    pub database: Option<store::PostgresUrl>,
    /// The folder of the objects, which all control planes of the deployment must see; `None` keeps them in `data_dir`.
    pub objects: Option<PathBuf>,
}

/// The node that runs beside the server.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// Where its join token is left: a file of mode 0600, made when no node exists.
    pub join_file: PathBuf,
    /// Its name.
    pub name: Name,
    /// Where it stands.
    pub place: NodePlace,
}

impl LocalNode {
    /// A node called `local`, in region `local` and jurisdiction `LOCAL`, whose token is left in this file.
    pub fn new(join_file: PathBuf) -> Result<Self, StartError> {
        Ok(Self {
            join_file,
            name: "local".parse().map_err(internal)?,
            place: NodePlace {
                region: "local".parse().map_err(internal)?,
                jurisdiction: "LOCAL".parse().map_err(internal)?,
                labels: vocabulary::Labels::new(),
            },
        })
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig").field("data_dir", &self.data_dir).field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    node_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    pin: Sha256Digest,
    profile: Profile,
    ticket: Option<Zeroizing<String>>,
    control: Arc<Control>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What opens the seal.
pub enum Unseal {
    /// The passphrase; it makes a new deployment's.
    Passphrase(Zeroizing<String>),
    /// Shares, as they were written down.
    Shares(Vec<Zeroizing<String>>),
}

impl std::fmt::Debug for Unseal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(…)",
            Self::Shares(_) => "Shares(…)",
        })
    }
}

/// What a start needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A passphrase for the seal of a new deployment.
    NewPassphrase,
    /// The passphrase of the seal.
    Passphrase,
    /// So many shares of the seal.
    Shares {
        /// How many open it.
        threshold: u8,
    },
}

/// State that was looked at and not opened.
#[derive(Debug)]
pub struct Prepared {
    config: ServerConfig,
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    pub(crate) found: Found,
}

impl Prepared {
    /// Looks at the state. Nothing listens yet, nothing is decrypted.
    pub async fn open(config: ServerConfig) -> Result<Self, StartError> {
        if let Some(address) = config.metrics_listen.filter(|address| !address.ip().is_loopback()) {
            return Err(StartError::MetricsInClear(address));
        }
        let now = clock::now();
        std::fs::create_dir_all(&config.data_dir).map_err(|source| StartError::File { path: config.data_dir.clone(), source })?;
        let (store, blobs) = crate::shared::open(&config, now).await?;
        // Processes that start together on an empty database make one deployment.
        let birth = store.alone("birth", [0; 16]).await.map_err(internal)?;
        crate::shared::same_objects(&store, &blobs, now).await?;
        let found = bootstrap::find(&store, &blobs, config.profile, now).await?;
        drop(birth);
        // Before anything is opened or recorded, also by a sealed server: an older database signs no second history.
        crate::published::refuse_older(&store, &blobs).await?;
        Ok(Self { config, store, blobs, found })
    }

    /// What would open it.
    #[must_use]
    pub fn needs(&self) -> Needs {
        match &self.found {
            Found::Nothing => Needs::NewPassphrase,
            Found::Closed(closed) => match closed.seal.file.threshold() {
                None => Needs::Passphrase,
                Some(threshold) => Needs::Shares { threshold },
            },
        }
    }

    /// Opens everything and begins to serve. When this returns, requests are answered.
    pub async fn start(self, unseal: Unseal) -> Result<Server, StartError> {
        let mut this = self;
        if matches!(this.found, Found::Nothing) {
            let Unseal::Passphrase(passphrase) = &unseal else { return Err(StartError::Mismatch("there is no deployment that shares could open")) };
            let birth = this.store.alone("birth", [0; 16]).await.map_err(internal)?;
            let now = clock::now();
            this.found = bootstrap::find(&this.store, &this.blobs, this.config.profile, now).await?;
            if matches!(this.found, Found::Nothing) {
                let opened = bootstrap::create(&this.store, &this.blobs, passphrase, &this.config.admin, now).await?;
                drop(birth);
                return launch(this.config, this.store, this.blobs, opened, now).await;
            }
            // Another process made it meanwhile: its passphrase must be the same.
            drop(birth);
        }
        let Found::Closed(closed) = &this.found else { return Err(internal("a start without a deployment")) };
        let seal = match unseal {
            Unseal::Passphrase(passphrase) => bootstrap::open_with_passphrase(closed.seal.file.clone(), passphrase).await?,
            Unseal::Shares(texts) => gather(&closed.seal.file, &texts)?,
        };
        this.launch(seal).await
    }

    /// Begins to listen with the seal closed.
    pub async fn start_sealed(self) -> Result<SealedServer, StartError> {
        let Found::Closed(closed) = &self.found else {
            return Err(StartError::Mismatch("there is no deployment yet: a passphrase makes one"));
        };
        let (closed, store) = (closed.clone(), self.store.clone());
        SealedServer::start(self, &closed, store).await
    }

    pub(crate) const fn config(&self) -> &ServerConfig {
        &self.config
    }

    pub(crate) fn listen_at(&mut self, address: SocketAddr) {
        self.config.listen = address;
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }

    /// Goes on with the opened seal.
    pub(crate) async fn launch(self, seal: keys::seal::Opened) -> Result<Server, StartError> {
        let now = clock::now();
        // A server may have waited sealed for days. What another control plane did to the seal meanwhile is followed, or refused.
        let birth = self.store.alone("birth", [0; 16]).await.map_err(internal)?;
        let Found::Closed(closed) = bootstrap::find(&self.store, &self.blobs, self.config.profile, now).await? else {
            return Err(StartError::Mismatch("the deployment is gone from the database"));
        };
        let seal = if closed.seal.file == *seal.file() {
            seal
        } else {
            seal.follow(&closed.seal.file).map_err(|_| StartError::Mismatch("the seal was changed while this server was starting: start it again with what opens it now"))?
        };
        crate::published::refuse_older(&self.store, &self.blobs).await?;
        let opened = bootstrap::open(&self.store, &self.blobs, *closed, seal, &self.config.admin, now).await?;
        drop(birth);
        launch(self.config, self.store, self.blobs, opened, now).await
    }
}

/// Opens a seal with shares that are all at hand.
fn gather(file: &keys::seal::SealFile, texts: &[Zeroizing<String>]) -> Result<keys::seal::Opened, StartError> {
    let mut gathering = Gathering::new(file.clone());
    for text in texts {
        let nonce = gathering.progress().nonce;
        if let Gathered::Open(opened) = gathering.add(text, nonce, clock::now(), &mut SystemRandom)? {
            return Ok(opened);
        }
    }
    let progress = gathering.progress();
    Err(StartError::TooFewShares { entered: progress.entered.len(), threshold: progress.threshold })
}

impl Server {
    /// Opens everything with the passphrase and begins to serve. When this returns, requests are answered.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let passphrase = config.passphrase.clone();
        Prepared::open(config).await?.start(Unseal::Passphrase(passphrase)).await
    }
}

/// Serves an opened deployment.
pub(crate) async fn launch(config: ServerConfig, store: Store, blobs: Blobs, opened: bootstrap::Opened, now: UnixTime) -> Result<Server, StartError> {
    let control_id = fresh(ControlId::new, now);
    let listener =
        TcpListener::bind(config.listen).await.map_err(|source| StartError::Listen { address: config.listen, source })?;
    let node_listener =
        TcpListener::bind(config.node_listen).await.map_err(|source| StartError::Listen { address: config.node_listen, source })?;
    let metrics_listener = match config.metrics_listen {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?),
        None => None,
    };
    let metrics_address = metrics_listener.as_ref().map(TcpListener::local_addr).transpose().map_err(internal)?;
    let node_address = node_listener.local_addr().map_err(internal)?;
    let address = listener.local_addr().map_err(internal)?;
    let names = server_names(address, &config.hosts).map_err(bootstrap::certificates)?;
    let revocations = LiveRevocations::new(revocation_set(&store).await?);
    let verifier = Arc::new(Verifier::new(opened.root.clone(), revocations).map_err(bootstrap::certificates)?);
    let stop = CancellationToken::new();
    let (router, _, document) = crate::api::table().finish();
    let control = Arc::new(Control {
        sets: PolicySets::new()?,
        vault: opened.vault,
        peppers: opened.peppers,
        deployment: opened.deployment,
        profile: opened.profile,
        log: opened.log,
        subjects: opened.subjects,
        control: control_id,
        sequence: AtomicU64::new(0),
        hashing: Semaphore::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get)),
        published: watch::Sender::new(0),
        witnesses: crate::witness::Witnesses::default(),
        logs: watch::Sender::new(0),
        openapi: document.to_string(),
        certifying: RwLock::new(Arc::new(opened.certifying)),
        gate: Gate::new(verifier),
        node_port: node_address.port(),
        fleet: Fleet::default(),
        stop: stop.clone(),
        logins: crate::logins::Logins::default(),
        rates: crate::rate::Rates::of_this_machine(),
        metrics: crate::metrics::Metrics::new(now),
        tracer: config.tracer.clone(),
        shreds: crate::shred::Shreds::default(),
        reaching: crate::api::reach::Tally::default(),
        replacing: crate::state::replacing_locks(),
        store,
        blobs,
    });
    control.store.observe(Arc::new(crate::spans::Watching { metrics: control.metrics.observer(), tracer: control.tracer.clone() }));
    let started = control
        .system_entry(now, SYSTEM_OWNER, Event::ServerStarted { version: env!("CARGO_PKG_VERSION").to_owned() })
        .map_err(|failure| internal(failure.problem.detail))?;
    control.store.commit(Transaction::new().entry(started), now).await.map_err(internal)?;
    crate::renewal::certify(&control, now).await?;
    let face = Face::make(&control, names, config.data_dir.clone(), now).await?;
    // Before anybody is answered: what was destroyed is not back.
    if !control.store.is_shared() {
        let list = config.shred_list.clone().unwrap_or_else(|| config.data_dir.join(crate::shred::list::FILE));
        crate::shred::start(&control, &list, now).await?;
    }
    crate::driver::load(&control).await.map_err(|failure| internal(failure.problem.detail))?;
    control.record_policies(now).await.map_err(|failure| internal(failure.problem.detail))?;
    if let Some(local) = &config.local_node {
        leave_join_token(&control, local).await?;
    }
    crate::publisher::begin(&control).await;
    let mut tasks = JoinSet::new();
    let complete = |router: axum::Router<Arc<Control>>, listener: Listener| {
        // Whoever asks for what is no route makes no series of its own.
        let outside = move |control: &Control, code, detail| {
            let answer = Failure::new(code, detail).into_response();
            control.metrics.request(listener, "other", "none", answer.status(), std::time::Duration::ZERO);
            answer
        };
        router
            .fallback(move |State(control): State<Arc<Control>>| async move {
                outside(&control, vocabulary::ErrorCode::NotFound, "there is no such route; see /v1/openapi.json")
            })
            .method_not_allowed_fallback(move |State(control): State<Arc<Control>>| async move {
                outside(&control, vocabulary::ErrorCode::MethodNotAllowed, "this route does not take this method")
            })
            .with_state(Arc::clone(&control))
    };
    tasks.spawn(serve(listener, face.people(), complete(router, Listener::Api), Door::Api(Arc::clone(&control)), stop.clone()));
    tasks.spawn(serve(node_listener, face.nodes(), complete(crate::api::node_table().finish().0, Listener::Nodes), Door::Nodes(Arc::clone(&control)), stop.clone()));
    tasks.spawn(crate::publisher::run(Arc::clone(&control), stop.clone()));
    tasks.spawn(crate::witness::gather::run(Arc::clone(&control), stop.clone()));
    tasks.spawn(crate::count::run(Arc::clone(&control), stop.clone()));
    tasks.spawn(crate::driver::run(Arc::clone(&control), stop.clone()));
    tasks.spawn(crate::lease::run(Arc::clone(&control), stop.clone()));
    if control.store.is_shared() {
        tasks.spawn(crate::shared::follow(Arc::clone(&control), stop.clone()));
    }
    if let Some(listener) = metrics_listener {
        tasks.spawn(crate::metrics::serve::run(listener, Arc::clone(&control), stop.clone()));
    }
    tasks.spawn(crate::receipts::run(Arc::clone(&control), stop.clone()));
    tasks.spawn(crate::keylife::run(Arc::clone(&control), stop.clone()));
    tasks.spawn(crate::renewal::run(Arc::clone(&control), face, stop.clone()));
    Ok(Server { address, node_address, metrics_address, pin: opened.root.pin(), profile: opened.profile, ticket: opened.ticket, control, stop, tasks })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
    /// Where the node channel listens.
    #[must_use]
    pub const fn node_address(&self) -> SocketAddr {
        self.node_address
    }
    /// Where metrics are read, if they are.
    #[must_use]
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }
    /// The pin of the deployment's root, for first contact.
    #[must_use]
    pub const fn pin(&self) -> &Sha256Digest {
        &self.pin
    }
    #[cfg(test)]
    pub(crate) const fn control(&self) -> &Arc<Control> {
        &self.control
    }
    /// The deployment's profile.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }
    /// The first administrator's ticket, when the deployment was born by this start. Given once.
    #[must_use]
    pub fn take_ticket(&mut self) -> Option<Zeroizing<String>> {
        self.ticket.take()
    }
    /// Stops: requests in flight end, the log is published, the store is closed.
    pub async fn stop(mut self) {
        let now = clock::now();
        match self.control.system_entry(now, SYSTEM_OWNER, Event::ServerStopped { version: env!("CARGO_PKG_VERSION").to_owned() }) {
            Ok(entry) => {
                if let Err(error) = self.control.store.commit(Transaction::new().entry(entry), now).await {
                    tracing::warn!(%error, "the end was not recorded");
                }
            }
            Err(failure) => tracing::warn!(detail = failure.problem.detail, "the end was not recorded"),
        }
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.control.end_shreds(clock::now()).await;
        self.control.store.close().await;
    }
}

/// The revocations that are stored.
pub(crate) async fn revocation_set(store: &Store) -> Result<RevocationSet, StartError> {
    let mut wire = Revocations::default();
    loop {
        let page = store.revocations(wire.version, 1000).await.map_err(internal)?;
        let more = page.truncated && !page.items.is_empty();
        for row in page.items {
            wire.version = wire.version.max(row.version);
            match row.what {
                store::Revoked::Node(node) => wire.nodes.push(node),
                store::Revoked::Serial(serial) => wire.serials.push(serial),
            }
        }
        if !more {
            return RevocationSet::from_wire(&wire).map_err(internal);
        }
    }
}

/// Leaves a join token for the node beside this server, when no node exists: it joins without a person.
async fn leave_join_token(control: &Control, local: &LocalNode) -> Result<(), StartError> {
    let told = |failure: Failure| internal(failure.problem.detail);
    let now = clock::now();
    if !control.store.list(SYSTEM_OWNER, store::Kind::NODE, store::Page::first(1)).await.map_err(internal)?.items.is_empty() {
        return Ok(());
    }
    let expires = now.plus_millis(JOIN_LIFETIME_MAX_S.saturating_mul(1000));
    let (transaction, event, _, token) = join_token(control, &local.name, &local.place, now, expires).map_err(told)?;
    let entry = control.system_entry(now, SYSTEM_OWNER, event).map_err(told)?;
    control.store.commit(transaction.entry(entry), now).await.map_err(internal)?;
    let text = Zeroizing::new(format!("{}\n", token.as_str()));
    write_private(&local.join_file, text.as_bytes()).map_err(|source| StartError::File { path: local.join_file.clone(), source })
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn server_names(address: SocketAddr, hosts: &[String]) -> Result<Vec<ServerName>, identity::IssueError> {
    let mut texts = vec!["localhost".to_owned()];
    if !address.ip().is_unspecified() {
        texts.push(address.ip().to_string());
    }
    texts.extend(hosts.iter().cloned());
    let mut names: Vec<ServerName> = Vec::new();
    for text in texts {
        let name: ServerName = text.parse()?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The OpenAPI document of this version.
#[must_use]
pub fn openapi() -> String {
    let (_, _, document) = crate::api::table().finish();
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// All routes, for the tests that list them.
#[must_use]
pub fn routes() -> Vec<Route> {
    crate::api::table().finish().1
}

/// All routes of the node channel, for the tests that list them.
#[must_use]
pub fn node_routes() -> Vec<Route> {
    crate::api::node_table().finish().1
}
