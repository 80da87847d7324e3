//! Refusals before a decision: what a principal reached for and is not there for them, a lease or a confirmation that is none.
//!
//! Foreign and absent are looked up in one way and found in none, so no rule is asked. They are entries all the same
//! (decision 1.9): whoever tries ids leaves a trace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use audit::entry::Source;
use audit::{Event, Outcome};
use policy::Action;
use vocabulary::{ErrorCode, PrincipalId, UnixTime};

use crate::api::call::Call;
use crate::api::listener::Connection;
use crate::api::problem::Failure;
use crate::caller::Member;
use crate::limits::{REACHES_PER_MINUTE, REACHING_MAX};
use crate::state::{Control, actor};

/// How often each principal was refused in this minute.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<(u64, BTreeMap<PrincipalId, u32>)>);

impl Tally {
    /// Whether one more stands singly.
    fn singly(&self, principal: PrincipalId, now: UnixTime) -> bool {
        let minute = now.millis() / 60_000;
        // Each change under the lock is whole, so what a panic left behind is, too.
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, counts) = &mut *inside;
        if *current != minute {
            *current = minute;
            counts.clear();
        }
        if counts.len() >= REACHING_MAX && !counts.contains_key(&principal) {
            return false;
        }
        let count = counts.entry(principal).or_insert(0);
        *count = count.saturating_add(1);
        *count <= REACHES_PER_MINUTE
    }
}

/// What a call reaches for, kept while the call itself is at work.
pub(crate) struct Reach {
    control: Arc<Control>,
    now: UnixTime,
    member: Member,
    source: Source,
    connection: Option<Connection>,
    action: &'static str,
    /// Kind and id of the path's last resource.
    thing: Option<(String, String)>,
    /// Whether the path goes on below it: then what is absent may be a part of one's own thing, which is no reaching.
    below: bool,
    step_up: Option<String>,
    lease: Option<String>,
}

impl Reach {
    pub(crate) fn of<A: Action>(call: &Call<A>) -> Option<Self> {
        let member = call.member().ok()?.clone();
        let (thing, below) = thing(call.route(), |name| call.path(name).ok().map(str::to_owned));
        Some(Self {
            control: Arc::clone(&call.control),
            now: call.now,
            member,
            source: call.source(),
            connection: call.connection.clone(),
            action: A::NAME,
            thing,
            below,
            step_up: call.step_up_named(),
            lease: call.lease_named(),
        })
    }

    /// Records a refusal that no decision recorded.
    pub(crate) async fn recorded(self, failure: Failure) -> Failure {
        let code = failure.problem.code;
        if failure.problem.audit_index.is_some() {
            return failure;
        }
        let named = |kind: &str, id: &Option<String>| id.clone().map(|id| (kind.to_owned(), id)).or_else(|| self.thing.clone());
        let thing = if code == ErrorCode::ReleaseRefused {
            named("lease", &self.lease)
        } else if code == ErrorCode::StepUpRefused {
            named("step_up", &self.step_up)
        } else if code == ErrorCode::NotFound && !self.below {
            self.thing.clone()
        } else {
            None
        };
        let Some((resource_kind, resource)) = thing else { return failure };
        if !self.control.reaching.singly(self.member.principal, self.now) {
            self.control.count_stranger(self.connection.as_ref(), code).await;
            return failure;
        }
        let event = Event::Refused { action: self.action.to_owned(), resource_kind, resource, code, rules: Vec::new() };
        let entry =
            self.control.entry(self.now, self.member.owner(), actor(&self.member), self.source, Outcome::Refused(code), Some(self.action), event);
        self.control.record_refusal(entry, failure, self.now).await
    }
}

/// The last resource that a path names by id, and whether it names something below it. What has no id's form is no thing of
/// anybody, so nobody reached for it.
fn thing(route: &str, value: impl Fn(&str) -> Option<String>) -> (Option<(String, String)>, bool) {
    let (mut found, mut below, mut before) = (None, false, "");
    for part in route.split('/') {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            None => before = part,
            Some(name) if name.starts_with('*') => below = true,
            Some(name) => {
                let id = value(name).filter(|text| text.parse::<PrincipalId>().is_ok() || text.parse::<u64>().is_ok());
                found = id.map(|id| (before.strip_suffix('s').unwrap_or(before).replace('-', "_"), id));
            }
        }
    }
    (found, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_of_a_path_is_what_is_reached_for() {
        let id = "0190b5b4-0000-7000-8000-0000000000ff";
        let named = |route: &str, value: &str| thing(route, |_| Some(value.to_owned()));
        let kind = |text: &str| Some((text.to_owned(), id.to_owned()));
        assert_eq!(named("/v1/volumes/{id}", id), (kind("volume"), false));
        assert_eq!(named("/v1/jobs/{id}/receipt", id), (kind("job"), false));
        assert_eq!(named("/v1/service-accounts/{id}/tokens", id), (kind("service_account"), false));
        assert_eq!(named("/v1/principals/{id}/tokens/{token}", id), (kind("token"), false));
        assert_eq!(named("/v1/volumes/{id}/objects/{*path}", id), (kind("volume"), true));
        assert_eq!(named("/v1/volumes/{id}", "no-id"), (None, false));
        assert_eq!(named("/v1/image-blobs/{digest}", "sha256:00"), (None, false));
        assert_eq!(named("/v1/audit/{index}/proof", "7"), (Some(("audit".to_owned(), "7".to_owned())), false));
        assert_eq!(named("/v1/volumes", id), (None, false));
    }

    #[test]
    fn more_than_the_named_rate_are_counted() {
        let (tally, now) = (Tally::default(), UnixTime::from_millis(120_000));
        let (one, other) = (PrincipalId::from_bytes([1; 16]), PrincipalId::from_bytes([2; 16]));
        let singly = (0..REACHES_PER_MINUTE + 10).filter(|_| tally.singly(one, now)).count();
        assert_eq!(singly, usize::try_from(REACHES_PER_MINUTE).unwrap());
        assert!(tally.singly(other, now), "another principal has a rate of its own");
        assert!(tally.singly(one, now.plus_millis(60_000)), "a minute later");
    }
}
