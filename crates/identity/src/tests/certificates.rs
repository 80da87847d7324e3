//! Certificates as we issue them, and the refusals that need no forged certificate.

use vocabulary::{ControlId, DeploymentId, NodeId, UnixTime};

use super::support::{DAY, HOUR, NOW, der, node_id, world, world_of};
use crate::certificate::{
    CertificateRequest, Class, IssueError, IssuingAuthority, LiveRevocations, NodeLife, PeerRefusal, PublicKey,
    RevocationError, RevocationSet, RootAuthority, RootCertificate, RootError, Serial, ServerName, SpiffeId, Subject,
    Verifier, chain_from_wire, chain_to_wire, make_request, verify_chain_at,
};
use crate::key::EcdsaKey;
use crate::limits::{BACKDATE_MS, CERTIFICATE_MAX, REVOCATIONS_MAX};

#[test]
fn a_node_is_who_its_certificate_says() {
    let mut w = world();
    let (issued, key) = w.node(node_id(1), NOW);
    let verifier = Verifier::new(w.root.certificate().clone(), LiveRevocations::default()).unwrap();
    let peer = verifier.verify(&issued.chain, Class::Node, NOW).unwrap();
    assert_eq!(peer.id.subject, Subject::Node(node_id(1)));
    assert_eq!(peer.id.deployment, w.root.certificate().deployment());
    assert_eq!((peer.class, peer.serial, peer.not_after), (Class::Node, issued.serial, NOW.plus_millis(HOUR)));
    assert_eq!(peer.key, PublicKey::Ecdsa(key.public().unwrap()));
    assert_eq!(issued.id.to_string(), format!("spiffe://{}/node/{}", peer.id.deployment, node_id(1)));
    // Two thirds of the life that its own dates show.
    let life = issued.not_after.since(issued.not_before).unwrap();
    assert_eq!(life, HOUR + BACKDATE_MS);
    assert_eq!(issued.renew_at().since(issued.not_before), Some(life / 3 * 2));
}

#[test]
fn control_and_receipt_certificates() {
    let mut w = world();
    let (control, _) = w.control(NOW);
    let (receipt, key) = w.receipt(NOW);
    let root = w.root.certificate();
    let peer = verify_chain_at(root, &control.chain, Class::Control, NOW).unwrap();
    assert_eq!(peer.not_after, NOW.plus_millis(7 * DAY));
    let peer = verify_chain_at(root, &receipt.chain, Class::Receipt, NOW.plus_millis(80 * DAY)).unwrap();
    assert_eq!(peer.key, PublicKey::Statement(key.public().unwrap()));
    assert_eq!(
        verify_chain_at(root, &receipt.chain, Class::Receipt, NOW.plus_millis(91 * DAY)),
        Err(PeerRefusal::Expired)
    );
}

#[test]
fn the_wrong_class_is_refused_everywhere() {
    let mut w = world();
    let chains = [
        (Class::Node, w.node(node_id(1), NOW).0.chain),
        (Class::Control, w.control(NOW).0.chain),
        (Class::Receipt, w.receipt(NOW).0.chain),
    ];
    for (found, chain) in &chains {
        for expected in Class::ALL {
            let judged = verify_chain_at(w.root.certificate(), chain, expected, NOW);
            if *found == expected {
                assert!(judged.is_ok());
            } else {
                assert_eq!(judged, Err(PeerRefusal::WrongClass { found: *found, expected }));
            }
        }
    }
}

#[test]
fn time() {
    let mut w = world();
    let (issued, _) = w.node(node_id(1), NOW);
    let root = w.root.certificate();
    let at = |time| verify_chain_at(root, &issued.chain, Class::Node, time).err();
    assert_eq!(at(issued.not_before), None);
    assert_eq!(at(issued.not_after), None);
    assert_eq!(at(issued.not_after.plus_millis(1_000)), Some(PeerRefusal::Expired));
    // The root begins with the first certificate; a later one shows that a leaf is judged by its own beginning.
    let (later, _) = w.node(node_id(2), NOW.plus_millis(DAY));
    assert_eq!(verify_chain_at(w.root.certificate(), &later.chain, Class::Node, NOW), Err(PeerRefusal::NotYetValid));
    for time in [UnixTime::from_millis(0), UnixTime::from_millis(u64::MAX)] {
        assert_eq!(
            verify_chain_at(w.root.certificate(), &issued.chain, Class::Node, time),
            Err(PeerRefusal::RootNotValid)
        );
    }
}

