//! The seal: what opens the root epochs. A passphrase (argon2id; for the development profile only), or shares of several people.

use serde::{Deserialize, Serialize};
use vocabulary::{DeploymentId, KeyId, Profile, UnixTime};
use zeroize::Zeroizing;

use crate::limits::{ARGON2_LANES_MAX, ARGON2_MEMORY_MAX_KIB, ARGON2_PASSES_MAX, EPOCHS_MAX, PASSPHRASE_MAX, SEAL_FILE_MAX};
use crate::share::{SealId, Share, fits};
use crate::wrapped::{KeyContext, Owner, UnwrapError, WrappedKey, unwrap, wrap};
use crate::{PlainKey, Random, shamir};

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
    /// Every share is of this seal, and together they do not open it.
    #[error("the shares are this seal's and do not open it: the seal file was changed; restore it from a backup")]
    Changed,
    /// The file is no seal of this version.
    #[error("the seal file is damaged: {0}")]
    File(String),
    /// The file asks for more than we are willing to give.
    #[error("the seal file asks for more work than its limits allow")]
    Cost,
    /// The seal is of the other kind.
    #[error("this seal opens with {}", .0.as_str())]
    Kind(SealKind),
    /// So many of so many shares cannot be.
    #[error("`threshold` {threshold} of `shares` {shares}: at least 2, at most all of them, and at most 32 shares")]
    Numbers {
        /// How many open.
        threshold: u8,
        /// How many there are.
        shares: u8,
    },
    /// The file has as many epochs as one can have.
    #[error("a seal holds at most {EPOCHS_MAX} root epochs: destroy old ones first")]
    Epochs,
}

/// What opens a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealKind {
    /// One passphrase.
    Passphrase,
    /// Some of several shares.
    Shares,
}

impl SealKind {
    /// The word, as it stands in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Shares => "shares",
        }
    }
}

/// Why a share is none of this seal. Each says which share and why, and none its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareRefusal {
    /// The seal opens with a passphrase.
    #[error("this seal opens with a passphrase, not with shares")]
    NoShares,
    /// Another deployment's.
    #[error("share {0} is foreign: it is of another deployment")]
    Foreign(u8),
    /// Of an older or newer set of shares.
    #[error("share {place} is of generation {generation} of the seal, and the seal has generation {current}")]
    Generation {
        /// Which.
        place: u8,
        /// Its own.
        generation: u32,
        /// The seal's.
        current: u32,
    },
    /// Of another set of the same generation, such as one that was made and never put in force.
    #[error("share {0} is of another set of shares, which was never put in force")]
    Set(u8),
    /// Made up or changed: its value is not what was given out.
    #[error("share {0} is not the one that was given out")]
    Value(u8),
}

/// How a seal is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lock {
    Passphrase { cost: Argon2Cost, salt: String },
    Shares { seal: SealId, generation: u32, threshold: u8, checks: Vec<[u8; 32]> },
}

/// The seal's file: strict JSON, no secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealFile {
    deployment: DeploymentId,
    profile: Profile,
    lock: Lock,
    epochs: Vec<WrappedEpoch>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    format: u32,
    kind: String,
}

/// Format 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PassphraseFile {
    format: u32,
    kind: String,
    deployment: DeploymentId,
    profile: Profile,
    cost: Argon2Cost,
    salt: String,
    epochs: Vec<WrappedEpoch>,
}

/// Format 2.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharesFile {
    format: u32,
    kind: String,
    deployment: DeploymentId,
    profile: Profile,
    seal: String,
    generation: u32,
    threshold: u8,
    /// The digests of the shares, in the order of their places.
    shares: Vec<String>,
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

impl RootEpoch {
    fn duplicate(&self) -> Self {
        Self { epoch: self.epoch, created: self.created, key: self.key.duplicate() }
    }
}

/// An opened seal: its file, the key above the epochs, and the epochs.
#[derive(Debug)]
pub struct Opened {
    file: SealFile,
    kek: PlainKey,
    epochs: Vec<RootEpoch>,
}

