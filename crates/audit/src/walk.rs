//! Verifying a whole log: every bundle, every leaf, every tile, against a checkpoint.
//!
//! The walk asks for one tile after the other and keeps 64 hashes, so a log of any size is verified in bounded memory
//! and by callers that fetch over a network.

use crate::checkpoint::Checkpoint;
use crate::hash::{Hash, empty_root, leaf_hash, node_hash};
use crate::leaf::matches;
use crate::limits::TILE_WIDTH;
use crate::tile::{TileError, TilePath, TileReader, decode_bundle, read_hashes};

/// The roots of the complete subtrees of a tree that grows on its right: at most 64 hashes.
#[derive(Debug, Clone, Default)]
pub struct CompactTree {
    size: u64,
    /// From the largest to the smallest complete subtree.
    peaks: Vec<Hash>,
}

impl CompactTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// How many leaves it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
    /// Appends the hash of a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        let mut rest = self.size;
        while rest & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            rest >>= 1;
        }
        self.peaks.push(node);
        self.size = self.size.saturating_add(1);
    }
    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A tile or bundle is missing or malformed.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// A tile holds another hash than the leaves give.
    #[error("tile `{0}` does not hold the hashes of the leaves below it")]
    TileDiffers(TilePath),
    /// The leaves give another root than the checkpoint says.
    #[error("the {size} leaves do not give the root of the checkpoint")]
    RootDiffers {
        /// The size of the checkpoint.
        size: u64,
    },
    /// An entry's salt and body are not those of its leaf.
    #[error("entry {0} does not match its leaf: its body or salt was changed")]
    BodyDiffers(u64),
    /// The walk was ended before its last tile.
    #[error("the walk ended after {0} leaves, before the size of the checkpoint")]
    Incomplete(u64),
}

/// A walk over the bundles of a log: fetch [`LogWalk::next_bundle`], hand it to [`LogWalk::feed`], until there is none.
#[derive(Debug)]
pub struct LogWalk {
    checkpoint: Checkpoint,
    tree: CompactTree,
}

impl LogWalk {
    /// Begins at leaf 0. The checkpoint must have been verified.
    #[must_use]
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, tree: CompactTree::new() }
    }
    /// The bundle to fetch next; `None` at the end.
    #[must_use]
    pub fn next_bundle(&self) -> Option<TilePath> {
        TilePath::entries_at(self.checkpoint.size, self.tree.size() / u64::from(TILE_WIDTH))
            .filter(|_| self.tree.size() < self.checkpoint.size)
    }
    /// Takes the bytes of the bundle and returns its leaves with the index of the first.
    pub fn feed<'a>(&mut self, path: &TilePath, bytes: &'a [u8]) -> Result<(u64, Vec<&'a [u8]>), LogError> {
        let leaves = decode_bundle(path, bytes)?;
        let first = self.tree.size();
        for leaf in &leaves {
            self.tree.push(leaf_hash(leaf));
        }
        Ok((first, leaves))
    }
    /// Ends the walk: the leaves must give the checkpoint's root.
    pub fn finish(self) -> Result<u64, LogError> {
        let size = self.checkpoint.size;
        if self.tree.size() != size {
            return Err(LogError::Incomplete(self.tree.size()));
        }
        if self.tree.root() == self.checkpoint.root { Ok(size) } else { Err(LogError::RootDiffers { size }) }
    }
}

/// Verifies all leaves and all tiles of hashes of a log against a (verified) checkpoint. Returns the number of leaves.
pub fn verify_log(reader: &dyn TileReader, checkpoint: &Checkpoint) -> Result<u64, LogError> {
    let mut walk = LogWalk::new(checkpoint.clone());
    while let Some(path) = walk.next_bundle() {
        let bytes = reader.tile(&path).ok_or(TileError::Missing(path))?;
        let (first, leaves) = walk.feed(&path, &bytes)?;
        let hashes = TilePath::hashes_at(checkpoint.size, 0, first / u64::from(TILE_WIDTH));
        if let Some(path) = hashes {
            let stored = read_hashes(reader, &path)?;
            if !stored.iter().copied().eq(leaves.iter().map(|leaf| leaf_hash(leaf))) {
                return Err(LogError::TileDiffers(path));
            }
        }
    }
    let size = walk.finish()?;
    verify_upper_tiles(reader, size)?;
    Ok(size)
}

/// Every hash of level L+1 must be the root of its full tile of level L.
fn verify_upper_tiles(reader: &dyn TileReader, size: u64) -> Result<(), LogError> {
    for level in 1..8 {
        let mut index = 0;
        while let Some(path) = TilePath::hashes_at(size, level, index) {
            let stored = read_hashes(reader, &path)?;
            for (hash, below) in stored.iter().zip(index * u64::from(TILE_WIDTH)..) {
                let path_below = TilePath::hashes_at(size, level - 1, below).ok_or(LogError::TileDiffers(path))?;
                let below = read_hashes(reader, &path_below)?;
                if crate::prove::fold(&below) != Some(*hash) {
                    return Err(LogError::TileDiffers(path));
                }
            }
            index += 1;
        }
    }
    Ok(())
}

/// Checks an entry's salt and body against its leaf.
pub fn verify_body(index: u64, leaf: &[u8], salt: &[u8; 32], body: &[u8]) -> Result<(), LogError> {
    if matches(leaf, salt, body) { Ok(()) } else { Err(LogError::BodyDiffers(index)) }
}
