//! The agent's own directory: who the node is, its keys, the deployment that it believes, and its last plan.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::certificate::chain_from_wire;
use identity::{
    Class, EcdsaKey, Pkcs8, PublicKey, StatementKey, Subject, VerifiedDeployment, VerifiedPeer, chain_to_wire, tls, verify_chain_at,
    verify_deployment_file,
};
use serde::{Deserialize, Serialize};
use vocabulary::plan::NodePlace;
use vocabulary::{DeploymentId, Name, NodeId, Sha256Digest, UnixTime};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::files;
use crate::limits::FILE_BYTES_MAX;

/// The format of all files here.
const FORMAT: u32 = 1;

/// Something in the agent's directory is not as it was written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no node here.
    #[error("`{0}` holds no node: join first (swarm node join)")]
    NotJoined(String),
    /// A file cannot be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file has a format that this version does not know.
    #[error("`{path}` has format {found}, this version reads {FORMAT}")]
    Format {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
    },
    /// A key is malformed.
    #[error("`{0}` does not hold a usable key: join again in another directory")]
    Key(&'static str),
    /// The certificate is not this node's.
    #[error("the stored certificate is not this node's: {0}")]
    Certificate(String),
    /// The deployment's file does not fit the pin.
    #[error("the stored deployment file is refused: {0}")]
    Deployment(String),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::File { path, source }
}

/// Who the node is; nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    pub(crate) format: u32,
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    pub(crate) place: NodePlace,
    pub(crate) deployment: DeploymentId,
    /// The pin of the deployment's root.
    pub(crate) ca_pin: Sha256Digest,
    /// Where the API is.
    pub(crate) api: String,
    /// Where the node channel is.
    pub(crate) channel: String,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct TlsFile {
    format: u32,
    /// PKCS#8, base64.
    key: String,
    #[zeroize(skip)]
    chain: Vec<String>,
    /// When the chain was checked as it came: it is judged at that time again, so that an agent whose certificate has
    /// ended still looks after its jobs.
    #[zeroize(skip)]
    checked: UnixTime,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct RecordKeyFile {
    format: u32,
    /// The 32 bytes of RFC 8032, base64.
    seed: String,
}

/// The names of the files.
fn node_path(dir: &Path) -> PathBuf {
    dir.join("node.json")
}
fn tls_path(dir: &Path) -> PathBuf {
    dir.join("tls.json")
}
fn record_key_path(dir: &Path) -> PathBuf {
    dir.join("record-key.json")
}
fn deployment_path(dir: &Path) -> PathBuf {
    dir.join("deployment.json")
}
fn plan_path(dir: &Path) -> PathBuf {
    dir.join("plan.json")
}

/// Whether a node has joined here.
pub(crate) fn is_joined(dir: &Path) -> bool {
    node_path(dir).exists()
}

fn write_secret<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes = Zeroizing::new(serde_json::to_vec(value).map_err(io::Error::other).map_err(file(path))?);
    files::write_durably(path, &bytes).map_err(file(path))
}

pub(crate) fn write_node(dir: &Path, node: &NodeFile) -> Result<(), StoreError> {
    files::write_json(&node_path(dir), node).map_err(file(&node_path(dir)))
}

pub(crate) fn write_deployment(dir: &Path, text: &str) -> Result<(), StoreError> {
    files::write_durably(&deployment_path(dir), text.as_bytes()).map_err(file(&deployment_path(dir)))
}

pub(crate) fn write_record_key(dir: &Path, key: &StatementKey) -> Result<(), StoreError> {
    let seed = STANDARD.encode(key.reveal());
    write_secret(&record_key_path(dir), &RecordKeyFile { format: FORMAT, seed })
}

/// Key and chain are one file, so that a crash never leaves one without the other.
pub(crate) fn write_tls(dir: &Path, tls: &TlsIdentity) -> Result<(), StoreError> {
    let key = STANDARD.encode(tls.identity.key.reveal());
    write_secret(&tls_path(dir), &TlsFile { format: FORMAT, key, chain: chain_to_wire(&tls.identity.chain), checked: tls.checked })
}

pub(crate) fn write_plan(dir: &Path, signed: &[u8]) -> Result<(), StoreError> {
    files::write_durably(&plan_path(dir), signed).map_err(file(&plan_path(dir)))
}

