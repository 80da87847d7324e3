//! Time-based one-time passwords (RFC 6238 over RFC 4226).

use std::fmt;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq as _;
use unicode_normalization::UnicodeNormalization as _;
use vocabulary::{Name, UnixTime};
use zeroize::Zeroizing;

use crate::limits::{CODE_MAX, TOTP_DIGITS, TOTP_SECRET_LEN, TOTP_STEP_S, TOTP_WINDOW};

/// A code is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefusal {
    /// Not six digits.
    #[error("a code has six digits")]
    Malformed,
    /// None of the codes that are good now.
    #[error("the code is wrong or too old")]
    Wrong,
    /// A code of a step that was used already, or an older one.
    #[error("the code was used already")]
    Replayed,
    /// The secret cannot be used.
    #[error("the secret cannot be used")]
    Secret,
}

/// The hash function inside a one-time password. We enrol SHA-1, which every authenticator knows; HMAC keeps it sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtpHash {
    /// HMAC-SHA-1.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// RFC 4226: the code of a counter, with leading zeros; at most nine digits.
#[must_use]
pub fn hotp(hash: OtpHash, secret: &[u8], counter: u64, digits: u32) -> Option<u32> {
    let algorithm = match hash {
        OtpHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        OtpHash::Sha256 => hmac::HMAC_SHA256,
        OtpHash::Sha512 => hmac::HMAC_SHA512,
    };
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), &counter.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last()? & 0x0f);
    let word: [u8; 4] = tag.get(offset..offset.checked_add(4)?)?.try_into().ok()?;
    (u32::from_be_bytes(word) & 0x7fff_ffff).checked_rem(10u32.checked_pow(digits)?)
}

/// A person's TOTP secret, wiped on drop, to be wrapped before it is stored.
#[derive(Clone)]
pub struct TotpSecret(Zeroizing<[u8; TOTP_SECRET_LEN]>);

impl TotpSecret {
    /// Draws a secret.
    #[must_use]
    pub fn draw(random: &mut dyn keys::Random) -> Self {
        let mut bytes = Zeroizing::new([0; TOTP_SECRET_LEN]);
        random.fill(bytes.as_mut());
        Self(bytes)
    }
    /// Takes stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TOTP_SECRET_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }
    /// The bytes, for wrapping.
    #[must_use]
    pub fn reveal(&self) -> &[u8; TOTP_SECRET_LEN] {
        &self.0
    }
    /// The secret in base32, as people type it into an authenticator.
    #[must_use]
    pub fn reveal_base32(&self) -> Zeroizing<String> {
        const ALPHABET: [char; 32] = [
            'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U',
            'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
        ];
        let mut text = Zeroizing::new(String::with_capacity(32));
        // Five bytes are eight characters, and the secret is a multiple of five bytes long.
        for group in self.0.chunks(5) {
            let bits = group.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
            for shift in (0..8u32).rev() {
                let digit = (bits >> (shift * 5)) & 31;
                text.extend(usize::try_from(digit).ok().and_then(|d| ALPHABET.get(d)));
            }
        }
        text
    }
    /// The `otpauth://` URI that authenticators read from a QR code.
    #[must_use]
    pub fn reveal_uri(&self, name: &Name) -> Zeroizing<String> {
        let mut label = String::new();
        for c in name.as_str().chars() {
            match c {
                '@' => label.push_str("%40"),
                '+' => label.push_str("%2B"),
                other => label.push(other),
            }
        }
        Zeroizing::new(format!(
            "otpauth://totp/Swarm:{label}?secret={}&issuer=Swarm&algorithm=SHA1&digits={TOTP_DIGITS}&period={TOTP_STEP_S}",
            self.reveal_base32().as_str()
        ))
    }
    /// The code that an authenticator shows at this time, for tests and the demonstration.
    #[must_use]
    pub fn code_at(&self, now: UnixTime) -> Option<String> {
        let code = hotp(OtpHash::Sha1, self.0.as_ref(), step_at(now), TOTP_DIGITS)?;
        Some(format!("{code:06}"))
    }
    /// Checks a code: normalise first, then compare, then refuse what was used. Returns the step, to be stored as the last one.
    ///
    /// Whoever stores it does so on condition that the stored step is still smaller; else the code counts as replayed.
    pub fn check(&self, typed: &str, last_step: Option<u64>, now: UnixTime) -> Result<u64, CodeRefusal> {
        let code = normal_digits(typed).ok_or(CodeRefusal::Malformed)?;
        let present = step_at(now);
        let (mut fresh, mut seen) = (None, false);
        for step in present.saturating_sub(TOTP_WINDOW)..=present.saturating_add(TOTP_WINDOW) {
            let good = hotp(OtpHash::Sha1, self.0.as_ref(), step, TOTP_DIGITS).ok_or(CodeRefusal::Secret)?;
            if bool::from(format!("{good:06}").as_bytes().ct_eq(code.as_bytes())) {
                seen = true;
                if last_step.is_none_or(|last| step > last) {
                    fresh = Some(step);
                }
            }
        }
        match (fresh, seen) {
            (Some(step), _) => Ok(step),
            (None, true) => Err(CodeRefusal::Replayed),
            (None, false) => Err(CodeRefusal::Wrong),
        }
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(secret)")
    }
}

/// The step of a time.
#[must_use]
pub const fn step_at(now: UnixTime) -> u64 {
    now.seconds() / TOTP_STEP_S
}

/// Six digits, whatever spaces, hyphens and widths they were typed with.
fn normal_digits(typed: &str) -> Option<Zeroizing<String>> {
    let code = normal_code(typed)?;
    let shaped = code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit());
    shaped.then_some(code)
}

/// A typed code without spaces and hyphens, in NFKC and lower case; `None` when it is too long to be one.
pub(crate) fn normal_code(typed: &str) -> Option<Zeroizing<String>> {
    if typed.chars().nth(CODE_MAX).is_some() {
        return None;
    }
    let kept = typed.nfkc().filter(|c| !c.is_whitespace() && *c != '-' && *c != '\u{200b}');
    Some(Zeroizing::new(kept.flat_map(char::to_lowercase).collect()))
}
