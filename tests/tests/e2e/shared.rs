//! Two control planes on one database of PostgreSQL, as separate processes.

use std::path::Path;
use std::time::Duration;

use e2e::{Cluster, Person, Plane, Shell, Stop};
use serde_json::Value;

/// Long for what takes a second or two, as the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);
/// Revocation reaches every process within this time.
const REVOKED: Duration = Duration::from_secs(5);

/// What both need to find each other's state.
struct Ground {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        Self { cluster: Cluster::start(), folder: tempfile::Builder::new().prefix("swarm-test-").tempdir().unwrap() }
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
    fn start(&self, name: &str) -> Plane {
        let (url, objects) = (self.cluster.url_of("swarm"), self.path("objects").display().to_string());
        Plane::start(&e2e::program().unwrap(), &self.path(name), &["--database", &url, "--objects", &objects]).unwrap()
    }
    /// Holder, token and size of the log's publisher, and how many entries there are.
    fn publisher(&self) -> (String, u64, u64, u64) {
        let row = self.cluster.psql(
            "swarm",
            "SELECT encode(holder, 'hex'), token, size, (SELECT value FROM swarm.counter WHERE name = 'audit') FROM swarm.publisher",
        );
        let fields: Vec<&str> = row.split('|').collect();
        let number = |place: usize| fields[place].parse().unwrap();
        (fields[0].to_owned(), number(1), number(2), number(3))
    }
    /// Waits until everything is published; gives holder and token.
    fn published(&self) -> (String, u64) {
        e2e::wait_for("the log to be published", LIMIT, || {
            let (holder, token, size, entries) = self.publisher();
            Ok((size == entries).then_some((holder, token)))
        })
        .unwrap()
    }
}

/// Proves the whole log at one control plane; gives its size and root.
fn proved(shell: &Shell) -> (u64, String) {
    let verdict = shell.json(&["audit", "verify"]).unwrap();
    assert_eq!(verdict["integrity"], "proved", "{verdict}");
    (verdict["size"].as_u64().unwrap(), verdict["root"].as_str().unwrap().to_owned())
}

/// An administrator who is logged in as operator at this control plane.
fn administrator(plane: &Plane) -> (Shell, Person) {
    let shell = plane.shell("operator");
    let mut admin = Person::new("admin", "a long password of the tests");
    admin.enrol(&shell, plane.url(), plane.ca_pin(), &plane.ticket().unwrap(), Some("operator")).unwrap();
    (shell, admin)
}

fn create(shell: &Shell, name: &str) {
    shell.typed(&["tenant", "create", name, "--admin", "admin"]).unwrap().ok().unwrap();
}

fn tenants(shell: &Shell) -> Vec<String> {
    let list = shell.json(&["tenant", "list"]).unwrap();
    let names = list["items"].as_array().unwrap().iter().map(|tenant| tenant["name"].as_str().unwrap().to_owned());
    names.collect()
}

