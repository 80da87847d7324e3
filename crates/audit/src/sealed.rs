//! Personal values in entries: a keyed commitment and a ciphertext, both under keys of one subject.
//!
//! Destroying the subject's root erases every value that was sealed under it: tree, order and counts still verify, and
//! a reader sees "sealed, key destroyed", never "missing". Values of two subjects cannot be linked by being equal, and
//! a commitment cannot be guessed without the key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use vocabulary::EntryId;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::SEALED_VALUE_MAX;

/// Which OCSF fields may hold a personal value; each is left out of the clear event when it is sealed.
pub const SEALED_PATHS: [&str; 9] = [
    "actor.user.email_addr",
    "actor.user.name",
    "entity.user.name",
    "http_request.user_agent",
    "src_endpoint.hostname",
    "src_endpoint.ip",
    "user.email_addr",
    "user.full_name",
    "user.name",
];

/// The root key of one subject: a person, or the strangers of a period. Only the key service keeps it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SubjectRoot([u8; 32]);

impl SubjectRoot {
    /// Takes the 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn derive(&self, label: &[u8]) -> Result<[u8; 32], SealError> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"swarm/audit/subject/v1");
        let mut out = [0; 32];
        salt.extract(&self.0)
            .expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .map_err(|_| SealError::Crypto)?;
        Ok(out)
    }

    /// A name for an address or another value that says nothing without this key: 16 bytes of its HMAC, hexadecimal.
    pub fn pseudonym(&self, value: &str) -> Result<String, SealError> {
        let key = self.derive(b"pseudonym")?;
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), value.as_bytes());
        Ok(tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for SubjectRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectRoot(..)")
    }
}

/// A personal value on its way into an entry.
#[derive(Clone)]
pub struct Personal {
    /// The OCSF field, one of [`SEALED_PATHS`].
    pub path: String,
    /// The value in clear.
    pub value: String,
    /// The subject's pseudonymous id, which finds the root again.
    pub subject: String,
    /// The subject's root.
    pub root: SubjectRoot,
}

impl fmt::Debug for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Personal").field("path", &self.path).field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// A sealed value as it stands in a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedValue {
    /// The commitment: HMAC-SHA-256 over path ‖ 0x00 ‖ value, base64.
    pub c: String,
    /// Nonce ‖ AES-256-GCM ciphertext ‖ tag, base64; the AAD is entry id ‖ 0x00 ‖ path.
    pub ct: String,
    /// The subject's pseudonymous id.
    pub subject: String,
}

/// What a reader sees of a sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The value.
    Value(String),
    /// The subject's root is gone: erased.
    KeyDestroyed,
}

/// Why a value was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The field is not one that may be sealed.
    #[error("this field is not one that may hold a personal value")]
    Path,
    /// Empty or too long.
    #[error("a personal value has 1 to {SEALED_VALUE_MAX} bytes")]
    Length,
    /// The bytes are not a sealed value.
    #[error("the sealed value is malformed")]
    Malformed,
    /// Wrong key, other entry, other field, or changed bytes.
    #[error("the sealed value does not open with this key, entry and field")]
    DoesNotOpen,
    /// The value does not fit its commitment.
    #[error("the sealed value does not fit its commitment")]
    Commitment,
    /// The library refused.
    #[error("the cryptographic library refused")]
    Crypto,
}

/// Seals one value for one entry.
pub fn seal(entry: EntryId, personal: &Personal, nonce: [u8; 12]) -> Result<SealedValue, SealError> {
    if !SEALED_PATHS.contains(&personal.path.as_str()) {
        return Err(SealError::Path);
    }
    if personal.value.is_empty() || personal.value.len() > SEALED_VALUE_MAX {
        return Err(SealError::Length);
    }
    let commitment = commit(&personal.root, &personal.path, &personal.value)?;
    let key = sealing_key(&personal.root)?;
    let mut bytes = personal.value.as_bytes().to_vec();
    let aad = Aad::from(aad(entry, &personal.path));
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes).map_err(|_| SealError::Crypto)?;
    let mut sealed = nonce.to_vec();
    sealed.extend_from_slice(&bytes);
    Ok(SealedValue {
        c: STANDARD.encode(commitment),
        ct: STANDARD.encode(sealed),
        subject: personal.subject.clone(),
    })
}

/// Opens one value; `root` is `None` when the subject's root was destroyed.
pub fn open_sealed(
    entry: EntryId,
    path: &str,
    sealed: &SealedValue,
    root: Option<&SubjectRoot>,
) -> Result<Opened, SealError> {
    let (nonce, mut bytes) = parts(sealed)?;
    let Some(root) = root else { return Ok(Opened::KeyDestroyed) };
    let key = sealing_key(root)?;
    let plain = key
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad(entry, path)), &mut bytes)
        .map_err(|_| SealError::DoesNotOpen)?;
    let value = std::str::from_utf8(plain).map_err(|_| SealError::Malformed)?.to_owned();
    let commitment = STANDARD.decode(&sealed.c).map_err(|_| SealError::Malformed)?;
    let fits = constant_time::verify_slices_are_equal(&commitment, &commit(root, path, &value)?).is_ok();
    bytes.zeroize();
    if fits { Ok(Opened::Value(value)) } else { Err(SealError::Commitment) }
}

/// Whether the object under `unmapped.sealed` is well formed.
pub(crate) fn is_well_formed(fields: &BTreeMap<String, SealedValue>) -> bool {
    fields.iter().all(|(path, sealed)| {
        SEALED_PATHS.contains(&path.as_str())
            && parts(sealed).is_ok()
            && STANDARD.decode(&sealed.c).is_ok_and(|c| c.len() == 32)
            && !sealed.subject.is_empty()
            && sealed.subject.len() <= 64
    })
}

fn parts(sealed: &SealedValue) -> Result<([u8; 12], Vec<u8>), SealError> {
    if sealed.ct.len() > (SEALED_VALUE_MAX + 28) * 2 {
        return Err(SealError::Malformed);
    }
    let bytes = STANDARD.decode(&sealed.ct).map_err(|_| SealError::Malformed)?;
    let (nonce, rest) = bytes.split_first_chunk::<12>().ok_or(SealError::Malformed)?;
    if rest.len() <= 16 {
        return Err(SealError::Malformed);
    }
    Ok((*nonce, rest.to_vec()))
}

fn sealing_key(root: &SubjectRoot) -> Result<LessSafeKey, SealError> {
    let mut key = root.derive(b"seal")?;
    let unbound = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::Crypto);
    key.zeroize();
    Ok(LessSafeKey::new(unbound?))
}

fn commit(root: &SubjectRoot, path: &str, value: &str) -> Result<[u8; 32], SealError> {
    let mut key = root.derive(b"commit")?;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    key.zeroize();
    context.update(path.as_bytes());
    context.update(&[0]);
    context.update(value.as_bytes());
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    Ok(out)
}

fn aad(entry: EntryId, path: &str) -> Vec<u8> {
    let mut aad = entry.as_bytes().to_vec();
    aad.push(0);
    aad.extend_from_slice(path.as_bytes());
    aad
}
