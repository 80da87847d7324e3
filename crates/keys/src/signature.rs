//! Ed25519 (RFC 8032).

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::{PlainKey, Random};

/// A key that signs. Kept as its seed wrapped, never in the clear.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: PlainKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {:?})", self.verifying_key())
    }
}

impl SigningKey {
    /// Draws a new key.
    #[must_use]
    pub fn generate(random: &mut dyn Random) -> Self {
        Self::from_seed(PlainKey::generate(random))
    }
    /// From the 32 bytes of its seed.
    #[must_use]
    pub fn from_seed(seed: PlainKey) -> Self {
        match Ed25519KeyPair::from_seed_unchecked(seed.expose()) {
            Ok(pair) => Self { pair, seed },
            // Every 32 bytes are a seed.
            Err(_) => std::process::abort(),
        }
    }
    /// The seed, to be wrapped.
    #[must_use]
    pub const fn seed(&self) -> &PlainKey {
        &self.seed
    }
    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(bytes)
    }
    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }
}

/// The public half of a [`SigningKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey([u8; 32]);

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The fixed head of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl VerifyingKey {
    /// From its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Its SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> [u8; 44] {
        let mut der = [0; 44];
        let (head, tail) = der.split_at_mut(12);
        head.copy_from_slice(&SPKI_HEAD);
        tail.copy_from_slice(&self.0);
        der
    }
    /// SHA-256 of its SubjectPublicKeyInfo: how formats name it.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        crate::derive::sha256(&[&self.spki()])
    }
    /// Whether the signature is this key's over the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == 64 && UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}
