//! A second process that outlives a killed shim for as long as it takes to end the job.
//!
//! The job's first process asked for SIGKILL at the death of the shim, but a job can take that back by `prctl`, and a
//! sandbox that is only half made has not asked yet. The guard holds a descriptor of the shim and waits for its end.
//! It also holds the lock meanwhile: a free lock means that nothing of the attempt runs any more.

use crate::cgroup::Cgroup;
use crate::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long a guard tries: longer than any process needs that can be killed at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shim's view of its guard.
#[derive(Debug)]
pub(super) struct Guard {
    pid: Pid,
    /// Readable once the guard is gone.
    pub(super) pidfd: OwnedFd,
}

impl Guard {
    /// Starts a guard. Only for processes with one thread.
    pub(super) fn post(cgroup: &Cgroup, lock: BorrowedFd<'_>) -> std::io::Result<Self> {
        let shim = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let pid = sys::fork(|| {
            let _ = sys::close_all_but([lock.as_raw_fd(), shim.as_raw_fd()]);
            watch(cgroup, shim.as_fd());
        })?;
        let pid = Pid::from_raw(pid).ok_or_else(|| std::io::Error::other("fork gave no process"))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd })
    }

    /// Ends the guard: the shim has done its work.
    pub(super) fn dismiss(self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn watch(cgroup: &Cgroup, shim: BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(shim, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
    let _ = cgroup.kill_all(Some(rustix::process::getpid().as_raw_nonzero().get()), PATIENCE);
}
