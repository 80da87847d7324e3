//! The node as a witness of the control plane's log: it fetches requests to sign over the channel, and brings its answers.
//!
//! What it asks and answers is C2SP's `tlog-witness`, byte for byte; only who calls is turned round, since a node listens
//! on nothing. It signs for the logs of its deployment's public file, and for no other.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use audit::witness::{KnownLogs, origin_hash};
use tokio_util::sync::CancellationToken;
use vocabulary::channel::WITNESS;
use vocabulary::witness::{WitnessAnswer, WitnessOffer, WitnessPoll};

use crate::agent::Shared;
use crate::channel::{Backoff, printable};
use crate::clock;
use crate::store::Node;
use crate::witness::{Witness, WitnessPlace};

/// The witness of a node and the logs that it signs for.
#[derive(Debug)]
pub(crate) struct NodeWitness {
    witness: Mutex<Witness>,
    logs: KnownLogs,
    key: String,
}

impl NodeWitness {
    /// Opens it, or makes it at the node's first start.
    pub(crate) fn open(dir: &Path, node: &Node) -> Result<Self, String> {
        let file = node.deployment.file();
        let mut logs = KnownLogs::default();
        for key in &file.log_keys {
            let key = key.parse().map_err(|error| format!("a log key of the deployment's file: {error}"))?;
            logs.add(key, None).map_err(|error| format!("a log of the deployment's file: {error}"))?;
        }
        let place = WitnessPlace { dir: dir.join("witness"), sizes: dir.join("witness.sizes") };
        let name = format!("swarm.invalid/{}/witness/{}", file.deployment, node.file.node);
        let witness = Witness::open(place, Some(&name), &mut keys::SystemRandom).map_err(|error| printable(&error.to_string()))?;
        let key = witness.key().to_string();
        Ok(Self { witness: Mutex::new(witness), logs, key })
    }

    /// Answers one request; waits for the disk.
    fn answer(&self, offer: u64, request: &str) -> WitnessAnswer {
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = witness.add_checkpoint(request.as_bytes(), &self.logs, clock::wall().seconds()).answer;
        let monitored = (answer.status != 200).then(|| self.last(&witness)).flatten();
        WitnessAnswer { offer, status: answer.status, body: String::from_utf8_lossy(&answer.body).into_owned(), monitored }
    }

    /// What a monitor would be shown of the deployment's log.
    fn last(&self, witness: &Witness) -> Option<String> {
        let newest = self.logs.all().iter().map(|log| witness.monitored(&origin_hash(&log.origin), &self.logs));
        newest.filter(|answer| answer.status == 200).find_map(|answer| String::from_utf8(answer.body).ok())
    }
}

/// Witnesses until `stop`.
pub(crate) async fn cosign(shared: Arc<Shared>, witness: Arc<NodeWitness>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut answered: Option<WitnessAnswer> = None;
    stop.run_until_cancelled(async {
        loop {
            let poll = WitnessPoll { key: witness.key.clone(), answered: answered.clone() };
            let offer: WitnessOffer = match shared.channel.post(WITNESS, &poll).await {
                Ok(offer) => offer,
                Err(error) => {
                    tracing::warn!(%error, "witness");
                    backoff.wait().await;
                    continue;
                }
            };
            backoff = Backoff::default();
            let Some(request) = offer.request else {
                answered = None;
                continue;
            };
            let judge = Arc::clone(&witness);
            answered = match tokio::task::spawn_blocking(move || judge.answer(request.offer, &request.body)).await {
                Ok(answer) => Some(answer),
                Err(error) => {
                    tracing::error!(%error, "a request to the witness broke off");
                    None
                }
            };
        }
    })
    .await;
}
