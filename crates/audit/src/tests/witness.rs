//! The witness: recorded conversations, each answer of the protocol, and that it never signs two histories.

use std::collections::BTreeMap;

use super::support::{Log, Seeded, key_of, number_leaf, signer, signer_named, testdata, variant_of, variants, witness_key_of};
use crate::checkpoint::Checkpoint;
use crate::hash::{Hash, empty_root};
use crate::key::{Ed25519Signer, VerifierKey};
use crate::note::Note;
use crate::prove::prove_consistency;
use crate::witness::{
    AddCheckpoint, Answered, KnownLogs, KnownLogsError, Refusal, SIZE, Seen, StateError, WitnessState, add_checkpoint, monitored, origin_hash,
};

const NOW: u64 = 1_800_000_000;

/// A witness's memory that is lost with the test.
#[derive(Default)]
pub(super) struct Memory(pub(super) BTreeMap<String, Seen>);

impl WitnessState for Memory {
    fn last(&self, origin: &str) -> Result<Option<Seen>, StateError> {
        Ok(self.0.get(origin).cloned())
    }
    fn advance(&mut self, before: Option<&Seen>, next: &Seen) -> Result<(), StateError> {
        let origin = next.checkpoint.origin.clone();
        if self.0.get(&origin) != before {
            return Err(StateError::Raced);
        }
        self.0.insert(origin, next.clone());
        Ok(())
    }
}

fn witness() -> Ed25519Signer {
    signer_named("witness.example/w1", 2)
}

/// The logs of a witness that knows the test's own log.
pub(super) fn ours() -> KnownLogs {
    let mut logs = KnownLogs::default();
    logs.add(key_of(&signer()), None).unwrap();
    logs
}

/// A good request from a size to a log.
pub(super) fn request(old: u64, log: &Log) -> Vec<u8> {
    let proof = prove_consistency(&log.tiles, old, log.size()).unwrap();
    AddCheckpoint { old, proof, note: log.signed() }.encode()
}

fn ask(state: &mut Memory, bytes: &[u8]) -> Answered {
    add_checkpoint(bytes, &ours(), state, &witness(), NOW)
}

/// One request of a recorded conversation with what is asserted of its answer.
struct Recorded {
    body: Vec<u8>,
    status: u16,
    asserts: Vec<String>,
}

fn conversation(name: &str) -> Vec<Recorded> {
    let text = std::fs::read_to_string(testdata("witness").join(name)).unwrap();
    let mut recorded = Vec::new();
    for part in text.split("POST http").skip(1) {
        let (_, rest) = part.split_once("```\n").unwrap();
        let (body, rest) = rest.split_once("```\n").unwrap();
        let mut lines = rest.lines();
        let status = lines.next().unwrap().strip_prefix("HTTP ").unwrap().parse().unwrap();
        assert_eq!(lines.next(), Some("[Asserts]"));
        let asserts = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        recorded.push(Recorded { body: body.as_bytes().to_vec(), status, asserts });
    }
    recorded
}

/// Plays a conversation; returns how many answers were signatures.
fn play(name: &str, logs: &KnownLogs, state: &mut Memory) -> usize {
    let seed: [u8; 32] = hex::decode("31ffc2116ecbe003acaa800ab70757bd7d53206e3febef6a6d0796d95530b34f").unwrap().try_into().unwrap();
    let witness = Ed25519Signer::from_seed("example.com/witness", &seed).unwrap();
    let mut signed = 0;
    for (recorded, number) in conversation(name).into_iter().zip(1..) {
        let answered = add_checkpoint(&recorded.body, logs, state, &witness, NOW);
        // The specification of today: 404 for a log that the witness does not know.
        let unknown = recorded.asserts == ["body contains \"unknown log\""];
        let status = if unknown { 404 } else { recorded.status };
        assert_eq!(answered.answer.status, status, "{name}, request {number}: {answered:?}");
        let body = String::from_utf8(answered.answer.body).unwrap();
        for assert in recorded.asserts {
            if let Some(part) = assert.strip_prefix("body contains ") {
                assert!(body.contains(part.trim_matches('"')), "{name}, request {number}: {body}");
            } else {
                let whole = assert.strip_prefix("body == ").unwrap().trim_matches('"').replace("\\n", "\n");
                assert_eq!(body, whole, "{name}, request {number}");
                assert_eq!(answered.answer.content_type, SIZE);
            }
        }
        if status == 200 {
            signed += 1;
            // As the specification tells the log to do: the answer behind the checkpoint is a note that our key verifies.
            let (_, note) = std::str::from_utf8(&recorded.body).unwrap().split_once("\n\n").unwrap();
            let cosigned = Note::parse(format!("{note}{body}").as_bytes()).unwrap();
            let good = cosigned.verify(&[witness_key_of(&witness)]).unwrap();
            assert_eq!(good.iter().map(|one| one.time).collect::<Vec<_>>(), [Some(NOW)]);
        }
    }
    signed
}

