//! Who calls, once a credential was checked.

use policy::{RoleBinding, SetFacts};
use vocabulary::api::PrincipalKind;
use vocabulary::{Name, PersonId, PrincipalId, ProviderId, SYSTEM_OWNER, Sensitivity, TenantId, TokenId, UnixTime};

/// A person or program with a token.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) principal: PrincipalId,
    pub(crate) kind: PrincipalKind,
    pub(crate) name: Name,
    pub(crate) person: Option<PersonId>,
    /// `None` for operators.
    pub(crate) tenant: Option<SetFacts>,
    pub(crate) tenant_name: Option<Name>,
    pub(crate) provider: Option<ProviderId>,
    pub(crate) roles: Vec<RoleBinding>,
    pub(crate) clearance: Sensitivity,
    /// Whether its person has not come in yet: nobody acts as it.
    pub(crate) invited: bool,
    pub(crate) acr: u8,
    pub(crate) factor_time: Option<UnixTime>,
    pub(crate) token: TokenId,
    pub(crate) expires: UnixTime,
}

impl Member {
    /// The tenant under which its own rows lie.
    pub(crate) fn owner(&self) -> TenantId {
        self.tenant.map_or(SYSTEM_OWNER, |tenant| tenant.tenant)
    }
    /// As the rules see it.
    pub(crate) fn facts(&self) -> policy::Principal {
        let tenant = self.tenant.unwrap_or(SetFacts { tenant: SYSTEM_OWNER, suspended: false });
        match self.kind {
            PrincipalKind::Operator => policy::Principal::Operator { id: self.principal, provider: self.provider },
            PrincipalKind::User => {
                policy::Principal::User { id: self.principal, tenant, roles: self.roles.clone(), clearance: self.clearance }
            }
            PrincipalKind::ServiceAccount => {
                policy::Principal::ServiceAccount { id: self.principal, tenant, roles: self.roles.clone(), clearance: self.clearance }
            }
        }
    }
    /// Whether it may be told which rules refused.
    pub(crate) fn is_admin(&self) -> bool {
        self.kind == PrincipalKind::Operator
            || self.roles.iter().any(|binding| binding.role == policy::Role::Admin && binding.project.is_none())
    }
}
