//! Quotas: how much a tenant or one of its projects may have at once.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ProjectId, TenantId};

/// Limits; what is absent has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaLimits {
    /// Jobs that are on a node at once. What is beyond waits, and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_jobs: Option<u64>,
    /// Jobs that wait for a node at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_jobs: Option<u64>,
    /// CPU of all jobs that are not over, in thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Memory of all jobs that are not over, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Images, those included that lost their name to a newer one. Of a tenant only: images belong to no project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Bytes of sealed objects and images. Not built: refused by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// What is in use, counted when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaUse {
    /// Jobs on a node.
    pub running_jobs: u64,
    /// Jobs that wait for a node.
    pub queued_jobs: u64,
    /// CPU of all jobs that are not over, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of all jobs that are not over, in bytes.
    pub memory_bytes: u64,
    /// Images.
    pub images: u64,
}

/// Limits of a tenant or project beside what is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// The tenant.
    pub tenant: TenantId,
    /// The project; absent for the tenant as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Its limits.
    pub limits: QuotaLimits,
    /// What is in use.
    pub used: QuotaUse,
    /// The entry in the audit log, in the answer of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}
