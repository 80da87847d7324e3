//! The facts themselves: each is compared between the node's statement, the record and the log.
#![expect(clippy::wildcard_enum_match_arm, reason = "each search takes one kind of entry; all others, future ones too, prove nothing here")]

use audit::event::{Event, Evidence};
use vocabulary::job::{PlaceDemands, Placement};
use vocabulary::lease::{LeaseHolder, LeaseMode};
use vocabulary::{NodeId, Sha256Digest, UnixTime};

use super::chain;
use super::logged::Logged;
use crate::cosign::{COSIGN_PAYLOAD_MAX, ImageKey, Payload};
use crate::deployment::CheckedDeployment;
use crate::envelope::{IN_TOTO, InToto, PublicKey, base64, base64_32};
use crate::limits::ROOT_RECORD_MAX;
use crate::record::{Receipt, Record};
use crate::report::{Lines, Tool, Verdict, sentence};
use crate::statement::{Statement, VolumeUse, command_digest};

/// The logged end of the attempt.
pub(super) struct Finished {
    pub(super) index: u64,
    pub(super) time: UnixTime,
    pub(super) node: NodeId,
    reason: vocabulary::job::ExitReason,
    code: Option<i32>,
}

/// The end of the attempt is logged, and binds the node's statement.
pub(super) fn finished(lines: &mut Lines, log: &Logged, record: &Record) -> Option<Finished> {
    let found = log.find(|event| match event {
        Event::JobFinished { attempt, node, reason, code, statement } if *attempt == record.attempt => {
            Some((*node, *reason, *code, *statement))
        }
        _ => None,
    });
    let outcome = match found {
        None => Err("no entry of its end is in the receipt".to_owned()),
        Some((_, _, (.., statement))) if statement != Some(record.statement) => {
            Err("the entry of its end binds another statement".to_owned())
        }
        Some((index, time, (node, reason, code, _))) => {
            Ok((Finished { index, time, node, reason, code }, format!("entry {index} at {time}")))
        }
    };
    lines.check("the end of the attempt is logged with this statement", Tool::Script, outcome)
}

/// The node's signature, with the record key that its enrolment bound.
pub(super) fn statement(
    lines: &mut Lines,
    log: &Logged,
    receipt: &Receipt,
    record: &Record,
    finished: &Finished,
) -> Option<Statement> {
    let enrolled = log.find(|event| match event {
        Event::NodeEnrolled { node, record_key, .. } if *node == finished.node => Some(record_key.clone()),
        _ => None,
    });
    let outcome = match enrolled {
        None => Err(format!("the enrolment of node {} is not in the receipt", finished.node)),
        Some((index, ..)) if index >= finished.index => Err("the node enrolled after the end of the job".to_owned()),
        Some((index, _, key)) => base64_32(&key, "record_key")
            .and_then(|key| receipt.node.verify::<InToto<Statement>>(IN_TOTO, &PublicKey::Ed25519(&key)))
            .map_err(|e| sentence(&e))
            .and_then(|said| {
                let statement = said.predicate.clone();
                if said == statement.in_toto() { Ok(statement) } else { Err("the statement's frame contradicts it".to_owned()) }
            })
            .map(|statement| (statement, format!("record key of node {}, bound by entry {index}", finished.node))),
    };
    let statement = lines.check("the node signed its statement", Tool::Independent, outcome)?;
    let same = statement.node == finished.node
        && statement.attempt == record.attempt
        && statement.tenant == record.tenant
        && statement.deployment == record.deployment;
    let outcome = if same { Ok(((), format!("attempt {}", record.attempt))) } else { Err("node, attempt, tenant or deployment differ".to_owned()) };
    lines.check("statement and record are about the same attempt", Tool::Script, outcome)?;
    let (reason, code) = (statement.exit.reason, statement.exit.code);
    let detail = format!("{reason:?}, code {}", code.map_or_else(|| "none".to_owned(), |code| code.to_string()));
    let outcome = if (reason, code) == (finished.reason, finished.code) { Ok(((), detail)) } else { Err("the log says another end".to_owned()) };
    lines.check("the logged end is the stated one", Tool::Script, outcome)?;
    Some(statement)
}

