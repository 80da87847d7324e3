//! The life of keys by itself: rotation when a limit is reached, rewrap of what lies under an old key, the end of old keys
//! under which nothing lies, and destruction when its waiting period is over.
//!
//! Level-triggered: each round looks at what the store says and does a bounded part of what is left, so that a process that
//! dies at any point loses nothing, and the next one goes on. Several processes may run it: every step compares what it
//! found, so that of two that rotate the same key one is refused.

use std::sync::Arc;
use std::time::Duration;

use audit::Event;
use keys::lifecycle::{Due, Rotation, Use};
use keys::record::{Parent, ROOT_EPOCH};
use keys::{KeyRecord, KeyState, Owner, Purpose, SystemRandom};
use store::{Kind, Mutation, Page, Store, StoredKey, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::{SYSTEM_OWNER, TenantId, UnixTime};

use crate::api::problem::Failure;
use crate::clock;
use crate::destruction;
use crate::limits::{EPOCH_GRACE_MS, KEY_TICK, REWRAP_BATCH, REWRAPS_PER_ROUND, ROTATIONS_PER_ROUND};
use crate::seal;
use crate::state::{Control, commit_failure};
use crate::vault::{root, versions};

/// Runs until told to stop: when a key was rotated, and every so often.
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    let keeper = Keeper::default();
    loop {
        let busy = match keeper.round(&control, clock::now()).await {
            Ok(done) => {
                control.metrics.keys(&done, clock::now());
                done.more || done.rewrapped > 0 || done.rotated > 0
            }
            Err(failure) => {
                tracing::error!(detail = failure.problem.detail, "the round of keys broke off; the next one goes on");
                false
            }
        };
        let pause = if busy { Duration::from_millis(10) } else { KEY_TICK };
        tokio::select! {
            () = stop.cancelled() => return,
            () = control.vault.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) rotated: usize,
    pub(crate) rewrapped: usize,
    pub(crate) retired: usize,
    pub(crate) destroyed: usize,
    /// There is more to do than one round does.
    pub(crate) more: bool,
}

/// How the rounds are done; tests have other limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeper {
    pub(crate) rotation: fn(Purpose) -> Rotation,
    pub(crate) epoch_grace_ms: u64,
    pub(crate) rewraps: usize,
}

impl Default for Keeper {
    fn default() -> Self {
        Self { rotation: |purpose| purpose.line().rotation, epoch_grace_ms: EPOCH_GRACE_MS, rewraps: REWRAPS_PER_ROUND }
    }
}

/// What a key above others was, and what takes its place.
struct Move<'a> {
    tenant: TenantId,
    from: Parent<'a>,
    to: Parent<'a>,
}

impl Keeper {
    /// One round. In one process there is one at a time.
    pub(crate) async fn round(&self, control: &Control, now: UnixTime) -> Result<Done, Failure> {
        let _alone = control.vault.keeping.lock().await;
        control.follow_seal().await?;
        control.flush_uses(now).await?;
        let mut done = Done::default();
        // First, and of rows alone: a key that does not open holds up no destruction.
        destruction::destroy_due(control, now, &mut done).await?;
        control.keep_shreds(now).await?;
        if control.vault.is_behind() {
            return Ok(done);
        }
        for tenant in control.all_tenants().await? {
            self.rotate_due(control, tenant, now, &mut done).await?;
            self.rewrap_tenant(control, tenant, now, &mut done).await?;
        }
        self.rewrap_root(control, now, &mut done).await?;
        Ok(done)
    }

