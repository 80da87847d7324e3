use std::fmt::Write as _;

use expect_test::expect_file;
use vocabulary::SYSTEM_OWNER;

use super::{allowed, facts, job, node, operator, project, resource, service_of, staff, tenant, user_of};
use crate::{ALL_ACTIONS, ActionInfo, EntityKind, PolicySets, Principal, Resource, SetFacts};

pub(super) fn columns(own: SetFacts) -> Vec<(&'static str, Principal)> {
    let here = project(1);
    let of = |role: &str| format!("{role}@{here}");
    vec![
        ("admin", user_of(own, &["admin"])),
        ("engineer", user_of(own, &["engineer"])),
        ("viewer", user_of(own, &["viewer"])),
        ("auditor", user_of(own, &["auditor"])),
        ("no-role", user_of(own, &[])),
        ("p-admin", user_of(own, &[&of("admin")])),
        ("p-engin", user_of(own, &[&of("engineer")])),
        ("p-viewer", user_of(own, &[&of("viewer")])),
        ("s-admin", service_of(own, &["admin"])),
        ("s-engin", service_of(own, &["engineer"])),
        ("operator", operator()),
        ("staff-7", staff(7)),
        ("staff-8", staff(8)),
        ("node-7", Principal::Node(node(7))),
        ("node-8", Principal::Node(node(8))),
        ("job", Principal::Job(job(own, 1))),
    ]
}

/// Whether the action is about oneself.
fn about_oneself(info: &ActionInfo) -> bool {
    info.resources.contains(&EntityKind::Operator)
}

fn section(text: &mut String, title: &str, columns: &[(&str, Principal)], cell: impl Fn(&ActionInfo, &Principal) -> &'static str) {
    write!(text, "{title:22}").unwrap();
    for (name, _) in columns {
        write!(text, " {name:>8}").unwrap();
    }
    for info in ALL_ACTIONS {
        write!(text, "\n{:22}", info.name).unwrap();
        for (_, principal) in columns {
            write!(text, " {:>8}", cell(info, principal)).unwrap();
        }
    }
    text.push_str("\n\n");
}

#[test]
fn golden() {
    let sets = PolicySets::new().unwrap();
    let own = tenant(0xa1);
    let may = |info: &ActionInfo, principal: &Principal, t: SetFacts, p: u8| {
        let things: Vec<Resource> = match about_oneself(info) {
            true => vec![Resource::Principal(principal.clone())],
            false => info.resources.iter().map(|kind| resource(*kind, t, p)).collect(),
        };
        // A node or a job is no resource of what people do about themselves.
        things.into_iter().all(|thing| info.resources.contains(&thing.kind()) && allowed(&sets, &facts(principal.clone(), info.name, thing), info.name))
    };
    let mut text = String::from(
        "yes: in every project · project: in project 1 only, where p-… have their role · staff-7 and node 7 belong together, the job runs there\n\
         whatever a request itself must bring (fresh passkey, second person, purpose, evidence) is there\n\n",
    );
    section(&mut text, "own tenant", &columns(own), |info, principal| match (may(info, principal, own, 1), may(info, principal, own, 2)) {
        (true, true) => "yes",
        (true, false) => "project",
        (false, true) => "ELSEWHERE",
        (false, false) => ".",
    });
    let foreign = tenant(0xb2);
    section(&mut text, "foreign tenant", &columns(own), |info, principal| {
        let other = match about_oneself(info) {
            true => info.resources.iter().any(|kind| {
                let thing = resource(*kind, foreign, 1);
                allowed(&sets, &facts(principal.clone(), info.name, thing), info.name)
            }),
            false => may(info, principal, foreign, 1),
        };
        if other { "yes" } else { "." }
    });
    let suspended = SetFacts { suspended: true, ..own };
    section(&mut text, "suspended tenant", &columns(suspended), |info, principal| if may(info, principal, suspended, 1) { "yes" } else { "." });
    let system = SetFacts { tenant: SYSTEM_OWNER, suspended: false };
    section(&mut text, "reserved owner", &columns(system), |info, principal| if may(info, principal, system, 1) { "yes" } else { "." });
    expect_file!["../../testdata/matrix.txt"].assert_eq(text.trim_end());
}
