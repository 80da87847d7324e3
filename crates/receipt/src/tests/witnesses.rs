//! Witnesses of a receipt, by the reader's own policy: proved, not proved, not checked; and what is refused in each case.

use audit::WitnessPolicy;
use audit::key::{Ed25519Signer, KeyKind, VerifierKey, verifier_of};
use vocabulary::{Profile, UnixTime};

use super::world::{DAY, Facts, NOW, failed, log_key, world};
use crate::report::{Report, Verdict};

const CLAIM: &str = "witnesses saw the same log";
const TIMES: &str = "the witnesses signed after the entries happened";
const THREE: [(&str, u8); 3] = [("witness.example/a", 21), ("witness.example/b", 22), ("witness.example/c", 23)];

fn vkey((name, seed): (&str, u8)) -> VerifierKey {
    verifier_of(&Ed25519Signer::from_seed(name, &[seed; 32]).unwrap(), KeyKind::CosignatureV1).unwrap()
}

/// Two of these witnesses.
fn policy_text(log: &VerifierKey, witnesses: &[(&str, u8)], quorum: &str) -> String {
    let mut text = format!("log {log}\n");
    for (witness, number) in witnesses.iter().zip(1..) {
        text.push_str(&format!("witness w{number} {} http://w{number}.example\n", vkey(*witness)));
    }
    let members: String = (1..=witnesses.len()).map(|number| format!(" w{number}")).collect();
    format!("{text}group committee 2{members}\nquorum {quorum}\n")
}

fn parse(text: &str) -> WitnessPolicy {
    WitnessPolicy::parse(text.as_bytes()).unwrap()
}

struct Case {
    facts: Facts,
    file: Vec<u8>,
    pin: vocabulary::Sha256Digest,
    log: VerifierKey,
}

impl Case {
    /// A receipt that two of three witnesses signed, under a deployment that names its policy in it.
    fn new() -> Self {
        let mut world = world();
        let (mut facts, chain) = world.facts();
        let log = log_key(&facts);
        let file = world.file(Profile::Development, &log, &chain);
        facts.witnesses = THREE[..2].to_vec();
        facts.witness_policy = Some(policy_text(&log, &THREE, "committee"));
        facts.labels.clear();
        Self { pin: world.pin(), facts, file, log }
    }
    fn verify(&self, policy: Option<&WitnessPolicy>) -> Report {
        crate::verify_witnessed(&self.facts.receipt(), &self.file, Some(&self.pin), Some(NOW.plus_millis(DAY)), policy)
    }
    fn own(&self) -> WitnessPolicy {
        parse(&policy_text(&self.log, &THREE, "committee"))
    }
}

fn said(report: &Report) -> (Verdict, String) {
    let line = report.lines.iter().find(|line| line.claim == CLAIM).unwrap();
    (line.verdict, line.detail.clone())
}

#[test]
fn the_readers_policy_proves_and_the_receipts_own_does_not() {
    let case = Case::new();
    let report = case.verify(Some(&case.own()));
    assert!(report.ok, "{:?}", failed(&report));
    assert_eq!(said(&report), (Verdict::Proved, "your policy asks: 2 of 3 of `committee` must have signed; signed: w1, w2".to_owned()));
    let report = case.verify(None);
    let (verdict, detail) = said(&report);
    assert!(report.ok && verdict == Verdict::NotChecked && detail.contains("w1, w2") && detail.contains("--witness-policy"), "{detail}");
    // A reader who asks for nobody has checked nothing.
    let none = parse(&policy_text(&case.log, &THREE, "none"));
    let report = case.verify(Some(&none));
    assert!(report.ok && said(&report).0 == Verdict::NotChecked);
}

