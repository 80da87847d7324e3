//! A release of the program: the digests of its files, signed.
//!
//! The list is `SHA256SUMS` as coreutils' `sha256sum` writes and checks it; the signature is Ed25519 (RFC 8032) over its bytes,
//! the key a PEM SubjectPublicKeyInfo (RFC 8410). OpenSSL and `sha256sum` repeat the whole check:
//!
//! ```sh
//! openssl pkeyutl -verify -pubin -inkey release.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig && sha256sum --check SHA256SUMS
//! ```

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::{RELEASE_FILES_MAX, RELEASE_LIST_MAX};
use crate::report::{Line, Lines, Report, Tool, Verdict};

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name: one component of a path.
    pub name: String,
    /// Its SHA-256.
    pub digest: [u8; 32],
}

/// Why a release is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The key cannot be read.
    #[error("release key: not a PEM public key of Ed25519 (BEGIN PUBLIC KEY)")]
    Key,
    /// The signature is not this key's over this list.
    #[error("signature: not this key's over this list")]
    Signature,
    /// A line of the list.
    #[error("list, line {line}: {rule}")]
    List {
        /// From 1.
        line: usize,
        /// What is wrong.
        rule: &'static str,
    },
}

/// The fixed head of an Ed25519 SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The 32 bytes of an Ed25519 key in PEM.
fn key(pem: &str) -> Option<[u8; 32]> {
    let body = pem.trim_ascii().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok()?;
    der.strip_prefix(&SPKI_HEAD)?.try_into().ok()
}

/// The list, after its signature was checked: nothing of an unsigned list is looked at.
///
/// # Errors
/// [`ReleaseError`]: key, signature, or the line that breaks a rule.
pub fn verify(list: &[u8], signature: &[u8], key_pem: &str) -> Result<Vec<Listed>, ReleaseError> {
    let key = key(key_pem).ok_or(ReleaseError::Key)?;
    if list.len() > RELEASE_LIST_MAX || signature.len() != 64 {
        return Err(ReleaseError::Signature);
    }
    UnparsedPublicKey::new(&ED25519, key).verify(list, signature).map_err(|_| ReleaseError::Signature)?;
    files(list)
}

fn files(list: &[u8]) -> Result<Vec<Listed>, ReleaseError> {
    let at = |line, rule| ReleaseError::List { line, rule };
    let text = std::str::from_utf8(list).map_err(|_| at(1, "not UTF-8"))?;
    let body = text.strip_suffix('\n').ok_or_else(|| at(text.lines().count(), "the last line has no end"))?;
    let mut files: Vec<Listed> = Vec::new();
    for (number, line) in (1..).zip(body.split('\n')) {
        let (digest, name) = line.split_once("  ").ok_or_else(|| at(number, "not DIGEST, two spaces, NAME"))?;
        let lower = digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        if !lower || hex::decode_to_slice(digest, &mut bytes).is_err() {
            return Err(at(number, "the digest is not 64 digits of lower-case hex"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'~');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(at(number, "the name is not one plain component of a path"));
        }
        if files.iter().any(|file| file.name == name) {
            return Err(at(number, "the name stands here twice"));
        }
        if files.len() == RELEASE_FILES_MAX {
            return Err(at(number, "too many files"));
        }
        files.push(Listed { name: name.to_owned(), digest: bytes });
    }
    Ok(files)
}

/// SHA-256 of a file that comes in pieces.
#[derive(Clone)]
pub struct FileDigest(Context);

impl std::fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileDigest")
    }
}

impl Default for FileDigest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl FileDigest {
    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }
    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        bytes
    }
}

/// The verdict on a release: its signature, and each file that `digest_of` finds.
///
/// `digest_of` gives a file's digest, nothing where the file is not there, and an error's text where it cannot be read.
/// A file that is not there is *not checked*; without any file nothing is proved and the release fails.
pub fn report(list: &[u8], signature: &[u8], key_pem: &str, mut digest_of: impl FnMut(&str) -> Result<Option<[u8; 32]>, String>) -> Report {
    const SIGNED: &str = "the list of files is signed by the release key";
    let mut lines = Lines::default();
    let files = match verify(list, signature, key_pem) {
        Ok(files) => files,
        Err(error) => {
            lines.add(SIGNED, Verdict::NotProved, Tool::Independent, error.to_string());
            return lines.report();
        }
    };
    lines.add(SIGNED, Verdict::Proved, Tool::Independent, format!("Ed25519, {} files", files.len()));
    let mut there = false;
    for file in &files {
        let claim = format!("{} is the file that was signed", file.name);
        match digest_of(&file.name) {
            Ok(Some(digest)) => {
                there = true;
                let same = digest == file.digest;
                let detail = if same { format!("SHA-256 {}", hex::encode(digest)) } else { format!("SHA-256 is {}, signed was {}", hex::encode(digest), hex::encode(file.digest)) };
                lines.add(&claim, if same { Verdict::Proved } else { Verdict::NotProved }, Tool::Independent, detail);
            }
            Ok(None) => lines.add(&claim, Verdict::NotChecked, Tool::Independent, "not in the list's folder"),
            Err(why) => {
                there = true;
                lines.add(&claim, Verdict::NotProved, Tool::Independent, why);
            }
        }
    }
    if !there {
        lines.add("a file of the release was looked at", Verdict::NotProved, Tool::Independent, "none of the listed files lies beside the list");
    }
    lines.report()
}

impl Report {
    /// The first claim that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.verdict == Verdict::NotProved)
    }
}
