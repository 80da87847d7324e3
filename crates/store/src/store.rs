//! The store: opened once, shared by cloning.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use vocabulary::UnixTime;

use crate::engine::Reading;
use crate::error::{CommitError, OpenError};
use crate::limits::READERS;
use crate::transaction::{Committed, Transaction};
use crate::writer::Request;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database's file. Its folder must exist; the file is made with mode 0600.
    pub path: PathBuf,
    /// Connections that read.
    pub readers: u32,
    /// Whether the whole file is checked before it is used (`PRAGMA quick_check`).
    pub check: bool,
    /// The most pages of 4 KiB that the file may have; beyond it the disk counts as full.
    pub pages_max: Option<u32>,
    /// Accepts this time as right though later ones were committed: an operator's word after a clock was wrong.
    pub accept_clock: Option<UnixTime>,
}

impl StoreConfig {
    /// The usual for this file.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, readers: READERS, check: true, pages_max: None, accept_clock: None }
    }
}

/// The state of a deployment. Clones share one writer.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) reading: Reading,
    pub(crate) latest: watch::Receiver<u64>,
    pub(crate) high_water: watch::Receiver<UnixTime>,
    pub(crate) close: watch::Sender<bool>,
    pub(crate) tasks: Mutex<JoinSet<()>>,
    /// Held until the store is closed or gone: one process owns the file.
    pub(crate) lock: Mutex<Option<std::fs::File>>,
}

impl Store {
    /// Opens or makes the database, brings it to the newest schema and starts the writer.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        crate::open::open(config).await
    }

    /// Applies a transaction whole or not at all, and answers when it is on disk.
    ///
    /// Dropping the future does not undo it: what was handed to the writer is decided there.
    pub async fn commit(&self, transaction: Transaction, now: UnixTime) -> Result<Committed, CommitError> {
        crate::writer::validate(&transaction)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { transaction, now, answer };
        self.inner.requests.send(request).await.map_err(|_| CommitError::Closed)?;
        answered.await.map_err(|_| CommitError::Closed)?
    }

    /// The place of the last committed change.
    #[must_use]
    pub fn latest_change(&self) -> u64 {
        *self.inner.latest.borrow()
    }

    /// The latest time that was committed.
    #[must_use]
    pub fn high_water(&self) -> UnixTime {
        *self.inner.high_water.borrow()
    }

    /// By how many milliseconds the clock lies behind a committed time, when that is more than skew: then nothing that
    /// compares times may be decided.
    #[must_use]
    pub fn clock_behind(&self, now: UnixTime) -> Option<u64> {
        self.high_water().since(now).filter(|behind| *behind > crate::limits::CLOCK_BACK_MS)
    }

    /// Lets the writer finish what it took, refuses the rest and closes the files.
    pub async fn close(&self) {
        self.inner.close.send_replace(true);
        let mut tasks = self.inner.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        self.inner.lock.lock().await.take();
    }
}
