//! Applies the mutations of one transaction, inside its savepoint.

mod credential;
mod factor;
mod key;
mod log;
mod resource;
mod volume;

pub(crate) use factor::columns as factor_columns;
pub(crate) use volume::{read_head, read_head_at};

use audit::EncodedEntry;
use vocabulary::{TenantId, UnixTime};

use crate::engine::{Malformed, Trouble, Writing, trouble};
use crate::error::{CommitError, Conflict};
use crate::kind::{Id16, Kind};
use crate::limits::{CLOCK_BACK_MS, KEY_STALE_MS};
use crate::transaction::{Mutation, Transaction};

/// A change that waits for its place in the sequence.
#[derive(Debug)]
pub(crate) struct PendingChange {
    pub(crate) tenant: TenantId,
    pub(crate) kind: Kind,
    pub(crate) id: [u8; 16],
    pub(crate) revision: u64,
    pub(crate) deleted: bool,
    /// Whether a resource's row carries the place too.
    pub(crate) resource: bool,
}

impl PendingChange {
    /// A change of a typed table.
    fn typed(tenant: TenantId, kind: Kind, id: impl Id16, revision: u64) -> Self {
        Self { tenant, kind, id: id.id16(), revision, deleted: false, resource: false }
    }
}

/// What a transaction's mutations did.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) yields: Vec<u64>,
    pub(crate) changes: Vec<PendingChange>,
    /// The clock is set back to this transaction's time.
    pub(crate) accept_clock: bool,
}

/// Why a transaction's mutations stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It did not fit.
    Conflict(Conflict),
    /// It cannot be stored.
    Refused(CommitError),
    /// The engine failed.
    Engine(sqlx::Error),
}

impl From<Conflict> for Stop {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}
impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        if trouble(&error) == Trouble::Unstorable {
            return Self::Refused(CommitError::Invalid("a value that the database cannot hold: text with a NUL, or too much of it"));
        }
        Self::Engine(error)
    }
}
impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(CommitError::Malformed(malformed.0))
    }
}

/// The time of a transaction, beside the latest one that was committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: UnixTime,
    pub(crate) high_water: UnixTime,
}

impl Clock {
    /// The time to write down: never before one that was written down.
    pub(crate) fn written(self) -> UnixTime {
        self.now.max(self.high_water)
    }
    /// The time to compare with: refused when the clock went back, for then nobody knows what is over.
    fn compared(self) -> Result<UnixTime, Conflict> {
        self.fresh(CLOCK_BACK_MS)
    }
    /// The time to write down, unless it lies further behind than this.
    fn fresh(self, behind_ms: u64) -> Result<UnixTime, Conflict> {
        match self.high_water.since(self.now) {
            Some(behind) if behind > behind_ms => Err(Conflict::ClockBack { now: self.now, high_water: self.high_water }),
            Some(_) | None => Ok(self.written()),
        }
    }
}

/// A number for a column.
pub(crate) fn int(number: u64) -> Result<i64, Stop> {
    i64::try_from(number).map_err(|_| Stop::Refused(CommitError::Invalid("a number is beyond 2^63")))
}

/// Applies all mutations; the error names the one that stopped it.
pub(crate) async fn transaction(
    writing: &mut Writing,
    transaction: &Transaction,
    clock: Clock,
) -> Result<Applied, (usize, Stop)> {
    let mut applied = Applied::default();
    for (place, mutation) in transaction.mutations.iter().enumerate() {
        let yielded = one(writing, mutation, &transaction.entries, clock, &mut applied).await;
        applied.yields.push(yielded.map_err(|stop| (place, stop))?);
    }
    Ok(applied)
}

