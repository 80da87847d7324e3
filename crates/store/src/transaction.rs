//! A transaction: what is to change, and the entries that record it, as one value.

use audit::EncodedEntry;
use keys::{KeyRecord, KeyState};
use vocabulary::volume::RootHead;
use vocabulary::{ControlId, KeyId, PersonId, PrincipalId, StepUpId, TenantId, TokenId, UnixTime, VolumeId};

use crate::kind::{Id16, Kind};
use crate::record::{DelaySubject, Hashed, Put, Revoked, StepUpRow, TokenRow, TotpRow, WriterRow};

/// What a mutation expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing, and nothing that was deleted: an id is used once.
    Absent,
    /// A live resource of this revision.
    Revision(u64),
    /// A live resource or nothing.
    Any,
}

/// Makes a repeated request answer as the first did.
///
/// The answer is kept in clear for whoever repeats the request: it must hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The tenant of the principal.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: PrincipalId,
    /// The key that the client chose: 1 to 128 printable ASCII characters.
    pub key: String,
    /// SHA-256 of the canonical request.
    pub request_hash: [u8; 32],
    /// What to answer again.
    pub answer: Vec<u8>,
}

/// Everything that changes together.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Makes it repeatable.
    pub idempotency: Option<IdempotencyKey>,
    /// Applied in this order.
    pub mutations: Vec<Mutation>,
    /// What records them, in this order.
    pub entries: Vec<EncodedEntry>,
}

impl Transaction {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a mutation.
    #[must_use]
    pub fn with(mut self, mutation: impl Into<Mutation>) -> Self {
        self.mutations.push(mutation.into());
        self
    }
    /// Adds an entry.
    #[must_use]
    pub fn entry(mut self, entry: EncodedEntry) -> Self {
        self.entries.push(entry);
        self
    }
    /// Makes it repeatable.
    #[must_use]
    pub fn idempotent(mut self, key: IdempotencyKey) -> Self {
        self.idempotency = Some(key);
        self
    }
}

/// The answer to a commit: it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// For each mutation the number that it yields: the new revision of what it changed, or what its description says.
    pub revisions: Vec<u64>,
    /// The place of its last change in the change sequence; 0 when it changed nothing that is watched.
    pub change_seq: u64,
    /// The audit index of each entry.
    pub audit_indexes: Vec<u64>,
    /// The stored answer, when this request was committed before; the numbers above are then those of the first time.
    pub replayed: Option<Vec<u8>>,
}

/// One change. Each holds only if its condition does; otherwise the whole transaction is refused with a conflict.
#[derive(Debug, Clone)]
pub enum Mutation {
    /// Writes a resource whole. Yields the new revision.
    Put(Put),
    /// Deletes a resource: it stays as a row without a name, is read no more, and its id is never used again. Yields the new revision.
    Delete {
        /// Whose.
        tenant: TenantId,
        /// What.
        kind: Kind,
        /// Which.
        id: [u8; 16],
        /// `Absent` is refused as invalid.
        expect: Expect,
    },
    /// Moves a live resource from one state to another and leaves the rest. Yields the new revision.
    Step {
        /// Whose.
        tenant: TenantId,
        /// What.
        kind: Kind,
        /// Which.
        id: [u8; 16],
        /// The state it must be in.
        from: &'static str,
        /// The state it goes to.
        to: &'static str,
    },
    /// Moves the end of a live resource that is in this state and has not ended. Yields the new revision.
    Extend {
        /// Whose.
        tenant: TenantId,
        /// What.
        kind: Kind,
        /// Which.
        id: [u8; 16],
        /// The state it must be in.
        state: &'static str,
        /// Its new end.
        until: UnixTime,
    },
    /// Changes nothing: the whole transaction holds only while a live resource has this revision. It stays so until the
    /// transaction is committed. Yields the revision.
    Hold {
        /// Whose.
        tenant: TenantId,
        /// What.
        kind: Kind,
        /// Which.
        id: [u8; 16],
        /// The revision it must have.
        revision: u64,
    },
    /// Advances a position (of a job's log, of a producer): compared, and never back. Positions begin at 0. Yields the new one.
    Advance {
        /// Whose.
        tenant: TenantId,
        /// What kind of thing has the position.
        kind: Kind,
        /// Which.
        id: [u8; 16],
        /// Where it must be.
        from: u64,
        /// Where it goes: beyond `from`.
        to: u64,
    },

    /// Sets or replaces the password's hash (a PHC string).
    SetPassword {
        /// Whose.
        person: PersonId,
        /// The hash.
        hash: Hashed,
    },
    /// Sets or replaces the TOTP factor.
    SetTotp(TotpRow),
    /// Spends a TOTP step: refused unless it is later than the last one that was spent.
    UseTotp {
        /// Whose.
        person: PersonId,
        /// The step (RFC 6238's T).
        step: u64,
    },
    /// Replaces all recovery codes; their places count from 0.
    SetRecoveryCodes {
        /// Whose.
        person: PersonId,
        /// The hashes.
        hashes: Vec<Hashed>,
    },
    /// Spends a recovery code.
    UseRecoveryCode {
        /// Whose.
        person: PersonId,
        /// Its place.
        place: u32,
    },
    /// Removes all factors of a person.
    RemoveFactors {
        /// Whose.
        person: PersonId,
    },
    /// Takes a turn at logging in *before* the proof is looked at: refused as `Delayed` until the delay is over, else the
    /// turn counts as a failure until [`Mutation::ClearLoginDelay`] says otherwise. Yields the failures so far, this one included.
    TakeLoginTurn {
        /// Whose turn.
        subject: DelaySubject,
        /// The delay after the first, second, … failure in milliseconds; the last one holds for all that follow.
        delays_ms: Vec<u64>,
    },
    /// Forgets the failures after a success.
    ClearLoginDelay {
        /// Whose.
        subject: DelaySubject,
    },

