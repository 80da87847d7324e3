//! The one tool of the tests that comes from PyPI: a Python environment of its own, each wheel by version and digest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

/// What is installed, as pip reads it.
const WANTED: &str = include_str!("../schemathesis.txt");
/// Debian's own: wheels are for its version, and another `python3` may come first in the path.
const PYTHON: &str = "/usr/bin/python3";

fn folder() -> PathBuf {
    crate::target().join("schemathesis")
}

/// Makes the environment if it is not there, or is another one.
pub(crate) fn schemathesis() -> anyhow::Result<()> {
    let folder = folder();
    // Written last: what was begun and not finished is begun again.
    let whole = folder.join("installed.txt");
    if std::fs::read_to_string(&whole).is_ok_and(|installed| installed == WANTED) {
        println!("setup: schemathesis is there");
        return Ok(());
    }
    println!("setup: schemathesis is missing and is installed now (wheels from PyPI, by digest, into {}): it makes up requests from the OpenAPI document in the tests", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    }
    let path = folder.to_str().context("the target folder's name is not UTF-8")?;
    crate::command(PYTHON, &["-m", "venv", path])?;
    let wanted = folder.join("wanted.txt");
    std::fs::write(&wanted, WANTED)?;
    let status = Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:", "--no-deps", "--requirement"])
        .arg(&wanted)
        .status()
        .context("pip")?;
    anyhow::ensure!(status.success(), "pip could not install the wheels of xtask/schemathesis.txt: {status}");
    let shown = Command::new(folder.join("bin/st")).arg("--version").output().context("schemathesis")?;
    anyhow::ensure!(shown.status.success(), "schemathesis does not start: {}", String::from_utf8_lossy(&shown.stderr));
    std::fs::rename(&wanted, &whole)?;
    Ok(())
}
