//! What is remembered of one attempt: written before each step is begun, never with a key in it.

use receipt::VolumeUse;
use receipt::statement::SecretGiven;
use serde::{Deserialize, Serialize};
use vocabulary::UnixTime;
use vocabulary::fault::Point;
use vocabulary::isolation::IsolationReport;
use vocabulary::job::{AttemptId, Exit, ExitReason, JobState};
use vocabulary::plan::{AttemptReport, PlannedJob};

use crate::channel::cut;
use crate::limits::{DETAIL_MAX, OBSERVED_MAX};

/// The format of the file.
pub(crate) const FORMAT: u32 = 1;

/// The step that an attempt is in. The order is the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// The image is fetched and unpacked.
    Pulling,
    /// Inputs are opened into scratch.
    Opening,
    /// The sandbox is made. From here on the attempt is never begun again.
    Creating,
    /// The program runs.
    Running,
    /// The program was told to stop.
    Stopping,
    /// Outputs are sealed.
    Sealing,
    /// The rest of the log is shipped.
    Shipping,
    /// The scratch key is destroyed.
    Scrubbing,
    /// The statement is signed.
    Signing,
    /// The statement is sent.
    Sending,
    /// The end is reported until it is acknowledged.
    Ended,
    /// Leftovers are removed.
    Removing,
    /// Nothing is left but this record, so that an old plan does not begin the attempt again.
    Gone,
}

impl Phase {
    /// The point that is reached when this step is remembered, and not begun.
    pub(crate) const fn point(self) -> Point {
        match self {
            Self::Pulling => Point::AttemptPulling,
            Self::Opening => Point::AttemptOpening,
            Self::Creating => Point::AttemptCreating,
            Self::Running => Point::AttemptRunning,
            Self::Stopping => Point::AttemptStopping,
            Self::Sealing => Point::AttemptSealing,
            Self::Shipping => Point::AttemptShipping,
            Self::Scrubbing => Point::AttemptScrubbing,
            Self::Signing => Point::AttemptSigning,
            Self::Sending => Point::AttemptSending,
            Self::Ended => Point::AttemptEnded,
            Self::Removing => Point::AttemptRemoving,
            Self::Gone => Point::AttemptGone,
        }
    }
    /// Its word in the node's log.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pulling => "pulling",
            Self::Opening => "opening",
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Sealing => "sealing",
            Self::Shipping => "shipping",
            Self::Scrubbing => "scrubbing",
            Self::Signing => "signing",
            Self::Sending => "sending",
            Self::Ended => "ended",
            Self::Removing => "removing",
            Self::Gone => "gone",
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// What the plan asked for when the attempt was begun.
    pub(crate) planned: PlannedJob,
    /// The step.
    pub(crate) phase: Phase,
    /// What is reported.
    pub(crate) shown: JobState,
    /// Since when.
    pub(crate) since: UnixTime,
    /// The boot of the machine in which its scratch is made: with another one the scratch key is gone.
    pub(crate) boot_id: String,
    /// First of the host ids that belong to it alone.
    pub(crate) id_base: Option<u32>,
    /// The command as it ran.
    pub(crate) argv: Vec<String>,
    /// The isolation that was read back.
    pub(crate) isolation: Option<IsolationReport>,
    /// Volumes that it read.
    pub(crate) inputs: Vec<VolumeUse>,
    /// Secrets that it was given: names and versions, nothing of their values.
    #[serde(default)]
    pub(crate) secrets: Vec<SecretGiven>,
    /// Volumes that it wrote.
    pub(crate) outputs: Vec<VolumeUse>,
    /// Why it was told to stop.
    pub(crate) stop: Option<ExitReason>,
    /// How it ended.
    pub(crate) exit: Option<Exit>,
    /// Log frames that were lost.
    pub(crate) log_lost: u64,
    /// The signed statement: the exact bytes, base64. Made once.
    pub(crate) statement: Option<String>,
}

impl Record {
    /// A new attempt.
    pub(crate) const fn new(planned: PlannedJob, now: UnixTime) -> Self {
        Self {
            format: FORMAT,
            planned,
            phase: Phase::Pulling,
            shown: JobState::Pulling,
            since: now,
            boot_id: String::new(),
            id_base: None,
            argv: Vec::new(),
            isolation: None,
            inputs: Vec::new(),
            secrets: Vec::new(),
            outputs: Vec::new(),
            stop: None,
            exit: None,
            log_lost: 0,
            statement: None,
        }
    }

    pub(crate) const fn attempt(&self) -> AttemptId {
        self.planned.attempt
    }

    /// Keeps texts that other programs had a hand in within what a report may carry: one that is longer would have the
    /// whole heartbeat refused, and with it the leases of all other attempts.
    pub(crate) fn tidy(&mut self) {
        if let Some(exit) = self.exit.as_mut() {
            exit.detail = cut(&exit.detail, DETAIL_MAX);
        }
        if let Some(isolation) = self.isolation.as_mut() {
            for layer in &mut isolation.layers {
                layer.observed = cut(&layer.observed, OBSERVED_MAX);
            }
        }
    }

    /// What the heartbeat says. The end is told when nothing of it can change any more.
    pub(crate) fn report(&self, progress: Option<(u64, u64)>) -> AttemptReport {
        let exit = if self.shown.is_final() { self.exit.clone() } else { None };
        AttemptReport { attempt: self.attempt(), state: self.shown, progress, exit, isolation: self.isolation.clone(), since: self.since }
    }
}
