//! Backup of a deployment on `SQLite`, while its server runs or not, and what is restored from one.
//!
//! The order decides. The cosigned checkpoint is read first, then the state of the database is taken, then the objects are
//! listed and copied: what the database names was on the disk before it named it, and of the log no tile is taken that knows
//! more than the database. An object that is deleted meanwhile is missing, as it would be a moment later.
//!
//! A restored state is older than what it is a copy of. Where tiles or witnesses know more, the start and the publisher refuse
//! it ([`crate::published`], [`crate::witness`]); who holds a newer checkpoint gives it to the restore, which then refuses too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use audit::checkpoint::Checkpoint;
use audit::entry::Producer;
use audit::note::Note;
use audit::tile::{TileKind, TilePath};
use audit::{Actor, Entry, Outcome, Source};
use keys::{Random as _, SystemRandom};
use store::backup::{Backup, DATABASE, FORMAT, Manifest, OBJECTS, Snapshot, VERSION, Writing, look, snapshot};
use store::{BlobError, BlobPath, Blobs, Store, StoreConfig};
use vocabulary::{ControlId, EntryId, Sha256Digest, UnixTime};

pub use store::backup::{BackupError, Manifest as BackupManifest};

use crate::bootstrap::{Facts, facts};
use crate::api::problem::Failure;
use crate::publisher::LOG_FOLDER;
use crate::shred::list::ListError;
use crate::shred::{self, Replayed};
use crate::state::fresh;

/// How often the seal may change under a backup before it is given up: it changes when somebody turns it, not by itself.
const TRIES: usize = 5;
/// Bytes of a file that may change while the server runs: a seal, or a cosigned checkpoint.
const SMALL_MAX: u64 = 1 << 20;
/// A line of the shred list is written within this time after its transaction, but by a server that cannot write it.
const LISTED_WITHIN_MS: u64 = 60_000;
/// The folder of the seal among the objects.
const SEAL_FOLDER: &str = "seal";
/// Levels of hashes above which a tile covers more entries than can be counted.
const LEVEL_BITS: u32 = 8;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupFailed {
    /// The files refused.
    #[error(transparent)]
    Files(#[from] BackupError),
    /// There is no deployment in the database.
    #[error("the database `{0}` has no deployment yet; start its server once")]
    Unborn(PathBuf),
    /// The deployment's row cannot be read.
    #[error("the database's deployment cannot be read: {0}")]
    Deployment(String),
    /// The seal changed again and again.
    #[error("the seal of the deployment was changed while it was read, {TRIES} times; try again when nobody changes it")]
    SealMoves,
    /// The checkpoint is none of this deployment's.
    #[error("`--checkpoint` is no checkpoint that the log of this deployment signed: {0}; nothing was restored")]
    Checkpoint(String),
    /// A newer state is known.
    #[error(
        "the log had {known} entries and the backup has {entries}: it is older than what is known of this deployment, and going on from it would sign \
         a second history; restore a newer backup, nothing was restored"
    )]
    Older {
        /// What somebody knows.
        known: u64,
        /// Entries of the backup.
        entries: u64,
    },
    /// The objects cannot be read.
    #[error("the objects of the backup: {0}")]
    Objects(#[from] BlobError),
    /// The shred list refuses.
    #[error("{0}; nothing was restored")]
    Shreds(#[from] ListError),
    /// The shred list is older than the backup.
    #[error(
        "the shred list ends {until}, and the backup has {missing} things destroyed that are not in it: it is older than the backup, or of another copy \
         of this deployment; use the newest list, nothing was restored"
    )]
    ShredsOlder {
        /// The time of its last line.
        until: UnixTime,
        /// What the backup knows and the list does not.
        missing: usize,
    },
    /// What the list says could not be done.
    #[error("what the shred list says is gone could not be destroyed in what was restored: {0}; nothing was restored")]
    Replay(String),
}

/// A backup that was made or restored.
#[derive(Debug, Clone)]
pub struct Told {
    /// What it is.
    pub manifest: Manifest,
    /// By which it can be known again.
    pub digest: Sha256Digest,
}