    async fn rotate_due(&self, control: &Control, tenant: TenantId, now: UnixTime, done: &mut Done) -> Result<(), Failure> {
        if tenant == SYSTEM_OWNER {
            return Ok(());
        }
        for key in control.all_keys(tenant).await?.into_iter().filter(|key| key.record.state == KeyState::Active) {
            let Rotation::Automatic(limits) = (self.rotation)(key.record.purpose) else { continue };
            let used = control.used(&key.record).await?;
            let Some(due) = limits.due(key.record.created, used, now) else { continue };
            if done.rotated >= ROTATIONS_PER_ROUND {
                done.more = true;
                return Ok(());
            }
            if control.rotate(&key.record, due, now).await? {
                done.rotated = done.rotated.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Moves what lies under old versions of a tenant's key, and ends versions under which nothing lies.
    async fn rewrap_tenant(&self, control: &Control, tenant: TenantId, now: UnixTime, done: &mut Done) -> Result<(), Failure> {
        if tenant == SYSTEM_OWNER {
            return Ok(());
        }
        let owner = Owner { kind: "tenant".into(), id: *tenant.as_bytes() };
        let known = versions(&control.store, tenant, &owner, Purpose::TenantKek).await.map_err(Failure::internal)?;
        let Some(newest) = known.iter().rev().find(|key| key.record.state == KeyState::Active) else { return Ok(()) };
        let old: Vec<&StoredKey> = known.iter().filter(|key| key.record.state == KeyState::Deactivated).collect();
        if old.is_empty() {
            return Ok(());
        }
        let to_key = control.vault.open_under_root(&newest.record).map_err(Failure::internal)?;
        for key in old {
            let from_key = control.vault.open_under_root(&key.record).map_err(Failure::internal)?;
            let step = Move {
                tenant,
                from: Parent { id: key.record.id, version: key.record.version, key: &from_key },
                to: Parent { id: newest.record.id, version: newest.record.version, key: &to_key },
            };
            if self.rewrap(control, &step, now, done).await? && control.retire(&key.record, now).await? {
                done.retired = done.retired.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Moves what lies under old root epochs, and removes epochs under which nothing lies.
    async fn rewrap_root(&self, control: &Control, now: UnixTime, done: &mut Done) -> Result<(), Failure> {
        let opened = control.vault.opened();
        let (Some(newest), Ok(to)) = (opened.epochs().last(), root(&opened, opened.newest())) else { return Ok(()) };
        for epoch in opened.epochs().iter().filter(|epoch| epoch.epoch != newest.epoch) {
            let mut empty = true;
            for tenant in control.all_tenants().await? {
                let from = Parent { id: ROOT_EPOCH, version: epoch.epoch, key: &epoch.key };
                let step = Move { tenant, from, to: Parent { id: to.id, version: to.version, key: to.key } };
                empty &= self.rewrap(control, &step, now, done).await?;
            }
            // Whoever wraps a key reads the epoch first and commits after: by then the old epoch was replaced for so long that
            // the store refuses the commit's time.
            let settled = now.since(newest.created).is_some_and(|age| age >= self.epoch_grace_ms);
            if empty && settled && control.end_epoch(epoch.epoch, now).await? {
                done.retired = done.retired.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Moves a bounded number of keys, a batch in each transaction. Says whether nothing is left.
    async fn rewrap(&self, control: &Control, step: &Move<'_>, now: UnixTime, done: &mut Done) -> Result<bool, Failure> {
        let mut after = ([0; 16], 0);
        loop {
            let found = control
                .store
                .keys_under(step.tenant, step.from.id, step.from.version, Page::after(after, REWRAP_BATCH))
                .await
                .map_err(Failure::internal)?;
            let Some(last) = found.items.last() else { return Ok(true) };
            after = (*last.record.id.as_bytes(), last.record.version);
            let live: Vec<&StoredKey> = found.items.iter().filter(|key| key.record.wrapped.is_some()).collect();
            if !live.is_empty() {
                if done.rewrapped >= self.rewraps {
                    done.more = true;
                    return Ok(false);
                }
                match control.move_keys(step, &live, now).await? {
                    Some(count) => done.rewrapped = done.rewrapped.saturating_add(count),
                    // Somebody changed one of them meanwhile: the next round sees it as it is.
                    None => {
                        done.more = true;
                        return Ok(false);
                    }
                }
            }
            if !found.truncated {
                // Looked at once more from the beginning by the next round, which finds nothing and says so.
                return Ok(live.is_empty());
            }
        }
    }
}

/// All tenants of a store, with the deployment itself first.
pub(crate) async fn tenants_of(store: &Store) -> Result<Vec<TenantId>, Failure> {
    let mut tenants = vec![SYSTEM_OWNER];
    let mut next = Page::first(1000);
    loop {
        let found = store.list(SYSTEM_OWNER, Kind::TENANT, next).await.map_err(Failure::internal)?;
        tenants.extend(found.items.iter().filter_map(|row| TenantId::from_slice(&row.id)));
        match found.items.last() {
            Some(last) if found.truncated => next = Page::after(last.id, 1000),
            Some(_) | None => return Ok(tenants),
        }
    }
}

/// All versions of all keys of a tenant.
pub(crate) async fn keys_of(store: &Store, tenant: TenantId) -> Result<Vec<StoredKey>, Failure> {
    let mut keys: Vec<StoredKey> = Vec::new();
    loop {
        let after = keys.last().map_or(([0; 16], 0), |key| (*key.record.id.as_bytes(), key.record.version));
        let found = store.keys(tenant, Page::after(after, 1000)).await.map_err(Failure::internal)?;
        let more = found.truncated && !found.items.is_empty();
        keys.extend(found.items);
        if !more {
            return Ok(keys);
        }
    }
}

impl Control {
    /// All tenants, with the deployment itself first.
    pub(crate) async fn all_tenants(&self) -> Result<Vec<TenantId>, Failure> {
        tenants_of(&self.store).await
    }

    /// All versions of all keys of a tenant.
    pub(crate) async fn all_keys(&self, tenant: TenantId) -> Result<Vec<StoredKey>, Failure> {
        keys_of(&self.store, tenant).await
    }

    /// The next version of a key, by itself. Says whether it was this call that made it.
    async fn rotate(&self, old: &KeyRecord, due: Due, now: UnixTime) -> Result<bool, Failure> {
        let made = if old.kek == ROOT_EPOCH {
            self.vault.next_under_root(old, now)
        } else {
            self.vault.next_data(&self.store, old, now).await
        };
        let (next, _) = made.map_err(Failure::internal)?;
        tracing::info!(key = %next.id, version = next.version, purpose = next.purpose.as_str(), due = due.as_str(), "a key reached a limit and is rotated");
        let event = Event::KeyRotated { key: next.id, version: next.version, purpose: next.purpose.as_str().into() };
        let entry = self.system_entry(now, old.tenant, event)?;
        let step = Mutation::StepKey { tenant: old.tenant, id: old.id, version: old.version, from: vec![KeyState::Active], to: KeyState::Deactivated };
        match self.store.commit(Transaction::new().with(Mutation::PutKey(next)).with(step).entry(entry), now).await {
            Ok(_) => Ok(true),
            // Somebody else rotated it first: there are never two.
            Err(error) if error.conflict().is_some() => Ok(false),
            Err(error) => Err(commit_failure(error)),
        }
    }

    /// Moves these keys from under one key to another, all of them or none. `None`: one of them was changed meanwhile.
    async fn move_keys(&self, step: &Move<'_>, found: &[&StoredKey], now: UnixTime) -> Result<Option<usize>, Failure> {
        let mut transaction = Transaction::new();
        for key in found {
            let moved = key.record.rewrap(&step.from, &step.to, &mut SystemRandom).map_err(Failure::internal)?;
            transaction = transaction.with(Mutation::Rewrap { key: moved, row_version: key.row_version });
        }
        let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
        let event = Event::KeysRewrapped { key: step.to.id, from_version: step.from.version, version: step.to.version, count };
        let entry = self.system_entry(now, step.tenant, event)?;
        match self.store.commit(transaction.entry(entry), now).await {
            Ok(_) => {
                vocabulary::fault::reached(vocabulary::fault::Point::KeyRewrapped);
                Ok(Some(found.len()))
            }
            Err(error) if error.conflict().is_some() => Ok(None),
            Err(error) => Err(commit_failure(error)),
        }
    }

    /// Ends an old version of a tenant's key. The store refuses as long as a key lies under it.
    async fn retire(&self, old: &KeyRecord, now: UnixTime) -> Result<bool, Failure> {
        let step = |from, to| Mutation::StepKey { tenant: old.tenant, id: old.id, version: old.version, from: vec![from], to };
        let backups_until = now.plus_millis(self.backup_retention_ms().await?);
        let event = Event::KeyVersionEnded { key: old.id, version: old.version, purpose: old.purpose.as_str().into(), backups_until };
        let entry = self.system_entry(now, old.tenant, event)?;
        let transaction = Transaction::new()
            .with(step(KeyState::Deactivated, KeyState::PendingDestroy))
            .with(step(KeyState::PendingDestroy, KeyState::Destroyed))
            .entry(entry);
        match self.store.commit(transaction, now).await {
            Ok(_) => Ok(true),
            Err(error) if error.conflict().is_some() => Ok(false),
            Err(error) => Err(commit_failure(error)),
        }
    }

    /// A new root epoch, as an entry's transaction puts it in force.
    pub(crate) async fn next_epoch(&self, now: UnixTime, entry: impl FnOnce(u32) -> Result<audit::EncodedEntry, Failure>) -> Result<(u64, u32), Failure> {
        let _changing = self.vault.changing.lock().await;
        let opened = self.vault.opened();
        let next = opened.with_next_epoch(now, &mut SystemRandom).map_err(|error| Failure::new(vocabulary::ErrorCode::WrongState, error.to_string()))?;
        let epoch = next.newest();
        let index = self.change_seal(&opened, next, now, entry(epoch)?).await?;
        let index = index.ok_or_else(|| Failure::new(vocabulary::ErrorCode::Conflict, "the seal changed meanwhile: try again"))?;
        self.vault.wake.notify_one();
        Ok((index, epoch))
    }

    /// Removes an epoch from the seal. Its copies in backups of the seal's file die with those.
    async fn end_epoch(&self, epoch: u32, now: UnixTime) -> Result<bool, Failure> {
        let _changing = self.vault.changing.lock().await;
        let opened = self.vault.opened();
        let Some(without) = opened.without_epoch(epoch) else { return Ok(false) };
        let backups_until = now.plus_millis(self.backup_retention_ms().await?);
        let entry = self.system_entry(now, SYSTEM_OWNER, Event::RootEpochEnded { epoch, backups_until })?;
        Ok(self.change_seal(&opened, without, now, entry).await?.is_some())
    }

    /// Puts a changed seal in force. `None` when another process changed it first.
    async fn change_seal(
        &self,
        before: &keys::seal::Opened,
        after: keys::seal::Opened,
        now: UnixTime,
        entry: audit::EncodedEntry,
    ) -> Result<Option<u64>, Failure> {
        let alone = seal::alone(&self.store).await.map_err(Failure::internal)?;
        let current = seal::current(&self.store, &self.blobs).await.map_err(Failure::internal)?.ok_or_else(|| Failure::internal("no seal"))?;
        if current.file != *before.file() {
            return Ok(None);
        }
        let put = seal::stage(&self.blobs, &after, &current, now).await.map_err(Failure::internal)?;
        match self.store.commit(Transaction::new().with(put).entry(entry), now).await {
            Ok(committed) => {
                self.vault.replace(after);
                if let Err(error) = self.sweep_seals(&alone).await {
                    tracing::warn!(%error, "the old seal file was not removed; the next start does it");
                }
                committed.audit_indexes.first().copied().map(Some).ok_or_else(|| Failure::internal("a change without an entry"))
            }
            Err(error) if error.conflict().is_some() => Ok(None),
            Err(error) => Err(commit_failure(error)),
        }
    }

    /// Takes over what another process did to the seal's epochs.
    pub(crate) async fn follow_seal(&self) -> Result<(), Failure> {
        // A change by this process is in the store a moment before it is in the vault.
        let _changing = self.vault.changing.lock().await;
        let opened = self.vault.opened();
        let current = seal::current(&self.store, &self.blobs).await.map_err(Failure::internal)?;
        let Some(current) = current.filter(|current| current.file != *opened.file()) else {
            self.vault.set_behind(false);
            return Ok(());
        };
        match opened.follow(&current.file) {
            Ok(followed) => {
                self.vault.replace(followed);
                self.vault.set_behind(false);
            }
            Err(error) => {
                self.vault.set_behind(true);
                tracing::error!(%error, "another process changed the seal: start this one again with what opens it now");
            }
        }
        Ok(())
    }

    /// What a version was used for: keys under it, or what was counted for it.
    async fn used(&self, record: &KeyRecord) -> Result<Use, Failure> {
        if record.purpose != Purpose::TenantKek {
            return self.counted(record).await;
        }
        let mut count = 0_u64;
        let mut after = ([0; 16], 0);
        loop {
            let found = self.store.keys_under(record.tenant, record.id, record.version, Page::after(after, 1000)).await.map_err(Failure::internal)?;
            count = count.saturating_add(found.items.len() as u64);
            match found.items.last() {
                Some(last) if found.truncated => after = (*last.record.id.as_bytes(), last.record.version),
                Some(_) | None => return Ok(Use { bytes: 0, count }),
            }
        }
    }
}
