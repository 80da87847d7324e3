//! Signed notes (C2SP signed-note): a text, an empty line, signature lines.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::cosignature;
use crate::key::{KeyError, KeyKind, LogSigner, VerifierKey, is_name, verifier_of};
use crate::limits::{NOTE_MAX, SIGNATURES_READ_MAX, SIGNATURES_WRITE_MAX};

/// Standard base64 with padding whose last letter may have bits that say nothing.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than a note may be.
    #[error("a note has at most {NOTE_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or a control character other than a line feed.
    #[error("a note is UTF-8 without control characters")]
    Text,
    /// No text, no empty line, no signature, or no line feed at an end.
    #[error("not a signed note: expected text, an empty line and signature lines, each ended by a line feed")]
    Shape,
    /// A signature line is malformed.
    #[error("signature line {0} is malformed")]
    SignatureLine(usize),
    /// More signatures than allowed.
    #[error("the note has more than {0} signatures")]
    TooManySignatures(usize),
    /// Two of the given keys have the same name and id.
    #[error("two keys of the verifier have the name and id of `{0}`")]
    AmbiguousKey(String),
    /// A known key's signature fails.
    #[error("the signature of `{0}` does not verify")]
    BadSignature(String),
    /// None of the signatures is by a known key.
    #[error("no signature is by a known key")]
    NoKnownSignature,
    /// In strict reading: a signature by an unknown key.
    #[error("the signature of `{0}` is by an unknown key")]
    UnknownSignature(String),
    /// In strict reading: a key signed twice.
    #[error("`{0}` signed twice")]
    SignedTwice(String),
    /// A signer's name is no key name.
    #[error("the signer's name is refused")]
    Signer(#[from] KeyError),
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: [u8; 4],
    /// What follows the id: 64 bytes for Ed25519, 72 for a cosignature.
    pub bytes: Vec<u8>,
}

impl NoteSignature {
    /// The line with its line feed.
    #[must_use]
    pub fn line(&self) -> String {
        let mut bytes = self.id.to_vec();
        bytes.extend_from_slice(&self.bytes);
        format!("— {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

/// A note as it was read; nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A signature that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The key that made it.
    pub key: VerifierKey,
    /// For a cosignature: the witness's time, seconds since 1970.
    pub time: Option<u64>,
}

impl Note {
    /// Reads a note in its one form: what is written again is what was read.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        Self::read(bytes, &STANDARD)
    }

    /// Reads a note as logs of others may write it: the last letter of a line's base64 may have bits that say nothing, which
    /// Go's library lets be. For a witness, which keeps no line that it did not write itself or verify.
    pub fn parse_foreign(bytes: &[u8]) -> Result<Self, NoteError> {
        Self::read(bytes, &LENIENT)
    }

    fn read(bytes: &[u8], base64: &GeneralPurpose) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_MAX {
            return Err(NoteError::TooLong);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        if whole.chars().any(|c| c.is_ascii_control() && c != '\n') {
            return Err(NoteError::Text);
        }
        let (text, lines) = whole.rsplit_once("\n\n").ok_or(NoteError::Shape)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Shape)?;
        let text = format!("{text}\n");
        let mut signatures = Vec::new();
        for (number, line) in lines.split('\n').enumerate() {
            if number >= SIGNATURES_READ_MAX {
                return Err(NoteError::TooManySignatures(SIGNATURES_READ_MAX));
            }
            signatures.push(signature_line(line, base64).ok_or(NoteError::SignatureLine(number + 1))?);
        }
        Ok(Self { text, signatures })
    }

    /// Signs a text; the text must end with a line feed and have no empty line at its end.
    pub fn sign(text: &str, signers: &[&dyn LogSigner]) -> Result<Self, NoteError> {
        if text.chars().any(|c| c.is_ascii_control() && c != '\n') {
            return Err(NoteError::Text);
        }
        if !text.ends_with('\n') || text == "\n" || signers.is_empty() {
            return Err(NoteError::Shape);
        }
        let mut note = Self { text: text.to_owned(), signatures: Vec::new() };
        for signer in signers {
            let key = verifier_of(*signer, KeyKind::Ed25519)?;
            let bytes = signer.sign(text.as_bytes()).to_vec();
            note.add(NoteSignature { name: key.name().to_owned(), id: key.id(), bytes })?;
        }
        Ok(note)
    }

    /// Adds a signature line, up to what every verifier must accept.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.len() >= SIGNATURES_WRITE_MAX {
            return Err(NoteError::TooManySignatures(SIGNATURES_WRITE_MAX));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The text that is signed, with its last line feed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The signature lines.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }
    /// The bytes of the note.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{}\n", self.text);
        for signature in &self.signatures {
            out.push_str(&signature.line());
        }
        out.into_bytes()
    }

    /// Checks the signatures: unknown keys are ignored, a known key with a bad signature refuses the note, and at
    /// least one must be good. Look into the answer whether the one you need is there.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Signed>, NoteError> {
        let mut good = Vec::new();
        for signature in &self.signatures {
            if let Some(signed) = self.check(signature, keys)? {
                good.push(signed);
            }
        }
        if good.is_empty() { Err(NoteError::NoKnownSignature) } else { Ok(good) }
    }

    /// As [`Note::verify`], and refuses signatures by unknown keys and second ones by the same key: for files in
    /// which no byte may change unnoticed.
    pub fn verify_strict(&self, keys: &[VerifierKey]) -> Result<Vec<Signed>, NoteError> {
        let mut good: Vec<Signed> = Vec::new();
        for signature in &self.signatures {
            let name = || signature.name.clone();
            let signed = self.check(signature, keys)?.ok_or_else(|| NoteError::UnknownSignature(name()))?;
            if good.iter().any(|other| other.key == signed.key) {
                return Err(NoteError::SignedTwice(name()));
            }
            good.push(signed);
        }
        if good.is_empty() { Err(NoteError::NoKnownSignature) } else { Ok(good) }
    }

    fn check(&self, signature: &NoteSignature, keys: &[VerifierKey]) -> Result<Option<Signed>, NoteError> {
        let mut fitting = keys.iter().filter(|key| key.name() == signature.name && key.id() == signature.id);
        let Some(key) = fitting.next() else { return Ok(None) };
        if fitting.next().is_some() {
            return Err(NoteError::AmbiguousKey(signature.name.clone()));
        }
        let bad = || NoteError::BadSignature(signature.name.clone());
        let time = match key.kind() {
            KeyKind::Ed25519 => {
                if !key.verifies(self.text.as_bytes(), &signature.bytes) {
                    return Err(bad());
                }
                None
            }
            KeyKind::CosignatureV1 => Some(cosignature::check(key, &self.text, &signature.bytes).ok_or_else(bad)?),
        };
        Ok(Some(Signed { key: key.clone(), time }))
    }
}

fn signature_line(line: &str, engine: &GeneralPurpose) -> Option<NoteSignature> {
    let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = engine.decode(base64).ok()?;
    let (id, bytes) = bytes.split_first_chunk::<4>()?;
    (is_name(name) && !bytes.is_empty()).then(|| NoteSignature { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
}
