//! Names of files inside a volume: relative UTF-8 paths without surprises.

use crate::limits::{NAME_BYTES_MAX, NAME_DEPTH_MAX, NAME_PART_MAX};

/// A path is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name for a file in a volume: {rule}")]
pub struct NameError {
    /// The name, cut and made printable.
    pub name: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// Checks a name: relative, `/` between parts, no empty part, no `.` or `..`, no NUL or backslash.
pub fn check(name: &str) -> Result<(), NameError> {
    let fail = |rule| Err(NameError { name: name.chars().filter(|c| !c.is_control()).take(80).collect(), rule });
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return fail("it has 1 to 1024 bytes");
    }
    if name.starts_with('/') {
        return fail("it is relative");
    }
    if name.contains(['\0', '\\']) || name.chars().any(char::is_control) {
        return fail("it has no control characters and no backslash");
    }
    let mut depth = 0;
    for part in name.split('/') {
        depth += 1;
        if part.is_empty() || part == "." || part == ".." {
            return fail("its parts are neither empty nor `.` nor `..`");
        }
        if part.len() > NAME_PART_MAX || depth > NAME_DEPTH_MAX {
            return fail("its parts have at most 255 bytes, and there are at most 64 of them");
        }
    }
    Ok(())
}
