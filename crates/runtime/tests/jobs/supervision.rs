//! Agents that die, shims that die, machines that restart: found again or ended with its reason, never two.

use crate::support::{Bench, LONG, ended, finish, said, wait};
use runtime::leftovers::{Leftover, find};
use runtime::supervisor::{FoundState, Handle, ShimState, StartError, SupervisorError};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;
use vocabulary::job::ExitReason;

/// The shim of an attempt and its guard, the shim first.
pub(crate) fn processes(handle: &Handle) -> Vec<u32> {
    let found = find("none", handle.directory()).unwrap();
    let mut all: Vec<u32> = found.into_iter().filter_map(|left| if let Leftover::Shim { pid, .. } = left { Some(pid) } else { None }).collect();
    let parent = |pid: u32| -> u32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    // A guard's parent is its shim.
    all.sort_by_key(|pid| (all_contains(&find("none", handle.directory()).unwrap(), parent(*pid)), *pid));
    all
}

fn all_contains(found: &[Leftover], parent: u32) -> bool {
    found.iter().any(|left| matches!(left, Leftover::Shim { pid, .. } if *pid == parent))
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// The processes in the job's own groups.
fn members(bench: &Bench, handle: &Handle) -> Vec<String> {
    let mut all = Vec::new();
    for root in std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()).chain(["/sys/fs/cgroup".into()]) {
        let group = root.join(bench.parent.name()).join(handle.attempt().to_string());
        all.extend(std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines().map(str::to_owned));
    }
    all
}

pub(crate) fn a_second_start_of_one_attempt_is_refused() {
    let bench = Bench::new();
    let spec = bench.spec(["sleep", "600"]);
    let handle = bench.begin(&spec);
    assert!(matches!(bench.refuse(&spec), StartError::Exists(_)));
    assert!(matches!(bench.restarted().start(&spec), Err(StartError::Exists(_))));
    assert!(matches!(handle.start(), Err(SupervisorError::Refused(_))), "its program is started once");
    assert!(matches!(handle.cleanup(), Err(SupervisorError::Refused(_))), "a living attempt is not cleaned up");
    assert_eq!(handle.status().unwrap().state, ShimState::Running);
    handle.kill(ExitReason::Cancelled).unwrap();
    ended(&handle);
    assert!(matches!(bench.refuse(&spec), StartError::Exists(_)), "not even after its end, until it is cleaned up");
    handle.cleanup().unwrap();
}

pub(crate) fn a_restarted_agent_finds_everything_again() {
    let bench = Bench::new();
    let running = bench.begin(&bench.shell("echo before; while [ ! -e /tmp/x ]; do read -t 0.1 x; echo tick; done"));
    let waiting = bench.supervisor.start(&bench.spec(["true"])).unwrap();
    let over = bench.begin(&bench.spec(["true"]));
    assert!(wait(LONG, || over.directory().join("exit.json").exists()));
    assert!(said(&running, "before"));
    let again = bench.restarted();
    let found = again.scan().unwrap();
    assert_eq!(found.len(), 3);
    for found in found {
        assert!(found.spec.is_some());
        match (found.attempt, found.state) {
            (attempt, FoundState::Alive) if attempt == running.attempt() => {
                assert_eq!(found.handle.status().unwrap().state, ShimState::Running);
                assert!(said(&found.handle, "before"), "the log goes on where it was");
                found.handle.stop(Duration::from_millis(100), ExitReason::Evicted).unwrap();
                assert_eq!(ended(&found.handle).reason, ExitReason::Evicted);
            }
            (attempt, FoundState::Alive) if attempt == waiting.attempt() => {
                assert_eq!(found.handle.status().unwrap().state, ShimState::Created);
                found.handle.start().unwrap();
                assert_eq!(ended(&found.handle).reason, ExitReason::Completed);
            }
            (attempt, FoundState::Ended(exit)) if attempt == over.attempt() => assert_eq!(exit.reason, ExitReason::Completed),
            other => panic!("{other:?}"),
        }
        found.handle.cleanup().unwrap();
    }
}

