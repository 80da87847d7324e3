//! Our layer over the schema: what OCSF's JSON Schema accepts and we refuse.
//!
//! The schema itself checks shape; it takes events whose `type_uid` contradicts its class, times in seconds, texts that
//! contradict their ids, profile fields without the profile, and anything at all under `unmapped`.

use serde::Deserialize as _;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use vocabulary::{EntryId, UnixTime};

use crate::entry::{BODY_FORMAT, OwnPart};
use crate::limits::{SEALED_FIELDS_MAX, TIME_MAX_MS, TIME_MIN_MS};
use crate::ocsf::OCSF_VERSION;
use crate::sealed::{SealedValue, is_well_formed};

/// A rule of this layer that an event breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleBroken {
    /// Not an object, or a field of the base is missing or no number.
    #[error("field `{0}` is missing or has the wrong type")]
    Field(&'static str),
    /// `type_uid` is not `class_uid` × 100 + `activity_id`.
    #[error("type_uid is not class_uid × 100 + activity_id")]
    TypeUid,
    /// `category_uid` is not the thousands of `class_uid`.
    #[error("category_uid is not that of the class")]
    Category,
    /// A time that is not in milliseconds since 1970, or an end before its start.
    #[error("`{0}` is not a time in milliseconds since 1970")]
    Time(String),
    /// `severity` is not the text of `severity_id`.
    #[error("severity does not fit severity_id")]
    Severity,
    /// `status` is not the text of `status_id`.
    #[error("status does not fit status_id")]
    Status,
    /// Another version than the one that we emit.
    #[error("metadata.version is not {OCSF_VERSION}")]
    Version,
    /// A field of a profile that `metadata.profiles` does not name.
    #[error("field `{0}` belongs to a profile that metadata.profiles does not name")]
    ProfileField(String),
    /// A profile that OCSF does not have.
    #[error("metadata.profiles names the unknown profile `{0}`")]
    UnknownProfile(String),
    /// A `*_id` of 99 (other) without its text.
    #[error("`{0}` is 99 and its text is missing")]
    OtherWithoutText(String),
    /// `compliance` without standard, control, status and evidence.
    #[error("compliance lacks `{0}`")]
    Compliance(&'static str),
    /// Something under `unmapped` that our own schema does not know.
    #[error("unmapped does not fit its schema")]
    Unmapped,
    /// `unmapped.swarm` contradicts the event.
    #[error("unmapped.swarm contradicts `{0}`")]
    Contradiction(&'static str),
    /// A personal value stands in clear where it must be sealed.
    #[error("field `{0}` stands in clear and must be sealed")]
    PersonalInClear(&'static str),
}

/// Profiles of OCSF 1.8.0 and the top-level fields that only they bring (of the classes that we emit).
const PROFILES: [(&str, &[&str]); 8] = [
    ("ai_operation", &["ai_model", "message_context"]),
    ("cloud", &["cloud"]),
    ("container", &["container", "namespace_pid"]),
    ("datetime", &["time_dt", "start_time_dt", "end_time_dt"]),
    ("host", &[]),
    ("osint", &["osint"]),
    (
        "security_control",
        &[
            "action",
            "action_id",
            "attacks",
            "authorizations",
            "confidence",
            "confidence_id",
            "disposition",
            "disposition_id",
            "firewall_rule",
            "is_alert",
            "malware",
            "policy",
            "risk_level",
            "risk_level_id",
            "risk_score",
        ],
    ),
    ("trace", &["trace"]),
];

/// Personal fields that may never stand in clear.
const PERSONAL: [(&str, &str); 9] = [
    ("/actor/user/email_addr", "actor.user.email_addr"),
    ("/actor/user/name", "actor.user.name"),
    ("/entity/user/name", "entity.user.name"),
    ("/http_request/user_agent", "http_request.user_agent"),
    ("/src_endpoint/hostname", "src_endpoint.hostname"),
    ("/src_endpoint/ip", "src_endpoint.ip"),
    ("/user/email_addr", "user.email_addr"),
    ("/user/full_name", "user.full_name"),
    ("/user/name", "user.name"),
];

/// The parts of an event that are ours.
pub(crate) struct OwnParts {
    pub(crate) own: OwnPart,
    pub(crate) id: EntryId,
    pub(crate) time: UnixTime,
    pub(crate) sealed: BTreeMap<String, SealedValue>,
}

/// Checks every rule of this layer on an event that the schema accepts.
pub fn validate(event: &Value) -> Result<(), RuleBroken> {
    let fields = event.as_object().ok_or(RuleBroken::Field("event"))?;
    numbers(fields)?;
    texts(fields)?;
    profiles(fields)?;
    others("", event)?;
    times("", event)?;
    compliance(fields)?;
    for (pointer, name) in PERSONAL {
        if event.pointer(pointer).is_some() {
            return Err(RuleBroken::PersonalInClear(name));
        }
    }
    let parts = own_parts(event)?;
    contradictions(event, &parts)
}

fn number(fields: &Map<String, Value>, name: &'static str) -> Result<u64, RuleBroken> {
    fields.get(name).and_then(Value::as_u64).ok_or(RuleBroken::Field(name))
}

fn numbers(fields: &Map<String, Value>) -> Result<(), RuleBroken> {
    let class = number(fields, "class_uid")?;
    let activity = number(fields, "activity_id")?;
    if class.checked_mul(100).and_then(|n| n.checked_add(activity)) != Some(number(fields, "type_uid")?) {
        return Err(RuleBroken::TypeUid);
    }
    if number(fields, "category_uid")? != class / 1000 {
        return Err(RuleBroken::Category);
    }
    number(fields, "time").map(|_| ())
}

fn texts(fields: &Map<String, Value>) -> Result<(), RuleBroken> {
    let severity = match number(fields, "severity_id")? {
        0 => Some("Unknown"),
        1 => Some("Informational"),
        2 => Some("Low"),
        3 => Some("Medium"),
        4 => Some("High"),
        5 => Some("Critical"),
        6 => Some("Fatal"),
        _ => None,
    };
    if let Some(text) = fields.get("severity")
        && severity.is_some_and(|severity| text != severity)
    {
        return Err(RuleBroken::Severity);
    }
    let status = match fields.get("status_id").and_then(Value::as_u64) {
        Some(0) => Some("Unknown"),
        Some(1) => Some("Success"),
        Some(2) => Some("Failure"),
        Some(_) | None => None,
    };
    if let Some(text) = fields.get("status")
        && status.is_some_and(|status| text != status)
    {
        return Err(RuleBroken::Status);
    }
    let version = fields.get("metadata").and_then(|metadata| metadata.get("version"));
    if version.and_then(Value::as_str) == Some(OCSF_VERSION) { Ok(()) } else { Err(RuleBroken::Version) }
}

fn profiles(fields: &Map<String, Value>) -> Result<(), RuleBroken> {
    let named: Vec<&str> = match fields.get("metadata").and_then(|metadata| metadata.get("profiles")) {
        None => Vec::new(),
        Some(Value::Array(items)) => {
            items.iter().map(Value::as_str).collect::<Option<_>>().ok_or(RuleBroken::Field("metadata.profiles"))?
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(RuleBroken::Field("metadata.profiles"));
        }
    };
    if let Some(unknown) = named.iter().find(|name| !PROFILES.iter().any(|(known, _)| known == *name)) {
        return Err(RuleBroken::UnknownProfile((*unknown).to_owned()));
    }
    for (profile, brings) in PROFILES {
        if let Some(field) = brings.iter().find(|field| fields.contains_key(**field) && !named.contains(&profile)) {
            return Err(RuleBroken::ProfileField((*field).to_owned()));
        }
    }
    Ok(())
}

/// Every `x_id` of 99 needs its text: `x`, or `x_name` for the activity. `unmapped` has no such fields.
fn others(path: &str, value: &Value) -> Result<(), RuleBroken> {
    match value {
        Value::Object(fields) => {
            for (key, item) in fields {
                let here = format!("{path}/{key}");
                if let Some(stem) = key.strip_suffix("_id")
                    && item.as_u64() == Some(99)
                {
                    let text = if stem == "activity" { "activity_name" } else { stem };
                    if fields.get(text).and_then(Value::as_str).is_none_or(str::is_empty) {
                        return Err(RuleBroken::OtherWithoutText(here));
                    }
                }
                if key != "unmapped" {
                    others(&here, item)?;
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| others(path, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Every `time` and `*_time` is in milliseconds; an end is not before its start.
fn times(path: &str, value: &Value) -> Result<(), RuleBroken> {
    match value {
        Value::Object(fields) => {
            for (key, item) in fields {
                let here = format!("{path}/{key}");
                if (key == "time" || key.ends_with("_time"))
                    && !item.as_u64().is_some_and(|time| (TIME_MIN_MS..=TIME_MAX_MS).contains(&time))
                {
                    return Err(RuleBroken::Time(here));
                }
                if key != "unmapped" {
                    times(&here, item)?;
                }
            }
            let at = |name: &str| fields.get(name).and_then(Value::as_u64);
            match (at("start_time"), at("end_time")) {
                (Some(start), Some(end)) if end < start => Err(RuleBroken::Time(format!("{path}/end_time"))),
                _ => Ok(()),
            }
        }
        Value::Array(items) => items.iter().try_for_each(|item| times(path, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn compliance(fields: &Map<String, Value>) -> Result<(), RuleBroken> {
    let Some(compliance) = fields.get("compliance") else { return Ok(()) };
    let named = |key: &str| match compliance.get(key) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Number(_) | Value::Object(_)) => true,
        Some(Value::Null | Value::Bool(_)) | None => false,
    };
    for (key, what) in [
        ("standards", "standards"),
        ("control", "control"),
        ("status_id", "status_id"),
        ("compliance_references", "evidence (compliance_references)"),
    ] {
        if !named(key) {
            return Err(RuleBroken::Compliance(what));
        }
    }
    Ok(())
}

/// Reads `unmapped` by our own schema: `swarm`, and `sealed` where there are personal values; nothing else.
pub(crate) fn own_parts(event: &Value) -> Result<OwnParts, RuleBroken> {
    let unmapped = event.get("unmapped").and_then(Value::as_object).ok_or(RuleBroken::Unmapped)?;
    if unmapped.keys().any(|key| key != "swarm" && key != "sealed") {
        return Err(RuleBroken::Unmapped);
    }
    let own = unmapped.get("swarm").ok_or(RuleBroken::Unmapped)?;
    let own = OwnPart::deserialize(own).map_err(|_| RuleBroken::Unmapped)?;
    let sequence_fits = own.sequence.parse::<u64>().is_ok_and(|n| n.to_string() == own.sequence);
    if own.format != BODY_FORMAT || !sequence_fits || own.producer.is_empty() || own.producer.len() > 100 {
        return Err(RuleBroken::Unmapped);
    }
    let sealed: BTreeMap<String, SealedValue> = match unmapped.get("sealed") {
        None => BTreeMap::new(),
        Some(sealed) => BTreeMap::deserialize(sealed).map_err(|_| RuleBroken::Unmapped)?,
    };
    let sealed_fits = unmapped.get("sealed").is_none() || !sealed.is_empty();
    if !sealed_fits || sealed.len() > SEALED_FIELDS_MAX || !is_well_formed(&sealed) {
        return Err(RuleBroken::Unmapped);
    }
    let uid = event.pointer("/metadata/uid").and_then(Value::as_str).and_then(|uid| uid.parse().ok());
    let time = event.get("time").and_then(Value::as_u64).ok_or(RuleBroken::Field("time"))?;
    Ok(OwnParts {
        own,
        id: uid.ok_or(RuleBroken::Field("metadata.uid"))?,
        time: UnixTime::from_millis(time),
        sealed,
    })
}

/// What stands twice must be the same.
fn contradictions(event: &Value, parts: &OwnParts) -> Result<(), RuleBroken> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if text("/metadata/tenant_uid") != Some(&parts.own.tenant.to_string()) {
        return Err(RuleBroken::Contradiction("metadata.tenant_uid"));
    }
    if text("/metadata/event_code") != Some(parts.own.event.kind()) {
        return Err(RuleBroken::Contradiction("metadata.event_code"));
    }
    if event.get("api").is_some() && text("/api/operation") != Some(&parts.own.action) {
        return Err(RuleBroken::Contradiction("api.operation"));
    }
    Ok(())
}
