//! Beginning and ending spans, and sending those that have ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use keys::{Random, SystemRandom};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::collector::Collector;
use crate::context::Context;
use crate::limits::{BATCH_MAX, BATCH_WAIT, LAST_WAIT, PARTS_MAX, QUEUE_MAX, TRACES_BURST, TRACES_PER_SECOND};
use crate::otlp::encode;
use crate::span::{Finished, Kind, Name, Value};

tokio::task_local! {
    /// The span in which this task works.
    static CURRENT: Context;
}

/// The span in which the current task works.
#[must_use]
pub fn current() -> Option<Context> {
    CURRENT.try_with(|context| *context).ok()
}

/// The place of an attempt of a job: its trace, and the span of which its steps are parts.
#[must_use]
pub fn attempt(id: &vocabulary::job::AttemptId) -> Context {
    Context::of(&keys::derive::sha256(&[b"swarm/trace/attempt/v1", id.job.as_bytes(), &id.attempt.to_be_bytes()]))
}

/// Does some work in a span, if there is one.
pub async fn within<F: Future>(span: Option<Context>, work: F) -> F::Output {
    match span {
        Some(context) => CURRENT.scope(context, work).await,
        None => work.await,
    }
}

/// What became of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// A collector took them.
    pub exported: u64,
    /// The queue was full: a collector that is away or slow.
    pub dropped: u64,
    /// The collector refused them, or did not answer in time.
    pub failed: u64,
    /// Traces that were not begun, since too many had begun.
    pub skipped: u64,
}

/// Makes spans, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    queue: mpsc::Sender<Finished>,
    /// Nanoseconds since 1970.
    clock: fn() -> u64,
    budget: Mutex<Budget>,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tracer")
    }
}

/// A bucket of traces that may begin.
#[derive(Debug)]
struct Budget {
    /// Billionths of a trace.
    left: u64,
    at: u64,
}

/// A trace, in the unit of a [`Budget`].
const TRACE: u64 = 1_000_000_000;

impl Budget {
    fn take(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.at).saturating_mul(TRACES_PER_SECOND);
        self.left = self.left.saturating_add(earned).min(TRACES_BURST * TRACE);
        self.at = self.at.max(now);
        match self.left.checked_sub(TRACE) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Sends what a tracer's spans leave in the queue.
#[derive(Debug)]
pub struct Sender {
    queue: mpsc::Receiver<Finished>,
    inner: Arc<Inner>,
    collector: Collector,
    service: &'static str,
}

impl Tracer {
    /// A tracer that records nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// A tracer of a service, and what sends its spans: [`Sender::run`] is to be run. `clock` gives nanoseconds since 1970.
    #[must_use]
    pub fn new(service: &'static str, collector: Collector, clock: fn() -> u64) -> (Self, Sender) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let inner = Arc::new(Inner {
            queue: sender,
            clock,
            budget: Mutex::new(Budget { left: TRACES_BURST * TRACE, at: clock() }),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        });
        (Self(Some(Arc::clone(&inner))), Sender { queue, inner, collector, service })
    }

    /// Whether anything is recorded.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What became of spans so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Some(inner) = &self.0 else { return Counts::default() };
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { exported: read(&inner.exported), dropped: read(&inner.dropped), failed: read(&inner.failed), skipped: read(&inner.skipped) }
    }

    /// Begins the first span of ours in a trace: of the trace that `remote` names, else of a new one. Nothing when more
    /// traces began than are recorded, whoever asks.
    #[must_use]
    pub fn root(&self, name: impl Into<Name>, kind: Kind, remote: Option<Context>) -> Option<Open> {
        let inner = self.0.as_ref()?;
        let now = (inner.clock)();
        if !inner.budget.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            inner.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let trace = remote.map_or_else(drawn, |remote| remote.trace);
        let context = Context { trace, span: drawn() };
        Some(Open::new(inner, context, remote.map(|remote| remote.span), name.into(), kind, now))
    }

    /// Begins a span within the one in which the current task works. Nothing where that is not recorded.
    #[must_use]
    pub fn child(&self, name: impl Into<Name>, kind: Kind) -> Option<Open> {
        let inner = self.0.as_ref()?;
        let parent = current()?;
        let context = Context { trace: parent.trace, span: drawn() };
        Some(Open::new(inner, context, Some(parent.span), name.into(), kind, (inner.clock)()))
    }

    /// Records a span at a place that others compute too ([`Context::of`]): `at` itself, or a part of it.
    #[must_use]
    pub fn at(&self, name: impl Into<Name>, at: Context, part: bool) -> Option<Open> {
        let inner = self.0.as_ref()?;
        let context = if part { Context { trace: at.trace, span: drawn() } } else { at };
        Some(Open::new(inner, context, part.then_some(at.span), name.into(), Kind::Internal, (inner.clock)()))
    }
}

