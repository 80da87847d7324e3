//! The node agent's side: start attempts under shims, talk to them, find them again.
//!
//! All calls block; call them from a blocking thread.

mod client;
mod find;

pub use client::{Handle, ShimState, Status};
pub use find::{Found, FoundState};

use crate::clock;
use crate::sandbox::AttemptSpec;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiserror::Error;

/// Why something about supervision failed.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// A file, socket or process of the host.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The shim answered with a refusal.
    #[error("shim refused: {0}")]
    Refused(String),
    /// The shim answered something that is not our protocol.
    #[error("shim answered nonsense: {0}")]
    Protocol(String),
    /// The attempt has ended: its record is in [`Handle::status`].
    #[error("attempt has ended")]
    Ended,
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> SupervisorError {
    let what = what.into();
    move |source| SupervisorError::Io { what, source }
}

/// Why an attempt did not come to be.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its directory is there: it was started before.
    #[error("attempt `{0}` was started before")]
    Exists(String),
    /// The sandbox could not be made, or a layer that was asked for is absent.
    #[error("sandbox was not made: {0}")]
    Create(String),
    /// The host.
    #[error(transparent)]
    Host(#[from] SupervisorError),
}

/// Starts and finds attempts in one directory.
#[derive(Debug)]
pub struct Supervisor {
    jobs: PathBuf,
    shim: OwnedFd,
}

impl Supervisor {
    /// Copies the program into a sealed memory file and takes `jobs` as its directory.
    ///
    /// # Errors
    /// When the program cannot be read or the directory cannot be made.
    pub fn new(jobs: &Path, shim_exe: &Path) -> Result<Self, SupervisorError> {
        std::fs::create_dir_all(jobs).map_err(io(format!("create `{}`", jobs.display())))?;
        std::fs::set_permissions(jobs, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(io("set mode of the jobs directory"))?;
        let jobs = std::fs::canonicalize(jobs).map_err(io("resolve the jobs directory"))?;
        let shim = seal(shim_exe)?;
        Ok(Self { jobs, shim })
    }

    /// Where the directory of an attempt lies.
    #[must_use]
    pub fn directory(&self, attempt: vocabulary::job::AttemptId) -> PathBuf {
        self.jobs.join(attempt.to_string())
    }

    /// Makes the sandbox and waits until it stands, read back, before the program's first instruction.
    /// Call [`Handle::start`] to let it run.
    ///
    /// # Errors
    /// When the attempt was started before, or the sandbox cannot be made whole. Nothing is left behind then.
    pub fn start(&self, spec: &AttemptSpec) -> Result<Handle, StartError> {
        let directory = self.directory(spec.attempt);
        match std::fs::DirBuilder::new().create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(StartError::Exists(spec.attempt.to_string())),
            Err(error) => return Err(io(format!("create `{}`", directory.display()))(error).into()),
        }
        match self.launch(spec, &directory) {
            Ok(handle) => Ok(handle),
            Err(error) => {
                find::clean(spec, &directory);
                Err(error)
            }
        }
    }

    /// Every attempt that lies in the directory, each taken over or brought to its end.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn scan(&self) -> Result<Vec<Found>, SupervisorError> {
        find::scan(&self.jobs)
    }

    fn launch(&self, spec: &AttemptSpec, directory: &Path) -> Result<Handle, StartError> {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(io("set mode of the attempt's directory"))?;
        // Nothing here is forced to the disk: after a power cut the attempt has ended, and another boot id says so.
        let plan = serde_json::to_vec(spec).map_err(|error| StartError::Create(error.to_string()))?;
        crate::sys::write_whole(&directory.join("plan.json"), &plan).map_err(io("write plan.json"))?;
        crate::sys::write_whole(&directory.join("boot_id"), crate::sys::boot_id().as_bytes()).map_err(io("write boot_id"))?;
        let lock = File::create(directory.join("shim.lock")).map_err(io("create shim.lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| io("lock shim.lock")(error.into()))?;
        let errors = File::create(directory.join("shim.err")).map_err(io("create shim.err"))?;
        let (ready, ready_write) = std::io::pipe().map_err(io("make a pipe"))?;
        // The lock travels as standard input: one open file description, locked until the last copy is closed.
        let mut child = Command::new(format!("/proc/self/fd/{}", self.shim.as_raw_fd()))
            .arg(crate::shim::VERB)
            .arg(directory)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(lock)))
            .stdout(Stdio::from(OwnedFd::from(ready_write)))
            .stderr(Stdio::from(OwnedFd::from(errors)))
            .spawn()
            .map_err(io("start the shim"))?;
        let mut line = Vec::new();
        let read = BufReader::new(ready.take(crate::limits::RECORD_BYTES)).read_until(b'\n', &mut line);
        // Nothing but the reaper needs the child: an ended shim must not stay as a zombie.
        std::thread::spawn(move || child.wait());
        read.map_err(io("read the shim's first word"))?;
        match serde_json::from_slice::<crate::shim::FirstWord>(&line) {
            Ok(crate::shim::FirstWord::Created) => Ok(Handle::new(spec.attempt, directory.to_owned(), clock::boottime_ms())),
            Ok(crate::shim::FirstWord::Failed { detail }) => Err(StartError::Create(detail)),
            Err(_) => {
                let tail = std::fs::read_to_string(directory.join("shim.err")).unwrap_or_default();
                Err(StartError::Create(format!("shim died without a word: {}", tail.trim())))
            }
        }
    }
}

fn seal(exe: &Path) -> Result<OwnedFd, SupervisorError> {
    let source = File::open(exe).map_err(io(format!("open `{}`", exe.display())))?;
    crate::backend::seal_bytes("swarm-shim", source).map(|(program, _)| program).map_err(io("seal the program"))
}
