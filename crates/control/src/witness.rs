//! The witnesses of the log: which must have signed, what they signed last, and whether anything may be published at all.
//!
//! The publisher signs and stores checkpoints; [`gather`] offers the newest to each witness of the policy, and keeps the
//! signatures in one row, so that several control planes gather for the same checkpoint. A checkpoint that the quorum
//! signed is *settled*: receipts and proofs are made under it.
//!
//! **Invariant:** before the first signature of a process, as many witnesses have said what they signed last as the quorum
//! needs: a database that was restored from an older copy publishes nothing. **Invariant:** a witness cannot stop the log by
//! a lie: only a checkpoint that this log itself signed shows that the database is older.

mod ask;
pub(crate) mod gather;
mod seat;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use audit::note::Note;
use audit::{VerifierKey, WitnessPolicy};
use serde::{Deserialize, Serialize};
use store::{Kind, Publisher};
use tokio::sync::watch;
use vocabulary::witness::{WitnessInfo, WitnessState};
use vocabulary::{EntryId, NodeId, SYSTEM_OWNER, Sha256Digest, UnixTime};

use crate::api::problem::Failure;
use crate::state::Control;
use seat::Seats;

/// The kind of [`PolicyRow`], under the deployment's id.
pub(crate) const POLICY: Kind = Kind::new("witness_policy");
/// The kind of [`CosignedRow`], under the deployment's id.
pub(crate) const COSIGNED: Kind = Kind::new("cosigned_checkpoint");
/// The kind of [`OfferedRow`], under the node's id.
pub(crate) const OFFERED: Kind = Kind::new("node_witness");

/// Which witnesses must have signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyRow {
    pub(crate) format: u32,
    /// The policy file in its plain form.
    pub(crate) text: String,
    pub(crate) set: UnixTime,
    pub(crate) entry: EntryId,
}

/// Signatures for one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Candidate {
    pub(crate) size: u64,
    /// The checkpoint with the log's signature and the witnesses' so far.
    pub(crate) note: String,
    pub(crate) begun: UnixTime,
}

/// A checkpoint that the quorum signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settled {
    pub(crate) size: u64,
    pub(crate) note: String,
    pub(crate) at: UnixTime,
}

/// What was gathered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CosignedRow {
    pub(crate) format: u32,
    /// The checkpoint for which signatures are gathered now.
    pub(crate) candidate: Option<Candidate>,
    /// The newest that the quorum signed.
    pub(crate) settled: Option<Settled>,
}

/// The key with which a node offers to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfferedRow {
    pub(crate) format: u32,
    pub(crate) node: NodeId,
    pub(crate) key: String,
}

/// Where a witness is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A node, over its channel.
    Node(NodeId),
    /// A witness of somebody else, over HTTP.
    Url(String),
}

impl Place {
    /// Reads the address of a witness in a policy.
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        let text = text?;
        if let Some(node) = text.strip_prefix("node:") {
            return node.parse().ok().map(Self::Node);
        }
        let url: reqwest::Url = text.parse().ok()?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        plain.then(|| Self::Url(text.trim_end_matches('/').to_owned()))
    }
}

/// Whether checkpoints may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The witnesses have to say first what they signed last.
    Asking,
    Open,
    /// Never again on this database, for this reason.
    Closed(String),
}

/// What a witness answered last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) size: Option<u64>,
    pub(crate) at: Option<UnixTime>,
    pub(crate) said: String,
}

/// What one process knows of the witnesses.
#[derive(Debug)]
pub(crate) struct Witnesses {
    guard: watch::Sender<Guard>,
    pub(crate) seats: Seats,
    /// By verifier key.
    heard: Mutex<BTreeMap<String, Heard>>,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Default for Witnesses {
    fn default() -> Self {
        Self { guard: watch::Sender::new(Guard::Asking), seats: Seats::default(), heard: Mutex::default(), client: OnceLock::new() }
    }
}

impl Witnesses {
    /// Whether the publisher may sign.
    pub(crate) fn may_publish(&self) -> bool {
        *self.guard.borrow() == Guard::Open
    }

