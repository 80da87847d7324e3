//! Signed root records of volumes: `0x01 ‖ u16 length ‖ CBOR ‖ key id 32 ‖ Ed25519 signature 64`.
//!
//! The root is SHA-256 of the CBOR, an array `["swarm/root/v1", tenant, volume, lineage, seq, writer epoch, prev, state,
//! durable seq, time]`; the signature is over the CBOR.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::Decoder;
use vocabulary::volume::RootHead;
use vocabulary::{LineageId, Sha256Digest, TenantId, VolumeId};

use crate::envelope::{ed25519_spki, sha256};
use crate::limits::ROOT_RECORD_MAX;

/// Why a root record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not the format.
    #[error("the root record is malformed")]
    Malformed,
    /// By another key than the registered signer.
    #[error("the root record names another signer than the registered one")]
    Signer,
    /// The signature fails.
    #[error("the signature of the root record does not verify")]
    BadSignature,
    /// It is another tenant's, volume's, or state's record.
    #[error("the root record is of another tenant, volume or root")]
    Other,
}

/// Checks that `record` is signed by `signer` and says exactly `head` about `volume` of `tenant`.
/// Returns the root before it.
pub fn verify(
    record: &[u8],
    signer: &[u8; 32],
    tenant: TenantId,
    volume: VolumeId,
    head: &RootHead,
) -> Result<Sha256Digest, RootError> {
    if record.len() > ROOT_RECORD_MAX {
        return Err(RootError::Malformed);
    }
    let (version, rest) = record.split_first().ok_or(RootError::Malformed)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(RootError::Malformed)?;
    let (cbor, rest) =
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(RootError::Malformed)?;
    let (key_id, signature) = rest.split_first_chunk::<32>().ok_or(RootError::Malformed)?;
    if *version != 1 || signature.len() != 64 {
        return Err(RootError::Malformed);
    }
    if sha256(&ed25519_spki(signer)).as_bytes() != key_id {
        return Err(RootError::Signer);
    }
    UnparsedPublicKey::new(&ED25519, signer).verify(cbor, signature).map_err(|_| RootError::BadSignature)?;
    let fields = decode(cbor).ok_or(RootError::Malformed)?;
    let said = RootHead {
        lineage: fields.lineage,
        seq: fields.seq,
        writer_epoch: fields.writer_epoch,
        root: sha256(cbor),
    };
    if fields.tenant != tenant || fields.volume != volume || said != *head {
        return Err(RootError::Other);
    }
    Ok(fields.previous)
}

struct Fields {
    tenant: TenantId,
    volume: VolumeId,
    lineage: LineageId,
    seq: u64,
    writer_epoch: u64,
    previous: Sha256Digest,
}

fn decode(cbor: &[u8]) -> Option<Fields> {
    let mut decoder = Decoder::new(cbor);
    if decoder.array().ok()? != Some(10) || decoder.str().ok()? != "swarm/root/v1" {
        return None;
    }
    let tenant = TenantId::from_slice(decoder.bytes().ok()?)?;
    let volume = VolumeId::from_slice(decoder.bytes().ok()?)?;
    let lineage = LineageId::from_slice(decoder.bytes().ok()?)?;
    let seq = decoder.u64().ok()?;
    let writer_epoch = decoder.u64().ok()?;
    let previous = Sha256Digest::from_bytes(decoder.bytes().ok()?.try_into().ok()?);
    let _state: &[u8; 32] = decoder.bytes().ok()?.try_into().ok()?;
    let _durable = decoder.u64().ok()?;
    let _time = decoder.u64().ok()?;
    (decoder.position() == cbor.len()).then_some(Fields { tenant, volume, lineage, seq, writer_epoch, previous })
}
