//! The two clocks: boot time for leases, wall time for what people read and certificates say.

use rustix::time::{ClockId, clock_gettime};
use vocabulary::UnixTime;

fn millis(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// Milliseconds since the machine started, sleep included.
pub(crate) fn boottime_ms() -> u64 {
    millis(ClockId::Boottime)
}

/// Now, as people say it.
pub(crate) fn wall() -> UnixTime {
    UnixTime::from_millis(millis(ClockId::Realtime))
}
