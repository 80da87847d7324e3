//! The planner: which attempt runs where, and what each node is told. Pure: rows and `now` in, decisions out.
//!
//! **Invariant:** an attempt is superseded only when its end is recorded, or when its run lease plus the skew of two
//! clocks has passed: a job is never alive twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vocabulary::api::Misfit;
use vocabulary::job::{AttemptId, Exit, ExitReason, JobSpec, JobState};
use vocabulary::label::Jurisdictions;
use vocabulary::plan::{AttemptReport, Desired, NodeFacts, NodePlace, PlannedJob};
use vocabulary::{EntryId, JobId, LeaseId, Name, NodeId, PrincipalId, ProjectId, Region, Sha256Digest, TenantId, UnixTime, VolumeId};

use crate::limits::{CLOCK_SKEW_MS, NODE_LOST_MS};

/// Attempts after lost nodes: more than this many machines dying under one job is not chance.
pub const ATTEMPTS_MAX: usize = 3;

/// One attempt, as stored in its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptRow {
    pub number: u32,
    pub node: NodeId,
    pub run_lease: LeaseId,
    pub run_lease_until: UnixTime,
    pub placed: UnixTime,
    /// The entry of its placement.
    pub placed_entry: EntryId,
    pub report: AttemptReport,
    /// The digest of the node's signed statement, which lies among the blobs.
    #[serde(default)]
    pub statement: Option<Sha256Digest>,
    /// What the node said of its end before its statement arrived: its end is recorded with the statement, or without it
    /// once the node had its time.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// The entry of its recorded end.
    #[serde(default)]
    pub finished_entry: Option<EntryId>,
}

/// An end that is reported and not yet recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// When the control plane heard of it.
    pub heard: UnixTime,
    pub report: AttemptReport,
}

/// Where the receipt of a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptRow {
    /// Its digest among the blobs.
    Ready(Sha256Digest),
    /// There will be none: no attempt ran, or its node never delivered its statement.
    None(String),
}

/// A job, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRow {
    pub format: u32,
    pub id: JobId,
    pub tenant: TenantId,
    pub project: ProjectId,
    pub owner: PrincipalId,
    pub created: UnixTime,
    pub spec: JobSpec,
    /// The policy epoch under which it was admitted.
    pub policy_epoch: u64,
    /// The entry of its admission.
    pub submitted_entry: EntryId,
    /// What somebody asked for since.
    pub desired: Desired,
    /// Attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
    /// Set when nothing will change any more.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Set when its receipt is built, or cannot be.
    #[serde(default)]
    pub receipt: Option<ReceiptRow>,
}

impl JobRow {
    /// The newest attempt, while the job is not over.
    pub fn live(&self) -> Option<&AttemptRow> {
        self.attempts.last().filter(|attempt| !attempt.report.state.is_final())
    }
    /// The job's state as people see it.
    pub fn state(&self) -> JobState {
        match (&self.exit, self.attempts.last()) {
            (Some(exit), last) => match last {
                Some(attempt) if attempt.report.state.is_final() => attempt.report.state,
                _ if exit.reason == ExitReason::Completed => JobState::Exited,
                _ => JobState::Failed,
            },
            (None, Some(attempt)) if !attempt.report.state.is_final() => attempt.report.state,
            (None, _) => JobState::Pending,
        }
    }
    /// Records the end of the live attempt: with the digest of the node's signed statement where there is one, under the entry
    /// that will be written with this row. The job is over with it, unless the cause lies with the machine and it may run again.
    ///
    /// Returns what the entry of the end says; `None` when no attempt is live.
    pub fn finish(&mut self, exit: Exit, statement: Option<Sha256Digest>, entry: EntryId, now: UnixTime) -> Option<AttemptId> {
        let again = may_run_again(self, exit.reason);
        let job = self.id;
        let attempt = self.attempts.last_mut().filter(|attempt| !attempt.report.state.is_final())?;
        attempt.report.state = final_state(exit.reason);
        attempt.report.since = now;
        attempt.report.progress = None;
        if let Some(ended) = attempt.ended.take() {
            attempt.report.isolation = ended.report.isolation.or(attempt.report.isolation.take());
        }
        attempt.report.exit = Some(exit.clone());
        attempt.statement = statement;
        attempt.finished_entry = Some(entry);
        let id = AttemptId { job, attempt: attempt.number };
        if !again {
            self.exit = Some(exit);
        }
        Some(id)
    }
    pub fn attempt_id(&self, attempt: &AttemptRow) -> AttemptId {
        AttemptId { job: self.id, attempt: attempt.number }
    }
}