    pub(crate) fn guard(&self) -> Guard {
        self.guard.borrow().clone()
    }

    /// Opens what was never closed.
    fn open(&self) {
        self.guard.send_if_modified(|guard| {
            let asking = *guard == Guard::Asking;
            if asking {
                *guard = Guard::Open;
            }
            asking
        });
    }

    /// Closes for good.
    fn close(&self, reason: String) {
        self.guard.send_if_modified(|guard| {
            if matches!(guard, Guard::Closed(_)) {
                return false;
            }
            tracing::error!(reason, "nothing is published any more");
            *guard = Guard::Closed(reason);
            true
        });
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Heard>> {
        // Entries are replaced as wholes, so what a panic left behind is good.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) policy: WitnessPolicy,
    pub(crate) text: String,
}

impl Active {
    pub(crate) fn digest(&self) -> Sha256Digest {
        receipt::envelope::sha256(self.text.as_bytes())
    }
}

/// The checkpoint under which proofs are made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) size: u64,
    pub(crate) checkpoint: Vec<u8>,
    /// The policy file, where a policy is set.
    pub(crate) policy: Option<String>,
    /// No witness had to sign.
    pub(crate) quorum_none: bool,
}

impl Control {
    /// The witness policy in force.
    pub(crate) async fn witness_policy(&self) -> Result<Option<Active>, Failure> {
        let found = self.store.get_json::<PolicyRow>(SYSTEM_OWNER, POLICY, self.deployment).await.map_err(Failure::internal)?;
        let Some((_, row)) = found else { return Ok(None) };
        let policy = WitnessPolicy::parse(row.text.as_bytes()).map_err(Failure::internal)?;
        Ok(Some(Active { policy, text: row.text }))
    }

    /// What was gathered, with the row's revision.
    pub(crate) async fn cosigned(&self) -> Result<Option<(u64, CosignedRow)>, Failure> {
        let found = self.store.get_json::<CosignedRow>(SYSTEM_OWNER, COSIGNED, self.deployment).await.map_err(Failure::internal)?;
        Ok(found.map(|(stored, row)| (stored.revision, row)))
    }

    /// The newest checkpoint that the quorum of this policy signed. One that an older policy settled is judged again.
    pub(crate) async fn settled(&self, active: &Active) -> Result<Option<Settled>, Failure> {
        let Some(settled) = self.cosigned().await?.and_then(|(_, row)| row.settled) else { return Ok(None) };
        let note = Note::parse(settled.note.as_bytes()).map_err(Failure::internal)?;
        let reached = active.policy.verify(&note).is_ok_and(|(_, judged)| judged.satisfied);
        Ok(reached.then_some(settled))
    }

    /// The checkpoint under which proofs and receipts are made: the newest that the quorum signed; without a quorum, the
    /// newest one. `None` while there is none.
    pub(crate) async fn proof_base(&self) -> Result<Option<Base>, Failure> {
        let publisher = self.store.publisher().await.map_err(Failure::internal)?.filter(|publisher| !publisher.checkpoint.is_empty());
        let active = self.witness_policy().await?;
        let plain = |publisher: Publisher, policy| Base { size: publisher.size, checkpoint: publisher.checkpoint, policy, quorum_none: true };
        let Some(active) = active else { return Ok(publisher.map(|publisher| plain(publisher, None))) };
        let none = active.policy.is_none();
        match self.settled(&active).await? {
            Some(settled) if !none || publisher.as_ref().is_some_and(|publisher| publisher.size == settled.size) => {
                let checkpoint = only_known(&settled.note, &active.policy).map_err(Failure::internal)?;
                Ok(Some(Base { size: settled.size, checkpoint, policy: Some(active.text), quorum_none: none }))
            }
            Some(_) | None if none => Ok(publisher.map(|publisher| plain(publisher, Some(active.text)))),
            Some(_) | None => Ok(None),
        }
    }

