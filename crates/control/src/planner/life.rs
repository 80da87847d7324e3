//! The life of attempts: what a report changes, when one is over, who is sent away, and what each node is told.

use vocabulary::job::{AttemptId, Exit, ExitReason, JobState};
use vocabulary::plan::{AttemptReport, Desired, NodePlan, PlannedJob, RenewedRun, Revocations};
use vocabulary::{DeploymentId, EntryId, LeaseId, NodeId, UnixTime};

use super::{AttemptRow, Ended, JobRow};
use crate::limits::{CLOCK_SKEW_MS, RENEW_PARTS, STATEMENT_GRACE_MS};

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
/// to stop, and its spec allows another start.
pub fn may_run_again(job: &JobRow, reason: ExitReason) -> bool {
    let machine =
        matches!(reason, ExitReason::NodeLost | ExitReason::LeaseEnded | ExitReason::SupervisorLost | ExitReason::Reboot | ExitReason::Evicted);
    machine && job.desired == Desired::Run && u32::try_from(job.attempts.len()).is_ok_and(|attempts| attempts <= job.spec.restarts)
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
                desired: job.wanted(attempt),
                run_lease: attempt.run_lease,
            })
        })
        .collect();
    planned.sort_by_key(|job| job.attempt);
    planned
}

/// The next plan of a node, if what it is told changes. Its revision is one above the present plan's.
pub fn next_plan(
    deployment: DeploymentId,
    node: NodeId,
    current: Option<&NodePlan>,
    jobs: Vec<PlannedJob>,
    revocations: &Revocations,
) -> Option<NodePlan> {
    if current.is_some_and(|plan| plan.jobs == jobs && plan.revocations == *revocations) {
        return None;
    }
    let revision = current.map_or(0, |plan| plan.revision).saturating_add(1);
    Some(NodePlan { format: 1, deployment, node, revision, jobs, revocations: revocations.clone() })
}

/// How a live attempt ended, and why there is no statement of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub exit: Exit,
    pub without_statement: &'static str,
}

/// How a live attempt has ended, if it has: its node said so and had its time for a statement, or it is silent.
pub fn due(job: &JobRow, now: UnixTime) -> Option<Ending> {
    let attempt = job.live()?;
    let silent = match silence(job, attempt, now) {
        Silence::Wait => None,
        Silence::Over { exit, .. } => Some(Ending { exit, without_statement: "its node was lost" }),
    };
    let Some(ended) = &attempt.ended else { return silent };
    // A node signs what it read back of a sandbox. Where none stood there is nothing to wait for: its report alone says why.
    let before = |exit: &&Exit| matches!(exit.reason, ExitReason::Image | ExitReason::Input | ExitReason::Create);
    let unmade = attempt.report.isolation.is_none() && ended.report.isolation.is_none();
    if let Some(exit) = ended.report.exit.as_ref().filter(before).filter(|_| unmade) {
        return Some(Ending { exit: exit.clone(), without_statement: "no sandbox was made, so there is nothing that its node could state" });
    }
    // What the node said counts, also where it fell silent before its statement.
    let waited = now.since(ended.heard).is_some_and(|waited| waited >= STATEMENT_GRACE_MS);
    let exit = ended.report.exit.clone()?;
    (waited || silent.is_some()).then_some(Ending { exit, without_statement: "its node never delivered its statement" })
}

/// Whether a job's live attempt is to be sent away: its node is drained, and the drain's deadline has passed.
pub fn evictable(job: &JobRow, evict_at: Option<UnixTime>, now: UnixTime) -> bool {
    let told = job.live().is_none_or(|attempt| attempt.evicted.is_some() || attempt.ended.is_some());
    !told && evict_at.is_some_and(|at| at <= now)
}

