//! The segment: the only sealed container. See `docs/spec/volume.md`; byte for byte, with golden vectors.

use keys::aead::{Aes256Gcm, TAG_BYTES};
use keys::derive::{constant_time_eq, key_and_commitment};
use keys::{PlainKey, VerifyingKey};
use minicbor::Encoder;
use vocabulary::{KeyId, TenantId, VolumeId};

use crate::limits::{CHUNKS_MAX, SEGMENT_BYTES_MAX};
use crate::merkle;

mod sealing;

pub use sealing::{Draft, Final, seal};
#[cfg(test)]
pub(crate) use sealing::seal_with_salt;

const VERSION: u8 = 1;
const SUITE: u8 = 1;
/// Bytes of a header.
pub const HEADER: usize = 128;
const ENTRY: usize = 56;
const TRAILER: usize = 8;
const SIGNATURE: usize = 64;
const LABEL: &[u8] = b"swarm/segment/v1";
const META_CONTEXT: &[u8] = b"swarm/meta/v1";

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Pieces of files.
    Data = 1,
    /// Where the pieces of one file lie.
    Manifest = 2,
    /// A metadata object, signed by the writer.
    Metadata = 3,
    /// Frames of a job's log; the place of the volume's id is taken by the job's.
    Log = 5,
    /// The list of files.
    Catalogue = 6,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Manifest => 2,
            Self::Metadata => 3,
            Self::Log => 5,
            Self::Catalogue => 6,
        }
    }
    fn parse(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Data),
            2 => Some(Self::Manifest),
            3 => Some(Self::Metadata),
            5 => Some(Self::Log),
            6 => Some(Self::Catalogue),
            _ => None,
        }
    }
}

/// Why a segment did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The bytes do not add up: too short, too long, an unknown version, suite or kind, reserved bytes in use.
    #[error("the segment is malformed: {0}")]
    Malformed(&'static str),
    /// It is sealed under a key or version that is not among those given.
    #[error("the segment is sealed under key version {0}, which is not at hand")]
    KeyVersion(u32),
    /// The commitment differs: another key, tenant, volume, name, kind or epoch, or a changed header.
    #[error("the segment is not of this volume, name and key, or its header was changed")]
    Commitment,
    /// The sealed footer was changed.
    #[error("the segment's footer was changed")]
    Footer,
    /// The footer does not lead to the root that was expected.
    #[error("the segment is not the one that the signed root names")]
    Root,
    /// A chunk's bytes differ from their digest.
    #[error("chunk {0} was changed or swapped")]
    Chunk(u32),
    /// A chunk is of another object or offset than asked for.
    #[error("chunk {0} belongs to another place")]
    Place(u32),
    /// There is no such chunk.
    #[error("the segment has no chunk {0}")]
    NoChunk(u32),
    /// The signature of a metadata object is wrong.
    #[error("the segment is not signed by the registered writer")]
    Signature,
}

/// Whose data, under which keys.
#[derive(Debug)]
pub struct SegmentKeys {
    /// The tenant.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeId,
    /// The data keys: version, id, key. The last one seals.
    pub epochs: Vec<(u32, KeyId, PlainKey)>,
}

impl SegmentKeys {
    fn newest(&self) -> Option<&(u32, KeyId, PlainKey)> {
        self.epochs.iter().max_by_key(|(version, ..)| *version)
    }
    fn of(&self, version: u32, id: KeyId) -> Option<&PlainKey> {
        self.epochs.iter().find(|(known, known_id, _)| *known == version && *known_id == id).map(|(.., key)| key)
    }
}

/// A piece of plaintext with its place.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The file's number in the volume.
    pub object: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// 1 to 2^chunk_log2 bytes.
    pub data: &'a [u8],
}

/// A sealed segment and the root that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The bytes of the object.
    pub bytes: Vec<u8>,
    /// RFC 6962 tree hash over header and entries.
    pub root: [u8; 32],
}

/// What is sealed, beside its content.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// The kind.
    pub kind: Kind,
    /// The writer epoch.
    pub writer_epoch: u64,
    /// The segment's id, random.
    pub id: [u8; 16],
    /// What the AAD names: the id for data, the path below the volume's prefix for all else.
    pub name: &'a [u8],
}

fn aad(keys: &SegmentKeys, key: KeyId, version: u32, kind: Kind, chunk_log2: u8, writer_epoch: u64, name: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(128 + name.len()));
    let done: Result<(), minicbor::encode::Error<std::convert::Infallible>> = (|| {
        encoder
            .array(9)?
            .str("swarm/segment/v1")?
            .bytes(keys.tenant.as_bytes())?
            .bytes(keys.volume.as_bytes())?
            .bytes(key.as_bytes())?
            .u32(version)?
            .u8(kind.byte())?
            .u8(chunk_log2)?
            .u64(writer_epoch)?
            .bytes(name)?;
        Ok(())
    })();
    debug_assert!(done.is_ok());
    encoder.into_writer()
}

