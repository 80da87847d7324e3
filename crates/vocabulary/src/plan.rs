//! What the control plane tells a node (the plan) and what a node tells back (the report).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::isolation::IsolationReport;
use crate::job::{AttemptId, Exit, JobSpec, JobState};
use crate::{DeploymentId, Jurisdiction, Labels, LeaseId, NodeId, ProjectId, Region, Sha256Digest, TenantId, UnixTime};

/// What a node shall do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It shall run.
    Run,
    /// Somebody cancelled it.
    Cancel,
    /// It shall go for another reason (drain, superseded).
    Evict,
    /// A key that it holds was revoked: freeze, kill, remove the scratch key, in that order.
    RevokeKeys,
}

/// One attempt that is placed on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its project.
    pub project: ProjectId,
    /// What it is.
    pub spec: JobSpec,
    /// What the node shall do with it.
    pub desired: Desired,
    /// The run lease.
    pub run_lease: LeaseId,
}

/// Certificates and nodes that are no longer trusted; grows by version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Rises with every change.
    pub version: u64,
    /// Nodes whose certificates are all revoked.
    pub nodes: Vec<NodeId>,
    /// Serial numbers of single certificates, hexadecimal.
    pub serials: Vec<String>,
}

/// Everything one node shall be. Carries no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePlan {
    /// The format: 1.
    pub format: u32,
    /// The deployment that it belongs to.
    pub deployment: DeploymentId,
    /// The node that it is for.
    pub node: NodeId,
    /// Rises with every change; a node refuses an older one.
    pub revision: u64,
    /// The attempts.
    pub jobs: Vec<PlannedJob>,
    /// Whom to refuse.
    pub revocations: Revocations,
}

/// A plan as it travels and lies on disk: the exact bytes and a signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedPlan {
    /// The JSON of a [`NodePlan`], base64.
    pub payload: String,
    /// Ed25519 over `swarm/node-plan/v1` ‖ payload bytes, base64, by the deployment's receipt key.
    pub signature: String,
}

/// The context string of a plan's signature.
pub const PLAN_CONTEXT: &[u8] = b"swarm/node-plan/v1";

/// What a node is and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeFacts {
    /// The host's name, as it says itself.
    pub hostname: String,
    /// The kernel's release.
    pub kernel: String,
    /// `unified`, `hybrid` or `legacy`.
    pub cgroup_layout: String,
    /// Thousandths of cores that jobs may use.
    pub cpu_millis: u64,
    /// Memory that jobs may use, in bytes.
    pub memory_bytes: u64,
    /// Disk for encrypted scratch, in bytes.
    pub scratch_bytes: u64,
    /// GPUs.
    pub gpus: u32,
    /// The runtimes that make sandboxes here; empty in facts from before there was a choice, which means `youki` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<crate::runtime::RuntimeOffer>,
    /// What the sandbox can do here: name of a layer or feature, and whether it is there. `gpus` says why fewer are in service
    /// than there are.
    pub features: Labels,
    /// The machine's boot id.
    pub boot_id: String,
    /// The version of the program.
    pub version: String,
}

impl NodeFacts {
    /// Whether jobs may ask for this runtime here. Facts that name none are from before there was a choice.
    #[must_use]
    pub fn offers(&self, runtime: crate::runtime::Runtime) -> bool {
        let all = &self.runtimes;
        if all.is_empty() { runtime == crate::runtime::Runtime::default() } else { all.iter().any(|offer| offer.runtime == runtime) }
    }
}

/// What a node saw of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptReport {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its state.
    pub state: JobState,
    /// Bytes done and to do of the current step, for progress.
    #[serde(default)]
    pub progress: Option<(u64, u64)>,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// The isolation that was read back.
    #[serde(default)]
    pub isolation: Option<IsolationReport>,
    /// When the state was entered.
    pub since: UnixTime,
}

/// A heartbeat: everything a node has to say. Repeating it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// Rises by one with every report of this run of the agent.
    pub sequence: u64,
    /// The plan that it works on.
    pub plan_revision: u64,
    /// What it is and has.
    pub facts: NodeFacts,
    /// Its attempts.
    pub attempts: Vec<AttemptReport>,
}

/// The answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportAnswer {
    /// The newest plan's revision: fetch it when it is not yours.
    pub plan_revision: u64,
    /// Run leases that were renewed, and for how many milliseconds from the receipt of the *request* on.
    pub renewed: Vec<RenewedRun>,
    /// Attempts whose end is recorded: their leftovers may be removed.
    pub acknowledged: Vec<AttemptId>,
}

/// A renewed run lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewedRun {
    /// The attempt.
    pub attempt: AttemptId,
    /// The lease.
    pub lease: LeaseId,
    /// Its length in milliseconds, counted by the node from when it *sent* the report.
    pub length_ms: u64,
}

/// Where a node stands and what it is for, as its join token said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePlace {
    /// Its region.
    pub region: Region,
    /// Its jurisdiction.
    pub jurisdiction: Jurisdiction,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
}

/// The image as a node fetches it: everything by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBlobs {
    /// The manifest.
    pub manifest: Sha256Digest,
    /// Manifest, config and layers with their sizes.
    pub blobs: Vec<BlobRef>,
}

/// A blob by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 of the bytes.
    pub digest: Sha256Digest,
    /// Their number.
    pub size: u64,
}
