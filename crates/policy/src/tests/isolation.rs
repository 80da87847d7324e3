use std::collections::BTreeSet;

use vocabulary::{PrincipalId, Sensitivity};

use super::{Draw, bindings, facts, job, node, project, resource, tenant};
use crate::*;

/// Everything that a tenant could wish for, as its own policy.
const GREEDY: &str = r#"
    @id("all") permit(principal, action, resource);
    @id("foreign") permit(principal, action, resource is Swarm::Volume) when { resource.tenant != principal.tenant };
"#;

const LEVELS: [Sensitivity; 4] = [Sensitivity::Public, Sensitivity::Internal, Sensitivity::Confidential, Sensitivity::Regulated];

fn drawn_principal(draw: &mut Draw, own: SetFacts) -> Principal {
    let words = ["admin", "engineer", "viewer"];
    let roles: Vec<String> = (0..draw.below(4))
        .map(|_| match draw.below(3) {
            0 => (*draw.of(&words)).to_owned(),
            // Roles in the foreign tenant's project: ids are no secrets.
            _ => format!("{}@{}", draw.of(&words), project(u8::try_from(draw.below(3)).unwrap())),
        })
        .collect();
    let roles = bindings(&roles.iter().map(String::as_str).collect::<Vec<_>>());
    // The same ids as the foreign tenant's people and things.
    let id = PrincipalId::from_bytes([*draw.of(&[1, 3, 8]); 16]);
    let clearance = *draw.of(&LEVELS);
    match draw.below(3) {
        0 => Principal::User { id, tenant: own, roles, clearance },
        1 => Principal::ServiceAccount { id, tenant: own, roles, clearance },
        _ => Principal::Job(JobFacts { sensitivity: clearance, ..job(own, u8::try_from(draw.below(3)).unwrap()) }),
    }
}

fn drawn_resource(draw: &mut Draw, kind: EntityKind, foreign: SetFacts) -> Resource {
    let mut thing = resource(kind, foreign, u8::try_from(draw.below(3)).unwrap());
    if let Resource::Volume { sensitivity, min_trust, readers, .. } = &mut thing {
        *sensitivity = *draw.of(&LEVELS);
        *min_trust = u8::try_from(draw.below(3)).unwrap();
        // Even a foreign volume that names somebody of ours.
        *readers = (0..draw.below(3)).map(|_| PrincipalId::from_bytes([*draw.of(&[1, 3, 8]); 16])).collect::<BTreeSet<_>>();
    }
    thing
}

#[test]
fn nothing_crosses_tenants() {
    let sets = PolicySets::new().unwrap();
    let greedy = sets.check_own(GREEDY).unwrap();
    let tenants: Vec<SetFacts> = (1..=6).map(tenant).collect();
    for greedy_one in &tenants[..3] {
        sets.install(greedy_one.tenant, &greedy, 1).unwrap();
    }
    let mut draw = Draw(7);
    let mut asked = 0;
    for _ in 0..3000 {
        let own = *draw.of(&tenants);
        let foreign = *draw.of(&tenants);
        if own == foreign {
            continue;
        }
        let info = draw.of(ALL_ACTIONS);
        let kind = *draw.of(info.resources);
        // What belongs to no tenant cannot cross.
        if matches!(kind, EntityKind::Platform | EntityKind::Node | EntityKind::Operator) {
            continue;
        }
        let principal = drawn_principal(&mut draw, own);
        let thing = drawn_resource(&mut draw, kind, foreign);
        let mut question = facts(principal, info.name, thing);
        question.call.acr = u8::try_from(draw.below(3)).unwrap();
        question.call.production = draw.below(2) == 0;
        // One id in two tenants: refused before any rule is asked.
        let Ok(explained) = explain(&sets, &question, info.name) else { continue };
        asked += 1;
        assert!(!explained.allowed, "{} {question:?}", info.name);
        assert!(explained.roles.is_empty(), "a role is offered: {} {question:?}", info.name);
    }
    assert!(asked > 1000, "{asked}");
}

#[test]
fn a_greedy_tenant_gains_nothing_outside_and_no_guardrail_falls() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(1);
    sets.install(own.tenant, &sets.check_own(GREEDY).unwrap(), 1).unwrap();
    let nobody = super::user_of(own, &[]);
    // Inside, its own policy counts.
    assert!(super::allowed(&sets, &facts(nobody.clone(), "volumeView", super::volume(own, 1)), "volumeView"));
    super::refused(&sets, &facts(nobody.clone(), "volumeView", super::volume(tenant(2), 1)), "volumeView", "isolation-volume");
    let somebody = resource(EntityKind::User, own, 1);
    super::refused(&sets, &facts(nobody.clone(), "tokenCreate", somebody), "tokenCreate", "self-only");
    let mut bare = facts(nobody, "volumeDelete", super::volume(own, 1));
    bare.call.request_bound = false;
    super::refused(&sets, &bare, "volumeDelete", "step-up");
    // Operators and nodes are judged under the platform's set, which no tenant writes.
    assert_eq!(sets.epoch(None).unwrap(), BUILT_IN_EPOCH);
    let other = facts(Principal::Node(node(8)), "attemptLease", Resource::Job(job(own, 1)));
    super::refused(&sets, &other, "attemptLease", "isolation-attempt");
}
