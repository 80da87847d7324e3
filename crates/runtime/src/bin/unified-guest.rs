//! Runs in a small guest whose control groups are unified only, and says line by line what it saw. The test `unified`
//! boots the guest and reads the lines; `cargo xtask setup` fetches its kernel.

use runtime::leftovers;
use runtime::sandbox::AttemptSpec;
use runtime::supervisor::{Handle, ShimState, Supervisor};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use vocabulary::job::{AttemptId, Exit, ExitReason, JobLimits};

const MIB: u64 = 1 << 20;
const JOBS: &str = "/var/jobs";
const PARENT: &str = "swarm";
const LONG: Duration = Duration::from_secs(60);

type Outcome = Result<String, String>;
/// A step and its name.
type Step = (&'static str, fn(&Supervisor) -> Outcome);

fn main() -> ExitCode {
    let supervisor = match Supervisor::new(Path::new(JOBS), Path::new("/usr/bin/runtime-shim")) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            say(&format!("step supervisor failed: {error:?}"));
            return ExitCode::FAILURE;
        }
    };
    let steps: [Step; 8] = [("layout", layout), ("run", run), ("limits", limits), ("throttle", throttle), ("freeze", freeze), ("kill", kill), ("oom", oom), ("clean", clean)];
    for (name, step) in steps {
        match step(&supervisor) {
            Ok(seen) => say(&format!("step {name} ok: {seen}")),
            Err(why) => say(&format!("step {name} failed: {why}")),
        }
    }
    say("all steps were tried");
    ExitCode::SUCCESS
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "guest: {}", line.replace('\n', " | "));
    let _ = out.flush();
}

fn told<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

fn wait(mut condition: impl FnMut() -> bool) -> bool {
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while !condition() {
        if waited >= LONG {
            return false;
        }
        std::thread::park_timeout(step);
        waited += step;
    }
    true
}

fn spec(number: u8, script: &str) -> AttemptSpec {
    AttemptSpec {
        attempt: AttemptId { job: vocabulary::JobId::from_bytes([number; 16]), attempt: 1 },
        image_root: PathBuf::from("/image"),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        uid: 0,
        gid: 0,
        cwd: "/".to_owned(),
        hostname: "job".to_owned(),
        limits: JobLimits { memory_bytes: 64 * MIB, cpu_millis: 500, pids: 64, time_ms: 120_000, grace_ms: 2_000, ..JobLimits::default() },
        binds: Vec::new(),
        grants: BTreeSet::new(),
        gpus: Vec::new(),
        backend: runtime::backend::Backend::default(),
        id_base: (1 + u32::from(number)) * runtime::limits::ID_BLOCK,
        cgroup_parent: PARENT.to_owned(),
        deadline_boottime_ms: None,
        log_dir: None,
    }
}

fn group(spec: &AttemptSpec) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(PARENT).join(spec.attempt.to_string())
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| format!("{}: {error}", path.display()))
}

fn begin(supervisor: &Supervisor, spec: &AttemptSpec) -> Result<Handle, String> {
    let handle = supervisor.start(spec).map_err(told)?;
    handle.start().map_err(told)?;
    Ok(handle)
}

fn ended(handle: &Handle) -> Result<Exit, String> {
    let mut exit = None;
    wait(|| {
        handle.status().is_ok_and(|status| {
            exit = status.exit;
            status.state == ShimState::Ended
        })
    });
    exit.ok_or_else(|| "the job did not end".to_owned())
}

fn output(handle: &Handle) -> Result<String, String> {
    use base64::Engine as _;
    let mut text = String::new();
    for frame in handle.logs(0, usize::MAX).map_err(told)? {
        let bytes = base64::engine::general_purpose::STANDARD.decode(&frame.data).map_err(told)?;
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    Ok(text)
}

/// Nothing but the second version of control groups is mounted.
fn layout(_: &Supervisor) -> Outcome {
    let mounts = read("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup")) {
        return Err("a hierarchy of the first version is mounted".to_owned());
    }
    Ok(format!("controllers {}", read("/sys/fs/cgroup/cgroup.controllers")?))
}

fn run(supervisor: &Supervisor) -> Outcome {
    let spec = spec(1, "echo out; cat /proc/self/cgroup; exit 7");
    let handle = begin(supervisor, &spec)?;
    let exit = ended(&handle)?;
    let report = handle.status().map_err(told)?.isolation.ok_or("no isolation report")?;
    for layer in &report.layers {
        say(&format!("layer {} {:?} {}", layer.name, layer.verdict, layer.observed));
    }
    let text = output(&handle)?;
    handle.cleanup().map_err(told)?;
    Ok(format!("code {:?} reason {:?} output {text}", exit.code, exit.reason))
}

fn limits(supervisor: &Supervisor) -> Outcome {
    let spec = spec(2, "while :; do echo beat; sleep 1; done");
    let handle = begin(supervisor, &spec)?;
    let group = group(&spec);
    let mut seen = String::new();
    for file in ["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"] {
        // A kernel without swap has no file for it.
        let value = read(group.join(file)).unwrap_or_else(|error| format!("absent ({error})"));
        seen.push_str(&format!("{file}={value}; "));
    }
    handle.kill(ExitReason::Cancelled).map_err(told)?;
    ended(&handle)?;
    handle.cleanup().map_err(told)?;
    Ok(seen)
}

