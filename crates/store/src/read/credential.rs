//! Reads factors, delays, tokens and step-ups.

use vocabulary::{KeyId, PersonId, PrincipalId, StepUpId, TenantId, TokenId};

use super::{Page, Paged, begin};
use crate::apply::factor_columns;
use crate::engine::{Malformed, Row, binds};
use crate::error::ReadError;
use crate::record::{DelaySubject, Hashed, LoginDelay, RecoveryCode, StepUpRow, TokenRow, TokenUse, TotpRow};
use crate::sql;
use crate::store::Store;

fn token(row: &Row) -> Result<TokenUse, Malformed> {
    Ok(TokenUse {
        row: TokenRow {
            tenant: TenantId::from_bytes(row.array(0)?),
            id: TokenId::from_bytes(row.array(1)?),
            kind: row.text(2)?,
            principal: row.maybe_array(3)?.map(PrincipalId::from_bytes),
            mac: row.array(4)?,
            pepper_version: row.small(5)?,
            scope: row.text(6)?,
            created: row.time(7)?,
            expires: row.time(8)?,
            acr: row.small(9)?,
            factor_time: row.maybe_time(10)?,
            thumbprint: row.maybe_array(11)?,
        },
        last_used: row.maybe_time(12)?,
        revoked: row.maybe_time(13)?,
        consumed: row.maybe_time(14)?,
    })
}

fn step_up(row: &Row) -> Result<StepUpRow, Malformed> {
    Ok(StepUpRow {
        tenant: TenantId::from_bytes(row.array(0)?),
        id: StepUpId::from_bytes(row.array(1)?),
        principal: PrincipalId::from_bytes(row.array(2)?),
        login: TokenId::from_bytes(row.array(3)?),
        action: row.text(4)?,
        summary: row.text(5)?,
        request_hash: row.array(6)?,
        challenge: row.bytes(7)?,
        created: row.time(8)?,
        expires: row.time(9)?,
        verified: row.flag(10)?,
        acr: row.small(11)?,
        uses_left: row.small(12)?,
        verified_at: row.maybe_time(13)?,
    })
}

impl Store {
    /// The hash of a person's password.
    pub async fn password(&self, person: PersonId) -> Result<Option<Hashed>, ReadError> {
        self.one(sql::PASSWORD_READ, binds![person.as_bytes()], |row| row.text(0).map(Hashed::new)).await
    }
    /// A person's TOTP factor.
    pub async fn totp(&self, person: PersonId) -> Result<Option<TotpRow>, ReadError> {
        let read = |row: &Row| Ok(TotpRow { person, key: KeyId::from_bytes(row.array(0)?), last_step: row.number(1)? });
        self.one(sql::TOTP_READ, binds![person.as_bytes()], read).await
    }
    /// A person's recovery codes, spent ones included.
    pub async fn recovery_codes(&self, person: PersonId) -> Result<Vec<RecoveryCode>, ReadError> {
        let read =
            |row: &Row| Ok(RecoveryCode { place: row.small(0)?, hash: Hashed::new(row.text(1)?), used: row.flag(2)? });
        self.all(sql::RECOVERY_READ, binds![person.as_bytes()], read).await
    }
    /// The failures of a person or source; none since the last success.
    pub async fn login_delay(&self, subject: &DelaySubject) -> Result<Option<LoginDelay>, ReadError> {
        let (kind, subject) = factor_columns(subject);
        let read = |row: &Row| Ok(LoginDelay { failures: row.number(0)?, until: row.time(1)? });
        self.one(sql::DELAY_READ, binds![kind, subject.as_str()], read).await
    }

    /// A token by its public half: the only load by id alone. Its tenant comes out of it.
    pub async fn token(&self, id: TokenId) -> Result<Option<TokenUse>, ReadError> {
        self.one(sql::TOKEN_BY_ID, binds![id.as_bytes()], token).await
    }
    /// A principal's tokens.
    pub async fn tokens(&self, tenant: TenantId, principal: PrincipalId, page: Page) -> Result<Paged<TokenUse>, ReadError> {
        let binds = binds![tenant.as_bytes(), principal.as_bytes(), begin(page.after.as_ref()), page.fetch()];
        Ok(Paged::cut(self.all(sql::TOKEN_LIST, binds, token).await?, &page))
    }
    /// A step-up.
    pub async fn step_up(&self, tenant: TenantId, id: StepUpId) -> Result<Option<StepUpRow>, ReadError> {
        self.one(sql::STEP_UP_READ, binds![tenant.as_bytes(), id.as_bytes()], step_up).await
    }
}
