//! Our log through implementations that are not ours: `tlog_tiles` and `signed_note` (Cloudflare), `ct-merkle` (Rosenberg).

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use sha2::Sha256;
use signed_note::{Note as TheirNote, StandardVerifier, VerifierList};
use tlog_tiles::{Tile, TileHashReader, tlog};

use super::samples::{encode, entries};
use super::support::{Log, flipped, key_of, number_leaf, signer};
use crate::prove::{prove_consistency, prove_inclusion};
use crate::tile::{TilePath, TileReader as _};
use crate::{Hash, hash};

fn theirs(hash: &Hash) -> tlog::Hash {
    tlog::Hash(*hash.as_bytes())
}

fn all_theirs(hashes: &[Hash]) -> Vec<tlog::Hash> {
    hashes.iter().map(theirs).collect()
}

/// Serves our tiles to their reader. Their paths are of an older layout, so tiles are found by level and number.
struct Serve<'a>(&'a Log);

impl tlog_tiles::TileReader for Serve<'_> {
    fn height(&self) -> u8 {
        8
    }
    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let read = |tile: &Tile| {
            let width = u16::try_from(tile.width()).ok()?;
            let path = TilePath::hashes(tile.level(), tile.level_index(), width)?;
            let mut bytes = self.0.tiles.tile(&path)?;
            bytes.truncate(usize::from(width) * 32);
            Some(bytes)
        };
        tiles.iter().map(|tile| read(tile).ok_or(tlog::Error::InvalidTile)).collect()
    }
    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// A log of real entries, and of as many plain leaves as its size needs.
fn log(size: u64) -> Log {
    let mut log = Log::new();
    let mut leaves: Vec<Vec<u8>> = entries().iter().map(|entry| encode(entry).leaf.to_vec()).collect();
    leaves.extend((u64::try_from(leaves.len()).unwrap()..size).map(number_leaf));
    leaves.truncate(usize::try_from(size).unwrap());
    log.push(leaves);
    log
}

#[test]
fn their_note_and_checkpoint_reader_accept_ours() {
    for size in [0, 1, 255, 256, 257, 700] {
        let log = log(size);
        let bytes = log.signed().encode();
        let note = TheirNote::from_bytes(&bytes).unwrap();
        let verifier = StandardVerifier::new(&key_of(&signer()).to_string()).unwrap();
        let (good, unknown) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        assert_eq!((good.len(), unknown.len()), (1, 0));
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!((checkpoint.origin(), checkpoint.size(), checkpoint.extension()), (super::support::ORIGIN, size, ""));
        assert_eq!(checkpoint.hash().0, *log.root.as_bytes());
        // And refuse a changed one: their check can fail.
        let changed = flipped(&bytes, 25, 1);
        let verifier = StandardVerifier::new(&key_of(&signer()).to_string()).unwrap();
        let read = TheirNote::from_bytes(&changed).unwrap();
        assert!(read.verify(&VerifierList::new(vec![Box::new(verifier)])).is_err());
    }
}

#[test]
fn their_reader_proves_every_leaf_from_our_tiles() {
    for size in [1, 2, 255, 256, 257, 700_u64] {
        let log = log(size);
        let (tiles, root) = (Serve(&log), theirs(&log.root));
        let reader = TileHashReader::new(size, root, &tiles);
        assert_eq!(tlog::tree_hash(size, &reader).unwrap(), root);
        for index in (0..size).step_by(if size > 200 { 13 } else { 1 }) {
            let leaf = &log.leaves[usize::try_from(index).unwrap()];
            let hash = tlog::record_hash(leaf);
            let proof = tlog::prove_record(size, index, &reader).unwrap();
            tlog::check_record(&proof, size, root, index, hash).unwrap();
            // The proof that they make out of our tiles is the one that we make.
            let ours = prove_inclusion(&log.tiles, index, size).unwrap();
            assert_eq!(all_theirs(&ours), proof, "{index} of {size}");
            let changed = tlog::record_hash(&flipped(leaf, 0, 1));
            assert!(tlog::check_record(&proof, size, root, index, changed).is_err());
        }
        for old in (1..=size).step_by(if size > 200 { 29 } else { 1 }) {
            let old_root = crate::prove::root(&log.tiles, old).unwrap();
            let proof = tlog::prove_tree(size, old, &reader).unwrap();
            assert_eq!(all_theirs(&prove_consistency(&log.tiles, old, size).unwrap()), proof, "{old} to {size}");
            tlog::check_tree(&proof, size, root, old, theirs(&old_root)).unwrap();
            assert!(tlog::check_tree(&proof, size, root, old, tlog::Hash([0; 32])).is_err());
        }
    }
}

