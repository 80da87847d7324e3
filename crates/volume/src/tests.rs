mod negative;

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use keys::{PlainKey, SigningKey, SystemRandom, VerifyingKey};
use vocabulary::volume::RootHead;
use vocabulary::{KeyId, LineageId, Sha256Digest, TenantId, UnixTime, VolumeId};

use crate::io::{Damage, IoError, ObjectPort, PortError, Reader, Writer};
use crate::root::{Root, RootError, RootRecord, state};
use crate::segment::{Chunk, Draft, Kind, Label, Sealed, SegmentError, SegmentKeys, check, open, seal_with_salt};

fn run<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|i| from.wrapping_add(u8::try_from(i).unwrap()))
}

fn keys(version: u32) -> SegmentKeys {
    SegmentKeys {
        tenant: TenantId::from_bytes(run(0xa0)),
        volume: VolumeId::from_bytes(run(0xb0)),
        epochs: vec![(version, KeyId::from_bytes(run(0xc0)), PlainKey::from_bytes(run(0)))],
    }
}

/// The key of RFC 8032, test 1.
fn signer() -> SigningKey {
    let mut seed = [0; 32];
    hex::decode_to_slice("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", &mut seed).unwrap();
    SigningKey::from_seed(PlainKey::from_bytes(seed))
}

fn v1() -> Sealed {
    let id = run(0xd0);
    let label = Label { kind: Kind::Data, writer_epoch: 7, id, name: &id };
    seal_with_salt(&keys(1), label, &[Chunk { object: 1, offset: 0, data: b"hello, volume" }], None, run(0x20)).unwrap()
}

const V2_NAME: &[u8] = b"meta/wal/00000000000000000003.sst";

fn v2() -> Sealed {
    let label = Label { kind: Kind::Metadata, writer_epoch: 7, id: run(0xd0), name: V2_NAME };
    seal_with_salt(&keys(1), label, &[], Some(&signer()), run(0x20)).unwrap()
}

fn sha(bytes: &[u8]) -> String {
    hex::encode(keys::derive::sha256(&[bytes]))
}

#[test]
fn golden_v1() {
    let sealed = v1();
    assert_eq!(sealed.bytes.len(), 237);
    assert_eq!(hex::encode(&sealed.bytes[54..86]), "366aa0febf71834e8a3fb21f9796a613bdc66cbba11016685adbd4d5d7ba8b12");
    assert_eq!(hex::encode(&sealed.bytes[128..157]), "b0ebdb49994fc5ece1df2b95c8893affbde5bcf32bb77a43cb23303b3b");
    assert_eq!(sha(&sealed.bytes), "6358297cf38fa8ccf0783c986393c15fe00690fee5bc30024fe98b32371f0e65");
    assert_eq!(hex::encode(sealed.root), "a72121ee58715ed4cbb5030612d521c07ab1bf258cbe4c2cc14dab52270a17dd");
    let keys = keys(1);
    let opened = open(&keys, Kind::Data, &run::<16>(0xd0), &sealed.bytes, Some(&sealed.root), None).unwrap();
    let mut plain = Vec::new();
    opened.read(0, 1, 0, &mut plain).unwrap();
    assert_eq!(plain, b"hello, volume");
    assert_eq!(opened.read(0, 2, 0, &mut plain), Err(SegmentError::Place(0)));
    assert_eq!(opened.read(1, 1, 0, &mut plain), Err(SegmentError::NoChunk(1)));
}

#[test]
fn golden_v2() {
    let sealed = v2();
    assert_eq!(sealed.bytes.len(), 216);
    assert_eq!(sha(&sealed.bytes), "b87b55204d1c4558adc45d2292e7b5925bc57cc4f9ecb289f8515417077cb8a9");
    assert_eq!(hex::encode(sealed.root), "21904dba615669831dfd22bf28f5fa67598672e557a5e74ca208de764d45a4f1");
    let writer = signer().verifying_key();
    assert!(open(&keys(1), Kind::Metadata, V2_NAME, &sealed.bytes, None, Some(&writer)).is_ok());
    let foreign = VerifyingKey::from_bytes([7; 32]);
    assert_eq!(open(&keys(1), Kind::Metadata, V2_NAME, &sealed.bytes, None, Some(&foreign)).unwrap_err(), SegmentError::Signature);
    assert_eq!(open(&keys(1), Kind::Metadata, V2_NAME, &sealed.bytes, None, None).unwrap_err(), SegmentError::Signature);
}