#[test]
fn another_deployments_certificates_are_foreign() {
    let mut ours = world();
    let mut theirs = world_of(DeploymentId::from_bytes([0xee; 16]), NOW);
    let (issued, _) = theirs.node(node_id(1), NOW);
    let root = &ours.root.certificate().clone();
    assert_eq!(verify_chain_at(root, &issued.chain, Class::Node, NOW), Err(PeerRefusal::ForeignAuthority));
    // Even with our own deployment's id and name on it: another root with the same subject.
    let mut twin = world();
    let (issued, _) = twin.node(node_id(1), NOW);
    assert_eq!(verify_chain_at(root, &issued.chain, Class::Node, NOW), Err(PeerRefusal::BadSignature));
    // A leaf of theirs under an issuer of ours.
    let chain = [issued.chain[0].clone(), ours.nodes.der().clone()];
    assert!(matches!(
        verify_chain_at(root, &chain, Class::Node, NOW),
        Err(PeerRefusal::ForeignAuthority | PeerRefusal::BadSignature)
    ));
    let (own, _) = ours.node(node_id(1), NOW);
    assert!(verify_chain_at(ours.root.certificate(), &own.chain, Class::Node, NOW).is_ok());
}

#[test]
fn chains_of_another_shape() {
    let mut w = world();
    let (issued, _) = w.node(node_id(1), NOW);
    let (leaf, issuer) = (issued.chain[0].clone(), issued.chain[1].clone());
    let root = w.root.certificate().der().clone();
    let judge = |chain: &[_]| verify_chain_at(w.root.certificate(), chain, Class::Node, NOW).err();
    assert_eq!(judge(&[leaf.clone(), issuer.clone(), root.clone()]), None, "the root may travel along");
    assert_eq!(judge(&[leaf.clone(), root.clone(), issuer.clone()]), None);
    assert_eq!(judge(&[]), Some(PeerRefusal::NoCertificate));
    assert_eq!(judge(std::slice::from_ref(&leaf)), Some(PeerRefusal::Issuers(0)));
    assert_eq!(judge(&[leaf.clone(), root.clone()]), Some(PeerRefusal::Issuers(0)));
    assert_eq!(judge(&[leaf.clone(), issuer.clone(), issuer.clone()]), Some(PeerRefusal::Issuers(2)));
    assert_eq!(judge(&[leaf.clone(), issuer.clone(), issuer.clone(), root.clone()]), Some(PeerRefusal::TooMany));
    assert_eq!(judge(&[der(&vec![0x30; CERTIFICATE_MAX + 1]), issuer.clone()]), Some(PeerRefusal::TooLarge));
    assert_eq!(judge(&[der(b"junk"), issuer.clone()]), Some(PeerRefusal::Malformed));
    assert_eq!(judge(&[issuer.clone(), root.clone()]), Some(PeerRefusal::Issuers(0)));
    assert_eq!(judge(&[issuer.clone(), issuer.clone()]), Some(PeerRefusal::AuthorityAsLeaf));
    assert_eq!(judge(&[root, issuer.clone()]), Some(PeerRefusal::AuthorityAsLeaf));
    let (second, _) = w.node(node_id(2), NOW);
    assert!(verify_chain_at(w.root.certificate(), &[leaf, second.chain[0].clone()], Class::Node, NOW).is_err());
}

#[test]
fn revocation_holds_at_once_and_only_grows() {
    let mut w = world();
    let (first, _) = w.node(node_id(1), NOW);
    let (second, _) = w.node(node_id(2), NOW);
    let live = LiveRevocations::default();
    let verifier = Verifier::new(w.root.certificate().clone(), live.clone()).unwrap();
    let peer = verifier.verify(&first.chain, Class::Node, NOW).unwrap();
    let other = verifier.verify(&second.chain, Class::Node, NOW).unwrap();

    let by_node = live.current().with_node(node_id(1));
    live.replace(by_node.clone()).unwrap();
    assert_eq!(verifier.verify(&first.chain, Class::Node, NOW), Err(PeerRefusal::Revoked));
    assert!(live.current().refuses(&peer) && !live.current().refuses(&other), "living connections are found");

    let by_serial = live.current().with_serial(second.serial);
    live.replace(by_serial.clone()).unwrap();
    assert_eq!(verifier.verify(&second.chain, Class::Node, NOW), Err(PeerRefusal::Revoked));
    // A new certificate of a revoked node is refused as well; of the other node it is not.
    let (again, _) = w.node(node_id(1), NOW);
    assert_eq!(verifier.verify(&again.chain, Class::Node, NOW), Err(PeerRefusal::Revoked));
    let (fresh, _) = w.node(node_id(2), NOW);
    assert!(verifier.verify(&fresh.chain, Class::Node, NOW).is_ok());

    assert_eq!(live.replace(by_node), Err(RevocationError::Older { offered: 1, current: 2 }));
    assert_eq!(live.replace(RevocationSet::default()), Err(RevocationError::Older { offered: 0, current: 2 }));
    let wire = by_serial.to_wire();
    assert_eq!(RevocationSet::from_wire(&wire), Ok(by_serial));
    let mut bad = wire.clone();
    bad.serials.push("00".repeat(16));
    assert_eq!(RevocationSet::from_wire(&bad), Err(RevocationError::Serial));
    let mut long = wire;
    long.nodes = vec![node_id(1); REVOCATIONS_MAX + 1];
    assert_eq!(RevocationSet::from_wire(&long), Err(RevocationError::TooMany));
}

