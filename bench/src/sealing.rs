use std::time::{Duration, Instant};

use keys::aead::{Aes256Gcm, TAG_BYTES};
use keys::{PlainKey, Random as _, SystemRandom};
use volume::segment::{Draft, HEADER, Kind, Label, SegmentKeys, check};
use vocabulary::{KeyId, TenantId, VolumeId};

const SEGMENT: usize = 16 << 20;
const CHUNK: usize = 1 << 16;
const SLOT: usize = CHUNK + TAG_BYTES;
const ROUNDS: usize = 31;

pub(crate) fn run() -> anyhow::Result<()> {
    let key = PlainKey::generate(&mut SystemRandom);
    let keys = SegmentKeys {
        tenant: TenantId::from_bytes([1; 16]),
        volume: VolumeId::from_bytes([2; 16]),
        epochs: vec![(1, KeyId::from_bytes([3; 16]), PlainKey::from_bytes(*key.expose()))],
    };
    let mut data = vec![0; SEGMENT];
    SystemRandom.fill(&mut data);
    let cipher = Aes256Gcm::new(&key);
    let mut times: [Vec<Duration>; 4] = std::array::from_fn(|_| Vec::new());
    // Both sides work in place on a buffer of their own that is used again in every round, as `put` and `get` do.
    let (mut ours, mut peer) = (Vec::new(), vec![0; SEGMENT / CHUNK * SLOT]);
    for round in 0..ROUNDS {
        let id: [u8; 16] = (round as u128).to_be_bytes();
        let label = Label { kind: Kind::Data, writer_epoch: 1, id, name: &id };
        let mut draft = Draft::new(ours);
        draft.fill(&mut data.as_slice())?;
        let begun = Instant::now();
        let mut sealed = draft.finalise(&keys, label, &mut SystemRandom)?.seal(1, 0)?;
        times[0].push(begun.elapsed());

        // The peer: the same primitives, chunk by chunk, without any format.
        for (slot, chunk) in peer.chunks_mut(SLOT).zip(data.chunks(CHUNK)) {
            slot.split_at_mut(CHUNK).0.copy_from_slice(chunk);
        }
        let nonce = |index: usize| {
            let mut nonce = [0; 12];
            nonce[8..].copy_from_slice(&(index as u32).to_be_bytes());
            nonce
        };
        let begun = Instant::now();
        for (index, slot) in peer.chunks_mut(SLOT).enumerate() {
            let (chunk, tag) = slot.split_at_mut(CHUNK);
            tag.copy_from_slice(&cipher.seal(nonce(index), &[], chunk));
            std::hint::black_box(blake3::hash(slot));
        }
        times[1].push(begun.elapsed());

        let begun = Instant::now();
        let checked = check(&keys, Kind::Data, &id, &sealed.bytes, Some(&sealed.root), None)?;
        for index in 0..checked.chunks() {
            std::hint::black_box(checked.open_in_place(&mut sealed.bytes, index, 1, u64::from(index) * CHUNK as u64)?);
        }
        times[2].push(begun.elapsed());
        anyhow::ensure!(
            sealed.bytes.split_at(HEADER).1.chunks(SLOT).zip(data.chunks(CHUNK)).all(|(slot, chunk)| slot.starts_with(chunk)),
            "what was opened is not what was sealed"
        );
        ours = sealed.bytes;

        let begun = Instant::now();
        for (index, slot) in peer.chunks_mut(SLOT).enumerate() {
            std::hint::black_box(blake3::hash(slot));
            std::hint::black_box(cipher.open(nonce(index), &[], slot)?);
        }
        times[3].push(begun.elapsed());
    }
    let [ours_seal, peer_seal, ours_open, peer_open] = times.map(crate::median);
    let speed = |seconds: f64| SEGMENT as f64 / 1e9 / seconds;
    println!("   seal {:.2} GB/s, peer {:.2} GB/s: {:.2} of the peer", speed(ours_seal), speed(peer_seal), peer_seal / ours_seal);
    println!("   open {:.2} GB/s, peer {:.2} GB/s: {:.2} of the peer", speed(ours_open), speed(peer_open), peer_open / ours_open);
    println!("   (medians of {ROUNDS} rounds of one 16 MiB segment on one core, in place, in touched memory)");
    Ok(())
}
