//! Where a waiting job may run: every constraint by name, on every node.

use std::collections::{BTreeMap, BTreeSet};

use vocabulary::api::Misfit;
use vocabulary::job::Placement;
use vocabulary::label::Jurisdictions;
use vocabulary::plan::{NodeFacts, NodePlace};
use vocabulary::{Name, NodeId, ProjectId, Region, TenantId, UnixTime, VolumeId};

use super::JobRow;
use crate::limits::{NODE_LOST_MS, PLAN_SPECS_MAX};

/// A node, as the planner sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub id: NodeId,
    pub name: Name,
    pub place: NodePlace,
    pub facts: NodeFacts,
    pub trust: u8,
    pub draining: bool,
    pub revoked: bool,
    /// The tenant for which the operator set it apart.
    pub dedicated: Option<TenantId>,
    pub last_seen: Option<UnixTime>,
}

impl NodeView {
    /// Whether it reported within [`NODE_LOST_MS`]. A clock that went back counts as silence.
    pub fn alive(&self, now: UnixTime) -> bool {
        self.last_seen.and_then(|seen| now.since(seen)).is_some_and(|age| age < NODE_LOST_MS)
    }
}

/// What a job's data demands of a place.
#[derive(Debug, Clone)]
pub struct DataRule {
    pub volume: VolumeId,
    pub name: Name,
    pub jurisdictions: Jurisdictions,
    pub min_trust: u8,
    /// The region where its sealed bytes lie; told, not enforced: opening is bound by jurisdiction.
    pub region: Region,
}

/// What a node has given away already, and to whom.
#[derive(Debug, Clone, Default)]
pub struct Used {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub scratch_bytes: u64,
    pub gpus: u32,
    pub jobs: u32,
    /// Bytes of the specs in its plan.
    pub spec_bytes: usize,
    /// Whose jobs live on it.
    pub tenants: BTreeSet<TenantId>,
    /// Who demanded the node for itself, with a job that lives on it.
    pub owner: Option<TenantId>,
}

impl Used {
    /// Counts a job in.
    fn take(&mut self, job: &JobRow) {
        let limits = &job.spec.limits;
        self.cpu_millis = self.cpu_millis.saturating_add(limits.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_add(limits.memory_bytes);
        self.scratch_bytes = self.scratch_bytes.saturating_add(limits.scratch_bytes);
        self.gpus = self.gpus.saturating_add(job.spec.gpus);
        self.jobs = self.jobs.saturating_add(1);
        self.spec_bytes = self.spec_bytes.saturating_add(spec_bytes(job));
        self.tenants.insert(job.tenant);
        if job.spec.placement == Placement::OwnNode {
            self.owner = Some(job.tenant);
        }
    }
}

/// Bytes of a job's spec in a plan.
fn spec_bytes(job: &JobRow) -> usize {
    serde_json::to_vec(&job.spec).map_or(PLAN_SPECS_MAX, |spec| spec.len())
}

/// Sums what live attempts hold on each node. An attempt that is told to go holds its place until its end is recorded.
pub fn usage<'a>(jobs: impl IntoIterator<Item = &'a JobRow>) -> BTreeMap<NodeId, Used> {
    let mut used: BTreeMap<NodeId, Used> = BTreeMap::new();
    for job in jobs {
        if let Some(attempt) = job.live() {
            used.entry(attempt.node).or_default().take(job);
        }
    }
    used
}

/// How many jobs may run at once; who is absent has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunLimits {
    pub tenants: BTreeMap<TenantId, u64>,
    pub projects: BTreeMap<ProjectId, u64>,
}

/// A round of placements: what is given away in it counts for the jobs that come after.
#[derive(Debug)]
pub struct Placing<'a> {
    nodes: &'a [NodeView],
    used: BTreeMap<NodeId, Used>,
    limits: &'a RunLimits,
    of_tenant: BTreeMap<TenantId, u64>,
    of_project: BTreeMap<ProjectId, u64>,
}

impl<'a> Placing<'a> {
    /// Begins a round with these nodes; `jobs` has every job with a live attempt.
    pub fn new(nodes: &'a [NodeView], limits: &'a RunLimits, jobs: impl IntoIterator<Item = &'a JobRow>) -> Self {
        let mut round = Self { nodes, used: BTreeMap::new(), limits, of_tenant: BTreeMap::new(), of_project: BTreeMap::new() };
        for job in jobs {
            if let Some(attempt) = job.live() {
                round.took(attempt.node, job);
            }
        }
        round
    }
    /// Why a job is not placed anywhere though it may fit: its tenant or project has as many jobs on nodes as it may.
    pub fn held_back(&self, job: &JobRow) -> Option<String> {
        let tenant = (self.limits.tenants.get(&job.tenant), self.of_tenant.get(&job.tenant), "the tenant");
        let project = (self.limits.projects.get(&job.project), self.of_project.get(&job.project), "the project");
        [tenant, project].into_iter().find_map(|(limit, running, whose)| {
            let (limit, running) = (*limit?, running.copied().unwrap_or(0));
            (running >= limit).then(|| format!("quota `running_jobs` of {whose}: {running} of {limit} run"))
        })
    }
    /// The node for a waiting job, or why there is none.
    pub fn choose(&self, job: &JobRow, data: &[DataRule], now: UnixTime) -> Result<NodeId, Vec<Misfit>> {
        place(job, data, self.nodes, &self.used, now)
    }
    /// Counts a placement in.
    pub fn took(&mut self, node: NodeId, job: &JobRow) {
        self.used.entry(node).or_default().take(job);
        let one_more = |count: &mut u64| *count = count.saturating_add(1);
        one_more(self.of_tenant.entry(job.tenant).or_default());
        one_more(self.of_project.entry(job.project).or_default());
    }
}

