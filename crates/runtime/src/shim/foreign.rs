//! A sandbox by an OCI runtime's program, driven as its command line is: create, start, kill, delete.
//!
//! The runtime's own process is a child of the shim. Its container outlives it, and the shim, which adopts orphans, becomes
//! the parent of the job's first process and owns its end.

use crate::backend::Binary;
use crate::cgroup::Layout;
use crate::sandbox::AttemptSpec;
use crate::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, waitpid};
use rustix::time::Timespec;
use std::ffi::CString;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use vocabulary::runtime::Runtime;

use super::assemble::{STAGE, because};

/// How long one call of a runtime may take: a slow machine has started containers in a tenth of it.
const CALL_PATIENCE: Duration = Duration::from_secs(60);
/// How long the removal of what is dead already may take.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);
/// How much of a runtime's complaint is told.
const COMPLAINT_BYTES: u64 = 4096;
/// The mount that crun must not see: it refuses machines with both versions of control groups.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// What runtimes find in their environment: programs of the system that some of them start.
const ENVIRONMENT: &std::ffi::CStr = c"PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// The launcher, built beside this crate: the first program of a sandbox that a foreign runtime made.
const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));

/// A runtime's program and one container of it.
#[derive(Debug)]
pub(super) struct Foreign {
    runtime: Runtime,
    program: OwnedFd,
    id: String,
    hides_unified: bool,
}

/// What the launcher and the shim share: the launcher's descriptors 3 to 9.
#[derive(Debug)]
pub(super) struct Launcher<'a> {
    pub(super) program: OwnedFd,
    pub(super) plan: File,
    pub(super) report: BorrowedFd<'a>,
    pub(super) start: BorrowedFd<'a>,
    pub(super) failure: BorrowedFd<'a>,
    pub(super) devices: [BorrowedFd<'a>; 2],
}

/// The launcher's path inside: it is executed by descriptor.
pub(super) const LAUNCHER_PATH: &str = "/proc/self/fd/3";

/// The launcher as a sealed file.
pub(super) fn launcher() -> Result<OwnedFd, String> {
    crate::backend::seal_bytes("swarm-launcher", LAUNCHER).map(|(program, _)| program).map_err(because("seal the launcher"))
}

/// What the launcher needs to know: counts, then strings that each end with a NUL, which none of them holds.
pub(super) fn plan(spec: &AttemptSpec, writable: &[String]) -> Result<File, String> {
    let mut text = format!("{}\0{}\0{}\0", spec.argv.len(), spec.env.len(), writable.len());
    let env = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    for part in spec.argv.iter().cloned().chain(env).chain(writable.iter().cloned()) {
        text.push_str(&part);
        text.push('\0');
    }
    let (fd, _) = crate::backend::seal_bytes("swarm-plan", text.as_bytes()).map_err(because("write the launcher's plan"))?;
    Ok(fd.into())
}

/// How a call of the runtime ended.
struct Call {
    status: Option<WaitStatus>,
    output: String,
}

impl Foreign {
    pub(super) fn new(runtime: Runtime, binary: &Binary, id: String, layout: Layout) -> Result<Self, String> {
        Ok(Self { runtime, program: binary.open()?, id, hides_unified: runtime == Runtime::Crun && layout == Layout::Hybrid })
    }

