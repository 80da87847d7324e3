//! What a fresh Debian 12 with Rust lacks, said before it is installed, skipped where present.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// A package, the file by which we know that it is there, and what it is for.
type Package = (&'static str, &'static str, &'static str);

/// The database's package.
const POSTGRESQL: &str = "postgresql-15";
const REGISTRY: &str = "docker-registry";

/// What building and testing need.
const PACKAGES: &[Package] = &[
    ("build-essential", "/usr/bin/g++", "compiles the C of aws-lc, SQLite, libbpf and BLAKE3"),
    ("pkg-config", "/usr/bin/pkg-config", "finds the libraries below"),
    ("libseccomp-dev", "/usr/include/seccomp.h", "filters system calls of jobs"),
    ("libelf-dev", "/usr/include/libelf.h", "device filters on unified cgroups"),
    ("zlib1g-dev", "/usr/include/zlib.h", "the same"),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt", "cargo fetches the dependencies over TLS"),
    ("openssl", "/usr/bin/openssl", "the foreign tool that checks our certificates and receipts in the tests"),
    ("python3", "/usr/bin/python3", "repeats the proofs of a receipt in the tests, with its standard library alone"),
    ("python3-venv", "/usr/lib/python3.11/ensurepip/__init__.py", "an environment of its own for the tool that makes requests up from the OpenAPI document"),
    ("busybox-static", "/bin/busybox", "the 2 MB image of most tests"),
    ("e2fsprogs", "/sbin/mkfs.ext4", "makes the encrypted scratch of jobs"),
    ("mount", "/sbin/losetup", "loop devices for the encrypted scratch"),
    ("procps", "/bin/ps", "the tests look for what was left running"),
    ("bsdutils", "/usr/bin/script", "the terminal in which a test types the quick start"),
    ("libfaketime", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "sets the clock of one server in a test"),
    (POSTGRESQL, "/usr/lib/postgresql/15/bin/postgres", "the database that the tests start as its own user, and stop"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "emulates the guest in which unified control groups are tested"),
    ("runc", "/usr/sbin/runc", "the tests run every job under it too; the peer of the job-start measurement"),
    ("crun", "/usr/bin/crun", "the same"),
    ("runsc", "/usr/bin/runsc", "a part of the jobs runs under it too (gVisor)"),
    (REGISTRY, "/usr/bin/docker-registry", "the real registry from which a test pulls"),
    ("skopeo", "/usr/bin/skopeo", "the foreign tool that copies images into layouts and registries in the tests"),
    ("umoci", "/usr/bin/umoci", "the foreign tool whose unpacked images ours are compared with"),
    ("cpio", "/bin/cpio", "packs that guest's first file system"),
];

/// What the demo and the benchmarks need beside them.
const DEMO_PACKAGES: &[Package] = &[
    ("mmdebstrap", "/usr/bin/mmdebstrap", "makes the root file system of the demo's image from Debian's packages"),
    ("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "checks the signatures on those packages"),
];

/// The versions that this workspace was tested with: a tool of the build is pinned like a library.
const NEXTEST: &str = "0.9.143";
const DENY: &str = "0.20.2";

/// Jobs live in user namespaces, which the kernel gives to nobody inside a chroot: said before anything is built.
fn user_namespaces() -> anyhow::Result<()> {
    let tried = Command::new("unshare").args(["--user", "true"]).output().context("unshare (Debian's util-linux)")?;
    anyhow::ensure!(
        tried.status.success(),
        "the kernel gives no user namespace here, so jobs cannot be isolated: {}; inside a chroot it never does (use a virtual machine, or a container with a root of its own), \
         else look at: sysctl user.max_user_namespaces kernel.unprivileged_userns_clone",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    Ok(())
}

/// For `cargo xtask setup` and `cargo xtask test`.
pub(crate) fn run() -> anyhow::Result<()> {
    user_namespaces()?;
    let packages: Vec<Package> = PACKAGES.iter().chain(DEMO_PACKAGES).copied().collect();
    debian(&packages)?;
    guest_kernel()?;
    tool("nextest", "cargo-nextest", NEXTEST, "runs the tests")?;
    tool("deny", "cargo-deny", DENY, "checks bans, licences and sources of the dependencies")?;
    crate::python::schemathesis()
}

/// For `cargo xtask demo`: what runs the program and makes its image, no tools of developers.
pub(crate) fn demo() -> anyhow::Result<()> {
    user_namespaces()?;
    let packages: Vec<Package> = PACKAGES.iter().chain(DEMO_PACKAGES).copied().collect();
    debian(&packages)
}

/// For `cargo xtask bench`.
pub(crate) fn bench() -> anyhow::Result<()> {
    debian(PACKAGES)
}

/// Installs the packages that are missing, having said which and why.
fn debian(packages: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages.iter().filter(|(_, file, _)| !Path::new(file).exists()).collect();
    if missing.is_empty() {
        println!("setup: all {} Debian packages are there", packages.len());
        return Ok(());
    }
    println!("setup: these Debian packages are missing and are installed now:");
    for (name, _, why) in &missing {
        println!("setup:   {name:22} {why}");
    }
    anyhow::ensure!(
        is_root()?,
        "installing Debian packages needs root: run as root, or install them yourself: apt-get install {}",
        missing.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(" ")
    );
    anyhow::ensure!(Path::new("/usr/bin/apt-get").exists(), "there is no apt-get: this workspace sets itself up on Debian 12 only");
    crate::command("apt-get", &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing.iter().map(|(name, ..)| *name));
    println!("$ apt-get {}", arguments.join(" "));
    let no_cluster = missing.iter().any(|(name, ..)| *name == POSTGRESQL).then(NoCluster::begin).transpose()?;
    let no_service = missing.iter().any(|(name, ..)| *name == REGISTRY).then(NoService::begin).transpose()?;
    let status = Command::new("apt-get").args(&arguments).env("DEBIAN_FRONTEND", "noninteractive").status().context("apt-get");
    if let Some(no_service) = no_service {
        no_service.end()?;
    }
    if let Some(no_cluster) = no_cluster {
        no_cluster.end()?;
    }
    let status = status?;
    anyhow::ensure!(status.success(), "apt-get failed: {status}");
    let still: Vec<_> = missing.iter().filter(|(_, file, _)| !Path::new(file).exists()).map(|(name, file, _)| format!("{name} ({file})")).collect();
    anyhow::ensure!(still.is_empty(), "apt-get says that it succeeded, and these are still not there: {}", still.join(", "));
    Ok(())
}

/// Debian's registry starts as a service that listens for everybody, which nothing here uses. Debian asks `policy-rc.d` before
/// it starts any service, with systemd or without: as long as ours says no, none starts; afterwards it goes, and the
/// registry is not started with the machine either.
struct NoService {
    ours: bool,
}

impl NoService {
    const POLICY: &'static str = "/usr/sbin/policy-rc.d";
    /// Also tells our own file, of a run that was killed, from somebody else's.
    const TEXT: &'static str = "#!/bin/sh\n# cargo xtask setup: no service starts while it installs packages\nexit 101\n";

    fn begin() -> anyhow::Result<Self> {
        let ours = match std::fs::read_to_string(Self::POLICY) {
            Ok(there) => there == Self::TEXT,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(error).context(Self::POLICY),
        };
        if ours {
            println!("setup: {REGISTRY} starts no service ({} until it is installed)", Self::POLICY);
            std::fs::write(Self::POLICY, Self::TEXT).context(Self::POLICY)?;
            std::fs::set_permissions(Self::POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o755)).context(Self::POLICY)?;
        } else {
            println!("setup: {} of this machine decides whether {REGISTRY} starts a service", Self::POLICY);
        }
        Ok(Self { ours })
    }

    fn end(self) -> anyhow::Result<()> {
        if self.ours {
            std::fs::remove_file(Self::POLICY).context(Self::POLICY)?;
            if Path::new("/etc/init.d").join(REGISTRY).exists() {
                crate::command("update-rc.d", &[REGISTRY, "disable"])?;
            }
        }
        Ok(())
    }
}

/// Debian's package makes a cluster of its own and starts it as a service, which nothing here uses. As long as this
/// setting lies there, it makes none; afterwards it goes, so that whoever installs a server for themselves finds Debian's
/// behaviour.
struct NoCluster;

impl NoCluster {
    /// The folder that Debian's `createcluster.conf` includes.
    const FOLDER: &'static str = "/etc/postgresql-common/createcluster.d";
    const FILE: &'static str = "/etc/postgresql-common/createcluster.d/swarm-setup.conf";

    fn begin() -> anyhow::Result<Self> {
        println!("setup: {POSTGRESQL} makes no cluster and starts no service ({} until it is installed)", Self::FILE);
        std::fs::create_dir_all(Self::FOLDER).context(Self::FOLDER)?;
        std::fs::write(Self::FILE, "create_main_cluster = false\n").context(Self::FILE)?;
        Ok(Self)
    }

    fn end(self) -> anyhow::Result<()> {
        std::fs::remove_file(Self::FILE).context(Self::FILE)
    }
}

/// Unpacks Debian's kernel for guests into `target/guest/`; it is not installed.
fn guest_kernel() -> anyhow::Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), std::path::PathBuf::from);
    let guest = target.join("guest");
    // The directory gets its name when it is whole.
    if guest.join("boot").exists() {
        println!("setup: the guest's kernel is there");
        return Ok(());
    }
    println!("setup: the guest's kernel is missing and is fetched now (Debian's linux-image-cloud-amd64, unpacked into {}, not installed)", guest.display());
    let name = match kernel_package()? {
        Some(name) => name,
        None => {
            crate::command("apt-get", &["update", "-qq"])?;
            kernel_package()?.context("Debian's package linux-image-cloud-amd64 is not in apt's lists")?
        }
    };
    let unfinished = target.join("guest.new");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    std::fs::create_dir_all(&unfinished)?;
    let status = Command::new("apt-get").args(["download", "-qq", &name]).current_dir(&unfinished).status().context("apt-get download")?;
    anyhow::ensure!(status.success(), "apt-get download {name} failed: {status}");
    let package = std::fs::read_dir(&unfinished)?.next().context("apt-get download gave no file")??.path();
    let status = Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unfinished).status().context("dpkg-deb")?;
    anyhow::ensure!(status.success(), "dpkg-deb -x {} failed: {status}", package.display());
    std::fs::remove_file(&package)?;
    if guest.exists() {
        std::fs::remove_dir_all(&guest)?;
    }
    std::fs::rename(&unfinished, &guest).context("name the guest's kernel")
}

/// The package that the name without a version leads to.
fn kernel_package() -> anyhow::Result<Option<String>> {
    let output = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).env("LC_ALL", "C").output().context("apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| name.starts_with("linux-image-")).map(str::to_owned))
}

/// Installs a cargo subcommand where it is missing.
fn tool(verb: &str, package: &str, version: &str, why: &str) -> anyhow::Result<()> {
    if Command::new(crate::cargo()).args([verb, "--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("setup: {package} is there");
        return Ok(());
    }
    println!("setup: {package} is missing and is built now, which takes some minutes: it {why}");
    crate::command(&crate::cargo(), &["install", "--locked", "--debug", package, "--version", version])
}

/// What only root may do, said before anything is begun.
pub(crate) fn need_root(what: &str) -> anyhow::Result<()> {
    anyhow::ensure!(is_root()?, "{what} needs root (namespaces, loop devices, control groups): run it as root");
    Ok(())
}

fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id").arg("-u").output().context("id -u")?;
    Ok(output.stdout.trim_ascii() == b"0")
}
