//! Images: OCI layouts and archives in, one directory tree out. Everything by digest, everything within budgets.
//!
//! An image is written by strangers and unpacked by root, so:
//! - nothing is believed before its digest and size were compared, and nothing of a tree is visible before its last
//!   layer was: it is made beside its place and renamed;
//! - every name is resolved by the kernel inside the tree (`openat2`, `RESOLVE_IN_ROOT`), owners, modes and times are
//!   set on descriptors, never by path;
//! - what cannot be taken faithfully is refused by name: sparse files, hard links to anything but regular files,
//!   owners that a job's user namespace does not map, global headers that rename files. Device nodes are left out
//!   and counted. Of the extended attributes `user.*` is kept, without `user.overlay.*`; access control lists are
//!   dropped, since files of later layers would inherit them.
//!
//! Setuid bits are kept: they have no effect in a job, but on the host they would, so a tree is only ever made below
//! a directory that other users cannot enter.

mod archive;
mod config;
mod layout;
mod manifest;
mod name;
pub mod remote;
mod remove;
mod staging;
mod stream;
mod tree;
mod unpack;
mod user;

#[cfg(test)]
mod tests;

pub use config::{ImageConfig, parse_config};
pub use layout::{Blob, BlobSource, ImportPlan, inspect};
pub use staging::remove_leftovers;
pub use unpack::{Unpacked, unpack};
pub use user::resolve_user;

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

/// A stranger's text, short and without anything that a terminal would obey.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(200).flat_map(char::escape_debug).collect();
    if chars.next().is_some() { format!("{short}…") } else { short }
}
