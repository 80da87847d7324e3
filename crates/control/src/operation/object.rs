//! Sealed objects of a volume, and the compare-and-set of its root. The control plane stores ciphertext and compares.

use audit::Event;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use keys::VerifyingKey;
use policy::action::{VolumeRead, VolumeWrite};
use store::blobs::Staged;
use store::{BlobError, BlobPath, Expect, Mutation, Placed, Put, Transaction};
use vocabulary::api::{VolumeCommit, VolumeCommitted};
use vocabulary::lease::LeaseMode;
use vocabulary::limits::OBJECT_MAX;
use vocabulary::volume::RootHead;
use vocabulary::{ErrorCode, Sha256Digest};
use volume::root::RootRecord;

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::api::table::Raw;
use crate::lease::{COMMIT, CommitRow, Holder, LeaseRow, commit_id};
use crate::limits::STREAM_IDLE_TIMEOUT;
use crate::operation::lease::{holder, leased};
use crate::operation::volume::resource;
use crate::row::{FORMAT, VolumeRow};
use crate::state::{Control, commit_failure};

fn path(row: &VolumeRow, below: &str) -> Result<BlobPath, Failure> {
    format!("volumes/{}/{below}", row.prefix).parse().map_err(|error| Failure::invalid(format!("object path: {error}")))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(crate) fn blob_failure(error: BlobError) -> Failure {
    match error {
        BlobError::Absent(_) => Failure::not_found(),
        BlobError::Exists(_) | BlobError::Differs(_) => {
            Failure::new(ErrorCode::Conflict, "an object of this name is there already: names are used once")
        }
        BlobError::TooLarge { size, limit, .. } => Failure::new(ErrorCode::TooLarge, format!("{size} bytes are more than the limit of {limit}")),
        BlobError::Mismatch { what, .. } => {
            Failure::new(ErrorCode::VerificationFailed, format!("the bytes do not have the announced {what}; nothing was kept"))
        }
        BlobError::Range { .. } | BlobError::Full | BlobError::Store(_) | BlobError::Folder { .. } => {
            tracing::error!(%error, "object store failed");
            Failure::new(ErrorCode::StorageFailed, "the object store failed")
        }
    }
}

/// Stores an object under a write lease. Names are used once.
pub(crate) async fn put(call: Call<VolumeWrite>, Raw(body): Raw) -> Result<Response, Failure> {
    let holder = holder(&call)?;
    let (lease, row) = holder.leased(call.lease_id()?, call.id("id")?, LeaseMode::Write).await?;
    call.permit_for(resource(&row, call.tenant()?), &[], Some(row.spec.purpose.clone())).await?.spend();
    take(&holder, &lease, &row, call.path("path")?, body).await
}

/// Takes an object of a volume. A catalogue that a writer left behind before its commit gives way to the newest writer's.
pub(crate) async fn take(holder: &Holder<'_>, lease: &LeaseRow, row: &VolumeRow, below: &str, body: Body) -> Result<Response, Failure> {
    let path = path(row, below)?;
    let mut staged = holder.control.blobs.stage(&path).await.map_err(blob_failure)?;
    let size = match receive(&mut staged, body).await {
        // Nothing sealed is empty; a client whose body was lost on the way would use the name up.
        Ok(0) => {
            discarded(staged.abort().await);
            return Err(Failure::invalid("the body is empty: a sealed object has bytes"));
        }
        Ok(size) => size,
        Err(failure) => {
            discarded(staged.abort().await);
            return Err(failure);
        }
    };
    match staged.place().await.map_err(blob_failure)? {
        Placed::Done => {}
        Placed::Differs(rival) => {
            let mut turn = match holder.control.replacing(row.id).await {
                Ok(turn) => turn,
                Err(failure) => {
                    discarded(rival.abort().await);
                    return Err(failure);
                }
            };
            let judged = match abandoned(holder, lease, row, below).await {
                Ok(true) => turn.still().await.map(|()| true),
                judged => judged,
            };
            match judged {
                Ok(true) => rival.replace().await.map_err(blob_failure)?,
                Ok(false) => {
                    discarded(rival.abort().await);
                    return Err(blob_failure(BlobError::Differs(path)));
                }
                Err(failure) => {
                    discarded(rival.abort().await);
                    return Err(failure);
                }
            }
        }
    }
    holder.control.vault.arrived.add(holder.tenant, row.id, size);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What was refused is removed; what stays behind nevertheless has no name, and goes at the next start.
fn discarded(done: Result<(), BlobError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "an object that was refused was not removed");
    }
}

