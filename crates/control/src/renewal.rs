//! Certificates are renewed before they end: the authorities that issue those of nodes and of control planes, the receipt key,
//! and the certificate that this process shows. Only the root stays as it is: it is what everybody pinned.
//!
//! Level-triggered: each round looks at the stored row and at the clock. Several processes may run it: the row is replaced at
//! the revision that was read, and who loses follows. A server that was away for longer than its authorities lived makes new
//! ones at its start.

use std::sync::Arc;

use audit::Event;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Class, Issued, IssuingAuthority, ReceiptCertificate, RootAuthority, StatementKey, Subject, verify_deployment_file};
use keys::{KeyState, Purpose, SystemRandom};
use rustls_pki_types::CertificateDer;
use store::{Expect, Kind, Mutation, Put, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::{KeyId, SYSTEM_OWNER, Sha256Digest, UnixTime};

use crate::bootstrap::{StartError, certificates, internal};
use crate::clock;
use crate::deployment::{self, Certifying, DeploymentRow, NextReceiptKey, SealedSecret};
use crate::face::Face;
use crate::limits::{RECEIPT_KEY_ANNOUNCED_MS, RENEWAL_TICK};
use crate::state::Control;
use crate::vault::deployment_owner;

/// Renews until told to stop.
pub(crate) async fn run(control: Arc<Control>, mut face: Face, stop: CancellationToken) {
    loop {
        let now = clock::now();
        if let Err(error) = certify(&control, now).await {
            tracing::error!(%error, "what this deployment certifies with was not renewed; tried again in a minute");
        }
        if let Err(error) = face.renew(&control, now).await {
            tracing::error!(%error, "the certificate of this server was not renewed; tried again in a minute");
        }
        control.metrics.certificates(control.certifying().ends, face.ends());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEWAL_TICK) => {}
        }
    }
}

/// Takes over what another process renewed, and renews what is due.
pub(crate) async fn certify(control: &Control, now: UnixTime) -> Result<(), StartError> {
    loop {
        let (revision, row) = stored(control).await?;
        let error = match follow(control, row, revision, now).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Whoever replaced the row meanwhile destroyed the keys that this one names; the row that is there now opens.
        if stored(control).await?.0 == revision {
            return Err(error);
        }
    }
}

async fn stored(control: &Control) -> Result<(u64, DeploymentRow), StartError> {
    deployment::stored(&control.store).await?.ok_or(StartError::Mismatch("the deployment is gone from the database"))
}

async fn follow(control: &Control, row: DeploymentRow, revision: u64, now: UnixTime) -> Result<(), StartError> {
    let mut certifying = control.certifying();
    if revision > certifying.revision {
        certifying = adopt(control, &row, revision).await?;
    }
    // One that was replaced since it was read is nothing to go on from: whoever replaced it saw to what was due.
    if revision == certifying.revision && now >= certifying.due.first() && renew(control, row, &certifying, now).await? {
        let (revision, row) = stored(control).await?;
        adopt(control, &row, revision).await?;
    }
    Ok(())
}

async fn adopt(control: &Control, row: &DeploymentRow, revision: u64) -> Result<Arc<Certifying>, StartError> {
    let opened = Arc::new(Certifying::open(&control.store, &control.vault, control.gate.verifier().root(), row, revision).await?);
    control.certify_with(Arc::clone(&opened));
    // Plans that another key signed are signed again.
    control.fleet.wake.notify_one();
    Ok(opened)
}

/// Puts a new row in the place of this one. Says whether the row is another one now, whoever replaced it.
async fn renew(control: &Control, row: DeploymentRow, certifying: &Certifying, now: UnixTime) -> Result<bool, StartError> {
    let root = row.root_authority(&control.store, &control.vault).await?;
    let (due, mut next) = (certifying.due, row.clone());
    let mut renewing = Renewing { control, root, now, transaction: Transaction::new() };
    if now >= due.node_authority {
        (next.node_authority, next.node_authority_key) = renewing.authority(Class::Node)?;
        renewing.end(row.node_authority_key.key, Purpose::IssuingCa).await?;
    }
    if now >= due.control_authority {
        (next.control_authority, next.control_authority_key) = renewing.authority(Class::Control)?;
        renewing.end(row.control_authority_key.key, Purpose::IssuingCa).await?;
    }
    if now >= due.receipt_key {
        // One whose certificate has ended is of no use while the next one is announced.
        let lapsed = now >= certifying.ends.receipt_key;
        let announced = match next.receipt_next.take() {
            Some(announced) => announced,
            None => renewing.receipt_key(&mut next, if lapsed { now } else { now.plus_millis(RECEIPT_KEY_ANNOUNCED_MS) })?,
        };
        if now >= announced.from {
            renewing.end(row.receipt_key, Purpose::ReceiptKey).await?;
            (next.receipt_key, next.receipt_certificate) = (announced.key, announced.certificate);
        } else {
            next.receipt_next = Some(announced);
        }
    }
    let put = Put::json(SYSTEM_OWNER, Kind::SETTING, next.deployment, Expect::Revision(certifying.revision), &next).map_err(internal)?;
    match control.store.commit(renewing.transaction.with(put), now).await {
        Ok(_) => {
            tracing::info!("certificates of this deployment were renewed");
            Ok(true)
        }
        // Another process was first.
        Err(error) if error.conflict().is_some() => Ok(true),
        Err(error) => Err(internal(error)),
    }
}

