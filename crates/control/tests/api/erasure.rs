//! A person is erased: nothing of the log changes, everything still verifies, and what was sealed opens no more.

use serde_json::{Value, json};

use super::support::{Ask, Person, World};

/// A tenant's entries as they are served.
async fn entries(world: &World, token: &str) -> Vec<Value> {
    let page = world.server.ask(Some(token), Ask::get("/v1/audit?limit=1000")).await.good();
    page["items"].as_array().unwrap().clone()
}

fn login_of(entries: &[Value]) -> u64 {
    let found = entries.iter().find(|entry| entry["body"].as_str().unwrap().contains("\"kind\":\"logged_in\"")).unwrap();
    found["index"].as_u64().unwrap()
}

/// Each entry is proved under a checkpoint of the log's key, from its body and salt.
async fn prove(world: &World, token: &str, entries: &[Value]) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let file = world.server.ask(None, Ask::get("/v1/deployment")).await.bytes;
    let deployment = receipt::Deployment::open(&file, None).unwrap();
    for entry in entries {
        let index = entry["index"].as_u64().unwrap();
        let proof = loop {
            let answer = world.server.ask(Some(token), Ask::get(format!("/v1/audit/{index}/proof"))).await;
            // Published within a second.
            if answer.status.is_success() {
                break answer.good();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(proof["entry"], *entry);
        let salt: [u8; 32] = STANDARD.decode(entry["salt"].as_str().unwrap()).unwrap().try_into().unwrap();
        let leaf = audit::leaf::leaf(&salt, entry["body"].as_str().unwrap().as_bytes());
        let proof = audit::TlogProof::parse(proof["proof"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(proof.verify(&leaf, &deployment.log_keys[0], &[], 0).unwrap().index, index);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_leaves_the_log_whole() {
    let mut world = World::new().await;
    let (server, alice_token) = (&world.server, world.alice_token.clone());
    let carol = json!({ "name": "carol", "roles": ["auditor"], "clearance": "internal" });
    let invited = world.alice.confirmed(server, &alice_token, Ask::post("/v1/users", carol)).await.good();
    let mut carol = Person::enrol(server, invited["ticket"].as_str().unwrap()).await;
    let carol_token = carol.login(server, json!({ "tenant": "acme" })).await;

    // Before: the clear body names nobody, and the auditor may look, which is an entry.
    let before = entries(&world, &carol_token).await;
    let login = login_of(&before);
    assert!(!before.iter().any(|entry| entry["body"].as_str().unwrap().contains("alice") || entry["body"].as_str().unwrap().contains("127.0.0.1")));
    let reveal = |index: u64| Ask::new("POST", format!("/v1/audit/{index}/reveal"));
    let shown = world.server.ask(Some(&carol_token), reveal(login)).await.good();
    let values = shown["values"].as_array().unwrap();
    let value = |path: &str| values.iter().find(|value| value["path"] == path).unwrap()["value"].clone();
    assert_eq!((value("user.name"), value("src_endpoint.ip")), (json!("alice"), json!("127.0.0.1")));
    // Another tenant's entry is none; an engineer's or a stranger's wish is refused.
    world.bob(reveal(login)).await.refused(404, "not_found");
    world.server.ask(None, reveal(login)).await.refused(401, "unauthenticated");
    world.server.ask(Some(&world.operator_token), reveal(login)).await.refused(403, "forbidden");

    let erase = |name: &str| Ask::post("/v1/people/erase", json!({ "name": name }));
    let operator_token = world.operator_token.clone();
    world.alice(erase("carol")).await.refused(403, "forbidden");
    let done = world.operator.confirmed(&world.server, &operator_token, erase("alice")).await.good();
    assert!(done["audit_index"].as_u64().is_some() && !done["notes"].as_array().unwrap().is_empty(), "the second person is waived, and said so: {done}");

    // After: nobody of that name, no token, no login; the same entries, byte for byte, and all of them proved.
    world.server.ask(Some(&alice_token), Ask::get("/v1/whoami")).await.refused(401, "unauthenticated");
    let again = json!({ "name": "alice", "password": super::support::PASSWORD, "code": "000000", "as": null });
    world.server.ask(None, Ask::post("/v1/login", again)).await.refused(401, "login_refused");
    let people = world.server.ask(Some(&carol_token), Ask::get("/v1/principals")).await;
    assert!(people.status != 200 || !people.text().contains("alice"));
    let after = entries(&world, &carol_token).await;
    assert_eq!(after[..before.len()], before[..], "the log is as it was");
    prove(&world, &carol_token, &after).await;
    let shown = world.server.ask(Some(&carol_token), reveal(login)).await.good();
    for value in shown["values"].as_array().unwrap() {
        assert!(value["value"].is_null() && value["erased"] == true, "{value}");
    }
    // Whether a name is somebody is not told before the confirmation.
    world.server.ask(Some(&operator_token), erase("alice")).await.refused(403, "step_up_required");
    world.server.stop().await;
}
