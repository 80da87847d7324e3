//! What a decision is made from: typed facts. `slice.rs` builds them into Cedar's entities.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vocabulary::job::SandboxGrant;
use vocabulary::runtime::Runtime;
use vocabulary::{ImageId, JobId, Jurisdiction, KeyId, NodeId, PrincipalId, ProjectId, ProviderId, Purpose, Region, SecretId, Sensitivity, TenantId, VolumeId};

use crate::action::EntityKind;
use crate::role::RoleBinding;

/// A tenant, as far as rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetFacts {
    /// The tenant.
    pub tenant: TenantId,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// Who wants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person in one tenant.
    User {
        /// The principal.
        id: PrincipalId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its roles.
        roles: Vec<RoleBinding>,
        /// Its clearance.
        clearance: Sensitivity,
    },
    /// A program in one tenant.
    ServiceAccount {
        /// The principal.
        id: PrincipalId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its roles.
        roles: Vec<RoleBinding>,
        /// Its clearance.
        clearance: Sensitivity,
    },
    /// Platform staff.
    Operator {
        /// The principal.
        id: PrincipalId,
        /// Set for a provider's staff.
        provider: Option<ProviderId>,
    },
    /// A node.
    Node(NodeFacts),
    /// A job that asks for a key.
    Job(JobFacts),
}

/// A node, as far as rules ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub id: NodeId,
    /// Who owns it.
    pub provider: Option<ProviderId>,
    /// Its region.
    pub region: Region,
    /// Its jurisdiction.
    pub jurisdiction: Jurisdiction,
    /// What its evidence earned it.
    pub trust: u8,
}

/// A job, as far as rules ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The job.
    pub id: JobId,
    /// Its tenant.
    pub tenant: SetFacts,
    /// Its project.
    pub project: ProjectId,
    /// How sensitive what it works on is.
    pub sensitivity: Sensitivity,
    /// What its data is used for.
    pub purpose: Purpose,
    /// The region that it asks for.
    pub region: Option<Region>,
    /// Where it may run; empty means anywhere.
    pub jurisdictions: BTreeSet<Jurisdiction>,
    /// What makes its sandbox; the default where it names none.
    pub runtime: Runtime,
    /// How many GPUs it asks for.
    pub gpus: u32,
    /// What widens its sandbox.
    pub grants: BTreeSet<SandboxGrant>,
    /// The node on which its newest attempt is placed.
    pub node: Option<NodeFacts>,
}

/// What it is wanted of.
#[derive(Debug, Clone)]
pub enum Resource {
    /// The deployment.
    Platform,
    /// A tenant.
    Tenant(SetFacts),
    /// A volume.
    Volume {
        /// The volume.
        id: VolumeId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its project.
        project: ProjectId,
        /// How sensitive it is.
        sensitivity: Sensitivity,
        /// What it may be used for.
        purpose: Purpose,
        /// Where its sealed bytes lie.
        region: Region,
        /// Where it may be opened; empty means anywhere.
        jurisdictions: BTreeSet<Jurisdiction>,
        /// The least trust of a node that may open it.
        min_trust: u8,
        /// Users whom it names as readers: they may open it on their own machine although it asks for trust.
        readers: BTreeSet<PrincipalId>,
    },
    /// A job.
    Job(JobFacts),
    /// An image.
    Image {
        /// The image.
        id: ImageId,
        /// Its tenant.
        tenant: SetFacts,
    },
    /// A secret.
    Secret {
        /// The secret.
        id: SecretId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its project.
        project: ProjectId,
        /// Whether jobs are given it.
        jobs: bool,
        /// Whether people open it to pull images.
        pulls: bool,
    },
    /// A key.
    Key {
        /// The key.
        id: KeyId,
        /// Its tenant.
        tenant: SetFacts,
    },
    /// A node.
    Node(NodeFacts),
    /// A principal: oneself, or one that is administered.
    Principal(Principal),
}

