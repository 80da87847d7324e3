//! One of everything, written and read: what the tests of statements and of old databases share.

use keys::record::Parent;
use keys::{KeyRecord, KeyState, Owner, PlainKey, Purpose, Random};
use vocabulary::volume::RootHead;
use vocabulary::{
    ControlId, EntryId, KeyId, LeaseId, LineageId, Name, NodeId, PersonId, PrincipalId, ProjectId, Sha256Digest, StepUpId,
    TenantId, TokenId, UnixTime, VolumeId,
};

use super::{NOW, body, entry, id, put};
use crate::read::EntryFilter;
use crate::{
    DelaySubject, Expect, Hashed, IdempotencyKey, Kind, Mutation, Page, Put, Revoked, StepUpRow, Store, TokenRow, TotpRow,
    Transaction, WriterRow,
};

pub(super) const PERSON: PersonId = PersonId::from_bytes([1; 16]);
pub(super) const PRINCIPAL: PrincipalId = PrincipalId::from_bytes([2; 16]);
pub(super) const VOLUME: VolumeId = VolumeId::from_bytes([3; 16]);
pub(super) const TOKEN: TokenId = TokenId::from_bytes([4; 16]);
pub(super) const TICKET: TokenId = TokenId::from_bytes([5; 16]);
pub(super) const STEP_UP: StepUpId = StepUpId::from_bytes([6; 16]);
pub(super) const KEY: KeyId = KeyId::from_bytes([7; 16]);
pub(super) const CONTROL: ControlId = ControlId::from_bytes([8; 16]);
pub(super) const LINEAGE: LineageId = LineageId::from_bytes([9; 16]);
pub(super) const SOON: UnixTime = NOW.plus_millis(60_000);

/// Not random at all: the same bytes every time.
struct Fixed(u8);

impl Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        bytes.fill(self.0);
    }
}

pub(super) fn key(tenant: TenantId, version: u32, kek_version: u32) -> KeyRecord {
    let parent = PlainKey::from_bytes([kek_version.to_be_bytes()[3]; 32]);
    let parent = Parent { id: KeyId::from_bytes([0; 16]), version: kek_version, key: &parent };
    let owner = Owner { kind: "volume".to_owned(), id: id(1) };
    let plain = PlainKey::from_bytes([42; 32]);
    KeyRecord::adopt(KEY, version, tenant, Purpose::Volume, owner, &parent, NOW, &plain, &mut Fixed(0))
}

pub(super) fn token(tenant: TenantId, id: TokenId) -> TokenRow {
    TokenRow {
        tenant,
        id,
        kind: "ses".to_owned(),
        principal: Some(PRINCIPAL),
        mac: [1; 32],
        pepper_version: 1,
        scope: String::new(),
        created: NOW,
        expires: SOON,
        acr: 1,
        factor_time: Some(NOW),
        thumbprint: None,
    }
}

pub(super) fn step_up(tenant: TenantId) -> StepUpRow {
    StepUpRow {
        tenant,
        id: STEP_UP,
        principal: PRINCIPAL,
        login: TOKEN,
        action: "key.destroy".to_owned(),
        summary: "destroy key k".to_owned(),
        request_hash: [3; 32],
        challenge: Vec::new(),
        created: NOW,
        expires: SOON,
        verified: false,
        acr: 0,
        uses_left: 1,
        verified_at: None,
    }
}

pub(super) fn head(seq: u64, writer_epoch: u64) -> RootHead {
    let root = Sha256Digest::from_bytes([seq.to_be_bytes()[7]; 32]);
    RootHead { lineage: LINEAGE, seq, writer_epoch, root }
}

/// Adds a volume to the head that is there, and reads both: the golden database of version 1 has the head alone.
pub(super) async fn volume(store: &Store, a: TenantId) {
    let put = Put::json(a, Kind::VOLUME, VOLUME, Expect::Absent, &body("volume")).unwrap();
    store.commit(Transaction::new().with(put), NOW).await.unwrap();
    assert_eq!(store.volume(a, VOLUME).await.unwrap().unwrap().1, head(1, 1));
    assert_eq!(store.volumes(a, Page::first(10)).await.unwrap().items.len(), 1);
}

