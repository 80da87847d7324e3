//! From a job's spec and its image's config to what the sandbox is told. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use runtime::backend::Backend;
use runtime::gpu::GivenGpu;
use runtime::image::ImageConfig;
use runtime::sandbox::{AttemptSpec, BindMount};
use vocabulary::job::{JobInput, JobSpec};
use vocabulary::limits::{COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, JOB_VOLUMES_MAX};
use vocabulary::plan::PlannedJob;

/// Where programs are looked for when neither image nor job says it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The name of the input that is bound at `/code`.
const CODE: &str = "code";

/// Why this version does not run such a job, by the field that asks for it.
pub(crate) fn refusal(spec: &JobSpec, backends: &[Backend], gpus: u32) -> Option<String> {
    if backend(spec, backends).is_none() {
        return Some(format!("runtime: the job asks for {}, this node does not offer it", spec.runtime.unwrap_or_default()));
    }
    if spec.network {
        return Some("network: not built yet, this version gives jobs the loopback interface alone".to_owned());
    }
    if spec.gpus > gpus {
        return Some(format!("gpus: the job asks for {}, this node has {gpus} in service", spec.gpus));
    }
    if spec.inputs.len() > JOB_VOLUMES_MAX || spec.outputs.len() > JOB_VOLUMES_MAX {
        return Some(format!("inputs, outputs: at most {JOB_VOLUMES_MAX} each"));
    }
    if doubled(spec.inputs.iter().map(|input| input.name.as_str())) || doubled(spec.outputs.iter().map(|output| output.name.as_str())) {
        return Some("inputs, outputs: two have one name".to_owned());
    }
    if spec.secrets.len() > JOB_VOLUMES_MAX || doubled(spec.secrets.iter().map(|secret| secret.name.as_str())) {
        return Some(format!("secrets: at most {JOB_VOLUMES_MAX}, each name once"));
    }
    if doubled(spec.outputs.iter().map(|output| output.volume)) {
        return Some("outputs: two are sealed into one volume".to_owned());
    }
    let bytes: usize = spec.command.iter().map(String::len).chain(spec.env.iter().map(|(name, value)| name.len().saturating_add(value.len()))).sum();
    if spec.command.len() > COMMAND_ARGS_MAX || bytes > COMMAND_BYTES_MAX {
        return Some(format!("command, env: at most {COMMAND_ARGS_MAX} arguments and {COMMAND_BYTES_MAX} bytes"));
    }
    None
}

/// What makes this job's sandbox: what it asks for, else the default.
pub(crate) fn backend<'a>(spec: &JobSpec, backends: &'a [Backend]) -> Option<&'a Backend> {
    backends.iter().find(|backend| backend.runtime == spec.runtime.unwrap_or_default())
}

fn doubled<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut all: Vec<T> = items.collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    all.len() != count
}

/// Where an input is bound.
pub(crate) fn input_target(input: &JobInput) -> String {
    if input.name.as_str() == CODE { "/code".to_owned() } else { format!("/inputs/{}", input.name) }
}

/// Whether an input holds programs: its files get the right to be executed.
pub(crate) fn is_code(input: &JobInput) -> bool {
    input.name.as_str() == CODE
}

/// What the node adds to a job's own wishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The unpacked image.
    pub(crate) image_root: &'a Path,
    /// The encrypted directory with `inputs`, `outputs`, `scratch` and `log`.
    pub(crate) scratch: &'a Path,
    /// The directory of secrets, where the job has some.
    pub(crate) secrets: &'a Path,
    /// GPUs that the job has for itself, and the files of their driver.
    pub(crate) gpus: (&'a [GivenGpu], &'a [BindMount]),
    /// The image's user.
    pub(crate) user: (u32, u32),
    /// What makes the sandbox.
    pub(crate) backend: &'a Backend,
    /// First of the attempt's host ids.
    pub(crate) id_base: u32,
    /// The node's cgroup.
    pub(crate) cgroup_parent: &'a str,
    /// End of the run lease.
    pub(crate) deadline_boottime_ms: u64,
}

/// Everything that the shim is told.
///
/// # Errors
/// A sentence that names the field of image or job that does not fit.
pub(crate) fn attempt_spec(planned: &PlannedJob, config: &ImageConfig, place: &Place<'_>) -> Result<AttemptSpec, String> {
    let spec = &planned.spec;
    let argv = config.argv(&spec.command);
    if argv.is_empty() {
        return Err("command: neither the job nor its image names a program".to_owned());
    }
    let bind = |source: &str, target: String, readonly: bool, exec: bool| BindMount { source: place.scratch.join(source), target, readonly, exec };
    let mut binds = vec![bind("scratch", "/scratch".to_owned(), false, false)];
    for input in &spec.inputs {
        binds.push(bind(&format!("inputs/{}", input.name), input_target(input), true, is_code(input)));
    }
    for output in &spec.outputs {
        binds.push(bind(&format!("outputs/{}", output.name), format!("/outputs/{}", output.name), false, false));
    }
    if !spec.secrets.is_empty() {
        binds.push(BindMount { source: place.secrets.to_owned(), target: runtime::secret::TARGET.to_owned(), readonly: true, exec: false });
    }
    binds.extend(place.gpus.1.iter().cloned());
    let workdir = if config.workdir.is_empty() { "/" } else { &config.workdir };
    let has_code = spec.inputs.iter().any(is_code);
    let cwd = if workdir == "/" && has_code { "/code" } else { workdir };
    let id = planned.attempt.job.to_string();
    let short: String = id.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
    Ok(AttemptSpec {
        attempt: planned.attempt,
        image_root: place.image_root.to_owned(),
        argv,
        env: environment(spec, config)?,
        uid: place.user.0,
        gid: place.user.1,
        cwd: cwd.to_owned(),
        hostname: format!("job-{short}"),
        limits: spec.limits.clone(),
        binds,
        grants: spec.grants.clone(),
        gpus: place.gpus.0.to_vec(),
        backend: place.backend.clone(),
        id_base: place.id_base,
        cgroup_parent: place.cgroup_parent.to_owned(),
        deadline_boottime_ms: Some(place.deadline_boottime_ms),
        log_dir: Some(place.scratch.join("log")),
    })
}

