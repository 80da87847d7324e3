//! Joining, the node's directory, and the renewal of its certificate.

use std::os::unix::fs::PermissionsExt as _;

use node::{JoinError, RunError, StoreError};
use tokio_util::sync::CancellationToken;
use vocabulary::Sha256Digest;

use crate::plane::{NODE, Plane};
use crate::world::{World, join_options, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_once_and_keeps_its_secrets_private() {
    let world = World::new().await;
    assert_eq!((world.joined.node, world.joined.name.as_str(), world.joined.audit_index), (NODE, "first", 7));
    assert_eq!(std::fs::metadata(&world.dir).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&world.dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let again = node::join(join_options(&world.plane, &world.dir)).await.unwrap_err();
    assert!(matches!(again, JoinError::Joined(_)), "{again}");
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), b"").unwrap();
    let taken = node::join(join_options(&world.plane, place.path())).await.unwrap_err();
    assert!(matches!(taken, JoinError::NotEmpty(_)), "{taken}");
    // The token of the first join is spent, and nothing is left of the try.
    let place = tempfile::tempdir().unwrap();
    let spent = node::join(join_options(&world.plane, &place.path().join("node"))).await.unwrap_err();
    assert!(spent.to_string().contains("the join token is spent"), "{spent}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pin_or_address_is_refused_before_the_token_is_sent() {
    let plane = Plane::start().await;
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("node");
    let mut options = join_options(&plane, &dir);
    options.ca_pin = Sha256Digest::from_bytes([9; 32]);
    let refused = node::join(options).await.unwrap_err();
    assert!(refused.to_string().contains("pinned"), "{refused}");
    let mut options = join_options(&plane, &dir);
    options.url = options.url.replace("https", "http");
    assert!(matches!(node::join(options).await.unwrap_err(), JoinError::Url(_)));
    assert_eq!(plane.look(|facts| facts.enrolments), 0);
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_runs_alone_and_only_where_a_node_joined() {
    let world = World::new().await;
    let agent = world.start();
    until("the first report", || world.plane.look(|facts| facts.reports.first().cloned())).await;
    let second = node::run(world.options(), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(second, RunError::Locked(_)), "{second}");
    let mut options = world.options();
    options.dir = options.dir.with_file_name("nobody");
    let absent = node::run(options, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(absent, RunError::Store(StoreError::NotJoined(_))), "{absent}");
    agent.stop().await;
    let mut options = world.options();
    options.id_base = 0;
    assert!(matches!(node::run(options, CancellationToken::new()).await.unwrap_err(), RunError::Ids));
    // A file of another format is refused, and told by its name.
    let path = world.dir.join("node.json");
    let newer = std::fs::read_to_string(&path).unwrap().replace("\"format\":1", "\"format\":2");
    std::fs::write(&path, newer).unwrap();
    let format = node::run(world.options(), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(format, RunError::Store(StoreError::Format { found: 2, .. })), "{format}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_renewed_in_time() {
    // Four of its five minutes are over when the node joins.
    let world = World::with(|facts| facts.issued = Some((240_000, identity::limits::NODE_LIFE_MIN_MS))).await;
    let before = std::fs::read(world.dir.join("tls.json")).unwrap();
    let agent = world.start();
    until("the renewal", || (std::fs::read(world.dir.join("tls.json")).unwrap() != before).then_some(())).await;
    assert_eq!(world.plane.look(|facts| facts.renewals), 1);
    // The channel goes on under the new certificate, and so does the next run of the agent.
    let job = world.job("echo renewed");
    world.plane.plan(vec![job.clone()]);
    world.ends(job.attempt).await;
    agent.stop().await;
    let agent = world.start();
    let other = world.job("echo again");
    world.plane.plan(vec![other.clone()]);
    world.ends(other.attempt).await;
    assert_eq!(world.plane.look(|facts| facts.renewals), 1);
    agent.stop().await;
}
