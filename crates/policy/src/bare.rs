//! The bare call of Cedar, for measuring what a decision costs beside it.

use cedar_policy::{Authorizer, Entities, Request};
use std::sync::Arc;

use crate::action::Action;
use crate::facts::{Facts, FactsError};
use crate::set::{PolicySets, TenantPolicies};
use crate::slice::Built;

/// Request, slice and set of one decision, ready for the authorizer. What comes out is no permit.
#[derive(Debug)]
pub struct BareCall {
    authorizer: Authorizer,
    request: Request,
    entities: Entities,
    set: Arc<TenantPolicies>,
}

impl BareCall {
    /// Builds what [`decide`](crate::decide) builds for the same facts.
    ///
    /// # Errors
    /// When the facts do not fit the schema.
    pub fn of<A: Action>(sets: &PolicySets, facts: &Facts) -> Result<Self, FactsError> {
        let set = sets.of(facts.principal.tenant()).map_err(FactsError::new)?;
        let action = sets.action(A::NAME)?;
        let Built { principal, resource, context, entities } = facts.build(sets, action, facts.call.approvals)?;
        let request = Request::new(principal, action.uid.clone(), resource, context, Some(&sets.schema)).map_err(FactsError::new)?;
        Ok(Self { authorizer: Authorizer::new(), request, entities, set })
    }

    /// Asks Cedar; says whether a rule permits and none forbids.
    #[must_use]
    pub fn ask(&self) -> bool {
        self.authorizer.is_authorized(&self.request, &self.set.all, &self.entities).decision() == cedar_policy::Decision::Allow
    }
}
