//! The part of a set that can speak about a request at all.
//!
//! Cedar reads a policy as its scope and its conditions, joined by `&&` from the left: one whose scope has no room for a
//! request is neither satisfied nor in error, whatever its conditions say. To leave it out changes no decision, no reason and
//! no error, and saves its evaluation. Only the action and the two types are looked at, never an id.
//! (Cedar's semantics: docs.cedarpolicy.com, "Authorization"; Cutler et al., OOPSLA 2024, section 3.4, sound slicing.)

use cedar_policy::{
    ActionConstraint, Effect, Entity, EntityTypeName, Policy, PolicySet, PrincipalConstraint, ResourceConstraint,
};

use crate::facts::FactsError;
use crate::set::ActionEntities;

/// What a request is about, ids aside.
pub(crate) struct Scope<'a> {
    pub(crate) action: &'a ActionEntities,
    pub(crate) principal: &'a EntityTypeName,
    pub(crate) resource: &'a EntityTypeName,
}

/// The rules that have room for one scope.
#[derive(Debug)]
pub(crate) struct Scoped {
    pub(crate) all: PolicySet,
    /// The permits alone: they tell a missing role from a guardrail.
    pub(crate) permits: PolicySet,
}

/// Leaves out the policies that cannot speak about the scope.
pub(crate) fn cut(set: &PolicySet, scope: &Scope<'_>) -> Result<Scoped, FactsError> {
    let fitting: Vec<&Policy> = set.policies().filter(|policy| scope.fits(policy)).collect();
    let permits = fitting.iter().filter(|policy| policy.effect() == Effect::Permit);
    Ok(Scoped {
        all: PolicySet::from_policies(fitting.iter().copied().cloned()).map_err(FactsError::new)?,
        permits: PolicySet::from_policies(permits.copied().cloned()).map_err(FactsError::new)?,
    })
}

impl Scope<'_> {
    fn fits(&self, policy: &Policy) -> bool {
        let in_action = |uid| self.action.entities.iter().map(Entity::uid).any(|known| known == uid);
        let action = match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid == self.action.uid,
            ActionConstraint::In(uids) => uids.into_iter().any(in_action),
        };
        // What names an entity may speak of its descendants, so it stays.
        let principal = match policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
            PrincipalConstraint::Eq(uid) => uid.type_name() == self.principal,
            PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => kind == *self.principal,
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::In(_) => true,
            ResourceConstraint::Eq(uid) => uid.type_name() == self.resource,
            ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => kind == *self.resource,
        };
        action && principal && resource
    }
}
