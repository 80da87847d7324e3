//! The seal of several people, and those who try to open it without being them.

use vocabulary::{DeploymentId, Profile, UnixTime};
use zeroize::Zeroizing;

use crate::gather::{GatherError, Gathered, Gathering};
use crate::limits::GATHER_MS;
use crate::seal::{Argon2Cost, Opened, SealError, SealFile, ShareRefusal};
use crate::share::{SHARE_BYTES, Share, ShareError};
use crate::{Random, SystemRandom};

const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);
const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn born(deployment: u8) -> Opened {
    SealFile::create("p", DeploymentId::from_bytes([deployment; 16]), Profile::Development, CHEAP, NOW, &mut SystemRandom).unwrap()
}

fn shared(of: &Opened, threshold: u8, count: u8) -> (Opened, Vec<String>) {
    let (opened, shares) = of.under_shares(threshold, count, &mut SystemRandom).unwrap();
    (opened, shares.iter().map(|share| share.to_text().to_string()).collect())
}

/// Enters shares in sequence under one number, and gives what the last one led to.
fn enter(gathering: &mut Gathering, texts: &[&str], now: UnixTime) -> Result<Gathered, GatherError> {
    let mut last = None;
    for text in texts {
        let nonce = gathering.progress().nonce;
        last = Some(gathering.add(text, nonce, now, &mut SystemRandom)?);
    }
    Ok(last.unwrap())
}

/// A share of the same place whose bytes somebody changed, with a checksum that fits again.
fn forged(text: &str, at: usize, to: impl Fn(u8) -> u8) -> Result<Share, ShareError> {
    let mut bytes = *Share::parse(text).unwrap().to_bytes();
    bytes[at] = to(bytes[at]);
    let checksum = crate::derive::sha256(&[b"swarm/share/v1", &bytes[..72]]);
    bytes[72..].copy_from_slice(&checksum[..8]);
    Share::from_bytes(&bytes)
}

#[test]
fn a_seal_that_another_program_made() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../testdata/seal.json")).unwrap();
    let file = SealFile::parse(golden["file"].to_string().as_bytes()).unwrap();
    let texts: Vec<&str> = golden["shares"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for pair in [[0, 1], [1, 2], [2, 0]] {
        let Gathered::Open(opened) = enter(&mut Gathering::new(file.clone()), &pair.map(|place| texts[place]), NOW).unwrap() else { panic!("it is open") };
        assert_eq!(hex::encode(opened.epochs()[0].key.expose()), golden["root"].as_str().unwrap());
    }
    for text in texts {
        assert_eq!(Share::parse(text).unwrap().to_text().as_str(), text, "a share is written as it was read");
    }
    assert_eq!(SealFile::parse(&file.to_bytes()).unwrap(), file);
}

#[test]
fn enough_shares_open_it_in_any_order_and_one_fewer_do_not() {
    let born = born(7);
    let (sealed, texts) = shared(&born, 3, 5);
    let file = SealFile::parse(&sealed.file().to_bytes()).unwrap();
    for order in [[0, 1, 2], [4, 2, 0], [3, 1, 4]] {
        let mut gathering = Gathering::new(file.clone());
        let chosen = order.map(|place| texts[place].as_str());
        let Gathered::More(progress) = enter(&mut gathering, &chosen[..2], NOW).unwrap() else { panic!("two are too few") };
        assert_eq!((progress.entered.len(), progress.threshold), (2, 3));
        let Gathered::Open(opened) = enter(&mut gathering, &chosen[2..], NOW).unwrap() else { panic!("three are enough") };
        assert_eq!(opened.epochs()[0].key, born.epochs()[0].key);
        assert!(gathering.progress().entered.is_empty(), "what was used is wiped");
    }
    // Too few together, whatever the one who has them does with them.
    let two: Vec<Share> = texts[..2].iter().map(|text| Share::parse(text).unwrap()).collect();
    assert!(file.open_with(&two).is_err());
    assert_eq!(file.open("p").unwrap_err(), SealError::Kind(crate::seal::SealKind::Shares));
}