/// What is known of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFacts {
    /// 0 machine, 1 password and TOTP, 2 passkey.
    pub acr: u8,
    /// Seconds since a factor was shown; `None` where none was, or where the clock went back.
    pub mfa_age_s: Option<u64>,
    /// Whether the factor was bound to this very request.
    pub request_bound: bool,
    /// Approvals by other persons.
    pub approvals: u32,
    /// Whether the deployment's profile is `production`.
    pub production: bool,
    /// Where it comes from, if that is known.
    pub source: Option<IpAddr>,
}

/// What is known of a release to a job.
#[derive(Debug, Clone)]
pub struct ReleaseFacts {
    /// Where the job is placed.
    pub node: NodeFacts,
    /// Set by the enclave room alone; it does not exist yet, so this is `false`.
    pub attested: bool,
    /// Whether that enclave is simulated; refused in production.
    pub simulated: bool,
    /// Seconds since the evidence.
    pub evidence_age_s: Option<u64>,
    /// The job's purpose, from its stored spec.
    pub purpose: Purpose,
}

/// Everything a decision is made from.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who.
    pub principal: Principal,
    /// Of what.
    pub resource: Resource,
    /// The request.
    pub call: CallFacts,
    /// For `keyRelease`.
    pub release: Option<ReleaseFacts>,
    /// For the release of a volume's keys to a person: the purpose that the person named.
    pub person_purpose: Option<Purpose>,
}

/// The facts do not make entities of the schema; always a defect of the caller, and always a refusal.
#[derive(Debug, thiserror::Error)]
#[error("the facts do not fit the schema: {0}")]
pub struct FactsError(String);

impl FactsError {
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Principal {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> EntityKind {
        match self {
            Self::User { .. } => EntityKind::User,
            Self::ServiceAccount { .. } => EntityKind::ServiceAccount,
            Self::Operator { .. } => EntityKind::Operator,
            Self::Node(_) => EntityKind::Node,
            Self::Job(_) => EntityKind::Job,
        }
    }
    /// The tenant whose set judges it; `None` for operators and nodes, who have the platform's.
    #[must_use]
    pub const fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::User { tenant, .. } | Self::ServiceAccount { tenant, .. } => Some(tenant.tenant),
            Self::Job(job) => Some(job.tenant.tenant),
            Self::Operator { .. } | Self::Node(_) => None,
        }
    }
    /// `User::"…"`, for people to read.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::User { id, .. } | Self::ServiceAccount { id, .. } | Self::Operator { id, .. } => label(self.kind(), id),
            Self::Node(node) => label(self.kind(), node.id),
            Self::Job(job) => label(self.kind(), job.id),
        }
    }
}

impl Resource {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> EntityKind {
        match self {
            Self::Platform => EntityKind::Platform,
            Self::Tenant(_) => EntityKind::Tenant,
            Self::Volume { .. } => EntityKind::Volume,
            Self::Job(_) => EntityKind::Job,
            Self::Image { .. } => EntityKind::Image,
            Self::Secret { .. } => EntityKind::Secret,
            Self::Key { .. } => EntityKind::Key,
            Self::Node(_) => EntityKind::Node,
            Self::Principal(principal) => principal.kind(),
        }
    }
    /// `Volume::"…"`, for people to read.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Platform => label(self.kind(), "platform"),
            Self::Tenant(tenant) => label(self.kind(), tenant.tenant),
            Self::Volume { id, .. } => label(self.kind(), id),
            Self::Job(job) => label(self.kind(), job.id),
            Self::Image { id, .. } => label(self.kind(), id),
            Self::Secret { id, .. } => label(self.kind(), id),
            Self::Key { id, .. } => label(self.kind(), id),
            Self::Node(node) => label(self.kind(), node.id),
            Self::Principal(principal) => principal.label(),
        }
    }
}

fn label(kind: EntityKind, id: impl std::fmt::Display) -> String {
    format!("{}::\"{id}\"", kind.as_str())
}