#[test]
fn recorded_conversations_pass() {
    let key = hex::decode("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f").unwrap();
    let origin = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562";
    let key = VerifierKey::new(origin, crate::key::KeyKind::Ed25519, key.try_into().unwrap()).unwrap();
    let mut logs = KnownLogs::default();
    logs.add(key, None).unwrap();
    let mut state = Memory::default();
    assert_eq!(play("litewitness.hurl", &logs, &mut state), 3);
    assert_eq!(state.0[origin].checkpoint.size, 5);
    assert_eq!(play("bastion.hurl", &logs, &mut Memory::default()), 1);
    // A log whose origin is not its key's name, and has spaces.
    let mut logs = KnownLogs::default();
    let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8".parse().unwrap();
    logs.add(key, Some("go.sum database tree")).unwrap();
    let mut state = Memory::default();
    assert_eq!(play("sumdb.hurl", &logs, &mut state), 1);
    assert_eq!(state.0["go.sum database tree"].checkpoint.size, 35_225_469);
}

/// Each answer of the protocol, one request each; nothing but the good one changes the state.
#[test]
fn each_refusal_has_its_status_and_signs_nothing() {
    let (five, eight) = (Log::of(5), Log::of(8));
    let mut state = Memory::default();
    assert_eq!(ask(&mut state, &request(0, &five)).answer.status, 200);
    let before = state.0.clone();
    let forked = {
        let mut log = Log::of(4);
        log.push(vec![b"another".to_vec(), b"history".to_vec(), b"of".to_vec(), b"ours".to_vec()]);
        log
    };
    let other_five = {
        let mut log = Log::of(4);
        log.push(vec![b"another".to_vec()]);
        log
    };
    let lie = |size, root| Checkpoint { origin: signer().name_of(), size, root }.sign(&signer()).unwrap();
    let good = prove_consistency(&eight.tiles, 5, 8).unwrap();
    let made = |old, proof: &[Hash], note: Note| AddCheckpoint { old, proof: proof.to_vec(), note }.encode();
    let resigned = |name: &str, seed| {
        let stranger = signer_named(name, seed);
        Note::sign(&eight.checkpoint().text(), &[&stranger]).unwrap()
    };
    let broken = {
        let text = String::from_utf8(eight.signed().encode()).unwrap().replace("\n8\n", "\n9\n");
        Note::parse(text.as_bytes()).unwrap()
    };
    let foreign = {
        let stranger = signer_named("log.example/other", 9);
        Checkpoint { origin: "log.example/other".into(), ..eight.checkpoint() }.sign(&stranger).unwrap()
    };
    let mut seen = std::collections::BTreeSet::new();
    for (what, bytes, refusal) in [
        ("no request", b"hello".to_vec(), Refusal::Malformed("")),
        ("a leading zero", request(5, &eight).replacen("old 5", "old 05"), Refusal::Malformed("")),
        ("no number", request(5, &eight).replacen("old 5", "old -5"), Refusal::Malformed("")),
        ("a short hash", made(5, &good, eight.signed()).replacen("\n\n", "\nAAAA\n\n"), Refusal::Malformed("")),
        ("64 hashes", made(5, &[Hash::from_bytes([0; 32]); 64], eight.signed()), Refusal::Malformed("")),
        ("too long", vec![b'x'; crate::limits::WITNESS_REQUEST_MAX + 1], Refusal::Malformed("")),
        ("a note that is no checkpoint", made(5, &good, Note::sign("hello\n", &[&signer()]).unwrap()), Refusal::Malformed("")),
        ("old above the size", made(9, &good, eight.signed()), Refusal::OldAbove),
        ("another log", made(5, &good, foreign), Refusal::UnknownLog),
        ("a stranger's key", made(5, &good, resigned("log.example/other", 9)), Refusal::NotSigned),
        ("the log's name, a stranger's key", made(5, &good, resigned(&signer().name_of(), 9)), Refusal::NotSigned),
        ("a changed size", made(5, &good, broken), Refusal::BadSignature),
        ("an older size than signed", request(3, &eight), Refusal::Conflict(5)),
        ("from nothing", request(0, &eight), Refusal::Conflict(5)),
        ("a newer size than signed", request(6, &eight), Refusal::Conflict(5)),
        ("a rolled-back log", request(0, &Log::of(3)), Refusal::Conflict(5)),
        ("the same size, another root", made(5, &[], other_five.signed()), Refusal::OtherRoot),
        ("no proof", made(5, &[], eight.signed()), Refusal::Inconsistent),
        ("a proof too many", made(5, &[good.clone(), vec![Hash::from_bytes([7; 32])]].concat(), eight.signed()), Refusal::Inconsistent),
        ("a fork, well proved in itself", made(5, &prove_consistency(&forked.tiles, 5, 8).unwrap(), forked.signed()), Refusal::Inconsistent),
        ("a proof for the same size", made(5, &good, five.signed()), Refusal::Inconsistent),
    ] {
        let answered = ask(&mut state, &bytes);
        let told = answered.refusal.unwrap_or_else(|| panic!("{what}: {answered:?}"));
        assert_eq!(variant_of(&told), variant_of(&refusal), "{what}");
        if let Refusal::Conflict(size) = refusal {
            assert_eq!((answered.answer.body.as_slice(), answered.answer.content_type), (format!("{size}\n").as_bytes(), SIZE), "{what}");
        }
        assert_eq!(answered.answer.status, refusal.status(), "{what}");
        assert_eq!(told.is_evidence(), answered.answer.status == 422, "{what}");
        assert_eq!(state.0, before, "{what}");
        seen.insert(variant_of(&refusal));
    }
    // From nothing: an empty tree with a root of its own, and a proof where none is needed.
    for (note, proof, refusal) in [
        (lie(0, Hash::from_bytes([1; 32])), vec![], Refusal::EmptyRoot),
        (five.signed(), vec![Hash::from_bytes([1; 32])], Refusal::Inconsistent),
    ] {
        let mut state = Memory::default();
        let answered = ask(&mut state, &made(0, &proof, note));
        assert_eq!((answered.refusal, answered.answer.status), (Some(refusal), 422));
        assert!(state.0.is_empty());
        seen.insert(variant_of(&refusal));
    }
    seen.insert(variant_of(&Refusal::ClockBack));
    let all = variants(include_str!("../witness.rs"), "Refusal");
    assert_eq!(all.into_iter().collect::<std::collections::BTreeSet<_>>(), seen, "each refusal has a case");
}

