//! What the control plane adds and signs: certificates, policy, labels, and log entries with their proofs.

use audit::canonical::{self, CanonicalError};
use audit::event::Evidence;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vocabulary::job::AttemptId;
use vocabulary::{DeploymentId, Profile, Sha256Digest, TenantId, UnixTime};

use crate::envelope::{Envelope, EnvelopeError, IN_TOTO, InToto, STATEMENT_TYPE, Signer, Subject, sha256};
use crate::limits::RECEIPT_MAX;
use crate::statement::statement_digest;

/// The format of a receipt.
pub const RECEIPT_FORMAT: &str = "swarm/receipt/v1";
/// The predicate of the control plane's record.
pub const RECORD_PREDICATE: &str = "urn:swarm:job-receipt:v1";

/// An entry of the log with its proof under the receipt's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedEntry {
    /// The body's bytes, base64.
    pub body: String,
    /// The index.
    pub index: u64,
    /// Sibling hashes from leaf to root, base64 each.
    pub proof: Vec<String>,
    /// The salt, base64 of 32 bytes.
    pub salt: String,
}

impl LoggedEntry {
    /// Puts an entry and its inclusion proof together.
    #[must_use]
    pub fn new(index: u64, salt: &[u8; 32], body: &[u8], proof: &[audit::Hash]) -> Self {
        Self {
            body: STANDARD.encode(body),
            index,
            proof: proof.iter().map(audit::Hash::base64).collect(),
            salt: STANDARD.encode(salt),
        }
    }
}

/// The part of the log that a receipt carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPart {
    /// The signed checkpoint (a C2SP note), base64.
    pub checkpoint: String,
    /// Entries, by rising index.
    pub entries: Vec<LoggedEntry>,
}

/// The policy set in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyVersion {
    /// The digest of the set.
    pub digest: Sha256Digest,
    /// Its epoch.
    pub epoch: u64,
}

/// What the control plane says about one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The attempt.
    pub attempt: AttemptId,
    /// The receipt key's certificate and its issuers up to, but without, the root; DER, base64.
    pub control_certificates: Vec<String>,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Evidence of hardware behind the node.
    pub evidence: Evidence,
    /// When it was made.
    pub issued: UnixTime,
    /// What must be said beside the facts: `simulated`, `waived:<what>`, `quorum-none`, ….
    pub labels: BTreeSet<String>,
    /// The log's part.
    pub log: LogPart,
    /// The certificate that the node used when the attempt was placed, and its issuers without the root; DER, base64.
    pub node_certificates: Vec<String>,
    /// The policy set under which the attempt was placed.
    pub policy: PolicyVersion,
    /// The deployment's profile.
    pub profile: Profile,
    /// SHA-256 of the payload of the node's envelope.
    pub statement: Sha256Digest,
    /// SHA-256 of the canonical JSON of the node's whole envelope.
    pub statement_envelope: Sha256Digest,
    /// The tenant.
    pub tenant: TenantId,
    /// The witness policy that the deployment works by (C2SP tlog-policy), base64; absent while none is set. Whose
    /// signatures count for a reader says the reader's own policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness_policy: Option<String>,
}

impl Record {
    /// The statement around it: its subject is the node's statement.
    #[must_use]
    pub fn in_toto(&self) -> InToto<Self> {
        InToto {
            kind: STATEMENT_TYPE.to_owned(),
            predicate: self.clone(),
            predicate_type: RECORD_PREDICATE.to_owned(),
            subject: vec![Subject::new(format!("job/{}", self.attempt), &self.statement)],
        }
    }
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The control plane's envelope around a [`Record`].
    pub control: Envelope,
    /// [`RECEIPT_FORMAT`].
    pub format: String,
    /// The node's envelope around a [`crate::statement::Statement`].
    pub node: Envelope,
}

/// Why a receipt was not made or not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not canonical JSON of the expected shape.
    #[error("the receipt is not in its canonical form")]
    Canonical(#[from] CanonicalError),
    /// An envelope is malformed.
    #[error("an envelope of the receipt is malformed")]
    Envelope(#[from] EnvelopeError),
    /// Another format.
    #[error("the format is not `{RECEIPT_FORMAT}`")]
    Format,
}

impl Receipt {
    /// Binds the node's envelope into `record` (its two digests are set here) and signs the whole with the receipt key.
    pub fn assemble(node: Envelope, mut record: Record, receipt_key: &dyn Signer) -> Result<Self, ReceiptError> {
        record.statement = statement_digest(&node)?;
        record.statement_envelope = envelope_digest(&node)?;
        let control = Envelope::sign(&record.in_toto(), IN_TOTO, receipt_key)?;
        Ok(Self { control, format: RECEIPT_FORMAT.to_owned(), node })
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Result<Vec<u8>, ReceiptError> {
        let bytes = canonical::to_vec(self)?;
        if bytes.len() > RECEIPT_MAX {
            return Err(CanonicalError::TooLong(RECEIPT_MAX).into());
        }
        Ok(bytes)
    }

    /// Reads a file in its one form. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let receipt: Self = canonical::from_slice(bytes, RECEIPT_MAX)?;
        if receipt.format == RECEIPT_FORMAT { Ok(receipt) } else { Err(ReceiptError::Format) }
    }
}

/// SHA-256 of the canonical JSON of an envelope.
pub fn envelope_digest(envelope: &Envelope) -> Result<Sha256Digest, CanonicalError> {
    Ok(sha256(&canonical::to_vec(envelope)?))
}
