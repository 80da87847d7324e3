//! Joining: keys are made here, shown with a single-use token to the pinned deployment, and kept here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::certificate::make_request;
use identity::tls::{KeyExchange, Trust, cli_client_config};
use identity::{EcdsaKey, StatementKey, prove_record_key, verify_deployment_file};
use vocabulary::api::{NodeEnrol, NodeEnrolled};
use vocabulary::fault::{self, Point};
use vocabulary::plan::NodePlace;
use vocabulary::{ErrorCode, Name, NodeId, Sha256Digest};
use zeroize::Zeroizing;

use crate::channel::{self, ChannelError, WallClock};
use crate::limits::CALL_TIMEOUT;
use crate::store::{self, NODE_FORMAT, NodeFile, StoreError, TlsIdentity};
use crate::{clock, facts, files};

/// What a person gives to join.
pub struct JoinOptions {
    /// The API's address: `https://HOST:PORT`.
    pub url: String,
    /// The pin of the deployment's root certificate.
    pub ca_pin: Sha256Digest,
    /// The single-use join token.
    pub token: Zeroizing<String>,
    /// Where the node's identity is kept; must not exist, or be empty.
    pub dir: PathBuf,
}

impl std::fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinOptions").field("url", &self.url).field("ca_pin", &self.ca_pin).field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A node that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Where it stands and what it is for.
    pub place: NodePlace,
    /// The entry of its enrolment.
    pub audit_index: u64,
}

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The address is none.
    #[error("`{0}` is not an address of the form https://HOST:PORT")]
    Url(String),
    /// A node is there already.
    #[error("`{0}` holds a node already: choose another directory, or remove it")]
    Joined(String),
    /// Something else is there.
    #[error("`{0}` is not empty: a node's directory is made new")]
    NotEmpty(String),
    /// A key could not be made.
    #[error("a key could not be made: {0}")]
    Key(String),
    /// The control plane does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The control plane refuses.
    #[error("the control plane refuses: {detail}")]
    Refused {
        /// Its code, where it said one.
        code: Option<ErrorCode>,
        /// Its sentence.
        detail: String,
    },
    /// What it answered does not fit what was asked.
    #[error("the enrolment's answer is refused: {0}")]
    Answer(String),
    /// The directory cannot be written.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A part of the directory cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> JoinError {
    let path = path.display().to_string();
    move |source| JoinError::File { path, source }
}

/// Makes the node's keys, enrols it, and writes its directory: whole, or not at all.
///
/// # Errors
/// When the directory is taken, the control plane refuses, or its answer does not fit the pin and the keys.
pub async fn join(options: JoinOptions) -> Result<Joined, JoinError> {
    let api = reqwest::Url::parse(&options.url).ok().filter(|url| url.scheme() == "https" && url.has_host()).ok_or_else(|| JoinError::Url(channel::printable(&options.url)))?;
    free(&options.dir)?;
    let staged = stage(&options.dir)?;
    let joined = enrol(&options, &api, &staged).await;
    let placed = joined.and_then(|joined| place(&staged, &options.dir).map(|()| joined));
    if placed.is_err() {
        let _ = std::fs::remove_dir_all(&staged);
    }
    placed
}

fn free(dir: &Path) -> Result<(), JoinError> {
    if store::is_joined(dir) {
        return Err(JoinError::Joined(dir.display().to_string()));
    }
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(JoinError::NotEmpty(dir.display().to_string()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file(dir)(error)),
    }
}

/// A directory beside the final one, so that it can be renamed there.
/// The folder in which everything is made before it gets its name. One of a join that was killed has keys in it, so it goes.
fn stage(dir: &Path) -> Result<PathBuf, JoinError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(".joining-");
    let prefix = name.to_string_lossy().into_owned();
    name.push(std::process::id().to_string());
    let staged = dir.with_file_name(name);
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(&prefix).and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        // That of another join which is under way stays.
        if pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists() {
            std::fs::remove_dir_all(entry.path()).map_err(file(&entry.path()))?;
        }
    }
    files::directory(&staged).map_err(file(&staged))?;
    Ok(staged)
}

fn place(staged: &Path, dir: &Path) -> Result<(), JoinError> {
    // An empty directory gives way to a rename, anything else does not.
    std::fs::rename(staged, dir).map_err(file(dir))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(file(parent))
}

async fn enrol(options: &JoinOptions, api: &reqwest::Url, staged: &Path) -> Result<Joined, JoinError> {
    let key = EcdsaKey::generate().map_err(|error| JoinError::Key(error.to_string()))?;
    let csr = make_request(&key).map_err(|error| JoinError::Key(error.to_string()))?;
    let record_key = StatementKey::generate(&mut keys::SystemRandom).map_err(|error| JoinError::Key(error.to_string()))?;
    // The disk is tried before the token is spent.
    store::write_record_key(staged, &record_key)?;
    let dir = staged.to_owned();
    let facts = tokio::task::spawn_blocking(move || facts::gather(&dir)).await.map_err(|error| JoinError::Key(error.to_string()))?;
    let body = NodeEnrol {
        token: options.token.to_string(),
        csr: STANDARD.encode(&csr),
        record_key: record_key.public().map_err(|error| JoinError::Key(error.to_string()))?.to_base64(),
        record_proof: STANDARD.encode(prove_record_key(&record_key, &csr)),
        facts,
    };
    fault::reached(Point::JoinBegun);
    let tls = cli_client_config(Trust::Pin(options.ca_pin), KeyExchange::default(), Arc::new(WallClock)).map_err(|error| JoinError::Unreachable(channel::chain(&error)))?;
    let client = channel::http(tls).map_err(JoinError::Unreachable)?;
    let url = api.join("/v1/nodes/enrol").map_err(|_| JoinError::Url(channel::printable(&options.url)))?;
    let call = async { channel::answer(channel::send(client.post(url).timeout(CALL_TIMEOUT).json(&body)).await?).await };
    let enrolled: NodeEnrolled = call.await.map_err(|error: ChannelError| match error {
        ChannelError::Refused { code, detail } => JoinError::Refused { code, detail },
        ChannelError::Unreachable(_) | ChannelError::NotReady(_) | ChannelError::Revoked | ChannelError::Nonsense(_) => JoinError::Unreachable(error.to_string()),
    })?;
    fault::reached(Point::JoinEnrolled);
    let bad = |what: String| JoinError::Answer(what);
    let deployment = verify_deployment_file(enrolled.deployment_file.as_bytes(), &options.ca_pin).map_err(|error| bad(error.to_string()))?;
    let tls = TlsIdentity::check(&deployment, enrolled.node, &key, &enrolled.chain, clock::wall()).map_err(|error| bad(error.to_string()))?;
    let mut channel = api.clone();
    channel.set_port(Some(enrolled.node_port)).map_err(|()| bad("a port that does not fit the address".to_owned()))?;
    let origin = |url: &reqwest::Url| url.origin().ascii_serialization();
    let node = NodeFile {
        format: NODE_FORMAT,
        node: enrolled.node,
        name: enrolled.name.clone(),
        place: enrolled.place.clone(),
        deployment: deployment.file().deployment,
        ca_pin: options.ca_pin,
        api: origin(api),
        channel: origin(&channel),
    };
    store::write_deployment(staged, &enrolled.deployment_file)?;
    store::write_tls(staged, &tls)?;
    store::write_node(staged, &node)?;
    fault::reached(Point::JoinWritten);
    Ok(Joined { node: enrolled.node, name: enrolled.name, place: enrolled.place, audit_index: enrolled.audit_index })
}
