//! Images over the API: what is uploaded is what was announced, each tenant sees its own, names move.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::arithmetic_side_effects,
    reason = "a test that meets what it did not expect shall fail there, also in what its functions share"
)]

mod fixture;

use bytes::Bytes;
use fixture::{World, image, image_create};
use receipt::envelope::sha256;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_checked_kept_apart_and_named() {
    let mut world = World::start().await;
    let operator = world.operator().await;
    let ann = world.tenant(&operator, "acme", "ann").await;
    let bob = world.tenant(&operator, "globex", "bob").await;
    let (manifest, blobs) = image("first");
    let (layer, bytes) = blobs[2].clone();

    // Nothing is taken on trust: digest, length, and that both are said.
    let wrong = sha256(b"something else");
    ann.put_blob(&wrong, &bytes).await.refused("verification_failed", "announced digest");
    ann.get(&format!("/v1/image-blobs/{wrong}")).await.refused("not_found", "");
    ann.put_blob_in_pieces(&layer, None, vec![Bytes::from(bytes.clone())]).await.refused("invalid_request", "Content-Length");
    ann.announce_blob(&layer, 65 << 30).await.refused("too_large", "limit");
    let short = ann.put_blob_in_pieces(&layer, Some(bytes.len() as u64 + 5), vec![Bytes::from(bytes.clone())]).await;
    assert_ne!(short.status, 200);
    ann.get(&format!("/v1/image-blobs/{layer}")).await.refused("not_found", "");

    // Naming comes after all blobs are there, and nothing else.
    ann.put_blob(&blobs[0].0, &blobs[0].1).await.ok();
    ann.put_blob(&blobs[1].0, &blobs[1].1).await.ok();
    ann.post("/v1/images", image_create("tool", manifest, &blobs)).await.refused("wrong_state", "was not uploaded");
    let pieces = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
    assert_eq!(ann.put_blob_in_pieces(&layer, Some(bytes.len() as u64), pieces).await.ok()["size"], json!(bytes.len()));
    assert_eq!(ann.put_blob(&layer, &bytes).await.ok()["size"], json!(bytes.len()), "again changes nothing");
    let lacking = image_create("tool", manifest, &blobs[..2]);
    ann.post("/v1/images", lacking).await.refused("invalid_request", "lacks");
    let mut sizes = image_create("tool", manifest, &blobs);
    sizes["blobs"][2]["size"] = json!(3);
    ann.post("/v1/images", sizes).await.refused("invalid_request", "bytes, not 3");
    let extra = b"nobody names me";
    ann.put_blob(&sha256(extra), extra).await.ok();
    let mut more = blobs.clone();
    more.push((sha256(extra), extra.to_vec()));
    ann.post("/v1/images", image_create("tool", manifest, &more)).await.refused("invalid_request", "does not name");

    for source in [String::new(), "a b".to_owned(), "a\u{1b}[2J".to_owned(), "a".repeat(641)] {
        let mut named = image_create("tool", manifest, &blobs);
        named["source"] = json!(source);
        ann.post("/v1/images", named).await.refused("invalid_request", "source");
    }

    let made = ann.post("/v1/images", image_create("tool", manifest, &blobs)).await.ok();
    assert!(made["audit_index"].is_u64());
    let again = ann.post("/v1/images", image_create("tool", manifest, &blobs)).await.ok();
    assert_eq!((&again["id"], &again["audit_index"]), (&made["id"], &serde_json::Value::Null), "nothing happened, so nothing is recorded");

    // Another tenant neither sees it nor learns that it is there.
    bob.get(&format!("/v1/image-blobs/{layer}")).await.refused("not_found", "");
    bob.post("/v1/images", image_create("tool", manifest, &blobs)).await.refused("wrong_state", "was not uploaded");
    assert_eq!(bob.get("/v1/images").await.ok()["items"], json!([]));

    // The name moves to another manifest; the older one still runs by its digest.
    let (second, second_blobs) = image("second");
    for (digest, bytes) in &second_blobs {
        ann.put_blob(digest, bytes).await.ok();
    }
    ann.post("/v1/images", image_create("tool", second, &second_blobs)).await.ok();
    let listed = ann.get("/v1/images").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["manifest"], json!(second));
    let project = ann.project("research").await;
    fixture::submit(&ann, &project, manifest, json!([]), json!([])).await;
    let foreign = json!({ "project": bob.project("theirs").await, "spec": {
        "name": "j", "image": manifest, "purpose": "research", "sensitivity": "internal" } });
    bob.post("/v1/jobs", foreign).await.refused("not_found", "import it first");

    let entries = ann.get("/v1/audit?action=imageImport").await.ok();
    let imported = entries["items"].as_array().unwrap().iter().filter(|entry| entry["body"].as_str().unwrap().contains("image_imported")).count();
    assert_eq!(imported, 2);
}
