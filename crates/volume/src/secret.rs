//! Asking for a secret's key, sealing a value with it and opening what is released: the same for a person's machine and a node.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::hpke::{HpkeError, RecipientKey, Sealed};
use keys::secret::{SEALED_MAX, SecretContext, SecretError};
use keys::{PlainKey, Random};
use vocabulary::lease::LeaseHolder;
use vocabulary::secret::{ReleasedSecret, SecretKey, SecretRequest, SecretValue, release_info};
use vocabulary::{SecretId, TenantId};
use zeroize::Zeroizing;

/// Why a release that was answered is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefusal {
    /// No fresh key could be made.
    #[error("no fresh key to receive the secret's key could be made")]
    Generate,
    /// It is for another secret.
    #[error("the release is for secret {0}, which was not asked for")]
    OtherSecret(SecretId),
    /// It is of another tenant.
    #[error("the release is of another tenant: {0}")]
    OtherTenant(TenantId),
    /// It is for another holder.
    #[error("the release is for another holder")]
    OtherHolder,
    /// A field is not base64 of the expected length.
    #[error("`{0}` of the release is not base64 of the expected length")]
    Base64(&'static str),
    /// The key does not open: it was sealed to another key, lease, secret or version.
    #[error("the secret's key does not open: {0}")]
    Key(HpkeError),
    /// The value does not open.
    #[error(transparent)]
    Value(#[from] SecretError),
}

/// What a release must say, or it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The secret that was asked for.
    pub secret: SecretId,
    /// The tenant, where it is known beforehand.
    pub tenant: Option<TenantId>,
    /// The holder, where it is known beforehand.
    pub holder: Option<LeaseHolder>,
}

/// A request on its way: the fresh key that its answer must fit.
#[derive(Debug)]
pub struct Asking {
    recipient: RecipientKey,
}

fn decode(field: &'static str, text: &str, most: usize) -> Result<Vec<u8>, SecretRefusal> {
    // What is longer than the field may be is not decoded.
    if text.len() > most.div_ceil(3).saturating_mul(4) {
        return Err(SecretRefusal::Base64(field));
    }
    STANDARD.decode(text).map_err(|_| SecretRefusal::Base64(field))
}

impl Asking {
    /// Draws a fresh key to receive with.
    pub fn new() -> Result<Self, SecretRefusal> {
        Ok(Self { recipient: RecipientKey::generate().map_err(|_| SecretRefusal::Generate)? })
    }

    /// The public half, base64, as requests carry it.
    #[must_use]
    pub fn recipient(&self) -> String {
        STANDARD.encode(self.recipient.public())
    }

    /// The request's body.
    #[must_use]
    pub fn request(&self) -> SecretRequest {
        SecretRequest { recipient: self.recipient() }
    }

    fn key(&self, key: &SecretKey) -> Result<(PlainKey, SecretContext), SecretRefusal> {
        let sealed = Sealed { encapsulated: decode("encapsulated", &key.encapsulated, 64)?, ciphertext: decode("sealed", &key.sealed, 64)? };
        let info = release_info(key.lease, key.secret, key.key, key.version);
        let plain = self.recipient.open(&sealed, &info, b"").map_err(SecretRefusal::Key)?;
        let context = SecretContext { tenant: key.tenant, secret: key.secret, key: key.key, version: key.version };
        Ok((PlainKey::from_slice(&plain).ok_or(SecretRefusal::Base64("sealed"))?, context))
    }

    /// Seals a value with the key that was answered.
    pub fn seal(self, key: &SecretKey, value: &[u8], random: &mut dyn Random) -> Result<SecretValue, SecretRefusal> {
        let (plain, context) = self.key(key)?;
        let sealed = keys::secret::seal(&plain, &context, value, random)?;
        Ok(SecretValue { version: key.version, sealed: STANDARD.encode(sealed) })
    }

