//! Backups of a deployment on `SQLite`: one folder with the database, the objects, and what proves that all of it is there.
//!
//! ```text
//! DIR/state.db        one consistent state of the database (`VACUUM INTO`: no remains of deleted rows)
//! DIR/objects/…       the objects, under their names
//! DIR/files.jsonl     a line for each file: name, size, SHA-256, in the order of names
//! DIR/manifest.json   what it is, with the digest of the list; a second line has the digest of the first
//! ```
//!
//! Everything is sealed as it was: no key, password or token is in clear in what is copied.
//!
//! **Invariant:** the manifest is written last, when everything else is on the disk: what has one is whole or was damaged
//! afterwards, and what has none is no backup.
//! **Invariant:** a file is restored only with the size and digest that the manifest answers for.

mod read;
mod snapshot;
mod write;

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use vocabulary::{Sha256Digest, UnixTime};

pub use read::Backup;
pub use snapshot::{Snapshot, look, snapshot};
pub use write::Writing;

use crate::error::OpenError;

/// The name of the format.
pub const FORMAT: &str = "swarm-backup";
/// Its version.
pub const VERSION: u32 = 1;
/// The database's file, in a backup and in the folder of a server.
pub const DATABASE: &str = "state.db";
/// The folder of the objects, in a backup and in the folder of a server.
pub const OBJECTS: &str = "objects";
/// Says what the backup is.
const MANIFEST: &str = "manifest.json";
/// The list of the files.
const FILES: &str = "files.jsonl";
/// Bytes of a manifest: a dozen short fields.
const MANIFEST_MAX: u64 = 16 << 10;
/// Bytes of a line of the list: a name of 512 characters, a digest and a size.
const LINE_MAX: u64 = 1024;
/// Bytes that are copied and hashed at once.
const PIECE: usize = 1 << 20;

/// Why there is no backup, or why it is not restored. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database refused.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no database to back up.
    #[error(
        "there is no database `{0}`: name the server's folder with `--data-dir`; a deployment on PostgreSQL is backed up with that \
         server's own tools and a copy of its folder of objects"
    )]
    NoDatabase(PathBuf),
    /// The place of the backup is taken.
    #[error("`{0}` is there already; a backup is written into a new folder: name another, nothing was changed")]
    Exists(PathBuf),
    /// An interrupted run left its folder.
    #[error("`{0}` is what an interrupted run left, and nothing that can be used; remove it and try again")]
    Interrupted(PathBuf),
    /// The schema of the database is not this program's.
    #[error("the database has schema version {found} and this program has {known}; use the version of swarm that runs its server")]
    OtherSchema {
        /// The version of the database.
        found: u64,
        /// This program's.
        known: u64,
    },
    /// No backup.
    #[error("`{0}` is no backup: it has no `manifest.json`, which is written last; an interrupted backup has none either")]
    NoBackup(PathBuf),
    /// Another program's or version's.
    #[error("the backup has {what} {found} and this program knows {known}; restore it with the version of swarm that made it, and upgrade then")]
    Foreign {
        /// What of it.
        what: &'static str,
        /// What the backup has.
        found: String,
        /// What this program has.
        known: String,
    },
    /// The bytes are not those that were backed up.
    #[error("the backup is damaged: `{file}` {what}; nothing was restored, use another backup")]
    Damaged {
        /// The file, relative to the backup.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// Not the backup that was meant.
    #[error("the backup has the digest {found}, not {expected}: it is another one, or somebody changed it; nothing was restored")]
    Digest {
        /// What was asked for.
        expected: Sha256Digest,
        /// What is there.
        found: Sha256Digest,
    },
    /// The place of the restored state is taken.
    #[error("`{0}` is not empty; a backup is restored into a new folder, never over a deployment, nothing was changed")]
    NotEmpty(PathBuf),
}

impl BackupError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
    /// A file of a backup that is not as it was.
    pub fn damaged(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), what: what.into() }
    }
}

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The version of the program that made it.
    pub swarm: String,
    /// When it was made.
    pub created: UnixTime,
    /// The deployment.
    pub deployment: String,
    /// Its profile.
    pub profile: String,
    /// The version of the database's schema.
    pub schema: u64,
    /// Entries of the log in the database.
    pub entries: u64,
    /// Entries under the newest signed checkpoint.
    pub published: u64,
    /// How many files there are.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The digest of the list of the files.
    pub list: Sha256Digest,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    size: u64,
    sha256: Sha256Digest,
}

/// A name with something behind it, in the same folder.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn digest(context: Context) -> Sha256Digest {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Sha256Digest::from_bytes(bytes)
}

/// The digest of a few bytes.
fn digest_of(bytes: &[u8]) -> Sha256Digest {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    digest(context)
}

/// Reads to the end in pieces: size and digest of what came, each piece handed on.
fn pass(mut from: impl std::io::Read, mut to: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<(u64, Sha256Digest)> {
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; PIECE];
    let mut size = 0_u64;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok((size, digest(context))),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        context.update(bytes);
        to(bytes)?;
        size = size.saturating_add(read as u64);
    }
}

/// The names of all plain files below a folder, relative to it, in order. Anything else is handed to `odd`.
fn walk(folder: &Path, odd: &mut dyn FnMut(&Path) -> Result<(), BackupError>) -> Result<Vec<String>, BackupError> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // An empty folder that was removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(BackupError::Io { path: folder, source }),
        };
        for entry in entries {
            let entry = entry.map_err(BackupError::io(&folder))?;
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(BackupError::Io { path: entry.path(), source }),
            };
            match entry.file_name().to_str() {
                Some(name) if kind.is_dir() => folders.push((entry.path(), format!("{prefix}{name}/"))),
                Some(name) if kind.is_file() => found.push(format!("{prefix}{name}")),
                Some(_) | None => odd(&entry.path())?,
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
