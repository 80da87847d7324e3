//! Every route of the table, called by nobody, by a stranger and by an owner.

use std::collections::BTreeSet;

use control::{Access, Route, routes};
use serde_json::Value;

use super::examples::{NOBODY, Things, example, nobodys, things};
use super::support::{Answer, Ask, World, problem};

/// Routes that everybody may call. A new one needs a reason in the table and a line here.
const PUBLIC: [&str; 13] = [
    "deployment_show",
    "enrolment_begin",
    "enrolment_complete",
    "health_show",
    "log_checkpoint",
    "log_cosigned_checkpoint",
    "log_tile",
    "log_witness_policy",
    "node_enrol",
    "openapi_show",
    "seal_open",
    "seal_show",
    "token_login",
];

#[test]
fn every_route_has_an_action_or_stands_in_the_list_of_public_ones() {
    let actions: BTreeSet<&str> = policy::action::ALL_ACTIONS.iter().map(|action| action.name).collect();
    let mut public = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for Route { id, method, path, summary, access, step_up, .. } in routes() {
        assert!(ids.insert(id), "two routes are called {id}");
        assert!(path.starts_with("/v1/") && !summary.is_empty(), "{method} {path}");
        match access {
            Access::Public(reason) => {
                assert!(!reason.is_empty(), "{id} is public without a reason");
                public.insert(id);
            }
            Access::Action(action) => {
                assert!(actions.contains(action), "{id} names the action {action}, which no policy knows");
                let wants = policy::action::ALL_ACTIONS.iter().any(|known| known.name == action && known.step_up);
                assert_eq!(step_up, wants, "{id}");
            }
        }
    }
    assert_eq!(public, PUBLIC.into_iter().collect());
}

/// The channel of nodes: no route of it is open to anybody.
#[test]
fn every_route_of_the_node_channel_has_an_action() {
    let actions: BTreeSet<&str> = policy::action::ALL_ACTIONS.iter().map(|action| action.name).collect();
    let table = control::node_routes();
    assert!(!table.is_empty());
    for route in table {
        match route.access {
            Access::Action(action) => assert!(actions.contains(action), "{}: {action}", route.id),
            Access::Public(reason) => panic!("{} {} is public on the channel of nodes: {reason}", route.method, route.path),
        }
    }
}

#[test]
fn the_document_lists_every_route_and_nothing_else() {
    let document: Value = serde_json::from_str(&control::openapi()).unwrap();
    let mut listed = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            listed.insert((method.to_uppercase(), path.clone(), operation["operationId"].as_str().unwrap().to_owned()));
        }
    }
    let table = routes().iter().map(|route| (route.method.to_owned(), route.documented_path(), route.id.to_owned())).collect();
    assert_eq!(listed, table);
    // No reference leads nowhere.
    let text = document.to_string();
    for kind in ["schemas", "responses"] {
        let begins = format!("\"$ref\":\"#/components/{kind}/");
        let referenced: BTreeSet<&str> = text.split(begins.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let components = document["components"][kind].as_object().unwrap();
        let missing: Vec<&&str> = referenced.iter().filter(|name| !components.contains_key(**name)).collect();
        assert!(!referenced.is_empty() && missing.is_empty(), "{kind}: not among the components: {missing:?}");
    }
}

/// Every answer fits the schema that the document promises for it.
pub(crate) fn fits_the_document(document: &Value, route: &Route, answer: &Answer) {
    let responses = &document["paths"][route.documented_path()][route.method.to_lowercase()]["responses"];
    let promised = &responses[answer.status.as_str()];
    assert!(promised.is_object(), "{}: {} is not documented: {}", route.id, answer.status, answer.text());
    let schema = if answer.status.is_success() {
        assert_eq!(answer.status.as_u16(), route.answer.status(), "{}", route.id);
        let Some(content) = promised["content"].as_object() else {
            assert!(answer.bytes.is_empty(), "{}", route.id);
            return;
        };
        let content = content.get(&answer.kind).unwrap_or_else(|| panic!("{}: {} is not documented", route.id, answer.kind));
        if !answer.kind.ends_with("json") {
            return;
        }
        &content["schema"]
    } else {
        problem(answer);
        let named = promised["$ref"].as_str().and_then(|named| named.strip_prefix("#/components/responses/")).unwrap();
        &document["components"]["responses"][named]["content"]["application/problem+json"]["schema"]
    };
    let mut whole = schema.clone();
    whole.as_object_mut().unwrap().insert("components".into(), document["components"].clone());
    let validator = jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{}: {error}", route.id));
    let errors: Vec<String> = validator.iter_errors(&answer.json()).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new(), "{}: {}", route.id, answer.text());
}

