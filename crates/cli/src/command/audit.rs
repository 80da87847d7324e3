//! `swarm audit`.

use std::time::Duration;

use vocabulary::api::{AuditEntry, AuditProof, AuditRevealed, Page, WhoAmI};

use crate::app::App;
use crate::args::AuditVerb;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::output::Format;

/// Bytes of one tile: 256 hashes, or 256 leaves of 33 bytes with their lengths; twice that is generous.
const TILE_MAX: usize = 32 << 10;

const COLUMNS: [&str; 6] = ["index", "time", "actor", "action", "resource", "outcome"];

fn row(entry: &AuditEntry) -> Vec<String> {
    vec![
        entry.index.to_string(),
        entry.time.to_string(),
        entry.actor.clone().unwrap_or_default(),
        entry.action.clone(),
        entry.resource.clone().unwrap_or_default(),
        entry.outcome.clone(),
    ]
}

pub(crate) async fn audit(app: &App, verb: AuditVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        AuditVerb::Tail { follow, limit } => tail(app, &client, follow, limit).await,
        AuditVerb::Search { action, actor, resource, outcome } => {
            let mut query = format!("{}?limit=200", entries(&client).await?);
            for (key, value) in [("action", action), ("actor", actor), ("resource", resource), ("outcome", outcome)] {
                if let Some(value) = value {
                    query.push_str(&format!("&{key}={}", escape(&value)));
                }
            }
            let entries: Vec<AuditEntry> = app.all(&client, &query).await?;
            app.output.list(&entries, &COLUMNS, row)
        }
        AuditVerb::Verify { witness_policy } => verify(app, &client, witness_policy.as_deref()).await,
        AuditVerb::Reveal { index } => {
            let call = Call::new(reqwest::Method::POST, format!("/v1/audit/{index}/reveal"));
            let shown: AuditRevealed = app.send(&client, &call).await?;
            app.output.list(&shown.values, &["field", "person", "value"], |one| {
                let value = one.value.clone().unwrap_or_else(|| "sealed, key destroyed".to_owned());
                vec![one.path.clone(), one.subject.clone(), value]
            })
        }
        AuditVerb::Witnesses => super::witnesses::list(app, &client).await,
        AuditVerb::WitnessPolicy { set: Some(file) } => super::witnesses::set(app, &client, &file).await,
        AuditVerb::WitnessPolicy { set: None } => super::witnesses::show(app, &client).await,
        AuditVerb::NodeLog { dir } => super::node_log::verify(app, &client, &dir).await,
        AuditVerb::Export { dir } => export(app, &client, &dir).await,
    }
}

/// Where the entries lie that whoever is logged in may see: those of their tenant, or for operators those of the platform.
pub(super) async fn entries(client: &Client) -> Result<&'static str, CliError> {
    let who: WhoAmI = client.send(&Call::get("/v1/whoami"), None).await?;
    Ok(if who.tenant.is_some() { "/v1/audit" } else { "/v1/platform-audit" })
}

async fn tail(app: &App, client: &Client, follow: bool, limit: u64) -> Result<(), CliError> {
    let log = entries(client).await?;
    let newest: Page<AuditEntry> = client.send(&Call::get(format!("{log}?newest=true&limit={limit}")), None).await?;
    let mut last = newest.items.last().map(|entry| entry.index);
    app.output.list(&newest.items, &COLUMNS, row)?;
    if !follow {
        return Ok(());
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let from = last.map_or_else(String::new, |index| format!("&after={index}"));
        let page: Page<AuditEntry> = client.send(&Call::get(format!("{log}?limit=200{from}")), None).await?;
        for entry in &page.items {
            last = Some(entry.index);
            match app.output.format {
                Format::Table => crate::output::line(&crate::output::visible(&row(entry).join("  ")))?,
                Format::Json | Format::Yaml | Format::Jsonl => {
                    crate::output::json_line(entry)?;
                }
            }
        }
    }
}

/// Percent-encodes a query value.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Verdicts that are never merged: the tree is whole and signed, each of our entries is in it, and whom else signed.
async fn verify(app: &App, client: &Client, witness_policy: Option<&std::path::Path>) -> Result<(), CliError> {
    let log = Log::fetch(app, client).await?;
    let witnesses = super::witnesses::judge(client, witness_policy, &log.key).await?;
    let mut walk = audit::walk::LogWalk::new(log.checkpoint.clone());
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    let bar = crate::progress::bar(app.output.quiet, log.checkpoint.size, "entries");
    while let Some(path) = walk.next_bundle() {
        let bytes = client.get_bytes(&format!("/v1/log/{path}"), None, TILE_MAX).await?;
        let (_, found) = walk.feed(&path, &bytes).map_err(|error| CliError::verification(format!("the log does not verify: {error}")))?;
        leaves.extend(found.into_iter().map(<[u8]>::to_vec));
        bar.set_position(u64::try_from(leaves.len()).unwrap_or(u64::MAX));
    }
    let size = walk.finish().map_err(|error| CliError::verification(format!("the log does not verify: {error}")))?;
    bar.finish_and_clear();
    // What the witnesses signed must be a beginning of what was walked.
    witnesses.fits(&leaves)?;
    let mine: Vec<AuditEntry> = app.all(client, &format!("{}?limit=1000", entries(client).await?)).await?;
    let mut checked = 0_u64;
    for entry in &mine {
        let Some(leaf) = usize::try_from(entry.index).ok().and_then(|index| leaves.get(index)) else {
            continue; // newer than the checkpoint: not yet published
        };
        let salt = salt(entry)?;
        audit::walk::verify_body(entry.index, leaf, &salt, entry.body.as_bytes())
            .map_err(|error| CliError::verification(format!("entry {}: {error}", entry.index)))?;
        checked += 1;
    }
    let (complete, completeness) = completeness(&mine, size)?;
    #[derive(Debug, serde::Serialize)]
    struct Verdict {
        integrity: &'static str,
        size: u64,
        root: String,
        own_entries_checked: u64,
        completeness: &'static str,
        completeness_detail: String,
        witnesses: &'static str,
        witnessed_size: Option<u64>,
    }
    let verdict = Verdict {
        integrity: "proved",
        size,
        root: log.checkpoint.root.base64(),
        own_entries_checked: checked,
        completeness: complete,
        completeness_detail: completeness.clone(),
        witnesses: witnesses.verdict,
        witnessed_size: witnesses.checkpoint.as_ref().map(|checkpoint| checkpoint.size),
    };
    app.output.one(
        &verdict,
        &[
            ("integrity", format!("proved: {size} leaves make the signed root {}", verdict.root)),
            ("own entries", format!("proved: {checked} bodies match their leaves")),
            ("completeness", format!("{complete}: {completeness}")),
            ("witnesses", format!("{}: {}", witnesses.verdict, witnesses.detail)),
        ],
    )?;
    if complete == "not proved" {
        return Err(CliError::verification("entries are missing").hint("keep what you were shown, with the checkpoint: it contradicts the log"));
    }
    if witnesses.verdict == "not proved" { Err(CliError::verification("the witnesses that you ask for did not sign")) } else { Ok(()) }
}

