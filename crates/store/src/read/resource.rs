//! Reads resources, positions, and answers by idempotency key.

use serde::de::DeserializeOwned;
use vocabulary::{Name, PrincipalId, ProjectId, TenantId, UnixTime};

use super::{Page, Paged, begin};
use crate::convert::NO_PROJECT;
use crate::engine::{Bind, Malformed, Row, binds};
use crate::error::{CommitError, ReadError};
use crate::kind::{Id16, Kind};
use crate::record::Resource;
use crate::sql::{self, Statement};
use crate::store::Store;
use crate::transaction::Committed;

/// How many columns a resource has, in the order in which they are read.
pub(super) const RESOURCE_COLUMNS: usize = 12;

pub(super) fn resource(row: &Row) -> Result<Resource, Malformed> {
    let project: [u8; 16] = row.array(3)?;
    Ok(Resource {
        tenant: TenantId::from_bytes(row.array(0)?),
        kind: row.text(1)?,
        id: row.array(2)?,
        project: (project != NO_PROJECT).then(|| ProjectId::from_bytes(project)),
        name: row.maybe_text(4)?,
        parent: row.maybe_array(5)?,
        link: row.maybe_array(6)?,
        state: row.maybe_text(7)?,
        until: row.maybe_time(8)?,
        revision: row.number(9)?,
        change_seq: row.number(10)?,
        body: row.text(11)?,
    })
}

impl Store {
    /// A live resource of a tenant. Foreign and absent are the same.
    pub async fn get(&self, tenant: TenantId, kind: Kind, id: impl Id16) -> Result<Option<Resource>, ReadError> {
        self.one(sql::RESOURCE_GET, binds![tenant.as_bytes(), kind.as_str(), &id.id16()], resource).await
    }