/// Random bytes: ids of spans have to be unlike, not secret.
fn drawn<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom.fill(&mut bytes);
    bytes
}

/// Does some work as a part of the current span, if that is recorded; says that it failed when it did.
pub async fn part<T, E>(tracer: &Tracer, name: impl Into<Name>, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let Some(span) = tracer.child(name, Kind::Internal) else { return work.await };
    let done = within(span.context(), work).await;
    span.end(done.is_err());
    done
}

/// A span that goes on. Dropped, it ends as one that failed: whoever waited for it went away.
#[derive(Debug)]
pub struct Open {
    inner: Arc<Inner>,
    span: Option<Finished>,
}

impl Open {
    fn new(inner: &Arc<Inner>, context: Context, parent: Option<[u8; 8]>, name: Name, kind: Kind, begun: u64) -> Self {
        let span = Finished { context, parent, name, kind, begun, ended: begun, failed: true, attributes: Vec::new(), links: Vec::new() };
        Self { inner: Arc::clone(inner), span: Some(span) }
    }

    /// Where it stands: for [`within`], and for who is asked next.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        self.span.as_ref().map(|span| span.context)
    }

    /// Says more of it.
    pub fn say(&mut self, name: &'static str, value: Value) {
        if let Some(span) = self.span.as_mut().filter(|span| span.attributes.len() < PARTS_MAX) {
            span.attributes.push((name, value));
        }
    }

    /// Says that another trace belongs to it.
    pub fn link(&mut self, to: Context) {
        if let Some(span) = self.span.as_mut().filter(|span| span.links.len() < PARTS_MAX) {
            span.links.push(to);
        }
    }

    /// Has begun so many nanoseconds earlier.
    pub fn earlier(&mut self, nanoseconds: u64) {
        if let Some(span) = &mut self.span {
            span.begun = span.begun.saturating_sub(nanoseconds);
        }
    }

    /// Ends it.
    pub fn end(mut self, failed: bool) {
        if let Some(span) = &mut self.span {
            span.failed = failed;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        span.ended = (self.inner.clock)().max(span.begun);
        if self.inner.queue.try_send(span).is_err() {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Sender {
    /// Sends until told to stop, and then what is left, for a moment.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut instance = [0; 8];
        SystemRandom.fill(&mut instance);
        let mut away = false;
        loop {
            let mut batch = Vec::new();
            let ended = tokio::select! {
                () = stop.cancelled() => true,
                count = self.queue.recv_many(&mut batch, BATCH_MAX) => count == 0,
            };
            if ended {
                break;
            }
            // Others end within the same moment: they go together.
            let gather = async {
                loop {
                    let room = BATCH_MAX.saturating_sub(batch.len());
                    if room == 0 || self.queue.recv_many(&mut batch, room).await == 0 {
                        break;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(BATCH_WAIT, gather) => {}
            }
            let sent = self.send(instance, &batch).await;
            if !sent && !away {
                tracing::warn!("the OTLP collector does not take spans; they are counted and dropped until it does");
            }
            away = !sent;
        }
        let last = async {
            let mut batch = Vec::new();
            while let Ok(span) = self.queue.try_recv() {
                batch.push(span);
                if batch.len() == BATCH_MAX {
                    self.send(instance, &std::mem::take(&mut batch)).await;
                }
            }
            self.send(instance, &batch).await;
        };
        let _ = tokio::time::timeout(LAST_WAIT, last).await;
    }

    async fn send(&self, instance: [u8; 8], batch: &[Finished]) -> bool {
        if batch.is_empty() {
            return true;
        }
        let sent = self.collector.send(encode(self.service, instance, batch)).await;
        let count = if sent { &self.inner.exported } else { &self.inner.failed };
        count.fetch_add(batch.len() as u64, Ordering::Relaxed);
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> u64 {
        1_795_617_028_000_000_000
    }

    fn tracer() -> (Tracer, Sender) {
        Tracer::new("swarm-test", Collector::new("http://127.0.0.1:1").unwrap(), clock)
    }

    #[tokio::test]
    async fn a_tracer_that_is_off_records_nothing() {
        let tracer = Tracer::off();
        assert!(tracer.root("a", Kind::Server, None).is_none() && tracer.child("b", Kind::Internal).is_none() && !tracer.is_on());
        assert_eq!(tracer.counts(), Counts::default());
    }

    #[tokio::test]
    async fn a_part_has_its_whole_as_parent_and_a_stranger_gives_the_trace_only() {
        let (tracer, mut sender) = tracer();
        let remote = Context { trace: [7; 16], span: [8; 8] };
        let mut root = tracer.root("request", Kind::Server, Some(remote)).unwrap();
        root.say("n", Value::Number(1));
        let at = root.context();
        within(at, async { tracer.child("commit", Kind::Internal).unwrap().end(false) }).await;
        assert_eq!(current(), None);
        assert!(tracer.child("outside", Kind::Internal).is_none(), "where nothing is recorded, no part is");
        root.end(false);
        let (part, whole) = (sender.queue.try_recv().unwrap(), sender.queue.try_recv().unwrap());
        assert_eq!((whole.context.trace, whole.parent, whole.failed), ([7; 16], Some([8; 8]), false));
        assert_eq!((part.context.trace, part.parent), ([7; 16], Some(whole.context.span)));
        // One that is dropped has failed.
        drop(tracer.root("left", Kind::Server, None));
        assert!(sender.queue.try_recv().unwrap().failed);
    }

    /// Whatever clients ask for, so many begin and no more; and a full queue costs a span, never a wait.
    #[tokio::test]
    async fn nobody_forces_more_than_there_is_room_for() {
        let (tracer, sender) = tracer();
        let remote = Some(Context { trace: [7; 16], span: [8; 8] });
        let begun: Vec<Open> = (0..10_000).filter_map(|_| tracer.root("request", Kind::Server, remote)).collect();
        assert_eq!(u64::try_from(begun.len()).unwrap(), TRACES_BURST);
        assert_eq!(tracer.counts().skipped, 10_000 - TRACES_BURST);
        let at = begun[0].context();
        within(at, async {
            for _ in 0..QUEUE_MAX + 10 {
                tracer.child("commit", Kind::Internal).unwrap().end(false);
            }
        })
        .await;
        assert_eq!(tracer.counts().dropped, 10);
        drop(sender);
        tracer.at("after", Context::of(&[1; 32]), true).unwrap().end(false);
        assert_eq!(tracer.counts().dropped, 11, "when nobody sends any more");
    }

    /// A collector that is not there: spans are counted as failed, and the task ends when it is told to.
    #[tokio::test]
    async fn a_collector_that_is_away_is_counted() {
        let (tracer, sender) = tracer();
        let stop = CancellationToken::new();
        tracer.root("request", Kind::Server, None).unwrap().end(false);
        stop.cancel();
        sender.run(stop).await;
        assert_eq!(tracer.counts(), Counts { failed: 1, ..Counts::default() });
    }
}
