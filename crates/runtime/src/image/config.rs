//! What an image says about its own program.

use super::manifest::{ARCHITECTURE, OS, Object};
use super::{ImageError, refused, shown};
use crate::limits::IMAGE_LAYERS;
use serde::Deserialize;
use vocabulary::Sha256Digest;

/// The part of an image's config that a job uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// Program that is put before the command.
    pub entrypoint: Vec<String>,
    /// Default command.
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`; every text has a name and a `=`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root of the container. [`super::resolve_user`] reads it.
    pub user: String,
    /// Working directory; empty means `/`.
    pub workdir: String,
    /// Digests of the uncompressed layers, oldest first.
    pub diff_ids: Vec<Sha256Digest>,
    /// `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
}

impl ImageConfig {
    /// The program and its arguments: `command` replaces the image's command, and an empty one keeps it.
    #[must_use]
    pub fn argv(&self, command: &[String]) -> Vec<String> {
        let rest = if command.is_empty() { &self.cmd } else { command };
        self.entrypoint.iter().chain(rest).cloned().collect()
    }

    /// Whether it is for this machine, and as many layers as the manifest has.
    pub(super) fn fits(&self, layers: usize) -> Result<(), ImageError> {
        if self.os != OS || self.architecture != ARCHITECTURE {
            let platform = shown(format!("{}/{}", self.os, self.architecture).as_bytes());
            return Err(refused(format!("image config: it is for {platform}, and this machine runs {OS}/{ARCHITECTURE}")));
        }
        if self.diff_ids.len() != layers {
            return Err(refused(format!("image config: {} diff_ids for {layers} layers", self.diff_ids.len())));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Object<RawConfig>>,
    rootfs: Object<RawRoot>,
}

#[derive(Deserialize, Default)]
struct RawConfig {
    #[serde(default, rename = "Entrypoint")]
    entrypoint: Option<Vec<String>>,
    #[serde(default, rename = "Cmd")]
    cmd: Option<Vec<String>>,
    #[serde(default, rename = "Env")]
    env: Option<Vec<String>>,
    #[serde(default, rename = "User")]
    user: Option<String>,
    #[serde(default, rename = "WorkingDir")]
    workdir: Option<String>,
}

#[derive(Deserialize)]
struct RawRoot {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<String>,
}

/// Reads an image config.
///
/// # Errors
/// When it is not one.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    let Object(raw): Object<Raw> = serde_json::from_slice(bytes).map_err(|error| refused(format!("image config: {}", shown(error.to_string().as_bytes()))))?;
    let Object(rootfs) = raw.rootfs;
    if rootfs.kind != "layers" {
        return Err(refused(format!("image config: rootfs type `{}` is not `layers`", shown(rootfs.kind.as_bytes()))));
    }
    if rootfs.diff_ids.len() > IMAGE_LAYERS {
        return Err(ImageError::Budget { layer: 0, limit: format!("{IMAGE_LAYERS} diff_ids") });
    }
    let config = raw.config.map(|Object(config)| config).unwrap_or_default();
    let config = ImageConfig {
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        workdir: config.workdir.unwrap_or_default(),
        diff_ids: rootfs.diff_ids.iter().map(|text| super::layout::digest(text)).collect::<Result<_, _>>()?,
        os: raw.os,
        architecture: raw.architecture,
    };
    let texts = [&config.entrypoint, &config.cmd, &config.env].into_iter().flatten().chain([&config.user, &config.workdir]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(refused("image config: a text holds a NUL byte"));
    }
    if let Some(text) = config.env.iter().find(|text| text.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return Err(refused(format!("image config: `Env` holds `{}`, which is not NAME=value", shown(text.as_bytes()))));
    }
    Ok(config)
}
