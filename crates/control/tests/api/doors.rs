//! Tickets, codes, confirmations and tokens: each works once, for one thing, and no longer than it should.

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use super::support::{Ask, PASSWORD, Person, Running, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_works_once() {
    let mut server = Running::start().await;
    let ticket = server.ticket();
    // Looking does not spend it.
    for _ in 0..2 {
        server.ask(None, Ask::post("/v1/enrolments", json!({ "ticket": ticket }))).await.good();
    }
    let person = Person::enrol(&server, &ticket).await;
    let code = person.code_of(super::support::now().seconds() / 30);
    server.ask(None, Ask::post("/v1/enrolments", json!({ "ticket": ticket }))).await.refused(401, "ticket_refused");
    let again = json!({ "ticket": ticket, "password": "another-pass-77!", "code": code });
    server.ask(None, Ask::post("/v1/enrolments/complete", again)).await.refused(401, "ticket_refused");
    // The factors are still the first ones.
    let login = json!({ "name": "ada", "password": PASSWORD, "code": code, "as": "operator" });
    server.ask(None, Ask::post("/v1/login", login)).await.good();
    let mut flipped = ticket.clone();
    let last = flipped.pop().unwrap();
    flipped.push(if last == 'A' { 'B' } else { 'A' });
    for wrong in ["", "swm_enr_", &flipped, &ticket.to_uppercase(), &format!(" {ticket}")] {
        server.ask(None, Ask::post("/v1/enrolments", json!({ "ticket": wrong }))).await.refused(401, "ticket_refused");
    }
    // A ticket is no credential of the API.
    server.ask(Some(&ticket), Ask::get("/v1/whoami")).await.refused(401, "unauthenticated");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_spends_the_ticket() {
    let mut server = Running::start().await;
    let ticket = server.ticket();
    let offer = server.ask(None, Ask::post("/v1/enrolments", json!({ "ticket": ticket }))).await.good();
    assert_eq!(offer["name"], "ada");
    // Wrong codes and weak passwords spend nothing.
    for body in [
        json!({ "ticket": ticket, "password": PASSWORD, "code": "000000" }),
        json!({ "ticket": ticket, "password": "short", "code": "000000" }),
    ] {
        server.ask(None, Ask::post("/v1/enrolments/complete", body)).await.refused(400, "invalid_request");
    }
    Person::enrol(&server, &ticket).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_works_once() {
    let mut server = Running::start().await;
    let ticket = server.ticket();
    let mut person = Person::enrol(&server, &ticket).await;
    let code = person.code().await;
    let body = |name: &str, password: &str, code: &str| json!({ "name": name, "password": password, "code": code, "as": "operator" });
    server.ask(None, Ask::post("/v1/login", body("ada", PASSWORD, &code))).await.good();
    let replay = server.ask(None, Ask::post("/v1/login", body("ada", PASSWORD, &code))).await.refused(401, "login_refused");
    // Wrong name, wrong password, spent code: one answer.
    let next = person.code_of(super::support::now().seconds() / 30 + 1);
    let wrong = server.ask(None, Ask::post("/v1/login", body("ada", "wrong-password-9", &next))).await.refused(401, "login_refused");
    let unknown = server.ask(None, Ask::post("/v1/login", body("eve", PASSWORD, &next))).await.refused(401, "login_refused");
    assert_eq!((&replay, &replay), (&wrong, &unknown));
    server.stop().await;
}

/// A confirmation is for one request of one login, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_is_bound_to_its_request() {
    let mut world = World::new().await;
    let invite = |name: &str| Ask::post("/v1/users", json!({ "name": name, "roles": ["viewer"], "clearance": "internal" }));
    let asked = world.alice(invite("dave")).await.refused(403, "step_up_required");
    let id = asked["step_up"]["id"].as_str().unwrap().to_owned();
    // Not confirmed yet.
    assert_eq!(world.alice(invite("dave").header("swarm-step-up", &id)).await.status, StatusCode::FORBIDDEN);
    // Somebody else cannot confirm it, and a wrong code does not.
    let confirm = |code: &str| Ask::post(format!("/v1/step-ups/{id}"), json!({ "code": code }));
    world.bob(confirm("000000")).await.refused(404, "not_found");
    world.alice(confirm("000000")).await.refused(403, "step_up_refused");
    let code = world.alice.code().await;
    world.alice(confirm(&code)).await.good();

    let refused = async |token: Option<&str>, ask: Ask, what: &str| {
        let answer = world.server.ask(token, ask.header("swarm-step-up", &id)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.text());
        assert!(["step_up_required", "step_up_refused"].contains(&answer.code().as_str()), "{what}: {}", answer.text());
    };
    let (alice, bob) = (Some(world.alice_token.as_str()), Some(world.bob_token.as_str()));
    refused(alice, invite("mallory"), "another name").await;
    let admin = Ask::post("/v1/users", json!({ "name": "dave", "roles": ["admin"], "clearance": "internal" }));
    refused(alice, admin, "another role").await;
    refused(alice, Ask::new("POST", "/v1/tenant-key/rotate"), "another route").await;
    refused(bob, invite("dave"), "another person").await;
    // Another login of the same person.
    let other = world.alice(Ask::post("/v1/tokens", json!({ "lifetime_s": 600, "note": "other" }))).await.good();
    let other = other["token"].as_str().unwrap().to_owned();
    let answer = world.server.ask(Some(&other), invite("dave").header("swarm-step-up", &id)).await;
    assert!(!answer.status.is_success(), "{}", answer.text());
    // Whitespace and order are not what it is bound to; the content is.
    let same = Ask::new("POST", "/v1/users")
        .raw("{ \"clearance\":\"internal\",\n \"roles\":[\"viewer\"], \"name\":\"dave\" }")
        .header("content-type", "application/json")
        .header("swarm-step-up", &id);
    assert!(world.alice(same).await.status.is_success());
    // Spent.
    let replay = world.alice(invite("dave").header("swarm-step-up", &id)).await;
    assert_eq!(replay.status, StatusCode::FORBIDDEN, "{}", replay.text());
    let names = world.alice(Ask::get("/v1/principals")).await.text();
    assert!(names.contains("dave") && !names.contains("mallory"));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_that_spend_a_confirmation_one_wins() {
    let mut world = World::new().await;
    let rotate = || Ask::new("POST", "/v1/tenant-key/rotate");
    let asked = world.alice(rotate()).await.refused(403, "step_up_required");
    let id = asked["step_up"]["id"].as_str().unwrap().to_owned();
    let code = world.alice.code().await;
    world.alice(Ask::post(format!("/v1/step-ups/{id}"), json!({ "code": code }))).await.good();
    let answers = join_all((0..32).map(|_| world.alice(rotate().header("swarm-step-up", &id)))).await;
    let won = answers.iter().filter(|answer| answer.status.is_success()).count();
    assert_eq!(won, 1, "{:?}", answers.iter().map(|answer| answer.text()).collect::<Vec<_>>());
    for answer in answers.iter().filter(|answer| !answer.status.is_success()) {
        assert!([403, 409].contains(&answer.status.as_u16()), "{}", answer.text());
    }
    world.server.stop().await;
}

/// A revoked token is refused on the very next request, on connections that are open already.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_at_once() {
    let world = World::new().await;
    let made = world.alice(Ask::post("/v1/tokens", json!({ "lifetime_s": 600, "note": "short" }))).await.good();
    let (id, token) = (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
    // A client of its own: its connection is open and warm when the token is revoked.
    let (other, _) = super::support::client(world.server.server.as_ref().unwrap());
    let url = format!("{}/v1/whoami", world.server.url);
    let status = async || other.get(&url).bearer_auth(&token).send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 200);
    world.alice(Ask::new("DELETE", format!("/v1/tokens/{id}"))).await.good();
    assert_eq!(status().await, 401);
    assert!(world.alice(Ask::get("/v1/whoami")).await.status.is_success());
    // Revoked stays revoked: also after a restart.
    let World { server, alice_token, .. } = world;
    let folder = server.stop().await;
    let server = Running::start_in(folder).await.unwrap();
    server.ask(Some(&token), Ask::get("/v1/whoami")).await.refused(401, "unauthenticated");
    server.ask(Some(&alice_token), Ask::get("/v1/whoami")).await.good();
    let out = server.ask(Some(&alice_token), Ask::new("POST", "/v1/logout")).await;
    assert!(out.status.is_success(), "{}", out.text());
    server.ask(Some(&alice_token), Ask::get("/v1/whoami")).await.refused(401, "unauthenticated");
    server.stop().await;
}

/// Under load: once the revocation is answered, no request succeeds any more.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_succeeds_after_its_token_was_revoked() {
    let world = World::new().await;
    let made = world.alice(Ask::post("/v1/tokens", json!({ "lifetime_s": 600, "note": "busy" }))).await.good();
    let (id, token) = (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
    let revoked = std::sync::atomic::AtomicBool::new(false);
    let (world, token, revoked) = (&world, token.as_str(), &revoked);
    let busy = join_all((0..8).map(|_| async move {
        let mut good = 0;
        loop {
            let after = revoked.load(std::sync::atomic::Ordering::SeqCst);
            let answer = world.server.ask(Some(token), Ask::get("/v1/whoami")).await;
            if answer.status.as_u16() == 401 {
                return good;
            }
            assert!(!after, "a request that began after the revocation succeeded");
            good += 1;
        }
    }));
    let revoke = async {
        world.alice(Ask::get("/v1/whoami")).await.good();
        world.alice(Ask::new("DELETE", format!("/v1/tokens/{id}"))).await.good();
        revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let (counts, ()) = futures::future::join(busy, revoke).await;
    assert!(counts.iter().sum::<usize>() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_logins_are_delayed_whatever_the_name_is_dressed_as() {
    let mut world = World::new().await;
    let name = world.alice.name.clone();
    let dressed = [name.to_uppercase(), format!(" {name}"), format!("{name}  "), name.clone()];
    let attempt = |name: &str| Ask::post("/v1/login", json!({ "name": name, "password": "not the password at all", "code": "123456", "as": null }));
    let mut tries = dressed.iter().cycle();
    let mut refused = 0;
    // Each dress counts for the one person: after a few failures the next is told to wait.
    let delayed = loop {
        let answer = world.server.ask(None, attempt(tries.next().unwrap())).await;
        if answer.code() == "try_later" {
            break answer;
        }
        assert_eq!(answer.code(), "login_refused");
        refused += 1;
        assert!(refused < 20, "nothing delays guessing");
    };
    assert_eq!(delayed.status.as_u16(), 429);
    assert!(delayed.headers.get("retry-after").is_some(), "it says when to come back");
    // A delay may lapse on a slow machine; the next failure then brings a longer one, where a count of its own would begin anew.
    assert!(refused > 1, "one failure tells no count from another");
    for name in &dressed {
        let mut left = refused;
        while world.server.ask(None, attempt(name)).await.code() != "try_later" {
            left -= 1;
            assert!(left > 0, "`{name}` counts for itself");
        }
    }
    // Others are not locked out by it, and a recovery code skips the person's delay.
    world.server.ask(None, attempt("somebody-else")).await.refused(401, "login_refused");
    let tenant = json!({ "tenant": "acme" });
    assert!(world.alice.login(&world.server, tenant).await.starts_with("swm_ses_"));
}
