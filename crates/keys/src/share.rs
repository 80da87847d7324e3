//! A custodian's share of a seal: 80 bytes, typed as 128 letters and digits. Format: `docs/spec/seal.md`.
//!
//! `version 1 ‖ deployment 16 ‖ seal 16 ‖ generation 4 ‖ threshold 1 ‖ shares 1 ‖ place 1 ‖ value 32 ‖ checksum 8`.
//! The checksum finds a slip of the pen before anything else is looked at. Whether the value is the one that was given out,
//! the seal file says: it holds a digest of every share.

use std::fmt;

use vocabulary::DeploymentId;
use zeroize::{Zeroize as _, Zeroizing};

use crate::derive::sha256;
use crate::limits::{KEY_BYTES, SHARE_TEXT_MAX, SHARES_MAX, THRESHOLD_MIN};

/// Bytes of a share.
pub const SHARE_BYTES: usize = 80;
const BODY_BYTES: usize = 72;
const VERSION: u8 = 1;
const CHECKSUM_LABEL: &[u8] = b"swarm/share/v1";
const CHECK_LABEL: &[u8] = b"swarm/share-check/v1";
/// What a typed share begins with, so that people and scanners of secrets know it.
pub const PREFIX: &str = "swmshare";
/// The alphabet of RFC 4648, section 6, in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The seal that a share belongs to: drawn for each set of shares.
pub type SealId = [u8; 16];

/// One share. It does not print, and is wiped when dropped.
pub struct Share {
    pub(crate) deployment: DeploymentId,
    pub(crate) seal: SealId,
    pub(crate) generation: u32,
    pub(crate) threshold: u8,
    pub(crate) shares: u8,
    pub(crate) place: u8,
    pub(crate) value: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {}, generation {})", self.place, self.shares, self.generation)
    }
}

/// Why a text is no share. None of them says what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// It does not begin as shares do.
    #[error("a share begins with `{PREFIX}`")]
    Prefix,
    /// Letters are missing, or there are too many.
    #[error("a share has 128 letters and digits after `{PREFIX}`, this one has {0}")]
    Length(usize),
    /// A character that shares do not have.
    #[error("character {0} after `{PREFIX}` is none that a share has (a to z, 2 to 7)")]
    Character(usize),
    /// Mistyped: the checksum does not fit.
    #[error("the share is mistyped: its checksum does not fit")]
    Checksum,
    /// Another program's.
    #[error("the share has version {0}, which this program does not know")]
    Version(u8),
    /// Its numbers contradict each other.
    #[error("the share's numbers contradict each other: {threshold} of {shares}, place {place}")]
    Numbers {
        /// How many open.
        threshold: u8,
        /// How many there are.
        shares: u8,
        /// Which it is.
        place: u8,
    },
}

