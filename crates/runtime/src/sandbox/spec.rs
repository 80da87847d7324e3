//! The OCI runtime specification of one attempt: pure, the same attempt gives the same bytes.

use super::AttemptSpec;
use crate::gpu::{DeviceNode, ITEMS};
use crate::limits::ID_BLOCK;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use thiserror::Error;
use vocabulary::job::SandboxGrant;
use vocabulary::runtime::Runtime;

/// Why an attempt cannot be put into a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A field breaks a rule.
    #[error("{field}: {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// The rule.
        rule: String,
    },
}

fn wrong(field: &'static str, rule: impl Into<String>) -> SpecError {
    SpecError::Field { field, rule: rule.into() }
}

/// Places that the sandbox makes itself: nothing is bound there.
const OWN: [&str; 4] = ["/proc", "/dev", "/sys", "/tmp"];

/// What nobody inside may read. A path that the kernel does not have is skipped.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What nobody inside may write.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where the shim makes the nodes of a job's GPUs, each named by its place in [`gpu_nodes`].
pub(crate) const GPU_STAGE: &str = "/tmp/gpus";

/// The nodes of all GPUs of an attempt, each once.
pub(crate) fn gpu_nodes(spec: &AttemptSpec) -> Vec<&DeviceNode> {
    spec.gpus.iter().flat_map(|gpu| &gpu.nodes).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Paths that are masked.
pub(crate) fn masked() -> &'static [&'static str] {
    &MASKED
}

fn check(spec: &AttemptSpec) -> Result<(), SpecError> {
    let nul = |text: &str| text.contains('\0');
    if spec.argv.first().is_none_or(String::is_empty) || spec.argv.iter().any(|text| nul(text)) {
        return Err(wrong("argv", "at least a program, no NUL bytes"));
    }
    if spec.env.iter().any(|(name, value)| name.is_empty() || name.contains('=') || nul(name) || nul(value)) {
        return Err(wrong("env", "names are not empty, without `=`; no NUL bytes"));
    }
    if spec.uid >= ID_BLOCK || spec.gid >= ID_BLOCK {
        return Err(wrong("uid", format!("ids inside are below {ID_BLOCK}")));
    }
    if spec.id_base < ID_BLOCK || spec.id_base.checked_add(ID_BLOCK).is_none() {
        return Err(wrong("id_base", format!("{ID_BLOCK} or more: the host's own ids are never given away")));
    }
    if !spec.cwd.starts_with('/') || nul(&spec.cwd) || has_parent(&spec.cwd) {
        return Err(wrong("cwd", "an absolute path without `..`"));
    }
    // A directory of descriptors would be a way out of the new root.
    if OWN.iter().take(3).any(|own| below(&spec.cwd, own)) {
        return Err(wrong("cwd", "not below /proc, /dev or /sys"));
    }
    if spec.hostname.is_empty() || spec.hostname.len() > 63 || !spec.hostname.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(wrong("hostname", "1 to 63 letters, digits or `-`"));
    }
    if spec.cgroup_parent.is_empty() || spec.cgroup_parent.starts_with('/') || has_parent(&spec.cgroup_parent) {
        return Err(wrong("cgroup_parent", "a relative path without `..`"));
    }
    if spec.limits.memory_bytes < 4 << 20 || spec.limits.pids == 0 || spec.limits.cpu_millis < 10 {
        return Err(wrong("limits", "at least 4 MiB of memory, 10 thousandths of a core and one process"));
    }
    if i64::try_from(spec.limits.memory_bytes).is_err() || i64::try_from(spec.limits.pids).is_err() || spec.limits.cpu_millis > 10_000_000 {
        return Err(wrong("limits", "larger than the kernel can count"));
    }
    for bind in &spec.binds {
        if !bind.source.is_absolute() {
            return Err(wrong("binds", format!("source `{}` is not absolute", bind.source.display())));
        }
        if !bind.target.starts_with('/') || bind.target == "/" || has_parent(&bind.target) || nul(&bind.target) {
            return Err(wrong("binds", format!("target `{}` is not an absolute path without `..`", bind.target)));
        }
        if OWN.iter().any(|own| below(&bind.target, own)) {
            return Err(wrong("binds", format!("target `{}` lies where the sandbox mounts itself", bind.target)));
        }
    }
    // Their kernel is not this one: a node of this machine means nothing in it, and its filter cannot be tried.
    if !spec.gpus.is_empty() && matches!(spec.backend.runtime, Runtime::Runsc | Runtime::Kata) {
        return Err(wrong("gpus", format!("runtime {} is given none; use youki, runc or crun", spec.backend.runtime)));
    }
    let nodes = gpu_nodes(spec);
    let paths: BTreeSet<&str> = nodes.iter().map(|node| node.path.as_str()).collect();
    let plain = |path: &str| path.len() > "/dev/".len() && path.starts_with("/dev/") && !has_parent(path) && !nul(path) && !path.ends_with('/');
    if nodes.len() > ITEMS || paths.len() != nodes.len() || !paths.iter().all(|path| plain(path)) {
        return Err(wrong("gpus", format!("at most {ITEMS} nodes below /dev, each path once, without `..`")));
    }
    Ok(())
}

