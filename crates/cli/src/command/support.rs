//! `swarm support bundle`: what whoever helps from afar needs to know of a deployment, and nothing of what is in it.
//!
//! **Invariant:** what goes in is chosen, never what stays out: each document is made of types that can hold no text from
//! outside, and of a log or the metrics a line is taken only as far as it consists of words of the program.
//! **Invariant:** the deployment is only read.

mod archive;
mod logs;
mod machine;
mod metrics;

use std::path::{Path, PathBuf};

use control::support::{Size, size};
use serde::Serialize;
use vocabulary::Sha256Digest;

use crate::app::{App, now};
use crate::args::SupportVerb;
use crate::error::CliError;
use crate::output::human_bytes;
use crate::place::Endpoints;
use crate::settings::{self, NodeSettings, ServerSettings};
use archive::{Bundle, Manifest};

/// Bytes of a small document of a part: endpoints, settings.
const SMALL: u64 = 64 << 10;
/// Entries of a node's folder that are counted.
const WALK_MAX: u64 = 200_000;
/// Logs that are taken in.
const LOGS: [&str; 4] = ["log-1.jsonl", "log-2.jsonl", "log-3.jsonl", "log-4.jsonl"];

/// What is never in a bundle, and why: the reader need not guess.
const NEVER: [(&str, &str); 6] = [
    ("rows of the database, objects, jobs, receipts and their logs", "they are your data and that of your tenants"),
    ("names, addresses, paths and ids of people, tenants, projects, volumes, nodes and machines", "they say whose it is"),
    ("keys, passphrases, shares, tokens, tickets, certificates and password hashes", "secrets"),
    ("values of options and the environment", "they may hold addresses, names and secrets: that an option was given is told, and numbers"),
    ("of lines in logs: values, errors, and messages in which something is filled in", "they may hold all of this; how many bytes were left out is told"),
    ("core dumps and memory", "secrets"),
];

/// What this program is.
#[derive(Debug, Serialize)]
struct Program {
    version: &'static str,
    /// Built with checks of the developers.
    debug: bool,
    /// The digest of the program's file.
    sha256: Option<Sha256Digest>,
    bytes: Option<u64>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    digest: Sha256Digest,
    #[serde(flatten)]
    manifest: Manifest,
}

#[derive(Debug, Serialize)]
struct NodeTold {
    #[serde(flatten)]
    facts: node::support::NodeFacts,
    sizes: Vec<Size>,
}

pub(crate) async fn support(app: &App, verb: SupportVerb) -> Result<(), CliError> {
    let SupportVerb::Bundle { to, server_dir, node_dir, log } = verb;
    if log.len() > LOGS.len() {
        return Err(CliError::usage(format!("--log: at most {} logs are taken", LOGS.len())));
    }
    // Before any work: a name that is taken is told at once.
    if std::fs::symlink_metadata(&to).is_ok() {
        return Err(CliError::new(5, format!("`{}` is there already; nothing was written", to.display())).hint("name another file, or remove it"));
    }
    let mut bundle = Bundle::default();
    for (what, why) in NEVER {
        bundle.left_out(what, why);
    }
    bundle.document("program.json", &tokio::task::spawn_blocking(program).await.map_err(|error| CliError::new(1, error.to_string()))?);
    bundle.document("machine.json", &machine::machine());
    bundle.document("clock.json", &machine::clock(now()));
    let disks: Vec<machine::Disk> = [("server", &server_dir), ("node", &node_dir)].into_iter().filter_map(|(what, folder)| machine::disk(what, folder)).collect();
    bundle.document("disks.json", &disks);
    let server = take_server(&mut bundle, &server_dir).await;
    let node = take_node(&mut bundle, &node_dir).await?;
    if !server && !node {
        return Err(CliError::new(3, "there is no server and no node in these folders").hint("name them with --server-dir and --node-dir: swarm up has both below its --data-dir"));
    }
    take_logs(&mut bundle, &server_dir, log)?;
    let (manifest, digest) = bundle.write(&to, now())?;
    let mut pairs = vec![("file", to.display().to_string()), ("digest", digest.to_string())];
    pairs.extend(manifest.files.iter().map(|file| ("  has", format!("{}, {}", file.name, human_bytes(file.bytes as u64)))));
    pairs.extend(manifest.left_out.iter().map(|left| ("  has not", format!("{}: {}", left.what, left.why))));
    let shown = Shown { file: to.display().to_string(), digest, manifest };
    app.output.one(&shown, &pairs)?;
    app.output.say("look at it before you give it away: tar --zstd -xOf FILE");
    Ok(())
}

