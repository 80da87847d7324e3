//! The agent as a whole: a real sandbox on this machine under a small control plane that can misbehave.
#![expect(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test drives time, tasks and waits itself, and names only the faults that matter in a place"
)]

#[cfg(test)]
mod faults;
#[cfg(test)]
mod gpus;
#[cfg(test)]
#[path = "../../../../tests/src/groups.rs"]
#[expect(unreachable_pub, reason = "a file of the tests from end to end")]
mod groups;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod life;
#[cfg(test)]
mod plane;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod world;
