//! How often somebody may ask: a bucket of tokens for each principal, each tenant, and each source of credentials that are none.
//!
//! A request of a member takes one from its principal's bucket and one from its tenant's. What is asked beyond is refused with
//! `try_later` and the time after which it will do, before a body is read or a rule asked. A source is charged for refused
//! credentials alone: who shares an address with somebody that tries tokens is served.
//!
//! Pure: time comes in. Each control plane counts for itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vocabulary::{PrincipalId, TenantId, UnixTime};

use crate::limits::{
    BUCKETS_MAX, BURST_SECONDS, PRINCIPAL_REQUESTS_PER_CORE, RATE_TOLD_MS, REFUSED_CREDENTIALS_BURST, REFUSED_CREDENTIALS_PER_S,
    TENANT_REQUESTS_PER_CORE,
};

/// A token, in the parts that a millisecond brings at one token a second.
const TOKEN: u64 = 1000;

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// After so many seconds one more will do.
    pub(crate) retry_after_s: u64,
    /// Whether this one is recorded: the first of a minute in each bucket. A loop must not write to the disk.
    pub(crate) tell: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Parts of tokens.
    parts: u64,
    /// When they were counted.
    at: UnixTime,
    told: Option<UnixTime>,
}

impl Bucket {
    const fn full(capacity: u64, at: UnixTime) -> Self {
        Self { parts: capacity, at, told: None }
    }
    /// Lets in what the time since brought. A clock that went back brings nothing, and is believed from then on.
    fn refill(&mut self, rate: u64, capacity: u64, now: UnixTime) {
        let brought = now.since(self.at).unwrap_or(0).saturating_mul(rate);
        self.parts = self.parts.saturating_add(brought).min(capacity);
        self.at = now;
    }
    fn take(&mut self, rate: u64, now: UnixTime) -> Result<(), TooOften> {
        match self.parts.checked_sub(TOKEN) {
            Some(left) => {
                self.parts = left;
                Ok(())
            }
            None => {
                let missing_ms = TOKEN.saturating_sub(self.parts).div_ceil(rate.max(1));
                let tell = self.told.is_none_or(|told| now.since(told).is_none_or(|age| age >= RATE_TOLD_MS));
                if tell {
                    self.told = Some(now);
                }
                Err(TooOften { retry_after_s: missing_ms.div_ceil(1000).max(1), tell })
            }
        }
    }
}

#[derive(Debug)]
struct Inside<K> {
    known: BTreeMap<K, Bucket>,
    /// Shared by those for whom there is no room.
    others: Option<Bucket>,
    /// When there was last looked for room.
    swept: Option<UnixTime>,
}

/// Buckets by whose they are.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    /// Tokens a second.
    rate: u64,
    /// Parts of a full bucket.
    capacity: u64,
    inside: Mutex<Inside<K>>,
}

