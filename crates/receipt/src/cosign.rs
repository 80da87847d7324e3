//! Signatures of images in cosign's form: a "simple signing" payload, signed by a key that somebody trusts.
//!
//! The payload is JSON that names a manifest's digest and the repository it was signed for. The signature is over the payload's
//! bytes: ECDSA on P-256 with SHA-256 (DER), or Ed25519. Payloads are read strictly, so that no two readers find two images in one.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vocabulary::signature::{ImagePolicy, ImageSignature};
use vocabulary::{Name, Sha256Digest};

use crate::envelope::sha256;

/// Bytes of a payload: cosign's have some hundred.
pub const COSIGN_PAYLOAD_MAX: usize = 16 << 10;
/// Bytes of a signature: DER of two numbers of 32 bytes, or 64 bytes.
const SIGNATURE_MAX: usize = 80;
/// Bytes of a public key in PEM.
const PEM_MAX: usize = 1024;
/// The type that cosign writes into its payloads.
const TYPE: &str = "cosign container image signature";
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    0x03, 0x42, 0x00,
];

/// Why a key, payload or signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// Not one PEM block of a public key.
    #[error("the key is not one PEM block `PUBLIC KEY`")]
    Pem,
    /// Neither P-256 nor Ed25519.
    #[error("the key is neither ECDSA P-256 nor Ed25519")]
    Algorithm,
    /// Not strict base64, or too long.
    #[error("`{0}` is not strict base64 of the expected length")]
    Base64(&'static str),
    /// Not cosign's JSON: other fields, other types, duplicates, other documents after it.
    #[error("the payload is not cosign's JSON: {0}")]
    Payload(String),
    /// Another digest.
    #[error("the payload is about {0}")]
    Digest(Sha256Digest),
    /// Signed for another repository than the policy allows for this key.
    #[error("signed for `{0}`, which the policy does not name for this signer")]
    Reference(String),
    /// By no key of the policy.
    #[error("by no key of the policy")]
    Key,
}

/// A public key that signs images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageKey {
    spki: Vec<u8>,
}

impl ImageKey {
    /// Reads PEM, as cosign and OpenSSL write it.
    pub fn from_pem(text: &str) -> Result<Self, CosignError> {
        if text.len() > PEM_MAX {
            return Err(CosignError::Pem);
        }
        let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"));
        let body: String = body.ok_or(CosignError::Pem)?.split_ascii_whitespace().collect();
        Self::from_der(STANDARD.decode(body).map_err(|_| CosignError::Pem)?)
    }

    /// Takes a `SubjectPublicKeyInfo` in its one form.
    pub fn from_der(spki: Vec<u8>) -> Result<Self, CosignError> {
        let ed25519 = spki.strip_prefix(&ED25519_SPKI).is_some_and(|key| key.len() == 32);
        let p256 = spki.strip_prefix(&P256_SPKI).is_some_and(|point| point.len() == 65 && point.first() == Some(&4));
        if ed25519 || p256 { Ok(Self { spki }) } else { Err(CosignError::Algorithm) }
    }

    /// The `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`: its fingerprint.
    #[must_use]
    pub fn id(&self) -> Sha256Digest {
        sha256(&self.spki)
    }

