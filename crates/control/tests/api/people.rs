//! Who comes into a tenant: tickets, names that somebody else took first, and confirmations under attack.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::routes::fits_the_document;
use super::support::{Answer, Ask, PASSWORD, Person, Running, World, now};

fn invite(name: &str, role: &str) -> Ask {
    Ask::post("/v1/users", json!({ "name": name, "roles": [role], "clearance": "internal" }))
}

fn ticket(answer: &Value) -> String {
    answer["ticket"].as_str().unwrap_or_else(|| panic!("no ticket: {answer}")).to_owned()
}

async fn begin(server: &Running, ticket: &str) -> Answer {
    server.ask(None, Ask::post("/v1/enrolments", json!({ "ticket": ticket }))).await
}

async fn complete(server: &Running, ticket: &str, password: &str, code: &str) -> Answer {
    let body = json!({ "ticket": ticket, "password": password, "code": code });
    server.ask(None, Ask::post("/v1/enrolments/complete", body)).await
}

async fn state(world: &World, name: &str) -> Value {
    let list = world.alice(Ask::get("/v1/principals")).await.good();
    list["items"].as_array().unwrap().iter().find(|principal| principal["name"] == name).map_or(Value::Null, |principal| principal["invited"].clone())
}

/// The administrator of `beta` takes a name, enrols under it, and waits until `acme` invites the person who really has it.
#[tokio::test(flavor = "multi_thread")]
async fn who_took_a_name_elsewhere_gains_nothing() {
    let mut world = World::new().await;
    let squatted = world.bob.confirmed(&world.server, &world.bob_token, invite("drsmith", "viewer")).await.good();
    let squatted = ticket(&squatted);
    let mut mallory = Person::enrol(&world.server, &squatted).await;
    let invited = ticket(&world.confirmed(invite("drsmith", "engineer")).await.good());
    assert_eq!(state(&world, "drsmith").await, true);
    // Mallory has the name and its factors, and is nobody in `acme`: not by name, and not by being counted.
    mallory.try_login(&world.server, json!({ "tenant": "acme" })).await.refused(403, "forbidden");
    let token = mallory.login(&world.server, Value::Null).await;
    let who = world.server.ask(Some(&token), Ask::get("/v1/whoami")).await.good();
    assert_eq!(who["tenant_name"], "beta");
    // Neither the ticket that was spent nor a login brings the new one's principal.
    mallory.redeem(&world.server, &squatted).await.refused(401, "ticket_refused");
    mallory.try_login(&world.server, json!({ "tenant": "acme" })).await.refused(403, "forbidden");
    // Whoever was really invited is told that the name is taken, and cannot replace anybody's factors.
    let offer = begin(&world.server, &invited).await.good();
    assert_eq!((&offer["enrolled"], &offer["totp_secret"], &offer["tenant"]), (&json!(true), &Value::Null, &json!("acme")));
    complete(&world.server, &invited, "another-pass-77!", "000000").await.refused(401, "login_refused");
    assert_eq!(state(&world, "drsmith").await, true);
    let told = world.alice(Ask::get("/v1/principals")).await.text();
    assert!(!told.contains("beta"), "{told}");
    world.server.stop().await;
}

