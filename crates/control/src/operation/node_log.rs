//! The log that each node keeps of what it did: its signed checkpoints become entries of the deployment's log.
//!
//! **Invariant:** of one node's log there is one history here: what is kept only grows, by proof.

use audit::note::Note;
use audit::{Checkpoint, Event, Hash, node_log};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::action::NodeReport;
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Put, Transaction};
use vocabulary::channel::{NodeLogKept, NodeLogOffer};
use vocabulary::{ErrorCode, SYSTEM_OWNER, UnixTime};

use crate::api::node::NodeCall;
use crate::api::problem::Failure;
use crate::limits::NODE_LOG_IDLE_MS;
use crate::row::FORMAT;
use crate::state::commit_failure;

/// The kind of [`KeptRow`], under the node's id.
pub(crate) const KEPT: Kind = Kind::new("node_log");

/// What is kept of a node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptRow {
    format: u32,
    size: u64,
    /// Base64.
    root: String,
    /// When an entry last said so.
    time: UnixTime,
}

/// Keeps a checkpoint that extends the last one.
pub(crate) async fn keep(call: NodeCall<NodeReport>, offer: NodeLogOffer) -> Result<NodeLogKept, Failure> {
    call.permit_self().await?.spend();
    let (control, node) = (&call.control, call.node_id());
    let checkpoint = signed(&call, &offer)?;
    let proof: Option<Vec<Hash>> = offer.proof.iter().map(|line| Hash::from_base64(line)).collect();
    let proof = proof.ok_or_else(|| Failure::invalid("`proof`: each item is base64 of 32 bytes"))?;
    let found = control.store.get_json::<KeptRow>(SYSTEM_OWNER, KEPT, node).await.map_err(Failure::internal)?;
    let (expect, size, root, time) = match found {
        None => (Expect::Absent, 0, audit::hash::empty_root(), None),
        Some((stored, row)) => {
            let root = Hash::from_base64(&row.root).ok_or_else(|| Failure::internal("a kept root is no hash"))?;
            (Expect::Revision(stored.revision), row.size, root, Some(row.time))
        }
    };
    if checkpoint.size < size {
        return Err(refused(&call, "node-log-grows", format!("`checkpoint`: {size} entries of this node's log are kept, and it has {}", checkpoint.size)).await);
    }
    if offer.old != size {
        return Ok(NodeLogKept { size });
    }
    if let Err(error) = audit::merkle::verify_consistency(size, &root, checkpoint.size, &checkpoint.root, &proof) {
        return Err(refused(&call, "node-log-one-history", format!("`proof`: {error}: what was kept of this node's log was changed")).await);
    }
    let idle = time.is_some_and(|time| call.now.millis().saturating_sub(time.millis()) < NODE_LOG_IDLE_MS);
    if checkpoint.size == size && idle {
        return Ok(NodeLogKept { size });
    }
    let entry = call.entry(SYSTEM_OWNER, Event::NodeLogAnchored { node, size: checkpoint.size, root: checkpoint.root.base64() })?;
    let row = KeptRow { format: FORMAT, size: checkpoint.size, root: checkpoint.root.base64(), time: call.now };
    let put = Put::json(SYSTEM_OWNER, KEPT, node, expect, &row).map_err(Failure::internal)?;
    match control.store.commit(Transaction::new().with(put).entry(entry), call.now).await {
        Ok(_) => Ok(NodeLogKept { size: checkpoint.size }),
        // Another process kept one meanwhile: the node offers again.
        Err(error) if error.conflict().is_some() => Ok(NodeLogKept { size }),
        Err(error) => Err(commit_failure(error)),
    }
}

/// The checkpoint, if this node's record key signed it, and nobody else.
fn signed(call: &NodeCall<NodeReport>, offer: &NodeLogOffer) -> Result<Checkpoint, Failure> {
    let node = call.node_id();
    let public = STANDARD.decode(&call.node.record_key).ok().and_then(|bytes| bytes.try_into().ok());
    let public: [u8; 32] = public.ok_or_else(|| Failure::internal("a node's record key is not 32 bytes"))?;
    let key = node_log::key(call.control.deployment, node, public).map_err(Failure::internal)?;
    let invalid = |error: &dyn std::fmt::Display| Failure::invalid(format!("`checkpoint`: {error}"));
    let note = Note::parse(offer.checkpoint.as_bytes()).map_err(|error| invalid(&error))?;
    Ok(Checkpoint::verify_strict(&note, &key, &[]).map_err(|error| invalid(&error))?.0)
}

/// A node that shows another history than it signed before is refused, and that is an entry.
async fn refused(call: &NodeCall<NodeReport>, rule: &'static str, detail: String) -> Failure {
    tracing::error!(node = %call.node_id(), detail, "a node's log is not what it was");
    let failure = Failure::new(ErrorCode::Conflict, detail);
    call.refused(SYSTEM_OWNER, failure, "node".to_owned(), call.node_id().to_string(), vec![rule.to_owned()]).await
}
