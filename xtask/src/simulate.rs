//! Runs the simulation of the planner over many seeds: the test that runs a few of them in the suite, with other numbers.

use anyhow::Context as _;

/// As many runs as a change of the planner deserves.
const SEEDS: u64 = 10_000;
const TEST: &str = "planner::simulation::no_seed_breaks_a_promise";

pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let (from, count) = numbers(arguments)?;
    let build = ["test", "--package", "control", "--lib", "--locked", "--", "--exact", TEST, "--nocapture"];
    println!("$ SWARM_SIMULATE_FROM={from} SWARM_SIMULATE_SEEDS={count} cargo {}", build.join(" "));
    let status = std::process::Command::new(crate::cargo())
        .args(build)
        .env("SWARM_SIMULATE_FROM", from.to_string())
        .env("SWARM_SIMULATE_SEEDS", count.to_string())
        .current_dir(crate::root())
        .status()
        .context("cargo test")?;
    anyhow::ensure!(status.success(), "a promise was broken: the seed and what led to it stand above");
    Ok(())
}

/// First seed and number of runs.
fn numbers(arguments: &[&str]) -> anyhow::Result<(u64, u64)> {
    let (mut from, mut count) = (1, SEEDS);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().with_context(|| format!("{flag} wants a number"))?;
        let number = value.parse().with_context(|| format!("{flag} {value}: it is no whole number"))?;
        match *flag {
            "--from" => from = number,
            "--seeds" => count = number,
            _ => anyhow::bail!("`{flag}` is no flag of simulate: --seeds N and --from S are"),
        }
    }
    anyhow::ensure!(count > 0, "--seeds is at least 1");
    Ok((from, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(numbers(&[]).unwrap(), (1, SEEDS));
        assert_eq!(numbers(&["--from", "7", "--seeds", "2"]).unwrap(), (7, 2));
        for wrong in [&["--seeds"][..], &["--seeds", "many"], &["--seeds", "0"], &["--speed", "9"]] {
            assert!(numbers(wrong).is_err(), "{wrong:?}");
        }
    }
}
