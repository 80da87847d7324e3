//! One call of one action: who, on what path, with which proofs; and the only way to a permit.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use audit::entry::Source;
use audit::{Event, Outcome};
use identity::stepup::CanonicalRequest;
use policy::{Action, action, CallFacts, Facts, NextStep, Permit, Refusal, Resource};
use store::{Mutation, StepUpRow, Transaction};
use vocabulary::problem::StepUpChallenge;
use vocabulary::{ErrorCode, Profile, Purpose, Sha256Digest, StepUpId, UnixTime};

use crate::api::listener::Connection;
use crate::api::problem::Failure;
use crate::caller::Member;
use crate::clock;
use crate::limits::STEP_UP_LIFETIME_MS;
use crate::state::{Control, actor, commit_failure, fresh};

/// The "action" of routes that everybody may call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Public {}

/// The creates whose answer is kept under the client's `Idempotency-Key`. Answers with a secret are not: it is shown once and kept
/// nowhere.
pub(crate) const REPEATABLE: &[&str] = &[
    action::JobSubmit::NAME,
    action::ProjectCreate::NAME,
    action::ServiceAccountCreate::NAME,
    action::VolumeCreate::NAME,
];

/// A route as its calls know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) path: &'static str,
    /// The parameters that its query may have, with their meaning.
    pub(crate) query: &'static [(&'static str, &'static str)],
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call<A> {
    pub(crate) control: Arc<Control>,
    pub(crate) now: UnixTime,
    pub(crate) connection: Option<Connection>,
    caller: Option<Member>,
    path: Vec<(String, String)>,
    query: BTreeMap<String, String>,
    method: String,
    route: &'static str,
    body: Option<serde_json::Value>,
    if_match: Option<String>,
    idempotency: Option<String>,
    step_up: Option<StepUpId>,
    lease: Option<String>,
    length: Option<String>,
    action: PhantomData<fn(A)>,
}

impl<A> Call<A> {
    fn parse(control: Arc<Control>, parts: &http::request::Parts, spot: Spot, caller: Option<Member>, body: &[u8]) -> Result<Self, Failure> {
        let header = |name: &str| -> Result<Option<String>, Failure> {
            let Some(value) = parts.headers.get(name) else { return Ok(None) };
            let text = value.to_str().map_err(|_| Failure::invalid(format!("header `{name}` is not ASCII")))?;
            if text.len() > 128 {
                return Err(Failure::invalid(format!("header `{name}` has at most 128 characters")));
            }
            Ok(Some(text.to_owned()))
        };
        let step_up = header("swarm-step-up")?
            .map(|text| text.parse().map_err(|error: vocabulary::id::IdError| Failure::invalid(format!("header `swarm-step-up`: {error}"))))
            .transpose()?;
        Ok(Self {
            now: clock::now(),
            connection: parts.extensions.get::<Connection>().cloned(),
            caller,
            path: path_values(spot.path, parts.uri.path())?,
            query: query_values(parts.uri.query().unwrap_or(""), spot.query)?,
            method: parts.method.as_str().to_owned(),
            route: spot.path,
            body: serde_json::from_slice(body).ok(),
            if_match: header("if-match")?,
            idempotency: header("idempotency-key")?,
            lease: header("swarm-lease")?,
            length: header("content-length")?,
            step_up,
            control,
            action: PhantomData,
        })
    }

