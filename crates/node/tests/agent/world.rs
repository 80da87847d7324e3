//! A node on this machine: joined to a small control plane, with an image of a static busybox, ready to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use keys::{PlainKey, SigningKey, SystemRandom};
use node::{JoinOptions, Joined, NodeOptions, RunError};
use sha2_of::sha256;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vocabulary::job::{AttemptId, JobInput, JobOutput, JobSpec};
use vocabulary::plan::{AttemptReport, Desired, PlannedJob};
use vocabulary::{JobId, KeyId, LeaseId, ProjectId, Sha256Digest, UnixTime, VolumeId};
use volume::io::{ObjectPort, PortError, Reader, Writer};
use volume::segment::SegmentKeys;

use crate::groups::Group;
use crate::plane::{Facts, FakeVolume, Plane, TENANT, empty_volume, fresh, is_over, wall};

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

mod sha2_of {
    pub(super) fn sha256(bytes: &[u8]) -> vocabulary::Sha256Digest {
        vocabulary::Sha256Digest::from_bytes(keys::derive::sha256(&[bytes]))
    }
}

pub(crate) struct World {
    pub(crate) plane: Plane,
    pub(crate) dir: PathBuf,
    pub(crate) group: Group,
    pub(crate) image: Sha256Digest,
    pub(crate) joined: Joined,
    _place: TempDir,
}

/// An agent that runs in this process.
pub(crate) struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Agent {
    /// Stops it; its jobs live on unless it drains.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
    /// Drops its task wherever it stands, as a crash would.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) fn join_options(plane: &Plane, dir: &Path) -> JoinOptions {
    JoinOptions {
        url: format!("https://127.0.0.1:{}", plane.0.api.port()),
        ca_pin: plane.0.root.certificate().pin(),
        token: identity::Token::draw(identity::TokenKind::Join, &mut SystemRandom).reveal(),
        dir: dir.to_owned(),
    }
}

/// Waits until a condition holds; tells what was waited for when it never does.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry = |kind: tar::EntryType, name: &str, mode: u32, link: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        match link {
            Some(link) => tar.append_link(&mut header, name, link).unwrap(),
            None => tar.append_data(&mut header, name, bytes).unwrap(),
        }
    };
    for folder in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        entry(tar::EntryType::Directory, folder, 0o755, None, b"");
    }
    entry(tar::EntryType::Regular, "bin/busybox", 0o755, None, &std::fs::read("/bin/busybox").unwrap());
    for name in ["sh", "cat", "echo", "sleep", "mkdir", "ln", "id", "ls", "seq", "env", "pwd", "head", "touch"] {
        entry(tar::EntryType::Symlink, &format!("bin/{name}"), 0o777, Some("busybox"), b"");
    }
    entry(tar::EntryType::Regular, "etc/passwd", 0o644, None, b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
    tar.into_inner().unwrap()
}

