//! Passwords: rules, normal form, stored hashes.

use super::one_time_codes::blocks;
use super::support::{Counting, Seeded};
use crate::limits::PASSWORD_MAX;
use crate::password::{Argon2id, COST, Cost, Password, PasswordError, PasswordHash, PasswordHasher};

fn typed(text: &str) -> Password {
    Password::from_typed(text).unwrap()
}

#[test]
fn argon2id_vectors_of_our_shape() {
    let mut run = 0;
    for case in blocks(include_str!("../../testdata/argon2id.txt")) {
        // Ours have a salt of 16 bytes, 32 bytes of output, no secret and no associated data.
        let plain = !case.contains_key("secret") && !case.contains_key("ad");
        let salt = hex::decode(&case["salt"]).unwrap();
        let (Ok(salt), true, "32") = (<[u8; 16]>::try_from(salt), plain, case["length"].as_str()) else { continue };
        let cost = Cost {
            memory_kib: case["memcost"].parse().unwrap(),
            passes: case["iter"].parse().unwrap(),
            lanes: case["lanes"].parse().unwrap(),
        };
        let output = Argon2id.argon2id(&hex::decode(&case["pass"]).unwrap(), &salt, cost).unwrap();
        assert_eq!(hex::encode(output.as_ref()), case["output"]);
        run += 1;
    }
    assert_eq!(run, 2);
}

#[test]
fn rules_of_new_passwords() {
    let name = "ada.lovelace".parse().unwrap();
    for (text, refusal) in [
        ("short", Some(PasswordError::TooShort)),
        ("elevenchars", Some(PasswordError::TooShort)),
        ("ada.lovelace", Some(PasswordError::IsName)),
        ("ADA.Lovelace1", Some(PasswordError::IsName)),
        (" ada.lovelace ", Some(PasswordError::IsName)),
        ("aaaaaaaaaaaaaaaa", Some(PasswordError::Trivial)),
        ("abababababab", Some(PasswordError::Trivial)),
        ("Password1234", Some(PasswordError::Trivial)),
        ("correct horse battery", None),
        ("ада ловелас 1815", None),
    ] {
        assert_eq!(typed(text).check_new(&name).err(), refusal, "{text:?}");
    }
}

#[test]
fn too_long_is_refused_before_anything_runs() {
    assert!(Password::from_typed(&"é".repeat(PASSWORD_MAX)).is_ok());
    for text in ["x".repeat(PASSWORD_MAX + 1), "x".repeat(50_000_000), "\u{fdfa}".repeat(PASSWORD_MAX)] {
        assert_eq!(Password::from_typed(&text).err(), Some(PasswordError::TooLong));
    }
}

#[test]
fn one_password_however_the_keyboard_wrote_it() {
    let hash = PasswordHash::new(&Argon2id, &typed("pa\u{301}ssword ünlich"), &mut Seeded(1)).unwrap();
    assert!(hash.fits(&Argon2id, &typed("p\u{e1}ssword u\u{308}nlich")).unwrap());
    assert!(!hash.fits(&Argon2id, &typed("p\u{e1}ssword ünlich ")).unwrap(), "spaces are the person's choice");
    assert!(!hash.fits(&Argon2id, &typed("P\u{e1}ssword ünlich")).unwrap());
}

#[test]
fn stored_form() {
    let counting = Counting::default();
    let hash = PasswordHash::new(&counting, &typed("correct horse battery"), &mut Seeded(2)).unwrap();
    assert_eq!(counting.runs.get(), 1);
    let phc = hash.to_phc();
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", phc.as_str());
    let read = PasswordHash::from_phc(&phc).unwrap();
    assert!(read.fits(&Argon2id, &typed("correct horse battery")).unwrap() && !read.is_outdated());
    assert!(!format!("{read:?}").contains('$'));
    let outdated = phc.replace("m=19456", "m=20000");
    assert!(PasswordHash::from_phc(&outdated).unwrap().is_outdated());
    for doctored in [
        String::new(),
        phc.replace("argon2id", "argon2i"),
        phc.replace("v=19", "v=16"),
        phc.replace("m=19456", "m=4294967295"),
        phc.replace("m=19456", "m=8"),
        phc.replace("m=19456", "m=019456"),
        phc.replace("t=2", "t=1000"),
        phc.replace("p=1", "p=0"),
        phc.replace("p=1", "p=1,x=2"),
        format!("{}$", phc.as_str()),
        format!("{}A", phc.as_str()),
        phc[..phc.len() - 1].to_owned(),
        "$".repeat(200),
    ] {
        assert!(PasswordHash::from_phc(&doctored).is_err(), "{doctored}");
    }
    assert_eq!(COST, Cost { memory_kib: 19 * 1024, passes: 2, lanes: 1 });
}
