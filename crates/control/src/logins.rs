//! Credentials that were read a moment ago. A busy client's token, principal and tenant are not read anew for each request.
//!
//! What was read counts as long as nothing at all was committed since, in this process, and never longer than [`FRESH_MS`]:
//! a revocation is seen by the next request here, and within that time where another process made it (5 s are promised).
//! Only what was found is kept, beside the proof that a secret must still fit each time; ends and suspensions are judged anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use store::TokenUse;
use vocabulary::{TokenId, UnixTime};

use crate::caller::Member;

/// How long what was read counts, where another process may have changed it.
const FRESH_MS: u64 = 1_000;
/// Tokens that are kept: about a kilobyte each. Beyond it all are forgotten.
const KEPT_MAX: usize = 4_096;

/// A token with whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) token: TokenUse,
    pub(crate) member: Member,
}

#[derive(Debug)]
struct Known {
    /// The last change that was committed before it was read.
    change: u64,
    read: UnixTime,
    login: Login,
}

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<BTreeMap<TokenId, Known>>);

impl Logins {
    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<TokenId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that was read when `change` was the last change, which it must still be.
    pub(crate) fn find(&self, id: TokenId, change: u64, now: UnixTime) -> Option<Login> {
        let known = self.known();
        // A clock that went back makes nothing fresh.
        let found = known.get(&id).filter(|known| known.change == change && now.since(known.read).is_some_and(|age| age < FRESH_MS))?;
        Some(found.login.clone())
    }

    /// Keeps what was read after `change` was seen as the last change.
    pub(crate) fn keep(&self, change: u64, read: UnixTime, login: Login) {
        let mut known = self.known();
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        known.insert(login.token.row.id, Known { change, read, login });
    }

    /// Notes a use, which is no change.
    pub(crate) fn touched(&self, id: TokenId, now: UnixTime) {
        if let Some(known) = self.known().get_mut(&id) {
            known.login.token.last_used = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::SetFacts;
    use vocabulary::api::PrincipalKind;
    use vocabulary::{PrincipalId, Sensitivity, TenantId};

    use super::*;

    fn login(id: TokenId) -> Login {
        let (tenant, principal) = (TenantId::from_bytes([1; 16]), PrincipalId::from_bytes([2; 16]));
        let row = store::TokenRow {
            tenant,
            id,
            kind: "session".to_owned(),
            principal: Some(principal),
            mac: [0; 32],
            pepper_version: 1,
            scope: String::new(),
            created: UnixTime::from_millis(0),
            expires: UnixTime::from_millis(u64::MAX >> 8),
            acr: 1,
            factor_time: None,
            thumbprint: None,
        };
        let member = Member {
            principal,
            kind: PrincipalKind::User,
            name: "a".parse().unwrap(),
            person: None,
            tenant: Some(SetFacts { tenant, suspended: false }),
            tenant_name: None,
            provider: None,
            roles: Vec::new(),
            clearance: Sensitivity::Public,
            invited: false,
            acr: 1,
            factor_time: None,
            token: id,
            expires: row.expires,
        };
        Login { token: TokenUse { row, last_used: None, revoked: None, consumed: None }, member }
    }

    #[test]
    fn any_change_time_and_a_clock_that_went_back_end_it() {
        let logins = Logins::default();
        let (id, now) = (TokenId::from_bytes([7; 16]), UnixTime::from_millis(1_000_000));
        assert!(logins.find(id, 5, now).is_none());
        logins.keep(5, now, login(id));
        assert!(logins.find(id, 5, now.plus_millis(FRESH_MS - 1)).is_some());
        assert!(logins.find(id, 6, now).is_none(), "a change was committed");
        assert!(logins.find(id, 5, now.plus_millis(FRESH_MS)).is_none(), "too old");
        assert!(logins.find(id, 5, UnixTime::from_millis(999_999)).is_none(), "the clock went back");
        assert!(logins.find(TokenId::from_bytes([8; 16]), 5, now).is_none());
        logins.touched(id, now.plus_millis(3));
        assert_eq!(logins.find(id, 5, now).unwrap().token.last_used, Some(now.plus_millis(3)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let logins = Logins::default();
        let now = UnixTime::from_millis(1);
        for n in 0..KEPT_MAX * 2 + 1 {
            logins.keep(1, now, login(TokenId::from_bytes((n as u128).to_be_bytes())));
        }
        assert!(logins.known().len() <= KEPT_MAX);
    }
}
