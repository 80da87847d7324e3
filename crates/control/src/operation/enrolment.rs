//! How nodes come in and stay in: join tokens, enrolment, renewal of certificates.

use audit::Event;
use audit::entry::{Actor, Source};
use audit::event::TokenKind as EntryTokenKind;
use audit::{EncodedEntry, Outcome};
use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{
    CertificateRequest, EnrolRefusal, EnrolRequest, Issued, JoinGrant, NodeLife, PepperedMac, Token, TokenKind, TokenRecord, chain_to_wire,
};
use keys::SystemRandom;
use policy::action::{NodeCertificateRenew, NodeInvite};
use policy::{Action, Resource};
use store::{Expect, Kind, Mutation, Put, Transaction};
use vocabulary::api::{JoinToken, JoinTokenCreate, NodeEnrol, NodeEnrolled, NodeRenew, NodeRenewed};
use vocabulary::plan::NodePlace;
use vocabulary::{ErrorCode, Name, NodeId, SYSTEM_OWNER, Sha256Digest, TokenId, UnixTime};
use zeroize::Zeroizing;

use crate::api::call::{Call, Public};
use crate::api::node::NodeCall;
use crate::api::problem::Failure;
use crate::limits::{JOIN_LIFETIME_MAX_S, JOIN_LIFETIME_MIN_S};
use crate::operation::commit;
use crate::operation::login::token_row;
use crate::renewal::certificate_issued;
use crate::row::{CertificateRow, FORMAT, JoinScope, NodeRow};
use crate::state::{Control, actor, commit_failure, fresh};

/// A fresh join token for one node, as a transaction without its entry.
pub(crate) fn join_token(
    control: &Control,
    name: &Name,
    place: &NodePlace,
    now: UnixTime,
    expires: UnixTime,
) -> Result<(Transaction, Event, TokenId, Zeroizing<String>), Failure> {
    let token = Token::draw(TokenKind::Join, &mut SystemRandom);
    let scope = JoinScope { name: name.clone(), place: place.clone(), provider: None };
    let scope = serde_json::to_string(&scope).map_err(Failure::internal)?;
    let row = token_row(control, &token, SYSTEM_OWNER, None, &scope, now, expires, 0, None)?;
    let event = Event::TokenIssued { token: token.id(), token_kind: EntryTokenKind::Join, holder: None, expires };
    Ok((Transaction::new().with(Mutation::PutToken(row)), event, token.id(), token.reveal()))
}

/// Makes a join token.
pub(crate) async fn invite(call: Call<NodeInvite>, request: JoinTokenCreate) -> Result<JoinToken, Failure> {
    call.permit(Resource::Platform, &[(request.name.as_str(), "node")]).await?.spend();
    if !(JOIN_LIFETIME_MIN_S..=JOIN_LIFETIME_MAX_S).contains(&request.lifetime_s) {
        return Err(Failure::invalid(format!("`lifetime_s` is {JOIN_LIFETIME_MIN_S} to {JOIN_LIFETIME_MAX_S}")));
    }
    check_place(&request.place)?;
    let control = &call.control;
    if control.store.find(SYSTEM_OWNER, Kind::NODE, None, &request.name).await.map_err(Failure::internal)?.is_some() {
        return Err(Failure::new(ErrorCode::NameTaken, "`name` is taken by another node"));
    }
    let expires = call.now.plus_millis(request.lifetime_s.saturating_mul(1000));
    let (transaction, event, id, token) = join_token(control, &request.name, &request.place, call.now, expires)?;
    let member = call.member()?;
    let entry = control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(NodeInvite::NAME), event)?;
    let (audit_index, _) = commit(&call, transaction.entry(entry)).await?;
    Ok(JoinToken { id, token: token.to_string(), ca_pin: control.gate.verifier().root().pin().to_string(), expires, audit_index })
}

/// Labels are shown in tables and compared by rules: short, printable, few.
fn check_place(place: &NodePlace) -> Result<(), Failure> {
    check_labels("place.labels", &place.labels)
}

/// Whether labels are few, short and printable; `field` names them in the refusal.
pub(crate) fn check_labels(field: &str, labels: &vocabulary::Labels) -> Result<(), Failure> {
    let fits = |text: &str| !text.is_empty() && text.len() <= vocabulary::limits::LABEL_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if labels.len() > crate::limits::LABELS_MAX {
        return Err(Failure::invalid(format!("`{field}` has at most {} labels", crate::limits::LABELS_MAX)));
    }
    match labels.iter().find(|(key, value)| !fits(key) || !fits(value)) {
        Some(_) => Err(Failure::invalid(format!("`{field}`: keys and values are 1 to {} printable ASCII characters", vocabulary::limits::LABEL_MAX))),
        None => Ok(()),
    }
}

