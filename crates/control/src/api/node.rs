//! The node channel's calls and table. A node is known by its certificate, an attempt by the path; the tenant comes from
//! the stored placement.
//!
//! As on the API, a route names its Cedar action by type, and its handler can obtain a permit for no other.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use audit::entry::{Actor, Source};
use audit::{EncodedEntry, Event, Outcome};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::on;
use http::Request;
use identity::{Subject, VerifiedPeer};
use policy::{Action, CallFacts, Facts, JobFacts, Permit, Resource, SetFacts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::Kind;
use vocabulary::job::AttemptId;
use vocabulary::{ErrorCode, JobId, NodeId, Profile, SYSTEM_OWNER, TenantId, UnixTime};

use crate::api::call::{path_values, query_values};
use crate::api::json;
use crate::api::listener::Connection;
use crate::api::problem::Failure;
use crate::api::table::{Access, Answered, Payload, Raw, Route, Words, answer_json, method_filter};
use crate::clock;
use crate::metrics::Listener;
use crate::planner::{AttemptRow, JobRow};
use crate::row::NodeRow;
use crate::spans;
use crate::state::Control;

/// One call of one action by one node.
#[derive(Debug)]
pub(crate) struct NodeCall<A> {
    pub(crate) control: Arc<Control>,
    pub(crate) now: UnixTime,
    /// The certificate that was shown in the handshake.
    pub(crate) peer: Arc<VerifiedPeer>,
    /// The node's row, read for this call.
    pub(crate) node: NodeRow,
    path: Vec<(String, String)>,
    query: BTreeMap<String, String>,
    lease: Option<String>,
    action: PhantomData<fn(A)>,
}

/// What is asked of an attempt before something is done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It is the newest of its job, has no recorded end, and its run lease lives: keys, objects, commits, its image.
    Alive,
    /// The newest, without a recorded end; its run lease may be over: logs and the statement.
    LastWords,
    /// It is placed here, whatever became of it: to answer a repeated upload as the first time.
    Placed,
}

/// What decides whether a node may act for an attempt at all; who may do what with it is the rules' part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttemptFacts {
    /// The attempt is placed on the node that calls.
    pub(crate) placed_here: bool,
    /// No newer attempt of its job exists.
    pub(crate) newest: bool,
    /// Its end is recorded.
    pub(crate) finished: bool,
    /// When its run lease ends.
    pub(crate) lease_until: UnixTime,
}

/// Why a node may not act for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptRefusal {
    /// Absent, or placed on another node: one answer.
    Foreign,
    /// A newer attempt exists.
    Superseded,
    /// Its end is recorded.
    Finished,
    /// Its run lease has ended.
    LeaseEnded,
}

impl AttemptRefusal {
    /// The rule's id in the entry.
    pub(crate) const fn rule(self) -> &'static str {
        match self {
            Self::Foreign => "attempt-placed-here",
            Self::Superseded => "attempt-newest",
            Self::Finished => "attempt-unfinished",
            Self::LeaseEnded => "attempt-run-lease",
        }
    }
    fn failure(self) -> Failure {
        match self {
            Self::Foreign => Failure::not_found(),
            Self::Superseded => Failure::new(ErrorCode::ReleaseRefused, "the attempt was superseded by a newer one"),
            Self::Finished => Failure::new(ErrorCode::ReleaseRefused, "the attempt's end is recorded"),
            Self::LeaseEnded => Failure::new(ErrorCode::ReleaseRefused, "the attempt's run lease has ended"),
        }
    }
}

impl AttemptFacts {
    /// What a job's row says of an attempt that a node claims.
    pub(crate) fn of(job: &JobRow, number: u32, node: NodeId) -> Self {
        let attempt = job.attempts.iter().find(|attempt| attempt.number == number);
        Self {
            placed_here: attempt.is_some_and(|attempt| attempt.node == node),
            newest: job.attempts.last().is_some_and(|newest| newest.number == number),
            finished: attempt.is_none_or(|attempt| attempt.report.state.is_final()),
            lease_until: attempt.map_or(UnixTime::from_millis(0), |attempt| attempt.run_lease_until),
        }
    }
    /// The first fact that refuses.
    pub(crate) fn judge(self, wanted: Liveness, now: UnixTime) -> Result<(), AttemptRefusal> {
        if !self.placed_here {
            return Err(AttemptRefusal::Foreign);
        }
        if wanted == Liveness::Placed {
            return Ok(());
        }
        if !self.newest {
            return Err(AttemptRefusal::Superseded);
        }
        if self.finished {
            return Err(AttemptRefusal::Finished);
        }
        if wanted == Liveness::Alive && now >= self.lease_until {
            return Err(AttemptRefusal::LeaseEnded);
        }
        Ok(())
    }
}

