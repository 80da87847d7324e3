//! Why: the rules that decided, with their text, and what would have to change.

use cedar_policy::PolicyId;

use crate::action::ActionInfo;
use crate::decide::{NextStep, judge};
use crate::facts::{Facts, FactsError, Principal, Resource};
use crate::limits::QUOTE_MAX;
use crate::role::{Role, RoleBinding};
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
    /// Roles of which any one would permit it, were it not for the rules above; empty when one is held already.
    pub roles: Vec<RoleBinding>,
    /// What would have to change, in sentences; what the development profile waives.
    pub next: Vec<String>,
    /// The epoch of the set that decided.
    pub epoch: u64,
}

/// Explains what [`decide`](crate::decide) would say: the same evaluation under the same set.
pub fn explain(sets: &PolicySets, facts: &Facts, action: &str) -> Result<Explanation, FactsError> {
    let Some(info) = ActionInfo::named(action) else {
        return Err(FactsError::new(format_args!("there is no action `{}`", quoted(action))));
    };
    let verdict = judge(sets, facts, info)?;
    let set = sets.of(facts.principal.tenant()).map_err(FactsError::new)?;
    let rules: Vec<Rule> = verdict
        .decision
        .rules
        .into_iter()
        .map(|id| {
            let text = set.all.policy(&PolicyId::new(&id)).map_or_else(String::new, ToString::to_string);
            Rule { id, text }
        })
        .collect();
    let mut next: Vec<String> = verdict.decision.waived.iter().map(|waived| (*waived).to_owned()).collect();
    let mut roles = Vec::new();
    let allowed = verdict.refused.is_none();
    if let Some((step, errors)) = verdict.refused {
        next.extend(errors.iter().map(|error| format!("a rule could not be evaluated, which denies: {error}")));
        if step == NextStep::Foreign {
            // Of another tenant's things nothing more is told.
            next.push("it belongs to another tenant, or does not exist: no role changes that".to_owned());
        } else if !info.principals.contains(&facts.principal.kind()) {
            let who: Vec<&str> = info.principals.iter().map(|kind| kind.as_str()).collect();
            next.push(format!("`{action}` is for {} alone, whatever the role", who.join(", ")));
        } else {
            if !verdict.permitted {
                roles = helpful(sets, facts, info);
                next.push(missing_role(action, &roles));
            }
            next.extend(rules.iter().map(|rule| sentence(&rule.id)));
        }
    }
    Ok(Explanation { allowed, rules, roles, next, epoch: verdict.decision.epoch })
}

/// The roles of which one more would permit it.
fn helpful(sets: &PolicySets, facts: &Facts, info: &ActionInfo) -> Vec<RoleBinding> {
    let project = match &facts.resource {
        Resource::Volume { project, .. } | Resource::Secret { project, .. } => Some(*project),
        Resource::Job(job) => Some(job.project),
        Resource::Platform | Resource::Tenant(_) | Resource::Image { .. } | Resource::Key { .. } | Resource::Node(_) | Resource::Principal(_) => None,
    };
    let of_tenant = Role::ALL.into_iter().map(|role| RoleBinding { role, project: None });
    let of_project = Role::ALL.into_iter().filter(|role| *role != Role::Auditor && project.is_some()).map(|role| RoleBinding { role, project });
    of_tenant
        .chain(of_project)
        .filter(|binding| {
            let mut tried = facts.clone();
            let (Principal::User { roles, .. } | Principal::ServiceAccount { roles, .. }) = &mut tried.principal else { return false };
            roles.push(*binding);
            judge(sets, &tried, info).is_ok_and(|verdict| verdict.permitted)
        })
        .collect()
}

fn missing_role(action: &str, roles: &[RoleBinding]) -> String {
    if roles.is_empty() {
        return format!("no rule permits `{action}` to this principal, and no role would");
    }
    let roles: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
    format!("no rule permits `{action}`: one of the roles {} would; an administrator of the tenant gives roles", roles.join(", "))
}

pub(crate) fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(QUOTE_MAX).collect()
}

fn sentence(rule: &str) -> String {
    match rule {
        "step-up" => "confirm the request with a fresh code (a passkey in the production profile)".to_owned(),
        "step-up-trust" => {
            "min_trust is below the default of this sensitivity: confirm the request with a fresh code (a passkey in the production profile), or leave min_trust out".to_owned()
        }
        "second-person" => "a second person must approve".to_owned(),
        "clearance-volume" | "clearance-job" => "the principal's clearance must reach the sensitivity".to_owned(),
        "release-trust" => "the volume asks for more trust than the node has: an enclave with fresh evidence, or a lower min_trust".to_owned(),
        "release-simulated" => "an enclave is simulated, which the production profile refuses".to_owned(),
        "release-person-trust" => "the volume asks for trust that no person's machine has: its owner must name the person as a reader, or lower min_trust".to_owned(),
        "release-jurisdiction" => "the node must stand in a jurisdiction that the volume and the job allow".to_owned(),
        "release-region" => "the node must stand in the region that the job asks for".to_owned(),
        "release-placement" => "the key goes to the node alone on which the job's newest attempt is placed".to_owned(),
        "release-project" => "a job opens volumes of its own project only".to_owned(),
        "release-purpose" | "release-person-purpose" => "the purpose must be the volume's".to_owned(),
        "secret-placement" => "the secret goes to the node alone on which the job's newest attempt is placed".to_owned(),
        "secret-project" => "a job is given secrets of its own project only".to_owned(),
        "secret-jobs" => "the secret was not made for jobs: make one with --for job".to_owned(),
        "secret-pulls" => "the secret was not made to pull images with: make one with --for pull".to_owned(),
        "suspended-tenant" | "suspended-attempt" => "the tenant is suspended: an operator ends that".to_owned(),
        "self-only" => "it can be done to oneself only".to_owned(),
        "system-is-nobody" => "the deployment's own owner has no principals".to_owned(),
        "provider-staff" => "a provider's staff act on that provider's nodes only".to_owned(),
        other => match other.strip_prefix("own/") {
            Some(own) => format!("the tenant's own rule `{own}` refuses: its administrators can change it"),
            None => format!("guardrail `{other}` refuses; no role changes that"),
        },
    }
}