#[test]
fn authorities_speak_for_their_class_only() {
    let mut w = world();
    let key = EcdsaKey::generate().unwrap();
    let request = CertificateRequest::check(&make_request(&key).unwrap()).unwrap();
    let names: [ServerName; 1] = ["localhost".parse().unwrap()];
    let public = key.public().unwrap();
    let refused = w.nodes.issue_control(ControlId::from_bytes([1; 16]), &public, &names, NOW, &mut w.random);
    assert_eq!(refused, Err(IssueError::WrongClass { speaks_for: Class::Node, asked: Class::Control }));
    let refused = w.controls.issue_node(node_id(1), &request, NodeLife::default(), NOW, &mut w.random);
    assert_eq!(refused, Err(IssueError::WrongClass { speaks_for: Class::Control, asked: Class::Node }));
    let nobody: [ServerName; 0] = [];
    let refused = w.controls.issue_control(ControlId::from_bytes([1; 16]), &public, &nobody, NOW, &mut w.random);
    assert_eq!(refused, Err(IssueError::Names));
    assert_eq!(NodeLife::from_millis(DAY + 1), Err(IssueError::Life));
    assert_eq!(NodeLife::from_millis(1), Err(IssueError::Life));
    let life = NodeLife::from_millis(DAY).unwrap();
    let issued = w.nodes.issue_node(node_id(1), &request, life, NOW, &mut w.random).unwrap();
    assert!(verify_chain_at(w.root.certificate(), &issued.chain, Class::Node, NOW).is_ok());
    let long_over = w.nodes.not_after().plus_millis(1);
    let refused = w.nodes.issue_node(node_id(1), &request, life, long_over, &mut w.random);
    assert_eq!(refused, Err(IssueError::AuthorityNotValid));
    assert!(w.nodes.replace_at() > NOW.plus_millis(182 * DAY) && w.nodes.replace_at() < NOW.plus_millis(184 * DAY));
    let clipped = UnixTime::from_millis(w.nodes.not_after().millis() - 60_000);
    let issued = w.nodes.issue_node(node_id(1), &request, life, clipped, &mut w.random).unwrap();
    assert_eq!(issued.not_after, w.nodes.not_after(), "no leaf outlives its issuer");
    let never =
        RootAuthority::create(DeploymentId::from_bytes([1; 16]), UnixTime::from_millis(u64::MAX), &mut w.random);
    assert_eq!(never.err(), Some(IssueError::Time));
}

#[test]
fn stored_authorities_open_with_their_own_key_under_their_own_root() {
    let mut w = world();
    let root = w.root.certificate().clone();
    let again = RootAuthority::open(RootCertificate::check(root.der()).unwrap(), w.root.private()).unwrap();
    let nodes = IssuingAuthority::open(again.certificate(), w.nodes.der(), w.nodes.private()).unwrap();
    assert_eq!(nodes.class(), Class::Node);
    let refused = RootAuthority::open(root.clone(), w.nodes.private());
    assert_eq!(refused.err(), Some(IssueError::OtherKey));
    let refused = IssuingAuthority::open(&root, w.nodes.der(), w.controls.private());
    assert_eq!(refused.err(), Some(IssueError::OtherKey));
    let twin = world();
    let refused = IssuingAuthority::open(twin.root.certificate(), w.nodes.der(), w.nodes.private());
    assert_eq!(refused.err(), Some(IssueError::Authority(PeerRefusal::BadSignature)));
    let foreign = world_of(DeploymentId::from_bytes([0xee; 16]), NOW);
    let refused = IssuingAuthority::open(foreign.root.certificate(), w.nodes.der(), w.nodes.private());
    assert_eq!(refused.err(), Some(IssueError::Authority(PeerRefusal::ForeignAuthority)));
    let (leaf, key) = w.node(node_id(1), NOW);
    let refused = IssuingAuthority::open(&root, &leaf.chain[0], key.private());
    assert_eq!(refused.err(), Some(IssueError::Authority(PeerRefusal::ForeignAuthority)));
    let shown = format!("{:?} {:?} {:?}", w.root, w.nodes, w.root.private());
    assert!(!shown.contains(&hex::encode(w.root.private().reveal())) && shown.contains("secret"));
}

