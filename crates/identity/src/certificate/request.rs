//! Certificate requests (PKCS #10): a public key and the proof that its owner asks. Nothing else is taken from them.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::certificate::fields;
use crate::key::{EcdsaKey, EcdsaPublic};
use crate::limits::CSR_MAX;

/// A certificate request is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`CSR_MAX`].
    #[error("the certificate request has more than {CSR_MAX} bytes")]
    TooLarge,
    /// Not a certificate request in DER, or bytes follow it.
    #[error("not a certificate request in DER")]
    Malformed,
    /// The key is no P-256 key, or the signature algorithm is not ECDSA with SHA-256.
    #[error("the certificate request is not for a P-256 key signed with ECDSA and SHA-256")]
    Algorithm,
    /// The request is not signed by the key that it asks for.
    #[error("the certificate request is not signed by its own key")]
    BadSignature,
    /// The request could not be made.
    #[error("the certificate request could not be made")]
    Make,
}

/// A request whose signature was checked. Subject, names and extensions that it asks for were not even read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateRequest {
    public: EcdsaPublic,
}

impl CertificateRequest {
    /// Reads and checks a request in DER.
    pub fn check(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > CSR_MAX {
            return Err(RequestError::TooLarge);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        if !fields::is_ecdsa_sha256(&request.signature_algorithm) {
            return Err(RequestError::Algorithm);
        }
        let info = &request.certification_request_info;
        if !fields::is_signed_ecdsa(der, info.raw, &request.signature_value.data) {
            return Err(RequestError::Malformed);
        }
        let public = fields::p256(&info.subject_pki).ok_or(RequestError::Algorithm)?;
        public.verify(info.raw, &request.signature_value.data).map_err(|_| RequestError::BadSignature)?;
        Ok(Self { public })
    }
    /// The key that the request is for.
    #[must_use]
    pub const fn public(&self) -> &EcdsaPublic {
        &self.public
    }
}

/// Makes a request for a key: an empty subject, no extensions.
pub fn make_request(key: &EcdsaKey) -> Result<Vec<u8>, RequestError> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(key).map(|csr| csr.der().to_vec()).map_err(|_| RequestError::Make)
}
