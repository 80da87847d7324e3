//! Jobs: submitted, listed, shown, stopped. Where they run is the planner's part.

use std::collections::BTreeMap;

use audit::{Event, Outcome};
use policy::action::{ImageUse, JobList, JobStop, JobSubmit, JobView, JobWiden, VolumeView};
use policy::{Action, Resource, SetFacts};
use receipt::statement::command_digest;
use store::{Expect, Kind, Page, Transaction};
use vocabulary::api::{self, Done, Job, JobCreate, Misfit};
use vocabulary::plan::Desired;
use vocabulary::{ErrorCode, JobId, Name, NodeId, Sha256Digest, TenantId};

use crate::admission::{check_spec, check_volume};
use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::operation::volume::resource;
use crate::operation::{done, page, paged};
use crate::planner::{JobRow, Placing, ReceiptRow};
use crate::quota::{asked_by, commit_within};
use crate::row::{FORMAT, VolumeRow};
use crate::state::{Control, actor, fresh};

impl Control {
    /// A job of a tenant, by (tenant, id), with its revision.
    pub(crate) async fn job(&self, tenant: TenantId, id: JobId) -> Result<(u64, JobRow), Failure> {
        let found = self.store.get_json::<JobRow>(tenant, Kind::JOB, id).await.map_err(Failure::internal)?;
        found.map(|(stored, row)| (stored.revision, row)).ok_or_else(Failure::not_found)
    }

    /// Why a waiting job is on no node.
    async fn misfits(&self, job: &JobRow) -> Result<(Vec<Misfit>, Option<String>), Failure> {
        let rows = self.node_rows().await?;
        let mut placed = Vec::new();
        for (_, row) in &rows {
            let mut next = Page::first(1000);
            loop {
                let found = self.store.list_link_anywhere(Kind::JOB, row.id, next).await.map_err(Failure::internal)?;
                for stored in &found.items {
                    placed.push(stored.parse::<JobRow>().map_err(Failure::internal)?);
                }
                match found.items.last() {
                    Some(last) if found.truncated => next = Page::after(last.id, 1000),
                    _ => break,
                }
            }
        }
        let data = self.data_rules(job).await?;
        let views = self.views(rows.iter().map(|(_, row)| row));
        let limits = self.run_limits().await?;
        let placing = Placing::new(&views, &limits, &placed);
        Ok((
            placing
                .choose(job, &data, crate::clock::now())
                .err()
                .unwrap_or_default(),
            placing.held_back(job),
        ))
    }

    fn shown_job(
        &self,
        job: JobRow,
        revision: u64,
        node_name: Option<Name>,
        (misfits, held_back): (Vec<Misfit>, Option<String>),
    ) -> Job {
        let last = job.attempts.last();
        let report = last.map(|attempt| {
            let mut report = attempt.ended.as_ref().map_or_else(|| attempt.report.clone(), |ended| ended.report.clone());
            if !report.state.is_final() {
                report.progress = self.fleet.progress(attempt.node, job.attempt_id(attempt));
            }
            report
        });
        Job {
            id: job.id,
            project: job.project,
            owner: job.owner,
            state: job.state(),
            attempt: last.map_or(0, |attempt| attempt.number),
            node: last.map(|attempt| attempt.node),
            node_name,
            report,
            misfits,
            held_back,
            exit: job.exit.clone(),
            receipt_ready: matches!(job.receipt, Some(ReceiptRow::Ready(_))),
            created: job.created,
            revision,
            audit_index: None,
            spec: job.spec,
        }
    }

    async fn node_name(&self, job: &JobRow) -> Result<Option<Name>, Failure> {
        match job.attempts.last() {
            Some(attempt) => Ok(self.node(attempt.node).await?.map(|(_, row)| row.name)),
            None => Ok(None),
        }
    }
}

/// Submits a job.
pub(crate) async fn create(call: Call<JobSubmit>, request: JobCreate) -> Result<Job, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let member = call.member()?;
    let spec = request.spec;
    check_spec(&spec, control.fleet.offers_gpus())?;
    if let Some(runtime) = spec.runtime
        && !control.fleet.offers(runtime)
    {
        return Err(Failure::new(ErrorCode::NoPlacement, format!("`spec.runtime`: no node offers runtime `{runtime}`")));
    }
    control.project(tenant.tenant, request.project).await?;
    let id = fresh(JobId::new, call.now);
    let command = command_digest(&spec.command).map_err(Failure::internal)?;
    let digest = audit::canonical::to_vec(&spec).map_err(|error| Failure::invalid(format!("`spec` has no canonical form: {error}")))?;
    let digest = Sha256Digest::from_bytes(audit::hash::sha256(&[&digest]));
    let event = Event::JobSubmitted {
        job: id,
        project: request.project,
        image: spec.image,
        command,
        spec: digest,
        purpose: spec.purpose.clone(),
        sensitivity: spec.sensitivity,
    };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(JobSubmit::NAME), event)?;
    let job = JobRow {
        format: FORMAT,
        id,
        tenant: tenant.tenant,
        project: request.project,
        owner: member.principal,
        created: call.now,
        policy_epoch: control.sets.epoch(Some(tenant.tenant)).map_err(Failure::internal)?,
        submitted_entry: entry.id,
        desired: Desired::Run,
        attempts: Vec::new(),
        exit: None,
        receipt: None,
        spec,
    };
    call.permit(Resource::Job(job.facts(tenant, None)), &[]).await?.spend();
    // More of the kernel, on a machine of somebody else: a decision of its own.
    if job.spec.grants.iter().any(|grant| grant.opens_kernel()) {
        call.also::<JobWiden>(Resource::Job(job.facts(tenant, None))).await?;
    }
    data(&call, tenant, &job).await?;
    super::secret::admit(&call, tenant, &job).await?;
    let signed = super::image_policy::admit(&call, tenant.tenant, id, &job.spec.image).await?;
    // The receipt will name the set under which the job was placed.
    control.record_policy(tenant.tenant, call.now).await?;
    let put = job.put(Expect::Absent)?;
    let (project, asked) = (job.project, asked_by(&job));
    let shown = control.shown_job(job, 1, None, (Vec::new(), None));
    let (index, shown) = commit_within(
        &call,
        tenant.tenant,
        Some(project),
        &asked,
        signed.into_iter().fold(Transaction::new().with(put).entry(entry), Transaction::entry),
        shown,
    )
    .await?;
    control.fleet.wake.notify_one();
    // What becomes of the job has traces of its own, one for each attempt.
    if let Some(mut span) = control.tracer.child("job.submitted", telemetry::Kind::Internal) {
        span.link(telemetry::attempt(&vocabulary::job::AttemptId { job: id, attempt: 1 }));
        span.end(false);
    }
    Ok(Job { audit_index: Some(index), ..shown })
}

