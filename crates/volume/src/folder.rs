//! Folders of a machine into a volume and out of it: regular files only, real folders only, names that stay inside.

use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use keys::Random;

use crate::catalogue::FileEntry;
use crate::durable::Durable;
use crate::io::{IoError, ObjectPort, Progress, Reader, Writer};
use crate::limits::FILES_MAX;
use crate::name;

/// Why a folder cannot be sealed, or a volume cannot be opened into one.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Neither a regular file nor a folder.
    #[error("`{0}` is no regular file: links and devices are refused")]
    NotRegular(String),
    /// A name that is not UTF-8.
    #[error("`{0}`: its name is not UTF-8")]
    NotUtf8(String),
    /// A name that a volume does not take.
    #[error("`{path}`: {source}")]
    Name {
        /// The file.
        path: String,
        /// The rule.
        source: name::NameError,
    },
    /// The files together are longer than the caller allows.
    #[error("the files of `{folder}` have more than {limit} bytes by their lengths")]
    TooLong {
        /// The folder.
        folder: String,
        /// The limit.
        limit: u64,
    },
    /// More files than a volume takes.
    #[error("`{0}` has more than {FILES_MAX} files")]
    TooMany(String),
    /// Something is where a file or folder should go.
    #[error("`{0}` is there already")]
    Taken(String),
    /// A link, folder or device is where a file should go.
    #[error("`{0}` is there and is no regular file: it is never replaced")]
    NoFile(String),
    /// Something else than a folder is on the way.
    #[error("`{0}` is there and is no folder")]
    NoFolder(String),
    /// The disk.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Reading or writing the volume.
    #[error(transparent)]
    Volume(#[from] IoError),
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError {
    let path = path.display().to_string();
    move |source| FolderError::File { path, source }
}

/// A file of a folder with the name that it gets in the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name in the volume.
    pub name: String,
    /// Its bytes.
    pub length: u64,
    /// When it was changed last, ms since 1970.
    pub mtime: u64,
    /// Device and number: it must still be this file when it is opened.
    identity: (u64, u64),
}

/// Walks a folder in the order of its names; blocks. `limit` bounds the sum of the lengths, which a sparse file can
/// claim without having them.
///
/// # Errors
/// On the first entry that is neither a regular file nor a folder, or whose name a volume does not take, with its path.
pub fn scan(folder: &Path, limit: u64) -> Result<Vec<Source>, FolderError> {
    let mut found = Vec::new();
    let mut total = 0;
    walk(folder, "", limit, &mut total, &mut found)?;
    Ok(found)
}

/// One file under a name of the caller's choice; blocks.
///
/// # Errors
/// As [`scan`].
pub fn single(path: &Path, name: String) -> Result<Source, FolderError> {
    let metadata = std::fs::symlink_metadata(path).map_err(file(path))?;
    take(path, name, &metadata)
}

fn walk(folder: &Path, prefix: &str, limit: u64, total: &mut u64, found: &mut Vec<Source>) -> Result<(), FolderError> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<_, _>>).map_err(file(folder))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let part = entry.file_name().into_string().map_err(|_| FolderError::NotUtf8(path.display().to_string()))?;
        let name = if prefix.is_empty() { part } else { format!("{prefix}/{part}") };
        let metadata = std::fs::symlink_metadata(&path).map_err(file(&path))?;
        if metadata.is_dir() {
            // The rule for names bounds the depth of the walk as well.
            name::check(&name).map_err(|source| FolderError::Name { path: path.display().to_string(), source })?;
            walk(&path, &name, limit, total, found)?;
            continue;
        }
        let source = take(&path, name, &metadata)?;
        *total = total.saturating_add(source.length);
        if *total > limit {
            return Err(FolderError::TooLong { folder: folder.display().to_string(), limit });
        }
        found.push(source);
        if found.len() > FILES_MAX {
            return Err(FolderError::TooMany(folder.display().to_string()));
        }
    }
    Ok(())
}

fn take(path: &Path, name: String, metadata: &std::fs::Metadata) -> Result<Source, FolderError> {
    if !metadata.is_file() {
        return Err(FolderError::NotRegular(path.display().to_string()));
    }
    name::check(&name).map_err(|source| FolderError::Name { path: path.display().to_string(), source })?;
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(Source {
        path: path.to_owned(),
        name,
        length: metadata.len(),
        mtime: u64::try_from(since.as_millis()).unwrap_or(0),
        identity: (metadata.dev(), metadata.ino()),
    })
}

