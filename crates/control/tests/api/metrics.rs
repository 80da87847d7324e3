//! Metrics: another program's parser reads them, they move with what happens, and they tell of nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control::{Server, StartError};
use prometheus_parse::{Sample, Scrape, Value};
use serde_json::json;

use super::support::{Ask, PASSWORD, Running, World, config};

/// One number by name and all labels.
type Series = BTreeMap<String, f64>;

/// Reads the text with a parser that is not ours. Of a histogram its count is taken.
fn read(text: &str) -> Series {
    assert!(text.ends_with("# EOF\n"), "a cut answer is no metrics");
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let name = |sample: &Sample| {
        let labels: BTreeMap<_, _> = sample.labels.iter().collect();
        let labels: Vec<String> = labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}}", sample.metric, labels.join(","))
    };
    let number = |sample: &Sample| match &sample.value {
        Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number) => *number,
        Value::Histogram(counts) => counts.iter().map(|count| count.count).fold(0.0, f64::max),
        Value::Summary(_) => panic!("there are no summaries"),
    };
    let series: Series = scrape.samples.iter().map(|sample| (name(sample), number(sample))).collect();
    assert_eq!(series.len(), scrape.samples.len(), "no series stands twice");
    series
}

fn of(series: &Series, name: &str) -> f64 {
    *series.get(name).unwrap_or_else(|| panic!("no series `{name}` in {:#?}", series.keys()))
}

#[tokio::test(flavor = "multi_thread")]
async fn they_move_with_what_happens() {
    let world = World::new().await;
    let whoami = "swarm_requests_total{listener=api,method=GET,route=/v1/whoami,status=2xx}";
    let refused = "swarm_requests_total{listener=api,method=GET,route=/v1/whoami,status=4xx}";
    world.alice(Ask::get("/v1/whoami")).await.good();
    let before = read(&world.server.metrics().await);
    for _ in 0..3 {
        world.alice(Ask::get("/v1/whoami")).await.good();
    }
    world.server.ask(Some("no token of anybody"), Ask::get("/v1/whoami")).await.refused(401, "unauthenticated");
    let login = json!({ "name": "alice", "password": "not the password", "code": "000000", "as": { "tenant": "acme" } });
    assert_eq!(world.server.ask(None, Ask::post("/v1/login", login)).await.status, 401);
    world.alice(Ask::post("/v1/projects", json!({ "name": "vision" }))).await.good();
    world.alice(Ask::get("/v1/no-such-route")).await.refused(404, "not_found");
    world.server.published_beyond(0).await;
    let after = read(&world.server.metrics().await);
    let moved = |name: &str| of(&after, name) - before.get(name).copied().unwrap_or_default();
    assert!((moved(whoami) - 3.0).abs() < 0.5 && (moved(refused) - 1.0).abs() < 0.5);
    assert!((moved("swarm_requests_total{listener=api,method=other,route=none,status=4xx}") - 1.0).abs() < 0.5);
    assert!((moved("swarm_credentials_refused_total{}") - 1.0).abs() < 0.5);
    assert!((moved("swarm_audit_entries_total{event=login_refused,outcome=refused}") - 1.0).abs() < 0.5);
    assert!((moved("swarm_audit_entries_total{event=project_changed,outcome=allowed}") - 1.0).abs() < 0.5);
    assert!(moved("swarm_store_transactions_total{fate=committed}") >= 3.0);
    // The latencies count what the counters count.
    let count = |series: &Series, name: &str| series.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| *value).sum::<f64>();
    assert!(count(&after, "swarm_store_commit_seconds") > count(&before, "swarm_store_commit_seconds"));
    assert!(count(&after, "swarm_request_seconds") > count(&before, "swarm_request_seconds"));
    // Gauges: what there is.
    assert!((of(&after, "swarm_store_up{}") - 1.0).abs() < f64::EPSILON);
    let (entries, published) = (of(&after, "swarm_log_entries{}"), of(&after, "swarm_log_published_entries{}"));
    assert!(entries > of(&before, "swarm_log_entries{}") && published > 0.0);
    assert!((of(&after, "swarm_log_unpublished_entries{}") - (entries - published)).abs() < f64::EPSILON);
    for name in ["swarm_jobs{state=pending}", "swarm_nodes{state=alive}", "swarm_key_steps_total{step=rotated}", "swarm_rate_limited_total{bucket=member}"] {
        assert!(of(&after, name).abs() < f64::EPSILON, "{name}: of which there is none, and that is said");
    }
    assert!(of(&after, "process_resident_memory_bytes{}") > 1e6 && of(&after, "process_open_fds{}") > 3.0);
    world.server.stop().await;
}

