//! The end of a log, as far as it consists of the program's own words.
//!
//! A line is believed to be nothing: its time and level are read as such, its module must be one of ours, and its message one
//! that stands in the source with nothing filled in. Whatever else is on the line (values, errors, names, addresses) is counted
//! and left out.

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::Serialize;
use vocabulary::UnixTime;

/// Bytes of the end of a log that are looked at.
const TAIL: u64 = 1 << 20;
/// Lines that are told of it.
const LINES_MAX: usize = 5000;

/// The messages of the program in which nothing is filled in, one a line (`build.rs`).
const MESSAGES: &str = include_str!(concat!(env!("OUT_DIR"), "/messages.txt"));
/// Its modules, one a line.
const TARGETS: &str = include_str!(concat!(env!("OUT_DIR"), "/targets.txt"));
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// A line, as far as it is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// Bytes of it that are left out.
    left_out: usize,
}

/// The program's own words.
#[derive(Debug)]
pub(crate) struct Words {
    messages: BTreeSet<&'static str>,
    targets: BTreeSet<&'static str>,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self { messages: MESSAGES.lines().collect(), targets: TARGETS.lines().collect() }
    }

    /// The end of a log, one document a line.
    pub(crate) fn tail(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().skip(usize::from(length > TAIL)).collect();
        let mut out = Vec::new();
        for line in lines.iter().skip(lines.len().saturating_sub(LINES_MAX)) {
            serde_json::to_writer(&mut out, &self.line(line))?;
            out.push(b'\n');
        }
        Ok(out)
    }

    /// Takes a line apart.
    fn line(&self, text: &str) -> Line {
        let parts = if text.starts_with('{') { self.object(text) } else { self.plain(text) };
        let Some((time, level, target, message)) = parts else {
            let message = self.messages.get(text).copied();
            return Line { time: None, level: None, target: None, message, left_out: if message.is_some() { 0 } else { text.len() } };
        };
        let told = level.len().saturating_add(target.map_or(0, str::len)).saturating_add(message.map_or(0, str::len));
        Line { time: Some(time.to_string()), level: Some(level), target, message, left_out: text.len().saturating_sub(told) }
    }

    /// A line of `SWARM_LOG_FORMAT=json`.
    fn object(&self, text: &str) -> Option<Parts> {
        let line: serde_json::Value = serde_json::from_str(text).ok()?;
        let word = |name: &str| line.get(name).and_then(serde_json::Value::as_str);
        let message = line.get("fields").and_then(|fields| fields.get("message")).and_then(serde_json::Value::as_str);
        let message = message.and_then(|message| self.messages.get(message).copied());
        Some((time(word("timestamp")?)?, level(word("level")?)?, self.targets.get(word("target")?).copied(), message))
    }

    /// A line of text: time, level, module and colon, message and values.
    fn plain(&self, text: &str) -> Option<Parts> {
        let (at, rest) = text.split_once(' ')?;
        let (word, rest) = rest.trim_start().split_once(' ')?;
        let (time, level) = (time(at)?, level(word)?);
        let Some((target, rest)) = rest.trim_start().split_once(": ") else { return Some((time, level, None, None)) };
        Some((time, level, self.targets.get(target).copied(), self.begins(rest)))
    }

    /// The longest message with which a text begins, as whole words.
    fn begins(&self, text: &str) -> Option<&'static str> {
        let mut ends = std::iter::once(text.len()).chain(text.match_indices(' ').map(|(at, _)| at).rev().collect::<Vec<_>>());
        ends.find_map(|end| self.messages.get(text.get(..end)?).copied())
    }
}

type Parts = (UnixTime, &'static str, Option<&'static str>, Option<&'static str>);

fn level(word: &str) -> Option<&'static str> {
    LEVELS.into_iter().find(|level| *level == word)
}

/// A time as the logs have it (RFC 3339, UTC); it is told as the number that it is.
fn time(text: &str) -> Option<UnixTime> {
    let (date, rest) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    let numbers = |text: &str, between: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(between).map(|part| (part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(clock, ':')?);
    let fits = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let digits = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !fits || !digits {
        return None;
    }
    // Days since 1970 of the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UnixTime::from_millis(seconds * 1000 + millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_only_our_own_words_are_told() {
        let words = Words::new();
        let told = |text: &str| serde_json::to_string(&words.line(text)).unwrap();
        let ours = "the log was not published";
        assert!(words.messages.contains(ours) && words.targets.contains("control::publisher"), "the source is known");
        assert!(words.targets.contains("swarm::command::server") && words.messages.contains("ready; Ctrl-C stops"));
        for text in [
            format!("2026-11-25T14:30:28.123456Z ERROR control::publisher: {ours} error=canary of /srv/canary"),
            format!("{{\"timestamp\":\"2026-11-25T14:30:28.123456Z\",\"level\":\"ERROR\",\"target\":\"control::publisher\",\"fields\":{{\"message\":\"{ours}\",\"error\":\"canary\"}}}}"),
        ] {
            let line = words.line(&text);
            assert_eq!((line.level, line.target, line.message), (Some("ERROR"), Some("control::publisher"), Some(ours)), "{text}");
            assert!(line.left_out > 0 && line.time.is_some());
        }
        for text in [
            "canary",
            "canary the log was not published",
            "2026-11-25T14:30:28Z ERROR control::canary: canary",
            "2026-11-25T14:30:28Z canary control::publisher: the log was not published",
            "2026-11-25T14:30:28Zcanary ERROR control::publisher: x",
            "2026-11-25T14:30:28Z ERROR canary",
            "2026-11-25T14:30:28Z ERROR control::publisher: canary the log was not published",
            "2026-11-25T14:30:28Z ERROR control::publisher: the log was not publishedcanary",
            "{\"timestamp\":\"canary\",\"level\":\"ERROR\",\"target\":\"control::publisher\",\"fields\":{\"message\":\"canary\"}}",
            "{\"timestamp\":\"2026-11-25T14:30:28Z\",\"level\":\"ERROR\",\"target\":\"canary\",\"canary\":1,\"fields\":{\"message\":\"canary {\"}}",
            "{\"timestamp\":\"2026-11-25T14:30:28Z\",\"level\":\"ERROR\",\"target\":\"x\",\"fields\":\"canary\"}",
            "{canary",
            "thread 'main' panicked at canary",
            "\u{1b}[2J canary \u{0}",
        ] {
            assert!(!told(text).contains("canary"), "{}", told(text));
        }
    }

    #[test]
    fn times_are_numbers() {
        for (text, millis) in [("1970-01-01T00:00:00Z", 0), ("2000-02-29T12:00:00.5Z", 951_825_600_500), ("2026-11-25T14:30:28.123456Z", 1_795_617_028_123)] {
            assert_eq!(time(text), Some(UnixTime::from_millis(millis)), "{text}");
        }
        for text in ["", "Z", "2026-11-25T14:30:28", "2026-13-25T14:30:28Z", "2026-11-25T14:30Z", "1969-12-31T00:00:00Z", "2026-11-25T14:30:28.Z", "+026-11-25T14:30:28Z", "99999-11-25T14:30:28Z"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_long_log_is_told_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line = "2026-11-25T14:30:28Z  INFO control::publisher: canary\n";
        std::fs::write(&path, line.repeat(200_000)).unwrap();
        let told = Words::new().tail(&path).unwrap();
        assert_eq!(told.iter().filter(|byte| **byte == b'\n').count(), LINES_MAX);
        assert!(told.len() < 1 << 20);
        std::fs::write(&path, [0xff; 4096]).unwrap();
        assert!(Words::new().tail(&path).is_ok(), "bytes that are no text");
    }
}
