//! What `put`, `get` and `verify` do: files in, sealed objects out, and back. Memory is bounded at any size.
//!
//! Objects go through a port; the commit of the root is the caller's.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt as _};
use vocabulary::Sha256Digest;

use crate::limits::FILES_MAX;
use crate::name;
use crate::segment::SegmentError;

mod buffers;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

/// Where objects lie: create-only names.
pub trait ObjectPort: Send + Sync {
    /// Stores a new object.
    fn put(&self, path: String, bytes: Bytes) -> impl Future<Output = Result<(), PortError>> + Send;
    /// Reads an object whole; `None` when there is none.
    fn get(&self, path: String) -> impl Future<Output = Result<Option<Bytes>, PortError>> + Send;
    /// Reads an object whole into a buffer that is used again; false when there is none.
    fn get_into(&self, path: String, buffer: &mut Vec<u8>) -> impl Future<Output = Result<bool, PortError>> + Send {
        async {
            let found = self.get(path).await?;
            let there = found.is_some();
            // Without a copy where nobody else holds the bytes.
            *buffer = found.map(Vec::from).unwrap_or_default();
            Ok(there)
        }
    }
}

/// The port failed; nothing is known of the object.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

/// What was found wrong with the stored data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// An object is not there.
    #[error("missing: `{0}` is not in the store")]
    Missing(String),
    /// An object was changed, cut or swapped.
    #[error("tampered: `{object}`: {kind}")]
    Tampered {
        /// The object.
        object: String,
        /// What kind of damage.
        kind: SegmentError,
    },
    /// An object has another length than the signed one.
    #[error("truncated or grown: `{object}` has {found} bytes, signed are {signed}")]
    Length {
        /// The object.
        object: String,
        /// Its bytes.
        found: u64,
        /// What the signed state says.
        signed: u64,
    },
    /// The record in the store is not the one that the control plane anchored.
    #[error("rolled back or forked: the store has root {found} at sequence {seq}, the control plane anchored {anchored}")]
    RolledBack {
        /// The sequence.
        seq: u64,
        /// The root in the store.
        found: Sha256Digest,
        /// The anchored one.
        anchored: Sha256Digest,
    },
    /// The record is not signed by the registered signer.
    #[error("foreign signer: the root of sequence {0} is not signed by the key that was registered for its writer epoch")]
    ForeignSigner(u64),
    /// The record is malformed or of another volume.
    #[error("the root record of sequence {0} is malformed or of another volume")]
    Record(u64),
    /// Catalogue, manifests and segments do not make the signed state.
    #[error("the catalogue and manifests in the store are not those that the signed root names")]
    State,
    /// A list inside is malformed though it was sealed.
    #[error("`{0}` does not hold what it should")]
    List(String),
}

/// Why an operation ended.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The stored data is damaged.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The port failed.
    #[error("the object store: {0}")]
    Port(#[from] PortError),
    /// A local file failed.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A name is refused.
    #[error(transparent)]
    Name(#[from] name::NameError),
    /// Sealing was refused.
    #[error("sealing: {0}")]
    Seal(#[from] SegmentError),
    /// Too many files for the first form.
    #[error("a volume has at most {FILES_MAX} files in this version")]
    TooManyFiles,
    /// There is no such file.
    #[error("the volume has no file `{0}`")]
    NoFile(String),
    /// A thread of our own ended early.
    #[error("a thread of this program ended early: {0}")]
    Thread(String),
    /// A file grew or shrank while it was read.
    #[error("`{0}` changed while it was read: put it again")]
    Changed(String),
}

/// Told as work goes on: the file, and bytes since the last time.
pub type Progress<'a> = &'a (dyn Fn(&str, u64) + Send + Sync);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn segment_path(id: &[u8; 16]) -> String {
    format!("seg/{}", hex(id))
}

async fn fetch<P: ObjectPort>(port: &P, path: &str) -> Result<Bytes, IoError> {
    port.get(path.to_owned()).await?.ok_or_else(|| Damage::Missing(path.to_owned()).into())
}

/// Work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IoError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| IoError::Thread(error.to_string()))
}

/// Waits for `work` while the transfers that are on their way go on; what they yield is handed on.
async fn beside<T, S: Stream + Unpin>(work: impl Future<Output = T>, transfers: &mut S, mut done: impl FnMut(S::Item)) -> T {
    let mut work = pin!(work);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            next = transfers.next(), if open => match next {
                Some(item) => done(item),
                None => open = false,
            },
        }
    }
}
