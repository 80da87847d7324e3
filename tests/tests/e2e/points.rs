//! `kill -9` at the named points of each operation of several steps: whoever dies there, nothing acknowledged is lost, no secret
//! is left in a file, no job runs twice, and the log proves. `cargo xtask faults --kills N --seed S` runs many.

#![expect(clippy::print_stdout, reason = "whoever looks for a fault wants to see how far it came")]

#[expect(dead_code, unreachable_pub, reason = "the program's own table of points; only the names are of use here")]
#[path = "../../../crates/vocabulary/src/fault.rs"]
mod fault;
mod ground;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use e2e::{Group, text};
use serde_json::Value;

use fault::Point;
use ground::{CANARY, Ground, LIMIT};

/// An operation that takes several steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Setup,
    Project,
    Put,
    RotateVolume,
    RotateRoot,
    Import,
    Backup,
    Restore,
    Secret,
    Join,
    Job,
    StopJob,
}

/// The operation in which a point lies.
fn home(point: Point) -> Operation {
    match point {
        Point::SetupSealed | Point::SetupBorn => Operation::Setup,
        Point::CommitBegun | Point::CommitWritten | Point::CommitDurable | Point::LogTaken | Point::LogTiles | Point::LogPublished => Operation::Project,
        Point::ObjectComplete | Point::ObjectPlaced | Point::PutSealed | Point::PutCommitted => Operation::Put,
        Point::SealStaged | Point::SealChanged | Point::KeyRewrapped => Operation::RotateRoot,
        Point::ImageUploaded => Operation::Import,
        Point::BackupCopied | Point::BackupWritten => Operation::Backup,
        Point::RestoreCopied => Operation::Restore,
        Point::ShredCommitted => Operation::Secret,
        Point::JoinBegun | Point::JoinEnrolled | Point::JoinWritten => Operation::Join,
        Point::AttemptStopping => Operation::StopJob,
        Point::PlanKept
        | Point::AttemptPulling
        | Point::AttemptOpening
        | Point::AttemptCreating
        | Point::AttemptRunning
        | Point::AttemptSealing
        | Point::OutputSealed
        | Point::OutputCommitted
        | Point::AttemptShipping
        | Point::AttemptScrubbing
        | Point::AttemptSigning
        | Point::AttemptSending
        | Point::AttemptEnded
        | Point::AttemptRemoving
        | Point::AttemptGone => Operation::Job,
    }
}

/// SplitMix64: the same seed gives the same kills.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// A number that `cargo xtask faults` hands over.
#[expect(clippy::disallowed_methods, reason = "the one way to hand a test a number")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

struct Run {
    ground: Ground,
    /// Makes names.
    round: u64,
    /// How often somebody died at a point.
    killed: BTreeMap<&'static str, u64>,
}

impl Run {
    fn new() -> Self {
        Self { ground: Ground::new(), round: 0, killed: BTreeMap::new() }
    }

