//! From an attempt to a sandbox that stands and was read back, its program not yet started.

use super::Directory;
use super::foreign::{self, Foreign, Launcher};
use super::program::Program;
use crate::cgroup::{Cgroup, Layout};
use crate::executor::{JobExecutor, Word, raw};
use crate::sandbox::{AttemptSpec, BindMount};
use crate::{limits, report, sys};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vocabulary::job::SandboxGrant;
use vocabulary::runtime::Runtime;

/// A made sandbox.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) spec: AttemptSpec,
    pub(super) program: Program,
    pub(crate) cgroup: Cgroup,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
    pub(crate) failure: PipeReader,
    pub(crate) log: Directory,
}

/// Where the sandbox is put together. Only this process's own mount namespace sees it, and it ends with it.
pub(super) const STAGE: &str = "/tmp";
/// Where the device nodes lie with which the filter is tried.
const DEVICES: &str = "/tmp/devices";

pub(super) fn because<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> String {
    let what = what.into();
    move |error| format!("{what}: {error}")
}

pub(super) fn create(directory: &Directory, spec: &AttemptSpec) -> Result<Created, String> {
    let cgroup = Cgroup::of(spec);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1_048_576);
    let root = format!("{STAGE}/root");
    // Opened before the stage may cover it.
    let foreign = match &spec.backend.binary {
        None if spec.backend.runtime == Runtime::Youki => None,
        None => return Err(format!("backend: `{}` without a program", spec.backend.runtime)),
        Some(binary) => Some(Foreign::new(spec.backend.runtime, binary, spec.attempt.to_string(), cgroup.layout())?),
    };
    let mut oci = crate::sandbox::oci_spec(spec, &cgroup.oci_path(), &root, files).map_err(|error| error.to_string())?;
    // The log is opened before the stage may cover it, and before the mounts that it may lie on are let go.
    let place = spec.log_dir.clone().unwrap_or_else(|| directory.join("log"));
    std::fs::create_dir_all(&place).map_err(because("create the log's directory"))?;
    let log = Directory::open(&place).map_err(because("open the log's directory"))?;
    mounts(spec, &root)?;
    std::fs::create_dir(format!("{STAGE}/bundle")).map_err(because("create the bundle"))?;
    let bytes = serde_json::to_vec(&oci).map_err(because("write the specification"))?;
    sys::write_whole(&directory.join("config.json"), &bytes).map_err(because("keep the specification"))?;
    match (&foreign, spec.backend.runtime) {
        (None, _) => crate::seccomp::for_libcontainer(&mut oci),
        (Some(_), Runtime::Youki | Runtime::Runc | Runtime::Crun) => crate::sandbox::for_launcher(&mut oci, foreign::LAUNCHER_PATH),
        // Their kernel is not this one: the launcher would find nothing that it asks for.
        (Some(_), Runtime::Kata) => {}
        (Some(_), Runtime::Runsc) => crate::sandbox::root_is_read_only_already(&mut oci),
    }
    let bytes = serde_json::to_vec(&oci).map_err(because("write the specification"))?;
    std::fs::write(format!("{STAGE}/bundle/config.json"), &bytes).map_err(because("write the specification"))?;
    // Whoever started this shim removes the control groups after a failure, once the lock is free.
    let (created, word) = container(spec, cgroup, log, foreign)?;
    match read_back(directory, &created, word.as_ref()) {
        Ok(()) => Ok(created),
        Err(error) => {
            let _ = created.cgroup.kill(Duration::from_secs(5));
            let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(created.pid), rustix::process::WaitOptions::empty());
            Err(error)
        }
    }
}

fn read_back(directory: &Directory, created: &Created, word: Option<&Word>) -> Result<(), String> {
    let report = report::read(&created.spec, &created.cgroup, created.pid, word);
    let bytes = serde_json::to_vec(&report).map_err(because("write the isolation report"))?;
    sys::write_whole(&directory.join("isolation.json"), &bytes).map_err(because("keep the isolation report"))?;
    let missing = report.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let seen: Vec<String> = report.layers.iter().filter(|layer| missing.contains(&layer.name.as_str())).map(|layer| format!("{} ({})", layer.name, layer.observed)).collect();
    Err(format!("layers of isolation are absent: {}", seen.join(", ")))
}

