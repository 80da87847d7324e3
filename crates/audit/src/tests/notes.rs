//! Signed notes, keys, checkpoints, cosignatures and proof files: what is read, and what is refused.

use super::support::{Log, ORIGIN, flipped, key_of, number_leaf, signer, signer_named, witness_key_of};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::cosignature::cosign;
use crate::hash::leaf_hash;
use crate::key::{KeyError, KeyKind, LogSigner as _, VerifierKey};
use crate::limits::{NOTE_MAX, SIGNATURES_READ_MAX, SIGNATURES_WRITE_MAX};
use crate::merkle::ProofError;
use crate::note::{Note, NoteError, NoteSignature};
use crate::proof::{TlogProof, TlogProofError};
use crate::prove::prove_inclusion;

#[test]
fn keys_are_read_as_the_specification_writes_them() {
    // The sample log of Tessera: name, id and key by others.
    let text = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    let key: VerifierKey = text.parse().unwrap();
    assert_eq!((key.name(), key.kind(), hex::encode(key.id())), ("example.com/log/testdata", KeyKind::Ed25519, "33d7b496".into()));
    assert_eq!(key.to_string(), text);
    for (wrong, error) in [
        ("example.com/log/testdata+33d7b497+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", KeyError::Id),
        ("example.com/log/testdata+33D7B496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", KeyError::Id),
        ("example.com/log/testdat+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", KeyError::Id),
        ("example.com/log/testdata+33d7b496+BuHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", KeyError::Kind),
        ("example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkS", KeyError::Shape),
        ("example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkk", KeyError::Shape),
        ("example.com/log/testdata+33d7b496+", KeyError::Shape),
        ("example.com/log/testdata+33d7b496", KeyError::Shape),
        ("+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", KeyError::Name),
        ("a b+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", KeyError::Name),
        ("", KeyError::Shape),
    ] {
        assert_eq!(wrong.parse::<VerifierKey>(), Err(error), "{wrong}");
    }
    let long = format!("{}+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx", "a".repeat(1_000_000));
    assert_eq!(long.parse::<VerifierKey>(), Err(KeyError::Shape));
    for name in ["a+b", "a b", "a\u{2003}b", "a\nb", "a\u{7f}b", "", &"a".repeat(256)] {
        assert_eq!(VerifierKey::new(name, KeyKind::Ed25519, [1; 32]), Err(KeyError::Name), "{name:?}");
    }
}

/// The same public key has another id as a log's key, as a witness's key and under another name.
#[test]
fn an_id_binds_name_and_role() {
    let log = signer();
    let ids = [
        key_of(&log).id(),
        witness_key_of(&log).id(),
        VerifierKey::new("other", KeyKind::Ed25519, log.public()).unwrap().id(),
    ];
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
}

#[test]
fn a_checkpoint_reads_back() {
    let log = Log::of(7);
    let note = Note::parse(&log.signed().encode()).unwrap();
    assert_eq!(note.text(), format!("{ORIGIN}\n7\n{}\n", log.root.base64()));
    let (checkpoint, cosigned) = Checkpoint::verify(&note, &key_of(&signer()), &[]).unwrap();
    assert_eq!((checkpoint, cosigned), (log.checkpoint(), vec![]));
    assert!(Checkpoint::verify_strict(&note, &key_of(&signer()), &[]).is_ok());
}

#[test]
fn texts_that_are_no_checkpoint_are_refused() {
    let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    use CheckpointError as E;
    for (text, error) in [
        (String::new(), E::Shape),
        ("a\n".into(), E::Shape),
        ("a\n1\n".into(), E::Shape),
        (format!("a\n1\n{root}"), E::Shape),
        (format!("a\n1\n{root}\nextension\n"), E::Extension),
        (format!("a\n1\n{root}\n\n"), E::Extension),
        (format!("a b\n1\n{root}\n"), E::Origin),
        (format!("\n1\n{root}\n"), E::Origin),
        (format!("a\n01\n{root}\n"), E::Size),
        (format!("a\n+1\n{root}\n"), E::Size),
        (format!("a\n-1\n{root}\n"), E::Size),
        (format!("a\n1 \n{root}\n"), E::Size),
        (format!("a\n\n{root}\n"), E::Size),
        (format!("a\n18446744073709551616\n{root}\n"), E::Size),
        (format!("a\n1\n{root}=\n"), E::Root),
        (format!("a\n1\n{}\n", root.replace('=', "")), E::Root),
        ("a\n1\nAAAA\n".into(), E::Root),
        // The two bits behind the last byte must be zero: one root, one text.
        (format!("a\n1\n{}\n", root.replace("FU=", "FV=")), E::Root),
        (format!("a\r\n1\r\n{root}\r\n"), E::Origin),
    ] {
        assert_eq!(Checkpoint::parse_text(&text), Err(error), "{text:?}");
    }
    assert_eq!(Checkpoint::parse_text(&format!("a\n18446744073709551615\n{root}\n")).unwrap().size, u64::MAX);
}

