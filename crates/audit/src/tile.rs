//! C2SP tlog-tiles: paths, partial widths, tiles of hashes and bundles of entries.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::hash::Hash;
use crate::limits::{LEAF_MAX, TILE_BYTES, TILE_LEVEL_MAX, TILE_WIDTH};

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash)]
pub enum TileKind {
    /// Leaves, each behind its length.
    Entries,
    /// Hashes of this level: level 0 are leaf hashes, level L+1 the roots of full tiles of level L.
    Hashes(u8),
}

/// Where a tile lies: kind, number and how many items it holds (256 is a full tile).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// A text is not the path of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile: expected tile/LEVEL/N, tile/entries/N or these with .p/WIDTH")]
pub struct TilePathError;

/// Why bytes are not the tile that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// The reader has no such tile.
    #[error("tile `{0}` is missing")]
    Missing(TilePath),
    /// Too few or too many bytes, or not a multiple of a hash.
    #[error("tile `{0}` has a wrong length")]
    Length(TilePath),
    /// A bundle whose lengths do not add up.
    #[error("entry bundle `{0}` is malformed")]
    Bundle(TilePath),
    /// The tree has no such size or index.
    #[error("position {index} is outside a tree of {size} leaves")]
    Outside {
        /// What was asked for.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
}

/// Hands out tiles: from memory, a folder, an object store. The one port of this crate.
pub trait TileReader {
    /// The bytes of a tile; a wider version of the same tile will do where the partial one is gone.
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>>;
}

impl TilePath {
    /// A tile of hashes, if level and width are legal (1 to 256).
    #[must_use]
    pub fn hashes(level: u8, index: u64, width: u16) -> Option<Self> {
        Self::new(TileKind::Hashes(level), index, width)
    }
    /// An entry bundle, if the width is legal (1 to 256).
    #[must_use]
    pub fn entries(index: u64, width: u16) -> Option<Self> {
        Self::new(TileKind::Entries, index, width)
    }
    fn new(kind: TileKind, index: u64, width: u16) -> Option<Self> {
        let level_fits = match kind {
            TileKind::Entries => true,
            TileKind::Hashes(level) => level <= TILE_LEVEL_MAX,
        };
        ((1..=TILE_WIDTH).contains(&width) && level_fits).then_some(Self { kind, index, width })
    }
    /// The tile of hashes `index` of `level` in a tree of `size` leaves; `None` if it would be empty.
    #[must_use]
    pub fn hashes_at(size: u64, level: u8, index: u64) -> Option<Self> {
        Self::hashes(level, index, width_at(size, level, index))
    }
    /// The entry bundle `index` in a tree of `size` leaves; `None` if it would be empty.
    #[must_use]
    pub fn entries_at(size: u64, index: u64) -> Option<Self> {
        Self::entries(index, width_at(size, 0, index))
    }
    /// What it holds.
    #[must_use]
    pub const fn kind(&self) -> TileKind {
        self.kind
    }
    /// Its number, counted from 0 in its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
    /// How many items it holds.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }
    /// Whether it is not full yet.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }
    /// The same tile with another width.
    #[must_use]
    pub fn with_width(&self, width: u16) -> Option<Self> {
        Self::new(self.kind, self.index, width)
    }
}

/// How many complete subtrees of 256^level leaves a tree of `size` leaves has.
#[must_use]
pub fn count_at(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level) * 8).unwrap_or(0)
}

/// How many items tile `index` of `level` holds in a tree of `size` leaves: 0 to 256.
#[must_use]
pub fn width_at(size: u64, level: u8, index: u64) -> u16 {
    let before = index.saturating_mul(u64::from(TILE_WIDTH));
    let rest = count_at(size, level).saturating_sub(before);
    u16::try_from(rest).unwrap_or(TILE_WIDTH).min(TILE_WIDTH)
}

