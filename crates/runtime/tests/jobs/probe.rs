//! What the machine says about itself agrees with what jobs meet.

use crate::support::{Bench, SHIM, held};
use runtime::probe::{capacity, free_bytes, machine_by};
use std::collections::BTreeSet;
use std::path::Path;

pub(crate) fn every_fact_is_looked_at_and_what_jobs_need_is_here() {
    let bench = Bench::new();
    // Other tests beside this one mount the scratch of their jobs; the tries mount nothing of that name.
    let others = |line: &&str| line.split(' ').nth(4).is_some_and(|place| place.ends_with("/scratch"));
    let mounts = || -> Vec<String> { std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| !others(line)).map(str::to_owned).collect() };
    let before = mounts();
    // Called from a program with threads, as the agent does.
    let images = bench.image();
    let facts = std::thread::spawn(move || machine_by(Path::new(SHIM), &images)).join().unwrap();
    let names: BTreeSet<_> = facts.iter().map(|fact| fact.name.as_str()).collect();
    assert_eq!(names.len(), facts.len(), "no fact twice");
    for fact in &facts {
        assert!(fact.detail != "not looked at" && !fact.detail.starts_with("not tried") && !fact.cost_of_absence.is_empty(), "{fact:?}");
    }
    let present = |name: &str| facts.iter().find(|fact| fact.name == name).unwrap().present;
    // The other tests run jobs with all of these: the probe must have seen them.
    for name in [
        "root", "kernel", "user_namespace", "pid_namespace", "mount_namespace", "network_namespace", "ipc_namespace", "uts_namespace", "cgroup_namespace", "cgroups",
        "idmapped_overlay", "seccomp", "landlock", "fscrypt",
    ] {
        assert!(present(name), "{name}");
    }
    for (name, path) in [("fuse", "/dev/fuse"), ("tun", "/dev/net/tun"), ("tpm", "/dev/tpmrm0"), ("sgx", "/dev/sgx_enclave"), ("gpu", "/dev/nvidia0")] {
        assert!(!present(name) || Path::new(path).exists(), "{name} is claimed without {path}");
    }
    assert_eq!(before, mounts(), "the tries leave no mount");
    assert!(runtime::leftovers::find("none", Path::new("/tmp/state")).unwrap().is_empty());
    let layout = bench.run(&bench.spec(["true"])).isolation.cgroup_layout;
    assert_eq!(capacity().cgroup_layout, layout);
}

pub(crate) fn a_program_without_the_verb_claims_nothing() {
    let facts = machine_by(Path::new("/bin/true"), Path::new("/"));
    let fact = facts.iter().find(|fact| fact.name == "user_namespace").unwrap();
    assert!(!fact.present && fact.detail.starts_with("not tried"), "{fact:?}");
}

pub(crate) fn capacity_is_what_the_kernel_says() {
    let capacity = capacity();
    assert_eq!(capacity.kernel, std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
    assert_eq!(capacity.boot_id, std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    assert!(capacity.cpu_millis >= 1000 && capacity.memory_bytes > 1 << 28);
    assert!(free_bytes(Path::new("/")).unwrap() > 0);
    assert!(free_bytes(Path::new("/no/such/place")).is_err());
}

pub(crate) fn the_cgroup_namespace_is_the_jobs_own() {
    let bench = Bench::new();
    let outcome = bench.run(&bench.shell("grep -v '/$' /proc/self/cgroup; hostname; uname -n; cat /etc/hostname"));
    // Every path that the job sees is the root of its own view; the node's name does not show.
    assert_eq!(outcome.stdout, "job\njob\njob\n", "{outcome:?}");
    held(&outcome.isolation, "uts_namespace");
}