#[test]
fn golden_v3() {
    let data: Vec<u8> = (0..132_072_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let id = run(0xd0);
    let chunks: Vec<Chunk<'_>> = data.chunks(65_536).zip([0, 65_536, 131_072]).map(|(data, offset)| Chunk { object: 2, offset, data }).collect();
    let label = Label { kind: Kind::Data, writer_epoch: 8, id, name: &id };
    let sealed = seal_with_salt(&keys(2), label, &chunks, None, run(0x60)).unwrap();
    assert_eq!(sealed.bytes.len(), 132_440);
    assert_eq!(sha(&sealed.bytes), "25ca03c796bf7a2c204abf955e60184e5ef23ee7fd01921cd1217cbfe1e146d1");
    assert_eq!(hex::encode(sealed.root), "360812a681969f83a5d193db660576a7f649dcb1f036904520d29054bb51edaf");
}

/// A source that gives its bytes in odd pieces.
struct Dripping<'a>(&'a [u8], usize);

impl std::io::Read for Dripping<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 7919 + 1;
        let (now, rest) = self.0.split_at(self.1.min(room.len()).min(self.0.len()));
        room[..now.len()].copy_from_slice(now);
        self.0 = rest;
        Ok(now.len())
    }
}

/// A randomness of which everything is known.
struct Fixed([u8; 32]);

impl keys::Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0[..bytes.len()]);
    }
}

