//! The makers of certificates: the root, which signs issuing authorities only, and those, which sign leaves of one class.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, DnsName};
use vocabulary::{ControlId, DeploymentId, KeyId, NodeId, UnixTime};

use crate::certificate::fields::{ORGANISATION, ROOT_UNIT};
use crate::certificate::verifier::check_authority;
use crate::certificate::{
    CertificateRequest, Class, PeerRefusal, RootCertificate, RootError, Serial, SpiffeId, Subject, VerifiedPeer,
};
use crate::key::{EcdsaKey, EcdsaPublic, KeyError, Pkcs8, StatementPublic};
use crate::limits::{
    BACKDATE_MS, CERTIFICATE_MAX, CHAIN_MAX, CONTROL_LIFE_MS, ISSUING_LIFE_MS, LAST_SECOND, NODE_LIFE_MAX_MS,
    NODE_LIFE_MIN_MS, NODE_LIFE_MS, RECEIPT_LIFE_MS, ROOT_LIFE_MS, SERVER_NAMES_MAX,
};

/// A certificate is not issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The authority speaks for another class.
    #[error("the issuing authority speaks for class {speaks_for}, not for {asked}")]
    WrongClass {
        /// What it speaks for.
        speaks_for: Class,
        /// What was asked of it.
        asked: Class,
    },
    /// The authority's own certificate has ended or not begun.
    #[error("the authority's own certificate is not valid now")]
    AuthorityNotValid,
    /// The certificate to be renewed has ended or is another deployment's.
    #[error("the certificate to be renewed is not valid here and now")]
    PeerNotValid,
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// A server certificate needs between one and [`SERVER_NAMES_MAX`] names.
    #[error("a server certificate has 1 to {SERVER_NAMES_MAX} names")]
    Names,
    /// A text is no DNS name and no address.
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    /// A life outside the bounds.
    #[error("the life of a node's certificate is {NODE_LIFE_MIN_MS} to {NODE_LIFE_MAX_MS} milliseconds")]
    Life,
    /// The time cannot stand in a certificate.
    #[error("the time cannot stand in a certificate")]
    Time,
    /// The encoder refused.
    #[error("the certificate could not be encoded")]
    Encode,
    /// A key is not acceptable.
    #[error("a key is not acceptable")]
    Key(#[from] KeyError),
    /// The root certificate is not acceptable.
    #[error("the root certificate is not acceptable")]
    Root(#[from] RootError),
    /// The issuing certificate is not acceptable.
    #[error("the issuing certificate is not acceptable")]
    Authority(#[from] PeerRefusal),
}

/// The life of a node's certificate: a setting between five minutes and a day.
///
/// It is the longest absence of the control plane that mutual TLS survives, and the longest that a stolen key is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLife(u64);

impl NodeLife {
    /// Takes milliseconds.
    pub fn from_millis(millis: u64) -> Result<Self, IssueError> {
        if (NODE_LIFE_MIN_MS..=NODE_LIFE_MAX_MS).contains(&millis) { Ok(Self(millis)) } else { Err(IssueError::Life) }
    }
}

impl Default for NodeLife {
    fn default() -> Self {
        Self(NODE_LIFE_MS)
    }
}

/// A name under which people reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// A DNS name.
    Dns(DnsName<'static>),
    /// An address.
    Ip(IpAddr),
}

impl std::str::FromStr for ServerName {
    type Err = IssueError;
    fn from_str(text: &str) -> Result<Self, IssueError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        DnsName::try_from(text.to_ascii_lowercase())
            .map(Self::Dns)
            .map_err(|_| IssueError::Name(text.chars().filter(|c| !c.is_control()).take(64).collect()))
    }
}

/// A fresh leaf certificate with its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Leaf, then issuing authority, as TLS and the API send them.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom it names.
    pub id: SpiffeId,
    /// Its serial number, for the audit log and for revocation.
    pub serial: Serial,
    /// When it begins.
    pub not_before: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
}

impl Issued {
    /// When to renew: at two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> UnixTime {
        renew_at(self.not_before, self.not_after)
    }
}

/// A chain as the API carries it: DER, base64.
#[must_use]
pub fn chain_to_wire(chain: &[CertificateDer<'_>]) -> Vec<String> {
    chain.iter().map(|der| STANDARD.encode(der)).collect()
}

/// A chain from the API; its certificates are judged by whoever uses them.
pub fn chain_from_wire(chain: &[String]) -> Result<Vec<CertificateDer<'static>>, PeerRefusal> {
    if chain.len() > CHAIN_MAX {
        return Err(PeerRefusal::TooMany);
    }
    let read = |text: &String| {
        // Four characters for three bytes: what is far too long is not decoded.
        if text.len() > CERTIFICATE_MAX.saturating_mul(2) {
            return Err(PeerRefusal::TooLarge);
        }
        STANDARD.decode(text).map(CertificateDer::from).map_err(|_| PeerRefusal::Malformed)
    };
    chain.iter().map(read).collect()
}

