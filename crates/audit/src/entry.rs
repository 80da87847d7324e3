//! An entry of the log: an event with who, from where, when and how it went; its body, leaf and search columns.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use vocabulary::{EntryId, ErrorCode, NodeId, PersonId, PrincipalId, TenantId, UnixTime};

use crate::canonical::{self, CanonicalError};
use crate::event::Event;
use crate::leaf::{LEAF_BYTES, leaf};
use crate::limits::{BODY_MAX, SEALED_FIELDS_MAX, TEXT_MAX, TIME_MAX_MS, TIME_MIN_MS};
use crate::ocsf;
use crate::sealed::{Opened, Personal, SealError, SealedValue, SubjectRoot, open_sealed, seal};
use crate::validate::{self, RuleBroken};

/// The version of the body's own part (`unmapped.swarm`).
pub const BODY_FORMAT: u32 = 1;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A user's or operator's principal.
    User(PrincipalId, PersonId),
    /// A service account.
    Service(PrincipalId),
    /// A node.
    Node(NodeId),
    /// The control plane itself.
    System,
    /// Somebody without a valid credential.
    Stranger,
}

impl Actor {
    /// The principal, for the search column.
    #[must_use]
    pub const fn principal(&self) -> Option<PrincipalId> {
        match self {
            Self::User(principal, _) | Self::Service(principal) => Some(*principal),
            Self::Node(_) | Self::System | Self::Stranger => None,
        }
    }
}

/// Where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A network peer by its pseudonym ([`SubjectRoot::pseudonym`]); the address itself is sealed.
    Peer(String),
    /// A node, over its own channel.
    Node(NodeId),
    /// The control plane itself.
    Internal,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Success,
    /// A rule or a missing right refused it.
    Refused(ErrorCode),
    /// It was tried and failed.
    Failed,
}

impl Outcome {
    /// The word of the search column.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "allowed",
            Self::Refused(_) => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Who counts the entries that it makes, so that missing ones show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Such as `control` or `node/<id>`, and which run of it: 1 to 100 bytes.
    pub name: String,
    /// Rises by one with every entry of this producer.
    pub sequence: u64,
}

/// One thing to record.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id (UUID version 7).
    pub id: EntryId,
    /// When it happened.
    pub time: UnixTime,
    /// The tenant that it concerns; `SYSTEM_OWNER` for the deployment itself.
    pub tenant: TenantId,
    /// Who recorded it.
    pub producer: Producer,
    /// Who did it.
    pub actor: Actor,
    /// From where.
    pub source: Source,
    /// How it went.
    pub outcome: Outcome,
    /// The policy's action, such as `volume.put`; `None` takes the event's kind.
    pub action: Option<String>,
    /// What happened.
    pub event: Event,
    /// Personal values, sealed under their subjects' keys.
    pub personal: Vec<Personal>,
}

