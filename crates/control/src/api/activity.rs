//! What a connection is doing, so that one that does nothing ends, and how many a source has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::limits::{CONNECTIONS_PER_SOURCE, IDLE_TIMEOUT};

/// Requests in flight of one connection, and when it last began or ended one.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// When the connection is over unless something begins.
    over: Instant,
}

impl Activity {
    /// A connection that has asked nothing yet: its first request must begin by then.
    pub(crate) fn until(over: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { in_flight: 0, over })))
    }

    /// A request begins; it lasts until the guard, which its answer's body carries, is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_flight = state.in_flight.saturating_add(1);
        InFlight(Arc::clone(self))
    }

    /// When the connection is over unless something begins before. What is in flight has limits of its own; it is looked at again later.
    fn over(&self, now: Instant) -> Instant {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_flight = state.in_flight.saturating_sub(1);
        state.over = Instant::now() + IDLE_TIMEOUT;
    }
}

/// Where a request's body goes when nobody reads it any more. HTTP/2 would cancel the whole stream, answer included, if a body
/// were dropped before the answer was sent (RFC 9113, 8.1 wants NO_ERROR after it).
type Home = Arc<Mutex<Option<Incoming>>>;

/// A request's body that goes home when it is dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    body: Option<Incoming>,
    home: Home,
}

impl Body for Lent {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.body.as_mut() {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
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

/// Ties a request to its connection: the request to hand on, and what makes its answer whole.
pub(crate) fn tie(activity: &Arc<Activity>, request: http::Request<Incoming>) -> (http::Request<axum::body::Body>, impl FnOnce(http::Response<axum::body::Body>) -> http::Response<Answer> + use<>) {
    let in_flight = activity.begin();
    let home: Home = Arc::default();
    let lent = Arc::clone(&home);
    let request = request.map(|body| axum::body::Body::new(Lent { body: Some(body), home: lent }));
    (request, move |response| response.map(|body| Answer { body, _in_flight: in_flight, _home: home }))
}

/// Connections of each source on one listener.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<BTreeMap<IpAddr, usize>>);

impl Sources {
    /// A place for one more connection of this source, if it has any left.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<SourcePlace> {
        let source = source(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= CONNECTIONS_PER_SOURCE {
            return None;
        }
        *count = count.saturating_add(1);
        Some(SourcePlace { sources: Arc::clone(self), source })
    }
}

/// A network that one customer of a provider has: an IPv4 address, or the first 64 bits of an IPv6 address (RFC 6177).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// A connection's place among those of its source.
#[derive(Debug)]
pub(crate) struct SourcePlace {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_places_and_gets_them_back() {
        let sources = Arc::new(Sources::default());
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        let mut held: Vec<_> = (0..CONNECTIONS_PER_SOURCE).map(|_| sources.enter(here).unwrap()).collect();
        assert!(sources.enter(here).is_none());
        assert!(sources.enter("::ffff:192.0.2.1".parse().unwrap()).is_none(), "the same source in another dress");
        assert!(sources.enter("192.0.2.2".parse().unwrap()).is_some());
        held.pop();
        assert!(sources.enter(here).is_some());
        drop(held);
        assert!(sources.0.lock().unwrap().is_empty(), "a source that is gone costs nothing");
    }

    #[test]
    fn neighbours_in_one_network_are_one_source() {
        let network = |text: &str| source(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
    }

    #[test]
    fn what_does_nothing_is_over_and_what_is_in_flight_is_not() {
        let start = Instant::now();
        let activity = Activity::until(start);
        assert_eq!(activity.over(start), start, "who never asks is over then");
        let (one, other) = (activity.begin(), activity.begin());
        let much_later = start + IDLE_TIMEOUT * 10;
        drop(one);
        assert!(activity.over(much_later) > much_later, "one is in flight");
        drop(other);
        assert!(activity.over(start) >= start + IDLE_TIMEOUT && activity.over(much_later) < much_later, "from the end of the last one");
    }
}