impl SealFile {
    /// Makes a passphrase seal with its first epoch.
    pub fn create(
        passphrase: &str,
        deployment: DeploymentId,
        profile: Profile,
        cost: Argon2Cost,
        now: UnixTime,
        random: &mut dyn Random,
    ) -> Result<Opened, SealError> {
        let salt: [u8; 16] = random.array();
        let kek = stretch(passphrase, &salt, cost)?;
        let root = RootEpoch { epoch: 1, created: now, key: PlainKey::generate(random) };
        let file = Self { deployment, profile, lock: Lock::Passphrase { cost, salt: hex(&salt) }, epochs: Vec::new() };
        Ok(Opened { file, kek, epochs: vec![root] }.wrapped_anew(random))
    }

    /// Reads a seal file; refuses what it does not know and what would cost too much, before any work is done.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > SEAL_FILE_MAX {
            return Err(SealError::File(format!("longer than {SEAL_FILE_MAX} bytes")));
        }
        let damaged = |error: serde_json::Error| SealError::File(error.to_string());
        let kind: Kind = serde_json::from_slice(bytes).map_err(damaged)?;
        let file = match (kind.format, kind.kind.as_str()) {
            (1, "passphrase") => Self::from(serde_json::from_slice::<PassphraseFile>(bytes).map_err(damaged)?),
            (2, "shares") => Self::try_from(serde_json::from_slice::<SharesFile>(bytes).map_err(damaged)?)?,
            _ => return Err(SealError::File("unknown format or kind".to_owned())),
        };
        if file.epochs.is_empty() || file.epochs.len() > EPOCHS_MAX {
            return Err(SealError::File(format!("1 to {EPOCHS_MAX} epochs")));
        }
        if !file.epochs.is_sorted_by(|one, next| one.epoch < next.epoch) {
            return Err(SealError::File("its epochs do not ascend".to_owned()));
        }
        if let Lock::Passphrase { cost, .. } = &file.lock
            && (cost.memory_kib > ARGON2_MEMORY_MAX_KIB || cost.passes > ARGON2_PASSES_MAX || cost.lanes > ARGON2_LANES_MAX)
        {
            return Err(SealError::Cost);
        }
        Ok(file)
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (deployment, profile, epochs) = (self.deployment, self.profile, self.epochs.clone());
        let bytes = match &self.lock {
            Lock::Passphrase { cost, salt } => serde_json::to_vec_pretty(&PassphraseFile {
                format: 1,
                kind: SealKind::Passphrase.as_str().to_owned(),
                deployment,
                profile,
                cost: *cost,
                salt: salt.clone(),
                epochs,
            }),
            Lock::Shares { seal, generation, threshold, checks } => serde_json::to_vec_pretty(&SharesFile {
                format: 2,
                kind: SealKind::Shares.as_str().to_owned(),
                deployment,
                profile,
                seal: hex(seal),
                generation: *generation,
                threshold: *threshold,
                shares: checks.iter().map(|check| hex(check)).collect(),
                epochs,
            }),
        };
        // Writing plain data to memory does not fail; an empty file would open nothing.
        bytes.unwrap_or_default()
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

    /// What opens it.
    #[must_use]
    pub const fn kind(&self) -> SealKind {
        match self.lock {
            Lock::Passphrase { .. } => SealKind::Passphrase,
            Lock::Shares { .. } => SealKind::Shares,
        }
    }

    /// How many shares open it; `None` for a passphrase.
    #[must_use]
    pub const fn threshold(&self) -> Option<u8> {
        match self.lock {
            Lock::Passphrase { .. } => None,
            Lock::Shares { threshold, .. } => Some(threshold),
        }
    }

    /// How many shares there are; `None` for a passphrase.
    #[must_use]
    pub fn shares(&self) -> Option<u8> {
        match &self.lock {
            Lock::Passphrase { .. } => None,
            Lock::Shares { checks, .. } => u8::try_from(checks.len()).ok(),
        }
    }

    /// Counts the seals of the deployment: the passphrase that it was born with is 1.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        match self.lock {
            Lock::Passphrase { .. } => 1,
            Lock::Shares { generation, .. } => generation,
        }
    }

    /// Its epochs: number, and when each was made.
    pub fn epochs(&self) -> impl Iterator<Item = (u32, UnixTime)> {
        self.epochs.iter().map(|epoch| (epoch.epoch, epoch.created))
    }

    /// Opens all epochs with the passphrase.
    pub fn open(&self, passphrase: &str) -> Result<Opened, SealError> {
        let Lock::Passphrase { cost, salt } = &self.lock else { return Err(SealError::Kind(self.kind())) };
        let salt = unhex(salt).ok_or_else(|| SealError::File("salt is no hexadecimal".to_owned()))?;
        self.open_under(stretch(passphrase, &salt, *cost)?, SealError::Wrong)
    }

    /// Says whether a share is one of this seal, before anything is opened with it.
    pub fn check(&self, share: &Share) -> Result<(), ShareRefusal> {
        let Lock::Shares { seal, generation, threshold, checks } = &self.lock else { return Err(ShareRefusal::NoShares) };
        if share.deployment != self.deployment {
            return Err(ShareRefusal::Foreign(share.place));
        }
        if share.generation != *generation {
            return Err(ShareRefusal::Generation { place: share.place, generation: share.generation, current: *generation });
        }
        if share.seal != *seal {
            return Err(ShareRefusal::Set(share.place));
        }
        let known = usize::from(share.place).checked_sub(1).and_then(|place| checks.get(place));
        let same = known.is_some_and(|check| crate::derive::constant_time_eq(check, &share.check()));
        if same && share.threshold == *threshold && Some(share.shares) == self.shares() { Ok(()) } else { Err(ShareRefusal::Value(share.place)) }
    }

    /// Opens all epochs with shares that [`SealFile::check`] found good.
    pub fn open_with(&self, shares: &[Share]) -> Result<Opened, SealError> {
        let Lock::Shares { threshold, .. } = &self.lock else { return Err(SealError::Kind(self.kind())) };
        let points: Vec<(u8, &[u8; 32])> = shares.iter().map(|share| (share.place, &*share.value)).collect();
        if points.len() < usize::from(*threshold) {
            return Err(SealError::Changed);
        }
        let secret = shamir::combine(&points).ok_or(SealError::Changed)?;
        self.open_under(PlainKey::from_bytes(*secret), SealError::Changed)
    }

    fn open_under(&self, kek: PlainKey, wrong: SealError) -> Result<Opened, SealError> {
        let mut epochs = Vec::new();
        for epoch in &self.epochs {
            let bytes = unhex(&epoch.wrapped).ok_or_else(|| SealError::File("epoch is no hexadecimal".to_owned()))?;
            let wrapped = WrappedKey::parse(&bytes).map_err(|error| SealError::File(error.to_string()))?;
            match unwrap(&kek, &self.context(epoch.epoch, epoch.created), &wrapped) {
                Ok(key) => epochs.push(RootEpoch { epoch: epoch.epoch, created: epoch.created, key }),
                Err(UnwrapError::Commitment | UnwrapError::Tag) => return Err(wrong),
                Err(other) => return Err(SealError::File(other.to_string())),
            }
        }
        Ok(Opened { file: self.clone(), kek, epochs })
    }

    /// What an epoch's wrap is bound to. The key above it is the seal: zeroes and 0 for a passphrase, id and generation for shares.
    fn context(&self, epoch: u32, created: UnixTime) -> KeyContext {
        let (kek, kek_version) = match &self.lock {
            Lock::Passphrase { .. } => ([0; 16], 0),
            Lock::Shares { seal, generation, .. } => (*seal, *generation),
        };
        KeyContext {
            tenant: vocabulary::SYSTEM_OWNER,
            purpose: "root-epoch".to_owned(),
            key: KeyId::from_bytes([0; 16]),
            version: epoch,
            kek: KeyId::from_bytes(kek),
            kek_version,
            owner: Owner { kind: format!("deployment/{}", self.profile.as_str()), id: *self.deployment.as_bytes() },
            created,
        }
    }
}

