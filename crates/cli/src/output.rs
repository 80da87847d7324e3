//! Data to standard output, everything else to standard error; nothing from outside drives the terminal.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::error::CliError;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document: the API's, verbatim.
    Json,
    /// The same as YAML.
    Yaml,
    /// One JSON document a line.
    Jsonl,
}

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) quiet: bool,
}

impl Output {
    /// Prints a list: `columns` and `row` make the table, the items themselves are the JSON.
    pub(crate) fn list<T: Serialize>(
        self,
        items: &[T],
        columns: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Table => {
                let mut table = comfy_table::Table::new();
                table.load_preset(comfy_table::presets::NOTHING);
                table.set_header(columns.iter().map(|column| column.to_uppercase()));
                for item in items {
                    table.add_row(row(item).into_iter().map(|cell| visible(&cell)));
                }
                // Trailing blanks only trouble those who copy.
                let text: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
                line(&text.join("\n"))
            }
            Format::Json => line(&to_json(&serde_json::json!({"version": 1, "items": items}))?),
            Format::Yaml => line(to_yaml(&serde_json::to_value(items).map_err(unprintable)?).trim_end()),
            Format::Jsonl => items.iter().try_for_each(|item| line(&serde_json::to_string(item).map_err(unprintable)?)),
        }
    }

    /// Prints one thing: pairs for people, the thing itself as JSON.
    pub(crate) fn one<T: Serialize>(self, item: &T, pairs: &[(&str, String)]) -> Result<(), CliError> {
        match self.format {
            Format::Table => {
                let width = pairs.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
                pairs.iter().try_for_each(|(key, value)| line(&format!("{key:width$}  {}", visible(value))))
            }
            Format::Json => line(&to_json(item)?),
            Format::Yaml => line(to_yaml(&serde_json::to_value(item).map_err(unprintable)?).trim_end()),
            Format::Jsonl => line(&serde_json::to_string(item).map_err(unprintable)?),
        }
    }

    /// A remark on standard error.
    pub(crate) fn say(self, text: impl AsRef<str>) {
        if !self.quiet {
            note(text.as_ref());
        }
    }
}

fn unprintable(error: serde_json::Error) -> CliError {
    CliError::new(1, format!("the answer cannot be printed: {error}"))
}

fn to_json<T: Serialize>(item: &T) -> Result<String, CliError> {
    serde_json::to_string_pretty(item).map_err(unprintable)
}

/// Writes one line of data. A closed pipe ends quietly, as `head` expects.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes of data.
pub(crate) fn bytes(data: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(CliError::new(141, "")),
        Err(error) => Err(error.into()),
    }
}

/// Writes a remark to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether somebody looks at standard error.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Makes control, escape and direction characters visible, so that a name from elsewhere cannot drive the terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if c == '\n' || !hidden {
            shown.push(if c == '\n' { ' ' } else { c });
        } else {
            shown.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        }
    }
    shown
}

/// YAML 1.2 of a JSON value: every scalar but plain words and numbers is written as a JSON string, which YAML reads too.
fn to_yaml(value: &serde_json::Value) -> String {
    fn scalar(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::String(text)
                if !text.is_empty()
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'))
                    && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
                    && !matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n") =>
            {
                text.clone()
            }
            other => other.to_string(),
        }
    }
    fn write(value: &serde_json::Value, indent: usize, out: &mut String) {
        let pad = " ".repeat(indent);
        match value {
            serde_json::Value::Object(fields) if !fields.is_empty() => {
                for (key, inner) in fields {
                    let key = scalar(&serde_json::Value::String(key.clone()));
                    nested(&format!("{pad}{key}:"), inner, indent, out);
                }
            }
            serde_json::Value::Array(items) if !items.is_empty() => {
                for inner in items {
                    nested(&format!("{pad}-"), inner, indent, out);
                }
            }
            other => out.push_str(&format!("{pad}{}\n", scalar(other))),
        }
    }
    fn nested(head: &str, inner: &serde_json::Value, indent: usize, out: &mut String) {
        let block = inner.as_object().is_some_and(|fields| !fields.is_empty())
            || inner.as_array().is_some_and(|items| !items.is_empty());
        if block {
            out.push_str(&format!("{head}\n"));
            write(inner, indent + 2, out);
        } else {
            out.push_str(&format!("{head} {}\n", scalar(inner)));
        }
    }
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

/// Bytes for people.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut divisor = 1_u64;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1024 {
        divisor *= 1024;
        unit += 1;
    }
    let whole = bytes / divisor;
    let tenth = (bytes % divisor) * 10 / divisor;
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_made_visible() {
        assert_eq!(visible("a\u{1b}[31mred\u{202e}x\r\ny"), "a\\u{1b}[31mred\\u{202e}x\\u{d} y");
    }

    #[test]
    fn yaml_quotes_what_yaml_would_misread() {
        let value = serde_json::json!({"a": "no", "b": ["x: y", 1, {}], "c": {"d": null, "e": "plain"}});
        assert_eq!(to_yaml(&value), "a: \"no\"\nb:\n  - \"x: y\"\n  - 1\n  - {}\nc:\n  d: null\n  e: plain\n");
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(64 << 20), "64.0 MiB");
    }
}
