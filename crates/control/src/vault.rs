//! The opened seal, and the way down from its root epochs to a data key. Plain keys live here for as long as one operation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use keys::record::{OpenError, Parent, ROOT_EPOCH};
use keys::seal::Opened;
use keys::{KeyRecord, KeyState, Owner, PlainKey, Purpose, Random, SystemRandom};
use store::{Page, Store, StoredKey};
use crate::api::problem::Failure;
use vocabulary::{KeyId, SYSTEM_OWNER, TenantId, UnixTime};

/// Why a key was not opened or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The store failed.
    #[error(transparent)]
    Read(#[from] store::ReadError),
    /// The key's state or bytes refuse.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A key that must exist does not, or was destroyed.
    #[error("the {0} key is missing or destroyed")]
    Missing(&'static str),
    /// Another control plane changed the seal, and this one cannot follow.
    #[error("another control plane changed the seal: start this one again with what opens it now")]
    Behind,
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Behind => Self::new(vocabulary::ErrorCode::Sealed, error.to_string()),
            VaultError::Read(_) | VaultError::Open(_) | VaultError::Missing(_) => Self::internal(error),
        }
    }
}

/// A key-encryption key that was opened.
#[derive(Debug)]
pub(crate) struct OpenKek {
    pub(crate) id: KeyId,
    pub(crate) version: u32,
    pub(crate) key: PlainKey,
}

impl OpenKek {
    pub(crate) fn parent(&self) -> Parent<'_> {
        Parent { id: self.id, version: self.version, key: &self.key }
    }
}

/// The opened seal. Its epochs and the key above them change while the server runs.
#[derive(Debug)]
pub(crate) struct Vault {
    opened: RwLock<Arc<Opened>>,
    /// The seal in force is one that this process cannot open. What it put under its own newest epoch would be lost with it.
    behind: AtomicBool,
    /// New shares that nobody has confirmed yet, and the lock of every change of the seal by this process.
    pub(crate) changing: tokio::sync::Mutex<Option<crate::operation::seal::Drawn>>,
    /// Held by the one round of [`crate::keylife`].
    pub(crate) keeping: tokio::sync::Mutex<()>,
    /// Wakes the rounds: a key was rotated.
    pub(crate) wake: tokio::sync::Notify,
    /// What was sealed since the last round.
    pub(crate) arrived: crate::key_use::Arrived,
}

/// A new key's id.
pub(crate) fn new_key_id(now: UnixTime) -> KeyId {
    KeyId::new(now, <dyn Random>::array(&mut SystemRandom))
}

impl Vault {
    pub(crate) fn new(opened: Opened) -> Self {
        Self {
            opened: RwLock::new(Arc::new(opened)),
            behind: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            wake: tokio::sync::Notify::new(),
            arrived: crate::key_use::Arrived::default(),
        }
    }

    /// The seal as it is open now.
    pub(crate) fn opened(&self) -> Arc<Opened> {
        Arc::clone(&self.opened.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a changed seal in the place of the one before.
    pub(crate) fn replace(&self, opened: Opened) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(opened);
    }

    /// Whether the seal in force is another one than this process can open.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Says whether the seal in force could be followed.
    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }

    /// The seal, to put a key under its newest epoch.
    fn to_put_under(&self) -> Result<Arc<Opened>, VaultError> {
        if self.is_behind() { Err(VaultError::Behind) } else { Ok(self.opened()) }
    }

    /// Opens a key that lies directly under a root epoch: the deployment's own, or a tenant's KEK.
    pub(crate) fn open_under_root(&self, record: &KeyRecord) -> Result<PlainKey, VaultError> {
        Ok(record.open(&root(&self.opened(), record.kek_version)?)?)
    }

    /// Makes a key directly under the newest root epoch.
    pub(crate) fn make_under_root(
        &self,
        tenant: TenantId,
        purpose: Purpose,
        owner: Owner,
        now: UnixTime,
    ) -> Result<(KeyRecord, PlainKey), VaultError> {
        let opened = self.to_put_under()?;
        let parent = root(&opened, opened.newest())?;
        Ok(KeyRecord::generate(new_key_id(now), 1, tenant, purpose, owner, &parent, now, &mut SystemRandom))
    }

