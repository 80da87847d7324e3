//! 32 tasks race for each thing that is spent, compared or taken once: exactly one wins.

use std::sync::Arc;

use keys::KeyState;
use tokio::task::JoinSet;
use vocabulary::{ControlId, Name};

use super::world::{self, CONTROL, KEY, PERSON, PRINCIPAL, SOON, STEP_UP, TICKET, TOKEN, VOLUME, head};
use super::{NOW, Engine, Opened, id, put, tenant};
use crate::{
    CommitError, Conflict, DelaySubject, Expect, Hashed, Kind, Mutation, TotpRow, Transaction,
};

both! { exactly_one_wins, counts_lose_nothing, a_step_up_serves_only_its_own_request_person_and_time, tokens_end_once_and_for_all, login_delays_grow_by_turns_and_end_with_a_success, a_fenced_publisher_publishes_nothing, keys_and_heads_go_only_where_they_may, a_volume_comes_with_its_own_head }

const A: vocabulary::TenantId = vocabulary::TenantId::from_bytes([0xaa; 16]);

/// Lets 32 tasks commit; gives what the losers were told.
async fn race(opened: &Arc<Opened>, make: impl Fn(u64) -> Transaction) -> Vec<Conflict> {
    let mut tasks = JoinSet::new();
    for task in 0..32 {
        let (opened, transaction) = (Arc::clone(opened), make(task));
        tasks.spawn(async move { opened.commit(transaction).await });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    results
        .into_iter()
        .filter_map(Result::err)
        .map(|error| match error {
            CommitError::Conflict { conflict, .. } => conflict,
            other => panic!("{other:?}"),
        })
        .collect()
}

async fn exactly_one_wins(engine: Engine) {
    let opened = Arc::new(Opened::on(engine).await);
    let one = |mutation: Mutation| Transaction::new().with(mutation);
    let commit = async |mutation: Mutation| opened.commit(Transaction::new().with(mutation)).await.unwrap();
    let all = |losers: Vec<Conflict>, what: Conflict| assert!(losers.iter().all(|told| *told == what), "{losers:?}");

    // resources
    all(race(&opened, |_| one(put(A, 1, Expect::Absent).into())).await, Conflict::Exists);
    all(race(&opened, |_| one(put(A, 1, Expect::Revision(1)).into())).await, Conflict::Revision { actual: 2 });
    let name: Name = "n".parse().unwrap();
    all(race(&opened, |task| one(put(A, 100 + task, Expect::Absent).name(&name).into())).await, Conflict::NameTaken);
    commit(put(A, 2, Expect::Absent).state("pending").into()).await;
    let step = |_| one(Mutation::Step { tenant: A, kind: Kind::JOB, id: id(2), from: "pending", to: "placed" });
    all(race(&opened, step).await, Conflict::State { actual: "placed".to_owned() });
    let advance = |task| one(Mutation::Advance { tenant: A, kind: Kind::JOB, id: id(2), from: 0, to: 1 + task });
    assert!(race(&opened, advance).await.iter().all(|told| matches!(told, Conflict::Position { .. })));
    let delete = |_| one(Mutation::delete(A, Kind::JOB, id(2), Expect::Revision(2)));
    all(race(&opened, delete).await, Conflict::Absent);

    // people
    commit(Mutation::SetTotp(TotpRow { person: PERSON, key: KEY, last_step: 10 })).await;
    all(race(&opened, |_| one(Mutation::UseTotp { person: PERSON, step: 11 })).await, Conflict::Spent);
    let earlier = opened.commit(one(Mutation::UseTotp { person: PERSON, step: 10 })).await.unwrap_err();
    assert_eq!(earlier.conflict(), Some(&Conflict::Spent));
    commit(Mutation::SetRecoveryCodes { person: PERSON, hashes: vec![Hashed::new("h".to_owned())] }).await;
    all(race(&opened, |_| one(Mutation::UseRecoveryCode { person: PERSON, place: 0 })).await, Conflict::Spent);
    let turn = |_| one(Mutation::TakeLoginTurn { subject: DelaySubject::Person(PERSON), delays_ms: vec![1000] });
    all(race(&opened, turn).await, Conflict::Delayed { until: NOW.plus_millis(1000) });

    // tokens and step-ups
    all(race(&opened, |_| one(Mutation::PutToken(world::token(A, TICKET)))).await, Conflict::Exists);
    all(race(&opened, |_| one(Mutation::ConsumeToken { tenant: A, id: TICKET })).await, Conflict::Spent);
    all(race(&opened, |_| one(Mutation::PutStepUp(world::step_up(A)))).await, Conflict::Exists);
    let verify = |_| one(Mutation::VerifyStepUp { tenant: A, id: STEP_UP, principal: PRINCIPAL, acr: 1 });
    all(race(&opened, verify).await, Conflict::Spent);
    let consume =
        |_| one(Mutation::ConsumeStepUp { tenant: A, id: STEP_UP, principal: PRINCIPAL, request_hash: [3; 32] });
    all(race(&opened, consume).await, Conflict::Spent);

    // keys
    all(race(&opened, |_| one(Mutation::PutKey(world::key(A, 1, 1)))).await, Conflict::Exists);
    let rewrap = |_| one(Mutation::Rewrap { key: world::key(A, 1, 2), row_version: 1 });
    all(race(&opened, rewrap).await, Conflict::Revision { actual: 2 });
    let from = vec![KeyState::Active];
    let step = |_| one(Mutation::StepKey { tenant: A, id: KEY, version: 1, from: from.clone(), to: KeyState::Deactivated });
    all(race(&opened, step).await, Conflict::State { actual: "deactivated".to_owned() });

    // volumes
    let create = |_| one(Mutation::CreateHead { tenant: A, volume: VOLUME, head: head(0, 0) });
    all(race(&opened, create).await, Conflict::Exists);
    all(race(&opened, |_| world::writer(A, 1)).await, Conflict::WriterEpoch { newest: 1 });
    let set = |_| one(Mutation::SetHead { tenant: A, volume: VOLUME, expected: head(0, 0), next: head(1, 1) });
    all(race(&opened, set).await, Conflict::Head { actual: head(1, 1) });

    // the log's publisher, and counted refusals
    let take = |task: u64| one(Mutation::TakePublisher { holder: ControlId::from_bytes(id(task)), until: SOON });
    all(race(&opened, take).await, Conflict::Fenced { token: 1 });
    for count in 1..=3 {
        let refusal = Mutation::CountRefusal { source: "s".to_owned(), minute: NOW, code: "c".to_owned() };
        assert_eq!(commit(refusal).await.revisions, [count]);
    }
    let refusals =
        |_| one(Mutation::TakeRefusals { source: "s".to_owned(), minute: NOW, code: "c".to_owned(), count: 3 });
    all(race(&opened, refusals).await, Conflict::Spent);
}

async fn counts_lose_nothing(engine: Engine) {
    let opened = Arc::new(Opened::on(engine).await);
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let opened = Arc::clone(&opened);
        tasks.spawn(async move {
            let count = || Mutation::CountRefusal { source: "s".to_owned(), minute: NOW, code: "c".to_owned() };
            let subject = || DelaySubject::Source("s".to_owned());
            let turn = Mutation::TakeLoginTurn { subject: subject(), delays_ms: vec![0] };
            opened.commit(Transaction::new().with(count()).with(count()).with(turn)).await.unwrap().revisions
        });
    }
    let mut yields = tasks.join_all().await;
    yields.sort();
    assert!(yields.into_iter().eq((1..=32).map(|n| vec![n * 2 - 1, n * 2, n])));
}

