//! Images: blobs by digest, kept apart per tenant so that nobody learns what another tenant has, and names for manifests.
//!
//! A name is unique in its tenant and points at one manifest. Importing another manifest under a name moves the name; the
//! older image loses its name and stays usable by its digest, so that a job that names a digest runs again as it ran.

use std::collections::{BTreeMap, BTreeSet};

use audit::{Event, Outcome};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use policy::action::{ImageImport, ImageList};
use policy::{Action, Resource};
use serde::Deserialize;
use store::blobs::Upload;
use store::{BlobError, BlobPath, Expect, Kind, Page, Put, Transaction};
use vocabulary::api::{self, Image, ImageCreate};
use vocabulary::limits::IMAGE_SOURCE_MAX;
use vocabulary::plan::{BlobRef, ImageBlobs};
use vocabulary::quota::QuotaUse;
use vocabulary::{ErrorCode, ImageId, Sha256Digest, TenantId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::api::table::Raw;
use crate::limits::{IMAGE_BLOBS_MAX, IMAGE_BYTES_MAX, MANIFEST_MAX, STREAM_IDLE_TIMEOUT};
use crate::operation::object::blob_failure;
use crate::operation::{page, paged};
use crate::quota::commit_within;
use crate::row::{FORMAT, ImageRow};
use crate::state::{Control, actor, fresh};

/// Where a blob of a tenant's image lies.
pub(crate) fn blob_path(tenant: TenantId, digest: &Sha256Digest) -> Result<BlobPath, Failure> {
    format!("images/{tenant}/{}", digest.hex()).parse().map_err(Failure::internal)
}

/// The column by which an image is found by its manifest: the first half of the digest, which the body has whole.
fn link(manifest: &Sha256Digest) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(manifest.as_bytes()) {
        *to = *from;
    }
    half
}

/// As much of a manifest as must be known before it is named.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "schemaVersion")]
    schema: u32,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: Sha256Digest,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

/// What a manifest of this size names, itself first. The bytes are those of its digest already.
fn named_by(manifest: Sha256Digest, bytes: &[u8]) -> Result<ImageBlobs, Failure> {
    let invalid = |rule: String| Failure::new(ErrorCode::VerificationFailed, format!("manifest {manifest}: {rule}"));
    let parsed: Manifest = serde_json::from_slice(bytes).map_err(|error| {
        let rule: String = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
        invalid(format!("not an OCI image manifest with SHA-256 digests: {rule}"))
    })?;
    // A document that is both a manifest and an index means two things to two readers (CVE-2021-41190).
    if parsed.manifests.is_some() {
        return Err(invalid("it is an index, or pretends to be both: import the manifest of one platform".to_owned()));
    }
    let (2, Some(config), Some(layers)) = (parsed.schema, parsed.config, parsed.layers) else {
        return Err(invalid("an image manifest has `schemaVersion` 2, `config` and `layers`".to_owned()));
    };
    let mut blobs: BTreeMap<Sha256Digest, u64> = BTreeMap::new();
    let mut order = vec![BlobRef { digest: manifest, size: bytes.len() as u64 }];
    for descriptor in std::iter::once(config).chain(layers) {
        if !descriptor.urls.is_empty() {
            return Err(invalid(format!("{} is a foreign layer (`urls`): its bytes come from elsewhere", descriptor.digest)));
        }
        match blobs.insert(descriptor.digest, descriptor.size) {
            // A layer may stand twice; it is one blob.
            Some(size) if size == descriptor.size => {}
            Some(_) => return Err(invalid(format!("{} has two sizes", descriptor.digest))),
            None => order.push(BlobRef { digest: descriptor.digest, size: descriptor.size }),
        }
        if order.len() > IMAGE_BLOBS_MAX {
            return Err(invalid(format!("an image has at most {IMAGE_BLOBS_MAX} blobs")));
        }
    }
    if order.iter().skip(1).any(|blob| blob.digest == manifest) {
        return Err(invalid("it names itself".to_owned()));
    }
    Ok(ImageBlobs { manifest, blobs: order })
}

