//! The verifier as rustls asks for it. Nothing is decided here: both ends hand the chain to [`Verifier`].

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName};
use vocabulary::UnixTime;
use webpki::EndEntityCert;

use super::{ALGORITHMS, Trust};
use crate::certificate::{Class, LiveRevocations, PeerRefusal, RootCertificate, Verifier};

/// Clients of the node channel: nodes only.
#[derive(Debug)]
pub(super) struct NodeClients {
    verifier: Arc<Verifier>,
    /// No hints: a stranger learns no names from the handshake.
    hints: Vec<DistinguishedName>,
}

impl NodeClients {
    pub(super) fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, hints: Vec::new() }
    }
}

impl ClientCertVerifier for NodeClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: rustls_pki_types::UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        self.verifier.verify(&chain, Class::Node, time(now)).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// Servers that a client accepts: control-plane processes.
#[derive(Debug)]
pub(super) struct TrustedServer {
    trust: Trust,
    compare_name: bool,
}

impl TrustedServer {
    pub(super) fn by_identity(trust: Trust) -> Self {
        Self { trust, compare_name: false }
    }
    pub(super) fn by_identity_and_name(trust: Trust) -> Self {
        Self { trust, compare_name: true }
    }
    fn judge(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>, now: UnixTime) -> Result<(), PeerRefusal> {
        match &self.trust {
            Trust::Root(verifier) => verifier.verify(chain, Class::Control, now)?,
            Trust::Pin(pin) => {
                let sent = chain.get(..chain.len().min(crate::limits::CHAIN_MAX)).unwrap_or(chain);
                let root = RootCertificate::find_pinned(sent, pin).ok_or(PeerRefusal::PinNotFound(*pin))?;
                Verifier::new(root, LiveRevocations::default())?.verify(chain, Class::Control, now)?
            }
        };
        if self.compare_name {
            let leaf = chain.first().ok_or(PeerRefusal::NoCertificate)?;
            let leaf = EndEntityCert::try_from(leaf).map_err(|_| PeerRefusal::Malformed)?;
            leaf.verify_is_valid_for_subject_name(name)
                .map_err(|_| PeerRefusal::OtherName(name.to_str().into_owned()))?;
        }
        Ok(())
    }
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(&chain(end_entity, intermediates), server_name, time(now)).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// Leaf first, as the verifier takes it; a peer that sends a hundred certificates has them refused, not copied.
fn chain<'a>(end_entity: &'a CertificateDer<'_>, intermediates: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(end_entity)
        .chain(intermediates)
        .take(crate::limits::CHAIN_MAX.saturating_add(1))
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect()
}

fn time(now: rustls_pki_types::UnixTime) -> UnixTime {
    UnixTime::from_millis(now.as_secs().saturating_mul(1000))
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
}

/// The refusal travels inside rustls' error, so that logs and tests see which rule refused.
fn refused(refusal: PeerRefusal) -> Error {
    // Named to the peer by the alert, so that it can say what to do.
    if refusal == PeerRefusal::Revoked {
        return Error::InvalidCertificate(CertificateError::Revoked);
    }
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of rustls' many errors, only the one that carries our refusal matters"
)]
pub(super) fn refusal_of(error: &Error) -> Option<&PeerRefusal> {
    match error {
        Error::InvalidCertificate(CertificateError::Revoked) => Some(&PeerRefusal::Revoked),
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}
