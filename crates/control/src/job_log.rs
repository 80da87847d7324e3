//! Logs of attempts: kept contiguous, sealed under a key of the job, and read as a stream.
//!
//! A batch of frames becomes one segment of kind 5 (`volume::segment`) among the blobs, under a random name, with the job's id
//! in the place of the volume's. Its row holds the segment's root, so what is read is what was acknowledged. The rows are named
//! by the last sequence of each batch: where a reader goes on is found without reading what lies before.
//!
//! An attempt's log has at most [`LOG_BYTES_MAX`]. What comes later is acknowledged, so that the job's node can let go of it, and
//! counted: readers see one empty last frame whose `lost` says how much is missing. Frames never enter our own tracing.

use audit::hash::sha256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{KeyRecord, Owner, Purpose, Random as _, SystemRandom};
use serde::{Deserialize, Serialize};
use store::{BlobPath, Expect, Kind, Mutation, Page, Put, Resource, Transaction};
use vocabulary::job::{AttemptId, LogFrame, LogStream};
use vocabulary::{JobId, KeyId, TenantId, UnixTime, VolumeId};
use volume::segment::{self, Chunk, Label, SegmentKeys};

use crate::api::problem::Failure;
use crate::limits::{LOG_BATCH_FRAMES_MAX, LOG_BYTES_MAX, LOG_FRAME_MAX, LOG_PART_COST};
use crate::operation::object::blob_failure;
use crate::row::FORMAT;
use crate::state::{Control, commit_failure};
use crate::vault::newest;

/// The kind of [`LogRow`]; `parent` is the job.
const LOG: Kind = Kind::new("job_log");
/// The kind of [`PartRow`]; `parent` is the log.
const PART: Kind = Kind::new("job_log_part");
/// Plain bytes of one chunk of a segment.
const CHUNK: usize = 1 << 16;

/// How far the log of an attempt is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogRow {
    format: u32,
    attempt: AttemptId,
    /// Where its parts lie: 32 random hexadecimal digits.
    prefix: String,
    /// The last sequence that is acknowledged.
    pub(crate) sequence: u64,
    /// Plain bytes that are kept, with a cost for each part.
    bytes: u64,
    /// Frames beyond the limit, and the time of the last of them.
    dropped: u64,
    dropped_time: UnixTime,
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartRow {
    format: u32,
    last: u64,
    object: String,
    /// The segment's root, hexadecimal.
    root: String,
}

/// The first eight bytes of the ids of an attempt's log and its parts.
fn base(attempt: AttemptId) -> [u8; 8] {
    let hash = sha256(&[b"swarm/job-log/v1", attempt.job.as_bytes(), &attempt.attempt.to_be_bytes()]);
    let mut half = [0; 8];
    half.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    half
}

/// The id of the part that ends with this sequence; 0 is the log itself.
fn id(attempt: AttemptId, last: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id.iter_mut().zip(base(attempt).into_iter().chain(last.to_be_bytes())).for_each(|(to, from)| *to = from);
    id
}

fn owner(job: JobId) -> Owner {
    Owner { kind: "job".into(), id: *job.as_bytes() }
}

/// What of a batch is new after `durable`: refused when a frame is malformed or something is missing without saying so.
fn fresh_frames(frames: Vec<LogFrame>, durable: u64) -> Result<Vec<LogFrame>, Failure> {
    if frames.len() > LOG_BATCH_FRAMES_MAX {
        return Err(Failure::invalid(format!("`frames`: a batch has at most {LOG_BATCH_FRAMES_MAX}")));
    }
    let mut last = durable;
    let mut new = Vec::new();
    for frame in frames {
        // base64 has four characters for three bytes: what is too long is not decoded.
        let fits = frame.data.len() <= LOG_FRAME_MAX.div_ceil(3) * 4 && STANDARD.decode(&frame.data).is_ok_and(|data| data.len() <= LOG_FRAME_MAX);
        if !fits {
            return Err(Failure::invalid(format!("`frames`: frame {} is not base64 of at most {LOG_FRAME_MAX} bytes", frame.sequence)));
        }
        if frame.sequence <= durable {
            continue;
        }
        let expected = last.checked_add(1).and_then(|next| next.checked_add(frame.lost));
        if expected != Some(frame.sequence) {
            return Err(Failure::invalid(format!(
                "`frames`: frame {} does not follow {last}: send what follows the acknowledged sequence {durable}, and tell what is missing by `lost`",
                frame.sequence
            )));
        }
        last = frame.sequence;
        new.push(frame);
    }
    Ok(new)
}

