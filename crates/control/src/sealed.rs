//! A sealed server: it listens, says what opens it, takes shares or the passphrase, and answers 503 to everything else.
//!
//! It shows itself with the certificate that the open server left in a file of mode 0600. Whoever can read that file can play
//! this server for the rest of the certificate's life, seven days at most: a machine that has forgotten its keys can hold
//! nothing better. What was entered is in memory alone, and wiped when it lapses, is used, or the process ends.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use audit::{Event, Outcome, Source};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use identity::tls::{Clients, Identity, KeyExchange, server_config};
use identity::{Pkcs8, RootCertificate, chain_from_wire, chain_to_wire};
use keys::gather::{GatherError, Gathered, Gathering};
use keys::seal::{Opened, SealError, SealKind};
use keys::{Random, SystemRandom};
use serde::{Deserialize, Serialize};
use store::{Store, Transaction};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vocabulary::custody::{SealOpen, SealStatus};
use vocabulary::{ControlId, EntryId, ErrorCode, Profile, SYSTEM_OWNER, Sha256Digest, UnixTime};
use zeroize::{Zeroize as _, Zeroizing};

use crate::api::listener::{Door, serve};
use crate::api::problem::Failure;
use crate::api::{json, table::answer_json};
use crate::bootstrap::{Closed, StartError, internal, open_with_passphrase};
use crate::clock;
use crate::limits::{PASSPHRASE_PAUSE, SEAL_REFUSED_ENTRY_MS, SEAL_TICK};
use crate::operation::seal::status;
use crate::server::{Prepared, Server, write_private};
use crate::state::fresh;

/// The file of the certificate that a sealed server shows.
const FACE: &str = "sealed-identity.json";
/// Bytes of that file: a chain of two certificates and a key, several times over.
const FACE_MAX: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Face {
    format: u32,
    chain: Vec<String>,
    key: String,
    until: UnixTime,
}

impl Drop for Face {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Leaves the certificate of an open server for the next time that it starts sealed.
pub(crate) fn leave_face(folder: &Path, identity: &Identity, until: UnixTime) -> Result<(), StartError> {
    let key = STANDARD.encode(identity.key.reveal());
    let face = Face { format: 1, chain: chain_to_wire(&identity.chain), key, until };
    let text = Zeroizing::new(serde_json::to_vec(&face).map_err(internal)?);
    let path = folder.join(FACE);
    write_private(&path, &text).map_err(|source| StartError::File { path, source })
}

fn read_face(folder: &Path, now: UnixTime) -> Result<Identity, StartError> {
    let faceless = |why: &str| StartError::Faceless(why.to_owned());
    let path = folder.join(FACE);
    let failed = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound { faceless("no certificate was left by an earlier start") } else { StartError::File { path: path.clone(), source } }
    };
    let metadata = std::fs::metadata(&path).map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(faceless("its certificate's file can be read by others"));
    }
    if metadata.len() > FACE_MAX as u64 {
        return Err(faceless("its certificate's file is damaged"));
    }
    let bytes = Zeroizing::new(std::fs::read(&path).map_err(failed)?);
    let face: Face = serde_json::from_slice(&bytes).map_err(|_| faceless("its certificate's file is damaged"))?;
    if face.format != 1 {
        return Err(faceless("its certificate's file is of another version"));
    }
    if now.since(face.until).is_some() {
        return Err(faceless("its certificate has ended"));
    }
    let chain = chain_from_wire(&face.chain).map_err(|error| faceless(&error.to_string()))?;
    let key = Zeroizing::new(STANDARD.decode(face.key.as_bytes()).map_err(|_| faceless("its certificate's file is damaged"))?);
    Ok(Identity { chain, key: Pkcs8::from_bytes(&key) })
}

