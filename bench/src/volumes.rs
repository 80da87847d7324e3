use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::{World, text};
use rustix::fs::Advice;

const TURNS: usize = 2;

/// Where measured files lie: a disk, not memory.
pub(crate) fn place() -> PathBuf {
    std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// What one command took, and how much more memory than for an empty file, in MiB.
#[derive(Default)]
struct Turns {
    took: Vec<Duration>,
    client: u64,
    server: u64,
    busy: [Duration; 2],
}

pub(crate) fn run() -> anyhow::Result<()> {
    let mib: u64 = std::env::var("BENCH_MIB").ok().map(|text| text.parse()).transpose()?.unwrap_or(4096);
    let world = World::new()?;
    let server = crate::server(&world)?;
    let (source, empty) = (world.folder().join("source"), world.folder().join("empty"));
    write_noise(&source, mib)?;
    write_noise(&empty, 0)?;
    world.volume("empty")?;
    let opened = world.folder().join("opened");
    let base = [run_one(&world, server, &["volume", "put", "empty", text(&empty)?])?, run_one(&world, server, &["volume", "get", "empty", text(&opened)?])?];
    std::fs::remove_dir_all(&opened)?;
    let (mut copies, mut put, mut get) = (Vec::new(), Turns::default(), Turns::default());
    for turn in 0..TURNS {
        let (name, copy) = (format!("v{turn}"), world.folder().join("copy"));
        world.volume(&name)?;
        cold(world.folder())?;
        let begun = Instant::now();
        std::fs::copy(&source, &copy)?;
        std::fs::File::open(&copy)?.sync_all()?;
        copies.push(begun.elapsed());
        std::fs::remove_file(&copy)?;
        cold(world.folder())?;
        put.note(&run_one(&world, server, &["volume", "put", &name, text(&source)?])?, &base[0]);
        cold(world.folder())?;
        get.note(&run_one(&world, server, &["volume", "get", &name, text(&opened)?])?, &base[1]);
        same(&source, &opened.join("source"))?;
        std::fs::remove_dir_all(&opened)?;
    }
    let copy = crate::median(copies);
    println!("   {mib} MiB, cold cache: cp + fsync {:.0} MB/s", speed(mib, copy));
    put.tell("put", mib, copy);
    get.tell("get", mib, copy);
    println!("   (put: read, seal, send through TLS, store, sync, commit the root; get: fetch, verify, open, write, sync; client and server share the machine's cores; {TURNS} turns)");
    world.close()
}

fn speed(mib: u64, seconds: f64) -> f64 {
    mib as f64 * 1.048_576 / seconds
}

impl Turns {
    fn note(&mut self, one: &One, base: &One) {
        self.took.push(one.took);
        self.client = self.client.max(one.client.saturating_sub(base.client));
        self.server = self.server.max(one.server);
        self.busy = one.busy;
    }
    fn tell(&self, what: &str, mib: u64, copy: f64) {
        let took = crate::median(self.took.clone());
        let per_gib = |busy: Duration| busy.as_secs_f64() * 1024.0 / mib as f64;
        println!(
            "   {what} {:.0} MB/s ({:.2} of it); CPU per GiB: client {:.2} s, server {:.2} s; memory above the baseline: client {} MiB, server {} MiB",
            speed(mib, took),
            copy / took,
            per_gib(self.busy[0]),
            per_gib(self.busy[1]),
            self.client,
            self.server,
        );
    }
}

struct One {
    took: Duration,
    /// Peak of the client, in MiB.
    client: u64,
    /// Peak of the server above what it had before, in MiB.
    server: u64,
    /// CPU of client and server.
    busy: [Duration; 2],
}

fn run_one(world: &World, server: u32, arguments: &[&str]) -> anyhow::Result<One> {
    let before = (status(server, "VmRSS:")?, crate::cpu(server)?);
    // The server's high-water mark begins anew (proc(5), clear_refs).
    std::fs::write(format!("/proc/{server}/clear_refs"), "5")?;
    let begun = Instant::now();
    let mut child = world.tenant.command(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    let (mut client, mut busy) = (0, Duration::ZERO);
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        // An ended child shows neither; the last figures before that stay.
        client = status(child.id(), "VmHWM:").map_or(client, |peak| client.max(peak));
        busy = crate::cpu(child.id()).map_or(busy, |now| busy.max(now));
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = begun.elapsed();
    anyhow::ensure!(ended.success(), "swarm {}: {ended}", arguments.join(" "));
    let after = (status(server, "VmHWM:")?, crate::cpu(server)?);
    Ok(One { took, client: client / 1024, server: after.0.saturating_sub(before.0) / 1024, busy: [busy, after.1.saturating_sub(before.1)] })
}

/// A figure of a process's status, in KiB.
pub(crate) fn status(pid: u32, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()).context("no such figure")
}

/// Takes the files of a folder out of the page cache.
fn cold(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            cold(&entry.path())?;
        } else if kind.is_file() {
            let file = std::fs::File::open(entry.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// A file that nothing can compress or share.
fn write_noise(path: &Path, mib: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        reader.fill(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(file.into_inner()?.sync_all()?)
}

fn same(one: &Path, other: &Path) -> anyhow::Result<()> {
    let hash = |path: &Path| anyhow::Ok(blake3::Hasher::new().update_reader(std::fs::File::open(path)?)?.finalize());
    anyhow::ensure!(hash(one)? == hash(other)?, "what came back is not what was put");
    Ok(())
}
