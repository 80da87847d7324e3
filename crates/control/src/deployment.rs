//! The row of a deployment: its root and authorities with their keys, and what this process certifies and signs with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Class, IssuingAuthority, Pkcs8, ReceiptCertificate, RootAuthority, RootCertificate, StatementKey, StatementPublic, renew_at, verify_deployment_file};
use keys::PlainKey;
use keys::aead::Aes256Gcm;
use serde::{Deserialize, Serialize};
use store::{Kind, Page, Store};
use vocabulary::plan::{PLAN_CONTEXT, SignedPlan};
use vocabulary::{DeploymentId, KeyId, Profile, SYSTEM_OWNER, UnixTime};
use zeroize::Zeroizing;

use crate::bootstrap::{StartError, certificates, internal};
use crate::vault::Vault;

/// A secret of any length under a key of the hierarchy: the key seals this one message, so the nonce is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedSecret {
    pub(crate) key: KeyId,
    /// Ciphertext and tag, base64.
    sealed: String,
}

impl SealedSecret {
    pub(crate) fn seal(key: &PlainKey, id: KeyId, secret: &Pkcs8) -> Self {
        let mut data = Zeroizing::new(secret.reveal().to_vec());
        let tag = Aes256Gcm::new(key).seal([0; 12], id.as_bytes(), &mut data);
        let mut sealed = data.to_vec();
        sealed.extend_from_slice(&tag);
        Self { key: id, sealed: STANDARD.encode(sealed) }
    }

    async fn open(&self, store: &Store, vault: &Vault) -> Result<Pkcs8, StartError> {
        let key = open_key(store, vault, self.key).await?;
        let mut data = Zeroizing::new(STANDARD.decode(&self.sealed).map_err(internal)?);
        let plain = Aes256Gcm::new(&key).open([0; 12], self.key.as_bytes(), &mut data).map_err(internal)?;
        Ok(Pkcs8::from_bytes(plain))
    }
}

/// Opens one of the deployment's own keys.
pub(crate) async fn open_key(store: &Store, vault: &Vault, id: KeyId) -> Result<PlainKey, StartError> {
    let found = store.key(SYSTEM_OWNER, id, 1).await.map_err(internal)?;
    let found = found.ok_or(StartError::Mismatch("a key of the deployment is missing"))?;
    vault.open_under_root(&found.record).map_err(internal)
}

/// The receipt key that comes after the one in use: announced in the public file, so that who reads it knows the key before
/// anything is signed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextReceiptKey {
    pub(crate) key: KeyId,
    pub(crate) certificate: ReceiptCertificate,
    /// When it takes the place of the one before.
    pub(crate) from: UnixTime,
}

/// What a deployment is. The root never changes; what it signed is replaced by [`crate::renewal`] before it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeploymentRow {
    pub(crate) format: u32,
    pub(crate) deployment: DeploymentId,
    pub(crate) profile: Profile,
    pub(crate) root: String,
    pub(crate) root_key: SealedSecret,
    pub(crate) node_authority: String,
    pub(crate) node_authority_key: SealedSecret,
    pub(crate) control_authority: String,
    pub(crate) control_authority_key: SealedSecret,
    pub(crate) receipt_key: KeyId,
    pub(crate) receipt_certificate: ReceiptCertificate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt_next: Option<NextReceiptKey>,
    pub(crate) log_key: KeyId,
    pub(crate) pepper: KeyId,
    pub(crate) subjects: KeyId,
    pub(crate) file: String,
    pub(crate) created: UnixTime,
}

/// The stored row with its revision; none before the deployment is born.
pub(crate) async fn stored(store: &Store) -> Result<Option<(u64, DeploymentRow)>, StartError> {
    let found = store.list(SYSTEM_OWNER, Kind::SETTING, Page::first(1)).await.map_err(internal)?.items.into_iter().next();
    found.map(|stored| Ok((stored.revision, stored.parse().map_err(internal)?))).transpose()
}

impl DeploymentRow {
    /// The certificate of its root.
    pub(crate) fn root(&self) -> Result<RootCertificate, StartError> {
        RootCertificate::check(&STANDARD.decode(&self.root).map_err(internal)?).map_err(certificates)
    }

    /// The root with its private key, for as long as it signs something.
    pub(crate) async fn root_authority(&self, store: &Store, vault: &Vault) -> Result<RootAuthority, StartError> {
        RootAuthority::open(self.root()?, &self.root_key.open(store, vault).await?).map_err(certificates)
    }

