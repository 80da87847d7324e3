//! Reading a backup: nothing of it is believed before every byte is what the manifest answers for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use vocabulary::Sha256Digest;

use super::write::{copied, rename_folder, sync_folders};
use super::{BackupError, DATABASE, FILES, FORMAT, LINE_MAX, Line, MANIFEST, MANIFEST_MAX, Manifest, OBJECTS, VERSION, beside, digest_of, pass, walk};
use crate::blobs::BlobPath;
use crate::open::NEWEST;

/// A backup whose manifest holds together.
#[derive(Debug, Clone)]
pub struct Backup {
    folder: PathBuf,
    manifest: Manifest,
    digest: Sha256Digest,
}

impl Backup {
    /// Reads what a backup says of itself. Its files are not looked at yet.
    pub fn open(folder: &Path) -> Result<Self, BackupError> {
        let path = folder.join(MANIFEST);
        let mut text = Vec::new();
        match plain(&path) {
            Ok(file) => file.take(MANIFEST_MAX.saturating_add(1)).read_to_end(&mut text).map_err(BackupError::io(&path))?,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Err(BackupError::NoBackup(folder.to_owned())),
            Err(error) => return Err(BackupError::io(&path)(error)),
        };
        let damaged = |what: &str| BackupError::damaged(MANIFEST, what);
        let first = text.iter().position(|byte| *byte == b'\n').map(|end| end.saturating_add(1));
        let (line, second) = first.and_then(|end| text.split_at_checked(end)).ok_or_else(|| damaged("has not two lines"))?;
        let digest = digest_of(line);
        if second != format!("{digest}\n").as_bytes() {
            return Err(damaged("does not have the digest that it names"));
        }
        // Another version may have other fields: it is told before they are read.
        #[derive(serde::Deserialize)]
        struct Kind {
            format: String,
            version: u32,
        }
        let kind: Kind = serde_json::from_slice(line).map_err(|error| damaged(&format!("is no manifest ({error})")))?;
        let foreign = |what, found, known| BackupError::Foreign { what, found, known };
        if kind.format != FORMAT {
            return Err(foreign("the format", printable(&kind.format), FORMAT.to_owned()));
        }
        if kind.version != VERSION {
            return Err(foreign("the format's version", kind.version.to_string(), VERSION.to_string()));
        }
        let manifest: Manifest = serde_json::from_slice(line).map_err(|error| damaged(&format!("is no manifest ({error})")))?;
        if manifest.schema > NEWEST {
            return Err(foreign("the schema version", manifest.schema.to_string(), format!("up to {NEWEST}")));
        }
        Ok(Self { folder: folder.to_owned(), manifest, digest })
    }

    /// What it says of itself.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// The digest of the manifest, and so of everything.
    #[must_use]
    pub const fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    /// Reads every file and compares it with the list, and the list with the manifest; nothing may be there beside them.
    pub fn verify(&self) -> Result<(), BackupError> {
        let mut listed = 0_u64;
        self.each(|line| {
            let file = self.file(line)?;
            let (size, sha256) = pass(file, |_| Ok(())).map_err(BackupError::io(&self.folder.join(&line.path)))?;
            listed = listed.saturating_add(size);
            same(line, size, sha256)
        })?;
        if listed != self.manifest.bytes {
            return Err(BackupError::damaged(FILES, "does not add up to the manifest's bytes"));
        }
        self.nothing_else()
    }

