//! Making roots and proofs out of tiles.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::hash::{Hash, empty_root, node_hash};
use crate::limits::{TILE_BYTES, TILE_WIDTH};
use crate::tile::{TileError, TilePath, TileReader, read_hashes};

/// The root of the first `size` leaves.
pub fn root(reader: &dyn TileReader, size: u64) -> Result<Hash, TileError> {
    if size == 0 {
        return Ok(empty_root());
    }
    Tree { reader, size }.range(0, size)
}

/// The inclusion proof of leaf `index` in the tree of the first `size` leaves: siblings from leaf to root.
pub fn prove_inclusion(reader: &dyn TileReader, index: u64, size: u64) -> Result<Vec<Hash>, TileError> {
    if index >= size {
        return Err(TileError::Outside { index, size });
    }
    let tree = Tree { reader, size };
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(tree.range(middle, high)?);
            high = middle;
        } else {
            path.push(tree.range(low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of the first `new` leaves extends the tree of the first `old` ones.
pub fn prove_consistency(reader: &dyn TileReader, old: u64, new: u64) -> Result<Vec<Hash>, TileError> {
    if old > new {
        return Err(TileError::Outside { index: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let tree = Tree { reader, size: new };
    let (mut low, mut high) = (0, new);
    let mut path = Vec::new();
    while high != old {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(tree.range(middle, high)?);
            high = middle;
        } else {
            path.push(tree.range(low, middle)?);
            low = middle;
        }
    }
    // The old tree itself is known to the verifier when it is one complete subtree.
    if low != 0 {
        path.push(tree.range(low, high)?);
    }
    path.reverse();
    Ok(path)
}

/// The tiles that [`prove_inclusion`] will read: for callers that must fetch them first.
#[must_use]
pub fn tiles_for_inclusion(index: u64, size: u64) -> Vec<TilePath> {
    let asked = Asked::default();
    // Every answer is well formed, so the result is a proof of zeroes that nobody uses.
    drop(prove_inclusion(&asked, index, size));
    asked.0.into_inner().into_iter().collect()
}

/// The tiles that [`prove_consistency`] will read.
#[must_use]
pub fn tiles_for_consistency(old: u64, new: u64) -> Vec<TilePath> {
    let asked = Asked::default();
    drop(prove_consistency(&asked, old, new));
    asked.0.into_inner().into_iter().collect()
}

/// Answers every question with zeroes and remembers what was asked.
#[derive(Default)]
struct Asked(RefCell<BTreeSet<TilePath>>);

impl TileReader for Asked {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        self.0.borrow_mut().insert(*path);
        Some(vec![0; TILE_BYTES])
    }
}

/// The largest power of two below `n` (for `n` ≥ 2).
fn split(n: u64) -> u64 {
    n.checked_next_power_of_two().map_or(1 << 63, |power| power / 2)
}

struct Tree<'a> {
    reader: &'a dyn TileReader,
    size: u64,
}

impl Tree<'_> {
    /// The root over the leaves `low..high`, where `low` is a multiple of the power of two at or above the length.
    fn range(&self, low: u64, high: u64) -> Result<Hash, TileError> {
        let length = high - low;
        if length.is_power_of_two() {
            let height = length.trailing_zeros();
            return self.complete(height, low >> height);
        }
        let middle = low + split(length);
        Ok(node_hash(&self.range(low, middle)?, &self.range(middle, high)?))
    }

    /// The root of the complete subtree number `index` of 2^height leaves.
    fn complete(&self, height: u32, index: u64) -> Result<Hash, TileError> {
        let outside = || TileError::Outside { index, size: self.size };
        let level = u8::try_from(height / 8).map_err(|_| outside())?;
        let inside = height % 8;
        let first = index << inside;
        let tile = first / u64::from(TILE_WIDTH);
        let path = TilePath::hashes_at(self.size, level, tile).ok_or_else(outside)?;
        let hashes = read_hashes(self.reader, &path)?;
        let offset = usize::try_from(first % u64::from(TILE_WIDTH)).map_err(|_| outside())?;
        let slice = hashes.get(offset..offset + (1 << inside)).ok_or_else(outside)?;
        fold(slice).ok_or_else(outside)
    }
}

/// The root over a power of two of hashes.
pub(crate) fn fold(hashes: &[Hash]) -> Option<Hash> {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => Some(node_hash(left, right)),
                _ => None,
            })
            .collect::<Option<_>>()?;
    }
    row.first().copied()
}
