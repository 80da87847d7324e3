//! Canonical JSON (RFC 8785) for what is signed or hashed here: one value, one text.

use serde_json::Value;

use crate::limits::JSON_DEPTH_MAX;

/// Why a value has no canonical form that we accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A fraction, or an integer that RFC 8785 would round: two different values would get one hash.
    #[error("a number is no integer between -(2^53 - 1) and 2^53 - 1")]
    Number,
    /// Nested deeper than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than {JSON_DEPTH_MAX} levels")]
    Depth,
    /// The value cannot be written.
    #[error("cannot be written as JSON")]
    Write,
}

/// The largest integer that every JSON reader keeps exactly.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// The canonical bytes of a value.
pub fn canonical_json(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    check(value, JSON_DEPTH_MAX)?;
    serde_json_canonicalizer::to_vec(value).map_err(|_| CanonicalError::Write)
}

fn check(value: &Value, depth: usize) -> Result<(), CanonicalError> {
    let deeper = || depth.checked_sub(1).ok_or(CanonicalError::Depth);
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if magnitude.is_some_and(|m| m <= INTEGER_MAX) { Ok(()) } else { Err(CanonicalError::Number) }
        }
        Value::Array(items) => {
            let depth = deeper()?;
            items.iter().try_for_each(|item| check(item, depth))
        }
        Value::Object(fields) => {
            let depth = deeper()?;
            fields.values().try_for_each(|field| check(field, depth))
        }
    }
}
