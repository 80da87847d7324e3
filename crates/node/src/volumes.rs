//! Volumes of an attempt: inputs opened into scratch, outputs sealed from it, each under a key lease of its own.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use audit::node_log::NodeEvent;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keys::SystemRandom;
use receipt::VolumeUse;
use serde::{Deserialize, Serialize};
use vocabulary::api::{VolumeCommit, VolumeCommitted};
use vocabulary::job::{AttemptId, JobOutput};
use vocabulary::fault::{self, Point};
use vocabulary::lease::{Lease, LeaseHolder, LeaseMode};
use vocabulary::limits::OBJECT_MAX;
use vocabulary::plan::PlannedJob;
use vocabulary::volume::RootHead;
use vocabulary::{ErrorCode, LeaseId, Name, Sha256Digest, VolumeId, channel as paths};
use volume::folder::{self, FolderError, Placing};
use volume::io::{IoError, ObjectPort, PortError, Reader, Writer};
use volume::lease::{Asking, Expected, Held, LeaseRefusal};

use crate::agent::Shared;
use crate::attempt::Progress;
use crate::channel::{Channel, ChannelError, patiently};
use crate::limits::{RECORD_BYTES_MAX, SEAL_TRIES};
use crate::{clock, files, journal};

/// Why a volume was not opened or sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The control plane refuses.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The lease is not what was asked for.
    #[error(transparent)]
    Lease(#[from] LeaseRefusal),
    /// Files or objects.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The files are more than scratch holds.
    #[error("its files have {found} bytes, the job's scratch has {limit}: ask for more with scratch_bytes")]
    Scratch {
        /// Bytes of the files.
        found: u64,
        /// Bytes of scratch.
        limit: u64,
    },
    /// The commit was answered with another head.
    #[error("the control plane answered the commit with another head than was signed")]
    OtherHead,
    /// It never came to a commit.
    #[error("somebody else wrote at the same time, {SEAL_TRIES} times in a row")]
    Contended,
    /// The disk.
    #[error("{0}")]
    File(#[from] std::io::Error),
}

impl From<IoError> for VolumeError {
    fn from(error: IoError) -> Self {
        Self::Folder(error.into())
    }
}

/// Objects over the node channel, under one lease. It waits for an absent control plane; whoever gives up drops the future.
struct Port<'a> {
    channel: &'a Channel,
    attempt: AttemptId,
    volume: VolumeId,
    lease: LeaseId,
    /// The root record that the reader saw.
    chain: Mutex<Option<Bytes>>,
    /// The catalogue, held back until it is on the disk beside its signed root.
    catalogue: Mutex<Option<(String, Bytes)>>,
}

impl<'a> Port<'a> {
    fn new(channel: &'a Channel, attempt: AttemptId, volume: VolumeId, lease: LeaseId) -> Self {
        Self { channel, attempt, volume, lease, chain: Mutex::default(), catalogue: Mutex::default() }
    }

    fn url(&self, path: &str) -> String {
        paths::volume(paths::OBJECT, self.attempt, self.volume, path)
    }

    fn chain_record(&self) -> Option<String> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|bytes| STANDARD.encode(bytes))
    }
}

impl ObjectPort for Port<'_> {
    async fn put(&self, path: String, bytes: Bytes) -> Result<(), PortError> {
        if path.starts_with("cat/") {
            *self.catalogue.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, bytes));
            return Ok(());
        }
        let url = self.url(&path);
        patiently(|| self.channel.put_object(&url, self.lease, bytes.clone())).await.map_err(|error| PortError(error.to_string()))
    }

    async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
        let url = self.url(&path);
        let found = patiently(|| self.channel.get_object(&url, self.lease, OBJECT_MAX)).await.map_err(|error| PortError(error.to_string()))?;
        if path.starts_with("chain/") {
            (*self.chain.lock().unwrap_or_else(PoisonError::into_inner)).clone_from(&found);
        }
        Ok(found)
    }
}

/// Asks for a volume's keys with fresh keys of our own, and checks that the answer is for this attempt.
async fn lease(shared: &Shared, planned: &PlannedJob, volume: VolumeId, mode: LeaseMode) -> Result<Held, VolumeError> {
    let asking = Asking::new(mode, &mut SystemRandom)?;
    let request = asking.request(None);
    let url = paths::volume(paths::LEASE, planned.attempt, volume, "");
    let answered = patiently(|| shared.channel.post::<_, Lease>(&url, &request)).await;
    // Before anything is opened with them, the node's own log says that they came.
    let attempt = planned.attempt;
    let event = match &answered {
        Ok(answer) => Some(NodeEvent::KeyReceived { attempt, volume, lease: answer.id }),
        Err(error) => error.code().map(|code| NodeEvent::KeyRefused { attempt, volume, code: code.to_string() }),
    };
    if let Some(event) = event {
        journal::write(&shared.journal, event).await?;
    }
    let answer = answered?;
    let expected = Expected { volume, tenant: Some(planned.tenant), holder: Some(LeaseHolder::Attempt(planned.attempt)) };
    Ok(asking.open(answer, &expected)?)
}

/// Opens a volume into a fresh directory.
pub(crate) async fn open(
    shared: &Shared,
    planned: &PlannedJob,
    (volume, name): (VolumeId, &Name),
    target: &Path,
    mode: u32,
    progress: &Progress,
) -> Result<VolumeUse, VolumeError> {
    let held = lease(shared, planned, volume, LeaseMode::Read).await?;
    let port = Port::new(&shared.channel, planned.attempt, volume, held.lease.id);
    let reader = Reader::open(&port, &held.keys, &held.lease.head, &held.signers).await?;
    let files: Vec<_> = reader.files().iter().collect();
    let found = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.length));
    let limit = planned.spec.limits.scratch_bytes;
    if found > limit {
        return Err(VolumeError::Scratch { found, limit });
    }
    progress.begin(found);
    // Scratch dies with the job: nothing of it has to survive a crash of the machine.
    let placing = Placing { overwrite: false, durable: false, mode };
    folder::get(&reader, &files, target, placing, &|_, bytes| progress.add(bytes)).await?;
    Ok(VolumeUse { head: held.lease.head, lease: held.lease.id, name: name.clone(), record: port.chain_record(), volume })
}

