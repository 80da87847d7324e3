use std::collections::BTreeSet;

use cedar_policy::EntityUid;
use vocabulary::{PrincipalId, Sensitivity};

use super::{facts, info, job, node, operator, resource, staff, tenant, user_of, volume};
use crate::facts::Facts;
use crate::*;

#[test]
fn schema_and_list_agree() {
    let sets = PolicySets::new().unwrap();
    let groups: BTreeSet<&str> =
        ["read", "write", "admin", "audit", "self", "platform", "stepUp", "secondPerson", "content", "personRelease"].into();
    let inside = |action: &EntityUid, group: &str| {
        let group: EntityUid = format!("Swarm::Action::\"{group}\"").parse().unwrap();
        sets.schema.action_entities().unwrap().is_ancestor_of(&group, action)
    };
    let mut seen = BTreeSet::new();
    for action in sets.schema.actions() {
        let name = action.id().unescaped();
        if groups.contains(name) {
            continue;
        }
        seen.insert(name.to_owned());
        let info = ActionInfo::named(name).unwrap_or_else(|| panic!("{name} has no type"));
        let names = |kinds: &[EntityKind]| kinds.iter().map(|kind| format!("Swarm::{}", kind.as_str())).collect::<BTreeSet<_>>();
        let principals: BTreeSet<String> = sets.schema.principals_for_action(action).unwrap().map(ToString::to_string).collect();
        let resources: BTreeSet<String> = sets.schema.resources_for_action(action).unwrap().map(ToString::to_string).collect();
        assert_eq!((names(info.principals), names(info.resources)), (principals, resources), "{name}");
        assert_eq!(info.step_up, inside(action, "stepUp") || name == "volumeCreate", "{name}");
        assert_eq!(info.second_person, inside(action, "secondPerson"), "{name}");
    }
    assert_eq!(seen.len(), ALL_ACTIONS.len(), "an action is not in the schema, or stands twice");
}

#[test]
fn every_rule_has_its_own_name() {
    let sets = PolicySets::new().unwrap();
    for tenant in [None, Some(tenant(1).tenant)] {
        let rules = sets.of(tenant).unwrap().rules();
        let ids: BTreeSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(ids.len(), rules.len());
        assert!(rules.iter().all(|rule| rule.text.contains("permit(") || rule.text.contains("forbid(")));
        // The platform's set holds no role; a tenant's no rule for operators and nodes.
        assert_eq!(ids.contains("operator"), tenant.is_none());
        assert_eq!(ids.contains("node-itself"), tenant.is_none());
        assert_eq!(ids.contains("role-admin"), tenant.is_some());
        assert_eq!(ids.contains("job-keys"), tenant.is_some());
        assert!(ids.contains("isolation-volume") && ids.contains("suspended-tenant"));
    }
}

#[test]
fn facts_that_do_not_fit_are_refused() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    // An operator asks for content; a job asks to look: no role changes that.
    for principal in [operator(), Principal::Job(job(own, 1)), Principal::Node(node(7))] {
        let refusal = decide::<action::VolumeView>(&sets, &facts(principal, "volumeView", volume(own, 1))).unwrap_err();
        assert_eq!((refusal.next, refusal.rules.len(), refusal.errors.len()), (NextStep::Role, 0, 0));
    }
    // A release without its context, a person's release without a purpose, an action on another kind of thing.
    let mut bare = facts(Principal::Job(job(own, 1)), "keyRelease", volume(own, 1));
    bare.release = None;
    let refusal = decide::<action::KeyRelease>(&sets, &bare).unwrap_err();
    assert!(!refusal.errors.is_empty() && refusal.next == NextStep::Guardrail);
    let mut bare = facts(user_of(own, &["admin"]), "volumeRead", volume(own, 1));
    bare.person_purpose = None;
    assert!(!decide::<action::VolumeRead>(&sets, &bare).unwrap_err().errors.is_empty());
    let wrong = facts(user_of(own, &["admin"]), "volumeView", Resource::Tenant(own));
    assert!(!decide::<action::VolumeView>(&sets, &wrong).unwrap_err().errors.is_empty());
    assert!(explain(&sets, &wrong, "nothing\u{1b}[31m").unwrap_err().to_string().ends_with("`nothing[31m`"));
}