impl Opened {
    /// The seal's file.
    #[must_use]
    pub const fn file(&self) -> &SealFile {
        &self.file
    }

    /// The opened epochs, oldest first; never none.
    #[must_use]
    pub fn epochs(&self) -> &[RootEpoch] {
        &self.epochs
    }

    /// The newest epoch's number.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.epochs.last().map_or(0, |epoch| epoch.epoch)
    }

    /// The same epochs under a new set of shares of the next generation. The shares are given here and nowhere else.
    pub fn under_shares(&self, threshold: u8, shares: u8, random: &mut dyn Random) -> Result<(Self, Vec<Share>), SealError> {
        if !fits(threshold, shares) {
            return Err(SealError::Numbers { threshold, shares });
        }
        let (seal, generation) = (random.array(), self.file.generation().saturating_add(1));
        let kek = PlainKey::generate(random);
        let deployment = self.file.deployment;
        let given: Vec<Share> = (1..=shares)
            .zip(shamir::split(kek.expose(), threshold, shares, random))
            .map(|(place, value)| Share { deployment, seal, generation, threshold, shares, place, value })
            .collect();
        let lock = Lock::Shares { seal, generation, threshold, checks: given.iter().map(Share::check).collect() };
        let file = SealFile { lock, ..self.file.clone() };
        let epochs = self.epochs.iter().map(RootEpoch::duplicate).collect();
        Ok((Self { file, kek, epochs }.wrapped_anew(random), given))
    }

    /// The same seal with one more epoch, made now.
    pub fn with_next_epoch(&self, now: UnixTime, random: &mut dyn Random) -> Result<Self, SealError> {
        if self.epochs.len() >= EPOCHS_MAX {
            return Err(SealError::Epochs);
        }
        let mut epochs: Vec<RootEpoch> = self.epochs.iter().map(RootEpoch::duplicate).collect();
        epochs.push(RootEpoch { epoch: self.newest().saturating_add(1), created: now, key: PlainKey::generate(random) });
        Ok(Self { file: self.file.clone(), kek: self.kek.duplicate(), epochs }.wrapped_anew(random))
    }

    /// The same seal without an epoch, whose key is gone with it; `None` for the newest one, and for one that it does not have.
    #[must_use]
    pub fn without_epoch(&self, number: u32) -> Option<Self> {
        if number == self.newest() || !self.epochs.iter().any(|epoch| epoch.epoch == number) {
            return None;
        }
        let mut file = self.file.clone();
        file.epochs.retain(|epoch| epoch.epoch != number);
        let epochs = self.epochs.iter().filter(|epoch| epoch.epoch != number).map(RootEpoch::duplicate).collect();
        Some(Self { file, kek: self.kek.duplicate(), epochs })
    }

    /// Opens a file of the same seal, which another process wrote.
    pub fn follow(&self, file: &SealFile) -> Result<Self, SealError> {
        file.open_under(self.kek.duplicate(), SealError::Wrong)
    }

    /// With every epoch wrapped under its key. Each wrap draws its own salt, so that doing it again weakens nothing.
    fn wrapped_anew(mut self, random: &mut dyn Random) -> Self {
        self.file.epochs = self
            .epochs
            .iter()
            .map(|root| {
                let wrapped = wrap(&self.kek, &self.file.context(root.epoch, root.created), &root.key, random);
                WrappedEpoch { epoch: root.epoch, created: root.created, wrapped: hex(wrapped.as_bytes()) }
            })
            .collect();
        self
    }
}

impl From<PassphraseFile> for SealFile {
    fn from(file: PassphraseFile) -> Self {
        let lock = Lock::Passphrase { cost: file.cost, salt: file.salt };
        Self { deployment: file.deployment, profile: file.profile, lock, epochs: file.epochs }
    }
}

impl TryFrom<SharesFile> for SealFile {
    type Error = SealError;
    fn try_from(file: SharesFile) -> Result<Self, SealError> {
        let bad = |what: &str| SealError::File(what.to_owned());
        let bytes = |text: &str| unhex(text);
        let seal = bytes(&file.seal).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| bad("`seal` is not 32 hexadecimal digits"))?;
        let mut checks = Vec::new();
        for text in &file.shares {
            let check = bytes(text).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| bad("a digest in `shares` is not 64 hexadecimal digits"))?;
            checks.push(check);
        }
        if !u8::try_from(checks.len()).is_ok_and(|shares| fits(file.threshold, shares)) {
            return Err(bad("`threshold` and the number of `shares` contradict each other"));
        }
        let lock = Lock::Shares { seal, generation: file.generation, threshold: file.threshold, checks };
        Ok(Self { deployment: file.deployment, profile: file.profile, lock, epochs: file.epochs })
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
