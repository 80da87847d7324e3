//! The unified layout of control groups, in a guest that has nothing else: an emulated machine with Debian's kernel. It
//! runs `unified-guest`, then this very file of tests: the suite of jobs, of which `cargo xtask test` takes a part, since
//! emulation is slow, and `cargo xtask guest` all. What the guest says on its serial console is asserted here.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const RUNNER: &str = env!("CARGO_BIN_EXE_unified-guest");
const SHIM: &str = crate::support::SHIM;
/// Names this file's scope: `whole`, names of tests with commas between them, or nothing for the part.
const SCOPE: &str = "SWARM_GUEST";
/// How long the guest may say nothing: an emulated machine on a busy host is slow.
const LIMIT: Duration = Duration::from_secs(540);
/// The names of a list.
macro_rules! names {
    ($($module:ident: $($test:ident)+;)+) => {
        &[$($(concat!(stringify!($module), "::", stringify!($test)),)+)+]
    };
}

/// Every test of jobs.
const WHOLE: &[&str] = whole!(names);
/// What runs with all other tests: a job of each kind, every call and file that is refused, each limit that a group of this
/// layout sets, and what ends or finds a job.
const PART: [&str; 11] = [
    "escape::calls_are_refused_as_the_table_says",
    "escape::files_of_the_host_and_the_kernel_stay_shut",
    "escape::no_descriptor_leaks_into_a_job",
    "escape::release_agents_of_the_host_stay_as_they_are",
    "limit::a_memory_bomb_dies_of_its_own_limit",
    "limit::logs_are_there_while_the_job_runs",
    "outcome::output_and_code_come_back",
    "outcome::every_layer_is_read_back",
    "scratch::a_job_works_in_its_scratch_and_another_jobs_shim_does_not_keep_it",
    "supervision::a_killed_shim_takes_its_job_with_it",
    "supervision::stop_asks_and_kill_does_not",
];

/// In the initial memory disk: brings up the real root, whose file system can shift ids, unlike that of memory.
const FIRST: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk loop overlay sha512_generic ecb xts cts; do
    /bin/busybox insmod /$module.ko || echo \"guest: no $module\"
done
/bin/busybox mount -t ext4 /dev/vda /new || echo 'guest: no root'
/bin/busybox umount /dev
exec /bin/busybox switch_root /new /init
";

const SECOND: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/var/tmp
/usr/bin/unified-guest > /dev/console 2>&1
echo \"guest: end $?\" > /dev/console
/usr/bin/suite --test-threads 1 --exact TESTS > /dev/console 2>&1
echo \"guest: suite end $?\" > /dev/console
sync
poweroff -f
";

