//! Step-up: bound to one request, one login, five minutes, one use.

use serde_json::{Value, json};
use vocabulary::{PersonId, PrincipalId, Profile, StepUpId, TenantId, TokenId, UnixTime};

use super::support::{NOW, Seeded};
use crate::limits::{STEP_UP_LIFE_MS, STEP_UP_TRIES};
use crate::stepup::{
    CanonicalRequest, PendingStepUp, ProofKind, RequestHashError, StepUpLogin, StepUpRefusal, SummarisedAct,
};
use crate::totp::{CodeRefusal, TotpSecret};

fn by() -> StepUpLogin {
    StepUpLogin {
        tenant: Some(TenantId::from_bytes([1; 16])),
        principal: PrincipalId::from_bytes([2; 16]),
        person: PersonId::from_bytes([3; 16]),
        login: TokenId::from_bytes([4; 16]),
    }
}

fn request<'a>(path: &'a [(&'a str, &'a str)], body: Option<&'a Value>) -> CanonicalRequest<'a> {
    CanonicalRequest {
        method: "DELETE",
        route: "/v1/volumes/{volume}",
        path,
        if_match: Some("7"),
        body,
        tenant: by().tenant,
        principal: by().principal,
    }
}

fn pending(profile: Profile) -> PendingStepUp {
    let act = SummarisedAct {
        action: "volumeDelete",
        words: "delete the volume",
        resources: &[("0190-a", "patients\u{1b}[31m")],
    };
    let hash = request(&[("volume", "0190-a")], None).hash().unwrap();
    PendingStepUp::begin(StepUpId::from_bytes([5; 16]), by(), &act, hash, profile, NOW)
}

#[test]
fn the_hash_covers_every_part_and_only_the_meaning() {
    let path = [("volume", "0190-a")];
    let body = json!({"b": 1, "a": [true, null]});
    let same: Value = serde_json::from_str("{ \"a\" : [ true, null ], \"b\":1 }").unwrap();
    let base = request(&path, Some(&body));
    let hash = base.hash().unwrap();
    assert_eq!(request(&path, Some(&same)).hash().unwrap(), hash, "order and spaces mean nothing");
    let other_body = json!({"b": 2, "a": [true, null]});
    let other_path = [("volume", "0190-b")];
    let renamed = [("project", "0190-a")];
    let null = Value::Null;
    let others = [
        CanonicalRequest { method: "PUT", ..base },
        CanonicalRequest { route: "/v1/volumes/{volume}/x", ..base },
        CanonicalRequest { path: &other_path, ..base },
        CanonicalRequest { path: &renamed, ..base },
        CanonicalRequest { path: &[], ..base },
        CanonicalRequest { if_match: None, ..base },
        CanonicalRequest { if_match: Some("8"), ..base },
        CanonicalRequest { body: Some(&other_body), ..base },
        CanonicalRequest { body: Some(&null), ..base },
        CanonicalRequest { body: None, ..base },
        CanonicalRequest { tenant: None, ..base },
        CanonicalRequest { tenant: Some(TenantId::from_bytes([9; 16])), ..base },
        CanonicalRequest { principal: PrincipalId::from_bytes([9; 16]), ..base },
    ];
    let mut hashes: Vec<_> = others.iter().map(|r| r.hash().unwrap()).collect();
    hashes.push(hash);
    let count = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}

#[test]
fn bodies_without_one_text_are_refused() {
    let path = [("volume", "0190-a")];
    // 2^53 and 2^53 + 1 would get one text, and one hash.
    for body in [json!(9_007_199_254_740_993u64), json!({"a": [1.5]}), json!(-9_007_199_254_740_993i64)] {
        assert_eq!(request(&path, Some(&body)).hash(), Err(RequestHashError::NotCanonical), "{body}");
    }
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = json!([deep]);
    }
    assert_eq!(request(&path, Some(&deep)).hash(), Err(RequestHashError::NotCanonical));
    let big = json!("x".repeat(2 << 20));
    assert_eq!(request(&path, Some(&big)).hash(), Err(RequestHashError::TooLarge));
}

