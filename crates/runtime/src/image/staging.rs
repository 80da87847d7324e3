//! A tree is made beside its place and renamed: it appears whole or not at all.

use super::remove::remove_all;
use super::{ImageError, io, refused};
use rustix::fs::{CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, flock, fsync, mkdirat, openat, renameat_with, syncfs};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins the name of every directory that a broken unpacking may leave.
const PREFIX: &str = ".unpack-";
const TREE: &str = "tree";
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A tree in the making. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Staging {
    parent: OwnedFd,
    target: OsString,
    name: String,
    /// Locked as long as we live, so that [`remove_leftovers`] of another process leaves it alone.
    own: OwnedFd,
    tree: OwnedFd,
}

impl Staging {
    /// Begins beside `target`, which must not exist, in a directory that other users cannot reach.
    pub(super) fn begin(target: &Path) -> Result<Self, ImageError> {
        let shown = target.display();
        let name = target.file_name().ok_or_else(|| refused(format!("`{shown}` is no name for a tree")))?.to_owned();
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        closed(&parent)?;
        if target.symlink_metadata().is_ok() {
            return Err(refused(format!("`{shown}` exists already")));
        }
        let fail = |what: &str| io(format!("{what} in `{}`", parent.display()));
        let directory = openat(CWD, &parent, DIRECTORY, Mode::empty()).map_err(|error| fail("unpack an image")(error.into()))?;
        let name_of = || format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut own_name = name_of();
        // A leftover of an earlier process with our id may have the name.
        for _ in 0..1000 {
            match mkdirat(&directory, &own_name, Mode::RWXU) {
                Err(Errno::EXIST) => own_name = name_of(),
                Err(error) => return Err(fail("make a directory")(error.into())),
                Ok(()) => return Self::fill(directory, name, own_name).map_err(|error| fail("make a directory")(error)),
            }
        }
        Err(refused(format!("`{}` is full of leftovers; restart the node, which removes them", parent.display())))
    }

    fn fill(parent: OwnedFd, target: OsString, name: String) -> std::io::Result<Self> {
        let made = (|| {
            let own = openat(&parent, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            flock(&own, FlockOperation::NonBlockingLockExclusive)?;
            mkdirat(&own, TREE, Mode::RWXU)?;
            let tree = openat(&own, TREE, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            Ok::<_, Errno>((own, tree))
        })();
        match made {
            Ok((own, tree)) => Ok(Self { parent, target, name, own, tree }),
            Err(error) => {
                let _ = remove_all(&parent, name.as_bytes());
                Err(error.into())
            }
        }
    }

    /// The tree's root.
    pub(super) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// Writes everything to the disk, then gives the tree its name.
    pub(super) fn publish(self) -> Result<(), ImageError> {
        syncfs(&self.tree).map_err(|error| io("write the tree to the disk")(error.into()))?;
        match renameat_with(&self.own, TREE, &self.parent, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(refused(format!("`{}` exists already", self.target.display()))),
            Err(error) => return Err(io("give the tree its name")(error.into())),
        }
        fsync(&self.parent).map_err(|error| io("write the tree's name to the disk")(error.into()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed here is left for `remove_leftovers`.
        let _ = remove_all(&self.parent, self.name.as_bytes());
    }
}

/// A tree holds setuid files of strangers: some directory above it must be closed to other users.
fn closed(parent: &Path) -> Result<(), ImageError> {
    let fail = || io(format!("look at `{}`", parent.display()));
    let whole = parent.canonicalize().map_err(fail())?;
    for directory in whole.ancestors() {
        if directory.metadata().map_err(fail())?.permissions().mode() & 0o011 == 0 {
            return Ok(());
        }
    }
    Err(refused(format!(
        "`{}` can be entered by other users, and images hold setuid files: set mode 0700 on it or on a directory above it",
        parent.display()
    )))
}

/// Removes what crashes left in `directory`, where images are unpacked; trees that another process is making stay.
/// Gives the number of leftovers that were removed. A directory that is not there has none.
///
/// # Errors
/// When the directory cannot be read or a leftover cannot be removed; the others are removed all the same.
pub fn remove_leftovers(directory: &Path) -> Result<u64, ImageError> {
    let fail = || io(format!("remove leftovers in `{}`", directory.display()));
    let parent = match openat(CWD, directory, DIRECTORY, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(fail()(error.into())),
    };
    let (mut removed, mut first) = (0_u64, None);
    for entry in Dir::read_from(&parent).map_err(|error| fail()(error.into()))? {
        let entry = entry.map_err(|error| fail()(error.into()))?;
        let name = entry.file_name().to_bytes();
        if !name.starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let result = (|| {
            let own = match openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(own) => own,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            match flock(&own, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => remove_all(&parent, name).map(|()| 1),
                Err(Errno::WOULDBLOCK) => Ok(0),
                Err(error) => Err(error.into()),
            }
        })();
        match result {
            Ok(count) => removed = removed.saturating_add(count),
            Err(error) => first = first.or(Some(error)),
        }
    }
    match first {
        None => Ok(removed),
        Some(error) => Err(fail()(error)),
    }
}