impl Control {
    async fn log(&self, tenant: TenantId, attempt: AttemptId) -> Result<Option<(u64, LogRow)>, Failure> {
        let found = self.store.get_json::<LogRow>(tenant, LOG, id(attempt, 0)).await.map_err(Failure::internal)?;
        Ok(found.map(|(stored, row)| (stored.revision, row)))
    }

    /// The job's log key, made with the first batch; then the record is to be stored with it.
    async fn log_key(&self, tenant: TenantId, job: JobId, now: UnixTime) -> Result<(SegmentKeys, Option<KeyRecord>), Failure> {
        let found = newest(&self.store, tenant, &owner(job), Purpose::JobLog).await.map_err(Failure::internal)?;
        let (record, plain, new) = match found {
            Some(key) => {
                let plain = self.vault.open_data(&self.store, &key.record).await.map_err(Failure::internal)?;
                (key.record, plain, false)
            }
            None => {
                let made = self.vault.make_data(&self.store, tenant, Purpose::JobLog, owner(job), now).await;
                let (record, plain) = made.map_err(Failure::internal)?;
                (record, plain, true)
            }
        };
        let keys = SegmentKeys { tenant, volume: VolumeId::from_bytes(*job.as_bytes()), epochs: vec![(record.version, record.id, plain)] };
        Ok((keys, new.then_some(record)))
    }

    /// Keeps what is new of a batch. Returns the last sequence that is durable, and the key that was made for it.
    pub(crate) async fn keep_log(
        &self,
        tenant: TenantId,
        attempt: AttemptId,
        frames: Vec<LogFrame>,
        now: UnixTime,
    ) -> Result<(u64, Option<KeyId>), Failure> {
        let found = self.log(tenant, attempt).await?;
        let expect = found.as_ref().map_or(Expect::Absent, |(revision, _)| Expect::Revision(*revision));
        let mut row = found.map_or_else(
            || LogRow {
                format: FORMAT,
                attempt,
                prefix: hex::encode(random_id()),
                sequence: 0,
                bytes: 0,
                dropped: 0,
                dropped_time: now,
            },
            |(_, row)| row,
        );
        let new = fresh_frames(frames, row.sequence)?;
        let Some(last) = new.last() else { return Ok((row.sequence, None)) };
        let (last, last_time) = (last.sequence, last.time);
        let plain = serde_json::to_vec(&new).map_err(Failure::internal)?;
        let cost = (plain.len() as u64).saturating_add(LOG_PART_COST);
        let mut transaction = Transaction::new();
        let mut made = None;
        let mut written: Option<BlobPath> = None;
        if row.bytes.saturating_add(cost) > LOG_BYTES_MAX || row.dropped > 0 {
            // What follows a gap of ours is not kept either: readers see one gap, at the end.
            row.dropped = row.dropped.saturating_add(last.saturating_sub(row.sequence));
            row.dropped_time = last_time;
        } else {
            let (keys, record) = self.log_key(tenant, attempt.job, now).await?;
            let object = format!("logs/{}/{last:020}-{}", row.prefix, hex::encode(random_id()));
            let sealed = seal(&keys, &object, &plain)?;
            let path: BlobPath = object.parse().map_err(Failure::internal)?;
            self.blobs.put(&path, sealed.bytes.into()).await.map_err(blob_failure)?;
            let part = PartRow { format: FORMAT, last, object, root: hex::encode(sealed.root) };
            let put = Put::json(tenant, PART, id(attempt, last), Expect::Absent, &part).map_err(Failure::internal)?;
            transaction = transaction.with(put.parent(id(attempt, 0)));
            if let Some(record) = record {
                let event = audit::Event::KeyCreated {
                    key: record.id,
                    version: record.version,
                    purpose: Purpose::JobLog.as_str().into(),
                    owner_kind: "job".into(),
                    owner: attempt.job.to_string(),
                };
                made = Some(record.id);
                transaction = transaction.with(Mutation::PutKey(record)).entry(self.system_entry(now, tenant, event)?);
            }
            row.bytes = row.bytes.saturating_add(cost);
            written = Some(path);
        }
        row.sequence = last;
        let put = Put::json(tenant, LOG, id(attempt, 0), expect, &row).map_err(Failure::internal)?.parent(attempt.job);
        match self.store.commit(transaction.with(put), now).await {
            Ok(_) => {
                self.logs.send_modify(|count| *count = count.wrapping_add(1));
                Ok((last, made))
            }
            Err(error) => {
                // Nothing refers to it: another batch of the same attempt was faster.
                if let Some(path) = written
                    && let Err(error) = self.blobs.delete(&path).await
                {
                    tracing::warn!(%error, "a part of a log that nothing refers to was left behind");
                }
                Err(commit_failure(error))
            }
        }
    }