/// Why an entry was not encoded or a body not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A text field is too long or has control characters.
    #[error("field `{0}`: a text has at most {TEXT_MAX} bytes and no control characters")]
    Text(String),
    /// Too many personal values, or two for one field.
    #[error("an entry has at most {SEALED_FIELDS_MAX} personal values, one for each field")]
    Personal,
    /// A personal value was refused.
    #[error("a personal value was refused")]
    Seal(#[from] SealError),
    /// The time is not in milliseconds since 1970.
    #[error("the time is not in milliseconds since 1970")]
    Time,
    /// The body is not canonical JSON of at most [`BODY_MAX`] bytes.
    #[error("the body is not canonical JSON")]
    Canonical(#[from] CanonicalError),
    /// A rule of the second layer refuses the body.
    #[error("the body breaks a rule")]
    Rule(#[from] RuleBroken),
}

/// What the store takes: the bytes as they are hashed, and columns to search by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEntry {
    /// The entry's id.
    pub id: EntryId,
    /// The tenant that it concerns.
    pub tenant: TenantId,
    /// The salt of the leaf.
    pub salt: [u8; 32],
    /// The body: canonical JSON. Stored as it is, never written again from parsed data.
    pub body: Vec<u8>,
    /// The leaf.
    pub leaf: [u8; LEAF_BYTES],
    /// OCSF class.
    pub class_uid: u32,
    /// OCSF activity.
    pub activity: u32,
    /// The event's kind.
    pub kind: &'static str,
    /// The acting principal.
    pub actor: Option<PrincipalId>,
    /// The policy's action.
    pub action: String,
    /// The resource's kind.
    pub resource_kind: String,
    /// The resource's id, as text.
    pub resource: String,
    /// `allowed`, `refused` or `failed`.
    pub outcome: &'static str,
    /// When it happened.
    pub time: UnixTime,
}

impl Entry {
    /// The policy's action, or the event's kind.
    #[must_use]
    pub fn action(&self) -> &str {
        match (&self.action, &self.event) {
            (Some(action), _) | (None, Event::Refused { action, .. } | Event::RefusalsCounted { action, .. }) => action,
            (None, event) => event.kind(),
        }
    }

    /// Makes body, salt and leaf. `random` fills bytes from the one source of randomness.
    pub fn encode(&self, random: &mut dyn FnMut(&mut [u8])) -> Result<EncodedEntry, EntryError> {
        if !(TIME_MIN_MS..=TIME_MAX_MS).contains(&self.time.millis()) {
            return Err(EntryError::Time);
        }
        if self.personal.len() > SEALED_FIELDS_MAX {
            return Err(EntryError::Personal);
        }
        let mut sealed = BTreeMap::new();
        for personal in &self.personal {
            let mut nonce = [0; 12];
            random(&mut nonce);
            if sealed.insert(personal.path.clone(), seal(self.id, personal, nonce)?).is_some() {
                return Err(EntryError::Personal);
            }
        }
        let rendered = ocsf::render(self, sealed)?;
        texts(&rendered.value, "")?;
        validate::validate(&rendered.value)?;
        let body = canonical::to_vec(&rendered.value)?;
        if body.len() > BODY_MAX {
            return Err(CanonicalError::TooLong(BODY_MAX).into());
        }
        let mut salt = [0; 32];
        random(&mut salt);
        let (resource_kind, resource) = self.event.resource();
        Ok(EncodedEntry {
            id: self.id,
            tenant: self.tenant,
            salt,
            leaf: leaf(&salt, &body),
            body,
            class_uid: rendered.class_uid,
            activity: rendered.activity,
            kind: self.event.kind(),
            actor: self.actor.principal(),
            action: self.action().to_owned(),
            resource_kind: resource_kind.to_owned(),
            resource,
            outcome: self.outcome.as_str(),
            time: self.time,
        })
    }
}

/// The part of a body that is ours: `unmapped.swarm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnPart {
    /// [`BODY_FORMAT`].
    pub format: u32,
    /// The tenant.
    pub tenant: TenantId,
    /// Who recorded it.
    pub producer: String,
    /// Its sequence, as text because it may pass 2^53.
    pub sequence: String,
    /// The policy's action.
    pub action: String,
    /// What happened.
    pub event: Event,
}

/// A body that was read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The whole event.
    pub value: Value,
    /// Our part.
    pub own: OwnPart,
    /// The entry's id.
    pub id: EntryId,
    /// When it happened.
    pub time: UnixTime,
    /// Sealed personal values by field.
    pub sealed: BTreeMap<String, SealedValue>,
}

impl Body {
    /// Reads a body: canonical bytes, all rules of [`validate::validate`], our part in its own schema.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let value = canonical::value_from_slice(bytes, BODY_MAX)?;
        validate::validate(&value)?;
        let parts = validate::own_parts(&value)?;
        Ok(Self { own: parts.own, id: parts.id, time: parts.time, sealed: parts.sealed, value })
    }

    /// Reads a sealed personal value; `root` is `None` when the subject's root was destroyed.
    pub fn open(&self, path: &str, root: Option<&SubjectRoot>) -> Option<Result<Opened, SealError>> {
        self.sealed.get(path).map(|sealed| open_sealed(self.id, path, sealed, root))
    }
}

/// Every text is bounded and printable: names and reasons come from outsiders.
fn texts(value: &Value, path: &str) -> Result<(), EntryError> {
    match value {
        Value::String(text) => {
            let fits = text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
            if fits { Ok(()) } else { Err(EntryError::Text(path.to_owned())) }
        }
        Value::Array(items) => items.iter().try_for_each(|item| texts(item, path)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, item)| texts(item, &format!("{path}/{key}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
