//! Layout directories and archives.

use super::archive::{Kind, Source, TarError, TarReader};
use super::manifest::{IndexEntry, Points, Reference, parse_index, parse_manifest};
use super::{ImageConfig, ImageError, io, parse_config, refused, shown, stream};
use crate::limits::{ARCHIVE_MEMBERS, HEADER_BYTES, MANIFEST_BYTES};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vocabulary::Sha256Digest;

/// Where the bytes of a blob lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSource {
    /// A file of its own.
    File(PathBuf),
    /// A part of an archive.
    Archive {
        /// The archive.
        path: PathBuf,
        /// First byte.
        offset: u64,
    },
}

impl BlobSource {
    fn open(&self) -> std::io::Result<File> {
        match self {
            Self::File(path) => File::open(path),
            Self::Archive { path, offset } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(file)
            }
        }
    }
}

/// One blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Sha256Digest,
    /// Their number.
    pub size: u64,
    /// Where they lie.
    pub source: BlobSource,
}

impl Blob {
    /// Opens the blob's bytes; whoever reads them compares the digest.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.source.open()?.take(self.size)))
    }
}

/// What an import uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportPlan {
    /// The manifest's digest: the image's name from here on.
    pub manifest: Sha256Digest,
    /// Manifest, config and layers, each once, the manifest first.
    pub blobs: Vec<Blob>,
    /// What the image says about its program.
    pub config: ImageConfig,
}

pub(super) fn digest(text: &str) -> Result<Sha256Digest, ImageError> {
    text.parse().map_err(|_| refused(format!("digest `{}` is not `sha256:` and 64 hexadecimal digits", shown(text.as_bytes()))))
}

/// Reads a layout directory or an OCI archive and finds the image for this machine (linux/amd64). Manifest and config
/// are compared with their digests, layers with their sizes alone: whoever reads them compares the rest.
///
/// # Errors
/// When it is neither, or breaks a rule; a docker archive is refused with a hint.
pub fn inspect(path: &Path) -> Result<ImportPlan, ImageError> {
    let store = Store::open(path)?;
    store.check_version()?;
    let index = store.document("index.json")?.ok_or_else(|| refused(format!("`{}` is no OCI layout: it has no index.json", path.display())))?;
    let reference = store.choose(parse_index(&index)?)?;
    let (bytes, manifest_blob) = store.blob(reference, "image manifest")?;
    let manifest = parse_manifest(&bytes)?;
    let (bytes, config_blob) = store.blob(manifest.config, "image config")?;
    let config = parse_config(&bytes)?;
    config.fits(manifest.layers.len())?;
    let mut blobs = vec![manifest_blob, config_blob];
    let mut seen = BTreeSet::from([reference.digest, manifest.config.digest]);
    for (number, layer) in (1_usize..).zip(&manifest.layers) {
        if seen.insert(layer.blob.digest) {
            blobs.push(store.find(layer.blob, &format!("layer {number}"))?);
        }
    }
    Ok(ImportPlan { manifest: reference.digest, blobs, config })
}

/// A layout, wherever it lies.
enum Store {
    Directory(PathBuf),
    Archive {
        path: PathBuf,
        /// Size and first byte of the members that matter, by name.
        members: BTreeMap<String, (u64, u64)>,
    },
}

#[derive(Deserialize)]
struct LayoutFile {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

impl Store {
    fn open(path: &Path) -> Result<Self, ImageError> {
        let look = || io(format!("look at `{}`", path.display()));
        let kind = std::fs::metadata(path).map_err(look())?;
        let store = if kind.is_dir() {
            Self::Directory(path.to_owned())
        } else if kind.is_file() {
            Self::Archive { path: path.to_owned(), members: members(path)? }
        } else {
            return Err(refused(format!("`{}` is neither a directory nor a file", path.display())));
        };
        if store.place("index.json")?.is_none() && store.place("manifest.json")?.is_some() {
            return Err(ImageError::DockerArchive(path.display().to_string()));
        }
        Ok(store)
    }

