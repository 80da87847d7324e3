//! What happened, and the proof of it: entries, leaves, Merkle tiles, signed checkpoints, proofs.
//!
//! An entry ([`entry::Entry`]) becomes one OCSF 1.8.0 event in canonical JSON (the *body*); the log's leaf is a
//! salted digest of the body ([`leaf`]); leaves make RFC 6962 trees that are published as C2SP tlog-tiles
//! ([`tile`], [`builder`]) under a signed checkpoint ([`checkpoint`], [`note`]). Everything can be checked offline
//! by us ([`merkle`], [`proof`], [`walk`]) and by tools that are not ours. That no second history is shown to somebody
//! else is what witnesses sign ([`witness`], [`cosignature`]); which of them must have signed says a policy file
//! ([`witness_policy`]).
//!
//! **Invariant:** this crate reads no clock, no file, no socket and no random source: time, bytes and randomness are
//! passed in. **Invariant:** personal data never stands in a body in clear ([`sealed`]).
//! **Invariant:** a verdict comes from checked signatures and hashes, never from a parse.
#![forbid(unsafe_code)]

pub mod builder;
pub mod canonical;
pub mod checkpoint;
pub mod completeness;
pub mod cosignature;
pub mod entry;
pub mod event;
pub mod hash;
pub mod key;
pub mod leaf;
pub mod limits;
pub mod merkle;
pub mod node_log;
pub mod note;
mod ocsf;
pub mod proof;
pub mod prove;
pub mod sealed;
#[cfg(test)]
mod tests;
pub mod tile;
pub mod validate;
pub mod walk;
pub mod witness;
pub mod witness_policy;

pub use builder::{Appended, append};
pub use checkpoint::Checkpoint;
pub use entry::{Actor, EncodedEntry, Entry, Outcome, Source};
pub use event::Event;
pub use hash::Hash;
pub use key::{LogSigner, VerifierKey};
pub use proof::TlogProof;
pub use tile::{TilePath, TileReader};
pub use witness_policy::WitnessPolicy;
