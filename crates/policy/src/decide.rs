//! The decision.

use std::marker::PhantomData;

use cedar_policy::{Authorizer, PolicySet, Request, Response};
use vocabulary::ErrorCode;

use crate::action::{Action, ActionInfo};
use crate::facts::{Facts, FactsError};
use crate::set::PolicySets;
use crate::slice::Built;

/// A decision for one operation on one resource, spent by it. Only [`decide`] makes one.
///
/// ```
/// fn spends(permit: policy::Permit<policy::action::VolumeDelete>) -> policy::Decision {
///     permit.spend()
/// }
/// ```
/// Nobody else can make one, copy one, spend one twice, read one in, or pass one off as another:
/// ```compile_fail,E0451
/// fn forge() -> policy::Permit<policy::action::VolumeDelete> {
///     policy::Permit { decision: todo!(), action: std::marker::PhantomData }
/// }
/// ```
/// ```compile_fail,E0599
/// fn twice(permit: policy::Permit<policy::action::VolumeDelete>) {
///     let _again = permit.clone();
/// }
/// ```
/// ```compile_fail,E0382
/// fn twice(permit: policy::Permit<policy::action::VolumeDelete>) {
///     permit.spend();
///     permit.spend();
/// }
/// ```
/// ```compile_fail,E0277
/// fn from_nothing() -> policy::Permit<policy::action::VolumeDelete> {
///     fn default<T: Default>() -> T { T::default() }
///     default()
/// }
/// ```
/// ```compile_fail,E0277
/// fn read_in(text: &str) -> policy::Permit<policy::action::VolumeDelete> {
///     serde_json::from_str(text).unwrap()
/// }
/// ```
/// ```compile_fail,E0308
/// fn other(permit: policy::Permit<policy::action::VolumeView>) -> policy::Permit<policy::action::VolumeDelete> {
///     permit
/// }
/// ```
/// Nor can a stranger add an action:
/// ```compile_fail,E0277
/// enum Mine {}
/// impl policy::Action for Mine {
///     const INFO: policy::ActionInfo = <policy::action::VolumeView as policy::Action>::INFO;
/// }
/// ```
#[must_use]
#[derive(Debug)]
pub struct Permit<A> {
    decision: Decision,
    action: PhantomData<fn(A)>,
}

/// What a permit was made of, once it is spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The principal, as `User::"…"`.
    pub principal: String,
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
    pub fn spend(self) -> Decision {
        self.decision
    }
    /// The epoch of the set that decided.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.decision.epoch
    }
    /// The resource that it is for, as `Volume::"…"`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.decision.target
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
    /// Another role, or another kind of principal.
    Role,
    /// A guardrail about data, place or purpose: nothing that the caller can do alone.
    Guardrail,
    /// It is another tenant's: the answer is that of absence.
    Foreign,
}

impl NextStep {
    /// The error code that tells it.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::StepUp => ErrorCode::StepUpRequired,
            Self::Passkey => ErrorCode::PasskeyRequired,
            Self::SecondPerson => ErrorCode::SecondPersonRequired,
            Self::Role => ErrorCode::Forbidden,
            Self::Guardrail => ErrorCode::ReleaseRefused,
            Self::Foreign => ErrorCode::NotFound,
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The action.
    pub action: &'static str,
    /// The principal, as `User::"…"`.
    pub principal: String,
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

impl Refusal {
    /// The error code that tells it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.next.code()
    }
}

/// The label of a waived second person.
pub(crate) const SECOND_PERSON_WAIVED: &str = "second person waived (development profile)";

/// Decides, under the set of the principal's own tenant. In the development profile a missing second person is waived, and
/// the permit says so. A request that does not fit the schema, and rules that cannot be evaluated, are refusals.
#[expect(clippy::result_large_err, reason = "a refusal ends its request; boxing it would save nothing that counts")]
pub fn decide<A: Action>(sets: &PolicySets, facts: &Facts) -> Result<Permit<A>, Refusal> {
    let info = const { &A::INFO };
    match judge(sets, facts, info) {
        Ok(Verdict { decision, refused: None, .. }) => Ok(Permit { decision, action: PhantomData }),
        Ok(Verdict { decision, refused: Some((next, errors)), .. }) => Err(Refusal {
            action: A::NAME,
            principal: decision.principal,
            target: decision.target,
            rules: decision.rules,
            errors,
            next,
            epoch: decision.epoch,
        }),
        Err(error) => Err(Refusal {
            action: A::NAME,
            principal: facts.principal.label(),
            target: facts.resource.label(),
            rules: Vec::new(),
            errors: vec![error.to_string()],
            next: NextStep::Guardrail,
            epoch: 0,
        }),
    }
}

