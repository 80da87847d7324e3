//! The entries of a receipt: each is proved to be in the log before anything is read from it.

use audit::checkpoint::Checkpoint;
use audit::entry::Body;
use audit::event::Event;
use audit::hash::{Hash, leaf_hash};
use audit::leaf::leaf;
use audit::merkle::verify_inclusion;
use vocabulary::{SYSTEM_OWNER, UnixTime};

use crate::envelope::{base64, base64_32};
use crate::limits::ENTRIES_MAX;
use crate::record::{LoggedEntry, Record};
use crate::report::{Lines, Tool, sentence};

/// An entry that is in the log.
#[derive(Debug, Clone)]
pub(super) struct Proved {
    pub(super) index: u64,
    pub(super) time: UnixTime,
    pub(super) event: Event,
}

/// All entries of a receipt.
#[derive(Debug)]
pub(super) struct Logged(Vec<Proved>);

/// Proves every entry; stops at the first that fails.
pub(super) fn read(lines: &mut Lines, record: &Record, checkpoint: &Checkpoint) -> Option<Vec<Proved>> {
    if record.log.entries.len() > ENTRIES_MAX {
        return lines.check("entries are in the log", Tool::Independent, Err(format!("more than {ENTRIES_MAX} entries")));
    }
    let mut proved: Vec<Proved> = Vec::new();
    for entry in &record.log.entries {
        let claim = format!("entry {} is in the log", entry.index);
        let outcome = if proved.last().is_some_and(|last| last.index >= entry.index) {
            Err("entries do not rise by index".to_owned())
        } else {
            one(entry, record, checkpoint).map(|proved| {
                let detail = format!("{} at {}, {} hashes to the root", proved.event.kind(), proved.time, entry.proof.len());
                (proved, detail)
            })
        };
        proved.push(lines.check(&claim, Tool::Independent, outcome)?);
    }
    Some(proved)
}

fn one(entry: &LoggedEntry, record: &Record, checkpoint: &Checkpoint) -> Result<Proved, String> {
    let body = base64(&entry.body, "body", audit::limits::BODY_MAX).map_err(|e| sentence(&e))?;
    let salt = base64_32(&entry.salt, "salt").map_err(|e| sentence(&e))?;
    let proof: Vec<Hash> = entry
        .proof
        .iter()
        .map(|text| Hash::from_base64(text))
        .collect::<Option<_>>()
        .ok_or_else(|| "a hash of the proof is not base64 of 32 bytes".to_owned())?;
    let hash = leaf_hash(&leaf(&salt, &body));
    verify_inclusion(hash, entry.index, checkpoint.size, &proof, &checkpoint.root).map_err(|e| sentence(&e))?;
    let body = Body::parse(&body).map_err(|e| sentence(&e))?;
    if body.own.tenant != record.tenant && body.own.tenant != SYSTEM_OWNER {
        return Err("the entry is of another tenant".to_owned());
    }
    if body.value.get("status_id").and_then(serde_json::Value::as_u64) != Some(1) {
        return Err("the entry records a refusal or a failure".to_owned());
    }
    Ok(Proved { index: entry.index, time: body.time, event: body.own.event })
}

impl Logged {
    pub(super) fn new(entries: Vec<Proved>, _record: &Record) -> Self {
        Self(entries)
    }
    /// The first entry for which `pick` finds something.
    pub(super) fn find<T>(&self, mut pick: impl FnMut(&Event) -> Option<T>) -> Option<(u64, UnixTime, T)> {
        self.0.iter().find_map(|entry| pick(&entry.event).map(|found| (entry.index, entry.time, found)))
    }
    /// All of them, with their index.
    pub(super) fn events(&self) -> impl Iterator<Item = (u64, &Event)> {
        self.0.iter().map(|entry| (entry.index, &entry.event))
    }
    /// Whether any entry fits.
    pub(super) fn any(&self, mut fits: impl FnMut(&Event) -> bool) -> bool {
        self.0.iter().any(|entry| fits(&entry.event))
    }
}
