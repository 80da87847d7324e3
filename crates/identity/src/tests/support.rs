//! A deployment to test with, and a random source that repeats.

use rustls_pki_types::CertificateDer;
use std::cell::Cell;
use vocabulary::{ControlId, DeploymentId, KeyId, NodeId, UnixTime};
use zeroize::Zeroizing;

use crate::certificate::{CertificateRequest, Class, Issued, IssuingAuthority, NodeLife, RootAuthority, make_request};
use crate::key::{EcdsaKey, StatementKey};
use crate::password::{Argon2id, Cost, HashError, PasswordHasher};

pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const DAY: u64 = 24 * HOUR;

/// SplitMix64: repeats from its seed; for tests only.
#[derive(Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

impl keys::Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[0];
        }
    }
}

/// Counts argon2 runs.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) runs: Cell<u32>,
    pub(crate) fails: bool,
}

impl PasswordHasher for Counting {
    fn argon2id(&self, password: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Zeroizing<[u8; 32]>, HashError> {
        self.runs.set(self.runs.get() + 1);
        if self.fails { Err(HashError) } else { Argon2id.argon2id(password, salt, cost) }
    }
}

pub(crate) struct World {
    pub(crate) random: Seeded,
    pub(crate) root: RootAuthority,
    pub(crate) nodes: IssuingAuthority,
    pub(crate) controls: IssuingAuthority,
    pub(crate) receipts: IssuingAuthority,
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(crate) fn world() -> World {
    world_of(DeploymentId::from_bytes([0xd0; 16]), NOW)
}

pub(crate) fn world_of(deployment: DeploymentId, now: UnixTime) -> World {
    let mut random = Seeded(7);
    let root = RootAuthority::create(deployment, now, &mut random).unwrap();
    let nodes = root.issue_authority(Class::Node, now, &mut random).unwrap();
    let controls = root.issue_authority(Class::Control, now, &mut random).unwrap();
    let receipts = root.issue_authority(Class::Receipt, now, &mut random).unwrap();
    World { random, root, nodes, controls, receipts }
}

impl World {
    pub(crate) fn node(&mut self, id: NodeId, now: UnixTime) -> (Issued, EcdsaKey) {
        let key = EcdsaKey::generate().unwrap();
        let request = CertificateRequest::check(&make_request(&key).unwrap()).unwrap();
        let issued = self.nodes.issue_node(id, &request, NodeLife::default(), now, &mut self.random).unwrap();
        (issued, key)
    }
    pub(crate) fn control(&mut self, now: UnixTime) -> (Issued, EcdsaKey) {
        let key = EcdsaKey::generate().unwrap();
        let names = ["localhost".parse().unwrap(), "127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let id = ControlId::from_bytes([0xc0; 16]);
        let issued = self.controls.issue_control(id, &key.public().unwrap(), &names, now, &mut self.random).unwrap();
        (issued, key)
    }
    pub(crate) fn receipt(&mut self, now: UnixTime) -> (Issued, StatementKey) {
        let key = StatementKey::generate(&mut self.random).unwrap();
        let id = KeyId::from_bytes([0x4e; 16]);
        let issued = self.receipts.issue_receipt(id, &key.public().unwrap(), now, &mut self.random).unwrap();
        (issued, key)
    }
}

/// The same bytes with one byte changed.
pub(crate) fn flipped(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= mask;
    changed
}

pub(crate) fn der(bytes: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}
