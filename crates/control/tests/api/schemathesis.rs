//! A foreign tool makes requests up from the document, good and bad ones, and compares each answer with what is promised.
//!
//! `cargo xtask setup` installs it (Schemathesis, from PyPI, every wheel pinned by its digest).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use control::{Access, Payload, Route, routes};
use serde_json::{Value, json};

use super::examples::{NOBODY, Things, example, job_spec, signer, things, x25519};
use super::support::{Ask, World};

/// Requests for each operation that are made up freely, beside those that its schema's corners ask for.
const FREE: u32 = 12;
/// Operations that must have been reached with a good answer; the others want a confirmation, or a node.
const REACHED_MIN: usize = 58;

/// Calls that end what others need: they get things of their own, and never the ids of the callers.
const ENDING: [&str; 12] = [
    "key_destroy", "lease_end", "other_token_revoke", "person_erase", "principal_delete", "principal_update", "secret_delete", "tenant_quota_set",
    "tenant_resume", "tenant_suspend", "token_revoke", "volume_delete",
];
/// What is refused as `not_built` (501), by name: the one 5xx that an answer may have.
const NOT_BUILT: [&str; 4] = ["job_submit", "project_quota_set", "tenant_quota_set", "volume_create"];

fn program() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = target.join("schemathesis/bin/st");
    assert!(program.exists(), "{} is not there: cargo xtask setup installs it", program.display());
    program
}

/// The root certificate of the deployment, as PEM.
async fn root(world: &World) -> String {
    let file = world.server.ask(None, Ask::get("/v1/deployment")).await.good();
    let text = file.to_string();
    let der = text.split("\"root_certificate\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let lines: Vec<&str> = der.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// What the examples of the document name, for a route: mostly what there is, so that a good part of the calls finds it.
struct Examples {
    things: Things,
    expendable: Things,
    job: String,
    write_lease: String,
    /// Where the newest tile of the log lies.
    tile: String,
    image: Value,
}

impl Examples {
    async fn make(world: &mut World) -> Self {
        let mut things = things(world).await;
        things.insert("nobody", NOBODY.to_owned());
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
        let volume = format!("/v1/volumes/{}", things["volume"]);
        let lease = json!({ "mode": "write", "purpose": "research", "recipient": x25519(), "signer": signer() });
        let write_lease = text(&world.alice(Ask::post(format!("{volume}/write-leases"), lease)).await.good()["id"]);
        let mut expendable = things.clone();
        let lease = json!({ "mode": "read", "purpose": "research", "recipient": x25519() });
        expendable.insert("lease", text(&world.alice(Ask::post(format!("{volume}/read-leases"), lease)).await.good()["id"]));
        let secret = json!({ "name": "expendable", "project": things["project"], "uses": ["job"], "recipient": x25519() });
        expendable.insert("secret", text(&world.alice(Ask::post("/v1/secrets", secret)).await.good()["key"]["secret"]));
        expendable.insert("tenant", text(&world.bob(Ask::get("/v1/whoami")).await.good()["tenant"]));
        let image = image(world).await;
        let spec = json!({ "project": things["project"], "spec": { "name": "train", "image": image["manifest"], "purpose": "research", "sensitivity": "internal" } });
        let job = text(&world.alice(Ask::post("/v1/jobs", spec)).await.good()["id"]);
        world.server.published_beyond(0).await;
        let checkpoint = world.server.ask(None, Ask::get("/v1/log/checkpoint")).await.text();
        let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
        // The first tile, whole or as far as it is filled (C2SP tlog-tiles).
        let tile = if size < 256 { format!("0/000.p/{size}") } else { "0/000".to_owned() };
        Self { things, expendable, job, write_lease, tile, image }
    }

    fn of(&self, route: &Route) -> Ask {
        let mut things = if ENDING.contains(&route.id) { self.expendable.clone() } else { self.things.clone() };
        if route.id.starts_with("job_") {
            things.insert("nobody", self.job.clone());
        }
        if route.id == "object_put" {
            things.insert("lease", self.write_lease.clone());
        }
        if route.id.starts_with("image_signatures") {
            things.insert("blob", self.image["manifest"].as_str().unwrap().to_owned());
        }
        let mut ask = example(route.id, route.method, route.path, &things);
        match route.id {
            "image_create" => ask.body = Some(self.image.clone()),
            "job_submit" => {
                let mut spec = job_spec();
                spec["image"] = self.image["manifest"].clone();
                ask.body = Some(json!({ "project": things["project"], "spec": spec }));
            }
            "log_tile" => ask.path = route.path.replace("{*path}", &self.tile),
            _ => {}
        }
        ask
    }
}

/// Uploads the smallest image, and says how it is named.
async fn image(world: &World) -> Value {
    let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(keys::derive::sha256(&[bytes])));
    let (config, layer) = (b"{\"architecture\":\"amd64\",\"os\":\"linux\"}".to_vec(), b"a layer".to_vec());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": layer.len() }],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut blobs = Vec::new();
    for bytes in [&manifest, &config, &layer] {
        world.alice(Ask::new("PUT", format!("/v1/image-blobs/{}", digest(bytes))).raw(bytes.clone())).await.good();
        blobs.push(json!({ "digest": digest(bytes), "size": bytes.len() }));
    }
    let create = json!({ "name": "small", "manifest": digest(&manifest), "blobs": blobs });
    world.alice(Ask::post("/v1/images", create.clone())).await.good();
    create
}

/// The document with an example for every parameter and body.
fn with_examples(examples: &Examples) -> Value {
    let mut document: Value = serde_json::from_str(&control::openapi()).unwrap();
    for route in routes() {
        let ask = examples.of(&route);
        let operation = &mut document["paths"][route.documented_path()][route.method.to_lowercase()];
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut parts = ask.path.split('/');
        for name in route.path.split('/') {
            match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) if name.starts_with('*') => {
                    values.insert(name.trim_start_matches('*').to_owned(), parts.by_ref().collect::<Vec<_>>().join("/"));
                }
                Some(name) => {
                    values.insert(name.to_owned(), parts.next().unwrap().to_owned());
                }
                None => {
                    parts.next();
                }
            }
        }
        values.extend(ask.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        for parameter in operation["parameters"].as_array_mut().unwrap() {
            let name = parameter["name"].as_str().unwrap().to_lowercase();
            if let Some(value) = values.get(&name) {
                parameter["example"] = json!(value);
            }
        }
        match (&route.body, ask.body) {
            (Payload::Json(_), Some(body)) => operation["requestBody"]["content"]["application/json"]["example"] = body,
            (Payload::Bytes, _) => {
                operation["requestBody"]["content"]["application/octet-stream"]["example"] = json!(String::from_utf8(ask.raw.unwrap()).unwrap());
            }
            _ => {}
        }
    }
    document
}

