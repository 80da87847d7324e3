//! Writing: read, seal and send, each beside the others.

use std::collections::BTreeMap;
use std::io::Read;

use futures::stream::{FuturesUnordered, StreamExt as _};
use keys::{Random, SigningKey};
use vocabulary::UnixTime;

use super::buffers::Buffers;
use super::{IoError, ObjectPort, PortError, Progress, Reader, beside, blocking, hex, segment_path};
use crate::catalogue::{Extent, FileEntry, Manifest};
use crate::limits::{CHUNK, FILES_MAX};
use crate::name;
use crate::root::{Root, RootRecord, state};
use crate::segment::{Chunk, Draft, Kind, Label, SegmentError, SegmentKeys, seal};

/// Writes the next state of a volume: files are added or replaced, then [`Writer::finish`] signs the root.
#[derive(Debug)]
pub struct Writer<'a, P> {
    reader: Reader<'a, P>,
    writer_epoch: u64,
    signer: SigningKey,
    buffers: Buffers,
}

impl<'a, P: ObjectPort> Writer<'a, P> {
    /// Begins from an opened volume, under one writer epoch with its one signer.
    #[must_use]
    pub fn new(reader: Reader<'a, P>, writer_epoch: u64, signer: SigningKey) -> Self {
        Self { reader, writer_epoch, signer, buffers: Buffers::default() }
    }

    /// Seals a file from a source of a known length. While a segment is read and sealed, those before it are on their way.
    ///
    /// # Errors
    /// When the name is refused, the source has another length, or the port fails.
    pub async fn add<R: Read + Send + 'static>(
        &mut self,
        name: &str,
        length: u64,
        mtime: u64,
        mut source: R,
        random: &mut dyn Random,
        progress: Progress<'_>,
    ) -> Result<(), IoError> {
        name::check(name)?;
        let (port, keys) = (self.reader.port, self.reader.keys);
        let object = self.reader.catalogue.next_object;
        self.reader.catalogue.next_object = object.saturating_add(1);
        let mut extents = Vec::new();
        let mut uploads = FuturesUnordered::new();
        let mut told = Told { name, progress, failed: None };
        let mut at = 0_u64;
        loop {
            let buffer = self.buffers.take(&mut uploads, |done| told.note(done)).await;
            if let Some(error) = told.failed {
                return Err(error.into());
            }
            let reading = blocking(move || {
                let mut draft = Draft::new(buffer);
                let read = draft.fill(&mut source);
                (draft, source, read)
            });
            let (draft, same, read) = beside(reading, &mut uploads, |done| told.note(done)).await?;
            source = same;
            read.map_err(|source| IoError::File { path: name.to_owned(), source })?;
            let (plain, chunks) = (draft.plain() as u64, draft.chunks());
            if plain == 0 {
                self.buffers.give(draft.into_buffer());
                break;
            }
            let id: [u8; 16] = random.array();
            let label = Label { kind: Kind::Data, writer_epoch: self.writer_epoch, id, name: &id };
            let draft = draft.finalise(keys, label, random)?;
            let sealed = beside(blocking(move || draft.seal(object, at)), &mut uploads, |done| told.note(done)).await??;
            extents.push(Extent {
                offset: at,
                segment: id,
                first: 0,
                chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
                root: sealed.root,
                size: sealed.bytes.len() as u64,
            });
            at = at.saturating_add(plain);
            if at > length {
                return Err(IoError::Changed(name.to_owned()));
            }
            let bytes = self.buffers.lend(sealed.bytes);
            uploads.push(async move { port.put(segment_path(&id), bytes).await.map(|()| plain) });
        }
        while let Some(done) = uploads.next().await {
            told.note(done);
        }
        if let Some(error) = told.failed {
            return Err(error.into());
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

/// What became of the uploads of a file.
struct Told<'a> {
    name: &'a str,
    progress: Progress<'a>,
    failed: Option<PortError>,
}

impl Told<'_> {
    fn note(&mut self, done: Result<u64, PortError>) {
        match done {
            Ok(bytes) => (self.progress)(self.name, bytes),
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
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
