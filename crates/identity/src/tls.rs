//! TLS as values: configurations for the API, the node channel, nodes and the command line.
//!
//! TLS 1.3 only, AES-256-GCM only, X25519MLKEM768 before X25519, aws-lc-rs named explicitly. Nothing is resumed and
//! nothing is sent early: a resumed session would skip the certificate, and with it the revocation set.
//! The clock is passed in. Who the peer is, after the handshake, [`verified_peer`] tells from its certificates.

mod trust;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use vocabulary::{Sha256Digest, UnixTime};

use crate::certificate::{Class, Issued, PeerRefusal, RootCertificate, VerifiedPeer, Verifier};
use crate::key::{EcdsaKey, Pkcs8};
use trust::{NodeClients, TrustedServer};

/// A clock for handshakes; the driver's own, such as `rustls::time_provider::DefaultTimeProvider`.
pub type Clock = Arc<dyn TimeProvider>;

/// A TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key, certificate or provider do not fit together.
    #[error("the TLS configuration does not fit together")]
    Config(#[from] rustls::Error),
}

/// How strict the key exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyExchange {
    /// X25519MLKEM768 first, then X25519.
    #[default]
    PostQuantumPreferred,
    /// X25519MLKEM768 or nothing: the setting `require_pq_kem`.
    PostQuantumRequired,
}

/// Who may connect to a server.
#[derive(Debug, Clone)]
pub enum Clients {
    /// Anybody; they show who they are inside (the API).
    Anybody,
    /// Nodes with a certificate that passes the verifier (the node channel).
    Nodes(Arc<Verifier>),
}

/// Whom a client believes.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Control-plane processes under a stored root.
    Root(Arc<Verifier>),
    /// First contact: control-plane processes under the root of this hash, which the server sends along.
    Pin(Sha256Digest),
}

/// A certificate chain with its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Leaf, then issuing authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: Pkcs8,
}

impl Identity {
    /// Of a fresh certificate and its key.
    #[must_use]
    pub fn new(issued: &Issued, key: &EcdsaKey) -> Self {
        Self { chain: issued.chain.clone(), key: key.private().clone() }
    }
}

static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[webpki::aws_lc_rs::ECDSA_P256_SHA256])],
};

/// The one provider of cryptography: one suite, two groups, one signature scheme.
#[must_use]
pub fn provider(exchange: KeyExchange) -> Arc<CryptoProvider> {
    let kx_groups: Vec<&'static dyn SupportedKxGroup> = match exchange {
        KeyExchange::PostQuantumPreferred => vec![kx_group::X25519MLKEM768, kx_group::X25519],
        KeyExchange::PostQuantumRequired => vec![kx_group::X25519MLKEM768],
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups,
        signature_verification_algorithms: ALGORITHMS,
        ..default_provider()
    })
}

/// A server: the API or the node channel. It sends the root along, so that a pin can be found at first contact.
pub fn server_config(
    identity: &Identity,
    root: &RootCertificate,
    clients: Clients,
    exchange: KeyExchange,
    clock: Clock,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_details(provider(exchange), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match clients {
        Clients::Anybody => builder.with_no_client_auth(),
        Clients::Nodes(verifier) => builder.with_client_cert_verifier(Arc::new(NodeClients::new(verifier))),
    };
    let mut chain = identity.chain.clone();
    chain.push(root.der().clone());
    let mut config = builder.with_single_cert(chain, private_key(&identity.key))?;
    config.alpn_protocols = alpn();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A node's client: shows the node's certificate, and accepts control-plane processes of its deployment.
///
/// The server's name is not compared: its identity is its SPIFFE id, whatever address leads to it.
pub fn node_client_config(
    identity: &Identity,
    verifier: Arc<Verifier>,
    exchange: KeyExchange,
    clock: Clock,
) -> Result<ClientConfig, TlsError> {
    let server = TrustedServer::by_identity(Trust::Root(verifier));
    let builder = client(server, exchange, clock)?;
    let mut config = builder.with_client_auth_cert(identity.chain.clone(), private_key(&identity.key))?;
    finish(&mut config);
    Ok(config)
}

/// A person's client: shows no certificate, and accepts control-plane processes that are named as it called them.
pub fn cli_client_config(trust: Trust, exchange: KeyExchange, clock: Clock) -> Result<ClientConfig, TlsError> {
    let server = TrustedServer::by_identity_and_name(trust);
    let mut config = client(server, exchange, clock)?.with_no_client_auth();
    finish(&mut config);
    Ok(config)
}

/// Who the peer of a finished handshake is. A connection must end at the peer's `not_after`, and when
/// [`crate::RevocationSet::refuses`] it.
pub fn verified_peer(
    verifier: &Verifier,
    certificates: Option<&[CertificateDer<'_>]>,
    class: Class,
    now: UnixTime,
) -> Result<VerifiedPeer, PeerRefusal> {
    verifier.verify(certificates.ok_or(PeerRefusal::NoCertificate)?, class, now)
}

/// Why a handshake failed, where our verifier refused.
#[must_use]
pub fn refusal_of(error: &rustls::Error) -> Option<&PeerRefusal> {
    trust::refusal_of(error)
}

fn client(
    server: TrustedServer,
    exchange: KeyExchange,
    clock: Clock,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_details(provider(exchange), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(server)))
}

fn finish(config: &mut ClientConfig) {
    config.alpn_protocols = alpn();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

fn private_key(key: &Pkcs8) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.reveal().to_vec()))
}