/// Whether a path is a catalogue above the head, asked for by the newest writer: older ones can commit no more, and no root
/// names it.
async fn abandoned(holder: &Holder<'_>, lease: &LeaseRow, row: &VolumeRow, below: &str) -> Result<bool, Failure> {
    let Some(seq) = below.strip_prefix("cat/").and_then(|seq| seq.parse::<u64>().ok()) else { return Ok(false) };
    let newest = holder.control.store.newest_writer(holder.tenant, row.id).await.map_err(Failure::internal)?;
    let head = holder.control.head(holder.tenant, row.id).await?;
    Ok(lease.writer_epoch == Some(newest) && seq > head.seq)
}

/// Hands a body on piece by piece, from a client that keeps sending. Says how many bytes it had.
async fn receive(staged: &mut Staged, body: Body) -> Result<u64, Failure> {
    let mut body = Limited::new(body, OBJECT_MAX);
    let mut size: u64 = 0;
    loop {
        match tokio::time::timeout(STREAM_IDLE_TIMEOUT, body.frame()).await {
            Err(_) => return Err(Failure::new(ErrorCode::RequestTimeout, "the body stopped arriving")),
            Ok(None) => return Ok(size),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    size = size.saturating_add(data.len() as u64);
                    staged.write(data).await.map_err(blob_failure)?;
                }
            }
            Ok(Some(Err(error))) if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() => {
                return Err(Failure::new(ErrorCode::TooLarge, format!("an object has at most {OBJECT_MAX} bytes")));
            }
            Ok(Some(Err(_))) => return Err(Failure::invalid("the body broke off")),
        }
    }
}

/// Gives an object under a lease.
pub(crate) async fn get(call: Call<VolumeRead>, _: Raw) -> Result<Response, Failure> {
    let row = leased(&call, LeaseMode::Read).await?;
    call.permit_for(resource(&row, call.tenant()?), &[], Some(row.spec.purpose.clone())).await?.spend();
    give(&call.control, &row, call.path("path")?).await
}

