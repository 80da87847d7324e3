//! What really isolates a job, read back from the kernel before its first instruction.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was seen of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerVerdict {
    /// Asked for, and read back as in force.
    Held,
    /// Not in force. If it was asked for, the job does not start.
    Absent,
    /// The backend hides it: nobody read it back.
    NotObservable,
}

/// One layer of isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Its name, such as `user_namespace`, `seccomp`, `landlock`, `memory_limit`.
    pub name: String,
    /// Whether the plan asked for it.
    pub asked: bool,
    /// What was seen.
    pub verdict: LayerVerdict,
    /// The bytes that were read back, such as `Seccomp: 2`.
    pub observed: String,
}

/// All layers of one attempt, as the node saw them.
///
/// Without a TEE this is the node's own signed word: the owner of the machine could lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IsolationReport {
    /// The backend, such as `libcontainer 0.7.0`.
    pub backend: String,
    /// `unified` or `hybrid`.
    pub cgroup_layout: String,
    /// The kernel's release.
    pub kernel: String,
    /// What made the sandbox; absent in reports from before there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<crate::runtime::RuntimeOffer>,
    /// The layers, in a fixed order.
    pub layers: Vec<Layer>,
}

impl IsolationReport {
    /// Whether every layer that was asked for is held or cannot be observed by this backend.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        self.layers
            .iter()
            .filter(|layer| layer.asked && layer.verdict == LayerVerdict::Absent)
            .map(|layer| layer.name.as_str())
            .collect()
    }
}
