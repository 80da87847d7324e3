//! Entries as OCSF 1.8.0 events: which class and activity, and the fields that the class asks for.
#![expect(clippy::needless_pass_by_value, reason = "the shapes consume their event; json! borrows, which the lint cannot tell from a caller that kept it")]

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vocabulary::job::JobState;
use vocabulary::lease::LeaseMode;

use crate::entry::{Actor, BODY_FORMAT, Entry, EntryError, Outcome, OwnPart, Source};
use crate::event::{Change, Event, Factor};
use crate::sealed::SealedValue;

/// The version of the schema.
pub(crate) const OCSF_VERSION: &str = "1.8.0";

/// An event as JSON, with the two numbers that the store indexes.
pub(crate) struct Rendered {
    pub(crate) value: Value,
    pub(crate) class_uid: u32,
    pub(crate) activity: u32,
}

/// Classes that we emit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    ScheduledJobActivity = 1006,
    Authentication = 3002,
    EntityManagement = 3004,
    GroupManagement = 3006,
    ApplicationLifecycle = 6002,
    ApiActivity = 6003,
    DatastoreActivity = 6005,
}

impl Class {
    const fn uid(self) -> u32 {
        match self {
            Self::ScheduledJobActivity => 1006,
            Self::Authentication => 3002,
            Self::EntityManagement => 3004,
            Self::GroupManagement => 3006,
            Self::ApplicationLifecycle => 6002,
            Self::ApiActivity => 6003,
            Self::DatastoreActivity => 6005,
        }
    }
}

/// Class, activity, the activity's name, and the class's own fields.
struct Shape {
    class: Class,
    activity: u32,
    activity_name: &'static str,
    fields: Map<String, Value>,
}

const OTHER: u32 = 99;

pub(crate) fn render(entry: &Entry, sealed: BTreeMap<String, SealedValue>) -> Result<Rendered, EntryError> {
    let shape = shape(entry);
    let class_uid = shape.class.uid();
    let mut event = shape.fields;
    let (severity_id, severity) = severity(entry);
    let (status_id, status) = match entry.outcome {
        Outcome::Success => (1, "Success"),
        Outcome::Refused(_) | Outcome::Failed => (2, "Failure"),
    };
    let own = OwnPart {
        format: BODY_FORMAT,
        tenant: entry.tenant,
        producer: entry.producer.name.clone(),
        sequence: entry.producer.sequence.to_string(),
        action: entry.action().to_owned(),
        event: entry.event.clone(),
    };
    let as_json = |e: serde_json::Error| crate::canonical::CanonicalError::Json(e.to_string());
    let mut unmapped = Map::new();
    unmapped.insert("swarm".into(), serde_json::to_value(own).map_err(as_json)?);
    if !sealed.is_empty() {
        unmapped.insert("sealed".into(), serde_json::to_value(sealed).map_err(as_json)?);
    }
    let base = json!({
        "activity_id": shape.activity,
        "activity_name": shape.activity_name,
        "category_uid": class_uid / 1000,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + shape.activity,
        "time": entry.time.millis(),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "Swarm", "vendor_name": "Swarm" },
            "uid": entry.id.to_string(),
            "tenant_uid": entry.tenant.to_string(),
            "event_code": entry.event.kind(),
        },
        "unmapped": unmapped,
    });
    if let Value::Object(base) = base {
        event.extend(base);
    }
    if let Outcome::Refused(code) = entry.outcome {
        event.insert("status_code".into(), code.as_str().into());
    }
    if shape.class != Class::ApplicationLifecycle {
        event.insert("actor".into(), actor(&entry.actor));
    }
    if !matches!(shape.class, Class::ApplicationLifecycle | Class::ScheduledJobActivity) {
        event.insert("src_endpoint".into(), source(&entry.source));
    }
    Ok(Rendered { value: Value::Object(event), class_uid, activity: shape.activity })
}

fn actor(actor: &Actor) -> Value {
    match actor {
        Actor::User(principal, person) => {
            json!({ "user": { "uid": principal, "uid_alt": person, "type_id": 1, "type": "User" } })
        }
        Actor::Service(principal) => json!({ "user": { "uid": principal, "type_id": 4, "type": "Service" } }),
        Actor::Node(node) => json!({ "app_name": "swarm node", "app_uid": node }),
        Actor::System => json!({ "app_name": "swarm server" }),
        Actor::Stranger => json!({ "user": { "uid": "stranger", "type_id": 0, "type": "Unknown" } }),
    }
}

fn source(source: &Source) -> Value {
    match source {
        Source::Peer(uid) => json!({ "uid": uid }),
        Source::Node(node) => json!({ "uid": node, "svc_name": "swarm node" }),
        Source::Internal => json!({ "svc_name": "swarm server" }),
    }
}