/// The registration of a writer epoch, with its entry.
pub(super) fn writer(tenant: TenantId, epoch: u64) -> Transaction {
    let entry = entry(tenant, 1_000 + epoch);
    let row = WriterRow {
        tenant,
        volume: VOLUME,
        epoch,
        signer: [5; 32],
        lease: LeaseId::from_bytes([6; 16]),
        entry: entry.id,
        opened: NOW,
    };
    Transaction::new().with(Mutation::OpenWriterEpoch(row)).entry(entry)
}

pub(super) fn source() -> DelaySubject {
    DelaySubject::Source("pseudonym".to_owned())
}

/// Writes one of everything.
pub(super) async fn write(store: &Store, a: TenantId) {
    let project = ProjectId::from_bytes([10; 16]);
    let name: Name = "data".parse().unwrap();
    let mut first = put(a, 1, Expect::Absent).name(&name).project(project).parent(VOLUME).link(PERSON).state("active");
    first.until = Some(SOON);
    let key = IdempotencyKey {
        tenant: a,
        principal: PRINCIPAL,
        key: "k".to_owned(),
        request_hash: [1; 32],
        answer: b"answer".to_vec(),
    };
    let commit = async |transaction| store.commit(transaction, NOW).await.unwrap();
    let one = async |mutation: Mutation| commit(Transaction::new().with(mutation)).await;
    commit(Transaction::new().with(first.clone()).entry(entry(a, 1)).idempotent(key)).await;
    first.expect = Expect::Revision(1);
    one(first.into()).await;
    one(put(a, 2, Expect::Any).into()).await;
    one(put(a, 3, Expect::Any).into()).await;
    one(Mutation::delete(a, Kind::JOB, id(3), Expect::Any)).await;
    one(Mutation::Step { tenant: a, kind: Kind::JOB, id: id(1), from: "active", to: "open" }).await;
    one(Mutation::Extend { tenant: a, kind: Kind::JOB, id: id(1), state: "open", until: SOON }).await;
    assert_eq!(one(Mutation::Hold { tenant: a, kind: Kind::JOB, id: id(1), revision: 4 }).await.revisions, [4]);
    one(Mutation::Advance { tenant: a, kind: Kind::JOB, id: id(1), from: 0, to: 5 }).await;

    one(Mutation::SetPassword { person: PERSON, hash: Hashed::new("$argon2id$".to_owned()) }).await;
    one(Mutation::SetTotp(TotpRow { person: PERSON, key: KEY, last_step: 0 })).await;
    one(Mutation::UseTotp { person: PERSON, step: 7 }).await;
    let hashes = vec![Hashed::new("one".to_owned()), Hashed::new("two".to_owned())];
    one(Mutation::SetRecoveryCodes { person: PERSON, hashes }).await;
    one(Mutation::UseRecoveryCode { person: PERSON, place: 1 }).await;
    let stranger = PersonId::from_bytes([99; 16]);
    one(Mutation::RemoveFactors { person: stranger }).await;
    one(Mutation::TakeLoginTurn { subject: source(), delays_ms: vec![0, 1000] }).await;
    one(Mutation::ClearLoginDelay { subject: DelaySubject::Unknown("nobody".to_owned()) }).await;

    for id in [TOKEN, TICKET] {
        one(Mutation::PutToken(token(a, id))).await;
    }
    one(Mutation::TouchToken { tenant: a, id: TOKEN }).await;
    one(Mutation::ConsumeToken { tenant: a, id: TICKET }).await;
    one(Mutation::RevokeToken { tenant: a, id: TOKEN }).await;
    assert_eq!(one(Mutation::RevokeToken { tenant: a, id: TOKEN }).await.revisions, [0]);
    assert_eq!(one(Mutation::RevokeTokensOf { tenant: a, principal: PRINCIPAL }).await.revisions, [1]);
    one(Mutation::PutStepUp(step_up(a))).await;
    one(Mutation::VerifyStepUp { tenant: a, id: STEP_UP, principal: PRINCIPAL, acr: 1 }).await;
    one(Mutation::ConsumeStepUp { tenant: a, id: STEP_UP, principal: PRINCIPAL, request_hash: [3; 32] }).await;

    one(Mutation::PutKey(self::key(a, 1, 1))).await;
    one(Mutation::PutKey(self::key(a, 2, 1))).await;
    one(Mutation::Rewrap { key: self::key(a, 1, 2), row_version: 1 }).await;
    for (from, to) in [(KeyState::Active, KeyState::PendingDestroy), (KeyState::PendingDestroy, KeyState::Destroyed)] {
        one(Mutation::StepKey { tenant: a, id: KEY, version: 2, from: vec![from], to }).await;
    }

    one(Mutation::CreateHead { tenant: a, volume: VOLUME, head: head(0, 0) }).await;
    commit(writer(a, 1)).await;
    one(Mutation::SetHead { tenant: a, volume: VOLUME, expected: head(0, 0), next: head(1, 1) }).await;

    assert_eq!(one(Mutation::Revoke(Revoked::Serial("0a".to_owned()))).await.revisions, [1]);
    assert_eq!(one(Mutation::Revoke(Revoked::Node(NodeId::from_bytes([1; 16])))).await.revisions, [2]);
    assert_eq!(one(Mutation::Revoke(Revoked::Serial("0a".to_owned()))).await.revisions, [1]);
    assert_eq!(one(Mutation::TakePublisher { holder: CONTROL, until: SOON }).await.revisions, [1]);
    assert_eq!(one(Mutation::TakePublisher { holder: CONTROL, until: SOON }).await.revisions, [1]);
    one(Mutation::Publish { token: 1, size: 2, root: [1; 32], checkpoint: b"note".to_vec() }).await;
    for code in ["token_invalid", "not_found"] {
        one(Mutation::CountRefusal { source: "s".to_owned(), minute: NOW, code: code.to_owned() }).await;
    }
    one(Mutation::TakeRefusals { source: "s".to_owned(), minute: NOW, code: "not_found".to_owned(), count: 1 }).await;
    // Nothing is that old.
    one(Mutation::Prune { before: UnixTime::from_millis(1) }).await;
    one(Mutation::PruneChanges { through: 0 }).await;
}

