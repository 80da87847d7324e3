//! Passwords: one normal form, argon2id, and the port through which it runs so that runs can be counted.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;
use unicode_normalization::UnicodeNormalization as _;
use vocabulary::Name;
use zeroize::Zeroizing;

use crate::limits::{
    ARGON2_LANES, ARGON2_LANES_MAX, ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES, ARGON2_PASSES_MAX,
    PASSWORD_DISTINCT_MIN, PASSWORD_MAX, PASSWORD_MIN,
};

/// Passwords of twelve and more characters that are tried first, in lower case.
const COMMON: [&str; 12] = [
    "password1234",
    "password12345",
    "passwordpassword",
    "123456789012",
    "1234567890123",
    "12345678901234",
    "qwertyuiop123",
    "qwertyuiop[]",
    "1q2w3e4r5t6y",
    "iloveyou1234",
    "administrator",
    "letmeinletmein",
];

/// A password is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Longer than [`PASSWORD_MAX`].
    #[error("a password has at most {PASSWORD_MAX} characters")]
    TooLong,
    /// Shorter than [`PASSWORD_MIN`].
    #[error("a password has at least {PASSWORD_MIN} characters")]
    TooShort,
    /// The name of the person, or little more.
    #[error("a password must not be made of the person's name")]
    IsName,
    /// Among those that are tried first, or of too few different characters.
    #[error("this password is among those that are guessed first")]
    Trivial,
    /// The hash function failed.
    #[error("the password could not be hashed")]
    Hash(#[from] HashError),
}

/// argon2id did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("argon2id did not run")]
pub struct HashError;

/// A password as it was typed, in its normal form (NFKC), wiped on drop.
///
/// NFKC makes one password of the different ways in which keyboards and systems write the same characters.
/// Case, and spaces inside or around it, are the person's choice and are kept.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes what was typed. Only the upper length is checked: old passwords must stay usable.
    pub fn from_typed(text: &str) -> Result<Self, PasswordError> {
        // NFKC makes at most 18 characters of one, so what passes here stays small; what is longer is not looked at.
        if text.chars().nth(PASSWORD_MAX).is_some() {
            return Err(PasswordError::TooLong);
        }
        let normal: Zeroizing<String> = Zeroizing::new(text.nfkc().collect());
        if normal.chars().nth(PASSWORD_MAX).is_some() {
            return Err(PasswordError::TooLong);
        }
        Ok(Self(normal))
    }
    /// Whether it may become the password of the person of this name.
    pub fn check_new(&self, name: &Name) -> Result<(), PasswordError> {
        if self.0.chars().count() < PASSWORD_MIN {
            return Err(PasswordError::TooShort);
        }
        let lower = Zeroizing::new(self.0.to_lowercase());
        let rest = lower.replace(name.as_str(), "");
        if rest.trim().chars().count() < PASSWORD_MIN / 2 && rest.len() < lower.len() {
            return Err(PasswordError::IsName);
        }
        let mut distinct: Vec<char> = lower.chars().collect();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < PASSWORD_DISTINCT_MIN || COMMON.contains(&lower.trim()) {
            return Err(PasswordError::Trivial);
        }
        Ok(())
    }
    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(secret)")
    }
}

/// The cost of an argon2id run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// The cost of new hashes.
pub const COST: Cost = Cost { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, lanes: ARGON2_LANES };

/// Runs argon2id. A port, so that a test can count the runs and a driver can bound how many run at once.
pub trait PasswordHasher: fmt::Debug {
    /// Hashes a password with a salt; 23 ms of a core and 19 MiB at [`COST`].
    fn argon2id(&self, password: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Zeroizing<[u8; 32]>, HashError>;
}

/// The real thing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Argon2id;

impl PasswordHasher for Argon2id {
    fn argon2id(&self, password: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Zeroizing<[u8; 32]>, HashError> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| HashError)?;
        let mut output = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password, salt, output.as_mut())
            .map_err(|_| HashError)?;
        Ok(output)
    }
}

/// A stored password hash is malformed, or asks for more than a login may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a password hash that we accept")]
pub struct PasswordHashError;

