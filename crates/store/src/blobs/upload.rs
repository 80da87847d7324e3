//! Uploads of any size in bounded memory: under another name until size and digest are right.

use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use vocabulary::Sha256Digest;

use super::{BlobError, BlobPath, Blobs, UPLOADS, classify, object};
use crate::limits::{UPLOAD_MAX, UPLOAD_PART};

/// An upload under way. Dropping it leaves nothing under the blob's name.
pub struct Upload {
    store: std::sync::Arc<dyn ObjectStore>,
    parts: Box<dyn MultipartUpload>,
    temporary: BlobPath,
    path: BlobPath,
    digest: Sha256Digest,
    size: u64,
    written: u64,
    hash: Context,
    waiting: BytesMut,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("written", &self.written).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Begins the upload of a blob whose size and digest are known.
    pub async fn upload(&self, path: &BlobPath, digest: Sha256Digest, size: u64) -> Result<Upload, BlobError> {
        if size > UPLOAD_MAX {
            return Err(BlobError::TooLarge { path: path.clone(), size, limit: UPLOAD_MAX });
        }
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let temporary = BlobPath::own(format!("{UPLOADS}/{}-{number}", std::process::id()));
        let parts = self.store.put_multipart(&object(&temporary)).await.map_err(|error| classify(path, error))?;
        Ok(Upload {
            store: self.store.clone(),
            parts,
            temporary,
            path: path.clone(),
            digest,
            size,
            written: 0,
            hash: Context::new(&SHA256),
            waiting: BytesMut::new(),
        })
    }
}

impl Upload {
    /// Takes the next bytes; at most one part of them waits in memory.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), BlobError> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.size {
            return Err(self.mismatch("size"));
        }
        self.hash.update(&bytes);
        while !bytes.is_empty() {
            let room = UPLOAD_PART.saturating_sub(self.waiting.len());
            self.waiting.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.waiting.len() >= UPLOAD_PART {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Checks size and digest and gives the blob its name. Says whether it is new: the same blob may have been there.
    pub async fn finish(mut self) -> Result<bool, BlobError> {
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
        self.flush().await?;
        let failed = |error| classify(&self.path, error);
        self.parts.complete().await.map_err(failed)?;
        match self.store.rename_if_not_exists(&object(&self.temporary), &object(&self.path)).await.map_err(failed) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.store.delete(&object(&self.temporary)).await.map_err(failed)?;
                // Names of uploads say their digest, so what is there is the same blob.
                if matches!(error, BlobError::Exists(_)) { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Gives up and removes what was written.
    pub async fn abort(mut self) -> Result<(), BlobError> {
        self.parts.abort().await.map_err(|error| classify(&self.path, error))
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.waiting).freeze();
        self.parts.put_part(PutPayload::from_bytes(part)).await.map_err(|error| classify(&self.path, error))
    }

    fn mismatch(&self, what: &'static str) -> BlobError {
        BlobError::Mismatch { path: self.path.clone(), what }
    }
}
