//! The first program in a sandbox that a foreign OCI runtime has made. The runtime has done its work then: user,
//! namespaces, capabilities and the filter of system calls are in force for this program as they will be for the job's.
//!
//! It does what the embedded runtime does in its own hook: asks for SIGKILL at the shim's death, tries the device filter,
//! restricts itself by Landlock, says what it saw, waits for the start, and becomes the job's program. It is a static
//! file that is executed by descriptor, and nothing of it lies in the job's root.
//!
//! Descriptors: 3 this program, 4 the plan, 5 the report, 6 the start, 7 the failure, 8 and 9 two device nodes.

use std::ffi::{CString, c_char, c_int, c_long};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;

#[path = "../src/candidates.rs"]
mod candidates;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn execve(program: *const c_char, argv: *const *const c_char, env: *const *const c_char) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
}

const SYS_CLOSE_RANGE: c_long = 436;
const SYS_LANDLOCK: [c_long; 3] = [444, 445, 446];
const CLOSE_RANGE_CLOEXEC: c_long = 4;
const PR_SET_PDEATHSIG: c_int = 1;
const PR_GET_NO_NEW_PRIVS: c_int = 39;
const SIGKILL: c_long = 9;
const SIGPIPE: c_int = 13;
const O_PATH: i32 = 0o10_000_000;
const O_NONBLOCK: i32 = 0o4000;
const ENOENT: i32 = 2;
const EPERM: i32 = 1;
const ENOTDIR: i32 = 20;

/// The one ABI of Landlock that this is written for, as the embedded backend.
const ABI: i64 = 6;
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Abstract sockets and signals.
const SCOPES: u64 = 0b11;

fn file(fd: c_int) -> File {
    // SAFETY: the shim gave these descriptors to this program alone, and each is taken once.
    unsafe { File::from_raw_fd(fd) }
}

fn answer(result: c_long) -> std::io::Result<c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// What the shim wrote: numbers of arguments, variables and writable places, then all of them, each ended by a NUL.
struct Plan {
    argv: Vec<String>,
    env: Vec<String>,
    writable: Vec<String>,
}

impl Plan {
    fn read(mut from: File) -> Option<Self> {
        let mut text = String::new();
        from.read_to_string(&mut text).ok()?;
        let mut parts = text.split_terminator('\0').map(str::to_owned);
        let mut count = || parts.next()?.parse::<usize>().ok();
        let [args, vars, places] = [count()?, count()?, count()?];
        let mut take = |count: usize| parts.by_ref().take(count).collect::<Vec<_>>();
        let plan = Self { argv: take(args), env: take(vars), writable: take(places) };
        (plan.argv.len() == args && plan.env.len() == vars && plan.writable.len() == places).then_some(plan)
    }
}

/// Every right over files that an ABI knows.
fn all_rights(abi: i64) -> u64 {
    match abi {
        i64::MIN..=1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    }
}

