//! May they? Principal, action, resource and context in; a [`Permit`] or a [`Refusal`] out.
//!
//! The rules are Cedar policies under a strict schema: guardrails (`forbid`) that no tenant can edit, permits that every
//! set has, and the roles of one tenant written out as static policies. One set per tenant, so cost never grows with the
//! number of tenants. Evaluation errors deny. There is no decision cache.
//!
//! **Invariant:** this crate reads no clock, file or socket; ages and evidence come in as facts.
//! **Invariant:** [`decide`] is the only maker of a [`Permit`], and every privileged operation takes one by value.
#![forbid(unsafe_code)]

pub mod action;
mod decide;
mod explain;
pub mod facts;
pub mod role;
mod set;

pub use action::{ALL_ACTIONS, Action, ActionInfo};
pub use decide::{Decision, NextStep, Permit, Refusal, decide};
pub use explain::{Explanation, Rule, explain};
pub use facts::{CallFacts, Facts, Principal, ReleaseFacts, Resource, SetFacts};
pub use role::{Role, RoleBinding, RoleError};
pub use set::{PolicySets, SetError, default_min_trust};

#[cfg(test)]
mod tests;
