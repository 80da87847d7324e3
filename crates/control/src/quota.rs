//! Quotas: what a tenant and its projects may have at once, and what they have.
//!
//! What is admitted is admitted in one transaction with a row of its tenant that every other admission changes too
//! ([`ADMISSION`]): of two that were judged by the same count, one is judged again.

use std::collections::BTreeMap;

use policy::Action;
use serde::{Deserialize, Serialize};
use store::{CommitError, Expect, Kind, Page, Put, Transaction};
use vocabulary::quota::{QuotaLimits, QuotaUse};
use vocabulary::{ErrorCode, ProjectId, TenantId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::job::{PENDING, PLACED};
use crate::planner::{JobRow, RunLimits};
use crate::row::FORMAT;
use crate::state::{Control, commit_failure};

/// Limits, under the id of the tenant or of its project, in the tenant.
pub(crate) const QUOTA: Kind = Kind::new("quota");
/// Changed by every admission of a tenant that has a quota, under the tenant's id.
const ADMISSION: Kind = Kind::new("admission");
/// Tries of an admission that others keep overtaking.
const TRIES: usize = 16;

/// The body of [`QUOTA`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaRow {
    pub(crate) format: u32,
    pub(crate) tenant: TenantId,
    pub(crate) project: Option<ProjectId>,
    pub(crate) limits: QuotaLimits,
}

/// The body of [`ADMISSION`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionRow {
    format: u32,
}

/// What jobs hold: of one project, or of all.
pub(crate) fn count<'a>(jobs: impl IntoIterator<Item = &'a JobRow>, project: Option<ProjectId>) -> QuotaUse {
    let mut used = QuotaUse::default();
    for job in jobs.into_iter().filter(|job| job.exit.is_none() && project.is_none_or(|project| job.project == project)) {
        let one = asked_by(job);
        used.cpu_millis = used.cpu_millis.saturating_add(one.cpu_millis);
        used.memory_bytes = used.memory_bytes.saturating_add(one.memory_bytes);
        match job.live() {
            Some(_) => used.running_jobs = used.running_jobs.saturating_add(1),
            None => used.queued_jobs = used.queued_jobs.saturating_add(1),
        }
    }
    used
}

/// What a job asks for when it is submitted: a place among those that wait, and its limits for as long as it is not over.
pub(crate) fn asked_by(job: &JobRow) -> QuotaUse {
    QuotaUse { queued_jobs: 1, cpu_millis: job.spec.limits.cpu_millis, memory_bytes: job.spec.limits.memory_bytes, ..QuotaUse::default() }
}

/// The first limit that would be exceeded, in words. How many jobs run is no matter of admission: the planner lets them wait.
pub(crate) fn exceeded(whose: &str, limits: &QuotaLimits, used: &QuotaUse, asked: &QuotaUse) -> Option<String> {
    for (name, limit, used, asked) in [
        ("queued_jobs", limits.queued_jobs, used.queued_jobs, asked.queued_jobs),
        ("cpu_millis", limits.cpu_millis, used.cpu_millis, asked.cpu_millis),
        ("memory_bytes", limits.memory_bytes, used.memory_bytes, asked.memory_bytes),
        ("images", limits.images, used.images, asked.images),
    ] {
        if let Some(limit) = limit
            && asked > 0
            && used.saturating_add(asked) > limit
        {
            return Some(format!("`{name}` of {whose}: {used} of {limit} are used, {asked} asked for"));
        }
    }
    None
}

impl Control {
    /// The limits of a tenant (`None`) or of one of its projects, with the revision of their row.
    pub(crate) async fn quota(&self, tenant: TenantId, project: Option<ProjectId>) -> Result<Option<(u64, QuotaLimits)>, Failure> {
        let id = project.map_or(*tenant.as_bytes(), |project| *project.as_bytes());
        let found = self.store.get_json::<QuotaRow>(tenant, QUOTA, id).await.map_err(Failure::internal)?;
        Ok(found.map(|(stored, row)| (stored.revision, row.limits)))
    }

    /// How many jobs may run at once, for the planner.
    pub(crate) async fn run_limits(&self) -> Result<RunLimits, Failure> {
        let mut limits = RunLimits::default();
        let mut next = Page::first(1000);
        loop {
            let found = self.store.list_anywhere(QUOTA, next).await.map_err(Failure::internal)?;
            for stored in &found.items {
                let row: QuotaRow = stored.parse().map_err(Failure::internal)?;
                if let Some(most) = row.limits.running_jobs {
                    match row.project {
                        None => limits.tenants.insert(stored.tenant, most),
                        Some(project) => limits.projects.insert(project, most),
                    };
                }
            }
            match found.items.last() {
                Some(last) if found.truncated => next = Page::after(last.id, 1000),
                _ => return Ok(limits),
            }
        }
    }

    /// A tenant's jobs that are not over. A job that moves from one state to the other meanwhile is found in one of them: those
    /// that wait are read before and after those that are placed.
    pub(crate) async fn jobs_not_over(&self, tenant: TenantId) -> Result<Vec<JobRow>, Failure> {
        let mut jobs: BTreeMap<[u8; 16], JobRow> = BTreeMap::new();
        for state in [PENDING, PLACED, PENDING] {
            let mut next = Page::first(1000);
            loop {
                let found = self.store.list_state(tenant, Kind::JOB, state, next).await.map_err(Failure::internal)?;
                for stored in &found.items {
                    jobs.insert(stored.id, stored.parse().map_err(Failure::internal)?);
                }
                match found.items.last() {
                    Some(last) if found.truncated => next = Page::after(last.id, 1000),
                    _ => break,
                }
            }
        }
        Ok(jobs.into_values().collect())
    }

