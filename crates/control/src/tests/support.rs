//! A server on a free port, an operator, tenants, and nodes that are only keys and a client.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::tls::{Identity, KeyExchange, Trust, cli_client_config, node_client_config};
use identity::{
    EcdsaKey, LiveRevocations, RootCertificate, StatementKey, Token, TokenKind, Verifier, chain_from_wire, make_request, prove_record_key,
};
use keys::SystemRandom;
use reqwest::{Client, Method};
use rustls::time_provider::DefaultTimeProvider;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{Expect, Kind, Mutation, Page, Put, Transaction};
use vocabulary::api::{JoinToken, JoinTokenCreate, NodeEnrol, NodeEnrolled, Project, TenantCreated};
use vocabulary::plan::{AttemptReport, NodeFacts, NodePlace, NodePlan, NodeReport, ReportAnswer, SignedPlan};
use vocabulary::{Labels, NodeId, PrincipalId, Problem, ProjectId, SYSTEM_OWNER, TenantId, channel};
use zeroize::Zeroizing;

use crate::operation::login::token_row;
use crate::row::PrincipalRow;
use crate::server::{Server, ServerConfig};
use crate::state::Control;
use crate::{LocalNode, StartError, clock};

/// How long a test waits for something that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) http: Client,
}

pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) project: ProjectId,
    pub(crate) token: String,
}

pub(crate) fn config(dir: &std::path::Path, local_node: Option<LocalNode>) -> ServerConfig {
    ServerConfig {
        data_dir: dir.to_path_buf(),
        listen: "127.0.0.1:0".parse().unwrap(),
        node_listen: "127.0.0.1:0".parse().unwrap(),
        metrics_listen: None,
        tracer: telemetry::Tracer::off(),
        shred_list: None,
        local_node,
        hosts: Vec::new(),
        profile: None,
        admin: "root-admin".parse().unwrap(),
        passphrase: Zeroizing::new("correct horse battery staple".to_owned()),
        database: None,
        objects: None,
    }
}

pub(crate) fn client(config: rustls::ClientConfig) -> Client {
    client_from(config, 1)
}

/// A client with an address of its own, which rates count apart.
fn client_from(config: rustls::ClientConfig, last: u8) -> Client {
    Client::builder().tls_backend_preconfigured(config).no_proxy().local_address(std::net::IpAddr::from([127, 0, 0, last])).build().unwrap()
}

