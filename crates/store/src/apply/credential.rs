//! Tokens and step-ups: what is spent is spent by one conditional update.

use vocabulary::{PrincipalId, StepUpId, TenantId, TokenId, UnixTime};

use super::factor::once;
use super::{PendingChange, Stop};
use crate::engine::{Writing, binds};
use crate::error::Conflict;
use crate::kind::Kind;
use crate::record::{StepUpRow, TokenRow};
use crate::sql;

pub(super) async fn put_token(writing: &mut Writing, row: &TokenRow, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    let binds = binds![
        row.tenant.as_bytes(),
        row.id.as_bytes(),
        row.kind.as_str(),
        row.principal.as_ref().map(PrincipalId::as_bytes),
        &row.mac,
        row.pepper_version,
        row.scope.as_str(),
        row.created,
        row.expires,
        row.acr,
        row.factor_time,
        row.thumbprint.as_ref(),
    ];
    made(writing.execute(sql::TOKEN_INSERT, binds).await?)?;
    changes.push(PendingChange::typed(row.tenant, Kind::TOKEN, row.id, 0));
    Ok(1)
}

pub(super) async fn revoke(
    writing: &mut Writing,
    tenant: TenantId,
    id: TokenId,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let revoked = writing.execute(sql::TOKEN_REVOKE, binds![tenant.as_bytes(), id.as_bytes(), now]).await?;
    if revoked == 1 {
        changes.push(PendingChange::typed(tenant, Kind::TOKEN, id, 0));
    } else if writing.row(sql::TOKEN_PROBE, binds![tenant.as_bytes(), id.as_bytes()]).await?.is_none() {
        return Err(Conflict::Absent.into());
    }
    Ok(revoked)
}

pub(super) async fn revoke_all(
    writing: &mut Writing,
    tenant: TenantId,
    principal: PrincipalId,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let mut revoked = 0;
    for row in writing.rows(sql::TOKEN_REVOKE_ALL, binds![tenant.as_bytes(), principal.as_bytes(), now]).await? {
        changes.push(PendingChange::typed(tenant, Kind::TOKEN, row.array::<16>(0)?, 0));
        revoked += 1;
    }
    Ok(revoked)
}

pub(super) async fn consume(
    writing: &mut Writing,
    tenant: TenantId,
    id: TokenId,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    once(writing.execute(sql::TOKEN_CONSUME, binds![tenant.as_bytes(), id.as_bytes(), now]).await?)?;
    changes.push(PendingChange::typed(tenant, Kind::TOKEN, id, 0));
    Ok(1)
}

pub(super) async fn touch(writing: &mut Writing, tenant: TenantId, id: TokenId, now: UnixTime) -> Result<u64, Stop> {
    Ok(writing.execute(sql::TOKEN_TOUCH, binds![tenant.as_bytes(), id.as_bytes(), now]).await?)
}

pub(super) async fn put_step_up(writing: &mut Writing, row: &StepUpRow) -> Result<u64, Stop> {
    let binds = binds![
        row.tenant.as_bytes(),
        row.id.as_bytes(),
        row.principal.as_bytes(),
        row.login.as_bytes(),
        row.action.as_str(),
        row.summary.as_str(),
        &row.request_hash,
        row.challenge.as_slice(),
        row.created,
        row.expires,
    ];
    made(writing.execute(sql::STEP_UP_INSERT, binds).await?)
}

pub(super) async fn verify_step_up(
    writing: &mut Writing,
    (tenant, id): (TenantId, StepUpId),
    principal: PrincipalId,
    acr: u8,
    now: UnixTime,
) -> Result<u64, Stop> {
    let binds = binds![tenant.as_bytes(), id.as_bytes(), principal.as_bytes(), acr, now];
    once(writing.execute(sql::STEP_UP_VERIFY, binds).await?)
}

pub(super) async fn consume_step_up(
    writing: &mut Writing,
    (tenant, id): (TenantId, StepUpId),
    principal: PrincipalId,
    request_hash: &[u8; 32],
    now: UnixTime,
) -> Result<u64, Stop> {
    let binds = binds![tenant.as_bytes(), id.as_bytes(), request_hash, principal.as_bytes(), now];
    once(writing.execute(sql::STEP_UP_CONSUME, binds).await?)
}

/// One row, or the id was there before.
pub(super) fn made(rows: u64) -> Result<u64, Stop> {
    if rows == 1 { Ok(1) } else { Err(Conflict::Exists.into()) }
}
