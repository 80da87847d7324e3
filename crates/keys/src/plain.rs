//! A key in the clear.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::ZeroizeOnDrop;

use crate::Random;
use crate::limits::KEY_BYTES;

/// Thirty-two secret bytes: wiped on drop, never printed, never serialised, compared in constant time.
#[derive(ZeroizeOnDrop)]
pub struct PlainKey([u8; KEY_BYTES]);

impl PlainKey {
    /// Draws a new key.
    #[must_use]
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut key = Self([0; KEY_BYTES]);
        random.fill(&mut key.0);
        key
    }
    /// Takes bytes that came out of an unwrapping.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }
    /// Takes a slice of exactly 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.0.copy_from_slice(bytes);
        Some(key)
    }
    /// The bytes, for a primitive that needs them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
    /// A second copy, wiped by itself.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

impl PartialEq for PlainKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for PlainKey {}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(…)")
    }
}
