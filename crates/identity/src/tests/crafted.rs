//! Certificates that a careless or captured authority might sign: each is refused for its own reason.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use vocabulary::DeploymentId;

use super::support::{HOUR, NOW, Seeded, World, node_id, world};
use crate::certificate::{Class, PeerRefusal, RootCertificate, RootError, verify_chain_at};
use crate::key::{EcdsaKey, StatementKey};

fn at(offset_ms: i64) -> Duration {
    Duration::from_millis(NOW.millis().checked_add_signed(offset_ms).unwrap())
}

fn good_leaf(w: &World, class: &str) -> CertificateParams {
    let deployment = w.root.certificate().deployment();
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Swarm", class, "x");
    params.serial_number = Some(SerialNumber::from_slice(&[0x41; 16]));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + at(0);
    params.not_after = epoch + at(3_600_000);
    params.subject_alt_names = vec![uri(&format!("spiffe://{deployment}/{class}/{}", node_id(1)))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn name(organisation: &str, unit: &str, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organisation);
    name.push(DnType::OrganizationalUnitName, unit);
    name.push(DnType::CommonName, common);
    name
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn sign(
    params: &CertificateParams,
    public: &impl PublicKeyData,
    issuer: &CertificateDer<'_>,
    key: &EcdsaKey,
) -> CertificateDer<'static> {
    let issuer = Issuer::from_ca_cert_der(issuer, key).unwrap();
    params.signed_by(public, &issuer).unwrap().der().clone()
}

/// A leaf from the node authority, changed.
fn leaf(w: &World, change: impl FnOnce(&mut CertificateParams)) -> Option<PeerRefusal> {
    let mut params = good_leaf(w, "node");
    change(&mut params);
    let key = EcdsaKey::open(w.nodes.private()).unwrap();
    let leaf = sign(&params, &EcdsaKey::generate().unwrap(), w.nodes.der(), &key);
    verify_chain_at(w.root.certificate(), &[leaf, w.nodes.der().clone()], Class::Node, NOW).err()
}

#[test]
fn leaves() {
    let w = world();
    let d = w.root.certificate().deployment();
    let id = |class: &str| format!("spiffe://{d}/{class}/{}", node_id(1));
    let other = DeploymentId::from_bytes([0xee; 16]);
    assert_eq!(leaf(&w, |_| {}), None, "the unchanged one passes");

    let refusals: Vec<(&str, Option<PeerRefusal>, PeerRefusal)> = vec![
        ("two URIs", leaf(&w, |p| p.subject_alt_names.push(uri(&id("node")))), PeerRefusal::Uris(2)),
        ("no URI", leaf(&w, |p| p.subject_alt_names = vec![]), PeerRefusal::Uris(0)),
        ("foreign URI", leaf(&w, |p| p.subject_alt_names = vec![uri("https://example.org")]), PeerRefusal::BadId),
        (
            "another deployment",
            leaf(&w, |p| p.subject_alt_names = vec![uri(&format!("spiffe://{other}/node/{}", node_id(1)))]),
            PeerRefusal::OtherDeployment(other),
        ),
        (
            "a node authority names a control plane",
            leaf(&w, |p| p.subject_alt_names = vec![uri(&id("control"))]),
            PeerRefusal::IssuerOfOtherClass { issuer: "node".into(), class: Class::Control },
        ),
        (
            "a node authority names a receipt key",
            leaf(&w, |p| p.subject_alt_names = vec![uri(&id("receipt"))]),
            PeerRefusal::IssuerOfOtherClass { issuer: "node".into(), class: Class::Receipt },
        ),
        (
            "a DNS name on a node",
            leaf(&w, |p| p.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()))),
            PeerRefusal::UnexpectedNames,
        ),
        (
            "an address on a node (OpenBao GHSA-g892)",
            leaf(&w, |p| p.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()))),
            PeerRefusal::UnexpectedNames,
        ),
        (
            "an e-mail address",
            leaf(&w, |p| p.subject_alt_names.push(SanType::Rfc822Name("a@b.c".try_into().unwrap()))),
            PeerRefusal::UnexpectedNames,
        ),
        (
            "an authority as leaf",
            leaf(&w, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            PeerRefusal::AuthorityAsLeaf,
        ),
        ("more key usages", leaf(&w, |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)), PeerRefusal::BadUsage),
        ("no key usage", leaf(&w, |p| p.key_usages = vec![]), PeerRefusal::BadUsage),
        (
            "one extended usage",
            leaf(&w, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            PeerRefusal::BadUsage,
        ),
        ("no extended usage", leaf(&w, |p| p.extended_key_usages = vec![]), PeerRefusal::BadUsage),
        (
            "code signing",
            leaf(&w, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)),
            PeerRefusal::BadUsage,
        ),
        ("any usage", leaf(&w, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)), PeerRefusal::BadUsage),
        (
            "a strange extension",
            leaf(&w, |p| p.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]))),
            PeerRefusal::UnexpectedExtension,
        ),
        (
            "a strange critical extension",
            leaf(&w, |p| {
                let mut strange = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                strange.set_criticality(true);
                p.custom_extensions.push(strange);
            }),
            PeerRefusal::UnexpectedExtension,
        ),
        (
            "a life of two days",
            leaf(&w, |p| p.not_after = p.not_before + Duration::from_secs(2 * 86_400)),
            PeerRefusal::TooLong,
        ),
        (
            "expired",
            leaf(&w, |p| {
                p.not_before -= Duration::from_millis(HOUR);
                p.not_after = p.not_before + Duration::from_secs(60);
            }),
            PeerRefusal::Expired,
        ),
        (
            "not yet valid",
            leaf(&w, |p| {
                p.not_before += Duration::from_secs(60);
            }),
            PeerRefusal::NotYetValid,
        ),
        (
            "a short serial number",
            leaf(&w, |p| p.serial_number = Some(SerialNumber::from_slice(&[1]))),
            PeerRefusal::BadSerial,
        ),
        (
            "a long serial number",
            leaf(&w, |p| p.serial_number = Some(SerialNumber::from_slice(&[0x41; 20]))),
            PeerRefusal::BadSerial,
        ),
        (
            "another organisation",
            leaf(&w, |p| p.distinguished_name = name("Other", "node", "x")),
            PeerRefusal::BadSubject,
        ),
        (
            "a subject of another class",
            leaf(&w, |p| p.distinguished_name = name("Swarm", "control", "x")),
            PeerRefusal::BadSubject,
        ),
        ("an empty subject", leaf(&w, |p| p.distinguished_name = DistinguishedName::new()), PeerRefusal::BadSubject),
    ];
    for (what, found, expected) in refusals {
        assert_eq!(found, Some(expected), "{what}");
    }
}