#[test]
fn every_changed_byte_of_a_note_is_refused() {
    let bytes = Log::of(7).signed().encode();
    let key = key_of(&signer());
    for at in 0..bytes.len() {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128] {
            let read = Note::parse(&flipped(&bytes, at, mask));
            let verified = read.map_err(CheckpointError::Note).and_then(|note| Checkpoint::verify(&note, &key, &[]));
            assert!(verified.is_err(), "byte {at}, mask {mask}");
        }
        assert!(Note::parse(&bytes[..at]).and_then(|note| note.verify(std::slice::from_ref(&key))).is_err(), "cut at {at}");
    }
    for tail in ["\n", " ", "x", "— x AAAAAAAA"] {
        let longer = [&*bytes, tail.as_bytes()].concat();
        assert!(Note::parse(&longer).is_err(), "{tail:?}");
    }
}

#[test]
fn shapes_that_are_no_note() {
    let good = String::from_utf8(Log::of(1).signed().encode()).unwrap();
    let (text, line) = good.split_once("\n\n").unwrap();
    for (what, bytes, error) in [
        ("empty", String::new(), NoteError::Shape),
        ("no signature", format!("{text}\n\n"), NoteError::Shape),
        ("no empty line", format!("{text}\n{line}"), NoteError::Shape),
        ("no line feed at the end", good.trim_end().into(), NoteError::Shape),
        ("carriage return", good.replace('\n', "\r\n"), NoteError::Text),
        ("tab", good.replacen('1', "\t", 1), NoteError::Text),
        ("hyphen for the dash", good.replace('—', "-"), NoteError::SignatureLine(1)),
        ("two spaces", good.replace("— ", "—  "), NoteError::SignatureLine(1)),
        ("space at the end", good.replace("=\n\n", "= \n\n").trim_end().to_owned() + " \n", NoteError::SignatureLine(1)),
        ("no bytes", format!("{text}\n\n— {ORIGIN} \n"), NoteError::SignatureLine(1)),
        ("id only", format!("{text}\n\n— {ORIGIN} AAAAAA==\n"), NoteError::SignatureLine(1)),
        ("base64 of the other alphabet", format!("{text}\n\n— {ORIGIN} AAAAAA-_\n"), NoteError::SignatureLine(1)),
        ("second line broken", format!("{good}what\n"), NoteError::SignatureLine(2)),
    ] {
        assert_eq!(Note::parse(bytes.as_bytes()), Err(error), "{what}");
    }
    assert_eq!(Note::parse(b"\xff\n\n\xff\n"), Err(NoteError::Text));
    assert_eq!(Note::parse(&vec![b'a'; NOTE_MAX + 1]), Err(NoteError::TooLong));
    assert_eq!(Note::sign("no line feed", &[&signer()]), Err(NoteError::Shape));
    assert_eq!(Note::sign("escape \u{1b}\n", &[&signer()]), Err(NoteError::Text));
    assert_eq!(Note::sign("nobody\n", &[]), Err(NoteError::Shape));
}

fn line(name: &str, id: [u8; 4], bytes: &[u8]) -> NoteSignature {
    NoteSignature { name: name.into(), id, bytes: bytes.to_vec() }
}

