//! What a job may ask for at all, apart from who asks. Pure: a spec and its volumes in, the first broken rule out.

use std::collections::BTreeSet;

use vocabulary::ErrorCode;
use vocabulary::job::JobSpec;
use vocabulary::limits::{COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, JOB_VOLUMES_MAX};

use crate::api::problem::Failure;
use crate::limits::{JOB_CPU_MILLIS, JOB_GRACE_MS, JOB_MEMORY_BYTES, JOB_PIDS, JOB_RESTARTS, JOB_SCRATCH_BYTES, JOB_TIME_MS, RUN_LEASE_MS, SPEC_JSON_MAX};
use crate::operation::enrolment::check_labels;
use crate::row::VolumeRow;

/// Checks a spec by itself. `gpus` says whether any node offers one.
pub(crate) fn check_spec(spec: &JobSpec, gpus: bool) -> Result<(), Failure> {
    command(spec)?;
    let size = serde_json::to_vec(spec).map_err(Failure::internal)?.len();
    if size > SPEC_JSON_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`spec` has at most {SPEC_JSON_MAX} bytes as JSON")));
    }
    volumes(spec)?;
    check_labels("spec.node_labels", &spec.node_labels)?;
    let limits = &spec.limits;
    for (field, value, range) in [
        ("limits.memory_bytes", limits.memory_bytes, JOB_MEMORY_BYTES),
        ("limits.cpu_millis", limits.cpu_millis, JOB_CPU_MILLIS),
        ("limits.pids", limits.pids, JOB_PIDS),
        ("limits.scratch_bytes", limits.scratch_bytes, JOB_SCRATCH_BYTES),
        ("limits.time_ms", limits.time_ms, JOB_TIME_MS),
        ("limits.grace_ms", limits.grace_ms, JOB_GRACE_MS),
        ("run_lease_ms", spec.run_lease_ms, RUN_LEASE_MS),
        ("restarts", u64::from(spec.restarts), JOB_RESTARTS),
    ] {
        if !range.contains(&value) {
            return Err(Failure::invalid(format!("`spec.{field}` is {value}; it is {} to {}", range.start(), range.end())));
        }
    }
    if spec.network {
        return Err(Failure::new(ErrorCode::NotBuilt, "`spec.network`: jobs have no network until the mesh is built; leave it out"));
    }
    if spec.gpus > 0 && !gpus {
        return Err(Failure::new(ErrorCode::NoPlacement, "`spec.gpus`: no node of this deployment has a GPU"));
    }
    Ok(())
}

fn command(spec: &JobSpec) -> Result<(), Failure> {
    if spec.command.len() > COMMAND_ARGS_MAX || spec.env.len() > COMMAND_ARGS_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`spec.command` and `spec.env` have at most {COMMAND_ARGS_MAX} items each")));
    }
    let texts = spec.command.iter().map(String::len).chain(spec.env.iter().map(|(name, value)| name.len().saturating_add(value.len())));
    if texts.fold(0_usize, usize::saturating_add) > COMMAND_BYTES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`spec.command` and `spec.env` have at most {COMMAND_BYTES_MAX} bytes together")));
    }
    if spec.command.first().is_some_and(String::is_empty) {
        return Err(Failure::invalid("`spec.command` begins with an empty word"));
    }
    let nul = |text: &String| text.contains('\0');
    if spec.command.iter().any(nul) || spec.env.values().any(nul) {
        return Err(Failure::invalid("`spec.command` and `spec.env` hold no NUL characters"));
    }
    let named = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=');
    match spec.env.keys().all(|name| named(name)) {
        true => Ok(()),
        false => Err(Failure::invalid("`spec.env`: a name has printable ASCII characters without space and `=`")),
    }
}

