//! Gathering signatures: the newest checkpoint is offered to every witness of the policy, with a deadline for each.
//!
//! Several control planes gather for one candidate: each asks the witnesses that it reaches, and adds their lines to the row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use audit::Checkpoint;
use audit::key::{KeyKind, verifier_of};
use audit::note::{Note, NoteSignature};
use audit::witness_policy::PolicyKey;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use store::{Expect, Publisher, Put, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::{SYSTEM_OWNER, UnixTime};

use super::ask::{Outcome, against, ask};
use super::{Active, COSIGNED, Candidate, CosignedRow, Guard, Heard, Settled};
use crate::clock;
use crate::limits::{WITNESS_CANDIDATE_MS, WITNESS_LINGER, WITNESS_POLL, WITNESS_REFRESH_MS};
use crate::publisher::LOG_FOLDER;
use crate::row::FORMAT;
use crate::state::Control;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How often a write is tried again when another process wrote the row in the same moment.
const TRIES: u32 = 5;
/// Bytes of a cosigned note.
const NOTE_MAX: usize = audit::limits::NOTE_MAX;

/// What this process remembers between rounds.
#[derive(Default)]
struct Memory {
    /// What each witness signed last, by its key.
    sizes: BTreeMap<String, u64>,
    /// Witnesses (keys) that have said, since this process began, what they signed last, and it was ours.
    answered: BTreeSet<String>,
    /// Whether the copy beside the tiles was compared with the database.
    compared: bool,
}

/// Gathers until told to stop.
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut published = control.published.subscribe();
    let mut memory = Memory::default();
    stop.run_until_cancelled(async {
        loop {
            published.mark_unchanged();
            if let Err(error) = round(&control, &mut memory).await {
                tracing::error!(%error, "the witnesses were not asked");
            }
            tokio::select! {
                _ = published.changed() => {}
                () = tokio::time::sleep(WITNESS_POLL) => {}
            }
        }
    })
    .await;
}

/// Whom to ask about which checkpoint; where nobody is to be asked, signing is allowed at once.
async fn to_be_asked(control: &Control) -> Result<Option<(Active, Publisher)>, Failed> {
    let told = |failure: crate::api::problem::Failure| failure.problem.detail;
    let publisher = control.store.publisher().await?.filter(|publisher| !publisher.checkpoint.is_empty());
    let active = control.witness_policy().await.map_err(told)?;
    let asked = active.zip(publisher);
    if asked.is_none() {
        // No witness was ever named, or nothing was ever signed.
        control.witnesses.open();
    }
    Ok(asked)
}

/// What can be said of this database without a witness: it fits what was cosigned, and nobody has to be asked before it signs.
pub(crate) async fn begin(control: &Control) -> Result<(), Failed> {
    compare(control).await?;
    to_be_asked(control).await.map(drop)
}

async fn round(control: &Control, memory: &mut Memory) -> Result<(), Failed> {
    let now = clock::now();
    if !memory.compared {
        compare(control).await?;
        memory.compared = true;
    }
    if matches!(control.witnesses.guard(), Guard::Closed(_)) {
        return Ok(());
    }
    let Some((active, publisher)) = to_be_asked(control).await? else { return Ok(()) };
    let (note, checkpoint, missing) = candidate(control, &active, &publisher, now).await?;
    let mut asked: FuturesUnordered<_> = missing
        .iter()
        .map(|witness| {
            let known = memory.sizes.get(&witness.key.to_string()).copied().unwrap_or(0);
            let (note, checkpoint) = (&note, &checkpoint);
            async move { (*witness, ask(control, witness, note, checkpoint, known).await) }
        })
        .collect();
    let mut silent = missing.clone();
    let mut reached = false;
    loop {
        // Who is slower than the quorum is given a moment more, and is asked again for the next checkpoint.
        let next = if reached { tokio::time::timeout(WITNESS_LINGER, asked.next()).await.ok().flatten() } else { asked.next().await };
        let Some((witness, outcome)) = next else { break };
        silent.retain(|other| other.name != witness.name);
        if let Some(line) = take(control, memory, witness, &checkpoint, outcome) {
            reached |= merge(control, &active, &checkpoint, line, clock::now()).await?;
        }
        may_open(control, memory, &active);
    }
    for witness in silent {
        take(control, memory, witness, &checkpoint, Outcome::Silent("it did not answer while the others made the quorum".to_owned()));
    }
    may_open(control, memory, &active);
    Ok(())
}