fn landlock(writable: &[String]) -> std::io::Result<(String, bool)> {
    let [create, add, restrict] = SYS_LANDLOCK;
    // SAFETY: with the flag for the version the call takes no structure and makes nothing.
    let kernel = answer(unsafe { syscall(create, std::ptr::null::<u8>(), 0_usize, 1_u32) })?;
    let abi = kernel.min(ABI);
    let all = all_rights(abi);
    let attributes = [all, 0_u64, SCOPES];
    let size: usize = match abi {
        i64::MIN..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: the kernel reads `size` bytes of the structure, which is as long and lives through the call.
    let ruleset = answer(unsafe { syscall(create, attributes.as_ptr(), size, 0_u32) })? as c_int;
    let allow = |path: &str, directory_rights: u64, file_rights: u64| -> std::io::Result<()> {
        let place = std::fs::OpenOptions::new().read(true).custom_flags(O_PATH).open(path)?;
        let rights = if place.metadata()?.is_dir() { directory_rights } else { file_rights };
        // The kernel's structure is packed: eight bytes of rights, four of the descriptor.
        let mut rule = [0_u8; 12];
        rule[..8].copy_from_slice(&(rights & all).to_ne_bytes());
        rule[8..].copy_from_slice(&place.as_raw_fd().to_ne_bytes());
        // SAFETY: the rule is as long as the kernel's structure and lives through the call.
        answer(unsafe { syscall(add, ruleset, 1_u32, rule.as_ptr(), 0_u32) }).map(drop)
    };
    let read = EXECUTE | READ_FILE | READ_DIR;
    allow("/", read, read)?;
    for path in writable {
        match allow(path, all, EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV) {
            // A place that cannot be reached is a right less.
            Err(error) if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => return Err(error),
            _ => {}
        }
    }
    // SAFETY: takes a descriptor that is open.
    answer(unsafe { syscall(restrict, ruleset, 0_u32) })?;
    drop(file(ruleset));
    let word = if kernel >= ABI { "fully enforced" } else { "partially enforced" };
    // An ABI of 2 is the least that counts as this layer.
    Ok((format!("{word}: asked for ABI {ABI}, the kernel has {kernel}"), kernel >= 2))
}

/// Opens two device nodes as the job would. Only a filter tells them apart.
fn try_devices() -> (String, bool) {
    let open = |fd: c_int| std::fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(format!("/proc/self/fd/{fd}"));
    let say = |result: &std::io::Result<File>| result.as_ref().map_or_else(ToString::to_string, |_| "opened".to_owned());
    let (allowed, forbidden) = (open(8), open(9));
    let held = allowed.is_ok() && forbidden.as_ref().is_err_and(|error| error.raw_os_error() == Some(EPERM));
    (format!("char 1:3 {}; char 10:237 {}", say(&allowed), say(&forbidden)), held)
}

/// The report as the shim reads it. The texts are ours and the system's: letters, digits, spaces, colons.
fn report(plan: &Plan) -> String {
    // SAFETY: takes a number.
    let death_signal = unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL, 0_u64, 0_u64, 0_u64) } == 0;
    // SAFETY: takes zeroes.
    let no_new_privs = unsafe { prctl(PR_GET_NO_NEW_PRIVS, 0_u64, 0_u64, 0_u64, 0_u64) } == 1;
    // Before Landlock, which would refuse both and prove nothing about the filter.
    let (device_filter, device_filter_held) = try_devices();
    let (landlock, landlock_held) = landlock(&plan.writable).unwrap_or_else(|error| (error.to_string(), false));
    format!(
        "{{\"no_new_privs\":{no_new_privs},\"death_signal\":{death_signal},\"landlock\":\"{landlock}\",\"landlock_held\":{landlock_held},\
         \"device_filter\":\"{device_filter}\",\"device_filter_held\":{device_filter_held}}}"
    )
}

/// Becomes the program; comes back with the error number of the attempt that came nearest.
fn run(plan: &Plan) -> i32 {
    let strings = |list: &[String]| list.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect::<Vec<_>>();
    let pointers = |list: &[CString]| list.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>();
    let (argv, env) = (strings(&plan.argv), strings(&plan.env));
    let (argv_pointers, env_pointers) = (pointers(&argv), pointers(&env));
    let path = plan.env.iter().find_map(|line| line.strip_prefix("PATH="));
    let mut worst = ENOENT;
    // SAFETY: programs expect a broken pipe to end them, and ignoring is inherited.
    unsafe { signal(SIGPIPE, 0) };
    for candidate in strings(&candidates::candidates(plan.argv.first().map_or("", String::as_str), path)) {
        // SAFETY: both lists end with a null pointer and every string lives through the call.
        unsafe { execve(candidate.as_ptr(), argv_pointers.as_ptr(), env_pointers.as_ptr()) };
        match std::io::Error::last_os_error().raw_os_error().unwrap_or(0) {
            ENOENT | ENOTDIR => {}
            errno => worst = errno,
        }
    }
    worst
}

fn main() {
    // SAFETY: takes numbers; the job's program shall find nothing but its three standard descriptors.
    let closing = unsafe { syscall(SYS_CLOSE_RANGE, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC) } == 0;
    let (Some(plan), true) = (Plan::read(file(4)), closing) else { std::process::exit(125) };
    let (mut told, mut start, mut failure) = (file(5), file(6), file(7));
    if told.write_all(report(&plan).as_bytes()).is_err() {
        std::process::exit(125);
    }
    drop(told);
    // An end instead of a byte means that there is no shim any more.
    if start.read_exact(&mut [0]).is_err() {
        std::process::exit(125);
    }
    let errno = run(&plan);
    let _ = write!(failure, "{{\"errno\":{errno}}}");
    std::process::exit(if errno == ENOENT { 127 } else { 126 });
}
