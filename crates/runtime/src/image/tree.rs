//! The tree of an image, written inside its own root: names are resolved by the kernel, which cannot leave it.

use super::name::{Name, Named};
use super::remove::{modified, nothing, remove, sweep};
use crate::limits::{PATH_BYTES, XATTR_BYTES};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, flistxattr, flistxattr_query, fremovexattr,
    fsetxattr, fstat, futimens, linkat, mkdirat, mkfifoat, openat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A run of zeros of this length and place becomes a hole.
const CHUNK: usize = 64 << 10;

/// Opens a path inside `root`: links in it, absolute ones and `..` included, end there and not outside.
pub(super) fn open_in(root: impl AsFd, path: &[u8], flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    let mut tries = 0_u32;
    loop {
        // The kernel answers EAGAIN when anything on the machine was renamed or mounted while it resolved a `..`.
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < 1000 => tries = tries.saturating_add(1),
            result => return result,
        }
    }
}

/// Why an entry was not written.
#[derive(Debug)]
pub(super) enum Fault {
    /// It breaks a rule.
    Rule(String),
    /// A limit, by its name.
    Budget(String),
    /// The bytes of the file could not be read.
    Stream(io::Error),
    /// The disk.
    Disk(&'static str, io::Error),
}

fn broken(text: impl Into<String>) -> Fault {
    Fault::Rule(text.into())
}

fn disk(what: &'static str) -> impl FnOnce(Errno) -> Fault {
    move |error| Fault::Disk(what, error.into())
}

/// Owner, permissions, time and attributes of an entry.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
    /// Only such as are to be kept.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Of directories that no entry describes.
const IMPLIED: Meta = Meta { uid: 0, gid: 0, mode: 0o755, mtime: (0, 0), xattrs: Vec::new() };

impl Meta {
    fn times(&self) -> Timestamps {
        let (tv_sec, nanos) = self.mtime;
        let time = Timespec { tv_sec, tv_nsec: i64::from(nanos) };
        Timestamps { last_access: time, last_modification: time }
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// Sets everything on a descriptor. The owner comes first: changing it takes setuid bits away.
    fn apply(&self, fd: impl AsFd, attributes: bool) -> Result<(), Fault> {
        let (uid, gid) = self.owner();
        fchown(&fd, uid, gid).map_err(disk("set an owner"))?;
        if attributes {
            for (name, value) in &self.xattrs {
                match fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
                    Ok(()) => {}
                    Err(Errno::INVAL | Errno::RANGE) => return Err(broken("an extended attribute has a name that the kernel does not take")),
                    Err(Errno::NOSPC | Errno::TOOBIG) => return Err(broken("the file system does not take extended attributes of this size")),
                    Err(error) => return Err(disk("set an extended attribute")(error)),
                }
            }
        }
        fchmod(&fd, Mode::from_raw_mode(self.mode)).map_err(disk("set a mode"))?;
        futimens(&fd, &self.times()).map_err(disk("set a time"))
    }
}

/// Components of the directory that an entry lies in, and its own; no own one means the root.
type Place<'b, 'c> = (&'c [&'b [u8]], Option<&'b [u8]>);

/// A directory in which an entry is made.
struct Parent {
    fd: OwnedFd,
    inode: u64,
    times: Timestamps,
    depth: u16,
}

impl Parent {
    /// Gives the directory its time back, which its new entry changed.
    fn restore(&self) -> Result<(), Fault> {
        futimens(&self.fd, &self.times).map_err(disk("set a time"))
    }
}

/// The tree while layers are laid over each other.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    depth_limit: usize,
    /// Entries that may still come.
    entries_left: u64,
    entries_limit: u64,
    /// How deep each directory really lies, by inode: links let a short name reach far down.
    depths: HashMap<u64, u16>,
    /// Entries that the present layer brought, as hashes of the directory's inode and the name. Keyed, so an image
    /// cannot aim for a collision.
    ours: HashSet<u64>,
    hash: RandomState,
    /// Directories that have lost what lower layers brought: nothing of it can come back while the layer lasts.
    swept: HashSet<u64>,
    /// Whether there is a layer below the present one.
    upper: bool,
}

