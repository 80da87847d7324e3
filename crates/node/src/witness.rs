//! A witness's key and memory on the disk: one folder, taken by one process.
//!
//! `witness.key` is its key, `logs/HASH` the checkpoint of a log that it signed last, with its own signature, and the
//! *record of sizes* a file of its own, which belongs on another disk or at least out of the backups: a memory that is
//! older than that record was restored from a copy, and a witness that went on from there could sign a second history.
//!
//! **Invariant:** memory, then record of sizes, then the answer, each durable before the next: after `kill -9` the memory
//! may be ahead of the record by one step, and is never behind it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use audit::hash::sha256;
use audit::key::{Ed25519Signer, KeyKind, VerifierKey, is_name, verifier_of};
use audit::limits::{LOGS_MAX, NOTE_MAX};
use audit::witness::{Answer, Answered, KnownLogs, Seen, StateError, WitnessState, add_checkpoint, monitored, origin_hash};
use audit::{Checkpoint, Hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::Random;
use zeroize::Zeroizing;

use crate::files;
use crate::limits::{EVIDENCE_MAX, FILE_BYTES_MAX};

/// The first line of the record of sizes.
const SIZES: &str = "swarm/witness-sizes/v1";
/// How a key file begins; what follows is as in a verifier key, with the seed in the place of the public key.
const PRIVATE: &str = "PRIVATE+KEY+";

/// Why there is no witness.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// A file cannot be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("another witness works in `{0}`")]
    Locked(String),
    /// The name is no key name.
    #[error("the name of a witness has no spaces, control characters or `+`, and at most 255 bytes; by custom it is an address without `https://`")]
    Name,
    /// There is no witness yet, and no name was given for a new one.
    #[error("`{0}` holds no witness: give a new one its name")]
    Absent(String),
    /// The witness there has another name.
    #[error("the witness there is called `{0}`, and a witness keeps its name")]
    OtherName(String),
    /// The key file is malformed.
    #[error("`{0}` does not hold a witness's key")]
    Key(String),
    /// A file of the memory or the record of sizes was changed.
    #[error("`{path}`: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The memory is older than the record of sizes.
    #[error(
        "the memory of this witness is older than what it signed ({0}): it was restored from a copy, and signing on from there could make \
         a second history; bring the newer memory back, or make a new witness with a new key and have the policies name that one"
    )]
    Restored(String),
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> WitnessError {
    let path = path.display().to_string();
    move |source| WitnessError::File { path, source }
}

/// Where a witness lives.
#[derive(Debug, Clone)]
pub struct WitnessPlace {
    /// Its folder.
    pub dir: PathBuf,
    /// The record of sizes.
    pub sizes: PathBuf,
}

/// A witness with its key and memory.
#[derive(Debug)]
pub struct Witness {
    signer: Ed25519Signer,
    memory: Memory,
    _lock: File,
}

#[derive(Debug)]
struct Memory {
    place: WitnessPlace,
    own: VerifierKey,
    /// What was signed last, by the hash of the log's origin.
    seen: BTreeMap<String, Seen>,
}

impl Witness {
    /// Opens the witness of a place; with a name, makes it when there is none.
    ///
    /// # Errors
    /// When another process has it, a file was changed, or the memory is older than the record of sizes.
    pub fn open(place: WitnessPlace, name: Option<&str>, random: &mut dyn Random) -> Result<Self, WitnessError> {
        files::directory(&place.dir.join("logs")).map_err(at(&place.dir))?;
        let lock = lock(&place.dir)?;
        let key_path = place.dir.join("witness.key");
        let signer = match files::read_if_there(&key_path, 4096).map_err(at(&key_path))?.map(Zeroizing::new) {
            Some(bytes) => read_key(&bytes).ok_or_else(|| WitnessError::Key(key_path.display().to_string()))?,
            None => create(&place, &key_path, name, random)?,
        };
        let own = verifier_of(&signer, KeyKind::CosignatureV1).map_err(|_| WitnessError::Key(key_path.display().to_string()))?;
        if name.is_some_and(|name| name != own.name()) {
            return Err(WitnessError::OtherName(own.name().to_owned()));
        }
        let mut memory = Memory { seen: BTreeMap::new(), place, own };
        memory.load()?;
        Ok(Self { signer, memory, _lock: lock })
    }

