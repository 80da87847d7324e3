//! The counts in the log: they hold for what is shown, and are written only where something is new.

use audit::completeness::{Completeness, Count, judge};
use vocabulary::SYSTEM_OWNER;
use vocabulary::api::{AuditEntry, Page};

use super::support::{Tenant, World};
use crate::clock;

async fn shown(world: &World, tenant: &Tenant) -> (Vec<u64>, Vec<Count>) {
    let page: Page<AuditEntry> = world.get("/v1/audit?limit=1000", &tenant.token).await.unwrap();
    let counts = page.items.iter().filter_map(|entry| {
        let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap();
        let event = &body["unmapped"]["swarm"]["event"];
        (event["kind"] == "entries_counted").then(|| Count { below: event["below"].as_u64().unwrap(), count: event["count"].as_u64().unwrap() })
    });
    (page.items.iter().map(|entry| entry.index).collect(), counts.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenants_entries_are_counted_and_the_counts_hold() {
    let world = World::start().await;
    let (acme, beta) = (world.tenant("acme").await, world.tenant("beta").await);
    let count = async || crate::count::every_tenant(world.control(), clock::now()).await.unwrap();
    assert_eq!(judge(&shown(&world, &acme).await.0, &[]), Completeness::NotCounted);
    count().await;
    // Nothing new but the count itself: none is written.
    count().await;
    for tenant in [&acme, &beta] {
        let (indexes, counts) = shown(&world, tenant).await;
        assert_eq!(counts.len(), 1);
        assert!(matches!(judge(&indexes, &counts), Completeness::Complete { .. }));
    }
    let _: serde_json::Value = world.post("/v1/projects", &acme.token, &serde_json::json!({"name": "second"})).await.unwrap();
    count().await;
    let (indexes, counts) = shown(&world, &acme).await;
    assert_eq!((counts.len(), shown(&world, &beta).await.1.len()), (2, 1));
    let Completeness::Complete { below } = judge(&indexes, &counts) else { panic!("{indexes:?} {counts:?}") };
    // Each entry below the count, the older count among them, would be missed.
    for gone in indexes.iter().filter(|index| **index < below) {
        let rest: Vec<u64> = indexes.iter().copied().filter(|index| index != gone).collect();
        assert!(matches!(judge(&rest, &counts), Completeness::Contradicted { .. }), "without {gone}");
    }
    assert!(!world.entries_of(SYSTEM_OWNER, "entries_counted").await.is_empty(), "the platform's own are counted, too");
    world.server.stop().await;
}