/// What the making of a sandbox needs of this machine's mounts, tried for real: a directory with shifted ids below
/// an overlay. Leaves this process in a mount namespace of its own with an empty stage; call it where that ends.
pub(crate) fn try_idmapped_overlay(directory: &Path) -> Result<(), String> {
    private_mounts()?;
    let namespace = sys::user_namespace(limits::ID_BLOCK, limits::ID_BLOCK).map_err(because("make a user namespace"))?;
    let image = tree(directory)?;
    sys::idmap(image.as_fd(), namespace.as_fd(), libc::MOUNT_ATTR_RDONLY).map_err(because(format!("shift the ids of `{}`", directory.display())))?;
    overlay(limits::ID_BLOCK, &format!("{STAGE}/root"), &image)
}

/// A mount namespace from which nothing comes back to the host.
fn private_mounts() -> Result<(), String> {
    sys::own_mount_namespace().map_err(because("make a mount namespace"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|error| {
        let chroot = "the root folder is no mount point (a plain chroot); bind its folder on itself before you enter it: mount --bind DIR DIR";
        if error == rustix::io::Errno::INVAL { format!("make mounts private: {error}: {chroot}") } else { format!("make mounts private: {error}") }
    })
}

fn tree(path: &Path) -> Result<OwnedFd, String> {
    rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(because(format!("open `{}`", path.display())))
}

fn attach(tree: &OwnedFd, place: impl AsFd) -> Result<(), String> {
    rustix::mount::move_mount(tree, "", place, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH).map_err(because("attach a mount"))
}

fn mounts(spec: &AttemptSpec, root: &str) -> Result<(), String> {
    private_mounts()?;
    let namespace = sys::user_namespace(spec.id_base, limits::ID_BLOCK).map_err(because("make a user namespace"))?;
    // Everything that lies on the host is opened before the stage covers a part of it.
    let image = tree(&spec.image_root)?;
    sys::idmap(image.as_fd(), namespace.as_fd(), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV).map_err(because("shift the ids of the image"))?;
    let mut binds = Vec::new();
    for bind in &spec.binds {
        let fd = tree(&bind.source)?;
        let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if bind.readonly {
            attributes |= libc::MOUNT_ATTR_RDONLY;
        }
        if !bind.exec && !spec.grants.contains(&SandboxGrant::MayCompile) {
            attributes |= libc::MOUNT_ATTR_NOEXEC;
        }
        sys::set_attributes(fd.as_fd(), attributes).map_err(because(format!("set flags of `{}`", bind.target)))?;
        binds.push((bind, fd));
    }
    let_go()?;
    stage(spec, root, &image)?;
    gpu_nodes(spec)?;
    for (bind, fd) in binds {
        let place = place(root, bind, is_directory(&fd)?, spec.id_base)?;
        attach(&fd, &place).map_err(|error| format!("`{}`: {error}", bind.target))?;
    }
    if spec.backend.runtime == Runtime::Runsc {
        read_only_root(root, spec.id_base)?;
    }
    working_directory(root, &spec.cwd)
}

/// Takes the right to write from the root before runsc sees it. It would do so itself, from within the user namespace, and forget
/// the flags that the mount already has: the kernel refuses that. Where it mounts its own, a directory must be there by then.
fn read_only_root(root: &str, owner: u32) -> Result<(), String> {
    for place in ["/proc", "/dev", "/sys", "/tmp"] {
        make(root, place, true, owner)?;
    }
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(root, flags, c"").map_err(because("make the root read-only"))
}

/// The working directory is there, and inside. Some runtimes would make it, others would refuse: no job depends on which.
fn working_directory(root: &str, cwd: &str) -> Result<(), String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let top = open(root, OFlags::PATH | OFlags::DIRECTORY)?;
    // The job's own `/tmp` is empty, whatever the image has there.
    let covered = cwd.starts_with("/tmp/");
    let found = rustix::fs::openat2(&top, cwd, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve);
    match found {
        Ok(_) if !covered => Ok(()),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Err(format!("cwd: `{cwd}` is not in the image")),
        Err(error) => Err(format!("cwd: `{cwd}`: {error}")),
    }
}

/// Lets go of every mount that this shim does not need. A copy that stays here would keep another job's scratch mounted,
/// its loop device attached and its key in the kernel until *this* job ends.
fn let_go() -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(because("read mountinfo"))?;
    let kept = |point: &str| point == "/" || ["/proc", "/sys", "/dev"].iter().any(|top| point == *top || point.starts_with(&format!("{top}/")));
    let mut points: Vec<PathBuf> = crate::leftovers::mount_points(&text);
    points.retain(|point| !kept(&point.to_string_lossy()));
    for point in points.into_iter().rev() {
        match rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // It went with the mount that it lay below.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(format!("let go of `{}`: {error}", point.display())),
        }
    }
    Ok(())
}

