//! `kill -9` in mid-write: everything acknowledged is there, nothing is half written.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::task::JoinSet;

use super::{NOW, Seeded, entry, id, put, tenant};
use crate::{Expect, Kind, Mutation, Page, Store, StoreConfig, Transaction};

/// Tells the child where to write, a folder or a URL; nobody else is the child.
const PLACE: &str = "SWARM_STORE_KILL_PLACE";
const WRITERS: u64 = 8;
const ROUNDS: u64 = 24;
/// Fewer where each round asks a server.
const ROUNDS_SERVER: u64 = 8;

/// One writer's next transaction: two resources, their position, and the entry that names the first.
fn transaction(writer: u64, round: u64) -> Transaction {
    let a = tenant(writer);
    let number = writer * 1_000_000 + round * 2;
    let advance = Mutation::Advance { tenant: a, kind: Kind::JOB, id: id(writer), from: round, to: round + 1 };
    Transaction::new()
        .with(put(a, number, Expect::Absent))
        .with(put(a, number + 1, Expect::Absent))
        .with(advance)
        .entry(entry(a, number))
}

/// The child: writes until it is killed and says what was acknowledged.
#[test]
#[ignore = "is killed by `nothing_acknowledged_is_lost`, which starts it"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how a test's child knows that it is one")]
    let Ok(place) = std::env::var(PLACE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(at(&place)).await.unwrap();
        say("open");
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                let mut round = store.position(tenant(writer), Kind::JOB, id(writer)).await.unwrap();
                loop {
                    let committed = store.commit(transaction(writer, round), NOW).await.unwrap();
                    say(&format!("ack {writer} {round} {} {}", committed.change_seq, committed.audit_indexes[0]));
                    round += 1;
                }
            });
        }
        writers.join_all().await;
    });
}

/// The store in a folder or behind a URL.
fn at(place: &str) -> StoreConfig {
    match place.parse() {
        Ok(url) => StoreConfig::postgres(url),
        Err(_) => StoreConfig::new(Path::new(place).join("swarm.db")),
    }
}

/// One line in one write: a killed child leaves none cut in two but the last.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path().to_str().unwrap(), ROUNDS);
}

#[test]
fn nothing_acknowledged_is_lost_on_a_server() {
    let cluster = super::cluster::Cluster::start();
    killed(&cluster.url_of("swarm"), ROUNDS_SERVER);
}

fn killed(place: &str, rounds: u64) {
    let mut seeded = Seeded(0x5eed);
    let mut acknowledged: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for round in 0..rounds {
        // Killed after so many acknowledgements; the first ones in the middle of making the database.
        let after = if round < 3 { round } else { seeded.below(60) };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["tests::kill::child", "--exact", "--ignored", "--nocapture"])
            .env(PLACE, place)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut seen = 0;
        while seen < after && output.read_line(&mut line).unwrap() > 0 {
            seen += u64::from(note(&line, &mut acknowledged));
            line.clear();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too.
        line.clear();
        while output.read_line(&mut line).unwrap() > 0 {
            note(&line, &mut acknowledged);
            line.clear();
        }
        runtime.block_on(check(place, &acknowledged));
    }
    assert!(acknowledged.len() as u64 > rounds * 8, "only {} acknowledged", acknowledged.len());
}

/// Takes an acknowledgement down; a line that was cut by the kill was not heard.
fn note(line: &str, acknowledged: &mut BTreeMap<(u64, u64), (u64, u64)>) -> bool {
    let Some(numbers) = line.strip_suffix('\n').and_then(|line| line.strip_prefix("ack ")) else { return false };
    let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    let [writer, round, seq, index] = numbers[..] else { panic!("{line}") };
    assert_eq!(acknowledged.insert((writer, round), (seq, index)), None, "acknowledged twice: {line}");
    true
}

async fn check(place: &str, acknowledged: &BTreeMap<(u64, u64), (u64, u64)>) {
    let store = Store::open(at(place)).await.unwrap();
    let mut total = 0;
    for writer in 0..WRITERS {
        let a = tenant(writer);
        let position = store.position(a, Kind::JOB, id(writer)).await.unwrap();
        // State and entries pair up: as many as the position says, each whole.
        let mut resources = Vec::new();
        let mut page = Page::default();
        loop {
            let listed = store.list(a, Kind::JOB, page).await.unwrap();
            resources.extend(listed.items);
            match resources.last() {
                Some(last) if listed.truncated => page = Page::after(last.id, 1000),
                _ => break,
            }
        }
        assert_eq!(resources.len() as u64, position * 2, "writer {writer}");
        for round in 0..position {
            let number = writer * 1_000_000 + round * 2;
            let entry = store.entry_by_id(a, entry(a, number).id).await.unwrap().expect("an entry for every change");
            let second = store.get(a, Kind::JOB, id(number + 1)).await.unwrap().expect("both resources");
            if let Some(heard) = acknowledged.get(&(writer, round)) {
                assert_eq!(*heard, (second.change_seq, entry.index));
            }
        }
        let heard = acknowledged.range((writer, 0)..(writer + 1, 0)).count() as u64;
        assert!(heard <= position, "writer {writer}: {heard} acknowledged, {position} there");
        if let Some(((_, last), _)) = acknowledged.range((writer, 0)..(writer + 1, 0)).next_back() {
            assert!(*last < position, "writer {writer}: round {last} was acknowledged and is gone");
        }
        total += position;
    }
    assert_eq!(store.entry_count().await.unwrap(), total);
    assert_eq!(store.latest_change(), total * 2);
    store.close().await;
}
