//! The wire form: OTLP 1.x, `ExportTraceServiceRequest` as JSON (ids hexadecimal, numbers of 64 bits as text).

use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::span::{Finished, Kind, Value};

/// A request with these spans, of a process of this service. `instance` is drawn anew by each process.
#[must_use]
pub fn encode(service: &'static str, instance: [u8; 8], spans: &[Finished]) -> Vec<u8> {
    let resource = [
        attribute("service.name", &json!({ "stringValue": service })),
        attribute("service.version", &json!({ "stringValue": env!("CARGO_PKG_VERSION") })),
        attribute("service.instance.id", &json!({ "stringValue": hex::encode(instance) })),
    ];
    let spans: Vec<Json> = spans.iter().map(span).collect();
    let scope = json!({ "name": "swarm", "version": env!("CARGO_PKG_VERSION") });
    let document = json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": [{ "scope": scope, "spans": spans }] }] });
    document.to_string().into_bytes()
}

fn span(span: &Finished) -> Json {
    let attributes: Vec<Json> = span.attributes.iter().map(|(name, value)| attribute(name, &of(*value))).collect();
    let links: Vec<Json> = span.links.iter().map(link).collect();
    let mut document = json!({
        "traceId": hex::encode(span.context.trace),
        "spanId": hex::encode(span.context.span),
        "name": span.name.to_string(),
        "kind": match span.kind { Kind::Internal => 1, Kind::Server => 2, Kind::Client => 3 },
        "startTimeUnixNano": span.begun.to_string(),
        "endTimeUnixNano": span.ended.to_string(),
        "attributes": attributes,
        "links": links,
        // 0 says nothing, 2 says that it failed: that all is well is for the operator to say.
        "status": { "code": if span.failed { 2 } else { 0 } },
    });
    if let (Some(parent), Some(fields)) = (span.parent, document.as_object_mut()) {
        fields.insert("parentSpanId".to_owned(), json!(hex::encode(parent)));
    }
    document
}

fn link(to: &Context) -> Json {
    json!({ "traceId": hex::encode(to.trace), "spanId": hex::encode(to.span) })
}

fn attribute(name: &str, value: &Json) -> Json {
    json!({ "key": name, "value": value })
}

fn of(value: Value) -> Json {
    match value {
        Value::Word(word) => json!({ "stringValue": word }),
        Value::Number(number) => json!({ "intValue": i64::try_from(number).unwrap_or(i64::MAX).to_string() }),
        Value::Flag(flag) => json!({ "boolValue": flag }),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value;

    use super::*;
    use crate::span::Name;

    /// OpenTelemetry's own types read what we write.
    #[test]
    fn opentelemetry_reads_it() {
        let one = Finished {
            context: Context { trace: [0xab; 16], span: [1; 8] },
            parent: Some([2; 8]),
            name: Name("GET", "/v1/whoami"),
            kind: Kind::Server,
            begun: 1_795_617_028_123_456_789,
            ended: 1_795_617_028_123_456_790,
            failed: true,
            attributes: vec![("http.route", Value::Word("/v1/whoami")), ("http.response.status_code", Value::Number(403)), ("swarm.replayed", Value::Flag(false))],
            links: vec![Context { trace: [3; 16], span: [4; 8] }],
        };
        let root = Finished { parent: None, failed: false, attributes: Vec::new(), links: Vec::new(), kind: Kind::Internal, ..one };
        let bytes = encode("swarm-server", [9; 8], &[one, root]);
        let read: ExportTraceServiceRequest = serde_json::from_slice(&bytes).unwrap();
        let of = &read.resource_spans[0];
        let service = of.resource.as_ref().unwrap().attributes[0].clone();
        assert_eq!((service.key.as_str(), service.value.unwrap().value.unwrap()), ("service.name", any_value::Value::StringValue("swarm-server".to_owned())));
        let [first, second] = of.scope_spans[0].spans.as_slice() else { panic!("two spans") };
        assert_eq!((first.trace_id.as_slice(), first.span_id.as_slice(), first.parent_span_id.as_slice()), (&[0xab; 16][..], &[1; 8][..], &[2; 8][..]));
        assert_eq!((first.name.as_str(), first.kind, first.start_time_unix_nano, first.end_time_unix_nano), ("GET /v1/whoami", 2, 1_795_617_028_123_456_789, 1_795_617_028_123_456_790));
        assert_eq!((first.status.as_ref().unwrap().code, first.links[0].trace_id.as_slice()), (2, &[3; 16][..]));
        let values: Vec<any_value::Value> = first.attributes.iter().map(|attribute| attribute.value.clone().unwrap().value.unwrap()).collect();
        assert_eq!(values, [any_value::Value::StringValue("/v1/whoami".to_owned()), any_value::Value::IntValue(403), any_value::Value::BoolValue(false)]);
        assert!(second.parent_span_id.is_empty() && second.status.as_ref().unwrap().code == 0 && second.kind == 1);
    }
}
