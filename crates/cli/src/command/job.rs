//! `swarm job`: submit, follow, stop, and fetch the receipt.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use vocabulary::api::{Done, Job, JobCreate, Volume};
use vocabulary::job::{Exit, ExitReason, JobInput, JobLimits, JobOutput, JobSecret, JobSpec, JobState, RUN_LEASE_DEFAULT_MS, SandboxGrant};
use vocabulary::volume::VolumeSpec;
use vocabulary::{ErrorCode, JobId, Name, ProjectId, Region, Sensitivity, Sha256Digest};
use volume::folder::Source;

use crate::app::App;
use crate::args::{JobRun, JobVerb};
use crate::client::{Call, Client};
use crate::command::tenant::done;
use crate::command::volume::bytes_of;
use crate::error::CliError;
use crate::output::{human_bytes, visible};

mod follow;

/// Exit code when Swarm itself failed, as container tools have it.
const OUR_FAILURE: u8 = 125;
/// The name under which a job finds its code: `/code`.
const CODE: &str = "code";

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
                    job.state.as_str().to_owned(),
                    job.exit.as_ref().map_or_else(String::new, |exit| reason(exit.reason).to_owned()),
                    job.node_name.as_ref().map_or_else(String::new, ToString::to_string),
                    job.created.to_string(),
                ]
            })
        }
        JobVerb::Show { id } => show(app, &fetch(&client, id).await?),
        JobVerb::Logs { id, follow, raw } => follow::logs(app, &client, id, follow, raw).await,
        JobVerb::Stop { id } => stop(app, &client, id).await,
        JobVerb::Receipt { id, wait } => receipt(&client, id, wait).await,
    }
}

async fn fetch(client: &Client, id: JobId) -> Result<Job, CliError> {
    client.send(&Call::get(format!("/v1/jobs/{id}")), None).await
}

fn stop_call(id: JobId) -> Call {
    Call::new(reqwest::Method::POST, format!("/v1/jobs/{id}/stop"))
}

async fn stop(app: &App, client: &Client, id: JobId) -> Result<(), CliError> {
    let job = fetch(client, id).await?;
    done(app, client, &stop_call(id)).await?;
    if job.state == JobState::Running {
        app.output.say(format!("SIGTERM goes to the job, SIGKILL follows after {} s; its end: swarm job show {id}", job.spec.limits.grace_ms / 1000));
    }
    Ok(())
}