/// Enrols a node: one transaction spends the token, makes the node and records its keys and certificate.
pub(crate) async fn enrol(call: Call<Public>, Json(request): Json<NodeEnrol>) -> Result<NodeEnrolled, Failure> {
    let control = &call.control;
    let refused = |refusal: &EnrolRefusal| match refusal {
        EnrolRefusal::Token(_) | EnrolRefusal::UnknownToken | EnrolRefusal::Spent | EnrolRefusal::Revoked | EnrolRefusal::Expired => {
            Failure::new(ErrorCode::TicketRefused, refusal.to_string())
        }
        EnrolRefusal::Base64(_) | EnrolRefusal::Request(_) | EnrolRefusal::RecordKey(_) => Failure::invalid(refusal.to_string()),
    };
    let outcome = admitted(control, &request, call.now).await;
    let (checked, token, scope) = match outcome {
        Ok(found) => found,
        Err(Refused::Enrol(refusal)) => {
            let failure = refused(&refusal);
            control.count_stranger(call.connection.as_ref(), failure.problem.code).await;
            return Err(failure);
        }
        Err(Refused::Failure(failure)) => return Err(failure),
    };
    check_facts(&checked.facts)?;
    let id = fresh(NodeId::new, call.now);
    let issued = control
        .certifying()
        .node_authority
        .issue_node(id, &checked.request, NodeLife::default(), call.now, &mut SystemRandom)
        .map_err(Failure::internal)?;
    let entry = |event| control.entry(call.now, SYSTEM_OWNER, Actor::Node(id), call.source(), Outcome::Success, None, event);
    let (put, certificate_entry, digest) = certificate(control, id, &issued, call.now, call.source())?;
    let enrolled = entry(Event::NodeEnrolled {
        node: id,
        place: scope.place.clone(),
        record_key: checked.record_key.to_base64(),
        certificate: digest,
        join_token: Some(token),
    })?;
    let row = NodeRow {
        format: FORMAT,
        id,
        name: scope.name.clone(),
        provider: scope.provider,
        place: scope.place.clone(),
        record_key: checked.record_key.to_base64(),
        enrolled: enrolled.id,
        created: call.now,
        draining: false,
        revoked: false,
        lost: false,
        drain_until: None,
        dedicated: None,
        dedicated_entry: None,
    };
    let node = Put::json(SYSTEM_OWNER, Kind::NODE, id, Expect::Absent, &row).map_err(Failure::internal)?.name(&row.name);
    let spent = entry(Event::TokenSpent { token, token_kind: EntryTokenKind::Join })?;
    let transaction = Transaction::new()
        .with(Mutation::ConsumeToken { tenant: SYSTEM_OWNER, id: token })
        .with(node)
        .with(put)
        .entry(enrolled)
        .entry(certificate_entry)
        .entry(spent);
    let committed = match control.store.commit(transaction, call.now).await {
        Ok(committed) => committed,
        // Two machines with one token: the second finds it spent.
        Err(error) if matches!(error.conflict(), Some(store::Conflict::Spent | store::Conflict::Absent)) => {
            return Err(refused(&EnrolRefusal::Spent));
        }
        Err(error) => return Err(commit_failure(error)),
    };
    control.fleet.enrolled(id, checked.facts);
    Ok(NodeEnrolled {
        node: id,
        name: row.name,
        place: row.place,
        chain: chain_to_wire(&issued.chain),
        deployment_file: control.certifying().file.clone(),
        node_port: control.node_port,
        not_after: issued.not_after,
        audit_index: committed.audit_indexes.first().copied().unwrap_or_default(),
    })
}

enum Refused {
    Enrol(EnrolRefusal),
    Failure(Failure),
}

impl From<EnrolRefusal> for Refused {
    fn from(refusal: EnrolRefusal) -> Self {
        Self::Enrol(refusal)
    }
}