    /// A live resource with its body as a value.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        tenant: TenantId,
        kind: Kind,
        id: impl Id16,
    ) -> Result<Option<(Resource, T)>, ReadError> {
        let Some(found) = self.get(tenant, kind, id).await? else { return Ok(None) };
        found.parse().map(|value| Some((found, value)))
    }

    /// A live resource by its name.
    pub async fn find(
        &self,
        tenant: TenantId,
        kind: Kind,
        project: Option<ProjectId>,
        name: &Name,
    ) -> Result<Option<Resource>, ReadError> {
        let project = project.map_or(NO_PROJECT, |project| *project.as_bytes());
        self.one(sql::RESOURCE_FIND, binds![tenant.as_bytes(), kind.as_str(), &project, name.as_str()], resource).await
    }

    /// All of a kind, in the order of ids.
    pub async fn list(&self, tenant: TenantId, kind: Kind, page: Page) -> Result<Paged<Resource>, ReadError> {
        self.listed(sql::RESOURCE_LIST, tenant, kind, page, None).await
    }
    /// Those of a project.
    pub async fn list_project(
        &self,
        tenant: TenantId,
        kind: Kind,
        project: ProjectId,
        page: Page,
    ) -> Result<Paged<Resource>, ReadError> {
        self.listed(sql::RESOURCE_LIST_PROJECT, tenant, kind, page, Some(project.as_bytes().into())).await
    }
    /// Those that belong to something.
    pub async fn list_parent(
        &self,
        tenant: TenantId,
        kind: Kind,
        parent: impl Id16,
        page: Page,
    ) -> Result<Paged<Resource>, ReadError> {
        self.listed(sql::RESOURCE_LIST_PARENT, tenant, kind, page, Some((&parent.id16()).into())).await
    }
    /// Those that point at something.
    pub async fn list_link(
        &self,
        tenant: TenantId,
        kind: Kind,
        link: impl Id16,
        page: Page,
    ) -> Result<Paged<Resource>, ReadError> {
        self.listed(sql::RESOURCE_LIST_LINK, tenant, kind, page, Some((&link.id16()).into())).await
    }
    /// Those in a state.
    pub async fn list_state(
        &self,
        tenant: TenantId,
        kind: Kind,
        state: &str,
        page: Page,
    ) -> Result<Paged<Resource>, ReadError> {
        self.listed(sql::RESOURCE_LIST_STATE, tenant, kind, page, Some(state.into())).await
    }

    async fn listed(
        &self,
        statement: Statement,
        tenant: TenantId,
        kind: Kind,
        page: Page,
        filter: Option<Bind>,
    ) -> Result<Paged<Resource>, ReadError> {
        let mut binds = binds![tenant.as_bytes(), kind.as_str(), begin(page.after.as_ref()), page.fetch()];
        binds.extend(filter);
        Ok(Paged::cut(self.all(statement, binds, resource).await?, &page))
    }

    /// A resource whose tenant is not known yet: for nodes, which name jobs, attempts and leases by id.
    pub async fn locate(&self, kind: Kind, id: impl Id16) -> Result<Option<Resource>, ReadError> {
        let found = self.all(sql::RESOURCE_LOCATE, binds![kind.as_str(), &id.id16()], resource).await?;
        // Ids are unique over all tenants; where one is not, nobody may guess whose is meant.
        Ok(if found.len() == 1 { found.into_iter().next() } else { None })
    }
    /// All of a kind, of all tenants: for the planner.
    pub async fn list_anywhere(&self, kind: Kind, page: Page) -> Result<Paged<Resource>, ReadError> {
        let binds = binds![kind.as_str(), begin(page.after.as_ref()), page.fetch()];
        Ok(Paged::cut(self.all(sql::RESOURCE_KIND_ANYWHERE, binds, resource).await?, &page))
    }
    /// Those that point at something, of all tenants: a node's attempts, a person's principals.
    pub async fn list_link_anywhere(&self, kind: Kind, link: impl Id16, page: Page) -> Result<Paged<Resource>, ReadError> {
        let binds = binds![kind.as_str(), begin(page.after.as_ref()), page.fetch(), &link.id16()];
        Ok(Paged::cut(self.all(sql::RESOURCE_LINK_ANYWHERE, binds, resource).await?, &page))
    }
    /// Those in a state, of all tenants: for the planner.
    pub async fn list_state_anywhere(&self, kind: Kind, state: &str, page: Page) -> Result<Paged<Resource>, ReadError> {
        let binds = binds![kind.as_str(), begin(page.after.as_ref()), page.fetch(), state];
        Ok(Paged::cut(self.all(sql::RESOURCE_STATE_ANYWHERE, binds, resource).await?, &page))
    }
    /// Those in a state whose end is not after `now`, of all tenants, the longest over first.
    pub async fn list_ended_anywhere(
        &self,
        kind: Kind,
        state: &str,
        now: UnixTime,
        limit: u32,
    ) -> Result<Paged<Resource>, ReadError> {
        let page = Page::<[u8; 16]>::first(limit);
        let binds = binds![kind.as_str(), state, now, page.fetch()];
        Ok(Paged::cut(self.all(sql::RESOURCE_ENDED_ANYWHERE, binds, resource).await?, &page))
    }

    /// Where a position stands; 0 before the first advance.
    pub async fn position(&self, tenant: TenantId, kind: Kind, id: impl Id16) -> Result<u64, ReadError> {
        let binds = binds![tenant.as_bytes(), kind.as_str(), &id.id16()];
        Ok(self.one(sql::POSITION_READ, binds, |row| row.number(0)).await?.unwrap_or(0))
    }

    /// What was answered under this idempotency key, so that a repeated request need not be worked out again.
    ///
    /// Another request under the same key is [`CommitError::KeyReused`].
    pub async fn replay(
        &self,
        tenant: TenantId,
        principal: PrincipalId,
        key: &str,
        request_hash: &[u8; 32],
    ) -> Result<Option<Committed>, CommitError> {
        let binds = binds![tenant.as_bytes(), principal.as_bytes(), key];
        let read = |row: &Row| Ok((row.array::<32>(0)?, row.bytes(1)?, row.text(2)?));
        let found = self.one(sql::IDEMPOTENCY_READ, binds, read).await.map_err(|error| match error {
            ReadError::Engine(error) => CommitError::Engine(std::sync::Arc::new(error)),
            ReadError::Malformed(_) | ReadError::Body { .. } => CommitError::Malformed(sql::IDEMPOTENCY_READ.name),
        })?;
        match found {
            None => Ok(None),
            Some((hash, ..)) if hash != *request_hash => Err(CommitError::KeyReused),
            Some((_, answer, numbers)) => match crate::writer::replay(&numbers, answer) {
                Some(committed) => Ok(Some(committed)),
                None => Err(CommitError::Malformed(sql::IDEMPOTENCY_READ.name)),
            },
        }
    }
}
