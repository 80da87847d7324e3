use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub(crate) fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(crate::volumes::place())?;
    let passphrase = folder.path().join("passphrase");
    e2e::write_private(&passphrase, "correct horse battery staple\n")?;
    let data = folder.path().join("server");
    for (turn, what) in ["first start (argon2, keys, certificates, database)", "second start (argon2, checks)"].iter().enumerate() {
        let endpoints = data.join("endpoints.json");
        let _ = std::fs::remove_file(&endpoints);
        let begun = Instant::now();
        let mut child = std::process::Command::new(e2e::program()?)
            .args(["server", "--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data)
            .arg("--passphrase-file")
            .arg(&passphrase)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let measured = measure(&mut child, &endpoints, begun);
        e2e::signal("TERM", child.id())?;
        child.wait()?;
        let (start, memory, busy) = measured?;
        println!("   {what}: {:.2} s to ready", start.as_secs_f64());
        if turn == 1 {
            println!("   idle for 10 s: {} MiB resident, {} ms of processor time", memory / 1024, busy.as_millis());
        }
    }
    Ok(())
}

fn measure(child: &mut std::process::Child, endpoints: &std::path::Path, begun: Instant) -> anyhow::Result<(Duration, u64, Duration)> {
    e2e::wait_for("the server", Duration::from_secs(60), || {
        anyhow::ensure!(child.try_wait()?.is_none(), "the server ended");
        Ok(endpoints.exists().then_some(()))
    })?;
    let start = begun.elapsed();
    std::thread::sleep(Duration::from_secs(3));
    let before = crate::cpu(child.id())?;
    std::thread::sleep(Duration::from_secs(10));
    let busy = crate::cpu(child.id())?.saturating_sub(before);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).context("VmRSS")?;
    Ok((start, memory, busy))
}
