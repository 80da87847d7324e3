//! Handshakes in memory: what is negotiated, and who is refused.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::time_provider::TimeProvider;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection,
};
use rustls_pki_types::ServerName;
use vocabulary::{DeploymentId, UnixTime};

use super::{
    Clients, Clock, Identity, KeyExchange, Trust, cli_client_config, node_client_config, refusal_of, server_config,
    verified_peer,
};
use crate::certificate::{Class, Issued, LiveRevocations, PeerRefusal, RootCertificate, Subject, Verifier};
use crate::key::EcdsaKey;
use crate::tests::support::{DAY, HOUR, NOW, World, node_id, world, world_of};

#[derive(Debug)]
struct Fixed(UnixTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_millis(self.0.millis())))
    }
}

fn clock(now: UnixTime) -> Clock {
    Arc::new(Fixed(now))
}

fn identity((issued, key): (Issued, EcdsaKey)) -> Identity {
    Identity::new(&issued, &key)
}

fn verifier(w: &World, live: &LiveRevocations) -> Arc<Verifier> {
    Arc::new(Verifier::new(w.root.certificate().clone(), live.clone()).unwrap())
}

/// Runs a handshake to its end; the first error of either side is returned.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok((client, server));
        }
    }
    panic!("the handshake does not end");
}

struct Ends {
    server: Identity,
    node: Identity,
    live: LiveRevocations,
}

fn ends(w: &mut World) -> Ends {
    Ends { server: identity(w.control(NOW)), node: identity(w.node(node_id(1), NOW)), live: LiveRevocations::default() }
}

fn node_channel(w: &World, ends: &Ends, now: UnixTime) -> ServerConfig {
    let clients = Clients::Nodes(verifier(w, &ends.live));
    server_config(&ends.server, w.root.certificate(), clients, KeyExchange::default(), clock(now)).unwrap()
}

fn node_client(w: &World, node: &Identity, now: UnixTime) -> ClientConfig {
    let verifier = verifier(w, &LiveRevocations::default());
    node_client_config(node, verifier, KeyExchange::default(), clock(now)).unwrap()
}

fn api(w: &World, ends: &Ends) -> ServerConfig {
    server_config(&ends.server, w.root.certificate(), Clients::Anybody, KeyExchange::default(), clock(NOW)).unwrap()
}

