//! Power cuts in mid-job: whatever dies, the job is found again and runs once.

use std::time::Duration;

use e2e::{World, id, signal};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(180);

/// The process of a part of `swarm up`, as its record says.
fn part(world: &World, name: &str) -> u32 {
    let record: Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join("run/up.json")).unwrap()).unwrap();
    let parts = record["parts"].as_array().unwrap();
    let process = parts.iter().find(|part| part[0] == name).unwrap_or_else(|| panic!("no {name} in {record}"));
    u32::try_from(process[1]["pid"].as_u64().unwrap()).unwrap()
}

/// Starts a job that takes some seconds, lets `kill` happen while it runs, and checks that it ran once and ended well.
fn job_survives(kill: fn(&mut World)) {
    let mut world = World::with_image().unwrap();
    world.volume("result").unwrap();
    // A second run would leave a second line, and a second commit a second sequence.
    let script = "echo begun >> /outputs/result/begun; sleep 12; echo ended > /outputs/result/ended";
    let job = world.submit(&["--output", "result"], script).unwrap();
    world.wait_for_state(&job, &["running"], LIMIT).unwrap();
    kill(&mut world);
    let ended = e2e::wait_for("the end of the job", LIMIT, || {
        // The server may be away for a moment.
        let Ok(shown) = world.show(&job) else { return Ok(None) };
        Ok(["exited", "failed"].contains(&shown["state"].as_str().unwrap_or("")).then_some(shown))
    });
    let ended = ended.unwrap_or_else(|error| panic!("{error:#}\n{}", world.deployment.log()));
    assert_eq!((&ended["state"], &ended["attempt"]), (&Value::from("exited"), &Value::from(1)), "{ended}");
    assert_eq!(ended["exit"]["reason"], "completed", "{ended}");
    let volume = world.tenant.json(&["volume", "show", "result"]).unwrap();
    assert_eq!(volume["head"]["seq"], 1, "one commit: {volume}");
    let opened = world.folder().join("opened");
    world.tenant.typed(&["volume", "get", "result", e2e::text(&opened).unwrap()]).unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(opened.join("begun")).unwrap(), "begun\n");
    assert_eq!(std::fs::read_to_string(opened.join("ended")).unwrap(), "ended\n");
    let receipt = world.folder().join("receipt.json");
    std::fs::write(&receipt, world.tenant.typed(&["job", "receipt", &id(&ended).unwrap()]).unwrap().ok().unwrap().bytes()).unwrap();
    world.tenant.typed(&["verify", e2e::text(&receipt).unwrap()]).unwrap().ok().unwrap();
    world.close().unwrap();
}

#[test]
fn a_job_survives_the_death_of_the_node_agent() {
    job_survives(|world| {
        let before = part(world, "node");
        signal("KILL", before).unwrap();
        e2e::wait_for("a new agent", LIMIT, || Ok((part(world, "node") != before).then_some(()))).unwrap();
    });
}

#[test]
fn a_job_survives_the_death_of_the_server() {
    job_survives(|world| {
        let before = part(world, "server");
        signal("KILL", before).unwrap();
        e2e::wait_for("a new server", LIMIT, || Ok((part(world, "server") != before).then_some(()))).unwrap();
    });
}

#[test]
fn a_job_survives_the_death_of_everything_but_its_shim() {
    job_survives(|world| {
        world.deployment.kill().unwrap();
        world.deployment.start().unwrap();
    });
}
