//! Keys of notes: verifier keys (`NAME+ID+BASE64`), key ids, Ed25519 signing.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::str::FromStr;

use crate::hash::sha256;
use crate::limits::KEY_NAME_MAX;

/// What a key signs: the type byte of C2SP signed-note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: a timestamped Ed25519 cosignature, `cosignature/v1`.
    CosignatureV1,
}

impl KeyKind {
    /// The type byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::CosignatureV1 => 4,
        }
    }
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Ed25519),
            4 => Some(Self::CosignatureV1),
            _ => None,
        }
    }
}

/// A text is not a verifier key that we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `NAME+8 hexadecimal digits+base64`.
    #[error("not a verifier key: expected NAME+KEYID+BASE64")]
    Shape,
    /// The name is empty, too long, or has a space, control character or plus.
    #[error("a key's name has 1 to {KEY_NAME_MAX} bytes without spaces, control characters or `+`")]
    Name,
    /// A type of key that is not known here.
    #[error("the key's type is not Ed25519 (0x01) or cosignature/v1 (0x04)")]
    Kind,
    /// The id is not that of name and key.
    #[error("the key id does not belong to this name and key")]
    Id,
}

/// Whether a text may name a key or a log.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= KEY_NAME_MAX
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// A public key with its name: what checks signatures of notes.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: [u8; 32],
}

impl VerifierKey {
    /// Names a public key.
    pub fn new(name: &str, kind: KeyKind, public: [u8; 32]) -> Result<Self, KeyError> {
        if is_name(name) { Ok(Self { name: name.to_owned(), kind, public }) } else { Err(KeyError::Name) }
    }
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The type.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }
    /// The 32 bytes of the Ed25519 key.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }
    /// The id: the first four bytes of SHA-256(name ‖ LF ‖ type ‖ key).
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest = sha256(&[self.name.as_bytes(), b"\n", &[self.kind.byte()], &self.public]);
        let [a, b, c, d, ..] = digest;
        [a, b, c, d]
    }
    /// Whether `signature` is this key's over `message` (RFC 8032; the message as the key's type prescribes).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == 64 && UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind.byte()];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(key))
    }
}
impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_NAME_MAX + 128 {
            return Err(KeyError::Shape);
        }
        // Base64 may hold a plus, a name and an id may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Shape);
        };
        let bytes = STANDARD.decode(key).map_err(|_| KeyError::Shape)?;
        let (kind, public) = bytes.split_first().ok_or(KeyError::Shape)?;
        let kind = KeyKind::from_byte(*kind).ok_or(KeyError::Kind)?;
        let key = Self::new(name, kind, public.try_into().map_err(|_| KeyError::Shape)?)?;
        if hex::encode(key.id()) == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// Whoever signs notes: a key in memory, or one that a room with better walls keeps.
pub trait LogSigner {
    /// The key's name; for a log it is the origin.
    fn name(&self) -> &str;
    /// The Ed25519 public key.
    fn public(&self) -> [u8; 32];
    /// Ed25519 over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// An Ed25519 key in memory.
pub struct Ed25519Signer {
    name: String,
    pair: Ed25519KeyPair,
}

impl Ed25519Signer {
    /// Makes the key of a 32-byte seed (RFC 8032).
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Shape)?;
        Ok(Self { name: name.to_owned(), pair })
    }
}

impl LogSigner for Ed25519Signer {
    fn name(&self) -> &str {
        &self.name
    }
    fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        for (to, from) in public.iter_mut().zip(self.pair.public_key().as_ref()) {
            *to = *from;
        }
        public
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(self.pair.sign(message).as_ref()) {
            *to = *from;
        }
        signature
    }
}

impl fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ed25519Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The verifier key of a signer, for one kind of signature.
pub fn verifier_of(signer: &dyn LogSigner, kind: KeyKind) -> Result<VerifierKey, KeyError> {
    VerifierKey::new(signer.name(), kind, signer.public())
}
