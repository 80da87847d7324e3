//! Receipts that lie, signed again by whoever holds the keys: the log, the certificates and the other signer tell.

use audit::Event;
use audit::entry::Outcome;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vocabulary::{DeploymentId, ErrorCode, NodeId, Profile, Sha256Digest, TenantId};

use super::world::{DAY, Facts, NODE, NOW, World, failed, key, log_key, made, wire, world, world_of};
use crate::record::Receipt;

struct Lie {
    what: &'static str,
    tell: fn(&mut World, &mut Facts),
    /// The claim that fails.
    claim: &'static str,
}

const END: &str = "the end of the attempt is logged with this statement";
const SIGNED: &str = "the node signed its statement";
const SAME: &str = "statement and record are about the same attempt";
const CERTIFICATE: &str = "the node's certificate was valid when the attempt was placed";
const RECEIPT_KEY: &str = "the receipt key is certified under the root";
const PLACED: &str = "the attempt was placed on this node, enrolled for this region";
const INPUT: &str = "input `data` was read at a registered root under a logged release";
const OUTPUT: &str = "output `model` was committed under a registered signer and a logged release";
const CONTROL: &str = "the control plane signed the whole";
const LOG: &str = "the log signed the checkpoint";

fn hide(facts: &mut Facts, kind: &str) {
    facts.find(kind).1 = false;
}

/// Hides the last shown entry of a kind.
fn hide_last(facts: &mut Facts, kind: &str) {
    facts.entries.iter_mut().rfind(|(entry, shown)| *shown && entry.event.kind() == kind).unwrap().1 = false;
}

fn change_record(bytes: &mut [u8]) {
    bytes[70] ^= 1;
}

fn doctor(text: &mut Option<String>) {
    let mut bytes = STANDARD.decode(text.as_ref().unwrap()).unwrap();
    change_record(&mut bytes);
    *text = Some(STANDARD.encode(bytes));
}

fn lie(what: &'static str, claim: &'static str, tell: fn(&mut World, &mut Facts)) -> Lie {
    Lie { what, tell, claim }
}

