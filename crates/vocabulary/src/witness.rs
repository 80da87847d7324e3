//! Witnesses of the log: what nodes and the control plane tell each other, and what people are shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{NodeId, Sha256Digest, UnixTime};

/// A node asks for something to sign, and brings what it answered to the last request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessPoll {
    /// The verifier key (C2SP signed-note, type 0x04) with which the node signs.
    pub key: String,
    /// The answer to the request that was offered last.
    pub answered: Option<WitnessAnswer>,
}

/// An answer of `POST <prefix>/add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessAnswer {
    /// The number of the offer.
    pub offer: u64,
    /// The status.
    pub status: u16,
    /// The body: signature lines, or with 409 the size last signed.
    pub body: String,
    /// What `GET <prefix>/HASH/checkpoint` would give: the checkpoint signed last, in case the request was not signed.
    pub monitored: Option<String>,
}

/// A request to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessOffer {
    /// The request; none when there is nothing to sign.
    pub request: Option<WitnessRequest>,
}

/// The body of a `POST <prefix>/add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessRequest {
    /// Its number: the answer names it.
    pub offer: u64,
    /// The body, byte for byte.
    pub body: String,
}

/// A new witness policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessPolicySet {
    /// The policy file (C2SP tlog-policy).
    pub policy: String,
}

/// What is known of the witnesses of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessState {
    /// The digest of the policy in force; none while no policy was set.
    pub policy: Option<Sha256Digest>,
    /// Whom it asks for, in a sentence.
    pub quorum: String,
    /// Entries of the newest checkpoint that the quorum signed.
    pub cosigned_size: Option<u64>,
    /// When the last witness of that quorum signed it.
    pub cosigned_at: Option<UnixTime>,
    /// Entries of the newest checkpoint that the log published.
    pub published_size: u64,
    /// `open`, `asking` (witnesses have to say first what they signed last), or `closed: …`: nothing is published.
    pub publishing: String,
    /// The witnesses of the policy, and nodes that offer themselves.
    pub witnesses: Vec<WitnessInfo>,
}

/// A witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessInfo {
    /// Its name in the policy; for a node that is not named there, the node's id.
    pub name: String,
    /// Its verifier key.
    pub key: String,
    /// Where it is asked: `node:ID` or an address.
    pub url: String,
    /// The node, if it is one.
    pub node: Option<NodeId>,
    /// Whether the policy names it.
    pub in_policy: bool,
    /// Entries of the checkpoint that it signed last for us.
    pub signed_size: Option<u64>,
    /// When, as the witness says.
    pub signed_at: Option<UnixTime>,
    /// How it answered last: `signed`, or why not.
    pub said: Option<String>,
}