impl<K: Ord + Clone> Buckets<K> {
    const fn new(rate: u64, burst: u64) -> Self {
        let inside = Inside { known: BTreeMap::new(), others: None, swept: None };
        Self { rate, capacity: burst.saturating_mul(TOKEN), inside: Mutex::new(inside) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside<K>> {
        // Each change under the lock is whole, so what a panic left behind is, too.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one token.
    pub(crate) fn take(&self, key: K, now: UnixTime) -> Result<(), TooOften> {
        let mut inside = self.inside();
        let (rate, capacity) = (self.rate, self.capacity);
        if !inside.known.contains_key(&key) && inside.known.len() >= BUCKETS_MAX {
            inside.sweep(rate, capacity, now);
        }
        let room = inside.known.len() < BUCKETS_MAX;
        let bucket = if room || inside.known.contains_key(&key) {
            inside.known.entry(key).or_insert(Bucket::full(capacity, now))
        } else {
            inside.others.get_or_insert(Bucket::full(capacity, now))
        };
        bucket.refill(rate, capacity, now);
        bucket.take(rate, now)
    }
}

impl<K: Ord> Inside<K> {
    /// Forgets the buckets that are full again, which is what a new one would be. At most once a second: it looks at all.
    fn sweep(&mut self, rate: u64, capacity: u64, now: UnixTime) {
        if self.swept.is_some_and(|swept| now.since(swept).is_some_and(|age| age < 1000)) {
            return;
        }
        self.swept = Some(now);
        self.known.retain(|_, bucket| {
            bucket.refill(rate, capacity, now);
            bucket.parts < capacity
        });
    }
}

/// All of a control plane's.
#[derive(Debug)]
pub(crate) struct Rates {
    principals: Buckets<PrincipalId>,
    tenants: Buckets<TenantId>,
    refused: Buckets<String>,
}

impl Rates {
    /// For a machine with so many cores.
    pub(crate) const fn new(cores: u64) -> Self {
        let (principal, tenant) = (PRINCIPAL_REQUESTS_PER_CORE.saturating_mul(cores), TENANT_REQUESTS_PER_CORE.saturating_mul(cores));
        Self {
            principals: Buckets::new(principal, principal.saturating_mul(BURST_SECONDS)),
            tenants: Buckets::new(tenant, tenant.saturating_mul(BURST_SECONDS)),
            refused: Buckets::new(REFUSED_CREDENTIALS_PER_S, REFUSED_CREDENTIALS_BURST),
        }
    }

    /// For this machine.
    pub(crate) fn of_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64)
    }

    /// One request of a member; what its own bucket refuses costs its tenant nothing.
    pub(crate) fn member(&self, principal: PrincipalId, tenant: TenantId, now: UnixTime) -> Result<(), TooOften> {
        self.principals.take(principal, now)?;
        self.tenants.take(tenant, now)
    }

    /// One refused credential of a source.
    pub(crate) fn refused_credential(&self, source: String, now: UnixTime) -> Result<(), TooOften> {
        self.refused.take(source, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixTime = UnixTime::from_millis(1_767_225_600_000);

    fn taken<K: Ord + Clone>(buckets: &Buckets<K>, key: &K, now: UnixTime, tries: u64) -> u64 {
        (0..tries).filter(|_| buckets.take(key.clone(), now).is_ok()).count() as u64
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let buckets = Buckets::new(10, 50);
        assert_eq!(taken(&buckets, &1, START, 200), 50);
        assert_eq!(taken(&buckets, &2, START, 200), 50, "another has a bucket of its own");
        assert_eq!(taken(&buckets, &1, START.plus_millis(99), 200), 0);
        assert_eq!(taken(&buckets, &1, START.plus_millis(100), 200), 1);
        assert_eq!(taken(&buckets, &1, START.plus_millis(1_100), 200), 10);
        assert_eq!(taken(&buckets, &1, START.plus_millis(3_600_000), 200), 50, "no more than a burst is saved");
    }

    #[test]
    fn what_is_refused_is_told_when_and_once_a_minute() {
        let buckets = Buckets::new(1, 2);
        let slow = Buckets::<u8>::new(0, 0);
        let ask = |after: u64| buckets.take(1, START.plus_millis(after));
        assert_eq!((ask(0), ask(0)), (Ok(()), Ok(())));
        assert_eq!(ask(0), Err(TooOften { retry_after_s: 1, tell: true }));
        assert_eq!(ask(999), Err(TooOften { retry_after_s: 1, tell: false }));
        assert_eq!(ask(1_000), Ok(()), "after the time that was told");
        assert_eq!(ask(1_001), Err(TooOften { retry_after_s: 1, tell: false }));
        let mut last = ask(1_001);
        for second in 2..=60 {
            while last.is_ok() {
                last = ask(second * 1000);
            }
            last = ask(second * 1000 + 500);
        }
        let tellings = (0..5).filter(|_| matches!(ask(60_900), Err(TooOften { tell: true, .. }))).count();
        assert_eq!(tellings, usize::from(!matches!(last, Err(TooOften { tell: true, .. }))), "a minute later once more");
        assert!(slow.take(1, START).is_err(), "a rate of nothing divides by nothing");
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing_and_locks_nobody_out() {
        let buckets = Buckets::new(10, 10);
        assert_eq!(taken(&buckets, &1, START, 20), 10);
        let back = UnixTime::from_millis(START.millis() - 3_600_000);
        assert_eq!(taken(&buckets, &1, back, 20), 0);
        assert_eq!(taken(&buckets, &1, back.plus_millis(1_000), 20), 10, "a second by the new clock");
        assert_eq!(taken(&buckets, &1, START, 20), 10, "forward again: a burst at most");
    }

    #[test]
    fn memory_is_bounded_and_who_comes_late_shares() {
        let buckets = Buckets::new(1, 2);
        for key in 0..BUCKETS_MAX as u64 {
            assert!(buckets.take(key, START).is_ok());
        }
        // No bucket is full again: the late ones share one.
        let late = (0..100).filter(|late| buckets.take(u64::MAX - late, START).is_ok()).count();
        assert_eq!(late, 2);
        assert_eq!(buckets.inside().known.len(), BUCKETS_MAX);
        assert!(buckets.take(0, START).is_ok(), "who has a bucket keeps it");
        // When they are, they are forgotten, and nobody has more than before.
        assert!(buckets.take(u64::MAX, START.plus_millis(2_000)).is_ok());
        assert_eq!(buckets.inside().known.len(), 1);
    }

    #[test]
    fn a_member_is_limited_alone_and_with_its_tenant() {
        let rates = Rates::new(1);
        let principal = |number: u8| PrincipalId::from_bytes([number; 16]);
        let (one, other) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let asked = |number, tenant| (0..100_000).filter(|_| rates.member(principal(number), tenant, START).is_ok()).count() as u64;
        let (alone, together) = (PRINCIPAL_REQUESTS_PER_CORE * BURST_SECONDS, TENANT_REQUESTS_PER_CORE * BURST_SECONDS);
        assert_eq!(asked(1, one), alone);
        assert_eq!(asked(2, one), together - alone, "the tenant's own limit");
        assert_eq!(asked(3, other), alone, "another tenant is served");
        let refused = (0..10_000).filter(|_| rates.refused_credential("192.0.2.1".to_owned(), START).is_ok()).count() as u64;
        assert_eq!(refused, REFUSED_CREDENTIALS_BURST);
        assert!(rates.refused_credential("192.0.2.2".to_owned(), START).is_ok());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_whatever_the_times(rate in 0_u64..50, burst in 0_u64..50, steps in proptest::collection::vec(0_u64..2_000, 1..200)) {
            let buckets = Buckets::new(rate, burst);
            let (mut now, mut passed) = (START, 0_u64);
            for step in steps {
                now = now.plus_millis(step);
                passed += u64::from(buckets.take(1, now).is_ok());
                let allowed = burst + now.since(START).unwrap() * rate / 1000;
                prop_assert!(passed <= allowed, "{passed} of {allowed}");
            }
        }

        #[test]
        fn who_waits_as_long_as_told_passes(rate in 1_u64..50, burst in 1_u64..50) {
            let buckets = Buckets::new(rate, burst);
            while buckets.take(1, START).is_ok() {}
            let told = buckets.take(1, START).unwrap_err().retry_after_s;
            prop_assert!(buckets.take(1, START.plus_millis(told * 1000)).is_ok());
        }
    }
}
