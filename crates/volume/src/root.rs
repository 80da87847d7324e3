//! The signed chain of roots: plain, so that it can be checked without a data key.

use keys::derive::sha256;
use keys::{SigningKey, VerifyingKey};
use minicbor::{Decoder, Encoder};
use vocabulary::{LineageId, TenantId, UnixTime, VolumeId};

use crate::limits::ROOT_BYTES_MAX;
use crate::merkle;

const VERSION: u8 = 1;

/// What a root says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The tenant.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeId,
    /// The unbroken history that it belongs to.
    pub lineage: LineageId,
    /// Counts from 1.
    pub seq: u64,
    /// The writer epoch.
    pub writer_epoch: u64,
    /// The root before; zeroes for the first.
    pub prev: [u8; 32],
    /// The tree hash over the live set ([`state`]).
    pub state: [u8; 32],
    /// The last sequence that was anchored.
    pub durable_seq: u64,
    /// When the writer signed.
    pub time: UnixTime,
}

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The bytes are not a record in its one form.
    #[error("the root record is malformed")]
    Malformed,
    /// It names another key than the registered signer's.
    #[error("the root record is signed by another key than the one registered for its writer epoch")]
    ForeignSigner,
    /// The signature is wrong.
    #[error("the root record's signature is wrong")]
    Signature,
}

/// A root with its signature. Nothing is believed of it before [`RootRecord::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecord {
    body: Root,
    cbor: Vec<u8>,
    key_id: [u8; 32],
    signature: [u8; 64],
}

fn encode(root: &Root) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(200));
    let done: Result<(), minicbor::encode::Error<std::convert::Infallible>> = (|| {
        encoder
            .array(10)?
            .str("swarm/root/v1")?
            .bytes(root.tenant.as_bytes())?
            .bytes(root.volume.as_bytes())?
            .bytes(root.lineage.as_bytes())?
            .u64(root.seq)?
            .u64(root.writer_epoch)?
            .bytes(&root.prev)?
            .bytes(&root.state)?
            .u64(root.durable_seq)?
            .u64(root.time.millis())?;
        Ok(())
    })();
    debug_assert!(done.is_ok());
    encoder.into_writer()
}

fn decode(cbor: &[u8]) -> Option<Root> {
    let mut decoder = Decoder::new(cbor);
    if decoder.array().ok()? != Some(10) || decoder.str().ok()? != "swarm/root/v1" {
        return None;
    }
    fn fixed<const N: usize>(decoder: &mut Decoder<'_>) -> Option<[u8; N]> {
        decoder.bytes().ok()?.try_into().ok()
    }
    let root = Root {
        tenant: TenantId::from_bytes(fixed(&mut decoder)?),
        volume: VolumeId::from_bytes(fixed(&mut decoder)?),
        lineage: LineageId::from_bytes(fixed(&mut decoder)?),
        seq: decoder.u64().ok()?,
        writer_epoch: decoder.u64().ok()?,
        prev: fixed(&mut decoder)?,
        state: fixed(&mut decoder)?,
        durable_seq: decoder.u64().ok()?,
        time: UnixTime::from_millis(decoder.u64().ok()?),
    };
    // One form only: what does not encode to the same bytes is refused.
    (encode(&root) == cbor).then_some(root)
}

impl RootRecord {
    /// Signs a root.
    #[must_use]
    pub fn sign(body: Root, signer: &SigningKey) -> Self {
        let cbor = encode(&body);
        let signature = signer.sign(&cbor);
        Self { body, key_id: signer.verifying_key().id(), cbor, signature }
    }
    /// The record's bytes: version, length, CBOR, key id, signature.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u16::try_from(self.cbor.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[VERSION], length.as_slice(), &self.cbor, &self.key_id, &self.signature].concat()
    }
    /// Reads a record.
    pub fn parse(bytes: &[u8]) -> Result<Self, RootError> {
        if bytes.len() > ROOT_BYTES_MAX {
            return Err(RootError::Malformed);
        }
        let parsed = (|| {
            let (version, rest) = bytes.split_first()?;
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (cbor, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (key_id, rest) = rest.split_first_chunk::<32>()?;
            let signature: [u8; 64] = rest.try_into().ok()?;
            (*version == VERSION).then_some(())?;
            Some(Self { body: decode(cbor)?, cbor: cbor.to_vec(), key_id: *key_id, signature })
        })();
        parsed.ok_or(RootError::Malformed)
    }
    /// Checks that the registered signer signed it.
    pub fn verify(&self, signer: &VerifyingKey) -> Result<(), RootError> {
        if signer.id() != self.key_id {
            return Err(RootError::ForeignSigner);
        }
        if signer.verifies(&self.cbor, &self.signature) { Ok(()) } else { Err(RootError::Signature) }
    }
    /// What it says.
    #[must_use]
    pub const fn body(&self) -> &Root {
        &self.body
    }
    /// The root: SHA-256 of the CBOR.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        sha256(&[&self.cbor])
    }
}

/// The tree hash over the live set: `[path as bytes, root, size]` as CBOR, sorted by path bytes.
#[must_use]
pub fn state(live: &std::collections::BTreeMap<String, ([u8; 32], u64)>) -> [u8; 32] {
    let hashes: Vec<[u8; 32]> = live
        .iter()
        .map(|(path, (root, size))| {
            let mut encoder = Encoder::new(Vec::with_capacity(64 + path.len()));
            let done: Result<(), minicbor::encode::Error<std::convert::Infallible>> = (|| {
                encoder.array(3)?.bytes(path.as_bytes())?.bytes(root)?.u64(*size)?;
                Ok(())
            })();
            debug_assert!(done.is_ok());
            merkle::leaf(&encoder.into_writer())
        })
        .collect();
    merkle::root(&hashes)
}
