//! Logs as JSON: every line is one object, whatever says it; and the metrics that the command line asked for are there.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test program: it starts processes, works on its own files, and stops where something is not as it must be"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const PASSPHRASE: &str = "canary of the seal 7f3a";

fn passphrase(folder: &Path, text: &str) -> std::path::PathBuf {
    let path = folder.join(format!("passphrase-{}", text.len()));
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path
}

fn server(folder: &Path, passphrase: &Path, form: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
    command.env("SWARM_LOG_FORMAT", form).env("SWARM_LOG", "debug").arg("server").arg("--data-dir").arg(folder.join("server"));
    command.args(["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--passphrase-file"]).arg(passphrase);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a line says, which must be one object in the form of all others.
fn parsed(line: &str) -> (String, String) {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
    let text = |name: &str| value[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {line}")).to_owned();
    assert!(text("timestamp").len() >= 20 && text("timestamp").ends_with('Z') && !text("target").is_empty(), "{line}");
    assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&text("level").as_str()), "{line}");
    (text("level"), value["fields"]["message"].as_str().unwrap_or_default().to_owned())
}

fn ended(mut command: Command) -> Output {
    command.output().unwrap()
}

#[test]
fn every_line_is_an_object_from_the_first_to_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = server(folder.path(), &passphrase(folder.path(), PASSPHRASE), "json").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("it ended: {said:?}")).unwrap();
        let (_, message) = parsed(&line);
        said.push(line);
        if message.starts_with("ready") {
            break;
        }
    }
    // The metrics are where the endpoints say, and are metrics.
    let endpoints: Value = serde_json::from_slice(&std::fs::read(folder.path().join("server/endpoints.json")).unwrap()).unwrap();
    let address = endpoints["metrics"].as_str().unwrap().strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\nswarm_store_up 1\n") && answer.ends_with("# EOF\n"), "{answer}");
    // To the end, which is asked for.
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    said.extend(lines.map(Result::unwrap).inspect(|line| drop(parsed(line))));
    assert!(child.wait().unwrap().success(), "{said:?}");
    assert!(said.iter().any(|line| line.contains("stopping")), "{said:?}");
    // What is secret stands in none: the seal's passphrase, the first ticket.
    let ticket = std::fs::read_to_string(folder.path().join("server/first-ticket")).unwrap();
    for secret in [PASSPHRASE, ticket.trim(), ticket.trim().rsplit('_').next().unwrap()] {
        assert!(secret.len() > 10 && !said.iter().any(|line| line.contains(secret)) && !answer.contains(secret), "a secret is told");
    }

    // Why a start fails is a line of the same form.
    let wrong = ended(server(folder.path(), &passphrase(folder.path(), "another passphrase"), "json"));
    let text = String::from_utf8(wrong.stderr).unwrap();
    let (level, message) = parsed(text.lines().last().unwrap());
    assert_eq!((wrong.status.code(), level.as_str()), (Some(1), "ERROR"), "{text}");
    assert!(message.contains("seal"), "{text}");
    text.lines().for_each(|line| drop(parsed(line)));
}

#[test]
fn a_form_that_is_none_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let refused = ended(server(folder.path(), &passphrase(folder.path(), PASSPHRASE), "xml"));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("SWARM_LOG_FORMAT is `text` or `json`"), "{text}");
    assert!(!folder.path().join("server").exists());
}

#[test]
fn metrics_on_an_address_that_others_reach_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut open = Command::new(env!("CARGO_BIN_EXE_swarm"));
    open.arg("server").arg("--data-dir").arg(folder.path().join("server")).args(["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"]);
    open.arg("--passphrase-file").arg(passphrase(folder.path(), PASSPHRASE)).env("SWARM_METRICS_LISTEN", "0.0.0.0:0").stdin(Stdio::null());
    let refused = ended(open);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("`metrics_listen` is 0.0.0.0:0"), "{text}");
    assert!(!folder.path().join("server/state.db").exists());
}
