use std::time::{Duration, Instant};

use keys::aead::Aes256Gcm;
use keys::{PlainKey, Random as _, SystemRandom};
use volume::segment::{Chunk, Kind, Label, SegmentKeys, open, seal};
use vocabulary::{KeyId, TenantId, VolumeId};

const SEGMENT: usize = 16 << 20;
const CHUNK: usize = 1 << 16;
const ROUNDS: usize = 15;

pub(crate) fn run() -> anyhow::Result<()> {
    let key = PlainKey::generate(&mut SystemRandom);
    let keys = SegmentKeys {
        tenant: TenantId::from_bytes([1; 16]),
        volume: VolumeId::from_bytes([2; 16]),
        epochs: vec![(1, KeyId::from_bytes([3; 16]), PlainKey::from_bytes(*key.expose()))],
    };
    let mut data = vec![0; SEGMENT];
    SystemRandom.fill(&mut data);
    let chunks: Vec<Chunk<'_>> =
        data.chunks(CHUNK).enumerate().map(|(index, data)| Chunk { object: 1, offset: (index * CHUNK) as u64, data }).collect();
    let cipher = Aes256Gcm::new(&key);
    let mut times: [Vec<Duration>; 4] = std::array::from_fn(|_| Vec::new());
    // Touched memory, as the peer's is: what is measured is not the kernel's giving of pages. The last chunk's tag needs room.
    let mut out = vec![0; SEGMENT + CHUNK];
    for round in 0..ROUNDS {
        let id: [u8; 16] = (round as u128).to_be_bytes();
        let label = Label { kind: Kind::Data, writer_epoch: 1, id, name: &id };
        let begun = Instant::now();
        let sealed = seal(&keys, label, &chunks, None, &mut SystemRandom)?;
        times[0].push(begun.elapsed());

        // The peer: the same primitives, chunk by chunk, without any format.
        let mut copy = data.clone();
        let begun = Instant::now();
        let mut tags = Vec::new();
        for (index, chunk) in copy.chunks_mut(CHUNK).enumerate() {
            let mut nonce = [0; 12];
            nonce[8..].copy_from_slice(&(index as u32).to_be_bytes());
            tags.push((nonce, cipher.seal(nonce, &[], chunk)));
            std::hint::black_box(blake3::hash(chunk));
        }
        times[1].push(begun.elapsed());

        let begun = Instant::now();
        let opened = open(&keys, Kind::Data, &id, &sealed.bytes, Some(&sealed.root), None)?;
        out.clear();
        for index in 0..opened.chunks() {
            opened.read(index, 1, u64::from(index) * CHUNK as u64, &mut out)?;
        }
        times[2].push(begun.elapsed());
        anyhow::ensure!(out == data, "what was opened is not what was sealed");

        let begun = Instant::now();
        for (chunk, (nonce, tag)) in copy.chunks_mut(CHUNK).zip(&tags) {
            std::hint::black_box(blake3::hash(chunk));
            let mut joined = chunk.to_vec();
            joined.extend_from_slice(tag);
            std::hint::black_box(cipher.open(*nonce, &[], &mut joined)?);
        }
        times[3].push(begun.elapsed());
    }
    let [ours_seal, peer_seal, ours_open, peer_open] = times.map(crate::median);
    let speed = |seconds: f64| SEGMENT as f64 / 1e9 / seconds;
    println!("   seal {:.2} GB/s, peer {:.2} GB/s: {:.2} of the peer", speed(ours_seal), speed(peer_seal), peer_seal / ours_seal);
    println!("   open {:.2} GB/s, peer {:.2} GB/s: {:.2} of the peer", speed(ours_open), speed(peer_open), peer_open / ours_open);
    println!("   (medians of {ROUNDS} rounds of one 16 MiB segment on one core)");
    Ok(())
}
