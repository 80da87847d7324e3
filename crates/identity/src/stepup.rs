//! Step-up: a fresh factor for one request, not for a window of time.
//!
//! A dangerous request without proof leaves a pending row behind, bound to the hash of the request. The person confirms
//! the row with a fresh factor; the repeated request is hashed again and spends it. Ended by the server's clock, once.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use vocabulary::{PersonId, PrincipalId, Profile, Sha256Digest, StepUpId, TenantId, TokenId, UnixTime};

use crate::canonical::{CanonicalError, canonical_json};
use crate::limits::{STEP_UP_LIFE_MS, STEP_UP_REQUEST_MAX, STEP_UP_TRIES};
use crate::totp::{CodeRefusal, TotpSecret};

/// The format of what is hashed.
const REQUEST_FORMAT: &str = "swarm/request/v1";

/// A request as it will be executed, for hashing. Hash what you execute: the body is the parsed one, not the bytes.
#[derive(Debug, Clone, Copy)]
pub struct CanonicalRequest<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The route's template, such as `/v1/volumes/{volume}`.
    pub route: &'a str,
    /// The ids of the path, by their names in the template.
    pub path: &'a [(&'a str, &'a str)],
    /// The `If-Match` header.
    pub if_match: Option<&'a str>,
    /// The body.
    pub body: Option<&'a Value>,
    /// The credential's tenant.
    pub tenant: Option<TenantId>,
    /// The credential's principal.
    pub principal: PrincipalId,
}

/// A request cannot be bound to a step-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestHashError {
    /// The body has no canonical form.
    #[error("the request's body has no canonical form")]
    NotCanonical,
    /// Longer than [`STEP_UP_REQUEST_MAX`].
    #[error("the request has more than {STEP_UP_REQUEST_MAX} bytes")]
    TooLarge,
}

impl From<CanonicalError> for RequestHashError {
    fn from(_: CanonicalError) -> Self {
        Self::NotCanonical
    }
}

impl CanonicalRequest<'_> {
    /// SHA-256 of the canonical JSON of everything that the request says.
    pub fn hash(&self) -> Result<Sha256Digest, RequestHashError> {
        let path: Vec<Value> = self.path.iter().map(|(name, id)| json!([name, id])).collect();
        // `null` and an absent body differ, so the body stands in a list of none or one.
        let body: Vec<&Value> = self.body.into_iter().collect();
        let all =
            json!([REQUEST_FORMAT, self.method, self.route, path, self.if_match, body, self.tenant, self.principal]);
        let text = canonical_json(&all)?;
        if text.len() > STEP_UP_REQUEST_MAX {
            return Err(RequestHashError::TooLarge);
        }
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest(&SHA256, &text).as_ref()) {
            *to = *from;
        }
        Ok(Sha256Digest::from_bytes(bytes))
    }
}

/// What confirms a step-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofKind {
    /// A fresh TOTP code; counts in the development profile only.
    Totp,
    /// A passkey with user verification. Not built yet.
    Passkey,
}

impl ProofKind {
    /// What the profile asks for.
    #[must_use]
    pub const fn required(profile: Profile) -> Self {
        match profile {
            Profile::Development => Self::Totp,
            Profile::Production => Self::Passkey,
        }
    }
    /// The word for rows and entries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
        }
    }
}

/// A step-up is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepUpRefusal {
    /// The profile asks for a passkey, which this version cannot check: refused by name, never waved through.
    #[error("passkey_required: this profile asks for a passkey, which is not built yet")]
    PasskeyRequired,
    /// Its time is over, or the clock went back behind its beginning.
    #[error("the confirmation has expired")]
    Expired,
    /// It is spent, or void after too many wrong codes.
    #[error("the confirmation is spent")]
    Spent,
    /// It was not confirmed yet.
    #[error("the request is not confirmed yet")]
    NotConfirmed,
    /// It belongs to another person, principal, tenant or login.
    #[error("the confirmation belongs to another login")]
    OtherLogin,
    /// It was made for another request.
    #[error("the confirmation is for another request")]
    OtherRequest,
    /// The code does not fit.
    #[error("`code`: {0}")]
    Code(#[from] CodeRefusal),
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepUpLogin {
    /// The credential's tenant.
    pub tenant: Option<TenantId>,
    /// The credential's principal.
    pub principal: PrincipalId,
    /// The principal's person.
    pub person: PersonId,
    /// The login's token.
    pub login: TokenId,
}

/// A pending step-up, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingStepUp {
    /// Its id.
    pub id: StepUpId,
    /// Who asked.
    pub by: StepUpLogin,
    /// The action.
    pub action: String,
    /// The ids of all resources: one, or those of a declared batch.
    pub resources: Vec<String>,
    /// The hash of the request.
    pub request: Sha256Digest,
    /// What will happen, in the server's words.
    pub summary: String,
    /// When it was made.
    pub created: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
    /// What must confirm it.
    pub requires: ProofKind,
    /// When it was confirmed.
    pub confirmed: Option<UnixTime>,
    /// Wrong codes that are still forgiven.
    pub tries_left: u8,
    /// 1 until it is spent.
    pub uses_left: u8,
}

