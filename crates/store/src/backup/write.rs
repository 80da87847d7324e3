//! Writing a backup: under another name until everything is on the disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use vocabulary::Sha256Digest;
use vocabulary::fault::{self, Point};

use super::{BackupError, FILES, Line, MANIFEST, Manifest, OBJECTS, beside, digest_of, pass, walk};
use crate::blobs::BlobPath;

/// A backup that is being written. Dropped before its end, it is none.
#[derive(Debug)]
pub struct Writing {
    to: PathBuf,
    partial: PathBuf,
    lines: Vec<Line>,
}

impl Writing {
    /// Begins a backup in a new folder.
    pub fn begin(to: &Path) -> Result<Self, BackupError> {
        if std::fs::symlink_metadata(to).is_ok() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let partial = beside(to, ".partial");
        match DirBuilder::new().mode(0o700).create(&partial) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(BackupError::Interrupted(partial)),
            Err(source) => return Err(BackupError::Io { path: partial, source }),
        }
        Ok(Self { to: to.to_owned(), partial, lines: Vec::new() })
    }

    /// Where a file of this name is to be made, for [`Self::made`].
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Takes a file in that was made at its place, and is on the disk.
    pub fn made(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.place(name);
        let (size, sha256) = pass(File::open(&path).map_err(BackupError::io(&path))?, |_| Ok(())).map_err(BackupError::io(&path))?;
        self.lines.push(Line { path: name.to_owned(), size, sha256 });
        Ok(())
    }

    /// Copies an object from the server's folder of objects. One that is gone was deleted since it was listed; then `false`.
    pub fn object(&mut self, objects: &Path, name: &BlobPath) -> Result<bool, BackupError> {
        let source = objects.join(name.as_str());
        let file = match File::open(&source) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(BackupError::io(&source)(error)),
        };
        self.copy(file, &source, name)?;
        Ok(true)
    }

    /// Writes an object whose bytes were read before.
    pub fn bytes(&mut self, bytes: &[u8], name: &BlobPath) -> Result<(), BackupError> {
        self.copy(bytes, Path::new(name.as_str()), name)
    }

    fn copy(&mut self, from: impl std::io::Read, source: &Path, name: &BlobPath) -> Result<(), BackupError> {
        let name = format!("{OBJECTS}/{name}");
        let path = self.partial.join(&name);
        let (size, sha256) = copied(from, &path).map_err(|error| BackupError::io(if error.kind() == ErrorKind::StorageFull { &path } else { source })(error))?;
        self.lines.push(Line { path: name, size, sha256 });
        Ok(())
    }

    /// Ends it: the list, the manifest, and its name. `manifest` is told what only this knows. Returns the digest by which the
    /// whole backup can be known again.
    pub fn end(mut self, mut manifest: Manifest) -> Result<(Manifest, Sha256Digest), BackupError> {
        fault::reached(Point::BackupCopied);
        self.lines.sort_unstable();
        let mut list = Vec::new();
        for line in &self.lines {
            serde_json::to_writer(&mut list, line).map_err(|error| BackupError::io(&self.partial)(error.into()))?;
            list.push(b'\n');
        }
        manifest.files = self.lines.len() as u64;
        manifest.bytes = self.lines.iter().fold(0, |sum, line| sum.saturating_add(line.size));
        manifest.list = digest_of(&list);
        let path = self.partial.join(FILES);
        written(&list, &path).map_err(BackupError::io(&path))?;
        sync_folders(&self.partial)?;
        let mut text = serde_json::to_vec(&manifest).map_err(|error| BackupError::io(&self.partial)(error.into()))?;
        text.push(b'\n');
        let digest = digest_of(&text);
        text.extend_from_slice(format!("{digest}\n").as_bytes());
        let (new, path) = (self.partial.join("manifest.new"), self.partial.join(MANIFEST));
        written(&text, &new).map_err(BackupError::io(&new))?;
        std::fs::rename(&new, &path).map_err(BackupError::io(&path))?;
        sync_folder(&self.partial)?;
        fault::reached(Point::BackupWritten);
        rename_folder(&self.partial, &self.to)?;
        Ok((manifest, digest))
    }

    /// The objects of a server's folder, in the order of their names: unfinished uploads and foreign files are not among them.
    pub fn objects(folder: &Path) -> Result<Vec<BlobPath>, BackupError> {
        Ok(walk(folder, &mut |_| Ok(()))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Gives it up and removes what was written.
    pub fn abandon(self) {
        let _ = std::fs::remove_dir_all(&self.partial);
    }
}

/// Writes a new file of mode 0600 with what is read, and has it on the disk.
pub(super) fn copied(from: impl std::io::Read, to: &Path) -> std::io::Result<(u64, Sha256Digest)> {
    if let Some(folder) = to.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let done = pass(from, |piece| file.write_all(piece))?;
    file.sync_all()?;
    Ok(done)
}

fn written(bytes: &[u8], to: &Path) -> std::io::Result<()> {
    copied(bytes, to).map(|_| ())
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(BackupError::io(folder))
}

/// Has the names of everything below a folder on the disk.
pub(super) fn sync_folders(folder: &Path) -> Result<(), BackupError> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(BackupError::io(&folder))? {
            let entry = entry.map_err(BackupError::io(&folder))?;
            if entry.file_type().map_err(BackupError::io(&folder))?.is_dir() {
                folders.push(entry.path());
            }
        }
        sync_folder(&folder)?;
    }
    Ok(())
}

/// Gives a folder its name; one that has something in it is never replaced.
pub(super) fn rename_folder(from: &Path, to: &Path) -> Result<(), BackupError> {
    std::fs::rename(from, to).map_err(BackupError::io(to))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(parent)
}