async fn a_step_up_serves_only_its_own_request_person_and_time(engine: Engine) {
    let opened = Opened::on(engine).await;
    let consume = |tenant, principal, hash| {
        Transaction::new().with(Mutation::ConsumeStepUp { tenant, id: STEP_UP, principal, request_hash: [hash; 32] })
    };
    opened.commit(Transaction::new().with(Mutation::PutStepUp(world::step_up(A)))).await.unwrap();
    let spent = async |transaction, at| {
        let error = opened.store.commit(transaction, at).await.unwrap_err();
        assert_eq!(error.conflict(), Some(&Conflict::Spent));
    };
    spent(consume(A, PRINCIPAL, 3), NOW).await; // not verified yet
    let verify = |tenant, principal| {
        Transaction::new().with(Mutation::VerifyStepUp { tenant, id: STEP_UP, principal, acr: 1 })
    };
    let other = vocabulary::PrincipalId::from_bytes(id(77));
    spent(verify(A, other), NOW).await;
    spent(verify(tenant(9), PRINCIPAL), NOW).await;
    opened.commit(verify(A, PRINCIPAL)).await.unwrap();
    spent(consume(A, PRINCIPAL, 4), NOW).await; // another request
    spent(consume(A, other, 3), NOW).await;
    spent(consume(tenant(9), PRINCIPAL, 3), NOW).await;
    spent(consume(A, PRINCIPAL, 3), SOON).await; // ended
    // The clock went on to its end: going back does not revive it.
    opened.store.commit(Transaction::new().with(put(A, 1, Expect::Absent)), SOON.plus_millis(1)).await.unwrap();
    spent(consume(A, PRINCIPAL, 3), NOW.plus_millis(59_000)).await;
}

