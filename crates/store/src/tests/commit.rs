//! Transactions: whole or not at all, isolated, numbered without holes, repeatable.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use vocabulary::{Name, PrincipalId, ProjectId, UnixTime};

use super::{Body, NOW, Engine, Opened, body, entry, id, put, tenant};
use crate::read::EntryFilter;
use crate::{CommitError, Conflict, Expect, IdempotencyKey, Kind, Mutation, Page, Put, Transaction};

both! { what_is_held_must_be_as_it_was_seen, a_resource_lives_through_its_revisions, names_are_unique_among_the_living_of_one_project, a_transaction_that_conflicts_leaves_nothing, concurrent_writers_get_numbers_without_holes_and_conflicts_abort_no_other, a_repeated_request_is_done_once, a_key_of_a_refused_request_stays_free, states_ends_and_positions_are_conditional, a_clock_that_goes_back_decides_nothing, a_wrong_clock_can_be_accepted_at_the_start, bad_transactions_are_refused_before_they_reach_the_database, pages_are_cut_and_say_so, entries_are_searched_both_ways, a_closed_store_says_so }

fn conflict(error: &CommitError) -> &Conflict {
    error.conflict().unwrap_or_else(|| panic!("no conflict: {error:?}"))
}

async fn a_resource_lives_through_its_revisions(engine: Engine) {
    let opened = Opened::on(engine).await;
    let (a, store) = (tenant(1), &opened.store);
    let committed = opened.commit(Transaction::new().with(put(a, 1, Expect::Absent)).entry(entry(a, 1))).await.unwrap();
    assert_eq!((committed.revisions.as_slice(), committed.change_seq, committed.audit_indexes.as_slice()), (&[1][..], 1, &[0][..]));
    let (resource, value): (_, Body) = store.get_json(a, Kind::JOB, id(1)).await.unwrap().unwrap();
    assert_eq!((resource.revision, resource.change_seq, value), (1, 1, body("1")));

    let again = opened.commit(Transaction::new().with(put(a, 1, Expect::Absent))).await.unwrap_err();
    assert_eq!(conflict(&again), &Conflict::Exists);
    let stale = opened.commit(Transaction::new().with(put(a, 1, Expect::Revision(7)))).await.unwrap_err();
    assert_eq!(conflict(&stale), &Conflict::Revision { actual: 1 });
    let gone = opened.commit(Transaction::new().with(put(a, 2, Expect::Revision(1)))).await.unwrap_err();
    assert_eq!(conflict(&gone), &Conflict::Absent);

    assert_eq!(opened.commit(Transaction::new().with(put(a, 1, Expect::Revision(1)))).await.unwrap().revisions, [2]);
    assert_eq!(opened.commit(Transaction::new().with(put(a, 1, Expect::Any))).await.unwrap().revisions, [3]);
    let delete = |expect| Transaction::new().with(Mutation::delete(a, Kind::JOB, id(1), expect));
    assert_eq!(conflict(&opened.commit(delete(Expect::Revision(0))).await.unwrap_err()), &Conflict::Revision { actual: 3 });
    assert_eq!(conflict(&opened.commit(delete(Expect::Revision(2))).await.unwrap_err()), &Conflict::Revision { actual: 3 });
    assert_eq!(opened.commit(delete(Expect::Revision(3))).await.unwrap().revisions, [4]);
    assert_eq!(store.get(a, Kind::JOB, id(1)).await.unwrap(), None);
    assert_eq!(conflict(&opened.commit(delete(Expect::Any)).await.unwrap_err()), &Conflict::Absent);
    // An id is used once.
    for expect in [Expect::Absent, Expect::Any] {
        let error = opened.commit(Transaction::new().with(put(a, 1, expect))).await.unwrap_err();
        assert_eq!(conflict(&error), &Conflict::Exists);
    }
}

