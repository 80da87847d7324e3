//! Nodes' own logs: what is kept of them only grows, by proof.

use std::collections::BTreeMap;

use audit::key::Ed25519Signer;
use audit::{Checkpoint, Hash, TilePath, node_log};
use vocabulary::channel::{NODE_LOG, NodeLogKept, NodeLogOffer};
use vocabulary::{ErrorCode, Problem, SYSTEM_OWNER};

use super::support::{Node, NodeKeys, World, answer};

type Tiles = BTreeMap<TilePath, Vec<u8>>;

/// A log of so many leaves; `mark` makes another history from leaf 2 on.
fn grown(size: u64, mark: u8) -> (Tiles, Hash) {
    let leaves: Vec<Vec<u8>> = (0..size).map(|number| vec![if number < 2 { 0 } else { mark }, u8::try_from(number).unwrap()]).collect();
    let leaves: Vec<&[u8]> = leaves.iter().map(Vec::as_slice).collect();
    let made = audit::append(&Tiles::new(), 0, &audit::hash::empty_root(), &leaves).unwrap();
    (made.files.into_iter().collect(), made.root)
}

struct Teller {
    node: Node,
    signer: Ed25519Signer,
    origin: String,
}

impl Teller {
    async fn join(world: &World, name: &str) -> Self {
        let token = world.invite(name, "eu-central").await;
        let keys = NodeKeys::draw();
        let joined = world.enrol(&keys.request(&token.token)).await.unwrap();
        let node = Node::new(world, &keys, &joined);
        let origin = node_log::origin(world.control().deployment, node.id);
        let signer = Ed25519Signer::from_seed(&origin, keys.record.reveal()).unwrap();
        Self { node, signer, origin }
    }

    fn offer(&self, old: u64, size: u64, mark: u8) -> NodeLogOffer {
        let (tiles, root) = grown(size, mark);
        let proof = if old <= size { audit::prove::prove_consistency(&tiles, old, size).unwrap() } else { Vec::new() };
        let note = Checkpoint { origin: self.origin.clone(), size, root }.sign(&self.signer).unwrap();
        NodeLogOffer { checkpoint: String::from_utf8(note.encode()).unwrap(), old, proof: proof.iter().map(Hash::base64).collect() }
    }

    async fn send(&self, offer: &NodeLogOffer) -> Result<u64, Problem> {
        let kept: NodeLogKept = answer(self.node.http.post(format!("{}{NODE_LOG}", self.node.base)).json(offer).send().await.unwrap()).await?;
        Ok(kept.size)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_nodes_log_one_history_is_kept_and_it_only_grows() {
    let world = World::start().await;
    let one = Teller::join(&world, "one").await;
    assert_eq!(one.send(&one.offer(0, 3, 1)).await, Ok(3));
    // A node that was restarted and has forgotten where it was is told.
    assert_eq!(one.send(&one.offer(0, 5, 1)).await, Ok(3));
    assert_eq!(one.send(&one.offer(3, 5, 1)).await, Ok(5));
    // Nothing new within ten minutes is no entry.
    assert_eq!(one.send(&one.offer(5, 5, 1)).await, Ok(5));
    let anchored: Vec<u64> = world.entries_of(SYSTEM_OWNER, "node_log_anchored").await.iter().map(|event| event["size"].as_u64().unwrap()).collect();
    assert_eq!(anchored, [3, 5]);
    // Cut off, rewritten, rewritten at the same size: refused, each an entry, and nothing changes.
    for (offer, rule) in [
        (one.offer(4, 4, 1), "node-log-grows"),
        (one.offer(5, 4, 1), "node-log-grows"),
        (one.offer(5, 6, 2), "node-log-one-history"),
        (one.offer(5, 5, 2), "node-log-one-history"),
        (NodeLogOffer { proof: Vec::new(), ..one.offer(5, 6, 1) }, "node-log-one-history"),
    ] {
        assert_eq!(one.send(&offer).await.unwrap_err().code, ErrorCode::Conflict);
        let refused = world.entries_of(SYSTEM_OWNER, "refused").await;
        assert_eq!(refused.last().unwrap()["rules"][0], rule);
    }
    // Another node's signature, another log's name, a stranger's line, no note, a proof of nonsense.
    let two = Teller::join(&world, "two").await;
    let forged = Teller { node: Node { id: one.node.id, http: one.node.http.clone(), base: one.node.base.clone(), sequence: 0 }, origin: one.origin.clone(), signer: Ed25519Signer::from_seed(&one.origin, &[9; 32]).unwrap() };
    for offer in [
        two.offer(5, 6, 1),
        forged.offer(5, 6, 1),
        NodeLogOffer { checkpoint: String::new(), ..one.offer(5, 6, 1) },
        NodeLogOffer { proof: vec!["x".to_owned()], ..one.offer(5, 6, 1) },
        NodeLogOffer { checkpoint: one.offer(5, 6, 1).checkpoint + "\u{2014} stranger AAAAAAAA\n", ..one.offer(5, 6, 1) },
    ] {
        assert_eq!(one.send(&offer).await.unwrap_err().code, ErrorCode::InvalidRequest, "{offer:?}");
    }
    // It outlives the server.
    let world = world.again().await;
    let mut one = one;
    one.node.moved_to(&world);
    assert_eq!(one.send(&one.offer(0, 6, 1)).await, Ok(5));
    assert_eq!(one.send(&one.offer(5, 6, 1)).await, Ok(6));
    assert_eq!(world.entries_of(SYSTEM_OWNER, "node_log_anchored").await.len(), 3);
    world.server.stop().await;
}
