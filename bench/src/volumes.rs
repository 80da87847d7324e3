use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::{World, text};

const TURNS: usize = 2;

/// Where measured files lie: a disk, not memory.
pub(crate) fn place() -> PathBuf {
    std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

pub(crate) fn run() -> anyhow::Result<()> {
    let mib: u64 = std::env::var("BENCH_MIB").ok().map(|text| text.parse()).transpose()?.unwrap_or(4096);
    let world = World::new()?;
    let source = world.folder().join("source");
    write_noise(&source, mib)?;
    let mut times: [Vec<Duration>; 3] = std::array::from_fn(|_| Vec::new());
    for turn in 0..TURNS {
        let (name, copy, opened) = (format!("v{turn}"), world.folder().join("copy"), world.folder().join("opened"));
        world.volume(&name)?;
        let begun = Instant::now();
        std::fs::copy(&source, &copy)?;
        std::fs::File::open(&copy)?.sync_all()?;
        times[0].push(begun.elapsed());
        let begun = Instant::now();
        world.tenant.typed(&["volume", "put", &name, text(&source)?])?.ok()?;
        times[1].push(begun.elapsed());
        let begun = Instant::now();
        world.tenant.typed(&["volume", "get", &name, text(&opened)?])?.ok()?;
        times[2].push(begun.elapsed());
        same(&source, &opened.join("source"))?;
        std::fs::remove_dir_all(&opened)?;
        std::fs::remove_file(&copy)?;
    }
    let [copy, put, get] = times.map(crate::median);
    let speed = |seconds: f64| mib as f64 * 1.048_576 / seconds;
    println!("   {mib} MiB: cp + fsync {:.0} MB/s; put {:.0} MB/s ({:.2} of it); get {:.0} MB/s ({:.2} of it)", speed(copy), speed(put), copy / put, speed(get), copy / get);
    println!("   (put: read, seal, send through TLS, store, commit the root; get: fetch, verify, open, write; client and server share the machine's cores; {TURNS} turns)");
    world.close()
}

/// A file that nothing can compress or share.
fn write_noise(path: &std::path::Path, mib: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        reader.fill(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(file.into_inner()?.sync_all()?)
}

fn same(one: &std::path::Path, other: &std::path::Path) -> anyhow::Result<()> {
    let hash = |path: &std::path::Path| anyhow::Ok(blake3::Hasher::new().update_reader(std::fs::File::open(path)?)?.finalize());
    anyhow::ensure!(hash(one)? == hash(other)?, "what came back is not what was put");
    Ok(())
}
