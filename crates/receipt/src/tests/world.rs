//! A deployment with one node, one job, one input and one output, and the receipt of its attempt.

use audit::entry::Producer;
use audit::event::{Evidence, TokenKind};
use audit::key::{Ed25519Signer, KeyKind, verifier_of};
use audit::prove::prove_inclusion;
use audit::{Actor, Checkpoint, Entry, Event, Outcome, Source, TilePath, VerifierKey, append};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::certificate::{CertificateRequest, Class, IssuingAuthority, NodeLife, RootAuthority, make_request};
use identity::deployment::ReceiptCertificate;
use identity::{EcdsaKey, StatementPublic};
use rustls_pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};
use vocabulary::isolation::{IsolationReport, Layer, LayerVerdict};
use vocabulary::job::{AttemptId, Exit, ExitReason};
use vocabulary::lease::{LeaseHolder, LeaseMode};
use vocabulary::plan::NodePlace;
use vocabulary::volume::RootHead;
use vocabulary::{
    DeploymentId, EntryId, JobId, KeyId, LeaseId, LineageId, NodeId, PrincipalId, Profile, ProjectId, SYSTEM_OWNER,
    Sensitivity, Sha256Digest, TenantId, TokenId, UnixTime, VolumeId,
};
use volume::root::{Root, RootRecord};

use crate::envelope::{Envelope, Signer as _};
use crate::record::{LogPart, LoggedEntry, PolicyVersion, Receipt, Record};
use crate::report::{Report, Verdict};
use crate::statement::{Statement, VolumeUse, command_digest, statement_digest};

pub(super) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
pub(super) const DAY: u64 = 86_400_000;
pub(super) const TENANT: TenantId = TenantId::from_bytes([0x7e; 16]);
pub(super) const NODE: NodeId = NodeId::from_bytes([0x0d; 16]);

/// SplitMix64: repeats from its seed; for tests only.
pub(super) struct Seeded(pub(super) u64);

impl keys::Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = z.to_be_bytes()[0];
        }
    }
}

pub(super) fn key(seed: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed("swarm.example/0d/audit", &[seed; 32]).unwrap()
}

fn public64(signer: &Ed25519Signer) -> String {
    STANDARD.encode(crate::Signer::public(signer))
}

