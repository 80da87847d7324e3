//! Following: every change once, in order, none missing.

use std::sync::Arc;

use futures::StreamExt;
use tokio::task::JoinSet;

use super::{Engine, Opened, id, put, tenant};
use crate::{Expect, Kind, Mutation, Transaction, WatchError};

both! { followers_see_every_change_in_order_while_writers_write, a_follower_from_before_what_was_forgotten_is_told, following_ends_with_the_store }

async fn followers_see_every_change_in_order_while_writers_write(engine: Engine) {
    let opened = Arc::new(Opened::on(engine).await);
    opened.commit(Transaction::new().with(put(tenant(9), 1, Expect::Absent))).await.unwrap();
    let mut followers = JoinSet::new();
    for since in [0, 0, 1] {
        let watch = opened.store.watch(since);
        followers.spawn(async move {
            let seen: Vec<_> = watch.take(401 - usize::try_from(since).unwrap()).map(Result::unwrap).collect().await;
            assert!(seen.iter().map(|change| change.seq).eq(since + 1..=401));
            seen
        });
    }
    let mut writers = JoinSet::new();
    for task in 0..8_u64 {
        let opened = Arc::clone(&opened);
        writers.spawn(async move {
            for round in 0..25 {
                let number = 100 + task * 100 + round;
                let two = Transaction::new().with(put(tenant(task), number, Expect::Absent));
                opened.commit(two.with(put(tenant(task), number, Expect::Revision(1)))).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let all = followers.join_all().await;
    assert_eq!(all[0].last(), all[2].last());
    let last = all[0].last().unwrap();
    assert_eq!((last.kind.as_str(), last.revision, last.deleted), ("job", 2, false));
}

async fn a_follower_from_before_what_was_forgotten_is_told(engine: Engine) {
    let opened = Opened::on(engine).await;
    for number in 1..=5 {
        opened.commit(Transaction::new().with(put(tenant(1), number, Expect::Absent))).await.unwrap();
    }
    assert!(opened.commit(Transaction::new().with(Mutation::PruneChanges { through: 5 })).await.is_err());
    opened.commit(Transaction::new().with(Mutation::PruneChanges { through: 3 })).await.unwrap();
    let mut old = Box::pin(opened.store.watch(1));
    assert!(matches!(old.next().await, Some(Err(WatchError::Forgotten { floor: 3 }))));
    assert!(old.next().await.is_none());
    let mut new = Box::pin(opened.store.watch(3));
    assert_eq!(new.next().await.unwrap().unwrap().id, id(4));
    let mut ahead = Box::pin(opened.store.watch(6));
    assert!(matches!(ahead.next().await, Some(Err(WatchError::Ahead { since: 6, latest: 5 }))));
    // The counters still agree with what is left.
    let opened = opened.again().await;
    assert_eq!(opened.store.latest_change(), 5);
}

async fn following_ends_with_the_store(engine: Engine) {
    let opened = Opened::on(engine).await;
    opened.commit(Transaction::new().with(put(tenant(1), 1, Expect::Absent))).await.unwrap();
    let mut watch = Box::pin(opened.store.watch(0));
    assert_eq!(watch.next().await.unwrap().unwrap().kind, Kind::JOB.as_str());
    let store = opened.store.clone();
    let (next, ()) = tokio::join!(watch.next(), async move { store.close().await });
    // The reader pool may be closed first: then the end is an error, but never a hang.
    assert!(next.is_none_or(|item| item.is_err()));
}