pub(crate) fn read_plan(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    files::read_if_there(&plan_path(dir), FILE_BYTES_MAX).map_err(file(&plan_path(dir)))
}

/// The node's end of TLS, checked: certificate of this node, for this key, under the deployment's root.
#[derive(Debug, Clone)]
pub(crate) struct TlsIdentity {
    pub(crate) identity: tls::Identity,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    checked: UnixTime,
}

impl TlsIdentity {
    /// Checks a chain for a key at a time.
    pub(crate) fn check(deployment: &VerifiedDeployment, node: NodeId, key: &EcdsaKey, chain: &[String], now: UnixTime) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::Certificate(what.to_owned());
        let chain = chain_from_wire(chain).map_err(|refusal| wrong(&refusal.to_string()))?;
        let peer: VerifiedPeer = verify_chain_at(deployment.root(), &chain, Class::Node, now).map_err(|refusal| wrong(&refusal.to_string()))?;
        if peer.id.subject != Subject::Node(node) {
            return Err(wrong("it names another node"));
        }
        let public = key.public().map_err(|_| StoreError::Key("tls.json"))?;
        if peer.key != PublicKey::Ecdsa(public) {
            return Err(wrong("it is for another key"));
        }
        let identity = tls::Identity { chain, key: key.private().clone() };
        Ok(Self { identity, not_before: peer.not_before, not_after: peer.not_after, checked: now })
    }

    /// When a new one is asked for: at two thirds of its life.
    pub(crate) fn renew_at(&self) -> UnixTime {
        identity::renew_at(self.not_before, self.not_after)
    }
}

/// Everything that a joined node knows of itself.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) file: NodeFile,
    pub(crate) deployment: VerifiedDeployment,
    pub(crate) record_key: StatementKey,
    tls: RwLock<TlsIdentity>,
}

impl Node {
    /// The certificate and key in use.
    pub(crate) fn tls(&self) -> TlsIdentity {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Uses renewed ones from here on.
    pub(crate) fn replace_tls(&self, tls: TlsIdentity) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }
}

/// Reads a joined node's directory and checks that its parts belong together.
pub(crate) fn load(dir: &Path) -> Result<Node, StoreError> {
    if !is_joined(dir) {
        return Err(StoreError::NotJoined(dir.display().to_string()));
    }
    let node: NodeFile = read(&node_path(dir))?;
    let path = deployment_path(dir);
    let bytes = files::read(&path, FILE_BYTES_MAX).map_err(file(&path))?;
    let deployment = verify_deployment_file(&bytes, &node.ca_pin).map_err(|error| StoreError::Deployment(error.to_string()))?;
    let record: RecordKeyFile = read(&record_key_path(dir))?;
    let seed = Zeroizing::new(STANDARD.decode(record.seed.as_bytes()).map_err(|_| StoreError::Key("record-key.json"))?);
    let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| StoreError::Key("record-key.json"))?;
    let record_key = StatementKey::open(seed).map_err(|_| StoreError::Key("record-key.json"))?;
    let tls: TlsFile = read(&tls_path(dir))?;
    let pkcs8 = Zeroizing::new(STANDARD.decode(tls.key.as_bytes()).map_err(|_| StoreError::Key("tls.json"))?);
    let key = EcdsaKey::open(&Pkcs8::from_bytes(&pkcs8)).map_err(|_| StoreError::Key("tls.json"))?;
    let tls = TlsIdentity::check(&deployment, node.node, &key, &tls.chain, tls.checked)?;
    Ok(Node { file: node, deployment, record_key, tls: RwLock::new(tls) })
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let bytes = Zeroizing::new(files::read(path, FILE_BYTES_MAX).map_err(file(path))?);
    // The format is looked at first: a newer file has fields that this version does not know.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(&bytes).map_err(io::Error::other).map_err(file(path))?;
    if head.format != FORMAT {
        return Err(StoreError::Format { path: path.display().to_string(), found: head.format });
    }
    serde_json::from_slice(&bytes).map_err(io::Error::other).map_err(file(path))
}

/// The format that [`NodeFile`] is written with.
pub(crate) const NODE_FORMAT: u32 = FORMAT;

