//! X.509, as much as receipts need: chains of ECDSA P-256 under a pinned root, judged at a given time.
//!
//! Everything that is not needed is refused: other algorithms, unknown critical extensions, name constraints, leaves
//! that are CAs, bytes after the certificate.
#![expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is refused if it is critical, and else ignored")]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use vocabulary::{Sha256Digest, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::envelope::sha256;
use crate::limits::{CERTIFICATE_MAX, CHAIN_MAX};

const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const ED25519_KEY: &str = "1.3.101.112";

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not a certificate, or bytes follow it.
    #[error("certificate {0} of the chain is malformed")]
    Malformed(usize),
    /// None, or too many.
    #[error("a chain has 1 to {CHAIN_MAX} certificates below the root")]
    Length,
    /// Not ECDSA P-256 with SHA-256.
    #[error("certificate {0} of the chain is not signed with ECDSA P-256 and SHA-256")]
    Algorithm(usize),
    /// Its issuer's name is not the next one's subject.
    #[error("certificate {0} of the chain was not issued by the next one")]
    Issuer(usize),
    /// The signature fails.
    #[error("the signature of certificate {0} of the chain does not verify")]
    BadSignature(usize),
    /// Not valid at that time.
    #[error("certificate {0} of the chain was not valid at {1}")]
    Time(usize, UnixTime),
    /// An issuer that may not issue, or a leaf that may.
    #[error("certificate {0} of the chain has the wrong role (CA or not)")]
    Role(usize),
    /// A critical extension that is not known here.
    #[error("certificate {0} of the chain has a critical extension that is not understood")]
    CriticalExtension(usize),
    /// The key is of the wrong kind.
    #[error("the key of certificate {0} of the chain is of the wrong kind")]
    Key(usize),
}

/// A P-256 key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P256Key {
    /// Its `SubjectPublicKeyInfo`, DER.
    pub spki: Vec<u8>,
    /// Its point.
    pub point: Vec<u8>,
}

/// What a verified leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// SHA-256 of its DER.
    pub digest: Sha256Digest,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// Its URI names.
    pub uris: Vec<String>,
    /// The 32 bytes of its key, if that is Ed25519.
    pub ed25519: Option<[u8; 32]>,
}

/// Checks `chain` (leaf first, without the root) under `root` at the time `at`.
pub fn verify_chain(chain: &[Vec<u8>], root: &[u8], at: UnixTime) -> Result<Certified, ChainError> {
    if chain.is_empty() || chain.len() > CHAIN_MAX {
        return Err(ChainError::Length);
    }
    let root_number = chain.len();
    let mut parsed = Vec::with_capacity(chain.len() + 1);
    for (number, der) in chain.iter().map(Vec::as_slice).chain([root]).enumerate() {
        parsed.push(parse(der, number)?);
    }
    for (number, certificate) in parsed.iter().enumerate() {
        role(certificate, number, number > 0, number.saturating_sub(1))?;
        valid(certificate, number, at)?;
        let issuer = parsed.get(number + 1).unwrap_or(certificate);
        let issuer_number = (number + 1).min(root_number);
        signed_by(certificate, number, issuer, issuer_number)?;
    }
    let (Some(leaf), Some(der)) = (parsed.first(), chain.first()) else { return Err(ChainError::Length) };
    facts(leaf, der)
}

/// Checks that a root signs itself and may issue.
pub fn verify_self_signed(root: &[u8]) -> Result<(), ChainError> {
    let certificate = parse(root, 0)?;
    role(&certificate, 0, true, 0)?;
    signed_by(&certificate, 0, &certificate, 0)
}

/// The P-256 key of a certificate; nothing is verified.
pub fn p256_key(der: &[u8]) -> Result<P256Key, ChainError> {
    let certificate = parse(der, 0)?;
    let spki = certificate.public_key();
    if spki.algorithm.algorithm.to_id_string() != EC_PUBLIC_KEY {
        return Err(ChainError::Key(0));
    }
    Ok(P256Key { spki: spki.raw.to_vec(), point: spki.subject_public_key.data.to_vec() })
}

/// When the last certificate of a chain begins: the first moment at which the whole may be valid. Nothing is verified.
pub fn begins(chain: &[Vec<u8>]) -> Result<UnixTime, ChainError> {
    let mut latest = 0;
    for (number, der) in chain.iter().enumerate() {
        let begins = parse(der, number)?.validity().not_before.timestamp();
        latest = latest.max(u64::try_from(begins).map_err(|_| ChainError::Malformed(number))?);
    }
    Ok(UnixTime::from_millis(latest.saturating_mul(1000)))
}

fn parse(der: &[u8], number: usize) -> Result<X509Certificate<'_>, ChainError> {
    if der.len() > CERTIFICATE_MAX {
        return Err(ChainError::Malformed(number));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(ChainError::Malformed(number)),
    }
}

fn role(certificate: &X509Certificate<'_>, number: usize, must_be_ca: bool, below: usize) -> Result<(), ChainError> {
    let mut is_ca = false;
    let mut may_sign = false;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => {
                is_ca = constraints.ca;
                let fits = constraints.path_len_constraint.is_none_or(|max| below <= usize::try_from(max).unwrap_or(0));
                if is_ca && !fits {
                    return Err(ChainError::Role(number));
                }
            }
            ParsedExtension::KeyUsage(usage) => may_sign = usage.key_cert_sign(),
            ParsedExtension::ExtendedKeyUsage(_) | ParsedExtension::SubjectAlternativeName(_) => {}
            _ if extension.critical => return Err(ChainError::CriticalExtension(number)),
            _ => {}
        }
    }
    if is_ca == must_be_ca && may_sign == must_be_ca { Ok(()) } else { Err(ChainError::Role(number)) }
}

fn valid(certificate: &X509Certificate<'_>, number: usize, at: UnixTime) -> Result<(), ChainError> {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let inside = validity.not_before.timestamp() <= seconds && seconds <= validity.not_after.timestamp();
    if inside { Ok(()) } else { Err(ChainError::Time(number, at)) }
}

fn signed_by(
    certificate: &X509Certificate<'_>,
    number: usize,
    issuer: &X509Certificate<'_>,
    issuer_number: usize,
) -> Result<(), ChainError> {
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(ChainError::Issuer(number));
    }
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    if algorithm != ECDSA_WITH_SHA256 || certificate.tbs_certificate.signature != certificate.signature_algorithm {
        return Err(ChainError::Algorithm(number));
    }
    let key = issuer.public_key();
    if key.algorithm.algorithm.to_id_string() != EC_PUBLIC_KEY {
        return Err(ChainError::Key(issuer_number));
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.subject_public_key.data)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .map_err(|_| ChainError::BadSignature(number))
}

fn facts(leaf: &X509Certificate<'_>, der: &[u8]) -> Result<Certified, ChainError> {
    let mut uris = Vec::new();
    for extension in leaf.extensions() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            for name in &names.general_names {
                if let GeneralName::URI(uri) = name {
                    uris.push((*uri).to_owned());
                }
            }
        }
    }
    let key = leaf.public_key();
    let ed25519 = if key.algorithm.algorithm.to_id_string() == ED25519_KEY {
        Some(key.subject_public_key.data.as_ref().try_into().map_err(|_| ChainError::Key(0))?)
    } else {
        None
    };
    Ok(Certified { digest: sha256(der), serial: hex::encode(leaf.raw_serial()), uris, ed25519 })
}
