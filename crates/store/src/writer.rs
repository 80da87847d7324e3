//! The writer: one task, one connection, groups of transactions in one commit.
//!
//! Each transaction runs in a savepoint; one that conflicts is rolled back to it. When all have run, the counters are
//! raised once, changes and entries get their places, and the group is committed. Nobody hears anything before that:
//! a conflict, too, was judged beside transactions that are only certain once they are on disk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use vocabulary::UnixTime;
use vocabulary::fault::{self, Point};

use crate::apply::{self, Applied, Clock, Stop, int};
use crate::engine::{Commit, Reading, Row, Trouble, Writing, binds, trouble};
use crate::error::CommitError;
use crate::limits::{ANSWER_MAX, BODY_MAX, ENTRIES_MAX, ENTRY_NAME_MAX, GROUP_MAX, IDEMPOTENCY_KEY_MAX, MUTATIONS_MAX};
use crate::observe::Fate as Fated;
use crate::sql;
use crate::transaction::{Committed, IdempotencyKey, Mutation, Transaction};

/// A transaction on its way to the writer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) transaction: Transaction,
    pub(crate) now: UnixTime,
    pub(crate) answer: oneshot::Sender<Result<Committed, CommitError>>,
}

/// The writer's own state.
pub(crate) struct Writer {
    pub(crate) writing: Writing,
    pub(crate) readers: Reading,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) close: watch::Receiver<bool>,
    pub(crate) latest: watch::Sender<u64>,
    pub(crate) high_water: watch::Sender<UnixTime>,
    pub(crate) observer: crate::store::Observing,
}

/// The numbers of a commit, as they are kept beside an idempotency key.
#[derive(Debug, Serialize, Deserialize)]
struct Numbers {
    revisions: Vec<u64>,
    change_seq: u64,
    audit_indexes: Vec<u64>,
}

/// What became of one transaction inside its group.
enum Fate {
    /// Applied; numbers come with the end of the group.
    Applied(Applied),
    /// Committed earlier under the same idempotency key.
    Replayed(Committed),
    /// Refused; rolled back to its savepoint.
    Refused(CommitError),
    /// The same idempotency key is in this group: it waits for the next.
    Deferred,
}

/// Why a whole group failed. Nothing of it was applied, but for `Refused(Unknown)`.
enum GroupError {
    Engine(sqlx::Error),
    Refused(CommitError),
}

impl GroupError {
    /// Whether the same group may succeed when it is run again, on another connection.
    fn passing(&self) -> bool {
        matches!(self, Self::Engine(error) if matches!(trouble(error), Trouble::Away | Trouble::Again))
    }
}

/// What each of a group is told; `None` waits for the next.
type Outcomes = Vec<Option<Result<Committed, CommitError>>>;

impl From<sqlx::Error> for GroupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error)
    }
}
impl From<Stop> for GroupError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Engine(error) => Self::Engine(error),
            Stop::Refused(error) => Self::Refused(error),
            Stop::Conflict(conflict) => Self::Refused(CommitError::Conflict { mutation: 0, conflict }),
        }
    }
}

impl Writer {
    /// Works until all senders are gone or the store is closed.
    pub(crate) async fn run(mut self) {
        let mut waiting: Vec<Request> = Vec::with_capacity(GROUP_MAX);
        let mut closing = false;
        loop {
            if waiting.is_empty() {
                tokio::select! {
                    biased;
                    taken = self.requests.recv_many(&mut waiting, GROUP_MAX) => if taken == 0 { break },
                    () = told(&mut self.close), if !closing => {
                        // What was taken in is finished; what comes later finds the channel closed.
                        closing = true;
                        self.requests.close();
                        continue;
                    }
                }
            }
            waiting = self.group(waiting).await;
        }
        // The last connection that closes empties the write-ahead log into the database: it must be one that may write.
        self.readers.close().await;
        if let Err(error) = self.writing.close().await {
            tracing::warn!(%error, "the database was not closed cleanly; it recovers at the next start");
        }
    }

    /// Commits a group and answers; gives back what waits for the next one.
    async fn group(&mut self, requests: Vec<Request>) -> Vec<Request> {
        let begun = tokio::time::Instant::now();
        let outcomes = self.patiently(&requests).await;
        if let Some(observer) = self.observer.get() {
            observer.group(begun.elapsed());
        }
        match outcomes {
            Ok(outcomes) => {
                let mut deferred = Vec::new();
                for (request, outcome) in requests.into_iter().zip(outcomes) {
                    match outcome {
                        Some(result) => self.reply(request, result),
                        None => deferred.push(request),
                    }
                }
                deferred
            }
            Err(failure) => {
                self.failed(requests, failure).await;
                Vec::new()
            }
        }
    }