/// A node, as the planner sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub id: NodeId,
    pub name: Name,
    pub place: NodePlace,
    pub facts: NodeFacts,
    pub trust: u8,
    pub draining: bool,
    pub revoked: bool,
    pub last_seen: Option<UnixTime>,
}

impl NodeView {
    /// Whether it reported within [`NODE_LOST_MS`]. A clock that went back counts as silence.
    pub fn alive(&self, now: UnixTime) -> bool {
        self.last_seen.and_then(|seen| now.since(seen)).is_some_and(|age| age < NODE_LOST_MS)
    }
}

/// What a job's data demands of a place.
#[derive(Debug, Clone)]
pub struct DataRule {
    pub volume: VolumeId,
    pub name: Name,
    pub jurisdictions: Jurisdictions,
    pub min_trust: u8,
    /// The region where its sealed bytes lie; told, not enforced: opening is bound by jurisdiction.
    pub region: Region,
}

/// What a node has given away already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub scratch_bytes: u64,
    pub gpus: u32,
    pub jobs: u32,
}

/// Sums what live attempts hold on each node. A cancelled attempt holds its place until its end is recorded.
pub fn usage<'a>(jobs: impl IntoIterator<Item = &'a JobRow>) -> BTreeMap<NodeId, Used> {
    let mut used: BTreeMap<NodeId, Used> = BTreeMap::new();
    for job in jobs {
        if let Some(attempt) = job.live() {
            let limits = &job.spec.limits;
            let entry = used.entry(attempt.node).or_default();
            entry.cpu_millis = entry.cpu_millis.saturating_add(limits.cpu_millis);
            entry.memory_bytes = entry.memory_bytes.saturating_add(limits.memory_bytes);
            entry.scratch_bytes = entry.scratch_bytes.saturating_add(limits.scratch_bytes);
            entry.gpus = entry.gpus.saturating_add(job.spec.gpus);
            entry.jobs = entry.jobs.saturating_add(1);
        }
    }
    used
}

/// Finds a node for a job, or says which constraint failed on which node.
///
/// Among the nodes that fit it takes the one with the most free memory, ties by id: the same state gives the same answer.
pub fn place(
    spec: &JobSpec,
    data: &[DataRule],
    nodes: &[NodeView],
    used: &BTreeMap<NodeId, Used>,
    now: UnixTime,
) -> Result<NodeId, Vec<Misfit>> {
    let mut best: Option<(u64, NodeId)> = None;
    let mut misfits = Vec::new();
    for node in nodes {
        let taken = used.get(&node.id).copied().unwrap_or_default();
        match misfit(spec, data, node, taken, now) {
            Some(constraint) => misfits.push(Misfit { node: node.name.clone(), constraint }),
            None => {
                let free = node.facts.memory_bytes.saturating_sub(taken.memory_bytes);
                let better = best.is_none_or(|(most, id)| free > most || (free == most && node.id < id));
                if better {
                    best = Some((free, node.id));
                }
            }
        }
    }
    best.map(|(_, id)| id).ok_or(misfits)
}

/// The first constraint that fails on a node, in words.
fn misfit(spec: &JobSpec, data: &[DataRule], node: &NodeView, taken: Used, now: UnixTime) -> Option<String> {
    let place = &node.place;
    if node.revoked {
        return Some("the node is revoked".into());
    }
    if !node.alive(now) {
        return Some("the node is lost: it has not reported lately".into());
    }
    if node.draining {
        return Some("the node is draining".into());
    }
    if let Some(region) = &spec.region
        && *region != place.region
    {
        return Some(format!("region is {}, the job asks for {region}", place.region));
    }
    if !spec.jurisdictions.is_empty() && !spec.jurisdictions.contains(&place.jurisdiction) {
        return Some(format!("jurisdiction is {}, the job asks for {}", place.jurisdiction, list(&spec.jurisdictions)));
    }
    for rule in data {
        if !rule.jurisdictions.is_empty() && !rule.jurisdictions.contains(&place.jurisdiction) {
            return Some(format!(
                "jurisdiction is {}, volume `{}` ({}, in {}) may be opened in {}",
                place.jurisdiction,
                rule.name,
                rule.volume,
                rule.region,
                list(&rule.jurisdictions)
            ));
        }
        if rule.min_trust > node.trust {
            return Some(format!("trust is {}, volume `{}` asks for {}", node.trust, rule.name, rule.min_trust));
        }
    }
    for (key, wanted) in &spec.node_labels {
        match place.labels.get(key) {
            Some(value) if value == wanted => {}
            Some(value) => return Some(format!("label {key} is {value}, the job asks for {wanted}")),
            None => return Some(format!("label {key} is absent, the job asks for {wanted}")),
        }
    }
    let limits = &spec.limits;
    for (what, wanted, total, taken) in [
        ("cpu (thousandths)", limits.cpu_millis, node.facts.cpu_millis, taken.cpu_millis),
        ("memory (bytes)", limits.memory_bytes, node.facts.memory_bytes, taken.memory_bytes),
        ("scratch (bytes)", limits.scratch_bytes, node.facts.scratch_bytes, taken.scratch_bytes),
        ("gpus", u64::from(spec.gpus), u64::from(node.facts.gpus), u64::from(taken.gpus)),
    ] {
        let free = total.saturating_sub(taken);
        if wanted > free {
            return Some(format!("{what}: {free} of {total} free, the job asks for {wanted}"));
        }
    }
    None
}

