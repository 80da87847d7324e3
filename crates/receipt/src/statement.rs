//! What the node says about one attempt, signed with its record key.

use audit::canonical::CanonicalError;
use serde::{Deserialize, Serialize};
use vocabulary::isolation::IsolationReport;
use vocabulary::job::{AttemptId, Exit};
use vocabulary::volume::RootHead;
use vocabulary::{
    DeploymentId, Jurisdiction, LeaseId, Name, NodeId, ProjectId, Region, SecretId, Sha256Digest, TenantId, UnixTime, VolumeId,
};

use crate::envelope::{Envelope, IN_TOTO, InToto, STATEMENT_TYPE, Signer, Subject, sha256};

/// The predicate of a node's statement.
pub const STATEMENT_PREDICATE: &str = "urn:swarm:job-statement:v1";

/// A volume that the attempt read or wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeUse {
    /// The root that was read, or that was committed.
    pub head: RootHead,
    /// The key lease under which.
    pub lease: LeaseId,
    /// The directory below `/inputs` or `/outputs`.
    pub name: Name,
    /// The signed root record (`volume` format: version, length, CBOR, key id, signature), base64; `None` for an input
    /// into which nothing was put yet.
    pub record: Option<String>,
    /// The volume.
    pub volume: VolumeId,
}

/// A secret that the attempt was given. Its value, and anything from which it could be guessed, stands nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretGiven {
    /// The lease under which it was released.
    pub lease: LeaseId,
    /// The file below `/run/secrets`.
    pub name: Name,
    /// The secret.
    pub secret: SecretId,
    /// Its version.
    pub version: u32,
}

/// What the node saw. Without a TEE this is its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The attempt.
    pub attempt: AttemptId,
    /// The command as it ran.
    pub command: Vec<String>,
    /// The deployment that the node belongs to.
    pub deployment: DeploymentId,
    /// How it ended.
    pub exit: Exit,
    /// The image's manifest.
    pub image: Sha256Digest,
    /// Volumes that it read.
    pub inputs: Vec<VolumeUse>,
    /// The layers of isolation as they were read back before the first instruction.
    pub isolation: IsolationReport,
    /// Where the node stands, as it was told when it joined.
    pub jurisdiction: Jurisdiction,
    /// Frames of the job's log that were lost before they were recorded.
    pub log_frames_lost: u64,
    /// The node.
    pub node: NodeId,
    /// Volumes that it wrote.
    pub outputs: Vec<VolumeUse>,
    /// The project.
    pub project: ProjectId,
    /// Where the node stands, as it was told when it joined.
    pub region: Region,
    /// The run lease.
    pub run_lease: LeaseId,
    /// Secrets that it was given. Left out where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretGiven>,
    /// The tenant.
    pub tenant: TenantId,
    /// When the node signed.
    pub time: UnixTime,
}

impl Statement {
    /// Signs it with the node's record key.
    pub fn sign(&self, record_key: &dyn Signer) -> Result<Envelope, CanonicalError> {
        Envelope::sign(&self.in_toto(), IN_TOTO, record_key)
    }

    /// The statement around it: its subjects are the image and the roots that were written.
    #[must_use]
    pub fn in_toto(&self) -> InToto<Self> {
        let mut subject = vec![Subject::new("image".to_owned(), &self.image)];
        subject.extend(
            self.outputs.iter().map(|output| Subject::new(format!("volume/{}", output.volume), &output.head.root)),
        );
        InToto {
            kind: STATEMENT_TYPE.to_owned(),
            predicate: self.clone(),
            predicate_type: STATEMENT_PREDICATE.to_owned(),
            subject,
        }
    }
}

/// The digest that the entry of a finished job binds: of the payload's bytes of the node's envelope.
pub fn statement_digest(envelope: &Envelope) -> Result<Sha256Digest, crate::envelope::EnvelopeError> {
    Ok(sha256(&envelope.payload_bytes()?))
}

/// The digest of a command, as the entry of a submitted job binds it: of its canonical JSON.
pub fn command_digest(command: &[String]) -> Result<Sha256Digest, CanonicalError> {
    Ok(sha256(&audit::canonical::to_vec(&command)?))
}