/// An attempt of the calling node, with its job as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct PlacedAttempt {
    pub(crate) id: AttemptId,
    pub(crate) job: JobRow,
    /// The revision of the job's row: what a change of it expects.
    pub(crate) revision: u64,
    pub(crate) attempt: AttemptRow,
    /// The job's tenant, from the stored placement.
    pub(crate) tenant: SetFacts,
    /// The job with this node, as rules see it.
    pub(crate) facts: JobFacts,
}

impl PlacedAttempt {
    /// The job as the resource of the attempt's actions.
    pub(crate) fn resource(&self) -> Resource {
        Resource::Job(self.facts.clone())
    }
}

/// The parameters that a route's query may have.
fn known_query(route: &str) -> &'static [(&'static str, &'static str)] {
    if route == vocabulary::channel::PLAN { &[("after", "only plans of a greater revision")] } else { &[] }
}

impl<A> NodeCall<A> {
    pub(crate) async fn new(control: Arc<Control>, parts: &http::request::Parts, route: &'static str) -> Result<Self, Failure> {
        let unknown = || Failure::new(ErrorCode::Unauthenticated, "no valid node certificate");
        let peer = parts.extensions.get::<Connection>().and_then(|connection| connection.peer.clone()).ok_or_else(unknown)?;
        let Subject::Node(id) = peer.id.subject else { return Err(unknown()) };
        // Decided again for each call: a connection that is being closed does nothing more.
        if control.gate.revocations().refuses(&peer) {
            return Err(unknown());
        }
        let node = control.node(id).await?.ok_or_else(unknown)?.1;
        let lease = match parts.headers.get("swarm-lease") {
            None => None,
            Some(value) => Some(value.to_str().map_err(|_| Failure::invalid("header `swarm-lease` is not ASCII"))?.to_owned()),
        };
        Ok(Self {
            now: clock::now(),
            peer,
            node,
            path: path_values(route, parts.uri.path())?,
            query: query_values(parts.uri.query().unwrap_or(""), known_query(route))?,
            lease,
            control,
            action: PhantomData,
        })
    }

    /// The node that calls.
    pub(crate) const fn node_id(&self) -> NodeId {
        self.node.id
    }
    /// A value of the path.
    pub(crate) fn path(&self, name: &str) -> Result<&str, Failure> {
        self.path.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).ok_or_else(Failure::not_found)
    }
    /// An id of the path. What is no id is no thing either.
    pub(crate) fn id<T: FromStr>(&self, name: &str) -> Result<T, Failure> {
        self.path(name)?.parse().map_err(|_| Failure::not_found())
    }
    /// A number of the query.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.query
            .get(name)
            .map(|text| text.parse().map_err(|_| Failure::invalid(format!("query parameter `{name}` is no whole number"))))
            .transpose()
    }
    /// The lease of an object route.
    pub(crate) fn lease_id<T: FromStr>(&self) -> Result<T, Failure> {
        let text = self.lease.as_deref().ok_or_else(|| Failure::invalid("header `swarm-lease` is missing"))?;
        text.parse().map_err(|_| Failure::invalid("header `swarm-lease` is no id"))
    }
}

