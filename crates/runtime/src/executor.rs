//! What runs in the job's first process: Landlock and the last checks before the start, `execve` after it.

use crate::sys;
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::CString;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// The one ABI that this code is written for: files, references, truncation, device requests, scopes.
const LANDLOCK: ABI = ABI::V6;
/// The least that counts as this layer: files and references. An older kernel of the supported ones (6.1) has no more,
/// and the report says that the rest is missing.
pub(crate) const LANDLOCK_LEAST: i64 = 2;

/// What the first process says about itself before it waits for its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Word {
    pub(crate) no_new_privs: bool,
    pub(crate) death_signal: bool,
    pub(crate) landlock: String,
    pub(crate) landlock_held: bool,
    pub(crate) device_filter: String,
    pub(crate) device_filter_held: bool,
}

/// Why `execve` did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecFailure {
    pub(crate) errno: i32,
}

/// Runs the job's program. The descriptors live as long as the process that carries them; all are closed on `execve`.
#[derive(Debug, Clone)]
pub(crate) struct JobExecutor {
    pub(crate) report: RawFd,
    pub(crate) failure: RawFd,
    /// A device node that may be opened, and one that the filter must refuse although its mode lets everybody in.
    pub(crate) allowed_device: RawFd,
    pub(crate) forbidden_device: RawFd,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) writable: Vec<String>,
}

fn tell(fd: RawFd, value: &impl Serialize) -> Result<(), String> {
    let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let written = rustix::io::write(sys::borrow(fd), &bytes).map_err(|error| error.to_string())?;
    if written == bytes.len() { Ok(()) } else { Err("short write to the report pipe".to_owned()) }
}

/// Opens two device nodes as the job would. Only a filter tells them apart: both have the same mode and mount.
fn try_devices(allowed: RawFd, forbidden: RawFd) -> (String, bool) {
    let open = |fd: RawFd| rustix::fs::open(format!("/proc/self/fd/{fd}"), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let say = |result: &Result<OwnedFd, rustix::io::Errno>| result.as_ref().map_or_else(ToString::to_string, |_| "opened".to_owned());
    let (allowed, forbidden) = (open(allowed), open(forbidden));
    let held = allowed.is_ok() && forbidden.as_ref().is_err_and(|error| *error == rustix::io::Errno::PERM);
    (format!("char 1:3 {}; char 10:237 {}", say(&allowed), say(&forbidden)), held)
}

impl JobExecutor {
    fn landlock(&self) -> Result<(String, bool), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let read = AccessFs::from_read(LANDLOCK);
        let all = AccessFs::from_all(LANDLOCK);
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)
            .map_err(|error| text(&error))?
            .scope(Scope::from_all(LANDLOCK))
            .map_err(|error| text(&error))?
            .create()
            .map_err(|error| text(&error))?
            .add_rule(PathBeneath::new(PathFd::new("/").map_err(|error| text(&error))?, read))
            .map_err(|error| text(&error))?;
        for path in &self.writable {
            let Ok(fd) = PathFd::new(path) else { continue };
            let directory = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
            let access = if directory { all } else { AccessFs::from_file(LANDLOCK) };
            rules = rules.add_rule(PathBeneath::new(fd, access)).map_err(|error| text(&error))?;
        }
        let status = rules.restrict_self().map_err(|error| text(&error))?;
        let kernel = sys::landlock_abi().unwrap_or(0);
        let held = status.ruleset != RulesetStatus::NotEnforced && kernel >= LANDLOCK_LEAST;
        let word = match status.ruleset {
            RulesetStatus::FullyEnforced => "fully enforced",
            RulesetStatus::PartiallyEnforced => "partially enforced",
            RulesetStatus::NotEnforced => "not enforced",
        };
        Ok((format!("{word}: asked for ABI 6, the kernel has {kernel}"), held))
    }

    fn candidates(&self) -> Vec<String> {
        let Some(program) = self.argv.first() else { return Vec::new() };
        let path = self.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
        crate::candidates::candidates(program, path)
    }

    fn run(&self) -> i32 {
        let texts = |list: Vec<String>| list.into_iter().filter_map(|text| CString::new(text).ok()).collect::<Vec<_>>();
        let argv = texts(self.argv.clone());
        let env = texts(self.env.iter().map(|(name, value)| format!("{name}={value}")).collect());
        let mut worst = libc::ENOENT;
        for candidate in texts(self.candidates()) {
            match sys::execve(&candidate, &argv, &env) {
                libc::ENOENT | libc::ENOTDIR => {}
                errno => worst = errno,
            }
        }
        worst
    }
}

impl Executor for JobExecutor {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let refuse = ExecutorValidationError::ArgValidationError;
        let death_signal = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_ok();
        let no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
        // Before Landlock, which would refuse both and prove nothing about the filter.
        let (device_filter, device_filter_held) = try_devices(self.allowed_device, self.forbidden_device);
        let (landlock, landlock_held) = self.landlock().unwrap_or_else(|error| (error, false));
        tell(self.report, &Word { no_new_privs, death_signal, landlock, landlock_held, device_filter, device_filter_held }).map_err(refuse)
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // `execve` is given the environment: nothing of this process's own goes over.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let errno = self.run();
        let _ = tell(self.failure, &ExecFailure { errno });
        sys::exit_now(if errno == libc::ENOENT { 127 } else { 126 })
    }
}

/// For descriptors that the executor carries by number.
pub(crate) fn raw(fd: BorrowedFd<'_>) -> RawFd {
    std::os::fd::AsRawFd::as_raw_fd(&fd)
}
