//! Secrets: given to a job in memory of its own, named in its statement, wiped at its end, and nowhere else.

use std::path::{Path, PathBuf};

use vocabulary::SecretId;
use vocabulary::job::{AttemptId, ExitReason, JobSecret, JobState};
use vocabulary::plan::PlannedJob;

use crate::life::statement;
use crate::plane::{Fault, fresh};
use crate::world::{World, until};

const CANARY: &[u8] = b"canary-of-a-hub-token";

fn job_with(world: &World, names: &[&str], script: &str) -> PlannedJob {
    let mut job = world.job(script);
    for name in names {
        let secret = SecretId::from_bytes(fresh(0x5e));
        world.plane.look(|facts| facts.secrets.insert(secret, [CANARY, b"-", name.as_bytes()].concat()));
        job.spec.secrets.push(JobSecret { secret, name: name.parse().unwrap() });
    }
    job
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY)
}

/// Files below a folder that hold the canary.
fn on_disk(folder: &Path, except: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if path == except {
            continue;
        }
        if kind.is_dir() {
            found.extend(on_disk(&path, except));
        } else if kind.is_file() && std::fs::read(&path).is_ok_and(|bytes| holds(&bytes)) {
            found.push(path);
        }
    }
    found
}

fn mount_of(world: &World, attempt: AttemptId) -> PathBuf {
    world.dir.join("attempts").join(attempt.to_string()).join("secrets")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_finds_its_secrets_in_memory_and_nobody_else_does() {
    let world = World::new().await;
    let agent = world.start();
    // What it reads is told by length and last characters, so that the log itself does not hold the value.
    let job = job_with(
        &world,
        &["hub", "tracker"],
        "cd /run/secrets && ls && for name in hub tracker; do echo $name $(wc -c < $name) $(tail -c 3 $name) $(stat -c %a:%u $name); done \
         && ! touch /run/secrets/x && ! rm -f /run/secrets/hub && ! echo x > /run/secrets/hub && grep -c /run/secrets /proc/self/mounts \
         && grep /run/secrets /proc/self/mounts && ! grep -a canary /proc/self/environ && ulimit -c && echo ready && sleep 600",
    );
    let attempt = job.attempt;
    world.plane.plan(vec![job.clone()]);
    world.logged(attempt, "ready").await;
    let log = world.plane.log_text(attempt);
    assert!(log.contains("hub 25 hub 400:1000") && log.contains("tracker 29 ker 400:1000"), "{log}");
    assert!(log.contains("/run/secrets ramfs ro,nosuid,nodev,noexec"), "{log}");
    assert!(log.contains("\n0\nready"), "core files have no size: {log}");

    // Its mount is the only place on this machine where the value lies in a file; no environment or argument has it.
    let mount = mount_of(&world, attempt);
    assert_eq!(on_disk(&world.dir, &mount), Vec::<PathBuf>::new());
    assert_eq!(on_disk(&mount, Path::new("")).len(), 2, "the search finds what is there");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["environ", "cmdline"] {
            assert!(!std::fs::read(entry.path().join(file)).is_ok_and(|bytes| holds(&bytes)), "{}/{file}", entry.path().display());
        }
    }
    assert!(!holds(log.as_bytes()));
    let open = std::fs::File::open(mount.join("files/hub")).unwrap();

    let mut stopped = job.clone();
    stopped.desired = vocabulary::plan::Desired::Cancel;
    world.plane.plan(vec![stopped]);
    assert_eq!(world.ends(attempt).await.exit.unwrap().reason, ExitReason::Cancelled);
    let told = statement(&world, attempt);
    let given: Vec<_> = told.secrets.iter().map(|given| (given.secret, given.name.as_str(), given.version)).collect();
    assert_eq!(given, [(job.spec.secrets[0].secret, "hub", 3), (job.spec.secrets[1].secret, "tracker", 3)]);
    assert!(!holds(&serde_json::to_vec(&told).unwrap()));
    // Whoever held the file open sees zeroes: it was overwritten before it was let go.
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut bytes).unwrap();
    assert_eq!(bytes, vec![0; CANARY.len() + 4]);
    drop(open);
    world.nothing_left(attempt).await;
    assert_eq!(on_disk(&world.dir, Path::new("")), Vec::<PathBuf>::new());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_not_this_attempts_ends_the_job_before_it_starts() {
    for (fault, words) in [(Fault::OtherTenant, "another tenant"), (Fault::OtherRecipient, "does not open")] {
        let world = World::with(|facts| facts.fault = fault).await;
        let agent = world.start();
        let job = job_with(&world, &["hub"], "echo it ran");
        world.plane.plan(vec![job.clone()]);
        let report = world.ends(job.attempt).await;
        let exit = report.exit.unwrap();
        assert_eq!((report.state, exit.reason), (JobState::Failed, ExitReason::Input), "{exit:?}");
        assert!(exit.detail.starts_with("secret `hub`") && exit.detail.contains(words), "{exit:?}");
        world.nothing_left(job.attempt).await;
        agent.stop().await;
    }
    let world = World::new().await;
    let agent = world.start();
    let job = job_with(&world, &["hub"], "echo it ran");
    world.plane.look(|facts| facts.secrets.clear());
    world.plane.plan(vec![job.clone()]);
    assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Input);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_died_leaves_secrets_that_the_next_one_wipes() {
    let world = World::new().await;
    let agent = world.start();
    let job = job_with(&world, &["hub"], "echo ready && sleep 600");
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "ready").await;
    agent.abort().await;
    let mount = mount_of(&world, job.attempt);
    assert_eq!(on_disk(&mount, Path::new("")).len(), 1, "the job lives on and has its secret");
    let agent = world.start();
    world.plane.plan(vec![]);
    until("the removal of the secret", || (!mount.exists()).then_some(())).await;
    world.nothing_left(job.attempt).await;
    agent.stop().await;
}
