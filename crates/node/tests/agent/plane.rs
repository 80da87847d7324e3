//! A small control plane: real TLS of the deployment's own authorities, real leases and volumes, and faults on request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use identity::tls::{Clients, Identity, KeyExchange, server_config};
use identity::{
    CertificateRequest, Class, EcdsaKey, EnrolRequest, IssuingAuthority, LiveRevocations, NodeLife, ReceiptCertificate, RootAuthority, StatementKey,
    StatementPublic, Verifier, chain_to_wire,
};
use keys::SystemRandom;
use tokio::net::TcpListener;
use vocabulary::api::{Done, LogAck, LogBatch, NodeEnrol, NodeEnrolled, NodeRenew, NodeRenewed, StatementUpload, VolumeCommit, VolumeCommitted};
use vocabulary::job::{AttemptId, JobState, LogFrame};
use vocabulary::lease::{Lease, LeaseHolder, LeaseMode, LeaseRequest, ReleasedKey, WriterEpoch, release_info};
use vocabulary::plan::{AttemptReport, BlobRef, ImageBlobs, NodePlace, NodePlan, NodeReport, PLAN_CONTEXT, PlannedJob, RenewedRun, ReportAnswer, Revocations, SignedPlan};
use vocabulary::secret::{ReleasedSecret, SecretKey, SecretRequest};
use vocabulary::volume::RootHead;
use vocabulary::{
    ControlId, DeploymentId, ErrorCode, JobId, KeyId, LeaseId, LineageId, NodeId, Problem, Profile, SecretId, Sha256Digest, TenantId, UnixTime, VolumeId, channel,
};
use volume::root::RootRecord;

pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([0xd0; 16]);
pub(crate) const TENANT: TenantId = TenantId::from_bytes([0x7e; 16]);
pub(crate) const NODE: NodeId = NodeId::from_bytes([0x0d; 16]);

/// How the control plane misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Plans are signed by a key that is none of the deployment's.
    PlanSignature,
    /// Plans carry this deployment's signature and another deployment's id.
    PlanDeployment,
    /// Plans go back to revision 1.
    PlanOlder,
    /// The stream breaks off in the middle of a line.
    PlanTruncated,
    /// Another image than the job names.
    OtherImage,
    /// A blob with another digest.
    BlobDigest,
    /// A blob that is longer than it should be.
    BlobLonger,
    /// A blob that is shorter than it should be.
    BlobShorter,
    /// Two objects of a volume change places.
    ObjectsSwapped,
    /// The root that lies in the store is an older one.
    RolledBack,
    /// The lease is for another volume.
    OtherVolume,
    /// The lease is for another tenant.
    OtherTenant,
    /// The keys were sealed to somebody else.
    OtherRecipient,
    /// Leases are refused.
    LeaseRefused,
    /// Everything answers 503.
    Unavailable,
    /// Nothing answers.
    Silent,
    /// Writing to volumes answers 503.
    NoWrites,
    /// Commits answer 503.
    NoCommits,
    /// The answer to a commit is lost although it was set.
    CommitLost,
}

pub(crate) struct FakeVolume {
    pub(crate) key: [u8; 32],
    pub(crate) head: RootHead,
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) signers: Vec<WriterEpoch>,
}

#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) fault: Fault,
    pub(crate) record_key: Option<StatementPublic>,
    pub(crate) enrolments: u32,
    pub(crate) renewals: u32,
    pub(crate) revision: u64,
    pub(crate) jobs: Vec<PlannedJob>,
    pub(crate) revocations: Revocations,
    pub(crate) blobs: BTreeMap<Sha256Digest, Bytes>,
    pub(crate) images: BTreeMap<Sha256Digest, Vec<Sha256Digest>>,
    pub(crate) blob_fetches: u32,
    pub(crate) volumes: BTreeMap<VolumeId, FakeVolume>,
    pub(crate) secrets: BTreeMap<SecretId, Vec<u8>>,
    leases: BTreeMap<LeaseId, (VolumeId, LeaseMode, u64)>,
    pub(crate) reports: Vec<NodeReport>,
    pub(crate) logs: BTreeMap<AttemptId, Vec<LogFrame>>,
    pub(crate) statements: Vec<(AttemptId, String)>,
    pub(crate) acknowledge: bool,
    pub(crate) run_lease_ms: Option<u64>,
    /// No run lease is renewed.
    pub(crate) renews_nothing: bool,
    /// How long ago the certificate of the enrolment was issued, and for how long.
    pub(crate) issued: Option<(u64, u64)>,
    /// How often the plan's stream was begun.
    pub(crate) followed: u32,
    /// Connections that never finished their handshake.
    pub(crate) handshakes_failed: u32,
    /// Ends are acknowledged as soon as a statement is there, whatever the report says.
    pub(crate) acknowledge_statements: bool,
    pub(crate) commits: u32,
}