async fn run(app: &App, client: &Client, run: JobRun) -> Result<(), CliError> {
    // What can be refused here is refused before anything is made at the server.
    let grants = run.grants.iter().map(|text| grant(text)).collect::<Result<BTreeSet<_>, _>>()?;
    let code = run.code.as_deref().map(code_sources).transpose()?;
    let project = app.project(client, &run.project).await?;
    let image = app.image(client, &run.image).await?;
    let inputs = mounts(app, client, &run.inputs).await?;
    let outputs = mounts(app, client, &run.outputs).await?;
    let secrets = secrets(app, client, &run.secrets).await?;
    let volumes = || inputs.iter().chain(&outputs).map(|(_, volume)| volume);
    let highest = volumes().map(|volume| volume.spec.sensitivity).max().unwrap_or(Sensitivity::Public);
    let sensitivity = run.sensitivity.unwrap_or(highest);
    let region = volumes().map(|volume| volume.spec.region.clone()).next();
    let mut all: Vec<JobInput> = inputs.iter().map(|(name, volume)| JobInput { volume: volume.id, name: name.clone() }).collect();
    if let Some(sources) = code {
        let volume = seal_code(app, client, &run, project, sensitivity, region, &sources).await?;
        all.push(JobInput { volume: volume.id, name: name(CODE)? });
    }
    let outputs = outputs.iter().map(|(name, volume)| JobOutput { volume: volume.id, name: name.clone() }).collect();
    let (detach, rm_on_interrupt) = (run.detach, run.rm_on_interrupt);
    let spec = spec(run, image, sensitivity, grants, (all, outputs, secrets));
    let submit = Call::post("/v1/jobs", &JobCreate { project, spec })?.idempotent(suffix());
    let job: Job = app.send(client, &submit).await?;
    if detach {
        return app.output.one(&job, &[("job", job.id.to_string()), ("state", job.state.as_str().to_owned()), ("follow it", follow_hint(job.id))]);
    }
    app.output.say(format!("job {} submitted", job.id));
    let interrupted = tokio::select! {
        followed = follow::to_end(app, client, job.id) => return end(app, &followed?),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    interrupted?;
    if rm_on_interrupt {
        let _: Done = client.send(&stop_call(job.id), None).await?;
        return Err(CliError::new(130, format!("interrupted: job {} is being stopped", job.id)).hint(format!("swarm job show {}", job.id)));
    }
    Err(CliError::new(130, format!("interrupted: job {} goes on", job.id)).hint(format!("come back with: {}", follow_hint(job.id))))
}

fn follow_hint(id: JobId) -> String {
    format!("swarm job logs -f {id}")
}

fn spec(
    run: JobRun,
    image: Sha256Digest,
    sensitivity: Sensitivity,
    grants: BTreeSet<SandboxGrant>,
    (inputs, outputs, secrets): (Vec<JobInput>, Vec<JobOutput>, Vec<JobSecret>),
) -> JobSpec {
    let defaults = JobLimits::default();
    JobSpec {
        name: run.name,
        image,
        command: run.command,
        env: run.env.into_iter().collect(),
        inputs,
        outputs,
        secrets,
        purpose: run.purpose,
        sensitivity,
        region: run.region,
        jurisdictions: run.jurisdictions.into_iter().collect(),
        node_labels: run.node_labels.into_iter().collect(),
        limits: JobLimits {
            memory_bytes: run.memory.unwrap_or(defaults.memory_bytes),
            cpu_millis: run.cpus.unwrap_or(defaults.cpu_millis),
            pids: run.pids.unwrap_or(defaults.pids),
            scratch_bytes: run.scratch.unwrap_or(defaults.scratch_bytes),
            time_ms: run.time_limit.map_or(defaults.time_ms, |seconds| seconds.saturating_mul(1000)),
            grace_ms: defaults.grace_ms,
        },
        grants,
        runtime: run.runtime,
        gpus: run.gpus,
        network: run.network,
        placement: run.placement,
        restarts: run.restarts,
        run_lease_ms: run.run_lease.map_or(RUN_LEASE_DEFAULT_MS, |seconds| seconds.saturating_mul(1000)),
    }
}

/// The files of a code folder, walked before anything is made for them.
fn code_sources(folder: &Path) -> Result<Vec<Source>, CliError> {
    if !folder.is_dir() {
        return Err(CliError::usage(format!("--code {}: it is no folder", folder.display())));
    }
    let sources = crate::command::volume::walk(&[folder.to_owned()])?;
    if sources.is_empty() {
        return Err(CliError::usage(format!("--code {}: there is no file in it", folder.display())));
    }
    Ok(sources)
}

/// Code is the tenant's too: it travels as a sealed volume of its own, at most as sensitive as a node without evidence may open.
async fn seal_code(
    app: &App,
    client: &Client,
    run: &JobRun,
    project: ProjectId,
    sensitivity: Sensitivity,
    region: Option<Region>,
    sources: &[Source],
) -> Result<Volume, CliError> {
    let region = match region.or_else(|| run.region.clone()) {
        Some(region) => region,
        None => "local".parse().map_err(|error: vocabulary::label::LabelError| CliError::new(1, error.to_string()))?,
    };
    let spec = VolumeSpec {
        // The random part comes first, so that cutting a long name cannot make two the same.
        name: name(&format!("code-{}-{}", suffix(), run.name).chars().take(vocabulary::limits::NAME_MAX).collect::<String>())?,
        project,
        region,
        jurisdictions: run.jurisdictions.iter().cloned().collect(),
        sensitivity: sensitivity.min(Sensitivity::Confidential),
        purpose: run.purpose.clone(),
        min_trust: None,
    };
    let volume: Volume = app.send(client, &Call::post("/v1/volumes", &spec)?).await?;
    crate::command::volume::seal(app, client, &volume, sources).await?;
    app.output.say(format!("sealed {} files of code, {}, into volume {}", sources.len(), human_bytes(bytes_of(sources)), volume.spec.name));
    Ok(volume)
}

/// Eight random letters and digits.
fn suffix() -> String {
    let mut bytes = [0; 4];
    keys::Random::fill(&mut keys::SystemRandom, &mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(text: &str) -> Result<Name, CliError> {
    text.parse().map_err(|error| CliError::usage(format!("`{}`: {error}", visible(text))))
}

/// Prints how the job ended, and passes its code through.
fn end(app: &App, job: &Job) -> Result<(), CliError> {
    let Some(exit) = &job.exit else {
        return Err(CliError::new(OUR_FAILURE, format!("job {} ended and nothing says how", job.id)).hint(format!("swarm job show {}", job.id)));
    };
    if exit.reason == ExitReason::Completed {
        app.output.say(format!("job {} completed; its receipt: swarm job receipt {} > receipt.json", job.id, job.id));
        return Ok(());
    }
    Err(CliError::new(exit_code(exit), format!("job {}: {}: {}", job.id, reason(exit.reason), visible(&exit.detail)))
        .hint(format!("swarm job show {}", job.id)))
}

/// The job's own code where its program ended; 128 + n after signal n; 125 where it was Swarm that failed.
fn exit_code(exit: &Exit) -> u8 {
    let ours = match exit.reason {
        ExitReason::Completed => return 0,
        ExitReason::Image | ExitReason::Input | ExitReason::Output | ExitReason::Create | ExitReason::SupervisorLost | ExitReason::Reboot | ExitReason::NodeLost => true,
        ExitReason::Failed
        | ExitReason::Oom
        | ExitReason::Timeout
        | ExitReason::Cancelled
        | ExitReason::Evicted
        | ExitReason::LeaseEnded
        | ExitReason::KeyRevoked => false,
    };
    if ours {
        return OUR_FAILURE;
    }
    let own = exit.code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    let by_signal = exit.signal.and_then(|signal| u8::try_from(signal).ok()).and_then(|signal| 128_u8.checked_add(signal));
    // A program that was stopped and says 0 has not done its work.
    own.or(by_signal).unwrap_or(OUR_FAILURE)
}

async fn receipt(client: &Client, id: JobId, wait: u64) -> Result<(), CliError> {
    let mut tick = tokio::time::interval(Duration::from_millis(300));
    let deadline = tokio::time::sleep(Duration::from_secs(wait));
    tokio::pin!(deadline);
    loop {
        match client.get_bytes(&format!("/v1/jobs/{id}/receipt"), None, receipt::limits::RECEIPT_MAX).await {
            Ok(bytes) => return crate::output::bytes(&bytes),
            Err(error) if error.code() == Some(ErrorCode::WrongState) => tokio::select! {
                _ = tick.tick() => {}
                () = &mut deadline => return Err(error.hint(format!("a receipt is ready a moment after the job's end; swarm job show {id}"))),
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
        ("state", job.state.as_str().to_owned()),
        ("attempt", job.attempt.to_string()),
        ("node", job.node_name.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
        ("image", job.spec.image.to_string()),
        ("command", if job.spec.command.is_empty() { "the image's own".to_owned() } else { job.spec.command.join(" ") }),
        ("demands", demands(job)),
        ("restarts", format!("at most {}", job.spec.restarts)),
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
    pairs.extend(job.spec.inputs.iter().map(|input| ("reads", format!("volume {} as {}", input.volume, input.name))));
    pairs.extend(job.spec.outputs.iter().map(|output| ("writes", format!("volume {} from /outputs/{}", output.volume, output.name))));
    pairs.extend(job.spec.secrets.iter().map(|secret| ("is given", format!("secret {} as /run/secrets/{}", secret.secret, secret.name))));
    if let Some(exit) = &job.exit {
        pairs.push(("reason", format!("{}: {}", reason(exit.reason), exit.detail)));
        pairs.extend(exit.peak_memory_bytes.map(|peak| ("peak memory", human_bytes(peak))));
        pairs.extend(exit.cpu_ms.map(|cpu| ("cpu time", format!("{cpu} ms"))));
    }
    pairs.extend(job.held_back.iter().map(|quota| ("held back", quota.clone())));
    pairs.extend(job.misfits.iter().map(|misfit| ("not on", format!("{}: {}", misfit.node, misfit.constraint))));
    if let Some(report) = job.report.as_ref().and_then(|report| report.isolation.as_ref()) {
        pairs.push(("isolation", format!("{} on {} ({} cgroups), as the node says", report.backend, report.kernel, report.cgroup_layout)));
        pairs.extend(report.runtime.iter().map(|offer| ("runtime", crate::command::node::runtime(offer))));
        pairs.extend(report.layers.iter().map(|layer| ("  layer", format!("{:24} {:14} {}", layer.name, verdict(layer.verdict), layer.observed))));
    }
    pairs.push(("evidence", "none: isolation and region are the node's own signed word".to_owned()));
    pairs.push(("receipt", if job.receipt_ready { format!("swarm job receipt {} > receipt.json", job.id) } else { "not ready".to_owned() }));
    app.output.one(job, &pairs)
}

/// What a job demands of its place, in one line.
fn demands(job: &Job) -> String {
    let spec = &job.spec;
    let mut all: Vec<String> = spec
        .region
        .iter()
        .map(|region| format!("region {region}"))
        .collect();
    all.extend(
        spec.jurisdictions
            .iter()
            .map(|jurisdiction| format!("jurisdiction {jurisdiction}")),
    );
    all.extend(
        spec.node_labels
            .iter()
            .map(|(key, value)| format!("label {key}={value}")),
    );
    if !spec.placement.is_shared() {
        all.push(format!("placement {}", spec.placement.as_str()));
    }
    if all.is_empty() {
        "nothing of its place".to_owned()
    } else {
        all.join(", ")
    }
}

/// Reads `VOLUME` or `NAME=VOLUME`, several.
async fn mounts(app: &App, client: &Client, texts: &[String]) -> Result<Vec<(Name, Volume)>, CliError> {
    let mut found = Vec::new();
    for text in texts {
        let (as_name, volume) = text.split_once('=').map_or((None, text.as_str()), |(name, volume)| (Some(name), volume));
        let volume = app.volume(client, volume).await?;
        let as_name = as_name.map_or_else(|| Ok(volume.spec.name.clone()), name)?;
        found.push((as_name, volume));
    }
    Ok(found)
}

/// Reads `SECRET` or `NAME=SECRET`, several.
async fn secrets(app: &App, client: &Client, texts: &[String]) -> Result<Vec<JobSecret>, CliError> {
    let mut found = Vec::new();
    for text in texts {
        let (as_name, secret) = text.split_once('=').map_or((None, text.as_str()), |(name, secret)| (Some(name), secret));
        let secret = crate::command::secret::find(app, client, secret).await?;
        found.push(JobSecret { secret: secret.id, name: as_name.map_or_else(|| Ok(secret.name.clone()), name)? });
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;
    use vocabulary::UnixTime;

    fn code(reason: ExitReason, code: Option<i32>, signal: Option<i32>) -> u8 {
        let exit = Exit {
            reason,
            code,
            signal,
            detail: String::new(),
            oom_kills: 0,
            peak_memory_bytes: None,
            cpu_ms: None,
            started: None,
            ended: UnixTime::from_millis(0),
        };
        exit_code(&exit)
    }

    #[test]
    fn the_jobs_own_code_is_passed_through() {
        assert_eq!(code(ExitReason::Completed, Some(0), None), 0);
        assert_eq!(code(ExitReason::Failed, Some(3), None), 3);
        assert_eq!(code(ExitReason::Failed, Some(126), None), 126);
        assert_eq!(code(ExitReason::Failed, Some(127), None), 127);
        assert_eq!(code(ExitReason::Failed, None, Some(11)), 139);
        assert_eq!(code(ExitReason::Oom, None, Some(9)), 137);
        assert_eq!(code(ExitReason::Timeout, None, Some(15)), 143);
        assert_eq!(code(ExitReason::Cancelled, Some(0), None), 125);
        assert_eq!(code(ExitReason::Output, Some(0), None), 125);
        assert_eq!(code(ExitReason::NodeLost, None, None), 125);
        assert_eq!(code(ExitReason::Failed, Some(-1), Some(200)), 125);
    }

    #[test]
    fn code_folders_are_walked_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(code_sources(folder.path()).unwrap_err().exit, 2);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(code_sources(folder.path()).unwrap_err().message.contains("no regular file"));
        std::fs::remove_file(folder.path().join("link")).unwrap();
        std::fs::write(folder.path().join("train.py"), b"print()").unwrap();
        assert_eq!(code_sources(folder.path()).unwrap().len(), 1);
        assert_eq!(code_sources(&folder.path().join("train.py")).unwrap_err().exit, 2);
    }

    #[test]
    fn suffixes_fit_into_names() {
        let text = suffix();
        assert_eq!(text.len(), 8);
        assert_ne!(text, suffix());
        assert!(name(&format!("code-{text}-job")).is_ok());
    }
}
