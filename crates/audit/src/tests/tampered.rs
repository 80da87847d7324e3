//! Attacks on a stored or served log, and the detector that must fire.

use std::collections::BTreeMap;

use super::samples::{encode, entries};
use super::support::{Log, flipped, key_of, number_leaf, signer};
use crate::builder::{AppendError, append};
use crate::checkpoint::Checkpoint;
use crate::merkle::{ProofError, verify_consistency};
use crate::note::Note;
use crate::prove::{prove_consistency, prove_inclusion};
use crate::tile::{TileKind, TilePath};
use crate::walk::{LogError, verify_body, verify_log};
use crate::{Hash, TlogProof};

/// The files that a reader at the log's size needs: without the partial tiles of earlier sizes.
fn needed(log: &Log) -> BTreeMap<TilePath, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (path, bytes) in &log.tiles {
        let now = match path.kind() {
            TileKind::Entries => TilePath::entries_at(log.size(), path.index()),
            TileKind::Hashes(level) => TilePath::hashes_at(log.size(), level, path.index()),
        };
        if now == Some(*path) {
            files.insert(*path, bytes.clone());
        }
    }
    files
}

#[test]
fn every_changed_byte_of_every_file_is_found() {
    let mut log = Log::of(256);
    log.push((256..270).map(number_leaf).collect());
    let files = needed(&log);
    let names: Vec<String> = files.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["tile/entries/000", "tile/entries/001.p/14", "tile/0/000", "tile/0/001.p/14", "tile/1/000.p/1"]);
    assert_eq!(verify_log(&files, &log.checkpoint()), Ok(270));
    for (path, bytes) in &files {
        for at in 0..bytes.len() {
            let mut changed = files.clone();
            changed.insert(*path, flipped(bytes, at, 1 << (at % 8)));
            assert!(verify_log(&changed, &log.checkpoint()).is_err(), "{path}, byte {at}");
        }
    }
}

#[test]
fn a_missing_cut_or_swapped_file_is_found() {
    let log = Log::of(700);
    let files = needed(&log);
    for path in files.keys() {
        let mut changed = files.clone();
        let bytes = changed.remove(path).unwrap();
        assert!(verify_log(&changed, &log.checkpoint()).is_err(), "{path} is missing");
        changed.insert(*path, bytes[..bytes.len() - 1].to_vec());
        assert!(verify_log(&changed, &log.checkpoint()).is_err(), "{path} is cut");
        changed.insert(*path, Vec::new());
        assert!(verify_log(&changed, &log.checkpoint()).is_err(), "{path} is empty");
        for (other, bytes) in &files {
            if other != path {
                changed.insert(*path, bytes.clone());
                assert!(verify_log(&changed, &log.checkpoint()).is_err(), "{path} is {other}");
            }
        }
    }
}

#[test]
fn reordered_dropped_and_invented_leaves_are_found() {
    let log = Log::of(20);
    let with = |leaves: Vec<Vec<u8>>| {
        let mut other = Log::new();
        other.push(leaves);
        other
    };
    let mut reordered = log.leaves.clone();
    reordered.swap(3, 4);
    let mut dropped = log.leaves.clone();
    dropped.remove(7);
    dropped.push(number_leaf(99));
    let mut invented = log.leaves.clone();
    invented[11] = b"invented".to_vec();
    for leaves in [reordered, dropped, invented] {
        let other = with(leaves);
        // Its tiles are consistent with themselves, and do not give the root that was signed.
        assert_eq!(verify_log(&other.tiles, &log.checkpoint()), Err(LogError::RootDiffers { size: 20 }));
    }
    let mut cut = log.leaves.clone();
    cut.truncate(19);
    let cut = with(cut);
    assert!(matches!(verify_log(&cut.tiles, &log.checkpoint()), Err(LogError::Tile(_))));
}

/// The key's holder cuts or rewrites and signs again: signatures are good, and whoever kept a checkpoint sees it.
#[test]
fn a_rewrite_that_is_signed_again_breaks_consistency() {
    let old = Log::of(300);
    let mut longer = old.clone();
    longer.push((300..400).map(number_leaf).collect());
    let mut leaves = longer.leaves.clone();
    leaves[250] = b"rewritten".to_vec();
    let mut rewritten = Log::new();
    rewritten.push(leaves);
    assert!(Checkpoint::verify(&rewritten.signed(), &key_of(&signer()), &[]).is_ok());
    assert_eq!(verify_log(&rewritten.tiles, &rewritten.checkpoint()), Ok(400));

    let good = prove_consistency(&longer.tiles, 300, 400).unwrap();
    assert_eq!(verify_consistency(300, &old.root, 400, &longer.root, &good), Ok(()));
    assert!(verify_consistency(300, &old.root, 400, &rewritten.root, &good).is_err());
    let theirs = prove_consistency(&rewritten.tiles, 300, 400).unwrap();
    assert!(verify_consistency(300, &old.root, 400, &rewritten.root, &theirs).is_err());
    // The same size with another root is a fork, however it is "proved".
    let mut fork = Log::new();
    fork.push(old.leaves.iter().rev().cloned().collect());
    assert_eq!(verify_consistency(300, &old.root, 300, &fork.root, &[]), Err(ProofError::WrongRoot));
    // A cut tail is an older tree than the one that was seen.
    let shrunk = ProofError::Shrunk { old: 400, new: 300 };
    assert_eq!(verify_consistency(400, &longer.root, 300, &old.root, &[]), Err(shrunk));
}

