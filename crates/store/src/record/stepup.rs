//! Step-ups: one request that waits for a fresh factor (`access.md` 4.6).

use vocabulary::{PrincipalId, StepUpId, TenantId, TokenId, UnixTime};

/// A step-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUpRow {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub id: StepUpId,
    /// Of whom.
    pub principal: PrincipalId,
    /// The login that asks.
    pub login: TokenId,
    /// The action.
    pub action: String,
    /// What the person is shown: ids and names, written by the server.
    pub summary: String,
    /// SHA-256 of the canonical request.
    pub request_hash: [u8; 32],
    /// What the factor must answer; empty for TOTP.
    pub challenge: Vec<u8>,
    /// When it was made.
    pub created: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
    /// Whether the factor was shown. Written `false`; only [`crate::Mutation::VerifyStepUp`] sets it.
    pub verified: bool,
    /// The class of what was shown. Written 0.
    pub acr: u8,
    /// Uses left: 1, then 0. Written 1.
    pub uses_left: u8,
    /// When the factor was shown.
    pub verified_at: Option<UnixTime>,
}
