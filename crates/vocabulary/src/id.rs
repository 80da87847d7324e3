//! The one registry of ids: sixteen bytes each (UUID version 7), a type per noun, naming no cell and no tenant.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::UnixTime;

/// A text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {noun} id: expected a UUID such as 0190b5b4-0000-7000-8000-000000000000")]
pub struct IdError {
    /// What was given, cut to a printable length.
    pub text: String,
    /// The noun with its article.
    pub noun: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id from the time and ten random bytes, both passed in (UUID version 7, RFC 9562).
            #[must_use]
            pub fn new(now: UnixTime, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(now.millis(), &random).into_uuid())
            }
            /// Takes sixteen bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self { Self(Uuid::from_bytes(bytes)) }
            /// Reads sixteen bytes, as they stand in a database row.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> { Uuid::from_slice(bytes).ok().map(Self) }
            /// The sixteen bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] { self.0.as_bytes() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.hyphenated().fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.hyphenated())
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let shaped = text.len() == 36;
                match Uuid::try_parse(text) {
                    Ok(id) if shaped => Ok(Self(id)),
                    Ok(_) | Err(_) => Err(IdError {
                        text: text.chars().filter(|c| !c.is_control()).take(64).collect(),
                        noun: $noun,
                    }),
                }
            }
        }
    )*};
}

ids! {
    /// One deployment of Swarm: its database, log, CA and seal.
    DeploymentId, "a deployment";
    /// A tenant: whoever owns data and jobs, apart from all others.
    TenantId, "a tenant";
    /// A project of a tenant.
    ProjectId, "a project";
    /// A human with factors (password, TOTP, recovery codes); holds principals.
    PersonId, "a person";
    /// Somebody or something that can be permitted: an operator, a user, a service account.
    PrincipalId, "a principal";
    /// A machine that runs jobs.
    NodeId, "a node";
    /// Whoever owns nodes.
    ProviderId, "a provider";
    /// A process of the control plane.
    ControlId, "a control-plane process";
    /// A job.
    JobId, "a job";
    /// A volume of sealed data.
    VolumeId, "a volume";
    /// An unbroken history of a volume's roots; a restore begins a new one.
    LineageId, "a lineage";
    /// A name under which a tenant uses an image.
    ImageId, "an image";
    /// A key of any level.
    KeyId, "a key";
    /// A token: a login, a service token, a join token, a ticket.
    TokenId, "a token";
    /// A secret that jobs are given: a token, a password.
    SecretId, "a secret";
    /// A lease on an opened key.
    LeaseId, "a lease";
    /// An audit entry; its place in the log is its index.
    EntryId, "an audit entry";
    /// A pending step-up: one request that waits for a fresh factor.
    StepUpId, "a step-up";
}

/// A deployment's own keys carry this owner instead of a tenant: sixteen zero bytes.
pub const SYSTEM_OWNER: TenantId = TenantId::from_bytes([0; 16]);