/// In place, in a buffer that held something else, the same bytes come out as of the vectors.
#[test]
fn sealing_in_place_gives_the_golden_bytes() {
    let data: Vec<u8> = (0..132_072_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let id = run(0xd0);
    for (buffer, source) in [(Vec::new(), data.len()), (vec![0xaa; 300_000], 5), (vec![0xaa; 70_000], 65_537)] {
        let mut draft = Draft::new(buffer);
        draft.fill(&mut Dripping(&data, source)).unwrap();
        assert_eq!((draft.plain(), draft.chunks()), (132_072, 3));
        let label = Label { kind: Kind::Data, writer_epoch: 8, id, name: &id };
        let mut sealed = draft.finalise(&keys(2), label, &mut Fixed(run(0x60))).unwrap().seal(2, 0).unwrap();
        assert_eq!(sha(&sealed.bytes), "25ca03c796bf7a2c204abf955e60184e5ef23ee7fd01921cd1217cbfe1e146d1");
        assert_eq!(hex::encode(sealed.root), "360812a681969f83a5d193db660576a7f649dcb1f036904520d29054bb51edaf");
        let checked = check(&keys(2), Kind::Data, &id, &sealed.bytes, Some(&sealed.root), None).unwrap();
        for (index, chunk) in (0_u32..).zip(data.chunks(65_536)) {
            let offset = u64::from(index) * 65_536;
            assert_eq!(checked.open_in_place(&mut sealed.bytes, index, 2, offset + 1), Err(SegmentError::Place(index)));
            assert_eq!(checked.open_in_place(&mut sealed.bytes, index, 2, offset).unwrap(), chunk);
            // What was opened is plaintext now, and opens no second time.
            assert_eq!(checked.open_in_place(&mut sealed.bytes, index, 2, offset), Err(SegmentError::Chunk(index)));
        }
        assert_eq!(checked.open_in_place(&mut sealed.bytes, 3, 2, 0), Err(SegmentError::NoChunk(3)));
        assert_eq!(checked.open_in_place(&mut [], 0, 2, 0), Err(SegmentError::NoChunk(0)));
    }
}

#[test]
fn golden_v4() {
    let (one, two) = (v1(), v2());
    let live = BTreeMap::from([
        (String::from_utf8(V2_NAME.to_vec()).unwrap(), (two.root, two.bytes.len() as u64)),
        (format!("seg/{}", hex::encode(run::<16>(0xd0))), (one.root, one.bytes.len() as u64)),
    ]);
    let state = state(&live);
    assert_eq!(hex::encode(state), "16287a5d1ac5bb922233cc474ffcc864d43cc05b67799c927721139c6af2a3aa");
    let record = RootRecord::sign(
        Root {
            tenant: TenantId::from_bytes(run(0xa0)),
            volume: VolumeId::from_bytes(run(0xb0)),
            lineage: LineageId::from_bytes(run(0xe0)),
            seq: 1,
            writer_epoch: 7,
            prev: [0; 32],
            state,
            durable_seq: 1,
            time: UnixTime::from_millis(1_767_225_600_000),
        },
        &signer(),
    );
    assert_eq!(hex::encode(record.root()), "204118e394bedeb69c04a396b4c6466211f65d42d65a8451913605abe76efe34");
    let bytes = record.to_bytes();
    assert_eq!(hex::encode(&bytes[bytes.len() - 64..]), "2d9052c21f0ab224fb59abc9f71158e2e292d81e822b6e6083ee023a2f7ee8026a0e368faaf115ed9706c943383c6bf2c653589c7bde1b0a7635a6f6e7714f01");
    let again = RootRecord::parse(&bytes).unwrap();
    assert_eq!(again.verify(&signer().verifying_key()), Ok(()));
    assert_eq!(again.verify(&VerifyingKey::from_bytes([1; 32])), Err(RootError::ForeignSigner));
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        let refused = RootRecord::parse(&changed).map_or(true, |record| record.verify(&signer().verifying_key()).is_err());
        assert!(refused, "byte {position}");
    }
    assert!(RootRecord::parse(&bytes[..bytes.len() - 1]).is_err() && RootRecord::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn every_changed_byte_of_a_segment_is_refused() {
    let sealed = v1();
    let name = run::<16>(0xd0);
    let keys = keys(1);
    let mut plain = Vec::new();
    for position in 0..sealed.bytes.len() {
        let mut bytes = sealed.bytes.clone();
        bytes[position] ^= 0x40;
        let result = open(&keys, Kind::Data, &name, &bytes, Some(&sealed.root), None).and_then(|opened| opened.read(0, 1, 0, &mut plain));
        let error = result.unwrap_err();
        if position < 128 {
            // A changed header is a parse or commitment error, never a tag error first.
            assert!(matches!(error, SegmentError::Malformed(_) | SegmentError::Commitment | SegmentError::KeyVersion(_)), "byte {position}: {error:?}");
        }
        assert!(plain.is_empty());
    }
    for length in 0..sealed.bytes.len() {
        assert!(open(&keys, Kind::Data, &name, &sealed.bytes[..length], Some(&sealed.root), None).is_err());
    }
    let grown = [sealed.bytes.as_slice(), &[0]].concat();
    assert!(open(&keys, Kind::Data, &name, &grown, Some(&sealed.root), None).is_err());
    let other = SegmentKeys { tenant: TenantId::from_bytes([1; 16]), ..self::keys(1) };
    assert_eq!(open(&other, Kind::Data, &name, &sealed.bytes, None, None).unwrap_err(), SegmentError::Commitment);
    let other = SegmentKeys { volume: VolumeId::from_bytes([1; 16]), ..self::keys(1) };
    assert_eq!(open(&other, Kind::Data, &name, &sealed.bytes, None, None).unwrap_err(), SegmentError::Commitment);
    assert_eq!(open(&self::keys(2), Kind::Data, &name, &sealed.bytes, None, None).unwrap_err(), SegmentError::KeyVersion(1));
}

#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<String, Bytes>>);

impl ObjectPort for Memory {
    async fn put(&self, path: String, bytes: Bytes) -> Result<(), PortError> {
        let mut all = self.0.lock().unwrap();
        assert!(!all.contains_key(&path), "names are used once");
        all.insert(path, bytes);
        Ok(())
    }
    async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
        Ok(self.0.lock().unwrap().get(&path).cloned())
    }
}

impl Memory {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
    fn set(&self, name: &str, bytes: Bytes) {
        self.0.lock().unwrap().insert(name.to_owned(), bytes);
    }
    fn peek(&self, name: &str) -> Bytes {
        self.0.lock().unwrap().get(name).cloned().unwrap()
    }
}

fn quiet(_: &str, _: u64) {}

struct Stored {
    memory: Memory,
    keys: SegmentKeys,
    head: RootHead,
    signers: BTreeMap<u64, VerifyingKey>,
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn commit(stored: &mut Stored, files: &[(&str, Vec<u8>)], epoch: u64) {
    let signer = SigningKey::generate(&mut SystemRandom);
    stored.signers.insert(epoch, signer.verifying_key());
    let reader = Reader::open(&stored.memory, &stored.keys, &stored.head, &stored.signers).await.unwrap();
    let mut writer = Writer::new(reader, epoch, signer);
    for (name, data) in files {
        writer.add(name, data.len() as u64, 5, std::io::Cursor::new(data.clone()), &mut SystemRandom, &quiet).await.unwrap();
    }
    let record = writer.finish(UnixTime::from_millis(9), &mut SystemRandom).await.unwrap();
    let seq = record.body().seq;
    stored.memory.set(&format!("chain/{seq:020}"), record.to_bytes().into());
    stored.head = RootHead { lineage: stored.head.lineage, seq, writer_epoch: epoch, root: Sha256Digest::from_bytes(record.root()) };
}

fn empty() -> Stored {
    Stored {
        memory: Memory::default(),
        keys: keys(1),
        head: RootHead { lineage: LineageId::from_bytes(run(0xe0)), seq: 0, writer_epoch: 0, root: Sha256Digest::from_bytes([0; 32]) },
        signers: BTreeMap::new(),
    }
}

async fn all(stored: &Stored) -> Result<BTreeMap<String, Vec<u8>>, IoError> {
    let reader = Reader::open(&stored.memory, &stored.keys, &stored.head, &stored.signers).await?;
    let mut found = BTreeMap::new();
    for file in reader.files() {
        let data = reader.read(file, Vec::new(), &quiet).await?;
        found.insert(file.name.clone(), data);
    }
    Ok(found)
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i * 7 % 256).unwrap()).collect()
}

