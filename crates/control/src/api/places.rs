//! The places of a listener: so many connections at once, so many of one source, and who gives way when they are taken.
//!
//! Whoever only holds a connection open does not keep anybody else out. When a listener is full, or a source has its share,
//! some of those who do least are ended for the newcomer: first strangers that ask nothing, then strangers that are asking,
//! then callers with a credential that ask nothing; among them those of the source that has the most, the longest silent
//! first. Whoever showed a credential and is being answered is never ended for another.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::activity::{Activity, Standing};
use crate::limits::{CONNECTIONS_PER_SOURCE, GIVE_WAY};

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    /// One permit for each connection that is there, also for one that was told to go and has not gone.
    room: Arc<Semaphore>,
    connections: usize,
    per_source: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Seat>,
    of_source: BTreeMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Seat {
    source: IpAddr,
    activity: Arc<Activity>,
    leave: CancellationToken,
}

/// A connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    _permit: OwnedSemaphorePermit,
    /// What the connection does.
    pub(crate) activity: Arc<Activity>,
    /// Somebody else needs the place.
    pub(crate) leave: CancellationToken,
}

/// Whether somebody got a place, and how many were told to go for it.
#[derive(Debug)]
pub(crate) struct Entered {
    /// None where nobody could be told to go.
    pub(crate) place: Option<Place>,
    /// Who gave way.
    pub(crate) displaced: usize,
}

impl Places {
    /// So many connections at most.
    pub(crate) fn new(connections: usize) -> Arc<Self> {
        Self::of(connections, CONNECTIONS_PER_SOURCE)
    }

    fn of(connections: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self { room: Arc::new(Semaphore::new(connections)), connections, per_source, seats: Mutex::default() })
    }

    /// A place for a connection that came just now.
    pub(crate) async fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Entered {
        let source = source(address);
        let mut displaced = 0_usize;
        {
            let mut seats = self.lock();
            if seats.of_source.get(&source).copied().unwrap_or(0) >= self.per_source {
                displaced = seats.make_room(Some(source));
                if displaced == 0 {
                    return Entered { place: None, displaced };
                }
            }
        }
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                {
                    // Where some were told to go and have not gone yet, their permits are on their way.
                    let mut seats = self.lock();
                    if seats.taken.len() >= self.connections {
                        let more = seats.make_room(None);
                        displaced = displaced.saturating_add(more);
                        if more == 0 {
                            return Entered { place: None, displaced };
                        }
                    }
                }
                match Arc::clone(&self.room).acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_) => return Entered { place: None, displaced },
                }
            }
        };
        let mut seats = self.lock();
        let (id, activity, leave) = (seats.next, Activity::new(now), CancellationToken::new());
        seats.next = seats.next.wrapping_add(1);
        seats.taken.insert(id, Seat { source, activity: Arc::clone(&activity), leave: leave.clone() });
        let count = seats.of_source.entry(source).or_default();
        *count = count.saturating_add(1);
        Entered { place: Some(Place { places: Arc::clone(self), id, _permit: permit, activity, leave }), displaced }
    }

    /// Each change under the lock is whole, so what a panic left behind is, too.
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Tells some to go, of one source or of all. Says how many.
    ///
    /// Of strangers several go at once: each look costs as much as there are connections, and a flood must not buy one look
    /// with one connection. Nobody with a credential can be had that cheaply, and one of them goes at a time.
    fn make_room(&mut self, of: Option<IpAddr>) -> usize {
        let standing = |seat: &Seat| {
            let (standing, since) = seat.activity.standing();
            let held = self.of_source.get(&seat.source).copied().unwrap_or(0);
            (standing, Reverse(held), since)
        };
        let mut least: Vec<_> = self
            .taken
            .iter()
            .filter(|(_, seat)| of.is_none_or(|source| seat.source == source))
            .map(|(id, seat)| (standing(seat), *id))
            .filter(|((standing, ..), _)| *standing != Standing::MemberAtWork)
            .collect();
        let Some(((worst, ..), _)) = least.iter().min().copied() else { return 0 };
        let several = if worst == Standing::StrangerIdle { GIVE_WAY } else { 1 };
        least.retain(|((standing, ..), _)| *standing == worst);
        if least.len() > several {
            least.select_nth_unstable(several);
            least.truncate(several);
        }
        for (_, id) in &least {
            if let Some(seat) = self.remove(*id) {
                seat.leave.cancel();
            }
        }
        least.len()
    }

    fn remove(&mut self, id: u64) -> Option<Seat> {
        let seat = self.taken.remove(&id)?;
        if let Some(count) = self.of_source.get_mut(&seat.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_source.remove(&seat.source);
            }
        }
        Some(seat)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.places.lock().remove(self.id));
    }
}

