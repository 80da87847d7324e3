//! Everything that must pass, with the time that each step took.

use std::time::{Duration, Instant};

type Step = (&'static str, fn() -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("root", || crate::setup::need_root("the tests' sandboxes")),
    ("setup", crate::setup::run),
    ("fetch", || cargo(&["fetch", "--locked"])),
    ("layers", crate::layers::run),
    ("tidy", crate::tidy::run),
    ("deny", deny),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("build", || cargo(&["build", "--workspace", "--all-targets", "--locked"])),
    ("openapi", || crate::openapi::run(true)),
    ("doctests", || cargo(&["test", "--workspace", "--doc", "--locked", "--quiet"])),
    ("tests", || cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])),
    ("groups", groups),
];

/// No test left a control group behind. Those of tests that run beside these are not judged.
pub(crate) fn groups() -> anyhow::Result<()> {
    let left = e2e::orphaned_groups();
    anyhow::ensure!(left.is_empty(), "control groups of tests that have ended: {}", left.join(", "));
    println!("groups: no test left a control group behind");
    Ok(())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    crate::command(&crate::cargo(), arguments)
}

/// Bans, licences and sources. The advisory database lies outside the package registries, and this says so.
fn deny() -> anyhow::Result<()> {
    println!("deny: advisories are NOT checked: their database lies outside the package registries");
    cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"])
}

pub(crate) fn run() -> anyhow::Result<()> {
    let mut table: Vec<(&str, Duration)> = Vec::new();
    let mut failed = None;
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let begun = Instant::now();
        let result = step();
        table.push((name, begun.elapsed()));
        if let Err(error) = result {
            failed = Some(format!("{name}: {error:#}"));
            break;
        }
    }
    println!("\nstep         seconds");
    for (name, took) in &table {
        println!("{name:12} {:7}", took.as_secs());
    }
    println!("{:12} {:7}", "all", table.iter().map(|(_, took)| took.as_secs()).sum::<u64>());
    match failed {
        None => {
            println!("all {} steps passed", table.len());
            Ok(())
        }
        Some(failed) => Err(anyhow::anyhow!(failed)),
    }
}
