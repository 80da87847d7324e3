//! Logs of an attempt: shipped in order, resumed from what was acknowledged, every lost frame counted.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use runtime::supervisor::{Handle, SupervisorError};
use serde::{Deserialize, Serialize};
use vocabulary::api::{LogAck, LogBatch};
use vocabulary::channel as paths;
use vocabulary::job::LogFrame;

use crate::channel::{Backoff, Channel, ChannelError};
use crate::files;
use crate::limits::{LOG_BATCH_FRAMES, LOGS_EVERY, RECORD_BYTES_MAX};

/// How far the log is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    /// The last sequence that is durable in the control plane.
    acknowledged: u64,
    /// Frames that were lost up to there.
    lost: u64,
}

impl Mark {
    /// After the answer to a batch. `None` when nothing of it was taken.
    fn after(self, frames: &[LogFrame], ack: u64) -> Option<Self> {
        if ack <= self.acknowledged {
            return None;
        }
        let taken = frames.iter().filter(|frame| frame.sequence > self.acknowledged && frame.sequence <= ack);
        let lost = taken.fold(self.lost, |lost, frame| lost.saturating_add(frame.lost));
        Some(Self { acknowledged: ack, lost })
    }
}

/// Ships one attempt's log.
#[derive(Debug)]
pub(crate) struct Shipper {
    handle: Handle,
    path: PathBuf,
    mark: Mutex<Mark>,
}

/// Why a batch did not go.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Ring(#[from] SupervisorError),
    #[error("nothing of the batch was taken")]
    NotTaken,
}

impl Shipper {
    /// Resumes from the mark in `path`; without one from the beginning, which changes nothing but the work.
    pub(crate) fn resume(handle: Handle, path: PathBuf) -> Self {
        let mark = files::read(&path, RECORD_BYTES_MAX).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { handle, path, mark: Mutex::new(mark) }
    }

    fn mark(&self) -> Mark {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ships as the program writes, until the future is dropped or the control plane refuses this attempt's log.
    pub(crate) async fn follow(&self, channel: &Channel) {
        let mut backoff = Backoff::default();
        loop {
            match self.batch(channel).await {
                Ok(0) => {
                    backoff = Backoff::default();
                    tokio::time::sleep(LOGS_EVERY).await;
                }
                Ok(_) => backoff = Backoff::default(),
                Err(ShipError::Channel(error)) if !error.passes() => {
                    tracing::warn!(attempt = %self.handle.attempt(), %error, "log refused");
                    return;
                }
                Err(error) => {
                    tracing::debug!(attempt = %self.handle.attempt(), %error, "log waits");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Ships the rest of an ended attempt's log; `patient` says whether it is still worth waiting for the control plane.
    /// Gives the number of frames that were lost altogether, those that nobody took included.
    pub(crate) async fn finish(&self, channel: &Channel, patient: impl Fn() -> bool) -> u64 {
        let mut backoff = Backoff::default();
        loop {
            match self.batch(channel).await {
                Ok(0) => return self.mark().lost,
                Ok(_) => backoff = Backoff::default(),
                Err(ShipError::Channel(error)) if error.passes() && patient() => backoff.wait().await,
                Err(ShipError::NotTaken) if patient() => backoff.wait().await,
                Err(error) => {
                    tracing::warn!(attempt = %self.handle.attempt(), %error, "the rest of the log is lost");
                    return self.mark().lost.saturating_add(self.rest().await);
                }
            }
        }
    }

    /// Sends one batch; gives the number of its frames.
    async fn batch(&self, channel: &Channel) -> Result<usize, ShipError> {
        let before = self.mark();
        let frames = self.frames(before.acknowledged).await?;
        if frames.is_empty() {
            return Ok(0);
        }
        let attempt = self.handle.attempt();
        let batch = LogBatch { attempt, frames };
        let ack: LogAck = channel.post(&paths::attempt(paths::LOGS, attempt), &batch).await?;
        let next = before.after(&batch.frames, ack.sequence).ok_or(ShipError::NotTaken)?;
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = next;
        // Only a hint for the next run of the agent: the control plane knows it better.
        if let Ok(bytes) = serde_json::to_vec(&next) {
            let _ = files::write_lightly(&self.path, &bytes);
        }
        Ok(batch.frames.len())
    }

    async fn frames(&self, after: u64) -> Result<Vec<LogFrame>, SupervisorError> {
        let handle = self.handle.clone();
        let read = tokio::task::spawn_blocking(move || handle.logs(after, LOG_BATCH_FRAMES));
        read.await.map_err(|error| SupervisorError::Protocol(error.to_string()))?
    }

    /// Frames that lie in the ring and were not taken, and holes among them.
    async fn rest(&self) -> u64 {
        let (mut after, mut count) = (self.mark().acknowledged, 0_u64);
        while let Ok(frames) = self.frames(after).await {
            let Some(last) = frames.last() else { break };
            count = count.saturating_add(last.sequence.saturating_sub(after));
            after = last.sequence;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use vocabulary::UnixTime;
    use vocabulary::job::LogStream;

    use super::*;

    fn frame(sequence: u64, lost: u64) -> LogFrame {
        LogFrame { sequence, time: UnixTime::from_millis(1), stream: LogStream::Stdout, data: String::new(), lost }
    }

    #[test]
    fn losses_are_counted_once_and_only_up_to_what_was_taken() {
        let start = Mark::default();
        let frames = [frame(3, 2), frame(4, 0), frame(9, 4)];
        let half = start.after(&frames, 4).unwrap();
        assert_eq!(half, Mark { acknowledged: 4, lost: 2 });
        assert_eq!(half.after(&frames, 4), None);
        assert_eq!(half.after(&frames, 9).unwrap(), Mark { acknowledged: 9, lost: 6 });
        // A control plane that has more than this run of the agent knows of is believed, without a count.
        assert_eq!(start.after(&[frame(1, 0)], 50).unwrap(), Mark { acknowledged: 50, lost: 0 });
    }
}
