//! Errors as the API tells them: RFC 9457 problem details, one stable code each.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $status:literal, $exit:literal, $hint:literal;)*) => {
        /// Every error code of the API. `swarm explain CODE` prints the meaning; the exit code of the command line is fixed per code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }
        impl ErrorCode {
            /// All codes, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The code as it stands in answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)* } }
            /// The HTTP status that it travels with.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }
            /// The exit code of `swarm` (0 ok, 1 failure, 2 usage, 3 not found, 4 credential or role, 5 conflict,
            /// 6 verification failed, 7 refused by a data, placement or release guardrail, 8 timeout).
            #[must_use]
            pub const fn exit_code(self) -> u8 { match self { $(Self::$name => $exit,)* } }
            /// What to do about it.
            #[must_use]
            pub const fn hint(self) -> &'static str { match self { $(Self::$name => $hint,)* } }
        }
    };
}

codes! {
    /// The body, a field or a parameter is malformed.
    InvalidRequest, "invalid_request", 400, 2, "correct the field that the message names";
    /// A body or list is larger than its limit.
    TooLarge, "too_large", 413, 2, "send less: the message names the limit";
    /// The request took too long to arrive.
    RequestTimeout, "request_timeout", 408, 8, "send the request again, faster";
    /// The method is not for this route.
    MethodNotAllowed, "method_not_allowed", 405, 2, "see /v1/openapi.json for what this route takes";
    /// The body is not JSON.
    UnsupportedMediaType, "unsupported_media_type", 415, 2, "send Content-Type: application/json";
    /// No credential, or one that is unknown, expired or revoked.
    Unauthenticated, "unauthenticated", 401, 4, "log in again: swarm login";
    /// Two credentials on one request.
    TwoCredentials, "two_credentials", 400, 4, "send exactly one credential";
    /// Name, password or code is wrong. Which one is not said.
    LoginRefused, "login_refused", 401, 4, "check name, password and the newest code; a code works once";
    /// Too many tries: wait.
    TryLater, "try_later", 429, 4, "wait as long as Retry-After says";
    /// The principal's roles do not allow the action.
    Forbidden, "forbidden", 403, 4, "ask an administrator of the tenant for a role that allows this action";
    /// The action wants a fresh factor bound to this request.
    StepUpRequired, "step_up_required", 403, 4, "confirm the request with a fresh code";
    /// The action wants a passkey, which this version cannot check.
    PasskeyRequired, "passkey_required", 403, 4, "passkeys are not built yet: this action is refused in the production profile";
    /// The action wants a second person's approval.
    SecondPersonRequired, "second_person_required", 403, 4, "ask a second administrator to approve";
    /// A step-up is unknown, spent, expired or for another request.
    StepUpRefused, "step_up_refused", 403, 4, "start again: a confirmation is for one request and five minutes";
    /// A ticket or join token is unknown, spent or expired.
    TicketRefused, "ticket_refused", 401, 4, "ask for a new ticket: each works once and for a short time";
    /// Absent, or not yours: the answer does not say which.
    NotFound, "not_found", 404, 3, "check the id and the tenant you are logged in to";
    /// The revision changed meanwhile.
    Conflict, "conflict", 409, 5, "read it again and repeat the change";
    /// The name is taken.
    NameTaken, "name_taken", 409, 5, "choose another name";
    /// The idempotency key was used for another request.
    IdempotencyMismatch, "idempotency_mismatch", 409, 5, "use a new idempotency key for a new request";
    /// The resource is in a state that does not allow this.
    WrongState, "wrong_state", 409, 5, "the message names the state and what it allows";
    /// The root does not extend the current one.
    RootConflict, "root_conflict", 409, 5, "somebody else wrote meanwhile: put again on the newest version";
    /// Bytes do not match their digest, signature or tag.
    VerificationFailed, "verification_failed", 422, 6, "the message names the object and the kind of damage";
    /// Data may not be opened there, by that one, or for that purpose.
    ReleaseRefused, "release_refused", 403, 7, "the message names the reason; where an audit index is given, swarm policy explain INDEX tells more";
    /// The job fits on no node.
    NoPlacement, "no_placement", 409, 7, "the message names the constraint that failed on each node";
    /// A quota of the tenant or project would be exceeded.
    QuotaExceeded, "quota_exceeded", 403, 7, "wait until something ends, or ask whoever set the limit for more: swarm quota show";
    /// What is asked for is not built yet.
    NotBuilt, "not_built", 501, 7, "this version refuses it by name; see the README for what is there";
    /// The server's root key is closed.
    Sealed, "sealed", 503, 1, "open the seal: swarm seal open";
    /// The production profile refuses to start without a seal that it allows.
    SealRequired, "seal_required", 503, 1, "use the development profile, or a seal that production allows";
    /// The disk is full or failing.
    StorageFailed, "storage_failed", 507, 1, "free space or repair the disk; nothing acknowledged was lost";
    /// Not ready, or too busy.
    Unavailable, "unavailable", 503, 8, "try again in a moment";
    /// A defect of ours.
    Internal, "internal", 500, 1, "report it with the audit index or the request id";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a step-up asks for, inside a [`Problem`] with [`ErrorCode::StepUpRequired`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepUpChallenge {
    /// Names the pending confirmation; sent back in the header `swarm-step-up` once it is confirmed.
    pub id: crate::StepUpId,
    /// What will happen, in the server's words.
    pub summary: String,
    /// When it lapses, ms since 1970.
    pub expires: crate::UnixTime,
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable URI of the problem's type: `urn:swarm:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code, for programs.
    pub code: ErrorCode,
    /// The HTTP status.
    pub status: u16,
    /// One sentence for people: which field, which rule.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// The refusal's entry in the audit log; told to principals only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_index: Option<u64>,
    /// The rules that refused; told to administrators only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// The confirmation that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_up: Option<StepUpChallenge>,
}

impl Problem {
    /// A problem with a code and a sentence.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:swarm:problem:{code}"),
            code,
            status: code.status(),
            detail: detail.into(),
            hint: code.hint().to_owned(),
            audit_index: None,
            rules: Vec::new(),
            step_up: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_text_everywhere() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert!(!code.hint().is_empty());
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }
}
