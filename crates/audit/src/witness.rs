//! A witness (C2SP tlog-witness): it signs that a checkpoint extends the last one of the same log that it signed.
//!
//! This is the whole protocol without sockets and files: [`add_checkpoint`] takes the bytes of a request and gives the
//! bytes of the answer. What it remembers lies behind [`WitnessState`], whose implementation makes it durable.
//!
//! **Invariant:** a cosignature leaves this module only after [`WitnessState::advance`] returned: what was not remembered
//! was not signed. **Invariant:** of one log there is one history: the next checkpoint is proved to extend the last one.

mod logs;

pub use logs::{KnownLog, KnownLogs, KnownLogsError};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::cosignature::cosign;
use crate::hash::{Hash, empty_root, sha256};
use crate::key::{KeyKind, LogSigner, VerifierKey, verifier_of};
use crate::limits::{CLOCK_BACK_MAX_S, ORIGIN_MAX, WITNESS_PROOF_MAX, WITNESS_REQUEST_MAX};
use crate::merkle::verify_consistency;
use crate::note::{Note, NoteError};

/// The type of a plain answer.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// The type of the answer that tells the size last signed.
pub const SIZE: &str = "text/x.tlog.size";

/// Reads the text of any log's checkpoint: the origin is one line of any text, and extension lines are let be, since a
/// cosignature speaks of the first three lines only.
pub fn parse_foreign(text: &str) -> Result<Checkpoint, CheckpointError> {
    let text = text.strip_suffix('\n').ok_or(CheckpointError::Shape)?;
    let mut lines = text.split('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(CheckpointError::Shape);
    };
    if origin.is_empty() || origin.len() > ORIGIN_MAX {
        return Err(CheckpointError::Origin);
    }
    if lines.any(str::is_empty) {
        return Err(CheckpointError::Shape);
    }
    let size = decimal(size).ok_or(CheckpointError::Size)?;
    let root = Hash::from_base64(root).ok_or(CheckpointError::Root)?;
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

/// A decimal number in its one form.
fn decimal(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// A request: the size that the log believes we signed last, the proof from there, and the new checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size last signed, as the log believes.
    pub old: u64,
    /// The consistency proof from there.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub note: Note,
}

impl AddCheckpoint {
    /// The bytes of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("old {}\n", self.old);
        for hash in &self.proof {
            out.push_str(&format!("{hash}\n"));
        }
        out.push('\n');
        let mut bytes = out.into_bytes();
        bytes.extend_from_slice(&self.note.encode());
        bytes
    }

    /// Reads a request. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > WITNESS_REQUEST_MAX {
            return Err(Refusal::Malformed("a request has fewer bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed("a request is UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(Refusal::Malformed("an empty line stands before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal);
        let old = old.ok_or(Refusal::Malformed("the first line is `old ` and a decimal number"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= WITNESS_PROOF_MAX {
                return Err(Refusal::Malformed("a proof has at most 63 lines"));
            }
            proof.push(Hash::from_base64(line).ok_or(Refusal::Malformed("a line of the proof is base64 of 32 bytes"))?);
        }
        let note = Note::parse_foreign(note.as_bytes()).map_err(|_| Refusal::Malformed("the checkpoint is not a signed note"))?;
        Ok(Self { old, proof, note })
    }
}

/// What a witness signed last of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it signed.
    pub checkpoint: Checkpoint,
    /// When, seconds since 1970.
    pub seconds: u64,
    /// The checkpoint with the log's signatures and the witness's own: what is stored, and what monitors are given.
    pub note: Vec<u8>,
}

/// A note is not one that this witness signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    /// The note is refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The witness's own signature is not there.
    #[error("the witness's own signature is missing")]
    NotOurs,
}

impl Seen {
    /// Reads a stored note; it must bear the signature of `own`.
    pub fn parse(bytes: &[u8], own: &VerifierKey) -> Result<Self, SeenError> {
        let note = Note::parse(bytes)?;
        let signed = note.verify(std::slice::from_ref(own))?;
        let seconds = signed.iter().find_map(|one| one.time).ok_or(SeenError::NotOurs)?;
        Ok(Self { checkpoint: parse_foreign(note.text())?, seconds, note: bytes.to_vec() })
    }
}

/// Why the state refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another request came first: ask again.
    #[error("another request for this log came first")]
    Raced,
    /// The state is older than what was signed: it was restored from a copy.
    #[error("{0}")]
    Restored(String),
    /// It cannot be read or written.
    #[error("{0}")]
    Failed(String),
}

/// What a witness remembers. The one port of this module.
pub trait WitnessState {
    /// What was signed last of a log; `None` if nothing ever was.
    fn last(&self, origin: &str) -> Result<Option<Seen>, StateError>;
    /// Compares with what was signed last, and sets. When this returns, a loss of power changes nothing any more.
    fn advance(&mut self, before: Option<&Seen>, next: &Seen) -> Result<(), StateError>;
}

/// Why a checkpoint is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are not a request.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The old size is above the checkpoint's.
    #[error("the old size is above the size of the checkpoint")]
    OldAbove,
    /// The log is not one of ours.
    #[error("unknown log")]
    UnknownLog,
    /// None of the log's keys signed.
    #[error("no signature of the checkpoint is by a key of this log")]
    NotSigned,
    /// A known key's signature fails.
    #[error("invalid signature: a key of this log is named and its signature does not verify")]
    BadSignature,
    /// The old size is not the one that was signed last, which is this.
    #[error("the size last signed is {0}")]
    Conflict(u64),
    /// A tree of no leaves has another root.
    #[error("an empty tree has the hash of the empty string as its root")]
    EmptyRoot,
    /// The same size and another root: two histories.
    #[error("consistency proof: a checkpoint of this size with another root was signed")]
    OtherRoot,
    /// The proof does not hold.
    #[error("consistency proof: it does not lead from the checkpoint last signed to this one")]
    Inconsistent,
    /// The clock lies far behind what was signed last.
    #[error("the clock of the witness is behind the time that it signed last: set it right")]
    ClockBack,
}