pub(crate) fn a_killed_shim_takes_its_job_with_it() {
    let bench = Bench::new();
    for argv in [vec!["sleep", "600"], vec!["/bin/escape-probe", "stubborn"]] {
        let handle = bench.begin(&bench.spec(argv));
        assert!(wait(LONG, || !members(&bench, &handle).is_empty()));
        if handle.status().unwrap().state == ShimState::Running {
            let _ = wait(Duration::from_secs(1), || crate::support::frames(&handle).len() == 1);
        }
        kill(processes(&handle)[0]);
        // Without any agent: the guard empties the groups, also of a job that took its death signal back.
        assert!(wait(LONG, || members(&bench, &handle).is_empty()), "the job outlived its shim");
        assert!(wait(LONG, || processes(&handle).is_empty()), "the guard goes when its work is done");
        let found = bench.restarted().scan().unwrap().remove(0);
        assert!(matches!(&found.state, FoundState::Ended(exit) if exit.reason == ExitReason::SupervisorLost), "{found:?}");
        assert_eq!(ended(&handle).reason, ExitReason::SupervisorLost, "whoever held the handle learns the same");
        handle.cleanup().unwrap();
        bench.assert_clean();
    }
}

pub(crate) fn a_killed_guard_is_replaced() {
    let bench = Bench::new();
    let handle = bench.begin(&bench.spec(["/bin/escape-probe", "stubborn"]));
    // The job's first process has the shim's command line until it executes its own program.
    assert!(wait(LONG, || processes(&handle).len() == 2));
    let [shim, guard] = processes(&handle)[..] else { panic!("a shim and its guard") };
    kill(guard);
    assert!(wait(LONG, || matches!(processes(&handle)[..], [same, other] if same == shim && other != guard)));
    kill(shim);
    assert!(wait(LONG, || members(&bench, &handle).is_empty()));
    assert_eq!(ended(&handle).reason, ExitReason::SupervisorLost);
    handle.cleanup().unwrap();
}

pub(crate) fn a_shim_killed_at_any_step_leaves_nothing() {
    let bench = Bench::new();
    // The whole making takes some ten milliseconds: steps of one millisecond from the first sight of the shim.
    for delay in (0..40).step_by(3) {
        let spec = bench.spec(["sleep", "600"]);
        let directory = bench.supervisor.directory(spec.attempt);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let step = Duration::from_micros(200);
                let mut shim = None;
                for _ in 0..50_000 {
                    let found = find("none", &directory).unwrap();
                    shim = found.iter().find_map(|left| if let Leftover::Shim { pid, .. } = left { Some(*pid) } else { None });
                    if shim.is_some() {
                        break;
                    }
                    std::thread::park_timeout(step);
                }
                for _ in 0..delay {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                kill(shim.unwrap());
            });
            bench.supervisor.start(&spec)
        });
        match result {
            // Killed before its first word: the failure is told, and everything is gone.
            Err(StartError::Create(detail)) => assert!(detail.contains("died"), "{detail}"),
            Err(other) => panic!("{other}"),
            Ok(handle) => {
                let _ = handle.start();
                assert_eq!(ended(&handle).reason, ExitReason::SupervisorLost);
                handle.cleanup().unwrap();
            }
        }
        bench.assert_clean();
    }
}

pub(crate) fn an_agent_that_dies_while_the_sandbox_is_made_loses_nothing() {
    let bench = Bench::new();
    let spec = bench.spec(["true"]);
    let directory = bench.supervisor.directory(spec.attempt);
    std::thread::scope(|scope| {
        let other = bench.restarted();
        scope.spawn(move || {
            // Another agent looks from the shim's first moment on; it may find the attempt half made, and waits for it.
            assert!(wait(LONG, || !find("none", &directory).unwrap().is_empty()));
            let found = other.scan().unwrap().remove(0);
            if let FoundState::Alive = found.state {
                assert_eq!(found.handle.status().unwrap().state, ShimState::Created);
            }
        });
        bench.supervisor.start(&spec).unwrap()
    });
    let found = bench.restarted().scan().unwrap().remove(0);
    found.handle.kill(ExitReason::Evicted).unwrap();
    let exit = ended(&found.handle);
    assert_eq!((exit.reason, exit.started), (ExitReason::Evicted, None));
    found.handle.cleanup().unwrap();
}

