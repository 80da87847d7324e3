//! The deployment's public file: what a stranger must have to check receipts, signed by the deployment's root.
//!
//! The file is one line of canonical JSON, `{"body":…,"signature":…}`, and a line feed; the signature is ECDSA P-256 with
//! SHA-256 (DER, base64) by the root's key over the canonical JSON of the body. The control plane serves it at
//! `GET /v1/deployment`.

use audit::canonical::{self, CanonicalError};
use audit::key::{KeyKind, VerifierKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vocabulary::{DeploymentId, Profile, Sha256Digest, UnixTime};

use crate::envelope::{EnvelopeError, base64, sha256};
use crate::limits::{CERTIFICATE_MAX, DEPLOYMENT_MAX, KEYS_MAX};
use crate::x509::{self, ChainError};

/// What the file says it is.
pub const DEPLOYMENT_KIND: &str = "swarm-deployment";
/// The format of the file.
pub const DEPLOYMENT_FORMAT: u32 = 1;

/// A receipt key's certificate with its issuing authority, DER, base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptCertificate {
    /// The certificate of its issuer.
    pub issuer: String,
    /// The certificate of the key.
    pub leaf: String,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// When the file was made.
    pub created: UnixTime,
    /// The deployment.
    pub deployment: DeploymentId,
    /// [`DEPLOYMENT_FORMAT`].
    pub format: u32,
    /// [`DEPLOYMENT_KIND`].
    pub kind: String,
    /// Verifier keys of the log; each names the log's origin.
    pub log_keys: Vec<String>,
    /// The profile.
    pub profile: Profile,
    /// How many witnesses must have signed a checkpoint; absent means none, which only `development` permits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub quorum: u32,
    /// The certificates of its receipt keys, old ones included.
    pub receipt_certificates: Vec<ReceiptCertificate>,
    /// The root certificate, DER, base64.
    pub root_certificate: String,
    /// SHA-256 of the root certificate's DER: the pin that the first run prints.
    pub root_pin: Sha256Digest,
    /// Verifier keys of the witnesses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The file: body and signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    body: Deployment,
    signature: String,
}

/// Why a deployment's file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentError {
    /// Not canonical JSON of the expected shape.
    #[error("the deployment's file is not in its canonical form")]
    Canonical(#[from] CanonicalError),
    /// A field is not strict base64.
    #[error("the deployment's file is malformed")]
    Base64(#[from] EnvelopeError),
    /// The root's signature does not verify.
    #[error("the deployment's file is not signed by its root")]
    BadSignature,
    /// Its root certificate, or the certificate of a receipt key, is refused.
    #[error("a certificate of the deployment's file is refused")]
    Certificate(#[from] ChainError),
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
    /// The receipt keys: each was certified under the root when its certificate began.
    pub receipt_keys: Vec<[u8; 32]>,
}

impl Deployment {
    /// The facts around a root certificate; the pin is computed.
    #[must_use]
    pub fn new(deployment: DeploymentId, profile: Profile, root_der: &[u8], created: UnixTime) -> Self {
        Self {
            created,
            deployment,
            format: DEPLOYMENT_FORMAT,
            kind: DEPLOYMENT_KIND.to_owned(),
            log_keys: Vec::new(),
            profile,
            quorum: 0,
            receipt_certificates: Vec::new(),
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

    /// Adds a receipt key by its certificate and that of its issuer, DER.
    #[must_use]
    pub fn with_receipt_certificate(mut self, leaf: &[u8], issuer: &[u8]) -> Self {
        self.receipt_certificates.push(ReceiptCertificate { issuer: STANDARD.encode(issuer), leaf: STANDARD.encode(leaf) });
        self
    }

    /// Signs it: `sign` makes an ECDSA P-256 signature (SHA-256, DER) with the root's key. Returns the file's bytes.
    pub fn sign(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Vec<u8>, DeploymentError> {
        let signature = STANDARD.encode(sign(&canonical::to_vec(self)?));
        let mut file = canonical::to_vec(&Signed { body: self.clone(), signature })?;
        file.push(b'\n');
        Ok(file)
    }

    /// Reads and checks a file; with `pin`, its root must be the pinned one.
    pub fn open(bytes: &[u8], pin: Option<&Sha256Digest>) -> Result<CheckedDeployment, DeploymentError> {
        let line = bytes.strip_suffix(b"\n").ok_or(CanonicalError::NotCanonical)?;
        let Signed { body: facts, signature } = canonical::from_slice(line, DEPLOYMENT_MAX)?;
        if facts.kind != DEPLOYMENT_KIND {
            return Err(DeploymentError::Field("kind"));
        }
        if facts.format != DEPLOYMENT_FORMAT {
            return Err(DeploymentError::Field("format"));
        }
        let root = base64(&facts.root_certificate, "root_certificate", CERTIFICATE_MAX)?;
        if facts.root_pin != sha256(&root) {
            return Err(DeploymentError::Field("root_pin"));
        }
        if pin.is_some_and(|pin| *pin != facts.root_pin) {
            return Err(DeploymentError::Pin);
        }
        x509::verify_self_signed(&root)?;
        let key = x509::p256_key(&root)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point)
            .verify(&canonical::to_vec(&facts)?, &base64(&signature, "signature", 80)?)
            .map_err(|_| DeploymentError::BadSignature)?;
        let log_keys = keys(&facts.log_keys, KeyKind::Ed25519, "log_keys")?;
        let witnesses = keys(&facts.witnesses, KeyKind::CosignatureV1, "witnesses")?;
        if log_keys.is_empty() {
            return Err(DeploymentError::Field("log_keys"));
        }
        if facts.receipt_certificates.is_empty() || facts.receipt_certificates.len() > KEYS_MAX {
            return Err(DeploymentError::Field("receipt_certificates"));
        }
        let receipt_keys = facts.receipt_certificates.iter().map(|one| receipt_key(one, &root)).collect::<Result<_, _>>()?;
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

/// The key of a receipt certificate that was under the root when it began: old ones stay in the file.
fn receipt_key(one: &ReceiptCertificate, root: &[u8]) -> Result<[u8; 32], DeploymentError> {
    let chain =
        vec![base64(&one.leaf, "leaf", CERTIFICATE_MAX)?, base64(&one.issuer, "issuer", CERTIFICATE_MAX)?];
    let begins = x509::begins(&chain)?;
    let certified = x509::verify_chain(&chain, root, begins)?;
    certified.ed25519.ok_or(DeploymentError::Field("receipt_certificates"))
}

fn keys(texts: &[String], kind: KeyKind, field: &'static str) -> Result<Vec<VerifierKey>, DeploymentError> {
    if texts.len() > KEYS_MAX {
        return Err(DeploymentError::Field(field));
    }
    let keys: Vec<VerifierKey> =
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| DeploymentError::Field(field))?;
    if keys.iter().all(|key| key.kind() == kind) { Ok(keys) } else { Err(DeploymentError::Field(field)) }
}
