//! Jobs: what a tenant asks for, the states an attempt goes through, and how it ended.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

use crate::label::Jurisdictions;
use crate::{JobId, Labels, Name, Purpose, Region, SecretId, Sensitivity, Sha256Digest, UnixTime, VolumeId};

/// Limits of a job; every one is enforced by the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobLimits {
    /// Memory in bytes, no swap beyond it.
    pub memory_bytes: u64,
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Encrypted scratch in bytes: inputs, outputs and `/scratch` together.
    pub scratch_bytes: u64,
    /// Longest run in milliseconds.
    pub time_ms: u64,
    /// Time between SIGTERM and SIGKILL in milliseconds.
    pub grace_ms: u64,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            cpu_millis: 1000,
            pids: 4096,
            scratch_bytes: 1 << 30,
            time_ms: 3_600_000,
            grace_ms: 10_000,
        }
    }
}

/// An opt-in that widens the sandbox; permitted by policy, shown in the receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxGrant {
    /// `ptrace` and `process_vm_*` inside the job.
    Debug,
    /// `io_uring`.
    Uring,
    /// `process_vm_*` for NCCL and MPI on one node.
    Cma,
    /// Execution of files from `/tmp` and `/scratch`.
    MayCompile,
}

impl SandboxGrant {
    /// The word in specs and policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Uring => "uring",
            Self::Cma => "cma",
            Self::MayCompile => "may_compile",
        }
    }

    /// Whether it opens more of the kernel to the job: policy decides on it by an action of its own.
    #[must_use]
    pub const fn opens_kernel(self) -> bool {
        match self {
            Self::Debug | Self::Uring | Self::Cma => true,
            Self::MayCompile => false,
        }
    }
}

/// The class of place that a job demands (beside region, jurisdictions and labels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Any node that takes the tenant's jobs; jobs of other tenants may run beside it.
    #[default]
    Shared,
    /// A node that the operator set apart for the tenant, without a job of anybody else beside it.
    OwnNode,
}

impl Placement {
    /// Whether it demands nothing.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Shared)
    }
    /// The word, as it stands in a spec.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::OwnNode => "own_node",
        }
    }
}

/// What a job demands of its place, as the entry of a placement and the receipt show it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceDemands {
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// One of these jurisdictions.
    #[serde(default, skip_serializing_if = "Jurisdictions::is_empty")]
    pub jurisdictions: Jurisdictions,
    /// These labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub node_labels: Labels,
    /// The class.
    #[serde(default, skip_serializing_if = "Placement::is_shared")]
    pub placement: Placement,
}

impl PlaceDemands {
    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A volume that a job reads: opened into `/inputs/NAME`, bound read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobInput {
    /// The volume.
    pub volume: VolumeId,
    /// The directory below `/inputs`; the name `code` is bound at `/code` instead.
    pub name: Name,
}

/// A volume that a job writes: sealed from `/outputs/NAME` when the job has ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobOutput {
    /// The volume.
    pub volume: VolumeId,
    /// The directory below `/outputs`.
    pub name: Name,
}

/// A secret that a job is given: a file of its own memory, `/run/secrets/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSecret {
    /// The secret.
    pub secret: SecretId,
    /// The file below `/run/secrets`.
    pub name: Name,
}

/// What a tenant asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// A name for people; need not be unique.
    pub name: Name,
    /// The image: its manifest's digest. Names are resolved before.
    pub image: Sha256Digest,
    /// The command; empty means the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables beside the image's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Volumes to read.
    #[serde(default)]
    pub inputs: Vec<JobInput>,
    /// Volumes to write.
    #[serde(default)]
    pub outputs: Vec<JobOutput>,
    /// Secrets, each as a file below `/run/secrets`. Left out where there are none, so that older specs keep their digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<JobSecret>,
    /// What the data is used for; must equal the purpose of every volume that names one.
    pub purpose: Purpose,
    /// At least the sensitivity of every input.
    pub sensitivity: Sensitivity,
    /// The region it must run in; `None` means any that the data allows.
    #[serde(default)]
    pub region: Option<Region>,
    /// Jurisdictions it may run in; empty means any that the data allows.
    #[serde(default)]
    pub jurisdictions: Jurisdictions,
    /// Labels that the node must have.
    #[serde(default)]
    pub node_labels: Labels,
    /// The class of place that it demands.
    #[serde(default)]
    pub placement: Placement,
    /// Limits.
    #[serde(default)]
    pub limits: JobLimits,
    /// Opt-ins.
    #[serde(default)]
    pub grants: BTreeSet<SandboxGrant>,
    /// The runtime that shall make the sandbox; `None` means the node's default, `youki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<crate::runtime::Runtime>,
    /// GPUs; refused by name on nodes without one.
    #[serde(default)]
    pub gpus: u32,
    /// Whether the job asks for a network; refused by name until the mesh exists.
    #[serde(default)]
    pub network: bool,
    /// How long an attempt lives without a renewal, 30,000 to 86,400,000 ms.
    #[serde(default = "run_lease_default")]
    pub run_lease_ms: u64,
    /// How often it may be started again elsewhere when its machine failed it or sent it away, 0 to 10. A job that ends by
    /// itself, is stopped or reaches a limit is never started again.
    #[serde(default = "restarts_default")]
    pub restarts: u32,
}

