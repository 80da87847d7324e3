//! Wrapped keys: the 134 bytes in which a key lies under the key above it.
//!
//! `version 1 ‖ suite 1 ‖ KEK id 16 ‖ KEK version 4 ‖ salt 32 ‖ commitment 32 ‖ ciphertext 32 ‖ tag 16`.
//! Encryption key and commitment come from HKDF-SHA-256 over the KEK, a fresh salt and the hash of the context,
//! so each derived key seals one message and the nonce is fixed at zero.

use std::fmt;

use minicbor::Encoder;
use serde::{Deserialize, Serialize};
use vocabulary::{KeyId, TenantId, UnixTime};

use crate::aead::Aes256Gcm;
use crate::derive::{constant_time_eq, key_and_commitment};
use crate::{PlainKey, Random};

/// Bytes of a wrapped key.
pub(crate) const WRAPPED_BYTES: usize = 134;
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const LABEL: &[u8] = b"swarm/seal/v1";

/// What a key belongs to: a noun and sixteen bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The noun: `volume`, `tenant`, `deployment`, ….
    pub kind: String,
    /// Its id.
    pub id: [u8; 16],
}

/// Everything that a wrapped key is bound to. Another row, tenant or purpose: it does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyContext {
    /// The tenant; zeroes for the deployment's own keys.
    pub tenant: TenantId,
    /// What the key is for, such as `volume`.
    pub purpose: String,
    /// The key.
    pub key: KeyId,
    /// Its version.
    pub version: u32,
    /// The key above it; zeroes for a root epoch.
    pub kek: KeyId,
    /// The version of the key above it, or the epoch.
    pub kek_version: u32,
    /// What it belongs to.
    pub owner: Owner,
    /// When it was made.
    pub created: UnixTime,
}

impl KeyContext {
    /// The associated data: a deterministic CBOR array of ten (RFC 8949 4.2.1).
    #[must_use]
    pub fn aad(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(160));
        let done: Result<(), minicbor::encode::Error<std::convert::Infallible>> = (|| {
            encoder
                .array(10)?
                .str("swarm/wrapped-key/v1")?
                .bytes(self.tenant.as_bytes())?
                .str(&self.purpose)?
                .bytes(self.key.as_bytes())?
                .u32(self.version)?
                .bytes(self.kek.as_bytes())?
                .u32(self.kek_version)?
                .str(&self.owner.kind)?
                .bytes(&self.owner.id)?
                .u64(self.created.millis())?;
            Ok(())
        })();
        // Writing to memory cannot fail; a half-written context would only fail to open.
        debug_assert!(done.is_ok());
        encoder.into_writer()
    }
}

/// A key under the key above it. The only form in which keys are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey([u8; WRAPPED_BYTES]);

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey(under {} v{})", self.kek(), self.kek_version())
    }
}

/// Why a wrapped key did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// Not 134 bytes.
    #[error("a wrapped key has {WRAPPED_BYTES} bytes")]
    Length,
    /// A version that this program does not know.
    #[error("the wrapped key has an unknown version")]
    Version,
    /// A suite that this program does not know.
    #[error("the wrapped key has an unknown suite")]
    Suite,
    /// It lies under another key than the one given.
    #[error("the wrapped key lies under another key or version")]
    Kek,
    /// The commitment differs: another key above, or another context (row, tenant, purpose, owner).
    #[error("the wrapped key is not of this key and context")]
    Commitment,
    /// The ciphertext or its tag was changed.
    #[error("the wrapped key was changed")]
    Tag,
}

impl WrappedKey {
    /// Reads the bytes; refuses unknown versions and suites.
    pub fn parse(bytes: &[u8]) -> Result<Self, UnwrapError> {
        let bytes: [u8; WRAPPED_BYTES] = bytes.try_into().map_err(|_| UnwrapError::Length)?;
        let [version, suite, ..] = bytes;
        if version != VERSION {
            return Err(UnwrapError::Version);
        }
        if suite != SUITE {
            return Err(UnwrapError::Suite);
        }
        Ok(Self(bytes))
    }
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; WRAPPED_BYTES] {
        &self.0
    }
    fn field<const N: usize>(&self, from: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(slice) = self.0.get(from..from.saturating_add(N)) {
            out.copy_from_slice(slice);
        }
        out
    }
    /// The key above it.
    #[must_use]
    pub fn kek(&self) -> KeyId {
        KeyId::from_bytes(self.field(2))
    }
    /// The version of the key above it.
    #[must_use]
    pub fn kek_version(&self) -> u32 {
        u32::from_be_bytes(self.field(18))
    }
}

/// Wraps a key under the key above it. The salt is drawn here, after everything else is final.
#[must_use]
pub fn wrap(kek: &PlainKey, context: &KeyContext, plain: &PlainKey, random: &mut dyn Random) -> WrappedKey {
    let salt = random.array();
    wrap_with_salt(kek, context, plain, salt)
}

pub(crate) fn wrap_with_salt(kek: &PlainKey, context: &KeyContext, plain: &PlainKey, salt: [u8; 32]) -> WrappedKey {
    let aad = context.aad();
    let (key, commitment) = key_and_commitment(kek, &salt, LABEL, &aad);
    let mut ciphertext = *plain.expose();
    let tag = Aes256Gcm::new(&key).seal([0; 12], &aad, &mut ciphertext);
    let mut bytes = [0; WRAPPED_BYTES];
    let parts: [&[u8]; 8] = [
        &[VERSION],
        &[SUITE],
        context.kek.as_bytes(),
        &context.kek_version.to_be_bytes(),
        &salt,
        &commitment,
        &ciphertext,
        &tag,
    ];
    for (slot, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *slot = *byte;
    }
    WrappedKey(bytes)
}

/// Opens a wrapped key. The commitment is compared in constant time before anything is decrypted.
pub fn unwrap(kek: &PlainKey, context: &KeyContext, wrapped: &WrappedKey) -> Result<PlainKey, UnwrapError> {
    if wrapped.kek() != context.kek || wrapped.kek_version() != context.kek_version {
        return Err(UnwrapError::Kek);
    }
    let aad = context.aad();
    let (key, commitment) = key_and_commitment(kek, &wrapped.field(22), LABEL, &aad);
    if !constant_time_eq(&commitment, &wrapped.field::<32>(54)) {
        return Err(UnwrapError::Commitment);
    }
    let mut data = zeroize::Zeroizing::new(wrapped.field::<48>(86));
    let plain = Aes256Gcm::new(&key).open([0; 12], &aad, data.as_mut_slice()).map_err(|_| UnwrapError::Tag)?;
    PlainKey::from_slice(plain).ok_or(UnwrapError::Length)
}
