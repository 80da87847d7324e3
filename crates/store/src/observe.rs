//! Who watches commits: a port for whoever counts them.

use std::time::Duration;

use audit::EncodedEntry;

use crate::error::CommitError;
use crate::transaction::Committed;

/// What became of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is on disk.
    Committed,
    /// It was, under the same idempotency key; nothing was done again.
    Replayed,
    /// It conflicts with what is there, or breaks a rule.
    Refused,
    /// The database did not do it, or cannot be asked whether it did.
    Failed,
}

impl Fate {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Replayed => "replayed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    pub(crate) const fn of(result: &Result<Committed, CommitError>) -> Self {
        match result {
            Ok(committed) if committed.replayed.is_some() => Self::Replayed,
            Ok(_) => Self::Committed,
            Err(
                CommitError::Conflict { .. }
                | CommitError::KeyReused
                | CommitError::TooLarge { .. }
                | CommitError::Invalid(_),
            ) => Self::Refused,
            Err(
                CommitError::Full
                | CommitError::ReadOnly
                | CommitError::Broken
                | CommitError::Unavailable
                | CommitError::Unknown
                | CommitError::Closed
                | CommitError::Malformed(_)
                | CommitError::Engine(_),
            ) => Self::Failed,
        }
    }
}

/// Hears of every commit, from the writer's own task: it must not wait.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// A group was committed, or given up, after this time.
    fn group(&self, took: Duration);
    /// A transaction was decided. Its entries are in the log when it was committed.
    fn decided(&self, fate: Fate, entries: &[EncodedEntry]);
    /// Whoever asked for a transaction has its answer after this time. Told in the task that asked.
    fn answered(&self, _took: Duration, _committed: bool) {}
}
