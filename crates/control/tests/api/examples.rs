//! An example of a call for every route: with ids of `acme`, and with ids that are nobody's.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::support::{Ask, World};

/// What `acme` owns, by name: ids and digests.
pub(crate) type Things = BTreeMap<&'static str, String>;

pub(crate) const NOBODY: &str = "0190b5b4-0000-7000-8000-0000000000ff";
pub(crate) const NO_DIGEST: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Makes one thing of each kind in `acme`.
pub(crate) async fn things(world: &mut World) -> Things {
    let mut things = Things::new();
    things.insert("tenant", world.tenant.clone());
    things.insert("principal", text(&world.alice(Ask::get("/v1/whoami")).await.good()["principal"]));
    let project = world.alice(Ask::post("/v1/projects", json!({ "name": "vision" }))).await.good();
    things.insert("project", text(&project["id"]));
    let volume = world.alice(Ask::post("/v1/volumes", volume_spec(&text(&project["id"]), "data"))).await.good();
    things.insert("volume", text(&volume["id"]));
    let account = json!({ "name": "robot", "roles": ["engineer"], "clearance": "internal" });
    let account = world.confirmed(Ask::post("/v1/service-accounts", account)).await.good();
    things.insert("account", text(&account["id"]));
    let path = format!("/v1/service-accounts/{}/tokens", text(&account["id"]));
    let body = json!({ "lifetime_s": 3600, "note": "robot", "service_account": account["id"] });
    let token = world.confirmed(Ask::post(path, body)).await.good();
    things.insert("account_token", text(&token["id"]));
    let own = json!({ "lifetime_s": 3600, "note": "mine" });
    let own = world.alice(Ask::post("/v1/tokens", own)).await.good();
    things.insert("token", text(&own["id"]));
    let lease = json!({ "mode": "read", "purpose": "research", "recipient": x25519() });
    let path = format!("/v1/volumes/{}/read-leases", things["volume"]);
    let lease = world.alice(Ask::post(path, lease)).await.good();
    things.insert("lease", text(&lease["id"]));
    let secret = json!({ "name": "hub", "project": things["project"], "uses": ["job", "pull"], "recipient": x25519() });
    let secret = world.alice(Ask::post("/v1/secrets", secret)).await.good();
    things.insert("secret", text(&secret["key"]["secret"]));
    let keys = world.alice(Ask::get("/v1/keys")).await.good();
    things.insert("key", text(&keys["items"][0]["id"]));
    let blob = b"a blob of acme".to_vec();
    let digest = digest_of(&blob);
    let put = world.alice(Ask::new("PUT", format!("/v1/image-blobs/{digest}")).raw(blob)).await;
    assert!(put.status.is_success(), "{}", put.text());
    things.insert("blob", digest);
    let entries = world.alice(Ask::get("/v1/audit?newest=true")).await.good();
    things.insert("entry", entries["items"][0]["index"].to_string());
    things
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(keys::derive::sha256(&[bytes])))
}

/// A public key of X25519: the base point will do.
pub(crate) fn x25519() -> String {
    use base64::Engine as _;
    let mut point = [0; 32];
    point[0] = 9;
    base64::engine::general_purpose::STANDARD.encode(point)
}

/// A public key of Ed25519: its base point will do.
pub(crate) fn signer() -> String {
    use base64::Engine as _;
    let mut point = [0x66; 32];
    point[0] = 0x58;
    base64::engine::general_purpose::STANDARD.encode(point)
}

pub(crate) fn volume_spec(project: &str, name: &str) -> Value {
    json!({ "name": name, "project": project, "region": "eu-central", "jurisdictions": [], "sensitivity": "internal", "purpose": "research" })
}

pub(crate) fn job_spec() -> Value {
    json!({ "name": "train", "image": NO_DIGEST, "purpose": "research", "sensitivity": "internal" })
}

