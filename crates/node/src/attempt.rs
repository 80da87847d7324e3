//! One attempt on this node: its record, its pure state machine, the steps, and the task that drives them.

mod driver;
mod machine;
mod record;
mod steps;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use driver::{Beginning, Slot, Wish, drive};
pub(crate) use machine::Found;
pub(crate) use record::{FORMAT, Phase, Record};
pub(crate) use steps::{halt, with};

/// Bytes done and to do of the step in flight.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: AtomicU64,
    all: AtomicU64,
}

impl Progress {
    /// A step of `all` bytes begins.
    pub(crate) fn begin(&self, all: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
    }
    /// More is done.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
    /// What was done has to be done again.
    pub(crate) fn take_back(&self, bytes: u64) {
        let _ = self.done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |done| Some(done.saturating_sub(bytes)));
    }
    /// What a report says; nothing while there is nothing to do.
    pub(crate) fn told(&self) -> Option<(u64, u64)> {
        let all = self.all.load(Ordering::Relaxed);
        (all > 0).then(|| (self.done.load(Ordering::Relaxed).min(all), all))
    }
}