/// A password's hash as it is stored; prints as a PHC string only on request.
#[derive(Clone)]
pub struct PasswordHash {
    cost: Cost,
    salt: [u8; 16],
    output: Zeroizing<[u8; 32]>,
}

/// The hash that stands in for an unknown person: the same cost, and no password fits it.
const NOBODY: [u8; 16] = *b"swarm: no person";

impl PasswordHash {
    /// Hashes a new password: one run.
    pub fn new(
        hasher: &dyn PasswordHasher,
        password: &Password,
        random: &mut dyn keys::Random,
    ) -> Result<Self, PasswordError> {
        let mut salt = [0; 16];
        random.fill(&mut salt);
        let output = hasher.argon2id(password.bytes(), &salt, COST)?;
        Ok(Self { cost: COST, salt, output })
    }
    /// Whether the password fits: one run, whatever comes out.
    pub fn fits(&self, hasher: &dyn PasswordHasher, password: &Password) -> Result<bool, HashError> {
        let output = hasher.argon2id(password.bytes(), &self.salt, self.cost)?;
        Ok(output.as_ref().ct_eq(self.output.as_ref()).into())
    }
    /// Spends the run that a known person's password would have cost.
    pub(crate) fn fits_nobody(hasher: &dyn PasswordHasher, password: &Password) -> Result<(), HashError> {
        hasher.argon2id(password.bytes(), &NOBODY, COST).map(drop)
    }
    /// Whether it was made with another cost than new hashes, and should be made anew at the next login.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.cost != COST
    }
    /// The PHC string, for storing.
    #[must_use]
    pub fn to_phc(&self) -> Zeroizing<String> {
        let Cost { memory_kib, passes, lanes } = self.cost;
        let (salt, output) = (STANDARD_NO_PAD.encode(self.salt), STANDARD_NO_PAD.encode(self.output.as_ref()));
        Zeroizing::new(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}"))
    }
    /// Reads a PHC string of ours; a row that asks for more than [`ARGON2_MEMORY_KIB_MAX`] and the like is refused.
    pub fn from_phc(text: &str) -> Result<Self, PasswordHashError> {
        if text.len() > 160 {
            return Err(PasswordHashError);
        }
        let mut fields = text.split('$');
        let mut next = || fields.next().ok_or(PasswordHashError);
        if (next()?, next()?, next()?) != ("", "argon2id", "v=19") {
            return Err(PasswordHashError);
        }
        let cost = parse_cost(next()?)?;
        let salt = STANDARD_NO_PAD.decode(next()?).map_err(|_| PasswordHashError)?;
        let output = Zeroizing::new(STANDARD_NO_PAD.decode(next()?).map_err(|_| PasswordHashError)?);
        if fields.next().is_some() {
            return Err(PasswordHashError);
        }
        let salt = salt.as_slice().try_into().map_err(|_| PasswordHashError)?;
        let output = Zeroizing::new(output.as_slice().try_into().map_err(|_| PasswordHashError)?);
        Ok(Self { cost, salt, output })
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(secret)")
    }
}

fn parse_cost(text: &str) -> Result<Cost, PasswordHashError> {
    let mut fields = text.split(',');
    let mut next = |prefix: &str, max: u32| -> Result<u32, PasswordHashError> {
        let digits = fields.next().and_then(|f| f.strip_prefix(prefix)).ok_or(PasswordHashError)?;
        let value: u32 = digits.parse().map_err(|_| PasswordHashError)?;
        if value == 0 || value > max || value.to_string() != digits { Err(PasswordHashError) } else { Ok(value) }
    };
    let cost = Cost {
        memory_kib: next("m=", ARGON2_MEMORY_KIB_MAX)?,
        passes: next("t=", ARGON2_PASSES_MAX)?,
        lanes: next("p=", ARGON2_LANES_MAX)?,
    };
    // A doctored row must not make guessing cheap either.
    if fields.next().is_some() || cost.memory_kib < 8 * 1024 { Err(PasswordHashError) } else { Ok(cost) }
}
