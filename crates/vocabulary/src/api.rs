//! The bodies of the API, `/v1` for people and programs and `/node/v1` for nodes.
//!
//! Every mutation's answer carries the index of its audit entry. Lists have a cursor and say when they are partial.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::job::{AttemptId, Exit, JobSpec, JobState};
use crate::lease::LeaseMode;
use crate::plan::{AttemptReport, BlobRef, NodeFacts, NodePlace};
use crate::volume::{RootHead, VolumeSpec};
use crate::{
    DeploymentId, ImageId, JobId, KeyId, LeaseId, Name, NodeId, PersonId, PrincipalId, Profile, ProjectId,
    ProviderId, Sensitivity, Sha256Digest, TenantId, TokenId, UnixTime, VolumeId,
};

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows that the principal may see.
    pub items: Vec<T>,
    /// Where to go on; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether there is more.
    pub truncated: bool,
}

/// The answer of a mutation that has nothing else to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// The entry in the audit log.
    pub audit_index: u64,
    /// Labels that apply, such as `second person waived (development)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Whether the server works. Public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ready` or `sealed`.
    pub state: String,
    /// The program's version.
    pub version: String,
}

/// What the deployment is, for principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its profile.
    pub profile: Profile,
    /// The program's version.
    pub version: String,
    /// The newest change.
    pub change_seq: u64,
    /// Entries in the log.
    pub audit_size: u64,
    /// Entries under the newest published checkpoint.
    pub published_size: u64,
    /// Nodes that reported lately.
    pub nodes_alive: u64,
    /// The server's time.
    pub now: UnixTime,
}

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// Platform staff; never touches a tenant's content.
    Operator,
    /// A person in one tenant.
    User,
    /// A program in one tenant.
    ServiceAccount,
}

/// Which principal a login shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoginAs {
    /// The person's operator principal.
    Operator,
    /// The person's user in the tenant of this name.
    Tenant(Name),
}

/// Logs a person in. Public.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The person's name.
    pub name: Name,
    /// The password.
    pub password: String,
    /// The newest TOTP code, six digits; or one recovery code.
    pub code: String,
    /// Which principal; may be left out by a person with only one.
    #[serde(default, rename = "as")]
    pub login_as: Option<LoginAs>,
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest").field("name", &self.name).field("as", &self.login_as).finish_non_exhaustive()
    }
}

/// A fresh token, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct IssuedToken {
    /// The token's id, which is no secret.
    pub id: TokenId,
    /// The token itself.
    pub token: String,
    /// When it ends.
    pub expires: UnixTime,
    /// Whose it is.
    pub principal: PrincipalId,
    /// The entry in the audit log.
    pub audit_index: u64,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// First step of enrolment: shows the ticket, gets the TOTP secret. Public.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolBegin {
    /// The one-time ticket.
    pub ticket: String,
}

impl std::fmt::Debug for EnrolBegin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolBegin").finish_non_exhaustive()
    }
}

/// What a ticket is for, and what the authenticator of somebody without factors needs. Asking again with the same ticket gives
/// the same secret until the ticket is spent.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolOffer {
    /// The person's name.
    pub name: Name,
    /// Whether the person has factors in this deployment already: then they prove those, and get no new ones.
    pub enrolled: bool,
    /// The TOTP secret in base32, for a person without factors.
    pub totp_secret: Option<String>,
    /// The same as an `otpauth://` URI.
    pub totp_uri: Option<String>,
    /// The tenant that the person joins by the ticket. None for an operator's.
    pub tenant: Option<Name>,
    /// The roles that they will have there.
    pub roles: Vec<String>,
}

impl std::fmt::Debug for EnrolOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolOffer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Second step of enrolment: sets password and authenticator, or proves those that the person has; spends the ticket. Public.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolComplete {
    /// The one-time ticket.
    pub ticket: String,
    /// The new password, at least 12 characters; of somebody with factors, their password.
    pub password: String,
    /// A code of the new authenticator; of somebody with factors, of theirs, or a recovery code.
    pub code: String,
}

impl std::fmt::Debug for EnrolComplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolComplete").finish_non_exhaustive()
    }
}

/// Recovery codes, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Enrolled {
    /// The person.
    pub person: PersonId,
    /// Ten one-time codes that replace the second factor; none for somebody who had factors.
    pub recovery_codes: Vec<String>,
    /// The entry in the audit log.
    pub audit_index: u64,
}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolled").field("person", &self.person).finish_non_exhaustive()
    }
}

/// Confirms a pending step-up.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepUpProof {
    /// A fresh TOTP code.
    pub code: String,
}

