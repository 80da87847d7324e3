//! The golden OpenAPI document.

use std::process::Command;

use anyhow::Context as _;

pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    // The build of all targets, which the tests make anyway: any other choice has other features of the dependencies, and
    // compiles most of them again.
    crate::command(&crate::cargo(), &["build", "--quiet", "--locked", "--workspace", "--all-targets"])?;
    let output = Command::new(crate::target().join("debug/swarm")).arg("openapi").output().context("swarm openapi")?;
    anyhow::ensure!(output.status.success(), "swarm openapi failed: {}", String::from_utf8_lossy(&output.stderr));
    let path = crate::root().join("openapi/operator-v1.json");
    if check {
        let golden = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
        anyhow::ensure!(golden == output.stdout, "openapi/operator-v1.json differs from the code: run cargo xtask openapi and look at the difference");
        println!("openapi: the document is that of the code");
    } else {
        std::fs::create_dir_all(crate::root().join("openapi"))?;
        std::fs::write(&path, &output.stdout)?;
        println!("openapi: wrote openapi/operator-v1.json");
    }
    Ok(())
}
