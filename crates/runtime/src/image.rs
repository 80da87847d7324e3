//! Images: OCI layouts and archives in, one directory tree out. Everything by digest, everything within budgets.

mod config;
mod layout;
mod tree;
mod unpack;

pub use config::{ImageConfig, parse_config};
pub use layout::{Blob, BlobSource, ImportPlan, inspect};
pub use unpack::{Unpacked, unpack};

use std::io::Read;
use thiserror::Error;
use vocabulary::Sha256Digest;

/// Gives the bytes of a blob. Whoever calls it verifies them: the source need not be honest.
pub type BlobReader<'a> = dyn Fn(Sha256Digest) -> std::io::Result<Box<dyn Read>> + 'a;

/// Why an image is refused or could not be read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The image breaks a rule; the text names which.
    #[error("{0}")]
    Refused(String),
    /// A `docker save` archive.
    #[error("`{0}` is a docker archive; convert it with `skopeo copy docker-archive:{0} oci-archive:image.tar`")]
    DockerArchive(String),
    /// Bytes that do not have their digest or size.
    #[error("blob `{digest}` is not what it should be: {detail}")]
    Corrupt {
        /// The digest that was asked for.
        digest: String,
        /// What differs.
        detail: String,
    },
    /// A budget is exceeded.
    #[error("layer {layer}: {limit} exceeded")]
    Budget {
        /// The layer, counted from 1; 0 for the manifest.
        layer: usize,
        /// The limit and its size.
        limit: String,
    },
    /// An entry of a layer that could touch something outside the tree, or is no valid entry.
    #[error("layer {layer}, entry `{path}`: {detail}")]
    Entry {
        /// The layer, counted from 1.
        layer: usize,
        /// The entry's name.
        path: String,
        /// The rule that it breaks.
        detail: String,
    },
    /// The disk.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ImageError {
    let what = what.into();
    move |source| ImageError::Io { what, source }
}

pub(crate) fn refused(text: impl Into<String>) -> ImageError {
    ImageError::Refused(text.into())
}
