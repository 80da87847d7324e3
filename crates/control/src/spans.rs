//! Spans of what the control plane does: of each request, its operation, its commits, and of placing a job.

use std::sync::Arc;
use std::time::Duration;

use audit::EncodedEntry;
use http::StatusCode;
use store::{Fate, Observer};
use telemetry::{Context, Kind, Name, Open, Tracer, Value};

/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// Begins the span of a request. The header is a stranger's: one that is malformed, or stands there twice, is as none.
pub(crate) fn request(tracer: &Tracer, method: &'static str, route: &'static str, headers: &http::HeaderMap) -> Option<Open> {
    if !tracer.is_on() {
        return None;
    }
    let mut given = headers.get_all(TRACEPARENT).iter();
    let remote = match (given.next(), given.next()) {
        (Some(one), None) => Context::parse(one.as_bytes()),
        (None, _) | (Some(_), Some(_)) => None,
    };
    let mut span = tracer.root(Name(method, route), Kind::Server, remote)?;
    span.say("http.request.method", Value::Word(method));
    span.say("http.route", Value::Word(route));
    Some(span)
}

/// Ends the span of a request.
pub(crate) fn answered(span: Option<Open>, status: StatusCode) {
    let Some(mut span) = span else { return };
    span.say("http.response.status_code", Value::Number(status.as_u16().into()));
    // What a client did wrong is no failure of the server (OpenTelemetry's conventions for HTTP).
    span.end(status.is_server_error());
}

/// What the store tells, handed on to the metrics, and to the trace of whoever waited.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) metrics: Arc<dyn Observer>,
    pub(crate) tracer: Tracer,
}

impl Observer for Watching {
    fn group(&self, took: Duration) {
        self.metrics.group(took);
    }
    fn decided(&self, fate: Fate, entries: &[EncodedEntry]) {
        self.metrics.decided(fate, entries);
    }
    fn answered(&self, took: Duration, committed: bool) {
        if let Some(mut span) = self.tracer.child("store.commit", Kind::Internal) {
            span.earlier(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            span.end(!committed);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use telemetry::Collector;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(headers: &[&str]) -> [u8; 16] {
        let (tracer, _sender) = Tracer::new("swarm-test", Collector::new("http://127.0.0.1:1").unwrap(), || 1_795_617_028_000_000_000);
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(TRACEPARENT, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request(&tracer, "GET", "/v1/whoami", &map).unwrap().context().unwrap().trace
    }

    #[test]
    fn a_strangers_header_names_a_trace_and_decides_nothing_else() {
        let given = Context::parse(GIVEN.as_bytes()).unwrap().trace;
        assert_eq!(trace(&[GIVEN]), given);
        // "Not sampled" hides nothing.
        assert_eq!(trace(&[&GIVEN.replace("-01", "-00")]), given);
        for malformed in [&[][..], &["canary"], &[GIVEN, GIVEN], &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"], &["\u{e9}"], &[&"0".repeat(8000)]] {
            assert_ne!(trace(malformed), given, "{malformed:?}");
        }
        assert!(request(&Tracer::off(), "GET", "/v1/whoami", &HeaderMap::new()).is_none());
    }
}
