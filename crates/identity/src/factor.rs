//! Making a person's factors: what the enrolment ticket is spent on.

use vocabulary::{Name, PersonId, UnixTime};
use zeroize::Zeroizing;

use crate::password::{Password, PasswordError, PasswordHash, PasswordHasher};
use crate::pepper::Pepper;
use crate::recovery::{RecoveryCode, RecoveryRecord};
use crate::totp::{CodeRefusal, TotpSecret};

/// Factors are not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactorError {
    /// The password is not acceptable.
    #[error("`password`: {0}")]
    Password(#[from] PasswordError),
    /// The code does not come from the authenticator that was offered.
    #[error("`code`: {0}")]
    Code(#[from] CodeRefusal),
}

/// A person's new factors: what to store, and what to show once.
#[derive(Debug)]
pub struct NewFactors {
    /// The password's hash.
    pub password: PasswordHash,
    /// The step of the code that proved the authenticator: it is used up.
    pub last_step: u64,
    /// The recovery codes, to be shown once.
    pub recovery_codes: Vec<RecoveryCode>,
    /// What is stored of them.
    pub recovery: Vec<RecoveryRecord>,
}

impl NewFactors {
    /// The texts to show.
    #[must_use]
    pub fn reveal_recovery_codes(&self) -> Vec<Zeroizing<String>> {
        self.recovery_codes.iter().map(RecoveryCode::reveal).collect()
    }
}

/// Whose factors are made, and with what.
#[derive(Debug)]
pub struct Enrolment<'a> {
    /// The person.
    pub person: PersonId,
    /// The person's name.
    pub name: &'a Name,
    /// The new password.
    pub password: &'a Password,
    /// The secret that was offered.
    pub secret: &'a TotpSecret,
    /// A code of the authenticator that took it.
    pub code: &'a str,
}

/// Checks the password's rules and the authenticator's code, then makes the factors. The ticket is the caller's to spend.
pub fn make_factors(
    hasher: &dyn PasswordHasher,
    random: &mut dyn keys::Random,
    pepper: &Pepper,
    enrolment: &Enrolment<'_>,
    now: UnixTime,
) -> Result<NewFactors, FactorError> {
    enrolment.password.check_new(enrolment.name)?;
    let last_step = enrolment.secret.check(enrolment.code, None, now)?;
    let password = PasswordHash::new(hasher, enrolment.password, random)?;
    let recovery_codes = RecoveryCode::draw_set(random);
    let recovery = recovery_codes.iter().map(|code| code.record(enrolment.person, pepper)).collect();
    Ok(NewFactors { password, last_step, recovery_codes, recovery })
}
