//! The node's one way to the control plane: mutual TLS 1.3, typed calls, typed refusals.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use identity::tls::{KeyExchange, node_client_config};
use identity::{LiveRevocations, RootCertificate, Verifier};
use keys::Random;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vocabulary::{ErrorCode, LeaseId, Problem};

use crate::clock;
use crate::limits::{ANSWER_BYTES_MAX, BACKOFF_FIRST, BACKOFF_MAX, CALL_TIMEOUT, CONNECT_TIMEOUT, DETAIL_MAX, FRAME_BYTES, PROBLEM_BYTES_MAX, SILENCE};
use crate::store::TlsIdentity;

/// A call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChannelError {
    /// No answer: the address, the certificates or the network.
    #[error("the control plane does not answer: {0}")]
    Unreachable(String),
    /// It answers that it cannot serve at the moment.
    #[error("the control plane is not ready: {0}")]
    NotReady(String),
    /// It refuses.
    #[error("the control plane refuses: {detail}")]
    Refused {
        /// The code, where it said one.
        code: Option<ErrorCode>,
        /// Its sentence.
        detail: String,
    },
    /// It shows by an alert of TLS that this node is revoked.
    #[error("revoked: the control plane takes this node's certificate no more")]
    Revoked,
    /// The answer is not what was asked for, or breaks off.
    #[error("the control plane's answer does not fit: {0}")]
    Nonsense(String),
}

impl ChannelError {
    /// Whether the same call may succeed later.
    pub(crate) const fn passes(&self) -> bool {
        match self {
            // An alert before the handshake may be anybody's: what is done in the meantime ends with its run lease.
            Self::Unreachable(_) | Self::NotReady(_) | Self::Revoked | Self::Nonsense(_) => true,
            Self::Refused { .. } => false,
        }
    }

    pub(crate) const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unreachable(_) | Self::NotReady(_) | Self::Revoked | Self::Nonsense(_) => None,
        }
    }
}

/// Time as TLS asks for it.
#[derive(Debug)]
pub(crate) struct WallClock;

impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(clock::wall().millis())))
    }
}

/// Cuts a text of another program and makes it one printable line.
pub(crate) fn printable(text: &str) -> String {
    cut(text, DETAIL_MAX)
}

/// At most `most` bytes of a text, without control characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len().saturating_add(c.len_utf8()) > most {
            break;
        }
        line.push(c);
    }
    line
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(refusal) = certificate_refusal(cause) {
            return printable(&format!("{text}: the certificate that was shown is refused: {refusal}"));
        }
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    printable(&text)
}

/// Why nothing was answered.
fn unreachable(error: &dyn std::error::Error) -> ChannelError {
    let text = chain(error);
    // HTTP/2 hides the error of TLS below it and keeps its words.
    let alert =
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked).to_string();
    if text.contains(&alert) {
        ChannelError::Revoked
    } else {
        ChannelError::Unreachable(text)
    }
}

/// Our own verifier's reason, which TLS and HTTP carry along inside their errors.
fn certificate_refusal<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a identity::PeerRefusal> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return identity::tls::refusal_of(tls);
    }
    // An I/O error hides the error that it was made of from the chain of sources.
    certificate_refusal(cause.downcast_ref::<std::io::Error>()?.get_ref()?)
}

/// Waits between tries: doubled each time, drawn evenly between the first wait and the present one.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_FIRST)
    }
}

impl Backoff {
    /// The next wait.
    pub(crate) fn next(&mut self, random: &mut dyn Random) -> Duration {
        let [draw] = random.array::<1>();
        let spread = self.0.saturating_sub(BACKOFF_FIRST);
        let wait = BACKOFF_FIRST.saturating_add(spread.saturating_mul(u32::from(draw)) / 255);
        self.0 = self.0.saturating_mul(2).min(BACKOFF_MAX);
        wait
    }
    /// Sleeps for the next wait.
    pub(crate) async fn wait(&mut self) {
        let next = self.next(&mut keys::SystemRandom);
        tokio::time::sleep(next).await;
    }
}

/// The client. Its certificate and the revocations that it knows can be replaced while it is in use.
#[derive(Debug)]
pub(crate) struct Channel {
    base: String,
    root: RootCertificate,
    revocations: LiveRevocations,
    client: RwLock<reqwest::Client>,
}

/// A client over a TLS configuration; it follows no redirect and no proxy.
pub(crate) fn http(tls: rustls::ClientConfig) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .http2_max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(SILENCE / 2)
        .http2_keep_alive_timeout(SILENCE / 2)
        .http2_keep_alive_while_idle(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| chain(&error))
}

impl Channel {
    /// A channel to the node listener at `base`.
    pub(crate) fn new(base: String, root: RootCertificate, revocations: LiveRevocations, tls: &TlsIdentity) -> Result<Self, String> {
        let client = RwLock::new(client(&root, &revocations, tls)?);
        Ok(Self { base, root, revocations, client })
    }

