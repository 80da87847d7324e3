//! Nodes as operators see and steer them.

use audit::{Event, Outcome};
use policy::action::{
    NodeDedicate, NodeDrain, NodeList, NodeResume, NodeRevoke, NodeView as ViewAction,
};
use policy::{Action, Resource};
use store::{Expect, Kind, Mutation, Page, Put, Revoked, Transaction};
use vocabulary::api::{self, Done, Node, PrincipalKind};
use vocabulary::{ErrorCode, NodeId, SYSTEM_OWNER, UnixTime};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::limits::DRAIN_DEADLINE_MAX_S;
use crate::operation::{commit, done, page, paged};
use crate::planner::{JobRow, NodeView};
use crate::row::NodeRow;
use crate::server::revocation_set;
use crate::state::{Control, actor, commit_failure};

/// Tries of a change that others keep overtaking.
const TRIES: usize = 8;

impl Control {
    /// All nodes as the planner sees them. Those that never said what they have are left out: nothing fits there.
    pub(crate) fn views<'a>(&self, rows: impl IntoIterator<Item = &'a NodeRow>) -> Vec<NodeView> {
        rows.into_iter()
            .filter_map(|row| {
                let seen = self.fleet.seen(row.id)?;
                Some(NodeView {
                    id: row.id,
                    name: row.name.clone(),
                    place: row.place.clone(),
                    facts: seen.facts,
                    trust: row.facts().trust,
                    draining: row.draining,
                    revoked: row.revoked,
                    dedicated: row.dedicated,
                    last_seen: seen.last_seen,
                })
            })
            .collect()
    }

    /// The rows of all nodes, with their revisions.
    pub(crate) async fn node_rows(&self) -> Result<Vec<(u64, NodeRow)>, Failure> {
        let mut rows: Vec<(u64, NodeRow)> = Vec::new();
        let mut next = Page::first(1000);
        loop {
            let found = self.store.list(SYSTEM_OWNER, Kind::NODE, next).await.map_err(Failure::internal)?;
            for stored in &found.items {
                rows.push((stored.revision, stored.parse().map_err(Failure::internal)?));
            }
            match found.items.last() {
                Some(last) if found.truncated => next = Page::after(last.id, 1000),
                _ => return Ok(rows),
            }
        }
    }

    /// Changes a node's row, again when somebody was faster. Gives the audit index of the first entry.
    pub(crate) async fn change_node(
        &self,
        id: NodeId,
        now: UnixTime,
        change: impl Fn(&mut NodeRow) -> Result<Vec<audit::EncodedEntry>, Failure>,
    ) -> Result<u64, Failure> {
        for _ in 0..TRIES {
            let (revision, mut row) = self.node(id).await?.ok_or_else(Failure::not_found)?;
            let entries = change(&mut row)?;
            let put = Put::json(SYSTEM_OWNER, Kind::NODE, id, Expect::Revision(revision), &row).map_err(Failure::internal)?.name(&row.name);
            let transaction = entries.into_iter().fold(Transaction::new().with(put), Transaction::entry);
            match self.store.commit(transaction, now).await {
                Ok(committed) => return Ok(committed.audit_indexes.first().copied().unwrap_or_default()),
                Err(error) if matches!(error.conflict(), Some(store::Conflict::Revision { .. })) => {}
                Err(error) => return Err(commit_failure(error)),
            }
        }
        Err(Failure::new(ErrorCode::Unavailable, "the node is being changed by others: try again"))
    }

    /// Changes a job's row, again when somebody was faster. The change says `None` to leave it as it is.
    pub(crate) async fn change_job(
        &self,
        tenant: vocabulary::TenantId,
        id: vocabulary::JobId,
        now: UnixTime,
        change: impl FnMut(&mut JobRow) -> Result<Option<Vec<audit::EncodedEntry>>, Failure>,
    ) -> Result<Option<(JobRow, store::Committed)>, Failure> {
        self.change_job_with(tenant, id, now, None, change).await
    }

    /// The same, only while something else is as it was seen: otherwise nothing is changed, and the answer is `None`.
    pub(crate) async fn change_job_if(
        &self,
        tenant: vocabulary::TenantId,
        id: vocabulary::JobId,
        now: UnixTime,
        held: Mutation,
        change: impl FnMut(&mut JobRow) -> Result<Option<Vec<audit::EncodedEntry>>, Failure>,
    ) -> Result<Option<(JobRow, store::Committed)>, Failure> {
        self.change_job_with(tenant, id, now, Some(held), change).await
    }

    async fn change_job_with(
        &self,
        tenant: vocabulary::TenantId,
        id: vocabulary::JobId,
        now: UnixTime,
        held: Option<Mutation>,
        mut change: impl FnMut(&mut JobRow) -> Result<Option<Vec<audit::EncodedEntry>>, Failure>,
    ) -> Result<Option<(JobRow, store::Committed)>, Failure> {
        for _ in 0..TRIES {
            let found = self.store.get_json::<JobRow>(tenant, Kind::JOB, id).await.map_err(Failure::internal)?;
            let (stored, mut job) = found.ok_or_else(Failure::not_found)?;
            let Some(entries) = change(&mut job)? else { return Ok(None) };
            let transaction = Transaction::new().with(job.put(Expect::Revision(stored.revision))?);
            let transaction = held.iter().cloned().fold(transaction, Transaction::with);
            match self.store.commit(entries.into_iter().fold(transaction, Transaction::entry), now).await {
                Ok(committed) => return Ok(Some((job, committed))),
                // The job's own row is the first mutation; what is held comes after it.
                Err(store::CommitError::Conflict { mutation, .. }) if mutation > 0 => return Ok(None),
                Err(error) if matches!(error.conflict(), Some(store::Conflict::Revision { .. })) => {}
                Err(error) => return Err(commit_failure(error)),
            }
        }
        Err(Failure::new(ErrorCode::Unavailable, "the job is being changed by others: try again"))
    }

    async fn shown_node(&self, row: NodeRow, revision: u64, now: UnixTime) -> Result<Node, Failure> {
        let seen = self.fleet.seen(row.id);
        let last_seen = seen.as_ref().and_then(|seen| seen.last_seen);
        let alive = last_seen.and_then(|seen| now.since(seen)).is_some_and(|age| age < crate::limits::NODE_LOST_MS);
        let state = match (row.revoked, alive, row.draining) {
            (true, ..) => "revoked",
            (_, false, _) => "lost",
            (.., true) => "draining",
            _ => "alive",
        };
        let jobs = self.store.list_link_anywhere(Kind::JOB, row.id, Page::first(1000)).await.map_err(Failure::internal)?;
        let mut leaving = 0_u32;
        for stored in &jobs.items {
            let job: JobRow = stored.parse().map_err(Failure::internal)?;
            leaving = leaving.saturating_add(u32::from(job.live().is_some_and(|attempt| attempt.evicted.is_some())));
        }
        Ok(Node {
            id: row.id,
            name: row.name,
            provider: row.provider,
            place: row.place,
            state: state.to_owned(),
            last_seen,
            facts: seen.map(|seen| seen.facts),
            jobs: u32::try_from(jobs.items.len()).unwrap_or(u32::MAX),
            leaving,
            drain_until: row.drain_until.filter(|_| row.draining),
            dedicated: row.dedicated,
            revision,
        })
    }
}

