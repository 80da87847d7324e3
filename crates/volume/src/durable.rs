//! A file that reaches the disk while it is written, so that the sync at its end waits for little.

use std::fs::File;
use std::io::{Error, Result, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes between two syncs: large enough that the disk writes in long runs, small enough that little is left at the end.
const SYNC_EVERY: usize = 64 << 20;

/// The file, and the sync under way.
#[derive(Debug)]
pub(crate) struct Durable {
    file: Arc<File>,
    unsynced: usize,
    sync: Option<JoinHandle<Result<()>>>,
}

impl Durable {
    pub(crate) fn new(file: File) -> Self {
        Self { file: Arc::new(file), unsynced: 0, sync: None }
    }

    /// Waits for the sync under way. The kernel tells an error of writing back once: it must not be lost here.
    fn wait(&mut self) -> Result<()> {
        match self.sync.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(Error::other("the thread that syncs ended early")),
        }
    }

    /// Has everything on the disk; blocks.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.wait()?;
        self.file.sync_all()
    }
}

impl Write for Durable {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = (&*self.file).write(bytes)?;
        self.unsynced = self.unsynced.saturating_add(written);
        if self.unsynced >= SYNC_EVERY {
            // One at a time: whoever writes faster than the disk waits here instead of filling memory.
            self.wait()?;
            self.unsynced = 0;
            let file = Arc::clone(&self.file);
            self.sync = Some(std::thread::Builder::new().name("sync".to_owned()).spawn(move || file.sync_data())?);
        }
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        let _ = self.wait();
    }
}
