//! What is no longer trusted: a versioned set, as data, and the handle through which a verifier sees the newest one.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use vocabulary::NodeId;
use vocabulary::plan::Revocations;

use crate::certificate::{Serial, Subject, VerifiedPeer};
use crate::limits::REVOCATIONS_MAX;

/// A revocation set is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Longer than [`REVOCATIONS_MAX`].
    #[error("more than {REVOCATIONS_MAX} entries")]
    TooMany,
    /// A serial number is not 32 lower-case hexadecimal digits of one of our certificates.
    #[error("a serial number is malformed")]
    Serial,
    /// The set is older than the one in force: revocations only grow.
    #[error("version {offered} is older than version {current}, which is in force")]
    Older {
        /// What was offered.
        offered: u64,
        /// What is in force.
        current: u64,
    },
}

/// Nodes and single certificates that are no longer trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevocationSet {
    version: u64,
    nodes: BTreeSet<NodeId>,
    serials: BTreeSet<Serial>,
}

impl RevocationSet {
    /// The next set, with one more node.
    #[must_use]
    pub fn with_node(&self, node: NodeId) -> Self {
        let mut next = self.clone();
        next.version = next.version.saturating_add(1);
        next.nodes.insert(node);
        next
    }
    /// The next set, with one more certificate.
    #[must_use]
    pub fn with_serial(&self, serial: Serial) -> Self {
        let mut next = self.clone();
        next.version = next.version.saturating_add(1);
        next.serials.insert(serial);
        next
    }
    /// Rises with every change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }
    /// Whether this subject or certificate is in the set.
    #[must_use]
    pub fn contains(&self, subject: &Subject, serial: &Serial) -> bool {
        let by_node = match subject {
            Subject::Node(node) => self.nodes.contains(node),
            Subject::Control(_) | Subject::Receipt(_) => false,
        };
        by_node || self.serials.contains(serial)
    }
    /// Whether a peer that was verified earlier must be cut off now.
    #[must_use]
    pub fn refuses(&self, peer: &VerifiedPeer) -> bool {
        self.contains(&peer.id.subject, &peer.serial)
    }
    /// The set as it travels in a plan.
    #[must_use]
    pub fn to_wire(&self) -> Revocations {
        Revocations {
            version: self.version,
            nodes: self.nodes.iter().copied().collect(),
            serials: self.serials.iter().map(ToString::to_string).collect(),
        }
    }
    /// Reads a set as it travels in a plan.
    pub fn from_wire(wire: &Revocations) -> Result<Self, RevocationError> {
        if wire.nodes.len() > REVOCATIONS_MAX || wire.serials.len() > REVOCATIONS_MAX {
            return Err(RevocationError::TooMany);
        }
        let serials = wire.serials.iter().map(|s| Serial::from_hex(s).ok_or(RevocationError::Serial));
        Ok(Self {
            version: wire.version,
            nodes: wire.nodes.iter().copied().collect(),
            serials: serials.collect::<Result<_, _>>()?,
        })
    }
}

/// The set in force, shared between verifiers and whoever replaces it.
#[derive(Debug, Clone, Default)]
pub struct LiveRevocations(Arc<RwLock<Arc<RevocationSet>>>);

impl LiveRevocations {
    /// Begins with a set.
    #[must_use]
    pub fn new(set: RevocationSet) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(set))))
    }
    /// The set in force.
    #[must_use]
    pub fn current(&self) -> Arc<RevocationSet> {
        // The guarded value is replaced as a whole, so a poisoned lock still holds a good one.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// Puts a newer set in force. The same version again changes nothing; an older one is refused.
    pub fn replace(&self, set: RevocationSet) -> Result<(), RevocationError> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if set.version < current.version {
            return Err(RevocationError::Older { offered: set.version, current: current.version });
        }
        if set.version > current.version {
            *current = Arc::new(set);
        }
        Ok(())
    }
}
