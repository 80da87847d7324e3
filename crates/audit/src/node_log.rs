//! The log that a node keeps of what it did itself, and what is said about it: integrity and completeness, never merged.
//!
//! It is a log like the deployment's: C2SP tlog-tiles with a signed checkpoint. A leaf is the canonical JSON of one
//! [`NodeEntry`], whose sequence is its index. The node signs its checkpoints with its record key, and the control plane
//! keeps them as entries of its own log ([`crate::Event::NodeLogAnchored`]): the node can drop nothing below an anchor, and the
//! control plane can invent nothing that the node did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vocabulary::job::AttemptId;
use vocabulary::{DeploymentId, LeaseId, NodeId, SecretId, UnixTime, VolumeId};

use crate::canonical::{self, CanonicalError};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::{Hash, leaf_hash};
use crate::key::{KeyError, KeyKind, VerifierKey};
use crate::limits::{BODY_MAX, TILE_WIDTH};
use crate::note::{Note, NoteError};
use crate::tile::{TilePath, TileReader, decode_bundle};
use crate::walk::{CompactTree, LogError, verify_log};

/// The version of a leaf.
pub const NODE_ENTRY_FORMAT: u32 = 1;

/// What a node did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are named by the vocabulary's words; each variant says what happened")]
pub enum NodeEvent {
    /// The agent started, in this boot of the machine.
    AgentStarted { version: String, boot: String },
    /// An attempt is about to enter a step.
    AttemptStep { attempt: AttemptId, step: String },
    /// The keys of a volume came for an attempt.
    KeyReceived { attempt: AttemptId, volume: VolumeId, lease: LeaseId },
    /// The control plane refused the keys of a volume.
    KeyRefused { attempt: AttemptId, volume: VolumeId, code: String },
    /// A secret came for an attempt.
    SecretReceived { attempt: AttemptId, secret: SecretId, lease: LeaseId },
    /// The control plane refused a secret.
    SecretRefused { attempt: AttemptId, secret: SecretId, code: String },
}

/// One leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// [`NODE_ENTRY_FORMAT`].
    pub format: u32,
    /// Rises by one with every entry: the index of the leaf. As text, because it may pass 2^53.
    pub sequence: String,
    /// When it happened, by the node's clock.
    pub time: UnixTime,
    /// What happened.
    pub event: NodeEvent,
}

impl NodeEntry {
    /// The bytes of the leaf.
    pub fn encode(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }
    /// Reads a leaf: canonical JSON of this version. `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let value = canonical::value_from_slice(bytes, BODY_MAX).ok()?;
        let entry: Self = serde_json::from_value(value).ok()?;
        let same = entry.encode().is_ok_and(|again| again == bytes);
        (same && entry.format == NODE_ENTRY_FORMAT).then_some(entry)
    }
    /// Whether it is the entry of this index.
    #[must_use]
    pub fn is_number(&self, index: u64) -> bool {
        self.sequence == index.to_string()
    }
}

/// The name of a node's log, and of the key that signs it.
#[must_use]
pub fn origin(deployment: DeploymentId, node: NodeId) -> String {
    format!("swarm.invalid/{deployment}/node/{node}/log")
}

/// The key with which a node signs its log: its record key, which its enrolment names.
pub fn key(deployment: DeploymentId, node: NodeId, record_key: [u8; 32]) -> Result<VerifierKey, KeyError> {
    VerifierKey::new(&origin(deployment, node), KeyKind::Ed25519, record_key)
}

/// A checkpoint that the control plane has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// So many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Why the log is not what the node signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    /// The checkpoint is no note.
    #[error("the checkpoint is malformed: {0}")]
    Note(#[from] NoteError),
    /// It is not signed by this node.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Leaves and tiles do not give the root.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Whether entries are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeCompleteness {
    /// Every entry follows the one before, and every anchor is a beginning of this log.
    Complete {
        /// Below the newest anchor nothing can have been dropped later.
        below: u64,
    },
    /// Every entry follows the one before, and nothing was anchored yet.
    NotAnchored,
    /// The entry at this index has another number: one is missing, doubled, or out of order.
    Sequence {
        /// The index.
        index: u64,
        /// What stands there.
        found: Option<String>,
    },
    /// More was anchored than is shown: the end was cut off.
    Truncated {
        /// So many entries were anchored.
        anchored: u64,
        /// So many are shown.
        shown: u64,
    },
    /// Another history was anchored.
    Forked {
        /// At this size.
        size: u64,
    },
    /// Not judged, since the log is not whole.
    NotJudged,
}

