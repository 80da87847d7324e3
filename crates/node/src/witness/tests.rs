//! The memory of a witness: what a crash leaves, what a restored copy is, and that nothing else opens it.

use std::collections::BTreeMap;

use audit::witness::AddCheckpoint;
use audit::{LogSigner as _, TilePath, append};
use keys::SystemRandom;

use super::*;

const NAME: &str = "witness.example/w1";
const NOW: u64 = 1_800_000_000;

/// A log that grows.
struct Log {
    signer: Ed25519Signer,
    tiles: BTreeMap<TilePath, Vec<u8>>,
    size: u64,
    root: Hash,
}

impl Log {
    fn new(name: &str) -> Self {
        Self { signer: Ed25519Signer::from_seed(name, &[7; 32]).unwrap(), tiles: BTreeMap::new(), size: 0, root: audit::hash::empty_root() }
    }
    fn grow(&mut self, leaves: &[&str]) {
        let leaves: Vec<&[u8]> = leaves.iter().map(|leaf| leaf.as_bytes()).collect();
        let appended = append(&self.tiles, self.size, &self.root, &leaves).unwrap();
        self.tiles.extend(appended.files);
        (self.size, self.root) = (appended.size, appended.root);
    }
    fn request(&self, old: u64) -> Vec<u8> {
        let checkpoint = Checkpoint { origin: self.signer.name().to_owned(), size: self.size, root: self.root };
        let proof = audit::prove::prove_consistency(&self.tiles, old, self.size).unwrap();
        AddCheckpoint { old, proof, note: checkpoint.sign(&self.signer).unwrap() }.encode()
    }
    fn known(&self) -> KnownLogs {
        let mut logs = KnownLogs::default();
        logs.add(verifier_of(&self.signer, KeyKind::Ed25519).unwrap(), None).unwrap();
        logs
    }
}

struct World {
    _place: tempfile::TempDir,
    place: WitnessPlace,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = WitnessPlace { dir: folder.path().join("witness"), sizes: folder.path().join("elsewhere/sizes") };
        Self { _place: folder, place }
    }
    fn open(&self) -> Result<Witness, WitnessError> {
        Witness::open(self.place.clone(), Some(NAME), &mut SystemRandom)
    }
    /// The two parts of the state: the folder of the memory, and the record of sizes.
    fn memory(&self) -> BTreeMap<String, Vec<u8>> {
        let folder = self.place.dir.join("logs");
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
    }
    fn set_memory(&self, files: &BTreeMap<String, Vec<u8>>) {
        let folder = self.place.dir.join("logs");
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

fn signed(witness: &mut Witness, log: &Log, old: u64) -> u16 {
    witness.add_checkpoint(&log.request(old), &log.known(), NOW).answer.status
}

#[test]
fn key_and_memory_outlive_the_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let absent = Witness::open(world.place.clone(), None, &mut SystemRandom);
    assert!(matches!(absent, Err(WitnessError::Absent(_))));
    let mut log = Log::new("log.example/a");
    let mut witness = world.open().unwrap();
    let key = witness.key().clone();
    assert!(matches!(world.open(), Err(WitnessError::Locked(_))), "one process has it");
    log.grow(&["a", "b"]);
    assert_eq!(signed(&mut witness, &log, 0), 200);
    drop(witness);
    log.grow(&["c"]);
    let mut witness = Witness::open(world.place.clone(), None, &mut SystemRandom).unwrap();
    assert_eq!(*witness.key(), key);
    assert_eq!(signed(&mut witness, &log, 0), 409);
    assert_eq!(signed(&mut witness, &log, 2), 200);
    let shown = witness.monitored(&origin_hash("log.example/a"), &log.known());
    assert_eq!((shown.status, shown.body), (200, witness.last("log.example/a").unwrap().note.clone()));
    drop(witness);
    let other = Witness::open(world.place.clone(), Some("witness.example/w2"), &mut SystemRandom);
    assert!(matches!(other, Err(WitnessError::OtherName(_))));
    let path = world.place.dir.join("witness.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    for broken in [text.replace("PRIVATE+KEY+", ""), text.replace("w1+", "w2+"), text.replace('\n', "\n\n"), String::new()] {
        std::fs::write(&path, broken).unwrap();
        assert!(matches!(world.open(), Err(WitnessError::Key(_))));
    }
    assert!(!format!("{:?}", Ed25519Signer::from_seed("x", &[9; 32]).unwrap()).contains("9, 9"));
}

