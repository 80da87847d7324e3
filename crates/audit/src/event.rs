//! What is recorded: one variant for each kind of thing that happens.
//!
//! The data of a variant stands in the body under `unmapped.swarm.event`, beside the OCSF fields that [`crate::entry`]
//! derives from it. A name of a person, an address or another personal value is never a field here: see
//! [`crate::sealed`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vocabulary::job::{AttemptId, ExitReason, JobState, PlaceDemands};
use vocabulary::lease::{LeaseEnd, LeaseHolder, LeaseMode};
use vocabulary::plan::NodePlace;
use vocabulary::quota::QuotaLimits;
use vocabulary::secret::SecretUse;
use vocabulary::{
    DeploymentId, EntryId, ErrorCode, ImageId, Jurisdiction, KeyId, LeaseId, LineageId, Name, NodeId, PersonId, PrincipalId,
    Profile, ProjectId, Purpose, Region, SecretId, Sensitivity, Sha256Digest, StepUpId, TenantId, TokenId, UnixTime, VolumeId,
};

/// What was done to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was made.
    Created,
    /// It was changed.
    Updated,
    /// It was switched off.
    Disabled,
    /// It was switched on again.
    Enabled,
    /// It was removed.
    Deleted,
}

/// A factor of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// A password.
    Password,
    /// A time-based one-time code.
    Totp,
    /// A passkey.
    Passkey,
    /// A recovery code.
    RecoveryCode,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A person's login.
    Login,
    /// A service account's.
    Service,
    /// Lets one node join.
    Join,
    /// Enrols one person's factors.
    Ticket,
}

/// What evidence stood behind a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// None: the node's own word.
    None,
}