impl Control {
    /// A tenant's image by its manifest, under whatever name it has or had.
    pub(crate) async fn image_by_manifest(&self, tenant: TenantId, manifest: &Sha256Digest) -> Result<Option<ImageRow>, Failure> {
        let mut after = None;
        loop {
            let page = after.map_or_else(|| Page::first(100), |after| Page::after(after, 100));
            let found = self.store.list_link(tenant, Kind::IMAGE, link(manifest), page).await.map_err(Failure::internal)?;
            after = found.items.last().map(|row| row.id);
            for stored in &found.items {
                let row: ImageRow = stored.parse().map_err(Failure::internal)?;
                if row.manifest == *manifest {
                    return Ok(Some(row));
                }
            }
            if !found.truncated {
                return Ok(None);
            }
        }
    }

    /// What a node fetches for an image of a tenant.
    pub(crate) async fn image_blobs(&self, tenant: TenantId, manifest: Sha256Digest) -> Result<ImageBlobs, Failure> {
        let path = blob_path(tenant, &manifest)?;
        let bytes = self.blobs.get(&path, MANIFEST_MAX).await.map_err(blob_failure)?;
        if receipt::envelope::sha256(&bytes) != manifest {
            return Err(Failure::new(ErrorCode::VerificationFailed, format!("the stored manifest {manifest} is damaged: import the image again")));
        }
        named_by(manifest, &bytes)
    }

    /// A blob as a stream.
    pub(crate) async fn image_blob(&self, tenant: TenantId, digest: &Sha256Digest) -> Result<Response, Failure> {
        let (size, stream) = self.blobs.stream(&blob_path(tenant, digest)?, None).await.map_err(blob_failure)?;
        let headers = [
            (http::header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (http::header::CONTENT_LENGTH, size.to_string()),
        ];
        Ok((headers, Body::from_stream(stream)).into_response())
    }
}

fn digest<A>(call: &Call<A>) -> Result<Sha256Digest, Failure> {
    call.path("digest")?.parse().map_err(|error| Failure::invalid(format!("path: {error}")))
}

fn announced(size: Option<&str>) -> Result<u64, Failure> {
    let size = size.ok_or_else(|| Failure::invalid("header `Content-Length` is missing: say how many bytes the blob has"))?;
    size.parse().map_err(|_| Failure::invalid("header `Content-Length` is no whole number"))
}

/// Takes a blob of an image. Sending it again changes nothing; until an image names it, nothing refers to it, so it is no entry.
pub(crate) async fn put_blob(call: Call<ImageImport>, Raw(body): Raw) -> Result<Response, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let digest = digest(&call)?;
    let size = announced(call.content_length())?;
    let path = blob_path(tenant.tenant, &digest)?;
    let mut upload = call.control.blobs.upload(&path, digest, size).await.map_err(blob_failure)?;
    match receive(&mut upload, body).await {
        Ok(()) => upload.finish().await.map_err(blob_failure)?,
        Err(failure) => {
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "an upload that broke off was not removed");
            }
            return Err(failure);
        }
    };
    Ok(axum::Json(BlobRef { digest, size }).into_response())
}

/// Hands a body on piece by piece: at most one part of it is in memory.
async fn receive(upload: &mut Upload, mut body: Body) -> Result<(), Failure> {
    loop {
        match tokio::time::timeout(STREAM_IDLE_TIMEOUT, body.frame()).await {
            Err(_) => return Err(Failure::new(ErrorCode::RequestTimeout, "the body stopped arriving")),
            Ok(None) => return Ok(()),
            Ok(Some(Err(_))) => return Err(Failure::invalid("the body broke off")),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    upload.write(data).await.map_err(blob_failure)?;
                }
            }
        }
    }
}

/// Says whether the tenant has a blob, so that it need not be sent again.
pub(crate) async fn show_blob(call: Call<ImageImport>) -> Result<BlobRef, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let digest = digest(&call)?;
    let size = call.control.blobs.size(&blob_path(tenant.tenant, &digest)?).await.map_err(blob_failure)?;
    Ok(BlobRef { digest, size })
}