pub(crate) fn clock_of_handshakes() -> Arc<DefaultTimeProvider> {
    Arc::new(DefaultTimeProvider)
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, local: Option<LocalNode>) -> Self {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let server = loop {
            match Server::start(config(dir.path(), local.clone())).await {
                Ok(server) => break server,
                // One that was dropped lets go of its files a moment later.
                Err(StartError::Store(store::OpenError::InUse { .. })) if tokio::time::Instant::now() < deadline => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        Self::of(dir, server)
    }

    /// Around a server that was started some other way.
    pub(crate) fn of(dir: tempfile::TempDir, server: Server) -> Self {
        let trust = Trust::Pin(*server.pin());
        let http = client(cli_client_config(trust, KeyExchange::default(), clock_of_handshakes()).unwrap());
        Self { dir, server, http }
    }

    /// Goes on as somebody at another address.
    pub(crate) fn come_from(&mut self, last: u8) {
        let trust = Trust::Pin(*self.server.pin());
        self.http = client_from(cli_client_config(trust, KeyExchange::default(), clock_of_handshakes()).unwrap(), last);
    }

    /// Stops the server in good order and starts it again on what it left.
    pub(crate) async fn again(self) -> Self {
        self.server.stop().await;
        Self::start_in(self.dir, None).await
    }

    /// Drops the server where it stands, and starts it again on what it left.
    pub(crate) async fn killed(self) -> Self {
        drop(self.server);
        Self::start_in(self.dir, None).await
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        self.server.control()
    }

    /// A token as a login gives it.
    async fn token(&self, tenant: TenantId, principal: PrincipalId) -> String {
        let (control, now) = (self.control(), clock::now());
        let token = Token::draw(TokenKind::Session, &mut SystemRandom);
        let row = token_row(control, &token, tenant, Some(principal), "", now, now.plus_millis(3_600_000), 1, Some(now)).unwrap();
        control.store.commit(Transaction::new().with(Mutation::PutToken(row)), now).await.unwrap();
        token.reveal().to_string()
    }

    /// Makes a principal active as its person does with a ticket: tickets are tested elsewhere.
    async fn come_in(&self, tenant: TenantId, principal: PrincipalId) {
        self.change_principal(tenant, principal, |row| row.invited = None).await;
    }

    /// Changes a principal behind the API's back.
    pub(crate) async fn change_principal(&self, tenant: TenantId, principal: PrincipalId, change: impl FnOnce(&mut PrincipalRow)) {
        let store = &self.control().store;
        let (stored, mut row) = store.get_json::<PrincipalRow>(tenant, Kind::PRINCIPAL, principal).await.unwrap().unwrap();
        change(&mut row);
        let mut put = Put::json(tenant, Kind::PRINCIPAL, principal, Expect::Revision(stored.revision), &row).unwrap().name(&row.name);
        if let Some(person) = row.person {
            put = put.link(person);
        }
        store.commit(Transaction::new().with(put), clock::now()).await.unwrap();
    }

    pub(crate) async fn operator(&self) -> String {
        let found = self.control().store.list(SYSTEM_OWNER, Kind::PRINCIPAL, Page::first(1)).await.unwrap();
        self.token(SYSTEM_OWNER, PrincipalId::from_slice(&found.items[0].id).unwrap()).await
    }

    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let operator = self.operator().await;
        let made: TenantCreated =
            self.post("/v1/tenants", &operator, &serde_json::json!({"name": name, "admin": format!("{name}-admin")})).await.unwrap();
        self.come_in(made.tenant.id, made.admin.principal).await;
        let token = self.token(made.tenant.id, made.admin.principal).await;
        let project: Project = self.post("/v1/projects", &token, &serde_json::json!({"name": "first"})).await.unwrap();
        Tenant { id: made.tenant.id, project: project.id, token }
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<serde_json::Value>,
        headers: &[(&str, &str)],
    ) -> Result<T, Problem> {
        let mut request = self.http.request(method, format!("https://{}{path}", self.server.address()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request.send().await.unwrap()).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, token: &str) -> Result<T, Problem> {
        self.send(Method::GET, path, Some(token), None, &[]).await
    }
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, token: &str, body: &impl Serialize) -> Result<T, Problem> {
        self.send(Method::POST, path, Some(token), Some(serde_json::to_value(body).unwrap()), &[]).await
    }
    /// A post without a body.
    pub(crate) async fn act<T: DeserializeOwned>(&self, path: &str, token: &str) -> Result<T, Problem> {
        self.send(Method::POST, path, Some(token), None, &[]).await
    }

    /// Does what wants a confirmation: the factor itself is tested elsewhere, here its row is confirmed in the store.
    pub(crate) async fn act_confirmed<T: DeserializeOwned>(&self, path: &str, token: &str) -> Result<T, Problem> {
        self.confirmed(SYSTEM_OWNER, token, (Method::POST, path), None, &[]).await
    }

    /// The same for any request of a principal of this owner.
    pub(crate) async fn confirmed<T: DeserializeOwned>(
        &self,
        tenant: TenantId,
        token: &str,
        (method, path): (Method, &str),
        body: Option<serde_json::Value>,
        headers: &[(&str, &str)],
    ) -> Result<T, Problem> {
        let problem = match self.send::<T>(method.clone(), path, Some(token), body.clone(), headers).await {
            Err(problem) if problem.step_up.is_some() => problem,
            answer => return answer,
        };
        let id = problem.step_up.map(|challenge| challenge.id).unwrap();
        let (store, now) = (&self.control().store, clock::now());
        let row = store.step_up(tenant, id).await.unwrap().unwrap();
        let verify = Mutation::VerifyStepUp { tenant, id, principal: row.principal, acr: 1 };
        store.commit(Transaction::new().with(verify), now).await.unwrap();
        let id = id.to_string();
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("swarm-step-up", id.as_str())]).collect();
        self.send(method, path, Some(token), body, &headers).await
    }

    /// A service account of a tenant with these rights: its id, and a token for it.
    pub(crate) async fn robot(&self, tenant: &Tenant, name: &str, role: &str, clearance: &str) -> (PrincipalId, String) {
        let body = serde_json::json!({"name": name, "roles": [role], "clearance": clearance});
        let made: vocabulary::api::Principal =
            self.confirmed(tenant.id, &tenant.token, (Method::POST, "/v1/service-accounts"), Some(body), &[]).await.unwrap();
        let path = format!("/v1/service-accounts/{}/tokens", made.id);
        let body = serde_json::json!({"lifetime_s": 3600, "note": "robot"});
        let token: vocabulary::api::IssuedToken = self.confirmed(tenant.id, &tenant.token, (Method::POST, path.as_str()), Some(body), &[]).await.unwrap();
        (made.id, token.token)
    }

    pub(crate) async fn volume(&self, tenant: &Tenant, name: &str, sensitivity: &str) -> vocabulary::VolumeId {
        let spec = serde_json::json!({
            "name": name, "project": tenant.project, "region": "eu-central", "jurisdictions": [], "sensitivity": sensitivity, "purpose": "research",
        });
        self.post::<vocabulary::api::Volume>("/v1/volumes", &tenant.token, &spec).await.unwrap().id
    }

    pub(crate) async fn invite(&self, name: &str, region: &str) -> JoinToken {
        let request = JoinTokenCreate {
            name: name.parse().unwrap(),
            place: NodePlace { region: region.parse().unwrap(), jurisdiction: "EU".parse().unwrap(), labels: Labels::new() },
            lifetime_s: 600,
        };
        self.post("/v1/join-tokens", &self.operator().await, &request).await.unwrap()
    }

    pub(crate) async fn enrol(&self, request: &NodeEnrol) -> Result<NodeEnrolled, Problem> {
        self.send(Method::POST, "/v1/nodes/enrol", None, Some(serde_json::to_value(request).unwrap()), &[]).await
    }

    /// A node that joined.
    pub(crate) async fn node(&self, name: &str) -> Node {
        let token = self.invite(name, "eu-central").await;
        let keys = NodeKeys::draw();
        let joined = self.enrol(&keys.request(&token.token)).await.unwrap();
        Node::new(self, &keys, &joined)
    }

    /// The kinds of all entries of a tenant, oldest first.
    pub(crate) async fn entries(&self, tenant: TenantId) -> Vec<(String, serde_json::Value)> {
        let found = self.control().store.entries_from(tenant, 0, 1000, &store::read::EntryFilter::default()).await.unwrap();
        found
            .items
            .into_iter()
            .map(|row| {
                let body: serde_json::Value = serde_json::from_slice(&row.body).unwrap();
                let event = body["unmapped"]["swarm"]["event"].clone();
                (event["kind"].as_str().unwrap().to_owned(), event)
            })
            .collect()
    }

    pub(crate) async fn entries_of(&self, tenant: TenantId, kind: &str) -> Vec<serde_json::Value> {
        self.entries(tenant).await.into_iter().filter(|(found, _)| found == kind).map(|(_, event)| event).collect()
    }
}

