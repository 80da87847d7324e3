//! The log that the node keeps of what it did: each entry is on the disk before what it speaks of is done.
//!
//! New entries are lines of `pending`; now and then they become tiles under a checkpoint that the record key signs
//! (`audit::node_log`), and the control plane keeps the checkpoint in its own log. A crash between any two steps loses no
//! entry and counts none twice: each line carries its number.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::node_log::{self, NODE_ENTRY_FORMAT, NodeEntry, NodeEvent};
use audit::note::Note;
use audit::{Checkpoint, Hash, LogSigner, TilePath, TileReader, VerifierKey};
use tokio_util::sync::CancellationToken;
use vocabulary::UnixTime;
use vocabulary::channel::{NODE_LOG, NodeLogKept, NodeLogOffer};

use crate::agent::Shared;
use crate::channel::{Backoff, ChannelError};
use crate::limits::{ANCHOR_EVERY, JOURNAL_PENDING_MAX, REVOKED_PAUSE};
use crate::store::Node;
use crate::{clock, files};

/// Why the node's log cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The disk.
    #[error("the node's log: {0}")]
    Disk(#[from] io::Error),
    /// What lies there is not what was written.
    #[error("the node's log was changed: {0}. Move the folder `log` of the node's directory away and join again as another node")]
    Changed(String),
}

fn changed(error: &dyn std::fmt::Display) -> JournalError {
    JournalError::Changed(error.to_string())
}

/// The tiles in the node's directory.
pub(crate) struct Folder<'a>(pub(crate) &'a Path);

impl TileReader for Folder<'_> {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        // A partial tile that has been overtaken lies there all the same: nothing is removed.
        files::read(&self.0.join(path.to_string()), u64::try_from(audit::limits::BUNDLE_BYTES).unwrap_or(u64::MAX)).ok()
    }
}

/// The record key, as a log signs.
struct Signer<'a> {
    node: &'a Node,
    key: &'a VerifierKey,
}

impl LogSigner for Signer<'_> {
    fn name(&self) -> &str {
        self.key.name()
    }
    fn public(&self) -> [u8; 32] {
        *self.key.public()
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.node.record_key.sign(b"", message)
    }
}

/// The log. One at a time writes.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    key: VerifierKey,
    /// What is signed.
    size: u64,
    root: Hash,
    note: Option<Note>,
    /// The entries that are not in tiles yet, and their file.
    pending: Vec<Vec<u8>>,
    file: File,
    bytes: u64,
}

