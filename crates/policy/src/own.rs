//! A tenant's own policies: bounded before they are parsed, parsed, validated strictly, and kept apart from ours by their ids.

use std::collections::BTreeSet;

use cedar_policy::{Policy, PolicyId, PolicySet};

use crate::explain::quoted;
use crate::limits::{OWN_POLICIES_MAX, OWN_TEXT_MAX, RULE_BYTES_MAX, RULE_DEPTH_MAX, RULE_ID_MAX, RULE_OPERATORS_MAX};

/// Policies of a tenant that fit. Made by [`PolicySets::check_own`](crate::PolicySets::check_own) alone.
#[derive(Debug, Clone)]
pub struct OwnPolicies {
    pub(crate) policies: Vec<Policy>,
}

impl OwnPolicies {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.policies.len()
    }
}

/// Why a tenant's policies are refused. Nothing of them is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnPolicyError {
    /// Too long.
    #[error("the policies have more than {OWN_TEXT_MAX} bytes")]
    TextTooLong,
    /// Too many.
    #[error("there are more than {OWN_POLICIES_MAX} policies")]
    TooMany,
    /// One is too long.
    #[error("policy {number} has more than {RULE_BYTES_MAX} bytes")]
    RuleTooLong {
        /// Which, from 1.
        number: usize,
    },
    /// One nests too deeply.
    #[error("policy {number} nests brackets and `if` more than {RULE_DEPTH_MAX} deep")]
    TooDeep {
        /// Which, from 1.
        number: usize,
    },
    /// One has too many operators.
    #[error("policy {number} has more than {RULE_OPERATORS_MAX} operators")]
    TooManyOperators {
        /// Which, from 1.
        number: usize,
    },
    /// A character that a terminal or a reader would take for something else.
    #[error("byte {offset} begins a control or direction character")]
    Character {
        /// Where.
        offset: usize,
    },
    /// It is not Cedar.
    #[error("the policies do not parse: {0}")]
    Parse(String),
    /// Templates are refused: the solver cannot prove what is linked from them.
    #[error("policy templates are refused: write the policy out")]
    Template,
    /// A policy without a name.
    #[error("a policy has no `@id`")]
    NoId,
    /// A bad name.
    #[error("`@id(\"{0}\")` is not 1 to {RULE_ID_MAX} of a-z, 0-9 and -")]
    Id(String),
    /// Two of one name.
    #[error("`@id(\"{0}\")` stands twice")]
    Twice(String),
    /// A name of ours.
    #[error("`@id(\"{0}\")` is the platform's own")]
    Reserved(String),
    /// An annotation that means nothing.
    #[error("annotation `@{0}` is unknown: `@id` and `@description` are known")]
    Annotation(String),
    /// It does not fit the schema. Warnings count.
    #[error("policy `{id}` does not fit the schema: {rule}")]
    Validate {
        /// Which.
        id: String,
        /// What the validator says.
        rule: String,
    },
}

/// Parses a tenant's policies. Their ids become `own/ID`, so that none can stand for one of ours.
pub(crate) fn parse(text: &str, reserved: &PolicySet) -> Result<OwnPolicies, OwnPolicyError> {
    bounded(text)?;
    let parsed: PolicySet = text.parse().map_err(|error: cedar_policy::ParseErrors| OwnPolicyError::Parse(quoted(&error.to_string())))?;
    if parsed.templates().next().is_some() {
        return Err(OwnPolicyError::Template);
    }
    if parsed.num_of_policies() > OWN_POLICIES_MAX {
        return Err(OwnPolicyError::TooMany);
    }
    let mut ids = BTreeSet::new();
    let mut policies = Vec::new();
    for policy in parsed.policies() {
        if let Some((name, _)) = policy.annotations().find(|(name, _)| *name != "id" && *name != "description") {
            return Err(OwnPolicyError::Annotation(quoted(name)));
        }
        let id = policy.annotation("id").ok_or(OwnPolicyError::NoId)?;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.is_empty() || id.len() > RULE_ID_MAX || !id.chars().all(fits) {
            return Err(OwnPolicyError::Id(quoted(id)));
        }
        if reserved.policy(&PolicyId::new(id)).is_some() {
            return Err(OwnPolicyError::Reserved(id.to_owned()));
        }
        if !ids.insert(id.to_owned()) {
            return Err(OwnPolicyError::Twice(id.to_owned()));
        }
        policies.push(policy.new_id(PolicyId::new(format!("own/{id}"))));
    }
    policies.sort_by_key(|policy| policy.id().to_string());
    Ok(OwnPolicies { policies })
}

/// Where the scan stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Rule,
    Text,
    Escape,
    Comment,
}

/// Bounds length, number, depth and operators before the parser sees anything: it recurses along all four.
fn bounded(text: &str) -> Result<(), OwnPolicyError> {
    if text.len() > OWN_TEXT_MAX {
        return Err(OwnPolicyError::TextTooLong);
    }
    let (mut place, mut number) = (In::Rule, 1_usize);
    let (mut bytes, mut depth, mut ifs, mut operators) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut last, mut word) = (' ', String::new());
    for (offset, c) in text.char_indices() {
        if (c.is_control() && c != '\n' && c != '\t') || is_direction(c) {
            return Err(OwnPolicyError::Character { offset });
        }
        bytes = bytes.saturating_add(c.len_utf8());
        if bytes > RULE_BYTES_MAX {
            return Err(OwnPolicyError::RuleTooLong { number });
        }
        match place {
            In::Comment if c == '\n' => place = In::Rule,
            In::Text if c == '\\' => place = In::Escape,
            In::Text if c == '"' => place = In::Rule,
            In::Escape => place = In::Text,
            In::Comment | In::Text => {}
            In::Rule => {
                if c.is_ascii_alphanumeric() || c == '_' {
                    word.push(c);
                } else {
                    if word == "if" {
                        ifs = ifs.saturating_add(1);
                    } else if matches!(word.as_str(), "in" | "has" | "like" | "is") {
                        operators = operators.saturating_add(1);
                    }
                    word.clear();
                }
                match c {
                    '"' => place = In::Text,
                    '/' if last == '/' => place = In::Comment,
                    '(' | '[' | '{' => depth = depth.saturating_add(1),
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    '&' | '|' | '=' | '<' | '>' | '!' | '+' | '-' | '*' | '.' => operators = operators.saturating_add(1),
                    ';' => {
                        (bytes, depth, ifs, operators) = (0, 0, 0, 0);
                        number = number.saturating_add(1);
                        if number > OWN_POLICIES_MAX.saturating_add(1) {
                            return Err(OwnPolicyError::TooMany);
                        }
                    }
                    _ => {}
                }
                if depth.saturating_add(ifs) > RULE_DEPTH_MAX {
                    return Err(OwnPolicyError::TooDeep { number });
                }
                if operators > RULE_OPERATORS_MAX {
                    return Err(OwnPolicyError::TooManyOperators { number });
                }
            }
        }
        last = if place == In::Rule { c } else { ' ' };
    }
    Ok(())
}

/// Characters that change how the text around them reads.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
