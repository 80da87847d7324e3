//! Several processes on one database: here several stores, which share nothing but the server.

use std::collections::BTreeSet;

use futures::StreamExt;
use tokio::task::JoinSet;
use vocabulary::{ControlId, PrincipalId};

use super::cluster::Cluster;
use super::world::{self, SOON, TOKEN};
use super::{NOW, entry, id, put, tenant};
use crate::{Conflict, Expect, IdempotencyKey, Kind, Mutation, Page, Store, StoreConfig, Transaction};

async fn stores(cluster: &Cluster, count: usize) -> Vec<Store> {
    // All at once, on an empty database: they take turns at making the tables.
    let opening = (0..count).map(|_| Store::open(StoreConfig::postgres(cluster.url())));
    futures::future::join_all(opening).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_write_and_all_numbers_are_one_row_without_holes() {
    let cluster = Cluster::start();
    let stores = stores(&cluster, 3).await;
    let mut followers = JoinSet::new();
    for store in &stores {
        let watch = store.watch(0);
        followers.spawn(async move {
            let seen: Vec<_> = watch.take(480).map(|change| change.unwrap().seq).collect().await;
            assert!(seen.into_iter().eq(1..=480));
        });
    }
    let mut writers = JoinSet::new();
    for (place, store) in stores.iter().enumerate() {
        for task in 0..8_u64 {
            let store = store.clone();
            writers.spawn(async move {
                let mut indexes = Vec::new();
                for round in 0..20 {
                    let number = place as u64 * 10_000 + task * 100 + round;
                    let transaction = Transaction::new().with(put(tenant(task), number, Expect::Absent)).entry(entry(tenant(task), number));
                    let committed = store.commit(transaction, NOW).await.unwrap();
                    indexes.extend(committed.audit_indexes);
                }
                assert!(indexes.is_sorted());
                indexes
            });
        }
    }
    let indexes: BTreeSet<u64> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(indexes, (0..480).collect());
    followers.join_all().await;
    for store in &stores {
        assert_eq!(store.entry_count().await.unwrap(), 480);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_all_processes_wins() {
    let cluster = Cluster::start();
    let stores = stores(&cluster, 4).await;
    let race = async |make: &dyn Fn(u64) -> Transaction| {
        let racing = (0..32_u64).map(|task| {
            let store = stores[usize::try_from(task % 4).unwrap()].clone();
            let transaction = make(task);
            async move { store.commit(transaction, NOW).await }
        });
        let results = futures::future::join_all(racing).await;
        results.iter().filter(|result| result.is_ok()).count()
    };
    let a = tenant(1);
    let one = |mutation: Mutation| Transaction::new().with(mutation);
    assert_eq!(race(&|_| one(put(a, 1, Expect::Absent).into())).await, 1);
    assert_eq!(race(&|_| one(put(a, 1, Expect::Revision(1)).into())).await, 1);
    let name = "n".parse().unwrap();
    assert_eq!(race(&|task| one(put(a, 100 + task, Expect::Absent).name(&name).into())).await, 1);
    assert_eq!(race(&|_| one(Mutation::PutToken(world::token(a, TOKEN)))).await, 1);
    let take = |task: u64| one(Mutation::TakePublisher { holder: ControlId::from_bytes(id(task)), until: SOON });
    assert_eq!(race(&take).await, 1);
    // A request that is repeated at another process is done once, and answered everywhere.
    let keyed = |task: u64| {
        Transaction::new().with(put(a, 200 + task, Expect::Absent)).idempotent(IdempotencyKey {
            tenant: a,
            principal: PrincipalId::from_bytes(id(5)),
            key: "k".to_owned(),
            request_hash: [1; 32],
            answer: Vec::new(),
        })
    };
    assert_eq!(race(&keyed).await, 32);
    let made = stores[0].list(a, Kind::JOB, Page::after(id(199), 100)).await.unwrap();
    assert_eq!(made.items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_commits_the_others_learn() {
    let cluster = Cluster::start();
    let stores = stores(&cluster, 2).await;
    let (here, there) = (&stores[0], &stores[1]);
    let mut watch = Box::pin(there.watch(there.latest_change()));
    let later = NOW.plus_millis(3_600_000);
    here.commit(Transaction::new().with(put(tenant(1), 1, Expect::Absent)), later).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().id, id(1));
    assert_eq!(*there.inner.latest.clone().wait_for(|latest| *latest > 0).await.unwrap(), 1);
    assert_eq!(there.latest_change(), 1);
    // The clock is everybody's: what compares times here is refused as it is there.
    let turn = Mutation::TakeLoginTurn { subject: crate::DelaySubject::Source("s".to_owned()), delays_ms: vec![0] };
    let behind = there.commit(Transaction::new().with(turn), NOW).await.unwrap_err();
    assert_eq!(behind.conflict(), Some(&Conflict::ClockBack { now: NOW, high_water: later }));
    // An operator's word at one is heard at the other.
    here.commit(Transaction::new().with(Mutation::AcceptClock), NOW).await.unwrap();
    let turn = Mutation::TakeLoginTurn { subject: crate::DelaySubject::Source("s".to_owned()), delays_ms: vec![0] };
    there.commit(Transaction::new().with(turn), NOW).await.unwrap();
    assert_eq!(there.high_water(), NOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_one_processes_at_a_time_and_a_broken_link_loses_it() {
    let cluster = Cluster::start();
    let stores = stores(&cluster, 2).await;
    let (here, there) = (&stores[0], stores[1].clone());
    let mut held = here.alone("replacing", id(1)).await.unwrap();
    held.still().await.unwrap();
    // Another name is another lock.
    drop(there.alone("replacing", id(2)).await.unwrap());
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { there.alone("replacing", id(1)).await.unwrap() });
    // It is asked for, and not given.
    let asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    while cluster.psql("swarm", asked) != "1" {
        tokio::task::yield_now().await;
    }
    assert!(waiting.try_join_next().is_none());
    held.still().await.unwrap();
    drop(held);
    let mut taken = waiting.join_next().await.unwrap().unwrap();
    taken.still().await.unwrap();
    // The server forgets a holder whose link broke: it is told when it asks.
    let holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    assert_eq!(cluster.psql("swarm", holder), "t");
    assert!(taken.still().await.is_err());
    here.alone("replacing", id(1)).await.unwrap();
}
