//! `swarm job`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use vocabulary::api::{Image, Job, JobCreate, Volume};
use vocabulary::job::{ExitReason, JobInput, JobLimits, JobOutput, JobSpec, JobState, LogFrame, LogStream, RUN_LEASE_DEFAULT_MS, SandboxGrant};
use vocabulary::volume::VolumeSpec;
use vocabulary::{ErrorCode, JobId, Name, Sensitivity, Sha256Digest};

use crate::app::App;
use crate::args::{JobRun, JobVerb};
use crate::client::{Call, Client};
use crate::command::pair;
use crate::command::tenant::done;
use crate::error::CliError;
use crate::output::{human_bytes, visible, visible_log};

/// Exit code when Swarm itself failed, as container tools have it.
const OUR_FAILURE: u8 = 125;

pub(crate) async fn job(app: &App, verb: JobVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        JobVerb::Run(run) => self::run(app, &client, *run).await,
        JobVerb::List => {
            let jobs: Vec<Job> = app.all(&client, "/v1/jobs").await?;
            app.output.list(&jobs, &["id", "name", "state", "reason", "node", "submitted"], |job| {
                vec![
                    job.id.to_string(),
                    job.spec.name.to_string(),
                    state(job.state).to_owned(),
                    job.exit.as_ref().map_or_else(String::new, |exit| reason(exit.reason).to_owned()),
                    job.node_name.as_ref().map_or_else(String::new, ToString::to_string),
                    job.created.to_string(),
                ]
            })
        }
        JobVerb::Show { id } => show(app, &fetch(&client, id).await?),
        JobVerb::Logs { id, follow, raw } => logs(app, &client, id, follow, raw, 0).await.map(drop),
        JobVerb::Stop { id } => {
            let job = fetch(&client, id).await?;
            done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/jobs/{id}/stop"))).await?;
            app.output.say(format!(
                "SIGTERM goes to the job, SIGKILL follows after {} s; swarm job show {id} shows the end",
                job.spec.limits.grace_ms / 1000
            ));
            Ok(())
        }
        JobVerb::Receipt { id, wait } => receipt(&client, id, wait).await,
    }
}

async fn fetch(client: &Client, id: JobId) -> Result<Job, CliError> {
    client.send(&Call::get(format!("/v1/jobs/{id}")), None).await
}