/// One call of a route. Path parameters that are ids come from `things`.
///
/// A route that has no example here fails the tests: add one, with the id of a thing of `acme` where it takes one.
pub(crate) fn example(route: &str, method: &str, path: &str, things: &Things) -> Ask {
    let thing = |name: &str| things.get(name).unwrap_or_else(|| panic!("route `{route}` asks for a `{name}`: make one in examples::things")).clone();
    let (ids, body): (Vec<(&str, String)>, Option<Value>) = match route {
        "health_show" | "deployment_show" | "openapi_show" | "log_checkpoint" | "log_cosigned_checkpoint" | "log_witness_policy" | "witness_show" | "whoami_show" | "token_logout" | "status_show" | "tenant_list"
        | "platform_audit_list" | "node_list" | "project_list" | "principal_list" | "token_list" | "volume_list" | "lease_list" | "image_list"
        | "job_list" | "secret_list" | "key_list" | "tenant_key_rotate" | "audit_list" | "seal_show" | "key_inventory"
        | "tenant_key_rewrap" | "root_key_rotate" | "root_key_rewrap" | "platform_key_inventory" => (vec![], None),
        "log_tile" => (vec![("*path", "entries/000.p/1".into())], None),
        "token_login" => (vec![], Some(json!({ "name": "nobody-here", "password": "wrong-password-1", "code": "000000" }))),
        "enrolment_begin" => (vec![], Some(json!({ "ticket": "swm_no_ticket" }))),
        "enrolment_complete" => (vec![], Some(json!({ "ticket": "swm_no_ticket", "password": "wrong-password-1", "code": "000000" }))),
        "node_enrol" => (vec![], Some(json!({ "token": "swm_no_token", "csr": "AAAA", "record_key": x25519(), "record_proof": "AAAA", "facts": {
            "hostname": "h", "kernel": "6.1", "cgroup_layout": "unified", "cpu_millis": 1000, "memory_bytes": 1, "scratch_bytes": 1, "gpus": 0,
            "features": {}, "boot_id": "b", "version": "0.1.0" } }))),
        "seal_open" => (vec![], Some(json!({ "share": "swmshare" }))),
        "seal_init" => (vec![], Some(json!({ "shares": 3, "threshold": 2 }))),
        "seal_confirm" => (vec![], Some(json!({ "generation": 2, "received": NO_DIGEST }))),
        "step_up_confirm" => (vec![("id", thing("nobody"))], Some(json!({ "code": "000000" }))),
        "tenant_create" => (vec![], Some(json!({ "name": "gamma", "admin": "carol" }))),
        "tenant_suspend" | "tenant_resume" => (vec![("id", thing("tenant"))], None),
        "node_invite" => {
            let place = json!({ "region": "eu-central", "jurisdiction": "EU", "labels": {} });
            (vec![], Some(json!({ "name": "node-1", "place": place, "lifetime_s": 600 })))
        }
        "quota_list" => (vec![], None),
        "tenant_quota_show" => (vec![("id", thing("tenant"))], None),
        "tenant_quota_set" => (
            vec![("id", thing("tenant"))],
            Some(json!({ "queued_jobs": 100, "images": 50 })),
        ),
        "project_quota_set" => (
            vec![("id", thing("project"))],
            Some(json!({ "running_jobs": 10 })),
        ),
        "node_dedicate" => (
            vec![("id", thing("nobody"))],
            Some(json!({ "tenant": thing("tenant") })),
        ),
        "node_drain" => (
            vec![("id", thing("nobody"))],
            Some(json!({ "deadline_s": 600 })),
        ),
        "node_show" | "node_resume" | "node_revoke" => (vec![("id", thing("nobody"))], None),
        "project_create" => (vec![], Some(json!({ "name": "speech" }))),
        "user_create" => (vec![], Some(json!({ "name": "dave", "roles": ["viewer"], "clearance": "internal" }))),
        "service_account_create" => (vec![], Some(json!({ "name": "robot-2", "roles": ["viewer"], "clearance": "internal" }))),
        "principal_update" => (vec![("id", thing("account"))], Some(json!({ "roles": ["viewer"], "clearance": "internal" }))),
        "principal_delete" => (vec![("id", thing("account"))], None),
        "token_create" => (vec![], Some(json!({ "lifetime_s": 3600, "note": "mine" }))),
        "token_revoke" => (vec![("id", thing("token"))], None),
        "service_token_create" => (vec![("id", thing("account"))], Some(json!({ "lifetime_s": 3600, "note": "robot" }))),
        "other_token_revoke" => (vec![("id", thing("account")), ("token", thing("account_token"))], None),
        "volume_create" => (vec![], Some(volume_spec(&thing("project"), "more"))),
        "volume_show" | "volume_delete" | "volume_rotate" => (vec![("id", thing("volume"))], None),
        "volume_read" => (vec![("id", thing("volume"))], Some(json!({ "mode": "read", "purpose": "research", "recipient": x25519() }))),
        "volume_write" => (
            vec![("id", thing("volume"))],
            Some(json!({ "mode": "write", "purpose": "research", "recipient": x25519(), "signer": x25519() })),
        ),
        "object_put" | "object_get" => (vec![("id", thing("volume")), ("*path", "seg/00000000000000000000000000000000".into())], None),
        "volume_commit" => (vec![("id", thing("volume"))], Some(json!({ "lease": thing("lease"), "record": "AAAA" }))),
        "lease_end" => (vec![("id", thing("lease"))], None),
        "image_blob_put" | "image_blob_show" => (vec![("digest", thing("blob"))], None),
        "image_create" => (vec![], Some(json!({ "name": "base", "manifest": thing("blob"), "blobs": [{ "digest": thing("blob"), "size": 14 }] }))),
        "image_signatures_add" => {
            (vec![("digest", thing("blob"))], Some(json!({ "signatures": [{ "payload": "AAAA", "signature": "AAAA" }] })))
        }
        "image_policy_set" => (vec![], Some(json!({ "required": 0, "signers": [] }))),
        "image_policy_show" => (vec![], None),
        "secret_create" => {
            (vec![], Some(json!({ "name": "tracker", "project": thing("project"), "uses": ["job"], "recipient": x25519() })))
        }
        "secret_renew" | "secret_open" => (vec![("id", thing("secret"))], Some(json!({ "recipient": x25519() }))),
        "secret_set" => (vec![("id", thing("secret"))], Some(json!({ "version": 1, "sealed": "AAAA" }))),
        "secret_delete" => (vec![("id", thing("secret"))], None),
        "job_submit" => (vec![], Some(json!({ "project": thing("project"), "spec": job_spec() }))),
        "job_show" | "job_stop" | "job_logs" | "job_receipt_get" => (vec![("id", thing("nobody"))], None),
        "key_destroy" => (vec![("id", thing("key"))], Some(json!({}))),
        "key_destroy_cancel" => (vec![("id", thing("key"))], None),
        "backup_retention_set" => (vec![], Some(json!({ "days": 30 }))),
        "audit_proof" => (vec![("index", thing("entry"))], None),
        "person_erase" => (vec![], Some(json!({ "name": "nobody-here" }))),
        "audit_reveal" => (vec![("index", thing("entry"))], None),
        "witness_policy_set" => (vec![], Some(json!({ "policy": "quorum none\n" }))),
        "policy_explain" => (vec![], Some(json!({ "action": "volumeView", "resource": format!("volume/{}", thing("volume")) }))),
        other => panic!("route `{other}` ({method} {path}) has no example: add one to tests/api/examples.rs"),
    };
    let mut filled = path.to_owned();
    for (name, value) in ids {
        filled = filled.replace(&format!("{{{name}}}"), &value);
    }
    assert!(!filled.contains('{'), "route `{route}`: a parameter of {path} has no example");
    let mut ask = Ask::new(method, filled);
    if let Some(body) = body {
        ask = ask.body(body);
    }
    match route {
        "principal_update" => ask.header("if-match", "1"),
        "object_put" => ask.header("swarm-lease", thing("lease")).raw(b"sealed".to_vec()),
        "object_get" => ask.header("swarm-lease", thing("lease")),
        "image_blob_put" => ask.raw(b"a blob of acme".to_vec()),
        _ => ask,
    }
}

/// The same things, all of them nobody's.
pub(crate) fn nobodys(things: &Things) -> Things {
    let mut absent: Things = things.keys().map(|name| (*name, NOBODY.to_owned())).collect();
    absent.insert("blob", NO_DIGEST.to_owned());
    absent.insert("entry", "999999".to_owned());
    absent
}