    /// Commits, and does so again when a server went away or two processes were in each other's way: nothing was applied then.
    async fn patiently(&mut self, requests: &[Request]) -> Result<Outcomes, GroupError> {
        let begun = tokio::time::Instant::now();
        loop {
            let failure = match self.commit(requests).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failure) => failure,
            };
            self.writing.abandon().await;
            if !failure.passing() || begun.elapsed() >= self.writing.patience() || self.writing.gave_up() {
                return Err(failure);
            }
            tracing::warn!("a group of changes is committed again: the database went away before it was");
        }
    }

    /// Nothing of the group was applied. On a full disk the small ones may still fit: each is tried alone.
    async fn failed(&mut self, requests: Vec<Request>, failure: GroupError) {
        let error = public(failure);
        if !matches!(error, CommitError::Full) || requests.len() == 1 {
            for request in requests {
                self.reply(request, Err(copy(&error)));
            }
            return;
        }
        for request in requests {
            let result = match self.commit(std::slice::from_ref(&request)).await {
                Ok(outcomes) => outcomes.into_iter().next().flatten().unwrap_or(Err(CommitError::Full)),
                Err(failure) => {
                    self.writing.abandon().await;
                    Err(public(failure))
                }
            };
            self.reply(request, result);
        }
    }

    /// Tells whoever asked, and whoever counts.
    fn reply(&self, request: Request, result: Result<Committed, CommitError>) {
        if let Some(observer) = self.observer.get() {
            observer.decided(Fated::of(&result), &request.transaction.entries);
        }
        // Whoever asked may have gone away; what is committed stays committed.
        drop(request.answer.send(result));
    }

    /// One database transaction for all.
    async fn commit(&mut self, requests: &[Request]) -> Result<Outcomes, GroupError> {
        // What other processes committed is as much the past as what this one did.
        let stored = self.writing.begin().await?;
        fault::reached(Point::CommitBegun);
        let mut high_water = stored.unwrap_or(*self.high_water.borrow());
        let mut fates = Vec::with_capacity(requests.len());
        for request in requests {
            let clock = Clock { now: request.now, high_water };
            let fate = self.savepoint(&request.transaction, clock).await?;
            high_water = match &fate {
                Fate::Applied(applied) if applied.accept_clock => request.now,
                Fate::Applied(_) => clock.written(),
                Fate::Replayed(_) | Fate::Refused(_) | Fate::Deferred => high_water,
            };
            fates.push(fate);
        }
        let (last, outcomes) = self.number(requests, fates, high_water).await?;
        fault::reached(Point::CommitWritten);
        match self.writing.commit().await {
            Commit::Done => fault::reached(Point::CommitDurable),
            Commit::Undone(error) => return Err(error.into()),
            Commit::Unknown(error) => {
                tracing::error!(%error, "the connection to the database broke while it committed, and it cannot be asked");
                return Err(GroupError::Refused(CommitError::Unknown));
            }
        }
        self.high_water.send_replace(high_water);
        if let Some(last) = last {
            raise(&self.latest, last);
        }
        Ok(outcomes)
    }

    async fn savepoint(&mut self, transaction: &Transaction, clock: Clock) -> Result<Fate, GroupError> {
        self.writing.savepoint().await?;
        let fate = self.attempt(transaction, clock).await?;
        self.writing.release(matches!(fate, Fate::Applied(_))).await?;
        Ok(fate)
    }

    async fn attempt(&mut self, transaction: &Transaction, clock: Clock) -> Result<Fate, GroupError> {
        if let Some(key) = &transaction.idempotency {
            if let Some(fate) = self.known(key).await? {
                return Ok(fate);
            }
            let binds = binds![
                key.tenant.as_bytes(),
                key.principal.as_bytes(),
                key.key.as_str(),
                &key.request_hash,
                key.answer.as_slice(),
                clock.written(),
            ];
            self.writing.execute(sql::IDEMPOTENCY_INSERT, binds).await?;
        }
        match apply::transaction(&mut self.writing, transaction, clock).await {
            Ok(applied) => Ok(Fate::Applied(applied)),
            Err((mutation, Stop::Conflict(conflict))) => Ok(Fate::Refused(CommitError::Conflict { mutation, conflict })),
            Err((_, Stop::Refused(error))) => Ok(Fate::Refused(error)),
            Err((_, Stop::Engine(error))) => Err(error.into()),
        }
    }

    /// What an idempotency key already says.
    async fn known(&mut self, key: &IdempotencyKey) -> Result<Option<Fate>, GroupError> {
        let binds = binds![key.tenant.as_bytes(), key.principal.as_bytes(), key.key.as_str()];
        let Some(row) = self.writing.row(sql::IDEMPOTENCY_READ, binds).await? else { return Ok(None) };
        Ok(Some(kept(&row, key).unwrap_or(Fate::Refused(CommitError::Malformed(sql::IDEMPOTENCY_READ.name)))))
    }

    /// Gives changes and entries their places: last, for the whole group, contiguous.
    async fn number(
        &mut self,
        requests: &[Request],
        fates: Vec<Fate>,
        high_water: UnixTime,
    ) -> Result<(Option<u64>, Outcomes), GroupError> {
        let (mut changes, mut entries) = (0_u64, 0_u64);
        for (fate, request) in fates.iter().zip(requests) {
            if let Fate::Applied(applied) = fate {
                changes = changes.saturating_add(applied.changes.len() as u64);
                entries = entries.saturating_add(request.transaction.entries.len() as u64);
            }
        }
        let last_change = self.take("change", changes).await?;
        let last_entry = self.take("audit", entries).await?;
        // The first place of this group: change sequence from 1, audit index from 0.
        let mut change = last_change.saturating_sub(changes).saturating_add(1);
        let mut index = last_entry.saturating_sub(entries);
        let mut outcomes = Vec::with_capacity(fates.len());
        for (fate, request) in fates.into_iter().zip(requests) {
            outcomes.push(match fate {
                Fate::Deferred => None,
                Fate::Refused(error) => Some(Err(error)),
                Fate::Replayed(committed) => Some(Ok(committed)),
                Fate::Applied(applied) => Some(Ok(self.place(&request.transaction, applied, &mut change, &mut index).await?)),
            });
        }
        let accepted = crate::convert::millis(high_water);
        self.writing.execute(sql::COUNTER_SET, binds!["clock", accepted]).await?;
        Ok(((changes > 0).then_some(last_change), outcomes))
    }

    /// Writes down the changes and entries of one transaction.
    async fn place(
        &mut self,
        transaction: &Transaction,
        applied: Applied,
        change: &mut u64,
        index: &mut u64,
    ) -> Result<Committed, GroupError> {
        let mut committed = Committed { revisions: applied.yields, change_seq: 0, audit_indexes: Vec::new(), replayed: None };
        for pending in &applied.changes {
            let seq = int(*change)?;
            let (tenant, kind) = (pending.tenant.as_bytes(), pending.kind.as_str());
            let binds = binds![tenant, seq, kind, &pending.id, int(pending.revision)?, pending.deleted];
            self.writing.execute(sql::CHANGE_INSERT, binds).await?;
            if pending.resource {
                self.writing.execute(sql::RESOURCE_SEQUENCE, binds![tenant, kind, &pending.id, seq]).await?;
            }
            committed.change_seq = *change;
            *change = change.saturating_add(1);
        }
        for entry in &transaction.entries {
            let binds = binds![
                entry.tenant.as_bytes(),
                int(*index)?,
                entry.id.as_bytes(),
                &entry.salt,
                entry.body.as_slice(),
                &entry.leaf,
                entry.class_uid,
                entry.activity,
                entry.kind,
                entry.actor.as_ref().map(vocabulary::PrincipalId::as_bytes),
                entry.action.as_str(),
                entry.resource_kind.as_str(),
                entry.resource.as_str(),
                entry.outcome,
                entry.time,
            ];
            self.writing.execute(sql::ENTRY_INSERT, binds).await?;
            committed.audit_indexes.push(*index);
            *index = index.saturating_add(1);
        }
        if let Some(key) = &transaction.idempotency {
            let numbers = Numbers {
                revisions: committed.revisions.clone(),
                change_seq: committed.change_seq,
                audit_indexes: committed.audit_indexes.clone(),
            };
            let numbers = serde_json::to_string(&numbers)
                .map_err(|_| GroupError::Refused(CommitError::Invalid("numbers that are no JSON")))?;
            let binds = binds![key.tenant.as_bytes(), key.principal.as_bytes(), key.key.as_str(), numbers.as_str()];
            self.writing.execute(sql::IDEMPOTENCY_NUMBERS, binds).await?;
        }
        Ok(committed)
    }

    /// Raises a counter and says where it stands then.
    async fn take(&mut self, counter: &'static str, count: u64) -> Result<u64, GroupError> {
        let row = self.writing.row(sql::COUNTER_ADD, binds![counter, int(count)?]).await?;
        row.and_then(|row| row.number(0).ok()).ok_or(GroupError::Refused(CommitError::Malformed(sql::COUNTER_ADD.name)))
    }
}