/// The node's certificate: logged, under the root, valid and not revoked when the attempt was placed.
pub(super) fn node_certificate(
    lines: &mut Lines,
    log: &Logged,
    record: &Record,
    deployment: &CheckedDeployment,
    statement: &Statement,
) -> Option<()> {
    let who = statement.node;
    let placed = log.find(|event| match event {
        Event::JobPlaced { attempt, node, .. } if *attempt == record.attempt && *node == who => Some(()),
        _ => None,
    });
    let outcome = placed
        .ok_or_else(|| "no entry of the placement is in the receipt".to_owned())
        .and_then(|(index, at, ())| Ok((chain(&record.node_certificates)?, index, at)))
        .and_then(|(chain, index, at)| {
            let leaf = crate::x509::verify_chain(&chain, &deployment.root, at).map_err(|e| sentence(&e))?;
            Ok((leaf, index, at))
        })
        .and_then(|(leaf, index, at)| {
            // The whole name counts: deployment, class and node, as this deployment's authorities write it.
            if leaf.uris != [format!("spiffe://{}/node/{who}", record.deployment)] {
                return Err("the certificate names another node or deployment".to_owned());
            }
            let logged = log.any(|event| match event {
                Event::NodeEnrolled { node, certificate, .. } => *node == who && *certificate == leaf.digest,
                Event::CertificateIssued { node, certificate, .. } => *node == Some(who) && *certificate == leaf.digest,
                _ => false,
            });
            if !logged {
                return Err("the certificate's issue is not logged".to_owned());
            }
            let revoked = log.find(|event| match event {
                Event::NodeRevoked { node, .. } => (*node == who).then_some(()),
                Event::CertificateRevoked { serial, .. } => (*serial == leaf.serial).then_some(()),
                _ => None,
            });
            match revoked {
                Some((revocation, ..)) if revocation < index => Err(format!("it was revoked before, by entry {revocation}")),
                Some(_) | None => Ok(((), format!("{}, serial {}, valid at {at}", leaf.uris.concat(), leaf.serial))),
            }
        });
    lines.check("the node's certificate was valid when the attempt was placed", Tool::Independent, outcome)?;
    let detail = "a receipt carries the entries that speak for it: that none of a revocation was left out shows only in the whole log";
    lines.add("nothing had revoked the node before", Verdict::NotChecked, Tool::OursOnly, detail);
    Some(())
}

/// Submission, placement, region, command.
pub(super) fn job(
    lines: &mut Lines,
    log: &Logged,
    record: &Record,
    statement: &Statement,
    finished: &Finished,
) -> Option<()> {
    let submitted = log.find(|event| match event {
        Event::JobSubmitted { job, image, command, project, .. } if *job == record.attempt.job => {
            Some((*image, *command, *project))
        }
        _ => None,
    });
    let (submission, _, (image, command, project)) = lines.check(
        "the job's submission is logged",
        Tool::Script,
        submitted.ok_or_else(|| "no entry of it is in the receipt".to_owned()).map(|found| (found, format!("entry {}", found.0))),
    )?;
    let outcome = if image == statement.image && project == statement.project {
        Ok(((), image.to_string()))
    } else {
        Err(format!("{image} was submitted"))
    };
    lines.check("the image that ran is the one that was submitted", Tool::Script, outcome)?;
    ran(lines, command, statement)?;
    let placed = log.find(|event| match event {
        Event::JobPlaced { attempt, node, region, jurisdiction, run_lease, demands, .. } if *attempt == record.attempt => {
            Some(((*node, region.clone(), jurisdiction.clone(), *run_lease), demands.clone()))
        }
        _ => None,
    });
    let (node, region, jurisdiction) = (statement.node, &statement.region, &statement.jurisdiction);
    let enrolled = log.any(|event| match event {
        Event::NodeEnrolled { node: who, place, .. } => {
            *who == node && place.region == *region && place.jurisdiction == *jurisdiction
        }
        _ => false,
    });
    let outcome = match &placed {
        Some((index, ..)) if *index < submission || finished.index < *index => {
            Err("submission, placement and end are logged in an impossible order".to_owned())
        }
        Some((_, _, (found, _))) if *found == (node, region.clone(), jurisdiction.clone(), statement.run_lease) && enrolled => {
            Ok(((), format!("region {region}, jurisdiction {jurisdiction}, run lease {}", statement.run_lease)))
        }
        Some(_) | None => Err("node, region, jurisdiction or run lease differ from the log".to_owned()),
    };
    lines.check("the attempt was placed on this node, enrolled for this region", Tool::Script, outcome)?;
    if let Some((index, _, (_, demands))) = &placed {
        demanded(lines, log, record, statement, *index, demands)?;
    }
    let detail = format!("claimed (grade G0): nobody measured where node {node} stands");
    lines.add(&format!("the machine stands in {region}"), Verdict::NotChecked, Tool::OursOnly, detail);
    Some(())
}

