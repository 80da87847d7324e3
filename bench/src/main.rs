//! Measurements against peers, each interleaved with its peer so that both meet the same machine.
//! `cargo xtask bench [NAME …]` runs them in release; a figure without its ratio means little on another machine.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "it measures time, prints, and works on its own bytes"
)]

mod connections;
mod decisions;
mod heartbeats;
mod idle;
mod jobs;
mod log;
mod mutations;
mod reads;
mod sealing;
mod volumes;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

type Bench = (&'static str, &'static str, fn() -> anyhow::Result<()>);

const BENCHES: &[Bench] = &[
    ("sealing", "seal and open a segment, against AES-256-GCM and BLAKE3 run in sequence", sealing::run),
    ("decisions", "a decision, against Cedar's bare call on the same slice", decisions::run),
    ("mutations", "audited mutations per second with 32 writers on SQLite and on PostgreSQL, against append + fdatasync", mutations::run),
    ("idle", "start time and idle memory of the server", idle::run),
    ("connections", "ten thousand clients that keep their connection: memory of the server, and who comes beside them", connections::run),
    ("heartbeats", "a thousand simulated nodes on the channel, in cores of the server", heartbeats::run),
    ("reads", "server CPU and latency of an authorised read through TLS, 32 connections", reads::run),
    ("volumes", "put and get, against cp + fsync (BENCH_MIB: size, 4096)", volumes::run),
    ("log", "entries per second sequenced and published, and the proof of one among ten millions", log::run),
    ("jobs", "from the API call to the first instruction of a job, against runc run", jobs::run),
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| BENCHES.iter().all(|(known, ..)| known != name)) {
        println!("`{unknown}` is no benchmark; there are:");
        for (name, what, _) in BENCHES {
            println!("  {name:10} {what}");
        }
        return ExitCode::from(2);
    }
    machine();
    let mut failed = false;
    for (name, what, run) in BENCHES.iter().filter(|(name, ..)| asked.is_empty() || asked.iter().any(|one| one == name)) {
        println!("\n== {name}: {what}\n   cargo xtask bench {name}");
        if let Err(error) = run() {
            println!("   FAILED: {error:#}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo").lines().find_map(|line| line.strip_prefix("model name").map(|rest| rest.trim_start_matches(['\t', ' ', ':']).to_owned()));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    println!("machine: {} cores, {}; kernel {}; load {}", cores, cpu.unwrap_or_default(), read("/proc/sys/kernel/osrelease").trim(), load.split(' ').next().unwrap_or(""));
    if load.split(' ').next().and_then(|text| text.parse::<f64>().ok()).is_some_and(|load| load > 0.5) {
        println!("NOTE: the machine is not idle: figures of time are worse than they could be, ratios less so");
    }
}

/// Middle of some durations, in seconds.
fn median(mut of: Vec<Duration>) -> f64 {
    of.sort();
    of.get(of.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

/// The server's process of a deployment that `swarm up` started.
fn server(world: &e2e::World) -> anyhow::Result<u32> {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(world.deployment.data().join("run/up.json"))?)?;
    let parts = record.get("parts").and_then(serde_json::Value::as_array).context("parts")?;
    let server = parts.iter().find(|part| part.get(0) == Some(&"server".into())).and_then(|part| part.pointer("/1/pid")?.as_u64());
    Ok(u32::try_from(server.context("the server's process")?)?)
}

/// Processor time of a process so far: user and system.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|place| fields.get(*place)?.parse::<u64>().ok()).sum();
    // The kernel counts in hundredths (USER_HZ).
    Ok(Duration::from_millis(ticks * 10))
}
