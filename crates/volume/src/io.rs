//! What `put`, `get` and `verify` do: files in, sealed objects out, and back. Memory is bounded at any size.
//!
//! Objects go through a port; the commit of the root is the caller's.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use keys::{Random, SigningKey, VerifyingKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use vocabulary::volume::RootHead;
use vocabulary::{Sha256Digest, UnixTime};

use crate::catalogue::{Catalogue, Extent, FileEntry, Manifest};
use crate::limits::{CHUNK, FILES_MAX, SEGMENT};
use crate::name;
use crate::root::{Root, RootRecord, state};
use crate::segment::{Chunk, Kind, Label, SegmentError, SegmentKeys, open, seal};

/// Segments on their way at once: 4 × 16 MiB.
const IN_FLIGHT: usize = 3;

/// Where objects lie: create-only names.
pub trait ObjectPort: Send + Sync {
    /// Stores a new object.
    fn put(&self, path: String, bytes: Bytes) -> impl Future<Output = Result<(), PortError>> + Send;
    /// Reads an object whole; `None` when there is none.
    fn get(&self, path: String) -> impl Future<Output = Result<Option<Bytes>, PortError>> + Send;
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
    /// A file grew or shrank while it was read.
    #[error("`{0}` changed while it was read: put it again")]
    Changed(String),
}

/// Told as work goes on: the file, and bytes since the last time.
pub type Progress<'a> = &'a (dyn Fn(&str, u64) + Send + Sync);

/// An opened volume: its whole signed state was checked, its data is checked as it is read.
#[derive(Debug)]
pub struct Reader<'a, P> {
    port: &'a P,
    keys: &'a SegmentKeys,
    head: RootHead,
    catalogue: Catalogue,
    manifests: BTreeMap<u64, Manifest>,
    live: BTreeMap<String, ([u8; 32], u64)>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn segment_path(id: &[u8; 16]) -> String {
    format!("seg/{}", hex(id))
}

async fn fetch<P: ObjectPort>(port: &P, path: &str) -> Result<Bytes, IoError> {
    port.get(path.to_owned()).await?.ok_or_else(|| Damage::Missing(path.to_owned()).into())
}

/// Opens all chunks of a small sealed list.
fn open_list(keys: &SegmentKeys, kind: Kind, path: &str, bytes: &[u8], root: Option<&[u8; 32]>) -> Result<(Vec<u8>, [u8; 32]), Damage> {
    let tampered = |kind| Damage::Tampered { object: path.to_owned(), kind };
    let opened = open(keys, kind, path.as_bytes(), bytes, root, None).map_err(tampered)?;
    let mut plain = Vec::new();
    for index in 0..opened.chunks() {
        let offset = plain.len() as u64;
        opened.read(index, 0, offset, &mut plain).map_err(tampered)?;
    }
    Ok((plain, *opened.root()))
}