fn has_parent(path: &str) -> bool {
    path.split('/').any(|part| part == ".." || part == ".")
}

fn below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// Builds the specification. `open_files` is the hard limit of the calling process: nobody inside gets more.
///
/// # Errors
/// When a field of the attempt breaks a rule.
pub fn build(spec: &AttemptSpec, cgroup_path: &str, root: &str, open_files: u64) -> Result<Value, SpecError> {
    check(spec)?;
    let half = format!("size={}", spec.limits.memory_bytes / 2);
    let exec = if spec.grants.contains(&SandboxGrant::MayCompile) { "exec" } else { "noexec" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &half]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", exec, "mode=1777", &half]),
    ];
    let mut devices = vec![json!({"allow": false, "access": "rwm"})];
    for (place, node) in gpu_nodes(spec).into_iter().enumerate() {
        mounts.push(mount(&node.path, "bind", &format!("{GPU_STAGE}/{place}"), &["bind", "nosuid", "noexec"]));
        devices.push(json!({"allow": true, "type": "c", "major": node.major, "minor": node.minor, "access": "rw"}));
    }
    let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let map = json!([{"containerID": 0, "hostID": spec.id_base, "size": ID_BLOCK}]);
    // Microseconds of CPU per 100 ms.
    let quota = spec.limits.cpu_millis.saturating_mul(100);
    let files = open_files.min(1_048_576);
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": true},
        "hostname": spec.hostname,
        "mounts": mounts,
        "process": {
            "terminal": false,
            "user": {"uid": spec.uid, "gid": spec.gid, "umask": 18},
            "args": spec.argv,
            "env": env,
            "cwd": spec.cwd,
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
            "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
            "rlimits": [
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_NOFILE", "soft": files, "hard": files},
            ],
        },
        "linux": {
            "cgroupsPath": cgroup_path,
            "namespaces": [
                {"type": "user"}, {"type": "pid"}, {"type": "mount"}, {"type": "network"},
                {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
            ],
            "uidMappings": map,
            "gidMappings": map,
            "resources": {
                "devices": devices,
                "memory": {"limit": spec.limits.memory_bytes, "swap": spec.limits.memory_bytes},
                "cpu": {"quota": quota, "period": 100_000},
                "pids": {"limit": spec.limits.pids},
            },
            "rootfsPropagation": "private",
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
            "seccomp": crate::seccomp::profile(&spec.grants),
        },
    }))
}

/// Turns a specification into one whose first program is the launcher, executed by descriptor. What the job's program and
/// environment are is told to the launcher alone: nothing of them is read by the runtime.
pub(crate) fn for_launcher(spec: &mut Value, launcher: &str) {
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        process.insert("args".to_owned(), json!([launcher]));
        process.insert("env".to_owned(), json!([]));
    }
}

