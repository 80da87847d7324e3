//! This machine: who runs us, as whom a part goes on, which process is meant, and what is told to a service manager.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, geteuid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::CliError;

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// Finds a user in `/etc/passwd`.
    pub(crate) fn find(name: &str) -> Result<Option<Self>, CliError> {
        let text = std::fs::read_to_string("/etc/passwd").map_err(|error| CliError::new(1, format!("/etc/passwd: {error}")))?;
        Ok(Self::parse(&text, name))
    }

    fn parse(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(name) {
                return None;
            }
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Self { name: name.to_owned(), uid, gid })
        })
    }

    /// Finds a user, or makes a system user of that name.
    pub(crate) fn find_or_make(name: &str, say: impl Fn(&str)) -> Result<Self, CliError> {
        if let Some(account) = Self::find(name)? {
            return Ok(account);
        }
        let fits = name.len() <= 32
            && name.chars().next().is_some_and(|c| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
        if !fits {
            return Err(CliError::usage("--user: a user's name has 1 to 32 of a-z, 0-9, - and _, and begins with a letter"));
        }
        say(&format!("making the system user `{name}`, as whom the control plane runs (useradd --system)"));
        let output = Command::new("useradd")
            .args(["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name])
            .output();
        let why = match output {
            Ok(output) if output.status.success() => String::new(),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Self::find(name)?.ok_or_else(|| {
            CliError::new(1, format!("the user `{name}` is not there and could not be made: {why}")).hint("make it, name another with --user, or stay root with --user root")
        })
    }

    /// The first folder on the way to `path` that this user may not pass through.
    pub(crate) fn blocked_at(&self, path: &Path) -> Option<PathBuf> {
        let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
        folders.reverse();
        folders
            .into_iter()
            .find(|folder| {
                let Ok(metadata) = std::fs::metadata(folder) else { return false };
                let bit = if metadata.uid() == self.uid {
                    0o100
                } else if metadata.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                self.uid != 0 && metadata.mode() & bit == 0
            })
            .map(Path::to_owned)
    }

    /// Goes on as this user, for good: no groups, no capabilities, no new privileges. Only before any thread exists.
    pub(crate) fn become_it(&self) -> Result<(), CliError> {
        let failed = |error: rustix::io::Errno| CliError::new(1, format!("cannot go on as user `{}`: {error}", self.name));
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&[]).map_err(failed)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
        rustix::thread::set_no_new_privs(true).map_err(failed)?;
        // The kernel is asked, not believed to have obeyed.
        if geteuid() == uid && (uid.is_root() || rustix::thread::set_thread_uid(Uid::ROOT).is_err()) {
            Ok(())
        } else {
            Err(CliError::new(1, format!("the change to user `{}` did not hold", self.name)))
        }
    }

    /// Gives a folder and everything in it to this user, if it belongs to somebody else. Links are not followed.
    pub(crate) fn own(&self, folder: &Path) -> Result<(), CliError> {
        let at = |path: &Path, error: std::io::Error| CliError::new(1, format!("{}: {error}", path.display()));
        let metadata = std::fs::symlink_metadata(folder).map_err(|error| at(folder, error))?;
        if metadata.uid() == self.uid {
            return Ok(());
        }
        let mut rest = vec![folder.to_owned()];
        while let Some(path) = rest.pop() {
            if std::fs::symlink_metadata(&path).map_err(|error| at(&path, error))?.is_dir() {
                for entry in std::fs::read_dir(&path).map_err(|error| at(&path, error))? {
                    rest.push(entry.map_err(|error| at(&path, error))?.path());
                }
            }
            std::os::unix::fs::lchown(&path, Some(self.uid), Some(self.gid)).map_err(|error| at(&path, error))?;
        }
        Ok(())
    }
}

/// A process, such that another one that got the same number later is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    /// When it started, in ticks since the machine did.
    pub(crate) start: u64,
    /// Which start of the machine.
    pub(crate) boot_id: String,
}

impl Process {
    /// The process of this number, if it runs.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let (state, start) = stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        // A zombie has ended; only its parent has not asked yet.
        (state != 'Z' && state != 'X').then(|| Self { pid, start, boot_id: boot_id() })
    }

    /// We.
    pub(crate) fn own() -> Result<Self, CliError> {
        i32::try_from(std::process::id()).ok().and_then(Self::of).ok_or_else(|| CliError::new(1, "/proc does not show this process"))
    }

    /// Whether it still runs.
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to it, and to no other; says whether it was there.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool, CliError> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
        // The descriptor holds one process: if it is the right one now, the signal goes to the right one.
        if !self.lives() {
            return Ok(false);
        }
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(rustix::io::Errno::PERM) => Err(CliError::new(4, format!("process {} belongs to another user", self.pid)).hint("run it as root: sudo swarm down")),
            Err(error) => Err(CliError::new(1, format!("process {}: {error}", self.pid))),
        }
    }
}

