//! A server that restarts, crashes, is slow, or loses the answer to a commit: nothing is applied twice, nothing falsely told.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions as _, Executor as _};
use tokio::task::JoinSet;
use vocabulary::PrincipalId;

use super::cluster::{Cluster, Stop};
use super::proxy::{Break, Proxy};
use super::{NOW, entry, id, put, tenant};
use crate::{CommitError, Deadlines, Expect, IdempotencyKey, Kind, Mutation, Page, PostgresUrl, Store, StoreConfig, Transaction};

impl Cluster {
    /// The URL of the database `swarm`.
    pub(super) fn url(&self) -> PostgresUrl {
        self.url_of("swarm").parse().unwrap()
    }
}

/// Shorter than usual, that a test need not wait.
const SHORT: Deadlines = Deadlines {
    statement: Duration::from_millis(1500),
    answer: Duration::from_secs(5),
    idle: Duration::from_millis(500),
    connect: Duration::from_secs(5),
    reconnect: Duration::from_millis(600),
};

/// Through the relay.
fn through(proxy: &Proxy) -> PostgresUrl {
    format!("postgres://swarm@127.0.0.1:{}/swarm?sslmode=disable", proxy.port).parse().unwrap()
}

/// A change with its entry, repeatable by its number.
fn change(number: u64) -> Transaction {
    let a = tenant(1);
    let advance = Mutation::Advance { tenant: a, kind: Kind::JOB, id: id(number), from: 0, to: 1 };
    Transaction::new().with(put(a, number, Expect::Absent)).with(advance).entry(entry(a, number)).idempotent(IdempotencyKey {
        tenant: a,
        principal: PrincipalId::from_bytes(id(5)),
        key: format!("change-{number}"),
        request_hash: [1; 32],
        answer: b"answer".to_vec(),
    })
}