/// Something that happened. Names are in the past tense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are named by the vocabulary's words; each variant says what happened")]
pub enum Event {
    // --- people and credentials ---
    /// A person logged in and holds a token.
    LoggedIn { person: PersonId, factors: Vec<Factor>, token: TokenId },
    /// A login was refused; `person` only where the name was right.
    LoginRefused { person: Option<PersonId>, code: ErrorCode },
    /// A token was given back.
    LoggedOut { token: TokenId },
    /// A factor was enrolled.
    FactorEnrolled { person: PersonId, factor: Factor },
    /// A factor was removed.
    FactorRemoved { person: PersonId, factor: Factor },
    /// A recovery code was spent.
    RecoveryCodeUsed { person: PersonId, left: u32 },
    /// A request was confirmed with a fresh factor.
    StepUpPassed { step_up: StepUpId, request: Sha256Digest, factor: Factor },
    /// A confirmation was refused.
    StepUpRefused { step_up: StepUpId, code: ErrorCode },
    /// A token was issued to `holder`, or to nobody yet (tickets and join tokens).
    TokenIssued { token: TokenId, token_kind: TokenKind, holder: Option<PrincipalId>, expires: UnixTime },
    /// A token was spent (tickets and join tokens work once).
    TokenSpent { token: TokenId, token_kind: TokenKind },
    /// A token was revoked.
    TokenRevoked { token: TokenId, token_kind: TokenKind },
    /// A certificate was issued; `certificate` is the digest of its DER.
    CertificateIssued {
        certificate: Sha256Digest,
        serial: String,
        issuer: String,
        subject: String,
        node: Option<NodeId>,
        not_before: UnixTime,
        not_after: UnixTime,
    },
    /// A certificate was revoked.
    CertificateRevoked { serial: String, issuer: String, node: Option<NodeId> },
    // --- tenants, projects, principals, rules ---
    /// A tenant was changed.
    TenantChanged { tenant: TenantId, change: Change, name: Option<Name> },
    /// A project was changed.
    ProjectChanged { project: ProjectId, change: Change, name: Option<Name> },
    /// Limits of a tenant, or of one of its projects, were set.
    QuotaChanged { tenant: TenantId, project: Option<ProjectId>, limits: QuotaLimits },
    /// A user or operator was changed.
    UserChanged { principal: PrincipalId, person: Option<PersonId>, change: Change },
    /// A service account was changed.
    ServiceAccountChanged { principal: PrincipalId, change: Change, name: Option<Name> },
    /// A role was given.
    RoleGranted { principal: PrincipalId, role: String, project: Option<ProjectId> },
    /// A role was taken.
    RoleRevoked { principal: PrincipalId, role: String, project: Option<ProjectId> },
    /// A tenant's policy set has a new epoch; `policy` is its digest.
    PolicyChanged { epoch: u64, policy: Sha256Digest },
    /// The tenant of this entry had `count` entries below the index `below`.
    EntriesCounted { below: u64, count: u64 },
    /// A person was erased: the name, the factors, `principals` principals, and `keys`, under which personal values were sealed.
    PersonErased { person: PersonId, keys: Vec<KeyId>, principals: u32 },
    /// Somebody opened the personal values of an entry.
    PersonalRevealed { entry: EntryId, index: u64, subjects: Vec<String> },
    /// Which witnesses must have signed the log was changed; `policy` is the digest of the policy file, `quorum` whom it asks
    /// for, in a sentence.
    WitnessPolicyChanged { policy: Sha256Digest, witnesses: u32, quorum: String },
    // --- nodes ---
    /// A node joined. `record_key` is the Ed25519 key (base64 of 32 bytes) that signs its reports and statements.
    NodeEnrolled {
        node: NodeId,
        place: NodePlace,
        record_key: String,
        certificate: Sha256Digest,
        join_token: Option<TokenId>,
    },
    /// A node offers itself as a witness; `key` is the verifier key (C2SP signed-note) with which it signs.
    NodeWitnessOffered { node: NodeId, key: String },
    /// A node's own log had `size` entries with this root (base64); the node signed it with its record key.
    NodeLogAnchored { node: NodeId, size: u64, root: String },
    /// A node takes no new jobs, or takes them again. What is on it at `until` is sent away.
    NodeDrained {
        node: NodeId,
        drained: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<UnixTime>,
    },
    /// A node is set apart for a tenant, or takes everybody's jobs again.
    NodeDedicated {
        node: NodeId,
        dedicated: Option<TenantId>,
    },
    /// A node's certificates are all revoked.
    NodeRevoked { node: NodeId, reason: String },
    /// A node was not heard of, or was heard of again.
    NodeLost { node: NodeId, lost: bool },
    // --- keys ---
    /// A key was made.
    KeyCreated { key: KeyId, version: u32, purpose: String, owner_kind: String, owner: String },
    /// A key has a new version.
    KeyRotated { key: KeyId, version: u32, purpose: String },
    /// All versions of a key were destroyed; copies in backups live until `backups_until`.
    KeyDestroyed { key: KeyId, purpose: String, backups_until: Option<UnixTime> },
    /// Keys were moved from under an old version of the key above them (or root epoch, whose id is zeroes) to a new one.
    KeysRewrapped { key: KeyId, from_version: u32, version: u32, count: u32 },
    /// One version of a key is gone, since nothing lies under it any more; copies in backups live until `backups_until`.
    KeyVersionEnded { key: KeyId, version: u32, purpose: String, backups_until: UnixTime },
    /// All versions of a key will be destroyed at `due`; nothing opens it any more.
    KeyDestructionScheduled { key: KeyId, purpose: String, due: UnixTime },
    /// A scheduled destruction was cancelled.
    KeyDestructionCancelled { key: KeyId, purpose: String },
    /// The keys of a volume were released; recorded before they left.
    KeyReleased {
        lease: LeaseId,
        volume: VolumeId,
        key: KeyId,
        versions: Vec<u32>,
        mode: LeaseMode,
        holder: LeaseHolder,
        node: Option<NodeId>,
        purpose: Option<Purpose>,
        policy_epoch: u64,
        expires: UnixTime,
        evidence: Evidence,
    },
    /// A key lease is over.
    LeaseEnded { lease: LeaseId, volume: VolumeId, end: LeaseEnd },
    // --- data ---
    /// A volume was made.
    VolumeCreated {
        volume: VolumeId,
        lineage: LineageId,
        project: ProjectId,
        region: Region,
        sensitivity: Sensitivity,
        min_trust: u8,
    },
    /// A volume's labels were changed.
    VolumeChanged { volume: VolumeId, min_trust: u8 },
    /// A writer epoch was opened, and `signer` (Ed25519, base64 of 32 bytes) may sign its roots.
    WriterRegistered {
        lease: LeaseId,
        volume: VolumeId,
        lineage: LineageId,
        writer_epoch: u64,
        signer: String,
        holder: LeaseHolder,
    },
    /// A volume has a new root.
    VolumeCommitted {
        volume: VolumeId,
        lineage: LineageId,
        seq: u64,
        writer_epoch: u64,
        root: Sha256Digest,
        previous: Sha256Digest,
    },
    /// A volume was deleted.
    VolumeDeleted { volume: VolumeId },
    // --- secrets ---
    /// A secret was made; it has no value yet.
    SecretCreated { secret: SecretId, project: ProjectId, name: Name, uses: BTreeSet<SecretUse> },
    /// A new version of a secret waits for its value, and its key was released to whoever sets it.
    SecretKeyReleased { lease: LeaseId, secret: SecretId, key: KeyId, version: u32, holder: LeaseHolder },
    /// A secret has a new value; `sealed` is the digest of its sealed bytes.
    SecretSet { secret: SecretId, version: u32, sealed: Sha256Digest },
    /// A secret was released; recorded before its key left.
    SecretReleased {
        lease: LeaseId,
        secret: SecretId,
        version: u32,
        sealed: Sha256Digest,
        holder: LeaseHolder,
        node: Option<NodeId>,
        policy_epoch: u64,
    },
    /// A secret and all its keys were destroyed.
    SecretDeleted { secret: SecretId },
    // --- images ---
    /// An image was imported; `digest` is its manifest's, `source` where it was pulled from, as the importer says.
    ImageImported {
        image: ImageId,
        digest: Sha256Digest,
        name: Name,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    /// The tenant's image policy has changed; `policy` is the digest of its canonical JSON.
    ImagePolicyChanged { policy: Sha256Digest, required: u32 },
    /// Signatures of an image were brought; `signatures` is how many are kept now.
    ImageSignaturesAdded { image: Sha256Digest, signatures: u32 },
    /// A job's image was signed by a signer of the tenant's policy when the job was submitted. `key` (its
    /// `SubjectPublicKeyInfo`), `payload` and `signature` are base64: whoever reads this checks it again.
    ImageSigned { job: vocabulary::JobId, image: Sha256Digest, signer: Name, key: String, payload: String, signature: String },
    /// An image's name was removed.
    ImageDeleted { image: ImageId, digest: Sha256Digest },
    // --- jobs ---
    /// A job was submitted; `command` is the digest of its command as canonical JSON, `spec` of the whole spec.
    JobSubmitted {
        job: vocabulary::JobId,
        project: ProjectId,
        image: Sha256Digest,
        command: Sha256Digest,
        spec: Sha256Digest,
        purpose: Purpose,
        sensitivity: Sensitivity,
    },
    /// An attempt was placed on a node, under a run lease and a policy epoch.
    JobPlaced {
        attempt: AttemptId,
        node: NodeId,
        region: Region,
        jurisdiction: Jurisdiction,
        run_lease: LeaseId,
        run_lease_ms: u64,
        policy_epoch: u64,
        /// What the job demanded of the place.
        #[serde(default, skip_serializing_if = "PlaceDemands::is_none")]
        demands: PlaceDemands,
    },
    /// An attempt entered a state.
    JobStep { attempt: AttemptId, node: NodeId, state: JobState },
    /// An attempt ended; `statement` is the digest of the node's signed statement (its payload), where there is one.
    JobFinished {
        attempt: AttemptId,
        node: NodeId,
        reason: ExitReason,
        code: Option<i32>,
        statement: Option<Sha256Digest>,
    },
    /// An attempt was told to go, because its node is drained and the drain's deadline has passed.
    JobEvicted { attempt: AttemptId, node: NodeId },
    /// Somebody asked a job to stop.
    JobStopped { job: vocabulary::JobId },
    // --- refusals, exports, the log itself ---
    /// A principal was refused.
    Refused { action: String, resource_kind: String, resource: String, code: ErrorCode, rules: Vec<String> },
    /// More refusals of one principal within a minute than stand singly.
    RefusalsCounted { action: String, minute: UnixTime, count: u32 },
    /// Refusals of one unknown source within a minute.
    StrangersRefused { code: ErrorCode, minute: UnixTime, count: u32 },
    /// Something left as a file: entries, a report, a receipt.
    Exported { what: String, first: Option<u64>, last: Option<u64>, digest: Sha256Digest },
    /// The first entry of a log: whose it is and with which key (a verifier key) it is signed.
    LogStarted { deployment: DeploymentId, profile: Profile, origin: String, key: String },
    /// The log lives: its size a moment ago.
    Heartbeat { size: u64 },
    /// A process of the control plane started.
    ServerStarted { version: String },
    /// It stopped in good order.
    ServerStopped { version: String },
    /// The root key was opened, made anew, or an attempt to open it failed.
    SealOpened { epoch: u32 },
    /// The seal's root epoch was made.
    SealInitialised { epoch: u32 },
    /// Opening the seal failed.
    SealRefused { epoch: u32 },
    /// The root key has a new epoch.
    RootEpochMade { epoch: u32 },
    /// An old root epoch is gone from the seal; copies of the seal's file in backups live until `backups_until`.
    RootEpochEnded { epoch: u32, backups_until: UnixTime },
    /// How long backups are kept, as an operator says.
    BackupRetentionSet { days: u32 },
    /// New shares were given out; the seal is not theirs yet.
    SealSharesDrawn { generation: u32, threshold: u8, shares: u8 },
    /// The seal is that of new shares: what opened it before opens it no more.
    SealChanged { generation: u32, threshold: u8, shares: u8 },
}

/// Every word that [`Event::kind`] says.
pub const KINDS: [&str; 78] = [
    "logged_in", "login_refused", "logged_out", "factor_enrolled", "factor_removed", "recovery_code_used", "step_up_passed",
    "step_up_refused", "token_issued", "token_spent", "token_revoked", "certificate_issued", "certificate_revoked", "tenant_changed",
    "project_changed", "quota_changed", "user_changed", "service_account_changed", "role_granted", "role_revoked", "policy_changed",
    "entries_counted", "person_erased", "personal_revealed", "witness_policy_changed", "node_witness_offered", "node_log_anchored",
    "node_enrolled", "node_drained", "node_dedicated", "node_revoked", "node_lost", "key_created", "key_rotated", "key_destroyed",
    "key_released", "lease_ended", "volume_created", "volume_changed", "writer_registered", "volume_committed", "volume_deleted",
    "secret_created", "secret_key_released", "secret_set", "secret_released", "secret_deleted", "image_imported", "image_policy_changed",
    "image_signatures_added", "image_signed", "image_deleted", "job_submitted", "job_placed", "job_step", "job_finished", "job_evicted",
    "job_stopped", "refused", "refusals_counted", "strangers_refused", "exported", "log_started", "heartbeat", "server_started",
    "server_stopped", "seal_opened", "seal_initialised", "seal_refused", "seal_shares_drawn", "keys_rewrapped", "key_version_ended",
    "key_destruction_scheduled", "key_destruction_cancelled", "root_epoch_made", "root_epoch_ended", "backup_retention_set", "seal_changed",
];

impl Event {
    /// The kind's name, as it stands in `metadata.event_code`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LoggedIn { .. } => "logged_in",
            Self::LoginRefused { .. } => "login_refused",
            Self::LoggedOut { .. } => "logged_out",
            Self::FactorEnrolled { .. } => "factor_enrolled",
            Self::FactorRemoved { .. } => "factor_removed",
            Self::RecoveryCodeUsed { .. } => "recovery_code_used",
            Self::StepUpPassed { .. } => "step_up_passed",
            Self::StepUpRefused { .. } => "step_up_refused",
            Self::TokenIssued { .. } => "token_issued",
            Self::TokenSpent { .. } => "token_spent",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::CertificateIssued { .. } => "certificate_issued",
            Self::CertificateRevoked { .. } => "certificate_revoked",
            Self::TenantChanged { .. } => "tenant_changed",
            Self::ProjectChanged { .. } => "project_changed",
            Self::QuotaChanged { .. } => "quota_changed",
            Self::UserChanged { .. } => "user_changed",
            Self::ServiceAccountChanged { .. } => "service_account_changed",
            Self::RoleGranted { .. } => "role_granted",
            Self::RoleRevoked { .. } => "role_revoked",
            Self::PolicyChanged { .. } => "policy_changed",
            Self::EntriesCounted { .. } => "entries_counted",
            Self::PersonErased { .. } => "person_erased",
            Self::PersonalRevealed { .. } => "personal_revealed",
            Self::WitnessPolicyChanged { .. } => "witness_policy_changed",
            Self::NodeWitnessOffered { .. } => "node_witness_offered",
            Self::NodeLogAnchored { .. } => "node_log_anchored",
            Self::NodeEnrolled { .. } => "node_enrolled",
            Self::NodeDrained { .. } => "node_drained",
            Self::NodeDedicated { .. } => "node_dedicated",
            Self::NodeRevoked { .. } => "node_revoked",
            Self::NodeLost { .. } => "node_lost",
            Self::KeyCreated { .. } => "key_created",
            Self::KeyRotated { .. } => "key_rotated",
            Self::KeyDestroyed { .. } => "key_destroyed",
            Self::KeyReleased { .. } => "key_released",
            Self::LeaseEnded { .. } => "lease_ended",
            Self::VolumeCreated { .. } => "volume_created",
            Self::VolumeChanged { .. } => "volume_changed",
            Self::WriterRegistered { .. } => "writer_registered",
            Self::VolumeCommitted { .. } => "volume_committed",
            Self::VolumeDeleted { .. } => "volume_deleted",
            Self::SecretCreated { .. } => "secret_created",
            Self::SecretKeyReleased { .. } => "secret_key_released",
            Self::SecretSet { .. } => "secret_set",
            Self::SecretReleased { .. } => "secret_released",
            Self::SecretDeleted { .. } => "secret_deleted",
            Self::ImageImported { .. } => "image_imported",
            Self::ImagePolicyChanged { .. } => "image_policy_changed",
            Self::ImageSignaturesAdded { .. } => "image_signatures_added",
            Self::ImageSigned { .. } => "image_signed",
            Self::ImageDeleted { .. } => "image_deleted",
            Self::JobSubmitted { .. } => "job_submitted",
            Self::JobPlaced { .. } => "job_placed",
            Self::JobStep { .. } => "job_step",
            Self::JobFinished { .. } => "job_finished",
            Self::JobEvicted { .. } => "job_evicted",
            Self::JobStopped { .. } => "job_stopped",
            Self::Refused { .. } => "refused",
            Self::RefusalsCounted { .. } => "refusals_counted",
            Self::StrangersRefused { .. } => "strangers_refused",
            Self::Exported { .. } => "exported",
            Self::LogStarted { .. } => "log_started",
            Self::Heartbeat { .. } => "heartbeat",
            Self::ServerStarted { .. } => "server_started",
            Self::ServerStopped { .. } => "server_stopped",
            Self::SealOpened { .. } => "seal_opened",
            Self::SealInitialised { .. } => "seal_initialised",
            Self::SealRefused { .. } => "seal_refused",
            Self::SealSharesDrawn { .. } => "seal_shares_drawn",
            Self::KeysRewrapped { .. } => "keys_rewrapped",
            Self::KeyVersionEnded { .. } => "key_version_ended",
            Self::KeyDestructionScheduled { .. } => "key_destruction_scheduled",
            Self::KeyDestructionCancelled { .. } => "key_destruction_cancelled",
            Self::RootEpochMade { .. } => "root_epoch_made",
            Self::RootEpochEnded { .. } => "root_epoch_ended",
            Self::BackupRetentionSet { .. } => "backup_retention_set",
            Self::SealChanged { .. } => "seal_changed",
        }
    }

    /// The resource that it is about: kind and id, for the search columns.
    #[must_use]
    pub fn resource(&self) -> (&str, String) {
        match self {
            Self::LoggedIn { token, .. }
            | Self::LoggedOut { token }
            | Self::TokenIssued { token, .. }
            | Self::TokenSpent { token, .. }
            | Self::TokenRevoked { token, .. } => ("token", token.to_string()),
            Self::LoginRefused { person, .. } => ("person", person.map_or_else(String::new, |id| id.to_string())),
            Self::FactorEnrolled { person, .. }
            | Self::FactorRemoved { person, .. }
            | Self::RecoveryCodeUsed { person, .. } => ("person", person.to_string()),
            Self::StepUpPassed { step_up, .. } | Self::StepUpRefused { step_up, .. } => ("step_up", step_up.to_string()),
            Self::CertificateIssued { serial, .. } | Self::CertificateRevoked { serial, .. } => {
                ("certificate", serial.clone())
            }
            Self::TenantChanged { tenant, .. } => ("tenant", tenant.to_string()),
            Self::ProjectChanged { project, .. } => ("project", project.to_string()),
            Self::QuotaChanged {
                tenant, project, ..
            } => (
                "quota",
                project.map_or_else(|| tenant.to_string(), |project| project.to_string()),
            ),
            Self::UserChanged { principal, .. } => ("user", principal.to_string()),
            Self::ServiceAccountChanged { principal, .. } => ("service_account", principal.to_string()),
            Self::RoleGranted { principal, .. } | Self::RoleRevoked { principal, .. } => {
                ("principal", principal.to_string())
            }
            Self::PolicyChanged { epoch, .. } => ("policy", epoch.to_string()),
            Self::PersonErased { person, .. } => ("person", person.to_string()),
            Self::PersonalRevealed { entry, .. } => ("entry", entry.to_string()),
            Self::WitnessPolicyChanged { policy, .. } => ("witness_policy", policy.to_string()),
            Self::NodeEnrolled { node, .. }
            | Self::NodeWitnessOffered { node, .. }
            | Self::NodeLogAnchored { node, .. }
            | Self::NodeDrained { node, .. }
            | Self::NodeDedicated { node, .. }
            | Self::NodeRevoked { node, .. }
            | Self::NodeLost { node, .. } => ("node", node.to_string()),
            Self::KeyCreated { key, .. }
            | Self::KeyRotated { key, .. }
            | Self::KeyDestroyed { key, .. }
            | Self::KeysRewrapped { key, .. }
            | Self::KeyVersionEnded { key, .. }
            | Self::KeyDestructionScheduled { key, .. }
            | Self::KeyDestructionCancelled { key, .. } => ("key", key.to_string()),
            Self::RootEpochMade { epoch } | Self::RootEpochEnded { epoch, .. } => ("root_epoch", epoch.to_string()),
            Self::BackupRetentionSet { .. } => ("backup_retention", String::new()),
            Self::KeyReleased { volume, .. }
            | Self::LeaseEnded { volume, .. }
            | Self::VolumeCreated { volume, .. }
            | Self::VolumeChanged { volume, .. }
            | Self::WriterRegistered { volume, .. }
            | Self::VolumeCommitted { volume, .. }
            | Self::VolumeDeleted { volume } => ("volume", volume.to_string()),
            Self::SecretCreated { secret, .. }
            | Self::SecretKeyReleased { secret, .. }
            | Self::SecretSet { secret, .. }
            | Self::SecretReleased { secret, .. }
            | Self::SecretDeleted { secret } => ("secret", secret.to_string()),
            Self::ImageImported { image, .. } | Self::ImageDeleted { image, .. } => ("image", image.to_string()),
            Self::ImagePolicyChanged { .. } => ("image_policy", String::new()),
            Self::ImageSignaturesAdded { image, .. } => ("image", image.to_string()),
            Self::ImageSigned { job, .. } | Self::JobSubmitted { job, .. } | Self::JobStopped { job } => ("job", job.to_string()),
            Self::JobPlaced { attempt, .. }
            | Self::JobStep { attempt, .. }
            | Self::JobFinished { attempt, .. }
            | Self::JobEvicted { attempt, .. } => ("job", attempt.job.to_string()),
            Self::Refused { resource_kind, resource, .. } => (resource_kind, resource.clone()),
            Self::RefusalsCounted { action, .. } => ("action", action.clone()),
            Self::StrangersRefused { .. } => ("source", String::new()),
            Self::Exported { what, .. } => ("export", what.clone()),
            Self::LogStarted { origin, .. } => ("log", origin.clone()),
            Self::Heartbeat { .. } | Self::EntriesCounted { .. } => ("log", String::new()),
            Self::ServerStarted { .. } | Self::ServerStopped { .. } => ("server", String::new()),
            Self::SealOpened { epoch } | Self::SealInitialised { epoch } | Self::SealRefused { epoch } => {
                ("seal", epoch.to_string())
            }
            Self::SealSharesDrawn { generation, .. } | Self::SealChanged { generation, .. } => ("seal", format!("generation/{generation}")),
        }
    }
}