/// Seals files into the next state of a volume.
///
/// # Errors
/// When a file is not the one that was walked any more, changes while it is read, or sealing fails.
pub async fn put<P: ObjectPort>(
    writer: &mut Writer<'_, P>,
    sources: &[Source],
    random: &mut dyn Random,
    progress: Progress<'_>,
) -> Result<(), FolderError> {
    for source in sources {
        let opened = std::fs::File::open(&source.path).map_err(file(&source.path))?;
        let metadata = opened.metadata().map_err(file(&source.path))?;
        if !metadata.is_file() || (metadata.dev(), metadata.ino()) != source.identity {
            return Err(IoError::Changed(source.path.display().to_string()).into());
        }
        writer.add(&source.name, source.length, source.mtime, opened, random, progress).await?;
    }
    Ok(())
}

/// How files get their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placing {
    /// Whether regular files that are there already are replaced.
    pub overwrite: bool,
    /// Whether each file is on the disk before it gets its name.
    pub durable: bool,
    /// Permission bits of the files.
    pub mode: u32,
}

/// Opens files of a volume below `target`, which must be a folder. What cannot be checked to its end never gets its name.
///
/// # Errors
/// When the volume is damaged, something is in the way, or the disk refuses.
pub async fn get<P: ObjectPort>(
    reader: &Reader<'_, P>,
    files: &[&FileEntry],
    target: &Path,
    how: Placing,
    progress: Progress<'_>,
) -> Result<(), FolderError> {
    for (index, entry) in files.iter().enumerate() {
        let place = place(target, &entry.name, how.overwrite)?;
        // Should the volume have a file of this very name, one of the two is refused as taken; nothing is overwritten.
        let temporary = place.with_file_name(format!(".swarm-{}-{index}", std::process::id()));
        let written = async {
            let mut options = std::fs::OpenOptions::new();
            let out = options.write(true).create_new(true).mode(how.mode).open(&temporary).map_err(file(&temporary))?;
            if !how.durable {
                return reader.read(entry, out, progress).await.map(drop).map_err(FolderError::from);
            }
            let out = reader.read(entry, Durable::new(out), progress).await?;
            let synced = tokio::task::spawn_blocking(move || out.finish()).await.map_err(std::io::Error::other);
            synced.and_then(|synced| synced).map_err(file(&temporary))
        };
        let named = match written.await {
            Ok(()) => std::fs::rename(&temporary, &place).map_err(file(&place)),
            Err(error) => Err(error),
        };
        if let Err(error) = named {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
    }
    if how.durable { std::fs::File::open(target).and_then(|folder| folder.sync_all()).map_err(file(target)) } else { Ok(()) }
}

/// Where a file goes: below the target, through real folders only.
fn place(target: &Path, name: &str, overwrite: bool) -> Result<PathBuf, FolderError> {
    name::check(name).map_err(|source| FolderError::Name { path: target.display().to_string(), source })?;
    let mut at = target.to_owned();
    let mut parts = Path::new(name).components().peekable();
    while let Some(part) = parts.next() {
        // `name::check` lets nothing else pass.
        let Component::Normal(part) = part else { return Err(FolderError::NoFolder(at.display().to_string())) };
        at.push(part);
        let seen = match std::fs::symlink_metadata(&at) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(file(&at)(error)),
        };
        match (parts.peek().is_some(), seen) {
            (true, Some(metadata)) if metadata.is_dir() => {}
            (true, Some(_)) => return Err(FolderError::NoFolder(at.display().to_string())),
            (true, None) => std::fs::create_dir(&at).map_err(file(&at))?,
            (false, None) => {}
            (false, Some(metadata)) if overwrite && metadata.is_file() => {}
            (false, Some(metadata)) if !metadata.is_file() => return Err(FolderError::NoFile(at.display().to_string())),
            (false, Some(_)) => return Err(FolderError::Taken(at.display().to_string())),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use bytes::Bytes;
    use keys::{PlainKey, SigningKey, SystemRandom};
    use vocabulary::volume::RootHead;
    use vocabulary::{KeyId, LineageId, Sha256Digest, TenantId, UnixTime, VolumeId};

    use super::*;
    use crate::io::PortError;
    use crate::segment::SegmentKeys;

    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<String, Bytes>>);

    impl ObjectPort for Memory {
        async fn put(&self, path: String, bytes: Bytes) -> Result<(), PortError> {
            self.0.lock().unwrap().insert(path, bytes);
            Ok(())
        }
        async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
            Ok(self.0.lock().unwrap().get(&path).cloned())
        }
    }

    fn keys() -> SegmentKeys {
        let epochs = vec![(1, KeyId::from_bytes([1; 16]), PlainKey::from_bytes([2; 32]))];
        SegmentKeys { tenant: TenantId::from_bytes([3; 16]), volume: VolumeId::from_bytes([4; 16]), epochs }
    }

    fn empty() -> RootHead {
        RootHead { lineage: LineageId::from_bytes([5; 16]), seq: 0, writer_epoch: 0, root: Sha256Digest::from_bytes([0; 32]) }
    }

    const PLACING: Placing = Placing { overwrite: false, durable: true, mode: 0o600 };

    /// Seals a folder and gives what lies in the store, with head and signer.
    async fn sealed(folder: &Path, keys: &SegmentKeys) -> (Memory, RootHead, keys::VerifyingKey) {
        let store = Memory::default();
        let sources = scan(folder, 1 << 20).unwrap();
        let signer = SigningKey::generate(&mut SystemRandom);
        let public = signer.verifying_key();
        let reader = Reader::open(&store, keys, &empty(), &BTreeMap::new()).await.unwrap();
        let mut writer = Writer::new(reader, 1, signer);
        put(&mut writer, &sources, &mut SystemRandom, &|_, _| ()).await.unwrap();
        let record = writer.finish(UnixTime::from_millis(1), &mut SystemRandom).await.unwrap();
        let head = RootHead { seq: 1, writer_epoch: 1, root: Sha256Digest::from_bytes(record.root()), ..empty() };
        store.put("chain/00000000000000000001".to_owned(), record.to_bytes().into()).await.unwrap();
        (store, head, public)
    }

    #[tokio::test]
    async fn a_folder_goes_in_and_comes_out_the_same() {
        let from = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(from.path().join("a/b")).unwrap();
        std::fs::write(from.path().join("a/b/deep"), b"deep").unwrap();
        std::fs::write(from.path().join("top"), b"top").unwrap();
        let keys = keys();
        let (store, head, signer) = sealed(from.path(), &keys).await;
        let reader = Reader::open(&store, &keys, &head, &BTreeMap::from([(1, signer)])).await.unwrap();
        let files: Vec<_> = reader.files().iter().collect();
        let to = tempfile::tempdir().unwrap();
        get(&reader, &files, to.path(), PLACING, &|_, _| ()).await.unwrap();
        assert_eq!(std::fs::read(to.path().join("a/b/deep")).unwrap(), b"deep");
        assert_eq!(std::fs::read(to.path().join("top")).unwrap(), b"top");
        // What is there is not replaced unasked, and the way leads through no link.
        assert!(matches!(get(&reader, &files, to.path(), PLACING, &|_, _| ()).await, Err(FolderError::Taken(_))));
        std::fs::remove_file(to.path().join("top")).unwrap();
        std::os::unix::fs::symlink("elsewhere", to.path().join("top")).unwrap();
        let replacing = Placing { overwrite: true, ..PLACING };
        assert!(matches!(get(&reader, &files, to.path(), replacing, &|_, _| ()).await, Err(FolderError::NoFile(_))));
        assert!(!to.path().join("elsewhere").exists(), "nothing is written through a link");
        let trap = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", trap.path().join("a")).unwrap();
        assert!(matches!(get(&reader, &files, trap.path(), PLACING, &|_, _| ()).await, Err(FolderError::NoFolder(_))));
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn damage_leaves_no_file() {
        let from = tempfile::tempdir().unwrap();
        std::fs::write(from.path().join("one"), b"one").unwrap();
        let keys = keys();
        let (store, head, signer) = sealed(from.path(), &keys).await;
        for (path, bytes) in store.0.lock().unwrap().iter_mut().filter(|(path, _)| path.starts_with("seg/")) {
            let mut changed = bytes.to_vec();
            changed[130] ^= 1;
            assert!(!path.is_empty());
            *bytes = changed.into();
        }
        let reader = Reader::open(&store, &keys, &head, &BTreeMap::from([(1, signer)])).await.unwrap();
        let to = tempfile::tempdir().unwrap();
        let files: Vec<_> = reader.files().iter().collect();
        assert!(matches!(get(&reader, &files, to.path(), PLACING, &|_, _| ()).await, Err(FolderError::Volume(IoError::Damage(_)))));
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_devices_and_odd_names_are_refused_with_their_path() {
        let refused = |make: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            scan(folder.path(), 1 << 20).unwrap_err()
        };
        let link = refused(&|folder| std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap());
        assert!(matches!(&link, FolderError::NotRegular(path) if path.ends_with("/link")), "{link}");
        let socket = refused(&|folder| drop(std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap()));
        assert!(matches!(socket, FolderError::NotRegular(_)));
        let odd = refused(&|folder| std::fs::write(folder.join("a\nb"), b"").unwrap());
        assert!(matches!(odd, FolderError::Name { .. }));
        let bytes = std::os::unix::ffi::OsStringExt::from_vec(vec![b'a', 0xff]);
        let bytes: std::ffi::OsString = bytes;
        let raw = refused(&move |folder| std::fs::write(folder.join(&bytes), b"").unwrap());
        assert!(matches!(raw, FolderError::NotUtf8(_)));
        // A sparse file claims more than it has.
        let sparse = refused(&|folder| std::fs::File::create(folder.join("sparse")).unwrap().set_len(1 << 40).unwrap());
        assert!(matches!(sparse, FolderError::TooLong { limit: 1_048_576, .. }));
    }
}
