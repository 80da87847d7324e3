//! Tokens: logins, service tokens, join tokens, tickets. The secret is nowhere: only its MAC.

use vocabulary::{PrincipalId, TenantId, TokenId, UnixTime};

/// A token as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Whose; `SYSTEM_OWNER` for the deployment's own (join tokens, operators' logins).
    pub tenant: TenantId,
    /// Its public half.
    pub id: TokenId,
    /// `ses`, `svc`, `join`, `rec` and so on (`access.md` 4.4).
    pub kind: String,
    /// For whom; none for a join token.
    pub principal: Option<PrincipalId>,
    /// HMAC-SHA256(pepper, secret).
    pub mac: [u8; 32],
    /// The version of the pepper.
    pub pepper_version: u32,
    /// What it may be used for: JSON of the caller's, or empty.
    pub scope: String,
    /// When it was made.
    pub created: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
    /// The class of the login.
    pub acr: u8,
    /// When a factor was last shown.
    pub factor_time: Option<UnixTime>,
    /// SHA-256 of the client's key, when it is bound to one.
    pub thumbprint: Option<[u8; 32]>,
}

/// A token as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUse {
    /// As it was made.
    pub row: TokenRow,
    /// When it was last used, coarsely.
    pub last_used: Option<UnixTime>,
    /// When it was revoked.
    pub revoked: Option<UnixTime>,
    /// When it was spent.
    pub consumed: Option<UnixTime>,
}

impl TokenUse {
    /// Whether it is neither revoked nor spent nor over.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revoked.is_none() && self.consumed.is_none() && now < self.row.expires
    }
}