/// What the job demanded of its place, against what the node was enrolled with and set apart for.
fn demanded(
    lines: &mut Lines,
    log: &Logged,
    record: &Record,
    statement: &Statement,
    placed: u64,
    demands: &PlaceDemands,
) -> Option<()> {
    if demands.is_none() {
        return Some(());
    }
    let mut said = Vec::new();
    said.extend(
        demands
            .region
            .iter()
            .map(|region| format!("region {region}")),
    );
    if !demands.jurisdictions.is_empty() {
        let all: Vec<&str> = demands
            .jurisdictions
            .iter()
            .map(vocabulary::Jurisdiction::as_str)
            .collect();
        said.push(format!("jurisdiction {}", all.join(" or ")));
    }
    said.extend(
        demands
            .node_labels
            .iter()
            .map(|(key, value)| format!("label {key}={value}")),
    );
    if demands.placement == Placement::OwnNode {
        said.push("a node of the tenant's own".to_owned());
    }
    let said = said
        .join(", ")
        .chars()
        .filter(|c| !c.is_control())
        .take(400)
        .collect::<String>();
    let labels = log.any(|event| match event {
        Event::NodeEnrolled { node, place, .. } if *node == statement.node => demands
            .node_labels
            .iter()
            .all(|(key, value)| place.labels.get(key) == Some(value)),
        _ => false,
    });
    let region = demands
        .region
        .as_ref()
        .is_none_or(|region| *region == statement.region);
    let jurisdiction =
        demands.jurisdictions.is_empty() || demands.jurisdictions.contains(&statement.jurisdiction);
    let outcome = if labels && region && jurisdiction {
        Ok(((), said))
    } else {
        Err(format!(
            "it demanded {said}, and the node was enrolled for something else"
        ))
    };
    lines.check("the place is what the job demanded", Tool::Script, outcome)?;
    if demands.placement == Placement::OwnNode {
        let apart = log.find(|event| match event {
            Event::NodeDedicated { node, dedicated }
                if *node == statement.node && *dedicated == Some(record.tenant) =>
            {
                Some(())
            }
            _ => None,
        });
        let outcome = match apart {
            Some((index, ..)) if index < placed => Ok(((), format!("entry {index}; that nothing took it back before the placement shows only in the whole log"))),
            Some(_) => Err("it was set apart after the placement".to_owned()),
            None => Err("no entry of it is in the receipt".to_owned()),
        };
        lines.check(
            "an operator had set the node apart for the tenant",
            Tool::Script,
            outcome,
        )?;
        let detail = "the control plane's word: it places nobody else's job beside one that demands its own node";
        lines.add(
            "no job of another tenant ran beside it",
            Verdict::NotChecked,
            Tool::OursOnly,
            detail,
        );
    }
    Some(())
}

fn ran(lines: &mut Lines, submitted: Sha256Digest, statement: &Statement) -> Option<()> {
    let shown = statement.command.join(" ").chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let ran = command_digest(&statement.command).map_err(|e| sentence(&e));
    let images_own = command_digest(&[]).map_err(|e| sentence(&e));
    if images_own == Ok(submitted) {
        let detail = format!("the image's own command was asked for; the node says that it ran `{shown}`");
        lines.add("the command that ran is the one that was submitted", Verdict::NotChecked, Tool::OursOnly, detail);
        return Some(());
    }
    let outcome = match ran {
        Ok(digest) if digest == submitted => Ok(((), format!("`{shown}`"))),
        Ok(_) => Err(format!("another command than `{shown}` was submitted")),
        Err(why) => Err(why),
    };
    lines.check("the command that ran is the one that was submitted", Tool::Script, outcome)
}

/// Every volume in and out.
pub(super) fn volumes(lines: &mut Lines, log: &Logged, record: &Record, statement: &Statement) -> Option<()> {
    for input in &statement.inputs {
        let claim = format!("input `{}` was read at a registered root under a logged release", input.name);
        let outcome = volume(log, record, statement, input, LeaseMode::Read).map(|detail| ((), detail));
        lines.check(&claim, Tool::Independent, outcome)?;
    }
    for output in &statement.outputs {
        let claim = format!("output `{}` was committed under a registered signer and a logged release", output.name);
        let outcome = volume(log, record, statement, output, LeaseMode::Write).map(|detail| ((), detail));
        lines.check(&claim, Tool::Independent, outcome)?;
    }
    Some(())
}