/// For a runtime that is given a root which nobody can write to any more: it shall not try to mount it so again.
pub(crate) fn root_is_read_only_already(spec: &mut Value) {
    if let Some(root) = spec.get_mut("root").and_then(Value::as_object_mut) {
        root.insert("readonly".to_owned(), json!(false));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sandbox::BindMount;
    use std::collections::{BTreeMap, BTreeSet};
    use vocabulary::job::{AttemptId, JobLimits};

    pub(crate) fn attempt() -> AttemptSpec {
        AttemptSpec {
            attempt: AttemptId { job: vocabulary::JobId::from_bytes([7; 16]), attempt: 1 },
            image_root: "/images/x".into(),
            argv: vec!["/bin/true".to_owned()],
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            uid: 1000,
            gid: 1000,
            cwd: "/work".to_owned(),
            hostname: "job".to_owned(),
            limits: JobLimits::default(),
            binds: vec![BindMount { source: "/data/x".into(), target: "/inputs/x".to_owned(), readonly: true, exec: false }],
            grants: BTreeSet::new(),
            gpus: Vec::new(),
            backend: crate::backend::Backend::default(),
            id_base: ID_BLOCK,
            cgroup_parent: "swarm".to_owned(),
            deadline_boottime_ms: None,
            log_dir: None,
        }
    }

    /// With the keys in order: whether a map of serde_json keeps them so depends on features that other crates switch on.
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let ordered: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                ordered.into_iter().collect()
            }
            Value::Array(list) => list.into_iter().map(sorted).collect(),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
        }
    }

    fn golden(spec: &AttemptSpec) -> String {
        serde_json::to_string_pretty(&sorted(build(spec, "/swarm/x.1", "/stage/root", 1024).unwrap())).unwrap() + "\n"
    }

    #[test]
    fn the_specification_is_the_golden_file() {
        expect_test::expect_file!["../../testdata/oci-spec.json"].assert_eq(&golden(&attempt()));
    }

    #[test]
    fn the_same_attempt_gives_the_same_bytes() {
        assert_eq!(golden(&attempt()), golden(&attempt()));
    }

    #[test]
    fn a_field_that_breaks_a_rule_is_named() {
        type Change = fn(&mut AttemptSpec);
        let bind = |target: &str| BindMount { source: "/data".into(), target: target.to_owned(), readonly: false, exec: false };
        let refused: &[(&str, Change)] = &[
            ("argv", |spec| spec.argv.clear()),
            ("argv", |spec| spec.argv = vec![String::new()]),
            ("argv", |spec| spec.argv.push("a\0b".to_owned())),
            ("env", |spec| drop(spec.env.insert("A=B".to_owned(), String::new()))),
            ("env", |spec| drop(spec.env.insert(String::new(), String::new()))),
            ("env", |spec| drop(spec.env.insert("A".to_owned(), "\0".to_owned()))),
            ("uid", |spec| spec.uid = ID_BLOCK),
            ("uid", |spec| spec.gid = ID_BLOCK),
            ("id_base", |spec| spec.id_base = 0),
            ("id_base", |spec| spec.id_base = ID_BLOCK - 1),
            ("id_base", |spec| spec.id_base = u32::MAX),
            ("cwd", |spec| spec.cwd = "work".to_owned()),
            ("cwd", |spec| spec.cwd = "/a/../b".to_owned()),
            ("cwd", |spec| spec.cwd = "/proc/self/fd/7".to_owned()),
            ("cwd", |spec| spec.cwd = "/dev".to_owned()),
            ("hostname", |spec| spec.hostname = String::new()),
            ("hostname", |spec| spec.hostname = "a\nb".to_owned()),
            ("hostname", |spec| spec.hostname = "a".repeat(64)),
            ("cgroup_parent", |spec| spec.cgroup_parent = String::new()),
            ("cgroup_parent", |spec| spec.cgroup_parent = "/".to_owned()),
            ("cgroup_parent", |spec| spec.cgroup_parent = "a/../..".to_owned()),
            ("limits", |spec| spec.limits.memory_bytes = 1),
            ("limits", |spec| spec.limits.memory_bytes = u64::MAX),
            ("limits", |spec| spec.limits.pids = 0),
            ("limits", |spec| spec.limits.pids = u64::MAX),
            ("limits", |spec| spec.limits.cpu_millis = 1),
            ("limits", |spec| spec.limits.cpu_millis = u64::MAX),
            ("binds", |spec| spec.binds.iter_mut().for_each(|bind| bind.source = "data".into())),
        ];
        let names = |spec: &AttemptSpec| match build(spec, "/x", "/r", 1024) {
            Err(SpecError::Field { field, .. }) => Some(field),
            Ok(_) => None,
        };
        assert_eq!(names(&attempt()), None);
        for (index, (field, change)) in refused.iter().enumerate() {
            let mut spec = attempt();
            change(&mut spec);
            assert_eq!(names(&spec), Some(*field), "change {index}");
        }
        for target in ["/", "inputs", "/a/../b", "/proc", "/proc/x", "/dev/mem", "/sys/x", "/tmp", "/tmp/x", "/a\0b", "/./a"] {
            let mut spec = attempt();
            spec.binds = vec![bind(target)];
            assert_eq!(names(&spec), Some("binds"), "{target}");
        }
        for path in ["/dev", "/dev/", "/dev/../x", "/etc/x", "/dev/x/"] {
            let mut spec = attempt();
            let node = DeviceNode { path: path.to_owned(), major: 195, minor: 0 };
            spec.gpus = vec![crate::gpu::GivenGpu { id: "nvidia.com/gpu=0".to_owned(), nodes: [node].into(), scrubbed: String::new() }];
            assert_eq!(names(&spec), Some("gpus"), "{path}");
        }
        for target in ["/processes", "/inputs/a b", "/outputs"] {
            let mut spec = attempt();
            spec.binds = vec![bind(target)];
            assert_eq!(names(&spec), None, "{target}");
        }
    }
}
