//! The key hierarchy: the seal (a passphrase, or the shares of several people) opens the root epoch, the root epoch wraps tenants' keys, those wrap data keys.
//!
//! This crate also is the one place that calls the cryptographic library for symmetric keys, HPKE and Ed25519.
//!
//! **Invariant:** [`PlainKey`] and [`WrappedKey`] are unrelated types; nothing turns one into the other but [`wrap`] and [`unwrap`].
//! **Invariant:** no plain key can be printed, serialised or compared in variable time; every one is wiped when dropped.
//! **Invariant:** no clock, file or socket is read here; randomness comes through [`Random`].
//!
//! ```compile_fail
//! let key = keys::PlainKey::from_bytes([0; 32]);
//! println!("{key}");
//! ```
//! ```compile_fail
//! let key = keys::PlainKey::from_bytes([0; 32]);
//! serde_json::to_string(&key);
//! ```
//! ```compile_fail
//! fn store(_: keys::WrappedKey) {}
//! store(keys::PlainKey::from_bytes([0; 32]));
//! ```
#![forbid(unsafe_code)]

pub mod aead;
pub mod derive;
pub mod gather;
pub mod hpke;
pub mod lifecycle;
pub mod limits;
mod plain;
mod random;
pub mod record;
pub mod seal;
pub mod secret;
mod shamir;
pub mod share;
pub mod signature;
mod wrapped;

pub use plain::PlainKey;
pub use random::{Random, SystemRandom};
pub use record::{KeyRecord, KeyState, Purpose};
pub use signature::{SigningKey, VerifyingKey};
pub use wrapped::{KeyContext, Owner, UnwrapError, WrappedKey, unwrap, wrap};

#[cfg(test)]
mod tests;