    /// An issuing authority with its private key. Those of receipts sign one certificate each and are not kept.
    pub(crate) async fn authority(&self, store: &Store, vault: &Vault, class: Class) -> Result<IssuingAuthority, StartError> {
        let (certificate, key) = match class {
            Class::Node => (&self.node_authority, &self.node_authority_key),
            Class::Control => (&self.control_authority, &self.control_authority_key),
            Class::Receipt => return Err(internal("the authority of receipts is not kept")),
        };
        let der = STANDARD.decode(certificate).map_err(internal)?;
        IssuingAuthority::open(&self.root()?, &der, &key.open(store, vault).await?).map_err(certificates)
    }
}

/// What this process certifies and signs with, as the row of one revision says.
#[derive(Debug)]
pub(crate) struct Certifying {
    pub(crate) revision: u64,
    /// The deployment's public file.
    pub(crate) file: String,
    /// Issues and renews the certificates of nodes.
    pub(crate) node_authority: IssuingAuthority,
    /// Signs plans and receipts.
    pub(crate) receipt_key: StatementKey,
    /// Its certificate with the issuer.
    pub(crate) receipt_certificate: ReceiptCertificate,
    /// The receipt keys before it.
    earlier: Vec<StatementPublic>,
    /// When each thing ends, for those who watch.
    pub(crate) ends: Ends,
    /// When each is renewed.
    pub(crate) due: Due,
}

/// When certificates are renewed; for a receipt key that was announced, when it comes into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) node_authority: UnixTime,
    pub(crate) control_authority: UnixTime,
    pub(crate) receipt_key: UnixTime,
}

impl Due {
    /// The first of them.
    pub(crate) fn first(&self) -> UnixTime {
        self.node_authority.min(self.control_authority).min(self.receipt_key)
    }
}

/// The ends of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) root: UnixTime,
    pub(crate) node_authority: UnixTime,
    pub(crate) control_authority: UnixTime,
    pub(crate) receipt_key: UnixTime,
}

impl Certifying {
    pub(crate) async fn open(store: &Store, vault: &Vault, root: &RootCertificate, row: &DeploymentRow, revision: u64) -> Result<Self, StartError> {
        let node_authority = row.authority(store, vault, Class::Node).await?;
        let control_authority = row.authority(store, vault, Class::Control).await?;
        let seed = open_key(store, vault, row.receipt_key).await?;
        let receipt_key = StatementKey::open(seed.expose()).map_err(certificates)?;
        let public = receipt_key.public().map_err(certificates)?;
        let file = verify_deployment_file(row.file.as_bytes(), &root.pin()).map_err(certificates)?;
        let certified = file.receipt_keys().iter().find(|known| known.key == public);
        let certified = certified.ok_or(StartError::Mismatch("the deployment's public file does not know its receipt key"))?;
        // What ends with the root cannot be renewed beyond it.
        let unless_last = |ends: UnixTime, at: UnixTime| if ends.plus_millis(1000) < root.not_after() { at } else { UnixTime::from_millis(u64::MAX) };
        let due = Due {
            node_authority: unless_last(node_authority.not_after(), node_authority.replace_at()),
            control_authority: unless_last(control_authority.not_after(), control_authority.replace_at()),
            receipt_key: match &row.receipt_next {
                Some(next) => next.from,
                None => unless_last(certified.not_after, renew_at(certified.not_before, certified.not_after)),
            },
        };
        let ends = Ends {
            root: root.not_after(),
            node_authority: node_authority.not_after(),
            control_authority: control_authority.not_after(),
            receipt_key: certified.not_after,
        };
        let earlier = file.receipt_keys().iter().filter(|known| known.not_before < certified.not_before).map(|known| known.key).collect();
        let receipt_certificate = row.receipt_certificate.clone();
        Ok(Self { revision, file: row.file.clone(), node_authority, receipt_key, receipt_certificate, earlier, ends, due })
    }

    /// Whether a plan was signed with a receipt key before this one. One that comes after it was signed by a process that
    /// knows more than this one, and is left alone.
    pub(crate) fn signed_before(&self, plan: &SignedPlan) -> bool {
        let (Ok(payload), Ok(signature)) = (STANDARD.decode(&plan.payload), STANDARD.decode(&plan.signature)) else { return false };
        self.earlier.iter().any(|key| key.verify(PLAN_CONTEXT, &payload, &signature).is_ok())
    }
}
