//! What the metrics of a running control plane say, as far as every name, label and value is one of the program's own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of the text: ten times what a control plane with all its routes says.
const BYTES_MAX: u64 = 2 << 20;
/// A scrape takes milliseconds; a server that hangs is told by this one being missing.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the metrics at an address that a server left. Only this machine is asked.
pub(super) async fn read(url: &str) -> Result<String, &'static str> {
    let text = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).ok_or("the address is none of ours")?;
    let address: SocketAddr = text.parse().map_err(|_| "the address is none of ours")?;
    if !address.ip().is_loopback() {
        return Err("the address is not of this machine");
    }
    let asked = tokio::time::timeout(TIMEOUT, ask(address)).await.map_err(|_| "no answer in time")?;
    let answer = asked.map_err(|_| "nobody answers there: the server does not run, or is sealed")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is malformed")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err("the answer is a refusal");
    }
    Ok(kept(body))
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let host = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines of which every part is known, and how many were not.
fn kept(text: &str) -> String {
    let words = control::support::metric_words();
    let mut out = String::new();
    let mut left_out = 0_u32;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match known(line, &words) {
            Some(line) => out.push_str(&line),
            None => left_out = left_out.saturating_add(1),
        }
    }
    let _ = writeln!(out, "# {left_out} lines left out");
    out
}

/// A line, written anew from its parts.
fn known(line: &str, words: &BTreeSet<&str>) -> Option<String> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let ours = is_metric(name);
    let value: f64 = value.parse().ok()?;
    let mut written = Vec::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        let known = match label {
            "version" => value == env!("CARGO_PKG_VERSION"),
            "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
            label => control::support::METRIC_LABELS.contains(&label) && words.contains(value),
        };
        if !known {
            return None;
        }
        written.push(format!("{label}=\"{value}\""));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    ours.then(|| format!("{name}{{{}}} {value}\n", written.join(",")))
}

/// Whether it is one of the names that the documents list.
fn is_metric(name: &str) -> bool {
    let base = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    control::support::METRICS.contains(&base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_only_when_all_of_it_is_known() {
        let words = control::support::metric_words();
        for line in [
            "swarm_requests_total{listener=\"api\",method=\"GET\",route=\"/v1/whoami\",status=\"2xx\"} 17",
            "swarm_requests_total{listener=\"nodes\",method=\"GET\",route=\"/node/v1/plan\",status=\"2xx\"} 1",
            "swarm_request_seconds_bucket{le=\"0.005\",listener=\"api\",method=\"GET\",route=\"/v1/whoami\"} 3",
            "swarm_request_seconds_bucket{le=\"+Inf\",listener=\"api\",method=\"other\",route=\"none\"} 3",
            "swarm_audit_entries_total{event=\"login_refused\",outcome=\"refused\"} 1",
            "swarm_jobs{state=\"running\"} 2",
            "swarm_nodes{state=\"lost\"} 0",
            "swarm_key_steps_total{step=\"rotated\"} 0",
            "swarm_strangers_refused_total{code=\"unauthenticated\"} 5",
            "process_open_fds 40",
        ] {
            assert!(known(line, &words).is_some(), "{line}");
        }
        for line in [
            "canary 1",
            "swarm_canary 1",
            "swarm_jobs_canary{state=\"running\"} 2",
            "swarm_jobs{state=\"canary\"} 2",
            "swarm_jobs{tenant=\"running\"} 2",
            "swarm_jobs{state=\"running\"} canary",
            "swarm_jobs{state=\"running\"} 2 # {trace_id=\"canary\"} 1",
            "swarm_build_info{version=\"canary\"} 1",
            "swarm_request_seconds_bucket{le=\"canary\"} 1",
            "swarm_requests_total{route=\"/v1/volumes/canary\"} 1",
            "swarm_jobs{state=\"running} 2",
            "",
        ] {
            assert_eq!(known(line, &words), None, "{line}");
        }
    }

    #[tokio::test]
    async fn nobody_but_this_machine_is_asked() {
        for url in ["http://192.0.2.1:80/metrics", "http://example.com/metrics", "https://127.0.0.1:1/metrics", "http://127.0.0.1:1/", "canary"] {
            assert!(read(url).await.unwrap_err().starts_with("the address is no"), "{url}");
        }
        assert!(read("http://127.0.0.1:1/metrics").await.unwrap_err().starts_with("nobody answers"));
    }
}
