//! OpenSSL as a stranger: it reads and verifies what we make, and we judge what it makes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;
use std::process::{Command, Output};
use vocabulary::Profile;

use super::support::{NOW, node_id, world};
use crate::certificate::{CertificateRequest, Class, NodeLife, RequestError, verify_chain_at};
use crate::deployment::ReceiptCertificate;
use crate::enrol::RECORD_KEY_CONTEXT;
use crate::key::StatementKey;

fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl").current_dir(folder).args(arguments).output().expect("openssl must be installed")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn pem(folder: &Path, name: &str, label: &str, der: &[u8]) {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap());
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn openssl_verifies_our_chains_and_refuses_a_foreign_root() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut w = world();
    let chains = [("node", w.node(node_id(1), NOW).0), ("control", w.control(NOW).0), ("receipt", w.receipt(NOW).0)];
    pem(folder, "root.pem", "CERTIFICATE", w.root.certificate().der());
    pem(folder, "foreign.pem", "CERTIFICATE", world().root.certificate().der());
    let time = NOW.seconds().to_string();
    for (name, issued) in &chains {
        let (leaf, issuer) = (format!("{name}.pem"), format!("{name}-issuer.pem"));
        pem(folder, &leaf, "CERTIFICATE", &issued.chain[0]);
        pem(folder, &issuer, "CERTIFICATE", &issued.chain[1]);
        let verify = |root| {
            openssl(
                folder,
                &["verify", "-x509_strict", "-attime", &time, "-CAfile", root, "-untrusted", &issuer, &leaf],
            )
        };
        let good = verify("root.pem");
        assert!(good.status.success(), "{name}: {}", said(&good));
        assert!(!verify("foreign.pem").status.success(), "{name}");
        let text = said(&openssl(folder, &["x509", "-in", &leaf, "-noout", "-text"]));
        assert!(text.contains(&format!("URI:{}", issued.id)), "{text}");
        assert!(text.contains("CA:FALSE") && text.contains("Digital Signature"), "{text}");
        let serial = said(&openssl(folder, &["x509", "-in", &leaf, "-noout", "-serial"]));
        assert_eq!(serial.trim(), format!("serial={}", issued.serial.to_string().to_uppercase()));
    }
    let pin = said(&openssl(folder, &["x509", "-in", "root.pem", "-noout", "-fingerprint", "-sha256"]));
    let pin = pin.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(format!("sha256:{pin}"), w.root.certificate().pin().to_string());
}

#[test]
fn openssl_checks_the_deployment_files_signature_and_a_record_keys() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut w = world();
    let receipts = vec![ReceiptCertificate::from_chain(&w.receipt(NOW).0.chain).unwrap()];
    let text = w.root.sign_deployment_file(Profile::Development, vec![], receipts, NOW).unwrap();
    // By hand, as a guide would say it: the body is the text between `{"body":` and `,"signature":`.
    let (body, rest) = text.strip_prefix("{\"body\":").unwrap().split_once(",\"signature\":\"").unwrap();
    let signature = STANDARD.decode(rest.strip_suffix("\"}\n").unwrap()).unwrap();
    std::fs::write(folder.join("body.json"), body).unwrap();
    std::fs::write(folder.join("signature"), signature).unwrap();
    pem(folder, "root.pem", "CERTIFICATE", w.root.certificate().der());
    assert!(openssl(folder, &["x509", "-in", "root.pem", "-noout", "-pubkey", "-out", "key.pem"]).status.success());
    let verify = ["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "body.json"];
    let good = openssl(folder, &verify);
    assert!(good.status.success(), "{}", said(&good));
    std::fs::write(folder.join("body.json"), body.replace("development", "production")).unwrap();
    assert!(!openssl(folder, &verify).status.success());

    let key = StatementKey::generate(&mut w.random).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key.public().unwrap());
    pem(folder, "record.pem", "PUBLIC KEY", &spki);
    std::fs::write(folder.join("message"), [RECORD_KEY_CONTEXT, b"hello"].concat()).unwrap();
    std::fs::write(folder.join("signature"), key.sign(RECORD_KEY_CONTEXT, b"hello")).unwrap();
    let good = openssl(
        folder,
        &["pkeyutl", "-verify", "-pubin", "-inkey", "record.pem", "-rawin", "-in", "message", "-sigfile", "signature"],
    );
    assert!(good.status.success(), "{}", said(&good));
}

#[test]
fn requests_by_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let make = |name: &str, key: &[&str], extra: &[&str]| {
        let key_file = format!("{name}.key");
        let made = openssl(folder, &[&["genpkey", "-out", &key_file], key].concat());
        assert!(made.status.success(), "{}", said(&made));
        let out = format!("{name}.csr");
        let fixed = ["req", "-new", "-key", &key_file, "-outform", "DER", "-out", &out];
        let made = openssl(folder, &[&fixed[..], extra].concat());
        assert!(made.status.success(), "{}", said(&made));
        std::fs::read(folder.join(out)).unwrap()
    };
    let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let greedy = make(
        "greedy",
        &p256,
        &[
            "-subj",
            "/O=Swarm/OU=control/CN=root",
            "-addext",
            "subjectAltName=IP:10.0.0.1,URI:spiffe://evil/node/1",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=keyCertSign",
        ],
    );
    let request = CertificateRequest::check(&greedy).unwrap();
    // Nothing that it asks for is in the certificate; the verifier would refuse it otherwise.
    let mut w = world();
    let issued = w.nodes.issue_node(node_id(1), &request, NodeLife::default(), NOW, &mut w.random).unwrap();
    assert!(verify_chain_at(w.root.certificate(), &issued.chain, Class::Node, NOW).is_ok());
    let leaf = &issued.chain[0];
    assert!(!leaf.windows(4).any(|w| w == b"evil") && !leaf.windows(4).any(|w| w == [10, 0, 0, 1]));

    let subject = ["-subj", "/CN=x"];
    let p384 = make("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], &subject);
    assert_eq!(CertificateRequest::check(&p384), Err(RequestError::Algorithm));
    let ed = make("ed", &["-algorithm", "ED25519"], &subject);
    assert_eq!(CertificateRequest::check(&ed), Err(RequestError::Algorithm));
    let sha384 = make("sha384", &p256, &["-subj", "/CN=x", "-sha384"]);
    assert_eq!(CertificateRequest::check(&sha384), Err(RequestError::Algorithm));
    let trailing = [greedy.as_slice(), &[0]].concat();
    assert_eq!(CertificateRequest::check(&trailing), Err(RequestError::Malformed));
    assert_eq!(CertificateRequest::check(&vec![0x30; 5_000]), Err(RequestError::TooLarge));
}
