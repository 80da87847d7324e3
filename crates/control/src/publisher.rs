//! The publisher of the log: tiles durable, then checkpoint signed and stored, then served. One fenced publisher at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit::checkpoint::Checkpoint;
use audit::key::LogSigner as _;
use audit::tile::{TilePath, TileReader, edge};
use audit::{Hash, Outcome};
use store::{BlobError, Blobs, Mutation, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::{ControlId, SYSTEM_OWNER};
use vocabulary::fault::{self, Point};

use crate::clock;
use crate::limits::PUBLISH_INTERVAL;
use crate::state::Control;

/// The folder of tiles among the blobs.
pub(crate) const LOG_FOLDER: &str = "log";
/// The publisher's lease: long enough for a slow disk, short enough for a fast takeover.
const PUBLISHER_LEASE_MS: u64 = 10_000;
/// Leaves of one checkpoint: what a few seconds of the busiest log bring; their tiles stay below 3 MiB.
const PUBLISH_LEAVES_MAX: u64 = 32_768;
/// Bytes of a tile or bundle.
const TILE_MAX: usize = 64 << 10;

/// Tiles that were read, handed to the pure core.
#[derive(Debug, Default)]
pub(crate) struct Tiles(BTreeMap<String, Vec<u8>>);

impl Tiles {
    /// Reads tiles; a partial one that is gone is found in the full one.
    pub(crate) async fn load(blobs: &Blobs, paths: &[TilePath]) -> Result<Self, BlobError> {
        let mut tiles = BTreeMap::new();
        for path in paths {
            let full = path.with_width(256);
            for candidate in std::iter::once(*path).chain(full) {
                match blobs.get(&blob_path(&candidate), TILE_MAX).await {
                    Ok(bytes) => {
                        tiles.insert(candidate.to_string(), bytes.to_vec());
                        break;
                    }
                    Err(BlobError::Absent(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Self(tiles))
    }
}

impl TileReader for Tiles {
    fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        let full = path.with_width(256);
        std::iter::once(*path).chain(full).find_map(|path| self.0.get(&path.to_string()).cloned())
    }
}

pub(crate) fn blob_path(path: &TilePath) -> store::BlobPath {
    // A tile's path has digits, `x`, `p` and slashes only, which every blob name may have.
    match format!("{LOG_FOLDER}/{path}").parse() {
        Ok(path) => path,
        Err(_) => std::process::abort(),
    }
}

/// Publishes until told to stop. Errors are told and tried again. A tile is never written with other bytes, and a store that
/// knows less than the tiles was refused at the start ([`crate::published`]).
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(PUBLISH_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut minute = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        if let Err(error) = publish(&control).await {
            tracing::error!(%error, "the log was not published");
        }
        let now = clock::now();
        if now.millis() / 60_000 != minute {
            minute = now.millis() / 60_000;
            if let Err(error) = every_minute(&control).await {
                tracing::warn!(%error, "minute work failed");
            }
        }
    }
    // What was acknowledged last is published before the process ends, and whoever comes next need not wait for its lease.
    if let Err(error) = publish(&control).await {
        tracing::error!(%error, "what was acknowledged last is not published yet: the next start does it");
    }
    if let Err(error) = release(&control).await {
        tracing::warn!(%error, "the publisher's lease was not given back: the next publisher waits for its end");
    }
}

/// Ends the lease of this process, if it has one.
async fn release(control: &Control) -> Result<(), Failed> {
    let ours = control.store.publisher().await?.is_some_and(|publisher| publisher.holder == control.control);
    if ours { end_lease(control, control.control).await } else { Ok(()) }
}

async fn end_lease(control: &Control, holder: ControlId) -> Result<(), Failed> {
    let now = clock::now();
    control.store.commit(Transaction::new().with(Mutation::TakePublisher { holder, until: now }), now).await?;
    Ok(())
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Publishes what is there before the first request is answered, so that whoever may ask finds a log. What cannot be published
/// yet, because witnesses are asked first or another process holds the lease, is left to [`run`].
pub(crate) async fn begin(control: &Control) {
    let begun = async {
        end_of_the_gone(control).await?;
        crate::witness::gather::begin(control).await?;
        publish(control).await
    };
    if let Err(error) = begun.await {
        tracing::error!(%error, "the log was not published; tried again");
    }
}

/// A database in a file has one owner: whoever holds the lease in it was killed, or is what this is a copy of.
async fn end_of_the_gone(control: &Control) -> Result<(), Failed> {
    match control.store.publisher().await?.filter(|gone| !control.store.is_shared() && gone.until > clock::now()) {
        Some(gone) => end_lease(control, gone.holder).await,
        None => Ok(()),
    }
}

async fn publish(control: &Control) -> Result<(), Failed> {
    if !control.witnesses.may_publish() {
        return Ok(());
    }
    let now = clock::now();
    let size = control.store.entry_count().await?;
    let publisher = control.store.publisher().await?;
    let published = publisher.as_ref().map_or(0, |publisher| publisher.size);
    if size == published {
        tell(control, published);
        return Ok(());
    }
    // While another process holds the lease, asking for it would be a write for nothing.
    if publisher.as_ref().is_some_and(|publisher| publisher.holder != control.control && publisher.until > now) {
        tell(control, published);
        return Ok(());
    }
    let take = Mutation::TakePublisher { holder: control.control, until: now.plus_millis(PUBLISHER_LEASE_MS) };
    let token = match control.store.commit(Transaction::new().with(take), now).await {
        Ok(committed) => committed.revisions.first().copied().unwrap_or_default(),
        // Another process publishes.
        Err(error) if matches!(error.conflict(), Some(store::Conflict::Fenced { .. })) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    fault::reached(Point::LogTaken);
    let root = publisher.and_then(|publisher| publisher.root).map_or_else(audit::hash::empty_root, |root| Hash::from_slice(&root).unwrap_or_else(audit::hash::empty_root));
    // A page of the store is smaller than what a second may bring: several make one checkpoint.
    let mut leaves = Vec::new();
    while u64::try_from(leaves.len())? < size.saturating_sub(published).min(PUBLISH_LEAVES_MAX) {
        let page = control.store.leaves(published.saturating_add(u64::try_from(leaves.len())?)).await?;
        if page.is_empty() {
            break;
        }
        leaves.extend(page);
    }
    let bytes: Vec<&[u8]> = leaves.iter().map(|leaf| leaf.leaf.as_slice()).collect();
    let tiles = Tiles::load(&control.blobs, &edge(published)).await?;
    let appended = audit::append(&tiles, published, &root, &bytes)?;
    for (path, bytes) in appended.files {
        control.blobs.put_same(&blob_path(&path), bytes.into()).await?;
    }
    fault::reached(Point::LogTiles);
    let checkpoint = Checkpoint { origin: control.log.name().to_owned(), size: appended.size, root: appended.root };
    let note = checkpoint.sign(&control.log)?.encode();
    let set = Mutation::Publish { token, size: appended.size, root: *appended.root.as_bytes(), checkpoint: note };
    control.store.commit(Transaction::new().with(set), now).await?;
    fault::reached(Point::LogPublished);
    tell(control, appended.size);
    Ok(())
}

/// Tells the size of the published log, whoever published it; never back.
fn tell(control: &Control, size: u64) {
    control.published.send_if_modified(|told| {
        let higher = size > *told;
        *told = size.max(*told);
        higher
    });
}

/// Strangers' refusals of finished minutes become entries.
async fn every_minute(control: &Control) -> Result<(), Failed> {
    let now = clock::now();
    let this_minute = vocabulary::UnixTime::from_millis(now.millis() / 60_000 * 60_000);
    let finished = control.store.refusals_before(this_minute, 200).await?;
    for counted in finished.items {
        let code = vocabulary::ErrorCode::ALL.iter().find(|code| code.as_str() == counted.code).copied();
        let code = code.unwrap_or(vocabulary::ErrorCode::Unauthenticated);
        let event = audit::Event::StrangersRefused {
            code,
            minute: counted.minute,
            count: u32::try_from(counted.count).unwrap_or(u32::MAX),
        };
        let entry = control
            .entry(
                now,
                SYSTEM_OWNER,
                audit::Actor::Stranger,
                audit::Source::Peer(counted.source.clone()),
                Outcome::Refused(code),
                None,
                event,
            )
            .map_err(|failure| failure.problem.detail.clone())?;
        let take = Mutation::TakeRefusals { source: counted.source, minute: counted.minute, code: counted.code, count: counted.count };
        match control.store.commit(Transaction::new().with(take).entry(entry), now).await {
            Ok(_) => {}
            // Another process took this count.
            Err(error) if error.conflict().is_some() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
