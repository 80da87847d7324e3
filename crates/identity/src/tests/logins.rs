//! Logins: one argon2 run on every path, delays that nobody evades and that end, recovery codes.

use vocabulary::{Name, PersonId, UnixTime};

use super::support::{Counting, NOW, Seeded};
use crate::delay::{Failures, PERSON_DELAY, SOURCE_DELAY};
use crate::factor::{Enrolment, FactorError, NewFactors, make_factors};
use crate::limits::{FAILURES_FORGOTTEN_MS, PERSON_DELAY_MAX_MS, RECOVERY_CODES};
use crate::login::{
    Admission, DelayOf, LoginAttempt, LoginFacts, LoginOutcome, LoginRefusal, PersonFacts, SecondFactor, admit, judge,
};
use crate::password::{Argon2id, Password, PasswordError};
use crate::pepper::{Pepper, Peppers};
use crate::recovery::RecoveryCode;
use crate::totp::{CodeRefusal, TotpSecret, step_at};

const PASSWORD: &str = "correct horse battery";

fn pepper() -> Pepper {
    Pepper::new(1, &[9; 32])
}

fn password(text: &str) -> Password {
    Password::from_typed(text).unwrap()
}

fn person(seed: u64) -> (PersonFacts, NewFactors) {
    let mut random = Seeded(seed);
    let totp = TotpSecret::draw(&mut random);
    let id = PersonId::from_bytes([1; 16]);
    // Long ago, so that the code of the enrolment is out of the way.
    let then = UnixTime::from_millis(NOW.millis() - 3_600_000);
    let enrolment = Enrolment {
        person: id,
        name: &"ada".parse().unwrap(),
        password: &password(PASSWORD),
        secret: &totp,
        code: &totp.code_at(then).unwrap(),
    };
    let new = make_factors(&Argon2id, &mut random, &pepper(), &enrolment, then).unwrap();
    let facts = PersonFacts {
        person: id,
        password: new.password.clone(),
        totp,
        last_step: Some(new.last_step),
        recovery: new.recovery.clone(),
    };
    (facts, new)
}

fn facts(person: Option<PersonFacts>) -> LoginFacts {
    LoginFacts { person, person_failures: Failures::NONE, source_failures: Failures::NONE }
}

/// Both steps, counting runs.
fn login(
    facts: &LoginFacts,
    password: &Password,
    code: &str,
    hasher: &Counting,
) -> Result<LoginOutcome, (DelayOf, u64)> {
    let attempt = LoginAttempt { password, code };
    match admit(facts, &attempt, &Peppers::new(pepper()), NOW) {
        Admission::Judge(admitted) => Ok(judge(hasher, facts, &attempt, admitted, NOW)),
        Admission::Wait { wait_ms, by } => Err((by, wait_ms)),
    }
}

#[test]
fn exactly_one_argon2_run_on_every_path() {
    let (ada, new) = person(1);
    let good = ada.totp.code_at(NOW).unwrap();
    let used = PersonFacts { last_step: Some(step_at(NOW) + 1), ..ada.clone() };
    let recovery = new.recovery_codes[3].reveal();
    let no_codes = PersonFacts { recovery: Vec::new(), ..ada.clone() };
    let wrong = "not the password at all";
    let paths: [(&str, Option<PersonFacts>, &str, &str, bool, Result<SecondFactor, LoginRefusal>); 9] = [
        ("both right", Some(ada.clone()), PASSWORD, &good, false, Ok(SecondFactor::Totp { step: step_at(NOW) })),
        ("recovery code", Some(ada.clone()), PASSWORD, &recovery, false, Ok(SecondFactor::Recovery { index: 3 })),
        ("unknown person", None, PASSWORD, &good, false, Err(LoginRefusal::UnknownPerson)),
        ("wrong password", Some(ada.clone()), wrong, &good, false, Err(LoginRefusal::WrongPassword)),
        ("wrong code", Some(ada.clone()), PASSWORD, "junk", false, Err(LoginRefusal::WrongCode)),
        ("replayed code", Some(used), PASSWORD, &good, false, Err(LoginRefusal::ReplayedCode)),
        ("spent recovery code", Some(no_codes), PASSWORD, &recovery, false, Err(LoginRefusal::WrongCode)),
        ("recovery code alone", Some(ada.clone()), wrong, &recovery, false, Err(LoginRefusal::WrongPassword)),
        ("hasher fails", Some(ada), PASSWORD, &good, true, Err(LoginRefusal::HasherFailed)),
    ];
    for (path, who, pass, code, fails, expected) in paths {
        let hasher = Counting { fails, ..Counting::default() };
        let outcome = login(&facts(who), &password(pass), code, &hasher).unwrap();
        assert_eq!(hasher.runs.get(), 1, "{path}");
        match (outcome, expected) {
            (LoginOutcome::Authenticated(a), Ok(second)) => {
                assert_eq!((a.second, a.acr, a.factor_time, a.rehash), (second, 1, NOW, false), "{path}");
            }
            (LoginOutcome::Refused(r), Err(reason)) => {
                assert_eq!((r.reason, r.spend_recovery), (reason, None), "{path}");
            }
            (outcome, expected) => panic!("{path}: {outcome:?} instead of {expected:?}"),
        }
    }
    let hasher = Counting { fails: true, ..Counting::default() };
    let outcome = login(&facts(None), &password(PASSWORD), "", &hasher).unwrap();
    assert!(matches!(outcome, LoginOutcome::Refused(r) if r.reason == LoginRefusal::HasherFailed));
    assert_eq!(hasher.runs.get(), 1);
}