/// A person of another tenant was a member before they knew of it, and the answer told whether a name exists elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_person_comes_in_by_ticket_and_factors() {
    let mut world = World::new().await;
    let known = world.confirmed(invite("bob", "viewer")).await.good();
    let unknown = world.confirmed(invite("nobody-here", "viewer")).await.good();
    // One answer for both.
    let shape = |answer: &Value| -> Vec<(String, bool, usize)> {
        let length = |value: &Value| value.as_str().map_or(0, str::len);
        answer.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.is_null(), length(value))).collect()
    };
    assert_eq!(shape(&known), shape(&unknown));
    let document: Value = serde_json::from_str(&control::openapi()).unwrap();
    let invited = ticket(&known);
    // Until he redeems it, nothing has changed for bob: his login without `as` has one principal to pick.
    world.bob.try_login(&world.server, json!({ "tenant": "acme" })).await.refused(403, "forbidden");
    let token = world.bob.login(&world.server, Value::Null).await;
    assert_eq!(world.server.ask(Some(&token), Ask::get("/v1/whoami")).await.good()["tenant_name"], "beta");
    // The ticket alone is not enough, and a wrong try does not spend it. Nor does another person redeem it.
    complete(&world.server, &invited, PASSWORD, "000000").await.refused(401, "login_refused");
    world.alice.redeem(&world.server, &invited).await.refused(401, "login_refused");
    let offer = begin(&world.server, &invited).await;
    let route = control::routes().into_iter().find(|route| route.id == "enrolment_begin").unwrap();
    fits_the_document(&document, &route, &offer);
    assert_eq!((&offer.good()["roles"], &offer.good()["enrolled"]), (&json!(["viewer"]), &json!(true)));
    let redeemed = world.bob.redeem(&world.server, &invited).await;
    let route = control::routes().into_iter().find(|route| route.id == "enrolment_complete").unwrap();
    fits_the_document(&document, &route, &redeemed);
    assert_eq!(redeemed.good()["recovery_codes"], json!([]));
    world.bob.redeem(&world.server, &invited).await.refused(401, "ticket_refused");
    // He is a member of both now, keeps his factors, and says where he goes.
    let token = world.bob.login(&world.server, json!({ "tenant": "acme" })).await;
    assert_eq!(world.server.ask(Some(&token), Ask::get("/v1/whoami")).await.good()["tenant_name"], "acme");
    world.bob.try_login(&world.server, Value::Null).await.refused(400, "invalid_request");
    assert_eq!((state(&world, "bob").await, state(&world, "nobody-here").await), (json!(false), json!(true)));
    let log = world.alice(Ask::get("/v1/audit?limit=1000")).await.text();
    assert!(log.contains("\\\"change\\\":\\\"enabled\\\""), "{log}");
    world.server.stop().await;
}

/// A ticket that lapsed burned the name for good.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_come_in_gets_a_new_ticket() {
    let mut world = World::new().await;
    let first = world.confirmed(invite("dave", "viewer")).await.good();
    let second = world.confirmed(invite("dave", "engineer")).await.good();
    assert_eq!(first["principal"], second["principal"]);
    begin(&world.server, &ticket(&first)).await.refused(401, "ticket_refused");
    complete(&world.server, &ticket(&first), PASSWORD, "000000").await.refused(401, "ticket_refused");
    let mut dave = Person::enrol(&world.server, &ticket(&second)).await;
    let token = dave.login(&world.server, Value::Null).await;
    let who = world.server.ask(Some(&token), Ask::get("/v1/whoami")).await.good();
    assert_eq!((&who["name"], &who["roles"]), (&json!("dave"), &json!(["engineer"])));
    assert_eq!(state(&world, "dave").await, false);
    // The same for a tenant's first administrator, until somebody came in.
    let make = || Ask::post("/v1/tenants", json!({ "name": "gamma", "admin": "carol" }));
    let operator = Some(world.operator_token.as_str());
    let first = world.server.ask(operator, make()).await.good();
    let second = world.server.ask(operator, make()).await.good();
    assert_eq!(first["tenant"]["id"], second["tenant"]["id"]);
    begin(&world.server, &ticket(&first["admin"])).await.refused(401, "ticket_refused");
    let other = Ask::post("/v1/tenants", json!({ "name": "gamma", "admin": "mallory" }));
    world.server.ask(operator, other).await.refused(409, "name_taken");
    let mut carol = Person::enrol(&world.server, &ticket(&second["admin"])).await;
    carol.login(&world.server, json!({ "tenant": "gamma" })).await;
    world.server.ask(operator, make()).await.refused(409, "name_taken");
    // Who makes a tenant with themself in it needs no ticket.
    let own = world.server.ask(operator, Ask::post("/v1/tenants", json!({ "name": "own", "admin": "ada" }))).await.good();
    assert_eq!((&own["admin"]["ticket"], &own["admin"]["expires"]), (&Value::Null, &Value::Null));
    world.operator.login(&world.server, json!({ "tenant": "own" })).await;
    world.server.stop().await;
}

