//! `swarm quota`: how much a tenant or project may have at once, and what it has.

use reqwest::Method;
use vocabulary::quota::{Quota, QuotaLimits};

use crate::app::App;
use crate::args::{QuotaSet, QuotaVerb};
use crate::client::Call;
use crate::error::CliError;
use crate::output::human_bytes;

pub(crate) async fn quota(app: &App, verb: QuotaVerb) -> Result<(), CliError> {
    match verb {
        QuotaVerb::Show { tenant: Some(tenant) } => {
            let client = app.client()?;
            let tenant = app.tenant(&client, &tenant).await?;
            let quota: Quota = client.send(&Call::get(format!("/v1/tenants/{tenant}/quota")), None).await?;
            app.output.list(&[quota], &COLUMNS, row)
        }
        QuotaVerb::Show { tenant: None } => {
            let quotas: Vec<Quota> = app.all(&app.client()?, "/v1/quotas").await?;
            app.output.list(&quotas, &COLUMNS, row)
        }
        QuotaVerb::Set(change) => set(app, change).await,
    }
}

/// Changes what is named and leaves the rest.
async fn set(app: &App, change: QuotaSet) -> Result<(), CliError> {
    let client = app.client()?;
    let (path, now) = match (&change.tenant, &change.project) {
        (Some(tenant), _) => {
            let path = format!("/v1/tenants/{}/quota", app.tenant(&client, tenant).await?);
            let now: Quota = client.send(&Call::get(path.clone()), None).await?;
            (path, now)
        }
        (None, Some(project)) => {
            let project = app.project(&client, project).await?;
            let all: Vec<Quota> = app.all(&client, "/v1/quotas").await?;
            let now = all
                .into_iter()
                .find(|quota| quota.project == Some(project))
                .ok_or_else(|| CliError::new(3, format!("project {project} is not there")))?;
            (format!("/v1/projects/{project}/quota"), now)
        }
        (None, None) => return Err(CliError::usage("name --tenant or --project")),
    };
    let before = now.limits;
    let limits = QuotaLimits {
        running_jobs: change.running_jobs.unwrap_or(before.running_jobs),
        queued_jobs: change.queued_jobs.unwrap_or(before.queued_jobs),
        cpu_millis: change.cpus.unwrap_or(before.cpu_millis),
        memory_bytes: change.memory.unwrap_or(before.memory_bytes),
        images: change.images.unwrap_or(before.images),
        stored_bytes: before.stored_bytes,
    };
    let quota: Quota = app.send(&client, &Call::new(Method::PUT, path).json(&limits)?).await?;
    let index = quota.audit_index.map_or_else(String::new, |index| index.to_string());
    let mut pairs = vec![("whose", whose(&quota))];
    pairs.extend(COLUMNS.iter().copied().zip(row(&quota)).skip(1));
    pairs.push(("audit index", index));
    app.output.one(&quota, &pairs)
}

const COLUMNS: [&str; 6] = ["whose", "running jobs", "queued jobs", "cpu", "memory", "images"];

fn whose(quota: &Quota) -> String {
    quota.project.map_or_else(|| format!("tenant {}", quota.tenant), |project| format!("project {project}"))
}

/// Used of limit, for each.
fn row(quota: &Quota) -> Vec<String> {
    let (used, limits) = (&quota.used, &quota.limits);
    let of = |used: u64, limit: Option<u64>, show: fn(u64) -> String| format!("{} of {}", show(used), limit.map_or_else(|| "any".to_owned(), show));
    let plain = |number: u64| number.to_string();
    vec![
        whose(quota),
        of(used.running_jobs, limits.running_jobs, plain),
        of(used.queued_jobs, limits.queued_jobs, plain),
        of(used.cpu_millis, limits.cpu_millis, |millis| format!("{millis} m")),
        of(used.memory_bytes, limits.memory_bytes, human_bytes),
        if quota.project.is_some() { String::new() } else { of(used.images, limits.images, plain) },
    ]
}