fn severity(entry: &Entry) -> (u32, &'static str) {
    match (&entry.event, entry.outcome) {
        (
            Event::NodeRevoked { .. }
            | Event::KeyDestroyed { .. }
            | Event::SealRefused { .. }
            | Event::PolicyChanged { .. }
            | Event::WitnessPolicyChanged { .. }
            | Event::PersonErased { .. }
            | Event::NodeLost { lost: true, .. },
            _,
        ) => (3, "Medium"),
        (_, Outcome::Refused(_) | Outcome::Failed) => (2, "Low"),
        (_, Outcome::Success) => (1, "Informational"),
    }
}

fn shape(entry: &Entry) -> Shape {
    let event = &entry.event;
    match event {
        Event::LoggedIn { person, factors, token } => {
            let names: Vec<Value> = factors.iter().map(|factor| auth_factor(*factor)).collect();
            let fields = json!({ "user": { "uid": person }, "is_mfa": factors.len() > 1, "auth_factors": names,
                "session": { "uid": token } });
            authentication(1, "Logon", fields)
        }
        Event::LoginRefused { person, .. } => {
            let uid = person.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
            authentication(1, "Logon", json!({ "user": { "uid": uid } }))
        }
        Event::LoggedOut { token } => {
            authentication(2, "Logoff", json!({ "user": acting(entry), "session": { "uid": token } }))
        }
        Event::FactorEnrolled { person, factor } => factor_event("Enrol Factor", person.to_string(), *factor),
        Event::FactorRemoved { person, factor } => factor_event("Remove Factor", person.to_string(), *factor),
        Event::RecoveryCodeUsed { person, .. } => {
            factor_event("Use Recovery Code", person.to_string(), Factor::RecoveryCode)
        }
        Event::StepUpPassed { factor, .. } => {
            let fields = json!({ "user": acting(entry), "auth_factors": [auth_factor(*factor)] });
            authentication(OTHER, "Step Up", fields)
        }
        Event::StepUpRefused { .. } => authentication(OTHER, "Step Up", json!({ "user": acting(entry) })),
        Event::TokenIssued { token, holder, .. } => {
            let user = holder.map_or_else(|| acting(entry), |id| json!({ "uid": id }));
            let fields = json!({ "user": user, "session": { "uid": token } });
            authentication(OTHER, "Issue Token", fields)
        }
        Event::TokenSpent { token, .. } => {
            authentication(OTHER, "Spend Token", json!({ "user": acting(entry), "session": { "uid": token } }))
        }
        Event::TokenRevoked { token, .. } => {
            authentication(OTHER, "Revoke Token", json!({ "user": acting(entry), "session": { "uid": token } }))
        }
        Event::CertificateIssued { certificate, serial, issuer, subject, not_before, not_after, .. } => {
            let fields = json!({ "user": acting(entry), "certificate": {
                "serial_number": serial, "issuer": issuer, "subject": subject,
                "created_time": not_before, "expiration_time": not_after,
                "fingerprints": [{ "algorithm_id": 3, "algorithm": "SHA-256", "value": certificate.hex() }] } });
            authentication(OTHER, "Issue Certificate", fields)
        }
        Event::CertificateRevoked { serial, issuer, .. } => {
            let fields =
                json!({ "user": acting(entry), "certificate": { "serial_number": serial, "issuer": issuer } });
            authentication(OTHER, "Revoke Certificate", fields)
        }
        Event::RoleGranted { principal, role, .. } => group(3, "Add User", principal.to_string(), role),
        Event::RoleRevoked { principal, role, .. } => group(4, "Remove User", principal.to_string(), role),
        Event::TenantChanged { change, .. } => changed(event, *change, "Tenant"),
        Event::ProjectChanged { change, .. } => changed(event, *change, "Project"),
        Event::UserChanged { change, .. } => changed(event, *change, "User"),
        Event::ServiceAccountChanged { change, .. } => changed(event, *change, "Service Account"),
        Event::QuotaChanged { .. } => entity(event, 3, "Update", "Quota"),
        Event::PolicyChanged { .. } => entity(event, 3, "Update", "Policy Set"),
        Event::PersonErased { .. } => entity(event, 4, "Delete", "Person"),
        Event::PersonalRevealed { .. } => entity(event, 2, "Read", "Audit Entry"),
        Event::WitnessPolicyChanged { .. } => entity(event, 3, "Update", "Witness Policy"),
        Event::NodeEnrolled { .. } => entity(event, 6, "Enroll", "Node"),
        Event::NodeWitnessOffered { .. } | Event::NodeLogAnchored { .. } => entity(event, 3, "Update", "Node"),
        Event::NodeDrained { drained: true, .. } => entity(event, 12, "Suspend", "Node"),
        Event::NodeDrained { drained: false, .. } => entity(event, 13, "Resume", "Node"),
        Event::NodeDedicated { .. } => entity(event, 3, "Update", "Node"),
        Event::NodeRevoked { .. } => entity(event, 7, "Unenroll", "Node"),
        Event::NodeLost { lost: true, .. } => entity(event, 11, "Deactivate", "Node"),
        Event::NodeLost { lost: false, .. } => entity(event, 10, "Activate", "Node"),
        Event::KeyCreated { .. } => entity(event, 1, "Create", "Key"),
        Event::KeyRotated { .. } => entity(event, 3, "Update", "Key"),
        Event::KeyDestroyed { .. } | Event::KeyVersionEnded { .. } => entity(event, 4, "Delete", "Key"),
        Event::KeysRewrapped { .. } => entity(event, 3, "Update", "Key"),
        Event::KeyDestructionScheduled { .. } => entity(event, 11, "Deactivate", "Key"),
        Event::KeyDestructionCancelled { .. } => entity(event, 10, "Activate", "Key"),
        Event::RootEpochMade { .. } => entity(event, 1, "Create", "Root Epoch"),
        Event::RootEpochEnded { .. } => entity(event, 4, "Delete", "Root Epoch"),
        Event::BackupRetentionSet { .. } => entity(event, 3, "Update", "Backup Retention"),
        Event::SealOpened { .. } | Event::SealRefused { .. } => entity(event, 10, "Activate", "Seal"),
        Event::SealInitialised { .. } | Event::SealSharesDrawn { .. } => entity(event, 1, "Create", "Seal"),
        Event::SealChanged { .. } => entity(event, 3, "Update", "Seal"),
        Event::SecretCreated { .. } => entity(event, 1, "Create", "Secret"),
        Event::SecretSet { .. } => entity(event, 3, "Update", "Secret"),
        Event::SecretKeyReleased { .. } => datastore(event, 9, "Encrypt"),
        Event::SecretReleased { .. } => datastore(event, 10, "Decrypt"),
        Event::SecretDeleted { .. } => entity(event, 4, "Delete", "Secret"),
        Event::ImageImported { .. } => entity(event, 1, "Create", "Image"),
        Event::ImagePolicyChanged { .. } => entity(event, 3, "Update", "Image Policy"),
        Event::ImageSignaturesAdded { .. } => entity(event, 3, "Update", "Image"),
        Event::ImageSigned { .. } => api(entry, 2, "Read"),
        Event::ImageDeleted { .. } => entity(event, 4, "Delete", "Image"),
        Event::WriterRegistered { .. } => datastore(event, 9, "Encrypt"),
        Event::KeyReleased { mode: LeaseMode::Write, .. } => datastore(event, 9, "Encrypt"),
        Event::KeyReleased { mode: LeaseMode::Read, .. } => datastore(event, 10, "Decrypt"),
        Event::LeaseEnded { .. } => datastore(event, OTHER, "End Lease"),
        Event::VolumeCreated { .. } => datastore(event, 6, "Create"),
        Event::VolumeChanged { .. } => datastore(event, 2, "Update"),
        Event::VolumeCommitted { .. } => datastore(event, 5, "Write"),
        Event::VolumeDeleted { .. } => datastore(event, 7, "Delete"),
        Event::JobSubmitted { .. } => api(entry, 1, "Create"),
        Event::JobStopped { .. } | Event::JobEvicted { .. } => api(entry, 3, "Update"),
        Event::Exported { .. } => api(entry, 2, "Read"),
        Event::Refused { .. } => api(entry, OTHER, "Refuse"),
        Event::RefusalsCounted { minute, count, .. } | Event::StrangersRefused { minute, count, .. } => {
            let mut shape = api(entry, OTHER, "Refuse");
            shape.fields.insert("count".into(), json!(count));
            shape.fields.insert("start_time".into(), json!(minute));
            shape.fields.insert("end_time".into(), json!(minute.plus_millis(60_000)));
            shape
        }
        Event::JobPlaced { attempt, node, .. } => job(1, "Create", node.to_string(), attempt.to_string(), 2, "Queued"),
        Event::JobStep { attempt, node, state: JobState::Running } => {
            job(6, "Start", node.to_string(), attempt.to_string(), 3, "Running")
        }
        Event::JobStep { attempt, node, .. } => {
            job(2, "Update", node.to_string(), attempt.to_string(), 1, "Ready")
        }
        Event::JobFinished { attempt, node, .. } => {
            job(OTHER, "Finish", node.to_string(), attempt.to_string(), 4, "Stopped")
        }
        Event::ServerStarted { version } => application(3, "Start", Some(version)),
        Event::ServerStopped { version } => application(4, "Stop", Some(version)),
        Event::LogStarted { .. } => application(OTHER, "Start Log", None),
        Event::Heartbeat { .. } => application(OTHER, "Heartbeat", None),
        Event::EntriesCounted { .. } => application(OTHER, "Count Entries", None),
    }
}

