//! Looking for secrets in what must not hold any, in every form in which a program would write them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Something that must not be found.
#[derive(Debug, Clone)]
pub struct Canary {
    /// What it is.
    pub what: String,
    bytes: Vec<u8>,
}

/// A form of a canary: its name, and the bytes of it.
pub type Form = (&'static str, Vec<u8>);

impl Canary {
    /// A canary. One that is short would be found everywhere.
    #[must_use]
    pub fn new(what: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { what: what.to_owned(), bytes: bytes.into() }
    }

    /// The ways in which it may be written. Of those that work in groups of bytes, what is the same wherever it begins.
    #[must_use]
    pub fn forms(&self) -> Vec<Form> {
        let bytes = &self.bytes;
        let each = |form: &dyn Fn(u8) -> String| bytes.iter().fold(String::new(), |text, byte| text + &form(*byte)).into_bytes();
        let mut forms = vec![
            ("raw", bytes.clone()),
            ("hex", each(&|byte| format!("{byte:02x}"))),
            ("hex in capitals", each(&|byte| format!("{byte:02X}"))),
            ("percent-encoded", each(&|byte| if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })),
            ("percent-encoded throughout", each(&|byte| format!("%{byte:02X}"))),
            ("numbers", each(&|byte| format!("{byte},")).strip_suffix(b",").map(<[u8]>::to_vec).unwrap_or_default()),
            ("utf-16", bytes.iter().flat_map(|byte| [*byte, 0]).collect()),
        ];
        forms.push(("base32", base32(bytes).into_bytes()));
        if let Ok(text) = std::str::from_utf8(bytes) {
            let quoted = serde_json::Value::from(text).to_string();
            forms.push(("JSON", quoted.trim_matches('"').as_bytes().to_vec()));
            let escaped = text.encode_utf16().fold(String::new(), |mut text, unit| {
                let _ = write!(text, "\\u{unit:04x}");
                text
            });
            forms.push(("JSON, escaped throughout", escaped.into_bytes()));
        }
        for (skip, name) in [(0_usize, "base64"), (1, "base64, one byte later"), (2, "base64, two bytes later")] {
            let mut shifted = vec![0; skip];
            shifted.extend_from_slice(bytes);
            // What the bytes before and behind have a part in is cut off.
            let from = (skip * 8).div_ceil(6);
            let until = shifted.len() * 8 / 6;
            for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                forms.push((name, text.as_bytes().get(from..until).unwrap_or_default().to_vec()));
            }
        }
        forms
    }
}

/// RFC 4648, without padding; the last group only as far as its bits are whole.
fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let groups = (0..bytes.len() * 8 / 5).map(|group| (0..5).fold(0_usize, |number, at| number * 2 + usize::from(bit(group * 5 + at))));
    groups.filter_map(|number| b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".get(number).copied().map(char::from)).collect()
}

/// Which canaries are found in some bytes, each with the form in which it stands there.
#[must_use]
pub fn found(bytes: &[u8], canaries: &[Canary]) -> Vec<String> {
    let mut found = Vec::new();
    for canary in canaries {
        for (form, form_bytes) in canary.forms() {
            let short = form_bytes.len() < 8;
            if short || bytes.windows(form_bytes.len()).any(|window| window == form_bytes) {
                found.push(format!("{}, {}{}", canary.what, form, if short { " (too short to look for)" } else { "" }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form is found wherever it stands, and by that form: the search is a search.
    #[test]
    fn a_canary_is_found_in_every_form() {
        let canary = Canary::new("secret", "päss wörd/\"of+ the mine");
        assert!(found(b"nothing of it stands here", std::slice::from_ref(&canary)).is_empty());
        for (name, form) in canary.forms() {
            for offset in 0..4 {
                let mut bytes = vec![b'x'; offset];
                bytes.extend_from_slice(&form);
                bytes.extend_from_slice(b"yy");
                let found = found(&bytes, std::slice::from_ref(&canary));
                assert!(found.iter().any(|line| line.contains(name)), "{name} at {offset}: {found:?}");
            }
        }
        // In the middle of an encoded whole, at each of the three places in a group.
        for before in ["", "a", "ab", "abc"] {
            let whole = format!("{before}päss wörd/\"of+ the minezz");
            for text in [STANDARD_NO_PAD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                assert!(!found(text.as_bytes(), std::slice::from_ref(&canary)).is_empty(), "{before:?} {text}");
            }
        }
        assert_eq!(found(b"", &[Canary::new("short", "abc")]).len(), Canary::new("short", "abc").forms().iter().filter(|(_, form)| form.len() < 8).count());
    }
}
