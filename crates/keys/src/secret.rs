//! Small values sealed under a data key of their own: the secrets that jobs are given (`docs/spec/secret.md`).
//!
//! `version 1 ‖ suite 1 ‖ key id 16 ‖ key version 4 ‖ salt 32 ‖ commitment 32 ‖ ciphertext ‖ tag 16`. As with a wrapped key, the
//! key that encrypts comes from the data key, a fresh salt and the context, so it seals one message and the nonce is zero.

use minicbor::Encoder;
use vocabulary::limits::SECRET_MAX;
use vocabulary::{KeyId, SecretId, TenantId};
use zeroize::{Zeroize as _, Zeroizing};

use crate::aead::{Aes256Gcm, TAG_BYTES};
use crate::derive::{constant_time_eq, key_and_commitment};
use crate::{PlainKey, Random};

const VERSION: u8 = 1;
const SUITE: u8 = 1;
const LABEL: &[u8] = b"swarm/seal/v1";
const SALT_AT: usize = 22;
const COMMITMENT_AT: usize = 54;
const CIPHERTEXT_AT: usize = 86;
/// Bytes of the longest sealed secret.
pub const SEALED_MAX: usize = CIPHERTEXT_AT + SECRET_MAX + TAG_BYTES;

/// What a sealed secret is bound to. Another tenant, secret, key or version: it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretContext {
    /// The tenant.
    pub tenant: TenantId,
    /// The secret.
    pub secret: SecretId,
    /// The data key.
    pub key: KeyId,
    /// The version of key and value.
    pub version: u32,
}

/// Why a secret was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing to seal.
    #[error("the secret is empty")]
    Empty,
    /// More than [`SECRET_MAX`] bytes.
    #[error("the secret has more than {SECRET_MAX} bytes")]
    TooLong,
    /// Shorter or longer than any sealed secret.
    #[error("a sealed secret has {} to {SEALED_MAX} bytes", CIPHERTEXT_AT + 1 + TAG_BYTES)]
    Length,
    /// A version or suite that this program does not know.
    #[error("the sealed secret has an unknown version or suite")]
    Version,
    /// Sealed under another key, or another version of it.
    #[error("the secret is sealed under another key or version")]
    Key,
    /// The commitment differs: another key, tenant or secret.
    #[error("the sealed secret is not of this key and context")]
    Commitment,
    /// Ciphertext or tag were changed.
    #[error("the sealed secret was changed")]
    Tag,
}

impl SecretContext {
    /// The associated data: a deterministic CBOR array of five (RFC 8949 4.2.1).
    #[must_use]
    pub fn aad(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(80));
        let done: Result<(), minicbor::encode::Error<std::convert::Infallible>> = (|| {
            encoder
                .array(5)?
                .str("swarm/secret/v1")?
                .bytes(self.tenant.as_bytes())?
                .bytes(self.secret.as_bytes())?
                .bytes(self.key.as_bytes())?
                .u32(self.version)?;
            Ok(())
        })();
        // Writing to memory cannot fail; a half-written context would only fail to open.
        debug_assert!(done.is_ok());
        encoder.into_writer()
    }
}

/// Seals a value. The salt is drawn here, after everything else is final.
pub fn seal(key: &PlainKey, context: &SecretContext, value: &[u8], random: &mut dyn Random) -> Result<Vec<u8>, SecretError> {
    seal_with_salt(key, context, value, &random.array())
}

