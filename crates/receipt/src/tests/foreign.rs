//! Tools that are not ours: OpenSSL and a short script by hand, `tlog_tiles` and `signed_note` for the log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signed_note::{Note, StandardVerifier, VerifierList};
use std::path::PathBuf;
use std::process::Command;
use tlog_tiles::tlog;

use super::world::{Made, key, log_key, made, world};
use crate::extract::extract;
use crate::record::{Receipt, Record};
use vocabulary::Profile;

/// Runs the script of the guide.
fn by_hand(receipt: &[u8], file: &[u8], pin: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/verify-by-hand.sh");
    let output = Command::new("sh")
        .arg(script)
        .args([path("receipt.json", receipt), path("deployment.json", file)])
        .arg(pin)
        .output()
        .expect("sh, openssl and python3 must be installed");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn a_stranger_checks_everything_by_hand() {
    let Made { receipt, file, pin } = made();
    let (ok, said) = by_hand(&receipt, &file, &pin.to_string());
    assert!(ok, "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok: ")).count(), 8, "{said}");
}

/// The script can fail: at each of its steps.
#[test]
fn a_stranger_finds_what_was_changed() {
    let Made { receipt, file, pin } = made();
    let pin = pin.to_string();
    assert!(!by_hand(&receipt, &file, &pin.replace('a', "b").replace('0', "1")).0, "another pin");
    let edited = |edit: fn(&mut Receipt)| {
        let mut changed = Receipt::parse(&receipt).unwrap();
        edit(&mut changed);
        by_hand(&changed.encode().unwrap(), &file, &pin)
    };
    type Edit = fn(&mut Receipt);
    let steps: [(&str, Edit); 4] = [
        ("the node's signature", |r| r.node.signatures[0].sig = r.control.signatures[0].sig.clone()),
        ("the control plane's signature", |r| r.control.signatures[0].sig = r.node.signatures[0].sig.clone()),
        ("the statement", |r| {
            let text = String::from_utf8(STANDARD.decode(&r.node.payload).unwrap()).unwrap();
            r.node.payload = STANDARD.encode(text.replace("\"code\":0", "\"code\":1"));
        }),
        ("the record", |r| {
            let text = String::from_utf8(STANDARD.decode(&r.control.payload).unwrap()).unwrap();
            r.control.payload = STANDARD.encode(text.replace("eu-central", "eu-western").replace("\"labels\":[\"quorum-none\"]", "\"labels\":[]"));
        }),
    ];
    for (what, edit) in steps {
        let (ok, said) = edited(edit);
        assert!(!ok, "{what}: {said}");
    }
    // Lies that are signed again.
    type Lie = fn(&mut super::world::Facts);
    let lies: [(&str, Lie); 4] = [
        ("another record key", |f| f.record_key = key(9)),
        ("another log key", |f| f.log_key = key(9)),
        ("a proof of another entry", |f| f.record = |r| r.log.entries[1].proof = r.log.entries[0].proof.clone()),
        ("another command", |f| f.statement.command.push("--leak".into())),
    ];
    for (what, tell) in lies {
        let mut world = world();
        let (mut facts, chain) = world.facts();
        let file = world.file(Profile::Development, &log_key(&facts), &chain);
        tell(&mut facts);
        let (ok, said) = by_hand(&facts.receipt(), &file, &world.pin().to_string());
        assert!(!ok, "{what}: {said}");
    }
    let changed = String::from_utf8(file.clone()).unwrap().replace("development", "production");
    assert!(!by_hand(&receipt, changed.as_bytes(), &pin).0, "a changed deployment file");
}

/// A foreign implementation of transparency logs accepts checkpoint and proofs.
#[test]
fn a_foreign_tlog_tool_accepts_checkpoint_and_proofs() {
    let mut world = world();
    let (facts, _) = world.facts();
    let receipt = facts.assemble();
    let pieces = extract(&receipt).unwrap();
    let piece = |name: &str| pieces.iter().find(|piece| piece.name == name).unwrap().bytes.clone();
    let note = Note::from_bytes(&piece("checkpoint")).unwrap();
    let verifier = StandardVerifier::new(&log_key(&facts).to_string()).unwrap();
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    let record: Record = receipt.control.peek::<crate::envelope::InToto<Record>>().unwrap().predicate;
    for entry in &record.log.entries {
        let leaf = piece(&format!("entry-{}.leaf", entry.index));
        let proof: Vec<tlog::Hash> = entry.proof.iter().map(|text| tlog::Hash::parse_hash(text).unwrap()).collect();
        let check = |leaf: &[u8]| {
            tlog::check_record(&proof, checkpoint.size(), *checkpoint.hash(), entry.index, tlog::record_hash(leaf))
        };
        check(&leaf).unwrap();
        assert!(check(b"another leaf").is_err());
    }
}
