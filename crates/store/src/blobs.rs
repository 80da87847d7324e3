//! Blobs: sealed segments, images, audit tiles. Only through `object_store`, so that the place may be a bucket later.
//!
//! A name is written once and its bytes never change. What is written is on disk when the answer comes; what is deleted
//! may come back after a power loss, which is harmless because no name is used twice.

mod path;
mod staged;
mod upload;

pub use path::{BlobPath, PathError};
pub use staged::{Placed, Rival, Staged};
pub use upload::Upload;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::limits::{BLOB_LIST_MAX, BLOB_MAX, READ_PIECE, UPLOAD_KEPT};

/// The folder in which uploads lie until they are complete.
const UPLOADS: &str = "uploads";

/// Why something with a blob failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob.
    #[error("there is no blob `{0}`")]
    Absent(BlobPath),
    /// The name was used before.
    #[error("the blob `{0}` exists already; a name is written once")]
    Exists(BlobPath),
    /// The name was used before, for other bytes.
    #[error("the blob `{0}` exists with other bytes")]
    Differs(BlobPath),
    /// Larger than the limit.
    #[error("the blob `{path}` has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Which.
        path: BlobPath,
        /// Its size, as far as it is known.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The range lies outside.
    #[error("bytes {} to {} of the blob `{path}` do not exist", range.start, range.end)]
    Range {
        /// Which.
        path: BlobPath,
        /// What was asked for.
        range: Range<u64>,
    },
    /// The bytes are not those that were announced.
    #[error("the upload of `{path}` does not have the announced {what}; nothing was kept")]
    Mismatch {
        /// Which.
        path: BlobPath,
        /// `size` or `digest`.
        what: &'static str,
    },
    /// The disk is full.
    #[error("the disk of the blobs is full; make room, nothing that was acknowledged is lost")]
    Full,
    /// The store refused or failed.
    #[error("the blob store failed")]
    Store(#[source] object_store::Error),
    /// The folder cannot be used.
    #[error("the folder `{path}` of the blobs cannot be used")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A blob in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub path: BlobPath,
    /// Its size in bytes.
    pub size: u64,
}

/// The blobs of a deployment.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    process: u64,
    uploads: Arc<std::sync::atomic::AtomicU64>,
}

