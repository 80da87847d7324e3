//! The deployment's public file: what it proves, and that every change of it is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vocabulary::{DeploymentId, Profile};

use super::support::{DAY, NOW, flipped, node_id, world, world_of};
use crate::canonical::canonical_json;
use crate::certificate::{PeerRefusal, RootError};
use crate::deployment::{
    DeploymentFileError, ReceiptCertificate, verify_deployment_file, verify_deployment_file_unpinned,
};
use crate::key::EcdsaKey;
use crate::limits::DEPLOYMENT_FILE_MAX;

const LOG_KEY: &str = "swarm.example/log+00000000+AQ==";

#[test]
fn says_what_was_signed() {
    let mut w = world();
    let (receipt, key) = w.receipt(NOW);
    let (later, later_key) = w.receipt(NOW.plus_millis(60 * DAY));
    let receipts = vec![
        ReceiptCertificate::from_chain(&receipt.chain).unwrap(),
        ReceiptCertificate::from_chain(&later.chain).unwrap(),
    ];
    let text = w.root.sign_deployment_file(Profile::Development, vec![LOG_KEY.to_owned()], receipts, NOW).unwrap();
    let pin = w.root.certificate().pin();
    let read = verify_deployment_file(text.as_bytes(), &pin).unwrap();
    assert_eq!(read.file().profile, Profile::Development);
    assert_eq!(read.file().deployment, w.root.certificate().deployment());
    assert_eq!(read.file().log_keys, [LOG_KEY]);
    assert_eq!(read.root(), w.root.certificate());
    assert_eq!(verify_deployment_file_unpinned(text.as_bytes()).unwrap(), read);
    // Keys are judged at the time of what they signed.
    let (key, later_key) = (key.public().unwrap(), later_key.public().unwrap());
    assert!(read.receipt_key_at(&key, NOW).is_some());
    assert!(read.receipt_key_at(&key, NOW.plus_millis(91 * DAY)).is_none());
    assert!(read.receipt_key_at(&later_key, NOW).is_none());
    assert!(read.receipt_key_at(&later_key, NOW.plus_millis(91 * DAY)).is_some());
}

#[test]
fn another_pin_another_root() {
    let w = world();
    let text = w.root.sign_deployment_file(Profile::Production, vec![], vec![], NOW).unwrap();
    let twin = world();
    assert!(matches!(
        verify_deployment_file(text.as_bytes(), &twin.root.certificate().pin()),
        Err(DeploymentFileError::Root(RootError::OtherPin { .. }))
    ));
}

#[test]
fn every_changed_byte_is_refused() {
    let mut w = world();
    let (receipt, _) = w.receipt(NOW);
    let receipts = vec![ReceiptCertificate::from_chain(&receipt.chain).unwrap()];
    let text = w.root.sign_deployment_file(Profile::Development, vec![LOG_KEY.to_owned()], receipts, NOW).unwrap();
    let (bytes, pin) = (text.as_bytes(), w.root.certificate().pin());
    for at in 0..bytes.len() {
        for mask in [0x01, 0x20, 0x80] {
            let changed = flipped(bytes, at, mask);
            assert!(verify_deployment_file(&changed, &pin).is_err(), "byte {at} mask {mask:#x}");
        }
        assert!(verify_deployment_file(&bytes[..at], &pin).is_err(), "cut at {at}");
    }
    for added in [format!("{text}\n"), format!(" {text}"), text.replace("\":", "\": "), text.trim_end().to_owned()] {
        assert!(verify_deployment_file(added.as_bytes(), &pin).is_err());
    }
    let huge = vec![b' '; DEPLOYMENT_FILE_MAX + 1];
    assert_eq!(verify_deployment_file(&huge, &pin), Err(DeploymentFileError::TooLarge));
}

/// Signs any body with the root's key, as a captured control plane could.
fn signed(key: &EcdsaKey, body: &Value) -> Vec<u8> {
    let signature = STANDARD.encode(key.sign(&canonical_json(body).unwrap()).unwrap());
    let mut text = canonical_json(&json!({"body": body, "signature": signature})).unwrap();
    text.push(b'\n');
    text
}

#[test]
fn rules_hold_even_under_a_true_signature() {
    let mut w = world();
    let (receipt, _) = w.receipt(NOW);
    let (node, _) = w.node(node_id(1), NOW);
    let receipts = vec![ReceiptCertificate::from_chain(&receipt.chain).unwrap()];
    let text = w.root.sign_deployment_file(Profile::Development, vec![], receipts, NOW).unwrap();
    let pin = w.root.certificate().pin();
    let key = EcdsaKey::open(w.root.private()).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let body = &whole["body"];
    let with = |field: &str, value: Value| {
        let mut changed = body.clone();
        changed[field] = value;
        verify_deployment_file(&signed(&key, &changed), &pin)
    };
    assert!(verify_deployment_file(&signed(&key, body), &pin).is_ok());
    assert!(matches!(with("extra", json!(1)), Err(DeploymentFileError::Malformed(_))), "unknown fields");
    assert_eq!(with("kind", json!("swarm-receipt")), Err(DeploymentFileError::Kind));
    assert_eq!(with("format", json!(2)), Err(DeploymentFileError::Format(2)));
    assert!(matches!(with("profile", json!("demo")), Err(DeploymentFileError::Malformed(_))));
    assert_eq!(
        with("deployment", json!(DeploymentId::from_bytes([1; 16]))),
        Err(DeploymentFileError::Mismatch("deployment"))
    );
    let zeroes = format!("sha256:{}", "0".repeat(64));
    assert_eq!(with("root_pin", json!(zeroes)), Err(DeploymentFileError::Mismatch("root_pin")));
    assert_eq!(with("log_keys", json!(["a b"])), Err(DeploymentFileError::Keys("log_keys")));
    assert_eq!(with("log_keys", json!(vec!["a"; 65])), Err(DeploymentFileError::Keys("log_keys")));
    let node = ReceiptCertificate::from_chain(&node.chain).unwrap();
    assert!(matches!(
        with("receipt_certificates", json!([node])),
        Err(DeploymentFileError::Receipt(PeerRefusal::WrongClass { .. }))
    ));
    let mut foreign = world_of(DeploymentId::from_bytes([0xee; 16]), NOW);
    let foreign = ReceiptCertificate::from_chain(&foreign.receipt(NOW).0.chain).unwrap();
    assert!(matches!(
        with("receipt_certificates", json!([foreign])),
        Err(DeploymentFileError::Receipt(PeerRefusal::ForeignAuthority))
    ));
    // Another root's key signs nothing for this root.
    let twin = EcdsaKey::open(world().root.private()).unwrap();
    assert_eq!(verify_deployment_file(&signed(&twin, body), &pin), Err(DeploymentFileError::BadSignature));
    // The maker refuses what no reader would accept.
    assert!(w.root.sign_deployment_file(Profile::Development, vec!["two\nlines".to_owned()], vec![], NOW).is_err());
}
