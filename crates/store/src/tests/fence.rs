//! The third fence: the tables themselves show a tenant's rows to that tenant's transactions only.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection};

use super::cluster::Cluster;
use super::{tenant, world};
use crate::{Store, StoreConfig};

const TABLES: [&str; 10] = [
    "resource", "change", "stream_position", "idempotency", "token", "step_up", "key_version", "volume_head", "writer_epoch", "audit_entry",
];

/// Everything in a table, as the application's user, in a transaction for these.
async fn count(connection: &mut PgConnection, scope: Option<&str>, table: &str) -> i64 {
    connection.execute("BEGIN").await.unwrap();
    if let Some(scope) = scope {
        connection.execute(AssertSqlSafe(format!("SET LOCAL swarm.tenant = '{scope}'"))).await.unwrap();
    }
    let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(&mut *connection).await.unwrap();
    connection.execute("ROLLBACK").await.unwrap();
    count
}

fn hex(tenant: vocabulary::TenantId) -> String {
    tenant.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_queries_of_the_applications_own_user_see_one_tenant() {
    let cluster = Cluster::start();
    let store = Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
    let (a, b, nobody) = (hex(tenant(1)), hex(tenant(2)), hex(tenant(3)));
    world::write(&store, tenant(1)).await;
    store.commit(crate::Transaction::new().with(super::put(tenant(2), 1, crate::Expect::Absent)), super::NOW).await.unwrap();
    let mut raw = crate::engine::postgres::session(&cluster.url(), None).connect().await.unwrap();
    for table in TABLES {
        // No condition in the query: the fence alone.
        let all: i64 = cluster.psql("swarm", &format!("SELECT count(*) FROM swarm.{table}")).parse().unwrap();
        let mine: i64 = cluster.psql("swarm", &format!("SELECT count(*) FROM swarm.{table} WHERE tenant = '\\x{a}'")).parse().unwrap();
        assert!(mine > 0, "{table}");
        assert_eq!(count(&mut raw, Some(&a), table).await, mine, "{table}");
        assert_eq!(count(&mut raw, Some(&nobody), table).await, 0, "{table}");
        // Who says nothing sees nothing, and the deployment's own statements see all.
        assert_eq!(count(&mut raw, None, table).await, 0, "{table}");
        assert_eq!(count(&mut raw, Some(""), table).await, 0, "{table}");
        assert_eq!(count(&mut raw, Some("*"), table).await, all, "{table}");
        // What is changed or removed is the tenant's own too.
        for (scope, expected) in [(&nobody, 0), (&a, mine)] {
            raw.execute("BEGIN").await.unwrap();
            raw.execute(AssertSqlSafe(format!("SET LOCAL swarm.tenant = '{scope}'"))).await.unwrap();
            let gone = raw.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap();
            assert_eq!(i64::try_from(gone.rows_affected()).unwrap(), expected, "{table}");
            raw.execute("ROLLBACK").await.unwrap();
        }
    }
    assert_eq!(count(&mut raw, Some(&b), "resource").await, 1);
    // No row is written or moved into another tenant.
    for statement in [
        format!("INSERT INTO stream_position (tenant, kind, id, value) VALUES ('\\x{b}', 'job', '\\x00', 1)"),
        format!("UPDATE resource SET tenant = '\\x{b}'"),
    ] {
        raw.execute("BEGIN").await.unwrap();
        raw.execute(AssertSqlSafe(format!("SET LOCAL swarm.tenant = '{a}'"))).await.unwrap();
        let refused = raw.execute(AssertSqlSafe(statement.clone())).await.unwrap_err();
        assert!(refused.to_string().contains("row-level security"), "{statement}: {refused}");
        raw.execute("ROLLBACK").await.unwrap();
    }
    // The word ends with its transaction.
    assert_eq!(count(&mut raw, None, "resource").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_with_a_tenant_is_fenced() {
    let cluster = Cluster::start();
    let store = Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
    let fenced = cluster.psql(
        "swarm",
        "SELECT c.relname FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant'
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'swarm' AND c.relkind = 'r' ORDER BY 1",
    );
    let mut tables = TABLES.to_vec();
    tables.sort_unstable();
    assert_eq!(fenced.lines().collect::<Vec<_>>(), tables);
    let open = cluster.psql(
        "swarm",
        "SELECT c.relname FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant'
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'swarm' AND c.relkind = 'r'
         AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
    );
    assert_eq!(open, "");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_everything_is_written_and_read_behind_the_fence() {
    let cluster = Cluster::start();
    let store = Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
    world::write(&store, tenant(1)).await;
    world::read(&store, tenant(1)).await;
    world::provoke(&store, tenant(1)).await;
    store.close().await;
    let store = Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
    world::read(&store, tenant(1)).await;
}
