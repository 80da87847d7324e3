//! The one verifier: every certificate of a peer, of a receipt or of a stored authority is judged here and nowhere else.
//!
//! The order is fixed: sizes, then the path to the pinned root at a given time (webpki), then the fields (x509-parser),
//! then *may this issuer speak for this class of this deployment?*, then revocation.

use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::time::Duration;
use vocabulary::{DeploymentId, Sha256Digest, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use crate::certificate::fields::{self, DIGITAL_SIGNATURE, Fields, KEY_CERT_SIGN, ORGANISATION, Usage};
use crate::certificate::{Class, LiveRevocations, RootCertificate, Serial, SpiffeId};
use crate::key::{EcdsaPublic, StatementPublic};
use crate::limits::{BACKDATE_MS, CERTIFICATE_MAX, CHAIN_MAX, CONTROL_LIFE_MS, NODE_LIFE_MAX_MS, RECEIPT_LIFE_MS};

/// Why a peer's certificate was refused; each named after what the peer did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// No certificate at all.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// More certificates than leaf, issuing authority and root.
    #[error("the peer sent more than {CHAIN_MAX} certificates")]
    TooMany,
    /// A certificate longer than [`CERTIFICATE_MAX`].
    #[error("a certificate has more than {CERTIFICATE_MAX} bytes")]
    TooLarge,
    /// Exactly one issuing authority must come with the leaf.
    #[error("the peer sent {0} issuing certificates, not one")]
    Issuers(usize),
    /// A certificate cannot be read.
    #[error("a certificate is malformed")]
    Malformed,
    /// The root is not valid at this time.
    #[error("the deployment's root certificate is not valid at this time")]
    RootNotValid,
    /// The path does not lead to the pinned root.
    #[error("the certificate comes from another authority than the pinned root")]
    ForeignAuthority,
    /// A signature on the path is wrong.
    #[error("a signature on the certificate's path is wrong")]
    BadSignature,
    /// An end of validity has passed.
    #[error("a certificate of the path has expired")]
    Expired,
    /// A beginning of validity lies ahead.
    #[error("a certificate of the path is not valid yet")]
    NotYetValid,
    /// The leaf is itself an authority.
    #[error("the leaf is an authority's certificate")]
    AuthorityAsLeaf,
    /// A leaf was used to sign another.
    #[error("a leaf was used as an authority")]
    LeafAsAuthority,
    /// Another form of path, algorithm or extension than ours have.
    #[error("the certificate's path is none of ours: {0}")]
    Path(String),
    /// Key usage or extended key usage are not those of the class.
    #[error("the certificate's usages are not those of its class")]
    BadUsage,
    /// A key of another kind than the class has.
    #[error("the certificate's key is not of the kind that its class has")]
    BadKey,
    /// A serial number that is not sixteen positive bytes of ours.
    #[error("the serial number is none of ours")]
    BadSerial,
    /// An extension that ours do not have.
    #[error("the certificate has an extension that ours do not have")]
    UnexpectedExtension,
    /// A life that is longer than its class allows.
    #[error("the certificate lives longer than its class allows")]
    TooLong,
    /// There must be exactly one URI.
    #[error("the certificate names {0} URIs, not one")]
    Uris(usize),
    /// The URI is no SPIFFE id of ours.
    #[error("the certificate's URI is no SPIFFE id of Swarm")]
    BadId,
    /// Names beside the URI that the class does not have.
    #[error("the certificate has names that its class does not have")]
    UnexpectedNames,
    /// The subject is not of our form.
    #[error("the certificate's subject is not of our form")]
    BadSubject,
    /// The certificate speaks for another deployment.
    #[error("the certificate speaks for deployment {0}")]
    OtherDeployment(DeploymentId),
    /// The certificate is of another class than is expected here.
    #[error("the certificate is of class {found}, expected is {expected}")]
    WrongClass {
        /// What it is.
        found: Class,
        /// What is expected.
        expected: Class,
    },
    /// The issuer may not speak for this class.
    #[error("the issuer speaks for class `{issuer}`, not for {class}")]
    IssuerOfOtherClass {
        /// The issuer's unit.
        issuer: String,
        /// The leaf's class.
        class: Class,
    },
    /// The node or the certificate is revoked.
    #[error("the certificate is revoked")]
    Revoked,
    /// No certificate has the pinned hash.
    #[error("no certificate of the server is the pinned `{0}`")]
    PinNotFound(Sha256Digest),
    /// The server is reached under a name that its certificate does not have.
    #[error("the certificate is not for `{0}`")]
    OtherName(String),
}