    /// Makes the sandbox, up to its first process, which waits. Gives that process's number.
    pub(super) fn create(&self, stdio: [BorrowedFd<'_>; 3], launcher: Option<&Launcher<'_>>) -> Result<i32, String> {
        let pid_file = format!("{STAGE}/state.pid");
        let bundle = format!("{STAGE}/bundle");
        let mut arguments = vec!["create".to_owned(), "--bundle".to_owned(), bundle, "--pid-file".to_owned(), pid_file.clone()];
        let mut fds = stdio.to_vec();
        if let Some(launcher) = launcher {
            fds.extend([launcher.program.as_fd(), launcher.plan.as_fd(), launcher.report, launcher.start, launcher.failure]);
            fds.extend(launcher.devices);
            arguments.extend(["--preserve-fds".to_owned(), fds.len().saturating_sub(3).to_string()]);
        }
        arguments.push(self.id.clone());
        // What makes the sandbox ends before it is used: its first process is left to this one.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(because("adopt the first process"))?;
        let child = self.spawn(&arguments, fds)?;
        let status = wait(child, CALL_PATIENCE)?;
        if !status.exited() || status.exit_status() != Some(0) {
            return Err(format!("{} create: {}", self.runtime, self.complaint()));
        }
        let text = std::fs::read_to_string(&pid_file).map_err(because("read the runtime's pid file"))?;
        text.trim().parse().ok().filter(|pid| *pid > 1).ok_or_else(|| format!("{} create: its pid file says `{}`", self.runtime, text.trim()))
    }

    /// Lets the first process go on: the launcher, or where there is none the job's own program.
    pub(super) fn start(&self) -> Result<(), String> {
        let call = self.call(&["start", &self.id], CALL_PATIENCE)?;
        if call.status.is_some_and(|status| status.exit_status() == Some(0)) { Ok(()) } else { Err(format!("{} start: {}", self.runtime, self.tell(&call))) }
    }

    /// Sends a signal to the job's first process by the runtime: for those that hide it.
    pub(super) fn signal(&self, name: &str) -> Result<(), String> {
        let call = self.call(&["kill", &self.id, name], CALL_PATIENCE)?;
        if call.status.is_some_and(|status| status.exit_status() == Some(0)) { Ok(()) } else { Err(format!("{} kill: {}", self.runtime, self.tell(&call))) }
    }

    /// Lets the runtime forget what it keeps of a container whose processes are dead.
    pub(super) fn delete(&self) {
        let _ = self.call(&["delete", "--force", &self.id], DELETE_PATIENCE);
    }

    /// Starts a call that ends with the job and prints how: for runtimes that hide the job's processes. Where there is no
    /// such call, the process that the runtime gave for the job's first ends with it, and as it does.
    pub(super) fn waiter(&self) -> Result<Option<(OwnedFd, Pid, PipeReader)>, String> {
        if self.runtime != Runtime::Runsc {
            return Ok(None);
        }
        let null = File::options().read(true).write(true).open("/dev/null").map_err(because("open /dev/null"))?;
        let (output, write) = std::io::pipe().map_err(because("make a pipe"))?;
        let child = self.spawn(&["wait".to_owned(), self.id.clone()], vec![null.as_fd(), write.as_fd(), null.as_fd()])?;
        let pid = Pid::from_raw(child).ok_or("fork gave no process")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(because("hold the runtime's waiter"))?;
        Ok(Some((pidfd, pid, output)))
    }

    fn spawn(&self, arguments: &[String], fds: Vec<BorrowedFd<'_>>) -> Result<i32, String> {
        let mut words = vec![self.runtime.to_string(), "--root".to_owned(), format!("{STAGE}/state"), "--log".to_owned(), log()];
        match self.runtime {
            // Of the platforms that this one has, ptrace needs nothing of the machine.
            Runtime::Runsc => words.extend(["--platform", "ptrace", "--network", "none"].map(str::to_owned)),
            Runtime::Youki | Runtime::Runc | Runtime::Crun | Runtime::Kata => {}
        }
        words.extend(arguments.iter().cloned());
        let argv = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(because("arguments of the runtime"))?;
        let hidden = self.hides_unified.then(|| Path::new(UNIFIED));
        sys::launch(&sys::Launch { program: self.program.as_fd(), argv, env: vec![ENVIRONMENT.to_owned()], fds, hidden }).map_err(because("start the runtime"))
    }

    fn call(&self, arguments: &[&str], patience: Duration) -> Result<Call, String> {
        let null = File::options().read(true).write(true).open("/dev/null").map_err(because("open /dev/null"))?;
        let (mut output, write) = std::io::pipe().map_err(because("make a pipe"))?;
        let words: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let child = self.spawn(&words, vec![null.as_fd(), null.as_fd(), write.as_fd()])?;
        drop(write);
        let status = wait(child, patience)?;
        let mut bytes = Vec::new();
        // A child of the runtime may hold the pipe open: only what is there already is read.
        let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
            bytes.resize(usize::try_from(COMPLAINT_BYTES).unwrap_or(0), 0);
            let read = output.read(&mut bytes).unwrap_or(0);
            bytes.truncate(read);
        }
        Ok(Call { status: Some(status), output: String::from_utf8_lossy(&bytes).trim().to_owned() })
    }