fn overlay(owner: u32, root: &str, image: &OwnedFd) -> Result<(), String> {
    rustix::mount::mount("tmpfs", STAGE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=16m").map_err(because("mount the stage"))?;
    for name in ["lower", "upper", "work", "root", "state"] {
        std::fs::create_dir(format!("{STAGE}/{name}")).map_err(because("create the stage"))?;
    }
    std::os::unix::fs::chown(format!("{STAGE}/upper"), Some(owner), Some(owner)).map_err(because("give the root to the job"))?;
    let lower = open(&format!("{STAGE}/lower"), OFlags::PATH | OFlags::DIRECTORY)?;
    attach(image, &lower)?;
    let options = std::ffi::CString::new(format!("lowerdir={STAGE}/lower,upperdir={STAGE}/upper,workdir={STAGE}/work")).map_err(because("overlay"))?;
    rustix::mount::mount("overlay", root, "overlay", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str()).map_err(because("mount the overlay"))
}

fn stage(spec: &AttemptSpec, root: &str, image: &OwnedFd) -> Result<(), String> {
    overlay(spec.id_base, root, image)?;
    for (name, text) in [
        ("/etc/hostname", format!("{}\n", spec.hostname)),
        ("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {}\n", spec.hostname)),
        ("/etc/resolv.conf", "# this job has no network\n".to_owned()),
    ] {
        clear_dangling(root, name)?;
        let file = make(root, name, false, spec.id_base)?;
        let file = File::options().write(true).truncate(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(because(format!("write `{name}`")))?;
        std::io::Write::write_all(&mut &file, text.as_bytes()).map_err(because(format!("write `{name}`")))?;
    }
    Ok(())
}

/// Removes a link that leads nowhere from where a file of ours goes: many images link `/etc/resolv.conf` into `/run`.
fn clear_dangling(root: &str, path: &str) -> Result<(), String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let top = open(root, OFlags::PATH | OFlags::DIRECTORY)?;
    let Some((folder, name)) = path.trim_start_matches('/').rsplit_once('/') else { return Ok(()) };
    match rustix::fs::openat2(&top, path.trim_start_matches('/'), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => {}
        Ok(_) | Err(_) => return Ok(()),
    }
    let Ok(parent) = rustix::fs::openat2(&top, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve) else { return Ok(()) };
    match rustix::fs::statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() => {
            rustix::fs::unlinkat(&parent, name, rustix::fs::AtFlags::empty()).map_err(because(format!("replace the link `{path}`")))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, String> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(because(format!("open `{path}`")))
}

fn is_directory(fd: &OwnedFd) -> Result<bool, String> {
    let stat = rustix::fs::fstat(fd).map_err(because("look at a bind"))?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn place(root: &str, bind: &BindMount, directory: bool, owner: u32) -> Result<OwnedFd, String> {
    make(root, &bind.target, directory, owner).map_err(|error| format!("bind target: {error}"))
}

/// Finds or makes a path below the root, links resolved inside it, and opens it without following a last link out.
fn make(root: &str, path: &str, directory: bool, owner: u32) -> Result<OwnedFd, String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let top = open(root, OFlags::PATH | OFlags::DIRECTORY)?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut built = String::from(".");
    for (index, part) in parts.iter().enumerate() {
        let parent = rustix::fs::openat2(&top, built.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(because(format!("`{path}`")))?;
        built = format!("{built}/{part}");
        let wants_directory = directory || index + 1 < parts.len();
        match rustix::fs::openat2(&top, built.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(_) => continue,
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(format!("`{path}`: {error}")),
        }
        if wants_directory {
            rustix::fs::mkdirat(&parent, *part, Mode::from_raw_mode(0o755)).map_err(because(format!("create `{path}`")))?;
        } else {
            rustix::fs::openat(&parent, *part, OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
                .map_err(because(format!("create `{path}`")))?;
        }
        rustix::fs::chownat(&parent, *part, Some(rustix::fs::Uid::from_raw(owner)), Some(rustix::fs::Gid::from_raw(owner)), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(because(format!("create `{path}`")))?;
    }
    let found = rustix::fs::openat2(&top, built.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(because(format!("`{path}`")))?;
    if is_directory(&found)? != directory {
        return Err(format!("`{path}` is in the image, but of the wrong kind"));
    }
    Ok(found)
}

/// Two device nodes on the stage: one that every job may open, and one that none may, whatever its mode says.
fn proof_devices() -> Result<[OwnedFd; 2], String> {
    let make = |name: &str, major: u32, minor: u32| {
        let path = format!("{DEVICES}/{name}");
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).map_err(because("make a device node"))?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o666)).map_err(because("make a device node"))?;
        open(&path, OFlags::PATH)
    };
    std::fs::create_dir(DEVICES).map_err(because("create the stage"))?;
    rustix::mount::mount("tmpfs", DEVICES, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0700,size=64k").map_err(because("mount the stage"))?;
    // 1:3 is null. 10:237 is the loop devices' control: opening it does nothing, and the filter judges before any driver.
    Ok([make("null", 1, 3)?, make("forbidden", 10, 237)?])
}

/// The nodes of the job's GPUs, made from their numbers: they belong to the job's user, and nobody else finds them.
fn gpu_nodes(spec: &AttemptSpec) -> Result<(), String> {
    let nodes = crate::sandbox::gpu_nodes(spec);
    if nodes.is_empty() {
        return Ok(());
    }
    let place = crate::sandbox::GPU_STAGE;
    std::fs::create_dir(place).map_err(because("create the stage"))?;
    rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0711,size=64k").map_err(because("mount the stage"))?;
    let owner = |id: u32| spec.id_base.saturating_add(id);
    for (index, node) in nodes.into_iter().enumerate() {
        let path = format!("{place}/{index}");
        let device = rustix::fs::makedev(node.major, node.minor);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o600), device).map_err(because("make a GPU's node"))?;
        std::os::unix::fs::chown(&path, Some(owner(spec.uid)), Some(owner(spec.gid))).map_err(because("give a GPU's node to the job"))?;
    }
    Ok(())
}

/// The near ends of what a sandbox is connected with, and the far ones.
struct Pipes {
    stdout: (PipeReader, PipeWriter),
    stderr: (PipeReader, PipeWriter),
    report: (PipeReader, PipeWriter),
    failure: (PipeReader, PipeWriter),
}

impl Pipes {
    fn new(spec: &AttemptSpec) -> Result<Self, String> {
        let pipe = || std::io::pipe().map_err(because("make a pipe"));
        let pipes = Self { stdout: pipe()?, stderr: pipe()?, report: pipe()?, failure: pipe()? };
        // The job may open its own output again by /dev/stdout.
        let (uid, gid) = (spec.id_base.saturating_add(spec.uid), spec.id_base.saturating_add(spec.gid));
        for fd in [pipes.stdout.1.as_fd(), pipes.stderr.1.as_fd()] {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid))).map_err(because("give the output to the job"))?;
        }
        Ok(pipes)
    }
}

