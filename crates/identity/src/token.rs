//! Tokens: `swm_<kind>_<id>_<secret><crc>`, opaque, found by secret scanners, stored only as a peppered code.
//!
//! The id is sixteen random bytes and no secret; the secret has 32. Both are base62 of fixed width, most significant
//! digit first; the last six characters are the CRC-32 of everything before them. A typing error is told apart from a
//! wrong token before anything is looked up.

use std::fmt;

use vocabulary::TokenId;
use zeroize::Zeroizing;

use crate::pepper::{Pepper, PepperedMac, Peppers};

/// What a secret scanner looks for.
pub const TOKEN_PATTERN: &str = "swm_(ses|ref|pat|svc|join|rec|enr)_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}";
/// What every token begins with.
const PREFIX: &str = "swm_";
/// Characters of an id.
const ID_LEN: usize = 22;
/// Characters of a secret.
const SECRET_LEN: usize = 43;
/// Characters of a checksum.
const CRC_LEN: usize = 6;
/// The digits of base62.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// A login.
    Session,
    /// Renews a login. Not issued yet.
    Refresh,
    /// A person's token for programs.
    Personal,
    /// A service account's token.
    Service,
    /// Lets one node join.
    Join,
    /// Lets a person without factors back in. Not issued yet; recovery codes have their own, shorter form.
    Recovery,
    /// Lets a person enrol factors, and nothing else: the one-time ticket.
    Enrolment,
}

impl TokenKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Session, Self::Refresh, Self::Personal, Self::Service, Self::Join, Self::Recovery, Self::Enrolment];

    /// The word in the token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "ses",
            Self::Refresh => "ref",
            Self::Personal => "pat",
            Self::Service => "svc",
            Self::Join => "join",
            Self::Recovery => "rec",
            Self::Enrolment => "enr",
        }
    }
    /// The kind of a stored word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A text is no token. The text itself is never repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another shape.
    #[error("not a token: expected swm_KIND_ID_SECRET")]
    Shape,
    /// The checksum does not match: it was mistyped or cut.
    #[error("the token is mistyped or incomplete: its checksum does not match")]
    Checksum,
    /// The digits stand for more than sixteen or thirty-two bytes.
    #[error("not a token: its digits are out of range")]
    Range,
}

/// A token with its secret, wiped on drop. Prints its kind and id only.
pub struct Token {
    kind: TokenKind,
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
}

impl Token {
    /// Draws a token.
    #[must_use]
    pub fn draw(kind: TokenKind, random: &mut dyn keys::Random) -> Self {
        let mut id = [0; 16];
        random.fill(&mut id);
        let mut secret = Zeroizing::new([0; 32]);
        random.fill(secret.as_mut());
        Self { kind, id: TokenId::from_bytes(id), secret }
    }
    /// Reads a token: prefix and kind by comparison, then the checksum, then the digits. No input or output happens here.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Shape)?;
        let (kind, rest) = TokenKind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, rest.strip_prefix(kind.as_str())?.strip_prefix('_')?)))
            .ok_or(TokenError::Shape)?;
        let (id, rest) = rest.split_once('_').ok_or(TokenError::Shape)?;
        let shaped = |t: &str, len| t.len() == len && t.bytes().all(|b| b.is_ascii_alphanumeric());
        if !shaped(id, ID_LEN) || !shaped(rest, SECRET_LEN + CRC_LEN) {
            return Err(TokenError::Shape);
        }
        let (secret, crc) = rest.split_at_checked(SECRET_LEN).ok_or(TokenError::Shape)?;
        let covered = text.strip_suffix(crc).ok_or(TokenError::Shape)?;
        if checksum(covered) != crc {
            return Err(TokenError::Checksum);
        }
        let id: [u8; 16] = base62_decode(id).ok_or(TokenError::Range)?;
        let secret = Zeroizing::new(base62_decode(secret).ok_or(TokenError::Range)?);
        Ok(Self { kind, id: TokenId::from_bytes(id), secret })
    }
    /// The token's text, to be shown once or sent.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let (id, secret) = (base62_encode(self.id.as_bytes(), ID_LEN), base62_encode(self.secret.as_ref(), SECRET_LEN));
        let mut text = Zeroizing::new(format!("{PREFIX}{}_{}_{}", self.kind.as_str(), id.as_str(), secret.as_str()));
        let crc = checksum(&text);
        text.push_str(&crc);
        text
    }
    /// What it is for, as it says itself; the stored record must say the same.
    #[must_use]
    pub const fn kind(&self) -> TokenKind {
        self.kind
    }
    /// Its id: for looking up the record, for lists and for the audit log. No capability.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }
    /// What is stored of it.
    #[must_use]
    pub fn record(&self, pepper: &Pepper) -> TokenRecord {
        TokenRecord { kind: self.kind, id: self.id, mac: pepper.mac(&[self.secret.as_ref()]) }
    }
    /// Whether a stored record is this token's: kind, id and, in constant time, the secret's code.
    #[must_use]
    pub fn fits(&self, stored: &TokenRecord, peppers: &Peppers) -> bool {
        // The code is computed in any case, so that a record of another kind costs the same.
        let secret = peppers.fits(&stored.mac, &[self.secret.as_ref()]);
        secret & (stored.kind == self.kind) & (stored.id == self.id)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {}, secret)", self.kind.as_str(), self.id)
    }
}

/// What is stored of a token. Whose it is, when it ends and whether it is revoked stand beside it in the row.
#[derive(Debug, Clone, Copy)]
pub struct TokenRecord {
    /// What it is for.
    pub kind: TokenKind,
    /// Its id.
    pub id: TokenId,
    /// The code of its secret.
    pub mac: PepperedMac,
}

fn checksum(text: &str) -> String {
    base62_encode(&crc32fast::hash(text.as_bytes()).to_be_bytes(), CRC_LEN).to_string()
}

/// A big-endian number in base62, with leading zeros.
fn base62_encode(bytes: &[u8], width: usize) -> Zeroizing<String> {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new(Vec::with_capacity(width));
    for _ in 0..width {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        let digit = usize::try_from(remainder).ok().and_then(|d| ALPHABET.get(d));
        digits.push(digit.copied().unwrap_or(b'0'));
    }
    Zeroizing::new(digits.iter().rev().map(|d| char::from(*d)).collect())
}

/// The number back as bytes; `None` when it has other digits or does not fit.
fn base62_decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = Zeroizing::new([0u8; N]);
    for c in text.bytes() {
        let digit = ALPHABET.iter().position(|a| *a == c)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(*number)
}