pub(crate) fn seal_with_salt(key: &PlainKey, context: &SecretContext, value: &[u8], salt: &[u8; 32]) -> Result<Vec<u8>, SecretError> {
    if value.is_empty() {
        return Err(SecretError::Empty);
    }
    if value.len() > SECRET_MAX {
        return Err(SecretError::TooLong);
    }
    let aad = context.aad();
    let (derived, commitment) = key_and_commitment(key, salt, LABEL, &aad);
    let mut sealed = Vec::with_capacity(CIPHERTEXT_AT.saturating_add(value.len()).saturating_add(TAG_BYTES));
    sealed.extend_from_slice(&[VERSION, SUITE]);
    sealed.extend_from_slice(context.key.as_bytes());
    sealed.extend_from_slice(&context.version.to_be_bytes());
    sealed.extend_from_slice(salt);
    sealed.extend_from_slice(&commitment);
    let mut data = Zeroizing::new(value.to_vec());
    let tag = Aes256Gcm::new(&derived).seal([0; 12], &aad, &mut data);
    sealed.extend_from_slice(&data);
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// The parts of a sealed secret of this key and version.
struct Parts<'a> {
    salt: &'a [u8; 32],
    commitment: &'a [u8],
    /// Ciphertext and tag.
    data: &'a [u8],
}

fn parts<'a>(context: &SecretContext, sealed: &'a [u8]) -> Result<Parts<'a>, SecretError> {
    if sealed.len() > SEALED_MAX || sealed.len() <= CIPHERTEXT_AT.saturating_add(TAG_BYTES) {
        return Err(SecretError::Length);
    }
    let part = |from: usize, to: usize| sealed.get(from..to).ok_or(SecretError::Length);
    if part(0, 2)? != [VERSION, SUITE] {
        return Err(SecretError::Version);
    }
    if part(2, 18)? != context.key.as_bytes() || part(18, SALT_AT)? != context.version.to_be_bytes() {
        return Err(SecretError::Key);
    }
    let salt = part(SALT_AT, COMMITMENT_AT)?.try_into().map_err(|_| SecretError::Length)?;
    let data = sealed.get(CIPHERTEXT_AT..).ok_or(SecretError::Length)?;
    Ok(Parts { salt, commitment: part(COMMITMENT_AT, CIPHERTEXT_AT)?, data })
}

/// Whether bytes are a secret sealed with this key for this context, as far as can be told without opening it.
pub fn check(key: &PlainKey, context: &SecretContext, sealed: &[u8]) -> Result<(), SecretError> {
    let parts = parts(context, sealed)?;
    let (_, commitment) = key_and_commitment(key, parts.salt, LABEL, &context.aad());
    if constant_time_eq(&commitment, parts.commitment) { Ok(()) } else { Err(SecretError::Commitment) }
}

/// Opens a sealed secret. The commitment is compared in constant time before anything is decrypted.
pub fn open(key: &PlainKey, context: &SecretContext, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let parts = parts(context, sealed)?;
    let aad = context.aad();
    let (derived, commitment) = key_and_commitment(key, parts.salt, LABEL, &aad);
    if !constant_time_eq(&commitment, parts.commitment) {
        return Err(SecretError::Commitment);
    }
    let mut data = Zeroizing::new(parts.data.to_vec());
    let length = Aes256Gcm::new(&derived).open([0; 12], &aad, &mut data).map_err(|_| SecretError::Tag)?.len();
    // What stands behind the value is the tag, which is no secret; both are wiped with the buffer.
    if let Some(rest) = data.get_mut(length..) {
        rest.zeroize();
    }
    data.truncate(length);
    Ok(data)
}

