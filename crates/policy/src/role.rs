//! Roles, as people write them: `admin`, `engineer`, `viewer`, `auditor`, or `engineer@PROJECT-ID` for one project.

use std::fmt;
use std::str::FromStr;

use vocabulary::ProjectId;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything in the tenant, or in the project without its people.
    Admin,
    /// Uses volumes and images, runs jobs.
    Engineer,
    /// Looks.
    Viewer,
    /// Looks, and reads the audit log and the key inventory. Of a tenant only.
    Auditor,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Engineer, Self::Viewer, Self::Auditor];
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Engineer => "engineer",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
        }
    }
    /// The groups of actions that a tenant's role permits.
    pub(crate) const fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Admin => &["read", "write", "admin", "audit"],
            Self::Engineer => &["read", "write"],
            Self::Viewer => &["read"],
            Self::Auditor => &["audit"],
        }
    }
    /// Single actions beside the groups.
    pub(crate) const fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Auditor => {
                &["projectList", "principalList", "imageList", "volumeList", "volumeView", "secretList", "secretView", "imagePolicyView", "jobList", "jobView", "jobReceipt", "leaseList", "policyExplain"]
            }
            Self::Admin | Self::Engineer | Self::Viewer => &[],
        }
    }
}

/// A role, in the whole tenant or in one project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleBinding {
    /// The role.
    pub role: Role,
    /// The project, or `None` for the tenant.
    pub project: Option<ProjectId>,
}

/// A text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// An unknown word.
    #[error("`{0}` is no role: admin, engineer, viewer, auditor, or one of the first three with @PROJECT-ID")]
    Unknown(String),
    /// Auditors are of a tenant.
    #[error("an auditor is of the whole tenant, not of a project")]
    AuditorOfProject,
}

impl FromStr for RoleBinding {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        let unknown = || RoleError::Unknown(text.chars().filter(|c| !c.is_control()).take(64).collect());
        let (word, project) = match text.split_once('@') {
            Some((word, project)) => (word, Some(project.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let role = Role::ALL.into_iter().find(|role| role.as_str() == word).ok_or_else(unknown)?;
        if role == Role::Auditor && project.is_some() {
            return Err(RoleError::AuditorOfProject);
        }
        Ok(Self { role, project })
    }
}

impl fmt::Display for RoleBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.project {
            Some(project) => write!(f, "{}@{project}", self.role.as_str()),
            None => f.write_str(self.role.as_str()),
        }
    }
}
