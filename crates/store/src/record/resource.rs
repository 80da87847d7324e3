//! Resources: one table for everything that needs no condition of its own.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vocabulary::{Name, ProjectId, TenantId, UnixTime};

use crate::error::ReadError;
use crate::kind::{Id16, Kind};
use crate::transaction::Expect;

/// Why a value is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It cannot be written as JSON.
    #[error("the body cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// It does not say its format.
    #[error("a body is a JSON object with a number `format`, so that later programs know how to read it")]
    Format,
}

/// Writes a resource whole: what is not said here is empty afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub kind: Kind,
    /// Which.
    pub id: [u8; 16],
    /// What must be there.
    pub expect: Expect,
    /// The project that it belongs to.
    pub project: Option<ProjectId>,
    /// Unique among the live ones of tenant, kind and project.
    pub name: Option<Name>,
    /// What it belongs to, for finding: see the kinds.
    pub parent: Option<[u8; 16]>,
    /// What it points at, for finding: see the kinds.
    pub link: Option<[u8; 16]>,
    /// Its state, for finding and for [`crate::Mutation::Step`]. This column alone is authoritative: keep it out of the body.
    pub state: Option<String>,
    /// When it ends, for finding and for [`crate::Mutation::Extend`]. As for `state`.
    pub until: Option<UnixTime>,
    /// JSON: an object with a number `format`.
    pub body: String,
}

impl Put {
    /// A resource with this value as its body.
    pub fn json<T: Serialize>(tenant: TenantId, kind: Kind, id: impl Id16, expect: Expect, value: &T) -> Result<Self, BodyError> {
        let value = serde_json::to_value(value)?;
        if !value.get("format").is_some_and(serde_json::Value::is_u64) {
            return Err(BodyError::Format);
        }
        Ok(Self {
            tenant,
            kind,
            id: id.id16(),
            expect,
            project: None,
            name: None,
            parent: None,
            link: None,
            state: None,
            until: None,
            body: value.to_string(),
        })
    }
    /// In a project.
    #[must_use]
    pub const fn project(mut self, project: ProjectId) -> Self {
        self.project = Some(project);
        self
    }
    /// With a name.
    #[must_use]
    pub fn name(mut self, name: &Name) -> Self {
        self.name = Some(name.clone());
        self
    }
    /// Belonging to something.
    #[must_use]
    pub fn parent(mut self, id: impl Id16) -> Self {
        self.parent = Some(id.id16());
        self
    }
    /// Pointing at something.
    #[must_use]
    pub fn link(mut self, id: impl Id16) -> Self {
        self.link = Some(id.id16());
        self
    }
    /// In a state.
    #[must_use]
    pub fn state(mut self, state: &str) -> Self {
        self.state = Some(state.to_owned());
        self
    }
    /// With an end.
    #[must_use]
    pub const fn until(mut self, until: UnixTime) -> Self {
        self.until = Some(until);
        self
    }
}

/// A live resource as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub kind: String,
    /// Which.
    pub id: [u8; 16],
    /// Its project.
    pub project: Option<ProjectId>,
    /// Its name.
    pub name: Option<String>,
    /// What it belongs to.
    pub parent: Option<[u8; 16]>,
    /// What it points at.
    pub link: Option<[u8; 16]>,
    /// Its state.
    pub state: Option<String>,
    /// When it ends.
    pub until: Option<UnixTime>,
    /// Counts from 1.
    pub revision: u64,
    /// The place of its last change.
    pub change_seq: u64,
    /// JSON.
    pub body: String,
}

impl Resource {
    /// The body as a value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ReadError> {
        serde_json::from_str(&self.body).map_err(|source| ReadError::Body { kind: self.kind.clone(), source })
    }
}
