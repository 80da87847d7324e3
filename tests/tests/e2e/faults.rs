//! Disks that are full or break, and processes that stand still: nothing acknowledged is lost, nothing runs twice, and whoever
//! waits is answered. `cargo xtask faults` runs the long ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{Person, Plane, Shell, SmallDisk, World, signal};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);
/// Far more commits than a disk takes that has no room.
const TRIES: usize = 400;

/// A control plane on a small disk, with its operator's logins elsewhere.
struct Ground {
    disk: SmallDisk,
    plane: Plane,
    operator: Shell,
    admin: Person,
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("swarm-test-").tempdir().unwrap();
        let disk = SmallDisk::new(folder.path(), 96).unwrap();
        let program = e2e::program().unwrap();
        let plane = Plane::start(&program, &disk.folder().join("plane"), &[]).unwrap();
        let operator = Shell::new(&program, &folder.path().join("operator"));
        let mut admin = Person::new("admin", "a long password of the tests");
        admin.enrol(&operator, plane.url(), plane.ca_pin(), &plane.ticket().unwrap(), Some("operator")).unwrap();
        Self { disk, plane, operator, admin, folder }
    }

    fn create(&self, name: &str) -> Result<(), String> {
        let answer = self.operator.typed(&["tenant", "create", name, "--admin", "admin"]).unwrap();
        if answer.code() == Some(0) { Ok(()) } else { Err(answer.err()) }
    }

    fn tenants(&self) -> BTreeSet<String> {
        let list = self.operator.json(&["tenant", "list"]).unwrap();
        list["items"].as_array().unwrap().iter().map(|tenant| tenant["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Starts it again, at another address.
    fn start_again(&mut self) {
        self.plane = Plane::start(&e2e::program().unwrap(), &self.disk.folder().join("plane"), &[]).unwrap();
        let login = self.folder.path().join("operator/default.json");
        let mut known: Value = serde_json::from_slice(&std::fs::read(&login).unwrap()).unwrap();
        known["url"] = self.plane.url().into();
        std::fs::remove_file(&login).unwrap();
        e2e::write_private(&login, &known.to_string()).unwrap();
    }

    /// The log's integrity is proved, as a member of a tenant sees it.
    fn proved(&mut self, tenant: &str) {
        let shell = Shell::new(&e2e::program().unwrap(), &self.folder.path().join("member"));
        self.admin.login(&shell, Some((self.plane.url(), self.plane.ca_pin())), tenant).unwrap();
        // A publisher that was killed is followed by the next one when its lease is over.
        let verdict = e2e::wait_for("the published log", LIMIT, || Ok(shell.json(&["audit", "verify"]).ok())).unwrap();
        assert_eq!(verdict["integrity"], "proved", "{verdict}");
    }
}

/// Creates until something is refused; gives what was acknowledged, and the refused name with what was said of it.
fn until_refused(ground: &Ground, prefix: &str) -> (Vec<String>, String, String) {
    let mut acknowledged = Vec::new();
    for number in 0..TRIES {
        let name = format!("{prefix}-{number}");
        match ground.create(&name) {
            Ok(()) => acknowledged.push(name),
            Err(said) => return (acknowledged, name, said),
        }
    }
    panic!("a disk without room took {TRIES} transactions")
}

#[test]
fn a_full_disk_refuses_by_name_and_keeps_what_was_acknowledged() {
    let mut ground = Ground::new();
    ground.create("before").unwrap();
    ground.disk.fill().unwrap();
    let (mut acknowledged, refused, said) = until_refused(&ground, "full");
    acknowledged.push("before".to_owned());
    assert!(said.contains("storage_failed"), "{said}");
    // It goes on reading, and refuses again without harm.
    let there = ground.tenants();
    assert!(acknowledged.iter().all(|name| there.contains(name)) && !there.contains(&refused), "{there:?}");
    assert!(ground.create("again").is_err());
    // Room is enough: no restart is needed.
    ground.disk.free().unwrap();
    e2e::wait_for("the server to write again", LIMIT, || Ok(ground.create("after").ok())).unwrap();
    acknowledged.push("after".to_owned());
    ground.plane.kill().unwrap();
    ground.start_again();
    let there = ground.tenants();
    assert!(acknowledged.iter().all(|name| there.contains(name)), "{acknowledged:?} {there:?}");
    assert!(!there.contains(&refused), "what was refused came to be: {there:?}");
    ground.proved("before");
    ground.plane.stop().unwrap();
}

#[test]
fn a_disk_that_breaks_takes_nothing_acknowledged_with_it() {
    let mut ground = Ground::new();
    ground.create("before").unwrap();
    ground.disk.breaks().unwrap();
    let (mut acknowledged, _, said) = until_refused(&ground, "broken");
    acknowledged.push("before".to_owned());
    assert!(said.contains("storage_failed"), "{said}");
    assert!(!said.contains(ground.folder.path().to_str().unwrap()), "a path of the server is told to a stranger: {said}");
    ground.plane.kill().unwrap();
    ground.disk.repair().unwrap();
    ground.start_again();
    let there = ground.tenants();
    assert!(acknowledged.iter().all(|name| there.contains(name)), "{acknowledged:?} {there:?}");
    ground.create("after").unwrap();
    ground.proved("before");
    ground.plane.stop().unwrap();
}

/// How long a process stands still, in seconds; `cargo xtask faults` asks for more.
#[expect(clippy::disallowed_methods, reason = "the one way to hand a test a number")]
fn pauses() -> Vec<u64> {
    let asked = std::env::var("SWARM_FAULTS_PAUSES").unwrap_or_else(|_| "1".to_owned());
    asked.split(',').map(|text| text.parse().unwrap_or_else(|_| panic!("SWARM_FAULTS_PAUSES={asked} is no list of seconds"))).collect()
}

/// Stops a process and lets it go on after so many seconds.
#[expect(clippy::disallowed_methods, reason = "the pause is measured by the clock of the machine on which the process stands still")]
fn pause(pid: u32, seconds: u64) {
    signal("STOP", pid).unwrap();
    let begun = Instant::now();
    // The time itself is what is tested; nothing else is waited for.
    e2e::wait_for("the pause to end", Duration::from_secs(seconds + 60), || Ok((begun.elapsed() >= Duration::from_secs(seconds)).then_some(()))).unwrap();
    signal("CONT", pid).unwrap();
}

/// Every process of a deployment stands still for a while, each in the middle of a job.
#[test]
fn whoever_stands_still_goes_on_and_no_job_is_lost_or_runs_twice() {
    let world = World::with_image().unwrap();
    for seconds in pauses() {
        for name in ["server", "node", "up", "shim"] {
            stands_still(&world, name, seconds);
        }
    }
    world.tenant.typed(&["audit", "verify"]).unwrap().ok().unwrap();
    world.close().unwrap();
}

fn stands_still(world: &World, name: &str, seconds: u64) {
    let told = format!("{name} for {seconds} s");
    let result = format!("{name}-{seconds}");
    world.volume(&result).unwrap();
    // It works for longer than the pause.
    let script = format!("sleep {}; echo one >> /outputs/{result}/runs", seconds + 3);
    let job = world.submit(&["--output", &result, "--restarts", "3"], &script).unwrap();
    world.wait_for_state(&job, &["running"], LIMIT).unwrap();
    let pid = process(world, name).unwrap_or_else(|| panic!("{told}: there is no such process"));
    // Somebody asks while it stands still, and is answered.
    let asked = world.tenant.command(&["job", "list"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    pause(pid, seconds);
    let answer = asked.wait_with_output().unwrap();
    assert!(answer.status.success() || !answer.stderr.is_empty(), "{told}: no answer and no reason");
    let ended = e2e::wait_for("the end of the job", LIMIT, || {
        let Ok(shown) = world.show(&job) else { return Ok(None) };
        Ok(["exited", "failed"].contains(&shown["state"].as_str().unwrap_or("")).then_some(shown))
    });
    let ended = ended.unwrap_or_else(|error| panic!("{told}: {error:#}\n{}", world.deployment.log()));
    assert_eq!(ended["state"], "exited", "{told}: {ended}");
    // Only the attempt that ended well was committed, once.
    let volume = world.tenant.json(&["volume", "show", &result]).unwrap();
    assert_eq!(volume["head"]["seq"], 1, "{told}: one commit: {volume}");
    let opened = world.folder().join(&result);
    world.tenant.typed(&["volume", "get", &result, e2e::text(&opened).unwrap()]).unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(opened.join("runs")).unwrap(), "one\n", "{told}");
}

/// A process of the deployment: a part of `swarm up`, that itself, or the supervisor of the one sandbox.
fn process(world: &World, name: &str) -> Option<u32> {
    match name {
        "up" => world.deployment.pid(),
        "shim" => shim_of(world.folder()),
        _ => {
            let record: Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join("run/up.json")).ok()?).ok()?;
            let part = record["parts"].as_array()?.iter().find(|part| part[0] == name)?;
            u32::try_from(part[1]["pid"].as_u64()?).ok()
        }
    }
}

/// The supervisor of the one sandbox of this deployment.
fn shim_of(folder: &Path) -> Option<u32> {
    let folder = folder.to_str()?;
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (line.contains("shim") && line.contains(folder)).then_some(pid)
    })
}
