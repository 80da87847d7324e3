//! The agent goes away in the middle and comes back: nothing is lost, and nothing happens twice.

use std::process::{Child, Command};

use vocabulary::job::{ExitReason, JobState};

use crate::life::statement;
use crate::plane::Fault;
use crate::world::{World, input, output, until};

/// The agent as a process of its own, to be killed.
fn process(world: &World) -> Child {
    Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .arg(&world.dir)
        .arg(world.group.name())
        .arg(world.id_base().to_string())
        .arg("8")
        .spawn()
        .unwrap()
}

fn kill(mut agent: Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_finds_its_job_again() {
    let world = World::new().await;
    let data = world.volume(&[("a", b"input")]).await;
    let out = world.volume(&[]).await;
    let mut job = world.job("echo before; for i in $(seq 0 59); do echo line $i; sleep 0.1; done; cat /inputs/data/a > /outputs/out/copy; echo after");
    job.spec.inputs = vec![input(data, "data")];
    job.spec.outputs = vec![output(out, "out")];
    let attempt = job.attempt;
    world.plane.plan(vec![job]);
    let agent = process(&world);
    world.logged(attempt, "line 5").await;
    kill(agent);
    let agent = process(&world);
    let report = world.ends(attempt).await;
    assert_eq!(report.exit.as_ref().unwrap().reason, ExitReason::Completed, "{report:?}");
    // Every line once, in order: none was lost, none came twice.
    let expected: String = std::iter::once("before\n".to_owned()).chain((0..60).map(|n| format!("line {n}\n"))).chain(["after\n".to_owned()]).collect();
    assert_eq!(world.plane.log_text(attempt), expected);
    let told = statement(&world, attempt);
    assert_eq!((told.inputs.len(), told.outputs.len(), told.log_frames_lost), (1, 1, 0));
    assert_eq!(world.opened(out).await["copy"], b"input");
    world.nothing_left(attempt).await;
    kill(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_there_is_one_end_and_one_statement() {
    let world = World::new().await;
    for step in [JobState::Pulling, JobState::Opening, JobState::Creating, JobState::Running, JobState::Sealing, JobState::Exited] {
        let data = world.volume(&[("a", b"input")]).await;
        let out = world.volume(&[]).await;
        let mut job = world.job("cat /inputs/data/a > /outputs/out/copy; echo ran");
        job.spec.inputs = vec![input(data, "data")];
        job.spec.outputs = vec![output(out, "out")];
        let attempt = job.attempt;
        world.plane.look(|facts| facts.acknowledge = step != JobState::Exited);
        world.plane.plan(vec![job]);
        let agent = process(&world);
        let record = world.dir.join("attempts").join(attempt.to_string()).join("record.json");
        let word = serde_json::to_string(&step).unwrap();
        let passed = |text: &str| text.contains(&format!("\"shown\":{word}")) || text.contains("\"phase\":\"gone\"") || text.contains("\"phase\":\"ended\"");
        until("the step", || std::fs::read_to_string(&record).ok().filter(|text| passed(text))).await;
        kill(agent);
        world.plane.look(|facts| facts.acknowledge = true);
        let agent = process(&world);
        let report = world.ends(attempt).await;
        let exit = report.exit.unwrap();
        // A sandbox that was being made is never made again; every other step is.
        let lost = exit.reason == ExitReason::SupervisorLost && step == JobState::Creating;
        assert!(lost || exit.reason == ExitReason::Completed, "{step:?}: {exit:?}");
        if exit.reason == ExitReason::Completed {
            statement(&world, attempt);
            assert_eq!(world.plane.log_text(attempt), "ran\n", "{step:?}");
            assert_eq!(world.plane.look(|facts| facts.volumes[&out].head.seq), 1, "{step:?}");
        }
        world.nothing_left(attempt).await;
        kill(agent);
    }
}

/// The process that supervises an attempt.
fn shim(world: &World, attempt: vocabulary::job::AttemptId) -> rustix::process::Pid {
    let directory = world.dir.join("jobs").join(attempt.to_string()).canonicalize().unwrap();
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        (words.nth(1)? == b"__shim" && words.next()? == directory.as_os_str().as_encoded_bytes()).then_some(pid)
    });
    rustix::process::Pid::from_raw(found.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_catalogue_and_the_commit_the_same_root_is_committed() {
    let world = World::new().await;
    let out = world.volume(&[("old", b"kept")]).await;
    let mut job = world.job("echo new > /outputs/out/new");
    job.spec.outputs = vec![output(out, "out")];
    let attempt = job.attempt;
    world.plane.set_fault(Fault::NoCommits);
    world.plane.plan(vec![job]);
    let agent = process(&world);
    let catalogue = || world.plane.look(|facts| facts.volumes[&out].objects.get("cat/00000000000000000002").cloned());
    let sealed = until("the catalogue", catalogue).await;
    kill(agent);
    world.plane.set_fault(Fault::None);
    let agent = process(&world);
    assert_eq!(world.ends(attempt).await.exit.unwrap().reason, ExitReason::Completed);
    // A name is used once: another catalogue of this sequence would have been refused.
    assert_eq!(catalogue().unwrap(), sealed);
    assert_eq!(world.plane.look(|facts| (facts.commits, facts.volumes[&out].signers.len())), (1, 2));
    assert_eq!(world.opened(out).await.len(), 2);
    statement(&world, attempt);
    world.nothing_left(attempt).await;
    kill(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_machine_the_attempt_has_failed_and_nothing_is_left() {
    let world = World::new().await;
    let agent = world.start();
    let job = world.job("echo up; while true; do sleep 0.1; done");
    let attempt = job.attempt;
    world.plane.plan(vec![job]);
    world.logged(attempt, "up").await;
    agent.stop().await;
    // As after a restart: no process lives, and what was written names another boot.
    rustix::process::kill_process(shim(&world, attempt), rustix::process::Signal::KILL).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = boot.trim().chars().rev().collect::<String>();
    std::fs::write(world.dir.join("jobs").join(attempt.to_string()).join("boot_id"), &other).unwrap();
    let record = world.dir.join("attempts").join(attempt.to_string()).join("record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace(boot.trim(), &other)).unwrap();
    let agent = world.start();
    let exit = world.ends(attempt).await.exit.unwrap();
    assert_eq!(exit.reason, ExitReason::Reboot, "{exit:?}");
    assert_eq!(statement(&world, attempt).exit.reason, ExitReason::Reboot);
    world.nothing_left(attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_without_a_record_is_killed() {
    let world = World::new().await;
    let agent = world.start();
    let job = world.job("echo up; while true; do sleep 0.1; done");
    let attempt = job.attempt;
    world.plane.plan(vec![job]);
    world.logged(attempt, "up").await;
    agent.stop().await;
    std::fs::remove_file(world.dir.join("attempts").join(attempt.to_string()).join("record.json")).unwrap();
    let agent = world.start();
    until("the end of the stranger", || (!world.dir.join("jobs").join(attempt.to_string()).exists()).then_some(())).await;
    // Nobody knows how far it came: it is not begun again although the plan names it, but told to have failed.
    world.plane.look(|facts| facts.revision += 1);
    let exit = world.ends(attempt).await.exit.unwrap();
    assert!(exit.reason == ExitReason::SupervisorLost && exit.detail.contains("never begun twice"), "{exit:?}");
    assert_eq!(world.plane.log_text(attempt), "up\n");
    world.nothing_left(attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shim_is_told_and_never_replaced() {
    let world = World::new().await;
    let agent = world.start();
    let job = world.job("echo up; while true; do sleep 0.1; done");
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "up").await;
    rustix::process::kill_process(shim(&world, job.attempt), rustix::process::Signal::KILL).unwrap();
    let exit = world.ends(job.attempt).await.exit.unwrap();
    assert_eq!(exit.reason, ExitReason::SupervisorLost, "{exit:?}");
    statement(&world, job.attempt);
    world.nothing_left(job.attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_works_from_the_plan_on_its_disk() {
    let world = World::new().await;
    let agent = world.start();
    let job = world.job("echo up; sleep 2; echo end");
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "up").await;
    agent.stop().await;
    // The control plane is away while the agent starts: the job is found, and nothing stops it.
    world.plane.set_fault(Fault::Unavailable);
    let agent = world.start();
    let ended = world.dir.join("jobs").join(job.attempt.to_string()).join("exit.json");
    until("the end of the program", || ended.exists().then_some(())).await;
    world.plane.set_fault(Fault::None);
    assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Completed);
    assert_eq!(world.plane.log_text(job.attempt), "up\nend\n");
    statement(&world, job.attempt);
    // An older plan than the one on the disk is refused after a restart as well.
    let revision = world.plane.look(|facts| facts.revision);
    agent.abort().await;
    world.plane.look(|facts| facts.revision = 0);
    let seen = world.plane.look(|facts| facts.reports.len());
    let agent = world.start();
    until("a report", || world.plane.look(|facts| facts.reports.get(seen).cloned())).await;
    assert!(world.plane.look(|facts| facts.reports[seen..].iter().all(|report| report.plan_revision == revision)));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_nothing_is_made_and_opened_data_goes_with_the_agent() {
    let world = World::new().await;
    let agent = world.start();
    let data = world.volume(&[("a", b"secret")]).await;
    let mut job = world.job("echo up");
    job.spec.inputs = vec![input(data, "data")];
    let attempt = job.attempt;
    world.plane.look(|facts| facts.renews_nothing = true);
    world.plane.plan(vec![job]);
    let scratch = world.dir.join("attempts").join(attempt.to_string()).join("scratch");
    until("opened data", || scratch.join("data/inputs/data/a").exists().then_some(())).await;
    assert!(!world.dir.join("jobs").join(attempt.to_string()).exists());
    agent.stop().await;
    assert!(!scratch.exists());
    assert_eq!(runtime::leftovers::find(world.group.name(), &world.dir).unwrap(), []);
    // With a lease the attempt is begun again, and whole.
    world.plane.look(|facts| facts.renews_nothing = false);
    let agent = world.start();
    let exit = world.ends(attempt).await.exit.unwrap();
    assert_eq!(exit.reason, ExitReason::Completed, "{exit:?}");
    world.nothing_left(attempt).await;
    agent.stop().await;
}