#[test]
fn roots() {
    let w = world();
    let root = w.root.certificate();
    assert!(RootCertificate::check_pinned(root.der(), &root.pin()).is_ok());
    let twin = world();
    assert!(matches!(
        RootCertificate::check_pinned(twin.root.certificate().der(), &root.pin()),
        Err(RootError::OtherPin { .. })
    ));
    assert_eq!(RootCertificate::check(w.nodes.der()), Err(RootError::Form("subject")));
    assert_eq!(RootCertificate::check(b"junk"), Err(RootError::Malformed));
    assert_eq!(RootCertificate::check(&vec![0; CERTIFICATE_MAX + 1]), Err(RootError::TooLarge));
    assert!(root.pin().to_string().starts_with("sha256:"));
}

#[test]
fn spiffe_ids_have_one_text() {
    let deployment = DeploymentId::from_bytes([0xd0; 16]);
    let id = SpiffeId { deployment, subject: Subject::Node(NodeId::from_bytes([0xab; 16])) };
    let text = id.to_string();
    assert_eq!(text.parse(), Ok(id));
    for wrong in [
        text.to_uppercase(),
        text.replace("abab", "ABAB"),
        text.replace("/node/", "/job/"),
        text.replace("/node/", "/node//"),
        text.replace("/node/", "/x/../node/"),
        text.replace("spiffe", "https"),
        format!("{text}/"),
        format!("{text}?x"),
        format!("{text} "),
        text.replace("-", ""),
        SpiffeId::trust_domain(deployment),
        "spiffe://".repeat(100_000),
    ] {
        assert!(wrong.parse::<SpiffeId>().is_err(), "{}", wrong.chars().take(120).collect::<String>());
    }
}

#[test]
fn serial_numbers() {
    let mut random = super::support::Seeded(1);
    for _ in 0..1_000 {
        let serial = Serial::draw(&mut random);
        assert!(serial.as_bytes()[0] & 0xc0 == 0x40);
        assert_eq!(Serial::from_hex(&serial.to_string()), Some(serial));
    }
    for wrong in ["", "00", "ff", &"7F".repeat(16), &"80".repeat(16), &"3f".repeat(16), &"40".repeat(17)] {
        assert_eq!(Serial::from_hex(wrong), None, "{wrong}");
    }
}

#[test]
fn renewal_is_for_whom_the_certificate_names() {
    let mut w = world();
    let (issued, _) = w.node(node_id(1), NOW);
    let peer = verify_chain_at(w.root.certificate(), &issued.chain, Class::Node, NOW).unwrap();
    let request = CertificateRequest::check(&make_request(&EcdsaKey::generate().unwrap()).unwrap()).unwrap();
    let due = issued.renew_at();
    let renewed = w.nodes.renew_node(&peer, &request, NodeLife::default(), due, &mut w.random).unwrap();
    assert_eq!(renewed.id, issued.id);
    assert!(renewed.serial != issued.serial && renewed.not_after > issued.not_after);
    let late = issued.not_after.plus_millis(1);
    let refused = w.nodes.renew_node(&peer, &request, NodeLife::default(), late, &mut w.random);
    assert_eq!(refused, Err(IssueError::PeerNotValid));
    // A control-plane process renews nothing at the node authority.
    let (control, _) = w.control(NOW);
    let peer = verify_chain_at(w.root.certificate(), &control.chain, Class::Control, NOW).unwrap();
    let refused = w.nodes.renew_node(&peer, &request, NodeLife::default(), NOW, &mut w.random);
    assert_eq!(refused, Err(IssueError::WrongClass { speaks_for: Class::Node, asked: Class::Control }));
    let mut foreign = world_of(DeploymentId::from_bytes([0xee; 16]), NOW);
    let (theirs, _) = foreign.node(node_id(1), NOW);
    let peer = verify_chain_at(foreign.root.certificate(), &theirs.chain, Class::Node, NOW).unwrap();
    let refused = w.nodes.renew_node(&peer, &request, NodeLife::default(), NOW, &mut w.random);
    assert_eq!(refused, Err(IssueError::PeerNotValid));
}

#[test]
fn chains_on_the_wire() {
    let (issued, _) = world().node(node_id(1), NOW);
    let wire = chain_to_wire(&issued.chain);
    assert_eq!(chain_from_wire(&wire), Ok(issued.chain));
    assert_eq!(chain_from_wire(&vec![String::new(); 4]), Err(PeerRefusal::TooMany));
    assert_eq!(chain_from_wire(&["A".repeat(50_000_000)]), Err(PeerRefusal::TooLarge));
    assert_eq!(chain_from_wire(&[wire[0].replace('=', "") + "!"]), Err(PeerRefusal::Malformed));
}
