//! Policy files: the example of the specification, every rule, and who reaches a quorum.

use std::collections::BTreeSet;

use super::support::{Log, key_of, signer, signer_named, variant_of, variants, witness_key_of};
use crate::WitnessPolicy;
use crate::checkpoint::CheckpointError;
use crate::cosignature::cosign;
use crate::note::Note;
use crate::witness_policy::PolicyError;

fn vkey(name: &str, seed: u8) -> String {
    witness_key_of(&signer_named(name, seed)).to_string()
}

/// The example of C2SP tlog-policy, with keys of ours in the place of the elided ones.
pub(super) fn example() -> String {
    let mut text = format!("# the log\nlog {} https://log.example/ \n\n", key_of(&signer()));
    for (name, seed) in [("X1", 11), ("X2", 12), ("X3", 13), ("Y1", 21), ("Y2", 22), ("Y3", 23)] {
        text.push_str(&format!("  witness\t{name}  {} node:{name}\n", vkey(&format!("witness.example/{name}"), seed)));
    }
    text.push_str("group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n");
    text
}

fn parse(text: &str) -> Result<WitnessPolicy, PolicyError> {
    WitnessPolicy::parse(text.as_bytes())
}

#[test]
fn the_example_of_the_specification_counts_as_it_says() {
    let policy = parse(&example()).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (1, 6));
    assert_eq!(policy.logs()[0].url.as_deref(), Some("https://log.example/"));
    assert_eq!(parse(&policy.to_string()).unwrap(), policy, "the plain form means the same");
    assert_eq!(policy.summary(), "2 of 2 of `X-and-Y` must have signed");
    let names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"];
    for mask in 0..1_u32 << names.len() {
        let signed: BTreeSet<&str> = names.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect();
        let x = signed.iter().filter(|name| name.starts_with('X')).count();
        let y = signed.iter().filter(|name| name.starts_with('Y')).count();
        assert_eq!(policy.reached_by(&signed), x >= 2 && y >= 1, "{signed:?}");
    }
    // A name that the file does not know counts nothing.
    assert!(!policy.reached_by(&BTreeSet::from(["X1", "Y1", "Z9"])));
}

#[test]
fn each_rule_refuses() {
    let (log, a, b) = (key_of(&signer()), vkey("a.example", 1), vkey("b.example", 2));
    let two = format!("witness a {a2}\nwitness b {b}\n", a2 = vkey("a.example", 3));
    let mut seen = BTreeSet::new();
    for (text, error) in [
        ("quorum none".to_owned(), PolicyError::Text),
        ("quorum none\r\n".to_owned(), PolicyError::Text),
        ("x".repeat(crate::limits::POLICY_MAX + 1), PolicyError::TooLong),
        ("".to_owned(), PolicyError::Text),
        ("\n".to_owned(), PolicyError::Quorum),
        (format!("{two}quorum a\nquorum a\n"), PolicyError::Quorum),
        ("quorum\n".to_owned(), PolicyError::Line(1)),
        ("quorum none none\n".to_owned(), PolicyError::Line(1)),
        ("log\n".to_owned(), PolicyError::Line(1)),
        ("group g any\n".to_owned(), PolicyError::Line(1)),
        ("Quorum none\n".to_owned(), PolicyError::Line(1)),
        ("quorum\u{a0}none\n".to_owned(), PolicyError::Line(1)),
        (format!("log {b}\n"), PolicyError::Key(1)),
        (format!("witness a {log}\n"), PolicyError::Key(1)),
        ("witness a b\n".to_owned(), PolicyError::Key(1)),
        (format!("log {log}\nlog {}\n", key_of(&signer_named("other.example", 1))), PolicyError::DuplicateKey(2)),
        (format!("witness x {b}\nwitness y {}\n", vkey("other.example", 2)), PolicyError::DuplicateKey(2)),
        (format!("log {log}\nwitness own {a}\n"), PolicyError::DuplicateKey(2)),
        (format!("{two}group a any b\n"), PolicyError::NameTaken(3)),
        (format!("witness none {b}\n"), PolicyError::NameTaken(1)),
        (format!("{two}group g any c\n"), PolicyError::Undefined(3, "c".into())),
        (format!("{two}group g any none\n"), PolicyError::Undefined(3, "none".into())),
        (format!("{two}group g any g\n"), PolicyError::Undefined(3, "g".into())),
        (format!("quorum a\n{two}"), PolicyError::Undefined(1, "a".into())),
        (format!("{two}group g any a a\n"), PolicyError::TwoGroups(3, "a".into())),
        (format!("{two}group g any a\ngroup h any a b\n"), PolicyError::TwoGroups(4, "a".into())),
        (format!("{two}group g 0 a b\n"), PolicyError::Threshold(3)),
        (format!("{two}group g 3 a b\n"), PolicyError::Threshold(3)),
        (format!("{two}group g 02 a b\n"), PolicyError::Threshold(3)),
        (format!("{two}group g +1 a b\n"), PolicyError::Threshold(3)),
        (many(), PolicyError::TooMany),
    ] {
        seen.insert(variant_of(&error));
        assert_eq!(parse(&text), Err(error), "{}", text.get(..text.len().min(200)).unwrap());
    }
    let all = variants(include_str!("../witness_policy.rs"), "PolicyError");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), seen, "each rule has a case");
    assert!(matches!(WitnessPolicy::parse(b"# \xff\nquorum none\n"), Err(PolicyError::Text)));
}

