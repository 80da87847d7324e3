//! The whole server in one process on port 0, called over TLS as strangers and owners call it.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods, reason = "support code of tests is not a test function")]

mod canary;
mod crowds;
mod doors;
mod erasure;
mod examples;
mod hostile;
mod metrics;
mod people;
mod routes;
mod schemathesis;
mod starting;
mod support;
mod told;
