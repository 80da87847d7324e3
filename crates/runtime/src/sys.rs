//! The few system calls that no safe crate offers, and small helpers over files.

#![expect(unsafe_code, reason = "mount_setattr, fork, close_range, unshare and setns of processes with one thread")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Writes a file so that after a crash it is there whole or not at all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("path without a directory"))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = parent.join(name);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

/// Writes a file so that a reader sees it whole or not at all. After a power cut it may be gone: for what only living
/// processes need.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

/// The id that the kernel drew at its start.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Standard base64 with padding (RFC 4648 section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

/// Runs `child` in a copy of this process, which then ends. Only for processes with one thread.
pub(crate) fn fork(child: impl FnOnce()) -> io::Result<i32> {
    // SAFETY: the caller has one thread, so the child may go on using the heap and the standard library.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        child();
        exit_now(0);
    }
    Ok(pid)
}

/// A program that is started with exactly these descriptors.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The program, by descriptor.
    pub(crate) program: BorrowedFd<'a>,
    /// Its arguments, the first included.
    pub(crate) argv: Vec<std::ffi::CString>,
    /// Its environment.
    pub(crate) env: Vec<std::ffi::CString>,
    /// Its descriptors from 0 on.
    pub(crate) fds: Vec<BorrowedFd<'a>>,
    /// A mount that this program shall not see.
    pub(crate) hidden: Option<&'a Path>,
}

/// Starts a program, an own child. Only for processes with one thread.
pub(crate) fn launch(launch: &Launch<'_>) -> io::Result<i32> {
    fork(|| {
        let errno = become_program(launch).err().and_then(|error| error.raw_os_error()).unwrap_or(0);
        let _ = writeln!(io::stderr(), "execute the runtime: {}", io::Error::from_raw_os_error(errno));
        exit_now(127);
    })
}

