//! The machine, its clock, and the process of a server: what the kernel says, as numbers and known words.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use vocabulary::UnixTime;

/// Controllers of control groups, and sources of time, that the kernel's own documents name.
const CONTROLLERS: [&str; 9] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc", "devices"];
const CLOCK_SOURCES: [&str; 7] = ["tsc", "kvm-clock", "hpet", "acpi_pm", "xen", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Machine {
    architecture: &'static str,
    /// The numbers with which the kernel's release begins; what builders write behind them is left out.
    kernel: Option<[u32; 3]>,
    cpus: usize,
    memory_total_kib: Option<u64>,
    memory_available_kib: Option<u64>,
    swap_total_kib: Option<u64>,
    /// Thousandths of the load of the last minute, five, and fifteen.
    load_milli: Vec<u64>,
    /// `unified`, `hybrid` or `legacy`.
    cgroups: &'static str,
    /// Controllers of the unified hierarchy.
    controllers: Vec<&'static str>,
    open_files_max: Option<u64>,
}

/// Its clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Clock {
    now: UnixTime,
    /// Milliseconds since the machine started, sleep included.
    since_boot_ms: u64,
    source: Option<&'static str>,
    /// What systemd-timesyncd says; absent where another program, or none, keeps the time.
    timesyncd_synchronised: bool,
}

/// The file system of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Disk {
    pub(super) what: &'static str,
    total_bytes: u64,
    free_bytes: u64,
    free_files: u64,
    read_only: bool,
}

/// A process of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    what: &'static str,
    running: bool,
    resident_kib: Option<u64>,
    resident_most_kib: Option<u64>,
    threads: Option<u64>,
    open_files: Option<usize>,
    /// Its control group's limits and use, where the hierarchy is unified.
    memory_current: Option<u64>,
    memory_max: Option<u64>,
    pids_current: Option<u64>,
    pids_max: Option<u64>,
    throttled_periods: Option<u64>,
    killed_for_memory: Option<u64>,
}

pub(super) fn machine() -> Machine {
    let memory = text("/proc/meminfo");
    let load = text("/proc/loadavg");
    let controllers = text("/sys/fs/cgroup/cgroup.controllers");
    let capacity = runtime::probe::capacity();
    Machine {
        architecture: std::env::consts::ARCH,
        kernel: kernel(&capacity.kernel),
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_total_kib: field(&memory, "MemTotal:"),
        memory_available_kib: field(&memory, "MemAvailable:"),
        swap_total_kib: field(&memory, "SwapTotal:"),
        load_milli: load.split(' ').take(3).filter_map(thousandths).collect(),
        cgroups: ["unified", "hybrid", "legacy"].into_iter().find(|known| *known == capacity.cgroup_layout).unwrap_or("unknown"),
        controllers: CONTROLLERS.into_iter().filter(|known| controllers.split_whitespace().any(|word| word == *known)).collect(),
        open_files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}

pub(super) fn clock(now: UnixTime) -> Clock {
    let boot = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(boot.tv_sec).unwrap_or(0), u64::try_from(boot.tv_nsec).unwrap_or(0));
    let source = text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    Clock {
        now,
        since_boot_ms: seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000),
        source: CLOCK_SOURCES.into_iter().find(|known| *known == source.trim()),
        timesyncd_synchronised: Path::new("/run/systemd/timesync/synchronized").exists(),
    }
}

pub(super) fn disk(what: &'static str, folder: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(Disk {
        what,
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        free_files: found.f_favail,
        read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// What the kernel says of a process, if it is one of this program.
pub(super) fn process(what: &'static str, pid: u32) -> Process {
    let proc = format!("/proc/{pid}");
    let running = pid != 0 && text(&format!("{proc}/comm")).trim() == "swarm";
    let status = if running { text(&format!("{proc}/status")) } else { String::new() };
    let group = text(&format!("{proc}/cgroup")).lines().find_map(|line| line.strip_prefix("0::").map(|path| format!("/sys/fs/cgroup{path}")));
    let group = group.filter(|_| running);
    let read = |name: &str| group.as_ref().map(|group| text(&format!("{group}/{name}"))).unwrap_or_default();
    let number = |name: &str| read(name).trim().parse().ok();
    Process {
        what,
        running,
        resident_kib: field(&status, "VmRSS:"),
        resident_most_kib: field(&status, "VmHWM:"),
        threads: field(&status, "Threads:"),
        open_files: if running { std::fs::read_dir(format!("{proc}/fd")).ok().map(Iterator::count) } else { None },
        memory_current: number("memory.current"),
        memory_max: number("memory.max"),
        pids_current: number("pids.current"),
        pids_max: number("pids.max"),
        throttled_periods: field(&read("cpu.stat"), "nr_throttled "),
        killed_for_memory: field(&read("memory.events"), "oom_kill "),
    }
}

/// A small file of the kernel; empty where it is not there.
fn text(path: &str) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(64 << 10).read_to_string(&mut text);
    }
    text
}

/// The first number of the line that begins with a name.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// `1.25` is 1250.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    let part: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

/// `6.1.0-18-amd64` is 6, 1, 0.
fn kernel(release: &str) -> Option<[u32; 3]> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    Some([numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_text_is_not() {
        assert_eq!(kernel("6.1.0-18-amd64"), Some([6, 1, 0]));
        assert_eq!(kernel("5.15-canary"), Some([5, 15, 0]));
        assert_eq!((thousandths("1.25"), thousandths("12.5"), thousandths("canary")), (Some(1250), Some(12500), None));
        assert_eq!(field("MemTotal:  17 kB\n", "MemTotal:"), Some(17));
        let own = process("server", std::process::id());
        assert!(!own.running, "a test is not named swarm");
        assert!(machine().memory_total_kib > Some(1) && clock(UnixTime::from_millis(1)).since_boot_ms > 0);
        assert!(disk("here", Path::new("/")).is_some() && disk("nowhere", Path::new("/nowhere/canary")).is_none());
    }
}
