//! The task of one attempt: events in, the machine's effects out, in order. An error here touches no other attempt.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit::node_log::NodeEvent;
use runtime::supervisor::Handle;
use telemetry::Name;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vocabulary::job::AttemptId;
use vocabulary::plan::{AttemptReport, Desired};

use super::Progress;
use super::machine::{Effect, Event, Found, Machine, Step};
use super::record::{Phase, Record};
use super::steps::{self, Hands};
use crate::agent::Shared;
use crate::channel::Backoff;
use crate::limits::DEADLINE_CHECK;
use crate::{clock, files};

/// The file that holds an attempt's record.
pub(crate) const RECORD_FILE: &str = "record.json";

/// What the rest of the agent wants of an attempt: always the newest, never a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wish {
    /// What the plan says; `None` when the attempt is not in it.
    pub(crate) desired: Option<Desired>,
    /// End of the run lease, on the boot-time clock; `None` before the first renewal in this run of the agent.
    pub(crate) deadline_boottime_ms: Option<u64>,
    /// Whether the control plane has recorded the end.
    pub(crate) end_known: bool,
}

/// What the rest of the agent sees of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// For the heartbeat, but for the progress.
    pub(crate) report: AttemptReport,
    /// Whether anything of the job may still run.
    pub(crate) lives: bool,
}

impl View {
    fn of(record: &Record) -> Self {
        Self { report: record.report(None), lives: record.phase < Phase::Sealing }
    }
}

/// The rest of the agent's end of an attempt.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) wish: watch::Sender<Wish>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) progress: Arc<Progress>,
    /// The run lease that the plan names.
    pub(crate) run_lease: vocabulary::LeaseId,
    /// The longest life without a renewal that the tenant chose.
    pub(crate) run_lease_ms: u64,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace_ms: u64,
}

/// The attempt's ends of a slot.
struct Ends {
    wish: watch::Receiver<Wish>,
    view: watch::Sender<View>,
}

impl Slot {
    fn open(record: &Record, wish: Wish) -> (Self, Ends) {
        let (wish_sender, wish) = watch::channel(wish);
        let (view_sender, view) = watch::channel(View::of(record));
        let planned = &record.planned;
        let slot = Self {
            wish: wish_sender,
            view,
            progress: Arc::new(Progress::default()),
            run_lease: planned.run_lease,
            run_lease_ms: planned.spec.run_lease_ms,
            grace_ms: planned.spec.limits.grace_ms,
        };
        (slot, Ends { wish, view: view_sender })
    }

    /// A slot that nobody drives.
    #[cfg(test)]
    pub(crate) fn of(record: &Record, wish: Wish) -> Self {
        Self::open(record, wish).0
    }

    pub(crate) fn report(&self) -> AttemptReport {
        let mut report = self.view.borrow().report.clone();
        if !report.state.is_final() {
            report.progress = self.progress.told();
        }
        report
    }
}

/// How an attempt's task begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) record: Record,
    pub(crate) found: Found,
    pub(crate) handle: Option<Handle>,
    pub(crate) older: Vec<watch::Receiver<View>>,
}

/// Where an attempt's own files lie.
pub(crate) fn directory(attempts: &Path, attempt: AttemptId) -> PathBuf {
    attempts.join(attempt.to_string())
}

struct Driver {
    hands: Arc<Hands>,
    machine: Machine,
    view: watch::Sender<View>,
    /// The step in flight: at most one.
    step: JoinSet<Event>,
    /// Short calls to the shim.
    calls: JoinSet<()>,
    abort: CancellationToken,
    may_start: Arc<AtomicBool>,
    stop: CancellationToken,
    retired: bool,
    /// The step that the node's log has.
    logged: Option<Phase>,
}

