//! A release that OpenSSL signed and coreutils listed; and everything that must break it.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use crate::release::{FileDigest, ReleaseError, report, verify};
use crate::report::Verdict;

struct Signed {
    folder: tempfile::TempDir,
    list: Vec<u8>,
    signature: Vec<u8>,
    key: String,
}

fn sh(folder: &Path, script: &str) -> bool {
    Command::new("sh").args(["-ec", script]).current_dir(folder).output().expect("sh and openssl must be installed").status.success()
}

/// The sentence of the module's documentation.
const BY_HAND: &str = "openssl pkeyutl -verify -pubin -inkey release.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig && sha256sum --check --strict SHA256SUMS";

fn signed(list: Option<&str>) -> Signed {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("swarm_0.1.0_amd64.deb"), b"a package").unwrap();
    std::fs::write(at("swarm_0.1.0.cdx.json"), b"an inventory").unwrap();
    assert!(sh(folder.path(), "openssl genpkey -algorithm ed25519 -out secret.pem && openssl pkey -in secret.pem -pubout -out release.pem"));
    match list {
        Some(list) => std::fs::write(at("SHA256SUMS"), list).unwrap(),
        None => assert!(sh(folder.path(), "sha256sum swarm_* > SHA256SUMS")),
    }
    assert!(sh(folder.path(), "openssl pkeyutl -sign -inkey secret.pem -rawin -in SHA256SUMS -out SHA256SUMS.sig"));
    let read = |name: &str| std::fs::read(at(name)).unwrap();
    let (list, signature, key) = (read("SHA256SUMS"), read("SHA256SUMS.sig"), String::from_utf8(read("release.pem")).unwrap());
    Signed { folder, list, signature, key }
}

impl Signed {
    fn digest_of(&self, name: &str) -> Result<Option<[u8; 32]>, String> {
        Ok(std::fs::read(self.folder.path().join(name)).ok().map(|bytes| {
            let mut digest = FileDigest::default();
            bytes.chunks(3).for_each(|piece| digest.update(piece));
            digest.finish()
        }))
    }
    fn verdicts(&self) -> (bool, Vec<Verdict>) {
        let report = report(&self.list, &self.signature, &self.key, |name| self.digest_of(name));
        (report.ok, report.lines.iter().map(|line| line.verdict).collect())
    }
}

#[test]
fn what_openssl_and_coreutils_accept_we_accept() {
    let release = signed(None);
    assert!(sh(release.folder.path(), BY_HAND));
    assert_eq!(release.verdicts(), (true, vec![Verdict::Proved; 3]));
}

#[test]
fn a_changed_file_fails_and_an_absent_one_is_not_checked() {
    let release = signed(None);
    std::fs::remove_file(release.folder.path().join("swarm_0.1.0.cdx.json")).unwrap();
    assert_eq!(release.verdicts(), (true, vec![Verdict::Proved, Verdict::NotChecked, Verdict::Proved]));
    std::fs::write(release.folder.path().join("swarm_0.1.0_amd64.deb"), b"another package").unwrap();
    assert_eq!(release.verdicts(), (false, vec![Verdict::Proved, Verdict::NotChecked, Verdict::NotProved]));
    std::fs::remove_file(release.folder.path().join("swarm_0.1.0_amd64.deb")).unwrap();
    assert!(!release.verdicts().0, "a list without any file proves nothing");
    let unread = report(&release.list, &release.signature, &release.key, |_| Err("permission denied".to_owned()));
    assert!(!unread.ok);
}

#[test]
fn every_byte_of_list_and_signature_counts() {
    let release = signed(None);
    for at in 0..release.list.len() {
        let mut list = release.list.clone();
        list[at] ^= 1;
        assert_eq!(verify(&list, &release.signature, &release.key), Err(ReleaseError::Signature), "list, byte {at}");
    }
    for at in 0..64 {
        let mut signature = release.signature.clone();
        signature[at] ^= 1;
        assert_eq!(verify(&release.list, &signature, &release.key), Err(ReleaseError::Signature), "signature, byte {at}");
    }
    for signature in [&release.signature[..63], &[&release.signature[..], &[0]].concat(), &[]] {
        assert_eq!(verify(&release.list, signature, &release.key), Err(ReleaseError::Signature));
    }
}

#[test]
fn another_key_and_no_key_are_told_apart() {
    let (release, other) = (signed(None), signed(None));
    assert_eq!(verify(&release.list, &release.signature, &other.key), Err(ReleaseError::Signature));
    let secret = std::fs::read_to_string(release.folder.path().join("secret.pem")).unwrap();
    let trailing = format!("{}{}", release.key, release.key);
    for key in ["", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", secret.as_str(), trailing.as_str(), "\u{e9}"] {
        assert_eq!(verify(&release.list, &release.signature, key), Err(ReleaseError::Key), "{key:?}");
    }
    assert!(sh(release.folder.path(), "openssl genpkey -algorithm ed448 -out o && openssl pkey -in o -pubout -out other.pem"));
    let ed448 = std::fs::read_to_string(release.folder.path().join("other.pem")).unwrap();
    assert_eq!(verify(&release.list, &release.signature, &ed448), Err(ReleaseError::Key));
}

#[test]
fn a_signed_list_that_leads_elsewhere_is_refused() {
    let digest = "a".repeat(64);
    for (list, rule) in [
        (format!("{digest}  ../passwd\n"), "the name is not one plain component of a path"),
        (format!("{digest}  .hidden\n"), "the name is not one plain component of a path"),
        (format!("{digest}  a\u{1b}[2J\n"), "the name is not one plain component of a path"),
        (format!("{digest}  \n"), "the name is not one plain component of a path"),
        (format!("{digest} *a\n"), "not DIGEST, two spaces, NAME"),
        (format!("{}  a\n", "A".repeat(64)), "the digest is not 64 digits of lower-case hex"),
        (format!("{}  a\n", "a".repeat(62)), "the digest is not 64 digits of lower-case hex"),
        (format!("{digest}  a"), "the last line has no end"),
        (format!("{digest}  a\n{digest}  a\n"), "the name stands here twice"),
        (format!("{digest}  a\n\n"), "not DIGEST, two spaces, NAME"),
        ((0..=256).map(|n| format!("{digest}  f{n}\n")).collect(), "too many files"),
    ] {
        let release = signed(Some(&list));
        let error = verify(&release.list, &release.signature, &release.key).unwrap_err();
        assert!(matches!(error, ReleaseError::List { rule: found, .. } if found == rule), "{list:?}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(list in proptest::collection::vec(any::<u8>(), 0..300), signature in proptest::collection::vec(any::<u8>(), 0..80), key in "\\PC{0,200}") {
        prop_assert!(verify(&list, &signature, &key).is_err());
        prop_assert!(!report(&list, &signature, &key, |_| Ok(None)).ok);
    }
}