pub(crate) fn another_boot_means_that_everything_has_ended() {
    let bench = Bench::new();
    let handle = bench.begin(&bench.spec(["sleep", "600"]));
    for pid in processes(&handle) {
        kill(pid);
    }
    assert!(wait(LONG, || processes(&handle).is_empty()));
    std::fs::write(handle.directory().join("boot_id"), "00000000-0000-0000-0000-000000000000").unwrap();
    let found = bench.restarted().scan().unwrap().remove(0);
    assert!(matches!(&found.state, FoundState::Ended(exit) if exit.reason == ExitReason::Reboot), "{found:?}");
    assert!(members(&bench, &handle).is_empty());
    found.handle.cleanup().unwrap();
    assert!(matches!(handle.stop(Duration::ZERO, ExitReason::Cancelled), Err(SupervisorError::Ended)));
}

pub(crate) fn a_half_written_directory_is_ended_and_removed() {
    let bench = Bench::new();
    let spec = bench.spec(["true"]);
    let directory = bench.supervisor.directory(spec.attempt);
    std::fs::create_dir(bench.jobs().join("not-an-attempt")).unwrap();
    // An agent that died after its first step, and one that died while it wrote.
    for plan in [None, Some("{\"attempt\":")] {
        std::fs::create_dir(&directory).unwrap();
        if let Some(plan) = plan {
            std::fs::write(directory.join("plan.json"), plan).unwrap();
        }
        assert!(matches!(bench.refuse(&spec), StartError::Exists(_)));
        let found = bench.restarted().scan().unwrap().remove(0);
        assert!(matches!(&found.state, FoundState::Ended(exit) if exit.reason == ExitReason::SupervisorLost), "{found:?}");
        assert!(found.spec.is_none());
        found.handle.cleanup().unwrap();
        found.handle.cleanup().unwrap();
    }
    std::fs::remove_dir(bench.jobs().join("not-an-attempt")).unwrap();
    assert_eq!(bench.run(&spec).exit.reason, ExitReason::Completed, "the next start is the first");
}

pub(crate) fn stop_asks_and_kill_does_not() {
    let bench = Bench::new();
    let handle = bench.begin(&bench.shell("trap 'echo asked; exit 5' TERM; echo up; while :; do read -t 1 x; done"));
    assert!(said(&handle, "up"));
    handle.stop(LONG, ExitReason::Cancelled).unwrap();
    let outcome = finish(&handle);
    assert_eq!((outcome.exit.reason, outcome.exit.code), (ExitReason::Cancelled, Some(5)));
    assert!(outcome.stdout.contains("asked"));
    handle.cleanup().unwrap();
    let handle = bench.begin(&bench.shell("trap 'echo asked' TERM; (trap '' TERM; sleep 600)& echo up; while :; do read -t 1 x; done"));
    assert!(said(&handle, "up"));
    handle.kill(ExitReason::KeyRevoked).unwrap();
    let outcome = finish(&handle);
    assert_eq!((outcome.exit.reason, outcome.exit.signal), (ExitReason::KeyRevoked, Some(9)));
    assert!(!outcome.stdout.contains("asked"));
    handle.cleanup().unwrap();
}

pub(crate) fn what_cannot_be_executed_and_what_ends_by_a_signal_says_so() {
    let bench = Bench::new();
    let run = |argv: &[&str]| bench.run(&bench.spec(argv.iter().copied())).exit;
    let exit = run(&["/bin/absent"]);
    assert_eq!((exit.reason, exit.code), (ExitReason::Failed, Some(127)));
    assert!(exit.detail.contains("`/bin/absent` was not executed: No such file"), "{exit:?}");
    assert_eq!(run(&["absent"]).code, Some(127));
    assert_eq!(run(&["/etc/passwd"]).code, Some(126));
    assert_eq!(run(&["/etc"]).code, Some(126));
    assert_eq!(run(&["/bin/sh", "-c", "exit 125"]).code, Some(125));
    let exit = bench.run(&bench.shell("trap - TERM; (kill -9 $$) ; kill -SEGV $$; ulimit -c; exit 9")).exit;
    // The first process of a pid namespace ignores what it does not handle, also SIGKILL from inside.
    assert_eq!(exit.code, Some(9));
    let mut spec = bench.spec(["true"]);
    spec.argv.clear();
    assert!(matches!(bench.refuse(&spec), StartError::Create(detail) if detail.contains("argv")));
    let mut spec = bench.spec(["true"]);
    spec.image_root = bench.directory.path().join("no-image");
    assert!(matches!(bench.refuse(&spec), StartError::Create(detail) if detail.contains("no-image")));
    let mut spec = bench.spec(["true"]);
    spec.cwd = "/no/such/place".to_owned();
    assert!(matches!(bench.refuse(&spec), StartError::Create(_)));
}
