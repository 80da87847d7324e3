//! Pulling from an OCI registry, on the person's machine.
//!
//! The command line pulls and the server does not: a server that fetches what tenants name could be sent to addresses that
//! only it can reach, and would hold the credentials of all of them. Here, a pull reaches what its person reaches anyway, and
//! what comes of it goes up by digest as any import does.
//!
//! A registry is a stranger:
//! - sizes are those of the manifest, bounded before anything is fetched, and no more bytes than that are read;
//! - every blob is hashed as it arrives, what was resumed included, and nothing of another digest is kept;
//! - credentials go to the registry's own host, and to the realm of its tokens only if that is the same host or one that the
//!   person named; redirects are few, lead to https, and carry no credential to another origin;
//! - plain http only to this machine itself, and only when asked for.

mod auth;
mod fetch;
mod reference;
mod signatures;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test drives its own tasks and waits")]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

pub(crate) use auth::Credentials;
pub(crate) use reference::{Point, Reference, ReferenceError};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use runtime::image::remote::{Document, document};
use runtime::limits::{IMAGE_BYTES, MANIFEST_BYTES};
use vocabulary::Sha256Digest;
use zeroize::Zeroizing;

use crate::error::{CliError, chain};
use crate::output::visible;
use auth::Challenge;

/// Redirects of one request: registries use one, to their store.
const REDIRECTS_MAX: usize = 5;
/// Indexes on the way to a manifest.
const INDEXES_MAX: usize = 3;
/// Bytes of a bundle of trusted certificates.
const BUNDLE_MAX: u64 = 8 << 20;
/// Where Debian keeps the certificates that it trusts.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How patient a pull is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long nothing may arrive.
    pub(crate) idle: Duration,
    /// In each such window…
    pub(crate) window: Duration,
    /// …at least so many bytes of a blob arrive.
    pub(crate) floor: u64,
    /// Tries of one blob that bring no byte further.
    pub(crate) tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        // 1 KiB/s is slower than any line on which somebody pulls images.
        Self { idle: Duration::from_secs(30), window: Duration::from_secs(60), floor: 60 << 10, tries: 5 }
    }
}

/// Why an image was not pulled. No text has a credential in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("{0}")]
    Transport(String),
    #[error("nothing arrived for {0:?}, or less than a crawl: the registry or the line is too slow")]
    Slow(Duration),
    #[error("the registry asks for credentials, or refuses those that it got")]
    Denied,
    #[error("the registry asks for a kind of login that is not known: Basic and Bearer are")]
    Challenge,
    #[error("the registry goes on asking for a token although its own realm gave one")]
    TokenLoop,
    #[error("the realm of tokens: {0}")]
    Token(&'static str),
    #[error("the registry sends for tokens to `{0}`, which is neither its own host nor named with --auth-host: nothing was sent there")]
    Realm(String),
    #[error("the registry has no `{0}`")]
    Absent(String),
    #[error("the registry answered {0}")]
    Status(StatusCode),
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
    #[error("a redirect leads to `{0}`: only https is followed (and http on this machine under --plain-http)")]
    RedirectTo(String),
    #[error("`{what}`: {rule}")]
    Lie {
        what: String,
        rule: String,
    },
    #[error("blob {0} broke off again and again")]
    Broken(Sha256Digest),
    #[error(transparent)]
    Image(#[from] runtime::image::ImageError),
    #[error("{place}")]
    Disk {
        place: String,
        #[source]
        source: std::io::Error,
    },
}

impl From<PullError> for CliError {
    fn from(error: PullError) -> Self {
        let (exit, hint) = match &error {
            PullError::Transport(_) => (1, "is the host right, and does it speak TLS 1.3? --ca-file names the certificate of a private registry"),
            PullError::Slow(_) | PullError::Broken(_) => (8, "run the same command again: what arrived is not fetched again"),
            PullError::Denied | PullError::Challenge | PullError::TokenLoop | PullError::Token(_) => {
                (4, "give credentials with --secret NAME or --username NAME; the secret's value is USER:PASSWORD")
            }
            PullError::Realm(_) => (4, "if you trust that host with the credentials, name it with --auth-host"),
            PullError::Absent(_) => (3, "check repository and tag; some registries say this too when a login is missing"),
            PullError::Status(_) | PullError::Redirects | PullError::RedirectTo(_) | PullError::Disk { .. } => (1, ""),
            PullError::Lie { .. } => (6, "what the registry sent is not what it should be: nothing of it was kept"),
            PullError::Image(_) => (2, ""),
        };
        let made = Self::new(exit, chain(&error));
        if hint.is_empty() { made } else { made.hint(hint) }
    }
}

/// A blob by digest and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) digest: Sha256Digest,
    pub(crate) size: u64,
}

