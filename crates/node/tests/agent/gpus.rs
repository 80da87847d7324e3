//! GPUs from their driver's specification to the statement, with device nodes behind which there is no driver: untested on a
//! real GPU.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use vocabulary::isolation::LayerVerdict;
use vocabulary::job::{ExitReason, JobState};

use crate::life::statement;
use crate::world::{World, until};

/// Two cards of a machine, with numbers that no real card has, and the program that cleans them.
fn machine(place: &Path) -> node::GpuOptions {
    let node = |name: &str, minor: u32| {
        let path = place.join(name);
        let device = rustix::fs::makedev(195, minor);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o600), device).unwrap();
        json!({"path": format!("/dev/{name}"), "hostPath": path})
    };
    let card = |name: &str, minor: u32| json!({"name": name, "containerEdits": {"deviceNodes": [node(&format!("nvidia{minor}"), minor)]}});
    let spec = json!({
        "cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [card("0", 200), card("1", 201)],
        "containerEdits": {
            "deviceNodes": [node("nvidiactl", 255)],
            "mounts": [{"hostPath": "/usr/lib/os-release", "containerPath": "/usr/lib/x/libcuda.so.550.1", "options": ["ro", "nosuid", "nodev", "bind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/touch", "args": ["touch", place.join("hooked")]}],
        },
    });
    let cdi = place.join("cdi");
    std::fs::create_dir(&cdi).unwrap();
    std::fs::write(cdi.join("nvidia.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let (scrub, place) = (place.join("scrub"), place.display());
    std::fs::write(&scrub, format!("#!/bin/sh\necho \"$1\" >> {place}/cleaned\n[ \"$1\" != \"$(cat {place}/broken 2>/dev/null)\" ]\n")).unwrap();
    std::fs::set_permissions(&scrub, std::fs::Permissions::from_mode(0o755)).unwrap();
    node::GpuOptions { cdi: vec![cdi], scrub: Some(scrub) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_belongs_to_one_job_and_is_cleaned_between_two() {
    let world = World::new().await;
    let place = tempfile::tempdir().unwrap();
    let mut options = world.options();
    options.gpus = machine(place.path());
    let agent = world.start_with(options.clone());
    in_service(&world, 2).await;
    let asks = |script: &str, gpus: u32| {
        let mut job = world.job(script);
        (job.spec.gpus, job.spec.limits.grace_ms) = (gpus, 100);
        job
    };
    let cleaned = || std::fs::read_to_string(place.path().join("cleaned")).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let (zero, one) = ("nvidia.com/gpu=0", "nvidia.com/gpu=1");
    assert_eq!(cleaned(), [zero, one], "before anybody has them");
    // More than there are is refused by name, and nothing is given.
    let many = asks("true", 3);
    world.plane.plan(vec![many.clone()]);
    let exit = world.ends(many.attempt).await.exit.unwrap();
    assert!(exit.reason == ExitReason::Create && exit.detail.contains("gpus: the job asks for 3, this node has 2 in service"), "{exit:?}");
    // Two jobs at once have one each.
    let wait = "ls /dev/nvidia2*; cat /usr/lib/x/libcuda.so.1 | grep -c ^ID=; cat /dev/nvidia2*; sleep 600";
    let pair = [asks(wait, 1), asks(wait, 1)];
    world.plane.plan(vec![many.clone(), pair[0].clone(), pair[1].clone()]);
    for job in &pair {
        world.logged(job.attempt, "No such device or address").await;
    }
    let third = asks("true", 1);
    world.plane.plan(vec![many.clone(), pair[0].clone(), pair[1].clone(), third.clone()]);
    let exit = world.ends(third.attempt).await.exit.unwrap();
    assert!(exit.reason == ExitReason::Create && exit.detail.contains("gpus: the job asks for 1, 0 are free and clean"), "{exit:?}");
    std::fs::write(place.path().join("broken"), one).unwrap();
    world.plane.plan(vec![many.clone(), third.clone()]);
    let mut seen = Vec::new();
    for job in &pair {
        let exit = world.ends(job.attempt).await.exit.unwrap();
        let statement = statement(&world, job.attempt);
        let layer = statement.isolation.layers.iter().find(|layer| layer.name == "gpu").unwrap().clone();
        assert_eq!(layer.verdict, LayerVerdict::Held, "{layer:?}");
        assert!(layer.observed.contains("cleaned by sha256:") && layer.observed.contains("/dev/nvidiactl 195:255"), "{layer:?}");
        // The receipt of the one whose GPU could not be cleaned says so.
        let mine = if layer.observed.starts_with(one) { one } else { zero };
        assert_eq!(exit.detail.contains("nvidia.com/gpu=1 could not be cleaned and is out of service"), mine == one, "{exit:?}");
        let log = world.plane.log_text(job.attempt);
        let own = if mine == one { "/dev/nvidia201" } else { "/dev/nvidia200" };
        assert_eq!(log.lines().filter(|line| line.starts_with("/dev/nvidia")).collect::<Vec<_>>(), [own], "{log}");
        assert!(log.contains("1\n") && log.contains("No such device or address"), "{log}");
        seen.push(mine);
    }
    seen.sort_unstable();
    assert_eq!(seen, [zero, one], "each job had its own");
    let mut again = cleaned();
    again.sort();
    assert_eq!(again, [zero, zero, one, one]);
    in_service(&world, 1).await;
    agent.stop().await;
    // An agent that starts again tries once more.
    std::fs::remove_file(place.path().join("broken")).unwrap();
    let agent = world.start_with(options);
    in_service(&world, 2).await;
    let last = asks("cat /dev/nvidia201; true", 2);
    world.plane.plan(vec![many, third, last.clone()]);
    assert_eq!(world.ends(last.attempt).await.state, JobState::Exited);
    assert_eq!(statement(&world, last.attempt).isolation.layers.iter().filter(|layer| layer.name == "gpu").count(), 2);
    assert!(!place.path().join("hooked").exists(), "no hook ever ran");
    agent.stop().await;
}

async fn in_service(world: &World, wanted: u32) {
    until("the GPUs in service", || world.plane.look(|facts| facts.reports.last().is_some_and(|report| report.facts.gpus == wanted)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_program_that_cleans_or_with_a_hostile_specification_none_is_offered() {
    let world = World::new().await;
    let place = tempfile::tempdir().unwrap();
    let whole = machine(place.path());
    let mut options = world.options();
    for round in 0..2 {
        options.gpus = whole.clone();
        if round == 0 {
            options.gpus.scrub = None;
        } else {
            let hostile = json!({"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "9", "containerEdits": {"deviceNodes": [{"path": "/dev/sda"}]}}]});
            std::fs::write(place.path().join("cdi/z.json"), hostile.to_string()).unwrap();
        }
        let agent = world.start_with(options.clone());
        let mut job = world.job("true");
        job.spec.gpus = 1;
        world.plane.plan(vec![job.clone()]);
        let exit = world.ends(job.attempt).await.exit.unwrap();
        assert!(exit.reason == ExitReason::Create && exit.detail.contains("this node has 0 in service"), "{exit:?}");
        agent.stop().await;
    }
    // A program that others may change keeps the agent from starting.
    options.gpus = whole;
    std::fs::set_permissions(place.path().join("scrub"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = node::run(options, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("root owns and nobody else may change"), "{refused}");
}
