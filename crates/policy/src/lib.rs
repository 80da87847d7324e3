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
mod bare;
mod decide;
mod explain;
pub mod facts;
mod limits;
mod own;
pub mod role;
mod scope;
mod set;
mod slice;

pub use action::{ALL_ACTIONS, Action, ActionInfo, EntityKind};
pub use bare::BareCall;
pub use decide::{Decision, NextStep, Permit, Refusal, decide};
pub use explain::{Explanation, Rule, explain};
pub use facts::{CallFacts, Facts, FactsError, JobFacts, NodeFacts, Principal, ReleaseFacts, Resource, SetFacts};
pub use own::{OwnPolicies, OwnPolicyError};
pub use role::{Role, RoleBinding, RoleError};
pub use set::{BUILT_IN_EPOCH, PolicySets, SetError, TenantPolicies, default_min_trust};

#[cfg(test)]
mod tests;