impl<A: Action> NodeCall<A> {
    /// Decides this call's action on a resource; the principal is the node. A refusal is recorded before it is told.
    pub(crate) async fn permit(&self, resource: Resource) -> Result<Permit<A>, Failure> {
        let facts = Facts {
            principal: policy::Principal::Node(self.node.facts()),
            resource,
            call: CallFacts {
                acr: 0,
                mfa_age_s: None,
                request_bound: false,
                approvals: 0,
                production: self.control.profile == Profile::Production,
                source: None,
            },
            release: None,
            person_purpose: None,
        };
        match policy::decide::<A>(&self.control.sets, &facts) {
            Ok(permit) => Ok(permit),
            Err(refusal) => {
                if !refusal.errors.is_empty() {
                    tracing::error!(action = refusal.action, errors = ?refusal.errors, "rules could not be evaluated: denied");
                }
                let code = refusal.code();
                let failure = if code == ErrorCode::NotFound {
                    Failure::not_found()
                } else {
                    Failure::new(code, format!("`{}` is refused by {}", refusal.action, refusal.rules.join(", ")))
                };
                let (kind, id) = refusal.target.split_once("::").unwrap_or(("", refusal.target.as_str()));
                let (kind, id) = (kind.to_lowercase(), id.trim_matches('"').to_owned());
                let tenant = if let Resource::Job(job) = &facts.resource { job.tenant.tenant } else { SYSTEM_OWNER };
                Err(self.refused(tenant, failure, kind, id, refusal.rules).await)
            }
        }
    }

    /// Decides the action on the node itself.
    pub(crate) async fn permit_self(&self) -> Result<Permit<A>, Failure> {
        self.permit(Resource::Node(self.node.facts())).await
    }

    /// The attempt that the path names, if this node may act for it. Foreign and absent are one answer; every refusal is an entry.
    pub(crate) async fn attempt(&self, wanted: Liveness) -> Result<PlacedAttempt, Failure> {
        let job: JobId = self.id("job")?;
        let number: u32 = self.id("attempt")?;
        let id = AttemptId { job, attempt: number };
        let found = self.control.store.locate(Kind::JOB, job).await.map_err(Failure::internal)?;
        let Some(stored) = found else {
            return Err(self.refused_attempt(SYSTEM_OWNER, id, AttemptRefusal::Foreign).await);
        };
        let row: JobRow = stored.parse().map_err(Failure::internal)?;
        let attempt = row.attempts.iter().find(|attempt| attempt.number == number).cloned();
        let facts = AttemptFacts::of(&row, number, self.node.id);
        let refused = facts.judge(wanted, self.now).err();
        let (None, Some(attempt)) = (refused, attempt) else {
            return Err(self.refused_attempt(stored.tenant, id, refused.unwrap_or(AttemptRefusal::Foreign)).await);
        };
        let tenant = self.control.tenant(stored.tenant).await?.ok_or_else(Failure::not_found)?;
        let tenant = SetFacts { tenant: tenant.id, suspended: tenant.suspended };
        let facts = row.facts(tenant, Some(self.node.facts()));
        Ok(PlacedAttempt { id, job: row, revision: stored.revision, attempt, tenant, facts })
    }

    pub(crate) async fn refused_attempt(&self, tenant: TenantId, id: AttemptId, refusal: AttemptRefusal) -> Failure {
        self.refused(tenant, refusal.failure(), "job".to_owned(), id.job.to_string(), vec![refusal.rule().to_owned()]).await
    }

    /// Records a refusal of this node and gives the answer.
    pub(crate) async fn refused(&self, tenant: TenantId, failure: Failure, kind: String, id: String, rules: Vec<String>) -> Failure {
        let code = failure.problem.code;
        let event = Event::Refused { action: A::NAME.to_owned(), resource_kind: kind, resource: id, code, rules };
        self.control.record_refusal(self.entry_of(tenant, Outcome::Refused(code), event), failure, self.now).await
    }

    /// An entry of something that this node did.
    pub(crate) fn entry(&self, tenant: TenantId, event: Event) -> Result<EncodedEntry, Failure> {
        self.entry_of(tenant, Outcome::Success, event)
    }

    fn entry_of(&self, tenant: TenantId, outcome: Outcome, event: Event) -> Result<EncodedEntry, Failure> {
        let id = self.node.id;
        self.control.entry(self.now, tenant, Actor::Node(id), Source::Node(id), outcome, Some(A::NAME), event)
    }
}

/// Collects the routes of the node channel. They stand in no public document: both ends are ours.
pub(crate) struct NodeTable {
    router: Router<Arc<Control>>,
    routes: Vec<Route>,
}