/// A restored deployment.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The backup.
    pub told: Told,
    /// What the shred list did, where there was one.
    pub shreds: Option<ShredsDone>,
}

/// What a shred list did to a restored deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ShredsDone {
    /// What was back and is gone again.
    #[serde(flatten)]
    pub replayed: Replayed,
    /// Things that the list says are gone.
    pub listed: usize,
    /// The time of its last line: what was destroyed later is not in it.
    pub until: UnixTime,
}

/// What a restore is compared with, beside the backup itself.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The digest that the backup must have.
    pub digest: Option<Sha256Digest>,
    /// A checkpoint of the log: the backup must know at least as much.
    pub checkpoint: Option<Vec<u8>>,
    /// The deployment's shred list: what it says is gone is destroyed in what is restored.
    pub shreds: Option<PathBuf>,
}

/// Backs up the deployment of a server's folder into a new folder. `step` is told each file that is done.
pub async fn backup(data_dir: &Path, to: &Path, now: UnixTime, step: &mut (dyn FnMut(&str) + Send)) -> Result<Told, BackupFailed> {
    let database = data_dir.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::NoDatabase(database).into());
    }
    let writing = Writing::begin(&absolute(to)?)?;
    take(&data_dir.join(OBJECTS), &database, writing, now, step).await
}

async fn take(objects: &Path, database: &Path, mut writing: Writing, now: UnixTime, step: &mut (dyn FnMut(&str) + Send)) -> Result<Told, BackupFailed> {
    let done = async {
        let cosigned = small(&objects.join(LOG_FOLDER).join("cosigned"))?;
        let (seal, state, found) = sealed_state(objects, database, &writing).await?;
        writing.made(DATABASE)?;
        step(DATABASE);
        let mut fixed: Vec<(BlobPath, Vec<u8>)> = seal.into_iter().collect();
        if let (Some(bytes), Ok(name)) = (cosigned, format!("{LOG_FOLDER}/cosigned").parse()) {
            fixed.push((name, bytes));
        }
        for (name, bytes) in &fixed {
            writing.bytes(bytes, name)?;
            step(name.as_str());
        }
        for name in Writing::objects(objects)? {
            if belongs(&name, state.entries) && writing.object(objects, &name)? {
                step(name.as_str());
            }
        }
        Ok::<_, BackupFailed>((state, found))
    };
    let (state, found) = match done.await {
        Ok(done) => done,
        Err(error) => {
            writing.abandon();
            return Err(error);
        }
    };
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        swarm: env!("CARGO_PKG_VERSION").to_owned(),
        created: now,
        deployment: found.deployment.to_string(),
        profile: found.profile.as_str().to_owned(),
        schema: state.schema,
        entries: state.entries,
        published: state.published,
        files: 0,
        bytes: 0,
        list: Sha256Digest::from_bytes([0; 32]),
    };
    let (manifest, digest) = writing.end(manifest)?;
    Ok(Told { manifest, digest })
}

/// One state of the database, and the seal that it had: the seal is the one thing beside the log that changes under its name.
async fn sealed_state(objects: &Path, database: &Path, writing: &Writing) -> Result<(BTreeMap<BlobPath, Vec<u8>>, Snapshot, Facts), BackupFailed> {
    let place = writing.place(DATABASE);
    for _ in 0..TRIES {
        let before = seal(objects)?;
        let state = snapshot(database, &place).await?;
        if seal(objects)? == before {
            let row = state.deployment.as_deref().ok_or_else(|| BackupFailed::Unborn(database.to_owned()))?;
            let found = facts(row).map_err(|error| BackupFailed::Deployment(error.to_string()))?;
            return Ok((before, state, found));
        }
        std::fs::remove_file(&place).map_err(|source| BackupError::Io { path: place.clone(), source })?;
    }
    Err(BackupFailed::SealMoves)
}

