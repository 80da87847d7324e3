//! Principals and resources that the tests speak of.

mod confirming;
mod explaining;
mod guardrails;
mod isolation;
mod matrix;
mod own;
mod rules;
mod scope;

use std::collections::BTreeSet;

use vocabulary::{
    ImageId, JobId, KeyId, NodeId, PrincipalId, ProjectId, ProviderId, Purpose, SecretId, Sensitivity, TenantId, VolumeId,
};

use crate::decide::judge;
use crate::{
    ActionInfo, CallFacts, EntityKind, Explanation, Facts, JobFacts, NodeFacts, PolicySets, Principal, ReleaseFacts, Resource, RoleBinding,
    SetFacts, explain,
};

const STRONG: CallFacts = CallFacts { acr: 2, mfa_age_s: Some(10), request_bound: true, approvals: 1, production: true, source: None };

fn tenant(n: u8) -> SetFacts {
    SetFacts { tenant: TenantId::from_bytes([n; 16]), suspended: false }
}
fn project(n: u8) -> ProjectId {
    ProjectId::from_bytes([n; 16])
}
fn research() -> Purpose {
    "research".parse().unwrap()
}
fn bindings(roles: &[&str]) -> Vec<RoleBinding> {
    roles.iter().map(|role| role.parse().unwrap()).collect()
}
fn user_of(t: SetFacts, roles: &[&str]) -> Principal {
    Principal::User { id: PrincipalId::from_bytes([1; 16]), tenant: t, roles: bindings(roles), clearance: Sensitivity::Regulated }
}
fn cleared(t: SetFacts, clearance: Sensitivity) -> Principal {
    Principal::User { id: PrincipalId::from_bytes([1; 16]), tenant: t, roles: bindings(&["admin"]), clearance }
}
fn service_of(t: SetFacts, roles: &[&str]) -> Principal {
    Principal::ServiceAccount { id: PrincipalId::from_bytes([9; 16]), tenant: t, roles: bindings(roles), clearance: Sensitivity::Regulated }
}
fn operator() -> Principal {
    Principal::Operator { id: PrincipalId::from_bytes([2; 16]), provider: None }
}
fn staff(provider: u8) -> Principal {
    Principal::Operator { id: PrincipalId::from_bytes([2; 16]), provider: Some(ProviderId::from_bytes([provider; 16])) }
}
fn node(n: u8) -> NodeFacts {
    NodeFacts {
        id: NodeId::from_bytes([n; 16]),
        provider: Some(ProviderId::from_bytes([n; 16])),
        region: "eu-central".parse().unwrap(),
        jurisdiction: "EU".parse().unwrap(),
        trust: 0,
    }
}
fn volume(t: SetFacts, p: u8) -> Resource {
    volume_of(t, p, Sensitivity::Internal, 0)
}
fn volume_of(t: SetFacts, p: u8, sensitivity: Sensitivity, min_trust: u8) -> Resource {
    Resource::Volume {
        id: VolumeId::from_bytes([3; 16]),
        tenant: t,
        project: project(p),
        sensitivity,
        purpose: research(),
        region: "eu-central".parse().unwrap(),
        jurisdictions: BTreeSet::new(),
        min_trust,
        readers: BTreeSet::new(),
    }
}
fn job(t: SetFacts, p: u8) -> JobFacts {
    JobFacts {
        id: JobId::from_bytes([4; 16]),
        tenant: t,
        project: project(p),
        sensitivity: Sensitivity::Internal,
        purpose: research(),
        region: None,
        jurisdictions: BTreeSet::new(),
        runtime: vocabulary::runtime::Runtime::Youki,
        gpus: 0,
        grants: BTreeSet::new(),
        node: Some(node(7)),
    }
}

/// A secret for these uses.
fn secret(t: SetFacts, p: u8, jobs: bool, pulls: bool) -> Resource {
    Resource::Secret { id: SecretId::from_bytes([9; 16]), tenant: t, project: project(p), jobs, pulls }
}

/// A resource of this kind, of this tenant and project.
fn resource(kind: EntityKind, t: SetFacts, p: u8) -> Resource {
    let other = |program: bool| {
        let (id, roles, clearance) = (PrincipalId::from_bytes([8; 16]), Vec::new(), Sensitivity::Public);
        Resource::Principal(match program {
            true => Principal::ServiceAccount { id, tenant: t, roles, clearance },
            false => Principal::User { id, tenant: t, roles, clearance },
        })
    };
    match kind {
        EntityKind::Platform => Resource::Platform,
        EntityKind::Tenant => Resource::Tenant(t),
        EntityKind::User => other(false),
        EntityKind::ServiceAccount => other(true),
        EntityKind::Operator => Resource::Principal(Principal::Operator { id: PrincipalId::from_bytes([0x22; 16]), provider: None }),
        EntityKind::Node => Resource::Node(node(7)),
        EntityKind::Job => Resource::Job(job(t, p)),
        EntityKind::Volume => volume(t, p),
        EntityKind::Image => Resource::Image { id: ImageId::from_bytes([5; 16]), tenant: t },
        EntityKind::Secret => secret(t, p, true, true),
        EntityKind::Key => Resource::Key { id: KeyId::from_bytes([6; 16]), tenant: t },
    }
}

/// Facts under which every guardrail about the request itself is content.
fn facts(principal: Principal, action: &str, resource: Resource) -> Facts {
    let release = matches!(action, "keyRelease" | "secretRelease").then(|| ReleaseFacts {
        node: node(7),
        attested: false,
        simulated: false,
        evidence_age_s: None,
        purpose: research(),
    });
    let person_purpose = matches!(action, "volumeRead" | "volumeVerify" | "volumeWrite").then(research);
    Facts { principal, resource, call: STRONG, release, person_purpose }
}

fn explained(sets: &PolicySets, facts: &Facts, action: &str) -> Explanation {
    explain(sets, facts, action).unwrap()
}
fn allowed(sets: &PolicySets, facts: &Facts, action: &str) -> bool {
    // Whom the schema does not let ask is refused, too.
    judge(sets, facts, info(action)).is_ok_and(|verdict| verdict.refused.is_none())
}
/// Asserts that this very rule refuses.
#[track_caller]
fn refused(sets: &PolicySets, facts: &Facts, action: &str, rule: &str) {
    let explained = explained(sets, facts, action);
    let rules: Vec<&str> = explained.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert!(!explained.allowed && rules.contains(&rule), "{action}: {rule} not in {rules:?}");
}

fn info(name: &str) -> &'static ActionInfo {
    ActionInfo::named(name).unwrap()
}

/// Small, seeded and ours: the same numbers on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
    fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