/// Lists nodes.
pub(crate) async fn list(call: Call<NodeList>) -> Result<api::Page<Node>, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let member = call.member()?;
    let found = call.control.store.list(SYSTEM_OWNER, Kind::NODE, page(&call)?).await.map_err(Failure::internal)?;
    let mut seen_nodes = std::collections::BTreeMap::new();
    for stored in &found.items {
        let row: NodeRow = stored.parse().map_err(Failure::internal)?;
        // A provider's staff sees that provider's nodes.
        if call.control.may_see::<ViewAction>(member, Resource::Node(row.facts())) {
            seen_nodes.insert(stored.id, call.control.shown_node(row, stored.revision, call.now).await?);
        }
    }
    Ok(paged(found, |row| row.id, |row| seen_nodes.get(&row.id).cloned()))
}

/// The node that a call names, with the decision on it. Whoever may not act on nodes learns nothing of which there are: an
/// absent one is decided like a node of no provider before its absence is told.
async fn decided<A: Action>(call: &Call<A>, named: bool) -> Result<(u64, NodeRow), Failure> {
    let id: NodeId = call.id("id")?;
    let found = call.control.node(id).await?;
    if found.is_none() && call.member()?.kind == PrincipalKind::Operator {
        return Err(Failure::not_found());
    }
    let facts = match &found {
        Some((_, row)) => row.facts(),
        None => policy::NodeFacts {
            id,
            provider: None,
            region: "none".parse().map_err(Failure::internal)?,
            jurisdiction: "NONE".parse().map_err(Failure::internal)?,
            trust: 0,
        },
    };
    let name = found.as_ref().map_or_else(|| "unknown".to_owned(), |(_, row)| row.name.to_string());
    let text = id.to_string();
    let names: &[(&str, &str)] = if named { &[(&text, &name)] } else { &[] };
    call.permit(Resource::Node(facts), names).await?.spend();
    found.ok_or_else(Failure::not_found)
}