impl<'a, P: ObjectPort> Reader<'a, P> {
    /// Opens the volume at the anchored head. `signers` are the registered signers by writer epoch.
    pub async fn open(
        port: &'a P,
        keys: &'a SegmentKeys,
        head: &RootHead,
        signers: &BTreeMap<u64, VerifyingKey>,
    ) -> Result<Self, IoError> {
        let mut reader = Self {
            port,
            keys,
            head: head.clone(),
            catalogue: Catalogue { next_object: 1, files: Vec::new() },
            manifests: BTreeMap::new(),
            live: BTreeMap::new(),
        };
        if head.seq == 0 {
            return Ok(reader);
        }
        let record = fetch(port, &format!("chain/{:020}", head.seq)).await?;
        let record = RootRecord::parse(&record).map_err(|_| Damage::Record(head.seq))?;
        let found = Sha256Digest::from_bytes(record.root());
        if found != head.root {
            return Err(Damage::RolledBack { seq: head.seq, found, anchored: head.root }.into());
        }
        let body = record.body();
        if body.tenant != keys.tenant || body.volume != keys.volume || body.lineage != head.lineage || body.seq != head.seq || body.writer_epoch != head.writer_epoch {
            return Err(Damage::Record(head.seq).into());
        }
        let signer = signers.get(&body.writer_epoch).ok_or(Damage::ForeignSigner(head.seq))?;
        record.verify(signer).map_err(|_| Damage::ForeignSigner(head.seq))?;
        let path = format!("cat/{:020}", head.seq);
        let bytes = fetch(port, &path).await?;
        let (plain, root) = open_list(keys, Kind::Catalogue, &path, &bytes, None)?;
        reader.catalogue = Catalogue::parse(&plain).map_err(|_| Damage::List(path.clone()))?;
        reader.live.insert(path, (root, bytes.len() as u64));
        for file in &reader.catalogue.files {
            let bytes = fetch(port, &file.path).await?;
            if bytes.len() as u64 != file.size {
                return Err(Damage::Length { object: file.path.clone(), found: bytes.len() as u64, signed: file.size }.into());
            }
            let (plain, _) = open_list(keys, Kind::Manifest, &file.path, &bytes, Some(&file.manifest))?;
            let manifest = Manifest::parse(&plain).map_err(|_| Damage::List(file.path.clone()))?;
            if manifest.object != file.object || manifest.length != file.length {
                return Err(Damage::List(file.path.clone()).into());
            }
            reader.live.insert(file.path.clone(), (file.manifest, file.size));
            for extent in &manifest.extents {
                reader.live.insert(segment_path(&extent.segment), (extent.root, extent.size));
            }
            reader.manifests.insert(file.object, manifest);
        }
        // Everything that was read so far makes the state that the writer signed, or nothing is believed.
        if state(&reader.live) != body.state {
            return Err(Damage::State.into());
        }
        Ok(reader)
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[FileEntry] {
        &self.catalogue.files
    }

    /// Writes a file's plaintext, each chunk after it was checked.
    pub async fn read<W: AsyncWrite + Unpin>(&self, file: &FileEntry, out: &mut W, progress: Progress<'_>) -> Result<(), IoError> {
        let manifest = self.manifests.get(&file.object).ok_or_else(|| IoError::NoFile(file.name.clone()))?;
        let mut at = 0_u64;
        for extent in &manifest.extents {
            let path = segment_path(&extent.segment);
            let bytes = fetch(self.port, &path).await?;
            if bytes.len() as u64 != extent.size {
                return Err(Damage::Length { object: path, found: bytes.len() as u64, signed: extent.size }.into());
            }
            let tampered = |kind| Damage::Tampered { object: path.clone(), kind };
            let opened = open(self.keys, Kind::Data, &extent.segment, &bytes, Some(&extent.root), None).map_err(tampered)?;
            let mut plain = Vec::with_capacity(CHUNK + 16);
            for index in extent.first..extent.first.saturating_add(extent.chunks) {
                plain.clear();
                let read = opened.read(index, file.object, at, &mut plain).map_err(tampered)? as u64;
                out.write_all(&plain).await.map_err(|source| IoError::File { path: file.name.clone(), source })?;
                at = at.saturating_add(read);
                progress(&file.name, read);
            }
        }
        if at == file.length { Ok(()) } else { Err(Damage::List(file.path.clone()).into()) }
    }

    /// Checks every sealed byte. Findings are collected, not only the first.
    pub async fn verify(&self, progress: Progress<'_>) -> Result<Vec<Damage>, IoError> {
        let mut findings = Vec::new();
        for file in &self.catalogue.files {
            match self.read(file, &mut tokio::io::sink(), progress).await {
                Ok(()) => {}
                Err(IoError::Damage(damage)) => findings.push(damage),
                Err(other) => return Err(other),
            }
        }
        Ok(findings)
    }
}

/// Writes the next state of a volume: files are added or replaced, then [`Writer::finish`] signs the root.
#[derive(Debug)]
pub struct Writer<'a, P> {
    reader: Reader<'a, P>,
    writer_epoch: u64,
    signer: SigningKey,
}

impl<'a, P: ObjectPort> Writer<'a, P> {
    /// Begins from an opened volume, under one writer epoch with its one signer.
    #[must_use]
    pub fn new(reader: Reader<'a, P>, writer_epoch: u64, signer: SigningKey) -> Self {
        Self { reader, writer_epoch, signer }
    }

