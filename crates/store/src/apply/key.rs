//! Versions of wrapped keys.

use keys::{KeyRecord, KeyState};
use vocabulary::{KeyId, TenantId, UnixTime};

use super::credential::made;
use super::{PendingChange, Stop, int};
use crate::engine::{Writing, binds};
use crate::error::{CommitError, Conflict};
use crate::kind::Kind;
use crate::sql;

pub(super) async fn put(
    writing: &mut Writing,
    record: &KeyRecord,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let binds = binds![
        record.tenant.as_bytes(),
        record.purpose.as_str(),
        record.id.as_bytes(),
        record.version,
        record.kek.as_bytes(),
        record.kek_version,
        record.owner.kind.as_str(),
        &record.owner.id,
        record.created,
        record.state.as_str(),
        now,
        wrapped(record)?,
    ];
    lies_under_an_open_key(writing, record).await?;
    made(writing.execute(sql::KEY_INSERT, binds).await?)?;
    changed(record.tenant, record.id, 1, changes)
}

pub(super) async fn step(
    writing: &mut Writing,
    (tenant, id, version): (TenantId, KeyId, u32),
    from: &[KeyState],
    to: KeyState,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let Some(row) = writing.row(sql::KEY_READ, binds![tenant.as_bytes(), id.as_bytes(), version]).await? else {
        return Err(Conflict::Absent.into());
    };
    let actual = KeyState::parse(&row.text(9)?).ok_or_else(|| row.malformed())?;
    // Nothing comes back from the dead, whatever the caller expects: a key's life is one-way.
    if !from.contains(&actual) || actual.step(to).is_err() {
        return Err(Conflict::State { actual: actual.as_str().to_owned() }.into());
    }
    if to == KeyState::Destroyed {
        wraps_nothing(writing, tenant, id, version).await?;
    }
    let binds = binds![tenant.as_bytes(), id.as_bytes(), version, actual.as_str(), to.as_str(), now];
    let Some(row) = writing.row(sql::KEY_STEP, binds).await? else {
        return Err(Conflict::State { actual: actual.as_str().to_owned() }.into());
    };
    let row_version = row.number(0)?;
    if to == KeyState::Destroyed {
        writing.execute(sql::KEY_ERASE, binds![tenant.as_bytes(), id.as_bytes(), version]).await?;
    }
    changed(tenant, id, row_version, changes)
}

pub(super) async fn rewrap(
    writing: &mut Writing,
    record: &KeyRecord,
    row_version: u64,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let (tenant, id) = (record.tenant, record.id);
    lies_under_an_open_key(writing, record).await?;
    let binds = binds![
        tenant.as_bytes(),
        id.as_bytes(),
        record.version,
        int(row_version)?,
        wrapped(record)?,
        record.kek.as_bytes(),
        record.kek_version,
        record.purpose.as_str(),
        record.owner.kind.as_str(),
        &record.owner.id,
        record.created,
    ];
    if let Some(row) = writing.row(sql::KEY_REWRAP, binds).await? {
        return changed(tenant, id, row.number(0)?, changes);
    }
    let Some(row) = writing.row(sql::KEY_READ, binds![tenant.as_bytes(), id.as_bytes(), record.version]).await? else {
        return Err(Conflict::Absent.into());
    };
    let actual = row.number(12)?;
    if actual == row_version {
        return Err(Conflict::State { actual: row.text(9)? }.into());
    }
    Err(Conflict::Revision { actual }.into())
}

/// No key is put under one that is destroyed or waits for it: it would be lost with it. Root epochs have no row.
async fn lies_under_an_open_key(writing: &mut Writing, record: &KeyRecord) -> Result<(), Stop> {
    let binds = binds![record.tenant.as_bytes(), record.kek.as_bytes(), record.kek_version];
    let Some(row) = writing.row(sql::KEY_READ, binds).await? else { return Ok(()) };
    let state = KeyState::parse(&row.text(9)?).ok_or_else(|| row.malformed())?;
    if state.opens() { Ok(()) } else { Err(Conflict::State { actual: format!("the key above is {}", state.as_str()) }.into()) }
}

/// A key under which another one lies is not destroyed, whoever asks and whenever the other one came.
async fn wraps_nothing(writing: &mut Writing, tenant: TenantId, id: KeyId, version: u32) -> Result<(), Stop> {
    const PAGE: u32 = 1000;
    let (mut after, mut after_version) = ([0_u8; 16], 0_u32);
    loop {
        let binds = binds![tenant.as_bytes(), id.as_bytes(), version, &after, after_version, PAGE];
        let rows = writing.rows(sql::KEYS_UNDER, binds).await?;
        for row in &rows {
            if row.maybe_bytes(11)?.is_some() {
                return Err(Conflict::State { actual: "another key lies under it".to_owned() }.into());
            }
            (after, after_version) = (row.array(2)?, row.small(3)?);
        }
        if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

/// The wrapped bytes, if they lie under the key that the record says.
fn wrapped(record: &KeyRecord) -> Result<&[u8; 134], Stop> {
    match &record.wrapped {
        Some(wrapped) if wrapped.kek() == record.kek && wrapped.kek_version() == record.kek_version => Ok(wrapped.as_bytes()),
        Some(_) => Err(Stop::Refused(CommitError::Invalid("the wrapped key lies under another key than its record says"))),
        None => Err(Stop::Refused(CommitError::Invalid("a key record without wrapped bytes"))),
    }
}

fn changed(tenant: TenantId, id: KeyId, row_version: u64, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    changes.push(PendingChange::typed(tenant, Kind::KEY, id, row_version));
    Ok(row_version)
}