    /// Does an operation in which somebody dies at the `count`th passing of a point, and checks. False when nobody came by.
    fn kill(&mut self, operation: Operation, point: Point, count: u64) -> bool {
        self.round += 1;
        let what = format!("round {}: {operation:?} killed at {} ({count})", self.round, point.name());
        println!("{what}");
        self.ground.arm(point, count);
        self.act(operation, point, &what);
        // The publisher comes by itself, and a job's leftovers are removed when its end is known.
        if count == 1 && home(point) == operation {
            let fired = e2e::wait_for("somebody to come by", LIMIT, || Ok(self.ground.fired().then_some(())));
            fired.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        self.ground.disarm();
        let fired = self.ground.fired();
        if fired {
            *self.killed.entry(point.name()).or_default() += 1;
        }
        self.ground.check(&what);
        fired
    }

    fn act(&mut self, operation: Operation, point: Point, what: &str) {
        match operation {
            Operation::Setup => self.setup(what),
            Operation::Project => {
                let name = format!("project-{}", self.round);
                if self.typed(&["project", "create", &name]) {
                    self.ground.ledger.projects.insert(name);
                }
            }
            Operation::Put => {
                let name = format!("file-{}", self.round);
                let file = self.ground.source(&name);
                if self.typed(&["volume", "put", "data", text(&file).unwrap()]) {
                    self.ground.ledger.files.insert(name, std::fs::read_to_string(file).unwrap());
                }
            }
            Operation::RotateVolume => {
                self.typed(&["volume", "rotate", "data"]);
            }
            Operation::RotateRoot => self.rotate_root(),
            Operation::Import => {
                let (name, image) = (format!("image-{}", self.round), self.ground.image());
                if self.typed(&["image", "import", text(&image).unwrap(), "--name", &name]) {
                    self.ground.ledger.images.insert(name);
                }
            }
            Operation::Backup => self.backup(what),
            Operation::Restore => self.restore(what),
            Operation::Secret => self.secret(what),
            Operation::Join => self.join(point, what),
            Operation::Job => self.job("echo one >> /outputs/OUT/runs; cp -r /inputs/data /outputs/OUT/", false, what),
            Operation::StopJob => self.job("trap 'exit 3' TERM; while :; do sleep 0.1; done", true, what),
        }
    }

    fn typed(&self, words: &[&str]) -> bool {
        Ground::told(&self.ground.tenant.typed(words).unwrap())
    }

    /// A deployment is made; when that was cut off, the next start makes it, and its first administrator can come in.
    fn setup(&mut self, what: &str) {
        let data = self.ground.place(&format!("new-{}", self.round));
        let line = self.ground.line_of_server(&data, "127.0.0.1:0", "127.0.0.1:0");
        let mut up = self.ground.starts("new.log", &line, &data);
        if up.is_none() {
            up = self.ground.starts("new.log", &line, &data);
        }
        assert!(up.is_some() && data.join("first-ticket").exists(), "{what}: no deployment came of it");
        drop(up);
        std::fs::remove_dir_all(data).unwrap();
    }

    /// A new root epoch; what was cut off is finished by itself.
    fn rotate_root(&mut self) {
        let code = self.ground.admin.code().unwrap();
        Ground::told(&self.ground.operator.typed_with(&["key", "rotate-root"], &format!("{code}\n")).unwrap());
        e2e::wait_for("the rewrap of what lies under the root", LIMIT, || {
            self.ground.mend();
            Ok((self.ground.operator.typed(&["key", "rewrap", "--root", "--follow"])?.code() == Some(0)).then_some(()))
        })
        .unwrap();
    }

    fn backup_line(&self, to: &std::path::Path) -> [String; 6] {
        let server = self.ground.place("server");
        ["server", "backup", "--data-dir", text(&server).unwrap(), "--to", text(to).unwrap()].map(str::to_owned)
    }

    /// What was cut off is no backup, is named, and another one can be made.
    fn backup(&mut self, what: &str) {
        let to = self.ground.place(&format!("backup-{}", self.round));
        let line = self.backup_line(&to);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let made = self.ground.operator.typed(&words).unwrap();
        if made.code().is_none() {
            assert!(!to.exists(), "{what}: half a backup has its name");
            let again = self.ground.operator.typed(&words).unwrap();
            let partial = to.with_extension("partial");
            assert!(again.code() != Some(0) && again.err().contains("partial"), "{what}: {}", again.err());
            std::fs::remove_dir_all(partial).unwrap();
            self.ground.operator.typed(&words).unwrap().ok().unwrap();
        }
        std::fs::remove_dir_all(to).unwrap();
    }

    /// What was cut off is no deployment, is named, and the backup is as good as before.
    fn restore(&mut self, what: &str) {
        let (from, into) = (self.ground.place(&format!("backup-{}", self.round)), self.ground.place(&format!("restored-{}", self.round)));
        let line = self.backup_line(&from);
        self.ground.operator.typed(&line.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().ok().unwrap();
        let words = ["server", "restore", "--from", text(&from).unwrap(), "--into", text(&into).unwrap()];
        let made = self.ground.operator.typed(&words).unwrap();
        if made.code().is_none() {
            assert!(!into.exists(), "{what}: half a deployment has its name");
            let again = self.ground.operator.typed(&words).unwrap();
            assert!(again.code() != Some(0) && again.err().contains("restoring"), "{what}: {}", again.err());
            std::fs::remove_dir_all(into.with_extension("restoring")).unwrap();
            self.ground.operator.typed(&words).unwrap().ok().unwrap();
        }
        std::fs::remove_dir_all(from).unwrap();
        std::fs::remove_dir_all(into).unwrap();
    }

    /// A secret's new value destroys the key of the one before; the shred list has it, whoever died in between.
    fn secret(&mut self, what: &str) {
        let name = format!("secret-{}", self.round);
        let list = self.ground.place("server").join("shred-list");
        let keys = || std::fs::read_to_string(&list).unwrap().matches("{\"key\":").count();
        let before = keys();
        let typed = |words: &[&str], value: &str| Ground::told(&self.ground.tenant.typed_with(words, value).unwrap());
        if !typed(&["secret", "create", &name, "--project", "study"], "the first value\n") {
            return;
        }
        typed(&["secret", "set", &name], "the second value\n");
        let listed = e2e::wait_for("the destroyed key in the shred list", LIMIT, || {
            self.ground.mend();
            Ok((keys() > before).then_some(()))
        });
        listed.unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// A join that was cut off leaves no node's folder, and its keys go with the next try.
    fn join(&mut self, point: Point, what: &str) {
        let name = format!("node-{}", self.round);
        let dir = self.ground.place(&name);
        let token = self.ground.invite(&name, &[]);
        let group = Group::new("join");
        let (url, pin) = (self.ground.url.clone(), self.ground.pin.clone());
        let line = |token: &PathBuf| {
            let head = ["node", "join", &url, "--ca-pin", &pin, "--token-file", text(token).unwrap()];
            let tail = ["--node-dir", text(&dir).unwrap(), "--cgroup-parent", group.name(), "--id-base", "1954545664", "--id-blocks", "64", "--stop-jobs"];
            head.into_iter().chain(tail).map(str::to_owned).collect::<Vec<_>>()
        };
        let words = line(&token);
        let first = self.ground.operator.typed(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert!(first.code().is_none() && !dir.exists(), "{what}: {:?} {}", first.code(), first.err());
        assert!(!self.joining(&name).is_empty(), "{what}: nothing was begun");
        // The token is good as long as it was not spent; a spent one is refused by name.
        if point != Point::JoinBegun {
            let spent = self.ground.operator.typed(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            assert!(spent.code() == Some(4) && spent.err().contains("spent"), "{what}: {}", spent.err());
            assert_eq!(self.joining(&name), Vec::<String>::new(), "{what}: keys of a node that never was are left");
            return;
        }
        let words = line(&token);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = self.ground.operator.command(&words).stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        e2e::wait_for("the node to join", LIMIT, || Ok(dir.join("node.json").exists().then_some(()))).unwrap();
        e2e::signal("TERM", child.id()).unwrap();
        e2e::wait_for("the end of an agent", LIMIT, || Ok(child.try_wait()?)).unwrap();
        assert_eq!(self.joining(&name), Vec::<String>::new(), "{what}: keys of a join that was cut off are left");
    }

    fn joining(&self, name: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.ground.place("")).unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|found| found.starts_with(&format!(".{name}.joining"))).collect()
    }

    /// A job from its submission to its receipt; its output is committed once, and it is never alive twice.
    fn job(&mut self, script: &str, stop: bool, what: &str) {
        let out = format!("out-{}", self.round);
        // Whoever dies may be the server, in this very call.
        self.patiently(&["volume", "create", &out, "--project", "study", "--region", "local", "--sensitivity", "internal", "--purpose", "research"], &|said| {
            said.contains("exists") || said.contains("taken")
        });
        let mark = format!("mark-{}-{}", std::process::id(), self.round);
        let script = format!(": {mark}; {}", script.replace("OUT", &out));
        let head = ["job", "run", "busybox", "--project", "study", "--purpose", "research", "--detach", "--restarts", "3", "--node-label", "role=worker"];
        let input = ["--input", "data", "--output", &out, "--", "sh", "-c", &script];
        let submitted = self.ground.tenant.typed(&[&["-o", "json"][..], &head, &input].concat()).unwrap();
        self.ground.mend();
        let job = if Ground::told(&submitted) {
            submitted.json().unwrap()["id"].as_str().unwrap().to_owned()
        } else {
            // It was not acknowledged: it is there, or it is not, and then it is submitted again.
            match self.job_of(&mark) {
                Some(job) => job,
                None => e2e::id(&self.ground.tenant.json(&[&head[..], &input].concat()).unwrap()).unwrap(),
            }
        };
        let mut stopped = !stop;
        let ended = e2e::wait_for("the end of the job", LIMIT, || {
            self.ground.mend();
            assert!(alive(&mark) <= 1, "{what}: the job is alive twice");
            let Ok(shown) = self.ground.tenant.json(&["job", "show", &job]) else { return Ok(None) };
            let state = shown["state"].as_str().unwrap_or_default().to_owned();
            if !stopped && state == "running" {
                stopped = self.typed(&["job", "stop", &job]);
            }
            Ok(["exited", "failed", "stopped"].contains(&state.as_str()).then_some(shown))
        });
        let ended = ended.unwrap_or_else(|error| panic!("{what}: {error}: {:?}", self.ground.tenant.json(&["job", "show", &job])));
        if !stop {
            assert_eq!(ended["state"], "exited", "{what}: {ended}");
            let volume = e2e::wait_for("the volume", LIMIT, || {
                self.ground.mend();
                Ok(self.ground.tenant.json(&["volume", "show", &out]).ok())
            });
            let volume = volume.unwrap();
            assert_eq!(volume["head"]["seq"], 1, "{what}: one commit: {volume}");
            let opened = tempfile::tempdir_in(self.ground.mine.path()).unwrap();
            let into = opened.path().join("out");
            self.patiently(&["volume", "get", &out, text(&into).unwrap(), "--overwrite"], &|_| false);
            assert_eq!(std::fs::read_to_string(into.join("runs")).unwrap(), "one\n", "{what}");
            assert!(std::fs::read_to_string(into.join("data/first")).unwrap().starts_with(CANARY), "{what}");
        }
        let receipt = self.ground.mine.path().join(format!("receipt-{}.json", self.round));
        let bytes = e2e::wait_for("the receipt", LIMIT, || {
            self.ground.mend();
            let typed = self.ground.tenant.typed(&["job", "receipt", &job])?;
            Ok((typed.code() == Some(0)).then(|| typed.bytes().to_vec()))
        });
        std::fs::write(&receipt, bytes.unwrap_or_else(|error| panic!("{what}: {error}"))).unwrap();
        self.ground.tenant.typed(&["verify", text(&receipt).unwrap()]).unwrap().ok().unwrap();
        // Nothing of it is left on the node, once its end is acknowledged.
        e2e::wait_for("the job's processes to go", LIMIT, || Ok((alive(&mark) == 0).then_some(()))).unwrap();
    }

    fn job_of(&self, mark: &str) -> Option<String> {
        let jobs = self.ground.tenant.json(&["job", "list"]).unwrap();
        let found = jobs["items"].as_array().unwrap().iter().filter(|job| job.to_string().contains(mark)).collect::<Vec<&Value>>();
        assert!(found.len() <= 1, "submitted once, there twice");
        found.first().map(|job| job["id"].as_str().unwrap().to_owned())
    }

    /// Types until it is done, or until what is said means that it was done.
    fn patiently(&mut self, words: &[&str], done: &dyn Fn(&str) -> bool) {
        e2e::wait_for(&words.join(" "), LIMIT, || {
            self.ground.mend();
            let typed = self.ground.tenant.typed(words)?;
            Ok((Ground::told(&typed) || done(&typed.err())).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.ground.tenant.typed(words).unwrap().err()));
    }

    fn close(self) {
        self.ground.proved("at the end");
        self.ground.close();
    }
}

/// In how many process namespaces a job of this mark lives.
fn alive(mark: &str) -> usize {
    let mut spaces = BTreeSet::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with("sh\0") && line.contains(mark) {
            // A process that is just ending has none.
            spaces.extend(std::fs::read_link(process.path().join("ns/pid")));
        }
    }
    spaces.len()
}

/// Each point is reached, and whoever dies there does no harm. A point that nobody comes by fails.
fn every_point(points: impl Iterator<Item = Point>) {
    let mut run = Run::new();
    let points: Vec<Point> = points.collect();
    for point in &points {
        assert!(run.kill(home(*point), *point, 1), "nobody comes by {}", point.name());
    }
    let named: BTreeSet<&str> = points.iter().map(|point| point.name()).collect();
    assert_eq!(run.killed.keys().copied().collect::<BTreeSet<_>>(), named, "points that no run reached");
    run.close();
}

/// `cargo xtask faults` goes to every point; the suite leaves out those that take long and have a neighbour.
fn all() -> bool {
    number("SWARM_FAULTS_ALL").is_some()
}

#[test]
fn whoever_dies_at_a_point_of_a_plane_or_a_person_does_no_harm() {
    let planes = Point::ALL.iter().copied().filter(|point| !matches!(home(*point), Operation::Job | Operation::StopJob));
    // Each of these waits for the next code of an authenticator.
    every_point(planes.filter(|point| all() || home(*point) != Operation::RotateRoot || *point == Point::SealStaged));
}

#[test]
fn whoever_dies_at_a_point_of_a_job_does_no_harm() {
    let jobs = Point::ALL.iter().copied().filter(|point| matches!(home(*point), Operation::Job | Operation::StopJob));
    every_point(jobs.step_by(if all() { 1 } else { 4 }));
}

/// Kills at points that a seed chooses, in any operation that may come by them; as many as `cargo xtask faults` asks for.
#[test]
fn whoever_dies_where_a_seed_says_does_no_harm() {
    let (kills, seed) = (number("SWARM_FAULTS_KILLS").unwrap_or(4), number("SWARM_FAULTS_SEED").unwrap_or(1));
    let mut seeded = Seeded(seed);
    let mut run = Run::new();
    let commits = [Point::CommitBegun, Point::CommitWritten, Point::CommitDurable, Point::LogTaken, Point::LogTiles, Point::LogPublished];
    let mut done = 0;
    while done < kills {
        let pick = |seeded: &mut Seeded, among: &[Point]| among[usize::try_from(seeded.below(among.len() as u64)).unwrap()];
        // Half of them at the point's own operation; half in the server, at any of the commits of any operation.
        let (operation, point, count) = if seeded.below(2) == 0 {
            let point = pick(&mut seeded, Point::ALL);
            (home(point), point, 1)
        } else {
            let operations = [Operation::Project, Operation::Put, Operation::RotateVolume, Operation::Import, Operation::Job];
            let operation = operations[usize::try_from(seeded.below(operations.len() as u64)).unwrap()];
            let count = 1 + seeded.below(if operation == Operation::Job { 12 } else { 3 });
            (operation, pick(&mut seeded, &commits), count)
        };
        done += u64::from(run.kill(operation, point, count));
        if done % 10 == 0 {
            run.ground.proved(&format!("after {done} kills"));
        }
    }
    println!("seed {seed}: {done} processes killed in {} operations; at {:?}", run.round, run.killed);
    run.close();
}
