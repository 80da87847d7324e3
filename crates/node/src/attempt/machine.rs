//! The life of one attempt as a pure state machine: record + event + now → record + effects.
//!
//! One step is in flight at a time. The driver carries effects out in their order, and [`Effect::Persist`] always
//! stands before the step that it allows, so that every step can be repeated after a crash, but for the one that
//! makes the sandbox: an attempt that reached [`Phase::Creating`] is found again or fails, and is never begun twice.

use receipt::VolumeUse;
use receipt::statement::SecretGiven;
use vocabulary::UnixTime;
use vocabulary::isolation::IsolationReport;
use vocabulary::job::{Exit, ExitReason, JobState};
use vocabulary::plan::Desired;

use super::record::{Phase, Record};

/// What the supervisor's directory holds of an attempt when the agent starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A living sandbox, with what was read back from it.
    Alive(Option<IsolationReport>),
    /// The record of its end.
    Ended(Exit),
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reason that the job is given.
    pub(crate) reason: ExitReason,
    /// One sentence.
    pub(crate) detail: String,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The agent started, with this record and this finding; or the attempt is new.
    Begin {
        /// What lies in the supervisor's directory.
        found: Found,
        /// The machine's boot id.
        boot_id: String,
        /// Why this version does not run such a job.
        refusal: Option<String>,
    },
    /// The plan says this; `None` when the attempt is no longer in it.
    Wanted(Option<Desired>),
    /// A run lease is held, and no older attempt of the job lives here.
    Cleared,
    /// The run lease has ended.
    LeaseOver,
    /// The control plane has recorded the end.
    EndKnown,
    /// The step in flight was given up, as the machine asked.
    Aborted,
    /// The step in flight failed.
    Failed(Failure),
    /// The image lies in the cache.
    Pulled,
    /// The inputs are open.
    Opened {
        /// What was read.
        inputs: Vec<VolumeUse>,
        /// What was given.
        secrets: Vec<SecretGiven>,
        /// The ids that were set apart.
        id_base: u32,
    },
    /// The sandbox stands.
    Created {
        /// What was read back.
        isolation: Option<IsolationReport>,
        /// The command as it will run.
        argv: Vec<String>,
    },
    /// The program, and everything of the attempt, has ended.
    Ended(Exit),
    /// The outputs are committed.
    Sealed(Vec<VolumeUse>),
    /// The log is shipped, or cannot be.
    Shipped {
        /// Frames that were lost.
        lost: u64,
    },
    /// The scratch is gone, or not.
    Scrubbed {
        /// What was left behind, and why.
        left: Option<String>,
    },
    /// The statement is signed.
    Signed(String),
    /// The statement is recorded, or will never be.
    Sent,
    /// Nothing is left.
    Removed,
}

/// A step that takes time and ends with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Ends with `Pulled`.
    Pull,
    /// Ends with `Opened`.
    Open,
    /// Ends with `Created`.
    Create,
    /// Starts the program unless it was told to stop, and ends with `Ended`.
    Run,
    /// Ends with `Sealed`.
    Seal,
    /// Ends with `Shipped`.
    Ship,
    /// Ends with `Scrubbed`.
    Scrub,
    /// Ends with `Signed`.
    Sign,
    /// Ends with `Sent`.
    Send,
    /// Ends with `Removed`.
    Remove,
}

/// What the driver does, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Writes the record to the disk before anything that follows.
    Persist,
    /// Tells the control plane at once.
    Report,
    /// Begins a step.
    Do(Step),
    /// Gives the step in flight up; its end arrives as [`Event::Aborted`], or as its own if that was faster.
    Abort,
    /// Tells the shim to stop the program within its grace time.
    Stop(ExitReason),
    /// Tells the shim to freeze and kill everything.
    Kill(ExitReason),
    /// The attempt needs no driver any more.
    Retire,
}

/// One attempt with what is known of it in this run of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    record: Record,
    in_flight: Option<Step>,
    cleared: bool,
}

impl Machine {
    /// Around a record; nothing happens before [`Event::Begin`].
    pub(crate) const fn new(record: Record) -> Self {
        Self { record, in_flight: None, cleared: false }
    }

