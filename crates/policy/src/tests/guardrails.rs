use std::collections::BTreeSet;

use vocabulary::{JobId, KeyId, PrincipalId, SYSTEM_OWNER, Sensitivity};

use super::{allowed, cleared, facts, job, node, operator, refused, resource, secret, service_of, staff, tenant, user_of, volume, volume_of};
use crate::*;

/// A release of a volume's key to a job, changed.
fn release(change: impl FnOnce(&mut JobFacts, &mut Resource, &mut ReleaseFacts)) -> Facts {
    let own = tenant(0xa1);
    let mut job = job(own, 1);
    let mut asked = facts(Principal::Job(job.clone()), "keyRelease", volume(own, 1));
    let mut release = asked.release.take().unwrap();
    change(&mut job, &mut asked.resource, &mut release);
    asked.principal = Principal::Job(job);
    asked.release = Some(release);
    asked
}
fn with_trust(volume: &mut Resource, trust: u8) {
    if let Resource::Volume { min_trust, .. } = volume {
        *min_trust = trust;
    }
}

#[test]
fn a_job_gets_its_key() {
    let sets = PolicySets::new().unwrap();
    let permit = decide::<action::KeyRelease>(&sets, &release(|_, _, _| {})).unwrap();
    assert_eq!(permit.spend().rules, ["job-keys"]);
}

#[test]
fn no_evidence_opens_no_trust() {
    let sets = PolicySets::new().unwrap();
    // Everything is there: attested, fresh, trust enough.
    let good = |job: &mut JobFacts, volume: &mut Resource, release: &mut ReleaseFacts| {
        with_trust(volume, 1);
        release.attested = true;
        release.evidence_age_s = Some(300);
        release.node.trust = 1;
        job.node = Some(release.node.clone());
    };
    assert!(allowed(&sets, &release(good), "keyRelease"));
    let bad: [fn(&mut Resource, &mut ReleaseFacts); 5] = [
        |_, release| release.attested = false,
        |_, release| release.evidence_age_s = Some(301),
        |_, release| release.evidence_age_s = None,
        |_, release| release.evidence_age_s = Some(u64::MAX),
        |volume, _| with_trust(volume, 2),
    ];
    for spoil in bad {
        let asked = release(|job, volume, release| {
            good(job, volume, release);
            spoil(volume, release);
        });
        refused(&sets, &asked, "keyRelease", "release-trust");
    }
    refused(&sets, &release(|_, volume, _| with_trust(volume, 1)), "keyRelease", "release-trust");
}

#[test]
fn a_simulated_enclave_is_for_development() {
    let sets = PolicySets::new().unwrap();
    let mut asked = release(|_, _, release| release.simulated = true);
    refused(&sets, &asked, "keyRelease", "release-simulated");
    asked.call.production = false;
    assert!(allowed(&sets, &asked, "keyRelease"));
}

#[test]
fn a_key_goes_where_the_job_is_placed() {
    let sets = PolicySets::new().unwrap();
    refused(&sets, &release(|_, _, release| release.node = node(8)), "keyRelease", "release-placement");
    refused(&sets, &release(|job, _, _| job.node = None), "keyRelease", "release-placement");
    refused(&sets, &release(|job, _, _| job.project = super::project(2)), "keyRelease", "release-project");
}