impl<'a> Tree<'a> {
    /// Takes an empty directory.
    pub(super) fn new(root: BorrowedFd<'a>, depth_limit: usize, entries_limit: u64) -> Result<Self, Fault> {
        let inode = fstat(root).map_err(disk("look at the tree"))?.st_ino;
        IMPLIED.apply(root, false)?;
        Ok(Self {
            root,
            depth_limit,
            entries_left: entries_limit,
            entries_limit,
            depths: HashMap::from([(inode, 0)]),
            ours: HashSet::new(),
            hash: RandomState::new(),
            swept: HashSet::new(),
            upper: false,
        })
    }

    /// What follows belongs to the next layer.
    pub(super) fn next_layer(&mut self) {
        self.ours.clear();
        self.swept.clear();
        self.upper = true;
    }

    /// Counts an entry.
    pub(super) fn spend(&mut self) -> Result<(), Fault> {
        let limit = self.entries_limit;
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| Fault::Budget(format!("{limit} entries")))?;
        Ok(())
    }

    /// A directory: a new one, or new properties for one that is there.
    pub(super) fn directory(&mut self, name: &Name<'_>, meta: &Meta) -> Result<(), Fault> {
        let (parents, last) = self.place(name)?;
        let Some(last) = last else {
            clear_xattrs(self.root)?;
            return meta.apply(self.root, true);
        };
        let parent = self.parent(parents)?;
        let kept = self.make_room(&parent, last, true)?;
        if !kept {
            self.make_directory(&parent, last)?;
        }
        let fd = openat(&parent.fd, last, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(disk("open a directory"))?;
        if kept {
            clear_xattrs(&fd)?;
        }
        meta.apply(&fd, true)?;
        self.written(&parent, last)
    }

    /// A regular file; `data` gives its bytes and 0 at their end.
    pub(super) fn file(&mut self, name: &Name<'_>, meta: &Meta, size: u64, data: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<(), Fault> {
        let (parent, last) = self.free_place(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, last, flags, Mode::RUSR | Mode::WUSR).map_err(disk("create a file"))?;
        let mut file = File::from(fd);
        copy(&mut file, size, data)?;
        meta.apply(&file, true)?;
        self.written(&parent, last)
    }

    /// A symbolic link; where it leads does not matter, since nothing follows it outside.
    pub(super) fn symlink(&mut self, name: &Name<'_>, meta: &Meta, to: &[u8]) -> Result<(), Fault> {
        if to.is_empty() || to.contains(&0) || to.len() >= PATH_BYTES {
            return Err(broken(format!("the target of a link has 1 to {} bytes, none of them NUL", PATH_BYTES - 1)));
        }
        let (parent, last) = self.free_place(name)?;
        symlinkat(to, &parent.fd, last).map_err(disk("create a link"))?;
        let (uid, gid) = meta.owner();
        chownat(&parent.fd, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(disk("set an owner"))?;
        utimensat(&parent.fd, last, &meta.times(), AtFlags::SYMLINK_NOFOLLOW).map_err(disk("set a time"))?;
        self.written(&parent, last)
    }

    /// A second name of a regular file that is there already.
    pub(super) fn hard_link(&mut self, name: &Name<'_>, to: &Name<'_>) -> Result<(), Fault> {
        let (from_parents, from) = self.place(to)?;
        let Some(from) = from else { return Err(broken("a hard link to a directory")) };
        let missing = || broken("the target of the hard link is not there; it must come before the link");
        let Some(source) = self.existing(from_parents)? else { return Err(missing()) };
        let stat = match statat(&source.fd, from, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(missing()),
            Err(error) => return Err(disk("look at the target of a hard link")(error)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(broken("the target of the hard link is no regular file"));
        }
        let (parents, last) = self.place(name)?;
        let Some(last) = last else { return Err(root_only_directory()) };
        let parent = self.parent(parents)?;
        // A link to itself: making room for it would remove what it leads to.
        let same = statat(&parent.fd, last, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|there| there.st_ino == stat.st_ino);
        if !same {
            self.make_room(&parent, last, false)?;
            match linkat(&source.fd, from, &parent.fd, last, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Err(missing()),
                Err(Errno::MLINK) => return Err(broken("more hard links to one file than the file system takes")),
                Err(error) => return Err(disk("create a hard link")(error)),
            }
        }
        self.written(&parent, last)
    }

    /// A named pipe.
    pub(super) fn fifo(&mut self, name: &Name<'_>, meta: &Meta) -> Result<(), Fault> {
        let (parent, last) = self.free_place(name)?;
        mkfifoat(&parent.fd, last, Mode::RUSR | Mode::WUSR).map_err(disk("create a FIFO"))?;
        // Opened for both directions, a FIFO does not block.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, last, flags, Mode::empty()).map_err(disk("open a FIFO"))?;
        meta.apply(&fd, false)?;
        self.written(&parent, last)
    }

    /// An entry that is left out: what lower layers have in its place goes all the same.
    pub(super) fn leave_out(&mut self, name: &Name<'_>) -> Result<(), Fault> {
        let (parents, last) = self.place(name)?;
        let Some(last) = last else { return Err(root_only_directory()) };
        if let Some(parent) = self.existing(parents)? {
            self.make_room(&parent, last, false)?;
            parent.restore()?;
        }
        Ok(())
    }

    /// Removes what lower layers have under `hidden` in a directory, or everything they have in it. What the
    /// present layer brought stays.
    pub(super) fn whiteout(&mut self, parents: &[&[u8]], hidden: Option<&[u8]>) -> Result<(), Fault> {
        if !self.upper {
            return Ok(());
        }
        let Some(parent) = self.existing(parents)? else { return Ok(()) };
        let keep = |inode: u64, name: &[u8]| self.ours.contains(&self.hash.hash_one((inode, name)));
        let swept = match hidden {
            None if self.swept.contains(&parent.inode) => return Ok(()),
            None => {
                let again = openat(&parent.fd, c".", DIRECTORY, Mode::empty()).map_err(disk("open a directory"))?;
                sweep(again, &keep).map_err(|error| Fault::Disk("apply a whiteout", error))?;
                Some(parent.inode)
            }
            Some(hidden) => {
                let stat = match statat(&parent.fd, hidden, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => return Ok(()),
                    Err(error) => return Err(disk("look at a file")(error)),
                };
                let stays = keep(parent.inode, hidden);
                let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if if directory { self.swept.contains(&stat.st_ino) } else { stays } {
                    return Ok(());
                }
                remove(parent.fd.as_fd(), hidden, stays, &keep).map_err(|error| Fault::Disk("apply a whiteout", error))?
            }
        };
        self.swept.extend(swept);
        parent.restore()
    }

    /// Where a job's own file systems are mounted, the tree must have a directory or nothing.
    pub(super) fn check_mount_points(&self) -> Result<(), Fault> {
        for name in ["dev", "proc", "sys"] {
            match statat(self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                Err(Errno::NOENT) => {}
                Ok(_) => return Err(broken(format!("`/{name}` must be a directory: a job's own is mounted there"))),
                Err(error) => return Err(disk("look at a mount point")(error)),
            }
        }
        Ok(())
    }

    /// Takes a name apart and refuses what is too deep. `None` is the root.
    fn place<'b, 'c>(&self, name: &'c Name<'b>) -> Result<Place<'b, 'c>, Fault> {
        if name.depth() > self.depth_limit {
            return Err(self.too_deep());
        }
        match name.split().map_err(broken)? {
            (parents, Named::Plain(last)) => Ok((parents, Some(last))),
            (parents, Named::Root) => Ok((parents, None)),
            (_, Named::Whiteout(_) | Named::Opaque) => Err(broken("a whiteout is no file")),
        }
    }

    /// The parent and last component of an entry that is no directory, with nothing in its place.
    fn free_place<'b>(&mut self, name: &Name<'b>) -> Result<(Parent, &'b [u8]), Fault> {
        let (parents, last) = self.place(name)?;
        let Some(last) = last else { return Err(root_only_directory()) };
        let parent = self.parent(parents)?;
        self.make_room(&parent, last, false)?;
        Ok((parent, last))
    }

    fn too_deep(&self) -> Fault {
        Fault::Budget(format!("depth of {} directories", self.depth_limit))
    }

    fn written(&mut self, parent: &Parent, name: &[u8]) -> Result<(), Fault> {
        self.ours.insert(self.hash.hash_one((parent.inode, name)));
        parent.restore()
    }

    /// Removes what is in an entry's place; a directory may stay for a directory, and the answer says whether one did.
    fn make_room(&self, parent: &Parent, name: &[u8], directory: bool) -> Result<bool, Fault> {
        match statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(disk("look at a file")(error)),
            Ok(stat) if directory && FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(true),
            Ok(_) => {}
        }
        remove(parent.fd.as_fd(), name, false, &nothing).map_err(|error| Fault::Disk("remove a file of a lower layer", error))?;
        Ok(false)
    }

    /// Opens the directory that an entry lies in, if it is there.
    fn existing(&self, parents: &[&[u8]]) -> Result<Option<Parent>, Fault> {
        match open_in(self.root, &parents.join(&b'/'), DIRECTORY, ResolveFlags::NO_XDEV) {
            Ok(fd) => self.seen(fd).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(broken("it lies below something that is no directory")),
            Err(Errno::LOOP) => Err(broken("it lies below links that lead in a circle")),
            Err(Errno::XDEV) => Err(broken("it lies on another file system")),
            Err(Errno::NAMETOOLONG) => Err(broken("a link above it is too long")),
            Err(error) => Err(disk("open a directory")(error)),
        }
    }

    fn seen(&self, fd: OwnedFd) -> Result<Parent, Fault> {
        let stat = fstat(&fd).map_err(disk("look at a directory"))?;
        let depth = *self.depths.get(&stat.st_ino).ok_or_else(|| broken("it lies in a directory that is not of this image"))?;
        Ok(Parent { fd, inode: stat.st_ino, times: modified(&stat), depth })
    }

    /// Opens the directory that an entry lies in, and makes what is missing of it.
    fn parent(&mut self, parents: &[&[u8]]) -> Result<Parent, Fault> {
        if let Some(parent) = self.existing(parents)? {
            return Ok(parent);
        }
        let mut current = self.existing(&[])?.ok_or_else(|| broken("the tree is gone"))?;
        let mut fresh = false;
        for (count, name) in (1_usize..).zip(parents) {
            let there = if fresh { None } else { self.existing(parents.get(..count).unwrap_or_default())? };
            current = match there {
                Some(next) => next,
                None => {
                    self.spend()?;
                    self.make_directory(&current, name)?;
                    let fd = openat(&current.fd, *name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(disk("open a directory"))?;
                    IMPLIED.apply(&fd, false)?;
                    self.written(&current, name)?;
                    fresh = true;
                    self.seen(fd)?
                }
            };
        }
        Ok(current)
    }

    fn make_directory(&mut self, parent: &Parent, name: &[u8]) -> Result<(), Fault> {
        let depth = parent.depth.saturating_add(1);
        if usize::from(depth) > self.depth_limit {
            return Err(self.too_deep());
        }
        match mkdirat(&parent.fd, name, Mode::RWXU) {
            Ok(()) => {}
            // The name could not be opened, so it is a link.
            Err(Errno::EXIST) => return Err(broken("it lies below a link that leads nowhere")),
            Err(error) => return Err(disk("create a directory")(error)),
        }
        let stat = statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(disk("look at a directory"))?;
        self.depths.insert(stat.st_ino, depth);
        Ok(())
    }
}

fn root_only_directory() -> Fault {
    broken("the root of the tree can only be a directory")
}

fn clear_xattrs(fd: impl AsFd) -> Result<(), Fault> {
    let mut list = Vec::new();
    let size = match flistxattr_query(&fd) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(size) => size,
        Err(error) => return Err(disk("list extended attributes")(error)),
    };
    list.resize(size.min(XATTR_BYTES), 0);
    let size = flistxattr(&fd, list.as_mut_slice()).map_err(disk("list extended attributes"))?;
    let names = list.get(..size).unwrap_or_default().split(|byte| *byte == 0);
    for name in names.filter(|name| name.starts_with(b"user.")) {
        fremovexattr(&fd, name).map_err(disk("remove an extended attribute"))?;
    }
    Ok(())
}

/// Writes a file; runs of zeros become holes, so that a file of zeros costs no disk.
fn copy(file: &mut File, size: u64, data: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<(), Fault> {
    let write = |error| Fault::Disk("write a file", error);
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
    loop {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..)
            && !rest.is_empty()
        {
            match data(rest) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Stream(error)),
            }
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if bytes.len() == CHUNK && bytes.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(CHUNK).unwrap_or_default())).map_err(write)?;
        } else {
            file.write_all(bytes).map_err(write)?;
        }
    }
    file.set_len(size).map_err(write)
}
