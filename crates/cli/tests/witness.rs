//! `swarm witness` as others meet it: recorded conversations over HTTP, `kill -9` at any moment, a folder restored from a copy.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: it starts processes, works on its own files, and stops where something is not as it must be"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use audit::key::{Ed25519Signer, KeyKind, VerifierKey, verifier_of};
use audit::note::Note;
use audit::witness::{AddCheckpoint, origin_hash};
use audit::{Checkpoint, Hash, LogSigner as _, TilePath, append};

const SIGSUM: &str = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562";
const SUMDB: &str = "go.sum database tree=sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

struct Program {
    child: Child,
    address: String,
    key: VerifierKey,
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL: nothing of it runs on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, logs: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
    command.args(["witness", "--name", "example.com/witness", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("witness"));
    for log in logs {
        command.args(["--log", log]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(dir: &Path, logs: &[String]) -> Program {
    let mut child = command(dir, logs).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut key, mut said) = (None, Vec::new());
    while let Some(Ok(line)) = lines.next() {
        if let Some(text) = line.strip_prefix("witness key") {
            key = Some(text.trim().parse().unwrap());
        }
        if let Some(text) = line.strip_prefix("listening on") {
            let address = text.trim().strip_prefix("http://").unwrap().to_owned();
            // Whatever it says from here on is read, so that it never waits for us.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Program { child, address, key: key.unwrap() };
        }
        said.push(line);
    }
    let _ = child.wait();
    panic!("it did not start: {said:?}");
}

/// One request over a connection of its own. `None` when the program is gone.
fn ask(address: &str, head: &str, body: &[u8]) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = if head.starts_with("POST") { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    stream.write_all(format!("{head} HTTP/1.1\r\nhost: witness\r\nconnection: close\r\n{length}\r\n").as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().to_owned();
    // An answer that was cut off is none.
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    (body.len() == length).then(|| (status, kind, body.to_owned()))
}

fn post(program: &Program, body: &[u8]) -> Option<(u16, String, String)> {
    ask(&program.address, "POST /add-checkpoint", body)
}

/// Body, status and assertions of each request.
fn conversation(name: &str) -> Vec<(String, u16, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit/testdata/witness").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let parts = text.split("POST http").skip(1).map(|part| {
        let (_, rest) = part.split_once("```\n").unwrap();
        let (body, rest) = rest.split_once("```\n").unwrap();
        let mut lines = rest.lines().filter(|line| !line.is_empty() && *line != "[Asserts]");
        let status = lines.next().unwrap().strip_prefix("HTTP ").unwrap().parse().unwrap();
        (body.to_owned(), status, lines.map(str::to_owned).collect())
    });
    parts.collect()
}

#[test]
fn recorded_conversations_pass_over_http() {
    let place = tempfile::tempdir().unwrap();
    let key: [u8; 32] = [
        0xff, 0xdc, 0x2d, 0x4d, 0x98, 0xe4, 0x12, 0x4d, 0x3f, 0xea, 0xf7, 0x88, 0xc0, 0xc2, 0xf9, 0xab, 0xfd, 0x79, 0x60, 0x83, 0xd1, 0xf0, 0x49,
        0x54, 0x37, 0xf3, 0x02, 0xec, 0x79, 0xcf, 0x10, 0x0f,
    ];
    let sigsum = VerifierKey::new(SIGSUM, KeyKind::Ed25519, key).unwrap().to_string();
    let program = start(place.path(), &[sigsum, SUMDB.to_owned()]);
    for name in ["litewitness.hurl", "sumdb.hurl"] {
        for (number, (body, status, asserts)) in conversation(name).into_iter().enumerate() {
            let (got, kind, text) = post(&program, body.as_bytes()).unwrap();
            // Today's specification: 404 for an unknown log, which was 403 when this was recorded.
            let expected = if asserts == ["body contains \"unknown log\""] { 404 } else { status };
            assert_eq!(got, expected, "{name}, request {number}: {text}");
            for assert in asserts {
                match assert.strip_prefix("body contains ") {
                    Some(part) => assert!(text.contains(part.trim_matches('"')), "{name}, request {number}: {text}"),
                    None => {
                        let whole = assert.strip_prefix("body == ").unwrap().trim_matches('"').replace("\\n", "\n");
                        assert_eq!((text.as_str(), kind.as_str()), (whole.as_str(), "text/x.tlog.size"), "{name}, request {number}");
                    }
                }
            }
        }
    }
    for (origin, size) in [(SIGSUM, 5), ("go.sum database tree", 35_225_469)] {
        let (status, _, text) = ask(&program.address, &format!("GET /{}/checkpoint", origin_hash(origin)), b"").unwrap();
        let note = Note::parse(text.as_bytes()).unwrap();
        assert_eq!(note.verify(std::slice::from_ref(&program.key)).unwrap().len(), 1);
        assert_eq!((status, audit::witness::parse_foreign(note.text()).unwrap().size), (200, size));
    }
    // What is no request of the protocol.
    let huge = vec![b'x'; audit::limits::WITNESS_REQUEST_MAX + 1];
    assert_eq!(post(&program, &huge).map(|(status, ..)| status), Some(413));
    assert_eq!(post(&program, b"\xff\xfe").unwrap().0, 400);
    assert_eq!(ask(&program.address, "GET /add-checkpoint", b"").unwrap().0, 405);
    assert_eq!(ask(&program.address, "GET /0000/checkpoint", b"").unwrap().0, 404);
}

/// A log of ours.
struct Log {
    signer: Ed25519Signer,
    tiles: BTreeMap<TilePath, Vec<u8>>,
    size: u64,
    root: Hash,
}

impl Log {
    fn new() -> Self {
        Self { signer: Ed25519Signer::from_seed("log.example/a", &[7; 32]).unwrap(), tiles: BTreeMap::new(), size: 0, root: audit::hash::empty_root() }
    }
    fn grow(&mut self, leaf: &str) {
        let appended = append(&self.tiles, self.size, &self.root, &[leaf.as_bytes()]).unwrap();
        self.tiles.extend(appended.files);
        (self.size, self.root) = (appended.size, appended.root);
    }
    fn request(&self, old: u64) -> Vec<u8> {
        let checkpoint = Checkpoint { origin: self.signer.name().to_owned(), size: self.size, root: self.root };
        let proof = audit::prove::prove_consistency(&self.tiles, old, self.size).unwrap();
        AddCheckpoint { old, proof, note: checkpoint.sign(&self.signer).unwrap() }.encode()
    }
    fn key(&self) -> String {
        verifier_of(&self.signer, KeyKind::Ed25519).unwrap().to_string()
    }
}

/// Killed between, before and in the middle of requests: what was signed is never forgotten, and a fork is refused each time.
#[test]
fn kill_9_at_any_moment_forgets_nothing_that_was_signed() {
    let place = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let mut random = 0x5eed_u64;
    let mut signed = 0;
    let mut key = None;
    for round in 0..20 {
        let mut program = start(place.path(), &[log.key()]);
        assert_eq!(*key.get_or_insert_with(|| program.key.clone()), program.key, "the key is kept");
        // Where it stands: at what was signed last, or one request further, whose answer nobody got.
        log.grow(&format!("{round}"));
        let (status, _, text) = post(&program, &log.request(log.size - 1)).unwrap();
        let stands = if status == 409 { text.trim().parse::<u64>().unwrap() } else { log.size - 1 };
        assert!(stands >= signed, "round {round}: {signed} were signed, and it remembers {stands}");
        if status == 409 {
            assert_eq!(post(&program, &log.request(stands)).unwrap().0, 200, "round {round}");
        }
        signed = log.size;
        let mut fork = Log::new();
        for leaf in 0..=signed {
            fork.grow(&format!("fork {leaf}"));
        }
        assert_eq!(post(&program, &fork.request(signed)).unwrap().0, 422, "round {round}");
        // The kill comes while requests are on their way.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let address = program.address.clone();
        let mut requests = Vec::new();
        for step in 0..8 {
            log.grow(&format!("{round}/{step}"));
            requests.push((log.size, log.request(log.size - 1)));
        }
        let sender = std::thread::spawn(move || {
            let answered = requests.iter().map_while(|(size, request)| ask(&address, "POST /add-checkpoint", request).filter(|(status, ..)| *status == 200).map(|_| *size));
            answered.last()
        });
        // A moment of the seed's, in steps of the scheduler: no clock decides what must hold.
        for _ in 0..random >> 52 {
            std::thread::yield_now();
        }
        program.child.kill().unwrap();
        program.child.wait().unwrap();
        signed = sender.join().unwrap().unwrap_or(signed).max(signed);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_folder_restored_from_a_copy_does_not_start() {
    let place = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    log.grow("a");
    let program = start(place.path(), &[log.key()]);
    assert_eq!(post(&program, &log.request(0)).unwrap().0, 200);
    let second = command(place.path(), &[log.key()]).output().unwrap();
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("another witness works"));
    drop(program);
    let (folder, old) = (place.path().join("witness"), place.path().join("old"));
    copy(&folder, &old);
    log.grow("b");
    let program = start(place.path(), &[log.key()]);
    assert_eq!(post(&program, &log.request(1)).unwrap().0, 200);
    drop(program);
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&old, &folder);
    let refused = command(place.path(), &[log.key()]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("restored from a copy") && said.contains("make a new witness"), "{said}");
}
