//! The shred list: what was destroyed, kept beside the database, so that a backup from before does not bring it back.
//!
//! A line for each key version and each person that is gone: JSON, a space, a signature. Each line names the digest of the one
//! before. Normative: `docs/spec/shred-list.md`.
//!
//! **Invariant:** a line is on the disk as a whole before the next one is written; what a crash left of a line is cut off, and
//! a whole line that does not fit is refused. **Invariant:** the list holds ids and times, nothing that opens or names anything.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use audit::{LogSigner, VerifierKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vocabulary::{DeploymentId, KeyId, PersonId, Sha256Digest, TenantId, UnixTime};

/// The file's name in a server's folder.
pub const FILE: &str = "shred-list";
/// The version of the format.
const FORMAT: u32 = 1;
/// The context string of a line's signature.
const CONTEXT: &[u8] = b"swarm/shred-list/v1";
/// Bytes of a line: ids, numbers, a digest and a signature make less than 600.
const LINE_MAX: u64 = 1024;
/// Lines of a list: a destruction a minute for twenty years.
const LINES_MAX: u64 = 10_000_000;

/// Why a list is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read or written.
    #[error("the shred list {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody changed it.
    #[error("the shred list {path} is damaged: line {line} {what}; use another copy of it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another server writes it.
    #[error("the shred list {0} is in use by another server; each has its own")]
    InUse(PathBuf),
}

impl ListError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// What is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shred {
    /// A version of a key.
    Key {
        /// Whose.
        tenant: TenantId,
        /// The key.
        id: KeyId,
        /// Which version of it.
        version: u32,
    },
    /// A person, with factors and principals.
    Person {
        /// Who it was.
        id: PersonId,
    },
    /// Nothing: the server was there at this time, and the list is whole up to it.
    Mark {},
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: u32,
    deployment: DeploymentId,
    /// From 1, without gaps.
    number: u64,
    time: UnixTime,
    /// The digest of the line before, without its line feed; zeroes for the first.
    previous: Sha256Digest,
    what: Shred,
}

/// A list that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What is gone.
    pub shreds: BTreeSet<Shred>,
    /// Lines.
    pub lines: u64,
    /// The time of the last line: what was destroyed later is not in it.
    pub until: UnixTime,
    last: Sha256Digest,
    /// Bytes of the whole lines.
    bytes: u64,
}

/// Reads a list and checks every line of it: form, number, chain, deployment, and a signature of one of these keys. Half a
/// line at the end was never relied upon. `None` where there is no such file.
pub fn read(path: &Path, deployment: DeploymentId, keys: &[VerifierKey]) -> Result<Option<Checked>, ListError> {
    let failed = ListError::io(path);
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::new(file);
    let mut checked =
        Checked { shreds: BTreeSet::new(), lines: 0, until: UnixTime::from_millis(0), last: Sha256Digest::from_bytes([0; 32]), bytes: 0 };
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut text).map_err(ListError::io(path))?;
        let Some(line) = text.strip_suffix(b"\n") else {
            return match read {
                read if (read as u64) < LINE_MAX => Ok(Some(checked)),
                _ => Err(damaged(path, checked.lines.saturating_add(1), "is longer than a line can be")),
            };
        };
        let number = checked.lines.saturating_add(1);
        let one = parse(line, keys).map_err(|what| damaged(path, number, what))?;
        let wrong = match &one {
            one if one.format != FORMAT => Some("has a format that this program does not know"),
            one if one.deployment != deployment => Some("is of another deployment"),
            one if one.number != number => Some("does not have the number that it should have: lines are missing or doubled"),
            one if one.previous != checked.last => Some("does not follow the line before it"),
            one if one.time < checked.until => Some("is older than the line before it"),
            _ if number > LINES_MAX => Some("is more than a list has"),
            _ => None,
        };
        if let Some(what) = wrong {
            return Err(damaged(path, number, what));
        }
        if one.what != (Shred::Mark {}) {
            checked.shreds.insert(one.what);
        }
        (checked.lines, checked.until, checked.last) = (number, one.time, digest(line));
        checked.bytes = checked.bytes.saturating_add(read as u64);
    }
}