/// Names, ids and addresses make no series: whoever asks for a thousand things adds none.
#[tokio::test(flavor = "multi_thread")]
async fn they_tell_of_nobody_and_nobody_adds_to_them() {
    let world = World::new().await;
    let ask = async |number: u32| {
        for path in [format!("/v1/volumes/{number}"), format!("/v1/nowhere/{number}"), format!("/v1/jobs/{number}?{number}=1")] {
            world.alice(Ask::get(path)).await;
        }
        world.alice(Ask::new("PATCH", "/v1/whoami")).await;
        world.server.ask(Some(&format!("swm_ses_{number}")), Ask::get("/v1/whoami")).await;
    };
    ask(0).await;
    let names = |text: &str| read(text).into_keys().collect::<BTreeSet<_>>();
    let before = names(&world.server.metrics().await);
    for number in 1..20 {
        ask(number).await;
    }
    let text = world.server.metrics().await;
    let background = |name: &&String| !name.starts_with("swarm_audit_entries_total");
    assert_eq!(names(&text).iter().filter(background).collect::<Vec<_>>(), before.iter().filter(background).collect::<Vec<_>>());
    for canary in ["acme", "beta", "alice", "bob", "ada", &world.tenant, &world.alice_token, PASSWORD, "127.0.0.1", "/nowhere"] {
        assert!(!text.contains(canary), "`{canary}` is told");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_this_machine_reads_them_and_nothing_else_is_there() {
    let server = Running::start().await;
    let address = server.server.as_ref().unwrap().metrics_address().unwrap();
    assert!(address.ip().is_loopback());
    let url = format!("http://{address}/metrics");
    let host = async |name: &str| server.http.get(&url).header("host", name).send().await.unwrap().status().as_u16();
    assert_eq!(host(&format!("localhost:{}", address.port())).await, 200);
    assert_eq!(host("[::1]").await, 200);
    for foreign in ["metrics.example", "127.0.0.1.example:80", "10.0.0.1", "localhost.example", ""] {
        assert_eq!(host(foreign).await, 421, "`{foreign}`: a page that names itself so reads nothing");
    }
    let kind = server.http.get(&url).send().await.unwrap().headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(server.http.post(&url).send().await.unwrap().status(), 405);
    assert_eq!(server.http.get(format!("http://{address}/v1/whoami")).send().await.unwrap().status(), 404);
    // The API itself has no such route.
    server.ask(None, Ask::get("/metrics")).await.refused(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7445"] {
        let mut config = config(folder.path());
        config.metrics_listen = Some(open.parse().unwrap());
        let error = tokio::time::timeout(Duration::from_secs(60), Server::start(config)).await.unwrap().unwrap_err();
        assert!(matches!(error, StartError::MetricsInClear(_)), "{error}");
        assert!(error.to_string().starts_with("`metrics_listen` is "), "{error}");
    }
    assert!(!folder.path().join("server").exists(), "nothing was made");
}

/// A support bundle takes a series only if its labels' values are these: none that we tell may be missing.
#[tokio::test(flavor = "multi_thread")]
async fn every_word_of_them_is_one_that_support_knows() {
    let world = World::new().await;
    world.alice(Ask::get("/v1/whoami")).await.good();
    world.alice(Ask::get("/v1/no-such-route")).await.refused(404, "not_found");
    world.alice(Ask::new("PATCH", "/v1/whoami")).await;
    let words = control::support::metric_words();
    let text = world.server.metrics().await;
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    for sample in &scrape.samples {
        let known = |end: &str| sample.metric.strip_suffix(end).is_some_and(|base| control::support::METRICS.contains(&base));
        assert!(known("") || ["_total", "_bucket", "_count", "_sum"].into_iter().any(known), "{} is none that support knows", sample.metric);
        for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "version") {
            assert!(control::support::METRIC_LABELS.contains(&label.as_str()), "label `{label}` of {}", sample.metric);
            assert!(words.contains(value.as_str()), "`{label}` of {} is `{value}`", sample.metric);
        }
    }
    world.server.stop().await;
}

#[tokio::test]
async fn they_are_told_only_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.metrics_listen = None;
    let server = Server::start(config).await.unwrap();
    assert_eq!(server.metrics_address(), None);
    server.stop().await;
}