fn lies() -> Vec<Lie> {
    vec![
        // --- entries ---
        lie("no entry of the end", END, |_, f| hide(f, "job_finished")),
        lie("no enrolment", SIGNED, |_, f| hide(f, "node_enrolled")),
        lie("no placement", CERTIFICATE, |_, f| hide(f, "job_placed")),
        lie("no submission", "the job's submission is logged", |_, f| hide(f, "job_submitted")),
        lie("no release of the input", INPUT, |_, f| hide(f, "key_released")),
        lie("no release of the output", OUTPUT, |_, f| hide_last(f, "key_released")),
        lie("no signer of the input", INPUT, |_, f| hide(f, "writer_registered")),
        lie("no signer of the output", OUTPUT, |_, f| hide_last(f, "writer_registered")),
        lie("no commit of the input", INPUT, |_, f| hide(f, "volume_committed")),
        lie("no commit of the output", OUTPUT, |_, f| hide_last(f, "volume_committed")),
        lie("the entry records a refusal", "entry 12 is in the log", |_, f| {
            f.find("job_finished").0.outcome = Outcome::Refused(ErrorCode::Forbidden);
        }),
        lie("an entry of another tenant", "entry 6 is in the log", |_, f| {
            f.find("job_submitted").0.tenant = TenantId::from_bytes([0x66; 16]);
        }),
        lie("entries out of order", "entry 1 is in the log", |_, f| f.record = |r| r.log.entries.swap(0, 1)),
        lie("an entry twice", "entry 1 is in the log", |_, f| {
            f.record = |r| {
                let again = r.log.entries[0].clone();
                r.log.entries.insert(1, again);
            };
        }),
        lie("proofs swapped", "entry 1 is in the log", |_, f| {
            f.record = |r| {
                let proof = r.log.entries[1].proof.clone();
                r.log.entries[1].proof = std::mem::replace(&mut r.log.entries[0].proof, proof);
            };
        }),
        lie("salts swapped", "entry 1 is in the log", |_, f| {
            f.record = |r| {
                let salt = r.log.entries[1].salt.clone();
                r.log.entries[1].salt = std::mem::replace(&mut r.log.entries[0].salt, salt);
            };
        }),
        lie("bodies swapped", "entry 1 is in the log", |_, f| {
            f.record = |r| {
                let body = r.log.entries[1].body.clone();
                r.log.entries[1].body = std::mem::replace(&mut r.log.entries[0].body, body);
            };
        }),
        lie("another index", "entry 0 is in the log", |_, f| f.record = |r| r.log.entries[0].index = 0),
        lie("an index outside", "entry 99 is in the log", |_, f| f.record = |r| r.log.entries[10].index = 99),
        lie("a body with a space", "entry 1 is in the log", |_, f| {
            f.record = |r| {
                let mut body = STANDARD.decode(&r.log.entries[0].body).unwrap();
                body.insert(1, b' ');
                r.log.entries[0].body = STANDARD.encode(body);
            };
        }),
        lie("base64 with white space", "entry 1 is in the log", |_, f| {
            f.record = |r| r.log.entries[0].salt.insert(4, '\n');
        }),
        lie("base64 without padding", "entry 1 is in the log", |_, f| {
            f.record = |r| r.log.entries[0].salt = r.log.entries[0].salt.trim_end_matches('=').to_owned();
        }),
        lie("too many entries", "entries are in the log", |_, f| {
            f.record = |r| r.log.entries = vec![r.log.entries[0].clone(); 513];
        }),
        // --- checkpoint ---
        lie("a checkpoint by another key", LOG, |_, f| f.log_key = key(9)),
        lie("another log's checkpoint", LOG, |_, f| f.log_name = "swarm.example/other".into()),
        lie("a checkpoint with a stranger's line", LOG, |_, f| f.witnesses = vec![("stranger.example", 33)]),
        lie("no checkpoint", LOG, |_, f| f.record = |r| r.log.checkpoint.clear()),
        lie("a checkpoint that is no note", LOG, |_, f| f.record = |r| r.log.checkpoint = STANDARD.encode("hello")),
        // --- the node's statement ---
        lie("a statement by another record key", SIGNED, |_, f| f.record_key = key(9)),
        lie("the end binds another statement", END, |_, f| f.bound = Some(Sha256Digest::from_bytes([9; 32]))),
        lie("another node", SAME, |_, f| f.statement.node = NodeId::from_bytes([1; 16])),
        lie("another tenant", SAME, |_, f| f.statement.tenant = TenantId::from_bytes([1; 16])),
        lie("another deployment", SAME, |_, f| f.statement.deployment = DeploymentId::from_bytes([1; 16])),
        lie("another attempt", SAME, |_, f| f.statement.attempt.attempt = 2),
        lie("another code", "the logged end is the stated one", |_, f| f.statement.exit.code = Some(1)),
        lie("another reason", "the logged end is the stated one", |_, f| {
            f.statement.exit.reason = vocabulary::job::ExitReason::Failed;
        }),
        lie("another image", "the image that ran is the one that was submitted", |_, f| {
            f.statement.image = Sha256Digest::from_bytes([9; 32]);
        }),
        lie("another project", "the image that ran is the one that was submitted", |_, f| {
            f.statement.project = vocabulary::ProjectId::from_bytes([1; 16]);
        }),
        lie("another command", "the command that ran is the one that was submitted", |_, f| {
            f.statement.command.push("--leak".into());
        }),
        lie("another region", PLACED, |_, f| f.statement.region = "us-east".parse().unwrap()),
        lie("another jurisdiction", PLACED, |_, f| f.statement.jurisdiction = "US".parse().unwrap()),
        lie("another run lease", PLACED, |_, f| f.statement.run_lease = vocabulary::LeaseId::from_bytes([1; 16])),
        lie("a node enrolled for another region", PLACED, |_, f| {
            if let Event::NodeEnrolled { place, .. } = f.event("node_enrolled") {
                place.region = "us-east".parse().unwrap();
            }
        }),
        // --- volumes ---
        lie("another input volume", INPUT, |_, f| f.statement.inputs[0].volume = super::world::OUTPUT),
        lie("another lease of the input", INPUT, |_, f| f.statement.inputs[0].lease = f.statement.outputs[0].lease),
        lie("a doctored root record of the input", INPUT, |_, f| doctor(&mut f.statement.inputs[0].record)),
        lie("a doctored root record of the output", OUTPUT, |_, f| doctor(&mut f.statement.outputs[0].record)),
        lie("the root record of the input for the output", OUTPUT, |_, f| {
            f.statement.outputs[0].record = f.statement.inputs[0].record.clone();
        }),
        lie("another root", OUTPUT, |_, f| f.statement.outputs[0].head.root = Sha256Digest::from_bytes([9; 32])),
        lie("another sequence", OUTPUT, |_, f| f.statement.outputs[0].head.seq = 2),
        lie("another lineage", OUTPUT, |_, f| f.statement.outputs[0].head.lineage = f.statement.inputs[0].head.lineage),
        lie("an output that is not in the log", OUTPUT, |_, f| {
            let mut invented = f.statement.outputs[0].clone();
            invented.volume = vocabulary::VolumeId::from_bytes([0x77; 16]);
            f.statement.outputs[0] = invented;
        }),
        lie("another signer is registered", OUTPUT, |_, f| {
            for (entry, _) in &mut f.entries {
                if let Event::WriterRegistered { signer, .. } = &mut entry.event {
                    *signer = STANDARD.encode(crate::Signer::public(&key(9)));
                }
            }
            f.statement.inputs.clear();
        }),
        lie("a release to somebody else", INPUT, |_, f| {
            if let Event::KeyReleased { holder, .. } = f.event("key_released") {
                *holder = vocabulary::lease::LeaseHolder::Principal(vocabulary::PrincipalId::from_bytes([1; 16]));
            }
        }),
        lie("a release to another node", INPUT, |_, f| {
            if let Event::KeyReleased { node, .. } = f.event("key_released") {
                *node = Some(NodeId::from_bytes([1; 16]));
            }
        }),
        lie("a release for writing only", INPUT, |_, f| {
            if let Event::KeyReleased { mode, .. } = f.event("key_released") {
                *mode = vocabulary::lease::LeaseMode::Write;
            }
        }),
        lie("an input that was committed after its release", INPUT, |_, f| {
            let release = f.entries.iter().position(|(e, shown)| *shown && e.event.kind() == "key_released").unwrap();
            let commit = f.entries.iter().position(|(e, _)| e.event.kind() == "volume_committed").unwrap();
            f.entries.swap(release, commit);
        }),
        lie("another root before it", OUTPUT, |_, f| {
            for (entry, _) in &mut f.entries {
                if let Event::VolumeCommitted { previous, .. } = &mut entry.event {
                    *previous = Sha256Digest::from_bytes([9; 32]);
                }
            }
            f.statement.inputs.clear();
        }),
        // --- order ---
        lie("placed before it was submitted", PLACED, |_, f| {
            let at = |f: &Facts, kind: &str| f.entries.iter().position(|(e, _)| e.event.kind() == kind).unwrap();
            let (submitted, placed) = (at(f, "job_submitted"), at(f, "job_placed"));
            f.entries.swap(submitted, placed);
        }),
        lie("enrolled after the end", SIGNED, |_, f| {
            let enrolled = f.entries.iter().position(|(e, _)| e.event.kind() == "node_enrolled").unwrap();
            let entry = f.entries.remove(enrolled);
            f.entries.push(entry);
        }),
        // --- certificates ---
        lie("a node certificate that had ended", CERTIFICATE, |w, f| {
            let chain = w.node_chain(NODE, vocabulary::UnixTime::from_millis(NOW.millis() - DAY));
            set_chain(f, &chain);
        }),
        lie("a node certificate of the future", CERTIFICATE, |w, f| {
            let chain = w.node_chain(NODE, NOW.plus_millis(DAY));
            set_chain(f, &chain);
        }),
        lie("another node's certificate", CERTIFICATE, |w, f| {
            let chain = w.node_chain(NodeId::from_bytes([1; 16]), NOW);
            set_chain(f, &chain);
        }),
        lie("a certificate whose issue is not logged", CERTIFICATE, |w, f| {
            f.node_chain = wire(&w.node_chain(NODE, NOW));
        }),
        lie("a node certificate of a foreign deployment", CERTIFICATE, |_, f| {
            let chain = world_of(DeploymentId::from_bytes([0xd1; 16]), 8).node_chain(NODE, NOW);
            set_chain(f, &chain);
        }),
        lie("a node certificate under another root of the same name", CERTIFICATE, |_, f| {
            let chain = world_of(DeploymentId::from_bytes([0xd0; 16]), 9).node_chain(NODE, NOW);
            set_chain(f, &chain);
        }),
        lie("a chain without its issuer", CERTIFICATE, |_, f| drop(f.node_chain.pop())),
        lie("a chain in the wrong order", CERTIFICATE, |_, f| f.node_chain.reverse()),
        lie("no node certificate", CERTIFICATE, |_, f| f.node_chain.clear()),
        lie("a chain without end", CERTIFICATE, |_, f| f.node_chain = vec![f.node_chain[0].clone(); 5]),
        lie("a node that was revoked before", CERTIFICATE, |_, f| {
            insert_before_placement(f, Event::NodeRevoked { node: NODE, reason: "stolen".into() });
        }),
        lie("a certificate that was revoked before", CERTIFICATE, |_, f| {
            let der = STANDARD.decode(&f.node_chain[0]).unwrap();
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
            let serial = hex::encode(certificate.raw_serial());
            insert_before_placement(f, Event::CertificateRevoked { serial, issuer: "CN=x".into(), node: Some(NODE) });
        }),
        lie("a receipt key's certificate that had ended", RECEIPT_KEY, |w, f| {
            // A log whose entries are twenty years younger than the certificate.
            let _unused = w;
            for (entry, _) in &mut f.entries {
                entry.time = entry.time.plus_millis(20 * 365 * DAY);
            }
            f.issued = f.issued.plus_millis(1);
        }),
        lie("a certificate of another receipt key", RECEIPT_KEY, |w, f| {
            f.control_chain = wire(&w.receipt_chain(crate::Signer::public(&key(9)), NOW));
        }),
        lie("a node's certificate for the receipt key", RECEIPT_KEY, |_, f| f.control_chain = f.node_chain.clone()),
        lie("a receipt certificate of a foreign deployment", RECEIPT_KEY, |_, f| {
            let mut other = world_of(DeploymentId::from_bytes([0xd1; 16]), 8);
            f.control_chain = wire(&other.receipt_chain(crate::Signer::public(&key(2)), NOW));
        }),
        lie("no receipt certificate", RECEIPT_KEY, |_, f| f.control_chain.clear()),
        // --- the record ---
        lie("signed by a key that is no receipt key", CONTROL, |_, f| f.receipt_key = key(9)),
        lie("of another deployment", "deployment and profile are those of the deployment's file", |_, f| {
            f.deployment = DeploymentId::from_bytes([0xd1; 16]);
        }),
        lie("of another profile", "deployment and profile are those of the deployment's file", |_, f| {
            f.profile = Profile::Production;
        }),
        lie("from the future", "the receipt is not from the future", |_, f| f.issued = NOW.plus_millis(2 * DAY)),
        lie("too many labels", "labels are permitted by the profile", |_, f| {
            f.labels = (0..33).map(|n| format!("label-{n}")).collect();
        }),
        lie("another policy epoch", "the attempt was placed under this policy epoch", |_, f| f.policy.epoch = 6),
        lie("another policy set", "the policy set of that epoch is this one", |_, f| {
            f.policy.digest = Sha256Digest::from_bytes([9; 32]);
        }),
        lie("of another attempt", END, |_, f| f.attempt.attempt = 2),
        lie("of another tenant", "entry 1 is in the log", |_, f| f.tenant = TenantId::from_bytes([1; 16])),
    ]
}