#[test]
fn node_and_control_plane_know_each_other() {
    let mut w = world();
    let ends = ends(&mut w);
    // The name that the node dialled is not in the certificate: the identity counts.
    let (client, server) =
        handshake(node_client(&w, &ends.node, NOW), node_channel(&w, &ends, NOW), "10.9.8.7").unwrap();
    for (version, suite, group, alpn, kind) in [
        (
            client.protocol_version(),
            client.negotiated_cipher_suite(),
            client.negotiated_key_exchange_group(),
            client.alpn_protocol(),
            client.handshake_kind(),
        ),
        (
            server.protocol_version(),
            server.negotiated_cipher_suite(),
            server.negotiated_key_exchange_group(),
            server.alpn_protocol(),
            server.handshake_kind(),
        ),
    ] {
        assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(suite.unwrap().suite(), CipherSuite::TLS13_AES_256_GCM_SHA384);
        assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(alpn, Some(&b"h2"[..]));
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
    let of_control = verifier(&w, &LiveRevocations::default());
    let peer = verified_peer(&of_control, server.peer_certificates(), Class::Node, NOW).unwrap();
    assert_eq!(peer.id.subject, Subject::Node(node_id(1)));
    let peer = verified_peer(&of_control, client.peer_certificates(), Class::Control, NOW).unwrap();
    assert_eq!(peer.class, Class::Control);
}

#[test]
fn nothing_is_resumed() {
    let mut w = world();
    let ends = ends(&mut w);
    let client = Arc::new(node_client(&w, &ends.node, NOW));
    let server = Arc::new(node_channel(&w, &ends, NOW));
    for _ in 0..3 {
        let (client, server) = handshake((*client).clone(), (*server).clone(), "localhost").unwrap();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(
            (client.handshake_kind(), server.handshake_kind()),
            (Some(HandshakeKind::Full), Some(HandshakeKind::Full))
        );
    }
    assert!(!client.enable_early_data && server.max_early_data_size == 0 && server.send_tls13_tickets == 0);
}

fn refused(result: Result<(ClientConnection, ServerConnection), rustls::Error>) -> PeerRefusal {
    let error = result.unwrap_err();
    refusal_of(&error).unwrap_or_else(|| panic!("not our refusal: {error:?}")).clone()
}

#[test]
fn nodes_that_are_refused() {
    let mut w = world();
    let ends = ends(&mut w);
    let server = || node_channel(&w, &ends, NOW);
    // Revoked, while the server runs: the same configuration accepted it before.
    let running = Arc::new(server());
    assert!(handshake(node_client(&w, &ends.node, NOW), (*running).clone(), "localhost").is_ok());
    ends.live.replace(ends.live.current().with_node(node_id(1))).unwrap();
    let result = handshake(node_client(&w, &ends.node, NOW), (*running).clone(), "localhost");
    assert_eq!(refused(result), PeerRefusal::Revoked);

    // Of another deployment: its own verifier would refuse our server, so it is made to trust ours.
    let mut foreign = world_of(DeploymentId::from_bytes([0xee; 16]), NOW);
    let stranger = identity(foreign.node(node_id(2), NOW));
    let result = handshake(node_client(&w, &stranger, NOW), server(), "localhost");
    assert_eq!(refused(result), PeerRefusal::ForeignAuthority);

    // Of another class.
    let result = handshake(node_client(&w, &ends.server, NOW), server(), "localhost");
    assert_eq!(refused(result), PeerRefusal::WrongClass { found: Class::Control, expected: Class::Node });

    // Expired; not valid yet.
    let later = NOW.plus_millis(2 * HOUR);
    let result = handshake(node_client(&w, &ends.node, later), node_channel(&w, &ends, later), "localhost");
    assert_eq!(refused(result), PeerRefusal::Expired);
    let early = UnixTime::from_millis(NOW.millis() - DAY);
    let result = handshake(node_client(&w, &ends.node, NOW), node_channel(&w, &ends, early), "localhost");
    assert_eq!(refused(result), PeerRefusal::RootNotValid);

    // Without a certificate.
    let anonymous =
        cli_client_config(Trust::Root(verifier(&w, &ends.live)), KeyExchange::default(), clock(NOW)).unwrap();
    let error = handshake(anonymous, server(), "localhost").unwrap_err();
    assert_eq!(error, rustls::Error::NoCertificatesPresented);
}

#[test]
fn a_stolen_certificate_without_its_key_is_of_no_use() {
    let mut w = world();
    let ends = ends(&mut w);
    // rustls refuses to build the mismatched pair: a thief would have to write their own TLS, and then fail at the signature.
    let thief = Identity { chain: ends.node.chain.clone(), key: EcdsaKey::generate().unwrap().private().clone() };
    let trusting = verifier(&w, &LiveRevocations::default());
    assert!(node_client_config(&thief, trusting, KeyExchange::default(), clock(NOW)).is_err());
}

#[test]
fn servers_that_are_refused() {
    let mut w = world();
    let mut ends = ends(&mut w);
    let pin = w.root.certificate().pin();
    let cli = |trust| cli_client_config(trust, KeyExchange::default(), clock(NOW)).unwrap();
    let stored = || Trust::Root(verifier(&w, &LiveRevocations::default()));
    // First contact: by pin; the root that comes along is what is stored.
    let (client, _) = handshake(cli(Trust::Pin(pin)), api(&w, &ends), "localhost").unwrap();
    let root = RootCertificate::find_pinned(client.peer_certificates().unwrap(), &pin).unwrap();
    assert_eq!(&root, w.root.certificate());
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(handshake(cli(stored()), api(&w, &ends), name).is_ok(), "{name}");
    }
    for name in ["example.org", "10.0.0.1"] {
        for trust in [stored(), Trust::Pin(pin)] {
            assert_eq!(refused(handshake(cli(trust), api(&w, &ends), name)), PeerRefusal::OtherName(name.into()));
        }
    }
    // Another root: a machine in the middle.
    let mut foreign = world_of(w.root.certificate().deployment(), NOW);
    let middle = Ends { server: identity(foreign.control(NOW)), node: ends.node.clone(), live: ends.live.clone() };
    let result = handshake(cli(Trust::Pin(pin)), api(&foreign, &middle), "localhost");
    assert_eq!(refused(result), PeerRefusal::PinNotFound(pin));
    let result = handshake(cli(stored()), api(&foreign, &middle), "localhost");
    assert!(matches!(refused(result), PeerRefusal::Issuers(2) | PeerRefusal::BadSignature));
    // The middle sends the true root along with its own chain.
    let result =
        server_config(&middle.server, w.root.certificate(), Clients::Anybody, KeyExchange::default(), clock(NOW));
    let result = handshake(cli(Trust::Pin(pin)), result.unwrap(), "localhost");
    assert_eq!(refused(result), PeerRefusal::BadSignature);
    // A node plays server, with a certificate of the right root.
    ends.server = ends.node.clone();
    let wrong = PeerRefusal::WrongClass { found: Class::Node, expected: Class::Control };
    assert_eq!(refused(handshake(cli(stored()), api(&w, &ends), "localhost")), wrong);
    assert_eq!(refused(handshake(cli(Trust::Pin(pin)), api(&w, &ends), "localhost")), wrong);
    assert_eq!(refused(handshake(node_client(&w, &ends.node, NOW), api(&w, &ends), "localhost")), wrong);
}

