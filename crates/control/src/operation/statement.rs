//! The node's signed statement of an ended attempt: it must agree with all that is stored, and it records the end.

use audit::Event;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::action::AttemptStatement;
use receipt::envelope::{Envelope, IN_TOTO, InToto, PublicKey};
use receipt::limits::ROOT_RECORD_MAX;
use receipt::statement::{Statement, VolumeUse, statement_digest};
use store::{Expect, Page, Transaction};
use vocabulary::api::{Done, StatementUpload};
use vocabulary::job::ExitReason;
use vocabulary::lease::{LeaseHolder, LeaseMode};
use vocabulary::limits::JSON_BODY_MAX;
use vocabulary::{EntryId, ErrorCode, Name, Sha256Digest, TenantId, VolumeId};

use crate::api::node::{Liveness, NodeCall, PlacedAttempt};
use crate::api::problem::Failure;
use crate::lease::{COMMIT, CommitRow, LeaseRow, commit_id};
use crate::operation::object::blob_failure;
use crate::operation::secret::ReleaseRow;
use crate::planner::{AttemptRow, JobRow};
use crate::receipts::statement_path;
use crate::row::NodeRow;
use crate::state::{Control, commit_failure};

/// How often a write is tried again when the job changed in the same moment (a report, a stop).
const TRIES: u32 = 5;

/// A rule that a statement breaks: its id for the entry, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broken(&'static str, String);

fn broken(rule: &'static str, why: impl Into<String>) -> Broken {
    Broken(rule, why.into())
}

/// Takes the statement. The same one again changes nothing; another one for the same attempt is refused.
pub(crate) async fn take(call: NodeCall<AttemptStatement>, upload: StatementUpload) -> Result<Done, Failure> {
    let placed = call.attempt(Liveness::Placed).await?;
    call.permit(placed.resource()).await?.spend();
    if upload.attempt != placed.id {
        return Err(Failure::invalid("`attempt` is not the attempt of the path"));
    }
    let bytes = STANDARD.decode(&upload.statement).map_err(|_| Failure::invalid("`statement` is not base64"))?;
    let envelope: Envelope =
        audit::canonical::from_slice(&bytes, JSON_BODY_MAX).map_err(|error| Failure::invalid(format!("`statement`: {error}")))?;
    let digest = statement_digest(&envelope).map_err(|error| Failure::invalid(format!("`statement`: {error}")))?;
    for _ in 0..TRIES {
        let placed = call.attempt(Liveness::Placed).await?;
        if let (Some(known), Some(entry)) = (placed.attempt.statement, placed.attempt.finished_entry) {
            if known == digest {
                let tenant = placed.tenant.tenant;
                let entry = call.control.store.entry_by_id(tenant, entry).await.map_err(Failure::internal)?;
                return Ok(Done { audit_index: entry.map_or(0, |entry| entry.index), notes: Vec::new() });
            }
            let failure = Failure::new(ErrorCode::WrongState, "another statement of this attempt is recorded: the first one stands");
            return Err(refused(&call, &placed, failure, "statement-once").await);
        }
        let placed = call.attempt(Liveness::LastWords).await?;
        let judged = match agrees(&envelope, &placed, &call.node, call.control.deployment) {
            Ok(statement) => match volumes(&call.control, &placed, &statement).await? {
                Ok(()) => secrets(&call.control, &placed, &statement).await?.map(|()| statement),
                Err(broken) => Err(broken),
            },
            Err(broken) => Err(broken),
        };
        let statement = match judged {
            Ok(statement) => statement,
            Err(Broken(rule, why)) => {
                let failure = Failure::new(ErrorCode::VerificationFailed, format!("statement: {why}"));
                return Err(refused(&call, &placed, failure, rule).await);
            }
        };
        if let Some(done) = record(&call, placed, statement, digest, &bytes).await? {
            return Ok(done);
        }
    }
    Err(Failure::new(ErrorCode::Conflict, "the job changed again and again meanwhile: send the statement again"))
}