/// Judges an enrolment: what needs no state first, then the token.
async fn admitted(control: &Control, request: &NodeEnrol, now: UnixTime) -> Result<(EnrolRequest, TokenId, JoinScope), Refused> {
    let checked = EnrolRequest::check(request)?;
    let stored = control.store.token(checked.token.id()).await.map_err(|error| Refused::Failure(Failure::internal(error)))?;
    let stored = stored.filter(|stored| stored.row.kind == TokenKind::Join.as_str()).ok_or(EnrolRefusal::UnknownToken)?;
    let scope: JoinScope = serde_json::from_str(&stored.row.scope).map_err(|error| Refused::Failure(Failure::internal(error)))?;
    let grant = JoinGrant {
        record: TokenRecord { kind: TokenKind::Join, id: stored.row.id, mac: PepperedMac::from_parts(stored.row.pepper_version, stored.row.mac) },
        name: scope.name.clone(),
        place: scope.place.clone(),
        provider: scope.provider,
        created: stored.row.created,
        expires: stored.row.expires,
        spent: stored.consumed,
        revoked: stored.revoked,
    };
    grant.admit(&checked.token, &control.peppers, now)?;
    Ok((checked, stored.row.id, scope))
}

/// What a node says of itself is shown to people and compared with demands: bounded and printable.
pub(crate) fn check_facts(facts: &vocabulary::plan::NodeFacts) -> Result<(), Failure> {
    for (field, text) in [
        ("facts.hostname", &facts.hostname),
        ("facts.kernel", &facts.kernel),
        ("facts.cgroup_layout", &facts.cgroup_layout),
        ("facts.boot_id", &facts.boot_id),
        ("facts.version", &facts.version),
    ] {
        if text.len() > 256 || text.chars().any(char::is_control) {
            return Err(Failure::invalid(format!("`{field}` has at most 256 bytes and no control characters")));
        }
    }
    let offer = |offer: &vocabulary::runtime::RuntimeOffer| offer.version.len() <= 128 && !offer.version.chars().any(char::is_control);
    let once = |wanted: vocabulary::runtime::Runtime| facts.runtimes.iter().filter(|offer| offer.runtime == wanted).count() <= 1;
    if !vocabulary::runtime::Runtime::ALL.into_iter().all(once) || !facts.runtimes.iter().all(offer) {
        return Err(Failure::invalid("`facts.runtimes` names each runtime at most once, with a version of at most 128 bytes"));
    }
    if facts.features.len() > 64 || facts.features.iter().any(|(key, value)| key.len() > 64 || value.len() > 512) {
        return Err(Failure::invalid("`facts.features` has at most 64 entries of 64 and 512 bytes"));
    }
    Ok(())
}

/// The row and the entry of a certificate that is about to be given away.
fn certificate(control: &Control, node: NodeId, issued: &Issued, now: UnixTime, source: Source) -> Result<(Put, EncodedEntry, Sha256Digest), Failure> {
    let (event, digest) = certificate_issued(control, issued).ok_or_else(|| Failure::internal("a certificate without a leaf"))?;
    let entry = control.entry(now, SYSTEM_OWNER, Actor::Node(node), source, Outcome::Success, None, event)?;
    let row = CertificateRow {
        format: FORMAT,
        node,
        certificate: digest,
        chain: chain_to_wire(&issued.chain),
        not_before: issued.not_before,
        issued: now,
        entry: entry.id,
    };
    let put = Put::json(SYSTEM_OWNER, Kind::CERTIFICATE, *issued.serial.as_bytes(), Expect::Absent, &row)
        .map_err(Failure::internal)?
        .link(node)
        .until(issued.not_after);
    Ok((put, entry, digest))
}

/// Renews the certificate of the node that calls. Whose it is comes from the one that it showed.
pub(crate) async fn renew(call: NodeCall<NodeCertificateRenew>, request: NodeRenew) -> Result<NodeRenewed, Failure> {
    call.permit_self().await?.spend();
    let control = &call.control;
    if request.csr.len() > identity::limits::CSR_MAX.saturating_mul(2) {
        return Err(Failure::invalid("`csr` is too long"));
    }
    let csr = STANDARD.decode(&request.csr).map_err(|_| Failure::invalid("`csr` is not base64"))?;
    let csr = CertificateRequest::check(&csr).map_err(|error| Failure::invalid(format!("`csr`: {error}")))?;
    let issued = control
        .certifying()
        .node_authority
        .renew_node(&call.peer, &csr, NodeLife::default(), call.now, &mut SystemRandom)
        .map_err(Failure::internal)?;
    let (put, entry, _) = certificate(control, call.node_id(), &issued, call.now, Source::Node(call.node_id()))?;
    control.store.commit(Transaction::new().with(put).entry(entry), call.now).await.map_err(commit_failure)?;
    Ok(NodeRenewed { chain: chain_to_wire(&issued.chain), not_after: issued.not_after })
}
