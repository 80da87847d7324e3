//! What was destroyed stays destroyed: the shred list of a deployment on `SQLite`, and its replay into a database that is older.
//!
//! The list is written after the transaction that destroys, and looked at in both directions whenever a server starts: what
//! the database destroyed and the list does not have is added, what the list has and the database opens is destroyed again.
//! So a process may die at any point.

pub mod list;

use std::collections::BTreeMap;
use std::path::Path;

use audit::key::{KeyKind, verifier_of};
use audit::{EncodedEntry, Event};
use keys::{KeyRecord, KeyState, Purpose};
use store::{Expect, Kind, Mutation, Store, Transaction};
use tokio::sync::Mutex;
use vocabulary::{KeyId, PersonId, SYSTEM_OWNER, TenantId, UnixTime};

use crate::api::problem::Failure;
use crate::bootstrap::{PersonRow, StartError, internal};
use crate::operation::erasure;
use crate::state::{Control, commit_failure};
use crate::{destruction, keylife};
use list::{List, ListError, Shred};

/// A mark that the list is whole up to a time is written when the last line is so old.
const MARK_EVERY_MS: u64 = 3_600_000;

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Replayed {
    /// Versions of keys that were back and are destroyed again.
    pub keys: usize,
    /// People that were back and are erased again.
    pub people: usize,
}

/// The list that a server keeps.
#[derive(Debug, Default)]
pub(crate) struct Shreds(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    list: Option<List>,
    /// Something was destroyed and could not be listed: it is tried again.
    behind: bool,
}

/// Makes the entry of something that a replay does.
pub(crate) type Entries<'a> = &'a (dyn Fn(TenantId, Event) -> Result<EncodedEntry, Failure> + Sync);

/// What a destroyed key stands for. Listed are keys of data, and of people. A tenant's own old keys are not: what lay under
/// them was moved, not destroyed, and in an older database still lies there; nor are keys of the deployment that were renewed,
/// which an older database works with.
fn shreds_of(record: &KeyRecord) -> Vec<Shred> {
    let of_person = record.owner.kind == "person";
    let listed = match record.purpose {
        Purpose::Volume | Purpose::Secret | Purpose::JobLog => true,
        Purpose::AuditSubject | Purpose::FactorSecret => of_person,
        Purpose::TenantKek | Purpose::TokenPepper | Purpose::RootCa | Purpose::IssuingCa | Purpose::LogKey | Purpose::ReceiptKey => false,
    };
    if record.state != KeyState::Destroyed || !listed {
        return Vec::new();
    }
    let key = Shred::Key { tenant: record.tenant, id: record.id, version: record.version };
    let person = (record.purpose == Purpose::AuditSubject && of_person).then(|| Shred::Person { id: PersonId::from_bytes(record.owner.id) });
    std::iter::once(key).chain(person).collect()
}

/// Everything of a tenant that is gone, with when.
async fn gone_of(store: &Store, tenant: TenantId) -> Result<Vec<(Shred, UnixTime)>, Failure> {
    let keys = keylife::keys_of(store, tenant).await?;
    Ok(keys.iter().flat_map(|key| shreds_of(&key.record).into_iter().map(|shred| (shred, key.since))).collect())
}

/// Everything that is gone.
pub(crate) async fn gone(store: &Store) -> Result<Vec<(Shred, UnixTime)>, Failure> {
    let mut all = Vec::new();
    for tenant in keylife::tenants_of(store).await? {
        all.extend(gone_of(store, tenant).await?);
    }
    Ok(all)
}

/// Destroys again what a list says is gone and the database still has. Each key, and each person, in one transaction with its
/// entries: whoever dies in the middle goes on with the rest.
pub(crate) async fn replay<'a>(store: &Store, shreds: impl Iterator<Item = &'a Shred>, entry: Entries<'_>, now: UnixTime) -> Result<Replayed, Failure> {
    let mut done = Replayed::default();
    let mut keys: BTreeMap<(TenantId, KeyId), Vec<u32>> = BTreeMap::new();
    let mut people = Vec::new();
    for shred in shreds {
        match shred {
            Shred::Key { tenant, id, version } => keys.entry((*tenant, *id)).or_default().push(*version),
            Shred::Person { id } => people.push(*id),
            Shred::Mark {} => {}
        }
    }
    // People first: their keys go in the same transaction, with what names them.
    for person in people {
        let Some((stored, _)) = store.get_json::<PersonRow>(SYSTEM_OWNER, Kind::PERSON, person).await.map_err(Failure::internal)? else { continue };
        let erased = erasure::steps(store, person, Expect::Revision(stored.revision), entry).await?;
        store.commit(erased.transaction, now).await.map_err(commit_failure)?;
        done.people = done.people.saturating_add(1);
    }
    for ((tenant, id), versions) in keys {
        let mut transaction = Transaction::new();
        let (mut purpose, mut count) = (None, 0_usize);
        for version in versions {
            let Some(key) = store.key(tenant, id, version).await.map_err(Failure::internal)? else { continue };
            if key.record.state == KeyState::Destroyed {
                continue;
            }
            for mutation in destroying(&key.record) {
                transaction = transaction.with(mutation);
            }
            (purpose, count) = (Some(key.record.purpose), count.saturating_add(1));
        }
        let Some(purpose) = purpose else { continue };
        if let Some(settled) = destruction::settled(store, tenant, id).await? {
            transaction = transaction.with(settled);
        }
        let event = Event::KeyDestroyed { key: id, purpose: purpose.as_str().into(), backups_until: None };
        store.commit(transaction.entry(entry(tenant, event)?), now).await.map_err(commit_failure)?;
        done.keys = done.keys.saturating_add(count);
    }
    Ok(done)
}