pub(crate) async fn answer<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, Problem> {
    let good = response.status().is_success();
    let bytes = response.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if good {
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {text}")))
    } else {
        Err(serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

/// What a node makes on its own machine before it joins.
pub(crate) struct NodeKeys {
    pub(crate) key: EcdsaKey,
    pub(crate) record: StatementKey,
}

pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        hostname: "h".into(),
        kernel: "6.1".into(),
        cgroup_layout: "hybrid".into(),
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        scratch_bytes: 8 << 30,
        gpus: 0,
        runtimes: vec![],
        features: Labels::new(),
        boot_id: "b".into(),
        version: "0".into(),
    }
}

impl NodeKeys {
    pub(crate) fn draw() -> Self {
        Self { key: EcdsaKey::generate().unwrap(), record: StatementKey::generate(&mut SystemRandom).unwrap() }
    }
    pub(crate) fn csr(&self) -> String {
        STANDARD.encode(make_request(&self.key).unwrap())
    }
    pub(crate) fn request(&self, token: &str) -> NodeEnrol {
        let csr = make_request(&self.key).unwrap();
        NodeEnrol {
            token: token.to_owned(),
            record_proof: STANDARD.encode(prove_record_key(&self.record, &csr)),
            csr: STANDARD.encode(csr),
            record_key: self.record.public().unwrap().to_base64(),
            facts: facts(),
        }
    }
}

/// A node as far as the control plane can tell.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) http: Client,
    pub(crate) base: String,
    pub(crate) sequence: u64,
}

