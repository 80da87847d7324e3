//! What was published cannot be taken back: a store that knows less than the tiles must not go on.

use audit::tile::TilePath;
use store::{BlobError, Blobs, Store};

use crate::bootstrap::{StartError, internal};
use crate::publisher::blob_path;

/// Refuses to go on with a store that knows less than the tiles.
///
/// Another control plane may append and publish while this one looks. An entry is in the store before its tile is published,
/// so a tile that was found is compared with the entries that are there afterwards.
pub(crate) async fn refuse_older(store: &Store, blobs: &Blobs) -> Result<(), StartError> {
    let mut entries = store.entry_count().await.map_err(internal)?;
    while let Some(published) = beyond(blobs, entries).await? {
        entries = store.entry_count().await.map_err(internal)?;
        if published > entries {
            return Err(StartError::LogAhead { published, entries });
        }
    }
    Ok(())
}

/// How many entries the published tiles hold at least, if that is more than the store has.
///
/// A store that was restored from an older copy would give its next entries the places of others that are published already,
/// and sign a second history. Every published size beyond `entries` left either the full tile in which the store's next entry
/// belongs, or a wider version of it, so at most 256 names are looked for.
pub(crate) async fn beyond(blobs: &Blobs, entries: u64) -> Result<Option<u64>, BlobError> {
    let (index, held) = (entries / 256, u16::try_from(entries % 256).unwrap_or_default());
    for width in (held.saturating_add(1)..=256).rev() {
        let Some(path) = TilePath::hashes(0, index, width) else { continue };
        if blobs.exists(&blob_path(&path)).await? {
            return Ok(Some(index.saturating_mul(256).saturating_add(u64::from(width))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(blobs: &Blobs, index: u64, width: u16) {
        let path = TilePath::hashes(0, index, width).unwrap();
        blobs.put(&blob_path(&path), vec![0; 32 * usize::from(width)].into()).await.unwrap();
    }

    #[tokio::test]
    async fn any_wider_or_later_tile_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(folder.path()).unwrap();
        assert_eq!(beyond(&blobs, 0).await.unwrap(), None);
        put(&blobs, 0, 7).await;
        assert_eq!(beyond(&blobs, 7).await.unwrap(), None, "exactly what is published");
        assert_eq!(beyond(&blobs, 9).await.unwrap(), None, "entries that are not published yet");
        assert_eq!(beyond(&blobs, 6).await.unwrap(), Some(7));
        put(&blobs, 0, 256).await;
        put(&blobs, 1, 3).await;
        assert_eq!(beyond(&blobs, 7).await.unwrap(), Some(256));
        assert_eq!(beyond(&blobs, 256).await.unwrap(), Some(259));
        assert_eq!(beyond(&blobs, 259).await.unwrap(), None);
    }
}