pub(super) fn wire(chain: &[CertificateDer<'_>]) -> Vec<String> {
    chain.iter().map(|der| STANDARD.encode(der)).collect()
}

pub(super) struct World {
    pub(super) root: RootAuthority,
    pub(super) nodes: IssuingAuthority,
    pub(super) receipts: IssuingAuthority,
    pub(super) random: Seeded,
}

/// Everything that goes into a receipt, before it is signed: a test changes what it wants and signs again.
pub(super) struct Facts {
    pub(super) profile: Profile,
    pub(super) deployment: DeploymentId,
    pub(super) statement: Statement,
    /// The log; an entry with `false` is in the log and not in the receipt.
    pub(super) entries: Vec<(Entry, bool)>,
    pub(super) node_chain: Vec<String>,
    pub(super) control_chain: Vec<String>,
    pub(super) record_key: Ed25519Signer,
    pub(super) receipt_key: Ed25519Signer,
    pub(super) log_key: Ed25519Signer,
    pub(super) log_name: String,
    /// Witnesses that sign the checkpoint: names and seeds.
    pub(super) witnesses: Vec<(&'static str, u8)>,
    /// When they sign.
    pub(super) witnessed_at: UnixTime,
    /// The witness policy that the receipt carries.
    pub(super) witness_policy: Option<String>,
    /// Changes a byte of the checkpoint's note before the whole is signed.
    pub(super) flipped: Option<(usize, u8)>,
    pub(super) policy: PolicyVersion,
    pub(super) labels: BTreeSet<String>,
    pub(super) issued: UnixTime,
    pub(super) tenant: TenantId,
    pub(super) attempt: AttemptId,
    /// The end's entry binds this digest instead of the statement's.
    pub(super) bound: Option<Sha256Digest>,
    /// Changes the record before it is signed, after everything else was put in.
    pub(super) record: fn(&mut Record),
    /// Changes the node's envelope after it was signed and before it is bound.
    pub(super) envelope: fn(&mut Envelope),
}

pub(super) fn world() -> World {
    world_of(DeploymentId::from_bytes([0xd0; 16]), 7)
}

pub(super) fn world_of(deployment: DeploymentId, seed: u64) -> World {
    let mut random = Seeded(seed);
    let made = UnixTime::from_millis(NOW.millis() - DAY);
    let root = RootAuthority::create(deployment, made, &mut random).unwrap();
    let nodes = root.issue_authority(Class::Node, made, &mut random).unwrap();
    let receipts = root.issue_authority(Class::Receipt, made, &mut random).unwrap();
    World { root, nodes, receipts, random }
}

impl World {
    pub(super) fn node_chain(&mut self, node: NodeId, at: UnixTime) -> Vec<CertificateDer<'static>> {
        let key = EcdsaKey::generate().unwrap();
        let request = CertificateRequest::check(&make_request(&key).unwrap()).unwrap();
        self.nodes.issue_node(node, &request, NodeLife::default(), at, &mut self.random).unwrap().chain
    }

    pub(super) fn receipt_chain(&mut self, public: [u8; 32], at: UnixTime) -> Vec<CertificateDer<'static>> {
        let id = KeyId::from_bytes([0x4e; 16]);
        self.receipts.issue_receipt(id, &StatementPublic::from_bytes(public), at, &mut self.random).unwrap().chain
    }

    /// The deployment's public file, by the code of the control plane.
    pub(super) fn file(&self, profile: Profile, log: &VerifierKey, receipt: &[CertificateDer<'_>]) -> Vec<u8> {
        let certificate = ReceiptCertificate::from_chain(receipt).unwrap();
        self.root.sign_deployment_file(profile, vec![log.to_string()], vec![certificate], NOW).unwrap().into_bytes()
    }

    /// A file with witnesses, signed by the same root: what the control plane does not write yet.
    pub(super) fn witnessed(
        &self,
        profile: Profile,
        log: &VerifierKey,
        receipt: &[CertificateDer<'_>],
        witnesses: &[(&str, u8)],
        quorum: u32,
    ) -> Vec<u8> {
        let certificate = self.root.certificate();
        let mut file = crate::Deployment::new(certificate.deployment(), profile, certificate.der(), NOW)
            .with_log_key(log)
            .with_receipt_certificate(&receipt[0], &receipt[1]);
        file.quorum = quorum;
        let witness = |(name, seed): &(&str, u8)| {
            let signer = Ed25519Signer::from_seed(name, &[*seed; 32]).unwrap();
            verifier_of(&signer, KeyKind::CosignatureV1).unwrap().to_string()
        };
        file.witnesses = witnesses.iter().map(witness).collect();
        let key = EcdsaKey::open(self.root.private()).unwrap();
        file.sign(|message| key.sign(message).unwrap()).unwrap()
    }

    pub(super) fn pin(&self) -> Sha256Digest {
        self.root.certificate().pin()
    }
}

fn digest(byte: u8) -> Sha256Digest {
    Sha256Digest::from_bytes([byte; 32])
}

fn entry(time: UnixTime, tenant: TenantId, number: u64, event: Event) -> Entry {
    Entry {
        id: EntryId::new(time, [u8::try_from(number).unwrap(); 10]),
        time,
        tenant,
        producer: Producer { name: "control/1".into(), sequence: number },
        actor: Actor::System,
        source: Source::Internal,
        outcome: Outcome::Success,
        action: None,
        event,
        personal: Vec::new(),
    }
}

fn root_record(volume: VolumeId, lineage: LineageId, seq: u64, epoch: u64, seed: u8) -> (RootHead, String) {
    let record = RootRecord::sign(
        Root {
            tenant: TENANT,
            volume,
            lineage,
            seq,
            writer_epoch: epoch,
            prev: [0x0b; 32],
            state: [0x57; 32],
            durable_seq: seq,
            time: NOW,
        },
        &keys::SigningKey::from_seed(keys::PlainKey::from_bytes([seed; 32])),
    );
    let head = RootHead { lineage, seq, writer_epoch: epoch, root: Sha256Digest::from_bytes(record.root()) };
    (head, STANDARD.encode(record.to_bytes()))
}

/// Input and output of the attempt.
pub(super) const INPUT: VolumeId = VolumeId::from_bytes([0x11; 16]);
pub(super) const OUTPUT: VolumeId = VolumeId::from_bytes([0x22; 16]);

impl World {
    pub(super) fn facts(&mut self) -> (Facts, Vec<CertificateDer<'static>>) {
        let deployment = self.root.certificate().deployment();
        let attempt = AttemptId { job: JobId::from_bytes([0x10; 16]), attempt: 1 };
        let (record_key, receipt_key, log_key) = (key(1), key(2), key(3));
        let node_chain = self.node_chain(NODE, NOW);
        let receipt_chain = self.receipt_chain(receipt_key.public(), NOW);
        let certificate = crate::envelope::sha256(&node_chain[0]);
        let (in_lineage, out_lineage) = (LineageId::from_bytes([0x31; 16]), LineageId::from_bytes([0x32; 16]));
        let (in_head, in_record) = root_record(INPUT, in_lineage, 3, 2, 0x41);
        let (out_head, out_record) = root_record(OUTPUT, out_lineage, 1, 1, 0x42);
        let (run_lease, in_lease, out_lease) =
            (LeaseId::from_bytes([0x51; 16]), LeaseId::from_bytes([0x52; 16]), LeaseId::from_bytes([0x53; 16]));
        let put_lease = LeaseId::from_bytes([0x54; 16]);
        let person = PrincipalId::from_bytes([0xaa; 16]);
        let project = ProjectId::from_bytes([0x99; 16]);
        let command = vec!["python3".to_owned(), "/code/train.py".to_owned()];
        let (region, jurisdiction) = ("eu-central".parse().unwrap(), "EU".parse().unwrap());
        let place = NodePlace { region, jurisdiction, labels: BTreeMap::new() };
        let later = |minutes: u64| NOW.plus_millis(minutes * 60_000);
        let released = |lease, volume, mode, holder, node| Event::KeyReleased {
            lease,
            volume,
            key: KeyId::from_bytes([0x61; 16]),
            versions: vec![1],
            mode,
            holder,
            node,
            purpose: Some("research".parse().unwrap()),
            policy_epoch: 5,
            expires: later(60),
            evidence: Evidence::None,
        };
        let signer = |seed: u8| {
            STANDARD.encode(keys::SigningKey::from_seed(keys::PlainKey::from_bytes([seed; 32])).verifying_key().as_bytes())
        };
        let registered = |lease, volume, lineage, writer_epoch, seed, holder| Event::WriterRegistered {
            lease,
            volume,
            lineage,
            writer_epoch,
            signer: signer(seed),
            holder,
        };
        let committed = |volume, head: &RootHead| Event::VolumeCommitted {
            volume,
            lineage: head.lineage,
            seq: head.seq,
            writer_epoch: head.writer_epoch,
            root: head.root,
            previous: digest(0x0b),
        };
        let holder = LeaseHolder::Attempt(attempt);
        let person = LeaseHolder::Principal(person);
        let events = [
            (SYSTEM_OWNER, Event::ServerStarted { version: "0.1.0".into() }, false),
            (TENANT, Event::PolicyChanged { epoch: 5, policy: digest(0x70) }, true),
            (
                SYSTEM_OWNER,
                Event::NodeEnrolled {
                    node: NODE,
                    place: place.clone(),
                    record_key: public64(&record_key),
                    certificate,
                    join_token: Some(TokenId::from_bytes([0x71; 16])),
                },
                true,
            ),
            (TENANT, released(put_lease, INPUT, LeaseMode::Write, person, None), false),
            (TENANT, registered(put_lease, INPUT, in_lineage, 2, 0x41, person), true),
            (TENANT, committed(INPUT, &in_head), true),
            (
                TENANT,
                Event::JobSubmitted {
                    job: attempt.job,
                    project,
                    image: digest(0x69),
                    command: command_digest(&command).unwrap(),
                    spec: digest(0x73),
                    purpose: "research".parse().unwrap(),
                    sensitivity: Sensitivity::Internal,
                },
                true,
            ),
            (
                TENANT,
                Event::JobPlaced {
                    attempt,
                    node: NODE,
                    region: place.region.clone(),
                    jurisdiction: place.jurisdiction.clone(),
                    run_lease,
                    run_lease_ms: 900_000,
                    policy_epoch: 5,
                    demands: vocabulary::job::PlaceDemands::default(),
                },
                true,
            ),
            (TENANT, released(in_lease, INPUT, LeaseMode::Read, holder, Some(NODE)), true),
            (TENANT, released(out_lease, OUTPUT, LeaseMode::Write, holder, Some(NODE)), true),
            (TENANT, registered(out_lease, OUTPUT, out_lineage, 1, 0x42, holder), true),
            (TENANT, committed(OUTPUT, &out_head), true),
            (
                TENANT,
                Event::JobFinished {
                    attempt,
                    node: NODE,
                    reason: ExitReason::Completed,
                    code: Some(0),
                    statement: None,
                },
                true,
            ),
            (SYSTEM_OWNER, Event::TokenRevoked { token: TokenId::from_bytes([0x71; 16]), token_kind: TokenKind::Join }, false),
        ];
        let entries = (0_u64..)
            .zip(events)
            .map(|(number, (tenant, event, shown))| (entry(NOW.plus_millis(number * 1000), tenant, number, event), shown))
            .collect();
        let layer = |name: &str, verdict| Layer { name: name.into(), asked: true, verdict, observed: "Seccomp: 2".into() };
        let statement = Statement {
            attempt,
            command,
            deployment,
            exit: Exit {
                reason: ExitReason::Completed,
                code: Some(0),
                signal: None,
                detail: "exited with code 0".into(),
                oom_kills: 0,
                peak_memory_bytes: Some(1 << 20),
                cpu_ms: Some(1200),
                started: Some(later(0)),
                ended: later(1),
            },
            image: digest(0x69),
            inputs: vec![VolumeUse {
                head: in_head,
                lease: in_lease,
                name: "data".parse().unwrap(),
                record: Some(in_record),
                volume: INPUT,
            }],
            isolation: IsolationReport {
                backend: "libcontainer 0.7.0".into(),
                runtime: None,
                cgroup_layout: "unified".into(),
                kernel: "6.1.0".into(),
                layers: vec![layer("seccomp", LayerVerdict::Held), layer("landlock", LayerVerdict::NotObservable)],
            },
            jurisdiction: place.jurisdiction,
            log_frames_lost: 0,
            node: NODE,
            outputs: vec![VolumeUse {
                head: out_head,
                lease: out_lease,
                name: "model".parse().unwrap(),
                record: Some(out_record),
                volume: OUTPUT,
            }],
            project,
            region: place.region,
            run_lease,
            secrets: Vec::new(),
            tenant: TENANT,
            time: later(1),
        };
        let facts = Facts {
            profile: Profile::Development,
            deployment,
            statement,
            entries,
            node_chain: wire(&node_chain),
            control_chain: wire(&receipt_chain),
            record_key,
            receipt_key,
            log_key,
            log_name: "swarm.example/0d/audit".into(),
            witnesses: Vec::new(),
            witnessed_at: later(60),
            witness_policy: None,
            flipped: None,
            policy: PolicyVersion { digest: digest(0x70), epoch: 5 },
            labels: BTreeSet::from(["quorum-none".to_owned()]),
            issued: later(2),
            tenant: TENANT,
            attempt,
            bound: None,
            record: |_| (),
            envelope: |_| (),
        };
        (facts, receipt_chain)
    }
}

impl Facts {
    /// The log of these facts, with the end's entry bound to `statement`: leaves, salts, bodies.
    fn encoded(&self, statement: Sha256Digest) -> Vec<audit::EncodedEntry> {
        let mut random = Seeded(5);
        let encode = |(entry, _): &(Entry, bool)| {
            let mut entry = entry.clone();
            if let Event::JobFinished { statement: bound, .. } = &mut entry.event {
                *bound = Some(self.bound.unwrap_or(statement));
            }
            entry.encode(&mut |bytes| keys::Random::fill(&mut random, bytes)).unwrap()
        };
        self.entries.iter().map(encode).collect()
    }

    /// Signs everything: the file's bytes.
    pub(super) fn receipt(&self) -> Vec<u8> {
        self.assemble().encode().unwrap()
    }

    pub(super) fn assemble(&self) -> Receipt {
        let mut node = self.statement.sign(&self.record_key).unwrap();
        (self.envelope)(&mut node);
        let encoded = self.encoded(statement_digest(&node).unwrap());
        let leaves: Vec<&[u8]> = encoded.iter().map(|entry| entry.leaf.as_slice()).collect();
        let nothing: BTreeMap<TilePath, Vec<u8>> = BTreeMap::new();
        let appended = append(&nothing, 0, &audit::hash::empty_root(), &leaves).unwrap();
        let tiles: BTreeMap<_, _> = appended.files.into_iter().collect();
        let signer = Ed25519Signer::from_seed(&self.log_name, &seed_of(&self.log_key)).unwrap();
        let checkpoint = Checkpoint { origin: self.log_name.clone(), size: appended.size, root: appended.root };
        let mut note = checkpoint.sign(&signer).unwrap();
        for (name, seed) in &self.witnesses {
            let witness = Ed25519Signer::from_seed(name, &[*seed; 32]).unwrap();
            note.add(audit::cosignature::cosign(&witness, note.text(), self.witnessed_at.seconds()).unwrap()).unwrap();
        }
        let mut note = note.encode();
        if let Some((at, mask)) = self.flipped {
            note[at] ^= mask;
        }
        let entries = (0_u64..)
            .zip(encoded.iter().zip(&self.entries))
            .filter(|(_, (_, (_, shown)))| *shown)
            .map(|(index, (entry, _))| {
                let proof = prove_inclusion(&tiles, index, appended.size).unwrap();
                LoggedEntry::new(index, &entry.salt, &entry.body, &proof)
            })
            .collect();
        let mut record = Record {
            attempt: self.attempt,
            control_certificates: self.control_chain.clone(),
            deployment: self.deployment,
            evidence: Evidence::None,
            issued: self.issued,
            labels: self.labels.clone(),
            log: LogPart { checkpoint: STANDARD.encode(note), entries },
            node_certificates: self.node_chain.clone(),
            policy: self.policy.clone(),
            profile: self.profile,
            statement: digest(0),
            statement_envelope: digest(0),
            tenant: self.tenant,
            witness_policy: self.witness_policy.as_ref().map(|text| STANDARD.encode(text)),
        };
        (self.record)(&mut record);
        Receipt::assemble(node, record, &self.receipt_key).unwrap()
    }

    /// The entry of a kind.
    pub(super) fn event(&mut self, kind: &str) -> &mut Event {
        &mut self.find(kind).0.event
    }
    pub(super) fn find(&mut self, kind: &str) -> &mut (Entry, bool) {
        let named = |(entry, shown): &&mut (Entry, bool)| *shown && entry.event.kind() == kind;
        self.entries.iter_mut().find(named).unwrap()
    }
}

/// The seeds of the test keys are one repeated byte: found again by their public halves.
fn seed_of(signer: &Ed25519Signer) -> [u8; 32] {
    let public = crate::Signer::public(signer);
    let byte = (0..=255).find(|byte| crate::Signer::public(&key(*byte)) == public).unwrap();
    [byte; 32]
}

pub(super) fn log_key(facts: &Facts) -> VerifierKey {
    let signer = Ed25519Signer::from_seed(&facts.log_name, &seed_of(&facts.log_key)).unwrap();
    verifier_of(&signer, KeyKind::Ed25519).unwrap()
}

/// A good receipt with the deployment's file and the pin.
pub(super) struct Made {
    pub(super) receipt: Vec<u8>,
    pub(super) file: Vec<u8>,
    pub(super) pin: Sha256Digest,
}

pub(super) fn made() -> Made {
    let mut world = world();
    let (facts, chain) = world.facts();
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    Made { receipt: facts.receipt(), file, pin: world.pin() }
}

impl Made {
    pub(super) fn verify(&self, receipt: &[u8]) -> Report {
        crate::verify(receipt, &self.file, Some(&self.pin), Some(NOW.plus_millis(DAY)))
    }
}

/// The claims that failed.
pub(super) fn failed(report: &Report) -> Vec<&str> {
    report.lines.iter().filter(|line| line.verdict == Verdict::NotProved).map(|line| line.claim.as_str()).collect()
}