async fn names_are_unique_among_the_living_of_one_project(engine: Engine) {
    let opened = Opened::on(engine).await;
    let (a, b) = (tenant(1), tenant(2));
    let name: Name = "data".parse().unwrap();
    let project = ProjectId::from_bytes(id(9));
    let named = |tenant, number| put(tenant, number, Expect::Absent).name(&name);
    opened.commit(Transaction::new().with(named(a, 1))).await.unwrap();
    let taken = opened.commit(Transaction::new().with(named(a, 2))).await.unwrap_err();
    assert_eq!(conflict(&taken), &Conflict::NameTaken);
    // Another project and another tenant have their own names.
    opened.commit(Transaction::new().with(named(a, 3).project(project)).with(named(b, 4))).await.unwrap();
    let found = opened.store.find(a, Kind::JOB, Some(project), &name).await.unwrap().unwrap();
    assert_eq!((found.id, found.project), (id(3), Some(project)));
    assert_eq!(opened.store.find(b, Kind::JOB, Some(project), &name).await.unwrap(), None);
    // The dead give their names back.
    let delete = Mutation::delete(a, Kind::JOB, id(1), Expect::Any);
    opened.commit(Transaction::new().with(delete).with(named(a, 5))).await.unwrap();
    assert_eq!(opened.store.find(a, Kind::JOB, None, &name).await.unwrap().unwrap().id, id(5));
}

