//! Who is this? People's factors, tokens, certificates and the TLS in which they are shown.
//!
//! This room is pure: it opens no socket and no file, reads no clock and no environment. Time and randomness are
//! passed in (aws-lc-rs and rcgen draw the randomness of P-256 keys and signatures from the system themselves).
//! It decides who somebody is; what they may do is decided elsewhere. What it returns for storing is safe to store
//! as it is (codes and hashes) or is a secret type that must be wrapped first ([`Pkcs8`], [`StatementKey`], [`TotpSecret`]).
//!
//! What was proved is a type that only the proving function makes:
//!
//! ```compile_fail
//! # fn forge(peer: identity::VerifiedPeer) {
//! let forged = identity::VerifiedPeer { class: identity::Class::Control, ..peer };
//! # }
//! ```
//! ```compile_fail
//! # fn forge(a: identity::Authenticated, person: vocabulary::PersonId) {
//! let forged = identity::Authenticated { person, ..a };
//! # }
//! ```
//! ```compile_fail
//! # fn forge(a: identity::StepUpProof) {
//! let forged = identity::StepUpProof { acr: 2, ..a };
//! # }
//! ```
//! An admission is spent by its judgement:
//! ```compile_fail
//! # use identity::*;
//! # fn twice(h: &dyn PasswordHasher, f: &LoginFacts, a: &LoginAttempt<'_>, admitted: login::Admitted, now: vocabulary::UnixTime) {
//! let first = judge(h, f, a, admitted, now);
//! let second = judge(h, f, a, admitted, now);
//! # }
//! ```
//! Secrets do not print:
//! ```compile_fail
//! # fn show(token: &identity::Token) -> String {
//! format!("{token}")
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod canonical;
pub mod certificate;
pub mod delay;
pub mod deployment;
pub mod enrol;
pub mod factor;
pub mod key;
pub mod limits;
pub mod login;
pub mod password;
pub mod pepper;
pub mod recovery;
pub mod stepup;
pub mod tls;
pub mod token;
pub mod totp;

#[cfg(test)]
mod tests;

pub use certificate::{
    CertificateRequest, Class, IssueError, Issued, IssuingAuthority, LiveRevocations, NodeLife, PeerRefusal, PublicKey,
    RevocationSet, RootAuthority, RootCertificate, RootError, Serial, ServerName, SpiffeId, Subject, VerifiedPeer,
    Verifier, chain_from_wire, chain_to_wire, make_request, renew_at, verify_chain_at,
};
pub use delay::Failures;
pub use deployment::{
    DeploymentFile, DeploymentFileError, ReceiptCertificate, ReceiptKey, VerifiedDeployment, verify_deployment_file,
    verify_deployment_file_unpinned,
};
pub use enrol::{EnrolRefusal, EnrolRequest, JoinGrant, join_line, prove_record_key};
pub use factor::{Enrolment, FactorError, NewFactors, make_factors};
pub use key::{EcdsaKey, EcdsaPublic, KeyError, Pkcs8, StatementKey, StatementPublic};
pub use login::{Admission, Authenticated, LoginAttempt, LoginFacts, LoginOutcome, PersonFacts, admit, judge};
pub use password::{Argon2id, Password, PasswordHash, PasswordHasher};
pub use pepper::{Pepper, PepperedMac, Peppers};
pub use recovery::{RecoveryCode, RecoveryRecord};
pub use stepup::{CanonicalRequest, PendingStepUp, ProofKind, StepUpLogin, StepUpProof, StepUpRefusal, SummarisedAct};
pub use token::{TOKEN_PATTERN, Token, TokenError, TokenKind, TokenRecord};
pub use totp::TotpSecret;
