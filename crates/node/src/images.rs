//! The cache of unpacked images: fetched by digest, verified, unpacked once however many attempts want one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use futures::stream::{FuturesUnordered, StreamExt as _};
use runtime::image::{self, ImageConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedMutexGuard;
use vocabulary::job::AttemptId;
use vocabulary::plan::{BlobRef, ImageBlobs};
use vocabulary::{Sha256Digest, channel as paths};

use crate::attempt::Progress;
use crate::channel::{Channel, ChannelError, patiently};
use crate::files;
use crate::limits::{BLOB_BYTES_MAX, BLOBS_AT_ONCE, BLOBS_MAX};

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The control plane refuses.
    #[error("{0}")]
    Channel(#[from] ChannelError),
    /// It offers another image than the job names.
    #[error("the control plane offers image {found}, the job names {asked}")]
    OtherImage {
        /// What was offered.
        found: Sha256Digest,
        /// What the job names.
        asked: Sha256Digest,
    },
    /// Too many or too large blobs.
    #[error("the image has more than {BLOBS_MAX} blobs, or one of more than {BLOB_BYTES_MAX} bytes")]
    Large,
    /// A blob does not have its digest or its size.
    #[error("blob {digest} is not what it should be: {detail}")]
    Blob {
        /// The blob.
        digest: Sha256Digest,
        /// What differs.
        detail: String,
    },
    /// The image breaks a rule.
    #[error("{0}")]
    Image(String),
    /// The disk.
    #[error("{what}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn file(what: &'static str) -> impl FnOnce(io::Error) -> PullError {
    move |source| PullError::File { what, source }
}

/// An unpacked image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The tree, which nothing changes any more.
    pub(crate) root: PathBuf,
    /// What it says about its program.
    pub(crate) config: ImageConfig,
}

/// The cache. Its directory holds `blobs/` while an image is fetched, and for each image `HEX.tree` and `HEX.config`.
#[derive(Debug)]
pub(crate) struct Images {
    dir: PathBuf,
    locks: Mutex<BTreeMap<Sha256Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Takes the directory and removes what a crash left in it; blocks.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, PullError> {
        files::directory(&dir.join("blobs")).map_err(file("make the directory of images"))?;
        image::remove_leftovers(&dir).map_err(|error| PullError::Image(error.to_string()))?;
        for entry in std::fs::read_dir(dir.join("blobs")).map_err(file("read the directory of blobs"))? {
            let path = entry.map_err(file("read the directory of blobs"))?.path();
            std::fs::remove_file(path).map_err(file("remove a left blob"))?;
        }
        Ok(Self { dir, locks: Mutex::default() })
    }