#[test]
fn what_is_put_comes_back_at_every_edge() {
    block_on(async {
        let mut stored = empty();
        let sizes = [0, 1, 65_535, 65_536, 65_537, 200_000, (16 << 20) - 1, 16 << 20, (16 << 20) + 1];
        let names: Vec<String> = sizes.iter().map(|size| format!("dir/{size}")).collect();
        let files: Vec<(&str, Vec<u8>)> = names.iter().map(String::as_str).zip(sizes.map(sample)).collect();
        commit(&mut stored, &files, 1).await;
        let found = all(&stored).await.unwrap();
        for (name, data) in &files {
            assert!(found[*name] == *data, "{name}");
        }
        // A second commit replaces one file and keeps the others, under another writer epoch.
        commit(&mut stored, &[("dir/1", sample(3))], 2).await;
        let found = all(&stored).await.unwrap();
        assert_eq!((found["dir/1"].len(), found["dir/65537"].len(), found.len()), (3, 65_537, sizes.len()));
    });
}

/// Whatever byte of whatever object is changed, cut or swapped: reading says so and gives nothing wrong.
#[test]
fn damage_is_found_and_named() {
    block_on(async {
        let mut stored = empty();
        commit(&mut stored, &[("a", sample(70_000)), ("b", sample(70_000))], 1).await;
        let names = stored.memory.names();
        for name in &names {
            let good = stored.memory.peek(name);
            for position in (0..good.len()).step_by(97).chain([good.len() - 1]) {
                let mut bytes = good.to_vec();
                bytes[position] ^= 1;
                stored.memory.set(name, bytes.into());
                assert!(matches!(all(&stored).await, Err(IoError::Damage(_))), "{name} byte {position}");
            }
            stored.memory.set(name, good.slice(..good.len() - 1));
            assert!(matches!(all(&stored).await, Err(IoError::Damage(_))), "{name} cut");
            stored.memory.0.lock().unwrap().remove(name);
            assert!(matches!(all(&stored).await, Err(IoError::Damage(Damage::Missing(_)))), "{name} missing");
            stored.memory.set(name, good);
        }
        for first in &names {
            for second in names.iter().filter(|second| *second > first) {
                let (one, two) = (stored.memory.peek(first), stored.memory.peek(second));
                stored.memory.set(first, two.clone());
                stored.memory.set(second, one.clone());
                assert!(matches!(all(&stored).await, Err(IoError::Damage(_))), "{first} and {second} swapped");
                stored.memory.set(first, one);
                stored.memory.set(second, two);
            }
        }
        assert!(all(&stored).await.is_ok());
    });
}

