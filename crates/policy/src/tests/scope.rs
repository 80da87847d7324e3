//! To leave out the rules that cannot speak about a request changes nothing of what Cedar says.

use std::collections::BTreeSet;

use cedar_policy::{Authorizer, Entities, Entity, PolicySet, Request, Response};

use super::matrix::columns;
use super::{Draw, facts, resource, tenant};
use crate::{ALL_ACTIONS, PolicySets};

/// Every form of scope; some conditions overflow for every volume, so errors must stay what they are, too.
const OWN: &str = r#"
@id("any") forbid(principal, action, resource) when { principal has clearance && principal.clearance + 9223372036854775807 > 0 && resource has minTrust };
@id("kinds") forbid(principal is Swarm::User, action, resource is Swarm::Volume) when { resource.minTrust + 9223372036854775807 < 0 };
@id("group") forbid(principal, action in Swarm::Action::"stepUp", resource is Swarm::Key) when { principal has adminIn && principal.adminIn.isEmpty() };
@id("groups") permit(principal, action in [Swarm::Action::"read", Swarm::Action::"write"], resource is Swarm::Image);
@id("one") permit(principal, action == Swarm::Action::"keyRelease", resource);
@id("role") permit(principal in Swarm::Role::"01010101-0101-0101-0101-010101010101/viewer", action in Swarm::Action::"read", resource);
"#;

/// Decision, reasons and errors.
fn said(response: &Response) -> (bool, BTreeSet<String>, BTreeSet<String>) {
    (
        response.decision() == cedar_policy::Decision::Allow,
        response.diagnostics().reason().map(ToString::to_string).collect(),
        response.diagnostics().errors().map(ToString::to_string).collect(),
    )
}

#[test]
fn leaves_every_answer_as_it_was() {
    let sets = PolicySets::new().unwrap();
    let (own, plain) = (tenant(1), tenant(2));
    sets.install(own.tenant, &sets.check_own(OWN).unwrap(), 1).unwrap();
    let (mut asked, mut allowed, mut failed, mut left_out) = (0, 0, 0, 0);
    let mut draw = Draw(7);
    for (mine, theirs) in [(own, own), (own, plain), (plain, plain), (plain, own)] {
        for (_, principal) in columns(mine) {
            for info in ALL_ACTIONS.iter().filter(|info| info.principals.contains(&principal.kind())) {
                for kind in info.resources {
                    let mut facts = facts(principal.clone(), info.name, resource(*kind, theirs, 1));
                    facts.call.acr = u8::try_from(draw.below(3)).unwrap();
                    facts.call.request_bound = draw.below(2) == 0;
                    let set = sets.of(principal.tenant()).unwrap();
                    let action = sets.action(info.name).unwrap();
                    // Two ways of telling of one principal are refused before any rule is asked.
                    let Ok(built) = facts.build(&sets, action, u32::from(draw.below(2) == 0)) else { continue };
                    // What facts become fits the schema, whatever they are.
                    let own: Vec<Entity> = built.entities.iter().filter(|entity| entity.uid().type_name().basename() != "Action").cloned().collect();
                    assert!(Entities::from_entities(own, Some(&sets.schema)).is_ok(), "{}", info.name);
                    let request = Request::new(built.principal, action.uid.clone(), built.resource, built.context, Some(&sets.schema));
                    let Ok(request) = request else { continue };
                    let ask = |rules: &PolicySet| Authorizer::new().is_authorized(&request, rules, &built.entities);
                    let part = set.scoped(&sets, info.name, principal.kind(), *kind).unwrap();
                    let (whole, narrowed) = (said(&ask(&set.all)), said(&ask(&part.all)));
                    assert_eq!(whole, narrowed, "{} by {} on {}", info.name, facts.principal.label(), facts.resource.label());
                    asked += 1;
                    allowed += usize::from(whole.0);
                    failed += usize::from(!whole.2.is_empty());
                    left_out += set.all.policies().count() - part.all.policies().count();
                }
            }
        }
    }
    // All of it was seen: permits, refusals, errors, and rules that were left out.
    assert!(allowed > 100 && asked > 2 * allowed && failed > 50 && left_out > 10 * asked, "{asked} {allowed} {failed} {left_out}");
}

#[test]
fn a_slice_has_the_action_that_is_asked_about_and_its_groups() {
    let sets = PolicySets::new().unwrap();
    let asked = facts(super::user_of(tenant(1), &["admin"]), "volumeDelete", super::volume(tenant(1), 1));
    let built = asked.build(&sets, sets.action("volumeDelete").unwrap(), 0).unwrap();
    let mut actions: Vec<String> = built.entities.iter().map(|entity| entity.uid().to_string()).filter(|uid| uid.contains("::Action::")).collect();
    actions.sort();
    assert_eq!(actions, ["content", "stepUp", "volumeDelete", "write"].map(|name| format!("Swarm::Action::\"{name}\"")));
}
