//! Tokens: made, listed, revoked everywhere.

use audit::event::TokenKind as EntryTokenKind;
use audit::{Event, Outcome};
use identity::{Token, TokenKind};
use keys::SystemRandom;
use policy::action::{OtherTokenRevoke, ServiceTokenCreate, TokenCreate, TokenList, TokenRevoke};
use policy::{Action, Resource};
use store::{Mutation, Transaction};
use vocabulary::api::{self, Done, IssuedToken, Page, TokenInfo};
use vocabulary::{PrincipalId, TenantId, TokenId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::caller::Member;
use crate::operation::login::token_row;
use crate::operation::{commit, done, page, paged};
use crate::state::actor;

/// The longest life of a token: a year.
const LIFE_MAX_S: u64 = 31_536_000;

/// Makes a token for oneself.
pub(crate) async fn create(call: Call<TokenCreate>, request: api::TokenCreate) -> Result<IssuedToken, Failure> {
    if request.service_account.is_some() {
        return Err(Failure::invalid("`service_account` is named by POST /v1/service-accounts/{id}/tokens"));
    }
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    // A token made from a login carries no second factor into the future: what wants a fresh one will ask.
    issue(&call, member.owner(), member.principal, TokenKind::Personal, &request, TokenCreate::NAME).await
}

/// Makes a token for a service account.
pub(crate) async fn create_service(call: Call<ServiceTokenCreate>, request: api::TokenCreate) -> Result<IssuedToken, Failure> {
    let tenant = call.tenant()?.tenant;
    let id: PrincipalId = call.id("id")?;
    let other = call.control.member(tenant, id).await?.ok_or_else(Failure::not_found)?;
    call.permit(Resource::Principal(other.facts()), &[]).await?.spend();
    if other.kind != api::PrincipalKind::ServiceAccount {
        return Err(Failure::not_found());
    }
    issue(&call, tenant, id, TokenKind::Service, &request, ServiceTokenCreate::NAME).await
}

async fn issue<A>(
    call: &Call<A>,
    tenant: TenantId,
    holder: PrincipalId,
    kind: TokenKind,
    request: &api::TokenCreate,
    action: &str,
) -> Result<IssuedToken, Failure> {
    if !(60..=LIFE_MAX_S).contains(&request.lifetime_s) {
        return Err(Failure::invalid(format!("`lifetime_s` is 60 to {LIFE_MAX_S}")));
    }
    let member = call.member()?;
    let token = Token::draw(kind, &mut SystemRandom);
    let expires = call.now.plus_millis(request.lifetime_s.saturating_mul(1000));
    let row = token_row(&call.control, &token, tenant, Some(holder), request.note.as_str(), call.now, expires, 0, None)?;
    let event = Event::TokenIssued { token: token.id(), token_kind: EntryTokenKind::Service, holder: Some(holder), expires };
    let entry = call.control.entry(call.now, tenant, actor(member), call.source(), Outcome::Success, Some(action), event)?;
    let (index, _) = commit(call, Transaction::new().with(Mutation::PutToken(row)).entry(entry)).await?;
    Ok(IssuedToken { id: token.id(), token: token.reveal().to_string(), expires, principal: holder, audit_index: index })
}

/// Lists one's own tokens, or with `principal` those of another of the tenant.
pub(crate) async fn list(call: Call<TokenList>) -> Result<Page<TokenInfo>, Failure> {
    let member = call.member()?;
    call.permit(Resource::Principal(member.facts()), &[]).await?.spend();
    let found = call.control.store.tokens(member.owner(), member.principal, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |token| *token.row.id.as_bytes(), |token| {
        Some(TokenInfo {
            id: token.row.id,
            kind: token.row.kind,
            principal: token.row.principal,
            created: token.row.created,
            expires: token.row.expires,
            last_used: token.last_used,
            revoked: token.revoked,
            note: token.row.scope.parse().ok(),
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
    revoke_now(&call, member, id, TokenRevoke::NAME).await
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
    revoke_now(&call, call.member()?, id, OtherTokenRevoke::NAME).await
}

async fn revoke_now<A>(call: &Call<A>, member: &Member, id: TokenId, action: &str) -> Result<Done, Failure> {
    let event = Event::TokenRevoked { token: id, token_kind: EntryTokenKind::Service };
    let entry = call.control.entry(call.now, member.owner(), actor(member), call.source(), Outcome::Success, Some(action), event)?;
    let revoke = Mutation::RevokeToken { tenant: member.owner(), id };
    let (index, _) = commit(call, Transaction::new().with(revoke).entry(entry)).await?;
    Ok(done(index, &[]))
}
