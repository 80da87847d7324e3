//! Numbers about a database: of one that runs, of one that was closed, of one that is none; and nothing is written for them.

use std::path::Path;

use super::{Opened, entry, put, tenant};
use crate::statistics::statistics;
use crate::{Expect, Kind, OpenError, Transaction};

fn beside(folder: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_database_is_told_in_numbers_while_it_is_used_and_after() {
    let opened = Opened::new().await;
    for number in 0..7 {
        opened.commit(Transaction::new().with(put(tenant(1), number, Expect::Absent)).entry(entry(tenant(1), number))).await.unwrap();
    }
    let path = opened.folder.path().join("swarm.db");
    let used = statistics(&path, &[Kind::SETTING]).await.unwrap();
    let found = &used.statistics;
    assert_eq!((found.schema, found.whole, found.entries, found.rows["resource"]), (found.schema_known, Some(true), 7, 7));
    assert!(found.newest_commit_ms > 0 && found.pages > 0 && found.page_bytes > 0);
    assert!(used.deployment.is_none() && used.bodies.is_empty() && used.checkpoint.is_none());
    opened.store.close().await;
    let before = beside(opened.folder.path());
    let closed = statistics(&path, &[]).await.unwrap().statistics;
    assert_eq!((closed.entries, &closed.rows), (found.entries, &found.rows));
    assert_eq!(beside(opened.folder.path()), before, "looking makes nothing");
    // Every table of the schema is counted, but those of one row, and the one that has a counter.
    let text = include_str!("../../migrations/sqlite/0001_first.sql");
    let tables: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next()).collect();
    let uncounted: Vec<&&str> = tables.iter().filter(|table| !closed.rows.contains_key(**table)).collect();
    assert_eq!(uncounted, [&"schema_version", &"counter", &"audit_entry", &"publisher"]);
}

#[tokio::test]
async fn what_is_no_database_is_told_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    assert!(statistics(&path, &[]).await.is_err());
    std::fs::write(&path, "no database at all, but long enough to have a header of one hundred bytes, which is what the engine looks at first").unwrap();
    assert!(matches!(statistics(&path, &[]).await, Err(OpenError::NotADatabase { .. })));
    assert_eq!(beside(folder.path()).len(), 1);
}
