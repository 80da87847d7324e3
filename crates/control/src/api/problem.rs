//! How an error becomes an answer.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use vocabulary::{ErrorCode, Problem};

use crate::limits::AWAY_RETRY_S;
use crate::vault::VaultError;

/// An answer that is an error: the problem document and, where it applies, when to come back.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) problem: Box<Problem>,
    pub(crate) retry_after_s: Option<u64>,
}

impl Failure {
    /// A failure with a code and a sentence.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { problem: Box::new(Problem::new(code, detail)), retry_after_s: None }
    }
    /// Absent and foreign are one answer (decision 1.9).
    pub(crate) fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such thing here")
    }
    /// A malformed field.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail)
    }
    /// The database does not answer: nothing is known to be wrong with the request, and a little later it may be answered.
    pub(crate) fn away(detail: impl Into<String>) -> Self {
        let mut failure = Self::new(ErrorCode::Unavailable, detail);
        failure.retry_after_s = Some(AWAY_RETRY_S);
        failure
    }
    /// A defect of ours: the detail goes to the log, never to the client. A read that failed because the database is away is
    /// none, and says so.
    pub(crate) fn internal(what: impl std::fmt::Display + 'static) -> Self {
        if is_away(&what) {
            tracing::error!(error = %what, "the database is away");
            return Self::away("the database does not answer; try again");
        }
        tracing::error!(error = %what, "internal error");
        Self::new(ErrorCode::Internal, "the server met an error of its own")
    }
    /// With the entry that recorded it.
    pub(crate) fn recorded(mut self, audit_index: u64) -> Self {
        self.problem.audit_index = Some(audit_index);
        self
    }
}

/// Whether the cause is a read that the database did not answer.
fn is_away(what: &dyn std::any::Any) -> bool {
    let read = what.downcast_ref::<store::ReadError>();
    let vault = what.downcast_ref::<VaultError>().and_then(|error| if let VaultError::Read(read) = error { Some(read) } else { None });
    read.or(vault).is_some_and(store::ReadError::is_away)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // It is for who asked, now: some statuses may else be kept by whoever stands between (RFC 9111, 4.2.2).
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_says_when_to_come_back_and_a_defect_does_not() {
        let away = Failure::away("the database does not answer").into_response();
        assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(away.headers()[header::RETRY_AFTER], AWAY_RETRY_S.to_string());
        for defect in [Failure::internal("a defect"), Failure::internal(store::ReadError::Malformed("a row")), Failure::internal(VaultError::Behind)] {
            let defect = defect.into_response();
            assert_eq!(defect.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(!defect.headers().contains_key(header::RETRY_AFTER));
        }
    }
}
