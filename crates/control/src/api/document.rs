//! The OpenAPI document: what the table says, in the words of the specification.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use vocabulary::ErrorCode;

use crate::api::table::{Access, Answered, Payload, Route};

/// The OpenAPI 3.1 document.
pub(crate) fn document(routes: &[Route], mut schemas: BTreeMap<String, Value>) -> Value {
    let problem = serde_json::to_value(<vocabulary::Problem as utoipa::PartialSchema>::schema()).unwrap_or(Value::Null);
    let mut named = Vec::new();
    <vocabulary::Problem as ToSchema>::schemas(&mut named);
    for (name, schema) in named {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or(Value::Null));
    }
    schemas.insert("Problem".to_owned(), problem);
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        paths.entry(route.documented_path()).or_default().insert(route.method.to_ascii_lowercase(), operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Swarm",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane's API. Every mutation answers with the index of its audit entry. \
                What is no path answers 404, and a method that a path does not list 405, each as a problem.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "swm_…"}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    let content = match &route.answer {
        Answered::Json(schema) => Some(json!({"application/json": {"schema": schema}})),
        // A document of another format than ours: what is in it, that format says.
        Answered::Bytes(media) if media.ends_with("json") => Some(json!({*media: {"schema": {"type": "object"}}})),
        Answered::Bytes(media) if media.starts_with("text/") || media.ends_with("jsonl") => Some(json!({*media: {"schema": {"type": "string"}}})),
        Answered::Bytes(media) => Some(json!({*media: {"schema": {"type": "string", "format": "binary"}}})),
        Answered::Nothing => None,
    };
    let mut good = json!({"description": "done"});
    if let (Some(content), Some(fields)) = (content, good.as_object_mut()) {
        fields.insert("content".into(), content);
    }
    responses.insert(route.answer.status().to_string(), good);
    for status in refusals(route) {
        responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
    }
    let mut operation = Map::new();
    operation.insert("operationId".into(), json!(route.id));
    operation.insert("summary".into(), json!(route.summary));
    operation.insert("parameters".into(), parameters(route));
    operation.insert("responses".into(), Value::Object(responses));
    let body = match &route.body {
        Payload::Nothing => None,
        Payload::Json(schema) => Some(json!({"application/json": {"schema": schema}})),
        Payload::Bytes => Some(json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}})),
    };
    if let Some(content) = body {
        operation.insert("requestBody".into(), json!({"required": true, "content": content}));
    }
    match &route.access {
        Access::Public(reason) => {
            operation.insert("x-swarm-public".into(), json!(reason));
            operation.insert("security".into(), json!([]));
        }
        Access::Action(action) => {
            operation.insert("x-swarm-action".into(), json!(action));
            operation.insert("x-swarm-step-up".into(), json!(route.step_up));
            operation.insert("security".into(), json!([{"token": []}]));
        }
    }
    Value::Object(operation)
}

fn parameters(route: &Route) -> Value {
    let path = path_parameters(route.path).map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let query = route.query.iter().map(|(name, meaning)| json!({"name": name, "in": "query", "required": false, "description": meaning, "schema": {"type": "string"}}));
    let headers = route.headers.iter().map(|header| {
        json!({"name": header.name, "in": "header", "required": header.required, "description": header.meaning, "schema": {"type": "string"}})
    });
    path.chain(query).chain(headers).collect()
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| name.trim_start_matches('*'))
}

/// The statuses with which a route may refuse: what follows from who may call it and from what it takes.
fn refusals(route: &Route) -> BTreeSet<u16> {
    // A malformed header or query, a defect, a database or seal that is away.
    let mut statuses = BTreeSet::from([400, 500, 503]);
    let changes = route.method != "GET";
    match route.access {
        // Refusals of principals are recorded, so a full disk shows there, too.
        Access::Action(_) => statuses.extend([401, 403, 404, 409, 422, 429, 507]),
        Access::Public(_) if changes => statuses.extend([401, 403, 404, 409, 422, 429, 507]),
        Access::Public(_) => statuses.extend([404]),
    }
    match route.body {
        Payload::Json(_) => statuses.extend([408, 413, 415, 501]),
        Payload::Bytes => statuses.extend([408, 413]),
        // What is stored may have grown beyond a limit that another version had.
        Payload::Nothing => {
            statuses.insert(413);
        }
    }
    statuses
}

/// One response for each status with which anything is refused, with the codes that travel with it.
fn problems() -> Value {
    let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in ErrorCode::ALL {
        codes.entry(code.status()).or_default().push(code.as_str());
    }
    let responses = codes.into_iter().map(|(status, codes)| {
        let mut response = json!({
            "description": format!("a problem (RFC 9457): {}", codes.join(", ")),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        if let (429 | 503, Some(fields)) = (status, response.as_object_mut()) {
            let seconds = json!({"description": "seconds until it is worth to ask again", "schema": {"type": "integer", "minimum": 0}});
            fields.insert("headers".into(), json!({"Retry-After": seconds}));
        }
        (status.to_string(), response)
    });
    Value::Object(responses.collect())
}
