//! Labels that rules speak about: where, how sensitive, what for.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

use crate::limits::LABEL_MAX;

/// A text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {rule}")]
pub struct LabelError {
    /// Which kind of label was expected.
    pub what: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $fits:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);
        impl $name {
            /// The label's text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = LabelError;
            fn from_str(text: &str) -> Result<Self, LabelError> {
                let fits: fn(char) -> bool = $fits;
                if text.is_empty() || text.len() > LABEL_MAX || !text.chars().all(fits) {
                    return Err(LabelError { what: $what, rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = LabelError;
            fn try_from(text: String) -> Result<Self, LabelError> { text.parse() }
        }
        impl From<$name> for String { fn from(label: $name) -> Self { label.0 } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )*};
}

labels! {
    /// A region, such as `eu-central`.
    Region, "a region", "1 to 64 of a-z, 0-9 and -, such as eu-central",
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    /// A jurisdiction, such as `EU` or `CH`.
    Jurisdiction, "a jurisdiction", "1 to 64 of A-Z, 0-9 and -, such as EU",
        |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
    /// What data may be used for, such as `research`.
    Purpose, "a purpose", "1 to 64 of a-z, 0-9 and -, such as research",
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
}

/// Labels of a node, or what a job asks of a node's labels: `key=value`.
pub type Labels = BTreeMap<String, String>;

/// Jurisdictions in which data may be opened; empty means any.
pub type Jurisdictions = BTreeSet<Jurisdiction>;

/// How sensitive data is, in rising order. Also the clearance of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// Harmless if everybody saw it.
    Public,
    /// For the tenant only.
    Internal,
    /// For those cleared only.
    Confidential,
    /// Under law: health, finance, personal data at scale.
    Regulated,
}

impl Sensitivity {
    /// The number that policies compare.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Internal => 1,
            Self::Confidential => 2,
            Self::Regulated => 3,
        }
    }
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Regulated => "regulated",
        }
    }
}

impl FromStr for Sensitivity {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        match text {
            "public" => Ok(Self::Public),
            "internal" => Ok(Self::Internal),
            "confidential" => Ok(Self::Confidential),
            "regulated" => Ok(Self::Regulated),
            _ => Err(LabelError { what: "a sensitivity", rule: "one of public, internal, confidential, regulated" }),
        }
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node's evidence earned it: 0 no evidence, 1 measured, 2 enclave.
///
/// Only the enclave room raises it above zero; until that room exists every node has trust 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u8)]
pub struct TrustLevel(pub u8);