/// Uses a chain and logs its issue as if all were well.
fn set_chain(facts: &mut Facts, chain: &[rustls_pki_types::CertificateDer<'_>]) {
    facts.node_chain = wire(chain);
    let digest = crate::envelope::sha256(&chain[0]);
    if let Event::NodeEnrolled { certificate, .. } = facts.event("node_enrolled") {
        *certificate = digest;
    }
}

fn insert_before_placement(facts: &mut Facts, event: Event) {
    let placed = facts.entries.iter().position(|(entry, _)| entry.event.kind() == "job_placed").unwrap();
    let mut entry = facts.entries[placed].0.clone();
    entry.id = vocabulary::EntryId::from_bytes([0x77; 16]);
    entry.event = event;
    facts.entries.insert(placed, (entry, true));
}

#[test]
fn every_lie_fails_at_its_line() {
    for Lie { what, tell, claim } in lies() {
        let mut world = world();
        let (mut facts, chain) = world.facts();
        let file = world.file(Profile::Development, &log_key(&facts), &chain);
        let pin = world.pin();
        let good = crate::verify(&facts.receipt(), &file, Some(&pin), Some(NOW.plus_millis(DAY)));
        assert!(good.ok, "before `{what}`: {:?}", failed(&good));
        tell(&mut world, &mut facts);
        let report = crate::verify(&facts.receipt(), &file, Some(&pin), Some(NOW.plus_millis(DAY)));
        assert_eq!(failed(&report), [claim], "{what}");
        assert!(!report.ok, "{what}");
    }
}

/// What happened after the placement does not unmake the job: it is logged, and the receipt stands.
#[test]
fn a_revocation_after_the_placement_leaves_the_receipt_standing() {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    insert_before_placement(&mut facts, Event::NodeRevoked { node: NODE, reason: "out of service".into() });
    let placed = facts.entries.iter().position(|(entry, _)| entry.event.kind() == "job_placed").unwrap();
    facts.entries.swap(placed - 1, placed);
    let report = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
    assert!(report.ok, "{:?}", failed(&report));
}

/// Weak choices are labelled in development and refused in production.
#[test]
fn weak_labels_are_refused_in_production() {
    let witnesses = [("witness.example/a", 21)];
    for (label, ok) in [("simulated", false), ("simulated:tee", false), ("waived:second-person", false), ("quorum-none", false), ("own-node", true)] {
        let mut world = world();
        let (mut facts, chain) = world.facts();
        facts.profile = Profile::Production;
        facts.labels = [label.to_owned()].into();
        facts.witnesses = witnesses.to_vec();
        let file = world.witnessed(Profile::Production, &log_key(&facts), &chain, &witnesses, 1);
        let report = crate::verify(&facts.receipt(), &file, Some(&world.pin()), None);
        assert_eq!(report.ok, ok, "{label}: {:?}", failed(&report));
        if !ok {
            assert_eq!(failed(&report), ["labels are permitted by the profile"], "{label}");
        }
    }
}

#[test]
fn another_deployments_file_and_a_wrong_pin() {
    let made = made();
    let mut other = world_of(DeploymentId::from_bytes([0xd1; 16]), 8);
    let (facts, chain) = other.facts();
    let file = other.file(Profile::Development, &log_key(&facts), &chain);
    let opened = "the deployment's file is signed by its root";
    // Their file under our pin.
    let report = crate::verify(&made.receipt, &file, Some(&made.pin), None);
    assert_eq!(failed(&report), [opened]);
    // Our file under their pin.
    let report = crate::verify(&made.receipt, &made.file, Some(&other.pin()), None);
    assert_eq!(failed(&report), [opened]);
    // Their file under their pin: everything is well signed, by others.
    let report = crate::verify(&made.receipt, &file, Some(&other.pin()), None);
    assert_eq!(failed(&report), ["deployment and profile are those of the deployment's file"]);
    // A new root of the same deployment, with its own file and no pin: the keys are not those that signed.
    let mut twin = world_of(DeploymentId::from_bytes([0xd0; 16]), 99);
    let (mut facts, _) = twin.facts();
    facts.receipt_key = key(50);
    let chain = twin.receipt_chain(crate::Signer::public(&facts.receipt_key), NOW);
    let file = twin.file(Profile::Development, &log_key(&facts), &chain);
    assert_eq!(failed(&crate::verify(&made.receipt, &file, None, None)), [CONTROL]);
    for file in [&b""[..], b"{}", b"{}\n", b"\xff\n", &made.file[..made.file.len() - 1]] {
        assert_eq!(failed(&crate::verify(&made.receipt, file, Some(&made.pin), None)), [opened]);
    }
}

/// The parts of two good receipts of one deployment do not mix.
#[test]
fn parts_of_two_receipts_do_not_mix() {
    let mut world = world();
    let (facts, chain) = world.facts();
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    let one = facts.assemble();
    let (mut facts, _) = world.facts();
    facts.statement.exit.cpu_ms = Some(7);
    let two = facts.assemble();
    let verify = |receipt: &Receipt| {
        let report = crate::verify(&receipt.encode().unwrap(), &file, Some(&world.pin()), None);
        failed(&report).concat()
    };
    assert_eq!(verify(&Receipt { node: two.node.clone(), ..one.clone() }), "the record binds the node's statement");
    assert_eq!(verify(&Receipt { control: two.control.clone(), ..one.clone() }), "the record binds the node's statement");
    assert_eq!(verify(&Receipt { node: one.control.clone(), ..one.clone() }), "the record binds the node's statement");
    assert_eq!(verify(&Receipt { control: one.node.clone(), ..one.clone() }), CONTROL);
    let mut twice = one.clone();
    twice.control.signatures.push(two.control.signatures[0].clone());
    assert_eq!(verify(&twice), CONTROL);
    twice.control.signatures.clear();
    assert_eq!(verify(&twice), CONTROL);
    let mut typed = one.clone();
    typed.control.payload_type = "application/json".into();
    assert_eq!(verify(&typed), CONTROL);
    let mut padded = one;
    padded.node.signatures[0].sig.push('\n');
    assert_eq!(verify(&padded), "the record binds the node's statement");
}
