//! Every event has pinned bytes, is accepted by OCSF's own schema, and carries OCSF's own captions.

use expect_test::expect_file;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use super::samples::{encode, entries, entry, events};
use super::support::{Seeded, testdata, variant_of, variants};
use crate::entry::{Body, EntryError};
use crate::leaf::leaf;
use crate::validate::{RuleBroken, validate};
use crate::{Event, Outcome, canonical};

/// The schemas of all classes that we emit, without profiles.
pub(super) fn schemas() -> BTreeMap<u64, jsonschema::Validator> {
    [1006, 3002, 3004, 3006, 6002, 6003, 6005]
        .into_iter()
        .map(|class| {
            let text = std::fs::read(testdata(&format!("ocsf/{class}.json"))).unwrap();
            let schema: Value = serde_json::from_slice(&text).unwrap();
            (class, jsonschema::options().should_validate_formats(true).build(&schema).unwrap())
        })
        .collect()
}

/// What the schema has to say against an event.
pub(super) fn schema_errors(schemas: &BTreeMap<u64, jsonschema::Validator>, class: u64, event: &Value) -> Vec<String> {
    schemas[&class].iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_kind_of_event_has_a_sample() {
    let sampled: BTreeSet<String> = events().iter().map(variant_of).collect();
    let all: BTreeSet<String> = variants(include_str!("../event.rs"), "Event").into_iter().collect();
    assert!(all.len() > 40, "the source was not read: {all:?}");
    assert_eq!(sampled, all);
}

#[test]
fn bodies_and_leaves_are_pinned() {
    let mut text = String::new();
    for entry in entries() {
        let encoded = encode(&entry);
        assert_eq!(encoded.leaf, leaf(&encoded.salt, &encoded.body));
        let body = std::str::from_utf8(&encoded.body).unwrap();
        text.push_str(&format!("{} {} {}\n{body}\n", encoded.kind, hex::encode(encoded.salt), hex::encode(encoded.leaf)));
    }
    expect_file!["../../testdata/golden/entries.txt"].assert_eq(&text);
}

#[test]
fn search_columns_are_pinned() {
    let mut text = String::new();
    for entry in entries() {
        let e = encode(&entry);
        let actor = e.actor.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let (class, activity, time) = (e.class_uid, e.activity, e.time.millis());
        text.push_str(&format!(
            "{} {class} {activity} {actor} {} {}/{} {} {time}\n",
            e.kind, e.action, e.resource_kind, e.resource, e.outcome
        ));
    }
    expect_file!["../../testdata/golden/columns.txt"].assert_eq(&text);
}

#[test]
fn the_schema_of_ocsf_accepts_every_event() {
    let schemas = schemas();
    let mut classes = BTreeSet::new();
    for entry in entries() {
        let value: Value = serde_json::from_slice(&encode(&entry).body).unwrap();
        let class = value["class_uid"].as_u64().unwrap();
        assert_eq!(schema_errors(&schemas, class, &value), Vec::<String>::new(), "{value:#}");
        classes.insert(class);
    }
    assert_eq!(classes, schemas.keys().copied().collect(), "a schema that no sample uses, or a class without schema");
}

/// Otherwise the test above would show nothing.
#[test]
fn the_schema_of_ocsf_refuses_wrong_events() {
    let schemas = schemas();
    let good = |class: u64| -> Value {
        let of_class = |entry: &crate::Entry| u64::from(encode(entry).class_uid) == class;
        serde_json::from_slice(&encode(entries().iter().find(|entry| of_class(entry)).unwrap()).body).unwrap()
    };
    for class in schemas.keys() {
        type Break = fn(&mut Value);
        let breaks: [(&str, Break); 6] = [
            ("unknown field", |event| event["surprise"] = 1.into()),
            ("no metadata", |event| drop(event.as_object_mut().unwrap().remove("metadata"))),
            ("unknown severity", |event| event["severity_id"] = 77.into()),
            ("text for a number", |event| event["time"] = "yesterday".into()),
            ("null", |event| event["status"] = Value::Null),
            ("unknown field of an object", |event| event["metadata"]["product"]["surprise"] = 1.into()),
        ];
        for (what, change) in breaks {
            let mut event = good(*class);
            change(&mut event);
            assert!(!schema_errors(&schemas, *class, &event).is_empty(), "class {class}: {what} passed");
        }
    }
    let mut event = good(6003);
    event["src_endpoint"] = serde_json::json!({ "ip": "not an address" });
    assert!(!schema_errors(&schemas, 6003, &event).is_empty(), "a bad address passed");
}

/// `activity_id` 12 must be called what OCSF calls it, unless it is 99 (other).
#[test]
fn texts_are_the_captions_of_ocsf() {
    let captions: Value = serde_json::from_slice(&std::fs::read(testdata("ocsf/captions.json")).unwrap()).unwrap();
    let class_captions = &captions["classes"];
    let objects = [
        ("/actor/user", "user"),
        ("/device", "device"),
        ("/job", "job"),
        ("/auth_factors/0", "auth_factor"),
        ("/auth_factors/1", "auth_factor"),
        ("/certificate/fingerprints/0", "fingerprint"),
        ("/databucket", "databucket"),
        ("/entity", "managed_entity"),
    ];
    for entry in entries() {
        let value: Value = serde_json::from_slice(&encode(&entry).body).unwrap();
        let class = &class_captions[value["class_uid"].to_string()];
        assert_eq!(class["category"], value["category_uid"]);
        let check = |of: &Value, names: &Value, id: &str, text: &str| {
            let number = &of[id];
            let caption = &names[id][number.to_string()];
            assert!(caption.is_string(), "{id} {number} is unknown to OCSF: {value:#}");
            if *number != 99 {
                assert_eq!(*caption, of[text], "{id} {number}");
            } else {
                assert!(of[text].as_str().is_some_and(|text| !text.is_empty() && text != "Other"), "{id}: {of}");
            }
        };
        check(&value, class, "activity_id", "activity_name");
        check(&value, class, "severity_id", "severity");
        check(&value, class, "status_id", "status");
        for (pointer, object) in objects {
            let Some(of) = value.pointer(pointer) else { continue };
            for id in captions["objects"][object].as_object().unwrap().keys() {
                if of.get(id).is_some() {
                    check(of, &captions["objects"][object], id, id.strip_suffix("_id").unwrap());
                }
            }
        }
    }
}

#[test]
fn a_body_reads_back_as_what_was_recorded() {
    for entry in entries() {
        let encoded = encode(&entry);
        let body = Body::parse(&encoded.body).unwrap();
        assert_eq!(body.own.event, entry.event);
        assert_eq!((body.id, body.time, body.own.tenant), (entry.id, entry.time, entry.tenant));
        assert_eq!(body.own.sequence, entry.producer.sequence.to_string());
        assert_eq!(body.own.action, entry.action());
        validate(&body.value).unwrap();
        assert_eq!(canonical::to_vec(&body.value).unwrap(), encoded.body);
    }
}

#[test]
fn a_refusal_says_its_code_and_a_failure_none() {
    let mut refused = entry(1, Event::VolumeDeleted { volume: vocabulary::VolumeId::from_bytes([1; 16]) });
    refused.outcome = Outcome::Refused(vocabulary::ErrorCode::Forbidden);
    let value: Value = serde_json::from_slice(&encode(&refused).body).unwrap();
    assert_eq!((&value["status_id"], &value["status_code"]), (&2.into(), &"forbidden".into()));
    refused.outcome = Outcome::Failed;
    let value: Value = serde_json::from_slice(&encode(&refused).body).unwrap();
    assert_eq!((&value["status_id"], value.get("status_code")), (&2.into(), None));
}

#[test]
fn hostile_texts_do_not_become_entries() {
    for text in ["\u{1b}[31mred", "a\0b", "line\nline", "\u{7f}", "\u{85}", &"a".repeat(1025), &"ä".repeat(513)] {
        let event = Event::NodeRevoked { node: vocabulary::NodeId::from_bytes([1; 16]), reason: text.to_owned() };
        let error = entry(1, event).encode(&mut |bytes| Seeded(1).fill(bytes)).unwrap_err();
        assert_eq!(error, EntryError::Text("/unmapped/swarm/event/reason".into()), "{text:?}");
    }
    for name in ["", &"n".repeat(101)] {
        let mut bad = entry(1, Event::Heartbeat { size: 1 });
        bad.producer.name = name.to_owned();
        assert_eq!(bad.encode(&mut |_| ()).unwrap_err(), EntryError::Rule(RuleBroken::Unmapped));
    }
}

#[test]
fn numbers_that_json_would_round_are_refused() {
    let limit = (1_u64 << 53) - 1;
    assert!(entry(1, Event::Heartbeat { size: limit }).encode(&mut |_| ()).is_ok());
    for size in [limit + 1, limit + 2, u64::MAX] {
        let error = entry(1, Event::Heartbeat { size }).encode(&mut |_| ()).unwrap_err();
        assert!(matches!(error, EntryError::Canonical(canonical::CanonicalError::Number(_))), "{error:?}");
    }
    // A producer may count further: its sequence is text.
    let mut far = entry(1, Event::Heartbeat { size: 1 });
    far.producer.sequence = u64::MAX;
    assert!(encode(&far).body.windows(20).any(|window| window == u64::MAX.to_string().as_bytes()));
}

#[test]
fn times_outside_of_milliseconds_are_refused() {
    for millis in [0, 1_800_000_000, 999_999_999_999, 10_000_000_000_000, u64::MAX] {
        let mut bad = entry(1, Event::Heartbeat { size: 1 });
        bad.time = vocabulary::UnixTime::from_millis(millis);
        assert_eq!(bad.encode(&mut |_| ()).unwrap_err(), EntryError::Time, "{millis}");
    }
}

/// The exact bytes count: whatever a lenient reader would take for the same is refused.
#[test]
fn bodies_that_are_not_canonical_are_refused() {
    let body = String::from_utf8(encode(&entry(1, Event::Heartbeat { size: 1 })).body).unwrap();
    assert!(Body::parse(body.as_bytes()).is_ok());
    let id = "\"activity_id\":99,";
    assert!(body.contains(id));
    for (what, changed) in [
        ("space", body.replacen(',', ", ", 1)),
        ("line feed at the end", format!("{body}\n")),
        ("doubled key", body.replacen(id, &format!("{id}{id}"), 1)),
        ("doubled key, other value", body.replacen(id, &format!("\"activity_id\":1,{id}"), 1)),
        ("order", format!("{{{}{}", id, body.replacen(id, "", 1).trim_start_matches('{'))),
        ("fraction", body.replacen("\"activity_id\":99", "\"activity_id\":99.0", 1)),
        ("exponent", body.replacen("\"activity_id\":99", "\"activity_id\":9.9e1", 1)),
        ("escape", body.replacen("Heartbeat", "He\\u0061rtbeat", 1)),
        ("byte order mark", format!("\u{feff}{body}")),
        ("nothing", String::new()),
        ("list", "[]".into()),
        ("depth", "[".repeat(60_000)),
        ("length", format!("\"{}\"", "a".repeat(70_000))),
    ] {
        if what == "order" && changed == body {
            continue;
        }
        assert!(Body::parse(changed.as_bytes()).is_err(), "{what}: {changed:.80}");
    }
}
