use super::{Draw, allowed, explained, facts, job, refused, tenant, user_of, volume, volume_of};
use crate::limits::{OWN_POLICIES_MAX, OWN_TEXT_MAX, RULE_BYTES_MAX, RULE_DEPTH_MAX, RULE_OPERATORS_MAX};
use crate::*;
use vocabulary::Sensitivity;
use vocabulary::job::SandboxGrant;
use vocabulary::runtime::Runtime;

const GOOD: &str = r#"
// Nobody opens what is confidential, but for auditors' eyes; "not" a rule: permit(principal, action, resource);
@id("no-confidential")
@description("people do not open confidential data")
forbid(principal, action in Swarm::Action::"personRelease", resource) when { resource.sensitivity >= 2 };
@id("purpose")
permit(principal in Swarm::Role::"x", action == Swarm::Action::"volumeView", resource) when { resource.purpose like "re*" };
"#;

#[test]
fn narrow_and_widen_their_own_tenant() {
    let sets = PolicySets::new().unwrap();
    let (own, other) = (tenant(1), tenant(2));
    let asked = |t| facts(user_of(t, &["admin"]), "volumeRead", volume_of(t, 1, Sensitivity::Confidential, 0));
    assert!(allowed(&sets, &asked(own), "volumeRead"));
    let own_rules = sets.check_own(GOOD).unwrap();
    assert_eq!(own_rules.count(), 2);
    // Checking changes nothing.
    assert!(allowed(&sets, &asked(own), "volumeRead"));
    assert_eq!(sets.install(own.tenant, &own_rules, 1).unwrap(), BUILT_IN_EPOCH + 1);
    refused(&sets, &asked(own), "volumeRead", "own/no-confidential");
    let why = explained(&sets, &asked(own), "volumeRead");
    assert_eq!(why.next, ["the tenant's own rule `no-confidential` refuses: its administrators can change it"]);
    assert!(why.rules[0].text.contains("people do not open confidential data") && why.epoch == BUILT_IN_EPOCH + 1);
    // Nobody else's.
    assert!(allowed(&sets, &asked(other), "volumeRead"));
    assert_eq!(sets.epoch(Some(other.tenant)).unwrap(), BUILT_IN_EPOCH);
    // Taken back under a newer epoch; an older set never comes back.
    let none = sets.check_own("").unwrap();
    for stale in [0, 1] {
        assert!(matches!(sets.install(own.tenant, &none, stale), Err(SetError::Stale { .. })));
    }
    assert_eq!(sets.install(own.tenant, &none, 2).unwrap(), BUILT_IN_EPOCH + 2);
    assert!(allowed(&sets, &asked(own), "volumeRead"));
}

#[test]
fn require_a_runtime_and_decide_on_wider_sandboxes() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(1);
    let asked = |role: &str, action: &str, change: fn(&mut JobFacts)| {
        let mut job = job(own, 1);
        change(&mut job);
        facts(user_of(own, &[role]), action, Resource::Job(job))
    };
    let plain = || asked("engineer", "jobSubmit", |_| ());
    let debug = |role: &str| asked(role, "jobWiden", |job| job.grants = [SandboxGrant::Debug].into());
    assert!(allowed(&sets, &plain(), "jobSubmit"));
    assert!(allowed(&sets, &debug("admin"), "jobWiden"), "the tenant's administrators decide");
    assert!(!allowed(&sets, &debug("engineer"), "jobWiden"));
    let rules = r#"
        @id("only-gvisor") forbid(principal, action == Swarm::Action::"jobSubmit", resource) unless { resource.runtime == "runsc" };
        @id("few-gpus") forbid(principal, action == Swarm::Action::"jobSubmit", resource) when { resource.gpus > 1 };
        @id("engineers-may-debug") permit(principal, action == Swarm::Action::"jobWiden", resource) when { resource.grants == ["debug"] };
        @id("nobody-rings") forbid(principal, action == Swarm::Action::"jobWiden", resource) when { resource.grants.contains("uring") };"#;
    sets.install(own.tenant, &sets.check_own(rules).unwrap(), 1).unwrap();
    refused(&sets, &plain(), "jobSubmit", "own/only-gvisor");
    assert!(allowed(&sets, &asked("engineer", "jobSubmit", |job| job.runtime = Runtime::Runsc), "jobSubmit"));
    let many = asked("engineer", "jobSubmit", |job| (job.runtime, job.gpus) = (Runtime::Runsc, 2));
    refused(&sets, &many, "jobSubmit", "own/few-gpus");
    assert!(allowed(&sets, &debug("engineer"), "jobWiden"));
    assert!(!allowed(&sets, &asked("engineer", "jobWiden", |job| job.grants = [SandboxGrant::Cma].into()), "jobWiden"));
    let rings = asked("admin", "jobWiden", |job| job.grants = [SandboxGrant::Debug, SandboxGrant::Uring].into());
    refused(&sets, &rings, "jobWiden", "own/nobody-rings");
}

