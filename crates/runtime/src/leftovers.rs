//! What attempts left on the host although they are gone: nothing, if all went well.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One thing that should not be there any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// A control group below the node's.
    Cgroup(PathBuf),
    /// A mount below the directory, in the mount namespace of the caller.
    Mount(PathBuf),
    /// A loop device whose file lies, or lay, below the directory.
    LoopDevice {
        /// Such as `loop3`.
        device: String,
        /// Its file.
        file: PathBuf,
    },
    /// A process that was started as a shim of an attempt below the directory.
    Shim {
        /// Its id.
        pid: u32,
        /// The directory of its attempt.
        directory: PathBuf,
    },
}

/// Everything that attempts with this `cgroup_parent` and files below `directory` left, sorted.
///
/// # Errors
/// When `/proc`, `/sys` or the control groups cannot be read.
pub fn find(cgroup_parent: &str, directory: &Path) -> io::Result<Vec<Leftover>> {
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mut all = Vec::new();
    for root in crate::cgroup::roots() {
        below(&root.join(cgroup_parent.trim_matches('/')), &mut all)?;
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    all.extend(mount_points(&text).into_iter().filter(|point| point.starts_with(&directory)).map(Leftover::Mount));
    all.extend(loop_devices()?.into_iter().filter(|(_, file)| file.starts_with(&directory)).map(|(device, file)| Leftover::LoopDevice { device, file }));
    shims(&directory, &mut all)?;
    all.sort();
    all.dedup();
    Ok(all)
}

fn absent_is_empty(error: io::Error) -> io::Result<()> {
    // A process or group that ended between the listing and the look is not left over.
    let gone = error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) || error.raw_os_error() == Some(libc::ENODEV);
    if gone { Ok(()) } else { Err(error) }
}

fn below(group: &Path, all: &mut Vec<Leftover>) -> io::Result<()> {
    let entries = match std::fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) => return absent_is_empty(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.push(Leftover::Cgroup(entry.path()));
        }
    }
    Ok(())
}

/// Every loop device that has a file, and the file; a deleted one under its old name.
pub(crate) fn loop_devices() -> io::Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir("/sys/block") {
        Ok(entries) => entries,
        Err(error) => return absent_is_empty(error).map(|()| all),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("loop") {
            continue;
        }
        if let Ok(file) = std::fs::read_to_string(entry.path().join("loop/backing_file")) {
            all.push((name, PathBuf::from(file.trim_end().trim_end_matches(" (deleted)"))));
        }
    }
    Ok(all)
}

fn shims(directory: &Path, all: &mut Vec<Leftover>) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let line = match std::fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(line) => line,
            Err(error) => {
                absent_is_empty(error)?;
                continue;
            }
        };
        let mut arguments = line.split(|byte| *byte == 0).skip(1);
        if arguments.next() == Some(crate::shim::VERB.as_bytes())
            && let Some(place) = arguments.next()
        {
            let place = PathBuf::from(std::ffi::OsString::from_vec(place.to_owned()));
            if place.starts_with(directory) {
                all.push(Leftover::Shim { pid, directory: place });
            }
        }
    }
    Ok(())
}

/// The mount points of a `mountinfo` file, in its order.
pub(crate) fn mount_points(text: &str) -> Vec<PathBuf> {
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = "36 35 98:0 / /mnt/a\\040b\\134c rw - ext4 /dev/root rw\n37 35 98:0 / /x\\ rw - ext4 /dev/root rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/mnt/a b\\c"), PathBuf::from("/x\\")]);
    }
}
