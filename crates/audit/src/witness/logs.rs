//! The logs that a witness signs for.

use crate::key::{KeyKind, VerifierKey};
use crate::limits::{LOGS_MAX, ORIGIN_MAX};

/// A log that a witness signs for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLog {
    /// The first line of its checkpoints. Mostly, but not always, its key's name.
    pub origin: String,
    /// Its keys: any of them may sign.
    pub keys: Vec<VerifierKey>,
}

/// The logs that a witness signs for: each origin once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownLogs(Vec<KnownLog>);

/// Why a list of logs is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnownLogsError {
    /// Too many.
    #[error("a witness has at most {LOGS_MAX} logs")]
    TooMany,
    /// The origin is no line.
    #[error("the origin `{0}` is not one line of 1 to {ORIGIN_MAX} bytes without control characters")]
    Origin(String),
    /// The key is that of a witness.
    #[error("the key `{0}` does not sign logs: its type is not Ed25519 (0x01)")]
    Kind(String),
    /// Two keys of one log could not be told apart.
    #[error("the key `{0}` stands twice")]
    Twice(String),
}

impl KnownLogs {
    /// Adds a key of a log; `origin` is `None` where it is the key's name.
    pub fn add(&mut self, key: VerifierKey, origin: Option<&str>) -> Result<(), KnownLogsError> {
        let origin = origin.unwrap_or_else(|| key.name()).to_owned();
        if origin.is_empty() || origin.len() > ORIGIN_MAX || origin.chars().any(char::is_control) {
            return Err(KnownLogsError::Origin(origin));
        }
        if key.kind() != KeyKind::Ed25519 {
            return Err(KnownLogsError::Kind(key.to_string()));
        }
        let Some(log) = self.0.iter_mut().find(|log| log.origin == origin) else {
            if self.0.len() >= LOGS_MAX {
                return Err(KnownLogsError::TooMany);
            }
            self.0.push(KnownLog { origin, keys: vec![key] });
            return Ok(());
        };
        if log.keys.iter().any(|other| other.name() == key.name() && other.id() == key.id()) {
            return Err(KnownLogsError::Twice(key.to_string()));
        }
        if log.keys.len() >= LOGS_MAX {
            return Err(KnownLogsError::TooMany);
        }
        log.keys.push(key);
        Ok(())
    }

    /// The log of an origin.
    #[must_use]
    pub fn find(&self, origin: &str) -> Option<&KnownLog> {
        self.0.iter().find(|log| log.origin == origin)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[KnownLog] {
        &self.0
    }
}
