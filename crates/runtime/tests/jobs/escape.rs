//! What a hostile job tries (section by section: calls, files, processes, images), and the error that stops it.

use crate::support::{Bench, SHIM, held};
use crate::supervision::processes;
use libc::{EACCES, EBADF, ECONNREFUSED, EFAULT, ENOENT, ENOSYS, ENOTTY, EPERM, EROFS, ESRCH, ETXTBSY, SIGSYS};
use runtime::sandbox::BindMount;
use runtime::supervisor::StartError;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use vocabulary::job::{ExitReason, SandboxGrant};

fn lines(text: &str) -> BTreeMap<String, i32> {
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, errno)| (name.to_owned(), errno.parse().unwrap())).collect()
}

fn probe(bench: &Bench, arguments: &[&str]) -> BTreeMap<String, i32> {
    let outcome = bench.run(&bench.spec(["/bin/escape-probe"].iter().chain(arguments).copied()));
    assert_eq!(outcome.exit.code, Some(0), "{outcome:?}");
    lines(&outcome.stdout)
}

fn assert_errors(seen: &BTreeMap<String, i32>, wanted: &[(&str, i32)]) {
    let differ: Vec<_> = wanted.iter().filter(|(name, errno)| seen.get(*name) != Some(errno)).map(|(name, errno)| (name, errno, seen.get(*name))).collect();
    assert!(differ.is_empty(), "(call, wanted, seen): {differ:?}");
}

/// Refused by name: EPERM. Unknown to the table: ENOSYS, so that libraries fall back. Zero: allowed.
const CALLS: &[(&str, i32)] = &[
    ("mount", EPERM), ("umount2", EPERM), ("pivot_root", EPERM), ("chroot", EPERM), ("fsopen", EPERM), ("fsconfig", EPERM), ("fsmount", EPERM), ("fspick", EPERM),
    ("open_tree", EPERM), ("move_mount", EPERM), ("mount_setattr", EPERM), ("unshare", EPERM), ("setns", EPERM), ("clone_newuser", EPERM), ("clone_newns", EPERM),
    ("clone3", ENOSYS), ("open_by_handle_at", EPERM), ("mknod_disk", EPERM), ("mknod_memory", EPERM), ("mknod_fifo", 0), ("ptrace", EPERM), ("process_vm_readv", EPERM),
    ("process_vm_writev", EPERM), ("keyctl", EPERM), ("add_key", EPERM), ("request_key", EPERM), ("bpf", EPERM), ("perf_event_open", EPERM), ("userfaultfd", EPERM),
    ("io_uring_setup", ENOSYS), ("io_uring_enter", ENOSYS), ("socket_unix", 0), ("socket_inet", 0), ("socket_inet6", 0), ("socket_raw", EPERM), ("socket_alg", EPERM),
    ("socket_alg_high_bits", EPERM), ("socket_vsock", EPERM), ("socket_packet", EPERM), ("socket_key", EPERM), ("socket_xdp", EPERM), ("socket_bluetooth", EPERM),
    ("netlink_route", 0), ("netlink_xfrm", EPERM), ("netlink_audit", EPERM), ("netlink_netfilter", EPERM), ("netlink_uevent", EPERM), ("netlink_generic", EPERM),
    ("tiocsti", EPERM), ("tiocsti_high_bits", EPERM), ("tioclinux", EPERM), ("tcgets", ENOTTY), ("personality_none", 0), ("personality_ask", 0),
    ("personality_fixed_addresses", EPERM), ("personality_i386", EPERM), ("sethostname", EPERM), ("setdomainname", EPERM), ("init_module", EPERM), ("finit_module", EPERM),
    ("delete_module", EPERM), ("kexec_load", EPERM), ("kexec_file_load", EPERM), ("reboot", EPERM), ("swapon", EPERM), ("swapoff", EPERM), ("acct", EPERM),
    ("quotactl", EPERM), ("iopl", EPERM), ("ioperm", EPERM), ("lookup_dcookie", EPERM), ("syslog", EPERM), ("vhangup", EPERM), ("settimeofday", EPERM),
    ("clock_settime", EPERM), ("clock_adjtime", EPERM), ("kcmp", EPERM), ("unknown", ENOSYS), ("memfd_create", 0), ("membarrier", 0), ("get_mempolicy", 0),
];