/// Makes an attempt's slot and the future that drives it until nothing is left of it or `stop` is cancelled.
pub(crate) fn drive(shared: Arc<Shared>, beginning: Beginning, wish: Wish, stop: CancellationToken) -> (Slot, impl Future<Output = AttemptId> + Send) {
    let Beginning { record, found, handle, older } = beginning;
    let (slot, ends) = Slot::open(&record, wish);
    let progress = Arc::clone(&slot.progress);
    let attempt = record.attempt();
    let dir = directory(&shared.attempts_dir, attempt);
    let boot_id = shared.facts.boot_id.clone();
    let refusal = crate::sandbox::refusal(&record.planned.spec, &shared.backends, shared.gpus.count());
    let hands = Arc::new(Hands::new(shared, record.planned.clone(), dir, progress, ends.wish, older, handle));
    let mut driver = Driver {
        hands,
        machine: Machine::new(record),
        view: ends.view,
        step: JoinSet::new(),
        calls: JoinSet::new(),
        abort: CancellationToken::new(),
        may_start: Arc::new(AtomicBool::new(false)),
        stop,
        retired: false,
        logged: None,
    };
    let task = async move {
        driver.take(Event::Begin { found, boot_id, refusal }).await;
        driver.run().await;
        attempt
    };
    (slot, task)
}

impl Driver {
    async fn run(&mut self) {
        let stop = self.stop.clone();
        let mut wish = self.hands.wish.clone();
        let mut known = Wish { desired: Some(Desired::Run), ..Wish::default() };
        wish.mark_changed();
        while !self.retired {
            // The end may have been recorded by the statement, before the report of it.
            if self.machine.record().phase == Phase::Ended && known.end_known {
                self.take(Event::EndKnown).await;
            }
            tokio::select! {
                () = stop.cancelled() => return self.leave().await,
                changed = wish.changed() => {
                    if changed.is_err() {
                        return self.leave().await;
                    }
                    let now = *wish.borrow_and_update();
                    self.wished(known, now).await;
                    known = now;
                }
                Some(ended) = self.step.join_next() => {
                    // A step that panicked is a step that failed; the others go on.
                    let event = ended.unwrap_or_else(|error| Event::Failed(super::machine::Failure {
                        reason: vocabulary::job::ExitReason::SupervisorLost,
                        detail: format!("a step of the agent broke: {error}"),
                    }));
                    self.take(event).await;
                }
                Some(_) = self.calls.join_next() => {}
                () = tokio::time::sleep(deadline_wait(known.deadline_boottime_ms)) => {
                    if known.deadline_boottime_ms.is_some_and(|deadline| deadline <= clock::boottime_ms()) {
                        known.deadline_boottime_ms = None;
                        self.take(Event::LeaseOver).await;
                    }
                }
            }
        }
    }

    async fn wished(&mut self, before: Wish, now: Wish) {
        if now.desired != before.desired {
            self.take(Event::Wanted(now.desired)).await;
        }
        if let Some(deadline) = now.deadline_boottime_ms.filter(|deadline| Some(*deadline) != before.deadline_boottime_ms && *deadline > clock::boottime_ms()) {
            if let Some(handle) = self.hands.handle().filter(|_| self.machine.record().phase < Phase::Sealing) {
                self.calls.spawn(async move {
                    // A renewal that comes late is refused by the shim, which never shortens a lease.
                    if let Err(error) = steps::with(&handle, move |handle| handle.renew(deadline)).await {
                        tracing::debug!(attempt = %handle.attempt(), %error, "not renewed");
                    }
                });
            }
            self.take(Event::Cleared).await;
        }
    }

    /// The agent stops: what runs goes on under its shim, what was not begun leaves no opened data behind.
    async fn leave(&mut self) {
        self.abort.cancel();
        let phase = self.machine.record().phase;
        let creating = self.machine.in_flight() == Some(Step::Create);
        if creating {
            // A sandbox that is being made is waited for, so that it is found again as a whole.
            let _ = self.step.join_next().await;
        }
        self.step.shutdown().await;
        self.calls.shutdown().await;
        if matches!(phase, Phase::Pulling | Phase::Opening) {
            let _ = self.hands.scrub().await;
        }
    }

    async fn take(&mut self, event: Event) {
        let effects = self.machine.step(event, clock::wall());
        let phase = self.machine.record().phase;
        tracing::debug!(attempt = %self.machine.record().attempt(), ?phase, ?effects, "step");
        self.may_start.store(phase == Phase::Running, Ordering::SeqCst);
        for effect in effects {
            match effect {
                Effect::Persist => {
                    if !self.persist().await {
                        return;
                    }
                }
                Effect::Report => {
                    self.view.send_replace(View::of(self.machine.record()));
                    self.hands.shared.report_soon();
                }
                Effect::Do(step) => self.begin(step),
                Effect::Abort => self.abort.cancel(),
                Effect::Stop(reason) => {
                    let grace = Duration::from_millis(self.hands.planned.spec.limits.grace_ms);
                    self.halt(Some(grace), reason);
                }
                Effect::Kill(reason) => self.halt(None, reason),
                Effect::Retire => {
                    self.view.send_replace(View::of(self.machine.record()));
                    self.retired = true;
                }
            }
        }
    }

