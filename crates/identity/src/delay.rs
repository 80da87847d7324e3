//! Growing delays after failures, per person and per source: never for good.

use vocabulary::UnixTime;

use crate::limits::{
    FAILURES_FORGOTTEN_MS, FREE_FAILURES, PERSON_DELAY_FIRST_MS, PERSON_DELAY_MAX_MS, SOURCE_DELAY_FIRST_MS,
    SOURCE_DELAY_MAX_MS, SOURCE_FREE_FAILURES,
};

/// How a delay grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayRule {
    /// Failures that cost nothing.
    pub free: u32,
    /// The first delay in milliseconds; each further failure doubles it.
    pub first_ms: u64,
    /// The longest delay in milliseconds.
    pub max_ms: u64,
}

/// Delays of a person, kept under the normalised name, known or not, so that both behave alike.
pub const PERSON_DELAY: DelayRule =
    DelayRule { free: FREE_FAILURES, first_ms: PERSON_DELAY_FIRST_MS, max_ms: PERSON_DELAY_MAX_MS };
/// Delays of a source: an address, or for IPv6 its /64.
pub const SOURCE_DELAY: DelayRule =
    DelayRule { free: SOURCE_FREE_FAILURES, first_ms: SOURCE_DELAY_FIRST_MS, max_ms: SOURCE_DELAY_MAX_MS };

/// Failures of one person or source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// How many since the last success or the last long quiet.
    pub count: u32,
    /// When the last one was.
    pub last: UnixTime,
}

impl Failures {
    /// None.
    pub const NONE: Self = Self { count: 0, last: UnixTime::from_millis(0) };

    /// With one failure more.
    #[must_use]
    pub fn with_one_more(self, now: UnixTime) -> Self {
        let count = if self.forgotten(now) { 1 } else { self.count.saturating_add(1) };
        Self { count, last: now }
    }
    /// How many milliseconds to wait from now on; 0 = none.
    ///
    /// When the clock went back, the whole delay is waited for, counted from now: never longer than the longest delay.
    #[must_use]
    pub fn wait_ms(self, rule: DelayRule, now: UnixTime) -> u64 {
        if self.count <= rule.free || self.forgotten(now) {
            return 0;
        }
        let doublings = self.count.saturating_sub(rule.free).saturating_sub(1).min(32);
        let delay = rule.first_ms.saturating_mul(1u64 << doublings).min(rule.max_ms);
        delay.saturating_sub(now.since(self.last).unwrap_or(0))
    }
    fn forgotten(self, now: UnixTime) -> bool {
        now.since(self.last).is_some_and(|quiet| quiet > FAILURES_FORGOTTEN_MS)
    }
}
