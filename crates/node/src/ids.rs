//! Blocks of host ids: each attempt has its own, and none is given away twice while its files exist.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use runtime::limits::ID_BLOCK;

/// The blocks that this agent may give away.
#[derive(Debug)]
pub(crate) struct IdBlocks {
    base: u32,
    count: u32,
    used: Mutex<BTreeSet<u32>>,
}

impl IdBlocks {
    /// `count` blocks from `base` on; `None` when they leave the ids that a host has, or touch its own.
    pub(crate) fn new(base: u32, count: u32) -> Option<Self> {
        let end = count.checked_mul(ID_BLOCK).and_then(|ids| base.checked_add(ids));
        (base >= ID_BLOCK && count > 0 && end.is_some()).then(|| Self { base, count, used: Mutex::default() })
    }

    /// Takes the lowest free block: its first id.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..self.count).filter_map(|index| index.checked_mul(ID_BLOCK)?.checked_add(self.base)).find(|first| !used.contains(first))?;
        used.insert(free);
        Some(free)
    }

    /// Marks a block that an attempt of an earlier run of the agent has.
    pub(crate) fn claim(&self, first: u32) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(first);
    }

    /// Gives a block back; the files that used it are gone.
    pub(crate) fn give_back(&self, first: u32) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_block_is_given_twice() {
        let ids = IdBlocks::new(1 << 20, 2).unwrap();
        ids.claim(1 << 20);
        assert_eq!(ids.take(), Some((1 << 20) + ID_BLOCK));
        assert_eq!(ids.take(), None);
        ids.give_back(1 << 20);
        assert_eq!(ids.take(), Some(1 << 20));
    }

    #[test]
    fn the_hosts_own_ids_are_never_given_away() {
        assert!(IdBlocks::new(0, 1).is_none());
        assert!(IdBlocks::new(u32::MAX - 10, 1).is_none());
        assert!(IdBlocks::new(1 << 20, u32::MAX).is_none());
        assert!(IdBlocks::new(1 << 20, 0).is_none());
    }
}
