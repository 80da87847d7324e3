//! DSSE envelopes with exactly one Ed25519 or P-256 signature, in one canonical form.

use audit::canonical::{self, CanonicalError};
use audit::key::{Ed25519Signer, LogSigner};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vocabulary::Sha256Digest;

use crate::limits::PAYLOAD_MAX;

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The DER of an Ed25519 `SubjectPublicKeyInfo` before its 32 bytes of key (RFC 8410).
const ED25519_SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// SHA-256 of the key's `SubjectPublicKeyInfo`, 64 hexadecimal digits.
    pub keyid: String,
    /// The signature, base64: 64 bytes for Ed25519, DER for ECDSA.
    pub sig: String,
}

/// A DSSE envelope (secure-systems-lab/dsse): payload, its type, one signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// The payload's bytes, base64.
    pub payload: String,
    /// What the payload is.
    pub payload_type: String,
    /// Exactly one signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not strict base64, or too long.
    #[error("`{0}` is not strict base64 of the expected length")]
    Base64(&'static str),
    /// Another payload type.
    #[error("the payload type is not `{0}`")]
    PayloadType(&'static str),
    /// Not exactly one signature.
    #[error("an envelope has exactly one signature")]
    Signatures,
    /// The key id is not that of the key.
    #[error("the key id is not that of the expected key")]
    KeyId,
    /// The signature fails.
    #[error("the signature does not verify")]
    BadSignature,
    /// The payload is not canonical JSON of the expected shape.
    #[error("the payload is malformed")]
    Payload(#[from] CanonicalError),
}

/// A public key that checks an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKey<'a> {
    /// 32 bytes of Ed25519.
    Ed25519(&'a [u8; 32]),
    /// A P-256 key: its `SubjectPublicKeyInfo` and the point in it.
    P256 {
        /// DER.
        spki: &'a [u8],
        /// Uncompressed point.
        point: &'a [u8],
    },
}

impl PublicKey<'_> {
    /// SHA-256 of the `SubjectPublicKeyInfo`, hexadecimal.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Ed25519(key) => ed25519_key_id(key),
            Self::P256 { spki, .. } => hex::encode(sha256(spki).as_bytes()),
        }
    }
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => {
                signature.len() == 64 && UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            Self::P256 { point, .. } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
            }
        }
    }
}

/// Whoever holds an Ed25519 key that signs: a node's record key, the control plane's receipt key.
pub trait Signer {
    /// The 32 bytes of the public key.
    fn public(&self) -> [u8; 32];
    /// Ed25519 over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl Signer for Ed25519Signer {
    fn public(&self) -> [u8; 32] {
        LogSigner::public(self)
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        LogSigner::sign(self, message)
    }
}

/// SHA-256 of bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    Sha256Digest::from_bytes(out)
}

/// The DER `SubjectPublicKeyInfo` of an Ed25519 key.
#[must_use]
pub fn ed25519_spki(key: &[u8; 32]) -> Vec<u8> {
    let mut spki = ED25519_SPKI_PREFIX.to_vec();
    spki.extend_from_slice(key);
    spki
}

/// The key id of an Ed25519 key: SHA-256 of its `SubjectPublicKeyInfo`, hexadecimal.
#[must_use]
pub fn ed25519_key_id(key: &[u8; 32]) -> String {
    hex::encode(sha256(&ed25519_spki(key)).as_bytes())
}

/// The bytes that DSSE signs.
#[must_use]
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Decodes strict base64 of at most `max` bytes.
pub(crate) fn base64(text: &str, field: &'static str, max: usize) -> Result<Vec<u8>, EnvelopeError> {
    if text.len() > max.div_ceil(3) * 4 {
        return Err(EnvelopeError::Base64(field));
    }
    STANDARD.decode(text).map_err(|_| EnvelopeError::Base64(field))
}

/// Decodes strict base64 of exactly 32 bytes.
pub(crate) fn base64_32(text: &str, field: &'static str) -> Result<[u8; 32], EnvelopeError> {
    base64(text, field, 33)?.try_into().map_err(|_| EnvelopeError::Base64(field))
}

impl Envelope {
    /// Signs the canonical JSON of `payload` with Ed25519.
    pub fn sign<T: Serialize>(
        payload: &T,
        payload_type: &str,
        signer: &dyn Signer,
    ) -> Result<Self, CanonicalError> {
        let key = signer.public();
        Self::sign_with(payload, payload_type, ed25519_key_id(&key), |bytes| signer.sign(bytes).to_vec())
    }

    /// Signs the canonical JSON of `payload` with whatever `sign` does over DSSE's bytes.
    pub fn sign_with<T: Serialize>(
        payload: &T,
        payload_type: &str,
        keyid: String,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Self, CanonicalError> {
        let payload = canonical::to_vec(payload)?;
        if payload.len() > PAYLOAD_MAX {
            return Err(CanonicalError::TooLong(PAYLOAD_MAX));
        }
        let sig = STANDARD.encode(sign(&pre_authentication(payload_type, &payload)));
        Ok(Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![EnvelopeSignature { keyid, sig }],
        })
    }

    /// The payload's bytes; nothing is verified.
    pub fn payload_bytes(&self) -> Result<Vec<u8>, EnvelopeError> {
        base64(&self.payload, "payload", PAYLOAD_MAX)
    }

    /// The payload as a type, strictly; nothing is verified.
    pub fn peek<T: DeserializeOwned + Serialize>(&self) -> Result<T, EnvelopeError> {
        Ok(canonical::from_slice(&self.payload_bytes()?, PAYLOAD_MAX)?)
    }

    /// Checks type, key id and signature, and returns the payload.
    pub fn verify<T: DeserializeOwned + Serialize>(
        &self,
        payload_type: &'static str,
        key: &PublicKey<'_>,
    ) -> Result<T, EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType(payload_type));
        }
        let [signature] = self.signatures.as_slice() else { return Err(EnvelopeError::Signatures) };
        if signature.keyid != key.id() {
            return Err(EnvelopeError::KeyId);
        }
        let payload = self.payload_bytes()?;
        let sig = base64(&signature.sig, "sig", 80)?;
        if !key.verifies(&pre_authentication(payload_type, &payload), &sig) {
            return Err(EnvelopeError::BadSignature);
        }
        Ok(canonical::from_slice(&payload, PAYLOAD_MAX)?)
    }
}

/// An in-toto statement, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InToto<P> {
    /// Always `https://in-toto.io/Statement/v1`.
    #[serde(rename = "_type")]
    pub kind: String,
    /// What the predicate says.
    pub predicate: P,
    /// Which predicate.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it is about.
    pub subject: Vec<Subject>,
}

/// The type of in-toto statements.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// A thing by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its digest.
    pub digest: SubjectDigest,
    /// Its name.
    pub name: String,
}

/// The digest of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

impl Subject {
    /// Names a digest.
    #[must_use]
    pub fn new(name: String, digest: &Sha256Digest) -> Self {
        Self { name, digest: SubjectDigest { sha256: digest.hex() } }
    }
}
