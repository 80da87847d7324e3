//! Leases: the right to hold an opened key, for one attempt or person, until a time.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::job::AttemptId;
use crate::volume::RootHead;
use crate::{KeyId, LeaseId, PrincipalId, Purpose, TenantId, UnixTime, VolumeId};

/// What the holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeaseMode {
    /// Open.
    Read,
    /// Open, seal, and sign roots of one writer epoch.
    Write,
}

/// Who holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeaseHolder {
    /// One attempt of a job.
    Attempt(AttemptId),
    /// A person's or service account's principal.
    Principal(PrincipalId),
}

/// Asks for the keys of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// What for.
    pub mode: LeaseMode,
    /// The purpose of this use; must equal the volume's. A job's comes from its stored spec and is not read from here.
    #[serde(default)]
    pub purpose: Option<Purpose>,
    /// A fresh X25519 public key, base64 of 32 bytes: the keys are sealed to it (HPKE, RFC 9180).
    pub recipient: String,
    /// For `write`: a fresh Ed25519 public key, base64 of 32 bytes, that will sign the roots of one writer epoch.
    #[serde(default)]
    pub signer: Option<String>,
}

/// One epoch of a volume's data key, sealed to the recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleasedKey {
    /// The key.
    pub key: KeyId,
    /// Its version, which is the volume's key epoch.
    pub version: u32,
    /// HPKE's encapsulated key, base64.
    pub encapsulated: String,
    /// HPKE's ciphertext of the 32-byte key, base64.
    pub sealed: String,
}

/// A registered signer of roots, and the writer epoch it may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WriterEpoch {
    /// The epoch.
    pub epoch: u64,
    /// The Ed25519 public key, base64 of 32 bytes.
    pub signer: String,
    /// The audit entry of the registration.
    pub audit_index: u64,
}

/// A lease with its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The lease.
    pub id: LeaseId,
    /// The tenant, from the stored placement or the credential, never from the request.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeId,
    /// Who holds it.
    pub holder: LeaseHolder,
    /// What for.
    pub mode: LeaseMode,
    /// The keys, newest last.
    pub keys: Vec<ReleasedKey>,
    /// For `write`: the epoch that was opened.
    pub writer: Option<WriterEpoch>,
    /// All signers ever registered, so that the chain of roots can be checked.
    pub signers: Vec<WriterEpoch>,
    /// The volume's head at this moment.
    pub head: RootHead,
    /// When it ends unless it is renewed, ms since 1970.
    pub expires: UnixTime,
    /// The entry that was recorded before the key left.
    pub audit_index: u64,
}

/// The `info` of HPKE for a released key: `swarm/key-release/v1`, lease, volume, key, version.
///
/// Both sides compute it; a key sealed for another lease or volume does not open.
#[must_use]
pub fn release_info(lease: LeaseId, volume: VolumeId, key: KeyId, version: u32) -> Vec<u8> {
    let mut info = b"swarm/key-release/v1".to_vec();
    info.extend_from_slice(lease.as_bytes());
    info.extend_from_slice(volume.as_bytes());
    info.extend_from_slice(key.as_bytes());
    info.extend_from_slice(&version.to_be_bytes());
    info
}

/// Why a lease is over, as nodes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseEnd {
    /// The holder gave it back or its job ended.
    Released,
    /// Nobody renewed it.
    Expired,
    /// It was revoked: the key, the volume, the job, the node or the principal.
    Revoked,
}
