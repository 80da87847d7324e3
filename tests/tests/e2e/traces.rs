//! One trace from the command that a person types to the commit, and one from the placing of a job to its shim; and neither
//! tells of anybody.

use std::time::Duration;

use e2e::leak::{Canary, found};
use e2e::{Collector, Options, Span, World, text};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Waits for a span of this service and name, in this trace if one is given.
fn wait(collector: &Collector, service: &str, name: &str, trace: &str) -> Span {
    let found = e2e::wait_for(&format!("a span {name} of {service} in trace {trace}"), Duration::from_secs(60), || {
        let spans = collector.spans()?;
        Ok(spans.into_iter().find(|span| span.service == service && span.text("name") == name && (trace.is_empty() || span.text("traceId") == trace)))
    });
    found.unwrap_or_else(|error| {
        let seen: Vec<String> = collector.spans().unwrap().iter().map(|span| format!("{} {}", span.service, span.text("name"))).collect();
        panic!("{error}; seen: {seen:?}")
    })
}

#[test]
fn a_command_and_a_job_are_one_trace_each_and_tell_of_nobody() {
    let collector = Collector::start().unwrap();
    let options = Options { arguments: vec!["--otlp-endpoint".to_owned(), collector.endpoint().to_owned()], ..Options::default() };
    let mut world = World::started(options).unwrap().imported().unwrap();
    let typed = |arguments: &[&str], parent: &str| {
        let mut command = world.tenant.command(arguments);
        let output = command.env("SWARM_OTLP_ENDPOINT", collector.endpoint()).env("TRACEPARENT", parent).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    typed(&["project", "create", "canary-project-of-oncology"], &format!("00-{TRACE}-{PARENT}-01"));
    let command = wait(&collector, "swarm", "swarm", TRACE);
    assert_eq!(command.text("parentSpanId"), PARENT);
    let request = wait(&collector, "swarm-server", "POST /v1/projects", TRACE);
    assert_eq!(request.text("parentSpanId"), command.text("spanId"));
    assert_eq!(request.fields["kind"], 2);
    let operations: Vec<Span> = collector.spans().unwrap().into_iter().filter(|span| span.text("parentSpanId") == request.text("spanId")).collect();
    let commit = wait(&collector, "swarm-server", "store.commit", TRACE);
    assert!(operations.iter().any(|span| span.text("spanId") == commit.text("parentSpanId")), "{operations:?} {commit:?}");
    let time = |span: &Span, field: &str| span.text(field).parse::<u64>().unwrap();
    assert!(time(&request, "startTimeUnixNano") <= time(&commit, "startTimeUnixNano"));
    assert!(time(&commit, "endTimeUnixNano") <= time(&request, "endTimeUnixNano"));
    // What is no place in a trace is as none.
    typed(&["whoami"], "00-00000000000000000000000000000000-00f067aa0ba902b7-01");
    let own = wait(&collector, "swarm-server", "GET /v1/whoami", "");
    assert_ne!(own.text("traceId"), "0".repeat(32));

    // A job: placed by the server, begun by the node, and what the node asks for it.
    let volume = world.volume("canary-patients").unwrap();
    let data = world.file("canary-row.csv", b"canary row of a patient").unwrap();
    world.tenant.typed(&["volume", "put", "canary-patients", text(&data).unwrap()]).unwrap().ok().unwrap();
    world.tenant.typed_with(&["secret", "create", "canary-secret", "--project", e2e::PROJECT], "canary value of a secret\n").unwrap().ok().unwrap();
    let job = world.submit(&["--input", "canary-patients", "--secret", "canary-secret"], "echo canary line of a log").unwrap();
    world.wait_for_state(&job, &["exited", "failed"], Duration::from_secs(120)).unwrap();
    let placed = wait(&collector, "swarm-server", "job.place", "");
    let trace = placed.text("traceId").to_owned();
    for step in ["attempt pull", "attempt open", "attempt create", "attempt run"] {
        let span = wait(&collector, "swarm-node", step, &trace);
        assert_eq!(span.text("parentSpanId"), placed.text("spanId"), "{step}");
        assert_eq!(span.fields["status"]["code"], 0, "{step}");
    }
    let submitted = wait(&collector, "swarm-server", "job.submitted", "");
    assert_eq!((&submitted.fields["links"][0]["traceId"], &submitted.fields["links"][0]["spanId"]), (&trace.as_str().into(), &placed.text("spanId").into()));
    let opened = wait(&collector, "swarm-node", "attempt open", &trace);
    let spans = collector.spans().unwrap();
    assert!(spans.iter().any(|span| span.service == "swarm-server" && span.text("parentSpanId") == opened.text("spanId")), "what the node asked while it opened is a part of that");

    // Nothing of anybody is in any of it; and what would be is found.
    let mut canaries = vec![
        Canary::new("password", "a long password of the tests"),
        Canary::new("passphrase", "correct horse battery staple"),
        Canary::new("authenticator's secret", world.admin.secret().unwrap()),
    ];
    let folder = text(world.folder()).unwrap().to_owned();
    for told in ["canary-project-of-oncology", "canary-patients", "canary-row.csv", "canary row of a patient", "canary-secret", "canary value of a secret", "canary line of a log", &volume, &job, &folder] {
        canaries.push(Canary::new(told, told));
    }
    let sent = collector.bytes();
    assert_eq!(found(&sent, &canaries), Vec::<String>::new());
    for canary in &canaries {
        for (form, bytes) in canary.forms() {
            assert!(!found(&[&sent, bytes.as_slice()].concat(), std::slice::from_ref(canary)).is_empty(), "{}, {form}", canary.what);
        }
    }

    // Without a collector everything goes on, and what cannot be one is refused by name.
    drop(collector);
    world.tenant.typed(&["whoami"]).unwrap().ok().unwrap();
    let refused = world.tenant.typed(&["--otlp-endpoint", "http://collector.example:4318", "whoami"]).unwrap().refused(2).unwrap();
    assert!(refused.contains("would travel in clear"), "{refused}");
    world.deployment.stop().unwrap();
    world.close().unwrap();
}
