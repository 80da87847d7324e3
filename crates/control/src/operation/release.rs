//! Whether an attempt's job may have what its node asks for: the rules decide, and a refusal is an entry before it is told.

use audit::entry::{Actor, Source};
use audit::{Event, Outcome};
use policy::action::AttemptLease;
use policy::{Action, CallFacts, Decision, Facts, Principal, ReleaseFacts, Resource};
use vocabulary::{ErrorCode, Profile};

use crate::api::node::{NodeCall, PlacedAttempt};
use crate::api::problem::Failure;

/// Kind and id of what is asked for, as entries name it.
pub(crate) type Asked<'a> = (&'static str, &'a (dyn std::fmt::Display + Sync));

/// Decides `A` for the job on a resource.
pub(crate) async fn decided<A: Action>(call: &NodeCall<AttemptLease>, placed: &PlacedAttempt, resource: Resource, asked: Asked<'_>) -> Result<Decision, Failure> {
    let facts = Facts {
        principal: Principal::Job(placed.facts.clone()),
        resource,
        call: CallFacts {
            acr: 0,
            mfa_age_s: None,
            request_bound: false,
            approvals: 0,
            production: call.control.profile == Profile::Production,
            source: None,
        },
        release: Some(ReleaseFacts {
            node: call.node.facts(),
            // Evidence is the enclave room's, which does not exist yet.
            attested: false,
            simulated: false,
            evidence_age_s: None,
            purpose: placed.job.spec.purpose.clone(),
        }),
        person_purpose: None,
    };
    let refusal = match policy::decide::<A>(&call.control.sets, &facts) {
        Ok(permit) => return Ok(permit.spend()),
        Err(refusal) => refusal,
    };
    if !refusal.errors.is_empty() {
        tracing::error!(action = refusal.action, errors = ?refusal.errors, "rules could not be evaluated: denied");
    }
    let failure = if refusal.code() == ErrorCode::NotFound {
        Failure::not_found()
    } else {
        Failure::new(refusal.code(), format!("`{}` is refused by {}", refusal.action, refusal.rules.join(", ")))
    };
    Err(refused::<A>(call, placed, asked, failure, refusal.rules).await)
}

/// Records that a job did not get what was asked for, with the rules.
pub(crate) async fn refused<A: Action>(
    call: &NodeCall<AttemptLease>,
    placed: &PlacedAttempt,
    (kind, id): Asked<'_>,
    failure: Failure,
    rules: Vec<String>,
) -> Failure {
    let (code, node) = (failure.problem.code, call.node_id());
    let event = Event::Refused { action: A::NAME.to_owned(), resource_kind: kind.to_owned(), resource: id.to_string(), code, rules };
    let entry = call.control.entry(call.now, placed.tenant.tenant, Actor::Node(node), Source::Node(node), Outcome::Refused(code), Some(A::NAME), event);
    call.control.record_refusal(entry, failure, call.now).await
}
