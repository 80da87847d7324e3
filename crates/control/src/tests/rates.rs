//! Who asks too often is told when to come back, and nobody else notices.

use vocabulary::UnixTime;

use super::support::{Tenant, World};
use crate::rate::TooOften;
use crate::clock;

/// Empties a bucket at a time that is not yet: by the clock of the requests it went back, which brings nothing.
fn drain(take: impl Fn(UnixTime) -> Result<(), TooOften>) {
    let later = clock::now().plus_millis(3_600_000);
    while take(later).is_ok() {}
}

/// Status, `Retry-After` and body of a read.
async fn ask(world: &World, token: &str) -> (u16, Option<u64>, String) {
    let response = world.http.get(format!("https://{}/v1/projects", world.server.address())).bearer_auth(token).send().await.unwrap();
    let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    (response.status().as_u16(), retry, response.text().await.unwrap())
}

fn refused((status, retry, text): (u16, Option<u64>, String), words: &str) {
    assert!(status == 429 && retry.is_some_and(|seconds| (1..=60).contains(&seconds)), "{status} {retry:?} {text}");
    assert!(text.contains("try_later") && text.contains(words), "{text}");
}

async fn principal(world: &World, tenant: &Tenant) -> vocabulary::PrincipalId {
    let token = identity::Token::parse(&tenant.token).unwrap();
    world.control().store.token(token.id()).await.unwrap().unwrap().row.principal.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_too_often_waits_and_others_do_not() {
    let world = World::start().await;
    let (acme, other) = (world.tenant("acme").await, world.tenant("other").await);
    let loud = principal(&world, &acme).await;
    let (quiet, quiet_token) = world.robot(&acme, "quiet", "viewer", "internal").await;
    let rates = &world.control().rates;

    drain(|now| rates.member(loud, acme.id, now));
    refused(ask(&world, &acme.token).await, "principal");
    assert_eq!(ask(&world, &quiet_token).await.0, 200, "the tenant has some left");
    assert_eq!(ask(&world, &other.token).await.0, 200);

    // All of a tenant together.
    drain(|now| rates.member(loud, acme.id, now));
    drain(|now| rates.member(quiet, acme.id, now));
    drain(|now| rates.member(vocabulary::PrincipalId::from_bytes([9; 16]), acme.id, now));
    refused(ask(&world, &quiet_token).await, "principal or its tenant");
    assert_eq!(ask(&world, &other.token).await.0, 200, "another tenant is served");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_refused_credentials_waits_and_good_ones_from_there_do_not() {
    let world = World::start().await;
    let acme = world.tenant("acme").await;
    let rates = &world.control().rates;
    assert_eq!(ask(&world, "swm_nonsense").await.0, 401);
    let source = "127.0.0.1";
    drain(|now| rates.refused_credential(source.to_owned(), now));
    refused(ask(&world, "swm_nonsense").await, "refused credentials");
    assert_eq!(ask(&world, &acme.token).await.0, 200, "the same address with a token that is one");
    world.server.stop().await;
}
