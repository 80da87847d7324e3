//! The two halves of a job's cgroup: limits and handles. Unified: one path. Hybrid: v1 controllers and `unified/`.

use crate::sandbox::AttemptSpec;
use rustix::event::{PollFd, poll};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

/// How this machine lays its control groups out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Unified,
    Hybrid,
    Legacy,
}

impl Layout {
    pub(crate) fn detect() -> Self {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            Self::Unified
        } else if Path::new(ROOT).join("unified/cgroup.controllers").exists() {
            Self::Hybrid
        } else {
            Self::Legacy
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unified => "unified",
            Self::Hybrid => "hybrid",
            Self::Legacy => "legacy",
        }
    }
}

/// The v1 controllers that hybrid machines offer; those that are absent are skipped.
const CONTROLLERS: [&str; 10] = ["memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "blkio", "freezer", "net_cls", "hugetlb"];

/// The mounted hierarchies in which attempts have groups.
pub(crate) fn roots() -> Vec<PathBuf> {
    if Layout::detect() == Layout::Unified {
        return vec![PathBuf::from(ROOT)];
    }
    let names = CONTROLLERS.iter().copied().chain(["systemd", "unified"]);
    names.map(|name| Path::new(ROOT).join(name)).filter(|path| path.exists()).collect()
}

/// The cgroup of one attempt, and beside it the shim's.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    layout: Layout,
    path: String,
}

impl Cgroup {
    pub(crate) fn of(spec: &AttemptSpec) -> Self {
        Self { layout: Layout::detect(), path: format!("{}/{}", spec.cgroup_parent.trim_matches('/'), spec.attempt) }
    }

    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    /// The absolute path for the OCI specification.
    pub(crate) fn oci_path(&self) -> String {
        format!("/{}", self.path)
    }

    /// The directory of the unified hierarchy: freeze, kill, pressure.
    pub(crate) fn handle(&self) -> PathBuf {
        match self.layout {
            Layout::Unified => Path::new(ROOT).join(&self.path),
            Layout::Hybrid | Layout::Legacy => Path::new(ROOT).join("unified").join(&self.path),
        }
    }

    /// The file of a limit.
    pub(crate) fn limit(&self, controller: &str, v1: &str, v2: &str) -> PathBuf {
        match self.layout {
            Layout::Unified => Path::new(ROOT).join(&self.path).join(v2),
            Layout::Hybrid | Layout::Legacy => Path::new(ROOT).join(controller).join(&self.path).join(v1),
        }
    }

    pub(crate) fn read_limit(&self, controller: &str, v1: &str, v2: &str) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.limit(controller, v1, v2))?.trim().to_owned())
    }

    /// Where the shim lives: beside the job, so that no limit of the job is the shim's. In the unified half alone.
    fn shim(&self) -> PathBuf {
        let mut path = self.handle().into_os_string();
        path.push(".shim");
        path.into()
    }

    fn directories(&self) -> Vec<PathBuf> {
        roots().into_iter().map(|root| root.join(&self.path)).filter(|path| path.exists()).collect()
    }

    /// Moves the calling process, the shim, into its own group.
    pub(crate) fn join_shim(&self) -> io::Result<()> {
        let place = self.shim();
        std::fs::create_dir_all(&place)?;
        std::fs::write(place.join("cgroup.procs"), "0")
    }

    /// Puts a process into the unified half, which a v1 manager leaves out; 0 is the caller.
    pub(crate) fn join_handle(&self, pid: i32) -> io::Result<()> {
        let handle = self.handle();
        std::fs::create_dir_all(&handle)?;
        std::fs::write(handle.join("cgroup.procs"), pid.to_string())
    }

    /// What libcontainer leaves open on unified machines: swap, and whether the kernel kills a job as a whole.
    pub(crate) fn complete_limits(&self) -> io::Result<()> {
        if self.layout != Layout::Unified {
            return Ok(());
        }
        let swap = self.handle().join("memory.swap.max");
        if swap.exists() {
            std::fs::write(swap, "0")?;
        }
        std::fs::write(self.handle().join("memory.oom.group"), "1")
    }

    pub(crate) fn freeze(&self) -> io::Result<()> {
        std::fs::write(self.handle().join("cgroup.freeze"), "1")
    }

    fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.directories().iter().flat_map(|directory| members(directory)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills until nothing is left in any half, or `limit` is over.
    pub(crate) fn kill(&self, limit: Duration) -> io::Result<()> {
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            let handle = self.handle();
            match std::fs::write(handle.join("cgroup.kill"), "1") {
                Ok(()) => {}
                // The group was never made, or somebody has just removed it: nothing is in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
            let left = self.pids();
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                kill_member(pid, || self.pids());
            }
            if waited >= limit {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of the attempt did not die"));
            }
            pause(step);
            waited += step;
        }
    }

    /// Kills whatever makes, watches or is the job, but not `except`. What makes a sandbox goes first on unified machines:
    /// it moves itself into the job's group, never back. On hybrid ones it is in the job's group from its birth.
    pub(crate) fn kill_all(&self, except: Option<i32>, limit: Duration) -> io::Result<()> {
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            let others = members(&self.shim()).into_iter().filter(|pid| Some(*pid) != except).collect::<Vec<_>>();
            if others.is_empty() {
                break;
            }
            for pid in others {
                kill_member(pid, || members(&self.shim()));
            }
            if waited >= limit {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the supervisor did not die"));
            }
            pause(step);
            waited += step;
        }
        self.kill(limit)
    }

    /// Removes every directory of the job; waits a moment for processes on their way out.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(|| self.directories())
    }

    /// Removes every directory of the job and its shim.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        remove(|| self.directories().into_iter().chain(Some(self.shim()).filter(|path| path.exists())).collect())
    }

    pub(crate) fn oom_kills(&self) -> u64 {
        let text = self.read_limit("memory", "memory.oom_control", "memory.events").unwrap_or_default();
        field(&text, "oom_kill")
    }

    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.read_limit("memory", "memory.max_usage_in_bytes", "memory.peak").ok()?.parse().ok()
    }

    pub(crate) fn cpu_ms(&self) -> Option<u64> {
        if self.layout == Layout::Unified {
            let text = self.read_limit("cpu", "", "cpu.stat").ok()?;
            return Some(field(&text, "usage_usec") / 1000);
        }
        let nanos: u64 = self.read_limit("cpuacct", "cpuacct.usage", "").ok()?.parse().ok()?;
        Some(nanos / 1_000_000)
    }
}

/// The processes that a group lists.
fn members(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect()
}

/// Kills one process that a group lists, by descriptor and only if the group still lists it then.
fn kill_member(pid: i32, listed: impl Fn() -> Vec<i32>) {
    let Some(raw) = rustix::process::Pid::from_raw(pid) else { return };
    let Ok(fd) = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) else { return };
    if listed().contains(&pid) {
        let _ = rustix::process::pidfd_send_signal(&fd, rustix::process::Signal::KILL);
    }
}

fn remove(directories: impl Fn() -> Vec<PathBuf>) -> io::Result<()> {
    let mut last = None;
    for _ in 0..400 {
        last = None;
        for directory in directories() {
            if let Err(error) = std::fs::remove_dir(&directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                last = Some(error);
            }
        }
        if last.is_none() {
            return Ok(());
        }
        pause(Duration::from_millis(5));
    }
    last.map_or(Ok(()), Err)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Waits without a thread of its own: `poll` on nothing.
pub(crate) fn pause(time: Duration) {
    let none: &mut [PollFd<'_>] = &mut [];
    let _ = poll(none, rustix::event::Timespec::try_from(time).ok().as_ref());
}
