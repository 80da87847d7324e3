//! Personal values: sealed under their subject's key, bound to entry and field, gone when the key is gone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vocabulary::EntryId;

use super::samples::{encode, entry, personal, subject_root};
use super::support::{Log, Seeded, flipped};
use crate::Event;
use crate::entry::{Body, EntryError};
use crate::leaf::matches;
use crate::limits::{SEALED_FIELDS_MAX, SEALED_VALUE_MAX};
use crate::sealed::{Opened, Personal, SEALED_PATHS, SealError, SealedValue, SubjectRoot, open_sealed, seal};

const ID: EntryId = EntryId::from_bytes([5; 16]);

fn sealed(path: &str, value: &str, seed: u8) -> SealedValue {
    seal(ID, &personal(path, value, seed), [seed; 12]).unwrap()
}

#[test]
fn every_field_seals_and_opens() {
    for path in SEALED_PATHS {
        let made = sealed(path, "äöü 203.0.113.7", 1);
        let opened = open_sealed(ID, path, &made, Some(&subject_root(1)));
        assert_eq!(opened, Ok(Opened::Value("äöü 203.0.113.7".into())), "{path}");
    }
}

/// Computed with Python (`hmac`, `cryptography` AESGCM and HKDF), not by this code.
#[test]
fn the_bytes_are_pinned() {
    let made = sealed("user.name", "alice", 1);
    assert_eq!(made.c, "0nzvXuKlSrwRwNXnL16rCl08wVc5wrMYmYK+/pho6Ss=");
    assert_eq!(made.ct, "AQEBAQEBAQEBAQEBT6Z7xBa1mcC7wCcWaQrwk3yAiSRo");
    assert_eq!(subject_root(1).pseudonym("203.0.113.7").unwrap(), "86cc6283d8bb9166f16c1e5accf4115b");
}

#[test]
fn a_value_is_bound_to_key_entry_and_field() {
    let made = sealed("user.name", "alice", 1);
    let open = |id, path, root: &SubjectRoot| open_sealed(id, path, &made, Some(root));
    assert_eq!(open(ID, "user.name", &subject_root(2)), Err(SealError::DoesNotOpen));
    assert_eq!(open(EntryId::from_bytes([6; 16]), "user.name", &subject_root(1)), Err(SealError::DoesNotOpen));
    assert_eq!(open(ID, "user.full_name", &subject_root(1)), Err(SealError::DoesNotOpen));
}

#[test]
fn every_changed_byte_of_a_sealed_value_is_refused() {
    let made = sealed("user.name", "alice", 1);
    let ct = STANDARD.decode(&made.ct).unwrap();
    for at in 0..ct.len() {
        let changed = SealedValue { ct: STANDARD.encode(flipped(&ct, at, 1)), ..made.clone() };
        assert_eq!(open_sealed(ID, "user.name", &changed, Some(&subject_root(1))), Err(SealError::DoesNotOpen), "{at}");
    }
    let c = STANDARD.decode(&made.c).unwrap();
    for at in 0..c.len() {
        let changed = SealedValue { c: STANDARD.encode(flipped(&c, at, 1)), ..made.clone() };
        assert_eq!(open_sealed(ID, "user.name", &changed, Some(&subject_root(1))), Err(SealError::Commitment), "{at}");
    }
    for ct in ["", "AAAA", "not base64!", &"A".repeat(10_000)] {
        let changed = SealedValue { ct: ct.into(), ..made.clone() };
        assert_eq!(open_sealed(ID, "user.name", &changed, Some(&subject_root(1))), Err(SealError::Malformed), "{ct:.20}");
    }
}

/// The key is destroyed: the value is gone and said to be, while leaf, order and count still verify.
#[test]
fn destroying_the_key_erases_the_value_and_breaks_no_proof() {
    let mut recorded = entry(1, Event::Heartbeat { size: 1 });
    recorded.personal = vec![personal("src_endpoint.ip", "203.0.113.7", 1), personal("user.name", "alice", 2)];
    let encoded = encode(&recorded);
    let mut log = Log::of(3);
    log.push(vec![encoded.leaf.to_vec()]);
    let body = Body::parse(&encoded.body).unwrap();
    assert_eq!(body.open("user.name", Some(&subject_root(2))), Some(Ok(Opened::Value("alice".into()))));
    assert_eq!(body.open("user.name", None), Some(Ok(Opened::KeyDestroyed)));
    assert_eq!(body.open("src_endpoint.ip", Some(&subject_root(1))), Some(Ok(Opened::Value("203.0.113.7".into()))));
    assert_eq!(body.open("user.email_addr", None), None);
    assert!(matches(&log.leaves[3], &encoded.salt, &encoded.body));
    assert_eq!(crate::walk::verify_log(&log.tiles, &log.checkpoint()), Ok(4));
}