#[test]
fn keys_of_another_kind() {
    let w = world();
    let nodes = EcdsaKey::open(w.nodes.private()).unwrap();
    let ed = StatementKey::generate(&mut Seeded(1)).unwrap().public().unwrap();
    let leaf = sign(&good_leaf(&w, "node"), &ed, w.nodes.der(), &nodes);
    let judged = verify_chain_at(w.root.certificate(), &[leaf, w.nodes.der().clone()], Class::Node, NOW);
    assert_eq!(judged, Err(PeerRefusal::BadKey));
    // A receipt key that is a TLS key.
    let receipts = EcdsaKey::open(w.receipts.private()).unwrap();
    let mut params = good_leaf(&w, "receipt");
    params.extended_key_usages = vec![];
    let leaf = sign(&params, &EcdsaKey::generate().unwrap(), w.receipts.der(), &receipts);
    let judged = verify_chain_at(w.root.certificate(), &[leaf, w.receipts.der().clone()], Class::Receipt, NOW);
    assert_eq!(judged, Err(PeerRefusal::BadKey));
}

/// An issuing authority that the true root signed, changed; with a good node leaf under it.
fn under(w: &World, change: impl FnOnce(&mut CertificateParams)) -> Option<PeerRefusal> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Swarm", "node", "crafted");
    params.serial_number = Some(SerialNumber::from_slice(&[0x42; 16]));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + at(0);
    params.not_after = epoch + at(86_400_000);
    params.subject_alt_names = vec![uri(&format!("spiffe://{}", w.root.certificate().deployment()))];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    let key = EcdsaKey::generate().unwrap();
    let root_key = EcdsaKey::open(w.root.private()).unwrap();
    let issuer = sign(&params, &key, w.root.certificate().der(), &root_key);
    let leaf = sign(&good_leaf(w, "node"), &EcdsaKey::generate().unwrap(), &issuer, &key);
    verify_chain_at(w.root.certificate(), &[leaf, issuer], Class::Node, NOW).err()
}