/// Whether the caller may use what the job names, and the job may have it.
async fn data(call: &Call<JobSubmit>, tenant: SetFacts, job: &JobRow) -> Result<(), Failure> {
    let control = &call.control;
    match control.image_by_manifest(tenant.tenant, &job.spec.image).await? {
        Some(image) => call.also::<ImageUse>(Resource::Image { id: image.id, tenant }).await?,
        // Absent and another tenant's are one answer.
        None => {
            let failure = Failure::new(ErrorCode::NotFound, "`spec.image`: the tenant has no such image; import it first");
            return Err(call.refused(failure, "image", job.spec.image.to_string(), "isolation-image").await);
        }
    }
    let volumes = job.spec.inputs.iter().map(|input| input.volume).chain(job.spec.outputs.iter().map(|output| output.volume));
    for id in volumes {
        let found = control.store.get_json::<VolumeRow>(tenant.tenant, Kind::VOLUME, id).await.map_err(Failure::internal)?;
        let Some((_, volume)) = found else {
            let failure = Failure::new(ErrorCode::NotFound, format!("`spec` names volume {id}, which is not there"));
            return Err(call.refused(failure, "volume", id.to_string(), "isolation-volume").await);
        };
        call.also::<VolumeView>(resource(&volume, tenant)).await?;
        if let Err((failure, rule)) = check_volume(&job.spec, job.project, &volume) {
            return Err(call.refused(failure, "volume", id.to_string(), rule).await);
        }
    }
    Ok(())
}

/// Lists jobs that the caller may see.
pub(crate) async fn list(call: Call<JobList>) -> Result<api::Page<Job>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let found = call.control.store.list(tenant.tenant, Kind::JOB, page(&call)?).await.map_err(Failure::internal)?;
    let member = call.member()?;
    let mut names: BTreeMap<NodeId, Option<Name>> = BTreeMap::new();
    let mut found_jobs = BTreeMap::new();
    for stored in &found.items {
        let job: JobRow = stored.parse().map_err(Failure::internal)?;
        if !call.control.may_see::<JobView>(member, Resource::Job(job.facts(tenant, None))) {
            continue;
        }
        let name = match job.attempts.last().map(|attempt| attempt.node) {
            None => None,
            Some(node) => match names.get(&node) {
                Some(known) => known.clone(),
                None => {
                    let name = call.control.node_name(&job).await?;
                    names.insert(node, name.clone());
                    name
                }
            },
        };
        found_jobs.insert(
            stored.id,
            call.control
                .shown_job(job, stored.revision, name, (Vec::new(), None)),
        );
    }
    Ok(paged(found, |row| row.id, |row| found_jobs.get(&row.id).cloned()))
}

/// Shows a job; while it waits, why it is on no node.
pub(crate) async fn show(call: Call<JobView>) -> Result<Job, Failure> {
    let tenant = call.tenant()?;
    let (revision, job) = call.control.job(tenant.tenant, call.id("id")?).await?;
    call.permit(Resource::Job(job.facts(tenant, None)), &[]).await?.spend();
    let misfits = if job.exit.is_none() && job.live().is_none() { call.control.misfits(&job).await? } else { (Vec::new(), None) };
    let name = call.control.node_name(&job).await?;
    Ok(call.control.shown_job(job, revision, name, misfits))
}

/// Asks a job to stop: one that waits is over at once, one that runs is told by its node's plan.
pub(crate) async fn stop(call: Call<JobStop>) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    let control = &call.control;
    let (_, job) = control.job(tenant.tenant, call.id("id")?).await?;
    call.permit(Resource::Job(job.facts(tenant, None)), &[]).await?.spend();
    let member = call.member()?;
    let id = job.id;
    let stopped = control
        .change_job(tenant.tenant, id, call.now, |job| {
            if job.exit.is_some() {
                return Err(Failure::new(ErrorCode::WrongState, "the job is over already"));
            }
            job.cancel(call.now);
            let event = Event::JobStopped { job: id };
            let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(JobStop::NAME), event)?;
            Ok(Some(vec![entry]))
        })
        .await?;
    control.fleet.wake.notify_one();
    let index = stopped.and_then(|(_, committed)| committed.audit_indexes.first().copied());
    Ok(done(index.ok_or_else(|| Failure::internal("a stop without an entry"))?, &[]))
}
