//! The pieces of a receipt as files.

use audit::TlogProof;
use audit::leaf::matches;

use super::world::made;
use crate::extract::extract;
use crate::record::Receipt;

#[test]
fn the_pieces_are_what_the_file_holds() {
    let made = made();
    let pieces = extract(&Receipt::parse(&made.receipt).unwrap()).unwrap();
    let names: Vec<&str> = pieces.iter().map(|piece| piece.name.as_str()).collect();
    let mut expected: Vec<String> =
        ["node.signed", "node.sig", "node.payload", "control.signed", "control.sig", "control.payload"].map(String::from).to_vec();
    expected.extend(["node-certificate-0.der", "node-certificate-1.der"].map(String::from));
    expected.extend(["control-certificate-0.der", "control-certificate-1.der"].map(String::from));
    expected.push("checkpoint".into());
    for index in [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
        expected.extend(["leaf", "tlog-proof", "salt", "body"].map(|part| format!("entry-{index}.{part}")));
    }
    assert_eq!(names, expected);
    let piece = |name: &str| pieces.iter().find(|piece| piece.name == name).unwrap().bytes.clone();
    let salt = piece("entry-12.salt").try_into().unwrap();
    assert!(matches(&piece("entry-12.leaf"), &salt, &piece("entry-12.body")));
    let proof = TlogProof::parse(&piece("entry-12.tlog-proof")).unwrap();
    assert_eq!(proof.index, 12);
    assert_eq!(proof.checkpoint.encode(), piece("checkpoint"));
    assert!(piece("node.signed").ends_with(&piece("node.payload")));
    // A name never leaves the folder that somebody writes the pieces into.
    assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.')));
}