fn damaged(path: &Path, line: u64, what: &'static str) -> ListError {
    ListError::Damaged { path: path.to_owned(), line, what }
}

fn digest(line: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(keys::derive::sha256(&[line]))
}

/// Reads a line; nothing of it is looked at before its signature holds.
fn parse(line: &[u8], keys: &[VerifierKey]) -> Result<Line, &'static str> {
    let at = line.iter().rposition(|byte| *byte == b' ').ok_or("has no signature")?;
    let (payload, signature) = line.split_at_checked(at).ok_or("has no signature")?;
    let signature = signature.get(1..).and_then(|text| STANDARD.decode(text).ok()).ok_or("has no signature")?;
    if !keys.iter().any(|key| key.verifies(&[CONTEXT, payload].concat(), &signature)) {
        return Err("is not signed by this deployment");
    }
    serde_json::from_slice(payload).map_err(|_| "is malformed")
}

/// A line as it is written, without its line feed.
fn write(line: &Line, key: &dyn LogSigner) -> Result<Vec<u8>, std::io::Error> {
    let mut text = serde_json::to_vec(line)?;
    let signature = STANDARD.encode(key.sign(&[CONTEXT, text.as_slice()].concat()));
    text.push(b' ');
    text.extend_from_slice(signature.as_bytes());
    Ok(text)
}

/// A list that a server writes. One server has it.
#[derive(Debug)]
pub struct List {
    path: PathBuf,
    file: File,
    deployment: DeploymentId,
    checked: Checked,
}

