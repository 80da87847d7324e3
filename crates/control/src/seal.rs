//! The seal's file and which one is in force.
//!
//! A deployment is born with `seal/passphrase.json`. Every later file is stored under its digest, and one row of the store
//! names the one in force: the row changes in one transaction with its entry, so that a change of the seal happened or did
//! not, wherever it breaks off. A file that no row names opens nothing: an older seal that somebody puts back is not read.

use keys::seal::{Opened, SealFile, SealKind};
use serde::{Deserialize, Serialize};
use store::{BlobPath, Blobs, Expect, Kind, Mutation, Page, Put, Store};
use vocabulary::{Profile, SYSTEM_OWNER, Sha256Digest, UnixTime};

use crate::bootstrap::{StartError, internal};
use crate::row::FORMAT;

/// The row that names the file in force, under the deployment's id.
pub(crate) const SEAL: Kind = Kind::new("seal");
/// Where the files lie.
const FOLDER: &str = "seal";
/// The file of a deployment that never changed its seal.
pub(crate) const FIRST: &str = "seal/passphrase.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealRow {
    format: u32,
    generation: u32,
    file: Sha256Digest,
    changed: UnixTime,
}

/// The file in force.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) file: SealFile,
    path: BlobPath,
    /// The row's revision; `None` before the first change.
    revision: Option<u64>,
}

/// Whether the production profile may have such a seal. Of the two kinds it allows the one that no single person opens.
pub(crate) const fn allowed(profile: Profile, kind: SealKind) -> bool {
    matches!((profile, kind), (Profile::Development, _) | (Profile::Production, SealKind::Shares))
}

fn path_of(digest: &Sha256Digest) -> Result<BlobPath, StartError> {
    format!("{FOLDER}/{}.json", hex::encode(digest.as_bytes())).parse().map_err(internal)
}

/// The name among the objects of the file that the row's body names.
pub(crate) fn named(body: &str) -> Option<BlobPath> {
    path_of(&serde_json::from_str::<SealRow>(body).ok()?.file).ok()
}

/// Reads the file in force; `None` where there is no seal at all.
pub(crate) async fn current(store: &Store, blobs: &Blobs) -> Result<Option<Current>, StartError> {
    let row = store.list(SYSTEM_OWNER, SEAL, Page::first(1)).await.map_err(internal)?.items.into_iter().next();
    let Some(stored) = row else {
        let path: BlobPath = FIRST.parse().map_err(internal)?;
        return match blobs.get(&path, keys::limits::SEAL_FILE_MAX).await {
            Ok(bytes) => Ok(Some(Current { file: SealFile::parse(&bytes)?, path, revision: None })),
            Err(store::BlobError::Absent(_)) => Ok(None),
            Err(error) => Err(error.into()),
        };
    };
    let row: SealRow = stored.parse().map_err(internal)?;
    let path = path_of(&row.file)?;
    let bytes = match blobs.get(&path, keys::limits::SEAL_FILE_MAX).await {
        Ok(bytes) => bytes,
        Err(store::BlobError::Absent(_)) => return Err(StartError::Mismatch("the seal file in force is missing, and an older one opens nothing")),
        Err(error) => return Err(error.into()),
    };
    if Sha256Digest::from_bytes(keys::derive::sha256(&[&bytes])) != row.file {
        return Err(StartError::Mismatch("the seal file was changed"));
    }
    let file = SealFile::parse(&bytes)?;
    if file.generation() != row.generation {
        return Err(StartError::Mismatch("the seal file is of another generation than the database knows"));
    }
    Ok(Some(Current { file, path, revision: Some(stored.revision) }))
}

/// Held from the moment a file is written until it is in force, and while others are removed: a process that sweeps must not
/// take another's new file for an old one.
pub(crate) async fn alone(store: &Store) -> Result<store::Alone, StartError> {
    store.alone("seal", [0; 16]).await.map_err(internal)
}

/// Writes a file that is not in force yet, and gives the change that puts it in force: for a transaction with its entry.
///
/// The change is refused when another one came first. The lock is held until it is committed.
pub(crate) async fn stage(blobs: &Blobs, opened: &Opened, before: &Current, now: UnixTime) -> Result<Mutation, StartError> {
    let file = opened.file();
    let bytes = file.to_bytes();
    let digest = Sha256Digest::from_bytes(keys::derive::sha256(&[&bytes]));
    blobs.put_same(&path_of(&digest)?, bytes.into()).await?;
    vocabulary::fault::reached(vocabulary::fault::Point::SealStaged);
    let row = SealRow { format: FORMAT, generation: file.generation(), file: digest, changed: now };
    let expect = before.revision.map_or(Expect::Absent, Expect::Revision);
    Ok(Put::json(SYSTEM_OWNER, SEAL, file.deployment(), expect, &row).map_err(internal)?.into())
}

/// Removes every file but the one in force, with the lock held. A key that an old file wraps must not be had for the old passphrase or shares.
pub(crate) async fn sweep(blobs: &Blobs, current: &Current) -> Result<(), StartError> {
    let folder: BlobPath = FOLDER.parse().map_err(internal)?;
    let mut after: Option<BlobPath> = None;
    loop {
        let found = blobs.list(&folder, after.as_ref(), 1000).await?;
        for entry in &found.items {
            if entry.path != current.path {
                blobs.delete(&entry.path).await?;
            }
        }
        match found.items.last() {
            Some(last) if found.truncated => after = Some(last.path.clone()),
            Some(_) | None => return Ok(()),
        }
    }
}