#[test]
fn a_new_witness_takes_no_record_of_another() {
    let world = World::new();
    assert!(matches!(Witness::open(world.place.clone(), Some("a b"), &mut SystemRandom), Err(WitnessError::Name)));
    let mut log = Log::new("log.example/a");
    log.grow(&["a"]);
    assert_eq!(signed(&mut world.open().unwrap(), &log, 0), 200);
    std::fs::remove_file(world.place.dir.join("witness.key")).unwrap();
    assert!(matches!(world.open(), Err(WitnessError::Damaged { .. })));
    // A birth that broke off between record and key is taken up again.
    let world = World::new();
    files::directory(&world.place.dir).unwrap();
    write_sizes(&world.place.sizes, &BTreeMap::new()).unwrap();
    world.open().unwrap();
}

/// What `kill -9` leaves between any two steps of a signature: before the memory, between memory and record, after both,
/// and a file that was not renamed yet.
#[test]
fn a_crash_between_any_two_steps_is_taken_up_again() {
    let world = World::new();
    let mut log = Log::new("log.example/a");
    let mut witness = world.open().unwrap();
    log.grow(&["a", "b"]);
    assert_eq!(signed(&mut witness, &log, 0), 200);
    let (old_memory, old_sizes) = (world.memory(), std::fs::read(&world.place.sizes).unwrap());
    log.grow(&["c"]);
    assert_eq!(signed(&mut witness, &log, 2), 200);
    let (new_memory, new_sizes) = (world.memory(), std::fs::read(&world.place.sizes).unwrap());
    drop(witness);
    for (memory, sizes, size) in [(&old_memory, &old_sizes, 2), (&new_memory, &old_sizes, 3), (&new_memory, &new_sizes, 3)] {
        world.set_memory(memory);
        std::fs::write(&world.place.sizes, sizes).unwrap();
        let half = world.place.dir.join("logs").join(format!("{}.new", origin_hash("log.example/a")));
        std::fs::write(&half, b"half a no").unwrap();
        let mut witness = world.open().unwrap();
        assert_eq!(witness.last("log.example/a").unwrap().checkpoint.size, size);
        let recorded = read_sizes(&world.place.sizes).unwrap().unwrap();
        assert_eq!(recorded[&origin_hash("log.example/a")].0, size, "the record follows the memory");
        // What was told or not told: the same history goes on, and no other.
        let mut forked = Log::new("log.example/a");
        forked.grow(&["a", "x", "c", "d"]);
        assert_eq!(signed(&mut witness, &forked, size), 422);
        assert_eq!(signed(&mut witness, &log, size), 200);
    }
}

