//! What whoever looks for a fault from afar is told of a control plane's folder: numbers, dates, verdicts and words of this
//! program. It is read from the disk, whether a server runs on it or not, and nothing is written.
//!
//! **Invariant:** every value here has a type that can hold no text from outside: a number, a yes or no, or a `&'static str`.
//! So no name, id, path, address, body of a row or secret can be in it, whatever the folder holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use audit::checkpoint::Checkpoint;
use audit::note::Note;
use audit::tile::{TilePath, TileReader};
use audit::{WitnessPolicy, prove};
use keys::seal::SealFile;
use serde::Serialize;
use store::backup::{DATABASE, OBJECTS};
use store::statistics::{Looked, Statistics, statistics};
use vocabulary::{Profile, UnixTime};

use crate::bootstrap::facts;
use crate::publisher::LOG_FOLDER;
use crate::{seal, witness};

/// Bytes of a small file: a tile, a checkpoint, or a seal.
const SMALL_MAX: u64 = 1 << 20;
/// Entries of folders that are looked at: a few seconds of a slow disk. What lies beyond is counted as "more".
const WALK_MAX: u64 = 200_000;

/// A control plane's folder.
#[derive(Debug, Serialize)]
pub struct ServerFacts {
    /// Whether there is a database; without one nothing below is there but what the objects tell.
    pub database: Option<Statistics>,
    /// Why there are no statistics.
    pub database_absent: Option<&'static str>,
    /// The profile.
    pub profile: Option<&'static str>,
    /// Milliseconds by which the newest commit lies ahead of this machine's clock: above 0 the clock went back.
    pub commit_ahead_ms: Option<u64>,
    /// The newest signed checkpoint.
    pub checkpoint: CheckpointFacts,
    /// The checkpoint that lies beside the tiles with the witnesses' signatures.
    pub cosigned: CheckpointFacts,
    /// The witnesses' policy.
    pub witnesses: WitnessFacts,
    /// The seal.
    pub seal: SealFacts,
    /// Files of the folder, by what they are.
    pub sizes: Vec<Size>,
}

/// A checkpoint and what its check said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckpointFacts {
    /// `verified`; or which check failed; or `absent`.
    pub verdict: &'static str,
    /// Entries under it, where its signature is the log's.
    pub size: Option<u64>,
    /// Signatures on it, good or not.
    pub signatures: Option<usize>,
    /// Whether the witnesses' policy in force is reached by it.
    pub quorum: Option<bool>,
}

impl CheckpointFacts {
    const fn of(verdict: &'static str) -> Self {
        Self { verdict, size: None, signatures: None, quorum: None }
    }
}

/// The witnesses' policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WitnessFacts {
    /// `set`, `absent`, or `unreadable`.
    pub policy: &'static str,
    /// Witnesses that it names.
    pub named: Option<usize>,
    /// Whether it asks for no witness.
    pub none_needed: Option<bool>,
    /// Entries of the checkpoint that the quorum signed last.
    pub settled_size: Option<u64>,
    /// When that was.
    pub settled_at: Option<UnixTime>,
}

/// The seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SealFacts {
    /// `passphrase` or `shares`; or `absent`, `unreadable`.
    pub kind: &'static str,
    /// How many shares open it.
    pub threshold: Option<u8>,
    /// How many shares there are.
    pub shares: Option<u8>,
    /// How often it was changed.
    pub generation: Option<u32>,
    /// Root epochs in it: number and when each was made.
    pub epochs: Vec<(u32, UnixTime)>,
    /// Files in its folder: more than one are left of changes.
    pub files: u64,
}

/// Files of one sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// What they are.
    pub what: &'static str,
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There are more than were counted.
    pub more: bool,
}

/// Every metric of a control plane, without the endings that OpenMetrics adds for counters and histograms.
pub const METRICS: [&str; 28] = [
    "swarm_build_info",
    "swarm_requests",
    "swarm_request_seconds",
    "swarm_credentials_refused",
    "swarm_rate_limited",
    "swarm_strangers_refused",
    "swarm_connections",
    "swarm_connections_displaced",
    "swarm_connections_turned_away",
    "swarm_trace_spans",
    "swarm_store_commit_seconds",
    "swarm_store_transactions",
    "swarm_audit_entries",
    "swarm_store_up",
    "swarm_log_entries",
    "swarm_log_published_entries",
    "swarm_log_unpublished_entries",
    "swarm_jobs",
    "swarm_nodes",
    "swarm_key_steps",
    "swarm_keys_due",
    "swarm_key_round_timestamp_seconds",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_threads",
    "swarm_clock_set_seconds",
    "swarm_certificate_end_timestamp_seconds",
    "process_start_time_seconds",
];

