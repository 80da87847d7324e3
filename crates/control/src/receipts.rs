//! Receipts: built when the published log covers all that they need, signed, verified as a stranger would, and only then kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit::Event;
use audit::entry::Body;
use audit::event::Evidence;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::StatementKey;
use receipt::envelope::{Envelope, InToto};
use receipt::record::{LogPart, LoggedEntry, PolicyVersion, Record};
use receipt::statement::{Statement, VolumeUse};
use receipt::{Receipt, Signer, Verdict};
use store::read::EntryFilter;
use store::{BlobPath, EntryRow, Expect, Kind, Page, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::job::ExitReason;
use vocabulary::{EntryId, JobId, NodeId, SYSTEM_OWNER, Sha256Digest, TenantId, UnixTime};

use crate::clock;
use crate::job::ENDED;
use crate::lease::{COMMIT, CommitRow, LeaseRow, commit_id};
use crate::limits::{RECEIPT_POLL, RECEIPT_RETRY_MS};
use crate::planner::{AttemptRow, JobRow, ReceiptRow};
use crate::publisher::Tiles;
use crate::row::CertificateRow;
use crate::state::Control;
use crate::witness::Base;

/// Where a receipt lies.
pub(crate) fn receipt_path(tenant: TenantId, digest: &Sha256Digest) -> Result<BlobPath, store::blobs::PathError> {
    format!("receipts/{tenant}/{}", digest.hex()).parse()
}

/// Where a node's signed statement lies, by the digest of its payload.
pub(crate) fn statement_path(tenant: TenantId, digest: &Sha256Digest) -> Result<BlobPath, store::blobs::PathError> {
    format!("statements/{tenant}/{}", digest.hex()).parse()
}

/// What DSSE's bytes begin with: the context under which the receipt key signs them, and plans never.
const DSSE: &[u8] = b"DSSEv1 ";

/// The receipt key, as envelopes want it.
struct ReceiptKey<'a> {
    key: &'a StatementKey,
    public: [u8; 32],
}

