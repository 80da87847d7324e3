//! What a node does for an attempt that is placed on it: image, keys, objects, roots.
//!
//! Two questions stand before a key: may this node act for this attempt, and may this job have this key (decision 1.3)? The
//! tenant, the purpose and the mode come from what is stored, never from the request.

use audit::entry::{Actor, Source};
use axum::response::Response;
use policy::action::{AttemptCommit, AttemptLease, AttemptObjects, KeyRelease, NodeImageFetch};
use policy::Action;
use vocabulary::api::{VolumeCommit, VolumeCommitted};
use vocabulary::job::JobSpec;
use vocabulary::lease::{Lease, LeaseHolder, LeaseMode, LeaseRequest};
use vocabulary::plan::{Desired, ImageBlobs};
use vocabulary::{ErrorCode, Sha256Digest, VolumeId};

use crate::api::node::{Liveness, NodeCall, PlacedAttempt};
use crate::api::problem::Failure;
use crate::api::table::Raw;
use crate::lease::{Grant, Holder, asked_keys};
use crate::limits::ATTEMPT_LEASES_MAX;
use crate::operation::object::{give, set_root, take};
use crate::operation::people::BEYOND_OWN;
use crate::operation::release;
use crate::operation::volume::resource;

/// What the image of an attempt consists of.
pub(crate) async fn image(call: NodeCall<NodeImageFetch>) -> Result<ImageBlobs, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit_self().await?.spend();
    call.control.image_blobs(placed.tenant.tenant, placed.job.spec.image).await
}

/// A blob of the attempt's own image; others are as if they did not exist.
pub(crate) async fn image_blob(call: NodeCall<NodeImageFetch>, _: Raw) -> Result<Response, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit_self().await?.spend();
    let digest: Sha256Digest = call.id("digest")?;
    let image = call.control.image_blobs(placed.tenant.tenant, placed.job.spec.image).await?;
    if !image.blobs.iter().any(|blob| blob.digest == digest) {
        return Err(Failure::not_found());
    }
    call.control.image_blob(placed.tenant.tenant, &digest).await
}

/// The attempt as a holder of leases.
fn holder<'a, A: Action>(call: &'a NodeCall<A>, placed: &PlacedAttempt) -> Holder<'a> {
    let node = call.node_id();
    Holder {
        control: &call.control,
        now: call.now,
        tenant: placed.tenant.tenant,
        holder: LeaseHolder::Attempt(placed.id),
        node: Some(node),
        actor: Actor::Node(node),
        source: Source::Node(node),
        action: A::NAME,
    }
}

/// The rules of a release that are asked before Cedar's: id, and the sentence that is told.
const UNNAMED: (&str, &str) = ("release-volume", "the job does not name this volume");
const WRONG_MODE: (&str, &str) = ("release-mode", "the job reads its inputs and writes its outputs, and this is the other way round");
const REVOKED: (&str, &str) = ("release-revoked", "the job's keys were revoked");
const STOPPED: (&str, &str) = ("release-stopped", "the job was asked to stop");

/// What a rule that is none of Cedar's says.
pub(crate) fn own_rule(id: &str) -> Option<&'static str> {
    [UNNAMED, WRONG_MODE, REVOKED, STOPPED, BEYOND_OWN].into_iter().find(|(known, _)| *known == id).map(|(_, text)| text).or_else(|| super::secret::own_rule(id))
}

/// Why a job may not have a key, before the rules are asked.
fn ungrounded(spec: &JobSpec, desired: Desired, volume: VolumeId, mode: LeaseMode) -> Option<(&'static str, &'static str)> {
    let input = spec.inputs.iter().any(|input| input.volume == volume);
    let output = spec.outputs.iter().any(|output| output.volume == volume);
    match mode {
        _ if !input && !output => Some(UNNAMED),
        LeaseMode::Read if !input => Some(WRONG_MODE),
        LeaseMode::Write if !output => Some(WRONG_MODE),
        _ if desired == Desired::RevokeKeys => Some(REVOKED),
        LeaseMode::Read if desired != Desired::Run => Some(STOPPED),
        LeaseMode::Read | LeaseMode::Write => None,
    }
}

