//! A good receipt: every line, and what the report says where nothing can be proved.

use vocabulary::Profile;

use super::world::{DAY, NODE, NOW, failed, log_key, made, world};
use crate::report::{Tool, Verdict};

#[test]
fn every_line_of_a_good_receipt() {
    let made = made();
    let report = made.verify(&made.receipt);
    let said: Vec<(&str, Verdict)> = report.lines.iter().map(|line| (line.claim.as_str(), line.verdict)).collect();
    let proved = Verdict::Proved;
    let open = Verdict::NotChecked;
    let mut expected = vec![
        ("the deployment's file is signed by its root", proved),
        ("the root is the pinned one", proved),
        ("the file is in its one canonical form", proved),
        ("the control plane signed the whole", proved),
        ("the record binds the node's statement", proved),
        ("deployment and profile are those of the deployment's file", proved),
        ("the receipt is not from the future", proved),
        ("labels are permitted by the profile", proved),
        ("the log signed the checkpoint", proved),
        ("witnesses saw the same log", open),
    ];
    let entries = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12].map(|index| format!("entry {index} is in the log"));
    expected.extend(entries.iter().map(|claim| (claim.as_str(), proved)));
    expected.extend([
        ("the end of the attempt is logged with this statement", proved),
        ("the receipt key is certified under the root", proved),
        ("the node signed its statement", proved),
        ("statement and record are about the same attempt", proved),
        ("the logged end is the stated one", proved),
        ("the node's certificate was valid when the attempt was placed", proved),
        ("nothing had revoked the node before", open),
        ("the job's submission is logged", proved),
        ("the image that ran is the one that was submitted", proved),
        ("the command that ran is the one that was submitted", proved),
        ("the attempt was placed on this node, enrolled for this region", proved),
        ("the machine stands in eu-central", open),
        ("input `data` was read at a registered root under a logged release", proved),
        ("output `model` was committed under a registered signer and a logged release", proved),
        ("the attempt was placed under this policy epoch", proved),
        ("the policy set of that epoch is this one", proved),
        ("the job was isolated", open),
        ("the data was protected from the owner of the machine", open),
    ]);
    assert_eq!(said, expected);
    assert!(report.ok);
    assert!(report.lines.iter().all(|line| !line.detail.is_empty()));
    // Whatever is only the node's word is never said to be checked by somebody else.
    for line in report.lines.iter().filter(|line| line.tool == Tool::OursOnly) {
        assert_ne!(line.verdict, Verdict::Proved, "{}", line.claim);
    }
    let words = |claim: &str| report.lines.iter().find(|line| line.claim == claim).unwrap().detail.clone();
    assert!(words("the job was isolated").contains("the owner of the machine could lie"));
    assert!(words("the data was protected from the owner of the machine").contains("evidence: none"));
    assert!(words("witnesses saw the same log").contains("another history"));
}

#[test]
fn without_a_pin_or_a_clock_less_is_checked_and_said() {
    let made = made();
    let report = crate::verify(&made.receipt, &made.file, None, None);
    assert!(report.ok);
    let pin = report.lines.iter().find(|line| line.claim == "the root is the pinned one").unwrap();
    assert_eq!(pin.verdict, Verdict::NotChecked);
    assert!(pin.detail.contains(&made.pin.to_string()));
    assert!(!report.lines.iter().any(|line| line.claim == "the receipt is not from the future"));
}

#[test]
fn witnesses_count_when_the_deployment_has_them() {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    let witnesses = [("witness.example/a", 21), ("witness.example/b", 22), ("witness.example/a-again", 21)];
    let file = world.witnessed(Profile::Development, &log_key(&facts), &chain, &witnesses, 2);
    let verify = |facts: &super::world::Facts| crate::verify(&facts.receipt(), &file, Some(&world.pin()), Some(NOW.plus_millis(DAY)));
    for (signed, ok) in [(0, false), (1, false), (2, true), (3, true)] {
        facts.witnesses = witnesses[..signed].to_vec();
        let report = verify(&facts);
        assert_eq!(report.ok, ok, "{signed} witnesses: {:?}", failed(&report));
        if !ok {
            assert_eq!(failed(&report), ["witnesses saw the same log"]);
        }
    }
    // One key under two names is one witness.
    facts.witnesses = vec![witnesses[0], witnesses[2]];
    assert_eq!(failed(&verify(&facts)), ["witnesses saw the same log"]);
    // A stranger's line is refused, good or not.
    facts.witnesses = vec![witnesses[0], witnesses[1], ("stranger.example", 33)];
    assert_eq!(failed(&verify(&facts)), ["the log signed the checkpoint"]);
}

#[test]
fn isolation_that_the_node_itself_misses_fails() {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    facts.statement.isolation.layers[0].verdict = vocabulary::isolation::LayerVerdict::Absent;
    let report = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
    assert_eq!(failed(&report), ["the job was isolated"]);
    assert!(!report.ok);
    assert!(report.lines.iter().any(|line| line.detail.contains("seccomp")));
}

#[test]
fn lost_log_frames_and_the_images_own_command_are_said() {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    facts.statement.log_frames_lost = 7;
    if let audit::Event::JobSubmitted { command, .. } = facts.event("job_submitted") {
        *command = crate::statement::command_digest(&[]).unwrap();
    }
    let report = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
    assert!(report.ok, "{:?}", failed(&report));
    let verdict = |claim: &str| report.lines.iter().find(|line| line.claim == claim).unwrap().verdict;
    assert_eq!(verdict("the job's log is whole"), Verdict::NotChecked);
    assert_eq!(verdict("the command that ran is the one that was submitted"), Verdict::NotChecked);
    assert!(report.lines.iter().any(|line| line.detail.contains(&NODE.to_string())));
}

#[test]
fn an_input_into_which_nothing_was_put() {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    facts.statement.inputs[0].record = None;
    let missing = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
    assert_eq!(failed(&missing), ["input `data` was read at a registered root under a logged release"]);
    facts.statement.inputs[0].head.seq = 0;
    let empty = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
    assert!(empty.ok, "{:?}", failed(&empty));
    // An output always has a root.
    facts.statement.outputs[0].record = None;
    facts.statement.outputs[0].head.seq = 0;
    let output = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
    assert_eq!(failed(&output), ["output `model` was committed under a registered signer and a logged release"]);
}
