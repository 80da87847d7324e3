//! Which GPUs a machine has, from the specifications of its driver's tools (Container Device Interface, JSON).
//!
//! Such a file is written by a program of the vendor and read by root: it is an outsider. Nothing of it is believed beyond a
//! short list of what a GPU needs, and no hook of it ever runs.
//!
//! **Invariant:** a device node is given by its numbers, read from the node itself, never by a path that something may replace.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

use crate::sandbox::BindMount;

/// Bytes of one specification: those of machines with eight GPUs have some tens of kilobytes.
pub const SPEC_BYTES: u64 = 1 << 20;
/// Specifications of one machine, and devices, nodes and mounts of one of them: several times what the largest have.
pub const ITEMS: usize = 256;
/// The versions of the format that this reads.
const VERSIONS: [&str; 7] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];
/// What is a GPU.
const KINDS: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];
/// Where libraries and programs of a driver lie, on the machine and in a job.
const PLACES: [&str; 6] = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/bin", "/usr/share"];
/// Sockets of the driver's services: no job needs them, and none is given them.
const SERVICES: [&str; 2] = ["/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"];
/// Nodes that only displays and debuggers need.
const LEFT_OUT: [&str; 2] = ["/dev/nvidia-modeset", "/dev/nvidia-uvm-tools"];
/// Variables that a specification may carry. They are read by vendors' hooks alone, and no job is given them.
const VARIABLES: [&str; 2] = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_CTK_LIBCUDA_DIR"];
/// The major numbers that never change: NVIDIA's, and that of rendering nodes.
const MAJORS: [(&str, u32); 2] = [("nvidia", 195), ("drm", 226)];
/// Names of drivers in `/proc/devices` whose numbers are drawn when they are loaded.
const DRAWN: [&str; 5] = ["nvidia-uvm", "nvidia-caps", "nvidia-nvswitch", "nvidia-caps-imex-channels", "kfd"];

/// Why a specification is not used.
#[derive(Debug, Error)]
pub enum CdiError {
    /// It cannot be read.
    #[error("GPU specification `{}`", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It breaks a rule.
    #[error("GPU specification `{}`: {rule}", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// The field and the rule.
        rule: String,
    },
}

/// A character device as a job is given it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceNode {
    /// Path inside, directly below `/dev` or one folder deeper.
    pub path: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// One whole GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, such as `nvidia.com/gpu=0`.
    pub id: String,
    /// Its nodes, and those that every job with a GPU of this driver has.
    pub nodes: BTreeSet<DeviceNode>,
    /// Libraries and programs of the driver, read-only.
    pub mounts: Vec<BindMount>,
}

/// A GPU as one attempt is given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenGpu {
    /// Its name.
    pub id: String,
    /// Its nodes.
    pub nodes: BTreeSet<DeviceNode>,
    /// How its memory was cleaned after the one who had it before, in words for the report.
    pub scrubbed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    /// Read so that they are known to be there, never run.
    #[serde(rename = "hooks")]
    _hooks: Vec<serde_json::Value>,
    /// Not needed: the nodes belong to the job's own user.
    #[serde(rename = "additionalGids")]
    _additional_gids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<u32>,
    minor: Option<u32>,
    #[serde(default, rename = "fileMode")]
    _file_mode: Option<u32>,
    permissions: Option<String>,
    #[serde(default, rename = "uid")]
    _uid: Option<u32>,
    #[serde(default, rename = "gid")]
    _gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default, rename = "options")]
    _options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Every GPU that the specifications in these directories describe, in the order of their names.
