//! Recovery codes: ten one-time codes of eighty bits that replace the second factor, never the password.
//!
//! A code names its index, so exactly one stored code is compared. What is stored is a peppered HMAC, not an argon2
//! hash: eighty random bits cannot be guessed even without a slow hash, and the login's only argon2 run stays the password's.

use std::fmt;

use vocabulary::PersonId;
use zeroize::Zeroizing;

use crate::limits::RECOVERY_CODES;
use crate::pepper::{Pepper, PepperedMac, Peppers};
use crate::totp::normal_code;

/// Separates these codes from everything else under the same pepper.
const CONTEXT: &[u8] = b"swarm/recovery-code/v1";
/// Crockford's base32: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A recovery code as it is shown once: `3-k7m2-9qxw-4t0a-z8ch`.
pub struct RecoveryCode {
    index: u8,
    secret: Zeroizing<[u8; 10]>,
}

impl RecoveryCode {
    /// Draws the ten codes of a person.
    #[must_use]
    pub fn draw_set(random: &mut dyn keys::Random) -> Vec<Self> {
        (0u8..).take(RECOVERY_CODES).map(|index| Self::draw(index, random)).collect()
    }
    fn draw(index: u8, random: &mut dyn keys::Random) -> Self {
        let mut secret = Zeroizing::new([0; 10]);
        random.fill(secret.as_mut());
        Self { index, secret }
    }
    /// The code, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.index.to_string());
        // Five bytes are eight characters.
        for half in self.secret.chunks(5) {
            let bits = half.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
            for place in 0..8u32 {
                if place % 4 == 0 {
                    text.push('-');
                }
                let digit = usize::try_from((bits >> ((7 - place) * 5)) & 31).unwrap_or(0);
                text.extend(ALPHABET.get(digit).map(|b| char::from(*b)));
            }
        }
        text
    }
    /// Reads what was typed: case, spaces, hyphens and widths do not matter, `o` is 0, `i` and `l` are 1.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let text = normal_code(typed)?;
        let (index, digits) = text.as_bytes().split_first()?;
        let index = index.checked_sub(b'0').filter(|i| usize::from(*i) < RECOVERY_CODES)?;
        if digits.len() != 16 {
            return None;
        }
        let mut secret = Zeroizing::new([0; 10]);
        for (half, group) in secret.chunks_mut(5).zip(digits.chunks(8)) {
            let bits = group.iter().try_fold(0u64, |bits, c| Some((bits << 5) | digit(*c)?))?;
            for (to, from) in half.iter_mut().zip(bits.to_be_bytes().iter().skip(3)) {
                *to = *from;
            }
        }
        Some(Self { index, secret })
    }
    /// Which of the ten it is.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }
    /// What is stored of it.
    #[must_use]
    pub fn record(&self, person: PersonId, pepper: &Pepper) -> RecoveryRecord {
        RecoveryRecord { index: self.index, mac: pepper.mac(&self.parts(&person)) }
    }
    /// Whether a stored code of this person is this one.
    #[must_use]
    pub fn fits(&self, person: PersonId, stored: &RecoveryRecord, peppers: &Peppers) -> bool {
        stored.index == self.index && peppers.fits(&stored.mac, &self.parts(&person))
    }
    fn parts<'a>(&'a self, person: &'a PersonId) -> [&'a [u8]; 4] {
        [CONTEXT, person.as_bytes(), std::slice::from_ref(&self.index), self.secret.as_ref()]
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryCode({}, secret)", self.index)
    }
}

/// What is stored of an unused recovery code; the row goes when the code is used.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryRecord {
    /// Which of the ten.
    pub index: u8,
    /// Its peppered code.
    pub mac: PepperedMac,
}

fn digit(c: u8) -> Option<u64> {
    let c = match c {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|a| *a == c).and_then(|p| u64::try_from(p).ok())
}