#[test]
fn a_rule_that_errs_denies() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(1);
    let asked = facts(user_of(own, &["admin"]), "volumeView", volume(own, 1));
    // Cedar skips a forbid whose evaluation fails: without care this would be allowed.
    let overflow = r#"@id("overflow") forbid(principal, action == Swarm::Action::"volumeView", resource)
        when { resource.sensitivity + 9223372036854775807 > 0 };"#;
    sets.install(own.tenant, &sets.check_own(overflow).unwrap(), 1).unwrap();
    let refusal = decide::<action::VolumeView>(&sets, &asked).unwrap_err();
    assert!(refusal.rules.is_empty() && refusal.errors.len() == 1 && refusal.errors[0].contains("own/overflow"), "{refusal:?}");
    assert_eq!(refusal.next, NextStep::Guardrail);
    assert!(!allowed(&sets, &asked, "volumeView"));
    assert!(explained(&sets, &asked, "volumeView").next[0].starts_with("a rule could not be evaluated, which denies"));
    // A permit that errs denies as well, although a role permits.
    let overflow = overflow.replace("forbid", "permit");
    sets.install(own.tenant, &sets.check_own(&overflow).unwrap(), 2).unwrap();
    assert!(decide::<action::VolumeView>(&sets, &asked).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let sets = PolicySets::new().unwrap();
    let view = r#"action == Swarm::Action::"volumeView""#;
    type Fits = fn(&OwnPolicyError) -> bool;
    let cases: Vec<(String, Fits)> = vec![
        ("permit(principal, action, resource);".into(), |e| *e == OwnPolicyError::NoId),
        (r#"@id("A b") permit(principal, action, resource);"#.into(), |e| matches!(e, OwnPolicyError::Id(_))),
        (r#"@id("") permit(principal, action, resource);"#.into(), |e| matches!(e, OwnPolicyError::Id(_))),
        (format!(r#"@id("{}") permit(principal, action, resource);"#, "a".repeat(65)), |e| matches!(e, OwnPolicyError::Id(_))),
        (r#"@id("a") permit(principal, action, resource); @id("a") permit(principal, action, resource);"#.into(), |e| *e == OwnPolicyError::Twice("a".into())),
        (r#"@id("isolation-volume") permit(principal, action, resource);"#.into(), |e| matches!(e, OwnPolicyError::Reserved(_))),
        (r#"@id("role-admin") permit(principal, action, resource);"#.into(), |e| matches!(e, OwnPolicyError::Reserved(_))),
        (r#"@id("a") @trusted("yes") permit(principal, action, resource);"#.into(), |e| matches!(e, OwnPolicyError::Annotation(_))),
        (r#"@id("a") permit(principal == ?principal, action, resource);"#.into(), |e| *e == OwnPolicyError::Template),
        (format!(r#"@id("a") permit(principal, {view}, resource) when {{ resource.colour == "red" }};"#), |e| matches!(e, OwnPolicyError::Validate { .. })),
        (format!(r#"@id("a") permit(principal, {view}, resource) when {{ resource.purpose > 1 }};"#), |e| matches!(e, OwnPolicyError::Validate { .. })),
        // A warning is a refusal: this one can never match.
        (format!(r#"@id("a") permit(principal is Swarm::Operator, {view}, resource);"#), |e| matches!(e, OwnPolicyError::Validate { .. })),
        (r#"@id("a") permit(principal, action == Swarm::Action::"volumeSteal", resource);"#.into(), |e| matches!(e, OwnPolicyError::Validate { .. })),
        ("permit(".into(), |e| matches!(e, OwnPolicyError::Parse(_))),
        ("@id(\"a\u{1b}[31m\") permit(principal, action, resource);".into(), |e| matches!(e, OwnPolicyError::Character { .. })),
        ("@id(\"a\") @description(\"\u{202e}\") permit(principal, action, resource);".into(), |e| matches!(e, OwnPolicyError::Character { .. })),
        (" ".repeat(OWN_TEXT_MAX + 1), |e| *e == OwnPolicyError::TextTooLong),
        (format!(r#"@id("a") @description("{}") permit(principal, action, resource);"#, "x".repeat(RULE_BYTES_MAX)), |e| matches!(e, OwnPolicyError::RuleTooLong { number: 1 })),
        ((0..=OWN_POLICIES_MAX).map(|n| format!(r#"@id("a{n}") permit(principal, {view}, resource);"#)).collect(), |e| *e == OwnPolicyError::TooMany),
        (nested("(", "true", ")", RULE_DEPTH_MAX), |e| matches!(e, OwnPolicyError::TooDeep { number: 1 })),
        (nested("if true then ", "true", " else true", RULE_DEPTH_MAX), |e| matches!(e, OwnPolicyError::TooDeep { .. })),
        (nested("", &vec!["true"; RULE_OPERATORS_MAX].join("&&"), "", 1), |e| matches!(e, OwnPolicyError::TooManyOperators { .. })),
    ];
    for (text, fits) in cases {
        let error = sets.check_own(&text).unwrap_err();
        assert!(fits(&error), "{text}: {error:?}");
        assert!(error.to_string().chars().count() < 500 && !error.to_string().contains('\u{1b}'), "{error}");
    }
    // A hundred are taken.
    let most: String = (0..OWN_POLICIES_MAX).map(|n| format!(r#"@id("a{n}") permit(principal, {view}, resource);"#)).collect();
    let most = sets.check_own(&most).unwrap();
    assert_eq!(most.count(), OWN_POLICIES_MAX);
    assert!(sets.install(tenant(1).tenant, &most, 1).is_ok());
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!(
        r#"@id("a") forbid(principal, action == Swarm::Action::"volumeView", resource) when {{ {}{inner}{} }};"#,
        open.repeat(depth),
        close.repeat(depth)
    )
}

/// The worst that the bounds let through is parsed, validated, installed, evaluated and printed on an ordinary thread's stack.
#[test]
fn the_worst_that_fits_overflows_nothing() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(1);
    let condition = "context.requestBound";
    let worst = [
        nested("(", condition, ")", RULE_DEPTH_MAX - 2),
        nested("if context.requestBound then ", condition, " else context.requestBound", RULE_DEPTH_MAX - 2),
        nested("[", "1", "]", RULE_DEPTH_MAX - 2),
        nested("!", condition, "", 4),
        nested("", &vec![condition; 80].join("&&"), "", 1),
        nested("", &vec![condition; 80].join("||"), "", 1),
        nested("", &format!("{}>0", vec!["context.acr"; 100].join("+")), "", 1),
        nested("", &format!("{}>0", vec!["1"; 200].join("-")), "", 1),
        nested("", &format!("resource{} == 1", ".tenant".repeat(200)), "", 1),
    ];
    let mut taken = 0;
    for (revision, text) in (1..).zip(worst) {
        match sets.check_own(&text) {
            Ok(fits) => {
                taken += 1;
                sets.install(own.tenant, &fits, revision).unwrap();
                explained(&sets, &facts(user_of(own, &["admin"]), "volumeView", volume(own, 1)), "volumeView");
                assert!(sets.of(Some(own.tenant)).unwrap().rules().iter().any(|rule| rule.id == "own/a"));
            }
            Err(error) => assert!(matches!(error, OwnPolicyError::Validate { .. } | OwnPolicyError::Parse(_)), "{error:?}"),
        }
    }
    assert_eq!(taken, 8, "the worst is refused before it is tried");
}

/// Mutated and drawn texts: an answer for each, and never one that opens another tenant.
#[test]
fn hostile_texts() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(1);
    let foreign = facts(user_of(own, &["admin"]), "volumeView", volume(tenant(2), 1));
    let pieces = [
        "permit", "forbid", "(", ")", "{", "}", "[", "]", "principal", "action", "resource", "context", ",", ";", "==", "in", "is", "has", "like",
        "when", "unless", "if", "then", "else", "@id(\"x\")", "Swarm::Tenant::\"x\"", "Swarm::Volume", "\"", "\\", "//", "\n", "!", "-", "+", "&&", "||",
        ".", "tenant", "9223372036854775808", "?principal", "ip(\"::\")", "decimal(\"1.1\")", "\u{0}", "é", "\u{202e}", "__cedar", "::",
    ];
    let mut draw = Draw(11);
    let (mut taken, mut revision) = (0, 0);
    for round in 0..600 {
        let mut text = String::new();
        if round % 3 == 0 {
            for _ in 0..draw.below(40) {
                let piece: &&str = draw.of(&pieces);
                text.push_str(piece);
                text.push(' ');
            }
        } else {
            let mut chars: Vec<char> = GOOD.chars().collect();
            for _ in 0..=draw.below(3) {
                let at = draw.below(chars.len());
                match draw.below(4) {
                    0 => chars.truncate(at),
                    1 => drop(chars.remove(at)),
                    2 => chars[at] = *draw.of(&['(', '"', ';', '!', 'a', '\\', ' ']),
                    _ => drop(chars.splice(at..at, draw.of(&pieces).chars())),
                }
                if chars.is_empty() {
                    break;
                }
            }
            text.extend(chars);
        }
        if let Ok(fits) = sets.check_own(&text) {
            taken += 1;
            revision += 1;
            sets.install(own.tenant, &fits, revision).unwrap();
            refused(&sets, &foreign, "volumeView", "isolation-volume");
        }
    }
    assert!(taken > 5, "{taken}: the mutations are too wild to test what passes");
}