    /// Frames of an attempt after a sequence: the rest of one part, oldest first. Empty when nothing newer is kept.
    pub(crate) async fn read_log(&self, tenant: TenantId, attempt: AttemptId, after: u64) -> Result<Vec<LogFrame>, Failure> {
        let page = Page::after(id(attempt, after), 1);
        let found = self.store.list_parent(tenant, PART, id(attempt, 0), page).await.map_err(Failure::internal)?;
        let Some(stored) = found.items.first() else { return self.dropped(tenant, attempt, after).await };
        let mut frames = self.read_part(tenant, attempt.job, stored).await?;
        frames.retain(|frame| frame.sequence > after);
        Ok(frames)
    }

    async fn read_part(&self, tenant: TenantId, job: JobId, stored: &Resource) -> Result<Vec<LogFrame>, Failure> {
        let part: PartRow = stored.parse().map_err(Failure::internal)?;
        let path: BlobPath = part.object.parse().map_err(Failure::internal)?;
        let sealed = self.blobs.get(&path, store::limits::BLOB_MAX).await.map_err(blob_failure)?;
        let found = newest(&self.store, tenant, &owner(job), Purpose::JobLog).await.map_err(Failure::internal)?;
        let key = found.ok_or_else(|| Failure::new(vocabulary::ErrorCode::WrongState, "the log's key is destroyed"))?;
        let plain = self.vault.open_data(&self.store, &key.record).await.map_err(Failure::internal)?;
        let volume = VolumeId::from_bytes(*job.as_bytes());
        let keys = SegmentKeys { tenant, volume, epochs: vec![(key.record.version, key.record.id, plain)] };
        let root: [u8; 32] = hex::decode(&part.root).ok().and_then(|root| root.try_into().ok()).ok_or_else(|| Failure::internal("a log's root"))?;
        let damaged = |error: segment::SegmentError| {
            Failure::new(vocabulary::ErrorCode::VerificationFailed, format!("a part of the log is damaged: {error}"))
        };
        let opened = segment::open(&keys, segment::Kind::Log, part.object.as_bytes(), &sealed, Some(&root), None).map_err(damaged)?;
        let mut plain = zeroize::Zeroizing::new(Vec::new());
        for index in 0..opened.chunks() {
            let offset = plain.len() as u64;
            opened.read(index, 0, offset, &mut plain).map_err(damaged)?;
        }
        serde_json::from_slice(&plain).map_err(Failure::internal)
    }