/// Comes back only with an error.
fn become_program(launch: &Launch<'_>) -> io::Result<()> {
    if let Some(hidden) = launch.hidden {
        own_mount_namespace()?;
        rustix::mount::unmount(hidden, rustix::mount::UnmountFlags::DETACH)?;
    }
    // Out of the way of the numbers that they shall get.
    let away = |fd: &BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 100);
    let program = away(&launch.program)?;
    let fds = launch.fds.iter().map(away).collect::<Result<Vec<_>, _>>()?;
    for (number, fd) in (0..).zip(&fds) {
        // SAFETY: takes numbers; this copy of the process owns nothing at the places that are replaced.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let from = u32::try_from(fds.len()).map_err(io::Error::other)?;
    // SAFETY: marks descriptors; nothing is closed before the program is executed.
    if unsafe { libc::syscall(libc::SYS_close_range, from, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    Err(io::Error::from_raw_os_error(execve(&path, &launch.argv, &launch.env)))
}

/// Closes every descriptor but the first three and the two given ones.
pub(crate) fn close_all_but(mut kept: [i32; 2]) -> io::Result<()> {
    kept.sort_unstable();
    let mut from = 3_u32;
    for end in kept.into_iter().map(Some).chain([None]) {
        let last = end.map_or(u32::MAX, |fd| u32::try_from(fd).unwrap_or(0).saturating_sub(1));
        // SAFETY: called in a fresh copy of the process that ends soon and uses none of the closed descriptors.
        if from <= last && unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        from = from.max(last.saturating_add(2));
    }
    Ok(())
}

/// A user namespace whose only use is its map: made by a child that ends at once.
pub(crate) fn user_namespace(id_base: u32, count: u32) -> io::Result<OwnedFd> {
    let (mut told, tell) = io::pipe()?;
    let (hold, held) = io::pipe()?;
    // SAFETY: the shim has one thread, so the child may go on using the heap and the standard library.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        drop(told);
        drop(held);
        // SAFETY: unshare takes no pointer; a new user namespace shares no memory-unsafe state with the parent.
        let made = unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0;
        let _ = (&tell).write_all(&[u8::from(made)]);
        let mut end = [0];
        let _ = (&hold).read(&mut end);
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    drop(tell);
    drop(hold);
    let result = map_and_open(&mut told, pid, id_base, count);
    drop(held);
    let mut status = 0;
    // SAFETY: `status` is a valid place for one int; the pid is our own unreaped child.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    result
}

fn map_and_open(told: &mut io::PipeReader, pid: i32, id_base: u32, count: u32) -> io::Result<OwnedFd> {
    let mut made = [0];
    told.read_exact(&mut made)?;
    if made != [1] {
        return Err(io::Error::other("the kernel refused a user namespace (inside a chroot it always does; else see: sysctl user.max_user_namespaces)"));
    }
    let map = format!("0 {id_base} {count}");
    std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &map)?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// Shifts the ids of a detached mount and takes rights from it.
pub(crate) fn idmap(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    mount_setattr(tree, libc::MOUNT_ATTR_IDMAP | attributes, u64::try_from(user_namespace.as_raw_fd()).map_err(io::Error::other)?)
}

/// Takes rights from a detached mount.
pub(crate) fn set_attributes(tree: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    mount_setattr(tree, attributes, 0)
}

fn mount_setattr(tree: BorrowedFd<'_>, attr_set: u64, userns_fd: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd };
    // SAFETY: the path is a C string, the structure is as long as the size says, both live through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, &raw const attr, size_of::<libc::mount_attr>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Tries to leave namespaces for new ones, in a copy of this process that then ends. Only for processes with one thread.
pub(crate) fn try_namespaces(flags: i32) -> io::Result<()> {
    let (mut told, tell) = io::pipe()?;
    let pid = fork(|| {
        // SAFETY: unshare takes no pointer, and this process ends right after it.
        let errno = if unsafe { libc::unshare(flags) } == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(-1) };
        let _ = (&tell).write_all(&errno.to_ne_bytes());
    })?;
    drop(tell);
    let mut errno = [0; 4];
    let read = told.read_exact(&mut errno);
    let mut status = 0;
    // SAFETY: `status` is a valid place for one int; the pid is our own unreaped child.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    read?;
    match i32::from_ne_bytes(errno) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Whether the kernel's filter can answer a call with an error number.
pub(crate) fn seccomp_errno_available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads one u32, which lives through the call, and changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The version of Landlock that this kernel speaks.
pub(crate) fn landlock_abi() -> io::Result<i64> {
    // SAFETY: with the flag LANDLOCK_CREATE_RULESET_VERSION (1) the call takes no structure and makes nothing.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) };
    if abi >= 0 { Ok(abi) } else { Err(io::Error::last_os_error()) }
}

#[repr(C)]
struct BpfLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 13],
}

/// Loads a program of two instructions that does nothing, and drops it again.
pub(crate) fn try_bpf() -> io::Result<()> {
    // `r0 = 0; exit` for a socket filter, the least of all kinds.
    let program: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    let address = |place: *const u8| u64::try_from(place.addr()).map_err(io::Error::other);
    let load = BpfLoad { kind: 1, count: 2, instructions: address(program.as_ptr().cast())?, license: address(c"GPL".as_ptr().cast())?, rest: [0; 13] };
    // SAFETY: BPF_PROG_LOAD (5) reads the structure and what it points to; all of it lives through the call.
    let raw = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const load, size_of::<BpfLoad>()) };
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
    Ok(())
}

/// Gives the calling thread its own mount namespace. Only for processes with one thread.
pub(crate) fn own_mount_namespace() -> io::Result<()> {
    // SAFETY: unshare takes no pointer; the descriptor table stays shared with nobody else.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings the loopback interface of another network namespace up. Only for processes with one thread.
pub(crate) fn loopback_up(network: BorrowedFd<'_>) -> io::Result<()> {
    let own = File::open("/proc/self/ns/net")?;
    enter_network(network)?;
    let result = set_loopback();
    // Without the way back nothing of this process may go on.
    enter_network(std::os::fd::AsFd::as_fd(&own))?;
    result
}

fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes a descriptor that is borrowed and alive, and a flag.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_loopback() -> io::Result<()> {
    // SAFETY: plain socket creation; the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` is a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *place = libc::c_char::try_from(*byte).map_err(io::Error::other)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Replaces the process; comes back only with the error number.
pub(crate) fn execve(program: &std::ffi::CStr, argv: &[std::ffi::CString], env: &[std::ffi::CString]) -> i32 {
    let pointers = |list: &[std::ffi::CString]| -> Vec<*const libc::c_char> { list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect() };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: resets one signal to its default; programs expect a broken pipe to end them, and ignoring is inherited.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: both lists end with a null pointer and every string lives through the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Ends the process at once, without destructors.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number, never returns.
    unsafe { libc::_exit(code) }
}

/// Lends a descriptor that the process keeps open until it ends.
pub(crate) fn borrow(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: called only in the job's first process with descriptors that nobody closes before `execve`.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
