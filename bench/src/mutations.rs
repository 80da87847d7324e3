use std::io::Write as _;
use std::time::{Duration, Instant};

use audit::EncodedEntry;
use store::{Expect, Kind, Put, Store, StoreConfig, Transaction};
use vocabulary::{EntryId, TenantId, UnixTime};

const WRITERS: u64 = 32;
const TURN: Duration = Duration::from_secs(3);
const TURNS: u64 = 3;
/// About the size of an entry's body.
const BODY: usize = 700;

fn bytes(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn transaction(number: u64, now: UnixTime) -> anyhow::Result<Transaction> {
    let tenant = TenantId::from_bytes(bytes(0xa000_0000));
    let body = format!("{{\"entry\":{number},\"filler\":\"{}\"}}", "x".repeat(BODY)).into_bytes();
    let salt = [7; 32];
    let put = Put::json(tenant, Kind::JOB, bytes(number), Expect::Absent, &serde_json::json!({"format": 1, "number": number}))?;
    Ok(Transaction::new().with(put).entry(EncodedEntry {
        id: EntryId::from_bytes(bytes(number)),
        tenant,
        salt,
        leaf: audit::leaf::leaf(&salt, &body),
        body,
        class_uid: 6003,
        activity: 1,
        kind: "job_submitted",
        actor: None,
        action: "jobSubmit".to_owned(),
        resource_kind: "job".to_owned(),
        resource: number.to_string(),
        outcome: "allowed",
        time: now,
    }))
}

/// Lets all writers commit for one turn; gives the rate.
async fn turn(store: &Store, first: u64, now: UnixTime) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        let first = first + writer * 1_000_000;
        writers.spawn(async move {
            let mut number = first;
            while begun.elapsed() < TURN {
                store.commit(transaction(number, now)?, now).await?;
                number += 1;
            }
            anyhow::Ok(number - first)
        });
    }
    let mut done = 0;
    while let Some(count) = writers.join_next().await {
        done += count??;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

pub(crate) fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(crate::volumes::place())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let now = UnixTime::from_millis(1_767_225_600_000);
    // Its own user must pass through; it syncs to the same disk.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let cluster = e2e::Cluster::within(folder.path(), true);
    let file = runtime.block_on(Store::open(StoreConfig::new(folder.path().join("bench.db"))))?;
    let server = runtime.block_on(Store::open(StoreConfig::postgres(cluster.url_of("swarm").parse()?)))?;
    let mut append = std::fs::File::create(folder.path().join("append"))?;
    let (mut files, mut servers, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    let mut next = 0;
    for _ in 0..TURNS {
        // The peer: what the disk can do, one writer, one fdatasync for each append of the same size.
        let begun = Instant::now();
        let mut count = 0_u32;
        while begun.elapsed() < TURN {
            append.write_all(&[b'x'; BODY])?;
            append.sync_data()?;
            count += 1;
        }
        syncs.push(f64::from(count) / begun.elapsed().as_secs_f64());
        files.push(runtime.block_on(turn(&file, next, now))?);
        servers.push(runtime.block_on(turn(&server, next, now))?);
        next += WRITERS * 1_000_000;
    }
    runtime.block_on(async {
        file.close().await;
        server.close().await;
    });
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (files, servers, syncs) = (mean(&files), mean(&servers), mean(&syncs));
    println!("   {files:.0} audited mutations/s on SQLite with {WRITERS} writers; {syncs:.0} append + fdatasync/s with one: {:.1} mutations per sync", files / syncs);
    println!("   {servers:.0} audited mutations/s on PostgreSQL 15 with {WRITERS} writers, by a Unix socket on the same disk: {:.2} of SQLite's rate", servers / files);
    println!("   (each on disk with its entry before it is acknowledged; {TURNS} turns of {} s each, interleaved, same file system)", TURN.as_secs());
    Ok(())
}
