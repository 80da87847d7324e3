//! The few large buffers of a writer: lent to the port until it has sent them, then used again.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;

/// Segments in memory: one that is read and sealed, two on their way. 3 × 16 MiB.
const BUFFERS: usize = 3;
/// Segments that were sent or are being sent, and are not acknowledged yet: a store that syncs its disk for each holds up
/// nobody, and a port that has stopped is noticed.
const UNACKNOWLEDGED: usize = 8;

#[derive(Debug, Default)]
struct Shelf {
    spare: Mutex<Vec<Vec<u8>>>,
    returned: Notify,
}

impl Shelf {
    fn give(&self, buffer: Vec<u8>) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        self.returned.notify_one();
    }
}

/// The buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    shelf: Arc<Shelf>,
    made: usize,
}

/// A buffer that goes back to its shelf when the last reference to it ends.
struct Lent {
    bytes: Vec<u8>,
    shelf: Arc<Shelf>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.shelf.give(std::mem::take(&mut self.bytes));
    }
}

impl Buffers {
    /// A free buffer, once there is one; uploads go on meanwhile, and `done` is told of those that end.
    pub(super) async fn take<F: Future>(&mut self, uploads: &mut FuturesUnordered<F>, mut done: impl FnMut(F::Output)) -> Vec<u8> {
        loop {
            if uploads.len() < UNACKNOWLEDGED {
                let spare = self.shelf.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
                if let Some(buffer) = spare {
                    return buffer;
                }
                // A port that keeps what it has sent must not hold up everything: with no upload left there is nothing to wait for.
                if self.made < BUFFERS || uploads.is_empty() {
                    self.made = self.made.saturating_add(1);
                    return Vec::new();
                }
            }
            tokio::select! {
                () = self.shelf.returned.notified() => {}
                Some(ended) = uploads.next() => done(ended),
            }
        }
    }

    /// Takes a buffer back that was not lent.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        self.shelf.give(buffer);
    }

    /// Lends a buffer to the port.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, shelf: Arc::clone(&self.shelf) })
    }
}