fn volumes(spec: &JobSpec) -> Result<(), Failure> {
    if spec.inputs.len() > JOB_VOLUMES_MAX || spec.outputs.len() > JOB_VOLUMES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`spec.inputs` and `spec.outputs` have at most {JOB_VOLUMES_MAX} items each")));
    }
    let secrets: BTreeSet<_> = spec.secrets.iter().map(|secret| &secret.name).collect();
    if spec.secrets.len() > JOB_VOLUMES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`spec.secrets` has at most {JOB_VOLUMES_MAX} items")));
    }
    if secrets.len() != spec.secrets.len() {
        return Err(Failure::invalid("`spec.secrets`: two have the same `name`"));
    }
    let inputs: BTreeSet<_> = spec.inputs.iter().map(|input| &input.name).collect();
    if inputs.len() != spec.inputs.len() {
        return Err(Failure::invalid("`spec.inputs`: two have the same `name`"));
    }
    let (outputs, written): (BTreeSet<_>, BTreeSet<_>) = spec.outputs.iter().map(|output| (&output.name, output.volume)).unzip();
    if outputs.len() != spec.outputs.len() {
        return Err(Failure::invalid("`spec.outputs`: two have the same `name`"));
    }
    if written.len() != spec.outputs.len() {
        return Err(Failure::invalid("`spec.outputs`: a volume is written under two names"));
    }
    Ok(())
}

