//! The outcome of a verification, as data: one line for each claim.

use serde::Serialize;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Signatures and hashes carry it.
    Proved,
    /// They do not: the receipt fails.
    NotProved,
    /// Nothing in the file can carry it; the detail says why.
    NotChecked,
}

impl Verdict {
    /// The words that are printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::NotProved => "not proved",
            Self::NotChecked => "not checked",
        }
    }
}

/// With which kind of tool somebody else can repeat a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    /// An independent one, such as OpenSSL or a foreign tlog tool.
    Independent,
    /// The vendor's own.
    Vendor,
    /// A short script beside the bytes (the guide page).
    Script,
    /// Only our code.
    OursOnly,
}

impl Tool {
    /// The words that are printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Independent => "independent tool",
            Self::Vendor => "vendor's tool",
            Self::Script => "script beside the bytes",
            Self::OursOnly => "only our code",
        }
    }
}

/// One claim and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What is claimed, in a few words.
    pub claim: String,
    /// What became of it.
    pub verdict: Verdict,
    /// With which values, or why not.
    pub detail: String,
    /// Who else can check it.
    pub tool: Tool,
}

/// All claims of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One line for each claim, in the order of the checks.
    pub lines: Vec<Line>,
    /// Whether no claim failed. Claims that nothing could check do not fail; read them.
    pub ok: bool,
}

/// Collects lines.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    pub(crate) fn add(&mut self, claim: &str, verdict: Verdict, tool: Tool, detail: impl Into<String>) {
        self.0.push(Line { claim: claim.to_owned(), verdict, detail: detail.into(), tool });
    }
    /// Adds a line by the outcome of a check and hands its value on.
    pub(crate) fn check<T>(&mut self, claim: &str, tool: Tool, outcome: Result<(T, String), String>) -> Option<T> {
        match outcome {
            Ok((value, detail)) => {
                self.add(claim, Verdict::Proved, tool, detail);
                Some(value)
            }
            Err(why) => {
                self.add(claim, Verdict::NotProved, tool, why);
                None
            }
        }
    }
    pub(crate) fn report(self) -> Report {
        let ok = !self.0.is_empty() && self.0.iter().all(|line| line.verdict != Verdict::NotProved);
        Report { lines: self.0, ok }
    }
}

/// A chain of errors in one sentence.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
