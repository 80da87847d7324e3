//! The log's checkpoint, and who else signed it.

use audit::checkpoint::Checkpoint;
use audit::note::{Note, Signed};
use audit::{VerifierKey, WitnessPolicy};
use std::collections::BTreeSet;
use vocabulary::UnixTime;

use super::logged::Proved;
use crate::deployment::CheckedDeployment;
use crate::envelope::base64;
use crate::limits::CLOCK_SKEW_MS;
use crate::record::Record;
use crate::report::{Lines, Tool, Verdict, sentence};

const CLAIM: &str = "witnesses saw the same log";

/// The log's checkpoint, strictly: no signature line by a key that neither the deployment's file nor a policy names. Gives the
/// checkpoint and its good cosignatures.
pub(super) fn checkpoint(
    lines: &mut Lines,
    record: &Record,
    deployment: &CheckedDeployment,
    policy: Option<&WitnessPolicy>,
) -> Option<(Checkpoint, Vec<Signed>)> {
    let own = match own_policy(record) {
        Ok(own) => own,
        Err(why) => return lines.check(CLAIM, Tool::Independent, Err(why)),
    };
    let witnesses = keys(deployment, own.as_ref(), policy);
    let outcome = base64(&record.log.checkpoint, "checkpoint", audit::limits::NOTE_MAX)
        .map_err(|e| sentence(&e))
        .and_then(|bytes| {
            let note = Note::parse(&bytes).map_err(|e| sentence(&e))?;
            // What is parsed must be what is there: a note has one form.
            if note.encode() == bytes { Ok(note) } else { Err("the note is not in its one form".to_owned()) }
        })
        .and_then(|note| {
            let mut last = "no log key".to_owned();
            for key in &deployment.log_keys {
                match Checkpoint::verify_strict(&note, key, &witnesses) {
                    Ok((checkpoint, cosigned)) => {
                        let detail = format!("{}, {} entries, key {key}", checkpoint.origin, checkpoint.size);
                        return Ok(((checkpoint, cosigned, key.clone()), detail));
                    }
                    Err(error) => last = sentence(&error),
                }
            }
            Err(last)
        });
    let (checkpoint, cosigned, log) = lines.check("the log signed the checkpoint", Tool::Independent, outcome)?;
    required_by_file(lines, deployment, &cosigned)?;
    match policy {
        Some(policy) => required_by_reader(lines, policy, &log, &cosigned)?,
        None => shown_only(lines, deployment, own.as_ref(), &cosigned)?,
    }
    Some((checkpoint, cosigned))
}

/// The policy inside the receipt, in its one form.
fn own_policy(record: &Record) -> Result<Option<WitnessPolicy>, String> {
    let Some(text) = &record.witness_policy else { return Ok(None) };
    let bytes = base64(text, "witness_policy", audit::limits::POLICY_MAX).map_err(|e| sentence(&e))?;
    WitnessPolicy::parse(&bytes).map(Some).map_err(|e| format!("the receipt's own witness policy: {}", sentence(&e)))
}

