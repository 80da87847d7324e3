//! AES-256-GCM in place, over explicit nonces.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::PlainKey;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// The tag does not fit: the bytes, the key, the nonce or the associated data are not those that were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the authentication tag does not fit")]
pub struct TagMismatch;

/// One AES-256-GCM key schedule, for many messages. Whoever makes one answers for its nonces never repeating.
pub struct Aes256Gcm(LessSafeKey);

impl std::fmt::Debug for Aes256Gcm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aes256Gcm(…)")
    }
}

impl Aes256Gcm {
    /// Prepares the key.
    #[must_use]
    pub fn new(key: &PlainKey) -> Self {
        match UnboundKey::new(&AES_256_GCM, key.expose()) {
            Ok(unbound) => Self(LessSafeKey::new(unbound)),
            // Cannot fail: the length is right by type. Going on without encryption is no option.
            Err(_) => std::process::abort(),
        }
    }

    /// Encrypts in place and returns the tag.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], data: &mut [u8]) -> [u8; TAG_BYTES] {
        match self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data) {
            Ok(tag) => {
                let mut bytes = [0; TAG_BYTES];
                bytes.copy_from_slice(tag.as_ref());
                bytes
            }
            // Fails only beyond 64 GiB in one message, which no format of ours allows.
            Err(_) => std::process::abort(),
        }
    }

    /// Checks and decrypts `ciphertext ‖ tag` in place; returns the plaintext. On failure the buffer holds no plaintext.
    pub fn open<'a>(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], data: &'a mut [u8]) -> Result<&'a mut [u8], TagMismatch> {
        self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data).map_err(|_| TagMismatch)
    }
}
