//! What the control plane has heard of its nodes lately, in memory; what lies in the store is at most a few seconds older.
//!
//! A heartbeat that says nothing new costs no write of its own: [`crate::driver`] writes what was heard in one transaction
//! every [`crate::limits::SEEN_FLUSH_MS`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use vocabulary::job::AttemptId;
use vocabulary::plan::{NodeFacts, NodePlan, SignedPlan};
use vocabulary::{NodeId, UnixTime};

use crate::api::problem::Failure;
use crate::limits::NODE_LOST_MS;
use crate::row::FORMAT;

/// The kind of [`SeenRow`], under the node's id.
pub(crate) const SEEN: store::Kind = store::Kind::new("node_seen");

/// What a node said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeenRow {
    pub(crate) format: u32,
    pub(crate) node: NodeId,
    pub(crate) last_seen: Option<UnixTime>,
    pub(crate) facts: NodeFacts,
    /// The plan that it works on.
    pub(crate) plan_revision: u64,
}

/// A node's plan, as stored under the node's id. The row's revision is the plan's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanRow {
    pub(crate) format: u32,
    pub(crate) signed: SignedPlan,
}

/// A plan with what its signed bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CurrentPlan {
    pub(crate) plan: NodePlan,
    pub(crate) signed: SignedPlan,
}

impl PlanRow {
    /// Reads the plan in its payload.
    pub(crate) fn read(self) -> Result<CurrentPlan, Failure> {
        let payload = STANDARD.decode(&self.signed.payload).map_err(Failure::internal)?;
        Ok(CurrentPlan { plan: serde_json::from_slice(&payload).map_err(Failure::internal)?, signed: self.signed })
    }
}

/// The nodes.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: Mutex<BTreeMap<NodeId, Live>>,
    /// Wakes the driver: something was asked for that it should look at now.
    pub(crate) wake: Notify,
    /// Rises when jobs may fit on a node that they did not fit on before, though no row changed.
    news: AtomicU64,
}

#[derive(Debug)]
struct Live {
    seen: Option<SeenRow>,
    dirty: bool,
    /// How far the current step of each attempt is; worth nothing after a restart, so it is not stored.
    progress: BTreeMap<AttemptId, (u64, u64)>,
    /// Attempts that it reported and that were never its own.
    lies: BTreeSet<AttemptId>,
    plan: watch::Sender<Option<Arc<CurrentPlan>>>,
}

impl Default for Live {
    fn default() -> Self {
        Self { seen: None, dirty: false, progress: BTreeMap::new(), lies: BTreeSet::new(), plan: watch::Sender::new(None) }
    }
}

impl Fleet {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Live>> {
        // Entries are replaced as wholes, so what a panic left behind is good.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes this as what was heard last, whatever is known.
    #[cfg(test)]
    pub(crate) fn load(&self, seen: SeenRow) {
        let node = seen.node;
        self.nodes().entry(node).or_default().seen = Some(seen);
    }