/// Who signed the image: each signature that was counted at submission is checked again, from the entry alone.
pub(super) fn image_signatures(lines: &mut Lines, log: &Logged, record: &Record, statement: &Statement) -> Option<()> {
    for (index, event) in log.events() {
        let Event::ImageSigned { job, image, signer, key, payload, signature } = event else { continue };
        if *job != record.attempt.job {
            continue;
        }
        let checked = base64(key, "key", 256)
            .and_then(|key| Ok((key, base64(payload, "payload", COSIGN_PAYLOAD_MAX)?, base64(signature, "signature", 128)?)))
            .map_err(|e| sentence(&e))
            .and_then(|(key, payload, signature)| {
                let key = ImageKey::from_der(key).map_err(|e| sentence(&e))?;
                if !key.verifies(&payload, &signature) {
                    return Err("the signature does not verify".to_owned());
                }
                let said = Payload::parse(&payload).map_err(|e| sentence(&e))?;
                if said.digest != statement.image || *image != statement.image {
                    return Err(format!("it is about {}", said.digest));
                }
                Ok(((), format!("key {}, for `{}`, entry {index}", key.id(), said.reference.chars().filter(|c| !c.is_control()).take(120).collect::<String>())))
            });
        lines.check(&format!("the image was signed by `{signer}` of the tenant's policy"), Tool::Independent, checked)?;
    }
    Some(())
}

/// Every secret that the node says it gave.
pub(super) fn secrets(lines: &mut Lines, log: &Logged, record: &Record, statement: &Statement) -> Option<()> {
    let holder = LeaseHolder::Attempt(record.attempt);
    for given in &statement.secrets {
        let twice = statement.secrets.iter().filter(|other| other.lease == given.lease || other.name == given.name).count() > 1;
        let found = log.find(|event| match event {
            Event::SecretReleased { lease, secret, version, sealed, holder: who, node, .. } => {
                let same = *lease == given.lease && *secret == given.secret && *version == given.version;
                (same && *who == holder && *node == Some(statement.node)).then_some(*sealed)
            }
            _ => None,
        });
        let outcome = match found {
            _ if twice => Err("its name or lease stands twice".to_owned()),
            None => Err(format!("no release under lease {} to this attempt is logged", given.lease)),
            Some((index, _, sealed)) => {
                Ok(((), format!("secret {} version {}, sealed bytes {sealed}, release {index}", given.secret, given.version)))
            }
        };
        lines.check(&format!("secret `{}` was given under a logged release", given.name), Tool::Script, outcome)?;
    }
    Some(())
}

fn volume(
    log: &Logged,
    record: &Record,
    statement: &Statement,
    used: &VolumeUse,
    mode: LeaseMode,
) -> Result<String, String> {
    let holder = LeaseHolder::Attempt(record.attempt);
    let (released, ..) = log
        .find(|event| match event {
            Event::KeyReleased { lease, volume, mode: how, holder: who, node, evidence: Evidence::None, .. } => {
                (*lease == used.lease
                    && *volume == used.volume
                    && *how == mode
                    && *who == holder
                    && *node == Some(statement.node))
                .then_some(())
            }
            _ => None,
        })
        .ok_or_else(|| format!("no release under lease {} to this attempt is logged", used.lease))?;
    let Some(signed) = &used.record else {
        let empty = used.head.seq == 0 && mode == LeaseMode::Read;
        return if empty { Ok(format!("volume {} was empty", used.volume)) } else { Err("the signed root is missing".to_owned()) };
    };
    let head = &used.head;
    let (registered, _, (signer, lease, who)) = log
        .find(|event| match event {
            Event::WriterRegistered { volume, lineage, writer_epoch, signer, lease, holder, .. } => {
                (*volume == used.volume && *lineage == head.lineage && *writer_epoch == head.writer_epoch)
                    .then(|| (signer.clone(), *lease, *holder))
            }
            _ => None,
        })
        .ok_or_else(|| format!("the signer of writer epoch {} is not in the receipt", head.writer_epoch))?;
    let signer = base64_32(&signer, "signer").map_err(|e| sentence(&e))?;
    let signed = base64(signed, "record", ROOT_RECORD_MAX).map_err(|e| sentence(&e))?;
    let previous =
        crate::root::verify(&signed, &signer, record.tenant, used.volume, head).map_err(|e| sentence(&e))?;
    let (committed, ..) = log
        .find(|event| match event {
            Event::VolumeCommitted { volume, lineage, seq, writer_epoch, root, previous: before } => {
                let same = *volume == used.volume
                    && *lineage == head.lineage
                    && *seq == head.seq
                    && *writer_epoch == head.writer_epoch
                    && *root == head.root
                    && *before == previous;
                same.then_some(())
            }
            _ => None,
        })
        .ok_or_else(|| "the commit of this root is not in the receipt".to_owned())?;
    let in_order = match mode {
        LeaseMode::Read => registered < committed && committed < released,
        LeaseMode::Write => released <= committed && registered < committed && lease == used.lease && who == holder,
    };
    if !in_order {
        return Err("release, registration and commit are logged in an impossible order or for another holder".to_owned());
    }
    Ok(format!(
        "volume {} root {} (seq {}), release {released}, signer {registered}, commit {committed}",
        used.volume, head.root, head.seq
    ))
}