    /// Copies everything into a new folder beside `into`; [`Restoring::end`] gives it that name. Each file is compared again
    /// as it is copied.
    pub fn restore(&self, into: &Path) -> Result<Restoring, BackupError> {
        free(into)?;
        let folder = beside(into, ".restoring");
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(BackupError::Interrupted(folder)),
            Err(source) => return Err(BackupError::Io { path: folder, source }),
        }
        let restoring = Restoring { folder, into: into.to_owned(), ended: false };
        self.each(|line| {
            let to = restoring.folder.join(&line.path);
            let (size, sha256) = copied(self.file(line)?, &to).map_err(BackupError::io(&to))?;
            same(line, size, sha256)
        })?;
        sync_folders(&restoring.folder)?;
        Ok(restoring)
    }

    /// Every line of the list, in order, after the list itself was compared with the manifest.
    fn each(&self, mut take: impl FnMut(&Line) -> Result<(), BackupError>) -> Result<(), BackupError> {
        let path = self.folder.join(FILES);
        let open = || plain(&path).map_err(|error| missing(FILES, &path, error));
        let (_, sha256) = pass(open()?, |_| Ok(())).map_err(BackupError::io(&path))?;
        if sha256 != self.manifest.list {
            return Err(BackupError::damaged(FILES, "does not have the digest that the manifest names"));
        }
        let mut reader = BufReader::new(open()?);
        let (mut count, mut last, mut text) = (0_u64, String::new(), Vec::new());
        loop {
            text.clear();
            let read = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut text).map_err(BackupError::io(&path))?;
            if read == 0 {
                break;
            }
            let line: Line = text
                .strip_suffix(b"\n")
                .and_then(|text| serde_json::from_slice(text).ok())
                .ok_or_else(|| BackupError::damaged(FILES, format!("has a malformed line, the one after `{}`", printable(&last))))?;
            if !named(&line.path) || line.path <= last {
                return Err(BackupError::damaged(FILES, format!("names `{}`, which no backup has there", printable(&line.path))));
            }
            take(&line)?;
            count = count.saturating_add(1);
            last = line.path;
        }
        if count == self.manifest.files && last == DATABASE {
            return Ok(());
        }
        Err(BackupError::damaged(FILES, format!("has {count} lines where the manifest says {}, or no database", self.manifest.files)))
    }

    fn file(&self, line: &Line) -> Result<File, BackupError> {
        let path = self.folder.join(&line.path);
        plain(&path).map_err(|error| missing(&line.path, &path, error))
    }

    /// Whether there is a file that the list does not name.
    fn nothing_else(&self) -> Result<(), BackupError> {
        let relative = |path: &Path| path.strip_prefix(&self.folder).map_or_else(|_| String::new(), |path| printable(&path.to_string_lossy()));
        let there = walk(&self.folder, &mut |odd| Err(BackupError::damaged(relative(odd), "is no plain file")))?;
        let mut known = BTreeSet::from([MANIFEST.to_owned(), FILES.to_owned()]);
        self.each(|line| {
            known.insert(line.path.clone());
            Ok(())
        })?;
        match there.iter().find(|name| !known.contains(*name)) {
            Some(name) => Err(BackupError::damaged(printable(name), "is not in the list")),
            None => Ok(()),
        }
    }
}

/// A restored state that does not have its name yet. Dropped before its end, it is removed.
#[derive(Debug)]
pub struct Restoring {
    folder: PathBuf,
    into: PathBuf,
    ended: bool,
}

impl Restoring {
    /// Where it lies until then.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// Gives it its name.
    pub fn end(mut self) -> Result<(), BackupError> {
        free(&self.into)?;
        vocabulary::fault::reached(vocabulary::fault::Point::RestoreCopied);
        rename_folder(&self.folder, &self.into)?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        if !self.ended {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Refuses a place where something is.
fn free(into: &Path) -> Result<(), BackupError> {
    match std::fs::read_dir(into) {
        Ok(mut entries) => if entries.next().is_none() { Ok(()) } else { Err(BackupError::NotEmpty(into.to_owned())) },
        Err(error) if error.kind() == ErrorKind::NotFound && std::fs::symlink_metadata(into).is_err() => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => Err(BackupError::NotEmpty(into.to_owned())),
        Err(error) => Err(BackupError::io(into)(error)),
    }
}

/// Whether a backup may have a file of this name: none leads out of its folder.
fn named(path: &str) -> bool {
    path == DATABASE || path.strip_prefix(OBJECTS).and_then(|rest| rest.strip_prefix('/')).is_some_and(|name| name.parse::<BlobPath>().is_ok())
}

/// Opens a plain file: no link, no pipe.
fn plain(path: &Path) -> std::io::Result<File> {
    if std::fs::symlink_metadata(path)?.is_file() { File::open(path) } else { Err(std::io::Error::new(ErrorKind::InvalidInput, "no plain file")) }
}

fn missing(name: &str, path: &Path, error: std::io::Error) -> BackupError {
    let kind = error.kind();
    if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) {
        BackupError::damaged(name, "is missing")
    } else if kind == ErrorKind::InvalidInput {
        BackupError::damaged(name, "is no plain file")
    } else {
        BackupError::io(path)(error)
    }
}

fn same(line: &Line, size: u64, sha256: Sha256Digest) -> Result<(), BackupError> {
    if size != line.size {
        return Err(BackupError::damaged(&line.path, format!("has {size} bytes and had {}", line.size)));
    }
    if sha256 == line.sha256 { Ok(()) } else { Err(BackupError::damaged(&line.path, "has other bytes than it had")) }
}

/// What somebody wrote, short and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}
