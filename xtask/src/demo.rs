//! `cargo xtask demo`: a deployment, a tenant with sealed data, a real training job, its receipt, and attacks on all of it.
//! Everything is typed as a person would type it; this program plays the person and shows each command before it runs.

mod attack;
mod score;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use e2e::{Deployment, Options, Person, Shell};
use serde_json::Value;

use stage::{check, say, title};

/// Where the data set lies inside Debian's package python3-sklearn-lib.
const DATA_SET: &str = "./usr/lib/python3/dist-packages/sklearn/datasets/data/breast_cancer.csv";

/// What the steps share.
#[derive(Debug)]
struct World {
    folder: PathBuf,
    deployment: Deployment,
    /// The administrator, at the terminal where the platform is operated.
    operator: Shell,
    /// The same person at the terminal where the tenant's data is.
    clinic: Shell,
}

pub(crate) fn run() -> anyhow::Result<()> {
    crate::setup::need_root("the demo")?;
    crate::setup::demo()?;
    say("building the program (some minutes the first time)");
    crate::command(&crate::cargo(), &["build", "--quiet", "--locked", "--package", "cli"])?;
    let images = crate::image::demo()?;
    let folder = tempfile::Builder::new().prefix("swarm-demo-").tempdir()?;
    // Node agents run jobs as other users: they must be able to pass through.
    let place = folder.path().canonicalize()?;
    stage::shorten(&place);
    let had_user = user_exists()?;
    match story(&place, &images) {
        Ok(group) => {
            title("Nothing is left behind");
            folder.close()?;
            if !had_user && user_exists()? {
                crate::command("userdel", &[USER])?;
            }
            let left = e2e::snapshot(&[&place], &group).all();
            for thing in &left {
                println!("   left behind: {thing}");
            }
            anyhow::ensure!(left.is_empty(), "{} things were left behind", left.len());
            check("no process, no mount, no loop device, no control group, no file, no user");
        }
        Err(error) => {
            let kept = folder.keep();
            return Err(error.context(format!("the demo stopped; its files are kept for a look: {}", kept.display())));
        }
    }
    println!("\nThat was all of it: cargo xtask test runs the tests; docs/guide/quickstart.md is the same by hand.");
    Ok(())
}

/// As whom the control plane runs: `swarm up` makes the user where it is absent.
const USER: &str = "swarm";

fn user_exists() -> anyhow::Result<bool> {
    Ok(Command::new("getent").args(["passwd", USER]).output().context("getent")?.status.success())
}

/// Gives the control group of the deployment's node.
fn story(place: &Path, images: &crate::image::Images) -> anyhow::Result<String> {
    title("A control plane and a node come up");
    let program = crate::target().join("debug/swarm");
    let deployment = Deployment::up(&program, place, Options::default())?;
    stage::typed(&deployment.command_line().iter().map(String::as_str).collect::<Vec<_>>());
    say(&format!("API {}; pin of its root {}", deployment.url(), deployment.ca_pin()));
    say("development profile: passphrase seal, no evidence about nodes; every receipt says so");
    let (operator, clinic) = (deployment.shell("operator").watched(stage::typed), deployment.shell("clinic").watched(stage::typed));
    let world = World { folder: place.to_owned(), deployment, operator, clinic };

    title("An administrator enrols, with a second factor");
    say("this program plays the person: it computes the authenticator's codes with OpenSSL");
    let mut admin = Person::new("admin", "a long password of the demo");
    let ticket = world.deployment.ticket()?;
    admin.enrol(&world.operator, world.deployment.url(), world.deployment.ca_pin(), &ticket, Some("operator"))?;
    check("enrolled with a one-time ticket, a password and TOTP");
    world.operator.typed(&["tenant", "create", "clinic", "--admin", "admin"])?.ok()?;
    admin.login(&world.clinic, Some((world.deployment.url(), world.deployment.ca_pin())), "clinic")?;
    check("the same person, now as the tenant's administrator: the operator's login cannot touch the tenant's data");

    title("A real data set is sealed, on the person's own machine");
    let data = world.folder.join("breast_cancer.csv");
    std::fs::write(&data, data_set(&images.tree)?)?;
    let rows = std::fs::read_to_string(&data)?.lines().count().saturating_sub(1);
    say(&format!("Wisconsin breast cancer data (Debian's python3-sklearn ships it): {rows} patients"));
    world.clinic.typed(&["project", "create", "study"])?.ok()?;
    for name in ["patients", "model"] {
        world.clinic.typed(&[&["volume", "create", name], VOLUME].concat())?.ok()?;
    }
    world.clinic.typed(&["volume", "put", "patients", text(&data)?])?.ok()?;
    attack::plain_text_is_nowhere(&world.deployment.data(), "17.99,10.38,122.8")?;
    check("the server holds ciphertext only: a line of the data is found in no file of it");

    title("A real training job, isolated, on the node");
    world.clinic.typed(&["image", "import", text(&images.archive)?, "--name", "sklearn"])?.ok()?;
    let code = crate::root().join("xtask/demo/train");
    let run = ["job", "run", "sklearn", "--project", "study", "--purpose", "research", "--name", "train", "--input", "patients", "--output", "model"];
    let rest = ["--memory", "1GiB", "--time-limit", "600", "--code", text(&code)?, "--", "python3", "/code/train.py"];
    let done = world.clinic.typed(&[&run[..], &rest[..]].concat())?.ok()?;
    let printed = format!("{}{}", done.out(), done.err());
    let line = printed.lines().find(|line| line.contains("held-out rows right")).with_context(|| format!("no score was printed: {printed}"))?;
    say(&format!("the job says: {}", line.trim()));
    let job = newest_job(&world.clinic)?;
    show_isolation(&world.clinic, &job)?;

    title("Its output comes back sealed, and the score is computed again");
    let opened = world.folder.join("opened");
    world.clinic.typed(&["volume", "get", "model", text(&opened)?])?.ok()?;
    let again = score::recompute(&std::fs::read_to_string(&data)?, &opened.join("model.json"))?;
    let claimed: Value = serde_json::from_slice(&std::fs::read(opened.join("score.json"))?)?;
    say(&format!("recomputed here from the opened model's numbers: {again}"));
    anyhow::ensure!(claimed == again.json(), "the job wrote {claimed}, and the model gives {}", again.json());
    anyhow::ensure!(line.contains(&again.to_string()), "the job printed `{line}`, and the model gives {again}");
    check("the score that the job printed is the score of the model that it wrote");

    title("The receipt, verified offline");
    let receipt = world.folder.join("receipt.json");
    let bytes = world.clinic.typed(&["job", "receipt", &job])?.ok()?;
    std::fs::write(&receipt, bytes.bytes())?;
    let deployment = world.folder.join("deployment.json");
    std::fs::write(&deployment, world.clinic.typed(&["deployment", "show"])?.ok()?.bytes())?;
    let verdict = verify_offline(&world, &receipt)?;
    anyhow::ensure!(verdict.status.success(), "the receipt does not verify: {}", String::from_utf8_lossy(&verdict.stdout));
    let told = String::from_utf8_lossy(&verdict.stdout);
    let (open, proved): (Vec<&str>, Vec<&str>) = told.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with("not checked"));
    stage::indented(&proved.iter().filter(|line| line.starts_with("proved ")).take(4).copied().collect::<Vec<_>>().join("\n"));
    say(&format!("  … {} further claims are proved; what nothing can carry is said too:", proved.len().saturating_sub(5)));
    stage::indented(&open.join("\n"));
    check("verified without any network, with the deployment's public file alone");
    by_hand(&world, &receipt)?;

    title("Attacks: each must be refused, and say why");
    attack::all(&world, &mut admin, &job, &receipt)?;

    title("The log of everything that happened");
    world.clinic.typed(&["audit", "verify"])?.ok()?;
    check("every entry is in the Merkle tree, under a signed checkpoint");

    title("Everything is ended and erased");
    let World { mut deployment, operator, .. } = world;
    let group = deployment.cgroup_parent()?;
    deployment.erase(&operator)?;
    Ok(group)
}

