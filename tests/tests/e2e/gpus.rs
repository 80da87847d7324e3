//! GPUs and runtimes of two nodes, from the request of a tenant to the receipt. The cards have the numbers of a vendor's driver and
//! no driver behind them, and what calls itself kata-runtime is runc: neither a real GPU nor Kata Containers was ever here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Group, World, text};
use serde_json::{Value, json};

/// Long for what takes a second or two, as the machine may be busy.
const LIMIT: Duration = Duration::from_secs(180);
const CARDS: [&str; 2] = ["nvidia.com/gpu=0", "nvidia.com/gpu=1"];

/// A machine with two cards, and the program that cleans them, which cannot clean the one that `broken` names.
struct Machine(PathBuf);

impl Machine {
    fn new(folder: &Path) -> Self {
        let node = |name: &str, minor: u32| {
            let path = folder.join(name);
            let made = Command::new("mknod").args([text(&path).unwrap(), "c", "195", &minor.to_string()]).status().unwrap();
            assert!(made.success());
            json!({"path": format!("/dev/{name}"), "hostPath": path})
        };
        let card = |name: &str, minor: u32| json!({"name": name, "containerEdits": {"deviceNodes": [node(&format!("nvidia{minor}"), minor)]}});
        let spec = json!({
            "cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [card("0", 200), card("1", 201)],
            "containerEdits": {"deviceNodes": [node("nvidiactl", 255)]},
        });
        std::fs::create_dir(folder.join("cdi")).unwrap();
        std::fs::write(folder.join("cdi/nvidia.json"), spec.to_string()).unwrap();
        let (scrub, place) = (folder.join("scrub"), folder.display());
        std::fs::write(&scrub, format!("#!/bin/sh\necho \"$1\" >> {place}/cleaned\n! grep -qx \"$1\" {place}/broken 2>/dev/null\n")).unwrap();
        std::fs::set_permissions(&scrub, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder.to_owned())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// How often a card was cleaned.
    fn cleaned(&self, card: &str) -> usize {
        std::fs::read_to_string(self.0.join("cleaned")).unwrap_or_default().lines().filter(|line| *line == card).count()
    }

    fn breaks(&self, cards: &[&str]) {
        std::fs::write(self.0.join("broken"), cards.join("\n")).unwrap();
    }
}

/// A second node without a GPU, which offers what calls itself Kata.
struct Plain {
    child: Child,
    group: Group,
}

impl Plain {
    fn join(world: &World, kata: &Path) -> Self {
        let token = world.operator.json(&["node", "invite", "plain", "--region", "local", "--jurisdiction", "LOCAL"]).unwrap();
        let file = world.folder().join("plain.token");
        e2e::write_private(&file, token["token"].as_str().unwrap()).unwrap();
        let (dir, group, kata) = (world.folder().join("plain"), Group::new("plain"), format!("kata={}", kata.display()));
        let join = ["node", "join", world.deployment.url(), "--ca-pin", world.deployment.ca_pin(), "--token-file", text(&file).unwrap()];
        let run = ["--node-dir", text(&dir).unwrap(), "--cgroup-parent", group.name(), "--id-base", "1887436800", "--stop-jobs", "--runtime", &kata];
        let log = std::fs::File::create(world.folder().join("plain.log")).unwrap();
        let mut command = world.operator.command(&[&join[..], &run].concat());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, group }
    }

    fn stop(mut self) {
        e2e::signal("TERM", self.child.id()).unwrap();
        e2e::wait_for("the end of an agent", LIMIT, || Ok(self.child.try_wait()?)).unwrap();
        drop(self.group);
    }
}

/// Compiles what says that it is Kata, with or without the commands that its first versions had, and does as runc does.
fn stand_in(folder: &Path, name: &str, commands: &str) -> PathBuf {
    let (source, program) = (folder.join(format!("{name}.c")), folder.join(name));
    let code = format!(
        "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\nint main(int n, char **words) {{\n\
         if (n == 2 && !strcmp(words[1], \"--version\")) return puts(\"kata-runtime  : 0.0-stand-in\") < 0;\n\
         if (n == 2 && !strcmp(words[1], \"--help\")) return puts(\"COMMANDS:\\n{commands}\") < 0;\n\
         execv(\"/usr/sbin/runc\", words);\nreturn 1;\n}}\n"
    );
    std::fs::write(&source, code).unwrap();
    let done = Command::new("cc").args(["-o", text(&program).unwrap(), text(&source).unwrap()]).status().unwrap();
    assert!(done.success());
    program
}

fn node(world: &World, name: &str) -> Value {
    let nodes = world.operator.json(&["node", "list"]).unwrap();
    nodes["items"].as_array().unwrap().iter().find(|node| node["name"] == name).cloned().unwrap_or(Value::Null)
}

fn gpus_of(world: &World, name: &str, wanted: u64) {
    let facts = || node(world, name)["facts"].clone();
    e2e::wait_for("the GPUs of a node", LIMIT, || Ok((facts()["gpus"].as_u64() == Some(wanted)).then_some(()))).unwrap_or_else(|error| panic!("{error:#}: {}", facts()));
}

