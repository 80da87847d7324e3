//! The check of a receipt: from the deployment's file down to each fact, one line each.
//!
//! Trust flows in one direction: pin → root certificate → deployment's file → receipt key and log key → record,
//! checkpoint → entries → record key, signers → the node's statement and the volumes' roots. Where a step fails, nothing
//! that hangs on it is judged.

mod facts;
mod logged;
mod witnesses;

use audit::WitnessPolicy;
use vocabulary::{Profile, Sha256Digest, UnixTime};

use crate::deployment::{CheckedDeployment, Deployment};
use crate::envelope::{IN_TOTO, InToto, PublicKey, base64};
use crate::limits::{CERTIFICATE_MAX, CHAIN_MAX, CLOCK_SKEW_MS, LABELS_MAX};
use crate::record::{Receipt, Record, envelope_digest};
use crate::report::{Lines, Report, Tool, Verdict, sentence};
use crate::statement::statement_digest;
use logged::Logged;

/// Verifies a receipt against the deployment's public file.
///
/// With `pin` the file's root must be the pinned one; without it a line says what to compare. With `now` a receipt from
/// the future is refused.
#[must_use]
pub fn verify(receipt: &[u8], deployment_file: &[u8], pin: Option<&Sha256Digest>, now: Option<UnixTime>) -> Report {
    verify_witnessed(receipt, deployment_file, pin, now, None)
}

/// As [`verify`], and judges the witnesses by the reader's own policy: which of them must have signed. Without one they are
/// *not checked*, whatever the receipt itself says of them: a deployment could name witnesses of its own making.
#[must_use]
pub fn verify_witnessed(
    receipt: &[u8],
    deployment_file: &[u8],
    pin: Option<&Sha256Digest>,
    now: Option<UnixTime>,
    policy: Option<&WitnessPolicy>,
) -> Report {
    let mut lines = Lines::default();
    // A `None` says that a line above failed: what hangs on it is not judged.
    let _judged = judge(&mut lines, receipt, deployment_file, pin, now, policy);
    lines.report()
}

fn judge(
    lines: &mut Lines,
    receipt: &[u8],
    deployment_file: &[u8],
    pin: Option<&Sha256Digest>,
    now: Option<UnixTime>,
    policy: Option<&WitnessPolicy>,
) -> Option<()> {
    let deployment = deployment(lines, deployment_file, pin)?;
    judge_file(lines, receipt, &deployment, now, policy)
}

/// Judges the file against a deployment that was checked.
pub(crate) fn judge_file(
    lines: &mut Lines,
    receipt: &[u8],
    deployment: &CheckedDeployment,
    now: Option<UnixTime>,
    policy: Option<&WitnessPolicy>,
) -> Option<()> {
    let receipt = lines.check(
        "the file is in its one canonical form",
        Tool::Script,
        Receipt::parse(receipt).map(|file| (file, "canonical JSON, nothing unknown in it".to_owned())).map_err(|e| sentence(&e)),
    )?;
    let (record, receipt_key) = record(lines, &receipt, deployment)?;
    bound(lines, &receipt, &record, deployment, now)?;
    let (checkpoint, witnessed) = witnesses::checkpoint(lines, &record, deployment, policy)?;
    let log = logged::read(lines, &record, &checkpoint)?;
    witnesses::times(lines, &witnessed, &log, now)?;
    let log = Logged::new(log, &record);
    let finished = facts::finished(lines, &log, &record)?;
    control_certificate(lines, &record, deployment, &receipt_key, finished.time)?;
    let statement = facts::statement(lines, &log, &receipt, &record, &finished)?;
    facts::node_certificate(lines, &log, &record, deployment, &statement)?;
    facts::job(lines, &log, &record, &statement, &finished)?;
    facts::volumes(lines, &log, &record, &statement)?;
    facts::image_signatures(lines, &log, &record, &statement)?;
    facts::secrets(lines, &log, &record, &statement)?;
    facts::policy(lines, &log, &record)?;
    facts::words(lines, &record, &statement);
    Some(())
}

fn deployment(lines: &mut Lines, file: &[u8], pin: Option<&Sha256Digest>) -> Option<CheckedDeployment> {
    let opened = Deployment::open(file, pin)
        .map(|deployment| {
            let detail = format!("deployment {}, profile {}", deployment.facts.deployment, deployment.facts.profile.as_str());
            (deployment, detail)
        })
        .map_err(|e| sentence(&e));
    let deployment = lines.check("the deployment's file is signed by its root", Tool::Independent, opened)?;
    let root = deployment.facts.root_pin;
    match pin {
        Some(_) => lines.add("the root is the pinned one", Verdict::Proved, Tool::Independent, root.to_string()),
        None => lines.add(
            "the root is the pinned one",
            Verdict::NotChecked,
            Tool::Independent,
            format!("no pin was given: compare {root} with the pin that the deployment's first run printed"),
        ),
    }
    Some(deployment)
}