    /// Seals a file from a stream of a known length.
    pub async fn add<R: AsyncRead + Unpin>(
        &mut self,
        name: &str,
        length: u64,
        mtime: u64,
        source: &mut R,
        random: &mut dyn Random,
        progress: Progress<'_>,
    ) -> Result<(), IoError> {
        name::check(name)?;
        let (port, keys) = (self.reader.port, self.reader.keys);
        let object = self.reader.catalogue.next_object;
        self.reader.catalogue.next_object = object.saturating_add(1);
        let mut extents = Vec::new();
        let mut uploads = FuturesUnordered::new();
        let mut at = 0_u64;
        let mut buffer = vec![0_u8; SEGMENT.min(usize::try_from(length).unwrap_or(SEGMENT)).max(1)];
        loop {
            let filled = fill(source, &mut buffer).await.map_err(|source| IoError::File { path: name.to_owned(), source })?;
            if filled == 0 {
                break;
            }
            let data = buffer.get(..filled).unwrap_or_default();
            let offsets = (at..).step_by(CHUNK);
            let chunks: Vec<Chunk<'_>> = data.chunks(CHUNK).zip(offsets).map(|(data, offset)| Chunk { object, offset, data }).collect();
            let id: [u8; 16] = random.array();
            let label = Label { kind: Kind::Data, writer_epoch: self.writer_epoch, id, name: &id };
            let sealed = seal(keys, label, &chunks, None, random)?;
            extents.push(Extent {
                offset: at,
                segment: id,
                first: 0,
                chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
                root: sealed.root,
                size: sealed.bytes.len() as u64,
            });
            at = at.saturating_add(filled as u64);
            if at > length {
                return Err(IoError::Changed(name.to_owned()));
            }
            let bytes: Bytes = sealed.bytes.into();
            uploads.push(async move { port.put(segment_path(&id), bytes).await.map(|()| filled as u64) });
            if uploads.len() >= IN_FLIGHT
                && let Some(done) = uploads.next().await
            {
                progress(name, done?);
            }
        }
        while let Some(done) = uploads.next().await {
            progress(name, done?);
        }
        if at != length {
            return Err(IoError::Changed(name.to_owned()));
        }
        let manifest = Manifest { object, length, extents };
        let id: [u8; 16] = random.array();
        let path = format!("file/{object}-{}", hex(&id));
        let sealed = seal_list(keys, Kind::Manifest, self.writer_epoch, id, &path, &manifest.to_bytes(), random)?;
        let size = sealed.bytes.len() as u64;
        port.put(path.clone(), sealed.bytes.into()).await?;
        let entry = FileEntry { name: name.to_owned(), object, length, mtime, manifest: sealed.root, path, size };
        let files = &mut self.reader.catalogue.files;
        match files.binary_search_by(|known| known.name.as_str().cmp(name)) {
            Ok(place) => {
                if let Some(old) = files.get_mut(place) {
                    self.reader.manifests.remove(&old.object);
                    *old = entry;
                }
            }
            Err(place) => files.insert(place, entry),
        }
        if files.len() > FILES_MAX {
            return Err(IoError::TooManyFiles);
        }
        self.reader.manifests.insert(object, manifest);
        Ok(())
    }

    /// Writes the catalogue and signs the next root. The caller commits the record by compare-and-set.
    pub async fn finish(self, now: UnixTime, random: &mut dyn Random) -> Result<RootRecord, IoError> {
        let Reader { port, keys, head, catalogue, manifests, .. } = self.reader;
        let seq = head.seq.saturating_add(1);
        let path = format!("cat/{seq:020}");
        let id: [u8; 16] = random.array();
        let sealed = seal_list(keys, Kind::Catalogue, self.writer_epoch, id, &path, &catalogue.to_bytes(), random)?;
        let mut live = BTreeMap::new();
        live.insert(path.clone(), (sealed.root, sealed.bytes.len() as u64));
        for file in &catalogue.files {
            live.insert(file.path.clone(), (file.manifest, file.size));
        }
        for extent in manifests.values().flat_map(|manifest| &manifest.extents) {
            live.insert(segment_path(&extent.segment), (extent.root, extent.size));
        }
        port.put(path, sealed.bytes.into()).await?;
        Ok(RootRecord::sign(
            Root {
                tenant: keys.tenant,
                volume: keys.volume,
                lineage: head.lineage,
                seq,
                writer_epoch: self.writer_epoch,
                prev: *head.root.as_bytes(),
                state: state(&live),
                durable_seq: seq,
                time: now,
            },
            &self.signer,
        ))
    }
}

fn seal_list(
    keys: &SegmentKeys,
    kind: Kind,
    writer_epoch: u64,
    id: [u8; 16],
    path: &str,
    bytes: &[u8],
    random: &mut dyn Random,
) -> Result<crate::segment::Sealed, SegmentError> {
    let chunks: Vec<Chunk<'_>> =
        bytes.chunks(CHUNK).zip((0_u64..).step_by(CHUNK)).map(|(data, offset)| Chunk { object: 0, offset, data }).collect();
    seal(keys, Label { kind, writer_epoch, id, name: path.as_bytes() }, &chunks, None, random)
}

async fn fill<R: AsyncRead + Unpin>(source: &mut R, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let read = source.read(rest).await?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}