/// A sealed output before its commit is known: enough to repeat the commit after a crash, and no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    format: u32,
    lease: LeaseId,
    head: RootHead,
    record: String,
    catalogue_path: String,
    /// The sealed catalogue, base64.
    catalogue: String,
    committed: bool,
}

/// Seals one output and commits its root. What was begun before a crash is finished, not repeated, where that is possible.
pub(crate) async fn seal(shared: &Shared, planned: &PlannedJob, output: &JobOutput, source: &Path, dir: &Path, progress: &Progress) -> Result<VolumeUse, VolumeError> {
    let draft_path = dir.join(format!("seal-{}.json", output.volume));
    let used = |draft: &Draft| VolumeUse {
        head: draft.head.clone(),
        lease: draft.lease,
        name: output.name.clone(),
        record: Some(draft.record.clone()),
        volume: output.volume,
    };
    let mut draft = read_draft(&draft_path)?;
    for _ in 0..SEAL_TRIES {
        if let Some(begun) = draft.as_mut() {
            if begun.committed {
                return Ok(used(begun));
            }
            match commit(&shared.channel, planned.attempt, output.volume, begun).await {
                Ok(()) => {
                    fault::reached(Point::OutputCommitted);
                    begun.committed = true;
                    files::write_json(&draft_path, begun)?;
                    return Ok(used(begun));
                }
                Err(VolumeError::Channel(error)) if gives_way(&error) => tracing::info!(attempt = %planned.attempt, volume = %output.volume, %error, "sealing again"),
                Err(error) => return Err(error),
            }
        }
        let held = lease(shared, planned, output.volume, LeaseMode::Write).await?;
        // The answer to the commit was lost, but not the commit.
        if let Some(begun) = draft.as_mut().filter(|begun| begun.head == held.lease.head) {
            begun.committed = true;
            files::write_json(&draft_path, begun)?;
            return Ok(used(begun));
        }
        let fresh = seal_fresh(shared, planned, output, source, held, progress).await?;
        files::write_json(&draft_path, &fresh)?;
        fault::reached(Point::OutputSealed);
        draft = Some(fresh);
    }
    Err(VolumeError::Contended)
}

/// Refusals after which the same output can be sealed anew on the newest head, under a new lease.
fn gives_way(error: &ChannelError) -> bool {
    matches!(error.code(), Some(ErrorCode::RootConflict | ErrorCode::ReleaseRefused | ErrorCode::Conflict))
}

fn read_draft(path: &Path) -> Result<Option<Draft>, VolumeError> {
    let bytes = files::read_if_there(path, RECORD_BYTES_MAX.saturating_mul(8))?;
    // A draft that cannot be read is no draft: the output is sealed anew.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

async fn seal_fresh(shared: &Shared, planned: &PlannedJob, output: &JobOutput, source: &Path, held: Held, progress: &Progress) -> Result<Draft, VolumeError> {
    let Held { lease, keys, signers, writer } = held;
    let (epoch, signer) = writer.ok_or(LeaseRefusal::NoWriter)?;
    let port = Port::new(&shared.channel, planned.attempt, output.volume, lease.id);
    let folder: PathBuf = source.to_owned();
    let limit = planned.spec.limits.scratch_bytes;
    let sources = tokio::task::spawn_blocking(move || folder::scan(&folder, limit)).await.map_err(std::io::Error::other)??;
    progress.begin(sources.iter().fold(0, |sum, source| sum.saturating_add(source.length)));
    let reader = Reader::open(&port, &keys, &lease.head, &signers).await?;
    let mut writing = Writer::new(reader, epoch, signer);
    folder::put(&mut writing, &sources, &mut SystemRandom, &|_, bytes| progress.add(bytes)).await?;
    let record = writing.finish(clock::wall(), &mut SystemRandom).await?;
    let held_back = port.catalogue.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (catalogue_path, catalogue) = held_back.ok_or_else(|| std::io::Error::other("no catalogue was sealed"))?;
    let body = record.body();
    let head = RootHead { lineage: body.lineage, seq: body.seq, writer_epoch: body.writer_epoch, root: Sha256Digest::from_bytes(record.root()) };
    Ok(Draft {
        format: 1,
        lease: lease.id,
        head,
        record: STANDARD.encode(record.to_bytes()),
        catalogue_path,
        catalogue: STANDARD.encode(catalogue),
        committed: false,
    })
}

/// Stores the catalogue and has the root compared and set.
async fn commit(channel: &Channel, attempt: AttemptId, volume: VolumeId, draft: &Draft) -> Result<(), VolumeError> {
    let bytes: Bytes = STANDARD.decode(&draft.catalogue).map_err(std::io::Error::other)?.into();
    let url = paths::volume(paths::OBJECT, attempt, volume, &draft.catalogue_path);
    patiently(|| channel.put_object(&url, draft.lease, bytes.clone())).await?;
    let body = VolumeCommit { lease: draft.lease, record: draft.record.clone() };
    let url = paths::volume(paths::COMMIT, attempt, volume, "");
    let answer: VolumeCommitted = patiently(|| channel.post(&url, &body)).await?;
    if answer.head == draft.head { Ok(()) } else { Err(VolumeError::OtherHead) }
}
