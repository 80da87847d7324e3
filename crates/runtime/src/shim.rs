//! The shim: one process with one thread per attempt, from before the sandbox until after its end.

mod assemble;
mod control;
mod events;
mod foreign;
mod guard;
mod program;

pub(crate) use assemble::try_idmapped_overlay;

use crate::cgroup::{Cgroup, Layout};
use crate::sandbox::AttemptSpec;
use crate::supervisor::ShimState;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vocabulary::job::ExitReason;

/// The hidden verb.
pub const VERB: &str = "__shim";

/// What a shim says to whoever started it, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(crate) enum FirstWord {
    Created,
    Failed { detail: String },
}

/// One call over `ctl.sock`: a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) request: Request,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    Start,
    Stop { grace_ms: u64, reason: ExitReason },
    Kill { reason: ExitReason },
    Renew { deadline_boottime_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    State { state: ShimState },
    Done,
    Refused { detail: String },
}

/// Runs the shim, or the probes of [`crate::probe::machine`], if the arguments ask for it. A program that is to be
/// started by [`crate::supervisor::Supervisor`] calls this in the first line of `main`, before any thread.
#[must_use]
pub fn branch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let verb = arguments.next()?;
    if verb == crate::probe::VERB {
        return Some(crate::probe::run(Path::new(&arguments.next().unwrap_or_else(|| "/".into()))));
    }
    if verb != VERB {
        return None;
    }
    let Some(directory) = arguments.next() else { return Some(ExitCode::from(2)) };
    Some(run(Path::new(&directory)))
}

/// The attempt's directory, held by a descriptor: its path may be covered by a mount of ours.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

fn run(path: &Path) -> ExitCode {
    // The lock came as standard input and the ear of the agent as standard output: both move away from there, since
    // the job's first process is a copy of this one.
    let moved = (|| -> std::io::Result<(OwnedFd, std::fs::File)> {
        // Whatever else came over from the program that started this one has no business beside a job.
        crate::sys::close_all_but([0, 1])?;
        let lock = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 10)?;
        let word = rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), 10)?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok((lock, word.into()))
    })();
    let Ok((lock, mut word)) = moved else { return ExitCode::from(2) };
    let _ = rustix::process::setsid();
    let say = |word: &mut std::fs::File, first: &FirstWord| {
        // A whole line is the end of it: the job's first process has a copy of this pipe until it executes its program.
        let _ = serde_json::to_vec(first).map(|mut line| {
            line.push(b'\n');
            word.write_all(&line)
        });
    };
    let created = prepare(path, lock.as_fd());
    let code = match created {
        Ok(Made { directory, created, guard }) => {
            // The word comes after the socket: whoever hears it may call at once.
            let watched = events::watch(&directory, created, guard, lock.as_fd(), move || say(&mut word, &FirstWord::Created));
            match watched {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let _ = std::fs::write(directory.join("shim.err"), error.to_string());
                    ExitCode::from(125)
                }
            }
        }
        Err(detail) => {
            say(&mut word, &FirstWord::Failed { detail });
            ExitCode::from(125)
        }
    };
    drop(lock);
    code
}

struct Made {
    directory: Directory,
    created: assemble::Created,
    guard: guard::Guard,
}

fn prepare(path: &Path, lock: BorrowedFd<'_>) -> Result<Made, String> {
    let directory = Directory::open(path).map_err(|error| format!("open the attempt's directory: {error}"))?;
    let plan = std::fs::read(directory.join("plan.json")).map_err(|error| format!("read plan.json: {error}"))?;
    let spec: AttemptSpec = serde_json::from_slice(&plan).map_err(|error| format!("plan.json: {error}"))?;
    let cgroup = Cgroup::of(&spec);
    if cgroup.layout() == Layout::Legacy {
        return Err("this machine has legacy control groups alone: jobs cannot be killed safely there".to_owned());
    }
    // On hybrid machines it goes there after the birth of the job's first process, which shall not see that place.
    if cgroup.layout() == Layout::Unified {
        cgroup.join_shim().map_err(|error| format!("join the shim's control group: {error}"))?;
    }
    // From here on a killed shim takes everything with it, however far it came.
    let guard = guard::Guard::post(&cgroup, lock).map_err(|error| format!("start the guard: {error}"))?;
    match assemble::create(&directory, &spec) {
        Ok(created) => Ok(Made { directory, created, guard }),
        Err(error) => {
            guard.dismiss();
            Err(error)
        }
    }
}
