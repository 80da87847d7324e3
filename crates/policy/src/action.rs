//! Every action that exists, as a type. This is the one list; the schema must agree with it, and a test says so.

use EntityKind::{Image, Job, Key, Node, Operator, Platform, Secret, ServiceAccount, Tenant, User, Volume};

mod sealed {
    pub trait Sealed {}
}

/// What acts, or is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntityKind {
    /// The deployment.
    Platform,
    /// A tenant.
    Tenant,
    /// A person's principal in one tenant.
    User,
    /// A program of one tenant.
    ServiceAccount,
    /// Platform staff, or a provider's.
    Operator,
    /// A node.
    Node,
    /// A job.
    Job,
    /// A volume.
    Volume,
    /// An image.
    Image,
    /// A secret.
    Secret,
    /// A key.
    Key,
}

impl EntityKind {
    /// Its name in the schema.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Platform => "Platform",
            Tenant => "Tenant",
            User => "User",
            ServiceAccount => "ServiceAccount",
            Operator => "Operator",
            Node => "Node",
            Job => "Job",
            Volume => "Volume",
            Image => "Image",
            Secret => "Secret",
            Key => "Key",
        }
    }
}

/// An action. The types below are the only ones.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// All of it as data.
    const INFO: ActionInfo;
    /// Its name in the schema.
    const NAME: &'static str = Self::INFO.name;
    /// Whether it wants a fresh factor bound to the request; for [`VolumeCreate`], whether it may (`step-up-trust`).
    const STEP_UP: bool = Self::INFO.step_up;
    /// Whether it wants a second person.
    const SECOND_PERSON: bool = Self::INFO.second_person;
    /// What it does, in words for a summary: `delete the volume`.
    const WORDS: &'static str = Self::INFO.words;
}

/// An action as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionInfo {
    /// Its name in the schema.
    pub name: &'static str,
    /// Who may be permitted it at all.
    pub principals: &'static [EntityKind],
    /// What it is done to.
    pub resources: &'static [EntityKind],
    /// Whether it wants a fresh factor bound to the request; for `volumeCreate`, whether it may.
    pub step_up: bool,
    /// Whether it wants a second person.
    pub second_person: bool,
    /// What it does, in words.
    pub words: &'static str,
}

impl ActionInfo {
    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL_ACTIONS.iter().find(|info| info.name == name)
    }
}

const USERS: &[EntityKind] = &[User];
const MEMBERS: &[EntityKind] = &[User, ServiceAccount];
const PEOPLE: &[EntityKind] = &[User, ServiceAccount, Operator];
const OPERATORS: &[EntityKind] = &[Operator];
const NODES: &[EntityKind] = &[Node];
const JOBS: &[EntityKind] = &[Job];
const ACCOUNTS: &[EntityKind] = &[ServiceAccount];
const PLATFORM: &[EntityKind] = &[Platform];
const TENANT: &[EntityKind] = &[Tenant];
const VOLUME: &[EntityKind] = &[Volume];
const IMAGE: &[EntityKind] = &[Image];
const SECRET: &[EntityKind] = &[Secret];
const KEY: &[EntityKind] = &[Key];

macro_rules! list {
    ($($type:ident, $name:literal, $principals:ident, $resources:ident, $words:literal, $step_up:literal, $second:literal;)*) => {
        $(
            #[doc = concat!("The action `", $name, "`: ", $words, ".")]
            #[derive(Debug, Clone, Copy)]
            pub enum $type {}
            impl sealed::Sealed for $type {}
            impl Action for $type {
                const INFO: ActionInfo = ActionInfo {
                    name: $name,
                    principals: $principals,
                    resources: $resources,
                    step_up: $step_up,
                    second_person: $second,
                    words: $words,
                };
            }
        )*
        /// All actions.
        pub const ALL_ACTIONS: &[ActionInfo] = &[$($type::INFO,)*];
    };
}

