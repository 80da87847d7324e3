//! The negative vectors of the format, each with the error that it must give.

use super::*;

const TAG: usize = 16;
const CHUNK: usize = 65_536 + TAG;
const FOOTER: usize = 3 * 56 + TAG;

fn v3_with(salt: u8) -> Sealed {
    let data: Vec<u8> = (0..132_072_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let id = run(0xd0);
    let chunks: Vec<Chunk<'_>> =
        data.chunks(65_536).zip([0, 65_536, 131_072]).map(|(data, offset)| Chunk { object: 2, offset, data }).collect();
    let label = Label { kind: Kind::Data, writer_epoch: 8, id, name: &id };
    seal_with_salt(&keys(2), label, &chunks, None, run(salt)).unwrap()
}

fn refused(version: u32, bytes: &[u8]) -> SegmentError {
    open(&keys(version), Kind::Data, &run::<16>(0xd0), bytes, None, None).unwrap_err()
}

#[test]
fn every_header_byte_has_its_error() {
    let sealed = v1();
    for position in 0..128 {
        for mask in [1_u8, 0x80] {
            let mut bytes = sealed.bytes.clone();
            bytes[position] ^= mask;
            let expected = match (position, mask) {
                (0, _) => SegmentError::Malformed("its version is unknown"),
                (1, _) => SegmentError::Malformed("its suite is unknown"),
                (2..18, _) => SegmentError::KeyVersion(1),
                (18..22, _) => SegmentError::KeyVersion(u32::from_be_bytes(bytes[18..22].try_into().unwrap())),
                (86, _) => SegmentError::Malformed("its kind is another"),
                (87, 0x80) => SegmentError::Malformed("its chunk size is out of range"),
                (112..128, _) => SegmentError::Malformed("its reserved bytes are in use"),
                _ => SegmentError::Commitment,
            };
            assert_eq!(refused(1, &bytes), expected, "byte {position}");
        }
    }
    let mut newer = sealed.bytes;
    newer[0] = 2;
    assert_eq!(refused(1, &newer), SegmentError::Malformed("its version is unknown"));
}

#[test]
fn swapped_and_dropped_chunks() {
    let sealed = v3_with(0x60);
    let bytes = &sealed.bytes;
    let (first, second) = (&bytes[128..128 + CHUNK], &bytes[128 + CHUNK..128 + 2 * CHUNK]);
    let swapped = [&bytes[..128], second, first, &bytes[128 + 2 * CHUNK..]].concat();
    let keys = keys(2);
    let opened = open(&keys, Kind::Data, &run::<16>(0xd0), &swapped, Some(&sealed.root), None).unwrap();
    let mut plain = Vec::new();
    assert_eq!(opened.read(0, 2, 0, &mut plain), Err(SegmentError::Chunk(0)));
    assert_eq!(opened.read(1, 2, 65_536, &mut plain), Err(SegmentError::Chunk(1)));
    // Asked for at the place of the other, it is at the wrong place.
    assert_eq!(opened.read(0, 2, 65_536, &mut plain), Err(SegmentError::Place(0)));
    assert!(plain.is_empty());
    assert_eq!(opened.read(2, 2, 131_072, &mut plain), Ok(1000));

    let footer = bytes.len() - FOOTER - 8;
    let dropped = [&bytes[..128 + 2 * CHUNK], &bytes[footer..]].concat();
    assert_eq!(refused(2, &dropped), SegmentError::Malformed("its chunks do not add up"));
    let doubled = [&bytes[..footer], &bytes[128 + 2 * CHUNK..]].concat();
    assert_eq!(refused(2, &doubled), SegmentError::Malformed("its chunks do not add up"));
}

#[test]
fn a_foreign_footer_and_a_count_that_is_too_large() {
    let (one, two) = (v3_with(0x60).bytes, v3_with(0x61).bytes);
    let footer = one.len() - FOOTER - 8;
    let foreign = [&one[..footer], &two[footer..]].concat();
    assert_eq!(refused(2, &foreign), SegmentError::Footer);
    // The count alone contradicts the footer's length; both together ask for a footer that was never sealed.
    let count = one.len() - 8;
    let mut larger = one.clone();
    larger[count + 3] += 1;
    assert_eq!(refused(2, &larger), SegmentError::Malformed("its footer does not add up"));
    let length = u32::from_be_bytes(one[count + 4..].try_into().unwrap()) + 56;
    larger[count + 4..].copy_from_slice(&length.to_be_bytes());
    assert_eq!(refused(2, &larger), SegmentError::Footer);
    let mut endless = one;
    endless[count..].fill(0xff);
    assert_eq!(refused(2, &endless), SegmentError::Malformed("its footer does not add up"));
}

#[test]
fn renamed_moved_and_resalted() {
    let writer = signer().verifying_key();
    let two = v2();
    let renamed = open(&keys(1), Kind::Metadata, b"meta/wal/00000000000000000004.sst", &two.bytes, None, Some(&writer));
    assert_eq!(renamed.unwrap_err(), SegmentError::Commitment);
    let one = v1();
    let renamed = open(&keys(1), Kind::Data, &run::<16>(0xd1), &one.bytes, None, None);
    assert_eq!(renamed.unwrap_err(), SegmentError::Commitment);
    let mut resalted = one.bytes.clone();
    resalted[22..54].copy_from_slice(&run::<32>(0x60));
    assert_eq!(refused(1, &resalted), SegmentError::Commitment);
    assert_eq!(
        open(&keys(1), Kind::Data, &run::<16>(0xd0), &one.bytes, Some(&v3_with(0x60).root), None).unwrap_err(),
        SegmentError::Root
    );
    for extra in 1..=64 {
        let grown = [one.bytes.as_slice(), &vec![0; extra]].concat();
        assert!(matches!(refused(1, &grown), SegmentError::Malformed(_)), "{extra} bytes appended");
    }
}
