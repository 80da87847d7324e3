//! Tokens: made, listed, revoked everywhere.

use audit::event::TokenKind as EntryTokenKind;
use audit::{Event, Outcome};
use identity::{Token, TokenKind};
use keys::SystemRandom;
use policy::action::{OtherTokenList, OtherTokenRevoke, ServiceTokenCreate, TokenCreate, TokenList, TokenRevoke};
use policy::{Action, Resource};
use serde::{Deserialize, Serialize};
use store::{Mutation, TokenUse, Transaction};
use vocabulary::api::{self, Done, IssuedToken, Page, TokenInfo};
use vocabulary::{ErrorCode, Name, PrincipalId, TenantId, TokenId, UnixTime};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::limits::{TOKEN_CHAIN_MAX, TOKENS_REVOKED_MAX};
use crate::operation::login::token_row;
use crate::operation::people::within_own;
use crate::operation::{commit, done, page, paged};
use crate::state::{Control, actor};

/// The longest life of a token: a year.
const LIFE_MAX_S: u64 = 31_536_000;

/// Query parameters of the list.
pub(crate) const LIST_QUERY: &[(&str, &str)] =
    &[("principal", "another principal of the tenant, for its administrators"), ("cursor", "where the last page ended"), ("limit", "rows, at most 1000")];

/// What stands in a token's `scope` column when it was made with another token: its note, and all tokens above it, the nearest
/// first. Without such tokens the note stands there alone.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    note: Name,
    by: Vec<TokenId>,
}

/// Reads a scope: the note, and the tokens above. A scope that cannot be read is none.
fn made(scope: &str) -> Option<(Option<Name>, Vec<TokenId>)> {
    if !scope.starts_with('{') {
        return Some((scope.parse().ok(), Vec::new()));
    }
    // No name begins with a brace.
    let Made { note, by } = serde_json::from_str(scope).ok()?;
    Some((Some(note), by))
}

