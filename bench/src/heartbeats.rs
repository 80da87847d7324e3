use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::World;
use identity::{chain_from_wire, make_request};
use identity::tls::{Identity, KeyExchange, Trust, cli_client_config, node_client_config};
use identity::{EcdsaKey, LiveRevocations, StatementKey, Verifier, prove_record_key, verify_deployment_file};
use rustls::time_provider::DefaultTimeProvider;
use serde_json::Value;
use tokio::sync::Semaphore;
use vocabulary::api::{JoinToken, JoinTokenCreate, NodeEnrol, NodeEnrolled};
use vocabulary::channel::{HEARTBEAT_MS, PLAN, REPORT};
use vocabulary::plan::{NodeFacts, NodePlace, NodeReport};

const NODES: usize = 1_000;
const MEASURED: Duration = Duration::from_secs(20);
/// Cores of the server that the heartbeats of all may keep busy.
const TARGET: f64 = 0.5;
/// Enrolments and handshakes at once.
const AT_ONCE: usize = 16;

/// What a machine of a fleet says of itself; from JSON, as the control plane gets it.
fn facts() -> anyhow::Result<NodeFacts> {
    Ok(serde_json::from_value(serde_json::json!({
        "hostname": "simulated",
        "kernel": "6.1.0",
        "cgroup_layout": "unified",
        "cpu_millis": 64_000,
        "memory_bytes": 256_u64 << 30,
        "scratch_bytes": 1_u64 << 40,
        "gpus": 0,
        "features": {"landlock": "4", "seccomp": "yes", "fscrypt": "yes"},
        "boot_id": "00000000-0000-4000-8000-000000000000",
        "version": env!("CARGO_PKG_VERSION"),
    }))?)
}

/// A node that has joined: its client, which shows its certificate, and where the channel is.
struct Simulated {
    http: reqwest::Client,
    channel: String,
}

/// What all nodes are enrolled with.
struct Enrolling {
    api: reqwest::Client,
    url: String,
    token: String,
    pin: vocabulary::Sha256Digest,
}

impl Enrolling {
    async fn node(&self, number: usize) -> anyhow::Result<Simulated> {
        let place = NodePlace { region: "eu-central".parse()?, jurisdiction: "EU".parse()?, labels: vocabulary::Labels::new() };
        let create = JoinTokenCreate { name: format!("simulated-{number}").parse()?, place, lifetime_s: 600 };
        let invited = self.api.post(format!("{}/v1/join-tokens", self.url)).bearer_auth(&self.token).json(&create).send().await?;
        let invited: JoinToken = invited.error_for_status()?.json().await?;
        let key = EcdsaKey::generate()?;
        let csr = make_request(&key)?;
        let record_key = StatementKey::generate(&mut keys::SystemRandom)?;
        let body = NodeEnrol {
            token: invited.token,
            csr: STANDARD.encode(&csr),
            record_key: record_key.public()?.to_base64(),
            record_proof: STANDARD.encode(prove_record_key(&record_key, &csr)),
            facts: facts()?,
        };
        let enrolled = self.api.post(format!("{}/v1/nodes/enrol", self.url)).json(&body).send().await?;
        let enrolled: NodeEnrolled = enrolled.error_for_status()?.json().await?;
        let deployment = verify_deployment_file(enrolled.deployment_file.as_bytes(), &self.pin)?;
        let identity = Identity { chain: chain_from_wire(&enrolled.chain)?, key: key.private().clone() };
        let verifier = Arc::new(Verifier::new(deployment.root().clone(), LiveRevocations::default())?);
        let tls = node_client_config(&identity, verifier, KeyExchange::default(), Arc::new(DefaultTimeProvider))?;
        let mut channel = reqwest::Url::parse(&self.url)?;
        channel.set_port(Some(enrolled.node_port)).map_err(|()| anyhow::anyhow!("the channel's port"))?;
        Ok(Simulated { http: reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?, channel: channel.origin().ascii_serialization() })
    }
}

