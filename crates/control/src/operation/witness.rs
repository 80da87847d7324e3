//! Witnesses: the policy, what is known of them, and the channel over which nodes sign.

use std::time::Duration;

use audit::key::{KeyKind, VerifierKey, verifier_of};
use audit::{Event, Outcome, WitnessPolicy};
use axum::response::{IntoResponse as _, Response};
use policy::action::{NodeWitness, StatusView, WitnessPolicySet as SetPolicy};
use policy::{Action as _, Resource};
use store::{Expect, Put, Transaction};
use vocabulary::api::Done;
use vocabulary::channel::WITNESS_WAIT_MS;
use vocabulary::witness::{WitnessOffer, WitnessPoll, WitnessPolicySet, WitnessState};
use vocabulary::{ErrorCode, Profile, SYSTEM_OWNER};

use crate::api::call::{Call, Public};
use crate::api::node::NodeCall;
use crate::api::problem::Failure;
use crate::limits::{WITNESSES_MAX, WITNESS_ANSWER_MAX};
use crate::operation::{commit, done};
use crate::row::FORMAT;
use crate::state::{Control, actor, commit_failure};
use crate::witness::{Active, OFFERED, OfferedRow, POLICY, Place, PolicyRow};

/// What is known of the witnesses.
pub(crate) async fn show(call: Call<StatusView>) -> Result<WitnessState, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    call.control.witness_state().await
}

/// The policy file in force.
pub(crate) async fn policy(call: Call<Public>) -> Result<Response, Failure> {
    let active = call.control.witness_policy().await?.ok_or_else(Failure::not_found)?;
    Ok(([(http::header::CONTENT_TYPE, "text/plain; charset=utf-8"), (http::header::CACHE_CONTROL, "max-age=1")], active.text).into_response())
}

/// The newest checkpoint that the quorum signed.
pub(crate) async fn checkpoint(call: Call<Public>) -> Result<Response, Failure> {
    let base = call.control.proof_base().await?.filter(|base| base.policy.is_some());
    let base = base.ok_or_else(Failure::not_found)?;
    Ok(([(http::header::CONTENT_TYPE, "text/plain; charset=utf-8"), (http::header::CACHE_CONTROL, "max-age=1")], base.checkpoint).into_response())
}

/// Says which witnesses must have signed.
pub(crate) async fn set_policy(call: Call<SetPolicy>, request: WitnessPolicySet) -> Result<Done, Failure> {
    let decision = call.permit(Resource::Platform, &[]).await?.spend();
    let control = &call.control;
    let policy = check(control, &request.policy)?;
    let active = Active { text: policy.to_string(), policy };
    let event = Event::WitnessPolicyChanged {
        policy: active.digest(),
        witnesses: u32::try_from(active.policy.witnesses().len()).unwrap_or(u32::MAX),
        quorum: active.policy.summary(),
    };
    let member = call.member()?;
    let entry = control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(SetPolicy::NAME), event)?;
    let found = control.store.get_json::<PolicyRow>(SYSTEM_OWNER, POLICY, control.deployment).await.map_err(Failure::internal)?;
    let expect = found.map_or(Expect::Absent, |(stored, _)| Expect::Revision(stored.revision));
    let row = PolicyRow { format: FORMAT, text: active.text, set: call.now, entry: entry.id };
    let put = Put::json(SYSTEM_OWNER, POLICY, control.deployment, expect, &row).map_err(Failure::internal)?;
    let (index, _) = commit(&call, Transaction::new().with(put).entry(entry)).await?;
    Ok(done(index, &decision.waived))
}

/// A policy that this log can work with.
fn check(control: &Control, text: &str) -> Result<WitnessPolicy, Failure> {
    let invalid = |why: String| Failure::invalid(format!("`policy`: {why}"));
    let policy = WitnessPolicy::parse(text.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let own = verifier_of(&control.log, KeyKind::Ed25519).map_err(Failure::internal)?;
    if !matches!(policy.logs(), [log] if log.key == own) {
        return Err(invalid(format!("it has exactly one log, this one: log {own}")));
    }
    if policy.witnesses().len() > WITNESSES_MAX {
        return Err(invalid(format!("it has at most {WITNESSES_MAX} witnesses: a checkpoint carries 16 signatures that every verifier accepts")));
    }
    if let Some(witness) = policy.witnesses().iter().find(|witness| Place::parse(witness.url.as_deref()).is_none()) {
        return Err(invalid(format!("witness `{}`: behind its key stands `node:ID`, or the http(s) address at which it is asked", witness.name)));
    }
    if policy.is_none() && control.profile == Profile::Production {
        return Err(invalid("`quorum none` is not permitted in production".to_owned()));
    }
    Ok(policy)
}

/// A node brings its answer and waits for the next request.
pub(crate) async fn poll(call: NodeCall<NodeWitness>, poll: WitnessPoll) -> Result<WitnessOffer, Failure> {
    call.permit_self().await?.spend();
    let node = call.node_id();
    offered(&call, &poll.key).await?;
    if let Some(answer) = poll.answered {
        let fits = answer.body.len() <= WITNESS_ANSWER_MAX && answer.monitored.as_ref().is_none_or(|note| note.len() <= audit::limits::NOTE_MAX);
        if !fits {
            return Err(Failure::new(ErrorCode::TooLarge, "`answered` is larger than an answer of the protocol"));
        }
        call.control.witnesses.seats.answered(node, answer);
    }
    let waiting = call.control.witnesses.seats.next(node, Duration::from_millis(WITNESS_WAIT_MS));
    let request = call.control.stop.run_until_cancelled(waiting).await.flatten();
    Ok(WitnessOffer { request })
}

/// Keeps the key with which a node offers to sign; a new one is an entry.
async fn offered(call: &NodeCall<NodeWitness>, text: &str) -> Result<(), Failure> {
    let control = &call.control;
    let node = call.node_id();
    let key: VerifierKey = text.parse().map_err(|error| Failure::invalid(format!("`key`: {error}")))?;
    if key.kind() != KeyKind::CosignatureV1 || key.name() != format!("swarm.invalid/{}/witness/{node}", control.deployment) {
        return Err(Failure::invalid("`key` is not named after this node, or is no key of a witness"));
    }
    let found = control.store.get_json::<OfferedRow>(SYSTEM_OWNER, OFFERED, node).await.map_err(Failure::internal)?;
    let expect = match &found {
        Some((_, row)) if row.key == text => return Ok(()),
        Some((stored, _)) => Expect::Revision(stored.revision),
        None => Expect::Absent,
    };
    let entry = call.entry(SYSTEM_OWNER, Event::NodeWitnessOffered { node, key: text.to_owned() })?;
    let row = OfferedRow { format: FORMAT, node, key: text.to_owned() };
    let put = Put::json(SYSTEM_OWNER, OFFERED, node, expect, &row).map_err(Failure::internal)?;
    match control.store.commit(Transaction::new().with(put).entry(entry), call.now).await {
        Ok(_) => Ok(()),
        Err(error) if error.conflict().is_some() => Ok(()),
        Err(error) => Err(commit_failure(error)),
    }
}