impl Refusal {
    /// The status that the protocol prescribes.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed(_) | Self::OldAbove => 400,
            Self::UnknownLog => 404,
            Self::NotSigned | Self::BadSignature => 403,
            Self::Conflict(_) => 409,
            Self::EmptyRoot | Self::OtherRoot | Self::Inconsistent => 422,
            Self::ClockBack => 503,
        }
    }

    /// Whether the request is well signed and contradicts what was signed before: it may prove that the log lies.
    #[must_use]
    pub const fn is_evidence(self) -> bool {
        matches!(self, Self::EmptyRoot | Self::OtherRoot | Self::Inconsistent)
    }
}

/// An answer, as HTTP carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict(size) => Self { status: 409, content_type: SIZE, body: format!("{size}\n").into_bytes() },
            Refusal::Malformed(_)
            | Refusal::OldAbove
            | Refusal::UnknownLog
            | Refusal::NotSigned
            | Refusal::BadSignature
            | Refusal::EmptyRoot
            | Refusal::OtherRoot
            | Refusal::Inconsistent
            | Refusal::ClockBack => {
                Self { status: refusal.status(), content_type: TEXT, body: format!("{refusal}\n").into_bytes() }
            }
        }
    }

    fn failed(error: &StateError) -> Self {
        Self { status: 503, content_type: TEXT, body: format!("{error}\n").into_bytes() }
    }
}

/// What became of a request: the answer, and why it is no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// What was refused. Keep the request where [`Refusal::is_evidence`] says so.
    pub refusal: Option<Refusal>,
    /// What the state refused.
    pub trouble: Option<StateError>,
}

impl Answered {
    fn refused(refusal: Refusal) -> Self {
        Self { answer: Answer::refused(refusal), refusal: Some(refusal), trouble: None }
    }
    fn trouble(error: StateError) -> Self {
        Self { answer: Answer::failed(&error), refusal: None, trouble: Some(error) }
    }
}

/// Answers `POST <prefix>/add-checkpoint`. `now` is in seconds since 1970.
pub fn add_checkpoint(
    request: &[u8],
    logs: &KnownLogs,
    state: &mut dyn WitnessState,
    signer: &dyn LogSigner,
    now: u64,
) -> Answered {
    let (request, checkpoint, known) = match admit(request, logs) {
        Ok(admitted) => admitted,
        Err(refusal) => return Answered::refused(refusal),
    };
    let last = match state.last(&checkpoint.origin) {
        Ok(last) => last,
        Err(error) => return Answered::trouble(error),
    };
    if let Err(refusal) = judge(&request, &checkpoint, last.as_ref()) {
        return Answered::refused(refusal);
    }
    let Some(seconds) = time(last.as_ref(), now) else { return Answered::refused(Refusal::ClockBack) };
    let signed = match sign(&request.note, &checkpoint, &known, signer, seconds) {
        Ok(signed) => signed,
        Err(why) => return Answered::trouble(StateError::Failed(why)),
    };
    let (next, line) = signed;
    // INVARIANT: remembered first, told afterwards.
    match state.advance(last.as_ref(), &next) {
        Ok(()) => Answered { answer: Answer { status: 200, content_type: TEXT, body: line.into_bytes() }, refusal: None, trouble: None },
        Err(error) => Answered::trouble(error),
    }
}