trait Named {
    fn name_of(&self) -> String;
}
impl Named for Ed25519Signer {
    fn name_of(&self) -> String {
        crate::LogSigner::name(self).to_owned()
    }
}

trait Replace {
    fn replacen(self, from: &str, to: &str) -> Vec<u8>;
}
impl Replace for Vec<u8> {
    fn replacen(self, from: &str, to: &str) -> Vec<u8> {
        String::from_utf8(self).unwrap().replacen(from, to, 1).into_bytes()
    }
}

#[test]
fn a_growing_log_is_followed_and_shown_to_monitors() {
    let mut state = Memory::default();
    let mut log = Log::new();
    let mut old = 0;
    let hash = origin_hash(super::support::ORIGIN);
    assert_eq!(monitored(&hash, &ours(), &state).status, 404, "nothing was signed yet");
    for step in [0, 1, 1, 2, 250, 3, 300, 0] {
        log.push((old..old + step).map(number_leaf).collect());
        let answered = ask(&mut state, &request(old, &log));
        assert_eq!(answered.answer.status, 200, "{answered:?}");
        old = log.size();
        let shown = monitored(&hash, &ours(), &state);
        let note = Note::parse(&shown.body).unwrap();
        let (checkpoint, cosigned) = Checkpoint::verify_strict(&note, &key_of(&signer()), &[witness_key_of(&witness())]).unwrap();
        assert_eq!((shown.status, checkpoint, cosigned.len()), (200, log.checkpoint(), 1));
    }
    assert_eq!(monitored(&hash.to_uppercase(), &ours(), &state).status, 404);
    assert_eq!(monitored(&origin_hash("log.example/other"), &ours(), &state).status, 404);
}

