//! Tries what a hostile job would try, harmlessly, and says for each attempt by which error it was refused: one line
//! `name errno` each, errno 0 for what was allowed. The tests run it inside a job; it does nothing that would hurt
//! a machine where nothing refuses.
#![expect(unsafe_code, reason = "the whole purpose is to make raw system calls with odd arguments")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "every call is given null, constants, or C strings and buffers that live through it")]

use std::ffi::CString;
use std::io::Write;
use std::process::ExitCode;

type Call = (&'static str, libc::c_long, [libc::c_long; 6]);

fn say(name: &str, errno: i32) {
    let _ = writeln!(std::io::stdout(), "{name} {errno}");
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn call(number: libc::c_long, [a, b, c, d, e, f]: [libc::c_long; 6]) -> i32 {
    if unsafe { libc::syscall(number, a, b, c, d, e, f) } < 0 { errno() } else { 0 }
}

fn text(text: &'static std::ffi::CStr) -> libc::c_long {
    text.as_ptr() as libc::c_long
}

fn calls() {
    let (tmp, tmpfs) = (text(c"/tmp"), text(c"tmpfs"));
    let newuser = libc::c_long::from(libc::CLONE_NEWUSER);
    let high = 1_i64 << 32;
    let cwd = libc::c_long::from(libc::AT_FDCWD);
    let list: &[Call] = &[
        ("mount", libc::SYS_mount, [0, tmp, tmpfs, 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [tmp, 0, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [tmp, tmp, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [tmp, 0, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [tmpfs, 0, 0, 0, 0, 0]),
        ("fsconfig", libc::SYS_fsconfig, [-1, 0, 0, 0, 0, 0]),
        ("fsmount", libc::SYS_fsmount, [-1, 0, 0, 0, 0, 0]),
        ("fspick", libc::SYS_fspick, [cwd, tmp, 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [cwd, tmp, 1, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [cwd, tmp, cwd, tmp, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [cwd, tmp, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [newuser, 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0, 0]),
        ("clone_newuser", libc::SYS_clone, [newuser | 17, 0, 0, 0, 0, 0]),
        ("clone_newns", libc::SYS_clone, [libc::c_long::from(libc::CLONE_NEWNS) | 17, 0, 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [cwd, 0, 0, 0, 0, 0]),
        ("mknod_disk", libc::SYS_mknodat, [cwd, text(c"/tmp/disk"), 0o060_600, 0xfe00, 0, 0]),
        ("mknod_memory", libc::SYS_mknodat, [cwd, text(c"/tmp/mem"), 0o020_600, 0x101, 0, 0]),
        ("mknod_fifo", libc::SYS_mknodat, [cwd, text(c"/tmp/fifo"), 0o010_600, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [16, 1, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [text(c"user"), text(c"x"), text(c"x"), 1, -3, 0]),
        ("request_key", libc::SYS_request_key, [text(c"user"), text(c"x"), 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, -1, -1, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("io_uring_enter", libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0, 0]),
        ("socket_unix", libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        ("socket_inet", libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
        ("socket_inet6", libc::SYS_socket, [10, 1, 0, 0, 0, 0]),
        ("socket_raw", libc::SYS_socket, [2, 3, 1, 0, 0, 0]),
        ("socket_alg", libc::SYS_socket, [38, 5, 0, 0, 0, 0]),
        ("socket_alg_high_bits", libc::SYS_socket, [high | 38, 5, 0, 0, 0, 0]),
        ("socket_vsock", libc::SYS_socket, [40, 1, 0, 0, 0, 0]),
        ("socket_packet", libc::SYS_socket, [17, 3, 0, 0, 0, 0]),
        ("socket_key", libc::SYS_socket, [15, 3, 2, 0, 0, 0]),
        ("socket_xdp", libc::SYS_socket, [44, 3, 0, 0, 0, 0]),
        ("socket_bluetooth", libc::SYS_socket, [31, 3, 0, 0, 0, 0]),
        ("netlink_route", libc::SYS_socket, [16, 3, 0, 0, 0, 0]),
        ("netlink_xfrm", libc::SYS_socket, [16, 3, 6, 0, 0, 0]),
        ("netlink_audit", libc::SYS_socket, [16, 3, 9, 0, 0, 0]),
        ("netlink_netfilter", libc::SYS_socket, [16, 3, 12, 0, 0, 0]),
        ("netlink_uevent", libc::SYS_socket, [16, 3, 15, 0, 0, 0]),
        ("netlink_generic", libc::SYS_socket, [16, 3, 16, 0, 0, 0]),
        ("tiocsti", libc::SYS_ioctl, [0, 0x5412, tmp, 0, 0, 0]),
        ("tiocsti_high_bits", libc::SYS_ioctl, [0, high | 0x5412, tmp, 0, 0, 0]),
        ("tioclinux", libc::SYS_ioctl, [0, 0x541c, tmp, 0, 0, 0]),
        ("tcgets", libc::SYS_ioctl, [1, 0x5401, 0, 0, 0, 0]),
        ("personality_none", libc::SYS_personality, [0, 0, 0, 0, 0, 0]),
        ("personality_ask", libc::SYS_personality, [0xFFFF_FFFF, 0, 0, 0, 0, 0]),
        ("personality_fixed_addresses", libc::SYS_personality, [0x004_0000, 0, 0, 0, 0, 0]),
        ("personality_i386", libc::SYS_personality, [8, 0, 0, 0, 0, 0]),
        ("sethostname", libc::SYS_sethostname, [tmp, 4, 0, 0, 0, 0]),
        ("setdomainname", libc::SYS_setdomainname, [tmp, 4, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, tmp, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [-1, tmp, 0, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [tmp, 0, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]),
        ("kexec_file_load", libc::SYS_kexec_file_load, [-1, -1, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [tmp, 0, 0, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [tmp, 0, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [tmp, 0, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0, tmp, 0, 0, 0, 0]),
        ("iopl", libc::SYS_iopl, [0, 0, 0, 0, 0, 0]),
        ("ioperm", libc::SYS_ioperm, [0, 1, 0, 0, 0, 0]),
        ("lookup_dcookie", 212, [0, 0, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [10, 0, 0, 0, 0, 0]),
        ("vhangup", libc::SYS_vhangup, [0, 0, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [0, 0, 0, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [0, 0, 0, 0, 0, 0]),
        ("clock_adjtime", libc::SYS_clock_adjtime, [0, 0, 0, 0, 0, 0]),
        ("kcmp", libc::SYS_kcmp, [1, 1, 0, 0, 0, 0]),
        ("unknown", 0xFFF, [0, 0, 0, 0, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [tmp, 0, 0, 0, 0, 0]),
        ("membarrier", libc::SYS_membarrier, [0, 0, 0, 0, 0, 0]),
        ("get_mempolicy", libc::SYS_get_mempolicy, [0, 0, 0, 0, 0, 0]),
    ];
    for (name, number, arguments) in list {
        say(name, call(*number, *arguments));
    }
}

/// Opens files for writing (or reading, with `<` before the name).
fn files(paths: impl Iterator<Item = String>) {
    for path in paths {
        let (flags, name) = path.strip_prefix('<').map_or((libc::O_WRONLY, path.as_str()), |name| (libc::O_RDONLY, name));
        let Ok(place) = CString::new(name) else { continue };
        let fd = unsafe { libc::open(place.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NONBLOCK) };
        say(&path, if fd < 0 { errno() } else { 0 });
    }
}

/// Makes one system call by a foreign door in a child and says by which signal that ended.
fn foreign(name: &str, door: fn()) {
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        door();
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    say(name, if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 });
}

#[cfg(target_arch = "x86_64")]
fn i386() {
    // getpid by the gate of 32-bit programs.
    unsafe { std::arch::asm!("int 0x80", inlateout("eax") 20 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _) };
}

#[cfg(not(target_arch = "x86_64"))]
fn i386() {}

fn x32() {
    unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) };
}

fn connect(name: &str) {
    use std::os::linux::net::SocketAddrExt;
    let result = std::os::unix::net::SocketAddr::from_abstract_name(name).and_then(|address| std::os::unix::net::UnixStream::connect_addr(&address).map(drop));
    say("connect_abstract", result.err().and_then(|error| error.raw_os_error()).unwrap_or(0));
}

/// Speaks to itself over the loopback interface.
fn loopback() {
    let exchange = || -> std::io::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let mut near = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.write_all(b"x")?;
        std::io::Read::read_exact(&mut far, &mut [0])
    };
    say("loopback", exchange().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1)));
}

fn signal(pid: &str) {
    let pid = pid.parse().unwrap_or(0);
    say("kill", if unsafe { libc::kill(pid, 0) } < 0 { errno() } else { 0 });
    say("pidfd_open", call(libc::SYS_pidfd_open, [pid.into(), 0, 0, 0, 0, 0]));
    say("ptrace_host", call(libc::SYS_ptrace, [16, pid.into(), 0, 0, 0, 0]));
}

fn descriptors() {
    let open = (0..4096).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).map(|fd| fd.to_string()).collect::<Vec<_>>();
    let _ = writeln!(std::io::stdout(), "open {}", open.join(","));
}

/// Opens until it is refused.
fn exhaust() {
    let mut count = 0;
    loop {
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) } < 0 {
            let _ = writeln!(std::io::stdout(), "opened {count}");
            say("open", errno());
            return;
        }
        count += 1;
    }
}

fn eat(bytes: usize) {
    let mut all = Vec::new();
    for _ in 0..bytes >> 20 {
        all.push(vec![1_u8; 1 << 20]);
    }
    say("eaten", i32::from(all.iter().flatten().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>() == 0));
}

/// Does not hear SIGTERM, takes back the death signal, and waits.
fn stubborn() {
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    say("forget_parent", if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) } < 0 { errno() } else { 0 });
    loop {
        unsafe { libc::pause() };
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let mut first = || arguments.next().unwrap_or_default();
    match verb.as_str() {
        "calls" => calls(),
        "connect" => connect(&first()),
        "loopback" => loopback(),
        "signal" => signal(&first()),
        "foreign" => {
            foreign("i386", i386);
            foreign("x32", x32);
        }
        "descriptors" => descriptors(),
        "exhaust" => exhaust(),
        "eat" => eat(first().parse().unwrap_or(0)),
        "stubborn" => stubborn(),
        "files" => files(arguments),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
