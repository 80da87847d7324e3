//! Sealed data: the segment format, the signed chain of roots, and what `put` and `get` do with them.
//!
//! The core (everything but [`io`] and [`folder`]) is pure: bytes, keys and randomness in, bytes out. The format is that of `docs/spec/volume.md`.
//!
//! **Invariant:** no plaintext leaves before its digest under the signed root and its tag were checked.
//! **Invariant:** a segment is sealed once, from final content, with a salt drawn last; nothing about nonces is ever stored.
#![forbid(unsafe_code)]

pub mod catalogue;
mod durable;
pub mod folder;
pub mod io;
pub mod lease;
pub mod limits;
pub mod merkle;
pub mod name;
pub mod root;
pub mod secret;
pub mod segment;

pub use segment::{Kind, SegmentError, SegmentKeys};

#[cfg(test)]
mod tests;
