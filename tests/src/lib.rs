//! A person at the terminal, for the tests from end to end, the demo and the benchmarks: it knows the program `swarm` by its
//! commands alone, types them, reads what they print, and computes the codes of an authenticator with OpenSSL.
//!
//! **Invariant:** nothing here links a room of the workspace; what a person cannot do, this cannot do.
#![expect(
    clippy::disallowed_methods,
    clippy::missing_errors_doc,
    reason = "it plays a person and the person's clock; its errors are read by developers, and each says what was typed"
)]

#[expect(clippy::unwrap_used, reason = "a test's server of a database, shared with the store's own tests")]
#[path = "../../crates/store/src/tests/cluster.rs"]
mod cluster;
mod collector;
mod deployment;
mod disk;
mod groups;
pub mod leak;
#[expect(dead_code, reason = "the tests use the small image only")]
#[path = "../../xtask/src/oci.rs"]
mod oci;
mod leftovers;
mod person;
mod plane;
mod terminal;
mod typed;
mod world;

pub use collector::{Collector, Span};
pub use cluster::{Cluster, PASSWORD, ROLE, Stop};
pub use disk::SmallDisk;
pub use deployment::{Deployment, Options, signal};
pub use groups::{Group, end as end_group, orphans as orphaned_groups};
pub use leftovers::{Snapshot, snapshot};
pub use person::Person;
pub use plane::Plane;
pub use terminal::Terminal;
pub use typed::{Shell, Typed};
pub use world::{PROJECT, TENANT, World, id, text};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The program, as cargo built it beside the running test or beside `target`.
pub fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where this program lies")?;
    let found = own.ancestors().skip(1).take(3).map(|folder| folder.join("swarm")).find(|path| path.is_file());
    found.with_context(|| format!("there is no `swarm` beside {}: build it first: cargo build -p cli", own.display()))
}

/// Writes the 2 MB image of this machine's static busybox; the same machine gives the same bytes.
pub fn busybox_image(out: &Path) -> anyhow::Result<()> {
    oci::busybox_archive(out).with_context(|| out.display().to_string()).map(drop)
}

/// Waits until something is so, at most for the given time; says what was waited for when it never is.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        anyhow::ensure!(begun.elapsed() < limit, "waited {} s in vain for: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes a file that only its owner reads.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path).with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}