fn fields_of(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// The actor as a `user`, which authentication events ask for.
fn acting(entry: &Entry) -> Value {
    let uid = match entry.actor {
        Actor::User(principal, _) | Actor::Service(principal) => principal.to_string(),
        Actor::Node(node) => node.to_string(),
        Actor::System => "swarm server".to_owned(),
        Actor::Stranger => "stranger".to_owned(),
    };
    json!({ "uid": uid })
}

fn authentication(activity: u32, activity_name: &'static str, fields: Value) -> Shape {
    let mut fields = fields_of(fields);
    fields.insert("service".into(), json!({ "name": "swarm" }));
    Shape { class: Class::Authentication, activity, activity_name, fields }
}

fn factor_event(name: &'static str, person: String, factor: Factor) -> Shape {
    authentication(OTHER, name, json!({ "user": { "uid": person }, "auth_factors": [auth_factor(factor)] }))
}

fn auth_factor(factor: Factor) -> Value {
    match factor {
        Factor::Password => json!({ "factor_type_id": 11, "factor_type": "Password" }),
        Factor::Totp => json!({ "factor_type_id": 7, "factor_type": "OTP", "is_totp": true }),
        Factor::Passkey => json!({ "factor_type_id": 10, "factor_type": "WebAuthn" }),
        Factor::RecoveryCode => json!({ "factor_type_id": 99, "factor_type": "Recovery Code" }),
    }
}

fn group(activity: u32, activity_name: &'static str, user: String, role: &str) -> Shape {
    let fields = fields_of(json!({ "user": { "uid": user }, "group": { "name": role, "type": "Role" } }));
    Shape { class: Class::GroupManagement, activity, activity_name, fields }
}

fn changed(event: &Event, change: Change, what: &'static str) -> Shape {
    match change {
        Change::Created => entity(event, 1, "Create", what),
        Change::Updated => entity(event, 3, "Update", what),
        Change::Disabled => entity(event, 9, "Disable", what),
        Change::Enabled => entity(event, 8, "Enable", what),
        Change::Deleted => entity(event, 4, "Delete", what),
    }
}

fn entity(event: &Event, activity: u32, activity_name: &'static str, what: &'static str) -> Shape {
    let (_, uid) = event.resource();
    let fields = fields_of(json!({ "entity": { "uid": uid, "type_id": 99, "type": what } }));
    Shape { class: Class::EntityManagement, activity, activity_name, fields }
}

fn datastore(event: &Event, activity: u32, activity_name: &'static str) -> Shape {
    let (_, uid) = event.resource();
    let bucket = json!({ "databucket": { "uid": uid, "type_id": 99, "type": "Sealed Volume", "is_encrypted": true } });
    Shape { class: Class::DatastoreActivity, activity, activity_name, fields: fields_of(bucket) }
}

fn api(entry: &Entry, activity: u32, activity_name: &'static str) -> Shape {
    let (kind, uid) = entry.event.resource();
    let mut fields = fields_of(json!({ "api": { "operation": entry.action(), "service": { "name": "swarm" } } }));
    if !uid.is_empty() {
        fields.insert("resources".into(), json!([{ "uid": uid, "type": kind }]));
    }
    Shape { class: Class::ApiActivity, activity, activity_name, fields }
}

fn job(
    activity: u32,
    activity_name: &'static str,
    node: String,
    attempt: String,
    run_state_id: u32,
    run_state: &'static str,
) -> Shape {
    let fields = fields_of(json!({
        "device": { "uid": node, "type_id": 1, "type": "Server" },
        "job": { "name": attempt, "run_state_id": run_state_id, "run_state": run_state },
    }));
    Shape { class: Class::ScheduledJobActivity, activity, activity_name, fields }
}

fn application(activity: u32, activity_name: &'static str, version: Option<&String>) -> Shape {
    let mut app = fields_of(json!({ "name": "swarm server" }));
    if let Some(version) = version {
        app.insert("version".into(), json!(version));
    }
    Shape { class: Class::ApplicationLifecycle, activity, activity_name, fields: fields_of(json!({ "app": app })) }
}
