//! The log: entries sequenced and published, and the proof of one among ten millions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audit::key::Ed25519Signer;
use audit::merkle::verify_inclusion;
use audit::tile::{TilePath, TileReader, edge};
use audit::{Checkpoint, EncodedEntry, Hash};
use store::{Blobs, Mutation, Store, StoreConfig, Transaction};
use vocabulary::{ControlId, EntryId, TenantId, UnixTime};

const ORIGIN: &str = "bench.example/log";
const WRITERS: u64 = 32;
const TURN: Duration = Duration::from_secs(5);
/// Between two checkpoints, as the control plane does it.
const INTERVAL: Duration = Duration::from_millis(250);
/// Leaves of the log of which one is proved.
const LEAVES: u64 = 10_000_000;
const PROOFS: u64 = 2_000;

fn bytes(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn entry(number: u64, now: UnixTime) -> EncodedEntry {
    let body = format!("{{\"entry\":{number},\"filler\":\"{}\"}}", "x".repeat(700)).into_bytes();
    let salt = [7; 32];
    EncodedEntry {
        id: EntryId::from_bytes(bytes(number)),
        tenant: TenantId::from_bytes(bytes(0xa000_0000)),
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
    }
}

pub(crate) fn run() -> anyhow::Result<()> {
    for entries in [1, 8] {
        sequence(entries)?;
    }
    prove()
}

/// Writers commit transactions with entries, while a publisher makes durable tiles and signed checkpoints of them.
fn sequence(entries: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(crate::volumes::place())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let now = UnixTime::from_millis(1_767_225_600_000);
    let (written, seconds, published, rounds) = runtime.block_on(async {
        let store = Store::open(StoreConfig::new(folder.path().join("bench.db"))).await?;
        let blobs = Blobs::local(&folder.path().join("objects"))?;
        let over = Arc::new(AtomicBool::new(false));
        let publisher = tokio::spawn(publish(store.clone(), blobs, Arc::clone(&over), now));
        let begun = Instant::now();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                let first = (writer + 1) * 1_000_000_000;
                let mut number = first;
                while begun.elapsed() < TURN {
                    let mut transaction = Transaction::new();
                    for _ in 0..entries {
                        transaction = transaction.entry(entry(number, now));
                        number += 1;
                    }
                    store.commit(transaction, now).await?;
                }
                anyhow::Ok(number - first)
            });
        }
        let mut written = 0;
        while let Some(count) = writers.join_next().await {
            written += count??;
        }
        over.store(true, Ordering::Release);
        let (published, rounds) = publisher.await??;
        // What is counted is published: the time includes the last checkpoint.
        let seconds = begun.elapsed().as_secs_f64();
        store.close().await;
        anyhow::Ok((written, seconds, published, rounds))
    })?;
    anyhow::ensure!(written == published, "{written} were written and {published} published");
    println!(
        "   {:.0} entries/s sequenced and published with {WRITERS} writers, {entries} in each transaction ({published} under {rounds} checkpoints)",
        published as f64 / seconds
    );
    Ok(())
}

/// The steps of the control plane's publisher: tiles durable, then the checkpoint signed and stored.
async fn publish(store: Store, blobs: Blobs, over: Arc<AtomicBool>, now: UnixTime) -> anyhow::Result<(u64, u32)> {
    let signer = Ed25519Signer::from_seed(ORIGIN, &[1; 32])?;
    let (mut size, mut root, mut rounds) = (0, audit::hash::empty_root(), 0);
    loop {
        let last = over.load(Ordering::Acquire);
        let count = store.entry_count().await?;
        if count > size {
            let take = Mutation::TakePublisher { holder: ControlId::from_bytes([1; 16]), until: now.plus_millis(10_000) };
            let token = store.commit(Transaction::new().with(take), now).await?.revisions.first().copied().unwrap_or_default();
            let mut leaves = Vec::new();
            while (leaves.len() as u64) < count - size {
                leaves.extend(store.leaves(size + leaves.len() as u64).await?);
            }
            let slices: Vec<&[u8]> = leaves.iter().map(|leaf| leaf.leaf.as_slice()).collect();
            let mut tiles: BTreeMap<TilePath, Vec<u8>> = BTreeMap::new();
            for path in edge(size) {
                tiles.insert(path, blobs.get(&format!("log/{path}").parse()?, 64 << 10).await?.to_vec());
            }
            let appended = audit::append(&tiles, size, &root, &slices)?;
            for (path, bytes) in appended.files {
                blobs.put_same(&format!("log/{path}").parse()?, bytes.into()).await?;
            }
            let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size: appended.size, root: appended.root };
            let note = checkpoint.sign(&signer)?.encode();
            let set = Mutation::Publish { token, size: appended.size, root: *appended.root.as_bytes(), checkpoint: note };
            store.commit(Transaction::new().with(set), now).await?;
            (size, root) = (appended.size, appended.root);
            rounds += 1;
        } else if last {
            return Ok((size, rounds));
        }
        if !last {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Tiles in a folder.
struct Folder(PathBuf);

impl TileReader for Folder {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(path.to_string())).ok()
    }
}

fn leaf(number: u64) -> Hash {
    audit::hash::leaf_hash(&number.to_le_bytes())
}

/// Writes the tiles of hashes of a log of ten million leaves. Nothing is synced: they are thrown away.
fn write(folder: &Path) -> anyhow::Result<()> {
    let mut hashes: Vec<Hash> = (0..LEAVES).map(leaf).collect();
    for level in 0..=u8::MAX {
        let mut roots = Vec::new();
        for (index, chunk) in hashes.chunks(256).enumerate() {
            let width = u16::try_from(chunk.len())?;
            let path = TilePath::hashes(level, index as u64, width).ok_or_else(|| anyhow::anyhow!("no such tile"))?;
            let path = folder.join(path.to_string());
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, chunk.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>())?;
            if chunk.len() == 256 {
                let mut tree = audit::walk::CompactTree::new();
                // The root over 256 nodes is folded as over leaves: only the lowest level is hashed as leaves.
                for hash in chunk {
                    tree.push(*hash);
                }
                roots.push(tree.root());
            }
        }
        if roots.is_empty() {
            return Ok(());
        }
        hashes = roots;
    }
    Ok(())
}

fn prove() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(crate::volumes::place())?;
    let begun = Instant::now();
    write(folder.path())?;
    let built = begun.elapsed().as_secs_f64();
    let tiles = Folder(folder.path().to_owned());
    let root = audit::prove::root(&tiles, LEAVES)?;
    let (mut times, mut random) = (Vec::new(), 0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..PROOFS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (random >> 11) % LEAVES;
        let begun = Instant::now();
        let proof = audit::prove::prove_inclusion(&tiles, index, LEAVES)?;
        times.push(begun.elapsed());
        verify_inclusion(leaf(index), index, LEAVES, &proof, &root)?;
    }
    times.sort();
    let worst = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    println!(
        "   proof of one entry among {LEAVES}: {:.3} ms (median), {:.3} ms (p99) of {PROOFS}, from tiles in files, each verified; tiles built in {built:.0} s",
        crate::median(times) * 1000.0,
        worst.as_secs_f64() * 1000.0
    );
    Ok(())
}
