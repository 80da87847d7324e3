//! Forges archives and images byte by byte: the libraries for writing them refuse what is to be tested.

use super::super::unpack::{Budgets, unpack_within};
use super::super::{ImageError, Unpacked};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use vocabulary::Sha256Digest;

pub(super) const OCI: &str = "application/vnd.oci.image.";
pub(super) const TAR: &str = "layer.v1.tar";
pub(super) const GZIP: &str = "layer.v1.tar+gzip";
pub(super) const ZSTD: &str = "layer.v1.tar+zstd";

pub(super) fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(Sha256::digest(bytes).into())
}

/// Fields of one header; what is not set is what an ordinary file of root has.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: u64,
}

impl Header {
    pub(super) fn new(kind: u8, name: &[u8]) -> Self {
        Self { name: name.to_vec(), link: Vec::new(), kind, size: 0, mode: 0o644, uid: 0, gid: 0, mtime: 1_000_000_000 }
    }

    /// The block, in the form that ustar has, with its checksum.
    pub(super) fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid.min(0o7_777_777)).as_bytes());
        put(116, format!("{:07o}", self.gid.min(0o7_777_777)).as_bytes());
        if self.size < 1 << 33 {
            put(124, format!("{:011o}", self.size).as_bytes());
        } else {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &self.size.to_be_bytes());
        }
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        seal(&mut block);
        block
    }
}

/// Sets the checksum of a block.
pub(super) fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An archive in the making.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn new() -> Self {
        Self::default()
    }
    pub(super) fn header(mut self, header: &Header) -> Self {
        self.0.extend_from_slice(&header.block());
        self
    }
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        let padded = self.0.len().next_multiple_of(512);
        self.0.resize(padded, 0);
        self
    }
    pub(super) fn with(self, header: Header, bytes: &[u8]) -> Self {
        let size = bytes.len() as u64;
        self.header(&Header { size, ..header }).bytes(bytes)
    }
    pub(super) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.with(Header::new(b'0', name.as_bytes()), bytes)
    }
    pub(super) fn dir(self, name: &str) -> Self {
        self.header(&Header { mode: 0o755, ..Header::new(b'5', name.as_bytes()) })
    }
    pub(super) fn symlink(self, name: &str, to: &str) -> Self {
        self.header(&Header { link: to.as_bytes().to_vec(), mode: 0o777, ..Header::new(b'2', name.as_bytes()) })
    }
    pub(super) fn hardlink(self, name: &str, to: &str) -> Self {
        self.header(&Header { link: to.as_bytes().to_vec(), ..Header::new(b'1', name.as_bytes()) })
    }
    pub(super) fn node(self, kind: u8, name: &str) -> Self {
        self.header(&Header::new(kind, name.as_bytes()))
    }
    /// A PAX header for the entry that follows.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.with(Header::new(b'x', b"pax"), &body)
    }
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One record of a PAX header, which counts its own length.
pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// One layer as the manifest names it.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) media: String,
    pub(super) blob: Vec<u8>,
    pub(super) diff_id: Sha256Digest,
}

impl Layer {
    pub(super) fn plain(tar: Vec<u8>) -> Self {
        Self { media: format!("{OCI}{TAR}"), diff_id: sha256(&tar), blob: tar }
    }
    pub(super) fn gzip(tar: &[u8]) -> Self {
        Self { media: format!("{OCI}{GZIP}"), diff_id: sha256(tar), blob: gzip(tar) }
    }
    pub(super) fn zstd(tar: &[u8]) -> Self {
        Self { media: format!("{OCI}{ZSTD}"), diff_id: sha256(tar), blob: zstd(tar) }
    }
}

/// Blobs by digest, and the manifest's.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) blobs: BTreeMap<Sha256Digest, Vec<u8>>,
    pub(super) manifest: Sha256Digest,
    pub(super) config: Sha256Digest,
}

pub(super) fn descriptor(media: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media, "digest": sha256(bytes).to_string(), "size": bytes.len()})
}

pub(super) fn config_json(layers: &[Layer]) -> serde_json::Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "User": "", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

pub(super) fn manifest_json(config: &[u8], layers: &[Layer]) -> serde_json::Value {
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(&layer.media, &layer.blob)).collect();
    serde_json::json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}manifest.v1+json"),
        "config": descriptor(&format!("{OCI}config.v1+json"), config), "layers": layers,
    })
}

