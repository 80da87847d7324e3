//! The passphrase seal: argon2id opens the root epochs. For the development profile only.

use serde::{Deserialize, Serialize};
use vocabulary::{DeploymentId, KeyId, Profile, UnixTime};
use zeroize::Zeroizing;

use crate::limits::{ARGON2_LANES_MAX, ARGON2_MEMORY_MAX_KIB, ARGON2_PASSES_MAX, EPOCHS_MAX, PASSPHRASE_MAX, SEAL_FILE_MAX};
use crate::wrapped::{KeyContext, Owner, UnwrapError, WrappedKey, unwrap, wrap};
use crate::{PlainKey, Random};

/// How hard a guess is. The default is the second choice of RFC 9106: 64 MiB, 3 passes, 4 lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

/// Why a seal does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The passphrase is empty or longer than [`PASSPHRASE_MAX`] bytes.
    #[error("a passphrase has 1 to {PASSPHRASE_MAX} bytes")]
    Passphrase,
    /// Not the passphrase of this seal, or the file was changed.
    #[error("this passphrase does not open the seal")]
    Wrong,
    /// The file is no seal of this version.
    #[error("the seal file is damaged: {0}")]
    File(String),
    /// The file asks for more than we are willing to give.
    #[error("the seal file asks for more work than its limits allow")]
    Cost,
}

/// The seal's file: strict JSON, no secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealFile {
    format: u32,
    kind: String,
    deployment: DeploymentId,
    profile: Profile,
    cost: Argon2Cost,
    salt: String,
    epochs: Vec<WrappedEpoch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedEpoch {
    epoch: u32,
    created: UnixTime,
    wrapped: String,
}

/// An opened root epoch.
#[derive(Debug)]
pub struct RootEpoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// When it was made.
    pub created: UnixTime,
    /// The topmost key-encryption key of its period.
    pub key: PlainKey,
}

impl SealFile {
    /// Makes a seal with its first epoch.
    pub fn create(
        passphrase: &str,
        deployment: DeploymentId,
        profile: Profile,
        cost: Argon2Cost,
        now: UnixTime,
        random: &mut dyn Random,
    ) -> Result<(Self, RootEpoch), SealError> {
        let salt: [u8; 16] = random.array();
        let kek = stretch(passphrase, &salt, cost)?;
        let root = RootEpoch { epoch: 1, created: now, key: PlainKey::generate(random) };
        let mut file = Self {
            format: 1,
            kind: "passphrase".to_owned(),
            deployment,
            profile,
            cost,
            salt: hex(&salt),
            epochs: Vec::new(),
        };
        let wrapped = wrap(&kek, &file.context(root.epoch, root.created), &root.key, random);
        file.epochs.push(WrappedEpoch { epoch: root.epoch, created: now, wrapped: hex(wrapped.as_bytes()) });
        Ok((file, root))
    }

    /// Reads a seal file; refuses what it does not know and what would cost too much, before any work is done.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > SEAL_FILE_MAX {
            return Err(SealError::File(format!("longer than {SEAL_FILE_MAX} bytes")));
        }
        let file: Self = serde_json::from_slice(bytes).map_err(|error| SealError::File(error.to_string()))?;
        if file.format != 1 || file.kind != "passphrase" {
            return Err(SealError::File("unknown format or kind".to_owned()));
        }
        if file.epochs.is_empty() || file.epochs.len() > EPOCHS_MAX {
            return Err(SealError::File(format!("1 to {EPOCHS_MAX} epochs")));
        }
        let cost = file.cost;
        if cost.memory_kib > ARGON2_MEMORY_MAX_KIB || cost.passes > ARGON2_PASSES_MAX || cost.lanes > ARGON2_LANES_MAX {
            return Err(SealError::Cost);
        }
        Ok(file)
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The deployment that it belongs to.
    #[must_use]
    pub const fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    /// The deployment's profile, which the epochs are bound to.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens all epochs.
    pub fn open(&self, passphrase: &str) -> Result<Vec<RootEpoch>, SealError> {
        let salt = unhex(&self.salt).ok_or_else(|| SealError::File("salt is no hexadecimal".to_owned()))?;
        let kek = stretch(passphrase, &salt, self.cost)?;
        self.epochs
            .iter()
            .map(|epoch| {
                let bytes = unhex(&epoch.wrapped).ok_or_else(|| SealError::File("epoch is no hexadecimal".to_owned()))?;
                let wrapped = WrappedKey::parse(&bytes).map_err(|error| SealError::File(error.to_string()))?;
                match unwrap(&kek, &self.context(epoch.epoch, epoch.created), &wrapped) {
                    Ok(key) => Ok(RootEpoch { epoch: epoch.epoch, created: epoch.created, key }),
                    Err(UnwrapError::Commitment | UnwrapError::Tag) => Err(SealError::Wrong),
                    Err(other) => Err(SealError::File(other.to_string())),
                }
            })
            .collect()
    }

    fn context(&self, epoch: u32, created: UnixTime) -> KeyContext {
        KeyContext {
            tenant: vocabulary::SYSTEM_OWNER,
            purpose: "root-epoch".to_owned(),
            key: KeyId::from_bytes([0; 16]),
            version: epoch,
            kek: KeyId::from_bytes([0; 16]),
            kek_version: 0,
            owner: Owner { kind: format!("deployment/{}", self.profile.as_str()), id: *self.deployment.as_bytes() },
            created,
        }
    }
}

fn stretch(passphrase: &str, salt: &[u8], cost: Argon2Cost) -> Result<PlainKey, SealError> {
    if passphrase.is_empty() || passphrase.len() > PASSPHRASE_MAX {
        return Err(SealError::Passphrase);
    }
    let parameters = argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| SealError::Cost)?;
    let mut out = Zeroizing::new([0; 32]);
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters)
        .hash_password_into(passphrase.as_bytes(), salt, out.as_mut_slice())
        .map_err(|_| SealError::Cost)?;
    Ok(PlainKey::from_bytes(*out))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
