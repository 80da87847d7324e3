//! The clock of a server is set, forth and back, while it runs and while it does not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Person, Plane, Shell};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
/// Longer than a login, a run lease and a node's certificate live.
const DAYS: i64 = 3 * 86_400;

struct Ground {
    folder: tempfile::TempDir,
    operator: Shell,
}

impl Ground {
    fn data(&self) -> PathBuf {
        self.folder.path().join("plane")
    }
    fn clock(&self) -> PathBuf {
        self.folder.path().join("clock")
    }
    /// Sets the server's clock: replaced as a whole, because the server reads it at any time.
    fn set(&self, seconds: i64) {
        let beside = self.folder.path().join("clock.new");
        std::fs::write(&beside, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(beside, self.clock()).unwrap();
    }
    fn create(&self, name: &str) {
        self.operator.typed(&["tenant", "create", name, "--admin", "admin"]).unwrap().ok().unwrap();
    }
    fn tenants(&self) -> Vec<Value> {
        self.operator.json(&["tenant", "list"]).unwrap()["items"].as_array().unwrap().clone()
    }
    /// What a server says that does not start.
    fn refused(&self) -> String {
        match Plane::start_by_clock(&e2e::program().unwrap(), &self.data(), &self.clock()) {
            Err(error) => format!("{error:#}"),
            Ok(_) => panic!("it started"),
        }
    }
}

/// The time in an id (RFC 9562, UUID version 7: 48 bits of milliseconds since 1970).
fn millis_of(row: &Value) -> u64 {
    let digits: String = row["id"].as_str().unwrap().chars().filter(char::is_ascii_hexdigit).take(12).collect();
    u64::from_str_radix(&digits, 16).unwrap()
}

fn said(data: &Path) -> String {
    std::fs::read_to_string(data.join("said.log")).unwrap()
}

#[test]
fn a_server_goes_on_when_its_clock_is_set_and_does_not_start_behind_what_it_acknowledged() {
    let folder = tempfile::Builder::new().prefix("swarm-test-").tempdir().unwrap();
    let program = e2e::program().unwrap();
    let operator = Shell::new(&program, &folder.path().join("operator"));
    let ground = Ground { folder, operator };
    ground.set(0);
    let mut plane = Plane::start_by_clock(&program, &ground.data(), &ground.clock()).unwrap();
    let mut admin = Person::new("admin", "a long password of the tests");
    admin.enrol(&ground.operator, plane.url(), plane.ca_pin(), &plane.ticket().unwrap(), Some("operator")).unwrap();
    ground.create("first");
    let member = Shell::new(&program, &ground.folder.path().join("member"));
    admin.login(&member, Some((plane.url(), plane.ca_pin())), "first").unwrap();

    // Set while it runs: logins go on, times are those that passed, and the log is published.
    for (seconds, name) in [(DAYS, "second"), (-DAYS, "third"), (0, "fourth")] {
        ground.set(seconds);
        ground.create(name);
        let tenants = ground.tenants();
        let created = |name: &str| millis_of(tenants.iter().find(|tenant| tenant["name"] == name).unwrap());
        let passed = created(name).checked_sub(created("first")).unwrap();
        assert!(passed < u64::try_from(LIMIT.as_millis()).unwrap() * 10, "{name} came {passed} ms later");
        let verdict = e2e::wait_for("the log", LIMIT, || Ok(member.json(&["audit", "verify"]).ok())).unwrap();
        assert_eq!(verdict["integrity"], "proved", "{verdict}");
    }
    let told = said(&ground.data());
    assert_eq!(told.matches("this machine's clock was set").count(), 2, "{told}");
    assert!(told.contains("agrees with this server's again"), "{told}");

    // Set while it stands still: behind what was acknowledged it does not start, and says why; ahead it does.
    plane.stop().unwrap();
    ground.set(-DAYS);
    let refused = ground.refused();
    assert!(refused.contains("behind the latest committed time"), "{refused}");
    ground.set(DAYS);
    let mut ahead = Plane::start_by_clock(&program, &ground.data(), &ground.clock()).unwrap();
    let late = ahead.shell_of(&ground.operator).unwrap();
    let days_apart = late.typed(&["tenant", "list"]).unwrap();
    assert!(days_apart.code() == Some(1) && days_apart.err().contains("set the clock right"), "{:?} {}", days_apart.code(), days_apart.err());
    ahead.stop().unwrap();
    // What was committed in days to come binds: nothing was changed, and with that clock it starts again.
    ground.set(0);
    let refused = ground.refused();
    assert!(refused.contains("behind the latest committed time"), "{refused}");
    ground.set(DAYS);
    Plane::start_by_clock(&program, &ground.data(), &ground.clock()).unwrap().stop().unwrap();
}
