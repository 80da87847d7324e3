//! Volumes: what a tenant asks for, and the head that the control plane keeps.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::label::Jurisdictions;
use crate::{LineageId, Name, ProjectId, Purpose, Region, Sensitivity, Sha256Digest};

/// What a tenant asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Unique in the project.
    pub name: Name,
    /// The project.
    pub project: ProjectId,
    /// Where the sealed bytes lie.
    pub region: Region,
    /// Jurisdictions in which the data may be opened; empty means any.
    #[serde(default)]
    pub jurisdictions: Jurisdictions,
    /// How sensitive it is.
    pub sensitivity: Sensitivity,
    /// What it may be used for.
    pub purpose: Purpose,
    /// The least trust of a node that may open it; `None` takes the default of its sensitivity.
    #[serde(default)]
    pub min_trust: Option<u8>,
}

/// The newest root of a volume, as the control plane compares and sets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RootHead {
    /// The lineage: a restore begins a new one.
    pub lineage: LineageId,
    /// Counts from 1; 0 means that nothing was put yet.
    pub seq: u64,
    /// The writer epoch that signed it.
    pub writer_epoch: u64,
    /// SHA-256 of the root record's CBOR; zeroes while `seq` is 0.
    pub root: Sha256Digest,
}
