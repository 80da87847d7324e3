//! What whoever looks for a fault from afar is told of a node's folder. It is read from the disk, whether the agent runs or
//! not, and nothing is written.
//!
//! **Invariant:** every value has a type that can hold no text from outside: a number, a date, a yes or no, or a `&'static str`.

use std::path::Path;

use audit::note::Note;
use audit::{Checkpoint, node_log, prove};
use serde::Serialize;
use vocabulary::UnixTime;

use crate::limits::JOURNAL_PENDING_MAX;
use crate::store::{Node, StoreError};
use crate::{files, follow, journal, store};

/// A node's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFacts {
    /// `joined`; `not_joined`; or what is wrong with the folder.
    pub state: &'static str,
    /// When its certificate begins.
    pub certificate_from: Option<UnixTime>,
    /// When it ends.
    pub certificate_until: Option<UnixTime>,
    /// `verified`, `absent`, `refused` or `unreadable`.
    pub plan: &'static str,
    /// The plan's revision.
    pub plan_revision: Option<u64>,
    /// Jobs in the plan.
    pub plan_jobs: Option<usize>,
    /// The node's own log: `verified`; or which check failed; or `absent`.
    pub log: &'static str,
    /// Signed entries of it.
    pub log_size: Option<u64>,
    /// Entries that are not signed yet.
    pub log_pending: Option<usize>,
    /// Folders of attempts.
    pub attempts: u64,
}

/// Looks at a node's folder.
#[must_use]
pub fn facts(dir: &Path) -> NodeFacts {
    let attempts = std::fs::read_dir(dir.join("attempts")).map_or(0, |entries| entries.flatten().count() as u64);
    let nothing = |state| NodeFacts {
        state,
        certificate_from: None,
        certificate_until: None,
        plan: "not_looked_at",
        plan_revision: None,
        plan_jobs: None,
        log: "not_looked_at",
        log_size: None,
        log_pending: None,
        attempts,
    };
    let node = match store::load(dir) {
        Ok(node) => node,
        Err(StoreError::NotJoined(_)) => return nothing("not_joined"),
        Err(StoreError::File { .. }) => return nothing("a_file_is_unreadable"),
        Err(StoreError::Format { .. }) => return nothing("of_another_version"),
        Err(StoreError::Key(_)) => return nothing("a_key_is_malformed"),
        Err(StoreError::Certificate(_)) => return nothing("the_certificate_is_refused"),
        Err(StoreError::Deployment(_)) => return nothing("the_deployment_file_is_refused"),
    };
    let tls = node.tls();
    let (plan, plan_revision, plan_jobs) = match store::read_plan(dir) {
        Ok(None) => ("absent", None, None),
        Err(_) => ("unreadable", None, None),
        Ok(Some(bytes)) => match follow::believed(&node.deployment, &node.file).check(&bytes, None) {
            Ok(checked) => ("verified", Some(checked.plan().revision), Some(checked.plan().jobs.len())),
            Err(_) => ("refused", None, None),
        },
    };
    let (log, log_size) = judged(&dir.join("log"), &node);
    let pending = files::read(&dir.join("log").join("pending"), JOURNAL_PENDING_MAX).ok();
    let log_pending = pending.map(|bytes| bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count());
    NodeFacts {
        certificate_from: Some(tls.not_before),
        certificate_until: Some(tls.not_after),
        plan,
        plan_revision,
        plan_jobs,
        log,
        log_size,
        log_pending,
        ..nothing("joined")
    }
}

/// The signature of the log's checkpoint, and its root over the tiles.
fn judged(dir: &Path, node: &Node) -> (&'static str, Option<u64>) {
    let limit = u64::try_from(audit::limits::NOTE_MAX).unwrap_or(u64::MAX);
    let bytes = match files::read_if_there(&dir.join("checkpoint"), limit) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return ("absent", None),
        Err(_) => return ("unreadable", None),
    };
    let key = node.record_key.public().ok().and_then(|public| node_log::key(node.file.deployment, node.file.node, *public.as_bytes()).ok());
    let Some(checkpoint) = key.and_then(|key| Checkpoint::verify(&Note::parse(&bytes).ok()?, &key, &[]).ok()) else {
        return ("signature_refused", None);
    };
    let (checkpoint, _) = checkpoint;
    let verdict = match prove::root(&journal::Folder(dir), checkpoint.size) {
        Ok(root) if root == checkpoint.root => "verified",
        Ok(_) => "root_differs_from_tiles",
        Err(_) => "tiles_missing_or_damaged",
    };
    (verdict, Some(checkpoint.size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::joined;

    #[test]
    fn a_folder_is_told_in_numbers_and_words_of_our_own() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(facts(empty.path()).state, "not_joined");
        let (place, ..) = joined();
        std::fs::create_dir_all(place.path().join("attempts/canary-attempt")).unwrap();
        let found = facts(place.path());
        assert_eq!((found.state, found.plan, found.log, found.attempts), ("joined", "absent", "absent", 1));
        assert!(found.certificate_until > found.certificate_from);
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("canary") && !text.contains("first") && !text.contains("eu-central"), "{text}");
        // What is damaged is told by a word.
        store::write_plan(place.path(), b"canary").unwrap();
        assert_eq!(facts(place.path()).plan, "refused");
        std::fs::create_dir_all(place.path().join("log")).unwrap();
        std::fs::write(place.path().join("log/checkpoint"), "canary").unwrap();
        assert_eq!(facts(place.path()).log, "signature_refused");
        std::fs::write(place.path().join("tls.json"), "{\"format\":2}").unwrap();
        assert_eq!(facts(place.path()).state, "of_another_version");
    }

    #[test]
    fn looking_changes_nothing() {
        let (place, ..) = joined();
        let seen = || {
            let mut names: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap())).collect();
            names.sort();
            names
        };
        let before = seen();
        assert_eq!(facts(place.path()).state, "joined");
        assert_eq!(seen(), before);
    }
}
