//! Heads of volumes and their writer epochs.

use audit::EncodedEntry;
use vocabulary::volume::RootHead;
use vocabulary::{LineageId, Sha256Digest, TenantId, VolumeId};

use super::credential::made;
use super::{PendingChange, Stop, int};
use crate::engine::{Malformed, Row, Writing, binds};
use crate::error::{CommitError, Conflict};
use crate::kind::Kind;
use crate::record::WriterRow;
use crate::sql;

pub(super) async fn create(
    writing: &mut Writing,
    tenant: TenantId,
    volume: VolumeId,
    head: &RootHead,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    if head.seq != 0 || head.writer_epoch != 0 {
        return Err(Stop::Refused(CommitError::Invalid("the first head of a volume has sequence and writer epoch 0")));
    }
    let binds = binds![tenant.as_bytes(), volume.as_bytes(), head.lineage.as_bytes(), 0_i64, 0_i64, head.root.as_bytes()];
    made(writing.execute(sql::HEAD_INSERT, binds).await?)?;
    changes.push(PendingChange::typed(tenant, Kind::VOLUME_HEAD, volume, 0));
    Ok(0)
}

pub(super) async fn open_writer(
    writing: &mut Writing,
    row: &WriterRow,
    entries: &[EncodedEntry],
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    if !entries.iter().any(|entry| entry.id == row.entry && entry.tenant == row.tenant) {
        return Err(Stop::Refused(CommitError::Invalid("a writer epoch is registered by an entry of the same transaction")));
    }
    let newest = newest(writing, row.tenant, row.volume).await?;
    if Some(row.epoch) != newest.checked_add(1) {
        return Err(Conflict::WriterEpoch { newest }.into());
    }
    if head(writing, row.tenant, row.volume).await?.is_none() {
        return Err(Conflict::Absent.into());
    }
    let binds = binds![
        row.tenant.as_bytes(),
        row.volume.as_bytes(),
        int(row.epoch)?,
        &row.signer,
        row.lease.as_bytes(),
        row.entry.as_bytes(),
        row.opened,
    ];
    made(writing.execute(sql::WRITER_INSERT, binds).await?)?;
    changes.push(PendingChange::typed(row.tenant, Kind::WRITER_EPOCH, row.volume, row.epoch));
    Ok(row.epoch)
}

pub(super) async fn set(
    writing: &mut Writing,
    tenant: TenantId,
    volume: VolumeId,
    expected: &RootHead,
    next: &RootHead,
    changes: &mut Vec<PendingChange>,
) -> Result<u64, Stop> {
    if next.lineage != expected.lineage || Some(next.seq) != expected.seq.checked_add(1) {
        return Err(Stop::Refused(CommitError::Invalid("the next head has the same lineage and the next sequence")));
    }
    let newest = newest(writing, tenant, volume).await?;
    if next.writer_epoch != newest {
        return Err(Conflict::WriterEpoch { newest }.into());
    }
    let binds = binds![
        tenant.as_bytes(),
        volume.as_bytes(),
        expected.lineage.as_bytes(),
        int(expected.seq)?,
        int(expected.writer_epoch)?,
        expected.root.as_bytes(),
        int(next.seq)?,
        int(next.writer_epoch)?,
        next.root.as_bytes(),
    ];
    if writing.execute(sql::HEAD_SET, binds).await? == 1 {
        changes.push(PendingChange::typed(tenant, Kind::VOLUME_HEAD, volume, next.seq));
        return Ok(next.seq);
    }
    Err(match head(writing, tenant, volume).await? {
        Some(actual) => Conflict::Head { actual }.into(),
        None => Conflict::Absent.into(),
    })
}

async fn newest(writing: &mut Writing, tenant: TenantId, volume: VolumeId) -> Result<u64, Stop> {
    let row = writing.row(sql::WRITER_NEWEST, binds![tenant.as_bytes(), volume.as_bytes()]).await?;
    Ok(row.map(|row| row.number(0)).transpose()?.unwrap_or(0))
}

async fn head(writing: &mut Writing, tenant: TenantId, volume: VolumeId) -> Result<Option<RootHead>, Stop> {
    let row = writing.row(sql::HEAD_READ, binds![tenant.as_bytes(), volume.as_bytes()]).await?;
    Ok(row.as_ref().map(read_head).transpose()?)
}

pub(crate) fn read_head(row: &Row) -> Result<RootHead, Malformed> {
    read_head_at(row, 0)
}

/// A head whose columns begin at this one.
pub(crate) fn read_head_at(row: &Row, first: usize) -> Result<RootHead, Malformed> {
    Ok(RootHead {
        lineage: LineageId::from_bytes(row.array(first)?),
        seq: row.number(first.saturating_add(1))?,
        writer_epoch: row.number(first.saturating_add(2))?,
        root: Sha256Digest::from_bytes(row.array(first.saturating_add(3))?),
    })
}