/// Two thirds of the way between two times.
#[must_use]
pub fn renew_at(not_before: UnixTime, not_after: UnixTime) -> UnixTime {
    let life = not_after.since(not_before).unwrap_or(0);
    not_before.plus_millis((life / 3).saturating_mul(2))
}

/// The root of a deployment with its private key: opened from under the seal, used, and dropped.
#[derive(Debug)]
pub struct RootAuthority {
    certificate: RootCertificate,
    key: EcdsaKey,
}

impl RootAuthority {
    /// Makes the root of a new deployment.
    pub fn create(deployment: DeploymentId, now: UnixTime, random: &mut dyn keys::Random) -> Result<Self, IssueError> {
        let key = EcdsaKey::generate()?;
        let life = Life::new(now, ROOT_LIFE_MS, UnixTime::from_millis(u64::MAX))?;
        let mut params = params(ROOT_UNIT, &format!("root of {deployment}"), Serial::draw(random), life)?;
        params.subject_alt_names = vec![uri(&SpiffeId::trust_domain(deployment))?];
        authority(&mut params, 1);
        let certificate = params.self_signed(&key).map_err(|_| IssueError::Encode)?;
        Ok(Self { certificate: RootCertificate::check(certificate.der())?, key })
    }
    /// Opens a stored root.
    pub fn open(certificate: RootCertificate, private: &Pkcs8) -> Result<Self, IssueError> {
        let key = EcdsaKey::open(private)?;
        if key.public()? != *certificate.public() {
            return Err(IssueError::OtherKey);
        }
        Ok(Self { certificate, key })
    }
    /// The root's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &RootCertificate {
        &self.certificate
    }
    /// The root's private key, for wrapping.
    #[must_use]
    pub fn private(&self) -> &Pkcs8 {
        self.key.private()
    }
    /// Signs a message with the root key (DER, ECDSA P-256 with SHA-256): the deployment's public file only.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(message)
    }
    /// Makes an issuing authority for one class, with a key of its own.
    pub fn issue_authority(
        &self,
        class: Class,
        now: UnixTime,
        random: &mut dyn keys::Random,
    ) -> Result<IssuingAuthority, IssueError> {
        valid_now(self.certificate.not_before(), self.certificate.not_after(), now)?;
        let deployment = self.certificate.deployment();
        let key = EcdsaKey::generate()?;
        let serial = Serial::draw(random);
        let life = Life::new(now, ISSUING_LIFE_MS, self.certificate.not_after())?;
        // The serial in the name keeps two authorities of one class apart, so that path building is never ambiguous.
        let mut params = params(class.as_str(), &format!("issuing {serial}"), serial, life)?;
        params.subject_alt_names = vec![uri(&SpiffeId::trust_domain(deployment))?];
        authority(&mut params, 0);
        let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &self.key).map_err(|_| IssueError::Encode)?;
        let certificate = params.signed_by(&key, &issuer).map_err(|_| IssueError::Encode)?;
        IssuingAuthority::open(&self.certificate, certificate.der(), key.private())
    }
}