#[test]
fn a_memory_restored_from_a_copy_signs_nothing() {
    let world = World::new();
    let mut log = Log::new("log.example/a");
    let mut witness = world.open().unwrap();
    let empty = world.memory();
    log.grow(&["a", "b"]);
    assert_eq!(signed(&mut witness, &log, 0), 200);
    let two = world.memory();
    let sizes_two = std::fs::read(&world.place.sizes).unwrap();
    log.grow(&["c"]);
    assert_eq!(signed(&mut witness, &log, 2), 200);
    let three = world.memory();
    drop(witness);
    for old in [&empty, &two] {
        world.set_memory(old);
        let refused = world.open();
        assert!(matches!(refused, Err(WitnessError::Restored(_))), "{refused:?}");
    }
    world.set_memory(&three);
    world.open().unwrap();
    // The record robbed, cut, or of another root.
    let sizes = std::fs::read_to_string(&world.place.sizes).unwrap();
    std::fs::remove_file(&world.place.sizes).unwrap();
    assert!(matches!(world.open(), Err(WitnessError::Restored(_))));
    let other_root = sizes.replace(&Hash::from_slice(&[0; 32]).unwrap().base64(), "").replacen(&log.root.base64(), &Hash::from_bytes([1; 32]).base64(), 1);
    std::fs::write(&world.place.sizes, other_root).unwrap();
    assert!(matches!(world.open(), Err(WitnessError::Restored(_))));
    let line = sizes.lines().nth(1).unwrap();
    for broken in [String::new(), "swarm/witness-sizes/v2\n".to_owned(), sizes.trim_end().to_owned(), format!("{sizes}x\n"), format!("{sizes}{line}\n")] {
        std::fs::write(&world.place.sizes, &broken).unwrap();
        assert!(matches!(world.open(), Err(WitnessError::Damaged { .. })), "{broken:?}");
    }
    // Both restored together from one copy cannot be told: that is why the record belongs elsewhere.
    world.set_memory(&two);
    std::fs::write(&world.place.sizes, sizes_two).unwrap();
    world.open().unwrap();
}

#[test]
fn changed_files_are_refused_by_name() {
    let world = World::new();
    let mut log = Log::new("log.example/a");
    log.grow(&["a"]);
    assert_eq!(signed(&mut world.open().unwrap(), &log, 0), 200);
    let good = world.memory();
    let (name, note) = good.iter().next().unwrap();
    let moved = BTreeMap::from([(name.clone(), note.clone()), (origin_hash("log.example/b"), note.clone())]);
    world.set_memory(&moved);
    assert!(matches!(world.open(), Err(WitnessError::Damaged { .. })), "a note under another log's name");
    for at in 0..note.len() {
        let mut changed = note.clone();
        changed[at] ^= 1;
        world.set_memory(&BTreeMap::from([(name.clone(), changed)]));
        // Only a change of the log's own line, which is the log's to prove, may pass.
        if let Ok(witness) = world.open() {
            assert_eq!(witness.last("log.example/a").unwrap().checkpoint.root, log.root, "byte {at}");
        }
    }
}

#[test]
fn what_contradicts_is_kept_as_evidence_within_bounds() {
    let world = World::new();
    let mut log = Log::new("log.example/a");
    let mut witness = world.open().unwrap();
    log.grow(&["a"]);
    assert_eq!(signed(&mut witness, &log, 0), 200);
    for number in 0..=EVIDENCE_MAX {
        let mut forked = Log::new("log.example/a");
        forked.grow(&["x", &number.to_string()]);
        for _ in 0..2 {
            assert_eq!(signed(&mut witness, &forked, 1), 422);
        }
    }
    assert_eq!(signed(&mut witness, &log, 0), 409);
    assert_eq!(std::fs::read_dir(world.place.dir.join("evidence")).unwrap().count(), EVIDENCE_MAX);
}

#[test]
fn a_disk_that_refuses_gives_no_signature() {
    let world = World::new();
    let mut log = Log::new("log.example/a");
    let mut witness = world.open().unwrap();
    log.grow(&["a"]);
    assert_eq!(signed(&mut witness, &log, 0), 200);
    log.grow(&["b"]);
    // A folder in the place of the file that is renamed: as good as a disk that fails, also for root.
    let blocked = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        PathBuf::from(name)
    };
    for path in [world.place.dir.join("logs").join(origin_hash("log.example/a")), world.place.sizes.clone()] {
        std::fs::create_dir(blocked(&path)).unwrap();
        let old = witness.last("log.example/a").unwrap().checkpoint.size;
        assert_eq!(signed(&mut witness, &log, old), 503);
        std::fs::remove_dir(blocked(&path)).unwrap();
    }
    let old = witness.last("log.example/a").unwrap().checkpoint.size;
    assert_eq!(signed(&mut witness, &log, old), 200);
    drop(witness);
    world.open().unwrap();
}
