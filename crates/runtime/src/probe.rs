//! What this machine can do for jobs: for `swarm doctor`, for a node's facts, and for placing.
//!
//! What can be tried for real is tried, in processes and mount namespaces that end with the try.

use crate::backend::Backend;
use crate::cgroup::Layout;
use crate::executor::LANDLOCK_LEAST;
use crate::sys;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use vocabulary::runtime::Runtime;

/// The hidden verb of the process in which the tries happen: they need a process with one thread.
pub(crate) const VERB: &str = "__probe";

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// What was seen.
    pub detail: String,
    /// What is lost without it.
    pub cost_of_absence: String,
}

/// What a machine has, as a node reports it for placing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// The host's name, as it says itself.
    pub hostname: String,
    /// The kernel's release.
    pub kernel: String,
    /// The id that the kernel drew at its start.
    pub boot_id: String,
    /// `unified`, `hybrid` or `legacy`.
    pub cgroup_layout: String,
    /// Thousandths of cores that this process may use.
    pub cpu_millis: u64,
    /// All memory, in bytes.
    pub memory_bytes: u64,
    /// GPUs whose device nodes are there.
    pub gpus: u32,
}

/// What was seen of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    name: String,
    present: bool,
    detail: String,
}

impl Seen {
    fn new<T: ToString, E: ToString>(name: &str, result: Result<T, E>) -> Self {
        match result {
            Ok(detail) => Self { name: name.to_owned(), present: true, detail: detail.to_string() },
            Err(detail) => Self { name: name.to_owned(), present: false, detail: detail.to_string() },
        }
    }
}

/// Every fact by name and what its absence costs, in the order in which they are told.
const COSTS: &[(&str, &str)] = &[
    ("root", "no jobs: sandboxes are made by root"),
    ("kernel", "below 6.1 layers of the sandbox are missing; such a node takes no jobs"),
    ("user_namespace", "no jobs: root inside would be root of the host"),
    ("pid_namespace", "no jobs: they would see and signal each other"),
    ("mount_namespace", "no jobs: they would see the host's files"),
    ("network_namespace", "no jobs: they would use the host's network"),
    ("ipc_namespace", "no jobs: they would share memory segments"),
    ("uts_namespace", "no jobs: they would share the host's name"),
    ("cgroup_namespace", "no jobs: they would see the groups of others"),
    ("cgroups", "no jobs: nothing limits or kills them"),
    ("idmapped_overlay", "no jobs: image trees cannot be given to a job's own ids"),
    ("seccomp", "no jobs: every system call would be open"),
    ("landlock", "no jobs: a layer that is asked for must hold; needs ABI 2 (Linux 5.19)"),
    ("fscrypt", "no job that needs scratch: inputs, outputs and temporary files would lie in plain text"),
    ("runc", "jobs that ask for the runtime runc are not placed here"),
    ("crun", "jobs that ask for the runtime crun are not placed here"),
    ("runsc", "jobs that ask for the runtime runsc (gVisor) are not placed here"),
    ("kata", "jobs that ask for the runtime kata are not placed here"),
    ("fuse", "no volumes as file systems; inputs and outputs are copied into scratch"),
    ("tun", "no mesh: jobs have no network"),
    ("ebpf", "no sensors in the kernel: jobs are isolated, but not watched"),
    ("tpm", "no measured boot: a node's software is its own word"),
    ("sev_snp", "no confidential virtual machines of AMD: trust 0 unless another TEE is there"),
    ("tdx", "no confidential virtual machines of Intel: trust 0 unless another TEE is there"),
    ("sgx", "no enclaves of Intel: trust 0 unless another TEE is there"),
    ("gpu", "jobs that ask for a GPU are not placed here"),
    ("swap_off", "memory of jobs may be written to the swap device in plain text; their groups forbid it, the host's other programs do not"),
    ("core_pattern_local", "the host hands memory of crashed programs to a program of its own, also of jobs, whatever their limits say"),
];

/// Everything about this machine. Takes up to a few seconds; may be called from programs with many threads.
///
/// The running program must call [`crate::shim::branch`] first of all: it is started again for the tries.
#[must_use]
pub fn machine() -> Vec<Fact> {
    machine_by(Path::new("/proc/self/exe"), Path::new("/"))
}