impl List {
    /// Opens a list, or makes it; what a crash left of its last line is cut off.
    pub fn open(path: &Path, deployment: DeploymentId, key: &VerifierKey) -> Result<Self, ListError> {
        let failed = || ListError::io(path);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(ListError::InUse(path.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(failed()(error)),
        }
        let empty = Checked { shreds: BTreeSet::new(), lines: 0, until: UnixTime::from_millis(0), last: Sha256Digest::from_bytes([0; 32]), bytes: 0 };
        let checked = read(path, deployment, std::slice::from_ref(key))?.unwrap_or(empty);
        file.set_len(checked.bytes).and_then(|()| file.sync_all()).map_err(failed())?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed())?;
        }
        Ok(Self { path: path.to_owned(), file, deployment, checked })
    }

    /// The time of its last line.
    pub const fn until(&self) -> UnixTime {
        self.checked.until
    }
    /// What is gone.
    pub const fn shreds(&self) -> &BTreeSet<Shred> {
        &self.checked.shreds
    }

    /// Adds what is not in it yet, each as a line; they are on the disk when this returns. A mark is always added.
    pub fn add(&mut self, what: &[Shred], key: &dyn LogSigner, now: UnixTime) -> Result<(), ListError> {
        let mut text = Vec::new();
        let mut after = self.checked.clone();
        for shred in what {
            let mark = *shred == Shred::Mark {};
            if !mark && !after.shreds.insert(*shred) {
                continue;
            }
            // A clock that went back makes no line older than the one before it.
            let time = now.max(after.until);
            let line = Line { format: FORMAT, deployment: self.deployment, number: after.lines.saturating_add(1), time, previous: after.last, what: *shred };
            let line = write(&line, key).map_err(ListError::io(&self.path))?;
            (after.lines, after.until, after.last) = (after.lines.saturating_add(1), time, digest(&line));
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        after.bytes = after.bytes.saturating_add(text.len() as u64);
        if let Err(error) = self.file.write_all(&text).and_then(|()| self.file.sync_data()) {
            // What was half written must not stand before the next line.
            let _ = self.file.set_len(self.checked.bytes);
            return Err(ListError::io(&self.path)(error));
        }
        self.checked = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use audit::key::{Ed25519Signer, KeyKind, verifier_of};

    use super::*;

    const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);

    fn key() -> Ed25519Signer {
        Ed25519Signer::from_seed("swarm.invalid/tests/audit", &[7; 32]).unwrap()
    }
    fn shred(number: u8) -> Shred {
        Shred::Key { tenant: TenantId::from_bytes([2; 16]), id: KeyId::from_bytes([number; 16]), version: 1 }
    }
    fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(millis)
    }
    fn public() -> VerifierKey {
        verifier_of(&key(), KeyKind::Ed25519).unwrap()
    }

    /// Made once with this program; signatures and chain were checked with OpenSSL and Python. Every later program must read it.
    #[test]
    fn version_1_is_read_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut list = List::open(&path, DEPLOYMENT, &public()).unwrap();
        list.add(&[shred(3), Shred::Person { id: PersonId::from_bytes([4; 16]) }, Shred::Mark {}], &key(), at(1_795_617_028_123)).unwrap();
        expect_test::expect_file!["../../testdata/shred-list-v1"].assert_eq(&std::fs::read_to_string(&path).unwrap());
        let read = read(&path, DEPLOYMENT, &[public()]).unwrap().unwrap();
        assert_eq!((read.lines, read.until, read.shreds.len()), (3, at(1_795_617_028_123), 2));
    }

    #[test]
    fn a_list_goes_on_where_it_was_and_says_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(&path, DEPLOYMENT, &[public()]).unwrap(), None);
        let mut list = List::open(&path, DEPLOYMENT, &public()).unwrap();
        list.add(&[shred(1), shred(2)], &key(), at(10)).unwrap();
        assert!(matches!(List::open(&path, DEPLOYMENT, &public()), Err(ListError::InUse(_))), "one server has it");
        drop(list);
        // A clock that went back, and half a line of somebody who died.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole, &b"{\"format\":1,"[..]].concat()).unwrap();
        let mut list = List::open(&path, DEPLOYMENT, &public()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        list.add(&[shred(2), shred(3)], &key(), at(5)).unwrap();
        let found = read(&path, DEPLOYMENT, &[public()]).unwrap().unwrap();
        assert_eq!((found.lines, found.until, found.shreds), (3, at(10), BTreeSet::from([shred(1), shred(2), shred(3)])));
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
        let other = Ed25519Signer::from_seed("swarm.invalid/tests/audit", &[8; 32]).unwrap();
        let other = verifier_of(&other, KeyKind::Ed25519).unwrap();
        assert!(matches!(read(&path, DEPLOYMENT, &[other]), Err(ListError::Damaged { line: 1, .. })));
        let elsewhere = read(&path, DeploymentId::from_bytes([9; 16]), &[public()]).unwrap_err();
        assert!(elsewhere.to_string().contains("is of another deployment"), "{elsewhere}");
    }

    /// Whatever a file holds is a list, the beginning of one, or refused; nothing panics or grows without bound.
    #[test]
    fn no_byte_can_be_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut list = List::open(&path, DEPLOYMENT, &public()).unwrap();
        list.add(&[shred(1), shred(2), Shred::Mark {}], &key(), at(10)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let changed = folder.path().join("changed");
        for at in 0..whole.len() - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&changed, &bytes).unwrap();
            assert!(matches!(read(&changed, DEPLOYMENT, &[public()]), Err(ListError::Damaged { .. })), "byte {at}");
        }
        for length in 0..whole.len() {
            std::fs::write(&changed, &whole[..length]).unwrap();
            let lines = u64::try_from(whole[..length].iter().filter(|byte| **byte == b'\n').count()).unwrap();
            assert_eq!(read(&changed, DEPLOYMENT, &[public()]).unwrap().unwrap().lines, lines, "cut at {length}");
        }
        for odd in [&b"\n"[..], b" \n", b"{} AAAA\n", &[b'x'; 5000], &[0xff; 100]] {
            std::fs::write(&changed, odd).unwrap();
            let found = read(&changed, DEPLOYMENT, &[public()]);
            assert!(matches!(found, Err(ListError::Damaged { .. })) || found.is_ok_and(|found| found.is_some_and(|found| found.lines == 0)));
        }
    }
}