    pub(crate) const fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) const fn in_flight(&self) -> Option<Step> {
        self.in_flight
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, event: Event, now: UnixTime) -> Vec<Effect> {
        let effects = self.take(event, now);
        self.record.tidy();
        effects
    }

    fn take(&mut self, event: Event, now: UnixTime) -> Vec<Effect> {
        match event {
            Event::Begin { found, boot_id, refusal } => self.begin(found, boot_id, refusal, now),
            Event::Wanted(desired) => self.wanted(desired, now),
            Event::Cleared => {
                self.cleared = true;
                let waits = self.record.phase == Phase::Opening && self.in_flight.is_none();
                if waits { self.enter(Phase::Creating, now) } else { Vec::new() }
            }
            Event::LeaseOver => self.lease_over(now),
            Event::EndKnown => {
                if self.record.phase == Phase::Ended { self.enter(Phase::Removing, now) } else { Vec::new() }
            }
            Event::Aborted
            | Event::Failed(_)
            | Event::Pulled
            | Event::Opened { .. }
            | Event::Created { .. }
            | Event::Ended(_)
            | Event::Sealed(_)
            | Event::Shipped { .. }
            | Event::Scrubbed { .. }
            | Event::Signed(_)
            | Event::Sent
            | Event::Removed => {
                self.in_flight = None;
                self.finished(event, now)
            }
        }
    }

    fn begin(&mut self, found: Found, boot_id: String, refusal: Option<String>, now: UnixTime) -> Vec<Effect> {
        let phase = self.record.phase;
        let same_boot = self.record.boot_id == boot_id;
        match (phase, found) {
            (Phase::Pulling | Phase::Opening, Found::Nothing) => match refusal {
                Some(detail) => self.conclude(ExitReason::Create, detail, now),
                None => {
                    self.record.boot_id = boot_id;
                    self.record.inputs.clear();
                    self.record.secrets.clear();
                    self.record.id_base = None;
                    self.enter(Phase::Pulling, now)
                }
            },
            // A sandbox without a record of its making: nobody knows what it may do.
            (Phase::Pulling | Phase::Opening, Found::Alive(isolation)) => {
                self.record.isolation = isolation;
                self.halt_found(now)
            }
            (Phase::Creating | Phase::Running, Found::Alive(isolation)) => {
                self.record.isolation = isolation.or_else(|| self.record.isolation.take());
                if self.record.isolation.is_none() {
                    return self.halt_found(now);
                }
                self.enter(Phase::Running, now)
            }
            (Phase::Stopping, Found::Alive(_)) => {
                let reason = self.record.stop.unwrap_or(ExitReason::Evicted);
                let mut effects = self.launch(Step::Run);
                effects.push(stopping(reason));
                effects
            }
            (Phase::Pulling | Phase::Opening | Phase::Creating | Phase::Running | Phase::Stopping, Found::Ended(exit)) => self.ended(exit, now),
            (Phase::Creating, Found::Nothing) => {
                let reason = if same_boot { ExitReason::SupervisorLost } else { ExitReason::Reboot };
                self.conclude(reason, "the agent went away while the sandbox was being made, or its record is lost; an attempt is never begun twice".to_owned(), now)
            }
            (Phase::Running | Phase::Stopping, Found::Nothing) => {
                let reason = if same_boot { ExitReason::SupervisorLost } else { ExitReason::Reboot };
                self.conclude(reason, "nothing of the attempt was found when the agent started".to_owned(), now)
            }
            (Phase::Sealing, _) if !same_boot => self.conclude(ExitReason::Reboot, "the machine restarted before the outputs were sealed".to_owned(), now),
            // It was told to give sealing up, and had no time to.
            (Phase::Sealing, _) if self.record.stop.is_some_and(|reason| reason != ExitReason::Evicted) => self.finished(Event::Aborted, now),
            (Phase::Sealing, _) => self.launch(Step::Seal),
            (Phase::Shipping, _) => self.enter(Phase::Shipping, now),
            (Phase::Scrubbing, _) => self.launch(Step::Scrub),
            (Phase::Signing, _) => self.launch(Step::Sign),
            (Phase::Sending, _) => self.launch(Step::Send),
            (Phase::Ended, _) => vec![Effect::Report],
            (Phase::Removing, _) => self.launch(Step::Remove),
            (Phase::Gone, _) => vec![Effect::Retire],
        }
    }

    fn halt_found(&mut self, now: UnixTime) -> Vec<Effect> {
        self.record.stop = Some(ExitReason::SupervisorLost);
        let mut effects = self.enter(Phase::Stopping, now);
        effects.push(Effect::Kill(ExitReason::SupervisorLost));
        effects
    }

    fn wanted(&mut self, desired: Option<Desired>, now: UnixTime) -> Vec<Effect> {
        match desired {
            Some(Desired::Run) => Vec::new(),
            Some(Desired::Cancel) => self.halt(ExitReason::Cancelled, now),
            Some(Desired::RevokeKeys) => self.halt(ExitReason::KeyRevoked, now),
            Some(Desired::Evict) | None => self.halt(ExitReason::Evicted, now),
        }
    }

    fn halt(&mut self, reason: ExitReason, now: UnixTime) -> Vec<Effect> {
        let revoked = reason == ExitReason::KeyRevoked;
        // The first reason stands, but a revoked key does not wait for anybody's grace time.
        let repeated = self.record.stop.is_some_and(|before| before == ExitReason::KeyRevoked || !revoked);
        match self.record.phase {
            Phase::Pulling | Phase::Opening | Phase::Creating => {
                if repeated {
                    return Vec::new();
                }
                self.record.stop = Some(reason);
                match self.in_flight {
                    // A sandbox that is being made cannot be given up half-way: it is killed as soon as it stands.
                    Some(Step::Create) => vec![Effect::Persist],
                    Some(_) => vec![Effect::Persist, Effect::Abort],
                    None => self.conclude(reason, stopped_before(reason), now),
                }
            }
            Phase::Running => {
                self.record.stop = Some(reason);
                self.phase(Phase::Stopping, now);
                vec![Effect::Persist, Effect::Report, stopping(reason)]
            }
            Phase::Stopping => {
                if repeated {
                    return Vec::new();
                }
                self.record.stop = Some(reason);
                vec![Effect::Persist, Effect::Kill(reason)]
            }
            // A program that ended well may still have its outputs sealed when its node is drained.
            Phase::Sealing | Phase::Shipping if reason == ExitReason::Evicted || repeated => Vec::new(),
            Phase::Shipping if !revoked => Vec::new(),
            Phase::Sealing | Phase::Shipping => {
                self.record.stop = Some(reason);
                vec![Effect::Persist, Effect::Abort]
            }
            Phase::Scrubbing | Phase::Signing | Phase::Sending | Phase::Ended | Phase::Removing | Phase::Gone => Vec::new(),
        }
    }

    fn lease_over(&mut self, now: UnixTime) -> Vec<Effect> {
        self.cleared = false;
        match self.record.phase {
            Phase::Pulling | Phase::Opening => self.halt(ExitReason::LeaseEnded, now),
            Phase::Sealing | Phase::Shipping if self.record.stop.is_none() => {
                self.record.stop = Some(ExitReason::LeaseEnded);
                vec![Effect::Persist, Effect::Abort]
            }
            // The shim holds the deadline itself, with or without an agent.
            Phase::Creating | Phase::Running | Phase::Stopping => Vec::new(),
            Phase::Sealing | Phase::Shipping | Phase::Scrubbing | Phase::Signing | Phase::Sending | Phase::Ended | Phase::Removing | Phase::Gone => Vec::new(),
        }
    }

    /// The step in flight has ended.
    fn finished(&mut self, event: Event, now: UnixTime) -> Vec<Effect> {
        let stop = self.record.stop;
        match (self.record.phase, event) {
            (Phase::Pulling | Phase::Opening, Event::Pulled | Event::Opened { .. } | Event::Aborted | Event::Failed(_)) if stop.is_some() => {
                let reason = stop.unwrap_or(ExitReason::Evicted);
                self.conclude(reason, stopped_before(reason), now)
            }
            (Phase::Pulling, Event::Pulled) => self.enter(Phase::Opening, now),
            (Phase::Opening, Event::Opened { inputs, secrets, id_base }) => {
                self.record.inputs = inputs;
                self.record.secrets = secrets;
                self.record.id_base = Some(id_base);
                // Without a run lease it waits here, where it can still be begun again.
                if self.cleared { self.enter(Phase::Creating, now) } else { vec![Effect::Persist] }
            }
            (Phase::Creating, Event::Created { isolation, argv }) => {
                self.record.isolation = isolation;
                self.record.argv = argv;
                let told = if self.record.isolation.is_none() { Some(ExitReason::Create) } else { stop };
                let Some(reason) = told else { return self.enter(Phase::Running, now) };
                self.record.stop = Some(reason);
                let mut effects = self.enter(Phase::Stopping, now);
                effects.push(Effect::Kill(reason));
                effects
            }
            (Phase::Running | Phase::Stopping, Event::Ended(exit)) => self.ended(exit, now),
            (Phase::Sealing, Event::Sealed(outputs)) => {
                self.record.outputs = outputs;
                self.enter(Phase::Shipping, now)
            }
            (Phase::Sealing, Event::Aborted) => {
                let (reason, detail) = match stop {
                    Some(ExitReason::LeaseEnded) | None => (ExitReason::Output, "the run lease ended before the outputs were sealed".to_owned()),
                    Some(reason) => (reason, "it was stopped before its outputs were sealed".to_owned()),
                };
                self.spoil(reason, &detail, now)
            }
            (Phase::Sealing, Event::Failed(failure)) => self.spoil(failure.reason, &failure.detail, now),
            (Phase::Shipping, Event::Shipped { lost }) => {
                self.record.log_lost = lost;
                self.enter(Phase::Scrubbing, now)
            }
            (Phase::Shipping, Event::Aborted | Event::Failed(_)) => self.enter(Phase::Scrubbing, now),
            (Phase::Scrubbing, Event::Scrubbed { left }) => {
                if let (Some(left), Some(exit)) = (left, self.record.exit.as_mut()) {
                    exit.detail = format!("{}; left behind: {left}", exit.detail);
                }
                // Without a sandbox that stood there is nothing to state: the report alone says why.
                let next = if self.record.isolation.is_some() { Phase::Signing } else { Phase::Ended };
                self.enter(next, now)
            }
            (Phase::Signing, Event::Signed(statement)) => {
                self.record.statement.get_or_insert(statement);
                self.enter(Phase::Sending, now)
            }
            (Phase::Signing | Phase::Sending, Event::Failed(_)) | (Phase::Sending, Event::Sent) => self.enter(Phase::Ended, now),
            (Phase::Removing, Event::Removed) => {
                self.phase(Phase::Gone, now);
                vec![Effect::Persist, Effect::Retire]
            }
            (Phase::Pulling | Phase::Opening | Phase::Creating, Event::Failed(failure)) => self.conclude(failure.reason, failure.detail, now),
            // Nobody looks at the sandbox any more: it is killed, and looked at again until it has ended.
            (Phase::Running | Phase::Stopping, Event::Failed(failure)) => {
                let reason = *self.record.stop.get_or_insert(failure.reason);
                let mut effects = self.enter(Phase::Stopping, now);
                effects.push(Effect::Kill(reason));
                effects
            }
            (Phase::Scrubbing, Event::Failed(failure)) => self.finished(Event::Scrubbed { left: Some(failure.detail) }, now),
            (Phase::Pulling | Phase::Opening | Phase::Creating, Event::Aborted) => {
                self.conclude(ExitReason::Evicted, stopped_before(ExitReason::Evicted), now)
            }
            // Everything else is an end of a step that this phase does not have: the record stands.
            (_, _) => Vec::new(),
        }
    }

    fn ended(&mut self, exit: Exit, now: UnixTime) -> Vec<Effect> {
        let well = exit.reason == ExitReason::Completed && exit.code == Some(0);
        self.record.exit = Some(exit);
        if well && !self.record.planned.spec.outputs.is_empty() && self.record.stop != Some(ExitReason::KeyRevoked) {
            return self.enter(Phase::Sealing, now);
        }
        self.enter(Phase::Shipping, now)
    }

    /// The program ended well, but its outputs are not there.
    fn spoil(&mut self, reason: ExitReason, detail: &str, now: UnixTime) -> Vec<Effect> {
        if let Some(exit) = self.record.exit.as_mut() {
            exit.reason = reason;
            exit.detail = format!("{}; {detail}", exit.detail);
        }
        self.enter(Phase::Shipping, now)
    }

    /// Ends an attempt that no supervisor speaks for.
    fn conclude(&mut self, reason: ExitReason, detail: String, now: UnixTime) -> Vec<Effect> {
        let started = self.record.exit.as_ref().and_then(|exit| exit.started);
        self.record.exit =
            Some(Exit { reason, code: None, signal: None, detail, oom_kills: 0, peak_memory_bytes: None, cpu_ms: None, started, ended: now });
        self.enter(Phase::Scrubbing, now)
    }

    fn phase(&mut self, phase: Phase, now: UnixTime) {
        self.record.phase = phase;
        let shown = match phase {
            Phase::Pulling => JobState::Pulling,
            Phase::Opening => JobState::Opening,
            Phase::Creating => JobState::Creating,
            Phase::Running => JobState::Running,
            Phase::Stopping => JobState::Stopping,
            Phase::Sealing => JobState::Sealing,
            Phase::Shipping | Phase::Scrubbing | Phase::Signing | Phase::Sending => self.record.shown,
            Phase::Ended | Phase::Removing | Phase::Gone => self.end_shown(),
        };
        if shown != self.record.shown {
            self.record.shown = shown;
            self.record.since = now;
        }
    }

    /// `exited` is the program's own end, `failed` everything else.
    fn end_shown(&self) -> JobState {
        match self.record.exit.as_ref().map(|exit| exit.reason) {
            Some(ExitReason::Completed | ExitReason::Failed) => JobState::Exited,
            Some(_) | None => JobState::Failed,
        }
    }

    fn enter(&mut self, phase: Phase, now: UnixTime) -> Vec<Effect> {
        // Freeze, kill, remove the key: nothing else comes between.
        let revoked = phase == Phase::Shipping && self.record.stop == Some(ExitReason::KeyRevoked);
        let phase = if revoked { Phase::Scrubbing } else { phase };
        self.phase(phase, now);
        let step = match phase {
            Phase::Pulling => Some(Step::Pull),
            Phase::Opening => Some(Step::Open),
            Phase::Creating => Some(Step::Create),
            Phase::Running | Phase::Stopping => Some(Step::Run),
            Phase::Sealing => Some(Step::Seal),
            Phase::Shipping => Some(Step::Ship),
            Phase::Scrubbing => Some(Step::Scrub),
            Phase::Signing => Some(Step::Sign),
            Phase::Sending => Some(Step::Send),
            Phase::Ended | Phase::Gone => None,
            Phase::Removing => Some(Step::Remove),
        };
        let mut effects = vec![Effect::Persist, Effect::Report];
        effects.extend(step.into_iter().flat_map(|step| self.launch(step)));
        effects
    }

    fn launch(&mut self, step: Step) -> Vec<Effect> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        self.in_flight = Some(step);
        vec![Effect::Do(step)]
    }
}

