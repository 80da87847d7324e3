//! Tokens: format, checksum, what is stored, what is printed.

use super::support::Seeded;
use crate::pepper::{Pepper, Peppers};
use crate::token::{TOKEN_PATTERN, Token, TokenError, TokenKind};

fn pepper(version: u32) -> Pepper {
    Pepper::new(version, &[u8::try_from(version).unwrap(); 32])
}

/// The published pattern, applied by hand.
fn scanner_finds(text: &str) -> bool {
    let parts: Vec<&str> = text.split('_').collect();
    let base62 = |t: &str, len| t.len() == len && t.bytes().all(|b| b.is_ascii_alphanumeric());
    let kinds = TOKEN_PATTERN.split_once('(').unwrap().1.split_once(')').unwrap().0;
    matches!(parts.as_slice(), ["swm", kind, id, rest]
        if kinds.split('|').any(|k| k == *kind) && base62(id, 22) && base62(rest, 49))
}

#[test]
fn fixed_vector() {
    // Computed with Python: base62 of the big-endian integers, zlib.crc32 over what stands before.
    struct Fixed;
    impl keys::Random for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) {
            for (byte, value) in bytes.iter_mut().zip(0u8..) {
                *byte = value;
            }
        }
    }
    let text = Token::draw(TokenKind::Session, &mut Fixed).reveal();
    assert_eq!(text.as_str(), FIXED);
}

const FIXED: &str = "swm_ses_000SYW7RiJxkEgOGusQGwp_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf4ToDfv";

#[test]
fn every_kind_reads_back_and_is_found_by_scanners() {
    let mut random = Seeded(1);
    for kind in TokenKind::ALL {
        for _ in 0..50 {
            let token = Token::draw(kind, &mut random);
            let text = token.reveal();
            assert!(scanner_finds(&text), "{}", text.as_str());
            let read = Token::parse(&text).unwrap();
            assert_eq!((read.kind(), read.id()), (kind, token.id()));
            assert_eq!(read.reveal(), text);
            assert_eq!(TokenKind::from_word(kind.as_str()), Some(kind));
            assert!(read.fits(&token.record(&pepper(1)), &Peppers::new(pepper(1))));
        }
    }
    assert_eq!(TokenKind::from_word("SES"), None);
}

#[test]
fn every_changed_character_is_refused() {
    let mut random = Seeded(2);
    let token = Token::draw(TokenKind::Join, &mut random);
    let (text, record) = (token.reveal(), token.record(&pepper(1)));
    for at in 0..text.len() {
        for new in ["0", "a", "Z", "_", "é", " ", ""] {
            let mut changed = text.to_string();
            if changed.get(at..=at) == Some(new) {
                continue;
            }
            changed.replace_range(at..=at, new);
            assert!(Token::parse(&changed).is_err(), "{at} {new:?}");
        }
    }
    for around in [format!(" {}", text.as_str()), format!("{}\n", text.as_str()), text.to_uppercase(), String::new()] {
        assert_eq!(Token::parse(&around).err(), Some(TokenError::Shape), "{around:?}");
    }
    assert!(Token::parse(&"swm_ses_".repeat(1_000_000)).is_err());
    let other = Token::draw(TokenKind::Join, &mut random);
    assert!(!other.fits(&record, &Peppers::new(pepper(1))));
}

#[test]
fn digits_out_of_range_are_refused() {
    for (id, secret) in [("z".repeat(22), "0".repeat(43)), ("0".repeat(22), "z".repeat(43))] {
        let covered = format!("swm_ses_{id}_{secret}");
        let mut number = crc32fast::hash(covered.as_bytes());
        let mut crc = String::new();
        for _ in 0..6 {
            let digit = number % 62;
            let c = match digit {
                0..=9 => u32::from('0') + digit,
                10..=35 => u32::from('A') + digit - 10,
                _ => u32::from('a') + digit - 36,
            };
            crc.insert(0, char::from_u32(c).unwrap());
            number /= 62;
        }
        assert_eq!(Token::parse(&format!("{covered}{crc}")).err(), Some(TokenError::Range));
    }
}

#[test]
fn a_record_fits_its_own_token_under_its_own_pepper_only() {
    let mut random = Seeded(3);
    let token = Token::draw(TokenKind::Session, &mut random);
    let record = token.record(&pepper(2));
    let rotated = Peppers::new(pepper(2)).with(pepper(3));
    assert!(token.fits(&record, &rotated), "an older version still checks");
    assert_eq!(rotated.newest().unwrap().version(), 3);
    assert!(!token.fits(&record, &Peppers::new(pepper(3))));
    assert!(!token.fits(&record, &Peppers::default()));
    assert!(!token.fits(&record, &Peppers::new(Pepper::new(2, &[0; 32]))));
    let other_kind = crate::token::TokenRecord { kind: TokenKind::Service, ..record };
    assert!(!token.fits(&other_kind, &rotated), "a row moved to another kind");
    let other_id = crate::token::TokenRecord { id: Token::draw(TokenKind::Session, &mut random).id(), ..record };
    assert!(!token.fits(&other_id, &rotated), "a row moved to another id");
}

#[test]
fn nothing_prints_a_secret() {
    let token = Token::draw(TokenKind::Session, &mut Seeded(4));
    let text = token.reveal();
    let secret = text.rsplit('_').next().unwrap();
    let shown = format!("{token:?} {:?} {:?}", token.record(&pepper(1)), pepper(1));
    assert!(!shown.contains(secret) && !shown.contains(&secret[..8]));
    assert!(!shown.contains(&hex::encode(token.record(&pepper(1)).mac.as_bytes())));
    // An error never repeats what was typed.
    let error = Token::parse(&format!("{}x", text.as_str())).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(&secret[..8]));
}
