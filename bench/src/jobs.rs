use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use e2e::{World, text};
use serde_json::Value;

const TURNS: usize = 9;

/// Seconds since the machine started, as the kernel tells everybody, also inside a sandbox; hundredths.
fn uptime() -> anyhow::Result<f64> {
    read(&std::fs::read_to_string("/proc/uptime")?)
}

fn read(text: &str) -> anyhow::Result<f64> {
    text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).next_back().with_context(|| format!("no time in `{text}`"))
}

pub(crate) fn run() -> anyhow::Result<()> {
    let world = World::with_image()?;
    let bundle = bundle(world.folder())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first job unpacks the image; that is not its start.
    world.job(&[], "true")?.ok()?;
    for turn in 0..TURNS {
        let begun = uptime()?;
        let done = world.job(&[], "cat /proc/uptime")?.ok()?;
        ours.push(read(&done.out())? - begun);
        let begun = uptime()?;
        let output = Command::new("runc").args(["run", "--bundle", text(&bundle)?, &format!("swarm-bench-{}-{turn}", std::process::id())]).output().context("runc")?;
        anyhow::ensure!(output.status.success(), "runc run: {}", String::from_utf8_lossy(&output.stderr));
        theirs.push(read(&String::from_utf8_lossy(&output.stdout))? - begun);
    }
    let median = |of: &mut Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!("   {:.0} ms from `swarm job run` to the first instruction; runc run of the same tree {:.0} ms: {:.1} times", ours * 1e3, theirs * 1e3, ours / theirs);
    println!("   (ours: start of the command, TLS, decision, placement, plan, lease, encrypted scratch, read-back of isolation; medians of {TURNS}, interleaved)");
    world.close()
}

/// A bundle for runc: the image's tree and its usual configuration without a terminal.
fn bundle(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let bundle = folder.join("bundle");
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin)?;
    for name in ["proc", "sys", "dev"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(name))?;
    }
    std::fs::copy("/bin/busybox", bin.join("busybox"))?;
    for name in ["sh", "cat"] {
        std::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
    let spec = Command::new("runc").arg("spec").current_dir(&bundle).output().context("runc spec: cargo xtask bench installs runc")?;
    anyhow::ensure!(spec.status.success(), "runc spec: {}", String::from_utf8_lossy(&spec.stderr));
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let process = config.get_mut("process").context("process")?;
    process["terminal"] = false.into();
    process["args"] = serde_json::json!(["sh", "-c", "cat /proc/uptime"]);
    process["env"] = serde_json::json!(["PATH=/bin"]);
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}