/// Answers `GET <prefix>/<origin hash>/checkpoint`.
pub fn monitored(origin_hash: &str, logs: &KnownLogs, state: &dyn WitnessState) -> Answer {
    let absent = || Answer { status: 404, content_type: TEXT, body: b"nothing was signed for this log\n".to_vec() };
    let Some(log) = logs.all().iter().find(|log| self::origin_hash(&log.origin) == origin_hash) else { return absent() };
    match state.last(&log.origin) {
        Ok(Some(seen)) => Answer { status: 200, content_type: TEXT, body: seen.note },
        Ok(None) => absent(),
        Err(error) => Answer::failed(&error),
    }
}

/// The name of a log on the monitoring prefix: SHA-256 of its origin, hexadecimal in lower case.
#[must_use]
pub fn origin_hash(origin: &str) -> String {
    hex::encode(sha256(&[origin.as_bytes()]))
}

/// Well formed, of a known log, signed by it.
fn admit(request: &[u8], logs: &KnownLogs) -> Result<(AddCheckpoint, Checkpoint, KnownLog), Refusal> {
    let request = AddCheckpoint::parse(request)?;
    let checkpoint = parse_foreign(request.note.text()).map_err(|_| Refusal::Malformed("the note is not a checkpoint"))?;
    let log = logs.find(&checkpoint.origin).ok_or(Refusal::UnknownLog)?;
    request.note.verify(&log.keys).map_err(|error| match error {
        NoteError::NoKnownSignature => Refusal::NotSigned,
        NoteError::TooLong
        | NoteError::Text
        | NoteError::Shape
        | NoteError::SignatureLine(_)
        | NoteError::TooManySignatures(_)
        | NoteError::AmbiguousKey(_)
        | NoteError::BadSignature(_)
        | NoteError::UnknownSignature(_)
        | NoteError::SignedTwice(_)
        | NoteError::Signer(_) => Refusal::BadSignature,
    })?;
    Ok((request, checkpoint, log.clone()))
}

/// Whether the checkpoint extends what was signed last.
fn judge(request: &AddCheckpoint, checkpoint: &Checkpoint, last: Option<&Seen>) -> Result<(), Refusal> {
    if request.old > checkpoint.size {
        return Err(Refusal::OldAbove);
    }
    let (size, root) = last.map_or_else(|| (0, empty_root()), |seen| (seen.checkpoint.size, seen.checkpoint.root));
    if request.old != size {
        return Err(Refusal::Conflict(size));
    }
    if checkpoint.size == 0 && checkpoint.root != empty_root() {
        return Err(Refusal::EmptyRoot);
    }
    if checkpoint.size == size && checkpoint.root != root {
        return Err(Refusal::OtherRoot);
    }
    verify_consistency(size, &root, checkpoint.size, &checkpoint.root, &request.proof).map_err(|_| Refusal::Inconsistent)
}

/// The time to sign: it never goes back for one log, and is never 0. A clock that is far behind gets no signature.
fn time(last: Option<&Seen>, now: u64) -> Option<u64> {
    let before = last.map_or(1, |seen| seen.seconds);
    let usable = now > 0 && i64::try_from(now).is_ok() && now.saturating_add(CLOCK_BACK_MAX_S) >= before;
    usable.then_some(now.max(before))
}

/// The signature's line, and the note that is remembered: the log's good signatures and our own.
fn sign(note: &Note, checkpoint: &Checkpoint, log: &KnownLog, signer: &dyn LogSigner, seconds: u64) -> Result<(Seen, String), String> {
    let own = verifier_of(signer, KeyKind::CosignatureV1).map_err(|error| error.to_string())?;
    let signature = cosign(signer, note.text(), seconds).map_err(|error| error.to_string())?;
    let line = signature.line();
    let mut kept = format!("{}\n", note.text());
    let mut written: Vec<&VerifierKey> = Vec::new();
    for one in note.signatures() {
        let key = log.keys.iter().find(|key| key.name() == one.name && key.id() == one.id);
        if let Some(key) = key.filter(|key| !written.contains(key)) {
            kept.push_str(&one.line());
            written.push(key);
        }
    }
    kept.push_str(&line);
    let next = Seen::parse(kept.as_bytes(), &own).map_err(|error| error.to_string())?;
    if next.checkpoint == *checkpoint { Ok((next, line)) } else { Err("the note reads back as another checkpoint".to_owned()) }
}
