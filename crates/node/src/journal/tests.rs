use audit::node_log::{Anchor, NodeCompleteness, judge};
use vocabulary::job::AttemptId;

use super::*;
use crate::store;

fn step(number: u32) -> NodeEvent {
    NodeEvent::AttemptStep { attempt: AttemptId { job: vocabulary::JobId::from_bytes([3; 16]), attempt: number }, step: "running".to_owned() }
}

fn write(journal: &Journal, count: u32) {
    for number in 0..count {
        journal.record(step(number), clock::wall()).unwrap();
    }
}

fn verdict(dir: &Path, journal: &Journal, anchors: &[Anchor]) -> node_log::NodeLogVerdict {
    let folder = dir.join("log");
    let note = std::fs::read(folder.join("checkpoint")).unwrap();
    let key = journal.inner().key.clone();
    judge(&Folder(&folder), &note, &key, anchors)
}

fn anchor_of(journal: &Journal) -> Anchor {
    let inner = journal.inner();
    Anchor { size: inner.size, root: inner.root }
}

#[test]
fn entries_survive_each_crash_once() {
    let (place, ..) = store::tests::joined();
    let node = store::load(place.path()).unwrap();
    let pending = place.path().join("log/pending");
    let journal = Journal::open(place.path(), &node).unwrap();
    write(&journal, 3);
    drop(journal);
    // Killed in the middle of a line: it was never relied on.
    let whole = std::fs::read(&pending).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(b"{\"event\":{\"att");
    std::fs::write(&pending, torn).unwrap();
    let journal = Journal::open(place.path(), &node).unwrap();
    assert_eq!(std::fs::read(&pending).unwrap(), whole);
    write(&journal, 1);
    assert_eq!(journal.sign(&node).unwrap(), 4);
    let first = anchor_of(&journal);
    drop(journal);
    // Killed after the checkpoint was written and before the lines were taken away: they count once.
    std::fs::write(&pending, &whole).unwrap();
    let journal = Journal::open(place.path(), &node).unwrap();
    write(&journal, 260);
    assert_eq!(journal.sign(&node).unwrap(), 264);
    let offer = journal.offer(4).unwrap().unwrap();
    let proof: Vec<Hash> = offer.proof.iter().map(|line| Hash::from_base64(line).unwrap()).collect();
    let now = anchor_of(&journal);
    audit::merkle::verify_consistency(4, &first.root, now.size, &now.root, &proof).unwrap();
    let judged = verdict(place.path(), &journal, &[first, now]);
    assert_eq!((judged.integrity, judged.completeness), (Ok(264), NodeCompleteness::Complete { below: 264 }));
}

#[test]
fn a_log_that_was_changed_is_not_signed_over() {
    let (place, ..) = store::tests::joined();
    let node = store::load(place.path()).unwrap();
    let log = place.path().join("log");
    let journal = Journal::open(place.path(), &node).unwrap();
    write(&journal, 2);
    journal.sign(&node).unwrap();
    write(&journal, 3);
    drop(journal);
    let refused = |path: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let path = log.join(path);
        let before = std::fs::read(&path).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Journal::open(place.path(), &node), Err(JournalError::Changed(_))), "{}", path.display());
        std::fs::write(&path, before).unwrap();
    };
    let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    // One line is missing at the front, in the middle, doubled, out of order, no entry.
    refused("pending", &|bytes| *bytes = lines(bytes)[1..].concat());
    refused("pending", &|bytes| *bytes = [lines(bytes)[0].clone(), lines(bytes)[2].clone()].concat());
    refused("pending", &|bytes| *bytes = [lines(bytes)[0].clone(), lines(bytes)[0].clone()].concat());
    refused("pending", &|bytes| *bytes = [lines(bytes)[1].clone(), lines(bytes)[0].clone()].concat());
    refused("pending", &|bytes| bytes[0] = b' ');
    refused("tile/0/000.p/2", &|bytes| bytes[0] ^= 1);
    refused("checkpoint", &|bytes| bytes[3] ^= 1);
    Journal::open(place.path(), &node).unwrap();
}
