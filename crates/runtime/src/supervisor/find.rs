//! Finding attempts again: alive, ended, lost with their supervisor, or from before a reboot.

use super::{Handle, SupervisorError, io};
use crate::cgroup::Cgroup;
use crate::clock;
use crate::sandbox::AttemptSpec;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use vocabulary::isolation::IsolationReport;
use vocabulary::job::{AttemptId, Exit, ExitReason};

/// How long the death of killed processes may take before somebody has to look.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// One attempt that lay in the directory.
#[derive(Debug)]
pub struct Found {
    /// The attempt.
    pub attempt: AttemptId,
    /// What it was started with, if that can still be read.
    pub spec: Option<AttemptSpec>,
    /// Its handle: for cleaning up, and for logs that still lie there.
    pub handle: Handle,
    /// Alive or ended.
    pub state: FoundState,
}

/// What was found.
#[derive(Debug)]
pub enum FoundState {
    /// Its shim lives: talk to it by [`Found::handle`].
    Alive,
    /// It has ended, perhaps just now by this scan.
    Ended(Exit),
}

pub(super) fn scan(jobs: &Path) -> Result<Vec<Found>, SupervisorError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(jobs).map_err(io(format!("read `{}`", jobs.display())))? {
        let entry = entry.map_err(io(format!("read `{}`", jobs.display())))?;
        let Some(attempt) = entry.file_name().to_str().and_then(parse_name) else {
            continue;
        };
        let directory = entry.path();
        let handle = Handle::new(attempt, directory.clone(), clock::boottime_ms());
        let state = if lock_held(&directory)? { FoundState::Alive } else { FoundState::Ended(settle(attempt, &directory)?) };
        found.push(Found { attempt, spec: read_plan(&directory).ok(), handle, state });
    }
    found.sort_by_key(|found| found.attempt);
    Ok(found)
}

fn parse_name(name: &str) -> Option<AttemptId> {
    let (job, attempt) = name.split_once('.')?;
    Some(AttemptId { job: job.parse().ok()?, attempt: attempt.parse().ok()? })
}

pub(super) fn lock_held(directory: &Path) -> Result<bool, SupervisorError> {
    use rustix::fs::{FlockOperation, flock};
    let file = match File::open(directory.join("shim.lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io("open shim.lock")(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(io("try shim.lock")(error.into())),
    }
}

/// Waits until nothing of the attempt runs any more.
///
/// # Errors
/// When that takes longer than [`LOCK_PATIENCE`].
pub(super) fn wait_unlocked(directory: &Path) -> Result<(), SupervisorError> {
    let step = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while lock_held(directory)? {
        if waited >= LOCK_PATIENCE {
            return Err(SupervisorError::Refused("a process of the attempt does not die".to_owned()));
        }
        crate::cgroup::pause(step);
        waited += step;
    }
    Ok(())
}

/// Ends whatever runs of the attempt and waits for it to be gone.
fn end(spec: &AttemptSpec, directory: &Path) -> Result<(), SupervisorError> {
    let cgroup = Cgroup::of(spec);
    cgroup.kill_all(None, LOCK_PATIENCE).map_err(io("kill the rest of the attempt"))?;
    wait_unlocked(directory)?;
    cgroup.remove_all().map_err(io("remove the attempt's cgroups"))
}

/// The record of an attempt whose shim is gone; made here if the shim left none.
pub(super) fn settle(attempt: AttemptId, directory: &Path) -> Result<Exit, SupervisorError> {
    // A shim writes its record and then goes: look at the record only once the lock is free.
    if read_exit(directory)?.is_none() && lock_held(directory)? {
        wait_unlocked(directory)?;
    }
    if let Some(exit) = read_exit(directory)? {
        return Ok(exit);
    }
    let written = std::fs::read_to_string(directory.join("boot_id")).unwrap_or_default();
    // An agent that died before it wrote the id says nothing about a restart.
    let same_boot = written.trim().is_empty() || written.trim() == crate::sys::boot_id();
    let detail = if same_boot { "its supervisor died" } else { "the machine restarted" };
    if let Ok(spec) = read_plan(directory) {
        end(&spec, directory)?;
    }
    let exit = Exit {
        reason: if same_boot { ExitReason::SupervisorLost } else { ExitReason::Reboot },
        code: None,
        signal: None,
        detail: detail.to_owned(),
        oom_kills: 0,
        peak_memory_bytes: None,
        cpu_ms: None,
        started: None,
        ended: clock::wall(),
    };
    let bytes = serde_json::to_vec(&exit).map_err(|error| SupervisorError::Protocol(error.to_string()))?;
    if directory.exists() {
        crate::sys::write_durably(&directory.join("exit.json"), &bytes).map_err(io(format!("write exit.json of `{attempt}`")))?;
    }
    Ok(exit)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(crate::limits::RECORD_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn read_exit(directory: &Path) -> Result<Option<Exit>, SupervisorError> {
    match read_bounded(&directory.join("exit.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| SupervisorError::Protocol(format!("exit.json: {error}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read exit.json")(error)),
    }
}

pub(super) fn read_isolation(directory: &Path) -> Option<IsolationReport> {
    serde_json::from_slice(&read_bounded(&directory.join("isolation.json")).ok()?).ok()
}

pub(super) fn read_plan(directory: &Path) -> Result<AttemptSpec, SupervisorError> {
    let bytes = read_bounded(&directory.join("plan.json")).map_err(io("read plan.json"))?;
    serde_json::from_slice(&bytes).map_err(|error| SupervisorError::Protocol(format!("plan.json: {error}")))
}

/// After a failed start: everything goes, errors change nothing about the failure that is reported.
pub(super) fn clean(spec: &AttemptSpec, directory: &Path) {
    let _ = end(spec, directory);
    let _ = std::fs::remove_dir_all(directory);
}

pub(super) fn remove(attempt: AttemptId, directory: &Path) -> Result<(), SupervisorError> {
    if let Ok(spec) = read_plan(directory) {
        end(&spec, directory)?;
    }
    match std::fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(format!("remove the directory of `{attempt}`"))(error)),
    }
}