/// Finds a node for a job, or says which constraint failed on which node.
///
/// Among the nodes that fit it takes the one with the most free memory, ties by id: the same state gives the same answer.
pub fn place(job: &JobRow, data: &[DataRule], nodes: &[NodeView], used: &BTreeMap<NodeId, Used>, now: UnixTime) -> Result<NodeId, Vec<Misfit>> {
    let nothing = Used::default();
    let mut best: Option<(u64, NodeId)> = None;
    let mut misfits = Vec::new();
    for node in nodes {
        let taken = used.get(&node.id).unwrap_or(&nothing);
        match misfit(job, data, node, taken, now) {
            Some(constraint) => misfits.push(Misfit { node: node.name.clone(), constraint }),
            None => {
                let free = node.facts.memory_bytes.saturating_sub(taken.memory_bytes);
                let better = best.is_none_or(|(most, id)| free > most || (free == most && node.id < id));
                if better {
                    best = Some((free, node.id));
                }
            }
        }
    }
    best.map(|(_, id)| id).ok_or(misfits)
}

/// The first constraint that fails on a node, in words.
fn misfit(job: &JobRow, data: &[DataRule], node: &NodeView, taken: &Used, now: UnixTime) -> Option<String> {
    let (spec, place) = (&job.spec, &node.place);
    if node.revoked {
        return Some("the node is revoked".into());
    }
    if !node.alive(now) {
        return Some("the node is lost: it has not reported lately".into());
    }
    if node.draining {
        return Some("the node is draining".into());
    }
    if let Some(apart) = apart(job, node, taken) {
        return Some(apart.into());
    }
    if let Some(region) = &spec.region
        && *region != place.region
    {
        return Some(format!("region is {}, the job asks for {region}", place.region));
    }
    if !spec.jurisdictions.is_empty() && !spec.jurisdictions.contains(&place.jurisdiction) {
        return Some(format!("jurisdiction is {}, the job asks for {}", place.jurisdiction, list(&spec.jurisdictions)));
    }
    for rule in data {
        if !rule.jurisdictions.is_empty() && !rule.jurisdictions.contains(&place.jurisdiction) {
            return Some(format!(
                "jurisdiction is {}, volume `{}` ({}, in {}) may be opened in {}",
                place.jurisdiction,
                rule.name,
                rule.volume,
                rule.region,
                list(&rule.jurisdictions)
            ));
        }
        if rule.min_trust > node.trust {
            return Some(format!("trust is {}, volume `{}` asks for {}", node.trust, rule.name, rule.min_trust));
        }
    }
    for (key, wanted) in &spec.node_labels {
        match place.labels.get(key) {
            Some(value) if value == wanted => {}
            Some(value) => return Some(format!("label {key} is {value}, the job asks for {wanted}")),
            None => return Some(format!("label {key} is absent, the job asks for {wanted}")),
        }
    }
    if taken.spec_bytes.saturating_add(spec_bytes(job)) > PLAN_SPECS_MAX {
        return Some(format!("its plan has room for {PLAN_SPECS_MAX} bytes of specs, and {} are taken", taken.spec_bytes));
    }
    let limits = &spec.limits;
    if let Some(runtime) = spec.runtime
        && !node.facts.offers(runtime)
    {
        let offered: Vec<&str> = node.facts.runtimes.iter().map(|offer| offer.runtime.as_str()).collect();
        let offered = if offered.is_empty() { "youki".to_owned() } else { offered.join(", ") };
        return Some(format!("runtime: the node offers {offered}, the job asks for {runtime}"));
    }
    for (what, wanted, total, taken) in [
        ("cpu (thousandths)", limits.cpu_millis, node.facts.cpu_millis, taken.cpu_millis),
        ("memory (bytes)", limits.memory_bytes, node.facts.memory_bytes, taken.memory_bytes),
        ("scratch (bytes)", limits.scratch_bytes, node.facts.scratch_bytes, taken.scratch_bytes),
        ("gpus", u64::from(spec.gpus), u64::from(node.facts.gpus), u64::from(taken.gpus)),
    ] {
        let free = total.saturating_sub(taken);
        if wanted > free {
            return Some(format!("{what}: {free} of {total} free, the job asks for {wanted}"));
        }
    }
    None
}

/// Whether the tenants are to be apart: a node that is set apart takes no others, and a job that demands its own node has
/// nobody beside it, neither before nor after. Whose the node is, or whose job is on it, is told to nobody else.
fn apart(job: &JobRow, node: &NodeView, taken: &Used) -> Option<&'static str> {
    if node.dedicated.is_some_and(|tenant| tenant != job.tenant) {
        return Some("the node is set apart for another tenant");
    }
    if taken.owner.is_some_and(|owner| owner != job.tenant) {
        return Some("a job that demands the node for its own tenant is on it");
    }
    if job.spec.placement == Placement::OwnNode {
        if node.dedicated.is_none() {
            return Some("the job asks for placement own_node, and the node is set apart for no tenant");
        }
        if taken.tenants.iter().any(|tenant| *tenant != job.tenant) {
            return Some("the job asks for placement own_node, and a job of another tenant is still on the node");
        }
    }
    None
}

fn list(jurisdictions: &Jurisdictions) -> String {
    jurisdictions.iter().map(vocabulary::Jurisdiction::as_str).collect::<Vec<_>>().join(" or ")
}