/// The control plane.
#[derive(Clone)]
pub(crate) struct Plane(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) facts: Mutex<Facts>,
    pub(crate) root: RootAuthority,
    nodes: IssuingAuthority,
    receipt: StatementKey,
    file: String,
    /// The serial number of this process' certificate.
    pub(crate) serial: String,
    pub(crate) api: SocketAddr,
    pub(crate) channel: SocketAddr,
}

pub(crate) fn wall() -> UnixTime {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::from_millis(u64::try_from(now.as_millis()).unwrap())
}

pub(crate) fn fresh(seed: u8) -> [u8; 16] {
    let mut bytes = <dyn keys::Random>::array::<16>(&mut SystemRandom);
    bytes[0] = seed;
    bytes
}

fn problem(code: ErrorCode, detail: &str) -> Response {
    (StatusCode::from_u16(code.status()).unwrap(), Json(Problem::new(code, detail))).into_response()
}

async fn serve(listener: TcpListener, tls: rustls::ServerConfig, router: Router, plane: Plane) {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, router, plane) = (acceptor.clone(), router.clone(), plane.clone());
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(stream).await else { return plane.look(|facts| facts.handshakes_failed += 1) };
            let service = TowerToHyperService::new(router);
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

impl Plane {
    /// Starts listening on two free ports; it ends with the runtime of the test.
    pub(crate) async fn start() -> Self {
        let random = &mut SystemRandom;
        let now = wall();
        // The authority is a little older, for certificates that are.
        let root = RootAuthority::create(DEPLOYMENT, UnixTime::from_millis(now.millis() - 240_000), random).unwrap();
        let nodes = root.issue_authority(Class::Node, UnixTime::from_millis(now.millis() - 240_000), random).unwrap();
        let controls = root.issue_authority(Class::Control, now, random).unwrap();
        let receipts = root.issue_authority(Class::Receipt, now, random).unwrap();
        let receipt = StatementKey::generate(random).unwrap();
        let certificate = receipts.issue_receipt(KeyId::from_bytes([0x4e; 16]), &receipt.public().unwrap(), now, random).unwrap();
        let certificate = ReceiptCertificate::from_chain(&certificate.chain).unwrap();
        let file = root.sign_deployment_file(Profile::Development, Vec::new(), vec![certificate], now).unwrap();
        let key = EcdsaKey::generate().unwrap();
        let names = ["localhost".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let issued = controls.issue_control(ControlId::from_bytes([0xc0; 16]), &key.public().unwrap(), &names, now, random).unwrap();
        let identity = Identity::new(&issued, &key);
        let clock: identity::tls::Clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let verifier = Arc::new(Verifier::new(root.certificate().clone(), LiveRevocations::default()).unwrap());
        let config = |clients| server_config(&identity, root.certificate(), clients, KeyExchange::default(), Arc::clone(&clock)).unwrap();
        let (api_tls, node_tls) = (config(Clients::Anybody), config(Clients::Nodes(verifier)));
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let facts = Mutex::new(Facts { acknowledge: true, ..Facts::default() });
        let serial = issued.serial.to_string();
        let inner = Inner { facts, root, nodes, receipt, file, serial, api: api.local_addr().unwrap(), channel: channel.local_addr().unwrap() };
        let plane = Self(Arc::new(inner));
        let routes = Router::new().route("/v1/nodes/enrol", post(enrol)).route("/v1/deployment", get(deployment)).with_state(plane.clone());
        tokio::spawn(serve(api, api_tls, routes, plane.clone()));
        tokio::spawn(serve(channel, node_tls, plane.routes(), plane.clone()));
        plane
    }

    fn routes(&self) -> Router {
        Router::new()
            .route(channel::PLAN, get(plan))
            .route(channel::REPORT, post(report))
            .route(channel::CERTIFICATE, post(certificate))
            .route(channel::IMAGE, get(image))
            .route(channel::IMAGE_BLOB, get(blob))
            .route(channel::LEASE, post(lease))
            .route(channel::SECRET, post(secret))
            .route(channel::OBJECT, get(get_object).put(put_object))
            .route(channel::COMMIT, post(commit))
            .route(channel::LOGS, post(logs))
            .route(channel::STATEMENT, post(statement))
            .layer(axum::extract::DefaultBodyLimit::max(128 << 20))
            .layer(axum::middleware::from_fn_with_state(self.clone(), misbehave))
            .with_state(self.clone())
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.0.facts.lock().unwrap())
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.look(|facts| facts.fault = fault);
    }