async fn refused(call: &NodeCall<AttemptStatement>, placed: &PlacedAttempt, failure: Failure, rule: &str) -> Failure {
    call.refused(placed.tenant.tenant, failure, "job".to_owned(), placed.id.job.to_string(), vec![rule.to_owned()]).await
}

/// Records the end of the attempt with its statement. `None` when the job changed meanwhile.
async fn record(
    call: &NodeCall<AttemptStatement>,
    placed: PlacedAttempt,
    statement: Statement,
    digest: Sha256Digest,
    bytes: &[u8],
) -> Result<Option<Done>, Failure> {
    let tenant = placed.tenant.tenant;
    let path = statement_path(tenant, &digest).map_err(Failure::internal)?;
    call.control.blobs.put_same(&path, bytes.to_vec().into()).await.map_err(blob_failure)?;
    let event = Event::JobFinished {
        attempt: placed.id,
        node: call.node_id(),
        reason: statement.exit.reason,
        code: statement.exit.code,
        statement: Some(digest),
    };
    let entry = call.entry(tenant, event)?;
    let mut job = placed.job;
    if let Some(attempt) = job.attempts.last_mut() {
        attempt.report.isolation = Some(statement.isolation);
    }
    if job.finish(statement.exit, Some(digest), entry.id, call.now).is_none() {
        return Ok(None);
    }
    let put = job.put(Expect::Revision(placed.revision))?;
    match call.control.store.commit(Transaction::new().with(put).entry(entry), call.now).await {
        Ok(committed) => {
            call.control.fleet.wake.notify_one();
            // Its key leases are over with it; what fails here is done by the next sweep.
            call.control.end_groundless(tenant, call.now).await;
            let audit_index = committed.audit_indexes.first().copied().ok_or_else(|| Failure::internal("a change without an entry"))?;
            Ok(Some(Done { audit_index, notes: Vec::new() }))
        }
        Err(error) if error.conflict().is_some() => Ok(None),
        Err(error) => Err(commit_failure(error)),
    }
}

/// Checks the signature, and all that needs nothing but the rows at hand.
fn agrees(envelope: &Envelope, placed: &PlacedAttempt, node: &NodeRow, deployment: vocabulary::DeploymentId) -> Result<Statement, Broken> {
    let key: [u8; 32] = STANDARD
        .decode(&node.record_key)
        .ok()
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| broken("statement-signature", "the node's record key is unknown"))?;
    let said = envelope
        .verify::<InToto<Statement>>(IN_TOTO, &PublicKey::Ed25519(&key))
        .map_err(|error| broken("statement-signature", error.to_string()))?;
    let statement = said.predicate.clone();
    if said != statement.in_toto() {
        return Err(broken("statement-frame", "the frame around it contradicts it"));
    }
    places(&statement, &placed.job, &placed.attempt, node)?;
    if statement.deployment != deployment || statement.attempt != placed.id {
        return Err(broken("statement-placement", "it is about another attempt or deployment"));
    }
    Ok(statement)
}

/// Whether placement, image, command, end and names are those that are stored.
fn places(statement: &Statement, job: &JobRow, attempt: &AttemptRow, node: &NodeRow) -> Result<(), Broken> {
    let placement = |field: &str| Err(broken("statement-placement", format!("`{field}` is not that of the placement")));
    if statement.tenant != job.tenant {
        return placement("tenant");
    }
    if statement.project != job.project {
        return placement("project");
    }
    if statement.node != attempt.node || statement.node != node.id {
        return placement("node");
    }
    if statement.run_lease != attempt.run_lease {
        return placement("run_lease");
    }
    if statement.region != node.place.region || statement.jurisdiction != node.place.jurisdiction {
        return placement("region");
    }
    if statement.image != job.spec.image {
        return placement("image");
    }
    if !job.spec.command.is_empty() && statement.command != job.spec.command {
        return placement("command");
    }
    if let Some(exit) = attempt.ended.as_ref().and_then(|ended| ended.report.exit.as_ref()) {
        let stated = &statement.exit;
        if (exit.reason, exit.code, exit.signal) != (stated.reason, stated.code, stated.signal) {
            return Err(broken("statement-exit", "it says another end than the node reported"));
        }
    }
    let inputs: Vec<(VolumeId, &Name)> = job.spec.inputs.iter().map(|input| (input.volume, &input.name)).collect();
    let outputs: Vec<(VolumeId, &Name)> = job.spec.outputs.iter().map(|output| (output.volume, &output.name)).collect();
    let completed = statement.exit.reason == ExitReason::Completed;
    named(&statement.inputs, &inputs, completed)?;
    named(&statement.outputs, &outputs, completed)
}