#[test]
fn every_bad_share_is_named_before_anything_is_opened() {
    let born = born(7);
    let (second, texts) = shared(&born, 2, 3);
    let (third, newer) = shared(&second, 2, 3);
    let (_, never) = shared(&born, 2, 3);
    let (_, foreign) = shared(&self::born(8), 2, 3);
    let mut gathering = Gathering::new(second.file().clone());
    let mut refused = |text: &str| {
        let nonce = gathering.progress().nonce;
        gathering.add(text, nonce, NOW, &mut SystemRandom).unwrap_err()
    };
    assert_eq!(refused(&foreign[0]), ShareRefusal::Foreign(1).into());
    assert_eq!(refused(&newer[1]), ShareRefusal::Generation { place: 2, generation: 3, current: 2 }.into());
    assert_eq!(refused(&never[2]), ShareRefusal::Set(3).into());
    assert_eq!(refused("correct horse"), ShareError::Prefix.into());
    let mut short = texts[0].clone();
    short.pop();
    assert_eq!(refused(&short), ShareError::Length(127).into());
    assert_eq!(refused(&format!("{}a", texts[0])), ShareError::Length(129).into());
    assert_eq!(refused(&texts[0].replacen("-a", "-1", 1)), ShareError::Character(1).into());
    // A value that was not given out, and every other byte of a share: none is taken, however well its checksum fits.
    for at in 0..72 {
        match forged(&texts[0], at, |byte| byte ^ 1) {
            Ok(share) => {
                let refusal = second.file().check(&share).unwrap_err();
                assert!(at < 40 || refusal == ShareRefusal::Value(1), "byte {at}: {refusal}");
            }
            Err(error) => assert!(matches!(error, ShareError::Version(_) | ShareError::Numbers { .. }), "byte {at}: {error}"),
        }
    }
    // Twice the same one is one.
    enter(&mut gathering, &[&texts[0]], NOW).unwrap();
    assert_eq!(enter(&mut gathering, &[&texts[0]], NOW).unwrap_err(), GatherError::Duplicate(1));
    assert_eq!(gathering.progress().entered, [1], "a bad share takes nothing away");
    // The old generation's shares are nothing under the new one.
    let old = Gathering::new(third.file().clone()).add(&texts[0], None, NOW, &mut SystemRandom).unwrap_err();
    assert_eq!(old, ShareRefusal::Generation { place: 1, generation: 2, current: 3 }.into());
    assert_eq!(Gathering::new(born.file().clone()).add(&texts[0], None, NOW, &mut SystemRandom).unwrap_err(), ShareRefusal::NoShares.into());
}

#[test]
fn every_slip_of_the_pen_is_found() {
    let (_, texts) = shared(&born(7), 2, 3);
    let text = &texts[1];
    let typed: Vec<char> = text.chars().collect();
    for at in 9..typed.len() {
        if typed[at] == '-' {
            continue;
        }
        let mut slip = typed.clone();
        slip[at] = if slip[at] == 'q' { 'z' } else { 'q' };
        let slip: String = slip.into_iter().collect();
        assert_eq!(Share::parse(&slip).unwrap_err(), ShareError::Checksum, "letter {at}");
    }
    // Two that change places.
    let mut swapped = typed.clone();
    let at = (9..).find(|at| typed[*at] != typed[at + 1] && typed[*at] != '-' && typed[at + 1] != '-').unwrap();
    swapped.swap(at, at + 1);
    assert_eq!(Share::parse(&swapped.into_iter().collect::<String>()).unwrap_err(), ShareError::Checksum);
    // What is no slip.
    let same = Share::parse(text).unwrap().to_bytes();
    for way in [text.to_uppercase(), text.replace('-', " "), text.replacen('-', "", 20), format!("  {text}\r\n")] {
        assert_eq!(Share::parse(&way).unwrap().to_bytes(), same);
    }
}

#[test]
fn attempts_have_a_number_and_an_end() {
    let (sealed, texts) = shared(&born(7), 3, 3);
    let mut gathering = Gathering::new(sealed.file().clone());
    let mut random = SystemRandom;
    assert_eq!(gathering.add(&texts[0], Some([1; 16]), NOW, &mut random).unwrap_err(), GatherError::Lapsed);
    gathering.add(&texts[0], None, NOW, &mut random).unwrap();
    let nonce = gathering.progress().nonce;
    // A share without the number, or with another one's, does not get into this attempt.
    assert_eq!(gathering.add(&texts[1], None, NOW, &mut random).unwrap_err(), GatherError::Nonce);
    assert_eq!(gathering.add(&texts[1], Some([1; 16]), NOW, &mut random).unwrap_err(), GatherError::Nonce);
    let late = NOW.plus_millis(GATHER_MS - 1);
    gathering.add(&texts[1], nonce, late, &mut random).unwrap();
    assert_eq!(gathering.progress().entered, [1, 2]);
    // From the first share on, not from the last one.
    let over = NOW.plus_millis(GATHER_MS);
    assert_eq!(gathering.add(&texts[2], nonce, over, &mut random).unwrap_err(), GatherError::Lapsed);
    assert!(gathering.progress().entered.is_empty());
    gathering.add(&texts[0], None, over, &mut random).unwrap();
    assert_ne!(gathering.progress().nonce, nonce, "a number is used once");
    assert!(gathering.lapse(NOW), "a clock that went back ends it");
    assert!(gathering.progress().entered.is_empty());
}

