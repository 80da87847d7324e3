//! Counting each tenant's entries, now and then, in the log itself: whoever shows a tenant fewer later contradicts a leaf.

use std::sync::Arc;

use audit::Event;
use serde::{Deserialize, Serialize};
use store::read::EntryFilter;
use store::{Expect, Kind, Page, Put, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::{SYSTEM_OWNER, TenantId, UnixTime};

use crate::clock;
use crate::limits::COUNT_EVERY;
use crate::row::{FORMAT, TenantRow};
use crate::state::Control;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The kind of [`CountRow`], kept by the deployment under the tenant's id.
const COUNT: Kind = Kind::new("entry_count");
/// Entries that are read at once.
const PAGE: u32 = 1000;

/// How many entries a tenant had below an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountRow {
    pub(crate) format: u32,
    pub(crate) below: u64,
    pub(crate) count: u64,
}

/// Counts until told to stop.
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            tokio::time::sleep(COUNT_EVERY).await;
            if let Err(error) = every_tenant(&control, clock::now()).await {
                tracing::error!(%error, "entries were not counted");
            }
        }
    })
    .await;
}

/// Counts the entries of every tenant, and of the platform.
pub(crate) async fn every_tenant(control: &Control, now: UnixTime) -> Result<(), Failed> {
    one(control, SYSTEM_OWNER, now).await?;
    let mut page = Page::first(PAGE);
    loop {
        let found = control.store.list(SYSTEM_OWNER, Kind::TENANT, page).await?;
        for stored in &found.items {
            let row: TenantRow = stored.parse()?;
            one(control, row.id, now).await?;
        }
        match found.items.last().map(|row| row.id) {
            Some(last) if found.truncated => page = Page::after(last, PAGE),
            _ => return Ok(()),
        }
    }
}

/// Counts on from the last count. Where nothing came since but that count itself, nothing is written.
async fn one(control: &Control, tenant: TenantId, now: UnixTime) -> Result<(), Failed> {
    let known = control.store.get_json::<CountRow>(SYSTEM_OWNER, COUNT, tenant).await?;
    let (expect, before) = match known {
        Some((stored, row)) => (Expect::Revision(stored.revision), row),
        None => (Expect::Absent, CountRow { format: FORMAT, below: 0, count: 0 }),
    };
    // Indexes are given in the order of commits: no entry appears below this any more.
    let below = control.store.entry_count().await?;
    let (mut count, mut from, mut news) = (before.count, before.below, false);
    loop {
        let found = control.store.entries_from(tenant, from, PAGE, &EntryFilter::default()).await?;
        for row in found.items.iter().filter(|row| row.index < below) {
            count = count.saturating_add(1);
            news |= row.action != "entries_counted";
        }
        match found.items.last() {
            Some(last) if found.truncated && last.index < below => from = last.index.saturating_add(1),
            _ => break,
        }
    }
    if !news {
        return Ok(());
    }
    let event = Event::EntriesCounted { below, count };
    let entry = control.system_entry(now, tenant, event).map_err(|failure| failure.problem.detail)?;
    let row = CountRow { format: FORMAT, below, count };
    let put = Put::json(SYSTEM_OWNER, COUNT, tenant, expect, &row)?;
    match control.store.commit(Transaction::new().with(put).entry(entry), now).await {
        Ok(_) => Ok(()),
        // Another process counted in the same moment.
        Err(error) if error.conflict().is_some() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