/// Like [`machine`], by another program that calls [`crate::shim::branch`], and with the directory whose file system holds
/// the images: whether its ids can be shifted is a matter of the file system.
#[must_use]
pub fn machine_by(program: &Path, images: &Path) -> Vec<Fact> {
    let mut seen = looked_at();
    match tried_by(program, images) {
        Ok(tried) => seen.extend(tried),
        Err(detail) => seen.extend(TRIES.iter().map(|name| Seen::new::<String, _>(name, Err(format!("not tried: {detail}"))))),
    }
    let fact = |(name, cost): &(&str, &str)| {
        let found = seen.iter().find(|seen| seen.name == *name);
        let (present, detail) = found.map_or((false, "not looked at".to_owned()), |seen| (seen.present, seen.detail.clone()));
        Fact { name: (*name).to_owned(), present, detail, cost_of_absence: (*cost).to_owned() }
    };
    COSTS.iter().map(fact).collect()
}

/// Names of the facts that need the process with one thread.
const TRIES: [&str; 10] = [
    "user_namespace",
    "pid_namespace",
    "mount_namespace",
    "network_namespace",
    "ipc_namespace",
    "uts_namespace",
    "cgroup_namespace",
    "ebpf",
    "idmapped_overlay",
    "fscrypt",
];

fn tried_by(program: &Path, images: &Path) -> Result<Vec<Seen>, String> {
    let output = Command::new(program).arg(VERB).arg(images).env_clear().current_dir("/").stdin(Stdio::null()).stderr(Stdio::null()).output().map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("`{}` {VERB}: {error}", program.display()))
}

