//! Quotas as people see and set them: operators those of tenants, administrators of a tenant those of its projects.

use audit::{Event, Outcome};
use policy::action::{ProjectQuotaSet, QuotaList, TenantQuotaSet, TenantQuotaView};
use policy::{Action, Resource, SetFacts};
use store::{Expect, Kind, Page, Put, Transaction};
use vocabulary::quota::{Quota, QuotaLimits, QuotaUse};
use vocabulary::{ErrorCode, ProjectId, SYSTEM_OWNER, TenantId, api};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::limits::QUOTA_MAX;
use crate::operation::commit;
use crate::quota::{QUOTA, QuotaRow, count};
use crate::row::{FORMAT, ProjectRow};
use crate::state::{Control, actor};

/// What cannot be kept is not promised.
fn check(limits: &QuotaLimits, project: Option<ProjectId>) -> Result<(), Failure> {
    if limits.stored_bytes.is_some() {
        return Err(Failure::new(ErrorCode::NotBuilt, "`stored_bytes`: stored bytes are not counted yet; leave it out"));
    }
    for (name, limit) in [
        ("running_jobs", limits.running_jobs),
        ("queued_jobs", limits.queued_jobs),
        ("cpu_millis", limits.cpu_millis),
        ("memory_bytes", limits.memory_bytes),
        ("images", limits.images),
    ] {
        if limit.is_some_and(|limit| limit > QUOTA_MAX) {
            return Err(Failure::invalid(format!("`{name}` is at most {QUOTA_MAX}; leave it out for no limit")));
        }
    }
    if project.is_some() && limits.images.is_some() {
        return Err(Failure::invalid("`images`: images belong to the tenant and to no project; set it for the tenant"));
    }
    Ok(())
}

impl Control {
    async fn shown_quota(&self, tenant: TenantId, project: Option<ProjectId>) -> Result<Quota, Failure> {
        let limits = self.quota(tenant, project).await?.map(|(_, limits)| limits).unwrap_or_default();
        let images = if project.is_none() { self.image_count(tenant).await? } else { 0 };
        let used = QuotaUse { images, ..count(&self.jobs_not_over(tenant).await?, project) };
        Ok(Quota { tenant, project, limits, used, audit_index: None })
    }
}

/// Writes limits. What is in use already stays; nothing new is admitted beyond them.
async fn set<A: Action>(call: &Call<A>, tenant: TenantId, project: Option<ProjectId>, limits: QuotaLimits) -> Result<Quota, Failure> {
    let control = &call.control;
    let member = call.member()?;
    let expect = control.quota(tenant, project).await?.map_or(Expect::Absent, |(revision, _)| Expect::Revision(revision));
    let row = QuotaRow { format: FORMAT, tenant, project, limits };
    let id = project.map_or(*tenant.as_bytes(), |project| *project.as_bytes());
    let mut put = Put::json(tenant, QUOTA, id, expect, &row).map_err(Failure::internal)?;
    if let Some(project) = project {
        put = put.project(project);
    }
    let event = Event::QuotaChanged { tenant, project, limits };
    let entry = |owner, event| control.entry(call.now, owner, actor(member), call.source(), Outcome::Success, Some(A::NAME), event);
    let mut transaction = Transaction::new().with(put).entry(entry(tenant, event.clone())?);
    if member.tenant.is_none() {
        transaction = transaction.entry(entry(SYSTEM_OWNER, event)?);
    }
    let (index, _) = commit(call, transaction).await?;
    control.fleet.wake.notify_one();
    Ok(Quota { audit_index: Some(index), ..control.shown_quota(tenant, project).await? })
}

/// The tenant that an operator names. Whoever is no operator learns not whether it exists.
async fn named<A: Action>(call: &Call<A>) -> Result<TenantId, Failure> {
    let id: TenantId = call.id("id")?;
    let found = call.control.tenant(id).await?;
    if found.is_none() && call.member()?.tenant.is_none() {
        return Err(Failure::not_found());
    }
    let suspended = found.is_some_and(|tenant| tenant.suspended);
    call.permit(Resource::Tenant(SetFacts { tenant: id, suspended }), &[]).await?.spend();
    Ok(id)
}

/// Sets a tenant's limits, all of them.
pub(crate) async fn tenant_set(call: Call<TenantQuotaSet>, limits: QuotaLimits) -> Result<Quota, Failure> {
    let tenant = named(&call).await?;
    check(&limits, None)?;
    set(&call, tenant, None, limits).await
}

/// Shows a tenant's limits to operators: numbers, and nothing of its content.
pub(crate) async fn tenant_show(call: Call<TenantQuotaView>) -> Result<Quota, Failure> {
    let tenant = named(&call).await?;
    call.control.shown_quota(tenant, None).await
}

/// Sets the limits of a project of one's own tenant, all of them.
pub(crate) async fn project_set(call: Call<ProjectQuotaSet>, limits: QuotaLimits) -> Result<Quota, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let project: ProjectId = call.id("id")?;
    let found = call.control.store.get_json::<ProjectRow>(tenant.tenant, Kind::PROJECT, project).await.map_err(Failure::internal)?;
    found.ok_or_else(Failure::not_found)?;
    check(&limits, Some(project))?;
    set(&call, tenant.tenant, Some(project), limits).await
}

/// Lists the limits of one's own tenant and of its projects, with what is in use.
pub(crate) async fn list(call: Call<QuotaList>) -> Result<api::Page<Quota>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let control = &call.control;
    let jobs = control.jobs_not_over(tenant.tenant).await?;
    let mut items = vec![control.shown_quota(tenant.tenant, None).await?];
    let found = control.store.list(tenant.tenant, Kind::PROJECT, Page::first(1000)).await.map_err(Failure::internal)?;
    for stored in &found.items {
        let row: ProjectRow = stored.parse().map_err(Failure::internal)?;
        let limits = control.quota(tenant.tenant, Some(row.id)).await?.map(|(_, limits)| limits).unwrap_or_default();
        items.push(Quota { tenant: tenant.tenant, project: Some(row.id), limits, used: count(&jobs, Some(row.id)), audit_index: None });
    }
    Ok(api::Page { items, cursor: None, truncated: found.truncated })
}