fn add_image(plane: &Plane) -> Sha256Digest {
    let layer = layer();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "FROM=image"], "User": "user"},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(&layer), "size": layer.len()}],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let digest = sha256(&manifest);
    plane.look(|facts| {
        let all = [manifest, config, layer].map(|bytes| (sha256(&bytes), Bytes::from(bytes)));
        facts.images.insert(digest, all.iter().map(|(digest, _)| *digest).collect());
        facts.blobs.extend(all);
    });
    digest
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// A world whose control plane is changed before the node joins.
    pub(crate) async fn with(change: impl FnOnce(&mut Facts)) -> Self {
        // Logs of the agent show with a failed test.
        let _ = tracing_subscriber::fmt().with_env_filter("node=debug").with_test_writer().try_init();
        let plane = Plane::start().await;
        plane.look(change);
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = place.path().join("node");
        let joined = node::join(join_options(&plane, &dir)).await.unwrap();
        let image = add_image(&plane);
        Self { plane, dir, group: Group::new("node"), image, joined, _place: place }
    }

    pub(crate) fn options(&self) -> NodeOptions {
        NodeOptions {
            dir: self.dir.clone(),
            shim_exe: env!("CARGO_BIN_EXE_node-agent").into(),
            cgroup_parent: self.group.name().to_owned(),
            runtimes: Vec::new(),
            gpus: node::GpuOptions::default(),
            id_base: self.id_base(),
            id_blocks: 8,
            drain_on_stop: false,
            tracer: telemetry::Tracer::off(),
        }
    }

    pub(crate) fn id_base(&self) -> u32 {
        (16 + (std::process::id() % 4000) * 8) * 65_536
    }

    pub(crate) fn start(&self) -> Agent {
        self.start_with(self.options())
    }

    pub(crate) fn start_with(&self, options: NodeOptions) -> Agent {
        let stop = CancellationToken::new();
        Agent { task: tokio::spawn(node::run(options, stop.clone())), stop }
    }

    /// A job that runs a shell script.
    pub(crate) fn job(&self, script: &str) -> PlannedJob {
        let spec: JobSpec = serde_json::from_value(serde_json::json!({
            "name": "test", "image": self.image, "command": ["sh", "-c", script], "purpose": "research", "sensitivity": "internal",
            "limits": {"memory_bytes": 64 << 20, "scratch_bytes": 32 << 20, "grace_ms": 1000, "pids": 64},
        }))
        .unwrap();
        PlannedJob {
            attempt: AttemptId { job: JobId::from_bytes(fresh(0x0b)), attempt: 1 },
            tenant: TENANT,
            project: ProjectId::from_bytes([3; 16]),
            spec,
            desired: Desired::Run,
            run_lease: LeaseId::from_bytes(fresh(0x11)),
        }
    }

    /// A volume with files in it.
    pub(crate) async fn volume(&self, files: &[(&str, &[u8])]) -> VolumeId {
        let id = VolumeId::from_bytes(fresh(0x70));
        let mut made = empty_volume();
        if !files.is_empty() {
            put(&mut made, id, files).await;
        }
        self.plane.look(|facts| facts.volumes.insert(id, made));
        id
    }

    pub(crate) async fn ends(&self, attempt: AttemptId) -> AttemptReport {
        until("the end of the attempt", || self.plane.last(attempt).filter(|report| is_over(&Some(report.clone())))).await
    }

    pub(crate) async fn logged(&self, attempt: AttemptId, text: &str) {
        until(text, || self.plane.log_text(attempt).contains(text).then_some(())).await;
    }

    /// Waits until the agent has removed everything, and looks whether it has.
    pub(crate) async fn nothing_left(&self, attempt: AttemptId) {
        let record = self.dir.join("attempts").join(attempt.to_string());
        until("the removal of leftovers", || {
            let names: Vec<_> = std::fs::read_dir(&record).map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect()).unwrap_or_default();
            let gone = !self.dir.join("jobs").join(attempt.to_string()).exists() && names.iter().all(|name| name == "record.json");
            gone.then_some(())
        })
        .await;
        let left = until("an empty list of leftovers", || runtime::leftovers::find(self.group.name(), &self.dir).ok().filter(Vec::is_empty)).await;
        assert!(left.is_empty());
    }

    /// The files of a volume, opened with its key.
    pub(crate) async fn opened(&self, volume: VolumeId) -> BTreeMap<String, Vec<u8>> {
        let (store, keys, head, signers) = self.plane.look(|facts| {
            let found = &facts.volumes[&volume];
            let signers: BTreeMap<_, _> = found.signers.iter().map(|writer| (writer.epoch, public(&writer.signer))).collect();
            (Memory(Mutex::new(found.objects.clone())), segment_keys(found, volume), found.head.clone(), signers)
        });
        let reader = Reader::open(&store, &keys, &head, &signers).await.unwrap();
        let mut all = BTreeMap::new();
        for file in reader.files() {
            let bytes = reader.read(file, Vec::new(), &|_, _| ()).await.unwrap();
            all.insert(file.name.clone(), bytes);
        }
        all
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test must not leave mounts or processes behind on the machine: first what holds the mounts ends.
        crate::groups::end(self.group.name());
        for entry in std::fs::read_dir(self.dir.join("attempts")).into_iter().flatten().flatten() {
            for _ in 0..50 {
                if runtime::secret::wipe(&entry.path()).is_ok() && runtime::scratch::Scratch::remove_leftovers(&entry.path()).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

pub(crate) fn input(volume: VolumeId, name: &str) -> JobInput {
    JobInput { volume, name: name.parse().unwrap() }
}

pub(crate) fn output(volume: VolumeId, name: &str) -> JobOutput {
    JobOutput { volume, name: name.parse().unwrap() }
}

fn public(text: &str) -> keys::VerifyingKey {
    use base64::Engine as _;
    keys::VerifyingKey::from_bytes(base64::engine::general_purpose::STANDARD.decode(text).unwrap().try_into().unwrap())
}

fn segment_keys(of: &FakeVolume, volume: VolumeId) -> SegmentKeys {
    SegmentKeys { tenant: TENANT, volume, epochs: vec![(1, KeyId::from_bytes([0x4b; 16]), PlainKey::from_bytes(of.key))] }
}

struct Memory(Mutex<BTreeMap<String, Bytes>>);

impl ObjectPort for Memory {
    async fn put(&self, path: String, bytes: Bytes) -> Result<(), PortError> {
        self.0.lock().unwrap().insert(path, bytes);
        Ok(())
    }
    async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
        Ok(self.0.lock().unwrap().get(&path).cloned())
    }
}

/// Seals files into the next state of a volume, as a person would.
pub(crate) async fn put(into: &mut FakeVolume, id: VolumeId, files: &[(&str, &[u8])]) {
    use base64::Engine as _;
    let signer = SigningKey::generate(&mut SystemRandom);
    let text = base64::engine::general_purpose::STANDARD.encode(signer.verifying_key().as_bytes());
    let epoch = into.signers.last().map_or(1, |writer| writer.epoch + 1);
    let signers: BTreeMap<_, _> = into.signers.iter().map(|writer| (writer.epoch, public(&writer.signer))).collect();
    let store = Memory(Mutex::new(into.objects.clone()));
    let keys = segment_keys(into, id);
    let reader = Reader::open(&store, &keys, &into.head, &signers).await.unwrap();
    let mut writer = Writer::new(reader, epoch, signer);
    for (name, bytes) in files {
        writer.add(name, bytes.len() as u64, 1, std::io::Cursor::new(bytes.to_vec()), &mut SystemRandom, &|_, _| ()).await.unwrap();
    }
    let record = writer.finish(UnixTime::from_millis(wall().millis()), &mut SystemRandom).await.unwrap();
    let seq = record.body().seq;
    into.objects = store.0.into_inner().unwrap();
    into.objects.insert(format!("chain/{seq:020}"), record.to_bytes().into());
    into.signers.push(vocabulary::lease::WriterEpoch { epoch, signer: text, audit_index: 1 });
    into.head.seq = seq;
    into.head.writer_epoch = epoch;
    into.head.root = Sha256Digest::from_bytes(record.root());
}
