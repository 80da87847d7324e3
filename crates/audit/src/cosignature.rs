//! Cosignatures of witnesses, `cosignature/v1` (C2SP tlog-cosignature): a time and an Ed25519 signature.
//!
//! The signed message does not name the witness: one key per witness and role.

use crate::key::{KeyError, KeyKind, LogSigner, VerifierKey, verifier_of};
use crate::note::NoteSignature;

/// Cosigns a checkpoint's text at `seconds` since 1970, which must not be 0.
pub fn cosign(signer: &dyn LogSigner, text: &str, seconds: u64) -> Result<NoteSignature, KeyError> {
    let key = verifier_of(signer, KeyKind::CosignatureV1)?;
    let mut bytes = seconds.to_be_bytes().to_vec();
    bytes.extend_from_slice(&signer.sign(&message(text, seconds)));
    Ok(NoteSignature { name: key.name().to_owned(), id: key.id(), bytes })
}

/// The time of a good cosignature; `None` if it is malformed, has no time, or fails.
pub(crate) fn check(key: &VerifierKey, text: &str, bytes: &[u8]) -> Option<u64> {
    let (time, signature) = bytes.split_first_chunk::<8>()?;
    let time = u64::from_be_bytes(*time);
    (time != 0 && key.verifies(&message(text, time), signature)).then_some(time)
}

fn message(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}