/// A stranger's client with other cryptography; it believes any server.
fn stranger(provider: CryptoProvider) -> ClientConfig {
    ClientConfig::builder_with_details(Arc::new(provider), clock(NOW))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

#[test]
fn weaker_suites_and_groups_are_refused() {
    let mut w = world();
    let ends = ends(&mut w);
    for suite in [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256] {
        let client = stranger(CryptoProvider { cipher_suites: vec![suite], ..default_provider() });
        let error = handshake(client, api(&w, &ends), "localhost").unwrap_err();
        assert!(format!("{error:?}").contains("NoCipherSuitesInCommon"), "{error:?}");
    }
    let client = stranger(CryptoProvider { kx_groups: vec![kx_group::SECP256R1], ..default_provider() });
    let error = handshake(client, api(&w, &ends), "localhost").unwrap_err();
    assert!(format!("{error:?}").contains("NoKxGroupsInCommon"), "{error:?}");
    // Where the hybrid is required, X25519 alone is refused, and a server that has only X25519 is too.
    let strict = |w: &World| {
        let required = KeyExchange::PostQuantumRequired;
        server_config(&ends.server, w.root.certificate(), Clients::Anybody, required, clock(NOW)).unwrap()
    };
    let client = stranger(CryptoProvider { kx_groups: vec![kx_group::X25519], ..default_provider() });
    let error = handshake(client, strict(&w), "localhost").unwrap_err();
    assert!(format!("{error:?}").contains("NoKxGroupsInCommon"), "{error:?}");
    // Where it is preferred, a peer without it falls back to X25519 and nothing else.
    let trust = Trust::Root(verifier(&w, &ends.live));
    let mut old = cli_client_config(trust, KeyExchange::default(), clock(NOW)).unwrap();
    let provider = CryptoProvider { kx_groups: vec![kx_group::X25519], ..(**old.crypto_provider()).clone() };
    let rebuilt = ClientConfig::builder_with_details(Arc::new(provider), clock(NOW))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::TrustedServer::by_identity(Trust::Pin(
            w.root.certificate().pin(),
        ))))
        .with_no_client_auth();
    old = rebuilt;
    let (client, _) = handshake(old, api(&w, &ends), "localhost").unwrap();
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519);
}

/// OpenSSL as the client of a server of ours on port 0.
fn openssl_client(server: ServerConfig, arguments: &[&str]) -> (Result<(), String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-connect", &address]).args(arguments).stdin(std::process::Stdio::null());
    let client = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let mut connection = ServerConnection::new(Arc::new(server)).unwrap();
    let mut result = Ok(());
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            result = Err(error.to_string());
            break;
        }
    }
    let _ = socket.flush();
    drop(socket);
    let output = client.wait_with_output().unwrap();
    let mut said = Vec::new();
    output.stdout.as_slice().read_to_end(&mut said).unwrap();
    said.extend_from_slice(&output.stderr);
    (result, String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn openssl_speaks_tls13_with_aes256_and_is_refused_with_less() {
    let mut w = world();
    let ends = ends(&mut w);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, w.root.certificate().der());
    std::fs::write(&root, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();
    let time = NOW.seconds().to_string();
    let trust =
        ["-CAfile", root.to_str().unwrap(), "-attime", &time, "-verify_return_error", "-servername", "localhost"];

    let (result, said) = openssl_client(api(&w, &ends), &trust);
    assert_eq!(result, Ok(()), "{said}");
    assert!(said.contains("TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"), "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");

    for (arguments, reason) in [
        (&["-tls1_2"][..], "peer is incompatible"),
        (&["-ciphersuites", "TLS_AES_128_GCM_SHA256"][..], "NoCipherSuitesInCommon"),
        (&["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"][..], "NoCipherSuitesInCommon"),
        (&["-groups", "P-256"][..], "NoKxGroupsInCommon"),
    ] {
        let (result, said) = openssl_client(api(&w, &ends), &[&trust[..], arguments].concat());
        let error = result.expect_err(&said);
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
    // The node channel refuses a stranger without a certificate.
    let (result, _) = openssl_client(node_channel(&w, &ends, NOW), &trust);
    assert!(result.unwrap_err().contains("no certificate"));
}
