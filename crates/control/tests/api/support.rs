//! A server with two tenants, and people whose authenticators are computed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::{Server, ServerConfig, StartError};
use identity::TotpSecret;
use identity::tls::{KeyExchange, Trust, cli_client_config};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vocabulary::UnixTime;
use zeroize::Zeroizing;

pub(crate) const PASSPHRASE: &str = "a passphrase for the tests";
pub(crate) const PASSWORD: &str = "correct-horse-42!";

pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn config(folder: &Path) -> ServerConfig {
    ServerConfig {
        data_dir: folder.join("server"),
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: Vec::new(),
        node_listen: "127.0.0.1:0".parse().unwrap(),
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        tracer: telemetry::Tracer::off(),
        shred_list: None,
        local_node: None,
        profile: None,
        admin: "ada".parse().unwrap(),
        passphrase: Zeroizing::new(PASSPHRASE.to_owned()),
        database: None,
        objects: None,
    }
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) kind: String,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    /// A problem's code.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
    /// The JSON of an answer that must be good.
    pub(crate) fn good(&self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self.json()
    }
    /// Checks that it is a problem of this status and code, with the form of RFC 9457 that we promise.
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.code().as_str()), (status, code), "{}", self.text());
        problem(self)
    }
}

/// The form of every error: RFC 9457, one type per code, a sentence and a hint.
pub(crate) fn problem(answer: &Answer) -> Value {
    assert_eq!(answer.kind, "application/problem+json", "{}", answer.text());
    let value = answer.json();
    let code = value["code"].as_str().unwrap();
    assert_eq!(value["type"], format!("urn:swarm:problem:{code}"));
    assert_eq!(value["status"], answer.status.as_u16());
    let known = vocabulary::ErrorCode::ALL.iter().find(|known| known.as_str() == code).unwrap();
    assert_eq!((value["hint"].as_str(), known.status()), (Some(known.hint()), answer.status.as_u16()));
    assert!(value["detail"].as_str().is_some_and(|detail| !detail.is_empty() && !detail.chars().any(char::is_control)));
    value
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    pub(crate) raw: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Ask {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Self {
        Self { method: method.parse().unwrap(), path: path.into(), body: None, raw: None, headers: Vec::new() }
    }
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }
    pub(crate) fn post(path: impl Into<String>, body: Value) -> Self {
        Self::new("POST", path).body(body)
    }
    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
    pub(crate) fn raw(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw = Some(bytes.into());
        self
    }
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A running server and the folder that it lives in.
pub(crate) struct Running {
    pub(crate) server: Option<Server>,
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) tls: rustls::ClientConfig,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn client(server: &Server) -> (reqwest::Client, rustls::ClientConfig) {
    client_from(server, 1)
}

/// A client with an address of its own, which rates count apart.
fn client_from(server: &Server, last: u8) -> (reqwest::Client, rustls::ClientConfig) {
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let tls = cli_client_config(Trust::Pin(*server.pin()), KeyExchange::default(), clock).unwrap();
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .local_address(std::net::IpAddr::from([127, 0, 0, last]))
        .build()
        .unwrap();
    (http, tls)
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await.unwrap()
    }
    pub(crate) async fn start_in(folder: tempfile::TempDir) -> Result<Self, StartError> {
        let server = Server::start(config(folder.path())).await?;
        let (http, tls) = client(&server);
        let url = format!("https://127.0.0.1:{}", server.address().port());
        Ok(Self { server: Some(server), http, url, tls, folder })
    }
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.server.take().unwrap().stop().await;
        self.folder
    }
    /// Waits until the log is published beyond this size.
    pub(crate) async fn published_beyond(&self, entries: u64) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        loop {
            let checkpoint = self.ask(None, Ask::get("/v1/log/checkpoint")).await;
            // Its second line is the size (C2SP tlog-checkpoint).
            let size = checkpoint.text().lines().nth(1).and_then(|line| line.parse::<u64>().ok());
            if size.is_some_and(|size| size > entries) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "the log is not published beyond {entries}: {}", checkpoint.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    /// The metrics as a collector gets them.
    pub(crate) async fn metrics(&self) -> String {
        let address = self.server.as_ref().unwrap().metrics_address().unwrap();
        let answer = self.http.get(format!("http://{address}/metrics")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.unwrap()
    }
    /// Goes on as somebody at another address.
    pub(crate) fn come_from(&mut self, last: u8) {
        self.http = client_from(self.server.as_ref().unwrap(), last).0;
    }
    pub(crate) fn ticket(&mut self) -> String {
        self.server.as_mut().unwrap().take_ticket().unwrap().to_string()
    }

    pub(crate) async fn ask(&self, token: Option<&str>, ask: Ask) -> Answer {
        let mut request = self.http.request(ask.method, format!("{}{}", self.url, ask.path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        request = match (ask.body, ask.raw) {
            (Some(body), _) => request.json(&body),
            (None, Some(raw)) => request.body(raw),
            (None, None) => request,
        };
        let response = request.send().await.unwrap_or_else(|error| panic!("{error:?}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = response.bytes().await.unwrap_or_else(|error| panic!("{error:?}")).to_vec();
        Answer { status, kind, headers, bytes }
    }
}

/// A person with an authenticator.
pub(crate) struct Person {
    pub(crate) name: String,
    secret: TotpSecret,
    last_step: u64,
    recovery: Vec<String>,
}

fn base32(text: &str) -> [u8; 20] {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: Vec<u8> = text
        .chars()
        .filter_map(|letter| LETTERS.find(letter))
        .flat_map(|value| (0..5).rev().map(move |bit| u8::try_from(value >> bit & 1).unwrap()))
        .collect();
    let mut bytes = [0; 20];
    for (byte, bits) in bytes.iter_mut().zip(bits.chunks(8)) {
        *byte = bits.iter().fold(0, |sum, bit| sum << 1 | bit);
    }
    bytes
}

/// The authenticator that scanned this secret.
pub(crate) fn authenticator(secret: &str) -> TotpSecret {
    TotpSecret::from_bytes(base32(secret))
}

impl Person {
    /// Spends a ticket.
    pub(crate) async fn enrol(server: &Running, ticket: &str) -> Self {
        let offer = server.ask(None, Ask::post("/v1/enrolments", json!({ "ticket": ticket }))).await.good();
        let secret = TotpSecret::from_bytes(base32(offer["totp_secret"].as_str().unwrap()));
        // The oldest step that is accepted: the present one and the next are left for the test.
        let step = now().seconds() / 30 - 1;
        let mut person = Self { name: offer["name"].as_str().unwrap().to_owned(), secret, last_step: step, recovery: Vec::new() };
        let body = json!({ "ticket": ticket, "password": PASSWORD, "code": person.code_of(step) });
        let enrolled = server.ask(None, Ask::post("/v1/enrolments/complete", body)).await.good();
        person.recovery = enrolled["recovery_codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        person
    }
    pub(crate) fn code_of(&self, step: u64) -> String {
        self.secret.code_at(UnixTime::from_millis(step * 30_000)).unwrap()
    }
    /// A code that was not used yet; waits until one exists.
    pub(crate) async fn code(&mut self) -> String {
        let step = (self.last_step + 1).max(now().seconds() / 30);
        while now().seconds() / 30 + 1 < step {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.last_step = step;
        self.code_of(step)
    }
    /// Logs in with a recovery code, so that the authenticator's codes are left for confirmations.
    pub(crate) async fn login(&mut self, server: &Running, login_as: Value) -> String {
        let code = self.recovery.pop().unwrap();
        let body = json!({ "name": self.name, "password": PASSWORD, "code": code, "as": login_as });
        let token = server.ask(None, Ask::post("/v1/login", body)).await.good();
        token["token"].as_str().unwrap().to_owned()
    }
    /// The same as it is answered: good or not.
    pub(crate) async fn try_login(&mut self, server: &Running, login_as: Value) -> Answer {
        let code = self.recovery.pop().unwrap();
        let body = json!({ "name": self.name, "password": PASSWORD, "code": code, "as": login_as });
        server.ask(None, Ask::post("/v1/login", body)).await
    }
    /// Redeems a ticket with the factors that one has.
    pub(crate) async fn redeem(&mut self, server: &Running, ticket: &str) -> Answer {
        let code = self.recovery.pop().unwrap();
        server.ask(None, Ask::post("/v1/enrolments/complete", json!({ "ticket": ticket, "password": PASSWORD, "code": code }))).await
    }
    /// Sends a request and confirms it when the server asks for that.
    pub(crate) async fn confirmed(&mut self, server: &Running, token: &str, ask: Ask) -> Answer {
        let first = server.ask(Some(token), ask.clone()).await;
        if first.status != StatusCode::FORBIDDEN || first.code() != "step_up_required" {
            return first;
        }
        let id = first.json()["step_up"]["id"].as_str().unwrap().to_owned();
        let code = self.code().await;
        server.ask(Some(token), Ask::post(format!("/v1/step-ups/{id}"), json!({ "code": code }))).await.good();
        server.ask(Some(token), ask.header("swarm-step-up", id)).await
    }
}

/// Two tenants, `acme` with things and `beta` without.
pub(crate) struct World {
    pub(crate) server: Running,
    pub(crate) operator: Person,
    pub(crate) operator_token: String,
    /// Administrator of `acme`.
    pub(crate) alice: Person,
    pub(crate) alice_token: String,
    /// Administrator of `beta`.
    pub(crate) bob: Person,
    pub(crate) bob_token: String,
    pub(crate) tenant: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        let mut server = Running::start().await;
        let ticket = server.ticket();
        let mut operator = Person::enrol(&server, &ticket).await;
        let operator_token = operator.login(&server, json!("operator")).await;
        let mut people = Vec::new();
        let mut tenants = Vec::new();
        for (tenant, admin) in [("acme", "alice"), ("beta", "bob")] {
            let body = json!({ "name": tenant, "admin": admin });
            let made = server.ask(Some(&operator_token), Ask::post("/v1/tenants", body)).await.good();
            tenants.push(made["tenant"]["id"].as_str().unwrap().to_owned());
            let mut person = Person::enrol(&server, made["admin"]["ticket"].as_str().unwrap()).await;
            let token = person.login(&server, json!({ "tenant": tenant })).await;
            people.push((person, token));
        }
        let (bob, bob_token) = people.pop().unwrap();
        let (alice, alice_token) = people.pop().unwrap();
        Self { server, operator, operator_token, alice, alice_token, bob, bob_token, tenant: tenants.swap_remove(0) }
    }
    pub(crate) async fn alice(&self, ask: Ask) -> Answer {
        self.server.ask(Some(&self.alice_token), ask).await
    }
    /// Alice, who confirms what she is asked to.
    pub(crate) async fn confirmed(&mut self, ask: Ask) -> Answer {
        self.alice.confirmed(&self.server, &self.alice_token, ask).await
    }
    pub(crate) async fn bob(&self, ask: Ask) -> Answer {
        self.server.ask(Some(&self.bob_token), ask).await
    }
}
