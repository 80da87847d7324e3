//! A stated part of the suite of jobs with sandboxes that gVisor makes, and what of its isolation nobody can see.
#![cfg(test)]
#![expect(dead_code, reason = "the rest of the suite asks this machine's kernel, or the launcher, which are not inside")]

#[macro_use]
#[path = "jobs/list.rs"]
mod list;
#[path = "jobs/support.rs"]
mod support;

#[path = "jobs/escape.rs"]
mod escape;
#[path = "jobs/limit.rs"]
mod limit;
#[path = "jobs/outcome.rs"]
mod outcome;
#[path = "jobs/probe.rs"]
mod probe;
#[path = "jobs/scratch.rs"]
mod scratch;
#[path = "jobs/supervision.rs"]
mod supervision;

const RUNTIME: vocabulary::runtime::Runtime = vocabulary::runtime::Runtime::Runsc;

/// The names of a list.
macro_rules! names {
    ($($module:ident: $($test:ident)+;)+) => {
        &[$($(concat!(stringify!($module), "::", stringify!($test)),)+)+]
    };
}

/// The part that runs here.
macro_rules! part {
    ($with:ident) => {
        $with! {
            limit:
                the_time_limit_asks_first_and_then_kills
                the_lease_ends_a_job_without_an_agent_and_renewal_moves_it
                logs_are_there_while_the_job_runs;
            outcome:
                output_and_code_come_back
                many_at_once_do_not_mix;
            supervision:
                a_second_start_of_one_attempt_is_refused
                a_killed_shim_takes_its_job_with_it
                stop_asks_and_kill_does_not;
        }
    };
}

mod suite {
    part!(tests);

    use vocabulary::isolation::LayerVerdict;

    /// What is inside reads `not_observable`, never `held`; what holds from outside is read back as for the others.
    #[test]
    fn what_is_hidden_is_not_called_held() {
        let bench = crate::support::Bench::new();
        let outcome = bench.run(&bench.shell("echo x > /x; echo $?; echo y > /tmp/y && cat /tmp/y; uname -v"));
        assert!(outcome.stdout.starts_with("1\ny\n") && outcome.stderr.contains("Read-only file system"), "{outcome:?}");
        let verdict = |name: &str| outcome.isolation.layers.iter().find(|layer| layer.name == name).unwrap_or_else(|| panic!("no layer `{name}`")).verdict;
        for name in [
            "uid_map", "gid_map", "no_new_privileges", "seccomp", "capabilities_dropped", "readonly_root", "nosuid_mounts", "masked_paths", "readonly_proc_sys", "device_filter",
        ] {
            assert_eq!(verdict(name), LayerVerdict::NotObservable, "{name}");
        }
        for name in ["memory_limit", "cpu_limit", "pids_limit", "cgroup_kill"] {
            assert_eq!(verdict(name), LayerVerdict::Held, "{name}");
        }
    }

    #[test]
    fn the_part_is_of_the_whole() {
        let (whole, part): (&[&str], &[&str]) = (whole!(names), part!(names));
        assert!(part.iter().all(|name| whole.contains(name)) && part.len() < whole.len());
    }

    #[test]
    fn a_gpu_is_refused_by_name() {
        let bench = crate::support::Bench::new();
        let mut spec = bench.spec(["true"]);
        let nodes = [runtime::gpu::DeviceNode { path: "/dev/nvidia200".to_owned(), major: 195, minor: 200 }].into();
        spec.gpus = vec![runtime::gpu::GivenGpu { id: "nvidia.com/gpu=0".to_owned(), nodes, scrubbed: String::new() }];
        let refused = bench.refuse(&spec);
        assert!(matches!(&refused, runtime::supervisor::StartError::Create(detail) if detail.contains("gpus: runtime runsc is given none")), "{refused:?}");
    }
}
