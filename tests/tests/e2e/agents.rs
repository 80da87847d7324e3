//! Three agents on one machine, each with its own state, control group and range of ids: jobs spread, one node is drained, one is
//! lost, and every job ends once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{Group, World, signal, text};
use serde_json::Value;

/// A run lease, the skew of two clocks, and a second run of the job: on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
/// Longer than the whole test.
const WATCH: Duration = Duration::from_secs(3_600);

/// A further agent on this machine.
struct Agent {
    name: &'static str,
    dir: PathBuf,
    group: Group,
    id_base: &'static str,
    child: Child,
}

impl Agent {
    fn join(world: &World, name: &'static str, id_base: &'static str) -> Self {
        let token = world.operator.json(&["node", "invite", name, "--region", "local", "--jurisdiction", "LOCAL"]).unwrap();
        let file = world.folder().join(format!("{name}.token"));
        e2e::write_private(&file, token["token"].as_str().unwrap()).unwrap();
        let dir = world.folder().join(name);
        let group = Group::new(name);
        let (url, pin) = (world.deployment.url(), world.deployment.ca_pin());
        let place = ["--node-dir", text(&dir).unwrap(), "--cgroup-parent", group.name(), "--id-base", id_base, "--id-blocks", "64", "--stop-jobs"];
        let join = [&["node", "join", url, "--ca-pin", pin, "--token-file", text(&file).unwrap()][..], &place].concat();
        let child = started(world, name, &join);
        Self { name, dir, group, id_base, child }
    }

    fn again(&mut self, world: &World) {
        let run = [
            "node",
            "run",
            "--node-dir",
            text(&self.dir).unwrap(),
            "--cgroup-parent",
            self.group.name(),
            "--id-base",
            self.id_base,
            "--id-blocks",
            "64",
            "--stop-jobs",
        ];
        self.child = started(world, self.name, &run);
    }

    /// Ends as a power cut of the agent alone: its jobs run on under their shims.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        signal("TERM", self.child.id()).unwrap();
        e2e::wait_for("the end of an agent", LIMIT, || Ok(self.child.try_wait()?)).unwrap();
    }
}

fn log_of(world: &World, name: &str) -> PathBuf {
    world.folder().join(format!("{name}.log"))
}

fn started(world: &World, name: &str, arguments: &[&str]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log_of(world, name)).unwrap();
    world.operator.command(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// The namespaces of each mark, and what was alive twice.
type Seen = (BTreeMap<String, BTreeSet<PathBuf>>, Vec<String>);

/// Looks at the processes of this machine, again and again: each job bears a mark in its command line, and each attempt of it is
/// a namespace of its own. Two namespaces with one mark at once are a job that is alive twice.
struct Watcher {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: std::thread::JoinHandle<()>,
}

impl Watcher {
    fn start(marks: Vec<String>) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (ending, found) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            e2e::wait_for("the end of the watch", WATCH, || {
                let mut now: BTreeMap<&String, BTreeSet<PathBuf>> = BTreeMap::new();
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    // The shell of the job itself, not whoever submitted it.
                    let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).into_owned();
                    let Some(mark) = marks.iter().find(|mark| line.starts_with("sh\0") && line.contains(mark.as_str())) else {
                        continue;
                    };
                    // A process that is just ending has none.
                    if let Ok(space) = std::fs::read_link(process.path().join("ns/pid")) {
                        now.entry(mark).or_default().insert(space);
                    }
                }
                let mut found = found.lock().unwrap();
                for (mark, spaces) in now {
                    if spaces.len() > 1 {
                        found.1.push(format!("{mark}: {spaces:?}"));
                    }
                    found.0.entry(mark.clone()).or_default().extend(spaces);
                }
                drop(found);
                Ok(ending.load(Ordering::Relaxed).then_some(()))
            })
            .unwrap();
        });
        Self { stop, seen, thread }
    }

    /// How many attempts of each mark were alive, and whatever was alive twice.
    fn end(self) -> (BTreeMap<String, usize>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let seen = self.seen.lock().unwrap();
        (seen.0.iter().map(|(mark, spaces)| (mark.clone(), spaces.len())).collect(), seen.1.clone())
    }
}

