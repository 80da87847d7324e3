//! How many files this process may open, and how many connections that leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{CONNECTIONS_MAX, FILES_RESERVED};

/// Where the limit is absurd, somebody can still ask what is wrong.
const PLACES_MIN: usize = 2;

/// Which listener asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// The API: two thirds of what there is. People and programs are more than machines, and strangers come here.
    Api,
    /// The node channel: a third.
    Nodes,
}

/// Raises the process's own limit as far as it may and needs to, and says how many connections a listener has room for. A
/// login shell's limit is 1,024 files, which a handful of strangers would use up; the kernel lets everybody ask for more.
pub(crate) fn places(share: Share) -> usize {
    let needed = (CONNECTIONS_MAX as u64).saturating_mul(3).saturating_add(FILES_RESERVED);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
            tracing::warn!(%error, raised, "the limit of open files could not be raised");
        }
    }
    let places = places_of(getrlimit(Resource::Nofile).current, share);
    if places < CONNECTIONS_MAX {
        tracing::warn!(?share, places, of = CONNECTIONS_MAX, "this process may open few files: raise its limit (ulimit -n, LimitNOFILE=) for more connections");
    }
    places
}

/// Connections of one listener with this limit of open files.
fn places_of(files: Option<u64>, share: Share) -> usize {
    let third = files.map_or(u64::MAX, |files| files.saturating_sub(FILES_RESERVED)) / 3;
    let room = match share {
        Share::Api => third.saturating_mul(2),
        Share::Nodes => third,
    };
    usize::try_from(room).unwrap_or(usize::MAX).clamp(PLACES_MIN, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        for (files, api, nodes) in [(None, CONNECTIONS_MAX, CONNECTIONS_MAX), (Some(65_536), CONNECTIONS_MAX, CONNECTIONS_MAX), (Some(20_000), 12_992, 6_496), (Some(1024), 340, 170), (Some(10), 2, 2)] {
            assert_eq!((places_of(files, Share::Api), places_of(files, Share::Nodes)), (api, nodes), "{files:?}");
        }
    }

    #[test]
    fn the_limit_is_raised() {
        assert!(places(Share::Api) > places_of(Some(1024), Share::Api), "{:?}", getrlimit(Resource::Nofile));
    }
}