/// Seven zero bytes, the index, the flag: one key per segment, so no nonce can repeat.
fn nonce(index: u32, flag: u8) -> [u8; 12] {
    let [a, b, c, d] = index.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, a, b, c, d, flag]
}

fn place(object: u64, offset: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&object.to_be_bytes());
    second.copy_from_slice(&offset.to_be_bytes());
    bytes
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    object: u64,
    offset: u64,
    start: usize,
    length: usize,
    digest: [u8; 32],
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// What header, commitment and footer of a segment say, checked; chunks are checked as they are opened.
pub struct Checked {
    cipher: Aes256Gcm,
    entries: Vec<Entry>,
    root: [u8; 32],
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("chunks", &self.entries.len()).finish_non_exhaustive()
    }
}

/// Checks a segment: lengths first, then the commitment in constant time, then the footer, then the root if one is expected.
pub fn check(
    keys: &SegmentKeys,
    kind: Kind,
    name: &[u8],
    bytes: &[u8],
    root: Option<&[u8; 32]>,
    writer: Option<&VerifyingKey>,
) -> Result<Checked, SegmentError> {
    let short = || SegmentError::Malformed("it is too short");
    if bytes.len() > SEGMENT_BYTES_MAX {
        return Err(SegmentError::Malformed("it is too long"));
    }
    let header = bytes.get(..HEADER).ok_or_else(short)?;
    let [version, suite] = array(header, 0).ok_or_else(short)?;
    if version != VERSION {
        return Err(SegmentError::Malformed("its version is unknown"));
    }
    if suite != SUITE {
        return Err(SegmentError::Malformed("its suite is unknown"));
    }
    let key_id = KeyId::from_bytes(array(header, 2).ok_or_else(short)?);
    let key_version = u32::from_be_bytes(array(header, 18).ok_or_else(short)?);
    let [kind_byte, chunk_log2] = array(header, 86).ok_or_else(short)?;
    if Kind::parse(kind_byte) != Some(kind) {
        return Err(SegmentError::Malformed("its kind is another"));
    }
    if !(12..=20).contains(&chunk_log2) {
        return Err(SegmentError::Malformed("its chunk size is out of range"));
    }
    if array::<16>(header, 112) != Some([0; 16]) {
        return Err(SegmentError::Malformed("its reserved bytes are in use"));
    }
    let writer_epoch = u64::from_be_bytes(array(header, 88).ok_or_else(short)?);
    let id: [u8; 16] = array(header, 96).ok_or_else(short)?;
    if kind == Kind::Data && name != id {
        return Err(SegmentError::Commitment);
    }
    let tail = if kind == Kind::Metadata { SIGNATURE } else { 0 };
    let end = bytes.len().checked_sub(TRAILER + tail).ok_or_else(short)?;
    let count = u32::from_be_bytes(array(bytes, end).ok_or_else(short)?);
    let footer_bytes = u32::from_be_bytes(array(bytes, end + 4).ok_or_else(short)?) as usize;
    let chunks = count as usize;
    if chunks > CHUNKS_MAX || footer_bytes != ENTRY * chunks + TAG_BYTES {
        return Err(SegmentError::Malformed("its footer does not add up"));
    }
    let footer_start = end.checked_sub(footer_bytes).filter(|start| *start >= HEADER).ok_or_else(short)?;
    let dek = keys.of(key_version, key_id).ok_or(SegmentError::KeyVersion(key_version))?;
    let aad = aad(keys, key_id, key_version, kind, chunk_log2, writer_epoch, name);
    let (key, commitment) = key_and_commitment(dek, &array(header, 22).ok_or_else(short)?, LABEL, &aad);
    if !constant_time_eq(&commitment, &array::<32>(header, 54).ok_or_else(short)?) {
        return Err(SegmentError::Commitment);
    }
    let cipher = Aes256Gcm::new(&key);
    let mut footer = bytes.get(footer_start..end).ok_or_else(short)?.to_vec();
    let footer = cipher.open(nonce(count, 1), b"", &mut footer).map_err(|_| SegmentError::Footer)?;
    let mut entries = Vec::with_capacity(chunks);
    let mut hashes = Vec::with_capacity(chunks + 1);
    // The header is leaf 0: else one ciphertext could be made to open under two keys.
    hashes.push(merkle::leaf(header));
    let mut expected = HEADER;
    for raw in footer.chunks_exact(ENTRY) {
        hashes.push(merkle::leaf(raw));
        let entry = Entry {
            object: u64::from_be_bytes(array(raw, 0).ok_or_else(short)?),
            offset: u64::from_be_bytes(array(raw, 8).ok_or_else(short)?),
            start: u32::from_be_bytes(array(raw, 16).ok_or_else(short)?) as usize,
            length: u32::from_be_bytes(array(raw, 20).ok_or_else(short)?) as usize,
            digest: array(raw, 24).ok_or_else(short)?,
        };
        if entry.start != expected || entry.length <= TAG_BYTES || entry.length > (1 << chunk_log2) + TAG_BYTES {
            return Err(SegmentError::Malformed("its chunks do not add up"));
        }
        expected = expected.saturating_add(entry.length);
        entries.push(entry);
    }
    if expected != footer_start {
        return Err(SegmentError::Malformed("its chunks do not add up"));
    }
    let found = merkle::root(&hashes);
    if root.is_some_and(|root| *root != found) {
        return Err(SegmentError::Root);
    }
    if kind == Kind::Metadata {
        let signature = bytes.get(end + TRAILER..).ok_or_else(short)?;
        let signed = writer.is_some_and(|writer| writer.verifies(&[META_CONTEXT, &found].concat(), signature));
        if !signed {
            return Err(SegmentError::Signature);
        }
    }
    Ok(Checked { cipher, entries, root: found })
}

