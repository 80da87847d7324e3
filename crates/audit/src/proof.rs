//! `.tlog-proof` files (C2SP tlog-proof): index, sibling hashes and a signed checkpoint in one text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::{Hash, leaf_hash};
use crate::key::VerifierKey;
use crate::limits::{EXTRA_MAX, PROOF_FILE_MAX, PROOF_MAX};
use crate::merkle::{ProofError, verify_inclusion};
use crate::note::{Note, NoteError, Signed};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// A proof that a leaf stands in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Anything; **not authenticated**: decide nothing from it.
    pub extra: Option<Vec<u8>>,
    /// The leaf's index.
    pub index: u64,
    /// Siblings from leaf to root.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: Note,
}

/// Why a proof file is refused, one error for each step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Longer than any proof.
    #[error("a proof file has at most {PROOF_FILE_MAX} bytes")]
    TooLong,
    /// Not the format.
    #[error("not a proof file: line {0} is malformed")]
    Line(usize),
    /// The checkpoint is no note.
    #[error("the checkpoint of the proof is malformed")]
    Note(#[source] NoteError),
    /// The checkpoint is not by this log, or its signature fails.
    #[error("the checkpoint of the proof does not verify")]
    Checkpoint(#[from] CheckpointError),
    /// Fewer good cosignatures than asked for.
    #[error("{found} of {wanted} witnesses signed the checkpoint")]
    Witnesses {
        /// Witnesses with a good cosignature.
        found: usize,
        /// Witnesses asked for.
        wanted: usize,
    },
    /// The hashes do not lead from the leaf to the root.
    #[error("the leaf is not in the log")]
    Inclusion(#[from] ProofError),
}

/// What a proof proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// The index.
    pub index: u64,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Witnesses whose cosignature is good.
    pub witnesses: Vec<Signed>,
}

impl TlogProof {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            out.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        out.push_str(&format!("index {}\n", self.index));
        for hash in &self.hashes {
            out.push_str(&format!("{hash}\n"));
        }
        out.push('\n');
        let mut bytes = out.into_bytes();
        bytes.extend_from_slice(&self.checkpoint.encode());
        bytes
    }

    /// Reads a file. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        if bytes.len() > PROOF_FILE_MAX {
            return Err(TlogProofError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TlogProofError::Line(1))?;
        let (head, note) = text.split_once("\n\n").ok_or(TlogProofError::Line(1))?;
        let mut lines = head.split('\n').zip(1..).peekable();
        if lines.next().map(|(line, _)| line) != Some(HEADER) {
            return Err(TlogProofError::Line(1));
        }
        let mut extra = None;
        if let Some((line, number)) = lines.next_if(|(line, _)| line.starts_with("extra ")) {
            let malformed = TlogProofError::Line(number);
            let base64 = line.strip_prefix("extra ").ok_or_else(|| malformed.clone())?;
            extra = Some(STANDARD.decode(base64).ok().filter(|x| x.len() <= EXTRA_MAX).ok_or(malformed)?);
        }
        let (line, number) = lines.next().ok_or(TlogProofError::Line(2))?;
        let digits = line.strip_prefix("index ").ok_or(TlogProofError::Line(number))?;
        let index: u64 = digits.parse().map_err(|_| TlogProofError::Line(number))?;
        if index.to_string() != digits {
            return Err(TlogProofError::Line(number));
        }
        let mut hashes = Vec::new();
        for (line, number) in lines {
            if hashes.len() >= PROOF_MAX {
                return Err(TlogProofError::Line(number));
            }
            hashes.push(Hash::from_base64(line).ok_or(TlogProofError::Line(number))?);
        }
        let checkpoint = Note::parse(note.as_bytes()).map_err(TlogProofError::Note)?;
        Ok(Self { extra, index, hashes, checkpoint })
    }

    /// Verifies in this order: origin and signature of the log, cosignatures (`quorum` of `witnesses`), inclusion.
    pub fn verify(
        &self,
        leaf: &[u8],
        log: &VerifierKey,
        witnesses: &[VerifierKey],
        quorum: usize,
    ) -> Result<Included, TlogProofError> {
        let (checkpoint, cosigned) = Checkpoint::verify(&self.checkpoint, log, witnesses)?;
        // INVARIANT: one public key counts once, under however many names, and the log's own never counts.
        let distinct: BTreeSet<&[u8; 32]> = cosigned
            .iter()
            .filter(|one| one.time.is_some() && one.key.public() != log.public())
            .map(|one| one.key.public())
            .collect();
        let found = distinct.len();
        if found < quorum {
            return Err(TlogProofError::Witnesses { found, wanted: quorum });
        }
        verify_inclusion(leaf_hash(leaf), self.index, checkpoint.size, &self.hashes, &checkpoint.root)?;
        Ok(Included { index: self.index, checkpoint, witnesses: cosigned })
    }
}
