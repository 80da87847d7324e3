//! Reads wrapped keys, heads of volumes and writer epochs.

use keys::{KeyRecord, KeyState, Owner, Purpose, WrappedKey};
use vocabulary::volume::RootHead;
use vocabulary::{EntryId, KeyId, LeaseId, TenantId, VolumeId};

use super::{Page, Paged, begin};
use super::resource::{RESOURCE_COLUMNS, resource};
use crate::apply::{read_head, read_head_at};
use crate::engine::{Bind, Malformed, Row, binds};
use crate::error::ReadError;
use crate::record::{Resource, StoredKey, StoredWriter, WriterRow};
use crate::sql;
use crate::store::Store;

/// A place in a list of key versions.
pub type KeyCursor = ([u8; 16], u32);

fn volume_and_head(row: &Row) -> Result<(Resource, RootHead), Malformed> {
    Ok((resource(row)?, read_head_at(row, RESOURCE_COLUMNS)?))
}

fn key(row: &Row) -> Result<StoredKey, Malformed> {
    let wrapped = row.maybe_bytes(11)?;
    let wrapped = wrapped.map(|bytes| WrappedKey::parse(&bytes)).transpose().map_err(|_| row.malformed())?;
    Ok(StoredKey {
        record: KeyRecord {
            tenant: TenantId::from_bytes(row.array(0)?),
            purpose: Purpose::parse(&row.text(1)?).ok_or_else(|| row.malformed())?,
            id: KeyId::from_bytes(row.array(2)?),
            version: row.small(3)?,
            kek: KeyId::from_bytes(row.array(4)?),
            kek_version: row.small(5)?,
            owner: Owner { kind: row.text(6)?, id: row.array(7)? },
            created: row.time(8)?,
            state: KeyState::parse(&row.text(9)?).ok_or_else(|| row.malformed())?,
            wrapped,
        },
        since: row.time(10)?,
        row_version: row.number(12)?,
    })
}

/// Where a page of key versions begins.
fn cursor(page: &Page<KeyCursor>) -> (Bind, u32) {
    (begin(page.after.as_ref().map(|(id, _)| id)), page.after.map_or(0, |(_, version)| version))
}

impl Store {
    /// A version of a key.
    pub async fn key(&self, tenant: TenantId, id: KeyId, version: u32) -> Result<Option<StoredKey>, ReadError> {
        self.one(sql::KEY_READ, binds![tenant.as_bytes(), id.as_bytes(), version], key).await
    }
    /// All versions of a key after one, oldest first; versions count from 1.
    pub async fn key_versions(&self, tenant: TenantId, id: KeyId, page: Page<u32>) -> Result<Paged<StoredKey>, ReadError> {
        let binds = binds![tenant.as_bytes(), id.as_bytes(), page.after.unwrap_or(0), page.fetch()];
        Ok(Paged::cut(self.all(sql::KEY_VERSIONS, binds, key).await?, &page))
    }
    /// The key versions of an owner for one purpose.
    pub async fn keys_of(
        &self,
        tenant: TenantId,
        owner: &Owner,
        purpose: Purpose,
        page: Page<KeyCursor>,
    ) -> Result<Paged<StoredKey>, ReadError> {
        let (id, version) = cursor(&page);
        let binds =
            binds![tenant.as_bytes(), owner.kind.as_str(), &owner.id, purpose.as_str(), id, version, page.fetch()];
        Ok(Paged::cut(self.all(sql::KEYS_OF_OWNER, binds, key).await?, &page))
    }
    /// The key versions that lie under a version of a key: what a rewrap must touch. For the root epoch the id is zeroes.
    pub async fn keys_under(
        &self,
        tenant: TenantId,
        kek: KeyId,
        kek_version: u32,
        page: Page<KeyCursor>,
    ) -> Result<Paged<StoredKey>, ReadError> {
        let (id, version) = cursor(&page);
        let binds = binds![tenant.as_bytes(), kek.as_bytes(), kek_version, id, version, page.fetch()];
        Ok(Paged::cut(self.all(sql::KEYS_UNDER, binds, key).await?, &page))
    }
    /// All key versions of a tenant.
    pub async fn keys(&self, tenant: TenantId, page: Page<KeyCursor>) -> Result<Paged<StoredKey>, ReadError> {
        let (id, version) = cursor(&page);
        let binds = binds![tenant.as_bytes(), id, version, page.fetch()];
        Ok(Paged::cut(self.all(sql::KEY_LIST, binds, key).await?, &page))
    }

    /// A volume with its head, in one question.
    pub async fn volume(&self, tenant: TenantId, volume: VolumeId) -> Result<Option<(Resource, RootHead)>, ReadError> {
        self.one(sql::VOLUME_GET, binds![tenant.as_bytes(), volume.as_bytes()], volume_and_head).await
    }
    /// Volumes with their heads, in the order of ids.
    pub async fn volumes(&self, tenant: TenantId, page: Page) -> Result<Paged<(Resource, RootHead)>, ReadError> {
        let binds = binds![tenant.as_bytes(), begin(page.after.as_ref()), page.fetch()];
        Ok(Paged::cut(self.all(sql::VOLUME_LIST, binds, volume_and_head).await?, &page))
    }
    /// The head of a volume.
    pub async fn head(&self, tenant: TenantId, volume: VolumeId) -> Result<Option<RootHead>, ReadError> {
        self.one(sql::HEAD_READ, binds![tenant.as_bytes(), volume.as_bytes()], read_head).await
    }
    /// The number of the newest writer epoch of a volume; 0 before the first.
    pub async fn newest_writer(&self, tenant: TenantId, volume: VolumeId) -> Result<u64, ReadError> {
        let binds = binds![tenant.as_bytes(), volume.as_bytes()];
        Ok(self.one(sql::WRITER_NEWEST, binds, |row| row.number(0)).await?.unwrap_or(0))
    }
    /// The writer epochs of a volume after one, oldest first; epochs count from 1.
    pub async fn writers(
        &self,
        tenant: TenantId,
        volume: VolumeId,
        page: Page<u64>,
    ) -> Result<Paged<StoredWriter>, ReadError> {
        let after = i64::try_from(page.after.unwrap_or(0)).unwrap_or(i64::MAX);
        let binds = binds![tenant.as_bytes(), volume.as_bytes(), after, page.fetch()];
        let read = |row: &Row| {
            Ok(StoredWriter {
                row: WriterRow {
                    tenant: TenantId::from_bytes(row.array(0)?),
                    volume: VolumeId::from_bytes(row.array(1)?),
                    epoch: row.number(2)?,
                    signer: row.array(3)?,
                    lease: LeaseId::from_bytes(row.array(4)?),
                    entry: EntryId::from_bytes(row.array(5)?),
                    opened: row.time(6)?,
                },
                audit_index: row.number(7)?,
            })
        };
        Ok(Paged::cut(self.all(sql::WRITERS, binds, read).await?, &page))
    }
}