/// Whether volumes are those that the job names, each once; all of them when the job completed.
fn named(used: &[VolumeUse], spec: &[(VolumeId, &Name)], all: bool) -> Result<(), Broken> {
    for (number, one) in used.iter().enumerate() {
        let twice = used.iter().take(number).any(|before| before.name == one.name);
        if twice || !spec.contains(&(one.volume, &one.name)) {
            return Err(broken("statement-volume", format!("volume {} as `{}` is not what the job names, or stands twice", one.volume, one.name)));
        }
    }
    let missing = spec.iter().find(|(volume, name)| !used.iter().any(|one| one.volume == *volume && one.name == **name));
    match missing {
        Some((volume, name)) if all => Err(broken("statement-volume", format!("the job completed without volume {volume} as `{name}`"))),
        Some(_) | None => Ok(()),
    }
}

/// Whether each volume was used under a lease of this attempt, and each root is what was committed.
async fn volumes(control: &Control, placed: &PlacedAttempt, statement: &Statement) -> Result<Result<(), Broken>, Failure> {
    let tenant = placed.tenant.tenant;
    let leases = control.leases_of_job(tenant, placed.id.job).await?;
    for (used, mode) in uses(statement) {
        let lease = leases.iter().find(|(id, _)| *id == used.lease).map(|(_, lease)| lease);
        let fits = |lease: &&LeaseRow| lease.holder == LeaseHolder::Attempt(placed.id) && lease.volume == used.volume && lease.mode == mode;
        let Some(lease) = lease.filter(fits) else {
            return Ok(Err(broken("statement-lease", format!("lease {} is not this attempt's for volume {}", used.lease, used.volume))));
        };
        if let Err(broken) = root(control, tenant, used, mode, lease).await? {
            return Ok(Err(broken));
        }
    }
    // What the attempt committed last must not go unsaid.
    for output in &placed.job.spec.outputs {
        let Ok(head) = control.head(tenant, output.volume).await else { continue };
        let said = statement.outputs.iter().any(|used| used.volume == output.volume && used.head == head);
        if head.seq > 0 && !said && by_attempt(control, tenant, &head.root, &leases, placed).await? {
            return Ok(Err(broken("statement-root", format!("it does not name root {} of volume {}, which this attempt committed", head.root, output.volume))));
        }
    }
    Ok(Ok(()))
}

/// Whether each secret is one that the job names, under a release to this attempt; all of them when the job completed.
async fn secrets(control: &Control, placed: &PlacedAttempt, statement: &Statement) -> Result<Result<(), Broken>, Failure> {
    let spec = &placed.job.spec.secrets;
    if spec.is_empty() && statement.secrets.is_empty() {
        return Ok(Ok(()));
    }
    let wrong = |why: String| Ok(Err(broken("statement-secret", why)));
    let released = control.secrets_of_job(placed.tenant.tenant, placed.id.job).await?;
    for (number, given) in statement.secrets.iter().enumerate() {
        let twice = statement.secrets.iter().take(number).any(|before| before.name == given.name);
        if twice || !spec.iter().any(|named| named.secret == given.secret && named.name == given.name) {
            return wrong(format!("secret {} as `{}` is not what the job names, or stands twice", given.secret, given.name));
        }
        let holder = LeaseHolder::Attempt(placed.id);
        let fits = |row: &ReleaseRow| row.holder == holder && row.secret == given.secret && row.version == given.version;
        if !released.iter().any(|(lease, row)| *lease == given.lease && fits(row)) {
            return wrong(format!("lease {} is not this attempt's for version {} of secret {}", given.lease, given.version, given.secret));
        }
    }
    let completed = statement.exit.reason == ExitReason::Completed;
    match spec.iter().find(|named| !statement.secrets.iter().any(|given| given.name == named.name)) {
        Some(named) if completed => wrong(format!("the job completed without secret `{}`", named.name)),
        Some(_) | None => Ok(Ok(())),
    }
}

