//! Follows the change sequence: every change once, in order, none missing.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, Stream};
use vocabulary::TenantId;

use crate::engine::{Row, binds};
use crate::error::ReadError;
use crate::limits::{WATCH_BATCH, WATCH_POLL_MS};
use crate::sql;
use crate::store::Store;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place: contiguous from 1, in the order of commits.
    pub seq: u64,
    /// Of what: see [`crate::Kind`].
    pub kind: String,
    /// Which.
    pub id: [u8; 16],
    /// Whose.
    pub tenant: TenantId,
    /// The revision that it made; for typed tables what the kind says.
    pub revision: u64,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Changes after the asked place were forgotten.
    #[error("changes up to {floor} are forgotten; read the state anew and follow from there")]
    Forgotten {
        /// The last one that was forgotten.
        floor: u64,
    },
    /// The place lies in the future: another database.
    #[error("the place {since} lies after the last change {latest}; this is another database, read the state anew")]
    Ahead {
        /// What was asked.
        since: u64,
        /// The last change.
        latest: u64,
    },
    /// The database failed.
    #[error("the changes cannot be read")]
    Read(#[from] ReadError),
}

struct Following {
    store: Store,
    latest: tokio::sync::watch::Receiver<u64>,
    since: u64,
    first: bool,
    waiting: VecDeque<Change>,
}

impl Store {
    /// Changes after a place, as they are committed. Read [`Store::latest_change`] first, then the state, then follow from
    /// that place: nothing is missed. Ends with an error, or when the store is closed.
    pub fn watch(&self, since: u64) -> impl Stream<Item = Result<Change, WatchError>> + Send + use<> {
        let following = Following {
            store: self.clone(),
            latest: self.inner.latest.clone(),
            since,
            first: true,
            waiting: VecDeque::new(),
        };
        stream::try_unfold(Some(following), |following| async move {
            let Some(mut following) = following else { return Ok(None) };
            match following.next().await? {
                Some(change) => Ok(Some((change, Some(following)))),
                None => Ok(None),
            }
        })
    }
}

impl Following {
    async fn next(&mut self) -> Result<Option<Change>, WatchError> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                self.since = change.seq;
                return Ok(Some(change));
            }
            // What is committed from here on wakes the wait below, also when the read just missed it.
            self.latest.borrow_and_update();
            self.fetch().await?;
            if !self.waiting.is_empty() {
                continue;
            }
            if self.store.inner.requests.is_closed() {
                return Ok(None);
            }
            let poll = tokio::time::sleep(Duration::from_millis(WATCH_POLL_MS));
            tokio::select! {
                // The sender goes with the writer: the store is closing.
                changed = self.latest.changed() => if changed.is_err() {
                    self.fetch().await?;
                    if self.waiting.is_empty() { return Ok(None) }
                },
                () = poll => {}
            }
        }
    }

    async fn fetch(&mut self) -> Result<(), WatchError> {
        let since = i64::try_from(self.since).unwrap_or(i64::MAX);
        if self.first {
            let latest = *self.latest.borrow();
            let last = self.number(sql::CHANGE_LAST, Vec::new()).await?.max(latest);
            if self.since > last {
                return Err(WatchError::Ahead { since: self.since, latest: last });
            }
            self.first = false;
        }
        let read = |row: &Row| {
            Ok(Change {
                seq: row.number(0)?,
                tenant: TenantId::from_bytes(row.array(1)?),
                kind: row.text(2)?,
                id: row.array(3)?,
                revision: row.number(4)?,
                deleted: row.flag(5)?,
            })
        };
        let found = self.store.all(sql::CHANGES, binds![since, WATCH_BATCH], read).await?;
        // Places are contiguous: the next one is missing only where it was forgotten.
        if found.first().is_some_and(|first| first.seq != self.since.saturating_add(1)) {
            let floor = self.number(sql::COUNTER_READ, binds!["change_floor"]).await?;
            return Err(WatchError::Forgotten { floor });
        }
        self.waiting.extend(found);
        Ok(())
    }

    async fn number(&self, statement: sql::Statement, binds: Vec<crate::engine::Bind>) -> Result<u64, ReadError> {
        Ok(self.store.one(statement, binds, |row| row.number(0)).await?.unwrap_or(0))
    }
}