impl NodeTable {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), routes: Vec::new() }
    }

    /// A route that takes JSON and answers JSON.
    pub(crate) fn json<A, Q, R, F, Fut>(&mut self, words: Words, handler: F)
    where
        A: Action,
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(NodeCall<A>, Q) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        self.add::<A, _, _>(words, move |control, request: Request<Body>, route| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let tracer = control.tracer.clone();
                let call = NodeCall::<A>::new(control, &parts, route).await?;
                let bytes = json::read(&parts.headers, body).await?;
                let answer = telemetry::part(&tracer, A::NAME, handler(call, json::parse::<Q>(&bytes)?)).await?;
                Ok(answer_json(&answer, A::NAME))
            }
        });
    }

    /// A route without a body that answers JSON.
    pub(crate) fn get<A, R, F, Fut>(&mut self, words: Words, handler: F)
    where
        A: Action,
        R: Serialize + 'static,
        F: Fn(NodeCall<A>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        self.add::<A, _, _>(words, move |control, request: Request<Body>, route| {
            let handler = handler.clone();
            async move {
                let tracer = control.tracer.clone();
                let call = NodeCall::<A>::new(control, &request.into_parts().0, route).await?;
                Ok(answer_json(&telemetry::part(&tracer, A::NAME, handler(call)).await?, A::NAME))
            }
        });
    }

    /// A route whose body or answer is a stream of bytes.
    pub(crate) fn raw<A, F, Fut>(&mut self, words: Words, handler: F)
    where
        A: Action,
        F: Fn(NodeCall<A>, Raw) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        self.add::<A, _, _>(words, move |control, request: Request<Body>, route| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let tracer = control.tracer.clone();
                let call = NodeCall::<A>::new(control, &parts, route).await?;
                telemetry::part(&tracer, A::NAME, handler(call, Raw(body))).await
            }
        });
    }

    fn add<A, F, Fut>(&mut self, Words(method, path, id, summary): Words, serve: F)
    where
        A: Action,
        F: Fn(Arc<Control>, Request<Body>, &'static str) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let (method_of, verb) = (method_filter(method), method);
        let handler = on(method_of, move |axum::extract::State(control): axum::extract::State<Arc<Control>>, request: Request<Body>| {
            let serve = serve.clone();
            async move {
                let begun = tokio::time::Instant::now();
                let span = spans::request(&control.tracer, verb, path, request.headers());
                let serving = serve(Arc::clone(&control), request, path);
                let response = telemetry::within(span.as_ref().and_then(telemetry::Open::context), serving).await.unwrap_or_else(axum::response::IntoResponse::into_response);
                control.metrics.request(Listener::Nodes, verb, path, response.status(), begun.elapsed());
                spans::answered(span, response.status());
                response
            }
        });
        self.router = std::mem::take(&mut self.router).route(path, handler);
        self.routes.push(Route {
            method,
            path,
            id,
            summary,
            access: Access::Action(A::NAME),
            step_up: A::STEP_UP,
            body: Payload::Nothing,
            answer: Answered::Nothing,
            query: &[],
            headers: Vec::new(),
        });
    }

    pub(crate) fn finish(self) -> (Router<Arc<Control>>, Vec<Route>) {
        (self.router, self.routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_refuses_by_itself() {
        let now = UnixTime::from_millis(1000);
        let good = AttemptFacts { placed_here: true, newest: true, finished: false, lease_until: UnixTime::from_millis(1001) };
        for (facts, alive, last_words, placed) in [
            (good, Ok(()), Ok(()), Ok(())),
            (
                AttemptFacts { placed_here: false, ..good },
                Err(AttemptRefusal::Foreign),
                Err(AttemptRefusal::Foreign),
                Err(AttemptRefusal::Foreign),
            ),
            (AttemptFacts { newest: false, ..good }, Err(AttemptRefusal::Superseded), Err(AttemptRefusal::Superseded), Ok(())),
            (AttemptFacts { finished: true, ..good }, Err(AttemptRefusal::Finished), Err(AttemptRefusal::Finished), Ok(())),
            // The lease's last millisecond is before its end.
            (AttemptFacts { lease_until: now, ..good }, Err(AttemptRefusal::LeaseEnded), Ok(()), Ok(())),
        ] {
            assert_eq!(facts.judge(Liveness::Alive, now), alive, "{facts:?}");
            assert_eq!(facts.judge(Liveness::LastWords, now), last_words, "{facts:?}");
            assert_eq!(facts.judge(Liveness::Placed, now), placed, "{facts:?}");
        }
    }
}