/// Two tenants invite one new person, and both tickets are redeemed in the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_tickets_one_sets_the_factors() {
    let mut world = World::new().await;
    let one = ticket(&world.confirmed(invite("eve", "viewer")).await.good());
    let other = ticket(&world.bob.confirmed(&world.server, &world.bob_token, invite("eve", "viewer")).await.good());
    let server = &world.server;
    let enrol = async |ticket: &str, password: &str| {
        let offer = begin(server, ticket).await.good();
        let secret = offer["totp_secret"].as_str().map(super::support::authenticator);
        // The other was so fast that the person has factors already.
        let code = secret.map_or_else(|| "000000".to_owned(), |secret| secret.code_at(now()).unwrap());
        complete(server, ticket, password, &code).await
    };
    let answers = futures::future::join(enrol(&one, "the-first-password-1"), enrol(&other, "the-second-password-2")).await;
    let good = [&answers.0, &answers.1].iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(good, 1, "{} {}", answers.0.text(), answers.1.text());
    let lost = if answers.0.status == StatusCode::OK { answers.1 } else { answers.0 };
    assert!(["ticket_refused", "login_refused"].contains(&lost.code().as_str()), "{}", lost.text());
    world.server.stop().await;
}

/// Strangers who try logins under a person's name kept that person from confirming what they do.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_hinder_a_confirmation() {
    let mut world = World::new().await;
    let wrong = || Ask::post("/v1/login", json!({ "name": "alice", "password": "wrong wrong wrong", "code": "000000", "as": null }));
    let mut tries = 0;
    while world.server.ask(None, wrong()).await.code() != "try_later" {
        tries += 1;
        assert!(tries < 40, "nothing delays guessing");
    }
    let asked = world.alice(invite("dave", "viewer")).await.refused(403, "step_up_required");
    let summary = asked["step_up"]["summary"].as_str().unwrap();
    for word in ["invite a user", "`dave` (user)", "`viewer` (roles)", "`internal` (clearance)"] {
        assert!(summary.contains(word), "{summary}");
    }
    let id = asked["step_up"]["id"].as_str().unwrap().to_owned();
    let code = world.alice.code().await;
    world.alice(Ask::post(format!("/v1/step-ups/{id}"), json!({ "code": code }))).await.good();
    // Guessing codes is delayed all the same, and more tokens buy no more guesses: each of these makes one.
    for place in 0.. {
        assert!(place < 12, "nothing delays guessing");
        let other = world.alice(Ask::post("/v1/tokens", json!({ "lifetime_s": 600, "note": "other" }))).await.good();
        let other = other["token"].as_str().unwrap().to_owned();
        let asked = world.server.ask(Some(&other), Ask::new("POST", "/v1/tenant-key/rotate")).await.refused(403, "step_up_required");
        let guess = Ask::post(format!("/v1/step-ups/{}", asked["step_up"]["id"].as_str().unwrap()), json!({ "code": "000000" }));
        let answer = world.server.ask(Some(&other), guess).await;
        if answer.code() == "try_later" {
            break;
        }
        answer.refused(403, "step_up_refused");
    }
    world.server.stop().await;
}

/// One source tries one password for many names: no name is delayed, the source is.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_tries_many_names_is_delayed() {
    let mut server = Running::start().await;
    let ticket = server.ticket();
    let mut ada = Person::enrol(&server, &ticket).await;
    let mut tries = 0;
    loop {
        let body = json!({ "name": format!("ghost-{tries}"), "password": "one password for all", "code": "000000", "as": null });
        let answer = server.ask(None, Ask::post("/v1/login", body)).await;
        if answer.code() == "try_later" {
            assert!(answer.headers.get("retry-after").is_some());
            break;
        }
        answer.refused(401, "login_refused");
        tries += 1;
        assert!(tries < 60, "nothing delays a source");
    }
    assert!(tries >= 10, "many people may sit behind one address: {tries}");
    // A recovery code skips the person's delay, never the source's.
    ada.try_login(&server, json!("operator")).await.refused(429, "try_later");
    server.stop().await;
}

/// What a service account's making and its token's answer look like is what the document says.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_service_account_is_answered_as_documented() {
    let mut world = World::new().await;
    let document: Value = serde_json::from_str(&control::openapi()).unwrap();
    let route = |id: &str| control::routes().into_iter().find(|route| route.id == id).unwrap();
    let body = json!({ "name": "robot", "roles": ["viewer"], "clearance": "internal" });
    let made = world.confirmed(Ask::post("/v1/service-accounts", body)).await;
    fits_the_document(&document, &route("service_account_create"), &made);
    let path = format!("/v1/service-accounts/{}/tokens", made.good()["id"].as_str().unwrap());
    let issued = world.confirmed(Ask::post(path, json!({ "lifetime_s": 60, "note": "robot" }))).await;
    fits_the_document(&document, &route("service_token_create"), &issued);
    assert!(issued.good()["token"].is_string());
    world.server.stop().await;
}