/// Every label whose values are among [`metric_words`].
pub const METRIC_LABELS: [&str; 12] =
    ["listener", "method", "route", "status", "bucket", "code", "fate", "event", "outcome", "state", "step", "certificate"];

/// Every value that a label of the metrics may have, beside numbers and the version: routes, methods, states, events.
#[must_use]
pub fn metric_words() -> BTreeSet<&'static str> {
    let routes = crate::server::routes().into_iter().chain(crate::server::node_routes()).flat_map(|route| [route.path, route.method]);
    let fixed = crate::metrics::words().into_iter().chain(audit::event::KINDS).chain(vocabulary::ErrorCode::ALL.iter().map(|code| code.as_str()));
    routes.chain(fixed).collect()
}

/// Looks at a server's folder.
pub async fn server(data_dir: &Path, now: UnixTime) -> ServerFacts {
    let objects = data_dir.join(OBJECTS);
    let database = data_dir.join(DATABASE);
    let looked = if database.is_file() {
        statistics(&database, &[witness::POLICY, witness::COSIGNED, seal::SEAL]).await.map_err(|error| absent(&error))
    } else {
        Err("there is no database in this folder: it is kept on PostgreSQL, or was never made")
    };
    let (looked, database_absent) = match looked {
        Ok(looked) => (Some(looked), None),
        Err(why) => (None, Some(why)),
    };
    let found = looked.as_ref().and_then(|looked| facts(looked.deployment.as_deref()?).ok());
    let file = found.as_ref().and_then(|found| receipt::Deployment::open(found.file.as_bytes(), None).ok());
    let keys = file.map(|file| file.log_keys).unwrap_or_default();
    let policy = looked.as_ref().and_then(|looked| looked.bodies.get(witness::POLICY.as_str()));
    let policy = policy.map(|body| serde_json::from_str::<witness::PolicyRow>(body).ok().and_then(|row| WitnessPolicy::parse(row.text.as_bytes()).ok()));
    let tiles = Folder(objects.join(LOG_FOLDER));
    let judge = |note: Option<&[u8]>| judged(note, &keys, policy.as_ref().and_then(Option::as_ref), &tiles);
    let cosigned = small(&objects.join(LOG_FOLDER).join("cosigned"));
    ServerFacts {
        profile: found.as_ref().map(|found| match found.profile {
            Profile::Development => "development",
            Profile::Production => "production",
        }),
        commit_ahead_ms: looked.as_ref().map(|looked| looked.statistics.newest_commit_ms.saturating_sub(now.millis())),
        checkpoint: judge(looked.as_ref().and_then(|looked| looked.checkpoint.as_deref())),
        cosigned: judge(cosigned.as_deref()),
        witnesses: witnesses(looked.as_ref(), policy.as_ref()),
        seal: sealed(&objects, looked.as_ref()),
        sizes: sizes(data_dir, &objects),
        database: looked.map(|looked| looked.statistics),
        database_absent,
    }
}

/// Why a database gives no statistics, in words that hold nothing of it.
fn absent(error: &store::OpenError) -> &'static str {
    use store::OpenError;
    match error {
        OpenError::NotADatabase { .. } => "the file is no database",
        OpenError::Corrupt { .. } => "the database is damaged",
        OpenError::Full { .. } => "the disk is full",
        OpenError::ReadOnly { .. } => "the file may not be read",
        OpenError::Newer { .. } => "the database is newer than this program",
        OpenError::InUse { .. }
        | OpenError::Unreachable { .. }
        | OpenError::NotLetIn { .. }
        | OpenError::ServerVersion { .. }
        | OpenError::ServerReadOnly { .. }
        | OpenError::Foreign { .. }
        | OpenError::Unfenced { .. }
        | OpenError::Io { .. }
        | OpenError::Engine(_)
        | OpenError::Contradiction { .. } => "the database cannot be read",
    }
}