pub(crate) fn calls_are_refused_as_the_table_says() {
    let bench = Bench::new();
    let seen = probe(&bench, &["calls"]);
    assert_errors(&seen, CALLS);
    assert_eq!(seen.len(), CALLS.len(), "every call that is tried is in the table");
}

pub(crate) fn grants_open_what_they_name_and_nothing_else() {
    let bench = Bench::new();
    let with = |grant: SandboxGrant| {
        let mut spec = bench.spec(["/bin/escape-probe", "calls"]);
        spec.grants.insert(grant);
        lines(&bench.run(&spec).stdout)
    };
    let plain = probe(&bench, &["calls"]);
    let changed = |seen: &BTreeMap<String, i32>| seen.iter().filter(|(name, errno)| plain.get(*name) != Some(errno)).map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let uring = with(SandboxGrant::Uring);
    assert_eq!(changed(&uring), ["io_uring_enter", "io_uring_setup"]);
    assert_errors(&uring, &[("io_uring_setup", EFAULT), ("io_uring_enter", EBADF)]);
    assert_eq!(changed(&with(SandboxGrant::Cma)), ["process_vm_readv", "process_vm_writev"]);
    assert_eq!(changed(&with(SandboxGrant::MayCompile)), Vec::<String>::new());
    // The job traces itself at most: its first process is its own program here.
    assert!(changed(&with(SandboxGrant::Debug)).iter().all(|name| name.starts_with("process_vm") || name == "ptrace"));
}

pub(crate) fn foreign_doors_to_the_kernel_kill() {
    let bench = Bench::new();
    assert_errors(&probe(&bench, &["foreign"]), &[("i386", SIGSYS), ("x32", SIGSYS)]);
}