/// Whether anything was left out of our entries, by the counts among those that the checkpoint covers.
fn completeness(mine: &[AuditEntry], size: u64) -> Result<(&'static str, String), CliError> {
    use audit::completeness::{Completeness, Count, judge};
    let mut indexes: Vec<u64> = mine.iter().map(|entry| entry.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let mut counts = Vec::new();
    for entry in mine.iter().filter(|entry| entry.index < size && entry.action == "entries_counted") {
        let body = audit::entry::Body::parse(entry.body.as_bytes())
            .map_err(|error| CliError::verification(format!("entry {}: {error}", entry.index)))?;
        if let audit::Event::EntriesCounted { below, count } = body.own.event {
            counts.push(Count { below, count });
        }
    }
    Ok(match judge(&indexes, &counts) {
        Completeness::Complete { below } => {
            ("proved", format!("{} counts in the log hold; none of these is missing below index {below}", counts.len()))
        }
        Completeness::Contradicted { counted, shown } => (
            "not proved",
            format!("the log counted {} of these entries below index {}, and {shown} were shown", counted.count, counted.below),
        ),
        Completeness::NotCounted => ("not checked", "the log holds no count yet: the first comes within ten minutes of the first entry".to_owned()),
    })
}

/// Writes what a tool that is not ours needs: checkpoint, tiles, bundles, and our own entries with salts and proofs.
async fn export(app: &App, client: &Client, dir: &std::path::Path) -> Result<(), CliError> {
    let log = Log::fetch(app, client).await?;
    std::fs::create_dir_all(dir)?;
    let put = |name: &str, bytes: &[u8]| -> Result<(), CliError> {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, bytes)?)
    };
    put("checkpoint", log.bytes.as_ref())?;
    put("deployment.json", app.context()?.deployment_file.as_bytes())?;
    let size = log.checkpoint.size;
    let bar = crate::progress::bar(app.output.quiet, size, "entries");
    for level in 0..=7_u8 {
        let hashes = audit::tile::count_at(size, level);
        for index in 0..hashes.div_ceil(256) {
            let Some(path) = audit::TilePath::hashes_at(size, level, index) else { continue };
            put(&path.to_string(), &client.get_bytes(&format!("/v1/log/{path}"), None, TILE_MAX).await?)?;
            if level == 0 {
                let Some(bundle) = audit::TilePath::entries_at(size, index) else { continue };
                put(&bundle.to_string(), &client.get_bytes(&format!("/v1/log/{bundle}"), None, TILE_MAX).await?)?;
                bar.set_position(index.saturating_mul(256));
            }
        }
    }
    let mine: Vec<AuditEntry> = app.all(client, "/v1/audit?limit=1000").await?;
    let mut lines = String::new();
    for entry in mine.iter().filter(|entry| entry.index < size) {
        let proof: AuditProof = client.send(&Call::get(format!("/v1/audit/{}/proof", entry.index)), None).await?;
        lines.push_str(&serde_json::to_string(&proof).map_err(|error| CliError::new(1, error.to_string()))?);
        lines.push('\n');
    }
    put("entries.jsonl", lines.as_bytes())?;
    bar.finish_and_clear();
    app.output.say(format!("{size} leaves and {} own entries in {}", mine.len(), dir.display()));
    Ok(())
}

fn salt(entry: &AuditEntry) -> Result<[u8; 32], CliError> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(&entry.salt)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| CliError::verification(format!("entry {}: its salt is not 32 bytes", entry.index)))
}

/// The log's newest checkpoint, verified with the pinned deployment's key.
struct Log {
    bytes: bytes::Bytes,
    checkpoint: audit::Checkpoint,
    key: audit::VerifierKey,
}

impl Log {
    async fn fetch(app: &App, client: &Client) -> Result<Self, CliError> {
        let key = crate::trust::log_key(&app.context()?.deployment_file)?;
        let bytes = client.get_bytes("/v1/log/checkpoint", None, 1 << 20).await?;
        let note = audit::note::Note::parse(&bytes).map_err(|error| CliError::verification(format!("the checkpoint: {error}")))?;
        let (checkpoint, _) = audit::Checkpoint::verify(&note, &key, &[])
            .map_err(|error| CliError::verification(format!("the checkpoint: {error}")))?;
        Ok(Self { bytes, checkpoint, key })
    }
}
