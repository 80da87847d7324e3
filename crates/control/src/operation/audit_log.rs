//! Reading the log: a tenant's own entries with salts and proofs; checkpoint and tiles for everybody.

use audit::tile::TileReader;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::action::{AuditView, PlatformAuditView};
use policy::{Action, Resource};
use store::read::EntryFilter;
use vocabulary::api::{AuditEntry, AuditProof, Page};
use vocabulary::{ErrorCode, SYSTEM_OWNER, TenantId};

use crate::api::call::{Call, Public};
use crate::api::problem::Failure;
use crate::operation::limit;
use crate::publisher::Tiles;

/// What an entry may say of its end (`audit::Outcome::as_str`): a word that is none finds nothing and hides that it is wrong.
const OUTCOMES: [&str; 3] = ["allowed", "refused", "failed"];

fn shown(row: store::EntryRow) -> AuditEntry {
    AuditEntry {
        index: row.index,
        body: String::from_utf8_lossy(&row.body).into_owned(),
        salt: STANDARD.encode(row.salt),
        time: row.time,
        actor: row.actor.map(|id| id.to_string()),
        action: row.action,
        resource: Some(format!("{}/{}", row.resource_kind, row.resource)).filter(|_| !row.resource.is_empty()),
        outcome: row.outcome,
    }
}

async fn entries<A: Action>(call: &Call<A>, tenant: TenantId) -> Result<Page<AuditEntry>, Failure> {
    let text = |name: &str| call.query(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let actor = text("actor").map(|id| id.parse().map_err(|_| Failure::invalid("query parameter `actor` is no id"))).transpose()?;
    let (resource_kind, resource) = match text("resource") {
        None => (None, None),
        Some(value) => match value.split_once('/') {
            Some((kind, id)) => (Some(kind.to_owned()), Some(id.to_owned())),
            None => (Some(value), None),
        },
    };
    let outcome = text("outcome");
    if outcome.as_deref().is_some_and(|outcome| !OUTCOMES.contains(&outcome)) {
        return Err(Failure::invalid(format!("query parameter `outcome` is one of: {}", OUTCOMES.join(", "))));
    }
    let filter = EntryFilter { actor, action: text("action"), resource_kind, resource, outcome, ..EntryFilter::default() };
    let limit = limit(call)?;
    let newest = match call.query("newest") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::invalid("query parameter `newest` is `true` or `false`")),
    };
    if newest {
        let mut found = call.control.store.entries_before(tenant, None, limit, &filter).await.map_err(Failure::internal)?;
        found.items.sort_by_key(|row| row.index);
        return Ok(Page { items: found.items.into_iter().map(shown).collect(), cursor: None, truncated: false });
    }
    let from = match (call.query("cursor"), call.number("after")?) {
        (Some(cursor), _) => cursor.parse::<u64>().map_err(|_| Failure::invalid("query parameter `cursor` is none of ours"))?,
        (None, Some(after)) => after.saturating_add(1),
        (None, None) => 0,
    };
    let found = call.control.store.entries_from(tenant, from, limit, &filter).await.map_err(Failure::internal)?;
    let cursor = found.items.last().filter(|_| found.truncated).map(|row| row.index.saturating_add(1).to_string());
    Ok(Page { truncated: cursor.is_some(), cursor, items: found.items.into_iter().map(shown).collect() })
}

/// A tenant's entries.
pub(crate) async fn list(call: Call<AuditView>) -> Result<Page<AuditEntry>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    entries(&call, tenant.tenant).await
}

/// The platform's own entries.
pub(crate) async fn list_platform(call: Call<PlatformAuditView>) -> Result<Page<AuditEntry>, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    entries(&call, SYSTEM_OWNER).await
}

/// An entry with its inclusion proof under the newest checkpoint that the witnesses' quorum signed; without a quorum, the newest.
pub(crate) async fn proof(call: Call<AuditView>) -> Result<AuditProof, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let index: u64 = call.id("index")?;
    let row = call.control.store.entry(tenant.tenant, index).await.map_err(Failure::internal)?.ok_or_else(Failure::not_found)?;
    let control = &call.control;
    let base = control.proof_base().await?.filter(|base| index < base.size);
    let Some(base) = base else {
        return Err(Failure::new(ErrorCode::WrongState, "the entry is not published, or not signed by the witnesses yet: ask again in a second"));
    };
    let tiles = Tiles::load(&control.blobs, &audit::prove::tiles_for_inclusion(index, base.size)).await.map_err(Failure::internal)?;
    let hashes = audit::prove::prove_inclusion(&tiles, index, base.size).map_err(Failure::internal)?;
    let checkpoint = audit::note::Note::parse(&base.checkpoint).map_err(Failure::internal)?;
    let proof = audit::TlogProof { extra: None, index, hashes, checkpoint };
    let proof = String::from_utf8(proof.encode()).map_err(Failure::internal)?;
    Ok(AuditProof { entry: shown(row), proof })
}

/// The newest signed checkpoint.
pub(crate) async fn checkpoint(call: Call<Public>) -> Result<Response, Failure> {
    let publisher = call.control.store.publisher().await.map_err(Failure::internal)?.filter(|publisher| !publisher.checkpoint.is_empty());
    let publisher = publisher.ok_or_else(|| Failure::new(ErrorCode::Unavailable, "nothing is published yet"))?;
    Ok((
        [(http::header::CONTENT_TYPE, "text/plain; charset=utf-8"), (http::header::CACHE_CONTROL, "max-age=1")],
        publisher.checkpoint,
    )
        .into_response())
}

/// A tile or entry bundle; immutable.
pub(crate) async fn tile(call: Call<Public>) -> Result<Response, Failure> {
    let path: audit::TilePath = format!("tile/{}", call.path("path")?).parse().map_err(|_| Failure::not_found())?;
    let tiles = Tiles::load(&call.control.blobs, std::slice::from_ref(&path)).await.map_err(Failure::internal)?;
    let bytes = tiles.tile(&path).ok_or_else(Failure::not_found)?;
    Ok((
        [(http::header::CONTENT_TYPE, "application/octet-stream"), (http::header::CACHE_CONTROL, "max-age=31536000, immutable")],
        bytes,
    )
        .into_response())
}

