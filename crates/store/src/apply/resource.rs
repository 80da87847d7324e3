//! Resources, positions, and what is forgotten by age.

use vocabulary::{TenantId, UnixTime};

use super::{PendingChange, Stop, int};
use crate::convert::NO_PROJECT;
use crate::engine::{Trouble, Writing, binds, trouble};
use crate::error::{CommitError, Conflict};
use crate::kind::Kind;
use crate::record::Put;
use crate::sql;
use crate::transaction::Expect;

/// A resource's key.
type Key = (TenantId, Kind, [u8; 16]);

pub(super) async fn put(writing: &mut Writing, put: &Put, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    let key = (put.tenant, put.kind, put.id);
    let project = put.project.map_or(NO_PROJECT, |project| *project.as_bytes());
    let mut binds = binds![
        put.tenant.as_bytes(),
        put.kind.as_str(),
        &put.id,
        &project,
        put.name.as_ref().map(vocabulary::Name::as_str),
        put.parent.as_ref(),
        put.link.as_ref(),
        put.state.as_deref(),
        put.until,
        put.body.as_str(),
    ];
    let statement = match put.expect {
        Expect::Absent => sql::RESOURCE_INSERT,
        Expect::Any => sql::RESOURCE_UPSERT,
        Expect::Revision(revision) => {
            binds.push(int(revision)?.into());
            sql::RESOURCE_UPDATE
        }
    };
    let row = writing.row(statement, binds).await.map_err(|error| {
        if trouble(&error) == Trouble::Unique { Stop::Conflict(Conflict::NameTaken) } else { Stop::from(error) }
    })?;
    match row {
        Some(row) => changed(key, row.number(0)?, false, changes),
        None => Err(match put.expect {
            Expect::Absent | Expect::Any => Conflict::Exists.into(),
            Expect::Revision(_) => missed(writing, key).await?,
        }),
    }
}

pub(super) async fn delete(
    writing: &mut Writing,
    key: Key,
    expect: Expect,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let (tenant, kind, id) = key;
    let revision = match expect {
        Expect::Absent => return Err(Stop::Refused(CommitError::Invalid("what is deleted cannot be expected to be absent"))),
        // No resource has revision 0: it stands for "any" in the statement.
        Expect::Revision(0) => return Err(missed(writing, key).await?),
        Expect::Revision(revision) => int(revision)?,
        Expect::Any => 0,
    };
    let row = writing.row(sql::RESOURCE_DELETE, binds![tenant.as_bytes(), kind.as_str(), &id, revision]).await?;
    match row {
        Some(row) => changed(key, row.number(0)?, true, changes),
        None => Err(missed(writing, key).await?),
    }
}

pub(super) async fn step(
    writing: &mut Writing,
    key: Key,
    from: &str,
    to: &str,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let (tenant, kind, id) = key;
    let row = writing.row(sql::RESOURCE_STEP, binds![tenant.as_bytes(), kind.as_str(), &id, from, to]).await?;
    match row {
        Some(row) => changed(key, row.number(0)?, false, changes),
        None => Err(other_state(writing, key, from).await?),
    }
}

pub(super) async fn extend(
    writing: &mut Writing,
    key: Key,
    state: &str,
    until: UnixTime,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let (tenant, kind, id) = key;
    let row = writing.row(sql::RESOURCE_EXTEND, binds![tenant.as_bytes(), kind.as_str(), &id, state, until, now]).await?;
    match row {
        Some(row) => changed(key, row.number(0)?, false, changes),
        None => Err(other_state(writing, key, state).await?),
    }
}

pub(super) async fn hold(writing: &mut Writing, key: Key, revision: u64) -> Result<u64, Stop> {
    let (tenant, kind, id) = key;
    match writing.row(sql::RESOURCE_HOLD, binds![tenant.as_bytes(), kind.as_str(), &id, int(revision)?]).await? {
        Some(row) => Ok(row.number(0)?),
        None => Err(missed(writing, key).await?),
    }
}

pub(super) async fn advance(writing: &mut Writing, key: Key, from: u64, to: u64) -> Result<u64, Stop> {
    let (tenant, kind, id) = key;
    if to <= from {
        return Err(Stop::Refused(CommitError::Invalid("a position only goes forward")));
    }
    if from == 0 {
        writing.execute(sql::POSITION_BEGIN, binds![tenant.as_bytes(), kind.as_str(), &id, 0_i64]).await?;
    }
    let binds = binds![tenant.as_bytes(), kind.as_str(), &id, int(from)?, int(to)?];
    if writing.execute(sql::POSITION_ADVANCE, binds).await? == 1 {
        return Ok(to);
    }
    let row = writing.row(sql::POSITION_READ, binds![tenant.as_bytes(), kind.as_str(), &id]).await?;
    let actual = row.map(|row| row.number(0)).transpose()?.unwrap_or(0);
    Err(Conflict::Position { actual }.into())
}

pub(super) async fn prune_changes(writing: &mut Writing, through: u64) -> Result<u64, Stop> {
    let last = writing.row(sql::CHANGE_LAST, binds![]).await?.map(|row| row.number(0)).transpose()?.unwrap_or(0);
    if through >= last {
        return Err(Stop::Refused(CommitError::Invalid("the last change cannot be forgotten")));
    }
    writing.execute(sql::COUNTER_RAISE, binds!["change_floor", int(through)?]).await?;
    Ok(writing.execute(sql::CHANGE_PRUNE, binds![int(through)?]).await?)
}

pub(super) async fn prune(writing: &mut Writing, before: UnixTime) -> Result<u64, Stop> {
    let keys = writing.execute(sql::IDEMPOTENCY_PRUNE, binds![before]).await?;
    let step_ups = writing.execute(sql::STEP_UP_PRUNE, binds![before]).await?;
    Ok(keys.saturating_add(step_ups))
}

fn changed(key: Key, revision: u64, deleted: bool, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    let (tenant, kind, id) = key;
    changes.push(PendingChange { tenant, kind, id, revision, deleted, resource: true });
    Ok(revision)
}

/// What to say when no row had the expected revision.
async fn missed(writing: &mut Writing, key: Key) -> Result<Stop, Stop> {
    Ok(match probe(writing, key).await? {
        Some((revision, _)) => Conflict::Revision { actual: revision }.into(),
        None => Conflict::Absent.into(),
    })
}

/// What to say when no row was in the expected state.
async fn other_state(writing: &mut Writing, key: Key, expected: &str) -> Result<Stop, Stop> {
    Ok(match probe(writing, key).await? {
        // It is in that state, so its end has passed (or it has none).
        Some((_, Some(state))) if state == expected => Conflict::Spent.into(),
        Some((_, state)) => Conflict::State { actual: state.unwrap_or_default() }.into(),
        None => Conflict::Absent.into(),
    })
}

async fn probe(writing: &mut Writing, key: Key) -> Result<Option<(u64, Option<String>)>, Stop> {
    let (tenant, kind, id) = key;
    let Some(row) = writing.row(sql::RESOURCE_PROBE, binds![tenant.as_bytes(), kind.as_str(), &id]).await? else {
        return Ok(None);
    };
    Ok(if row.flag(2)? { None } else { Some((row.number(0)?, row.maybe_text(1)?)) })
}
