//! The programs that make a job's sandbox: which there are, and what a node says of its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Sha256Digest;

/// What makes the sandbox of a job from one and the same bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// libcontainer of the youki project, a part of Swarm's own program: the default.
    #[default]
    Youki,
    /// The reference runtime of the Open Container Initiative.
    Runc,
    /// The runtime of the containers project.
    Crun,
    /// gVisor: the job's system calls meet a kernel in user space.
    Runsc,
    /// Kata Containers: a virtual machine for each job.
    Kata,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Youki, Self::Runc, Self::Crun, Self::Runsc, Self::Kata];

    /// The word in specs, options and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Youki => "youki",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
            Self::Kata => "kata",
        }
    }

    /// Whether jobs of our own tests run under it. What is not tested says so in facts and receipts.
    #[must_use]
    pub const fn tested(self) -> bool {
        match self {
            Self::Youki | Self::Runc | Self::Crun | Self::Runsc => true,
            Self::Kata => false,
        }
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no runtime; there are youki, runc, crun, runsc and kata")]
pub struct UnknownRuntime(String);

impl std::str::FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        // What a stranger wrote is told back, but not all of it.
        Self::ALL.into_iter().find(|runtime| runtime.as_str() == text).ok_or_else(|| UnknownRuntime(text.chars().take(40).collect()))
    }
}

/// A runtime as a node offers it, and as a receipt shows it: what made the sandbox, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuntimeOffer {
    /// Which one.
    pub runtime: Runtime,
    /// The version that it states itself.
    pub version: String,
    /// SHA-256 of the program that is executed, libraries that it loads apart; `None` where it is a part of Swarm's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Sha256Digest>,
    /// Whether our tests never ran a job under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untested: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_what_they_name() {
        for runtime in Runtime::ALL {
            assert_eq!(runtime.as_str().parse(), Ok(runtime));
            assert_eq!(serde_json::to_value(runtime).unwrap(), runtime.as_str());
        }
        let told = "docker".parse::<Runtime>().unwrap_err().to_string();
        assert!(told.contains("`docker`") && told.contains("runsc"), "{told}");
        assert!("x".repeat(1000).parse::<Runtime>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn what_is_not_said_is_not_written() {
        let offer = RuntimeOffer { runtime: Runtime::Youki, version: "1".to_owned(), digest: None, untested: false };
        assert_eq!(serde_json::to_string(&offer).unwrap(), r#"{"runtime":"youki","version":"1"}"#);
    }
}