    /// Whether this key signed the payload.
    #[must_use]
    pub fn verifies(&self, payload: &[u8], signature: &[u8]) -> bool {
        if let Some(key) = self.spki.strip_prefix(&ED25519_SPKI) {
            return signature.len() == 64 && UnparsedPublicKey::new(&ED25519, key).verify(payload, signature).is_ok();
        }
        let point = self.spki.strip_prefix(&P256_SPKI).unwrap_or_default();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(payload, signature).is_ok()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    critical: Critical,
    /// Whoever signs may say more here; nobody believes it.
    #[serde(rename = "optional")]
    _optional: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: ImagePart,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagePart {
    #[serde(rename = "docker-manifest-digest")]
    digest: Sha256Digest,
}

/// What a payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The repository that it was signed for.
    pub reference: String,
    /// The manifest.
    pub digest: Sha256Digest,
}

impl Payload {
    /// Reads a payload strictly.
    pub fn parse(bytes: &[u8]) -> Result<Self, CosignError> {
        let wrong = |text: &str| CosignError::Payload(text.chars().filter(|c| !c.is_control()).take(120).collect());
        if bytes.len() > COSIGN_PAYLOAD_MAX {
            return Err(wrong("too long"));
        }
        if !bytes.starts_with(b"{") {
            return Err(wrong("no object"));
        }
        let whole: Whole = serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))?;
        // Structs could be read from lists as well, which other readers refuse.
        let again: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))?;
        if ["/critical", "/critical/identity", "/critical/image"].iter().any(|at| !again.pointer(at).is_some_and(serde_json::Value::is_object)) {
            return Err(wrong("a list in the place of an object"));
        }
        if whole.critical.kind != TYPE {
            return Err(wrong("another type"));
        }
        Ok(Self { reference: whole.critical.identity.reference, digest: whole.critical.image.digest })
    }
}

/// Whether a repository is one that a rule names: itself, or what lies below a rule that ends with `/`.
fn named(rules: &[String], reference: &str) -> bool {
    rules.is_empty() || rules.iter().any(|rule| rule == reference || (rule.ends_with('/') && reference.starts_with(rule.as_str())))
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Whose.
    pub signer: Name,
    /// The key's fingerprint.
    pub key: Sha256Digest,
    /// Which of the signatures.
    pub number: usize,
}

/// Checks one signature against a policy.
fn one(policy: &ImagePolicy, image: &Sha256Digest, signature: &ImageSignature) -> Result<(Name, Sha256Digest), CosignError> {
    let decode = |field, text: &str, most: usize| match text.len() > most.div_ceil(3) * 4 {
        true => Err(CosignError::Base64(field)),
        false => STANDARD.decode(text).map_err(|_| CosignError::Base64(field)),
    };
    let payload = decode("payload", &signature.payload, COSIGN_PAYLOAD_MAX)?;
    let bytes = decode("signature", &signature.signature, SIGNATURE_MAX)?;
    // Nothing is read from what nobody signed.
    let mut by = None;
    for signer in &policy.signers {
        let key = ImageKey::from_pem(&signer.key)?;
        if key.verifies(&payload, &bytes) {
            by = Some((signer, key.id()));
            break;
        }
    }
    let (signer, key) = by.ok_or(CosignError::Key)?;
    let said = Payload::parse(&payload)?;
    if said.digest != *image {
        return Err(CosignError::Digest(said.digest));
    }
    if !named(&signer.references, &said.reference) {
        return Err(CosignError::Reference(said.reference.chars().filter(|c| !c.is_control()).take(120).collect()));
    }
    Ok((signer.name.clone(), key))
}

/// Checks an image's signatures: as many different signers as the policy asks for, or why not.
pub fn judge(policy: &ImagePolicy, image: &Sha256Digest, signatures: &[ImageSignature]) -> Result<Vec<Counted>, String> {
    let mut counted: Vec<Counted> = Vec::new();
    let mut refused = BTreeSet::new();
    for (number, signature) in signatures.iter().enumerate() {
        match one(policy, image, signature) {
            Ok((signer, key)) if !counted.iter().any(|other| other.signer == signer || other.key == key) => counted.push(Counted { signer, key, number }),
            Ok(_) => {}
            Err(error) => {
                refused.insert(error.to_string());
            }
        }
    }
    let wanted = usize::try_from(policy.required).unwrap_or(usize::MAX);
    if counted.len() >= wanted && wanted > 0 {
        return Ok(counted);
    }
    let why = if signatures.is_empty() { "it is unsigned".to_owned() } else { refused.into_iter().collect::<Vec<_>>().join("; ") };
    Err(format!("{} of {wanted} signers signed it{}{why}", counted.len(), if why.is_empty() { "" } else { ": " }))
}

