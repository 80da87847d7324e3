//! Everything that reads an outsider's bytes, mutated: it answers, and never panics or hangs.
//!
//! Each target is a plain function over bytes; the loops are bounded and repeat from their seeds.

use super::samples::{encode, entries};
use super::support::{Log, Seeded, key_of, signer, signer_named};
use super::witness::{Memory, ours, request};
use crate::checkpoint::Checkpoint;
use crate::entry::Body;
use crate::note::Note;
use crate::prove::prove_inclusion;
use crate::tile::{TilePath, decode_bundle, encode_bundle};
use crate::witness::{AddCheckpoint, add_checkpoint};
use crate::{TlogProof, VerifierKey, WitnessPolicy, canonical};

const ROUNDS: usize = 4_000;

fn note(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        // What is read is written again as it was.
        assert_eq!(note.encode(), bytes);
        let _checked = Checkpoint::verify(&note, &key_of(&signer()), &[]);
        let _text = Checkpoint::parse_text(note.text()).map(|read| assert_eq!(read.text(), note.text()));
    }
}

fn proof(bytes: &[u8]) {
    if let Ok(read) = TlogProof::parse(bytes) {
        assert_eq!(read.encode(), bytes);
        let _checked = read.verify(b"5", &key_of(&signer()), &[], 0);
    }
}

fn body(bytes: &[u8]) {
    if let Ok(read) = Body::parse(bytes) {
        assert_eq!(canonical::to_vec(&read.value).unwrap(), bytes);
    }
    let _value = canonical::value_from_slice(bytes, 1 << 16);
}

fn key(bytes: &[u8]) {
    if let Some(read) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<VerifierKey>().ok()) {
        assert_eq!(read.to_string().as_bytes(), bytes);
    }
}

fn tile_path(bytes: &[u8]) {
    if let Some(read) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<TilePath>().ok()) {
        assert_eq!(read.to_string().as_bytes(), bytes);
    }
}

fn bundle(bytes: &[u8]) {
    let path = TilePath::entries(0, 3).unwrap();
    if let Ok(leaves) = decode_bundle(&path, bytes) {
        let again = encode_bundle(leaves).unwrap();
        assert!(bytes.starts_with(&again));
    }
}

/// A request to a witness: whatever it holds, only a checkpoint that the log signed is signed, and it is signed once.
fn add_checkpoint_request(bytes: &[u8]) {
    if let Ok(read) = AddCheckpoint::parse(bytes) {
        // In its one form it is the same request.
        assert_eq!(AddCheckpoint::parse(&read.encode()), Ok(read));
    }
    let mut state = Memory::default();
    let answered = add_checkpoint(bytes, &ours(), &mut state, &signer_named("witness.example/w1", 2), 1_800_000_000);
    assert_eq!(answered.answer.status == 200, state.0.len() == 1, "{answered:?}");
}

fn policy(bytes: &[u8]) {
    if let Ok(read) = WitnessPolicy::parse(bytes) {
        // Its plain form means the same.
        assert_eq!(WitnessPolicy::parse(read.to_string().as_bytes()), Ok(read));
    }
}

/// Cuts, doubles, overwrites, inserts and swaps.
fn mutate(random: &mut Seeded, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(..at)),
            2 => bytes.insert(at, random.next().to_le_bytes()[0]),
            3 => {
                let interesting = [&b"\n\n"[..], b"\xe2\x80\x94 ", b"\0", b"99999999999999999999", b"=", b"{", b"\"\"", b"\xff"];
                bytes.splice(at..at, interesting[random.below(interesting.len())].iter().copied());
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            5 if at < bytes.len() => {
                let until = (at + 1 + random.below(64)).min(bytes.len());
                let part = bytes[at..until].to_vec();
                bytes.splice(at..at, part);
            }
            6 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => (),
        }
    }
    bytes
}

fn attack(seed: u64, target: fn(&[u8]), seeds: &[Vec<u8>]) {
    let mut random = Seeded(seed);
    for good in seeds {
        target(good);
    }
    for _ in 0..ROUNDS {
        target(&mutate(&mut random, seeds));
    }
    for length in 0..200 {
        let mut noise = vec![0; length];
        random.fill(&mut noise);
        target(&noise);
    }
}

#[test]
fn notes() {
    attack(1, note, &[Log::of(0).signed().encode(), Log::of(300).signed().encode()]);
}

#[test]
fn proofs() {
    let log = Log::of(13);
    let made = TlogProof {
        extra: Some(vec![1, 2, 3]),
        index: 5,
        hashes: prove_inclusion(&log.tiles, 5, 13).unwrap(),
        checkpoint: log.signed(),
    };
    attack(2, proof, &[made.encode(), TlogProof { extra: None, ..made }.encode()]);
}

#[test]
fn bodies() {
    let seeds: Vec<Vec<u8>> = entries().iter().map(|entry| encode(entry).body).collect();
    attack(3, body, &seeds);
}

#[test]
fn keys() {
    attack(4, key, &[key_of(&signer()).to_string().into_bytes()]);
}

#[test]
fn tile_paths() {
    let seeds = ["tile/0/x001/x234/067", "tile/entries/000.p/255", "tile/63/999"].map(|text| text.as_bytes().to_vec());
    attack(5, tile_path, &seeds);
}

#[test]
fn bundles() {
    attack(6, bundle, &[encode_bundle([&b"a"[..], b"", b"ccc", b"dddd"]).unwrap()]);
}

#[test]
fn requests_to_a_witness() {
    attack(7, add_checkpoint_request, &[request(0, &Log::of(5)), request(3, &Log::of(300)), request(0, &Log::of(0))]);
}

#[test]
fn policies() {
    attack(8, policy, &[super::witness_policy::example().into_bytes(), b"quorum none\n".to_vec()]);
}