impl std::fmt::Debug for StepUpProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepUpProof").finish_non_exhaustive()
    }
}

/// Who I am.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// The principal.
    pub principal: PrincipalId,
    /// Its kind.
    pub kind: PrincipalKind,
    /// Its name.
    pub name: Name,
    /// Its person, for operators and users.
    pub person: Option<PersonId>,
    /// Its tenant, for users and service accounts.
    pub tenant: Option<TenantId>,
    /// Its tenant's name.
    pub tenant_name: Option<Name>,
    /// Its roles: `admin`, `engineer`, `viewer`, `auditor`, or those with `@project-id`.
    pub roles: Vec<String>,
    /// When the token ends.
    pub expires: UnixTime,
}

/// Makes a tenant, with its first administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantCreate {
    /// Unique in the deployment.
    pub name: Name,
    /// The first administrator, who comes in with a ticket; none is needed where it is the caller. The same request again gives
    /// a new ticket as long as nobody has come in.
    pub admin: Name,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// The tenant.
    pub id: TenantId,
    /// Its name.
    pub name: Name,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Its revision.
    pub revision: u64,
}

/// A person's way in, shown once. It is the same whether the person is known elsewhere or not.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The principal that was made.
    pub principal: PrincipalId,
    /// The one-time ticket; none only where callers made themselves a principal.
    pub ticket: Option<String>,
    /// When the ticket ends.
    pub expires: Option<UnixTime>,
    /// The entry in the audit log.
    pub audit_index: u64,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// The answer to [`TenantCreate`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantCreated {
    /// The tenant.
    pub tenant: Tenant,
    /// Its administrator's way in.
    pub admin: Invitation,
}

/// Makes a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectCreate {
    /// Unique in the tenant.
    pub name: Name,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// The project.
    pub id: ProjectId,
    /// Its name.
    pub name: Name,
    /// Its revision.
    pub revision: u64,
    /// The entry in the audit log, in the answer of a create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}

/// Makes a user of this tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// The person's name. Names are the deployment's: a person who has factors proves them to come in. Who was invited and has
    /// not come in gets a new ticket, and the old one is void.
    pub name: Name,
    /// Roles: `admin`, `engineer`, `viewer`, `auditor`; `engineer@PROJECT-ID` for one project.
    pub roles: Vec<String>,
    /// The most sensitive data that the user may touch.
    pub clearance: Sensitivity,
}

/// Makes a service account of this tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountCreate {
    /// Unique in the tenant.
    pub name: Name,
    /// Roles, as for users.
    pub roles: Vec<String>,
    /// The most sensitive data that it may touch.
    pub clearance: Sensitivity,
}

/// A principal of this tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Principal {
    /// The principal.
    pub id: PrincipalId,
    /// Its kind.
    pub kind: PrincipalKind,
    /// Its name.
    pub name: Name,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its clearance.
    pub clearance: Sensitivity,
    /// Whether its person has not redeemed the ticket yet: until then nobody acts as it.
    #[serde(default)]
    pub invited: bool,
    /// Its revision.
    pub revision: u64,
}

/// Changes roles and clearance of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrincipalUpdate {
    /// All roles from now on.
    pub roles: Vec<String>,
    /// The clearance from now on.
    pub clearance: Sensitivity,
}

/// Makes a token for oneself (`pat`) or for a service account (`svc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// The service account; absent means oneself.
    #[serde(default)]
    pub service_account: Option<PrincipalId>,
    /// Life in seconds, 60 to 31,536,000.
    pub lifetime_s: u64,
    /// What it is for.
    pub note: Name,
}

/// A token in a list: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// `ses`, `pat`, `svc`, `join` or `enr`.
    pub kind: String,
    /// Whose it is.
    pub principal: Option<PrincipalId>,
    /// When it was made.
    pub created: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
    /// When it was used last, to the minute.
    pub last_used: Option<UnixTime>,
    /// When it was revoked.
    pub revoked: Option<UnixTime>,
    /// The token that it was made with: it ends with that one at the latest.
    #[serde(default)]
    pub parent: Option<TokenId>,
    /// What it is for.
    pub note: Option<Name>,
}

/// Makes a join token for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenCreate {
    /// The node's name, unique in the deployment.
    pub name: Name,
    /// Where it stands and what it is for.
    pub place: NodePlace,
    /// Life in seconds, 60 to 3,600.
    pub lifetime_s: u64,
}

/// Drains a node: nothing new is placed on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDrain {
    /// In how many seconds what is still on it is sent away, 0 to 604,800; absent: its jobs end by themselves.
    #[serde(default)]
    pub deadline_s: Option<u64>,
}

