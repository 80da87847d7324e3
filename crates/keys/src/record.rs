//! Keys as they are kept: a wrapped key, what it is bound to, and its state in the words of NIST SP 800-57 part 1, 7.

use serde::{Deserialize, Serialize};
use vocabulary::{KeyId, TenantId, UnixTime};

use crate::wrapped::{KeyContext, Owner, UnwrapError, WrappedKey, unwrap, wrap};
use crate::{PlainKey, Random};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }
        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The word, as it stands in formats.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
            /// Reads the word.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some(Self::$variant),)* _ => None } }
        }
    };
}

words! {
    /// What a key is for. It enters the key's context: a key for one purpose does not open as one for another.
    Purpose {
        /// Wraps a tenant's data keys.
        TenantKek = "tenant-kek",
        /// Seals a volume's segments.
        Volume = "volume",
        /// Seals one version of a secret.
        Secret = "secret",
        /// Seals the logs of a tenant's jobs.
        JobLog = "job-log",
        /// The root of what hides personal data in the audit log.
        AuditSubject = "audit-subject",
        /// Makes tokens' MACs.
        TokenPepper = "token-pepper",
        /// Seals people's TOTP secrets.
        FactorSecret = "factor-secret",
        /// The private key of the root CA.
        RootCa = "root-ca",
        /// The private key of an issuing CA.
        IssuingCa = "issuing-ca",
        /// The seed that signs the audit log's checkpoints.
        LogKey = "log-key",
        /// The seed that signs receipts and plans.
        ReceiptKey = "receipt-key",
    }
}

words! {
    /// The state of a key (NIST SP 800-57 part 1, section 7).
    KeyState {
        /// Made, not in use yet.
        PreActive = "pre-active",
        /// Seals and opens.
        Active = "active",
        /// Opens only.
        Deactivated = "deactivated",
        /// Known or feared to be known by others: opens only, for rescue.
        Compromised = "compromised",
        /// Waits for its destruction; nothing opens, the destruction can be cancelled.
        PendingDestroy = "pending-destroy",
        /// Gone: the wrapped bytes are erased.
        Destroyed = "destroyed",
    }
}

/// A step that the life of a key does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key that is {} cannot become {}", from.as_str(), to.as_str())]
pub struct IllegalStep {
    /// Where it stands.
    pub from: KeyState,
    /// Where it should go.
    pub to: KeyState,
}

impl KeyState {
    /// Whether new data may be sealed with it.
    #[must_use]
    pub const fn seals(self) -> bool {
        matches!(self, Self::Active)
    }
    /// Whether data may be opened with it.
    #[must_use]
    pub const fn opens(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated | Self::Compromised)
    }
    /// The step to another state, if a key's life has it.
    pub fn step(self, to: Self) -> Result<Self, IllegalStep> {
        let legal = match self {
            Self::PreActive => matches!(to, Self::Active | Self::Compromised | Self::PendingDestroy | Self::Destroyed),
            Self::Active => matches!(to, Self::Deactivated | Self::Compromised | Self::PendingDestroy),
            Self::Deactivated => matches!(to, Self::Compromised | Self::PendingDestroy),
            Self::Compromised => matches!(to, Self::PendingDestroy),
            // A cancelled destruction never seals again.
            Self::PendingDestroy => matches!(to, Self::Deactivated | Self::Destroyed),
            Self::Destroyed => false,
        };
        if legal { Ok(to) } else { Err(IllegalStep { from: self, to }) }
    }
}

/// A key as the store keeps it. `wrapped` is `None` once it is destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key.
    pub id: KeyId,
    /// Its version.
    pub version: u32,
    /// The tenant; zeroes for the deployment's own.
    pub tenant: TenantId,
    /// What it is for.
    pub purpose: Purpose,
    /// What it belongs to.
    pub owner: Owner,
    /// The key above it; zeroes for the root epoch.
    pub kek: KeyId,
    /// The version of the key above it, or the epoch.
    pub kek_version: u32,
    /// Its state.
    pub state: KeyState,
    /// When it was made.
    pub created: UnixTime,
    /// The wrapped key.
    pub wrapped: Option<WrappedKey>,
}

