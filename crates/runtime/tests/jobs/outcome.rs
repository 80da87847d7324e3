//! What a job gets, and what comes back.

use crate::support::{Bench, LONG, held, said};
use runtime::gpu::{DeviceNode, GivenGpu};
use vocabulary::job::ExitReason;

pub(crate) fn output_and_code_come_back() {
    let bench = Bench::new();
    let outcome = bench.run(&bench.shell("echo out; echo err >&2; exit 7"));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.exit.reason, ExitReason::Failed);
    assert_eq!((outcome.exit.code, outcome.exit.signal), (Some(7), None));
    assert!(outcome.exit.started.is_some() && outcome.exit.peak_memory_bytes.is_some() && outcome.exit.cpu_ms.is_some(), "{:?}", outcome.exit);
    let outcome = bench.run(&bench.spec(["true"]));
    assert_eq!((outcome.exit.reason, outcome.exit.code), (ExitReason::Completed, Some(0)));
}

pub(crate) fn every_layer_is_read_back() {
    let bench = Bench::new();
    let outcome = bench.run(&bench.spec(["true"]));
    for name in [
        "user_namespace", "pid_namespace", "mount_namespace", "network_namespace", "ipc_namespace", "uts_namespace", "cgroup_namespace", "uid_map", "gid_map",
        "no_new_privileges", "seccomp", "capabilities_dropped", "landlock", "parent_death_signal", "readonly_root", "nosuid_mounts", "masked_paths", "readonly_proc_sys",
        "memory_limit", "swap_limit", "cpu_limit", "pids_limit", "cgroup_kill", "device_filter",
    ] {
        held(&outcome.isolation, name);
    }
    assert_eq!(held(&outcome.isolation, "uid_map"), format!("0 {} 65536", bench.spec(["true"]).id_base));
    assert!(held(&outcome.isolation, "landlock").contains("enforced: asked for ABI 6"));
    assert!(held(&outcome.isolation, "device_filter").contains("char 1:3 opened; char 10:237 Operation not permitted"));
}

/// Nodes with the numbers of NVIDIA's cards and no driver behind them: what the filter lets through ends with ENXIO.
pub(crate) fn a_gpu_is_the_jobs_and_no_other_is() {
    let bench = Bench::new();
    let node = |path: &str, major, minor| DeviceNode { path: path.to_owned(), major, minor };
    let mut spec = bench.shell("stat -c '%t:%T %u %a' /dev/nvidia200 /dev/dri/renderD200; cat /dev/nvidia200; echo x > /dev/nvidia200; ls /dev/nvidia*");
    (spec.uid, spec.gid) = (1000, 1000);
    spec.gpus = vec![GivenGpu {
        id: "nvidia.com/gpu=200".to_owned(),
        nodes: [node("/dev/nvidia200", 195, 200), node("/dev/dri/renderD200", 226, 200)].into(),
        scrubbed: "cleaned by a test".to_owned(),
    }];
    let outcome = bench.run(&spec);
    assert_eq!(outcome.stdout, "c3:c8 1000 600\ne2:c8 1000 600\n/dev/nvidia200\n", "{outcome:?}");
    assert_eq!(outcome.stderr.matches("No such device or address").count(), 2, "the filter lets it be opened for both: {outcome:?}");
    let seen = held(&outcome.isolation, "gpu");
    assert_eq!(seen, "nvidia.com/gpu=200, cleaned by a test before; /dev/dri/renderD200 226:200, /dev/nvidia200 195:200");
    let filter = held(&outcome.isolation, "device_filter");
    assert!(filter.contains("char 10:237 Operation not permitted"), "{filter}");
    if outcome.isolation.cgroup_layout == "hybrid" {
        let mut cards: Vec<&str> = filter.split([';', ',']).map(|rule| rule.trim().trim_start_matches("list: ")).filter(|rule| rule.starts_with("c 195") || rule.starts_with("c 226")).collect();
        cards.sort_unstable();
        assert_eq!(cards, ["c 195:200 rw", "c 226:200 rw"], "{filter}");
    }
    // A job that asks for none has none, and no word about it.
    let outcome = bench.run(&bench.shell("ls /dev | grep -c -e nvidia -e dri"));
    assert_eq!(outcome.stdout, "0\n", "{outcome:?}");
    assert!(outcome.isolation.layers.iter().all(|layer| layer.name != "gpu"));
}

pub(crate) fn links_that_lead_nowhere_give_way_to_our_files() {
    let bench = Bench::new();
    for (name, target) in [("hostname", "/run/nothing/hostname"), ("resolv.conf", "../run/systemd/resolve/stub-resolv.conf"), ("hosts", "hosts-of-somebody")] {
        let at = bench.image().join("etc").join(name);
        let _ = std::fs::remove_file(&at);
        std::os::unix::fs::symlink(target, &at).unwrap();
    }
    let mut spec = bench.shell("cat /etc/hostname /etc/resolv.conf; grep -c localhost /etc/hosts");
    spec.hostname = "job".to_owned();
    let outcome = bench.run(&spec);
    assert_eq!(outcome.stdout, "job\n# this job has no network\n2\n", "{}", outcome.stderr);
    assert!(bench.image().join("etc/resolv.conf").is_symlink(), "the image itself is as it was");
}

pub(crate) fn many_at_once_do_not_mix() {
    let bench = Bench::new();
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let spec = |number: i32, script: &str| {
        let mut spec = bench.shell(&format!("cat /etc/hostname; echo $NAME > /tmp/own; cat /tmp/own; ls /tmp; {script}"));
        let name = format!("job-{number}");
        spec.hostname.clone_from(&name);
        spec.env.insert("NAME".to_owned(), name.clone());
        spec.env.insert("CODE".to_owned(), number.to_string());
        (name, spec)
    };
    let says = |name: &str| format!("{name}\n{name}\nown\n");
    // Made at the same time, and all of them alive before one is asked to end.
    let jobs: Vec<_> = std::thread::scope(|scope| {
        let begin = |number| {
            let (name, spec) = spec(number, "trap 'exit $CODE' TERM; echo up; sleep 600 & wait");
            (number, name, bench.begin(&spec))
        };
        let starts: Vec<_> = (1..=6).map(|number| scope.spawn(move || begin(number))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(jobs.iter().all(|(_, _, handle)| said(handle, "up\n")));
    assert!(jobs.iter().all(|(_, _, handle)| handle.status().unwrap().exit.is_none()), "all of them live");
    for (number, name, handle) in &jobs {
        handle.stop(LONG, ExitReason::Cancelled).unwrap();
        let outcome = crate::support::finish(handle);
        handle.cleanup().unwrap();
        assert_eq!((outcome.stdout, outcome.exit.code), (says(name) + "up\n", Some(*number)));
    }
    // Some begin while others end.
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (bench, spec, says) = (&bench, &spec, &says);
            scope.spawn(move || {
                for round in 0..5 {
                    let number = 10 + thread * 5 + round;
                    let (name, spec) = spec(number, "exit $CODE");
                    let handle = bench.begin(&spec);
                    let outcome = crate::support::finish(&handle);
                    handle.cleanup().unwrap();
                    assert_eq!((outcome.stdout, outcome.exit.code), (says(&name), Some(number)));
                }
            });
        }
    });
    assert_eq!(before, std::fs::read("/proc/sys/kernel/core_pattern").unwrap());
}
