//! Reading back what really isolates a job, from the kernel and never from the plan.

use crate::cgroup::Cgroup;
use crate::executor::Word;
use crate::sandbox::AttemptSpec;
use std::path::Path;
use vocabulary::isolation::{IsolationReport, Layer, LayerVerdict};

struct Reader {
    pid: i32,
    /// Whether the backend shows nothing of what the job itself sees.
    hidden: bool,
    layers: Vec<Layer>,
}

/// What is said of a layer that nobody can look at.
const HIDDEN: &str = "the runtime shows nothing of the sandbox's inside";

impl Reader {
    fn add(&mut self, name: &str, held: bool, observed: impl Into<String>) {
        let verdict = if held { LayerVerdict::Held } else { LayerVerdict::Absent };
        self.layers.push(Layer { name: name.to_owned(), asked: true, verdict, observed: observed.into() });
    }

    /// A layer that is a matter of the sandbox's inside.
    fn inside(&mut self, name: &str, held: bool, observed: impl Into<String>) {
        if self.hidden { self.unseen(name) } else { self.add(name, held, observed) }
    }

    /// A layer that this backend cannot have, and that was therefore not asked for.
    fn without(&mut self, name: &str, why: &str) {
        self.layers.push(Layer { name: name.to_owned(), asked: false, verdict: LayerVerdict::Absent, observed: why.to_owned() });
    }

    /// A layer that was asked for and that this backend hides.
    fn unseen(&mut self, name: &str) {
        self.layers.push(Layer { name: name.to_owned(), asked: true, verdict: LayerVerdict::NotObservable, observed: HIDDEN.to_owned() });
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap_or_default()
    }

    fn namespace(&mut self, file: &str, name: &str) {
        let link = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{file}")).map(|path| path.display().to_string()).unwrap_or_default();
        let (theirs, ours) = (link(&self.pid.to_string()), link("self"));
        // This process left the host's mount namespace itself: compare with the host's first process as well.
        let host = link("1");
        let own = !theirs.is_empty() && theirs != ours && theirs != host;
        match (own, self.hidden) {
            // What the sandbox's own process shares with the host, its inside may still have: nobody can tell.
            (false, true) => self.unseen(name),
            (true, true) => self.add(name, true, format!("{theirs} of the sandbox's own process")),
            (own, false) => self.add(name, own, theirs),
        }
    }

    fn limit(&mut self, name: &str, observed: std::io::Result<String>, want: impl Fn(&str) -> bool) {
        let observed = observed.unwrap_or_else(|error| error.to_string());
        self.add(name, want(&observed), observed);
    }
}

/// Reads everything. The job's first process waits for its start meanwhile.
/// `word` is what the first process said of itself; a backend without one hides the sandbox's inside.
pub(crate) fn read(spec: &AttemptSpec, cgroup: &Cgroup, pid: i32, word: Option<&Word>) -> IsolationReport {
    let mut reader = Reader { pid, hidden: word.is_none(), layers: Vec::new() };
    for (file, name) in [
        ("user", "user_namespace"),
        ("pid", "pid_namespace"),
        ("mnt", "mount_namespace"),
        ("net", "network_namespace"),
        ("ipc", "ipc_namespace"),
        ("uts", "uts_namespace"),
        ("cgroup", "cgroup_namespace"),
    ] {
        reader.namespace(file, name);
    }
    maps(&mut reader, spec);
    status(&mut reader, word);
    match word {
        Some(word) => {
            reader.add("landlock", word.landlock_held, word.landlock.clone());
            reader.add("parent_death_signal", word.death_signal, if word.death_signal { "SIGKILL" } else { "none" });
        }
        None => {
            reader.without("landlock", "the sandbox has a kernel of its own: this one's Landlock does not reach into it");
            reader.without("parent_death_signal", "the runtime sets none; the shim's guard kills the groups");
        }
    }
    mounts(&mut reader);
    limits(&mut reader, spec, cgroup);
    devices(&mut reader, cgroup, word);
    gpus(&mut reader, spec);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    IsolationReport {
        backend: spec.backend.title(),
        cgroup_layout: cgroup.layout().name().to_owned(),
        kernel,
        runtime: Some(spec.backend.offer()),
        layers: reader.layers,
    }
}

