//! Pulling from a real registry: Debian's `docker-registry`, filled by `skopeo`, with a login.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{World, text};

const USER: &str = "robot";
const PASSWORD: &str = "hunter2 of the tests";
/// bcrypt of [`PASSWORD`], as `htpasswd -B` writes it.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuulC6LvjOEXzozO.B.Z1KcN8IKnfte7nu";

/// A registry that lives as long as the test.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let users = folder.join("users");
        std::fs::write(&users, format!("{USER}:{HASH}\n")).unwrap();
        // It cannot tell which port it got: one that is free now is taken, and another if somebody was faster.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let config = folder.join("registry.yml");
            let store = folder.join("store");
            let yaml = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n\
                 auth:\n  htpasswd:\n    realm: tests\n    path: {}\n",
                store.display(),
                users.display()
            );
            std::fs::write(&config, yaml).unwrap();
            let child = Command::new("docker-registry").arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.expect("docker-registry: cargo xtask setup installs it");
            let up = e2e::wait_for("the registry", Duration::from_secs(30), || {
                let ended = child.try_wait()?.is_some();
                Ok((ended || std::net::TcpStream::connect(&address).is_ok()).then_some(!ended))
            });
            if up.unwrap() {
                return Self { child, address };
            }
        }
        panic!("no registry came up");
    }

    /// Copies an archive into it.
    fn push(&self, archive: &Path, name: &str) {
        let credentials = format!("{USER}:{PASSWORD}");
        let (from, to) = (format!("oci-archive:{}", archive.display()), format!("docker://{}/{name}", self.address));
        let done = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds", &credentials, &from, &to])
            .output()
            .expect("skopeo: cargo xtask setup installs it");
        assert!(done.status.success(), "skopeo: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn an_image_comes_from_a_registry_by_tag_and_runs_by_digest() {
    let world = World::new().unwrap();
    let registry = Registry::start(world.folder());
    let archive = world.folder().join("busybox.tar");
    e2e::busybox_image(&archive).unwrap();
    registry.push(&archive, "tools/busybox:1");
    let secret = |name: &str, uses: &str, value: &str| {
        let arguments = ["secret", "create", name, "--project", e2e::PROJECT, "--for", uses];
        world.tenant.typed_with(&arguments, &format!("{value}\n")).unwrap().ok().unwrap();
    };
    secret("registry", "pull", &format!("{USER}:{PASSWORD}"));
    secret("wrong", "pull", &format!("{USER}:guessed"));
    secret("for-jobs", "job", &format!("{USER}:{PASSWORD}"));
    let cache = world.folder().join("cache");
    let image = format!("{}/tools/busybox:1", registry.address);
    let flags = ["--plain-http", "--cache-dir", text(&cache).unwrap()];
    let pull = |image: &str, more: &[&str]| world.tenant.typed(&[&["image", "pull", image], &flags[..], more].concat()).unwrap();

    // Who may not, does not; and it is said which way it failed.
    assert!(pull(&image, &[]).refused(4).unwrap().contains("asks for credentials"));
    pull(&image, &["--secret", "wrong"]).refused(4).unwrap();
    assert!(pull(&image, &["--secret", "for-jobs"]).refused(7).unwrap().contains("secret-pulls"));
    let absent = format!("{}/tools/busybox:absent", registry.address);
    pull(&absent, &["--secret", "registry"]).refused(3).unwrap();
    let other = format!("{}/tools/busybox@sha256:{}", registry.address, "0".repeat(64));
    pull(&other, &["--secret", "registry"]).refused(3).unwrap();
    pull("registry.example/tools/busybox:1", &["--secret", "registry"]).refused(2).unwrap();

    let said = pull(&image, &["--secret", "registry"]).ok().unwrap();
    assert!(said.err().contains(&format!("{image} is sha256:")), "{}", said.err());
    let listed = world.tenant.json(&["image", "list"]).unwrap();
    let digest = listed["items"][0]["manifest"].as_str().unwrap().to_owned();
    assert_eq!(listed["items"][0]["name"], "busybox");
    assert_eq!(listed["items"][0]["source"], image);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0, "what is imported is not kept");
    world.job(&[], "echo from the registry").unwrap().ok().unwrap();
    // By digest, and with a user and a password from standard input.
    let by_digest = format!("{}/tools/busybox@{digest}", registry.address);
    let arguments = [&["image", "pull", &by_digest, "--username", USER, "--name", "again"], &flags[..]].concat();
    world.tenant.typed_with(&arguments, &format!("{PASSWORD}\n")).unwrap().ok().unwrap();
    let opened = world.tenant.typed(&["-o", "json", "audit", "search", "--action", "secretOpen"]).unwrap().ok().unwrap().out();
    assert!(opened.contains("secret_released") && !opened.contains(PASSWORD), "{opened}");
    drop(registry);
    world.close().unwrap();
}