/// Names a manifest whose blobs are all there. Naming it again changes nothing, and then there is no entry.
pub(crate) async fn create(call: Call<ImageImport>, request: ImageCreate) -> Result<Image, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let size = check(control, tenant.tenant, &request).await?;
    let holder = control.store.find(tenant.tenant, Kind::IMAGE, None, &request.name).await.map_err(Failure::internal)?;
    let mut transaction = Transaction::new();
    if let Some(holder) = holder {
        let row: ImageRow = holder.parse().map_err(Failure::internal)?;
        if row.manifest == request.manifest {
            return Ok(shown(row));
        }
        // The name moves; the older image stays under its digest.
        let put = Put::json(tenant.tenant, Kind::IMAGE, row.id, Expect::Revision(holder.revision), &row).map_err(Failure::internal)?;
        transaction = transaction.with(put.link(link(&row.manifest)));
    }
    let row = ImageRow {
        format: FORMAT,
        id: fresh(ImageId::new, call.now),
        name: request.name,
        manifest: request.manifest,
        size,
        source: request.source,
        importer: member.principal,
        created: call.now,
    };
    let put = Put::json(tenant.tenant, Kind::IMAGE, row.id, Expect::Absent, &row).map_err(Failure::internal)?;
    let event = Event::ImageImported { image: row.id, digest: row.manifest, name: row.name.clone(), source: row.source.clone() };
    let entry = control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(ImageImport::NAME), event)?;
    let put = put.name(&row.name).link(link(&row.manifest));
    let asked = QuotaUse {
        images: 1,
        ..QuotaUse::default()
    };
    let (index, image) = commit_within(
        &call,
        tenant.tenant,
        None,
        &asked,
        transaction.with(put).entry(entry),
        shown(row),
    )
    .await?;
    Ok(Image {
        audit_index: Some(index),
        ..image
    })
}

/// Checks that the blobs are those of the manifest, all there, with their sizes. Returns the sum of the sizes.
async fn check(control: &Control, tenant: TenantId, request: &ImageCreate) -> Result<u64, Failure> {
    if request.source.as_ref().is_some_and(|source| source.is_empty() || source.len() > IMAGE_SOURCE_MAX || !source.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(Failure::invalid(format!("`source` has 1 to {IMAGE_SOURCE_MAX} visible ASCII characters")));
    }
    if request.blobs.len() > IMAGE_BLOBS_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`blobs`: an image has at most {IMAGE_BLOBS_MAX}")));
    }
    let listed: BTreeMap<Sha256Digest, u64> = request.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
    if listed.len() != request.blobs.len() {
        return Err(Failure::invalid("`blobs` names a digest twice"));
    }
    let total = listed.values().try_fold(0_u64, |sum, size| sum.checked_add(*size)).filter(|total| *total <= IMAGE_BYTES_MAX);
    let total = total.ok_or_else(|| Failure::new(ErrorCode::TooLarge, format!("`blobs`: an image has at most {IMAGE_BYTES_MAX} bytes")))?;
    for (digest, size) in &listed {
        match control.blobs.size(&blob_path(tenant, digest)?).await {
            Ok(there) if there == *size => {}
            Ok(there) => return Err(Failure::invalid(format!("`blobs`: {digest} has {there} bytes, not {size}"))),
            Err(BlobError::Absent(_)) => {
                return Err(Failure::new(ErrorCode::WrongState, format!("`blobs`: {digest} was not uploaded: PUT /v1/image-blobs/{digest} first")));
            }
            Err(error) => return Err(blob_failure(error)),
        }
    }
    if !listed.contains_key(&request.manifest) {
        return Err(Failure::invalid("`blobs` does not hold the manifest"));
    }
    let named = control.image_blobs(tenant, request.manifest).await?;
    for blob in &named.blobs {
        match listed.get(&blob.digest) {
            Some(size) if *size == blob.size => {}
            Some(size) => return Err(Failure::invalid(format!("`blobs`: {} has {size} bytes, the manifest says {}", blob.digest, blob.size))),
            None => return Err(Failure::invalid(format!("`blobs` lacks {}, which the manifest names", blob.digest))),
        }
    }
    let wanted: BTreeSet<Sha256Digest> = named.blobs.iter().map(|blob| blob.digest).collect();
    match listed.keys().find(|digest| !wanted.contains(digest)) {
        Some(extra) => Err(Failure::invalid(format!("`blobs`: the manifest does not name {extra}"))),
        None => Ok(total),
    }
}

