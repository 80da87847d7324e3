//! Traces of the program: of a command as a whole, and of what the parts do, sent to the collector that was named.

use rustix::time::{ClockId, clock_gettime};
use telemetry::{Collector, Context, Kind, Open, Tracer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::args::{NodeVerb, Noun};
use crate::error::CliError;

/// Where whoever starts us says of which trace we are a part, as other programs have it.
const TRACEPARENT: &str = "TRACEPARENT";

/// Does what was typed. Without a collector, the trace that we are a part of is passed on all the same.
pub(crate) async fn run(mut app: App, noun: Noun) -> Result<(), CliError> {
    let remote = std::env::var_os(TRACEPARENT).and_then(|text| Context::parse(text.as_encoded_bytes()));
    let Some(endpoint) = app.otlp.clone() else { return telemetry::within(remote, crate::dispatch(&app, noun)).await };
    let collector = Collector::new(&endpoint).map_err(|error| CliError::usage(format!("--otlp-endpoint: {error}")))?;
    let service = service(&noun);
    let (tracer, sender) = Tracer::new(service, collector, nanoseconds);
    app.tracer = tracer.clone();
    let (stop, mut sending) = (CancellationToken::new(), JoinSet::new());
    sending.spawn(sender.run(stop.clone()));
    // A part works for as long as it runs: its requests and steps are traces, not its life.
    let span = if service == COMMAND { tracer.root("swarm", Kind::Internal, remote) } else { None };
    let result = telemetry::within(span.as_ref().and_then(Open::context), crate::dispatch(&app, noun)).await;
    if let Some(span) = span {
        span.end(result.is_err());
    }
    stop.cancel();
    while sending.join_next().await.is_some() {}
    result
}

/// The service of a command.
const COMMAND: &str = "swarm";

fn service(noun: &Noun) -> &'static str {
    if matches!(noun, Noun::Server(server) if server.verb.is_none()) {
        "swarm-server"
    } else if matches!(noun, Noun::Node(NodeVerb::Run(_) | NodeVerb::Join(_))) {
        "swarm-node"
    } else if matches!(noun, Noun::Up(_) | Noun::Witness(_)) {
        // They do nothing of which there are spans.
        "swarm-other"
    } else {
        COMMAND
    }
}

/// Nanoseconds since 1970.
fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