pub(crate) fn files_of_the_host_and_the_kernel_stay_shut() {
    let bench = Bench::new();
    let before = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe"].map(|path| std::fs::read(path).unwrap_or_default());
    // What this kernel lacks is absent inside as well.
    let shut = |path: &str| if Path::new(path).exists() { EACCES } else { ENOENT };
    let wanted = [
        ("/proc/sys/kernel/core_pattern", EACCES),
        ("/proc/sys/kernel/modprobe", shut("/proc/sys/kernel/modprobe")),
        ("/proc/sysrq-trigger", shut("/proc/sysrq-trigger")),
        ("/proc/sys/vm/drop_caches", EACCES),
        ("/proc/1/mem", EACCES),
        ("/proc/1/exe", ETXTBSY),
        ("/proc/self/exe", ETXTBSY),
        ("/proc/self/oom_score_adj", EACCES),
        ("/proc/self/uid_map", EACCES),
        ("/proc/kcore", shut("/proc/kcore")),
        ("</dev/mem", ENOENT),
        ("</dev/kmsg", ENOENT),
        ("</dev/kvm", ENOENT),
        ("</dev/fuse", ENOENT),
        ("</dev/vda", ENOENT),
        ("</dev/loop-control", ENOENT),
        ("</sys/firmware/x", ENOENT),
        ("/sys/fs/cgroup/release_agent", ENOENT),
        ("/sys/kernel/mm/transparent_hugepage/enabled", shut("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("/bin/busybox", EROFS),
        ("/etc/passwd", EROFS),
        ("/etc/hosts", EROFS),
        ("/etc/resolv.conf", EROFS),
        ("/dev/null", 0),
        ("</proc/self/status", 0),
    ];
    let mut arguments = vec!["files"];
    arguments.extend(wanted.iter().map(|(path, _)| *path));
    let mut seen = probe(&bench, &arguments);
    // Of two reasons against it the kernel names one: runc's mount is read-only as a whole, before the mode is looked at.
    seen.entry("/sys/kernel/mm/transparent_hugepage/enabled".to_owned()).and_modify(|errno| *errno = if *errno == EROFS { EACCES } else { *errno });
    assert_errors(&seen, &wanted);
    let after = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe"].map(|path| std::fs::read(path).unwrap_or_default());
    assert_eq!(before, after);
    let outcome = bench.run(&bench.shell("cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls /sys/firmware | wc -l; ls /sys/fs/cgroup | wc -l"));
    assert_eq!(outcome.stdout, "0\n0\n0\n", "{}", outcome.stderr);
}

pub(crate) fn the_hosts_processes_and_sockets_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    let bench = Bench::new();
    let pid = std::process::id().to_string();
    assert_errors(&probe(&bench, &["signal", &pid]), &[("kill", ESRCH), ("pidfd_open", ESRCH), ("ptrace_host", EPERM)]);
    let name = format!("swarm-test-{pid}");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    std::os::unix::net::UnixStream::connect_addr(&address).expect("the listener is there for the host");
    assert_errors(&probe(&bench, &["connect", &name]), &[("connect_abstract", ECONNREFUSED)]);
    drop(listener);
    let outcome = bench.run(&bench.shell("ls /proc | grep -c '^[0-9]'; ls /sys/class/net; cat /proc/net/route | wc -l; ifconfig lo | grep -c UP"));
    // The shell, ls and grep, and nobody else.
    assert_eq!(outcome.stdout, "3\nlo\n1\n1\n", "{}", outcome.stderr);
}

pub(crate) fn a_job_has_a_network_of_its_own_with_loopback_alone() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = bench.run(&bench.shell(&format!("nc 127.0.0.1 {port} </dev/null; echo $?; nc 169.254.169.254 80 </dev/null; echo $?")));
    assert!(outcome.stdout == "1\n1\n", "{outcome:?}");
    assert!(outcome.stderr.contains("refused") && outcome.stderr.contains("unreachable"), "{}", outcome.stderr);
    assert_errors(&probe(&bench, &["loopback"]), &[("loopback", 0)]);
}

pub(crate) fn no_descriptor_leaks_into_a_job() {
    let bench = Bench::new();
    // This process gives its own away carelessly: the shim must not pass them on.
    let secret = std::fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let outcome = bench.run(&bench.spec(["/bin/escape-probe", "descriptors"]));
    assert_eq!(outcome.stdout, "open 0,1,2\n");
    let outcome = bench.run(&bench.shell("env; readlink /proc/self/cwd"));
    assert_eq!(outcome.stdout.lines().filter(|line| !line.starts_with("PATH=") && !line.starts_with("SHLVL=") && !line.starts_with("PWD=")).collect::<Vec<_>>(), ["/"]);
}

pub(crate) fn a_working_directory_that_is_a_descriptor_is_refused() {
    let bench = Bench::new();
    let mut spec = bench.spec(["/bin/ls", "-la"]);
    spec.cwd = "/proc/self/fd/7".to_owned();
    assert!(matches!(bench.refuse(&spec), StartError::Create(detail) if detail.contains("cwd")));
    for number in 3..24 {
        let link = bench.image().join("work");
        let _ = std::fs::remove_file(&link);
        symlink(format!("/proc/self/fd/{number}"), &link).unwrap();
        let mut spec = bench.spec(["/bin/ls", "-d", "../../../../../../etc/shadow", "../../../etc/shadow", "../image"]);
        spec.cwd = "/work".to_owned();
        // Refused, or inside: never a directory of the host.
        match bench.supervisor.start(&spec) {
            Err(StartError::Create(_)) => {}
            Err(other) => panic!("{other}"),
            Ok(handle) => {
                handle.start().unwrap();
                let outcome = crate::support::finish(&handle);
                handle.cleanup().unwrap();
                assert_eq!(outcome.stdout, "", "descriptor {number}");
            }
        }
    }
}

