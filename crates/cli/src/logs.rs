//! What a part of the program writes of its work: to standard error, as text or as one JSON object a line.
//!
//! With `SWARM_LOG_FORMAT=json` every line is one: what is traced, what is remarked to people, the error at the end, a panic.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::error::CliError;

/// The variable that says the form: `text` or `json`.
pub(crate) const FORMAT: &str = "SWARM_LOG_FORMAT";
/// The variable that says what is written: `tracing`'s filters.
pub(crate) const FILTER: &str = "SWARM_LOG";

/// Whether this process writes JSON. Set once, before anything else is said.
static JSON: AtomicBool = AtomicBool::new(false);

/// Begins to write, in the form that the environment says. What it says wrongly is refused before any state is touched.
pub(crate) fn start() -> Result<(), CliError> {
    let json = match std::env::var_os(FORMAT) {
        None => false,
        Some(form) if form.is_empty() || form == "text" => false,
        Some(form) if form == "json" => true,
        Some(_) => return Err(CliError::usage(format!("{FORMAT} is `text` or `json`"))),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| "info".into());
    // Whoever reads this may be gone before us: a line that nobody takes must not end the part.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    if json {
        JSON.store(true, Ordering::Relaxed);
        std::panic::set_hook(Box::new(|panic| line("ERROR", &panic.to_string(), None, None)));
        builder.with_ansi(false).json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// Whether this process writes JSON.
pub(crate) fn are_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Whether somebody chose what is written.
pub(crate) fn are_filtered() -> bool {
    std::env::var_os(FILTER).is_some_and(|filter| !filter.is_empty())
}

/// Writes a line of our own in the form of those that are traced. No filter has a say: it is a remark to people, or why we end.
pub(crate) fn line(level: &str, message: &str, code: Option<&str>, hint: Option<&str>) {
    let mut timestamp = String::new();
    // A clock that cannot be written leaves an empty time, and the line is still worth having.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let mut fields = serde_json::Map::new();
    for (name, value) in [("message", Some(message)), ("code", code), ("hint", hint)] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), json!(value));
        }
    }
    let line = json!({ "timestamp": timestamp, "level": level, "fields": fields, "target": "swarm" });
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The message of a line that says why a part ended, if that is what it is.
pub(crate) fn error_in(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let ours = line.get("level")? == "ERROR" && line.get("target")? == "swarm";
    line.get("fields")?.get("message")?.as_str().filter(|_| ours).map(str::to_owned)
}
