//! Layout directories and archives.

use super::{ImageError, refused};
use std::io::Read;
use std::path::{Path, PathBuf};
use vocabulary::Sha256Digest;

/// Where the bytes of a blob lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSource {
    /// A file of its own.
    File(PathBuf),
    /// A part of an archive.
    Archive {
        /// The archive.
        path: PathBuf,
        /// First byte.
        offset: u64,
    },
}

/// One blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Sha256Digest,
    /// Their number.
    pub size: u64,
    /// Where they lie.
    pub source: BlobSource,
}

impl Blob {
    /// Opens the blob's bytes; whoever reads them compares the digest.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        use std::io::Seek;
        match &self.source {
            BlobSource::File(path) => Ok(Box::new(std::fs::File::open(path)?.take(self.size))),
            BlobSource::Archive { path, offset } => {
                let mut file = std::fs::File::open(path)?;
                file.seek(std::io::SeekFrom::Start(*offset))?;
                Ok(Box::new(file.take(self.size)))
            }
        }
    }
}

/// What an import uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportPlan {
    /// The manifest's digest: the image's name from here on.
    pub manifest: Sha256Digest,
    /// Manifest, config and layers, each once, the manifest first.
    pub blobs: Vec<Blob>,
    /// What the image says about its program.
    pub config: super::ImageConfig,
}

pub(crate) fn digest(text: &str) -> Result<Sha256Digest, ImageError> {
    text.parse().map_err(|_| refused(format!("digest `{}` is not `sha256:` and 64 hexadecimal digits", text.chars().take(80).collect::<String>())))
}

/// Reads a layout directory or an OCI archive and finds the image for this machine (linux/amd64).
///
/// # Errors
/// When it is neither, or breaks a rule; a docker archive is refused with a hint.
pub fn inspect(path: &Path) -> Result<ImportPlan, ImageError> {
    Err(refused(format!("`{}`: reading layouts is not built yet", path.display())))
}
