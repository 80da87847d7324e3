//! `swarm doctor`: what this machine offers to jobs, tried for real where that is possible, and what each missing piece costs.

use runtime::probe::Fact;
use serde::Serialize;

use crate::app::App;
use crate::error::CliError;
use crate::output::{Format, line, visible};

/// What every job needs: without one of these a node takes none.
const NEEDED: [&str; 14] = [
    "root",
    "kernel",
    "user_namespace",
    "pid_namespace",
    "mount_namespace",
    "network_namespace",
    "ipc_namespace",
    "uts_namespace",
    "cgroup_namespace",
    "cgroups",
    "idmapped_overlay",
    "seccomp",
    "landlock",
    "fscrypt",
];

/// Everything that was seen.
#[derive(Debug, Serialize)]
struct Diagnosis {
    version: u32,
    /// Whether jobs can run here.
    jobs: bool,
    facts: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    #[serde(flatten)]
    fact: Fact,
    /// Whether every job needs it.
    needed: bool,
}

pub(crate) async fn doctor(app: &App) -> Result<(), CliError> {
    let facts = tokio::task::spawn_blocking(runtime::probe::machine).await.map_err(|error| CliError::new(1, error.to_string()))?;
    let diagnosis = diagnose(facts);
    match app.output.format {
        Format::Table => {
            for text in text(&diagnosis) {
                line(&text)?;
            }
        }
        Format::Json | Format::Yaml | Format::Jsonl => app.output.one(&diagnosis, &[])?,
    }
    let missing = missing(&diagnosis);
    if diagnosis.jobs {
        return Ok(());
    }
    let hint = if missing.contains(&"root") { "run it as root: sudo swarm doctor" } else { "what is written under each missing piece says what it costs" };
    Err(CliError::new(1, format!("this machine cannot run jobs: {} missing", missing.join(", "))).hint(hint))
}

fn diagnose(facts: Vec<Fact>) -> Diagnosis {
    let facts: Vec<Finding> = facts.into_iter().map(|fact| Finding { needed: NEEDED.contains(&fact.name.as_str()), fact }).collect();
    // A needed fact that was not even looked at is missing too.
    let jobs = NEEDED.iter().all(|name| facts.iter().any(|finding| finding.fact.name == *name && finding.fact.present));
    Diagnosis { version: 1, jobs, facts }
}

fn missing(diagnosis: &Diagnosis) -> Vec<&'static str> {
    NEEDED.iter().copied().filter(|name| !diagnosis.facts.iter().any(|finding| finding.fact.name == *name && finding.fact.present)).collect()
}

fn text(diagnosis: &Diagnosis) -> Vec<String> {
    let width = diagnosis.facts.iter().map(|finding| finding.fact.name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for Finding { fact, needed } in &diagnosis.facts {
        let verdict = match (fact.present, needed) {
            (true, _) => "there",
            (false, true) => "MISSING",
            (false, false) => "absent",
        };
        lines.push(format!("{verdict:7}  {:width$}  {}", visible(&fact.name), visible(&fact.detail)));
        if !fact.present {
            lines.push(format!("{:7}  {:width$}  costs: {}", "", "", visible(&fact.cost_of_absence)));
        }
    }
    if diagnosis.jobs {
        lines.push("\nThis machine can run jobs.".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(name: &str, present: bool) -> Fact {
        Fact { name: name.to_owned(), present, detail: "seen\u{1b}[2J".to_owned(), cost_of_absence: "no jobs".to_owned() }
    }

    #[test]
    fn a_machine_without_a_needed_piece_runs_no_jobs() {
        let all = || NEEDED.iter().map(|name| fact(name, true));
        let whole = diagnose(all().chain([fact("tpm", false)]).collect());
        assert!(whole.jobs && missing(&whole).is_empty());
        let lines = text(&whole);
        assert!(lines.iter().any(|line| line.starts_with("absent   tpm")) && lines.iter().any(|line| line.contains("costs: no jobs")));
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
        let without = diagnose(all().map(|fact| Fact { present: fact.name != "fscrypt", ..fact }).collect());
        assert!(!without.jobs && missing(&without) == ["fscrypt"]);
        assert!(text(&without).iter().any(|line| line.starts_with("MISSING  fscrypt")));
        assert!(!diagnose(all().skip(1).collect()).jobs, "what was not looked at is not there");
    }
}