impl Blobs {
    /// Blobs in a local folder, made with mode 0700. What interrupted uploads left is removed.
    pub fn local(folder: &Path) -> Result<Self, BlobError> {
        let failed = |source| BlobError::Folder { path: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        match std::fs::remove_dir_all(folder.join(UPLOADS)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        Self::within(folder)
    }

    /// Blobs in a folder that other processes use too. What interrupted uploads left is removed when it is a day old: a
    /// younger one may be another's, under way.
    pub fn shared(folder: &Path, now: vocabulary::UnixTime) -> Result<Self, BlobError> {
        let failed = |source| BlobError::Folder { path: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let now = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(now.millis()));
        match std::fs::read_dir(folder.join(UPLOADS)) {
            Ok(uploads) => {
                for upload in uploads {
                    let upload = upload.map_err(failed)?;
                    let removed = upload.metadata().and_then(|metadata| metadata.modified()).and_then(|changed| {
                        let age = now.and_then(|now| now.duration_since(changed).ok()).unwrap_or_default();
                        if age >= UPLOAD_KEPT { std::fs::remove_file(upload.path()) } else { Ok(()) }
                    });
                    match removed {
                        // Another process ended this upload, or removed it, since the folder was read.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        removed => removed.map_err(failed)?,
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        Self::within(folder)
    }

    fn within(folder: &Path) -> Result<Self, BlobError> {
        let store = LocalFileSystem::new_with_prefix(folder).map_err(BlobError::Store)?.with_fsync(true);
        // Names of uploads of several processes differ, on one machine and on several.
        let mut process = [0; 8];
        let random = |_| BlobError::Folder { path: folder.to_owned(), source: std::io::Error::other("no randomness") };
        aws_lc_rs::rand::fill(&mut process).map_err(random)?;
        Ok(Self { store: Arc::new(store), process: u64::from_be_bytes(process), uploads: Arc::default() })
    }

    /// Writes a new blob.
    pub async fn put(&self, path: &BlobPath, bytes: Bytes) -> Result<(), BlobError> {
        self.write(path, bytes, PutMode::Create).await
    }

    /// Writes a blob in the place of what was there: readers see the old bytes or the new ones, never a mixture.
    pub async fn replace(&self, path: &BlobPath, bytes: Bytes) -> Result<(), BlobError> {
        self.write(path, bytes, PutMode::Overwrite).await
    }

    async fn write(&self, path: &BlobPath, bytes: Bytes, mode: PutMode) -> Result<(), BlobError> {
        let size = bytes.len();
        if size > BLOB_MAX {
            return Err(BlobError::TooLarge { path: path.clone(), size: size as u64, limit: BLOB_MAX as u64 });
        }
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&object(path), PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(()),
            Err(error) => Err(classify(path, error)),
        }
    }

    /// Writes a blob, or finds it there with the same bytes: for what is made again after a crash.
    pub async fn put_same(&self, path: &BlobPath, bytes: Bytes) -> Result<(), BlobError> {
        match self.put(path, bytes.clone()).await {
            Err(BlobError::Exists(_)) => {
                let there = self.get(path, BLOB_MAX).await?;
                if there == bytes { Ok(()) } else { Err(BlobError::Differs(path.clone())) }
            }
            done => done,
        }
    }

    /// Reads a blob whole, if it has at most so many bytes.
    pub async fn get(&self, path: &BlobPath, max: usize) -> Result<Bytes, BlobError> {
        let (size, mut chunks) = self.stream(path, None).await?;
        let too_large = |size| BlobError::TooLarge { path: path.clone(), size, limit: max as u64 };
        if size > max as u64 {
            return Err(too_large(size));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            // The size was told before; a store that sends more is not believed.
            if bytes.len().saturating_add(chunk.len()) > max {
                return Err(too_large(size));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// Reads a part of a blob: exactly these bytes, at most [`BLOB_MAX`].
    pub async fn range(&self, path: &BlobPath, range: Range<u64>) -> Result<Bytes, BlobError> {
        let outside = || BlobError::Range { path: path.clone(), range: range.clone() };
        let wanted = range.end.checked_sub(range.start).filter(|wanted| *wanted > 0).ok_or_else(outside)?;
        if wanted > BLOB_MAX as u64 {
            return Err(BlobError::TooLarge { path: path.clone(), size: wanted, limit: BLOB_MAX as u64 });
        }
        if range.end > self.size(path).await? {
            return Err(outside());
        }
        let bytes = self.store.get_range(&object(path), range.clone()).await.map_err(|error| classify(path, error))?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(outside()) }
    }

    /// Reads a blob of any size piece by piece, from an offset on; the size is that of the whole blob.
    pub async fn stream(
        &self,
        path: &BlobPath,
        offset: Option<u64>,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, BlobError>> + Send + Unpin + use<>), BlobError> {
        let options = GetOptions { range: offset.map(GetRange::Offset), ..GetOptions::default() };
        let found = self.store.get_opts(&object(path), options).await.map_err(|error| classify(path, error))?;
        let size = found.meta.size;
        let path = path.clone();
        // A local file is read in large pieces, one of them ahead of what is asked for: the crate's own are 8 KiB each.
        let pieces = match found.payload {
            GetResultPayload::File(file, _) => pieces(file, found.range).boxed(),
            GetResultPayload::Stream(stream) => stream,
        };
        Ok((size, pieces.map_err(move |error| classify(&path, error)).boxed()))
    }

    /// The size of a blob.
    pub async fn size(&self, path: &BlobPath) -> Result<u64, BlobError> {
        self.store.head(&object(path)).await.map(|meta| meta.size).map_err(|error| classify(path, error))
    }

    /// Whether there is such a blob.
    pub async fn exists(&self, path: &BlobPath) -> Result<bool, BlobError> {
        match self.size(path).await {
            Ok(_) => Ok(true),
            Err(BlobError::Absent(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Blobs below a folder that come after a name, in the order of names, at most `limit` of them.
    pub async fn list(
        &self,
        folder: &BlobPath,
        after: Option<&BlobPath>,
        limit: usize,
    ) -> Result<crate::Paged<BlobEntry>, BlobError> {
        let limit = limit.clamp(1, BLOB_LIST_MAX);
        let mut found = BTreeMap::new();
        let mut all = self.store.list(Some(&object(folder)));
        while let Some(meta) = all.next().await {
            let meta = meta.map_err(|error| classify(folder, error))?;
            // Names that are not ours (another program's, an upload's) are not shown.
            let Ok(path) = meta.location.as_ref().parse::<BlobPath>() else { continue };
            if after.is_some_and(|after| path <= *after) {
                continue;
            }
            found.insert(path, meta.size);
            // Stores list in any order: only the smallest names are kept.
            if found.len() > limit.saturating_add(1) {
                found.pop_last();
            }
        }
        let truncated = found.len() > limit;
        let items = found.into_iter().take(limit).map(|(path, size)| BlobEntry { path, size }).collect();
        Ok(crate::Paged { items, truncated })
    }

    /// Deletes a blob; one that is not there is deleted already.
    pub async fn delete(&self, path: &BlobPath) -> Result<(), BlobError> {
        match self.store.delete(&object(path)).await.map_err(|error| classify(path, error)) {
            Ok(()) | Err(BlobError::Absent(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a range of a file, in pieces.
fn pieces(file: std::fs::File, range: Range<u64>) -> impl Stream<Item = Result<Bytes, object_store::Error>> + Send {
    let file = Arc::new(file);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "LocalFileSystem", source };
    futures::stream::iter(range.clone().step_by(READ_PIECE))
        .map(move |at| {
            let file = Arc::clone(&file);
            let wanted = usize::try_from(range.end.saturating_sub(at)).unwrap_or(READ_PIECE).min(READ_PIECE);
            async move {
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; wanted];
                    file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
                });
                match read.await {
                    Ok(Ok(piece)) => Ok(piece),
                    Ok(Err(error)) => Err(failed(error.into())),
                    Err(error) => Err(failed(error.into())),
                }
            }
        })
        .buffered(2)
}

fn object(path: &BlobPath) -> ObjectPath {
    ObjectPath::from(path.as_str())
}

fn classify(path: &BlobPath, error: object_store::Error) -> BlobError {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return BlobError::Absent(path.clone());
    }
    if matches!(error, object_store::Error::AlreadyExists { .. }) {
        return BlobError::Exists(path.clone());
    }
    if is_full(&error) { BlobError::Full } else { BlobError::Store(error) }
}

/// Whether there is a full disk at the bottom of an error.
fn is_full(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}