fn seal(objects: &Path) -> Result<BTreeMap<BlobPath, Vec<u8>>, BackupFailed> {
    let mut found = BTreeMap::new();
    for name in Writing::objects(&objects.join(SEAL_FOLDER))? {
        let Ok(path) = format!("{SEAL_FOLDER}/{name}").parse() else { continue };
        if let Some(bytes) = small(&objects.join(SEAL_FOLDER).join(name.as_str()))? {
            found.insert(path, bytes);
        }
    }
    Ok(found)
}

/// The bytes of a small file, if it is there.
fn small(path: &Path) -> Result<Option<Vec<u8>>, BackupFailed> {
    use std::io::Read as _;
    let failed = |source| BackupError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error).into()),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SMALL_MAX {
        return Err(failed(std::io::Error::other(format!("larger than {SMALL_MAX} bytes"))).into());
    }
    Ok(Some(bytes))
}

/// Whether an object is copied from its file: not what was read before, and of the log only tiles within the database's entries.
fn belongs(name: &BlobPath, entries: u64) -> bool {
    match name.as_str().split_once('/') {
        Some((SEAL_FOLDER, _)) => false,
        Some((LOG_FOLDER, tile)) => tile.parse().is_ok_and(|tile| covers(&tile) <= u128::from(entries)),
        Some(_) | None => true,
    }
}

/// How many entries a tree has at least that has this tile.
fn covers(tile: &TilePath) -> u128 {
    let each = match tile.kind() {
        TileKind::Entries => 0,
        TileKind::Hashes(level) => LEVEL_BITS.saturating_mul(u32::from(level)),
    };
    let items = u128::from(tile.index()).saturating_mul(256).saturating_add(u128::from(tile.width()));
    items.saturating_mul(1_u128.checked_shl(each).unwrap_or(u128::MAX))
}

/// Restores a backup into a new folder, which a server then takes as its `--data-dir`. Everything is compared before the first
/// byte is written, and again as it is. With a shred list, what it says is gone is destroyed before the folder has its name.
pub async fn restore(from: &Path, into: &Path, known: &Known, now: UnixTime) -> Result<Restored, BackupFailed> {
    let backup = Backup::open(from)?;
    let (manifest, digest) = (backup.manifest().clone(), *backup.digest());
    if let Some(expected) = known.digest.filter(|expected| *expected != digest) {
        return Err(BackupError::Digest { expected, found: digest }.into());
    }
    backup.verify()?;
    let restoring = backup.restore(&absolute(into)?)?;
    let state = look(&restoring.folder().join(DATABASE)).await?;
    let row = state.deployment.as_deref().ok_or_else(|| BackupFailed::Unborn(from.join(DATABASE)))?;
    let found = facts(row).map_err(|error| BackupFailed::Deployment(error.to_string()))?;
    // Who doctors a manifest can give it any digest: what it says is compared with the database all the same.
    let same = manifest.schema == state.schema
        && manifest.entries == state.entries
        && manifest.published == state.published
        && manifest.deployment == found.deployment.to_string()
        && manifest.profile == found.profile.as_str();
    if !same {
        return Err(BackupError::damaged("manifest.json", "does not say what the database says").into());
    }
    let blobs = Blobs::local(&restoring.folder().join(OBJECTS))?;
    if let Some(ahead) = crate::published::beyond(&blobs, state.entries).await? {
        return Err(BackupFailed::Older { known: ahead, entries: state.entries });
    }
    if let Some(note) = &known.checkpoint {
        let size = signed_size(note, &found).map_err(BackupFailed::Checkpoint)?;
        if size > state.entries {
            return Err(BackupFailed::Older { known: size, entries: state.entries });
        }
    }
    let shreds = match &known.shreds {
        Some(list) => Some(shred_again(restoring.folder(), list, &found, manifest.created, now).await?),
        None => None,
    };
    restoring.end()?;
    Ok(Restored { told: Told { manifest, digest }, shreds })
}