#[test]
fn delays_grow_are_bounded_and_end() {
    let after = |n: u32| (0..n).fold(Failures::NONE, |f, _| f.with_one_more(NOW)).wait_ms(PERSON_DELAY, NOW);
    assert_eq!((1..=8).map(after).collect::<Vec<_>>(), [0, 0, 0, 1_000, 2_000, 4_000, 8_000, 16_000]);
    assert_eq!(after(200), PERSON_DELAY_MAX_MS);
    let many = Failures { count: u32::MAX, last: NOW };
    assert_eq!(many.wait_ms(PERSON_DELAY, NOW), PERSON_DELAY_MAX_MS);
    assert_eq!(many.wait_ms(PERSON_DELAY, NOW.plus_millis(PERSON_DELAY_MAX_MS)), 0, "never for good");
    assert_eq!(many.with_one_more(NOW).count, u32::MAX);
    let clock_went_back = UnixTime::from_millis(NOW.millis() - 365 * 86_400_000);
    assert_eq!(many.wait_ms(PERSON_DELAY, clock_went_back), PERSON_DELAY_MAX_MS);
    let later = NOW.plus_millis(FAILURES_FORGOTTEN_MS + 1);
    assert_eq!(many.with_one_more(later), Failures { count: 1, last: later });
    assert!(Failures { count: 21, last: NOW }.wait_ms(SOURCE_DELAY, NOW) > 0);
    assert_eq!(Failures { count: 20, last: NOW }.wait_ms(SOURCE_DELAY, NOW), 0);
}

#[test]
fn known_and_unknown_names_wait_alike_and_nothing_is_hashed() {
    let (ada, _) = person(2);
    let code = ada.totp.code_at(NOW).unwrap();
    let hasher = Counting::default();
    for who in [Some(ada), None] {
        let mut facts = facts(who);
        facts.person_failures = Failures { count: 10, last: NOW };
        let waited = login(&facts, &password(PASSWORD), &code, &hasher).unwrap_err();
        assert_eq!(waited, (DelayOf::Person, 64_000));
    }
    assert_eq!(hasher.runs.get(), 0);
}

#[test]
fn attempts_are_counted_before_they_are_judged() {
    let (ada, _) = person(3);
    let facts = facts(Some(ada));
    let attempt = LoginAttempt { password: &password("guess"), code: "123456" };
    let Admission::Judge(admitted) = admit(&facts, &attempt, &Peppers::new(pepper()), NOW) else { panic!() };
    assert_eq!(admitted.person_failures, Failures { count: 1, last: NOW });
    assert_eq!(admitted.source_failures, Failures { count: 1, last: NOW });
}

#[test]
fn a_recovery_code_skips_the_persons_delay_never_the_sources() {
    let (ada, new) = person(4);
    let code = new.recovery_codes[0].reveal();
    let mut facts = facts(Some(ada));
    facts.person_failures = Failures { count: 50, last: NOW };
    let hasher = Counting::default();
    let outcome = login(&facts, &password(PASSWORD), &code, &hasher).unwrap();
    assert!(matches!(outcome, LoginOutcome::Authenticated(a) if a.second == SecondFactor::Recovery { index: 0 }));
    // Guessing passwords past the delay costs a code each time.
    let outcome = login(&facts, &password("wrong password"), &code, &hasher).unwrap();
    assert!(matches!(outcome, LoginOutcome::Refused(r) if r.spend_recovery == Some(0)));
    // A code that does not fit, and another person's, skip nothing.
    let foreign = person(5).1.recovery_codes[0].reveal();
    for wrong in [foreign.as_str(), "0-0000-0000-0000-0000", "000000"] {
        assert_eq!(login(&facts, &password(PASSWORD), wrong, &hasher).unwrap_err().0, DelayOf::Person);
    }
    facts.source_failures = Failures { count: 50, last: NOW };
    assert_eq!(login(&facts, &password(PASSWORD), &code, &hasher).unwrap_err().0, DelayOf::Source);
}

