//! People's data is sealed where the person is: no byte of it is in the server's memory, on its disk or in the traffic to it.

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

fn on_disk(folder: &Path, canary: &[u8]) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
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
    let data = world.file("data.csv", canary.repeat(3000).as_bytes()).unwrap();
    world.tenant.typed(&["volume", "put", "patients", text(&data).unwrap()]).unwrap().ok().unwrap();
    world.job(&["--input", "patients", "--output", "result"], "cp /inputs/patients/data.csv /outputs/result/").unwrap().ok().unwrap();
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
    world.close().unwrap();
}
