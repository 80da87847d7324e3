//! Jobs between the planner's rows and the store: how they lie there, how rules see them, how an attempt ends.

use policy::{JobFacts, NodeFacts, SetFacts};
use store::{Expect, Kind, Put};

use crate::api::problem::Failure;
use crate::planner::JobRow;

/// Waits for a node. The states of a job's row are for finding; its body says everything.
pub(crate) const PENDING: &str = "pending";
/// Has a live attempt; `link` is its node.
pub(crate) const PLACED: &str = "placed";
/// Is over, and its receipt is neither built nor known to be impossible.
pub(crate) const ENDED: &str = "ended";
/// Nothing will change any more.
pub(crate) const DONE: &str = "done";

impl JobRow {
    /// As rules see it, with the node of its newest attempt.
    pub(crate) fn facts(&self, tenant: SetFacts, node: Option<NodeFacts>) -> JobFacts {
        JobFacts {
            id: self.id,
            tenant,
            project: self.project,
            sensitivity: self.spec.sensitivity,
            purpose: self.spec.purpose.clone(),
            region: self.spec.region.clone(),
            jurisdictions: self.spec.jurisdictions.clone(),
            runtime: self.spec.runtime.unwrap_or_default(),
            gpus: self.spec.gpus,
            grants: self.spec.grants.clone(),
            node,
        }
    }

    /// The word under which it is found.
    pub(crate) fn found_as(&self) -> &'static str {
        match (&self.exit, self.live(), &self.receipt) {
            (Some(_), _, Some(_)) => DONE,
            (Some(_), _, None) => ENDED,
            (None, Some(_), _) => PLACED,
            (None, None, _) => PENDING,
        }
    }

    /// The write of this row: every change of a job goes through here.
    pub(crate) fn put(&self, expect: Expect) -> Result<Put, Failure> {
        let put = Put::json(self.tenant, Kind::JOB, self.id, expect, self)
            .map_err(Failure::internal)?
            .project(self.project)
            .state(self.found_as());
        Ok(match self.live() {
            Some(attempt) if self.exit.is_none() => put.link(attempt.node),
            _ => put,
        })
    }
}