    fn halt(&mut self, grace: Option<Duration>, reason: vocabulary::job::ExitReason) {
        if let Some(handle) = self.hands.handle() {
            self.calls.spawn(steps::halt(handle, grace, reason));
        }
    }

    fn begin(&mut self, step: Step) {
        self.abort = CancellationToken::new();
        self.hands.progress.begin(0);
        let (hands, abort) = (Arc::clone(&self.hands), self.abort.clone());
        let record = self.machine.record();
        let (id_base, statement) = (record.id_base, record.statement.clone());
        let may_start = Arc::clone(&self.may_start);
        let record = (step == Step::Sign).then(|| record.clone());
        let at = telemetry::attempt(&self.machine.record().attempt());
        let span = self.hands.shared.tracer.at(Name("attempt", word(step)), at, true);
        self.step.spawn(telemetry::within(span.as_ref().and_then(telemetry::Open::context), async move {
            let work = async {
                match step {
                    Step::Pull => hands.pull().await,
                    Step::Open => hands.open().await,
                    Step::Create => hands.create(id_base).await,
                    Step::Run => hands.run(|| may_start.load(Ordering::SeqCst)).await,
                    Step::Seal => hands.seal().await,
                    Step::Ship => hands.ship().await,
                    Step::Scrub => hands.scrub().await,
                    Step::Sign => record.map_or(Event::Sent, |record| hands.sign(&record)),
                    Step::Send => hands.send(statement).await,
                    Step::Remove => hands.remove(id_base).await,
                }
            };
            // The machine gives up only steps that can be; the others are seen through.
            let event = match step {
                Step::Pull | Step::Open | Step::Seal | Step::Ship => abort.run_until_cancelled(work).await.unwrap_or(Event::Aborted),
                Step::Create | Step::Run | Step::Scrub | Step::Sign | Step::Send | Step::Remove => work.await,
            };
            if let Some(span) = span {
                span.end(matches!(event, Event::Failed(_) | Event::Aborted));
            }
            event
        }));
    }

    /// Nothing that follows happens before the node's log and the record are on the disk. `false` when the agent stops before it is.
    async fn persist(&mut self) -> bool {
        let path = self.hands.dir.join(RECORD_FILE);
        let mut backoff = Backoff::default();
        loop {
            let (dir, target, record) = (self.hands.dir.clone(), path.clone(), self.machine.record().clone());
            let (journal, new) = (Arc::clone(&self.hands.shared.journal), self.logged != Some(record.phase));
            let phase = record.phase;
            let written = tokio::task::spawn_blocking(move || {
                files::directory(&dir)?;
                if new {
                    let event = NodeEvent::AttemptStep { attempt: record.attempt(), step: phase.word().to_owned() };
                    journal.record(event, clock::wall()).map_err(std::io::Error::other)?;
                }
                files::write_json(&target, &record)
            });
            match written.await {
                Ok(Ok(())) => {
                    self.logged = Some(phase);
                    vocabulary::fault::reached(self.machine.record().phase.point());
                    return true;
                }
                Ok(Err(error)) => tracing::error!(path = %path.display(), %error, "the record cannot be written: the attempt waits"),
                Err(error) => tracing::error!(path = %path.display(), %error, "the record cannot be written: the attempt waits"),
            }
            if self.stop.run_until_cancelled(backoff.wait()).await.is_none() {
                return false;
            }
        }
    }
}

/// A step, as its span is called. The shim is started in `create`.
const fn word(step: Step) -> &'static str {
    match step {
        Step::Pull => "pull",
        Step::Open => "open",
        Step::Create => "create",
        Step::Run => "run",
        Step::Seal => "seal",
        Step::Ship => "ship",
        Step::Scrub => "scrub",
        Step::Sign => "sign",
        Step::Send => "send",
        Step::Remove => "remove",
    }
}

fn deadline_wait(deadline: Option<u64>) -> Duration {
    match deadline {
        None => DEADLINE_CHECK.saturating_mul(60),
        Some(deadline) => Duration::from_millis(deadline.saturating_sub(clock::boottime_ms())).min(DEADLINE_CHECK),
    }
}
