//! A handle to one living or ended attempt.

use super::{SupervisorError, find, io};
use crate::sandbox::AttemptSpec;
use crate::shim::{Answer, Call, Request};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vocabulary::isolation::IsolationReport;
use vocabulary::job::{AttemptId, Exit, ExitReason, LogFrame};

/// Where a shim stands with its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimState {
    /// The sandbox stands and was read back; the program waits for [`Handle::start`].
    Created,
    /// The program runs.
    Running,
    /// It was told to stop and has its grace time.
    Stopping,
    /// It has ended: [`Status::exit`] is there.
    Ended,
}

/// What a handle sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub state: ShimState,
    /// What isolates it, read back before its first instruction.
    pub isolation: Option<IsolationReport>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// One attempt. Dropping a handle changes nothing about the attempt.
#[derive(Debug, Clone)]
pub struct Handle {
    attempt: AttemptId,
    directory: PathBuf,
    since_boottime_ms: u64,
}

/// How long a shim may take to answer: it only ever waits for its own small files.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a shim may take to make a sandbox before it is given up.
const MAKING: Duration = Duration::from_secs(60);

impl Handle {
    pub(super) const fn new(attempt: AttemptId, directory: PathBuf, since_boottime_ms: u64) -> Self {
        Self { attempt, directory, since_boottime_ms }
    }

    /// The attempt.
    #[must_use]
    pub const fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// When this handle was made, on the boot-time clock.
    #[must_use]
    pub const fn since_boottime_ms(&self) -> u64 {
        self.since_boottime_ms
    }

    /// Where it stands. If the shim is gone without a record, the rest of the attempt is killed and this says
    /// `supervisor_lost`. Waits while a sandbox is still being made.
    ///
    /// # Errors
    /// When the files or the socket cannot be read.
    pub fn status(&self) -> Result<Status, SupervisorError> {
        let isolation = find::read_isolation(&self.directory);
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        loop {
            match self.call(&Request::Status) {
                Ok(Answer::State { state }) if state != ShimState::Ended => return Ok(Status { state, isolation, exit: None }),
                Ok(Answer::State { .. } | Answer::Done) | Err(SupervisorError::Ended) => {
                    // A shim that is still making the sandbox has no socket yet, but has the lock.
                    let making = find::read_exit(&self.directory)?.is_none() && find::lock_held(&self.directory)?;
                    if !making || waited >= MAKING {
                        let exit = find::settle(self.attempt, &self.directory)?;
                        return Ok(Status { state: ShimState::Ended, isolation, exit: Some(exit) });
                    }
                    crate::cgroup::pause(step);
                    waited += step;
                }
                Ok(Answer::Refused { detail }) => return Err(SupervisorError::Refused(detail)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the program run.
    ///
    /// # Errors
    /// [`SupervisorError::Ended`] when it has ended already.
    pub fn start(&self) -> Result<(), SupervisorError> {
        self.done(&Request::Start)
    }

    /// Sends SIGTERM, and kills everything after `grace`.
    ///
    /// # Errors
    /// [`SupervisorError::Ended`] when it has ended already.
    pub fn stop(&self, grace: Duration, reason: ExitReason) -> Result<(), SupervisorError> {
        self.done(&Request::Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), reason })
    }

    /// Freezes, then kills everything at once.
    ///
    /// # Errors
    /// [`SupervisorError::Ended`] when it has ended already.
    pub fn kill(&self, reason: ExitReason) -> Result<(), SupervisorError> {
        self.done(&Request::Kill { reason })
    }

    /// Moves the end of the run lease, in milliseconds of the boot-time clock.
    ///
    /// # Errors
    /// [`SupervisorError::Ended`] when it has ended already.
    pub fn renew(&self, deadline_boottime_ms: u64) -> Result<(), SupervisorError> {
        self.done(&Request::Renew { deadline_boottime_ms })
    }

    /// Frames with a sequence above `after`, at most `max`, oldest first. Works after the end too, until
    /// [`Handle::cleanup`].
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn logs(&self, after: u64, max: usize) -> Result<Vec<LogFrame>, SupervisorError> {
        let spec = find::read_plan(&self.directory)?;
        crate::log::read(&log_directory(&spec, &self.directory), after, max).map_err(io("read the log"))
    }

    /// Removes what an *ended* attempt left: cgroups and its directory with record and log.
    ///
    /// # Errors
    /// [`SupervisorError::Refused`] while it lives, or when something could not be removed.
    pub fn cleanup(&self) -> Result<(), SupervisorError> {
        if find::lock_held(&self.directory)? {
            // The record is written a moment before the shim is gone: wait for the lock instead of refusing.
            if find::read_exit(&self.directory)?.is_none() {
                return Err(SupervisorError::Refused("the attempt lives".to_owned()));
            }
            find::wait_unlocked(&self.directory)?;
        }
        find::remove(self.attempt, &self.directory)
    }

    fn done(&self, request: &Request) -> Result<(), SupervisorError> {
        match self.call(request)? {
            Answer::Done | Answer::State { .. } => Ok(()),
            Answer::Refused { detail } => Err(SupervisorError::Refused(detail)),
        }
    }

    fn call(&self, request: &Request) -> Result<Answer, SupervisorError> {
        // Through a descriptor of the directory: a socket's name has at most 107 bytes.
        let directory = match std::fs::File::open(&self.directory) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(SupervisorError::Ended),
            Err(error) => return Err(io("open the attempt's directory")(error)),
        };
        let Ok(mut stream) = UnixStream::connect(format!("/proc/self/fd/{}/ctl.sock", directory.as_raw_fd())) else {
            return Err(SupervisorError::Ended);
        };
        stream.set_read_timeout(Some(ANSWER)).map_err(io("set a time limit"))?;
        stream.set_write_timeout(Some(ANSWER)).map_err(io("set a time limit"))?;
        let mut line = serde_json::to_vec(&Call { request: request.clone() }).map_err(|error| SupervisorError::Protocol(error.to_string()))?;
        line.push(b'\n');
        if stream.write_all(&line).is_err() {
            return Err(SupervisorError::Ended);
        }
        let mut answer = Vec::new();
        let limit = u64::try_from(crate::limits::CONTROL_LINE_BYTES).unwrap_or(u64::MAX);
        match BufReader::new(stream.take(limit)).read_until(b'\n', &mut answer) {
            Ok(0) => return Err(SupervisorError::Ended),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) => return Err(SupervisorError::Ended),
            Err(error) => return Err(io("read the shim's answer")(error)),
        }
        serde_json::from_slice(&answer).map_err(|error| SupervisorError::Protocol(error.to_string()))
    }
}

pub(crate) fn log_directory(spec: &AttemptSpec, directory: &Path) -> PathBuf {
    spec.log_dir.clone().unwrap_or_else(|| directory.join("log"))
}