pub(super) fn image_of(config: &serde_json::Value, manifest: &serde_json::Value, layers: &[Layer]) -> Image {
    let (config, manifest) = (serde_json::to_vec(config).unwrap(), serde_json::to_vec(manifest).unwrap());
    let mut blobs: BTreeMap<_, _> = layers.iter().map(|layer| (sha256(&layer.blob), layer.blob.clone())).collect();
    let (config_digest, manifest_digest) = (sha256(&config), sha256(&manifest));
    blobs.insert(config_digest, config);
    blobs.insert(manifest_digest, manifest);
    Image { blobs, manifest: manifest_digest, config: config_digest }
}

pub(super) fn image(layers: &[Layer]) -> Image {
    let config = config_json(layers);
    let manifest = manifest_json(&serde_json::to_vec(&config).unwrap(), layers);
    image_of(&config, &manifest, layers)
}

/// A directory that other users cannot enter, with a canary beside the place of the tree.
pub(super) struct Place {
    pub(super) directory: tempfile::TempDir,
    canary: BTreeMap<PathBuf, Seen>,
}

/// All of a file that unpacking could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) links: u64,
    pub(super) mtime: (i64, i64),
    /// Bytes of a file, target of a link.
    pub(super) content: Vec<u8>,
}

impl Place {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let canary = directory.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "as it was").unwrap();
        std::fs::write(directory.path().join("passwd"), "root:x:0:0::/:").unwrap();
        let mut place = Self { directory, canary: BTreeMap::new() };
        place.canary = place.outside();
        place
    }

    pub(super) fn target(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Everything beside the tree.
    fn outside(&self) -> BTreeMap<PathBuf, Seen> {
        look_but(self.directory.path(), Some("tree"))
    }

    /// Panics when anything beside the tree is not as it was; the directory's own time may change.
    pub(super) fn assert_untouched(&self) {
        assert_eq!(self.outside(), self.canary);
    }

    pub(super) fn unpack_within(&self, image: &Image, budgets: &Budgets) -> Result<Unpacked, ImageError> {
        let blobs = |digest: Sha256Digest| match image.blobs.get(&digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn std::io::Read>),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        let result = unpack_within(&blobs, image.manifest, &self.target(), budgets);
        self.assert_untouched();
        assert_eq!(result.is_ok(), self.target().exists(), "whole or not at all");
        result
    }

    pub(super) fn unpack(&self, image: &Image) -> Result<Unpacked, ImageError> {
        self.unpack_within(image, &Budgets::default())
    }

    /// The tree, by path.
    pub(super) fn tree(&self) -> BTreeMap<PathBuf, Seen> {
        look(&self.target())
    }
}

/// Everything below a directory, without following links.
pub(super) fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    look_but(root, None)
}

/// [`look`], but for what lies below one name.
fn look_but(root: &Path, skip: Option<&str>) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(root.join(&at)).unwrap() {
            let entry = entry.unwrap();
            let (path, metadata) = (at.join(entry.file_name()), entry.metadata().unwrap());
            if skip.is_some_and(|skip| path == Path::new(skip)) {
                continue;
            }
            let kind = metadata.file_type();
            let content = if kind.is_file() {
                std::fs::read(root.join(&path)).unwrap()
            } else if kind.is_symlink() {
                std::os::unix::ffi::OsStringExt::into_vec(std::fs::read_link(root.join(&path)).unwrap().into_os_string())
            } else {
                Vec::new()
            };
            if kind.is_dir() {
                open.push(path.clone());
            }
            let links = if kind.is_dir() { 0 } else { metadata.nlink() };
            let owner = (metadata.uid(), metadata.gid());
            seen.insert(path, Seen { mode: metadata.mode(), owner, links, mtime: (metadata.mtime(), metadata.mtime_nsec()), content });
        }
    }
    seen
}

/// Unpacks plain layers and gives the tree.
pub(super) fn tree_of(tars: &[Vec<u8>]) -> BTreeMap<PathBuf, Seen> {
    let place = Place::new();
    let layers: Vec<_> = tars.iter().cloned().map(Layer::plain).collect();
    place.unpack(&image(&layers)).unwrap();
    place.tree()
}

/// Unpacks plain layers that must be refused.
pub(super) fn refusal_of(tars: &[Vec<u8>]) -> ImageError {
    let place = Place::new();
    let layers: Vec<_> = tars.iter().cloned().map(Layer::plain).collect();
    place.unpack(&image(&layers)).unwrap_err()
}

/// Names of a tree.
pub(super) fn names(tree: &BTreeMap<PathBuf, Seen>) -> Vec<&str> {
    tree.keys().map(|path| path.to_str().unwrap()).collect()
}