async fn run(app: &App, client: &Client, run: JobRun) -> Result<(), CliError> {
    let project = app.project(client, &run.project).await?;
    let image = image(app, client, &run.image).await?;
    let mut highest = Sensitivity::Public;
    let mut volumes: Vec<Volume> = Vec::new();
    let mut inputs = Vec::new();
    for text in &run.inputs {
        let (name, volume) = mount(app, client, text).await?;
        highest = highest.max(volume.spec.sensitivity);
        inputs.push(JobInput { volume: volume.id, name });
        volumes.push(volume);
    }
    let mut outputs = Vec::new();
    for text in &run.outputs {
        let (name, volume) = mount(app, client, text).await?;
        highest = highest.max(volume.spec.sensitivity);
        outputs.push(JobOutput { volume: volume.id, name });
        volumes.push(volume);
    }
    let sensitivity = run.sensitivity.unwrap_or(highest);
    if let Some(folder) = &run.code {
        // Code is the tenant's too: it travels as a sealed volume of its own.
        let name: Name = format!("code-{}-{}", run.name, app.suffix()?)
            .chars()
            .take(vocabulary::limits::NAME_MAX)
            .collect::<String>()
            .parse()
            .map_err(|error| CliError::usage(format!("--name: {error}")))?;
        let region = volumes
            .first()
            .map(|volume| volume.spec.region.clone())
            .or_else(|| run.region.clone())
            .map_or_else(|| "local".parse().map_err(|_| CliError::new(1, "no region")), Ok)?;
        let spec = VolumeSpec {
            name,
            project,
            region,
            jurisdictions: run.jurisdictions.iter().cloned().collect(),
            sensitivity: sensitivity.min(Sensitivity::Confidential),
            purpose: run.purpose.clone(),
            min_trust: None,
        };
        let volume: Volume = app.send(client, &Call::post("/v1/volumes", &spec)?).await?;
        super::volume::put_into(app, client, &volume, std::slice::from_ref(folder), true).await?;
        inputs.push(JobInput { volume: volume.id, name: code_name()? });
    }
    let defaults = JobLimits::default();
    let spec = JobSpec {
        name: run.name,
        image,
        command: run.command,
        env: run.env.iter().map(|text| pair(text)).collect::<Result<BTreeMap<_, _>, _>>()?,
        inputs,
        outputs,
        purpose: run.purpose,
        sensitivity,
        region: run.region,
        jurisdictions: run.jurisdictions.into_iter().collect(),
        node_labels: run.node_labels.iter().map(|text| pair(text)).collect::<Result<BTreeMap<_, _>, _>>()?,
        limits: JobLimits {
            memory_bytes: run.memory.unwrap_or(defaults.memory_bytes),
            cpu_millis: run.cpus.unwrap_or(defaults.cpu_millis),
            pids: run.pids.unwrap_or(defaults.pids),
            scratch_bytes: run.scratch.unwrap_or(defaults.scratch_bytes),
            time_ms: run.time_limit.map_or(defaults.time_ms, |seconds| seconds.saturating_mul(1000)),
            grace_ms: defaults.grace_ms,
        },
        grants: run.grants.iter().map(|text| grant(text)).collect::<Result<BTreeSet<_>, _>>()?,
        gpus: run.gpus,
        network: run.network,
        run_lease_ms: run.run_lease.map_or(RUN_LEASE_DEFAULT_MS, |seconds| seconds.saturating_mul(1000)),
    };
    let key = app.suffix()?;
    let job: Job = app.send(client, &Call::post("/v1/jobs", &JobCreate { project, spec })?.idempotent(key)).await?;
    if run.detach {
        return app.output.one(&job, &[("job", job.id.to_string()), ("state", state(job.state).to_owned())]);
    }
    app.output.say(format!("job {} submitted", job.id));
    let interrupted = tokio::select! {
        followed = follow(app, client, job.id) => return followed,
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    interrupted?;
    if run.rm_on_interrupt {
        let stop = Call::new(reqwest::Method::POST, format!("/v1/jobs/{}/stop", job.id));
        let _: vocabulary::api::Done = client.send(&stop, None).await?;
        return Err(CliError::new(130, "interrupted: the job is being stopped"));
    }
    Err(CliError::new(130, "interrupted: the job goes on").hint(format!("swarm job logs -f {}", job.id)))
}

/// Says why it waits, follows the log, and passes the job's own code through.
async fn follow(app: &App, client: &Client, id: JobId) -> Result<(), CliError> {
    let mut said = String::new();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let job = fetch(client, id).await?;
        let now = progress(&job);
        if now != said {
            app.output.say(&now);
            said = now;
        }
        if job.state >= JobState::Running {
            break;
        }
    }
    logs(app, client, id, true, false, 0).await?;
    loop {
        let job = fetch(client, id).await?;
        let now = progress(&job);
        if now != said {
            app.output.say(&now);
            said = now;
        }
        if job.state.is_final() && job.exit.is_some() {
            return end(app, &job);
        }
        tick.tick().await;
    }
}

/// The sentence that tells a person where the job stands.
fn progress(job: &Job) -> String {
    let on = job.node_name.as_ref().map_or_else(String::new, |node| format!(" on {node}"));
    if job.state == JobState::Pending && job.attempt == 0 {
        let mut text = "waiting for a node".to_owned();
        for misfit in job.misfits.iter().take(10) {
            text.push_str(&format!("\n  {}: {}", misfit.node, visible(&misfit.constraint)));
        }
        return text;
    }
    match job.report.as_ref().and_then(|report| report.progress) {
        Some((done, total)) if total > 0 => format!("{}{on}: {} of {}", state(job.state), human_bytes(done), human_bytes(total)),
        Some(_) | None => format!("{}{on}", state(job.state)),
    }
}