/// The hidden verb: tries, says what happened, ends.
pub(crate) fn run(images: &Path) -> ExitCode {
    let namespaces = [
        ("pid_namespace", libc::CLONE_NEWPID),
        ("mount_namespace", libc::CLONE_NEWNS),
        ("network_namespace", libc::CLONE_NEWNET),
        ("ipc_namespace", libc::CLONE_NEWIPC),
        ("uts_namespace", libc::CLONE_NEWUTS),
        ("cgroup_namespace", libc::CLONE_NEWCGROUP),
    ];
    let mut seen = vec![Seen::new("user_namespace", sys::try_namespaces(libc::CLONE_NEWUSER).map(|()| "made one"))];
    // As a job has them: owned by a user namespace.
    seen.extend(namespaces.map(|(name, flag)| Seen::new(name, sys::try_namespaces(libc::CLONE_NEWUSER | flag).map(|()| "made one"))));
    let types = std::fs::metadata("/sys/kernel/btf/vmlinux").is_ok();
    seen.push(Seen::new("ebpf", match (sys::try_bpf(), types) {
        (Ok(()), true) => Ok("loaded a program; the kernel's types are there (BTF)".to_owned()),
        (Ok(()), false) => Err("programs load, but the kernel's types are absent (/sys/kernel/btf/vmlinux)".to_owned()),
        (Err(error), _) => Err(format!("load a program: {error}")),
    }));
    let overlay = crate::shim::try_idmapped_overlay(images);
    let staged = overlay.is_ok();
    seen.push(Seen::new("idmapped_overlay", overlay.map(|()| format!("mounted `{}` with shifted ids below an overlay", images.display()))));
    // The stage is a mount of this process alone: the image file and its mount go with it.
    let place = if staged { Path::new("/tmp/state") } else { Path::new("/tmp") };
    let fscrypt = if rustix::process::geteuid().is_root() {
        crate::scratch::probe(place, &mut keys::SystemRandom).map_err(|error| chain(&error))
    } else {
        Err("needs root".to_owned())
    };
    seen.push(Seen::new("fscrypt", fscrypt.map(|()| "made, locked and removed an encrypted directory on a loop device")));
    let written = serde_json::to_writer(std::io::stdout(), &seen);
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn device(path: &str) -> Result<String, String> {
    match std::fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(format!("opened {path}")),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

fn any_exists(paths: &[&str]) -> Result<String, String> {
    paths.iter().find(|path| Path::new(path).exists()).map_or_else(|| Err(format!("none of {}", paths.join(", "))), |path| Ok(format!("{path} is there")))
}

fn looked_at() -> Vec<Seen> {
    let root = rustix::process::geteuid();
    let user = if root.is_root() { Ok("runs as root") } else { Err(format!("runs as user {}", root.as_raw())) };
    let mut seen = foreign();
    seen.extend([
        Seen::new("root", user),
        kernel(),
        cgroups(),
        Seen::new("seccomp", sys::seccomp_errno_available().map(|()| "the kernel can answer calls with an error")),
        Seen::new("landlock", match sys::landlock_abi() {
            Ok(abi) if abi >= 6 => Ok(format!("ABI {abi}")),
            Ok(abi) if abi >= LANDLOCK_LEAST => Ok(format!("ABI {abi}: files only; abstract sockets, signals and device requests need 6 (Linux 6.12)")),
            Ok(abi) => Err(format!("ABI {abi}, needs {LANDLOCK_LEAST}")),
            Err(error) => Err(error.to_string()),
        }),
        Seen::new("fuse", device("/dev/fuse")),
        Seen::new("tun", device("/dev/net/tun")),
        Seen::new("tpm", device("/dev/tpmrm0")),
        Seen::new("sev_snp", any_exists(&["/dev/sev-guest", "/dev/sev"])),
        Seen::new("tdx", any_exists(&["/dev/tdx_guest", "/dev/tdx-guest"])),
        Seen::new("sgx", any_exists(&["/dev/sgx_enclave", "/dev/isgx"])),
        gpu(),
        swap(),
        core_pattern(),
    ]);
    seen
}

/// The foreign runtimes that are installed.
fn foreign() -> Vec<Seen> {
    let installed = Backend::installed();
    let look = |runtime: Runtime| {
        let offer = installed.iter().find(|backend| backend.runtime == runtime).map(Backend::offer);
        Seen::new(runtime.as_str(), match offer {
            Some(offer) => Ok(format!("{}{}", offer.version, if offer.untested { ", untested" } else { "" })),
            None => Err(Backend::complaint(runtime).unwrap_or_else(|| "not installed".to_owned())),
        })
    };
    [Runtime::Runc, Runtime::Crun, Runtime::Runsc, Runtime::Kata].map(look).into()
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn kernel() -> Seen {
    let release = release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Seen::new("kernel", if version >= (6, 1) { Ok(release) } else { Err(release) })
}

fn cgroups() -> Seen {
    let layout = Layout::detect();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (controllers, needed): (Vec<String>, &[&str]) = match layout {
        Layout::Unified => (read("/sys/fs/cgroup/cgroup.controllers").split_whitespace().map(str::to_owned).collect(), &["memory", "cpu", "pids"]),
        Layout::Hybrid | Layout::Legacy => {
            let lines = read("/proc/cgroups");
            let mounted = |name: &&str| Path::new("/sys/fs/cgroup").join(name).exists();
            (lines.lines().filter_map(|line| line.split('\t').next()).filter(mounted).map(str::to_owned).collect(), &["memory", "cpu", "pids", "devices"])
        }
    };
    let missing: Vec<&str> = needed.iter().copied().filter(|name| !controllers.iter().any(|have| have == name)).collect();
    let text = format!("{}; {}", layout.name(), controllers.join(" "));
    Seen::new("cgroups", if layout == Layout::Legacy {
        Err(format!("{text}; legacy groups alone cannot be killed as a whole"))
    } else if missing.is_empty() {
        Ok(text)
    } else {
        Err(format!("{text}; missing: {}", missing.join(" ")))
    })
}

fn gpus() -> Vec<String> {
    let names = |directory: &str| std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>();
    let number = |name: &str, prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let mut all: Vec<String> = names("/dev").into_iter().filter(|name| number(name, "nvidia")).map(|name| format!("/dev/{name}")).collect();
    // AMD's compute node serves all cards; each card has a render node.
    if Path::new("/dev/kfd").exists() {
        all.extend(names("/dev/dri").into_iter().filter(|name| number(name, "renderD")).map(|name| format!("/dev/dri/{name}")));
    }
    all.sort();
    all
}

fn gpu() -> Seen {
    let all = gpus();
    Seen::new("gpu", if all.is_empty() { Err("no /dev/nvidiaN, no /dev/kfd".to_owned()) } else { Ok(all.join(", ")) })
}

fn swap() -> Seen {
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let areas: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    Seen::new("swap_off", if areas.is_empty() { Ok("no swap area".to_owned()) } else { Err(areas.join(", ")) })
}

fn core_pattern() -> Seen {
    let text = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let text = text.trim().to_owned();
    Seen::new("core_pattern_local", if text.starts_with('|') { Err(text) } else { Ok(text) })
}

/// What there is of cores, memory and GPUs, and what identifies the machine's run.
#[must_use]
pub fn capacity() -> Capacity {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    Capacity {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        kernel: release(),
        boot_id: sys::boot_id(),
        cgroup_layout: Layout::detect().name().to_owned(),
        cpu_millis: u64::try_from(cores).unwrap_or(1).saturating_mul(1000),
        memory_bytes: kib.saturating_mul(1024),
        gpus: u32::try_from(gpus().len()).unwrap_or(u32::MAX),
    }
}

/// Bytes that files below `directory` may still take, such as images of encrypted scratch.
///
/// # Errors
/// When the directory cannot be looked at.
pub fn free_bytes(directory: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
