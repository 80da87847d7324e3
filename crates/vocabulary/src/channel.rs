//! The node channel: the paths on the control plane's node listener (mutual TLS 1.3, HTTP/2, JSON).
//!
//! The node is known by its certificate, the attempt by the path; the tenant comes from the stored placement and is
//! never sent. Every path that acts for an attempt is refused unless the attempt is placed on the calling node, is the
//! newest of its job, and its run lease lives.

use crate::job::AttemptId;
use crate::{SecretId, Sha256Digest, VolumeId};

/// `GET ?after=REVISION`: a stream of JSON lines, one [`crate::plan::SignedPlan`] at once if the revision is newer than
/// `after`, then one for each newer plan. An empty line every [`PLAN_KEEPALIVE_MS`] says that the connection lives.
pub const PLAN: &str = "/node/v1/plan";
/// `POST` [`crate::plan::NodeReport`] → [`crate::plan::ReportAnswer`]. Renews the run leases of the attempts in it.
pub const REPORT: &str = "/node/v1/report";
/// `POST` [`crate::api::NodeRenew`] → [`crate::api::NodeRenewed`].
pub const CERTIFICATE: &str = "/node/v1/certificate";
/// `GET` → [`crate::plan::ImageBlobs`].
pub const IMAGE: &str = "/node/v1/attempts/{job}/{attempt}/image";
/// `GET` → the blob's bytes; only blobs of the attempt's own image.
pub const IMAGE_BLOB: &str = "/node/v1/attempts/{job}/{attempt}/image/{digest}";
/// `POST` [`crate::lease::LeaseRequest`] → [`crate::lease::Lease`]; only volumes that the job names, in its mode.
pub const LEASE: &str = "/node/v1/attempts/{job}/{attempt}/volumes/{volume}/lease";
/// `POST` [`crate::secret::SecretRequest`] → [`crate::secret::ReleasedSecret`]; only secrets that the job names.
pub const SECRET: &str = "/node/v1/attempts/{job}/{attempt}/secrets/{secret}";
/// `GET`, `PUT` bytes of a sealed object, with the lease's id in the header `swarm-lease`.
pub const OBJECT: &str = "/node/v1/attempts/{job}/{attempt}/volumes/{volume}/objects/{*path}";
/// `POST` [`crate::api::VolumeCommit`] → [`crate::api::VolumeCommitted`].
pub const COMMIT: &str = "/node/v1/attempts/{job}/{attempt}/volumes/{volume}/commit";
/// `POST` [`crate::api::LogBatch`] → [`crate::api::LogAck`].
pub const LOGS: &str = "/node/v1/attempts/{job}/{attempt}/logs";
/// `POST` [`crate::api::StatementUpload`] → [`crate::api::Done`]. Sending the same statement again changes nothing.
pub const STATEMENT: &str = "/node/v1/attempts/{job}/{attempt}/statement";

/// `POST` [`crate::witness::WitnessPoll`] → [`crate::witness::WitnessOffer`]: the node brings the answer to the request that it
/// was given last, and waits up to [`WITNESS_WAIT_MS`] for the next one. Requests and answers are those of C2SP's
/// `tlog-witness`, byte for byte; only who calls is turned round, since a node listens on nothing.
pub const WITNESS: &str = "/node/v1/witness";

/// `POST` [`NodeLogOffer`] → [`NodeLogKept`]: the node's own log, as it signed it, is kept in the deployment's log.
pub const NODE_LOG: &str = "/node/v1/log";

/// A checkpoint of the log that a node keeps of what it did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLogOffer {
    /// The checkpoint (C2SP tlog-checkpoint), signed by the node's record key.
    pub checkpoint: String,
    /// How many entries were kept last, as the node knows it.
    pub old: u64,
    /// The proof that nothing of them was changed: base64 of 32 bytes each, at most 64.
    pub proof: Vec<String>,
}

/// How many entries of a node's log are kept now. When it is not what was offered, `old` was not what was kept: offer again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLogKept {
    /// So many.
    pub size: u64,
}

/// Milliseconds that the answer to [`WITNESS`] may take when there is nothing to sign.
pub const WITNESS_WAIT_MS: u64 = 10_000;
/// Milliseconds between two empty lines of the plan's stream.
pub const PLAN_KEEPALIVE_MS: u64 = 10_000;
/// Milliseconds between two reports of a node that has nothing new to say (decision 3.1).
pub const HEARTBEAT_MS: u64 = 5_000;

/// A path of an attempt: the template with job and attempt filled in.
#[must_use]
pub fn attempt(template: &str, attempt: AttemptId) -> String {
    template.replace("{job}", &attempt.job.to_string()).replace("{attempt}", &attempt.attempt.to_string())
}

/// A path of a volume of an attempt; `object` fills `{*path}` where the template has it.
#[must_use]
pub fn volume(template: &str, of: AttemptId, volume: VolumeId, object: &str) -> String {
    attempt(template, of).replace("{volume}", &volume.to_string()).replace("{*path}", object)
}

/// The path of a secret of an attempt.
#[must_use]
pub fn secret(of: AttemptId, secret: SecretId) -> String {
    attempt(SECRET, of).replace("{secret}", &secret.to_string())
}

/// The path of a blob of an attempt's image.
#[must_use]
pub fn image_blob(of: AttemptId, digest: Sha256Digest) -> String {
    attempt(IMAGE_BLOB, of).replace("{digest}", &digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobId;

    #[test]
    fn templates_are_filled() {
        let of = AttemptId { job: JobId::from_bytes([1; 16]), attempt: 2 };
        let volume = volume(OBJECT, of, VolumeId::from_bytes([2; 16]), "seg/00");
        assert!(volume.ends_with("/2/volumes/02020202-0202-0202-0202-020202020202/objects/seg/00") && !volume.contains('{'));
        assert!(!image_blob(of, Sha256Digest::from_bytes([0; 32])).contains('{'));
        assert!(!secret(of, SecretId::from_bytes([0; 16])).contains('{'));
    }
}