/// The image's variables, then ours, then the job's own.
fn environment(spec: &JobSpec, config: &ImageConfig) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    for line in &config.env {
        let (name, value) = line.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("image config: a variable is not NAME=VALUE")?;
        env.insert(name.to_owned(), value.to_owned());
    }
    env.insert("HOME".to_owned(), "/scratch/home".to_owned());
    env.insert("TMPDIR".to_owned(), "/tmp".to_owned());
    env.extend(spec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(env)
}

#[cfg(test)]
mod tests {
    use vocabulary::job::{JobOutput, JobSecret};
    use vocabulary::runtime::Runtime;
    use vocabulary::{SecretId, VolumeId};

    use super::*;

    fn planned() -> PlannedJob {
        crate::testing::planned_job(1)
    }

    fn input(name: &str) -> JobInput {
        JobInput { volume: VolumeId::from_bytes([5; 16]), name: name.parse().unwrap() }
    }

    fn secret(name: &str) -> JobSecret {
        JobSecret { secret: SecretId::from_bytes([7; 16]), name: name.parse().unwrap() }
    }

    fn place() -> Place<'static> {
        const OWN: &Backend = &Backend { runtime: Runtime::Youki, binary: None };
        Place { gpus: (&[], &[]), backend: OWN, image_root: Path::new("/image"), scratch: Path::new("/s"), secrets: Path::new("/a/secrets/files"), user: (5, 6), id_base: 1 << 20, cgroup_parent: "swarm", deadline_boottime_ms: 9 }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let spec = planned().spec;
        assert_eq!(refusal(&spec, &[Backend::default()], 1), None);
        for (change, word) in [
            ((|spec| spec.network = true) as fn(&mut JobSpec), "network"),
            (|spec| spec.gpus = 2, "gpus"),
            (|spec| spec.runtime = Some(Runtime::Kata), "runtime: the job asks for kata"),
            (|spec| spec.inputs = vec![input("a"), input("a")], "one name"),
            (|spec| spec.inputs = (0..33).map(|n| input(&format!("n{n}"))).collect(), "at most 32"),
            (|spec| spec.secrets = vec![secret("a"), secret("a")], "each name once"),
            (|spec| spec.secrets = (0..33).map(|n| secret(&format!("n{n}"))).collect(), "at most 32"),
            (|spec| spec.command = vec!["x".repeat(300 << 10)], "bytes"),
            (
                |spec| {
                    spec.outputs = ["a", "b"].map(|name| JobOutput { volume: VolumeId::from_bytes([5; 16]), name: name.parse().unwrap() }).to_vec();
                },
                "one volume",
            ),
        ] {
            let mut changed = spec.clone();
            change(&mut changed);
            let told = refusal(&changed, &[Backend::default()], 1).unwrap();
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn image_and_job_make_one_program() {
        let mut job = planned();
        job.spec.command = vec!["train.py".to_owned()];
        job.spec.env.insert("A".to_owned(), "job".to_owned());
        job.spec.inputs = vec![input("data"), input("code")];
        job.spec.outputs = vec![JobOutput { volume: VolumeId::from_bytes([6; 16]), name: "model".parse().unwrap() }];
        job.spec.secrets = vec![JobSecret { secret: SecretId::from_bytes([7; 16]), name: "hub".parse().unwrap() }];
        let config = ImageConfig { entrypoint: vec!["python3".to_owned()], cmd: vec!["-h".to_owned()], env: vec!["A=image".to_owned(), "B=b=c".to_owned()], ..ImageConfig::default() };
        let made = attempt_spec(&job, &config, &place()).unwrap();
        assert_eq!(made.argv, ["python3", "train.py"]);
        assert_eq!(made.env["A"], "job");
        assert_eq!(made.env["B"], "b=c");
        assert_eq!(made.env["HOME"], "/scratch/home");
        assert_eq!((made.cwd.as_str(), made.uid, made.gid), ("/code", 5, 6));
        assert_eq!(made.hostname, "job-abababababab");
        let binds: Vec<_> = made.binds.iter().map(|bind| (bind.source.to_str().unwrap(), bind.target.as_str(), bind.readonly, bind.exec)).collect();
        assert_eq!(
            binds,
            [
                ("/s/scratch", "/scratch", false, false),
                ("/s/inputs/data", "/inputs/data", true, false),
                ("/s/inputs/code", "/code", true, true),
                ("/s/outputs/model", "/outputs/model", false, false),
                ("/a/secrets/files", "/run/secrets", true, false),
            ]
        );
        assert_eq!(made.log_dir.as_deref(), Some(Path::new("/s/log")));
        assert!(runtime::sandbox::oci_spec(&made, "/swarm/x", "/root", 1024).is_ok());
    }

    #[test]
    fn an_image_that_names_no_program_is_refused() {
        assert!(attempt_spec(&planned(), &ImageConfig::default(), &place()).unwrap_err().starts_with("command"));
        let odd = ImageConfig { cmd: vec!["sh".to_owned()], env: vec!["=x".to_owned()], ..ImageConfig::default() };
        assert!(attempt_spec(&planned(), &odd, &place()).unwrap_err().contains("NAME=VALUE"));
    }
}
