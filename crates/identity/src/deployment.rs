//! The deployment's public file: what a stranger needs to check receipts offline, signed by the deployment's root.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use vocabulary::{DeploymentId, KeyId, Profile, Sha256Digest, UnixTime};

use crate::canonical::{CanonicalError, canonical_json};
use crate::certificate::{
    Class, PeerRefusal, PublicKey, RootAuthority, RootCertificate, RootError, Serial, Subject, VerifiedPeer,
    verify_chain_at,
};
use crate::key::{KeyError, StatementPublic};
use crate::limits::{CERTIFICATE_MAX, DEPLOYMENT_FILE_MAX, DEPLOYMENT_KEYS_MAX, LOG_KEY_MAX};

/// What the file says it is.
pub const DEPLOYMENT_FILE_KIND: &str = "swarm-deployment";
/// The format that this version writes and reads.
pub const DEPLOYMENT_FILE_FORMAT: u32 = 1;

/// A deployment's public file is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentFileError {
    /// Longer than [`DEPLOYMENT_FILE_MAX`].
    #[error("the deployment file has more than {DEPLOYMENT_FILE_MAX} bytes")]
    TooLarge,
    /// Not the JSON of a deployment file, or with fields that this version does not know.
    #[error("not a deployment file: {0}")]
    Malformed(String),
    /// Other bytes than the canonical ones of its content.
    #[error("the deployment file is not written in its canonical form")]
    NotCanonical,
    /// Another kind of file.
    #[error("`kind` is not `{DEPLOYMENT_FILE_KIND}`")]
    Kind,
    /// A format that this version does not know.
    #[error("`format` is {0}, this version reads {DEPLOYMENT_FILE_FORMAT}")]
    Format(u32),
    /// A field is not strict, padded base64 of an acceptable length.
    #[error("`{0}` is not strict base64")]
    Base64(&'static str),
    /// Too many keys, or a log key that is no single printable line.
    #[error("`{0}` has too many or malformed entries")]
    Keys(&'static str),
    /// The root certificate is not acceptable.
    #[error("`root_certificate` is not acceptable")]
    Root(#[from] RootError),
    /// The pin or the deployment in the file are not those of its root certificate.
    #[error("`{0}` does not belong to the root certificate")]
    Mismatch(&'static str),
    /// The root did not sign this.
    #[error("the root's signature does not match the deployment file")]
    BadSignature,
    /// A receipt certificate is not acceptable.
    #[error("`receipt_certificates` has one that is not acceptable")]
    Receipt(#[source] PeerRefusal),
    /// Writing failed.
    #[error("the deployment file cannot be written")]
    Write(#[from] CanonicalError),
    /// Signing failed.
    #[error("the deployment file cannot be signed")]
    Sign(#[from] KeyError),
}

/// A receipt key's certificate with its issuing authority, DER, base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptCertificate {
    /// The certificate of the key.
    pub leaf: String,
    /// The certificate of its issuer.
    pub issuer: String,
}

/// What the root signs: the canonical JSON (RFC 8785) of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentFile {
    /// Always [`DEPLOYMENT_FILE_KIND`], so that no other signed text is ever taken for this one.
    pub kind: String,
    /// The format: 1.
    pub format: u32,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its profile, which never changes.
    pub profile: Profile,
    /// The root certificate, DER, base64.
    pub root_certificate: String,
    /// SHA-256 of the root certificate's DER.
    pub root_pin: Sha256Digest,
    /// The public keys of its logs, each as a note's verifier key.
    pub log_keys: Vec<String>,
    /// The certificates of its receipt keys, old ones included.
    pub receipt_certificates: Vec<ReceiptCertificate>,
    /// When this file was made.
    pub created: UnixTime,
}

/// The file: body and signature, one line of canonical JSON and a line feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    body: DeploymentFile,
    /// ECDSA P-256 with SHA-256 over the canonical JSON of the body, DER, base64.
    signature: String,
}

/// A deployment's public file that was checked; only the functions below make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDeployment {
    file: DeploymentFile,
    root: RootCertificate,
    receipt_keys: Vec<ReceiptKey>,
}

/// A receipt key that the deployment's root certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptKey {
    /// The key's id.
    pub id: KeyId,
    /// The key.
    pub key: StatementPublic,
    /// Its certificate's serial number.
    pub serial: Serial,
    /// Its certificate begins.
    pub not_before: UnixTime,
    /// Its certificate ends.
    pub not_after: UnixTime,
}

impl VerifiedDeployment {
    /// What the file says.
    #[must_use]
    pub const fn file(&self) -> &DeploymentFile {
        &self.file
    }
    /// The deployment's root.
    #[must_use]
    pub const fn root(&self) -> &RootCertificate {
        &self.root
    }
    /// All receipt keys, old ones included.
    #[must_use]
    pub fn receipt_keys(&self) -> &[ReceiptKey] {
        &self.receipt_keys
    }
    /// Whether `key` was a receipt key of this deployment at that time.
    #[must_use]
    pub fn receipt_key_at(&self, key: &StatementPublic, time: UnixTime) -> Option<&ReceiptKey> {
        self.receipt_keys.iter().find(|k| k.key == *key && k.not_before <= time && time <= k.not_after)
    }
}

impl RootAuthority {
    /// Makes and signs the deployment's public file.
    ///
    /// The result is checked as a reader would check it, so that no file leaves that nobody could verify.
    pub fn sign_deployment_file(
        &self,
        profile: Profile,
        log_keys: Vec<String>,
        receipt_certificates: Vec<ReceiptCertificate>,
        created: UnixTime,
    ) -> Result<String, DeploymentFileError> {
        let root = self.certificate();
        let body = DeploymentFile {
            kind: DEPLOYMENT_FILE_KIND.to_owned(),
            format: DEPLOYMENT_FILE_FORMAT,
            deployment: root.deployment(),
            profile,
            root_certificate: STANDARD.encode(root.der()),
            root_pin: root.pin(),
            log_keys,
            receipt_certificates,
            created,
        };
        let signature = STANDARD.encode(self.sign(&canonical(&body)?)?);
        let mut text = canonical(&Signed { body, signature })?;
        text.push(b'\n');
        verify_deployment_file(&text, &root.pin())?;
        String::from_utf8(text).map_err(|e| DeploymentFileError::Malformed(e.to_string()))
    }
}

impl ReceiptCertificate {
    /// From a fresh certificate's chain: leaf, then issuer.
    #[must_use]
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Option<Self> {
        match chain {
            [leaf, issuer] => Some(Self { leaf: STANDARD.encode(leaf), issuer: STANDARD.encode(issuer) }),
            _ => None,
        }
    }
}

/// Checks a deployment's public file against the pin of its root, which came by another way.
pub fn verify_deployment_file(bytes: &[u8], pin: &Sha256Digest) -> Result<VerifiedDeployment, DeploymentFileError> {
    let signed = parse(bytes)?;
    let der = base64("root_certificate", &signed.body.root_certificate, CERTIFICATE_MAX)?;
    let root = RootCertificate::check_pinned(&der, pin)?;
    judge(signed, root)
}

/// Checks that a deployment's public file agrees with itself.
///
/// Whoever uses this trusts the place where the file came from: anyone can make a root and sign with it.
pub fn verify_deployment_file_unpinned(bytes: &[u8]) -> Result<VerifiedDeployment, DeploymentFileError> {
    let signed = parse(bytes)?;
    let der = base64("root_certificate", &signed.body.root_certificate, CERTIFICATE_MAX)?;
    let root = RootCertificate::check(&der)?;
    judge(signed, root)
}

fn parse(bytes: &[u8]) -> Result<Signed, DeploymentFileError> {
    if bytes.len() > DEPLOYMENT_FILE_MAX {
        return Err(DeploymentFileError::TooLarge);
    }
    let line = bytes.strip_suffix(b"\n").ok_or(DeploymentFileError::NotCanonical)?;
    let signed: Signed = serde_json::from_slice(line).map_err(|e| DeploymentFileError::Malformed(e.to_string()))?;
    if canonical(&signed)? != line {
        return Err(DeploymentFileError::NotCanonical);
    }
    if signed.body.kind != DEPLOYMENT_FILE_KIND {
        return Err(DeploymentFileError::Kind);
    }
    if signed.body.format != DEPLOYMENT_FILE_FORMAT {
        return Err(DeploymentFileError::Format(signed.body.format));
    }
    Ok(signed)
}

fn judge(signed: Signed, root: RootCertificate) -> Result<VerifiedDeployment, DeploymentFileError> {
    let file = signed.body;
    if file.deployment != root.deployment() {
        return Err(DeploymentFileError::Mismatch("deployment"));
    }
    if file.root_pin != root.pin() {
        return Err(DeploymentFileError::Mismatch("root_pin"));
    }
    let signature = base64("signature", &signed.signature, 80)?;
    root.verify(&canonical(&file)?, &signature).map_err(|_| DeploymentFileError::BadSignature)?;
    let line = |key: &String| key.len() <= LOG_KEY_MAX && key.bytes().all(|b| b.is_ascii_graphic());
    if file.log_keys.len() > DEPLOYMENT_KEYS_MAX || !file.log_keys.iter().all(line) {
        return Err(DeploymentFileError::Keys("log_keys"));
    }
    if file.receipt_certificates.len() > DEPLOYMENT_KEYS_MAX {
        return Err(DeploymentFileError::Keys("receipt_certificates"));
    }
    let receipt_keys = file.receipt_certificates.iter().map(|c| receipt_key(&root, c)).collect::<Result<_, _>>()?;
    Ok(VerifiedDeployment { file, root, receipt_keys })
}

/// Checks that the root's authority issued the certificate: at the time at which it began, as old ones stay in the file.
fn receipt_key(root: &RootCertificate, text: &ReceiptCertificate) -> Result<ReceiptKey, DeploymentFileError> {
    let chain = [
        CertificateDer::from(base64("leaf", &text.leaf, CERTIFICATE_MAX)?),
        CertificateDer::from(base64("issuer", &text.issuer, CERTIFICATE_MAX)?),
    ];
    let begins = begins(&chain).ok_or(DeploymentFileError::Receipt(PeerRefusal::Malformed))?;
    let peer = verify_chain_at(root, &chain, Class::Receipt, begins).map_err(DeploymentFileError::Receipt)?;
    let (id, key) = receipt_parts(&peer).ok_or(DeploymentFileError::Receipt(PeerRefusal::BadKey))?;
    Ok(ReceiptKey { id, key, serial: peer.serial, not_before: peer.not_before, not_after: peer.not_after })
}

fn begins(chain: &[CertificateDer<'_>]) -> Option<UnixTime> {
    let mut latest = 0;
    for der in chain {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        latest = latest.max(u64::try_from(certificate.validity().not_before.timestamp()).ok()?);
    }
    Some(UnixTime::from_millis(latest.saturating_mul(1000)))
}

fn receipt_parts(peer: &VerifiedPeer) -> Option<(KeyId, StatementPublic)> {
    match (peer.id.subject, peer.key) {
        (Subject::Receipt(id), PublicKey::Statement(key)) => Some((id, key)),
        (
            Subject::Node(_) | Subject::Control(_) | Subject::Receipt(_),
            PublicKey::Ecdsa(_) | PublicKey::Statement(_),
        ) => None,
    }
}

fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, DeploymentFileError> {
    let value = serde_json::to_value(value).map_err(|_| CanonicalError::Write)?;
    Ok(canonical_json(&value)?)
}

fn base64(field: &'static str, text: &str, max: usize) -> Result<Vec<u8>, DeploymentFileError> {
    // Four characters for three bytes: what is far too long is not decoded.
    if text.len() > max.saturating_mul(2) {
        return Err(DeploymentFileError::Base64(field));
    }
    STANDARD.decode(text).map_err(|_| DeploymentFileError::Base64(field))
}