#[test]
fn their_reader_refuses_a_changed_tile() {
    let log = log(700);
    let root = theirs(&log.root);
    for path in [TilePath::hashes(0, 0, 256), TilePath::hashes(0, 2, 188), TilePath::hashes(1, 0, 2)] {
        let path = path.unwrap();
        let mut changed = log.clone();
        let bytes = log.tiles.tile(&path).unwrap();
        let bytes = flipped(&bytes, bytes.len() - 1, 1);
        changed.tiles.insert(path, bytes);
        let tiles = Serve(&changed);
        let reader = TileHashReader::new(700, root, &tiles);
        let fails = |index| match tlog::prove_record(700, index, &reader) {
            // Their reader does not check every tile against its parent; their proof check does the rest.
            Ok(proof) => {
                let hash = tlog::record_hash(&number_leaf(index));
                tlog::check_record(&proof, 700, root, index, hash).is_err()
            }
            Err(_) => true,
        };
        assert!((100..700).any(fails), "{path}");
    }
}

#[test]
fn a_second_tree_of_others_agrees() {
    let mut tree: MemoryBackedTree<Sha256, Vec<u8>> = MemoryBackedTree::new();
    for size in 1..=70_u64 {
        tree.push(number_leaf(size - 1));
        let log = Log::of(size);
        assert_eq!(tree.root().as_bytes().as_slice(), log.root.as_bytes());
        for index in 0..size {
            let ours = prove_inclusion(&log.tiles, index, size).unwrap();
            let bytes: Vec<u8> = ours.iter().flat_map(|hash| *hash.as_bytes()).collect();
            assert_eq!(tree.prove_inclusion(usize::try_from(index).unwrap()).as_bytes(), bytes);
            let proof = InclusionProof::<Sha256>::try_from_bytes(bytes).unwrap();
            let root = RootHash::<Sha256>::new((*log.root.as_bytes()).into(), size);
            assert!(root.verify_inclusion(&number_leaf(index), index, &proof).is_ok());
            assert!(root.verify_inclusion(&number_leaf(index + 1), index, &proof).is_err());
        }
        for old in 1..size {
            let ours = prove_consistency(&log.tiles, old, size).unwrap();
            let bytes: Vec<u8> = ours.iter().flat_map(|hash| *hash.as_bytes()).collect();
            let added = usize::try_from(size - old).unwrap();
            assert_eq!(tree.prove_consistency(added).as_bytes(), bytes, "{old} to {size}");
            let proof = ConsistencyProof::<Sha256>::try_from_bytes(bytes).unwrap();
            let root = RootHash::<Sha256>::new((*log.root.as_bytes()).into(), size);
            let old_root = crate::prove::root(&log.tiles, old).unwrap();
            let old_root = RootHash::<Sha256>::new((*old_root.as_bytes()).into(), old);
            assert!(root.verify_consistency(&old_root, &proof).is_ok());
        }
    }
}

/// A log that they sign and build is accepted by us.
#[test]
fn we_accept_what_they_write() {
    struct Stored(std::cell::RefCell<Vec<tlog::Hash>>);
    impl tlog::HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
            let stored = self.0.borrow();
            Ok(indexes.iter().map(|index| stored[usize::try_from(*index).unwrap()]).collect())
        }
    }
    let stored = Stored(Vec::new().into());
    for n in 0..300 {
        let hashes = tlog::stored_hashes(n, &number_leaf(n), &stored).unwrap();
        stored.0.borrow_mut().extend(hashes);
    }
    let root = tlog::tree_hash(300, &stored).unwrap();
    assert_eq!(root.0, *Log::of(300).root.as_bytes());
    let ours = |hashes: Vec<tlog::Hash>| hashes.iter().map(|hash| Hash::from_bytes(hash.0)).collect::<Vec<_>>();
    let root = Hash::from_bytes(root.0);
    for n in 0..300 {
        let proof = ours(tlog::prove_record(300, n, &stored).unwrap());
        let leaf = hash::leaf_hash(&number_leaf(n));
        assert_eq!(crate::merkle::verify_inclusion(leaf, n, 300, &proof, &root), Ok(()));
        let proof = ours(tlog::prove_tree(300, n + 1, &stored).unwrap());
        let old = Hash::from_bytes(tlog::tree_hash(n + 1, &stored).unwrap().0);
        assert_eq!(crate::merkle::verify_consistency(n + 1, &old, 300, &root, &proof), Ok(()));
    }
}
