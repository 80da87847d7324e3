//! An image made of a static busybox, a supervisor with a directory of its own, and waiting with a deadline.

#[path = "../../../../tests/src/groups.rs"]
#[expect(unreachable_pub, reason = "a file of the tests from end to end")]
mod groups;

use groups::Group;
use runtime::backend::Backend;
use runtime::leftovers;
use runtime::sandbox::AttemptSpec;
use runtime::supervisor::{Handle, ShimState, StartError, Supervisor};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vocabulary::isolation::{IsolationReport, LayerVerdict};
use vocabulary::job::{AttemptId, Exit, JobLimits, LogFrame, LogStream};

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_runtime-shim");
pub(crate) const ESCAPE_PROBE: &str = env!("CARGO_BIN_EXE_escape-probe");
const MIB: u64 = 1 << 20;

/// A block of ids, a parent group and a directory that no other test process has.
pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) supervisor: Supervisor,
    pub(crate) parent: Group,
    backend: Backend,
    next: AtomicU32,
}

/// How a job ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) isolation: IsolationReport,
}

impl Bench {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make sandboxes and need root");
        let directory = tempfile::tempdir().unwrap();
        build_image(&directory.path().join("image"));
        let supervisor = Supervisor::new(&directory.path().join("jobs"), Path::new(SHIM)).unwrap();
        Self { directory, supervisor, parent: Group::new("jobs"), backend: backend(), next: AtomicU32::new(0) }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.directory.path().join("jobs")
    }

    /// Another supervisor over the same directory: what a restarted agent has.
    pub(crate) fn restarted(&self) -> Supervisor {
        Supervisor::new(&self.jobs(), Path::new(SHIM)).unwrap()
    }

    pub(crate) fn spec<T: Into<String>>(&self, argv: impl IntoIterator<Item = T>) -> AttemptSpec {
        let pid = std::process::id();
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [7; 16];
        id[..4].copy_from_slice(&pid.to_be_bytes());
        id[4..8].copy_from_slice(&count.to_be_bytes());
        AttemptSpec {
            attempt: AttemptId { job: vocabulary::JobId::from_bytes(id), attempt: 1 },
            image_root: self.image(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            uid: 0,
            gid: 0,
            cwd: "/".to_owned(),
            hostname: "job".to_owned(),
            limits: JobLimits { memory_bytes: 256 * MIB, cpu_millis: 2000, pids: 128, time_ms: 120_000, grace_ms: 2_000, ..JobLimits::default() },
            binds: Vec::new(),
            grants: BTreeSet::new(),
            gpus: Vec::new(),
            backend: self.backend.clone(),
            id_base: (1 + pid % 60_000) * runtime::limits::ID_BLOCK,
            cgroup_parent: self.parent.name().to_owned(),
            deadline_boottime_ms: None,
            log_dir: None,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> AttemptSpec {
        self.spec(["/bin/sh", "-c", script])
    }

    pub(crate) fn begin(&self, spec: &AttemptSpec) -> Handle {
        let handle = self.supervisor.start(spec).unwrap();
        handle.start().unwrap();
        handle
    }

    /// Runs a job to its end and removes it.
    pub(crate) fn run(&self, spec: &AttemptSpec) -> Outcome {
        let outcome = finish(&self.begin(spec));
        self.supervisor.scan().unwrap().into_iter().find(|found| found.attempt == spec.attempt).unwrap().handle.cleanup().unwrap();
        outcome
    }

    pub(crate) fn refuse(&self, spec: &AttemptSpec) -> StartError {
        self.supervisor.start(spec).unwrap_err()
    }

    /// Nothing of any attempt is left on this host. What the kernel releases a moment later gets that moment.
    pub(crate) fn assert_clean(&self) {
        let mut left = Vec::new();
        let clean = wait(Duration::from_secs(10), || {
            left = leftovers::find(self.parent.name(), self.directory.path()).unwrap();
            left.is_empty()
        });
        assert!(clean, "left behind: {left:?}");
        assert_eq!(std::fs::read_dir(self.jobs()).unwrap().count(), 0, "directories are left behind");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A failed test must not leave jobs that disturb the others.
            for found in self.supervisor.scan().into_iter().flatten() {
                let _ = found.handle.kill(vocabulary::job::ExitReason::Cancelled);
                let _ = wait(Duration::from_secs(5), || found.handle.cleanup().is_ok());
            }
        } else {
            self.assert_clean();
        }
    }
}

/// Waits for a condition, at most `limit`.
pub(crate) fn wait(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        if condition() {
            return true;
        }
        if waited >= limit {
            return false;
        }
        std::thread::park_timeout(step);
        waited += step;
    }
}

/// Longer than anything takes that ends at all, also in an emulated machine.
pub(crate) const LONG: Duration = Duration::from_secs(300);

pub(crate) fn ended(handle: &Handle) -> Exit {
    let mut exit = None;
    assert!(
        wait(LONG, || {
            let status = handle.status().unwrap();
            exit = status.exit;
            status.state == ShimState::Ended
        }),
        "the job did not end"
    );
    exit.unwrap()
}

pub(crate) fn frames(handle: &Handle) -> Vec<LogFrame> {
    handle.logs(0, usize::MAX).unwrap()
}

pub(crate) fn text(frames: &[LogFrame], stream: LogStream) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> =
        frames.iter().filter(|frame| frame.stream == stream).flat_map(|frame| base64::engine::general_purpose::STANDARD.decode(&frame.data).unwrap()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until the job has printed `word`.
pub(crate) fn said(handle: &Handle, word: &str) -> bool {
    wait(LONG, || text(&frames(handle), LogStream::Stdout).contains(word))
}

pub(crate) fn finish(handle: &Handle) -> Outcome {
    let exit = ended(handle);
    let frames = frames(handle);
    let isolation = handle.status().unwrap().isolation.unwrap();
    Outcome { exit, stdout: text(&frames, LogStream::Stdout), stderr: text(&frames, LogStream::Stderr), isolation }
}

pub(crate) fn held(report: &IsolationReport, name: &str) -> String {
    let layer = report.layers.iter().find(|layer| layer.name == name).unwrap_or_else(|| panic!("no layer `{name}`"));
    assert_eq!(layer.verdict, LayerVerdict::Held, "{layer:?}");
    layer.observed.clone()
}

/// What makes the sandboxes of this binary's tests.
pub(crate) fn backend() -> Backend {
    let found = Backend::installed().into_iter().find(|backend| backend.runtime == crate::RUNTIME);
    found.unwrap_or_else(|| panic!("`cargo xtask setup` installs {}", crate::RUNTIME))
}

/// A tree as an image has it: busybox under the names that the tests use, and the probe with its libraries.
fn build_image(root: &Path) {
    for name in ["bin", "etc", "proc", "dev", "sys", "tmp", "root", "var", "scratch"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static gives the tests' image");
    for name in [
        "cat", "chmod", "cp", "dd", "echo", "env", "grep", "head", "hostname", "id", "ifconfig", "kill", "ls", "mkdir", "mount", "nc", "readlink", "rm", "seq", "sh", "sleep",
        "stat", "touch", "tr", "true", "umount", "uname", "wc",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").unwrap();
    std::fs::copy(ESCAPE_PROBE, root.join("bin/escape-probe")).unwrap();
    let output = std::process::Command::new("ldd").arg(ESCAPE_PROBE).output().unwrap();
    for word in String::from_utf8(output.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(word.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(word, place).unwrap();
    }
}
