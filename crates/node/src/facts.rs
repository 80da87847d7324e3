//! What this machine is and has, as the control plane places jobs by it.

use std::path::Path;

use vocabulary::Labels;
use vocabulary::plan::NodeFacts;

use crate::limits::RESERVED_MEMORY;

/// Reads the machine; blocks. What cannot be read counts as absent, so that no job is placed on a hope.
pub(crate) fn gather(dir: &Path) -> NodeFacts {
    let system = rustix::system::uname();
    let layout = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "unified"
    } else if Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        "hybrid"
    } else {
        "legacy"
    };
    let cores = std::thread::available_parallelism().map_or(0, |cores| u64::try_from(cores.get()).unwrap_or(0));
    let memory = std::fs::read_to_string("/proc/meminfo").map(|text| memory(&text)).unwrap_or(0);
    let scratch = rustix::fs::statvfs(dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)).unwrap_or(0);
    NodeFacts {
        hostname: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        cgroup_layout: layout.to_owned(),
        cpu_millis: cores.saturating_mul(1000),
        memory_bytes: memory.saturating_sub(RESERVED_MEMORY),
        scratch_bytes: scratch,
        gpus: 0,
        features: Labels::new(),
        boot_id: boot_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The id that the kernel drew at its start.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn memory(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let facts = gather(Path::new("/"));
        assert!(facts.cpu_millis >= 1000 && facts.memory_bytes > 0 && facts.scratch_bytes > 0);
        assert_eq!(facts.boot_id.len(), 36);
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       16 kB\n"), 16_384);
        assert_eq!(memory("nonsense"), 0);
    }
}