async fn a_transaction_that_conflicts_leaves_nothing(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    opened.commit(Transaction::new().with(put(a, 1, Expect::Absent))).await.unwrap();
    let transaction =
        Transaction::new().with(put(a, 2, Expect::Absent)).with(put(a, 1, Expect::Absent)).entry(entry(a, 1));
    match opened.commit(transaction).await.unwrap_err() {
        CommitError::Conflict { mutation: 1, conflict: Conflict::Exists } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(opened.store.get(a, Kind::JOB, id(2)).await.unwrap(), None);
    assert_eq!((opened.store.entry_count().await.unwrap(), opened.store.latest_change()), (0, 1));
}

async fn concurrent_writers_get_numbers_without_holes_and_conflicts_abort_no_other(engine: Engine) {
    let opened = Arc::new(Opened::on(engine).await);
    let mut tasks = JoinSet::new();
    for task in 0..32_u64 {
        let opened = Arc::clone(&opened);
        tasks.spawn(async move {
            let (mut changes, mut indexes) = (Vec::new(), Vec::new());
            for round in 0..10 {
                let number = 1 + task * 100 + round;
                // Every third one begins well and then conflicts, in the same group as the others.
                let mut transaction = Transaction::new().with(put(tenant(task % 3), number, Expect::Absent));
                transaction = transaction.entry(entry(tenant(task % 3), number));
                if round % 3 == 2 {
                    transaction = transaction.with(put(tenant(task % 3), 999_999, Expect::Revision(1)));
                    let error = opened.commit(transaction).await.unwrap_err();
                    assert!(matches!(error, CommitError::Conflict { mutation: 1, conflict: Conflict::Absent }), "{error:?}");
                } else {
                    let committed = opened.commit(transaction).await.unwrap();
                    changes.push(committed.change_seq);
                    indexes.extend(committed.audit_indexes);
                }
            }
            (changes, indexes)
        });
    }
    let (mut changes, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    while let Some(done) = tasks.join_next().await {
        let (one, other) = done.unwrap();
        // In the order of one writer's own commits they rise.
        assert!(one.is_sorted() && other.is_sorted());
        changes.extend(one);
        indexes.extend(other);
    }
    let count = 32 * 7;
    assert_eq!(changes, (1..=count).collect());
    assert_eq!(indexes, (0..count).collect());
    let opened = Arc::into_inner(opened).unwrap().again().await;
    assert_eq!(opened.store.entry_count().await.unwrap(), count);
    // The entry at an index is the one whose commit was told that index, and its resource is there.
    for leaf in opened.store.leaves(0).await.unwrap() {
        let mut owners = 0;
        for t in 0..3 {
            let Some(found) = opened.store.entry(tenant(t), leaf.index).await.unwrap() else { continue };
            assert!(opened.store.get(tenant(t), Kind::JOB, id(found.resource.parse().unwrap())).await.unwrap().is_some());
            assert_eq!(found.leaf, leaf.leaf);
            owners += 1;
        }
        assert_eq!(owners, 1);
    }
}

fn keyed(number: u64, hash: u8) -> Transaction {
    let a = tenant(1);
    Transaction::new().with(put(a, number, Expect::Absent)).entry(entry(a, number)).idempotent(IdempotencyKey {
        tenant: a,
        principal: PrincipalId::from_bytes(id(5)),
        key: "create-1".to_owned(),
        request_hash: [hash; 32],
        answer: b"the answer".to_vec(),
    })
}

async fn a_repeated_request_is_done_once(engine: Engine) {
    let opened = Arc::new(Opened::on(engine).await);
    let mut tasks = JoinSet::new();
    for number in 1..=32 {
        let opened = Arc::clone(&opened);
        tasks.spawn(async move { opened.commit(keyed(number, 1)).await.unwrap() });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|committed| committed.replayed.is_none()).count(), 1);
    for committed in &all {
        assert_eq!((committed.change_seq, committed.audit_indexes.as_slice()), (1, &[0][..]));
        assert!(committed.replayed.as_ref().is_none_or(|answer| answer == b"the answer"));
    }
    assert_eq!(opened.store.list(tenant(1), Kind::JOB, Page::default()).await.unwrap().items.len(), 1);
    assert!(matches!(opened.commit(keyed(77, 2)).await, Err(CommitError::KeyReused)));

    // Also after a restart, and before anything is worked out again.
    let opened = Arc::into_inner(opened).unwrap().again().await;
    assert_eq!(opened.commit(keyed(78, 1)).await.unwrap().replayed.as_deref(), Some(&b"the answer"[..]));
    let principal = PrincipalId::from_bytes(id(5));
    let replay = |tenant, hash| opened.store.replay(tenant, principal, "create-1", hash);
    assert_eq!(replay(tenant(1), &[1; 32]).await.unwrap().unwrap().audit_indexes, [0]);
    assert!(matches!(replay(tenant(1), &[2; 32]).await, Err(CommitError::KeyReused)));
    assert_eq!(replay(tenant(2), &[1; 32]).await.unwrap(), None);
}

async fn a_key_of_a_refused_request_stays_free(engine: Engine) {
    let opened = Opened::on(engine).await;
    opened.commit(Transaction::new().with(put(tenant(1), 1, Expect::Absent))).await.unwrap();
    assert!(opened.commit(keyed(1, 1)).await.is_err());
    assert_eq!(opened.commit(keyed(2, 1)).await.unwrap().replayed, None);
}

async fn states_ends_and_positions_are_conditional(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    let end = NOW.plus_millis(1000);
    let lease = Put::json(a, Kind::RUN_LEASE, id(1), Expect::Absent, &body("lease")).unwrap().state("active").until(end);
    opened.commit(Transaction::new().with(lease)).await.unwrap();
    let extend = |until| {
        Transaction::new().with(Mutation::Extend { tenant: a, kind: Kind::RUN_LEASE, id: id(1), state: "active", until })
    };
    let step = |from, to| Transaction::new().with(Mutation::Step { tenant: a, kind: Kind::RUN_LEASE, id: id(1), from, to });
    assert_eq!(opened.store.commit(extend(NOW.plus_millis(5000)), NOW.plus_millis(999)).await.unwrap().revisions, [2]);
    // At its end it is over: not one millisecond more.
    let late = opened.store.commit(extend(NOW.plus_millis(9000)), NOW.plus_millis(5000)).await.unwrap_err();
    assert_eq!(conflict(&late), &Conflict::Spent);
    let ended = opened.store.list_ended_anywhere(Kind::RUN_LEASE, "active", NOW.plus_millis(5000), 10).await.unwrap();
    assert_eq!(ended.items.len(), 1);
    assert_eq!(opened.store.commit(step("active", "ended"), NOW).await.unwrap().revisions, [3]);
    let twice = opened.store.commit(step("active", "ended"), NOW).await.unwrap_err();
    assert_eq!(conflict(&twice), &Conflict::State { actual: "ended".to_owned() });

    let advance = |from, to| Transaction::new().with(Mutation::Advance { tenant: a, kind: Kind::JOB, id: id(1), from, to });
    opened.commit(advance(0, 10)).await.unwrap();
    assert_eq!(conflict(&opened.commit(advance(0, 5)).await.unwrap_err()), &Conflict::Position { actual: 10 });
    assert!(matches!(opened.commit(advance(10, 10)).await, Err(CommitError::Invalid(_))));
    assert_eq!(opened.store.position(a, Kind::JOB, id(1)).await.unwrap(), 10);
    assert_eq!(opened.store.position(tenant(2), Kind::JOB, id(1)).await.unwrap(), 0);
}

async fn what_is_held_must_be_as_it_was_seen(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    opened.commit(Transaction::new().with(put(a, 1, Expect::Absent))).await.unwrap();
    let hold = |tenant, n, revision| Mutation::Hold { tenant, kind: Kind::JOB, id: id(n), revision };
    let with = |held| Transaction::new().with(put(a, 2, Expect::Any)).with(held);
    let before = opened.store.latest_change();
    assert_eq!(opened.commit(with(hold(a, 1, 1))).await.unwrap().revisions, [1, 1]);
    // It is no change of what is held: nobody who watches it is woken, and its revision stays.
    assert_eq!(opened.store.latest_change(), before + 1);
    assert_eq!(opened.store.get(a, Kind::JOB, id(1)).await.unwrap().unwrap().revision, 1);
    for (held, why) in [
        (hold(a, 1, 2), Conflict::Revision { actual: 1 }),
        (hold(a, 9, 1), Conflict::Absent),
        (hold(tenant(2), 1, 1), Conflict::Absent),
    ] {
        let error = opened.commit(with(held)).await.unwrap_err();
        assert_eq!(conflict(&error), &why);
        assert!(matches!(error, CommitError::Conflict { mutation: 1, .. }));
    }
    // The refused ones changed nothing beside it either.
    assert_eq!(opened.store.get(a, Kind::JOB, id(2)).await.unwrap().unwrap().revision, 1);
}

async fn a_clock_that_goes_back_decides_nothing(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    let later = NOW.plus_millis(3_600_000);
    opened.store.commit(Transaction::new().with(put(a, 1, Expect::Absent)), later).await.unwrap();
    let opened = opened.again().await;
    assert_eq!(opened.store.high_water(), later);
    assert_eq!(opened.store.clock_behind(NOW), Some(3_600_000));
    assert_eq!(opened.store.clock_behind(later), None);
    let turn = || Mutation::TakeLoginTurn { subject: crate::DelaySubject::Source("s".to_owned()), delays_ms: vec![0] };
    let error = opened.commit(Transaction::new().with(turn())).await.unwrap_err();
    assert_eq!(conflict(&error), &Conflict::ClockBack { now: NOW, high_water: later });
    // What compares no times goes on, and does not pull the mark back.
    opened.commit(Transaction::new().with(put(a, 2, Expect::Absent))).await.unwrap();
    assert_eq!(opened.store.high_water(), later);
    // An operator's word ends it.
    opened.commit(Transaction::new().with(Mutation::AcceptClock)).await.unwrap();
    opened.commit(Transaction::new().with(turn())).await.unwrap();
    assert_eq!(opened.store.high_water(), NOW);
}

async fn a_wrong_clock_can_be_accepted_at_the_start(engine: Engine) {
    let opened = Opened::on(engine).await;
    let far = UnixTime::from_millis(9_999_999_999_999);
    opened.store.commit(Transaction::new().with(put(tenant(1), 1, Expect::Absent)), far).await.unwrap();
    opened.store.close().await;
    let mut config = opened.config();
    config.accept_clock = Some(NOW);
    drop(opened.store);
    let store = crate::Store::open(config).await.unwrap();
    assert_eq!(store.clock_behind(NOW), None);
}

async fn bad_transactions_are_refused_before_they_reach_the_database(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    let mut forged = entry(a, 1);
    forged.body.push(b' ');
    let mut huge = put(a, 1, Expect::Absent);
    huge.body = " ".repeat(crate::limits::BODY_MAX + 1);
    let many = (0..=crate::limits::ENTRIES_MAX as u64).fold(Transaction::new(), |tx, n| tx.entry(entry(a, n)));
    let mut odd = keyed(1, 1);
    odd.idempotency.as_mut().unwrap().key = "a\u{1b}[2J".to_owned();
    let mut long = keyed(1, 1);
    long.idempotency.as_mut().unwrap().key = "a".repeat(129);
    for transaction in [
        Transaction::new().entry(forged),
        Transaction::new().with(huge),
        many,
        odd,
        long,
        Transaction::new().with(put(a, 1, Expect::Absent).project(ProjectId::from_bytes([0; 16]))),
        Transaction::new().with(Mutation::Advance { tenant: a, kind: Kind::JOB, id: id(1), from: 0, to: u64::MAX }),
    ] {
        let error = opened.commit(transaction).await.unwrap_err();
        assert!(matches!(error, CommitError::Invalid(_) | CommitError::TooLarge { .. }), "{error:?}");
    }
    assert!(Put::json(a, Kind::JOB, id(1), Expect::Absent, &"no object").is_err());
    assert!(Put::json(a, Kind::JOB, id(1), Expect::Absent, &serde_json::json!({"format": "1"})).is_err());
    assert_eq!(opened.store.latest_change(), 0);
}

async fn pages_are_cut_and_say_so(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    let all = (1..=1500).fold(Transaction::new(), |tx, number| tx.with(put(a, number, Expect::Absent)));
    opened.commit(all).await.unwrap();
    let first = opened.store.list(a, Kind::JOB, Page::first(u32::MAX)).await.unwrap();
    assert_eq!((first.items.len(), first.truncated), (1000, true));
    let last = first.items.last().unwrap().id;
    // What is inserted before the cursor does not move the second page.
    opened.commit(Transaction::new().with(put(a, 0, Expect::Absent))).await.unwrap();
    let second = opened.store.list(a, Kind::JOB, Page::after(last, 1000)).await.unwrap();
    assert_eq!((second.items.len(), second.truncated), (500, false));
    assert_eq!(second.items[0].id, id(1001));
    assert_eq!(opened.store.list(a, Kind::JOB, Page::first(0)).await.unwrap().items.len(), 1);
}

async fn entries_are_searched_both_ways(engine: Engine) {
    let opened = Opened::on(engine).await;
    let a = tenant(1);
    for number in 0..10 {
        let owner = if number % 2 == 0 { a } else { tenant(2) };
        opened.commit(Transaction::new().entry(entry(owner, number))).await.unwrap();
    }
    let all = EntryFilter::default();
    let indexes = |paged: crate::Paged<crate::EntryRow>| paged.items.iter().map(|e| e.index).collect::<Vec<_>>();
    assert_eq!(indexes(opened.store.entries_from(a, 0, 3, &all).await.unwrap()), [0, 2, 4]);
    assert_eq!(indexes(opened.store.entries_from(a, 5, 100, &all).await.unwrap()), [6, 8]);
    assert_eq!(indexes(opened.store.entries_before(a, None, 2, &all).await.unwrap()), [8, 6]);
    assert_eq!(indexes(opened.store.entries_before(a, Some(6), 9, &all).await.unwrap()), [4, 2, 0]);
    let one = EntryFilter { resource: Some("4".to_owned()), action: Some("job.run".to_owned()), ..EntryFilter::default() };
    assert_eq!(indexes(opened.store.entries_from(a, 0, 9, &one).await.unwrap()), [4]);
    let none = EntryFilter { until: Some(NOW), ..EntryFilter::default() };
    assert_eq!(indexes(opened.store.entries_from(a, 0, 9, &none).await.unwrap()), [0; 0]);
    let hostile = EntryFilter { resource: Some("4' OR '1'='1".to_owned()), ..EntryFilter::default() };
    assert_eq!(indexes(opened.store.entries_from(a, 0, 9, &hostile).await.unwrap()), [0; 0]);
    assert_eq!(opened.store.entry(tenant(2), 4).await.unwrap(), None);
}

async fn a_closed_store_says_so(engine: Engine) {
    let opened = Opened::on(engine).await;
    opened.store.close().await;
    let error = opened.commit(Transaction::new().with(put(tenant(1), 1, Expect::Absent))).await.unwrap_err();
    assert!(matches!(error, CommitError::Closed));
}