impl Share {
    /// Which of the shares it is, from 1.
    #[must_use]
    pub const fn place(&self) -> u8 {
        self.place
    }
    /// The generation of its seal.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    fn body(&self) -> Zeroizing<[u8; BODY_BYTES]> {
        let mut body = Zeroizing::new([0; BODY_BYTES]);
        let generation = self.generation.to_be_bytes();
        let parts: [&[u8]; 5] =
            [&[VERSION], self.deployment.as_bytes(), &self.seal, &generation, &[self.threshold, self.shares, self.place]];
        for (slot, byte) in body.iter_mut().zip(parts.into_iter().flatten().chain(self.value.iter())) {
            *slot = *byte;
        }
        body
    }

    /// The digest under which the seal file knows this share. The value has 256 bits of its own: nobody guesses it from this.
    #[must_use]
    pub fn check(&self) -> [u8; 32] {
        sha256(&[CHECK_LABEL, self.body().as_slice()])
    }

    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SHARE_BYTES]> {
        let body = self.body();
        let checksum = sha256(&[CHECKSUM_LABEL, body.as_slice()]);
        let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
        for (slot, byte) in bytes.iter_mut().zip(body.iter().chain(&checksum)) {
            *slot = *byte;
        }
        bytes
    }

    /// As it is written down: `swmshare-xxxxxxxx-…`, sixteen groups of eight.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = self.to_bytes();
        let mut text = Zeroizing::new(String::with_capacity(SHARE_TEXT_MAX));
        text.push_str(PREFIX);
        for five in bytes.chunks(5) {
            text.push('-');
            let mut bits = five.iter().fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
            for place in (0..8).rev() {
                text.push(letter(u8::try_from((bits >> (place * 5)) & 31).unwrap_or(0)));
            }
            bits.zeroize();
        }
        text
    }

    /// Reads a typed share; blanks, dashes and capitals do not matter.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let rest = text.trim().get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX)).and_then(|_| text.trim().get(PREFIX.len()..));
        let rest = rest.ok_or(ShareError::Prefix)?;
        let mut bytes = Zeroizing::new([0_u8; SHARE_BYTES]);
        let (mut count, mut bits, mut held) = (0_usize, 0_u32, 0_u32);
        for c in rest.bytes().take(SHARE_TEXT_MAX).filter(|c| !matches!(c, b' ' | b'-' | b'\t' | b'\r' | b'\n')) {
            count = count.saturating_add(1);
            let value = value(c).ok_or(ShareError::Character(count))?;
            bits = (bits << 5) | u32::from(value);
            held = held.saturating_add(5);
            if held >= 8 {
                held = held.saturating_sub(8);
                let place = count.saturating_mul(5) / 8;
                if let Some(slot) = bytes.get_mut(place.saturating_sub(1)) {
                    *slot = u8::try_from((bits >> held) & 0xff).unwrap_or(0);
                }
            }
        }
        bits.zeroize();
        if count != SHARE_BYTES * 8 / 5 || rest.len() > SHARE_TEXT_MAX {
            return Err(ShareError::Length(count));
        }
        Self::from_bytes(&bytes)
    }

    /// Reads the bytes.
    pub fn from_bytes(bytes: &[u8; SHARE_BYTES]) -> Result<Self, ShareError> {
        let (body, checksum) = bytes.split_at(BODY_BYTES);
        let right = sha256(&[CHECKSUM_LABEL, body]);
        if !crate::derive::constant_time_eq(checksum, right.get(..checksum.len()).unwrap_or_default()) {
            return Err(ShareError::Checksum);
        }
        let [version, rest @ ..] = bytes;
        if *version != VERSION {
            return Err(ShareError::Version(*version));
        }
        let mut share = Self {
            deployment: DeploymentId::from_bytes(take(rest, 0)),
            seal: take(rest, 16),
            generation: u32::from_be_bytes(take(rest, 32)),
            threshold: 0,
            shares: 0,
            place: 0,
            value: Zeroizing::new(take(rest, 39)),
        };
        [share.threshold, share.shares, share.place] = take(rest, 36);
        let Self { threshold, shares, place, .. } = share;
        if !fits(threshold, shares) || place == 0 || place > shares {
            return Err(ShareError::Numbers { threshold, shares, place });
        }
        Ok(share)
    }
}

/// Whether a seal can be opened by so many of so many shares.
#[must_use]
pub const fn fits(threshold: u8, shares: u8) -> bool {
    threshold >= THRESHOLD_MIN && threshold <= shares && shares <= SHARES_MAX
}

fn take<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut out = [0; N];
    for (slot, byte) in out.iter_mut().zip(bytes.iter().skip(from)) {
        *slot = *byte;
    }
    out
}

/// A value's letter, found by looking at all of them: which one it is shows in no access to memory.
fn letter(value: u8) -> char {
    let mut found = 0;
    for (index, letter) in (0_u8..).zip(ALPHABET) {
        let same = 0_u8.wrapping_sub(u8::from(index == value));
        found |= letter & same;
    }
    char::from(found)
}

fn value(c: u8) -> Option<u8> {
    let lower = c.to_ascii_lowercase();
    let (mut found, mut known) = (0, 0_u8);
    for (index, letter) in (0_u8..).zip(ALPHABET) {
        let same = 0_u8.wrapping_sub(u8::from(*letter == lower));
        found |= index & same;
        known |= same;
    }
    (known != 0).then_some(found)
}

/// The target of fuzzing: whatever is typed, it is a share or an error, and a share is written as it was read.
#[doc(hidden)]
pub fn fuzz_share(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(share) = Share::parse(text) {
        let again = Share::parse(&share.to_text());
        assert!(again.is_ok_and(|again| again.to_bytes().as_slice() == share.to_bytes().as_slice()), "a share is read as it is written");
    }
}
