//! Names of entries: pure rules over bytes.

use crate::limits::{NAME_BYTES, PATH_BYTES};

/// Prefix of a whiteout, which deletes what a lower layer brought.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The whiteout that empties its directory of what lower layers brought.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// The tree's root itself.
    Root,
    /// The last of the components.
    Plain(&'a [u8]),
    /// Delete this name of the lower layers.
    Whiteout(&'a [u8]),
    /// Delete everything of the lower layers in the directory.
    Opaque,
}

/// A path without `.`, `..` and empty components; symbolic links in it are for the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name<'a>(Vec<&'a [u8]>);

impl<'a> Name<'a> {
    /// Takes a path apart. One leading `/` means the root of the tree, `.` and repeated `/` mean nothing.
    pub(super) fn parse(path: &'a [u8]) -> Result<Self, String> {
        if path.is_empty() {
            return Err("the name is empty".to_owned());
        }
        if path.contains(&0) {
            return Err("the name holds a NUL byte".to_owned());
        }
        if path.len() >= PATH_BYTES {
            return Err(format!("the name is longer than {} bytes", PATH_BYTES - 1));
        }
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        for part in &parts {
            if *part == b".." {
                return Err("`..` in a name".to_owned());
            }
            if part.len() > NAME_BYTES {
                return Err(format!("a component is longer than {NAME_BYTES} bytes"));
            }
        }
        Ok(Self(parts))
    }

    /// Number of components.
    pub(super) fn depth(&self) -> usize {
        self.0.len()
    }

    /// Directory components and what the last one asks for.
    pub(super) fn split(&self) -> Result<(&[&'a [u8]], Named<'a>), String> {
        let Some((last, parents)) = self.0.split_last() else { return Ok((&[], Named::Root)) };
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err("a whiteout is no directory".to_owned());
        }
        let named = if *last == OPAQUE {
            Named::Opaque
        } else if let Some(hidden) = last.strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden == b"." || hidden == b".." {
                return Err("a whiteout of no name".to_owned());
            }
            if hidden.starts_with(WHITEOUT) {
                return Err("a whiteout of a whiteout".to_owned());
            }
            Named::Whiteout(hidden)
        } else {
            Named::Plain(last)
        };
        Ok((parents, named))
    }
}
