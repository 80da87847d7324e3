//! Published vectors through our verifier: RFC 6962 proofs, good and wrong, and a log that others wrote.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::support::{files_below, flipped, testdata};
use crate::checkpoint::Checkpoint;
use crate::hash::{Hash, empty_root, leaf_hash, sha256};
use crate::merkle::{verify_consistency, verify_inclusion};
use crate::note::Note;
use crate::prove::{prove_consistency, prove_inclusion, root};
use crate::tile::{TilePath, TileReader, decode_bundle};
use crate::walk::verify_log;
use crate::{VerifierKey, append};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: String,
    proof: Option<Vec<String>>,
    desc: String,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    desc: String,
    want_err: bool,
}

/// A hash of a vector; `None` where its length is not that of a hash, which our types cannot even hold.
fn hash(text: &str) -> Option<Hash> {
    Hash::from_slice(&STANDARD.decode(text).unwrap())
}

/// A root of a vector. Some stand for "any root" and are no hash: their digest keeps what counts, who equals whom.
fn root_of(text: Option<&String>) -> Hash {
    let bytes = STANDARD.decode(text.map_or("", String::as_str)).unwrap();
    Hash::from_slice(&bytes).unwrap_or_else(|| Hash::from_bytes(sha256(&[&bytes])))
}

fn hashes(proof: Option<&Vec<String>>) -> Option<Vec<Hash>> {
    proof.into_iter().flatten().map(|text| hash(text)).collect()
}

#[test]
fn inclusion_proofs() {
    let (mut good, mut wrong) = (0, 0);
    for file in files_below("merkle/inclusion") {
        let v: Inclusion = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let root = root_of(v.root.as_ref());
        let accepted = matches!((hash(&v.leaf_hash), hashes(v.proof.as_ref())), (Some(leaf), Some(proof))
            if verify_inclusion(leaf, v.leaf_idx, v.tree_size, &proof, &root).is_ok());
        assert_eq!(accepted, !v.want_err, "{}: {}", file.display(), v.desc);
        *if v.want_err { &mut wrong } else { &mut good } += 1;
    }
    assert_eq!((good, wrong), (6, 92));
}

#[test]
fn consistency_proofs() {
    let (mut good, mut wrong, mut deviations) = (0, 0, 0);
    for file in files_below("merkle/consistency") {
        let v: Consistency = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let (old, new) = (root_of(v.root1.as_ref()), root_of(v.root2.as_ref()));
        let accepted = hashes(v.proof.as_ref())
            .is_some_and(|proof| verify_consistency(v.size1, &old, v.size2, &new, &proof).is_ok());
        *if v.want_err { &mut wrong } else { &mut good } += 1;
        // They call a proof from the empty tree useless and refuse it; we accept it, from the true empty root only.
        let from_nothing = v.size1 == 0 && v.size2 > 0 && old == empty_root() && v.proof.is_none_or(|proof| proof.is_empty());
        assert_eq!(accepted, !v.want_err || from_nothing, "{}: {}", file.display(), v.desc);
        deviations += usize::from(accepted && v.want_err);
    }
    assert_eq!((good, wrong, deviations), (6, 92, 1));
}

const KEY: &str = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";

/// The log of Tessera, as it lies in its folder.
struct Folder;

impl TileReader for Folder {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        (path.width()..=256)
            .filter_map(|width| path.with_width(width))
            .find_map(|path| std::fs::read(testdata(&format!("tessera-log/{path}"))).ok())
    }
}

fn checkpoint(size: u64) -> Vec<u8> {
    std::fs::read(testdata(&format!("tessera-log/checkpoint.{size}"))).unwrap()
}

fn verified(bytes: &[u8]) -> Option<Checkpoint> {
    let key: VerifierKey = KEY.parse().unwrap();
    Some(Checkpoint::verify_strict(&Note::parse(bytes).ok()?, &key, &[]).ok()?.0)
}

#[test]
fn a_log_of_others_verifies_at_every_size() {
    let mut last: Option<Checkpoint> = None;
    for size in 0..=15 {
        let checkpoint = verified(&checkpoint(size)).unwrap();
        assert_eq!(checkpoint.size, size);
        assert_eq!(root(&Folder, size).unwrap(), checkpoint.root);
        assert_eq!(verify_log(&Folder, &checkpoint), Ok(size));
        if let Some(path) = TilePath::entries_at(size, 0) {
            let bundle = Folder.tile(&path).unwrap();
            for (leaf, index) in decode_bundle(&path, &bundle).unwrap().into_iter().zip(0..) {
                let proof = prove_inclusion(&Folder, index, size).unwrap();
                assert_eq!(verify_inclusion(leaf_hash(leaf), index, size, &proof, &checkpoint.root), Ok(()));
                let changed = leaf_hash(&[leaf, b"!"].concat());
                assert!(verify_inclusion(changed, index, size, &proof, &checkpoint.root).is_err());
            }
        }
        if let Some(last) = last {
            let proof = prove_consistency(&Folder, last.size, size).unwrap();
            assert_eq!(verify_consistency(last.size, &last.root, size, &checkpoint.root, &proof), Ok(()));
        }
        last = Some(checkpoint);
    }
}

#[test]
fn every_changed_byte_of_their_checkpoint_is_refused() {
    let bytes = checkpoint(15);
    for at in 0..bytes.len() {
        for mask in [1, 4, 32, 128] {
            assert_eq!(verified(&flipped(&bytes, at, mask)), None, "byte {at}");
        }
    }
}

/// Their leaves through our builder give their tiles and their roots, byte for byte.
#[test]
fn we_would_have_written_the_same_log() {
    let path = TilePath::entries_at(15, 0).unwrap();
    let bundle = Folder.tile(&path).unwrap();
    let leaves = decode_bundle(&path, &bundle).unwrap();
    let mut tiles: BTreeMap<TilePath, Vec<u8>> = BTreeMap::new();
    let mut root = empty_root();
    for (leaf, size) in leaves.iter().zip(0_u64..) {
        let appended = append(&tiles, size, &root, &[leaf]).unwrap();
        assert_eq!(appended.root, verified(&checkpoint(size + 1)).unwrap().root);
        for (path, bytes) in &appended.files {
            assert_eq!(std::fs::read(testdata(&format!("tessera-log/{path}"))).unwrap(), *bytes, "{path}");
        }
        root = appended.root;
        tiles.extend(appended.files);
    }
}