/// Why a recorded key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its state forbids it.
    #[error("the key is {}", .0.as_str())]
    State(KeyState),
    /// The bytes do not open.
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
}

/// The key above another: its id, version and bytes.
#[derive(Debug)]
pub struct Parent<'a> {
    /// Its id; zeroes for the root epoch.
    pub id: KeyId,
    /// Its version, or the epoch.
    pub version: u32,
    /// Its bytes.
    pub key: &'a PlainKey,
}

/// The id that stands for the root epoch in a wrapped key.
pub const ROOT_EPOCH: KeyId = KeyId::from_bytes([0; 16]);

impl KeyRecord {
    /// Draws a key and wraps it under its parent; it is active at once.
    #[expect(clippy::too_many_arguments, reason = "each is a mandatory part of the context; a struct would only repeat KeyRecord")]
    pub fn generate(
        id: KeyId,
        version: u32,
        tenant: TenantId,
        purpose: Purpose,
        owner: Owner,
        parent: &Parent<'_>,
        now: UnixTime,
        random: &mut dyn Random,
    ) -> (Self, PlainKey) {
        let plain = PlainKey::generate(random);
        let record = Self::adopt(id, version, tenant, purpose, owner, parent, now, &plain, random);
        (record, plain)
    }

    /// Wraps a secret of 32 bytes that exists already, such as the seed of a signing key.
    #[expect(clippy::too_many_arguments, reason = "each is a mandatory part of the context; a struct would only repeat KeyRecord")]
    pub fn adopt(
        id: KeyId,
        version: u32,
        tenant: TenantId,
        purpose: Purpose,
        owner: Owner,
        parent: &Parent<'_>,
        now: UnixTime,
        plain: &PlainKey,
        random: &mut dyn Random,
    ) -> Self {
        let mut record = Self {
            id,
            version,
            tenant,
            purpose,
            owner,
            kek: parent.id,
            kek_version: parent.version,
            state: KeyState::Active,
            created: now,
            wrapped: None,
        };
        record.wrapped = Some(wrap(parent.key, &record.context(), plain, random));
        record
    }

    /// What its wrapped bytes are bound to.
    #[must_use]
    pub fn context(&self) -> KeyContext {
        KeyContext {
            tenant: self.tenant,
            purpose: self.purpose.as_str().to_owned(),
            key: self.id,
            version: self.version,
            kek: self.kek,
            kek_version: self.kek_version,
            owner: self.owner.clone(),
            created: self.created,
        }
    }

    /// Opens it, if its state allows.
    pub fn open(&self, parent: &Parent<'_>) -> Result<PlainKey, OpenError> {
        let wrapped = match &self.wrapped {
            Some(wrapped) if self.state.opens() => wrapped,
            Some(_) | None => return Err(OpenError::State(self.state)),
        };
        if parent.id != self.kek || parent.version != self.kek_version {
            return Err(OpenError::Unwrap(UnwrapError::Kek));
        }
        Ok(unwrap(parent.key, &self.context(), wrapped)?)
    }

    /// The same key under a new parent: rotation of a KEK touches wrapped keys only, never data.
    ///
    /// Its state does not matter: a key that waits for its destruction moves with the others, or cancelling would come too late.
    pub fn rewrap(&self, from: &Parent<'_>, to: &Parent<'_>, random: &mut dyn Random) -> Result<Self, OpenError> {
        let Some(wrapped) = &self.wrapped else { return Err(OpenError::State(self.state)) };
        if from.id != self.kek || from.version != self.kek_version {
            return Err(OpenError::Unwrap(UnwrapError::Kek));
        }
        let plain = unwrap(from.key, &self.context(), wrapped)?;
        let mut record = Self { kek: to.id, kek_version: to.version, ..self.clone() };
        record.wrapped = Some(wrap(to.key, &record.context(), &plain, random));
        Ok(record)
    }
}
