//! Heads of volumes, and who may sign the next one.

use vocabulary::{EntryId, LeaseId, TenantId, UnixTime, VolumeId};

/// A writer epoch with its one signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterRow {
    /// Whose.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeId,
    /// The epoch: the newest plus one, from 1.
    pub epoch: u64,
    /// The Ed25519 public key.
    pub signer: [u8; 32],
    /// The lease that opened it.
    pub lease: LeaseId,
    /// The entry of the registration: one of the same transaction, so that its index is known when it is read.
    pub entry: EntryId,
    /// When.
    pub opened: UnixTime,
}

/// A writer epoch as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWriter {
    /// The row.
    pub row: WriterRow,
    /// The audit index of its entry.
    pub audit_index: u64,
}