/// Destroys in a restored folder what a shred list says is gone, and puts the list into it, where its server goes on with it.
async fn shred_again(folder: &Path, list: &Path, found: &Facts, created: UnixTime, now: UnixTime) -> Result<ShredsDone, BackupFailed> {
    let file = receipt::Deployment::open(found.file.as_bytes(), None).map_err(|error| BackupFailed::Deployment(error.to_string()))?;
    let checked = shred::checked(list, &file)?;
    let failed = |failure: Failure| BackupFailed::Replay(failure.problem.detail);
    let store = Store::open(StoreConfig::new(folder.join(DATABASE))).await.map_err(BackupError::from)?;
    let replayed = async {
        // A line follows its transaction at once: a backup that was taken in between may be ahead by that moment.
        let settled = |since: &UnixTime| created.since(*since).is_some_and(|age| age > LISTED_WITHIN_MS);
        let gone = shred::gone(&store).await.map_err(failed)?;
        let missing = gone.iter().filter(|(shred, since)| settled(since) && !checked.shreds.contains(shred)).count();
        if missing > 0 {
            return Err(BackupFailed::ShredsOlder { until: checked.until, missing });
        }
        let producer = format!("control/{}", fresh(ControlId::new, now));
        let sequence = AtomicU64::new(0);
        let entry = |tenant, event| {
            let entry = Entry {
                id: fresh(EntryId::new, now),
                time: now,
                tenant,
                producer: Producer { name: producer.clone(), sequence: sequence.fetch_add(1, Ordering::Relaxed) },
                actor: Actor::System,
                source: Source::Internal,
                outcome: Outcome::Success,
                action: None,
                event,
                personal: Vec::new(),
            };
            let mut random = SystemRandom;
            entry.encode(&mut |bytes| random.fill(bytes)).map_err(Failure::internal)
        };
        shred::replay(&store, checked.shreds.iter(), &entry, now).await.map_err(failed)
    };
    let replayed = replayed.await;
    store.close().await;
    let to = folder.join(shred::list::FILE);
    let copied = replayed?;
    let copy = || {
        std::fs::copy(list, &to)?;
        std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::fs::File::open(&to)?.sync_all()?;
        std::fs::File::open(folder)?.sync_all()
    };
    copy().map_err(|source| BackupError::Io { path: to.clone(), source })?;
    Ok(ShredsDone { replayed: copied, listed: checked.shreds.len(), until: checked.until })
}

/// The size that a checkpoint of the deployment's log names.
fn signed_size(note: &[u8], found: &Facts) -> Result<u64, String> {
    let file = receipt::Deployment::open(found.file.as_bytes(), None).map_err(|error| error.to_string())?;
    let note = Note::parse(note).map_err(|error| error.to_string())?;
    let mut why = "the deployment has no log key".to_owned();
    for key in &file.log_keys {
        match Checkpoint::verify(&note, key, &[]) {
            Ok((checkpoint, _)) => return Ok(checkpoint.size),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// The path from the root on: the database's engine takes names that begin otherwise for more than names.
fn absolute(path: &Path) -> Result<PathBuf, BackupFailed> {
    Ok(std::path::absolute(path).map_err(|source| BackupError::Io { path: path.to_owned(), source })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tile_that_knows_more_than_the_database_belongs_to_it() {
        let name = |tile: TilePath| crate::publisher::blob_path(&tile);
        for (tile, needs) in [
            (TilePath::hashes(0, 0, 7), 7_u64),
            (TilePath::hashes(0, 3, 256), 1024),
            (TilePath::entries(2, 1), 513),
            (TilePath::hashes(1, 0, 2), 512),
            (TilePath::hashes(2, 1, 1), 257 << 16),
        ] {
            let tile = name(tile.unwrap());
            assert!(belongs(&tile, needs), "{tile}");
            assert!(!belongs(&tile, needs - 1), "{tile}");
        }
        assert!(!belongs(&"log/cosigned".parse().unwrap(), u64::MAX), "it is read before the database");
        assert!(!belongs(&"seal/passphrase.json".parse().unwrap(), u64::MAX));
        assert!(belongs(&"images/a/b".parse().unwrap(), 0));
    }
}