    /// Size and place of a file of the layout.
    fn place(&self, name: &str) -> Result<Option<(u64, BlobSource)>, ImageError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                match std::fs::metadata(&path) {
                    Ok(file) if file.is_file() => Ok(Some((file.len(), BlobSource::File(path)))),
                    Ok(_) => Err(refused(format!("`{}` is no regular file", path.display()))),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(io(format!("look at `{}`", path.display()))(error)),
                }
            }
            Self::Archive { path, members } => {
                Ok(members.get(name).map(|(size, offset)| (*size, BlobSource::Archive { path: path.clone(), offset: *offset })))
            }
        }
    }

    /// A small file of the layout.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some((size, source)) = self.place(name)? else { return Ok(None) };
        if size > MANIFEST_BYTES {
            return Err(ImageError::Budget { layer: 0, limit: format!("{MANIFEST_BYTES} bytes of `{name}`") });
        }
        let mut bytes = Vec::new();
        let read = source.open().and_then(|file| file.take(size).read_to_end(&mut bytes));
        read.map_err(io(format!("read `{name}` of the layout")))?;
        Ok(Some(bytes))
    }

    fn check_version(&self) -> Result<(), ImageError> {
        let bytes = self.document("oci-layout")?.ok_or_else(|| refused("this is no OCI layout: it has no file `oci-layout`"))?;
        let file: LayoutFile = serde_json::from_slice(&bytes).map_err(|error| refused(format!("oci-layout: {}", shown(error.to_string().as_bytes()))))?;
        if file.version == "1.0.0" {
            return Ok(());
        }
        Err(refused(format!("oci-layout: version `{}` is not 1.0.0", shown(file.version.as_bytes()))))
    }

    /// A blob whose size is as its descriptor says.
    fn find(&self, reference: Reference, what: &str) -> Result<Blob, ImageError> {
        let Reference { digest, size } = reference;
        let corrupt = |detail: String| ImageError::Corrupt { digest: digest.to_string(), detail };
        let (there, source) =
            self.place(&format!("blobs/sha256/{}", digest.hex()))?.ok_or_else(|| corrupt(format!("the layout does not have it ({what})")))?;
        if there != size {
            return Err(corrupt(format!("{there} bytes instead of {size} ({what})")));
        }
        Ok(Blob { digest, size, source })
    }

    /// A small blob, verified.
    fn blob(&self, reference: Reference, what: &'static str) -> Result<(Vec<u8>, Blob), ImageError> {
        let blob = self.find(reference, what)?;
        let open = |_: Sha256Digest| blob.open().map(|bytes| bytes as Box<dyn Read>);
        let bytes = stream::document(&open, reference.digest, Some(reference.size), what)?;
        Ok((bytes, blob))
    }

    /// The one image for this machine.
    fn choose(&self, entries: Vec<IndexEntry>) -> Result<Reference, ImageError> {
        let mut found: BTreeMap<Sha256Digest, (Reference, String)> = BTreeMap::new();
        let mut others = Vec::new();
        let mut flat = Vec::new();
        for entry in entries {
            match entry.points {
                Points::Manifest => flat.push(entry),
                Points::Index if entry.ours == Some(false) => others.push(entry.label),
                Points::Index => {
                    let (bytes, _) = self.blob(entry.blob, "image index")?;
                    for inner in parse_index(&bytes)? {
                        if inner.points == Points::Index {
                            return Err(refused("image index: an index in an index in an index"));
                        }
                        flat.push(inner);
                    }
                }
            }
        }
        for entry in flat {
            let ours = match entry.ours {
                Some(ours) => ours,
                None => self.is_ours(entry.blob)?,
            };
            if ours {
                found.insert(entry.blob.digest, (entry.blob, entry.label));
            } else {
                others.push(entry.label);
            }
        }
        let mut candidates = found.into_values();
        match (candidates.next(), candidates.next()) {
            (Some((reference, _)), None) => Ok(reference),
            (Some((_, first)), Some((_, second))) => {
                let rest = candidates.map(|(_, label)| label);
                let all = [first, second].into_iter().chain(rest).collect::<Vec<_>>().join(", ");
                Err(refused(format!("the layout holds several images for this machine ({all}); copy the one that you mean into a layout of its own")))
            }
            _ if others.is_empty() => Err(refused("the layout holds no image")),
            _ => {
                others.sort();
                others.dedup();
                Err(refused(format!("the layout holds no image for linux/amd64; it has: {}", others.join(", "))))
            }
        }
    }

    /// Whether an image whose entry names no platform is for this machine.
    fn is_ours(&self, reference: Reference) -> Result<bool, ImageError> {
        let manifest = parse_manifest(&self.blob(reference, "image manifest")?.0)?;
        let config = parse_config(&self.blob(manifest.config, "image config")?.0)?;
        Ok(config.fits(config.diff_ids.len()).is_ok())
    }
}

