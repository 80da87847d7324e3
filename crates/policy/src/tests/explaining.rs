use super::{STRONG, explained, facts, info, job, operator, project, resource, service_of, tenant, user_of, volume};
use crate::*;

#[test]
fn says_which_role_would_permit() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let why = explained(&sets, &facts(user_of(own, &["viewer"]), "volumeRotate", volume(own, 1)), "volumeRotate");
    assert!(!why.allowed && why.rules.is_empty());
    let roles: Vec<String> = why.roles.iter().map(ToString::to_string).collect();
    let here = project(1);
    assert_eq!(roles, ["admin".to_owned(), "engineer".to_owned(), format!("admin@{here}"), format!("engineer@{here}")]);
    assert!(why.next[0].starts_with("no rule permits `volumeRotate`: one of the roles `admin`, `engineer`"), "{:?}", why.next);
    let why = explained(&sets, &facts(user_of(own, &["engineer"]), "auditView", Resource::Tenant(own)), "auditView");
    assert_eq!(why.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["admin", "auditor"]);
}

#[test]
fn says_which_guardrails_fired_with_their_text() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let mut asked = facts(user_of(own, &["viewer"]), "volumeDelete", volume(own, 1));
    asked.call.request_bound = false;
    let why = explained(&sets, &asked, "volumeDelete");
    assert_eq!(why.rules.len(), 1);
    assert!(why.rules[0].id == "step-up" && why.rules[0].text.contains("@id(\"step-up\")") && why.rules[0].text.contains("context.requestBound"));
    // Both are said: the role that is missing, and what would still have to be confirmed.
    assert_eq!(why.next.len(), 2, "{:?}", why.next);
    assert!(why.next[1].starts_with("confirm the request"));
}

#[test]
fn says_what_permitted() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let why = explained(&sets, &facts(user_of(own, &["engineer"]), "volumeView", volume(own, 1)), "volumeView");
    assert!(why.allowed && why.next.is_empty() && why.roles.is_empty() && why.epoch == BUILT_IN_EPOCH);
    assert_eq!(why.rules[0].id, "role-engineer");
    assert!(why.rules[0].text.contains("Swarm::Role::\"a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1/engineer\""), "{}", why.rules[0].text);
}

#[test]
fn tells_nothing_of_foreign_things() {
    let sets = PolicySets::new().unwrap();
    let (own, foreign) = (tenant(0xa1), tenant(0xb2));
    let mut asked = facts(user_of(own, &["admin"]), "volumeRead", super::volume_of(foreign, 1, vocabulary::Sensitivity::Regulated, 2));
    asked.person_purpose = Some("marketing".parse().unwrap());
    let why = explained(&sets, &asked, "volumeRead");
    assert_eq!(why.next, ["it belongs to another tenant, or does not exist: no role changes that"]);
    assert!(why.roles.is_empty());
}

#[test]
fn says_whom_an_action_is_for() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let why = explained(&sets, &facts(operator(), "volumeRead", volume(own, 1)), "volumeRead");
    assert_eq!(why.next, ["`volumeRead` is for User, ServiceAccount alone, whatever the role"]);
    let why = explained(&sets, &facts(service_of(own, &["admin"]), "volumeDelete", volume(own, 1)), "volumeDelete");
    assert_eq!(why.next, ["`volumeDelete` is for User alone, whatever the role"]);
}

/// What is explained is what is decided.
#[test]
fn agrees_with_decide() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    macro_rules! agrees {
        ($($action:ident),*) => {$(
            for principal in [user_of(own, &["admin"]), user_of(own, &["viewer"]), operator(), Principal::Job(job(own, 1))] {
                for call in [STRONG, CallFacts { acr: 1, production: false, approvals: 0, ..STRONG }, CallFacts { request_bound: false, ..STRONG }] {
                    let name = <action::$action as Action>::NAME;
                    let mut asked = facts(principal.clone(), name, resource(info(name).resources[0], own, 1));
                    asked.call = call;
                    let why = explained(&sets, &asked, name);
                    let ids: Vec<String> = why.rules.into_iter().map(|rule| rule.id).collect();
                    match decide::<action::$action>(&sets, &asked) {
                        Ok(permit) => assert_eq!((true, permit.spend().rules), (why.allowed, ids)),
                        Err(refusal) => assert_eq!((false, refusal.rules), (why.allowed, ids)),
                    }
                }
            }
        )*};
    }
    agrees!(KeyDestroy, VolumeDelete, VolumeView, VolumeRead, TenantSuspend, UserCreate, KeyRelease, JobLogs, TokenCreate, PolicyExplain);
}
