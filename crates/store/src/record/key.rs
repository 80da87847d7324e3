//! Wrapped keys. A plain key has no way in: the only bytes of a key that a record holds are wrapped ones.

use keys::KeyRecord;
use vocabulary::UnixTime;

/// A version of a key, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The record; without wrapped bytes once it is destroyed.
    pub record: KeyRecord,
    /// Since when it is in its state.
    pub since: UnixTime,
    /// Counts from 1 with every change: what [`crate::Mutation::Rewrap`] compares.
    pub row_version: u64,
}
