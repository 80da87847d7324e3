//! `cargo xtask`: everything that is done to this workspace, as one list.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for developers: it prints, reads the environment and measures its own steps"
)]

mod demo;
mod faults;
mod image;
mod layers;
mod oci;
mod openapi;
mod package;
mod python;
mod setup;
mod simulate;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask VERB

  setup     install what the workspace needs (Debian packages, cargo-nextest, cargo-deny); says so before it does it
  test      everything that must pass: setup, layers, tidy, deny, clippy, build, openapi, doctests, tests
  demo      one command: a deployment, a tenant, a sealed data set, a real training job, its receipt, and attacks on all of it
  faults    processes that stand still for 1, 10 and 60 s, disks that are full or break, and processes that are killed at named
            points of an operation: --kills N (200) --seed S (1) for the last alone (a part of it all is in `test`)
  guest     the whole suite of jobs, or the tests named, in the emulated guest with unified control groups (a part of it is in `test`)
  golden    make the deployment on which later versions must start: crates/control/testdata
  image     make an image below target/images: demo (Python with scikit-learn) or busybox
  layers    check the law of layers from `cargo metadata`
  tidy      check the tree: no paths of a machine, no unfinished marks
  simulate  run the planner against machines that lie and networks that fail: --seeds N (10000) --from S (1)
  openapi   write openapi/operator-v1.json (--check: fail when it differs)
  package   a Debian package with inventory, digests and signature below target/package/release (--key FILE, --twice: compare two builds)
  bench     measure against peers, in release: sealing, decisions, mutations, idle, connections, heartbeats, reads, volumes, jobs, log (all when none is named)
  help      this list";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        ["setup"] => setup::run(),
        ["test"] => test::run(),
        ["layers"] => layers::run(),
        ["tidy"] => tidy::run(),
        ["openapi"] => openapi::run(false),
        ["openapi", "--check"] => openapi::run(true),
        ["golden"] => golden(),
        ["simulate", rest @ ..] => simulate::run(rest),
        ["demo"] => demo::run(),
        ["image", "demo"] => setup::demo().and_then(|()| image::demo()).map(drop),
        ["image", "busybox"] => setup::demo().and_then(|()| image::busybox()).map(drop),
        ["package", words @ ..] => package::Options::parse(words).and_then(|options| package::run(&options)),
        ["faults", rest @ ..] => faults::run(rest),
        ["guest", names @ ..] => guest(names),
        ["bench", names @ ..] => bench(names),
        [other, ..] => Err(anyhow::anyhow!("`{other}` is no verb; cargo xtask help lists them")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the deployment that later versions must start on, and keeps it.
fn golden() -> anyhow::Result<()> {
    let (program, arguments) = (cargo(), ["test", "--locked", "--package", "control", "--test", "golden"]);
    println!("$ SWARM_KEEP_GOLDEN=1 {program} {}", arguments.join(" "));
    let status = std::process::Command::new(&program).args(arguments).env("SWARM_KEEP_GOLDEN", "1").current_dir(root()).status()?;
    anyhow::ensure!(status.success(), "it was not made: {status}");
    println!("kept in crates/control/testdata; one that exists is an older version's promise: commit another only under another name");
    Ok(())
}

/// The suite of jobs where control groups are unified only, one test after the other in an emulated machine.
fn guest(names: &[&str]) -> anyhow::Result<()> {
    setup::run()?;
    let (program, test) = (cargo(), "unified::the_unified_layout_holds_in_a_guest");
    // Of the whole workspace, so that what was compiled for the other tests serves this one.
    let arguments = ["test", "--locked", "--workspace", "--test", "jobs", "--", "--exact", test];
    let scope = if names.is_empty() { "whole".to_owned() } else { names.join(",") };
    println!("$ SWARM_GUEST={scope} {program} {}", arguments.join(" "));
    let status = std::process::Command::new(&program).args(arguments).env("SWARM_GUEST", &scope).current_dir(root()).status()?;
    anyhow::ensure!(status.success(), "the suite did not pass in the guest: {status}");
    Ok(())
}

/// Builds in release and measures.
fn bench(names: &[&str]) -> anyhow::Result<()> {
    setup::need_root("measuring jobs")?;
    setup::bench()?;
    command(&cargo(), &["build", "--release", "--locked", "--package", "cli", "--package", "bench"])?;
    let program = target().join("release/bench");
    command(&program.display().to_string(), names)
}

/// Runs a command in the workspace's root, showing it first; fails when it does.
fn command(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    println!("$ {program} {}", arguments.join(" "));
    let status = std::process::Command::new(program).args(arguments).current_dir(root()).status()?;
    anyhow::ensure!(status.success(), "`{program} {}` failed: {status}", arguments.join(" "));
    Ok(())
}

/// The workspace's root.
fn root() -> std::path::PathBuf {
    let own = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "xtask".into()));
    own.parent().filter(|path| !path.as_os_str().is_empty()).map_or_else(|| ".".into(), std::path::Path::to_owned)
}

/// Where cargo builds.
fn target() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), std::path::PathBuf::from)
}

/// The cargo that runs us.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
