//! The catalogue (which files) and the manifest (where a file's pieces lie), in deterministic CBOR.

use minicbor::{Decoder, Encoder};

use crate::limits::FILES_MAX;
use crate::name;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its number, unique in the volume for ever.
    pub object: u64,
    /// Its bytes.
    pub length: u64,
    /// When it was changed last, ms since 1970.
    pub mtime: u64,
    /// The root of its manifest's segment.
    pub manifest: [u8; 32],
    /// The manifest's path below the prefix.
    pub path: String,
    /// The bytes of the manifest's segment.
    pub size: u64,
}

/// A run of chunks of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// The segment.
    pub segment: [u8; 16],
    /// Its first chunk.
    pub first: u32,
    /// How many chunks.
    pub chunks: u32,
    /// The segment's root.
    pub root: [u8; 32],
    /// The segment's bytes.
    pub size: u64,
}

/// Where a file's pieces lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The file's number.
    pub object: u64,
    /// Its bytes.
    pub length: u64,
    /// Its pieces, in order.
    pub extents: Vec<Extent>,
}

/// The list of files with the next free number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    /// The next object number.
    pub next_object: u64,
    /// The files, sorted by name.
    pub files: Vec<FileEntry>,
}

/// The bytes are no catalogue or manifest in their one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is malformed")]
pub struct MalformedList(pub &'static str);

type Encoding = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

impl Manifest {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        let done: Encoding = (|| {
            encoder.array(4)?.str("swarm/manifest/v1")?.u64(self.object)?.u64(self.length)?.array(self.extents.len() as u64)?;
            for extent in &self.extents {
                encoder
                    .array(6)?
                    .u64(extent.offset)?
                    .bytes(&extent.segment)?
                    .u32(extent.first)?
                    .u32(extent.chunks)?
                    .bytes(&extent.root)?
                    .u64(extent.size)?;
            }
            Ok(())
        })();
        debug_assert!(done.is_ok());
        encoder.into_writer()
    }
    /// Reads it; what does not encode to the same bytes is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedList> {
        let mut decoder = Decoder::new(bytes);
        let parsed = (|| {
            head(&mut decoder, 4, "swarm/manifest/v1")?;
            let (object, length) = (decoder.u64().ok()?, decoder.u64().ok()?);
            let count = decoder.array().ok()??;
            let mut extents = Vec::new();
            // An extent has at least 60 bytes: the count cannot promise more than the bytes hold.
            for _ in 0..count.min((bytes.len() / 60) as u64 + 1) {
                (decoder.array().ok()? == Some(6)).then_some(())?;
                extents.push(Extent {
                    offset: decoder.u64().ok()?,
                    segment: decoder.bytes().ok()?.try_into().ok()?,
                    first: decoder.u32().ok()?,
                    chunks: decoder.u32().ok()?,
                    root: decoder.bytes().ok()?.try_into().ok()?,
                    size: decoder.u64().ok()?,
                });
            }
            Some(Self { object, length, extents })
        })();
        parsed.filter(|manifest| manifest.to_bytes() == bytes).ok_or(MalformedList("manifest"))
    }
}

impl Catalogue {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        let done: Encoding = (|| {
            encoder.array(3)?.str("swarm/catalogue/v1")?.u64(self.next_object)?.array(self.files.len() as u64)?;
            for file in &self.files {
                encoder
                    .array(7)?
                    .str(&file.name)?
                    .u64(file.object)?
                    .u64(file.length)?
                    .u64(file.mtime)?
                    .bytes(&file.manifest)?
                    .str(&file.path)?
                    .u64(file.size)?;
            }
            Ok(())
        })();
        debug_assert!(done.is_ok());
        encoder.into_writer()
    }
    /// Reads it: one form, names checked and sorted, objects unique.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedList> {
        let mut decoder = Decoder::new(bytes);
        let parsed = (|| {
            head(&mut decoder, 3, "swarm/catalogue/v1")?;
            let next_object = decoder.u64().ok()?;
            let count = decoder.array().ok()??;
            (count <= FILES_MAX as u64).then_some(())?;
            let mut files: Vec<FileEntry> = Vec::new();
            for _ in 0..count {
                (decoder.array().ok()? == Some(7)).then_some(())?;
                let file = FileEntry {
                    name: decoder.str().ok()?.to_owned(),
                    object: decoder.u64().ok()?,
                    length: decoder.u64().ok()?,
                    mtime: decoder.u64().ok()?,
                    manifest: decoder.bytes().ok()?.try_into().ok()?,
                    path: decoder.str().ok()?.to_owned(),
                    size: decoder.u64().ok()?,
                };
                name::check(&file.name).ok()?;
                let sorted = files.last().is_none_or(|last| last.name < file.name);
                (sorted && file.object < next_object).then_some(())?;
                files.push(file);
            }
            let mut objects: Vec<u64> = files.iter().map(|file| file.object).collect();
            objects.sort_unstable();
            objects.dedup();
            (objects.len() == files.len()).then_some(())?;
            Some(Self { next_object, files })
        })();
        parsed.filter(|catalogue| catalogue.to_bytes() == bytes).ok_or(MalformedList("catalogue"))
    }
}

fn head(decoder: &mut Decoder<'_>, fields: u64, label: &str) -> Option<()> {
    (decoder.array().ok()? == Some(fields) && decoder.str().ok()? == label).then_some(())
}
