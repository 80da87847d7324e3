//! Layers to one tree.

use super::archive::{Entry, Kind, TarError, TarReader};
use super::manifest::{Layer, Manifest, parse_manifest};
use super::name::{Name, Named};
use super::staging::Staging;
use super::stream::{LayerStream, document, unwrapped};
use super::tree::{Fault, Meta, Tree};
use super::{BlobReader, ImageConfig, ImageError, parse_config, refused, shown};
use crate::limits;
use std::path::Path;
use vocabulary::Sha256Digest;

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What the image says about its program.
    pub config: ImageConfig,
    /// Entries that were written.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Device nodes that were left out; tar knows no sockets.
    pub skipped: u64,
}

/// Bounds of one unpacking; tests make them small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    pub(super) bytes: u64,
    pub(super) stream: u64,
    pub(super) entries: u64,
    pub(super) depth: usize,
    pub(super) headers: u64,
    pub(super) ratio: u64,
    pub(super) ratio_free: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            bytes: limits::IMAGE_BYTES,
            stream: limits::IMAGE_STREAM_BYTES,
            entries: limits::IMAGE_ENTRIES,
            depth: limits::IMAGE_DEPTH,
            headers: limits::HEADER_BYTES,
            ratio: limits::LAYER_RATIO,
            ratio_free: limits::LAYER_RATIO_FREE,
        }
    }
}

/// Verifies manifest, config and layers and unpacks them into `target`, which must not exist: it appears whole or
/// not at all. Blobs are read by digest and never trusted. The caller is root. Some directory above `target` must be
/// closed to other users, since trees hold setuid files.
///
/// # Errors
/// When a blob is not what its digest says, an entry breaks a rule, or a budget is exceeded.
pub fn unpack(blobs: &BlobReader<'_>, manifest: Sha256Digest, target: &Path) -> Result<Unpacked, ImageError> {
    unpack_within(blobs, manifest, target, &Budgets::default())
}

/// [`unpack`] with other bounds.
pub(super) fn unpack_within(blobs: &BlobReader<'_>, manifest: Sha256Digest, target: &Path, budgets: &Budgets) -> Result<Unpacked, ImageError> {
    let Manifest { config, layers } = parse_manifest(&document(blobs, manifest, None, "image manifest")?)?;
    let config = parse_config(&document(blobs, config.digest, Some(config.size), "image config")?)?;
    config.fits(layers.len())?;
    let staging = Staging::begin(target)?;
    let tree = Tree::new(staging.tree(), budgets.depth, budgets.entries).map_err(|fault| told(0, b"/", fault))?;
    let mut unpacking = Unpacking { blobs, budgets, tree, stream_left: budgets.stream, unpacked: Unpacked { config, entries: 0, bytes: 0, skipped: 0 } };
    let diff_ids = unpacking.unpacked.config.diff_ids.clone();
    for (number, (layer, diff_id)) in (1_usize..).zip(layers.iter().zip(diff_ids)) {
        unpacking.layer(number, layer, diff_id)?;
    }
    unpacking.tree.check_mount_points().map_err(|fault| told(layers.len(), b"/", fault))?;
    let unpacked = unpacking.unpacked;
    staging.publish()?;
    Ok(unpacked)
}

struct Unpacking<'a, 'b> {
    blobs: &'a BlobReader<'b>,
    budgets: &'a Budgets,
    tree: Tree<'a>,
    stream_left: u64,
    unpacked: Unpacked,
}

impl Unpacking<'_, '_> {
    fn layer(&mut self, number: usize, layer: &Layer, diff_id: Sha256Digest) -> Result<(), ImageError> {
        if number > 1 {
            self.tree.next_layer();
        }
        let stream = LayerStream::open(self.blobs, number, layer, self.stream_left, self.budgets.ratio, self.budgets.ratio_free)?;
        let mut archive = TarReader::new(stream, self.budgets.headers);
        loop {
            let written = match archive.next_entry() {
                Ok(None) => break,
                Ok(Some(entry)) => self.entry(number, &entry, &mut archive).map_err(|fault| told(number, &entry.path, fault)),
                Err(error) => Err(self.unread(number, error)),
            };
            if let Err(error) = written {
                return Err(archive.into_source().blame(error));
            }
        }
        let read = archive.into_source().finish(diff_id)?;
        self.stream_left = self.stream_left.saturating_sub(read);
        Ok(())
    }

