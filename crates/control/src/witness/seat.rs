//! Nodes that wait for something to sign. Each has a seat with at most one request on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use vocabulary::NodeId;
use vocabulary::witness::{WitnessAnswer, WitnessRequest};

#[derive(Debug)]
struct Pending {
    request: WitnessRequest,
    reply: oneshot::Sender<WitnessAnswer>,
}

#[derive(Debug)]
struct Seat {
    pending: Option<Pending>,
    /// Rises when a request is laid down.
    wake: watch::Sender<u64>,
}

/// The seats.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<BTreeMap<NodeId, Seat>>);

impl Seats {
    fn seats(&self) -> MutexGuard<'_, BTreeMap<NodeId, Seat>> {
        // Entries are replaced as wholes, so what a panic left behind is good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a node's answer. One to a request that is no longer waited for is dropped.
    pub(crate) fn answered(&self, node: NodeId, answer: WitnessAnswer) {
        let mut seats = self.seats();
        let Some(seat) = seats.get_mut(&node) else { return };
        if let Some(pending) = seat.pending.take_if(|pending| pending.request.offer == answer.offer) {
            drop(seats);
            // Whoever asked may have given up in this moment.
            let _ = pending.reply.send(answer);
        }
    }

    /// The request on a node's seat; waits for one, at most this long.
    pub(crate) async fn next(&self, node: NodeId, wait: Duration) -> Option<WitnessRequest> {
        let mut wake = self.seats().entry(node).or_insert_with(|| Seat { pending: None, wake: watch::Sender::new(0) }).wake.subscribe();
        let waiting = async {
            loop {
                drop(wake.borrow_and_update());
                if let Some(pending) = self.seats().get(&node).and_then(|seat| seat.pending.as_ref()) {
                    return Some(pending.request.clone());
                }
                if wake.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(wait, waiting).await.ok().flatten()
    }

    /// Lays a request on a node's seat and waits for the answer, at most this long. `None` when the node never came here, or
    /// does not answer.
    pub(crate) async fn ask(&self, node: NodeId, body: String, wait: Duration) -> Option<WitnessAnswer> {
        let (reply, answer) = oneshot::channel();
        {
            let mut seats = self.seats();
            let seat = seats.get_mut(&node)?;
            let offer = seat.wake.borrow().saturating_add(1);
            seat.pending = Some(Pending { request: WitnessRequest { offer, body }, reply });
            seat.wake.send_replace(offer);
        }
        let answer = tokio::time::timeout(wait, answer).await.ok().and_then(Result::ok);
        if answer.is_none()
            && let Some(seat) = self.seats().get_mut(&node)
        {
            seat.pending = None;
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([1; 16]);
    const LONG: Duration = Duration::from_secs(30);

    fn answer(offer: u64) -> WitnessAnswer {
        WitnessAnswer { offer, status: 200, body: String::new(), monitored: None }
    }

    #[tokio::test]
    async fn a_request_waits_for_the_node_and_its_answer_for_the_asker() {
        let seats = Seats::default();
        assert_eq!(seats.ask(NODE, "a".to_owned(), LONG).await, None, "it never came");
        assert_eq!(seats.next(NODE, Duration::from_millis(1)).await, None, "nothing is there");
        let node = async {
            let first = seats.next(NODE, LONG).await.unwrap();
            // The answer to this poll was lost: the same request is given again.
            let again = seats.next(NODE, LONG).await.unwrap();
            assert_eq!((&first, first.body.as_str()), (&again, "b"));
            seats.answered(NODE, answer(first.offer + 7));
            seats.answered(NODE, answer(first.offer));
            seats.answered(NODE, answer(first.offer));
        };
        let (asked, ()) = tokio::join!(seats.ask(NODE, "b".to_owned(), LONG), node);
        assert!(asked.is_some());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_given_up_and_the_seat_is_free() {
        let seats = Seats::default();
        assert_eq!(seats.next(NODE, Duration::ZERO).await, None);
        assert_eq!(seats.ask(NODE, "a".to_owned(), Duration::from_millis(1)).await, None);
        assert_eq!(seats.next(NODE, Duration::from_millis(1)).await, None);
        seats.answered(NODE, answer(1));
    }
}
