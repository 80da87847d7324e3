//! When a part that died is started again, and when not any more. Pure: the time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// Deaths within [`WINDOW`] that end it: by then it is no accident.
const DEATHS_MAX: usize = 5;
/// How long a death counts.
const WINDOW: Duration = Duration::from_secs(60);
/// The pause after the first death; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: nobody wants to wait longer for a part that is healthy again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start it again after this pause.
    RestartAfter(Duration),
    /// It died too often: stop, and say why.
    GiveUp,
}

/// The deaths of one part.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    deaths: VecDeque<Duration>,
}

impl Restarts {
    /// Counts a death at `now`, which is measured from any fixed moment, and decides.
    pub(crate) fn died(&mut self, now: Duration) -> Decision {
        while self.deaths.front().is_some_and(|death| now.saturating_sub(*death) >= WINDOW) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        if self.deaths.len() >= DEATHS_MAX {
            return Decision::GiveUp;
        }
        let doublings = u32::try_from(self.deaths.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings));
        Decision::RestartAfter(pause.min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(decision: Decision) -> Option<u128> {
        match decision {
            Decision::RestartAfter(pause) => Some(pause.as_millis()),
            Decision::GiveUp => None,
        }
    }

    #[test]
    fn the_pause_doubles_and_the_fifth_death_in_a_minute_is_the_last() {
        let mut restarts = Restarts::default();
        let decisions: Vec<_> = (0..5).map(|second| millis(restarts.died(Duration::from_secs(second)))).collect();
        assert_eq!(decisions, [Some(200), Some(400), Some(800), Some(1600), None]);
    }

    #[test]
    fn old_deaths_are_forgotten() {
        let mut restarts = Restarts::default();
        for minute in 0..100 {
            assert_eq!(millis(restarts.died(Duration::from_secs(60 * minute))), Some(200));
        }
        // Four within the window, then a fifth just outside of the first one's.
        let mut restarts = Restarts::default();
        for second in [0, 20, 40, 59] {
            assert!(millis(restarts.died(Duration::from_secs(second))).is_some());
        }
        assert_eq!(millis(restarts.died(Duration::from_secs(60))), Some(1600));
        assert_eq!(millis(restarts.died(Duration::from_secs(61))), None);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_harms_nothing() {
        let mut restarts = Restarts::default();
        assert_eq!(millis(restarts.died(Duration::from_secs(9))), Some(200));
        assert_eq!(millis(restarts.died(Duration::from_secs(3))), Some(400));
        assert_eq!(millis(restarts.died(Duration::from_secs(3))), Some(800));
    }
}