/// Begins the next attempt on a node, under a fresh run lease and the entry that records it. `None` where the job does not
/// wait for a place any more.
pub fn put_on(job: &mut JobRow, node: NodeId, run_lease: LeaseId, entry: EntryId, now: UnixTime) -> Option<AttemptId> {
    let attempt = next_attempt(job)?;
    job.attempts.push(AttemptRow {
        number: attempt.attempt,
        node,
        run_lease,
        run_lease_until: now.plus_millis(job.spec.run_lease_ms),
        placed: now,
        placed_entry: entry,
        report: AttemptReport { attempt, state: JobState::Pending, progress: None, exit: None, isolation: None, since: now },
        statement: None,
        ended: None,
        finished_entry: None,
        evicted: None,
        dedicated_entry: None,
    });
    Some(attempt)
}

/// The attempt that would come next; `None` where the job does not wait for a place.
pub fn next_attempt(job: &JobRow) -> Option<AttemptId> {
    if job.exit.is_some() || job.live().is_some() {
        return None;
    }
    let number = u32::try_from(job.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
    Some(AttemptId { job: job.id, attempt: number })
}

/// What a node that names an attempt has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is placed there, newest, and its end is not recorded.
    Live,
    /// It was placed there, and its end is recorded: the node may forget it.
    Over,
    /// It is absent, or was placed elsewhere.
    Foreign,
}

/// Judges a node's claim to an attempt of a job.
pub fn standing(job: &JobRow, number: u32, node: NodeId) -> Standing {
    let Some(attempt) = job.attempts.iter().find(|attempt| attempt.number == number && attempt.node == node) else {
        return Standing::Foreign;
    };
    if attempt.report.state.is_final() { Standing::Over } else { Standing::Live }
}

/// What a report changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether the row is to be written.
    pub changed: bool,
    /// The state that the attempt entered.
    pub entered: Option<JobState>,
    /// What is left of its run lease.
    pub renewed: Option<RenewedRun>,
}

/// Takes a node's report of one attempt: forwards only, and nothing about an attempt that is not live on this node.
pub fn hear(job: &mut JobRow, node: NodeId, said: &AttemptReport, now: UnixTime) -> Heard {
    let mut heard = Heard::default();
    let length = job.spec.run_lease_ms;
    let Some(attempt) = job.attempts.last_mut() else { return heard };
    if attempt.number != said.attempt.attempt || attempt.node != node || attempt.report.state.is_final() {
        return heard;
    }
    if said.state.is_final() {
        if attempt.ended.is_none() {
            attempt.ended = Some(Ended { heard: now, report: said.clone() });
            heard.changed = true;
        }
    } else if attempt.ended.is_none() && may_move(attempt.report.state, said.state) && attempt.report.state != said.state {
        attempt.report.state = said.state;
        attempt.report.since = said.since;
        heard.entered = Some(said.state);
        heard.changed = true;
    }
    if said.isolation.is_some() && attempt.report.isolation != said.isolation {
        attempt.report.isolation.clone_from(&said.isolation);
        heard.changed = true;
    }
    // A lease that is over is not revived: somebody may have counted on its end.
    if let Some(left) = attempt.run_lease_until.since(now).filter(|left| *left > 0) {
        let mut left = left;
        // A write for a tenth of the lease: what is told between is what is left of it.
        if length.saturating_sub(left) >= length / RENEW_PARTS && attempt.ended.is_none() {
            attempt.run_lease_until = now.plus_millis(length);
            left = length;
            heard.changed = true;
        }
        heard.renewed = Some(RenewedRun { attempt: said.attempt, lease: attempt.run_lease, length_ms: left });
    }
    heard
}

/// Whether a report may move an attempt from one state to another: forwards only, and never out of a final state.
pub fn may_move(from: JobState, to: JobState) -> bool {
    if from.is_final() {
        return false;
    }
    // Stopping may interrupt any step, and a stopped job is not sealed; all else goes forwards.
    to >= from || (from == JobState::Sealing && to == JobState::Stopping)
}
