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
                table.column_iter_mut().for_each(|column| {
                    column.set_padding((0, 2));
                });
                for item in items {
                    table.add_row(row(item).into_iter().map(|cell| visible(&cell)));
                }
                // Trailing blanks only trouble those who copy.
                let text: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
                line(&text.join("\n"))
            }
            Format::Json => json(&serde_json::json!({"version": 1, "items": items})),
            Format::Yaml => yaml(&items),
            Format::Jsonl => items.iter().try_for_each(json_line),
        }
    }

    /// Prints one thing: pairs for people, the thing itself as JSON.
    pub(crate) fn one<T: Serialize>(self, item: &T, pairs: &[(&str, String)]) -> Result<(), CliError> {
        match self.format {
            Format::Table => {
                let width = pairs.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
                pairs.iter().try_for_each(|(key, value)| line(&format!("{key:width$}  {}", visible(value))))
            }
            Format::Json => json(item),
            Format::Yaml => yaml(item),
            Format::Jsonl => json_line(item),
        }
    }

    /// What is shown once and never again, on standard error: `--quiet` does not hide it.
    #[expect(clippy::unused_self, reason = "beside `say`, which asks for it")]
    pub(crate) fn show_once(self, text: impl AsRef<str>) {
        note(text.as_ref());
    }

    /// A remark on standard error.
    pub(crate) fn say(self, text: impl AsRef<str>) {
        if !self.quiet {
            note(text.as_ref());
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn unprintable(error: serde_json::Error) -> CliError {
    CliError::new(1, format!("the answer cannot be printed: {error}"))
}

fn json<T: Serialize>(item: &T) -> Result<(), CliError> {
    line(&visible_json(&serde_json::to_string_pretty(item).map_err(unprintable)?))
}

fn yaml<T: Serialize + ?Sized>(item: &T) -> Result<(), CliError> {
    line(&visible_json(to_yaml(&serde_json::to_value(item).map_err(unprintable)?).trim_end()))
}

/// Prints one JSON document as one line.
pub(crate) fn json_line<T: Serialize>(item: &T) -> Result<(), CliError> {
    line(&one_json_line(item)?)
}

/// One JSON document as one line.
pub(crate) fn one_json_line<T: Serialize>(item: &T) -> Result<String, CliError> {
    Ok(visible_json(&serde_json::to_string(item).map_err(unprintable)?))
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
    if crate::logs::are_json() {
        return crate::logs::line("INFO", text, None, None);
    }
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether somebody looks at standard error.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether a character could drive a terminal, or hide or reorder what stands around it.
fn treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Makes control, escape and direction characters visible, so that a name from elsewhere cannot drive the terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(' '),
            c if treacherous(c) => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

/// The same for a JSON text, as JSON escapes: no program that reads it sees a difference.
fn visible_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && treacherous(c) {
            // Control characters below a space are escaped already; what is left stands inside strings.
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A job's log as text for a terminal: lines and tabs stay, everything else that could drive it is made visible.
/// Frames end anywhere, also inside a character or between `\r` and `\n`: the rest waits for the next one.
#[derive(Debug, Default)]
pub(crate) struct LogText {
    rest: Vec<u8>,
    returned: bool,
}

impl LogText {
    /// The text of the next bytes.
    pub(crate) fn push(&mut self, data: &[u8]) -> String {
        self.rest.extend_from_slice(data);
        let bytes = std::mem::take(&mut self.rest);
        let mut shown = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.show(chunk.valid(), &mut shown);
            let broken = chunk.invalid();
            if chunks.peek().is_none() && cut(broken) {
                self.rest = broken.to_vec();
            } else if !broken.is_empty() {
                self.show("\u{fffd}", &mut shown);
            }
        }
        shown
    }

    /// What is left at the end.
    pub(crate) fn finish(&mut self) -> String {
        let mut shown = String::new();
        if !std::mem::take(&mut self.rest).is_empty() {
            self.show("\u{fffd}", &mut shown);
        }
        if std::mem::take(&mut self.returned) {
            shown.push('\n');
        }
        shown
    }

    fn show(&mut self, text: &str, shown: &mut String) {
        for c in text.chars() {
            // A lone return would let a line overwrite what stands on it: it becomes a line of its own.
            if std::mem::take(&mut self.returned) && c != '\n' {
                shown.push('\n');
            }
            match c {
                '\n' | '\t' => shown.push(c),
                '\r' => self.returned = true,
                other => shown.push_str(&visible(other.encode_utf8(&mut [0; 4]))),
            }
        }
    }
}

/// Whether bytes that are no UTF-8 could be the beginning of a character.
fn cut(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() < 4 && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// YAML 1.2 of a JSON value: every scalar but plain words and numbers is written as a JSON string, which YAML reads too.
fn to_yaml(value: &serde_json::Value) -> String {
    fn plain(text: &str) -> bool {
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'))
            && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
            && !matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n")
    }
    fn scalar(value: &serde_json::Value) -> String {
        value.as_str().filter(|text| plain(text)).map_or_else(|| value.to_string(), str::to_owned)
    }
    fn write(value: &serde_json::Value, indent: usize, out: &mut String) {
        let pad = " ".repeat(indent);
        if let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) {
            for (key, inner) in fields {
                let key = scalar(&serde_json::Value::String(key.clone()));
                nested(&format!("{pad}{key}:"), inner, indent, out);
            }
        } else if let Some(items) = value.as_array().filter(|items| !items.is_empty()) {
            for inner in items {
                nested(&format!("{pad}-"), inner, indent, out);
            }
        } else {
            out.push_str(&format!("{pad}{}\n", scalar(value)));
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
    fn hostile_text_in_json_is_escaped_and_means_the_same() {
        let text = "\u{9b}31m\u{202e}x\u{e0041}\u{7f}é\"";
        let shown = visible_json(&serde_json::to_string(text).unwrap());
        assert_eq!(shown, "\"\\u009b31m\\u202ex\\udb40\\udc41\\u007fé\\\"\"");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }

    #[test]
    fn logs_cannot_drive_the_terminal_and_frames_end_anywhere() {
        let mut text = LogText::default();
        assert_eq!(text.push(b"one\ttwo\r\n\x1b]0;title\x07"), "one\ttwo\n\\u{1b}]0;title\\u{7}");
        assert_eq!(text.push(b" 10%\r"), " 10%");
        assert_eq!(text.push(b"20%\r"), "\n20%");
        assert_eq!(text.push("\nk\u{e4}".as_bytes().get(..3).unwrap()), "\nk");
        assert_eq!(text.push(&[0xa4, 0xff, b'!', 0xe2, 0x82]), "\u{e4}\u{fffd}!");
        assert_eq!(text.finish(), "\u{fffd}");
        assert_eq!(text.finish(), "");
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
