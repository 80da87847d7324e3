//! The API's client: TLS 1.3 to the pinned deployment, one token, typed problems, step-up when it is asked for.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vocabulary::{ErrorCode, Problem, StepUpId};

use crate::error::{CliError, chain};

/// Asks a person for a code; absent where nobody can be asked.
pub(crate) type AskCode<'a> = dyn Fn(&str) -> Result<String, CliError> + Send + Sync + 'a;

/// How long the server may say nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Bytes of an HTTP/2 frame that we take: sealed objects in frames of 16 KiB cost a TLS record more for each.
const FRAME_BYTES: u32 = 256 << 10;

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// For bytes that go up: without a limit on the wait for the answer, which comes only once all are there.
    uploads: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    body: Option<serde_json::Value>,
    if_match: Option<u64>,
    idempotency_key: Option<String>,
    lease: Option<String>,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, if_match: None, idempotency_key: None, lease: None }
    }
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }
    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }
    pub(crate) fn post<T: Serialize>(path: impl Into<String>, body: &T) -> Result<Self, CliError> {
        Self::new(Method::POST, path).json(body)
    }
    pub(crate) fn put<T: Serialize>(path: impl Into<String>, body: &T) -> Result<Self, CliError> {
        Self::new(Method::PUT, path).json(body)
    }
    pub(crate) fn json<T: Serialize>(mut self, body: &T) -> Result<Self, CliError> {
        self.body = Some(serde_json::to_value(body).map_err(|error| CliError::new(1, error.to_string()))?);
        Ok(self)
    }
    pub(crate) fn if_match(mut self, revision: u64) -> Self {
        self.if_match = Some(revision);
        self
    }
    pub(crate) fn idempotent(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl Client {
    /// A client over the TLS configuration that pins the deployment.
    pub(crate) fn new(url: &str, tls: rustls::ClientConfig, token: Option<String>) -> Result<Self, CliError> {
        if !url.starts_with("https://") {
            return Err(CliError::usage(format!("`{}` is not an https:// address", crate::output::visible(url))));
        }
        let builder = |tls| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .connect_timeout(Duration::from_secs(10))
                .http2_max_frame_size(FRAME_BYTES)
                // A redirect could carry the token to somebody else; an environment variable could carry the traffic.
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
        };
        let failed = |error: reqwest::Error| CliError::new(1, chain(&error));
        let uploads = builder(tls.clone()).build().map_err(failed)?;
        let http = builder(tls).read_timeout(ANSWER_TIMEOUT).build().map_err(failed)?;
        Ok(Self { http, uploads, url: url.trim_end_matches('/').to_owned(), token })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a call and reads its JSON answer. A step-up that the server asks for is confirmed with `ask`, once.
    pub(crate) async fn send<T: DeserializeOwned>(&self, call: &Call, ask: Option<&AskCode<'_>>) -> Result<T, CliError> {
        let response = self.send_raw(call, ask).await?;
        let bytes = response.bytes().await.map_err(|error| transport(&self.url, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            CliError::new(1, format!("the server's answer to {} {} does not fit: {error}", call.method, call.path))
                .hint("client and server may be of different versions: compare swarm --version and swarm status")
        })
    }

    /// The same, with the answer as it comes.
    pub(crate) async fn send_raw(&self, call: &Call, ask: Option<&AskCode<'_>>) -> Result<reqwest::Response, CliError> {
        match self.once(call, None).await {
            Err(error) if error.code() == Some(ErrorCode::StepUpRequired) => {
                let challenge = error.problem.as_ref().and_then(|problem| problem.step_up.clone());
                let (Some(challenge), Some(ask)) = (challenge, ask) else { return Err(error) };
                let code = ask(&challenge.summary)?;
                let proof = vocabulary::api::StepUpProof { code };
                let confirm = Call::post(format!("/v1/step-ups/{}", challenge.id), &proof)?;
                self.once(&confirm, None).await?;
                self.once(call, Some(challenge.id)).await
            }
            other => other,
        }
    }

    async fn once(&self, call: &Call, step_up: Option<StepUpId>) -> Result<reqwest::Response, CliError> {
        let mut request = traced(self.http.request(call.method.clone(), format!("{}{}", self.url, call.path)));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(revision) = call.if_match {
            request = request.header("if-match", revision.to_string());
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(lease) = &call.lease {
            request = request.header("swarm-lease", lease);
        }
        if let Some(id) = step_up {
            request = request.header("swarm-step-up", id.to_string());
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        accept(request.send().await.map_err(|error| transport(&self.url, &error))?).await
    }

    /// Sends a sealed object under a lease. Its bytes are let go once they are sent, not when the answer has come.
    pub(crate) async fn put_bytes(&self, path: &str, lease: Option<String>, bytes: Bytes) -> Result<(), CliError> {
        let length = bytes.len() as u64;
        let once = futures::stream::once(std::future::ready(Ok::<Bytes, std::convert::Infallible>(bytes)));
        self.put(&self.http, path, lease, Some(length), reqwest::Body::wrap_stream(once)).await
    }

    /// Sends bytes of any length; whoever gives them watches that they flow.
    pub(crate) async fn upload(&self, path: &str, length: u64, body: reqwest::Body) -> Result<(), CliError> {
        self.put(&self.uploads, path, None, Some(length), body).await
    }

    async fn put(&self, http: &reqwest::Client, path: &str, lease: Option<String>, length: Option<u64>, body: reqwest::Body) -> Result<(), CliError> {
        let mut request = traced(http.put(format!("{}{path}", self.url))).header("content-type", "application/octet-stream");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(lease) = lease {
            request = request.header("swarm-lease", lease);
        }
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        accept(request.body(body).send().await.map_err(|error| transport(&self.url, &error))?).await.map(drop)
    }

    /// Fetches bytes, at most `limit` of them.
    pub(crate) async fn get_bytes(&self, path: &str, lease: Option<String>, limit: usize) -> Result<Bytes, CliError> {
        let mut bytes = Vec::new();
        self.get_into(path, lease, limit, &mut bytes).await?;
        Ok(bytes.into())
    }

    /// Fetches bytes, at most `limit` of them, into a buffer that is used again.
    pub(crate) async fn get_into(&self, path: &str, lease: Option<String>, limit: usize, buffer: &mut Vec<u8>) -> Result<(), CliError> {
        let mut call = Call::get(path);
        call.lease = lease;
        let mut response = self.once(&call, None).await?;
        buffer.clear();
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        buffer.reserve_exact(announced.min(limit));
        while let Some(piece) = response.chunk().await.map_err(|error| transport(&self.url, &error))? {
            if buffer.len().saturating_add(piece.len()) > limit {
                return Err(CliError::verification(format!("{path} is larger than {limit} bytes")));
            }
            buffer.extend_from_slice(&piece);
        }
        Ok(())
    }
}

/// Says of which trace a request is a part, if it is of one (W3C Trace Context).
fn traced(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    match telemetry::current() {
        Some(span) => request.header("traceparent", span.header()),
        None => request,
    }
}

/// Turns an answer that is an error into one.
async fn accept(response: reqwest::Response) -> Result<reqwest::Response, CliError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(body.get(..body.len().min(64 << 10)).unwrap_or_default()) {
        Ok(mut problem) => {
            if let Some(seconds) = retry {
                problem.hint = format!("{}; wait {seconds} s", problem.hint);
            }
            Err(problem.into())
        }
        Err(_) => Err(CliError::new(
            if status == StatusCode::NOT_FOUND { 3 } else { 1 },
            format!("the server answered {status} without saying why"),
        )
        .hint("is this address a Swarm server?")),
    }
}

/// No answer at all: say whether the address, the certificate or the time was the reason.
fn transport(url: &str, error: &reqwest::Error) -> CliError {
    let text = chain(error);
    let exit = if error.is_timeout() { 8 } else { 1 };
    // The names of `identity::PeerRefusal`, which rustls tells as they are.
    let hint = if text.contains("NotYetValid") || text.contains("Expired") {
        "by the clock of this machine the server's certificate is not valid: set the clock right, here or at the server"
    } else if text.contains("certificate") || text.contains("pin") {
        "the server's certificate is not of the pinned deployment: check the address, and the pin if you log in for the first time"
    } else if error.is_connect() {
        "is the server running? swarm up starts one on this machine"
    } else {
        "try again; if it stays, look at the server's log"
    };
    CliError::new(exit, format!("{url}: {text}")).hint(hint)
}
