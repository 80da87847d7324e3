//! Files of the agent's own directory: mode 0600, whole or not at all after a crash, read within bounds.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a file so that after a crash it is there whole or not at all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = write_whole(path, bytes, true)?;
    File::open(parent)?.sync_all()
}

/// Writes a file that may be lost in a crash, but is never half there while the machine runs.
pub(crate) fn write_lightly(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, false).map(drop)
}

fn write_whole<'a>(path: &'a Path, bytes: &[u8], sync: bool) -> io::Result<&'a Path> {
    let parent = path.parent().ok_or_else(|| io::Error::other("path without a directory"))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = parent.join(name);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(&temporary, path)?;
    Ok(parent)
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::other(format!("the file has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads a file that may be absent.
pub(crate) fn read_if_there(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match read(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a value as JSON, durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// Reads a value from JSON; fields that this version does not know are refused by the type.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> io::Result<T> {
    serde_json::from_slice(&read(path, limit)?).map_err(io::Error::other)
}

/// Makes a directory of mode 0700 and those above it.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a file that may be absent.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_whole_and_bounded() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        write_durably(&path, b"one").unwrap();
        write_lightly(&path, b"two").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"two");
        assert!(read(&path, 2).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_if_there(&place.path().join("absent"), 1).unwrap(), None);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "nothing half-written is left");
    }
}
