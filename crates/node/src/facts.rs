//! What this machine is and has, as the control plane places jobs by it.

use std::path::Path;

use runtime::backend::Backend;
use runtime::probe::{self, Fact};
use vocabulary::Labels;
use vocabulary::plan::NodeFacts;

use crate::limits::RESERVED_MEMORY;

/// Reads the machine; blocks. What cannot be read counts as absent, so that no job is placed on a hope.
pub(crate) fn gather(dir: &Path) -> NodeFacts {
    let capacity = probe::capacity();
    NodeFacts {
        hostname: capacity.hostname,
        kernel: capacity.kernel,
        cgroup_layout: capacity.cgroup_layout,
        cpu_millis: capacity.cpu_millis,
        memory_bytes: capacity.memory_bytes.saturating_sub(RESERVED_MEMORY),
        scratch_bytes: probe::free_bytes(dir).unwrap_or(0),
        // Known once they are described and cleaned: every heartbeat says how many are in service.
        gpus: 0,
        runtimes: Vec::new(),
        features: Labels::new(),
        boot_id: capacity.boot_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The same, with what the sandbox can do here, tried by `program`, which carries the shim; blocks for seconds.
pub(crate) fn gather_tried(dir: &Path, program: &Path, backends: &[Backend]) -> NodeFacts {
    let tried = probe::machine_by(program, dir);
    for fact in tried.iter().filter(|fact| !fact.present) {
        tracing::warn!(name = fact.name, detail = fact.detail, costs = fact.cost_of_absence, "this machine lacks something");
    }
    NodeFacts { features: features(&tried), runtimes: backends.iter().map(Backend::offer).collect(), ..gather(dir) }
}

fn features(facts: &[Fact]) -> Labels {
    let word = |present: bool| if present { "yes" } else { "no" };
    facts.iter().map(|fact| (fact.name.clone(), word(fact.present).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let facts = gather(Path::new("/"));
        assert!(facts.cpu_millis >= 1000 && facts.memory_bytes > 0 && facts.scratch_bytes > 0);
        assert_eq!((facts.boot_id.len(), facts.gpus), (36, 0));
        assert_eq!(gather(Path::new("/nowhere")).scratch_bytes, 0);
    }

    #[test]
    fn features_are_labels() {
        let fact = |name: &str, present| Fact { name: name.to_owned(), present, detail: "x".to_owned(), cost_of_absence: "y".to_owned() };
        let labels = features(&[fact("seccomp", true), fact("tun", false)]);
        assert_eq!(labels, Labels::from([("seccomp".to_owned(), "yes".to_owned()), ("tun".to_owned(), "no".to_owned())]));
    }
}
