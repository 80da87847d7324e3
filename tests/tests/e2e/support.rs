//! A support bundle of a deployment in which a canary lies in every place where a secret, a name or data lies: none is in it.

use std::io::Read as _;
use std::path::Path;

use e2e::leak::{Canary, found};
use e2e::{World, text};
use serde_json::Value;

/// Every member of a bundle: name and bytes.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap());
    let mut members = Vec::new();
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let (name, mut bytes) = (member.path().unwrap().display().to_string(), Vec::new());
        member.read_to_end(&mut bytes).unwrap();
        members.push((name, bytes));
    }
    members
}

/// What is in a bundle that must not be.
fn leaks(members: &[(String, Vec<u8>)], canaries: &[Canary]) -> Vec<String> {
    members.iter().flat_map(|(name, bytes)| found(&[name.as_bytes(), b"\n", bytes].concat(), canaries).into_iter().map(move |found| format!("{name}: {found}"))).collect()
}

/// The document of a member.
fn document(members: &[(String, Vec<u8>)], name: &str) -> Value {
    let (_, bytes) = members.iter().find(|(member, _)| member.ends_with(&format!("/{name}"))).unwrap_or_else(|| panic!("no {name}"));
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_bundle_tells_how_a_deployment_does_and_nothing_that_is_in_it() {
    let mut world = World::with_image().unwrap();
    let canaries = plant(&mut world);
    let data = world.deployment.data();
    let (server, node) = (data.join("server"), data.join("node"));
    // A log in which everything stands that a log must never hold.
    let lines = hostile_log(&canaries);
    let log = world.file("hostile.log", &lines).unwrap();
    assert_eq!(found(&lines, &canaries).iter().filter(|line| line.ends_with(", raw")).count(), canaries.len(), "each is in the log");
    let bundle = |to: &Path, more: &[&str]| {
        let fixed = ["-o", "json", "support", "bundle", "--to", text(to).unwrap(), "--server-dir", text(&server).unwrap(), "--node-dir", text(&node).unwrap()];
        let mut command = world.operator.command(&[&fixed[..], more].concat());
        // What the environment of whoever makes it holds is told as little.
        let output = command.env("SWARM_DATABASE", "postgres://swarm:canary-of-the-database-url@db.canary.example/swarm").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        (printed, members(to))
    };

    let running = world.folder().join("running.tar.zst");
    let (printed, running_members) = bundle(&running, &["--log", text(&log).unwrap(), "--log", text(&data.join("log/server.log")).unwrap(), "--log", text(&data.join("log/node.log")).unwrap()]);
    assert_eq!(leaks(&running_members, &canaries), Vec::<String>::new(), "the bundle leaks");
    // What is printed is the manifest, and the file's name, which whoever typed it knows.
    let mut told = printed.clone();
    told.as_object_mut().unwrap().remove("file").unwrap();
    assert_eq!(found(told.to_string().as_bytes(), &canaries), Vec::<String>::new());
    // The check is one: whatever leaks, in whatever form, it finds.
    let clean = running_members.iter().find(|(name, _)| name.ends_with("/clock.json")).unwrap();
    for canary in &canaries {
        for (form, bytes) in canary.forms() {
            let leaking = [(clean.0.clone(), [&clean.1, bytes.as_slice()].concat())];
            assert!(!leaks(&leaking, std::slice::from_ref(canary)).is_empty(), "{}, {form}, would not be found", canary.what);
        }
    }

    // It tells what it is for.
    let manifest = document(&running_members, "manifest.json");
    assert_eq!(manifest["files"].as_array().unwrap().len() + 1, running_members.len());
    assert_eq!(printed["files"], manifest["files"]);
    let facts = document(&running_members, "server.json");
    assert_eq!((&facts["checkpoint"]["verdict"], &facts["seal"]["kind"]), (&"verified".into(), &"passphrase".into()), "{facts}");
    assert!(facts["database"]["whole"] == true && facts["database"]["entries"].as_u64().unwrap() > 10, "{facts}");
    assert_eq!(document(&running_members, "server-process.json")["running"], true);
    assert_eq!(document(&running_members, "server-settings.json")["opened_by"], "supervisor");
    let node_facts = document(&running_members, "node.json");
    assert_eq!((&node_facts["state"], &node_facts["plan"]), (&"joined".into(), &"verified".into()), "{node_facts}");
    assert!(running_members.iter().any(|(name, bytes)| name.ends_with("log-1.jsonl") && String::from_utf8_lossy(bytes).contains("the log was not published")));

    // The same of one that is down; and looking changed nothing.
    world.deployment.stop().unwrap();
    let seen = |folder: &Path| -> Vec<(std::ffi::OsString, u64)> {
        let mut seen: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
        seen.sort();
        seen
    };
    let before = (seen(&server), seen(&node));
    let (_, down_members) = bundle(&world.folder().join("down.tar.zst"), &[]);
    assert_eq!((seen(&server), seen(&node)), before, "a bundle only reads");
    assert_eq!(leaks(&down_members, &canaries), Vec::<String>::new(), "the bundle of a stopped deployment leaks");
    let facts = document(&down_members, "server.json");
    assert_eq!((&facts["checkpoint"]["verdict"], &facts["database"]["whole"]), (&"verified".into(), &true.into()), "{facts}");
    assert_eq!(document(&down_members, "server-process.json")["running"], false);
    world.close().unwrap();
}

/// Puts a canary into every place, and gives them all.
fn plant(world: &mut World) -> Vec<Canary> {
    let mut canaries = vec![
        Canary::new("password", "a long password of the tests"),
        Canary::new("passphrase", "correct horse battery staple"),
        Canary::new("authenticator's secret", world.admin.secret().unwrap()),
        Canary::new("password in a database's URL", "canary-of-the-database-url"),
        Canary::new("host of a database", "db.canary.example"),
    ];
    let mut add = |what: &str, text: &str| canaries.push(Canary::new(what, text));
    let (first, second) = (world.admin.code().unwrap(), world.admin.code().unwrap());
    let shell = &world.tenant;
    let confirmed = |arguments: &[&str], code: &str| shell.typed_with(arguments, &format!("{code}\n")).unwrap().ok().unwrap().json().unwrap();
    // Names of people, tenants, projects, volumes.
    world.operator.typed(&["tenant", "create", "canary-hospital.example", "--admin", "admin"]).unwrap().ok().unwrap();
    add("tenant's name", "canary-hospital.example");
    shell.typed(&["project", "create", "canary-project-of-oncology"]).unwrap().ok().unwrap();
    add("project's name", "canary-project-of-oncology");
    let invited = confirmed(&["-o", "json", "user", "create", "zoe.canary@hospital.example", "--role", "viewer"], &first);
    add("person's name", "zoe.canary@hospital.example");
    add("ticket", invited["ticket"].as_str().unwrap());
    let token = confirmed(&["-o", "json", "token", "create", "canary-token-note"], &second);
    add("token", token["token"].as_str().unwrap());
    add("token's note", "canary-token-note");
    let volume = world.volume("canary-patients").unwrap();
    add("volume's name", "canary-patients");
    add("volume's id", &volume);
    // Secrets of jobs, credentials of registries, data, names of files.
    for (name, uses, value) in [("canary-secret-name", "job", "canary value of a job's secret"), ("canary-registry", "pull", "robot:canary password of the registry")] {
        shell.typed_with(&["secret", "create", name, "--project", e2e::PROJECT, "--for", uses], &format!("{value}\n")).unwrap().ok().unwrap();
        add("secret's name", name);
        add("secret's value", value);
    }
    let data = world.folder().join("canary data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("canary file näme.csv"), "canary row of a patient;1;2\n").unwrap();
    shell.typed(&["volume", "put", "canary-patients", text(&data).unwrap()]).unwrap().ok().unwrap();
    add("file's name", "canary file näme.csv");
    add("data", "canary row of a patient");
    let job = world.submit(&["--input", "canary-patients", "--secret", "canary-secret-name"], "echo canary line of a log").unwrap();
    world.wait_for_state(&job, &["exited", "failed"], std::time::Duration::from_secs(120)).unwrap();
    add("job's id", &job);
    add("job's output", "canary line of a log");
    add("folder", text(world.folder()).unwrap());
    let record: Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join("server/endpoints.json")).unwrap()).unwrap();
    add("pin", record["ca_pin"].as_str().unwrap());
    for (file, field) in [("node/record-key.json", "seed"), ("node/tls.json", "key"), ("node/node.json", "node"), ("node/node.json", "deployment")] {
        let document: Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join(file)).unwrap()).unwrap();
        add(&format!("{field} in {file}"), document[field].as_str().unwrap());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    // A host may be called by a word that stands everywhere; most are not.
    if host.trim().len() >= 8 {
        add("host's name", host.trim());
    }
    canaries
}

/// A log that tells every canary: as text, as values, as messages, as modules, as half a line.
fn hostile_log(canaries: &[Canary]) -> Vec<u8> {
    let mut log = Vec::new();
    for canary in canaries {
        let raw = canary.forms().remove(0).1;
        let mut line = |parts: &[&[u8]]| {
            log.extend(parts.concat());
            log.push(b'\n');
        };
        line(&[&raw]);
        line(&[b"2026-11-25T14:30:28.000000Z ERROR control::publisher: the log was not published error=", &raw]);
        line(&[b"2026-11-25T14:30:28.000000Z  WARN ", &raw, b": ", &raw]);
        if let Ok(told) = String::from_utf8(raw) {
            let fields = serde_json::json!({ "message": told, "error": told });
            line(&[serde_json::json!({ "timestamp": "2026-11-25T14:30:28.000000Z", "level": "INFO", "target": told, "fields": fields }).to_string().as_bytes()]);
        }
    }
    log
}
