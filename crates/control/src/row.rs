//! What the control plane keeps of each resource, as bodies of the store. Every body carries its format version.

use serde::{Deserialize, Serialize};
use vocabulary::api::PrincipalKind;
use vocabulary::plan::NodePlace;
use vocabulary::volume::VolumeSpec;
use vocabulary::{
    EntryId, ImageId, Name, NodeId, PersonId, PrincipalId, ProjectId, ProviderId, Sensitivity, Sha256Digest, TenantId, TokenId, UnixTime, VolumeId,
};

/// The version of all bodies written by this program.
pub(crate) const FORMAT: u32 = 1;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantRow {
    pub(crate) format: u32,
    pub(crate) id: TenantId,
    pub(crate) name: Name,
    pub(crate) suspended: bool,
    pub(crate) created: UnixTime,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectRow {
    pub(crate) format: u32,
    pub(crate) id: ProjectId,
    pub(crate) name: Name,
    pub(crate) created: UnixTime,
}

/// A principal: an operator, a user, a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrincipalRow {
    pub(crate) format: u32,
    pub(crate) id: PrincipalId,
    pub(crate) kind: PrincipalKind,
    pub(crate) name: Name,
    /// For operators and users.
    pub(crate) person: Option<PersonId>,
    pub(crate) roles: Vec<String>,
    pub(crate) clearance: Sensitivity,
    pub(crate) created: UnixTime,
    /// The ticket that its person has not redeemed yet. Until then nobody acts as it. Rows from before there were such tickets
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) invited: Option<TokenId>,
}

/// A volume, without its head and keys, which have tables of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeRow {
    pub(crate) format: u32,
    pub(crate) id: VolumeId,
    pub(crate) spec: VolumeSpec,
    pub(crate) min_trust: u8,
    /// Where its objects lie: 32 random hexadecimal digits (`volume.md` 4.6).
    pub(crate) prefix: String,
    pub(crate) owner: PrincipalId,
    pub(crate) created: UnixTime,
}

/// A node, as its enrolment and its operators left it. What it says itself lies in a [`SeenRow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRow {
    pub(crate) format: u32,
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    pub(crate) provider: Option<ProviderId>,
    pub(crate) place: NodePlace,
    /// Ed25519, base64 of 32 bytes: signs its statements.
    pub(crate) record_key: String,
    /// The entry of its enrolment.
    pub(crate) enrolled: EntryId,
    pub(crate) created: UnixTime,
    pub(crate) draining: bool,
    pub(crate) revoked: bool,
    /// Whether its silence is recorded.
    pub(crate) lost: bool,
    /// While it is draining: when the jobs that are still on it are sent away; `None` lets them end by themselves.
    #[serde(default)]
    pub(crate) drain_until: Option<UnixTime>,
    /// The tenant for which it is set apart.
    #[serde(default)]
    pub(crate) dedicated: Option<TenantId>,
    /// The entry that says so.
    #[serde(default)]
    pub(crate) dedicated_entry: Option<EntryId>,
}

impl NodeRow {
    /// When its jobs are sent away, if they are.
    pub(crate) fn evict_at(&self) -> Option<UnixTime> {
        self.drain_until.filter(|_| self.draining && !self.revoked)
    }
    /// As rules see it. Its trust is 0 until the enclave room exists.
    pub(crate) fn facts(&self) -> policy::NodeFacts {
        policy::NodeFacts {
            id: self.id,
            provider: self.provider,
            region: self.place.region.clone(),
            jurisdiction: self.place.jurisdiction.clone(),
            trust: 0,
        }
    }
}

/// A certificate that was issued to a node, under its serial number: `link` is the node, `until` its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateRow {
    pub(crate) format: u32,
    pub(crate) node: NodeId,
    /// SHA-256 of the leaf's DER.
    pub(crate) certificate: Sha256Digest,
    /// Leaf, then issuing authority, DER, base64.
    pub(crate) chain: Vec<String>,
    pub(crate) not_before: UnixTime,
    pub(crate) issued: UnixTime,
    /// The entry of its issue.
    pub(crate) entry: EntryId,
}

/// What a join token lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinScope {
    pub(crate) name: Name,
    pub(crate) place: NodePlace,
    pub(crate) provider: Option<ProviderId>,
}

/// An image: a manifest and the name under which it was imported. The store's name column says whether it still has the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRow {
    pub(crate) format: u32,
    pub(crate) id: ImageId,
    pub(crate) name: Name,
    pub(crate) manifest: Sha256Digest,
    /// Bytes of all blobs.
    pub(crate) size: u64,
    /// Where it was pulled from, as the importer said.
    #[serde(default)]
    pub(crate) source: Option<String>,
    pub(crate) importer: PrincipalId,
    pub(crate) created: UnixTime,
}