#[test]
fn jurisdictions_region_and_purpose() {
    let sets = PolicySets::new().unwrap();
    let places = |places: &[&str]| places.iter().map(|place| place.parse().unwrap()).collect::<BTreeSet<_>>();
    let of_volume = |list: &[&str]| {
        release(|_, volume, _| {
            if let Resource::Volume { jurisdictions, .. } = volume {
                *jurisdictions = places(list);
            }
        })
    };
    assert!(allowed(&sets, &of_volume(&["EU", "CH"]), "keyRelease"));
    refused(&sets, &of_volume(&["CH"]), "keyRelease", "release-jurisdiction");
    assert!(allowed(&sets, &release(|job, _, _| job.jurisdictions = places(&["EU"])), "keyRelease"));
    refused(&sets, &release(|job, _, _| job.jurisdictions = places(&["US"])), "keyRelease", "release-jurisdiction");
    assert!(allowed(&sets, &release(|job, _, _| job.region = Some("eu-central".parse().unwrap())), "keyRelease"));
    refused(&sets, &release(|job, _, _| job.region = Some("us-east".parse().unwrap())), "keyRelease", "release-region");
    refused(&sets, &release(|_, _, release| release.purpose = "marketing".parse().unwrap()), "keyRelease", "release-purpose");
    refused(&sets, &release(|job, _, _| job.purpose = "marketing".parse().unwrap()), "keyRelease", "release-purpose");
    // A person names the purpose too.
    let mut asked = facts(user_of(tenant(0xa1), &["admin"]), "volumeRead", volume(tenant(0xa1), 1));
    assert!(allowed(&sets, &asked, "volumeRead"));
    asked.person_purpose = Some("marketing".parse().unwrap());
    for name in ["volumeRead", "volumeVerify", "volumeWrite"] {
        refused(&sets, &asked, name, "release-person-purpose");
    }
}

#[test]
fn clearance() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let levels = [Sensitivity::Public, Sensitivity::Internal, Sensitivity::Confidential, Sensitivity::Regulated];
    for have in levels {
        for need in levels {
            let asked = facts(cleared(own, have), "volumeView", volume_of(own, 1, need, 2));
            assert_eq!(allowed(&sets, &asked, "volumeView"), have >= need, "{have} {need}");
            let submitted = Resource::Job(JobFacts { sensitivity: need, ..job(own, 1) });
            assert_eq!(allowed(&sets, &facts(cleared(own, have), "jobSubmit", submitted), "jobSubmit"), have >= need, "{have} {need}");
            // A job is cleared for what it was admitted for.
            let asked = release(|job, volume, _| {
                job.sensitivity = have;
                if let Resource::Volume { sensitivity, .. } = volume {
                    *sensitivity = need;
                }
            });
            assert_eq!(allowed(&sets, &asked, "keyRelease"), have >= need, "{have} {need}");
        }
    }
    refused(&sets, &facts(cleared(own, Sensitivity::Public), "volumeRead", volume(own, 1)), "volumeRead", "clearance-volume");
    refused(&sets, &facts(cleared(own, Sensitivity::Public), "jobLogs", Resource::Job(job(own, 1))), "jobLogs", "clearance-job");
}

#[test]
fn release_to_people() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let mut trusted = volume_of(own, 1, Sensitivity::Internal, 1);
    for name in ["volumeRead", "volumeVerify", "volumeWrite"] {
        refused(&sets, &facts(user_of(own, &["admin"]), name, trusted.clone()), name, "release-person-trust");
    }
    if let Resource::Volume { readers, .. } = &mut trusted {
        readers.insert(PrincipalId::from_bytes([1; 16]));
        // A program is no reader, even one that is named.
        readers.insert(PrincipalId::from_bytes([9; 16]));
    }
    assert!(allowed(&sets, &facts(user_of(own, &["admin"]), "volumeRead", trusted.clone()), "volumeRead"));
    refused(&sets, &facts(service_of(own, &["admin"]), "volumeRead", trusted.clone()), "volumeRead", "release-person-trust");
    // Being named is no role, and opens no other tenant.
    assert!(!allowed(&sets, &facts(user_of(own, &[]), "volumeRead", trusted.clone()), "volumeRead"));
    refused(&sets, &facts(user_of(tenant(0xb2), &["admin"]), "volumeRead", trusted), "volumeRead", "isolation-volume");
}

#[test]
fn a_suspended_tenant_rests() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let suspended = SetFacts { suspended: true, ..own };
    assert!(allowed(&sets, &facts(user_of(own, &["admin"]), "volumeView", volume(own, 1)), "volumeView"));
    refused(&sets, &facts(user_of(suspended, &["admin"]), "volumeView", volume(suspended, 1)), "volumeView", "suspended-tenant");
    refused(&sets, &facts(Principal::Job(job(suspended, 1)), "keyRelease", volume(suspended, 1)), "keyRelease", "suspended-tenant");
    let node = || Principal::Node(node(7));
    for name in ["attemptLease", "attemptObjects", "attemptCommit"] {
        assert!(allowed(&sets, &facts(node(), name, Resource::Job(job(own, 1))), name));
        refused(&sets, &facts(node(), name, Resource::Job(job(suspended, 1))), name, "suspended-attempt");
    }
    for name in ["attemptLogs", "attemptStatement"] {
        assert!(allowed(&sets, &facts(node(), name, Resource::Job(job(suspended, 1))), name));
    }
}