/// Whether a job may ever be given this volume's key: said at once, and decided again at each release.
pub(crate) fn check_volume(spec: &JobSpec, project: vocabulary::ProjectId, volume: &VolumeRow) -> Result<(), (Failure, &'static str)> {
    let named = &volume.spec.name;
    let refused = |rule: &'static str, detail: String| Err((Failure::new(ErrorCode::ReleaseRefused, detail), rule));
    if volume.spec.project != project {
        return refused("release-project", format!("volume `{named}` belongs to another project than the job"));
    }
    if volume.spec.purpose != spec.purpose {
        return refused("release-purpose", format!("volume `{named}` is for `{}`, the job's purpose is `{}`", volume.spec.purpose, spec.purpose));
    }
    if volume.spec.sensitivity > spec.sensitivity {
        return refused("clearance-volume", format!("volume `{named}` is {}, the job is admitted for {}", volume.spec.sensitivity, spec.sensitivity));
    }
    let (data, job) = (&volume.spec.jurisdictions, &spec.jurisdictions);
    if !data.is_empty() && !job.is_empty() && data.is_disjoint(job) {
        return refused("release-jurisdiction", format!("volume `{named}` may be opened nowhere where the job may run"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocabulary::job::{JobInput, JobOutput, JobSecret};
    use vocabulary::volume::VolumeSpec;
    use vocabulary::{PrincipalId, ProjectId, SecretId, Sensitivity, UnixTime, VolumeId};

    fn spec() -> JobSpec {
        serde_json::from_value(serde_json::json!({
            "name": "train", "image": format!("sha256:{}", "07".repeat(32)), "purpose": "research", "sensitivity": "internal",
        }))
        .unwrap()
    }

    fn refused(change: impl Fn(&mut JobSpec)) -> (ErrorCode, String) {
        let mut spec = spec();
        change(&mut spec);
        let failure = check_spec(&spec, false).unwrap_err();
        (failure.problem.code, failure.problem.detail.clone())
    }

    #[test]
    fn each_rule_of_a_spec_is_named() {
        check_spec(&spec(), false).unwrap();
        let volume = |n| VolumeId::from_bytes([n; 16]);
        let name = |text: &str| text.parse::<vocabulary::Name>().unwrap();
        for (got, code, said) in [
            (refused(|s| s.run_lease_ms = 29_999), ErrorCode::InvalidRequest, "run_lease_ms"),
            (refused(|s| s.run_lease_ms = 86_400_001), ErrorCode::InvalidRequest, "run_lease_ms"),
            (refused(|s| s.restarts = 11), ErrorCode::InvalidRequest, "restarts"),
            (refused(|s| s.limits.memory_bytes = 0), ErrorCode::InvalidRequest, "memory_bytes"),
            (refused(|s| s.limits.cpu_millis = u64::MAX), ErrorCode::InvalidRequest, "cpu_millis"),
            (refused(|s| s.limits.pids = 0), ErrorCode::InvalidRequest, "pids"),
            (refused(|s| s.limits.scratch_bytes = 1), ErrorCode::InvalidRequest, "scratch_bytes"),
            (refused(|s| s.limits.time_ms = 0), ErrorCode::InvalidRequest, "time_ms"),
            (refused(|s| s.limits.grace_ms = u64::MAX), ErrorCode::InvalidRequest, "grace_ms"),
            (refused(|s| s.command = vec!["x".into(); 257]), ErrorCode::TooLarge, "spec.command"),
            (refused(|s| s.command = vec!["x".repeat(COMMAND_BYTES_MAX + 1)]), ErrorCode::TooLarge, "bytes"),
            (refused(|s| s.command = vec!["\u{1}".repeat(COMMAND_BYTES_MAX)]), ErrorCode::TooLarge, "as JSON"),
            (refused(|s| s.command = vec![String::new()]), ErrorCode::InvalidRequest, "empty word"),
            (refused(|s| s.command = vec!["a\0b".into()]), ErrorCode::InvalidRequest, "NUL"),
            (refused(|s| s.env = [("A=B".into(), "1".into())].into()), ErrorCode::InvalidRequest, "spec.env"),
            (refused(|s| s.env = [(String::new(), "1".into())].into()), ErrorCode::InvalidRequest, "spec.env"),
            (refused(|s| s.node_labels = [("a b".into(), "1".into())].into()), ErrorCode::InvalidRequest, "node_labels"),
            (refused(|s| s.network = true), ErrorCode::NotBuilt, "spec.network"),
            (refused(|s| s.gpus = 1), ErrorCode::NoPlacement, "spec.gpus"),
            (
                refused(|s| s.inputs = vec![JobInput { volume: volume(1), name: name("a") }, JobInput { volume: volume(2), name: name("a") }]),
                ErrorCode::InvalidRequest,
                "spec.inputs",
            ),
            (
                refused(|s| s.secrets = [1, 2].map(|n| JobSecret { secret: SecretId::from_bytes([n; 16]), name: name("hub") }).to_vec()),
                ErrorCode::InvalidRequest,
                "spec.secrets",
            ),
            (
                refused(|s| s.secrets = (0..33).map(|n| JobSecret { secret: SecretId::from_bytes([n; 16]), name: name(&format!("n{n}")) }).collect()),
                ErrorCode::TooLarge,
                "spec.secrets",
            ),
            (
                refused(|s| s.outputs = vec![JobOutput { volume: volume(1), name: name("a") }, JobOutput { volume: volume(1), name: name("b") }]),
                ErrorCode::InvalidRequest,
                "two names",
            ),
            (
                refused(|s| s.inputs = (0..33).map(|n| JobInput { volume: volume(n), name: name(&format!("n{n}")) }).collect()),
                ErrorCode::TooLarge,
                "spec.inputs",
            ),
        ] {
            assert_eq!(got.0, code, "{}", got.1);
            assert!(got.1.contains(said), "{}", got.1);
        }
        let mut gpu = spec();
        gpu.gpus = 1;
        check_spec(&gpu, true).unwrap();
    }

    #[test]
    fn data_stays_with_its_project_purpose_sensitivity_and_place() {
        let project = ProjectId::from_bytes([1; 16]);
        let volume = |change: fn(&mut VolumeSpec)| {
            let mut wanted = VolumeSpec {
                name: "patients".parse().unwrap(),
                project,
                region: "eu-west".parse().unwrap(),
                jurisdictions: ["EU".parse().unwrap()].into(),
                sensitivity: Sensitivity::Internal,
                purpose: "research".parse().unwrap(),
                min_trust: None,
            };
            change(&mut wanted);
            VolumeRow {
                format: 1,
                id: VolumeId::from_bytes([2; 16]),
                spec: wanted,
                min_trust: 0,
                prefix: String::new(),
                owner: PrincipalId::from_bytes([3; 16]),
                created: UnixTime::from_millis(0),
            }
        };
        let mut job = spec();
        job.jurisdictions = ["EU".parse().unwrap(), "CH".parse().unwrap()].into();
        check_volume(&job, project, &volume(|_| {})).unwrap();
        for (volume, rule) in [
            (volume(|v| v.project = ProjectId::from_bytes([9; 16])), "release-project"),
            (volume(|v| v.purpose = "marketing".parse().unwrap()), "release-purpose"),
            (volume(|v| v.sensitivity = Sensitivity::Regulated), "clearance-volume"),
            (volume(|v| v.jurisdictions = ["US".parse().unwrap()].into()), "release-jurisdiction"),
        ] {
            let (failure, found) = check_volume(&job, project, &volume).unwrap_err();
            assert_eq!((failure.problem.code, found), (ErrorCode::ReleaseRefused, rule));
        }
    }
}