    /// Puts jobs into the plan.
    pub(crate) fn plan(&self, jobs: Vec<PlannedJob>) {
        self.look(|facts| {
            facts.revision += 1;
            facts.jobs = jobs;
        });
    }

    /// What the node said last of an attempt.
    pub(crate) fn last(&self, attempt: AttemptId) -> Option<AttemptReport> {
        self.look(|facts| {
            let mut all = facts.reports.iter().rev().flat_map(|report| &report.attempts);
            all.find(|report| report.attempt == attempt).cloned()
        })
    }

    pub(crate) fn log_text(&self, attempt: AttemptId) -> String {
        self.look(|facts| {
            let frames = facts.logs.get(&attempt).cloned().unwrap_or_default();
            frames.iter().map(|frame| String::from_utf8_lossy(&STANDARD.decode(&frame.data).unwrap()).into_owned()).collect()
        })
    }

    fn signed_plan(&self) -> (u64, SignedPlan) {
        let (revision, plan, fault) = self.look(|facts| {
            let mut plan = NodePlan {
                format: 1,
                deployment: DEPLOYMENT,
                node: NODE,
                revision: facts.revision,
                jobs: facts.jobs.clone(),
                revocations: facts.revocations.clone(),
            };
            match facts.fault {
                Fault::PlanDeployment => plan.deployment = DeploymentId::from_bytes([9; 16]),
                Fault::PlanOlder => plan.revision = 1,
                _ => {}
            }
            (facts.revision, plan, facts.fault)
        });
        let payload = serde_json::to_vec(&plan).unwrap();
        let stranger = StatementKey::open(&[9; 32]).unwrap();
        let key = if fault == Fault::PlanSignature { &stranger } else { &self.0.receipt };
        let signature = STANDARD.encode(key.sign(PLAN_CONTEXT, &payload));
        (revision, SignedPlan { payload: STANDARD.encode(payload), signature })
    }
}

