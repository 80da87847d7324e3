//! The kinds of resources, and ids as the sixteen bytes that they are.

use vocabulary::{
    ControlId, DeploymentId, EntryId, ImageId, JobId, KeyId, LeaseId, LineageId, NodeId, PersonId, PrincipalId, ProjectId,
    ProviderId, SecretId, StepUpId, TenantId, TokenId, VolumeId,
};

/// The kind of a resource: a word in the singular.
///
/// The words of the deployment's own things ([`Kind::TENANT`], [`Kind::PERSON`], [`Kind::NODE`] and their like) belong to
/// `vocabulary::SYSTEM_OWNER`; the others to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(&'static str);

impl Kind {
    /// A tenant, kept by the deployment.
    pub const TENANT: Self = Self("tenant");
    /// A project.
    pub const PROJECT: Self = Self("project");
    /// A human, kept by the deployment; the factors have tables of their own.
    pub const PERSON: Self = Self("person");
    /// An operator, user or service account; `link` is the person.
    pub const PRINCIPAL: Self = Self("principal");
    /// A binding of a role; `parent` is the principal, `link` the project or tenant.
    pub const ROLE_BINDING: Self = Self("role_binding");
    /// A policy set; its revision is the policy epoch.
    pub const POLICY: Self = Self("policy");
    /// A node, kept by the deployment.
    pub const NODE: Self = Self("node");
    /// A node's plan, kept by the deployment under the node's id.
    pub const PLAN: Self = Self("plan");
    /// A certificate that was issued, kept by the deployment; `link` is whom it names, `until` its end.
    pub const CERTIFICATE: Self = Self("certificate");
    /// An image that a tenant imported.
    pub const IMAGE: Self = Self("image");
    /// A volume; its head and signers have tables of their own.
    pub const VOLUME: Self = Self("volume");
    /// A job.
    pub const JOB: Self = Self("job");
    /// An attempt of a job; `parent` is the job, `link` the node.
    pub const ATTEMPT: Self = Self("attempt");
    /// The right of an attempt to live on a node; `parent` is the job, `link` the node, `until` its end.
    pub const RUN_LEASE: Self = Self("run_lease");
    /// The right to hold an opened key; `parent` is the volume, `link` the holder, `until` its end.
    pub const KEY_LEASE: Self = Self("key_lease");
    /// A receipt; `parent` is the job.
    pub const RECEIPT: Self = Self("receipt");
    /// A setting of the deployment.
    pub const SETTING: Self = Self("setting");

    /// Changes of these kinds come from typed tables, not from resources.
    pub const TOKEN: Self = Self("token");
    /// See [`Kind::TOKEN`].
    pub const KEY: Self = Self("key");
    /// See [`Kind::TOKEN`].
    pub const VOLUME_HEAD: Self = Self("volume_head");
    /// See [`Kind::TOKEN`].
    pub const WRITER_EPOCH: Self = Self("writer_epoch");
    /// See [`Kind::TOKEN`]; the change's revision is the version of the set.
    pub const REVOCATION: Self = Self("revocation");
    /// See [`Kind::TOKEN`].
    pub const FACTOR: Self = Self("factor");

    /// Another kind: a word in the singular, lower case.
    #[must_use]
    pub const fn new(word: &'static str) -> Self {
        Self(word)
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Whatever is identified by sixteen bytes.
pub trait Id16: Copy {
    /// The bytes.
    fn id16(self) -> [u8; 16];
}

impl Id16 for [u8; 16] {
    fn id16(self) -> [u8; 16] {
        self
    }
}

macro_rules! ids {
    ($($name:ident),* $(,)?) => {$(
        impl Id16 for $name {
            fn id16(self) -> [u8; 16] { *self.as_bytes() }
        }
    )*};
}
ids!(
    ControlId, DeploymentId, EntryId, ImageId, JobId, KeyId, LeaseId, LineageId, NodeId, PersonId, PrincipalId, ProjectId,
    ProviderId, SecretId, StepUpId, TenantId, TokenId, VolumeId,
);
