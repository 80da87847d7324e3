//! A backup of a running `swarm server`, restored, by the command line.

use e2e::{Person, Plane};

#[test]
fn a_running_server_is_backed_up_and_restored() {
    let folder = tempfile::Builder::new().prefix("swarm-test-").tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut plane = Plane::start(&e2e::program().unwrap(), &folder.path().join("server"), &[]).unwrap();
    let shell = plane.shell("operator");
    let mut admin = Person::new("admin", "a long password of the tests");
    admin.enrol(&shell, plane.url(), plane.ca_pin(), &plane.ticket().unwrap(), Some("operator")).unwrap();
    shell.typed(&["tenant", "create", "before", "--admin", "admin"]).unwrap().ok().unwrap();

    let (server, backup, restored) = (path("server"), path("backup"), path("restored"));
    let refused = shell.typed(&["server", "backup", "--data-dir", &path("nowhere"), "--to", &backup]).unwrap().refused(3).unwrap();
    assert!(refused.contains("there is no database"), "{refused}");
    let made = shell.json(&["server", "backup", "--data-dir", &server, "--to", &backup]).unwrap();
    let digest = made["digest"].as_str().unwrap();
    assert!(made["entries"].as_u64().unwrap() > 0 && made["format"] == "swarm-backup", "{made}");
    shell.typed(&["server", "backup", "--data-dir", &server, "--to", &backup]).unwrap().refused(5).unwrap();
    shell.typed(&["tenant", "create", "after", "--admin", "admin"]).unwrap().ok().unwrap();
    for secret in ["passphrase", "first-ticket"] {
        assert!(!folder.path().join("backup").join(secret).exists(), "{secret} is in the backup");
    }

    let restore = ["server", "restore", "--from", &backup, "--into", &restored];
    let other = format!("sha256:{}", "0".repeat(64));
    shell.typed(&[restore.as_slice(), &["--digest", &other]].concat()).unwrap().refused(6).unwrap();
    shell.typed(&["server", "restore", "--from", &server, "--into", &restored]).unwrap().refused(3).unwrap();
    shell.typed(&["server", "restore", "--from", &backup, "--into", &server]).unwrap().refused(5).unwrap();
    let database = folder.path().join("backup/state.db");
    let whole = std::fs::read(&database).unwrap();
    let mut changed = whole.clone();
    changed[5000] ^= 1;
    std::fs::write(&database, changed).unwrap();
    let refused = shell.typed(&restore).unwrap().refused(6).unwrap();
    assert!(refused.contains("`state.db`"), "{refused}");
    assert!(!folder.path().join("restored").exists());
    std::fs::write(&database, whole).unwrap();
    // Without the shred list it is said what nobody can tell; with it, what was done.
    let without = path("without");
    let told = shell.typed(&["server", "restore", "--from", &backup, "--into", &without, "--no-shred-list"]).unwrap().ok().unwrap();
    assert!(told.out().contains("what was destroyed after the backup is back") && told.err().contains("nobody can tell what that is"), "{}", told.err());
    let (list, foreign) = (format!("{server}/shred-list"), path("foreign-list"));
    std::fs::write(&foreign, "{} AAAA\n").unwrap();
    let refused = shell.typed(&[restore.as_slice(), &["--shred-list", &foreign]].concat()).unwrap().refused(6).unwrap();
    assert!(refused.contains("line 1 is not signed by this deployment"), "{refused}");
    let told = shell.typed(&[&["-o", "json"], restore.as_slice(), &["--digest", digest, "--shred-list", &list]].concat()).unwrap().ok().unwrap();
    assert!(told.out().contains(digest), "{}", told.out());
    let told = told.json().unwrap();
    assert!(told["shreds"]["keys"] == 0 && told["shreds"]["until"].as_u64().unwrap() > 0, "{told}");
    plane.stop().unwrap();

    // The same deployment: the pin, the login and the factors hold, and its log proves.
    let again = Plane::start(&e2e::program().unwrap(), &folder.path().join("restored"), &[]).unwrap();
    assert_eq!(again.ca_pin(), plane.ca_pin());
    let shell = again.shell_of(&shell).unwrap();
    let tenants = shell.json(&["tenant", "list"]).unwrap();
    let names: Vec<&str> = tenants["items"].as_array().unwrap().iter().filter_map(|tenant| tenant["name"].as_str()).collect();
    assert_eq!(names, ["before"]);
    let member = again.shell("member");
    admin.login(&member, Some((again.url(), again.ca_pin())), "before").unwrap();
    let verdict = member.json(&["audit", "verify"]).unwrap();
    assert_eq!(verdict["integrity"], "proved", "{verdict}");
}
