//! TLS to the server, with what every link of ours has: TLS 1.3, AES-256-GCM, and a certificate that was checked.
//!
//! The driver would also take older versions and shorter keys. It therefore speaks in clear to a Unix socket in a private
//! folder of this process, and what it says is carried on from there.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_256_GCM_SHA384, default_provider};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::database::TlsPlace;

/// Asks the server for TLS (chapter 55.2.11 of the manual): length 8, code 80877103.
const ASK: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Bytes of the file with the authority's certificates.
const AUTHORITY_MAX: u64 = 1 << 20;

/// An open way to the server; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    folder: PathBuf,
    _carrying: JoinSet<()>,
}

/// How the server is reached.
#[derive(Clone)]
struct Way {
    host: String,
    port: u16,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Tunnel {
    /// Reaches the server once, to say what is wrong, then carries whatever connects to [`Tunnel::folder`].
    pub(crate) async fn open(place: &TlsPlace, port: u16, within: std::time::Duration) -> Result<Self, String> {
        let way = Way::new(place, port)?;
        let first = tokio::time::timeout(within, way.dial()).await.map_err(|_| "no answer in time".to_owned())?;
        drop(first?);
        let failed = |error: std::io::Error| format!("no socket of our own: {error}");
        let mut name = [0; 16];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| "no randomness".to_owned())?;
        let folder = std::env::temp_dir().join(format!("swarm-database-{:032x}", u128::from_be_bytes(name)));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{port}"))).map_err(failed)?;
        let mut carrying = JoinSet::new();
        carrying.spawn(async move { carry(listener, way).await });
        Ok(Self { folder, _carrying: carrying })
    }

    /// The folder of the socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "the database's socket was not removed");
        }
    }
}

async fn carry(listener: UnixListener, way: Way) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let way = way.clone();
                    connections.spawn(async move {
                        if let Err(error) = way.through(client).await {
                            tracing::warn!(error, "the link to the database ended");
                        }
                    });
                }
                // Out of descriptors: those in use are given back in time.
                Err(error) => {
                    tracing::warn!(%error, "no further link to the database");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

impl Way {
    fn new(place: &TlsPlace, port: u16) -> Result<Self, String> {
        let file = place.authority.display();
        let size = std::fs::metadata(&place.authority).map_err(|error| format!("{file}: {error}"))?.len();
        if size > AUTHORITY_MAX {
            return Err(format!("{file} is longer than {AUTHORITY_MAX} bytes"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&place.authority).map_err(|error| format!("{file}: {error}"))? {
            let certificate = certificate.map_err(|error| format!("{file}: {error}"))?;
            roots.add(certificate).map_err(|error| format!("{file}: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("{file} holds no certificate in PEM"));
        }
        let provider = CryptoProvider { cipher_suites: vec![TLS13_AES_256_GCM_SHA384], ..default_provider() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = place.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| "the host is neither a name nor an address".to_owned())?;
        Ok(Self { host, port, name, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects, asks for TLS, and checks who answers.
    async fn dial(&self) -> Result<TlsStream<TcpStream>, String> {
        let mut server = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        server.set_nodelay(true).map_err(|error| error.to_string())?;
        server.write_all(&ASK).await.map_err(|error| error.to_string())?;
        // One byte and not more: what came before the handshake would be taken for what came after it.
        let mut answer = [0; 1];
        server.read_exact(&mut answer).await.map_err(|error| error.to_string())?;
        if answer != *b"S" {
            return Err("the server does not offer TLS".to_owned());
        }
        self.connector.connect(self.name.clone(), server).await.map_err(|error| format!("TLS: {error}"))
    }

    async fn through(&self, mut client: UnixStream) -> Result<(), String> {
        let mut server = self.dial().await?;
        // Either side may end as it likes; the driver judges what that means.
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
        Ok(())
    }
}