#[cfg(test)]
pub(crate) mod tests {
    use identity::certificate::make_request;
    use identity::{CertificateRequest, NodeLife, ReceiptCertificate, RootAuthority};
    use keys::SystemRandom;
    use vocabulary::{KeyId, Profile};

    use super::*;
    use crate::clock;

    const NODE: NodeId = NodeId::from_bytes([2; 16]);
    const HOURS: u64 = 3_600_000;

    /// A joined node's directory, all of it made three hours ago.
    pub(crate) fn joined() -> (tempfile::TempDir, EcdsaKey, VerifiedDeployment, Vec<String>) {
        let random = &mut SystemRandom;
        let then = UnixTime::from_millis(clock::wall().millis() - 3 * HOURS);
        let root = RootAuthority::create(DeploymentId::from_bytes([1; 16]), then, random).unwrap();
        let receipt = StatementKey::generate(random).unwrap();
        let receipts = root.issue_authority(Class::Receipt, then, random).unwrap();
        let certificate = receipts.issue_receipt(KeyId::from_bytes([3; 16]), &receipt.public().unwrap(), then, random).unwrap();
        let certificates = vec![ReceiptCertificate::from_chain(&certificate.chain).unwrap()];
        let file = root.sign_deployment_file(Profile::Development, Vec::new(), certificates, then).unwrap();
        let pin = root.certificate().pin();
        let deployment = verify_deployment_file(file.as_bytes(), &pin).unwrap();
        let key = EcdsaKey::generate().unwrap();
        let request = CertificateRequest::check(&make_request(&key).unwrap()).unwrap();
        let nodes = root.issue_authority(Class::Node, then, random).unwrap();
        let chain = chain_to_wire(&nodes.issue_node(NODE, &request, NodeLife::default(), then, random).unwrap().chain);
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let node = NodeFile {
            format: NODE_FORMAT,
            node: NODE,
            name: "first".parse().unwrap(),
            place: NodePlace { region: "eu-central".parse().unwrap(), jurisdiction: "EU".parse().unwrap(), labels: std::collections::BTreeMap::new() },
            deployment: deployment.file().deployment,
            ca_pin: pin,
            api: "https://localhost:1".to_owned(),
            channel: "https://localhost:2".to_owned(),
        };
        write_record_key(dir, &StatementKey::generate(random).unwrap()).unwrap();
        write_deployment(dir, &file).unwrap();
        write_tls(dir, &TlsIdentity::check(&deployment, NODE, &key, &chain, then).unwrap()).unwrap();
        write_node(dir, &node).unwrap();
        (place, key, deployment, chain)
    }

    #[test]
    fn a_node_whose_certificate_has_ended_still_loads() {
        let (place, ..) = joined();
        let node = load(place.path()).unwrap();
        assert!(node.tls().not_after < clock::wall() && node.tls().renew_at() < node.tls().not_after);
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_name() {
        let (place, key, deployment, chain) = joined();
        let then = UnixTime::from_millis(clock::wall().millis() - 3 * HOURS);
        let check = |node, key: &EcdsaKey, now| TlsIdentity::check(&deployment, node, key, &chain, now).unwrap_err().to_string();
        assert!(check(NodeId::from_bytes([9; 16]), &key, then).contains("another node"));
        assert!(check(NODE, &EcdsaKey::generate().unwrap(), then).contains("another key"));
        assert!(check(NODE, &key, clock::wall()).contains("expired"));
        // Another pin: the deployment's file is not the one that was joined.
        let path = node_path(place.path());
        let good = std::fs::read_to_string(&path).unwrap();
        let pin = deployment.root().pin().to_string();
        std::fs::write(&path, good.replace(&pin, &Sha256Digest::from_bytes([9; 32]).to_string())).unwrap();
        assert!(matches!(load(place.path()), Err(StoreError::Deployment(_))));
        std::fs::write(&path, good.replace("\"format\":1", "\"format\":2")).unwrap();
        assert!(matches!(load(place.path()), Err(StoreError::Format { found: 2, .. })));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(load(place.path()), Err(StoreError::File { .. })));
        std::fs::write(&path, good).unwrap();
        std::fs::write(record_key_path(place.path()), "{\"format\":1,\"seed\":\"AAAA\"}").unwrap();
        assert!(matches!(load(place.path()), Err(StoreError::Key(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(load(place.path()), Err(StoreError::NotJoined(_))));
    }
}
