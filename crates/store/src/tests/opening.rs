//! Opening: old, new, foreign, damaged and mixed-up databases.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};

use super::{NOW, Opened, body, config, put, tenant, world};
use crate::{Expect, Kind, OpenError, Page, Put, Store, StoreConfig, Transaction};

/// The database that version 1 of the schema left, made by `golden_database` below.
const GOLDEN: &[u8] = include_bytes!("../../testdata/version-1.db");

/// The file.
fn path(config: &StoreConfig) -> &Path {
    let crate::Database::Sqlite(file) = &config.database else { panic!("not a file") };
    &file.path
}

async fn bare(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn change(path: &Path, statement: &'static str) {
    let mut connection = bare(path).await;
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

/// A database with a few pages, closed.
async fn some() -> (tempfile::TempDir, StoreConfig) {
    let opened = Opened::new().await;
    for number in 0..300 {
        opened.commit(Transaction::new().with(put(tenant(1), number, Expect::Absent))).await.unwrap();
    }
    opened.store.close().await;
    let config = config(&opened.folder);
    // Closed means: all of it is in the one file.
    assert!(!opened.folder.path().join("swarm.db-wal").exists());
    (opened.folder, config)
}

/// Puts a file back without what earlier attempts left beside it.
fn put_back(path: &Path, bytes: &[u8]) {
    for beside in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        drop(std::fs::remove_file(name));
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening() {
    let opened = Opened::new().await;
    world::write(&opened.store, tenant(1)).await;
    let opened = opened.again().await;
    world::read(&opened.store, tenant(1)).await;
}

#[tokio::test]
async fn the_database_of_version_1_opens_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("swarm.db"), GOLDEN).unwrap();
    let store = Store::open(config(&folder)).await.unwrap();
    world::read(&store, tenant(1)).await;
    store.commit(Transaction::new().with(put(tenant(1), 500, Expect::Absent)), NOW).await.unwrap();
    store.close().await;
    // Migrated, it has the tables of a new one.
    let new = Opened::new().await;
    new.store.close().await;
    let schema = async |path: &Path| {
        let select = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name";
        let rows = sqlx::query_scalar::<_, String>(select).fetch_all(&mut bare(path).await).await.unwrap();
        rows.join("\n")
    };
    assert_eq!(schema(path(&config(&folder))).await, schema(path(&config(&new.folder))).await);
}

/// Makes `testdata/version-1.db`; run by hand, once per version of the schema.
#[tokio::test]
#[ignore = "writes the golden database of the present schema"]
async fn golden_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(&config(&folder)).to_owned();
    // Small pages make a small file.
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let options = options.page_size(512).journal_mode(SqliteJournalMode::Wal);
    sqlx::Connection::close(options.connect().await.unwrap()).await.unwrap();
    let store = Store::open(config(&folder)).await.unwrap();
    world::write(&store, tenant(1)).await;
    store.close().await;
    std::fs::copy(path, concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/version-1.db")).unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let (_folder, config) = some().await;
    change(path(&config), "INSERT INTO schema_version (version, applied) VALUES (99, 0)").await;
    let before = std::fs::read(path(&config)).unwrap();
    let error = Store::open(config.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, known: 1 }), "{error:?}");
    assert!(error.to_string().contains("start the newer version"));
    assert_eq!(std::fs::read(path(&config)).unwrap(), before);
}

#[tokio::test]
async fn foreign_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    for garbage in [&b"#!/bin/sh\necho this is no database at all\n"[..], &[0; 4096], &[0xff; 100_000]] {
        std::fs::write(path(&config), garbage).unwrap();
        let error = Store::open(config.clone()).await.unwrap_err();
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
        assert_eq!(std::fs::read(path(&config)).unwrap(), garbage);
    }
    std::fs::remove_file(path(&config)).unwrap();
    change(path(&config), "CREATE TABLE notes (text TEXT)").await;
    let error = Store::open(config.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
    // Too short for anything.
    std::fs::write(path(&config), b"SQLite").unwrap();
    assert!(matches!(Store::open(config).await, Err(OpenError::Corrupt { .. })));
}

