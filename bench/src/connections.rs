use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::World;
use identity::tls::{KeyExchange, Trust, cli_client_config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

/// Clients that shook hands, asked once, and keep their connection.
const CONNECTIONS: usize = 10_000;
/// Addresses that they come from: one address may have 1,024.
const SOURCES: usize = 10;
/// Handshakes at once.
const AT_ONCE: usize = 32;
/// Clients that come meanwhile.
const NEWCOMERS: usize = 100;
/// MiB of the server with all of them.
const TARGET_MIB: u64 = 512;

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

pub(crate) fn run() -> anyhow::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).context("the limit of open files")?;
    let world = World::new()?;
    let server = crate::server(&world)?;
    let pin = world.deployment.ca_pin().parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut tls = cli_client_config(Trust::Pin(pin), KeyExchange::default(), Arc::new(rustls::time_provider::DefaultTimeProvider))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let address: SocketAddr = world.deployment.url().strip_prefix("https://").context("the address")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (before, cpu) = (crate::volumes::status(server, "VmRSS:")?, crate::cpu(server)?);
    let begun = Instant::now();
    let held = runtime.block_on(open(&tls, address, CONNECTIONS))?;
    let (took, after, cpu) = (begun.elapsed(), crate::volumes::status(server, "VmRSS:")?, crate::cpu(server)?.saturating_sub(cpu));
    let grown = after.saturating_sub(before);
    println!("   {CONNECTIONS} connections that shook hands and asked once, from {SOURCES} addresses, in {:.0} s: {} MiB of the server (of {TARGET_MIB}), {:.1} KiB for each; {:.2} ms of server CPU for each", took.as_secs_f64(), after / 1024, grown as f64 / CONNECTIONS as f64, cpu.as_secs_f64() * 1e3 / CONNECTIONS as f64);
    let mut newcomers = Vec::new();
    for _ in 0..NEWCOMERS {
        let begun = Instant::now();
        drop(runtime.block_on(ask(&tls, address, 0))?);
        newcomers.push(begun.elapsed());
    }
    println!("   beside them {NEWCOMERS} newcomers: {:.1} ms from connect to answer (median), none refused", crate::median(newcomers) * 1e3);
    drop(held);
    std::thread::sleep(Duration::from_secs(2));
    println!("   2 s after they went: {} MiB", crate::volumes::status(server, "VmRSS:")? / 1024);
    world.close()
}

async fn open(tls: &rustls::ClientConfig, address: SocketAddr, count: usize) -> anyhow::Result<Vec<Stream>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = tokio::task::JoinSet::new();
    for number in 0..count {
        let (tls, places) = (tls.clone(), Arc::clone(&places));
        opening.spawn(async move {
            let _place = places.acquire().await?;
            ask(&tls, address, number % SOURCES + 1).await.with_context(|| format!("connection {number}"))
        });
    }
    let mut held = Vec::with_capacity(count);
    while let Some(stream) = opening.join_next().await {
        held.push(stream??);
    }
    Ok(held)
}

/// A connection from one of this machine's addresses, over which one question was answered.
async fn ask(tls: &rustls::ClientConfig, address: SocketAddr, source: usize) -> anyhow::Result<Stream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 1, u8::try_from(source)?], 0)))?;
    let stream = socket.connect(address).await?;
    let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls.clone())).connect(name, stream).await?;
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&answer));
    Ok(stream)
}