fn with_nobody(mut things: Things) -> Things {
    things.insert("nobody", NOBODY.to_owned());
    things
}

/// What is left of a problem when the numbers of this one call are taken out, and the ids that it was asked with.
fn told(answer: &Answer, asked: &Things) -> Value {
    let text = asked.iter().filter(|(name, _)| **name != "entry").fold(answer.text(), |text, (_, id)| text.replace(id.as_str(), "ID"));
    let mut value: Value = serde_json::from_str(&text).unwrap();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("audit_index");
        fields.remove("step_up");
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in() {
    let mut world = World::new().await;
    let things = with_nobody(things(&mut world).await);
    let document: Value = serde_json::from_str(&control::openapi()).unwrap();
    let tokens = [None, Some(""), Some("swm_s_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Some("a b"), Some(&*"x".repeat(5000))];
    for (token, address) in tokens.into_iter().zip(2..) {
        // One source is refused more slowly after so many; here all are to be answered.
        world.server.come_from(address);
        for route in routes().iter().filter(|route| token.is_none() || !matches!(route.access, Access::Public(_))) {
            let answer = world.server.ask(token, example(route.id, route.method, route.path, &things)).await;
            match route.access {
                Access::Public(_) => {
                    assert!(answer.status.as_u16() < 500, "{}: {}", route.id, answer.text());
                    fits_the_document(&document, route, &answer);
                }
                Access::Action(_) => {
                    let told = answer.refused(401, "unauthenticated");
                    // A stranger learns no index of the log and no rule.
                    assert!(told.get("audit_index").is_none() && told.get("rules").is_none(), "{}", route.id);
                }
            }
        }
    }
    world.server.stop().await;
}

/// The administrator of another tenant, with the ids of ours: the answer is the one for ids that are nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_tell_foreign_from_absent() {
    let mut world = World::new().await;
    let things = with_nobody(things(&mut world).await);
    let absent = with_nobody(nobodys(&things));
    let mut compared = 0;
    let own = |name: &str| name != "nobody" && name != "entry";
    // His log is asked before he names our ids himself: later they stand in it as what he was refused.
    let log = world.bob(Ask::get("/v1/audit?limit=1000")).await.text();
    assert!(things.iter().filter(|(name, _)| own(name)).all(|(_, id)| !log.contains(id.as_str())), "{log}");
    for route in routes() {
        // The same bytes put by him would be his own blob, too.
        if matches!(route.access, Access::Public(_)) || ["token_logout", "image_blob_put"].contains(&route.id) {
            continue;
        }
        let foreign = example(route.id, route.method, route.path, &things);
        let nothing = example(route.id, route.method, route.path, &absent);
        let named = foreign.path != nothing.path || foreign.body != nothing.body;
        let answer = world.bob(foreign.clone()).await;
        assert!(answer.status.as_u16() < 500, "{}: {}", route.id, answer.text());
        // Whatever he calls, nothing of ours is in the answer.
        let sent = format!("{} {:?}", foreign.path, foreign.body);
        for (name, id) in things.iter().filter(|(name, id)| own(name) && route.id != "audit_list" && !sent.contains(id.as_str())) {
            assert!(!answer.text().contains(id.as_str()), "{}: the stranger sees our {name}", route.id);
        }
        if !named {
            continue;
        }
        compared += 1;
        let other = world.bob(nothing).await;
        assert!(!answer.status.is_success(), "{}: {} {}", route.id, answer.status, answer.text());
        assert_eq!((answer.status, told(&answer, &things)), (other.status, told(&other, &absent)), "{}", route.id);
        let code = answer.code();
        // A body that names what is not there is malformed; it is so for both.
        let hidden = ["not_found", "forbidden", "release_refused"].contains(&code.as_str()) || (["invalid_request", "wrong_state"].contains(&code.as_str()) && !route.path.contains('{'));
        assert!(hidden, "{}: {}", route.id, answer.text());
        // Where the owner may do it, the stranger must meet `not_found`: anything else would say that the thing exists.
        if route.path.contains('{') && code == "forbidden" {
            let owner = world.alice(foreign).await;
            assert_eq!(owner.code(), "forbidden", "{}: only the stranger is forbidden", route.id);
        }
    }
    assert!(compared > 20, "{compared}");
    // Nothing of ours was changed by all this.
    for (list, name) in [("/v1/volumes", "volume"), ("/v1/projects", "project"), ("/v1/principals", "account"), ("/v1/leases", "lease")] {
        assert!(world.alice(Ask::get(list)).await.text().contains(things[name].as_str()), "{name}");
    }
    world.server.stop().await;
}

/// The owners call everything, in the order of the table but what ends things last: never a 5xx, and as documented.
#[tokio::test(flavor = "multi_thread")]
async fn owners_get_documented_answers() {
    let mut world = World::new().await;
    let things = with_nobody(things(&mut world).await);
    let document: Value = serde_json::from_str(&control::openapi()).unwrap();
    let ending = |route: &Route| {
        ["principal_delete", "volume_delete", "key_destroy", "lease_end", "token_revoke", "other_token_revoke", "tenant_suspend", "token_logout"]
            .iter()
            .position(|id| *id == route.id)
            .map_or(0, |place| place + 1)
    };
    let mut table = routes();
    table.sort_by_key(ending);
    let mut good = BTreeSet::new();
    for route in table {
        let Access::Action(action) = route.access else { continue };
        let ask = example(route.id, route.method, route.path, &things);
        let known = policy::action::ALL_ACTIONS.iter().find(|known| known.name == action).unwrap();
        let operators = known.principals == [policy::EntityKind::Operator];
        let token = if operators { world.operator_token.clone() } else { world.alice_token.clone() };
        // One confirmation per person fits into half a minute: the rest is asked without, which is an answer, too.
        let answer = match route.id {
            "volume_delete" => world.alice.confirmed(&world.server, &token, ask).await,
            "tenant_resume" => world.operator.confirmed(&world.server, &token, ask).await,
            _ => world.server.ask(Some(&token), ask).await,
        };
        assert!(answer.status.as_u16() < 500 || answer.status.as_u16() == 501, "{}: {}", route.id, answer.text());
        assert_ne!(answer.code_if_problem().as_deref(), Some("unauthenticated"), "{}", route.id);
        fits_the_document(&document, &route, &answer);
        if answer.status.is_success() {
            good.insert(route.id);
        }
    }
    // These must have succeeded: else the loop above would compare refusals only.
    for id in [
        "whoami_show", "status_show", "tenant_create", "tenant_list", "node_invite", "node_list", "project_create", "project_list",
        "principal_list", "token_create", "token_list", "volume_create", "volume_list",
        "volume_show", "volume_rotate", "volume_read", "lease_list", "volume_delete", "image_blob_put", "image_blob_show", "image_list",
        "job_list", "key_list", "audit_list", "policy_explain", "platform_audit_list", "witness_show", "token_revoke", "other_token_revoke", "token_logout",
    ] {
        assert!(good.contains(id), "{id} did not succeed: {good:?}");
    }
    world.server.stop().await;
}

impl Answer {
    fn code_if_problem(&self) -> Option<String> {
        (self.kind == "application/problem+json").then(|| self.code())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_a_problem_too() {
    let world = World::new().await;
    for path in ["/", "/v1", "/v2/whoami", "/v1/nothing", "/v1/volumes/a/b/c/d", "/v1/../etc/passwd", "/v1/%2e%2e/x", "/favicon.ico"] {
        world.alice(Ask::get(path)).await.refused(404, "not_found");
    }
    for (method, path) in [("DELETE", "/v1/whoami"), ("POST", "/v1/status"), ("PATCH", "/v1/volumes"), ("PUT", "/v1/login")] {
        world.alice(Ask::new(method, path)).await.refused(405, "method_not_allowed");
    }
    // An id that is none is no thing either.
    for id in ["1", "x", "..", "%00", "0190B5B4-0000-7000-8000-0000000000FF", "0190b5b4000070008000000000000000", &"a".repeat(2000)] {
        let answer = world.alice(Ask::get(format!("/v1/volumes/{id}"))).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{id:.40}: {} {}", answer.status, answer.text());
        problem(&answer);
    }
    world.server.stop().await;
}