/// A filter of the unified layout is a program that nobody can read back: the first process tried two devices instead.
fn devices(reader: &mut Reader, cgroup: &Cgroup, word: Option<&Word>) {
    let Some(word) = word else {
        return reader.unseen("device_filter");
    };
    let list = cgroup.read_limit("devices", "devices.list", "").unwrap_or_default();
    let open = list.lines().any(|line| line.starts_with('a'));
    let listed = if list.is_empty() { String::new() } else { format!("; list: {}", list.lines().collect::<Vec<_>>().join(", ")) };
    reader.add("device_filter", word.device_filter_held && !open, format!("{}{listed}", word.device_filter));
}

/// Each GPU that was given, by the numbers of its nodes as the job sees them, and how it was cleaned before.
fn gpus(reader: &mut Reader, spec: &AttemptSpec) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    for gpu in &spec.gpus {
        let mut held = true;
        let mut seen = Vec::new();
        for node in &gpu.nodes {
            let found = std::fs::symlink_metadata(format!("/proc/{}/root{}", reader.pid, node.path));
            let numbers = found.ok().filter(|found| found.file_type().is_char_device()).map(|found| (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())));
            held &= numbers == Some((node.major, node.minor));
            seen.push(numbers.map_or_else(|| format!("{} is absent", node.path), |(major, minor)| format!("{} {major}:{minor}", node.path)));
        }
        reader.add("gpu", held, format!("{}, {} before; {}", gpu.id, gpu.scrubbed, seen.join(", ")));
    }
}

fn maps(reader: &mut Reader, spec: &AttemptSpec) {
    for (file, name) in [("uid_map", "uid_map"), ("gid_map", "gid_map")] {
        let text = reader.file(file);
        let seen: Vec<&str> = text.split_whitespace().collect();
        let want = ["0".to_owned(), spec.id_base.to_string(), crate::limits::ID_BLOCK.to_string()];
        reader.inside(name, seen == want, seen.join(" "));
    }
}

fn status(reader: &mut Reader, word: Option<&Word>) {
    let text = reader.file("status");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned();
    let privileges = field("NoNewPrivs");
    reader.inside("no_new_privileges", privileges == "1" && word.is_some_and(|word| word.no_new_privs), format!("NoNewPrivs: {privileges}"));
    let seccomp = field("Seccomp");
    reader.inside("seccomp", seccomp == "2", format!("Seccomp: {seccomp}, filters: {}", field("Seccomp_filters")));
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name, field(name)));
    let none = sets.iter().all(|(_, value)| !value.is_empty() && value.bytes().all(|byte| byte == b'0'));
    let seen: Vec<String> = sets.iter().map(|(name, value)| format!("{name} {value}")).collect();
    reader.inside("capabilities_dropped", none, seen.join(", "));
}

fn mounts(reader: &mut Reader) {
    if reader.hidden {
        for name in ["readonly_root", "nosuid_mounts", "masked_paths", "readonly_proc_sys"] {
            reader.unseen(name);
        }
        return;
    }
    let text = reader.file("mountinfo");
    let mut points: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let mut parts = line.split(' ').skip(4);
        if let (Some(point), Some(flags)) = (parts.next(), parts.next()) {
            points.push((point.to_owned(), flags.to_owned()));
        }
    }
    // The last mount on a point is the one that is seen.
    let flags = |point: &str| points.iter().rev().find(|(at, _)| at == point).map(|(_, flags)| flags.clone());
    let has = |flags: &Option<String>, name: &str| flags.as_ref().is_some_and(|flags| flags.split(',').any(|flag| flag == name));
    let root = flags("/");
    reader.add("readonly_root", has(&root, "ro"), format!("/ {}", root.unwrap_or_default()));
    let loose: Vec<&str> = points.iter().filter(|(_, flags)| !flags.split(',').any(|flag| flag == "nosuid")).map(|(at, _)| at.as_str()).collect();
    // Device nodes, masks and the read-only binds below /proc are single files or inherit the flags that matter.
    let loose: Vec<&str> = loose.into_iter().filter(|at| !at.starts_with("/dev/") && !at.starts_with("/proc/") && !at.starts_with("/sys/")).collect();
    reader.add("nosuid_mounts", loose.is_empty(), if loose.is_empty() { "every mount is nosuid".to_owned() } else { loose.join(", ") });
    let root_directory = format!("/proc/{}/root", reader.pid);
    let mut open = Vec::new();
    for path in crate::sandbox::masked() {
        if Path::new(&format!("{root_directory}{path}")).exists() && flags(path).is_none() {
            open.push(*path);
        }
    }
    let masked = crate::sandbox::masked().iter().filter(|path| flags(path).is_some()).count();
    reader.add("masked_paths", open.is_empty(), if open.is_empty() { format!("{masked} masked, others are not on this kernel") } else { open.join(", ") });
    let sys = flags("/proc/sys");
    reader.add("readonly_proc_sys", has(&sys, "ro"), format!("/proc/sys {}", sys.unwrap_or_default()));
}

