//! Values that several tests of this crate use.

use vocabulary::job::AttemptId;
use vocabulary::plan::{Desired, PlannedJob};
use vocabulary::{JobId, LeaseId, ProjectId, Sensitivity, Sha256Digest, TenantId};

/// An attempt of a small job.
pub(crate) fn planned_job(attempt: u32) -> PlannedJob {
    let spec = serde_json::json!({"name": "train", "image": Sha256Digest::from_bytes([1; 32]), "purpose": "research", "sensitivity": Sensitivity::Internal});
    PlannedJob {
        attempt: AttemptId { job: JobId::from_bytes([0xab; 16]), attempt },
        tenant: TenantId::from_bytes([2; 16]),
        project: ProjectId::from_bytes([3; 16]),
        spec: serde_json::from_value(spec).unwrap(),
        desired: Desired::Run,
        run_lease: LeaseId::from_bytes([4; 16]),
    }
}