impl Journal {
    /// Opens it, or makes it at the node's first start.
    pub(crate) fn open(node_dir: &Path, node: &Node) -> Result<Self, JournalError> {
        let dir = node_dir.join("log");
        files::directory(&dir)?;
        let public = node.record_key.public().map_err(|_| changed(&"the record key is not usable"))?;
        let key = node_log::key(node.file.deployment, node.file.node, *public.as_bytes()).map_err(|error| changed(&error))?;
        let limit = u64::try_from(audit::limits::NOTE_MAX).unwrap_or(u64::MAX);
        let (mut size, mut root, mut note) = (0, audit::hash::empty_root(), None);
        if let Some(bytes) = files::read_if_there(&dir.join("checkpoint"), limit)? {
            let read = Note::parse(&bytes).map_err(|error| changed(&error))?;
            let (checkpoint, _) = Checkpoint::verify(&read, &key, &[]).map_err(|error| changed(&error))?;
            (size, root, note) = (checkpoint.size, checkpoint.root, Some(read));
        }
        // The edge must be as it was signed: nothing is signed over a change.
        audit::append(&Folder(&dir), size, &root, &[]).map_err(|error| changed(&error))?;
        let text = files::read_if_there(&dir.join("pending"), JOURNAL_PENDING_MAX)?.unwrap_or_default();
        let pending = waiting(&text, size)?;
        // What was half written was never relied on; what is in tiles already goes.
        let file = rewrite(&dir, &pending)?;
        let bytes = length(&pending);
        Ok(Self(Mutex::new(Inner { dir, key, size, root, note, pending, file, bytes })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry; it is on the disk when this returns. Blocks.
    pub(crate) fn record(&self, event: NodeEvent, now: UnixTime) -> Result<(), JournalError> {
        let mut inner = self.inner();
        let number = inner.size.saturating_add(u64::try_from(inner.pending.len()).unwrap_or(u64::MAX));
        let entry = NodeEntry { format: NODE_ENTRY_FORMAT, sequence: number.to_string(), time: now, event };
        let leaf = entry.encode().map_err(io::Error::other)?;
        let mut line = leaf.clone();
        line.push(b'\n');
        let after = inner.bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        if after > JOURNAL_PENDING_MAX {
            return Err(io::Error::other("too many entries wait to be signed").into());
        }
        let before = inner.bytes;
        if let Err(error) = inner.file.write_all(&line).and_then(|()| inner.file.sync_data()) {
            // Half a line must not stand before the next one.
            inner.file.set_len(before)?;
            return Err(error.into());
        }
        inner.bytes = after;
        inner.pending.push(leaf);
        Ok(())
    }

    /// Makes tiles of what waits and signs them. Blocks.
    pub(crate) fn sign(&self, node: &Node) -> Result<u64, JournalError> {
        let mut inner = self.inner();
        if inner.note.is_some() && inner.pending.is_empty() {
            return Ok(inner.size);
        }
        let leaves: Vec<&[u8]> = inner.pending.iter().map(Vec::as_slice).collect();
        let made = audit::append(&Folder(&inner.dir), inner.size, &inner.root, &leaves).map_err(|error| changed(&error))?;
        for (path, bytes) in &made.files {
            let path = inner.dir.join(path.to_string());
            files::directory(path.parent().unwrap_or(&inner.dir))?;
            files::write_durably(&path, bytes)?;
        }
        let checkpoint = Checkpoint { origin: inner.key.name().to_owned(), size: made.size, root: made.root };
        let note = checkpoint.sign(&Signer { node, key: &inner.key }).map_err(|error| changed(&error))?;
        files::write_durably(&inner.dir.join("checkpoint"), &note.encode())?;
        (inner.size, inner.root, inner.note) = (made.size, made.root, Some(note));
        inner.pending.clear();
        inner.file = rewrite(&inner.dir, &[])?;
        inner.bytes = 0;
        Ok(made.size)
    }

    /// The newest checkpoint, with the proof that it extends the first `old` entries.
    pub(crate) fn offer(&self, old: u64) -> Result<Option<NodeLogOffer>, JournalError> {
        let inner = self.inner();
        let Some(note) = &inner.note else { return Ok(None) };
        // Where the control plane has more than we do, there is nothing to prove: it says what it thinks of that.
        let proof = if old > inner.size { Vec::new() } else { audit::prove::prove_consistency(&Folder(&inner.dir), old, inner.size).map_err(|error| changed(&error))? };
        let checkpoint = String::from_utf8(note.encode()).map_err(|error| changed(&error))?;
        Ok(Some(NodeLogOffer { checkpoint, old, proof: proof.iter().map(Hash::base64).collect() }))
    }
}

/// The lines that are not in the tiles of the first `size` entries.
fn waiting(text: &[u8], size: u64) -> Result<Vec<Vec<u8>>, JournalError> {
    let mut all = Vec::new();
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    // After the last end of a line stands nothing, or what was half written.
    lines.pop();
    let mut number = None;
    for line in lines {
        let entry = NodeEntry::parse(line).ok_or_else(|| changed(&"a line of `pending` is no entry"))?;
        let found: u64 = entry.sequence.parse().map_err(|_| changed(&"a number of `pending`"))?;
        if found > number.map_or(size, |number: u64| number.saturating_add(1)) || number.is_some_and(|number| found <= number) {
            return Err(changed(&format!("entry {found} of `pending` does not follow the one before")));
        }
        number = Some(found);
        if found >= size {
            all.push(line.to_vec());
        }
    }
    Ok(all)
}

fn length(pending: &[Vec<u8>]) -> u64 {
    pending.iter().map(|leaf| u64::try_from(leaf.len()).unwrap_or(u64::MAX).saturating_add(1)).sum()
}

/// Writes the file of what waits anew, and opens it to append.
fn rewrite(dir: &Path, pending: &[Vec<u8>]) -> io::Result<File> {
    let mut text = Vec::new();
    for leaf in pending {
        text.extend_from_slice(leaf);
        text.push(b'\n');
    }
    let path = dir.join("pending");
    files::write_durably(&path, &text)?;
    std::fs::OpenOptions::new().append(true).mode(0o600).open(path)
}

/// Signs the log and brings it to the control plane until `stop`.
pub(crate) async fn anchor(shared: Arc<Shared>, stop: CancellationToken) {
    let mut kept = 0;
    let mut backoff = Backoff::default();
    stop.run_until_cancelled(async {
        loop {
            let own = Arc::clone(&shared);
            let offer = tokio::task::spawn_blocking(move || own.journal.sign(&own.node).and_then(|size| Ok((size, own.journal.offer(kept)?)))).await;
            let (size, offer) = match offer {
                Ok(Ok((size, Some(offer)))) => (size, offer),
                Ok(Ok((_, None))) => return,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the node's log is not signed");
                    backoff.wait().await;
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "the node's log is not signed");
                    return;
                }
            };
            match shared.channel.post::<_, NodeLogKept>(NODE_LOG, &offer).await {
                Ok(answer) if answer.size == size => {
                    kept = size;
                    backoff = Backoff::default();
                    tokio::time::sleep(ANCHOR_EVERY).await;
                }
                // It had another size than we thought: the proof is made again from there.
                Ok(answer) => {
                    kept = answer.size;
                    backoff.wait().await;
                }
                Err(ChannelError::Refused { detail, .. }) => {
                    tracing::error!(detail, "the control plane does not take this node's log");
                    tokio::time::sleep(REVOKED_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's log is not anchored");
                    backoff.wait().await;
                }
            }
        }
    })
    .await;
}

/// Writes an entry from a task: it is on the disk when this returns.
pub(crate) async fn write(journal: &Arc<Journal>, event: NodeEvent) -> io::Result<()> {
    let journal = Arc::clone(journal);
    let written = tokio::task::spawn_blocking(move || journal.record(event, clock::wall())).await;
    written.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Writes an entry about a boot.
pub(crate) fn started(journal: &Journal, boot: &str) -> Result<(), JournalError> {
    journal.record(NodeEvent::AgentStarted { version: env!("CARGO_PKG_VERSION").to_owned(), boot: boot.to_owned() }, clock::wall())
}

#[cfg(test)]
mod tests;