/// Equal values of two subjects have nothing in common; equal values of one subject have their commitment in common
/// only within one field.
#[test]
fn values_of_two_subjects_cannot_be_linked() {
    let (one, two) = (sealed("user.name", "alice", 1), sealed("user.name", "alice", 2));
    assert!(one.c != two.c && one.ct != two.ct);
    assert_ne!(one.c, sealed("user.full_name", "alice", 1).c);
    let pseudonym = |seed: u8, value: &str| subject_root(seed).pseudonym(value).unwrap();
    assert_ne!(pseudonym(1, "203.0.113.7"), pseudonym(2, "203.0.113.7"));
    assert_ne!(pseudonym(1, "203.0.113.7"), pseudonym(1, "203.0.113.8"));
    assert_eq!(pseudonym(1, "203.0.113.7"), pseudonym(1, "203.0.113.7"));
}

/// Whoever has the whole body and guesses right still cannot tell: the commitment is no plain hash of the value.
#[test]
fn a_guess_cannot_be_tested_without_the_key() {
    let made = sealed("src_endpoint.ip", "203.0.113.7", 1);
    let c = STANDARD.decode(&made.c).unwrap();
    let message = b"src_endpoint.ip\x00203.0.113.7";
    for guess in [&message[..], b"203.0.113.7"] {
        assert_ne!(c, crate::hash::sha256(&[guess]));
        for key in [&[][..], &[0; 32], b"subject-1", ID.as_bytes()] {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
            assert_ne!(c, aws_lc_rs::hmac::sign(&key, guess).as_ref());
        }
    }
}

#[test]
fn what_cannot_be_sealed_is_refused() {
    let refuse = |path: &str, value: &str| seal(ID, &personal(path, value, 1), [0; 12]).unwrap_err();
    assert_eq!(refuse("metadata.uid", "x"), SealError::Path);
    assert_eq!(refuse("", "x"), SealError::Path);
    assert_eq!(refuse("user.name", ""), SealError::Length);
    assert_eq!(refuse("user.name", &"a".repeat(SEALED_VALUE_MAX + 1)), SealError::Length);
    assert!(seal(ID, &personal("user.name", &"a".repeat(SEALED_VALUE_MAX), 1), [0; 12]).is_ok());
    let mut twice = entry(1, Event::Heartbeat { size: 1 });
    twice.personal = vec![personal("user.name", "a", 1), personal("user.name", "b", 1)];
    assert_eq!(twice.encode(&mut |_| ()), Err(EntryError::Personal));
    twice.personal = vec![personal("user.name", "a", 1); SEALED_FIELDS_MAX + 1];
    assert_eq!(twice.encode(&mut |_| ()), Err(EntryError::Personal));
}

#[test]
fn every_value_has_a_nonce_of_its_own() {
    let mut many = entry(1, Event::Heartbeat { size: 1 });
    many.personal = SEALED_PATHS.iter().map(|path| personal(path, "same", 1)).collect();
    let mut random = Seeded(3);
    let body = Body::parse(&many.encode(&mut |bytes| random.fill(bytes)).unwrap().body).unwrap();
    let nonces: std::collections::BTreeSet<Vec<u8>> =
        body.sealed.values().map(|value| STANDARD.decode(&value.ct).unwrap()[..12].to_vec()).collect();
    assert_eq!(nonces.len(), SEALED_PATHS.len());
}

#[test]
fn nothing_that_holds_a_personal_value_prints_it() {
    let secret = Personal { value: "canary-value".into(), ..personal("user.name", "x", 0x5a) };
    let mut recorded = entry(1, Event::Heartbeat { size: 1 });
    recorded.personal = vec![secret.clone()];
    let printed = format!("{secret:?} {recorded:?} {:?} {:?}", secret.root, encode(&recorded));
    assert!(!printed.contains("canary-value"));
    assert!(!printed.contains("90, 90, 90"), "the root's bytes are printed");
}