    /// Another process heard of a node, later than this one.
    pub(crate) fn heard_elsewhere(&self, seen: SeenRow) {
        let mut nodes = self.nodes();
        let live = nodes.entry(seen.node).or_default();
        let news = live.seen.as_ref().is_none_or(|known| known.facts != seen.facts);
        if live.seen.as_ref().is_none_or(|known| known.last_seen < seen.last_seen) {
            live.seen = Some(seen);
            live.dirty = false;
        }
        drop(nodes);
        if news {
            self.news.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A node joined: its facts are known before its first report.
    pub(crate) fn enrolled(&self, node: NodeId, facts: NodeFacts) {
        let mut nodes = self.nodes();
        let live = nodes.entry(node).or_default();
        live.seen = Some(SeenRow { format: FORMAT, node, last_seen: None, facts, plan_revision: 0 });
        live.dirty = true;
        drop(nodes);
        self.wake.notify_one();
    }

    /// A node reported. Says whether it was silent before or has new facts: then jobs may fit that did not.
    pub(crate) fn reported(
        &self,
        node: NodeId,
        now: UnixTime,
        facts: &NodeFacts,
        plan_revision: u64,
        progress: BTreeMap<AttemptId, (u64, u64)>,
    ) -> bool {
        let mut nodes = self.nodes();
        let live = nodes.entry(node).or_default();
        let silent = |seen: &SeenRow| seen.last_seen.and_then(|seen| now.since(seen)).is_none_or(|age| age >= NODE_LOST_MS);
        let news = live.seen.as_ref().is_none_or(|seen| silent(seen) || seen.facts != *facts);
        live.seen = Some(SeenRow { format: FORMAT, node, last_seen: Some(now), facts: facts.clone(), plan_revision });
        live.dirty = true;
        live.progress = progress;
        drop(nodes);
        if news {
            self.news.fetch_add(1, Ordering::Relaxed);
        }
        news
    }

    /// How often jobs may have come to fit somewhere.
    pub(crate) fn news(&self) -> u64 {
        self.news.load(Ordering::Relaxed)
    }

    /// How far the current step of an attempt is.
    pub(crate) fn progress(&self, node: NodeId, attempt: AttemptId) -> Option<(u64, u64)> {
        self.nodes().get(&node)?.progress.get(&attempt).copied()
    }

    /// Whether this is the first time that a node reports this foreign attempt; few are remembered, and no more are told.
    pub(crate) fn first_lie(&self, node: NodeId, attempt: AttemptId) -> bool {
        let mut nodes = self.nodes();
        let lies = &mut nodes.entry(node).or_default().lies;
        lies.len() < 64 && lies.insert(attempt)
    }

    /// Nodes that reported lately. A clock that went back counts as silence.
    pub(crate) fn alive(&self, now: UnixTime) -> BTreeSet<NodeId> {
        let lately = |seen: &SeenRow| seen.last_seen.and_then(|seen| now.since(seen)).is_some_and(|age| age < NODE_LOST_MS);
        self.nodes().iter().filter(|(_, live)| live.seen.as_ref().is_some_and(lately)).map(|(id, _)| *id).collect()
    }

    /// Whether a node that was heard of has a GPU.
    pub(crate) fn offers_gpus(&self) -> bool {
        self.nodes().values().any(|live| live.seen.as_ref().is_some_and(|seen| seen.facts.gpus > 0))
    }

    /// Whether a node that was heard of offers this runtime. The default is everywhere.
    pub(crate) fn offers(&self, runtime: vocabulary::runtime::Runtime) -> bool {
        runtime == vocabulary::runtime::Runtime::default()
            || self.nodes().values().any(|live| live.seen.as_ref().is_some_and(|seen| seen.facts.offers(runtime)))
    }

    /// What a node said last.
    pub(crate) fn seen(&self, node: NodeId) -> Option<SeenRow> {
        self.nodes().get(&node)?.seen.clone()
    }

    /// What was heard since the last time this was asked.
    pub(crate) fn take_dirty(&self) -> Vec<SeenRow> {
        let mut nodes = self.nodes();
        nodes.values_mut().filter_map(|live| std::mem::take(&mut live.dirty).then(|| live.seen.clone()).flatten()).collect()
    }

    /// Follows a node's plan.
    pub(crate) fn plan(&self, node: NodeId) -> watch::Receiver<Option<Arc<CurrentPlan>>> {
        self.nodes().entry(node).or_default().plan.subscribe()
    }

    /// The newest plan of a node.
    pub(crate) fn current_plan(&self, node: NodeId) -> Option<Arc<CurrentPlan>> {
        self.nodes().get(&node)?.plan.borrow().clone()
    }

    /// A newer plan was stored. An older one than is known changes nothing.
    pub(crate) fn set_plan(&self, plan: CurrentPlan) {
        self.nodes().entry(plan.plan.node).or_default().plan.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| known.plan.revision < plan.plan.revision);
            if newer {
                *known = Some(Arc::new(plan));
            }
            newer
        });
    }
}