/// Sets a node apart for a tenant, or gives it to all again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDedicate {
    /// The tenant whose jobs alone it takes from now on; absent: everybody's.
    #[serde(default)]
    pub tenant: Option<TenantId>,
}

/// A join token and the line to type.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// The token's id.
    pub id: TokenId,
    /// The token, shown once.
    pub token: String,
    /// The root certificate's pin for the join line.
    pub ca_pin: String,
    /// When it ends.
    pub expires: UnixTime,
    /// The entry in the audit log.
    pub audit_index: u64,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Enrols a node. Public: the join token is the credential.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeEnrol {
    /// The join token.
    pub token: String,
    /// A certificate request for the node's TLS key, DER, base64. Only its public key is taken.
    pub csr: String,
    /// The node's record key: Ed25519, 32 bytes, base64.
    pub record_key: String,
    /// The record key's signature over `swarm/record-key/v1` ‖ SHA-256(csr), base64.
    pub record_proof: String,
    /// What the node is and has.
    pub facts: NodeFacts,
}

impl std::fmt::Debug for NodeEnrol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeEnrol").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// The node's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeEnrolled {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Its place.
    pub place: NodePlace,
    /// Leaf, then issuing CA, DER, base64.
    pub chain: Vec<String>,
    /// The deployment's public file, verbatim.
    pub deployment_file: String,
    /// The port of the node channel, beside the API's host.
    pub node_port: u16,
    /// When the certificate ends.
    pub not_after: UnixTime,
    /// The entry in the audit log.
    pub audit_index: u64,
}

/// Renews a node's certificate over the node channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRenew {
    /// A certificate request, DER, base64.
    pub csr: String,
}

/// The renewed certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRenewed {
    /// Leaf, then issuing CA, DER, base64.
    pub chain: Vec<String>,
    /// When the certificate ends.
    pub not_after: UnixTime,
}

/// A node, for operators; for tenants without facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Who owns it.
    pub provider: Option<ProviderId>,
    /// Its place.
    pub place: NodePlace,
    /// `alive`, `lost`, `draining` or `revoked`.
    pub state: String,
    /// When it reported last.
    pub last_seen: Option<UnixTime>,
    /// What it is and has.
    pub facts: Option<NodeFacts>,
    /// Attempts placed on it.
    pub jobs: u32,
    /// Of these, how many are told to go because its drain has reached its deadline.
    pub leaving: u32,
    /// While it is draining: when what is still on it is sent away; absent where jobs end by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<UnixTime>,
    /// The tenant for which it is set apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<TenantId>,
    /// Its revision.
    pub revision: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// The volume.
    pub id: VolumeId,
    /// What was asked for.
    pub spec: VolumeSpec,
    /// The least trust of a node that may open it.
    pub min_trust: u8,
    /// Its newest root.
    pub head: RootHead,
    /// When it was made.
    pub created: UnixTime,
    /// Its revision.
    pub revision: u64,
    /// The entry in the audit log, in the answer of a create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}

/// Commits a new root: compared with the current one and set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeCommit {
    /// The write lease.
    pub lease: LeaseId,
    /// The signed root record, base64; it lies at `chain/<seq>` too.
    pub record: String,
}

/// The new head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeCommitted {
    /// The head from now on.
    pub head: RootHead,
    /// The entry in the audit log.
    pub audit_index: u64,
}

/// Registers an image after its blobs were uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// The tenant's name for it.
    pub name: Name,
    /// The manifest's digest.
    pub manifest: Sha256Digest,
    /// Manifest, config and layers.
    pub blobs: Vec<BlobRef>,
    /// Where it was pulled from, as whoever pulled it says: `HOST/NAME:TAG` at that moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// The name's id.
    pub id: ImageId,
    /// The tenant's name for it.
    pub name: Name,
    /// The manifest's digest.
    pub manifest: Sha256Digest,
    /// Bytes of all blobs.
    pub size: u64,
    /// Where it was pulled from, as whoever pulled it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was imported.
    pub created: UnixTime,
    /// The entry in the audit log, in the answer of a create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}

/// Submits a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobCreate {
    /// The project.
    pub project: ProjectId,
    /// What it is.
    pub spec: JobSpec,
}

