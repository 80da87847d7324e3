//! The leaf of an entry: a version byte and a salted digest of the body.
//!
//! Tiles and entry bundles are public; whoever has neither salt nor body learns nothing from a leaf and cannot test
//! a guess against it.

use crate::hash::sha256;

/// The version of the leaf's format.
pub const LEAF_VERSION: u8 = 1;
/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 33;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 32;

/// `0x01 ‖ SHA-256(salt ‖ body)`.
#[must_use]
pub fn leaf(salt: &[u8; SALT_BYTES], body: &[u8]) -> [u8; LEAF_BYTES] {
    let mut out = [LEAF_VERSION; LEAF_BYTES];
    for (to, from) in out.iter_mut().skip(1).zip(sha256(&[salt, body])) {
        *to = from;
    }
    out
}

/// Whether a leaf is the one of this salt and body.
#[must_use]
pub fn matches(leaf_bytes: &[u8], salt: &[u8; SALT_BYTES], body: &[u8]) -> bool {
    leaf_bytes == leaf(salt, body)
}
