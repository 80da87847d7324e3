//! The control plane's one clock.

use vocabulary::UnixTime;

/// Now, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place where the control plane reads the time")]
pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
