//! What a job demanded of its place stands in the receipt and is checked against enrolment and operators' acts.

use audit::Event;
use vocabulary::job::{PlaceDemands, Placement};
use vocabulary::{Profile, SYSTEM_OWNER, TenantId};

use super::world::{DAY, Facts, NODE, NOW, failed, log_key, world};
use crate::report::{Report, Verdict};

const MET: &str = "the place is what the job demanded";
const APART: &str = "an operator had set the node apart for the tenant";

/// Verifies a receipt whose job demanded this, after something was done to its entries.
fn verified(demands: PlaceDemands, change: impl FnOnce(&mut Facts)) -> Report {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    let Event::JobPlaced { demands: asked, .. } = facts.event("job_placed") else { panic!("another event") };
    *asked = demands;
    change(&mut facts);
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    crate::verify(&facts.receipt(), &file, Some(&world.pin()), Some(NOW.plus_millis(DAY)))
}

/// Logs that the node was set apart, at this place among the entries.
fn set_apart(facts: &mut Facts, tenant: TenantId, place: usize) {
    let mut entry = facts.find("node_enrolled").0.clone();
    (entry.tenant, entry.event) = (SYSTEM_OWNER, Event::NodeDedicated { node: NODE, dedicated: Some(tenant) });
    facts.entries.insert(place, (entry, true));
}

fn placed(facts: &Facts) -> usize {
    facts.entries.iter().position(|(entry, _)| entry.event.kind() == "job_placed").unwrap()
}

#[test]
fn region_jurisdiction_and_labels_are_checked() {
    let report = verified(PlaceDemands::default(), |_| ());
    assert!(report.ok && !report.lines.iter().any(|line| line.claim == MET), "nothing was demanded");
    let label = || std::collections::BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
    let all = PlaceDemands {
        region: "eu-central".parse().ok(),
        jurisdictions: ["EU".parse().unwrap(), "CH".parse().unwrap()].into(),
        node_labels: label(),
        ..PlaceDemands::default()
    };
    let enrolled = |facts: &mut Facts| {
        let Event::NodeEnrolled { place, .. } = facts.event("node_enrolled") else { panic!("another event") };
        place.labels = label();
    };
    let report = verified(all.clone(), enrolled);
    assert!(report.ok, "{:?}", failed(&report));
    let line = report.lines.iter().find(|line| line.claim == MET).unwrap();
    assert_eq!((line.verdict, line.detail.as_str()), (Verdict::Proved, "region eu-central, jurisdiction CH or EU, label disk=fast"));
    for wrong in [
        PlaceDemands { region: "eu-west".parse().ok(), ..all.clone() },
        PlaceDemands { jurisdictions: ["CH".parse().unwrap()].into(), ..all.clone() },
        PlaceDemands { node_labels: [("disk".to_owned(), "slow".to_owned())].into(), ..all.clone() },
    ] {
        let report = verified(wrong, enrolled);
        assert_eq!((report.ok, failed(&report)), (false, vec![MET]));
    }
    assert_eq!(failed(&verified(all, |_| ())), [MET], "without the label");
}

#[test]
fn a_node_of_ones_own_was_set_apart_before() {
    let own = || PlaceDemands { placement: Placement::OwnNode, ..PlaceDemands::default() };
    let report = verified(own(), |facts| set_apart(facts, facts.tenant, placed(facts)));
    assert!(report.ok, "{:?}", failed(&report));
    assert!(report.lines.iter().any(|line| line.claim == APART && line.verdict == Verdict::Proved));
    // That nobody was beside it is never said to be proved.
    assert!(report.lines.iter().any(|line| line.claim == "no job of another tenant ran beside it" && line.verdict == Verdict::NotChecked));
    assert_eq!(failed(&verified(own(), |_| ())), [APART]);
    assert_eq!(failed(&verified(own(), |facts| set_apart(facts, facts.tenant, placed(facts) + 1))), [APART]);
    assert_eq!(failed(&verified(own(), |facts| set_apart(facts, TenantId::from_bytes([0x66; 16]), placed(facts)))), [APART]);
}
