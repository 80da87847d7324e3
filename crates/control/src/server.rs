//! Starting and stopping, in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use audit::Event;
use identity::tls::{Clients, Identity, KeyExchange, server_config};
use identity::{EcdsaKey, LiveRevocations, RevocationSet, ServerName, Verifier};
use keys::SystemRandom;
use policy::PolicySets;
use store::{Store, Transaction};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vocabulary::plan::{NodePlace, Revocations};
use vocabulary::{ControlId, Name, Profile, SYSTEM_OWNER, Sha256Digest};
use zeroize::Zeroizing;

use crate::api::listener::serve;
use crate::api::problem::Failure;
use crate::api::table::Route;
use crate::bootstrap::{self, StartError, internal};
use crate::clock;
use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::limits::JOIN_LIFETIME_MAX_S;
use crate::operation::enrolment::join_token;
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
    /// The node of this machine: on a deployment without any node, a join token for it is left in a file.
    pub local_node: Option<LocalNode>,
    /// The profile asked for; `None` takes what is there, and `development` for a new deployment.
    pub profile: Option<Profile>,
    /// Name of the first administrator of a new deployment.
    pub admin: Name,
    /// Opens the seal.
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
    pin: Sha256Digest,
    profile: Profile,
    ticket: Option<Zeroizing<String>>,
    control: Arc<Control>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Opens everything and begins to serve. When this returns, requests are answered.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let now = clock::now();
        std::fs::create_dir_all(&config.data_dir).map_err(|source| StartError::File { path: config.data_dir.clone(), source })?;
        let (store, blobs) = crate::shared::open(&config, now).await?;
        // Processes that start together on an empty database make one deployment.
        let birth = store.alone("birth", [0; 16]).await.map_err(internal)?;
        crate::shared::same_objects(&store, &blobs, now).await?;
        let opened = bootstrap::open(&store, &blobs, &config.passphrase, config.profile, &config.admin, now).await?;
        drop(birth);
        crate::published::refuse_older(&store, &blobs).await?;
        let control_id = fresh(ControlId::new, now);
        let listener =
            TcpListener::bind(config.listen).await.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let node_listener =
            TcpListener::bind(config.node_listen).await.map_err(|source| StartError::Listen { address: config.node_listen, source })?;
        let node_address = node_listener.local_addr().map_err(internal)?;
        let address = listener.local_addr().map_err(internal)?;
        let certificates = |error: &dyn std::fmt::Display| StartError::Certificates(error.to_string());
        let names = server_names(address, &config.hosts).map_err(|error| certificates(&error))?;
        let key = EcdsaKey::generate().map_err(|error| certificates(&error))?;
        let public = key.public().map_err(|error| certificates(&error))?;
        let issued = opened
            .control_authority
            .issue_control(control_id, &public, &names, now, &mut SystemRandom)
            .map_err(|error| certificates(&error))?;
        let identity = Identity { chain: issued.chain, key: key.private().clone() };
        let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let anybody = server_config(&identity, &opened.root, Clients::Anybody, KeyExchange::default(), Arc::<rustls::time_provider::DefaultTimeProvider>::clone(&time));
        let tls = anybody.map_err(|error| certificates(&error))?;
        let revocations = LiveRevocations::new(revocation_set(&store).await?);
        let verifier = Arc::new(Verifier::new(opened.root.clone(), revocations).map_err(|error| certificates(&error))?);
        let nodes = Clients::Nodes(Arc::clone(&verifier));
        let node_tls = server_config(&identity, &opened.root, nodes, KeyExchange::default(), time).map_err(|error| certificates(&error))?;
        let stop = CancellationToken::new();
        let (router, _, document) = crate::api::table().finish();
        let control = Arc::new(Control {
            sets: PolicySets::new()?,
            vault: opened.vault,
            peppers: opened.peppers,
            deployment: opened.deployment,
            profile: opened.profile,
            deployment_file: opened.file,
            log: opened.log,
            subjects: opened.subjects,
            control: control_id,
            sequence: AtomicU64::new(0),
            hashing: Semaphore::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get)),
            published: watch::Sender::new(0),
            witnesses: crate::witness::Witnesses::default(),
            logs: watch::Sender::new(0),
            openapi: document.to_string(),
            node_authority: opened.node_authority,
            receipt_key: opened.receipt_key,
            receipt_certificate: opened.receipt_certificate,
            gate: Gate::new(verifier),
            node_port: node_address.port(),
            fleet: Fleet::default(),
            stop: stop.clone(),
            logins: crate::logins::Logins::default(),
            reaching: crate::api::reach::Tally::default(),
            replacing: crate::state::replacing_locks(),
            store,
            blobs,
        });
        let started = control
            .system_entry(now, SYSTEM_OWNER, Event::ServerStarted { version: env!("CARGO_PKG_VERSION").to_owned() })
            .map_err(|failure| internal(failure.problem.detail))?;
        control.store.commit(Transaction::new().entry(started), now).await.map_err(internal)?;
        crate::driver::load(&control).await.map_err(|failure| internal(failure.problem.detail))?;
        control.record_policies(now).await.map_err(|failure| internal(failure.problem.detail))?;
        if let Some(local) = &config.local_node {
            leave_join_token(&control, local).await?;
        }
        let mut tasks = JoinSet::new();
        let complete = |router: axum::Router<Arc<Control>>| {
            router
                .fallback(|| async { Failure::new(vocabulary::ErrorCode::NotFound, "there is no such route; see /v1/openapi.json") })
                .method_not_allowed_fallback(|| async {
                    Failure::new(vocabulary::ErrorCode::MethodNotAllowed, "this route does not take this method")
                })
                .with_state(Arc::clone(&control))
        };
        tasks.spawn(serve(listener, Arc::new(tls), complete(router), None, stop.clone()));
        tasks.spawn(serve(node_listener, Arc::new(node_tls), complete(crate::api::node_table().finish().0), Some(Arc::clone(&control)), stop.clone()));
        tasks.spawn(crate::publisher::run(Arc::clone(&control), stop.clone()));
        tasks.spawn(crate::witness::gather::run(Arc::clone(&control), stop.clone()));
        tasks.spawn(crate::count::run(Arc::clone(&control), stop.clone()));
        tasks.spawn(crate::driver::run(Arc::clone(&control), stop.clone()));
        tasks.spawn(crate::lease::run(Arc::clone(&control), stop.clone()));
        if control.store.is_shared() {
            tasks.spawn(crate::shared::follow(Arc::clone(&control), stop.clone()));
        }
        tasks.spawn(crate::receipts::run(Arc::clone(&control), stop.clone()));
        Ok(Self { address, node_address, pin: opened.root.pin(), profile: opened.profile, ticket: opened.ticket, control, stop, tasks })
    }

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
fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
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
