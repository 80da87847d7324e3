//! What one attempt shall run in, and the OCI specification made of it.

mod spec;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use vocabulary::job::{AttemptId, JobLimits, SandboxGrant};

pub(crate) use spec::{GPU_STAGE, for_launcher, gpu_nodes, masked, root_is_read_only_already};
#[cfg(test)]
pub(crate) use spec::tests::attempt as attempt_for_tests;
pub use spec::{SpecError, build as oci_spec};

/// A directory or file of the host that the *node agent* binds into the job. Never taken from a job's own wishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside, without `..`.
    pub target: String,
    /// Whether the job may only read it.
    pub readonly: bool,
    /// Whether files below it may be executed.
    pub exec: bool,
}

/// Everything a shim needs to run one attempt. It lies as `plan.json` in the attempt's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptSpec {
    /// The attempt.
    pub attempt: AttemptId,
    /// The unpacked image: a directory tree that nothing changes any more.
    pub image_root: PathBuf,
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// The whole environment of the program.
    pub env: BTreeMap<String, String>,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Working directory inside.
    pub cwd: String,
    /// Host name inside.
    pub hostname: String,
    /// Limits.
    pub limits: JobLimits,
    /// Mounts beside the fixed table. `/tmp`, `/dev/shm`, `/proc`, `/dev` and `/sys` are made by the sandbox.
    pub binds: Vec<BindMount>,
    /// Opt-ins.
    pub grants: BTreeSet<SandboxGrant>,
    /// GPUs that it has for itself.
    #[serde(default)]
    pub gpus: Vec<crate::gpu::GivenGpu>,
    /// What makes the sandbox. Plans of earlier versions name none and mean the default.
    #[serde(default)]
    pub backend: crate::backend::Backend,
    /// First of the [`crate::limits::ID_BLOCK`] host ids that belong to this attempt alone.
    pub id_base: u32,
    /// Name of the node's cgroup below the root of every hierarchy, such as `swarm`.
    pub cgroup_parent: String,
    /// End of the run lease, in milliseconds of the boot-time clock; `None` means no lease.
    pub deadline_boottime_ms: Option<u64>,
    /// Where the log's ring lies; `None` means `log` in the attempt's directory.
    pub log_dir: Option<PathBuf>,
}