    /// The key that verifies its signatures.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        &self.memory.own
    }

    /// What it signed last of a log.
    #[must_use]
    pub fn last(&self, origin: &str) -> Option<&Seen> {
        self.memory.seen.get(&origin_hash(origin))
    }

    /// Answers a request to sign; `now` is in seconds since 1970. Requests that contradict what was signed before are
    /// kept below `evidence/`: well signed as they are, they may prove that a log lies.
    pub fn add_checkpoint(&mut self, request: &[u8], logs: &KnownLogs, now: u64) -> Answered {
        let answered = add_checkpoint(request, logs, &mut self.memory, &self.signer, now);
        if let Some(refusal) = answered.refusal.filter(|refusal| refusal.is_evidence()) {
            tracing::warn!(%refusal, "a log contradicts what was signed of it");
            if let Err(error) = self.memory.keep(request) {
                tracing::error!(%error, "the request was not kept as evidence");
            }
        }
        if let Some(trouble) = &answered.trouble {
            tracing::error!(%trouble, "nothing was signed");
        }
        answered
    }

    /// Answers a monitor.
    #[must_use]
    pub fn monitored(&self, origin_hash: &str, logs: &KnownLogs) -> Answer {
        monitored(origin_hash, logs, &self.memory)
    }
}

fn lock(dir: &Path) -> Result<File, WitnessError> {
    let path = dir.join("witness.lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(WitnessError::Locked(dir.display().to_string())),
        Err(error) => Err(at(&path)(error.into())),
    }
}

/// Makes key and record of sizes. The record comes first, so that a key without one was robbed of it.
fn create(place: &WitnessPlace, key_path: &Path, name: Option<&str>, random: &mut dyn Random) -> Result<Ed25519Signer, WitnessError> {
    let name = name.ok_or_else(|| WitnessError::Absent(place.dir.display().to_string()))?;
    if !is_name(name) {
        return Err(WitnessError::Name);
    }
    match read_sizes(&place.sizes)? {
        None => write_sizes(&place.sizes, &BTreeMap::new())?,
        Some(sizes) if sizes.is_empty() => {}
        Some(_) => return Err(WitnessError::Damaged { path: place.sizes.display().to_string(), why: "it belongs to another witness, whose key is not here".to_owned() }),
    }
    let seed = Zeroizing::new(random.array::<32>());
    let signer = Ed25519Signer::from_seed(name, &seed).map_err(|_| WitnessError::Name)?;
    let key = verifier_of(&signer, KeyKind::CosignatureV1).map_err(|_| WitnessError::Name)?;
    let mut secret = Zeroizing::new(vec![KeyKind::CosignatureV1.byte()]);
    secret.extend_from_slice(seed.as_slice());
    let encoded = Zeroizing::new(STANDARD.encode(secret.as_slice()));
    let text = Zeroizing::new(format!("{PRIVATE}{name}+{}+{}\n", hex::encode(key.id()), encoded.as_str()));
    files::write_durably(key_path, text.as_bytes()).map_err(at(key_path))?;
    Ok(signer)
}

fn read_key(bytes: &[u8]) -> Option<Ed25519Signer> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.strip_prefix(PRIVATE)?;
    let mut parts = text.splitn(3, '+');
    let (name, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let secret = Zeroizing::new(STANDARD.decode(secret).ok()?);
    let (kind, seed) = secret.split_first()?;
    let signer = Ed25519Signer::from_seed(name, seed.try_into().ok()?).ok()?;
    let key = verifier_of(&signer, KeyKind::CosignatureV1).ok()?;
    (*kind == KeyKind::CosignatureV1.byte() && hex::encode(key.id()) == id).then_some(signer)
}

/// Size and root last signed, by the hash of the log's origin.
type Sizes = BTreeMap<String, (u64, Hash)>;

fn read_sizes(path: &Path) -> Result<Option<Sizes>, WitnessError> {
    let Some(bytes) = files::read_if_there(path, FILE_BYTES_MAX).map_err(at(path))? else { return Ok(None) };
    let damaged = || WitnessError::Damaged { path: path.display().to_string(), why: "it is no record of sizes".to_owned() };
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let mut lines = text.strip_suffix('\n').ok_or_else(damaged)?.split('\n');
    if lines.next() != Some(SIZES) {
        return Err(damaged());
    }
    let mut sizes = Sizes::new();
    for line in lines {
        let mut parts = line.split(' ');
        let (Some(hash), Some(size), Some(root), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(damaged());
        };
        let size = size.parse().map_err(|_| damaged())?;
        let root = Hash::from_base64(root).ok_or_else(damaged)?;
        if sizes.len() >= LOGS_MAX * 4 || sizes.insert(hash.to_owned(), (size, root)).is_some() {
            return Err(damaged());
        }
    }
    Ok(Some(sizes))
}