/// A checkpoint's signature, and its root over the tiles that are there.
fn judged(note: Option<&[u8]>, keys: &[audit::VerifierKey], policy: Option<&WitnessPolicy>, tiles: &Folder) -> CheckpointFacts {
    let Some(bytes) = note else { return CheckpointFacts::of("absent") };
    let Ok(note) = Note::parse(bytes) else { return CheckpointFacts::of("malformed") };
    if keys.is_empty() {
        return CheckpointFacts::of("no_key_to_check_it_with");
    }
    let Some((checkpoint, _)) = keys.iter().find_map(|key| Checkpoint::verify(&note, key, &[]).ok()) else {
        return CheckpointFacts::of("signature_refused");
    };
    let verdict = match prove::root(tiles, checkpoint.size) {
        Ok(root) if root == checkpoint.root => "verified",
        Ok(_) => "root_differs_from_tiles",
        Err(_) => "tiles_missing_or_damaged",
    };
    let quorum = policy.map(|policy| policy.verify(&note).is_ok_and(|(_, judged)| judged.satisfied));
    CheckpointFacts { verdict, size: Some(checkpoint.size), signatures: Some(note.signatures().len()), quorum }
}

fn witnesses(looked: Option<&Looked>, policy: Option<&Option<WitnessPolicy>>) -> WitnessFacts {
    let settled = looked.and_then(|looked| serde_json::from_str::<witness::CosignedRow>(looked.bodies.get(witness::COSIGNED.as_str())?).ok()?.settled);
    let (word, policy) = match policy {
        None => ("absent", None),
        Some(None) => ("unreadable", None),
        Some(Some(policy)) => ("set", Some(policy)),
    };
    WitnessFacts {
        policy: word,
        named: policy.map(|policy| policy.witnesses().len()),
        none_needed: policy.map(WitnessPolicy::is_none),
        settled_size: settled.as_ref().map(|settled| settled.size),
        settled_at: settled.map(|settled| settled.at),
    }
}

/// The seal in force: the file that the database names, else the first one.
fn sealed(objects: &Path, looked: Option<&Looked>) -> SealFacts {
    let nothing = |kind| SealFacts { kind, threshold: None, shares: None, generation: None, epochs: Vec::new(), files: files_in(&objects.join("seal")) };
    let named = looked.and_then(|looked| looked.bodies.get(seal::SEAL.as_str()));
    let path = match named.map(|body| seal::named(body)) {
        None => Some(objects.join(seal::FIRST)),
        Some(name) => name.map(|name| objects.join(name.as_str())),
    };
    let Some(bytes) = path.as_deref().and_then(small) else { return nothing("absent") };
    let Ok(file) = SealFile::parse(&bytes) else { return nothing("unreadable") };
    SealFacts {
        kind: file.kind().as_str(),
        threshold: file.threshold(),
        shares: file.shares(),
        generation: Some(file.generation()),
        epochs: file.epochs().collect(),
        ..nothing("")
    }
}

fn files_in(folder: &Path) -> u64 {
    std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().count() as u64)
}

/// What lies in the folder, by what it is. Folders that this program does not know are "other": their names are not told.
fn sizes(data_dir: &Path, objects: &Path) -> Vec<Size> {
    let mut left = WALK_MAX;
    let known = ["log", "images", "volumes", "logs", "receipts", "statements", "seal", "deployment"];
    let mut found: Vec<Size> = known.iter().map(|name| size(name, &[objects.join(name)], &mut left)).collect();
    let named = |path: &Path| path.file_name().is_some_and(|name| known.iter().any(|known| name == *known));
    let others: Vec<PathBuf> =
        std::fs::read_dir(objects).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| !named(path)).collect();
    found.push(size("other objects", &others, &mut left));
    let beside: Vec<PathBuf> =
        std::fs::read_dir(data_dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path != objects).collect();
    found.push(size("beside the objects", &beside, &mut left));
    found
}

/// Counts files and bytes below some paths, as long as `left` lasts. Links are not followed.
pub fn size(what: &'static str, from: &[PathBuf], left: &mut u64) -> Size {
    let (mut files, mut bytes, mut waiting) = (0_u64, 0_u64, from.to_vec());
    while let Some(path) = waiting.pop() {
        if *left == 0 {
            return Size { what, files, bytes, more: true };
        }
        *left = left.saturating_sub(1);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().take(usize::try_from(*left).unwrap_or(0)).map(|entry| entry.path()));
        } else if metadata.is_file() {
            files = files.saturating_add(1);
            bytes = bytes.saturating_add(metadata.len());
        }
    }
    Size { what, files, bytes, more: false }
}

/// The bytes of a small plain file.
fn small(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read as _;
    if !std::fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(SMALL_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Tiles in a folder of objects.
struct Folder(PathBuf);

impl TileReader for Folder {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        std::iter::once(*path).chain(path.with_width(256)).find_map(|path| small(&self.0.join(path.to_string())))
    }
}