#[test]
fn too_few_forged_foreign_and_unknown_are_refused() {
    let mut case = Case::new();
    let own = case.own();
    // Too few, also by the receipt's own policy; one key twice under two names is one witness.
    case.facts.witnesses = THREE[..1].to_vec();
    assert_eq!(failed(&case.verify(Some(&own))), [CLAIM]);
    assert_eq!(failed(&case.verify(None)), [CLAIM]);
    case.facts.witnesses = vec![];
    assert_eq!(failed(&case.verify(Some(&own))), [CLAIM]);
    // Another key under a witness's name: no line of an unknown key may stand there.
    case.facts.witnesses = vec![THREE[0], ("witness.example/b", 99)];
    assert_eq!(failed(&case.verify(Some(&own))), ["the log signed the checkpoint"]);
    // Witnesses of the deployment's making do not count for a reader who names others.
    let mut case = Case::new();
    let others = [("other.example/a", 31), ("other.example/b", 32), ("other.example/c", 33)];
    let foreign = parse(&policy_text(&case.log, &others, "committee"));
    let report = case.verify(Some(&foreign));
    assert_eq!((failed(&report), said(&report).1.contains("nobody")), (vec![CLAIM], true));
    // One of the reader's and one of the deployment's.
    case.facts.witnesses = vec![THREE[0], THREE[1], others[0]];
    assert_eq!(failed(&case.verify(Some(&foreign))), [CLAIM]);
    case.facts.witnesses.push(others[2]);
    assert!(case.verify(Some(&foreign)).ok);
    // The reader's policy is about another log.
    let case = Case::new();
    let stranger = verifier_of(&Ed25519Signer::from_seed("swarm.example/0e/audit", &[77; 32]).unwrap(), KeyKind::Ed25519).unwrap();
    let report = case.verify(Some(&parse(&policy_text(&stranger, &THREE, "committee"))));
    assert_eq!((failed(&report), said(&report).1.contains("does not name this log")), (vec![CLAIM], true));
}

#[test]
fn times_before_the_entries_and_in_the_future_are_refused() {
    let mut case = Case::new();
    let own = case.own();
    for (at, ok) in [
        (UnixTime::from_millis(NOW.millis() - DAY), false),
        (UnixTime::from_millis(1000), false),
        (NOW.plus_millis(DAY), true),
        (NOW.plus_millis(DAY + 200_000), true),
        (NOW.plus_millis(DAY + 400_000), false),
    ] {
        case.facts.witnessed_at = at;
        let report = case.verify(Some(&own));
        assert_eq!(report.ok, ok, "{at}: {:?}", failed(&report));
        if !ok {
            assert_eq!(failed(&report), [TIMES], "{at}");
        }
    }
}

/// Whoever holds the receipt key may sign anything; cosignatures are not theirs to make. Each byte of the note is changed
/// before the whole is signed.
#[test]
fn every_changed_byte_of_the_cosigned_checkpoint_is_found_even_under_a_good_signature() {
    let mut case = Case::new();
    // Without volumes: the loop below makes it some thousand times.
    case.facts.statement.inputs.clear();
    case.facts.statement.outputs.clear();
    for index in [1, 4, 5, 8, 9, 10, 11] {
        case.facts.entries[index].1 = false;
    }
    let own = case.own();
    let length = {
        use base64::Engine as _;
        let receipt = crate::Receipt::parse(&case.facts.receipt()).unwrap();
        let record = receipt.control.peek::<crate::envelope::InToto<crate::Record>>().unwrap().predicate;
        base64::engine::general_purpose::STANDARD.decode(record.log.checkpoint).unwrap().len()
    };
    assert!(case.verify(Some(&own)).ok);
    for at in 0..length {
        case.facts.flipped = Some((at, 1 << (at % 7)));
        assert!(!case.verify(Some(&own)).ok, "byte {at}");
    }
}

#[test]
fn a_policy_inside_that_is_none_is_refused() {
    let mut case = Case::new();
    for broken in ["", "quorum committee\n", "quorum none"] {
        case.facts.witness_policy = Some(broken.to_owned());
        assert_eq!(failed(&case.verify(None)), [CLAIM], "{broken:?}");
    }
    // Without it the lines are by nobody whom the receipt names; the reader's policy may name them all the same.
    case.facts.witness_policy = None;
    assert_eq!(failed(&case.verify(None)), ["the log signed the checkpoint"]);
    assert!(case.verify(Some(&case.own())).ok);
}