    /// The next version of a key under the newest root epoch.
    pub(crate) fn next_under_root(&self, of: &KeyRecord, now: UnixTime) -> Result<(KeyRecord, PlainKey), VaultError> {
        let opened = self.to_put_under()?;
        let parent = root(&opened, opened.newest())?;
        let version = of.version.saturating_add(1);
        Ok(KeyRecord::generate(of.id, version, of.tenant, of.purpose, of.owner.clone(), &parent, now, &mut SystemRandom))
    }

    /// A tenant's newest KEK that seals.
    pub(crate) async fn tenant_kek(&self, store: &Store, tenant: TenantId) -> Result<OpenKek, VaultError> {
        let found = newest(store, tenant, &Owner { kind: "tenant".into(), id: *tenant.as_bytes() }, Purpose::TenantKek)
            .await?
            .ok_or(VaultError::Missing("tenant"))?;
        Ok(OpenKek { id: found.record.id, version: found.record.version, key: self.open_under_root(&found.record)? })
    }

    /// Opens a data key: root epoch, tenant KEK, key.
    pub(crate) async fn open_data(&self, store: &Store, record: &KeyRecord) -> Result<PlainKey, VaultError> {
        if record.kek == ROOT_EPOCH {
            return self.open_under_root(record);
        }
        let kek = store.key(record.tenant, record.kek, record.kek_version).await?.ok_or(VaultError::Missing("tenant"))?;
        let key = self.open_under_root(&kek.record)?;
        Ok(record.open(&Parent { id: record.kek, version: record.kek_version, key: &key })?)
    }

    /// Makes a data key of a tenant.
    pub(crate) async fn make_data(
        &self,
        store: &Store,
        tenant: TenantId,
        purpose: Purpose,
        owner: Owner,
        now: UnixTime,
    ) -> Result<(KeyRecord, PlainKey), VaultError> {
        let kek = self.tenant_kek(store, tenant).await?;
        Ok(KeyRecord::generate(new_key_id(now), 1, tenant, purpose, owner, &kek.parent(), now, &mut SystemRandom))
    }

    /// The next version of a data key.
    pub(crate) async fn next_data(&self, store: &Store, of: &KeyRecord, now: UnixTime) -> Result<(KeyRecord, PlainKey), VaultError> {
        let kek = self.tenant_kek(store, of.tenant).await?;
        let version = of.version.saturating_add(1);
        Ok(KeyRecord::generate(of.id, version, of.tenant, of.purpose, of.owner.clone(), &kek.parent(), now, &mut SystemRandom))
    }
}

/// A root epoch as the key above others.
pub(crate) fn root(opened: &Opened, epoch: u32) -> Result<Parent<'_>, VaultError> {
    let found = opened.epochs().iter().find(|known| known.epoch == epoch).ok_or(VaultError::Missing("root epoch"))?;
    Ok(Parent { id: ROOT_EPOCH, version: found.epoch, key: &found.key })
}

/// All versions of the keys of an owner for one purpose, oldest first.
pub(crate) async fn versions(store: &Store, tenant: TenantId, owner: &Owner, purpose: Purpose) -> Result<Vec<StoredKey>, VaultError> {
    let mut found: Vec<StoredKey> = Vec::new();
    loop {
        let after = found.last().map_or(([0; 16], 0), |key| (*key.record.id.as_bytes(), key.record.version));
        let page = store.keys_of(tenant, owner, purpose, Page::after(after, 1000)).await?;
        let more = page.truncated && !page.items.is_empty();
        found.extend(page.items);
        if !more {
            found.sort_by_key(|key| key.record.version);
            return Ok(found);
        }
    }
}

/// The newest active version.
pub(crate) async fn newest(store: &Store, tenant: TenantId, owner: &Owner, purpose: Purpose) -> Result<Option<StoredKey>, VaultError> {
    let found = versions(store, tenant, owner, purpose).await?;
    Ok(found.into_iter().rev().find(|key| key.record.state == KeyState::Active))
}

/// The deployment's own owner of keys.
pub(crate) fn deployment_owner(deployment: vocabulary::DeploymentId) -> (TenantId, Owner) {
    (SYSTEM_OWNER, Owner { kind: "deployment".into(), id: *deployment.as_bytes() })
}