impl Checked {
    /// The number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }
    /// The root.
    #[must_use]
    pub const fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// The entry of a chunk that must be at this place of this object.
    fn entry(&self, index: u32, object: u64, offset: u64) -> Result<Entry, SegmentError> {
        let entry = self.entries.get(index as usize).ok_or(SegmentError::NoChunk(index))?;
        if entry.object != object || entry.offset != offset {
            return Err(SegmentError::Place(index));
        }
        Ok(*entry)
    }

    /// Checks a chunk that must be at this place of this object and opens it where it lies, in the segment's bytes.
    ///
    /// # Errors
    /// When there is no such chunk, it belongs elsewhere, or was changed; its bytes then hold no plaintext.
    pub fn open_in_place<'b>(&self, bytes: &'b mut [u8], index: u32, object: u64, offset: u64) -> Result<&'b mut [u8], SegmentError> {
        let entry = self.entry(index, object, offset)?;
        let sealed = bytes.get_mut(entry.start..entry.start + entry.length).ok_or(SegmentError::NoChunk(index))?;
        self.unseal(&entry, index, sealed)
    }

    fn unseal<'b>(&self, entry: &Entry, index: u32, sealed: &'b mut [u8]) -> Result<&'b mut [u8], SegmentError> {
        // The digest first: a reader's key can forge a tag, but not a digest under the signed root.
        if blake3::hash(sealed).as_bytes() != &entry.digest {
            return Err(SegmentError::Chunk(index));
        }
        self.cipher.open(nonce(index, 0), &place(entry.object, entry.offset), sealed).map_err(|_| SegmentError::Chunk(index))
    }
}

/// A segment's bytes with what was checked of them.
#[derive(Debug)]
pub struct Opened<'a> {
    bytes: &'a [u8],
    checked: Checked,
}

/// Opens a segment: what [`check`] checks; its bytes stay as they are.
pub fn open<'a>(
    keys: &SegmentKeys,
    kind: Kind,
    name: &[u8],
    bytes: &'a [u8],
    root: Option<&[u8; 32]>,
    writer: Option<&VerifyingKey>,
) -> Result<Opened<'a>, SegmentError> {
    check(keys, kind, name, bytes, root, writer).map(|checked| Opened { bytes, checked })
}

impl Opened<'_> {
    /// The number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.checked.chunks()
    }
    /// The root.
    #[must_use]
    pub const fn root(&self) -> &[u8; 32] {
        self.checked.root()
    }
    /// Checks and opens a chunk that must be at this place of this object; appends its plaintext.
    pub fn read(&self, index: u32, object: u64, offset: u64, out: &mut Vec<u8>) -> Result<usize, SegmentError> {
        let entry = self.checked.entry(index, object, offset)?;
        let sealed = self.bytes.get(entry.start..entry.start + entry.length).ok_or(SegmentError::NoChunk(index))?;
        let start = out.len();
        out.extend_from_slice(sealed);
        let opened = self.checked.unseal(&entry, index, out.get_mut(start..).unwrap_or_default()).map(|plain| plain.len());
        out.truncate(start.saturating_add(*opened.as_ref().unwrap_or(&0)));
        opened
    }
}