/// A client that shows these certificates to the node channel of a world.
pub(crate) fn node_client(world: &World, chain: Vec<CertificateDer<'static>>, key: &EcdsaKey) -> Client {
    let root = RootCertificate::check(world.control().gate.verifier().root().der()).unwrap();
    let verifier = Arc::new(Verifier::new(root, LiveRevocations::default()).unwrap());
    let identity = Identity { chain, key: key.private().clone() };
    client(node_client_config(&identity, verifier, KeyExchange::default(), clock_of_handshakes()).unwrap())
}

pub(crate) fn node_base(world: &World) -> String {
    format!("https://{}", world.server.node_address())
}

impl Node {
    pub(crate) fn new(world: &World, keys: &NodeKeys, joined: &NodeEnrolled) -> Self {
        assert_eq!(joined.node_port, world.server.node_address().port());
        let http = node_client(world, chain_from_wire(&joined.chain).unwrap(), &keys.key);
        Self { id: joined.node, http, base: node_base(world), sequence: 0 }
    }

    /// The same node against a server that was started again.
    pub(crate) fn moved_to(&mut self, world: &World) {
        self.base = node_base(world);
    }

    pub(crate) async fn report(&mut self, attempts: Vec<AttemptReport>) -> Result<ReportAnswer, Problem> {
        self.sequence += 1;
        let report = NodeReport { sequence: self.sequence, plan_revision: 0, facts: facts(), attempts };
        answer(self.http.post(format!("{}{}", self.base, channel::REPORT)).json(&report).send().await.unwrap()).await
    }

    pub(crate) async fn follow(&self, after: u64) -> Plans {
        let response = self.http.get(format!("{}{}?after={after}", self.base, channel::PLAN)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Plans { response, buffer: Vec::new() }
    }

    /// Follows until a plan is as wanted.
    pub(crate) async fn plan_where(&self, world: &World, wanted: impl Fn(&NodePlan) -> bool) -> NodePlan {
        let mut plans = self.follow(0).await;
        tokio::time::timeout(PATIENCE, async {
            loop {
                let plan = plans.next(world).await.expect("the stream goes on");
                if wanted(&plan) {
                    return plan;
                }
            }
        })
        .await
        .expect("the plan comes")
    }
}

/// A stream of plans.
pub(crate) struct Plans {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Plans {
    /// The next line that is no empty one, as it was sent.
    pub(crate) async fn line(&mut self) -> Option<SignedPlan> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.len() > 1 {
                    return Some(serde_json::from_slice(&line).unwrap());
                }
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next plan, its signature checked with the key of the deployment's public file.
    pub(crate) async fn next(&mut self, world: &World) -> Option<NodePlan> {
        let signed = self.line().await?;
        let file = identity::verify_deployment_file(world.control().certifying().file.as_bytes(), world.server.pin()).unwrap();
        let payload = STANDARD.decode(&signed.payload).unwrap();
        let signature = STANDARD.decode(&signed.signature).unwrap();
        let known = file.receipt_keys().iter().any(|key| key.key.verify(vocabulary::plan::PLAN_CONTEXT, &payload, &signature).is_ok());
        assert!(known, "no receipt key of the deployment signed this plan");
        Some(serde_json::from_slice(&payload).unwrap())
    }
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
