//! Secrets: small values that jobs need and nobody else may see. The value is sealed where the person is; the control plane
//! keeps the sealed bytes and releases the key that opens them, as it does for volumes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lease::LeaseHolder;
use crate::{KeyId, LeaseId, Name, PrincipalId, ProjectId, SecretId, TenantId, UnixTime};

/// What a secret may be used for. Chosen when it is made, and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretUse {
    /// Jobs of its project are given it, and no person.
    Job,
    /// People who may write in its project open it on their own machine to pull an image.
    Pull,
}

/// Makes a secret. Its value follows, sealed with the key that the answer carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretCreate {
    /// Its name, unique in its project.
    pub name: Name,
    /// The project whose jobs and people may use it.
    pub project: ProjectId,
    /// What for; at least one.
    pub uses: BTreeSet<SecretUse>,
    /// A fresh X25519 public key, base64 of 32 bytes: the key of the secret is sealed to it (HPKE, RFC 9180).
    pub recipient: String,
}

/// Asks for the key of a secret: to seal a new value, or to open the one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// A fresh X25519 public key, base64 of 32 bytes.
    pub recipient: String,
}

/// The key of one version of a secret, sealed to the recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    /// The release; it enters the key's HPKE context.
    pub lease: LeaseId,
    /// The tenant, from the credential or the stored placement.
    pub tenant: TenantId,
    /// The secret.
    pub secret: SecretId,
    /// The key.
    pub key: KeyId,
    /// The version of key and value.
    pub version: u32,
    /// HPKE's encapsulated key, base64.
    pub encapsulated: String,
    /// HPKE's ciphertext of the 32-byte key, base64.
    pub sealed: String,
}

/// A version of a secret that waits for its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSlot {
    /// The key to seal the value with.
    pub key: SecretKey,
    /// The entry.
    pub audit_index: u64,
}

/// The value of a version, sealed (`docs/spec/secret.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// The version that waits for it.
    pub version: u32,
    /// The sealed bytes, base64.
    pub sealed: String,
}

/// A secret that was released: its key, and its sealed value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleasedSecret {
    /// The key.
    pub key: SecretKey,
    /// Who holds it.
    pub holder: LeaseHolder,
    /// The sealed value, base64.
    pub value: String,
    /// The entry that was recorded before the key left.
    pub audit_index: u64,
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// The secret.
    pub id: SecretId,
    /// Its name.
    pub name: Name,
    /// Its project.
    pub project: ProjectId,
    /// What it may be used for.
    pub uses: BTreeSet<SecretUse>,
    /// The version that is given out; 0 while it has no value.
    pub version: u32,
    /// Who made it.
    pub owner: PrincipalId,
    /// When it was made.
    pub created: UnixTime,
    /// When its value was set last; absent while it has none.
    #[serde(default)]
    pub changed: Option<UnixTime>,
    /// The entry of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}

/// The `info` of HPKE for the key of a secret: `swarm/secret-release/v1`, lease, secret, key, version.
#[must_use]
pub fn release_info(lease: LeaseId, secret: SecretId, key: KeyId, version: u32) -> Vec<u8> {
    let mut info = b"swarm/secret-release/v1".to_vec();
    info.extend_from_slice(lease.as_bytes());
    info.extend_from_slice(secret.as_bytes());
    info.extend_from_slice(key.as_bytes());
    info.extend_from_slice(&version.to_be_bytes());
    info
}
