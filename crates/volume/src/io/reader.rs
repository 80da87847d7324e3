//! Reading: the signed state first, then the data, several segments at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;

use futures::stream::{FuturesOrdered, StreamExt as _};
use keys::VerifyingKey;
use vocabulary::Sha256Digest;
use vocabulary::volume::RootHead;

use super::{Damage, IoError, ObjectPort, Progress, beside, blocking, fetch, segment_path};
use crate::catalogue::{Catalogue, Extent, FileEntry, Manifest};
use crate::root::{RootRecord, state};
use crate::segment::{Checked, Kind, SegmentError, SegmentKeys, check, open};

/// Segments that are fetched at once; one more is opened meanwhile: 3 × 16 MiB.
const FETCHES: usize = 2;

/// An opened volume: its whole signed state was checked, its data is checked as it is read.
#[derive(Debug)]
pub struct Reader<'a, P> {
    pub(super) port: &'a P,
    pub(super) keys: &'a SegmentKeys,
    pub(super) head: RootHead,
    pub(super) catalogue: Catalogue,
    pub(super) manifests: BTreeMap<u64, Manifest>,
    live: BTreeMap<String, ([u8; 32], u64)>,
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

    /// Writes a file's plaintext, each chunk after it was checked, and gives the writer back. The next segments are fetched
    /// while one is opened.
    ///
    /// # Errors
    /// On the first damage, when the port fails, or the writer; what was written so far is then not the file.
    pub async fn read<W: Write + Send + 'static>(&self, file: &FileEntry, mut out: W, progress: Progress<'_>) -> Result<W, IoError> {
        let manifest = self.manifests.get(&file.object).ok_or_else(|| IoError::NoFile(file.name.clone()))?;
        let mut waiting = manifest.extents.iter();
        let mut fetches = FuturesOrdered::new();
        let mut fetched = VecDeque::new();
        let mut spare = Vec::new();
        let mut at = 0_u64;
        for extent in waiting.by_ref().take(FETCHES) {
            fetches.push_back(self.segment(extent, Vec::new()));
        }
        loop {
            let next = match fetched.pop_front() {
                Some(next) => Some(next),
                None => fetches.next().await,
            };
            let Some(next) = next else { break };
            let (extent, path, buffer) = next?;
            let tampered = |kind| Damage::Tampered { object: path.clone(), kind };
            let checked = check(self.keys, Kind::Data, &extent.segment, &buffer, Some(&extent.root), None).map_err(tampered)?;
            let opening = Opening { checked, first: extent.first, chunks: extent.chunks, object: file.object, at };
            // Another fetch takes the place of this one, which has arrived.
            if let Some(extent) = waiting.next() {
                fetches.push_back(self.segment(extent, spare.pop().unwrap_or_default()));
            }
            let work = blocking(move || opening.write(buffer, out));
            let (written, buffer, same) = match beside(work, &mut fetches, |next| fetched.push_back(next)).await? {
                Ok(done) => done,
                Err(Failure::Damaged(kind)) => return Err(Damage::Tampered { object: path, kind }.into()),
                Err(Failure::Out(source)) => return Err(IoError::File { path: file.name.clone(), source }),
            };
            at = at.saturating_add(written);
            progress(&file.name, written);
            spare.push(buffer);
            out = same;
        }
        if at == file.length { Ok(out) } else { Err(Damage::List(file.path.clone()).into()) }
    }

    /// Fetches a segment, which must have its signed length.
    async fn segment<'e>(&self, extent: &'e Extent, mut buffer: Vec<u8>) -> Result<(&'e Extent, String, Vec<u8>), IoError> {
        let path = segment_path(&extent.segment);
        if !self.port.get_into(path.clone(), &mut buffer).await? {
            return Err(Damage::Missing(path).into());
        }
        let found = buffer.len() as u64;
        if found != extent.size {
            return Err(Damage::Length { object: path, found, signed: extent.size }.into());
        }
        Ok((extent, path, buffer))
    }

    /// Checks every sealed byte. Findings are collected, not only the first.
    pub async fn verify(&self, progress: Progress<'_>) -> Result<Vec<Damage>, IoError> {
        let mut findings = Vec::new();
        for file in &self.catalogue.files {
            match self.read(file, std::io::sink(), progress).await {
                Ok(_) => {}
                Err(IoError::Damage(damage)) => findings.push(damage),
                Err(other) => return Err(other),
            }
        }
        Ok(findings)
    }
}

/// A checked segment whose chunks are opened next.
struct Opening {
    checked: Checked,
    first: u32,
    chunks: u32,
    object: u64,
    at: u64,
}

/// Why the chunks of a segment were not written.
enum Failure {
    Damaged(SegmentError),
    Out(std::io::Error),
}

impl Opening {
    /// Opens chunk by chunk, in place, and writes each; blocks. Gives back the bytes written, the buffer and the writer.
    fn write<W: Write>(self, mut buffer: Vec<u8>, mut out: W) -> Result<(u64, Vec<u8>, W), Failure> {
        let mut written = 0_u64;
        for index in self.first..self.first.saturating_add(self.chunks) {
            let offset = self.at.saturating_add(written);
            let plain = self.checked.open_in_place(&mut buffer, index, self.object, offset).map_err(Failure::Damaged)?;
            out.write_all(plain).map_err(Failure::Out)?;
            written = written.saturating_add(plain.len() as u64);
        }
        Ok((written, buffer, out))
    }
}