fn container(spec: &AttemptSpec, cgroup: Cgroup, log: Directory, foreign: Option<Foreign>) -> Result<(Created, Option<Word>), String> {
    let pipes = Pipes::new(spec)?;
    let devices = proof_devices()?;
    let mut writable = vec!["/tmp".to_owned(), "/dev".to_owned()];
    writable.extend(spec.binds.iter().filter(|bind| !bind.readonly).map(|bind| bind.target.clone()));
    // A v1 manager leaves the unified half alone, and the job's view of it begins where its first process is born: the
    // shim goes there for the birth. On unified machines the runtime moves the process itself, in time.
    if cgroup.layout() != Layout::Unified {
        cgroup.join_handle(0).map_err(because("join the job's control group"))?;
    }
    let made = match foreign {
        None => embedded(spec, &pipes, &devices, writable),
        Some(foreign) if matches!(spec.backend.runtime, Runtime::Runsc | Runtime::Kata) => hidden(foreign, &pipes),
        Some(foreign) => launched(spec, foreign, &pipes, &devices, &writable),
    };
    if cgroup.layout() != Layout::Unified {
        cgroup.join_shim().map_err(because("leave the job's control group"))?;
    }
    let (program, pid) = made?;
    cgroup.complete_limits().map_err(because("complete the limits"))?;
    // The score that the job has was set on this process first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    let Pipes { stdout: (stdout, far_out), stderr: (stderr, far_err), report: (mut report, far_report), failure: (failure, far_failure) } = pipes;
    // A first process that dies without a word shall be heard: nobody else holds these ends then.
    drop((far_out, far_err, far_report, far_failure, devices));
    let raw_pid = rustix::process::Pid::from_raw(pid).ok_or("the sandbox has no first process")?;
    let pidfd = rustix::process::pidfd_open(raw_pid, rustix::process::PidfdFlags::empty()).map_err(because("hold the first process"))?;
    if !matches!(program, Program::Hidden { .. }) {
        let network = File::open(format!("/proc/{pid}/ns/net")).map_err(because("open the job's network"))?;
        sys::loopback_up(network.as_fd()).map_err(because("bring the loopback interface up"))?;
    }
    let word = match &program {
        Program::Embedded(_) => Some(first_word(&mut report)?),
        Program::Launched { foreign, .. } => {
            foreign.start()?;
            Some(first_word(&mut report)?)
        }
        Program::Hidden { .. } => None,
    };
    Ok((Created { spec: spec.clone(), program, cgroup, pid, pidfd, stdout, stderr, failure, log }, word))
}