#[test]
fn what_is_told_in_two_ways_is_refused() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let suspended = SetFacts { suspended: true, ..own };
    let two = facts(user_of(own, &["admin"]), "volumeView", volume(suspended, 1));
    assert!(!decide::<action::VolumeView>(&sets, &two).unwrap_err().errors.is_empty());
    let mut two = facts(Principal::Job(job(own, 1)), "keyRelease", volume(own, 1));
    two.release.as_mut().unwrap().node.trust = 2;
    assert!(!decide::<action::KeyRelease>(&sets, &two).unwrap_err().errors.is_empty());
    // The same id in another tenant is not oneself.
    let two = facts(user_of(own, &["admin"]), "tokenCreate", Resource::Principal(user_of(tenant(0xb2), &["admin"])));
    assert!(!decide::<action::TokenCreate>(&sets, &two).unwrap_err().errors.is_empty());
}

#[test]
fn a_permit_says_what_it_is_for() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let permit = decide::<action::VolumeView>(&sets, &facts(user_of(own, &["viewer"]), "volumeView", volume(own, 1))).unwrap();
    assert_eq!((permit.epoch(), permit.target()), (BUILT_IN_EPOCH, "Volume::\"03030303-0303-0303-0303-030303030303\""));
    let decision = permit.spend();
    assert_eq!(decision.principal, "User::\"01010101-0101-0101-0101-010101010101\"");
    assert_eq!(decision.rules, ["role-viewer"]);
    assert!(decision.waived.is_empty());
    let refusal = decide::<action::VolumeRotate>(&sets, &facts(user_of(own, &["viewer"]), "volumeRotate", volume(own, 1))).unwrap_err();
    assert_eq!((refusal.principal, refusal.target), (decision.principal, decision.target));
    assert_eq!((refusal.next, refusal.next.code().as_str()), (NextStep::Role, "forbidden"));
}

#[test]
fn operators_and_providers_staff() {
    let sets = PolicySets::new().unwrap();
    let ask = |principal: Principal, name: &str| -> Facts { facts(principal, name, resource(info(name).resources[0], tenant(0xa1), 1)) };
    assert!(decide::<action::NodeDrain>(&sets, &ask(staff(7), "nodeDrain")).is_ok());
    assert_eq!(decide::<action::NodeDrain>(&sets, &ask(staff(8), "nodeDrain")).unwrap_err().next, NextStep::Foreign);
    assert!(decide::<action::NodeList>(&sets, &ask(staff(8), "nodeList")).is_ok());
    assert_eq!(decide::<action::TenantCreate>(&sets, &ask(staff(7), "tenantCreate")).unwrap_err().rules, ["provider-staff"]);
    assert!(decide::<action::TenantCreate>(&sets, &ask(operator(), "tenantCreate")).is_ok());
}

#[test]
fn nobody_acts_as_somebody_else() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let other = Principal::User { id: PrincipalId::from_bytes([8; 16]), tenant: own, roles: Vec::new(), clearance: Sensitivity::Public };
    let admin = user_of(own, &["admin"]);
    for asked in [other.clone(), operator()] {
        let asked = facts(admin.clone(), "tokenCreate", Resource::Principal(asked));
        assert!(decide::<action::TokenCreate>(&sets, &asked).is_err());
    }
    // Not even by the way of service accounts' tokens.
    assert!(decide::<action::ServiceTokenCreate>(&sets, &facts(admin.clone(), "serviceTokenCreate", Resource::Principal(other.clone()))).is_err());
    assert!(decide::<action::OtherTokenRevoke>(&sets, &facts(admin.clone(), "otherTokenRevoke", Resource::Principal(other))).is_ok());
    assert!(decide::<action::TokenCreate>(&sets, &facts(admin.clone(), "tokenCreate", Resource::Principal(admin))).is_ok());
}

#[test]
fn roles_parse_strictly() {
    for good in ["admin", "engineer", "viewer", "auditor", "engineer@01010101-0101-0101-0101-010101010101"] {
        assert_eq!(good.parse::<RoleBinding>().unwrap().to_string(), good);
    }
    for bad in ["", "root", "Admin", "admin@", "admin@*", "auditor@01010101-0101-0101-0101-010101010101", "admin@01010101-0101-0101-0101-010101010101@x"] {
        assert!(bad.parse::<RoleBinding>().is_err(), "{bad}");
    }
}

#[test]
fn defaults_of_trust() {
    let levels = [Sensitivity::Public, Sensitivity::Internal, Sensitivity::Confidential, Sensitivity::Regulated];
    assert_eq!(levels.map(default_min_trust), [0, 0, 0, 1]);
}