async fn misbehave(State(plane): State<Plane>, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let write = request.method() == http::Method::PUT || request.uri().path().ends_with("/commit");
    match plane.look(|facts| facts.fault) {
        Fault::Silent => {
            // Until the fault is over: a connection that is open and says nothing.
            while plane.look(|facts| facts.fault) == Fault::Silent {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            problem(ErrorCode::Unavailable, "was silent")
        }
        Fault::Unavailable => problem(ErrorCode::Unavailable, "not now"),
        Fault::NoCommits if request.uri().path().ends_with("/commit") => problem(ErrorCode::Unavailable, "no commits now"),
        Fault::NoWrites if write => problem(ErrorCode::Unavailable, "no writes now"),
        _ => next.run(request).await,
    }
}

async fn deployment(State(plane): State<Plane>) -> String {
    plane.0.file.clone()
}

async fn enrol(State(plane): State<Plane>, Json(body): Json<NodeEnrol>) -> Response {
    let Ok(request) = EnrolRequest::check(&body) else { return problem(ErrorCode::TicketRefused, "the join token is unknown") };
    let (now, life) = plane.look(|facts| {
        facts.enrolments += 1;
        facts.record_key = Some(request.record_key);
        facts.issued.map_or((wall(), NodeLife::default()), |(ago, life)| {
            (UnixTime::from_millis(wall().millis() - ago), NodeLife::from_millis(life).unwrap())
        })
    });
    if plane.look(|facts| facts.enrolments) > 1 {
        return problem(ErrorCode::TicketRefused, "the join token is spent");
    }
    let issued = plane.0.nodes.issue_node(NODE, &request.request, life, now, &mut SystemRandom).unwrap();
    let place = NodePlace { region: "eu-central".parse().unwrap(), jurisdiction: "EU".parse().unwrap(), labels: BTreeMap::new() };
    Json(NodeEnrolled {
        node: NODE,
        name: "first".parse().unwrap(),
        place,
        chain: chain_to_wire(&issued.chain),
        deployment_file: plane.0.file.clone(),
        node_port: plane.0.channel.port(),
        not_after: issued.not_after,
        audit_index: 7,
    })
    .into_response()
}

async fn certificate(State(plane): State<Plane>, Json(body): Json<NodeRenew>) -> Json<NodeRenewed> {
    let request = CertificateRequest::check(&STANDARD.decode(body.csr).unwrap()).unwrap();
    let issued = plane.0.nodes.issue_node(NODE, &request, NodeLife::default(), wall(), &mut SystemRandom).unwrap();
    plane.look(|facts| facts.renewals += 1);
    Json(NodeRenewed { chain: chain_to_wire(&issued.chain), not_after: issued.not_after })
}

async fn plan(State(plane): State<Plane>, Query(query): Query<BTreeMap<String, u64>>) -> Response {
    let sent = query.get("after").copied().unwrap_or(0);
    plane.look(|facts| facts.followed += 1);
    let stream = futures::stream::unfold((plane, true, sent), |(plane, first, sent)| async move {
        // Waits for something to say; the first look is at once.
        let mut waited = 0;
        loop {
            if !first && waited == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let fault = plane.look(|facts| facts.fault);
            if matches!(fault, Fault::Silent | Fault::Unavailable) {
                return None;
            }
            let (revision, signed) = plane.signed_plan();
            let bad = matches!(fault, Fault::PlanSignature | Fault::PlanDeployment | Fault::PlanOlder);
            if revision > sent || (bad && waited == 0) {
                let mut line = serde_json::to_vec(&signed).unwrap();
                if fault == Fault::PlanTruncated {
                    line.truncate(line.len() / 2);
                } else {
                    line.push(b'\n');
                }
                return Some((Ok::<_, std::io::Error>(Bytes::from(line)), (plane, false, revision)));
            }
            if fault == Fault::PlanTruncated {
                return None;
            }
            waited += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if waited % 100 == 0 {
                return Some((Ok(Bytes::from_static(b"\n")), (plane, false, sent)));
            }
        }
    });
    Body::from_stream(stream).into_response()
}

async fn report(State(plane): State<Plane>, Json(body): Json<NodeReport>) -> Json<ReportAnswer> {
    Json(plane.look(|facts| {
        let renewed = body.attempts.iter().filter(|report| !report.state.is_final() && !facts.renews_nothing);
        let renewed = renewed.filter_map(|report| {
            let job = facts.jobs.iter().find(|job| job.attempt == report.attempt)?;
            let length_ms = facts.run_lease_ms.unwrap_or(job.spec.run_lease_ms);
            Some(RenewedRun { attempt: report.attempt, lease: job.run_lease, length_ms })
        });
        let renewed = renewed.collect();
        let stated = |attempt| facts.acknowledge_statements && facts.statements.iter().any(|(of, _)| *of == attempt);
        let ended = body.attempts.iter().filter(|report| (report.state.is_final() && facts.acknowledge) || stated(report.attempt));
        let acknowledged = ended.map(|report| report.attempt).collect();
        facts.reports.push(body.clone());
        ReportAnswer { plan_revision: facts.revision, renewed, acknowledged }
    }))
}

async fn image(State(plane): State<Plane>, Path((job, attempt)): Path<(JobId, u32)>) -> Response {
    plane.look(|facts| {
        let attempt = AttemptId { job, attempt };
        let Some(planned) = facts.jobs.iter().find(|job| job.attempt == attempt) else { return problem(ErrorCode::NotFound, "no such attempt") };
        let asked = planned.spec.image;
        let Some(digests) = facts.images.get(&asked) else { return problem(ErrorCode::NotFound, "no such image") };
        let blobs = digests.iter().map(|digest| BlobRef { digest: *digest, size: facts.blobs[digest].len() as u64 }).collect();
        let manifest = if facts.fault == Fault::OtherImage { Sha256Digest::from_bytes([9; 32]) } else { asked };
        Json(ImageBlobs { manifest, blobs }).into_response()
    })
}

async fn blob(State(plane): State<Plane>, Path((_, _, digest)): Path<(JobId, u32, Sha256Digest)>) -> Response {
    plane.look(|facts| {
        facts.blob_fetches += 1;
        let mut bytes = facts.blobs[&digest].to_vec();
        match facts.fault {
            Fault::BlobDigest => bytes[0] ^= 1,
            Fault::BlobLonger => bytes.push(0),
            Fault::BlobShorter => bytes.truncate(bytes.len() - 1),
            _ => {}
        }
        bytes.into_response()
    })
}

async fn lease(State(plane): State<Plane>, Path((job, attempt, volume)): Path<(JobId, u32, VolumeId)>, Json(body): Json<LeaseRequest>) -> Response {
    plane.look(|facts| {
        let fault = facts.fault;
        if fault == Fault::LeaseRefused {
            return problem(ErrorCode::ReleaseRefused, "the data may not be opened in EU");
        }
        let Some(found) = facts.volumes.get_mut(&volume) else { return problem(ErrorCode::NotFound, "no such volume") };
        let id = LeaseId::from_bytes(fresh(0x1e));
        let key = KeyId::from_bytes([0x4b; 16]);
        let recipient: [u8; 32] = STANDARD.decode(&body.recipient).unwrap().try_into().unwrap();
        let stranger = *keys::hpke::RecipientKey::generate().unwrap().public();
        let recipient = if fault == Fault::OtherRecipient { stranger } else { recipient };
        let sealed = keys::hpke::seal(&recipient, &release_info(id, volume, key, 1), b"", &found.key).unwrap();
        let writer = body.signer.clone().map(|signer| {
            let epoch = found.signers.last().map_or(1, |writer| writer.epoch + 1);
            let writer = WriterEpoch { epoch, signer, audit_index: 1 };
            found.signers.push(writer.clone());
            writer
        });
        let lease = Lease {
            id,
            tenant: if fault == Fault::OtherTenant { TenantId::from_bytes([9; 16]) } else { TENANT },
            volume: if fault == Fault::OtherVolume { VolumeId::from_bytes([9; 16]) } else { volume },
            holder: LeaseHolder::Attempt(AttemptId { job, attempt }),
            mode: body.mode,
            keys: vec![ReleasedKey { key, version: 1, encapsulated: STANDARD.encode(sealed.encapsulated), sealed: STANDARD.encode(sealed.ciphertext) }],
            signers: found.signers.clone(),
            head: found.head.clone(),
            expires: wall().plus_millis(60_000),
            audit_index: 2,
            writer: writer.clone(),
        };
        facts.leases.insert(id, (volume, body.mode, writer.map_or(0, |writer| writer.epoch)));
        Json(lease).into_response()
    })
}

async fn secret(State(plane): State<Plane>, Path((job, attempt, secret)): Path<(JobId, u32, SecretId)>, Json(body): Json<SecretRequest>) -> Response {
    plane.look(|facts| {
        let fault = facts.fault;
        let Some(value) = facts.secrets.get(&secret) else { return problem(ErrorCode::NotFound, "no such secret") };
        let (lease, key, plain) = (LeaseId::from_bytes(fresh(0x1e)), KeyId::from_bytes([0x4b; 16]), [0x5e; 32]);
        let recipient: [u8; 32] = STANDARD.decode(&body.recipient).unwrap().try_into().unwrap();
        let stranger = *keys::hpke::RecipientKey::generate().unwrap().public();
        let recipient = if fault == Fault::OtherRecipient { stranger } else { recipient };
        let sealed = keys::hpke::seal(&recipient, &vocabulary::secret::release_info(lease, secret, key, 3), b"", &plain).unwrap();
        let context = keys::secret::SecretContext { tenant: TENANT, secret, key, version: 3 };
        let value = keys::secret::seal(&keys::PlainKey::from_bytes(plain), &context, value, &mut SystemRandom).unwrap();
        let tenant = if fault == Fault::OtherTenant { TenantId::from_bytes([9; 16]) } else { TENANT };
        let (encapsulated, sealed) = (STANDARD.encode(sealed.encapsulated), STANDARD.encode(sealed.ciphertext));
        let key = SecretKey { lease, tenant, secret, key, version: 3, encapsulated, sealed };
        let holder = LeaseHolder::Attempt(AttemptId { job, attempt });
        Json(ReleasedSecret { key, holder, value: STANDARD.encode(value), audit_index: 3 }).into_response()
    })
}

fn held(facts: &Facts, headers: &HeaderMap, volume: VolumeId) -> bool {
    let lease: Option<LeaseId> = headers.get("swarm-lease").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    lease.and_then(|lease| facts.leases.get(&lease)).is_some_and(|(of, ..)| *of == volume)
}

type ObjectPath = Path<(JobId, u32, VolumeId, String)>;

async fn get_object(State(plane): State<Plane>, Path((_, _, volume, path)): ObjectPath, headers: HeaderMap) -> Response {
    plane.look(|facts| {
        if !held(facts, &headers, volume) {
            return problem(ErrorCode::ReleaseRefused, "no lease");
        }
        let fault = facts.fault;
        let objects = &facts.volumes[&volume].objects;
        let segments: Vec<&String> = objects.keys().filter(|path| path.starts_with("seg/")).collect();
        let path = match fault {
            Fault::ObjectsSwapped if path.starts_with("seg/") => segments.iter().find(|other| ***other != path).map_or(path, |other| (*other).clone()),
            Fault::RolledBack if path.starts_with("chain/") => objects.keys().find(|path| path.starts_with("chain/")).unwrap().clone(),
            _ => path,
        };
        objects.get(&path).map_or_else(|| problem(ErrorCode::NotFound, "no such object"), |bytes| bytes.clone().into_response())
    })
}

async fn put_object(State(plane): State<Plane>, Path((_, _, volume, path)): ObjectPath, headers: HeaderMap, body: Bytes) -> Response {
    plane.look(|facts| {
        if !held(facts, &headers, volume) {
            return problem(ErrorCode::ReleaseRefused, "no lease");
        }
        let objects = &mut facts.volumes.get_mut(&volume).unwrap().objects;
        if objects.get(&path).is_some_and(|before| *before != body) {
            return problem(ErrorCode::Conflict, "names are used once");
        }
        objects.insert(path, body);
        StatusCode::NO_CONTENT.into_response()
    })
}

async fn commit(State(plane): State<Plane>, Path((_, _, volume)): Path<(JobId, u32, VolumeId)>, Json(body): Json<VolumeCommit>) -> Response {
    plane.look(|facts| {
        let Some((of, LeaseMode::Write, epoch)) = facts.leases.get(&body.lease).copied() else { return problem(ErrorCode::ReleaseRefused, "no write lease") };
        assert_eq!(of, volume);
        let fault = facts.fault;
        let found = facts.volumes.get_mut(&volume).unwrap();
        let bytes = STANDARD.decode(&body.record).unwrap();
        let record = RootRecord::parse(&bytes).unwrap();
        let signer = found.signers.iter().find(|writer| writer.epoch == epoch).unwrap();
        let signer: [u8; 32] = STANDARD.decode(&signer.signer).unwrap().try_into().unwrap();
        record.verify(&keys::VerifyingKey::from_bytes(signer)).unwrap();
        let root = record.body();
        if root.seq != found.head.seq + 1 || root.prev != *found.head.root.as_bytes() || root.writer_epoch != epoch {
            return problem(ErrorCode::RootConflict, "the record does not extend the head");
        }
        found.objects.insert(format!("chain/{:020}", root.seq), bytes.into());
        found.head = RootHead { lineage: root.lineage, seq: root.seq, writer_epoch: epoch, root: Sha256Digest::from_bytes(record.root()) };
        facts.commits += 1;
        if fault == Fault::CommitLost {
            facts.fault = Fault::None;
            return problem(ErrorCode::Unavailable, "the answer is lost");
        }
        Json(VolumeCommitted { head: facts.volumes[&volume].head.clone(), audit_index: 3 }).into_response()
    })
}

async fn logs(State(plane): State<Plane>, Json(body): Json<LogBatch>) -> Json<LogAck> {
    Json(plane.look(|facts| {
        let kept = facts.logs.entry(body.attempt).or_default();
        for frame in body.frames {
            if kept.last().is_none_or(|last| last.sequence < frame.sequence) {
                kept.push(frame);
            }
        }
        LogAck { sequence: kept.last().map_or(0, |last| last.sequence) }
    }))
}

async fn statement(State(plane): State<Plane>, Json(body): Json<StatementUpload>) -> Json<Done> {
    plane.look(|facts| {
        let sent = (body.attempt, body.statement);
        if !facts.statements.contains(&sent) {
            facts.statements.push(sent);
        }
    });
    Json(serde_json::from_value(serde_json::json!({"audit_index": 4})).unwrap())
}

/// A volume into which nothing was put.
pub(crate) fn empty_volume() -> FakeVolume {
    let head = RootHead { lineage: LineageId::from_bytes([5; 16]), seq: 0, writer_epoch: 0, root: Sha256Digest::from_bytes([0; 32]) };
    FakeVolume { key: [0x5e; 32], head, objects: BTreeMap::new(), signers: Vec::new() }
}

/// Whether nothing of the attempt changes any more.
pub(crate) fn is_over(report: &Option<AttemptReport>) -> bool {
    report.as_ref().is_some_and(|report| matches!(report.state, JobState::Exited | JobState::Failed))
}