/// Why a waiting job is on no node: one line for each.
fn misfits(world: &World, job: &str, word: &str) -> String {
    e2e::wait_for(word, LIMIT, || {
        let told = world.show(job)?["misfits"].to_string();
        Ok(told.contains(word).then_some(told))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", world.show(job).unwrap()))
}

fn stopped(world: &World, job: &str) -> Value {
    world.tenant.typed(&["job", "stop", job]).unwrap().ok().unwrap();
    let ended = world.wait_for_state(job, &["failed", "exited"], LIMIT).unwrap();
    assert_eq!(ended["exit"]["reason"], "cancelled", "{ended}");
    ended
}

/// What a receipt proves and says, in words.
fn verified(world: &World, job: &str) -> String {
    let receipt = world.folder().join("receipt.json");
    let fetched = e2e::wait_for("a receipt", LIMIT, || Ok(world.tenant.typed(&["job", "receipt", job])?.ok().ok())).unwrap();
    std::fs::write(&receipt, fetched.bytes()).unwrap();
    world.tenant.typed(&["verify", text(&receipt).unwrap()]).unwrap().ok().unwrap().out()
}

/// Lists its cards and opens them, which fails behind every filter, as no driver is there.
const LOOKS: &str = "trap 'exit 1' TERM; ls /dev | grep nvidia; cat /dev/nvidia2*; echo looked; sleep 600 & wait";
/// Small, so that nothing but GPUs runs short.
const SMALL: [&str; 6] = ["--cpus", "0.1", "--memory", "64MiB", "--scratch", "32MiB"];

#[test]
fn a_gpu_goes_from_the_request_to_the_receipt_and_from_job_to_job_only_clean() {
    let mut world = World::with_image().unwrap();
    let machine = Machine::new(world.folder());
    let (cdi, scrub) = (machine.path("cdi"), machine.path("scrub"));
    let refused = |world: &World, flags: &[&str], word: &str| {
        let told = world.job(flags, "true").unwrap().refused(7).unwrap();
        assert!(told.contains("no_placement") && told.contains(word), "{told}");
    };

    // Nobody offers one: refused by name at once. Not even a node that has some, as long as nothing cleans them.
    refused(&world, &["--gpus", "1"], "no node of this deployment has a GPU");
    world.deployment.stop().unwrap();
    world.deployment.next_arguments(&["--cdi-dir", &cdi]);
    world.deployment.start().unwrap();
    let told = || node(&world, "local")["facts"]["features"]["gpus"].as_str().unwrap_or_default().to_owned();
    e2e::wait_for("the node to say why", LIMIT, || Ok(told().contains("no program that cleans them").then_some(()))).unwrap_or_else(|error| panic!("{error:#}: {}", told()));
    refused(&world, &["--gpus", "1"], "no node of this deployment has a GPU");
    world.deployment.stop().unwrap();
    world.deployment.next_arguments(&["--cdi-dir", &cdi, "--gpu-scrub", &scrub]);
    world.deployment.start().unwrap();
    gpus_of(&world, "local", 2);
    assert_eq!(CARDS.map(|card| machine.cleaned(card)), [1, 1], "before anybody has them");

    // A second node has none, and Kata's place is taken by another program.
    refused(&world, &["--runtime", "kata"], "no node offers runtime `kata`");
    let kata = stand_in(world.folder(), "kata-1", "  create x\\n  start x\\n  kill x\\n  delete x");
    let plain = Plain::join(&world, &kata);
    e2e::wait_for("a second node", LIMIT, || Ok((node(&world, "plain")["state"] == "alive").then_some(()))).unwrap();
    gpus_of(&world, "plain", 0);

    // More than a node has is told for each node. Whoever has more memory to give away, a job with a GPU goes where one is.
    let many = world.submit(&["--gpus", "3"], "true").unwrap();
    let why = misfits(&world, &many, "gpus: 2 of 2 free, the job asks for 3");
    assert!(why.contains("gpus: 0 of 0 free, the job asks for 3"), "{why}");
    stopped(&world, &many);
    let flags = [&SMALL[..], &["--gpus", "1"]].concat();
    let pair = [(); 2].map(|()| world.submit(&flags, LOOKS).unwrap());
    let mut had = Vec::new();
    for job in &pair {
        let shown = world.wait_for_state(job, &["running"], LIMIT).unwrap();
        assert_eq!(shown["node_name"], "local", "{shown}");
        let log = e2e::wait_for("the job to look", LIMIT, || {
            let log = world.tenant.typed(&["job", "logs", job])?.out();
            Ok(log.contains("looked").then_some(log))
        });
        let log = log.unwrap();
        let own: Vec<usize> = (0..2).filter(|card| log.contains(&format!("nvidia20{card}"))).collect();
        assert!(own.len() == 1 && log.contains("nvidiactl"), "each has one card and no other: {log}");
        had.push(own[0]);
    }
    assert_ne!(had[0], had[1], "and not the other's");

    // A third waits until one of them has ended and its card was cleaned.
    let third = world.submit(&flags, LOOKS).unwrap();
    misfits(&world, &third, "gpus: 0 of 2 free, the job asks for 1");
    stopped(&world, &pair[0]);
    world.wait_for_state(&third, &["running"], LIMIT).unwrap();
    assert_eq!((machine.cleaned(CARDS[had[0]]), machine.cleaned(CARDS[had[1]])), (2, 1));
    let digest = String::from_utf8(Command::new("sha256sum").arg(&scrub).output().unwrap().stdout).unwrap();
    let says = format!("{}, cleaned by sha256:{} before; /dev/nvidia20{} 195:20{}, /dev/nvidiactl 195:255", CARDS[had[0]], digest.split(' ').next().unwrap(), had[0], had[0]);
    for job in [&pair[0], &third] {
        if job == &third {
            stopped(&world, job);
        }
        let receipt = verified(&world, job);
        assert!(receipt.contains("the job had its GPUs to itself") && receipt.contains(&says), "{receipt}");
    }

    // A card that cannot be cleaned is given to nobody: the end of its last job says so, and the node.
    machine.breaks(&[CARDS[had[1]]]);
    let ended = stopped(&world, &pair[1]);
    let word = format!("{} could not be cleaned and is out of service", CARDS[had[1]]);
    assert!(ended["exit"]["detail"].as_str().unwrap().contains(&word), "{ended}");
    assert!(verified(&world, &pair[1]).contains("the job had its GPUs to itself"));
    gpus_of(&world, "local", 1);
    let shown = world.operator.typed(&["node", "show", "local"]).unwrap().ok().unwrap().out();
    assert!(shown.contains(&format!("{} is out of service: the program that cleans it ended with", CARDS[had[1]])), "{shown}");
    let both = world.submit(&["--gpus", "2"], "true").unwrap();
    misfits(&world, &both, "gpus: 1 of 1 free, the job asks for 2");
    stopped(&world, &both);
    world.job(&flags, &format!("test -c /dev/nvidia20{} && ! test -e /dev/nvidia20{}", had[0], had[1])).unwrap().ok().unwrap();

    // The last one too: then none is offered, until the agent starts again and both can be cleaned.
    machine.breaks(&CARDS);
    world.job(&flags, "true").unwrap().ok().unwrap();
    gpus_of(&world, "local", 0);
    refused(&world, &["--gpus", "1"], "no node of this deployment has a GPU");
    world.deployment.stop().unwrap();
    machine.breaks(&[]);
    world.deployment.start().unwrap();
    gpus_of(&world, "local", 2);
    world.job(&["--gpus", "2"], "test -c /dev/nvidia200 && test -c /dev/nvidia201").unwrap().ok().unwrap();

    kata_is_called_untested(&world);
    plain.stop();

    // Its later versions, which are driven otherwise, and a program that is absent keep an agent from starting, each by name.
    let later = stand_in(world.folder(), "kata-2", "  kata-check x\\n  exec x");
    for (program, word) in [(later.as_path(), "(0.0-stand-in) has no command `create`"), (Path::new("/no/such/kata"), "`/no/such/kata`")] {
        let (dir, named) = (world.folder().join("plain"), format!("kata={}", program.display()));
        let told = world.operator.typed(&["node", "run", "--node-dir", text(&dir).unwrap(), "--runtime", &named]).unwrap();
        assert!(told.code() == Some(1) && told.err().contains("runtime `kata`") && told.err().contains(word), "{:?}: {}", told.code(), told.err());
    }
    world.close().unwrap();
}

/// Accepted where a node offers it, shown as untested by node and receipt, given no GPU.
fn kata_is_called_untested(world: &World) {
    let shown = world.operator.typed(&["node", "show", "plain"]).unwrap().ok().unwrap().out();
    assert!(shown.lines().any(|line| line.contains("kata 0.0-stand-in, sha256:") && line.ends_with(", untested")), "{shown}");
    let done = world.job(&["--runtime", "kata"], "echo ran; exit 3").unwrap();
    assert!(done.code() == Some(3) && done.out().contains("ran"), "{}{}", done.out(), done.err());
    let job = world.newest_job().unwrap();
    assert_eq!(world.show(&job).unwrap()["node_name"], "plain");
    let receipt = verified(world, &job);
    assert!(receipt.contains("kata 0.0-stand-in (sha256:") && receipt.contains("), untested") && receipt.contains("10 not observable"), "{receipt}");
    let ended = world.submit(&["--runtime", "kata"], "trap 'exit 1' TERM; sleep 600 & wait").unwrap();
    world.wait_for_state(&ended, &["running"], LIMIT).unwrap();
    stopped(world, &ended);
    // A GPU and Kata: no node has both here, and none ever will; each says what it lacks.
    let both = world.submit(&["--runtime", "kata", "--gpus", "1"], "true").unwrap();
    let why = misfits(world, &both, "the job asks for kata");
    assert!(why.contains("gpus: 0 of 0 free, the job asks for 1"), "{why}");
    stopped(world, &both);
}
