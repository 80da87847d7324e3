//! How an error becomes an answer.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use vocabulary::{ErrorCode, Problem};

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
    /// A defect of ours: the detail goes to the log, never to the client.
    pub(crate) fn internal(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "internal error");
        Self::new(ErrorCode::Internal, "the server met an error of its own")
    }
    /// With the entry that recorded it.
    pub(crate) fn recorded(mut self, audit_index: u64) -> Self {
        self.problem.audit_index = Some(audit_index);
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
