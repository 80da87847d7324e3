//! Sealing: from chunks that lie anywhere, or in place in a buffer that is used again.

use std::io::Read;

use keys::aead::{Aes256Gcm, TAG_BYTES};
use keys::derive::key_and_commitment;
use keys::{Random, SigningKey};

use super::{Chunk, ENTRY, HEADER, Kind, LABEL, Label, META_CONTEXT, SIGNATURE, SUITE, Sealed, SegmentError, SegmentKeys, TRAILER, VERSION, aad, nonce, place};
use crate::limits::{CHUNK, CHUNKS_MAX, SEGMENT, SEGMENT_BYTES_MAX};
use crate::merkle;

const CHUNK_LOG2: u8 = 16;
/// A full chunk with its tag.
const SLOT: usize = CHUNK + TAG_BYTES;
const TOO_LONG: SegmentError = SegmentError::Malformed("too long");

/// Bytes of everything in a segment beside its plaintext.
const fn overhead(chunks: usize) -> usize {
    HEADER + chunks * (TAG_BYTES + ENTRY) + TAG_BYTES + TRAILER + SIGNATURE
}

/// One segment's key, and what was sealed under it so far.
struct Sealing {
    cipher: Aes256Gcm,
    kind: Kind,
    count: u32,
    hashes: Vec<[u8; 32]>,
    footer: Vec<u8>,
}

impl Sealing {
    fn begin(keys: &SegmentKeys, label: Label<'_>, chunks: usize, salt: [u8; 32]) -> Result<(Self, [u8; HEADER]), SegmentError> {
        let (version, key_id, dek) = keys.newest().ok_or(SegmentError::KeyVersion(0))?;
        if chunks > CHUNKS_MAX {
            return Err(SegmentError::Malformed("too many chunks"));
        }
        let aad = aad(keys, *key_id, *version, label.kind, CHUNK_LOG2, label.writer_epoch, label.name);
        let (key, commitment) = key_and_commitment(dek, &salt, LABEL, &aad);
        let mut header = [0; HEADER];
        let parts: [&[u8]; 8] = [
            &[VERSION, SUITE],
            key_id.as_bytes(),
            &version.to_be_bytes(),
            &salt,
            &commitment,
            &[label.kind.byte(), CHUNK_LOG2],
            &label.writer_epoch.to_be_bytes(),
            &label.id,
        ];
        // The last 16 bytes are reserved.
        for (byte, value) in header.iter_mut().zip(parts.into_iter().flatten()) {
            *byte = *value;
        }
        let mut hashes = Vec::with_capacity(chunks + 1);
        hashes.push(merkle::leaf(&header));
        let footer = Vec::with_capacity(ENTRY * chunks + TAG_BYTES);
        Ok((Self { cipher: Aes256Gcm::new(&key), kind: label.kind, count: 0, hashes, footer }, header))
    }

    /// Seals the next chunk in its slot: plaintext, then room for the tag. `start` is the slot's place in the segment.
    fn chunk(&mut self, object: u64, offset: u64, start: usize, slot: &mut [u8]) -> Result<(), SegmentError> {
        let plain = slot.len().checked_sub(TAG_BYTES).filter(|plain| (1..=CHUNK).contains(plain));
        let plain = plain.ok_or(SegmentError::Malformed("a chunk has 1 to 65536 bytes"))?;
        let (data, tag) = slot.split_at_mut(plain);
        tag.copy_from_slice(&self.cipher.seal(nonce(self.count, 0), &place(object, offset), data));
        let entry = self.footer.len();
        self.footer.extend_from_slice(&object.to_be_bytes());
        self.footer.extend_from_slice(&offset.to_be_bytes());
        self.footer.extend_from_slice(&u32::try_from(start).map_err(|_| TOO_LONG)?.to_be_bytes());
        self.footer.extend_from_slice(&u32::try_from(slot.len()).map_err(|_| TOO_LONG)?.to_be_bytes());
        self.footer.extend_from_slice(blake3::hash(slot).as_bytes());
        self.hashes.push(merkle::leaf(self.footer.get(entry..).unwrap_or_default()));
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Seals the footer behind the chunks, and signs what is signed.
    fn finish(mut self, mut bytes: Vec<u8>, signer: Option<&SigningKey>) -> Result<Sealed, SegmentError> {
        let tag = self.cipher.seal(nonce(self.count, 1), b"", &mut self.footer);
        bytes.extend_from_slice(&self.footer);
        bytes.extend_from_slice(&tag);
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(self.footer.len() + TAG_BYTES).map_err(|_| TOO_LONG)?.to_be_bytes());
        let root = merkle::root(&self.hashes);
        match (self.kind, signer) {
            (Kind::Metadata, Some(signer)) => bytes.extend_from_slice(&signer.sign(&[META_CONTEXT, &root].concat())),
            (Kind::Metadata, None) => return Err(SegmentError::Signature),
            (Kind::Data | Kind::Manifest | Kind::Log | Kind::Catalogue, _) => {}
        }
        if bytes.len() > SEGMENT_BYTES_MAX {
            return Err(TOO_LONG);
        }
        Ok(Sealed { bytes, root })
    }
}

