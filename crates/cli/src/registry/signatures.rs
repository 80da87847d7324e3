//! cosign's signatures: a manifest under the tag `sha256-HEX.sig`, whose layers are payloads with a signature each.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use receipt::cosign::COSIGN_PAYLOAD_MAX;
use serde::Deserialize;
use vocabulary::Sha256Digest;
use vocabulary::signature::ImageSignature;

use super::{Point, PullError, Registry};

/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 32;
/// The media type of a payload.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that holds the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Sha256Digest,
    size: u64,
    annotations: Option<BTreeMap<String, String>>,
}

impl Registry {
    /// The signatures that lie beside an image; none where the registry has none. Nothing is believed here: the control plane
    /// checks them against the tenant's policy.
    pub(crate) async fn signatures(&mut self, image: &Sha256Digest) -> Result<Vec<ImageSignature>, PullError> {
        let tag = format!("sha256-{}.sig", image.hex());
        let bytes = match self.document(&Point::Tag(tag.clone()), None).await {
            Ok((_, bytes)) => bytes,
            Err(PullError::Absent(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let lie = |rule: String| PullError::Lie { what: tag.clone(), rule };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| lie("it is no manifest of signatures".to_owned()))?;
        let mut found = Vec::new();
        for layer in manifest.layers {
            let signature = layer.annotations.and_then(|mut all| all.remove(SIGNATURE)).filter(|_| layer.media_type == PAYLOAD);
            let Some(signature) = signature else { continue };
            if found.len() >= SIGNATURES_MAX {
                return Err(lie(format!("more than {SIGNATURES_MAX} signatures")));
            }
            let most = u64::try_from(COSIGN_PAYLOAD_MAX).unwrap_or(0);
            if layer.size > most || signature.len() > 256 {
                return Err(lie("a payload or signature is longer than any of cosign's".to_owned()));
            }
            let response = self.get(&format!("blobs/{}", layer.digest), "application/octet-stream", None).await?;
            let bytes = self.small(response, COSIGN_PAYLOAD_MAX).await?.ok_or_else(|| lie("a payload is longer than was said".to_owned()))?;
            if Sha256Digest::from_bytes(keys::derive::sha256(&[&bytes])) != layer.digest {
                return Err(lie(format!("payload {} is another", layer.digest)));
            }
            found.push(ImageSignature { payload: STANDARD.encode(bytes), signature });
        }
        Ok(found)
    }
}
