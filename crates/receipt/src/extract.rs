//! The pieces of a receipt as files, for tools that are not ours.

use audit::key::VerifierKey;
use audit::leaf::leaf;
use audit::note::Note;
use audit::{Hash, TlogProof};

use crate::envelope::{EnvelopeError, IN_TOTO, base64, base64_32, pre_authentication};
use crate::limits::CERTIFICATE_MAX;
use crate::record::{Receipt, Record};

/// A piece: a name without folders, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Such as `node.payload` or `entry-12.tlog-proof`.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Takes a receipt apart; **nothing is verified**.
///
/// `node.payload`, `node.signed` (what the signature is over), `node.sig`, the same for `control`, `checkpoint`,
/// `node-certificate-N.der`, `control-certificate-N.der`, and for each entry `entry-N.body`, `entry-N.salt`,
/// `entry-N.leaf` and `entry-N.tlog-proof`.
pub fn extract(receipt: &Receipt) -> Result<Vec<Piece>, EnvelopeError> {
    let mut pieces = Vec::new();
    let mut piece = |name: String, bytes: Vec<u8>| pieces.push(Piece { name, bytes });
    for (name, envelope) in [("node", &receipt.node), ("control", &receipt.control)] {
        let payload = envelope.payload_bytes()?;
        let signature = envelope.signatures.first().ok_or(EnvelopeError::Signatures)?;
        piece(format!("{name}.signed"), pre_authentication(IN_TOTO, &payload));
        piece(format!("{name}.sig"), base64(&signature.sig, "sig", 80)?);
        piece(format!("{name}.payload"), payload);
    }
    let record: Record = receipt.control.peek::<crate::envelope::InToto<Record>>()?.predicate;
    for (name, chain) in [("node", &record.node_certificates), ("control", &record.control_certificates)] {
        for (number, text) in chain.iter().enumerate() {
            piece(format!("{name}-certificate-{number}.der"), base64(text, "certificate", CERTIFICATE_MAX)?);
        }
    }
    let note = base64(&record.log.checkpoint, "checkpoint", audit::limits::NOTE_MAX)?;
    let parsed = Note::parse(&note).map_err(|_| EnvelopeError::Base64("checkpoint"))?;
    piece("checkpoint".to_owned(), note);
    for entry in &record.log.entries {
        let body = base64(&entry.body, "body", audit::limits::BODY_MAX)?;
        let salt = base64_32(&entry.salt, "salt")?;
        let hashes =
            entry.proof.iter().map(|text| Hash::from_base64(text)).collect::<Option<_>>().ok_or(EnvelopeError::Base64("proof"))?;
        let proof = TlogProof { extra: None, index: entry.index, hashes, checkpoint: parsed.clone() };
        piece(format!("entry-{}.leaf", entry.index), leaf(&salt, &body).to_vec());
        piece(format!("entry-{}.tlog-proof", entry.index), proof.encode());
        piece(format!("entry-{}.salt", entry.index), salt.to_vec());
        piece(format!("entry-{}.body", entry.index), body);
    }
    Ok(pieces)
}

/// A verifier key's 32 bytes as a DER `SubjectPublicKeyInfo`, for OpenSSL.
#[must_use]
pub fn verifier_key_der(key: &VerifierKey) -> Vec<u8> {
    crate::envelope::ed25519_spki(key.public())
}
