//! The documents of a registry: which of an index is ours, and what a manifest names. Pure: bytes in, what to fetch out.

use super::manifest::{Points, parse_index, parse_manifest};
use super::{ImageError, refused};
use crate::limits::MANIFEST_BYTES;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeSet;
use vocabulary::Sha256Digest;

/// What a document leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// It is an image's manifest: its config and layers, each once, with their sizes.
    Image(Vec<(Sha256Digest, u64)>),
    /// It is an index: the document in it that is for linux/amd64, or leads there.
    Index(Sha256Digest, u64),
}

#[derive(Deserialize)]
struct Shape {
    manifests: Option<IgnoredAny>,
}

/// Reads a document of a registry, whatever media type it claims: what counts is what it says.
///
/// # Errors
/// When it is neither, breaks a rule, or has no image for this machine; the platforms that it has are named.
pub fn document(bytes: &[u8]) -> Result<Document, ImageError> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| refused(format!("the registry's document: {}", super::shown(error.to_string().as_bytes()))))?;
    if shape.manifests.is_none() {
        let manifest = parse_manifest(bytes)?;
        let mut seen = BTreeSet::new();
        let all = std::iter::once(manifest.config).chain(manifest.layers.iter().map(|layer| layer.blob));
        return Ok(Document::Image(all.filter(|blob| seen.insert(blob.digest)).map(|blob| (blob.digest, blob.size)).collect()));
    }
    let entries = parse_index(bytes)?;
    let alone = entries.len() == 1;
    let mut wanted = BTreeSet::new();
    let mut others = Vec::new();
    for entry in &entries {
        // An entry that names no platform is taken only where there is nothing to choose from.
        if entry.ours == Some(true) || (entry.ours.is_none() && (alone || entry.points == Points::Index)) {
            wanted.insert((entry.blob.digest, entry.blob.size));
        } else {
            others.push(entry.label.clone());
        }
    }
    let mut wanted = wanted.into_iter();
    match (wanted.next(), wanted.next()) {
        (Some((_, size)), None) if size > MANIFEST_BYTES => Err(ImageError::Budget { layer: 0, limit: format!("{MANIFEST_BYTES} bytes of a manifest") }),
        (Some((digest, size)), None) => Ok(Document::Index(digest, size)),
        (Some(_), Some(_)) => Err(refused("the index holds several images for linux/amd64; name one by its digest")),
        (None, _) if others.is_empty() => Err(refused("the index holds no image")),
        (None, _) => {
            others.sort();
            others.dedup();
            Err(refused(format!("the index holds no image for linux/amd64; it has: {}", others.join(", "))))
        }
    }
}

/// For mutation and fuzzing: reads hostile bytes; says whether they lead to an image.
#[must_use]
pub fn fuzz(bytes: &[u8]) -> bool {
    document(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn digest(byte: u8) -> Sha256Digest {
        Sha256Digest::from_bytes([byte; 32])
    }

    fn entry(kind: &str, byte: u8, platform: Option<&str>) -> Value {
        let mut entry = json!({ "mediaType": kind, "digest": digest(byte), "size": 7 });
        if let Some((os, architecture)) = platform.and_then(|text| text.split_once('/')) {
            entry["platform"] = json!({ "os": os, "architecture": architecture });
        }
        entry
    }

    fn index(entries: &[Value]) -> Result<Document, ImageError> {
        document(&serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })).unwrap())
    }

    #[test]
    fn the_one_for_this_machine_is_taken() {
        let ours = Document::Index(digest(2), 7);
        let all = [entry(MANIFEST, 1, Some("linux/arm64")), entry(MANIFEST, 2, Some("linux/amd64")), entry(MANIFEST, 3, Some("unknown/unknown"))];
        assert_eq!(index(&all).unwrap(), ours);
        assert_eq!(index(&[entry(MANIFEST, 2, None)]).unwrap(), ours);
        assert_eq!(index(&[entry(INDEX, 2, None)]).unwrap(), ours);
        let refused = |entries: &[Value]| index(entries).unwrap_err().to_string();
        assert!(refused(&[entry(MANIFEST, 1, Some("linux/arm64")), entry(MANIFEST, 3, Some("windows/amd64"))]).contains("linux/arm64, windows/amd64"));
        assert!(refused(&[entry(MANIFEST, 1, Some("linux/amd64")), entry(MANIFEST, 2, Some("linux/amd64"))]).contains("several"));
        assert!(refused(&[]).contains("no image"));
        assert!(refused(&[entry(MANIFEST, 1, None), entry(MANIFEST, 2, None)]).contains("no image for linux/amd64"));
        let mut huge = entry(MANIFEST, 2, None);
        huge["size"] = json!(MANIFEST_BYTES + 1);
        assert!(matches!(index(&[huge]), Err(ImageError::Budget { .. })));
    }

    #[test]
    fn a_manifest_names_its_blobs_once_each() {
        let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(5), "size": 9 });
        let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(4), "size": 3 });
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer, layer] });
        assert_eq!(document(manifest.to_string().as_bytes()).unwrap(), Document::Image(vec![(digest(4), 3), (digest(5), 9)]));
        // Both at once means two images to two readers (CVE-2021-41190); version 1 has no digests worth the name.
        let mut both = manifest;
        both["manifests"] = json!([]);
        assert!(document(both.to_string().as_bytes()).is_err());
        assert!(document(br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#).is_err());
        for text in ["", "[]", "{}", "null", "{\"manifests\":5}", "{\"manifests\":[[]]}"] {
            assert!(!fuzz(text.as_bytes()), "{text}");
        }
    }
}