#[test]
fn what_is_revoked_at_one_is_refused_by_the_other() {
    let ground = Ground::new();
    let (one, two) = (ground.start("one"), ground.start("two"));
    assert_eq!(one.ca_pin(), two.ca_pin(), "one deployment");
    let (here, _) = administrator(&one);
    let there = two.shell_of(&here).unwrap();
    // What is written at one is read at the other, and the other way round.
    create(&here, "clinic");
    create(&there, "laboratory");
    for shell in [&here, &there] {
        let mut names = tenants(shell);
        names.sort();
        assert_eq!(names, ["clinic", "laboratory"]);
    }
    assert_eq!(there.json(&["status"]).unwrap()["deployment"], here.json(&["status"]).unwrap()["deployment"]);
    // The token is revoked at one: the other refuses it.
    here.typed(&["logout"]).unwrap().ok().unwrap();
    e2e::wait_for("the other control plane to refuse the token", REVOKED, || {
        let answer = there.typed(&["tenant", "list"])?;
        Ok((answer.code() == Some(4)).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_node_that_is_revoked_at_one_is_refused_by_the_other() {
    let ground = Ground::new();
    let (one, two) = (ground.start("one"), ground.start("two"));
    let (here, mut admin) = administrator(&one);
    let there = two.shell_of(&here).unwrap();
    // It joins one, and talks to that alone; the other knows of it.
    let token = there.json(&["node", "invite", "far", "--region", "local", "--jurisdiction", "LOCAL"]).unwrap();
    let (file, dir, log) = (ground.path("join-token"), ground.path("far"), ground.path("far.log"));
    e2e::write_private(&file, token["token"].as_str().unwrap()).unwrap();
    let group = format!("swarm-far-{}", std::process::id());
    let join = [
        "node", "join", one.url(), "--ca-pin", one.ca_pin(), "--token-file", file.to_str().unwrap(), "--node-dir", dir.to_str().unwrap(),
        "--cgroup-parent", &group, "--id-base", "1887436800", "--stop-jobs",
    ];
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let output = std::fs::File::create(&log).unwrap();
    let mut agent = here.command(&join).stdin(std::process::Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let state = |shell: &Shell| shell.json(&["node", "list"]).map(|list| list["items"][0]["state"].clone());
    e2e::wait_for("the node at the other control plane", LIMIT, || Ok((state(&there)? == "alive").then_some(())))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", said()));
    let code = admin.code().unwrap();
    there.typed_with(&["node", "revoke", "far", "--yes"], &format!("{code}\n")).unwrap().ok().unwrap();
    e2e::wait_for("the control plane that it talks to, to refuse it", REVOKED, || {
        Ok(said().contains("revoked: an operator revoked this node").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", said()));
    assert_eq!(state(&here).unwrap(), "revoked");
    e2e::signal("TERM", agent.id()).unwrap();
    e2e::wait_for("the agent's end", LIMIT, || Ok(agent.try_wait()?)).unwrap();
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
        let _ = std::fs::remove_dir(Path::new(root).join(&group));
    }
}

#[test]
fn the_log_has_one_publisher_and_never_forks() {
    let ground = Ground::new();
    let mut one = ground.start("one");
    let (here, mut admin) = administrator(&one);
    create(&here, "first");
    let tenant = one.shell("tenant");
    admin.login(&tenant, Some((one.url(), one.ca_pin())), "first").unwrap();
    let (first, token) = ground.published();
    let two = ground.start("two");
    let (there, tenant_there) = (two.shell_of(&here).unwrap(), two.shell_of(&tenant).unwrap());
    let before = proved(&tenant);

    // Killed: the other takes over, and the log goes on where it was.
    one.kill().unwrap();
    create(&there, "second");
    let (second, taken) = ground.published();
    assert!(second != first && taken > token, "{first} {token}, {second} {taken}");
    let after = proved(&tenant_there);
    assert!(after.0 > before.0);

    // Paused: a third takes over from the second, which wakes up later and publishes nothing as the one it was.
    let three = ground.start("three");
    let (third, tenant_third) = (three.shell_of(&here).unwrap(), three.shell_of(&tenant).unwrap());
    create(&there, "third");
    let (holder, token) = ground.published();
    let (paused, awake, asleep) = if holder == second {
        (&two, (&third, &tenant_third), (&there, &tenant_there))
    } else {
        (&three, (&there, &tenant_there), (&third, &tenant_third))
    };
    paused.signal("STOP").unwrap();
    create(awake.0, "fourth");
    let (other, taken) = ground.published();
    assert!(other != holder && taken > token, "{holder} {token}, {other} {taken}");
    let while_paused = proved(awake.1);
    paused.signal("CONT").unwrap();
    create(asleep.0, "fifth");
    ground.published();
    let (whole, again) = (proved(awake.1), proved(asleep.1));
    assert!(whole.0 > while_paused.0 && again.0 >= whole.0);
    assert!(again.0 <= ground.publisher().3);
    for shell in [awake.0, asleep.0] {
        assert_eq!(tenants(shell).len(), 5);
    }
    // Each entry has one place: none was numbered twice or lost.
    let holes = ground.cluster.psql("swarm", "SELECT count(*), max(idx) + 1, count(DISTINCT idx) FROM swarm.audit_entry");
    let numbers: Vec<&str> = holes.split('|').collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{holes}");
}

#[test]
fn a_second_control_plane_without_the_shared_objects_is_refused() {
    let ground = Ground::new();
    let one = ground.start("one");
    let refused = |objects: Option<&Path>, database: &str| {
        let mut further = vec!["--database", database];
        let objects = objects.map(|objects| objects.display().to_string());
        further.extend(objects.iter().flat_map(|objects| ["--objects", objects.as_str()]));
        let arguments = Plane::command_line(&ground.path("other"), &further).unwrap();
        one.shell("other").typed(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
    };
    let url = ground.cluster.url_of("swarm");
    let lonely = refused(None, &url);
    assert!(lonely.code() == Some(1) && lonely.err().contains("--objects"), "{:?} {}", lonely.code(), lonely.err());
    let elsewhere = refused(Some(&ground.path("elsewhere")), &url);
    assert!(elsewhere.code() == Some(1) && elsewhere.err().contains("--objects"), "{:?} {}", elsewhere.code(), elsewhere.err());

    // A password among the arguments is refused, and not repeated.
    let told = refused(None, "postgres://swarm:hunter2@127.0.0.1/swarm?sslmode=disable");
    assert!(told.code() == Some(2) && told.err().contains("password"), "{:?} {}", told.code(), told.err());
    assert!(!told.err().contains("hunter2"), "{}", told.err());
    // A server that is not there is named.
    let away = refused(None, "postgres:///swarm?host=/nonexistent&user=swarm");
    assert!(away.code() == Some(1) && away.err().contains("/nonexistent"), "{:?} {}", away.code(), away.err());
    // The first one is as it was.
    assert!(Value::is_object(&administrator(&one).0.json(&["status"]).unwrap()));
}

#[test]
fn while_the_database_is_away_whoever_reads_is_told_to_come_back() {
    let mut ground = Ground::new();
    let one = ground.start("one");
    let (shell, _) = administrator(&one);
    create(&shell, "before");
    ground.cluster.stop(Stop::Immediate);
    // Reads and writes alike: unavailable, not a defect of the server, for as long as it takes.
    for words in [&["tenant", "list"][..], &["node", "list"], &["tenant", "create", "during", "--admin", "admin"]] {
        let typed = shell.typed(words).unwrap();
        assert!(typed.code() != Some(0) && typed.err().contains("[unavailable]"), "{words:?}: {:?} {}", typed.code(), typed.err());
    }
    ground.cluster.again();
    e2e::wait_for("the database to be used again", LIMIT, || Ok((shell.typed(&["tenant", "list"])?.code() == Some(0)).then_some(()))).unwrap();
    assert!(tenants(&shell).contains(&"before".to_owned()));
}
