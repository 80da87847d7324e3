//! Logs in memory, a random source that repeats, and the definition of RFC 6962 written down once more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::builder::append;
use crate::hash::{Hash, empty_root, leaf_hash, node_hash};
use crate::key::{Ed25519Signer, KeyKind, VerifierKey, verifier_of};
use crate::note::Note;
use crate::{Checkpoint, TilePath};

pub(super) const ORIGIN: &str = "swarm.example/0d/audit";

/// SplitMix64: repeats from its seed; for tests only.
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[0];
        }
    }
}

/// A file of `testdata/`.
pub(super) fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path)
}

/// All files below a folder of `testdata/`, in order.
pub(super) fn files_below(path: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![testdata(path)];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

pub(super) fn signer() -> Ed25519Signer {
    signer_named(ORIGIN, 1)
}

pub(super) fn signer_named(name: &str, seed: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed(name, &[seed; 32]).unwrap()
}

pub(super) fn key_of(signer: &Ed25519Signer) -> VerifierKey {
    verifier_of(signer, KeyKind::Ed25519).unwrap()
}

pub(super) fn witness_key_of(signer: &Ed25519Signer) -> VerifierKey {
    verifier_of(signer, KeyKind::CosignatureV1).unwrap()
}

/// A log in memory.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) tiles: BTreeMap<TilePath, Vec<u8>>,
    pub(super) leaves: Vec<Vec<u8>>,
    pub(super) root: Hash,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { tiles: BTreeMap::new(), leaves: Vec::new(), root: empty_root() }
    }
    /// A log of the leaves `0..n`, each its own number as text.
    pub(super) fn of(n: u64) -> Self {
        let mut log = Self::new();
        log.push((0..n).map(number_leaf).collect());
        log
    }
    pub(super) fn size(&self) -> u64 {
        self.leaves.len().try_into().unwrap()
    }
    /// Appends, keeps what was written, and says which files those were.
    pub(super) fn push(&mut self, leaves: Vec<Vec<u8>>) -> Vec<TilePath> {
        let slices: Vec<&[u8]> = leaves.iter().map(Vec::as_slice).collect();
        let appended = append(&self.tiles, self.size(), &self.root, &slices).unwrap();
        self.leaves.extend(leaves);
        assert_eq!(appended.size, self.size());
        self.root = appended.root;
        let paths = appended.files.iter().map(|(path, _)| *path).collect();
        self.tiles.extend(appended.files);
        paths
    }
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: ORIGIN.to_owned(), size: self.size(), root: self.root }
    }
    pub(super) fn signed(&self) -> Note {
        self.checkpoint().sign(&signer()).unwrap()
    }
    pub(super) fn hashes(&self) -> Vec<Hash> {
        self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
    }
}

pub(super) fn number_leaf(n: u64) -> Vec<u8> {
    n.to_string().into_bytes()
}

/// MTH of RFC 6962, 2.1, word for word.
pub(super) fn mth(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [one] => *one,
        more => {
            let k = more.len().next_power_of_two() / 2;
            node_hash(&mth(&more[..k]), &mth(&more[k..]))
        }
    }
}

/// PATH of RFC 6962, 2.1.1, word for word.
pub(super) fn path(m: usize, hashes: &[Hash]) -> Vec<Hash> {
    if hashes.len() <= 1 {
        return Vec::new();
    }
    let k = hashes.len().next_power_of_two() / 2;
    if m < k {
        let mut below = path(m, &hashes[..k]);
        below.push(mth(&hashes[k..]));
        below
    } else {
        let mut below = path(m - k, &hashes[k..]);
        below.push(mth(&hashes[..k]));
        below
    }
}

/// PROOF of RFC 6962, 2.1.2, word for word.
pub(super) fn proof(m: usize, hashes: &[Hash]) -> Vec<Hash> {
    subproof(m, hashes, true)
}

fn subproof(m: usize, hashes: &[Hash], whole: bool) -> Vec<Hash> {
    if m == hashes.len() {
        return if whole { Vec::new() } else { vec![mth(hashes)] };
    }
    let k = hashes.len().next_power_of_two() / 2;
    if m <= k {
        let mut below = subproof(m, &hashes[..k], whole);
        below.push(mth(&hashes[k..]));
        below
    } else {
        let mut below = subproof(m - k, &hashes[k..], false);
        below.push(mth(&hashes[..k]));
        below
    }
}

/// The variants of an enum, read out of its source: what the compiler does not list.
pub(super) fn variants(source: &str, name: &str) -> Vec<String> {
    let (_, rest) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (body, _) = rest.split_once("\n}").unwrap();
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.chars().take_while(char::is_ascii_alphanumeric).collect())
        .collect()
}

/// The name of a value's variant, as its `Debug` begins.
pub(super) fn variant_of(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// The same bytes with one byte changed.
pub(super) fn flipped(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= mask;
    changed
}