    fn tree(&self, manifest: Sha256Digest) -> PathBuf {
        self.dir.join(format!("{}.tree", manifest.hex()))
    }
    fn config(&self, manifest: Sha256Digest) -> PathBuf {
        self.dir.join(format!("{}.config", manifest.hex()))
    }
    fn blob(&self, digest: Sha256Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.hex())
    }

    /// An image that lies in the cache already; blocks for a small file.
    pub(crate) fn cached(&self, manifest: Sha256Digest) -> Option<Image> {
        let root = self.tree(manifest);
        // The config is written after the tree has its name: both, or nothing.
        let bytes = files::read(&self.config(manifest), runtime::limits::MANIFEST_BYTES).ok()?;
        let config = image::parse_config(&bytes).ok()?;
        root.is_dir().then_some(Image { root, config })
    }

    /// The attempt's image, fetched if it is not there. Waits while another attempt fetches the same.
    pub(crate) async fn ensure(self: &Arc<Self>, channel: &Channel, attempt: AttemptId, asked: Sha256Digest, progress: &Progress) -> Result<Image, PullError> {
        let lock = Arc::clone(self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(asked).or_default());
        let guard = lock.lock_owned().await;
        if let Some(image) = self.cached(asked) {
            return Ok(image);
        }
        let url = paths::attempt(paths::IMAGE, attempt);
        let offered: ImageBlobs = patiently(|| channel.get(&url)).await?;
        if offered.manifest != asked {
            return Err(PullError::OtherImage { found: offered.manifest, asked });
        }
        if offered.blobs.len() > BLOBS_MAX || offered.blobs.iter().any(|blob| blob.size > BLOB_BYTES_MAX) {
            return Err(PullError::Large);
        }
        progress.begin(offered.blobs.iter().map(|blob| blob.size).sum());
        let mut fetching = FuturesUnordered::new();
        let mut waiting = offered.blobs.iter();
        loop {
            while fetching.len() < BLOBS_AT_ONCE
                && let Some(blob) = waiting.next()
            {
                fetching.push(self.fetch(channel, attempt, blob, progress));
            }
            match fetching.next().await {
                Some(done) => done?,
                None => break,
            }
        }
        drop(fetching);
        let images = Arc::clone(self);
        // The lock goes along: whoever gives this attempt up, nobody else unpacks the same image meanwhile.
        tokio::task::spawn_blocking(move || images.unpack(asked, &offered.blobs, guard)).await.map_err(|error| PullError::Image(error.to_string()))?
    }

    async fn fetch(&self, channel: &Channel, attempt: AttemptId, blob: &BlobRef, progress: &Progress) -> Result<(), PullError> {
        let path = self.blob(blob.digest);
        if tokio::fs::metadata(&path).await.is_ok() {
            progress.add(blob.size);
            return Ok(());
        }
        let url = paths::image_blob(attempt, blob.digest);
        let mut backoff = crate::channel::Backoff::default();
        loop {
            match self.download(channel, &url, blob, &path, progress).await {
                Err(PullError::Channel(error)) if error.passes() => {
                    tracing::debug!(%attempt, digest = %blob.digest, %error, "fetching the blob again");
                    backoff.wait().await;
                }
                done => return done,
            }
        }
    }

    async fn download(&self, channel: &Channel, url: &str, blob: &BlobRef, path: &Path, progress: &Progress) -> Result<(), PullError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut out = tokio::fs::File::create(&part).await.map_err(file("create a blob"))?;
        let mut response = channel.open(url).await?;
        let (mut hash, mut size) = (Context::new(&SHA256), 0_u64);
        let wrong = |detail: String| PullError::Blob { digest: blob.digest, detail };
        loop {
            let piece = match response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    progress.take_back(size);
                    return Err(ChannelError::Unreachable(crate::channel::chain(&error)).into());
                }
            };
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            size = size.saturating_add(length);
            if size > blob.size {
                return Err(wrong(format!("it has more than its {} bytes", blob.size)));
            }
            hash.update(&piece);
            out.write_all(&piece).await.map_err(file("write a blob"))?;
            progress.add(length);
        }
        // A connection that breaks is an error above: a body that ends well and early is a lie.
        if size < blob.size {
            return Err(wrong(format!("it has {size} of its {} bytes", blob.size)));
        }
        let found = hash.finish();
        if found.as_ref() != blob.digest.as_bytes() {
            return Err(wrong("its bytes have another digest".to_owned()));
        }
        out.flush().await.map_err(file("write a blob"))?;
        drop(out);
        tokio::fs::rename(&part, path).await.map_err(file("name a blob"))
    }

    fn unpack(&self, manifest: Sha256Digest, blobs: &[BlobRef], guard: OwnedMutexGuard<()>) -> Result<Image, PullError> {
        let reader = |digest: Sha256Digest| -> io::Result<Box<dyn io::Read>> { Ok(Box::new(std::fs::File::open(self.blob(digest))?)) };
        let root = self.tree(manifest);
        let made = (|| {
            if !root.is_dir() {
                image::unpack(&reader, manifest, &root).map_err(|error| PullError::Image(crate::channel::chain(&error)))?;
            }
            let config = config_digest(&files::read(&self.blob(manifest), runtime::limits::MANIFEST_BYTES).map_err(file("read the manifest"))?)?;
            let bytes = files::read(&self.blob(config), runtime::limits::MANIFEST_BYTES).map_err(file("read the image's config"))?;
            files::write_durably(&self.config(manifest), &bytes).map_err(file("keep the image's config"))?;
            self.cached(manifest).ok_or_else(|| PullError::Image("the unpacked image is not readable".to_owned()))
        })();
        // Good or bad, the blobs have served.
        for blob in blobs {
            let _ = files::remove_if_there(&self.blob(blob.digest));
        }
        drop(guard);
        made
    }
}

/// The config that a manifest names. Unpacking has verified the manifest before.
fn config_digest(manifest: &[u8]) -> Result<Sha256Digest, PullError> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        config: Descriptor,
    }
    #[derive(serde::Deserialize)]
    struct Descriptor {
        digest: Sha256Digest,
    }
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|error| PullError::Image(format!("manifest: {error}")))?;
    Ok(manifest.config.digest)
}