#[test]
fn aliases_of_a_name_are_one_key() {
    // The delays are kept under the normalised name, so an alias meets the same counter.
    let names: Vec<Name> = ["ada", " ADA ", "ａｄａ", "Ada\t"].iter().map(|n| n.parse().unwrap()).collect();
    assert!(names.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn recovery_codes_have_one_meaning_however_typed() {
    let codes = RecoveryCode::draw_set(&mut Seeded(6));
    assert_eq!(codes.len(), RECOVERY_CODES);
    let person = PersonId::from_bytes([1; 16]);
    let (pepper, peppers) = (pepper(), Peppers::new(pepper()));
    for code in &codes {
        let (text, record) = (code.reveal(), code.record(person, &pepper));
        assert_eq!(text.len(), 21);
        let typings = [
            text.to_string(),
            text.to_uppercase(),
            text.replace('-', ""),
            text.replace('-', " "),
            text.replacen('0', "O", 30).replacen('1', "l", 30),
        ];
        for typed in &typings {
            // The index is a digit and stays one.
            let typed = format!("{}{}", &text[..1], &typed[1..]);
            let read = RecoveryCode::parse(&typed).unwrap();
            assert!(read.fits(person, &record, &peppers), "{typed}");
        }
        let read = RecoveryCode::parse(&text).unwrap();
        assert!(!read.fits(PersonId::from_bytes([2; 16]), &record, &peppers), "another person's");
        assert!(!read.fits(person, &record, &Peppers::new(Pepper::new(1, &[8; 32]))), "another pepper");
        assert!(!read.fits(person, &record, &Peppers::new(Pepper::new(2, &[9; 32]))), "an unknown version");
        for at in 2..text.len() {
            let other = if text.as_bytes()[at] == b'7' { "8" } else { "7" };
            let mut typed = text.to_string();
            typed.replace_range(at..=at, other);
            assert!(!RecoveryCode::parse(&typed).is_some_and(|c| c.fits(person, &record, &peppers)), "{typed}");
        }
        assert!(!format!("{code:?}").contains(&text[2..6]));
    }
    for junk in ["", "1", "123456", "a-0000-0000-0000-0000", "0-0000-0000-0000-000", "0-000u-0000-0000-0000"] {
        assert!(RecoveryCode::parse(junk).is_none(), "{junk:?}");
    }
}

#[test]
fn factors_are_made_only_with_a_good_password_and_a_fresh_code() {
    let mut random = Seeded(8);
    let secret = TotpSecret::draw(&mut random);
    let name: Name = "ada".parse().unwrap();
    let good = secret.code_at(NOW).unwrap();
    let hasher = Counting::default();
    for (pass, code, refusal) in [
        ("short", good.as_str(), FactorError::Password(PasswordError::TooShort)),
        (PASSWORD, "abcdef", FactorError::Code(CodeRefusal::Malformed)),
    ] {
        let enrolment = Enrolment {
            person: PersonId::from_bytes([1; 16]),
            name: &name,
            password: &password(pass),
            secret: &secret,
            code,
        };
        let refused = make_factors(&hasher, &mut random, &pepper(), &enrolment, NOW).unwrap_err();
        assert_eq!(refused, refusal);
    }
    assert_eq!(hasher.runs.get(), 0, "a refused enrolment costs nothing");
    // The code that proved the authenticator is used up.
    let enrolment = Enrolment {
        person: PersonId::from_bytes([1; 16]),
        name: &name,
        password: &password(PASSWORD),
        secret: &secret,
        code: &good,
    };
    let new = make_factors(&hasher, &mut random, &pepper(), &enrolment, NOW).unwrap();
    assert_eq!(secret.check(&good, Some(new.last_step), NOW), Err(CodeRefusal::Replayed));
    assert_eq!(new.reveal_recovery_codes().len(), RECOVERY_CODES);
}