/// A file in which whatever nobody wants is passed over without reading.
struct Seekable {
    file: File,
    length: u64,
}

impl Read for Seekable {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(into)
    }
}

impl Source for Seekable {
    fn skip(&mut self, count: u64) -> std::io::Result<()> {
        let cut_off = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the archive is cut off");
        let there = self.file.stream_position()?.checked_add(count).filter(|there| *there <= self.length).ok_or_else(cut_off)?;
        self.file.seek(SeekFrom::Start(there)).map(|_| ())
    }
}

/// Finds the members of an archive that a layout has.
fn members(path: &Path) -> Result<BTreeMap<String, (u64, u64)>, ImageError> {
    let read = || io(format!("read `{}`", path.display()));
    let mut file = File::open(path).map_err(read())?;
    let length = file.metadata().map_err(read())?.len();
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(read())?;
    file.rewind().map_err(read())?;
    if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] || magic == [0xfd, b'7', b'z', b'X'] {
        return Err(refused(format!("`{}` is compressed as a whole; decompress it first: its layers are read in place", path.display())));
    }
    let mut archive = TarReader::new(Seekable { file, length }, HEADER_BYTES);
    let mut members = BTreeMap::new();
    let mut count = 0_usize;
    loop {
        let entry = match archive.next_entry() {
            Ok(None) => return Ok(members),
            Ok(Some(entry)) => entry,
            Err(TarError::Headers) => return Err(refused(format!("`{}`: a header is larger than {HEADER_BYTES} bytes", path.display()))),
            Err(TarError::Io(error)) => return Err(refused(format!("`{}` is no tar archive that can be read: {error}", path.display()))),
            Err(TarError::Rule { path: name, rule }) => {
                return Err(refused(format!("`{}` is no tar archive that can be read: member `{}`: {rule}", path.display(), shown(&name))));
            }
        };
        count = count.saturating_add(1);
        if count > ARCHIVE_MEMBERS {
            return Err(refused(format!("`{}` has more than {ARCHIVE_MEMBERS} members", path.display())));
        }
        let Ok(name) = String::from_utf8(entry.path) else { continue };
        let name = name.strip_prefix("./").unwrap_or(&name);
        let wanted = matches!(name, "oci-layout" | "index.json" | "manifest.json") || name.starts_with("blobs/sha256/");
        if entry.kind == Kind::Directory || !wanted {
            continue;
        }
        if entry.kind != Kind::File {
            return Err(refused(format!("`{}`: member `{}` is no regular file", path.display(), shown(name.as_bytes()))));
        }
        if members.insert(name.to_owned(), (entry.size, entry.offset)).is_some() {
            return Err(refused(format!("`{}`: member `{}` stands twice", path.display(), shown(name.as_bytes()))));
        }
    }
}
