use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use e2e::World;
use identity::tls::{KeyExchange, Trust, cli_client_config};
use serde_json::Value;

const READS: u32 = 5_000;
const PARALLEL: u32 = 8;

pub(crate) fn run() -> anyhow::Result<()> {
    let world = World::new()?;
    let volume = world.volume("read")?;
    let token = world.tenant.json(&["token", "create", "bench"])?;
    let token = token.get("token").and_then(Value::as_str).context("a token")?.to_owned();
    let record: Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join("run/up.json"))?)?;
    let parts = record.get("parts").and_then(Value::as_array).context("parts")?;
    let server = parts.iter().find(|part| part.get(0) == Some(&Value::from("server"))).and_then(|part| part.pointer("/1/pid")?.as_u64());
    let server = u32::try_from(server.context("the server's process")?)?;
    let pin = world.deployment.ca_pin().parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let tls = cli_client_config(Trust::Pin(pin), KeyExchange::default(), Arc::new(rustls::time_provider::DefaultTimeProvider))?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (what, path) in [("whoami (credential, decision)", "/v1/whoami".to_owned()), ("a volume (credential, decision, two reads)", format!("/v1/volumes/{volume}"))] {
        let url = format!("{}{path}", world.deployment.url());
        let reads = |count: u32| {
            let (client, url, token) = (client.clone(), url.clone(), token.clone());
            runtime.block_on(async move {
                let mut readers = tokio::task::JoinSet::new();
                for _ in 0..PARALLEL {
                    let (client, url, token) = (client.clone(), url.clone(), token.clone());
                    readers.spawn(async move {
                        for _ in 0..count / PARALLEL {
                            client.get(&url).bearer_auth(&token).send().await?.error_for_status()?.bytes().await?;
                        }
                        anyhow::Ok(())
                    });
                }
                while let Some(done) = readers.join_next().await {
                    done??;
                }
                anyhow::Ok(())
            })
        };
        reads(PARALLEL * 20)?;
        let (before, begun) = (crate::cpu(server)?, Instant::now());
        reads(READS)?;
        let (busy, took) = (crate::cpu(server)?.saturating_sub(before), begun.elapsed());
        println!(
            "   {what}: {:.0} µs of server CPU per read; {:.0} reads/s with {PARALLEL} at a time over HTTP/2, TLS 1.3",
            busy.as_secs_f64() * 1e6 / f64::from(READS),
            f64::from(READS) / took.as_secs_f64()
        );
    }
    world.close()
}
