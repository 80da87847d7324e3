//! Checkpoints (C2SP tlog-checkpoint): origin, size and root of a log, signed as a note.

use crate::hash::Hash;
use crate::key::{KeyKind, LogSigner, VerifierKey, is_name};
use crate::note::{Note, NoteError};

/// The three facts that a log signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, which is its key's name.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note is refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not three lines.
    #[error("a checkpoint has three lines: origin, size, root")]
    Shape,
    /// The first line is no name.
    #[error("the origin of the checkpoint is malformed")]
    Origin,
    /// Not a decimal number without leading zeroes.
    #[error("the size of the checkpoint is not a decimal number")]
    Size,
    /// Not base64 of 32 bytes.
    #[error("the root of the checkpoint is not base64 of 32 bytes")]
    Root,
    /// Lines that no monitor can check.
    #[error("the checkpoint has extension lines, which nobody can audit")]
    Extension,
    /// Another log's checkpoint.
    #[error("the checkpoint is of the log `{0}`")]
    OtherOrigin(String),
    /// The log's own signature is not among the good ones.
    #[error("the log's own signature is missing")]
    NotSignedByLog,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// Reads the text of a checkpoint; extension lines are refused.
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let text = text.strip_suffix('\n').ok_or(CheckpointError::Shape)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Shape);
        };
        if lines.next().is_some() {
            return Err(CheckpointError::Extension);
        }
        if !is_name(origin) {
            return Err(CheckpointError::Origin);
        }
        let number: u64 = size.parse().map_err(|_| CheckpointError::Size)?;
        if number.to_string() != size {
            return Err(CheckpointError::Size);
        }
        let root = Hash::from_base64(root).ok_or(CheckpointError::Root)?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }

    /// Signs it. The signer's name must be the origin.
    pub fn sign(&self, signer: &dyn LogSigner) -> Result<Note, CheckpointError> {
        if signer.name() != self.origin {
            return Err(CheckpointError::OtherOrigin(self.origin.clone()));
        }
        Ok(Note::sign(&self.text(), &[signer])?)
    }

    /// Reads a note, checks the log's signature (and those of other keys in `others` that are there), and returns
    /// the checkpoint with the verified cosigners.
    pub fn verify(
        note: &Note,
        log: &VerifierKey,
        others: &[VerifierKey],
    ) -> Result<(Self, Vec<crate::note::Signed>), CheckpointError> {
        let keys = with(log, others);
        let signed = note.verify(&keys)?;
        Self::finish(note, log, signed)
    }

    /// As [`Checkpoint::verify`], and refuses signature lines by unknown keys.
    pub fn verify_strict(
        note: &Note,
        log: &VerifierKey,
        others: &[VerifierKey],
    ) -> Result<(Self, Vec<crate::note::Signed>), CheckpointError> {
        let keys = with(log, others);
        let signed = note.verify_strict(&keys)?;
        Self::finish(note, log, signed)
    }

    fn finish(
        note: &Note,
        log: &VerifierKey,
        signed: Vec<crate::note::Signed>,
    ) -> Result<(Self, Vec<crate::note::Signed>), CheckpointError> {
        if log.kind() != KeyKind::Ed25519 || !signed.iter().any(|one| one.key == *log) {
            return Err(CheckpointError::NotSignedByLog);
        }
        let checkpoint = Self::parse_text(note.text())?;
        if checkpoint.origin != log.name() {
            return Err(CheckpointError::OtherOrigin(checkpoint.origin));
        }
        let cosigned = signed.into_iter().filter(|one| one.key != *log).collect();
        Ok((checkpoint, cosigned))
    }
}

fn with(log: &VerifierKey, others: &[VerifierKey]) -> Vec<VerifierKey> {
    std::iter::once(log).chain(others).cloned().collect()
}