    /// The last frame of a log that reached its limit: it carries nothing but how many are missing.
    async fn dropped(&self, tenant: TenantId, attempt: AttemptId, after: u64) -> Result<Vec<LogFrame>, Failure> {
        let found = self.log(tenant, attempt).await?.filter(|(_, row)| row.dropped > 0 && row.sequence > after);
        Ok(found
            .map(|(_, row)| LogFrame {
                sequence: row.sequence,
                time: row.dropped_time,
                stream: LogStream::Stderr,
                data: String::new(),
                lost: row.sequence.saturating_sub(after).min(row.dropped),
            })
            .into_iter()
            .collect())
    }
}

fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    SystemRandom.fill(&mut id);
    id
}

fn seal(keys: &SegmentKeys, name: &str, plain: &[u8]) -> Result<segment::Sealed, Failure> {
    let chunks: Vec<Chunk<'_>> =
        plain.chunks(CHUNK).zip(0_u64..).map(|(data, number)| Chunk { object: 0, offset: number.saturating_mul(CHUNK as u64), data }).collect();
    let label = Label { kind: segment::Kind::Log, writer_epoch: 0, id: random_id(), name: name.as_bytes() };
    segment::seal(keys, label, &chunks, None, &mut SystemRandom).map_err(Failure::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, lost: u64) -> LogFrame {
        LogFrame { sequence, time: UnixTime::from_millis(1), stream: LogStream::Stdout, data: STANDARD.encode("x"), lost }
    }
    fn kept(frames: &[LogFrame], durable: u64) -> Option<Vec<u64>> {
        fresh_frames(frames.to_vec(), durable).ok().map(|new| new.iter().map(|frame| frame.sequence).collect())
    }

    #[test]
    fn frames_follow_each_other_and_gaps_are_told() {
        assert_eq!(kept(&[frame(1, 0), frame(2, 0)], 0), Some(vec![1, 2]));
        assert_eq!(kept(&[frame(1, 0), frame(2, 0), frame(3, 0)], 2), Some(vec![3]), "a repeated batch adds what is new");
        assert_eq!(kept(&[frame(1, 0), frame(2, 0)], 2), Some(vec![]));
        assert_eq!(kept(&[], 7), Some(vec![]));
        assert_eq!(kept(&[frame(6, 3)], 2), Some(vec![6]), "three were lost and say so");
        for (frames, durable) in [
            (vec![frame(2, 0)], 0),
            (vec![frame(1, 0), frame(3, 0)], 0),
            (vec![frame(6, 2)], 2),
            (vec![frame(6, 4)], 2),
            (vec![frame(2, 0), frame(1, 0)], 0),
            (vec![frame(u64::MAX, u64::MAX)], 1),
        ] {
            assert_eq!(kept(&frames, durable), None, "{frames:?} after {durable}");
        }
    }

    #[test]
    fn hostile_frames_are_refused_before_they_are_decoded() {
        let long = LogFrame { data: "A".repeat(4 * LOG_FRAME_MAX), ..frame(1, 0) };
        let crooked = LogFrame { data: "?".to_owned(), ..frame(1, 0) };
        let most = LogFrame { data: STANDARD.encode(vec![0; LOG_FRAME_MAX]), ..frame(1, 0) };
        let more = LogFrame { data: STANDARD.encode(vec![0; LOG_FRAME_MAX + 1]), ..frame(1, 0) };
        assert!(kept(&[most], 0).is_some());
        for refused in [long, crooked, more] {
            assert!(kept(&[refused], 0).is_none());
        }
        assert!(kept(&vec![frame(1, 0); LOG_BATCH_FRAMES_MAX + 1], 0).is_none());
    }

    #[test]
    fn ids_order_parts_by_their_last_sequence() {
        let attempt = AttemptId { job: JobId::from_bytes([1; 16]), attempt: 1 };
        let second = AttemptId { attempt: 2, ..attempt };
        assert!(id(attempt, 0) < id(attempt, 1) && id(attempt, 255) < id(attempt, 256));
        assert_ne!(base(attempt), base(second));
    }
}
