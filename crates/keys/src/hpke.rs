//! HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Keys leave only under it.

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::limits::HPKE_SECRET_MAX;

/// Why a secret was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpkeError {
    /// The recipient's key is no X25519 public key, or one of small order.
    #[error("the recipient's key is not usable")]
    Recipient,
    /// The secret is longer than [`HPKE_SECRET_MAX`].
    #[error("the secret is too long")]
    TooLong,
    /// The bytes do not open with this key, info and associated data.
    #[error("the sealed secret does not open with this key for this purpose")]
    Open,
    /// No key could be made.
    #[error("no key could be made")]
    Generate,
}

/// A secret sealed to a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key, 32 bytes.
    pub encapsulated: Vec<u8>,
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// Seals a secret to an X25519 public key. `info` and `aad` say what for; both are needed to open.
pub fn seal(recipient: &[u8; 32], info: &[u8], aad: &[u8], secret: &[u8]) -> Result<Sealed, HpkeError> {
    if secret.len() > HPKE_SECRET_MAX {
        return Err(HpkeError::TooLong);
    }
    let (encapsulated, ciphertext) =
        SUITE.seal(info, aad, secret, &HpkePublicKey(recipient.to_vec())).map_err(|_| HpkeError::Recipient)?;
    Ok(Sealed { encapsulated: encapsulated.0, ciphertext })
}

/// A fresh key that one release is sealed to. Cannot be printed or copied.
pub struct RecipientKey {
    public: [u8; 32],
    private: HpkePrivateKey,
}

impl std::fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecipientKey(…)")
    }
}

impl RecipientKey {
    /// Makes a key pair (aws-lc-rs draws the randomness itself).
    pub fn generate() -> Result<Self, HpkeError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| HpkeError::Generate)?;
        let public = public.0.try_into().map_err(|_| HpkeError::Generate)?;
        Ok(Self { public, private })
    }
    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }
    /// Opens what was sealed to this key.
    pub fn open(&self, sealed: &Sealed, info: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
        SUITE
            .open(&EncapsulatedSecret(sealed.encapsulated.clone()), info, aad, &sealed.ciphertext, &self.private)
            .map(Zeroizing::new)
            .map_err(|_| HpkeError::Open)
    }
}
