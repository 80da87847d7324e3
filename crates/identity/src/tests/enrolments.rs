//! Nodes join: tokens, both keys, and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vocabulary::UnixTime;
use vocabulary::api::NodeEnrol;
use vocabulary::plan::{NodeFacts, NodePlace};

use super::support::{HOUR, NOW, Seeded, world};
use crate::certificate::{RequestError, ServerName, make_request};
use crate::enrol::{EnrolRefusal, EnrolRequest, JoinGrant, join_line, prove_record_key};
use crate::key::{EcdsaKey, KeyError, StatementKey};
use crate::pepper::{Pepper, Peppers};
use crate::token::{Token, TokenKind};

fn peppers() -> Peppers {
    Peppers::new(pepper())
}

fn pepper() -> Pepper {
    Pepper::new(1, &[5; 32])
}

fn wire(token: &Token) -> NodeEnrol {
    let record = StatementKey::generate(&mut Seeded(1)).unwrap();
    let csr = make_request(&EcdsaKey::generate().unwrap()).unwrap();
    NodeEnrol {
        token: token.reveal().to_string(),
        record_key: record.public().unwrap().to_base64(),
        record_proof: STANDARD.encode(prove_record_key(&record, &csr)),
        csr: STANDARD.encode(csr),
        facts: NodeFacts {
            hostname: "n1".into(),
            kernel: "6.1".into(),
            cgroup_layout: "unified".into(),
            cpu_millis: 1,
            memory_bytes: 1,
            scratch_bytes: 1,
            gpus: 0,
            runtimes: vec![],
            features: std::collections::BTreeMap::default(),
            boot_id: "b".into(),
            version: "0".into(),
        },
    }
}

fn grant(token: &Token) -> JoinGrant {
    JoinGrant {
        record: token.record(&pepper()),
        name: "n1".parse().unwrap(),
        place: NodePlace {
            region: "eu-central".parse().unwrap(),
            jurisdiction: "EU".parse().unwrap(),
            labels: std::collections::BTreeMap::default(),
        },
        provider: None,
        created: NOW,
        expires: NOW.plus_millis(HOUR),
        spent: None,
        revoked: None,
    }
}

#[test]
fn a_node_joins_with_both_keys() {
    let token = Token::draw(TokenKind::Join, &mut Seeded(2));
    let request = EnrolRequest::check(&wire(&token)).unwrap();
    grant(&token).admit(&request.token, &peppers(), NOW).unwrap();
}

#[test]
fn refused_requests() {
    let token = Token::draw(TokenKind::Join, &mut Seeded(3));
    let good = wire(&token);
    let check = |change: &dyn Fn(&mut NodeEnrol)| {
        let mut changed = good.clone();
        change(&mut changed);
        EnrolRequest::check(&changed).unwrap_err()
    };
    let other = wire(&token);
    assert!(matches!(check(&|w| w.token = "swm_join_x".into()), EnrolRefusal::Token(_)));
    assert_eq!(check(&|w| w.csr = "!".into()), EnrolRefusal::Base64("csr"));
    assert_eq!(check(&|w| w.csr = "AAAA".repeat(1_000_000)), EnrolRefusal::Base64("csr"));
    assert_eq!(check(&|w| w.csr = STANDARD.encode(b"junk")), EnrolRefusal::Request(RequestError::Malformed));
    // Another request than the one that the record key signed: the two keys come from two machines.
    assert_eq!(check(&|w| w.csr.clone_from(&other.csr)), EnrolRefusal::RecordKey(KeyError::BadSignature));
    assert_eq!(check(&|w| w.record_key = STANDARD.encode([7; 32])), EnrolRefusal::RecordKey(KeyError::BadSignature));
    assert_eq!(check(&|w| w.record_key = String::new()), EnrolRefusal::RecordKey(KeyError::MalformedPublic));
    assert_eq!(check(&|w| w.record_proof = String::new()), EnrolRefusal::RecordKey(KeyError::BadSignature));
    assert_eq!(check(&|w| w.record_proof.push('=')), EnrolRefusal::Base64("record_proof"));
}

#[test]
fn refused_tokens() {
    let mut random = Seeded(4);
    let token = Token::draw(TokenKind::Join, &mut random);
    let grant = grant(&token);
    let stranger = Token::draw(TokenKind::Join, &mut random);
    assert_eq!(grant.admit(&stranger, &peppers(), NOW), Err(EnrolRefusal::UnknownToken));
    let login = Token::draw(TokenKind::Session, &mut random);
    let as_login = JoinGrant { record: login.record(&pepper()), ..grant.clone() };
    assert_eq!(as_login.admit(&login, &peppers(), NOW), Err(EnrolRefusal::UnknownToken), "a login lets no node in");
    let spent = JoinGrant { spent: Some(NOW), ..grant.clone() };
    assert_eq!(spent.admit(&token, &peppers(), NOW), Err(EnrolRefusal::Spent));
    assert_eq!(spent.admit(&stranger, &peppers(), NOW), Err(EnrolRefusal::UnknownToken), "strangers learn nothing");
    let revoked = JoinGrant { revoked: Some(NOW), ..grant.clone() };
    assert_eq!(revoked.admit(&token, &peppers(), NOW), Err(EnrolRefusal::Revoked));
    for time in [NOW.plus_millis(HOUR), UnixTime::from_millis(NOW.millis() - 1)] {
        assert_eq!(grant.admit(&token, &peppers(), time), Err(EnrolRefusal::Expired));
    }
}

#[test]
fn the_join_line_carries_the_pin_and_no_token() {
    let pin = world().root.certificate().pin();
    let line = |host: &str| join_line(&host.parse().unwrap(), 7443, &pin);
    assert_eq!(line("Example.ORG"), format!("swarm node join https://example.org:7443 --ca-pin {pin}"));
    assert_eq!(line("::1"), format!("swarm node join https://[::1]:7443 --ca-pin {pin}"));
    assert_eq!(line("10.0.0.1"), format!("swarm node join https://10.0.0.1:7443 --ca-pin {pin}"));
    for hostile in ["a b", "a;rm -rf /", "$(x)", "", "a\u{1b}[31m", "-", "a/b"] {
        assert!(hostile.parse::<ServerName>().is_err(), "{hostile:?}");
    }
}