const fn stopping(reason: ExitReason) -> Effect {
    match reason {
        ExitReason::KeyRevoked | ExitReason::SupervisorLost | ExitReason::Create => Effect::Kill(reason),
        ExitReason::Completed
        | ExitReason::Failed
        | ExitReason::Oom
        | ExitReason::Timeout
        | ExitReason::Cancelled
        | ExitReason::Evicted
        | ExitReason::LeaseEnded
        | ExitReason::Image
        | ExitReason::Input
        | ExitReason::Output
        | ExitReason::Reboot
        | ExitReason::NodeLost => Effect::Stop(reason),
    }
}

fn stopped_before(reason: ExitReason) -> String {
    let why = match reason {
        ExitReason::Cancelled => "it was cancelled",
        ExitReason::LeaseEnded => "its run lease ended",
        ExitReason::KeyRevoked => "a key of it was revoked",
        ExitReason::Completed
        | ExitReason::Failed
        | ExitReason::Oom
        | ExitReason::Timeout
        | ExitReason::Evicted
        | ExitReason::Image
        | ExitReason::Input
        | ExitReason::Output
        | ExitReason::Create
        | ExitReason::SupervisorLost
        | ExitReason::Reboot
        | ExitReason::NodeLost => "it was taken off this node",
    };
    format!("{why} before its program started")
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "the tests name only what matters in a place")]
#[path = "machine_tests.rs"]
mod tests;