fn many() -> String {
    let lines = (0..=crate::limits::POLICY_ITEMS_MAX).map(|n| format!("witness w{n} {}\n", vkey("w.example", u8::try_from(n + 100).unwrap())));
    lines.chain(["quorum none\n".to_owned()]).collect()
}

#[test]
fn thirty_two_of_each_are_read() {
    let mut text = String::new();
    for n in 0..32_u8 {
        text.push_str(&format!("log {}\n", key_of(&signer_named(&format!("l{n}.example"), 100 + n))));
        text.push_str(&format!("witness w{n} {}\n", vkey("w.example", 140 + n)));
        text.push_str(&format!("group g{n} any w{n}\n"));
    }
    text.push_str("quorum g31\n");
    let policy = parse(&text).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (32, 32));
    assert!(policy.reached_by(&BTreeSet::from(["w31"])) && !policy.reached_by(&BTreeSet::from(["w30"])));
}

#[test]
fn checkpoints_are_judged_by_whom_they_bear() {
    let policy = parse(&example()).unwrap();
    let log = Log::of(5);
    let note = |witnesses: &[(&str, u8)]| {
        let mut note = log.signed();
        for (name, seed) in witnesses {
            note.add(cosign(&signer_named(&format!("witness.example/{name}"), *seed), note.text(), 1_800_000_000).unwrap()).unwrap();
        }
        note
    };
    let (checkpoint, judged) = policy.verify(&note(&[("X1", 11), ("Y3", 23), ("X3", 13)])).unwrap();
    assert_eq!((checkpoint, judged.satisfied), (log.checkpoint(), true));
    let names: Vec<&str> = judged.signed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X1", "X3", "Y3"]);
    // Too few; twice the same; strangers under a witness's name.
    for few in [&[("X1", 11), ("Y1", 21)][..], &[("X1", 11), ("X1", 11), ("Y1", 21)], &[("X1", 11), ("X2", 99), ("Y1", 21)]] {
        assert!(!policy.verify(&note(few)).unwrap().1.satisfied, "{few:?}");
    }
    // A good cosignature of another checkpoint is a bad one of this.
    let mut moved = log.signed();
    moved.add(cosign(&signer_named("witness.example/X1", 11), &Log::of(4).checkpoint().text(), 1_800_000_000).unwrap()).unwrap();
    assert!(matches!(policy.verify(&moved), Err(CheckpointError::Note(_))));
    // Another log's checkpoint, however well witnessed.
    let other = signer_named("other.example", 77);
    let mut foreign = Note::sign(&format!("other.example\n5\n{}\n", log.root), &[&other]).unwrap();
    foreign.add(cosign(&signer_named("witness.example/X1", 11), foreign.text(), 1).unwrap()).unwrap();
    assert_eq!(policy.verify(&foreign), Err(CheckpointError::NotSignedByLog));
    // Nobody is asked for: all that is left is the log's own signature.
    let none = parse(&format!("log {}\nquorum none\n", key_of(&signer()))).unwrap();
    assert!(none.is_none() && none.verify(&log.signed()).unwrap().1.satisfied);
    assert_eq!(none.summary(), "no witness must have signed");
}