/// What a pull fetches: the manifest itself, and what it names.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) digest: Sha256Digest,
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Remote>,
}

/// How to reach a registry.
#[derive(Debug, Default)]
pub(crate) struct Access<'a> {
    pub(crate) credentials: Option<Credentials>,
    /// Hosts beside the registry's own to whose realm of tokens credentials may go.
    pub(crate) auth_hosts: Vec<String>,
    pub(crate) plain_http: bool,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) patience: Patience,
}

/// One repository of a registry.
pub(crate) struct Registry {
    http: reqwest::Client,
    base: Url,
    name: String,
    credentials: Option<Credentials>,
    auth_hosts: Vec<String>,
    plain: bool,
    patience: Patience,
    /// What is sent along to the registry's own origin.
    authorization: Option<HeaderValue>,
}

fn is_loopback(url: &Url) -> bool {
    // The name is resolved by us, to this machine.
    let host = url.host_str().unwrap_or("");
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// TLS 1.3 with AES-256-GCM to whomever the bundle of certificates vouches for.
fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, CliError> {
    use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let path = ca_file.unwrap_or(Path::new(BUNDLE));
    let at = |error: std::io::Error| {
        CliError::usage(format!("{}: {error}", path.display())).hint("name the registry's certificate with --ca-file, or install ca-certificates")
    };
    let mut pem = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(path).map_err(at)?, BUNDLE_MAX), &mut pem).map_err(at)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        // A bundle has certificates that nobody can use; those that are left must be enough.
        let _ = certificate.map(|certificate| roots.add(certificate));
    }
    if roots.is_empty() {
        return Err(CliError::usage(format!("{} holds no certificate", path.display())));
    }
    let provider = rustls::crypto::CryptoProvider { cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384], ..default_provider() };
    let builder = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(provider));
    let versioned = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|error| CliError::new(1, error.to_string()))?;
    Ok(versioned.with_root_certificates(roots).with_no_client_auth())
}

