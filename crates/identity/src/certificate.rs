//! Certificates: the hierarchy (root, issuing authority per class, leaf), their names, their issue and their one verifier.
//!
//! A root signs issuing authorities only. Each issuing authority speaks for one [`Class`], which its root-signed
//! subject says, so that a verifier needs nothing but the root. Leaves carry exactly one SPIFFE id.

mod authority;
mod fields;
mod name;
mod request;
mod revocation;
mod root;
mod verifier;

pub use authority::{
    IssueError, Issued, IssuingAuthority, NodeLife, RootAuthority, ServerName, chain_from_wire, chain_to_wire, renew_at,
};
pub use name::{Class, Serial, SpiffeError, SpiffeId, Subject};
pub use request::{CertificateRequest, RequestError, make_request};
pub use revocation::{LiveRevocations, RevocationError, RevocationSet};
pub use root::{RootCertificate, RootError};
pub use verifier::{PeerRefusal, PublicKey, VerifiedPeer, Verifier, verify_chain_at};
