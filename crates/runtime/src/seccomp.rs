//! The one table of system calls: an allow-list with ENOSYS behind it, and EPERM for what is refused by name.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use vocabulary::job::SandboxGrant;

/// `ENOSYS`: libraries fall back on it.
const ENOSYS: u32 = 38;
/// `EPERM`.
const EPERM: u32 = 1;
/// Every `CLONE_NEW*` bit that `clone` can carry: NEWTIME shares a bit with the exit signal there and is not one of them.
const CLONE_NEW: u64 = 0x7E02_0000;

/// Calls that any program may make.
const ALLOWED: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl", "bind", "brk", "cachestat", "capget", "capset", "chdir", "chmod", "chown",
    "clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "execve", "execveat", "exit",
    "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl",
    "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futex",
    "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_mempolicy", "get_robust_list", "getcpu", "getcwd", "getdents",
    "getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid",
    "getxattr", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
    "io_setup", "io_submit", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown",
    "lgetxattr", "link", "linkat", "listen", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise", "mbind", "membarrier",
    "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mq_getsetattr", "mq_notify",
    "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock",
    "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_getfd", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2",
    "prlimit64", "process_madvise", "process_mrelease", "pselect6", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat",
    "readv", "recvfrom", "recvmmsg", "recvmsg", "remap_file_pages", "removexattr", "rename", "renameat", "renameat2", "restart_syscall", "rmdir",
    "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
    "seccomp", "select", "semctl", "semget", "semop", "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_mempolicy", "set_robust_list",
    "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid",
    "setreuid", "setrlimit", "setsid", "setsockopt", "setuid", "setxattr", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd",
    "signalfd4", "socketpair", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee",
    "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
    "timerfd_settime", "times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat", "utimes", "vfork", "vmsplice",
    "wait4", "waitid", "write", "writev",
];

/// Calls that are refused by name, so that a program learns that it may not, rather than that it cannot.
const REFUSED: &[&str] = &[
    "acct", "add_key", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
    "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "migrate_pages", "mount",
    "mount_setattr", "move_mount", "move_pages", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "quotactl",
    "quotactl_fd", "reboot", "request_key", "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2",
    "unshare", "uselib", "userfaultfd", "ustat", "vhangup",
];

const DEBUG: &[&str] = &["ptrace"];
const CROSS_MEMORY: &[&str] = &["process_vm_readv", "process_vm_writev"];
const URING: &[&str] = &["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// Terminal requests that put words into another's mouth: TIOCSTI, TIOCLINUX.
const IOCTLS: [u64; 2] = [0x5412, 0x541C];

fn allow(names: &[&str]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ALLOW"})
}

fn allow_if(name: &str, args: &Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args})
}

fn refuse_if(name: &str, args: &Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": args})
}

/// Every request but two. An allow without a condition would swallow the refusals, so the rest of the 32 bits that
/// the kernel looks at is spelled out: another value in a bit that both share, or another of their neighbours.
fn ioctls() -> Vec<Value> {
    let differ = IOCTLS.iter().fold(0, |bits, value| bits | (value ^ IOCTLS[0]));
    let args = |mask: u64, value: u64| json!([{"index": 1, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]);
    let mut rules = Vec::new();
    for bit in (0..32).map(|shift| 1_u64 << shift).filter(|bit| differ & bit == 0) {
        rules.push(allow_if("ioctl", &args(bit, !IOCTLS[0] & bit)));
    }
    let common = IOCTLS[0] & !differ;
    for neighbour in (0..=differ).filter(|extra| extra & !differ == 0).map(|extra| common | extra) {
        let args = args(0xFFFF_FFFF, neighbour);
        rules.push(if IOCTLS.contains(&neighbour) { refuse_if("ioctl", &args) } else { allow_if("ioctl", &args) });
    }
    rules
}

/// Every persona but none and the question for the own one. A 32-bit value that is neither all zeroes nor all ones has
/// a set bit whose upper neighbour, counted in a ring, is clear.
fn personalities() -> Vec<Value> {
    let pairs = (0..32).map(|shift| (1_u64 << shift, 1_u64 << ((shift + 1) % 32)));
    let args = |set: u64, clear: u64| json!([{"index": 0, "value": set | clear, "valueTwo": set, "op": "SCMP_CMP_MASKED_EQ"}]);
    pairs.map(|(set, clear)| refuse_if("personality", &args(set, clear))).collect()
}

fn refuse(names: &[&str]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM})
}

