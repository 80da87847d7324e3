//! Canonical JSON (RFC 8785), strictly: one value, one text.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::limits::INTEGER_MAX;

/// Why a value or text is not canonical JSON that we accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Longer than the caller's limit.
    #[error("more than {0} bytes")]
    TooLong(usize),
    /// Not JSON, or not the shape that was expected.
    #[error("{0}")]
    Json(String),
    /// A number that RFC 8785 would round, or a fraction.
    #[error("`{0}` is not an integer of at most 2^53 - 1: write it as text")]
    Number(String),
    /// Other bytes than the canonical ones: spaces, order, escapes, doubled keys, rounded numbers.
    #[error("the bytes are not the canonical form of their content")]
    NotCanonical,
}

/// The canonical bytes of a value; numbers that would be rounded are refused.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|e| CanonicalError::Json(e.to_string()))?;
    numbers(&value, "")?;
    serde_json_canonicalizer::to_vec(&value).map_err(|e| CanonicalError::Json(e.to_string()))
}

/// Reads bytes that must be canonical already, at most `limit` of them.
pub fn value_from_slice(bytes: &[u8], limit: usize) -> Result<Value, CanonicalError> {
    if bytes.len() > limit {
        return Err(CanonicalError::TooLong(limit));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| CanonicalError::Json(e.to_string()))?;
    if to_vec(&value)? == bytes { Ok(value) } else { Err(CanonicalError::NotCanonical) }
}

/// Reads canonical bytes into a type, and refuses them unless the type writes exactly these bytes again.
///
/// So nothing that the type does not know, and no second way to write what it knows, passes.
pub fn from_slice<T: DeserializeOwned + Serialize>(bytes: &[u8], limit: usize) -> Result<T, CanonicalError> {
    let value = value_from_slice(bytes, limit)?;
    let typed: T = serde_json::from_value(value).map_err(|e| CanonicalError::Json(e.to_string()))?;
    if to_vec(&typed)? == bytes { Ok(typed) } else { Err(CanonicalError::NotCanonical) }
}

fn numbers(value: &Value, path: &str) -> Result<(), CanonicalError> {
    match value {
        Value::Number(number) => {
            let fits = number.as_u64().map_or_else(
                || number.as_i64().is_some_and(|n| n.unsigned_abs() <= INTEGER_MAX),
                |n| n <= INTEGER_MAX,
            );
            if fits { Ok(()) } else { Err(CanonicalError::Number(path.to_owned())) }
        }
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| numbers(item, &format!("{path}[{index}]")))
        }
        Value::Object(fields) => {
            fields.iter().try_for_each(|(key, item)| numbers(item, &format!("{path}.{key}").replace("..", ".")))
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
