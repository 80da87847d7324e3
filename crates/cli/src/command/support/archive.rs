//! The file of a bundle: a tar archive under zstd, of which the first member says what the others are.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use vocabulary::{Sha256Digest, UnixTime};

use crate::error::CliError;

/// The name of the format.
pub(crate) const FORMAT: &str = "swarm-support-bundle";
/// Its version.
const VERSION: u32 = 1;
/// The folder in which the members lie.
const FOLDER: &str = "swarm-support";
/// Bytes of all members together: what goes by mail. What does not fit is left out and said to be.
const BYTES_MAX: usize = 8 << 20;
/// zstd's own choice between size and time.
const LEVEL: i32 = 3;

/// What a bundle is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Manifest {
    format: &'static str,
    version: u32,
    /// The program that made it.
    swarm: &'static str,
    /// When.
    made: UnixTime,
    pub(crate) files: Vec<Member>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// A member.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    sha256: Sha256Digest,
}

/// Something that is not in it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
}

/// A bundle in the making.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    members: Vec<(Member, Vec<u8>)>,
    left_out: Vec<LeftOut>,
    bytes: usize,
}

impl Bundle {
    /// Says that something is not in it.
    pub(crate) fn left_out(&mut self, what: &'static str, why: &'static str) {
        self.left_out.push(LeftOut { what, why });
    }

    /// Adds a member, if it fits.
    pub(crate) fn add(&mut self, name: &'static str, bytes: Vec<u8>) {
        let after = self.bytes.saturating_add(bytes.len());
        if after > BYTES_MAX {
            return self.left_out(name, "the bundle would be larger than 8 MiB");
        }
        self.bytes = after;
        self.members.push((Member { name, bytes: bytes.len(), sha256: digest(&bytes) }, bytes));
    }

    /// Adds a document.
    pub(crate) fn document<T: Serialize>(&mut self, name: &'static str, document: &T) {
        match serde_json::to_vec_pretty(document) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.add(name, bytes);
            }
            Err(_) => self.left_out(name, "it could not be written as JSON"),
        }
    }

    /// Writes it into a new file of mode 0600, whole or not at all. Returns the manifest and the file's digest.
    pub(crate) fn write(self, to: &Path, now: UnixTime) -> Result<(Manifest, Sha256Digest), CliError> {
        let failed = |error: std::io::Error| CliError::new(1, format!("cannot write {}: {error}", to.display()));
        let (files, bodies): (Vec<Member>, Vec<Vec<u8>>) = self.members.into_iter().unzip();
        let manifest = Manifest { format: FORMAT, version: VERSION, swarm: env!("CARGO_PKG_VERSION"), made: now, files, left_out: self.left_out };
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).map_err(failed)?);
        let members = std::iter::once(("manifest.json", &text)).chain(manifest.files.iter().map(|file| file.name).zip(&bodies));
        for (name, body) in members {
            // Of the machine and its user nothing goes into the headers.
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            header.set_mode(0o600);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            tar.append_data(&mut header, format!("{FOLDER}/{name}"), body.as_slice()).map_err(failed)?;
        }
        let bytes = tar.into_inner().and_then(zstd::Encoder::finish).map_err(failed)?;
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let taken = |path: &Path| CliError::new(5, format!("`{}` is there already; nothing was written", path.display())).hint("name another file, or remove it");
        if std::fs::symlink_metadata(to).is_ok() {
            return Err(taken(to));
        }
        let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(taken(partial)),
            Err(error) => return Err(failed(error)),
        };
        let done = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(partial, to));
        if let Err(error) = done {
            let _ = std::fs::remove_file(partial);
            return Err(failed(error));
        }
        Ok((manifest, digest(&bytes)))
    }
}

fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(audit::hash::sha256(&[bytes]))
}