#[test]
fn unknown_signers_are_ignored_and_strictly_refused() {
    let key = key_of(&signer());
    let mut note = Log::of(3).signed();
    note.add(line("stranger.example", [1, 2, 3, 4], &[0; 64])).unwrap();
    let note = Note::parse(&note.encode()).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&key)).unwrap().len(), 1);
    assert_eq!(note.verify_strict(std::slice::from_ref(&key)), Err(NoteError::UnknownSignature("stranger.example".into())));
    // Same name, other id: also unknown, whatever its bytes.
    let mut note = Log::of(3).signed();
    note.add(line(ORIGIN, [1, 2, 3, 4], &[0; 64])).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&key)).unwrap().len(), 1);
    assert_eq!(note.verify_strict(std::slice::from_ref(&key)), Err(NoteError::UnknownSignature(ORIGIN.into())));
}

#[test]
fn a_good_signature_beside_a_bad_one_of_a_known_key_is_refused() {
    let (log, witness) = (signer(), signer_named("witness.example/w1", 2));
    let keys = [key_of(&log), witness_key_of(&witness)];
    let mut note = Log::of(3).signed();
    note.add(line("witness.example/w1", keys[1].id(), &[9; 72])).unwrap();
    assert_eq!(note.verify(&keys), Err(NoteError::BadSignature("witness.example/w1".into())));
    // The log's own key twice, once wrong.
    let mut note = Log::of(3).signed();
    note.add(line(ORIGIN, keys[0].id(), &[9; 64])).unwrap();
    assert_eq!(note.verify(&keys), Err(NoteError::BadSignature(ORIGIN.into())));
    // Twice and both good: read leniently, refused strictly.
    let mut note = Log::of(3).signed();
    note.add(note.signatures()[0].clone()).unwrap();
    assert!(note.verify(&keys).is_ok());
    assert_eq!(note.verify_strict(&keys), Err(NoteError::SignedTwice(ORIGIN.into())));
}

#[test]
fn a_note_by_nobody_known_is_refused() {
    let note = Log::of(3).signed();
    let other = key_of(&signer_named("other.example/log", 9));
    assert_eq!(note.verify(&[]), Err(NoteError::NoKnownSignature));
    assert_eq!(note.verify(&[other]), Err(NoteError::NoKnownSignature));
    let key = key_of(&signer());
    assert_eq!(note.verify(&[key.clone(), key]), Err(NoteError::AmbiguousKey(ORIGIN.into())));
}

#[test]
fn seventeen_signatures_are_read_and_not_written_and_101_are_neither() {
    let key = key_of(&signer());
    let mut note = Log::of(3).signed();
    for n in 1..SIGNATURES_WRITE_MAX {
        note.add(line(&format!("w{n}.example"), [0; 4], &[1; 72])).unwrap();
    }
    assert_eq!(note.add(line("w16.example", [0; 4], &[1; 72])), Err(NoteError::TooManySignatures(SIGNATURES_WRITE_MAX)));
    let mut bytes = note.encode();
    for n in SIGNATURES_WRITE_MAX..SIGNATURES_READ_MAX {
        bytes.extend(line(&format!("w{n}.example"), [0; 4], &[1; 72]).line().into_bytes());
        let read = Note::parse(&bytes).unwrap();
        assert_eq!(read.signatures().len(), n + 1);
        assert_eq!(read.verify(std::slice::from_ref(&key)).unwrap().len(), 1);
    }
    bytes.extend(line("w100.example", [0; 4], &[1; 72]).line().into_bytes());
    assert_eq!(Note::parse(&bytes), Err(NoteError::TooManySignatures(SIGNATURES_READ_MAX)));
}

#[test]
fn a_checkpoint_is_signed_by_its_own_log_only() {
    let log = Log::of(3);
    let other = signer_named("other.example/log", 9);
    assert_eq!(log.checkpoint().sign(&other), Err(CheckpointError::OtherOrigin(ORIGIN.into())));
    // The other log signs our text as a note: its name is not the origin.
    let note = Note::sign(&log.checkpoint().text(), &[&other]).unwrap();
    assert_eq!(Checkpoint::verify(&note, &key_of(&other), &[]), Err(CheckpointError::OtherOrigin(ORIGIN.into())));
    // A witness alone does not make a checkpoint.
    let witness = signer_named("witness.example/w1", 2);
    let mut note = Note::sign(&log.checkpoint().text(), &[&other]).unwrap();
    note.add(cosign(&witness, note.text(), 1_800_000_000).unwrap()).unwrap();
    let verdict = Checkpoint::verify(&note, &key_of(&signer()), &[witness_key_of(&witness)]);
    assert_eq!(verdict, Err(CheckpointError::NotSignedByLog));
    // A cosignature key is no log key, even of the same seed.
    let verdict = Checkpoint::verify(&log.signed(), &witness_key_of(&signer()), &[key_of(&signer())]);
    assert_eq!(verdict, Err(CheckpointError::NotSignedByLog));
}