    /// A value of the path.
    pub(crate) fn path(&self, name: &str) -> Result<&str, Failure> {
        self.path.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).ok_or_else(Failure::not_found)
    }
    /// An id of the path. What is no id is no thing either.
    pub(crate) fn id<T: FromStr>(&self, name: &str) -> Result<T, Failure> {
        self.path(name)?.parse().map_err(|_| Failure::not_found())
    }
    /// A parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
    /// A number of the query.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.query(name)
            .map(|text| text.parse().map_err(|_| Failure::invalid(format!("query parameter `{name}` is no whole number"))))
            .transpose()
    }
    /// The revision of `If-Match`.
    pub(crate) fn revision(&self) -> Result<u64, Failure> {
        let text = self.if_match.as_deref().ok_or_else(|| Failure::invalid("header `If-Match` with the revision is missing"))?;
        text.trim_matches('"').parse().map_err(|_| Failure::invalid("header `If-Match` is no revision"))
    }
    /// The lease of an object route.
    pub(crate) fn lease_id<T: FromStr>(&self) -> Result<T, Failure> {
        let text = self.lease.as_deref().ok_or_else(|| Failure::invalid("header `swarm-lease` is missing"))?;
        text.parse().map_err(|_| Failure::invalid("header `swarm-lease` is no id"))
    }
    /// The route, as the table names it.
    pub(crate) const fn route(&self) -> &'static str {
        self.route
    }
    /// The confirmation that the request names.
    pub(crate) fn step_up_named(&self) -> Option<String> {
        self.step_up.map(|id| id.to_string())
    }
    /// The lease that the request names, if it is an id.
    pub(crate) fn lease_named(&self) -> Option<String> {
        self.lease.as_deref()?.parse::<vocabulary::LeaseId>().ok().map(|id| id.to_string())
    }
    /// How many bytes the body has, as its sender says.
    pub(crate) fn content_length(&self) -> Option<&str> {
        self.length.as_deref()
    }
    /// Refuses an `Idempotency-Key` that would do nothing: whoever sends one relies on it.
    fn not_ignored(&self) -> Result<(), Failure> {
        if self.method != "POST" || self.idempotency.is_none() {
            return Ok(());
        }
        Err(Failure::invalid("header `Idempotency-Key` is not for this route: it cannot be repeated safely; look at what there is before you ask again"))
    }
    /// Makes a create repeatable under the client's `Idempotency-Key`, if it sent one: the answer is kept for the next time.
    pub(crate) fn repeatable<T: serde::Serialize>(&self, transaction: Transaction, answer: &T) -> Result<Transaction, Failure> {
        let Some(key) = &self.idempotency else { return Ok(transaction) };
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::invalid("header `Idempotency-Key` has 1 to 128 printable ASCII characters"));
        }
        let member = self.member()?;
        Ok(transaction.idempotent(store::IdempotencyKey {
            tenant: member.owner(),
            principal: member.principal,
            key: key.clone(),
            request_hash: *self.request_hash(member)?.as_bytes(),
            answer: serde_json::to_vec(answer).map_err(Failure::internal)?,
        }))
    }
    /// What this request was answered the first time, with the index of its first entry, if it is a repeated one.
    pub(crate) async fn replayed<T: serde::de::DeserializeOwned>(
        &self,
    ) -> Result<Option<(u64, T)>, Failure> {
        let Some(key) = &self.idempotency else {
            return Ok(None);
        };
        let member = self.member()?;
        let hash = self.request_hash(member)?;
        let found = self
            .control
            .store
            .replay(member.owner(), member.principal, key, hash.as_bytes())
            .await
            .map_err(commit_failure)?;
        let Some(committed) = found else {
            return Ok(None);
        };
        let index = committed.audit_indexes.first().copied().unwrap_or_default();
        committed
            .replayed
            .map(|first| {
                serde_json::from_slice(&first)
                    .map(|answer| (index, answer))
                    .map_err(Failure::internal)
            })
            .transpose()
    }
    /// The member who calls.
    pub(crate) fn member(&self) -> Result<&Member, Failure> {
        self.caller.as_ref().ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "no valid token"))
    }
    /// The member's tenant: from the credential, never from the request.
    pub(crate) fn tenant(&self) -> Result<policy::SetFacts, Failure> {
        self.member()?.tenant.ok_or_else(|| {
            Failure::new(ErrorCode::Forbidden, "an operator has no tenant: log in as a user of one")
        })
    }
    /// Where it comes from, for entries.
    pub(crate) fn source(&self) -> Source {
        Source::Peer(self.control.source(self.connection.as_ref()))
    }
    /// The canonical request's hash: what a step-up and an idempotency key are bound to.
    pub(crate) fn request_hash(&self, member: &Member) -> Result<Sha256Digest, Failure> {
        let path: Vec<(&str, &str)> = self.path.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        CanonicalRequest {
            method: &self.method,
            route: self.route,
            path: &path,
            if_match: self.if_match.as_deref(),
            body: self.body.as_ref(),
            tenant: member.tenant.map(|tenant| tenant.tenant),
            principal: member.principal,
        }
        .hash()
        .map_err(|error| Failure::invalid(error.to_string()))
    }
}

impl Call<Public> {
    pub(crate) fn public(control: Arc<Control>, parts: &http::request::Parts, spot: Spot) -> Result<Self, Failure> {
        let call = Self::parse(control, parts, spot, None, b"")?;
        call.not_ignored()?;
        Ok(call)
    }
}

impl<A: Action> Call<A> {
    pub(crate) fn new(
        control: Arc<Control>,
        parts: &http::request::Parts,
        spot: Spot,
        caller: Member,
        body: &[u8],
    ) -> Result<Self, Failure> {
        let call = Self::parse(control, parts, spot, Some(caller), body)?;
        if !REPEATABLE.contains(&A::NAME) {
            call.not_ignored()?;
        }
        Ok(call)
    }

    /// Decides this call's action on a resource. A refusal is recorded before it is told.
    pub(crate) async fn permit(&self, resource: Resource, named: &[(&str, &str)]) -> Result<Permit<A>, Failure> {
        self.permit_for(resource, named, None).await
    }

