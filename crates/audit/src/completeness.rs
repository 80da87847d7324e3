//! Whether anything is missing, which integrity does not say: a log can hold every leaf unchanged, and its owner leave some
//! out of what it shows to a tenant.
//!
//! The log says itself, now and then, how many entries a tenant had below an index ([`crate::Event::EntriesCounted`]).
//! Whoever shows fewer later contradicts a leaf.

/// What was counted: so many entries of the tenant below this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Below this index.
    pub below: u64,
    /// So many entries.
    pub count: u64,
}

/// The verdict on completeness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Every count holds; nothing is missing below this index. What came later is not counted yet.
    Complete {
        /// The highest index that a count speaks of.
        below: u64,
    },
    /// A count does not hold.
    Contradicted {
        /// The count.
        counted: Count,
        /// How many entries were shown below its index.
        shown: u64,
    },
    /// No count was shown.
    NotCounted,
}

/// Judges the indexes of all entries that were shown, rising and each once, by the counts among them.
///
/// A count that itself was left out is missed by the next one, as any entry is.
#[must_use]
pub fn judge(shown: &[u64], counts: &[Count]) -> Completeness {
    let mut highest = None;
    for counted in counts {
        let below = shown.partition_point(|index| *index < counted.below);
        let found = u64::try_from(below).unwrap_or(u64::MAX);
        if found != counted.count {
            return Completeness::Contradicted { counted: *counted, shown: found };
        }
        highest = highest.max(Some(counted.below));
    }
    highest.map_or(Completeness::NotCounted, |below| Completeness::Complete { below })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_contradicts_the_next_count() {
        let counts = [Count { below: 10, count: 3 }, Count { below: 20, count: 5 }];
        let shown = [2, 5, 9, 10, 15, 20, 31];
        assert_eq!(judge(&shown, &counts), Completeness::Complete { below: 20 });
        assert_eq!(judge(&shown, &[]), Completeness::NotCounted);
        assert_eq!(judge(&[], &[]), Completeness::NotCounted);
        assert_eq!(judge(&[], &[Count { below: 4, count: 0 }]), Completeness::Complete { below: 4 });
        // Each one that is left out below a count is missed; what is beyond the last count is not.
        for gone in 0..shown.len() {
            let rest: Vec<u64> = shown.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, index)| *index).collect();
            let missed = matches!(judge(&rest, &counts), Completeness::Contradicted { .. });
            assert_eq!(missed, shown[gone] < 20, "without {}", shown[gone]);
        }
        // One that was made up is one too many.
        assert_eq!(judge(&[2, 5, 7, 9, 10, 15], &counts), Completeness::Contradicted { counted: counts[0], shown: 4 });
    }
}
