//! One file that binds the facts of a job, and the check of it, offline and without login; and the same for a [`release`] of the program.
//!
//! The node signs what it saw ([`statement::Statement`]) with its record key; the control plane signs the whole
//! ([`record::Record`]) with its receipt key. Both are DSSE envelopes around in-toto statements, so that OpenSSL, jq and
//! a foreign tlog tool can repeat every check: see `docs/guide/verify-a-receipt.md`.
//!
//! **Invariant:** [`verify::verify`] reads no clock and no network. **Invariant:** a change of any byte of the file makes
//! it fail: the file is canonical JSON, base64 is strict, unknown fields are refused, and every field is signed or
//! compared with something signed. **Invariant:** what only the node says is reported as the node's word.
#![forbid(unsafe_code)]

pub mod cosign;
pub mod deployment;
pub mod envelope;
pub mod extract;
pub mod limits;
pub mod record;
pub mod release;
pub mod report;
pub mod root;
pub mod statement;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod x509;

pub use deployment::Deployment;
pub use envelope::{Envelope, Signer};
pub use record::{LoggedEntry, Receipt, Record};
pub use report::{Line, Report, Tool, Verdict};
pub use statement::{Statement, VolumeUse};
pub use verify::{verify, verify_witnessed};
