//! The node channel: a node follows its plan and reports what it sees. Both repeat without harm.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use audit::Event;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use policy::action::{NodePlanFollow, NodeReport as ReportAction};
use store::{Kind, Page};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vocabulary::channel::PLAN_KEEPALIVE_MS;
use vocabulary::job::AttemptId;
use vocabulary::plan::{AttemptReport, NodeReport, ReportAnswer};
use vocabulary::{SYSTEM_OWNER, TenantId};

use crate::api::node::{AttemptRefusal, NodeCall};
use crate::api::problem::Failure;
use crate::api::table::Raw;
use crate::fleet::CurrentPlan;
use crate::limits::{ISOLATION_JSON_MAX, REPORT_ATTEMPTS_MAX};
use crate::operation::enrolment::check_facts;
use crate::planner::{JobRow, Standing, hear, standing};

struct Following {
    plans: watch::Receiver<Option<Arc<CurrentPlan>>>,
    after: u64,
    stop: CancellationToken,
}

impl Following {
    /// The next line: a newer plan, or an empty one that says that the connection lives. `None` when the server stops.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            let newest = self.plans.borrow_and_update().clone();
            if let Some(row) = newest.filter(|row| row.plan.revision > self.after) {
                self.after = row.plan.revision;
                let mut line = serde_json::to_vec(&row.signed).ok()?;
                line.push(b'\n');
                return Some(line.into());
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = self.plans.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep(Duration::from_millis(PLAN_KEEPALIVE_MS)) => return Some(Bytes::from_static(b"\n")),
            }
        }
    }
}

