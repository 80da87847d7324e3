//! Bytes of a new blob as they come, under another name until all of them are there.

use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::stream::StreamExt as _;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use vocabulary::fault::{self, Point};

use super::{BlobError, BlobPath, Blobs, UPLOADS, classify, object};
use crate::limits::{BLOB_MAX, UPLOAD_PART};

/// The parts of a blob, under a temporary name.
pub(super) struct Parts {
    blobs: Blobs,
    parts: Box<dyn MultipartUpload>,
    temporary: BlobPath,
    path: BlobPath,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Parts {
    pub(super) async fn begin(blobs: &Blobs, path: &BlobPath) -> Result<Self, BlobError> {
        let number = blobs.uploads.fetch_add(1, Ordering::Relaxed);
        let temporary = BlobPath::own(format!("{UPLOADS}/{:016x}-{number}", blobs.process));
        let parts = blobs.store.put_multipart(&object(&temporary)).await.map_err(|error| classify(path, error))?;
        Ok(Self { blobs: blobs.clone(), parts, temporary, path: path.clone(), waiting: Vec::new(), waiting_bytes: 0 })
    }

    pub(super) const fn path(&self) -> &BlobPath {
        &self.path
    }

    /// Takes the next bytes without copying them; less than one part of them waits in memory.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(UPLOAD_PART.saturating_sub(self.waiting_bytes).min(bytes.len()));
            self.waiting_bytes = self.waiting_bytes.saturating_add(piece.len());
            self.waiting.push(piece);
            if self.waiting_bytes >= UPLOAD_PART {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        if self.waiting_bytes == 0 {
            return Ok(());
        }
        self.waiting_bytes = 0;
        let part: PutPayload = std::mem::take(&mut self.waiting).into_iter().collect();
        self.parts.put_part(part).await.map_err(|error| classify(&self.path, error))
    }

    /// Has everything on the disk, under the temporary name.
    pub(super) async fn complete(mut self) -> Result<Complete, BlobError> {
        self.flush().await?;
        self.parts.complete().await.map_err(|error| classify(&self.path, error))?;
        fault::reached(Point::ObjectComplete);
        Ok(Complete { blobs: self.blobs, temporary: self.temporary, path: self.path })
    }

    /// Gives up and removes what was written.
    pub(super) async fn abort(mut self) -> Result<(), BlobError> {
        self.parts.abort().await.map_err(|error| classify(&self.path, error))
    }
}

/// A blob whose bytes are on the disk, but not under its name.
#[derive(Debug)]
pub(super) struct Complete {
    blobs: Blobs,
    temporary: BlobPath,
    path: BlobPath,
}

impl Complete {
    /// Gives the blob its name. False when the name is taken; the bytes then stay.
    pub(super) async fn place(&self) -> Result<bool, BlobError> {
        match self.blobs.store.rename_if_not_exists(&object(&self.temporary), &object(&self.path)).await {
            Ok(()) => {
                fault::reached(Point::ObjectPlaced);
                Ok(true)
            }
            Err(error) => {
                let error = classify(&self.path, error);
                if matches!(error, BlobError::Exists(_)) { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Removes the bytes.
    pub(super) async fn remove(self) -> Result<(), BlobError> {
        self.blobs.delete(&self.temporary).await
    }

    /// Whether the blob of this name has these bytes.
    async fn is_there(&self) -> Result<bool, BlobError> {
        Ok(digest(&self.blobs, &self.temporary).await? == digest(&self.blobs, &self.path).await?)
    }
}

/// Size and digest of a blob.
async fn digest(blobs: &Blobs, path: &BlobPath) -> Result<(u64, [u8; 32]), BlobError> {
    let (size, mut pieces) = blobs.stream(path, None).await?;
    let mut hash = Context::new(&SHA256);
    while let Some(piece) = pieces.next().await {
        hash.update(&piece?);
    }
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(hash.finish().as_ref()).for_each(|(byte, value)| *byte = *value);
    Ok((size, bytes))
}

/// A new blob of bounded size that arrives in pieces. Dropping it leaves nothing under the blob's name.
#[derive(Debug)]
pub struct Staged {
    parts: Parts,
    written: usize,
}

/// What became of a name.
#[derive(Debug)]
pub enum Placed {
    /// The blob has its name, or had it already with the same bytes.
    Done,
    /// The name has other bytes.
    Differs(Rival),
}

/// A blob whose name has other bytes: it may take its place, or go.
#[derive(Debug)]
pub struct Rival(Complete);

impl Blobs {
    /// Begins a new blob.
    pub async fn stage(&self, path: &BlobPath) -> Result<Staged, BlobError> {
        Ok(Staged { parts: Parts::begin(self, path).await?, written: 0 })
    }
}

impl Staged {
    /// Takes the next bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.written = self.written.saturating_add(bytes.len());
        if self.written > BLOB_MAX {
            return Err(BlobError::TooLarge { path: self.parts.path().clone(), size: self.written as u64, limit: BLOB_MAX as u64 });
        }
        self.parts.write(bytes).await
    }

    /// Gives the blob its name: once this returns, its bytes and its name are on the disk.
    pub async fn place(self) -> Result<Placed, BlobError> {
        let complete = self.parts.complete().await?;
        if complete.place().await? {
            return Ok(Placed::Done);
        }
        match complete.is_there().await {
            Ok(true) => complete.remove().await.map(|()| Placed::Done),
            Ok(false) => Ok(Placed::Differs(Rival(complete))),
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
}

impl Rival {
    /// Deletes the blob that has the name, and takes the name.
    pub async fn replace(self) -> Result<(), BlobError> {
        let path = self.0.path.clone();
        self.0.blobs.delete(&path).await?;
        if self.0.place().await? {
            return Ok(());
        }
        self.0.remove().await?;
        Err(BlobError::Exists(path))
    }

    /// Gives up and removes the bytes.
    pub async fn abort(self) -> Result<(), BlobError> {
        self.0.remove().await
    }
}
