//! The decision of a login: a pure function over what is stored about a name and a source.
//!
//! Two steps, so that parallel guesses gain nothing. [`admit`] looks at the delays and says which failure counters to
//! store *before* anything is judged; [`judge`] spends exactly one argon2 run, whoever is or is not behind the name,
//! and a success puts the counters back. An error is a refusal.

use vocabulary::{PersonId, UnixTime};

use crate::delay::{Failures, PERSON_DELAY, SOURCE_DELAY};
use crate::password::{Password, PasswordHash, PasswordHasher};
use crate::pepper::Peppers;
use crate::recovery::{RecoveryCode, RecoveryRecord};
use crate::totp::{CodeRefusal, TotpSecret};

/// What is stored of a person's factors.
#[derive(Debug, Clone)]
pub struct PersonFacts {
    /// The person.
    pub person: PersonId,
    /// The password's hash.
    pub password: PasswordHash,
    /// The TOTP secret.
    pub totp: TotpSecret,
    /// The last TOTP step that was used.
    pub last_step: Option<u64>,
    /// The recovery codes that are unused.
    pub recovery: Vec<RecoveryRecord>,
}

/// What is stored about the name and the source of a login, read at one moment.
#[derive(Debug, Clone)]
pub struct LoginFacts {
    /// The person of that (normalised) name, if there is one with factors.
    pub person: Option<PersonFacts>,
    /// Failures under that (normalised) name, also where nobody has it.
    pub person_failures: Failures,
    /// Failures of the source.
    pub source_failures: Failures,
}

/// What was typed.
#[derive(Debug)]
pub struct LoginAttempt<'a> {
    /// The password.
    pub password: &'a Password,
    /// A TOTP code or a recovery code.
    pub code: &'a str,
}

/// Whether a login may be judged now.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// Judge it, after both counters were stored.
    Judge(Admitted),
    /// Wait. The answer is the same for known and unknown names, and nothing is hashed.
    Wait {
        /// How long, in milliseconds.
        wait_ms: u64,
        /// Whose delay it is, for the audit log.
        by: DelayOf,
    },
}

/// Whose delay holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayOf {
    /// The source's.
    Source,
    /// The name's.
    Person,
}

/// An admitted login. Taken by value by [`judge`]: one admission, one judgement.
#[derive(Debug)]
pub struct Admitted {
    /// The name's failures with this attempt counted: store before judging, put back on success.
    pub person_failures: Failures,
    /// The source's failures with this attempt counted.
    pub source_failures: Failures,
    /// The recovery code that fits, if one was typed and does.
    recovery: Option<u8>,
    /// Whether the recovery code was needed to get past the person's delay.
    delay_skipped: bool,
}

/// Looks at the delays. A fitting recovery code skips the person's delay, never the source's.
pub fn admit(facts: &LoginFacts, attempt: &LoginAttempt<'_>, peppers: &Peppers, now: UnixTime) -> Admission {
    let wait_ms = facts.source_failures.wait_ms(SOURCE_DELAY, now);
    if wait_ms > 0 {
        return Admission::Wait { wait_ms, by: DelayOf::Source };
    }
    let recovery = facts.person.as_ref().and_then(|person| fitting_recovery(person, attempt.code, peppers));
    let wait_ms = facts.person_failures.wait_ms(PERSON_DELAY, now);
    if wait_ms > 0 && recovery.is_none() {
        return Admission::Wait { wait_ms, by: DelayOf::Person };
    }
    Admission::Judge(Admitted {
        person_failures: facts.person_failures.with_one_more(now),
        source_failures: facts.source_failures.with_one_more(now),
        recovery,
        delay_skipped: wait_ms > 0,
    })
}

fn fitting_recovery(person: &PersonFacts, typed: &str, peppers: &Peppers) -> Option<u8> {
    let code = RecoveryCode::parse(typed)?;
    let fits = |stored: &RecoveryRecord| code.fits(person.person, stored, peppers);
    person.recovery.iter().any(fits).then_some(code.index())
}

