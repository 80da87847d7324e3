//! What an image says about its own program.

use super::{ImageError, refused};
use serde::Deserialize;
use vocabulary::Sha256Digest;

/// The part of an image's config that a job uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// Program that is put before the command.
    pub entrypoint: Vec<String>,
    /// Default command.
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root of the container.
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
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<RawConfig>,
    rootfs: RawRoot,
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
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| refused(format!("image config: {error}")))?;
    if raw.rootfs.kind != "layers" {
        return Err(refused(format!("image config: rootfs type `{}` is not `layers`", raw.rootfs.kind)));
    }
    let config = raw.config.unwrap_or_default();
    let texts = [&config.entrypoint, &config.cmd, &config.env];
    if texts.iter().filter_map(|list| list.as_ref()).flatten().any(|text| text.contains('\0')) {
        return Err(refused("image config: a text holds a NUL byte"));
    }
    let diff_ids = raw.rootfs.diff_ids.iter().map(|text| super::layout::digest(text)).collect::<Result<_, _>>()?;
    Ok(ImageConfig {
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        workdir: config.workdir.unwrap_or_default(),
        diff_ids,
        os: raw.os,
        architecture: raw.architecture,
    })
}