#[tokio::test]
async fn damage_is_found_before_anything_is_served() {
    let (_folder, config) = some().await;
    let whole = std::fs::read(path(&config)).unwrap();
    // Cut anywhere.
    for length in [50, 99, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        put_back(path(&config), &whole[..length]);
        let error = Store::open(config.clone()).await.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "cut to {length}: {error:?}");
        assert!(error.to_string().contains("restore the newest backup"));
    }
    // Overwritten pages: the header's own fields, the root of the schema, pages in the middle.
    let mut found = 0;
    for page in 0..(whole.len() / 4096).min(40) {
        put_back(path(&config), &whole);
        let mut file = std::fs::OpenOptions::new().write(true).open(path(&config)).unwrap();
        file.seek(SeekFrom::Start(page as u64 * 4096 + if page == 0 { 100 } else { 0 })).unwrap();
        file.write_all(&[0xa5; 2000]).unwrap();
        drop(file);
        match Store::open(config.clone()).await {
            Err(OpenError::Corrupt { .. }) => found += 1,
            Err(other) => panic!("page {page}: {other:?}"),
            // A page that nothing uses: then all is as it was.
            Ok(store) => {
                let listed = store.list(tenant(1), Kind::JOB, Page::default()).await.unwrap();
                assert_eq!((listed.items.len(), store.latest_change()), (300, 300), "page {page}");
                store.close().await;
            }
        }
    }
    assert!(found > 10, "only {found} pages");
    put_back(path(&config), &whole);
    assert_eq!(Store::open(config).await.unwrap().list(tenant(1), Kind::JOB, Page::default()).await.unwrap().items.len(), 300);
}

#[tokio::test]
async fn rows_that_contradict_the_counters_are_refused() {
    for statement in [
        "UPDATE counter SET value = value - 1 WHERE name = 'change'",
        "UPDATE counter SET value = 7 WHERE name = 'audit'",
        "DELETE FROM change WHERE seq > 200",
        "DELETE FROM counter WHERE name = 'clock'",
    ] {
        let (_folder, config) = some().await;
        change(path(&config), statement).await;
        let error = Store::open(config).await.unwrap_err();
        assert!(matches!(error, OpenError::Contradiction { .. }), "{statement}: {error:?}");
    }
}

#[tokio::test]
async fn one_process_owns_the_file_and_nobody_else_reads_it() {
    let opened = Opened::new().await;
    let error = Store::open(config(&opened.folder)).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    for entry in std::fs::read_dir(opened.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
    let missing = Store::open(StoreConfig::new(opened.folder.path().join("no/such/folder.db"))).await.unwrap_err();
    assert!(matches!(missing, OpenError::Io { .. }), "{missing:?}");
}

#[tokio::test]
async fn rows_of_a_wrong_type_are_refused_by_the_tables_themselves() {
    let (_folder, config) = some().await;
    let mut connection = bare(path(&config)).await;
    for statement in [
        "INSERT INTO counter (name, value) VALUES ('x', 'text')",
        "UPDATE resource SET deleted = 2",
        "UPDATE resource SET body = NULL",
        "UPDATE resource SET tenant = 'text'",
    ] {
        assert!(sqlx::raw_sql(statement).execute(&mut connection).await.is_err(), "{statement}");
    }
}

#[tokio::test]
async fn a_body_of_another_shape_is_an_error_that_names_the_kind() {
    let opened = Opened::new().await;
    let put = Put::json(tenant(1), Kind::IMAGE, super::id(1), Expect::Absent, &body("x")).unwrap();
    opened.commit(Transaction::new().with(put)).await.unwrap();
    #[derive(Debug, serde::Deserialize)]
    struct Other {
        #[expect(dead_code, reason = "only its absence matters")]
        elsewhere: u64,
    }
    let error = opened.store.get_json::<Other>(tenant(1), Kind::IMAGE, super::id(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the body of a `image` cannot be read");
}