/// The key of a verified certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKey {
    /// Of a TLS end.
    Ecdsa(EcdsaPublic),
    /// Of a signer of statements.
    Statement(StatementPublic),
}

/// A peer whose certificate passed. Only the verifier makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// The class that was asked for, and found.
    pub class: Class,
    /// Who it is.
    pub id: SpiffeId,
    /// The certificate's serial number.
    pub serial: Serial,
    /// When the certificate begins.
    pub not_before: UnixTime,
    /// When the certificate ends: a connection must not outlive it.
    pub not_after: UnixTime,
    /// The certificate's key.
    pub key: PublicKey,
    /// No other module can make one.
    proof: Proof,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proof;

/// Judges certificates under one pinned root, with the revocations in force at that moment.
#[derive(Debug, Clone)]
pub struct Verifier {
    root: RootCertificate,
    anchor: TrustAnchor<'static>,
    revocations: LiveRevocations,
}

impl Verifier {
    /// A verifier for a deployment.
    pub fn new(root: RootCertificate, revocations: LiveRevocations) -> Result<Self, PeerRefusal> {
        let anchor = webpki::anchor_from_trusted_cert(root.der()).map_err(|_| PeerRefusal::Malformed)?.to_owned();
        Ok(Self { root, anchor, revocations })
    }
    /// The pinned root.
    #[must_use]
    pub const fn root(&self) -> &RootCertificate {
        &self.root
    }
    /// The revocations that it consults.
    #[must_use]
    pub const fn revocations(&self) -> &LiveRevocations {
        &self.revocations
    }

    /// Judges a chain (leaf first; the root may be among it) for one class at one time.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        expected: Class,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerRefusal> {
        let (leaf, issuer) = self.sizes(chain)?;
        self.path(leaf, issuer, now)?;
        let authority = read_authority(&self.root, issuer)?;
        let peer = read_leaf(&self.root, leaf, expected, &authority)?;
        if self.revocations.current().refuses(&peer) {
            return Err(PeerRefusal::Revoked);
        }
        Ok(peer)
    }

    /// Leaf and issuing authority, of acceptable size.
    fn sizes<'c, 'd>(
        &self,
        chain: &'c [CertificateDer<'d>],
    ) -> Result<(&'c CertificateDer<'d>, &'c CertificateDer<'d>), PeerRefusal> {
        if chain.len() > CHAIN_MAX {
            return Err(PeerRefusal::TooMany);
        }
        if chain.iter().any(|c| c.len() > CERTIFICATE_MAX) {
            return Err(PeerRefusal::TooLarge);
        }
        let (leaf, rest) = chain.split_first().ok_or(PeerRefusal::NoCertificate)?;
        // The root travels along only so that a pin can be found; it is never trusted because it was sent.
        let mut issuers = rest.iter().filter(|c| c.as_ref() != self.root.der().as_ref());
        match (issuers.next(), issuers.count()) {
            (Some(issuer), 0) => Ok((leaf, issuer)),
            (Some(_), more) => Err(PeerRefusal::Issuers(more.saturating_add(1))),
            (None, _) => Err(PeerRefusal::Issuers(0)),
        }
    }

    /// The path to the pinned root: signatures, validity, authority flags, path lengths.
    fn path(&self, leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>, now: UnixTime) -> Result<(), PeerRefusal> {
        // webpki takes an anchor's validity for granted; we do not.
        if now < self.root.not_before() || now > self.root.not_after() {
            return Err(PeerRefusal::RootNotValid);
        }
        let entity = EndEntityCert::try_from(leaf).map_err(|e| path_refusal(&e))?;
        let issuers = [CertificateDer::from(issuer.as_ref())];
        let path = entity
            .verify_for_usage(
                &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
                std::slice::from_ref(&self.anchor),
                &issuers,
                rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_millis(now.millis())),
                UsageJudgedLater,
                None,
                None,
            )
            .map_err(|e| path_refusal(&e))?;
        match path.intermediate_certificates().count() {
            1 => Ok(()),
            // The root signs no leaf.
            other => Err(PeerRefusal::Issuers(other)),
        }
    }
}

