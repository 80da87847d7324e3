//! Who is this? People's factors, tokens, certificates and the TLS in which they are shown.
//!
//! This room is pure: it opens no socket and no file, reads no clock and no environment. Time and randomness are
//! passed in (aws-lc-rs and rcgen draw the randomness of P-256 keys and signatures from the system themselves).
//! It decides who somebody is; what they may do is decided elsewhere.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod certificate;
pub mod deployment;
pub mod key;
pub mod limits;

pub use certificate::{
    CertificateRequest, Class, Issued, IssuingAuthority, LiveRevocations, NodeLife, PeerRefusal, PublicKey,
    RevocationSet, RootAuthority, RootCertificate, Serial, ServerName, SpiffeId, Subject, VerifiedPeer, Verifier,
    make_request, verify_chain_at,
};
pub use deployment::{
    DeploymentFile, ReceiptCertificate, ReceiptKey, VerifiedDeployment, verify_deployment_file,
    verify_deployment_file_unpinned,
};
pub use key::{EcdsaKey, EcdsaPublic, KeyError, Pkcs8, StatementKey, StatementPublic};
