//! `swarm audit node-log`: the log that a node kept of what it did, judged by what the deployment's log says of it.

use std::path::{Path, PathBuf};

use audit::entry::Body;
use audit::node_log::{self, Anchor, NodeCompleteness};
use audit::{Checkpoint, Event, Hash, TilePath, TileReader};
use base64::Engine as _;
use vocabulary::api::AuditEntry;

use crate::app::App;
use crate::client::Client;
use crate::error::CliError;

/// Bytes of a checkpoint file that is read.
const CHECKPOINT_MAX: u64 = 128 << 10;
/// Bytes of a tile or bundle of a node's log: 256 leaves, each far below 64 KiB.
const TILE_MAX: u64 = 256 * ((64 << 10) + 2);

struct Folder(PathBuf);

impl TileReader for Folder {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        read(&self.0.join(path.to_string()), TILE_MAX).ok()
    }
}

fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) { Ok(bytes) } else { Err(std::io::Error::other(format!("more than {most} bytes"))) }
}

/// What the deployment's log says of a node: the key of its enrolment, and the checkpoints that were kept.
fn known(entries: &[AuditEntry], node: vocabulary::NodeId) -> Result<(Option<[u8; 32]>, Vec<Anchor>), CliError> {
    let (mut key, mut anchors) = (None, Vec::new());
    for entry in entries {
        let broken = |error: &dyn std::fmt::Display| CliError::verification(format!("entry {}: {error}", entry.index));
        let event = Body::parse(entry.body.as_bytes()).map_err(|error| broken(&error))?.own.event;
        if let Event::NodeEnrolled { node: found, record_key, .. } = &event
            && *found == node
        {
            let bytes = base64::engine::general_purpose::STANDARD.decode(record_key).map_err(|error| broken(&error))?;
            key = bytes.try_into().ok();
        }
        if let Event::NodeLogAnchored { node: found, size, root } = &event
            && *found == node
        {
            anchors.push(Anchor { size: *size, root: Hash::from_base64(root).ok_or_else(|| broken(&"its root is no hash"))? });
        }
    }
    Ok((key, anchors))
}

#[derive(Debug, serde::Serialize)]
struct Verdict {
    node: vocabulary::NodeId,
    integrity: &'static str,
    integrity_detail: String,
    completeness: &'static str,
    completeness_detail: String,
    anchors: usize,
}

pub(crate) async fn verify(app: &App, client: &Client, dir: &Path) -> Result<(), CliError> {
    let path = dir.join("checkpoint");
    let note = read(&path, CHECKPOINT_MAX).map_err(|error| CliError::usage(format!("`{}`: {error}", path.display())))?;
    let malformed = || CliError::verification(format!("`{}` is no checkpoint of a node's log", path.display()));
    let text = audit::note::Note::parse(&note).map_err(|_| malformed())?.text().to_owned();
    let origin = Checkpoint::parse_text(&text).map_err(|_| malformed())?.origin;
    let words: Vec<&str> = origin.split('/').collect();
    let ["swarm.invalid", deployment, "node", node, "log"] = words.as_slice() else { return Err(malformed()) };
    let (deployment, node) = (deployment.parse().map_err(|_| malformed())?, node.parse().map_err(|_| malformed())?);
    let entries: Vec<AuditEntry> = app.all(client, &format!("{}?limit=1000&resource=node/{node}", super::audit::entries(client).await?)).await?;
    let (record_key, anchors) = known(&entries, node)?;
    let record_key = record_key.ok_or_else(|| {
        CliError::verification(format!("no entry that you may see enrols node {node}")).hint("operators see the enrolments of nodes: log in as one, in the deployment of the node")
    })?;
    let key = node_log::key(deployment, node, record_key).map_err(|error| CliError::verification(error.to_string()))?;
    let judged = node_log::judge(&Folder(dir.to_owned()), &note, &key, &anchors);
    let (integrity, integrity_detail) = match judged.integrity {
        Ok(size) => ("proved", format!("{size} entries make the root that the node signed")),
        Err(error) => ("not proved", error.to_string()),
    };
    let (completeness, completeness_detail) = completeness(&judged.completeness);
    let verdict = Verdict { node, integrity, integrity_detail, completeness, completeness_detail, anchors: anchors.len() };
    app.output.one(
        &verdict,
        &[
            ("node", node.to_string()),
            ("integrity", format!("{}: {}", verdict.integrity, verdict.integrity_detail)),
            ("completeness", format!("{}: {}", verdict.completeness, verdict.completeness_detail)),
            ("anchors", format!("{} entries of the log, which `swarm audit verify` proves", verdict.anchors)),
        ],
    )?;
    if verdict.integrity == "proved" && verdict.completeness != "not proved" {
        Ok(())
    } else {
        Err(CliError::verification("the node's log is not what it signed before").hint("keep this folder, with what `swarm audit export` writes: they contradict each other"))
    }
}

fn completeness(verdict: &NodeCompleteness) -> (&'static str, String) {
    match verdict {
        NodeCompleteness::Complete { below } => ("proved", format!("each entry has its number; below {below} nothing was dropped after it was anchored")),
        NodeCompleteness::NotAnchored => ("not checked", "the deployment's log has no checkpoint of this node's log".to_owned()),
        NodeCompleteness::NotJudged => ("not checked", "a log that is not whole is not judged".to_owned()),
        NodeCompleteness::Sequence { index, found } => {
            let found = found.as_deref().unwrap_or("no entry");
            ("not proved", format!("at {index} stands {found}: an entry is missing, doubled or out of order"))
        }
        NodeCompleteness::Truncated { anchored, shown } => ("not proved", format!("{anchored} entries were anchored, {shown} are here")),
        NodeCompleteness::Forked { size } => ("not proved", format!("another history was anchored at {size} entries")),
    }
}