/// Follows the node's own plan. The gate closes the connection, and this stream with it, when the node is revoked.
pub(crate) async fn follow(call: NodeCall<NodePlanFollow>, _: Raw) -> Result<Response, Failure> {
    call.permit_self().await?.spend();
    let control = &call.control;
    let following = Following {
        plans: control.fleet.plan(call.node_id()),
        after: call.number("after")?.unwrap_or(0),
        stop: control.stop.clone(),
    };
    let lines = futures::stream::unfold(following, |mut following| async move {
        let line = following.line().await?;
        Some((Ok::<_, Infallible>(line), following))
    });
    let headers = [(http::header::CONTENT_TYPE, "application/jsonl"), (http::header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// Takes a report: moves attempts forwards, renews run leases, tells which ends are recorded.
pub(crate) async fn report(call: NodeCall<ReportAction>, report: NodeReport) -> Result<ReportAnswer, Failure> {
    call.permit_self().await?.spend();
    check_facts(&report.facts)?;
    if report.attempts.len() > REPORT_ATTEMPTS_MAX {
        return Err(Failure::invalid(format!("`attempts` has at most {REPORT_ATTEMPTS_MAX} items")));
    }
    if let Some(said) = report.attempts.iter().find(|said| said.state.is_final() && said.exit.is_none()) {
        return Err(Failure::invalid(format!("`attempts`: {} is over and its `exit` is missing", said.attempt)));
    }
    for said in &report.attempts {
        check_report(said)?;
    }
    let control = &call.control;
    let node = call.node_id();
    let progress = report.attempts.iter().filter_map(|said| Some((said.attempt, said.progress?))).collect();
    if control.fleet.reported(node, call.now, &report.facts, report.plan_revision, progress) {
        control.fleet.wake.notify_one();
    }
    if call.node.lost {
        control
            .change_node(node, call.now, |row| {
                row.lost = false;
                Ok(vec![call.entry(SYSTEM_OWNER, Event::NodeLost { node, lost: false })?])
            })
            .await?;
        control.fleet.wake.notify_one();
    }
    let placed = control.jobs_on(node).await?;
    let mut answer = ReportAnswer { plan_revision: 0, renewed: Vec::new(), acknowledged: Vec::new() };
    for said in &report.attempts {
        match placed.get(&said.attempt) {
            Some(tenant) => live(&call, *tenant, said, &mut answer).await?,
            None => over(&call, said.attempt, &mut answer).await?,
        }
    }
    answer.plan_revision = control.fleet.current_plan(node).map_or(0, |row| row.plan.revision);
    Ok(answer)
}

/// What a node says of an attempt is shown to the tenant: bounded and without control characters.
fn check_report(said: &AttemptReport) -> Result<(), Failure> {
    let plain = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
    if said.exit.as_ref().is_some_and(|exit| !plain(&exit.detail, 1024)) {
        return Err(Failure::invalid("`exit.detail` has at most 1024 bytes and no control characters"));
    }
    let Some(isolation) = &said.isolation else { return Ok(()) };
    let head = plain(&isolation.backend, 128) && plain(&isolation.cgroup_layout, 128) && plain(&isolation.kernel, 256);
    let head = head && isolation.runtime.as_ref().is_none_or(|runtime| plain(&runtime.version, 128));
    let layers = isolation.layers.iter().all(|layer| plain(&layer.name, 128) && layer.observed.len() <= 1024);
    // As it will lie in the job's row, twice for each attempt.
    let size = serde_json::to_vec(isolation).map_err(Failure::internal)?.len();
    if head && layers && size <= ISOLATION_JSON_MAX { Ok(()) } else { Err(Failure::invalid("`isolation` has texts or layers beyond its limits")) }
}

/// A report of an attempt that has no recorded end.
async fn live(call: &NodeCall<ReportAction>, tenant: TenantId, said: &AttemptReport, answer: &mut ReportAnswer) -> Result<(), Failure> {
    let node = call.node_id();
    let mut renewed = None;
    let change = |job: &mut JobRow| {
        let heard = hear(job, node, said, call.now);
        renewed = heard.renewed;
        let entered = heard.entered.map(|state| call.entry(tenant, Event::JobStep { attempt: said.attempt, node, state })).transpose()?;
        Ok(heard.changed.then(|| entered.into_iter().collect()))
    };
    call.control.change_job(tenant, said.attempt.job, call.now, change).await?;
    answer.renewed.extend(renewed);
    if said.state.is_final() {
        call.control.fleet.wake.notify_one();
    }
    Ok(())
}

/// A report of an attempt that is not live here: its end is recorded, or it never was this node's.
async fn over(call: &NodeCall<ReportAction>, said: AttemptId, answer: &mut ReportAnswer) -> Result<(), Failure> {
    let found = call.control.store.locate(Kind::JOB, said.job).await.map_err(Failure::internal)?;
    let owner = found.as_ref().map_or(SYSTEM_OWNER, |stored| stored.tenant);
    if let Some(stored) = found {
        let job: JobRow = stored.parse().map_err(Failure::internal)?;
        match standing(&job, said.attempt, call.node_id()) {
            Standing::Over => {
                answer.acknowledged.push(said);
                return Ok(());
            }
            Standing::Live => return Ok(()),
            Standing::Foreign => {}
        }
    }
    // Told once: a node that goes on lying fills no log.
    if call.control.fleet.first_lie(call.node_id(), said) {
        let _ = call.refused_attempt(owner, said, AttemptRefusal::Foreign).await;
    }
    Ok(())
}

impl crate::state::Control {
    /// The live attempts of a node with their tenants.
    async fn jobs_on(&self, node: vocabulary::NodeId) -> Result<BTreeMap<AttemptId, TenantId>, Failure> {
        let mut found = BTreeMap::new();
        let mut page = Page::first(1000);
        loop {
            let rows = self.store.list_link_anywhere(Kind::JOB, node, page).await.map_err(Failure::internal)?;
            for stored in &rows.items {
                let job: JobRow = stored.parse().map_err(Failure::internal)?;
                if let Some(attempt) = job.live().filter(|attempt| attempt.node == node) {
                    found.insert(job.attempt_id(attempt), stored.tenant);
                }
            }
            match rows.items.last() {
                Some(last) if rows.truncated => page = Page::after(last.id, 1000),
                _ => return Ok(found),
            }
        }
    }
}