/// For mutation and fuzzing: reads a hostile payload; says whether it was taken.
#[must_use]
pub fn fuzz(bytes: &[u8]) -> bool {
    Payload::parse(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocabulary::signature::ImageSigner;

    // Keys and signatures were made with OpenSSL: `openssl dgst -sha256 -sign`, `openssl pkeyutl -sign -rawin`.
    const P256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAES4AUz5aW35FPUkIhj+zsng2ClUR3\ntFbV120GbT3pWgGcV+cwgZxhrvDU5vhpPfBl6FTs17o62jjMuraAJedNAg==\n-----END PUBLIC KEY-----\n";
    const ED: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAl6iuSS5DvPPc4yvd4lR4eqAQvN1But0lXFM8oaEh3Ds=\n-----END PUBLIC KEY-----\n";
    const P256_SIGNATURE: &str = "MEYCIQDo1oPGIuLew7nHCWYealvnHcjlZgd0VrAOMTPLJ5Cr4gIhANOJtVvQW1lffysAWlTLjmjpSlDFQbn1StdpngPR0Ssx";
    const ED_SIGNATURE: &str = "UUkTf3WcfToYBI8Y1j5I5sbHrQY1MJP7RzxbJdWIASID85b8g/4765oBO9TAdEE301knDvQbDuzdD/jxN0eeBg==";
    const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"registry.example/tools/python"},"image":{"docker-manifest-digest":"sha256:0909090909090909090909090909090909090909090909090909090909090909"},"type":"cosign container image signature"},"optional":null}"#;
    const IMAGE: Sha256Digest = Sha256Digest::from_bytes([9; 32]);

    fn signed(payload: &str, signature: &str) -> ImageSignature {
        ImageSignature { payload: STANDARD.encode(payload), signature: signature.to_owned() }
    }
    fn signer(name: &str, key: &str, references: &[&str]) -> ImageSigner {
        ImageSigner { name: name.parse().unwrap(), key: key.to_owned(), references: references.iter().map(|text| (*text).to_owned()).collect() }
    }
    fn policy(required: u32, signers: Vec<ImageSigner>) -> ImagePolicy {
        ImagePolicy { required, signers }
    }

    #[test]
    fn signatures_that_openssl_made_are_taken() {
        assert_eq!(ImageKey::from_pem(P256).unwrap().id().hex(), "2a3fa3a78c8041d2af300d1201c6faa5432f4d47709842260c4127a6e2bb8eb5");
        assert_eq!(ImageKey::from_pem(ED).unwrap().id().hex(), "3583cd3f83b90ab51268764dd6ca6552226ccfcf022647a9f0331f00493e6f1b");
        let both = [signed(PAYLOAD, P256_SIGNATURE), signed(PAYLOAD, ED_SIGNATURE)];
        let two = policy(2, vec![signer("build", P256, &["registry.example/tools/"]), signer("review", ED, &["registry.example/tools/python"])]);
        let counted = judge(&two, &IMAGE, &both).unwrap();
        assert_eq!(counted.iter().map(|one| one.signer.as_str()).collect::<Vec<_>>(), ["build", "review"]);
        assert_eq!(judge(&policy(1, vec![signer("build", P256, &[])]), &IMAGE, &both).unwrap().len(), 1);
    }

    #[test]
    fn each_refusal_has_its_name() {
        let good = || vec![signed(PAYLOAD, P256_SIGNATURE)];
        let build = || policy(1, vec![signer("build", P256, &[])]);
        let refused = |policy: &ImagePolicy, image: &Sha256Digest, all: &[ImageSignature]| judge(policy, image, all).unwrap_err();
        assert!(refused(&build(), &IMAGE, &[]).contains("unsigned"));
        assert!(refused(&build(), &Sha256Digest::from_bytes([8; 32]), &good()).contains("the payload is about sha256:0909"));
        assert!(refused(&policy(1, vec![signer("review", ED, &[])]), &IMAGE, &good()).contains("by no key of the policy"));
        for reference in ["registry.example/tools/pytho", "registry.example/tools", "registry.example/other/", "tools/python"] {
            let elsewhere = policy(1, vec![signer("build", P256, &[reference])]);
            assert!(refused(&elsewhere, &IMAGE, &good()).contains("which the policy does not name"), "{reference}");
        }
        // One signer twice is one, under whatever names the same key stands.
        let doubled = policy(2, vec![signer("build", P256, &[]), signer("again", P256, &[])]);
        assert!(refused(&doubled, &IMAGE, &[good(), good()].concat()).contains("1 of 2 signers"));
        // A changed byte of payload or signature is a signature by nobody.
        let tag = PAYLOAD.replace("tools/python", "tools/pythom");
        assert!(refused(&build(), &IMAGE, &[signed(&tag, P256_SIGNATURE)]).contains("by no key"));
        assert!(refused(&build(), &IMAGE, &[signed(PAYLOAD, ED_SIGNATURE)]).contains("by no key"));
        assert!(refused(&build(), &IMAGE, &[signed(PAYLOAD, "?")]).contains("`signature`"));
        assert!(refused(&build(), &IMAGE, &[signed(PAYLOAD, &"A".repeat(1 << 20))]).contains("`signature`"));
        assert!(judge(&policy(0, vec![]), &IMAGE, &good()).is_err(), "an empty policy proves nothing");
        // Keys: one block of one of two kinds.
        let rsa = "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";
        // A block of another kind, which holds nothing.
        let private = rsa.replace("PUBLIC", "PRIVATE");
        for (pem, error) in [("", CosignError::Pem), (&private, CosignError::Pem), (rsa, CosignError::Algorithm)] {
            assert_eq!(ImageKey::from_pem(pem).unwrap_err(), error);
        }
        assert_eq!(ImageKey::from_pem(&format!("{P256}{ED}")).unwrap_err(), CosignError::Pem);
        assert_eq!(ImageKey::from_pem(&"A".repeat(5000)).unwrap_err(), CosignError::Pem);
    }

    #[test]
    fn payloads_that_two_readers_read_differently_are_refused() {
        assert_eq!(Payload::parse(PAYLOAD.as_bytes()).unwrap(), Payload { reference: "registry.example/tools/python".to_owned(), digest: IMAGE });
        assert!(fuzz(PAYLOAD.replace("null", r#"{"a":1,"b":["x"]}"#).as_bytes()));
        let other = format!("sha256:{}", "0a".repeat(32));
        for changed in [
            PAYLOAD.replace("\"critical\":", &format!("\"critical\":{{\"identity\":{{\"docker-reference\":\"x\"}},\"image\":{{\"docker-manifest-digest\":\"{other}\"}},\"type\":\"cosign container image signature\"}},\"critical\":")),
            PAYLOAD.replace("\"docker-manifest-digest\":", &format!("\"docker-manifest-digest\":\"{other}\",\"docker-manifest-digest\":")),
            PAYLOAD.replace("\"type\":\"cosign", "\"type\":\"atomic"),
            PAYLOAD.replace("\"optional\":null", "\"optional\":null,\"more\":1"),
            PAYLOAD.replace("\"identity\":", "\"extra\":1,\"identity\":"),
            PAYLOAD.replace("sha256:", "sha512:"),
            PAYLOAD.replace("sha256:0909", "sha256:09"),
            format!("{PAYLOAD}{PAYLOAD}"),
            format!("[{PAYLOAD}]"),
            format!(" {PAYLOAD}"),
            "null".to_owned(),
            format!("{{\"critical\":[[\"r\"],[\"{other}\"],\"cosign container image signature\"],\"optional\":null}}"),
            "{\"critical\":".repeat(1000),
            format!("{PAYLOAD}{}", " ".repeat(COSIGN_PAYLOAD_MAX)),
        ] {
            assert!(!fuzz(changed.as_bytes()), "{}", changed.chars().take(300).collect::<String>());
        }
        for position in 0..PAYLOAD.len() {
            let mut bytes = PAYLOAD.as_bytes().to_vec();
            bytes[position] ^= 1;
            // Whatever it says then: nobody signed it.
            let signature = ImageSignature { payload: STANDARD.encode(&bytes), signature: P256_SIGNATURE.to_owned() };
            assert!(judge(&policy(1, vec![signer("build", P256, &[])]), &IMAGE, &[signature]).is_err());
        }
    }
}
