//! A control plane that misbehaves: the agent refuses, says why, and goes on.

use vocabulary::job::{ExitReason, JobState};
use vocabulary::plan::PlannedJob;

use crate::plane::Fault;
use crate::world::{World, input, put, until};

/// Runs one job under a fault and gives the reason and the sentence of its end.
async fn fails_under(world: &World, fault: Fault, job: &PlannedJob) -> (ExitReason, String) {
    world.plane.set_fault(fault);
    world.plane.plan(vec![job.clone()]);
    let report = world.ends(job.attempt).await;
    world.plane.set_fault(Fault::None);
    assert_eq!(report.state, JobState::Failed, "{fault:?}: {report:?}");
    world.nothing_left(job.attempt).await;
    let exit = report.exit.unwrap();
    (exit.reason, exit.detail)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_not_ours_changes_nothing() {
    let world = World::new().await;
    let agent = world.start();
    let first = world.job("echo first");
    world.plane.plan(vec![first.clone()]);
    world.ends(first.attempt).await;
    let kept = || std::fs::read(world.dir.join("plan.json")).unwrap();
    let before = kept();
    let never = world.job("echo never");
    for fault in [Fault::PlanSignature, Fault::PlanDeployment, Fault::PlanOlder, Fault::PlanTruncated] {
        world.plane.set_fault(fault);
        world.plane.plan(vec![first.clone(), never.clone()]);
        // It asks again and again, and takes none of the answers.
        let asked = world.plane.look(|facts| facts.followed);
        until("three more tries", || world.plane.look(|facts| facts.followed > asked + 2).then_some(())).await;
        assert_eq!(kept(), before, "{fault:?}");
        assert_eq!(world.plane.last(never.attempt), None, "{fault:?}");
    }
    // With the fault gone the same plan is followed.
    world.plane.set_fault(Fault::None);
    world.ends(never.attempt).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_a_plan_revokes_is_not_talked_to_any_more() {
    let world = World::new().await;
    let agent = world.start();
    let job = world.job("echo up; sleep 1; echo end");
    world.plane.plan(vec![job.clone()]);
    world.logged(job.attempt, "up").await;
    let serial = world.plane.0.serial.clone();
    world.plane.look(|facts| facts.revocations = vocabulary::plan::Revocations { version: 1, nodes: Vec::new(), serials: vec![serial] });
    world.plane.plan(vec![job.clone()]);
    until("refused handshakes", || world.plane.look(|facts| (facts.handshakes_failed > 2).then_some(()))).await;
    let asked = world.plane.look(|facts| facts.followed);
    until("more of them", || world.plane.look(|facts| (facts.handshakes_failed > 4).then_some(()))).await;
    assert_eq!(world.plane.look(|facts| facts.followed), asked);
    // The set is kept with the plan: a restart does not forget it.
    agent.stop().await;
    let failed = world.plane.look(|facts| facts.handshakes_failed);
    let agent = world.start();
    until("refused handshakes after the restart", || world.plane.look(|facts| (facts.handshakes_failed > failed + 1).then_some(()))).await;
    assert_eq!(world.plane.look(|facts| facts.followed), asked);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_not_what_they_should_be_are_refused() {
    let world = World::new().await;
    let agent = world.start();
    for (fault, words) in [(Fault::OtherImage, "the job names"), (Fault::BlobDigest, "another digest"), (Fault::BlobLonger, "more than its"), (Fault::BlobShorter, "of its")] {
        let (reason, detail) = fails_under(&world, fault, &world.job("echo never")).await;
        assert!(reason == ExitReason::Image && detail.contains(words), "{fault:?}: {detail}");
    }
    let mut unknown = world.job("echo never");
    unknown.spec.image = vocabulary::Sha256Digest::from_bytes([9; 32]);
    let (reason, detail) = fails_under(&world, Fault::None, &unknown).await;
    assert!(reason == ExitReason::Image && detail.contains("no such image"), "{detail}");
    // Nothing of it is in the way of an honest try.
    let job = world.job("echo now");
    world.plane.plan(vec![job.clone()]);
    assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Completed);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_are_not_what_they_should_be_are_refused() {
    let world = World::new().await;
    let agent = world.start();
    let data = world.volume(&[("one", b"first"), ("two", b"second")]).await;
    let mut made = world.plane.look(|facts| facts.volumes.remove(&data).unwrap());
    put(&mut made, data, &[("three", b"third")]).await;
    world.plane.look(|facts| facts.volumes.insert(data, made));
    for (fault, words) in [
        (Fault::ObjectsSwapped, "seg/"),
        (Fault::RolledBack, "rolled back"),
        (Fault::OtherVolume, "which was not asked for"),
        (Fault::OtherTenant, "another tenant"),
        (Fault::OtherRecipient, "does not open"),
        (Fault::LeaseRefused, "may not be opened in EU"),
    ] {
        let mut job = world.job("cat /inputs/data/*");
        job.spec.inputs = vec![input(data, "data")];
        let (reason, detail) = fails_under(&world, fault, &job).await;
        assert!(reason == ExitReason::Input && detail.contains("input `data`") && detail.contains(words), "{fault:?}: {detail}");
    }
    // More than the job's scratch holds is refused before a byte of it is opened.
    let mut small = world.job("cat /inputs/data/*");
    small.spec.limits.scratch_bytes = 3;
    small.spec.inputs = vec![input(data, "data")];
    let (_, detail) = fails_under(&world, Fault::None, &small).await;
    assert!(detail.contains("scratch_bytes"), "{detail}");
    let mut job = world.job("cat /inputs/data/*");
    job.spec.inputs = vec![input(data, "data")];
    world.plane.plan(vec![job.clone()]);
    world.ends(job.attempt).await;
    assert_eq!(world.plane.log_text(job.attempt), "firstthirdsecond");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_commit_is_no_second_commit() {
    let world = World::new().await;
    let agent = world.start();
    let out = world.volume(&[("old", b"kept")]).await;
    let mut job = world.job("echo new > /outputs/out/new");
    job.spec.outputs = vec![crate::world::output(out, "out")];
    world.plane.set_fault(Fault::CommitLost);
    world.plane.plan(vec![job.clone()]);
    assert_eq!(world.ends(job.attempt).await.exit.unwrap().reason, ExitReason::Completed);
    let (commits, head) = world.plane.look(|facts| (facts.commits, facts.volumes[&out].head.clone()));
    assert_eq!((commits, head.seq), (1, 2));
    let told = crate::life::statement(&world, job.attempt);
    assert_eq!(told.outputs[0].head, head);
    let files = world.opened(out).await;
    assert_eq!((files["old"].as_slice(), files["new"].as_slice()), (&b"kept"[..], &b"new\n"[..]));
    agent.stop().await;
}
