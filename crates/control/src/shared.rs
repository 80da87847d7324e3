//! Several control planes of one deployment: one database, one folder of objects, and each learns what the others did.
//!
//! Rows are fenced by the store. What a process keeps in memory is brought up to date by the change sequence: the revoked
//! peers, what was heard of nodes, their plans, the root epochs. A process that lags decides on rows all the same, which are never old.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use store::{Blobs, Change, Expect, Kind, Put, Store, StoreConfig, Transaction};
use tokio_util::sync::CancellationToken;
use vocabulary::{NodeId, SYSTEM_OWNER, UnixTime};

use crate::api::problem::Failure;
use crate::bootstrap::{StartError, internal};
use crate::fleet::{PlanRow, SEEN, SeenRow};
use crate::limits::TICK;
use crate::row::FORMAT;
use crate::server::{ServerConfig, revocation_set};
use crate::state::Control;

/// Which folder of objects a deployment uses; one row.
const OBJECTS: Kind = Kind::new("object_store");
/// The file in that folder that bears the same name.
const NAME: &str = "deployment/objects";
/// Bytes of that file.
const NAME_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectsRow {
    format: u32,
    name: String,
}

/// Opens database and objects as the configuration says.
pub(crate) async fn open(config: &ServerConfig, now: UnixTime) -> Result<(Store, Blobs), StartError> {
    let own = config.data_dir.join("objects");
    let folder: &Path = config.objects.as_deref().unwrap_or(&own);
    match &config.database {
        None => {
            let store = Store::open(StoreConfig::new(config.data_dir.join("state.db"))).await?;
            Ok((store, Blobs::local(folder)?))
        }
        Some(url) => {
            let blobs = Blobs::shared(folder, now)?;
            Ok((Store::open(StoreConfig::postgres(url.clone())).await?, blobs))
        }
    }
}

/// Refuses to start where the objects are not those of the database: a process that cannot see what the others wrote would
/// take their images, tiles and sealed data for lost. Nothing is written unless both are new.
pub(crate) async fn same_objects(store: &Store, blobs: &Blobs, now: UnixTime) -> Result<(), StartError> {
    if !store.is_shared() {
        return Ok(());
    }
    let path = NAME.parse().map_err(internal)?;
    let there = match blobs.get(&path, NAME_MAX).await {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(store::BlobError::Absent(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let known = store.get_json::<ObjectsRow>(SYSTEM_OWNER, OBJECTS, [0; 16]).await.map_err(internal)?;
    let other = |what: &str| StartError::OtherObjects(what.to_owned());
    match (known, there) {
        (Some((_, row)), Some(there)) if row.name == there => Ok(()),
        (Some(_), Some(_)) => Err(other("this folder, which belongs to another deployment")),
        (Some(_), None) => Err(other("this folder, which is not the one")),
        // A birth that broke off between the two writes left its name; the folder is still its own.
        (None, there) => {
            let name = match there {
                Some(name) => name,
                None => {
                    let name = hex::encode(<dyn keys::Random>::array::<16>(&mut keys::SystemRandom));
                    blobs.put(&path, name.clone().into()).await?;
                    name
                }
            };
            let put = Put::json(SYSTEM_OWNER, OBJECTS, [0; 16], Expect::Absent, &ObjectsRow { format: FORMAT, name }).map_err(internal)?;
            store.commit(Transaction::new().with(put), now).await.map_err(internal)?;
            Ok(())
        }
    }
}

/// Follows what the other processes change, until told to stop.
pub(crate) async fn follow(control: Arc<Control>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            failure = followed(&control) => {
                tracing::warn!(detail = failure.problem.detail, "changes of other control planes cannot be followed; tried again in a second");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Takes the state as it is, then every change after it.
async fn followed(control: &Control) -> Failure {
    match follow_from_now(control).await {
        Ok(()) => Failure::internal("the store was closed"),
        Err(failure) => failure,
    }
}

async fn follow_from_now(control: &Control) -> Result<(), Failure> {
    let since = control.store.latest_change();
    revocations(control).await?;
    control.follow_seal().await?;
    crate::driver::load(control).await?;
    let mut changes = Box::pin(control.store.watch(since));
    // Followers of logs are woken by the process that took them; those of others look once a second.
    let mut second = tokio::time::interval(TICK);
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                None => return Ok(()),
                Some(change) => learn(control, &change.map_err(Failure::internal)?).await?,
            },
            _ = second.tick() => control.logs.send_modify(|count| *count = count.wrapping_add(1)),
        }
    }
}

async fn learn(control: &Control, change: &Change) -> Result<(), Failure> {
    let node = || NodeId::from_bytes(change.id);
    if change.kind == Kind::REVOCATION.as_str() {
        revocations(control).await?;
    } else if change.kind == SEEN.as_str() {
        if let Some((_, row)) = control.store.get_json::<SeenRow>(SYSTEM_OWNER, SEEN, node()).await.map_err(Failure::internal)? {
            control.fleet.heard_elsewhere(row);
        }
    } else if change.kind == Kind::PLAN.as_str() {
        if let Some((_, row)) = control.store.get_json::<PlanRow>(SYSTEM_OWNER, Kind::PLAN, node()).await.map_err(Failure::internal)? {
            control.fleet.set_plan(row.read()?);
        }
    } else if change.kind == crate::seal::SEAL.as_str() {
        control.follow_seal().await?;
    } else if change.kind == Kind::JOB.as_str() || change.kind == Kind::NODE.as_str() {
        control.fleet.wake.notify_one();
    }
    Ok(())
}

/// Puts the stored revocations in force: living connections of the revoked are closed.
async fn revocations(control: &Control) -> Result<(), Failure> {
    control.gate.revoke(revocation_set(&control.store).await.map_err(Failure::internal)?);
    Ok(())
}