impl Simulated {
    /// Follows the plan and reports, as an agent does, from `begin` on; the first report makes the connection.
    async fn live(self, first: Duration, ready: Arc<Semaphore>, places: Arc<Semaphore>) -> anyhow::Result<()> {
        {
            let _place = places.acquire().await?;
            self.report(1).await?;
        }
        let mut plan = self.http.get(format!("{}{PLAN}?after=0", self.channel)).send().await?.error_for_status()?;
        ready.add_permits(1);
        let reports = async {
            tokio::time::sleep(first).await;
            for sequence in 2.. {
                self.report(sequence).await?;
                tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS)).await;
            }
            anyhow::Ok(())
        };
        let follow = async {
            while plan.chunk().await?.is_some() {}
            Err::<(), _>(anyhow::anyhow!("the plan's stream ended"))
        };
        tokio::try_join!(reports, follow).map(drop)
    }

    async fn report(&self, sequence: u64) -> anyhow::Result<()> {
        let body = NodeReport { sequence, plan_revision: 0, facts: facts()?, attempts: Vec::new() };
        self.http.post(format!("{}{REPORT}", self.channel)).json(&body).send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }
}

pub(crate) fn run() -> anyhow::Result<()> {
    let world = World::new()?;
    let token = world.operator.json(&["token", "create", "bench"])?;
    let token = token.get("token").and_then(Value::as_str).context("a token")?.to_owned();
    let server = crate::server(&world)?;
    let pin: vocabulary::Sha256Digest = world.deployment.ca_pin().parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let tls = cli_client_config(Trust::Pin(pin), KeyExchange::default(), Arc::new(DefaultTimeProvider))?;
    let api = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
    let enrolling = Arc::new(Enrolling { api, url: world.deployment.url().to_owned(), token, pin });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (busy, took, joined) = runtime.block_on(measure(&enrolling, server))?;
    let cores = busy.as_secs_f64() / took.as_secs_f64();
    println!("   {NODES} simulated nodes, each with its certificate, one connection, a plan that it follows and a report every {} s: {cores:.2} cores of the server ({:.2} of {TARGET})", HEARTBEAT_MS / 1000, cores / TARGET);
    println!("   ({:.1} reports/s, {:.2} ms of server CPU for each with everything beside it; enrolled in {:.0} s; memory of the server {} MiB)", NODES as f64 * 1000.0 / HEARTBEAT_MS as f64, cores * HEARTBEAT_MS as f64 / NODES as f64, joined.as_secs_f64(), crate::volumes::status(server, "VmRSS:")? / 1024);
    world.close()
}

async fn measure(enrolling: &Arc<Enrolling>, server: u32) -> anyhow::Result<(Duration, Duration, Duration)> {
    let (places, ready) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(0)));
    let begun = Instant::now();
    let mut enrolments = tokio::task::JoinSet::new();
    for number in 0..NODES {
        let (enrolling, places) = (Arc::clone(enrolling), Arc::clone(&places));
        enrolments.spawn(async move {
            let _place = places.acquire().await?;
            enrolling.node(number).await.with_context(|| format!("node {number}"))
        });
    }
    let mut nodes = Vec::new();
    while let Some(node) = enrolments.join_next().await {
        nodes.push(node??);
    }
    let joined = begun.elapsed();
    let mut living = tokio::task::JoinSet::new();
    for (number, node) in nodes.into_iter().enumerate() {
        // Spread over the interval, as a fleet is.
        let first = Duration::from_millis(HEARTBEAT_MS) * number as u32 / NODES as u32;
        living.spawn(node.live(first, Arc::clone(&ready), Arc::clone(&places)));
    }
    let measured = async {
        let all = u32::try_from(NODES)?;
        let _all = ready.acquire_many(all).await?;
        // One interval until every node is in its rhythm.
        tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS)).await;
        let (before, begun) = (crate::cpu(server)?, Instant::now());
        tokio::time::sleep(MEASURED).await;
        anyhow::Ok((crate::cpu(server)?.saturating_sub(before), begun.elapsed()))
    };
    tokio::select! {
        done = measured => done.map(|(busy, took)| (busy, took, joined)),
        Some(ended) = living.join_next() => Err(ended?.err().unwrap_or_else(|| anyhow::anyhow!("a node ended"))),
    }
}
