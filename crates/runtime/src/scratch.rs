//! Encrypted scratch of one job: an ext4 image with an fscrypt directory, whose key lies in the kernel alone.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why scratch could not be made or removed.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// This machine cannot encrypt scratch: a job that needs it is refused with this.
    #[error("encrypted scratch is not available: {0}")]
    Unavailable(String),
    /// The host.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// One job's scratch, mounted and unlocked. Dropping it does *not* remove it: call [`Scratch::destroy`].
#[derive(Debug)]
pub struct Scratch {
    image: PathBuf,
    mount: PathBuf,
    identifier: [u8; 16],
}

mod fscrypt;
pub use fscrypt::probe;

impl Scratch {
    /// Makes `DIRECTORY/scratch.img` of `bytes`, mounts it at `DIRECTORY/scratch` and unlocks it with 64 bytes of
    /// `random`, which are wiped here and stay in the kernel alone.
    ///
    /// # Errors
    /// When the machine lacks a part of it, or the disk is full. Nothing is left behind then.
    pub fn create(directory: &Path, bytes: u64, random: &mut dyn keys::Random) -> Result<Self, ScratchError> {
        fscrypt::create(directory, bytes, random)
    }

    /// The scratch that an earlier run of the agent left mounted in `directory`, so that outputs can still be read or
    /// its key be removed at once. `None` if there is none; it may be locked.
    ///
    /// # Errors
    /// When something else is mounted there.
    pub fn find(directory: &Path) -> Result<Option<Self>, ScratchError> {
        fscrypt::find(&directory.join("scratch.img"), &directory.join("scratch"))
    }

    /// The encrypted directory. Make what the job uses below it with [`Scratch::subdirectory`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Makes a directory below [`Scratch::path`] that belongs to host ids `uid` and `gid` (the job's shifted ones).
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn subdirectory(&self, name: &str, uid: u32, gid: u32) -> Result<PathBuf, ScratchError> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).map_err(io(format!("create `{}`", path.display())))?;
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(io(format!("chown `{}`", path.display())))?;
        Ok(path)
    }

    /// Removes the key from the kernel: names and contents are unreadable from here on, open files excepted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lock(&self) -> Result<(), ScratchError> {
        fscrypt::lock(self)
    }

    /// Removes the key, unmounts, detaches and deletes. Call it after the job's shim is gone.
    ///
    /// # Errors
    /// When a step failed; every step is tried.
    pub fn destroy(self) -> Result<(), ScratchError> {
        fscrypt::destroy(&self.mount, &self.image, Some(self.identifier))
    }

    /// Removes what an earlier run of the agent left in `directory`. The key is removed as well, if it is still there.
    ///
    /// # Errors
    /// When a step failed; every step is tried.
    pub fn remove_leftovers(directory: &Path) -> Result<(), ScratchError> {
        fscrypt::destroy(&directory.join("scratch"), &directory.join("scratch.img"), None)
    }
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ScratchError {
    let what = what.into();
    move |source| ScratchError::Io { what, source }
}
