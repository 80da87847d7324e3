//! The control plane's one clock: the machine's clock as it was at the start, and the time since.
//!
//! The kernel slews its clocks together, so this one stays with the machine's as long as nobody sets that. One that is set,
//! by hand, by a wrong time server, or when a virtual machine is moved, would end run leases that nodes still hold, and so start
//! jobs twice, and end logins and certificates. It is told, and taken over by the next start, which refuses to go behind what
//! was committed.

use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use vocabulary::UnixTime;

/// A clock that was set by no more than this is followed: leap seconds and small corrections, well within the margin between
/// two clocks ([`crate::limits::CLOCK_SKEW_MS`]).
const FOLLOWED_MS: i64 = 1_000;

/// The clock of this process.
#[derive(Debug)]
struct Own {
    /// Milliseconds of the wall clock beyond those of boot time.
    offset: i64,
    /// What was said last: time never goes back.
    last: u64,
    /// By how much the machine's clock was set since the start, in milliseconds.
    set_by: i64,
}

fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

impl Own {
    fn start(boot: u64, wall: u64) -> Self {
        Self { offset: signed(wall).saturating_sub(signed(boot)), last: wall, set_by: 0 }
    }

    /// The time. Tells the machine's clock apart from this one when it was set anew.
    fn read(&mut self, boot: u64, wall: u64) -> (UnixTime, Option<i64>) {
        let difference = signed(wall).saturating_sub(signed(boot)).saturating_sub(self.offset);
        let before = self.set_by;
        if difference.abs() <= FOLLOWED_MS {
            self.offset = self.offset.saturating_add(difference);
            self.set_by = 0;
        } else {
            self.set_by = difference;
        }
        let own = u64::try_from(signed(boot).saturating_add(self.offset)).unwrap_or(0);
        self.last = self.last.max(own);
        let anew = self.set_by.saturating_sub(before).abs() > FOLLOWED_MS;
        (UnixTime::from_millis(self.last), anew.then_some(self.set_by))
    }
}

static OWN: Mutex<Option<Own>> = Mutex::new(None);

#[expect(clippy::disallowed_methods, reason = "the one place where the control plane reads the time")]
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the machine started, sleep included.
fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> UnixTime {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    // Read under the lock: of two threads the later one sees the later time.
    let (boot, wall) = (boot_ms(), wall_ms());
    let (now, set_by) = own.get_or_insert_with(|| Own::start(boot, wall)).read(boot, wall);
    drop(own);
    if let Some(set_by) = set_by {
        if set_by == 0 {
            tracing::warn!("this machine's clock agrees with this server's again");
        } else {
            tracing::error!(
                set_by_ms = set_by,
                "this machine's clock was set; this server goes on with the time since its start: set the clock right, or restart the server to take it over"
            );
        }
    }
    now
}

/// By how many milliseconds this machine's clock was set since the start, and not followed.
pub(crate) fn set_by_ms() -> i64 {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |own| own.set_by)
}

/// The same clock for handshakes.
#[derive(Debug)]
pub(crate) struct Handshakes;

impl rustls::time_provider::TimeProvider for Handshakes {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_millis(now().millis())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WALL: u64 = 1_800_000_000_000;

    #[test]
    fn a_clock_that_is_set_is_told_once_and_not_followed() {
        let mut own = Own::start(5_000, WALL);
        let mut read = |boot: u64, wall: u64| {
            let (now, told) = own.read(5_000 + boot, wall);
            (now.millis() - WALL, told)
        };
        assert_eq!(read(1_000, WALL + 1_000), (1_000, None));
        // A leap second, and a correction of the time server.
        assert_eq!(read(2_000, WALL + 1_000), (1_000, None));
        assert_eq!(read(3_000, WALL + 2_900), (2_900, None));
        // An hour forth, and still an hour later.
        let hour = 3_600_000;
        assert_eq!(read(4_000, WALL + 3_900 + hour), (3_900, Some(3_600_000)));
        assert_eq!(read(5_000, WALL + 4_900 + hour), (4_900, None));
        // Two hours back, then right again.
        assert_eq!(read(6_000, WALL + 5_900 - hour), (5_900, Some(-3_600_000)));
        assert_eq!(read(7_000, WALL + 6_900), (6_900, Some(0)));
        assert_eq!(read(8_000, WALL + 7_900), (7_900, None));
    }

    proptest! {
        /// Whatever the machine's clock says, time goes on as it does, but for what is followed each time.
        #[test]
        fn time_goes_on(steps in prop::collection::vec((0_u64..60_000, any::<u64>(), prop::bool::ANY), 1..50)) {
            let (mut own, mut boot, mut last) = (Own::start(77, WALL), 77, WALL);
            for (elapsed, wild, near) in steps {
                boot += elapsed;
                let own_ms = u64::try_from(i64::try_from(boot).unwrap() + own.offset).unwrap();
                let wall = if near { (own_ms + wild % 2_000).saturating_sub(1_000) } else { wild };
                let (now, _) = own.read(boot, wall);
                prop_assert!(now.millis() >= last && now.millis() <= last + elapsed + 2_000);
                last = now.millis();
            }
        }
    }
}