/// Why a job is not on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Misfit {
    /// The node's name.
    pub node: Name,
    /// The constraint that failed there, such as `region is eu-west, the job asks for eu-central`.
    pub constraint: String,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// The job.
    pub id: JobId,
    /// Its project.
    pub project: ProjectId,
    /// What it is.
    pub spec: JobSpec,
    /// Who submitted it.
    pub owner: PrincipalId,
    /// The state of its newest attempt.
    pub state: JobState,
    /// The number of its newest attempt; 0 before the first.
    pub attempt: u32,
    /// The node of its newest attempt.
    pub node: Option<NodeId>,
    /// That node's name.
    pub node_name: Option<Name>,
    /// What the node said last.
    pub report: Option<AttemptReport>,
    /// While it is pending: why, node by node.
    pub misfits: Vec<Misfit>,
    /// While it is pending: the quota that holds it back, whatever the nodes have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Whether its receipt is ready.
    pub receipt_ready: bool,
    /// When it was submitted.
    pub created: UnixTime,
    /// Its revision.
    pub revision: u64,
    /// The entry in the audit log, in the answer of a create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
}

/// Logs from a node, to be sealed under the tenant's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogBatch {
    /// The attempt.
    pub attempt: AttemptId,
    /// Frames in order.
    pub frames: Vec<crate::job::LogFrame>,
}

/// How far the log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAck {
    /// The last sequence that is durable; send what follows.
    pub sequence: u64,
}

/// The node's signed statement about an ended attempt; the control plane builds the receipt from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatementUpload {
    /// The attempt.
    pub attempt: AttemptId,
    /// The statement, as crate `receipt` defines it, base64.
    pub statement: String,
}

/// A key in the inventory: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyInfo {
    /// The key.
    pub id: KeyId,
    /// Its version.
    pub version: u32,
    /// What it is for: `tenant-kek`, `volume`, ….
    pub purpose: String,
    /// What it belongs to.
    pub owner: String,
    /// Its state, in the words of NIST SP 800-57.
    pub state: String,
    /// When it was made.
    pub created: UnixTime,
    /// When it will be destroyed, while that is scheduled and can be cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_at: Option<UnixTime>,
    /// The first date of its shredding: gone from the living system since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<UnixTime>,
    /// The second date: unrecoverable from backups since. It may lie ahead; until then the shredding is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecoverable_since: Option<UnixTime>,
}

/// One entry of the audit log, as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its index.
    pub index: u64,
    /// The body: one OCSF event, the exact bytes that were hashed, as a JSON text.
    pub body: String,
    /// The salt, base64 of 32 bytes.
    pub salt: String,
    /// When it happened.
    pub time: UnixTime,
    /// Who did it.
    pub actor: Option<String>,
    /// What was done.
    pub action: String,
    /// To what.
    pub resource: Option<String>,
    /// `allowed`, `refused` or `failed`.
    pub outcome: String,
}

/// The personal values of an entry, opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditRevealed {
    /// The values.
    pub values: Vec<RevealedValue>,
    /// The entry that says who looked.
    pub audit_index: u64,
}

/// A personal value of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevealedValue {
    /// The OCSF field.
    pub path: String,
    /// The person's id.
    pub subject: String,
    /// The value; none when it was erased.
    pub value: Option<String>,
    /// Whether its key was destroyed: the person was erased.
    pub erased: bool,
}

/// Erases a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonErase {
    /// The person's name.
    pub name: Name,
}

/// An entry with its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditProof {
    /// The entry.
    pub entry: AuditEntry,
    /// A `.tlog-proof` (C2SP), verbatim.
    pub proof: String,
}

/// Asks what would be decided, or why something was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyExplain {
    /// A decision that was recorded; or else the three below.
    #[serde(default)]
    pub audit_index: Option<u64>,
    /// The principal.
    #[serde(default)]
    pub principal: Option<PrincipalId>,
    /// The action's name, such as `volumeRead`.
    #[serde(default)]
    pub action: Option<String>,
    /// The resource, such as `volume/0190…`.
    #[serde(default)]
    pub resource: Option<String>,
}

/// The explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyExplained {
    /// `allowed` or `refused`.
    pub decision: String,
    /// The rules that decided, with their text.
    pub rules: Vec<RuleText>,
    /// What would have to change, in sentences.
    pub next: Vec<String>,
    /// The policy epoch it was decided under.
    pub policy_epoch: u64,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleText {
    /// Its id.
    pub id: String,
    /// Its Cedar text.
    pub text: String,
}

/// A lease in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseInfo {
    /// The lease.
    pub id: LeaseId,
    /// Its volume.
    pub volume: VolumeId,
    /// What for.
    pub mode: LeaseMode,
    /// When it ends.
    pub expires: UnixTime,
    /// When it was ended before.
    pub ended: Option<UnixTime>,
}

/// A change, as `/v1/watch` tells it: fetch the thing to see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The change sequence, also the event's id.
    pub seq: u64,
    /// The kind of resource.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its revision.
    pub revision: u64,
}
