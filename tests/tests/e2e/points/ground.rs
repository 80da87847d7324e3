//! A control plane and one node, each a process of its own that may be killed and is started again in the same place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use e2e::{Group, Person, Shell, Typed, text};
use serde_json::Value;

use super::fault::Point;

/// From a start, or a request, to what comes of it, on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(180);
/// Stands in all data, and must stand in no file of server or node.
pub(super) const CANARY: &str = "canary-7f3b1c-of-the-data";
const PASSPHRASE: &str = "correct horse battery staple";
const PASSWORD: &str = "a long password of the tests";
/// Names the file that says where a process dies.
const FILE: &str = "SWARM_FAULT_FILE";

/// A process that is started again where it died.
struct Part {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Part {
    fn start(name: &'static str, shell: &Shell, log: &Path, arguments: &[String]) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let child = shell.command(&words).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { name, log: log.to_owned(), child }
    }

    /// How it ended, if it did: a part that ends without having been killed says why, and that is a failure here.
    fn died(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{} ended by itself: {status}\n{}", self.name, self.said());
        true
    }

    fn said(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        said.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // An agent that is asked takes its jobs with it.
        let _ = e2e::signal("TERM", self.child.id());
        let ended = e2e::wait_for("the end of a part", Duration::from_secs(60), || Ok(self.child.try_wait()?));
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) projects: BTreeSet<String>,
    pub(super) images: BTreeSet<String>,
    /// Files of the volume `data`.
    pub(super) files: BTreeMap<String, String>,
}

/// The deployment.
pub(super) struct Ground {
    server: Option<Part>,
    server_line: Vec<String>,
    node: Option<Part>,
    node_line: Vec<String>,
    group: Group,
    armed: PathBuf,
    serial: u64,
    pub(super) url: String,
    pub(super) pin: String,
    pub(super) operator: Shell,
    pub(super) tenant: Shell,
    pub(super) admin: Person,
    pub(super) ledger: Ledger,
    /// What the deployment has: searched for the canary.
    place: tempfile::TempDir,
    /// What the tests have: sources, and what was opened.
    pub(super) mine: tempfile::TempDir,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Ground {
    /// Everything is there and was acknowledged: a tenant, a project, a volume with a file, an image, a node.
    pub(super) fn new() -> Self {
        let folder = || {
            let folder = tempfile::Builder::new().prefix("swarm-test-").tempdir().unwrap();
            // The control plane may run as a user of its own.
            std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            folder
        };
        let (place, mine) = (folder(), folder());
        let (armed, program) = (mine.path().join("armed"), e2e::program().unwrap());
        let shell = |name: &str| Shell::new(&program, &place.path().join(name)).with_path(FILE, &armed);
        e2e::write_private(&mine.path().join("passphrase"), PASSPHRASE).unwrap();
        let mut ground = Self {
            server: None,
            server_line: Vec::new(),
            node: None,
            node_line: Vec::new(),
            group: Group::new("points"),
            serial: 0,
            url: String::new(),
            pin: String::new(),
            operator: shell("operator"),
            tenant: shell("tenant"),
            admin: Person::new("admin", PASSWORD),
            ledger: Ledger::default(),
            armed,
            place,
            mine,
        };
        let data = ground.place.path().join("server");
        ground.server_line = ground.line_of_server(&data, "127.0.0.1:0", "127.0.0.1:0");
        ground.start_server();
        // From here on at the same addresses.
        let endpoints: Value = serde_json::from_slice(&std::fs::read(data.join("endpoints.json")).unwrap()).unwrap();
        let address = |key: &str| endpoints[key].as_str().unwrap().trim_start_matches("https://").to_owned();
        ground.url = endpoints["api"].as_str().unwrap().to_owned();
        ground.pin = endpoints["ca_pin"].as_str().unwrap().to_owned();
        ground.server_line = ground.line_of_server(&data, &address("api"), &address("node"));
        let ticket = std::fs::read_to_string(data.join("first-ticket")).unwrap();
        ground.admin.enrol(&ground.operator, &ground.url, &ground.pin, ticket.trim(), Some("operator")).unwrap();
        ground.operator.typed(&["tenant", "create", "clinic", "--admin", "admin"]).unwrap().ok().unwrap();
        ground.admin.login(&ground.tenant, Some((&ground.url, &ground.pin)), "clinic").unwrap();
        let typed = |ground: &Self, words: &[&str]| ground.tenant.typed(words).unwrap().ok().unwrap();
        typed(&ground, &["project", "create", "study"]);
        ground.volume("data");
        let first = ground.source("first");
        typed(&ground, &["volume", "put", "data", text(&first).unwrap()]);
        ground.ledger.files.insert("first".to_owned(), std::fs::read_to_string(&first).unwrap());
        let image = ground.image();
        typed(&ground, &["image", "import", text(&image).unwrap(), "--name", "busybox"]);
        ground.ledger.images.insert("busybox".to_owned());
        ground.start_node();
        ground
    }

    pub(super) fn line_of_server(&self, data: &Path, api: &str, node: &str) -> Vec<String> {
        std::fs::create_dir_all(data).unwrap();
        let passphrase = self.mine.path().join("passphrase");
        words(&["server", "--listen", api, "--node-listen", node, "--data-dir", text(data).unwrap(), "--passphrase-file", text(&passphrase).unwrap()])
    }

    /// Starts a control plane and waits until it answers. `None` when it was killed before.
    pub(super) fn starts(&self, log: &str, line: &[String], data: &Path) -> Option<impl Drop + use<>> {
        self.begin("server", log, line, data)
    }

    fn begin(&self, name: &'static str, log: &str, line: &[String], data: &Path) -> Option<Part> {
        let endpoints = data.join("endpoints.json");
        let _ = std::fs::remove_file(&endpoints);
        let mut part = Part::start(name, &self.operator, &self.mine.path().join(log), line);
        let up = e2e::wait_for("a server", LIMIT, || {
            let there = std::fs::read(&endpoints).ok().is_some_and(|text| serde_json::from_slice::<Value>(&text).is_ok());
            Ok(if part.died() { Some(false) } else { there.then_some(true) })
        });
        let up = up.unwrap_or_else(|error| panic!("{error}\n{}", part.said()));
        up.then_some(part)
    }

    fn start_server(&mut self) {
        // The file may be armed with a point that lies in the start itself.
        let data = self.place.path().join("server");
        let line = self.server_line.clone();
        self.server = e2e::wait_for("a server that lives", LIMIT, || Ok(self.begin("server", "server.log", &line, &data))).unwrap().into();
    }

    fn start_node(&mut self) {
        let token = self.invite("worker", &["--label", "role=worker"]);
        let dir = self.place.path().join("node");
        let place = ["--node-dir", text(&dir).unwrap(), "--cgroup-parent", self.group.name(), "--id-base", "1887436800", "--id-blocks", "64", "--stop-jobs"];
        self.node_line = words(&[&["node", "run"][..], &place].concat());
        let join = ["node", "join", &self.url, "--ca-pin", &self.pin, "--token-file", text(&token).unwrap()];
        let line = words(&[&join[..], &place].concat());
        self.node = Some(Part::start("node", &self.operator, &self.mine.path().join("node.log"), &line));
        e2e::wait_for("the node to join", LIMIT, || Ok(dir.join("node.json").exists().then_some(()))).unwrap();
    }

    /// Starts again what was killed.
    pub(super) fn mend(&mut self) {
        // Whoever spoke with a dying process may have heard of it before its parent did.
        self.fired();
        if self.server.as_mut().is_some_and(Part::died) {
            self.server = None;
            self.start_server();
        }
        if self.node.as_mut().is_some_and(Part::died) {
            self.node = Some(Part::start("node", &self.operator, &self.mine.path().join("node.log"), &self.node_line));
        }
    }

    /// The next process that reaches this point for the `count`th time dies.
    pub(super) fn arm(&mut self, point: Point, count: u64) {
        self.serial += 1;
        if let Some(pid) = self.victim() {
            std::fs::remove_file(self.armed.with_extension(format!("died-{pid}"))).unwrap();
        }
        // Whole or not at all: others read it.
        let new = self.armed.with_extension("new");
        std::fs::write(&new, format!("{} {count} {}\n", point.name(), self.serial)).unwrap();
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::rename(new, &self.armed).unwrap();
    }

    /// The process that took the file away.
    fn victim(&self) -> Option<u32> {
        let names = std::fs::read_dir(self.mine.path()).unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("armed.died-")?.parse().ok()).next()
    }

