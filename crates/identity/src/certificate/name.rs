//! What certificates say about their subject: class, SPIFFE id, serial number.

use std::fmt;
use std::str::FromStr;

use vocabulary::{ControlId, DeploymentId, KeyId, NodeId};

/// The longest SPIFFE id of ours, with room.
const SPIFFE_MAX: usize = 128;

/// What kind of subject a certificate speaks for. An issuing authority speaks for one class only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A node.
    Node,
    /// A process of the control plane.
    Control,
    /// A key that signs receipts and plans. It is no TLS identity.
    Receipt,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Node, Self::Control, Self::Receipt];

    /// The word in SPIFFE ids and subjects.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Control => "control",
            Self::Receipt => "receipt",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// A process of the control plane.
    Control(ControlId),
    /// A receipt key.
    Receipt(KeyId),
}

impl Subject {
    /// The class of the subject.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Node(_) => Class::Node,
            Self::Control(_) => Class::Control,
            Self::Receipt(_) => Class::Receipt,
        }
    }
    /// The sixteen bytes of its id.
    #[must_use]
    pub const fn id_bytes(&self) -> &[u8; 16] {
        match self {
            Self::Node(id) => id.as_bytes(),
            Self::Control(id) => id.as_bytes(),
            Self::Receipt(id) => id.as_bytes(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Control(id) => write!(f, "control/{id}"),
            Self::Receipt(id) => write!(f, "receipt/{id}"),
        }
    }
}

/// A text is not a SPIFFE id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SPIFFE id of Swarm: expected spiffe://DEPLOYMENT/(node|control|receipt)/ID")]
pub struct SpiffeError;

/// A leaf's identity: `spiffe://<deployment>/<class>/<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The trust domain.
    pub deployment: DeploymentId,
    /// Who in it.
    pub subject: Subject,
}

impl SpiffeId {
    /// The id of a trust domain itself, as authorities carry it: no path.
    #[must_use]
    pub fn trust_domain(deployment: DeploymentId) -> String {
        format!("spiffe://{deployment}")
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.deployment, self.subject)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;
    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > SPIFFE_MAX {
            return Err(SpiffeError);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError)?;
        let (class, id) = path.split_once('/').ok_or(SpiffeError)?;
        let deployment = domain.parse().map_err(|_| SpiffeError)?;
        let subject = match class {
            "node" => Subject::Node(id.parse().map_err(|_| SpiffeError)?),
            "control" => Subject::Control(id.parse().map_err(|_| SpiffeError)?),
            "receipt" => Subject::Receipt(id.parse().map_err(|_| SpiffeError)?),
            _ => return Err(SpiffeError),
        };
        let id = Self { deployment, subject };
        // One id, one text: upper case and other spellings of the same bytes are refused.
        if id.to_string() == text { Ok(id) } else { Err(SpiffeError) }
    }
}

/// A certificate's serial number: sixteen bytes, positive, 126 of its bits random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Draws a serial number. The first two bits are `01`: positive, and always sixteen bytes long in DER.
    #[must_use]
    pub fn draw(random: &mut dyn keys::Random) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let [first, ..] = &mut bytes;
        *first = (*first & 0x3f) | 0x40;
        Self(bytes)
    }
    /// Takes the content bytes of a DER integer; refuses what [`Serial::draw`] cannot have made.
    #[must_use]
    pub fn from_der_content(content: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = content.try_into().ok()?;
        let [first, ..] = bytes;
        (first & 0xc0 == 0x40).then_some(Self(bytes))
    }
    /// Reads 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 16];
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(())?;
        Self::from_der_content(&bytes)
    }
    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}
