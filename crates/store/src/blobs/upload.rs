//! Uploads of any size in bounded memory: under another name until size and digest are right.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use vocabulary::Sha256Digest;

use super::staged::Parts;
use super::{BlobError, BlobPath, Blobs};
use crate::limits::UPLOAD_MAX;

/// An upload under way. Dropping it leaves nothing under the blob's name.
pub struct Upload {
    parts: Parts,
    digest: Sha256Digest,
    size: u64,
    written: u64,
    hash: Context,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("path", self.parts.path()).field("written", &self.written).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Begins the upload of a blob whose size and digest are known.
    pub async fn upload(&self, path: &BlobPath, digest: Sha256Digest, size: u64) -> Result<Upload, BlobError> {
        if size > UPLOAD_MAX {
            return Err(BlobError::TooLarge { path: path.clone(), size, limit: UPLOAD_MAX });
        }
        let parts = Parts::begin(self, path).await?;
        Ok(Upload { parts, digest, size, written: 0, hash: Context::new(&SHA256) })
    }
}

impl Upload {
    /// Takes the next bytes; at most one part of them waits in memory.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.size {
            return Err(self.mismatch("size"));
        }
        self.hash.update(&bytes);
        self.parts.write(bytes).await
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Checks size and digest and gives the blob its name. Says whether it is new: the same blob may have been there.
    pub async fn finish(self) -> Result<bool, BlobError> {
        let digest = self.hash.clone().finish();
        let what = if self.written != self.size {
            Some("size")
        } else if digest.as_ref() != self.digest.as_bytes().as_slice() {
            Some("digest")
        } else {
            None
        };
        if let Some(what) = what {
            let error = self.mismatch(what);
            self.abort().await?;
            return Err(error);
        }
        let complete = self.parts.complete().await?;
        match complete.place().await {
            Ok(true) => Ok(true),
            // Names of uploads say their digest, so what is there is the same blob.
            Ok(false) => complete.remove().await.map(|()| false),
            Err(error) => {
                complete.remove().await?;
                Err(error)
            }
        }
    }

    /// Gives up and removes what was written.
    pub async fn abort(self) -> Result<(), BlobError> {
        self.parts.abort().await
    }

    fn mismatch(&self, what: &'static str) -> BlobError {
        BlobError::Mismatch { path: self.parts.path().clone(), what }
    }
}
