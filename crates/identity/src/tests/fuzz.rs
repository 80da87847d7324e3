//! Parsers of strangers' bytes under seeded mutations: never a panic, never an acceptance of something changed.

use vocabulary::Profile;

use super::support::{NOW, Seeded, der, flipped, node_id, world};
use crate::certificate::{CertificateRequest, Class, RootCertificate, make_request, verify_chain_at};
use crate::deployment::{ReceiptCertificate, verify_deployment_file_unpinned};
use crate::key::EcdsaKey;
use crate::recovery::RecoveryCode;
use crate::token::{Token, TokenKind};

/// One of several small changes: flips, cuts, insertions, repeats, long lengths.
fn mutate(random: &mut Seeded, bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(changed.len());
        match random.below(6) {
            0 if !changed.is_empty() => changed[at] ^= 1 << random.below(8),
            1 => changed.truncate(at),
            2 => changed.insert(at, random.next().to_le_bytes()[0]),
            3 if !changed.is_empty() => {
                changed.remove(at);
            }
            4 if !changed.is_empty() => changed[at] = [0, 0x30, 0x7f, 0x80, 0x84, 0xff][random.below(6)],
            _ => {
                let piece = changed[at..changed.len().min(at + 16)].to_vec();
                let to = random.below(changed.len());
                changed.splice(to..to, piece);
            }
        }
    }
    changed
}

#[test]
fn every_flipped_byte_of_a_chain_is_refused() {
    let mut w = world();
    let (issued, _) = w.node(node_id(1), NOW);
    let root = w.root.certificate();
    for which in 0..2 {
        for at in 0..issued.chain[which].len() {
            let mut chain = issued.chain.clone();
            chain[which] = der(&flipped(&issued.chain[which], at, 1 << (at % 8)));
            let judged = verify_chain_at(root, &chain, Class::Node, NOW);
            assert!(judged.is_err(), "certificate {which}, byte {at}: {judged:?}");
        }
    }
}

#[test]
fn every_flipped_byte_of_a_root_and_of_a_request_is_refused() {
    let w = world();
    let root = w.root.certificate().der();
    for at in 0..root.len() {
        assert!(RootCertificate::check(&flipped(root, at, 1 << (at % 8))).is_err(), "byte {at}");
    }
    let csr = make_request(&EcdsaKey::generate().unwrap()).unwrap();
    assert!(CertificateRequest::check(&csr).is_ok());
    for at in 0..csr.len() {
        assert!(CertificateRequest::check(&flipped(&csr, at, 1 << (at % 8))).is_err(), "byte {at}");
    }
}

#[test]
fn mutated_certificates_and_requests() {
    let mut w = world();
    let (issued, _) = w.node(node_id(1), NOW);
    let csr = make_request(&EcdsaKey::generate().unwrap()).unwrap();
    let root = w.root.certificate();
    let mut random = Seeded(0x5eed);
    for _ in 0..4_000 {
        let leaf = mutate(&mut random, &issued.chain[0]);
        if leaf != issued.chain[0].as_ref() {
            assert!(verify_chain_at(root, &[der(&leaf), issued.chain[1].clone()], Class::Node, NOW).is_err());
        }
        let issuer = mutate(&mut random, &issued.chain[1]);
        if issuer != issued.chain[1].as_ref() {
            assert!(verify_chain_at(root, &[issued.chain[0].clone(), der(&issuer)], Class::Node, NOW).is_err());
        }
        let changed = mutate(&mut random, root.der());
        if changed != root.der().as_ref() {
            assert!(RootCertificate::check(&changed).is_err());
        }
        let changed = mutate(&mut random, &csr);
        if changed != csr {
            assert!(CertificateRequest::check(&changed).is_err());
        }
    }
}

#[test]
fn mutated_texts() {
    let mut w = world();
    let receipts = vec![ReceiptCertificate::from_chain(&w.receipt(NOW).0.chain).unwrap()];
    let file = w.root.sign_deployment_file(Profile::Development, vec!["k".into()], receipts, NOW).unwrap();
    let mut random = Seeded(0xface);
    let token = Token::draw(TokenKind::Session, &mut random).reveal();
    let code = RecoveryCode::draw_set(&mut random)[0].reveal();
    for _ in 0..4_000 {
        let changed = mutate(&mut random, file.as_bytes());
        if changed != file.as_bytes() {
            assert!(verify_deployment_file_unpinned(&changed).is_err());
        }
        let changed = mutate(&mut random, token.as_bytes());
        let changed = String::from_utf8_lossy(&changed);
        if changed != token.as_str() {
            assert!(Token::parse(&changed).is_err(), "{changed}");
        }
        let changed = mutate(&mut random, code.as_bytes());
        let _ = RecoveryCode::parse(&String::from_utf8_lossy(&changed));
    }
}
