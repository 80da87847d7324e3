//! What went wrong, which exit code that is, and what to do about it.

use std::fmt;

use serde::Serialize;
use vocabulary::{ErrorCode, Problem};

/// An error of the command line.
#[derive(Debug)]
pub(crate) struct CliError {
    /// The exit code (`console.md` 11: 1 failure, 2 usage, 3 not found, 4 denied, 5 conflict, 6 verification, 7 policy, 8 timeout).
    pub(crate) exit: u8,
    /// The sentence.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// The server's document, if it was the server that refused.
    pub(crate) problem: Option<Box<Problem>>,
}

impl CliError {
    pub(crate) fn new(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, problem: None }
    }
    /// Wrong usage: a flag, an argument, a file that is not there.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }
    /// A check failed: bytes are not what they should be.
    pub(crate) fn verification(message: impl Into<String>) -> Self {
        Self::new(6, message)
    }
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        self.problem.as_ref().map(|problem| problem.code)
    }
}

/// An error that no server told, as programs read it with `-o json`: beside the server's problem documents (RFC 9457), told
/// apart by its type, for it has no HTTP status.
#[derive(Debug, Serialize)]
pub(crate) struct LocalProblem<'a> {
    /// `urn:swarm:local:` and the word of the exit code.
    #[serde(rename = "type")]
    kind: String,
    /// Of this document.
    version: u32,
    /// With which the program ends.
    exit: u8,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> From<&'a CliError> for LocalProblem<'a> {
    fn from(error: &'a CliError) -> Self {
        let word = match error.exit {
            2 => "usage",
            3 => "not_found",
            4 => "denied",
            5 => "conflict",
            6 => "verification",
            7 => "policy",
            8 => "timeout",
            _ => "failure",
        };
        Self { kind: format!("urn:swarm:local:{word}"), version: 1, exit: error.exit, detail: &error.message, hint: error.hint.as_deref() }
    }
}

/// What clap says of a line that it does not understand: its first paragraph is the error, the rest says how it would be right.
impl From<&clap::Error> for CliError {
    fn from(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
        let message = paragraphs.next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
        let rest: Vec<String> = paragraphs.filter(|paragraph| !paragraph.is_empty()).collect();
        Self { hint: Some(rest.join("; ")).filter(|hint| !hint.is_empty()), ..Self::usage(message) }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Self {
            exit: problem.code.exit_code(),
            message: problem.detail.clone(),
            hint: Some(problem.hint.clone()),
            problem: Some(Box::new(problem)),
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::new(1, chain(error.as_ref()))
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::new(1, error.to_string())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error and its causes, each once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
