//! Every action that exists, as a type. This is the one list; the schema must agree with it, and a test says so.

mod sealed {
    pub trait Sealed {}
}

/// An action. The types below are the only ones.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// Its name in the schema.
    const NAME: &'static str;
    /// Whether it wants a fresh factor bound to the request.
    const STEP_UP: bool;
    /// Whether it wants a second person.
    const SECOND_PERSON: bool;
    /// What it does, in words for a summary: `delete the volume`.
    const WORDS: &'static str;
}

/// An action as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionInfo {
    /// Its name in the schema.
    pub name: &'static str,
    /// Whether it wants a fresh factor bound to the request.
    pub step_up: bool,
    /// Whether it wants a second person.
    pub second_person: bool,
    /// What it does, in words.
    pub words: &'static str,
}

macro_rules! list {
    ($($type:ident, $name:literal, $words:literal, $step_up:literal, $second:literal;)*) => {
        $(
            #[doc = concat!("The action `", $name, "`: ", $words, ".")]
            #[derive(Debug, Clone, Copy)]
            pub enum $type {}
            impl sealed::Sealed for $type {}
            impl Action for $type {
                const NAME: &'static str = $name;
                const STEP_UP: bool = $step_up;
                const SECOND_PERSON: bool = $second;
                const WORDS: &'static str = $words;
            }
        )*
        /// All actions.
        pub const ALL_ACTIONS: &[ActionInfo] = &[
            $(ActionInfo { name: $name, step_up: $step_up, second_person: $second, words: $words },)*
        ];
    };
}

list! {
    WhoamiView, "whoamiView", "show who I am", false, false;
    Logout, "logout", "log out", false, false;
    TokenCreate, "tokenCreate", "make a token for myself", false, false;
    TokenList, "tokenList", "list my tokens", false, false;
    TokenRevoke, "tokenRevoke", "revoke a token of mine", false, false;
    StepUpConfirm, "stepUpConfirm", "confirm a request of mine", false, false;
    StatusView, "statusView", "show the deployment's state", false, false;
    WatchFollow, "watchFollow", "follow changes", false, false;
    TenantCreate, "tenantCreate", "make a tenant", false, false;
    TenantList, "tenantList", "list tenants", false, false;
    TenantSuspend, "tenantSuspend", "suspend the tenant", true, true;
    TenantResume, "tenantResume", "end the tenant's suspension", true, false;
    NodeInvite, "nodeInvite", "make a join token for a node", false, false;
    NodeList, "nodeList", "list nodes", false, false;
    PlatformAuditView, "platformAuditView", "read the platform's own audit entries", false, false;
    NodeView, "nodeView", "show the node", false, false;
    NodeDrain, "nodeDrain", "drain the node", false, false;
    NodeResume, "nodeResume", "end the node's drain", false, false;
    NodeRevoke, "nodeRevoke", "revoke the node for good", true, false;
    ProjectCreate, "projectCreate", "make a project", false, false;
    ProjectList, "projectList", "list projects", false, false;
    PrincipalList, "principalList", "list users and service accounts", false, false;
    UserCreate, "userCreate", "invite a user", true, false;
    ServiceAccountCreate, "serviceAccountCreate", "make a service account", false, false;
    PrincipalUpdate, "principalUpdate", "change roles and clearance of the principal", true, false;
    PrincipalDelete, "principalDelete", "remove the principal", true, false;
    ServiceTokenCreate, "serviceTokenCreate", "make a token for the service account", false, false;
    OtherTokenRevoke, "otherTokenRevoke", "revoke a token of somebody else", false, false;
    ImageList, "imageList", "list images", false, false;
    ImageImport, "imageImport", "import an image", false, false;
    ImageUse, "imageUse", "run the image", false, false;
    VolumeList, "volumeList", "list volumes", false, false;
    VolumeCreate, "volumeCreate", "make a volume", false, false;
    VolumeView, "volumeView", "show the volume", false, false;
    VolumeRead, "volumeRead", "open the volume", false, false;
    VolumeVerify, "volumeVerify", "verify the volume", false, false;
    VolumeWrite, "volumeWrite", "write the volume", false, false;
    VolumeRotate, "volumeRotate", "give the volume a new data key", false, false;
    VolumeDelete, "volumeDelete", "delete the volume and destroy its keys", true, false;
    LeaseList, "leaseList", "list leases", false, false;
    LeaseEnd, "leaseEnd", "end a lease", false, false;
    JobList, "jobList", "list jobs", false, false;
    JobSubmit, "jobSubmit", "run a job", false, false;
    JobView, "jobView", "show the job", false, false;
    JobLogs, "jobLogs", "read the job's log", false, false;
    JobStop, "jobStop", "stop the job", false, false;
    JobReceipt, "jobReceipt", "fetch the job's receipt", false, false;
    KeyList, "keyList", "list keys", false, false;
    KeyDestroy, "keyDestroy", "destroy the key for good", true, true;
    TenantKeyRotate, "tenantKeyRotate", "rotate the tenant's key", true, false;
    AuditView, "auditView", "read the audit log", false, false;
    PolicyExplain, "policyExplain", "explain a decision", false, false;
    NodePlanFollow, "nodePlanFollow", "follow the node's plan", false, false;
    NodeReport, "nodeReport", "report the node's state", false, false;
    NodeCertificateRenew, "nodeCertificateRenew", "renew the node's certificate", false, false;
    NodeImageFetch, "nodeImageFetch", "fetch an image", false, false;
    AttemptLease, "attemptLease", "act for the attempt: leases", false, false;
    AttemptObjects, "attemptObjects", "act for the attempt: sealed objects", false, false;
    AttemptCommit, "attemptCommit", "act for the attempt: commit a root", false, false;
    AttemptLogs, "attemptLogs", "act for the attempt: logs", false, false;
    AttemptStatement, "attemptStatement", "act for the attempt: its statement", false, false;
    KeyRelease, "keyRelease", "hold the volume's key", false, false;
}