    fn unread(&self, layer: usize, error: TarError) -> ImageError {
        match error {
            TarError::Io(error) => unwrapped(error, |error| refused(format!("layer {layer}: {}", shown(error.to_string().as_bytes())))),
            TarError::Headers => ImageError::Budget { layer, limit: format!("{} bytes of headers of one entry", self.budgets.headers) },
            TarError::Rule { path, rule } => ImageError::Entry { layer, path: shown(&path), detail: rule },
        }
    }

    fn entry(&mut self, number: usize, entry: &Entry, archive: &mut TarReader<LayerStream>) -> Result<(), Fault> {
        self.tree.spend()?;
        let name = Name::parse(&entry.path).map_err(Fault::Rule)?;
        if name.depth() > self.budgets.depth {
            return Err(Fault::Budget(format!("depth of {} directories", self.budgets.depth)));
        }
        match name.split().map_err(Fault::Rule)? {
            (parents, Named::Whiteout(hidden)) => return self.tree.whiteout(parents, Some(hidden)),
            (parents, Named::Opaque) => return self.tree.whiteout(parents, None),
            (_, Named::Root | Named::Plain(_)) => {}
        }
        if entry.kind == Kind::Device {
            self.unpacked.skipped = self.unpacked.skipped.saturating_add(1);
            return self.tree.leave_out(&name);
        }
        let meta = meta(entry)?;
        match entry.kind {
            Kind::Directory => self.tree.directory(&name, &meta)?,
            Kind::Symlink => self.tree.symlink(&name, &meta, &entry.link)?,
            Kind::HardLink => self.tree.hard_link(&name, &Name::parse(&entry.link).map_err(|rule| Fault::Rule(format!("target of the hard link: {rule}")))?)?,
            Kind::Fifo => self.tree.fifo(&name, &meta)?,
            Kind::File => {
                let bytes = self.unpacked.bytes.saturating_add(entry.size);
                if bytes > self.budgets.bytes {
                    return Err(Fault::Budget(format!("{} bytes of files", self.budgets.bytes)));
                }
                self.unpacked.bytes = bytes;
                let failed = |error| std::io::Error::other(unwrapped(error, |error| refused(format!("layer {number}: {error}"))));
                self.tree.file(&name, &meta, entry.size, &mut |into| archive.read_data(into).map_err(failed))?;
            }
            // Left out above.
            Kind::Device => {}
        }
        self.unpacked.entries = self.unpacked.entries.saturating_add(1);
        Ok(())
    }
}

fn meta(entry: &Entry) -> Result<Meta, Fault> {
    let id = |id: u64, what: &str| match u32::try_from(id) {
        Ok(id) if id < limits::ID_BLOCK => Ok(id),
        _ => Err(Fault::Rule(format!("{what} {id} is not below {}, and a job has no larger ids", limits::ID_BLOCK))),
    };
    let kept = |name: &[u8]| name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    let xattrs: Vec<_> = entry.xattrs.iter().filter(|(name, _)| kept(name)).cloned().collect();
    let bytes = xattrs.iter().fold(0_usize, |sum, (name, value)| sum.saturating_add(name.len()).saturating_add(value.len()));
    if bytes > limits::XATTR_BYTES {
        return Err(Fault::Budget(format!("{} bytes of extended attributes of one file", limits::XATTR_BYTES)));
    }
    Ok(Meta { uid: id(entry.uid, "owner")?, gid: id(entry.gid, "group")?, mode: entry.mode, mtime: entry.mtime, xattrs })
}

/// A fault of an entry as the error that names layer and entry.
fn told(layer: usize, path: &[u8], fault: Fault) -> ImageError {
    match fault {
        Fault::Rule(detail) => ImageError::Entry { layer, path: shown(path), detail },
        Fault::Budget(limit) => ImageError::Budget { layer, limit },
        Fault::Stream(error) => unwrapped(error, |source| ImageError::Io { what: format!("layer {layer}: read an entry"), source }),
        Fault::Disk(what, source) => ImageError::Io { what: format!("layer {layer}, entry `{}`: {what}", shown(path)), source },
    }
}
