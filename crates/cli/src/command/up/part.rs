//! One part of `swarm up`: a child process of the same program, its input, its log, and its deaths.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::CliError;
use crate::host::{self, Process};
use crate::output::{note, visible};
use crate::supervise::Restarts;

/// Bytes of a log before it is put aside; the one before that goes.
const LOG_MAX: u64 = 16 << 20;
/// Bytes of a log's end that are kept in memory for the reason of a death.
const TAIL_MAX: usize = 8 << 10;
/// Lines of that end that are shown.
const TAIL_LINES: usize = 6;

/// A part.
pub(super) struct Part {
    pub(super) name: &'static str,
    arguments: Vec<String>,
    /// What it reads first; then its input stays open until we end.
    secret: Option<Zeroizing<String>>,
    log: PathBuf,
    echo: bool,
    pub(super) restarts: Restarts,
    /// When it is to be started again.
    pub(super) due: Option<Instant>,
    running: Option<Live>,
    tail: Tail,
}

/// What happens to a part.
pub(super) enum Happening {
    /// Its child ended.
    Ended(ExitStatus),
    /// It is to be started again.
    Due,
}

struct Live {
    child: Child,
    process: Option<Process>,
    /// Held open: its end is how the part learns of ours.
    _input: ChildStdin,
    readers: JoinSet<()>,
}

#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Part {
    pub(super) fn new(name: &'static str, arguments: Vec<String>, secret: Option<Zeroizing<String>>, log: PathBuf, echo: bool) -> Self {
        Self { name, arguments, secret, log, echo, restarts: Restarts::default(), due: None, running: None, tail: Tail::default() }
    }

    /// Replaces the value of a flag for later starts.
    pub(super) fn set(&mut self, flag: &str, value: &str) {
        let place = self.arguments.iter().position(|argument| argument == flag).and_then(|flag| self.arguments.get_mut(flag.saturating_add(1)));
        if let Some(place) = place {
            value.clone_into(place);
        }
    }

    /// The child's process, as it is recorded.
    pub(super) fn process(&self) -> Option<Process> {
        self.running.as_ref()?.process.clone()
    }

    /// Starts the child. It gets a group of its own, so that Ctrl-C reaches it through us and in order.
    pub(super) async fn start(&mut self) -> Result<(), CliError> {
        self.due = None;
        self.tail.clear();
        let failed = |error: std::io::Error| CliError::new(1, format!("cannot start swarm {}: {error}", self.name));
        let mut command = Command::new(host::program());
        command
            .arg0("swarm")
            .args(&self.arguments)
            .env_clear()
            .env("PATH", host::search_path())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for name in [crate::logs::FILTER, crate::logs::FORMAT, "RUST_BACKTRACE", "TZ"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = command.spawn().map_err(failed)?;
        let process = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Process::of);
        let mut input = child.stdin.take().ok_or_else(|| CliError::new(1, "a child without an input"))?;
        if let Some(secret) = &self.secret {
            // A child that died before it read says why in its log.
            let _ = input.write_all(secret.as_bytes()).await;
            let _ = input.write_all(b"\n").await;
            let _ = input.flush().await;
        }
        let mut readers = JoinSet::new();
        if let Some(errors) = child.stderr.take() {
            let log = open_log(&self.log)?;
            readers.spawn(pump(errors, log, self.log.clone(), self.tail.clone(), self.echo.then_some(self.name)));
        }
        self.running = Some(Live { child, process, _input: input, readers });
        Ok(())
    }

    /// Waits for the child's end; for ever while there is none.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        let Some(live) = &mut self.running else { return std::future::pending().await };
        let Ok(status) = live.child.wait().await else { return std::future::pending().await };
        // What it said last is on its way: the pipe ends with the child, or with what it left running.
        let _ = tokio::time::timeout(Duration::from_millis(500), live.readers.join_next()).await;
        self.running = None;
        status
    }

    /// Waits for what happens next: the child's end, or the moment of its next start.
    pub(super) async fn next(&mut self) -> Happening {
        match (self.running.is_some(), self.due) {
            (true, _) => Happening::Ended(self.ended().await),
            (false, Some(due)) => {
                tokio::time::sleep_until(due).await;
                Happening::Due
            }
            (false, None) => std::future::pending().await,
        }
    }

    /// Whether a child runs.
    pub(super) const fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Sends a signal to the child, if one runs.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = self.process() {
            // A child that ended meanwhile needs no signal.
            let _ = process.signal(signal);
        }
    }

    /// Why it ended: its own error if it told one, else the last line of its log.
    pub(super) fn reason(&self, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        match (self.last_error(), self.tail.lines().pop()) {
            (Some(error), _) => format!("{how}: {error}"),
            (None, Some(line)) => format!("{how}; its last words: {}", line.trim()),
            (None, None) => format!("{how}; {} says nothing", self.log.display()),
        }
    }

    /// The last error that it told, in one line.
    pub(super) fn last_error(&self) -> Option<String> {
        self.tail.lines().into_iter().rev().find_map(|line| {
            let plain = || line.strip_prefix("error")?.split_once(": ").map(|(_, text)| text.to_owned());
            crate::logs::error_in(&line).or_else(plain)
        })
    }
}

