//! People's data and secrets are sealed where the person is: no byte of them is in the server's memory, on its disk or in the
//! traffic to it. A secret of a job stands in no environment either.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{World, text};
use serde_json::Value;

/// Passes connections on to the server and keeps what it sees.
fn wiretap(server: &str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.trim_start_matches("https://").to_owned();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let Ok(near) = near else { return };
            let Ok(far) = TcpStream::connect(&server) else { return };
            for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let sink = Arc::clone(&sink);
                std::thread::spawn(move || pass(from, to, &sink));
            }
        }
    });
    (format!("https://{address}"), seen)
}

fn pass(mut from: TcpStream, mut to: TcpStream, sink: &Mutex<Vec<u8>>) {
    let mut piece = [0; 16384];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        sink.lock().unwrap().extend_from_slice(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn holds(bytes: &[u8], canary: &[u8]) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary)
}

/// Whether any readable page of a process holds the text.
fn in_memory(pid: u32, canary: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut read = 0_u64;
    let mut found = false;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = Vec::new();
        memory.seek(SeekFrom::Start(from)).unwrap();
        // Some mappings cannot be read; what could be is looked at.
        let _ = std::io::Read::by_ref(&mut memory).take(to - from).read_to_end(&mut bytes);
        read += bytes.len() as u64;
        found |= holds(&bytes, canary);
    }
    assert!(read > 1 << 20, "only {read} bytes of process {pid} could be read");
    found
}

/// The processes of this machine whose environment or command line holds the text.
fn environments(canary: &[u8]) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let (mut found, mut read) = (Vec::new(), 0);
    for pid in pids {
        for file in ["environ", "cmdline"] {
            let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{file}")) else { continue };
            read += bytes.len();
            if holds(&bytes, canary) {
                found.push(pid);
            }
        }
    }
    assert!(read > 1000, "only {read} bytes of environments could be read");
    found
}

fn on_disk(folder: &Path, canary: &[u8]) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            // Memory that is never swapped is no disk: there a job's secrets lie while it runs.
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            if mounts.lines().any(|line| line.contains(" - ramfs ") && line.split(' ').nth(4).is_some_and(|point| Path::new(point) == path)) {
                continue;
            }
            if let Some(found) = on_disk(&path, canary) {
                return Some(found);
            }
        } else if kind.is_file() && std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, canary)) {
            return Some(path);
        }
    }
    None
}

#[test]
fn the_server_never_sees_the_data() {
    let mut world = World::with_image().unwrap();
    let (tapped, seen) = wiretap(world.deployment.url());
    let pin = world.deployment.ca_pin().to_owned();
    world.admin.login(&world.tenant, Some((&tapped, &pin)), e2e::TENANT).unwrap();
    for volume in ["patients", "result"] {
        world.volume(volume).unwrap();
    }
    let canary = format!("canary-{:x}-{}", std::process::id(), "sings in the mine");
    let token = format!("token-{:x}-{}", std::process::id(), "of the hub");
    world.tenant.typed_with(&["secret", "create", "hub", "--project", e2e::PROJECT], &format!("{token}\n")).unwrap().ok().unwrap();
    let data = world.file("data.csv", canary.repeat(3000).as_bytes()).unwrap();
    world.tenant.typed(&["volume", "put", "patients", text(&data).unwrap()]).unwrap().ok().unwrap();
    world.job(&["--input", "patients", "--output", "result"], "cp /inputs/patients/data.csv /outputs/result/").unwrap().ok().unwrap();
    // The job is given the token: in a file of its own memory, and nowhere else that it could leak from by accident.
    let script = "test \"$(wc -c < /run/secrets/hub)\" -gt 8 && ! grep -r token- /proc/self/environ /proc/1/environ && sleep 600";
    let sleeper = world.submit(&["--secret", "hub"], script).unwrap();
    world.wait_for_state(&sleeper, &["running"], Duration::from_secs(60)).unwrap();
    assert_eq!(environments(token.as_bytes()), Vec::<u32>::new(), "an environment or a command line holds the token");
    assert_eq!(on_disk(&world.deployment.data(), token.as_bytes()), None, "the disk holds the token while the job runs");
    world.tenant.typed(&["job", "stop", &sleeper]).unwrap().ok().unwrap();
    world.wait_for_state(&sleeper, &["failed", "exited"], Duration::from_secs(60)).unwrap();
    let receipt = world.tenant.typed(&["job", "receipt", &sleeper]).unwrap().ok().unwrap();
    let receipt_file = world.file("receipt.json", receipt.bytes()).unwrap();
    let verified = world.tenant.typed(&["verify", text(&receipt_file).unwrap()]).unwrap().ok().unwrap().out();
    assert!(verified.contains("secret `hub` was given under a logged release"), "{verified}");
    let told = [receipt.out(), verified, world.tenant.typed(&["-o", "json", "audit", "search"]).unwrap().out(), world.deployment.log()].concat();
    assert!(!holds(told.as_bytes(), token.as_bytes()), "receipt, audit log or server log hold the token");
    let opened = world.folder().join("opened");
    world.tenant.typed(&["volume", "get", "result", text(&opened).unwrap()]).unwrap().ok().unwrap();
    assert!(holds(&std::fs::read(opened.join("data.csv")).unwrap(), canary.as_bytes()), "the data came back");

    // The three searches can find something: in our own memory, in the person's folder, in plain traffic.
    assert!(in_memory(std::process::id(), canary.as_bytes()));
    assert_eq!(on_disk(&opened, canary.as_bytes()), Some(opened.join("data.csv")));
    let traffic = e2e::wait_for("traffic", Duration::from_secs(30), || {
        let seen = seen.lock().unwrap().clone();
        Ok((seen.len() > canary.len() * 6000).then_some(seen))
    })
    .unwrap();
    assert!(holds(&traffic, &[0x16, 3]), "TLS records are seen");

    let record: Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join("run/up.json")).unwrap()).unwrap();
    let server = record["parts"].as_array().unwrap().iter().find(|part| part[0] == "server").unwrap()[1]["pid"].as_u64().unwrap();
    assert!(!in_memory(u32::try_from(server).unwrap(), canary.as_bytes()), "the server's memory holds the data");
    assert_eq!(on_disk(&world.deployment.data(), canary.as_bytes()), None, "the disk holds the data");
    assert!(!holds(&traffic, canary.as_bytes()), "the traffic holds the data");
    assert!(!in_memory(u32::try_from(server).unwrap(), token.as_bytes()), "the server's memory holds the token");
    assert_eq!(on_disk(&world.deployment.data(), token.as_bytes()), None, "the disk holds the token");
    assert!(!holds(&traffic, token.as_bytes()), "the traffic holds the token");
    world.close().unwrap();
}