/// A server whose seal is closed.
#[derive(Debug)]
pub struct SealedServer {
    address: SocketAddr,
    pin: Sha256Digest,
    profile: Profile,
    prepared: Prepared,
    inside: Arc<Inside>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct Inside {
    gathering: Mutex<Gathering>,
    /// One passphrase at a time, with a pause after a wrong one.
    passphrase: Semaphore,
    opened: watch::Sender<Option<Arc<Opened>>>,
    store: Store,
    file: String,
    producer: String,
    sequence: AtomicU64,
    refused_at: Mutex<Option<UnixTime>>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

impl SealedServer {
    pub(crate) async fn start(prepared: Prepared, closed: &Closed, store: Store) -> Result<Self, StartError> {
        let now = clock::now();
        let (config, root) = (prepared.config(), closed.root()?);
        let identity = read_face(&config.data_dir, now)?;
        let tls = face_config(&identity, &root)?;
        let listener =
            TcpListener::bind(config.listen).await.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address = listener.local_addr().map_err(internal)?;
        let inside = Arc::new(Inside {
            gathering: Mutex::new(Gathering::new(closed.seal.file.clone())),
            passphrase: Semaphore::new(1),
            opened: watch::Sender::new(None),
            store,
            file: closed.file().to_owned(),
            producer: format!("control/{}", fresh(ControlId::new, now)),
            sequence: AtomicU64::new(0),
            refused_at: Mutex::new(None),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, watch::channel(Arc::new(tls)).1, router(Arc::clone(&inside)), Door::Sealed, stop.clone()));
        tasks.spawn(lapse(Arc::clone(&inside), stop.clone()));
        let profile = closed.seal.file.profile();
        Ok(Self { address, pin: root.pin(), profile, prepared, inside, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
    /// The pin of the deployment's root.
    #[must_use]
    pub const fn pin(&self) -> &Sha256Digest {
        &self.pin
    }
    /// The deployment's profile.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Waits until the seal is open. May be given up and called again.
    pub async fn opened(&self) {
        let mut opened = self.inside.opened.subscribe();
        // The sender lives as long as this does.
        let _ = opened.wait_for(Option::is_some).await;
    }

    /// Goes on as an open server, at the same address, once [`SealedServer::opened`] has returned.
    pub async fn go_on(mut self) -> Result<Server, StartError> {
        self.end().await;
        let opened = self.inside.opened.send_replace(None).and_then(Arc::into_inner).ok_or_else(|| internal("the seal is not open"))?;
        // Where any port would have done, this one is known by now.
        self.prepared.listen_at(self.address);
        drop(self.inside);
        self.prepared.launch(opened).await
    }

    /// Stops. What was entered is wiped.
    pub async fn stop(mut self) {
        self.end().await;
        self.prepared.close().await;
    }

    async fn end(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn face_config(identity: &Identity, root: &RootCertificate) -> Result<rustls::ServerConfig, StartError> {
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    server_config(identity, root, Clients::Anybody, KeyExchange::default(), time).map_err(|error| StartError::Certificates(error.to_string()))
}

/// Wipes half-entered shares when their time is over, also when nobody asks.
async fn lapse(inside: Arc<Inside>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SEAL_TICK) => {}
        }
        if inside.gathering.lock().await.lapse(clock::now()) {
            tracing::warn!("half-entered shares lapsed and were wiped");
        }
    }
}

fn router(inside: Arc<Inside>) -> axum::Router {
    let (shown, opening, file) = (Arc::clone(&inside), Arc::clone(&inside), inside);
    let show = move || async move { answer_json(&shown.status().await, "") };
    let open = move |request: axum::extract::Request| async move {
        match opening.enter(request).await {
            Ok(status) => answer_json(&status, ""),
            Err(failure) => failure.into_response(),
        }
    };
    let deployment = move || async move { ([(CONTENT_TYPE, "application/json")], file.file.clone()).into_response() };
    axum::Router::new()
        .route("/v1/seal", get(show))
        .route("/v1/seal/open", post(open))
        .route("/v1/deployment", get(deployment))
        .fallback(|| async { Failure::new(ErrorCode::Sealed, "the server is sealed: it holds no key, and answers nothing but how to open it") })
        .method_not_allowed_fallback(|| async { Failure::new(ErrorCode::MethodNotAllowed, "this route does not take this method") })
}

impl Inside {
    async fn status(&self) -> SealStatus {
        let mut gathering = self.gathering.lock().await;
        gathering.lapse(clock::now());
        let progress = gathering.progress();
        let state = if self.opened.borrow().is_some() { "open" } else { "sealed" };
        SealStatus { entered: progress.entered, nonce: progress.nonce.map(hex::encode), until: progress.until, ..status(gathering.file(), state) }
    }

    async fn enter(&self, request: axum::extract::Request) -> Result<SealStatus, Failure> {
        let (parts, body) = request.into_parts();
        let mut asked: SealOpen = json::parse(&json::read(&parts.headers, body).await?)?;
        let (share, passphrase) = (asked.share.take().map(Zeroizing::new), asked.passphrase.take().map(Zeroizing::new));
        if self.opened.borrow().is_some() {
            return Err(Failure::new(ErrorCode::WrongState, "the seal is open"));
        }
        let nonce = match asked.nonce.as_deref() {
            None => None,
            Some(text) => {
                let mut nonce = [0; 16];
                hex::decode_to_slice(text, &mut nonce).map_err(|_| Failure::invalid("`nonce` has 32 hexadecimal digits"))?;
                Some(nonce)
            }
        };
        asked.nonce.zeroize();
        match (share, passphrase) {
            (Some(share), None) => self.share(&share, nonce).await?,
            (None, Some(passphrase)) => self.passphrase(passphrase).await?,
            (Some(_), Some(_)) | (None, None) => return Err(Failure::invalid("give `share` or `passphrase`, one of them")),
        }
        Ok(self.status().await)
    }

    async fn share(&self, text: &str, nonce: Option<[u8; 16]>) -> Result<(), Failure> {
        let now = clock::now();
        let gathered = self.gathering.lock().await.add(text, nonce, now, &mut SystemRandom);
        match gathered {
            Ok(Gathered::More(progress)) => {
                tracing::info!(entered = progress.entered.len(), threshold = progress.threshold, "a share was entered");
                Ok(())
            }
            Ok(Gathered::Open(opened)) => self.open(opened, now).await,
            Err(error) => {
                self.refused(now).await;
                Err(Failure::new(
                    match &error {
                        GatherError::Share(_) => ErrorCode::InvalidRequest,
                        GatherError::Refused(_) | GatherError::Seal(_) => ErrorCode::VerificationFailed,
                        GatherError::Duplicate(_) | GatherError::Nonce | GatherError::Lapsed => ErrorCode::WrongState,
                    },
                    error.to_string(),
                ))
            }
        }
    }

    async fn passphrase(&self, passphrase: Zeroizing<String>) -> Result<(), Failure> {
        let now = clock::now();
        let file = self.gathering.lock().await.file().clone();
        if file.kind() != SealKind::Passphrase {
            return Err(Failure::new(ErrorCode::WrongState, SealError::Kind(file.kind()).to_string()));
        }
        let Ok(_turn) = self.passphrase.try_acquire() else {
            let mut failure = Failure::new(ErrorCode::TryLater, "another passphrase is being tried");
            failure.retry_after_s = Some(PASSPHRASE_PAUSE.as_secs().saturating_add(1));
            return Err(failure);
        };
        match open_with_passphrase(file, passphrase).await {
            Ok(opened) => self.open(opened, now).await,
            Err(StartError::Seal(error @ (SealError::Wrong | SealError::Passphrase))) => {
                self.refused(now).await;
                tokio::time::sleep(PASSPHRASE_PAUSE).await;
                Err(Failure::new(ErrorCode::VerificationFailed, error.to_string()))
            }
            Err(other) => Err(Failure::internal(other)),
        }
    }

    /// The opening is an entry before it is told.
    async fn open(&self, opened: Opened, now: UnixTime) -> Result<(), Failure> {
        let entry = self.entry(now, Event::SealOpened { epoch: opened.newest() }, Outcome::Success)?;
        self.store.commit(Transaction::new().entry(entry), now).await.map_err(crate::state::commit_failure)?;
        self.opened.send_replace(Some(Arc::new(opened)));
        Ok(())
    }

    /// Refused tries become an entry a minute at most.
    async fn refused(&self, now: UnixTime) {
        let mut last = self.refused_at.lock().await;
        if last.is_some_and(|last| now.since(last).is_some_and(|age| age < SEAL_REFUSED_ENTRY_MS)) {
            return;
        }
        *last = Some(now);
        let epoch = self.gathering.lock().await.file().epochs().map(|(epoch, _)| epoch).max().unwrap_or(0);
        let Ok(entry) = self.entry(now, Event::SealRefused { epoch }, Outcome::Failed) else { return };
        if let Err(error) = self.store.commit(Transaction::new().entry(entry), now).await {
            tracing::warn!(%error, "a refused try to open the seal was not recorded");
        }
    }

    fn entry(&self, now: UnixTime, event: Event, outcome: Outcome) -> Result<audit::EncodedEntry, Failure> {
        let mut random = SystemRandom;
        audit::Entry {
            id: fresh(EntryId::new, now),
            time: now,
            tenant: SYSTEM_OWNER,
            producer: audit::entry::Producer { name: self.producer.clone(), sequence: self.sequence.fetch_add(1, Ordering::Relaxed) },
            actor: audit::Actor::System,
            source: Source::Internal,
            outcome,
            action: None,
            event,
            personal: Vec::new(),
        }
        .encode(&mut |bytes| random.fill(bytes))
        .map_err(Failure::internal)
    }
}
