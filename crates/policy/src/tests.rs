use std::collections::BTreeSet;

use expect_test::expect_file;
use vocabulary::*;

use crate::facts::*;
use crate::*;

fn tenant(n: u8) -> SetFacts {
    SetFacts { tenant: TenantId::from_bytes([n; 16]), suspended: false }
}
fn project(n: u8) -> ProjectId {
    ProjectId::from_bytes([n; 16])
}
fn user_of(t: SetFacts, roles: &[&str]) -> Principal {
    Principal::User {
        id: PrincipalId::from_bytes([1; 16]),
        tenant: t,
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        clearance: Sensitivity::Regulated,
    }
}
fn operator() -> Principal {
    Principal::Operator { id: PrincipalId::from_bytes([2; 16]), provider: None }
}
fn node(n: u8) -> NodeFacts {
    NodeFacts { id: NodeId::from_bytes([n; 16]), provider: None, region: "eu-central".parse().unwrap(), jurisdiction: "EU".parse().unwrap(), trust: 0 }
}
fn volume(t: SetFacts, p: u8) -> Resource {
    Resource::Volume {
        id: VolumeId::from_bytes([3; 16]),
        tenant: t,
        project: project(p),
        sensitivity: Sensitivity::Internal,
        purpose: "research".parse().unwrap(),
        jurisdictions: BTreeSet::new(),
        min_trust: 0,
    }
}
fn job(t: SetFacts, p: u8) -> JobFacts {
    JobFacts { id: JobId::from_bytes([4; 16]), tenant: t, project: project(p), sensitivity: Sensitivity::Internal, node: Some(node(7)) }
}
const STRONG: CallFacts = CallFacts { acr: 2, mfa_age_s: Some(10), request_bound: true, approvals: 1, production: true };

/// The resource that an action applies to, of this tenant and project.
fn resource_for(action: &str, t: SetFacts, p: u8) -> Resource {
    match action {
        "volumeCreate" | "volumeRotate" | "volumeView" | "leaseEnd" | "volumeRead" | "volumeVerify" | "volumeWrite" | "volumeDelete" | "keyRelease" => volume(t, p),
        "jobSubmit" | "jobStop" | "jobView" | "jobLogs" | "jobReceipt" => Resource::Job(job(t, p)),
        name if name.starts_with("attempt") => Resource::Job(job(t, p)),
        "imageUse" => Resource::Image { id: ImageId::from_bytes([5; 16]), tenant: t },
        "keyDestroy" => Resource::Key { id: KeyId::from_bytes([6; 16]), tenant: t },
        "nodePlanFollow" | "nodeReport" | "nodeCertificateRenew" | "nodeImageFetch" | "nodeView" | "nodeDrain" | "nodeResume" | "nodeRevoke" => Resource::Node(node(7)),
        "tenantCreate" | "tenantList" | "nodeInvite" | "nodeList" | "platformAuditView" | "statusView" | "watchFollow" => Resource::Platform,
        "principalUpdate" | "principalDelete" | "serviceTokenCreate" | "otherTokenRevoke" => Resource::Principal(Principal::ServiceAccount {
            id: PrincipalId::from_bytes([8; 16]),
            tenant: t,
            roles: vec![],
            clearance: Sensitivity::Public,
        }),
        _ => Resource::Tenant(t),
    }
}

fn facts(principal: Principal, action: &str, resource: Resource) -> Facts {
    let release = (action == "keyRelease").then(|| ReleaseFacts { node: node(7), attested: false, evidence_age_s: None, purpose: "research".parse().unwrap() });
    let person_purpose = matches!(action, "volumeRead" | "volumeVerify" | "volumeWrite").then(|| "research".parse().unwrap());
    let resource = if matches!(action, "whoamiView" | "logout" | "tokenCreate" | "tokenList" | "tokenRevoke" | "stepUpConfirm")
        && !matches!(principal, Principal::Node(_) | Principal::Job(_))
    {
        Resource::Principal(principal.clone())
    } else {
        resource
    };
    Facts { principal, resource, call: STRONG, release, person_purpose }
}

fn allowed(principal: &Principal, action: &str, resource: Resource, sets: &PolicySets) -> bool {
    // A request that the schema does not know is refused, not an error.
    explain(sets, &facts(principal.clone(), action, resource), action).is_ok_and(|explanation| explanation.allowed)
}