/// Reads one of everything, and finds what [`write`] wrote.
pub(super) async fn read(store: &Store, a: TenantId) {
    let project = ProjectId::from_bytes([10; 16]);
    let name: Name = "data".parse().unwrap();
    let page = Page::default;
    let first = store.get(a, Kind::JOB, id(1)).await.unwrap().unwrap();
    assert_eq!((first.revision, first.state.as_deref(), first.until), (4, Some("open"), Some(SOON)));
    assert_eq!(first.parse::<super::Body>().unwrap(), body("1"));
    assert_eq!(store.find(a, Kind::JOB, Some(project), &name).await.unwrap().unwrap(), first);
    assert_eq!(store.list(a, Kind::JOB, page()).await.unwrap().items.len(), 2);
    for listed in [
        store.list_project(a, Kind::JOB, project, page()).await,
        store.list_parent(a, Kind::JOB, VOLUME, page()).await,
        store.list_link(a, Kind::JOB, PERSON, page()).await,
        store.list_state(a, Kind::JOB, "open", page()).await,
        store.list_link_anywhere(Kind::JOB, PERSON, page()).await,
        store.list_state_anywhere(Kind::JOB, "open", page()).await,
        store.list_ended_anywhere(Kind::JOB, "open", SOON, 10).await,
    ] {
        assert_eq!(listed.unwrap().items, std::slice::from_ref(&first));
    }
    assert_eq!(store.locate(Kind::JOB, id(1)).await.unwrap().unwrap(), first);
    assert_eq!(store.list_anywhere(Kind::JOB, page()).await.unwrap().items.len(), 2);
    assert_eq!(store.position(a, Kind::JOB, id(1)).await.unwrap(), 5);
    assert!(store.replay(a, PRINCIPAL, "k", &[1; 32]).await.unwrap().is_some());

    assert_eq!(store.password(PERSON).await.unwrap().unwrap().as_str(), "$argon2id$");
    assert_eq!(store.totp(PERSON).await.unwrap().unwrap().last_step, 7);
    let codes = store.recovery_codes(PERSON).await.unwrap();
    assert_eq!(codes.iter().map(|code| code.used).collect::<Vec<_>>(), [false, true]);
    assert_eq!(store.login_delay(&source()).await.unwrap().unwrap().failures, 1);
    let token = store.token(TOKEN).await.unwrap().unwrap();
    assert_eq!((token.row.tenant, token.last_used, token.revoked), (a, Some(NOW), Some(NOW)));
    assert!(!token.is_live(NOW));
    assert_eq!(store.tokens(a, PRINCIPAL, page()).await.unwrap().items.len(), 2);
    let step_up = store.step_up(a, STEP_UP).await.unwrap().unwrap();
    assert_eq!((step_up.verified, step_up.uses_left), (true, 0));

    let stored = store.key(a, KEY, 1).await.unwrap().unwrap();
    assert_eq!((stored.row_version, &stored.record), (2, &key(a, 1, 2)));
    let destroyed = store.key(a, KEY, 2).await.unwrap().unwrap();
    assert_eq!((destroyed.record.state, destroyed.record.wrapped), (KeyState::Destroyed, None));
    assert_eq!(store.key_versions(a, KEY, Page::first(10)).await.unwrap().items.len(), 2);
    let owner = Owner { kind: "volume".to_owned(), id: id(1) };
    assert_eq!(store.keys_of(a, &owner, Purpose::Volume, Page::first(10)).await.unwrap().items.len(), 2);
    assert_eq!(store.keys_of(a, &owner, Purpose::JobLog, Page::first(10)).await.unwrap().items.len(), 0);
    let under = store.keys_under(a, KeyId::from_bytes([0; 16]), 2, Page::first(10)).await.unwrap();
    assert_eq!(under.items, std::slice::from_ref(&stored));
    let second = store.keys(a, Page::after((*KEY.as_bytes(), 1), 10)).await.unwrap();
    assert_eq!(second.items, [destroyed]);

    assert_eq!(store.head(a, VOLUME).await.unwrap(), Some(head(1, 1)));
    assert_eq!(store.newest_writer(a, VOLUME).await.unwrap(), 1);
    let writers = store.writers(a, VOLUME, Page::first(10)).await.unwrap();
    assert_eq!((writers.items.len(), writers.items[0].audit_index), (1, 1));

    assert_eq!(store.revocations(0, 10).await.unwrap().items.len(), 2);
    assert_eq!(store.revocations(1, 10).await.unwrap().items[0].version, 2);
    let publisher = store.publisher().await.unwrap().unwrap();
    assert_eq!((publisher.token, publisher.size, publisher.checkpoint.as_slice()), (1, 2, &b"note"[..]));
    assert_eq!(store.refusals_before(SOON, 10).await.unwrap().items.len(), 1);
    assert_eq!(store.entry(a, 0).await.unwrap().unwrap().resource, "1");
    let id = EntryId::from_bytes(id(1));
    assert_eq!(store.entry_by_id(a, id).await.unwrap().unwrap().index, 0);
    let all = EntryFilter::default();
    assert_eq!(store.entries_from(a, 0, 10, &all).await.unwrap().items.len(), 2);
    assert_eq!(store.entries_before(a, None, 10, &all).await.unwrap().items.len(), 2);
    assert_eq!((store.leaves(1).await.unwrap().len(), store.entry_count().await.unwrap()), (1, 2));
}

/// What the conflicts of typed tables read.
pub(super) async fn provoke(store: &Store, a: TenantId) {
    let refused = async |mutation: Mutation| store.commit(Transaction::new().with(mutation), NOW).await.unwrap_err();
    refused(put(a, 1, Expect::Revision(99)).into()).await;
    refused(Mutation::Rewrap { key: key(a, 1, 3), row_version: 1 }).await;
    refused(Mutation::SetHead { tenant: a, volume: VOLUME, expected: head(0, 0), next: head(1, 1) }).await;
    refused(Mutation::Advance { tenant: a, kind: Kind::JOB, id: id(1), from: 9, to: 10 }).await;
    refused(Mutation::TakePublisher { holder: ControlId::from_bytes([9; 16]), until: SOON }).await;
    drop(Put::json(a, Kind::JOB, id(1), Expect::Any, &body("x")));
}