/// Seals a segment from final content, with chunks of 64 KiB. The salt is drawn here, last.
pub fn seal(
    keys: &SegmentKeys,
    label: Label<'_>,
    chunks: &[Chunk<'_>],
    signer: Option<&SigningKey>,
    random: &mut dyn Random,
) -> Result<Sealed, SegmentError> {
    let salt = random.array();
    seal_with_salt(keys, label, chunks, signer, salt)
}

pub(crate) fn seal_with_salt(
    keys: &SegmentKeys,
    label: Label<'_>,
    chunks: &[Chunk<'_>],
    signer: Option<&SigningKey>,
    salt: [u8; 32],
) -> Result<Sealed, SegmentError> {
    let (mut sealing, header) = Sealing::begin(keys, label, chunks.len(), salt)?;
    let plain: usize = chunks.iter().map(|chunk| chunk.data.len()).sum();
    let mut bytes = Vec::with_capacity(plain.saturating_add(overhead(chunks.len())));
    bytes.extend_from_slice(&header);
    for chunk in chunks {
        let start = bytes.len();
        bytes.extend_from_slice(chunk.data);
        bytes.extend_from_slice(&[0; TAG_BYTES]);
        sealing.chunk(chunk.object, chunk.offset, start, bytes.get_mut(start..).unwrap_or_default())?;
    }
    sealing.finish(bytes, signer)
}

/// A data segment in the making: plaintext in its final places of a buffer that is used again, so that sealing copies nothing
/// and the kernel gives no fresh pages.
#[derive(Default)]
pub struct Draft {
    bytes: Vec<u8>,
    plain: usize,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl Draft {
    /// An empty one in a buffer whose content does not matter.
    #[must_use]
    pub const fn new(buffer: Vec<u8>) -> Self {
        Self { bytes: buffer, plain: 0 }
    }

    /// The bytes of plaintext.
    #[must_use]
    pub const fn plain(&self) -> usize {
        self.plain
    }

    /// The chunks.
    #[must_use]
    pub const fn chunks(&self) -> usize {
        self.plain.div_ceil(CHUNK)
    }

    /// Its buffer, for the next one.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads until the segment is full or the source ends; blocks.
    ///
    /// # Errors
    /// When the source fails.
    pub fn fill(&mut self, source: &mut impl Read) -> std::io::Result<()> {
        while self.plain < SEGMENT {
            let slot = HEADER + self.plain / CHUNK * SLOT;
            if self.bytes.len() < slot + SLOT {
                self.bytes.resize(slot + SLOT, 0);
            }
            let room = self.bytes.get_mut(slot + self.plain % CHUNK..slot + CHUNK).unwrap_or_default();
            match source.read(room) {
                Ok(0) => break,
                Ok(read) => self.plain += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Declares the content final: draws the salt and derives the key. What is left needs no secret but that one.
    ///
    /// # Errors
    /// When there is no key.
    pub fn finalise(self, keys: &SegmentKeys, label: Label<'_>, random: &mut dyn Random) -> Result<Final, SegmentError> {
        let (sealing, header) = Sealing::begin(keys, label, self.chunks(), random.array())?;
        Ok(Final { draft: self, sealing, header })
    }
}

/// A segment with its salt and key, ready to be sealed once.
pub struct Final {
    draft: Draft,
    sealing: Sealing,
    header: [u8; HEADER],
}

impl std::fmt::Debug for Final {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Final").field("draft", &self.draft).finish_non_exhaustive()
    }
}

impl Final {
    /// Seals the content, which begins at `offset` of the object, where it lies.
    ///
    /// # Errors
    /// None that a draft can cause.
    pub fn seal(self, object: u64, offset: u64) -> Result<Sealed, SegmentError> {
        let Self { draft: Draft { mut bytes, plain }, mut sealing, header } = self;
        let chunks = plain.div_ceil(CHUNK);
        bytes.resize(HEADER + plain + chunks * TAG_BYTES, 0);
        bytes.reserve(ENTRY * chunks + TAG_BYTES + TRAILER);
        let (first, slots) = bytes.split_at_mut(HEADER);
        first.copy_from_slice(&header);
        for (index, slot) in slots.chunks_mut(SLOT).enumerate() {
            let at = offset.saturating_add((index * CHUNK) as u64);
            sealing.chunk(object, at, HEADER + index * SLOT, slot)?;
        }
        sealing.finish(bytes, None)
    }
}
