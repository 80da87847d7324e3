use vocabulary::{KeyId, Sensitivity};

use super::{STRONG, allowed, facts, tenant, user_of, volume, volume_of};
use crate::*;

const TOTP: CallFacts = CallFacts { acr: 1, production: false, ..STRONG };

#[test]
fn step_up() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let mut asked = facts(user_of(own, &["admin"]), "volumeDelete", volume(own, 1));
    for (call, next) in [
        (TOTP, None),
        (CallFacts { mfa_age_s: Some(0), ..TOTP }, None),
        (CallFacts { mfa_age_s: Some(300), ..TOTP }, None),
        (CallFacts { mfa_age_s: Some(301), ..TOTP }, Some(NextStep::StepUp)),
        // An age that is unknown, or so large that it would wrap to a negative one.
        (CallFacts { mfa_age_s: None, ..TOTP }, Some(NextStep::StepUp)),
        (CallFacts { mfa_age_s: Some(u64::MAX), ..TOTP }, Some(NextStep::StepUp)),
        (CallFacts { mfa_age_s: Some(1 << 63), ..TOTP }, Some(NextStep::StepUp)),
        (CallFacts { request_bound: false, ..TOTP }, Some(NextStep::StepUp)),
        (CallFacts { acr: 0, ..TOTP }, Some(NextStep::StepUp)),
        // Production takes a passkey, and nothing less.
        (STRONG, None),
        (CallFacts { acr: 1, ..STRONG }, Some(NextStep::Passkey)),
        (CallFacts { acr: 0, ..STRONG }, Some(NextStep::Passkey)),
        (CallFacts { request_bound: false, ..STRONG }, Some(NextStep::StepUp)),
        (CallFacts { mfa_age_s: Some(301), ..STRONG }, Some(NextStep::StepUp)),
    ] {
        asked.call = call;
        assert_eq!(decide::<action::VolumeDelete>(&sets, &asked).err().map(|refusal| refusal.next), next, "{call:?}");
    }
    assert_eq!(NextStep::Passkey.code().as_str(), "passkey_required");
    assert_eq!(NextStep::StepUp.code().as_str(), "step_up_required");
    assert_eq!(NextStep::SecondPerson.code().as_str(), "second_person_required");
}

#[test]
fn without_a_role_nothing_is_confirmed() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let mut asked = facts(user_of(own, &["viewer"]), "volumeDelete", volume(own, 1));
    asked.call = CallFacts { request_bound: false, ..TOTP };
    assert_eq!(decide::<action::VolumeDelete>(&sets, &asked).unwrap_err().next, NextStep::Role);
    // Nor does somebody without a role learn which guardrail the data stands under.
    let asked = facts(user_of(own, &[]), "volumeRead", volume_of(own, 1, Sensitivity::Regulated, 1));
    assert_eq!(decide::<action::VolumeRead>(&sets, &asked).unwrap_err().next, NextStep::Role);
}

#[test]
fn second_person() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let mut asked = facts(user_of(own, &["admin"]), "keyDestroy", Resource::Key { id: KeyId::from_bytes([6; 16]), tenant: own });
    assert!(decide::<action::KeyDestroy>(&sets, &asked).unwrap().spend().waived.is_empty());
    asked.call = CallFacts { approvals: 0, ..STRONG };
    assert_eq!(decide::<action::KeyDestroy>(&sets, &asked).unwrap_err().next, NextStep::SecondPerson);
    // Two are missing: the one that this version cannot give is named.
    asked.call = CallFacts { approvals: 0, acr: 1, ..STRONG };
    assert_eq!(decide::<action::KeyDestroy>(&sets, &asked).unwrap_err().next, NextStep::Passkey);
    // Development waives it, says so, and waives nothing else.
    asked.call = CallFacts { approvals: 0, ..TOTP };
    assert_eq!(decide::<action::KeyDestroy>(&sets, &asked).unwrap().spend().waived, ["second person waived (development profile)"]);
    assert!(explain(&sets, &asked, "keyDestroy").unwrap().next.contains(&"second person waived (development profile)".to_owned()));
    asked.call = CallFacts { approvals: 0, request_bound: false, ..TOTP };
    assert_eq!(decide::<action::KeyDestroy>(&sets, &asked).unwrap_err().next, NextStep::StepUp);
    asked.call = CallFacts { approvals: 1, ..TOTP };
    assert!(decide::<action::KeyDestroy>(&sets, &asked).unwrap().spend().waived.is_empty());
}

#[test]
fn less_trust_than_the_default_is_confirmed() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let plain = CallFacts { request_bound: false, ..TOTP };
    for (sensitivity, min_trust, call, next) in [
        (Sensitivity::Regulated, 1, plain, None),
        (Sensitivity::Regulated, 2, plain, None),
        (Sensitivity::Regulated, 0, plain, Some(NextStep::StepUp)),
        (Sensitivity::Regulated, 0, TOTP, None),
        (Sensitivity::Regulated, 0, CallFacts { acr: 1, ..STRONG }, Some(NextStep::Passkey)),
        (Sensitivity::Confidential, 0, plain, None),
    ] {
        let mut asked = facts(user_of(own, &["engineer"]), "volumeCreate", volume_of(own, 1, sensitivity, min_trust));
        asked.call = call;
        assert_eq!(decide::<action::VolumeCreate>(&sets, &asked).err().map(|refusal| refusal.next), next, "{sensitivity} {min_trust} {call:?}");
    }
}

#[test]
fn where_a_call_comes_from_is_a_fact() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let office = r#"@id("office") forbid(principal, action == Swarm::Action::"volumeView", resource)
        unless { context has src && context.src.isInRange(ip("10.1.0.0/16")) };"#;
    sets.install(own.tenant, &sets.check_own(office).unwrap(), 1).unwrap();
    let mut asked = facts(user_of(own, &["admin"]), "volumeView", volume(own, 1));
    for (source, may) in [(Some("10.1.2.3"), true), (Some("10.2.2.3"), false), (Some("2001:db8::1"), false), (None, false)] {
        asked.call.source = source.map(|source| source.parse().unwrap());
        assert_eq!(allowed(&sets, &asked, "volumeView"), may, "{source:?}");
    }
}
