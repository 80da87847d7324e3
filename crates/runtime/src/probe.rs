//! What this machine can do for jobs, for `swarm doctor`.

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// What was seen.
    pub detail: String,
    /// What is lost without it.
    pub cost_of_absence: String,
}