impl Tail {
    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(TAIL_MAX);
        kept.drain(..surplus);
    }
    fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(TAIL_LINES).map(visible).collect();
        lines.reverse();
        lines
    }
}

fn open_log(path: &Path) -> Result<File, CliError> {
    File::options().append(true).create(true).mode(0o600).open(path).map_err(|error| CliError::new(1, format!("{}: {error}", path.display())))
}

/// Takes what a child says: into its log, of which the last part is kept, and to our own standard error when asked to.
async fn pump(mut errors: ChildStderr, mut log: File, path: PathBuf, tail: Tail, echo: Option<&'static str>) {
    let mut buffer = vec![0; 8 << 10];
    let mut line: Vec<u8> = Vec::new();
    while let Ok(read) = errors.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        tail.push(bytes);
        if log.metadata().is_ok_and(|metadata| metadata.len() >= LOG_MAX)
            && std::fs::rename(&path, path.with_extension("log.1")).is_ok()
            && let Ok(fresh) = open_log(&path)
        {
            log = fresh;
        }
        // A full disk must not stop the part.
        let _ = log.write_all(bytes);
        if let Some(name) = echo {
            line.extend_from_slice(bytes);
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let one: Vec<u8> = line.drain(..=end).collect();
                note(&format!("{name:6} | {}", visible(String::from_utf8_lossy(&one).trim_end())));
            }
            if line.len() > TAIL_MAX {
                line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_harmless() {
        let tail = Tail::default();
        for number in 0..5000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        tail.push(b"error [x]: the \x1b[31mend\n\n");
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines.last().unwrap(), "error [x]: the \\u{1b}[31mend");
        assert!(tail.0.lock().unwrap().len() <= TAIL_MAX);
    }

    #[test]
    fn a_later_start_takes_the_ports_of_the_first() {
        let arguments = ["server", "--listen", "127.0.0.1:0", "--user", "x"].map(str::to_owned).to_vec();
        let mut part = Part::new("server", arguments, None, PathBuf::new(), false);
        part.set("--listen", "127.0.0.1:4711");
        part.set("--absent", "1");
        assert_eq!(part.arguments, ["server", "--listen", "127.0.0.1:4711", "--user", "x"]);
    }

    #[test]
    fn the_reason_names_code_or_signal() {
        let part = Part::new("server", Vec::new(), None, PathBuf::from("/log/server.log"), false);
        assert_eq!(part.reason(ExitStatus::from_raw(9)), "was ended by signal 9; /log/server.log says nothing");
        part.tail.push(b"starting\nerror: the seal: wrong passphrase\nhint: try again\n");
        assert_eq!(part.reason(ExitStatus::from_raw(1 << 8)), "ended with code 1: the seal: wrong passphrase");
        assert_eq!(part.last_error().as_deref(), Some("the seal: wrong passphrase"));
        part.tail.clear();
        part.tail.push(b"{\"fields\":{\"message\":\"the seal: wrong passphrase\"},\"level\":\"ERROR\",\"target\":\"swarm\"}\n");
        assert_eq!(part.last_error().as_deref(), Some("the seal: wrong passphrase"));
        part.tail.clear();
        part.tail.push(b"{\"fields\":{\"message\":\"tried again\"},\"level\":\"ERROR\",\"target\":\"control::driver\"}\n");
        assert_eq!(part.last_error(), None, "what is traced is no end");
        part.tail.clear();
        part.tail.push(b"starting\n  no error: all well\n");
        assert_eq!(part.reason(ExitStatus::from_raw(15)), "was ended by signal 15; its last words: no error: all well");
    }
}