impl JobSpec {
    /// What it demands of its place.
    #[must_use]
    pub fn demands(&self) -> PlaceDemands {
        PlaceDemands {
            region: self.region.clone(),
            jurisdictions: self.jurisdictions.clone(),
            node_labels: self.node_labels.clone(),
            placement: self.placement,
        }
    }
}

/// More than three machines dying under one job is not chance.
pub const RESTARTS_DEFAULT: u32 = 2;
fn restarts_default() -> u32 {
    RESTARTS_DEFAULT
}

/// 15 minutes: rides out a restart of the control plane, and fails over within a coffee break.
pub const RUN_LEASE_DEFAULT_MS: u64 = 900_000;
fn run_lease_default() -> u64 {
    RUN_LEASE_DEFAULT_MS
}

/// One run of a job: the first attempt is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// The number of the attempt.
    pub attempt: u32,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.job, self.attempt)
    }
}

/// The states of an attempt, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a node.
    Pending,
    /// The node fetches and unpacks the image.
    Pulling,
    /// The node opens the inputs into encrypted scratch.
    Opening,
    /// The sandbox is made and read back.
    Creating,
    /// The job's program runs.
    Running,
    /// It was told to stop.
    Stopping,
    /// Outputs are sealed.
    Sealing,
    /// The program ended and outputs, if any, are sealed.
    Exited,
    /// It ended for another reason than its own program's end.
    Failed,
}

impl JobState {
    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Exited | Self::Failed)
    }
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pulling => "pulling",
            Self::Opening => "opening",
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Sealing => "sealing",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }
}

/// Why an attempt ended, apart from its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The program ended with code 0.
    Completed,
    /// The program ended with another code, or by a signal nobody of ours sent.
    Failed,
    /// The memory limit was reached and the kernel killed it.
    Oom,
    /// The time limit was reached.
    Timeout,
    /// Somebody stopped it.
    Cancelled,
    /// The node was drained or the plan changed.
    Evicted,
    /// Its run lease ended without renewal.
    LeaseEnded,
    /// A key lease was revoked.
    KeyRevoked,
    /// The image could not be fetched, verified or unpacked.
    Image,
    /// An input or a secret could not be opened.
    Input,
    /// An output could not be sealed.
    Output,
    /// The sandbox could not be made, or a layer that was asked for was missing.
    Create,
    /// Its supervisor died.
    SupervisorLost,
    /// The machine restarted.
    Reboot,
    /// The node was lost.
    NodeLost,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// The program's exit code, if it exited.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default)]
    pub signal: Option<i32>,
    /// One sentence of evidence, such as `memory limit 64 MiB reached (peak 64.0 MiB)`.
    pub detail: String,
    /// Kills by the kernel for lack of memory.
    #[serde(default)]
    pub oom_kills: u64,
    /// Peak memory in bytes, where the kernel tells it.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// CPU time in milliseconds.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// When the program started.
    #[serde(default)]
    pub started: Option<UnixTime>,
    /// When it ended.
    pub ended: UnixTime,
}

/// Where a frame of a log came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One frame of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFrame {
    /// Counts from 1 without holes; a hole is a [`LogFrame::lost`].
    pub sequence: u64,
    /// When the supervisor read it.
    pub time: UnixTime,
    /// Which stream.
    pub stream: LogStream,
    /// The bytes, base64; at most 16 KiB.
    pub data: String,
    /// Frames that were dropped just before this one because the ring was full.
    #[serde(default)]
    pub lost: u64,
}