/// The partial tiles at the right edge of a tree of `size` leaves, entry bundle first: what appending needs.
#[must_use]
pub fn edge(size: u64) -> Vec<TilePath> {
    let mut paths = Vec::new();
    let at_edge = |level: u8| {
        let count = count_at(size, level);
        let index = count / u64::from(TILE_WIDTH);
        (index, width_at(size, level, index))
    };
    let (index, width) = at_edge(0);
    paths.extend(TilePath::entries(index, width));
    for level in 0..8 {
        let (index, width) = at_edge(level);
        paths.extend(TilePath::hashes(level, index, width));
    }
    paths
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries/")?,
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        let mut groups = groups.into_iter().rev().peekable();
        while let Some(group) = groups.next() {
            if groups.peek().is_some() {
                write!(f, "x{group:03}/")?;
            } else {
                write!(f, "{group:03}")?;
            }
        }
        if self.is_partial() { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for TilePath {
    type Err = TilePathError;
    /// Accepts exactly what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, TilePathError> {
        let path = parse(text).ok_or(TilePathError)?;
        if path.to_string() == text { Ok(path) } else { Err(TilePathError) }
    }
}

fn parse(text: &str) -> Option<TilePath> {
    // "tile/entries/" + seven groups of five + ".p/255" is below this.
    if text.len() > 64 {
        return None;
    }
    let rest = text.strip_prefix("tile/")?;
    let (kind, rest) = rest.split_once('/')?;
    let kind = if kind == "entries" { TileKind::Entries } else { TileKind::Hashes(kind.parse().ok()?) };
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (number, width.parse().ok().filter(|w| *w < TILE_WIDTH)?),
        None => (rest, TILE_WIDTH),
    };
    let mut index: u64 = 0;
    for group in number.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    TilePath::new(kind, index, width)
}

/// Reads a tile of hashes and cuts it to its width.
pub fn read_hashes(reader: &dyn TileReader, path: &TilePath) -> Result<Vec<Hash>, TileError> {
    let bytes = reader.tile(path).ok_or(TileError::Missing(*path))?;
    let (chunks, rest) = bytes.as_chunks::<32>();
    if bytes.len() > TILE_BYTES || !rest.is_empty() || chunks.len() < usize::from(path.width) {
        return Err(TileError::Length(*path));
    }
    Ok(chunks.iter().take(usize::from(path.width)).map(|chunk| Hash::from_bytes(*chunk)).collect())
}

/// Encodes leaves as an entry bundle: each behind its length as a big-endian `u16`.
///
/// `None` if a leaf is longer than 65,535 bytes.
#[must_use]
pub fn encode_bundle<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for leaf in leaves {
        let length = u16::try_from(leaf.len()).ok().filter(|n| usize::from(*n) <= LEAF_MAX)?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(leaf);
    }
    Some(bundle)
}

/// Splits an entry bundle into its leaves and cuts it to the path's width.
///
/// A full or wider bundle serves for a partial one; anything left over beyond 256 leaves is refused.
pub fn decode_bundle<'a>(path: &TilePath, mut bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, TileError> {
    let malformed = || TileError::Bundle(*path);
    let mut leaves = Vec::new();
    while !bytes.is_empty() {
        if leaves.len() >= usize::from(TILE_WIDTH) {
            return Err(malformed());
        }
        let (length, rest) = bytes.split_first_chunk::<2>().ok_or_else(malformed)?;
        let (leaf, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(malformed)?;
        leaves.push(leaf);
        bytes = rest;
    }
    if leaves.len() < usize::from(path.width) {
        return Err(malformed());
    }
    leaves.truncate(usize::from(path.width));
    Ok(leaves)
}

/// A log held in memory; falls back to a wider version of a partial tile.
impl TileReader for BTreeMap<TilePath, Vec<u8>> {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        (path.width..=TILE_WIDTH).filter_map(|width| path.with_width(width)).find_map(|path| self.get(&path).cloned())
    }
}