/// An issuing authority: speaks for one class of one deployment.
#[derive(Debug)]
pub struct IssuingAuthority {
    class: Class,
    deployment: DeploymentId,
    der: CertificateDer<'static>,
    key: EcdsaKey,
    serial: Serial,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl IssuingAuthority {
    /// Opens a stored authority: its certificate must come from this root, its key must fit.
    pub fn open(root: &RootCertificate, der: &[u8], private: &Pkcs8) -> Result<Self, IssueError> {
        let checked = check_authority(root, der)?;
        let key = EcdsaKey::open(private)?;
        if key.public()? != checked.public {
            return Err(IssueError::OtherKey);
        }
        Ok(Self {
            class: checked.class,
            deployment: root.deployment(),
            der: CertificateDer::from(der.to_vec()),
            key,
            serial: checked.serial,
            not_before: checked.not_before,
            not_after: checked.not_after,
        })
    }
    /// The class that it speaks for.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }
    /// Its certificate.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
    /// Its private key, for wrapping.
    #[must_use]
    pub fn private(&self) -> &Pkcs8 {
        self.key.private()
    }
    /// When its certificate ends.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }
    /// When its certificate begins.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }
    /// Its serial number.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }
    /// When to make the next authority of this class: in the middle of its life, so that what it issued is long over when it ends.
    #[must_use]
    pub fn replace_at(&self) -> UnixTime {
        let life = self.not_after.since(self.not_before).unwrap_or(0);
        self.not_before.plus_millis(life / 2)
    }

    /// Issues a node's certificate. Of the request, only the public key is taken.
    pub fn issue_node(
        &self,
        node: NodeId,
        request: &CertificateRequest,
        life: NodeLife,
        now: UnixTime,
        random: &mut dyn keys::Random,
    ) -> Result<Issued, IssueError> {
        self.issue(Subject::Node(node), request.public(), &[], life.0, now, random)
    }
    /// Renews a node's certificate over its own channel. Whose it is comes from the certificate that the node showed, and
    /// from nowhere else; the key may be a new one.
    pub fn renew_node(
        &self,
        peer: &VerifiedPeer,
        request: &CertificateRequest,
        life: NodeLife,
        now: UnixTime,
        random: &mut dyn keys::Random,
    ) -> Result<Issued, IssueError> {
        if peer.id.deployment != self.deployment || now > peer.not_after {
            return Err(IssueError::PeerNotValid);
        }
        self.issue(peer.id.subject, request.public(), &[], life.0, now, random)
    }
    /// Issues the certificate of a control-plane process, for the names under which it is reached.
    pub fn issue_control(
        &self,
        control: ControlId,
        public: &EcdsaPublic,
        names: &[ServerName],
        now: UnixTime,
        random: &mut dyn keys::Random,
    ) -> Result<Issued, IssueError> {
        if names.is_empty() || names.len() > SERVER_NAMES_MAX {
            return Err(IssueError::Names);
        }
        self.issue(Subject::Control(control), public, names, CONTROL_LIFE_MS, now, random)
    }
    /// Issues the certificate of a receipt key.
    pub fn issue_receipt(
        &self,
        id: KeyId,
        public: &StatementPublic,
        now: UnixTime,
        random: &mut dyn keys::Random,
    ) -> Result<Issued, IssueError> {
        self.issue(Subject::Receipt(id), public, &[], RECEIPT_LIFE_MS, now, random)
    }

    fn issue(
        &self,
        subject: Subject,
        public: &impl PublicKeyData,
        names: &[ServerName],
        life_ms: u64,
        now: UnixTime,
        random: &mut dyn keys::Random,
    ) -> Result<Issued, IssueError> {
        let asked = subject.class();
        if asked != self.class {
            return Err(IssueError::WrongClass { speaks_for: self.class, asked });
        }
        valid_now(self.not_before, self.not_after, now)?;
        let id = SpiffeId { deployment: self.deployment, subject };
        let serial = Serial::draw(random);
        let life = Life::new(now, life_ms, self.not_after)?;
        let mut params = params(asked.as_str(), &subject.to_string(), serial, life)?;
        params.subject_alt_names = vec![uri(&id.to_string())?];
        for name in names {
            params.subject_alt_names.push(match name {
                ServerName::Dns(dns) => SanType::DnsName(dns.as_ref().try_into().map_err(|_| IssueError::Encode)?),
                ServerName::Ip(address) => SanType::IpAddress(*address),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match asked {
            Class::Node | Class::Control => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Class::Receipt => Vec::new(),
        };
        let issuer = Issuer::from_ca_cert_der(&self.der, &self.key).map_err(|_| IssueError::Encode)?;
        let leaf = params.signed_by(public, &issuer).map_err(|_| IssueError::Encode)?;
        Ok(Issued {
            chain: vec![leaf.der().clone(), self.der.clone()],
            id,
            serial,
            not_before: life.from,
            not_after: life.to,
        })
    }
}

/// What all our certificates have in common.
fn params(unit: &str, common: &str, serial: Serial, life: Life) -> Result<CertificateParams, IssueError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANISATION);
    name.push(DnType::OrganizationalUnitName, unit);
    name.push(DnType::CommonName, common);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(life.from.seconds());
    params.not_after = epoch + Duration::from_secs(life.to.seconds());
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// When a certificate begins and ends, in whole seconds.
#[derive(Debug, Clone, Copy)]
struct Life {
    from: UnixTime,
    to: UnixTime,
}

impl Life {
    /// Begins a little before now; ends after the given life, but not after the issuer.
    fn new(now: UnixTime, millis: u64, issuer_ends: UnixTime) -> Result<Self, IssueError> {
        let from = whole_seconds(UnixTime::from_millis(now.millis().saturating_sub(BACKDATE_MS)));
        let to = whole_seconds(now.plus_millis(millis).min(issuer_ends));
        // Bounded, because the library's addition panics on overflow.
        if to.seconds() > LAST_SECOND { Err(IssueError::Time) } else { Ok(Self { from, to }) }
    }
}

fn whole_seconds(time: UnixTime) -> UnixTime {
    UnixTime::from_millis(time.seconds().saturating_mul(1000))
}

fn authority(params: &mut CertificateParams, path_length: u8) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    Ok(SanType::URI(text.try_into().map_err(|_| IssueError::Encode)?))
}

fn valid_now(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Result<(), IssueError> {
    if now < not_before || now > not_after { Err(IssueError::AuthorityNotValid) } else { Ok(()) }
}