/// The second factor that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondFactor {
    /// A TOTP code of this step.
    Totp {
        /// Store it as the last step, on condition that the stored one is still smaller; else refuse.
        step: u64,
    },
    /// A recovery code.
    Recovery {
        /// Delete it, on condition that it is still there; else refuse.
        index: u8,
    },
}

/// What comes out of a login.
#[derive(Debug)]
#[must_use]
pub enum LoginOutcome {
    /// Both factors fit.
    Authenticated(Authenticated),
    /// They do not, or something went wrong.
    Refused(LoginRefused),
}

/// A person who showed both factors. Becomes true once the second factor's condition holds in the store.
#[derive(Debug)]
pub struct Authenticated {
    /// The person.
    pub person: PersonId,
    /// What was shown beside the password.
    pub second: SecondFactor,
    /// The class of authentication that policies compare: 1 = password and TOTP (or its replacement).
    pub acr: u8,
    /// When the factors were shown.
    pub factor_time: UnixTime,
    /// Whether to store the password's hash anew, at today's cost.
    pub rehash: bool,
    /// No other module can make one.
    _proof: Proof,
}

#[derive(Debug)]
struct Proof;

/// A refused login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRefused {
    /// Why, for the audit log. The answer to the outside never says which.
    pub reason: LoginRefusal,
    /// A recovery code that is spent although the login failed: it was used to get past the person's delay.
    pub spend_recovery: Option<u8>,
}

/// Why a login was refused; for the audit log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefusal {
    /// Nobody with factors has this name.
    #[error("unknown person")]
    UnknownPerson,
    /// The password is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// The code is malformed, wrong or too old.
    #[error("wrong code")]
    WrongCode,
    /// The code was used before.
    #[error("replayed code")]
    ReplayedCode,
    /// The hash function failed.
    #[error("the password could not be checked")]
    HasherFailed,
}

/// Judges an admitted login: exactly one argon2 run on every path.
#[expect(clippy::needless_pass_by_value, reason = "one admission, one judgement: it is spent here")]
pub fn judge(
    hasher: &dyn PasswordHasher,
    facts: &LoginFacts,
    attempt: &LoginAttempt<'_>,
    admitted: Admitted,
    now: UnixTime,
) -> LoginOutcome {
    let Admitted { recovery, delay_skipped, person_failures: _, source_failures: _ } = admitted;
    let refused =
        |reason| LoginOutcome::Refused(LoginRefused { reason, spend_recovery: recovery.filter(|_| delay_skipped) });
    let Some(person) = &facts.person else {
        return match PasswordHash::fits_nobody(hasher, attempt.password) {
            Ok(()) => refused(LoginRefusal::UnknownPerson),
            Err(_) => refused(LoginRefusal::HasherFailed),
        };
    };
    let second = match recovery {
        Some(index) => Ok(SecondFactor::Recovery { index }),
        None => person.totp.check(attempt.code, person.last_step, now).map(|step| SecondFactor::Totp { step }),
    };
    match (person.password.fits(hasher, attempt.password), second) {
        (Ok(true), Ok(second)) => LoginOutcome::Authenticated(Authenticated {
            person: person.person,
            second,
            acr: 1,
            factor_time: now,
            rehash: person.password.is_outdated(),
            _proof: Proof,
        }),
        (Ok(true), Err(CodeRefusal::Replayed)) => refused(LoginRefusal::ReplayedCode),
        (Ok(true), Err(CodeRefusal::Malformed | CodeRefusal::Wrong | CodeRefusal::Secret)) => {
            refused(LoginRefusal::WrongCode)
        }
        (Ok(false), _) => refused(LoginRefusal::WrongPassword),
        (Err(_), _) => refused(LoginRefusal::HasherFailed),
    }
}