/// The two verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLogVerdict {
    /// Nothing was altered: how many entries make the signed root.
    pub integrity: Result<u64, IntegrityError>,
    /// Nothing is missing.
    pub completeness: NodeCompleteness,
}

/// Judges a node's log by the key of its enrolment and the anchors in the deployment's log.
#[must_use]
pub fn judge(reader: &dyn TileReader, checkpoint: &[u8], key: &VerifierKey, anchors: &[Anchor]) -> NodeLogVerdict {
    match integrity(reader, checkpoint, key) {
        Ok(size) => NodeLogVerdict { integrity: Ok(size), completeness: completeness(reader, size, anchors) },
        Err(error) => NodeLogVerdict { integrity: Err(error), completeness: NodeCompleteness::NotJudged },
    }
}

fn integrity(reader: &dyn TileReader, checkpoint: &[u8], key: &VerifierKey) -> Result<u64, IntegrityError> {
    let (checkpoint, _) = Checkpoint::verify(&Note::parse(checkpoint)?, key, &[])?;
    Ok(verify_log(reader, &checkpoint)?)
}

/// The log is whole: its bundles hold what the root says.
fn completeness(reader: &dyn TileReader, size: u64, anchors: &[Anchor]) -> NodeCompleteness {
    let mut wanted: BTreeMap<u64, Vec<Hash>> = BTreeMap::new();
    for anchor in anchors {
        wanted.entry(anchor.size).or_default().push(anchor.root);
    }
    let newest = wanted.last_key_value().map(|(size, _)| *size);
    if let Some(anchored) = newest.filter(|anchored| *anchored > size) {
        return NodeCompleteness::Truncated { anchored, shown: size };
    }
    let mut tree = CompactTree::new();
    let agrees = |tree: &CompactTree| wanted.get(&tree.size()).is_none_or(|roots| roots.iter().all(|root| *root == tree.root()));
    if !agrees(&tree) {
        return NodeCompleteness::Forked { size: 0 };
    }
    while let Some(path) = TilePath::entries_at(size, tree.size() / u64::from(TILE_WIDTH)).filter(|_| tree.size() < size) {
        let bytes = reader.tile(&path).unwrap_or_default();
        let Ok(leaves) = decode_bundle(&path, &bytes) else { return NodeCompleteness::NotJudged };
        for leaf in leaves {
            let index = tree.size();
            let entry = NodeEntry::parse(leaf);
            if !entry.as_ref().is_some_and(|entry| entry.is_number(index)) {
                return NodeCompleteness::Sequence { index, found: entry.map(|entry| entry.sequence) };
            }
            tree.push(leaf_hash(leaf));
            if !agrees(&tree) {
                return NodeCompleteness::Forked { size: tree.size() };
            }
        }
    }
    newest.map_or(NodeCompleteness::NotAnchored, |below| NodeCompleteness::Complete { below })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Ed25519Signer;

    const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);
    const NODE: NodeId = NodeId::from_bytes([2; 16]);
    type Tiles = BTreeMap<TilePath, Vec<u8>>;

    fn signer(seed: u8) -> Ed25519Signer {
        Ed25519Signer::from_seed(&origin(DEPLOYMENT, NODE), &[seed; 32]).unwrap()
    }

    fn leaf(sequence: u64, step: &str) -> Vec<u8> {
        let attempt = AttemptId { job: vocabulary::JobId::from_bytes([3; 16]), attempt: 1 };
        let event = NodeEvent::AttemptStep { attempt, step: step.to_owned() };
        let entry = NodeEntry { format: NODE_ENTRY_FORMAT, sequence: sequence.to_string(), time: UnixTime::from_millis(1_800_000_000_000), event };
        entry.encode().unwrap()
    }

    /// A log of these leaves as a node that lies well would make it: whole and signed.
    fn log(leaves: &[Vec<u8>]) -> (Tiles, Vec<u8>, Anchor) {
        let leaves: Vec<&[u8]> = leaves.iter().map(Vec::as_slice).collect();
        let made = crate::append(&Tiles::new(), 0, &crate::hash::empty_root(), &leaves).unwrap();
        let checkpoint = Checkpoint { origin: origin(DEPLOYMENT, NODE), size: made.size, root: made.root };
        let note = checkpoint.sign(&signer(7)).unwrap().encode();
        (made.files.into_iter().collect(), note, Anchor { size: made.size, root: made.root })
    }

    fn judged(leaves: &[Vec<u8>], anchors: &[Anchor]) -> NodeLogVerdict {
        let (tiles, note, _) = log(leaves);
        let key = crate::key::verifier_of(&signer(7), KeyKind::Ed25519).unwrap();
        judge(&tiles, &note, &key, anchors)
    }

    #[test]
    fn what_a_node_leaves_out_doubles_reorders_cuts_or_rewrites_is_found_though_it_signs_it() {
        let honest: Vec<Vec<u8>> = (0..300).map(|sequence| leaf(sequence, "running")).collect();
        let anchors: Vec<Anchor> = [1, 255, 256, 257, 299].iter().map(|size| log(&honest[..*size]).2).collect();
        let whole = judged(&honest, &anchors);
        assert_eq!(whole, NodeLogVerdict { integrity: Ok(300), completeness: NodeCompleteness::Complete { below: 299 } });
        assert_eq!(judged(&honest, &[]).completeness, NodeCompleteness::NotAnchored);
        assert_eq!(judged(&[], &[]).completeness, NodeCompleteness::NotAnchored);
        let attack = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut leaves = honest.clone();
            change(&mut leaves);
            let verdict = judged(&leaves, &anchors);
            // It is signed and whole: only the other verdict finds it.
            assert_eq!(verdict.integrity, Ok(u64::try_from(leaves.len()).unwrap()));
            verdict.completeness
        };
        let found = |sequence: u64| Some(sequence.to_string());
        assert_eq!(attack(&|leaves| drop(leaves.remove(298))), NodeCompleteness::Sequence { index: 298, found: found(299) });
        assert_eq!(attack(&|leaves| leaves.insert(5, leaf(4, "running"))), NodeCompleteness::Sequence { index: 5, found: found(4) });
        assert_eq!(attack(&|leaves| leaves.swap(270, 271)), NodeCompleteness::Sequence { index: 270, found: found(271) });
        assert_eq!(attack(&|leaves| leaves.truncate(298)), NodeCompleteness::Truncated { anchored: 299, shown: 298 });
        assert_eq!(attack(&|leaves| leaves[256] = leaf(256, "stopping")), NodeCompleteness::Forked { size: 257 });
        assert_eq!(attack(&|leaves| leaves[299] = b"no entry".to_vec()), NodeCompleteness::Sequence { index: 299, found: None });
        // Beyond the newest anchor a node can still rewrite: the next anchor ends that.
        assert_eq!(attack(&|leaves| leaves[299] = leaf(299, "stopping")), NodeCompleteness::Complete { below: 299 });
    }

    #[test]
    fn another_key_and_a_changed_byte_break_integrity_and_completeness_is_not_judged() {
        let leaves: Vec<Vec<u8>> = (0..3).map(|sequence| leaf(sequence, "running")).collect();
        let (tiles, note, _) = log(&leaves);
        let key = crate::key::verifier_of(&signer(7), KeyKind::Ed25519).unwrap();
        let other = crate::key::verifier_of(&signer(8), KeyKind::Ed25519).unwrap();
        let verdict = judge(&tiles, &note, &other, &[]);
        assert!(verdict.integrity.is_err() && verdict.completeness == NodeCompleteness::NotJudged);
        for path in tiles.keys() {
            let mut changed = tiles.clone();
            changed.get_mut(path).unwrap()[40] ^= 1;
            let verdict = judge(&changed, &note, &key, &[]);
            assert!(verdict.integrity.is_err() && verdict.completeness == NodeCompleteness::NotJudged, "{path}");
        }
        assert!(judge(&Tiles::new(), &note, &key, &[]).integrity.is_err());
        assert!(judge(&tiles, b"", &key, &[]).integrity.is_err());
    }

    #[test]
    fn a_leaf_has_one_form() {
        let good = leaf(0, "running");
        assert!(NodeEntry::parse(&good).is_some());
        let text = String::from_utf8(good).unwrap();
        for bad in [format!(" {text}"), text.replacen("\"format\":1", "\"format\":2", 1), text.replacen("running", "running\",\"x\":\"", 1), String::new()] {
            assert!(NodeEntry::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