pub(crate) fn the_program_of_the_shim_cannot_be_overwritten() {
    let bench = Bench::new();
    let before = std::fs::read(SHIM).unwrap();
    // The program is a script whose interpreter is whoever executes it: the shim's own file, CVE-2019-5736.
    let evil = bench.image().join("evil");
    std::fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&evil, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = bench.run(&bench.spec(["/evil"]));
    assert_ne!(outcome.exit.reason, ExitReason::Completed, "{outcome:?}");
    let outcome = bench.run(&bench.shell("for n in 0 1 2 3 4 5; do echo x > /proc/1/exe; echo x > /proc/self/exe; done 2>/dev/null; echo $?"));
    assert_eq!(outcome.stdout, "1\n");
    assert!(before == std::fs::read(SHIM).unwrap(), "the shim's file has changed");
    // The running shim executes a sealed copy, not the file.
    let handle = bench.begin(&bench.spec(["sleep", "60"]));
    let shim = processes(&handle)[0];
    assert!(std::fs::read_link(format!("/proc/{shim}/exe")).unwrap().to_string_lossy().contains("memfd:swarm-shim"));
    let write = std::fs::OpenOptions::new().write(true).open(format!("/proc/{shim}/exe"));
    assert!(write.is_err(), "even root cannot write to the sealed program");
    handle.kill(ExitReason::Cancelled).unwrap();
    crate::support::ended(&handle);
    handle.cleanup().unwrap();
}

pub(crate) fn links_in_an_image_lead_nowhere() {
    let bench = Bench::new();
    let outside = bench.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for name in ["hosts", "hostname", "resolv.conf", "shm", "pts", "bound"] {
        std::fs::write(outside.join(name), "untouched").unwrap();
    }
    let listing = || {
        let mut all: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap()).map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect();
        all.sort();
        all
    };
    let before = listing();
    let passwd = std::fs::read(bench.image().join("etc/passwd")).unwrap();
    let source = bench.directory.path().join("source");
    std::fs::create_dir(&source).unwrap();
    // Every place where the sandbox mounts or writes, as an absolute link and as one that climbs.
    for place in ["proc", "dev", "sys", "tmp", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "scratch"] {
        let outside = outside.display();
        let targets = [outside.to_string(), format!("../../../../../../../..{outside}"), format!("{outside}/hosts"), "/".to_owned(), "..".to_owned(), place.to_owned()];
        for target in targets {
            let at = bench.image().join(place);
            let keep = bench.directory.path().join("keep");
            let existed = std::fs::rename(&at, &keep).is_ok();
            symlink(&target, &at).unwrap();
            let mut spec = bench.shell("echo x > /tmp/x; echo x > /scratch/x; cat /etc/hosts >/dev/null; true");
            spec.binds.push(BindMount { source: source.clone(), target: "/scratch".to_owned(), readonly: false, exec: false });
            if let Ok(handle) = bench.supervisor.start(&spec) {
                handle.start().unwrap();
                crate::support::ended(&handle);
                handle.cleanup().unwrap();
            }
            assert_eq!(before, listing(), "`{place}` → `{target}`");
            std::fs::remove_file(&at).unwrap();
            if existed {
                std::fs::rename(&keep, &at).unwrap();
            }
        }
    }
    assert_eq!(passwd, std::fs::read(bench.image().join("etc/passwd")).unwrap(), "the image is as it was");
    assert_eq!(std::fs::read_dir(bench.image().join("tmp")).unwrap().count() + std::fs::read_dir(bench.image().join("scratch")).unwrap().count(), 0);
}