/// Nobody who changes stored tiles gets a signature over the change.
#[test]
fn appending_to_changed_tiles_is_refused() {
    let log = Log::of(270);
    let edge: Vec<TilePath> = crate::tile::edge(270);
    for path in edge {
        let bytes = &log.tiles[&path];
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = log.tiles.clone();
            changed.insert(path, flipped(bytes, at, 1));
            let error = append(&changed, 270, &log.root, &[b"next"]).unwrap_err();
            assert!(matches!(error, AppendError::EdgeChanged | AppendError::Tile(_)), "{path}: {error}");
        }
        let mut changed = log.tiles.clone();
        changed.retain(|other, _| (other.kind(), other.index()) != (path.kind(), path.index()));
        assert!(append(&changed, 270, &log.root, &[b"next"]).is_err(), "{path} is gone");
    }
    let other = Log::of(269);
    assert_eq!(append(&log.tiles, 270, &other.root, &[]).unwrap_err(), AppendError::EdgeChanged);
    assert_eq!(append(&log.tiles, 269, &log.root, &[]).unwrap_err(), AppendError::EdgeChanged);
    assert_eq!(append(&log.tiles, 270, &log.root, &[]).unwrap().files, []);
}

/// Flips each byte of a proof file: no change of a byte leaves a proof of the same leaf at the same index.
#[test]
fn every_changed_byte_of_a_proof_file_is_refused() {
    let log = Log::of(13);
    let proof = TlogProof {
        extra: None,
        index: 5,
        hashes: prove_inclusion(&log.tiles, 5, 13).unwrap(),
        checkpoint: log.signed(),
    };
    let bytes = proof.encode();
    let key = key_of(&signer());
    for at in 0..bytes.len() {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128] {
            let accepted = TlogProof::parse(&flipped(&bytes, at, mask)).and_then(|read| read.verify(b"5", &key, &[], 0));
            assert!(accepted.is_err(), "byte {at}, mask {mask}: {accepted:?}");
        }
    }
    // A replayed old checkpoint is signed well: its size tells, not its signature.
    let old = Log::of(6);
    let replayed = TlogProof { hashes: prove_inclusion(&old.tiles, 5, 6).unwrap(), checkpoint: old.signed(), ..proof };
    assert_eq!(replayed.verify(b"5", &key, &[], 0).unwrap().checkpoint.size, 6);
}

#[test]
fn every_changed_byte_of_a_body_or_salt_is_found() {
    for (number, entry) in entries().iter().enumerate() {
        let encoded = encode(entry);
        let leaf = &encoded.leaf;
        assert_eq!(verify_body(0, leaf, &encoded.salt, &encoded.body), Ok(()));
        let found = Err(LogError::BodyDiffers(7));
        for at in 0..encoded.body.len() {
            assert_eq!(verify_body(7, leaf, &encoded.salt, &flipped(&encoded.body, at, 1)), found, "{number}: {at}");
        }
        for at in 0..32 {
            let salt = flipped(&encoded.salt, at, 1).try_into().unwrap();
            assert_eq!(verify_body(7, leaf, &salt, &encoded.body), found);
        }
        for at in 0..leaf.len() {
            assert_eq!(verify_body(7, &flipped(leaf, at, 1), &encoded.salt, &encoded.body), found);
        }
    }
}

/// A crash after the tiles and before the checkpoint: the same leaves again give the same files and the same root.
#[test]
fn replaying_after_a_crash_gives_the_same_root() {
    let mut log = Log::of(250);
    let next: Vec<Vec<u8>> = (250..270).map(number_leaf).collect();
    let slices: Vec<&[u8]> = next.iter().map(Vec::as_slice).collect();
    let first = append(&log.tiles, 250, &log.root, &slices).unwrap();
    // Any part of the files was stored before the crash.
    for stored in 0..=first.files.len() {
        let mut tiles = log.tiles.clone();
        tiles.extend(first.files[..stored].iter().cloned());
        let again = append(&tiles, 250, &log.root, &slices).unwrap();
        assert_eq!(again, first, "{stored} files were stored");
    }
    log.push(next);
    assert_eq!(log.root, first.root);
}

#[test]
fn hashes_print_and_read_one_way_only() {
    let hash = Log::of(3).root;
    let text = hash.base64();
    assert_eq!(Hash::from_base64(&text), Some(hash));
    for wrong in [text.trim_end_matches('='), &format!("{text}="), &format!(" {text}"), &text.replace('=', "%3D"), "", "===="] {
        assert_eq!(Hash::from_base64(wrong), None, "{wrong}");
    }
    assert_eq!(Note::parse(&Log::of(3).signed().encode()).unwrap().encode(), Log::of(3).signed().encode());
}