/// The control plane's signature over the whole.
fn record(lines: &mut Lines, receipt: &Receipt, deployment: &CheckedDeployment) -> Option<(Record, [u8; 32])> {
    let mut outcome = Err("it is by none of the receipt keys of the deployment's file (one that is newer than the file is not in it)".to_owned());
    for key in &deployment.receipt_keys {
        let public = PublicKey::Ed25519(key);
        if receipt.control.signatures.first().is_none_or(|signature| signature.keyid != public.id()) {
            continue;
        }
        outcome = receipt
            .control
            .verify::<InToto<Record>>(IN_TOTO, &public)
            .map_err(|e| sentence(&e))
            .and_then(|said| {
                let record = said.predicate.clone();
                if said == record.in_toto() { Ok(record) } else { Err("the statement around the record contradicts it".to_owned()) }
            })
            .map(|record| ((record, *key), format!("receipt key {}", public.id())));
    }
    lines.check("the control plane signed the whole", Tool::Independent, outcome)
}

/// The record binds the node's envelope, and belongs to this deployment.
fn bound(
    lines: &mut Lines,
    receipt: &Receipt,
    record: &Record,
    deployment: &CheckedDeployment,
    now: Option<UnixTime>,
) -> Option<()> {
    let same = statement_digest(&receipt.node).is_ok_and(|digest| digest == record.statement)
        && envelope_digest(&receipt.node).is_ok_and(|digest| digest == record.statement_envelope);
    let outcome = if same { Ok(((), record.statement.to_string())) } else { Err("the digest in the record is of another statement".to_owned()) };
    lines.check("the record binds the node's statement", Tool::Independent, outcome)?;
    let facts = &deployment.facts;
    let outcome = if record.deployment != facts.deployment {
        Err(format!("the receipt is of deployment {}", record.deployment))
    } else if record.profile != facts.profile {
        Err(format!("the receipt says profile {}, the deployment's file {}", record.profile.as_str(), facts.profile.as_str()))
    } else {
        Ok(((), format!("profile {}", record.profile.as_str())))
    };
    lines.check("deployment and profile are those of the deployment's file", Tool::Script, outcome)?;
    if let Some(now) = now {
        let outcome = if record.issued <= now.plus_millis(CLOCK_SKEW_MS) {
            Ok(((), record.issued.to_string()))
        } else {
            Err(format!("it says {}, and now is {now}", record.issued))
        };
        lines.check("the receipt is not from the future", Tool::Script, outcome)?;
    }
    labels(lines, record)
}

fn labels(lines: &mut Lines, record: &Record) -> Option<()> {
    let weak = |label: &&String| label.starts_with("simulated") || label.starts_with("waived") || *label == "quorum-none";
    let outcome = if record.labels.len() > LABELS_MAX {
        Err(format!("more than {LABELS_MAX} labels"))
    } else if let (Profile::Production, Some(label)) = (record.profile, record.labels.iter().find(weak)) {
        Err(format!("`{label}` is not permitted in production"))
    } else if record.labels.is_empty() {
        Ok(((), "none".to_owned()))
    } else {
        Ok(((), record.labels.iter().map(String::as_str).collect::<Vec<_>>().join(", ")))
    };
    lines.check("labels are permitted by the profile", Tool::Script, outcome)
}

/// The receipt key's certificate, at the time of the entry of the job's end.
fn control_certificate(
    lines: &mut Lines,
    record: &Record,
    deployment: &CheckedDeployment,
    receipt_key: &[u8; 32],
    at: UnixTime,
) -> Option<()> {
    let outcome = chain(&record.control_certificates)
        .and_then(|chain| crate::x509::verify_chain(&chain, &deployment.root, at).map_err(|e| sentence(&e)))
        .and_then(|certified| {
            let class = format!("spiffe://{}/receipt/", record.deployment);
            if !matches!(certified.uris.as_slice(), [uri] if uri.starts_with(&class)) {
                Err("the certificate is not of the class receipt of this deployment".to_owned())
            } else if certified.ed25519.as_ref() == Some(receipt_key) {
                Ok(((), format!("serial {}, valid at {at}, the logged end of the job", certified.serial)))
            } else {
                Err("the certificate is for another key".to_owned())
            }
        });
    lines.check("the receipt key is certified under the root", Tool::Independent, outcome)
}

fn chain(texts: &[String]) -> Result<Vec<Vec<u8>>, String> {
    if texts.len() > CHAIN_MAX {
        return Err(format!("more than {CHAIN_MAX} certificates"));
    }
    texts.iter().map(|text| base64(text, "certificate", CERTIFICATE_MAX).map_err(|e| sentence(&e))).collect()
}
