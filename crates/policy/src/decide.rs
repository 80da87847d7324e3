//! The decision.

use std::marker::PhantomData;
use std::str::FromStr as _;

use cedar_policy::{Authorizer, EntityUid, Request, Response};
use vocabulary::TenantId;

use crate::action::Action;
use crate::facts::{Facts, FactsError, Principal};
use crate::set::PolicySets;

/// A decision for one operation on one resource, spent by it. Only [`decide`] makes one.
///
/// ```compile_fail
/// fn forge() -> policy::Permit<policy::action::VolumeDelete> {
///     policy::Permit { target: String::new(), epoch: 1, rules: vec![], waived: vec![], action: std::marker::PhantomData }
/// }
/// ```
/// ```compile_fail
/// fn twice(permit: policy::Permit<policy::action::VolumeDelete>) {
///     let _again = permit.clone();
/// }
/// ```
/// ```compile_fail
/// fn other(permit: policy::Permit<policy::action::VolumeView>) -> policy::Permit<policy::action::VolumeDelete> {
///     permit
/// }
/// ```
#[must_use]
#[derive(Debug)]
pub struct Permit<A> {
    target: String,
    epoch: u64,
    rules: Vec<String>,
    waived: Vec<&'static str>,
    action: PhantomData<fn(A)>,
}

/// What a permit was made of, once it is spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The resource, as `Volume::"…"`.
    pub target: String,
    /// The epoch of the set that decided.
    pub epoch: u64,
    /// The rules that permitted.
    pub rules: Vec<String>,
    /// What the development profile waived, in words: to be shown in the answer, the entry and the receipt.
    pub waived: Vec<&'static str>,
}

impl<A: Action> Permit<A> {
    /// Spends it.
    #[must_use]
    pub fn spend(self) -> Decision {
        Decision { target: self.target, epoch: self.epoch, rules: self.rules, waived: self.waived }
    }
    /// The epoch of the set that decided.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// What would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// A fresh factor bound to this request.
    StepUp,
    /// A passkey, which this version cannot check.
    Passkey,
    /// A second person.
    SecondPerson,
    /// Another role.
    Role,
    /// A guardrail about data, place or purpose: nothing that the caller can do alone.
    Guardrail,
    /// It is another tenant's: the answer is that of absence.
    Foreign,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The action.
    pub action: &'static str,
    /// The resource, as `Volume::"…"`.
    pub target: String,
    /// The rules that refused; empty when no rule permitted.
    pub rules: Vec<String>,
    /// Rules that could not be evaluated. Any such denies.
    pub errors: Vec<String>,
    /// What would help.
    pub next: NextStep,
    /// The epoch of the set that decided.
    pub epoch: u64,
}

/// The label of a waived second person.
const SECOND_PERSON_WAIVED: &str = "second person waived (development profile)";

/// Decides. In the development profile a missing second person is waived, and the permit says so.
pub fn decide<A: Action>(sets: &PolicySets, facts: &Facts) -> Result<Permit<A>, Refusal> {
    let mut facts = facts.clone();
    let mut waived = Vec::new();
    if A::SECOND_PERSON && facts.call.approvals == 0 && !facts.call.production {
        facts.call.approvals = 1;
        waived.push(SECOND_PERSON_WAIVED);
    }
    let (response, target, epoch) = match evaluate(sets, &facts, A::NAME) {
        Ok(evaluated) => evaluated,
        Err(error) => {
            return Err(Refusal {
                action: A::NAME,
                target: String::new(),
                rules: Vec::new(),
                errors: vec![error.to_string()],
                next: NextStep::Guardrail,
                epoch: 0,
            });
        }
    };
    let rules: Vec<String> = reasons(&response);
    let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
    if response.decision() == cedar_policy::Decision::Allow && errors.is_empty() {
        return Ok(Permit { target, epoch, rules, waived, action: PhantomData });
    }
    let rules = if response.decision() == cedar_policy::Decision::Deny { rules } else { Vec::new() };
    let next = next_step(&rules, &errors, facts.call.production);
    Err(Refusal { action: A::NAME, target, rules, errors, next, epoch })
}

/// The rules that decided, in a fixed order.
pub(crate) fn reasons(response: &Response) -> Vec<String> {
    let mut rules: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    rules.sort();
    rules
}

/// One evaluation under the principal's own set.
pub(crate) fn evaluate(sets: &PolicySets, facts: &Facts, action: &str) -> Result<(Response, String, u64), FactsError> {
    let action = EntityUid::from_str(&format!("Swarm::Action::\"{action}\"")).map_err(FactsError::new)?;
    let built = facts.build(&sets.schema, &action)?;
    let target = built.resource.to_string().trim_start_matches("Swarm::").to_owned();
    let request = Request::new(built.principal, action, built.resource, built.context, Some(&sets.schema)).map_err(FactsError::new)?;
    let set = sets.of(tenant_of(&facts.principal)).map_err(FactsError::new)?;
    Ok((Authorizer::new().is_authorized(&request, &set.set, &built.entities), target, set.epoch))
}

fn tenant_of(principal: &Principal) -> Option<TenantId> {
    match principal {
        Principal::User { tenant, .. } | Principal::ServiceAccount { tenant, .. } => Some(tenant.tenant),
        Principal::Job(job) => Some(job.tenant.tenant),
        Principal::Operator { .. } | Principal::Node(_) => None,
    }
}

/// What would help, by what refused. Foreign comes first: nothing else may be told about another tenant's things.
fn next_step(rules: &[String], errors: &[String], production: bool) -> NextStep {
    let refused_by = |prefix: &str| rules.iter().any(|rule| rule.starts_with(prefix));
    if refused_by("isolation-") {
        NextStep::Foreign
    } else if !errors.is_empty() {
        NextStep::Guardrail
    } else if rules.is_empty() {
        NextStep::Role
    } else if rules.iter().all(|rule| rule == "step-up") {
        if production { NextStep::Passkey } else { NextStep::StepUp }
    } else if rules.iter().all(|rule| rule == "second-person" || rule == "step-up") {
        NextStep::SecondPerson
    } else {
        NextStep::Guardrail
    }
}