    /// What people are shown of the witnesses.
    pub(crate) async fn witness_state(&self) -> Result<WitnessState, Failure> {
        let active = self.witness_policy().await?;
        let settled = match &active {
            Some(active) => self.settled(active).await?,
            None => None,
        };
        let mut offered = self.offered().await?;
        let heard = self.witnesses.heard().clone();
        let info = |name: String, key: &VerifierKey, url: String, node: Option<NodeId>, in_policy: bool| {
            let key = key.to_string();
            let heard = heard.get(&key);
            let signed_size = heard.and_then(|heard| heard.size);
            let signed_at = heard.and_then(|heard| heard.at);
            WitnessInfo { name, key, url, node, in_policy, signed_size, signed_at, said: heard.map(|heard| heard.said.clone()) }
        };
        let mut witnesses = Vec::new();
        for witness in active.iter().flat_map(|active| active.policy.witnesses()) {
            let node = match Place::parse(witness.url.as_deref()) {
                Some(Place::Node(node)) => Some(node),
                Some(Place::Url(_)) | None => None,
            };
            offered.retain(|row| row.key != witness.key.to_string());
            witnesses.push(info(witness.name.clone(), &witness.key, witness.url.clone().unwrap_or_default(), node, true));
        }
        for row in offered {
            let Ok(key) = row.key.parse() else { continue };
            witnesses.push(info(row.node.to_string(), &key, format!("node:{}", row.node), Some(row.node), false));
        }
        Ok(WitnessState {
            policy: active.as_ref().map(Active::digest),
            quorum: active.as_ref().map_or_else(|| "no policy is set: no witness must have signed".to_owned(), |active| active.policy.summary()),
            cosigned_size: settled.as_ref().map(|settled| settled.size),
            cosigned_at: settled.map(|settled| settled.at),
            published_size: *self.published.borrow(),
            publishing: match self.witnesses.guard() {
                Guard::Open => "open".to_owned(),
                Guard::Asking => "asking".to_owned(),
                Guard::Closed(reason) => format!("closed: {reason}"),
            },
            witnesses,
        })
    }

    /// The keys that nodes offer, one each; as many as a page holds.
    async fn offered(&self) -> Result<Vec<OfferedRow>, Failure> {
        let found = self.store.list(SYSTEM_OWNER, OFFERED, store::Page::first(1000)).await.map_err(Failure::internal)?;
        found.items.iter().map(|row| row.parse().map_err(Failure::internal)).collect()
    }
}

/// The note with the lines of the log and of this policy's witnesses alone: a verifier refuses lines of others, which an
/// older policy may have left.
fn only_known(note: &str, policy: &WitnessPolicy) -> Result<Vec<u8>, audit::note::NoteError> {
    let parsed = Note::parse(note.as_bytes())?;
    let known = |name: &str, id: [u8; 4]| {
        policy.logs().iter().chain(policy.witnesses()).any(|one| one.key.name() == name && one.key.id() == id)
    };
    let lines: String = parsed.signatures().iter().filter(|one| known(&one.name, one.id)).map(audit::note::NoteSignature::line).collect();
    Ok(format!("{}\n{lines}", parsed.text()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_nodes_or_plain_urls() {
        let node = "0190b5b4-0000-7000-8000-0000000000ff";
        assert_eq!(Place::parse(Some(&format!("node:{node}"))), Some(Place::Node(node.parse().unwrap())));
        assert_eq!(Place::parse(Some("https://w.example/a/")), Some(Place::Url("https://w.example/a".to_owned())));
        for wrong in ["", "node:", "node:x", "w.example", "ftp://w.example", "http://u:p@w.example", "http://w.example/?a", "http://w.example/#a", "file:///etc/passwd"] {
            assert_eq!(Place::parse(Some(wrong)), None, "{wrong}");
        }
        assert_eq!(Place::parse(None), None);
    }

    #[test]
    fn closed_is_for_good() {
        let witnesses = Witnesses::default();
        assert!(!witnesses.may_publish());
        witnesses.open();
        assert!(witnesses.may_publish());
        witnesses.close("one".to_owned());
        witnesses.close("two".to_owned());
        witnesses.open();
        assert_eq!(witnesses.guard(), Guard::Closed("one".to_owned()));
    }
}
