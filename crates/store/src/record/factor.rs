//! What a person proves themselves with, and how long they must wait after failures.

use std::fmt;
use vocabulary::{KeyId, PersonId, UnixTime};

/// The hash of a password or recovery code: a PHC string. Not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Hashed(String);

impl Hashed {
    /// Takes a PHC string.
    #[must_use]
    pub const fn new(phc: String) -> Self {
        Self(phc)
    }
    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed(..)")
    }
}

/// A TOTP factor. Its secret is a key of its own, wrapped like every other: see [`crate::KeyRow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotpRow {
    /// Whose.
    pub person: PersonId,
    /// The key that is the secret.
    pub key: KeyId,
    /// The last step that was spent; 0 before the first.
    pub last_step: u64,
}

/// A recovery code as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryCode {
    /// Its place, so that one run of argon2 decides.
    pub place: u32,
    /// Its hash.
    pub hash: Hashed,
    /// Whether it was spent.
    pub used: bool,
}

/// Who is delayed after failures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DelaySubject {
    /// A person.
    Person(PersonId),
    /// A source: its pseudonym.
    Source(String),
    /// A person who confirms requests of a login that they have: strangers never take a turn of it.
    Confirmation(PersonId),
    /// A name that nobody has, so that it is delayed as if somebody had it.
    Unknown(String),
}

/// The failures of a person or source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginDelay {
    /// Turns taken since the last success.
    pub failures: u64,
    /// When the next turn may be taken.
    pub until: UnixTime,
}