/// Shows a node.
pub(crate) async fn show(call: Call<ViewAction>) -> Result<Node, Failure> {
    let (revision, row) = decided(&call, false).await?;
    call.control.shown_node(row, revision, call.now).await
}

/// Takes no new jobs from now on. Those that run go on: until the deadline, where there is one. Asked again, the new deadline
/// counts, for what was not sent away yet.
pub(crate) async fn drain(call: Call<NodeDrain>, request: api::NodeDrain) -> Result<Done, Failure> {
    if request.deadline_s.is_some_and(|seconds| seconds > DRAIN_DEADLINE_MAX_S) {
        return Err(Failure::invalid(format!("`deadline_s` is 0 to {DRAIN_DEADLINE_MAX_S}; leave it out to let jobs end by themselves")));
    }
    let until = request.deadline_s.map(|seconds| call.now.plus_millis(seconds.saturating_mul(1000)));
    drained(call, true, until).await
}

/// Takes jobs again. What was told to go goes all the same.
pub(crate) async fn resume(call: Call<NodeResume>) -> Result<Done, Failure> {
    drained(call, false, None).await
}

async fn drained<A: Action>(call: Call<A>, drained: bool, until: Option<UnixTime>) -> Result<Done, Failure> {
    let (_, row) = decided(&call, false).await?;
    if row.revoked {
        return Err(Failure::new(ErrorCode::WrongState, "the node is revoked, which is for good"));
    }
    let member = call.member()?;
    let control = &call.control;
    let index = control
        .change_node(row.id, call.now, |row| {
            row.draining = drained;
            row.drain_until = until;
            let event = Event::NodeDrained { node: row.id, drained, until };
            Ok(vec![control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(A::NAME), event)?])
        })
        .await?;
    control.fleet.wake.notify_one();
    Ok(done(index, &[]))
}

/// Sets a node apart for a tenant: nobody else's jobs are placed on it any more; those that are there go on, and a job that
/// demands its own node waits for their end.
pub(crate) async fn dedicate(
    call: Call<NodeDedicate>,
    request: api::NodeDedicate,
) -> Result<Done, Failure> {
    let (_, row) = decided(&call, false).await?;
    if row.revoked {
        return Err(Failure::new(
            ErrorCode::WrongState,
            "the node is revoked, which is for good",
        ));
    }
    let member = call.member()?;
    let control = &call.control;
    if let Some(tenant) = request.tenant
        && control.tenant(tenant).await?.is_none()
    {
        return Err(Failure::new(
            ErrorCode::NotFound,
            "`tenant`: there is no such tenant",
        ));
    }
    let index = control
        .change_node(row.id, call.now, |row| {
            row.dedicated = request.tenant;
            let event = Event::NodeDedicated {
                node: row.id,
                dedicated: request.tenant,
            };
            let entry = control.entry(
                call.now,
                SYSTEM_OWNER,
                actor(member),
                call.source(),
                Outcome::Success,
                Some(NodeDedicate::NAME),
                event,
            )?;
            row.dedicated_entry = request.tenant.map(|_| entry.id);
            Ok(vec![entry])
        })
        .await?;
    control.fleet.wake.notify_one();
    Ok(done(index, &[]))
}

/// Revokes a node for good: its certificates pass no more, its connections are closed, every other node is told by its plan.
pub(crate) async fn revoke(call: Call<NodeRevoke>) -> Result<Done, Failure> {
    let (revision, mut row) = decided(&call, true).await?;
    if row.revoked {
        return Err(Failure::new(ErrorCode::WrongState, "the node is revoked already"));
    }
    let control = &call.control;
    row.revoked = true;
    let event = Event::NodeRevoked { node: row.id, reason: "revoked by an operator".to_owned() };
    let member = call.member()?;
    let entry = control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(NodeRevoke::NAME), event)?;
    let put = Put::json(SYSTEM_OWNER, Kind::NODE, row.id, Expect::Revision(revision), &row).map_err(Failure::internal)?.name(&row.name);
    let transaction = Transaction::new().with(Mutation::Revoke(Revoked::Node(row.id))).with(put).entry(entry);
    let (index, _) = commit(&call, transaction).await?;
    control.gate.revoke(revocation_set(&control.store).await.map_err(Failure::internal)?);
    control.fleet.wake.notify_one();
    Ok(done(index, &[]))
}