/// What the tool is told beside the document.
async fn told(world: &World, examples: &Examples) -> Value {
    let mut kept = BTreeSet::from([world.tenant.clone(), examples.job.clone(), examples.write_lease.clone()]);
    for token in [&world.alice_token, &world.operator_token] {
        for path in ["/v1/whoami", "/v1/tokens"] {
            kept.extend(ids(&world.server.ask(Some(token), Ask::get(path)).await.good()));
        }
    }
    kept.extend(examples.things.values().cloned());
    for name in ["token", "account", "account_token", "nobody"] {
        kept.remove(&examples.things[name]);
    }
    let mut tokens = Vec::new();
    for _ in 0..2 * FREE {
        let token = json!({ "lifetime_s": 3600, "note": "expendable" });
        tokens.push(world.alice(Ask::post("/v1/tokens", token)).await.good()["token"].clone());
    }
    let operators = policy::action::ALL_ACTIONS.iter().filter(|action| action.principals == [policy::EntityKind::Operator]);
    json!({
        "operator_token": world.operator_token,
        "member_token": world.alice_token,
        "operator_actions": operators.map(|action| action.name).collect::<Vec<_>>(),
        "expendable_tokens": tokens,
        "ending": ENDING,
        "kept": kept,
        "nobody": NOBODY,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_tool_finds_nothing_that_the_document_does_not_promise() {
    let mut world = World::new().await;
    let examples = Examples::make(&mut world).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("world.json", &told(&world, &examples).await.to_string());
    write("openapi.json", &with_examples(&examples).to_string());
    write("root.pem", &root(&world).await);
    write("schemathesis.toml", &settings(&world.server.url));
    write("hooks.py", include_str!("schemathesis.py"));
    let ran = tokio::process::Command::new(program())
        .args(["run", "openapi.json", "--no-color"])
        .current_dir(folder.path())
        .env("SWARM_SCHEMATHESIS", folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", folder.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));

    // It was no walk among refusals: both callers are still who they were, everything was called, and much of it with success.
    world.alice(Ask::get("/v1/whoami")).await.good();
    world.server.ask(Some(&world.operator_token), Ask::get("/v1/whoami")).await.good();
    let tally: BTreeMap<String, BTreeMap<u16, u64>> = serde_json::from_slice(&std::fs::read(folder.path().join("tally.json")).unwrap()).unwrap();
    let never: Vec<&str> = routes().iter().map(|route| route.id).filter(|id| !tally.contains_key(*id)).collect();
    assert!(never.is_empty(), "never called: {never:?}");
    let (reached, refused): (Vec<_>, Vec<_>) = tally.iter().partition(|(_, statuses)| statuses.keys().any(|status| *status < 300));
    assert!(reached.len() >= REACHED_MIN, "{} operations with success; never: {refused:?}", reached.len());
    for route in routes() {
        let statuses = &tally[route.id];
        if matches!(route.access, Access::Action(_)) {
            assert!(statuses.keys().any(|status| *status != 401), "{}: nobody was known", route.id);
        }
        assert!(!statuses.contains_key(&501) || NOT_BUILT.contains(&route.id), "{}: {statuses:?}", route.id);
    }
    world.server.stop().await;
}

/// Every id in a document.
fn ids(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| text.parse::<vocabulary::PrincipalId>().is_ok()).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(ids).collect(),
        Value::Object(fields) => fields.values().flat_map(ids).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn settings(url: &str) -> String {
    format!(
        r#"base-url = "{url}"
tls-verify = "root.pem"
seed = 20261125
workers = 1
request-timeout = 60
warnings = false

[generation]
max-examples = {FREE}
no-shrink = true
database = "none"

[phases.stateful]
enabled = false

# What fits the schema may still break a rule that it does not tell, and many ids are nobody's.
[checks.positive_data_acceptance]
enabled = false

# Sizes and counts beyond a limit are refused with a status of their own.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "413", "415", "422", "429", "501"]

[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "501"]
"#
    )
}