/// How the kernel accounts for a loop without end at a tenth of a core: once in a group that nothing of ours made, once in a
/// job. Both are watched until the kernel has counted [`PERIODS`] of the limit's periods, however long the machine takes.
fn throttle(supervisor: &Supervisor) -> Outcome {
    let raw = Path::new("/sys/fs/cgroup/raw");
    std::fs::create_dir_all(raw).map_err(told)?;
    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu").map_err(told)?;
    std::fs::write(raw.join("cpu.max"), "10000 100000").map_err(told)?;
    let mut child = std::process::Command::new("/bin/busybox").args(["sh", "-c", "while :; do :; done"]).spawn().map_err(told)?;
    let seen = std::fs::write(raw.join("cgroup.procs"), child.id().to_string()).map_err(told).and_then(|()| account(raw));
    child.kill().and_then(|()| child.wait()).map_err(told)?;
    wait(|| std::fs::remove_dir(raw).is_ok());
    let plain = seen?;
    let mut spec = spec(6, "while :; do :; done");
    spec.limits.cpu_millis = 100;
    let handle = begin(supervisor, &spec)?;
    let job = account(&group(&spec));
    handle.kill(ExitReason::Cancelled).map_err(told)?;
    ended(&handle)?;
    handle.cleanup().map_err(told)?;
    Ok(format!("raw {plain}; job {}", job?))
}

/// Periods of 100 ms that are waited for.
const PERIODS: u64 = 30;

/// What the kernel counted in a group by the time that [`PERIODS`] have passed in it.
fn account(group: &Path) -> Outcome {
    let numbers = || -> Result<BTreeMap<String, u64>, String> {
        let text = read(group.join("cpu.stat"))?;
        Ok(text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    };
    let now = || rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = |time: rustix::time::Timespec| time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
    let (begin, before) = (millis(now()), numbers()?);
    let passed = |name: &str, after: &BTreeMap<String, u64>| after.get(name).copied().unwrap_or(0).saturating_sub(before.get(name).copied().unwrap_or(0));
    let mut after = before.clone();
    wait(|| {
        after = numbers().unwrap_or_default();
        passed("nr_periods", &after) >= PERIODS
    });
    let [periods, throttled, held_us, used_us] = ["nr_periods", "nr_throttled", "throttled_usec", "usage_usec"].map(|name| passed(name, &after));
    Ok(format!("periods={periods} throttled={throttled} held_ms={} used_ms={} wall_ms={}", held_us / 1000, used_us / 1000, millis(now()) - begin))
}

/// A frozen job stands still, and can be killed all the same.
fn freeze(supervisor: &Supervisor) -> Outcome {
    let spec = spec(3, "while :; do echo beat; done");
    let handle = begin(supervisor, &spec)?;
    if !wait(|| output(&handle).is_ok_and(|text| text.contains("beat"))) {
        return Err("the job says nothing".to_owned());
    }
    let group = group(&spec);
    std::fs::write(group.join("cgroup.freeze"), "1").map_err(told)?;
    if !wait(|| read(group.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"))) {
        return Err("the group did not freeze".to_owned());
    }
    let used = || read(group.join("cpu.stat")).map(|text| text.lines().find(|line| line.starts_with("usage_usec")).unwrap_or_default().to_owned());
    let before = used()?;
    // As long as it takes to read files a hundred times, an endless loop would have used time.
    for _ in 0..100 {
        if used()? != before {
            return Err("a frozen job used CPU time".to_owned());
        }
    }
    handle.kill(ExitReason::Cancelled).map_err(told)?;
    let exit = ended(&handle)?;
    handle.cleanup().map_err(told)?;
    Ok(format!("killed while frozen: reason {:?} signal {:?}", exit.reason, exit.signal))
}

/// All processes of a job die at once, those too that left their parent.
fn kill(supervisor: &Supervisor) -> Outcome {
    let spec = spec(4, "for n in 1 2 3 4 5; do (trap '' TERM HUP; setsid sleep 1000) & done; echo ready; while :; do sleep 1; done");
    let handle = begin(supervisor, &spec)?;
    let members = || read(group(&spec).join("cgroup.procs")).map(|text| text.lines().count()).unwrap_or_default();
    if !wait(|| members() >= 6) {
        return Err(format!("only {} processes", members()));
    }
    let before = members();
    handle.kill(ExitReason::Cancelled).map_err(told)?;
    let exit = ended(&handle)?;
    let after = members();
    handle.cleanup().map_err(told)?;
    Ok(format!("processes before {}, after {after}, reason {:?}, group left {}", before.min(6), exit.reason, group(&spec).exists()))
}

fn oom(supervisor: &Supervisor) -> Outcome {
    let spec = spec(5, "dd if=/dev/zero of=/dev/null bs=200M count=1");
    let handle = begin(supervisor, &spec)?;
    let exit = ended(&handle)?;
    handle.cleanup().map_err(told)?;
    Ok(format!("reason {:?} kills {} detail {}", exit.reason, exit.oom_kills.min(1), exit.detail))
}

fn clean(_: &Supervisor) -> Outcome {
    let mut left = Vec::new();
    let gone = wait(|| {
        left = leftovers::find(PARENT, Path::new(JOBS)).unwrap_or_default();
        left.is_empty()
    });
    let directories = std::fs::read_dir(JOBS).map_err(told)?.count();
    if gone && directories == 0 { Ok("nothing is left".to_owned()) } else { Err(format!("{left:?}, {directories} directories")) }
}
