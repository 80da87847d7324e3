//! The seal and the life of keys, as the API tells of them. No key is in any of these bodies; shares and passphrases are in
//! those that carry them from or to their custodians, and do not print.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Sha256Digest, UnixTime};

/// The seal: what opens it, and how far its opening is. Public: whoever holds a share asks before it has a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SealStatus {
    /// `open` or `sealed`.
    pub state: String,
    /// `passphrase` or `shares`.
    pub kind: String,
    /// Counts the deployment's seals from 1.
    pub generation: u32,
    /// How many shares open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u8>,
    /// How many shares there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u8>,
    /// The newest root epoch.
    pub epoch: u32,
    /// The places of the shares that were entered and wait for more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entered: Vec<u8>,
    /// Names the attempt that they belong to; sent with every share but the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// When what was entered is wiped, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
}

/// Enters a share, or the passphrase. Public: it is itself the credential.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealOpen {
    /// A share, as it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// The passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// The attempt; absent with the first share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

impl std::fmt::Debug for SealOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealOpen").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

/// Asks for a new set of shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealInit {
    /// How many shares: one per custodian.
    pub shares: u8,
    /// How many of them open the seal.
    pub threshold: u8,
}

/// A new set of shares, told once. Nothing is sealed under it before it is confirmed.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SealShares {
    /// The generation that they are of.
    pub generation: u32,
    /// How many open the seal.
    pub threshold: u8,
    /// The shares in the order of their places.
    pub shares: Vec<String>,
    /// When they are forgotten unless they were confirmed, ms since 1970.
    pub until: UnixTime,
    /// The entry in the audit log.
    pub audit_index: u64,
    /// Labels that apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl std::fmt::Debug for SealShares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealShares").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Puts a new set of shares in force, once all of them are safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealConfirm {
    /// Their generation.
    pub generation: u32,
    /// SHA-256 of the shares as they were told, each followed by a line feed: whoever knows it received them all.
    pub received: Sha256Digest,
}

/// Schedules the destruction of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyDestroy {
    /// Days in which it can still be cancelled, 7 to 30; 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_days: Option<u32>,
}

/// A destruction that is scheduled: nothing opens the key any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scheduled {
    /// The entry in the audit log.
    pub audit_index: u64,
    /// When the key is destroyed, ms since 1970; until then it can be cancelled.
    pub due: UnixTime,
    /// When the last backup that holds it has ended: not before is its data shredded.
    pub unrecoverable_since: UnixTime,
    /// Labels that apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Says how long backups of the deployment are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRetention {
    /// Days, 1 to 3,650.
    pub days: u32,
}

/// A version of a key that wraps others, or a root epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RewrapLine {
    /// The version, or the epoch.
    pub version: u32,
    /// Its state; root epochs are `active` or `deactivated`.
    pub state: String,
    /// When it was made.
    pub created: UnixTime,
    /// Keys that lie under it.
    pub keys: u64,
}

/// How far a rewrap is: what lies under old versions is still to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rewrap {
    /// The versions that exist, oldest first.
    pub versions: Vec<RewrapLine>,
    /// Keys that are still to be moved.
    pub left: u64,
}

/// The answer to a rotation of the root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RootRotated {
    /// The new epoch.
    pub epoch: u32,
    /// The entry in the audit log.
    pub audit_index: u64,
    /// Labels that apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A line of the key inventory: one purpose, made from the code's table and the store's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InventoryLine {
    /// What the keys are for.
    pub purpose: String,
    /// What they are used with.
    pub algorithm: String,
    /// Their length in bits.
    pub bits: u16,
    /// Under what they lie wrapped.
    pub under: String,
    /// How many versions are in each state.
    pub states: std::collections::BTreeMap<String, u64>,
    /// When the oldest active version was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_active: Option<UnixTime>,
    /// When the next version is made by age, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation: Option<UnixTime>,
    /// How versions are replaced.
    pub rotation: String,
}

/// The key inventory: every purpose, also those without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inventory {
    /// One line for each purpose.
    pub purposes: Vec<InventoryLine>,
    /// When it was made.
    pub time: UnixTime,
}
