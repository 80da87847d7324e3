//! Connections that only take places: ten thousand of them keep nobody out, nor do the many of one's own neighbour.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Ask, Running, World};

/// A metric's value for the API's listener.
async fn metric(server: &Running, name: &str) -> u64 {
    let text = server.metrics().await;
    let begins = format!("{name}{{listener=\"api\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&begins)).unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    kib * 1024
}

/// Somebody who comes now, asks one thing over a connection of their own, and is answered.
async fn honest(world: &World) {
    let (http, _) = super::support::client(world.server.server.as_ref().unwrap());
    let answer = http.get(format!("{}/v1/whoami", world.server.url)).bearer_auth(&world.alice_token).send().await;
    assert_eq!(answer.unwrap_or_else(|error| panic!("an honest client was kept out: {error:?}")).status().as_u16(), 200);
}

/// The crowd in a process of its own, for one process may not open as many files as both ends need.
struct Crowd(Child);

impl Crowd {
    fn come(port: u16, sources: usize, each: usize) -> (Self, impl Iterator<Item = usize>) {
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/crowd.py"))
            .args([port.to_string(), sources.to_string(), each.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Self(child), lines.map(|line| line.unwrap().parse().unwrap()))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_connections_keep_nobody_out() {
    const SOURCES: usize = 10;
    const EACH: usize = 1_000;
    /// More than a silent connection may cost: what it really costs stands in bench/README.md.
    const BYTES_MAX: u64 = 64 << 10;
    let world = World::new().await;
    honest(&world).await;
    let before = resident();
    // Some go further: they shake hands, ask once, and keep the connection.
    let mut kept = Vec::new();
    for _ in 0..100 {
        let mut stream = super::hostile::tls(&world).await;
        stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        kept.push(stream);
    }
    let address = world.server.server.as_ref().unwrap().address();
    let (crowd, mut opened) = Crowd::come(address.port(), SOURCES, EACH);
    let all = tokio::task::spawn_blocking(move || opened.any(|count| count == SOURCES * EACH));
    let mut most = 0;
    // Whoever comes while they come, and when all of them are there.
    let mut after = 5;
    while after > 0 {
        honest(&world).await;
        most = most.max(metric(&world.server, "swarm_connections").await);
        if all.is_finished() {
            after -= 1;
        }
    }
    assert!(all.await.unwrap(), "the crowd ended");
    let grown = resident().saturating_sub(before);
    // How many were there at once depends on the machine: those that do not shake hands end after ten seconds.
    assert!(most > 0 && grown < (SOURCES * EACH) as u64 * BYTES_MAX, "{grown} bytes for {most} connections at once");
    if std::env::var_os("SWARM_SAY").is_some() { panic!("{most} {grown}"); }
    drop((crowd, kept));
    world.server.stop().await;
}

/// Behind one address (an office, a provider) somebody takes all that it may have: the others there still get in.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gives_way_to_whoever_comes_from_the_same_address() {
    const TRIES: usize = 6_000;
    let mut world = World::new().await;
    let server: SocketAddr = world.server.server.as_ref().unwrap().address();
    let mut held = Vec::new();
    let mut displaced = 0;
    while displaced == 0 {
        assert!(held.len() < TRIES, "nobody gave way among {TRIES}");
        for _ in 0..100 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(IpAddr::from([127, 0, 0, 77]), 0)).unwrap();
            held.push(socket.connect(server).await.unwrap());
        }
        displaced = metric(&world.server, "swarm_connections_displaced_total").await;
    }
    assert_eq!(metric(&world.server, "swarm_connections_turned_away_total").await, 0);
    world.server.come_from(77);
    world.alice(Ask::get("/v1/whoami")).await.good();
    // Who gave way is told by the end of the connection.
    let ended = async {
        for mut stream in held {
            let mut byte = [0; 1];
            if matches!(stream.read(&mut byte).await, Ok(0) | Err(_)) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap());
    world.server.stop().await;
}