/// Releases the keys of a volume to an attempt.
pub(crate) async fn lease(call: NodeCall<AttemptLease>, request: LeaseRequest) -> Result<Lease, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit(placed.resource()).await?.spend();
    let volume: VolumeId = call.id("volume")?;
    if let Some((rule, why)) = ungrounded(&placed.job.spec, placed.job.wanted(&placed.attempt), volume, request.mode) {
        let failure = Failure::new(ErrorCode::ReleaseRefused, why);
        return Err(release::refused::<KeyRelease>(&call, &placed, ("volume", &volume), failure, vec![rule.to_owned()]).await);
    }
    let control = &call.control;
    let (_, row) = control.volume(placed.tenant.tenant, volume).await?;
    let decision = release::decided::<KeyRelease>(&call, &placed, resource(&row, placed.tenant), ("volume", &volume)).await?;
    let (recipient, signer) = asked_keys(&request)?;
    let held = control.leases_of_job(placed.tenant.tenant, placed.id.job).await?;
    let held = held.iter().filter(|(_, lease)| lease.holder == LeaseHolder::Attempt(placed.id)).count();
    if held >= ATTEMPT_LEASES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("an attempt gets at most {ATTEMPT_LEASES_MAX} key leases")));
    }
    let grant = Grant {
        mode: request.mode,
        recipient,
        signer,
        purpose: placed.job.spec.purpose.clone(),
        policy_epoch: decision.epoch,
        expires: placed.attempt.run_lease_until,
    };
    holder(&call, &placed).release(&row, grant).await
}

/// Gives a sealed object under a lease of the attempt.
pub(crate) async fn object_get(call: NodeCall<AttemptObjects>, _: Raw) -> Result<Response, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit(placed.resource()).await?.spend();
    let (_, row) = holder(&call, &placed).leased(call.lease_id()?, call.id("volume")?, LeaseMode::Read).await?;
    give(&call.control, &row, call.path("path")?).await
}

/// Takes a sealed object under a write lease of the attempt.
pub(crate) async fn object_put(call: NodeCall<AttemptObjects>, Raw(body): Raw) -> Result<Response, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit(placed.resource()).await?.spend();
    let holder = holder(&call, &placed);
    let (lease, row) = holder.leased(call.lease_id()?, call.id("volume")?, LeaseMode::Write).await?;
    take(&holder, &lease, &row, call.path("path")?, body).await
}

/// Compares and sets a root under a write lease of the attempt.
pub(crate) async fn commit_root(call: NodeCall<AttemptCommit>, request: VolumeCommit) -> Result<VolumeCommitted, Failure> {
    let placed = call.attempt(Liveness::Alive).await?;
    call.permit(placed.resource()).await?.spend();
    let holder = holder(&call, &placed);
    let (lease, row) = holder.leased(request.lease, call.id("volume")?, LeaseMode::Write).await?;
    set_root(&holder, &lease, &row, &request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_gets_the_volumes_that_it_names_in_the_way_that_it_names_them() {
        let [input, output, both, other] = [1, 2, 3, 4].map(|n| VolumeId::from_bytes([n; 16]));
        let spec: JobSpec = serde_json::from_value(json!({
            "name": "j", "image": format!("sha256:{}", "0".repeat(64)), "purpose": "research", "sensitivity": "internal",
            "inputs": [{"volume": input, "name": "a"}, {"volume": both, "name": "b"}],
            "outputs": [{"volume": output, "name": "o"}, {"volume": both, "name": "p"}],
        }))
        .unwrap();
        let rule = |desired, volume, mode| ungrounded(&spec, desired, volume, mode).map(|(rule, _)| rule);
        use LeaseMode::{Read, Write};
        for (volume, mode, expected) in [
            (input, Read, None),
            (input, Write, Some("release-mode")),
            (output, Write, None),
            (output, Read, Some("release-mode")),
            (both, Read, None),
            (both, Write, None),
            (other, Read, Some("release-volume")),
            (other, Write, Some("release-volume")),
        ] {
            assert_eq!(rule(Desired::Run, volume, mode), expected, "{volume} {mode:?}");
        }
        // A stopping job seals what it has and opens nothing more; a job whose keys were revoked gets none.
        for desired in [Desired::Cancel, Desired::Evict] {
            assert_eq!(rule(desired, input, Read), Some("release-stopped"));
            assert_eq!(rule(desired, output, Write), None);
        }
        assert_eq!(rule(Desired::RevokeKeys, input, Read), Some("release-revoked"));
        assert_eq!(rule(Desired::RevokeKeys, output, Write), Some("release-revoked"));
    }
}