list! {
    WhoamiView, "whoamiView", PEOPLE, PEOPLE, "show who I am", false, false;
    Logout, "logout", PEOPLE, PEOPLE, "log out", false, false;
    TokenCreate, "tokenCreate", PEOPLE, PEOPLE, "make a token for myself", false, false;
    TokenList, "tokenList", PEOPLE, PEOPLE, "list my tokens", false, false;
    TokenRevoke, "tokenRevoke", PEOPLE, PEOPLE, "revoke a token of mine", false, false;
    StepUpConfirm, "stepUpConfirm", PEOPLE, PEOPLE, "confirm a request of mine", false, false;
    StatusView, "statusView", PEOPLE, PLATFORM, "show the deployment's state", false, false;
    WatchFollow, "watchFollow", PEOPLE, PLATFORM, "follow changes", false, false;
    TenantCreate, "tenantCreate", OPERATORS, PLATFORM, "make a tenant", false, false;
    TenantList, "tenantList", OPERATORS, PLATFORM, "list tenants", false, false;
    TenantQuotaView, "tenantQuotaView", OPERATORS, TENANT, "show the tenant's quota", false, false;
    TenantQuotaSet, "tenantQuotaSet", OPERATORS, TENANT, "set the tenant's quota", false, false;
    TenantSuspend, "tenantSuspend", OPERATORS, TENANT, "suspend the tenant", true, true;
    TenantResume, "tenantResume", OPERATORS, TENANT, "end the tenant's suspension", true, false;
    SealInit, "sealInit", OPERATORS, PLATFORM, "make new shares of the seal", true, true;
    RootKeyRotate, "rootKeyRotate", OPERATORS, PLATFORM, "make a new root epoch", true, false;
    BackupRetentionSet, "backupRetentionSet", OPERATORS, PLATFORM, "say how long backups are kept", true, false;
    PlatformKeyList, "platformKeyList", OPERATORS, PLATFORM, "list the deployment's own keys", false, false;
    SealConfirm, "sealConfirm", OPERATORS, PLATFORM, "put new shares of the seal in force", false, false;
    NodeInvite, "nodeInvite", OPERATORS, PLATFORM, "make a join token for a node", false, false;
    NodeList, "nodeList", OPERATORS, PLATFORM, "list nodes", false, false;
    PlatformAuditView, "platformAuditView", OPERATORS, PLATFORM, "read the platform's own audit entries", false, false;
    PersonErase, "personErase", OPERATORS, PLATFORM, "erase the person for good", true, true;
    WitnessPolicySet, "witnessPolicySet", OPERATORS, PLATFORM, "say which witnesses must have signed the log", true, false;
    NodeView, "nodeView", OPERATORS, NODES, "show the node", false, false;
    NodeDrain, "nodeDrain", OPERATORS, NODES, "drain the node", false, false;
    NodeResume, "nodeResume", OPERATORS, NODES, "end the node's drain", false, false;
    NodeDedicate, "nodeDedicate", OPERATORS, NODES, "set the node apart for a tenant", false, false;
    NodeRevoke, "nodeRevoke", OPERATORS, NODES, "revoke the node for good", true, false;
    ProjectCreate, "projectCreate", MEMBERS, TENANT, "make a project", false, false;
    ProjectList, "projectList", MEMBERS, TENANT, "list projects", false, false;
    QuotaList, "quotaList", MEMBERS, TENANT, "list quotas", false, false;
    ProjectQuotaSet, "projectQuotaSet", MEMBERS, TENANT, "set a project's quota", false, false;
    PrincipalList, "principalList", MEMBERS, TENANT, "list users and service accounts", false, false;
    UserCreate, "userCreate", USERS, TENANT, "invite a user", true, false;
    ServiceAccountCreate, "serviceAccountCreate", USERS, TENANT, "make a service account", true, false;
    PrincipalUpdate, "principalUpdate", USERS, MEMBERS, "change roles and clearance of the principal", true, false;
    PrincipalDelete, "principalDelete", USERS, MEMBERS, "remove the principal", true, false;
    ServiceTokenCreate, "serviceTokenCreate", USERS, ACCOUNTS, "make a token for the service account", true, false;
    OtherTokenList, "otherTokenList", USERS, MEMBERS, "list the tokens of somebody else", false, false;
    OtherTokenRevoke, "otherTokenRevoke", USERS, MEMBERS, "revoke a token of somebody else", false, false;
    ImageList, "imageList", MEMBERS, TENANT, "list images", false, false;
    ImageImport, "imageImport", MEMBERS, TENANT, "import an image", false, false;
    ImagePolicyView, "imagePolicyView", MEMBERS, TENANT, "show who must have signed images", false, false;
    ImagePolicySet, "imagePolicySet", USERS, TENANT, "say who must have signed images", true, false;
    ImageUse, "imageUse", MEMBERS, IMAGE, "run the image", false, false;
    VolumeList, "volumeList", MEMBERS, TENANT, "list volumes", false, false;
    VolumeCreate, "volumeCreate", MEMBERS, VOLUME, "make a volume", true, false;
    VolumeView, "volumeView", MEMBERS, VOLUME, "show the volume", false, false;
    VolumeRead, "volumeRead", MEMBERS, VOLUME, "open the volume", false, false;
    VolumeVerify, "volumeVerify", MEMBERS, VOLUME, "verify the volume", false, false;
    VolumeWrite, "volumeWrite", MEMBERS, VOLUME, "write the volume", false, false;
    VolumeRotate, "volumeRotate", MEMBERS, VOLUME, "give the volume a new data key", false, false;
    VolumeDelete, "volumeDelete", USERS, VOLUME, "delete the volume and destroy its keys", true, false;
    SecretList, "secretList", MEMBERS, TENANT, "list secrets", false, false;
    SecretCreate, "secretCreate", MEMBERS, SECRET, "make a secret", false, false;
    SecretView, "secretView", MEMBERS, SECRET, "show the secret, without its value", false, false;
    SecretSet, "secretSet", MEMBERS, SECRET, "set the secret's value", false, false;
    SecretUse, "secretUse", MEMBERS, SECRET, "give the secret to a job", false, false;
    SecretOpen, "secretOpen", MEMBERS, SECRET, "open the secret to pull an image", false, false;
    SecretDelete, "secretDelete", MEMBERS, SECRET, "delete the secret and destroy its keys", false, false;
    LeaseList, "leaseList", MEMBERS, TENANT, "list leases", false, false;
    LeaseEnd, "leaseEnd", MEMBERS, VOLUME, "end a lease", false, false;
    JobList, "jobList", MEMBERS, TENANT, "list jobs", false, false;
    JobSubmit, "jobSubmit", MEMBERS, JOBS, "run a job", false, false;
    JobWiden, "jobWiden", MEMBERS, JOBS, "widen the job's sandbox", false, false;
    JobView, "jobView", MEMBERS, JOBS, "show the job", false, false;
    JobLogs, "jobLogs", MEMBERS, JOBS, "read the job's log", false, false;
    JobStop, "jobStop", MEMBERS, JOBS, "stop the job", false, false;
    JobReceipt, "jobReceipt", MEMBERS, JOBS, "fetch the job's receipt", false, false;
    KeyList, "keyList", MEMBERS, TENANT, "list keys", false, false;
    KeyDestroy, "keyDestroy", USERS, KEY, "destroy the key for good", true, true;
    KeyDestroyCancel, "keyDestroyCancel", USERS, KEY, "cancel the destruction of the key", true, false;
    TenantKeyRotate, "tenantKeyRotate", USERS, TENANT, "rotate the tenant's key", true, false;
    AuditView, "auditView", MEMBERS, TENANT, "read the audit log", false, false;
    AuditReveal, "auditReveal", USERS, TENANT, "open the personal values of an entry", false, false;
    PolicyExplain, "policyExplain", MEMBERS, TENANT, "explain a decision", false, false;
    NodePlanFollow, "nodePlanFollow", NODES, NODES, "follow the node's plan", false, false;
    NodeReport, "nodeReport", NODES, NODES, "report the node's state", false, false;
    NodeCertificateRenew, "nodeCertificateRenew", NODES, NODES, "renew the node's certificate", false, false;
    NodeWitness, "nodeWitness", NODES, NODES, "witness the log", false, false;
    NodeImageFetch, "nodeImageFetch", NODES, NODES, "fetch an image", false, false;
    AttemptLease, "attemptLease", NODES, JOBS, "act for the attempt: leases", false, false;
    AttemptObjects, "attemptObjects", NODES, JOBS, "act for the attempt: sealed objects", false, false;
    AttemptCommit, "attemptCommit", NODES, JOBS, "act for the attempt: commit a root", false, false;
    AttemptLogs, "attemptLogs", NODES, JOBS, "act for the attempt: logs", false, false;
    AttemptStatement, "attemptStatement", NODES, JOBS, "act for the attempt: its statement", false, false;
    KeyRelease, "keyRelease", JOBS, VOLUME, "hold the volume's key", false, false;
    SecretRelease, "secretRelease", JOBS, SECRET, "hold the secret", false, false;
}