fn node(world: &World, name: &str) -> Value {
    let nodes = world.operator.json(&["node", "list"]).unwrap();
    nodes["items"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap().clone()
}

#[test]
fn three_agents_share_the_work_and_no_job_is_lost_or_runs_twice() {
    let world = World::with_image().unwrap();
    let mut lost = Agent::join(&world, "second", "1887436800");
    let drained = Agent::join(&world, "third", "1954545664");
    for name in ["second", "third"] {
        e2e::wait_for("an agent that reports", LIMIT, || Ok((node(&world, name)["state"] == "alive").then_some(())))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", std::fs::read_to_string(log_of(&world, name)).unwrap_or_default()));
    }
    // Each node says that it has this machine's memory, so each of these goes where the others are not.
    let marks: Vec<String> = (1..=3).map(|number| format!("mark-{number}-{}", std::process::id())).collect();
    let watcher = Watcher::start(marks.clone());
    let flags = ["--memory", "64MiB", "--cpus", "0.1", "--run-lease", "30", "--restarts", "2"];
    let jobs: Vec<String> = marks.iter().map(|mark| world.submit(&flags, &format!("echo {mark}; sleep 45; echo ended")).unwrap()).collect();
    let mut on = BTreeMap::new();
    for job in &jobs {
        let shown = world.wait_for_state(job, &["running"], LIMIT).unwrap();
        on.insert(shown["node_name"].as_str().unwrap().to_owned(), job.clone());
    }
    assert_eq!(on.len(), 3, "spread over three nodes: {on:?}");

    // One agent dies and does not come back for now; one node is drained at once.
    lost.kill();
    // Until its silence is noticed it may be given jobs, which would only come back later.
    e2e::wait_for("the loss to be noticed", LIMIT, || Ok((node(&world, "second")["state"] == "lost").then_some(()))).unwrap();
    let drain = world.operator.typed(&["node", "drain", "third", "--deadline", "0", "--wait"]).unwrap().ok().unwrap();
    assert!(drain.err().contains("told to go") || drain.err().contains("is empty"), "{}", drain.err());
    assert_eq!(node(&world, "third")["state"], "draining");
    let evicted = world.tenant.json(&["audit", "search", "--action", "job_evicted"]).unwrap();
    assert_eq!(evicted["items"].as_array().unwrap().len(), 1, "{evicted}");

    // All jobs end, once; those two on another node than before, and none on a node that is drained or lost.
    for (name, job) in &on {
        let ended = world.wait_for_state(job, &["exited", "failed"], LIMIT).unwrap();
        assert_eq!(ended["exit"]["reason"], "completed", "{ended}");
        let attempt = if ["second", "third"].contains(&name.as_str()) { 2 } else { 1 };
        assert_eq!((&ended["attempt"], ended["node_name"].as_str()), (&Value::from(attempt), Some("local")), "{ended}");
    }
    let (alive, twice) = watcher.end();
    assert!(twice.is_empty(), "alive twice: {twice:?}");
    let mut attempts: Vec<usize> = alive.values().copied().collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 2, 2], "{alive:?}");

    // The lost node comes back, and keeps nothing of what is over.
    lost.again(&world);
    e2e::wait_for("the node to come back", LIMIT, || Ok((node(&world, "second")["state"] == "alive").then_some(()))).unwrap();
    let kept = lost.dir.join("attempts");
    e2e::wait_for("leftovers to go", LIMIT, || Ok((std::fs::read_dir(&kept)?.next().is_none()).then_some(()))).unwrap();

    // Set apart for the tenant, it takes a job that demands that, and the receipt says so.
    world.operator.typed(&["node", "dedicate", "second", "--tenant", e2e::TENANT]).unwrap().ok().unwrap();
    world.operator.typed(&["node", "undrain", "third"]).unwrap().ok().unwrap();
    world.job(&["--placement", "own-node"], "true").unwrap().ok().unwrap();
    let job = world.newest_job().unwrap();
    assert_eq!(world.show(&job).unwrap()["node_name"], "second");
    let receipt = world.folder().join("receipt.json");
    std::fs::write(&receipt, world.tenant.typed(&["job", "receipt", &job]).unwrap().ok().unwrap().bytes()).unwrap();
    let verified = world.tenant.typed(&["verify", text(&receipt).unwrap()]).unwrap().ok().unwrap();
    assert!(verified.out().contains("an operator had set the node apart for the tenant"), "{}", verified.out());

    let log = lost.dir.join("log");
    lost.stop();
    drained.stop();
    log_of_a_node_is_judged(&world, &log);
    world.close().unwrap();
}

/// By operators, against what the deployment's log kept: proved as it is, and not once a byte of it is another.
fn log_of_a_node_is_judged(world: &World, log: &std::path::Path) {
    let judge = |dir: &std::path::Path| world.operator.typed(&["-o", "json", "audit", "node-log", text(dir).unwrap()]).unwrap();
    let proved = judge(log).ok().unwrap().json().unwrap();
    assert_eq!((&proved["integrity"], &proved["completeness"]), (&"proved".into(), &"proved".into()), "{proved}");
    assert!(proved["anchors"].as_u64() > Some(1), "{proved}");

    // Copied twice: in one copy a word of an entry is another, in one the checkpoint is not the node's.
    let copied = |name: &str| {
        let copy = world.folder().join(name);
        let done = std::process::Command::new("cp").args(["-r", text(log).unwrap(), text(&copy).unwrap()]).status().unwrap();
        assert!(done.success());
        copy
    };
    let rewritten = copied("log-rewritten");
    assert!(rewrite(&rewritten.join("tile/entries")) > 0);
    let refused = judge(&rewritten);
    assert_eq!(refused.code(), Some(6), "{}", refused.err());
    assert!(refused.out().contains("not proved"), "{}", refused.out());
    let unsigned = copied("log-unsigned");
    let note = std::fs::read_to_string(unsigned.join("checkpoint")).unwrap();
    let (origin, rest) = note.split_once('\n').unwrap();
    let (size, rest) = rest.split_once('\n').unwrap();
    std::fs::write(unsigned.join("checkpoint"), format!("{origin}\n{}\n{rest}", size.parse::<u64>().unwrap() - 1)).unwrap();
    assert_eq!(judge(&unsigned).code(), Some(6));

    // A tenant's people do not see how nodes are enrolled.
    let told = world.tenant.typed(&["audit", "node-log", text(log).unwrap()]).unwrap();
    assert_eq!(told.code(), Some(6));
    assert!(told.err().contains("operators see the enrolments of nodes"), "{}", told.err());
}

/// Makes the first `version` in each file another word; says in how many.
fn rewrite(folder: &std::path::Path) -> usize {
    let mut changed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            changed += rewrite(&path);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(7).position(|window| window == b"version").unwrap();
        bytes[at] = b'w';
        std::fs::write(&path, bytes).unwrap();
        changed += 1;
    }
    changed
}