/// How the demo's volumes are made.
const VOLUME: &[&str] = &["--project", "study", "--region", "local", "--sensitivity", "internal", "--purpose", "research"];

/// The data set as Debian's package has it, out of the image's tree.
fn data_set(tree: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(tree)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == DATA_SET.as_bytes() {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes)?;
            return Ok(bytes);
        }
    }
    anyhow::bail!("{} holds no {DATA_SET}", tree.display())
}

/// The newest job's id.
fn newest_job(shell: &Shell) -> anyhow::Result<String> {
    let jobs = shell.json(&["job", "list"])?;
    let items = jobs.get("items").and_then(Value::as_array).context("a list of jobs")?;
    // Ids are ordered by time (UUID version 7).
    let id = items.iter().filter_map(|job| job.get("id").and_then(Value::as_str)).max().context("there is no job")?;
    Ok(id.to_owned())
}

/// Which layers of isolation were read back before the job started.
fn show_isolation(shell: &Shell, job: &str) -> anyhow::Result<()> {
    let shown = shell.json(&["job", "show", job])?;
    let layers = shown.pointer("/report/isolation/layers").and_then(Value::as_array).context("the job has no isolation report")?;
    let held: Vec<&str> = layers
        .iter()
        .filter(|layer| layer.get("verdict").and_then(Value::as_str) == Some("held"))
        .filter_map(|layer| layer.get("name").and_then(Value::as_str))
        .collect();
    say(&format!("isolation, read back before its first instruction: {}", held.join(", ")));
    anyhow::ensure!(!held.is_empty(), "no layer of isolation held");
    Ok(())
}

/// Verifies a receipt in a network namespace without any interface.
fn verify_offline(world: &World, receipt: &Path) -> anyhow::Result<std::process::Output> {
    let deployment = world.folder.join("deployment.json");
    let arguments = ["verify", text(receipt)?, "--deployment", text(&deployment)?, "--ca-pin", world.deployment.ca_pin()];
    stage::typed(&arguments);
    let output = Command::new("unshare").arg("--net").arg(world.clinic.program()).args(arguments).output().context("unshare --net")?;
    Ok(output)
}

/// Verifies the same receipt without any program of ours.
fn by_hand(world: &World, receipt: &Path) -> anyhow::Result<()> {
    let script = crate::root().join("crates/receipt/testdata/verify-by-hand.sh");
    let deployment = world.folder.join("deployment.json");
    say("the same with OpenSSL and Python's standard library alone: crates/receipt/testdata/verify-by-hand.sh");
    let output = Command::new("sh").arg(script).args([receipt, &deployment]).arg(world.deployment.ca_pin()).output().context("sh")?;
    let told = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "by hand it does not verify: {told}{}", String::from_utf8_lossy(&output.stderr));
    check(&format!("{} checks by foreign tools hold", told.lines().filter(|line| line.starts_with("ok:")).count()));
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
