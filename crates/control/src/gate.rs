//! Who may be on the node channel: judges each peer after its handshake, knows its connections, and closes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use identity::{Class, PeerRefusal, RevocationSet, VerifiedPeer, Verifier};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use vocabulary::UnixTime;

/// The gate of the node channel.
#[derive(Debug)]
pub(crate) struct Gate {
    verifier: Arc<Verifier>,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    guests: BTreeMap<u64, (Arc<VerifiedPeer>, CancellationToken)>,
}

/// A peer inside; it is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) peer: Arc<VerifiedPeer>,
    close: CancellationToken,
    number: u64,
    gate: Arc<Gate>,
}

impl Gate {
    pub(crate) fn new(verifier: Arc<Verifier>) -> Arc<Self> {
        Arc::new(Self { verifier, inside: Mutex::default() })
    }

    /// The verifier of handshakes.
    pub(crate) const fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// The revocations in force.
    pub(crate) fn revocations(&self) -> Arc<RevocationSet> {
        self.verifier.revocations().current()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Each change under the lock is one insert or remove, so what a panic left behind is whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a peer in whose certificates pass now, as the handshake's did a moment ago.
    pub(crate) fn admit(self: Arc<Self>, certificates: Option<&[CertificateDer<'_>]>, now: UnixTime) -> Result<Guest, PeerRefusal> {
        let peer = Arc::new(identity::tls::verified_peer(&self.verifier, certificates, Class::Node, now)?);
        let close = CancellationToken::new();
        let number = {
            let mut inside = self.inside();
            let number = inside.next;
            inside.next = inside.next.wrapping_add(1);
            inside.guests.insert(number, (Arc::clone(&peer), close.clone()));
            number
        };
        let guest = Guest { peer, close, number, gate: Arc::clone(&self) };
        // A revocation between the look at the certificate and the place in the list is seen here.
        if self.revocations().refuses(&guest.peer) { Err(PeerRefusal::Revoked) } else { Ok(guest) }
    }

    /// Puts a set of revocations in force and closes every living connection that it refuses.
    pub(crate) fn revoke(&self, set: RevocationSet) {
        if let Err(error) = self.verifier.revocations().replace(set) {
            // An older set is one that a faster change has overtaken: what is in force holds more.
            tracing::debug!(%error, "a newer set of revocations is in force");
        }
        let set = self.revocations();
        for (peer, close) in self.inside().guests.values() {
            if set.refuses(peer) {
                close.cancel();
            }
        }
    }
}

impl Guest {
    /// Waits until the peer is revoked or its certificate ends, and says which.
    pub(crate) async fn over(&self, now: UnixTime) -> &'static str {
        let left = Duration::from_millis(self.peer.not_after.since(now).unwrap_or(0));
        tokio::select! {
            () = self.close.cancelled() => "the peer is revoked",
            () = tokio::time::sleep(left) => "the peer's certificate has ended",
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gate.inside().guests.remove(&self.number);
    }
}