fn shown(row: ImageRow) -> Image {
    Image { id: row.id, name: row.name, manifest: row.manifest, size: row.size, source: row.source, created: row.created, audit_index: None }
}

/// Lists images by name; those whose name moved on are not shown.
pub(crate) async fn list(call: Call<ImageList>) -> Result<api::Page<Image>, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let found = call.control.store.list(tenant.tenant, Kind::IMAGE, page(&call)?).await.map_err(Failure::internal)?;
    Ok(paged(found, |row| row.id, |row| {
        row.name.as_ref()?;
        Some(shown(row.parse().ok()?))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        named_by(Sha256Digest::from_bytes([9; 32]), text.as_bytes()).expect_err(text).problem.detail.clone()
    }

    #[test]
    fn a_manifest_names_itself_config_and_layers_once_each() {
        let (a, b) = (Sha256Digest::from_bytes([1; 32]), Sha256Digest::from_bytes([2; 32]));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":3}},"layers":[{{"digest":"{b}","size":4}},{{"digest":"{b}","size":4}}]}}"#
        );
        let named = named_by(Sha256Digest::from_bytes([9; 32]), text.as_bytes()).unwrap();
        let sizes: Vec<u64> = named.blobs.iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [text.len() as u64, 3, 4]);
    }

    #[test]
    fn what_is_no_single_image_is_refused() {
        let a = Sha256Digest::from_bytes([1; 32]);
        let config = format!(r#""config":{{"digest":"{a}","size":3}}"#);
        assert!(refused("{").contains("not an OCI image manifest"));
        assert!(refused(r#"{"schemaVersion":2,"manifests":[]}"#).contains("index"));
        assert!(refused(&format!(r#"{{"schemaVersion":2,{config},"layers":[],"manifests":[]}}"#)).contains("index"));
        assert!(refused(&format!(r#"{{"schemaVersion":1,{config},"layers":[]}}"#)).contains("schemaVersion"));
        assert!(refused(&format!(r#"{{"schemaVersion":2,{config}}}"#)).contains("layers"));
        assert!(refused(&format!(r#"{{"schemaVersion":2,{config},"layers":[{{"digest":"{a}","size":4}}]}}"#)).contains("two sizes"));
        assert!(
            refused(&format!(r#"{{"schemaVersion":2,{config},"layers":[{{"digest":"{a}","size":3,"urls":["x"]}}]}}"#)).contains("foreign")
        );
        let other = format!("sha512:{}", "0".repeat(128));
        assert!(refused(&format!(r#"{{"schemaVersion":2,"config":{{"digest":"{other}","size":3}},"layers":[]}}"#)).contains("SHA-256"));
        let own = Sha256Digest::from_bytes([9; 32]);
        assert!(refused(&format!(r#"{{"schemaVersion":2,{config},"layers":[{{"digest":"{own}","size":4}}]}}"#)).contains("itself"));
    }

    #[test]
    fn a_huge_list_of_layers_is_bounded() {
        let layers: Vec<String> =
            (0..1000_u32).map(|n| format!(r#"{{"digest":"{}","size":1}}"#, receipt::envelope::sha256(&n.to_be_bytes()))).collect();
        let a = Sha256Digest::from_bytes([1; 32]);
        let text = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":3}},"layers":[{}]}}"#, layers.join(","));
        assert!(refused(&text).contains("at most"));
    }
}
