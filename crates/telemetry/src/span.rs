//! A span that has ended.

use crate::context::Context;

/// What a span is to its parent (OTLP `SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within a process.
    Internal,
    /// The answer to a request.
    Server,
    /// A request and the wait for its answer.
    Client,
}

/// What an attribute may be. There is no text but the program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A word of the program.
    Word(&'static str),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
}

/// What a span is called: words of the program, such as a method and a route's template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(pub &'static str, pub &'static str);

impl From<&'static str> for Name {
    fn from(word: &'static str) -> Self {
        Self(word, "")
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self(word, "") => f.write_str(word),
            Self(first, second) => write!(f, "{first} {second}"),
        }
    }
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Where it stands.
    pub context: Context,
    /// The span that it is a part of.
    pub parent: Option<[u8; 8]>,
    /// What was done.
    pub name: Name,
    /// What it is to its parent.
    pub kind: Kind,
    /// When it began, in nanoseconds since 1970.
    pub begun: u64,
    /// When it ended.
    pub ended: u64,
    /// Whether it failed.
    pub failed: bool,
    /// More of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans of other traces that belong to it.
    pub links: Vec<Context>,
}
