//! The tests of faults with other numbers than in the suite: long pauses, and many seeded kills at the named points of operations.

use anyhow::Context as _;

/// As many as a change of an operation of several steps deserves.
const KILLS: u64 = 200;
/// In seconds.
const PAUSES: &str = "1,10,60";
const SEEDED: &str = "points::whoever_dies_where_a_seed_says_does_no_harm";

/// Without a flag everything, with one the seeded kills alone.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let (kills, seed) = numbers(arguments)?;
    crate::setup::run()?;
    crate::command(&crate::cargo(), &["build", "--locked", "--package", "cli"])?;
    if arguments.is_empty() {
        tests(&["faults::"], &[("SWARM_FAULTS_PAUSES", PAUSES.to_owned())])?;
        tests(&["points::whoever_dies_at"], &[("SWARM_FAULTS_ALL", "1".to_owned())])?;
    }
    tests(&["--exact", SEEDED], &[("SWARM_FAULTS_KILLS", kills.to_string()), ("SWARM_FAULTS_SEED", seed.to_string())])?;
    crate::test::groups()
}

fn tests(which: &[&str], numbers: &[(&str, String)]) -> anyhow::Result<()> {
    let head = ["test", "--locked", "--package", "e2e", "--test", "e2e", "--", "--test-threads", "1", "--nocapture"];
    let arguments = [&head[..], which].concat();
    let told: Vec<String> = numbers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("$ {} cargo {}", told.join(" "), arguments.join(" "));
    let mut command = std::process::Command::new(crate::cargo());
    command.args(&arguments).envs(numbers.iter().map(|(name, value)| (name, value))).current_dir(crate::root());
    let status = command.status().context("cargo test")?;
    anyhow::ensure!(status.success(), "a fault did harm: {status}; what was done, and the seed, stand above");
    Ok(())
}

/// Number of kills, and seed.
fn numbers(arguments: &[&str]) -> anyhow::Result<(u64, u64)> {
    let (mut kills, mut seed) = (KILLS, 1);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().with_context(|| format!("{flag} wants a number"))?;
        let number = value.parse().with_context(|| format!("{flag} {value}: it is no whole number"))?;
        match *flag {
            "--kills" => kills = number,
            "--seed" => seed = number,
            _ => anyhow::bail!("`{flag}` is no flag of faults: --kills N and --seed S are"),
        }
    }
    anyhow::ensure!(kills > 0, "--kills is at least 1");
    Ok((kills, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(numbers(&[]).unwrap(), (KILLS, 1));
        assert_eq!(numbers(&["--seed", "7", "--kills", "2"]).unwrap(), (2, 7));
        for wrong in [&["--kills"][..], &["--kills", "many"], &["--kills", "0"], &["--speed", "9"]] {
            assert!(numbers(wrong).is_err(), "{wrong:?}");
        }
    }
}