#[test]
fn lines_of_strangers_are_ignored_and_not_kept() {
    let log = Log::of(5);
    let mut note = Note::sign(&log.checkpoint().text(), &[&signer_named("stranger.example", 8), &signer(), &signer()]).unwrap();
    note.add(crate::cosignature::cosign(&signer_named("witness.example/w2", 3), note.text(), NOW).unwrap()).unwrap();
    let mut state = Memory::default();
    assert_eq!(ask(&mut state, &AddCheckpoint { old: 0, proof: vec![], note }.encode()).answer.status, 200);
    let kept = Note::parse(&state.0.values().next().unwrap().note).unwrap();
    let names: Vec<&str> = kept.signatures().iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, [super::support::ORIGIN, "witness.example/w1"]);
}

#[test]
fn extension_lines_are_signed_over_and_mean_nothing() {
    let text = format!("{}more\nlines\n", Log::of(5).checkpoint().text());
    let note = Note::sign(&text, &[&signer()]).unwrap();
    let mut state = Memory::default();
    assert_eq!(ask(&mut state, &AddCheckpoint { old: 0, proof: vec![], note }.encode()).answer.status, 200);
    assert_eq!(state.0.values().next().unwrap().checkpoint, Log::of(5).checkpoint());
    // An empty line among them would end the text for another reader.
    assert!(crate::witness::parse_foreign("a\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nb\n").is_err());
}

#[test]
fn the_clock_never_goes_back() {
    let mut state = Memory::default();
    let mut log = Log::of(1);
    let at = |state: &mut Memory, log: &Log, old, now| {
        let answered = add_checkpoint(&request(old, log), &ours(), state, &witness(), now);
        (answered.answer.status, state.0.values().next().map(|seen| seen.seconds))
    };
    assert_eq!(at(&mut state, &log, 0, 0), (503, None), "a clock at 0 is none");
    assert_eq!(at(&mut state, &log, 0, u64::MAX), (503, None), "a time has at most 63 bits");
    assert_eq!(at(&mut state, &log, 0, NOW), (200, Some(NOW)));
    log.push(vec![b"1".to_vec()]);
    assert_eq!(at(&mut state, &log, 1, NOW - 300), (200, Some(NOW)), "a corrected clock signs the later time");
    assert_eq!(at(&mut state, &log, 2, NOW - 301), (503, Some(NOW)), "a clock far behind signs nothing");
    assert_eq!(at(&mut state, &log, 2, NOW + 1), (200, Some(NOW + 1)));
}

/// Two requests that were judged by the same state: the second is refused by the state, not signed.
#[test]
fn a_race_signs_once() {
    struct Stale(Option<Seen>);
    impl WitnessState for Stale {
        fn last(&self, _: &str) -> Result<Option<Seen>, StateError> {
            Ok(None)
        }
        fn advance(&mut self, before: Option<&Seen>, next: &Seen) -> Result<(), StateError> {
            if self.0.as_ref() != before {
                return Err(StateError::Raced);
            }
            self.0 = Some(next.clone());
            Ok(())
        }
    }
    let mut state = Stale(None);
    let mut ask = |log: &Log| add_checkpoint(&request(0, log), &ours(), &mut state, &witness(), NOW);
    assert_eq!(ask(&Log::of(5)).answer.status, 200);
    let second = ask(&Log::of(3));
    assert_eq!((second.answer.status, second.trouble), (503, Some(StateError::Raced)));
}

