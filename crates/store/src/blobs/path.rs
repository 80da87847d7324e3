//! Names of blobs: no way out of the folder, and the same in every store.

use std::fmt;
use std::str::FromStr;

use crate::limits::BLOB_PATH_MAX;

/// Why a text is no name of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty or too long.
    #[error("the name of a blob has 1 to {BLOB_PATH_MAX} characters")]
    Length,
    /// Another character.
    #[error("the name of a blob has only a-z, 0-9, `.`, `_`, `-` and `/`")]
    Character,
    /// An empty part, or one that begins with a dot.
    #[error("a part of a blob's name is neither empty nor begins with a dot")]
    Part,
    /// The folder of unfinished uploads.
    #[error("the folder `uploads` belongs to the store")]
    Reserved,
}

/// The name of a blob: parts of `a-z 0-9 . _ -`, separated by `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobPath(String);

impl BlobPath {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// A name below this one.
    pub fn join(&self, parts: &str) -> Result<Self, PathError> {
        format!("{}/{parts}", self.0).parse()
    }
    /// A name of the store itself, which is not checked.
    pub(super) const fn own(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for BlobPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() || text.len() > BLOB_PATH_MAX {
            return Err(PathError::Length);
        }
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        if !text.bytes().all(fits) {
            return Err(PathError::Character);
        }
        if text.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return Err(PathError::Part);
        }
        if text.split('/').next() == Some(super::UPLOADS) {
            return Err(PathError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for BlobPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