#[test]
fn a_node_acts_on_itself_only() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let eight = || Principal::Node(node(8));
    refused(&sets, &facts(eight(), "nodeReport", Resource::Node(node(7))), "nodeReport", "isolation-node");
    refused(&sets, &facts(eight(), "attemptLease", Resource::Job(job(own, 1))), "attemptLease", "isolation-attempt");
    let unplaced = Resource::Job(JobFacts { id: JobId::from_bytes([5; 16]), node: None, ..job(own, 1) });
    refused(&sets, &facts(eight(), "attemptLease", unplaced), "attemptLease", "isolation-attempt");
    assert!(allowed(&sets, &facts(eight(), "nodeReport", Resource::Node(node(8))), "nodeReport"));
}

#[test]
fn the_reserved_owner_is_nobody() {
    let sets = PolicySets::new().unwrap();
    let system = SetFacts { tenant: SYSTEM_OWNER, suspended: false };
    refused(&sets, &facts(user_of(system, &["admin"]), "projectList", Resource::Tenant(system)), "projectList", "system-is-nobody");
    refused(&sets, &facts(Principal::Job(job(system, 1)), "keyRelease", volume(system, 1)), "keyRelease", "system-is-nobody");
    let key = Resource::Key { id: KeyId::from_bytes([6; 16]), tenant: system };
    refused(&sets, &facts(user_of(tenant(0xa1), &["admin"]), "keyDestroy", key), "keyDestroy", "isolation-system");
    refused(&sets, &facts(operator(), "tenantSuspend", Resource::Tenant(system)), "tenantSuspend", "isolation-system-tenant");
    assert!(sets.install(SYSTEM_OWNER, &sets.check_own("").unwrap(), 1).is_err());
}

