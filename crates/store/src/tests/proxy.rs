//! A relay between the store and its server that can break in the middle of a commit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

/// What the relay does when it sees the word `COMMIT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// Nothing.
    Never = 0,
    /// Loses the word: the server never hears it.
    Before = 1,
    /// Loses the answer: the server commits.
    After = 2,
    /// Loses the answer, and lets nobody in from then on.
    AfterAndAway = 3,
    /// Lets nobody in.
    Away = 4,
    /// Says another version of the server.
    Old = 5,
}

/// The relay. Each kind of break happens once.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) port: u16,
    mode: Arc<AtomicU8>,
    broken: Arc<AtomicU32>,
    /// Of the one that the test holds: gone with it.
    _tasks: Option<Arc<JoinSet<()>>>,
}

impl Proxy {
    pub(super) async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy =
            Self { port: listener.local_addr().unwrap().port(), mode: Arc::default(), broken: Arc::default(), _tasks: None };
        let shared = proxy.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                client.set_nodelay(true).unwrap();
                if shared.now(Break::Away) {
                    continue;
                }
                let (shared, socket) = (shared.clone(), socket.clone());
                relays.spawn(async move { shared.relay(client, socket).await });
            }
        });
        Self { _tasks: Some(Arc::new(tasks)), ..proxy }
    }

    pub(super) fn set(&self, mode: Break) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
    /// How many connections were broken.
    pub(super) fn broken(&self) -> u32 {
        self.broken.load(Ordering::SeqCst)
    }
    fn now(&self, mode: Break) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }
    /// Takes a break: true for one connection only.
    fn take(&self, mode: Break, next: Break) -> bool {
        let taken = self.mode.compare_exchange(mode as u8, next as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.broken.fetch_add(u32::from(taken), Ordering::SeqCst);
        taken
    }

    async fn relay(&self, mut client: tokio::net::TcpStream, socket: PathBuf) {
        let Ok(mut server) = UnixStream::connect(socket).await else { return };
        let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut deaf = false;
        loop {
            tokio::select! {
                read = client.read(&mut from_client) => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &from_client[..length];
                    if bytes.windows(6).any(|window| window == b"COMMIT") {
                        if self.take(Break::Before, Break::Never) {
                            return;
                        }
                        deaf = self.take(Break::After, Break::Never) || self.take(Break::AfterAndAway, Break::Away);
                    }
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut from_server) => {
                    let Ok(length @ 1..) = read else { return };
                    if deaf {
                        // The server has answered, so it has committed.
                        return;
                    }
                    if self.now(Break::Old) {
                        age(&mut from_server[..length]);
                    }
                    if client.write_all(&from_server[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Makes a server of version 15 say 14.
fn age(bytes: &mut [u8]) {
    for place in 0..bytes.len().saturating_sub(7) {
        let number = i64::from_be_bytes(bytes[place..place + 8].try_into().unwrap());
        if (150_000..160_000).contains(&number) {
            bytes[place..place + 8].copy_from_slice(&140_000_i64.to_be_bytes());
        }
    }
}