fn end(app: &App, job: &Job) -> Result<(), CliError> {
    let Some(exit) = &job.exit else { return Ok(()) };
    if exit.reason == ExitReason::Completed {
        app.output.say(format!("job {} completed; its receipt: swarm job receipt {}", job.id, job.id));
        return Ok(());
    }
    let own = exit.code.filter(|_| exit.reason == ExitReason::Failed).and_then(|code| u8::try_from(code).ok());
    let by_signal = exit.signal.and_then(|signal| u8::try_from(signal).ok()).map(|signal| 128_u8.saturating_add(signal));
    let code = own.or(by_signal).unwrap_or(OUR_FAILURE);
    Err(CliError::new(code, format!("job {}: {}: {}", job.id, reason(exit.reason), visible(&exit.detail)))
        .hint(format!("swarm job show {}", job.id)))
}

/// Prints a log; returns the last sequence.
async fn logs(app: &App, client: &Client, id: JobId, follow: bool, raw: bool, after: u64) -> Result<u64, CliError> {
    let mut last = after;
    let mut tries = 0_u8;
    loop {
        let path = format!("/v1/jobs/{id}/logs?after={last}{}", if follow { "&follow=true" } else { "" });
        let mut response = client.send_raw(&Call::get(path), None).await?;
        let mut rest: Vec<u8> = Vec::new();
        let broken = loop {
            match response.chunk().await {
                Ok(Some(piece)) => rest.extend_from_slice(&piece),
                Ok(None) => break false,
                Err(_) => break true,
            }
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let frame: LogFrame = serde_json::from_slice(&line)
                    .map_err(|error| CliError::new(1, format!("the log's answer does not fit: {error}")))?;
                last = frame.sequence;
                tries = 0;
                print(app, &frame, raw)?;
            }
        };
        if !broken || !follow || tries == 5 {
            return Ok(last);
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn print(app: &App, frame: &LogFrame, raw: bool) -> Result<(), CliError> {
    if frame.lost > 0 {
        app.output.say(format!("[{} frames lost: the job wrote faster than they could be kept]", frame.lost));
    }
    let data = base64::engine::general_purpose::STANDARD
        .decode(&frame.data)
        .map_err(|_| CliError::new(1, "the log's answer does not fit: bad base64"))?;
    let shown = if raw { data } else { visible_log(&data).into_bytes() };
    match frame.stream {
        LogStream::Stdout => crate::output::bytes(&shown),
        LogStream::Stderr => {
            use std::io::Write as _;
            Ok(std::io::stderr().lock().write_all(&shown)?)
        }
    }
}

async fn receipt(client: &Client, id: JobId, wait: u64) -> Result<(), CliError> {
    let mut tick = tokio::time::interval(Duration::from_millis(300));
    let deadline = tokio::time::sleep(Duration::from_secs(wait));
    tokio::pin!(deadline);
    loop {
        match client.get_bytes(&format!("/v1/jobs/{id}/receipt"), None, 16 << 20).await {
            Ok(bytes) => return crate::output::bytes(&bytes),
            Err(error) if error.code() == Some(ErrorCode::WrongState) => tokio::select! {
                _ = tick.tick() => {}
                () = &mut deadline => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
}

fn show(app: &App, job: &Job) -> Result<(), CliError> {
    let limits = &job.spec.limits;
    let mut pairs = vec![
        ("job", job.id.to_string()),
        ("name", job.spec.name.to_string()),
        ("state", state(job.state).to_owned()),
        ("attempt", job.attempt.to_string()),
        ("node", job.node_name.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
        ("image", job.spec.image.to_string()),
        ("command", job.spec.command.join(" ")),
        ("purpose", format!("{} ({})", job.spec.purpose, job.spec.sensitivity)),
        (
            "limits",
            format!(
                "memory {}, cpu {} m, pids {}, scratch {}, time {} s",
                human_bytes(limits.memory_bytes),
                limits.cpu_millis,
                limits.pids,
                human_bytes(limits.scratch_bytes),
                limits.time_ms / 1000
            ),
        ),
    ];
    if let Some(exit) = &job.exit {
        pairs.push(("reason", format!("{}: {}", reason(exit.reason), exit.detail)));
        if let Some(peak) = exit.peak_memory_bytes {
            pairs.push(("peak memory", human_bytes(peak)));
        }
        if let Some(cpu) = exit.cpu_ms {
            pairs.push(("cpu time", format!("{cpu} ms")));
        }
    }
    for misfit in &job.misfits {
        pairs.push(("not on", format!("{}: {}", misfit.node, misfit.constraint)));
    }
    if let Some(report) = job.report.as_ref().and_then(|report| report.isolation.as_ref()) {
        pairs.push(("isolation", format!("{} on {} ({} cgroups), as the node says", report.backend, report.kernel, report.cgroup_layout)));
        for layer in &report.layers {
            pairs.push(("  layer", format!("{:24} {:14} {}", layer.name, verdict(layer.verdict), layer.observed)));
        }
    }
    pairs.push(("evidence", "none: isolation and region are the node's own signed word".to_owned()));
    pairs.push(("receipt", if job.receipt_ready { format!("swarm job receipt {}", job.id) } else { "not ready".to_owned() }));
    app.output.one(job, &pairs)
}

async fn image(app: &App, client: &Client, text: &str) -> Result<Sha256Digest, CliError> {
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    let images: Vec<Image> = app.all(client, "/v1/images").await?;
    images
        .iter()
        .find(|image| image.name.as_str() == text.trim().to_lowercase())
        .map(|image| image.manifest)
        .ok_or_else(|| {
            CliError::new(3, format!("there is no image `{}`", visible(text))).hint("swarm image import PATH --name NAME, or swarm image list")
        })
}

/// Reads `VOLUME` or `NAME=VOLUME`.
async fn mount(app: &App, client: &Client, text: &str) -> Result<(Name, Volume), CliError> {
    let (name, volume) = match text.split_once('=') {
        Some((name, volume)) => (Some(name), volume),
        None => (None, text),
    };
    let volume = app.volume(client, volume).await?;
    let name = match name {
        Some(name) => name.parse().map_err(|error| CliError::usage(format!("`{}`: {error}", visible(name))))?,
        None => volume.spec.name.clone(),
    };
    Ok((name, volume))
}

fn code_name() -> Result<Name, CliError> {
    "code".parse().map_err(|_| CliError::new(1, "`code` is no name"))
}

fn grant(text: &str) -> Result<SandboxGrant, CliError> {
    match text {
        "debug" => Ok(SandboxGrant::Debug),
        "uring" => Ok(SandboxGrant::Uring),
        "cma" => Ok(SandboxGrant::Cma),
        "may_compile" => Ok(SandboxGrant::MayCompile),
        other => Err(CliError::usage(format!("`{}` is no grant: debug, uring, cma or may_compile", visible(other)))),
    }
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "pending",
        JobState::Pulling => "pulling",
        JobState::Opening => "opening",
        JobState::Creating => "creating",
        JobState::Running => "running",
        JobState::Stopping => "stopping",
        JobState::Sealing => "sealing",
        JobState::Exited => "exited",
        JobState::Failed => "failed",
    }
}

fn verdict(verdict: vocabulary::isolation::LayerVerdict) -> &'static str {
    match verdict {
        vocabulary::isolation::LayerVerdict::Held => "held",
        vocabulary::isolation::LayerVerdict::Absent => "absent",
        vocabulary::isolation::LayerVerdict::NotObservable => "not observable",
    }
}

fn reason(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Completed => "completed",
        ExitReason::Failed => "failed",
        ExitReason::Oom => "out of memory",
        ExitReason::Timeout => "time limit",
        ExitReason::Cancelled => "cancelled",
        ExitReason::Evicted => "evicted",
        ExitReason::LeaseEnded => "run lease ended",
        ExitReason::KeyRevoked => "key revoked",
        ExitReason::Image => "image refused",
        ExitReason::Input => "input not opened",
        ExitReason::Output => "output not sealed",
        ExitReason::Create => "sandbox not made",
        ExitReason::SupervisorLost => "supervisor lost",
        ExitReason::Reboot => "machine restarted",
        ExitReason::NodeLost => "node lost",
    }
}
