//! Following the plan: a stream of signed lines, each checked, kept on the disk, and handed to the loop.

use std::sync::Arc;

use identity::tls::{KeyExchange, Trust, cli_client_config};
use identity::{VerifiedDeployment, verify_deployment_file};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vocabulary::channel as paths;

use crate::agent::Shared;
use crate::channel::{self, Backoff, ChannelError, WallClock};
use crate::limits::{CALL_TIMEOUT, PLAN_BYTES_MAX, SILENCE};
use crate::plan::{CheckedPlan, PlanRefusal, Rules};
use crate::store::{self, NodeFile};
use crate::{clock, files};

type Plans = watch::Sender<Option<Arc<CheckedPlan>>>;

/// Why the stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the plan is refused: {0}")]
    Refused(#[from] PlanRefusal),
    #[error("nothing came for {} seconds", SILENCE.as_secs())]
    Silence,
    #[error("the control plane ended the stream")]
    Closed,
    #[error("the plan cannot be kept: {0}")]
    Disk(String),
    #[error("there is a newer plan")]
    Stale,
}

/// Whose signature under a plan is believed.
pub(crate) fn believed(deployment: &VerifiedDeployment, node: &NodeFile) -> Rules {
    Rules { deployment: node.deployment, node: node.node, keys: deployment.receipt_keys().iter().map(|key| key.key).collect() }
}

/// The keys that are valid now: those of plans that come now.
fn valid_now(deployment: &VerifiedDeployment, node: &NodeFile) -> Rules {
    let now = clock::wall();
    let valid = deployment.receipt_keys().iter().filter(|key| key.not_before <= now && now <= key.not_after);
    Rules { keys: valid.map(|key| key.key).collect(), ..believed(deployment, node) }
}

/// Follows until `stop`.
pub(crate) async fn follow(shared: Arc<Shared>, plans: Plans, stop: CancellationToken) {
    let mut deployment = shared.node.deployment.clone();
    let mut backoff = Backoff::default();
    stop.run_until_cancelled(async {
        loop {
            let before = revision(&plans);
            let ended = stream(&shared, &plans, &deployment).await;
            if revision(&plans) != before || matches!(ended, Ended::Stale) {
                backoff = Backoff::default();
            }
            match &ended {
                Ended::Stale => continue,
                Ended::Refused(refusal) => {
                    tracing::error!(%refusal, "the plan is refused");
                    if *refusal == PlanRefusal::Signature {
                        refresh(&shared, &mut deployment).await;
                    }
                }
                Ended::Channel(error) => {
                    shared.failed("plan", error, &mut backoff).await;
                    continue;
                }
                Ended::Silence | Ended::Closed | Ended::Disk(_) => {
                    tracing::warn!(error = %ended, "the plan is not followed")
                }
            }
            backoff.wait().await;
        }
    })
    .await;
}

fn revision(plans: &Plans) -> Option<u64> {
    plans.borrow().as_ref().map(|plan| plan.plan().revision)
}

async fn stream(shared: &Shared, plans: &Plans, deployment: &VerifiedDeployment) -> Ended {
    let ended: Result<(), Ended> = async {
        let path = format!("{}?after={}", paths::PLAN, revision(plans).unwrap_or(0));
        let opening = tokio::time::timeout(CALL_TIMEOUT, shared.channel.open(&path));
        let mut response = opening.await.map_err(|_| Ended::Silence)??;
        let mut line = Vec::new();
        loop {
            let piece = tokio::select! {
                piece = tokio::time::timeout(SILENCE, response.chunk()) => piece.map_err(|_| Ended::Silence)?,
                () = shared.stale.notified() => return Err(Ended::Stale),
            };
            let piece = piece.map_err(|error| ChannelError::Unreachable(channel::chain(&error)))?.ok_or(Ended::Closed)?;
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.len() > PLAN_BYTES_MAX {
                    return Err(PlanRefusal::TooLong.into());
                }
                if line.last() == Some(&b'\n') {
                    line.pop();
                    if !line.is_empty() && take(shared, plans, deployment, &line).await? {
                        // This connection was judged by the older set of revocations.
                        return Err(Ended::Stale);
                    }
                    line.clear();
                }
            }
        }
    }
    .await;
    ended.err().unwrap_or(Ended::Closed)
}

/// Checks a plan, puts it on the disk, and only then in force. Tells whether it brought other revocations.
async fn take(shared: &Shared, plans: &Plans, deployment: &VerifiedDeployment, line: &[u8]) -> Result<bool, Ended> {
    let checked = valid_now(deployment, &shared.node.file).check(line, revision(plans))?;
    let before = shared.revocations.current().version();
    shared.revocations.replace(checked.revocations().clone()).map_err(PlanRefusal::from)?;
    let revoked = shared.revocations.current().version() != before;
    if revoked {
        shared.channel.replace(&shared.node.tls()).map_err(Ended::Disk)?;
    }
    let (dir, bytes) = (shared.dir.clone(), line.to_vec());
    let kept = tokio::task::spawn_blocking(move || store::write_plan(&dir, &bytes)).await;
    kept.map_err(|error| Ended::Disk(error.to_string()))?.map_err(|error| Ended::Disk(error.to_string()))?;
    vocabulary::fault::reached(vocabulary::fault::Point::PlanKept);
    tracing::info!(revision = checked.plan().revision, jobs = checked.plan().jobs.len(), "plan");
    plans.send_replace(Some(Arc::new(checked)));
    Ok(revoked)
}

/// A signature of an unknown key may be of a key that was made since the node joined: the deployment's public file tells,
/// and it must fit the pin.
async fn refresh(shared: &Shared, deployment: &mut VerifiedDeployment) {
    let node = &shared.node.file;
    let fetched: Result<VerifiedDeployment, String> = async {
        let tls = cli_client_config(Trust::Pin(node.ca_pin), KeyExchange::default(), Arc::new(WallClock)).map_err(|error| channel::chain(&error))?;
        let request = channel::http(tls)?.get(format!("{}/v1/deployment", node.api)).timeout(CALL_TIMEOUT);
        let bytes = channel::collect(channel::send(request).await.map_err(|error| error.to_string())?, identity::limits::DEPLOYMENT_FILE_MAX).await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        let verified = verify_deployment_file(&bytes, &node.ca_pin).map_err(|error| error.to_string())?;
        if verified.file().created < deployment.file().created {
            return Err("it is older than the one at hand".to_owned());
        }
        let path = shared.dir.join("deployment.json");
        tokio::task::spawn_blocking(move || files::write_durably(&path, &bytes)).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(verified)
    }
    .await;
    match fetched {
        Ok(newer) => *deployment = newer,
        Err(error) => tracing::warn!(error, "the deployment's public file was not refreshed"),
    }
}