#[test]
fn golden_matrix() {
    let sets = PolicySets::new().unwrap();
    let (own, foreign) = (tenant(0xa1), tenant(0xb2));
    let here = project(1).to_string();
    let columns: Vec<(String, Principal)> = vec![
        ("admin".into(), user_of(own, &["admin"])),
        ("engineer".into(), user_of(own, &["engineer"])),
        ("viewer".into(), user_of(own, &["viewer"])),
        ("auditor".into(), user_of(own, &["auditor"])),
        ("nobody".into(), user_of(own, &[])),
        ("p-admin".into(), user_of(own, &[&format!("admin@{here}")])),
        ("p-engineer".into(), user_of(own, &[&format!("engineer@{here}")])),
        ("p-viewer".into(), user_of(own, &[&format!("viewer@{here}")])),
        ("operator".into(), operator()),
        ("node".into(), Principal::Node(node(7))),
        ("other-node".into(), Principal::Node(node(8))),
        ("job".into(), Principal::Job(job(own, 1))),
    ];
    let mut text = format!("{:22}", "own tenant, project 1");
    for (name, _) in &columns {
        text.push_str(&format!(" {name:>10}"));
    }
    text.push('\n');
    for info in ALL_ACTIONS {
        text.push_str(&format!("{:22}", info.name));
        for (name, principal) in &columns {
            let here = allowed(principal, info.name, resource_for(info.name, own, 1), &sets);
            let other_project = allowed(principal, info.name, resource_for(info.name, own, 2), &sets);
            let other_tenant = allowed(principal, info.name, resource_for(info.name, foreign, 1), &sets);
            let tenant_bound = matches!(resource_for(info.name, own, 1), Resource::Tenant(_) | Resource::Volume { .. } | Resource::Job(_) | Resource::Image { .. } | Resource::Key { .. } | Resource::Principal(_));
            let personal = matches!(principal, Principal::User { .. } | Principal::Job(_))
                && !matches!(info.name, "whoamiView" | "logout" | "tokenCreate" | "tokenList" | "tokenRevoke" | "stepUpConfirm");
            assert!(!(personal && tenant_bound && other_tenant), "{name} may {} in a foreign tenant", info.name);
            let mark = match (here, other_project) {
                (true, true) => "yes",
                (true, false) => "project",
                (false, true) => "ELSEWHERE",
                (false, false) => ".",
            };
            text.push_str(&format!(" {mark:>10}"));
        }
        text.push('\n');
    }
    expect_file!["../testdata/matrix.txt"].assert_eq(&text);
}

#[test]
fn every_action_stands_in_the_schema_with_its_flags() {
    let sets = PolicySets::new().unwrap();
    let schema: Vec<String> = sets.schema.actions().map(|uid| uid.id().unescaped().to_owned()).collect();
    for info in ALL_ACTIONS {
        assert!(schema.iter().any(|name| name == info.name), "{} is not in the schema", info.name);
    }
    let groups = ["read", "write", "admin", "audit", "self", "platform", "stepUp", "secondPerson", "content"];
    for name in &schema {
        assert!(groups.contains(&name.as_str()) || ALL_ACTIONS.iter().any(|info| info.name == name), "{name} has no type");
    }
}

#[test]
fn step_up_and_second_person() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let mut asked = facts(user_of(own, &["admin"]), "volumeDelete", volume(own, 1));
    for (call, next) in [
        (CallFacts { acr: 1, production: false, ..STRONG }, None),
        (CallFacts { acr: 1, ..STRONG }, Some(NextStep::Passkey)),
        (CallFacts { acr: 1, production: false, request_bound: false, ..STRONG }, Some(NextStep::StepUp)),
        (CallFacts { acr: 1, production: false, mfa_age_s: Some(301), ..STRONG }, Some(NextStep::StepUp)),
        (CallFacts { acr: 1, production: false, mfa_age_s: None, ..STRONG }, Some(NextStep::StepUp)),
        (CallFacts { acr: 0, production: false, ..STRONG }, Some(NextStep::StepUp)),
    ] {
        asked.call = call;
        assert_eq!(decide::<action::VolumeDelete>(&sets, &asked).err().map(|refusal| refusal.next), next, "{call:?}");
    }
    let mut asked = facts(user_of(own, &["admin"]), "keyDestroy", Resource::Key { id: KeyId::from_bytes([6; 16]), tenant: own });
    asked.call = CallFacts { approvals: 0, ..STRONG };
    assert_eq!(decide::<action::KeyDestroy>(&sets, &asked).unwrap_err().next, NextStep::SecondPerson);
    asked.call = CallFacts { approvals: 0, production: false, ..STRONG };
    assert_eq!(decide::<action::KeyDestroy>(&sets, &asked).unwrap().spend().waived.len(), 1);
}

