//! What every kind of key is, and how long one version of it works: the one table of the key inventory.
//!
//! **Invariant:** [`Purpose::line`] names every purpose; a new one does not compile without its line.

use vocabulary::UnixTime;

use crate::record::Purpose;

const DAY_MS: u64 = 86_400_000;

/// A tenant's key is replaced four times a year. NIST SP 800-57 part 1, 5.3.6, allows a key-wrapping key two years; a quarter
/// bounds what one stolen version opens to the data keys of a quarter.
pub const TENANT_KEK_AGE_MS: u64 = 90 * DAY_MS;
/// Keys under one version of a tenant's key. Every wrap has a derived key of its own, so that the 2^32 invocations of NIST
/// SP 800-38D, 8.3, do not bind; this bounds the work of one rewrap.
pub const TENANT_KEK_COUNT: u64 = 1 << 16;
/// A data key is replaced twice a year; SP 800-57 part 1, 5.3.6, allows two years.
pub const DATA_KEY_AGE_MS: u64 = 180 * DAY_MS;
/// Bytes under one data key. Segments have derived keys of their own, each far below the 2^36 - 31 bytes that SP 800-38D, 5.2.1.1,
/// allows one invocation; this bounds what one stolen version opens.
pub const DATA_KEY_BYTES: u64 = 16 << 40;
/// Objects under one data key: half of the 2^32 invocations of SP 800-38D, 8.3, as if they shared one key.
pub const DATA_KEY_COUNT: u64 = 1 << 31;

/// What one version was used for so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Sealed bytes.
    pub bytes: u64,
    /// Sealed objects, or wrapped keys.
    pub count: u64,
}

/// How much a version may do before the next one takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds since it was made.
    pub age_ms: u64,
    /// Sealed bytes.
    pub bytes: u64,
    /// Sealed objects, or wrapped keys.
    pub count: u64,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its age.
    Age,
    /// Its bytes.
    Bytes,
    /// Its count.
    Count,
}

impl Due {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }
}

impl Limits {
    /// Whether a version has reached one of them. A clock that went back reaches none.
    #[must_use]
    pub fn due(&self, created: UnixTime, used: Use, now: UnixTime) -> Option<Due> {
        if used.bytes >= self.bytes {
            Some(Due::Bytes)
        } else if used.count >= self.count {
            Some(Due::Count)
        } else if now.since(created).is_some_and(|age| age >= self.age_ms) {
            Some(Due::Age)
        } else {
            None
        }
    }
}

/// How the next version comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// By itself, at the first of these limits.
    Automatic(Limits),
    /// By itself, with the certificate that speaks for it, at this age of the certificate in milliseconds.
    WithCertificate(u64),
    /// Not by itself, for this reason.
    Not(&'static str),
}

/// Half the life of an issuing authority's certificate (365 d).
pub const ISSUING_CA_AGE_MS: u64 = 182 * DAY_MS;
/// Two thirds of the life of a receipt key's certificate (90 d).
pub const RECEIPT_KEY_AGE_MS: u64 = 60 * DAY_MS;

/// What lies above a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// A root epoch.
    Root,
    /// The tenant's key.
    TenantKek,
}

impl Under {
    /// The words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root epoch",
            Self::TenantKek => "tenant-kek",
        }
    }
}

/// A line of the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What the key is used with.
    pub algorithm: &'static str,
    /// Its length in bits.
    pub bits: u16,
    /// Under what it lies wrapped.
    pub under: Under,
    /// How it is replaced.
    pub rotation: Rotation,
}

impl Purpose {
    /// What a key for this purpose is.
    #[must_use]
    pub const fn line(self) -> Line {
        const WRAPS: &str = "AES-256-GCM and HKDF-SHA-256, committing";
        let (algorithm, under, rotation) = match self {
            Self::TenantKek => (
                WRAPS,
                Under::Root,
                Rotation::Automatic(Limits { age_ms: TENANT_KEK_AGE_MS, bytes: u64::MAX, count: TENANT_KEK_COUNT }),
            ),
            Self::Volume => (
                WRAPS,
                Under::TenantKek,
                Rotation::Automatic(Limits { age_ms: DATA_KEY_AGE_MS, bytes: DATA_KEY_BYTES, count: DATA_KEY_COUNT }),
            ),
            Self::Secret => (WRAPS, Under::TenantKek, Rotation::Not("each version of a secret has its own; `swarm secret set` makes the next")),
            Self::JobLog => (WRAPS, Under::TenantKek, Rotation::Not("each job has its own, of bounded size")),
            Self::AuditSubject => ("HKDF-SHA-256", Under::Root, Rotation::Not("pseudonyms of one person must stay comparable")),
            Self::TokenPepper => ("HMAC-SHA-256", Under::Root, Rotation::Not("not built: every token would end")),
            Self::FactorSecret => ("HMAC-SHA-1 (TOTP)", Under::Root, Rotation::Not("each person's; enrolment makes a new one")),
            Self::RootCa => ("AES-256-GCM over an ECDSA P-256 key", Under::Root, Rotation::Not("the pin of the deployment; not built")),
            Self::IssuingCa => ("AES-256-GCM over an ECDSA P-256 key", Under::Root, Rotation::WithCertificate(ISSUING_CA_AGE_MS)),
            Self::LogKey => ("Ed25519", Under::Root, Rotation::Not("checkpoints name it; not built")),
            Self::ReceiptKey => ("Ed25519", Under::Root, Rotation::WithCertificate(RECEIPT_KEY_AGE_MS)),
        };
        Line { algorithm, bits: 256, under, rotation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as a file: a purpose without a line, or a limit that moved, shows here.
    #[test]
    fn the_inventory_names_every_purpose() {
        let mut text = String::new();
        for purpose in Purpose::ALL {
            let line = purpose.line();
            let rotation = match line.rotation {
                Rotation::Automatic(limits) => format!("{} d, {} bytes, {} uses", limits.age_ms / DAY_MS, limits.bytes, limits.count),
                Rotation::WithCertificate(age_ms) => format!("with its certificate: {} d", age_ms / DAY_MS),
                Rotation::Not(why) => format!("not by itself: {why}"),
            };
            text.push_str(&format!("{} | {} | {} | {} | {rotation}\n", purpose.as_str(), line.algorithm, line.bits, line.under.as_str()));
        }
        assert_eq!(text, include_str!("../testdata/inventory.txt"));
        assert_eq!(text.lines().count(), Purpose::ALL.len());
    }

    #[test]
    fn the_first_limit_counts() {
        let limits = Limits { age_ms: 10, bytes: 100, count: 5 };
        let at = UnixTime::from_millis;
        let used = |bytes, count| Use { bytes, count };
        assert_eq!(limits.due(at(0), used(99, 4), at(9)), None);
        assert_eq!(limits.due(at(0), used(99, 4), at(10)), Some(Due::Age));
        assert_eq!(limits.due(at(0), used(100, 0), at(0)), Some(Due::Bytes));
        assert_eq!(limits.due(at(0), used(0, 5), at(0)), Some(Due::Count));
        assert_eq!(limits.due(at(50), used(0, 0), at(0)), None, "a clock that went back");
    }
}