///
/// # Errors
/// At the first file that cannot be read or breaks a rule: a machine with such a file offers no GPU.
pub fn inventory(directories: &[PathBuf]) -> Result<Vec<Gpu>, CdiError> {
    let mut files = Vec::new();
    for directory in directories {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(CdiError::Read(directory.clone(), error)),
        };
        for entry in entries.take(ITEMS.saturating_add(1)) {
            files.push(entry.map_err(|error| CdiError::Read(directory.clone(), error))?.path());
        }
    }
    files.sort();
    let majors = majors(&std::fs::read_to_string("/proc/devices").unwrap_or_default());
    let mut all: Vec<Gpu> = Vec::new();
    for path in files {
        let rule = |rule: String| CdiError::Rule { path: path.clone(), rule };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {}
            Some("yaml" | "yml") => return Err(rule("YAML is not read; write JSON, such as with `nvidia-ctk cdi generate --format=json`".to_owned())),
            _ => continue,
        }
        let bytes = read(&path).map_err(|error| CdiError::Read(path.clone(), error))?;
        for gpu in parse(&bytes, &majors).map_err(rule)? {
            if all.iter().any(|known| known.id == gpu.id) {
                return Err(rule(format!("devices: `{}` is described twice", gpu.id)));
            }
            all.push(gpu);
        }
    }
    Ok(all)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(SPEC_BYTES.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The numbers that nodes may have.
fn majors(devices: &str) -> BTreeSet<u32> {
    let drawn = devices.lines().take_while(|line| !line.starts_with("Block")).filter_map(|line| line.trim().split_once(' ')).filter(|(_, name)| DRAWN.contains(name));
    MAJORS.iter().map(|(_, major)| *major).chain(drawn.filter_map(|(major, _)| major.parse().ok())).collect()
}

/// The GPUs of one specification. `majors` are the numbers that their nodes may have.
///
/// # Errors
/// A sentence with the field and the rule.
pub(crate) fn parse(bytes: &[u8], majors: &BTreeSet<u32>) -> Result<Vec<Gpu>, String> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SPEC_BYTES {
        return Err(format!("it has more than {SPEC_BYTES} bytes"));
    }
    let spec: Spec = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !VERSIONS.contains(&spec.cdi_version.as_str()) && spec.cdi_version != "1.1.0" {
        return Err(format!("cdiVersion: `{}` is none of {} and 1.1.0", short(&spec.cdi_version), VERSIONS.join(", ")));
    }
    if !KINDS.contains(&spec.kind.as_str()) {
        return Err(format!("kind: `{}` is none of {}", short(&spec.kind), KINDS.join(", ")));
    }
    if spec.devices.len() > ITEMS {
        return Err(format!("devices: more than {ITEMS}"));
    }
    let (common, libraries) = edits("containerEdits", &spec.container_edits, majors)?;
    let mut all: Vec<Gpu> = Vec::new();
    for device in &spec.devices {
        // What is no number is another name of the same device, all of them together, or a slice of one.
        if device.name.is_empty() || !device.name.bytes().all(|byte| byte.is_ascii_digit()) || device.name.len() > 4 {
            continue;
        }
        let (own, mounts) = edits(&format!("devices `{}`", device.name), &device.container_edits, majors)?;
        let card: BTreeSet<DeviceNode> = own.difference(&common).cloned().collect();
        if card.is_empty() {
            return Err(format!("devices `{}`: it has no node of its own", device.name));
        }
        if let Some(other) = all.iter().find(|other| other.nodes.iter().any(|node| !common.contains(node) && card.iter().any(|own| (own.major, own.minor) == (node.major, node.minor)))) {
            return Err(format!("devices `{}`: it shares a node with `{}`; a GPU belongs to one job alone", device.name, other.id));
        }
        let mut gpu = Gpu { id: format!("{}={}", spec.kind, device.name), nodes: common.union(&own).cloned().collect(), mounts: libraries.clone() };
        gpu.mounts.extend(mounts);
        all.push(gpu);
    }
    Ok(all)
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn edits(at: &str, edits: &Edits, majors: &BTreeSet<u32>) -> Result<(BTreeSet<DeviceNode>, Vec<BindMount>), String> {
    if edits.device_nodes.len() > ITEMS || edits.mounts.len() > ITEMS || edits.env.len() > ITEMS {
        return Err(format!("{at}: more than {ITEMS} nodes, mounts or variables"));
    }
    for line in &edits.env {
        let name = line.split('=').next().unwrap_or_default();
        if !VARIABLES.contains(&name) {
            return Err(format!("{at}: env: `{}` is none of {}", short(name), VARIABLES.join(", ")));
        }
    }
    let nodes = edits.device_nodes.iter().filter(|node| !LEFT_OUT.contains(&node.path.as_str()));
    let nodes = nodes.map(|node| device(node, majors).map_err(|rule| format!("{at}: deviceNodes: `{}`: {rule}", short(&node.path)))).collect::<Result<_, _>>()?;
    let mut mounts = Vec::new();
    for mount in edits.mounts.iter().filter(|mount| !SERVICES.contains(&mount.host_path.as_str())) {
        mounts.extend(library(mount).map_err(|rule| format!("{at}: mounts: `{}`: {rule}", short(&mount.host_path)))?);
    }
    Ok((nodes, mounts))
}

fn device(node: &Node, majors: &BTreeSet<u32>) -> Result<DeviceNode, String> {
    let name = node.path.strip_prefix("/dev/").ok_or("it is not below /dev")?;
    let known = name.starts_with("nvidia") || name == "kfd" || name.starts_with("dri/renderD");
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'/');
    if !known || !plain || name.matches('/').count() > 1 || name.ends_with('/') || name.len() > 64 {
        return Err("it is no node of a GPU: nvidia…, kfd or dri/renderD…".to_owned());
    }
    if node.kind.as_deref().is_some_and(|kind| !["", "c"].contains(&kind)) {
        return Err("type: it is `c`, a character device".to_owned());
    }
    if node.permissions.as_deref().is_some_and(|text| !text.bytes().all(|byte| b"rwm".contains(&byte))) {
        return Err("permissions: of r, w and m".to_owned());
    }
    let place = node.host_path.as_deref().unwrap_or(&node.path);
    let metadata = std::fs::symlink_metadata(place).map_err(|error| error.to_string())?;
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    if !metadata.file_type().is_char_device() || !majors.contains(&major) {
        return Err("it is no character device of a GPU's driver".to_owned());
    }
    if node.major.is_some_and(|told| told != major) || node.minor.is_some_and(|told| told != minor) {
        return Err(format!("its numbers are {major}:{minor}, not what is told"));
    }
    Ok(DeviceNode { path: node.path.clone(), major, minor })
}