/// Every key whose line may stand under the checkpoint, each once.
fn keys(deployment: &CheckedDeployment, own: Option<&WitnessPolicy>, policy: Option<&WitnessPolicy>) -> Vec<VerifierKey> {
    let mut keys: Vec<VerifierKey> = Vec::new();
    let named = own.into_iter().chain(policy).flat_map(WitnessPolicy::witness_keys);
    for key in deployment.witnesses.iter().cloned().chain(named) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The quorum of the deployment's file, where it has one.
fn required_by_file(lines: &mut Lines, deployment: &CheckedDeployment, cosigned: &[Signed]) -> Option<()> {
    let wanted = usize::try_from(deployment.facts.quorum).unwrap_or(usize::MAX);
    if wanted == 0 {
        return Some(());
    }
    let log_keys: BTreeSet<&[u8; 32]> = deployment.log_keys.iter().map(VerifierKey::public).collect();
    let distinct: BTreeSet<&[u8; 32]> = cosigned
        .iter()
        .filter(|one| one.time.is_some() && deployment.witnesses.contains(&one.key))
        .map(|one| one.key.public())
        .filter(|key| !log_keys.contains(key))
        .collect();
    let detail = format!("{} of {wanted} witnesses of the deployment's file signed", distinct.len());
    let outcome = if distinct.len() >= wanted { Ok(((), detail)) } else { Err(detail) };
    lines.check(CLAIM, Tool::Independent, outcome)
}

/// The reader's own policy: proved, or not.
fn required_by_reader(lines: &mut Lines, policy: &WitnessPolicy, log: &VerifierKey, cosigned: &[Signed]) -> Option<()> {
    let judged = policy.judge(cosigned);
    let knows_log = policy.logs().is_empty() || policy.logs().iter().any(|one| one.key == *log);
    let signed = names(&judged.signed);
    let outcome = if !knows_log {
        Err(format!("your policy does not name this log: log {log}"))
    } else if policy.is_none() {
        lines.add(CLAIM, Verdict::NotChecked, Tool::Independent, format!("your policy asks for no witness; signed: {signed}"));
        return Some(());
    } else if judged.satisfied {
        Ok(((), format!("your policy asks: {}; signed: {signed}", policy.summary())))
    } else {
        Err(format!("your policy asks: {}; signed: {signed}", policy.summary()))
    };
    lines.check(CLAIM, Tool::Independent, outcome)
}

/// Without a policy of the reader's: what is there is shown, and proves nothing of independence.
fn shown_only(lines: &mut Lines, deployment: &CheckedDeployment, own: Option<&WitnessPolicy>, cosigned: &[Signed]) -> Option<()> {
    match own {
        Some(own) if !own.is_none() => {
            let judged = own.judge(cosigned);
            if !judged.satisfied {
                let detail = format!("the deployment's own policy asks: {}; signed: {}", own.summary(), names(&judged.signed));
                return lines.check(CLAIM, Tool::Independent, Err(detail));
            }
            let detail = format!(
                "signed, as the deployment's own policy asks: {}. Whether they are independent of it only you can say: --witness-policy FILE",
                names(&judged.signed)
            );
            lines.add(CLAIM, Verdict::NotChecked, Tool::Independent, detail);
        }
        Some(_) | None if deployment.facts.quorum == 0 => {
            let detail = "no witness had to sign: the control plane could show another history to somebody else";
            lines.add(CLAIM, Verdict::NotChecked, Tool::Independent, detail);
        }
        Some(_) | None => {}
    }
    Some(())
}

fn names(signed: &[(String, u64)]) -> String {
    if signed.is_empty() {
        return "nobody".to_owned();
    }
    signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A witness saw the entries no earlier than they happened, and not in the future.
pub(super) fn times(lines: &mut Lines, cosigned: &[Signed], entries: &[Proved], now: Option<UnixTime>) -> Option<()> {
    let newest = entries.iter().map(|entry| entry.time).max();
    let times: Vec<(&str, u64)> = cosigned.iter().filter_map(|one| Some((one.key.name(), one.time?))).collect();
    let (Some(newest), false) = (newest, times.is_empty()) else { return Some(()) };
    for (name, seconds) in &times {
        let time = UnixTime::from_millis(seconds.saturating_mul(1000));
        // A witness's time has whole seconds.
        if time.plus_millis(CLOCK_SKEW_MS.saturating_add(1000)) < newest {
            let why = format!("`{name}` signed at {time}, before the newest entry happened, at {newest}");
            return lines.check("the witnesses signed after the entries happened", Tool::Independent, Err(why));
        }
        if now.is_some_and(|now| time > now.plus_millis(CLOCK_SKEW_MS)) {
            let why = format!("`{name}` signed at {time}, which is in the future");
            return lines.check("the witnesses signed after the entries happened", Tool::Independent, Err(why));
        }
    }
    let first = times.iter().map(|(_, seconds)| *seconds).min().unwrap_or_default();
    let detail = format!("from {} on", UnixTime::from_millis(first.saturating_mul(1000)));
    lines.check("the witnesses signed after the entries happened", Tool::Independent, Ok(((), detail)))
}