fn write_sizes(path: &Path, seen: &BTreeMap<String, Seen>) -> Result<(), WitnessError> {
    let mut text = format!("{SIZES}\n");
    for (hash, seen) in seen {
        let Checkpoint { size, root, .. } = &seen.checkpoint;
        text.push_str(&format!("{hash} {size} {root}\n"));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files::directory(parent).map_err(at(parent))?;
    }
    files::write_durably(path, text.as_bytes()).map_err(at(path))
}

impl Memory {
    fn path(&self, hash: &str) -> PathBuf {
        self.place.dir.join("logs").join(hash)
    }

    /// Reads one log's file: our own signature stands in it, and its name fits.
    fn read(&self, hash: &str) -> Result<Option<Seen>, WitnessError> {
        let path = self.path(hash);
        let limit = u64::try_from(NOTE_MAX).unwrap_or(u64::MAX);
        let Some(bytes) = files::read_if_there(&path, limit).map_err(at(&path))? else { return Ok(None) };
        let damaged = |why: String| WitnessError::Damaged { path: path.display().to_string(), why };
        let seen = Seen::parse(&bytes, &self.own).map_err(|error| damaged(error.to_string()))?;
        if origin_hash(&seen.checkpoint.origin) == hash { Ok(Some(seen)) } else { Err(damaged("it is of another log".to_owned())) }
    }

    /// Reads everything and compares it with the record of sizes.
    fn load(&mut self) -> Result<(), WitnessError> {
        let sizes = &self.place.sizes;
        let Some(recorded) = read_sizes(sizes)? else {
            return Err(WitnessError::Restored(format!("its record of sizes, {}, is missing", sizes.display())));
        };
        let folder = self.place.dir.join("logs");
        for entry in std::fs::read_dir(&folder).map_err(at(&folder))? {
            let name = entry.map_err(at(&folder))?.file_name();
            // A file that was not renamed yet when the process was killed is nothing.
            let Some(hash) = name.to_str().filter(|name| !name.ends_with(".new")) else { continue };
            if let Some(seen) = self.read(hash)? {
                self.seen.insert(hash.to_owned(), seen);
            }
        }
        for (hash, (size, root)) in &recorded {
            let kept = self.seen.get(hash).map(|seen| (seen.checkpoint.size, seen.checkpoint.root));
            match kept {
                Some((kept, _)) if kept > *size => {}
                Some(kept) if kept == (*size, *root) => {}
                Some((kept, _)) => return Err(WitnessError::Restored(format!("log {hash}: {kept} entries, and {size} were signed"))),
                None => return Err(WitnessError::Restored(format!("log {hash}: nothing, and {size} entries were signed"))),
            }
        }
        // The step that was cut off between memory and record is done again.
        write_sizes(&self.place.sizes, &self.seen)
    }

    /// Keeps a request that contradicts what was signed: a bounded number of them, each once.
    fn keep(&self, request: &[u8]) -> Result<(), WitnessError> {
        let folder = self.place.dir.join("evidence");
        files::directory(&folder).map_err(at(&folder))?;
        let path = folder.join(hex::encode(sha256(&[request])));
        let kept = std::fs::read_dir(&folder).map_err(at(&folder))?.count();
        if path.exists() || kept >= EVIDENCE_MAX {
            return Ok(());
        }
        files::write_durably(&path, request).map_err(at(&path))
    }
}

impl WitnessState for Memory {
    fn last(&self, origin: &str) -> Result<Option<Seen>, StateError> {
        Ok(self.seen.get(&origin_hash(origin)).cloned())
    }

    fn advance(&mut self, before: Option<&Seen>, next: &Seen) -> Result<(), StateError> {
        let hash = origin_hash(&next.checkpoint.origin);
        if self.seen.get(&hash) != before {
            return Err(StateError::Raced);
        }
        let path = self.path(&hash);
        if let Err(error) = files::write_durably(&path, &next.note) {
            // Whether the new file is in its place is read again: memory must not be behind the disk.
            if let Ok(Some(seen)) = self.read(&hash) {
                self.seen.insert(hash, seen);
            }
            return Err(StateError::Failed(format!("the memory was not written: {error}")));
        }
        self.seen.insert(hash, next.clone());
        write_sizes(&self.place.sizes, &self.seen).map_err(|error| StateError::Failed(format!("the record of sizes was not written: {error}")))
    }
}

#[cfg(test)]
mod tests;