    /// How many images a tenant has.
    pub(crate) async fn image_count(&self, tenant: TenantId) -> Result<u64, Failure> {
        let (mut count, mut next) = (0_u64, Page::first(1000));
        loop {
            let found = self.store.list(tenant, Kind::IMAGE, next).await.map_err(Failure::internal)?;
            count = count.saturating_add(u64::try_from(found.items.len()).unwrap_or(u64::MAX));
            match found.items.last() {
                Some(last) if found.truncated => next = Page::after(last.id, 1000),
                _ => return Ok(count),
            }
        }
    }

    /// Judges what is asked for. Gives the write that must be committed with it where the tenant or project has a quota, or the
    /// limit that would be exceeded.
    async fn judged(&self, tenant: TenantId, project: Option<ProjectId>, asked: &QuotaUse) -> Result<Result<Option<Put>, String>, Failure> {
        let mut quotas = Vec::new();
        for (whose, of) in [("the tenant", None), ("the project", project)] {
            if (of.is_some() || whose == "the tenant")
                && let Some((_, limits)) = self.quota(tenant, of).await?
            {
                quotas.push((whose, of, limits));
            }
        }
        if quotas.is_empty() {
            return Ok(Ok(None));
        }
        // Before anything is counted: whoever is admitted from here on changes it.
        let fence = self.store.get(tenant, ADMISSION, tenant).await.map_err(Failure::internal)?;
        let expect = fence.map_or(Expect::Absent, |row| Expect::Revision(row.revision));
        let jobs = self.jobs_not_over(tenant).await?;
        let images = if asked.images > 0 { self.image_count(tenant).await? } else { 0 };
        for (whose, of, limits) in quotas {
            let used = QuotaUse { images, ..count(&jobs, of) };
            if let Some(why) = exceeded(whose, &limits, &used, asked) {
                return Ok(Err(why));
            }
        }
        Put::json(tenant, ADMISSION, tenant, expect, &AdmissionRow { format: FORMAT }).map(|put| Ok(Some(put))).map_err(Failure::internal)
    }
}

/// Commits what is admitted within the quotas of a tenant and, for jobs, of a project; again when somebody else was admitted
/// meanwhile. A repeated request gets the first answer again. Gives the index of the first entry.
pub(crate) async fn commit_within<A, R>(
    call: &Call<A>,
    tenant: TenantId,
    project: Option<ProjectId>,
    asked: &QuotaUse,
    transaction: Transaction,
    answer: R,
) -> Result<(u64, R), Failure>
where
    A: Action,
    R: Serialize + serde::de::DeserializeOwned,
{
    let own = transaction.mutations.len();
    let transaction = call.repeatable(transaction, &answer)?;
    for _ in 0..TRIES {
        let whole = match call.control.judged(tenant, project, asked).await? {
            Ok(None) => transaction.clone(),
            Ok(Some(fence)) => transaction.clone().with(fence),
            Err(why) => {
                // A request that was admitted before is answered as the first time, however full it is now.
                if let Some(first) = call.replayed().await? {
                    return Ok(first);
                }
                let id = project.map_or_else(|| tenant.to_string(), |project| project.to_string());
                return Err(call.refused(Failure::new(ErrorCode::QuotaExceeded, why), "quota", id, "quota").await);
            }
        };
        match call.control.store.commit(whole, call.now).await {
            Ok(committed) => {
                let index = committed.audit_indexes.first().copied().ok_or_else(|| Failure::internal("a change without an entry"))?;
                return match committed.replayed {
                    Some(first) => Ok((index, serde_json::from_slice(&first).map_err(Failure::internal)?)),
                    None => Ok((index, answer)),
                };
            }
            Err(CommitError::Conflict { mutation, .. }) if mutation >= own => {}
            Err(error) => return Err(commit_failure(error)),
        }
    }
    Err(Failure::new(ErrorCode::Unavailable, "the tenant is given too much to do at once: try again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_limit_that_breaks_is_named_with_its_numbers() {
        let limits = QuotaLimits { queued_jobs: Some(2), cpu_millis: Some(3000), memory_bytes: Some(100), images: Some(1), ..QuotaLimits::default() };
        let used = QuotaUse { queued_jobs: 1, cpu_millis: 2000, memory_bytes: 50, images: 1, running_jobs: 9 };
        let asks = |change: fn(&mut QuotaUse)| {
            let mut asked = QuotaUse::default();
            change(&mut asked);
            exceeded("the tenant", &limits, &used, &asked)
        };
        assert_eq!(asks(|asked| (asked.queued_jobs, asked.cpu_millis, asked.memory_bytes) = (1, 1000, 50)), None);
        assert_eq!(asks(|asked| asked.queued_jobs = 2).unwrap(), "`queued_jobs` of the tenant: 1 of 2 are used, 2 asked for");
        assert_eq!(asks(|asked| asked.cpu_millis = 1001).unwrap(), "`cpu_millis` of the tenant: 2000 of 3000 are used, 1001 asked for");
        assert!(asks(|asked| asked.memory_bytes = u64::MAX).unwrap().contains("memory_bytes"));
        assert!(asks(|asked| asked.images = 1).unwrap().contains("images"));
        // What is not asked for is no reason, even where the limit was lowered below what is used.
        assert_eq!(asks(|_| ()), None);
        assert_eq!(exceeded("the tenant", &QuotaLimits::default(), &used, &QuotaUse { images: 9, ..used }), None);
    }
}