impl Registry {
    pub(crate) fn new(reference: &Reference, access: Access<'_>) -> Result<Self, CliError> {
        let scheme = if access.plain_http { "http" } else { "https" };
        let base: Url = format!("{scheme}://{}/", reference.host).parse().map_err(|_| CliError::usage(format!("`{}` is no host", visible(&reference.host))))?;
        if access.plain_http && !is_loopback(&base) {
            return Err(CliError::usage(format!("--plain-http is for a registry on this machine; `{}` is none", visible(&reference.host)))
                .hint("127.0.0.1, [::1] and localhost are; everything else speaks TLS"));
        }
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(if access.plain_http { empty_tls()? } else { tls(access.ca_file)? })
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(access.patience.idle)
            // Followed by hand: credentials stay behind, and so does this machine's inside.
            .redirect(reqwest::redirect::Policy::none())
            .resolve("localhost", SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
            .no_proxy();
        let http = builder.build().map_err(|error| CliError::new(1, chain(&error)))?;
        Ok(Self {
            http,
            base,
            name: reference.name.clone(),
            credentials: access.credentials,
            auth_hosts: access.auth_hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            plain: access.plain_http,
            patience: access.patience,
            authorization: None,
        })
    }

    fn may_follow(&self, url: &Url) -> bool {
        let clean = url.username().is_empty() && url.password().is_none() && url.host().is_some();
        clean && (url.scheme() == "https" || (self.plain && url.scheme() == "http" && is_loopback(url)))
    }

    fn transport(&self, error: &reqwest::Error) -> PullError {
        if error.is_timeout() { PullError::Slow(self.patience.idle) } else { PullError::Transport(chain(error)) }
    }

    /// Sends a request to the repository, with what the registry asks for, and follows redirects.
    async fn get(&mut self, path: &str, accept: &'static str, from: Option<u64>) -> Result<Response, PullError> {
        let place = format!("v2/{}/{path}", self.name);
        let first = self.base.join(&place).map_err(|_| PullError::Absent(place.clone()))?;
        let mut challenged = false;
        loop {
            let response = self.follow(first.clone(), accept, from).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED {
                if std::mem::replace(&mut challenged, true) {
                    return Err(if self.bearer() { PullError::TokenLoop } else { PullError::Denied });
                }
                self.answer(&response).await?;
                continue;
            }
            if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
                return Err(PullError::Lie { what: place, rule: "it is compressed on the way, which nobody asked for".to_owned() });
            }
            return match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
                StatusCode::NOT_FOUND => Err(PullError::Absent(format!("{}/{path}", self.name))),
                StatusCode::FORBIDDEN => Err(PullError::Denied),
                other => Err(PullError::Status(other)),
            };
        }
    }

    async fn follow(&self, first: Url, accept: &'static str, from: Option<u64>) -> Result<Response, PullError> {
        let mut url = first;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.http.get(url.clone()).header(ACCEPT, accept).header(ACCEPT_ENCODING, "identity");
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(authorization) = self.authorization.as_ref().filter(|_| same_origin(&url, &self.base)) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let response = request.send().await.map_err(|error| self.transport(&error))?;
            if !response.status().is_redirection() {
                // A store somewhere else has no say in who one is.
                return match response.status() {
                    StatusCode::UNAUTHORIZED if !same_origin(&url, &self.base) => Err(PullError::Status(StatusCode::UNAUTHORIZED)),
                    _ => Ok(response),
                };
            }
            let to = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
            let next = url.join(to).ok().filter(|next| !to.is_empty() && self.may_follow(next));
            url = next.ok_or_else(|| PullError::RedirectTo(visible(&to.chars().take(100).collect::<String>())))?;
        }
        Err(PullError::Redirects)
    }

    fn bearer(&self) -> bool {
        self.authorization.as_ref().is_some_and(|value| value.as_bytes().starts_with(b"Bearer "))
    }

    /// Does what a challenge asks for.
    async fn answer(&mut self, response: &Response) -> Result<(), PullError> {
        let values = response.headers().get_all(WWW_AUTHENTICATE).iter().take(8);
        let challenges: Vec<Challenge> = values.filter_map(|value| auth::challenge(value.to_str().ok()?)).collect();
        let bearer = challenges.iter().find(|challenge| **challenge != Challenge::Basic);
        match bearer.or(challenges.first()) {
            None => Err(PullError::Challenge),
            Some(Challenge::Basic) => {
                let credentials = self.credentials.as_ref().ok_or(PullError::Denied)?;
                self.authorization = Some(sensitive(&basic(credentials))?);
                Ok(())
            }
            Some(Challenge::Bearer { realm, service }) => {
                let token = self.token(realm, service.as_deref()).await?;
                self.authorization = Some(sensitive(&Zeroizing::new(format!("Bearer {}", token.as_str())))?);
                Ok(())
            }
        }
    }

    /// Fetches a token for pulling from this repository and nothing else.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Zeroizing<String>, PullError> {
        let mut url: Url = realm.parse().map_err(|_| PullError::Token("it is no address"))?;
        let host = url.host_str().unwrap_or("").to_owned();
        let known = self.base.host_str() == Some(host.as_str()) || self.auth_hosts.contains(&host);
        if !self.may_follow(&url) || !known {
            return Err(PullError::Realm(visible(&format!("{}://{host}", url.scheme()))));
        }
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.name));
        let mut request = self.http.get(url).header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "identity");
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, sensitive(&basic(credentials))?);
        }
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(PullError::Denied),
            status if status.is_redirection() => return Err(PullError::Token("it redirects, and credentials follow nowhere")),
            _ => return Err(PullError::Token("it gives no token")),
        }
        let bytes = Zeroizing::new(self.small(response, auth::ANSWER_MAX).await?.ok_or(PullError::Token("its answer is too long"))?);
        auth::token(&bytes)
    }

    /// Reads an answer of at most so many bytes; `None` when there are more.
    async fn small(&self, mut response: Response, most: usize) -> Result<Option<Vec<u8>>, PullError> {
        let started = tokio::time::Instant::now();
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.transport(&error))? {
            if bytes.len().saturating_add(piece.len()) > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece);
            if started.elapsed() > self.patience.window {
                return Err(PullError::Slow(self.patience.window));
            }
        }
        Ok(Some(bytes))
    }

    /// Finds the image for this machine: tag to digest, once. Nothing but documents is fetched, and all sizes are bounded here.
    pub(crate) async fn find(&mut self, point: &Point) -> Result<Found, PullError> {
        let mut point = point.clone();
        let mut size = None;
        for _ in 0..=INDEXES_MAX {
            let (digest, bytes) = self.document(&point, size).await?;
            match document(&bytes)? {
                Document::Index(next, next_size) => {
                    point = Point::Digest(next);
                    size = Some(next_size);
                }
                Document::Image(named) => {
                    let total = named.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
                    if total > IMAGE_BYTES {
                        return Err(PullError::Lie { what: digest.to_string(), rule: format!("its blobs have {total} bytes, an image has at most {IMAGE_BYTES}") });
                    }
                    let blobs = named.into_iter().map(|(digest, size)| Remote { digest, size }).collect();
                    return Ok(Found { digest, manifest: bytes, blobs });
                }
            }
        }
        Err(PullError::Lie { what: point.to_string(), rule: format!("more than {INDEXES_MAX} indexes lead to each other") })
    }

    async fn document(&mut self, point: &Point, size: Option<u64>) -> Result<(Sha256Digest, Vec<u8>), PullError> {
        let lie = |rule: String| PullError::Lie { what: point.to_string(), rule };
        let response = self.get(&format!("manifests/{point}"), ACCEPTED, None).await?;
        if response.status() != StatusCode::OK {
            return Err(PullError::Status(response.status()));
        }
        let said = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let most = usize::try_from(MANIFEST_BYTES).unwrap_or(usize::MAX);
        let bytes = self.small(response, most).await?.ok_or_else(|| lie(format!("the manifest has more than {MANIFEST_BYTES} bytes")))?;
        let digest = Sha256Digest::from_bytes(keys::derive::sha256(&[&bytes]));
        if let Point::Digest(wanted) = point
            && *wanted != digest
        {
            return Err(lie(format!("what was sent is {digest}")));
        }
        // An older registry names another algorithm; one that names ours must be right.
        if said.as_deref().is_some_and(|said| said.starts_with("sha256:") && said != digest.to_string()) {
            return Err(lie(format!("the registry says another digest than its bytes have, {digest}")));
        }
        match size {
            Some(size) if u64::try_from(bytes.len()).ok() != Some(size) => Err(lie(format!("{} bytes instead of {size}", bytes.len()))),
            Some(_) | None => Ok((digest, bytes)),
        }
    }
}

fn basic(credentials: &Credentials) -> Zeroizing<String> {
    use base64::Engine as _;
    let pair = Zeroizing::new(format!("{}:{}", credentials.user, credentials.password.as_str()));
    Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())))
}

/// A header value that no debug output shows.
fn sensitive(text: &str) -> Result<HeaderValue, PullError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| PullError::Denied)?;
    value.set_sensitive(true);
    Ok(value)
}

/// For plain http: a configuration that trusts nobody.
fn empty_tls() -> Result<rustls::ClientConfig, CliError> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versioned = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| CliError::new(1, error.to_string()))?;
    Ok(versioned.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}
