//! Bytes on their way from a blob to a tree: counted, hashed, decompressed, bounded.

use super::archive::Source;
use super::manifest::{Compression, Layer, Reference};
use super::{BlobReader, ImageError, refused, shown};
use crate::limits::ZSTD_WINDOW_LOG;
use aws_lc_rs::digest::{Context, SHA256};
use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use vocabulary::Sha256Digest;

/// Refuses a stream that is longer than its limit, and hashes what passes.
struct Counted {
    inner: Box<dyn Read>,
    hash: Context,
    read: u64,
    limit: u64,
    /// What is said of a stream that goes on after its limit.
    over: Box<dyn Fn() -> ImageError>,
    /// What is said when reading fails, unless an error of our own is inside.
    failed: Box<dyn Fn(io::Error) -> ImageError>,
}

impl Counted {
    fn digest(&self) -> Sha256Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.hash.clone().finish().as_ref());
        Sha256Digest::from_bytes(bytes)
    }
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match self.inner.read(into) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(io::Error::other(unwrapped(error, &self.failed))),
        };
        let bytes = into.get(..read).unwrap_or_default();
        self.hash.update(bytes);
        self.read = self.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if self.read > self.limit {
            return Err(io::Error::other((self.over)()));
        }
        Ok(read)
    }
}

/// Finds our own error in one of the standard library.
pub(super) fn unwrapped(error: io::Error, otherwise: impl FnOnce(io::Error) -> ImageError) -> ImageError {
    error.downcast::<ImageError>().unwrap_or_else(otherwise)
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Counted>>);

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(into)
    }
}

/// Says that a blob has another length or digest than its descriptor.
fn corrupt(digest: Sha256Digest, detail: impl Into<String>) -> ImageError {
    ImageError::Corrupt { digest: digest.to_string(), detail: detail.into() }
}

fn open(blobs: &BlobReader<'_>, digest: Sha256Digest, limit: u64, over: Box<dyn Fn() -> ImageError>) -> Result<Counted, ImageError> {
    let failed = move |source| ImageError::Io { what: format!("read blob `{digest}`"), source };
    let inner = blobs(digest).map_err(|error| unwrapped(error, failed))?;
    Ok(Counted { inner, hash: Context::new(&SHA256), read: 0, limit, over, failed: Box::new(failed) })
}

/// Reads a small blob whole. `size` is what its descriptor says, if there is one.
pub(super) fn document(blobs: &BlobReader<'_>, digest: Sha256Digest, size: Option<u64>, what: &'static str) -> Result<Vec<u8>, ImageError> {
    let most = crate::limits::MANIFEST_BYTES;
    let budget = move || ImageError::Budget { layer: 0, limit: format!("{most} bytes of an {what}") };
    if size.is_some_and(|size| size > most) {
        return Err(budget());
    }
    let over: Box<dyn Fn() -> ImageError> = match size {
        Some(size) => Box::new(move || corrupt(digest, format!("longer than its {size} bytes"))),
        None => Box::new(budget),
    };
    let mut stream = open(blobs, digest, size.unwrap_or(most), over)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| unwrapped(error, |source| ImageError::Io { what: format!("read the {what}"), source }))?;
    if size.is_some_and(|size| stream.read != size) {
        return Err(corrupt(digest, format!("{} bytes instead of {}", stream.read, size.unwrap_or_default())));
    }
    if stream.digest() != digest {
        return Err(corrupt(digest, format!("the bytes have the digest `{}`", stream.digest())));
    }
    Ok(bytes)
}

/// A layer's bytes: its archive, and below it the blob.
pub(super) struct LayerStream {
    number: usize,
    blob: Reference,
    below: Shared,
    archive: Counted,
}

impl LayerStream {
    /// `left` bounds the bytes after decompression, `ratio` says how many times larger than the blob they may be,
    /// `free` up to where that does not matter.
    pub(super) fn open(blobs: &BlobReader<'_>, number: usize, layer: &Layer, left: u64, ratio: u64, free: u64) -> Result<Self, ImageError> {
        let Reference { digest, size } = layer.blob;
        let raw = open(blobs, digest, size, Box::new(move || corrupt(digest, format!("longer than its {size} bytes"))))?;
        let below = Shared(Rc::new(RefCell::new(raw)));
        let failed = move |error: io::Error| {
            if layer_window(&error) {
                return ImageError::Budget { layer: number, limit: format!("zstd window of 2^{ZSTD_WINDOW_LOG} bytes") };
            }
            refused(format!("layer {number}: {}", shown(error.to_string().as_bytes())))
        };
        let inner: Box<dyn Read> = match layer.compression {
            Compression::None => Box::new(below.clone()),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(64 << 10, below.clone()))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(below.clone()).map_err(failed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
                Box::new(decoder)
            }
        };
        let swollen = size.saturating_mul(ratio).max(free);
        let over: Box<dyn Fn() -> ImageError> = if swollen < left {
            Box::new(move || ImageError::Budget { layer: number, limit: format!("{swollen} bytes, which is {ratio} times its blob,") })
        } else {
            Box::new(move || ImageError::Budget { layer: number, limit: format!("{left} bytes of all layers") })
        };
        let archive = Counted { inner, hash: Context::new(&SHA256), read: 0, limit: left.min(swollen), over, failed: Box::new(failed) };
        Ok(Self { number, blob: layer.blob, below, archive })
    }

    /// Reads what is left and compares size, digest and `diff_id`. Gives the bytes after decompression.
    pub(super) fn finish(mut self, diff_id: Sha256Digest) -> Result<u64, ImageError> {
        let number = self.number;
        if let Err(error) = io::copy(&mut self.archive, &mut io::sink()) {
            let error = unwrapped(error, |error| refused(format!("layer {number}: {error}")));
            return Err(self.blame(error));
        }
        self.verify()?;
        if self.archive.digest() != diff_id {
            return Err(corrupt(diff_id, format!("layer {number} uncompressed has the digest `{}`", self.archive.digest())));
        }
        Ok(self.archive.read)
    }

    /// What to say of a layer that could not be read: when the blob is not the one that was asked for, that.
    pub(super) fn blame(self, error: ImageError) -> ImageError {
        match &error {
            ImageError::Refused(_) | ImageError::Entry { .. } => self.verify().err().unwrap_or(error),
            ImageError::DockerArchive(_) | ImageError::Corrupt { .. } | ImageError::Budget { .. } | ImageError::Io { .. } => error,
        }
    }

    fn verify(&self) -> Result<(), ImageError> {
        let Reference { digest, size } = self.blob;
        io::copy(&mut self.below.clone(), &mut io::sink())
            .map_err(|error| unwrapped(error, |source| ImageError::Io { what: format!("read blob `{digest}`"), source }))?;
        let below = self.below.0.borrow();
        if below.read != size {
            return Err(corrupt(digest, format!("{} bytes instead of {size}", below.read)));
        }
        if below.digest() != digest {
            return Err(corrupt(digest, format!("the bytes have the digest `{}`", below.digest())));
        }
        Ok(())
    }
}

/// The decoder names its errors by texts alone.
fn layer_window(error: &io::Error) -> bool {
    error.to_string().contains("too much memory")
}

impl Read for LayerStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.archive.read(into)
    }
}

impl Source for LayerStream {
    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        let mut buffer = [0; 8 << 10];
        while count > 0 {
            let most = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            match self.archive.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")),
                Ok(read) => count = count.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