async fn tokens_end_once_and_for_all(engine: Engine) {
    let opened = Opened::on(engine).await;
    let commit = async |mutation: Mutation, at| opened.store.commit(Transaction::new().with(mutation), at).await;
    for id in [TOKEN, TICKET] {
        commit(Mutation::PutToken(world::token(A, id)), NOW).await.unwrap();
    }
    let consume = |id| Mutation::ConsumeToken { tenant: A, id };
    assert_eq!(commit(consume(TICKET), SOON).await.unwrap_err().conflict(), Some(&Conflict::Spent)); // ended
    commit(Mutation::RevokeToken { tenant: A, id: TICKET }, NOW).await.unwrap();
    assert_eq!(commit(consume(TICKET), NOW).await.unwrap_err().conflict(), Some(&Conflict::Spent)); // revoked
    let foreign = Mutation::RevokeToken { tenant: tenant(9), id: TOKEN };
    assert_eq!(commit(foreign, NOW).await.unwrap_err().conflict(), Some(&Conflict::Absent));
    let live = opened.store.token(TOKEN).await.unwrap().unwrap();
    assert!(live.is_live(NOW) && !live.is_live(SOON));
}

async fn login_delays_grow_by_turns_and_end_with_a_success(engine: Engine) {
    let opened = Opened::on(engine).await;
    let subject = DelaySubject::Person(PERSON);
    let turn = || Mutation::TakeLoginTurn { subject: DelaySubject::Person(PERSON), delays_ms: vec![0, 100, 1000] };
    let at = async |mutation: Mutation, after| opened.store.commit(Transaction::new().with(mutation), NOW.plus_millis(after)).await;
    assert_eq!(at(turn(), 0).await.unwrap().revisions, [1]);
    assert_eq!(at(turn(), 0).await.unwrap().revisions, [2]);
    let delayed = at(turn(), 99).await.unwrap_err();
    assert_eq!(delayed.conflict(), Some(&Conflict::Delayed { until: NOW.plus_millis(100) }));
    assert_eq!(at(turn(), 100).await.unwrap().revisions, [3]);
    // The last delay holds for all that follow: growing, never for good.
    assert_eq!(at(turn(), 1100).await.unwrap().revisions, [4]);
    assert_eq!(at(turn(), 2100).await.unwrap().revisions, [5]);
    at(Mutation::ClearLoginDelay { subject: subject.clone() }, 2100).await.unwrap();
    assert_eq!(opened.store.login_delay(&subject).await.unwrap(), None);
    assert_eq!(at(turn(), 2100).await.unwrap().revisions, [1]);
}

async fn a_fenced_publisher_publishes_nothing(engine: Engine) {
    let opened = Opened::on(engine).await;
    let commit = async |mutation: Mutation, at| opened.store.commit(Transaction::new().with(mutation), at).await;
    let publish = |token, size, root| Mutation::Publish { token, size, root: [root; 32], checkpoint: vec![1] };
    let other = ControlId::from_bytes([9; 16]);
    commit(Mutation::TakePublisher { holder: CONTROL, until: SOON }, NOW).await.unwrap();
    commit(publish(1, 5, 1), NOW).await.unwrap();
    // Never smaller, and never another root at the same size.
    for (size, root) in [(4, 1), (5, 2)] {
        let error = commit(publish(1, size, root), NOW).await.unwrap_err();
        assert_eq!(error.conflict(), Some(&Conflict::Position { actual: 5 }));
    }
    commit(publish(1, 5, 1), NOW).await.unwrap();
    let early = commit(Mutation::TakePublisher { holder: other, until: SOON }, NOW).await;
    assert_eq!(early.unwrap_err().conflict(), Some(&Conflict::Fenced { token: 1 }));
    // Its time is over: it may not publish even before another takes over, and not after.
    assert_eq!(commit(publish(1, 6, 3), SOON).await.unwrap_err().conflict(), Some(&Conflict::Fenced { token: 1 }));
    let taken = commit(Mutation::TakePublisher { holder: other, until: SOON.plus_millis(60_000) }, SOON).await.unwrap();
    assert_eq!(taken.revisions, [2]);
    assert_eq!(commit(publish(1, 6, 3), SOON).await.unwrap_err().conflict(), Some(&Conflict::Fenced { token: 2 }));
    commit(publish(2, 6, 3), SOON).await.unwrap();
}

