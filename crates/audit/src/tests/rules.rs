//! One broken sample for each rule of our second layer, with what the schema alone says to it.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::golden::{schema_errors, schemas};
use super::samples::{encode, entries};
use super::support::{variant_of, variants};
use crate::Event;
use crate::validate::{RuleBroken, validate};

/// A sample of a kind, as JSON.
fn sample(kind: &str) -> Value {
    let entry = entries().into_iter().find(|entry| entry.event.kind() == kind).unwrap();
    serde_json::from_slice(&encode(&entry).body).unwrap()
}

struct Broken {
    kind: &'static str,
    change: fn(&mut Value),
    error: RuleBroken,
    /// Whether OCSF's schema lets it pass: then only our layer stands in the way.
    schema_accepts: bool,
}

fn broken(kind: &'static str, error: RuleBroken, schema_accepts: bool, change: fn(&mut Value)) -> Broken {
    Broken { kind, change, error, schema_accepts }
}

fn table() -> Vec<Broken> {
    use RuleBroken as R;
    vec![
        broken("heartbeat", R::Field("class_uid"), false, |e| e["class_uid"] = json!("6002")),
        broken("heartbeat", R::Field("activity_id"), false, |e| drop(e.as_object_mut().unwrap().remove("activity_id"))),
        broken("heartbeat", R::Field("time"), true, |e| e["time"] = json!(-1)),
        broken("heartbeat", R::Field("metadata.profiles"), false, |e| e["metadata"]["profiles"] = json!("host")),
        broken("heartbeat", R::Field("metadata.uid"), true, |e| e["metadata"]["uid"] = json!("not an id")),
        broken("heartbeat", R::TypeUid, true, |e| e["type_uid"] = json!(600_203)),
        broken("heartbeat", R::TypeUid, true, |e| e["activity_id"] = json!(3)),
        broken("heartbeat", R::Category, false, |e| e["category_uid"] = json!(3)),
        broken("heartbeat", R::Time("/time".into()), true, |e| e["time"] = json!(1_800_000_000)),
        broken("heartbeat", R::Time("/time".into()), true, |e| e["time"] = json!(1_800_000_000_000_000_u64)),
        broken("certificate_issued", R::Time("/certificate/expiration_time".into()), true, |e| {
            e["certificate"]["expiration_time"] = json!(1_800_000_000);
        }),
        broken("strangers_refused", R::Time("/end_time".into()), true, |e| {
            e["end_time"] = json!(e["start_time"].as_u64().unwrap() - 1);
        }),
        broken("heartbeat", R::Severity, true, |e| e["severity"] = json!("Fatal")),
        broken("heartbeat", R::Status, true, |e| e["status"] = json!("Failure")),
        broken("heartbeat", R::Version, true, |e| e["metadata"]["version"] = json!("1.7.0")),
        broken("heartbeat", R::Version, false, |e| drop(e["metadata"].as_object_mut().unwrap().remove("version"))),
        broken("job_submitted", R::ProfileField("cloud".into()), false, |e| e["cloud"] = json!({ "provider": "x" })),
        broken("job_submitted", R::ProfileField("action_id".into()), false, |e| e["action_id"] = json!(1)),
        broken("heartbeat", R::UnknownProfile("surprise".into()), true, |e| {
            e["metadata"]["profiles"] = json!(["host", "surprise"]);
        }),
        broken("heartbeat", R::OtherWithoutText("/activity_id".into()), true, |e| {
            e.as_object_mut().unwrap().remove("activity_name");
        }),
        broken("volume_created", R::OtherWithoutText("/databucket/type_id".into()), true, |e| {
            e["databucket"].as_object_mut().unwrap().remove("type");
        }),
        broken("volume_created", R::OtherWithoutText("/databucket/type_id".into()), true, |e| {
            e["databucket"]["type"] = json!("");
        }),
        broken("heartbeat", R::Compliance("standards"), false, |e| e["compliance"] = json!({})),
        broken("heartbeat", R::Compliance("control"), false, |e| {
            e["compliance"] = json!({ "standards": ["GDPR"], "status_id": 1, "compliance_references": [{ "uid": "1" }] });
        }),
        broken("heartbeat", R::Compliance("status_id"), false, |e| {
            e["compliance"] = json!({ "standards": ["GDPR"], "control": "A.8", "compliance_references": [{ "uid": "1" }] });
        }),
        broken("heartbeat", R::Compliance("evidence (compliance_references)"), false, |e| {
            e["compliance"] = json!({ "standards": ["GDPR"], "control": "A.8", "status_id": 1 });
        }),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["more"] = json!(1)),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["more"] = json!(1)),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["event"]["more"] = json!(1)),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["event"]["kind"] = json!("surprise")),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["format"] = json!(2)),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["sequence"] = json!("007")),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["sequence"] = json!("18446744073709551616")),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["swarm"]["producer"] = json!("")),
        broken("heartbeat", R::Unmapped, true, |e| e["unmapped"]["sealed"] = json!({})),
        broken("heartbeat", R::Unmapped, true, |e| drop(e.as_object_mut().unwrap().remove("unmapped"))),
        broken("logged_in", R::Unmapped, true, |e| e["unmapped"]["sealed"]["user.name"]["c"] = json!("AAAA")),
        broken("logged_in", R::Unmapped, true, |e| e["unmapped"]["sealed"]["user.name"]["ct"] = json!("AAAA")),
        broken("logged_in", R::Unmapped, true, |e| e["unmapped"]["sealed"]["user.name"]["subject"] = json!("")),
        broken("logged_in", R::Unmapped, true, |e| {
            let value = e["unmapped"]["sealed"]["user.name"].clone();
            e["unmapped"]["sealed"]["user.shoe_size"] = value;
        }),
        broken("heartbeat", R::Contradiction("metadata.tenant_uid"), true, |e| {
            e["metadata"]["tenant_uid"] = json!("00000000-0000-0000-0000-000000000001");
        }),
        broken("heartbeat", R::Contradiction("metadata.event_code"), true, |e| {
            e["metadata"]["event_code"] = json!("log_started");
        }),
        broken("job_submitted", R::Contradiction("api.operation"), true, |e| e["api"]["operation"] = json!("job.stop")),
        broken("logged_in", R::PersonalInClear("user.name"), true, |e| e["user"]["name"] = json!("alice")),
        broken("logged_in", R::PersonalInClear("user.full_name"), true, |e| e["user"]["full_name"] = json!("Alice A.")),
        broken("logged_in", R::PersonalInClear("user.email_addr"), true, |e| e["user"]["email_addr"] = json!("a@b.example")),
        broken("logged_in", R::PersonalInClear("actor.user.name"), true, |e| e["actor"]["user"]["name"] = json!("alice")),
        broken("logged_in", R::PersonalInClear("actor.user.email_addr"), true, |e| {
            e["actor"]["user"]["email_addr"] = json!("a@b.example");
        }),
        broken("logged_in", R::PersonalInClear("src_endpoint.ip"), true, |e| e["src_endpoint"]["ip"] = json!("203.0.113.7")),
        broken("logged_in", R::PersonalInClear("src_endpoint.hostname"), true, |e| {
            e["src_endpoint"]["hostname"] = json!("laptop.example");
        }),
        broken("logged_in", R::PersonalInClear("http_request.user_agent"), true, |e| {
            e["http_request"] = json!({ "user_agent": "curl" });
        }),
        broken("tenant_changed", R::PersonalInClear("entity.user.name"), true, |e| {
            e["entity"]["user"] = json!({ "name": "alice" });
        }),
    ]
}

