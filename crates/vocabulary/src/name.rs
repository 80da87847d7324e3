//! Names that people give: normalised once, so that case, width and spaces never make a second thing.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use unicode_normalization::UnicodeNormalization;
use utoipa::ToSchema;

use crate::limits::NAME_MAX;

/// Names that no tenant, user or project may take, because routes and rules speak of them.
const RESERVED: [&str; 7] = ["system", "root", "swarm", "operator", "admin-platform", "nobody", "deployment"];

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left after normalising.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`NAME_MAX`] after normalising.
    #[error("a name has at most {NAME_MAX} characters")]
    TooLong,
    /// A character outside `a-z 0-9 . _ - @ +`, or the first one is no letter or digit.
    #[error("a name has only letters a-z, digits and . _ - @ +, and begins with a letter or digit")]
    Character,
    /// The name is reserved.
    #[error("this name is reserved")]
    Reserved,
}

/// A name in its one normal form: NFKC, lower case, trimmed, 1 to 64 characters of `a-z 0-9 . _ - @ +`.
///
/// Two texts that a person would call the same name are the same `Name`
/// (the mistake of HCSEC-2025-13, where " Root" passed as another name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, min_length = 1, max_length = 64)]
pub struct Name(String);

impl Name {
    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        // A hostile text may be huge: what is far too long is not normalised at all.
        if text.len() > NAME_MAX * 8 {
            return Err(NameError::TooLong);
        }
        let normal: String = text.trim().nfkc().flat_map(char::to_lowercase).nfkc().collect();
        let normal = normal.trim();
        if normal.is_empty() {
            return Err(NameError::Empty);
        }
        if normal.chars().count() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '@' | '+');
        let begins = normal.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins || !normal.chars().all(fits) {
            return Err(NameError::Character);
        }
        if RESERVED.contains(&normal) {
            return Err(NameError::Reserved);
        }
        Ok(Self(normal.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_one_name() {
        for alias in ["alice", " Alice ", "ALICE", "ａｌｉｃｅ", "\u{2003}alice\t"] {
            assert_eq!(alias.parse::<Name>().unwrap().as_str(), "alice", "{alias:?}");
        }
    }

    #[test]
    fn refuses_by_rule() {
        for (text, error) in [
            ("", NameError::Empty),
            ("  ", NameError::Empty),
            (" Root", NameError::Reserved),
            ("ＳＹＳＴＥＭ", NameError::Reserved),
            ("a/b", NameError::Character),
            ("-a", NameError::Character),
            ("a\u{202e}b", NameError::Character),
            ("\u{1b}[31m", NameError::Character),
            ("аlice", NameError::Character), // Cyrillic а
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
        }
        assert_eq!("a".repeat(65).parse::<Name>(), Err(NameError::TooLong));
        assert_eq!("a".repeat(10_000_000).parse::<Name>(), Err(NameError::TooLong));
    }
}