#[test]
fn guardrails_each_refuse() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let refused = |facts: &Facts, name: &str, rule: &str| {
        let explained = explain(&sets, facts, name).unwrap();
        assert!(!explained.allowed && explained.rules.iter().any(|found| found.id == rule), "{name}: {rule} not in {:?}", explained.rules);
    };
    let release = |change: &dyn Fn(&mut Facts)| {
        let mut asked = facts(Principal::Job(job(own, 1)), "keyRelease", volume(own, 1));
        assert!(decide::<action::KeyRelease>(&sets, &asked).is_ok());
        change(&mut asked);
        asked
    };
    refused(&release(&|f| f.resource = volume(tenant(0xb2), 1)), "keyRelease", "isolation-volume");
    refused(&release(&|f| f.release.as_mut().unwrap().purpose = "marketing".parse().unwrap()), "keyRelease", "release-purpose");
    refused(
        &release(&|f| if let Resource::Volume { jurisdictions, .. } = &mut f.resource { jurisdictions.insert("CH".parse().unwrap()); }),
        "keyRelease",
        "release-jurisdiction",
    );
    refused(&release(&|f| if let Resource::Volume { min_trust, .. } = &mut f.resource { *min_trust = 1; }), "keyRelease", "release-needs-trust");
    refused(&release(&|f| if let Resource::Volume { sensitivity, .. } = &mut f.resource { *sensitivity = Sensitivity::Regulated; }), "keyRelease", "clearance-volume");
    // Trust alone, without fresh evidence, opens nothing.
    refused(
        &release(&|f| {
            if let Resource::Volume { min_trust, .. } = &mut f.resource { *min_trust = 1; }
            let release = f.release.as_mut().unwrap();
            release.node.trust = 2;
            release.attested = true;
            release.evidence_age_s = Some(301);
        }),
        "keyRelease",
        "release-needs-trust",
    );
    let low = Principal::User { id: PrincipalId::from_bytes([1; 16]), tenant: own, roles: vec!["admin".parse().unwrap()], clearance: Sensitivity::Public };
    refused(&facts(low, "volumeRead", volume(own, 1)), "volumeRead", "clearance-volume");
    let suspended = SetFacts { suspended: true, ..own };
    refused(&facts(user_of(suspended, &["admin"]), "volumeView", volume(suspended, 1)), "volumeView", "suspended-tenant");
    let system = SetFacts { tenant: SYSTEM_OWNER, suspended: false };
    refused(&facts(user_of(system, &["admin"]), "projectList", Resource::Tenant(system)), "projectList", "system-is-nobody");
    let mut marketing = facts(user_of(own, &["admin"]), "volumeRead", volume(own, 1));
    marketing.person_purpose = Some("marketing".parse().unwrap());
    refused(&marketing, "volumeRead", "release-person-purpose");
    let trusted = Resource::Volume { id: VolumeId::from_bytes([3; 16]), tenant: own, project: project(1), sensitivity: Sensitivity::Internal, purpose: "research".parse().unwrap(), jurisdictions: BTreeSet::new(), min_trust: 1 };
    refused(&facts(user_of(own, &["admin"]), "volumeRead", trusted), "volumeRead", "release-person-trust");
}

#[test]
fn facts_that_do_not_fit_are_refused() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    // An operator asks for content; a job asks to list; a release without its context.
    for (principal, name) in [(operator(), "volumeRead"), (Principal::Job(job(own, 1)), "volumeView")] {
        assert!(explain(&sets, &facts(principal, name, volume(own, 1)), name).is_err());
    }
    let mut bare = facts(Principal::Job(job(own, 1)), "keyRelease", volume(own, 1));
    bare.release = None;
    assert!(!decide::<action::KeyRelease>(&sets, &bare).unwrap_err().errors.is_empty());
    assert!(explain(&sets, &bare, "nothing").is_err());
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

/// Whatever two tenants' principals and things look like, nothing crosses.
#[test]
fn nothing_crosses_tenants() {
    let sets = PolicySets::new().unwrap();
    let mut state = 7_u64;
    let mut draw = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % bound
    };
    for _ in 0..300 {
        let own = tenant(u8::try_from(1 + draw(50)).unwrap());
        let foreign = tenant(u8::try_from(100 + draw(50)).unwrap());
        let roles: Vec<String> = (0..draw(4)).map(|_| format!("{}{}", ["admin", "engineer", "viewer"][usize::try_from(draw(3)).unwrap()], if draw(2) == 0 { format!("@{}", project(1)) } else { String::new() })).collect();
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let principal = user_of(own, &roles);
        let info = ALL_ACTIONS[usize::try_from(draw(u64::try_from(ALL_ACTIONS.len()).unwrap())).unwrap()];
        let resource = resource_for(info.name, foreign, 1);
        if matches!(resource, Resource::Platform | Resource::Node(_)) || info.name.ends_with("onfirm") || matches!(info.name, "whoamiView" | "logout" | "tokenCreate" | "tokenList" | "tokenRevoke") {
            continue;
        }
        assert!(!allowed(&principal, info.name, resource, &sets), "{} by {roles:?}", info.name);
    }
}
