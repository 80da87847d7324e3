//! The log's entries, its published checkpoint, revocations and refusals that are only counted.

use vocabulary::{ControlId, EntryId, NodeId, PrincipalId, TenantId, UnixTime};

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// Its place in the log.
    pub index: u64,
    /// Its id.
    pub id: EntryId,
    /// The tenant that it concerns.
    pub tenant: TenantId,
    /// The salt of the leaf.
    pub salt: [u8; 32],
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// The leaf.
    pub leaf: [u8; 33],
    /// OCSF class.
    pub class_uid: u32,
    /// OCSF activity.
    pub activity: u32,
    /// The event's kind.
    pub kind: String,
    /// The acting principal.
    pub actor: Option<PrincipalId>,
    /// The policy's action.
    pub action: String,
    /// The resource's kind.
    pub resource_kind: String,
    /// The resource's id, as text.
    pub resource: String,
    /// `allowed`, `refused` or `failed`.
    pub outcome: String,
    /// When it happened.
    pub time: UnixTime,
}

/// A leaf with its place: all that the publisher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its place in the log.
    pub index: u64,
    /// The leaf.
    pub leaf: [u8; 33],
    /// When the entry happened.
    pub time: UnixTime,
}

/// The log's publisher and what was published last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Who holds the lease.
    pub holder: ControlId,
    /// The fencing token: rises when another takes over.
    pub token: u64,
    /// Until when.
    pub until: UnixTime,
    /// The size of the published tree.
    pub size: u64,
    /// Its root; empty before the first one.
    pub root: Option<[u8; 32]>,
    /// The signed note; empty before the first one.
    pub checkpoint: Vec<u8>,
}

/// What is no longer trusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// All certificates of a node.
    Node(NodeId),
    /// One certificate: its serial number in hexadecimal.
    Serial(String),
}

/// An item of the set of revocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedRow {
    /// The version of the set that it made.
    pub version: u64,
    /// What.
    pub what: Revoked,
    /// Since when.
    pub since: UnixTime,
}

/// Refusals of strangers, counted into one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalCount {
    /// The pseudonym of the source.
    pub source: String,
    /// The minute: its first millisecond.
    pub minute: UnixTime,
    /// The error code.
    pub code: String,
    /// How many.
    pub count: u64,
}
