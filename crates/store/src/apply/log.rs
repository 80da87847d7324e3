//! Revocations, the log's publisher, and refusals that are only counted.

use vocabulary::{ControlId, SYSTEM_OWNER, UnixTime};

use super::factor::once;
use super::{PendingChange, Stop, int};
use crate::convert::EMPTY;
use crate::engine::{Writing, binds};
use crate::error::{CommitError, Conflict};
use crate::kind::Kind;
use crate::limits::CHECKPOINT_MAX;
use crate::record::Revoked;
use crate::sql;

pub(super) async fn revoke(
    writing: &mut Writing,
    what: &Revoked,
    now: UnixTime,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    let (kind, subject) = match what {
        Revoked::Node(node) => ("node", node.to_string()),
        Revoked::Serial(serial) => ("serial", serial.clone()),
    };
    if let Some(row) = writing.row(sql::REVOCATION_READ, binds![kind, subject.as_str()]).await? {
        return Ok(row.number(0)?);
    }
    let Some(row) = writing.row(sql::COUNTER_ADD, binds!["revocation", 1_i64]).await? else {
        return Err(Stop::Refused(CommitError::Malformed("counter `revocation` is missing")));
    };
    let version = row.number(0)?;
    writing.execute(sql::REVOCATION_INSERT, binds![kind, subject.as_str(), int(version)?, now]).await?;
    changes.push(PendingChange::typed(SYSTEM_OWNER, Kind::REVOCATION, [0; 16], version));
    Ok(version)
}

pub(super) async fn take_publisher(
    writing: &mut Writing,
    holder: ControlId,
    until: UnixTime,
    now: UnixTime,
) -> Result<u64, Stop> {
    if let Some(row) = writing.row(sql::PUBLISHER_INSERT, binds![holder.as_bytes(), until, EMPTY]).await? {
        return Ok(row.number(0)?);
    }
    match writing.row(sql::PUBLISHER_TAKE, binds![holder.as_bytes(), until, now]).await? {
        Some(row) => Ok(row.number(0)?),
        None => Err(fenced(writing).await?),
    }
}

pub(super) async fn publish(
    writing: &mut Writing,
    token: u64,
    size: u64,
    root: &[u8; 32],
    checkpoint: &[u8],
    now: UnixTime,
) -> Result<u64, Stop> {
    if checkpoint.len() > CHECKPOINT_MAX {
        return Err(Stop::Refused(CommitError::TooLarge { what: "a checkpoint in bytes", limit: CHECKPOINT_MAX as u64 }));
    }
    if writing.execute(sql::PUBLISHER_PUBLISH, binds![int(token)?, int(size)?, root, checkpoint, now]).await? == 1 {
        return Ok(size);
    }
    let Some(row) = writing.row(sql::PUBLISHER_READ, binds![]).await? else {
        return Err(Conflict::Absent.into());
    };
    // The present holder in time was refused for the size alone: a log never shrinks or changes.
    if row.number(1)? == token && row.time(2)? > now {
        return Err(Conflict::Position { actual: row.number(3)? }.into());
    }
    Err(Conflict::Fenced { token: row.number(1)? }.into())
}

pub(super) async fn count_refusal(writing: &mut Writing, source: &str, minute: UnixTime, code: &str) -> Result<u64, Stop> {
    match writing.row(sql::REFUSAL_COUNT, binds![source, minute, code]).await? {
        Some(row) => Ok(row.number(0)?),
        None => Err(Conflict::Absent.into()),
    }
}

pub(super) async fn take_refusals(
    writing: &mut Writing,
    source: &str,
    minute: UnixTime,
    code: &str,
    count: u64,
) -> Result<u64, Stop> {
    once(writing.execute(sql::REFUSAL_TAKE, binds![source, minute, code, int(count)?]).await?)?;
    Ok(count)
}

async fn fenced(writing: &mut Writing) -> Result<Stop, Stop> {
    let row = writing.row(sql::PUBLISHER_READ, binds![]).await?;
    let token = row.map(|row| row.number(1)).transpose()?.unwrap_or(0);
    Ok(Conflict::Fenced { token }.into())
}
