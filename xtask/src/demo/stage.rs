//! How the demo tells what it does.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

static FOLDER: OnceLock<String> = OnceLock::new();
static STEP: AtomicU8 = AtomicU8::new(0);

/// Shows this folder as `$D` from now on.
pub(crate) fn shorten(folder: &Path) {
    let name = folder.display().to_string();
    println!("   everything lies below D={name}");
    let _ = FOLDER.set(name);
}

fn short(text: &str) -> String {
    let root = format!("{}/", crate::root().display());
    let text = text.replace(&root, "");
    FOLDER.get().map_or_else(|| text.clone(), |folder| text.replace(folder.as_str(), "$D"))
}

/// The next step.
pub(crate) fn title(text: &str) {
    let step = STEP.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    println!("\n{step}. {text}");
}

/// A remark.
pub(crate) fn say(text: &str) {
    println!("   {}", short(text));
}

/// Something that was checked and holds.
pub(crate) fn check(text: &str) {
    println!("   ✓ {}", short(text));
}

/// A command as it is typed.
pub(crate) fn typed(arguments: &[&str]) {
    let quoted: Vec<String> = arguments
        .iter()
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
        .collect();
    println!("   $ swarm {}", short(&quoted.join(" ")));
}

/// Lines of a command's answer.
pub(crate) fn indented(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line = short(line);
        let cut: String = line.chars().take(170).collect();
        println!("     {cut}{}", if cut.len() < line.len() { "…" } else { "" });
    }
}

/// A refusal: what was tried, and the reason that was given.
pub(crate) fn refused(what: &str, reason: &str) {
    let told: Vec<&str> = reason.lines().filter(|line| line.starts_with("error") || line.starts_with("NOT PROVED")).take(1).collect();
    let told = told.first().copied().unwrap_or_else(|| reason.lines().next().unwrap_or(""));
    println!("   ✓ refused: {what}\n       {}", short(told));
}
