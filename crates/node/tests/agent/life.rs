//! A job from its plan to its statement, and the ways in which it is told to end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use receipt::envelope::{Envelope, IN_TOTO, InToto, PublicKey};
use receipt::{Statement, VolumeUse};
use vocabulary::job::{AttemptId, ExitReason, JobState};
use vocabulary::plan::Desired;
use vocabulary::runtime::Runtime;

use crate::plane::{DEPLOYMENT, Fault, NODE, TENANT};
use crate::world::{World, input, output, until};

/// The one statement of an attempt, verified under the record key that the node showed when it joined.
pub(crate) fn statement(world: &World, attempt: AttemptId) -> Statement {
    let (key, sent) = world.plane.look(|facts| {
        let sent: Vec<_> = facts.statements.iter().filter(|(of, _)| *of == attempt).map(|(_, text)| text.clone()).collect();
        (*facts.record_key.unwrap().as_bytes(), sent)
    });
    assert_eq!(sent.len(), 1, "one statement");
    let envelope: Envelope = serde_json::from_slice(&STANDARD.decode(&sent[0]).unwrap()).unwrap();
    let whole: InToto<Statement> = envelope.verify(IN_TOTO, &PublicKey::Ed25519(&key)).unwrap();
    assert_eq!(whole, whole.predicate.in_toto());
    whole.predicate
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reads_a_volume_and_writes_another() {
    let world = World::new().await;
    let agent = world.start();
    let data = world.volume(&[("a/one", b"the first\n"), ("two", b"the second\n")]).await;
    let code = world.volume(&[("run", b"#!/bin/sh\necho from $(pwd)\n")]).await;
    let model = world.volume(&[]).await;
    let mut job = world.job(
        "cat /inputs/data/a/one /inputs/data/two > /outputs/model/both && ./run && mkdir /outputs/model/deep && echo $FROM > /outputs/model/deep/env \
         && id && echo oops >&2 && ! touch /inputs/data/x && touch /scratch/home/y && echo done",
    );
    job.spec.inputs = vec![input(data, "data"), input(code, "code")];
    job.spec.outputs = vec![output(model, "model")];
    let attempt = job.attempt;
    world.plane.plan(vec![job.clone()]);
    let report = world.ends(attempt).await;
    let log = world.plane.log_text(attempt);
    assert_eq!(report.state, JobState::Exited, "{report:?}\n{log}");
    assert_eq!(report.exit.as_ref().unwrap().reason, ExitReason::Completed);
    assert!(log.contains("from /code\n") && log.contains("uid=1000") && log.contains("oops\n") && log.contains("done\n"), "{log}");
    // What was written is what comes out again.
    let files = world.opened(model).await;
    assert_eq!(files["both"], b"the first\nthe second\n");
    assert_eq!(files["deep/env"], b"image\n");
    // The statement binds what went in and out.
    let told = statement(&world, attempt);
    assert_eq!((told.deployment, told.node, told.tenant), (DEPLOYMENT, NODE, TENANT));
    assert_eq!((told.image, &told.command), (job.spec.image, &job.spec.command));
    assert_eq!(told.run_lease, job.run_lease);
    let head = |volume| world.plane.look(|facts| facts.volumes[&volume].head.clone());
    let uses = |uses: &[VolumeUse]| uses.iter().map(|used| (used.volume, used.head.clone(), used.record.is_some())).collect::<Vec<_>>();
    assert_eq!(uses(&told.inputs), [(data, head(data), true), (code, head(code), true)]);
    assert_eq!(uses(&told.outputs), [(model, head(model), true)]);
    assert_eq!(head(model).seq, 1);
    assert!(told.isolation.missing().is_empty() && told.isolation.layers.len() > 5);
    let reported = world.plane.look(|facts| facts.reports.iter().flat_map(|report| &report.attempts).find_map(|report| report.isolation.clone()));
    assert_eq!(reported.as_ref(), Some(&told.isolation));
    assert_eq!(told.log_frames_lost, 0);
    let facts = world.plane.look(|facts| facts.reports.last().unwrap().facts.clone());
    assert_eq!(facts.features.get("fscrypt").map(String::as_str), Some("yes"), "{facts:?}");
    world.nothing_left(attempt).await;
    // The plan still names the attempt: it is not begun again.
    let fetched = world.plane.look(|facts| facts.blob_fetches);
    let other = world.job("echo second");
    world.plane.plan(vec![job, other.clone()]);
    world.ends(other.attempt).await;
    assert_eq!(world.plane.look(|facts| facts.statements.len()), 2);
    assert_eq!(world.plane.look(|facts| facts.blob_fetches), fetched, "the image is cached");
    // Once no plan names it, nothing is remembered of it.
    world.plane.plan(vec![other]);
    until("forgetting", || (!world.dir.join("attempts").join(attempt.to_string()).exists()).then_some(())).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_the_runtime_that_it_asks_for_or_is_refused_by_name() {
    let world = World::new().await;
    let mut options = world.options();
    options.runtimes = vec![(Runtime::Runc, "/usr/sbin/runc".into())];
    let agent = world.start_with(options);
    let asks = |runtime: Option<Runtime>| {
        let mut job = world.job("echo ran");
        job.spec.runtime = runtime;
        job
    };
    let (plain, runc, kata) = (asks(None), asks(Some(Runtime::Runc)), asks(Some(Runtime::Kata)));
    world.plane.plan(vec![plain.clone(), runc.clone(), kata.clone()]);
    for job in [&plain, &runc] {
        let report = world.ends(job.attempt).await;
        assert_eq!(report.exit.as_ref().unwrap().reason, ExitReason::Completed, "{report:?}");
        assert_eq!(world.plane.log_text(job.attempt), "ran\n");
    }
    let exit = world.ends(kata.attempt).await.exit.unwrap();
    assert!(exit.reason == ExitReason::Create && exit.detail.contains("runtime: the job asks for kata, this node does not offer it"), "{exit:?}");
    // What the node offers is what the statement shows: version and digest of the very program.
    let offers = world.plane.look(|facts| facts.reports.last().unwrap().facts.runtimes.clone());
    assert_eq!(offers.iter().map(|offer| offer.runtime).collect::<Vec<_>>(), [Runtime::Youki, Runtime::Runc]);
    let program = std::fs::read("/usr/sbin/runc").unwrap();
    assert_eq!(offers[1].digest, Some(vocabulary::Sha256Digest::from_bytes(keys::derive::sha256(&[&program]))));
    for (job, offer) in [(&plain, &offers[0]), (&runc, &offers[1])] {
        assert_eq!(statement(&world, job.attempt).isolation.runtime.as_ref(), Some(offer));
    }
    agent.stop().await;
    // A program that was named and is none keeps the agent from starting.
    let mut options = world.options();
    options.runtimes = vec![(Runtime::Crun, "/bin/true".into())];
    let refused = node::run(options, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("does not call itself crun"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_it_ends_is_told() {
    let world = World::new().await;
    let agent = world.start();
    let out = world.volume(&[]).await;
    let fails = {
        let mut job = world.job("echo x > /outputs/out/x; exit 3");
        job.spec.outputs = vec![output(out, "out")];
        job
    };
    let network = {
        let mut job = world.job("true");
        job.spec.network = true;
        job
    };
    let slow = {
        let mut job = world.job("sleep 100");
        job.spec.limits.time_ms = 300;
        job
    };
    world.plane.plan(vec![fails.clone(), network.clone(), slow.clone()]);
    let exit = world.ends(fails.attempt).await.exit.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Failed, Some(3)));
    // Only a program that ended well has its outputs sealed.
    assert_eq!(world.plane.look(|facts| facts.volumes[&out].head.seq), 0);
    assert!(statement(&world, fails.attempt).outputs.is_empty());
    let report = world.ends(network.attempt).await;
    assert_eq!((report.state, report.isolation), (JobState::Failed, None));
    assert!(world.plane.look(|facts| facts.statements.iter().all(|(attempt, _)| *attempt != network.attempt)), "no sandbox, no statement");
    let exit = report.exit.unwrap();
    assert!(exit.reason == ExitReason::Create && exit.detail.contains("network: not built yet"), "{exit:?}");
    assert_eq!(world.ends(slow.attempt).await.exit.unwrap().reason, ExitReason::Timeout);
    for job in [&fails, &network, &slow] {
        world.nothing_left(job.attempt).await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_are_no_files_are_refused_with_their_path() {
    let world = World::new().await;
    let agent = world.start();
    let out = world.volume(&[]).await;
    let mut job = world.job("mkdir /outputs/out/d && ln -s /etc/passwd /outputs/out/d/link");
    job.spec.outputs = vec![output(out, "out")];
    world.plane.plan(vec![job.clone()]);
    let report = world.ends(job.attempt).await;
    let exit = report.exit.unwrap();
    assert_eq!((report.state, exit.reason, exit.code), (JobState::Failed, ExitReason::Output, Some(0)));
    assert!(exit.detail.contains("`/outputs/out/d/link` is no regular file"), "{}", exit.detail);
    assert_eq!(world.plane.look(|facts| facts.commits), 0);
    world.nothing_left(job.attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_taken_away_and_cut_off_from_their_keys() {
    let world = World::new().await;
    let agent = world.start();
    let data = world.volume(&[("a", b"secret")]).await;
    let mut jobs: Vec<_> = (0..3).map(|_| world.job("trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done")).collect();
    jobs[2].spec.inputs = vec![input(data, "data")];
    world.plane.plan(jobs.clone());
    for job in &jobs {
        world.logged(job.attempt, "up").await;
    }
    let (cancelled, taken, revoked) = (jobs[0].attempt, jobs[1].attempt, jobs[2].attempt);
    jobs[0].desired = Desired::Cancel;
    jobs[2].desired = Desired::RevokeKeys;
    // The second is not in the plan any more.
    world.plane.plan(vec![jobs[0].clone(), jobs[2].clone()]);
    for (attempt, reason) in [(cancelled, ExitReason::Cancelled), (taken, ExitReason::Evicted), (revoked, ExitReason::KeyRevoked)] {
        let exit = world.ends(attempt).await.exit.unwrap();
        assert_eq!(exit.reason, reason, "{exit:?}");
        assert_eq!(statement(&world, attempt).exit.reason, reason);
        world.nothing_left(attempt).await;
    }
    // A stop leaves time to say good-bye, a revoked key does not.
    assert!(world.plane.log_text(cancelled).contains("bye") && world.plane.log_text(taken).contains("bye"));
    assert!(!world.plane.log_text(revoked).contains("bye"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_control_plane_a_job_lives_as_long_as_its_lease() {
    let world = World::new().await;
    world.plane.look(|facts| facts.run_lease_ms = Some(6_000));
    let agent = world.start();
    let job = world.job("echo up; while true; do sleep 0.1; done");
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "up").await;
    world.plane.set_fault(Fault::Unavailable);
    let ended = world.dir.join("jobs").join(job.attempt.to_string()).join("exit.json");
    until("the end by the lease", || ended.exists().then_some(())).await;
    world.plane.set_fault(Fault::None);
    let exit = world.ends(job.attempt).await.exit.unwrap();
    assert_eq!(exit.reason, ExitReason::LeaseEnded, "{exit:?}");
    world.nothing_left(job.attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_heard_is_told_when_the_control_plane_is_back() {
    let world = World::new().await;
    let agent = world.start();
    let out = world.volume(&[]).await;
    let mut job = world.job("echo up; sleep 1; echo kept > /outputs/out/file; echo last");
    job.spec.outputs = vec![output(out, "out")];
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "up").await;
    world.plane.set_fault(Fault::Silent);
    let ended = world.dir.join("jobs").join(job.attempt.to_string()).join("exit.json");
    until("the end of the program", || ended.exists().then_some(())).await;
    assert_eq!(world.plane.look(|facts| facts.commits), 0);
    world.plane.set_fault(Fault::None);
    assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Completed);
    assert!(world.plane.log_text(job.attempt).ends_with("last\n"));
    assert_eq!(world.opened(out).await["file"], b"kept\n");
    statement(&world, job.attempt);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_ends_with_the_run_lease() {
    let world = World::new().await;
    world.plane.look(|facts| facts.run_lease_ms = Some(7_000));
    let agent = world.start();
    let out = world.volume(&[]).await;
    let mut job = world.job("echo x > /outputs/out/x");
    job.spec.outputs = vec![output(out, "out")];
    world.plane.set_fault(Fault::NoWrites);
    world.plane.plan(vec![job.clone()]);
    until("sealing", || world.plane.last(job.attempt).filter(|report| report.state == JobState::Sealing)).await;
    // From here on nothing is renewed any more.
    world.plane.set_fault(Fault::Unavailable);
    let record = world.dir.join("attempts").join(job.attempt.to_string()).join("record.json");
    until("giving up", || std::fs::read_to_string(&record).ok()?.contains("run lease ended before").then_some(())).await;
    world.plane.set_fault(Fault::None);
    let exit = world.ends(job.attempt).await.exit.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Output, Some(0)), "{exit:?}");
    assert_eq!(world.plane.look(|facts| facts.volumes[&out].head.seq), 0);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_attempts_that_want_one_image_fetch_it_once() {
    let world = World::new().await;
    let jobs: Vec<_> = (0..3).map(|_| world.job("echo hello")).collect();
    world.plane.plan(jobs.clone());
    let agent = world.start();
    for job in &jobs {
        assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Completed);
    }
    assert_eq!(world.plane.look(|facts| facts.blob_fetches), 3, "manifest, config and layer");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_agent_takes_its_jobs_along() {
    let world = World::new().await;
    let mut options = world.options();
    options.drain_on_stop = true;
    let agent = world.start_with(options);
    let job = world.job("trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done");
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "up").await;
    agent.stop().await;
    assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Evicted);
    statement(&world, job.attempt);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ends_leaves_nothing_while_another_lives() {
    let world = World::new().await;
    let agent = world.start();
    let first = world.job("trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done");
    world.plane.plan(vec![first.clone()]);
    world.logged(first.attempt, "up").await;
    // The shim of the second is started while the scratch of the first is mounted.
    let second = world.job("trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done");
    world.plane.plan(vec![first.clone(), second.clone()]);
    world.logged(second.attempt, "up").await;
    world.plane.plan(vec![second.clone()]);
    world.ends(first.attempt).await;
    let scratch = world.dir.join("attempts").join(first.attempt.to_string());
    until("the first one's mounts and loop devices to go", || {
        let left = runtime::leftovers::find(world.group.name(), &world.dir).ok()?;
        let named = |path: &std::path::Path| path.starts_with(&scratch);
        let of_first = left.iter().any(|left| match left {
            runtime::leftovers::Leftover::Mount(path) => named(path),
            runtime::leftovers::Leftover::LoopDevice { file, .. } => named(file),
            runtime::leftovers::Leftover::Cgroup(path) => path.ends_with(first.attempt.to_string()),
            runtime::leftovers::Leftover::Shim { directory, .. } => directory.ends_with(first.attempt.to_string()),
        });
        (!of_first).then_some(())
    })
    .await;
    world.plane.plan(Vec::new());
    world.ends(second.attempt).await;
    world.nothing_left(second.attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_attempt_waits_until_the_older_one_is_gone() {
    let world = World::new().await;
    let agent = world.start();
    let first = world.job("trap 'sleep 0.5; echo out; exit 0' TERM; echo up; while true; do sleep 0.1; done");
    world.plane.plan(vec![first.clone()]);
    world.logged(first.attempt, "up").await;
    let mut second = first.clone();
    second.attempt.attempt = 2;
    second.spec.command = ["sh", "-c", "echo second"].map(str::to_owned).to_vec();
    world.plane.plan(vec![second.clone()]);
    let report = world.ends(second.attempt).await;
    assert_eq!(report.exit.unwrap().reason, ExitReason::Completed);
    let ended = world.ends(first.attempt).await.exit.unwrap();
    assert_eq!(ended.reason, ExitReason::Evicted);
    assert!(ended.ended <= statement(&world, second.attempt).exit.started.unwrap(), "never two alive");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_known_before_it_is_reported_leaves_nothing_behind() {
    let world = World::new().await;
    world.plane.look(|facts| {
        facts.acknowledge = false;
        facts.acknowledge_statements = true;
    });
    let agent = world.start();
    for _ in 0..3 {
        let job = world.job("echo hello");
        world.plane.plan(vec![job.clone()]);
        world.ends(job.attempt).await;
        world.nothing_left(job.attempt).await;
    }
    agent.stop().await;
}