/// Applies one mutation and says what it yields.
async fn one(
    writing: &mut Writing,
    mutation: &Mutation,
    entries: &[EncodedEntry],
    clock: Clock,
    applied: &mut Applied,
) -> Result<u64, Stop> {
    let changes = &mut applied.changes;
    match mutation {
        Mutation::Put(put) => resource::put(writing, put, changes).await,
        Mutation::Delete { tenant, kind, id, expect } => resource::delete(writing, (*tenant, *kind, *id), *expect, changes).await,
        Mutation::Step { tenant, kind, id, from, to } => {
            resource::step(writing, (*tenant, *kind, *id), from, to, changes).await
        }
        Mutation::Extend { tenant, kind, id, state, until } => {
            resource::extend(writing, (*tenant, *kind, *id), state, *until, clock.compared()?, changes).await
        }
        Mutation::Hold { tenant, kind, id, revision } => resource::hold(writing, (*tenant, *kind, *id), *revision).await,
        Mutation::Advance { tenant, kind, id, from, to } => {
            resource::advance(writing, (*tenant, *kind, *id), *from, *to).await
        }

        Mutation::SetPassword { person, hash } => factor::set_password(writing, *person, hash, changes).await,
        Mutation::SetTotp(row) => factor::set_totp(writing, row, changes).await,
        Mutation::UseTotp { person, step } => factor::use_totp(writing, *person, *step).await,
        Mutation::SetRecoveryCodes { person, hashes } => factor::set_recovery(writing, *person, hashes, changes).await,
        Mutation::UseRecoveryCode { person, place } => factor::use_recovery(writing, *person, *place, changes).await,
        Mutation::RemoveFactors { person } => factor::remove(writing, *person, changes).await,
        Mutation::TakeLoginTurn { subject, delays_ms } => factor::take_turn(writing, subject, delays_ms, clock.compared()?).await,
        Mutation::ClearLoginDelay { subject } => factor::clear_delay(writing, subject).await,

        Mutation::PutToken(row) => credential::put_token(writing, row, changes).await,
        Mutation::RevokeToken { tenant, id } => credential::revoke(writing, *tenant, *id, clock.written(), changes).await,
        Mutation::RevokeTokensOf { tenant, principal } => {
            credential::revoke_all(writing, *tenant, *principal, clock.written(), changes).await
        }
        Mutation::ConsumeToken { tenant, id } => credential::consume(writing, *tenant, *id, clock.compared()?, changes).await,
        Mutation::TouchToken { tenant, id } => credential::touch(writing, *tenant, *id, clock.written()).await,
        Mutation::PutStepUp(row) => credential::put_step_up(writing, row).await,
        Mutation::VerifyStepUp { tenant, id, principal, acr } => {
            credential::verify_step_up(writing, (*tenant, *id), *principal, *acr, clock.compared()?).await
        }
        Mutation::ConsumeStepUp { tenant, id, principal, request_hash } => {
            credential::consume_step_up(writing, (*tenant, *id), *principal, request_hash, clock.compared()?).await
        }

        // A time that lies far back is a request that slept: what it read of the keys above is not true any more.
        Mutation::PutKey(row) => key::put(writing, row, clock.fresh(KEY_STALE_MS)?, changes).await,
        Mutation::StepKey { tenant, id, version, from, to } => {
            key::step(writing, (*tenant, *id, *version), from, *to, clock.written(), changes).await
        }
        Mutation::Rewrap { key, row_version } => {
            clock.fresh(KEY_STALE_MS)?;
            key::rewrap(writing, key, *row_version, changes).await
        }

        Mutation::CreateHead { tenant, volume, head } => volume::create(writing, *tenant, *volume, head, changes).await,
        Mutation::OpenWriterEpoch(row) => volume::open_writer(writing, row, entries, changes).await,
        Mutation::SetHead { tenant, volume, expected, next } => {
            volume::set(writing, *tenant, *volume, expected, next, changes).await
        }

        Mutation::Revoke(what) => log::revoke(writing, what, clock.written(), changes).await,
        Mutation::TakePublisher { holder, until } => log::take_publisher(writing, *holder, *until, clock.compared()?).await,
        Mutation::Publish { token, size, root, checkpoint } => {
            log::publish(writing, *token, *size, root, checkpoint, clock.compared()?).await
        }
        Mutation::CountRefusal { source, minute, code } => log::count_refusal(writing, source, *minute, code).await,
        Mutation::TakeRefusals { source, minute, code, count } => {
            log::take_refusals(writing, source, *minute, code, *count).await
        }

        Mutation::AcceptClock => {
            applied.accept_clock = true;
            Ok(clock.now.millis())
        }
        Mutation::PruneChanges { through } => resource::prune_changes(writing, *through).await,
        Mutation::Prune { before } => resource::prune(writing, *before).await,
    }
}