/// What an outcome means for what is known; gives the line of a signature.
fn take(control: &Control, memory: &mut Memory, witness: &PolicyKey, checkpoint: &Checkpoint, outcome: Outcome) -> Option<NoteSignature> {
    let key = witness.key.to_string();
    let mut heard = control.witnesses.heard();
    let before = heard.get(&key).cloned();
    let (before_size, before_at) = before.as_ref().map_or((None, None), |before| (before.size, before.at));
    let mut line_of = None;
    let (size, at, said) = match outcome {
        Outcome::Signed { line, seconds } => {
            memory.sizes.insert(key.clone(), checkpoint.size);
            memory.answered.insert(key.clone());
            line_of = Some(line);
            (Some(checkpoint.size), Some(UnixTime::from_millis(seconds.saturating_mul(1000))), "signed".to_owned())
        }
        Outcome::Ahead(size) => {
            memory.sizes.insert(key.clone(), size);
            memory.answered.insert(key.clone());
            (Some(size), before_at, "signed a newer checkpoint meanwhile".to_owned())
        }
        Outcome::Contradicts(why) => {
            control.witnesses.close(why.clone());
            (before_size, before_at, why)
        }
        Outcome::Refuses(why) | Outcome::Silent(why) => (before_size, before_at, why),
    };
    if line_of.is_none() && before.is_none_or(|before| before.said != said) {
        tracing::warn!(witness = witness.name, said, "a witness did not sign");
    }
    heard.insert(key, Heard { size, at, said });
    line_of
}

/// Opens when those who have not answered could not make a quorum by themselves: any checkpoint that ever reached the quorum
/// was then signed by one who has answered, and it was not beyond ours.
fn may_open(control: &Control, memory: &Memory, active: &Active) {
    let answered = |witness: &PolicyKey| memory.answered.contains(&witness.key.to_string());
    let silent: BTreeSet<&str> =
        active.policy.witnesses().iter().filter(|witness| !answered(witness)).map(|witness| witness.name.as_str()).collect();
    if active.policy.is_none() || !active.policy.reached_by(&silent) {
        control.witnesses.open();
    }
}

