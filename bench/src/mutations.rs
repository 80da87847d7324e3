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

pub(crate) fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(crate::volumes::place())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let now = UnixTime::from_millis(1_767_225_600_000);
    let store = runtime.block_on(Store::open(StoreConfig::new(folder.path().join("bench.db"))))?;
    let mut file = std::fs::File::create(folder.path().join("append"))?;
    let (mut ours, mut syncs) = (Vec::new(), Vec::new());
    let mut next = 0;
    for _ in 0..TURNS {
        // The peer: what the disk can do, one writer, one fdatasync for each append of the same size.
        let begun = Instant::now();
        let mut count = 0_u32;
        while begun.elapsed() < TURN {
            file.write_all(&[b'x'; BODY])?;
            file.sync_data()?;
            count += 1;
        }
        syncs.push(f64::from(count) / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let done: u64 = runtime.block_on(async {
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..WRITERS {
                let store = store.clone();
                let first = next + writer * 1_000_000;
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
            anyhow::Ok(done)
        })?;
        next += WRITERS * 1_000_000;
        ours.push(done as f64 / begun.elapsed().as_secs_f64());
    }
    runtime.block_on(store.close());
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (ours, syncs) = (mean(&ours), mean(&syncs));
    println!("   {ours:.0} audited mutations/s with {WRITERS} writers; {syncs:.0} append + fdatasync/s with one: {:.1} mutations per sync", ours / syncs);
    println!("   (each on disk with its entry before it is acknowledged; {TURNS} turns of {} s each, interleaved, same file system)", TURN.as_secs());
    Ok(())
}
