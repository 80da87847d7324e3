//! Asking for a volume's keys and opening what is released: the same for a person's machine and for a node.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::hpke::{HpkeError, RecipientKey, Sealed};
use keys::{PlainKey, Random, SigningKey, VerifyingKey};
use vocabulary::lease::{Lease, LeaseHolder, LeaseMode, LeaseRequest, release_info};
use vocabulary::{Purpose, TenantId, VolumeId};

use crate::segment::SegmentKeys;

/// Why a lease that was answered is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefusal {
    /// No fresh key could be made.
    #[error("no fresh key to receive the volume's keys could be made")]
    Generate,
    /// The lease is for another volume.
    #[error("the lease is for volume {0}, which was not asked for")]
    OtherVolume(VolumeId),
    /// The lease is of another tenant.
    #[error("the lease is of another tenant: {0}")]
    OtherTenant(TenantId),
    /// The lease is for another holder.
    #[error("the lease is for another holder")]
    OtherHolder,
    /// The lease has another mode than was asked for.
    #[error("the lease has another mode than was asked for")]
    OtherMode,
    /// A field is not base64 of the expected length.
    #[error("`{0}` of the lease is not base64 of the expected length")]
    Base64(&'static str),
    /// A key does not open: it was sealed to another key, lease, volume or version.
    #[error("version {version} of the volume's key does not open: {reason}")]
    Key {
        /// The key's version.
        version: u32,
        /// Why.
        reason: HpkeError,
    },
    /// No key came.
    #[error("the lease carries no key")]
    NoKey,
    /// A write lease without a writer epoch for the signer that was sent.
    #[error("the lease opened no writer epoch for the signer that was sent")]
    NoWriter,
}

/// What a lease must say, or it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The volume that was asked for.
    pub volume: VolumeId,
    /// The tenant, where it is known beforehand.
    pub tenant: Option<TenantId>,
    /// The holder, where it is known beforehand.
    pub holder: Option<LeaseHolder>,
}

/// A request on its way: the fresh keys that its answer must fit.
#[derive(Debug)]
pub struct Asking {
    mode: LeaseMode,
    recipient: RecipientKey,
    signer: Option<SigningKey>,
}

/// A lease with its keys opened. The keys are wiped when it goes out of scope.
#[derive(Debug)]
pub struct Held {
    /// The lease as it was answered.
    pub lease: Lease,
    /// The opened keys.
    pub keys: SegmentKeys,
    /// All registered signers by writer epoch.
    pub signers: BTreeMap<u64, VerifyingKey>,
    /// For a write lease: its writer epoch and the one signer of it.
    pub writer: Option<(u64, SigningKey)>,
}

impl Asking {
    /// Draws fresh keys: one to receive, and for writing one to sign with.
    pub fn new(mode: LeaseMode, random: &mut dyn Random) -> Result<Self, LeaseRefusal> {
        let recipient = RecipientKey::generate().map_err(|_| LeaseRefusal::Generate)?;
        let signer = (mode == LeaseMode::Write).then(|| SigningKey::generate(random));
        Ok(Self { mode, recipient, signer })
    }

    /// The request's body.
    #[must_use]
    pub fn request(&self, purpose: Option<Purpose>) -> LeaseRequest {
        LeaseRequest {
            mode: self.mode,
            purpose,
            recipient: STANDARD.encode(self.recipient.public()),
            signer: self.signer.as_ref().map(|signer| STANDARD.encode(signer.verifying_key().as_bytes())),
        }
    }

    /// Opens the answer.
    pub fn open(self, lease: Lease, expected: &Expected) -> Result<Held, LeaseRefusal> {
        if lease.volume != expected.volume {
            return Err(LeaseRefusal::OtherVolume(lease.volume));
        }
        if expected.tenant.is_some_and(|tenant| tenant != lease.tenant) {
            return Err(LeaseRefusal::OtherTenant(lease.tenant));
        }
        if expected.holder.is_some_and(|holder| holder != lease.holder) {
            return Err(LeaseRefusal::OtherHolder);
        }
        if lease.mode != self.mode {
            return Err(LeaseRefusal::OtherMode);
        }
        let mut epochs = Vec::new();
        for key in &lease.keys {
            let sealed = Sealed { encapsulated: decode("encapsulated", &key.encapsulated)?, ciphertext: decode("sealed", &key.sealed)? };
            let info = release_info(lease.id, lease.volume, key.key, key.version);
            let plain = self.recipient.open(&sealed, &info, b"").map_err(|reason| LeaseRefusal::Key { version: key.version, reason })?;
            epochs.push((key.version, key.key, PlainKey::from_slice(&plain).ok_or(LeaseRefusal::Base64("sealed"))?));
        }
        if epochs.is_empty() {
            return Err(LeaseRefusal::NoKey);
        }
        let mut signers = BTreeMap::new();
        for writer in &lease.signers {
            signers.insert(writer.epoch, public("signer", &writer.signer)?);
        }
        let writer = match self.signer {
            None => None,
            Some(signer) => {
                let opened = lease.writer.as_ref().ok_or(LeaseRefusal::NoWriter)?;
                if public("signer", &opened.signer)? != signer.verifying_key() {
                    return Err(LeaseRefusal::NoWriter);
                }
                Some((opened.epoch, signer))
            }
        };
        let keys = SegmentKeys { tenant: lease.tenant, volume: lease.volume, epochs };
        Ok(Held { lease, keys, signers, writer })
    }
}

fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, LeaseRefusal> {
    // Every field of a lease is shorter than this: what is longer is not decoded.
    if text.len() > 256 {
        return Err(LeaseRefusal::Base64(field));
    }
    STANDARD.decode(text).map_err(|_| LeaseRefusal::Base64(field))
}

fn public(field: &'static str, text: &str) -> Result<VerifyingKey, LeaseRefusal> {
    let bytes: [u8; 32] = decode(field, text)?.try_into().map_err(|_| LeaseRefusal::Base64(field))?;
    Ok(VerifyingKey::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use keys::SystemRandom;
    use vocabulary::lease::{ReleasedKey, WriterEpoch};
    use vocabulary::volume::RootHead;
    use vocabulary::{KeyId, LeaseId, LineageId, PrincipalId, Sha256Digest, UnixTime};

    use super::*;

    const VOLUME: VolumeId = VolumeId::from_bytes([2; 16]);
    const TENANT: TenantId = TenantId::from_bytes([1; 16]);

    fn holder() -> LeaseHolder {
        LeaseHolder::Principal(PrincipalId::from_bytes([9; 16]))
    }

    fn answer(request: &LeaseRequest, volume: VolumeId) -> Lease {
        let id = LeaseId::from_bytes([3; 16]);
        let key = KeyId::from_bytes([4; 16]);
        let recipient: [u8; 32] = STANDARD.decode(&request.recipient).unwrap().try_into().unwrap();
        let sealed = keys::hpke::seal(&recipient, &release_info(id, VOLUME, key, 1), b"", &[7; 32]).unwrap();
        let writer = request.signer.clone().map(|signer| WriterEpoch { epoch: 5, signer, audit_index: 0 });
        Lease {
            id,
            tenant: TENANT,
            volume,
            holder: holder(),
            mode: request.mode,
            keys: vec![ReleasedKey { key, version: 1, encapsulated: STANDARD.encode(sealed.encapsulated), sealed: STANDARD.encode(sealed.ciphertext) }],
            signers: writer.clone().into_iter().collect(),
            writer,
            head: RootHead { lineage: LineageId::from_bytes([5; 16]), seq: 0, writer_epoch: 0, root: Sha256Digest::from_bytes([0; 32]) },
            expires: UnixTime::from_millis(1),
            audit_index: 1,
        }
    }

    fn try_open(change: impl FnOnce(&mut Lease)) -> Result<Held, LeaseRefusal> {
        let asking = Asking::new(LeaseMode::Write, &mut SystemRandom).unwrap();
        let mut lease = answer(&asking.request(None), VOLUME);
        change(&mut lease);
        asking.open(lease, &Expected { volume: VOLUME, tenant: Some(TENANT), holder: Some(holder()) })
    }

    #[test]
    fn a_fitting_lease_opens() {
        let held = try_open(|_| ()).unwrap();
        assert_eq!(held.keys.epochs[0].2.expose(), &[7; 32]);
        assert_eq!(held.writer.unwrap().0, 5);
    }

    #[test]
    fn every_other_lease_is_refused_by_name() {
        let other = VolumeId::from_bytes([8; 16]);
        assert_eq!(try_open(|lease| lease.volume = other).unwrap_err(), LeaseRefusal::OtherVolume(other));
        let foreign = TenantId::from_bytes([8; 16]);
        assert_eq!(try_open(|lease| lease.tenant = foreign).unwrap_err(), LeaseRefusal::OtherTenant(foreign));
        let somebody = LeaseHolder::Principal(PrincipalId::from_bytes([8; 16]));
        assert_eq!(try_open(|lease| lease.holder = somebody).unwrap_err(), LeaseRefusal::OtherHolder);
        assert_eq!(try_open(|lease| lease.mode = LeaseMode::Read).unwrap_err(), LeaseRefusal::OtherMode);
        assert_eq!(try_open(|lease| lease.keys.clear()).unwrap_err(), LeaseRefusal::NoKey);
        assert_eq!(try_open(|lease| lease.writer = None).unwrap_err(), LeaseRefusal::NoWriter);
        assert_eq!(try_open(|lease| lease.writer.as_mut().unwrap().signer = STANDARD.encode([1; 32])).unwrap_err(), LeaseRefusal::NoWriter);
        assert_eq!(try_open(|lease| lease.keys[0].sealed = "?".to_owned()).unwrap_err(), LeaseRefusal::Base64("sealed"));
        // A key that was sealed for another lease or version does not open.
        let closed = LeaseRefusal::Key { version: 1, reason: HpkeError::Open };
        assert_eq!(try_open(|lease| lease.id = LeaseId::from_bytes([8; 16])).unwrap_err(), closed);
        assert_eq!(try_open(|lease| lease.keys[0].version = 2).unwrap_err(), LeaseRefusal::Key { version: 2, reason: HpkeError::Open });
    }
}
