//! Factors of people, and delays after failures.

use vocabulary::{PersonId, SYSTEM_OWNER, UnixTime};

use super::{PendingChange, Stop, int};
use crate::engine::{Writing, binds};
use crate::error::{CommitError, Conflict};
use crate::kind::Kind;
use crate::limits::DELAYS_MAX;
use crate::record::{DelaySubject, Hashed, TotpRow};
use crate::sql;

pub(super) async fn set_password(
    writing: &mut Writing,
    person: PersonId,
    hash: &Hashed,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    writing.execute(sql::PASSWORD_SET, binds![person.as_bytes(), hash.as_str()]).await?;
    changed(person, changes)
}

pub(super) async fn set_totp(writing: &mut Writing, row: &TotpRow, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    writing.execute(sql::TOTP_SET, binds![row.person.as_bytes(), row.key.as_bytes(), int(row.last_step)?]).await?;
    changed(row.person, changes)
}

pub(super) async fn use_totp(writing: &mut Writing, person: PersonId, step: u64) -> Result<u64, Stop> {
    once(writing.execute(sql::TOTP_USE, binds![person.as_bytes(), int(step)?]).await?)
}

pub(super) async fn set_recovery(
    writing: &mut Writing,
    person: PersonId,
    hashes: &[Hashed],
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    writing.execute(sql::RECOVERY_CLEAR, binds![person.as_bytes()]).await?;
    for (place, hash) in (0_u32..).zip(hashes) {
        writing.execute(sql::RECOVERY_INSERT, binds![person.as_bytes(), place, hash.as_str()]).await?;
    }
    changed(person, changes)
}

pub(super) async fn use_recovery(
    writing: &mut Writing,
    person: PersonId,
    place: u32,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    once(writing.execute(sql::RECOVERY_USE, binds![person.as_bytes(), place]).await?)?;
    changed(person, changes)
}

pub(super) async fn remove(writing: &mut Writing, person: PersonId, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    for statement in [sql::PASSWORD_REMOVE, sql::TOTP_REMOVE, sql::RECOVERY_CLEAR] {
        writing.execute(statement, binds![person.as_bytes()]).await?;
    }
    changed(person, changes)
}

/// Who proves something pays first: guesses in parallel cannot all see the state from before.
pub(super) async fn take_turn(
    writing: &mut Writing,
    subject: &DelaySubject,
    delays_ms: &[u64],
    now: UnixTime,
) -> Result<u64, Stop> {
    let Some(last) = delays_ms.last().copied().filter(|_| delays_ms.len() <= DELAYS_MAX) else {
        return Err(Stop::Refused(CommitError::Invalid("a schedule of delays has 1 to 64 steps")));
    };
    let (kind, subject) = columns(subject);
    let row = writing.row(sql::DELAY_READ, binds![kind, subject.as_str()]).await?;
    let (failures, until) = match row {
        Some(row) => (row.number(0)?, row.time(1)?),
        None => (0, UnixTime::default()),
    };
    let delay = usize::try_from(failures).ok().and_then(|place| delays_ms.get(place)).copied().unwrap_or(last);
    let binds = binds![kind, subject.as_str(), now.plus_millis(delay), now, int(failures)?];
    match writing.row(sql::DELAY_TAKE, binds).await? {
        Some(row) => Ok(row.number(0)?),
        None => Err(Conflict::Delayed { until }.into()),
    }
}

pub(super) async fn clear_delay(writing: &mut Writing, subject: &DelaySubject) -> Result<u64, Stop> {
    let (kind, subject) = columns(subject);
    Ok(writing.execute(sql::DELAY_CLEAR, binds![kind, subject.as_str()]).await?)
}

pub(crate) fn columns(subject: &DelaySubject) -> (&'static str, String) {
    match subject {
        DelaySubject::Person(person) => ("person", person.to_string()),
        DelaySubject::Confirmation(person) => ("confirm", person.to_string()),
        DelaySubject::Source(source) => ("source", source.clone()),
        DelaySubject::Unknown(name) => ("unknown", name.clone()),
    }
}

/// One row, or it was spent before.
pub(super) fn once(rows: u64) -> Result<u64, Stop> {
    if rows == 1 { Ok(1) } else { Err(Conflict::Spent.into()) }
}

fn changed(person: PersonId, changes: &mut Vec<PendingChange>) -> Result<u64, Stop> {
    changes.push(PendingChange::typed(SYSTEM_OWNER, Kind::FACTOR, person, 0));
    Ok(1)
}