    /// Whether somebody died of it; waits until it is dead who is dying.
    pub(super) fn fired(&self) -> bool {
        let Some(pid) = self.victim() else { return false };
        e2e::wait_for("a death", LIMIT, || {
            // What comes after the name, which stands in brackets: Z for a process that nobody has waited for. Its first thread
            // may be dead before the others, which still wait for a disk.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            let gone = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])) && threads <= 1;
            Ok((stat.is_empty() || gone).then_some(()))
        })
        .unwrap();
        true
    }

    pub(super) fn disarm(&self) {
        let _ = std::fs::remove_file(&self.armed);
    }

    /// A token for a node of this name, in a file.
    pub(super) fn invite(&self, name: &str, further: &[&str]) -> PathBuf {
        let made = self.operator.json(&[&["node", "invite", name, "--region", "local", "--jurisdiction", "LOCAL"], further].concat()).unwrap();
        let file = self.mine.path().join(format!("{name}.token"));
        e2e::write_private(&file, made["token"].as_str().unwrap()).unwrap();
        file
    }

    pub(super) fn volume(&self, name: &str) {
        let place = ["--project", "study", "--region", "local", "--sensitivity", "internal", "--purpose", "research"];
        self.tenant.typed(&[&["volume", "create", name], &place[..]].concat()).unwrap().ok().unwrap();
    }