/// One renewal: what goes into the transaction that replaces the row.
struct Renewing<'a> {
    control: &'a Control,
    root: RootAuthority,
    now: UnixTime,
    transaction: Transaction,
}

impl Renewing<'_> {
    fn key(&mut self, purpose: Purpose) -> Result<(KeyId, keys::PlainKey), StartError> {
        let (tenant, owner) = deployment_owner(self.control.deployment);
        let (record, plain) = self.control.vault.make_under_root(tenant, purpose, owner, self.now).map_err(internal)?;
        let id = record.id;
        self.transaction.mutations.push(Mutation::PutKey(record));
        Ok((id, plain))
    }

    fn record(&mut self, event: Event) -> Result<(), StartError> {
        let entry = self.control.system_entry(self.now, SYSTEM_OWNER, event).map_err(|failure| internal(failure.problem.detail))?;
        self.transaction.entries.push(entry);
        Ok(())
    }

    /// A new authority of a class, with its key sealed.
    fn authority(&mut self, class: Class) -> Result<(String, SealedSecret), StartError> {
        let made = self.issuing(class)?;
        let (id, plain) = self.key(Purpose::IssuingCa)?;
        Ok((STANDARD.encode(made.der()), SealedSecret::seal(&plain, id, made.private())))
    }

    fn issuing(&mut self, class: Class) -> Result<IssuingAuthority, StartError> {
        let made = self.root.issue_authority(class, self.now, &mut SystemRandom).map_err(certificates)?;
        let event = Event::CertificateIssued {
            certificate: digest(made.der()),
            serial: made.serial().to_string(),
            issuer: format!("root of {}", self.control.deployment),
            subject: authority_name(self.control, class),
            node: None,
            not_before: made.not_before(),
            not_after: made.not_after(),
        };
        self.record(event)?;
        Ok(made)
    }

    /// A new receipt key, certified and in the public file.
    fn receipt_key(&mut self, row: &mut DeploymentRow, from: UnixTime) -> Result<NextReceiptKey, StartError> {
        let authority = self.issuing(Class::Receipt)?;
        let (key, seed) = self.key(Purpose::ReceiptKey)?;
        let public = StatementKey::open(seed.expose()).and_then(|key| key.public()).map_err(certificates)?;
        let issued = authority.issue_receipt(key, &public, self.now, &mut SystemRandom).map_err(certificates)?;
        let certificate = ReceiptCertificate::from_chain(&issued.chain).ok_or_else(|| internal("receipt chain"))?;
        let (event, _) = certificate_issued(self.control, &issued).ok_or_else(|| internal("receipt chain"))?;
        self.record(event)?;
        let before = verify_deployment_file(row.file.as_bytes(), &self.root.certificate().pin()).map_err(certificates)?;
        let before = before.file().clone();
        let mut all = before.receipt_certificates;
        all.push(certificate.clone());
        row.file = self.root.sign_deployment_file(before.profile, before.log_keys, all, self.now).map_err(certificates)?;
        Ok(NextReceiptKey { key, certificate, from })
    }

    /// Ends a key that nothing is signed with any more.
    async fn end(&mut self, key: KeyId, purpose: Purpose) -> Result<(), StartError> {
        let told = |failure: crate::api::problem::Failure| internal(failure.problem.detail);
        let backups_until = self.now.plus_millis(self.control.backup_retention_ms().await.map_err(told)?);
        let step = |from, to| Mutation::StepKey { tenant: SYSTEM_OWNER, id: key, version: 1, from, to };
        let any = vec![KeyState::Active, KeyState::Deactivated, KeyState::Compromised];
        self.transaction.mutations.push(step(any, KeyState::PendingDestroy));
        self.transaction.mutations.push(step(vec![KeyState::PendingDestroy], KeyState::Destroyed));
        self.record(Event::KeyVersionEnded { key, version: 1, purpose: purpose.as_str().into(), backups_until })
    }
}

fn digest(der: &CertificateDer<'_>) -> Sha256Digest {
    Sha256Digest::from_bytes(audit::hash::sha256(&[der]))
}

/// How the log names the issuing authority of a class.
fn authority_name(control: &Control, class: Class) -> String {
    format!("issuing authority for {}s of {}", class.as_str(), control.deployment)
}

/// What the log says of a fresh certificate, and its digest; none of a chain without a leaf.
pub(crate) fn certificate_issued(control: &Control, issued: &Issued) -> Option<(Event, Sha256Digest)> {
    let certificate = digest(issued.chain.first()?);
    let node = match issued.id.subject {
        Subject::Node(node) => Some(node),
        Subject::Control(_) | Subject::Receipt(_) => None,
    };
    let event = Event::CertificateIssued {
        certificate,
        serial: issued.serial.to_string(),
        issuer: authority_name(control, issued.id.subject.class()),
        subject: issued.id.to_string(),
        node,
        not_before: issued.not_before,
        not_after: issued.not_after,
    };
    Some((event, certificate))
}