fn program() -> Program {
    let (sha256, bytes) = std::fs::File::open("/proc/self/exe").ok().and_then(digest).unzip();
    Program { version: env!("CARGO_PKG_VERSION"), debug: cfg!(debug_assertions), sha256, bytes }
}

/// Digest and length of a file.
fn digest(mut file: std::fs::File) -> Option<(Sha256Digest, u64)> {
    use std::io::Read as _;
    use sha2::Digest as _;
    let (mut context, mut piece, mut bytes) = (sha2::Sha256::new(), vec![0; 1 << 20], 0_u64);
    loop {
        match file.read(&mut piece).ok()? {
            0 => return Some((Sha256Digest::from_bytes(context.finalize().into()), bytes)),
            read => {
                context.update(piece.get(..read)?);
                bytes = bytes.saturating_add(read as u64);
            }
        }
    }
}

/// The control plane's folder, the settings of its last start, and what the process says. Says whether there is one.
async fn take_server(bundle: &mut Bundle, folder: &Path) -> bool {
    if !folder.is_dir() {
        bundle.left_out("server.json", "there is no such folder, or it may not be read");
        return false;
    }
    let facts = control::support::server(folder, now()).await;
    let there = facts.database.is_some() || facts.seal.kind != "absent";
    bundle.document("server.json", &facts);
    take_settings::<ServerSettings>(bundle, "server-settings.json", folder);
    let endpoints: Option<Endpoints> = small(&folder.join("endpoints.json")).and_then(|text| serde_json::from_slice(&text).ok());
    match &endpoints {
        None => bundle.left_out("server-process.json", "no server has started in this folder"),
        Some(endpoints) => bundle.document("server-process.json", &machine::process("server", endpoints.pid)),
    }
    match endpoints.and_then(|endpoints| endpoints.metrics) {
        None => bundle.left_out("metrics.txt", "the server tells no metrics: it was started without --metrics-listen, or is sealed"),
        Some(url) => match metrics::read(&url).await {
            Ok(text) => bundle.add("metrics.txt", text.into_bytes()),
            Err(why) => bundle.left_out("metrics.txt", why),
        },
    }
    there
}

async fn take_node(bundle: &mut Bundle, folder: &Path) -> Result<bool, CliError> {
    if !folder.is_dir() {
        bundle.left_out("node.json", "there is no such folder, or it may not be read");
        return Ok(false);
    }
    let place = folder.to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let mut left = WALK_MAX;
        let known = ["log", "images", "witness", "attempts", "jobs"];
        // What a job mounts below its attempt is data, and may be large: it is not walked through.
        let sizes = known.iter().take(3).map(|name| size(name, &[place.join(name)], &mut left)).collect();
        NodeTold { facts: node::support::facts(&place), sizes }
    });
    let told = told.await.map_err(|error| CliError::new(1, error.to_string()))?;
    let there = told.facts.state != "not_joined";
    bundle.document("node.json", &told);
    take_settings::<NodeSettings>(bundle, "node-settings.json", folder);
    Ok(there)
}

/// Settings are read into their types and written anew: what does not fit them does not come in.
fn take_settings<T: Serialize + serde::de::DeserializeOwned>(bundle: &mut Bundle, name: &'static str, folder: &Path) {
    match small(&folder.join(settings::FILE)).map(|text| serde_json::from_slice::<T>(&text)) {
        Some(Ok(settings)) => bundle.document(name, &settings),
        Some(Err(_)) => bundle.left_out(name, "the file is not as this program writes it"),
        None => bundle.left_out(name, "the part has not started with this version"),
    }
}

/// The logs that were named; else those that `swarm up` keeps beside the server's folder.
fn take_logs(bundle: &mut Bundle, server_dir: &Path, named: Vec<PathBuf>) -> Result<(), CliError> {
    let words = logs::Words::new();
    let found = |name: &str| server_dir.parent().map(|up| up.join("log").join(name)).filter(|path| path.is_file());
    let logs = if named.is_empty() { ["server.log", "node.log"].into_iter().filter_map(found).collect() } else { named };
    if logs.is_empty() {
        bundle.left_out("logs", "none was named with --log, and swarm up keeps none here: journalctl -u swarm-server -o cat > FILE writes one");
    }
    for (name, path) in LOGS.into_iter().zip(logs) {
        bundle.add(name, words.tail(&path).map_err(|error| CliError::usage(format!("--log {}: {error}", path.display())))?);
    }
    Ok(())
}

/// The bytes of a small plain file.
fn small(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::symlink_metadata(path).ok()?.is_file().then_some(())?;
    std::fs::File::open(path).ok()?.take(SMALL).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