#[test]
fn authorities() {
    let w = world();
    let other = DeploymentId::from_bytes([0xee; 16]);
    assert_eq!(under(&w, |_| {}), None, "the unchanged one passes");
    let refusals: Vec<(&str, Option<PeerRefusal>, PeerRefusal)> = vec![
        (
            "of another class",
            under(&w, |p| p.distinguished_name = name("Swarm", "control", "x")),
            PeerRefusal::IssuerOfOtherClass { issuer: "control".into(), class: Class::Node },
        ),
        (
            "of no class",
            under(&w, |p| p.distinguished_name = name("Swarm", "everything", "x")),
            PeerRefusal::BadSubject,
        ),
        (
            "that calls itself root",
            under(&w, |p| p.distinguished_name = name("Swarm", "root", "x")),
            PeerRefusal::BadSubject,
        ),
        (
            "for another deployment",
            under(&w, |p| p.subject_alt_names = vec![uri(&format!("spiffe://{other}"))]),
            PeerRefusal::OtherDeployment(other),
        ),
        ("without a trust domain", under(&w, |p| p.subject_alt_names = vec![]), PeerRefusal::Uris(0)),
        (
            "that may make authorities",
            under(&w, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))),
            PeerRefusal::LeafAsAuthority,
        ),
        (
            "without a bound on paths",
            under(&w, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            PeerRefusal::LeafAsAuthority,
        ),
        ("that is a leaf", under(&w, |p| p.is_ca = IsCa::ExplicitNoCa), PeerRefusal::LeafAsAuthority),
        (
            "that may sign other things",
            under(&w, |p| p.key_usages.push(KeyUsagePurpose::DigitalSignature)),
            PeerRefusal::BadUsage,
        ),
        (
            "with a name",
            under(&w, |p| p.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()))),
            PeerRefusal::UnexpectedNames,
        ),
        (
            "that ended",
            under(&w, |p| {
                p.not_before -= Duration::from_secs(3600);
                p.not_after = p.not_before + Duration::from_secs(60);
            }),
            PeerRefusal::Expired,
        ),
    ];
    for (what, found, expected) in refusals {
        assert_eq!(found, Some(expected), "an authority {what}");
    }
}

#[test]
fn the_root_signs_no_leaf_and_a_leaf_signs_nothing() {
    let mut w = world();
    let root_key = EcdsaKey::open(w.root.private()).unwrap();
    let by_root = sign(&good_leaf(&w, "node"), &EcdsaKey::generate().unwrap(), w.root.certificate().der(), &root_key);
    let root = w.root.certificate().clone();
    let judged = verify_chain_at(&root, &[by_root.clone(), root.der().clone()], Class::Node, NOW);
    assert_eq!(judged, Err(PeerRefusal::Issuers(0)));
    let judged = verify_chain_at(&root, &[by_root, w.nodes.der().clone()], Class::Node, NOW);
    assert_eq!(judged, Err(PeerRefusal::Issuers(0)));
    let (node, key) = w.node(node_id(1), NOW);
    let by_leaf = sign(&good_leaf(&w, "node"), &EcdsaKey::generate().unwrap(), &node.chain[0], &key);
    let judged = verify_chain_at(&root, &[by_leaf, node.chain[0].clone()], Class::Node, NOW);
    assert!(matches!(judged, Err(PeerRefusal::ForeignAuthority | PeerRefusal::LeafAsAuthority)), "{judged:?}");
}

#[test]
fn self_signed_certificates_that_are_no_roots() {
    let w = world();
    let key = EcdsaKey::generate().unwrap();
    let mut params = good_leaf(&w, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![];
    params.subject_alt_names = vec![uri(&format!("spiffe://{}", w.root.certificate().deployment()))];
    let check = |params: &CertificateParams| RootCertificate::check(params.self_signed(&key).unwrap().der()).err();
    assert_eq!(check(&params), None);
    let change = |change: fn(&mut CertificateParams)| {
        let mut changed = params.clone();
        change(&mut changed);
        check(&changed)
    };
    assert_eq!(change(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Some(RootError::Form("usage")));
    assert_eq!(change(|p| p.is_ca = IsCa::ExplicitNoCa), Some(RootError::Form("usage")));
    assert_eq!(change(|p| p.key_usages = vec![]), Some(RootError::Form("usage")));
    assert_eq!(change(|p| p.subject_alt_names = vec![]), Some(RootError::Form("trust domain")));
    assert_eq!(change(|p| p.subject_alt_names = vec![uri("spiffe://x")]), Some(RootError::Form("trust domain")));
    assert_eq!(change(|p| p.subject_alt_names.push(uri("spiffe://x"))), Some(RootError::Form("trust domain")));
    assert_eq!(
        change(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        Some(RootError::Form("list of extensions"))
    );
    assert_eq!(change(|p| p.distinguished_name = name("Swarm", "node", "x")), Some(RootError::Form("subject")));
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let judged = RootCertificate::check(params.self_signed(&ed).unwrap().der());
    assert_eq!(judged.err(), Some(RootError::Form("key")));
}
