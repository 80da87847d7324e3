//! What the control plane keeps of each resource, as bodies of the store. Every body carries its format version.

use serde::{Deserialize, Serialize};
use vocabulary::api::PrincipalKind;
use vocabulary::volume::VolumeSpec;
use vocabulary::{
    Name, PersonId, PrincipalId, ProjectId, Sensitivity, TenantId, UnixTime, VolumeId,
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