/// A proof that this request, and no other, was confirmed just now.
#[derive(Debug)]
#[must_use]
pub struct StepUpProof {
    /// What confirmed it.
    pub kind: ProofKind,
    /// The class of authentication that policies compare: 1 for TOTP, 2 for a passkey.
    pub acr: u8,
    /// When the factor was shown.
    pub factor_time: UnixTime,
    /// No other module can make one.
    _proof: Proof,
}

#[derive(Debug)]
struct Proof;

impl PendingStepUp {
    /// Makes a pending step-up for a request.
    #[must_use]
    pub fn begin(
        id: StepUpId,
        by: StepUpLogin,
        act: &SummarisedAct<'_>,
        request: Sha256Digest,
        profile: Profile,
        now: UnixTime,
    ) -> Self {
        Self {
            id,
            by,
            action: act.action.to_owned(),
            resources: act.resources.iter().map(|(id, _)| (*id).to_owned()).collect(),
            request,
            summary: act.summary(),
            created: now,
            expires: now.plus_millis(STEP_UP_LIFE_MS),
            requires: ProofKind::required(profile),
            confirmed: None,
            tries_left: STEP_UP_TRIES,
            uses_left: 1,
        }
    }

    /// Confirms it with a TOTP code. Returns the step to store (on condition that the stored one is smaller) and the row.
    ///
    /// The person's delay is the caller's to ask first, and a wrong code counts there: tries are counted over all paths.
    pub fn confirm(
        &self,
        by: &StepUpLogin,
        secret: &TotpSecret,
        last_step: Option<u64>,
        code: &str,
        now: UnixTime,
    ) -> Result<(u64, Self), StepUpRefusal> {
        self.usable(by, now)?;
        match self.requires {
            ProofKind::Totp => {}
            ProofKind::Passkey => return Err(StepUpRefusal::PasskeyRequired),
        }
        let step = secret.check(code, last_step, now)?;
        Ok((step, Self { confirmed: Some(now), ..self.clone() }))
    }

    /// The row after a wrong code.
    #[must_use]
    pub fn after_wrong_code(&self) -> Self {
        let tries_left = self.tries_left.saturating_sub(1);
        Self { tries_left, uses_left: if tries_left == 0 { 0 } else { self.uses_left }, ..self.clone() }
    }

    /// Spends it for the repeated request. The store does the same in one UPDATE whose WHERE names every condition here;
    /// the proof counts only when that UPDATE changed one row.
    pub fn spend(
        &self,
        by: &StepUpLogin,
        request: &Sha256Digest,
        now: UnixTime,
    ) -> Result<(StepUpProof, Self), StepUpRefusal> {
        self.usable(by, now)?;
        if self.request != *request {
            return Err(StepUpRefusal::OtherRequest);
        }
        let factor_time = self.confirmed.ok_or(StepUpRefusal::NotConfirmed)?;
        let acr = match self.requires {
            ProofKind::Totp => 1,
            // Nothing can have confirmed it.
            ProofKind::Passkey => return Err(StepUpRefusal::PasskeyRequired),
        };
        let proof = StepUpProof { kind: self.requires, acr, factor_time, _proof: Proof };
        Ok((proof, Self { uses_left: 0, ..self.clone() }))
    }

    fn usable(&self, by: &StepUpLogin, now: UnixTime) -> Result<(), StepUpRefusal> {
        if self.by != *by {
            return Err(StepUpRefusal::OtherLogin);
        }
        if now < self.created || now >= self.expires {
            return Err(StepUpRefusal::Expired);
        }
        if self.uses_left != 1 || self.tries_left == 0 {
            return Err(StepUpRefusal::Spent);
        }
        Ok(())
    }
}

/// What a request does, for people.
#[derive(Debug, Clone, Copy)]
pub struct SummarisedAct<'a> {
    /// The action's name, such as `volumeDelete`.
    pub action: &'a str,
    /// What it does, in words: `delete the volume`.
    pub words: &'a str,
    /// Ids and names of what it does it to.
    pub resources: &'a [(&'a str, &'a str)],
}

impl SummarisedAct<'_> {
    /// One sentence in the server's words; names are names of ours, so nothing hostile can stand in them.
    #[must_use]
    pub fn summary(&self) -> String {
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(160).collect::<String>();
        let named: Vec<String> =
            self.resources.iter().take(5).map(|(id, name)| format!("`{}` ({})", clean(name), clean(id))).collect();
        let more = self.resources.len().saturating_sub(named.len());
        let tail = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{} {}{tail}", clean(self.words), named.join(", ")).trim_end().to_owned()
    }
}