#[test]
fn each_rule_refuses_its_broken_sample() {
    let schemas = schemas();
    let mut met = BTreeSet::new();
    for (number, Broken { kind, change, error, schema_accepts }) in table().into_iter().enumerate() {
        let mut event = sample(kind);
        validate(&event).unwrap();
        let before = event.clone();
        change(&mut event);
        assert_ne!(event, before, "sample {number} was not broken");
        assert_eq!(validate(&event), Err(error.clone()), "sample {number}");
        let said = schema_errors(&schemas, before["class_uid"].as_u64().unwrap(), &event);
        assert_eq!(said.is_empty(), schema_accepts, "sample {number} ({error}): the schema says {said:?}");
        met.insert(variant_of(&error));
    }
    let all: BTreeSet<String> = variants(include_str!("../validate.rs"), "RuleBroken").into_iter().collect();
    assert_eq!(met, all);
}

#[test]
fn what_is_no_event_at_all_is_refused() {
    for value in [json!(null), json!([]), json!("event"), json!(1), json!({})] {
        assert!(validate(&value).is_err(), "{value}");
    }
}

/// A profile that is named may bring its fields.
#[test]
fn a_named_profile_brings_its_fields() {
    let mut event = sample("job_submitted");
    event["metadata"]["profiles"] = json!(["cloud"]);
    event["cloud"] = json!({ "provider": "x" });
    assert_eq!(validate(&event), Ok(()));
}

#[test]
fn no_kind_of_event_names_its_personal_fields_in_clear() {
    let entry = entries().into_iter().find(|entry| matches!(entry.event, Event::LoggedIn { .. })).unwrap();
    let body = String::from_utf8(encode(&entry).body).unwrap();
    for clear in ["203.0.113.7", "alice", "a@example.org"] {
        assert!(!body.contains(clear), "{clear}");
    }
}
