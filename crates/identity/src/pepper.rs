//! Peppers: server-side keys of the message authentication codes that stand for tokens and recovery codes in the store.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// One version of the pepper: a purpose key of the key hierarchy, never stored beside what it protects.
#[derive(Clone)]
pub struct Pepper {
    version: u32,
    key: Zeroizing<[u8; 32]>,
}

impl Pepper {
    /// Takes the key's version and its 32 bytes.
    #[must_use]
    pub fn new(version: u32, key: &[u8; 32]) -> Self {
        Self { version, key: Zeroizing::new(*key) }
    }
    /// Its version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }
    /// The code of a secret.
    #[must_use]
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> PepperedMac {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_ref()));
        for part in parts {
            context.update(part);
        }
        let mut mac = [0; 32];
        for (to, from) in mac.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        PepperedMac { version: self.version, mac }
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper(version {}, secret)", self.version)
    }
}

/// All versions of the pepper that still have something to check.
#[derive(Debug, Clone, Default)]
pub struct Peppers(BTreeMap<u32, Pepper>);

impl Peppers {
    /// With one version.
    #[must_use]
    pub fn new(pepper: Pepper) -> Self {
        Self(BTreeMap::from([(pepper.version, pepper)]))
    }
    /// With one more version.
    #[must_use]
    pub fn with(mut self, pepper: Pepper) -> Self {
        self.0.insert(pepper.version, pepper);
        self
    }
    /// The newest version, for new codes.
    #[must_use]
    pub fn newest(&self) -> Option<&Pepper> {
        self.0.last_key_value().map(|(_, pepper)| pepper)
    }
    /// Whether `parts` are what a stored code stands for. Constant time; an unknown version fits nothing.
    #[must_use]
    pub(crate) fn fits(&self, stored: &PepperedMac, parts: &[&[u8]]) -> bool {
        self.0.get(&stored.version).is_some_and(|pepper| pepper.mac(parts).mac.ct_eq(&stored.mac).into())
    }
}

/// What is stored instead of a secret: HMAC-SHA256 under a version of the pepper.
#[derive(Clone, Copy)]
pub struct PepperedMac {
    version: u32,
    mac: [u8; 32],
}

impl PepperedMac {
    /// From a stored row.
    #[must_use]
    pub const fn from_parts(version: u32, mac: [u8; 32]) -> Self {
        Self { version, mac }
    }
    /// The pepper's version, for the row.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }
    /// The code, for the row. It opens nothing by itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.mac
    }
}

impl fmt::Debug for PepperedMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PepperedMac(version {})", self.version)
    }
}