/// Judges a chain at the time of a logged entry, as receipts do. Revocations of today do not reach into the past.
pub fn verify_chain_at(
    root: &RootCertificate,
    chain: &[CertificateDer<'_>],
    class: Class,
    time: UnixTime,
) -> Result<VerifiedPeer, PeerRefusal> {
    Verifier::new(root.clone(), LiveRevocations::default())?.verify(chain, class, time)
}

/// Extended key usages are judged with the other fields, exactly per class, instead of inside the path.
struct UsageJudgedLater;

impl ExtendedKeyUsageValidator for UsageJudgedLater {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign, growing list; whatever it adds is a refusal with its text"
)]
fn path_refusal(error: &webpki::Error) -> PeerRefusal {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } => PeerRefusal::Expired,
        Error::CertNotValidYet { .. } => PeerRefusal::NotYetValid,
        Error::UnknownIssuer => PeerRefusal::ForeignAuthority,
        Error::InvalidSignatureForPublicKey => PeerRefusal::BadSignature,
        Error::CaUsedAsEndEntity => PeerRefusal::AuthorityAsLeaf,
        Error::EndEntityUsedAsCa => PeerRefusal::LeafAsAuthority,
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => PeerRefusal::Malformed,
        Error::UnsupportedCriticalExtension => PeerRefusal::UnexpectedExtension,
        other => PeerRefusal::Path(other.to_string()),
    }
}

/// What an issuing certificate says, once its path was checked.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) class: Class,
    pub(super) public: EcdsaPublic,
    pub(super) serial: Serial,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
}