fn uses(statement: &Statement) -> impl Iterator<Item = (&VolumeUse, LeaseMode)> {
    let inputs = statement.inputs.iter().map(|used| (used, LeaseMode::Read));
    inputs.chain(statement.outputs.iter().map(|used| (used, LeaseMode::Write)))
}

async fn committed(control: &Control, tenant: TenantId, root: &Sha256Digest) -> Result<Option<CommitRow>, Failure> {
    let found = control.store.get_json::<CommitRow>(tenant, COMMIT, commit_id(root)).await.map_err(Failure::internal)?;
    Ok(found.map(|(_, row)| row).filter(|row| row.head.root == *root))
}

async fn by_attempt(
    control: &Control,
    tenant: TenantId,
    root: &Sha256Digest,
    leases: &[(vocabulary::LeaseId, LeaseRow)],
    placed: &PlacedAttempt,
) -> Result<bool, Failure> {
    let Some(row) = committed(control, tenant, root).await? else { return Ok(false) };
    Ok(leases.iter().any(|(id, lease)| *id == row.lease && lease.holder == LeaseHolder::Attempt(placed.id)))
}

async fn index(control: &Control, tenant: TenantId, entry: EntryId) -> Result<u64, Failure> {
    let row = control.store.entry_by_id(tenant, entry).await.map_err(Failure::internal)?;
    row.map(|row| row.index).ok_or_else(|| Failure::internal("an entry is missing"))
}

/// Whether the root that was read or written is a committed one, signed by its registered signer.
async fn root(
    control: &Control,
    tenant: TenantId,
    used: &VolumeUse,
    mode: LeaseMode,
    lease: &LeaseRow,
) -> Result<Result<(), Broken>, Failure> {
    let wrong = |why: &str| Ok(Err(broken("statement-root", format!("volume {}: {why}", used.volume))));
    let head = &used.head;
    let Some(record) = &used.record else {
        let lineage = control.head(tenant, used.volume).await.ok().map(|now| now.lineage);
        let empty = head.seq == 0 && head.writer_epoch == 0 && *head.root.as_bytes() == [0; 32] && lineage == Some(head.lineage);
        return if empty && mode == LeaseMode::Read { Ok(Ok(())) } else { wrong("the signed root is missing") };
    };
    let Some(commit) = committed(control, tenant, &head.root).await?.filter(|commit| commit.volume == used.volume && commit.head == *head) else {
        return wrong("its root was never committed");
    };
    if mode == LeaseMode::Write && commit.lease != used.lease {
        return wrong("its root was committed under another lease");
    }
    if mode == LeaseMode::Read && index(control, tenant, commit.entry).await? >= index(control, tenant, lease.released).await? {
        return wrong("its root was committed after the key was released: read the head that the lease names");
    }
    let epoch = head.writer_epoch;
    let writers = control.store.writers(tenant, used.volume, Page::after(epoch.saturating_sub(1), 1)).await.map_err(Failure::internal)?;
    let Some(writer) = writers.items.first().filter(|writer| writer.row.epoch == epoch) else { return wrong("its writer epoch is unknown") };
    if record.len() > ROOT_RECORD_MAX * 2 {
        return wrong("its root record is too long");
    }
    let Ok(record) = STANDARD.decode(record) else { return wrong("its root record is not base64") };
    match receipt::root::verify(&record, &writer.row.signer, tenant, used.volume, head) {
        Ok(_) => Ok(Ok(())),
        Err(error) => wrong(&error.to_string()),
    }
}
