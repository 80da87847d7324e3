//! The node's signed word about an ended attempt.

use audit::canonical::{self, CanonicalError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::StatementKey;
use receipt::{Signer, Statement};
use vocabulary::UnixTime;

use crate::attempt::Record;
use crate::store::NodeFile;

/// The record key as `receipt` asks for it: the envelope brings its own context along.
struct RecordKey<'a> {
    key: &'a StatementKey,
    public: [u8; 32],
}

impl Signer for RecordKey<'_> {
    fn public(&self) -> [u8; 32] {
        self.public
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(b"", message)
    }
}

/// Why a statement was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatementError {
    /// The attempt has no end, or no sandbox ever stood.
    #[error("the attempt has not ended, or no sandbox ever stood")]
    Incomplete,
    /// Something in it cannot be written in the one canonical form.
    #[error("the statement cannot be written: {0}")]
    Canonical(#[from] CanonicalError),
    /// The record key is not usable.
    #[error("the record key is not usable")]
    Key,
}

/// Makes and signs the statement: canonical JSON of the envelope, base64.
pub(crate) fn sign(record: &Record, node: &NodeFile, key: &StatementKey, now: UnixTime) -> Result<String, StatementError> {
    let planned = &record.planned;
    let statement = Statement {
        attempt: planned.attempt,
        command: record.argv.clone(),
        deployment: node.deployment,
        exit: record.exit.clone().ok_or(StatementError::Incomplete)?,
        image: planned.spec.image,
        inputs: record.inputs.clone(),
        isolation: record.isolation.clone().ok_or(StatementError::Incomplete)?,
        jurisdiction: node.place.jurisdiction.clone(),
        log_frames_lost: record.log_lost,
        node: node.node,
        outputs: record.outputs.clone(),
        project: planned.project,
        region: node.place.region.clone(),
        run_lease: planned.run_lease,
        secrets: record.secrets.clone(),
        tenant: planned.tenant,
        time: now,
    };
    let public = *key.public().map_err(|_| StatementError::Key)?.as_bytes();
    let envelope = statement.sign(&RecordKey { key, public })?;
    Ok(STANDARD.encode(canonical::to_vec(&envelope)?))
}
