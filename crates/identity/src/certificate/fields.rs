//! Fields of certificates, read strictly after their signatures were checked.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519, OID_X509_COMMON_NAME,
    OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
};
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name, X509Version};

use crate::key::{EcdsaPublic, StatementPublic};

/// The organisation in every subject of ours.
pub(super) const ORGANISATION: &str = "Swarm";
/// The unit in the subject of a root.
pub(super) const ROOT_UNIT: &str = "root";

/// Bit 0 of the key usage: digitalSignature.
pub(super) const DIGITAL_SIGNATURE: u16 = 1;
/// Bit 5 of the key usage: keyCertSign.
pub(super) const KEY_CERT_SIGN: u16 = 1 << 5;

/// Extended key usages of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// No such extension.
    Absent,
    /// Server and client authentication, and nothing else.
    BothTls,
    /// Anything else.
    Other,
}

/// What a certificate of ours says.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) organisation: &'a str,
    pub(super) unit: &'a str,
    pub(super) uris: Vec<&'a str>,
    pub(super) names: Vec<&'a str>,
    pub(super) addresses: Vec<&'a [u8]>,
    /// Alternative names of any other kind.
    pub(super) other_names: usize,
    pub(super) key_usage: u16,
    pub(super) extended: Usage,
    /// The path length of an authority; `None` for a leaf.
    pub(super) authority: Option<Option<u32>>,
    /// Extensions that none of our certificates has, or that cannot be read.
    pub(super) strange_extensions: usize,
    /// Seconds since 1970.
    pub(super) not_before: u64,
    /// Seconds since 1970.
    pub(super) not_after: u64,
}

/// Parses exactly one certificate of version 3.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    (rest.is_empty() && certificate.version() == X509Version::V3).then_some(certificate)
}

/// Reads all fields; `None` where one has a form that ours never have.
pub(super) fn read<'a>(certificate: &'a X509Certificate<'_>) -> Option<Fields<'a>> {
    let (organisation, unit) = subject(certificate.subject())?;
    let validity = certificate.validity();
    let mut fields = Fields {
        organisation,
        unit,
        uris: Vec::new(),
        names: Vec::new(),
        addresses: Vec::new(),
        other_names: 0,
        key_usage: 0,
        extended: Usage::Absent,
        authority: None,
        strange_extensions: 0,
        not_before: u64::try_from(validity.not_before.timestamp()).ok()?,
        not_after: u64::try_from(validity.not_after.timestamp()).ok()?,
    };
    for extension in certificate.extensions() {
        fields.take(extension.parsed_extension());
    }
    Some(fields)
}

impl<'a> Fields<'a> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "ours have six extensions and four kinds of names; everything else, also what a later parser knows, is strange"
    )]
    fn take(&mut self, extension: &'a ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push(uri),
                        GeneralName::DNSName(dns) => self.names.push(dns),
                        GeneralName::IPAddress(address) => self.addresses.push(address),
                        _ => self.other_names = self.other_names.saturating_add(1),
                    }
                }
            }
            ParsedExtension::KeyUsage(usage) => self.key_usage = usage.flags,
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let others = usage.any
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing
                    || !usage.other.is_empty();
                let both = usage.server_auth && usage.client_auth && !others;
                self.extended = if both { Usage::BothTls } else { Usage::Other };
            }
            ParsedExtension::BasicConstraints(basic) => {
                self.authority = basic.ca.then_some(basic.path_len_constraint);
            }
            ParsedExtension::SubjectKeyIdentifier(_) | ParsedExtension::AuthorityKeyIdentifier(_) => {}
            _ => self.strange_extensions = self.strange_extensions.saturating_add(1),
        }
    }
}

/// Organisation and unit of a subject that has exactly organisation, unit and common name.
fn subject<'a>(name: &'a X509Name<'_>) -> Option<(&'a str, &'a str)> {
    let mut attributes = name.iter_attributes();
    let (organisation, unit, common) = (attributes.next()?, attributes.next()?, attributes.next()?);
    let shaped = *organisation.attr_type() == OID_X509_ORGANIZATION_NAME
        && *unit.attr_type() == OID_X509_ORGANIZATIONAL_UNIT
        && *common.attr_type() == OID_X509_COMMON_NAME
        && attributes.next().is_none();
    if !shaped {
        return None;
    }
    Some((organisation.as_str().ok()?, unit.as_str().ok()?))
}

/// Whether a signature algorithm is ECDSA with SHA-256, without parameters.
pub(super) fn is_ecdsa_sha256(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256 && algorithm.parameters.is_none()
}

/// Whether `der` is exactly the one DER text of signed bytes and their ECDSA signature.
///
/// The signature covers the inner bytes only; this closes what lies around them to other spellings of lengths,
/// algorithm and unused bits, which the parser would let pass.
pub(super) fn is_signed_ecdsa(der: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let bits = [&[0], signature].concat();
    let whole = || Some([signed, &ECDSA_WITH_SHA256, &element(0x03, &bits)?].concat());
    whole().and_then(|content| element(0x30, &content)).is_some_and(|expected| expected == der)
}

/// Tag, shortest length, content; up to 65,535 bytes, far beyond our limits.
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(content.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        0x100.. => vec![tag, 0x82, high, low],
    };
    Some([header.as_slice(), content].concat())
}

/// A P-256 key as an uncompressed point.
pub(super) fn p256(info: &SubjectPublicKeyInfo<'_>) -> Option<EcdsaPublic> {
    let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let shaped = info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == OID_EC_P256
        && info.subject_public_key.unused_bits == 0;
    if shaped { EcdsaPublic::from_point(&info.subject_public_key.data).ok() } else { None }
}

/// An Ed25519 key.
pub(super) fn ed25519(info: &SubjectPublicKeyInfo<'_>) -> Option<StatementPublic> {
    let shaped = info.algorithm.algorithm == OID_SIG_ED25519
        && info.algorithm.parameters.is_none()
        && info.subject_public_key.unused_bits == 0;
    if shaped { StatementPublic::from_slice(&info.subject_public_key.data).ok() } else { None }
}
