//! The images of the demo and of the tests, kept below `target/images` by the text of their recipe.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::oci::{ImageOptions, busybox_archive, write_archive};

/// Debian's release: the one on which the workspace sets itself up.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "python3-minimal,python3-sklearn";
/// What no job reads: documents, translations, headers, static libraries.
const EXCLUDED: &[&str] = &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/include/*", "/usr/lib/*.a"];
/// What the packages drag in and no job of the demo runs: compilers, tests, caches.
const TRIM: &str = "cd \"$1\" && rm -rf usr/lib/gcc usr/libexec/gcc usr/bin/*-linux-gnu-* usr/lib/bfd-plugins \
usr/lib/python3/dist-packages/pythran usr/lib/python3/dist-packages/*/tests usr/lib/python3/dist-packages/*/*/tests \
usr/lib/*-linux-gnu/perl* usr/share/perl* var/cache/* var/log/* && mkdir -p inputs outputs code scratch";
/// Threads of numeric libraries follow the job's cores, not the machine's; nothing is written beside the code.
const ENVIRONMENT: &[&str] = &[
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "LANG=C.UTF-8",
    "HOME=/scratch",
    "OMP_NUM_THREADS=1",
    "OPENBLAS_NUM_THREADS=1",
    "PYTHONDONTWRITEBYTECODE=1",
    "PYTHONUNBUFFERED=1",
];

/// What one image consists of.
#[derive(Debug)]
pub(crate) struct Images {
    /// The OCI archive.
    pub(crate) archive: PathBuf,
    /// Its root file system as a tar.
    pub(crate) tree: PathBuf,
}

/// `cargo xtask image demo`: Python with scikit-learn, from Debian's packages.
pub(crate) fn demo() -> anyhow::Result<Images> {
    let folder = folder("demo")?;
    let images = Images { archive: folder.join("image.tar"), tree: folder.join("root.tar") };
    let recipe = format!("{SUITE}\n{PACKAGES}\n{EXCLUDED:?}\n{TRIM}\n{ENVIRONMENT:?}\n");
    let remembered = folder.join("recipe.txt");
    if images.archive.exists() && images.tree.exists() && std::fs::read_to_string(&remembered).is_ok_and(|text| text == recipe) {
        println!("image: the demo's image is there: {}", images.archive.display());
        return Ok(images);
    }
    crate::setup::need_root("making an image from Debian's packages")?;
    println!("image: making Python with scikit-learn from Debian's packages, some minutes the first time");
    let _ = std::fs::remove_file(&remembered);
    let part = folder.join("root.tar.part");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--mode=root", "--variant=essential", "--format=tar"]).arg(format!("--include={PACKAGES}"));
    // Device nodes are not for images; the tree is thrown away if the machine dies, so dpkg need not wait for the disk.
    bootstrap.args(["--skip=output/dev", "--dpkgopt=force-unsafe-io"]);
    for pattern in EXCLUDED {
        bootstrap.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    bootstrap.arg(format!("--customize-hook={TRIM}")).arg(SUITE).arg(&part);
    // The machine's own sources, so that a mirror that it uses is used here too; without any, mmdebstrap has its default.
    let sources = sources()?;
    if sources.is_empty() {
        bootstrap.stdin(Stdio::null());
    } else {
        let list = folder.join("sources");
        std::fs::write(&list, sources)?;
        bootstrap.arg("-").stdin(std::fs::File::open(&list)?);
    }
    let log = folder.join("mmdebstrap.log");
    bootstrap.stdout(std::fs::File::create(&log)?).stderr(std::fs::File::options().append(true).open(&log)?);
    let status = bootstrap.status().context("mmdebstrap: cargo xtask setup installs it")?;
    anyhow::ensure!(status.success(), "mmdebstrap failed ({status}); its output: {}", log.display());
    std::fs::rename(&part, &images.tree)?;
    let options = ImageOptions {
        cmd: vec!["python3".to_owned()],
        env: ENVIRONMENT.iter().map(|text| (*text).to_owned()).collect(),
        ..ImageOptions::default()
    };
    let digest = write_archive(&images.tree, &options, &images.archive)?;
    std::fs::write(&remembered, recipe)?;
    println!("image: {} ({} MB): {digest}", images.archive.display(), images.archive.metadata()?.len() / 1_000_000);
    Ok(images)
}

/// `cargo xtask image busybox`: the 2 MB image of most tests.
pub(crate) fn busybox() -> anyhow::Result<PathBuf> {
    let archive = folder("busybox")?.join("image.tar");
    let digest = busybox_archive(&archive)?;
    println!("image: {}: {digest}", archive.display());
    Ok(archive)
}

fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = crate::target().join("images").join(name);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Debian's own entries of this machine's package sources: a single deb822 file is taken as it is, else one-line entries.
fn sources() -> anyhow::Result<String> {
    let deb822 = Path::new("/etc/apt/sources.list.d/debian.sources");
    if deb822.exists() {
        return Ok(std::fs::read_to_string(deb822)?);
    }
    let list = std::fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    Ok(list.lines().filter(|line| line.starts_with("deb ")).map(|line| format!("{line}\n")).collect())
}
