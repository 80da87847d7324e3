//! The root certificate of a deployment: what everybody pins.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use vocabulary::{DeploymentId, Sha256Digest, UnixTime};

use crate::certificate::SpiffeId;
use crate::certificate::fields;
use crate::key::{EcdsaPublic, KeyError};
use crate::limits::CERTIFICATE_MAX;

/// A certificate is no root of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Longer than [`CERTIFICATE_MAX`].
    #[error("the root certificate has more than {CERTIFICATE_MAX} bytes")]
    TooLarge,
    /// Not a certificate in DER, or bytes follow it.
    #[error("not a certificate in DER")]
    Malformed,
    /// Not the form of a root: key, usages, subject or trust domain.
    #[error("not the root certificate of a deployment: its {0} has another form")]
    Form(&'static str),
    /// It is not signed by its own key.
    #[error("the root certificate is not signed by its own key")]
    BadSignature,
    /// Its hash is not the pin.
    #[error("the root certificate is `{found}`, not the pinned `{pinned}`")]
    OtherPin {
        /// What was presented.
        found: Sha256Digest,
        /// What was expected.
        pinned: Sha256Digest,
    },
}

/// The root certificate of a deployment, read and checked. Whether it is the *right* one is for its pin to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootCertificate {
    der: CertificateDer<'static>,
    deployment: DeploymentId,
    public: EcdsaPublic,
    pin: Sha256Digest,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl RootCertificate {
    /// Reads a root certificate and checks its form and its own signature.
    pub fn check(der: &[u8]) -> Result<Self, RootError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(RootError::TooLarge);
        }
        let certificate = fields::parse(der).ok_or(RootError::Malformed)?;
        let read = fields::read(&certificate).ok_or(RootError::Form("subject"))?;
        let domain = read
            .uris
            .first()
            .and_then(|uri| uri.strip_prefix("spiffe://"))
            .and_then(|id| id.parse::<DeploymentId>().ok())
            .ok_or(RootError::Form("trust domain"))?;
        let alone = read.uris.len() == 1 && read.names.is_empty() && read.addresses.is_empty() && read.other_names == 0;
        if !alone || read.uris.first().is_none_or(|uri| *uri != SpiffeId::trust_domain(domain)) {
            return Err(RootError::Form("trust domain"));
        }
        if read.organisation != fields::ORGANISATION || read.unit != fields::ROOT_UNIT {
            return Err(RootError::Form("subject"));
        }
        if certificate.subject().as_raw() != certificate.issuer().as_raw() {
            return Err(RootError::Form("issuer"));
        }
        if read.authority != Some(Some(1)) || read.key_usage != fields::KEY_CERT_SIGN {
            return Err(RootError::Form("usage"));
        }
        if read.strange_extensions != 0 || read.extended != fields::Usage::Absent {
            return Err(RootError::Form("list of extensions"));
        }
        let public = fields::p256(certificate.public_key()).ok_or(RootError::Form("key"))?;
        let (signed, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
        let shaped = fields::is_ecdsa_sha256(&certificate.tbs_certificate.signature)
            && fields::is_signed_ecdsa(der, signed, signature);
        if !shaped {
            return Err(RootError::Form("signature"));
        }
        public.verify(signed, signature).map_err(|_| RootError::BadSignature)?;
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            deployment: domain,
            public,
            pin: pin_of(der),
            not_before: UnixTime::from_millis(read.not_before.saturating_mul(1000)),
            not_after: UnixTime::from_millis(read.not_after.saturating_mul(1000)),
        })
    }
    /// As [`RootCertificate::check`], and the certificate must be the pinned one.
    pub fn check_pinned(der: &[u8], pinned: &Sha256Digest) -> Result<Self, RootError> {
        let found = pin_of(der);
        if found != *pinned {
            return Err(RootError::OtherPin { found, pinned: *pinned });
        }
        Self::check(der)
    }
    /// Finds the pinned root among the certificates that a server sent.
    pub fn find_pinned(chain: &[CertificateDer<'_>], pinned: &Sha256Digest) -> Option<Self> {
        chain.iter().find_map(|der| Self::check_pinned(der, pinned).ok())
    }
    /// The certificate.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
    /// The deployment whose root it is.
    #[must_use]
    pub const fn deployment(&self) -> DeploymentId {
        self.deployment
    }
    /// The SHA-256 of the certificate, for join lines and `--ca-pin`.
    #[must_use]
    pub const fn pin(&self) -> Sha256Digest {
        self.pin
    }
    /// The root's public key.
    #[must_use]
    pub const fn public(&self) -> &EcdsaPublic {
        &self.public
    }
    /// When it begins.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }
    /// When it ends.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }
    /// Checks a signature of the root key (DER, ECDSA P-256 with SHA-256).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        self.public.verify(message, signature)
    }
}

fn pin_of(der: &[u8]) -> Sha256Digest {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest(&SHA256, der).as_ref()) {
        *to = *from;
    }
    Sha256Digest::from_bytes(bytes)
}
