//! Why: the rules that decided, with their text, and what would have to change.

use cedar_policy::PolicyId;

use crate::action::ALL_ACTIONS;
use crate::decide::{evaluate, reasons};
use crate::facts::{Facts, FactsError, Principal};
use crate::set::PolicySets;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// Its Cedar text.
    pub text: String,
}

/// An explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The rules that decided.
    pub rules: Vec<Rule>,
    /// What would have to change, in sentences.
    pub next: Vec<String>,
    /// The epoch of the set that decided.
    pub epoch: u64,
}

/// Explains what would be decided.
pub fn explain(sets: &PolicySets, facts: &Facts, action: &str) -> Result<Explanation, FactsError> {
    let Some(info) = ALL_ACTIONS.iter().find(|info| info.name == action) else {
        return Err(FactsError::new(format_args!("there is no action `{}`", action.chars().filter(|c| !c.is_control()).take(64).collect::<String>())));
    };
    let (response, _, epoch) = evaluate(sets, facts, info.name)?;
    let tenant = match &facts.principal {
        Principal::User { tenant, .. } | Principal::ServiceAccount { tenant, .. } => Some(tenant.tenant),
        Principal::Job(job) => Some(job.tenant.tenant),
        Principal::Operator { .. } | Principal::Node(_) => None,
    };
    let set = sets.of(tenant).map_err(FactsError::new)?;
    let rules: Vec<Rule> = reasons(&response)
        .into_iter()
        .map(|id| {
            let text = set.set.policy(&PolicyId::new(&id)).map_or_else(String::new, ToString::to_string);
            Rule { id, text }
        })
        .collect();
    let allowed = response.decision() == cedar_policy::Decision::Allow && response.diagnostics().errors().next().is_none();
    let mut next: Vec<String> = response.diagnostics().errors().map(|error| format!("a rule could not be evaluated, which denies: {error}")).collect();
    if !allowed && rules.is_empty() && next.is_empty() {
        next.push(format!("no rule permits `{action}`: a role is missing; an administrator of the tenant gives roles"));
    }
    next.extend(rules.iter().filter(|_| !allowed).map(|rule| sentence(&rule.id)));
    Ok(Explanation { allowed, rules, next, epoch })
}

fn sentence(rule: &str) -> String {
    match rule {
        "step-up" => "confirm the request with a fresh code (a passkey in the production profile)".to_owned(),
        "second-person" => "a second person must approve".to_owned(),
        "clearance-volume" | "clearance-job" => "the principal's clearance must reach the sensitivity".to_owned(),
        "release-needs-trust" | "release-person-trust" => "the volume asks for more trust than this one has: an enclave with fresh evidence, or a lower min_trust".to_owned(),
        "release-jurisdiction" => "the node must stand in one of the volume's jurisdictions".to_owned(),
        "release-purpose" | "release-person-purpose" => "the purpose must be the volume's".to_owned(),
        "suspended-tenant" => "the tenant is suspended: an operator ends that".to_owned(),
        other if other.starts_with("isolation-") => "it belongs to another tenant: nothing helps".to_owned(),
        other => format!("guardrail `{other}` refuses; no role changes that"),
    }
}
