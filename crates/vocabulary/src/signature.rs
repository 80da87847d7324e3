//! Signatures of images: who must have signed before a job may run one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, UnixTime};

/// Somebody whose signature counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSigner {
    /// A name for people.
    pub name: Name,
    /// The public key, PEM: ECDSA P-256 or Ed25519.
    pub key: String,
    /// Repositories for which it may sign, as the payload names them; one that ends with `/` covers what lies below. Empty: any.
    #[serde(default)]
    pub references: Vec<String>,
}

/// Who must have signed an image. Without signers nobody must.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePolicy {
    /// How many different signers, at least 1 where there are signers.
    pub required: u32,
    /// Those who count.
    pub signers: Vec<ImageSigner>,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagePolicyInForce {
    /// The policy.
    pub policy: ImagePolicy,
    /// When it was set; absent where none ever was.
    #[serde(default)]
    pub changed: Option<UnixTime>,
    /// The entry of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}

/// One signature in cosign's form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSignature {
    /// The simple-signing payload, base64.
    pub payload: String,
    /// Over the payload's bytes, base64: DER for ECDSA, 64 bytes for Ed25519.
    pub signature: String,
}

/// Signatures of one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSignatures {
    /// Each once.
    pub signatures: Vec<ImageSignature>,
}