#[test]
fn cosignatures_hold_for_one_text_and_one_time() {
    let witness = signer_named("witness.example/w1", 2);
    let keys = [key_of(&signer()), witness_key_of(&witness)];
    let log = Log::of(3);
    let cosigned = cosign(&witness, &log.checkpoint().text(), 1_800_000_000).unwrap();
    let with = |note: &Note, signature: &NoteSignature| {
        let mut note = note.clone();
        note.add(signature.clone()).unwrap();
        note.verify(&keys)
    };
    let good = with(&log.signed(), &cosigned).unwrap();
    assert_eq!(good.iter().map(|one| one.time).collect::<Vec<_>>(), [None, Some(1_800_000_000)]);
    let bad = Err(NoteError::BadSignature("witness.example/w1".into()));
    // Moved to another checkpoint.
    assert_eq!(with(&Log::of(4).signed(), &cosigned), bad);
    // Each byte of time and signature counts.
    for at in 0..72 {
        let changed = NoteSignature { bytes: flipped(&cosigned.bytes, at, 1), ..cosigned.clone() };
        assert_eq!(with(&log.signed(), &changed), bad, "byte {at}");
    }
    for length in [0, 8, 71] {
        let changed = NoteSignature { bytes: cosigned.bytes[..length].to_vec(), ..cosigned.clone() };
        assert_eq!(with(&log.signed(), &changed), bad, "{length} bytes");
    }
    // A time of zero is none.
    let timeless = cosign(&witness, &log.checkpoint().text(), 0).unwrap();
    assert_eq!(with(&log.signed(), &timeless), bad);
    // The log's plain signature is no cosignature, and the reverse.
    let plain = NoteSignature { id: keys[1].id(), bytes: [&[0; 8][..], &witness.sign(log.checkpoint().text().as_bytes())].concat(), ..cosigned };
    assert_eq!(with(&log.signed(), &plain), bad);
}

fn proof_of(log: &Log, index: u64) -> TlogProof {
    TlogProof {
        extra: None,
        index,
        hashes: prove_inclusion(&log.tiles, index, log.size()).unwrap(),
        checkpoint: log.signed(),
    }
}

#[test]
fn a_proof_file_reads_back_and_verifies() {
    let log = Log::of(300);
    for index in [0, 1, 255, 256, 299] {
        let bytes = proof_of(&log, index).encode();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.starts_with(&format!("c2sp.org/tlog-proof@v1\nindex {index}\n")));
        let proof = TlogProof::parse(&bytes).unwrap();
        assert_eq!(proof.encode(), bytes);
        let included = proof.verify(&number_leaf(index), &key_of(&signer()), &[], 0).unwrap();
        assert_eq!((included.index, included.checkpoint), (index, log.checkpoint()));
    }
}

#[test]
fn each_step_of_a_proof_has_its_own_error() {
    let log = Log::of(300);
    let key = key_of(&signer());
    let proof = proof_of(&log, 5);
    let leaf = number_leaf(5);
    let wrong_root = Err(TlogProofError::Inclusion(ProofError::WrongRoot));
    assert_eq!(proof.verify(b"6", &key, &[], 0), wrong_root);
    assert_eq!(TlogProof { index: 4, ..proof.clone() }.verify(&leaf, &key, &[], 0), wrong_root);
    let outside = Err(TlogProofError::Inclusion(ProofError::IndexOutside { index: 300, size: 300 }));
    assert_eq!(TlogProof { index: 300, ..proof.clone() }.verify(&leaf, &key, &[], 0), outside);
    let other = key_of(&signer_named(ORIGIN, 9));
    let unknown = Err(TlogProofError::Checkpoint(CheckpointError::Note(NoteError::NoKnownSignature)));
    assert_eq!(proof.verify(&leaf, &other, &[], 0), unknown);
    assert_eq!(proof.verify(&leaf, &key, &[], 1), Err(TlogProofError::Witnesses { found: 0, wanted: 1 }));
    // Another size's checkpoint beside these hashes.
    let mixed = TlogProof { checkpoint: Log::of(299).signed(), ..proof.clone() };
    assert!(matches!(mixed.verify(&leaf, &key, &[], 0), Err(TlogProofError::Inclusion(_))));
    // A node instead of a leaf: the hash of an inner node is no leaf hash.
    let inner = [leaf_hash(b"0").as_bytes().as_slice(), leaf_hash(b"1").as_bytes()].concat();
    assert!(proof.verify(&inner, &key, &[], 0).is_err());
}

