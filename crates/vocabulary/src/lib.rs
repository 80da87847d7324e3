//! The words of Swarm: ids, names, places, specs, plans, reports and the bodies of the API.
//!
//! This crate does no I/O and holds no rules beyond "is this value well formed?".
//! Everything that crosses a wall between two rooms, or between two machines, is a type of this crate.
#![forbid(unsafe_code)]

pub mod api;
pub mod channel;
pub mod custody;
pub mod digest;
pub mod fault;
pub mod id;
pub mod isolation;
pub mod job;
pub mod label;
pub mod lease;
pub mod limits;
pub mod name;
pub mod plan;
pub mod problem;
pub mod quota;
pub mod runtime;
pub mod secret;
pub mod signature;
pub mod time;
pub mod volume;
pub mod witness;

pub use digest::Sha256Digest;
pub use id::*;
pub use label::{Jurisdiction, Labels, Purpose, Region, Sensitivity, TrustLevel};
pub use name::{Name, NameError};
pub use problem::{ErrorCode, Problem};
pub use time::UnixTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The profile of a deployment, chosen when it is made and never changed.
///
/// `Production` refuses by name what is not built yet; `Development` permits the passphrase seal,
/// TOTP where a rule asks for a passkey, fewer approvals, and logs without witnesses, each labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For learning and for one person: weaker choices are permitted and labelled.
    Development,
    /// Weaker choices are refused.
    Production,
}

impl Profile {
    /// The word used in files, receipts and status lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}
