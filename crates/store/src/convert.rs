//! Between our types and those of columns.

use vocabulary::UnixTime;

/// A time for a column. What does not fit lies after the year 292 million and stays there.
pub(crate) fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
}

/// Column "no project": sixteen zeroes.
pub(crate) const NO_PROJECT: [u8; 16] = [0; 16];

/// Column "no publisher's note yet".
pub(crate) const EMPTY: &[u8] = &[];