/// State and start time of a `stat` file. The name in it may hold anything, so that only what stands behind counts.
fn stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.get(text.rfind(')')?.checked_add(1)?..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Our own program, also when its file was replaced meanwhile.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Reads a small file that a part with fewer rights wrote: no link, no device, not somebody else's.
pub(crate) fn read_of(path: &Path, uid: u32) -> Result<Option<Zeroizing<String>>, CliError> {
    use std::io::Read as _;
    let at = |why: String| CliError::new(1, format!("{}: {why}", path.display()));
    let flags = i32::try_from((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error.to_string())),
    };
    let metadata = file.metadata().map_err(|error| at(error.to_string()))?;
    if !metadata.is_file() || metadata.uid() != uid {
        return Err(at(format!("it is no file of user {uid}")));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(SMALL_FILE).read_to_string(&mut text).map_err(|error| at(error.to_string()))?;
    Ok(Some(text))
}

/// Bytes of a ticket, a token, or a file of endpoints.
const SMALL_FILE: u64 = 16 << 10;

/// Tells the service manager, if one asked for it (`sd_notify(3)`). That nobody listens is no error.
#[expect(clippy::disallowed_methods, reason = "the program's one reader of this variable")]
pub(crate) fn notify(state: &str) {
    let Ok(place) = std::env::var("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name.as_bytes()),
        None => SocketAddr::from_pathname(&place),
    };
    if let Ok(address) = address {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}

/// The search path of a part: its own, and where the tools of an administrator lie.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/bash\nswarmer:x:7:8::/:/bin/sh\nbroken:x\nswarm:x:998:997::/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(Account::parse(text, "swarm"), Some(Account { name: "swarm".to_owned(), uid: 998, gid: 997 }));
        assert_eq!(Account::parse(text, "broken"), None);
        assert_eq!(Account::parse(text, "swar"), None);
    }

    #[test]
    fn odd_names_are_refused_before_anything_is_made() {
        for name in ["", "-f", "a b", "Swarm", "a:b"] {
            assert_eq!(Account::find_or_make(name, |_| {}).unwrap_err().exit, 2, "{name}");
        }
    }

    #[test]
    fn folders_that_block_are_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { name: "stranger".to_owned(), uid: 4_000_000, gid: 4_000_000 };
        let inside = folder.path().join("state");
        assert_eq!(stranger.blocked_at(&inside), Some(folder.path().to_owned()));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert_ne!(stranger.blocked_at(&inside), Some(folder.path().to_owned()));
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        assert_eq!(stat("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"), Some(('S', 4711)));
        assert_eq!(stat("1 (a"), None);
        let own = Process::own().unwrap();
        assert!(own.lives());
        let earlier = Process { start: own.start.wrapping_sub(1), ..own.clone() };
        assert!(!earlier.lives());
        assert!(!earlier.signal(Signal::TERM).unwrap(), "a signal to an earlier process with our number must not reach us");
        let other_boot = Process { boot_id: "00000000".to_owned(), ..own };
        assert!(!other_boot.lives());
    }

    #[test]
    fn files_of_others_and_links_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = geteuid().as_raw();
        let path = folder.path().join("token");
        assert!(read_of(&path, own).unwrap().is_none());
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(read_of(&path, own).unwrap().unwrap().as_str(), "secret\n");
        assert!(read_of(&path, own.wrapping_add(1)).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_of(&link, own).is_err());
    }
}