/// One question per guardrail that it refuses, whatever else does. None is missing, so none is idle.
#[test]
fn every_guardrail_refuses_something() {
    let sets = PolicySets::new().unwrap();
    let (own, foreign) = (tenant(0xa1), tenant(0xb2));
    let suspended = SetFacts { suspended: true, ..own };
    let system = SetFacts { tenant: SYSTEM_OWNER, suspended: false };
    let admin = || user_of(own, &["admin"]);
    let of = |kind, tenant| resource(kind, tenant, 1);
    let mut bare = facts(admin(), "keyDestroy", of(EntityKind::Key, own));
    bare.call = CallFacts { request_bound: false, approvals: 0, ..bare.call };
    let mut cheap = facts(admin(), "volumeCreate", volume_of(own, 1, Sensitivity::Regulated, 0));
    cheap.call.request_bound = false;
    let mut marketing = facts(admin(), "volumeRead", volume(own, 1));
    marketing.person_purpose = Some("marketing".parse().unwrap());
    let eight = || Principal::Node(node(8));
    let cases: Vec<(&str, &str, Facts)> = vec![
        ("isolation-volume", "volumeView", facts(admin(), "volumeView", of(EntityKind::Volume, foreign))),
        ("isolation-job", "jobView", facts(admin(), "jobView", of(EntityKind::Job, foreign))),
        ("isolation-image", "imageUse", facts(admin(), "imageUse", of(EntityKind::Image, foreign))),
        ("isolation-secret", "secretOpen", facts(admin(), "secretOpen", of(EntityKind::Secret, foreign))),
        ("isolation-key", "keyDestroy", facts(admin(), "keyDestroy", of(EntityKind::Key, foreign))),
        ("isolation-tenant", "jobList", facts(admin(), "jobList", of(EntityKind::Tenant, foreign))),
        ("isolation-user", "principalDelete", facts(admin(), "principalDelete", of(EntityKind::User, foreign))),
        ("isolation-service-account", "serviceTokenCreate", facts(admin(), "serviceTokenCreate", of(EntityKind::ServiceAccount, foreign))),
        ("isolation-operator", "tokenRevoke", facts(admin(), "tokenRevoke", of(EntityKind::Operator, foreign))),
        ("isolation-node", "nodePlanFollow", facts(eight(), "nodePlanFollow", of(EntityKind::Node, own))),
        ("isolation-attempt", "attemptCommit", facts(eight(), "attemptCommit", of(EntityKind::Job, own))),
        ("isolation-provider", "nodeRevoke", facts(staff(8), "nodeRevoke", of(EntityKind::Node, own))),
        ("provider-staff", "nodeInvite", facts(staff(8), "nodeInvite", Resource::Platform)),
        ("system-is-nobody", "jobList", facts(user_of(system, &["admin"]), "jobList", Resource::Tenant(system))),
        ("isolation-system", "keyDestroy", facts(admin(), "keyDestroy", of(EntityKind::Key, system))),
        ("isolation-system-tenant", "tenantResume", facts(operator(), "tenantResume", Resource::Tenant(system))),
        ("self-only", "tokenList", facts(admin(), "tokenList", of(EntityKind::User, own))),
        ("suspended-tenant", "jobList", facts(user_of(suspended, &["admin"]), "jobList", Resource::Tenant(suspended))),
        ("suspended-attempt", "attemptLease", facts(Principal::Node(node(7)), "attemptLease", of(EntityKind::Job, suspended))),
        ("clearance-volume", "volumeView", facts(cleared(own, Sensitivity::Public), "volumeView", volume(own, 1))),
        ("clearance-job", "jobView", facts(cleared(own, Sensitivity::Public), "jobView", of(EntityKind::Job, own))),
        ("step-up", "keyDestroy", bare.clone()),
        ("second-person", "keyDestroy", bare),
        ("step-up-trust", "volumeCreate", cheap),
        ("release-placement", "keyRelease", release(|job, _, _| job.node = None)),
        ("release-project", "keyRelease", release(|job, _, _| job.project = super::project(2))),
        ("release-trust", "keyRelease", release(|_, volume, _| with_trust(volume, 1))),
        ("release-simulated", "keyRelease", release(|_, _, release| release.simulated = true)),
        ("release-jurisdiction", "keyRelease", release(|job, _, _| job.jurisdictions = ["US".parse().unwrap()].into())),
        ("release-region", "keyRelease", release(|job, _, _| job.region = Some("us-east".parse().unwrap()))),
        ("release-purpose", "keyRelease", release(|_, _, release| release.purpose = "marketing".parse().unwrap())),
        ("release-person-trust", "volumeRead", facts(admin(), "volumeRead", volume_of(own, 1, Sensitivity::Internal, 1))),
        ("release-person-purpose", "volumeRead", marketing),
        ("secret-placement", "secretRelease", facts(Principal::Job(JobFacts { node: None, ..job(own, 1) }), "secretRelease", of(EntityKind::Secret, own))),
        ("secret-project", "secretRelease", facts(Principal::Job(job(own, 2)), "secretRelease", of(EntityKind::Secret, own))),
        ("secret-jobs", "secretUse", facts(admin(), "secretUse", secret(own, 1, false, true))),
        ("secret-jobs", "secretRelease", facts(Principal::Job(job(own, 1)), "secretRelease", secret(own, 1, false, true))),
        ("secret-pulls", "secretOpen", facts(admin(), "secretOpen", secret(own, 1, true, false))),
    ];
    for (rule, action, asked) in &cases {
        refused(&sets, asked, action, rule);
    }
    let named: BTreeSet<String> = cases.iter().map(|(rule, ..)| (*rule).to_owned()).collect();
    let guardrails: BTreeSet<String> =
        sets.of(Some(own.tenant)).unwrap().all.policies().filter(|policy| policy.effect() == cedar_policy::Effect::Forbid).map(|policy| policy.id().to_string()).collect();
    assert_eq!(named, guardrails);
}