pub(crate) fn setuid_and_file_capabilities_give_nothing() {
    let bench = Bench::new();
    let root = bench.image();
    for name in ["busybox-setuid", "busybox-capable"] {
        std::fs::copy(root.join("bin/busybox"), root.join("bin").join(name)).unwrap();
    }
    std::fs::set_permissions(root.join("bin/busybox-setuid"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    // Revision 2, effective, every capability permitted.
    let mut bytes = 0x0200_0001_u32.to_le_bytes().to_vec();
    for word in [u32::MAX, 0, u32::MAX, 0] {
        bytes.extend(word.to_le_bytes());
    }
    rustix::fs::setxattr(root.join("bin/busybox-capable"), "security.capability", &bytes, rustix::fs::XattrFlags::empty()).unwrap();
    let mut spec = bench.shell(
        "busybox-setuid id -u; for b in busybox-setuid busybox-capable; do $b grep CapEff /proc/self/status; done; busybox-capable cat /proc/self/uid_map | wc -l",
    );
    (spec.uid, spec.gid) = (1000, 1000);
    assert_eq!(bench.run(&spec).stdout, "1000\nCapEff:\t0000000000000000\nCapEff:\t0000000000000000\n1\n");
    // Root inside is nobody outside, and may not even change its user.
    let outcome = bench.run(&bench.shell("id -u; busybox-setuid id -u; chmod 777 /bin/busybox; touch /x"));
    assert_eq!(outcome.stdout, "0\n0\n");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{}", outcome.stderr);
}

pub(crate) fn written_files_cannot_be_executed_without_the_grant() {
    let bench = Bench::new();
    let scratch = bench.directory.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut spec = bench.shell("for d in /tmp /scratch /dev/shm; do cp /bin/busybox $d/cat && $d/cat /etc/hostname; echo $?; done");
    std::os::unix::fs::chown(&scratch, Some(spec.id_base), Some(spec.id_base)).unwrap();
    spec.binds.push(BindMount { source: scratch, target: "/scratch".to_owned(), readonly: false, exec: false });
    assert_eq!(bench.run(&spec).stdout, "126\n126\n126\n");
    let mut granted = bench.shell("");
    granted = runtime::sandbox::AttemptSpec { attempt: granted.attempt, ..spec.clone() };
    granted.grants.insert(SandboxGrant::MayCompile);
    assert_eq!(bench.run(&granted).stdout, "job\n0\njob\n0\n126\n");
}

pub(crate) fn a_hostile_environment_stays_inside() {
    let bench = Bench::new();
    let outside = bench.directory.path().join("library.so");
    std::fs::write(&outside, "not a library").unwrap();
    let mut spec = bench.shell("echo alive");
    let loader = ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"].map(|name| (name, "/evil.so"));
    for (name, value) in loader.into_iter().chain([("LISTEN_FDS", "5"), ("NOTIFY_SOCKET", "/run/x"), ("_LIBCONTAINER_LOGPIPE", "3")]) {
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    std::fs::write(bench.image().join("evil.so"), "\x7fELF hostile").unwrap();
    let outcome = bench.run(&spec);
    assert_eq!((outcome.stdout.as_str(), outcome.exit.reason), ("alive\n", ExitReason::Completed));
    // The variables are the job's own, and nothing of the host read them.
    let mut spec = bench.spec(["/bin/escape-probe", "descriptors"]);
    spec.env.insert("LISTEN_FDS".to_owned(), "5".to_owned());
    assert_eq!(bench.run(&spec).stdout, "open 0,1,2\n");
}

pub(crate) fn release_agents_of_the_host_stay_as_they_are() {
    let bench = Bench::new();
    let agents = || {
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path().join("release_agent"));
        roots.filter(|path| path.exists()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = agents();
    let outcome = bench.run(&bench.shell(
        "for c in memory cpu devices pids; do mount -t cgroup -o $c x /tmp || echo refused; done
        mount -t cgroup2 x /tmp || echo refused; echo x > /sys/fs/cgroup/release_agent || echo refused",
    ));
    assert_eq!(outcome.stdout, "refused\n".repeat(6), "{}", outcome.stderr);
    assert_eq!(before, agents());
    assert_eq!(before.is_empty(), outcome.isolation.cgroup_layout == "unified", "hybrid machines have agents, and this test means them");
    held(&outcome.isolation, "cgroup_namespace");
}
