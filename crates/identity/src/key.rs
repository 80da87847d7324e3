//! Key pairs of this room: ECDSA P-256 for certificates and TLS, Ed25519 for records and receipts.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A key or signature is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no private key of the expected kind.
    #[error("not a private key of the expected kind")]
    Malformed,
    /// The bytes are no public key of the expected kind.
    #[error("not a public key of the expected kind")]
    MalformedPublic,
    /// The library refused to make or use a key.
    #[error("the cryptographic library refused")]
    Library,
    /// The signature does not match.
    #[error("the signature does not match")]
    BadSignature,
}

/// A private key as PKCS#8 bytes: wiped on drop, never printed, to be wrapped before it is stored.
#[derive(Clone)]
pub struct Pkcs8(Zeroizing<Vec<u8>>);

impl Pkcs8 {
    /// Takes bytes that came out of a wrapped key or a file of mode 0600.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
    /// The bytes, for wrapping.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Pkcs8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pkcs8(secret)")
    }
}

/// An ECDSA P-256 key pair: of a certificate authority, or of a TLS end.
pub struct EcdsaKey {
    pair: EcdsaKeyPair,
    pkcs8: Pkcs8,
}

impl EcdsaKey {
    /// Makes a key pair; aws-lc-rs draws from the system's random source itself.
    pub fn generate() -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Library)?;
        Self::open(&Pkcs8::from_bytes(document.as_ref()))
    }
    /// Opens a stored key pair.
    pub fn open(pkcs8: &Pkcs8) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.reveal())
            .map_err(|_| KeyError::Malformed)?;
        Ok(Self { pair, pkcs8: pkcs8.clone() })
    }
    /// The private key, for wrapping or for a TLS configuration.
    #[must_use]
    pub fn private(&self) -> &Pkcs8 {
        &self.pkcs8
    }
    /// The public key.
    pub fn public(&self) -> Result<EcdsaPublic, KeyError> {
        EcdsaPublic::from_point(self.pair.public_key().as_ref())
    }
    /// Signs a message with SHA-256; the signature is DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError::Library)
    }
}

impl fmt::Debug for EcdsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EcdsaKey(secret)")
    }
}

impl rcgen::PublicKeyData for EcdsaKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for EcdsaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A P-256 public key: an uncompressed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcdsaPublic([u8; 65]);

impl EcdsaPublic {
    /// Takes an uncompressed point; whether it lies on the curve shows when a signature is checked.
    pub fn from_point(point: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 65] = point.try_into().map_err(|_| KeyError::MalformedPublic)?;
        if bytes.first() == Some(&4) { Ok(Self(bytes)) } else { Err(KeyError::MalformedPublic) }
    }
    /// The uncompressed point.
    #[must_use]
    pub fn as_point(&self) -> &[u8; 65] {
        &self.0
    }
    /// Checks a DER signature over the SHA-256 of a message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(message, signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl rcgen::PublicKeyData for EcdsaPublic {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// An Ed25519 key pair that signs statements: a node's record key, or the control plane's receipt key.
///
/// It signs nothing without a context string, so that a signature made for one purpose never serves another.
pub struct StatementKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

impl StatementKey {
    /// Makes a key pair from randomness that is passed in.
    pub fn generate(random: &mut dyn keys::Random) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(seed.as_mut());
        Self::open(&seed)
    }
    /// Opens a stored seed (the 32 bytes of RFC 8032).
    pub fn open(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Malformed)?;
        Ok(Self { pair, seed: Zeroizing::new(*seed) })
    }
    /// The seed, for wrapping or for a file of mode 0600.
    #[must_use]
    pub fn reveal(&self) -> &[u8; 32] {
        &self.seed
    }
    /// The public key.
    pub fn public(&self) -> Result<StatementPublic, KeyError> {
        StatementPublic::from_slice(self.pair.public_key().as_ref())
    }
    /// Signs `context ‖ message`.
    #[must_use]
    pub fn sign(&self, context: &[u8], message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        let signed = self.pair.sign(&joined(context, message));
        for (to, from) in signature.iter_mut().zip(signed.as_ref()) {
            *to = *from;
        }
        signature
    }
}

impl fmt::Debug for StatementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatementKey(secret)")
    }
}

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementPublic([u8; 32]);

impl StatementPublic {
    /// Takes the 32 bytes of RFC 8032.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Takes a slice that must have 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Self).map_err(|_| KeyError::MalformedPublic)
    }
    /// Reads strict, padded base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        // 32 bytes are 44 characters: anything else is not decoded at all.
        if text.len() != 44 {
            return Err(KeyError::MalformedPublic);
        }
        Self::from_slice(&STANDARD.decode(text).map_err(|_| KeyError::MalformedPublic)?)
    }
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Padded base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
    /// Checks a signature over `context ‖ message`.
    pub fn verify(&self, context: &[u8], message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&joined(context, message), signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl rcgen::PublicKeyData for StatementPublic {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

fn joined(context: &[u8], message: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(context.len().saturating_add(message.len()));
    all.extend_from_slice(context);
    all.extend_from_slice(message);
    all
}