fn list(jurisdictions: &Jurisdictions) -> String {
    jurisdictions.iter().map(vocabulary::Jurisdiction::as_str).collect::<Vec<_>>().join(" or ")
}

/// What becomes of a job whose newest attempt has gone silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Its run lease still holds, or its node reports.
    Wait,
    /// The lease and the skew have passed: the attempt is over wherever it was. `again` says whether a new one may start.
    Over {
        /// How the attempt ended.
        exit: Exit,
        /// Whether the job may be placed again.
        again: bool,
    },
}

/// The final state of an attempt that ended for this reason: [`JobState::Exited`] says that its own program ended.
pub const fn final_state(reason: ExitReason) -> JobState {
    match reason {
        ExitReason::Completed | ExitReason::Failed => JobState::Exited,
        ExitReason::Oom
        | ExitReason::Timeout
        | ExitReason::Cancelled
        | ExitReason::Evicted
        | ExitReason::LeaseEnded
        | ExitReason::KeyRevoked
        | ExitReason::Image
        | ExitReason::Input
        | ExitReason::Output
        | ExitReason::Create
        | ExitReason::SupervisorLost
        | ExitReason::Reboot
        | ExitReason::NodeLost => JobState::Failed,
    }
}

/// Whether a job whose attempt ended for this reason is placed again: the cause lies with the machine, nobody asked the job
/// to stop, and it had fewer than [`ATTEMPTS_MAX`] attempts.
pub fn may_run_again(job: &JobRow, reason: ExitReason) -> bool {
    let machine = matches!(
        reason,
        ExitReason::NodeLost | ExitReason::LeaseEnded | ExitReason::SupervisorLost | ExitReason::Reboot | ExitReason::Evicted
    );
    machine && job.desired == Desired::Run && job.attempts.len() < ATTEMPTS_MAX
}

/// Judges a live attempt: over only when its run lease plus [`CLOCK_SKEW_MS`] has passed without renewal.
pub fn silence(job: &JobRow, attempt: &AttemptRow, now: UnixTime) -> Silence {
    if now < attempt.run_lease_until.plus_millis(CLOCK_SKEW_MS) {
        return Silence::Wait;
    }
    let again = may_run_again(job, ExitReason::NodeLost);
    Silence::Over {
        exit: Exit {
            reason: ExitReason::NodeLost,
            code: None,
            signal: None,
            detail: format!(
                "its node did not renew the run lease, which ended at {}; the node kills it at that deadline by itself",
                attempt.run_lease_until
            ),
            oom_kills: 0,
            peak_memory_bytes: None,
            cpu_ms: None,
            started: None,
            ended: now,
        },
        again,
    }
}

/// The jobs of one node's plan, ordered by attempt.
///
/// An attempt stays in the plan until its node was told that its end is recorded.
pub fn planned_jobs<'a>(node: NodeId, jobs: impl IntoIterator<Item = &'a JobRow>) -> Vec<PlannedJob> {
    let mut planned: Vec<PlannedJob> = jobs
        .into_iter()
        .filter_map(|job| {
            let attempt = job.live().filter(|attempt| attempt.node == node)?;
            Some(PlannedJob {
                attempt: job.attempt_id(attempt),
                tenant: job.tenant,
                project: job.project,
                spec: job.spec.clone(),
                desired: job.desired,
                run_lease: attempt.run_lease,
            })
        })
        .collect();
    planned.sort_by_key(|job| job.attempt);
    planned
}

/// Whether a report may move an attempt from one state to another: forwards only, and never out of a final state.
pub fn may_move(from: JobState, to: JobState) -> bool {
    if from.is_final() {
        return false;
    }
    // Stopping may interrupt any step, and a stopped job is not sealed; all else goes forwards.
    to >= from || (from == JobState::Sealing && to == JobState::Stopping)
}

#[cfg(test)]
mod tests;