/// A file of the driver, and for a library its short name too: linking those is a hook's work, and hooks do not run.
fn library(mount: &Mount) -> Result<Vec<BindMount>, String> {
    let inside = |path: &Path| PLACES.iter().any(|place| path.starts_with(place) && path != Path::new(place));
    let plain = |path: &str| path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == ".." || part == ".");
    if mount.kind.as_deref().is_some_and(|kind| !["", "none", "bind"].contains(&kind)) {
        return Err("type: it is a bind".to_owned());
    }
    if !plain(&mount.host_path) || !plain(&mount.container_path) || !inside(Path::new(&mount.container_path)) {
        return Err(format!("both paths are absolute without `..`, the one inside below {}", PLACES.join(", ")));
    }
    let source = std::fs::canonicalize(&mount.host_path).map_err(|error| error.to_string())?;
    if !inside(&source) || !source.is_file() {
        return Err(format!("it leads to no file below {}", PLACES.join(", ")));
    }
    let bind = |target: String| BindMount { source: source.clone(), target, readonly: true, exec: true };
    let mut all = vec![bind(mount.container_path.clone())];
    if let Some((stem, version)) = mount.container_path.rsplit_once(".so.")
        && version != "1"
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        all.push(bind(format!("{stem}.so.1")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A node with the numbers of NVIDIA's first card. Behind it is no driver: opening it fails by ENXIO, after every filter.
    fn node(directory: &Path, name: &str, minor: u32) -> String {
        let path = directory.join(name);
        let device = rustix::fs::makedev(195, minor);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o600), device).expect("these tests need root");
        path.display().to_string()
    }

    fn spec(directory: &Path) -> Value {
        let _ = std::fs::create_dir_all(directory);
        let place = |name: &str, minor| if directory.join(name).exists() { directory.join(name).display().to_string() } else { node(directory, name, minor) };
        let card = |n: u32| json!({"name": n.to_string(), "containerEdits": {"deviceNodes": [{"path": format!("/dev/nvidia{n}"), "hostPath": place(&format!("nvidia{n}"), n)}]}});
        json!({
            "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
            "devices": [card(0), card(1), {"name": "all", "containerEdits": {}}],
            "containerEdits": {
                "env": ["NVIDIA_VISIBLE_DEVICES=void"],
                "deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": place("nvidiactl", 255), "permissions": "rw"}, {"path": "/dev/nvidia-modeset", "hostPath": "/nowhere"}],
                "mounts": [{"hostPath": "/usr/lib/os-release", "containerPath": "/usr/lib/libcuda.so.550.1", "options": ["ro"]}, {"hostPath": "/run/nvidia-persistenced/socket", "containerPath": "/x"}],
                "hooks": [{"hookName": "createContainer", "path": "/bin/false", "args": ["x"]}],
            },
        })
    }

    fn read_spec(spec: &Value) -> Result<Vec<Gpu>, String> {
        parse(&serde_json::to_vec(spec).unwrap(), &majors(""))
    }

    #[test]
    fn a_vendors_specification_is_read() {
        let place = tempfile::tempdir().unwrap();
        let gpus = read_spec(&spec(place.path())).unwrap();
        assert_eq!(gpus.iter().map(|gpu| gpu.id.as_str()).collect::<Vec<_>>(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        let nodes: Vec<_> = gpus[1].nodes.iter().map(|node| (node.path.as_str(), node.major, node.minor)).collect();
        assert_eq!(nodes, [("/dev/nvidia1", 195, 1), ("/dev/nvidiactl", 195, 255)]);
        let mounts: Vec<_> = gpus[0].mounts.iter().map(|mount| (mount.target.as_str(), mount.readonly)).collect();
        assert_eq!(mounts, [("/usr/lib/libcuda.so.550.1", true), ("/usr/lib/libcuda.so.1", true)]);
    }

    #[test]
    fn a_hostile_specification_is_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        let good = spec(place.path());
        let edit = |pointer: &str, value: Value| {
            let mut spec = good.clone();
            *spec.pointer_mut(pointer).unwrap() = value;
            spec
        };
        let nodes = "/containerEdits/deviceNodes";
        let mount = |host: &str, inside: &str| edit("/containerEdits/mounts", json!([{"hostPath": host, "containerPath": inside}]));
        let mut strange = good.clone();
        strange["containerEdits"]["intelRdt"] = json!({});
        for (spec, word) in [
            (strange, "intelRdt"),
            (edit("/cdiVersion", json!("9.9.9")), "cdiVersion"),
            (edit("/kind", json!("evil.com/disk")), "kind"),
            (edit("/containerEdits/env", json!(["LD_PRELOAD=/x"])), "LD_PRELOAD"),
            (edit(nodes, json!([{"path": "/dev/nvidia9", "hostPath": "/dev/null"}])), "no character device of a GPU"),
            (edit(nodes, json!([{"path": "/dev/mem"}])), "no node of a GPU"),
            (edit(nodes, json!([{"path": "/dev/nvidia/../sda"}])), "no node of a GPU"),
            (edit(nodes, json!([{"path": "/dev/nvidiactl", "hostPath": place.path().join("nvidiactl"), "type": "b"}])), "type"),
            (edit(nodes, json!([{"path": "/dev/nvidiactl", "hostPath": place.path().join("nvidiactl"), "minor": 7}])), "195:255"),
            (mount("/etc/shadow", "/usr/lib/x"), "no file below"),
            (mount("/usr/lib/../../etc/shadow", "/usr/lib/x"), "without `..`"),
            (mount("/usr/lib", "/usr/lib/x"), "no file below"),
            (mount("/usr/lib/os-release", "/etc/passwd"), "the one inside"),
            (edit("/devices/1/containerEdits", good["devices"][0]["containerEdits"].clone()), "shares a node"),
            (edit("/devices/1/containerEdits", json!({})), "no node of its own"),
            (edit("/devices", Value::Array(vec![json!({"name": "a"}); ITEMS + 1])), "more than"),
        ] {
            let told = read_spec(&spec).unwrap_err();
            assert!(told.contains(word), "`{word}` in {told}");
        }
        assert!(parse(&vec![b' '; (1 << 20) + 1], &majors("")).unwrap_err().contains("bytes"));
    }

    #[test]
    fn whatever_the_bytes_are_nothing_breaks() {
        let place = tempfile::tempdir().unwrap();
        let bytes = serde_json::to_vec(&spec(place.path())).unwrap();
        for at in 0..bytes.len() {
            for value in [0, b'"', b'{', b'9', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = parse(&changed, &majors(""));
            }
            let _ = parse(&bytes[..at], &majors(""));
        }
    }

    #[test]
    fn drawn_numbers_are_looked_up_among_character_devices() {
        assert_eq!(majors("Character devices:\n  1 mem\n511 nvidia-uvm\n\nBlock devices:\n  8 kfd\n"), BTreeSet::from([195, 226, 511]));
    }

    #[test]
    fn a_folder_of_specifications_is_taken_as_a_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("cdi");
        std::fs::create_dir(&folder).unwrap();
        assert!(inventory(&[folder.clone(), place.path().join("absent")]).unwrap().is_empty());
        std::fs::write(folder.join("a.json"), serde_json::to_vec(&spec(place.path())).unwrap()).unwrap();
        assert_eq!(inventory(std::slice::from_ref(&folder)).unwrap().len(), 2);
        std::fs::write(folder.join("b.json"), serde_json::to_vec(&spec(place.path())).unwrap()).unwrap();
        assert!(inventory(std::slice::from_ref(&folder)).unwrap_err().to_string().contains("twice"));
        std::fs::rename(folder.join("b.json"), folder.join("b.yaml")).unwrap();
        assert!(inventory(std::slice::from_ref(&folder)).unwrap_err().to_string().contains("--format=json"));
    }
}