impl Signer for ReceiptKey<'_> {
    fn public(&self) -> [u8; 32] {
        self.public
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        match message.strip_prefix(DSSE) {
            Some(rest) => self.key.sign(DSSE, rest),
            // Envelopes sign nothing else; what is not theirs gets a signature that fits nothing.
            None => [0; 64],
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no receipt yet.
enum NotYet {
    /// The published log does not cover what it needs.
    Unpublished,
    /// There will never be one.
    Never(String),
    Failed(Failed),
}

impl<E: Into<Failed>> From<E> for NotYet {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Builds receipts until told to stop.
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut published = control.published.subscribe();
    let mut waiting: BTreeMap<JobId, UnixTime> = BTreeMap::new();
    loop {
        let now = clock::now();
        waiting.retain(|_, until| now < *until);
        if let Err(error) = round(&control, &mut waiting, now).await {
            tracing::error!(%error, "receipts were not built");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = published.changed() => {}
            () = tokio::time::sleep(RECEIPT_POLL) => {}
        }
    }
}

/// Looks at all jobs that are over and have no receipt.
async fn round(control: &Control, waiting: &mut BTreeMap<JobId, UnixTime>, now: UnixTime) -> Result<(), Failed> {
    let mut page = Page::first(200);
    loop {
        let found = control.store.list_state_anywhere(Kind::JOB, ENDED, page).await?;
        let last = found.items.last().map(|row| row.id);
        for stored in &found.items {
            let mut job: JobRow = stored.parse()?;
            if waiting.contains_key(&job.id) {
                continue;
            }
            let outcome = match build(control, &job, now).await {
                Ok(digest) => ReceiptRow::Ready(digest),
                Err(NotYet::Unpublished) => continue,
                Err(NotYet::Never(why)) => ReceiptRow::None(why),
                Err(NotYet::Failed(error)) => {
                    tracing::error!(job = %job.id, %error, "the receipt was not built");
                    waiting.insert(job.id, now.plus_millis(RECEIPT_RETRY_MS));
                    continue;
                }
            };
            job.receipt = Some(outcome);
            let put = job.put(Expect::Revision(stored.revision)).map_err(|failure| failure.problem.detail)?;
            match control.store.commit(Transaction::new().with(put), now).await {
                Ok(_) => {}
                // The job changed meanwhile: the next round sees it.
                Err(error) if error.conflict().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        match last {
            Some(last) if found.truncated => page = Page::after(last, 200),
            _ => return Ok(()),
        }
    }
}

/// The attempt and the statement's digest from which a receipt is made, or why there will be none.
fn stated(job: &JobRow) -> Result<(&AttemptRow, Sha256Digest), String> {
    let Some(attempt) = job.attempts.last() else { return Err("no attempt of it was placed on a node".to_owned()) };
    match (attempt.statement, job.exit.as_ref().map(|exit| exit.reason)) {
        (Some(statement), _) => Ok((attempt, statement)),
        (None, Some(ExitReason::NodeLost)) => Err("its node was lost and never delivered its signed statement".to_owned()),
        (None, _) => Err("its node never delivered its signed statement".to_owned()),
    }
}

/// Builds, verifies and stores the receipt of a job. Returns its digest.
async fn build(control: &Control, job: &JobRow, now: UnixTime) -> Result<Sha256Digest, NotYet> {
    let (attempt, digest) = stated(job).map_err(NotYet::Never)?;
    let tenant = job.tenant;
    let bytes = control.blobs.get(&statement_path(tenant, &digest)?, receipt::limits::PAYLOAD_MAX).await?;
    let envelope: Envelope = audit::canonical::from_slice(&bytes, receipt::limits::PAYLOAD_MAX)?;
    let statement = envelope.peek::<InToto<Statement>>()?.predicate;
    let entries = entries(control, job, attempt, &statement).await?;
    let base = control.proof_base().await.map_err(|failure| failure.problem.detail)?.ok_or(NotYet::Unpublished)?;
    if entries.rows.keys().next_back().is_none_or(|last| *last >= base.size) {
        return Err(NotYet::Unpublished);
    }
    let (epoch, policy) = control.policy_of(tenant).map_err(|failure| Failed::from(failure.problem.detail))?;
    if epoch != entries.policy_epoch {
        return Err(NotYet::Failed(format!("the policy set of epoch {} is not at hand", entries.policy_epoch).into()));
    }
    let certifying = control.certifying();
    let certificate = &certifying.receipt_certificate;
    let record = Record {
        attempt: job.attempt_id(attempt),
        control_certificates: vec![certificate.leaf.clone(), certificate.issuer.clone()],
        deployment: control.deployment,
        evidence: Evidence::None,
        issued: now,
        // Where no witness had to sign; the development profile alone permits that.
        labels: base.quorum_none.then(|| "quorum-none".to_owned()).into_iter().collect(),
        log: log_part(control, &entries, &base).await?,
        node_certificates: entries.chain,
        policy: PolicyVersion { digest: policy, epoch },
        profile: control.profile,
        // Both are set when the node's envelope is bound in.
        statement: digest,
        statement_envelope: digest,
        tenant,
        witness_policy: base.policy.as_ref().map(|text| STANDARD.encode(text)),
    };
    let key = ReceiptKey { key: &certifying.receipt_key, public: *certifying.receipt_key.public()?.as_bytes() };
    let file = Receipt::assemble(envelope, record, &key)?.encode()?;
    check(control, &certifying.file, &file, now)?;
    let digest = receipt::envelope::sha256(&file);
    control.blobs.put_same(&receipt_path(tenant, &digest)?, file.into()).await?;
    Ok(digest)
}

/// Verifies a receipt as a stranger would. One that does not verify is a defect of ours and is not kept.
fn check(control: &Control, deployment: &str, file: &[u8], now: UnixTime) -> Result<(), Failed> {
    let pin = control.gate.verifier().root().pin();
    let report = receipt::verify(file, deployment.as_bytes(), Some(&pin), Some(now));
    if report.ok {
        return Ok(());
    }
    let failed = report.lines.iter().filter(|line| line.verdict == Verdict::NotProved);
    let failed: Vec<String> = failed.map(|line| format!("{}: {}", line.claim, line.detail)).collect();
    Err(format!("it does not verify: {}", failed.join("; ")).into())
}

/// The entries that a receipt carries, by index, and what was read beside them.
struct Entries {
    rows: BTreeMap<u64, EntryRow>,
    policy_epoch: u64,
    /// The node's certificate when the attempt was placed, and its issuer.
    chain: Vec<String>,
}

async fn entry(control: &Control, tenant: TenantId, id: EntryId) -> Result<EntryRow, Failed> {
    control.store.entry_by_id(tenant, id).await?.ok_or_else(|| format!("entry {id} is missing").into())
}

async fn entries(control: &Control, job: &JobRow, attempt: &AttemptRow, statement: &Statement) -> Result<Entries, Failed> {
    let tenant = job.tenant;
    let placed = entry(control, tenant, attempt.placed_entry).await?;
    let Event::JobPlaced { policy_epoch, .. } = Body::parse(&placed.body)?.own.event else {
        return Err("the entry of the placement is another".into());
    };
    let finished = attempt.finished_entry.ok_or("the end has no entry")?;
    let (certificate, chain) = certificate(control, attempt.node, placed.time).await?;
    let (_, node) = control.node(attempt.node).await.map_err(|failure| failure.problem.detail)?.ok_or("the node is unknown")?;
    let mut rows = vec![
        entry(control, tenant, job.submitted_entry).await?,
        placed,
        entry(control, tenant, finished).await?,
        entry(control, SYSTEM_OWNER, node.enrolled).await?,
        entry(control, SYSTEM_OWNER, certificate).await?,
    ];
    if let Some(dedicated) = attempt.dedicated_entry {
        rows.push(entry(control, SYSTEM_OWNER, dedicated).await?);
    }
    for used in statement.inputs.iter().chain(&statement.outputs) {
        rows.extend(volume_entries(control, tenant, used).await?);
    }
    let released = control.secrets_of_job(tenant, job.id).await.map_err(|failure| failure.problem.detail)?;
    for given in &statement.secrets {
        let (_, row) = released.iter().find(|(lease, _)| *lease == given.lease).ok_or_else(|| format!("lease {} is unknown", given.lease))?;
        rows.push(entry(control, tenant, row.released).await?);
    }
    rows.extend(signature_entries(control, tenant, job.id).await?);
    rows.extend(policy_entry(control, tenant).await?);
    Ok(Entries { rows: rows.into_iter().map(|row| (row.index, row)).collect(), policy_epoch, chain })
}

/// Release, registration of the signer and commit of a volume that was used.
async fn volume_entries(control: &Control, tenant: TenantId, used: &VolumeUse) -> Result<Vec<EntryRow>, Failed> {
    let lease = control.store.get_json::<LeaseRow>(tenant, Kind::KEY_LEASE, used.lease).await?;
    let (_, lease) = lease.ok_or_else(|| format!("lease {} is unknown", used.lease))?;
    let mut rows = vec![entry(control, tenant, lease.released).await?];
    if used.record.is_some() {
        let epoch = used.head.writer_epoch;
        let writers = control.store.writers(tenant, used.volume, Page::after(epoch.saturating_sub(1), 1)).await?;
        let writer = writers.items.first().filter(|writer| writer.row.epoch == epoch).ok_or("the writer epoch is unknown")?;
        rows.push(entry(control, tenant, writer.row.entry).await?);
        let commit = control.store.get_json::<CommitRow>(tenant, COMMIT, commit_id(&used.head.root)).await?;
        let (_, commit) = commit.ok_or("the commit is unknown")?;
        rows.push(entry(control, tenant, commit.entry).await?);
    }
    Ok(rows)
}

/// The entries that say who signed the job's image.
async fn signature_entries(control: &Control, tenant: TenantId, job: JobId) -> Result<Vec<EntryRow>, Failed> {
    let filter = EntryFilter { resource_kind: Some("job".into()), resource: Some(job.to_string()), ..EntryFilter::default() };
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let page = control.store.entries_before(tenant, before, 1000, &filter).await?;
        before = page.items.iter().map(|row| row.index).min();
        for row in page.items {
            if matches!(Body::parse(&row.body)?.own.event, Event::ImageSigned { job: of, .. } if of == job) {
                found.push(row);
            }
        }
        if !page.truncated || before.is_none() {
            return Ok(found);
        }
    }
}

/// The entry that names the policy set in force, where there is one.
async fn policy_entry(control: &Control, tenant: TenantId) -> Result<Option<EntryRow>, Failed> {
    let (epoch, digest) = control.policy_of(tenant).map_err(|failure| failure.problem.detail)?;
    let filter = EntryFilter { resource_kind: Some("policy".into()), resource: Some(epoch.to_string()), ..EntryFilter::default() };
    for row in control.store.entries_before(tenant, None, 100, &filter).await?.items {
        if matches!(Body::parse(&row.body)?.own.event, Event::PolicyChanged { policy, .. } if policy == digest) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// The certificate that a node had at a time: the newest of those that had begun and not ended.
async fn certificate(control: &Control, node: NodeId, at: UnixTime) -> Result<(EntryId, Vec<String>), Failed> {
    let mut best: Option<CertificateRow> = None;
    let mut page = Page::first(1000);
    loop {
        let found = control.store.list_link(SYSTEM_OWNER, Kind::CERTIFICATE, node, page).await?;
        let last = found.items.last().map(|row| row.id);
        for stored in &found.items {
            let row: CertificateRow = stored.parse()?;
            let valid = row.issued <= at && row.not_before <= at && stored.until.is_some_and(|until| at < until);
            if valid && best.as_ref().is_none_or(|best| best.issued < row.issued) {
                best = Some(row);
            }
        }
        match last {
            Some(last) if found.truncated => page = Page::after(last, 1000),
            _ => break,
        }
    }
    let best = best.ok_or_else(|| format!("node {node} had no certificate at {at}"))?;
    Ok((best.entry, best.chain))
}

/// The entries with their proofs under one checkpoint.
async fn log_part(control: &Control, entries: &Entries, base: &Base) -> Result<LogPart, Failed> {
    let mut logged = Vec::with_capacity(entries.rows.len());
    for row in entries.rows.values() {
        let tiles = Tiles::load(&control.blobs, &audit::prove::tiles_for_inclusion(row.index, base.size)).await?;
        let proof = audit::prove::prove_inclusion(&tiles, row.index, base.size)?;
        logged.push(LoggedEntry::new(row.index, &row.salt, &row.body, &proof));
    }
    Ok(LogPart { checkpoint: STANDARD.encode(&base.checkpoint), entries: logged })
}
