//! How much was sealed under each data key: counted in memory as objects arrive, and written down every round.
//!
//! A crash loses the counts of the last round. The limits lie so far below what the algorithms allow that this does not matter.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use keys::lifecycle::Use;
use keys::{KeyRecord, Purpose};
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Mutation, Put, Transaction};
use vocabulary::{TenantId, UnixTime, VolumeId};

use crate::api::problem::Failure;
use crate::operation::volume::key_owner;
use crate::row::FORMAT;
use crate::state::{Control, commit_failure};
use crate::vault::newest;

/// The row of a key's newest version, under the key's id.
const KEY_USE: Kind = Kind::new("key_use");

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UseRow {
    format: u32,
    version: u32,
    bytes: u64,
    count: u64,
}

/// What arrived since the last round, by volume.
#[derive(Debug, Default)]
pub(crate) struct Arrived(Mutex<BTreeMap<(TenantId, VolumeId), Use>>);

impl Arrived {
    /// Counts an object.
    pub(crate) fn add(&self, tenant: TenantId, volume: VolumeId, bytes: u64) {
        self.give_back(tenant, volume, Use { bytes, count: 1 });
    }

    /// Counts what could not be written down.
    fn give_back(&self, tenant: TenantId, volume: VolumeId, more: Use) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = inside.entry((tenant, volume)).or_default();
        used.bytes = used.bytes.saturating_add(more.bytes);
        used.count = used.count.saturating_add(more.count);
    }

    fn take(&self) -> BTreeMap<(TenantId, VolumeId), Use> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Control {
    /// What was counted for a version.
    pub(crate) async fn counted(&self, record: &KeyRecord) -> Result<Use, Failure> {
        let found = self.store.get_json::<UseRow>(record.tenant, KEY_USE, record.id).await.map_err(Failure::internal)?;
        Ok(found.filter(|(_, row)| row.version == record.version).map_or_else(Use::default, |(_, row)| Use { bytes: row.bytes, count: row.count }))
    }

    /// Writes down what arrived. It has no entry: what was written under which key, the entries of leases and roots say.
    pub(crate) async fn flush_uses(&self, now: UnixTime) -> Result<(), Failure> {
        let mut failed = None;
        for ((tenant, volume), arrived) in self.vault.arrived.take() {
            let flushed = self.flush_use(tenant, volume, arrived, now).await;
            if !matches!(flushed, Ok(true)) {
                self.vault.arrived.give_back(tenant, volume, arrived);
            }
            failed = failed.or(flushed.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// `false`: another process wrote the row meanwhile, and the next round adds to what that one wrote.
    async fn flush_use(&self, tenant: TenantId, volume: VolumeId, arrived: Use, now: UnixTime) -> Result<bool, Failure> {
        let found = newest(&self.store, tenant, &key_owner(volume), Purpose::Volume).await.map_err(Failure::internal)?;
        let Some(key) = found.map(|key| key.record) else { return Ok(true) };
        let found = self.store.get_json::<UseRow>(tenant, KEY_USE, key.id).await.map_err(Failure::internal)?;
        let expect = found.as_ref().map_or(Expect::Absent, |(stored, _)| Expect::Revision(stored.revision));
        let so_far = found.map(|(_, row)| row).filter(|row| row.version == key.version).unwrap_or_default();
        let row = UseRow {
            format: FORMAT,
            version: key.version,
            bytes: so_far.bytes.saturating_add(arrived.bytes),
            count: so_far.count.saturating_add(arrived.count),
        };
        let put = Put::json(tenant, KEY_USE, key.id, expect, &row).map_err(Failure::internal)?;
        match self.store.commit(Transaction::new().with(Mutation::Put(put)), now).await {
            Ok(_) => Ok(true),
            Err(error) if error.conflict().is_some() => Ok(false),
            Err(error) => Err(commit_failure(error)),
        }
    }
}
