//! The job's program in its sandbox, by whatever made that: how it is started, asked to end, and what it ended with.

use super::foreign::{Foreign, waited};
use libcontainer::container::Container;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, pidfd_send_signal, waitpid};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What waits for its start.
#[derive(Debug)]
pub(super) enum Program {
    /// libcontainer made the sandbox; its executor waits.
    Embedded(Box<Container>),
    /// A foreign runtime made it; our launcher waits for a byte.
    Launched {
        /// The runtime.
        foreign: Foreign,
        /// Where the launcher listens.
        go: Option<PipeWriter>,
    },
    /// A foreign runtime made it and hides what is inside.
    Hidden {
        /// The runtime.
        foreign: Foreign,
        /// Ends with the job, after its start; none where the first process is one that can be waited for.
        waiter: Option<Waiter>,
    },
}

/// A call of the runtime that ends when the job does.
#[derive(Debug)]
pub(super) struct Waiter {
    pidfd: OwnedFd,
    pid: Pid,
    output: PipeReader,
    /// How the first process ended, once somebody has waited for it.
    first: Option<WaitStatus>,
}

impl Program {
    pub(super) fn start(&mut self) -> Result<(), String> {
        match self {
            Self::Embedded(container) => container.start().map_err(|error| error.to_string()),
            Self::Launched { go, .. } => {
                let mut go = go.take().ok_or("it was started before")?;
                go.write_all(b"g").map_err(|error| format!("the launcher does not listen: {error}"))
            }
            Self::Hidden { foreign, waiter } => {
                foreign.start()?;
                *waiter = foreign.waiter()?.map(|(pidfd, pid, output)| Waiter { pidfd, pid, output, first: None });
                Ok(())
            }
        }
    }

    /// Asks the job's first process to end.
    pub(super) fn terminate(&self, pidfd: BorrowedFd<'_>) {
        match self {
            Self::Embedded(_) | Self::Launched { .. } => {
                let _ = pidfd_send_signal(pidfd, Signal::TERM);
            }
            Self::Hidden { foreign, .. } => {
                let _ = foreign.signal("TERM");
            }
        }
    }

    /// Becomes readable at the end of the job, where its first process's own descriptor does not say it.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Hidden { waiter: Some(waiter), .. } => Some(waiter.pidfd.as_fd()),
            Self::Embedded(_) | Self::Launched { .. } | Self::Hidden { waiter: None, .. } => None,
        }
    }

    /// Whether the end of the first process is news while the end of the job is waited for elsewhere.
    pub(super) const fn watches_first(&self) -> bool {
        matches!(self, Self::Hidden { waiter: Some(Waiter { first: None, .. }), .. })
    }

    /// The first process has ended. Nobody but this one can wait for it, and the runtime's own call takes it as alive until
    /// somebody has: for seconds.
    pub(super) fn first_ended(&mut self, pid: i32) {
        if let Self::Hidden { waiter: Some(waiter), .. } = self
            && waiter.first.is_none()
        {
            waiter.first = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG).ok().flatten().map(|(_, status)| status);
        }
    }

    /// Code and signal of the job's program. The first process is dead or about to be.
    pub(super) fn status(&mut self, pid: i32) -> std::io::Result<(Option<i32>, Option<i32>)> {
        if let Self::Hidden { waiter: Some(waiter), .. } = self {
            let mut said = Vec::new();
            let _ = waitpid(Some(waiter.pid), WaitOptions::empty());
            (&waiter.output).take(4096).read_to_end(&mut said)?;
            let (code, signal) = waited(&said);
            if code.is_some() || signal.is_some() {
                return Ok((code, signal));
            }
        }
        let status = match self {
            Self::Hidden { waiter: Some(Waiter { first: Some(first), .. }), .. } => Some(*first),
            Self::Hidden { .. } | Self::Embedded(_) | Self::Launched { .. } => waitpid(Pid::from_raw(pid), WaitOptions::empty())?.map(|(_, status)| status),
        };
        Ok((status.and_then(WaitStatus::exit_status), status.and_then(WaitStatus::terminating_signal)))
    }

    /// Lets a foreign runtime forget the container. All its processes are dead.
    pub(super) fn forget(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Launched { foreign, .. } | Self::Hidden { foreign, .. } => {
                // The runtime looks whether its processes are gone, and takes one that nobody has waited for as alive.
                while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
                foreign.delete();
            }
        }
    }
}
