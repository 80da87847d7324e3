//! Removing without following a link, and without descending by the stack.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory may change while it is read; some file systems then show an entry late. More passes than this over
/// one directory mean that something else writes into it.
const PASSES: u32 = 16;

/// Says of a directory's inode and a name in it whether that stays.
pub(super) type Keep<'a> = dyn Fn(u64, &[u8]) -> bool + 'a;

/// Nothing stays.
pub(super) fn nothing(_: u64, _: &[u8]) -> bool {
    false
}

struct Frame {
    dir: Dir,
    inode: u64,
    times: Timestamps,
    /// Its name in the frame below; `None` for the first.
    name: Option<Vec<u8>>,
    stays: bool,
    kept: bool,
    passes: u32,
}

impl Frame {
    fn new(fd: OwnedFd, name: Option<Vec<u8>>, stays: bool) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        let times = modified(&stat);
        Ok(Self { dir: Dir::new(fd)?, inode: stat.st_ino, times, name, stays, kept: false, passes: 0 })
    }
}

/// The time of the last change, in the form in which it can be set again.
pub(super) fn modified(stat: &rustix::fs::Stat) -> Timestamps {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos } }
}

/// Removes a name and all below it, but what `keep` keeps and the directories above that. `stays` keeps the name
/// itself when it is a directory. Gives the inode of a directory that is still there.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8], stays: bool, keep: &Keep<'_>) -> io::Result<Option<u64>> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    let inode = rustix::fs::fstat(&directory)?.st_ino;
    let kept = sweep(directory, keep)?;
    if stays || kept {
        return Ok(Some(inode));
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(None)
}

/// Empties a directory of all but what `keep` keeps; says whether anything is left. Times of directories that stay
/// are as before.
pub(super) fn sweep(directory: OwnedFd, keep: &Keep<'_>) -> io::Result<bool> {
    // One descriptor for each level: trees are no deeper than `limits::IMAGE_DEPTH`.
    let mut frames = vec![Frame::new(directory, None, true)?];
    while let Some(frame) = frames.last_mut() {
        let Some(entry) = frame.dir.read() else {
            if let Some(kept) = ascend(&mut frames)? {
                return Ok(kept);
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let fd = frame.dir.fd()?;
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            kind = FileType::from_raw_mode(rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        }
        let stays = keep(frame.inode, name);
        if kind == FileType::Directory {
            let child = rustix::fs::openat(fd, name, DIRECTORY, Mode::empty())?;
            frames.push(Frame::new(child, Some(name.to_vec()), stays)?);
        } else if stays {
            frame.kept = true;
        } else {
            match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(false)
}

/// Leaves a directory that has been read to its end. `Some` says that it was the first, and whether it holds anything.
fn ascend(frames: &mut Vec<Frame>) -> io::Result<Option<bool>> {
    let Some(mut frame) = frames.pop() else { return Ok(Some(false)) };
    let (Some(name), Some(above)) = (&frame.name, frames.last_mut()) else {
        rustix::fs::futimens(frame.dir.fd()?, &frame.times)?;
        return Ok(Some(frame.kept));
    };
    if frame.stays || frame.kept {
        rustix::fs::futimens(frame.dir.fd()?, &frame.times)?;
        above.kept = true;
        return Ok(None);
    }
    match rustix::fs::unlinkat(above.dir.fd()?, name.as_slice(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::NOTEMPTY) if frame.passes < PASSES => {
            frame.passes = frame.passes.saturating_add(1);
            frame.dir.rewind();
            frames.push(frame);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(None)
}

/// Removes a name and all below it.
pub(super) fn remove_all(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    remove(parent.as_fd(), name, false, &nothing).map(|_| ())
}
