//! Leaves, tiles, roots and proofs, against RFC 6962 as it is written.

use std::collections::BTreeMap;

use super::support::{Log, Seeded, mth, number_leaf, path, proof};
use crate::builder::{AppendError, append};
use crate::hash::{Hash, empty_root, leaf_hash};
use crate::leaf::{LEAF_BYTES, leaf, matches};
use crate::limits::{LEAF_MAX, PROOF_MAX};
use crate::merkle::{ProofError, verify_consistency, verify_inclusion};
use crate::prove::{prove_consistency, prove_inclusion, root, tiles_for_consistency, tiles_for_inclusion};
use crate::tile::{TileError, TileKind, TilePath, decode_bundle, edge, encode_bundle, width_at};
use crate::walk::{CompactTree, LogError, LogWalk, verify_log};

#[test]
fn a_leaf_is_a_version_and_a_salted_digest() {
    // Computed with `printf` and `sha256sum`: SHA-256 of 32 zero bytes and "body".
    let made = leaf(&[0; 32], b"body");
    assert_eq!(made.len(), LEAF_BYTES);
    assert_eq!(hex::encode(made), "01818aaa5975b4a596522fed86d4fdf5da2edcb24507f3c07bee5849765a8a21d7");
    assert!(matches(&made, &[0; 32], b"body"));
    assert!(!matches(&made, &[1; 32], b"body"));
    assert!(!matches(&made, &[0; 32], b"bodY"));
    assert!(!matches(&made[..32], &[0; 32], b"body"));
}

#[test]
fn paths_are_those_of_the_specification() {
    for (path, text) in [
        (TilePath::hashes(0, 0, 256), "tile/0/000"),
        (TilePath::hashes(0, 1_234_067, 256), "tile/0/x001/x234/067"),
        (TilePath::hashes(0, 273, 112), "tile/0/273.p/112"),
        (TilePath::hashes(63, u64::MAX, 1), "tile/63/x018/x446/x744/x073/x709/x551/615.p/1"),
        (TilePath::entries(0, 255), "tile/entries/000.p/255"),
        (TilePath::entries(1000, 256), "tile/entries/x001/000"),
    ] {
        let path = path.unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse(), Ok(path));
    }
    for text in [
        "", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000", "tile/0/x000/001",
        "tile/0/001/001", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p/-1",
        "tile/64/000", "tile/00/000", "tile/+1/000", "tile/256/000", "tile/-1/000", "tile/entries/000.p/300", "tile/data/000",
        "tile/8/0/000", "/tile/0/000", "tile/0/000/", "tile/0/../000", "tile/0/00a", "tile/0/000\n", "tile/0/٠٠٠",
        "tile/0/x018/x446/x744/x073/x709/x551/616", "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(text.parse::<TilePath>().is_err(), "{text}");
    }
    for width in [0, 257, u16::MAX] {
        assert_eq!(TilePath::hashes(0, 0, width), None);
        assert_eq!(TilePath::entries(0, width), None);
    }
    assert_eq!(TilePath::hashes(64, 0, 1), None);
}