/// The steps from where a key stands to its end.
fn destroying(record: &KeyRecord) -> Vec<Mutation> {
    let step = |from, to| Mutation::StepKey { tenant: record.tenant, id: record.id, version: record.version, from: vec![from], to };
    let last = step(KeyState::PendingDestroy, KeyState::Destroyed);
    if record.state == KeyState::PendingDestroy { vec![last] } else { vec![step(record.state, KeyState::PendingDestroy), last] }
}

/// Opens the list, and brings list and database together. Before anybody is answered.
pub(crate) async fn start(control: &Control, path: &Path, now: UnixTime) -> Result<(), StartError> {
    let failed = |failure: Failure| internal(failure.problem.detail);
    let key = verifier_of(&control.log, KeyKind::Ed25519).map_err(internal)?;
    let mut list = List::open(path, control.deployment, &key)?;
    let entry = |tenant, event| control.system_entry(now, tenant, event);
    let replayed = replay(&control.store, list.shreds().iter(), &entry, now).await.map_err(failed)?;
    if replayed != Replayed::default() {
        tracing::warn!(keys = replayed.keys, people = replayed.people, "the database had what the shred list says is gone: it is destroyed again");
    }
    let gone: Vec<Shred> = gone(&control.store).await.map_err(failed)?.into_iter().map(|(shred, _)| shred).chain([Shred::Mark {}]).collect();
    list.add(&gone, &control.log, now)?;
    control.shreds.0.lock().await.list = Some(list);
    Ok(())
}

impl Control {
    /// Lists what of a tenant is gone: after the transaction that destroyed it. What cannot be listed now is later.
    pub(crate) async fn list_gone(&self, tenant: TenantId, now: UnixTime) {
        self.list_with(tenant, None, now).await;
    }

    /// The same of a person that was erased, of whom the database may have had no key.
    pub(crate) async fn list_erased(&self, person: PersonId, now: UnixTime) {
        self.list_with(SYSTEM_OWNER, Some(Shred::Person { id: person }), now).await;
    }

    async fn list_with(&self, tenant: TenantId, more: Option<Shred>, now: UnixTime) {
        vocabulary::fault::reached(vocabulary::fault::Point::ShredCommitted);
        let mut kept = self.shreds.0.lock().await;
        let Some(list) = &mut kept.list else { return };
        let added = match gone_of(&self.store, tenant).await {
            Ok(gone) => {
                let what: Vec<Shred> = gone.into_iter().map(|(shred, _)| shred).chain(more).collect();
                list.add(&what, &self.log, now).map_err(|error| error.to_string())
            }
            Err(failure) => Err(failure.problem.detail),
        };
        if let Err(error) = added {
            tracing::error!(error, "what was destroyed is not in the shred list yet; it is tried again every minute");
            kept.behind = true;
        }
    }

    /// Lists what could not be listed, and marks now and then that the list is whole.
    pub(crate) async fn keep_shreds(&self, now: UnixTime) -> Result<(), Failure> {
        let mut kept = self.shreds.0.lock().await;
        let behind = kept.behind;
        let Some(list) = &mut kept.list else { return Ok(()) };
        if !behind && now.since(list.until()).is_none_or(|age| age < MARK_EVERY_MS) {
            return Ok(());
        }
        let mut what = if behind { gone(&self.store).await?.into_iter().map(|(shred, _)| shred).collect() } else { Vec::new() };
        what.push(Shred::Mark {});
        list.add(&what, &self.log, now).map_err(Failure::internal)?;
        kept.behind = false;
        Ok(())
    }

    /// Marks the end of a server, up to which the list is whole.
    pub(crate) async fn end_shreds(&self, now: UnixTime) {
        let mut kept = self.shreds.0.lock().await;
        if let Some(list) = kept.list.as_mut()
            && let Err(error) = list.add(&[Shred::Mark {}], &self.log, now)
        {
            tracing::warn!(%error, "the shred list does not say when the server ended");
        }
    }
}

/// Reads a list for a restore: of a deployment whose file says which key signs. It is the log's, which is never renewed: a
/// list is newer than the backup.
pub(crate) fn checked(path: &Path, file: &receipt::deployment::CheckedDeployment) -> Result<list::Checked, ListError> {
    list::read(path, file.facts.deployment, &file.log_keys)?
        .ok_or_else(|| ListError::Io { path: path.to_owned(), source: std::io::Error::from(std::io::ErrorKind::NotFound) })
}
