//! Who an image's program runs as.

use super::{ImageError, io, refused, shown};
use crate::limits::{ACCOUNTS_BYTES, ID_BLOCK};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Finds the ids of `user`: `uid`, `uid:gid`, `name`, `name:group` or any mixture; empty means 0:0. Names are looked
/// up in the image's own `/etc/passwd` and `/etc/group`, opened inside `root`. Without a group it is the one that
/// `/etc/passwd` gives, and 0 for a number that is not there.
///
/// # Errors
/// When a name is unknown, an id is not below [`ID_BLOCK`], or the files cannot be read or are too large.
pub fn resolve_user(root: &Path, user: &str) -> Result<(u32, u32), ImageError> {
    if user.is_empty() {
        return Ok((0, 0));
    }
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    if name.is_empty() || group.is_some_and(str::is_empty) {
        return Err(refused(format!("user `{}`: a part beside the colon is empty", shown(user.as_bytes()))));
    }
    let number = id(name)?;
    let entry = if number.is_some() && group.is_some() { None } else { passwd(root, name, number)? };
    let uid = match (number, &entry) {
        (Some(uid), _) => uid,
        (None, Some(entry)) => entry.uid,
        (None, None) => return Err(refused(format!("user `{}` is not in the image's /etc/passwd; name a number instead", shown(name.as_bytes())))),
    };
    let gid = match group {
        None => entry.map_or(0, |entry| entry.gid),
        Some(group) => match id(group)? {
            Some(gid) => gid,
            None => find_group(root, group)?,
        },
    };
    Ok((uid, gid))
}

struct Account {
    uid: u32,
    gid: u32,
}

/// `None` for a text that is no number.
fn id(text: &str) -> Result<Option<u32>, ImageError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id < ID_BLOCK => Ok(Some(id)),
        _ => Err(refused(format!("id {} is not below {ID_BLOCK}, and a job has no larger ones", shown(text.as_bytes())))),
    }
}

fn passwd(root: &Path, name: &str, number: Option<u32>) -> Result<Option<Account>, ImageError> {
    for line in lines(root, "etc/passwd")? {
        let fields: Vec<&str> = line.split(':').collect();
        let [own, _, uid, gid, ..] = fields.as_slice() else { continue };
        let wanted = match number {
            Some(number) => uid.parse() == Ok(number),
            None => *own == name,
        };
        if wanted {
            return match (id(uid)?, id(gid)?) {
                (Some(uid), Some(gid)) => Ok(Some(Account { uid, gid })),
                _ => Err(refused(format!("the image's /etc/passwd has no numbers for `{}`", shown(own.as_bytes())))),
            };
        }
    }
    Ok(None)
}

fn find_group(root: &Path, name: &str) -> Result<u32, ImageError> {
    for line in lines(root, "etc/group")? {
        let fields: Vec<&str> = line.split(':').collect();
        let [own, _, gid, ..] = fields.as_slice() else { continue };
        if *own == name {
            return id(gid)?.ok_or_else(|| refused(format!("the image's /etc/group has no number for `{}`", shown(name.as_bytes()))));
        }
    }
    Err(refused(format!("group `{}` is not in the image's /etc/group; name a number instead", shown(name.as_bytes()))))
}

/// Lines of a file of the tree; none when it is not there. Whatever the path leads through, it stays in the tree.
fn lines(root: &Path, path: &str) -> Result<Vec<String>, ImageError> {
    let what = || format!("read the image's /{path}");
    let directory = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| io(format!("open the image's tree `{}`", root.display()))(error.into()))?;
    // Not blocking: the image may have put a FIFO there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match super::tree::open_in(&directory, path.as_bytes(), flags, ResolveFlags::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(Vec::new()),
        Err(error) => return Err(io(what())(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| io(what())(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused(format!("the image's /{path} is no regular file")));
    }
    let mut bytes = Vec::new();
    File::from(file).take(ACCOUNTS_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(io(what()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > ACCOUNTS_BYTES {
        return Err(refused(format!("the image's /{path} is larger than {ACCOUNTS_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}
