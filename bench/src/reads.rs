use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::World;
use identity::tls::{KeyExchange, Trust, cli_client_config};
use serde_json::Value;

/// Connections that stay open, each of a client of its own.
const CONNECTIONS: usize = 32;
/// Requests of each in the measurement of cost.
const READS: u32 = 400;
/// Requests per second of all together in it: below the 4,000 that one principal may ask of two cores.
const COST_RATE: u32 = 3_200;
/// Requests per second of all together, in the measurement of latency.
const RATE: u32 = 2_000;
const PACED: Duration = Duration::from_secs(10);
/// What a read may cost, and how late it may be.
const TARGET_US: f64 = 300.0;

pub(crate) fn run() -> anyhow::Result<()> {
    let world = World::new()?;
    let volume = world.volume("read")?;
    let token = world.tenant.json(&["token", "create", "bench"])?;
    let token = token.get("token").and_then(Value::as_str).context("a token")?.to_owned();
    let server = crate::server(&world)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (form, http2) in [("HTTP/1.1", false), ("HTTP/2", true)] {
        let clients = (0..CONNECTIONS).map(|_| client(&world, http2)).collect::<anyhow::Result<Vec<_>>>()?;
        for (what, path) in [("whoami (credential, decision)", "/v1/whoami".to_owned()), ("a volume (credential, decision, one read)", format!("/v1/volumes/{volume}"))] {
            let url = format!("{}{path}", world.deployment.url());
            let each = |count: u32, every: Option<Duration>| runtime.block_on(all(&clients, &url, &token, count, every));
            let at_cost_rate = Some(Duration::from_secs(1) * CONNECTIONS as u32 / COST_RATE);
            each(20, at_cost_rate)?;
            let (before, begun) = (crate::cpu(server)?, Instant::now());
            each(READS, at_cost_rate)?;
            let (busy, took) = (crate::cpu(server)?.saturating_sub(before), begun.elapsed());
            let total = f64::from(READS) * CONNECTIONS as f64;
            let cost = busy.as_secs_f64() * 1e6 / total;
            println!("   {what}: {cost:.0} µs of server CPU per read ({:.2} of {TARGET_US}); {:.0} reads/s on {CONNECTIONS} connections, {form}, TLS 1.3", cost / TARGET_US, total / took.as_secs_f64());
            let per_connection = RATE / CONNECTIONS as u32;
            let every = Duration::from_secs(1) / per_connection;
            let mut late = each(per_connection * PACED.as_secs() as u32, Some(every))?;
            late.sort();
            let at = |per_mille: usize| late.get(late.len() * per_mille / 1000).map_or(f64::NAN, |late| late.as_secs_f64() * 1e3);
            println!("      at {RATE}/s: median {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms from the moment a request was due to its last byte", at(500), at(990), at(999));
        }
    }
    world.close()
}

pub(crate) fn client(world: &World, http2: bool) -> anyhow::Result<reqwest::Client> {
    let pin = world.deployment.ca_pin().parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut tls = cli_client_config(Trust::Pin(pin), KeyExchange::default(), Arc::new(rustls::time_provider::DefaultTimeProvider))?;
    tls.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    Ok(if http2 { builder.http2_prior_knowledge() } else { builder.http1_only() }.build()?)
}

/// Each client reads so many times; with `every`, each read when it is due. Gives how long after that each ended.
async fn all(clients: &[reqwest::Client], url: &str, token: &str, count: u32, every: Option<Duration>) -> anyhow::Result<Vec<Duration>> {
    let mut readers = tokio::task::JoinSet::new();
    let begun = tokio::time::Instant::now();
    for (place, client) in clients.iter().enumerate() {
        let (client, url, token) = (client.clone(), url.to_owned(), token.to_owned());
        readers.spawn(async move {
            let mut late = Vec::with_capacity(count as usize);
            for turn in 0..count {
                // The clients are not due at once, but spread over the interval.
                let due = every.map_or_else(tokio::time::Instant::now, |every| begun + every * turn + every * place as u32 / CONNECTIONS as u32);
                tokio::time::sleep_until(due).await;
                client.get(&url).bearer_auth(&token).send().await?.error_for_status()?.bytes().await?;
                late.push(due.elapsed());
            }
            anyhow::Ok(late)
        });
    }
    let mut late = Vec::new();
    while let Some(done) = readers.join_next().await {
        late.extend(done??);
    }
    Ok(late)
}
