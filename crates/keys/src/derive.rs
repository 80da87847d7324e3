//! SHA-256, HMAC-SHA-256 (RFC 2104), HKDF-SHA-256 (RFC 5869) and equality in constant time.

use aws_lc_rs::{digest, hkdf, hmac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// SHA-256 of several pieces in sequence.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// HMAC-SHA-256 of several pieces in sequence.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

struct Length(usize);
impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA-256, extract and expand; `info` is given in pieces. `None` when more is asked for than 255 blocks.
#[must_use]
pub fn hkdf_sha256(key: &[u8], salt: &[u8], info: &[&[u8]], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    if length > 255 * 32 {
        return None;
    }
    let mut out = Zeroizing::new(vec![0; length]);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    prk.expand(info, Length(length)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// Whether two byte strings are equal, in time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// HKDF to a key and a commitment to it: 64 bytes, the first half opens, the second is public.
///
/// AES-GCM does not commit to its key; the commitment is compared before anything is decrypted.
#[must_use]
pub fn key_and_commitment(key: &crate::PlainKey, salt: &[u8; 32], label: &[u8], aad: &[u8]) -> (crate::PlainKey, [u8; 32]) {
    let digest = sha256(&[aad]);
    let mut derived = [0; 32];
    let mut commitment = [0; 32];
    // 64 bytes never exceed HKDF's bound.
    if let Some(okm) = hkdf_sha256(key.expose(), salt, &[label, &digest], 64) {
        let (first, second) = okm.split_at(32);
        derived.copy_from_slice(first);
        commitment.copy_from_slice(second);
    } else {
        std::process::abort();
    }
    let plain = crate::PlainKey::from_bytes(derived);
    zeroize::Zeroize::zeroize(&mut derived);
    (plain, commitment)
}