/// A network that one customer of a provider has: an IPv4 address, or the first 64 bits of an IPv6 address (RFC 6177).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Somebody who comes so many milliseconds later.
    async fn come(places: &Arc<Places>, last: u8, start: Instant, ms: u64) -> Option<Place> {
        places.enter(address(last), start + Duration::from_millis(ms)).await.place
    }

    fn gone(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[tokio::test]
    async fn a_source_has_its_share_and_its_own_silent_ones_give_way() {
        let (places, start) = (Places::of(100, 3), Instant::now());
        let other = come(&places, 2, start, 0).await.unwrap();
        let mut held = Vec::new();
        for ms in 1..=3 {
            held.push(come(&places, 1, start, ms).await.unwrap());
        }
        let _requests: Vec<_> = held.iter().map(|place| place.activity.begin()).collect();
        held[0].activity.member();
        held[1].activity.member();
        held[2].activity.member();
        assert!(come(&places, 1, start, 9).await.is_none(), "all of them are at work, with a credential");
        assert!(places.enter("::ffff:192.0.2.1".parse().unwrap(), start).await.place.is_none(), "the same source in another dress");
        assert!(!gone(&other), "another source gives no place for this one");
        drop(held.pop());
        let silent = come(&places, 1, start, 10).await.unwrap();
        let newcomer = come(&places, 1, start, 11).await.unwrap();
        assert!(gone(&silent) && !gone(&newcomer) && !gone(&held[0]));
        drop((held, silent, newcomer, other));
        assert!(places.lock().of_source.is_empty() && places.lock().taken.is_empty(), "a source that is gone costs nothing");
        assert_eq!(places.room.available_permits(), 100);
    }

    #[tokio::test]
    async fn who_does_least_gives_way_first() {
        let (places, start) = (Places::of(6, 6), Instant::now());
        let member_at_work = come(&places, 1, start, 0).await.unwrap();
        member_at_work.activity.member();
        let _request = member_at_work.activity.begin();
        let member = come(&places, 2, start, 1).await.unwrap();
        member.activity.member();
        let stranger_at_work = come(&places, 3, start, 2).await.unwrap();
        let _other_request = stranger_at_work.activity.begin();
        let alone = come(&places, 4, start, 3).await.unwrap();
        let crowd = [come(&places, 5, start, 4).await.unwrap(), come(&places, 5, start, 5).await.unwrap()];
        let mut seats = places.lock();
        let mut order = Vec::new();
        let named = [("crowd 0", &crowd[0]), ("crowd 1", &crowd[1]), ("alone", &alone), ("stranger at work", &stranger_at_work), ("member", &member), ("member at work", &member_at_work)];
        // Strangers that ask nothing go together; whom the first of them were can be seen from a smaller table.
        while seats.make_room(None) > 0 {
            order.push(named.iter().filter(|(_, place)| gone(place)).map(|(name, _)| *name).collect::<Vec<_>>());
        }
        assert_eq!(order[0], ["crowd 0", "crowd 1", "alone"]);
        assert_eq!(order[1].len(), 4);
        assert!(order[1].contains(&"stranger at work"));
        assert!(order[2].contains(&"member") && order.len() == 3, "{order:?}");
        assert!(!gone(&member_at_work));
    }

    #[tokio::test]
    async fn of_many_strangers_the_longest_silent_of_the_largest_source_go() {
        let (places, start) = (Places::of(4 * GIVE_WAY, 4 * GIVE_WAY), Instant::now());
        let mut held = Vec::new();
        for n in 0..4 * GIVE_WAY {
            // Three of four are of one source; the first to come is of the other.
            let last = if n % 4 == 0 { 1 } else { 2 };
            held.push((last, come(&places, last, start, n as u64).await.unwrap()));
        }
        // The permits of those that were told to go come back when they go.
        let went = places.lock().make_room(None);
        assert_eq!(went, GIVE_WAY);
        let told: Vec<usize> = held.iter().enumerate().filter(|(_, (_, place))| gone(place)).map(|(n, _)| n).collect();
        assert!(told.iter().all(|n| held[*n].0 == 2) && told.iter().all(|n| *n < 2 * GIVE_WAY), "{told:?}");
        assert_eq!(places.room.available_permits(), 0);
        held.retain(|(_, place)| !gone(place));
        assert_eq!(places.room.available_permits(), GIVE_WAY);
    }

    #[tokio::test]
    async fn a_full_house_waits_for_the_one_who_goes() {
        let (places, start) = (Places::of(1, 9), Instant::now());
        let first = come(&places, 1, start, 0).await.unwrap();
        let leave = first.leave.clone();
        let going = async {
            leave.cancelled().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(come(&places, 2, start, 1), going);
        let second = second.unwrap();
        second.activity.member();
        let _request = second.activity.begin();
        let entered = places.enter(address(3), start).await;
        assert!(entered.place.is_none() && entered.displaced == 0, "nobody is ended in the middle of an answer");
    }

    #[test]
    fn neighbours_in_one_network_are_one_source() {
        let network = |text: &str| source(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
    }
}