#[test]
fn a_rolled_back_forked_or_foreign_root_is_refused() {
    block_on(async {
        let mut stored = empty();
        commit(&mut stored, &[("a", sample(10))], 1).await;
        let old = stored.memory.peek("chain/00000000000000000001");
        commit(&mut stored, &[("a", sample(11))], 2).await;
        let newest = stored.memory.peek("chain/00000000000000000002");
        stored.memory.set("chain/00000000000000000002", old);
        assert!(matches!(all(&stored).await, Err(IoError::Damage(Damage::RolledBack { .. }))));
        stored.memory.set("chain/00000000000000000002", newest);
        // Somebody who holds the data key, but no registered signer, signs a root of his own.
        let record = RootRecord::parse(&stored.memory.peek("chain/00000000000000000002")).unwrap();
        let forged = RootRecord::sign(record.body().clone(), &SigningKey::generate(&mut SystemRandom));
        stored.memory.set("chain/00000000000000000002", forged.to_bytes().into());
        assert!(matches!(all(&stored).await, Err(IoError::Damage(Damage::ForeignSigner(2)))));
    });
}

/// A reader holds the data key and can make segments with valid tags; the signed root does not know them.
#[test]
fn a_readers_forgery_is_refused() {
    block_on(async {
        let mut stored = empty();
        commit(&mut stored, &[("a", sample(100))], 1).await;
        let name = stored.memory.names().into_iter().find(|name| name.starts_with("seg/")).unwrap();
        let id: [u8; 16] = hex::decode(name.strip_prefix("seg/").unwrap()).unwrap().try_into().unwrap();
        let label = Label { kind: Kind::Data, writer_epoch: 1, id, name: &id };
        let forged = seal_with_salt(&stored.keys, label, &[Chunk { object: 1, offset: 0, data: &[0x41; 100] }], None, [9; 32]).unwrap();
        stored.memory.set(&name, forged.bytes.into());
        let Err(IoError::Damage(Damage::Tampered { kind, .. })) = all(&stored).await else { panic!("read") };
        assert_eq!(kind, SegmentError::Root);
    });
}

/// A port that counts what it holds: objects on their way there, and bytes that it was lent.
#[derive(Default)]
struct Slow {
    memory: Memory,
    under_way: std::sync::atomic::AtomicUsize,
    most: std::sync::atomic::AtomicUsize,
    fails_at: Option<usize>,
    seen: std::sync::atomic::AtomicUsize,
}

impl ObjectPort for Slow {
    async fn put(&self, path: String, bytes: Bytes) -> Result<(), PortError> {
        use std::sync::atomic::Ordering::SeqCst;
        let now = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        self.under_way.fetch_sub(1, SeqCst);
        let number = self.seen.fetch_add(1, SeqCst);
        if self.fails_at == Some(number) {
            return Err(PortError("full".to_owned()));
        }
        self.memory.put(path, Bytes::copy_from_slice(&bytes)).await
    }
    async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
        self.memory.get(path).await
    }
}

