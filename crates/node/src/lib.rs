//! The node agent: one loop that makes a machine match its plan.
//!
//! It holds the one mutually authenticated connection to the control plane, follows the signed plan, and gives every
//! attempt a task of its own. What an attempt does next is decided by a pure state machine (`attempt::machine`); the
//! sandbox is made by `runtime`, data is opened and sealed by `volume`, and the end is stated by `receipt`.
//!
//! **Invariant:** no key of a volume or of scratch is ever written to the disk; the plan and the records carry none.
//! **Invariant:** an attempt whose sandbox may have been made is found again or fails; it is never begun twice.
//! **Invariant:** a plan is in force only after its signature, deployment, node and revision were checked, and it was kept.
//! **Invariant:** an error of one attempt touches no other; every task is awaited.
#![forbid(unsafe_code)]

mod agent;
mod attempt;
mod channel;
mod clock;
mod cosign;
mod facts;
mod files;
mod follow;
mod gpus;
mod ids;
mod journal;
mod images;
mod join;
pub mod limits;
mod logs;
mod plan;
mod renew;
mod report;
mod sandbox;
mod secrets;
mod statement;
mod store;
pub mod support;
#[cfg(test)]
mod testing;
mod volumes;
pub mod witness;

pub use agent::{NodeOptions, RunError, run};
pub use gpus::GpuOptions;
pub use join::{JoinError, JoinOptions, Joined, join};
pub use plan::PlanRefusal;
pub use store::StoreError;