/// For mutation and fuzzing: reads hostile bytes; says whether they opened.
#[must_use]
pub fn fuzz(data: &[u8]) -> bool {
    let context = SecretContext {
        tenant: TenantId::from_bytes([1; 16]),
        secret: SecretId::from_bytes([2; 16]),
        key: KeyId::from_bytes([3; 16]),
        version: 1,
    };
    open(&PlainKey::from_bytes([4; 32]), &context, data).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;
    use crate::derive::sha256;

    fn run<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|i| from.wrapping_add(u8::try_from(i).unwrap()))
    }

    fn context() -> SecretContext {
        SecretContext {
            tenant: TenantId::from_bytes(run(0xa0)),
            secret: SecretId::from_bytes(run(0xb0)),
            key: KeyId::from_bytes(run(0xc0)),
            version: 7,
        }
    }

    /// Computed with Python (cryptography), HKDF and CBOR written out by hand.
    #[test]
    fn golden() {
        let (key, salt) = (PlainKey::from_bytes(run(0)), run::<32>(0x20));
        assert_eq!(hex::encode(context().aad()), "856f737761726d2f7365637265742f763150a0a1a2a3a4a5a6a7a8a9aaabacadaeaf50b0b1b2b3b4b5b6b7b8b9babbbcbdbebf50c0c1c2c3c4c5c6c7c8c9cacbcccdcecf07");
        let sealed = seal_with_salt(&key, &context(), b"hf_0123456789", &salt).unwrap();
        assert_eq!(hex::encode(&sealed[..22]), "0101c0c1c2c3c4c5c6c7c8c9cacbcccdcecf00000007");
        assert_eq!(hex::encode(&sealed[54..]), "f0dfd8b13cade2ce20728e29e3a3c5aec906518eefb5d1aebe3a40dc480fd71fcfcf4c0825b797ac3634f15ceb68016a37b4df06ff1f34dc295c4124bd");
        assert_eq!(hex::encode(sha256(&[&sealed])), "557da95a92b72ce6b8fd52d23cb4582574218c48a9fa8104f56ddfc817161d65");
        assert_eq!(open(&key, &context(), &sealed).unwrap().as_slice(), b"hf_0123456789");
        check(&key, &context(), &sealed).unwrap();
    }

    #[test]
    fn another_key_or_context_does_not_open_it() {
        let key = PlainKey::from_bytes(run(0));
        let sealed = seal(&key, &context(), b"value", &mut SystemRandom).unwrap();
        for (changed, error) in [
            (SecretContext { tenant: TenantId::from_bytes([1; 16]), ..context() }, SecretError::Commitment),
            (SecretContext { secret: SecretId::from_bytes([1; 16]), ..context() }, SecretError::Commitment),
            (SecretContext { key: KeyId::from_bytes([1; 16]), ..context() }, SecretError::Key),
            (SecretContext { version: 8, ..context() }, SecretError::Key),
        ] {
            assert_eq!(open(&key, &changed, &sealed).unwrap_err(), error);
            assert_eq!(check(&key, &changed, &sealed).unwrap_err(), error);
        }
        assert_eq!(open(&PlainKey::from_bytes([9; 32]), &context(), &sealed).unwrap_err(), SecretError::Commitment);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_refused() {
        let key = PlainKey::from_bytes(run(0));
        let sealed = seal(&key, &context(), &run::<40>(0), &mut SystemRandom).unwrap();
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open(&key, &context(), &changed).is_err(), "{position}");
            assert!(open(&key, &context(), &sealed[..position]).is_err(), "{position}");
            assert!(!fuzz(&changed));
        }
        let longer = [sealed.as_slice(), &[0]].concat();
        assert_eq!(open(&key, &context(), &longer).unwrap_err(), SecretError::Tag);
    }

    #[test]
    fn lengths_are_bounded_both_ways() {
        let key = PlainKey::from_bytes(run(0));
        assert_eq!(seal(&key, &context(), b"", &mut SystemRandom).unwrap_err(), SecretError::Empty);
        assert_eq!(seal(&key, &context(), &vec![0; SECRET_MAX + 1], &mut SystemRandom).unwrap_err(), SecretError::TooLong);
        let longest = seal(&key, &context(), &vec![7; SECRET_MAX], &mut SystemRandom).unwrap();
        assert_eq!(longest.len(), SEALED_MAX);
        assert_eq!(open(&key, &context(), &longest).unwrap().len(), SECRET_MAX);
        assert_eq!(open(&key, &context(), &vec![1; SEALED_MAX + 1]).unwrap_err(), SecretError::Length);
        assert_eq!(open(&key, &context(), &[]).unwrap_err(), SecretError::Length);
    }
}
