//! One entry for every kind of event, and more where a kind has several shapes.

use vocabulary::job::{AttemptId, ExitReason, JobState};
use vocabulary::lease::{LeaseEnd, LeaseHolder, LeaseMode};
use vocabulary::plan::NodePlace;
use vocabulary::secret::SecretUse;
use vocabulary::{
    DeploymentId, EntryId, ErrorCode, ImageId, JobId, KeyId, LeaseId, LineageId, NodeId, PersonId, PrincipalId,
    Profile, ProjectId, SYSTEM_OWNER, SecretId, Sensitivity, Sha256Digest, StepUpId, TenantId, TokenId, UnixTime, VolumeId,
};

use super::support::Seeded;
use crate::entry::Producer;
use crate::event::{Change, Evidence, Factor, TokenKind};
use crate::sealed::{Personal, SubjectRoot};
use crate::{Actor, EncodedEntry, Entry, Event, Outcome, Source};

pub(super) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
pub(super) const TENANT: TenantId = TenantId::from_bytes([0x7e; 16]);

pub(super) fn attempt() -> AttemptId {
    AttemptId { job: JobId::from_bytes([0x10; 16]), attempt: 2 }
}

pub(super) fn subject_root(seed: u8) -> SubjectRoot {
    SubjectRoot::from_bytes([seed; 32])
}

pub(super) fn personal(path: &str, value: &str, seed: u8) -> Personal {
    Personal { path: path.into(), value: value.into(), subject: format!("subject-{seed}"), root: subject_root(seed) }
}

