//! GPUs: which ones there are, and how one is cleaned between two jobs.

mod cdi;

pub use cdi::{CdiError, DeviceNode, Gpu, GivenGpu, ITEMS, SPEC_BYTES, inventory};

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use vocabulary::Sha256Digest;

/// How long the cleaning of one GPU may take: a reset takes seconds, writing over 100 GiB of memory a few more.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the program that cleans.
const PROGRAM_BYTES: u64 = 64 << 20;

/// The operator's program that writes over or resets a GPU's memory: it is given the GPU's name as its only argument, and
/// says by its code 0 that nothing of the job before is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubber {
    path: PathBuf,
    digest: Sha256Digest,
}

impl Scrubber {
    /// The program at a path.
    ///
    /// # Errors
    /// When it cannot be read, or others than root may change it.
    pub fn probe(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), digest: digest(path)? })
    }

    /// Cleans one GPU; blocks. Gives the words of the report.
    ///
    /// # Errors
    /// Why it is not clean. Whoever gets one does not give the GPU to anybody.
    pub fn clean(&self, id: &str) -> Result<String, String> {
        let now = digest(&self.path).map_err(|error| format!("`{}`: {error}", self.path.display()))?;
        if now != self.digest {
            return Err(format!("`{}` is not the program that was probed: start the agent again", self.path.display()));
        }
        let mut command = Command::new(&self.path);
        command.arg(id).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
        let mut child = child.map_err(|error| format!("`{}`: {error}", self.path.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("it has no number")?;
        let ended = pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|fd| {
            let time = Timespec::try_from(PATIENCE).ok();
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], time.as_ref()).is_ok_and(|ready| ready > 0)
        });
        if !ended {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        match (ended, status.success()) {
            (true, true) => Ok(format!("cleaned by {}", self.digest)),
            (true, false) => Err(format!("the program that cleans it ended with {status}")),
            (false, _) => Err(format!("the program that cleans it did not end within {} s", PATIENCE.as_secs())),
        }
    }
}

fn digest(path: &Path) -> std::io::Result<Sha256Digest> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    if !path.is_absolute() || !metadata.is_file() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 || metadata.len() > PROGRAM_BYTES {
        return Err(std::io::Error::other("an absolute path of a regular file that root owns and nobody else may change"));
    }
    crate::backend::seal_bytes("swarm-scrub", std::fs::File::open(path)?).map(|(_, digest)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("scrub");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_gpu_is_clean_only_by_the_programs_own_word() {
        let place = tempfile::tempdir().unwrap();
        let path = script(place.path(), "#!/bin/sh\n[ \"$1\" = nvidia.com/gpu=0 ]\n");
        let scrubber = Scrubber::probe(&path).unwrap();
        assert!(scrubber.clean("nvidia.com/gpu=0").unwrap().starts_with("cleaned by sha256:"));
        assert!(scrubber.clean("nvidia.com/gpu=1").unwrap_err().contains("ended with"));
        script(place.path(), "#!/bin/sh\n");
        assert!(scrubber.clean("nvidia.com/gpu=0").unwrap_err().contains("not the program that was probed"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o757)).unwrap();
        assert!(Scrubber::probe(&path).is_err() && Scrubber::probe(Path::new("scrub")).is_err() && Scrubber::probe(place.path()).is_err());
    }
}