#[test]
fn widths_are_those_of_the_specification() {
    // Size 256 is a full level-0 tile and a level-1 tile of width 1.
    assert_eq!((width_at(256, 0, 0), width_at(256, 0, 1), width_at(256, 1, 0), width_at(256, 2, 0)), (256, 0, 1, 0));
    // Size 70,000 is 273 full and width 112, one full level-1 and width 17, level-2 of width 1.
    assert_eq!((width_at(70_000, 0, 272), width_at(70_000, 0, 273), width_at(70_000, 0, 274)), (256, 112, 0));
    assert_eq!((width_at(70_000, 1, 0), width_at(70_000, 1, 1), width_at(70_000, 2, 0)), (256, 17, 1));
    assert_eq!(width_at(u64::MAX, 7, 0), 255);
    assert_eq!(width_at(u64::MAX, 8, 0), 0);
    assert_eq!(width_at(u64::MAX, 63, u64::MAX), 0);
    let names = |size| edge(size).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(0), Vec::<String>::new());
    assert_eq!(names(255), ["tile/entries/000.p/255", "tile/0/000.p/255"]);
    assert_eq!(names(256), ["tile/1/000.p/1"]);
    assert_eq!(names(257), ["tile/entries/001.p/1", "tile/0/001.p/1", "tile/1/000.p/1"]);
    assert_eq!(names(70_000), ["tile/entries/273.p/112", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
}

/// Leaf by leaf from 0 to 300: root, files, widths, and the walk over them.
#[test]
fn every_size_up_to_300() {
    let mut log = Log::new();
    let mut compact = CompactTree::new();
    for size in 0..=300_u64 {
        let hashes = log.hashes();
        assert_eq!(log.root, mth(&hashes), "{size}");
        assert_eq!((compact.size(), compact.root()), (size, log.root));
        assert_eq!(root(&log.tiles, size), Ok(log.root));
        assert_eq!(verify_log(&log.tiles, &log.checkpoint()), Ok(size));
        // Nothing is rewritten: every older root can still be read out of the tiles.
        if size % 37 == 0 {
            for old in 0..size {
                assert_eq!(root(&log.tiles, old), Ok(mth(&hashes[..usize::try_from(old).unwrap()])), "{old} of {size}");
            }
        }
        compact.push(leaf_hash(&number_leaf(size)));
        let mut written: Vec<String> = log.push(vec![number_leaf(size)]).iter().map(ToString::to_string).collect();
        let (tile, width) = ((size / 256), (size % 256) + 1);
        let tail = if width == 256 { String::new() } else { format!(".p/{width}") };
        let mut expected = vec![format!("tile/entries/{tile:03}{tail}"), format!("tile/0/{tile:03}{tail}")];
        if width == 256 {
            expected.push(format!("tile/1/000.p/{}", tile + 1));
        }
        written.sort();
        expected.sort();
        assert_eq!(written, expected);
    }
    assert!(log.tiles.iter().all(|(path, bytes)| match path.kind() {
        TileKind::Hashes(_) => bytes.len() == usize::from(path.width()) * 32,
        TileKind::Entries => decode_bundle(path, bytes).unwrap().len() == usize::from(path.width()),
    }));
}

#[test]
fn batches_give_the_same_log_as_single_leaves() {
    let whole = Log::of(700);
    let mut random = Seeded(11);
    for _ in 0..20 {
        let mut log = Log::new();
        while log.size() < 700 {
            let n = u64::try_from(random.below(300)).unwrap().min(700 - log.size());
            log.push((log.size()..log.size() + n).map(number_leaf).collect());
        }
        assert_eq!(log.root, whole.root);
        // Each full tile is the same file; partial ones exist for the sizes that were published.
        for (path, bytes) in whole.tiles.iter().filter(|(path, _)| !path.is_partial()) {
            assert_eq!(log.tiles.get(path), Some(bytes), "{path}");
        }
        assert_eq!(verify_log(&log.tiles, &log.checkpoint()), Ok(700));
    }
}

#[test]
fn the_edge_of_a_level_1_tile() {
    let mut log = Log::of(65_535);
    let hashes: Vec<Hash> = (0..65_537).map(|n| leaf_hash(&number_leaf(n))).collect();
    let names = |log: &mut Log| {
        let n = log.size();
        log.push(vec![number_leaf(n)]).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(log.root, mth(&hashes[..65_535]));
    assert_eq!(names(&mut log), ["tile/entries/255", "tile/0/255", "tile/1/000", "tile/2/000.p/1"]);
    assert_eq!(log.root, mth(&hashes[..65_536]));
    assert_eq!(names(&mut log), ["tile/entries/256.p/1", "tile/0/256.p/1"]);
    assert_eq!(log.root, mth(&hashes));
    assert_eq!(verify_log(&log.tiles, &log.checkpoint()), Ok(65_537));
    for size in [65_535, 65_536, 65_537_u64] {
        let of_size = &hashes[..usize::try_from(size).unwrap()];
        let whole = mth(of_size);
        for index in [0, 255, 256, 32_767, 32_768, 65_279, 65_280, 65_534, 65_535, 65_536] {
            let made = prove_inclusion(&log.tiles, index, size);
            if index >= size {
                assert_eq!(made, Err(TileError::Outside { index, size }));
                continue;
            }
            let m = usize::try_from(index).unwrap();
            assert_eq!(made.as_deref(), Ok(&*path(m, of_size)), "{index} of {size}");
            assert_eq!(verify_inclusion(hashes[m], index, size, &made.unwrap(), &whole), Ok(()));
        }
        for old in [1, 255, 256, 257, 65_534, 65_535, 65_536] {
            if old > size {
                continue;
            }
            let made = prove_consistency(&log.tiles, old, size).unwrap();
            let m = usize::try_from(old).unwrap();
            assert_eq!(made, proof(m, of_size), "{old} to {size}");
            assert_eq!(verify_consistency(old, &mth(&of_size[..m]), size, &whole, &made), Ok(()));
        }
    }
}

#[test]
fn every_inclusion_proof_is_the_one_of_the_rfc() {
    let log = Log::of(300);
    let hashes = log.hashes();
    for size in (1..=40).chain([63, 64, 65, 127, 128, 129, 255, 256, 257, 300]) {
        let of_size = &hashes[..size];
        let whole = mth(of_size);
        for index in 0..size {
            let (i, n) = (u64::try_from(index).unwrap(), u64::try_from(size).unwrap());
            let made = prove_inclusion(&log.tiles, i, n).unwrap();
            assert_eq!(made, path(index, of_size));
            assert_eq!(verify_inclusion(hashes[index], i, n, &made, &whole), Ok(()));
            refuses_every_change(index, size, &made, &hashes);
        }
    }
}

fn refuses_every_change(index: usize, size: usize, made: &[Hash], hashes: &[Hash]) {
    let (i, n) = (u64::try_from(index).unwrap(), u64::try_from(size).unwrap());
    let whole = mth(&hashes[..size]);
    let other = leaf_hash(b"strange");
    assert!(verify_inclusion(other, i, n, made, &whole).is_err());
    assert!(verify_inclusion(hashes[index], i, n, made, &other).is_err());
    let longer = [made, &[other]].concat();
    assert_eq!(verify_inclusion(hashes[index], i, n, &longer, &whole), Err(ProofError::TooLong));
    if !made.is_empty() {
        assert_eq!(verify_inclusion(hashes[index], i, n, &made[1..], &whole), Err(ProofError::TooShort));
    }
    for position in 0..made.len() {
        let mut changed = made.to_vec();
        changed[position] = other;
        assert_eq!(verify_inclusion(hashes[index], i, n, &changed, &whole), Err(ProofError::WrongRoot));
    }
    for wrong in [i + 1, i.wrapping_sub(1), n, u64::MAX] {
        assert!(verify_inclusion(hashes[index], wrong, n, made, &whole).is_err(), "index {wrong} for {i} of {n}");
    }
}

#[test]
fn every_consistency_proof_is_the_one_of_the_rfc() {
    let log = Log::of(300);
    let hashes = log.hashes();
    for new in (0..=40).chain([63, 64, 65, 127, 128, 129, 255, 256, 257, 300]) {
        for old in 0..=new {
            let (m, n) = (u64::try_from(old).unwrap(), u64::try_from(new).unwrap());
            let (before, after) = (mth(&hashes[..old]), mth(&hashes[..new]));
            let made = prove_consistency(&log.tiles, m, n).unwrap();
            let expected = if old == 0 { Vec::new() } else { proof(old, &hashes[..new]) };
            assert_eq!(made, expected, "{old} to {new}");
            assert_eq!(verify_consistency(m, &before, n, &after, &made), Ok(()));
            let strange = leaf_hash(b"strange");
            assert!(verify_consistency(m, &strange, n, &after, &made).is_err(), "{old} to {new}: another old root");
            if old > 0 {
                assert!(verify_consistency(m, &before, n, &strange, &made).is_err(), "{old} to {new}: another new root");
                let longer = [&*made, &[strange]].concat();
                assert_eq!(verify_consistency(m, &before, n, &after, &longer), Err(ProofError::TooLong));
            }
            for position in 0..made.len() {
                let mut changed = made.clone();
                changed[position] = strange;
                assert!(verify_consistency(m, &before, n, &after, &changed).is_err(), "{old} to {new}: hash {position}");
                let shorter = [&made[..position], &made[position + 1..]].concat();
                assert!(verify_consistency(m, &before, n, &after, &shorter).is_err(), "{old} to {new}: cut {position}");
            }
            if old < new {
                let error = Err(ProofError::Shrunk { old: n, new: m });
                assert_eq!(verify_consistency(n, &after, m, &before, &made), error);
            }
        }
    }
}

#[test]
fn proofs_without_end_are_refused_at_once() {
    let long = vec![empty_root(); PROOF_MAX + 1];
    let hash = leaf_hash(b"x");
    assert_eq!(verify_inclusion(hash, 0, u64::MAX, &long, &hash), Err(ProofError::TooLong));
    assert_eq!(verify_consistency(1, &hash, u64::MAX, &hash, &long), Err(ProofError::TooLong));
    assert_eq!(verify_inclusion(hash, 0, 0, &[], &hash), Err(ProofError::IndexOutside { index: 0, size: 0 }));
    assert_eq!(verify_consistency(0, &hash, 5, &hash, &[]), Err(ProofError::WrongOldRoot));
    // The largest tree that can be counted has proofs of 64 hashes; they are read.
    let most = vec![hash; 64];
    assert_eq!(verify_inclusion(hash, 0, u64::MAX, &most, &hash), Err(ProofError::WrongRoot));
}

#[test]
fn the_tiles_that_a_proof_needs_are_told_before() {
    let log = Log::of(70_000);
    for (index, size) in [(0, 1), (0, 256), (255, 257), (3, 65_536), (69_999, 70_000), (65_535, 70_000)] {
        let only: BTreeMap<_, _> = tiles_for_inclusion(index, size)
            .into_iter()
            .map(|path| (path, crate::TileReader::tile(&log.tiles, &path).unwrap()))
            .collect();
        assert_eq!(prove_inclusion(&only, index, size), prove_inclusion(&log.tiles, index, size));
        assert!(prove_inclusion(&only, index, size).is_ok());
    }
    for (old, new) in [(1, 2), (255, 256), (300, 70_000), (65_536, 70_000), (69_999, 70_000)] {
        let only: BTreeMap<_, _> = tiles_for_consistency(old, new)
            .into_iter()
            .map(|path| (path, crate::TileReader::tile(&log.tiles, &path).unwrap()))
            .collect();
        assert!(prove_consistency(&only, old, new).is_ok());
        assert_eq!(prove_consistency(&only, old, new), prove_consistency(&log.tiles, old, new));
    }
}

#[test]
fn leaves_of_every_length_up_to_the_limit() {
    let mut log = Log::new();
    let lengths = [0, 1, 255, 256, 65_534, 65_535];
    log.push(lengths.map(|length| vec![7; length]).to_vec());
    assert_eq!(verify_log(&log.tiles, &log.checkpoint()), Ok(6));
    let too_long = vec![7; LEAF_MAX + 1];
    let error = append(&log.tiles, 6, &log.root, &[b"fits", &too_long]).unwrap_err();
    assert_eq!(error, AppendError::LeafTooLong(7));
    assert_eq!(encode_bundle([too_long.as_slice()]), None);
    assert_eq!(append(&BTreeMap::new(), u64::MAX, &empty_root(), &[b"x"]).unwrap_err(), AppendError::Tile(
        TileError::Missing(TilePath::hashes_at(u64::MAX, 7, 0).unwrap())
    ));
}

#[test]
fn bundles_that_do_not_add_up_are_refused() {
    let path = TilePath::entries(0, 2).unwrap();
    let good = encode_bundle([&b"one"[..], b"two"]).unwrap();
    assert_eq!(decode_bundle(&path, &good).unwrap(), [b"one", b"two"]);
    // A wider bundle serves for a narrower path.
    let wider = encode_bundle([&b"one"[..], b"two", b"three"]).unwrap();
    assert_eq!(decode_bundle(&path, &wider).unwrap(), [b"one", b"two"]);
    let too_many = encode_bundle(std::iter::repeat_n(&b""[..], 257)).unwrap();
    for bad in [&good[..good.len() - 1], &good[..5], &[], &[0], &[0, 9, 1], &too_many] {
        assert_eq!(decode_bundle(&path, bad), Err(TileError::Bundle(path)));
    }
}

#[test]
fn a_walk_that_ends_early_proves_nothing() {
    let log = Log::of(600);
    let mut walk = LogWalk::new(log.checkpoint());
    let path = walk.next_bundle().unwrap();
    walk.feed(&path, &log.tiles[&path]).unwrap();
    assert_eq!(walk.finish(), Err(LogError::Incomplete(256)));
}