/// However slow the store: three segments of memory, and no more.
#[test]
fn a_writer_holds_few_segments_and_stops_at_the_first_failure() {
    block_on(async {
        let data = sample(9 << 24);
        for fails_at in [None, Some(2)] {
            let port = Slow { fails_at, ..Slow::default() };
            let stored = empty();
            let reader = Reader::open(&port, &stored.keys, &stored.head, &stored.signers).await.unwrap();
            let mut writer = Writer::new(reader, 1, SigningKey::generate(&mut SystemRandom));
            let added = writer.add("a", data.len() as u64, 0, std::io::Cursor::new(data.clone()), &mut SystemRandom, &quiet).await;
            assert!(port.most.load(std::sync::atomic::Ordering::SeqCst) <= 3);
            match fails_at {
                None => assert!(added.is_ok()),
                Some(_) => {
                    assert!(matches!(added, Err(IoError::Port(_))));
                    assert!(port.memory.names().len() < 9, "it went on after a failure");
                }
            }
        }
    });
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    block_on(async {
        let stored = empty();
        let signer = SigningKey::generate(&mut SystemRandom);
        let reader = Reader::open(&stored.memory, &stored.keys, &stored.head, &stored.signers).await.unwrap();
        let mut writer = Writer::new(reader, 1, signer);
        for claimed in [5, 20] {
            let refused = writer.add("a", claimed, 0, [1_u8; 10].as_slice(), &mut SystemRandom, &quiet).await;
            assert!(matches!(refused, Err(IoError::Changed(_))), "{claimed}");
        }
        let refused = writer.add("../a", 0, 0, [].as_slice(), &mut SystemRandom, &quiet).await;
        assert!(matches!(refused, Err(IoError::Name(_))));
    });
}

#[test]
fn names() {
    for good in ["a", "a/b.c", "ä/ö", ".hidden", "a b", "...", "x".repeat(255).as_str()] {
        assert!(crate::name::check(good).is_ok(), "{good}");
    }
    for bad in ["", "/a", "a//b", "a/", ".", "..", "a/../b", "a\0b", "a\\b", "a\nb", "\u{1b}[31m", "x".repeat(256).as_str(), &"a/".repeat(65)] {
        assert!(crate::name::check(bad).is_err(), "{bad:?}");
    }
}

/// Mutated lists never panic, and what parses writes the same bytes again.
#[test]
fn lists_have_one_form() {
    use crate::catalogue::{Catalogue, Extent, FileEntry, Manifest};
    let file = |name: &str, object| FileEntry { name: name.into(), object, length: 5, mtime: 1, manifest: [2; 32], path: format!("file/{object}-00"), size: 9 };
    let catalogue = Catalogue { next_object: 3, files: vec![file("a", 1), file("b", 2)] };
    let extent = Extent { offset: 0, segment: [1; 16], first: 0, chunks: 1, root: [3; 32], size: 9 };
    let manifest = Manifest { object: 1, length: 5, extents: vec![extent] };
    assert_eq!(Catalogue::parse(&catalogue.to_bytes()), Ok(catalogue.clone()));
    assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest.clone()));
    let unsorted = Catalogue { next_object: 3, files: vec![file("b", 1), file("a", 2)] };
    let twice = Catalogue { next_object: 3, files: vec![file("a", 1), file("b", 1)] };
    let beyond = Catalogue { next_object: 2, files: vec![file("a", 2)] };
    let hostile = Catalogue { next_object: 2, files: vec![file("../a", 1)] };
    for refused in [unsorted, twice, beyond, hostile] {
        assert!(Catalogue::parse(&refused.to_bytes()).is_err());
    }
    let mut state = 3_u64;
    for bytes in [catalogue.to_bytes(), manifest.to_bytes(), v1().bytes] {
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut mutant = bytes.clone();
            let at = usize::try_from(state >> 33).unwrap() % mutant.len();
            mutant[at] = u8::try_from(state >> 25 & 0xff).unwrap();
            if state & 7 == 0 {
                mutant.truncate(at);
            }
            if let Ok(parsed) = Catalogue::parse(&mutant) {
                assert_eq!(parsed.to_bytes(), mutant);
            }
            if let Ok(parsed) = Manifest::parse(&mutant) {
                assert_eq!(parsed.to_bytes(), mutant);
            }
            let _ = open(&keys(1), Kind::Data, &run::<16>(0xd0), &mutant, None, None);
        }
    }
}
