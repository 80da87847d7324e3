//! Appending: the tiles at the edge and new leaves in, the tiles to store and the new root out.

use std::collections::BTreeMap;

use crate::hash::{Hash, leaf_hash};
use crate::limits::{LEAF_MAX, TILE_WIDTH};
use crate::prove;
use crate::tile::{TileError, TilePath, TileReader, decode_bundle, encode_bundle, read_hashes};

/// What an append makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Path and bytes of every tile and bundle that is new or wider than before. Store them durably before the
    /// checkpoint is signed.
    pub files: Vec<(TilePath, Vec<u8>)>,
    /// The new number of leaves.
    pub size: u64,
    /// The new root.
    pub root: Hash,
}

/// Why leaves were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A tile at the edge is missing or malformed.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// The tiles at the edge do not give the root that was signed last: the storage was changed.
    #[error("the stored tiles do not lead to the root of the last checkpoint: nothing is signed over them")]
    EdgeChanged,
    /// A leaf is too long.
    #[error("leaf {0} is longer than {LEAF_MAX} bytes")]
    LeafTooLong(u64),
    /// The log would hold more leaves than can be counted.
    #[error("the log is full")]
    Full,
}

/// Appends `leaves` to the log of `size` leaves with the root `root`.
///
/// `reader` must have the tiles of [`crate::tile::edge`]`(size)`. They are checked against `root` first, so that
/// nobody who changes stored tiles gets a signature over the change.
pub fn append(reader: &dyn TileReader, size: u64, root: &Hash, leaves: &[&[u8]]) -> Result<Appended, AppendError> {
    let edge = Edge { reader, fresh: BTreeMap::new() };
    if prove::root(&edge, size)? != *root {
        return Err(AppendError::EdgeChanged);
    }
    let added = u64::try_from(leaves.len()).map_err(|_| AppendError::Full)?;
    let new_size = size.checked_add(added).ok_or(AppendError::Full)?;
    let mut edge = edge;
    bundles(&mut edge, size, leaves)?;
    let mut hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let mut count = size;
    for level in 0..8 {
        if hashes.is_empty() {
            break;
        }
        let full = level_tiles(&mut edge, level, count, &hashes)?;
        count /= u64::from(TILE_WIDTH);
        hashes = full;
    }
    let root = prove::root(&edge, new_size)?;
    Ok(Appended { files: edge.fresh.into_iter().collect(), size: new_size, root })
}

/// Stored tiles below, fresh ones above.
struct Edge<'a> {
    reader: &'a dyn TileReader,
    fresh: BTreeMap<TilePath, Vec<u8>>,
}

impl TileReader for Edge<'_> {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        self.fresh.get(path).cloned().or_else(|| self.reader.tile(path))
    }
}

/// Writes the entry bundles that the new leaves fall into.
fn bundles(edge: &mut Edge<'_>, size: u64, leaves: &[&[u8]]) -> Result<(), AppendError> {
    let index = size / u64::from(TILE_WIDTH);
    let mut items: Vec<Vec<u8>> = Vec::new();
    if let Some(path) = TilePath::entries_at(size, index) {
        if leaves.is_empty() {
            return Ok(());
        }
        let bytes = edge.tile(&path).ok_or(TileError::Missing(path))?;
        let old = decode_bundle(&path, &bytes)?;
        check_bundle(edge, size, index, &old)?;
        items.extend(old.into_iter().map(<[u8]>::to_vec));
    }
    for (leaf, number) in leaves.iter().zip(size..) {
        if leaf.len() > LEAF_MAX {
            return Err(AppendError::LeafTooLong(number));
        }
        items.push(leaf.to_vec());
    }
    for (chunk, index) in items.chunks(usize::from(TILE_WIDTH)).zip(index..) {
        let width = u16::try_from(chunk.len()).map_err(|_| AppendError::Full)?;
        let path = TilePath::entries(index, width).ok_or(AppendError::Full)?;
        let bundle = encode_bundle(chunk.iter().map(Vec::as_slice)).ok_or(AppendError::Full)?;
        edge.fresh.insert(path, bundle);
    }
    Ok(())
}

/// The stored leaves must be those whose hashes the edge tile holds.
fn check_bundle(edge: &Edge<'_>, size: u64, index: u64, leaves: &[&[u8]]) -> Result<(), AppendError> {
    let Some(path) = TilePath::hashes_at(size, 0, index) else { return Ok(()) };
    let hashes = read_hashes(edge, &path)?;
    let same = hashes.len() == leaves.len() && hashes.iter().zip(leaves).all(|(hash, leaf)| *hash == leaf_hash(leaf));
    if same { Ok(()) } else { Err(AppendError::EdgeChanged) }
}

/// Writes the tiles of one level and returns the roots of those that became full: the items of the next level.
fn level_tiles(edge: &mut Edge<'_>, level: u8, count: u64, added: &[Hash]) -> Result<Vec<Hash>, AppendError> {
    let index = count / u64::from(TILE_WIDTH);
    let width = u16::try_from(count % u64::from(TILE_WIDTH)).map_err(|_| AppendError::Full)?;
    let mut items = match TilePath::hashes(level, index, width) {
        Some(path) => read_hashes(edge, &path)?,
        None => Vec::new(),
    };
    items.extend_from_slice(added);
    let mut roots = Vec::new();
    for (chunk, index) in items.chunks(usize::from(TILE_WIDTH)).zip(index..) {
        let width = u16::try_from(chunk.len()).map_err(|_| AppendError::Full)?;
        let path = TilePath::hashes(level, index, width).ok_or(AppendError::Full)?;
        edge.fresh.insert(path, chunk.iter().flat_map(|hash| *hash.as_bytes()).collect());
        if width == TILE_WIDTH {
            roots.push(prove::fold(chunk).ok_or(AppendError::Full)?);
        }
    }
    Ok(roots)
}