/// What a stored row says about a request with its key; `None` when it cannot be understood.
fn kept(row: &Row, key: &IdempotencyKey) -> Option<Fate> {
    if row.array::<32>(0).ok()? != key.request_hash {
        return Some(Fate::Refused(CommitError::KeyReused));
    }
    let numbers = row.text(2).ok()?;
    // Its numbers come with the end of this very group.
    if numbers.is_empty() {
        return Some(Fate::Deferred);
    }
    replay(&numbers, row.bytes(1).ok()?).map(Fate::Replayed)
}

/// Waits until the store is told to close, or is gone.
async fn told(close: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    drop(close.wait_for(|close| *close).await);
}

/// Reads what is kept beside an idempotency key.
pub(crate) fn replay(numbers: &str, answer: Vec<u8>) -> Option<Committed> {
    let Numbers { revisions, change_seq, audit_indexes } = serde_json::from_str(numbers).ok()?;
    Some(Committed { revisions, change_seq, audit_indexes, replayed: Some(answer) })
}

/// Whether the columns of an entry, which are written for the whole group, can be held: else it would take the others with it.
fn entry_fits(entry: &audit::EncodedEntry) -> bool {
    [&entry.action, &entry.resource_kind, &entry.resource].iter().all(|text| text.len() <= ENTRY_NAME_MAX && !text.contains('\0'))
}

