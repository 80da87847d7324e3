//! Indexes and manifests: JSON in, what matters out.

use super::{ImageError, refused, shown};
use crate::limits::{IMAGE_BYTES, IMAGE_LAYERS, INDEX_ENTRIES, MANIFEST_BYTES};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use vocabulary::Sha256Digest;

/// The platform whose images this machine runs.
pub(super) const OS: &str = "linux";
/// See [`OS`].
pub(super) const ARCHITECTURE: &str = "amd64";

const INDEX: [&str; 2] = ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST: [&str; 2] = ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG: [&str; 2] = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const PLAIN: [&str; 2] = ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
const GZIP: [&str; 2] = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];
const ZSTD: [&str; 2] = ["application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd"];

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Digest and size of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) digest: Sha256Digest,
    pub(super) size: u64,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) blob: Reference,
    pub(super) compression: Compression,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: Reference,
    /// Oldest first; at least one.
    pub(super) layers: Vec<Layer>,
}

/// What an entry of an index points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Points {
    Index,
    Manifest,
}

/// One entry of an index that may lead to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) points: Points,
    pub(super) blob: Reference,
    /// `Some(false)` when it names another platform than ours, `None` when it names none.
    pub(super) ours: Option<bool>,
    /// For messages: platform and name as far as the entry gives them.
    pub(super) label: String,
}

#[derive(Deserialize)]
struct RawDescriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
    urls: Option<Vec<String>>,
    platform: Option<Object<RawPlatform>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Vec<Object<RawDescriptor>>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawManifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<Object<RawDescriptor>>,
    layers: Option<Vec<Object<RawDescriptor>>>,
    manifests: Option<IgnoredAny>,
}

/// A JSON object. Without it a list of the fields' values would be taken as well, which other readers refuse.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

impl RawDescriptor {
    fn reference(&self) -> Result<Reference, ImageError> {
        Ok(Reference { digest: super::layout::digest(&self.digest)?, size: self.size })
    }
}

/// A manifest with layers and manifests at once means different images to different readers (CVE-2021-41190).
fn both() -> ImageError {
    refused("the document has both `layers` and `manifests`: different tools would take different images from it")
}

fn version(document: &str, schema_version: u32) -> Result<(), ImageError> {
    if schema_version == 2 { Ok(()) } else { Err(refused(format!("{document}: schemaVersion {schema_version} is not 2"))) }
}

fn unknown(document: &str, media_type: &str) -> ImageError {
    refused(format!("{document}: media type `{}` is unknown", shown(media_type.as_bytes())))
}

/// Reads an index.
pub(super) fn parse_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, ImageError> {
    let Object(raw): Object<RawIndex> = serde_json::from_slice(bytes).map_err(|error| refused(format!("image index: {}", shown(error.to_string().as_bytes()))))?;
    if raw.layers.is_some() || raw.config.is_some() {
        return Err(both());
    }
    version("image index", raw.schema_version)?;
    if let Some(media_type) = &raw.media_type
        && !INDEX.contains(&media_type.as_str())
    {
        return Err(unknown("image index", media_type));
    }
    if raw.manifests.len() > INDEX_ENTRIES {
        return Err(ImageError::Budget { layer: 0, limit: format!("{INDEX_ENTRIES} entries of an index") });
    }
    raw.manifests.iter().filter_map(|Object(entry)| index_entry(entry).transpose()).collect()
}

/// `None` for what is no image: the specification wants unknown kinds in an index to be passed over.
fn index_entry(raw: &RawDescriptor) -> Result<Option<IndexEntry>, ImageError> {
    let points = if INDEX.contains(&raw.media_type.as_str()) {
        Points::Index
    } else if MANIFEST.contains(&raw.media_type.as_str()) {
        Points::Manifest
    } else {
        return Ok(None);
    };
    let blob = raw.reference()?;
    let (ours, platform) = match &raw.platform {
        None => (None, "no platform named".to_owned()),
        Some(Object(platform)) => {
            let variant = platform.variant.as_deref().filter(|variant| !variant.is_empty());
            let ours = platform.os == OS && platform.architecture == ARCHITECTURE && variant.is_none_or(|variant| variant == "v1");
            let text = [Some(platform.os.as_str()), Some(&platform.architecture), variant].into_iter().flatten().collect::<Vec<_>>().join("/");
            (Some(ours), text)
        }
    };
    let name = raw.annotations.as_ref().and_then(|all| all.get("org.opencontainers.image.ref.name"));
    let label = name.map_or_else(|| platform.clone(), |name| format!("{platform} `{name}`"));
    Ok(Some(IndexEntry { points, blob, ours, label: shown(label.as_bytes()) }))
}

/// Reads a manifest.
pub(super) fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ImageError> {
    let Object(raw): Object<RawManifest> = serde_json::from_slice(bytes).map_err(|error| refused(format!("image manifest: {}", shown(error.to_string().as_bytes()))))?;
    if raw.manifests.is_some() {
        if raw.layers.is_some() || raw.config.is_some() {
            return Err(both());
        }
        return Err(refused("image manifest: this is an index of manifests"));
    }
    version("image manifest", raw.schema_version)?;
    if let Some(media_type) = &raw.media_type
        && !MANIFEST.contains(&media_type.as_str())
    {
        return Err(unknown("image manifest", media_type));
    }
    let (Some(Object(config)), Some(layers)) = (raw.config, raw.layers) else {
        return Err(refused("image manifest: `config` and `layers` are needed"));
    };
    if !CONFIG.contains(&config.media_type.as_str()) {
        return Err(unknown("config of the manifest", &config.media_type));
    }
    let config = config.reference()?;
    if config.size > MANIFEST_BYTES {
        return Err(ImageError::Budget { layer: 0, limit: format!("{MANIFEST_BYTES} bytes of an image config") });
    }
    if layers.is_empty() {
        return Err(refused("image manifest: an image without layers has nothing to run"));
    }
    if layers.len() > IMAGE_LAYERS {
        return Err(ImageError::Budget { layer: 0, limit: format!("{IMAGE_LAYERS} layers") });
    }
    let mut total = 0_u64;
    let mut sizes = BTreeMap::from([(config.digest, config.size)]);
    let mut parsed = Vec::with_capacity(layers.len());
    for (number, Object(raw)) in (1_usize..).zip(&layers) {
        let layer = layer(number, raw)?;
        total = total.saturating_add(layer.blob.size);
        if total > IMAGE_BYTES {
            return Err(ImageError::Budget { layer: number, limit: format!("{IMAGE_BYTES} bytes of all layers") });
        }
        if sizes.insert(layer.blob.digest, layer.blob.size).is_some_and(|other| other != layer.blob.size) {
            return Err(refused(format!("layer {number}: one digest with two sizes")));
        }
        parsed.push(layer);
    }
    Ok(Manifest { config, layers: parsed })
}

fn layer(number: usize, raw: &RawDescriptor) -> Result<Layer, ImageError> {
    let foreign = raw.media_type.contains("nondistributable") || raw.media_type.contains(".foreign.");
    if foreign || raw.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(refused(format!("layer {number}: foreign layers, fetched from elsewhere, are not taken")));
    }
    let kinds = [(&PLAIN, Compression::None), (&GZIP, Compression::Gzip), (&ZSTD, Compression::Zstd)];
    let known = kinds.iter().find(|(types, _)| types.contains(&raw.media_type.as_str()));
    let (_, compression) = known.ok_or_else(|| unknown(&format!("layer {number}"), &raw.media_type))?;
    Ok(Layer { blob: raw.reference()?, compression: *compression })
}
