//! The deployment's public file: what a stranger must have to check receipts, signed by the deployment's root.

use audit::canonical::{self, CanonicalError};
use audit::key::{KeyKind, VerifierKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vocabulary::{DeploymentId, Profile, Sha256Digest, UnixTime};

use crate::envelope::{Envelope, EnvelopeError, PublicKey, base64, base64_32, sha256};
use crate::limits::{CERTIFICATE_MAX, DEPLOYMENT_MAX, KEYS_MAX};
use crate::x509::{self, ChainError};

/// The format of the file.
pub const DEPLOYMENT_FORMAT: &str = "swarm/deployment/v1";
/// The payload type of its envelope.
pub const DEPLOYMENT_TYPE: &str = "application/vnd.swarm.deployment+json";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The deployment.
    pub deployment: DeploymentId,
    /// [`DEPLOYMENT_FORMAT`].
    pub format: String,
    /// When the file was made.
    pub issued: UnixTime,
    /// Verifier keys of the log, newest first; each names the log's origin.
    pub log_keys: Vec<String>,
    /// The profile.
    pub profile: Profile,
    /// How many witnesses must have signed a checkpoint; 0 means none, which only `development` permits.
    pub quorum: u32,
    /// Receipt keys, newest first: Ed25519, base64 of 32 bytes.
    pub receipt_keys: Vec<String>,
    /// The root certificate, DER, base64.
    pub root_certificate: String,
    /// SHA-256 of the root certificate's DER: the pin that the first run prints.
    pub root_pin: Sha256Digest,
    /// Verifier keys of the witnesses.
    pub witnesses: Vec<String>,
}

/// Why a deployment's file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentError {
    /// Not canonical JSON of the expected shape.
    #[error("the deployment's file is not in its canonical form")]
    Canonical(#[from] CanonicalError),
    /// Its envelope is refused.
    #[error("the deployment's file is not signed by its root")]
    Envelope(#[from] EnvelopeError),
    /// Its root certificate is refused.
    #[error("the root certificate of the deployment's file is refused")]
    Root(#[from] ChainError),
    /// A field breaks its rule.
    #[error("field `{0}` of the deployment's file breaks its rule")]
    Field(&'static str),
    /// The root is not the pinned one.
    #[error("the root certificate is not the one that was pinned")]
    Pin,
}

/// A file that was checked: its root's signature holds, its keys are well formed.
#[derive(Debug, Clone)]
pub struct CheckedDeployment {
    /// What it says.
    pub facts: Deployment,
    /// The root certificate, DER.
    pub root: Vec<u8>,
    /// The log's keys.
    pub log_keys: Vec<VerifierKey>,
    /// The witnesses' keys.
    pub witnesses: Vec<VerifierKey>,
    /// The receipt keys.
    pub receipt_keys: Vec<[u8; 32]>,
}

impl Deployment {
    /// The facts around a root certificate; the pin is computed.
    #[must_use]
    pub fn new(deployment: DeploymentId, profile: Profile, root_der: &[u8], issued: UnixTime) -> Self {
        Self {
            deployment,
            format: DEPLOYMENT_FORMAT.to_owned(),
            issued,
            log_keys: Vec::new(),
            profile,
            quorum: 0,
            receipt_keys: Vec::new(),
            root_certificate: STANDARD.encode(root_der),
            root_pin: sha256(root_der),
            witnesses: Vec::new(),
        }
    }

    /// Adds a log key.
    #[must_use]
    pub fn with_log_key(mut self, key: &VerifierKey) -> Self {
        self.log_keys.push(key.to_string());
        self
    }

    /// Adds a receipt key.
    #[must_use]
    pub fn with_receipt_key(mut self, key: &[u8; 32]) -> Self {
        self.receipt_keys.push(STANDARD.encode(key));
        self
    }

    /// Signs it: `sign` makes an ECDSA P-256 signature (SHA-256, DER) with the root's key. Returns the file's bytes.
    pub fn sign(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Vec<u8>, DeploymentError> {
        let root = base64(&self.root_certificate, "root_certificate", CERTIFICATE_MAX)?;
        let key = x509::p256_key(&root)?;
        let id = PublicKey::P256 { spki: &key.spki, point: &key.point }.id();
        let envelope = Envelope::sign_with(self, DEPLOYMENT_TYPE, id, sign)?;
        Ok(canonical::to_vec(&envelope)?)
    }

    /// Reads and checks a file; with `pin`, its root must be the pinned one.
    pub fn open(bytes: &[u8], pin: Option<&Sha256Digest>) -> Result<CheckedDeployment, DeploymentError> {
        let envelope: Envelope = canonical::from_slice(bytes, DEPLOYMENT_MAX)?;
        let claimed: Self = envelope.peek()?;
        let root = base64(&claimed.root_certificate, "root_certificate", CERTIFICATE_MAX)?;
        let key = x509::p256_key(&root)?;
        let public = PublicKey::P256 { spki: &key.spki, point: &key.point };
        let facts: Self = envelope.verify(DEPLOYMENT_TYPE, &public)?;
        if facts.format != DEPLOYMENT_FORMAT {
            return Err(DeploymentError::Field("format"));
        }
        if facts.root_pin != sha256(&root) {
            return Err(DeploymentError::Field("root_pin"));
        }
        if pin.is_some_and(|pin| *pin != facts.root_pin) {
            return Err(DeploymentError::Pin);
        }
        x509::verify_self_signed(&root)?;
        let log_keys = keys(&facts.log_keys, KeyKind::Ed25519, "log_keys")?;
        let witnesses = keys(&facts.witnesses, KeyKind::CosignatureV1, "witnesses")?;
        if log_keys.is_empty() {
            return Err(DeploymentError::Field("log_keys"));
        }
        if facts.receipt_keys.is_empty() || facts.receipt_keys.len() > KEYS_MAX {
            return Err(DeploymentError::Field("receipt_keys"));
        }
        let receipt_keys =
            facts.receipt_keys.iter().map(|key| base64_32(key, "receipt_keys")).collect::<Result<_, _>>()?;
        let quorum_fits = match facts.profile {
            Profile::Development => true,
            Profile::Production => facts.quorum > 0,
        };
        if !quorum_fits || usize::try_from(facts.quorum).map_or(true, |quorum| quorum > witnesses.len()) {
            return Err(DeploymentError::Field("quorum"));
        }
        Ok(CheckedDeployment { facts, root, log_keys, witnesses, receipt_keys })
    }
}

fn keys(texts: &[String], kind: KeyKind, field: &'static str) -> Result<Vec<VerifierKey>, DeploymentError> {
    if texts.len() > KEYS_MAX {
        return Err(DeploymentError::Field(field));
    }
    let keys: Vec<VerifierKey> =
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| DeploymentError::Field(field))?;
    if keys.iter().all(|key| key.kind() == kind) { Ok(keys) } else { Err(DeploymentError::Field(field)) }
}