/// One public key counts once for the quorum, under however many names, and the log's own never.
#[test]
fn witnesses_are_counted_by_their_keys() {
    let log = Log::of(8);
    let key = key_of(&signer());
    let twins = [signer_named("witness.example/a", 2), signer_named("witness.example/b", 2)];
    let own = signer_named("witness.example/own", 1);
    let second = signer_named("witness.example/c", 3);
    let mut proof = proof_of(&log, 5);
    let text = log.checkpoint().text();
    for witness in twins.iter().chain([&own]) {
        proof.checkpoint.add(cosign(witness, &text, 1_800_000_000).unwrap()).unwrap();
    }
    let keys: Vec<_> = twins.iter().chain([&own, &second]).map(witness_key_of).collect();
    assert!(proof.verify(b"5", &key, &keys, 1).is_ok());
    assert_eq!(proof.verify(b"5", &key, &keys, 2), Err(TlogProofError::Witnesses { found: 1, wanted: 2 }));
    proof.checkpoint.add(cosign(&second, &text, 1_800_000_001).unwrap()).unwrap();
    assert_eq!(proof.verify(b"5", &key, &keys, 2).unwrap().witnesses.len(), 4);
    // Without its key a witness is a stranger.
    assert_eq!(proof.verify(b"5", &key, &keys[..3], 2), Err(TlogProofError::Witnesses { found: 1, wanted: 2 }));
}

#[test]
fn the_extra_line_decides_nothing() {
    let log = Log::of(8);
    let plain = proof_of(&log, 5);
    let with = TlogProof { extra: Some(b"index 7".to_vec()), ..plain.clone() };
    let read = TlogProof::parse(&with.encode()).unwrap();
    assert_eq!(read.extra.as_deref(), Some(&b"index 7"[..]));
    assert_eq!(read.verify(b"5", &key_of(&signer()), &[], 0), plain.verify(b"5", &key_of(&signer()), &[], 0));
}

#[test]
fn files_that_are_no_proof() {
    let good = String::from_utf8(proof_of(&Log::of(8), 5).encode()).unwrap();
    for (what, text, line) in [
        ("empty", String::new(), 1),
        ("other version", good.replace("@v1", "@v2"), 1),
        ("index with zero", good.replace("index 5", "index 05"), 2),
        ("index with sign", good.replace("index 5", "index +5"), 2),
        ("no index", good.replace("index 5\n", ""), 2),
        ("index too large", good.replace("index 5", "index 18446744073709551616"), 2),
        ("extra is no base64", good.replace("index 5", "extra !\nindex 5"), 2),
        ("two extras", good.replace("index 5", "extra AA==\nextra AA==\nindex 5"), 3),
        ("extra behind the index", good.replace("index 5", "index 5\nextra AA=="), 3),
        ("hash too short", good.replace("index 5", "index 5\nAAAA"), 3),
        ("too many hashes", good.replace("index 5", &format!("index 5{}", "\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".repeat(65))), 67),
        ("carriage returns", good.replace('\n', "\r\n"), 1),
    ] {
        assert_eq!(TlogProof::parse(text.as_bytes()), Err(TlogProofError::Line(line)), "{what}");
    }
    assert_eq!(TlogProof::parse(&vec![b'a'; 1 << 20]), Err(TlogProofError::TooLong));
    assert!(matches!(TlogProof::parse(good.replace('—', "-").as_bytes()), Err(TlogProofError::Note(_))));
}