    /// Writes a new token.
    PutToken(TokenRow),
    /// Revokes a token that is not revoked. Revoking twice is no conflict. Yields 1 if this one did it.
    RevokeToken {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: TokenId,
    },
    /// Revokes all tokens of a principal. Yields how many.
    RevokeTokensOf {
        /// Whose.
        tenant: TenantId,
        /// Of whom.
        principal: PrincipalId,
    },
    /// Spends a single-use token (a ticket, a join token): refused unless it is live, not ended and not spent.
    ConsumeToken {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: TokenId,
    },
    /// Notes when a token was last used; never back. No conflict when it is gone.
    TouchToken {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: TokenId,
    },

    /// Writes a new step-up.
    PutStepUp(StepUpRow),
    /// Notes that its challenge was answered: refused unless it is this principal's, waiting and not ended.
    VerifyStepUp {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: StepUpId,
        /// Of whom.
        principal: PrincipalId,
        /// The class of what was shown.
        acr: u8,
    },
    /// Spends it for exactly one request: one conditional update (`access.md` 4.6).
    ConsumeStepUp {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: StepUpId,
        /// Of whom.
        principal: PrincipalId,
        /// SHA-256 of the canonical request.
        request_hash: [u8; 32],
    },

    /// Writes a new version of a key, wrapped. Refused when the key above it is destroyed or waits for it, and when the
    /// transaction's time lies behind: it was made from what is not true any more.
    PutKey(KeyRecord),
    /// Moves a key version from one of these states to another, if a key's life has that step; `Destroyed` erases the wrapped bytes, and is
    /// refused while another key lies under it. Yields the row version.
    StepKey {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: KeyId,
        /// Its version.
        version: u32,
        /// The states it may be in.
        from: Vec<KeyState>,
        /// The state it goes to.
        to: KeyState,
    },
    /// Replaces the wrapping of a key version that nobody touched meanwhile and that is not destroyed. Yields the row version.
    Rewrap {
        /// The key version with its new wrapping: all else must be as stored.
        key: KeyRecord,
        /// The row version that it was made from.
        row_version: u64,
    },

    /// Writes the first head of a volume; its `seq` is 0.
    CreateHead {
        /// Whose.
        tenant: TenantId,
        /// Which.
        volume: VolumeId,
        /// The head.
        head: RootHead,
    },
    /// Opens the next writer epoch and registers its one signer: refused unless it is the newest plus one.
    OpenWriterEpoch(WriterRow),
    /// Compares and sets the head: `next` has the same lineage, the next sequence, and the newest writer epoch.
    SetHead {
        /// Whose.
        tenant: TenantId,
        /// Which.
        volume: VolumeId,
        /// What it must be.
        expected: RootHead,
        /// What it becomes.
        next: RootHead,
    },

    /// Adds to the set of what is no longer trusted. Yields the version of the set; adding twice yields the first one's.
    Revoke(Revoked),

    /// Takes or renews the lease of the log's publisher: refused as `Fenced` while another holds it. Yields the fencing token.
    TakePublisher {
        /// Who.
        holder: ControlId,
        /// Until when.
        until: UnixTime,
    },
    /// Publishes a checkpoint: refused unless the token is the newest one and the log does not shrink.
    Publish {
        /// The fencing token.
        token: u64,
        /// The size of the tree.
        size: u64,
        /// Its root.
        root: [u8; 32],
        /// The signed note.
        checkpoint: Vec<u8>,
    },

    /// Counts a stranger's refusal into its minute. Yields the count.
    CountRefusal {
        /// The pseudonym of the source.
        source: String,
        /// The minute: its first millisecond.
        minute: UnixTime,
        /// The error code.
        code: String,
    },
    /// Takes a finished count out, together with the entry that records it: refused unless it is still this count.
    TakeRefusals {
        /// The pseudonym of the source.
        source: String,
        /// The minute.
        minute: UnixTime,
        /// The error code.
        code: String,
        /// What was read.
        count: u64,
    },

    /// Accepts a clock that went back as right, by an operator's word: the high-water mark becomes this transaction's time.
    AcceptClock,
    /// Forgets changes up to this place of the sequence: watchers from before must read the state anew.
    PruneChanges {
        /// The last one to forget.
        through: u64,
    },
    /// Forgets idempotency keys made, and step-ups ended, before this time. Yields how many.
    Prune {
        /// The time.
        before: UnixTime,
    },
}

impl Mutation {
    /// Deletes whatever revision it has.
    #[must_use]
    pub fn delete(tenant: TenantId, kind: Kind, id: impl Id16, expect: Expect) -> Self {
        Self::Delete { tenant, kind, id: id.id16(), expect }
    }
}

impl From<Put> for Mutation {
    fn from(put: Put) -> Self {
        Self::Put(put)
    }
}