impl Control {
    /// Whether all tokens live that a token was made with, one by the other. What is revoked takes with it what it made.
    pub(crate) async fn makers_live(&self, token: &TokenUse, now: UnixTime) -> Result<bool, Failure> {
        if !matches!(TokenKind::from_word(&token.row.kind), Some(TokenKind::Personal | TokenKind::Service)) {
            return Ok(true);
        }
        let Some((_, by)) = made(&token.row.scope) else { return Ok(false) };
        for maker in by {
            let maker = self.store.token(maker).await.map_err(Failure::internal)?;
            if !maker.is_some_and(|maker| maker.is_live(now)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Revokes a token, and writes as revoked what was made with it.
pub(crate) async fn revocation<A: Action>(call: &Call<A>, holder: PrincipalId, id: TokenId, event: Event) -> Result<Transaction, Failure> {
    let (control, member) = (&call.control, call.member()?);
    let tenant = member.owner();
    let entry = |event| control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(A::NAME), event);
    let mut transaction = Transaction::new().with(Mutation::RevokeToken { tenant, id }).entry(entry(event)?);
    let (mut next, mut revoked) = (store::Page::first(1000), 0);
    loop {
        let found = control.store.tokens(tenant, holder, next).await.map_err(Failure::internal)?;
        for token in found.items.iter().filter(|token| token.is_live(call.now)) {
            let below = made(&token.row.scope).is_some_and(|(_, by)| by.contains(&id));
            if below && revoked < TOKENS_REVOKED_MAX {
                revoked = revoked.saturating_add(1);
                let event = Event::TokenRevoked { token: token.row.id, token_kind: EntryTokenKind::Service };
                transaction = transaction.with(Mutation::RevokeToken { tenant, id: token.row.id }).entry(entry(event)?);
            }
        }
        match found.items.last() {
            Some(last) if found.truncated => next = store::Page::after(*last.row.id.as_bytes(), 1000),
            _ => return Ok(transaction),
        }
    }
}

/// Makes a token for oneself.
pub(crate) async fn create(call: Call<TokenCreate>, request: api::TokenCreate) -> Result<IssuedToken, Failure> {
    if request.service_account.is_some() {
        return Err(Failure::invalid("`service_account` is named by POST /v1/service-accounts/{id}/tokens"));
    }
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    // A token made with a token ends with it at the latest, however it ends. A login is no such: there its person showed factors.
    let with = call.control.store.token(member.token).await.map_err(Failure::internal)?.ok_or_else(|| Failure::internal("the caller's token is gone"))?;
    let by = if TokenKind::from_word(&with.row.kind) == Some(TokenKind::Session) {
        Vec::new()
    } else {
        let (_, above) = made(&with.row.scope).ok_or_else(|| Failure::internal("the scope of a token cannot be read"))?;
        if above.len() >= TOKEN_CHAIN_MAX {
            return Err(Failure::new(
                ErrorCode::WrongState,
                format!("at most {TOKEN_CHAIN_MAX} tokens are made one with the other: make it with one nearer to your login"),
            ));
        }
        if call.now.plus_millis(request.lifetime_s.saturating_mul(1000)) > with.row.expires {
            let left = with.row.expires.since(call.now).unwrap_or(0) / 1000;
            return Err(Failure::invalid(format!("`lifetime_s`: a token made with a token ends with it at the latest, which is in {left} s; log in to make a longer one")));
        }
        std::iter::once(with.row.id).chain(above).collect()
    };
    // A token made from a login carries no second factor into the future: what wants a fresh one will ask.
    issue(&call, member.owner(), member.principal, TokenKind::Personal, &request, by).await
}

/// Makes a token for a service account.
pub(crate) async fn create_service(call: Call<ServiceTokenCreate>, request: api::TokenCreate) -> Result<IssuedToken, Failure> {
    let tenant = call.tenant()?.tenant;
    let id: PrincipalId = call.id("id")?;
    let other = call.control.member(tenant, id).await?.ok_or_else(Failure::not_found)?;
    if other.kind != api::PrincipalKind::ServiceAccount {
        return Err(Failure::not_found());
    }
    // Whoever holds the account's token has the account's rights.
    within_own(&call, &other.roles, other.clearance, "the service account").await?;
    let (account, life) = (id.to_string(), format!("{} s", request.lifetime_s));
    let said = [(account.as_str(), other.name.as_str()), ("note", request.note.as_str()), ("life", life.as_str())];
    call.permit(Resource::Principal(other.facts()), &said).await?.spend();
    issue(&call, tenant, id, TokenKind::Service, &request, Vec::new()).await
}

async fn issue<A: Action>(
    call: &Call<A>,
    tenant: TenantId,
    holder: PrincipalId,
    kind: TokenKind,
    request: &api::TokenCreate,
    by: Vec<TokenId>,
) -> Result<IssuedToken, Failure> {
    if !(60..=LIFE_MAX_S).contains(&request.lifetime_s) {
        return Err(Failure::invalid(format!("`lifetime_s` is 60 to {LIFE_MAX_S}")));
    }
    let member = call.member()?;
    let token = Token::draw(kind, &mut SystemRandom);
    let expires = call.now.plus_millis(request.lifetime_s.saturating_mul(1000));
    let scope = if by.is_empty() {
        request.note.to_string()
    } else {
        serde_json::to_string(&Made { note: request.note.clone(), by }).map_err(Failure::internal)?
    };
    let row = token_row(&call.control, &token, tenant, Some(holder), &scope, call.now, expires, 0, None)?;
    let event = Event::TokenIssued { token: token.id(), token_kind: EntryTokenKind::Service, holder: Some(holder), expires };
    let entry = call.control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(A::NAME), event)?;
    let (index, _) = commit(call, Transaction::new().with(Mutation::PutToken(row)).entry(entry)).await?;
    Ok(IssuedToken { id: token.id(), token: token.reveal().to_string(), expires, principal: holder, audit_index: index })
}

/// Lists one's own tokens, or with `principal` those of another of the tenant, for its administrators.
pub(crate) async fn list(call: Call<TokenList>) -> Result<Page<TokenInfo>, Failure> {
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    let whose = match call.query("principal") {
        None => member.principal,
        Some(text) => {
            let id: PrincipalId = text.parse().map_err(|_| Failure::invalid("query parameter `principal` is no id"))?;
            if id != member.principal {
                let Some(other) = call.control.member(member.owner(), id).await? else {
                    return Err(call.refused(Failure::not_found(), "principal", id.to_string(), "isolation-user").await);
                };
                call.also::<OtherTokenList>(Resource::Principal(other.facts())).await?;
            }
            id
        }
    };
    let found = call.control.store.tokens(member.owner(), whose, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |token| *token.row.id.as_bytes(), |token| {
        let (note, by) = made(&token.row.scope)?;
        Some(TokenInfo {
            id: token.row.id,
            kind: token.row.kind,
            principal: token.row.principal,
            created: token.row.created,
            expires: token.row.expires,
            last_used: token.last_used,
            revoked: token.revoked,
            parent: by.first().copied(),
            note,
        })
    }))
}

/// Revokes a token of one's own. Another's is refused by the same route when the caller is no administrator.
pub(crate) async fn revoke(call: Call<TokenRevoke>) -> Result<Done, Failure> {
    let member = call.member()?;
    let id: TokenId = call.id("id")?;
    let found = call.control.store.token(id).await.map_err(Failure::internal)?;
    let found = found.filter(|token| token.row.tenant == member.owner() && token.row.principal == Some(member.principal));
    found.ok_or_else(Failure::not_found)?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    revoke_now(&call, member.principal, id).await
}

/// Revokes a token of another principal of the tenant.
pub(crate) async fn revoke_other(call: Call<OtherTokenRevoke>) -> Result<Done, Failure> {
    let tenant = call.tenant()?.tenant;
    let principal: PrincipalId = call.id("id")?;
    let id: TokenId = call.id("token")?;
    let other = call.control.member(tenant, principal).await?.ok_or_else(Failure::not_found)?;
    let found = call.control.store.token(id).await.map_err(Failure::internal)?;
    found.filter(|token| token.row.tenant == tenant && token.row.principal == Some(principal)).ok_or_else(Failure::not_found)?;
    call.permit(Resource::Principal(other.facts()), &[]).await?.spend();
    revoke_now(&call, principal, id).await
}

async fn revoke_now<A: Action>(call: &Call<A>, holder: PrincipalId, id: TokenId) -> Result<Done, Failure> {
    let event = Event::TokenRevoked { token: id, token_kind: EntryTokenKind::Service };
    let (index, _) = commit(call, revocation(call, holder, id, event).await?).await?;
    Ok(done(index, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_note_or_says_who_made_it() {
        let id = |n| TokenId::from_bytes([n; 16]);
        let scope = serde_json::to_string(&Made { note: "ci".parse().unwrap(), by: vec![id(2), id(1)] }).unwrap();
        assert_eq!(made(&scope), Some((Some("ci".parse().unwrap()), vec![id(2), id(1)])));
        assert_eq!(made("ci"), Some((Some("ci".parse().unwrap()), Vec::new())));
        assert_eq!(made(""), Some((None, Vec::new())));
        // What cannot be read vouches for nobody.
        for broken in ["{", "{}", r#"{"note":"ci"}"#, r#"{"note":"ci","by":["x"]}"#, r#"{"note":"ci","by":[],"more":1}"#] {
            assert_eq!(made(broken), None, "{broken}");
        }
    }
}
