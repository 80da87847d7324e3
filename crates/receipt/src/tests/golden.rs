//! A receipt of an earlier day keeps verifying.
//!
//! The files hold ECDSA signatures, which differ each time they are made. Where they are missing, the test makes new ones
//! and fails: look at them, and commit them.

use std::path::PathBuf;
use vocabulary::Sha256Digest;

use super::world::{DAY, NOW, failed, made};
use crate::report::Verdict;

#[test]
fn the_golden_receipt_keeps_verifying() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
    let (receipt, file, pin) = (folder.join("receipt.json"), folder.join("deployment.json"), folder.join("pin.txt"));
    if !receipt.exists() {
        let made = made();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, &made.file).unwrap();
        std::fs::write(&pin, format!("{}\n", made.pin)).unwrap();
        std::fs::write(&receipt, &made.receipt).unwrap();
        panic!("{} was missing: new files were written", receipt.display());
    }
    let pin: Sha256Digest = std::fs::read_to_string(pin).unwrap().trim().parse().unwrap();
    let (receipt, file) = (std::fs::read(receipt).unwrap(), std::fs::read(file).unwrap());
    let report = crate::verify(&receipt, &file, Some(&pin), Some(NOW.plus_millis(DAY)));
    assert!(report.ok, "{:?}", failed(&report));
    assert!(report.lines.iter().filter(|line| line.verdict == Verdict::Proved).count() >= 30);
}
