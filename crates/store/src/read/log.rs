//! Reads entries, leaves, the published checkpoint, revocations and counted refusals.

use vocabulary::{ControlId, EntryId, NodeId, PrincipalId, TenantId, UnixTime};

use super::{Page, Paged};
use crate::engine::{Bind, Malformed, Row, binds};
use crate::error::ReadError;
use crate::limits::PAGE_MAX;
use crate::record::{EntryRow, Leaf, Publisher, RefusalCount, Revoked, RevokedRow};
use crate::sql;
use crate::store::Store;

/// Which entries of a tenant; an empty filter takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Only of this principal.
    pub actor: Option<PrincipalId>,
    /// Only this action.
    pub action: Option<String>,
    /// Only about resources of this kind.
    pub resource_kind: Option<String>,
    /// Only about this resource.
    pub resource: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// Not before this time.
    pub from: Option<UnixTime>,
    /// Before this time.
    pub until: Option<UnixTime>,
}

impl EntryFilter {
    /// A flag and a value for each, as the statements take them.
    fn binds(&self) -> Vec<Bind> {
        let mut binds = binds![self.actor.is_some(), self.actor.as_ref().map(PrincipalId::as_bytes)];
        for text in [&self.action, &self.resource_kind, &self.resource, &self.outcome] {
            binds.extend(binds![text.is_some(), text.as_deref()]);
        }
        binds.extend(binds![
            self.from.unwrap_or_default(),
            self.until.unwrap_or(UnixTime::from_millis(u64::MAX)),
        ]);
        binds
    }
}

fn entry(row: &Row) -> Result<EntryRow, Malformed> {
    Ok(EntryRow {
        index: row.number(0)?,
        id: EntryId::from_bytes(row.array(1)?),
        tenant: TenantId::from_bytes(row.array(2)?),
        salt: row.array(3)?,
        body: row.bytes(4)?,
        leaf: row.array(5)?,
        class_uid: row.small(6)?,
        activity: row.small(7)?,
        kind: row.text(8)?,
        actor: row.maybe_array(9)?.map(PrincipalId::from_bytes),
        action: row.text(10)?,
        resource_kind: row.text(11)?,
        resource: row.text(12)?,
        outcome: row.text(13)?,
        time: row.time(14)?,
    })
}

impl Store {
    /// An entry by its place.
    pub async fn entry(&self, tenant: TenantId, index: u64) -> Result<Option<EntryRow>, ReadError> {
        self.one(sql::ENTRY_GET, binds![tenant.as_bytes(), column(index)], entry).await
    }
    /// An entry by its id.
    pub async fn entry_by_id(&self, tenant: TenantId, id: EntryId) -> Result<Option<EntryRow>, ReadError> {
        self.one(sql::ENTRY_BY_ID, binds![tenant.as_bytes(), id.as_bytes()], entry).await
    }
    /// A tenant's entries from a place on (`None` from the beginning), oldest first.
    pub async fn entries_from(
        &self,
        tenant: TenantId,
        from: u64,
        limit: u32,
        filter: &EntryFilter,
    ) -> Result<Paged<EntryRow>, ReadError> {
        // The statement takes what comes after: one less than `from`, which is -1 for the first place.
        let after = column(from).saturating_sub(1);
        self.searched(sql::ENTRIES_AFTER, tenant, after, limit, filter).await
    }
    /// A tenant's entries before a place (`None` from the end), newest first.
    pub async fn entries_before(
        &self,
        tenant: TenantId,
        before: Option<u64>,
        limit: u32,
        filter: &EntryFilter,
    ) -> Result<Paged<EntryRow>, ReadError> {
        self.searched(sql::ENTRIES_BEFORE, tenant, before.map_or(i64::MAX, column), limit, filter).await
    }

    async fn searched(
        &self,
        statement: sql::Statement,
        tenant: TenantId,
        cursor: i64,
        limit: u32,
        filter: &EntryFilter,
    ) -> Result<Paged<EntryRow>, ReadError> {
        let page = Page::<[u8; 16]>::first(limit);
        let mut binds = binds![tenant.as_bytes(), cursor, page.fetch()];
        binds.extend(filter.binds());
        Ok(Paged::cut(self.all(statement, binds, entry).await?, &page))
    }

    /// Leaves from a place on, of all tenants and without anything of theirs: for the publisher. At most [`PAGE_MAX`].
    pub async fn leaves(&self, from: u64) -> Result<Vec<Leaf>, ReadError> {
        let read = |row: &Row| Ok(Leaf { index: row.number(0)?, leaf: row.array(1)?, time: row.time(2)? });
        self.all(sql::LEAVES, binds![column(from), PAGE_MAX], read).await
    }
    /// How many entries the log has.
    pub async fn entry_count(&self) -> Result<u64, ReadError> {
        Ok(self.one(sql::ENTRY_COUNT, binds![], |row| row.number(0)).await?.unwrap_or(0))
    }
    /// The publisher and what was published last; none before the first.
    pub async fn publisher(&self) -> Result<Option<Publisher>, ReadError> {
        let read = |row: &Row| {
            Ok(Publisher {
                holder: ControlId::from_bytes(row.array(0)?),
                token: row.number(1)?,
                until: row.time(2)?,
                size: row.number(3)?,
                root: row.maybe_array(4)?,
                checkpoint: row.bytes(5)?,
            })
        };
        self.one(sql::PUBLISHER_READ, binds![], read).await
    }

    /// What was revoked after a version of the set, in order.
    pub async fn revocations(&self, after: u64, limit: u32) -> Result<Paged<RevokedRow>, ReadError> {
        let page = Page::<u64>::after(after, limit);
        let read = |row: &Row| {
            let (kind, subject) = (row.text(0)?, row.text(1)?);
            let what = match kind.as_str() {
                "node" => Revoked::Node(subject.parse::<NodeId>().map_err(|_| row.malformed())?),
                "serial" => Revoked::Serial(subject),
                _ => return Err(row.malformed()),
            };
            Ok(RevokedRow { version: row.number(2)?, what, since: row.time(3)? })
        };
        Ok(Paged::cut(self.all(sql::REVOCATIONS, binds![column(after), page.fetch()], read).await?, &page))
    }

    /// Counted refusals of minutes that began before this time.
    pub async fn refusals_before(&self, minute: UnixTime, limit: u32) -> Result<Paged<RefusalCount>, ReadError> {
        let page = Page::<[u8; 16]>::first(limit);
        let read = |row: &Row| {
            Ok(RefusalCount { source: row.text(0)?, minute: row.time(1)?, code: row.text(2)?, count: row.number(3)? })
        };
        Ok(Paged::cut(self.all(sql::REFUSALS, binds![minute, page.fetch()], read).await?, &page))
    }
}

/// A place for a column; beyond the last one nothing lies.
fn column(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}