/// Compares the database with the cosigned checkpoint that lies beside the tiles: where the database alone was restored, that
/// copy is enough to see it, whatever witnesses say.
async fn compare(control: &Control) -> Result<(), Failed> {
    let bytes = match control.blobs.get(&copy_path()?, NOTE_MAX).await {
        Ok(bytes) => bytes,
        Err(store::BlobError::Absent(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let key = verifier_of(&control.log, KeyKind::Ed25519)?;
    let (seen, _) = Checkpoint::verify(&Note::parse(&bytes)?, &key, &[]).map_err(|error| format!("the cosigned checkpoint beside the tiles: {error}"))?;
    // After the copy: another control plane may have published and settled while this one began.
    let publisher = control.store.publisher().await?;
    let (size, root) = publisher.map_or((0, None), |publisher| (publisher.size, publisher.root));
    if let Some(why) = against(control, &seen, size, root).await? {
        control.witnesses.close(format!("the cosigned checkpoint beside the tiles: {why}"));
    }
    Ok(())
}

fn copy_path() -> Result<store::BlobPath, store::blobs::PathError> {
    format!("{LOG_FOLDER}/cosigned").parse()
}

/// The checkpoint to gather for, and the witnesses whose line is missing under it. A newer one takes the place of one that is
/// settled or took too long; an old one is offered again after a while, so that the witnesses' times stay fresh.
async fn candidate<'a>(
    control: &Control,
    active: &'a Active,
    publisher: &Publisher,
    now: UnixTime,
) -> Result<(Note, Checkpoint, Vec<&'a PolicyKey>), Failed> {
    for _ in 0..TRIES {
        let (expect, mut row) = cosigned(control).await?;
        let current = row.candidate.take().filter(|candidate| goes_on(candidate, active, publisher, now));
        let (candidate, fresh) = match current {
            Some(candidate) => (candidate, false),
            None => {
                let note = String::from_utf8(publisher.checkpoint.clone())?;
                (Candidate { size: publisher.size, note, begun: now }, true)
            }
        };
        let note = Note::parse(candidate.note.as_bytes())?;
        if fresh {
            row.candidate = Some(candidate);
            if !put(control, expect, &row, now).await? {
                continue;
            }
        }
        let key = verifier_of(&control.log, KeyKind::Ed25519)?;
        let (checkpoint, _) = Checkpoint::verify(&note, &key, &[])?;
        let signed = |witness: &PolicyKey| note.signatures().iter().any(|one| one.name == witness.key.name() && one.id == witness.key.id());
        let missing = active.policy.witnesses().iter().filter(|witness| !signed(witness)).collect();
        // Witnesses are given the log's own line alone: theirs it is to add.
        let bare = Note::parse(&bare(&note, &checkpoint)?)?;
        return Ok((bare, checkpoint, missing));
    }
    Err("the row of cosignatures changed again and again".into())
}

/// The note with the log's own line alone.
fn bare(note: &Note, checkpoint: &Checkpoint) -> Result<Vec<u8>, Failed> {
    let own = note.signatures().iter().find(|one| one.name == checkpoint.origin).ok_or("the log's own line is missing")?;
    Ok(format!("{}\n{}", note.text(), own.line()).into_bytes())
}

fn goes_on(candidate: &Candidate, active: &Active, publisher: &Publisher, now: UnixTime) -> bool {
    let Ok(note) = Note::parse(candidate.note.as_bytes()) else { return false };
    let Ok((_, judged)) = active.policy.verify(&note) else { return false };
    let age = now.since(candidate.begun).unwrap_or(u64::MAX);
    let all = judged.signed.len() == active.policy.witnesses().len();
    if publisher.size > candidate.size {
        let settled = judged.satisfied && !active.policy.is_none();
        return !(all || settled || age >= WITNESS_CANDIDATE_MS);
    }
    age < WITNESS_REFRESH_MS
}

async fn cosigned(control: &Control) -> Result<(Expect, CosignedRow), Failed> {
    Ok(match control.cosigned().await.map_err(|failure| failure.problem.detail)? {
        Some((revision, row)) => (Expect::Revision(revision), row),
        None => (Expect::Absent, CosignedRow { format: FORMAT, candidate: None, settled: None }),
    })
}

/// Writes the row; `false` when another process did in the same moment.
async fn put(control: &Control, expect: Expect, row: &CosignedRow, now: UnixTime) -> Result<bool, Failed> {
    let put = Put::json(SYSTEM_OWNER, COSIGNED, control.deployment, expect, row)?;
    match control.store.commit(Transaction::new().with(put), now).await {
        Ok(_) => Ok(true),
        Err(error) if error.conflict().is_some() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Adds a line to the candidate; where it makes the quorum, the checkpoint is settled. Says whether it is.
async fn merge(control: &Control, active: &Active, checkpoint: &Checkpoint, line: NoteSignature, now: UnixTime) -> Result<bool, Failed> {
    for _ in 0..TRIES {
        let (expect, mut row) = cosigned(control).await?;
        // Another process went on to a newer one: this line comes too late, and the witness's memory is what counts.
        let Some(candidate) = row.candidate.as_mut().filter(|candidate| candidate.size == checkpoint.size) else { return Ok(false) };
        let mut note = Note::parse(candidate.note.as_bytes())?;
        if !note.signatures().iter().any(|one| one.name == line.name && one.id == line.id) {
            note.add(line.clone())?;
        }
        let text = String::from_utf8(note.encode())?;
        candidate.note.clone_from(&text);
        let (_, judged) = active.policy.verify(&note)?;
        let newer = row.settled.as_ref().is_none_or(|settled| settled.size <= checkpoint.size);
        let reached = judged.satisfied && newer;
        if reached {
            // The copy first: it may be ahead of the database by what the database does not know yet as settled, and is
            // compared by the checkpoint alone, which the database has.
            control.blobs.replace(&copy_path()?, text.clone().into()).await?;
            let last = judged.signed.iter().map(|(_, seconds)| *seconds).max().unwrap_or_default();
            row.settled = Some(Settled { size: checkpoint.size, note: text, at: UnixTime::from_millis(last.saturating_mul(1000)) });
        }
        if put(control, expect, &row, now).await? {
            return Ok(judged.satisfied && !active.policy.is_none());
        }
    }
    Err("the row of cosignatures changed again and again".into())
}
