//! The unified layout of control groups, in a guest that has nothing else: an emulated machine with Debian's kernel,
//! which runs `unified-guest` and the shim. What the guest says on its serial console is asserted here.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const RUNNER: &str = env!("CARGO_BIN_EXE_unified-guest");
const SHIM: &str = env!("CARGO_BIN_EXE_runtime-shim");
/// How long the guest may say nothing: an emulated machine on a busy host is slow.
const LIMIT: Duration = Duration::from_secs(240);

/// In the initial memory disk: brings up the real root, whose file system can shift ids, unlike that of memory.
const FIRST: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /loop.ko
/bin/busybox insmod /overlay.ko
/bin/busybox losetup /dev/loop0 /root.img || echo 'guest: no loop device'
/bin/busybox mount -t ext4 /dev/loop0 /new || echo 'guest: no root'
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
mount -t tmpfs tmp /tmp
ip link set lo up
/usr/bin/unified-guest > /dev/console 2>&1
echo \"guest: end $?\" > /dev/console
sync
poweroff -f
";

#[test]
fn the_unified_layout_holds_in_a_guest() {
    let place = tempfile::tempdir().unwrap();
    let kernel = Kernel::find();
    let initrd = initrd(place.path(), &kernel);
    let lines = boot(&kernel.image, &initrd);
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

/// A program without what only a debugger needs, and the libraries that it is linked with.
fn program(root: &Path, from: &str) {
    let to = root.join("usr/bin").join(Path::new(from).file_name().unwrap());
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    command("strip", &["-o".as_ref(), to.as_os_str(), from.as_ref()]);
    let list = String::from_utf8(command("ldd", &[from.as_ref()])).unwrap();
    for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(library, place).unwrap();
    }
}

fn initrd(place: &Path, kernel: &Kernel) -> PathBuf {
    let root = place.join("root");
    busybox(&root.join("bin"));
    busybox(&root.join("image/bin"));
    for name in ["dev", "etc", "proc", "sys", "tmp", "var/jobs"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in ["dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(root.join("image").join(name)).unwrap();
    }
    for from in [RUNNER, SHIM] {
        program(&root, from);
    }
    write_script(&root.join("init"), SECOND);
    let first = place.join("first");
    busybox(&first.join("bin"));
    for name in ["dev", "new"] {
        std::fs::create_dir_all(first.join(name)).unwrap();
    }
    for module in ["drivers/block/loop.ko", "fs/overlayfs/overlay.ko"] {
        std::fs::copy(kernel.modules.join(module), first.join(Path::new(module).file_name().unwrap())).unwrap();
    }
    write_script(&first.join("init"), FIRST);
    let image = first.join("root.img");
    command("mkfs.ext4", &["-q".as_ref(), "-d".as_ref(), root.as_os_str(), image.as_os_str(), "160M".as_ref()]);
    let initrd = place.join("initrd");
    let script = "cd \"$1\" && find . | cpio --quiet -o -H newc > \"$2\"";
    command("sh", &["-c".as_ref(), script.as_ref(), "sh".as_ref(), first.as_os_str(), initrd.as_os_str()]);
    initrd
}

/// Runs the guest to its end and gives the lines of its console.
fn boot(kernel: &Path, initrd: &Path) -> Vec<String> {
    let mut guest = Command::new("qemu-system-x86_64")
        // Emulated: a machine that is a guest itself may not start others.
        .args(["-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", "2", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all random.trust_cpu=on"])
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
