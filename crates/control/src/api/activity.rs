//! What a connection is doing, so that one that does nothing ends, and gives way first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::limits::{HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, IDLE_TIMEOUT, JSON_BODY_TIMEOUT, OVERTAKEN_MAX};

/// Requests in flight of one connection, and when it last began or ended one.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// Whether a credential was shown and found good.
    member: bool,
    /// When it last came, began or ended something.
    since: Instant,
    /// When the connection is over unless something begins.
    over: Instant,
}

/// What speaks for a connection when places are short, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nobody knows who it is, and nothing is asked.
    StrangerIdle,
    /// Nobody knows who it is, and something is being asked or answered.
    StrangerAtWork,
    /// It showed a credential, and nothing is asked.
    MemberIdle,
    /// It showed a credential, and something is being answered.
    MemberAtWork,
}

impl Activity {
    /// A connection that came now. It is over unless it shakes hands.
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { in_flight: 0, member: false, since: now, over: now + HANDSHAKE_TIMEOUT })))
    }

    /// Hands were shaken: the first request must begin in time.
    pub(crate) fn greeted(&self, now: Instant) {
        self.lock().over = now + HEADER_TIMEOUT;
    }

    /// A credential was shown and found good.
    pub(crate) fn member(&self) {
        self.lock().member = true;
    }

    /// What speaks for it, and since when it has been so.
    pub(crate) fn standing(&self) -> (Standing, Instant) {
        let state = self.lock();
        let standing = match (state.member, state.in_flight > 0) {
            (false, false) => Standing::StrangerIdle,
            (false, true) => Standing::StrangerAtWork,
            (true, false) => Standing::MemberIdle,
            (true, true) => Standing::MemberAtWork,
        };
        (standing, state.since)
    }

    /// A request begins; it lasts until the guard, which its answer's body carries, is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_add(1);
        state.since = Instant::now();
        InFlight(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the connection is over unless something begins before. What is in flight has limits of its own; it is looked at again later.
    fn over(&self, now: Instant) -> Instant {
        let state = self.lock();
        if state.in_flight > 0 { now + IDLE_TIMEOUT } else { state.over }
    }

    /// Returns once nothing has been in flight for too long.
    pub(crate) async fn idle(&self) {
        loop {
            let now = Instant::now();
            let over = self.over(now);
            if over <= now {
                return;
            }
            tokio::time::sleep_until(over).await;
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let (mut state, now) = (self.0.lock(), Instant::now());
        state.in_flight = state.in_flight.saturating_sub(1);
        state.since = now;
        state.over = now + IDLE_TIMEOUT;
    }
}

/// Where a request's body goes when nobody reads it any more. HTTP/2 would cancel the whole stream, answer included, if a body
/// were dropped before the answer was sent (RFC 9113, 8.1 wants NO_ERROR after it).
type Home = Arc<Mutex<Option<Unread>>>;

/// What is left of a request's body.
#[derive(Debug)]
struct Unread {
    body: Incoming,
    /// Whether somebody began to read it.
    begun: bool,
}

/// A request's body that goes home when it is dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    body: Option<Unread>,
    home: Home,
}

impl Body for Lent {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.body.as_mut() {
            Some(left) => {
                left.begun = true;
                Pin::new(&mut left.body).poll_frame(context)
            }
            None => Poll::Ready(None),
        }
    }
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|left| left.body.is_end_stream())
    }
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |left| left.body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

/// An answer's body, with what must live until it is sent.
#[derive(Debug)]
pub(crate) struct Answer {
    body: axum::body::Body,
    _in_flight: InFlight,
    _home: Home,
}

impl Body for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What makes an answer whole.
#[derive(Debug)]
pub(crate) struct Tie {
    in_flight: InFlight,
    home: Home,
    /// The client waits for a word before it sends its body: an answer spares it that.
    waits: bool,
}

/// Ties a request to its connection: the request to hand on, and what makes its answer whole.
pub(crate) fn tie(activity: &Arc<Activity>, request: http::Request<Incoming>) -> (http::Request<axum::body::Body>, Tie) {
    let home: Home = Arc::default();
    let tie = Tie { in_flight: activity.begin(), home: Arc::clone(&home), waits: request.headers().contains_key(http::header::EXPECT) };
    let request = request.map(|body| axum::body::Body::new(Lent { body: Some(Unread { body, begun: false }), home }));
    (request, tie)
}

impl Tie {
    /// The answer with what must live until it is sent.
    pub(crate) async fn whole(self, response: http::Response<axum::body::Body>) -> http::Response<Answer> {
        if !self.waits {
            self.take_the_rest().await;
        }
        response.map(|body| Answer { body, _in_flight: self.in_flight, _home: self.home })
    }

    /// Takes a small body that nobody looked at, as when a credential was refused. HTTP/1.1 would close the connection upon an
    /// answer that overtakes it, and a client that still writes might never read why.
    async fn take_the_rest(&self) {
        let left = self.home.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut left) = left else { return };
        if !left.begun && left.body.size_hint().upper().is_some_and(|bytes| bytes <= OVERTAKEN_MAX) {
            let rest = async { while let Some(Ok(_)) = left.body.frame().await {} };
            let _late = tokio::time::timeout(JSON_BODY_TIMEOUT, rest).await;
        }
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_nothing_is_over_and_what_is_in_flight_is_not() {
        let start = Instant::now();
        let activity = Activity::new(start);
        assert_eq!(activity.over(start), start + HANDSHAKE_TIMEOUT, "who never shakes hands is over then");
        activity.greeted(start);
        assert_eq!(activity.over(start), start + HEADER_TIMEOUT, "who never asks is over then");
        let (one, other) = (activity.begin(), activity.begin());
        let much_later = start + IDLE_TIMEOUT * 10;
        drop(one);
        assert!(activity.over(much_later) > much_later, "one is in flight");
        drop(other);
        assert!(activity.over(start) >= start + IDLE_TIMEOUT && activity.over(much_later) < much_later, "from the end of the last one");
    }
}