/// Turns a specification into what libcontainer 0.7 must be given to mean the same: it hands the two values of a masked
/// comparison to libseccomp in the wrong order (mask and wanted bits are `value` and `valueTwo` in the OCI
/// specification). Unswapped, `clone` with any namespace and every `ioctl` would be allowed. The tests of this crate try
/// those calls in a job, so that they fail when a later version sets this right.
pub(crate) fn for_libcontainer(spec: &mut Value) {
    let rules = spec.pointer_mut("/linux/seccomp/syscalls").and_then(Value::as_array_mut);
    for argument in rules.into_iter().flatten().filter_map(|rule| rule.get_mut("args")?.as_array_mut()).flatten() {
        if argument.get("op").and_then(Value::as_str) == Some("SCMP_CMP_MASKED_EQ") {
            let (mask, wanted) = (argument.get("value").cloned(), argument.get("valueTwo").cloned());
            if let (Some(argument), Some(mask), Some(wanted)) = (argument.as_object_mut(), mask, wanted) {
                argument.insert("value".to_owned(), wanted);
                argument.insert("valueTwo".to_owned(), mask);
            }
        }
    }
}

/// The profile for a set of grants, in the OCI specification's form.
#[must_use]
pub fn profile(grants: &BTreeSet<SandboxGrant>) -> Value {
    let mut rules = vec![allow(ALLOWED), refuse(REFUSED)];
    let debug = grants.contains(&SandboxGrant::Debug);
    let list = |open: bool, names: &[&str]| if open { allow(names) } else { refuse(names) };
    rules.push(list(debug, DEBUG));
    rules.push(list(debug || grants.contains(&SandboxGrant::Cma), CROSS_MEMORY));
    if grants.contains(&SandboxGrant::Uring) {
        rules.push(allow(URING));
    }
    // Threads and processes, but no namespaces. clone3 hides its flags in memory: ENOSYS, and libc takes clone.
    rules.push(allow_if("clone", &json!([{"index": 0, "value": CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}])));
    for bit in [0x0002_0000_u64, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM,
            "args": [{"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}]}));
    }
    for value in [0_u64, 0xFFFF_FFFF] {
        rules.push(allow_if("personality", &json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}])));
    }
    for rule in personalities() {
        rules.push(rule);
    }
    for family in [1_u64, 2, 10] {
        rules.push(allow_if("socket", &json!([{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}])));
    }
    // NETLINK for routes only: libraries ask it for interfaces.
    rules.push(allow_if("socket", &json!([{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}])));
    rules.push(refuse_if("socket", &json!([{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 0, "op": "SCMP_CMP_NE"}])));
    for family in (0_u64..16).filter(|family| ![1, 2, 10].contains(family)) {
        rules.push(refuse_if("socket", &json!([{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}])));
    }
    rules.push(refuse_if("socket", &json!([{"index": 0, "value": 16, "op": "SCMP_CMP_GT"}])));
    for (name, index) in [("mknod", 1), ("mknodat", 2)] {
        for kind in [0_u64, 0o010_000, 0o100_000, 0o140_000] {
            rules.push(allow_if(name, &json!([{"index": index, "value": 0o170_000, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ"}])));
        }
        for kind in [0o020_000_u64, 0o060_000] {
            rules.push(refuse_if(name, &json!([{"index": index, "value": 0o170_000, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ"}])));
        }
    }
    rules.extend(ioctls());
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": ENOSYS, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the rules say about one call, by the words of the OCI specification.
    fn verdicts(profile: &Value, name: &str, arguments: [u64; 6]) -> BTreeSet<String> {
        let holds = |condition: &Value| {
            let number = |field: &str| condition[field].as_u64().unwrap_or(0);
            let seen = arguments[usize::try_from(number("index")).unwrap()];
            match condition["op"].as_str().unwrap() {
                "SCMP_CMP_EQ" => seen == number("value"),
                "SCMP_CMP_NE" => seen != number("value"),
                "SCMP_CMP_GT" => seen > number("value"),
                "SCMP_CMP_MASKED_EQ" => seen & number("value") == number("valueTwo"),
                other => panic!("{other}"),
            }
        };
        let rules = profile["syscalls"].as_array().unwrap().iter();
        let named = rules.filter(|rule| rule["names"].as_array().unwrap().iter().any(|known| known == name));
        let matching = named.filter(|rule| rule["args"].as_array().is_none_or(|args| args.iter().all(holds)));
        matching.map(|rule| rule["action"].as_str().unwrap().to_owned()).collect()
    }

    fn only(action: &str) -> BTreeSet<String> {
        BTreeSet::from([action.to_owned()])
    }

    const ALLOW: &str = "SCMP_ACT_ALLOW";
    const ERRNO: &str = "SCMP_ACT_ERRNO";

    proptest! {
        #[test]
        fn every_ioctl_but_two_is_allowed(request in any::<u64>(), near in 0x5400_u64..0x5440) {
            let profile = profile(&BTreeSet::new());
            for request in [request, near, request << 32 | 0x5412, request << 32 | 0x541C] {
                let refused = IOCTLS.contains(&(request & 0xFFFF_FFFF));
                prop_assert_eq!(verdicts(&profile, "ioctl", [0, request, 0, 0, 0, 0]), only(if refused { ERRNO } else { ALLOW }));
            }
        }

        #[test]
        fn clone_makes_no_namespace(flags in any::<u64>()) {
            let verdict = verdicts(&profile(&BTreeSet::new()), "clone", [flags, 0, 0, 0, 0, 0]);
            prop_assert_eq!(verdict, only(if flags & CLONE_NEW == 0 { ALLOW } else { ERRNO }));
        }

        #[test]
        fn only_the_plain_persona_is_taken(persona in any::<u32>()) {
            let verdict = verdicts(&profile(&BTreeSet::new()), "personality", [persona.into(), 0, 0, 0, 0, 0]);
            prop_assert_eq!(verdict, only(if persona == 0 || persona == u32::MAX { ALLOW } else { ERRNO }));
        }

        #[test]
        fn sockets_are_local_or_internet(family in prop_oneof![0_u64..64, any::<u64>()], protocol in 0_u64..32) {
            let verdict = verdicts(&profile(&BTreeSet::new()), "socket", [family, 3, protocol, 0, 0, 0]);
            let open = [1, 2, 10].contains(&family) || family == 16 && protocol == 0;
            prop_assert_eq!(verdict, only(if open { ALLOW } else { ERRNO }));
        }
    }

    #[test]
    fn no_name_is_allowed_and_refused() {
        let all = [ALLOWED, REFUSED, DEBUG, CROSS_MEMORY, URING].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn the_swap_touches_masked_values_alone() {
        let mut spec = json!({"linux": {"seccomp": {"syscalls": [
            {"names": ["a"], "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}, {"index": 1, "value": 3, "op": "SCMP_CMP_EQ"}]}, {"names": ["b"]},
        ]}}});
        for_libcontainer(&mut spec);
        let args = &spec["linux"]["seccomp"]["syscalls"][0]["args"];
        assert_eq!((args[0]["value"].as_u64(), args[0]["valueTwo"].as_u64(), args[1]["value"].as_u64()), (Some(2), Some(1), Some(3)));
    }
}