    fn tell(&self, call: &Call) -> String {
        if call.output.is_empty() { self.complaint() } else { call.output.clone() }
    }

    /// The end of the runtime's own log.
    fn complaint(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(log()).and_then(|file| {
            let length = file.metadata()?.len();
            let mut file = file;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length.saturating_sub(COMPLAINT_BYTES)))?;
            file.take(COMPLAINT_BYTES).read_to_end(&mut text)
        });
        match (read, String::from_utf8_lossy(&text).trim()) {
            (Ok(_), said) if !said.is_empty() => said.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; "),
            _ => "it failed without a word".to_owned(),
        }
    }
}

fn log() -> String {
    format!("{STAGE}/runtime.log")
}

/// Waits for a child; kills it when that takes too long.
fn wait(child: i32, patience: Duration) -> Result<WaitStatus, String> {
    let pid = Pid::from_raw(child).ok_or("fork gave no process")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(because("hold the runtime"))?;
    let time = Timespec { tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let ready = loop {
        match poll(&mut fds, Some(&time)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    let ended = ready.map_err(because("wait for the runtime"))? > 0;
    if !ended {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let status = waitpid(Some(pid), WaitOptions::empty()).map_err(because("wait for the runtime"))?;
    match status {
        Some((_, status)) if ended => Ok(status),
        _ => Err(format!("the runtime did not answer within {} s", patience.as_secs())),
    }
}

/// The job's own status, as the waiter printed it: `{"id":"…","exitStatus":7}`.
pub(super) fn waited(output: &[u8]) -> (Option<i32>, Option<i32>) {
    let value: serde_json::Value = serde_json::from_slice(output).unwrap_or_default();
    let status = value.get("exitStatus").and_then(serde_json::Value::as_i64).and_then(|status| i32::try_from(status).ok());
    match status {
        Some(status) if SIGNALS.contains(&status) => (None, Some(status.saturating_sub(128))),
        other => (other, None),
    }
}

/// What a runtime that hides the process says after a signal: 128 and the signal's number. A program's own code of that
/// value cannot be told apart.
const SIGNALS: std::ops::RangeInclusive<i32> = 129..=192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waiters_word_is_code_or_signal() {
        for (said, want) in [
            (r#"{"id":"x","exitStatus":7}"#, (Some(7), None)),
            (r#"{"id":"x","exitStatus":0}"#, (Some(0), None)),
            (r#"{"id":"x","exitStatus":137}"#, (None, Some(9))),
            (r#"{"id":"x"}"#, (None, None)),
            (r#"{"exitStatus":99999999999}"#, (None, None)),
            ("", (None, None)),
        ] {
            assert_eq!(waited(said.as_bytes()), want, "{said}");
        }
    }

    #[test]
    fn the_launchers_plan_is_counted_and_ended() {
        let mut spec = crate::sandbox::attempt_for_tests();
        spec.argv = vec!["sh".to_owned(), String::new()];
        let mut text = String::new();
        plan(&spec, &["/tmp".to_owned()]).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, ["2", "1", "1", "sh", "", "PATH=/bin", "/tmp"].map(|part| format!("{part}\0")).concat());
    }
}