    /// Uses another certificate, and new connections, from here on: they are judged by the newest revocations.
    pub(crate) fn replace(&self, tls: &TlsIdentity) -> Result<(), String> {
        let next = client(&self.root, &self.revocations, tls)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let request = client.request(method, format!("{}{path}", self.base));
        match telemetry::current() {
            Some(span) => request.header("traceparent", span.header()),
            None => request,
        }
    }

    /// Fetches JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ChannelError> {
        answer(send(self.request(Method::GET, path).timeout(CALL_TIMEOUT)).await?).await
    }

    /// Sends JSON and reads JSON.
    pub(crate) async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ChannelError> {
        answer(send(self.request(Method::POST, path).timeout(CALL_TIMEOUT).json(body)).await?).await
    }

    /// Begins to read a body of any length.
    pub(crate) async fn open(&self, path: &str) -> Result<reqwest::Response, ChannelError> {
        send(self.request(Method::GET, path)).await
    }

    /// Reads a sealed object; `None` when there is none.
    pub(crate) async fn get_object(&self, path: &str, lease: LeaseId, limit: usize) -> Result<Option<Bytes>, ChannelError> {
        let request = self.request(Method::GET, path).header("swarm-lease", lease.to_string());
        match send(request).await {
            Ok(response) => collect(response, limit).await.map(Some),
            Err(ChannelError::Refused { code: Some(ErrorCode::NotFound), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a sealed object.
    pub(crate) async fn put_object(&self, path: &str, lease: LeaseId, bytes: Bytes) -> Result<(), ChannelError> {
        let request = self.request(Method::PUT, path).header("swarm-lease", lease.to_string()).header("content-type", "application/octet-stream");
        send(request.body(bytes)).await.map(drop)
    }
}

fn client(root: &RootCertificate, revocations: &LiveRevocations, tls: &TlsIdentity) -> Result<reqwest::Client, String> {
    let verifier = Verifier::new(root.clone(), revocations.clone()).map_err(|error| chain(&error))?;
    let config = node_client_config(&tls.identity, Arc::new(verifier), KeyExchange::default(), Arc::new(WallClock)).map_err(|error| chain(&error))?;
    http(config)
}

/// Sends a request; an answer that is an error becomes one.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, ChannelError> {
    let response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = collect(response, PROBLEM_BYTES_MAX).await.unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    let code = problem.as_ref().map(|problem| problem.code);
    let detail = problem.map_or_else(|| format!("status {status} without a reason"), |problem| printable(&format!("{} ({})", problem.detail, problem.code)));
    let later = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    if later || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT {
        return Err(ChannelError::NotReady(detail));
    }
    Err(ChannelError::Refused { code, detail })
}

/// Reads a JSON answer.
pub(crate) async fn answer<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, ChannelError> {
    let bytes = collect(response, ANSWER_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| ChannelError::Nonsense(printable(&error.to_string())))
}

pub(crate) async fn collect(mut response: reqwest::Response, limit: usize) -> Result<Bytes, ChannelError> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut bytes = bytes::BytesMut::with_capacity(announced.min(limit));
    while let Some(piece) = response.chunk().await.map_err(|error| ChannelError::Unreachable(chain(&error)))? {
        if bytes.len().saturating_add(piece.len()) > limit {
            return Err(ChannelError::Nonsense(format!("more than {limit} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Repeats a call while it may still succeed. The caller bounds the time by dropping the future.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, ChannelError>>>(mut call: impl FnMut() -> F) -> Result<T, ChannelError> {
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(error) if error.passes() => {
                tracing::debug!(%error, "trying again");
                backoff.wait().await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_between_their_bounds() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(&mut keys::SystemRandom), BACKOFF_FIRST);
        for _ in 0..50 {
            let wait = backoff.next(&mut keys::SystemRandom);
            assert!((BACKOFF_FIRST..=BACKOFF_MAX).contains(&wait), "{wait:?}");
        }
        assert_eq!(backoff.0, BACKOFF_MAX);
    }

    #[test]
    fn a_revoked_node_is_told_apart_from_a_lost_network() {
        let alert = |alert| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                rustls::Error::AlertReceived(alert),
            )
        };
        assert_eq!(
            unreachable(&alert(rustls::AlertDescription::CertificateRevoked)),
            ChannelError::Revoked
        );
        assert!(matches!(
            unreachable(&alert(rustls::AlertDescription::CertificateUnknown)),
            ChannelError::Unreachable(_)
        ));
        assert!(ChannelError::Revoked.to_string().starts_with("revoked"));
    }

    #[test]
    fn texts_of_others_are_cut_and_made_printable() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a [31mb ");
        assert_eq!(printable(&"x".repeat(DETAIL_MAX * 2)).len(), DETAIL_MAX);
        assert_eq!(cut("aßb", 2), "a");
    }
}
