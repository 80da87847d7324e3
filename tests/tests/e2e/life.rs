//! The whole life of a deployment, as a person types it.

use std::time::Duration;

use e2e::{Group, World, text};
use serde_json::Value;

/// Long for what takes a second or two, as the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Why a job that asks for the label of the second node is placed nowhere. The job is ended then.
fn misfit(world: &World) -> String {
    let job = world.submit(&["--node-label", "disk=fast"], "true").unwrap();
    let misfits = e2e::wait_for("a constraint that failed", LIMIT, || {
        let shown = world.show(&job)?;
        Ok(shown["misfits"].as_array().filter(|misfits| !misfits.is_empty()).map(|misfits| format!("{misfits:?}")))
    })
    .unwrap();
    world.tenant.typed(&["job", "stop", &job]).unwrap().ok().unwrap();
    let ended = world.wait_for_state(&job, &["failed", "exited"], LIMIT).unwrap();
    assert_eq!(ended["exit"]["reason"], "cancelled", "{ended}");
    misfits
}

#[test]
fn data_goes_in_sealed_a_job_runs_and_its_receipt_verifies() {
    let world = World::with_image().unwrap();
    world.volume("patients").unwrap();
    world.volume("result").unwrap();
    let data = world.file("patients.csv", b"age,dose\n41,3\n57,5\n").unwrap();
    world.tenant.typed(&["volume", "put", "patients", text(&data).unwrap()]).unwrap().ok().unwrap();

    let flags = ["--input", "patients", "--output", "result"];
    let run = world.job(&flags, "echo rows; wc -l < /inputs/patients/patients.csv | tee /outputs/result/rows").unwrap().ok().unwrap();
    assert!(run.out().contains('3'), "the job's log is followed: {}{}", run.out(), run.err());
    let opened = world.folder().join("opened");
    world.tenant.typed(&["volume", "get", "result", text(&opened).unwrap()]).unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(opened.join("rows")).unwrap().trim(), "3");

    let job = world.newest_job().unwrap();
    let receipt = world.folder().join("receipt.json");
    std::fs::write(&receipt, world.tenant.typed(&["job", "receipt", &job]).unwrap().ok().unwrap().bytes()).unwrap();
    let verified = world.tenant.typed(&["verify", text(&receipt).unwrap()]).unwrap().ok().unwrap();
    assert!(verified.out().contains("proved") && verified.out().contains("not checked"), "{}", verified.out());
    let mut doctored = std::fs::read(&receipt).unwrap();
    let middle = doctored.len() / 2;
    doctored[middle] ^= 1;
    std::fs::write(&receipt, doctored).unwrap();
    world.tenant.typed(&["verify", text(&receipt).unwrap()]).unwrap().refused(6).unwrap();
    world.tenant.typed(&["audit", "verify"]).unwrap().ok().unwrap();

    // A job's own exit code is passed through, and a job that fits nowhere says why.
    assert_eq!(world.job(&[], "exit 7").unwrap().code(), Some(7));
    let nowhere = misfit(&world);
    assert!(nowhere.contains("local") && nowhere.contains("disk"), "{nowhere}");
    world.close().unwrap();
}

#[test]
fn a_second_node_joins_runs_jobs_and_is_revoked() {
    let mut world = World::with_image().unwrap();
    let second = world.folder().join("second");
    let invite = ["node", "invite", "second", "--region", "local", "--jurisdiction", "LOCAL", "--label", "disk=fast"];
    let token = world.operator.json(&invite).unwrap();
    let token = token["token"].as_str().unwrap().to_owned();
    let file = world.folder().join("join-token");
    e2e::write_private(&file, &token).unwrap();
    let group = Group::new("second");
    let join = [
        "node", "join", world.deployment.url(), "--ca-pin", world.deployment.ca_pin(), "--token-file", text(&file).unwrap(),
        "--node-dir", text(&second).unwrap(), "--cgroup-parent", group.name(), "--id-base", "1887436800", "--stop-jobs",
    ];
    let log = std::fs::File::create(world.folder().join("second.log")).unwrap();
    let mut agent = world.operator.command(&join).stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let log = world.folder().join("second.log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();

    let job = e2e::wait_for("a job on the second node", LIMIT, || {
        let done = world.job(&["--node-label", "disk=fast"], "echo on the second")?;
        Ok(if done.code() == Some(0) { Some(world.newest_job()?) } else { None })
    });
    let job = job.unwrap_or_else(|error| panic!("{error:#}\n{}", said()));
    assert_eq!(world.show(&job).unwrap()["node_name"], Value::from("second"));

    // The token works once.
    let third = world.folder().join("third");
    let mut again = join;
    again[8] = text(&third).unwrap();
    let refusal = world.operator.typed(&again).unwrap();
    assert!(refusal.code() == Some(4) && refusal.err().contains("spent"), "{:?}: {}", refusal.code(), refusal.err());

    // Revoked: its connections are closed, nothing is placed on it, and a confirmation was asked for.
    let code = world.admin.code().unwrap();
    world.operator.typed_with(&["node", "revoke", "second", "--yes"], &format!("{code}\n")).unwrap().ok().unwrap();
    let nodes = world.operator.json(&["node", "list"]).unwrap();
    let state = nodes["items"].as_array().unwrap().iter().find(|node| node["name"] == "second").unwrap()["state"].clone();
    assert_eq!(state, "revoked");
    let nowhere = misfit(&world);
    assert!(nowhere.contains("second") && nowhere.contains("revoked"), "{nowhere}");
    // Its agent says what happened and what to do, instead of complaining about the network.
    e2e::wait_for("the agent to say that it is revoked", LIMIT, || {
        Ok(said()
            .contains("revoked: an operator revoked this node")
            .then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", said()));
    assert!(said().contains("swarm node invite"), "{}", said());
    let _ = e2e::signal("TERM", agent.id());
    e2e::wait_for("the second agent's end", LIMIT, || Ok(agent.try_wait()?)).unwrap();
    world.close().unwrap();
}