/// Raises what is told to watchers; never back, for another process's change may be known already.
pub(crate) fn raise(latest: &watch::Sender<u64>, to: u64) {
    latest.send_if_modified(|latest| {
        let higher = to > *latest;
        *latest = to.max(*latest);
        higher
    });
}

fn public(failure: GroupError) -> CommitError {
    match failure {
        GroupError::Refused(error) => error,
        GroupError::Engine(error) => match trouble(&error) {
            Trouble::Full => CommitError::Full,
            Trouble::ReadOnly => CommitError::ReadOnly,
            Trouble::Broken => {
                tracing::error!(%error, "the disk failed");
                CommitError::Broken
            }
            Trouble::Away | Trouble::Slow | Trouble::Again => {
                tracing::error!(%error, "the database server did not do it");
                CommitError::Unavailable
            }
            Trouble::Unique | Trouble::Corrupt | Trouble::NotADatabase | Trouble::Unstorable | Trouble::Other => {
                tracing::error!(%error, "a commit failed");
                CommitError::Engine(Arc::new(error))
            }
        },
    }
}

/// The same error for each of a group.
fn copy(error: &CommitError) -> CommitError {
    match error {
        CommitError::Conflict { mutation, conflict } => {
            CommitError::Conflict { mutation: *mutation, conflict: conflict.clone() }
        }
        CommitError::TooLarge { what, limit } => CommitError::TooLarge { what, limit: *limit },
        CommitError::Invalid(what) => CommitError::Invalid(what),
        CommitError::Malformed(what) => CommitError::Malformed(what),
        CommitError::Engine(error) => CommitError::Engine(Arc::clone(error)),
        CommitError::KeyReused => CommitError::KeyReused,
        CommitError::Full => CommitError::Full,
        CommitError::ReadOnly => CommitError::ReadOnly,
        CommitError::Broken => CommitError::Broken,
        CommitError::Unavailable => CommitError::Unavailable,
        CommitError::Unknown => CommitError::Unknown,
        CommitError::Closed => CommitError::Closed,
    }
}

/// What needs no database to be refused.
pub(crate) fn validate(transaction: &Transaction) -> Result<(), CommitError> {
    limit("mutations of a transaction", transaction.mutations.len(), MUTATIONS_MAX)?;
    limit("entries of a transaction", transaction.entries.len(), ENTRIES_MAX)?;
    for entry in &transaction.entries {
        limit("an entry in bytes", entry.body.len(), BODY_MAX)?;
        if !audit::leaf::matches(&entry.leaf, &entry.salt, &entry.body) {
            return Err(CommitError::Invalid("the leaf of an entry is not that of its salt and body"));
        }
        if !entry_fits(entry) {
            return Err(CommitError::Invalid("an entry names what it is about in at most 2 KiB, without NUL characters"));
        }
    }
    for mutation in &transaction.mutations {
        if let Mutation::Put(put) = mutation {
            limit("a body in bytes", put.body.len(), BODY_MAX)?;
            if put.project.is_some_and(|project| *project.as_bytes() == crate::convert::NO_PROJECT) {
                return Err(CommitError::Invalid("a project of sixteen zero bytes stands for none"));
            }
        }
    }
    if let Some(key) = &transaction.idempotency {
        limit("an idempotency key in characters", key.key.len(), IDEMPOTENCY_KEY_MAX)?;
        limit("a stored answer in bytes", key.answer.len(), ANSWER_MAX)?;
        if key.key.is_empty() || !key.key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CommitError::Invalid("an idempotency key has 1 to 128 printable characters of ASCII without spaces"));
        }
    }
    Ok(())
}

fn limit(what: &'static str, actual: usize, limit: usize) -> Result<(), CommitError> {
    if actual <= limit { Ok(()) } else { Err(CommitError::TooLarge { what, limit: limit as u64 }) }
}