/// The policy set in force when the attempt was placed.
pub(super) fn policy(lines: &mut Lines, log: &Logged, record: &Record) -> Option<()> {
    let epoch = record.policy.epoch;
    let placed = log.any(|event| match event {
        Event::JobPlaced { attempt, policy_epoch, .. } => *attempt == record.attempt && *policy_epoch == epoch,
        _ => false,
    });
    let outcome = if placed { Ok(((), format!("epoch {epoch}"))) } else { Err("the log says another epoch".to_owned()) };
    lines.check("the attempt was placed under this policy epoch", Tool::Script, outcome)?;
    let claim = "the policy set of that epoch is this one";
    let set = log.find(|event| match event {
        Event::PolicyChanged { epoch: which, policy } if *which == epoch => Some(*policy),
        _ => None,
    });
    match set {
        Some((index, _, policy)) if policy == record.policy.digest => {
            lines.add(claim, Verdict::Proved, Tool::Script, format!("{policy}, entry {index}"));
            Some(())
        }
        Some((_, _, policy)) => lines.check(claim, Tool::Script, Err(format!("the log says {policy}"))),
        None => {
            let detail = format!("{}: the entry of this change is not in the receipt", record.policy.digest);
            lines.add(claim, Verdict::NotChecked, Tool::Script, detail);
            Some(())
        }
    }
}

/// How many layers the runtime hides.
fn hidden(report: &vocabulary::isolation::IsolationReport) -> String {
    match report.layers.iter().filter(|layer| layer.verdict == vocabulary::isolation::LayerVerdict::NotObservable).count() {
        0 => String::new(),
        count => format!(", {count} not observable"),
    }
}

/// What made the sandbox: version, digest, and whether we ever ran a job under it.
fn runtime(report: &vocabulary::isolation::IsolationReport) -> String {
    let Some(offer) = &report.runtime else { return report.backend.clone() };
    let digest = offer.digest.map_or_else(String::new, |digest| format!(" ({digest})"));
    format!("{} {}{digest}{}", offer.runtime, offer.version, if offer.untested { ", untested" } else { "" })
}

/// What is a word and no proof is said in words.
pub(super) fn words(lines: &mut Lines, record: &Record, statement: &Statement) {
    let missing = statement.isolation.missing();
    let report = &statement.isolation;
    if missing.is_empty() {
        let held = report.layers.iter().filter(|layer| layer.verdict == vocabulary::isolation::LayerVerdict::Held).count();
        let detail = format!(
            "claimed by the node ({held} of {} layers held{}, {}, kernel {}): without a TEE the owner of the machine could lie",
            report.layers.len(),
            hidden(report),
            runtime(report),
            report.kernel
        );
        lines.add("the job was isolated", Verdict::NotChecked, Tool::OursOnly, detail);
    } else {
        let detail = format!("the node itself says that these layers were missing: {}", missing.join(", "));
        lines.add("the job was isolated", Verdict::NotProved, Tool::OursOnly, detail);
    }
    let gpus: Vec<&str> = report.layers.iter().filter(|layer| layer.name == "gpu").map(|layer| layer.observed.as_str()).collect();
    if !gpus.is_empty() {
        lines.add("the job had its GPUs to itself", Verdict::NotChecked, Tool::OursOnly, format!("claimed by the node: {}", gpus.join("; ")));
    }
    match record.evidence {
        Evidence::None => lines.add(
            "the data was protected from the owner of the machine",
            Verdict::NotChecked,
            Tool::OursOnly,
            "evidence: none. Without a TEE the owner of the machine could read memory; leases, roots and isolation were kept by software",
        ),
    }
    if statement.log_frames_lost > 0 {
        let detail = format!("{} frames were lost before they were recorded", statement.log_frames_lost);
        lines.add("the job's log is whole", Verdict::NotChecked, Tool::OursOnly, detail);
    }
}
