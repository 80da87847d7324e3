//! One-time codes against the vectors of their RFCs, and against replay.

use std::collections::BTreeMap;

use vocabulary::UnixTime;

use super::support::{NOW, Seeded};
use crate::limits::CODE_MAX;
use crate::totp::{CodeRefusal, OtpHash, TotpSecret, hotp, step_at};

/// Blocks of `NAME = value` lines.
pub(crate) fn blocks(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut all: Vec<BTreeMap<String, String>> = Vec::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
        let Some((name, value)) = line.split_once('=') else { continue };
        if name.trim() == "COUNT" {
            all.push(BTreeMap::new());
        }
        if let Some(block) = all.last_mut() {
            block.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    all
}

#[test]
fn rfc_4226() {
    let cases = blocks(include_str!("../../testdata/rfc-4226.txt"));
    assert_eq!(cases.len(), 10);
    for case in cases {
        let code = hotp(OtpHash::Sha1, case["SECRET"].as_bytes(), case["COUNTER"].parse().unwrap(), 6).unwrap();
        assert_eq!(format!("{code:06}"), case["HOTP"], "{case:?}");
    }
}

#[test]
fn rfc_6238_18_of_18() {
    let cases = blocks(include_str!("../../testdata/rfc-6238.txt"));
    assert_eq!(cases.len(), 18);
    for case in cases {
        let hash = match case["MODE"].as_str() {
            "SHA1" => OtpHash::Sha1,
            "SHA256" => OtpHash::Sha256,
            "SHA512" => OtpHash::Sha512,
            other => panic!("{other}"),
        };
        let seconds: u64 = case["TIME"].parse().unwrap();
        let step = step_at(UnixTime::from_millis(seconds * 1000));
        let code = hotp(hash, case["SECRET"].as_bytes(), step, 8).unwrap();
        assert_eq!(format!("{code:08}"), case["TOTP"], "{case:?}");
    }
}

#[test]
fn hostile_numbers_of_digits_are_no_panic() {
    assert_eq!(hotp(OtpHash::Sha1, b"", 0, 11), None);
    assert!(hotp(OtpHash::Sha1, b"", u64::MAX, 9).is_some());
}

#[test]
fn window_is_one_step_on_each_side() {
    let secret = TotpSecret::draw(&mut Seeded(1));
    for (offset, good) in [(-60, false), (-30, true), (0, true), (30, true), (60, false)] {
        let at = UnixTime::from_millis(NOW.millis().checked_add_signed(offset * 1000).unwrap());
        let checked = secret.check(&secret.code_at(at).unwrap(), None, NOW);
        assert_eq!(checked.is_ok(), good, "{offset}");
        assert_eq!(checked.ok(), good.then_some(step_at(at)));
    }
}

#[test]
fn a_code_works_once_and_no_older_one_after_it() {
    let secret = TotpSecret::draw(&mut Seeded(2));
    let code = secret.code_at(NOW).unwrap();
    let step = secret.check(&code, None, NOW).unwrap();
    assert_eq!(secret.check(&code, Some(step), NOW), Err(CodeRefusal::Replayed));
    // A space must not make a new code of a used one (HCSEC-2025-17).
    for typed in [format!(" {code}"), format!("{} {}", &code[..3], &code[3..]), format!("{code}\u{2003}")] {
        assert_eq!(secret.check(&typed, Some(step), NOW), Err(CodeRefusal::Replayed), "{typed:?}");
        assert_eq!(secret.check(&typed, None, NOW), Ok(step), "{typed:?}");
    }
    let before = UnixTime::from_millis(NOW.millis() - 30_000);
    assert_eq!(secret.check(&secret.code_at(before).unwrap(), Some(step), NOW), Err(CodeRefusal::Replayed));
    let after = NOW.plus_millis(30_000);
    assert_eq!(secret.check(&secret.code_at(after).unwrap(), Some(step), NOW), Ok(step + 1));
    // A clock that goes back opens nothing.
    assert_eq!(secret.check(&code, Some(step + 100), NOW), Err(CodeRefusal::Replayed));
}

#[test]
fn malformed_codes() {
    let secret = TotpSecret::draw(&mut Seeded(3));
    let full_width: String =
        secret.code_at(NOW).unwrap().chars().map(|c| char::from_u32(u32::from(c) - 0x30 + 0xff10).unwrap()).collect();
    assert!(secret.check(&full_width, None, NOW).is_ok());
    for typed in ["", "12345", "1234567", "12345a", "+12345", "-12345-", "１２３"] {
        assert_eq!(secret.check(typed, None, NOW), Err(CodeRefusal::Malformed), "{typed:?}");
    }
    assert_eq!(secret.check(&" ".repeat(CODE_MAX * 1000), None, NOW), Err(CodeRefusal::Malformed));
    assert!(secret.check("000000", None, UnixTime::from_millis(0)).is_err());
    assert!(secret.check("000000", None, UnixTime::from_millis(u64::MAX)).is_err());
}

#[test]
fn uri_and_base32() {
    // RFC 4226's secret; base32 computed with Python's base64.b32encode.
    let secret = TotpSecret::from_bytes(*b"12345678901234567890");
    assert_eq!(secret.reveal_base32().as_str(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    assert_eq!(
        secret.reveal_uri(&"ada+x@example.org".parse().unwrap()).as_str(),
        "otpauth://totp/Swarm:ada%2Bx%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Swarm\
         &algorithm=SHA1&digits=6&period=30"
    );
    assert!(!format!("{secret:?}").contains("12345"));
}
