//! Secrets of one job: files in a file system of their own that lies in memory alone and is never swapped (ramfs).
//!
//! The job sees them read-only below `/run/secrets`. They stand in no environment, argument, plan or record. The job's memory has
//! no swap and its core files no size, so they do not reach the disk by way of the job either, unless it writes them there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use thiserror::Error;
use vocabulary::Name;
use zeroize::Zeroizing;

/// Where a job finds its secrets.
pub const TARGET: &str = "/run/secrets";
/// The mount point in an attempt's directory.
const MOUNT: &str = "secrets";
/// The directory in it that is bound into the sandbox; the mount's own root stays root's.
const FILES: &str = "files";
/// Zeroes that files are overwritten with, at a time.
const ZEROES: [u8; 4096] = [0; 4096];

/// Why secrets were not laid out or wiped.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct SecretFilesError {
    what: String,
    #[source]
    source: std::io::Error,
}

fn because(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> SecretFilesError {
    let what = what.into();
    move |source| SecretFilesError { what, source }
}

/// One secret, opened.
#[derive(Debug)]
pub struct SecretFile {
    /// Its name below [`TARGET`].
    pub name: Name,
    /// Its bytes.
    pub value: Zeroizing<Vec<u8>>,
}

/// The directory to bind at [`TARGET`], for an attempt's directory.
#[must_use]
pub fn source(directory: &Path) -> PathBuf {
    directory.join(MOUNT).join(FILES)
}

/// Lays secrets out for an attempt: a mount of its own in `directory`, files of mode 0400 that belong to host ids `uid` and
/// `gid` (the job's shifted ones). What an earlier run left there is wiped first.
///
/// # Errors
/// When the kernel refuses. Nothing is left behind then.
pub fn create(directory: &Path, secrets: &[SecretFile], uid: u32, gid: u32) -> Result<(), SecretFilesError> {
    wipe(directory)?;
    let made = lay_out(directory, secrets, uid, gid);
    if made.is_err() {
        let _ = wipe(directory);
    }
    made
}

fn lay_out(directory: &Path, secrets: &[SecretFile], uid: u32, gid: u32) -> Result<(), SecretFilesError> {
    let mount = directory.join(MOUNT);
    DirBuilder::new().mode(0o700).create(&mount).map_err(because("create the mount point of secrets"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    rustix::mount::mount("ramfs", &mount, "ramfs", flags, c"mode=0700").map_err(|error| because("mount memory for secrets")(error.into()))?;
    let files = mount.join(FILES);
    DirBuilder::new().mode(0o500).create(&files).map_err(because("create the directory of secrets"))?;
    for secret in secrets {
        let at = || because(format!("write secret `{}`", secret.name));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(files.join(secret.name.as_str())).map_err(at())?;
        file.write_all(&secret.value).map_err(at())?;
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(at())?;
    }
    std::os::unix::fs::chown(&files, Some(uid), Some(gid)).map_err(because("give the secrets to the job"))
}

/// Overwrites and unmounts the secrets of an attempt, if there are any. Call it after the job's shim is gone; every step is tried.
///
/// # Errors
/// The first step that failed.
pub fn wipe(directory: &Path) -> Result<(), SecretFilesError> {
    let mount = directory.join(MOUNT);
    let mut first = None;
    // A crash may have left more than one mount at the place.
    while is_mounted(&mount) {
        if let Err(error) = overwrite(&mount.join(FILES)) {
            first.get_or_insert(error);
        }
        // Somebody may still hold a file open, or another namespace a copy of the mount: what they see is zeroes.
        if let Err(error) = rustix::mount::unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            first.get_or_insert(because("unmount secrets")(error.into()));
            break;
        }
    }
    match std::fs::remove_dir(&mount) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            first.get_or_insert(because("delete the mount point of secrets")(error));
        }
        Ok(()) | Err(_) => {}
    }
    first.map_or(Ok(()), Err)
}

fn is_mounted(mount: &Path) -> bool {
    let Ok(mount) = std::fs::canonicalize(mount) else { return false };
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| crate::leftovers::mount_points(&text).contains(&mount))
}

/// The pages of a ramfs are its files: what is written over is gone.
fn overwrite(files: &Path) -> Result<(), SecretFilesError> {
    let entries = match std::fs::read_dir(files) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(because("read the directory of secrets")(error)),
    };
    for entry in entries {
        let entry = entry.map_err(because("read the directory of secrets"))?;
        zero(&entry.path()).map_err(because("overwrite a secret"))?;
    }
    Ok(())
}

fn zero(path: &Path) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    while left > 0 {
        let piece = ZEROES.get(..usize::try_from(left).unwrap_or(usize::MAX).min(ZEROES.len())).unwrap_or(&ZEROES);
        file.write_all(piece)?;
        left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(left));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn secret(name: &str, value: &[u8]) -> SecretFile {
        SecretFile { name: name.parse().unwrap(), value: Zeroizing::new(value.to_vec()) }
    }

    fn mount_line(mount: &Path) -> Option<String> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().find(|line| line.contains(&*mount.to_string_lossy())).map(str::to_owned)
    }

    #[test]
    fn secrets_lie_in_memory_for_one_user_and_are_gone_after_the_wipe() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), &[secret("hub", b"hf_1"), secret("tracker.key", &[7; 9000])], 700_001, 700_002).unwrap();
        let files = source(folder.path());
        assert_eq!(std::fs::read(files.join("hub")).unwrap(), b"hf_1");
        for (path, mode) in [(files.clone(), 0o500), (files.join("hub"), 0o400), (files.join("tracker.key"), 0o400)] {
            let seen = std::fs::metadata(&path).unwrap();
            assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (mode, 700_001, 700_002), "{}", path.display());
        }
        let line = mount_line(&folder.path().join("secrets")).unwrap();
        assert!(line.contains(" - ramfs ") && line.contains("nosuid,nodev,noexec"), "{line}");
        // A page that is open stays readable after the unmount: it holds zeroes.
        let mut open = File::open(files.join("tracker.key")).unwrap();
        overwrite(&files).unwrap();
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut open, &mut seen).unwrap();
        assert_eq!(seen, vec![0; 9000]);
        drop(open);
        wipe(folder.path()).unwrap();
        assert_eq!(mount_line(&folder.path().join("secrets")), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        wipe(folder.path()).unwrap();
    }

    #[test]
    fn what_an_earlier_run_left_is_wiped_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), &[secret("old", b"old")], 700_001, 700_001).unwrap();
        create(folder.path(), &[secret("new", b"new")], 700_001, 700_001).unwrap();
        let names: Vec<_> = std::fs::read_dir(source(folder.path())).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["new"]);
        wipe(folder.path()).unwrap();
    }

    #[test]
    fn a_mount_point_that_is_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", folder.path().join("secrets")).unwrap();
        assert!(create(folder.path(), &[secret("a", b"a")], 700_001, 700_001).is_err());
        assert!(folder.path().join("secrets").is_symlink());
    }
}
