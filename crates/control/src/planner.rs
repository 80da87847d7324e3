//! The planner: which attempt runs where, and what each node is told. Pure: rows and `now` in, decisions out.
//! [`crate::driver`] and the node channel read rows, ask here, and write what is decided; `simulation` does the same with
//! nodes that lie and networks that fail.
//!
//! **Invariant:** an attempt is superseded only when its end is recorded, or when its run lease plus the skew of two
//! clocks has passed: a job is never alive twice.

use serde::{Deserialize, Serialize};
use vocabulary::job::{AttemptId, Exit, ExitReason, JobSpec, JobState};
use vocabulary::plan::{AttemptReport, Desired};
use vocabulary::{EntryId, JobId, LeaseId, NodeId, PrincipalId, ProjectId, Sha256Digest, TenantId, UnixTime};

mod life;
mod place;

pub use life::{
    Ending, Heard, Silence, Standing, due, evictable, final_state, hear, may_move, may_run_again,
    next_attempt, next_plan, planned_jobs, put_on, silence, standing,
};
pub use place::{DataRule, NodeView, Placing, RunLimits, Used, place, usage};

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
    /// Since when its node is told to give it up, because the node is drained and its deadline has passed.
    #[serde(default)]
    pub evicted: Option<UnixTime>,
    /// The entry by which its node was set apart for the tenant, where the job demanded that.
    #[serde(default)]
    pub dedicated_entry: Option<EntryId>,
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
    /// Somebody asks the job to stop: one that waits is over at once, one that is on a node is told by its plan.
    pub fn cancel(&mut self, now: UnixTime) {
        // Keys that were revoked stay so: that stops it harder.
        if self.desired == Desired::Run {
            self.desired = Desired::Cancel;
        }
        if self.exit.is_none() && self.live().is_none() {
            self.exit = Some(Exit {
                reason: ExitReason::Cancelled,
                code: None,
                signal: None,
                detail: "stopped while it waited for a node".to_owned(),
                oom_kills: 0,
                peak_memory_bytes: None,
                cpu_ms: None,
                started: None,
                ended: now,
            });
            self.receipt = Some(ReceiptRow::None("no attempt was running when it was stopped".to_owned()));
        }
    }
    /// What a node is told to do with an attempt: what somebody asked for comes before the drain of the node.
    pub fn wanted(&self, attempt: &AttemptRow) -> Desired {
        match self.desired {
            Desired::Run if attempt.evicted.is_some() => Desired::Evict,
            asked @ (Desired::Run | Desired::Cancel | Desired::Evict | Desired::RevokeKeys) => asked,
        }
    }
    pub fn attempt_id(&self, attempt: &AttemptRow) -> AttemptId {
        AttemptId { job: self.id, attempt: attempt.number }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