/// Whatever a log sends, all that was signed of it is one history: each checkpoint extends the one before.
#[test]
fn a_lying_log_gets_no_second_history() {
    let mut random = Seeded(77);
    let logs: Vec<Log> = (0..6_u64)
        .map(|lie| {
            let mut log = Log::of(4);
            log.push((0..20).map(|n| format!("{}/{n}", if n < 4 { 0 } else { lie }).into_bytes()).collect());
            log
        })
        .collect();
    for _ in 0..40 {
        let mut state = Memory::default();
        let mut history: Vec<(u64, usize)> = Vec::new();
        for _ in 0..60 {
            let which = random.below(logs.len());
            let size = u64::try_from(random.below(25)).unwrap();
            let mut part = Log::new();
            part.push(logs[which].leaves.iter().take(usize::try_from(size).unwrap()).cloned().collect());
            let old = if random.below(4) == 0 { u64::try_from(random.below(25)).unwrap() } else { state.0.values().next().map_or(0, |s| s.checkpoint.size) };
            if old > size {
                continue;
            }
            if ask(&mut state, &request(old, &part)).answer.status == 200 {
                history.push((size, which));
            }
        }
        for pair in history.windows(2) {
            let ((old, before), (new, after)) = (pair[0], pair[1]);
            let same = logs[before].leaves.iter().zip(&logs[after].leaves).take(usize::try_from(old).unwrap()).all(|(a, b)| a == b);
            assert!(old <= new && same, "{history:?}");
        }
    }
}

#[test]
fn a_list_of_logs_is_unambiguous() {
    let mut logs = ours();
    assert!(matches!(logs.add(key_of(&signer()), None), Err(KnownLogsError::Twice(_))));
    assert!(matches!(logs.add(witness_key_of(&signer()), None), Err(KnownLogsError::Kind(_))));
    for origin in ["", "a\nb", &"x".repeat(crate::limits::ORIGIN_MAX + 1)] {
        assert!(matches!(logs.add(key_of(&signer()), Some(origin)), Err(KnownLogsError::Origin(_))));
    }
    logs.add(key_of(&signer_named("second.example", 4)), Some(super::support::ORIGIN)).unwrap();
    assert_eq!((logs.all().len(), logs.find(super::support::ORIGIN).unwrap().keys.len()), (1, 2));
    for number in 0..crate::limits::LOGS_MAX - 1 {
        logs.add(key_of(&signer_named(&format!("log.example/{number}"), 5)), None).unwrap();
    }
    assert_eq!(logs.add(key_of(&signer_named("one.more", 5)), None), Err(KnownLogsError::TooMany));
}

#[test]
fn stored_notes_are_only_believed_with_ones_own_signature() {
    let mut state = Memory::default();
    ask(&mut state, &request(0, &Log::of(5)));
    let seen = state.0.values().next().unwrap().clone();
    let own = witness_key_of(&witness());
    assert_eq!(Seen::parse(&seen.note, &own), Ok(seen.clone()));
    assert!(Seen::parse(&Log::of(5).signed().encode(), &own).is_err());
    assert!(Seen::parse(&seen.note, &witness_key_of(&signer_named("witness.example/w1", 3))).is_err());
    for at in 0..seen.note.len() {
        let changed = super::support::flipped(&seen.note, at, 1);
        // A change of the log's own line is not ours to judge: it changes neither size nor root nor time.
        if let Ok(read) = Seen::parse(&changed, &own) {
            assert_eq!((read.checkpoint, read.seconds), (seen.checkpoint.clone(), seen.seconds), "byte {at}");
        }
    }
    assert_eq!(empty_root(), Log::of(0).root);
}