/// An entry of a user, from a network peer, that went well.
pub(super) fn entry(number: u64, event: Event) -> Entry {
    let mut id = [0x0e; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    Entry {
        id: EntryId::from_bytes(id),
        time: NOW.plus_millis(number),
        tenant: TENANT,
        producer: Producer { name: "control/1".into(), sequence: number },
        actor: Actor::User(PrincipalId::from_bytes([0xaa; 16]), PersonId::from_bytes([0xbb; 16])),
        source: Source::Peer("0123456789abcdef0123456789abcdef".into()),
        outcome: Outcome::Success,
        action: None,
        event,
        personal: Vec::new(),
    }
}

pub(super) fn encode(entry: &Entry) -> EncodedEntry {
    let mut random = Seeded(entry.producer.sequence);
    entry.encode(&mut |bytes| random.fill(bytes)).unwrap()
}

fn digest(byte: u8) -> Sha256Digest {
    Sha256Digest::from_bytes([byte; 32])
}

/// Every event, in the order of the enum.
pub(super) fn events() -> Vec<Event> {
    let person = PersonId::from_bytes([0xbb; 16]);
    let principal = PrincipalId::from_bytes([0xcc; 16]);
    let token = TokenId::from_bytes([0x70; 16]);
    let step_up = StepUpId::from_bytes([0x57; 16]);
    let node = NodeId::from_bytes([0x0d; 16]);
    let key = KeyId::from_bytes([0x4e; 16]);
    let lease = LeaseId::from_bytes([0x1e; 16]);
    let volume = VolumeId::from_bytes([0x00; 16]);
    let lineage = LineageId::from_bytes([0x11; 16]);
    let project = ProjectId::from_bytes([0x99; 16]);
    let image = ImageId::from_bytes([0x13; 16]);
    let job = attempt().job;
    let name = || "demo".parse().unwrap();
    let later = NOW.plus_millis(28_800_000);
    let factors = [Factor::Password, Factor::Totp, Factor::Passkey, Factor::RecoveryCode];
    let changes = [Change::Created, Change::Updated, Change::Disabled, Change::Enabled, Change::Deleted];
    let kinds = [TokenKind::Login, TokenKind::Service, TokenKind::Join, TokenKind::Ticket];
    let states = [
        JobState::Pending,
        JobState::Pulling,
        JobState::Opening,
        JobState::Creating,
        JobState::Running,
        JobState::Stopping,
        JobState::Sealing,
        JobState::Exited,
        JobState::Failed,
    ];
    let record_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned();
    let release = |mode, holder, node| Event::KeyReleased {
        lease,
        volume,
        key,
        versions: vec![1, 2],
        mode,
        holder,
        node,
        purpose: Some("research".parse().unwrap()),
        policy_epoch: 5,
        expires: later,
        evidence: Evidence::None,
    };
    let mut all = vec![
        Event::LoggedIn { person, factors: vec![Factor::Password, Factor::Totp], token },
        Event::LoggedIn { person, factors: vec![Factor::Password], token },
        Event::LoginRefused { person: Some(person), code: ErrorCode::LoginRefused },
        Event::LoginRefused { person: None, code: ErrorCode::TryLater },
        Event::LoggedOut { token },
    ];
    all.extend(factors.map(|factor| Event::FactorEnrolled { person, factor }));
    all.push(Event::FactorRemoved { person, factor: Factor::Totp });
    all.push(Event::RecoveryCodeUsed { person, left: 9 });
    all.push(Event::StepUpPassed { step_up, request: digest(1), factor: Factor::Totp });
    all.push(Event::StepUpRefused { step_up, code: ErrorCode::StepUpRefused });
    all.extend(kinds.map(|token_kind| Event::TokenIssued { token, token_kind, holder: Some(principal), expires: later }));
    all.push(Event::TokenIssued { token, token_kind: TokenKind::Ticket, holder: None, expires: later });
    all.push(Event::TokenSpent { token, token_kind: TokenKind::Join });
    all.push(Event::TokenRevoked { token, token_kind: TokenKind::Service });
    let certificate = |node| Event::CertificateIssued {
        certificate: digest(2),
        serial: "0a0b0c".into(),
        issuer: "CN=Swarm Node CA".into(),
        subject: "spiffe://swarm/node/1".into(),
        node,
        not_before: NOW,
        not_after: later,
    };
    all.extend([certificate(Some(node)), certificate(None)]);
    all.push(Event::CertificateRevoked { serial: "0a0b0c".into(), issuer: "CN=Swarm Node CA".into(), node: None });
    all.extend(changes.map(|change| Event::TenantChanged { tenant: TENANT, change, name: Some(name()) }));
    all.push(Event::ProjectChanged { project, change: Change::Created, name: Some(name()) });
    all.push(Event::UserChanged { principal, person: Some(person), change: Change::Disabled });
    all.push(Event::ServiceAccountChanged { principal, change: Change::Created, name: None });
    all.push(Event::RoleGranted { principal, role: "tenant-admin".into(), project: None });
    all.push(Event::RoleRevoked { principal, role: "ml-engineer".into(), project: Some(project) });
    all.push(Event::PolicyChanged { epoch: 6, policy: digest(3) });
    let place = NodePlace {
        region: "eu-central".parse().unwrap(),
        jurisdiction: "EU".parse().unwrap(),
        labels: [("disk".to_owned(), "nvme".to_owned())].into(),
    };
    all.push(Event::NodeEnrolled {
        node,
        place,
        record_key: record_key.clone(),
        certificate: digest(2),
        join_token: Some(token),
    });
    all.extend([true, false].map(|drained| Event::NodeDrained { node, drained, until: None }));
    all.push(Event::NodeRevoked { node, reason: "taken out of service".into() });
    all.extend([true, false].map(|lost| Event::NodeLost { node, lost }));
    all.push(Event::KeyCreated {
        key,
        version: 1,
        purpose: "volume".into(),
        owner_kind: "volume".into(),
        owner: volume.to_string(),
    });
    all.push(Event::KeyRotated { key, version: 2, purpose: "tenant-kek".into() });
    all.push(Event::KeyDestroyed { key, purpose: "volume".into(), backups_until: Some(later) });
    all.push(release(LeaseMode::Read, LeaseHolder::Attempt(attempt()), Some(node)));
    all.push(release(LeaseMode::Write, LeaseHolder::Principal(principal), None));
    let ends = [LeaseEnd::Released, LeaseEnd::Expired, LeaseEnd::Revoked];
    all.extend(ends.map(|end| Event::LeaseEnded { lease, volume, end }));
    all.push(Event::VolumeCreated {
        volume,
        lineage,
        project,
        region: "eu-central".parse().unwrap(),
        sensitivity: Sensitivity::Regulated,
        min_trust: 1,
    });
    all.push(Event::VolumeChanged { volume, min_trust: 0 });
    all.push(Event::WriterRegistered {
        lease,
        volume,
        lineage,
        writer_epoch: 3,
        signer: record_key,
        holder: LeaseHolder::Attempt(attempt()),
    });
    all.push(Event::VolumeCommitted {
        volume,
        lineage,
        seq: 4,
        writer_epoch: 3,
        root: digest(5),
        previous: digest(4),
    });
    all.push(Event::VolumeDeleted { volume });
    all.push(Event::ImageImported { image, digest: digest(6), name: name(), source: None });
    all.push(Event::ImageDeleted { image, digest: digest(6) });
    all.push(Event::JobSubmitted {
        job,
        project,
        image: digest(6),
        command: digest(7),
        spec: digest(8),
        purpose: "research".parse().unwrap(),
        sensitivity: Sensitivity::Internal,
    });
    all.push(Event::JobPlaced {
        attempt: attempt(),
        node,
        region: "eu-central".parse().unwrap(),
        jurisdiction: "EU".parse().unwrap(),
        run_lease: lease,
        run_lease_ms: 900_000,
        policy_epoch: 5,
        demands: vocabulary::job::PlaceDemands::default(),
    });
    all.extend(states.map(|state| Event::JobStep { attempt: attempt(), node, state }));
    all.push(Event::JobFinished {
        attempt: attempt(),
        node,
        reason: ExitReason::Completed,
        code: Some(0),
        statement: Some(digest(9)),
    });
    all.push(Event::JobFinished {
        attempt: attempt(),
        node,
        reason: ExitReason::NodeLost,
        code: None,
        statement: None,
    });
    all.push(Event::JobStopped { job });
    all.push(Event::Refused {
        action: "volume.put".into(),
        resource_kind: "volume".into(),
        resource: volume.to_string(),
        code: ErrorCode::Forbidden,
        rules: vec!["platform/step-up".into()],
    });
    all.push(Event::RefusalsCounted { action: "volume.put".into(), minute: NOW, count: 17 });
    all.push(Event::StrangersRefused { code: ErrorCode::Unauthenticated, minute: NOW, count: 400 });
    all.push(Event::Exported { what: "entries".into(), first: Some(0), last: Some(99), digest: digest(10) });
    all.push(Event::LogStarted {
        deployment: DeploymentId::from_bytes([0xd0; 16]),
        profile: Profile::Development,
        origin: super::support::ORIGIN.into(),
        key: super::support::key_of(&super::support::signer()).to_string(),
    });
    all.push(Event::Heartbeat { size: 1000 });
    all.push(Event::ServerStarted { version: "0.1.0".into() });
    all.push(Event::ServerStopped { version: "0.1.0".into() });
    all.push(Event::SealOpened { epoch: 1 });
    all.push(Event::SealInitialised { epoch: 1 });
    all.push(Event::SealRefused { epoch: 1 });
    all.extend([Some(TENANT), None].map(|dedicated| Event::NodeDedicated { node, dedicated }));
    let demands = vocabulary::job::PlaceDemands {
        placement: vocabulary::job::Placement::OwnNode,
        region: "eu-central".parse().ok(),
        ..Default::default()
    };
    all.push(Event::JobPlaced {
        attempt: attempt(),
        node,
        region: "eu-central".parse().unwrap(),
        jurisdiction: "EU".parse().unwrap(),
        run_lease: lease,
        run_lease_ms: 900_000,
        policy_epoch: 5,
        demands,
    });
    let limits = vocabulary::quota::QuotaLimits {
        running_jobs: Some(5),
        ..Default::default()
    };
    all.extend([Some(project), None].map(|project| Event::QuotaChanged {
        tenant: TENANT,
        project,
        limits,
    }));
    all.push(Event::JobEvicted {
        attempt: attempt(),
        node,
    });
    all.push(Event::NodeDrained {
        node,
        drained: true,
        until: Some(NOW),
    });
    all.push(Event::WitnessPolicyChanged { policy: digest(4), witnesses: 3, quorum: "2 of 3 of `nodes` must have signed".into() });
    all.push(Event::NodeWitnessOffered { node, key: "witness.example/w1+8c5bb2c2+BAQE".into() });
    all.push(Event::EntriesCounted { below: 1000, count: 17 });
    all.push(Event::PersonErased { person, keys: vec![key], principals: 2 });
    all.push(Event::PersonalRevealed { entry: EntryId::from_bytes([0x0e; 16]), index: 7, subjects: vec![person.to_string()] });
    let secret = SecretId::from_bytes([0x5e; 16]);
    let uses: std::collections::BTreeSet<_> = [SecretUse::Job, SecretUse::Pull].into();
    all.push(Event::SecretCreated { secret, project, name: name(), uses });
    all.push(Event::SecretKeyReleased { lease, secret, key, version: 1, holder: LeaseHolder::Principal(principal) });
    all.push(Event::SecretSet { secret, version: 1, sealed: digest(7) });
    for (holder, node) in [(LeaseHolder::Attempt(attempt()), Some(node)), (LeaseHolder::Principal(principal), None)] {
        all.push(Event::SecretReleased { lease, secret, version: 1, sealed: digest(7), holder, node, policy_epoch: 4 });
    }
    all.push(Event::SecretDeleted { secret });
    all.push(Event::ImageImported { image, digest: digest(6), name: name(), source: Some("registry.example/tools/python:3".into()) });
    all.push(Event::ImagePolicyChanged { policy: digest(8), required: 1 });
    all.push(Event::ImageSignaturesAdded { image: digest(6), signatures: 2 });
    let base64 = || "AAAA".to_owned();
    all.push(Event::ImageSigned { job, image: digest(6), signer: name(), key: base64(), payload: base64(), signature: base64() });
    all.push(Event::KeysRewrapped { key, from_version: 1, version: 2, count: 200 });
    all.push(Event::KeyVersionEnded { key, version: 1, purpose: "tenant-kek".into(), backups_until: later });
    all.push(Event::KeyDestructionScheduled { key, purpose: "volume".into(), due: later });
    all.push(Event::KeyDestructionCancelled { key, purpose: "volume".into() });
    all.push(Event::RootEpochMade { epoch: 2 });
    all.push(Event::RootEpochEnded { epoch: 1, backups_until: later });
    all.push(Event::BackupRetentionSet { days: 30 });
    all.push(Event::SealSharesDrawn { generation: 2, threshold: 3, shares: 5 });
    all.push(Event::SealChanged { generation: 2, threshold: 3, shares: 5 });
    all.push(Event::NodeLogAnchored { node, size: 300, root: "AAAA".into() });
    all
}

/// Every event as an entry; actors, sources and outcomes take turns, so that each is met with many classes.
pub(super) fn entries() -> Vec<Entry> {
    let node = NodeId::from_bytes([0x0d; 16]);
    let who = [
        (Actor::User(PrincipalId::from_bytes([0xaa; 16]), PersonId::from_bytes([0xbb; 16])), Source::Peer("ab".repeat(16))),
        (Actor::Service(PrincipalId::from_bytes([0xac; 16])), Source::Peer("cd".repeat(16))),
        (Actor::Node(node), Source::Node(node)),
        (Actor::System, Source::Internal),
        (Actor::Stranger, Source::Peer("ef".repeat(16))),
    ];
    let mut entries: Vec<Entry> = (0..).zip(events()).map(|(number, event)| entry(number, event)).collect();
    for (entry, (actor, source)) in entries.iter_mut().zip(who.iter().cycle()) {
        entry.actor = *actor;
        entry.source = source.clone();
        if let Event::LoginRefused { code, .. }
        | Event::StepUpRefused { code, .. }
        | Event::Refused { code, .. }
        | Event::StrangersRefused { code, .. } = &entry.event
        {
            entry.outcome = Outcome::Refused(*code);
        }
        if let Event::SealRefused { .. } = entry.event {
            entry.outcome = Outcome::Failed;
        }
        if let Event::LoggedIn { .. } = entry.event {
            entry.action = Some("login".into());
        }
        if let Event::SealOpened { .. } = entry.event {
            entry.tenant = SYSTEM_OWNER;
        }
    }
    // A whole set of personal values: all that may be sealed.
    for (path, value) in [("src_endpoint.ip", "203.0.113.7"), ("user.name", "alice"), ("user.email_addr", "a@example.org")] {
        entries[0].personal.push(personal(path, value, 3));
    }
    entries
}

#[test]
fn the_list_of_kinds_is_whole() {
    let samples: std::collections::BTreeSet<&str> = entries().iter().map(|entry| entry.event.kind()).collect();
    let listed: std::collections::BTreeSet<&str> = crate::event::KINDS.into_iter().collect();
    assert_eq!(samples, listed);
}