fn limits(reader: &mut Reader, spec: &AttemptSpec, cgroup: &Cgroup) {
    let page = 4096;
    let memory = spec.limits.memory_bytes;
    reader.limit("memory_limit", cgroup.read_limit("memory", "memory.limit_in_bytes", "memory.max"), |seen| {
        seen.parse::<u64>().is_ok_and(|seen| seen <= memory && seen + page > memory)
    });
    let swap = cgroup.read_limit("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    let areas = std::fs::read_to_string("/proc/swaps").unwrap_or_default().lines().skip(1).count();
    let group = cgroup.limit("memory", "cgroup.procs", "cgroup.procs").exists();
    if group && swap.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        reader.add("swap_limit", areas == 0, format!("the kernel does not count swap; swap areas: {areas}"));
    } else {
        reader.limit("swap_limit", swap, |seen| seen.parse::<u64>().is_ok_and(|seen| seen <= memory));
    }
    let quota = spec.limits.cpu_millis.saturating_mul(100);
    reader.limit("cpu_limit", cgroup.read_limit("cpu", "cpu.cfs_quota_us", "cpu.max"), |seen| {
        seen.split(' ').next().and_then(|text| text.parse::<u64>().ok()) == Some(quota)
    });
    reader.limit("pids_limit", cgroup.read_limit("pids", "pids.max", "pids.max"), |seen| seen.parse::<u64>().ok() == Some(spec.limits.pids));
    let member = std::fs::read_to_string(cgroup.handle().join("cgroup.procs")).unwrap_or_default().lines().any(|line| line.parse::<i32>().ok() == Some(reader.pid));
    reader.add("cgroup_kill", member && cgroup.handle().join("cgroup.kill").exists(), cgroup.handle().display().to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_sandbox_has_no_layer() {
        let spec = crate::sandbox::attempt_for_tests();
        let word = Word {
            no_new_privs: false,
            death_signal: false,
            landlock: "not enforced".to_owned(),
            landlock_held: false,
            device_filter: String::new(),
            device_filter_held: false,
        };
        let own = i32::try_from(std::process::id()).unwrap();
        let report = read(&spec, &Cgroup::of(&spec), own, Some(&word));
        let held: Vec<_> = report.layers.iter().filter(|layer| layer.verdict != LayerVerdict::Absent).collect();
        assert!(held.is_empty(), "{held:?}");
        assert_eq!(report.missing().len(), report.layers.len(), "an attempt like this does not start");
        assert!(report.layers.len() >= 24);
        // A backend that shows nothing of the inside is not believed: none of these layers is called held.
        let hidden = read(&spec, &Cgroup::of(&spec), own, None);
        assert_eq!(hidden.layers.len(), report.layers.len());
        for name in ["seccomp", "capabilities_dropped", "no_new_privileges", "readonly_root", "masked_paths", "device_filter", "pid_namespace"] {
            let layer = hidden.layers.iter().find(|layer| layer.name == name).unwrap();
            assert_eq!((layer.verdict, layer.asked), (LayerVerdict::NotObservable, true), "{layer:?}");
        }
        assert!(hidden.layers.iter().all(|layer| layer.verdict != LayerVerdict::Held));
    }
}