async fn a_volume_comes_with_its_own_head(engine: Engine) {
    let opened = Opened::on(engine).await;
    let volume = |number| vocabulary::VolumeId::from_bytes(id(number));
    let head = |number: u8| vocabulary::volume::RootHead { root: vocabulary::Sha256Digest::from_bytes([number; 32]), ..head(0, 0) };
    for (tenant, number) in [(A, 1), (A, 2), (A, 3), (tenant(0xbb), 1)] {
        let put = super::Put::json(tenant, Kind::VOLUME, volume(number), Expect::Absent, &super::body("v")).unwrap();
        let create = Mutation::CreateHead { tenant, volume: volume(number), head: head(u8::try_from(number).unwrap()) };
        let transaction = Transaction::new().with(put);
        opened.commit(if number == 3 { transaction } else { transaction.with(create) }).await.unwrap();
    }
    let (row, found) = opened.store.volume(A, volume(2)).await.unwrap().unwrap();
    assert_eq!((row.id, row.tenant, row.revision, found), (id(2), A, 1, head(2)));
    let page = opened.store.volumes(A, crate::Page::first(1)).await.unwrap();
    assert_eq!((page.truncated, page.items[0].0.id, &page.items[0].1), (true, id(1), &head(1)));
    let rest = opened.store.volumes(A, crate::Page::after(id(1), 10)).await.unwrap();
    assert_eq!(rest.items.iter().map(|(row, _)| row.id).collect::<Vec<_>>(), [id(2)], "one without a head is no volume");
    opened.commit(Transaction::new().with(Mutation::delete(A, Kind::VOLUME, volume(2), Expect::Revision(1)))).await.unwrap();
    assert_eq!(opened.store.volume(A, volume(2)).await.unwrap(), None);
    assert_eq!(opened.store.volume(tenant(0xcc), volume(1)).await.unwrap(), None);
}

async fn keys_and_heads_go_only_where_they_may(engine: Engine) {
    let opened = Opened::on(engine).await;
    let commit = async |mutation: Mutation| opened.commit(Transaction::new().with(mutation)).await;
    let mut empty = world::key(A, 1, 1);
    empty.wrapped = None;
    assert!(matches!(commit(Mutation::PutKey(empty)).await, Err(CommitError::Invalid(_))));
    let mut moved = world::key(A, 1, 1);
    moved.kek_version = 9;
    assert!(matches!(commit(Mutation::PutKey(moved)).await, Err(CommitError::Invalid(_))));
    commit(Mutation::PutKey(world::key(A, 1, 1))).await.unwrap();
    let step = |from, to| Mutation::StepKey { tenant: A, id: KEY, version: 1, from: vec![from], to };
    // A key's life has no such step, whatever the caller expects.
    assert!(commit(step(KeyState::Active, KeyState::Destroyed)).await.is_err());
    commit(step(KeyState::Active, KeyState::PendingDestroy)).await.unwrap();
    commit(step(KeyState::PendingDestroy, KeyState::Destroyed)).await.unwrap();
    assert!(commit(step(KeyState::Destroyed, KeyState::Active)).await.is_err());
    let rewrap = Mutation::Rewrap { key: world::key(A, 1, 2), row_version: 3 };
    let dead = commit(rewrap).await.unwrap_err();
    assert_eq!(dead.conflict(), Some(&Conflict::State { actual: "destroyed".to_owned() }));

    // A writer epoch needs a volume and its own entry; a head needs the newest epoch.
    assert_eq!(opened.commit(world::writer(A, 1)).await.unwrap_err().conflict(), Some(&Conflict::Absent));
    commit(Mutation::CreateHead { tenant: A, volume: VOLUME, head: head(0, 0) }).await.unwrap();
    let mut silent = world::writer(A, 1);
    silent.entries.clear();
    assert!(matches!(opened.commit(silent).await, Err(CommitError::Invalid(_))));
    for epoch in [1, 2] {
        opened.commit(world::writer(A, epoch)).await.unwrap();
    }
    let set = |expected, next| Mutation::SetHead { tenant: A, volume: VOLUME, expected, next };
    let old = commit(set(head(0, 0), head(1, 1))).await.unwrap_err();
    assert_eq!(old.conflict(), Some(&Conflict::WriterEpoch { newest: 2 }));
    assert!(matches!(commit(set(head(0, 0), head(2, 2))).await, Err(CommitError::Invalid(_))));
    commit(set(head(0, 0), head(1, 2))).await.unwrap();
    // Rolled back: the same step again.
    let back = commit(set(head(0, 0), head(1, 2))).await.unwrap_err();
    assert_eq!(back.conflict(), Some(&Conflict::Head { actual: head(1, 2) }));
}
