//! Collects what the program says of itself in logs: the messages that stand in the source without anything filled in, and the
//! modules that say them. A support bundle takes a line of a log only as far as it consists of these.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let (mut messages, mut targets) = (BTreeSet::new(), BTreeSet::new());
    let mut crates: Vec<PathBuf> = std::fs::read_dir("..")?.flatten().map(|entry| entry.path()).collect();
    crates.sort();
    for folder in crates {
        let source = folder.join("src");
        let Some(name) = folder.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if !source.is_dir() {
            continue;
        }
        println!("cargo::rerun-if-changed={}", source.display());
        // The command line's crate is the program `swarm`.
        let root = if name == "cli" { "swarm".to_owned() } else { name };
        files(&source, &root, &mut messages, &mut targets)?;
    }
    let Some(out) = std::env::var_os("OUT_DIR") else { return Err(std::io::Error::other("cargo sets OUT_DIR")) };
    let lines = |words: BTreeSet<String>| words.into_iter().fold(String::new(), |text, word| text + &word + "\n");
    std::fs::write(Path::new(&out).join("messages.txt"), lines(messages))?;
    std::fs::write(Path::new(&out).join("targets.txt"), lines(targets))
}

/// Reads all sources below a folder, whose module is `module`. Tests say nothing.
fn files(folder: &Path, module: &str, messages: &mut BTreeSet<String>, targets: &mut BTreeSet<String>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if stem == "tests" || stem == "testing" || stem == "simulation" {
            continue;
        }
        let inner = format!("{module}::{stem}");
        if path.is_dir() {
            files(&path, &inner, messages, targets)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            targets.insert(if matches!(stem, "lib" | "main" | "mod") { module.to_owned() } else { inner });
            collect(&std::fs::read_to_string(&path)?, messages);
        }
    }
    Ok(())
}

/// What stands between the parentheses of a call that says something: its literals in which nothing is filled in.
fn collect(source: &str, messages: &mut BTreeSet<String>) {
    for call in ["tracing::error!(", "tracing::warn!(", "tracing::info!(", "tracing::debug!(", ".say("] {
        for (at, _) in source.match_indices(call) {
            let Some(rest) = source.get(at + call.len()..) else { continue };
            literals(rest, messages);
        }
    }
}

/// The literals up to the parenthesis that ends the call.
fn literals(text: &str, messages: &mut BTreeSet<String>) {
    let (mut depth, mut literal, mut escaped, mut plain) = (1_u32, None::<String>, false, true);
    for c in text.chars() {
        match &mut literal {
            Some(_) if escaped => (escaped, plain) = (false, false),
            Some(_) if c == '\\' => escaped = true,
            Some(said) if c == '"' => {
                if plain && said.len() >= 4 && !said.contains(['{', '\n']) {
                    messages.insert(said.clone());
                }
                (literal, plain) = (None, true);
            }
            Some(said) => said.push(c),
            None => match c {
                '"' => literal = Some(String::new()),
                '(' => depth += 1,
                ')' if depth == 1 => return,
                ')' => depth -= 1,
                _ => {}
            },
        }
    }
}