/// What [`decide`] and `explain` both stand on, so that they cannot differ.
pub(crate) struct Verdict {
    /// Rules that permitted, or that refused.
    pub(crate) decision: Decision,
    /// Why not, and the rules that could not be evaluated.
    pub(crate) refused: Option<(NextStep, Vec<String>)>,
    /// Whether a rule permits it, were it not for those that refuse.
    pub(crate) permitted: bool,
}

pub(crate) fn judge(sets: &PolicySets, facts: &Facts, info: &ActionInfo) -> Result<Verdict, FactsError> {
    if !info.resources.contains(&facts.resource.kind()) {
        return Err(FactsError::new(format_args!("`{}` is not done to a {}", info.name, facts.resource.kind().as_str())));
    }
    let set = sets.of(facts.principal.tenant()).map_err(FactsError::new)?;
    let mut decision = Decision {
        principal: facts.principal.label(),
        target: facts.resource.label(),
        epoch: set.epoch,
        rules: Vec::new(),
        waived: Vec::new(),
    };
    // A kind of principal that the action is not for: no rule could permit it.
    if !info.principals.contains(&facts.principal.kind()) {
        return Ok(Verdict { decision, refused: Some((NextStep::Role, Vec::new())), permitted: false });
    }
    let mut approvals = facts.call.approvals;
    if info.second_person && approvals == 0 && !facts.call.production {
        approvals = 1;
        decision.waived.push(SECOND_PERSON_WAIVED);
    }
    let action = sets.action(info.name)?;
    let Built { principal, resource, context, entities } = facts.build(sets, action, approvals)?;
    let request = Request::new(principal, action.uid.clone(), resource, context, Some(&sets.schema)).map_err(FactsError::new)?;
    let rules = set.scoped(sets, info.name, facts.principal.kind(), facts.resource.kind())?;
    let authorizer = Authorizer::new();
    let response = authorizer.is_authorized(&request, &rules.all, &entities);
    decision.rules = reasons(&response);
    let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
    let allowed = response.decision() == cedar_policy::Decision::Allow;
    if allowed && errors.is_empty() {
        return Ok(Verdict { decision, refused: None, permitted: true });
    }
    if allowed {
        // The rules that permitted do not count: one that should have refused could not be evaluated.
        decision.rules.clear();
    }
    let permitted = permits(&authorizer, &request, &rules.permits, &entities);
    let next = next_step(&decision.rules, &errors, permitted, facts);
    Ok(Verdict { decision, refused: Some((next, errors)), permitted })
}

/// Whether a rule permits, leaving aside what refuses.
fn permits(authorizer: &Authorizer, request: &Request, permits: &PolicySet, entities: &cedar_policy::Entities) -> bool {
    authorizer.is_authorized(request, permits, entities).decision() == cedar_policy::Decision::Allow
}

/// The rules that decided, in a fixed order.
fn reasons(response: &Response) -> Vec<String> {
    let mut rules: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    rules.sort();
    rules
}

/// What would help, by what refused. Foreign comes first: nothing else may be told about another tenant's things. Then the
/// role: whoever has none learns of no guardrail, and confirms nothing in vain.
fn next_step(rules: &[String], errors: &[String], permitted: bool, facts: &Facts) -> NextStep {
    let step_up = |rule: &String| rule == "step-up" || rule == "step-up-trust";
    if rules.iter().any(|rule| rule.starts_with("isolation-")) {
        NextStep::Foreign
    } else if !errors.is_empty() {
        NextStep::Guardrail
    } else if !permitted || rules.is_empty() {
        NextStep::Role
    } else if !rules.iter().all(|rule| step_up(rule) || rule == "second-person") {
        NextStep::Guardrail
    } else if rules.iter().any(step_up) {
        if facts.call.production && facts.call.acr < 2 { NextStep::Passkey } else { NextStep::StepUp }
    } else {
        NextStep::SecondPerson
    }
}