/// Gives an object of a volume.
pub(crate) async fn give(control: &Control, row: &VolumeRow, below: &str) -> Result<Response, Failure> {
    let (size, pieces) = control.blobs.stream(&path(row, below)?, None).await.map_err(blob_failure)?;
    if size > OBJECT_MAX as u64 {
        return Err(Failure::new(ErrorCode::TooLarge, format!("{size} bytes are more than the limit of {OBJECT_MAX}")));
    }
    let headers = [(http::header::CONTENT_TYPE, "application/octet-stream".to_owned()), (http::header::CONTENT_LENGTH, size.to_string())];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Compares and sets the root.
pub(crate) async fn commit_root(call: Call<VolumeWrite>, request: VolumeCommit) -> Result<VolumeCommitted, Failure> {
    let holder = holder(&call)?;
    let (lease, row) = holder.leased(request.lease, call.id("id")?, LeaseMode::Write).await?;
    call.permit_for(resource(&row, call.tenant()?), &[], Some(row.spec.purpose.clone())).await?.spend();
    set_root(&holder, &lease, &row, &request).await
}

/// Compares and sets the root: the record must be signed by the signer of the lease's writer epoch and extend the head.
pub(crate) async fn set_root(
    holder: &Holder<'_>,
    lease: &LeaseRow,
    row: &VolumeRow,
    request: &VolumeCommit,
) -> Result<VolumeCommitted, Failure> {
    let (control, tenant, id) = (holder.control, holder.tenant, row.id);
    let Some(epoch) = lease.writer_epoch else {
        return Err(Failure::new(ErrorCode::ReleaseRefused, "the lease opened no writer epoch"));
    };
    let invalid = |what: &str| Failure::new(ErrorCode::VerificationFailed, format!("root record: {what}"));
    let bytes = STANDARD.decode(&request.record).map_err(|_| Failure::invalid("`record` is not base64"))?;
    let record = RootRecord::parse(&bytes).map_err(|error| invalid(&error.to_string()))?;
    let writers = control.store.writers(tenant, id, store::Page::after(epoch.saturating_sub(1), 1)).await.map_err(Failure::internal)?;
    let signer = writers.items.first().filter(|writer| writer.row.epoch == epoch).ok_or_else(|| invalid("its writer epoch is unknown"))?;
    record.verify(&VerifyingKey::from_bytes(signer.row.signer)).map_err(|error| invalid(&error.to_string()))?;
    let mut turn = control.replacing(id).await?;
    let head = control.head(tenant, id).await?;
    let root = record.body();
    if root.tenant != tenant || root.volume != id || root.writer_epoch != epoch {
        return Err(invalid("it names another tenant, volume or writer epoch"));
    }
    if root.lineage != head.lineage || root.seq != head.seq.saturating_add(1) || root.prev != *head.root.as_bytes() {
        return Err(Failure::new(
            ErrorCode::RootConflict,
            format!("the record does not extend the head, which is sequence {} with root {}", head.seq, head.root),
        ));
    }
    // An older writer must not replace the record of a newer one, though its commit would fail in the end.
    let newest = control.store.newest_writer(tenant, id).await.map_err(Failure::internal)?;
    if epoch != newest {
        return Err(Failure::new(ErrorCode::RootConflict, format!("a newer writer (epoch {newest}) has begun: ask for a new lease")));
    }
    // The record lies where readers look for it, before anything points at it.
    let chain = path(row, &format!("chain/{:020}", root.seq))?;
    match control.blobs.put_same(&chain, bytes.into()).await {
        Ok(()) => {}
        // A commit that lost the race, or broke off, left its record: the head decides, so it gives way.
        Err(BlobError::Differs(_)) => {
            turn.still().await?;
            control.blobs.delete(&chain).await.map_err(blob_failure)?;
            let again = STANDARD.decode(&request.record).unwrap_or_default();
            control.blobs.put(&chain, again.into()).await.map_err(blob_failure)?;
        }
        Err(error) => return Err(blob_failure(error)),
    }
    let next = RootHead { lineage: root.lineage, seq: root.seq, writer_epoch: epoch, root: Sha256Digest::from_bytes(record.root()) };
    let event = Event::VolumeCommitted {
        volume: id,
        lineage: next.lineage,
        seq: next.seq,
        writer_epoch: epoch,
        root: next.root,
        previous: head.root,
    };
    let entry = holder.entry(event)?;
    let made = CommitRow { format: FORMAT, volume: id, head: next.clone(), lease: request.lease, entry: entry.id };
    let made = Put::json(tenant, COMMIT, commit_id(&next.root), Expect::Absent, &made).map_err(Failure::internal)?.parent(id);
    let set = Mutation::SetHead { tenant, volume: id, expected: head, next: next.clone() };
    let committed = control.store.commit(Transaction::new().with(set).with(made).entry(entry), holder.now).await.map_err(commit_failure)?;
    let audit_index = committed.audit_indexes.first().copied().ok_or_else(|| Failure::internal("a change without an entry"))?;
    Ok(VolumeCommitted { head: next, audit_index })
}
