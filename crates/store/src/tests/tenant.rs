//! Another tenant's row never appears, changes or vanishes: each statement, bound with the wrong tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use futures::StreamExt;
use sqlx::Row as _;

use super::{Opened, tenant, world};
use crate::engine::{Bind, Ran, Recorder, Writing};
use crate::sql::{ALL, Statement};

/// Where the rows of tenants lie.
const TABLES: [(&str, &str); 10] = [
    ("resource", "SELECT * FROM resource WHERE tenant = $1 ORDER BY kind, id"),
    ("change", "SELECT * FROM change WHERE tenant = $1 ORDER BY seq"),
    ("stream_position", "SELECT * FROM stream_position WHERE tenant = $1 ORDER BY kind, id"),
    ("idempotency", "SELECT * FROM idempotency WHERE tenant = $1 ORDER BY principal, key"),
    ("token", "SELECT * FROM token WHERE tenant = $1 ORDER BY id"),
    ("step_up", "SELECT * FROM step_up WHERE tenant = $1 ORDER BY id"),
    ("key_version", "SELECT * FROM key_version WHERE tenant = $1 ORDER BY id, version"),
    ("volume_head", "SELECT * FROM volume_head WHERE tenant = $1 ORDER BY volume"),
    ("writer_epoch", "SELECT * FROM writer_epoch WHERE tenant = $1 ORDER BY volume, epoch"),
    ("audit_entry", "SELECT * FROM audit_entry WHERE tenant = $1 ORDER BY idx"),
];

/// All rows of a tenant, as text.
async fn dump(writing: &mut Writing, tenant: &[u8]) -> BTreeMap<&'static str, Vec<String>> {
    let mut tables = BTreeMap::new();
    for (table, select) in TABLES {
        let rows = sqlx::query(select).bind(tenant).fetch_all(writing.file().unwrap()).await.unwrap();
        let text = |row: &sqlx::sqlite::SqliteRow| {
            (0..row.len()).fold(String::new(), |mut text, column| {
                if let Ok(bytes) = row.try_get::<Option<Vec<u8>>, _>(column) {
                    write!(text, "{bytes:?}|").unwrap();
                } else if let Ok(number) = row.try_get::<i64, _>(column) {
                    write!(text, "{number}|").unwrap();
                } else {
                    write!(text, "{:?}|", row.try_get::<String, _>(column).unwrap()).unwrap();
                }
                text
            })
        };
        tables.insert(table, rows.iter().map(text).collect());
    }
    tables
}

/// Everything that ran, on a database in which only `a` has rows; and the database, opened bare.
async fn ran(a: vocabulary::TenantId) -> (Vec<Ran>, Writing, tempfile::TempDir) {
    let opened = Opened::new().await;
    world::write(&opened.store, a).await;
    world::read(&opened.store, a).await;
    world::volume(&opened.store, a).await;
    world::provoke(&opened.store, a).await;
    assert!(Box::pin(opened.store.watch(0)).next().await.unwrap().is_ok());
    let seen = opened.store.inner.reading.recorder.seen.clone();
    opened.store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(opened.folder.path().join("swarm.db"));
    let connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    (seen, Writing::sqlite(connection, Recorder::default()), opened.folder)
}