/// As many changes, entries and places as there were commits, without a hole.
async fn holds(store: &Store, count: u64) {
    let mut resources = Vec::new();
    let mut page = Page::default();
    loop {
        let listed = store.list(tenant(1), Kind::JOB, page).await.unwrap();
        resources.extend(listed.items);
        match resources.last() {
            Some(last) if listed.truncated => page = Page::after(last.id, 1000),
            _ => break,
        }
    }
    assert_eq!(resources.len() as u64, count);
    assert!(resources.iter().all(|resource| resource.revision == 1));
    assert_eq!(store.entry_count().await.unwrap(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_readers_survive_restarts_and_crashes_of_the_server() {
    let mut cluster = Cluster::start();
    let store = Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
    let mut next = 0;
    for how in [Stop::Fast, Stop::Immediate, Stop::Immediate] {
        let mut writers = JoinSet::new();
        for writer in 0..8_u64 {
            let store = store.clone();
            writers.spawn(async move {
                for round in 0..40 {
                    let number = next + writer * 40 + round;
                    let committed = store.commit(change(number), NOW).await.unwrap();
                    // Done by this call: what was done by an earlier one would be a replay.
                    assert_eq!(committed.replayed, None, "{number}");
                    // What was acknowledged is there.
                    assert!(store.get(tenant(1), Kind::JOB, id(number)).await.unwrap().is_some());
                }
            });
        }
        // In the middle of it.
        let mut seen = Box::pin(futures::StreamExt::skip(store.watch(store.latest_change()), 30));
        futures::StreamExt::next(&mut seen).await.unwrap().unwrap();
        cluster.stop(how);
        cluster.again();
        writers.join_all().await;
        next += 8 * 40;
        holds(&store, next).await;
    }
    store.close().await;
    // And all of it is there for whoever opens next.
    let store = Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
    holds(&store, next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_looked_up() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket()).await;
    let store = Store::open(StoreConfig::postgres(through(&proxy))).await.unwrap();
    for (turn, mode) in (0..).zip([Break::Before, Break::After, Break::Before, Break::After]) {
        proxy.set(mode);
        let committed = store.commit(change(turn), NOW).await.unwrap();
        // Whether the break came before the server heard of it or after: applied once, by this call, and with its numbers.
        assert_eq!((committed.replayed, committed.change_seq, &committed.audit_indexes[..]), (None, 2 * turn + 1, &[turn][..]));
        // A change without a key of its own is looked up the same way.
        proxy.set(mode);
        let plain = store.commit(Transaction::new().with(put(tenant(2), turn, Expect::Absent)), NOW).await.unwrap();
        assert_eq!((plain.revisions.as_slice(), plain.change_seq), (&[1][..], 2 * turn + 2));
        assert_eq!(u64::from(proxy.broken()), 2 * turn + 2, "{mode:?}");
        holds(&store, turn + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_looked_up_is_told_so_and_the_key_resolves_it() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket()).await;
    let store = Store::open(StoreConfig::postgres(through(&proxy).with_deadlines(SHORT))).await.unwrap();
    proxy.set(Break::AfterAndAway);
    let lost = store.commit(change(1), NOW).await.unwrap_err();
    assert!(matches!(lost, CommitError::Unknown), "{lost:?}");
    // While it is away, who comes next is told that nothing was done.
    let away = store.commit(change(2), NOW).await.unwrap_err();
    assert!(matches!(away, CommitError::Unavailable), "{away:?}");
    proxy.set(Break::Never);
    let again = store.commit(change(1), NOW).await.unwrap();
    assert_eq!((again.replayed.as_deref(), &again.audit_indexes[..]), (Some(&b"answer"[..]), &[0][..]));
    assert_eq!(store.commit(change(2), NOW).await.unwrap().replayed, None);
    holds(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_serves_again_without_a_restart_of_ours() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket()).await;
    let store = Store::open(StoreConfig::postgres(through(&proxy).with_deadlines(SHORT))).await.unwrap();
    store.commit(change(1), NOW).await.unwrap();
    proxy.set(Break::Before);
    let first = store.commit(change(2), NOW).await.unwrap();
    assert_eq!(first.replayed, None);
    proxy.set(Break::Away);
    cluster.psql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'swarm'");
    let refused = store.commit(change(3), NOW).await.unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable), "{refused:?}");
    assert!(refused.to_string().contains("nothing was changed"));
    proxy.set(Break::Never);
    assert_eq!(store.commit(change(3), NOW).await.unwrap().replayed, None);
    holds(&store, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_at_its_deadline_and_changes_nothing() {
    let cluster = Cluster::start();
    let store = Store::open(StoreConfig::postgres(cluster.url().with_deadlines(SHORT))).await.unwrap();
    store.commit(change(1), NOW).await.unwrap();
    // Somebody holds what the change needs.
    let mut other = crate::engine::postgres::session(&cluster.url(), None).connect().await.unwrap();
    other.execute("BEGIN; LOCK TABLE resource IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let slow = store.commit(change(2), NOW).await.unwrap_err();
    assert!(matches!(slow, CommitError::Unavailable), "{slow:?}");
    assert!(store.get(tenant(1), Kind::JOB, id(1)).await.is_err(), "a read has the same deadline");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.commit(change(2), NOW).await.unwrap().replayed, None);
    holds(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stops_in_the_middle_loses_its_turn() {
    let cluster = Cluster::start();
    let url = cluster.url().with_deadlines(SHORT);
    let store = Store::open(StoreConfig::postgres(url.clone())).await.unwrap();
    store.commit(change(1), NOW).await.unwrap();
    // Another process began, took the lock, and was paused.
    let mut paused = crate::engine::postgres::session(&url, None).connect().await.unwrap();
    paused.execute("BEGIN").await.unwrap();
    paused.execute("SELECT value FROM counter WHERE name = 'clock' FOR UPDATE").await.unwrap();
    paused.execute("UPDATE counter SET value = 77 WHERE name = 'audit'").await.unwrap();
    assert_eq!(store.commit(change(2), NOW).await.unwrap().audit_indexes, [1]);
    // It wakes up and finds that its transaction is gone.
    assert!(paused.execute("COMMIT").await.is_err());
    holds(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_stored_takes_no_other_with_it() {
    for engine in [super::Engine::Sqlite, super::Engine::Postgres] {
        let opened = Arc::new(super::Opened::on(engine).await);
        let mut tasks = JoinSet::new();
        for number in 0..32 {
            let opened = Arc::clone(&opened);
            tasks.spawn(async move {
                let mut transaction = change(number);
                if number % 2 == 0 {
                    let mut odd = put(tenant(1), 1000 + number, Expect::Absent);
                    odd.state = Some("a\0b".to_owned());
                    transaction = transaction.with(odd);
                }
                (number, opened.commit(transaction).await)
            });
        }
        for (number, result) in tasks.join_all().await {
            match result {
                Ok(_) => assert_eq!(number % 2, 1, "{engine:?}"),
                Err(CommitError::Invalid(_)) => assert_eq!(number % 2, 0, "{engine:?}"),
                Err(other) => panic!("{engine:?}: {other:?}"),
            }
        }
        holds(&opened.store, 16).await;
    }
}