    /// A file to put.
    pub(super) fn source(&self, name: &str) -> PathBuf {
        let path = self.mine.path().join(name);
        std::fs::write(&path, format!("{CANARY} {name}\n").repeat(2000)).unwrap();
        path
    }

    pub(super) fn image(&self) -> PathBuf {
        let path = self.mine.path().join("busybox.tar");
        e2e::busybox_image(&path).unwrap();
        path
    }

    /// A path among what the deployment has.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Who was refused or cut off says why.
    pub(super) fn told(typed: &Typed) -> bool {
        let done = typed.code() == Some(0);
        // A command that was killed itself cannot.
        assert!(done || typed.code().is_none() || !typed.err().trim().is_empty(), "it failed without a word");
        done
    }

    /// What was acknowledged is there, what is there is what was put, and no file of server or node has a secret in it.
    pub(super) fn check(&mut self, what: &str) {
        self.mend();
        let names = |noun: &str| -> BTreeSet<String> {
            let list = self.tenant.json(&[noun, "list"]).unwrap();
            list["items"].as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).map(str::to_owned).collect()
        };
        assert!(names("project").is_superset(&self.ledger.projects), "{what}: an acknowledged project is lost");
        assert!(names("image").is_superset(&self.ledger.images), "{what}: an acknowledged image is lost");
        let opened = tempfile::tempdir_in(self.mine.path()).unwrap();
        let into = opened.path().join("data");
        self.tenant.typed(&["volume", "get", "data", text(&into).unwrap()]).unwrap().ok().unwrap();
        for (name, content) in &self.ledger.files {
            assert_eq!(std::fs::read_to_string(into.join(name)).ok().as_ref(), Some(content), "{what}: `{name}` was acknowledged");
        }
        for found in std::fs::read_dir(&into).unwrap().flatten() {
            let name = found.file_name().into_string().unwrap();
            assert_eq!(std::fs::read_to_string(found.path()).unwrap(), format!("{CANARY} {name}\n").repeat(2000), "{what}: `{name}`");
        }
        self.search(what);
    }

    fn search(&self, what: &str) {
        let mut folders = vec![self.place.path().to_owned()];
        let secrets = [CANARY, PASSPHRASE, PASSWORD];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    // What is mounted is a job's own disk: inside lies its data, below it is enciphered.
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let bytes = std::fs::read(entry.path()).unwrap_or_default();
                    let found = secrets.iter().find(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
                    assert_eq!(found, None, "{what}: a secret stands in {}", entry.path().display());
                }
            }
        }
    }

    /// The log's integrity is proved. A publisher that was killed is followed by the next one when its lease is over.
    pub(super) fn proved(&self, what: &str) {
        let verdict = e2e::wait_for("the published log", LIMIT, || Ok(self.tenant.json(&["audit", "verify"]).ok()));
        let verdict = verdict.unwrap_or_else(|error| panic!("{what}: {error}: {}", self.tenant.typed(&["audit", "verify"]).unwrap().err()));
        assert_eq!(verdict["integrity"], "proved", "{what}: {verdict}");
    }

    /// Ends it, and fails when a process, a mount or a control group is left.
    pub(super) fn close(mut self) {
        self.disarm();
        self.node = None;
        self.server = None;
        // Jobs have groups of their own below it, and those are gone with them.
        let left = e2e::snapshot(&[self.place.path()], self.group.name()).all();
        let left: Vec<_> = left.into_iter().filter(|thing| !(thing.starts_with("control group ") && thing.ends_with(self.group.name()))).collect();
        assert_eq!(left, [format!("folder {}", self.place.path().display())], "something is left");
    }
}