#[test]
fn the_unified_layout_holds_in_a_guest() {
    let scope = std::env::var_os(SCOPE).map(|scope| scope.into_string().unwrap());
    let names: Vec<&str> = match scope.as_deref() {
        Some("whole") => WHOLE.to_vec(),
        Some(some) => some.split(',').collect(),
        None => PART.to_vec(),
    };
    assert!(names.iter().chain(&PART).all(|name| WHOLE.contains(name)), "the lists name what is in the suite: {names:?}");
    let place = tempfile::tempdir().unwrap();
    let kernel = Kernel::find();
    let disk = disk(place.path(), &names);
    let lines = boot(&kernel.image, &initrd(place.path(), &kernel), &disk);
    let all = lines.join("\n");
    let step = |name: &str| {
        let ok = format!("guest: step {name} ok: ");
        lines.iter().find_map(|line| line.strip_prefix(&ok)).unwrap_or_else(|| panic!("step `{name}` did not succeed:\n{all}"))
    };
    for controller in ["cpu", "memory", "pids"] {
        assert!(step("layout").split(' ').any(|word| word == controller), "{all}");
    }
    assert_eq!(step("run"), "code Some(7) reason Failed output out | 0::/ |", "{all}");
    let limits = step("limits");
    for limit in ["memory.max=67108864;", "memory.oom.group=1;", "cpu.max=50000 100000;", "pids.max=64;"] {
        assert!(limits.contains(limit), "{limit} in {all}");
    }
    assert!(limits.contains("memory.swap.max=0;"), "{all}");
    // A loop at a tenth of a core stands still for most of its time, in a job as in a group that nothing of ours made.
    let throttle = step("throttle");
    for group in throttle.split("; ") {
        let number = |name: &str| group.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok()).unwrap_or_else(|| panic!("{name} in {throttle}"));
        assert!(number("throttled=") > 0 && number("used_ms=") * 4 < number("wall_ms="), "{throttle}");
    }
    assert_eq!(step("freeze"), "killed while frozen: reason Cancelled signal Some(9)", "{all}");
    assert_eq!(step("kill"), "processes before 6, after 0, reason Cancelled, group left false", "{all}");
    assert!(step("oom").starts_with("reason Oom kills 1 detail memory limit 64.0 MiB reached"), "{all}");
    assert_eq!(step("clean"), "nothing is left", "{all}");
    // Each layer of the isolation report, the device filter among them, was read back in the guest as well.
    let layers: Vec<&String> = lines.iter().filter(|line| line.starts_with("guest: layer ")).collect();
    assert!(layers.iter().any(|line| line.contains("device_filter Held char 1:3 opened; char 10:237 Operation not permitted")), "{all}");
    assert!(layers.iter().any(|line| line.contains("cgroup_kill Held /sys/fs/cgroup/swarm/")), "{all}");
    assert!(layers.len() > 15 && layers.iter().all(|line| line.contains(" Held ")), "{all}");
    assert!(lines.iter().any(|line| line == "guest: end 0"), "{all}");
    for name in &names {
        let passed = format!("test suite::{name} ... ok");
        assert!(lines.contains(&passed), "`{name}` did not pass in the guest:\n{all}");
    }
    assert!(lines.iter().any(|line| line == "guest: suite end 0"), "{all}");
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// `target/guest/` holds Debian's kernel package, unpacked.
    fn find() -> Self {
        let guest = Path::new(RUNNER).ancestors().nth(2).unwrap().join("guest");
        let only = |directory: PathBuf, prefix: &str| {
            let names = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask setup` fetches the guest's kernel", directory.display()));
            names.map(|name| name.unwrap().path()).find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).expect("a kernel, from `cargo xtask setup`")
        };
        Self { image: only(guest.join("boot"), "vmlinuz-"), modules: only(guest.join("lib/modules"), "").join("kernel") }
    }
}

fn command(program: &str, arguments: &[&std::ffi::OsStr]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn write_script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn busybox(bin: &Path) {
    std::fs::create_dir_all(bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for name in ["cat", "dd", "echo", "ip", "mkdir", "mount", "poweroff", "setsid", "sh", "sleep", "sync"] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
}

/// The libraries that a program is linked with.
fn libraries(of: &Path) -> Vec<String> {
    let list = String::from_utf8(command("ldd", &[of.as_os_str()])).unwrap();
    list.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// A program without what only a debugger needs, and the libraries that it is linked with.
fn program(root: &Path, from: &Path, to: &Path) {
    let to = root.join(to);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    command("strip", &["-o".as_ref(), to.as_os_str(), from.as_os_str()]);
    for library in libraries(from) {
        let place = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(library, place).unwrap();
    }
}

/// The guest's root file system, on a disk: that of memory cannot shift ids there.
fn disk(place: &Path, names: &[&str]) -> PathBuf {
    let root = place.join("root");
    busybox(&root.join("bin"));
    busybox(&root.join("image/bin"));
    for name in ["dev", "etc", "proc", "sys", "tmp", "var/jobs", "var/tmp", "image/dev", "image/etc", "image/proc", "image/sys", "image/tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let suite = std::env::current_exe().unwrap();
    for (from, to) in [(RUNNER, "usr/bin/unified-guest"), (SHIM, "usr/bin/runtime-shim"), ("/sbin/mkfs.ext4", "usr/sbin/mkfs.ext4")] {
        program(&root, Path::new(from), Path::new(to));
    }
    program(&root, &suite, Path::new("usr/bin/suite"));
    // Where the suite was told that they are when it was built.
    for from in [SHIM, crate::support::ESCAPE_PROBE] {
        program(&root, Path::new(from), Path::new(from.trim_start_matches('/')));
    }
    // The suite asks which libraries its probe needs: they are those of this machine.
    let list = libraries(Path::new(crate::support::ESCAPE_PROBE)).join(" ");
    write_script(&root.join("usr/bin/ldd"), &format!("#!/bin/sh\necho {list}\n"));
    let tests: Vec<String> = names.iter().map(|name| format!("suite::{name}")).collect();
    write_script(&root.join("init"), &SECOND.replace("TESTS", &tests.join(" ")));
    let disk = place.join("root.img");
    command("mkfs.ext4", &["-q".as_ref(), "-d".as_ref(), root.as_os_str(), disk.as_os_str(), "1200M".as_ref()]);
    disk
}

fn initrd(place: &Path, kernel: &Kernel) -> PathBuf {
    let first = place.join("first");
    busybox(&first.join("bin"));
    for name in ["dev", "new"] {
        std::fs::create_dir_all(first.join(name)).unwrap();
    }
    let virtio = ["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"].map(|name| format!("drivers/virtio/{name}.ko"));
    let others = ["drivers/block/virtio_blk.ko", "drivers/block/loop.ko", "fs/overlayfs/overlay.ko"].map(str::to_owned);
    // What encrypted directories are made of.
    let ciphers = ["sha512_generic", "ecb", "xts", "cts"].map(|name| format!("crypto/{name}.ko"));
    for module in virtio.into_iter().chain(others).chain(ciphers) {
        let from = kernel.modules.join(&module);
        std::fs::copy(&from, first.join(Path::new(&module).file_name().unwrap())).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    write_script(&first.join("init"), FIRST);
    let initrd = place.join("initrd");
    let script = "cd \"$1\" && find . | cpio --quiet -o -H newc > \"$2\"";
    command("sh", &["-c".as_ref(), script.as_ref(), "sh".as_ref(), first.as_os_str(), initrd.as_os_str()]);
    initrd
}

/// Runs the guest to its end and gives the lines of its console.
fn boot(kernel: &Path, initrd: &Path, disk: &Path) -> Vec<String> {
    let mut guest = Command::new("qemu-system-x86_64")
        // Emulated: a machine that is a guest itself may not start others.
        .args(["-accel", "tcg", "-cpu", "max", "-m", "2048", "-smp", "2", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()))
        .args(["-append", "console=ttyS0 loglevel=1 panic=-1 cgroup_no_v1=all random.trust_cpu=on"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`cargo xtask setup` installs qemu-system-x86");
    let (tell, told) = mpsc::channel();
    let output = guest.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if tell.send(text).is_err() {
                return;
            }
        }
    });
    let mut lines = Vec::new();
    let end = loop {
        match told.recv_timeout(LIMIT) {
            Ok(line) => lines.push(line),
            Err(end) => break end,
        }
    };
    let _ = guest.kill();
    guest.wait().unwrap();
    assert_eq!(end, mpsc::RecvTimeoutError::Disconnected, "the guest says nothing any more:\n{}", lines.join("\n"));
    lines
}
