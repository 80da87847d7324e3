//! A small disk of its own: an ext4 file system in a file, mounted for one test, which can be filled and can break.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The disk. Unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    file: PathBuf,
    folder: PathBuf,
}

impl SmallDisk {
    /// Makes one of this many MiB below a folder.
    pub fn new(folder: &Path, mebibytes: u64) -> anyhow::Result<Self> {
        let disk = Self { file: folder.join("disk.img"), folder: folder.join("disk") };
        std::fs::File::create(&disk.file)?.set_len(mebibytes << 20)?;
        std::fs::create_dir_all(&disk.folder)?;
        // A journal of 1 MiB, no blocks kept back for root: full means full.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-J", "size=1", path(&disk.file)?])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "loop,errors=remount-ro", path(&self.file)?, path(&self.folder)?])
    }

    /// Writes a file until nothing more fits.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut filler = std::fs::File::create(self.filler())?;
        // Large pieces first, then small ones into what is left.
        for size in [1 << 20, 4096, 1] {
            loop {
                match filler.write_all(&vec![1; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let synced = filler.sync_all();
        anyhow::ensure!(synced.is_ok() || synced.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull), "the disk failed otherwise");
        Ok(())
    }

    /// Makes room again.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    /// Breaks it as an I/O error breaks a disk: from here on every write fails.
    pub fn breaks(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "remount,abort", path(&self.folder)?])
    }

    /// Repairs it, once nobody uses it any more.
    pub fn repair(&self) -> anyhow::Result<()> {
        run("umount", &[path(&self.folder)?])?;
        // 1 and 2 say that errors were corrected.
        let checked = Command::new("e2fsck").args(["-f", "-p", path(&self.file)?]).status().context("e2fsck")?;
        anyhow::ensure!(checked.code().is_some_and(|code| code <= 2), "e2fsck: {checked}");
        self.mount()
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program).args(arguments).output().context(program.to_owned())?;
    anyhow::ensure!(done.status.success(), "{program} {arguments:?}: {} {}", done.status, String::from_utf8_lossy(&done.stderr));
    Ok(())
}