    /// Decides another action that this call needs beside its own. A refusal is recorded under that action.
    pub(crate) async fn also<B: Action>(&self, resource: Resource) -> Result<(), Failure> {
        const { assert!(!B::STEP_UP, "a confirmation is for a call's own action") };
        let member = self.member()?;
        let facts = Facts {
            principal: member.facts(),
            resource,
            call: CallFacts {
                acr: member.acr,
                mfa_age_s: None,
                request_bound: false,
                approvals: 0,
                production: self.control.profile == Profile::Production,
                source: self.connection.as_ref().map(|connection| connection.remote.ip()),
            },
            release: None,
            person_purpose: None,
        };
        match policy::decide::<B>(&self.control.sets, &facts) {
            Ok(permit) => {
                permit.spend();
                Ok(())
            }
            Err(refusal) => Err(self.refuse(member, refusal, &[]).await),
        }
    }

    /// Records a refusal by a rule that stands beside the policy sets, and gives the answer.
    pub(crate) async fn refused(&self, failure: Failure, kind: &str, id: String, rule: &str) -> Failure {
        let member = match self.member() {
            Ok(member) => member,
            Err(failure) => return failure,
        };
        let code = failure.problem.code;
        let event = Event::Refused { action: A::NAME.to_owned(), resource_kind: kind.to_owned(), resource: id, code, rules: vec![rule.to_owned()] };
        let entry = self.control.entry(self.now, member.owner(), actor(member), self.source(), Outcome::Refused(code), Some(A::NAME), event);
        self.control.record_refusal(entry, failure, self.now).await
    }

    /// The same, for a release of keys to a person, with the purpose that the person named.
    pub(crate) async fn permit_for(&self, resource: Resource, named: &[(&str, &str)], purpose: Option<Purpose>) -> Result<Permit<A>, Failure> {
        let member = self.member()?;
        let (acr, shown, request_bound) = self.confirmed(member).await?;
        let facts = Facts {
            principal: member.facts(),
            resource,
            call: CallFacts {
                acr,
                mfa_age_s: shown.and_then(|shown| self.now.since(shown)).map(|age| age / 1000),
                request_bound,
                approvals: 0,
                production: self.control.profile == Profile::Production,
                source: self.connection.as_ref().map(|connection| connection.remote.ip()),
            },
            release: None,
            person_purpose: purpose,
        };
        match policy::decide::<A>(&self.control.sets, &facts) {
            Ok(permit) => Ok(permit),
            Err(refusal) => Err(self.refuse(member, refusal, named).await),
        }
    }

    /// Spends the step-up that the request carries. Returns class and time of the factor, and whether it is bound.
    async fn confirmed(&self, member: &Member) -> Result<(u8, Option<UnixTime>, bool), Failure> {
        let (Some(id), true) = (self.step_up, A::STEP_UP) else { return Ok((member.acr, member.factor_time, false)) };
        let owner = member.owner();
        let refused = |detail: &str| Failure::new(ErrorCode::StepUpRefused, detail);
        let row = self.control.store.step_up(owner, id).await.map_err(Failure::internal)?.ok_or_else(|| refused("unknown confirmation"))?;
        if row.login != member.token || row.action != A::NAME {
            return Err(refused("the confirmation belongs to another login or action"));
        }
        let consume = Mutation::ConsumeStepUp {
            tenant: owner,
            id,
            principal: member.principal,
            request_hash: *self.request_hash(member)?.as_bytes(),
        };
        match self.control.store.commit(Transaction::new().with(consume), self.now).await {
            Ok(_) => Ok((row.acr, row.verified_at, true)),
            Err(error) if error.conflict().is_some() => Err(refused("the confirmation is spent, has ended, or is for another request")),
            Err(error) => Err(commit_failure(error)),
        }
    }

    /// Records a refusal and turns it into an answer.
    async fn refuse(&self, member: &Member, refusal: Refusal, named: &[(&str, &str)]) -> Failure {
        if !refusal.errors.is_empty() {
            tracing::error!(action = refusal.action, errors = ?refusal.errors, "rules could not be evaluated: denied");
        }
        let code = refusal.code();
        let mut failure = match refusal.next {
            NextStep::StepUp => match self.challenge(member, named).await {
                Ok(challenge) => {
                    let mut failure = Failure::new(code, format!("confirm: {}", challenge.summary));
                    failure.problem.step_up = Some(challenge);
                    failure
                }
                Err(failure) => return failure,
            },
            NextStep::Foreign => Failure::not_found(),
            NextStep::Guardrail => {
                Failure::new(code, format!("`{}` is refused by {}", refusal.action, refusal.rules.join(", ")))
            }
            NextStep::Passkey | NextStep::SecondPerson | NextStep::Role => {
                Failure::new(code, format!("`{}` is not permitted", refusal.action))
            }
        };
        if member.is_admin() && code != ErrorCode::NotFound {
            failure.problem.rules.clone_from(&refusal.rules);
        }
        let (kind, id) = refusal.target.split_once("::").unwrap_or(("", refusal.target.as_str()));
        let event = Event::Refused {
            action: refusal.action.to_owned(),
            resource_kind: kind.to_lowercase(),
            resource: id.trim_matches('"').to_owned(),
            code,
            rules: refusal.rules,
        };
        let entry =
            self.control.entry(self.now, member.owner(), actor(member), self.source(), Outcome::Refused(code), Some(refusal.action), event);
        self.control.record_refusal(entry, failure, self.now).await
    }