/// The sandbox by libcontainer, in this process.
fn embedded(spec: &AttemptSpec, pipes: &Pipes, devices: &[OwnedFd; 2], writable: Vec<String>) -> Result<(Program, i32), String> {
    let null = File::open("/dev/null").map_err(because("open /dev/null"))?;
    let [allowed, forbidden] = devices;
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(because("copy a pipe"));
    let executor = JobExecutor {
        allowed_device: raw(allowed.as_fd()),
        forbidden_device: raw(forbidden.as_fd()),
        report: raw(pipes.report.1.as_fd()),
        failure: raw(pipes.failure.1.as_fd()),
        argv: spec.argv.clone(),
        env: spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        writable,
    };
    let container = ContainerBuilder::new(spec.attempt.to_string(), SyscallType::default())
        .with_root_path(format!("{STAGE}/state"))
        .map_err(because("sandbox"))?
        .with_executor(executor)
        .with_stdin(OwnedFd::from(null))
        .with_stdout(own(pipes.stdout.1.as_fd())?)
        .with_stderr(own(pipes.stderr.1.as_fd())?)
        .validate_id()
        .map_err(because("sandbox"))?
        .as_init(format!("{STAGE}/bundle"))
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    let pid = container.pid().ok_or("the sandbox has no first process")?.as_raw();
    Ok((Program::Embedded(Box::new(container)), pid))
}

/// The sandbox by a foreign runtime, with our launcher as its first program.
fn launched(spec: &AttemptSpec, foreign: Foreign, pipes: &Pipes, devices: &[OwnedFd; 2], writable: &[String]) -> Result<(Program, i32), String> {
    let null = File::open("/dev/null").map_err(because("open /dev/null"))?;
    let (start, go) = std::io::pipe().map_err(because("make a pipe"))?;
    let [allowed, forbidden] = devices;
    let launcher = Launcher {
        program: foreign::launcher()?,
        plan: foreign::plan(spec, writable)?,
        report: pipes.report.1.as_fd(),
        start: start.as_fd(),
        failure: pipes.failure.1.as_fd(),
        devices: [allowed.as_fd(), forbidden.as_fd()],
    };
    let pid = foreign.create([null.as_fd(), pipes.stdout.1.as_fd(), pipes.stderr.1.as_fd()], Some(&launcher))?;
    Ok((Program::Launched { foreign, go: Some(go) }, pid))
}

/// The sandbox by a foreign runtime whose inside cannot be looked at.
fn hidden(foreign: Foreign, pipes: &Pipes) -> Result<(Program, i32), String> {
    let null = File::open("/dev/null").map_err(because("open /dev/null"))?;
    let pid = foreign.create([null.as_fd(), pipes.stdout.1.as_fd(), pipes.stderr.1.as_fd()], None)?;
    Ok((Program::Hidden { foreign, waiter: None }, pid))
}

/// The executor's word: one small write, so one read takes it whole.
fn first_word(report: &mut PipeReader) -> Result<Word, String> {
    let mut bytes = [0; 4096];
    let read = report.read(&mut bytes).map_err(because("read the executor's report"))?;
    serde_json::from_slice(bytes.get(..read).unwrap_or_default()).map_err(because("the executor's report"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