/// Checks a stored issuing certificate against its root, at the time at which it began.
pub(super) fn check_authority(root: &RootCertificate, der: &[u8]) -> Result<Authority, PeerRefusal> {
    if der.len() > CERTIFICATE_MAX {
        return Err(PeerRefusal::TooLarge);
    }
    let certificate = fields::parse(der).ok_or(PeerRefusal::Malformed)?;
    if certificate.issuer().as_raw() != root_subject(root)?.as_slice() {
        return Err(PeerRefusal::ForeignAuthority);
    }
    let (signed, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    if !fields::is_ecdsa_sha256(&certificate.tbs_certificate.signature)
        || !fields::is_signed_ecdsa(der, signed, signature)
    {
        return Err(PeerRefusal::Malformed);
    }
    root.verify(signed, signature).map_err(|_| PeerRefusal::BadSignature)?;
    read_authority(root, &CertificateDer::from(der))
}

fn root_subject(root: &RootCertificate) -> Result<Vec<u8>, PeerRefusal> {
    let certificate = fields::parse(root.der()).ok_or(PeerRefusal::Malformed)?;
    Ok(certificate.subject().as_raw().to_vec())
}

fn read_authority(root: &RootCertificate, der: &CertificateDer<'_>) -> Result<Authority, PeerRefusal> {
    let certificate = fields::parse(der).ok_or(PeerRefusal::Malformed)?;
    let read = fields::read(&certificate).ok_or(PeerRefusal::BadSubject)?;
    if read.authority != Some(Some(0)) {
        return Err(PeerRefusal::LeafAsAuthority);
    }
    if read.key_usage != KEY_CERT_SIGN || read.extended != Usage::Absent {
        return Err(PeerRefusal::BadUsage);
    }
    let domain = only_uri(&read)?;
    if domain != SpiffeId::trust_domain(root.deployment()) {
        let other = domain.strip_prefix("spiffe://").and_then(|id| id.parse().ok());
        return Err(other.map_or(PeerRefusal::BadId, PeerRefusal::OtherDeployment));
    }
    if !read.names.is_empty() || !read.addresses.is_empty() || read.other_names != 0 {
        return Err(PeerRefusal::UnexpectedNames);
    }
    if read.strange_extensions != 0 {
        return Err(PeerRefusal::UnexpectedExtension);
    }
    if read.organisation != ORGANISATION {
        return Err(PeerRefusal::BadSubject);
    }
    let class = Class::ALL.into_iter().find(|c| c.as_str() == read.unit).ok_or(PeerRefusal::BadSubject)?;
    let public = fields::p256(certificate.public_key()).ok_or(PeerRefusal::BadKey)?;
    let serial = Serial::from_der_content(certificate.raw_serial()).ok_or(PeerRefusal::BadSerial)?;
    let (not_before, not_after) = validity(&read);
    Ok(Authority { class, public, serial, not_before, not_after })
}

fn read_leaf(
    root: &RootCertificate,
    der: &CertificateDer<'_>,
    expected: Class,
    issuer: &Authority,
) -> Result<VerifiedPeer, PeerRefusal> {
    let certificate = fields::parse(der).ok_or(PeerRefusal::Malformed)?;
    let read = fields::read(&certificate).ok_or(PeerRefusal::BadSubject)?;
    if read.authority.is_some() {
        return Err(PeerRefusal::AuthorityAsLeaf);
    }
    let id: SpiffeId = only_uri(&read)?.parse().map_err(|_| PeerRefusal::BadId)?;
    if id.deployment != root.deployment() {
        return Err(PeerRefusal::OtherDeployment(id.deployment));
    }
    let class = id.subject.class();
    // The issuer is asked first: what it may not say is not worth comparing with what we hoped for.
    if issuer.class != class {
        return Err(PeerRefusal::IssuerOfOtherClass { issuer: issuer.class.to_string(), class });
    }
    if class != expected {
        return Err(PeerRefusal::WrongClass { found: class, expected });
    }
    if read.organisation != ORGANISATION || read.unit != class.as_str() {
        return Err(PeerRefusal::BadSubject);
    }
    if read.strange_extensions != 0 {
        return Err(PeerRefusal::UnexpectedExtension);
    }
    let named = !read.names.is_empty() || !read.addresses.is_empty();
    if read.other_names != 0 || (named && class != Class::Control) {
        return Err(PeerRefusal::UnexpectedNames);
    }
    let usages = match class {
        Class::Node | Class::Control => Usage::BothTls,
        Class::Receipt => Usage::Absent,
    };
    if read.key_usage != DIGITAL_SIGNATURE || read.extended != usages {
        return Err(PeerRefusal::BadUsage);
    }
    let info = certificate.public_key();
    let key = match class {
        Class::Node | Class::Control => fields::p256(info).map(PublicKey::Ecdsa),
        Class::Receipt => fields::ed25519(info).map(PublicKey::Statement),
    };
    let key = key.ok_or(PeerRefusal::BadKey)?;
    let serial = Serial::from_der_content(certificate.raw_serial()).ok_or(PeerRefusal::BadSerial)?;
    let (not_before, not_after) = validity(&read);
    let longest = match class {
        Class::Node => NODE_LIFE_MAX_MS,
        Class::Control => CONTROL_LIFE_MS,
        Class::Receipt => RECEIPT_LIFE_MS,
    };
    // Both ends are cut to whole seconds, so a certificate of the longest life may show one second more.
    if not_after.since(not_before).is_none_or(|life| life > longest.saturating_add(BACKDATE_MS).saturating_add(1000)) {
        return Err(PeerRefusal::TooLong);
    }
    Ok(VerifiedPeer { class, id, serial, not_before, not_after, key, proof: Proof })
}

fn only_uri<'a>(read: &Fields<'a>) -> Result<&'a str, PeerRefusal> {
    match read.uris.as_slice() {
        [uri] => Ok(uri),
        uris => Err(PeerRefusal::Uris(uris.len())),
    }
}

fn validity(read: &Fields<'_>) -> (UnixTime, UnixTime) {
    let time = |seconds: u64| UnixTime::from_millis(seconds.saturating_mul(1000));
    (time(read.not_before), time(read.not_after))
}