    /// Leaves a pending confirmation behind, bound to this very request.
    async fn challenge(&self, member: &Member, named: &[(&str, &str)]) -> Result<StepUpChallenge, Failure> {
        let id = fresh(StepUpId::new, self.now);
        let summary = identity::SummarisedAct { action: A::NAME, words: A::WORDS, resources: named }.summary();
        let expires = self.now.plus_millis(STEP_UP_LIFETIME_MS);
        let row = StepUpRow {
            tenant: member.owner(),
            id,
            principal: member.principal,
            login: member.token,
            action: A::NAME.to_owned(),
            summary: summary.clone(),
            request_hash: *self.request_hash(member)?.as_bytes(),
            challenge: Vec::new(),
            created: self.now,
            expires,
            verified: false,
            acr: 0,
            uses_left: 1,
            verified_at: None,
        };
        self.control.store.commit(Transaction::new().with(Mutation::PutStepUp(row)), self.now).await.map_err(commit_failure)?;
        Ok(StepUpChallenge { id, summary, expires })
    }
}

/// The values of a path, by the names in the route, as they were meant: many clients send `sha256%3A…`.
pub(crate) fn path_values(route: &str, path: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut values = Vec::new();
    let mut parts = path.split('/');
    for name in route.split('/') {
        let Some(parameter) = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
            parts.next();
            continue;
        };
        if let Some(rest) = parameter.strip_prefix('*') {
            let value: Vec<&str> = parts.by_ref().collect();
            values.push((rest.to_owned(), percent_decoded(&value.join("/")).ok_or_else(Failure::not_found)?));
            break;
        }
        // What is no single part of a path is no name of anything.
        let value = percent_decoded(parts.next().unwrap_or("")).filter(|value| !value.contains('/')).ok_or_else(Failure::not_found)?;
        values.push((parameter.to_owned(), value));
    }
    Ok(values)
}

/// The parameters of a query: those that the route knows, each once. A misspelt filter would else list everything.
pub(crate) fn query_values(query: &str, known: &[(&str, &str)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut values = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.iter().any(|(other, _)| *other == name) {
            let name: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
            let known: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Failure::invalid(format!("query parameter `{name}` is not known here: this route knows {known}")));
        }
        let value = percent_decoded(value).ok_or_else(|| Failure::invalid(format!("query parameter `{name}` is not well encoded")))?;
        if values.insert(name.to_owned(), value).is_some() {
            return Err(Failure::invalid(format!("query parameter `{name}` stands twice")));
        }
    }
    Ok(values)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries() {
        let values = path_values("/v1/volumes/{id}/objects/{*path}", "/v1/volumes/7/objects/seg/00/x").unwrap();
        assert_eq!(values, [("id".to_owned(), "7".to_owned()), ("path".to_owned(), "seg/00/x".to_owned())]);
        let one = |text: &str| path_values("/v1/blobs/{id}", &format!("/v1/blobs/{text}")).map(|values| values[0].1.clone()).ok();
        assert_eq!(one("sha256%3A00").as_deref(), Some("sha256:00"));
        assert_eq!(one("%252e").as_deref(), Some("%2e"), "decoded once");
        for bad in ["%", "%2", "%zz", "%00", "a%2Fb", "%ff"] {
            assert_eq!(one(bad), None, "{bad}");
        }
        let below = path_values("/v1/volumes/{id}/objects/{*path}", "/v1/volumes/7/objects/seg%2F00/x").unwrap();
        assert_eq!(below[1].1, "seg/00/x");
        let values = |query: &str| query_values(query, &[("a", ""), ("b", "")]);
        assert_eq!(values("a=1&b=x%2Fy").unwrap().get("b").unwrap(), "x/y");
        assert!(values("a=1&a=2").is_err() && values("a=%zz").is_err() && values("a=%00").is_err());
        let told = |query: &str| values(query).unwrap_err().problem.detail;
        assert_eq!(told("a=1&limt=2"), "query parameter `limt` is not known here: this route knows `a`, `b`");
        assert!(values("%61=1").is_err(), "a name in another dress is another name");
        let long = told(&format!("\u{1b}{}=1", "x".repeat(5000)));
        assert!(long.len() < 200 && !long.contains('\u{1b}'), "{long}");
    }
}