    /// Opens a secret that was answered.
    pub fn open(self, answer: &ReleasedSecret, expected: &Expected) -> Result<Zeroizing<Vec<u8>>, SecretRefusal> {
        if answer.key.secret != expected.secret {
            return Err(SecretRefusal::OtherSecret(answer.key.secret));
        }
        if expected.tenant.is_some_and(|tenant| tenant != answer.key.tenant) {
            return Err(SecretRefusal::OtherTenant(answer.key.tenant));
        }
        if expected.holder.is_some_and(|holder| holder != answer.holder) {
            return Err(SecretRefusal::OtherHolder);
        }
        let (plain, context) = self.key(&answer.key)?;
        Ok(keys::secret::open(&plain, &context, &decode("value", &answer.value, SEALED_MAX)?)?)
    }
}

#[cfg(test)]
mod tests {
    use keys::SystemRandom;
    use vocabulary::{KeyId, LeaseId, PrincipalId};

    use super::*;

    const SECRET: SecretId = SecretId::from_bytes([2; 16]);
    const TENANT: TenantId = TenantId::from_bytes([1; 16]);

    fn holder() -> LeaseHolder {
        LeaseHolder::Principal(PrincipalId::from_bytes([9; 16]))
    }

    fn answered(request: &SecretRequest) -> SecretKey {
        let (lease, key) = (LeaseId::from_bytes([3; 16]), KeyId::from_bytes([4; 16]));
        let recipient: [u8; 32] = STANDARD.decode(&request.recipient).unwrap().try_into().unwrap();
        let sealed = keys::hpke::seal(&recipient, &release_info(lease, SECRET, key, 3), b"", &[7; 32]).unwrap();
        let (encapsulated, sealed) = (STANDARD.encode(sealed.encapsulated), STANDARD.encode(sealed.ciphertext));
        SecretKey { lease, tenant: TENANT, secret: SECRET, key, version: 3, encapsulated, sealed }
    }

    fn try_open(change: impl FnOnce(&mut ReleasedSecret)) -> Result<Vec<u8>, SecretRefusal> {
        let setting = Asking::new().unwrap();
        let slot = answered(&setting.request());
        let value = setting.seal(&slot, b"hf_1", &mut SystemRandom).unwrap();
        let asking = Asking::new().unwrap();
        let mut answer = ReleasedSecret { key: answered(&asking.request()), holder: holder(), value: value.sealed, audit_index: 1 };
        change(&mut answer);
        let opened = asking.open(&answer, &Expected { secret: SECRET, tenant: Some(TENANT), holder: Some(holder()) })?;
        Ok(opened.to_vec())
    }

    #[test]
    fn what_was_sealed_under_one_release_opens_under_another() {
        assert_eq!(try_open(|_| ()).unwrap(), b"hf_1");
    }

    #[test]
    fn every_other_release_is_refused_by_name() {
        let other = SecretId::from_bytes([8; 16]);
        assert_eq!(try_open(|answer| answer.key.secret = other).unwrap_err(), SecretRefusal::OtherSecret(other));
        let foreign = TenantId::from_bytes([8; 16]);
        assert_eq!(try_open(|answer| answer.key.tenant = foreign).unwrap_err(), SecretRefusal::OtherTenant(foreign));
        let somebody = LeaseHolder::Principal(PrincipalId::from_bytes([8; 16]));
        assert_eq!(try_open(|answer| answer.holder = somebody).unwrap_err(), SecretRefusal::OtherHolder);
        assert_eq!(try_open(|answer| answer.key.sealed = "?".to_owned()).unwrap_err(), SecretRefusal::Base64("sealed"));
        assert_eq!(try_open(|answer| answer.value = "A".repeat(1 << 20)).unwrap_err(), SecretRefusal::Base64("value"));
        let closed = SecretRefusal::Key(HpkeError::Open);
        assert_eq!(try_open(|answer| answer.key.lease = LeaseId::from_bytes([8; 16])).unwrap_err(), closed);
        assert_eq!(try_open(|answer| answer.key.version = 4).unwrap_err(), closed);
        assert_eq!(try_open(|answer| answer.value = STANDARD.encode([1; 200])).unwrap_err(), SecretRefusal::Value(SecretError::Key));
    }
}