#[test]
fn a_changed_file_opens_nothing() {
    let born = born(7);
    let (sealed, texts) = shared(&born, 2, 2);
    let two: Vec<&str> = texts.iter().map(String::as_str).collect();
    let text = String::from_utf8(sealed.file().to_bytes()).unwrap();
    let opens = |text: &str| match SealFile::parse(text.as_bytes()) {
        Ok(file) => matches!(enter(&mut Gathering::new(file), &two, NOW), Ok(Gathered::Open(_))),
        Err(_) => false,
    };
    assert!(opens(&text));
    for (from, to) in [
        ("\"development\"", "\"production\""),
        ("\"generation\": 2", "\"generation\": 1"),
        ("\"threshold\": 2", "\"threshold\": 1"),
        ("\"created\": 1767225600000", "\"created\": 1767225600001"),
        ("\"epoch\": 1,", "\"epoch\": 2,"),
        ("\"format\": 2", "\"format\": 1"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(!opens(&text.replace(from, to)), "{from} became {to}");
    }
    // The epoch of the passphrase's file does not open under the shares: which seal it lies under is part of the wrap.
    let old: serde_json::Value = serde_json::from_slice(&born.file().to_bytes()).unwrap();
    let mut mixed: serde_json::Value = serde_json::from_str(&text).unwrap();
    mixed["epochs"] = old["epochs"].clone();
    assert!(!opens(&mixed.to_string()));
    let mut state = 1_u64;
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut mutant = text.clone().into_bytes();
        let at = usize::try_from(state >> 33).unwrap() % mutant.len();
        mutant[at] = u8::try_from(state >> 24 & 0xff).unwrap();
        if let Ok(file) = SealFile::parse(&mutant)
            && let Ok(Gathered::Open(opened)) = enter(&mut Gathering::new(file), &two, NOW)
        {
            assert!(opened.epochs()[0].key == born.epochs()[0].key);
        }
    }
}

#[test]
fn epochs_come_and_go_under_the_same_seal() {
    let (sealed, texts) = shared(&born(7), 2, 2);
    let two: Vec<&str> = texts.iter().map(String::as_str).collect();
    let grown = sealed.with_next_epoch(NOW.plus_millis(1), &mut SystemRandom).unwrap();
    assert_eq!(grown.newest(), 2);
    assert!(grown.epochs()[0].key != grown.epochs()[1].key);
    let Gathered::Open(opened) = enter(&mut Gathering::new(grown.file().clone()), &two, NOW).unwrap() else { panic!("it is open") };
    assert_eq!(opened.epochs().len(), 2);
    // Another process that has the seal open follows the file, and nobody's file of another seal.
    assert_eq!(sealed.follow(grown.file()).unwrap().newest(), 2);
    let (other, _) = shared(&sealed, 2, 2);
    assert!(sealed.follow(other.file()).is_err());
    assert!(grown.without_epoch(2).is_none() && grown.without_epoch(9).is_none(), "the newest stays");
    let shrunk = grown.without_epoch(1).unwrap();
    let Gathered::Open(opened) = enter(&mut Gathering::new(shrunk.file().clone()), &two, NOW).unwrap() else { panic!("it is open") };
    assert_eq!(opened.epochs().iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), [2]);
    for (threshold, count) in [(0, 3), (1, 3), (4, 3), (2, 33), (2, 0)] {
        assert_eq!(sealed.under_shares(threshold, count, &mut SystemRandom).unwrap_err(), SealError::Numbers { threshold, shares: count });
    }
}

#[test]
fn shares_print_nowhere() {
    let (_, shares) = born(7).under_shares(2, 2, &mut SystemRandom).unwrap();
    let value: Zeroizing<[u8; SHARE_BYTES]> = shares[0].to_bytes();
    let printed = format!("{:?} {:?}", shares[0], Gathering::new(born(7).file().clone()));
    assert!(!printed.contains(&hex::encode(&value[40..72])) && printed.starts_with("Share(1 of 2, generation 2)"), "{printed}");
}

#[test]
fn whatever_is_typed_nothing_breaks() {
    let (_, texts) = shared(&born(7), 2, 2);
    let mut random = SystemRandom;
    let mut state = 7_u64;
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bytes = texts[0].clone().into_bytes();
        let at = usize::try_from(state >> 33).unwrap() % bytes.len();
        bytes[at] = u8::try_from(state >> 24 & 0xff).unwrap();
        bytes.truncate(usize::try_from(state >> 40).unwrap() % 300);
        crate::share::fuzz_share(&bytes);
        let noise: [u8; 64] = <dyn Random>::array(&mut random);
        crate::share::fuzz_share(&noise);
    }
    crate::share::fuzz_share(format!("swmshare{}", "a".repeat(1 << 20)).as_bytes());
    crate::share::fuzz_share("swmshareüü".as_bytes());
}
