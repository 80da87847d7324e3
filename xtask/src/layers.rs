//! The law of layers, from `cargo metadata`: downwards only, and sideways only where the table says so.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

/// A room: its layer, and the rooms of the same layer or above that it may use all the same.
const ROOMS: &[(&str, u8, &[&str])] = &[
    ("vocabulary", 0, &[]),
    ("keys", 1, &[]),
    ("identity", 1, &["keys"]),
    ("policy", 1, &[]),
    ("audit", 1, &["keys"]),
    ("store", 2, &[]),
    ("telemetry", 2, &[]),
    ("volume", 2, &[]),
    ("runtime", 2, &[]),
    // The receipt is pure and verifies over the cores of the planes.
    ("receipt", 3, &[]),
    ("control", 4, &[]),
    ("node", 4, &[]),
    ("cli", 5, &[]),
    // Beside the rooms: they may look at all of them.
    ("e2e", 9, &[]),
    ("bench", 9, &["e2e"]),
    ("xtask", 9, &["e2e"]),
];

/// Pure rooms: no runtime, no sockets, no database.
const PURE: &[&str] = &["vocabulary", "keys", "identity", "policy", "audit", "receipt"];
const IMPURE: &[&str] = &["tokio", "sqlx", "reqwest", "axum", "hyper", "object_store"];

pub(crate) fn run() -> anyhow::Result<()> {
    let output = Command::new(crate::cargo())
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(crate::root())
        .output()
        .context("cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let edges = edges(&metadata);
    let broken = violations(&edges);
    for line in &broken {
        println!("layers: {line}");
    }
    anyhow::ensure!(broken.is_empty(), "{} violations of the law of layers", broken.len());
    println!("layers: {} rooms keep the law", edges.len());
    Ok(())
}

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Normal dependencies of each member.
fn edges(metadata: &Value) -> Edges {
    let mut edges = Edges::new();
    for package in metadata.get("packages").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
        let uses = package
            .get("dependencies")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|dependency| dependency.get("kind").is_none_or(Value::is_null))
            .filter_map(|dependency| dependency.get("name").and_then(Value::as_str).map(str::to_owned))
            .collect();
        edges.insert(name.to_owned(), uses);
    }
    edges
}

fn violations(edges: &Edges) -> Vec<String> {
    let layer = |name: &str| ROOMS.iter().find(|(room, ..)| *room == name).map(|(_, layer, _)| *layer);
    let mut broken = Vec::new();
    for (name, uses) in edges {
        let Some((_, own, sideways)) = ROOMS.iter().find(|(room, ..)| room == name) else {
            broken.push(format!("`{name}` stands in no layer: add it to the table"));
            continue;
        };
        for used in uses {
            if let Some(other) = layer(used)
                && other >= *own
                && !sideways.contains(&used.as_str())
            {
                broken.push(format!("`{name}` (layer {own}) uses `{used}` (layer {other}): downwards only"));
            }
            if PURE.contains(&name.as_str()) && IMPURE.contains(&used.as_str()) {
                broken.push(format!("`{name}` is pure and uses `{used}`"));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(name: &str, uses: &[&str]) -> Edges {
        Edges::from([(name.to_owned(), uses.iter().map(|used| (*used).to_owned()).collect())])
    }

    #[test]
    fn planted_violations_are_found() {
        assert_eq!(violations(&edge("policy", &["keys"])).len(), 1, "sideways");
        assert_eq!(violations(&edge("store", &["control"])).len(), 1, "upwards");
        assert_eq!(violations(&edge("store", &["volume"])).len(), 1, "planes never import each other");
        assert_eq!(violations(&edge("identity", &["keys", "tokio"])).len(), 1, "a pure room with a runtime");
        assert_eq!(violations(&edge("utils", &[])).len(), 1, "a room without a layer");
        assert_eq!(violations(&edge("identity", &["keys", "vocabulary"])), Vec::<String>::new());
    }
}
