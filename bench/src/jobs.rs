use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use e2e::{World, text};
use runtime::sandbox::AttemptSpec;
use runtime::supervisor::{ShimState, Supervisor};
use serde_json::Value;
use vocabulary::JobId;
use vocabulary::job::{AttemptId, JobLimits, LogFrame};

const TURNS: u32 = 30;
const AT_ONCE: usize = 50;
/// What a start may take from the API's call on.
const TARGET_MS: f64 = 150.0;
/// The first thing that the program does: its supervisor notes when.
const SAYS: &str = "echo here";

fn wall_ms() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3)
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn run() -> anyhow::Result<()> {
    let world = World::with_image()?;
    // The first job unpacks the image; that is not its start.
    world.job(&[], "true")?.ok()?;
    let asked = Api::of(&world)?;
    let bundle = bundle(world.folder())?;
    let supervisor = Supervisor::new(&world.folder().join("jobs"), &e2e::program()?)?;
    let group = e2e::Group::new("bench");
    let (mut api, mut shim, mut runc) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let begun = wall_ms()?;
        let job = world.submit(&[], SAYS)?;
        world.wait_for_state(&job, &["exited", "failed"], Duration::from_secs(30))?;
        api.push(asked.first(&world, &job)? - begun);
        shim.push(alone(&supervisor, &bundle.join("rootfs"), group.name(), turn)?);
        runc.push(peer(&bundle, turn)?);
    }
    drop(group);
    let (api, shim, runc) = (median(&mut api), median(&mut shim), median(&mut runc));
    println!("   {api:.0} ms from the start of `swarm job run` to the job's first output ({:.2} of {TARGET_MS} ms)", api / TARGET_MS);
    println!("   (start of the command, TLS, decision, placement, plan, lease, encrypted scratch, read-back of isolation)");
    println!("   {shim:.0} ms from the supervisor's call (shim, sandbox, read-back) to the first output; runc run of the same tree {runc:.0} ms: {:.2} times", shim / runc);
    println!("   (medians of {TURNS}, interleaved)");
    at_once(&world)?;
    world.close()
}

/// The API of a deployment, for one token.
struct Api {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    token: String,
}

impl Api {
    fn of(world: &World) -> anyhow::Result<Self> {
        let token = world.tenant.json(&["token", "create", "bench"])?;
        let token = token.get("token").and_then(Value::as_str).context("a token")?.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { http: crate::reads::client(world, true)?, runtime, token })
    }

    /// When the job's first output was read, in ms.
    fn first(&self, world: &World, job: &str) -> anyhow::Result<f64> {
        let url = format!("{}/v1/jobs/{job}/logs?after=0", world.deployment.url());
        let text = self.runtime.block_on(async { self.http.get(url).bearer_auth(&self.token).send().await?.error_for_status()?.text().await })?;
        let line = text.lines().find(|line| !line.trim().is_empty()).context("no output")?;
        let frame: LogFrame = serde_json::from_str(line)?;
        Ok(frame.time.millis() as f64)
    }
}

/// Many jobs started at the same moment: each must succeed.
fn at_once(world: &World) -> anyhow::Result<()> {
    let begun = Instant::now();
    let jobs = std::thread::scope(|scope| {
        let submitting: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| world.submit(&["--memory", "32MiB", "--cpus", "0.02"], SAYS))).collect();
        submitting.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let submitted = begun.elapsed();
    for job in &jobs {
        let ended = world.wait_for_state(job, &["exited", "failed"], Duration::from_secs(120))?;
        anyhow::ensure!(ended.get("state").and_then(Value::as_str) == Some("exited"), "one of {AT_ONCE} did not succeed: {ended}");
    }
    println!("   {AT_ONCE} jobs started at once: all submitted after {:.1} s, all succeeded after {:.1} s", submitted.as_secs_f64(), begun.elapsed().as_secs_f64());
    Ok(())
}

/// One attempt by the supervisor alone: from its call to the first output, in ms.
fn alone(supervisor: &Supervisor, image: &Path, parent: &str, turn: u32) -> anyhow::Result<f64> {
    let mut id = [0x6b; 16];
    id[..4].copy_from_slice(&turn.to_be_bytes());
    // From JSON, as the shim gets it.
    let spec: AttemptSpec = serde_json::from_value(serde_json::json!({
        "attempt": AttemptId { job: JobId::from_bytes(id), attempt: 1 },
        "image_root": image,
        "argv": ["/bin/sh", "-c", SAYS],
        "env": {"PATH": "/bin"},
        "uid": 0,
        "gid": 0,
        "cwd": "/",
        "hostname": "job",
        "limits": JobLimits::default(),
        "binds": [],
        "grants": [],
        "id_base": 60_001 * runtime::limits::ID_BLOCK,
        "cgroup_parent": parent,
        "deadline_boottime_ms": null,
        "log_dir": null,
    }))?;
    let begun = wall_ms()?;
    let handle = supervisor.start(&spec)?;
    handle.start()?;
    e2e::wait_for("the job's end", Duration::from_secs(30), || Ok((handle.status()?.state == ShimState::Ended).then_some(())))?;
    let frames = handle.logs(0, usize::MAX)?;
    let said = frames.first().context("no output")?.time.millis() as f64 - begun;
    e2e::wait_for("the attempt's removal", Duration::from_secs(30), || Ok(handle.cleanup().is_ok().then_some(())))?;
    Ok(said)
}

/// `runc run` of the same tree: from its start to the first output, in ms.
fn peer(bundle: &Path, turn: u32) -> anyhow::Result<f64> {
    let begun = wall_ms()?;
    let mut child = Command::new("runc")
        .args(["run", "--bundle", text(bundle)?, &format!("swarm-bench-{}-{turn}", std::process::id())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("runc: cargo xtask bench installs it")?;
    let mut byte = [0];
    child.stdout.take().context("its output")?.read_exact(&mut byte)?;
    let said = wall_ms()? - begun;
    anyhow::ensure!(child.wait()?.success(), "runc run");
    Ok(said)
}

/// A bundle for runc: the image's tree and its usual configuration without a terminal.
fn bundle(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let bundle = folder.join("bundle");
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin)?;
    for name in ["proc", "sys", "dev", "tmp", "etc", "root", "scratch"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(name))?;
    }
    std::fs::copy("/bin/busybox", bin.join("busybox"))?;
    std::os::unix::fs::symlink("busybox", bin.join("sh"))?;
    let spec = Command::new("runc").arg("spec").current_dir(&bundle).output().context("runc spec: cargo xtask bench installs runc")?;
    anyhow::ensure!(spec.status.success(), "runc spec: {}", String::from_utf8_lossy(&spec.stderr));
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let process = config.get_mut("process").context("process")?;
    process["terminal"] = false.into();
    process["args"] = serde_json::json!(["sh", "-c", SAYS]);
    process["env"] = serde_json::json!(["PATH=/bin"]);
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}