#[test]
fn confirmed_and_spent_once() {
    let secret = TotpSecret::draw(&mut Seeded(1));
    let code = secret.code_at(NOW).unwrap();
    let row = pending(Profile::Development);
    assert_eq!(row.summary, "delete the volume `patients[31m` (0190-a)");
    assert_eq!(row.spend(&by(), &row.request, NOW).unwrap_err(), StepUpRefusal::NotConfirmed);
    let (step, confirmed) = row.confirm(&by(), &secret, None, &code, NOW).unwrap();
    let later = NOW.plus_millis(1_000);
    let other = request(&[("volume", "0190-b")], None).hash().unwrap();
    assert_eq!(confirmed.spend(&by(), &other, later).unwrap_err(), StepUpRefusal::OtherRequest);
    let (proof, spent) = confirmed.spend(&by(), &row.request, later).unwrap();
    assert_eq!((proof.kind, proof.acr, proof.factor_time), (ProofKind::Totp, 1, NOW));
    assert_eq!(spent.spend(&by(), &row.request, later).unwrap_err(), StepUpRefusal::Spent);
    // The same code confirms no second request.
    let replayed = row.confirm(&by(), &secret, Some(step), &code, NOW).unwrap_err();
    assert_eq!(replayed, StepUpRefusal::Code(CodeRefusal::Replayed));
}

#[test]
fn of_another_login_person_tenant_or_principal() {
    let secret = TotpSecret::draw(&mut Seeded(2));
    let code = secret.code_at(NOW).unwrap();
    let (_, row) = pending(Profile::Development).confirm(&by(), &secret, None, &code, NOW).unwrap();
    for other in [
        StepUpLogin { tenant: None, ..by() },
        StepUpLogin { principal: PrincipalId::from_bytes([9; 16]), ..by() },
        StepUpLogin { person: PersonId::from_bytes([9; 16]), ..by() },
        StepUpLogin { login: TokenId::from_bytes([9; 16]), ..by() },
    ] {
        assert_eq!(row.spend(&other, &row.request, NOW).unwrap_err(), StepUpRefusal::OtherLogin);
        assert_eq!(row.confirm(&other, &secret, None, &code, NOW).unwrap_err(), StepUpRefusal::OtherLogin);
    }
}

#[test]
fn ends_by_the_servers_clock_and_by_wrong_codes() {
    let secret = TotpSecret::draw(&mut Seeded(3));
    let (_, row) =
        pending(Profile::Development).confirm(&by(), &secret, None, &secret.code_at(NOW).unwrap(), NOW).unwrap();
    for when in [NOW.plus_millis(STEP_UP_LIFE_MS), UnixTime::from_millis(NOW.millis() - 1)] {
        assert_eq!(row.spend(&by(), &row.request, when).unwrap_err(), StepUpRefusal::Expired);
    }
    let mut row = pending(Profile::Development);
    for _ in 0..STEP_UP_TRIES {
        assert!(matches!(row.confirm(&by(), &secret, None, "x", NOW), Err(StepUpRefusal::Code(_))));
        row = row.after_wrong_code();
    }
    let code = secret.code_at(NOW).unwrap();
    assert_eq!(row.confirm(&by(), &secret, None, &code, NOW).unwrap_err(), StepUpRefusal::Spent);
}

#[test]
fn production_refuses_by_name() {
    let secret = TotpSecret::draw(&mut Seeded(4));
    let row = pending(Profile::Production);
    let code = secret.code_at(NOW).unwrap();
    let refusal = row.confirm(&by(), &secret, None, &code, NOW).unwrap_err();
    assert_eq!(refusal, StepUpRefusal::PasskeyRequired);
    assert!(refusal.to_string().contains("passkey_required"));
    // Not even a row that claims to be confirmed passes.
    let doctored = PendingStepUp { confirmed: Some(NOW), ..row };
    assert_eq!(doctored.spend(&by(), &doctored.request, NOW).unwrap_err(), StepUpRefusal::PasskeyRequired);
}