#[tokio::test]
async fn each_statement_bound_with_another_tenant_touches_nothing() {
    let (a, b) = (tenant(1), tenant(2));
    let (seen, mut writing, _folder) = ran(a).await;
    let before = dump(&mut writing, a.as_bytes()).await;
    assert!(before.iter().all(|(_, rows)| !rows.is_empty()), "every table has rows of the tenant");

    let ours = Bind::from(a.as_bytes());
    let (mut run, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (statement, binds) in &seen {
        run.insert(statement.name);
        // What is the deployment's own (people's factors, revocations) is no tenant's.
        if statement.exempt.is_some() || binds.first() == Some(&Bind::from(vocabulary::SYSTEM_OWNER.as_bytes())) {
            continue;
        }
        assert_eq!(binds.first(), Some(&ours), "{}: the tenant is the first placeholder", statement.name);
        let reads = statement.text.starts_with("SELECT");
        if reads && !writing.rows(*statement, binds.clone()).await.unwrap().is_empty() {
            found.insert(statement.name);
        }
        let mut swapped = binds.clone();
        swapped[0] = Bind::from(b.as_bytes());
        writing.begin().await.unwrap();
        let rows = writing.rows(*statement, swapped).await;
        match &rows {
            // A sum over no rows is one row, of nothing.
            Ok(rows) if statement.name == "WRITER_NEWEST" => assert_eq!(rows[0].number(0), Ok(0)),
            // What is made is the other tenant's own.
            Ok(_) if statement.text.starts_with("INSERT") => {}
            Ok(rows) => assert!(rows.is_empty(), "{} shows a row of another tenant", statement.name),
            Err(error) => assert!(statement.text.starts_with("INSERT"), "{}: {error}", statement.name),
        }
        assert_eq!(dump(&mut writing, a.as_bytes()).await, before, "{}", statement.name);
        writing.abandon().await;
    }
    let all: BTreeSet<&str> = ALL.iter().map(|statement| statement.name).collect();
    assert_eq!(all.difference(&run).collect::<Vec<_>>(), Vec::<&&str>::new(), "statements that nothing ran");
    // With the right tenant they do find something, so that finding nothing says something.
    let reads = |statement: &&Statement| statement.exempt.is_none() && statement.text.starts_with("SELECT");
    for statement in ALL.iter().filter(reads) {
        assert!(found.contains(statement.name), "{} found nothing at all", statement.name);
    }
}

#[test]
fn exceptions_are_the_golden_list() {
    let mut list = String::from("# Statements that do not name the tenant as $1, and why. Made by the test that reads it.\n");
    for statement in ALL {
        if let Some(reason) = statement.exempt {
            writeln!(list, "{}: {reason}", statement.name).unwrap();
        }
    }
    let golden = include_str!("../../testdata/exempt-statements.txt");
    assert!(list == golden, "think, then write this into testdata/exempt-statements.txt:\n{list}");
}

#[test]
fn statements_are_of_the_common_tongue() {
    for Statement { name, text, exempt } in ALL {
        for word in ["?", " LIKE ", "AUTOINCREMENT", "REPLACE INTO", "now(", "FOR UPDATE", "= 1 ", "json_", "||", "GLOB"] {
            assert!(!text.contains(word) || *word == *"= 1 " && text.contains("uses_left = 1 "), "{name} has {word}");
        }
        let scoped = text.contains("tenant = $1") || text.contains("(tenant, ") && text.contains("VALUES ($1,");
        assert_eq!(scoped, exempt.is_none(), "{name}");
        // The tenant is the first condition, and nothing stands beside it: `(tenant = $1 OR …)` is no condition.
        if scoped && !text.starts_with("INSERT") {
            let text = text.replace(" w.tenant = $1", " tenant = $1");
            let first = text.split_once("WHERE tenant = $1").map(|(_, rest)| rest);
            let words = first.map(|rest| rest.split_whitespace().next());
            let joined = words.is_some_and(|word| matches!(word, None | Some("AND" | "ORDER" | "GROUP" | "LIMIT")));
            assert!(joined, "{name} does not begin its conditions with the tenant");
        }
    }
}

/// A statement that was run before may find nothing left to do, so this one meets a row that it would change.
#[tokio::test]
async fn a_token_is_not_touched_by_another_tenant() {
    let (a, b) = (tenant(1), tenant(2));
    let opened = Opened::new().await;
    let token = world::token(a, world::TOKEN);
    let put = crate::Transaction::new().with(crate::Mutation::PutToken(token));
    opened.store.commit(put, super::NOW).await.unwrap();
    let touch = |tenant| crate::Transaction::new().with(crate::Mutation::TouchToken { tenant, id: world::TOKEN });
    let _refused = opened.store.commit(touch(b), super::NOW.plus_millis(1)).await;
    assert_eq!(opened.store.token(world::TOKEN).await.unwrap().unwrap().last_used, None);
    opened.store.commit(touch(a), super::NOW.plus_millis(2)).await.unwrap();
    assert_eq!(opened.store.token(world::TOKEN).await.unwrap().unwrap().last_used, Some(super::NOW.plus_millis(2)));
}
